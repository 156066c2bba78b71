//! bindsnoop: one event per bind() of an IPv4 or IPv6 socket, or a count of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Addr;

/// Bits of [`Event::options`].
pub mod option {
    /// `IP_FREEBIND`.
    pub const FREEBIND: u16 = 1 << 0;
    /// `IP_TRANSPARENT`.
    pub const TRANSPARENT: u16 = 1 << 1;
    /// `IP_BIND_ADDRESS_NO_PORT`.
    pub const NO_PORT: u16 = 1 << 2;
    /// `SO_REUSEADDR`.
    pub const REUSEADDR: u16 = 1 << 3;
    /// `SO_REUSEPORT`.
    pub const REUSEPORT: u16 = 1 << 4;
}

/// A bind(), at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// The socket's local address; that asked for where the call failed.
    pub addr: Addr,
    /// The address asked for.
    pub asked_addr: Addr,
    /// Process (tgid).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its real user, in the initial user namespace.
    pub uid: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// What the call returned: 0, or a negative errno.
    pub error: i32,
    /// Number of the interface that the socket is bound to; 0: none.
    pub ifindex: i32,
    /// The socket's local port, host order; that asked for where the call failed.
    pub port: u16,
    /// The port asked for, host order.
    pub asked_port: u16,
    /// The socket's: `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// How `addr` is to be read: `AF_INET` or `AF_INET6`.
    pub addr_family: u16,
    /// How `asked_addr` is to be read: `AF_INET` or `AF_INET6`.
    pub asked_family: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Bits of [`option`].
    pub options: u16,
    /// Always zero.
    pub zero: u16,
    /// Name of the calling thread.
    pub comm: Comm,
}

/// What binds are counted by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Key {
    /// Local address.
    pub addr: Addr,
    /// Local port, host order.
    pub port: u16,
    /// How `addr` is to be read: `AF_INET` or `AF_INET6`.
    pub family: u16,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Number of the system call `bind` on this architecture.
    pub bind: u64,
    /// 1: failed calls are events, too.
    pub errors: u32,
    /// 1: calls are counted, and are no events.
    pub count: u32,
    /// Numbers of the bits of `inet_flags`, where the kernel has it.
    pub freebind: u32,
    /// As the kernel's BTF tells it.
    pub transparent: u32,
    /// As the kernel's BTF tells it.
    pub no_port: u32,
    /// Always zero.
    pub zero: u32,
}
