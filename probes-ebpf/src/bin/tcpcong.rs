//! tcpcong: stays of connections in the states of TCP's congestion control.
//!
//! `tcp:tcp_cong_state_set` (since 5.19) stands before the state is stored, so the socket still has the one that it leaves: one
//! event tells a whole stay. It is also hit where nothing changes. Before 5.19 nothing but functions tells; there the state is
//! looked at whenever a segment comes (`tcp:tcp_probe`) or is sent again, right after what mostly changed it.
//!
//! When a connection began, and its stay under way, is kept with its socket. The sums of those that changed lie in a table, by
//! socket and beginning, so that a socket that is used again is another connection. Nothing is ever set to zero: user space
//! compares, and takes out what is closed. All of a connection's events come while its socket is locked.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use netbcc_common::addr::{AF_INET6, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::tcpcong::{Config, Flow, Kept, Key, SLOTS, STATES, Tracked};
use probes_ebpf::emit::lost;
use probes_ebpf::filter::SockEnds;
use probes_ebpf::mem::Typed;
use probes_ebpf::sock::{Sock, TcpSock, ToTcp, state};
use probes_ebpf::{atomic, filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { start_ns: 0, dist: 0, microseconds: 0, open: 0, zero: [0; 5] };

/// Where the tracepoint of changes is.
#[btf_map]
static SOCKETS: SkStorage<Kept> = SkStorage::new();

/// Where it is not: kernels before 5.11 keep nothing with a socket for such programs. By the socket's address, until it closes.
/// User space may set another size.
#[map]
static TABLE: HashMap<u64, Kept> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// User space may set another size.
#[map]
static FLOWS: HashMap<Key, Flow> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// How many connections are followed, by family.
#[map]
static TRACKED: PerCpuArray<Tracked> = PerCpuArray::with_max_entries(2, 0);

/// Histograms, one after the other: [`SLOTS`] counts per state.
#[map]
static DIST: PerCpuArray<u64> = PerCpuArray::with_max_entries(STATES as u32 * SLOTS, 0);

/// What a connection's sums begin with.
static EMPTY: Flow = Flow {
    closed: 0,
    tuple: Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 },
    sums_ns: [0; STATES],
    begin_ns: 0,
    since_ns: 0,
    changes: 0,
    first: 0,
    state: 0,
    netns: 0,
    from_start: 0,
};

/// Where it is kept what is known of a socket.
trait Keep {
    /// What there is.
    fn get(sk: Sock<Typed>) -> Option<&'static mut Kept>;
    /// What there is, made if there was nothing.
    fn get_or_zero(sk: Sock<Typed>) -> Option<&'static mut Kept>;
    /// Nothing is to be known any more.
    fn forget(sk: Sock<Typed>, kept: &mut Kept);
}

/// With the socket.
struct WithSocket;

impl Keep for WithSocket {
    #[inline(always)]
    fn get(sk: Sock<Typed>) -> Option<&'static mut Kept> {
        storage::get(&SOCKETS, sk)
    }
    #[inline(always)]
    fn get_or_zero(sk: Sock<Typed>) -> Option<&'static mut Kept> {
        storage::get_or_zero(&SOCKETS, sk)
    }
    #[inline(always)]
    fn forget(_: Sock<Typed>, kept: &mut Kept) {
        // The socket may connect again.
        kept.born_ns = 0;
    }
}

/// In a table.
struct InTable;

impl Keep for InTable {
    #[inline(always)]
    fn get(sk: Sock<Typed>) -> Option<&'static mut Kept> {
        storage::entry(&TABLE, sk.id())
    }
    #[inline(always)]
    fn get_or_zero(sk: Sock<Typed>) -> Option<&'static mut Kept> {
        storage::entry_or_zero(&TABLE, sk.id())
    }
    #[inline(always)]
    fn forget(sk: Sock<Typed>, _: &mut Kept) {
        let _gone_already = TABLE.remove(sk.id());
    }
}

/// Whether a connection is asked for.
#[inline(always)]
fn keeps(sk: Sock<Typed>) -> bool {
    filter::keeps_nobody(|| sk.cgroup())
        && (!filter::by_ends() || filter::keeps_ends(SockEnds { sk, lport: sk.num() }))
}

