//! tcptop: bytes that processes send and receive per TCP connection.
//!
//! Sent is what the kernel took, received what it handed out: the results of `tcp_sendmsg` (and of `tcp_sendpage`,
//! by which sendfile and splice sent before 6.5), `tcp_recvmsg` and `tcp_splice_read`. Kprobes see these calls begin, and
//! what they moved where they let go of the socket ([`calls`]).
//!
//! Without fentry and kprobes, `sock:sock_send_length` (since 6.3) tells what was sent, or else the results of the
//! system calls that send. What was received is then how far `copied_seq` went from one `tcp:tcp_rcv_space_adjust`
//! to the next, which every way to read calls. Of a socket that was connected before the start the first look tells
//! nothing: what that call received is known from `sock:sock_recv_length` at its end.
//!
//! A row of the interval lies in an array, and its socket keeps its place there: who moves bytes is only compared with
//! who is in it. Of the processes that share a socket, the one that receives first has a row for that and the one that
//! sends first has one; others, and programs that cannot keep anything with a socket, find theirs in a hash table.
//! User space adds up what belongs together.
//!
//! There are two generations of arrays and tables: programs use the one that the lowest bit of `CURRENT` names, the
//! number of the interval, and user space empties the other. A row is filled before its place is told, and not changed
//! after that but for its sums, which CPUs add to at the same time.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fexit, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext};
use netbcc_common::addr::{AF_INET6, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::sends::SendCalls;
use netbcc_common::tcptop::{Config, Kept, Key, ROWS, Row, Sum, Used};
use probes_ebpf::answer::answer;
use probes_ebpf::calls::{self, Moved, TAKES_NOTHING};
use probes_ebpf::emit::lost;
use probes_ebpf::filter::SockEnds;
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::sock::{Sock, ToTcp, is_inet, socket_sk, state};
use probes_ebpf::{atomic, filter, setting, storage, syscall, task};
use zerocopy::transmute;

#[unsafe(no_mangle)]
static CONFIG: Config = Config { sends: SendCalls::NONE, filters: 0, zero: 0 };

/// Number of the interval; never 0.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static USED: Array<Used> = Array::with_max_entries(2, 0);
#[map]
static ROWS_0: Array<Row> = Array::with_max_entries(ROWS, 0);
#[map]
static ROWS_1: Array<Row> = Array::with_max_entries(ROWS, 0);
/// User space may set another size.
#[map]
static SUMS_0: PerCpuHashMap<Key, Sum> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// User space may set another size.
#[map]
static SUMS_1: PerCpuHashMap<Key, Sum> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Calls under way, for kprobes.
#[map]
static CALLS: calls::Table = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Places of rows; and how far sockets were read, for tracepoints.
#[btf_map]
static SOCKETS: SkStorage<Kept> = SkStorage::new();

/// In which direction bytes moved.
#[derive(Clone, Copy)]
enum Way {
    Received = 0,
    Sent = 1,
}

impl Way {
    #[inline(always)]
    fn other(self) -> Self {
        match self {
            Self::Received => Self::Sent,
            Self::Sent => Self::Received,
        }
    }

    /// The sums of so many bytes.
    #[inline(always)]
    fn sum(self, bytes: u64) -> Sum {
        match self {
            Self::Received => Sum { rx_bytes: bytes, tx_bytes: 0 },
            Self::Sent => Sum { rx_bytes: 0, tx_bytes: bytes },
        }
    }
}

/// How a program counts.
trait Count: Owned {
    /// The current task moved so many bytes.
    fn moved(sk: Sock<Self>, way: Way, bytes: u64);
}

impl Count for Typed {
    #[inline(always)]
    fn moved(sk: Sock<Self>, way: Way, bytes: u64) {
        if keeps(sk) {
            count(sk, storage::get_or_zero(&SOCKETS, sk), way, bytes);
        }
    }
}

impl Count for Probed {
    #[inline(always)]
    fn moved(sk: Sock<Self>, way: Way, bytes: u64) {
        if keeps(sk) {
            count_in_table(sk, interval(), way, bytes);
        }
    }
}

/// Whether the current task and the family of this socket are asked for.
#[inline(always)]
fn keeps<A: ToTcp>(sk: Sock<A>) -> bool {
    // One question for all that nobody asked for: a constant, too, is loaded each time.
    setting!(CONFIG.filters) == 0
        || (filter::family() == 0 || filter::keeps_family(sk.family()))
            && filter::keeps_task()
            && (!filter::by_ends() || filter::keeps_ends(SockEnds { sk, lport: lport(sk) }))
}

#[inline(always)]
fn interval() -> u32 {
    CURRENT.get(0).copied().unwrap_or(0)
}

/// The current thread.
#[derive(Clone, Copy)]
struct Owner {
    pid: u32,
    comm: [u64; 2],
}

/// The current task moved so many bytes over a socket that keeps `kept`; without that, the kernel had no memory.
#[inline(always)]
fn count(sk: Sock<Typed>, kept: Option<&'static mut Kept>, way: Way, bytes: u64) {
    let now = interval();
    // The table at one place only, as most of what the verifier looks at.
    if !kept.is_some_and(|kept| count_in_rows(sk, kept, now, way, bytes)) {
        count_in_table(sk, now, way, bytes);
    }
}

/// Counts in a row; `false` if there is none that is right.
#[inline(always)]
fn count_in_rows(sk: Sock<Typed>, kept: &'static mut Kept, now: u32, way: Way, bytes: u64) -> bool {
    let owner = Owner { pid: task::pid(), comm: task::raw_comm() };
    let place = kept.rows[way as usize];
    if let Some(row) = row_of(sk, now, owner, place) {
        add_to_row(row, way, bytes);
        return true;
    }
    let other = kept.rows[way.other() as usize];
    if let Some(row) = row_of(sk, now, owner, other) {
        if !is_of(now, place) {
            kept.rows[way as usize] = other;
        }
        add_to_row(row, way, bytes);
        return true;
    }
    !is_of(now, place) && count_in_new_row(sk, kept, now, owner, way, bytes)
}

/// Whether `place` is one of this interval.
#[inline(always)]
fn is_of(now: u32, place: u64) -> bool {
    (place >> 32) as u32 == now
}

/// The row at `place`, if it is of this interval, of this thread and of the connection that `sk` has now.
#[inline(always)]
fn row_of(sk: Sock<Typed>, now: u32, owner: Owner, place: u64) -> Option<&'static Row> {
    if !is_of(now, place) {
        return None;
    }
    // SAFETY: what is behind a place is not changed but for the sums, which nobody reads here.
    let row = unsafe { &*row_at(now, place as u32)? };
    let same = row.pid == owner.pid
        && row.comm[0] == owner.comm[0]
        && row.comm[1] == owner.comm[1]
        && row.portpair == sk.portpair()
        && row.addrpair == sk.addrpair()
        && (row.family != u32::from(AF_INET6)
            || sk.is_between_v6([row.tuple[0], row.tuple[1]], [row.tuple[2], row.tuple[3]]));
    same.then_some(row)
}

