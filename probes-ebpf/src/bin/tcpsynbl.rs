//! tcpsynbl: how many connections wait for accept() when one more completes its handshake, and how many may.
//!
//! `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock` make the socket of a new connection, and refuse to if the queue is full. For an
//! IPv4 client of an IPv6 listener the second one calls the first, with the same listener.
//!
//! Without them, the change of the new socket from LISTEN to SYN_RECV is seen: it was just copied from its listener, queue and
//! limit included. There is none where the queue is full; newer kernels drop the packet for a reason of its own then.
//!
//! Of the histograms there are two generations, of which programs use the one that the lowest bit of `CURRENT` names; user space
//! empties the other.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, MAPPED_WORD, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::tcpsynbl::{Config, Hist, SLOTS};
use probes_ebpf::emit::lost;
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::skb::{ETH_P_IP, ETH_P_IPV6, Skb};
use probes_ebpf::sock::{Sock, state};
use probes_ebpf::{atomic, setting};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { overflow: 0 };

/// Number of the interval; never 0.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
/// By limit. User space may set another size.
#[map]
static SUMS_0: HashMap<u32, Hist> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);
/// By limit, the other generation. User space may set another size.
#[map]
static SUMS_1: HashMap<u32, Hist> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// New connections whose ends are not known yet: addresses of their sockets. Each leaves the table when its state changes again.
#[map]
static YOUNG: HashMap<u64, u8> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// What a new limit begins with.
static EMPTY: Hist = Hist { slots: [0; SLOTS] };

/// How many bits a length has, at least one. By comparing: this machine cannot count zeros.
#[inline(always)]
fn bits(length: u32) -> usize {
    let (mut length, mut bits) = (length, 1);
    if length >= 1 << 16 {
        length >>= 16;
        bits += 16;
    }
    if length >= 1 << 8 {
        length >>= 8;
        bits += 8;
    }
    if length >= 1 << 4 {
        length >>= 4;
        bits += 4;
    }
    if length >= 1 << 2 {
        length >>= 2;
        bits += 2;
    }
    if length >= 1 << 1 {
        bits += 1;
    }
    bits
}

/// A connection that found so many others in a queue with this limit.
#[inline(always)]
fn add(length: u32, limit: u32) {
    if CURRENT.get(0).copied().unwrap_or(0) & 1 == 0 {
        add_to(&SUMS_0, length, limit);
    } else {
        add_to(&SUMS_1, length, limit);
    }
}

/// Adds to the histogram of this limit, made if there was none.
#[inline(always)]
fn add_to(table: &'static HashMap<u32, Hist>, length: u32, limit: u32) {
    let mut hist = table.get_ptr_mut(limit);
    if hist.is_none() {
        // Another CPU may have been faster.
        let empty: &'static Hist = &EMPTY;
        let _there_already = table.insert(limit, empty, u64::from(BPF_NOEXIST));
        hist = table.get_ptr_mut(limit);
    }
    let Some(hist) = hist else { return lost(Loss::MapFull) };
    // SAFETY: a map's value, whose words are aligned; programs change them by adding to them only.
    unsafe { atomic::add(&raw mut (*hist).slots[bits(length)], 1) };
}

/// Adds a sample of what a listener, or the socket just copied from it, says of the queue.
#[inline(always)]
fn add_of<A: Access>(sk: Sock<A>) {
    add(sk.waiting(), sk.most_waiting());
}

/// Whether both ends of a connection are asked for. `request` has them: it is, or begins as, a socket.
#[inline(always)]
fn keeps<A: Access>(listener: Sock<A>, request: Sock<A>) -> bool {
    filter::keeps_nobody(|| listener.cgroup())
        && (!filter::by_ends() || filter::keeps_ends(SockEnds { sk: request, lport: listener.num() }))
}

/// A handshake that is complete, with an IPv4 client.
#[inline(always)]
fn completes_v4<A: Access>(listener: *const u8, request: *const u8) {
    let (Some(listener), Some(request)) = (Sock::<A>::new(listener), Sock::<A>::new(request)) else { return };
    // Of an IPv6 listener it was seen already, or will not be.
    let is_first = filter::family() == AF_INET || listener.family() != AF_INET6;
    if is_first && keeps(listener, request) {
        add_of(listener);
    }
}

/// A handshake that is complete, with an IPv6 listener.
#[inline(always)]
fn completes_v6<A: Access>(listener: *const u8, request: *const u8) {
    let (Some(listener), Some(request)) = (Sock::<A>::new(listener), Sock::<A>::new(request)) else { return };
    if keeps(listener, request) {
        add_of(listener);
    }
}

// match-proto: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[fentry(function = "tcp_v4_syn_recv_sock")]
fn v4_fentry(ctx: FEntryContext) -> i32 {
    completes_v4::<Typed>(ctx.arg(0), ctx.arg(2));
    0
}

// match-proto: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[fentry(function = "tcp_v6_syn_recv_sock")]
fn v6_fentry(ctx: FEntryContext) -> i32 {
    completes_v6::<Typed>(ctx.arg(0), ctx.arg(2));
    0
}

