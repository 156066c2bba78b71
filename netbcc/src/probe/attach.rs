//! The attach ladder: tries rungs top down until one holds (ARCHITECTURE.md, D3).
//!
//! Rules: a rung is all or nothing. Only "this kernel does not have it, or does not allow it" moves down; a program
//! that the verifier rejects is our bug, and is said with the verifier's last words. The kernel is asked (BTF, the
//! load, the attach itself), never its version. Programs of rungs that are not reached are never loaded.

use std::io;
use std::path::Path;

use anyhow::{Result, anyhow};
use nix::errno::Errno;

use super::capability;
use super::code::Unclear;
use super::diagnosis::Verdict;
use super::fault::Fault;
use super::object::{KPROBE, Object, UPROBE};
use super::verifier::{Tail, is_rejection, lacking, last_words};
use crate::error::hinted;
use crate::hook::{Kind, Ladder, Need, Prog, Rung, RungName};
use crate::sys::bpf::ENOTSUPP;
use crate::sys::btf::Kernel;
use crate::sys::machine;

/// The rung that holds, and why those above it do not.
pub(super) struct Chosen {
    pub(super) ladder: &'static Ladder,
    pub(super) rung: &'static Rung,
    pub(super) lost: Vec<String>,
}

/// Attaches the first rung that this kernel has; with `forced`, that one or none.
pub(super) fn ladder(
    object: &mut Object,
    kernel: &Kernel,
    ladder: &'static Ladder,
    forced: Option<RungName>,
    needed: impl Fn(&Prog) -> bool,
) -> Result<Chosen> {
    let mut lost = Vec::new();
    for rung in ladder.rungs.iter().filter(|rung| forced.is_none_or(|name| name == rung.name)) {
        let Err(refusal) = attach_rung(object, kernel, rung, &needed) else {
            return Ok(Chosen { ladder, rung, lost });
        };
        match (refusal.verdict(), refusal.hint()) {
            (Verdict::Stops(why), hint) => {
                return Err(hinted(anyhow!("{}: {why}", ladder.name), hint.unwrap_or_default()));
            }
            (Verdict::Lacks(why), _) => lost.push(format!("not by {}: {why}", rung.name)),
            (Verdict::Works | Verdict::Unseen, _) => {}
        }
    }
    let what = forced.map_or("any hook".to_owned(), |name| format!("hooks of the kind {name}"));
    let why = if lost.is_empty() { "the tool has none".to_owned() } else { lost.join("; ") };
    let in_files = |rung: &Rung| rung.programs.iter().any(|prog| prog.kind.is_in_files());
    let hint = if forced.is_some() {
        "unset NETBCC_ATTACH"
    } else if ladder.rungs.iter().all(in_files) {
        "a kernel with uprobes is needed (CONFIG_UPROBE_EVENTS)"
    } else {
        "a kernel with fentry, kprobes or BTF tracepoints is needed"
    };
    Err(hinted(anyhow!("{}: this kernel does not offer {what} for it: {why}", ladder.name), hint))
}

/// Tries one rung and takes it back at once. `object` is new, so that what it holds afterwards is this rung's. Without
/// the `power` to load, only what can be seen without it is looked at.
pub(super) fn examine(
    object: &mut Object,
    kernel: &Kernel,
    rung: &Rung,
    power: bool,
    needed: impl Fn(&Prog) -> bool,
) -> Verdict {
    let tried = if power {
        attach_rung(object, kernel, rung, &needed)
    } else {
        offered(object, kernel, rung, &needed).map(drop)
    };
    match tried {
        Ok(()) if power => {
            for prog in rung.programs {
                object.detach(prog);
            }
            Verdict::Works
        }
        Ok(()) => Verdict::Unseen,
        Err(refusal) => refusal.verdict(),
    }
}

/// Why a program cannot be attached.
enum Refusal {
    /// The kernel lacks it or forbids it: try the next rung.
    Lacking(String),
    /// The kernel has it, but this process does not get it, on any rung.
    Denied(Denial),
    /// The program is wrong.
    Ours(String),
}

