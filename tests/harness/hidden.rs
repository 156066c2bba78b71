//! Events for which the kernel ran no program, and which it did not count either.
//!
//! A kernel can be made to run no BPF program in the context of tasks that it protects, of its first process for
//! example. A packet that an interrupt brings while such a task has the processor changes the state of a socket, and no
//! tool sees it; nor does the kernel count a missed run. So it is counted here, from the other side: how often the
//! tracepoint was passed, by an event counter, less how often the program ran or was said to have been skipped. Kernels
//! that are known to run their programs, as the guests', are not watched: there every sum must be exact.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::kernel::say;
use crate::raw::{Counter, keep_statistics};
use crate::run::{Launch, Started};

/// A watch over the programs of a tool that runs.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: u32,
    programs: Vec<Program>,
    _statistics: OwnedFd,
}

/// A program at a tracepoint.
#[derive(Debug)]
struct Program {
    id: u32,
    /// Runs until the watch began, those that were skipped among them.
    before: u64,
    /// One per processor.
    passed: Vec<Counter>,
}

impl Watch {
    /// Begins; nothing where the kernel is known to hide nothing, or has no such statistics (5.8) or event counters.
    pub(crate) fn over(pid: u32) -> Option<Self> {
        if hides_nothing() {
            return None;
        }
        let statistics = keep_statistics().ok()?;
        let (runs, tracepoints) = programs(pid);
        let watch = |(id, tracepoint): (u32, String)| {
            let passed = Counter::of_tracepoint(event_id(&tracepoint)?).ok()?;
            Some(Program { id, before: *runs.get(&id)?, passed })
        };
        let programs = tracepoints.into_iter().filter_map(watch).collect();
        Some(Self { pid, programs, _statistics: statistics })
    }

    /// How many since then. What happens between its first and its last look makes it less, never more.
    pub(crate) fn count(&self) -> usize {
        let passed: Vec<u64> = self
            .programs
            .iter()
            .map(|program| program.passed.iter().map(|counter| counter.read().unwrap_or(0)).sum())
            .collect();
        let (runs, tracepoints) = programs(self.pid);
        let is_attached = |id: u32| tracepoints.iter().any(|(attached, _)| *attached == id);
        // What the tool itself took away from its tracepoint is not hidden by the kernel.
        let watched = self.programs.iter().zip(passed).filter(|(program, _)| is_attached(program.id));
        let hidden = watched.map(|(program, passed)| {
            let ran = runs.get(&program.id).map_or(u64::MAX, |after| after - program.before);
            passed.saturating_sub(ran)
        });
        hidden.sum::<u64>().try_into().unwrap_or(usize::MAX)
    }
}

/// Tools that run beside all checks, for what the kernel hides from them it hides from the tools under test. Their
/// rows are few and nobody's.
#[derive(Debug)]
pub struct Canaries(Vec<(Started, Watch)>);

impl Canaries {
    /// Starts them, where the kernel is not one that is known to run its programs. They end with the calling thread.
    /// What cannot be started is not watched; the checks of that tool will say why.
    pub fn start() -> Self {
        const TOOLS: [(&str, &str); 2] = [("tcpstates", "--remoteport 1"), ("tcpretrans", "")];
        if hides_nothing() {
            return Self(Vec::new());
        }
        let start = |(tool, args)| {
            let started = Launch::new(tool, args).stdout(Stdio::null()).beside()?;
            let watch = Watch::over(started.id())?;
            Some((started, watch))
        };
        let canaries: Vec<_> = TOOLS.into_iter().filter_map(start).collect();
        if canaries.iter().all(|(_, watch)| watch.programs.is_empty()) {
            say("NOTE what this kernel hides from programs cannot be counted here (perf events, tracefs)");
        }
        Self(canaries)
    }

    /// For how many events the kernel ran none of their programs until now.
    pub(crate) fn hidden(&self) -> usize {
        self.0.iter().map(|(_, watch)| watch.count()).sum()
    }
}

/// Whether this is one of our guests' kernels, of which it is known which rungs they have.
fn hides_nothing() -> bool {
    std::env::var_os("NETBCC_EXPECT_RUNGS").is_some()
}

/// Of the programs that a process holds, by id: their runs, and where those at tracepoints are attached.
fn programs(pid: u32) -> (HashMap<u32, u64>, Vec<(u32, String)>) {
    let (mut runs, mut tracepoints) = (HashMap::new(), Vec::new());
    let Ok(infos) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return (runs, tracepoints) };
    for info in infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok()) {
        let find = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let number = |name: &str| find(name)?.parse::<u64>().ok();
        let Some(id) = number("prog_id:").and_then(|id| u32::try_from(id).ok()) else { continue };
        if let Some(tracepoint) = find("tp_name:") {
            tracepoints.push((id, tracepoint.to_owned()));
        } else if let (Some(ran), Some(skipped)) = (number("run_cnt:"), number("recursion_misses:")) {
            runs.insert(id, ran + skipped);
        }
    }
    (runs, tracepoints)
}

/// How many runs of this process's programs the kernel skipped and counted, as it says now (since 5.12; else 0).
pub(crate) fn skipped(pid: u32) -> u64 {
    let Ok(infos) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return 0 };
    let texts = infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok());
    let number = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
        line.trim().parse::<u64>().ok()
    };
    texts.filter_map(number).sum()
}

/// The number of a tracepoint among the kernel's events.
fn event_id(tracepoint: &str) -> Option<u64> {
    let groups = fs::read_dir(events()?).ok()?;
    groups
        .filter_map(|group| fs::read_to_string(group.ok()?.path().join(tracepoint).join("id")).ok())
        .find_map(|id| id.trim().parse().ok())
}

/// The folder of the kernel's events. Where nobody mounted tracefs, it is ours alone: of a mount namespace that is gone,
/// behind an open descriptor.
fn events() -> Option<&'static PathBuf> {
    static EVENTS: OnceLock<Option<(PathBuf, Option<File>)>> = OnceLock::new();
    let find = || {
        let places = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"].map(PathBuf::from);
        if let Some(place) = places.into_iter().find(|place| place.is_dir()) {
            return Some((place, None));
        }
        let folder = thread::spawn(mounted).join().ok()?.ok()?;
        Some((format!("/proc/self/fd/{}", folder.as_raw_fd()).into(), Some(folder)))
    };
    EVENTS.get_or_init(find).as_ref().map(|(place, _)| place)
}

/// Mounts tracefs where only the calling thread sees it; answers its folder of events.
fn mounted() -> io::Result<File> {
    const PLACE: &str = "/sys/kernel/tracing";
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), PLACE, Some("tracefs"), MsFlags::empty(), None::<&str>)?;
    File::open(PathBuf::from(PLACE).join("events"))
}
