//! tcprtt: the smoothed round-trip time that TCP keeps of each connection, as it is at every segment that an established
//! connection receives; with `--min` the shortest one, once per connection, when it closes.
//!
//! `tcp:tcp_probe` (since 4.16) is the first thing that `tcp_rcv_established` does, so all rungs see the same segments, and
//! the value from before the segment. A time is added to a histogram in the kernel. Nothing is ever set to zero in that of
//! all addresses: user space compares. Of histograms by address there are two generations, of which programs use the one
//! that the lowest bit of `CURRENT` names; user space empties the other.
//!
//! A program runs per segment, so the ones of a run without options ask for none.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::loss::Loss;
use netbcc_common::tcprtt::{BY_LADDR, BY_NONE, Config, Event, Hist, Key, SLOTS};
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::filter::SockEnds;
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::sock::{Sock, TcpSock, ToTcp, state};
use probes_ebpf::{atomic, filter, setting, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { by: 0, milliseconds: 0 };

/// All addresses: one entry.
#[map]
static TOTAL: PerCpuArray<Hist> = PerCpuArray::with_max_entries(1, 0);

/// Number of the interval; never 0.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
/// By address. User space may set another size.
#[map]
static SUMS_0: HashMap<Key, Hist> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);
/// By address, the other generation. User space may set another size.
#[map]
static SUMS_1: HashMap<Key, Hist> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// What a new address begins with.
static EMPTY: Hist = Hist { slots: [0; SLOTS], sum_us: 0 };

/// What TCP says where nothing was measured.
const NEVER: u32 = u32::MAX;

/// How many bits a time has, at least one. By comparing: this machine cannot count zeros.
#[inline(always)]
fn bits(time: u32) -> usize {
    let (mut time, mut bits) = (time, 1);
    if time >= 1 << 16 {
        time >>= 16;
        bits += 16;
    }
    if time >= 1 << 8 {
        time >>= 8;
        bits += 8;
    }
    if time >= 1 << 4 {
        time >>= 4;
        bits += 4;
    }
    if time >= 1 << 2 {
        time >>= 2;
        bits += 2;
    }
    if time >= 1 << 1 {
        bits += 1;
    }
    bits
}

/// Adds a time in microseconds; [`NEVER`]: there is none.
#[inline(always)]
fn add(hist: *mut Hist, time_us: u32) {
    // SAFETY: a map's value, whose words are aligned; programs change them by adding to them only. One that is this CPU's own
    // may be changed by a program that interrupts this one here.
    unsafe {
        if time_us == NEVER {
            atomic::add(&raw mut (*hist).slots[0], 1);
            return;
        }
        atomic::add(&raw mut (*hist).sum_us, time_us.into());
        let time = if setting!(CONFIG.milliseconds) != 0 { time_us / 1000 } else { time_us };
        atomic::add(&raw mut (*hist).slots[bits(time)], 1);
    }
}

/// Adds to the histogram of all addresses.
#[inline(always)]
fn add_to_all(time_us: u32) {
    if let Some(hist) = TOTAL.get_ptr_mut(0) {
        add(hist, time_us);
    }
}

/// Adds to the histogram of this address, made if there was none.
#[inline(always)]
fn add_to_one(table: &'static HashMap<Key, Hist>, key: &Key, time_us: u32) {
    let mut hist = table.get_ptr_mut(key);
    if hist.is_none() {
        // Another CPU may have been faster.
        let empty: &'static Hist = &EMPTY;
        let _there_already = table.insert(key, empty, u64::from(BPF_NOEXIST));
        hist = table.get_ptr_mut(key);
    }
    match hist {
        Some(hist) => add(hist, time_us),
        None => lost(Loss::MapFull),
    }
}