const REPORT: &str = "please report it with the kernel's release (uname -r)";

impl Refusal {
    /// Whether the tool then looks at the next rung: what it does, and what doctor says that it does.
    fn verdict(&self) -> Verdict {
        match self {
            Self::Lacking(why) => Verdict::Lacks(why.clone()),
            Self::Denied(Denial { why, .. }) => Verdict::Stops(why.clone()),
            Self::Ours(why) => Verdict::Stops(format!("a defect of netbcc: {why}")),
        }
    }

    /// What its user can do where nothing else is to be tried.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Lacking(_) => None,
            Self::Denied(Denial { hint, .. }) => Some(hint),
            Self::Ours(_) => Some(REPORT),
        }
    }
}

/// Why this process gets nothing, and what its user can do.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    why: String,
    hint: &'static str,
}

impl Denial {
    /// Errors that say nothing about the kernel's hooks.
    fn of(error: &io::Error) -> Option<Self> {
        let (why, hint) = match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE => {
                let limit = machine::open_files().map(|most| format!(": {most}")).unwrap_or_default();
                (format!("too many open files for this process (ulimit -n{limit})"), "a tool needs about 64")
            }
            Errno::ENFILE => (
                "too many open files on this machine (fs.file-max)".to_owned(),
                "sysctl fs.file-nr tells how many",
            ),
            Errno::ENOMEM => {
                ("the kernel has no memory for it".to_owned(), "a cgroup may limit it (memory.max)")
            }
            Errno::ENOSYS => (
                "a system call that it needs is not there (ENOSYS)".to_owned(),
                "it is filtered (seccomp, as in a container), or the kernel was built without CONFIG_BPF_SYSCALL or \
                 CONFIG_PERF_EVENTS",
            ),
            _ => return None,
        };
        Some(Self { why, hint })
    }

    /// A table could not be made for this reason: who got here may make tables, so it is about their memory.
    fn of_table(error: &io::Error, lockable: u64, may_raise: bool) -> Option<Self> {
        let refused = error.raw_os_error() == Some(Errno::EPERM as i32);
        (refused && !may_raise && lockable != u64::MAX).then(|| Self {
            why: format!(
                "this kernel counts tables as locked memory, of which this process may have {} KiB (ulimit -l), and \
                 without CAP_SYS_RESOURCE it cannot take more",
                lockable >> 10
            ),
            hint: "add cap_sys_resource to the file's capabilities (setcap), or raise ulimit -l",
        })
    }
}

/// The programs of a rung that this kernel needs, if it has everything that they hang on.
fn offered<'r>(
    object: &Object,
    kernel: &Kernel,
    rung: &'r Rung,
    needed: &impl Fn(&Prog) -> bool,
) -> Result<Vec<&'r Prog>, Refusal> {
    let programs: Vec<&Prog> =
        rung.programs.iter().filter(|prog| needed(prog) && kernel.fits(prog.arity)).collect();
    for prog in rung.programs.iter().filter(|prog| !needed(prog)) {
        if let Need::Known(what) = prog.need {
            return Err(Refusal::Lacking(format!("{}: the kernel has no {what}", prog.target)));
        }
    }
    for prog in rung.programs.iter().filter(|prog| needed(prog) && prog.need != Need::IfThere) {
        if !programs.iter().any(|other| other.target == prog.target && other.kind == prog.kind) {
            return Err(Refusal::Lacking(format!("{}: its arguments are not the known ones", prog.target)));
        }
    }
    if object.libraries() == 0 && programs.iter().any(|prog| prog.kind.is_in_files()) {
        return Err(Refusal::Lacking("no file was found in which to hook functions".to_owned()));
    }
    for prog in &programs {
        lacks_target(kernel, prog)?;
        lacks_field(object, kernel, prog)?;
    }
    Ok(programs)
}

