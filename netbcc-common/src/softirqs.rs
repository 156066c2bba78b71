//! softirqs: what each CPU counts per vector, and how long runs took in slots of log2.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the per-CPU array `RUNS`, whose index is the vector.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Runs {
    /// When the run under way began, ns; 0: none is, or its beginning was not seen.
    pub start_ns: u64,
    /// Time in runs that ended, ns (modulo 2^64).
    pub total_ns: u64,
    /// Runs that ended; with [`Config::events`], runs that began.
    pub count: u64,
}

/// 64-bit words of a [`Runs`].
pub const RUNS_WORDS: usize = size_of::<Runs>() / size_of::<u64>();

/// Room for vectors; the kernel has 10.
pub const VECTORS: u32 = 16;

/// Slots of a histogram: slot `i` counts values of `i` bits, and slot 1 also the value 0.
pub const SLOTS: u32 = 65;

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The CPU to look at, if `by_cpu`.
    pub cpu: u32,
    /// `cpu` filters.
    pub by_cpu: u8,
    /// Count runs that begin, measure nothing.
    pub events: u8,
    /// Fill the histograms.
    pub dist: u8,
    /// Slots are of nanoseconds, not of microseconds.
    pub nanoseconds: u8,
}
