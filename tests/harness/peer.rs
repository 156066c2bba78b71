//! Processes that make traffic: with a name, PID, user and namespace of their own, and doing exactly what they are
//! told, one order at a time.
//!
//! A peer is this test program executed again (`NETBCC_PEER` is set), because a guest has no other. Orders and
//! answers are lines on its stdin and stdout; `actor.rs` is the other side.
//!
//! Starting a program is slow in an emulated guest, so peers that a test leaves as it found them serve the next one.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::raw;
use crate::run::spawn;

/// The environment variable that makes this program a peer.
pub const PEER_ENV: &str = "NETBCC_PEER";

/// How long an order may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// A process that makes traffic.
#[derive(Debug)]
pub struct Peer {
    /// There until the drop.
    process: RefCell<Option<Process>>,
    next: Cell<u32>,
    /// No other test can use it.
    spoilt: Cell<bool>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

/// Those that wait for the next test.
static IDLE: Mutex<Vec<Process>> = Mutex::new(vec![]);

impl Process {
    fn start() -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.env(PEER_ENV, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command).expect("this program can be executed again");
        let orders = child.stdin.take().expect("is piped");
        let stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let (send, answers) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, orders, answers }
    }

    fn tell(&mut self, order: &str) -> Result<(), String> {
        self.orders.write_all(format!("{order}\n").as_bytes()).map_err(|e| e.to_string())
    }

    fn answer(&self) -> Result<String, String> {
        self.answers.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("a peer did not answer within {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => "a peer died".into(),
        })
    }

    /// Gives up everything that a test made it have.
    fn forget(&mut self) -> bool {
        self.tell("forget").is_ok() && self.answer().is_ok_and(|answer| answer == "ok ")
    }
}

/// What a connect has beside its target.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct How(String);

impl How {
    /// Nothing special.
    pub fn plain() -> Self {
        Self::default()
    }

    fn with(mut self, word: &str) -> Self {
        let _infallible = write!(self.0, " {word}");
        self
    }

    /// From this local address and port, sharing it with others (`SO_REUSEADDR`).
    pub fn bound(self, address: SocketAddr) -> Self {
        self.with(&format!("bind={address}"))
    }

    /// Without waiting for the outcome.
    pub fn nonblocking(self) -> Self {
        self.with("nonblock")
    }

    /// By a worker of `io_uring`; to IPv4 only.
    pub fn by_uring_worker(self) -> Self {
        self.with("uring")
    }

    /// With an MPTCP socket.
    pub fn mptcp(self) -> Self {
        self.with("mptcp")
    }

    /// As a restored one (`TCP_REPAIR`): no packet leaves.
    pub fn repaired(self) -> Self {
        self.with("repair")
    }

    /// With Fast Open deferred to the first write (`TCP_FASTOPEN_CONNECT`).
    pub fn deferred_fast_open(self) -> Self {
        self.with("tfo-connect")
    }

    /// From a second thread with this name.
    pub fn in_thread(self, name: &str) -> Self {
        self.with(&format!("thread={}", hex(name.as_bytes())))
    }
}

/// What became of an order: the answer, or the name of the error (`ECONNREFUSED`).
pub type Outcome = Result<String, String>;

