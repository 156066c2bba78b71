//! tcpsynbl: how many connections wait for accept() when one more completes its handshake, and how many may.
//!
//! `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock` make the socket of a new connection, and refuse to if the queue is full. For an
//! IPv4 client of an IPv6 listener the second one calls the first, with the same listener.
//!
//! Without them, the change of the new socket from LISTEN to SYN_RECV is seen: it was just copied from its listener, queue and
//! limit included. There is none where the queue is full; newer kernels drop the packet for a reason of its own then.
//!
//! With `--listeners` there is no histogram: what each listener took and refused is summed in a table by its address, and an iterator
//! over open files writes there what its queue is, who has it open, and what the sums are at that moment. SYNs that find a full queue are seen where
//! `tcp_conn_request` begins; without that and the functions above, what a listener dropped is read from it.
//!
//! Of the histograms there are two generations, of which programs use the one that the lowest bit of `CURRENT` names; user space
//! empties the other.
#![no_std]
#![no_main]

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, MAPPED_WORD, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::socket::asked::IN_TABLE;
use netbcc_common::tcpsynbl::{Config, Counts, Hist, Listener, SLOTS};
use probes_ebpf::emit::lost;
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::iter::{Holder, OverFiles};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::owner::{Owned, SOCKET_FACTS};
use probes_ebpf::skb::{ETH_P_IP, ETH_P_IPV6, Skb};
use probes_ebpf::sock::{Sock, is_inet, state};
use probes_ebpf::storage::{self, Inherited};
use probes_ebpf::{atomic, setting, syscall, task};

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

/// Listeners by their addresses. User space may set another size, and takes out those whose end nobody saw.
#[map]
static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Listeners that ended, by their addresses and by when they came to be known. User space takes them out.
#[map]
static GONE: HashMap<[u64; 2], Listener> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// The address of a listener. A new connection inherits it, and loses it when it is counted.
#[btf_map]
static OF_LISTENER: Inherited<u64> = Inherited::new();

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

/// Whether a listener is asked for.
#[inline(always)]
fn keeps_listening<A: Access>(sk: Sock<A>) -> bool {
    filter::keeps_family(sk.family())
        && filter::keeps_nobody(|| sk.cgroup())
        && (!filter::by_ends() || filter::keeps_ends(SockEnds { sk, lport: sk.num() }))
}

/// What a new listener begins with.
static NOTHING: Listener = Listener {
    born_ns: 0,
    counts: Counts { accepted: 0, early: 0, late: 0 },
    then: Counts { accepted: 0, early: 0, late: 0 },
    cookie: 0,
    tuple: Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 },
    longest: [0; 2],
    intervals: [0; 2],
    seen: 0,
    queue: 0,
    limit: 0,
    peak: 0,
    drops: 0,
    base: 0,
    netns: 0,
    holders: 0,
    pid: 0,
    last: 0,
    inside: 0,
    kept: 0,
    whole: 0,
    marked: 0,
    closed: 0,
    zero: 0,
    comm: [0; 16],
};

/// What is known of a listener, made if there was nothing.
#[inline(always)]
fn listening<A: Access>(sk: Sock<A>) -> Option<&'static mut Listener> {
    if let Some(known) = storage::entry(&LISTENERS, sk.id()) {
        return Some(known);
    }
    // Another CPU may have been faster.
    let nothing: &'static Listener = &NOTHING;
    let _there_already = LISTENERS.insert(sk.id(), nothing, u64::from(BPF_NOEXIST));
    let Some(new) = storage::entry(&LISTENERS, sk.id()) else {
        lost(Loss::MapFull);
        return None;
    };
    new.born_ns = task::now_ns();
    new.base = sk.drops();
    new.drops = new.base;
    describe(sk, new);
    Some(new)
}

/// Writes what a listener says of itself.
#[inline(always)]
fn describe<A: Access>(sk: Sock<A>, to: &mut Listener) {
    let family = sk.family();
    sk.laddr(family, &mut to.tuple.laddr);
    to.tuple.family = family;
    to.tuple.lport = sk.num();
    to.netns = sk.netns();
    to.limit = sk.most_waiting();
    to.kept = u32::from(keeps_listening(sk));
}

/// A queue was so long.
#[inline(always)]
fn was(listener: &mut Listener, length: u32) {
    let now = CURRENT.get(0).copied().unwrap_or(0);
    let nth = (now & 1) as usize;
    if listener.intervals[nth] != now {
        listener.intervals[nth] = now;
        listener.longest[nth] = length;
    } else if listener.longest[nth] < length {
        listener.longest[nth] = length;
    }
}

