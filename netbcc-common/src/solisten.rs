//! solisten: one event per call that makes a TCP socket listen, or tries to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Addr;

/// A listen().
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Local address.
    pub laddr: Addr,
    /// Process (tgid).
    pub pid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// As the kernel limits it.
    pub backlog: i32,
    /// Local port, host order; 0 if the kernel is still to choose it.
    pub lport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Name of the calling thread.
    pub comm: Comm,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Number of the system call `listen` on this architecture.
    pub listen: u64,
}