// match-proto: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[kprobe]
fn v4_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(request)) = (ctx.arg(0), ctx.arg(2)) {
        completes_v4::<Probed>(sk, request);
    }
    0
}

// match-proto: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[kprobe]
fn v6_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(request)) = (ctx.arg(0), ctx.arg(2)) {
        completes_v6::<Probed>(sk, request);
    }
    0
}

/// The TCP socket whose state changes so, if it does.
#[inline(always)]
fn changes(ctx: &BtfTracePointContext, keeps: fn(i32, i32) -> bool) -> Option<Sock<Typed>> {
    if !keeps(ctx.arg(1), ctx.arg(2)) {
        return None;
    }
    Sock::<Typed>::new(ctx.arg(0)).filter(|sk| sk.is_tcp())
}

/// A socket was copied from its listener. Not one of a simultaneous open.
fn begins(old: i32, new: i32) -> bool {
    old == state::LISTEN && new == state::SYN_RECV
}

/// What is known of a new connection at once: its port, its namespace and its cgroup are the listener's.
#[inline(always)]
fn keeps_listener(sk: Sock<Typed>) -> bool {
    filter::keeps_nobody(|| sk.cgroup())
        && (filter::family() != AF_INET6 || sk.family() == AF_INET6)
        && filter::keeps_lport(sk.num())
        && filter::keeps_netns(|| sk.netns())
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn begins_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = changes(&ctx, begins)
        && keeps_listener(sk)
    {
        add_of(sk);
    }
    0
}

/// Whether the remote end is an IPv4 address.
#[inline(always)]
fn is_v4(sk: Sock<Typed>) -> bool {
    sk.family() != AF_INET6 || sk.is_v4_mapped()
}

/// A new connection whose ends are known by now.
#[inline(always)]
fn add_if_kept(sk: Sock<Typed>) {
    if (filter::family() != AF_INET || is_v4(sk)) && filter::keeps_ends_but_lport(sk) {
        add_of(sk);
    }
}

/// For what asks for an end: kernels before 6.18 write it into the socket after this first change of its state, and before
/// the second.
// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn ends_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) =
        changes(&ctx, |old, new| begins(old, new) || old == state::SYN_RECV && new != state::SYN_RECV)
    else {
        return 0;
    };
    if begins(ctx.arg(1), ctx.arg(2)) {
        if keeps_listener(sk) {
            if sk.rport() != 0 {
                add_if_kept(sk);
            } else if YOUNG.insert(sk.id(), 1, 0).is_err() {
                lost(Loss::MapFull);
            }
        }
    } else if YOUNG.get_ptr(sk.id()).is_some() {
        let _there = YOUNG.remove(sk.id());
        add_if_kept(sk);
    }
    0
}

/// `SYN` among the flags of a TCP header (RFC 9293 section 3.1).
const SYN: u8 = 1 << 1;

/// Four bytes of a header, as they lie there.
#[inline(always)]
fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// A packet that would have completed a handshake, dropped because the queue of `listener` is full.
#[inline(always)]
fn refused(skb: Skb<Typed>, listener: Sock<Typed>) {
    let family = listener.family();
    let header = skb.transport().read::<14>();
    if listener.state() != state::LISTEN
        || header[13] & SYN != 0
        || filter::family() == AF_INET6 && family != AF_INET6
        || !filter::keeps_nobody(|| listener.cgroup())
        || !filter::keeps_netns(|| listener.netns())
    {
        return;
    }
    let protocol = skb.protocol();
    if filter::family() == AF_INET && protocol != ETH_P_IP {
        return;
    }
    if filter::by_ends() {
        let mut tuple = Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family, zero: 0 };
        match protocol {
            ETH_P_IP => {
                let ip = skb.network().read::<20>();
                let (from, to) = (word(&ip, 12), word(&ip, 16));
                if family == AF_INET6 {
                    tuple.laddr = [0, 0, MAPPED_WORD, to];
                    tuple.raddr = [0, 0, MAPPED_WORD, from];
                } else {
                    tuple.laddr[0] = to;
                    tuple.raddr[0] = from;
                }
            }
            ETH_P_IPV6 => {
                let ip = skb.network().read::<40>();
                tuple.raddr = [word(&ip, 8), word(&ip, 12), word(&ip, 16), word(&ip, 20)];
                tuple.laddr = [word(&ip, 24), word(&ip, 28), word(&ip, 32), word(&ip, 36)];
            }
            _ => return,
        }
        tuple.rport = u16::from_be_bytes([header[0], header[1]]);
        tuple.lport = u16::from_be_bytes([header[2], header[3]]);
        if !filter::keeps_ends(&tuple) {
            return;
        }
    }
    // Since the kernel looked, somebody may have accepted one.
    let (length, limit) = (listener.waiting(), listener.most_waiting());
    add(if length > limit { length } else { limit.wrapping_add(1) }, limit);
}

// match-proto: void kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk) (since 6.11)
#[btf_tracepoint(function = "kfree_skb")]
fn refused_tp(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if reason == setting!(CONFIG.overflow)
        && let (Some(skb), Some(listener)) = (Skb::<Typed>::new(ctx.arg(0)), Sock::<Typed>::new(ctx.arg(3)))
    {
        refused(skb, listener);
    }
    0
}
