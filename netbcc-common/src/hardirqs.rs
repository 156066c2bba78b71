//! hardirqs: what each CPU sums per handler of a hard interrupt, and how long calls took in slots of log2.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a handler's name that are kept, the NUL at the end among them.
pub const NAME_BYTES: usize = 32;

/// A handler on a CPU: key of the tables `SUMS_0` and `SUMS_1`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Key {
    /// Address of its `struct irqaction`; of an interrupt that has none, its number among the tool's vectors.
    pub action: u64,
    /// Where its name is in the kernel's memory: an action that takes the place of another has another name. 0: a vector.
    pub name_at: u64,
    /// The interrupt's number. 0: a vector.
    pub irq: u32,
    /// The CPU.
    pub cpu: u32,
}

/// What a handler's calls of an interval amount to: value of the tables `SUMS_0` and `SUMS_1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sums {
    /// Time of the calls that it handled, ns (modulo 2^64).
    pub total_ns: u64,
    /// Calls that it handled.
    pub count: u64,
    /// The longest of them, ns.
    pub max_ns: u64,
    /// Calls of which it said that the interrupt was not its device's (`IRQ_NONE`).
    pub unhandled: u64,
    /// Its name, which ends at the first NUL; empty for a vector.
    pub name: [u8; NAME_BYTES],
}

/// A handler, and a slot of its histogram: key of the tables `DIST_0` and `DIST_1`, which count calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotKey {
    /// The handler.
    pub handler: Key,
    /// The slot: `i` counts values of `i` bits, 1 also the value 0.
    pub slot: u32,
    /// Always zero.
    pub zero: u32,
}

/// How many calls may be under way on a CPU, one inside the other: handlers run with interrupts off, and only old ones turn
/// them on.
pub const LEVELS: usize = 4;

/// The calls under way on a CPU: value of the per-CPU array `OPEN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Open {
    /// How many there are.
    pub depth: u64,
    /// Addresses of their `struct irqaction`, the outermost first.
    pub actions: [u64; LEVELS],
    /// When they began, ns.
    pub start_ns: [u64; LEVELS],
}

/// Interrupts of x86 that have no `struct irqaction`, as their tracepoints are called without `_entry` and `_exit` (group
/// `irq_vectors`, arch/x86/include/asm/trace/irq_vectors.h).
pub const VECTORS: [&str; 11] = [
    "local_timer",
    "reschedule",
    "call_function",
    "call_function_single",
    "irq_work",
    "x86_platform_ipi",
    "thermal_apic",
    "threshold_apic",
    "deferred_error_apic",
    "error_apic",
    "spurious_apic",
];

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The CPU to look at, if `by_cpu`.
    pub cpu: u32,
    /// `cpu` filters.
    pub by_cpu: u8,
    /// Count calls that end, measure nothing.
    pub counts: u8,
    /// Fill the histograms.
    pub dist: u8,
    /// Slots are of nanoseconds, not of microseconds.
    pub nanoseconds: u8,
}
