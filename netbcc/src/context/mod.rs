//! What is known of the processes that rows are of: the columns that `-o` has for every tool with a process.
//!
//! Lives here: reading /proc, and the rules that keep a row from having another process's data (ARCHITECTURE.md, D38).
//! Must never live here: a tool's name, or how a column is printed (`out/beside.rs` has what they mean). Nothing here is
//! made, opened or read in a run that asks for none of these columns.

pub mod cgroup;
pub mod find;
mod pods;
mod process;
mod users;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow};
use nix::time::{ClockId, clock_gettime};

use self::cgroup::{Container, Place};
use self::pods::Pods;
use self::process::{Folder, Stat};
use self::users::Users;
use crate::error::hinted;
use crate::out::{self, Beside, Clock, Fact, Facts, Out, Process, Value};
use crate::sys::machine::{self, Space};

/// What was read so long ago is taken as it is, if the row has the same name; else it is read again.
const FRESH_NS: u64 = 100_000_000;
/// The same where the row has another name: a thread of the process, or what it became by execve(2).
const FRESH_OTHER_NAME_NS: u64 = 10_000_000;
/// So many processes are remembered at most.
const MOST_PROCESSES: usize = 2048;
/// Of so many the program is noted at the start, at most.
const MOST_PROGRAMS: usize = 1 << 15;
/// A longer path or command line is cut.
const LONGEST: usize = 1024;
/// So many digits of a container's id are shown in the place of a name.
const SHORT_ID: usize = 12;
/// Nobody starts more processes than that in a second.
const FASTEST_FORKS: u64 = 100_000;

/// What is known of processes.
pub struct Context {
    wanted: Vec<Fact>,
    proc: Folder,
    users: Users,
    pods: Pods,
    /// What processes ran at the start.
    programs: HashMap<u32, Program>,
    seen: HashMap<u32, Seen>,
    /// For so long no number of a process is given to another one, however busy the machine is.
    unique_ns: u64,
    nothing: Rc<Facts>,
}

/// What a process ran at the start, and what shows that it still does.
struct Program {
    start: u64,
    comm: [u8; 16],
    /// Pages of code.
    text: u64,
    cmdline: u64,
    exe: Rc<[u8]>,
}

/// A process as it was read last.
struct Seen {
    /// When it started, on the kernel's monotonic clock; rounded down to 10 ms.
    start_ns: i64,
    /// The name of its thread in the row for which it was read.
    comm: Option<[u8; 16]>,
    /// When it was read.
    at_ns: u64,
    facts: Rc<Facts>,
}

/// Has `out` know these facts of processes, for which `option` asks.
///
/// # Errors
/// /proc is not there, or numbers processes in another way than the kernel's events.
pub fn ask_facts(tool: &str, option: &str, facts: Vec<Fact>, out: &mut Out) -> Result<()> {
    let Some(name) = facts.first().map(|fact| fact.name()) else { return Ok(()) };
    if is_hidden() {
        out::warn(
            tool,
            format_args!(
                "{option} {name}: /proc hides processes here (hidepid), of which nothing is known then"
            ),
        );
    }
    out.set_beside(Context::open(facts).with_context(|| format!("{option} {name}"))?);
    Ok(())
}

impl Context {
    /// Opens what the wanted facts take, while there is power.
    ///
    /// # Errors
    /// /proc is not there, or numbers processes in another way than the kernel's events.
    pub fn open(wanted: Vec<Fact>) -> Result<Self> {
        if machine::is_elsewhere(Space::Pid) && !has_numbers_of_the_host() {
            return Err(hinted(
                anyhow!("the PID column has the host's numbers, and /proc those of this PID namespace"),
                "run it in the host's PID namespace (nsenter -t 1 -p -m, docker run --pid=host)",
            ));
        }
        let most: u64 =
            machine::sysctl("kernel/pid_max").and_then(|text| text.parse().ok()).unwrap_or(1 << 15);
        Self::of(Path::new("/proc"), wanted, most)
    }

    fn of(root: &Path, wanted: Vec<Fact>, pid_max: u64) -> Result<Self> {
        let proc = Folder::open(root).with_context(|| format!("open {}", root.display()))?;
        let users = if wanted.contains(&Fact::User) { Users::read() } else { Users::default() };
        let programs = if wanted.contains(&Fact::Exe) { programs(root, &proc) } else { HashMap::new() };
        Ok(Self {
            wanted,
            proc,
            users,
            pods: Pods::new(Path::new("/var/log")),
            programs,
            seen: HashMap::new(),
            unique_ns: pid_max.saturating_mul(1_000_000_000 / FASTEST_FORKS),
            nothing: Rc::default(),
        })
    }

