//! Counting tests: what harnesses print becomes one table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
    }

    fn cell(self) -> String {
        let parts = [(self.passed, "passed"), (self.failed, "FAILED"), (self.skipped, "skipped")];
        let parts: Vec<_> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
    }
}

/// Reads the output of a test binary (the standard harness or libtest-mimic) line by line.
#[derive(Debug, Default)]
pub(crate) struct Harness {
    verdicts: Vec<(String, Verdict)>,
    reasons: BTreeMap<String, String>,
    /// Runs of tests that failed and were made again, because the kernel may have been the one to blame.
    again: Vec<String>,
    /// A test whose verdict is still to come: what the test itself prints may stand between.
    open: Option<String>,
    /// What the harness counts itself, over all of its summaries: passed, failed, ignored.
    summary: Option<[usize; 3]>,
    /// Whether its process ended well.
    success: Option<bool>,
    /// Why it could not come to its end.
    broken: Option<String>,
    /// The failed test whose message is being printed, and the messages so far, a few lines each.
    telling: Option<String>,
    messages: BTreeMap<String, Vec<String>>,
}

/// How many lines of a failed test's message are repeated at the end: what failed, which command, what it said.
const MESSAGE_LINES: usize = 24;

impl Harness {
    /// Takes one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        // A message has titles of the same form in it, as of what a tool wrote. The standard harness adds ` stdout` to a
        // test's name.
        let title = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----"));
        let name = title.map(|title| title.trim_end_matches(" stdout"));
        let name = name.filter(|name| self.verdicts.iter().any(|(known, _)| known == name));
        if let Some(name) = name {
            self.telling = Some(name.to_owned());
        } else if line.starts_with("test result: ") || line == "failures:" {
            self.telling = None;
        }
        if let Some(telling) = &self.telling {
            let message = self.messages.entry(telling.clone()).or_default();
            if message.len() <= MESSAGE_LINES && !line.is_empty() && name.is_none() {
                message.push(line.to_owned());
            }
        } else if let Some(rest) = line.strip_prefix("SKIP ") {
            // The name holds `::`, so the reason starts at the first colon that a blank follows.
            let (name, reason) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
            self.reasons.insert(name.trim().to_owned(), reason.trim().to_owned());
        } else if let Some(rest) = line.strip_prefix("AGAIN ") {
            self.again.push(rest.to_owned());
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.open = None;
            let counted = ["passed", "failed", "ignored"].map(|what| count(rest, what));
            let sum = self.summary.get_or_insert_default();
            for (total, n) in sum.iter_mut().zip(counted) {
                *total += n;
            }
        } else if let Some((name, rest)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ..."))
        {
            // libtest-mimic writes a kind in brackets before the name when there is one, and pads the name.
            let name = name.trim().rsplit(' ').next().unwrap_or_default().to_owned();
            self.open = None;
            if !self.verdict(&name, rest.trim()) {
                self.open = Some(name);
                self.line(rest.trim_start());
            }
        } else if let Some(name) = self.open.take()
            && !self.verdict(&name, line.trim())
        {
            self.open = Some(name);
        }
    }

    /// Notes how the harness's process ended.
    pub(crate) fn ended(&mut self, success: bool) {
        self.success = Some(success);
    }

    /// Notes why the harness could not come to its end.
    pub(crate) fn broke(&mut self, why: &str) {
        self.broken = Some(why.to_owned());
    }

    /// How many tests have ended.
    pub(crate) fn len(&self) -> usize {
        self.verdicts.len()
    }

    fn verdict(&mut self, name: &str, text: &str) -> bool {
        let verdict = match text {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed,
            _ => match text.strip_prefix("ignored") {
                None => return false,
                Some(reason) => {
                    // `ignored, reason` by the standard harness, `ignored (reason)` by libtest-mimic, which may
                    // leave out what comes after the reason's first line.
                    let reason = reason.trim();
                    let bare = reason.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                    let reason = bare.unwrap_or(reason).trim_start_matches([',', ' ']);
                    if !reason.is_empty() {
                        self.reasons.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
                    }
                    Verdict::Skipped
                }
            },
        };
        self.verdicts.push((name.to_owned(), verdict));
        true
    }

