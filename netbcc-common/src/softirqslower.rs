//! softirqslower: one event per soft interrupt that waited, or whose handler ran, for long.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;

/// Room for vectors; the kernel has 10.
pub const VECTORS: usize = 16;

/// A stage of a soft interrupt, at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// When the stage ended: `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// How long it took, ns.
    pub latency_ns: u64,
    /// Of a wait, if [`Config::others`]: time of other vectors' handlers on this CPU meanwhile, ns.
    pub other_ns: u64,
    /// How often it was raised until its handler began. 0: this is a run.
    pub raises: u64,
    /// Process (tgid) of the task on the CPU.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The CPU.
    pub cpu: u32,
    /// The vector (include/linux/interrupt.h).
    pub vector: u32,
    /// 1: the task is a thread of the kernel.
    pub kernel: u32,
    /// Always zero.
    pub zero: u32,
    /// Name of the task.
    pub comm: Comm,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Shorter stages are no events, ns.
    pub min_ns: u64,
    /// The vectors to look at, a bit each.
    pub vectors: u32,
    /// The CPU to look at, if `by_cpu`.
    pub cpu: u32,
    /// `cpu` filters.
    pub by_cpu: u8,
    /// Waits are events.
    pub waits: u8,
    /// Runs are events.
    pub runs: u8,
    /// Waits tell [`Event::other_ns`].
    pub others: u8,
    /// Always zero.
    pub zero: u32,
}
