//! tcpsynbl: lengths of accept queues in slots of log2, per limit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots of a histogram: slot `i` counts lengths of `i` bits, slot 1 also the length 0, and slot 0 nothing.
pub const SLOTS: usize = 33;

/// Value of the tables `SUMS_0` and `SUMS_1`, of which the key is the limit: `sk_max_ack_backlog`, a `u32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hist {
    /// How many connections found a queue whose length falls into each slot.
    pub slots: [u64; SLOTS],
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The reason `TCP_LISTEN_OVERFLOW` of this kernel; 0: it has none.
    pub overflow: u32,
}
