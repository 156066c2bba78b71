//! softirqs: time in each soft interrupt's handler, or how often it ran.
//!
//! `irq:softirq_entry` and `irq:softirq_exit` stand around every run of a handler. A run is kept by CPU and vector:
//! handlers of one CPU take turns (on PREEMPT_RT by the lock that `local_bh_disable` takes), and a task that runs one
//! cannot leave its CPU. Nothing is ever set to zero: user space compares.
//!
//! These are among the most frequent things that a kernel does, so the programs of a run without options ask for none:
//! a constant that user space set is still loaded each time. Nearly all that is left is the way into a program and the
//! clock. An array indexed by the CPU's number, instead of one per CPU, was measured and is not cheaper.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::BtfTracePointContext;
use netbcc_common::softirqs::{Config, Runs, SLOTS, VECTORS};
use probes_ebpf::{setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { cpu: 0, by_cpu: 0, events: 0, dist: 0, nanoseconds: 0 };

/// By vector.
#[map]
static RUNS: PerCpuArray<Runs> = PerCpuArray::with_max_entries(VECTORS, 0);

/// Histograms, one after the other: [`SLOTS`] counts per vector.
#[map]
static DIST: PerCpuArray<u64> = PerCpuArray::with_max_entries(VECTORS * SLOTS, 0);

// match-proto: void softirq_entry(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_entry")]
fn entry_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(runs) = storage::slot(&RUNS, ctx.arg(0)) {
        runs.start_ns = task::now_ns();
    }
    0
}

// match-proto: void softirq_exit(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(runs) = storage::slot(&RUNS, ctx.arg(0)) {
        let _took_ns = ended(runs);
    }
    0
}

/// Adds the run that ends; how long it took (modulo 2^64: now and then this clock goes back a little). `None`: its
/// beginning was not seen.
#[inline(always)]
fn ended(runs: &mut Runs) -> Option<u64> {
    let start_ns = runs.start_ns;
    if start_ns == 0 {
        return None;
    }
    let took_ns = task::now_ns().wrapping_sub(start_ns);
    runs.start_ns = 0;
    // Alone: one program is attached to the end of runs, and writes these words.
    runs.total_ns = runs.total_ns.wrapping_add(took_ns);
    runs.count += 1;
    Some(took_ns)
}

/// Whether this CPU is asked for.
#[inline(always)]
fn keeps_cpu() -> bool {
    setting!(CONFIG.by_cpu) == 0 || setting!(CONFIG.cpu) == task::cpu()
}

// match-proto: void softirq_entry(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_entry")]
fn entry_of_some_tp(ctx: BtfTracePointContext) -> i32 {
    if keeps_cpu()
        && let Some(runs) = storage::slot(&RUNS, ctx.arg(0))
    {
        if setting!(CONFIG.events) != 0 {
            // Alone: where runs are only counted, what is at their end writes nothing.
            runs.count += 1;
        } else {
            runs.start_ns = task::now_ns();
        }
    }
    0
}

// match-proto: void softirq_exit(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_exit")]
fn exit_of_some_tp(ctx: BtfTracePointContext) -> i32 {
    let vector: u32 = ctx.arg(0);
    if keeps_cpu()
        && let Some(runs) = storage::slot(&RUNS, vector)
        && let Some(took_ns) = ended(runs)
        && setting!(CONFIG.dist) != 0
    {
        let took_ns = (took_ns as i64).max(0) as u64;
        let value = if setting!(CONFIG.nanoseconds) != 0 { took_ns } else { took_ns / 1000 };
        let slot = (u64::BITS - value.leading_zeros()).max(1);
        if let Some(count) = storage::slot(&DIST, vector * SLOTS + slot) {
            // Alone: as in `ended`.
            *count += 1;
        }
    }
    0
}