impl Peer {
    /// A process of this name in the network namespace at this path.
    pub(crate) fn of(name: &[u8], space: &str) -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self::by(idle.unwrap_or_else(Process::start), name, space)
    }

    /// A process that is started now, by this thread, and ends with the test.
    pub(crate) fn new_of(name: &[u8], space: &str) -> Self {
        let peer = Self::by(Process::start(), name, space);
        peer.spoilt.set(true);
        peer
    }

    fn by(process: Process, name: &[u8], space: &str) -> Self {
        let peer =
            Self { process: RefCell::new(Some(process)), next: Cell::new(0), spoilt: Cell::new(false) };
        peer.order(&format!("become {} {space}", hex(name)));
        peer
    }

    fn with<T>(&self, action: impl FnOnce(&mut Process) -> T) -> T {
        action(self.process.borrow_mut().as_mut().expect("it is there until the drop"))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.with(|process| process.child.id())
    }

    /// Gives an order and goes on; `end` waits for the answer.
    pub fn begin(&self, order: &str) {
        self.with(|process| process.tell(order)).unwrap_or_else(|error| panic!("peer: {order}: {error}"));
    }

    /// The answer to what `begin` ordered.
    pub fn end(&self) -> Outcome {
        let line = self.with(|process| process.answer()).unwrap_or_else(|error| panic!("{error}"));
        match line.split_once(' ') {
            Some(("ok", value)) => Ok(value.into()),
            Some(("err", name)) => Err(name.into()),
            _ => panic!("a peer answered {line:?}"),
        }
    }

    /// Gives an order and waits for the answer.
    pub fn ask(&self, order: &str) -> Outcome {
        self.begin(order);
        self.end()
    }

    /// Gives an order that must succeed.
    pub fn order(&self, order: &str) -> String {
        self.ask(order).unwrap_or_else(|error| panic!("peer: {order}: {error}"))
    }

    fn id(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    /// Listens.
    pub fn listen(&self, address: SocketAddr) -> Listener<'_> {
        self.try_listen(address, "").unwrap_or_else(|error| panic!("listen on {address}: {error}"))
    }

    /// Listens with an MPTCP socket, if the kernel has that.
    pub fn listen_mptcp(&self, address: SocketAddr) -> Result<Listener<'_>, String> {
        self.try_listen(address, "mptcp")
    }

    /// A socket that may listen later, bound to this address.
    pub fn bind(&self, address: SocketAddr) -> Listener<'_> {
        let kind = if address.is_ipv6() { "tcp6" } else { "tcp4" };
        self.try_bind(kind, Some(address)).unwrap_or_else(|error| panic!("bind to {address}: {error}"))
    }

    /// A socket of a kind that `actor.rs` knows (`tcp4`, `tcp6`, `mptcp4`, `udp4`, `unix`), which may listen later.
    pub fn try_bind(&self, kind: &str, address: Option<SocketAddr>) -> Result<Listener<'_>, String> {
        let id = self.id();
        let at = address.map_or_else(String::new, |address| address.to_string());
        let local = self.ask(&format!("bind {id} {kind} {at}"))?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Listener { peer: self, id, address: local.parse().unwrap_or(nowhere) })
    }

    /// A socket of a kind that `raw.rs` knows (`tcp4`, `udp6`, `udplite4`, `icmp4`, `mptcp4`), bound to this address; `options`
    /// are set before, as `level:option:value`.
    pub fn bind_with(&self, kind: &str, at: SocketAddr, options: &str) -> Result<Listener<'_>, String> {
        let id = self.id();
        let local = self.ask(format!("bind-with {id} {kind} {at} {options}").trim_end())?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Listener { peer: self, id, address: local.parse().unwrap_or(nowhere) })
    }

    fn try_listen(&self, address: SocketAddr, how: &str) -> Result<Listener<'_>, String> {
        let id = self.id();
        let address = self.ask(&format!("listen {id} {address} {how}"))?;
        Ok(Listener { peer: self, id, address: address.parse().expect("an address") })
    }

    /// Connects.
    pub fn connect(&self, to: SocketAddr) -> Conn<'_> {
        self.connect_as(to, &How::plain())
    }

    /// Connects in a special way.
    pub fn connect_as(&self, to: SocketAddr, how: &How) -> Conn<'_> {
        self.try_connect(to, how).unwrap_or_else(|error| panic!("connect to {to}{}: {error}", how.0))
    }

    /// Both ends of an MPTCP connection to `web` over which both sides have sent, so that it takes further subflows.
    pub fn converse<'w>(&self, web: &Listener<'w>) -> (Conn<'_>, Conn<'w>) {
        let near = self.connect_as(web.address(), &How::plain().mptcp());
        let far = web.accept();
        near.send(10);
        far.receive(10);
        far.send(10);
        near.receive(10);
        (near, far)
    }

    /// Connects, or says the name of the error.
    pub fn try_connect(&self, to: SocketAddr, how: &How) -> Result<Conn<'_>, String> {
        let id = self.id();
        let local = self.ask(&format!("connect {id} {to}{}", how.0))?;
        Ok(Conn { peer: self, id, local: local.parse().expect("an address") })
    }

    /// Connects to where nobody listens.
    pub fn refused(&self, to: SocketAddr) {
        self.fails(to, &How::plain(), "ECONNREFUSED");
    }

    /// A connect that must fail with this error.
    pub fn fails(&self, to: SocketAddr, how: &How, error: &str) {
        let outcome = self.try_connect(to, how).map(|conn| conn.local);
        assert_eq!(outcome, Err(error.into()), "connect to {to}{}", how.0);
    }

    /// Opens by `sendto` with `MSG_FASTOPEN`, carrying `bytes` bytes.
    pub fn fast_open(&self, to: SocketAddr, bytes: usize) -> Conn<'_> {
        let id = self.id();
        let local = self.order(&format!("fastopen {id} {to} {bytes}"));
        Conn { peer: self, id, local: local.parse().expect("an address") }
    }

    /// Connects and closes `times` times as fast as it can, from this many threads; says how many were accepted
    /// and how many were refused.
    pub fn churn(&self, to: SocketAddr, times: usize, threads: usize) -> (usize, usize) {
        let answer = self.order(&format!("churn {to} {times} {threads}"));
        let (accepted, refused) = answer.split_once(' ').expect("two numbers");
        (accepted.parse().expect("a number"), refused.parse().expect("a number"))
    }

    /// As the connection above, but with a server that reads to the end, closing by a RST once that has taken the connection.
    pub fn churn_resets(&self, to: SocketAddr, times: usize) {
        assert_eq!(self.order(&format!("churn {to} {times} 1 reset")), format!("{times} 0"));
    }

    /// Opens so many connections at once to where nobody answers, and waits until all have given up.
    pub fn time_out(&self, to: SocketAddr, count: usize) {
        self.order(&format!("time-out {to} {count}"));
    }

    /// Connects to itself at this address; so many times it sends a byte there and reads it a little later, at the end that
    /// connected.
    pub fn reads(&self, at: SocketAddr, times: usize) {
        self.order(&format!("reads {at} {times}"));
    }

    /// Binds to this address, listens and closes so many times.
    pub fn listens(&self, at: SocketAddr, times: usize) {
        self.order(&format!("listens {at} {times}"));
    }

    /// Answers every DNS query on `address` with this message (under the query's id).
    pub fn serve_dns(&self, address: SocketAddr, message: &[u8]) {
        self.spoilt.set(true);
        self.order(&format!("dns {address} {}", hex(message)));
    }

    /// Sends a DNS query and reads the answer in the way that `how` names (see `actor.rs`).
    pub fn resolve(&self, server: SocketAddr, query: &[u8], how: &str) {
        self.order(&format!("resolve {server} {} {how}", hex(query)));
    }

    /// Resolves and at once connects (`ECONNREFUSED` is fine); says how long both took together.
    pub fn resolve_and_connect(
        &self,
        server: SocketAddr,
        query: &[u8],
        how: &str,
        to: SocketAddr,
    ) -> Duration {
        let answer = self.order(&format!("resolve-connect {server} {} {how} {to}", hex(query)));
        Duration::from_micros(answer.parse().expect("microseconds"))
    }

    /// Waits until so many of its threads wait in accept().
    fn await_accepting(&self, threads: usize) {
        self.await_calls(nix::libc::SYS_accept4, threads);
    }

    /// Waits until so many of its threads sleep in this system call.
    fn await_calls(&self, call: nix::libc::c_long, threads: usize) {
        let begin = format!("{call} ");
        let tasks = format!("/proc/{}/task", self.pid());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let calls = fs::read_dir(&tasks).expect("it lives").filter_map(|task| {
                // What does not sleep has no call to show, and a thread may end meanwhile.
                fs::read_to_string(task.ok()?.path().join("syscall")).ok()
            });
            let waiting = calls.filter(|call| call.starts_with(&begin)).count();
            if waiting >= threads {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} threads wait in call {call}, not {threads}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Begins to send so many bytes over each of these connections of its own, in a thread each, and returns when all
    /// threads wait for a reader.
    pub fn all_wait_to_send(&self, conns: &[Conn<'_>], bytes: usize) {
        self.all_wait("push send", conns, bytes, nix::libc::SYS_sendto);
    }

    /// Begins to receive so many bytes over each of these connections of its own, in the way that `how` names (see
    /// `raw::pull`; its system call is `call`), in a thread each, and returns when all threads wait for data.
    pub fn all_wait_to_receive(&self, how: &str, conns: &[Conn<'_>], bytes: usize, call: nix::libc::c_long) {
        self.all_wait(&format!("pull {how}"), conns, bytes, call);
    }

    fn all_wait(&self, what: &str, conns: &[Conn<'_>], bytes: usize, call: nix::libc::c_long) {
        let ids = conns.iter().fold(String::new(), |ids, conn| format!("{ids} {}", conn.id));
        self.order(&format!("threads {what} {bytes}{ids}"));
        self.await_calls(call, conns.len());
    }

    /// Waits for the ends of all these threads; says how many bytes they moved.
    pub fn joined(&self) -> usize {
        self.order("joined").parse().expect("a number")
    }

    /// Renames its first thread.
    pub fn rename(&self, name: &str) {
        self.order(&format!("rename {}", hex(name.as_bytes())));
    }

    /// Kills it, in the middle of whatever it does.
    pub fn kill(mut self) {
        if let Some(mut process) = self.process.get_mut().take() {
            process.child.kill().expect("it runs");
            process.child.wait().expect("it is our child");
        }
    }

    /// Becomes another user for good.
    pub fn become_user(&self, uid: u32) {
        self.spoilt.set(true);
        self.order(&format!("setuid {uid}"));
    }

    /// Moves into a cgroup for good.
    pub fn join_cgroup(&self, group: &Path) {
        self.spoilt.set(true);
        fs::write(group.join("cgroup.procs"), self.pid().to_string()).expect("a process may move");
    }

    /// Maps a library that [`crate::library`] made, until the end of the test.
    pub fn map(&self, library: &Path) {
        self.order(&format!("map {}", hex(library.as_os_str().as_bytes())));
    }

    /// Looks up a name (`=` and its bytes as hexadecimal digits) by a function of a library that [`crate::library`] made, which
    /// answers `ret`; `how` is as `actor.rs` knows it.
    pub fn look_up(&self, library: &Path, function: &str, name: &str, ret: i32, how: &str) {
        let library = hex(library.as_os_str().as_bytes());
        self.order(format!("lookup {library} {function} {name} {ret} {how}").trim_end());
    }

    /// Moves into a mount namespace of its own; says its inode number.
    pub fn own_mounts(&self) -> u64 {
        self.spoilt.set(true);
        self.order("own-mounts").parse().expect("an inode number")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Some(mut process) = self.process.get_mut().take() else { return };
        if !self.spoilt.get() && !thread::panicking() && process.forget() {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(process);
            return;
        }
        let _dead_already = process.child.kill();
        let _reaped = process.child.wait();
    }
}

/// A listening socket of a peer.
#[derive(Debug)]
pub struct Listener<'p> {
    peer: &'p Peer,
    id: u32,
    address: SocketAddr,
}

impl<'p> Listener<'p> {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls listen() (again) with any backlog; says the name of the error, or where it then listens.
    pub fn again(&self, backlog: i32) -> Result<SocketAddr, String> {
        self.peer.ask(&format!("again {} {backlog}", self.id)).map(|at| at.parse().unwrap_or(self.address))
    }

    /// Calls listen() again, from a second thread with this name.
    pub fn again_in_thread(&self, backlog: i32, name: &str) -> Result<SocketAddr, String> {
        let name = hex(name.as_bytes());
        self.peer
            .ask(&format!("again {} {backlog} {name}", self.id))
            .map(|at| at.parse().unwrap_or(self.address))
    }

    /// The same socket, open in this process too.
    pub fn borrowed(&self) -> io::Result<OwnedFd> {
        let descriptor = self.peer.order(&format!("descriptor {}", self.id));
        let pid = self.peer.pid().try_into().expect("a process");
        raw::descriptor_of(pid, descriptor.parse().expect("a number"))
    }

    /// Accepts one connection.
    pub fn accept(&self) -> Conn<'p> {
        let id = self.peer.id();
        let local = self.peer.order(&format!("accept {} {id}", self.id));
        Conn { peer: self.peer, id, local: local.parse().expect("an address") }
    }

    /// Accepts one connection in the way that `how` names (see `Actor::accept`), or says the name of the error.
    pub fn accept_as(&self, how: &str) -> Result<Conn<'p>, String> {
        let id = self.peer.id();
        let local = self.peer.ask(&format!("accept {} {id} {how}", self.id))?;
        Ok(Conn { peer: self.peer, id, local: local.parse().expect("an address") })
    }

    /// Accepts one connection in a second thread with this name.
    pub fn accept_in_thread(&self, name: &str) -> Conn<'p> {
        self.accept_as(&format!("thread {}", hex(name.as_bytes()))).unwrap_or_else(|e| panic!("accept: {e}"))
    }

    /// Begins to wait in accept(); the answer is the accepted connection, once there is one.
    pub fn begin_accept(&self) -> impl FnOnce() -> Conn<'p> + use<'p> {
        let (peer, id) = (self.peer, self.peer.id());
        peer.begin(&format!("accept {} {id} blocked", self.id));
        peer.await_accepting(1);
        move || {
            let local = peer.end().unwrap_or_else(|error| panic!("accept: {error}"));
            Conn { peer, id, local: local.parse().expect("an address") }
        }
    }

    /// Makes so many threads that wait in accept() and close what they get.
    pub fn wait_in_accept(&self, threads: usize) {
        self.peer.spoilt.set(true);
        self.peer.order(&format!("waiters {} {threads}", self.id));
        self.peer.await_accepting(threads);
    }

    /// From now on accepts everything, reads each connection to its end and closes it.
    pub fn serve(&self) {
        self.peer.spoilt.set(true);
        self.peer.order(&format!("serve {}", self.id));
    }

    /// Waits until a serving listener has closed this many connections more, and no socket of its network namespace waits
    /// for the answer to its FIN.
    pub fn served(&self, count: usize) {
        self.peer.order(&format!("served {} {count}", self.id));
    }

    /// Stops listening.
    pub fn close(self) {
        self.peer.order(&format!("close {}", self.id));
    }
}

