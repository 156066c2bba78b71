//! A running tool: started, ready, giving rows, ended.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};
use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

use crate::ended::Ended;
use crate::hidden::{Watch, skipped};
use crate::kernel::{Rung, also_said, has_failed, kernel_hid_events, lacks_rung, skip};
use crate::laws::Laws;
use crate::lines::Lines;
use crate::net::{END_PORT, Net};
use crate::raw::{
    Memory, clock_ahead, end_with_this_thread, ignore_only, limit, own_terminal, root_of_its_own,
};
use crate::rows::{Cells, Format, Row, Rows, fenced};
use crate::schema::Schema;

/// How long anything that must happen may take: a test that fails waits this long, one that passes does not. An emulated
/// guest on a loaded machine needed half a minute for what takes a second here.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How long a row may take in a check that has lost events to the kernel, which hid them or skipped a program's runs, and
/// runs again if it fails: the row is most likely one of those.
const PATIENCE_WITH_LOST: Duration = Duration::from_secs(30);

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("NETBCC_BIN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/dist/netbcc")),
        PathBuf::from,
    )
}

/// A copy of the binary under test that every user may run; the original may lie where only root can look.
#[derive(Debug)]
pub struct Copy(TempDir);

impl Copy {
    /// Makes it.
    #[expect(clippy::new_without_default, reason = "there is nothing usual about it")]
    pub fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is ours");
        {
            // A child that is started meanwhile holds the copy open for writing until it is another program, and what
            // is open for writing cannot be run (ETXTBSY).
            let _no_child = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
            fs::copy(binary(), place.path().join("netbcc")).expect("room for a copy");
        }
        Self(place)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("netbcc")
    }

    /// CAP_PERFMON and CAP_BPF, all that a tool needs, in the upper word of a set.
    pub const NEEDED: u32 = 1 << (38 - 32) | 1 << (39 - 32);

    /// Gives it these file capabilities of the upper word, permitted and effective (`struct vfs_cap_data`), and no
    /// others; skips the test where the file system has none.
    pub fn grant(&self, upper: u32) {
        const REVISION_2: u32 = 0x0200_0000;
        const EFFECTIVE: u32 = 1;
        let words = [REVISION_2 | EFFECTIVE, 0, 0, upper, 0];
        let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Err(error) = setxattr(self.path(), "security.capability", &value, XattrFlags::empty()) {
            skip(format!("file capabilities ({error})"));
        }
    }
}

/// From now on the calling thread, and what it starts, have mounts of their own, which nobody else sees.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("nobody else sees them");
}

/// Shows this file in place of that one, to those who share our mounts.
pub fn in_place_of(file: &Path, other: &str) {
    mount(Some(file), other, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("both are there");
}

/// Starts a process. Descriptors that one child is to inherit are inheritable for a moment; the lock keeps other
/// children out of that moment.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _moment = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    spawn_now(command)
}

static SPAWNING: Mutex<()> = Mutex::new(());

/// The PID namespace of processes that a thread starts.
enum Pids {
    /// The thread's own.
    Ours,
    /// One of their own, which the first of them makes.
    New,
    /// The namespace of this file.
    In(File),
}

thread_local! {
    static PIDS: RefCell<Pids> = const { RefCell::new(Pids::Ours) };
}

/// Runs `action`; new peers and tools that it starts are in a PID namespace of their own: process 1, 2, and so on. The
/// namespace ends with process 1.
pub fn with_own_pids<T>(action: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            PIDS.replace(Pids::Ours);
        }
    }
    let _back = Back;
    PIDS.replace(Pids::New);
    action()
}

/// A thread whose children are elsewhere cannot start threads, so that lasts for the moment only.
fn spawn_now(command: &mut Command) -> io::Result<Child> {
    let pids = |id: &str| File::open(format!("/proc/{id}/ns/pid"));
    PIDS.with_borrow_mut(|own| {
        match own {
            Pids::Ours => return command.spawn(),
            Pids::New => unshare(CloneFlags::CLONE_NEWPID)?,
            Pids::In(space) => setns(space, CloneFlags::CLONE_NEWPID)?,
        }
        let child = command.spawn();
        setns(pids("self")?, CloneFlags::CLONE_NEWPID)?;
        let child = child?;
        if matches!(own, Pids::New) {
            *own = Pids::In(pids(&child.id().to_string())?);
        }
        Ok(child)
    })
}

