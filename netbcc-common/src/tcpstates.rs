//! tcpstates: one event per change of a TCP socket's state.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// A transition.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Since the socket's transition before, ns; 0 if none was seen since it was last closed.
    pub span_ns: u64,
    /// Address of the `struct sock`.
    pub sk: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid) on the CPU.
    pub pid: u32,
    /// The state that it leaves (include/net/tcp_states.h).
    pub old: i32,
    /// The state that it enters.
    pub new: i32,
    /// 1: it was in the old state before the start, from which `span_ns` is counted then.
    pub existing: u32,
    /// Name of the task on the CPU.
    pub comm: Comm,
}