/// A socket of a peer: connected, or on its way.
#[derive(Debug)]
pub struct Conn<'p> {
    peer: &'p Peer,
    id: u32,
    local: SocketAddr,
}

/// `struct tcp_info` (include/uapi/linux/tcp.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info(Vec<u8>);

impl Info {
    /// The number of 8 bits at this offset.
    pub fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// Whether the connection is at its end: `TCP_CLOSE` (include/net/tcp_states.h).
    pub fn is_closed(&self) -> bool {
        self.u8(0) == 7
    }

    /// The number of 32 bits at this offset.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(*self.0[at..].first_chunk().expect("within the struct"))
    }

    /// The number of 64 bits at this offset.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(*self.0[at..].first_chunk().expect("within the struct"))
    }
}

impl Conn<'_> {
    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Calls listen() on it, which a connected socket refuses: says the name of the error.
    pub fn listen(&self, backlog: i32) -> Outcome {
        self.peer.ask(&format!("again {} {backlog}", self.id))
    }

    /// Leaves its connection and connects to somewhere else: the same socket.
    pub fn connect_elsewhere(&self, to: SocketAddr) {
        self.peer.order(&format!("elsewhere {} {to}", self.id));
    }

    /// Sends this many bytes.
    pub fn send(&self, bytes: usize) {
        self.peer.order(&format!("send {} {bytes}", self.id));
    }

    /// Begins to send this many bytes so many times; the answer is there when all are sent.
    pub fn begin_sends(&self, bytes: usize, times: usize) -> impl FnOnce() + use<'_> {
        self.peer.begin(&format!("sends {} {bytes} {times}", self.id));
        || drop(self.peer.end().unwrap_or_else(|error| panic!("send: {error}")))
    }

    /// Begins to receive exactly this many bytes; the answer is there when all are.
    pub fn begin_receive(&self, bytes: usize) -> impl FnOnce() + use<'_> {
        self.peer.begin(&format!("receive {} {bytes}", self.id));
        || drop(self.peer.end().unwrap_or_else(|error| panic!("receive: {error}")))
    }

    /// Gives the socket to another process as well.
    pub fn share<'p>(&self, with: &'p Peer) -> Conn<'p> {
        let descriptor = self.peer.order(&format!("descriptor {}", self.id));
        let id = with.id();
        with.order(&format!("share {id} {} {descriptor}", self.peer.pid()));
        Conn { peer: with, id, local: self.local }
    }

    /// Receives exactly this many bytes.
    pub fn receive(&self, bytes: usize) {
        self.peer.order(&format!("receive {} {bytes}", self.id));
    }

    /// Sends this many bytes in the way that `how` names (see `raw::push`); says how many the kernel took.
    pub fn push(&self, how: &str, bytes: usize) -> Result<usize, String> {
        self.peer.ask(&format!("push {} {how} {bytes}", self.id)).map(|n| n.parse().expect("a number"))
    }

    /// Sends in that way from a second thread with this name.
    pub fn push_in_thread(&self, how: &str, bytes: usize, name: &str) -> Result<usize, String> {
        let name = hex(name.as_bytes());
        self.peer.ask(&format!("push {} {how} {bytes} {name}", self.id)).map(|n| n.parse().expect("a number"))
    }

    /// Receives this many bytes in the way that `how` names (see `raw::pull`); says how many came.
    pub fn pull(&self, how: &str, bytes: usize) -> usize {
        self.peer.order(&format!("pull {} {how} {bytes}", self.id)).parse().expect("a number")
    }

    /// Receives in that way from a second thread with this name.
    pub fn pull_in_thread(&self, how: &str, bytes: usize, name: &str) -> usize {
        let name = hex(name.as_bytes());
        self.peer.order(&format!("pull {} {how} {bytes} {name}", self.id)).parse().expect("a number")
    }

    /// `tcpi_bytes_acked` and `tcpi_bytes_received` of the socket.
    pub fn counts(&self) -> (u64, u64) {
        let answer = self.peer.order(&format!("counts {}", self.id));
        let (acked, received) = answer.split_once(' ').expect("two numbers");
        (acked.parse().expect("a number"), received.parse().expect("a number"))
    }

    /// What the socket says of itself (`tcp_info`).
    pub fn info(&self) -> Info {
        let answer = self.peer.order(&format!("info {}", self.id));
        let byte = |at| u8::from_str_radix(&answer[at..at + 2], 16).expect("two digits");
        Info((0..answer.len()).step_by(2).map(byte).collect())
    }

    /// Waits until what the socket says of itself (`tcp_info`) is as asked for; answers it.
    pub fn await_info(&self, what: &str, wanted: impl Fn(&Info) -> bool) -> Info {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.info();
            if wanted(&info) {
                return info;
            }
            assert!(Instant::now() < deadline, "{what}: {info:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sets an option that is a number (`setsockopt`).
    pub fn set(&self, level: i32, name: i32, value: i32) {
        self.peer.order(&format!("set {} {level} {name} {value}", self.id));
    }

    /// Attaches a filter that lets nothing in.
    pub fn reject_all(&self) {
        self.peer.order(&format!("reject-all {}", self.id));
    }

    /// Waits until there is something to read, and leaves it there.
    pub fn await_data(&self) {
        self.peer.order(&format!("readable {}", self.id));
    }

    /// Waits until the connection is there (or failed).
    pub fn await_writable(&self) {
        self.peer.order(&format!("writable {}", self.id));
    }

    /// Waits for the other side's end, by a FIN or a RST.
    pub fn await_end(&self) {
        self.peer.order(&format!("eof {}", self.id));
    }

    /// Closes only the sending direction.
    pub fn finish_sending(&self) {
        self.peer.order(&format!("shutdown {}", self.id));
    }

    /// Closes both directions, and keeps the socket.
    pub fn finish(&self) {
        self.peer.order(&format!("shutdown {} both", self.id));
    }

    /// A second descriptor of it.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let id = self.peer.id();
        self.peer.order(&format!("duplicate {} {id}", self.id));
        Conn { peer: self.peer, id, local: self.local }
    }

    /// Closes.
    pub fn close(self) {
        self.peer.order(&format!("close {}", self.id));
    }

    /// Closes with a RST.
    pub fn abort(self) {
        self.peer.order(&format!("abort {}", self.id));
    }

    /// Closes both ends, this one with a RST, which the other has got when this returns.
    pub fn reset(self, other: Conn<'_>) {
        self.abort();
        other.await_info("it was reset", Info::is_closed);
        other.close();
    }
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that hex digits stand for.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let nibble = |c: u8| char::from(c).to_digit(16).expect("a hex digit");
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(nibble(pair[0]) * 16 + nibble(pair[1])).expect("two digits"))
        .collect()
}
