//! What a tool's plan finds on this machine, without tracing anything: for `netbcc doctor`.
//!
//! Lives here: the answer's form. How it is found stands in [`super::plan`] and [`super::attach`], because it must be
//! the way in which tools really attach.

use std::error::Error;
use std::fmt;

use crate::hook::{LessExact, RungName};

/// What was found. It travels as an error, because it ends a tool in the place where it would begin to trace.
#[derive(Debug)]
pub struct Diagnosis {
    /// What the tool lacks whatever the way: permission, BTF, fields, tables.
    pub lacks: Vec<String>,
    /// Its hooks.
    pub hooks: Vec<Hooks>,
}

/// One of the things that a tool hooks, and the ways to do that, best first.
#[derive(Debug)]
pub struct Hooks {
    /// What is seen, in a user's words.
    pub sees: &'static str,
    /// Whether only an option of the tool wants it.
    pub optional: bool,
    /// The ways.
    pub ways: Vec<Way>,
}

/// One way.
#[derive(Debug)]
pub struct Way {
    /// Its name.
    pub rung: RungName,
    /// What is less exact in this way than in the best.
    pub less_exact: Option<LessExact>,
    /// Whether it can be gone here.
    pub verdict: Verdict,
    /// Bytes of the kernel's memory that its programs and tables took.
    pub kernel_bytes: u64,
}

/// Whether a way can be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The way can be gone.
    Works,
    /// It cannot, for this reason, and the tool looks for another way.
    Lacks(String),
    /// It cannot, for this reason, and the tool ends: what keeps it from this way speaks against no other one.
    Stops(String),
    /// Nothing that can be seen without the power to load speaks against it.
    Unseen,
}

impl Hooks {
    /// The way that the tool would go.
    pub fn used(&self) -> Option<&Way> {
        self.decides().filter(|way| way.verdict == Verdict::Works)
    }

    /// What ends the tool before it finds a way.
    pub fn stopped(&self) -> Option<&str> {
        self.decides()
            .and_then(|way| if let Verdict::Stops(why) = &way.verdict { Some(&**why) } else { None })
    }

    /// The way at which the tool does not look for another one.
    fn decides(&self) -> Option<&Way> {
        self.ways.iter().find(|way| matches!(way.verdict, Verdict::Works | Verdict::Stops(_)))
    }
}

impl Diagnosis {
    /// Whether the tool runs.
    pub fn runs(&self) -> bool {
        self.lacks.is_empty() && self.hooks.iter().all(|hooks| hooks.optional || hooks.used().is_some())
    }

    /// Bytes of the kernel's memory that it takes, without what options ask for.
    pub fn kernel_bytes(&self) -> u64 {
        let used = self.hooks.iter().filter(|hooks| !hooks.optional).filter_map(Hooks::used);
        used.map(|way| way.kernel_bytes).sum()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.runs() { "it runs here" } else { "it does not run here" })
    }
}

impl Error for Diagnosis {}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(verdict: Verdict, kernel_bytes: u64) -> Way {
        Way { rung: RungName::Fexit, less_exact: None, verdict, kernel_bytes }
    }

    #[test]
    fn the_first_way_that_works_is_used() {
        let lacks = || way(Verdict::Lacks("x".into()), 1);
        let hooks = |optional, ways| Hooks { sees: "x", optional, ways };
        let good = hooks(false, vec![lacks(), way(Verdict::Works, 10), way(Verdict::Works, 100)]);
        let bad = |optional| hooks(optional, vec![lacks(), way(Verdict::Unseen, 0)]);
        let diagnosis = |lacks, hooks| Diagnosis { lacks, hooks };
        let runs = diagnosis(vec![], vec![good, bad(true)]);
        assert!(runs.runs());
        assert_eq!(runs.kernel_bytes(), 10);
        assert!(!diagnosis(vec![], vec![bad(false)]).runs());
        assert!(!diagnosis(vec!["permission".into()], vec![]).runs());
    }

    #[test]
    fn what_ends_the_tool_ends_the_search() {
        let hooks = |ways| Hooks { sees: "x", optional: false, ways };
        let (lacks, works) = (way(Verdict::Lacks("x".into()), 0), way(Verdict::Works, 0));
        let hooks = hooks(vec![lacks, way(Verdict::Stops("a defect".into()), 0), works]);
        assert!(hooks.used().is_none());
        assert_eq!(hooks.stopped(), Some("a defect"));
        assert!(!Diagnosis { lacks: vec![], hooks: vec![hooks] }.runs());
        assert_eq!(Hooks { sees: "x", optional: false, ways: vec![way(Verdict::Works, 0)] }.stopped(), None);
    }
}