/// A tool to be started.
#[must_use]
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    args: Vec<String>,
    rung: Rung,
    user: Option<u32>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    env: Vec<(&'static str, String)>,
    limit: Option<(Resource, u64)>,
    ahead: Option<i64>,
    is_root_of_its_own: bool,
    ignored: Vec<Signal>,
    /// Whether it is killed when the thread ends that starts it.
    tied: bool,
    seat: Option<Seat>,
}

/// How a tool stands to the terminal that is its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// It leads a session, and the terminal is that session's.
    Session,
    /// It leads a group of processes in our session, as a job of a shell does; the terminal is nobody's.
    Job,
}

/// What an ordinary user may lock of memory where tables count as such: the kernel's own default before 5.16
/// (`MLOCK_LIMIT`, include/uapi/linux/resource.h). The tests themselves may lock any amount.
const USERS_LOCKED_BYTES: u64 = 64 << 10;

impl Launch {
    /// `netbcc TOOL ARGS`, the arguments separated by blanks.
    pub fn new(tool: &str, args: &str) -> Self {
        let args = std::iter::once(tool).chain(args.split_whitespace()).map(Into::into).collect();
        Self {
            program: binary(),
            args,
            rung: Rung::Any,
            user: None,
            stdin: None,
            stdout: None,
            stderr: None,
            env: Vec::new(),
            limit: None,
            ahead: None,
            is_root_of_its_own: false,
            ignored: Vec::new(),
            tied: false,
            seat: None,
        }
    }

    /// Another copy of the binary.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Forces a rung.
    pub fn rung(mut self, rung: Rung) -> Self {
        self.rung = rung;
        self
    }

    /// Starts as this user.
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Limits a resource of the process.
    pub fn limit(mut self, resource: Resource, most: u64) -> Self {
        self.limit = Some((resource, most));
        self
    }

    /// Has it ignore these signals from the beginning, as `nohup` and a shell's background do.
    pub fn ignoring(mut self, signals: &[Signal]) -> Self {
        self.ignored = signals.to_vec();
        self
    }

    /// Starts it where the monotonic clock is so many seconds ahead, as far as the kernel can.
    pub fn clock_ahead(mut self, seconds: i64) -> Self {
        self.ahead = Some(seconds);
        self
    }

    /// Starts it as root of a user namespace of its own.
    pub fn root_of_its_own(mut self) -> Self {
        self.is_root_of_its_own = true;
        self
    }

    /// Gives it a terminal as standard input.
    pub fn stdin(mut self, from: impl Into<Stdio>, seat: Seat) -> Self {
        self.stdin = Some(from.into());
        self.seat = Some(seat);
        self
    }

