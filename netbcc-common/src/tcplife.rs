//! tcplife: one event per socket that reached CLOSE.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// A life that ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC` of the end, ns.
    pub ts_ns: u64,
    /// From the last of SYN_SENT, SYN_RECV, ESTABLISHED to CLOSE, ns.
    pub span_ns: u64,
    /// Acknowledged by the peer, SYN and FIN included.
    pub tx_bytes: u64,
    /// Received in order, FIN included.
    pub rx_bytes: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Owner (tgid).
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
    /// Owner's name.
    pub comm: Comm,
}

/// What is known of a live socket: value of the maps `LIVES` and `LIVES_BY_SK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Life {
    /// When it last entered SYN_SENT, SYN_RECV or ESTABLISHED; 0: not seen opening.
    pub birth_ns: u64,
    /// Owner (tgid), if `owner` is not [`NOBODY`].
    pub pid: u32,
    /// How the owner is known.
    pub owner: u32,
    /// Owner's name.
    pub comm: Comm,
    /// The last state that was seen of it.
    pub state: i32,
    /// Always zero.
    pub zero: u32,
}

/// No owner is stored.
pub const NOBODY: u32 = 0;
/// A thread of the kernel, which has sockets of its own, and works for the sockets of others.
pub const KERNEL: u32 = 1;
/// The task that called accept() or read from the socket.
pub const ACCEPTOR: u32 = 2;
/// The task that closed or shut down first of both ends.
pub const CLOSER: u32 = 3;
/// The task that called connect().
pub const CONNECTOR: u32 = 4;
/// The task that closed last of both ends.
pub const LAST: u32 = 5;
