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
    /// 1: it was open before the start, from which `span_ns` is counted then.
    pub existing: u32,
    /// Owner's name.
    pub comm: Comm,
}

/// A life that ended, with what its socket knew at the end. Sent in place of [`Event`] where anything of it is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Detailed {
    /// What every row has.
    pub event: Event,
    /// What only some have.
    pub end: End,
}

/// What a socket knew at its end. What was not asked for is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct End {
    /// From SYN_SENT to ESTABLISHED, ns; 0: not seen.
    pub conn_ns: u64,
    /// When a process first read from it: `CLOCK_MONOTONIC`, ns; 0: never, or not seen.
    pub first_ns: u64,
    /// Bytes of data that were sent again.
    pub retrans_bytes: u64,
    /// Segments that were sent again, SYN and FIN included.
    pub retrans: u32,
    /// Segments that were taken for lost.
    pub lost: u32,
    /// The shortest round-trip time, µs; `u32::MAX`: none.
    pub rtt_min_us: u32,
    /// The smoothed round-trip time, µs; 0: none.
    pub rtt_us: u32,
    /// Jiffies with something to send, and no limit but the network.
    pub busy_jiffies: u32,
    /// Jiffies with something to send that the receiver had no room for.
    pub rwnd_jiffies: u32,
    /// Jiffies with something to send that the send buffer had no room for.
    pub sndbuf_jiffies: u32,
    /// Segments that came out of order.
    pub ooo: u32,
    /// Segments that came.
    pub segs_in: u32,
    /// Segments that were sent.
    pub segs_out: u32,
    /// The socket's error; 0: none.
    pub error: i32,
    /// The state before CLOSE.
    pub state: i32,
    /// `sk_shutdown`: which directions were shut down.
    pub shutdown: u32,
    /// Always zero.
    pub zero: u32,
}

/// Which parts of an [`End`] are asked for: bits of the global `DETAILS`.
pub mod details {
    /// `rtt_min_us`.
    pub const RTT_MIN: u32 = 1 << 0;
    /// `rtt_us`.
    pub const RTT: u32 = 1 << 1;
    /// `retrans`.
    pub const RETRANS: u32 = 1 << 2;
    /// `retrans_bytes`.
    pub const RETRANS_BYTES: u32 = 1 << 3;
    /// `lost`.
    pub const LOST: u32 = 1 << 4;
    /// `busy_jiffies`, `rwnd_jiffies`, `sndbuf_jiffies`.
    pub const LIMITS: u32 = 1 << 5;
    /// `conn_ns`.
    pub const CONN: u32 = 1 << 6;
    /// `first_ns`.
    pub const FIRST: u32 = 1 << 7;
    /// `ooo`.
    pub const OOO: u32 = 1 << 8;
    /// `segs_in`.
    pub const SEGS_IN: u32 = 1 << 9;
    /// `segs_out`.
    pub const SEGS_OUT: u32 = 1 << 10;
    /// `error`, `state`, `shutdown`.
    pub const HOW: u32 = 1 << 11;
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
    pub state: u32,
    /// 1: the filters of tasks keep the owner.
    pub kept: u32,
    /// From SYN_SENT to ESTABLISHED, ns; 0: not seen, or not asked for.
    pub conn_ns: u64,
    /// When a process first read from it; 0: never, or not asked for.
    pub first_ns: u64,
}

impl Life {
    /// Whether `state` is the last that was seen of it.
    #[inline]
    pub fn is_in(&self, state: u64) -> bool {
        u64::from(self.state) == state
    }
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
