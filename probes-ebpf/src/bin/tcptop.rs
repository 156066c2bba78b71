//! tcptop: bytes that processes send and receive per TCP connection.
//!
//! Sent is what the kernel took, received what it handed out: the results of `tcp_sendmsg` (and of `tcp_sendpage`,
//! by which sendfile and splice sent before 6.5), `tcp_recvmsg` and `tcp_splice_read`.
//!
//! Without fentry and kprobes, `sock:sock_send_length` (since 6.3) tells what was sent, or else the results of the
//! system calls that send. What was received is then how far `copied_seq` went from one `tcp:tcp_rcv_space_adjust`
//! to the next, which every way to read calls. Of a socket that was connected before the start the first look tells
//! nothing: what that call received is known from `sock:sock_recv_length` at its end.
//!
//! There are two tables of sums, of which `CURRENT` names the one to use; user space empties the other.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{Array, CgroupArray, HashMap, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::addr::Tuple;
use netbcc_common::loss::Loss;
use netbcc_common::sends::SendCalls;
use netbcc_common::tcptop::{Config, Key, Read, Sum};
use probes_ebpf::answer::answer;
use probes_ebpf::emit::lost;
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::sock::{Sock, ToTcp, is_inet, socket_sk, state};
use probes_ebpf::{filter, setting, storage, syscall, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { sends: SendCalls::NONE, by_group: 0 };

/// Which table of sums to use: 0 or 1.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static SUMS_0: PerCpuHashMap<Key, Sum> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
static SUMS_1: PerCpuHashMap<Key, Sum> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The cgroup of `--cgroup`.
#[map]
static GROUP: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// Sockets of calls under way, for kretprobes: by thread, and by which function it is in.
#[map]
static CALLS: HashMap<u64, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// How far sockets were read, for tracepoints.
#[btf_map]
static READ: SkStorage<Read> = SkStorage::new();

/// Flags of a receive that takes nothing out of the socket's queue: `MSG_PEEK` and `MSG_ERRQUEUE`.
const TAKES_NOTHING: i32 = 0x2 | 0x2000;

/// Whether the current task is asked for.
#[inline(always)]
fn keeps_task() -> bool {
    filter::keeps_task()
        && (setting!(CONFIG.by_group) == 0 || matches!(GROUP.current_task_under_cgroup(0), Ok(true)))
}

/// The current task received and sent so much.
#[inline(always)]
fn moved<A: ToTcp>(sk: Sock<A>, rx_bytes: u64, tx_bytes: u64) {
    let family = sk.family();
    if !is_inet(family) || !filter::keeps_family(family) || !keeps_task() {
        return;
    }
    let mut key = Key {
        tuple: Tuple { laddr: [0; 4], raddr: [0; 4], lport: sk.num(), rport: sk.rport(), family, zero: 0 },
        pid: task::pid(),
        zero: 0,
        comm: [0; 16],
    };
    sk.addrs(family, &mut key.tuple);
    if key.tuple.lport == 0
        && let Some(tcp) = A::tcp(sk)
    {
        // The connection is closed, and its port released, while somebody still reads what came before.
        key.tuple.lport = tcp.sport();
    }
    task::comm(&mut key.comm);
    let second = CURRENT.get(0).is_some_and(|current| *current != 0);
    let added =
        if second { add(&SUMS_1, &key, rx_bytes, tx_bytes) } else { add(&SUMS_0, &key, rx_bytes, tx_bytes) };
    if !added {
        lost(Loss::MapFull);
    }
}

/// Adds to this CPU's sums of `key`; `false` if there is no room for them.
#[inline(always)]
fn add(table: &'static PerCpuHashMap<Key, Sum>, key: &Key, rx_bytes: u64, tx_bytes: u64) -> bool {
    if add_to(table, key, rx_bytes, tx_bytes) {
        return true;
    }
    let sum = Sum { rx_bytes, tx_bytes };
    // Another CPU may have been faster.
    table.insert(key, sum, u64::from(BPF_NOEXIST)).is_ok() || add_to(table, key, rx_bytes, tx_bytes)
}

/// Adds to this CPU's sums of `key`, if there are any.
#[inline(always)]
fn add_to(table: &'static PerCpuHashMap<Key, Sum>, key: &Key, rx_bytes: u64, tx_bytes: u64) -> bool {
    let Some(sum) = table.get_ptr_mut(key) else { return false };
    // SAFETY: this CPU's own value, which lives while this program runs. The kernel runs no program inside itself on
    // one CPU, and what receives writes another word than what sends.
    unsafe {
        if rx_bytes != 0 {
            (*sum).rx_bytes += rx_bytes;
        }
        if tx_bytes != 0 {
            (*sum).tx_bytes += tx_bytes;
        }
    }
    true
}

/// A send that answered `result`.
#[inline(always)]
fn sent<A: ToTcp>(sk: Sock<A>, result: i64) {
    if result > 0 {
        moved(sk, 0, result as u64);
    }
}

/// A receive that answered `result`.
#[inline(always)]
fn received<A: ToTcp>(sk: Sock<A>, result: i64) {
    if result > 0 {
        moved(sk, result as u64, 0);
    }
}

// match-proto: int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[fexit(function = "tcp_sendmsg")]
fn send_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        sent(sk, (answer(&ctx) as i32).into());
    }
    0
}