    /// What is wrong with the output as a whole: a harness that did not finish, or counts that differ from its own.
    fn problem(&self) -> Option<String> {
        if self.broken.is_some() {
            return self.broken.clone();
        }
        let Some(theirs) = self.summary else {
            return Some(match &self.open {
                Some(name) => format!("the harness ended without a summary, in the test {name}"),
                None => "the harness ended without a summary".to_owned(),
            });
        };
        let ours = [Verdict::Passed, Verdict::Failed, Verdict::Skipped]
            .map(|verdict| self.verdicts.iter().filter(|(_, v)| *v == verdict).count());
        if self.success == Some(false) && ours[1] == 0 {
            return Some("the harness reports failure though no test failed".to_owned());
        }
        (ours != theirs)
            .then(|| format!("the harness counts {theirs:?} passed, failed, ignored, but {ours:?} were seen"))
    }
}

/// The number before a word, as in `3 passed; 0 failed`.
fn count(text: &str, what: &str) -> usize {
    let part = text.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// What a tool says of a way that the kernel does not have.
const REFUSAL: &str = "this kernel does not offer";

/// What became of a tool's way to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It showed what it should.
    Passed,
    /// A check failed.
    Failed,
    /// What a check needs besides is not there.
    Untested,
}

/// The whole run: columns are kernels, rows are tiers and tools.
#[derive(Debug)]
pub(crate) struct Report {
    columns: Vec<String>,
    cells: BTreeMap<(String, usize), Counts>,
    /// In the order in which they came.
    rows: Vec<String>,
    failures: Vec<String>,
    skips: BTreeMap<(usize, String), BTreeSet<String>>,
    again: Vec<String>,
    /// How the checks of a tool ended, by column, tool and way to attach.
    ways: BTreeMap<(usize, String, String), Counts>,
    /// Where a check was skipped though the kernel may have the way.
    untested: BTreeSet<(usize, String, String)>,
}

impl Report {
    /// A report whose columns have these names.
    pub(crate) fn new(columns: Vec<String>) -> Self {
        Self {
            columns,
            cells: BTreeMap::new(),
            rows: Vec::new(),
            failures: Vec::new(),
            skips: BTreeMap::new(),
            again: Vec::new(),
            ways: BTreeMap::new(),
            untested: BTreeSet::new(),
        }
    }

    /// Adds all tests of a tier to its one row.
    pub(crate) fn tier(&mut self, column: usize, row: &str, harness: &Harness) {
        self.harness(column, harness, |_| row.to_owned());
        if let Some(problem) = harness.problem() {
            self.failed(column, row, &problem);
        }
    }

    /// Adds the kernel tests: a row per tool, which is the first part of a test's name.
    pub(crate) fn tools(&mut self, column: usize, harness: &Harness) {
        self.harness(column, harness, |name| name.split("::").next().unwrap_or_default().to_owned());
        for (name, verdict) in &harness.verdicts {
            if let [tool, way, _] = name.split("::").collect::<Vec<_>>()[..] {
                let verdict = if harness.reasons.contains_key(name) && *verdict == Verdict::Passed {
                    Verdict::Skipped
                } else {
                    *verdict
                };
                let key = (column, tool.to_owned(), way.to_owned());
                let reason = harness.reasons.get(name).map_or("", String::as_str);
                if verdict == Verdict::Skipped && !reason.contains(REFUSAL) {
                    self.untested.insert(key.clone());
                }
                self.ways.entry(key).or_default().add(verdict);
            }
        }
        if let Some(problem) = harness.problem() {
            self.failed(column, "kernel tests", &problem);
        }
    }

