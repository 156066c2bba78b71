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
//! DNS: a question is a UDP packet to port 53 that a socket of this host sends. Its answer is a UDP packet back, under the
//! same id, that a process reads. Tracepoints do not see that it is read: there it counts from its arrival on, and is
//! taken back if the kernel throws it away. What answers no question takes no room, and answers have a ring of their own:
//! who floods the host with them takes no rows away.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuHashMap, Queue, RingBuf};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::tcpconnect::{
    ANSWER_NS, ANSWERS_PER_QUESTION, Asked, CONNECTED, Config, DNS_LARGE, DNS_LARGE_ROOM, DNS_SMALL, Dns,
    Event, FAILED, Flow, OPENED, QUESTION_ROOM, Question, Unread,
};
use probes_ebpf::emit::{lost, reserve_in, reserve_with};
use probes_ebpf::mem::{Access, Probed, Typed, is_locked};
use probes_ebpf::mptcp::{self, Opener, Owners};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::skb::{ETH_P_IP, ETH_P_IPV6, Packet, Skb};
use probes_ebpf::sock::{Sock, ToTcp, state};
use probes_ebpf::timer::{self, Timer};
use probes_ebpf::{filter, setting, storage, syscall, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { count: 0, count_lport: 0, lport: 0, zero: 0 };

/// Connects per flow, for `-c`. Per CPU, and user space adds up modulo 2^64: one CPU may take back what another counted.
#[map]
static FLOWS: PerCpuHashMap<Flow, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Who connected MPTCP sockets, if they are asked for.
#[map]
static OWNERS_BY_MPTCP: Owners = mptcp::owners();

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

/// Questions that were sent, with and without an answer. User space sets the size: some more than `TURNS` has.
#[map]
static QUESTIONS: HashMap<Asked, Question> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);

/// The keys of `QUESTIONS` in the order in which they were sent. User space sets the size.
#[map]
static TURNS: Queue<Turn> = Queue::with_max_entries(64, 0);

/// A question before it is filled in.
#[unsafe(no_mangle)]
static EMPTY: Question =
    Question { ts_ns: 0, pid: 0, answers: 0, len: 0, zero: 0, bytes: [0; QUESTION_ROOM] };

/// Answers on their way to user space. User space sets the size.
#[map]
static ANSWERS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Answers that arrived, by address of the packet, for tracepoints: which of them are thrown away?
#[map]
static ARRIVED: LruHashMap<u64, Arrival> = LruHashMap::with_max_entries(1024, 0);

/// One sending of a question.
#[repr(C)]
#[derive(Clone, Copy)]
struct Turn {
    asked: Asked,
    /// When: a question that was sent again under the same id is another one.
    ts_ns: u64,
}

/// An answer that arrived.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arrival {
    ts_ns: u64,
    /// When its question was sent.
    asked_ns: u64,
    /// Ports and id, by which it is told from a later packet at the same address.
    lport: u16,
    id: u16,
    zero: u32,
}

/// The family that a row of `sk` shows, if `-4` and `-6` let it pass.
#[inline(always)]
fn shown_family<A: Access>(sk: Sock<A>) -> Option<u16> {
    let own = sk.family();
    let shown =
        if own == AF_INET6 && filter::family() != AF_INET6 && sk.is_v4_mapped() { AF_INET } else { own };
    filter::keeps_family(shown).then_some(shown)
}

/// Who connects `sk`, if the filters of tasks keep that.
#[inline(always)]
fn kept_opener<A: ToTcp>(sk: Sock<A>) -> Option<Opener> {
    let opener = Opener::of(&OWNERS_BY_MPTCP, sk);
    opener.is_kept().then_some(opener)
}

/// A connect of `sk`, shown as `family`, by one that passed the filters of tasks.
#[inline(always)]
fn connected<A: Owned>(sk: Sock<A>, opener: Opener, family: u16, kind: u32) {
    if !filter::keeps_ends(sk) {
        return;
    }
    if setting!(CONFIG.count) != 0 {
        let mut tuple = Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: sk.rport(), family, zero: 0 };
        sk.addrs(family, &mut tuple);
        let lport = if setting!(CONFIG.count_lport) != 0 { sk.num() } else { 0 };
        count(&tuple, lport, if kind == FAILED { u64::MAX } else { 1 });
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    describe(sk, opener, family, kind, &mut event);
}

