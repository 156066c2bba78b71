//! tcpconnect: one event per active open whose SYN was handed to IP; flows counted with `-c`; DNS answers for `-d`.
//!
//! fexit and kprobes see `tcp_v4_connect` and `tcp_v6_connect` return 0. A connect of an IPv6 socket to a v4-mapped
//! address runs the first inside the second: it is IPv4, unless only IPv6 is asked for.
//!
//! Without either, `sock:inet_sock_set_state` sees CLOSE to SYN_SENT inside both functions, in the caller's
//! context: OPENED. A connect that then fails on this host goes back to CLOSE without having sent a segment:
//! FAILED. The local port is not yet chosen at OPENED: where it is wanted, `timer:timer_start` sees the timer that
//! repeats the SYN, which the same call starts once it has handed the SYN to IP, whatever becomes of that there.
//!
//! DNS: whoever asked and however it reads, an answer is a UDP packet from port 53 that arrives.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::tcpconnect::{
    CONNECTED, Config, DNS_LARGE, DNS_LARGE_ROOM, DNS_SMALL, Dns, Event, FAILED, Flow, OPENED,
};
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::filter::{self, PortSet};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::skb::{Packet, Skb};
use probes_ebpf::sock::{Sock, ToTcp, state};
use probes_ebpf::timer::{self, Timer};
use probes_ebpf::{setting, storage, task};

#[unsafe(no_mangle)]
static RPORTS: PortSet = PortSet::new();
#[unsafe(no_mangle)]
static CONFIG: Config = Config { count: 0, count_lport: 0, lport: 0, zero: 0 };

/// Connects per flow, for `-c`. Per CPU, and user space adds up modulo 2^64: one CPU may take
/// back what another counted.
#[map]
static FLOWS: PerCpuHashMap<Flow, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Sockets of threads that are inside a connect, by thread, for kprobes.
#[map]
static CALLS: HashMap<u32, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Sockets in SYN_SENT whose local port is not known yet, by address: their events, without it. For tracepoints, where
/// the port is wanted.
#[map]
static OPENING: HashMap<u64, Event> = HashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Address of the function that TCP's timers call, once a connect was seen.
#[map]
static WRITE_TIMER: Array<u64> = Array::with_max_entries(1, 0);

/// The family that a row of `sk` shows, if `-4` and `-6` let it pass.
#[inline(always)]
fn shown_family<A: Access>(sk: Sock<A>) -> Option<u16> {
    let own = sk.family();
    let shown =
        if own == AF_INET6 && filter::family() != AF_INET6 && sk.is_v4_mapped() { AF_INET } else { own };
    filter::keeps_family(shown).then_some(shown)
}

/// A connect of `sk`, shown as `family`. The task passed its filters.
#[inline(always)]
fn connected<A: Access>(sk: Sock<A>, family: u16, kind: u32) {
    let rport = sk.rport();
    if !filter::keeps_rport(&RPORTS, rport) {
        return;
    }
    if setting!(CONFIG.count) != 0 {
        let mut tuple = Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport, family, zero: 0 };
        sk.addrs(family, &mut tuple);
        let lport = if setting!(CONFIG.count_lport) != 0 { sk.num() } else { 0 };
        count(&tuple, lport, if kind == FAILED { u64::MAX } else { 1 });
        return;
    }
    let Some(mut event) = reserve::<Event>() else { return };
    describe(sk, family, kind, &mut event);
}

/// Fills in the connect of `sk` by the current task.
#[inline(always)]
fn describe<A: Access>(sk: Sock<A>, family: u16, kind: u32, event: &mut Event) {
    event.ts_ns = task::now_ns();
    event.sk = sk.id();
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = sk.num();
    event.tuple.rport = sk.rport();
    event.pid = task::pid();
    event.uid = task::uid();
    task::comm(&mut event.comm);
    event.kind = kind;
    event.zero = 0;
}

/// `sk` is in SYN_SENT, by a task that passed its filters; its local port is wanted and comes soon.
#[inline(always)]
fn opening(sk: Sock<Typed>, family: u16) {
    if !filter::keeps_rport(&RPORTS, sk.rport()) {
        return;
    }
    if WRITE_TIMER.get(0).is_some_and(|known| *known == 0)
        && let Some(sk) = Sock::<Probed>::new(sk.as_ptr())
    {
        let _array_entries_are_there = WRITE_TIMER.set(0, timer::function_of(sk), 0);
    }
    let mut event = Event {
        ts_ns: 0,
        sk: 0,
        tuple: Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 },
        pid: 0,
        uid: 0,
        comm: [0; 16],
        kind: 0,
        zero: 0,
    };
    describe(sk, family, CONNECTED, &mut event);
    if OPENING.insert(sk.id(), event, 0).is_err() {
        lost(Loss::MapFull);
    }
}