#[inline(always)]
fn row_at(now: u32, index: u32) -> Option<*mut Row> {
    if now & 1 == 0 { ROWS_0.get_ptr_mut(index) } else { ROWS_1.get_ptr_mut(index) }
}

/// Adds to a row, to which others may be adding, too.
#[inline(always)]
fn add_to_row(row: &'static Row, way: Way, bytes: u64) {
    let sum = match way {
        Way::Received => &raw const row.sum.rx_bytes,
        Way::Sent => &raw const row.sum.tx_bytes,
    };
    // SAFETY: a word of a map's value, which is aligned, and which programs change by adding to it only.
    unsafe { atomic::add(sum.cast_mut(), bytes) };
}

/// Counts in a row of its own, whose place the socket then keeps; `false` if there is no room, or nothing to count.
#[inline(always)]
fn count_in_new_row(
    sk: Sock<Typed>,
    kept: &'static mut Kept,
    now: u32,
    owner: Owner,
    way: Way,
    bytes: u64,
) -> bool {
    let family = sk.family();
    if !is_inet(family) {
        return false;
    }
    let Some(used) = USED.get_ptr_mut(now & 1) else { return false };
    // SAFETY: a word of a map's value, which is aligned, and which programs change by adding to it only.
    let index = unsafe { atomic::fetch_add(&raw mut (*used).rows, 1) };
    if index >= u64::from(ROWS) {
        return false;
    }
    let Some(row) = row_at(now, index as u32) else { return false };
    let facts = Facts::of(sk);
    let filled = Row {
        tuple: transmute!(ends(sk, family)),
        pid: owner.pid,
        family: family.into(),
        comm: owner.comm,
        addrpair: sk.addrpair(),
        portpair: sk.portpair(),
        netns: facts.netns,
        cookie: facts.cookie,
        sum: way.sum(bytes),
    };
    // SAFETY: nobody else has this row in this interval before its place is told.
    unsafe { row.write(filled) };
    let place = &raw mut kept.rows[way as usize];
    // SAFETY: an aligned word. Told after the row is filled; where two CPUs are here at once, both rows count.
    unsafe { atomic::publish(place, u64::from(now) << 32 | index) };
    true
}