#[inline(always)]
fn tracked(sk: Sock<Typed>) -> Option<&'static mut Tracked> {
    storage::slot(&TRACKED, u32::from(sk.family() == AF_INET6))
}

/// A connection begins to be followed; its stay in `now_in` began at `since_ns`.
#[inline(always)]
fn begin(sk: Sock<Typed>, kept: &mut Kept, now_in: u32, since_ns: u64, now_ns: u64) {
    *kept = Kept { born_ns: now_ns, since_ns, state: now_in, changed: 0 };
    if let Some(tracked) = tracked(sk) {
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(&raw mut tracked.begun, 1) };
    }
}

/// The sums of a connection, made if there are none.
#[inline(always)]
fn flow(sk: Sock<Typed>, kept: &Kept) -> Option<&'static mut Flow> {
    let key = Key { sk: sk.id(), born_ns: kept.born_ns };
    if let Some(flow) = storage::entry(&FLOWS, key) {
        return Some(flow);
    }
    let empty: &'static Flow = &EMPTY;
    let _full = FLOWS.insert(key, empty, u64::from(BPF_NOEXIST));
    let Some(flow) = storage::entry(&FLOWS, key) else {
        lost(Loss::MapFull);
        return None;
    };
    sk.addrs(sk.family(), &mut flow.tuple);
    flow.tuple.lport = sk.num();
    flow.tuple.rport = sk.rport();
    flow.netns = sk.netns();
    flow.begin_ns = kept.since_ns;
    flow.since_ns = kept.since_ns;
    flow.first = kept.state;
    flow.state = kept.state;
    flow.from_start = (kept.since_ns != setting!(CONFIG.start_ns)).into();
    Some(flow)
}

/// A stay of a connection in `old` ends now.
#[inline(always)]
fn ends(kept: &Kept, old: u32, flow: Option<&'static mut Flow>, now_ns: u64) {
    let took_ns = (now_ns.wrapping_sub(kept.since_ns) as i64).max(0) as u64;
    if setting!(CONFIG.dist) != 0 {
        let value = took_ns / if setting!(CONFIG.microseconds) != 0 { 1000 } else { 1_000_000 };
        let slot = (u64::BITS - value.leading_zeros()).max(1);
        let nth = (old & (STATES as u32 - 1)) * SLOTS + slot;
        if let Some(count) = storage::slot(&DIST, nth) {
            // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
            unsafe { atomic::add(count, 1) };
        }
    } else if let Some(flow) = flow {
        let sum = &raw mut flow.sums_ns[old as usize & (STATES - 1)];
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(sum, took_ns) };
        flow.since_ns = now_ns;
    }
}

/// The sums, where they are wanted.
#[inline(always)]
fn flow_if_wanted(sk: Sock<Typed>, kept: &Kept) -> Option<&'static mut Flow> {
    if setting!(CONFIG.dist) != 0 { None } else { flow(sk, kept) }
}

/// A connection goes from one state to another.
#[inline(always)]
fn changes(sk: Sock<Typed>, kept: &mut Kept, old: u32, new: u32, now_ns: u64) {
    // A first stay is one in this state.
    kept.state = old;
    let flow = flow_if_wanted(sk, kept);
    let mut sums = flow;
    if let Some(flow) = &mut sums {
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(&raw mut flow.changes, 1) };
        flow.state = new;
    }
    ends(kept, old, sums, now_ns);
    kept.since_ns = now_ns;
    kept.state = new;
    kept.changed = 1;
}

/// When the stay began that a connection is in which was not followed so far.
#[inline(always)]
fn begun_at(sk: Sock<Typed>, now_ns: u64) -> u64 {
    match sk.state() {
        // A SYN or SYN-ACK is sent again: the connection begins here.
        state::SYN_SENT | state::SYN_RECV => now_ns,
        _ => setting!(CONFIG.start_ns),
    }
}

