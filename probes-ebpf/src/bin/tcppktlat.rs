//! tcppktlat: one event per read of data that arrived, with the time from its arrival at the socket.
//!
//! An arrival is a segment with data at the entry of `tcp_rcv_established`, a read the entry of `tcp_rcv_space_adjust`, in the
//! reader's call. The tracepoints `tcp:tcp_probe` and `tcp:tcp_rcv_space_adjust` are the same moments. Both run while the
//! socket is locked, so nothing interrupts what is kept with it.
//!
//! How much data a segment has follows from the numbers that TCP keeps with it, without a look into the packet: its length is
//! that of the data and of a header of whole words, and a SYN and a FIN count as a byte each in its sequence numbers.
//!
//! The first arrival that counts is one that makes bytes readable: in order, and new. `rcv_nxt` is here still the one from
//! before the segment. Where nothing is left to read, what is kept is of no use: the data went in a way that was not seen, or
//! the socket has another connection since.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::loss::Loss;
use netbcc_common::tcppktlat::{Arrivals, Config, Event, details};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::skb::Skb;
use probes_ebpf::sock::{Sock, TcpSock, ToTcp};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { min_ns: 0, details: 0, first: 0 };

/// The thread to keep; 0: all.
#[unsafe(no_mangle)]
static TID: u32 = 0;

/// What arrived and was not looked at, for typed programs.
#[btf_map]
static ARRIVALS: SkStorage<Arrivals> = SkStorage::new();

/// What arrived and was not looked at, by the socket's address, for kprobes.
#[map]
static ARRIVALS_BY_SK: HashMap<u64, Arrivals> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where the arrivals at a socket are kept.
trait Kept: Owned + ToTcp {
    /// Those of `sk`, if there are any.
    fn get(sk: Sock<Self>) -> Option<&'static mut Arrivals>;
    /// Those of `sk`, made if there were none. `None`: there is no room.
    fn make(sk: Sock<Self>) -> Option<&'static mut Arrivals>;
    /// Forgets them, which are these.
    fn forget(sk: Sock<Self>, arrivals: &mut Arrivals);
}

impl Kept for Typed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Arrivals> {
        storage::get(&ARRIVALS, sk)
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Arrivals> {
        storage::get_or_zero(&ARRIVALS, sk)
    }
    #[inline(always)]
    fn forget(_: Sock<Self>, arrivals: &mut Arrivals) {
        // More will arrive; the memory stays with the socket until it is freed.
        *arrivals = Arrivals::default();
    }
}