/// Both ends of the connection.
#[inline(always)]
fn ends<A: ToTcp>(sk: Sock<A>, family: u16) -> Tuple {
    let mut tuple =
        Tuple { laddr: [0; 4], raddr: [0; 4], lport: lport(sk), rport: sk.rport(), family, zero: 0 };
    sk.addrs(family, &mut tuple);
    tuple
}

/// Its local port.
#[inline(always)]
fn lport<A: ToTcp>(sk: Sock<A>) -> u16 {
    let held = sk.num();
    if held != 0 {
        return held;
    }
    // The connection is closed, and its port released, while somebody still reads what came before.
    A::tcp(sk).map_or(0, |tcp| tcp.sport())
}

/// Counts in the hash table.
#[inline(always)]
fn count_in_table<A: Owned>(sk: Sock<A>, now: u32, way: Way, bytes: u64) {
    let family = sk.family();
    if !is_inet(family) {
        return;
    }
    let Facts { cookie, netns, .. } = Facts::of(sk);
    let mut key = Key { tuple: ends(sk, family), pid: task::pid(), netns, comm: [0; 16], cookie };
    task::comm(&mut key.comm);
    if let Some(used) = USED.get_ptr_mut(now & 1) {
        // SAFETY: a word that programs only ever set to 1.
        unsafe { (*used).table = 1 };
    }
    let sum = way.sum(bytes);
    let added = if now & 1 == 0 { add(&SUMS_0, &key, sum) } else { add(&SUMS_1, &key, sum) };
    if !added {
        lost(Loss::MapFull);
    }
}

/// Adds to this CPU's sums of `key`; `false` if there is no room for them.
#[inline(always)]
fn add(table: &'static PerCpuHashMap<Key, Sum>, key: &Key, sum: Sum) -> bool {
    // Another CPU may have been faster.
    add_to(table, key, sum)
        || table.insert(key, sum, u64::from(BPF_NOEXIST)).is_ok()
        || add_to(table, key, sum)
}

/// Adds to this CPU's sums of `key`, if there are any.
#[inline(always)]
fn add_to(table: &'static PerCpuHashMap<Key, Sum>, key: &Key, sum: Sum) -> bool {
    let Some(to) = table.get_ptr_mut(key) else { return false };
    // SAFETY: words of a map's value, which are aligned, and which programs change by adding to them only. They are this
    // CPU's own, but another program of this object may interrupt this one here, or have the CPU meanwhile.
    unsafe {
        if sum.rx_bytes != 0 {
            atomic::add(&raw mut (*to).rx_bytes, sum.rx_bytes);
        }
        if sum.tx_bytes != 0 {
            atomic::add(&raw mut (*to).tx_bytes, sum.tx_bytes);
        }
    }
    true
}

/// A send that answered `result`.
#[inline(always)]
fn sent<A: Count>(sk: Sock<A>, result: i64) {
    if result > 0 {
        A::moved(sk, Way::Sent, result as u64);
    }
}