/// The socket at `sk` opens from `lport`, if it is one that waits for this.
#[inline(always)]
fn opens_from(sk: u64, lport: u16) {
    let Some(opening) = storage::entry(&OPENING, sk) else { return };
    if setting!(CONFIG.count) != 0 {
        count(&opening.tuple, lport, 1);
    } else if let Some(mut event) = reserve::<Event>() {
        *event = *opening;
        // Rows are in the order in which they are told.
        event.ts_ns = task::now_ns();
        event.tuple.lport = lport;
    }
    let _gone_already = OPENING.remove(sk);
}

/// Adds `delta` (modulo 2^64) to a flow.
#[inline(always)]
fn count(tuple: &Tuple, lport: u16, delta: u64) {
    let flow = Flow {
        laddr: tuple.laddr,
        raddr: tuple.raddr,
        rport: tuple.rport,
        lport,
        family: tuple.family,
        zero: 0,
    };
    if !storage::add(&FLOWS, flow, delta) {
        lost(Loss::MapFull);
    }
}

// The return value lies behind the arguments. The verifier of 6.1 does not know that bpf_get_func_ret changes the
// variable that it is given, and may remove code that asks for it.

// match-proto: int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "tcp_v4_connect")]
fn v4_fexit(ctx: FExitContext) -> i32 {
    if let (Some(sk), 0) = (Sock::<Typed>::new(ctx.arg(0)), ctx.arg::<i32>(3))
        && filter::keeps_task()
    {
        connected(sk, AF_INET, CONNECTED);
    }
    0
}

// match-proto: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "tcp_v6_connect")]
fn v6_fexit(ctx: FExitContext) -> i32 {
    if let (Some(sk), 0) = (Sock::<Typed>::new(ctx.arg(0)), ctx.arg::<i32>(3))
        && filter::keeps_task()
        && shown_family(sk) == Some(AF_INET6)
    {
        connected(sk, AF_INET6, CONNECTED);
    }
    0
}

#[inline(always)]
fn call(ctx: &ProbeContext) {
    if let Some(sk) = ctx.arg::<u64>(0)
        && filter::keeps_task()
        && CALLS.insert(task::pid_tid() as u32, sk, 0).is_err()
    {
        lost(Loss::MapFull);
    }
}

#[inline(always)]
fn returned(ctx: &RetProbeContext, family: u16) {
    let tid = task::pid_tid() as u32;
    let Some(sk) = storage::entry(&CALLS, tid).map(|sk| *sk) else { return };
    let _gone_already = CALLS.remove(tid);
    if ctx.ret::<i32>() == 0
        && let Some(sk) = Sock::<Probed>::new(sk as *const u8)
        && (family == AF_INET || shown_family(sk) == Some(AF_INET6))
    {
        connected(sk, family, CONNECTED);
    }
}

// match-proto: int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v4_kprobe(ctx: ProbeContext) -> u32 {
    call(&ctx);
    0
}

#[kretprobe]
fn v4_kretprobe(ctx: RetProbeContext) -> u32 {
    returned(&ctx, AF_INET);
    0
}

// match-proto: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v6_kprobe(ctx: ProbeContext) -> u32 {
    call(&ctx);
    0
}

#[kretprobe]
fn v6_kretprobe(ctx: RetProbeContext) -> u32 {
    returned(&ctx, AF_INET6);
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if new == state::SYN_SENT {
        if sk.is_tcp()
            && filter::keeps_task()
            && let Some(family) = shown_family(sk)
        {
            if setting!(CONFIG.lport) != 0 {
                opening(sk, family);
            } else {
                connected(sk, family, OPENED);
            }
        }
    } else if old == state::SYN_SENT {
        left_syn_sent(sk, new);
    }
    0
}

/// `sk` leaves SYN_SENT for `new`: how did the connect end on this host?
#[inline(always)]
fn left_syn_sent(sk: Sock<Typed>, new: i32) {
    let Some(tcp) = Typed::tcp(sk) else { return };
    let failed = new == state::CLOSE && tcp.segs_out() == 0;
    if setting!(CONFIG.lport) != 0 {
        if failed {
            let _was_not_wanted = OPENING.remove(sk.id());
        } else {
            // No timer was seen: a socket under repair sends no SYN.
            opens_from(sk.id(), tcp.sport());
        }
    } else if failed
        // Still inside connect(): the task is the one that OPENED.
        && filter::keeps_task()
        && let Some(family) = shown_family(sk)
    {
        connected(sk, family, FAILED);
    }
}