fn attach_rung(
    object: &mut Object,
    kernel: &Kernel,
    rung: &Rung,
    needed: &impl Fn(&Prog) -> bool,
) -> Result<(), Refusal> {
    let programs = offered(object, kernel, rung, needed)?;
    let mut attached = Vec::new();
    for prog in programs {
        let target = match prog.kind {
            Kind::Fentry | Kind::Fexit | Kind::Iter => kernel.function(prog.target),
            Kind::TpBtf => kernel.tracepoint(prog.target),
            Kind::Kprobe | Kind::Kretprobe | Kind::Uprobe | Kind::Uretprobe | Kind::RawTp => None,
        };
        match object.attach(prog, target) {
            Ok(true) => attached.push(prog),
            // Another ladder's rung has it attached already.
            Ok(false) => {}
            // BTF need not name tracepoints: whether the kernel has this one, the attach itself says.
            Err(Fault::Attach(error))
                if prog.need == Need::IfThere
                    && prog.kind == Kind::RawTp
                    && error.raw_os_error() == Some(Errno::ENOENT as i32) =>
            {
                object.detach(prog);
            }
            Err(fault) => {
                for prog in attached {
                    object.detach(prog);
                }
                return Err(refusal(prog, fault));
            }
        }
    }
    Ok(())
}

/// Asked before anything is loaded.
fn lacks_target(kernel: &Kernel, prog: &Prog) -> Result<(), Refusal> {
    let Prog { kind, target, .. } = *prog;
    let lacking = |why: &str| Err(Refusal::Lacking(format!("{target}: {why}")));
    match kind {
        Kind::Fentry | Kind::Fexit | Kind::Iter if kernel.function(target).is_none() => {
            lacking("the kernel's BTF has no such function, or several")
        }
        Kind::TpBtf if kernel.tracepoint(target).is_none() => {
            lacking("the kernel's BTF has no such tracepoint")
        }
        Kind::Kprobe | Kind::Kretprobe if !has_kprobes() => {
            lacking("the kernel has no kprobes (CONFIG_KPROBES)")
        }
        Kind::Uprobe | Kind::Uretprobe if !Path::new(UPROBE).exists() => {
            lacking("the kernel has no uprobes (CONFIG_UPROBE_EVENTS)")
        }
        _ => Ok(()),
    }
}

/// Asked before anything is loaded: what the program reads follows from its instructions.
fn lacks_field(object: &Object, kernel: &Kernel, prog: &Prog) -> Result<(), Refusal> {
    match object.lacks(prog) {
        Ok(None) => Ok(()),
        Ok(Some(field)) => match kernel.require(field) {
            Err(error) => Err(Refusal::Lacking(error.to_string())),
            Ok(()) => Err(Refusal::Ours(format!("{}: it does not know where {field:?} is", prog.name))),
        },
        Err(Unclear) => Err(Refusal::Ours(format!("{}: what it reads cannot be told", prog.name))),
    }
}

/// Whether the kernel has kprobes. Asked first, because a load in vain costs a millisecond.
pub fn has_kprobes() -> bool {
    Path::new(KPROBE).exists()
}

fn refusal(prog: &Prog, fault: Fault) -> Refusal {
    let Prog { name, target, .. } = prog;
    if let Fault::Attach(error) = &fault
        && only_of_kprobes(prog.kind, error)
    {
        return Refusal::Lacking(format!(
            "attach {target}: perf_event_open is not there or filtered, as by seccomp (ENOSYS)"
        ));
    }
    if let Fault::Map(_, error) | Fault::Load(error, _) | Fault::Attach(error) = &fault
        && let Some(denial) = Denial::of(error)
    {
        return Refusal::Denied(denial);
    }
    if let Fault::Map(_, error) = &fault
        && let Some(lockable) = machine::lockable()
        && let Some(denial) = Denial::of_table(error, lockable, capability::may_lock())
    {
        return Refusal::Denied(denial);
    }
    match fault {
        Fault::Object(why) => Refusal::Ours(why),
        Fault::Attach(error) if prog.kind.is_in_files() && is_about_perf(prog.kind, &error) => {
            Refusal::Lacking(format!(
                "attach {target}: {error}: a kernel as this one wants CAP_SYS_ADMIN for uprobes"
            ))
        }
        Fault::Attach(error) if is_about_perf(prog.kind, &error) => Refusal::Lacking(format!(
            "attach {target}: {error}: where kernel.perf_event_paranoid is above 2, a kernel as this one wants \
             CAP_SYS_ADMIN for it"
        )),
        Fault::Map(map, error) => Refusal::Lacking(format!("map {map}: {}", reason(&error))),
        Fault::Attach(error) => Refusal::Lacking(format!("attach {target}: {}", reason(&error))),
        Fault::Load(error, log) if is_rejection(&error, &log) => {
            Refusal::Ours(format!("the verifier rejects {name}: {error}: {}", Tail(&log)))
        }
        Fault::Load(error, log) => {
            let said = lacking(&log).unwrap_or_else(|| last_words(&log));
            let mut said = if said.is_empty() { String::new() } else { format!(" ({said})") };
            if let (Some(_), Some(mode @ "confidentiality")) = (lacking(&log), machine::lockdown().as_deref())
            {
                said.push_str("; the kernel's lockdown is ");
                said.push_str(mode);
                said.push_str(", which forbids programs to read its memory");
            }
            Refusal::Lacking(format!("load {target}: {}{said}", reason(&error)))
        }
    }
}