/// A receive that answered `result`.
#[inline(always)]
fn received<A: Count>(sk: Sock<A>, result: i64) {
    if result > 0 {
        A::moved(sk, Way::Received, result as u64);
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

/// Says so where there was no room to remember a call.
#[inline(always)]
fn remembered(done: bool) {
    if !done {
        lost(Loss::MapFull);
    }
}

/// The socket of a call that begins, if it is to be counted.
#[inline(always)]
fn begins_with(sk: Option<*const u8>) -> Option<Sock<Probed>> {
    sk.and_then(Sock::new).filter(|_| filter::keeps_task())
}

// match-proto: int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[kprobe]
fn send_kprobe(ctx: ProbeContext) -> u32 {
    remembered(calls::send_begins(&CALLS, begins_with(ctx.arg(0)).zip(ctx.arg(1))));
    0
}

// match-proto: int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags) (up to 6.4)
#[kprobe]
fn page_kprobe(ctx: ProbeContext) -> u32 {
    remembered(calls::page_begins(&CALLS, begins_with(ctx.arg(0)).zip(ctx.arg(3))));
    0
}

// match-proto: int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len) (the last one not since 6.18)
#[kprobe]
fn receive_kprobe(ctx: ProbeContext) -> u32 {
    receive_begins(&ctx, 3);
    0
}

// match-proto: int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int nonblock, int flags, int *addr_len) (before 5.19)
#[kprobe]
fn receive6_kprobe(ctx: ProbeContext) -> u32 {
    receive_begins(&ctx, 4);
    0
}

/// `tcp_recvmsg` begins; its flags are this argument.
#[inline(always)]
fn receive_begins(ctx: &ProbeContext, flags: usize) {
    let call = match (begins_with(ctx.arg(0)), ctx.arg(1), ctx.arg(2), ctx.arg(flags)) {
        (Some(sk), Some(message), Some(size), Some(flags)) => Some((sk, message, size, flags)),
        _ => None,
    };
    remembered(calls::receive_begins(&CALLS, call));
}

// match-proto: int skb_splice_bits(struct sk_buff *skb, struct sock *sk, unsigned int offset, struct pipe_inode_info *pipe, unsigned int tlen, unsigned int flags)
#[kprobe]
fn splice_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = begins_with(ctx.arg(1))
        && sk.is_tcp()
        && sk.is_stream()
    {
        remembered(calls::splices(&CALLS, sk));
    }
    0
}

// match-proto: int sk_wait_data(struct sock *sk, long *timeo, const struct sk_buff *skb)
#[kprobe]
fn wait_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::new) {
        calls::waits(&CALLS, sk);
    }
    0
}

// match-proto: void release_sock(struct sock *sk)
#[kprobe]
fn release_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        let Moved { received, sent } = calls::released(&CALLS, sk);
        // A thread holds a socket for one call at a time. The table at one place only, as most of what the verifier looks at.
        let (way, bytes) = if sent != 0 { (Way::Sent, sent) } else { (Way::Received, received) };
        if bytes != 0 {
            Probed::moved(sk, way, bytes);
        }
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
    let Some(kept) = storage::get_or_zero(&SOCKETS, sk) else {
        lost(Loss::MapFull);
        return 0;
    };
    let bytes = u64::from(seq.wrapping_sub(kept.seq));
    kept.seq = seq;
    if kept.is_known == 0 {
        kept.is_known = 1;
        kept.is_new = 1;
        return 0;
    }
    // Alone: TCP calls this with the socket locked, and it is the only program that writes this word.
    kept.counted = kept.counted.wrapping_add(bytes);
    if bytes != 0 && keeps(sk) {
        count(sk, Some(kept), Way::Received, bytes);
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
        && let Some(kept) = storage::get(&SOCKETS, sk)
        && kept.is_new != 0
    {
        kept.is_new = 0;
        let counted = kept.counted;
        if result as u64 > counted && keeps(sk) {
            // Once in a socket's life, so in the table: this program is small then.
            count_in_table(sk, interval(), Way::Received, result as u64 - counted);
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
        if let Some(kept) = storage::get_or_zero(&SOCKETS, sk) {
            kept.seq = tcp.copied_seq();
            kept.is_known = 1;
            kept.is_new = 0;
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