// match-proto: int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags) (up to 6.4)
#[fexit(function = "tcp_sendpage")]
fn page_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        sent(sk, (answer(&ctx) as i32).into());
    }
    0
}

// match-proto: int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len) (the last one not since 6.18)
#[fexit(function = "tcp_recvmsg")]
fn receive_fexit(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) & TAKES_NOTHING == 0
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
    {
        received(sk, (answer(&ctx) as i32).into());
    }
    0
}

// match-proto: ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)
#[fexit(function = "tcp_splice_read")]
fn splice_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = socket_sk::<Typed>(ctx.arg(0)) {
        received(sk, answer(&ctx) as i64);
    }
    0
}

/// The function that a thread is in.
const SENDS: u64 = 0;
const SENDS_PAGE: u64 = 1;
const RECEIVES: u64 = 2;
const SPLICES: u64 = 3;

#[inline(always)]
fn call(function: u64) -> u64 {
    (task::pid_tid() & 0xffff_ffff) << 2 | function
}

/// `function` begins with `sk`; with none, it is not to be counted.
#[inline(always)]
fn entered(function: u64, sk: Option<Sock<Probed>>) {
    match sk {
        Some(sk) if keeps_task() => {
            if CALLS.insert(call(function), sk.id(), 0).is_err() {
                lost(Loss::MapFull);
            }
        }
        _ => {
            // What an end that the kernel skipped may have left there.
            let _nothing = CALLS.remove(call(function));
        }
    }
}

/// `function` ends; the socket with which it began.
#[inline(always)]
fn left(function: u64) -> Option<Sock<Probed>> {
    let sk = *storage::entry(&CALLS, call(function))?;
    let _gone_already = CALLS.remove(call(function));
    Sock::new(sk as *const u8)
}

// match-proto: int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[kprobe]
fn send_kprobe(ctx: ProbeContext) -> u32 {
    entered(SENDS, ctx.arg(0).and_then(Sock::new));
    0
}

#[kretprobe]
fn send_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = left(SENDS) {
        sent(sk, ctx.ret::<i32>().into());
    }
    0
}

// match-proto: int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags) (up to 6.4)
#[kprobe]
fn page_kprobe(ctx: ProbeContext) -> u32 {
    entered(SENDS_PAGE, ctx.arg(0).and_then(Sock::new));
    0
}

#[kretprobe]
fn page_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = left(SENDS_PAGE) {
        sent(sk, ctx.ret::<i32>().into());
    }
    0
}

// match-proto: int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len) (the last one not since 6.18)
#[kprobe]
fn receive_kprobe(ctx: ProbeContext) -> u32 {
    let takes = ctx.arg::<i32>(3).is_some_and(|flags| flags & TAKES_NOTHING == 0);
    entered(RECEIVES, if takes { ctx.arg(0).and_then(Sock::new) } else { None });
    0
}

#[kretprobe]
fn receive_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = left(RECEIVES) {
        received(sk, ctx.ret::<i32>().into());
    }
    0
}

// match-proto: ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)
#[kprobe]
fn splice_kprobe(ctx: ProbeContext) -> u32 {
    entered(SPLICES, ctx.arg(0).and_then(socket_sk));
    0
}

#[kretprobe]
fn splice_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = left(SPLICES) {
        received(sk, ctx.ret::<i64>());
    }
    0
}

// match-proto: void sock_send_length(struct sock *sk, int ret, int flags) (since 6.3)
#[btf_tracepoint(function = "sock_send_length")]
fn sent_tp(ctx: BtfTracePointContext) -> i32 {
    let result: i32 = ctx.arg(1);
    if result > 0
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && sk.is_stream()
    {
        sent(sk, result.into());
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn read_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    let Some(tcp) = Typed::tcp(sk) else { return 0 };
    let seq = tcp.copied_seq();
    if let Some(read) = storage::get(&READ, sk) {
        let bytes = u64::from(seq.wrapping_sub(read.seq));
        read.seq = seq;
        read.counted = read.counted.wrapping_add(bytes);
        if bytes != 0 {
            moved(sk, bytes, 0);
        }
    } else if let Some(read) = storage::get_or_zero(&READ, sk) {
        read.seq = seq;
        read.is_new = 1;
    } else {
        lost(Loss::MapFull);
    }
    0
}

// match-proto: void sock_recv_length(struct sock *sk, int ret, int flags) (since 6.3)
#[btf_tracepoint(function = "sock_recv_length")]
fn received_tp(ctx: BtfTracePointContext) -> i32 {
    let (result, flags): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if result > 0
        && flags & TAKES_NOTHING == 0
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && sk.is_stream()
        && let Some(read) = storage::get(&READ, sk)
        && read.is_new != 0
    {
        read.is_new = 0;
        if result as u64 > read.counted {
            moved(sk, result as u64 - read.counted, 0);
        }
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if ctx.arg::<i32>(2) == state::ESTABLISHED
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && let Some(tcp) = Typed::tcp(sk)
    {
        if let Some(read) = storage::get_or_zero(&READ, sk) {
            read.seq = tcp.copied_seq();
            read.is_new = 0;
        } else {
            lost(Loss::MapFull);
        }
    }
    0
}

// match-proto: void sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
fn call_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, bytes)) = syscall::sent(ctx.arg(0), ctx.arg(1), || setting!(CONFIG.sends)) {
        sent(sk, bytes);
    }
    0
}