// match-proto: void timer_start(struct timer_list *timer, unsigned long bucket_expiry) (6.12: no further argument)
#[btf_tracepoint(function = "timer_start")]
fn timer_tp(ctx: BtfTracePointContext) -> i32 {
    // Every timer of the kernel comes by: look at as little as possible.
    if let Some(timer) = Timer::new(ctx.arg(0))
        && WRITE_TIMER.get(0).is_some_and(|known| *known == timer.function())
        && let Some(sk) = timer.socket()
        && sk.state() == state::SYN_SENT
    {
        opens_from(sk.id(), sk.num());
    }
    0
}

/// Source port of DNS answers (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// Bytes of a UDP header.
const UDP_BYTES: u32 = 8;

/// A UDP header at `udp`, and `linear` bytes from there to the end of the linear part of `skb`.
#[inline(always)]
fn datagram<A: Access>(skb: Skb<A>, udp: Packet, linear: u32) {
    let [sport_hi, sport_lo, _, _, len_hi, len_lo] = udp.read::<6>();
    if u16::from_be_bytes([sport_hi, sport_lo]) != DNS_PORT || linear <= UDP_BYTES {
        return;
    }
    let datagram = u32::from(u16::from_be_bytes([len_hi, len_lo]));
    let payload = udp.skip(u64::from(UDP_BYTES));
    let here = (if datagram > UDP_BYTES && datagram < linear { datagram } else { linear }) - UDP_BYTES;
    if here <= DNS_SMALL as u32 && !skb.has_more() {
        let Some(mut record) = reserve::<Dns<DNS_SMALL>>() else { return };
        record.ts_ns = task::now_ns();
        record.len = here;
        record.zero = 0;
        payload.copy(&mut record.payload, here);
        return;
    }
    let Some(mut record) = reserve::<Dns<DNS_LARGE_ROOM>>() else { return };
    record.ts_ns = task::now_ns();
    record.zero = 0;
    let first = here.min(DNS_LARGE as u32);
    payload.copy_to(&mut record.payload, 0, first);
    let mut len = first;
    // A datagram that came in pieces: 4 KiB are 3 Ethernet frames.
    let mut next = if skb.has_more() { skb.fragment() } else { None };
    for _ in 0..4 {
        let Some(piece) = next else { break };
        if len >= DNS_LARGE as u32 {
            break;
        }
        let bytes = piece.linear_bytes().min(DNS_LARGE as u32);
        piece.data().copy_to(&mut record.payload, len, bytes);
        len += bytes;
        next = piece.next();
    }
    record.len = len.min(DNS_LARGE as u32);
}

/// A UDP packet for this host; `data` is at the UDP header.
#[inline(always)]
fn received<A: Access>(skb: Skb<A>) {
    datagram(skb, skb.data(), skb.linear_bytes());
}

// match-proto: int udp_rcv(struct sk_buff *skb)
#[fentry(function = "udp_rcv")]
fn dns4_fentry(ctx: FEntryContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        received(skb);
    }
    0
}

// match-proto: int udpv6_rcv(struct sk_buff *skb)
#[fentry(function = "udpv6_rcv")]
fn dns6_fentry(ctx: FEntryContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        received(skb);
    }
    0
}

// match-proto: int udp_rcv(struct sk_buff *skb)
#[kprobe]
fn dns4_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0).and_then(Skb::<Probed>::new) {
        received(skb);
    }
    0
}

// match-proto: int udpv6_rcv(struct sk_buff *skb)
#[kprobe]
fn dns6_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0).and_then(Skb::<Probed>::new) {
        received(skb);
    }
    0
}

/// EtherTypes (RFC 7042 appendix B) and the IP protocol number of UDP.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_UDP: u8 = 17;

// match-proto: void netif_receive_skb(struct sk_buff *skb)
#[btf_tracepoint(function = "netif_receive_skb")]
fn dns_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) else { return 0 };
    let header = match skb.protocol() {
        ETH_P_IP => {
            let ip = skb.data().read::<10>();
            // The offset bits of a fragment that is not the first (RFC 791 section 3.1): no UDP header there.
            if ip[9] != IPPROTO_UDP || ip[6] & 0x1f != 0 || ip[7] != 0 {
                return 0;
            }
            u32::from(ip[0] & 0xf) * 4
        }
        ETH_P_IPV6 if skb.data().skip(6).read::<1>()[0] == IPPROTO_UDP => 40,
        _ => return 0,
    };
    let linear = skb.linear_bytes();
    if linear > header {
        datagram(skb, skb.data().skip(u64::from(header)), linear - header);
    }
    0
}
