//! The peer's own side: reads orders from stdin, does them, answers on stdout (see `peer.rs`).
//!
//! Orders that take a socket name it by the number that the other side chose. An answer is `ok VALUE` or
//! `err ERROR_NAME`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, MultiHeaders, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr,
    bind, connect, getpeername, getsockname, listen, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto,
    setsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, read, setresgid, setresuid, write};

use crate::library::{self, Library, Name};
use crate::peer::{PEER_ENV, hex, unhex};
use crate::raw;

/// How long a peer waits for anything.
const PATIENCE: Duration = Duration::from_mins(2);

/// The peer's `main`: returns when the other side is gone, or `None` if this process is not a peer.
pub fn main() -> Option<ExitCode> {
    std::env::var_os(PEER_ENV)?;
    let home = File::open("/proc/self/ns/net").expect("/proc is mounted");
    let mut actor = Actor {
        home,
        sockets: HashMap::new(),
        served: HashMap::new(),
        threads: Vec::new(),
        libraries: Vec::new(),
    };
    for order in io::stdin().lock().lines() {
        let Ok(order) = order else { break };
        match actor.obey(&order) {
            Ok(value) => answer(&format!("ok {value}")),
            Err(error) => answer(&format!("err {error}")),
        }
    }
    Some(ExitCode::SUCCESS)
}

fn answer(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the other side listens");
}

/// An error's name, or its text where it has no number.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.replace('\n', " "))
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self(format!("{errno:?}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            None => Self(error.to_string()),
        }
    }
}

type Answer = Result<String, Failure>;

#[expect(clippy::unnecessary_wraps, reason = "it is the answer of orders that have nothing to say")]
fn done() -> Answer {
    Ok(String::new())
}

struct Actor {
    /// The network namespace of the beginning.
    home: File,
    sockets: HashMap<u32, OwnedFd>,
    /// A message for each connection that a serving listener closed.
    served: HashMap<u32, Receiver<()>>,
    /// Threads that move bytes.
    threads: Vec<JoinHandle<io::Result<usize>>>,
    /// What is mapped until the next test.
    libraries: Vec<Library>,
}

impl Actor {
    /// Sends or receives from a thread of this name.
    fn move_as(
        &mut self,
        call: fn(RawFd, &str, usize) -> io::Result<usize>,
        id: u32,
        how: &str,
        bytes: usize,
        name: Vec<u8>,
    ) -> Answer {
        let (socket, how) = (self.socket(id)?.as_raw_fd(), how.to_owned());
        let moved = thread::spawn(move || {
            fs::write("/proc/thread-self/comm", name).expect("a thread may name itself");
            call(socket, &how, bytes)
        });
        Ok(moved.join().map_err(|_| Errno::UnknownErrno)??.to_string())
    }