    fn harness(&mut self, column: usize, harness: &Harness, row: impl Fn(&str) -> String) {
        self.again.extend(harness.again.iter().map(|what| format!("{}: {what}", self.columns[column])));
        for (name, verdict) in &harness.verdicts {
            let reason = harness.reasons.get(name).map(String::as_str);
            let row = row(name);
            match (verdict, reason) {
                (Verdict::Failed, _) => {
                    let message = harness.messages.get(name).into_iter().flatten();
                    let lines: Vec<_> = std::iter::once(name).chain(message).map(String::as_str).collect();
                    self.failed(column, &row, &lines.join("\n      "));
                }
                (Verdict::Passed, None) => self.passed(column, &row),
                (Verdict::Passed | Verdict::Skipped, reason) => {
                    self.skipped(column, &row, name, reason.unwrap_or("marked as ignored, without a reason"));
                }
            }
        }
    }

    /// Counts something that went well.
    pub(crate) fn passed(&mut self, column: usize, row: &str) {
        self.cell(column, row).add(Verdict::Passed);
    }

    /// Counts a failure; `what` is the test's name or a sentence.
    pub(crate) fn failed(&mut self, column: usize, row: &str, what: &str) {
        self.cell(column, row).add(Verdict::Failed);
        let line = format!("{} on {}: {what}", row, self.columns[column]);
        self.failures.push(line);
    }

    /// Counts something that was not run.
    pub(crate) fn skipped(&mut self, column: usize, row: &str, what: &str, reason: &str) {
        self.cell(column, row).add(Verdict::Skipped);
        self.skips.entry((column, reason.to_owned())).or_default().insert(what.to_owned());
    }

    fn cell(&mut self, column: usize, row: &str) -> &mut Counts {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.cells.entry((row.to_owned(), column)).or_default()
    }

    /// What became of the tool there when it was made to attach in this way; nothing where the kernel does not offer it.
    pub(crate) fn way(&self, column: usize, tool: &str, way: &str) -> Option<Way> {
        let key = (column, tool.to_owned(), way.to_owned());
        let counts = self.ways.get(&key)?;
        if counts.failed > 0 {
            Some(Way::Failed)
        } else if counts.passed > 0 {
            Some(Way::Passed)
        } else {
            self.untested.contains(&key).then_some(Way::Untested)
        }
    }

    /// Whether something in this cell failed.
    pub(crate) fn has_failed(&self, column: usize, row: &str) -> bool {
        self.cells.get(&(row.to_owned(), column)).is_some_and(|counts| counts.failed > 0)
    }

    /// All cells together.
    pub(crate) fn sum(&self) -> Counts {
        self.cells.values().fold(Counts::default(), |sum, cell| Counts {
            passed: sum.passed + cell.passed,
            failed: sum.failed + cell.failed,
            skipped: sum.skipped + cell.skipped,
        })
    }

