//! tcprtt: round-trip times in slots of log2, per address or of all connections together; with `--min --json` one event per
//! connection that closed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Tuple};

/// Slots of a histogram: slot `i` counts times of `i` bits, slot 1 also the time 0, and slot 0 what was never measured.
pub const SLOTS: usize = 33;

/// Value of the per-CPU array `TOTAL`, which has one entry, and of the tables `SUMS_0` and `SUMS_1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hist {
    /// How many times fell into each slot, in the unit of the run.
    pub slots: [u64; SLOTS],
    /// The sum of these times, always in microseconds.
    pub sum_us: u64,
}

/// 64-bit words of a [`Hist`].
pub const HIST_WORDS: usize = size_of::<Hist>() / size_of::<u64>();

/// Key of the tables `SUMS_0` and `SUMS_1`: the address that is grouped by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Key {
    /// The address.
    pub addr: Addr,
    /// Family of the socket: how the address is to be read.
    pub family: u32,
}

/// A connection that closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// When it closed, ns.
    pub ts_ns: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Its shortest round trip of late (net.ipv4.tcp_min_rtt_wlen), in microseconds; `u32::MAX`: none was measured.
    pub min_rtt_us: u32,
    /// Its smoothed round trip, in eighths of a microsecond; 0: none was measured.
    pub srtt_us_8: u32,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Always zero.
    pub zero: u32,
}

/// One histogram for all addresses.
pub const BY_NONE: u8 = 0;
/// One per local address.
pub const BY_LADDR: u8 = 1;
/// One per remote address.
pub const BY_RADDR: u8 = 2;

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// What is grouped by: one of `BY_*`.
    pub by: u8,
    /// Slots are of milliseconds, not of microseconds.
    pub milliseconds: u8,
}
