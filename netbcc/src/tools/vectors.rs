//! The kinds of soft interrupts, for the tools about them.

/// Their names, by vector (include/linux/interrupt.h): those that the kernel has, room for more, and what is behind that.
pub(super) const NAMES: [&str; 17] = [
    "hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu", "vec_10",
    "vec_11", "vec_12", "vec_13", "vec_14", "vec_15", OTHER,
];

const OTHER: &str = "vec_other";

/// A vector's name.
pub(super) fn name(vector: usize) -> &'static str {
    NAMES.get(vector).copied().unwrap_or(OTHER)
}
