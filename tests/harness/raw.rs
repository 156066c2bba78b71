//! The few system calls that no safe wrapper offers: `bpf(2)`, `perf_event_open(2)`, an MPTCP socket, `listen(2)` with any
//! backlog, and the many ways to send and receive. The other `unsafe` of the tests is in `library.rs`.
#![expect(unsafe_code, reason = "bpf(2) and socket(2) with IPPROTO_MPTCP have no safe wrapper in nix")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_ptr_alignment,
    reason = "sizes and descriptors of C are small, and the kernel's rings are aligned"
)]

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf, write};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const OBJ_PIN: libc::c_long = 6;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const ENABLE_STATS: libc::c_long = 32;

/// `union bpf_attr`, as words; the kernel wants the tail that a command does not use to be zero.
type Attr = [u64; 16];

fn bpf(command: libc::c_long, attr: &Attr) -> io::Result<i32> {
    // SAFETY: `attr` is readable for the size that is passed; the pointers that callers put into it point to
    // values that they hold across this call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

fn bpf_fd(command: libc::c_long, attr: &Attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two 32-bit fields of `union bpf_attr` that share a word.
fn pair(first: u32, second: u32) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A BPF map of our own, to be pinned where the tool's `--cgroupmap` and `--mntnsmap` look.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// A hash map (`BPF_MAP_TYPE_HASH`) with keys of 8 bytes.
    pub fn hash(value_size: u32) -> io::Result<Self> {
        Self::create(1, 8, value_size, 16)
    }

    /// Any map.
    pub fn create(map_type: u32, key_size: u32, value_size: u32, max_entries: u32) -> io::Result<Self> {
        let mut attr = Attr::default();
        attr[0] = pair(map_type, key_size);
        attr[1] = pair(value_size, max_entries);
        bpf_fd(MAP_CREATE, &attr).map(Self)
    }

    /// Sets the value of `key` to zeros: what counts for the filters is that the key is there.
    pub fn insert(&self, key: u64) -> io::Result<()> {
        let value = [0_u8; 64];
        let mut attr = Attr::default();
        attr[0] = u64::from(number(&self.0));
        attr[1] = std::ptr::from_ref(&key).expose_provenance() as u64;
        attr[2] = value.as_ptr().expose_provenance() as u64;
        bpf(MAP_UPDATE_ELEM, &attr).map(drop)
    }

    /// Pins the map at `path`, which must be on a bpf file system.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = Attr::default();
        attr[0] = path.as_ptr().expose_provenance() as u64;
        attr[1] = u64::from(number(&self.0));
        bpf(OBJ_PIN, &attr).map(drop)
    }
}

/// Has an XDP program drop all that an interface of our namespace receives, for as long as the answer is held. It is the
/// kernel that runs it, not the driver (`XDP_FLAGS_SKB_MODE`).
pub fn drop_received(interface: u32) -> io::Result<OwnedFd> {
    const XDP: u32 = 6;
    const AT_XDP: u32 = 37;
    const SKB_MODE: u32 = 1 << 1;
    // r0 = XDP_DROP; exit
    let instructions = [0x1_0000_00b7_u64, 0x95];
    let licence = c"MIT";
    let mut attr = Attr::default();
    attr[0] = pair(XDP, u32::try_from(instructions.len()).map_err(io::Error::other)?);
    attr[1] = instructions.as_ptr().expose_provenance() as u64;
    attr[2] = licence.as_ptr().expose_provenance() as u64;
    let program = bpf_fd(PROG_LOAD, &attr)?;
    let mut attr = Attr::default();
    attr[0] = pair(number(&program), interface);
    attr[1] = pair(AT_XDP, SKB_MODE);
    bpf_fd(LINK_CREATE, &attr)
}

/// Whether the kernel still holds the program with this id.
pub fn program_exists(id: u32) -> io::Result<bool> {
    exists(PROG_GET_FD_BY_ID, id)
}

