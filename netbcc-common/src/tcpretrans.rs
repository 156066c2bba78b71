//! tcpretrans: one event per packet that TCP sends again, per tail loss probe, and per SYN-ACK that is sent again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Tuple;

/// A segment was sent again.
pub const RETRANSMIT: u32 = 0;
/// The timer of a tail loss probe (RFC 8985 section 7) fired.
pub const LOSS_PROBE: u32 = 1;
/// A segment was not sent again: this host refused.
pub const FAILED: u32 = 2;
/// A SYN-ACK was sent again: of a connection that has no socket yet.
pub const SYN_ACK: u32 = 3;

/// A retransmission, or an attempt.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Both ends. Without padding it is the key of the map `FLOWS` as well.
    pub tuple: Tuple,
    /// Process (tgid) on the CPU: whoever was interrupted.
    pub pid: u32,
    /// Sequence number of the segment's first byte; 0 for a probe, which may carry any.
    pub seq: u32,
    /// The socket's state (include/net/tcp_states.h); of a connection without one, `TCP_SYN_RECV`.
    pub state: i32,
    /// Why the attempt failed: a negative errno; 0 if it did not.
    pub error: i32,
    /// [`RETRANSMIT`], [`LOSS_PROBE`], [`FAILED`] or [`SYN_ACK`].
    pub kind: u32,
    /// How many segments the packet has, as TCP counts them; 0 for a probe. They are sent as one where the interface
    /// takes packets apart.
    pub segments: u32,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Count flows in `FLOWS`, send no events.
    pub count: u8,
    /// Attempts that failed on this host are events, too.
    pub failed: u8,
}