/// A handshake that found the queue so long.
#[inline(always)]
fn ended(listener: &mut Listener, length: u32, limit: u32) {
    let (count, length) = if length > limit {
        (&raw mut listener.counts.late, length)
    } else {
        (&raw mut listener.counts.accepted, length + 1)
    };
    // SAFETY: a word of a map's value, which is aligned; programs change it by adding to it only.
    unsafe { atomic::add(count, 1) };
    was(listener, length);
}

/// A SYN came for `sk`.
#[inline(always)]
fn asked<A: Access>(sk: *const u8) {
    if let Some(sk) = Sock::<A>::new(sk)
        && sk.waiting() > sk.most_waiting()
        && keeps_listening(sk)
        && let Some(listener) = listening(sk)
    {
        // SAFETY: a word of a map's value, which is aligned; programs change it by adding to it only.
        unsafe { atomic::add(&raw mut listener.counts.early, 1) };
        was(listener, sk.waiting());
    }
}

/// The third packet of a handshake came for `sk`. `v4`: the listener may be of IPv6, and then is seen elsewhere.
#[inline(always)]
fn answered<A: Access>(sk: *const u8, v4: bool) {
    if let Some(sk) = Sock::<A>::new(sk)
        && !(v4 && sk.family() == AF_INET6)
        && keeps_listening(sk)
        && let Some(listener) = listening(sk)
    {
        ended(listener, sk.waiting(), sk.most_waiting());
    }
}

// match-proto: int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_conn_request")]
fn asked_fentry(ctx: FEntryContext) -> i32 {
    asked::<Typed>(ctx.arg(2));
    0
}

// match-proto: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[fentry(function = "tcp_v4_syn_recv_sock")]
fn answered_v4_fentry(ctx: FEntryContext) -> i32 {
    answered::<Typed>(ctx.arg(0), true);
    0
}

// match-proto: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[fentry(function = "tcp_v6_syn_recv_sock")]
fn answered_v6_fentry(ctx: FEntryContext) -> i32 {
    answered::<Typed>(ctx.arg(0), false);
    0
}

// match-proto: int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn asked_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(2) {
        asked::<Probed>(sk);
    }
    0
}

// match-proto: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[kprobe]
fn answered_v4_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        answered::<Probed>(sk, true);
    }
    0
}

// match-proto: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
#[kprobe]
fn answered_v6_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        answered::<Probed>(sk, false);
    }
    0
}

/// The listener at this address is no more. It waits for its last row, if there is anything to say of it: not where listen()
/// failed.
#[inline(always)]
fn is_gone(at: u64, known: &Listener) {
    let Counts { accepted, early, late } = known.counts;
    let has_row = known.seen != 0 || accepted | early | late != 0 || known.drops != known.base;
    if has_row && GONE.insert([at, known.born_ns], known, 0).is_err() {
        lost(Loss::MapFull);
    }
    let _there = LISTENERS.remove(at);
}

/// A socket begins or ends to listen. Answers what is known of it if it begins.
#[inline(always)]
fn listens(sk: Sock<Typed>, old: i32, new: i32) -> Option<&'static mut Listener> {
    let begins = new == state::LISTEN;
    if (begins || old == state::LISTEN && new == state::CLOSE)
        && let Some(known) = storage::entry(&LISTENERS, sk.id())
    {
        // At its beginning what is known is of another one at this address, whose end was not seen.
        if !begins {
            known.drops = sk.drops();
            known.closed = 1;
        }
        is_gone(sk.id(), known);
    }
    if !begins {
        return None;
    }
    let listener = listening(sk)?;
    listener.whole = 1;
    Some(listener)
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn listens_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = changes(&ctx, |old, new| old == state::LISTEN || new == state::LISTEN) {
        listens(sk, ctx.arg(1), ctx.arg(2));
    }
    0
}

/// Also counts the connections that a listener takes: each is a copy of it, with its queue and with what is kept for it.
// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inherits_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = changes(&ctx, |old, new| old == state::LISTEN || new == state::LISTEN) else { return 0 };
    if !begins(ctx.arg(1), ctx.arg(2)) {
        if let Some(listener) = listens(sk, ctx.arg(1), ctx.arg(2)) {
            mark(sk, listener);
        }
        return 0;
    }
    let Some(&mut of) = storage::get(&OF_LISTENER, sk) else { return 0 };
    storage::delete(&OF_LISTENER, sk);
    if let Some(listener) = storage::entry(&LISTENERS, of) {
        ended(listener, sk.waiting(), sk.most_waiting());
    }
    0
}