/// Fills in the connect of `sk`.
#[inline(always)]
fn describe<A: Access>(sk: Sock<A>, opener: Opener, family: u16, kind: u32, event: &mut Event) {
    event.ts_ns = task::now_ns();
    event.sk = sk.id();
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = sk.num();
    event.tuple.rport = sk.rport();
    event.pid = opener.name::<A>(&mut event.comm);
    event.uid = opener.uid();
    event.kind = kind;
    event.zero = 0;
}

/// `sk` is in SYN_SENT, by one that passed the filters of tasks; its local port is wanted and comes soon.
#[inline(always)]
fn opening(sk: Sock<Typed>, opener: Opener, family: u16) {
    if !filter::keeps_ends_but_lport(sk) {
        return;
    }
    if WRITE_TIMER.get(0).is_some_and(|known| *known == 0)
        && let Some(sk) = Sock::<Probed>::new(sk.as_ptr())
    {
        let _array_entries_are_there = WRITE_TIMER.set(0, timer::function_of(sk), 0);
    }
    owner::make_cookie(sk);
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
    describe(sk, opener, family, CONNECTED, &mut event);
    if OPENING.insert(sk.id(), event, 0).is_err() {
        lost(Loss::MapFull);
    }
}

/// The socket at `sk` opens from `lport`, if it is one that waits for this.
#[inline(always)]
fn opens_from(sk: u64, lport: u16) {
    let Some(opening) = storage::entry(&OPENING, sk) else { return };
    if !filter::keeps_lport(lport) {
        // Of another port than those that are asked for.
    } else if setting!(CONFIG.count) != 0 {
        // A filter that asks for the port makes no flows of its own.
        count(&opening.tuple, if setting!(CONFIG.count_lport) != 0 { lport } else { 0 }, 1);
    } else if let Some(sk) = Sock::<Probed>::new(sk as *const u8)
        && let Some(mut event) = reserve_with::<Event>(Facts::of(sk))
    {
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
        && let Some(opener) = kept_opener(sk)
    {
        connected(sk, opener, AF_INET, CONNECTED);
    }
    0
}

// match-proto: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[fexit(function = "tcp_v6_connect")]
fn v6_fexit(ctx: FExitContext) -> i32 {
    if let (Some(sk), 0) = (Sock::<Typed>::new(ctx.arg(0)), ctx.arg::<i32>(3))
        && let Some(opener) = kept_opener(sk)
        && shown_family(sk) == Some(AF_INET6)
    {
        connected(sk, opener, AF_INET6, CONNECTED);
    }
    0
}

#[inline(always)]
fn call(ctx: &ProbeContext) {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new)
        && kept_opener(sk).is_some()
        && CALLS.insert(task::pid_tid() as u32, sk.id(), 0).is_err()
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
        connected(sk, Opener::of(&OWNERS_BY_MPTCP, sk), family, CONNECTED);
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

// match-proto: void mptcp_token_destroy(struct mptcp_sock *msk)
#[fentry(function = "mptcp_token_destroy")]
fn mptcp_fentry(ctx: FEntryContext) -> i32 {
    mptcp::ended(&OWNERS_BY_MPTCP, ctx.arg(0));
    0
}

// match-proto: void mptcp_token_destroy(struct mptcp_sock *msk)
#[kprobe]
fn mptcp_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        mptcp::ended(&OWNERS_BY_MPTCP, sk);
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if new == state::SYN_SENT {
        if sk.is_tcp()
            && let Some(opener) = kept_opener(sk)
            && let Some(family) = shown_family(sk)
        {
            if setting!(CONFIG.lport) != 0 {
                opening(sk, opener, family);
            } else {
                connected(sk, opener, family, OPENED);
            }
        }
    } else if old == state::SYN_SENT && sk.is_tcp() {
        left_syn_sent(sk, new);
    } else {
        mptcp::changed(&OWNERS_BY_MPTCP, sk, new);
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
        // Still inside connect(): it is the one that OPENED.
        && let Some(opener) = kept_opener(sk)
        && let Some(family) = shown_family(sk)
    {
        connected(sk, opener, family, FAILED);
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

/// Port of DNS servers (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// Bytes of a UDP header, of a DNS header, and the bit of the latter's third byte that tells answers from questions.
const UDP_BYTES: u32 = 8;
const DNS_BYTES: u32 = 12;
const DNS_RESPONSE: u8 = 0x80;
/// The IP protocol number of UDP (IANA).
const IPPROTO_UDP: u8 = 17;

/// What a message of DNS says of itself in front: its ports, its id, and whether it is an answer.
#[derive(Clone, Copy)]
struct Head {
    sport: u16,
    dport: u16,
    id: u16,
    is_answer: bool,
}

impl Head {
    /// `udp` is a UDP header.
    #[inline(always)]
    fn read(udp: Packet) -> Self {
        let bytes = udp.read::<11>();
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Self { sport: word(0), dport: word(2), id: word(8), is_answer: bytes[10] & DNS_RESPONSE != 0 }
    }
}

/// Where an IP header of version 4 and of version 6 has an address.
type Places = (u64, u64);
const SOURCE: Places = (12, 8);
const DESTINATION: Places = (16, 24);

/// Which question it is whose packet, or whose answer's, has its IP header at `ip`.
#[inline(always)]
fn asked(net: u64, ip: Packet, near: Places, far: Places, lport: u16, id: u16) -> Asked {
    let mut asked = Asked { net, near: [0; 16], far: [0; 16], lport, id, is_v6: 0 };
    if ip.read::<1>()[0] >> 4 == 6 {
        asked.is_v6 = 1;
        asked.near = ip.skip(near.1).read();
        asked.far = ip.skip(far.1).read();
    } else {
        let [near, far] = [near.0, far.0].map(|at| ip.skip(at).read::<4>());
        asked.near[..4].copy_from_slice(&near);
        asked.far[..4].copy_from_slice(&far);
    }
    asked
}

/// A packet of `sk` that IP has just written: remembers the question that may be in it.
#[inline(always)]
fn sent<A: Access>(sk: Sock<A>, skb: Skb<A>, pid: impl FnOnce() -> u32) {
    let (ip, udp) = (skb.network(), skb.transport());
    let header = ip.read::<10>();
    // Extension headers, which a question has none of, stay unread.
    let is_udp = match header[0] >> 4 {
        4 => header[9] == IPPROTO_UDP,
        6 => header[6] == IPPROTO_UDP,
        _ => false,
    };
    if !is_udp {
        return;
    }
    let head = Head::read(udp);
    let linear = skb.linear_bytes().wrapping_sub(udp.behind(skb.data()));
    if head.dport != DNS_PORT || head.is_answer || linear <= UDP_BYTES + DNS_BYTES {
        return;
    }
    let asked = asked(sk.net(), ip, SOURCE, DESTINATION, head.sport, head.id);
    let turn = Turn { asked, ts_ns: task::now_ns() };
    if !take_turn(&turn) {
        lost(Loss::Question);
        return;
    }
    // In two steps: the stack has no room for a question. Its packet has not left, so no answer comes in between.
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a static cannot be moved")]
    let empty = QUESTIONS.insert(asked, &EMPTY, 0);
    let Some(question) = storage::entry(&QUESTIONS, asked).filter(|_| empty.is_ok()) else {
        lost(Loss::Question);
        return;
    };
    question.ts_ns = turn.ts_ns;
    question.pid = pid();
    question.len = (linear - UDP_BYTES - DNS_BYTES).min(QUESTION_ROOM as u32);
    udp.skip(u64::from(UDP_BYTES + DNS_BYTES)).copy(&mut question.bytes, question.len);
}

/// Whether there is room for one more question. The oldest makes it.
#[inline(always)]
fn take_turn(turn: &Turn) -> bool {
    if TURNS.push(turn, 0).is_ok() {
        return true;
    }
    if let Ok(Some(oldest)) = TURNS.pop()
        && let Some(question) = storage::entry(&QUESTIONS, oldest.asked)
        && question.ts_ns == oldest.ts_ns
    {
        if question.answers == 0 && turn.ts_ns.wrapping_sub(question.ts_ns) < ANSWER_NS {
            lost(Loss::Question);
        }
        let _gone_already = QUESTIONS.remove(oldest.asked);
    }
    TURNS.push(turn, 0).is_ok()
}

/// A message of DNS came to this host: sends it to user space, if a question asked for it. `udp` is its UDP header, behind
/// which are `linear` bytes. Answers when that was, and when the question was sent.
#[inline(always)]
fn answered<A: Access>(skb: Skb<A>, net: u64, ip: Packet, udp: Packet, linear: u32) -> Option<Arrival> {
    let head = Head::read(udp);
    if head.sport != DNS_PORT || !head.is_answer || linear < DNS_BYTES {
        return None;
    }
    let asked = asked(net, ip, DESTINATION, SOURCE, head.dport, head.id);
    let question = storage::entry(&QUESTIONS, asked)?;
    let ts_ns = task::now_ns();
    if question.answers >= ANSWERS_PER_QUESTION || ts_ns.wrapping_sub(question.ts_ns) >= ANSWER_NS {
        return None;
    }
    question.answers += 1;
    let [len_hi, len_lo] = udp.skip(4).read();
    let bytes = u32::from(u16::from_be_bytes([len_hi, len_lo])).wrapping_sub(UDP_BYTES);
    let here = if bytes < linear { bytes } else { linear };
    answer(skb, question, udp.skip(u64::from(UDP_BYTES)), here, ts_ns)?;
    Some(Arrival { ts_ns, asked_ns: question.ts_ns, lport: head.dport, id: head.id, zero: 0 })
}

/// The answer at `payload`, of which `here` bytes are there.
#[inline(always)]
fn answer<A: Access>(skb: Skb<A>, question: &Question, payload: Packet, here: u32, ts_ns: u64) -> Option<()> {
    if here <= DNS_SMALL as u32 && !skb.has_more() {
        let mut record = reserve_in::<Dns<DNS_SMALL>>(&ANSWERS, Loss::Answer)?;
        record.ts_ns = ts_ns;
        record.len = here;
        record.zero = 0;
        record.question = *question;
        payload.copy(&mut record.payload, here);
        return Some(());
    }
    let mut record = reserve_in::<Dns<DNS_LARGE_ROOM>>(&ANSWERS, Loss::Answer)?;
    record.ts_ns = ts_ns;
    record.zero = 0;
    record.question = *question;
    let first = here.min(DNS_LARGE as u32);
    payload.copy_to(&mut record.payload, 0, first);
    let mut len = first;
    // A datagram that came in pieces: 4 KiB are 3 Ethernet frames.
    // Where the kernel forbids the helper, what comes after the first is left out.
    let mut next = if skb.has_more() && !is_locked() { skb.fragment() } else { None };
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
    Some(())
}

/// IP is about to send a packet, in the call of the process that sends.
#[inline(always)]
fn ask<A: Access>(skb: Skb<A>) {
    if let Some(sk) = skb.sk() {
        sent(sk, skb, task::pid);
    }
}

/// A process read a datagram from `sk`: the packet's data is behind the UDP header.
#[inline(always)]
fn read<A: Access>(sk: Sock<A>, skb: Skb<A>) {
    let _counts_at_once = answered(skb, sk.net(), skb.network(), skb.transport(), skb.linear_bytes());
}

// match-proto: int ip_send_skb(struct net *net, struct sk_buff *skb)
#[fentry(function = "ip_send_skb")]
fn ask4_fentry(ctx: FEntryContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(1)) {
        ask(skb);
    }
    0
}

// match-proto: int ip6_send_skb(struct sk_buff *skb)
#[fentry(function = "ip6_send_skb")]
fn ask6_fentry(ctx: FEntryContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        ask(skb);
    }
    0
}

// match-proto: void skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)
#[fentry(function = "skb_consume_udp")]
fn answer_fentry(ctx: FEntryContext) -> i32 {
    if let (Some(sk), Some(skb)) = (Sock::<Typed>::new(ctx.arg(0)), Skb::<Typed>::new(ctx.arg(1))) {
        read(sk, skb);
    }
    0
}

// match-proto: int ip_send_skb(struct net *net, struct sk_buff *skb)
#[kprobe]
fn ask4_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(1).and_then(Skb::<Probed>::new) {
        ask(skb);
    }
    0
}

