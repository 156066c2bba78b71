//! softirqs: time in each soft interrupt's handler, or how often it ran.
//!
//! `irq:softirq_entry` and `irq:softirq_exit` stand around every run of a handler. A run is kept by CPU and vector:
//! handlers of one CPU follow each other, and a task that runs one cannot leave its CPU. Only with PREEMPT_RT may another
//! task get the CPU meanwhile; since 6.18 `local_bh_disable` takes no lock there, and it may run the same handler. There a
//! run is kept by task. Nothing is ever set to zero: user space compares.
//!
//! These are among the most frequent things that a kernel does, so the programs of a run without options ask for none:
//! a constant that user space set is still loaded each time. Nearly all that is left is the way into a program and the
//! clock. An array indexed by the CPU's number, instead of one per CPU, was measured and is not cheaper.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use netbcc_common::loss::Loss;
use netbcc_common::softirqs::{Config, Runs, SLOTS, VECTORS};
use probes_ebpf::emit::lost;
use probes_ebpf::{atomic, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { cpu: 0, by_cpu: 0, events: 0, dist: 0, nanoseconds: 0 };

/// By vector.
#[map]
static RUNS: PerCpuArray<Runs> = PerCpuArray::with_max_entries(VECTORS, 0);

/// When the run under way began, by task, where tasks take turns. A task has one at a time.
#[map]
static BEGAN: HashMap<u64, u64> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

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
        && let Some(count) = slot_of(vector, took_ns)
    {
        // Alone: as in `ended`.
        *count += 1;
    }
    0
}

/// Where a run that took so long is counted, if there is a histogram.
#[inline(always)]
fn slot_of(vector: u32, took_ns: u64) -> Option<&'static mut u64> {
    if setting!(CONFIG.dist) == 0 {
        return None;
    }
    let took_ns = (took_ns as i64).max(0) as u64;
    let value = if setting!(CONFIG.nanoseconds) != 0 { took_ns } else { took_ns / 1000 };
    storage::slot(&DIST, vector * SLOTS + (u64::BITS - value.leading_zeros()).max(1))
}

/// The current task; of idle ones, of which each CPU has one under the same number, that of this CPU.
#[inline(always)]
fn own_key() -> u64 {
    u64::from(task::cpu()) << 32 | task::pid_tid() & 0xffff_ffff
}

// match-proto: void softirq_entry(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_entry")]
fn entry_of_task_tp(ctx: BtfTracePointContext) -> i32 {
    if !keeps_cpu() {
        return 0;
    }
    if setting!(CONFIG.events) == 0 {
        if BEGAN.insert(own_key(), task::now_ns(), 0).is_err() {
            lost(Loss::MapFull);
        }
    } else if let Some(runs) = storage::slot(&RUNS, ctx.arg(0)) {
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(&raw mut runs.count, 1) };
    }
    0
}

// match-proto: void softirq_exit(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_exit")]
fn exit_of_task_tp(ctx: BtfTracePointContext) -> i32 {
    let vector: u32 = ctx.arg(0);
    let key = own_key();
    if !keeps_cpu() {
        return 0;
    }
    let Some(start_ns) = storage::entry(&BEGAN, key).map(|began| *began) else { return 0 };
    let _gone_already = BEGAN.remove(key);
    let took_ns = task::now_ns().wrapping_sub(start_ns);
    if let Some(runs) = storage::slot(&RUNS, vector) {
        // SAFETY: words of a map's value, which are aligned; who writes them here adds to them.
        unsafe {
            atomic::add(&raw mut runs.total_ns, took_ns);
            atomic::add(&raw mut runs.count, 1);
        }
    }
    if let Some(count) = slot_of(vector, took_ns) {
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(count, 1) };
    }
    0
}