    fn wants(&self, fact: Fact) -> bool {
        self.wanted.contains(&fact)
    }

    /// Reads the process that has this number now, if it is the row's.
    fn read(&mut self, process: &Process<'_>, ts_ns: u64, now_ns: u64) -> Option<Seen> {
        let folder = self.proc.folder(process.pid)?;
        let stat = folder.stat()?;
        let age = boot_ns().saturating_sub(stat.start_ns());
        let start_ns = now_ns.cast_signed() - age;
        if !may_be(start_ns, process, ts_ns) {
            return None;
        }
        // It started after it was noted, or says a row of an interval: then the name must be right.
        if !was_there(start_ns, process, ts_ns)
            && !process.comm.is_some_and(|comm| stat.comm == *comm || folder.has_thread(comm))
        {
            return None;
        }
        let mut facts = self.facts_of(&folder, &stat, now_ns);
        if let Some(before) =
            self.seen.get(&process.pid).filter(|seen| is_same_start(seen.start_ns, start_ns))
            && stat.is_dead()
        {
            facts.complete(&before.facts);
        }
        Some(Seen { start_ns, comm: process.comm.copied(), at_ns: now_ns, facts: Rc::new(facts) })
    }

    fn facts_of(&mut self, folder: &Folder, stat: &Stat, now_ns: u64) -> Facts {
        let mut facts = Facts::default();
        let text = |bytes: &[u8]| {
            let cut = &bytes[..bytes.len().min(LONGEST)];
            if cut.is_empty() { Value::Unknown } else { Value::Text(cut.into()) }
        };
        if self.wants(Fact::User)
            && let Some(uid) = folder.uid()
        {
            facts.set(Fact::User, text(self.users.name(uid).as_bytes()));
        }
        if self.wants(Fact::Ppid) {
            facts.set(Fact::Ppid, Value::Number(stat.ppid.into()));
        }
        if self.wants(Fact::Cmdline) {
            facts.set(Fact::Cmdline, text(&folder.cmdline(LONGEST)));
        }
        if self.wants(Fact::Exe)
            && let Some(exe) = folder.exe().or_else(|| self.program(folder, stat))
        {
            facts.set(Fact::Exe, text(&exe));
        }
        if self.wanted.iter().any(|fact| fact.is_of_cgroups()) {
            self.add_place(&mut facts, &folder.cgroup(), stat.is_dead(), now_ns);
        }
        facts
    }

    /// What the text of a process's `cgroup` says.
    fn add_place(&mut self, facts: &mut Facts, cgroups: &[u8], is_dead: bool, now_ns: u64) {
        let text = |text: &str| Value::Text(text.as_bytes().into());
        let paths = cgroup::paths(cgroups);
        // Version 1 says of each that is dead that it is in the root.
        if let Some(first) = paths.first().filter(|path| !is_dead || **path != b"/") {
            facts.set(Fact::Cgroup, Value::Text(first[..first.len().min(LONGEST)].into()));
        }
        let mut places = paths.iter().map(|path| Place::of(path)).filter(|place| *place != Place::default());
        let Some(first) = places.next() else { return };
        // One hierarchy may know of a service only, in which a runtime made containers in the others.
        let place = if first.container.is_some() {
            first
        } else {
            places.find(|place| place.container.is_some()).unwrap_or(first)
        };
        if let Some(unit) = &place.unit {
            facts.set(Fact::Unit, text(unit));
        }
        match &place.container {
            Some(Container::Id(id)) => {
                facts.set(Fact::ContainerId, text(id));
                let name = self.pods.container(id, now_ns).unwrap_or(&id[..SHORT_ID]);
                facts.set(Fact::Container, text(name));
            }
            Some(Container::Name(name)) => facts.set(Fact::Container, text(name)),
            None => {}
        }
        if let Some(uid) = &place.pod_uid {
            facts.set(Fact::PodUid, text(uid));
            facts.set(Fact::Pod, text(uid));
            if let Some((namespace, name)) = self.pods.pod(uid, now_ns) {
                facts.set(Fact::Namespace, text(namespace));
                facts.set(Fact::Pod, text(name));
            }
        }
    }