    #[expect(clippy::too_many_lines, reason = "one arm per order")]
    fn obey(&mut self, order: &str) -> Answer {
        let words: Vec<&str> = order.split_whitespace().collect();
        match words[..] {
            ["become", name, space] => become_somebody(&unhex(name), space),
            ["forget"] => self.forget(),
            ["listen", id, at, ref how @ ..] => self.listen(number(id), address(at), how),
            ["bind", id, kind, ref at @ ..] => self.bind(number(id), kind, at),
            ["bind-with", id, kind, at, ref options @ ..] => self.bind_with(number(id), kind, at, options),
            ["again", id, backlog, ref how @ ..] => self.listen_again(number(id), backlog, how),
            ["listen-fd", fd, backlog] => {
                raw::listen(fd.parse().expect("a number"), backlog.parse().expect("a number"))?;
                done()
            }
            ["accept", from, id, ref how @ ..] => self.accept(number(from), number(id), how),
            ["waiters", id, count] => self.wait_in_accept(number(id), size(count)),
            ["serve", id] => self.serve(number(id)),
            ["served", id, count] => self.served(number(id), size(count)),
            ["connect", id, to, ref how @ ..] => self.connect(number(id), address(to), how),
            ["elsewhere", id, to] => self.connect_elsewhere(number(id), address(to)),
            ["fastopen", id, to, bytes] => self.fast_open(number(id), address(to), size(bytes)),
            ["send", id, bytes] => self.send(number(id), size(bytes)),
            ["sends", id, bytes, times] => {
                for _ in 0..size(times) {
                    self.send(number(id), size(bytes))?;
                }
                done()
            }
            ["descriptor", id] => Ok(self.socket(number(id))?.as_raw_fd().to_string()),
            ["share", id, pid, descriptor] => {
                let socket = raw::descriptor_of(
                    pid.parse().expect("a number"),
                    descriptor.parse().expect("a number"),
                )?;
                self.keep(number(id), socket)
            }
            ["rename", name] => {
                fs::write("/proc/self/comm", unhex(name))?;
                done()
            }
            ["receive", id, bytes] => self.receive(number(id), size(bytes)),
            ["push", id, how, bytes] => {
                Ok(raw::push(self.socket(number(id))?.as_raw_fd(), how, size(bytes))?.to_string())
            }
            ["push", id, how, bytes, name] => {
                self.move_as(raw::push, number(id), how, size(bytes), unhex(name))
            }
            ["pull", id, how, bytes, name] => {
                self.move_as(raw::pull, number(id), how, size(bytes), unhex(name))
            }
            ["pull", id, how, bytes] => {
                Ok(raw::pull(self.socket(number(id))?.as_raw_fd(), how, size(bytes))?.to_string())
            }
            ["threads", "push", how, bytes, ref ids @ ..] => {
                self.in_threads(raw::push, how, size(bytes), ids)
            }
            ["threads", _, how, bytes, ref ids @ ..] => self.in_threads(raw::pull, how, size(bytes), ids),
            ["joined"] => self.join(),
            ["counts", id] => {
                let (acked, received) = raw::tcp_counts(self.socket(number(id))?.as_raw_fd())?;
                Ok(format!("{acked} {received}"))
            }
            ["info", id] => {
                let info = raw::tcp_info(self.socket(number(id))?.as_raw_fd())?;
                Ok(hex(&info))
            }
            ["set", id, level, name, value] => self.set_option(number(id), [level, name, value]),
            ["reject-all", id] => {
                raw::reject_all(self.socket(number(id))?.as_raw_fd())?;
                done()
            }
            ["udp-send", to] => {
                let to = address(to);
                // What a firewall drops on its way out may be an error or not.
                let _sent = udp(to)?.send_to(b"x", to);
                done()
            }
            ["readable", id] => wait_for(self.socket(number(id))?, PollFlags::POLLIN),
            ["writable", id] => wait_for(self.socket(number(id))?, PollFlags::POLLOUT),
            ["eof", id] => self.end_of(number(id)),
            ["shutdown", id] => self.shut_down(number(id), Shutdown::Write),
            ["shutdown", id, "both"] => self.shut_down(number(id), Shutdown::Both),
            ["duplicate", id, new] => {
                let second = self.socket(number(id))?.try_clone()?;
                self.keep(number(new), second)
            }
            ["close", id] => self.take(number(id)).map(drop).and_then(|()| done()),
            ["abort", id] => self.abort(number(id)),
            ["churn", to, times, threads] => churn(address(to), size(times), size(threads), false),
            ["churn", to, times, threads, "reset"] => churn(address(to), size(times), size(threads), true),
            ["time-out", to, count] => time_out(address(to), size(count)),
            ["listens", at, times] => listens(address(at), size(times)),
            ["reads", at, times] => reads(address(at), size(times)),
            ["udp-connect", to] => udp_connect(address(to)),
            ["dns", at, ref message @ ..] => serve_dns(address(at), unhex(&message.concat())),
            ["resolve", server, query, how] => resolve(address(server), &unhex(query), how),
            ["resolve-connect", server, query, how, to] => {
                // The answer comes after this and the connect before the end, whatever the machine does between.
                let start = Instant::now();
                resolve(address(server), &unhex(query), how)?;
                let _refused_is_fine = TcpStream::connect(address(to));
                Ok(start.elapsed().as_micros().to_string())
            }
            ["setuid", uid] => become_user(number(uid)),
            ["own-mounts"] => own_mounts(),
            ["map", library] => {
                self.libraries.push(Library::map(Path::new(OsStr::from_bytes(&unhex(library))))?);
                done()
            }
            ["lookup", library, function, name, ret, ref how @ ..] => {
                lookup(&unhex(library), function, name, ret.parse().expect("a number"), how)
            }
            _ => Err(Failure(format!("no such order: {order}"))),
        }
    }

