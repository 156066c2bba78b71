//! The declaration of a tool's hooks: ladders of rungs, best first. A table, read by one function.

use std::fmt;

use netbcc_common::kernel::Func;

/// How a program hangs on the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At a function's entry, by trampoline.
    Fentry,
    /// At a function's exit, by trampoline.
    Fexit,
    /// At a function's entry, by breakpoint.
    Kprobe,
    /// At a function's exit, by breakpoint.
    Kretprobe,
    /// At the entry of a function of a program's, by breakpoint.
    Uprobe,
    /// At the exit of a function of a program's, by breakpoint.
    Uretprobe,
    /// At a tracepoint, with typed arguments.
    TpBtf,
    /// At a tracepoint, with arguments that are numbers.
    RawTp,
    /// On an iterator of the kernel: run to its end once, when it is attached; over what a map knows, whenever it is asked to.
    Iter,
}

/// When a program of a rung is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Always.
    Always,
    /// Where rows of IPv4 are wanted.
    V4Rows,
    /// Where rows of IPv6 are wanted and the kernel has IPv6.
    V6Rows,
    /// Where the kernel has IPv6.
    V6Kernel,
    /// Where the kernel has what it hangs on, with so many arguments.
    IfThere,
    /// Where the plan asks for this by name.
    Asked(&'static str),
    /// Always; the kernel lacks the rung where the plan does not say, by this name, what the program cannot do without.
    Known(&'static str),
}

impl Kind {
    /// Whether it hangs in files of programs, not in the kernel.
    pub const fn is_in_files(self) -> bool {
        matches!(self, Self::Uprobe | Self::Uretprobe)
    }
}

/// One program and the function or tracepoint that it hangs on.
#[derive(Clone, Copy, Debug)]
pub struct Prog {
    /// Its name in the object.
    pub name: &'static str,
    /// How it hangs.
    pub kind: Kind,
    /// On what.
    pub target: &'static str,
    /// When it is loaded.
    pub need: Need,
    /// Loaded only where this function takes so many arguments.
    pub arity: Option<(Func, u8)>,
    /// Whether a second copy sees what the kernel lets this one skip, where a task may lose its processor in it
    /// (ARCHITECTURE.md, D8).
    pub twice: bool,
    /// A map of the object that each of the two copies has for itself: what lies there must not change while a copy runs, and one
    /// may run in the middle of the other.
    pub own: Option<&'static str>,
    /// Of an iterator over what a map of the object knows: the map.
    pub over: Option<&'static str>,
}

impl Prog {
    const fn new(name: &'static str, kind: Kind, target: &'static str) -> Self {
        Self { name, kind, target, need: Need::Always, arity: None, twice: false, own: None, over: None }
    }

    /// Loaded only then.
    #[must_use]
    pub const fn when(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    /// Loaded only where `func` takes `count` arguments.
    #[must_use]
    pub const fn arity(mut self, func: Func, count: u8) -> Self {
        self.arity = Some((func, count));
        self
    }

    /// Every run that the kernel skips would be missed by a user.
    #[must_use]
    pub const fn twice(mut self) -> Self {
        self.twice = true;
        self
    }

    /// As [`Prog::twice`], of a program that keeps something in this map while it runs.
    #[must_use]
    pub const fn twice_with_own(mut self, map: &'static str) -> Self {
        self.own = Some(map);
        self.twice()
    }
}

/// A program at a function's entry, typed.
pub const fn fentry(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Fentry, target)
}

/// A program at a function's exit, typed.
pub const fn fexit(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Fexit, target)
}

/// A program at a function's entry.
pub const fn kprobe(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Kprobe, target)
}

/// A program at a function's exit.
pub const fn kretprobe(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Kretprobe, target)
}

/// A program at the entry of a function, in each file that the plan names and that has this function.
pub const fn uprobe(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Uprobe, target)
}

/// A program at the exit of a function, in each file that the plan names and that has this function.
pub const fn uretprobe(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Uretprobe, target)
}

/// A program at a tracepoint, typed.
pub const fn tp_btf(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::TpBtf, target)
}

/// A program at a tracepoint, untyped.
pub const fn raw_tp(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::RawTp, target)
}

/// A program that looks at what there is when it is attached; `target` is the function whose type the iterator has.
pub const fn iter(name: &'static str, target: &'static str) -> Prog {
    Prog::new(name, Kind::Iter, target)
}

/// A program that goes through the sockets for which the object's map has a value.
pub const fn iter_over(name: &'static str, map: &'static str) -> Prog {
    Prog { over: Some(map), ..Prog::new(name, Kind::Iter, "bpf_iter_bpf_sk_storage_map") }
}

/// The name of a rung, as `NETBCC_ATTACH` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungName {
    /// Trampolines.
    Fexit,
    /// Breakpoints.
    Kprobe,
    /// Tracepoints only.
    Tracepoint,
    /// Tracepoints without types, for tools that need nothing else.
    RawTp,
    /// Breakpoints in programs, for tools that look at what these do themselves.
    Uprobe,
}

impl RungName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Fexit, Self::Kprobe, Self::Tracepoint, Self::RawTp, Self::Uprobe];

    /// The rung called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == name)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::RawTp => "raw_tp",
            Self::Uprobe => "uprobe",
        }
    }
}

impl fmt::Display for RungName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Programs that do a ladder's work together: all are attached, or none.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Its name.
    pub name: RungName,
    /// What it consists of. What is most likely to be refused comes first: the rest is then not loaded in vain.
    pub programs: &'static [Prog],
    /// What is less exact here than on the first rung, said once on stderr.
    pub less_exact: Option<LessExact>,
}

/// What a rung sees less exactly than the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LessExact {
    /// In a line, without a full stop: on stderr at each start, and in doctor's table.
    pub short: &'static str,
    /// The rest, in whole sentences: with `-v`, in doctor's details and in the manual. May be empty.
    pub detail: &'static str,
}

impl LessExact {
    /// All of it in a line.
    pub const fn new(short: &'static str) -> Self {
        Self { short, detail: "" }
    }

    /// Adds what does not fit into the line.
    #[must_use]
    pub const fn detail(mut self, detail: &'static str) -> Self {
        self.detail = detail;
        self
    }
}

/// Both, for a reader who wants to know.
impl fmt::Display for LessExact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { short, detail } = self;
        if detail.is_empty() { f.write_str(short) } else { write!(f, "{short}. {detail}") }
    }
}

/// Several ways to the same events, best first.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    /// What it sees, in a user's words (`connects`).
    pub name: &'static str,
    /// The ways.
    pub rungs: &'static [Rung],
}
