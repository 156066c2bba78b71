//! A running tool: started, ready, giving rows, ended.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Pid, pipe2};
use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

use crate::kernel::{Rung, lacks_rung, skip};
use crate::net::{END_PORT, Net};
use crate::rows::{Cells, Format, Row, Rows, fenced};
use crate::schema::Schema;

/// How long anything that must happen may take: a test that fails waits this long, one that passes does not.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a tool says when the kernel lacks the rung that it was forced to.
const REFUSAL: &str = "this kernel does not offer";

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
        fs::copy(binary(), place.path().join("netbcc")).expect("room for a copy");
        Self(place)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("netbcc")
    }

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

/// Starts a process. Descriptors that one child is to inherit are inheritable for a moment; the lock keeps other
/// children out of that moment.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _moment = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

static SPAWNING: Mutex<()> = Mutex::new(());

/// A tool to be started.
#[must_use]
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    args: Vec<String>,
    rung: Rung,
    user: Option<u32>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    env: Vec<(&'static str, String)>,
}

impl Launch {
    /// `netbcc TOOL ARGS`, the arguments separated by blanks.
    pub fn new(tool: &str, args: &str) -> Self {
        let args = std::iter::once(tool).chain(args.split_whitespace()).map(Into::into).collect();
        Self {
            program: binary(),
            args,
            rung: Rung::Any,
            user: None,
            stdout: None,
            stderr: None,
            env: Vec::new(),
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
        let has_rows = self.args[0] != "doctor" && self.args.iter().any(|arg| arg == "--json");
        let schema = has_rows.then(|| Schema::of(&self.args[0]));
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stderr(self.stderr.unwrap_or_else(Stdio::piped));
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        // Each machine has its own settings; these are the tests'.
        for name in ["NETBCC_LOG", "NETBCC_ATTACH", "COLUMNS"] {
            command.env_remove(name);
        }
        if self.rung != Rung::Any {
            command.env("NETBCC_ATTACH", self.rung.name());
        }
        command.envs(self.env);
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        // The tool opens it by its name in /proc, whoever it is.
        fchmod(&signal, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IWOTH).expect("it is ours");
        // Times of day are compared with the system's clock.
        command.env("TZ", "UTC0");
        command.env("NETBCC_READY_FD", signal.as_raw_fd().to_string());
        let child = {
            let _moment = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
            fcntl(&signal, FcntlArg::F_SETFD(FdFlag::empty())).expect("the pipe is open");
            let child = command.spawn();
            drop(signal);
            child
        };
        let mut child = child.unwrap_or_else(|e| panic!("{described}: {e}"));
        let out = child.stdout.take().map_or_else(Lines::none, Lines::from);
        let err = child.stderr.take().map_or_else(Lines::none, Lines::from);
        Started { described, child, out, err, ready, schema }
    }

    /// Starts the tool and waits until its hooks are attached.
    pub fn start(self, net: &Net) -> Run<'_> {
        let json = self.args.iter().any(|arg| arg == "--json");
        let (rung, mut started) = (self.rung, self.spawn());
        if !started.gets_ready() {
            let ended = started.wait();
            if ended.stderr.contains(REFUSAL) {
                lacks_rung(rung, ended.stderr.lines().next().unwrap_or_default());
            }
            ended.fail("the tool ended before it was ready");
        }
        Run {
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
        }
    }

    /// Starts a tool that is to end by itself, and waits for that.
    pub fn ends(self) -> Ended {
        self.spawn().wait()
    }

    /// Why this kernel cannot run the tool in this way, if it says so.
    pub fn refusal(self) -> Option<String> {
        let mut started = self.spawn();
        if started.gets_ready() {
            return None;
        }
        let ended = started.wait();
        (ended.code == Some(1) && ended.stderr.contains(REFUSAL))
            .then(|| ended.stderr.lines().next().unwrap_or_default().to_owned())
    }
}

/// Lines that come through a pipe. A thread reads them as they come.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<(Mutex<Told>, Condvar)>);

#[derive(Debug, Default)]
struct Told {
    /// None: somebody else reads it.
    pipe: Option<File>,
    lines: Vec<(Instant, String)>,
    /// A line whose end is still to come.
    begun: Vec<u8>,
    ended: bool,
}

impl Told {
    /// Reads what the pipe holds now, and waits for nothing.
    fn pull(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 1 << 13];
        while !self.ended && has_come(pipe.as_fd(), PollTimeout::ZERO) {
            let length = pipe.read(&mut buffer).unwrap_or(0);
            let now = Instant::now();
            self.begun.extend_from_slice(&buffer[..length]);
            self.ended = length == 0;
            let whole = self.begun.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let whole = if self.ended { self.begun.len() } else { whole };
            let read: Vec<u8> = self.begun.drain(..whole).collect();
            let lines = String::from_utf8_lossy(&read).into_owned();
            self.lines.extend(lines.split_terminator('\n').map(|line| (now, line.to_owned())));
        }
    }
}

/// Whether there is something to read, or the end, within this time.
fn has_come(pipe: BorrowedFd<'_>, patience: PollTimeout) -> bool {
    poll(&mut [PollFd::new(pipe, PollFlags::POLLIN)], patience).is_ok_and(|ready| ready > 0)
}

