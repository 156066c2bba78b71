//! tcpconnlat: one event per active open that is answered.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// An active open that was answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC` at the answer, ns.
    pub ts_ns: u64,
    /// Since the connect, ns.
    pub span_ns: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid) that connected.
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
    /// Name of the thread that connected.
    pub comm: Comm,
}

/// An active open that waits for its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// `CLOCK_MONOTONIC` at the connect, ns; 0: none is under way.
    pub ts_ns: u64,
    /// Process (tgid).
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Answers that took less are no rows, ns.
    pub min_ns: u64,
}