// match-proto: void tcp_cong_state_set(struct sock *sk, const u8 ca_state)
#[btf_tracepoint(function = "tcp_cong_state_set")]
fn set_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    let new: u8 = ctx.arg(1);
    let Some(tcp) = Typed::tcp(sk) else { return 0 };
    let (old, new) = (tcp.cong_state(), u32::from(new));
    // Where a socket is disconnected its ends are gone.
    if old == new || sk.state() == state::CLOSE || !keeps(sk) {
        return 0;
    }
    let Some(kept) = WithSocket::get_or_zero(sk) else {
        lost(Loss::MapFull);
        return 0;
    };
    let now_ns = task::now_ns();
    if kept.born_ns == 0 {
        begin(sk, kept, old, begun_at(sk, now_ns), now_ns);
    }
    changes(sk, kept, old, new, now_ns);
    0
}

/// Looks at which state a socket is in, where nothing tells that it changed.
#[inline(always)]
fn look(sk: Sock<Typed>, tcp: TcpSock<Typed>) {
    let new = tcp.cong_state();
    let kept = match InTable::get(sk) {
        Some(kept) if kept.born_ns != 0 => kept,
        _ => {
            // One that is not followed: it began before the run, or sends its SYN again.
            if new == 0 || !keeps(sk) {
                return;
            }
            let Some(kept) = InTable::get_or_zero(sk) else { return lost(Loss::MapFull) };
            let now_ns = task::now_ns();
            begin(sk, kept, 0, begun_at(sk, now_ns), now_ns);
            kept
        }
    };
    if kept.state != new {
        let old = kept.state;
        changes(sk, kept, old, new, task::now_ns());
    }
}

// match-proto: void tcp_probe(const struct sock *sk, struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_probe")]
fn came_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && let Some(tcp) = Typed::tcp(sk)
    {
        look(sk, tcp);
    }
    0
}

// match-proto: void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn again_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && let Some(tcp) = Typed::tcp(sk)
    {
        look(sk, tcp);
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    goes_to::<WithSocket>(ctx.arg(0), ctx.arg(2));
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_in_table_tp(ctx: BtfTracePointContext) -> i32 {
    goes_to::<InTable>(ctx.arg(0), ctx.arg(2));
    0
}

/// A socket goes to a TCP state.
#[inline(always)]
fn goes_to<K: Keep>(sk: *const u8, new: i32) {
    if new != state::ESTABLISHED && new != state::CLOSE {
        return;
    }
    let Some(sk) = Sock::<Typed>::new(sk) else { return };
    if !sk.is_tcp() {
        return;
    }
    if new == state::ESTABLISHED {
        established::<K>(sk);
    } else if let Some(kept) = K::get(sk)
        && kept.born_ns != 0
    {
        closed::<K>(sk, kept);
    }
}

#[inline(always)]
fn established<K: Keep>(sk: Sock<Typed>) {
    if !keeps(sk) {
        return;
    }
    let Some(kept) = K::get_or_zero(sk) else { return lost(Loss::MapFull) };
    if kept.born_ns == 0 {
        let now_ns = task::now_ns();
        begin(sk, kept, 0, now_ns, now_ns);
    }
    if setting!(CONFIG.open) != 0 && setting!(CONFIG.dist) == 0 {
        let _there_now = flow(sk, kept);
    }
}

#[inline(always)]
fn closed<K: Keep>(sk: Sock<Typed>, kept: &mut Kept) {
    let now_ns = task::now_ns();
    if kept.changed != 0 || setting!(CONFIG.open) != 0 {
        let key = Key { sk: sk.id(), born_ns: kept.born_ns };
        if setting!(CONFIG.dist) != 0 {
            ends(kept, kept.state, None, now_ns);
        } else if let Some(flow) = storage::entry(&FLOWS, key) {
            let closed = &raw mut flow.closed;
            ends(kept, kept.state, Some(flow), now_ns);
            // SAFETY: a word of a map's value, which is aligned. Told last: who reads it first has all sums.
            unsafe { atomic::add(closed, 1) };
        }
    }
    K::forget(sk, kept);
    if let Some(tracked) = tracked(sk) {
        // SAFETY: a word of a map's value, which is aligned; who writes it here adds to it.
        unsafe { atomic::add(&raw mut tracked.closed, 1) };
    }
}