/// The first instructions of a program, as the kernel made them.
pub fn program_begins(id: u32) -> io::Result<[u64; 2]> {
    let mut attr = Attr::default();
    attr[0] = u64::from(id);
    let program = bpf_fd(PROG_GET_FD_BY_ID, &attr)?;
    // The kernel says how many there are, then writes as many as there is room for.
    let mut instructions = vec![0_u64; 1 << 14];
    // `struct bpf_prog_info`: type, id, tag, lengths of machine code and of instructions, and where they go.
    let mut info = [0_u64; 16];
    info[2] = pair(0, u32::try_from(size_of_val(&instructions[..])).map_err(io::Error::other)?);
    info[4] = instructions.as_mut_ptr().expose_provenance() as u64;
    let mut attr = Attr::default();
    attr[0] = pair(number(&program), u32::try_from(size_of_val(&info)).map_err(io::Error::other)?);
    attr[1] = info.as_mut_ptr().expose_provenance() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok([instructions[0], instructions[1]])
}

/// Whether the kernel still holds the map with this id.
pub fn map_exists(id: u32) -> io::Result<bool> {
    exists(MAP_GET_FD_BY_ID, id)
}

/// Whether the kernel still holds the link with this id.
pub fn link_exists(id: u32) -> io::Result<bool> {
    exists(LINK_GET_FD_BY_ID, id)
}

/// Name of a map, and how many entries it has; none if it is not of the hash kind, whose entries come and go.
pub fn map_entries(id: u32) -> io::Result<Option<(String, usize)>> {
    /// `BPF_MAP_TYPE_HASH`, `PERCPU_HASH`, `LRU_HASH`, `LRU_PERCPU_HASH`.
    const HASHES: [u32; 4] = [1, 5, 9, 10];
    let (map, info) = map_info(id)?;
    let (kind, key_bytes) = (info[0] as u32, info[1] as u32 as usize);
    if !HASHES.contains(&kind) {
        return Ok(None);
    }
    let count = keys(&map, key_bytes)?.len();
    Ok(Some((map_name(&info), count)))
}

/// A map, and `struct bpf_map_info`: type, id, sizes of key and value, entries at most, flags, name.
fn map_info(id: u32) -> io::Result<(OwnedFd, [u64; 11])> {
    let mut attr = Attr::default();
    attr[0] = u64::from(id);
    let map = bpf_fd(MAP_GET_FD_BY_ID, &attr)?;
    let mut info = [0_u64; 11];
    let mut attr = Attr::default();
    attr[0] = pair(number(&map), u32::try_from(size_of_val(&info)).map_err(io::Error::other)?);
    attr[1] = info.as_mut_ptr().expose_provenance() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok((map, info))
}