    /// Sends stdout somewhere else than to the test.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = Some(to.into());
        self
    }

    /// Sends stderr somewhere else than to the test.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = Some(to.into());
        self
    }

    fn describe(&self) -> String {
        let force = if self.rung == Rung::Any {
            String::new()
        } else {
            format!("NETBCC_ATTACH={} ", self.rung.name())
        };
        format!("{force}{} {}", self.program.display(), self.args.join(" "))
    }

    /// Starts the process.
    fn spawn(self) -> Started {
        let described = self.describe();
        // Whatever a test looks at: every JSON row of every run is what the tool's schema says.
        let has_rows = self.args[0] != "doctor" && self.writes_json();
        let schema = has_rows.then(|| Schema::of(&self.args[0]));
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(self.stdin.unwrap_or_else(Stdio::null));
        command.stderr(self.stderr.unwrap_or_else(Stdio::piped));
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        // Each machine has its own settings; these are the tests'.
        for name in ["NETBCC_LOG", "NETBCC_ATTACH", "COLUMNS"] {
            command.env_remove(name);
        }
        if self.rung != Rung::Any {
            command.env("NETBCC_ATTACH", self.rung.name());
        }
        if self.tied {
            end_with_this_thread(&mut command);
        }
        match self.seat {
            Some(Seat::Session) => own_terminal(&mut command),
            Some(Seat::Job) => {
                command.process_group(0);
            }
            None => {}
        }
        if let Some((resource, most)) = self.limit {
            limit(&mut command, resource, most);
        }
        if let Some(seconds) = self.ahead {
            clock_ahead(&mut command, seconds);
        }
        if self.is_root_of_its_own {
            root_of_its_own(&mut command);
        }
        ignore_only(&mut command, self.ignored);
        if let Some(uid) = self.user {
            limit(&mut command, Resource::RLIMIT_MEMLOCK, USERS_LOCKED_BYTES);
            command.uid(uid).gid(uid);
        }
        let laws = Laws::from_now();
        let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        command.env("NETBCC_READY_FD", signal.as_raw_fd().to_string());
        // Times of day are compared with the system's clock.
        command.env("TZ", "UTC0");
        command.envs(self.env);
        let child = {
            let _moment = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
            fcntl(&signal, FcntlArg::F_SETFD(FdFlag::empty())).expect("the pipe is open");
            let child = spawn_now(&mut command);
            drop(signal);
            child
        };
        let mut child = child.unwrap_or_else(|e| panic!("{described}: {e}"));
        let out = child.stdout.take().map_or_else(Lines::none, Lines::from);
        let err = child.stderr.take().map_or_else(Lines::none, Lines::from);
        Started { described, child, out, err, ready, schema, laws }
    }

    /// Whether its rows are JSON.
    fn writes_json(&self) -> bool {
        self.args.iter().any(|arg| arg == "--json")
    }

    /// Starts the tool and waits until its hooks are attached.
    pub fn start(self, net: &Net) -> Run<'_> {
        self.try_start(net).unwrap_or_else(|ended| ended.fail("the tool ended before it was ready"))
    }

    /// Starts the tool with options that it may refuse, and waits until its hooks are attached, or it has ended.
    ///
    /// # Errors
    /// The tool ended before it was ready.
    pub fn try_start(self, net: &Net) -> Result<Run<'_>, Ended> {
        let (json, rung) = (self.writes_json(), self.rung);
        let mut started = self.spawn();
        if !started.gets_ready() {
            let ended = started.wait();
            if let Some(why) = ended.refusal() {
                lacks_rung(rung, &why);
            }
            return Err(ended);
        }
        Ok(Run::of(started, json, net))
    }

    /// Starts the tool and waits until its hooks are attached.
    ///
    /// # Errors
    /// This kernel cannot run the tool in this way: what the tool says.
    pub fn start_if_offered(self, net: &Net) -> Result<Run<'_>, String> {
        let json = self.writes_json();
        let mut started = self.spawn();
        if started.gets_ready() {
            return Ok(Run::of(started, json, net));
        }
        let ended = started.wait();
        Err(ended.refusal().unwrap_or_else(|| ended.fail("the tool ended before it was ready")))
    }

    /// Starts a tool that is nobody's, to run for as long as the calling thread does; nothing if it cannot.
    pub(crate) fn beside(mut self) -> Option<Started> {
        self.tied = true;
        let started = self.spawn();
        started.gets_ready().then_some(started)
    }

    /// Starts a tool that is to end by itself, and waits for that.
    pub fn ends(self) -> Ended {
        self.spawn().wait()
    }

    /// Starts a tool, does something to it while it starts, and waits for its end.
    pub fn ends_after(self, action: impl FnOnce(Pid)) -> Ended {
        let mut started = self.spawn();
        action(started.pid());
        started.wait()
    }

    /// Starts the tool, and does not wait for anything.
    pub fn begin(self, net: &Net) -> Run<'_> {
        let json = self.writes_json();
        Run::of(self.spawn(), json, net)
    }

    /// Starts a tool, and ends it at once where it gets ready; else what it said.
    pub fn fails(self) -> Option<Ended> {
        let mut started = self.spawn();
        if started.gets_ready() {
            return None;
        }
        Some(started.wait())
    }

    /// Why this kernel cannot run the tool in this way, if it says so.
    pub fn refusal(self) -> Option<String> {
        let mut started = self.spawn();
        if started.gets_ready() {
            return None;
        }
        started.wait().refusal()
    }
}