/// Lets connections know which listener they are of.
#[inline(always)]
fn mark(sk: Sock<Typed>, listener: &mut Listener) {
    match storage::get_or_zero(&OF_LISTENER, sk) {
        Some(of) => {
            *of = sk.id();
            listener.marked = 1;
        }
        None => lost(Loss::MapFull),
    }
}

/// A handshake that is refused at its third packet.
// match-proto: void kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk) (since 6.11)
#[btf_tracepoint(function = "kfree_skb")]
fn late_tp(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if reason != setting!(CONFIG.overflow) {
        return 0;
    }
    if let (Some(skb), Some(sk)) = (Skb::<Typed>::new(ctx.arg(0)), Sock::<Typed>::new(ctx.arg(3)))
        && sk.state() == state::LISTEN
        && skb.transport().read::<14>()[13] & SYN == 0
        && let Some(listener) = listening(sk)
    {
        let limit = sk.most_waiting();
        ended(listener, limit.wrapping_add(1), limit);
    }
    0
}

/// What it did by now.
#[inline(always)]
fn counts_of(listener: &Listener) -> Counts {
    let Counts { accepted, early, late } = &listener.counts;
    // SAFETY: words of a map's value, which are aligned. Volatile: they are read in this order, and before what comes after.
    unsafe {
        Counts { accepted: read_volatile(accepted), early: read_volatile(early), late: read_volatile(late) }
    }
}

/// A process has a listener open. Answers what is known of it, if it is one.
#[inline(always)]
fn looks<A: Owned>(sk: Sock<A>, holder: Holder) -> Option<&'static mut Listener> {
    if !is_inet(sk.family()) || !sk.is_stream() || !sk.is_tcp() || sk.state() != state::LISTEN {
        return None;
    }
    let listener = listening(sk)?;
    let (pid, now) = (holder.pid(), CURRENT.get(0).copied().unwrap_or(0));
    if listener.seen != now {
        listener.seen = now;
        listener.peak = 0;
        listener.holders = 0;
        listener.pid = 0;
        listener.last = 0;
        listener.inside = 0;
    }
    // All descriptors of a process come one after the other.
    if listener.last != pid {
        listener.last = pid;
        // Alone: one walk after the other has the tool go through open files.
        listener.holders += 1;
        if listener.inside == 0 && holder.netns() == listener.netns {
            listener.inside = pid;
        }
        // The first process has what it will give to another.
        if listener.pid == 0 || listener.pid == 1 || pid != 1 && pid < listener.pid {
            listener.pid = pid;
            holder.comm(&mut listener.comm);
        }
    }
    describe(sk, listener);
    listener.cookie = A::cookie(sk);
    // All of one moment. Counts come first: what was refused late by then has its two drops by then.
    listener.then = counts_of(listener);
    listener.drops = sk.drops();
    listener.queue = sk.waiting();
    let nth = (now & 1) as usize;
    if listener.intervals[nth] == now {
        if listener.peak < listener.longest[nth] {
            listener.peak = listener.longest[nth];
        }
        listener.intervals[nth] = 0;
    }
    Some(listener)
}

/// The listener below an MPTCP socket.
#[inline(always)]
fn looks_below<A: Owned>(sk: Sock<A>, holder: Holder) {
    if sk.is_mptcp()
        && let Some(first) = sk.first_subflow()
    {
        looks(first, holder);
    }
}

/// Looks at a file that is open. Answers the listener and what is known of it, where the verifier knows it as a socket.
#[inline(always)]
fn looks_at(open: &OverFiles) -> Option<(Sock<Typed>, &'static mut Listener)> {
    let (holder, file) = open.get()?;
    if setting!(SOCKET_FACTS) & IN_TABLE != 0 {
        if let Some(sk) = syscall::socket_of(file.id())
            && looks(sk, holder).is_none()
        {
            looks_below(sk, holder);
        }
        return None;
    }
    let sk = file.socket()?;
    if let Some(listener) = looks(sk, holder) {
        return Some((sk, listener));
    }
    looks_below(sk, holder);
    None
}

// match-proto: void bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn listener_iter(open: &OverFiles) -> i32 {
    looks_at(open);
    0
}

// match-proto: void bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn listener_marks_iter(open: &OverFiles) -> i32 {
    if let Some((sk, listener)) = looks_at(open) {
        mark(sk, listener);
    }
    0
}