fn map_name(info: &[u64; 11]) -> String {
    let name: Vec<u8> =
        info[3..5].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// The keys of a hash map.
fn keys(map: &OwnedFd, key_bytes: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut key = vec![0_u8; key_bytes];
        let mut attr = Attr::default();
        attr[0] = u64::from(number(map));
        attr[1] = keys.last().map_or(0, |last| last.as_ptr().expose_provenance() as u64);
        attr[2] = key.as_mut_ptr().expose_provenance() as u64;
        match bpf(MAP_GET_NEXT_KEY, &attr) {
            Ok(_) => keys.push(key),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// A tool's hash map, by which a test sees and changes what the tool remembers.
#[derive(Debug)]
pub struct Memory(OwnedFd);

impl Memory {
    /// The map with this id, if that is its name.
    pub fn named(id: u32, name: &str) -> io::Result<Option<Self>> {
        let (map, info) = map_info(id)?;
        Ok((map_name(&info) == name).then_some(Self(map)))
    }

    /// Its entries; keys have 8 bytes.
    pub fn entries<V: FromZeros + IntoBytes + FromBytes>(&self) -> io::Result<Vec<(u64, V)>> {
        let mut entries = Vec::new();
        for key in keys(&self.0, size_of::<u64>())? {
            let mut value = V::new_zeroed();
            let attr = self.element(key.as_ptr(), value.as_mut_bytes().as_mut_ptr());
            match bpf(MAP_LOOKUP_ELEM, &attr) {
                Ok(_) => entries.push((u64::read_from_bytes(&key).expect("8 bytes"), value)),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// The sum of a counter over all processors, in an array per processor.
    pub fn sum(&self, key: u32) -> io::Result<u64> {
        // As many as a kernel can have.
        let mut counts = vec![0_u64; 8192];
        let attr = self.element(key.as_bytes().as_ptr(), counts.as_mut_bytes().as_mut_ptr());
        bpf(MAP_LOOKUP_ELEM, &attr)?;
        Ok(counts.iter().sum())
    }

    /// Sets an entry.
    pub fn set<V: IntoBytes + Immutable>(&self, key: u64, value: &V) -> io::Result<()> {
        let attr = self.element(key.as_bytes().as_ptr(), value.as_bytes().as_ptr());
        bpf(MAP_UPDATE_ELEM, &attr).map(drop)
    }

    fn element(&self, key: *const u8, value: *const u8) -> Attr {
        let mut attr = Attr::default();
        attr[0] = u64::from(number(&self.0));
        attr[1] = key.expose_provenance() as u64;
        attr[2] = value.expose_provenance() as u64;
        attr
    }
}

fn exists(get: libc::c_long, id: u32) -> io::Result<bool> {
    let mut attr = Attr::default();
    attr[0] = u64::from(id);
    match bpf_fd(get, &attr) {
        Ok(_held) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the kernel tells of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object, of which the kernel keeps 15 characters.
    pub name: String,
    /// How many instructions the verifier processed (since 5.16, else 0).
    pub verified: u32,
    /// How often it was skipped because it was running already (since 5.12, else 0).
    pub skipped: u64,
}

/// The program with this id.
pub fn program(id: u32) -> io::Result<Program> {
    let mut attr = Attr::default();
    attr[0] = u64::from(id);
    let program = bpf_fd(PROG_GET_FD_BY_ID, &attr)?;
    // `struct bpf_prog_info`: the name is its word 8, of two; `recursion_misses` word 26, `verified_insns` the lower half of
    // word 27.
    let mut info = [0_u64; 29];
    let mut attr = Attr::default();
    attr[0] = pair(number(&program), u32::try_from(size_of_val(&info)).map_err(io::Error::other)?);
    attr[1] = info.as_mut_ptr().expose_provenance() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    let name: Vec<u8> =
        info[8..10].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&b| b != 0).collect();
    let [a, b, c, d, ..] = info[27].to_ne_bytes();
    let (name, verified) = (String::from_utf8_lossy(&name).into_owned(), u32::from_ne_bytes([a, b, c, d]));
    Ok(Program { name, verified, skipped: info[26] })
}

/// Has the kernel count the runs of programs for as long as the descriptor is held (since 5.8).
pub(crate) fn keep_statistics() -> io::Result<OwnedFd> {
    // `BPF_STATS_RUN_TIME` is 0.
    bpf_fd(ENABLE_STATS, &Attr::default())
}

/// How often a tracepoint is passed on one processor, in whatever task (`perf_event_open(2)`).
#[derive(Debug)]
pub(crate) struct Counter(OwnedFd);

impl Counter {
    /// One for each processor; they count from now on.
    pub(crate) fn of_tracepoint(event: u64) -> io::Result<Vec<Self>> {
        let processors = sysconf(SysconfVar::_NPROCESSORS_CONF)?.unwrap_or(1) as libc::c_int;
        let counters = (0..processors).map(|processor| Self::on(event, processor));
        // A processor that is off passes nothing.
        let is_off = |error: &io::Error| error.raw_os_error() == Some(libc::ENODEV);
        counters.filter(|counter| !counter.as_ref().is_err_and(is_off)).collect()
    }

    fn on(event: u64, processor: libc::c_int) -> io::Result<Self> {
        const PERF_TYPE_TRACEPOINT: u32 = 2;
        const EVERY_TASK: libc::pid_t = -1;
        const NO_GROUP: RawFd = -1;
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
        // `struct perf_event_attr`: type and size share the first word, the second says which event.
        let mut attr = [0_u64; 14];
        attr[0] = pair(PERF_TYPE_TRACEPOINT, size_of_val(&attr) as u32);
        attr[1] = event;
        // SAFETY: `attr` is readable for the size that it names.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attr.as_ptr(),
                EVERY_TASK,
                processor,
                NO_GROUP,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// How often until now.
    pub(crate) fn read(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        nix::unistd::read(&self.0, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

/// Has the process that this starts killed when the calling thread ends, however it ends (`PR_SET_PDEATHSIG`).
pub(crate) fn end_with_this_thread(command: &mut Command) {
    // SAFETY: what runs between fork and exec is one system call, which touches no memory.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// Limits the process that this starts (`setrlimit(2)`).
pub(crate) fn limit(command: &mut Command, resource: Resource, most: u64) {
    // SAFETY: what runs between fork and exec is one system call, which touches no memory but its own stack.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, most, most)?)) };
}

/// Has the process that this starts ignore these signals from the beginning, as `nohup` does, and no others that end or stop
/// a process: whoever runs the tests may ignore some, as a script does for what it starts in the background.
pub(crate) fn ignore_only(command: &mut Command, ignored: Vec<Signal>) {
    let action = move || {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP] {
            let how = if ignored.contains(&signal) { SigHandler::SigIgn } else { SigHandler::SigDfl };
            // SAFETY: no handler is installed.
            unsafe { nix::sys::signal::signal(signal, how) }?;
        }
        Ok(())
    };
    // SAFETY: what runs between fork and exec are system calls, and reads of a list that was made before.
    unsafe { command.pre_exec(action) };
}

/// Has the process that this starts lead a session whose terminal is its standard input.
pub(crate) fn own_terminal(command: &mut Command) {
    let action = || {
        nix::unistd::setsid()?;
        Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
    };
    // SAFETY: what runs between fork and exec are system calls that allocate nothing.
    unsafe { command.pre_exec(action) };
}

/// Has the process that this starts in a time namespace of its own, whose monotonic clock is so many seconds ahead
/// (before 6.3: only its children).
pub(crate) fn clock_ahead(command: &mut Command, seconds: i64) {
    let line = format!("monotonic {seconds} 0");
    in_own_space(command, libc::CLONE_NEWTIME, c"/proc/self/timens_offsets", line);
}

/// Has the process that this starts in a user namespace of its own, as its root.
pub(crate) fn root_of_its_own(command: &mut Command) {
    in_own_space(command, libc::CLONE_NEWUSER, c"/proc/self/uid_map", "0 0 1".to_owned());
}

/// Has the process that this starts in a namespace of its own, of which a file tells this.
fn in_own_space(command: &mut Command, kind: libc::c_int, file: &'static CStr, line: String) {
    let action = move || {
        // SAFETY: a system call without pointers.
        if unsafe { libc::unshare(kind) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let file = open(file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        write(&file, line.as_bytes())?;
        Ok(())
    };
    // SAFETY: what runs between fork and exec are system calls that allocate nothing.
    unsafe { command.pre_exec(action) };
}

/// A stream socket that speaks MPTCP; an error where the kernel has none.
pub fn mptcp_socket(ipv6: bool) -> io::Result<OwnedFd> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket of a kind: the first letters of its protocol, then `4` or `6`.
pub fn any_socket(kind: &str) -> io::Result<OwnedFd> {
    let family = if kind.ends_with('6') { libc::AF_INET6 } else { libc::AF_INET };
    let (ty, protocol) = match kind.trim_end_matches(['4', '6']) {
        "udp" => (libc::SOCK_DGRAM, 0),
        "udplite" => (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        "icmp" => (libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "mptcp" => (libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        _ => (libc::SOCK_STREAM, 0),
    };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, ty | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a TCP socket under repair (`TCP_REPAIR`), for which nix has no option.
pub fn repair(socket: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the value is an int of this size, and lives over the call.
    let done =
        unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, (&raw const on).cast(), len) };
    answer(done as isize).map(drop)
}

/// A descriptor of another process (`pidfd_getfd(2)`, since 5.6): both then have the same file.
pub fn descriptor_of(pid: libc::pid_t, descriptor: RawFd) -> io::Result<OwnedFd> {
    let owned = |fd: libc::c_long| {
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    };
    // SAFETY: a system call without pointers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

/// Sends a descriptor by a Unix socket (`SCM_RIGHTS`). Once the sender has closed it, no process has the file open until somebody
/// receives it.
pub fn send_descriptor(by: &impl AsRawFd, what: &impl AsRawFd) -> io::Result<()> {
    let rights = [what.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(by.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None)?;
    Ok(())
}

/// Receives a descriptor that was sent so.
pub fn receive_descriptor(by: &impl AsRawFd) -> io::Result<OwnedFd> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!(RawFd));
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let got = recvmsg::<()>(by.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let rights = got.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = rights.ok_or_else(|| io::Error::other("it had no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `listen(2)` with any backlog: nix refuses what the kernel clamps.
pub fn listen(socket: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::listen(socket, backlog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a filter to a socket that lets nothing in.
pub fn reject_all(socket: RawFd) -> io::Result<()> {
    // BPF_RET with 0 bytes to keep.
    let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `program`, and the one instruction that it points to.
    let result = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), size)
    };
    answer(result as isize).map(drop)
}

/// What a call answered: a number, or an error.
fn answer(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Closes a descriptor that a system call made.
fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    answer(fd as isize)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Both ends of a pipe.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe()?)
}

/// Sends `bytes` bytes and says how many the kernel took:
///
/// | how | calls |
/// | --- | --- |
/// | `send`, `sendmsg`, `writev`, `sendmmsg` | one call; the last three with two parts |
/// | `sendfile`, `splice` | from a file, or a pipe |
/// | `zerocopy` | `send` with `MSG_ZEROCOPY` |
/// | `uring`, `worker` | `IORING_OP_SEND`, by this thread or by one that the kernel makes for the ring |
/// | `flood` | ten times as much, without waiting, until the socket is full |
pub fn push(socket: RawFd, how: &str, bytes: usize) -> io::Result<usize> {
    // Not freed: the kernel may look at it after the call.
    let data: &'static [u8] = Vec::leak(vec![b'x'; bytes]);
    let part =
        |data: &'static [u8]| libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let (front, back) = data.split_at(bytes / 2);
    let mut parts = [part(front), part(back)];
    let message = |parts: &mut [libc::iovec]| {
        // SAFETY: a plain struct of numbers and pointers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        message
    };
    match how {
        // SAFETY: all of these read memory of ours that is as long as is said, for as long as the program lives.
        "send" => answer(unsafe { libc::send(socket, data.as_ptr().cast(), bytes, 0) }),
        // SAFETY: as above.
        "sendmsg" => answer(unsafe { libc::sendmsg(socket, &message(&mut parts), 0) }),
        // SAFETY: as above.
        "writev" => answer(unsafe { libc::writev(socket, parts.as_ptr(), 2) }),
        "sendmmsg" => {
            let (one, two) = parts.split_at_mut(1);
            let mut messages =
                [message(one), message(two)].map(|msg_hdr| libc::mmsghdr { msg_hdr, msg_len: 0 });
            // SAFETY: as above; the kernel writes the lengths into `messages`.
            answer(unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), 2, 0) } as isize)?;
            Ok(messages.iter().map(|message| message.msg_len as usize).sum())
        }
        "zerocopy" => {
            let on: libc::c_int = 1;
            let size = size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: the kernel reads `size` bytes of `on`.
            answer(unsafe {
                libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), size)
            } as isize)?;
            // SAFETY: as above.
            answer(unsafe { libc::send(socket, data.as_ptr().cast(), bytes, libc::MSG_ZEROCOPY) })
        }
        "sendfile" => {
            // SAFETY: a name that ends in NUL.
            let file = std::fs::File::from(owned(unsafe { libc::memfd_create(c"data".as_ptr(), 0) })?);
            io::Write::write_all(&mut &file, data)?;
            let (mut at, mut sent) = (0, 0);
            while sent < bytes {
                // SAFETY: the kernel writes to `at`.
                sent +=
                    answer(unsafe { libc::sendfile(socket, file.as_raw_fd(), &raw mut at, bytes - sent) })?;
            }
            Ok(sent)
        }
        "splice" => {
            let (from, to) = pipe()?;
            let mut sent = 0;
            for chunk in data.chunks(4096) {
                write(&to, chunk)?;
                sent += splice(from.as_raw_fd(), socket, chunk.len())?;
            }
            Ok(sent)
        }
        "flood" => {
            let mut sent = 0;
            for _ in 0..10 {
                // SAFETY: as above.
                match answer(unsafe { libc::send(socket, data.as_ptr().cast(), bytes, libc::MSG_DONTWAIT) }) {
                    Ok(taken) => sent += taken,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(sent)
        }
        "uring" => uring_send(socket, data, 0),
        "worker" => uring_send(socket, data, ASYNC),
        _ => Err(io::Error::other(format!("push how? {how}"))),
    }
}

/// Receives `bytes` bytes and says how many came:
///
/// | how | calls |
/// | --- | --- |
/// | `peek` | `recv` with `MSG_PEEK`: takes nothing |
/// | `waitall`, `trunc` | one `recv` with that flag |
/// | `readv` | two parts |
/// | `splice` | into a pipe |
pub fn pull(socket: RawFd, how: &str, bytes: usize) -> io::Result<usize> {
    let mut data = vec![0_u8; bytes];
    let mut receive = |flags| {
        // SAFETY: the kernel writes at most `bytes` bytes into `data`, which is ours.
        answer(unsafe { libc::recv(socket, data.as_mut_ptr().cast(), bytes, flags) })
    };
    match how {
        "peek" => receive(libc::MSG_PEEK | libc::MSG_WAITALL),
        "waitall" => receive(libc::MSG_WAITALL),
        "trunc" => receive(libc::MSG_TRUNC | libc::MSG_WAITALL),
        "readv" => {
            let mut got = 0;
            while got < bytes {
                let (front, back) = data[got..].split_at_mut((bytes - got) / 2);
                let part =
                    |data: &mut [u8]| libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
                let parts = [part(front), part(back)];
                // SAFETY: the kernel writes into `data`, which is ours and as long as the parts say.
                got += answer(unsafe { libc::readv(socket, parts.as_ptr(), 2) })?;
            }
            Ok(got)
        }
        "splice" => {
            let (from, to) = pipe()?;
            let mut got = 0;
            while got < bytes {
                let moved = splice(socket, to.as_raw_fd(), (bytes - got).min(4096))?;
                let mut left = moved;
                while left > 0 {
                    left -= nix::unistd::read(&from, &mut data[..left])?;
                }
                got += moved;
            }
            Ok(got)
        }
        _ => Err(io::Error::other(format!("pull how? {how}"))),
    }
}

fn splice(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: a system call with null for its pointers.
    answer(unsafe { libc::splice(from, none, to, none, bytes, 0) })
}

/// `IOSQE_ASYNC`: not by the thread that asks.
const ASYNC: u8 = 1 << 4;

/// Sends by `io_uring`.
fn uring_send(socket: RawFd, data: &'static [u8], flags: u8) -> io::Result<usize> {
    const SEND: u8 = 26; // IORING_OP_SEND
    uring(SEND, flags, socket, data)
}

/// Accepts by `io_uring`.
pub fn uring_accept(listener: RawFd) -> io::Result<OwnedFd> {
    const ACCEPT: u8 = 13; // IORING_OP_ACCEPT
    owned(libc::c_int::try_from(uring(ACCEPT, 0, listener, &[])?).map_err(io::Error::other)?)
}

/// connect(2) to an address of IPv4 by a worker of `io_uring`, not by the current thread.
pub fn uring_connect(socket: RawFd, to: SocketAddrV4) -> io::Result<()> {
    const CONNECT: u8 = 16; // IORING_OP_CONNECT
    // `struct sockaddr_in`.
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&to.port().to_be_bytes());
    address[4..8].copy_from_slice(&to.ip().octets());
    let mut entry = [0_u8; 64];
    entry[0] = CONNECT;
    entry[1] = ASYNC;
    entry[4..8].copy_from_slice(&socket.to_ne_bytes());
    entry[8..16].copy_from_slice(&(size_of_val(&address) as u64).to_ne_bytes());
    entry[16..24].copy_from_slice(&(address.as_ptr().expose_provenance() as u64).to_ne_bytes());
    submit(&entry).map(drop)
}

/// One request by `io_uring`, with memory if there is any.
fn uring(operation: u8, flags: u8, socket: RawFd, data: &'static [u8]) -> io::Result<usize> {
    let mut entry = [0_u8; 64];
    entry[0] = operation;
    entry[1] = flags;
    entry[4..8].copy_from_slice(&socket.to_ne_bytes());
    if !data.is_empty() {
        entry[16..24].copy_from_slice(&(data.as_ptr().expose_provenance() as u64).to_ne_bytes());
    }
    entry[24..28].copy_from_slice(&u32::try_from(data.len()).map_err(io::Error::other)?.to_ne_bytes());
    submit(&entry)
}

/// Hands this request to a ring of its own, as io_uring_setup(2) has it, and waits for its result. What the request points to must
/// stay until then.
fn submit(entry: &[u8; 64]) -> io::Result<usize> {
    const GETEVENTS: u32 = 1; // IORING_ENTER_GETEVENTS
    // `struct io_uring_params`, as words.
    let mut params = [0_u32; 30];
    // SAFETY: the kernel reads and writes the struct, which has 120 bytes.
    let ring =
        owned(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) } as libc::c_int)?;
    let map = |len: usize, offset: libc::off_t| {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping, wherever the kernel likes. It stays until the program ends.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    // Offsets of the rings' fields: of submissions from word 10, of completions from word 20.
    let (sq_tail, sq_array, cqes) = (params[11] as usize, params[16] as usize, params[25] as usize);
    let rings = map(4096, 0)?;
    let entries = map(4096, 0x1000_0000)?;
    // SAFETY: within the mappings, which are a page each and hold one entry; nobody else uses the ring.
    unsafe {
        entries.copy_from(entry.as_ptr(), entry.len());
        rings.add(sq_array).cast::<u32>().write_volatile(0);
        rings.add(sq_tail).cast::<u32>().write_volatile(1);
    }
    let no_mask = std::ptr::null::<u8>();
    // SAFETY: a system call without memory but the ring's.
    let entered =
        unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, GETEVENTS, no_mask, 0) };
    answer(entered as isize)?;
    // SAFETY: the first completion, which is there; its result is behind 8 bytes of ours.
    let result = unsafe { rings.add(cqes + 8).cast::<i32>().read_volatile() };
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Ends a socket's connection without closing the socket: connect to `AF_UNSPEC`.
pub fn disconnect(socket: RawFd) -> io::Result<()> {
    // SAFETY: a plain struct of numbers.
    let mut nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    nobody.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: the kernel reads the struct, which is as long as is said.
    let result =
        unsafe { libc::connect(socket, &raw const nobody, size_of::<libc::sockaddr>() as libc::socklen_t) };
    answer(result as isize).map(drop)
}

/// Sets an option of a socket that is a number.
pub fn set_option(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `value`, which is as long as is said.
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), len) };
    answer(result as isize).map(drop)
}

/// `struct tcp_info` of a socket (include/uapi/linux/tcp.h), as bytes, as many as this kernel has.
pub fn tcp_info(socket: RawFd) -> io::Result<Vec<u8>> {
    let mut info = vec![0_u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    answer(result as isize)?;
    Ok(info)
}

/// `tcpi_bytes_acked` and `tcpi_bytes_received` of a socket (include/uapi/linux/tcp.h).
pub fn tcp_counts(socket: RawFd) -> io::Result<(u64, u64)> {
    let mut info = [0_u64; 32];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    answer(result as isize)?;
    Ok((info[15], info[16]))
}

/// Gives the calling thread the processor before all that have no such priority (`SCHED_FIFO`).
pub fn real_time(priority: i32) -> io::Result<()> {
    // The C library's own function refuses.
    // SAFETY: the kernel reads one number.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, (&raw const priority).cast::<()>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