/// A process, and its pipes.
#[derive(Debug)]
pub(crate) struct Started {
    described: String,
    child: Child,
    out: Lines,
    err: Lines,
    ready: OwnedFd,
    schema: Option<Schema>,
    laws: Laws,
}

impl Started {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("PIDs are positive"))
    }

    /// Waits for the byte that says so; false when the process ends instead.
    fn gets_ready(&self) -> bool {
        let patience = PollTimeout::try_from(PATIENCE).expect("fits");
        let mut fds = [PollFd::new(self.ready.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, patience) {
            Ok(0) => panic!("not ready after {PATIENCE:?}\n{}", self.report(&[])),
            Ok(_) => nix::unistd::read(&self.ready, &mut [0]).is_ok_and(|n| n == 1),
            Err(error) => panic!("poll: {error}"),
        }
    }

    fn report(&self, ours: &[String]) -> String {
        let out = self.out.texts();
        [
            fenced("command", std::slice::from_ref(&self.described)),
            fenced("stderr", &self.err.texts()),
            fenced("stdout", &out),
            fenced(&format!("rows of this test ({} of {} lines)", ours.len(), out.len()), ours),
        ]
        .concat()
    }

    /// Insists that the rows are what the schema says, and agree with themselves and the clocks.
    fn check_schema(&self) {
        let Some(schema) = &self.schema else { return };
        let mut laws = self.laws;
        for line in self.out.texts() {
            if let Err(why) = schema.check(&line) {
                panic!("a row is not what the schema says: {why}: {line}\n{}", self.report(&[]));
            }
            if let Err(why) = laws.check(&line) {
                panic!("a row cannot be true: {why}: {line}\n{}", self.report(&[]));
            }
        }
    }

    /// Waits for the process to end.
    fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = self.exit(deadline).unwrap_or_else(|| panic!("does not end\n{}", self.report(&[])));
        self.out.end(deadline);
        self.err.end(deadline);
        if status.signal().is_none() {
            self.check_schema();
        }
        let stderr: String = self.err.texts().iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        Ended {
            hidden: 0,
            code: status.code(),
            signal: status.signal(),
            stdout: self.out.texts(),
            stderr,
            report: self.report(&[]),
        }
    }

    /// Waits without a signal handler: there is no condition to sleep on but the process itself.
    fn exit(&mut self, deadline: Instant) -> Option<ExitStatus> {
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// What a tool says at its end, when the check has failed while it ran: whether what is missing was lost.
    fn last_words(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(5);
        let said = self.err.texts().len();
        let _dead_already = kill(self.pid(), Signal::SIGINT);
        let status = self.exit(deadline);
        self.err.end(deadline);
        let end = status.map_or_else(|| "it does not end".into(), |status| status.to_string());
        let mut said = self.err.texts().split_off(said);
        said.insert(0, format!("{}: after a Ctrl-C: {end}", self.described));
        said.join("\n")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if has_failed() && matches!(self.child.try_wait(), Ok(None)) {
            also_said(&self.last_words());
        }
        let _dead_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A tool whose hooks are attached.
#[must_use]
pub struct Run<'n> {
    started: Started,
    net: &'n Net,
    format: RefCell<Option<Format>>,
    parsed: RefCell<Parsed>,
    end: Box<dyn Fn() + 'n>,
    ends: Cell<usize>,
    end_rows: usize,
    watch: Option<Watch>,
}

#[derive(Default)]
struct Parsed {
    /// Lines of stdout that were looked at.
    lines: usize,
    /// Our rows among them, without those of the end connect.
    ours: Vec<(Instant, String, Rc<Cells>)>,
    /// Rows of the end connect.
    ends: usize,
    /// A line that is no row.
    odd: Option<String>,
}

impl<'n> Run<'n> {
    fn of(started: Started, json: bool, net: &'n Net) -> Self {
        Self {
            started,
            net,
            format: RefCell::new(json.then_some(Format::Json)),
            parsed: RefCell::default(),
            end: Box::new(move || {
                let refused = net.near().enter(|| TcpStream::connect(net.v4(END_PORT)));
                assert!(refused.is_err(), "nobody listens there");
            }),
            ends: Cell::new(0),
            end_rows: 1,
            watch: None,
        }
    }

    /// How to make the connect that says "nothing more is to come", for tools whose filters would hide the usual
    /// one: it must go to `END_PORT` and give one row.
    pub fn ended_by(mut self, end: impl Fn() + 'n) -> Self {
        self.end = Box::new(end);
        self
    }

    /// How many rows the tool gives for one end connect, if it is not one.
    pub fn end_rows(mut self, rows: usize) -> Self {
        self.end_rows = rows;
        self
    }

    /// Counts from now on for which events the kernel does not run the tool's programs. Events cost a little more then.
    pub fn watched(mut self) -> Self {
        self.watch = Watch::over(self.pid());
        self
    }

    /// The process id of the tool.
    pub fn pid(&self) -> u32 {
        self.started.id()
    }

    /// Whatever the tool has printed.
    pub fn lines(&self) -> Vec<String> {
        self.started.out.texts()
    }

    /// Waits for this many lines on stdout.
    pub fn await_lines(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Counted once: a line that comes between two counts would be waited for in vain.
            let known = self.started.out.lock().lines.len();
            if known >= count {
                return self.lines();
            }
            if !self.started.out.grow(known, deadline) {
                self.fail(&format!("fewer than {count} lines"));
            }
        }
    }

    /// The header, which is the line before the first row.
    pub fn header(&self) -> String {
        let banner = ["bindsnoop", "softirqslower", "tcpconnect", "tcpretrans", "tcptracer"]
            .iter()
            .any(|tool| self.started.described.contains(tool));
        self.await_lines(if banner { 2 } else { 1 }).swap_remove(usize::from(banner))
    }

    /// Looks at the lines that came since the last time.
    fn look(&self) {
        let mut format = self.format.borrow_mut();
        let mut parsed = self.parsed.borrow_mut();
        let read = self.started.out.lock();
        for (at, line) in &read.lines[parsed.lines..] {
            parsed.lines += 1;
            let Some(format) = &*format else {
                // The banner comes before the header.
                if !line.ends_with("Hit Ctrl-C to end") && !line.ends_with("Ctrl-C to end.") {
                    *format = Some(Format::under(line));
                }
                continue;
            };
            // The stack below a row, and the empty line below that.
            if *format != Format::Json && (line.is_empty() || line.starts_with('\t')) {
                continue;
            }
            match format.parse(line) {
                Err(why) => parsed.odd = parsed.odd.take().or(Some(format!("{why}: {line:?}"))),
                Ok(cells) => {
                    let named = |names: &'static [&'static str]| {
                        let among = move |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
                        cells.iter().filter(move |(name, _)| among(name)).map(|(_, cell)| cell.as_str())
                    };
                    // Of a tool that knows one port only, the end is there.
                    let mut remote = named(&["DPORT", "RPORT", "PORT"]);
                    if !self.net.owns(
                        named(&["SADDR", "DADDR", "LADDR", "RADDR", "ADDR"]),
                        named(&["LPORT", "DPORT", "RPORT", "PORT"]),
                    ) {
                        continue;
                    }
                    // The answer to it has both ends the other way round.
                    let is_sent = named(&["R", "direction"]).any(|way| way == "R>" || way == "sent");
                    let at_end = |port: Option<&str>| port == Some(&END_PORT.to_string());
                    if at_end(remote.next()) || is_sent && at_end(named(&["LPORT"]).next()) {
                        parsed.ends += 1;
                        continue;
                    }
                    drop(remote);
                    let row = (*at, line.clone(), Rc::new(cells));
                    parsed.ours.push(row);
                }
            }
        }
    }

    fn ours(&self) -> Vec<String> {
        self.parsed.borrow().ours.iter().map(|(_, line, _)| line.clone()).collect()
    }

    /// Waits until `reached`, which looks at what was parsed so far.
    fn wait_until(&self, what: &str, reached: impl Fn(&Parsed) -> bool) {
        let began = Instant::now();
        loop {
            self.look();
            if let Some(odd) = &self.parsed.borrow().odd {
                self.fail(&format!("a line is no row: {odd}"));
            }
            let known = {
                let parsed = self.parsed.borrow();
                if reached(&parsed) {
                    return;
                }
                parsed.lines
            };
            let look_again = Instant::now() + Duration::from_secs(5);
            let is_late = || {
                let waited = began.elapsed();
                waited > PATIENCE
                    || waited > PATIENCE_WITH_LOST && (kernel_hid_events() || skipped(self.pid()) > 0)
            };
            if !self.started.out.grow(known, look_again) && (Instant::now() < look_again || is_late()) {
                self.fail(&format!("{what} did not come"));
            }
        }
    }

    /// Waits for this many rows of this test, and insists that there are no more.
    pub fn rows(&self, count: usize) -> Rows {
        self.wait_until(&format!("row {count}"), |parsed| parsed.ours.len() >= count);
        self.settle();
        let rows = self.so_far();
        if rows.len() != count {
            rows.fail(format!("{} rows, not {count}", rows.len()));
        }
        rows
    }

    /// Makes the end connect and waits for its row: everything that happened before is told by then.
    pub fn settle(&self) {
        (self.end)();
        self.ends.set(self.ends.get() + 1);
        self.wait_until("the row of the end connect", |parsed| {
            parsed.ends >= self.ends.get() * self.end_rows
        });
    }

    /// Waits until it has written nothing for a second: it is through with what happened.
    pub fn is_through(&self) {
        loop {
            let (known, last) = {
                let told = self.started.out.lock();
                (told.lines.len(), told.lines.last().map(|(at, _)| *at))
            };
            let due = last.map_or_else(Instant::now, |at| at + Duration::from_secs(1));
            if !self.started.out.grow(known, due) {
                return;
            }
        }
    }

    /// Waits for a row of this test number `count` and says when it came; more may follow.
    pub fn arrival(&self, count: usize) -> Instant {
        self.wait_until(&format!("row {count}"), |parsed| parsed.ours.len() >= count);
        self.parsed.borrow().ours[count - 1].0
    }

    /// Waits until there are this many rows, or until nothing came for a while; answers how many there are. A machine
    /// that is busy drops packets even on loopback, and what follows from them comes when they are sent again.
    pub fn rows_at_last(&self, count: usize) -> Rows {
        loop {
            let rows = self.so_far();
            // Those that were looked at: one that came since would be waited for in vain.
            let lines = self.parsed.borrow().lines;
            if rows.len() >= count || !self.started.out.grow(lines, Instant::now() + Duration::from_secs(3)) {
                return rows;
            }
        }
    }

    /// Waits until one of this test's rows is as asked for.
    pub fn wait_for_row(&self, what: &str, wanted: impl Fn(&Row) -> bool) {
        let mut known = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.so_far();
            if rows.iter().skip(known).any(&wanted) {
                return;
            }
            known = rows.len();
            // Not what came since, for which nobody would wake us.
            let lines = self.parsed.borrow().lines;
            if Instant::now() >= deadline {
                self.fail(&format!("{what} did not come"));
            }
            self.started.out.grow(lines, deadline);
        }
    }

    /// What it said on stderr so far. What it says at its start is there once it is ready.
    pub fn said(&self) -> String {
        self.started.err.texts().join("\n")
    }

    /// The rows of this test until now.
    pub fn so_far(&self) -> Rows {
        self.look();
        let report: Rc<str> = self.started.report(&self.ours()).into();
        let rows = self.parsed.borrow();
        let row = |(_, line, cells): &(Instant, String, Rc<Cells>)| Row {
            line: line.clone(),
            cells: Rc::clone(cells),
            report: Rc::clone(&report),
        };
        Rows { rows: rows.ours.iter().map(row).collect(), report }
    }

    /// Stops it in the middle of whatever it does, until [`Run::resume`].
    pub fn suspend(&self) {
        kill(self.started.pid(), Signal::SIGSTOP).expect("it runs");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill(self.started.pid(), Signal::SIGCONT).expect("it is there");
    }

    /// How long it was ready to run and another had its processor, in all.
    pub fn waited_for_cpu(&self) -> Duration {
        waited_for_cpu(&self.pid().to_string())
    }

    /// Ctrl-C; waits for the end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT)
    }

    /// Another signal; waits for the end.
    pub fn signal(mut self, signal: Signal) -> Ended {
        let hidden = self.watch.as_ref().map_or(0, Watch::count);
        kill(self.started.pid(), signal).expect("it runs");
        Ended { hidden, ..self.started.wait() }
    }

    /// Another signal; waits for the end, and says how long that took, without the time in which the tool or this test was ready to
    /// go on and had no processor.
    pub fn ends_after(mut self, signal: Signal) -> (Ended, Duration) {
        let hidden = self.watch.as_ref().map_or(0, Watch::count);
        let pid = self.pid().to_string();
        let waited = || waited_for_cpu(&pid).saturating_add(waited_for_cpu("thread-self"));
        let (before, told) = (waited(), Instant::now());
        kill(self.started.pid(), signal).expect("it runs");
        // It stays where it is until somebody asks how it ended.
        let over = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while waitid(Id::Pid(self.started.pid()), over).expect("it is our child") == WaitStatus::StillAlive
            && told.elapsed() < PATIENCE
        {
            thread::sleep(Duration::from_millis(1));
        }
        let (took, after) = (told.elapsed(), waited());
        // Where the kernel does not tell, nothing is taken off.
        let waited = if after == Duration::MAX { Duration::ZERO } else { after.saturating_sub(before) };
        (Ended { hidden, ..self.started.wait() }, took.saturating_sub(waited))
    }

    /// Waits for the tool to end by itself.
    pub fn ends(mut self) -> Ended {
        self.started.wait()
    }

    /// Ctrl-C, and insists on a good end: exit code 0, nothing lost.
    pub fn finish(self) -> Ended {
        let ended = self.stop();
        ended.code(0).quiet();
        ended
    }

    /// Ends the test, with everything there is to know.
    pub fn fail(&self, message: &str) -> ! {
        panic!("{message}\n{}", self.started.report(&self.ours()))
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.started.fmt(f)
    }
}