/// Whether another rung can do without what is not there: only kprobes are attached by a perf event.
fn only_of_kprobes(kind: Kind, error: &io::Error) -> bool {
    matches!(kind, Kind::Kprobe | Kind::Kretprobe) && error.raw_os_error() == Some(Errno::ENOSYS as i32)
}

/// Whether the right to open a perf event is missing: Debian and Ubuntu withhold it from more users than the kernel's
/// authors do.
fn is_about_perf(kind: Kind, error: &io::Error) -> bool {
    (kind.is_in_files() || matches!(kind, Kind::Kprobe | Kind::Kretprobe))
        && error.raw_os_error() == Some(Errno::EACCES as i32)
}

/// `Operation not permitted (os error 1)` says little where the capabilities are there.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) if errno == Errno::EPERM as i32 => match machine::lockdown().as_deref() {
            Some(mode @ ("integrity" | "confidentiality")) => {
                format!("the kernel forbids it (EPERM; its lockdown is {mode})")
            }
            _ => "the kernel forbids it (EPERM)".to_owned(),
        },
        // It has no text in user space.
        Some(ENOTSUPP) => "the kernel does not support it (ENOTSUPP)".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::{fexit, kprobe};

    #[test]
    fn what_a_process_does_not_get_is_no_lack_of_the_kernels() {
        for (errno, said) in
            [(Errno::EMFILE, "ulimit -n"), (Errno::ENFILE, "fs.file-max"), (Errno::ENOSYS, "ENOSYS")]
        {
            let denial = Denial::of(&errno.into()).expect("it is one");
            assert!(denial.why.contains(said), "{denial:?}");
        }
        assert_eq!(Denial::of(&Errno::ENOENT.into()), None);
        assert_eq!(Denial::of(&Errno::EPERM.into()), None);
    }

    #[test]
    fn a_filtered_perf_event_is_a_lack_of_kprobes_alone() {
        let missing = || Fault::Attach(Errno::ENOSYS.into());
        assert!(
            matches!(refusal(&kprobe("p", "f"), missing()), Refusal::Lacking(why) if why.contains("perf_event_open"))
        );
        assert!(matches!(refusal(&fexit("p", "f"), missing()), Refusal::Denied(_)));
    }

    #[test]
    fn a_table_that_may_not_be_made_is_about_locked_memory() {
        let refused = io::Error::from(Errno::EPERM);
        let denial = Denial::of_table(&refused, 64 << 10, false).expect("it is one");
        assert!(denial.why.contains("64 KiB") && denial.why.contains("CAP_SYS_RESOURCE"), "{denial:?}");
        assert_eq!(Denial::of_table(&refused, 64 << 10, true), None);
        assert_eq!(Denial::of_table(&refused, u64::MAX, false), None);
        assert_eq!(Denial::of_table(&Errno::EINVAL.into(), 64 << 10, false), None);
    }
}
