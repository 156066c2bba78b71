//! tcpaccept: one event per connection that is taken off an accept queue.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// A connection that was accepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid) that accepted.
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
    /// Name of the thread that accepted.
    pub comm: Comm,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Numbers of the system calls accept and accept4.
    pub accepts: [u64; 2],
}