    /// Sets an option by the numbers of its level, its name and its value.
    fn set_option(&self, id: u32, option: [&str; 3]) -> Answer {
        let [level, name, value] = option.map(|word| word.parse().expect("a number"));
        raw::set_option(self.socket(id)?.as_raw_fd(), level, name, value)?;
        done()
    }

    fn forget(&mut self) -> Answer {
        self.sockets.clear();
        self.libraries.clear();
        setns(&self.home, CloneFlags::CLONE_NEWNET)?;
        fs::write("/proc/self/comm", "idle")?;
        done()
    }

    fn socket(&self, id: u32) -> Result<&OwnedFd, Failure> {
        self.sockets.get(&id).ok_or_else(|| Failure(format!("no socket {id}")))
    }

    fn take(&mut self, id: u32) -> Result<OwnedFd, Failure> {
        self.sockets.remove(&id).ok_or_else(|| Failure(format!("no socket {id}")))
    }

    fn keep(&mut self, id: u32, socket: OwnedFd) -> Answer {
        let local = local(&socket)?;
        self.sockets.insert(id, socket);
        Ok(local)
    }

    fn listen(&mut self, id: u32, at: SocketAddr, how: &[&str]) -> Answer {
        let socket = stream(at, how.contains(&"mptcp"))?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
        listen(&socket, Backlog::new(4096)?)?;
        self.keep(id, socket)
    }