/// Adds to the histogram that this socket belongs to.
#[inline(always)]
fn add_of<A: ToTcp>(sk: Sock<A>, time_us: u32) {
    let by = setting!(CONFIG.by);
    if by == BY_NONE {
        return add_to_all(time_us);
    }
    let family = sk.family();
    let mut key = Key { addr: [0; 4], family: family.into() };
    if by == BY_LADDR {
        sk.laddr(family, &mut key.addr);
    } else {
        sk.raddr(family, &mut key.addr);
    }
    if CURRENT.get(0).copied().unwrap_or(0) & 1 == 0 {
        add_to_one(&SUMS_0, &key, time_us);
    } else {
        add_to_one(&SUMS_1, &key, time_us);
    }
}

/// The smoothed round-trip time, in microseconds.
#[inline(always)]
fn smoothed_us<A: ToTcp>(tcp: TcpSock<A>) -> u32 {
    match tcp.srtt_us_8() {
        0 => NEVER,
        eighths => eighths >> 3,
    }
}

/// Whether a socket is asked for; its local port is known in several ways.
#[inline(always)]
fn keeps<A: ToTcp>(sk: Sock<A>, lport: impl FnOnce() -> u16) -> bool {
    (filter::family() == 0 || filter::keeps_family(sk.family()))
        && filter::keeps_nobody(|| sk.cgroup())
        && (!filter::by_ends() || filter::keeps_ends(SockEnds { sk, lport: lport() }))
}

/// A segment for any connection.
#[inline(always)]
fn segment_of_all<A: ToTcp>(sk: *const u8) {
    if let Some(tcp) = Sock::<A>::new(sk).and_then(A::tcp) {
        add_to_all(smoothed_us(tcp));
    }
}

/// A segment for a connection that may be asked for.
#[inline(always)]
fn segment_of_some<A: ToTcp>(sk: *const u8) {
    let Some(sk) = Sock::<A>::new(sk) else { return };
    if keeps(sk, || sk.num())
        && let Some(tcp) = A::tcp(sk)
    {
        add_of(sk, smoothed_us(tcp));
    }
}

// match-proto: void tcp_probe(const struct sock *sk, struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_probe")]
fn all_tp(ctx: BtfTracePointContext) -> i32 {
    segment_of_all::<Typed>(ctx.arg(0));
    0
}

// match-proto: void tcp_probe(const struct sock *sk, struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_probe")]
fn some_tp(ctx: BtfTracePointContext) -> i32 {
    segment_of_some::<Typed>(ctx.arg(0));
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_rcv_established")]
fn all_fentry(ctx: FEntryContext) -> i32 {
    segment_of_all::<Typed>(ctx.arg(0));
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_rcv_established")]
fn some_fentry(ctx: FEntryContext) -> i32 {
    segment_of_some::<Typed>(ctx.arg(0));
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn all_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        segment_of_all::<Probed>(sk);
    }
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn some_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        segment_of_some::<Probed>(sk);
    }
    0
}

/// A connection that closes, of which a round trip may have been measured, if it is asked for.
#[inline(always)]
fn closes(ctx: &BtfTracePointContext) -> Option<(Sock<Typed>, TcpSock<Typed>)> {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if new != state::CLOSE || matches!(old, state::CLOSE | state::LISTEN | state::SYN_SENT | state::SYN_RECV)
    {
        return None;
    }
    let sk = Sock::<Typed>::new(ctx.arg(0))?;
    if !sk.is_tcp() {
        return None;
    }
    let tcp = Typed::tcp(sk)?;
    // The port is released already.
    keeps(sk, || tcp.sport()).then_some((sk, tcp))
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn closes_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, tcp)) = closes(&ctx) {
        add_of(sk, tcp.rtt_min_us());
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn row_tp(ctx: BtfTracePointContext) -> i32 {
    let Some((sk, tcp)) = closes(&ctx) else { return 0 };
    let Some(mut event) = reserve::<Event>() else { return 0 };
    event.ts_ns = task::now_ns();
    sk.addrs(sk.family(), &mut event.tuple);
    event.tuple.lport = tcp.sport();
    event.tuple.rport = sk.rport();
    event.min_rtt_us = tcp.rtt_min_us();
    event.srtt_us_8 = tcp.srtt_us_8();
    event.netns = sk.netns();
    event.zero = 0;
    0
}