/// How long the process of this name in /proc was ready to run and another had its processor, in all.
fn waited_for_cpu(name: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/{name}/schedstat")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).map_or(Duration::MAX, Duration::from_nanos)
}

/// The programs that a process holds, by kernel id.
pub fn programs_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "prog_id:")
}

/// The maps that a process holds, by kernel id.
pub fn maps_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "map_id:")
}

/// A map of the process, by its name in the object; none if this run has no such map.
pub fn memory_of(pid: u32, name: &str) -> Option<Memory> {
    /// What the kernel keeps of a name.
    const KEPT: usize = 15;
    let name = &name[..name.len().min(KEPT)];
    maps_of(pid).into_iter().find_map(|id| Memory::named(id, name).expect("we may open it"))
}

/// The links that a process holds, by kernel id.
pub fn links_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "link_id:")
}

/// The programs that a process has attached: how, as the kernel names the kind of link (`tracing` is fentry and fexit), and
/// each by its kernel id.
pub fn attached_of(pid: u32) -> Vec<(String, u32)> {
    let Ok(infos) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return vec![] };
    let infos = infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok());
    let attached = infos.filter_map(|info| {
        let find = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((find("link_type:")?.to_owned(), find("prog_id:")?.parse().ok()?))
    });
    attached.collect()
}

fn ids_of(pid: u32, what: &str) -> Vec<u32> {
    let Ok(infos) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return vec![] };
    let mut ids: Vec<u32> = infos
        .filter_map(|info| File::open(info.ok()?.path()).ok())
        .flat_map(|info| BufReader::new(info).lines().map_while(Result::ok))
        .filter_map(|line| line.strip_prefix(what)?.trim().parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
