//! softirqslower: one event per soft interrupt that waited from its raise to its handler's start, or whose handler ran, for at
//! least as long as asked for.
//!
//! A soft interrupt runs on the CPU that raised it, so what is known of it is kept by CPU and vector. `irq:softirq_raise` may
//! interrupt the programs at a handler's start and end: each thing that it reads there is one word.
//!
//! With PREEMPT_RT tasks take turns on a CPU while they run handlers; there a run is kept by task, as in softirqs.
#![no_std]
#![no_main]

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use netbcc_common::loss::Loss;
use netbcc_common::softirqslower::{Config, Event, VECTORS};
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::mem::Probed;
use probes_ebpf::{setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config =
    Config { min_ns: 0, vectors: 0, cpu: 0, by_cpu: 0, waits: 0, runs: 0, others: 0, zero: 0 };

/// What is known of each CPU.
#[map]
static CPUS: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// When the run under way began, by task, where tasks take turns. A task has one at a time.
#[map]
static BEGAN: HashMap<u64, u64> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// CPUs that another CPU is about to bring up.
#[map]
static COMING: HashMap<u32, u32> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

#[repr(C)]
struct Cpu {
    /// Time in handlers.
    ran: Stopwatch,
    vectors: [Vector; VECTORS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Vector {
    /// When it was raised, ns; 0: it is not.
    raised_ns: u64,
    /// How often, since then.
    raises: u64,
    /// Time in other vectors' handlers until it was raised, ns.
    before_ns: u64,
    /// When its handler began, ns; 0: none runs, or its beginning was not seen.
    began_ns: u64,
    /// Time in its handler.
    ran: Stopwatch,
}

/// A sum of spans of time, in one word, so that what interrupts its change reads a whole one: ns (modulo 2^63); while a span is
/// under way, with [`Stopwatch::RUNS`], the moment at which it would have had to begin for all of the sum to be one span.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Stopwatch(u64);

impl Stopwatch {
    const RUNS: u64 = 1 << 63;

    #[inline(always)]
    fn read_ns(self, now_ns: u64) -> u64 {
        if self.0 & Self::RUNS != 0 { now_ns.wrapping_sub(self.0) & !Self::RUNS } else { self.0 }
    }

    #[inline(always)]
    fn start(&mut self, now_ns: u64) {
        *self = Self(now_ns.wrapping_sub(self.read_ns(now_ns)) | Self::RUNS);
    }

    #[inline(always)]
    fn stop(&mut self, now_ns: u64) {
        *self = Self(self.read_ns(now_ns));
    }
}

/// Whether this CPU is asked for.
#[inline(always)]
fn keeps_cpu() -> bool {
    setting!(CONFIG.by_cpu) == 0 || setting!(CONFIG.cpu) == task::cpu()
}

/// Whether this vector is asked for.
#[inline(always)]
fn keeps(vector: u32) -> bool {
    1_u32.wrapping_shl(vector) & setting!(CONFIG.vectors) != 0
}

/// What is known of this CPU, with the place of a vector that has one.
#[inline(always)]
fn place(vector: u32) -> Option<(&'static mut Cpu, usize)> {
    if vector >= VECTORS as u32 {
        // No kernel has so many.
        lost(Loss::MapFull);
        return None;
    }
    Some((storage::slot(&CPUS, 0)?, vector as usize))
}

/// Time in handlers of others than `vector` on this CPU so far, ns (modulo 2^63).
#[inline(always)]
fn others_ns(cpu: &Cpu, vector: usize, now_ns: u64) -> u64 {
    cpu.ran.read_ns(now_ns).wrapping_sub(cpu.vectors[vector].ran.read_ns(now_ns)) & !Stopwatch::RUNS
}

// match-proto: void softirq_raise(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_raise")]
fn raise_tp(ctx: BtfTracePointContext) -> i32 {
    let vector: u32 = ctx.arg(0);
    if !keeps_cpu() || !keeps(vector) {
        return 0;
    }
    let Some((cpu, at)) = place(vector) else { return 0 };
    if cpu.vectors[at].raised_ns != 0 {
        // Alone: no other program adds to this word.
        cpu.vectors[at].raises += 1;
        return 0;
    }
    let now_ns = task::now_ns();
    if setting!(CONFIG.others) != 0 {
        cpu.vectors[at].before_ns = others_ns(cpu, at, now_ns);
    }
    cpu.vectors[at].raises = 1;
    cpu.vectors[at].raised_ns = now_ns;
    0
}

// match-proto: void softirq_entry(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_entry")]
fn entry_tp(ctx: BtfTracePointContext) -> i32 {
    begins(ctx.arg(0), false);
    0
}

// match-proto: void softirq_exit(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    ends(ctx.arg(0), false);
    0
}

// match-proto: void softirq_entry(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_entry")]
fn entry_of_task_tp(ctx: BtfTracePointContext) -> i32 {
    begins(ctx.arg(0), true);
    0
}

// match-proto: void softirq_exit(unsigned int vec_nr)
#[btf_tracepoint(function = "softirq_exit")]
fn exit_of_task_tp(ctx: BtfTracePointContext) -> i32 {
    ends(ctx.arg(0), true);
    0
}

/// The start of a handler.
#[inline(always)]
fn begins(vector: u32, by_task: bool) {
    if !keeps_cpu() {
        return;
    }
    let others = setting!(CONFIG.others) != 0;
    let keeps = keeps(vector);
    if !others && !keeps {
        return;
    }
    let Some((cpu, at)) = place(vector) else { return };
    let now_ns = task::now_ns();
    if setting!(CONFIG.waits) != 0 && keeps {
        let raised = cpu.vectors[at];
        if raised.raised_ns != 0 {
            // A raise may come in between. Before the word is zero it joins this wait, although the kernel, which took the pending
            // ones already, runs the handler once more; after that it begins the next one.
            compiler_fence(Ordering::SeqCst);
            cpu.vectors[at].raised_ns = 0;
            let latency_ns = span_ns(raised.raised_ns, now_ns);
            if latency_ns >= setting!(CONFIG.min_ns) {
                let mut other_ns = 0;
                if others {
                    let meanwhile =
                        others_ns(cpu, at, now_ns).wrapping_sub(raised.before_ns) & !Stopwatch::RUNS;
                    // Both clocks are read at moments of their own.
                    other_ns = meanwhile.min(latency_ns);
                }
                send(vector, now_ns, latency_ns, raised.raises, other_ns);
            }
        }
    }
    if others {
        cpu.ran.start(now_ns);
        cpu.vectors[at].ran.start(now_ns);
    }
    if setting!(CONFIG.runs) != 0 && keeps {
        if !by_task {
            cpu.vectors[at].began_ns = now_ns;
        } else if BEGAN.insert(own_key(), now_ns, 0).is_err() {
            lost(Loss::MapFull);
        }
    }
}

/// The end of a handler.
#[inline(always)]
fn ends(vector: u32, by_task: bool) {
    if !keeps_cpu() {
        return;
    }
    let others = setting!(CONFIG.others) != 0;
    let keeps = setting!(CONFIG.runs) != 0 && keeps(vector);
    if !others && !keeps {
        return;
    }
    let Some((cpu, at)) = place(vector) else { return };
    let now_ns = task::now_ns();
    if others {
        cpu.ran.stop(now_ns);
        cpu.vectors[at].ran.stop(now_ns);
    }
    if !keeps {
        return;
    }
    let began_ns = if by_task {
        let key = own_key();
        let Some(began_ns) = storage::entry(&BEGAN, key).map(|began| *began) else { return };
        let _gone_already = BEGAN.remove(key);
        began_ns
    } else {
        let began_ns = cpu.vectors[at].began_ns;
        if began_ns == 0 {
            return;
        }
        cpu.vectors[at].began_ns = 0;
        began_ns
    };
    let latency_ns = span_ns(began_ns, now_ns);
    if latency_ns >= setting!(CONFIG.min_ns) {
        send(vector, now_ns, latency_ns, 0, 0);
    }
}

/// From then to now. This clock goes back a little now and then, while it is adjusted.
#[inline(always)]
fn span_ns(from_ns: u64, to_ns: u64) -> u64 {
    (to_ns.wrapping_sub(from_ns) as i64).max(0) as u64
}

/// The current task; of idle ones, of which each CPU has one under the same number, that of this CPU.
#[inline(always)]
fn own_key() -> u64 {
    u64::from(task::cpu()) << 32 | task::pid_tid() & 0xffff_ffff
}

#[inline(always)]
fn send(vector: u32, ts_ns: u64, latency_ns: u64, raises: u64, other_ns: u64) {
    let Some(mut event) = reserve::<Event>() else { return };
    let pid_tid = task::pid_tid();
    event.ts_ns = ts_ns;
    event.latency_ns = latency_ns;
    event.other_ns = other_ns;
    event.raises = raises;
    event.pid = (pid_tid >> 32) as u32;
    event.tid = pid_tid as u32;
    event.cpu = task::cpu();
    event.vector = vector;
    // By the helper: what types are for, 5.10 has not got.
    event.kernel = task::is_kernel::<Probed>().into();
    event.zero = 0;
    task::comm(&mut event.comm);
}

// match-proto: void cpuhp_enter(unsigned int cpu, int target, int idx, int (*fun)(unsigned int))
#[btf_tracepoint(function = "cpuhp_enter")]
fn hotplug_tp(ctx: BtfTracePointContext) -> i32 {
    let cpu: u32 = ctx.arg(0);
    if cpu != task::cpu() {
        // Another CPU works for one that does not run yet, or not any more.
        if COMING.insert(cpu, 1, 0).is_err() {
            lost(Loss::MapFull);
        }
        return 0;
    }
    // The first step of a CPU that has come up: what it had raised before it went was given to others.
    if COMING.remove(cpu).is_ok()
        && let Some(state) = storage::slot(&CPUS, 0)
    {
        for vector in &mut state.vectors {
            vector.raised_ns = 0;
            vector.began_ns = 0;
            vector.ran = Stopwatch(0);
        }
        state.ran = Stopwatch(0);
    }
    0
}