    /// Whether anything failed.
    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The table, the skips, the failures, and as last line `N passed, N failed, N skipped`.
    pub(crate) fn text(&self) -> String {
        let mut lines =
            vec![std::iter::once(String::new()).chain(self.columns.iter().cloned()).collect::<Vec<_>>()];
        for row in &self.rows {
            let cells = (0..self.columns.len()).map(|column| {
                self.cells.get(&(row.clone(), column)).map_or_else(|| "-".to_owned(), |counts| counts.cell())
            });
            lines.push(std::iter::once(row.clone()).chain(cells).collect());
        }
        let widths: Vec<usize> = (0..=self.columns.len())
            .map(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in &lines {
            let padded: Vec<_> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(text, "{}", padded.join("  ").trim_end()).expect("a String takes all");
        }
        if !self.skips.is_empty() {
            text.push_str("\nskipped:\n");
        }
        for ((column, reason), names) in &self.skips {
            let example = names.first().map(String::as_str).unwrap_or_default();
            let which = if names.len() == 1 { example.to_owned() } else { format!("{} tests", names.len()) };
            writeln!(text, "  {}: {which}: {reason}", self.columns[*column]).expect("a String takes all");
        }
        if !self.again.is_empty() {
            text.push_str("\nrun again:\n");
        }
        for line in &self.again {
            writeln!(text, "  {line}").expect("a String takes all");
        }
        if !self.failures.is_empty() {
            text.push_str("\nFAILED:\n");
        }
        for line in &self.failures {
            writeln!(text, "  {line}").expect("a String takes all");
        }
        let sum = self.sum();
        writeln!(text, "\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped)
            .expect("a String takes all");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Harness {
        let mut harness = Harness::default();
        text.lines().for_each(|line| harness.line(line));
        harness
    }

    #[test]
    fn a_harness_is_counted_with_its_skips() {
        let harness = read(
            "running 4 tests\n\
             SKIP tcplife::kprobe::wide: this kernel has no kprobes\n\
             test tcpconnect::fexit::port_filter ... ok\n\
             test tcplife::kprobe::wide          ... ok\n\
             test engine::loads ... FAILED\r\n\
             test tcplife::slow ... ignored, takes an hour\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n",
        );
        assert_eq!(harness.problem(), None);
        let mut report = Report::new(vec!["6.18".to_owned()]);
        report.tools(0, &harness);
        assert_eq!(report.sum(), Counts { passed: 1, failed: 1, skipped: 2 });
        let text = report.text();
        assert!(text.contains("6.18: tcplife::kprobe::wide: this kernel has no kprobes"), "{text}");
        assert!(text.contains("6.18: tcplife::slow: takes an hour"), "{text}");
        assert!(text.contains("engine on 6.18: engine::loads"), "{text}");
        assert!(text.ends_with("\n1 passed, 1 failed, 2 skipped\n"), "{text}");
    }

    #[test]
    fn what_a_test_prints_does_not_hide_its_verdict() {
        let harness = read(
            "test a::one ... some text of its own\nSKIP a::one: no veth\nok\n\
             test a::two ... SKIP a::two: no veth\nok\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(harness.problem(), None);
        let mut report = Report::new(vec!["k".to_owned()]);
        report.tier(0, "unit", &harness);
        assert_eq!(report.sum(), Counts { passed: 0, failed: 0, skipped: 2 });
        assert!(report.text().contains("k: 2 tests: no veth"));
        assert_eq!(harness.len(), 2);
    }

    #[test]
    fn a_test_that_ran_again_is_told() {
        let harness = read(
            "test a::one ... AGAIN a::one: run 1 of at most 3 failed: one row\nok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(harness.problem(), None);
        let mut report = Report::new(vec!["k".to_owned()]);
        report.tools(0, &harness);
        assert_eq!(report.sum(), Counts { passed: 1, failed: 0, skipped: 0 });
        let text = report.text();
        assert!(text.contains("\nrun again:\n  k: a::one: run 1 of at most 3 failed: one row\n"), "{text}");
    }

    #[test]
    fn a_failures_message_is_told_again_at_the_end() {
        let harness = read(
            "test a::one ... FAILED\n\nfailures:\n\n---- a::one ----\ntwo rows\n\nnot three\n---- command ----\n\
             netbcc\n\n\nfailures:\n    a::one\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(harness.problem(), None);
        let mut report = Report::new(vec!["k".to_owned()]);
        report.tools(0, &harness);
        let text = report.text();
        assert!(
            text.contains(
                "a on k: a::one\n      two rows\n      not three\n      ---- command ----\n      netbcc\n\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_harness_that_dies_is_a_failure() {
        let harness = read("test a::one ... ok\ntest a::two ... \n");
        let mut report = Report::new(vec!["k".to_owned()]);
        report.tools(0, &harness);
        assert!(report.has_failures());
        assert!(report.text().contains("without a summary, in the test a::two"));
        assert!(read("test a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored").problem().is_some());
    }

    #[test]
    fn a_failing_process_without_a_failing_test_is_a_failure() {
        let mut harness = read("test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n");
        harness.ended(true);
        assert_eq!(harness.problem(), None);
        harness.ended(false);
        assert!(harness.problem().is_some());
        harness.broke("its kernel panicked");
        assert_eq!(harness.problem().as_deref(), Some("its kernel panicked"));
    }

    #[test]
    fn several_summaries_add_up() {
        let one = "test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(read(&format!("{one}{one}")).problem(), None);
    }
}