// match-proto: int ip6_send_skb(struct sk_buff *skb)
#[kprobe]
fn ask6_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0).and_then(Skb::<Probed>::new) {
        ask(skb);
    }
    0
}

// match-proto: void skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)
#[kprobe]
fn answer_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) =
        (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1).and_then(Skb::<Probed>::new))
    {
        read(sk, skb);
    }
    0
}

// match-proto: void net_dev_queue(struct sk_buff *skb)
#[btf_tracepoint(function = "net_dev_queue")]
fn ask_tp(ctx: BtfTracePointContext) -> i32 {
    // What this host only forwards has no socket, or leaves by an interface of another namespace.
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0))
        && matches!(skb.protocol(), ETH_P_IP | ETH_P_IPV6)
        && let Some(sk) = skb.sk()
        && skb.dev().is_some_and(|dev| dev.net() == sk.net())
    {
        sent(sk, skb, || sender(sk));
    }
    0
}

/// The process that sends by `sk`: the current one, if it is in a system call with that socket. A packet that waited for a
/// neighbour leaves on a stranger's time.
#[inline(always)]
fn sender(sk: Sock<Typed>) -> u32 {
    let by_it = syscall::Regs::current()
        .and_then(|regs| syscall::socket(regs.args().0 as u32))
        .is_some_and(|own| own.id() == sk.id());
    if by_it { task::pid() } else { 0 }
}

