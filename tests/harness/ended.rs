//! A tool that has ended: what it said, and whether that adds up.

use crate::kernel::note;
use crate::rows::Rows;

/// A tool that ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, if it was not a signal.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The lines on stdout.
    pub stdout: Vec<String>,
    /// Everything on stderr.
    pub stderr: String,
    /// Events for which the kernel ran none of its programs and counted none as missed, if that was watched.
    pub(crate) hidden: usize,
    /// All that it wrote, for people.
    pub(crate) report: String,
}

impl Ended {
    /// Why this kernel cannot run the tool in the way that it was forced to, if that is how it ended.
    pub fn refusal(&self) -> Option<String> {
        const REFUSAL: &str = "this kernel does not offer";
        (self.code == Some(1) && self.stderr.contains(REFUSAL))
            .then(|| self.stderr.lines().next().unwrap_or_default().to_owned())
    }

    /// Insists on the exit code.
    pub fn code(&self, code: i32) -> &Self {
        if self.code != Some(code) {
            self.fail(&format!("exit code {:?} (signal {:?}), not {code}", self.code, self.signal));
        }
        self
    }

    /// Insists that nothing was lost and nothing went wrong: stderr holds at most notes.
    pub fn quiet(&self) -> &Self {
        // With -v the ladder gives the kernel's reasons, each with the number of an "os error".
        let said = self.stderr.to_lowercase().replace("os error", "");
        for word in ["lost", "dropped", "panicked", "error"] {
            if said.contains(word) {
                self.fail(&format!("stderr speaks of {word:?}"));
            }
        }
        self
    }

    /// Insists that every event that did not become a row was told: lost, or in a probe run that the kernel skipped.
    /// An event that was lost may or may not have cost a row. Where the tool says that the kernel does not count the
    /// kprobe runs that it skips, up to one row in twenty may be missing; on an emulated processor one in a hundred is.
    /// Where the kernel ran no program for an event ([`Run::watched`](crate::run::Run::watched)), nobody can tell.
    pub fn accounts_for(&self, seen: usize, all: usize) -> &Self {
        let told = self.lost() + self.skipped();
        let uncounted =
            if self.stderr.contains("skips a kprobe that interrupts another") { all / 20 } else { 0 };
        let untold = self.hidden + uncounted;
        if seen > all || all - seen > told + untold {
            self.fail(&format!("{seen} of {all} rows seen, {told} told as lost, {} hidden", self.hidden));
        }
        if self.hidden > 0 && all > seen + told {
            note(format!(
                "NOTE {} of {all} rows missing: the kernel ran no program for {} events",
                all - seen - told,
                self.hidden
            ));
        }
        self
    }

    /// How many events it says that it lost.
    pub fn lost(&self) -> usize {
        self.number_after("lost ")
    }

    /// How many runs of its programs it says that the kernel skipped.
    pub fn skipped(&self) -> usize {
        self.number_after("the kernel skipped ")
    }

    /// The number behind these words, where a line or a sentence begins with them; 0 if none does.
    fn number_after(&self, words: &str) -> usize {
        let sentences = self.stderr.lines().flat_map(|line| line.split([':', ';']));
        let numbers = sentences.filter_map(|sentence| {
            sentence.trim_start().strip_prefix(words)?.split(' ').next()?.parse::<usize>().ok()
        });
        numbers.sum()
    }

    /// How many rows it says that standard output did not take.
    pub fn not_written(&self) -> usize {
        let line = self.stderr.lines().find_map(|line| line.split_once(" not written: "));
        line.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Insists that every event is a row or was told as lost, exactly. A run that the kernel skipped was of an event
    /// that may or may not have made a row, so where there are such the sum is a bound; so it is where the kernel hid
    /// some.
    pub fn adds_up(&self, rows: &Rows, all: usize) -> &Self {
        self.sums_up_with(rows.len(), all, || rows.unusual())
    }

    /// Insists that rows which were counted elsewhere, and what was lost, are all that there was.
    pub fn sums_up(&self, seen: usize, all: usize) -> &Self {
        self.sums_up_with(seen, all, String::new)
    }

    fn sums_up_with(&self, seen: usize, all: usize, unusual: impl FnOnce() -> String) -> &Self {
        let (lost, skipped) = (self.lost(), self.skipped());
        let exact = skipped == 0
            && self.hidden == 0
            && !self.stderr.contains("skips a kprobe that interrupts another");
        if seen + lost > all || exact && seen + lost != all {
            self.fail(&format!("{seen} rows + {lost} lost ({skipped} skipped) of {all}; {}", unusual()));
        }
        self.accounts_for(seen, all)
    }

    /// Everything on stderr but how many probe runs the kernel skipped, which no test decides.
    pub fn said(&self) -> String {
        let ours = |line: &&str| !line.contains(": the kernel skipped ");
        self.stderr.lines().filter(ours).flat_map(|line| [line, "\n"]).collect()
    }

    /// Forgets what stderr begins with, if it is this.
    #[must_use]
    pub fn without(mut self, notes: &str) -> Self {
        if let Some(rest) = self.stderr.strip_prefix(notes) {
            self.stderr = rest.into();
        }
        self
    }

    /// Insists on a failure as people should see it: nothing on stdout, one line on stderr, which starts with the
    /// tool's name and holds all these words.
    pub fn one_line(&self, tool: &str, words: &[&str]) -> &Self {
        if !self.stdout.is_empty() {
            self.fail("stdout is not empty");
        }
        if self.stderr.lines().count() != 1 || !self.stderr.starts_with(&format!("{tool}: ")) {
            self.fail(&format!("stderr should be one line that starts with {tool:?} and a colon"));
        }
        for word in words {
            if !self.stderr.contains(word) {
                self.fail(&format!("stderr should say {word:?}"));
            }
        }
        self
    }

    /// Ends the test, with everything there is to know.
    pub fn fail(&self, message: &str) -> ! {
        panic!("{message}\nexit code {:?}, signal {:?}\n{}", self.code, self.signal, self.report)
    }
}