    /// A socket that may listen later: `tcp4`, `tcp6`, `mptcp4`, `udp4` or `unix`; bound, if there is an address.
    fn bind(&mut self, id: u32, kind: &str, at: &[&str]) -> Answer {
        let (family, ty) = match kind {
            "udp4" => (AddressFamily::Inet, SockType::Datagram),
            "unix" => (AddressFamily::Unix, SockType::Stream),
            "tcp6" => (AddressFamily::Inet6, SockType::Stream),
            _ => (AddressFamily::Inet, SockType::Stream),
        };
        let socket = match kind {
            "mptcp4" => raw::mptcp_socket(false)?,
            _ => socket(family, ty, SockFlag::SOCK_CLOEXEC, None)?,
        };
        if family == AddressFamily::Unix {
            // An address of the kernel's choice.
            bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        }
        for at in at {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(address(at)))?;
        }
        self.keep(id, socket)
    }

    /// A socket that [`raw::any_socket`] knows, bound to this address, with these options before: numbers of level, option and
    /// value, with a colon between two.
    fn bind_with(&mut self, id: u32, kind: &str, at: &str, options: &[&str]) -> Answer {
        let socket = raw::any_socket(kind)?;
        for option in options {
            let mut numbers = option.split(':').map(|number| number.parse().expect("a number"));
            let mut next = || numbers.next().expect("three numbers");
            raw::set_option(socket.as_raw_fd(), next(), next(), next())?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address(at)))?;
        self.keep(id, socket)
    }

    /// Listens with any backlog on a socket in any state, from a thread of this name if there is one.
    fn listen_again(&mut self, id: u32, backlog: &str, how: &[&str]) -> Answer {
        let socket = self.socket(id)?;
        let backlog = backlog.parse().expect("a number");
        match how {
            [] => raw::listen(socket.as_raw_fd(), backlog)?,
            [name] => thread::scope(|scope| {
                let second = scope.spawn(|| {
                    fs::write("/proc/thread-self/comm", unhex(name)).expect("a thread may name itself");
                    raw::listen(socket.as_raw_fd(), backlog)
                });
                second.join().map_err(|_| Errno::UnknownErrno)
            })??,
            _ => return Err(Failure("listen how?".into())),
        }
        self.socket(id).and_then(local)
    }

    /// Accepts one connection when there is one; or as `how` says:
    ///
    /// | how | |
    /// | --- | --- |
    /// | `blocked` | waits in accept() itself |
    /// | `now` | without waiting |
    /// | `thread NAME` | in a second thread with this name |
    /// | `uring` | by `IORING_OP_ACCEPT` |
    fn accept(&mut self, from: u32, id: u32, how: &[&str]) -> Answer {
        let listener = self.socket(from)?;
        if !matches!(how, ["blocked" | "now"]) {
            wait_for(listener, PollFlags::POLLIN)?;
        }
        let listener = TcpListener::from(listener.try_clone()?);
        let accept = || listener.accept().map(|(stream, _from)| OwnedFd::from(stream));
        let stream = match how {
            [] | ["blocked"] => accept()?,
            ["now"] => {
                listener.set_nonblocking(true)?;
                let outcome = accept();
                listener.set_nonblocking(false)?;
                outcome?
            }
            ["thread", name] => {
                let name = unhex(name);
                let second = || {
                    fs::write("/proc/thread-self/comm", name).expect("a thread may name itself");
                    accept()
                };
                thread::scope(|scope| scope.spawn(second).join().map_err(|_| Errno::UnknownErrno))??
            }
            ["uring"] => raw::uring_accept(listener.as_raw_fd())?,
            _ => return Err(Failure("accept how?".into())),
        };
        self.keep(id, stream)
    }

    /// A thread per socket that moves so many bytes. What is sent has little room, so it waits for a reader.
    fn in_threads(
        &mut self,
        call: fn(RawFd, &str, usize) -> io::Result<usize>,
        how: &str,
        bytes: usize,
        ids: &[&str],
    ) -> Answer {
        for id in ids {
            let (socket, how) = (self.socket(number(id))?, how.to_owned());
            setsockopt(socket, sockopt::SndBuf, &4096)?;
            let socket = socket.as_raw_fd();
            self.threads.push(thread::spawn(move || call(socket, &how, bytes)));
        }
        done()
    }

    /// Waits for these threads; says how many bytes all of them moved.
    fn join(&mut self) -> Answer {
        let mut moved = 0;
        for thread in self.threads.drain(..) {
            moved += thread.join().map_err(|_| Errno::UnknownErrno)??;
        }
        Ok(moved.to_string())
    }

    /// Threads that wait in accept(), and close what they get.
    fn wait_in_accept(&mut self, id: u32, count: usize) -> Answer {
        for _ in 0..count {
            let listener = TcpListener::from(self.socket(id)?.try_clone()?);
            thread::spawn(move || listener.accept().map(drop));
        }
        done()
    }

    fn serve(&mut self, id: u32) -> Answer {
        let listener = TcpListener::from(self.take(id)?);
        let (closed, served) = channel();
        self.served.insert(id, served);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = read(&stream, &mut buffer) {
                    if buffer[..n] == *PING {
                        let _gone = (&stream).write_all(PING);
                    }
                }
                drop(stream);
                if closed.send(()).is_err() {
                    return;
                }
            }
        });
        done()
    }

    fn served(&mut self, id: u32, count: usize) -> Answer {
        let served = self.served.get(&id).ok_or_else(|| Failure(format!("{id} does not serve")))?;
        for nth in 0..count {
            served.recv_timeout(PATIENCE).map_err(|_| Failure(format!("only {nth} were served")))?;
        }
        // close() returns before the other end has answered.
        let deadline = Instant::now() + PATIENCE;
        while closing()? {
            if Instant::now() > deadline {
                return Err(Failure("a connection is never closed".to_owned()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        done()
    }

    fn connect(&mut self, id: u32, to: SocketAddr, how: &[&str]) -> Answer {
        let (mut waits, mut by_worker) = (true, false);
        let mut thread_name = None;
        let socket = stream(to, how.contains(&"mptcp"))?;
        for word in how {
            match word.split_once('=').unwrap_or((word, "")) {
                ("bind", from) => {
                    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                    bind(socket.as_raw_fd(), &SockaddrStorage::from(address(from)))?;
                }
                ("nonblock", _) => {
                    TcpStream::from(socket.try_clone()?).set_nonblocking(true)?;
                    waits = false;
                }
                ("tfo-connect", _) => setsockopt(&socket, sockopt::TcpFastOpenConnect, &true)?,
                ("thread", name) => thread_name = Some(unhex(name)),
                ("repair", _) => raw::repair(socket.as_raw_fd())?,
                ("mptcp", _) => {}
                ("uring", _) => by_worker = true,
                _ => return Err(Failure(format!("connect how? {word}"))),
            }
        }
        if by_worker && let SocketAddr::V4(to) = to {
            raw::uring_connect(socket.as_raw_fd(), to)?;
            return self.keep(id, socket);
        }
        let open = || match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EINPROGRESS) if !waits => Ok(()),
            outcome => outcome,
        };
        match thread_name {
            None => open()?,
            Some(name) => thread::scope(|scope| {
                let second = scope.spawn(|| {
                    fs::write("/proc/thread-self/comm", name).expect("a thread may name itself");
                    open()
                });
                second.join().map_err(|_| Errno::UnknownErrno)?
            })?,
        }
        self.keep(id, socket)
    }

    fn connect_elsewhere(&mut self, id: u32, to: SocketAddr) -> Answer {
        let socket = self.socket(id)?.as_raw_fd();
        raw::disconnect(socket)?;
        connect(socket, &SockaddrStorage::from(to))?;
        done()
    }

    fn fast_open(&mut self, id: u32, to: SocketAddr, bytes: usize) -> Answer {
        let socket = stream(to, false)?;
        let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
        sendto(socket.as_raw_fd(), &vec![b'x'; bytes], &SockaddrStorage::from(to), flags)?;
        self.keep(id, socket)
    }

    fn send(&mut self, id: u32, bytes: usize) -> Answer {
        let mut stream = TcpStream::from(self.socket(id)?.try_clone()?);
        stream.write_all(&vec![b'x'; bytes])?;
        done()
    }

    fn receive(&mut self, id: u32, bytes: usize) -> Answer {
        let socket = self.socket(id)?;
        let mut buffer = vec![0; bytes];
        let mut have = 0;
        while have < bytes {
            wait_for(socket, PollFlags::POLLIN)?;
            match read(socket, &mut buffer[have..])? {
                0 => return Err(Failure(format!("the end after {have} bytes"))),
                n => have += n,
            }
        }
        done()
    }

    fn end_of(&mut self, id: u32) -> Answer {
        let socket = self.socket(id)?;
        loop {
            wait_for(socket, PollFlags::POLLIN)?;
            match read(socket, &mut [0; 4096]) {
                Ok(0) | Err(Errno::ECONNRESET) => return done(),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn shut_down(&mut self, id: u32, how: Shutdown) -> Answer {
        nix::sys::socket::shutdown(self.socket(id)?.as_raw_fd(), how)?;
        done()
    }

    fn abort(&mut self, id: u32) -> Answer {
        let socket = self.take(id)?;
        setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        drop(socket);
        done()
    }
}

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

fn size(word: &str) -> usize {
    word.parse().expect("a number")
}

fn address(word: &str) -> SocketAddr {
    word.parse().expect("an address")
}

fn local(socket: &OwnedFd) -> Answer {
    Ok(text(&getsockname::<SockaddrStorage>(socket.as_raw_fd())?))
}

fn text(address: &SockaddrStorage) -> String {
    address
        .as_sockaddr_in()
        .map(ToString::to_string)
        .or_else(|| address.as_sockaddr_in6().map(ToString::to_string))
        .unwrap_or_default()
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn stream(address: SocketAddr, mptcp: bool) -> Result<OwnedFd, Failure> {
    if mptcp {
        return Ok(raw::mptcp_socket(address.is_ipv6())?);
    }
    Ok(socket(family(address), SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

fn wait_for(socket: &OwnedFd, what: PollFlags) -> Answer {
    let patience = PollTimeout::try_from(PATIENCE).expect("fits");
    match poll(&mut [PollFd::new(socket.as_fd(), what)], patience)? {
        0 => Err(Failure("timeout".into())),
        _ => done(),
    }
}

/// What a server that reads to the end sends back.
const PING: &[u8] = b"?";

/// Connects and closes, by a RST if `reset`.
/// Whether a socket of this network namespace waits for the answer to its FIN: `FIN_WAIT1`, `LAST_ACK` or `CLOSING`.
fn closing() -> io::Result<bool> {
    let closing = |table: &str| {
        // The state is the fourth column, in hexadecimal (include/net/tcp_states.h).
        let state = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        table.lines().filter_map(state).any(|state| matches!(state.as_str(), "04" | "09" | "0B"))
    };
    let v6 = match fs::read_to_string("/proc/thread-self/net/tcp6") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        table => table?,
    };
    Ok(closing(&fs::read_to_string("/proc/thread-self/net/tcp")?) || closing(&v6))
}

fn churn(to: SocketAddr, times: usize, threads: usize, reset: bool) -> Answer {
    let worker = |times: usize| {
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..times {
            match TcpStream::connect(to) {
                Ok(closed_at_once) => {
                    if reset {
                        // A RST may overtake the handshake's last ACK on another CPU: then there is nothing to accept.
                        (&closed_at_once).write_all(PING)?;
                        (&closed_at_once).read_exact(&mut [0; PING.len()])?;
                        setsockopt(
                            &closed_at_once,
                            sockopt::Linger,
                            &libc::linger { l_onoff: 1, l_linger: 0 },
                        )?;
                    }
                    accepted += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((accepted, refused))
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let share = |nth| times / threads + usize::from(nth < times % threads);
        let workers: Vec<_> = (0..threads).map(|nth| scope.spawn(move || worker(share(nth)))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic in there")).collect()
    });
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for outcome in outcomes {
        let (a, r) = outcome?;
        accepted += a;
        refused += r;
    }
    Ok(format!("{accepted} {refused}"))
}

/// Opens so many connections at once to where nobody answers, and waits until all have given up.
fn time_out(to: SocketAddr, count: usize) -> Answer {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = stream(to, false)?;
        TcpStream::from(socket.try_clone()?).set_nonblocking(true)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EINPROGRESS) => sockets.push(socket),
            outcome => return Err(Failure(format!("{outcome:?}"))),
        }
    }
    for socket in &sockets {
        wait_for(socket, PollFlags::POLLOUT)?;
    }
    done()
}

/// Binds, listens and closes so many times.
fn listens(at: SocketAddr, times: usize) -> Answer {
    for _ in 0..times {
        let socket = stream(at, false)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
        listen(&socket, Backlog::new(1)?)?;
    }
    done()
}

/// Sends a byte on a connection of its own and reads it, so many times.
fn reads(at: SocketAddr, times: usize) -> Answer {
    /// Tools of times tell whole microseconds.
    const A_LITTLE: Duration = Duration::from_micros(5);
    let listener = stream(at, false)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen(&listener, Backlog::new(1)?)?;
    let mut near = TcpStream::connect(at)?;
    let mut far = TcpListener::from(listener).accept()?.0;
    for _ in 0..times {
        far.write_all(PING)?;
        wait_for(&near.as_fd().try_clone_to_owned()?, PollFlags::POLLIN)?;
        let came = Instant::now();
        while came.elapsed() < A_LITTLE {}
        near.read_exact(&mut [0; PING.len()])?;
    }
    // Nothing stays that would keep the port for itself.
    setsockopt(&far, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    done()
}

fn udp_connect(to: SocketAddr) -> Answer {
    let socket = udp(to)?;
    socket.connect(to)?;
    done()
}

/// A UDP socket that can send to this address.
fn udp(to: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn serve_dns(at: SocketAddr, message: Vec<u8>) -> Answer {
    let socket = UdpSocket::bind(at)?;
    thread::spawn(move || {
        let mut message = message;
        let mut query = [0; 1024];
        while let Ok((_, from)) = socket.recv_from(&mut query) {
            if let Some(id) = message.get_mut(..2) {
                id.copy_from_slice(&query[..2]);
            }
            if socket.send_to(&message, from).is_err() {
                return;
            }
        }
    });
    done()
}

/// Sends the query and reads the answer:
///
/// | how | calls |
/// | --- | --- |
/// | `recv` | connected; `send`, `recv` |
/// | `read` | connected; `write`, `read` |
/// | `recvfrom` | not connected; `sendto`, `recvfrom` |
/// | `recvmsg` | not connected; `sendmsg`, `recvmsg` with one part |
/// | `connected-recvmsg` | connected; `sendmsg`, `recvmsg` with one part |
/// | `recvmsg-in-parts` | not connected; `recvmsg` with three parts, the first of 7 bytes |
/// | `mmsg` | not connected; one `sendmmsg` with another question in front, one `recvmmsg` for both answers |
fn resolve(server: SocketAddr, query: &[u8], how: &str) -> Answer {
    let socket = udp(server)?;
    let mut answer = vec![0; 8192];
    let connected = matches!(how, "recv" | "read" | "connected-recvmsg");
    if connected {
        socket.connect(server)?;
        assert!(getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok());
    }
    let got = match how {
        "recv" => {
            socket.send(query)?;
            socket.recv(&mut answer)?
        }
        "read" => {
            write(&socket, query)?;
            read(&socket, &mut answer)?
        }
        "recvfrom" => {
            socket.send_to(query, server)?;
            socket.recv_from(&mut answer)?.0
        }
        "recvmsg" | "connected-recvmsg" | "recvmsg-in-parts" => {
            let to = SockaddrStorage::from(server);
            let parts = [IoSlice::new(query)];
            sendmsg(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), (!connected).then_some(&to))?;
            let (first, rest) = answer.split_at_mut(7);
            let (second, third) = rest.split_at_mut(200);
            let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second), IoSliceMut::new(third)];
            let mut whole = vec![0; 8192];
            let mut one = [IoSliceMut::new(&mut whole)];
            let parts = if how == "recvmsg-in-parts" { &mut parts[..] } else { &mut one[..] };
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), parts, None, MsgFlags::empty())?.bytes
        }
        "mmsg" => {
            let mut other = query.to_vec();
            // Another id, and another letter of the name.
            other[1] ^= 1;
            other[13] ^= 2;
            let parts = [[IoSlice::new(&other)], [IoSlice::new(query)]];
            let to = [Some(SockaddrStorage::from(server)); 2];
            let mut headers = MultiHeaders::preallocate(2, None);
            let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &parts, to, [], MsgFlags::empty())?.count();
            assert_eq!(sent, 2);
            let (first, second) = answer.split_at_mut(4096);
            let mut parts = [[IoSliceMut::new(first)], [IoSliceMut::new(second)]];
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(2, None);
            let got =
                recvmmsg(socket.as_raw_fd(), &mut headers, &mut parts, MsgFlags::empty(), None)?.count();
            assert_eq!(got, 2);
            got
        }
        _ => return Err(Failure(format!("resolve how? {how}"))),
    };
    Ok(got.to_string())
}

fn become_somebody(name: &[u8], space: &str) -> Answer {
    setns(File::open(space)?, CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/comm", name)?;
    done()
}

fn become_user(uid: u32) -> Answer {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    done()
}

/// Looks up a name: `=` and its bytes, `null` or `nowhere`. The function answers `ret`; before, it does what `how` says:
///
/// | how | |
/// | --- | --- |
/// | `inside FUNCTION NAME RET` | calls another one |
/// | `beside FUNCTION NAME RET` | waits for a thread that calls another one |
/// | `late` | reads the name, which is the path of a file that begins with it and was not read in |
/// | `takes MS` | sleeps |
/// | `thread NAME` | all in a thread of this name |
/// | `ends` | all in a thread that ends there |
/// | `times COUNT` | so many times, one after the other |
fn lookup(library: &[u8], function: &str, name: &str, ret: isize, how: &[&str]) -> Answer {
    let library = Library::map(Path::new(OsStr::from_bytes(library)))?;
    let named = |name: &str| match name {
        "null" => Name::null(),
        "nowhere" => Name::nowhere(),
        _ => Name::new(&unhex(name.trim_start_matches('='))),
    };
    let other = |words: &[&str]| {
        let (name, ret) = (named(words[1]), words[2].parse().expect("a number"));
        library.call(words[0], &name, &mut || ret);
    };
    match how {
        ["late"] => {
            let file = unhex(name.trim_start_matches('='));
            let name = Name::in_file(Path::new(OsStr::from_bytes(&file)))?;
            library.call(function, &name, &mut || {
                name.touch();
                ret
            });
        }
        ["inside", words @ ..] => {
            library.call(function, &named(name), &mut || {
                other(words);
                ret
            });
        }
        ["beside", words @ ..] => {
            library.call(function, &named(name), &mut || {
                thread::scope(|scope| scope.spawn(|| other(words)).join().expect("no panic in there"));
                ret
            });
        }
        ["takes", ms] => {
            let time = Duration::from_millis(u64::from(number(ms)));
            library.call(function, &named(name), &mut || {
                thread::sleep(time);
                ret
            });
        }
        ["thread", comm] => thread::scope(|scope| {
            let call = || {
                fs::write("/proc/thread-self/comm", unhex(comm)).expect("a thread may name itself");
                library.call(function, &named(name), &mut || ret)
            };
            scope.spawn(call).join().map(drop).map_err(|_| Errno::UnknownErrno)
        })?,
        ["ends"] => {
            let (name, function) = (named(name), function.to_owned());
            let (tell, told) = channel();
            let _never_joined = thread::spawn(move || {
                library.call(&function, &name, &mut || {
                    tell.send(nix::unistd::gettid()).expect("somebody listens");
                    library::end_thread()
                })
            });
            let folder = format!("/proc/self/task/{}", told.recv().map_err(|_| Errno::UnknownErrno)?);
            let deadline = Instant::now() + PATIENCE;
            while Path::new(&folder).exists() {
                if Instant::now() > deadline {
                    return Err(Errno::ETIMEDOUT.into());
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        ["times", count] => {
            for nth in 0..size(count) {
                let name = Name::new(format!("name-{nth}").as_bytes());
                library.call(function, &name, &mut || ret);
            }
        }
        [] => drop(library.call(function, &named(name), &mut || ret)),
        _ => return Err(Failure("look up how?".into())),
    }
    done()
}

fn own_mounts() -> Answer {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(fs::metadata("/proc/thread-self/ns/mnt")?.ino().to_string())
}
