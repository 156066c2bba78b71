//! hardirqs: time in each handler of a hard interrupt, or how often it handled one.
//!
//! `irq:irq_handler_entry` and `irq:irq_handler_exit` stand around every call of a handler, with interrupts off. A shared line
//! calls all of its handlers in turn; one that answers `IRQ_NONE` had nothing to do, and is counted apart.
//!
//! Of the tables there are two generations, of which programs use the one that the lowest bit of `CURRENT` names; user space
//! empties the other. Each CPU has entries of its own, so nothing here is atomic.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use netbcc_common::hardirqs::{Config, Key, LEVELS, Open, SlotKey, Sums, VECTORS};
use netbcc_common::loss::Loss;
use probes_ebpf::emit::lost;
use probes_ebpf::irq::{Action, name};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::{setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { cpu: 0, by_cpu: 0, counts: 0, dist: 0, nanoseconds: 0 };

/// Calls under way: one entry.
#[map]
static OPEN: PerCpuArray<Open> = PerCpuArray::with_max_entries(1, 0);

/// When the vector under way began, ns, by its number; 0: none is.
#[map]
static BEGAN: PerCpuArray<u64> = PerCpuArray::with_max_entries(VECTORS.len() as u32, 0);

/// Number of the interval; never 0.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
/// User space may set another size.
#[map]
static SUMS_0: HashMap<Key, Sums> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// The other generation. User space may set another size.
#[map]
static SUMS_1: HashMap<Key, Sums> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// Histograms: calls by slot. User space may set another size.
#[map]
static DIST_0: HashMap<SlotKey, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Histograms, the other generation. User space may set another size.
#[map]
static DIST_1: HashMap<SlotKey, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Whether this CPU is asked for.
#[inline(always)]
fn keeps_cpu() -> bool {
    setting!(CONFIG.by_cpu) == 0 || setting!(CONFIG.cpu) == task::cpu()
}

/// A handler is called.
#[inline(always)]
fn begins<A: Access>(action: *const u8) {
    if !keeps_cpu() {
        return;
    }
    let (Some(action), Some(open)) = (Action::<A>::new(action), storage::slot(&OPEN, 0)) else { return };
    // More than there can be: ends of calls were missed.
    let depth = if open.depth < LEVELS as u64 { open.depth as usize } else { 0 };
    open.actions[depth % LEVELS] = action.id();
    open.start_ns[depth % LEVELS] = task::now_ns();
    open.depth = depth as u64 + 1;
}

/// When the call of this handler began that ends, ns. What was called inside it and has not ended never will. `None`: its
/// beginning was not seen.
#[inline(always)]
fn began_ns(action: u64) -> Option<u64> {
    let open = storage::slot(&OPEN, 0)?;
    for level in (0..LEVELS).rev() {
        if (level as u64) < open.depth && open.actions[level] == action {
            open.depth = level as u64;
            return Some(open.start_ns[level]);
        }
    }
    None
}

/// A handler returns `result`.
#[inline(always)]
fn ends<A: Access>(irq: u32, action: *const u8, result: i32) {
    if !keeps_cpu() {
        return;
    }
    let Some(action) = Action::<A>::new(action) else { return };
    let took_ns = if setting!(CONFIG.counts) != 0 {
        0
    } else {
        let Some(start_ns) = began_ns(action.id()) else { return };
        task::now_ns().saturating_sub(start_ns)
    };
    let key = Key { action: action.id(), name_at: action.name_at(), irq, cpu: task::cpu() };
    add(&key, took_ns, result != 0);
}

/// Adds a call of this handler.
#[inline(always)]
fn add(key: &Key, took_ns: u64, handled: bool) {
    let is_first = CURRENT.get(0).copied().unwrap_or(0) & 1 == 0;
    let sums = if is_first { sums_of(&SUMS_0, key) } else { sums_of(&SUMS_1, key) };
    let Some(sums) = sums else { return lost(Loss::MapFull) };
    // Alone: only this CPU writes here, with interrupts off.
    if !handled {
        sums.unhandled += 1;
        return;
    }
    sums.count += 1;
    if setting!(CONFIG.counts) != 0 {
        return;
    }
    sums.total_ns += took_ns;
    if took_ns > sums.max_ns {
        sums.max_ns = took_ns;
    }
    if setting!(CONFIG.dist) != 0 {
        let value = if setting!(CONFIG.nanoseconds) != 0 { took_ns } else { took_ns / 1000 };
        let slot = (u64::BITS - value.leading_zeros()).max(1);
        let key = SlotKey { handler: *key, slot, zero: 0 };
        if !(if is_first { count(&DIST_0, key) } else { count(&DIST_1, key) }) {
            lost(Loss::MapFull);
        }
    }
}

/// The sums of this handler, made if there were none. `None`: the table is full.
#[inline(always)]
fn sums_of(table: &'static HashMap<Key, Sums>, key: &Key) -> Option<&'static mut Sums> {
    if let Some(found) = storage::entry(table, *key) {
        return Some(found);
    }
    let mut sums = Sums::default();
    if key.name_at != 0 {
        name(key.name_at, &mut sums.name);
    }
    table.insert(key, sums, u64::from(BPF_NOEXIST)).ok()?;
    storage::entry(table, *key)
}

/// Adds 1 to this slot, made if there was none. `false`: the table is full.
#[inline(always)]
fn count(table: &'static HashMap<SlotKey, u64>, key: SlotKey) -> bool {
    let Some(count) = storage::entry_or_zero(table, key) else { return false };
    // Alone: as in `add`.
    *count += 1;
    true
}

// match-proto: void irq_handler_entry(int irq, struct irqaction *action)
#[btf_tracepoint(function = "irq_handler_entry")]
fn entry_tp(ctx: BtfTracePointContext) -> i32 {
    begins::<Typed>(ctx.arg(1));
    0
}

// match-proto: void irq_handler_exit(int irq, struct irqaction *action, int ret)
#[btf_tracepoint(function = "irq_handler_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    ends::<Typed>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

// match-proto: void irq_handler_entry(int irq, struct irqaction *action)
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
fn entry_raw(ctx: RawTracePointContext) -> i32 {
    begins::<Probed>(ctx.arg(1));
    0
}

// match-proto: void irq_handler_exit(int irq, struct irqaction *action, int ret)
#[raw_tracepoint(tracepoint = "irq_handler_exit")]
fn exit_raw(ctx: RawTracePointContext) -> i32 {
    ends::<Probed>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// An interrupt of the CPU itself begins; `nth` of [`VECTORS`].
#[inline(always)]
fn vector_begins(nth: u32) -> i32 {
    if keeps_cpu()
        && let Some(began_ns) = storage::slot(&BEGAN, nth)
    {
        *began_ns = task::now_ns();
    }
    0
}

/// It ends.
#[inline(always)]
fn vector_ends(nth: u32) -> i32 {
    if !keeps_cpu() {
        return 0;
    }
    let took_ns = if setting!(CONFIG.counts) != 0 {
        0
    } else {
        let Some(began_ns) = storage::slot(&BEGAN, nth).filter(|began_ns| **began_ns != 0) else { return 0 };
        let took_ns = task::now_ns().saturating_sub(*began_ns);
        *began_ns = 0;
        took_ns
    };
    add(&Key { action: u64::from(nth), name_at: 0, irq: 0, cpu: task::cpu() }, took_ns, true);
    0
}

/// Both programs of a vector, whose tracepoints take its number: `void NAME_entry(int vector)`, `void NAME_exit(int vector)`.
macro_rules! vectors {
    ($($nth:literal $entry:ident $exit:ident)*) => {
        $(
            #[raw_tracepoint]
            fn $entry(_: RawTracePointContext) -> i32 {
                vector_begins($nth)
            }

            #[raw_tracepoint]
            fn $exit(_: RawTracePointContext) -> i32 {
                vector_ends($nth)
            }
        )*
    };
}

vectors! {
    0 local_timer_entry_raw local_timer_exit_raw
    1 reschedule_entry_raw reschedule_exit_raw
    2 call_function_entry_raw call_function_exit_raw
    3 call_function_single_entry_raw call_function_single_exit_raw
    4 irq_work_entry_raw irq_work_exit_raw
    5 x86_platform_ipi_entry_raw x86_platform_ipi_exit_raw
    6 thermal_apic_entry_raw thermal_apic_exit_raw
    7 threshold_apic_entry_raw threshold_apic_exit_raw
    8 deferred_error_apic_entry_raw deferred_error_apic_exit_raw
    9 error_apic_entry_raw error_apic_exit_raw
    10 spurious_apic_entry_raw spurious_apic_exit_raw
}
