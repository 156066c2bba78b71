//! gethostlatency: one event per name that a program looked up by its C library: from the entry of getaddrinfo(),
//! gethostbyname() or gethostbyname2() to its return.
//!
//! A call is known by its thread and by where its stack began. One inside another (musl's gethostbyname() calls
//! gethostbyname2()) begins lower on the stack, and is no event of its own. Two probes of one call find the same place: two files of
//! an overlay may be one to the kernel, which then runs the programs of both. The first return takes the entry away, the second
//! finds none.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, pt_regs};
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user_str};
use aya_ebpf::macros::{btf_tracepoint, map, uprobe, uretprobe};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, ProbeContext, RetProbeContext};
use netbcc_common::Comm;
use netbcc_common::gethostlatency::{Config, Event, GETADDRINFO, GETHOSTBYNAME, GETHOSTBYNAME2, HOST_BYTES};
use netbcc_common::loss::Loss;
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { min_ns: 0, failed: 0, zero: 0 };

/// Set by user space before loading: 1 where the kernel tells a program at which of its places it runs.
#[unsafe(no_mangle)]
static TELLS_PLACE: u32 = 0;

/// A call under way.
#[derive(Clone, Copy)]
struct Call {
    start_ns: u64,
    /// The stack pointer at its entry.
    stack: u64,
    /// Where its name is, in the process's memory.
    host_at: u64,
    library: u32,
    function: u32,
    /// Without its NUL; negative: it was not in memory. As wide as it is, there is no padding.
    host_len: i64,
    comm: Comm,
    host: [u8; HOST_BYTES],
}

/// Calls under way, by thread.
#[map]
static CALLS: HashMap<u32, Call> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// How far the stack pointer of a return is above that of its entry: a call leaves its return address on the stack of x86-64,
/// and in a register of arm64.
const RETURN_BYTES: u64 = if cfg!(bpf_target_arch = "x86_64") { 8 } else { 0 };

/// The stack pointer of the process.
#[inline(always)]
fn stack(regs: *const pt_regs) -> u64 {
    #[cfg(bpf_target_arch = "x86_64")]
    // SAFETY: the context of this program, whose words it may load.
    unsafe {
        (*regs).rsp
    }
    #[cfg(bpf_target_arch = "aarch64")]
    // SAFETY: the context of this program, which the kernel lets it load as the registers of user space.
    unsafe {
        (*regs).sp
    }
}

/// Copies a name of the process; answers its length without the NUL, or a negative number.
#[inline(always)]
fn read_host(at: u64, to: &mut [u8; HOST_BYTES]) -> i32 {
    // SAFETY: exactly the bytes of `to`; the helper copes with any source.
    let len = unsafe { bpf_probe_read_user_str(to.as_mut_ptr().cast(), HOST_BYTES as u32, at as *const _) };
    // Kernels to 6.1 and a few after it answer 0 for an empty name, not 1.
    if len > 0 { len as i32 - 1 } else { len as i32 }
}

/// A function begins to look up the name that is its first argument.
#[inline(always)]
fn entered(ctx: &ProbeContext, function: u32) {
    let Some(host_at) = ctx.arg::<u64>(0) else { return };
    if host_at == 0 || !filter::keeps_task() {
        return;
    }
    let (tid, stack) = (task::pid_tid() as u32, stack(ctx.regs));
    // One that is kept and began higher is not over: this call is part of it. One that began lower never returned.
    if storage::entry(&CALLS, tid).is_some_and(|kept| kept.stack > stack) {
        return;
    }
    let mut call = Call {
        start_ns: 0,
        stack,
        host_at,
        library: place(ctx.regs),
        function,
        host_len: 0,
        comm: [0; 16],
        host: [0; HOST_BYTES],
    };
    call.host_len = read_host(host_at, &mut call.host).into();
    task::comm(&mut call.comm);
    call.start_ns = task::now_ns();
    if CALLS.insert(tid, call, 0).is_err() {
        lost(Loss::MapFull);
    }
}

/// At which of its places this program runs; 0: the kernel does not tell.
#[inline(always)]
fn place(regs: *mut pt_regs) -> u32 {
    if setting!(TELLS_PLACE) == 0 {
        return 0;
    }
    // SAFETY: the context of this program; kernels without the helper never come here.
    (unsafe { bpf_get_attach_cookie(regs.cast()) }) as u32
}

/// A function returns: `ret` is what its event says.
#[inline(always)]
fn left(ctx: &RetProbeContext, ret: i32) {
    let tid = task::pid_tid() as u32;
    let Some(call) = storage::entry(&CALLS, tid) else { return };
    if call.stack.wrapping_add(RETURN_BYTES) != stack(ctx.regs) {
        return;
    }
    let now_ns = task::now_ns();
    let latency_ns = now_ns.wrapping_sub(call.start_ns);
    if latency_ns >= setting!(CONFIG.min_ns) && (setting!(CONFIG.failed) == 0 || ret != 0) {
        send(call, tid, now_ns, latency_ns, ret);
    }
    let _gone_already = CALLS.remove(tid);
}

#[inline(always)]
fn send(call: &Call, tid: u32, now_ns: u64, latency_ns: u64, ret: i32) {
    let Some(mut event) = reserve::<Event>() else { return };
    event.ts_ns = now_ns;
    event.latency_ns = latency_ns;
    event.pid = task::pid();
    event.tid = tid;
    event.mntns = task::mntns();
    event.library = call.library;
    event.function = call.function;
    event.ret = ret;
    event.zero = 0;
    event.comm = call.comm;
    event.host = call.host;
    event.host_len = call.host_len as i32;
    if call.host_len < 0 {
        // Its page was not in memory yet; by now the library has read it.
        event.host_len = read_host(call.host_at, &mut event.host);
    }
}

/// What a function that answers a pointer returned.
#[inline(always)]
fn pointer(ctx: &RetProbeContext) -> i32 {
    if ctx.ret::<u64>() == 0 { -1 } else { 0 }
}

// match-proto: int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
#[uprobe]
fn gai_uprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, GETADDRINFO);
    0
}

#[uretprobe]
fn gai_uretprobe(ctx: RetProbeContext) -> u32 {
    left(&ctx, ctx.ret());
    0
}

// match-proto: struct hostent *gethostbyname(const char *name)
#[uprobe]
fn ghbn_uprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, GETHOSTBYNAME);
    0
}

#[uretprobe]
fn ghbn_uretprobe(ctx: RetProbeContext) -> u32 {
    left(&ctx, pointer(&ctx));
    0
}

// match-proto: struct hostent *gethostbyname2(const char *name, int af)
#[uprobe]
fn ghbn2_uprobe(ctx: ProbeContext) -> u32 {
    entered(&ctx, GETHOSTBYNAME2);
    0
}

#[uretprobe]
fn ghbn2_uretprobe(ctx: RetProbeContext) -> u32 {
    left(&ctx, pointer(&ctx));
    0
}

// match-proto: void sched_process_exit(struct task_struct *p)
#[btf_tracepoint(function = "sched_process_exit")]
fn exit_tp(_ctx: BtfTracePointContext) -> i32 {
    // Another thread will have its number.
    let _mostly_none = CALLS.remove(task::pid_tid() as u32);
    0
}

// match-proto: void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_tp(ctx: BtfTracePointContext) -> i32 {
    // It has another stack now, and a thread that was not its process's first one has another number.
    let _mostly_none = CALLS.remove(task::pid_tid() as u32);
    let _mostly_none = CALLS.remove(ctx.arg::<u32>(1));
    0
}
