//! `docs/kernels.md`: which tool runs on which kernel by which way to attach, as the last run over all kernels saw it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::report::{Report, Way};
use crate::shell::workspace;

/// Where the table is.
const PAGE: &str = "docs/kernels.md";

/// The lines around the table.
const BEGIN: &str = "<!-- what follows is written by `cargo xtask test --all` -->";
const END: &str = "<!-- what was written ends here -->";

/// The ways to attach, and the letters that stand for them. What a tool was not forced to, it chose.
const WAYS: [(&str, char); 5] =
    [("fexit", 'f'), ("kprobe", 'k'), ("tracepoint", 't'), ("raw_tp", 'r'), ("uprobe", 'u')];

/// A kernel of the table.
pub(crate) struct Row {
    /// Its line, as `--kernels` names it, or where else it is from.
    pub(crate) line: String,
    /// What `uname -r` says in it, or why there is none.
    pub(crate) release: String,
    /// The column of the report, where it ran.
    pub(crate) column: Option<usize>,
    /// How much of the checks ran there.
    pub(crate) extent: String,
}

/// The table, with the date of its run.
fn table(report: &Report, rows: &[Row], tools: &[&str], date: &str) -> String {
    let mut text = format!("Run on {date}.\n\n| kernel | release | checks | {} |\n", tools.join(" | "));
    writeln!(text, "|{}", " --- |".repeat(3 + tools.len())).expect("a String takes all");
    for row in rows {
        let failed = |what| row.column.is_some_and(|column| report.has_failed(column, what));
        let broken = if failed("kernel tests") { ", **broke off**" } else { "" };
        let warned = if failed("dmesg") { ", **its log has a warning**" } else { "" };
        write!(text, "| {} | {} | {}{broken}{warned} |", row.line, row.release, row.extent)
            .expect("a String takes all");
        for tool in tools {
            write!(text, " {} |", row.column.map_or_else(String::new, |column| cell(report, column, tool)))
                .expect("a String takes all");
        }
        text.push('\n');
    }
    text
}

/// The letters of the ways that a tool passed by; what failed, and what could not be tested, is marked.
fn cell(report: &Report, column: usize, tool: &str) -> String {
    let told = |letter, way| match way {
        Way::Passed => format!("{letter}"),
        Way::Failed => format!("**{letter} failed**"),
        Way::Untested => format!("{letter}?"),
    };
    let mut letters: Vec<String> = Vec::new();
    for (way, letter) in WAYS {
        letters.extend(report.way(column, tool, way).map(|way| told(letter, way)));
    }
    let chosen = report.way(column, tool, "any");
    if letters.is_empty() || chosen == Some(Way::Failed) {
        letters.extend(chosen.map(|way| told('a', way)));
    }
    if letters.is_empty() { "no".to_owned() } else { letters.join(" ") }
}

/// The page with another table between its markers.
fn renewed(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// Writes the table into its page.
///
/// # Errors
/// The page or its markers are not there.
pub(crate) fn write(report: &Report, rows: &[Row], tools: &[&str], date: &str) -> Result<&'static str> {
    let path = workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    fs::write(&path, renewed(&page, &table(report, rows, tools, date))?)?;
    Ok(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Harness;

    #[test]
    fn the_page_has_its_markers_and_readme_leads_there() {
        let read = |name: &str| fs::read_to_string(workspace().join(name)).expect("a file of the repository");
        let page = read(PAGE);
        let once = renewed(&page, "one\n").expect("it has the markers");
        assert!(once.contains("\none\n") && once.ends_with('\n'), "{once}");
        let twice = renewed(&once, "two\n").expect("it still has them");
        assert!(twice.contains("\ntwo\n") && !twice.contains("\none\n"), "{twice}");
        assert!(page.contains("\nRun on 2"), "the table has no date");
        assert!(read("README.md").contains(PAGE));
    }

    #[test]
    fn a_cell_says_what_ran_and_what_failed() {
        let mut harness = Harness::default();
        for line in [
            "SKIP tcplife::fexit::one: this kernel does not offer hooks of the kind fexit",
            "SKIP tcptop::fexit::one: no packet filter",
            "test tcptop::fexit::one ... ok",
            "test tcplife::fexit::one ... ok",
            "test tcplife::kprobe::one ... ok",
            "test tcplife::tracepoint::one ... FAILED",
            "test tcplife::any::one ... ok",
            "test tcpdrop::any::one ... ok",
            "test result: FAILED. 5 passed; 1 failed; 0 ignored",
        ] {
            harness.line(line);
        }
        let mut report = Report::new(vec!["here".to_owned()]);
        report.tools(0, &harness);
        let row = |line: &str, column| Row {
            line: line.to_owned(),
            release: "5.10.0".to_owned(),
            column,
            extent: "all".to_owned(),
        };
        let text = table(
            &report,
            &[row("5.10", Some(0)), row("5.10-rt", None)],
            &["tcpdrop", "tcplife", "tcptop"],
            "2026-01-02",
        );
        let expected = "Run on 2026-01-02.\n\n| kernel | release | checks | tcpdrop | tcplife | tcptop |\n\
                        | --- | --- | --- | --- | --- | --- |\n\
                        | 5.10 | 5.10.0 | all | a | k **t failed** | f? |\n\
                        | 5.10-rt | 5.10.0 | all |  |  |  |\n";
        assert_eq!(text, expected);
    }
}
