//! gethostlatency: one event per name that a program looked up by its C library.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;

/// Bytes of a name that are kept, with the NUL at its end.
pub const HOST_BYTES: usize = 80;

/// `Event::function`: getaddrinfo().
pub const GETADDRINFO: u32 = 0;
/// `Event::function`: gethostbyname().
pub const GETHOSTBYNAME: u32 = 1;
/// `Event::function`: gethostbyname2().
pub const GETHOSTBYNAME2: u32 = 2;

/// A lookup that is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC` when it returned, ns.
    pub ts_ns: u64,
    /// How long it took.
    pub latency_ns: u64,
    /// Process (tgid).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Inode number of the thread's mount namespace.
    pub mntns: u32,
    /// Which of the hooked files it was in, counted from 1; 0: the kernel does not tell.
    pub library: u32,
    /// Which function.
    pub function: u32,
    /// What getaddrinfo() returned; of the others 0, or -1 for no pointer.
    pub ret: i32,
    /// Bytes of the name, without its NUL; negative: it could not be read.
    pub host_len: i32,
    /// Nothing.
    pub zero: u32,
    /// Name of the thread when it called.
    pub comm: Comm,
    /// The name, cut.
    pub host: [u8; HOST_BYTES],
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// What took less is no event.
    pub min_ns: u64,
    /// What succeeded is no event.
    pub failed: u32,
    /// Nothing.
    pub zero: u32,
}