// match-proto: void netif_receive_skb(struct sk_buff *skb)
#[btf_tracepoint(function = "netif_receive_skb")]
fn answer_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) else { return 0 };
    let ip = skb.data();
    let header = match skb.protocol() {
        ETH_P_IP => {
            let ip = ip.read::<10>();
            // The offset bits of a fragment that is not the first (RFC 791 section 3.1): no UDP header there.
            if ip[9] != IPPROTO_UDP || ip[6] & 0x1f != 0 || ip[7] != 0 {
                return 0;
            }
            u32::from(ip[0] & 0xf) * 4
        }
        ETH_P_IPV6 if ip.skip(6).read::<1>()[0] == IPPROTO_UDP => 40,
        _ => return 0,
    };
    let (linear, udp) = (skb.linear_bytes(), ip.skip(u64::from(header)));
    if linear > header + UDP_BYTES
        && let Some(dev) = skb.dev()
        && let Some(arrival) = answered(skb, dev.net(), ip, udp, linear - header - UDP_BYTES)
        && ARRIVED.insert(skb.id(), arrival, 0).is_err()
    {
        lost(Loss::Answer);
    }
    0
}

// match-proto: void kfree_skb(struct sk_buff *skb, void *location) (5.17 and 6.11: further arguments)
#[btf_tracepoint(function = "kfree_skb")]
fn unread_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) else { return 0 };
    let Some(arrival) = storage::lru_entry(&ARRIVED, skb.id()) else { return 0 };
    let _gone_already = ARRIVED.remove(skb.id());
    let ip = skb.network();
    let header = match skb.protocol() {
        ETH_P_IP => u64::from(ip.read::<1>()[0] & 0xf) * 4,
        ETH_P_IPV6 => 40,
        _ => return 0,
    };
    let head = Head::read(ip.skip(header));
    if head.sport == DNS_PORT
        && head.dport == arrival.lport
        && head.id == arrival.id
        && let Some(mut record) = reserve_in::<Unread>(&ANSWERS, Loss::Answer)
    {
        *record = Unread { ts_ns: task::now_ns(), arrived_ns: arrival.ts_ns, asked_ns: arrival.asked_ns };
    }
    0
}
