//! The few system calls that no safe wrapper offers: `bpf(2)`, an MPTCP socket, and `listen(2)` with any backlog. All `unsafe` of the tests is here.
#![expect(unsafe_code, reason = "bpf(2) and socket(2) with IPPROTO_MPTCP have no safe wrapper in nix")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const OBJ_PIN: libc::c_long = 6;
const PROG_GET_FD_BY_ID: libc::c_long = 13;

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

/// Whether the kernel still holds the program with this id.
pub fn program_exists(id: u32) -> io::Result<bool> {
    let mut attr = Attr::default();
    attr[0] = u64::from(id);
    match bpf_fd(PROG_GET_FD_BY_ID, &attr) {
        Ok(_held) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
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

/// `listen(2)` with any backlog: nix refuses what the kernel clamps.
pub fn listen(socket: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::listen(socket, backlog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