    /// What this process ran at the start, if it still does: execve(2) leaves number and start as they were, but hardly
    /// ever the size of the code and either the name or the arguments.
    fn program(&self, folder: &Folder, stat: &Stat) -> Option<Rc<[u8]>> {
        let program = self.programs.get(&stat.pid)?;
        let is_same = program.start == stat.start
            && folder.text_pages() == Some(program.text)
            && (program.comm == stat.comm || program.cmdline == hash(&folder.cmdline(LONGEST)));
        is_same.then(|| program.exe.clone())
    }

    /// What is remembered of a process that is not there any more, or not the row's.
    fn remembered(&self, process: &Process<'_>, ts_ns: u64) -> Option<&Seen> {
        self.seen.get(&process.pid).filter(|seen| {
            process.comm.is_some()
                && process.comm == seen.comm.as_ref()
                && may_be(seen.start_ns, process, ts_ns)
                && ts_ns <= seen.at_ns.saturating_add(self.unique_ns)
        })
    }

    fn make_room(&mut self, now_ns: u64) {
        if self.seen.len() >= MOST_PROCESSES {
            self.seen.retain(|_, seen| now_ns.saturating_sub(seen.at_ns) < FRESH_NS);
            if self.seen.len() >= MOST_PROCESSES {
                self.seen.clear();
            }
        }
    }
}

impl Beside for Context {
    fn facts(&mut self, process: &Process<'_>, ts_ns: u64, clock: &Clock) -> Rc<Facts> {
        if process.pid == 0 {
            return self.nothing.clone();
        }
        if let Some(seen) = self.seen.get(&process.pid) {
            let is_named = process.comm.is_none_or(|comm| Some(comm) == seen.comm.as_ref());
            let fresh = if is_named { FRESH_NS } else { FRESH_OTHER_NAME_NS };
            let is_it = was_there(seen.start_ns, process, ts_ns)
                || is_named && process.comm.is_some() && may_be(seen.start_ns, process, ts_ns);
            if is_it && ts_ns <= seen.at_ns.saturating_add(fresh) {
                return seen.facts.clone();
            }
        }
        let now_ns = clock.monotonic_ns();
        if let Some(seen) = self.read(process, ts_ns, now_ns) {
            let facts = seen.facts.clone();
            self.make_room(now_ns);
            self.seen.insert(process.pid, seen);
            return facts;
        }
        self.remembered(process, ts_ns).map_or_else(|| self.nothing.clone(), |seen| seen.facts.clone())
    }
}

/// Whether a process that started then may be the row's: it was there when the row happened.
fn may_be(start_ns: i64, _: &Process<'_>, ts_ns: u64) -> bool {
    start_ns <= ts_ns.cast_signed()
}

/// Whether a process that started then is the row's for certain: it was there when the row's process was noted.
fn was_there(start_ns: i64, process: &Process<'_>, ts_ns: u64) -> bool {
    start_ns <= ts_ns.saturating_sub(process.before_ns).cast_signed()
}

/// Two readings of one start differ by what passes between two clocks.
fn is_same_start(one: i64, other: i64) -> bool {
    one.abs_diff(other) < 5_000_000
}

/// Nanoseconds since the machine was started, as /proc counts them.
fn boot_ns() -> i64 {
    // It has this clock since 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Whether the /proc that is mounted here is the host's.
fn has_numbers_of_the_host() -> bool {
    machine::is_first("/proc/1/ns/pid", Space::Pid)
}

/// Whether /proc hides the processes of others from those without power.
pub fn is_hidden() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    hides(&mounts)
}

/// What a list of mounts says of the last one at /proc.
fn hides(mounts: &str) -> bool {
    let last = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .rfind(|words| words.get(1) == Some(&"/proc"));
    last.and_then(|words| words.get(3).copied()).is_some_and(|options| {
        options
            .split(',')
            .any(|option| option.starts_with("hidepid=") && !["hidepid=0", "hidepid=off"].contains(&option))
    })
}

/// What processes run now. Asked while there is power: without it the kernel does not say.
fn programs(root: &Path, proc: &Folder) -> HashMap<u32, Program> {
    let mut paths: HashMap<Rc<[u8]>, Rc<[u8]>> = HashMap::new();
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let program = |pid: u32| {
        let folder = proc.folder(pid)?;
        let exe: Rc<[u8]> = folder.exe()?;
        let stat = folder.stat()?;
        let exe = paths.entry(exe.clone()).or_insert(exe).clone();
        let cmdline = hash(&folder.cmdline(LONGEST));
        Some((pid, Program { start: stat.start, comm: stat.comm, text: folder.text_pages()?, cmdline, exe }))
    };
    pids.take(MOST_PROGRAMS).filter_map(program).collect()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