impl Lines {
    fn from(pipe: impl Into<OwnedFd>) -> Self {
        let pipe = File::from(pipe.into());
        let watched = pipe.try_clone().expect("room for one more");
        let lines = Self::default();
        lines.lock().pipe = Some(pipe);
        let sink = lines.clone();
        thread::spawn(move || {
            loop {
                // Outside the lock, so that whoever looks need not wait for the next line.
                has_come(watched.as_fd(), PollTimeout::NONE);
                let mut read = sink.lock();
                read.pull();
                sink.0.1.notify_all();
                if read.ended {
                    return;
                }
            }
        });
        lines
    }

    /// Of a pipe that somebody else reads.
    fn none() -> Self {
        let lines = Self::default();
        lines.lock().ended = true;
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are more lines than `known`; false when there will be none or the time is over.
    fn grow(&self, known: usize, deadline: Instant) -> bool {
        let mut read = self.lock();
        while read.lines.len() <= known && !read.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            read = self.0.1.wait_timeout(read, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        read.lines.len() > known
    }

    /// Waits until the pipe is closed.
    fn end(&self, deadline: Instant) {
        let mut known = 0;
        while self.grow(known, deadline) {
            known = self.lock().lines.len();
        }
    }

    /// All that came so far, read by the thread or not.
    fn texts(&self) -> Vec<String> {
        let mut read = self.lock();
        read.pull();
        read.lines.iter().map(|(_, line)| line.clone()).collect()
    }
}

/// A process, and its pipes.
#[derive(Debug)]
struct Started {
    described: String,
    child: Child,
    out: Lines,
    err: Lines,
    ready: OwnedFd,
    schema: Option<Schema>,
}

impl Started {
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

    /// Insists that the rows are what the schema says.
    fn check_schema(&self) {
        let Some(schema) = &self.schema else { return };
        for line in self.out.texts() {
            if let Err(why) = schema.check(&line) {
                panic!("a row is not what the schema says: {why}: {line}\n{}", self.report(&[]));
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
}

impl Drop for Started {
    fn drop(&mut self) {
        let _dead_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

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
    report: String,
}

impl Ended {
    /// Insists on the exit code.
    pub fn code(&self, code: i32) -> &Self {
        if self.code != Some(code) {
            self.fail(&format!("exit code {:?} (signal {:?}), not {code}", self.code, self.signal));
        }
        self
    }

    /// Insists that nothing was lost and nothing went wrong: stderr holds at most notes.
    pub fn quiet(&self) -> &Self {
        for word in ["lost", "dropped", "panicked", "error"] {
            if self.stderr.to_lowercase().contains(word) {
                self.fail(&format!("stderr speaks of {word:?}"));
            }
        }
        self
    }

    /// Insists that every event that did not become a row was told: lost, or in a probe run that the kernel skipped.
    /// An event that was lost may or may not have cost a row. Where the tool says that the kernel does not count the
    /// kprobe runs that it skips, up to one row in twenty may be missing; on an emulated processor one in a hundred is.
    pub fn accounts_for(&self, seen: usize, all: usize) -> &Self {
        let told = self.lost() + self.skipped();
        let untold =
            if self.stderr.contains("does not count the kprobe runs it skips") { all / 20 } else { 0 };
        if seen > all || all - seen > told + untold {
            self.fail(&format!("{seen} of {all} rows seen, {told} told as lost"));
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

    /// Insists that every event is a row or was told as lost, exactly. A run that the kernel skipped was of an event
    /// that may or may not have made a row, so where there are such the sum is a bound.
    pub fn adds_up(&self, seen: usize, all: usize) -> &Self {
        let (lost, skipped) = (self.lost(), self.skipped());
        let exact = skipped == 0 && !self.stderr.contains("does not count the kprobe runs it skips");
        if seen + lost > all || exact && seen + lost != all {
            self.fail(&format!("{seen} rows + {lost} lost of {all}"));
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

    /// The process id of the tool.
    pub fn pid(&self) -> u32 {
        self.started.child.id()
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
            let lines = self.lines();
            if lines.len() >= count {
                return lines;
            }
            if !self.started.out.grow(lines.len(), deadline) {
                self.fail(&format!("fewer than {count} lines"));
            }
        }
    }

    /// The header, which is the line before the first row.
    pub fn header(&self) -> String {
        let banner = ["tcpconnect", "tcpretrans", "tcptracer"]
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
                    if remote.next() == Some(&END_PORT.to_string()) {
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
        let deadline = Instant::now() + PATIENCE;
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
            if !self.started.out.grow(known, deadline) {
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
            let lines = self.lines().len();
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
            let lines = self.lines().len();
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
        let path = format!("/proc/{}/schedstat", self.pid());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .nth(1)
            .and_then(|ns| ns.parse().ok())
            .map_or(Duration::MAX, Duration::from_nanos)
    }

    /// Ctrl-C; waits for the end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT)
    }

    /// Another signal; waits for the end.
    pub fn signal(mut self, signal: Signal) -> Ended {
        kill(self.started.pid(), signal).expect("it runs");
        self.started.wait()
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

/// The programs that a process holds, by kernel id.
pub fn programs_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "prog_id:")
}

/// The maps that a process holds, by kernel id.
pub fn maps_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "map_id:")
}

/// The links that a process holds, by kernel id.
pub fn links_of(pid: u32) -> Vec<u32> {
    ids_of(pid, "link_id:")
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