impl Kept for Probed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Arrivals> {
        storage::entry(&ARRIVALS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Arrivals> {
        storage::entry_or_zero(&ARRIVALS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn forget(sk: Sock<Self>, _: &mut Arrivals) {
        let _gone_already = ARRIVALS_BY_SK.remove(sk.id());
    }
}

/// Whether this run asks for one of the [`details`].
#[inline(always)]
fn asks(detail: u32) -> bool {
    setting!(CONFIG.details) & detail != 0
}

/// Whether a socket is asked for. A connection keeps its ends, but a socket may get another connection.
#[inline(always)]
fn keeps<A: Kept>(sk: Sock<A>) -> bool {
    (filter::family() == 0 || filter::keeps_family(sk.family()))
        && (!filter::by_ends() || filter::keeps_ends(sk))
}

/// How many bytes of data a segment has that TCP is about to process.
#[inline(always)]
fn data_bytes<A: Kept>(skb: Skb<A>) -> u32 {
    /// A header's length is a multiple of this.
    const WORD: u32 = 4;
    let numbers = skb.tcp_end_seq().wrapping_sub(skb.tcp_seq());
    // What is over is its SYN and FIN.
    numbers.wrapping_sub(numbers.wrapping_sub(skb.bytes()) % WORD)
}

/// Whether the bytes from number `seq` on become readable by their arrival: no byte before them is missing, and the last one is
/// new.
#[inline(always)]
fn is_readable(seq: u32, bytes: u32, rcv_nxt: u32) -> bool {
    let ahead = seq.wrapping_sub(rcv_nxt) as i32;
    ahead <= 0 && ahead.wrapping_add(bytes as i32) > 0
}

/// A segment arrives at an established connection.
#[inline(always)]
fn arrives<A: Kept>(sk: Option<Sock<A>>, skb: Option<Skb<A>>) {
    let (Some(sk), Some(skb)) = (sk, skb) else { return };
    let bytes = data_bytes(skb);
    if bytes == 0 || !keeps(sk) {
        return;
    }
    // A row asks for both times, or for the last one only.
    let tcp = if asks(details::FIRST) { A::tcp(sk) } else { None };
    let Some(arrivals) = A::make(sk) else {
        lost(Loss::MapFull);
        return;
    };
    let now_ns = task::now_ns();
    if let Some(tcp) = tcp {
        let rcv_nxt = tcp.rcv_nxt();
        if tcp.copied_seq() == rcv_nxt {
            arrivals.first_ns = 0;
        }
        if arrivals.first_ns == 0 && is_readable(skb.tcp_seq(), bytes, rcv_nxt) {
            arrivals.first_ns = now_ns;
        }
    }
    arrivals.last_ns = now_ns;
}

/// How many bytes of data are left to read; a FIN that came has a number of its own, too.
#[inline(always)]
fn unread<A: Kept>(sk: Sock<A>, tcp: TcpSock<A>) -> u32 {
    let left = tcp.rcv_nxt().wrapping_sub(tcp.copied_seq());
    if left != 0 && sk.is_done() { left - 1 } else { left }
}

/// The current task took data, or looked at it.
#[inline(always)]
fn reads<A: Kept>(sk: Option<Sock<A>>) {
    let Some(sk) = sk else { return };
    let Some(kept) = A::get(sk) else { return };
    let arrivals = *kept;
    if arrivals.last_ns == 0 {
        return;
    }
    // Whoever it is: the data is no longer what nobody looked at.
    A::forget(sk, kept);
    let since_ns = if setting!(CONFIG.first) != 0 { arrivals.first_ns } else { arrivals.last_ns };
    let now_ns = task::now_ns();
    if since_ns == 0 || now_ns < since_ns || now_ns - since_ns < setting!(CONFIG.min_ns) {
        return;
    }
    let task = task::pid_tid();
    let (only, tid) = (setting!(TID), task as u32);
    if (only != 0 && only != tid) || !filter::keeps_task() || !keeps(sk) {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    event.ts_ns = now_ns;
    event.first_ns = arrivals.first_ns;
    event.last_ns = arrivals.last_ns;
    sk.addrs(sk.family(), &mut event.tuple);
    event.tuple.lport = sk.num();
    event.tuple.rport = sk.rport();
    event.pid = (task >> 32) as u32;
    event.tid = tid;
    event.unread = 0;
    if asks(details::UNREAD)
        && let Some(tcp) = A::tcp(sk)
    {
        event.unread = unread(sk, tcp);
    }
    event.netns = if asks(details::NETNS) { sk.netns() } else { 0 };
    task::comm_by::<A>(&mut event.comm);
}

// match-proto: void tcp_probe(const struct sock *sk, struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_probe")]
fn arrives_tp(ctx: BtfTracePointContext) -> i32 {
    arrives::<Typed>(Sock::new(ctx.arg(0)), Skb::new(ctx.arg(1)));
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn reads_tp(ctx: BtfTracePointContext) -> i32 {
    reads::<Typed>(Sock::new(ctx.arg(0)));
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_rcv_established")]
fn arrives_fentry(ctx: FEntryContext) -> i32 {
    arrives::<Typed>(Sock::new(ctx.arg(0)), Skb::new(ctx.arg(1)));
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[fentry(function = "tcp_rcv_space_adjust")]
fn reads_fentry(ctx: FEntryContext) -> i32 {
    reads::<Typed>(Sock::new(ctx.arg(0)));
    0
}

// match-proto: void tcp_rcv_established(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn arrives_kprobe(ctx: ProbeContext) -> u32 {
    arrives::<Probed>(ctx.arg(0).and_then(Sock::new), ctx.arg(1).and_then(Skb::new));
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[kprobe]
fn reads_kprobe(ctx: ProbeContext) -> u32 {
    reads::<Probed>(ctx.arg(0).and_then(Sock::new));
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn forget_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Probed>::new(ctx.arg(0)) {
        let _none_there = ARRIVALS_BY_SK.remove(sk.id());
    }
    0
}
