//! tcpwhy: one event per TCP socket that ended badly or slowly, with all that was seen of it; of all with `-a`.
//!
//! A record lies with each socket (`sk_storage`): when it began, was established, asked and was answered, whose it is, what was
//! sent again and why. The rest is read from `tcp_sock` at the end, where the kernel keeps it anyway. No program runs per
//! packet. What no rule could match is dropped here; which rule matches is decided in user space
//! (`netbcc/src/tools/tcpwhy/rules.rs`).
//!
//! Owner: the task that connected; else the first that read, closed or shut down. Each of these happens in the owner's own
//! system call; the task on the CPU at the end tells nothing.
#![no_std]
#![no_main]

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use netbcc_common::loss::Loss;
use netbcc_common::tcpwhy::{
    CLIENT, CLOSED_HERE, CLOSED_THERE, CLOSER, CONNECTOR, Config, Conn, DEAD, DONE, Detailed, Event, FILE,
    GAP, INFLATED_TIMES, INFLATED_US, KEPT, LINGER, LIVE, Listener, Moment, NOBODY, READER, REPORTED, RESET,
    Refused, SERVER, SHUT, SHUT_WINDOW, Timeline, moment, stuck,
};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::iter::{Holder, OverFiles, OverSockets};
use probes_ebpf::mem::Typed;
use probes_ebpf::owner::Facts;
use probes_ebpf::skb::Skb;
use probes_ebpf::sock::{Sock, TcpSock, ToTcp as _, is_inet, state};
use probes_ebpf::twice::Notes;
use probes_ebpf::{setting, storage, task};

/// FIN_WAIT2, CLOSING: states that only a clean end leaves without an error.
const FIN_WAIT2: i32 = 5;
const CLOSING: i32 = 11;

#[unsafe(no_mangle)]
static CONFIG: Config = Config { slow_us: 0, all: 0, events: 0, live: 0 };

/// What is known of live sockets.
#[btf_map]
static CONNS: SkStorage<Conn> = SkStorage::new();

/// What happened to live sockets, where it is asked for.
#[btf_map]
static TIMELINES: SkStorage<Timeline> = SkStorage::new();

/// What is known of listeners, where they are looked at.
#[btf_map]
static LISTENERS: SkStorage<Listener> = SkStorage::new();

/// What the first copy of the program at changes of state did.
static NOTES: Notes = Notes::new();

type Tcp = TcpSock<Typed>;

#[inline(always)]
fn make(sk: Sock<Typed>) -> Option<&'static mut Conn> {
    let conn = storage::get_or_zero(&CONNS, sk);
    if conn.is_none() {
        lost(Loss::MapFull);
    }
    conn
}

/// Adds to the timeline of `sk`, where timelines are asked for.
#[inline(always)]
fn note(sk: Sock<Typed>, what: u32, value: u32) {
    if setting!(CONFIG.events) == 0 {
        return;
    }
    let Some(timeline) = storage::get_or_zero(&TIMELINES, sk) else {
        return lost(Loss::MapFull);
    };
    // Alone: all that happens to a socket happens with its lock held.
    let nth = timeline.count;
    timeline.count = nth + 1;
    timeline.moments[nth as usize % KEPT] = Moment { ts_ns: task::now_ns(), what, value };
}

/// Begins the timeline of `sk` anew: it connects again.
#[inline(always)]
fn forget(sk: Sock<Typed>) {
    if setting!(CONFIG.events) != 0
        && let Some(timeline) = storage::get(&TIMELINES, sk)
    {
        timeline.count = 0;
    }
}

/// The current task becomes the owner, unless a better one is known or it is a thread of the kernel, which works for others.
#[inline(always)]
fn own(conn: &mut Conn, how: u32) {
    if conn.owner < how && (conn.owner == NOBODY || how == CONNECTOR) && !task::is_kernel::<Typed>() {
        conn.owner = how;
        conn.pid = task::pid();
        conn.kept = u16::from(filter::keeps_task());
        task::comm(&mut conn.comm);
    }
}

/// `sk` goes from state `old` to `new`. `again`: the second copy of the program asks, which found no note of the first: it was
/// skipped, or another change took the note's place. Answers whether this was news.
///
/// To do a change twice is harmless. Where there is a record, its state is `new` after the first time, and the second ends there:
/// so a record is begun, an end is reported and an owner is taken once. Where there is none, nothing is kept and nothing sent,
/// twice as well as once: a change of a socket that is older than the tool, or the end of the one of two sockets that the
/// kernel made for one connection (ARCHITECTURE.md, D7), whose record keeps SYN_RECV. An older socket has a record from its
/// end on, which says CLOSE. A record that could not be made for lack of memory is a loss both times. No change of
/// the same socket comes in between, as it is locked; if it connects again, that is another state.
#[inline(always)]
fn changed(sk: Sock<Typed>, old: i32, new: i32, again: bool) -> bool {
    if new == state::LISTEN {
        return listens(sk);
    }
    if old == state::LISTEN && new == state::CLOSE || !sk.is_tcp() {
        return true;
    }
    if new == state::CLOSE {
        return ended(sk, old, again);
    }
    if new == state::SYN_SENT || new == state::SYN_RECV && old != state::SYN_SENT {
        let Some(conn) = make(sk) else { return true };
        if again && conn.state == new {
            return false;
        }
        // What was known is of another connection of this socket.
        *conn = Conn { birth_ns: task::now_ns(), state: new, ..Conn::default() };
        forget(sk);
        if new == state::SYN_SENT {
            conn.flags = CLIENT;
            own(conn, CONNECTOR);
        } else {
            conn.flags = SERVER;
        }
        return true;
    }
    // Of one that is older than the tool, its end is enough.
    let Some(conn) = storage::get(&CONNS, sk) else { return true };
    if again && conn.state == new {
        return false;
    }
    follow(conn, old, new);
    if new == state::ESTABLISHED {
        conn.established_ns = task::now_ns();
        if conn.flags & SERVER != 0
            && let Some(tcp) = Typed::tcp(sk)
        {
            // So far: SYN-ACKs, as the request counted them.
            conn.syns = tcp.total_retrans();
        }
    } else if let Some(tcp) = Typed::tcp(sk) {
        note(sk, moment::STATE, new as u32);
        closes(conn, tcp, old, new);
    }
    true
}

/// Notes the state, and whether one before it was missed.
#[inline(always)]
fn follow(conn: &mut Conn, old: i32, new: i32) {
    if conn.state != old && conn.birth_ns != 0 {
        conn.flags |= GAP;
    }
    conn.state = new;
}

/// One of both ends closes, or the connection ends.
#[inline(always)]
fn closes(conn: &mut Conn, tcp: Tcp, old: i32, new: i32) {
    if conn.closing_ns == 0 {
        conn.closing_ns = task::now_ns();
        if new == state::CLOSE_WAIT {
            conn.flags |= CLOSED_THERE;
        } else if new == state::FIN_WAIT1 {
            conn.flags |= CLOSED_HERE;
        }
    }
    if new == state::FIN_WAIT1 || new == state::LAST_ACK {
        own(conn, CLOSER);
    }
    if old == state::ESTABLISHED || old == state::CLOSE_WAIT {
        speaks(conn, tcp);
    }
}

/// Looks when our data before the other end's first byte was sent, or our first answer. Called before later data is.
#[inline(always)]
fn speaks(conn: &mut Conn, tcp: Tcp) {
    if tcp.bytes_sent() == 0 {
        return;
    }
    if conn.read_ns == 0 {
        if conn.asked_us == 0 {
            conn.asked_us = tcp.first_tx_us();
        }
    } else if conn.answered_us == 0 {
        let sent_us = tcp.first_tx_us();
        if sent_us >= conn.arrived_us {
            conn.answered_us = sent_us;
        }
    }
}

/// Received data is being read from `sk`.
#[inline(always)]
fn reads(sk: Sock<Typed>) {
    let Some(conn) = storage::get(&CONNS, sk) else { return };
    if conn.owner == NOBODY {
        own(conn, READER);
    }
    let Some(tcp) = Typed::tcp(sk) else { return };
    let now_ns = task::now_ns();
    let packet_us = tcp.last_packet_us();
    let first = conn.read_ns == 0;
    if first || conn.answered_us == 0 {
        speaks(conn, tcp);
    }
    if first {
        conn.read_ns = now_ns;
        conn.arrived_us = packet_us;
    }
    let lay_ns = now_ns.saturating_sub(packet_us * 1000);
    if packet_us != 0 && lay_ns > conn.unread_ns {
        conn.unread_ns = lay_ns;
    }
    if tcp.rcv_wnd() == 0 {
        conn.flags |= SHUT_WINDOW;
    }
}

/// Whether some rule may match. Cheap, and never wrong in saying no.
#[inline(always)]
fn is_suspect(sk: Sock<Typed>, conn: &Conn, tcp: Tcp, old: i32, error: i32) -> bool {
    let clean = old == FIN_WAIT2 || old == CLOSING || old == state::LAST_ACK;
    if !clean || error != 0 || conn.flags & (GAP | RESET | REPORTED) != 0 || tcp.total_retrans() != 0 {
        return true;
    }
    // Neither the other end's FIN nor an orphan's end: we sent a RST.
    if old == FIN_WAIT2 && !sk.is_done() && !sk.is_dead() {
        return true;
    }
    let srtt_us = tcp.srtt_us_8() >> 3;
    if srtt_us > INFLATED_US && u64::from(srtt_us) > u64::from(tcp.rtt_min_us()) * u64::from(INFLATED_TIMES) {
        return true;
    }
    let slow_us = setting!(CONFIG.slow_us);
    if slow_us == 0 {
        return false;
    }
    let [_, window, buffer] = tcp.limits();
    if window != 0 || buffer != 0 || conn.flags & SHUT_WINDOW != 0 {
        return true;
    }
    // Whatever was slow took part of its life.
    task::now_ns().saturating_sub(conn.birth_ns) > slow_us * 1000
}

/// `sk` reached CLOSE from the state `old`. `again` and the answer are those of [`changed`].
#[inline(always)]
fn ended(sk: Sock<Typed>, old: i32, again: bool) -> bool {
    if old == state::CLOSE {
        return true;
    }
    let Some(tcp) = Typed::tcp(sk) else { return true };
    let error = tcp.error();
    let known = storage::get(&CONNS, sk);
    // A handshake that was not completed is no connection: of two sockets for one (ARCHITECTURE.md, D7), or one whose making failed.
    if old == state::SYN_RECV && error == 0 && known.as_ref().is_none_or(|conn| conn.flags & RESET == 0) {
        return true;
    }
    let Some(conn) = known.or_else(|| make(sk)) else { return true };
    if again && conn.state == state::CLOSE {
        return false;
    }
    follow(conn, old, state::CLOSE);
    closes(conn, tcp, old, state::CLOSE);
    // Without a RST and an error it is a call of its program's that ends it.
    if error == 0
        && conn.flags & RESET == 0
        && sk.has_file()
        && (old == state::ESTABLISHED || old == state::CLOSE_WAIT || old == state::SYN_SENT)
    {
        own(conn, CLOSER);
    }
    if setting!(CONFIG.all) != 0 || is_suspect(sk, conn, tcp, old, error) {
        report(sk, tcp, conn, old, error, 0);
    }
    // The socket may connect again.
    conn.birth_ns = 0;
    true
}

#[inline(always)]
fn report(sk: Sock<Typed>, tcp: Tcp, conn: &Conn, old: i32, error: i32, bits: u32) {
    let family = sk.family();
    let kept = if conn.owner == NOBODY { filter::keeps_nobody(|| sk.cgroup()) } else { conn.kept != 0 };
    if !filter::keeps_family(family) || !kept {
        return;
    }
    let lport = tcp.sport();
    if !filter::keeps_ends(SockEnds { sk, lport }) {
        return;
    }
    if setting!(CONFIG.events) == 0 {
        let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
        fill(sk, tcp, conn, (old, error, bits), (family, lport), &mut event);
        return;
    }
    let Some(mut row) = reserve_with::<Detailed>(Facts::of(sk)) else { return };
    match storage::get(&TIMELINES, sk) {
        Some(timeline) => row.timeline = *timeline,
        // Behind the count is what an older event left there.
        None => row.timeline.count = 0,
    }
    fill(sk, tcp, conn, (old, error, bits), (family, lport), &mut row.event);
}

/// Writes what every row says.
#[inline(always)]
fn fill(
    sk: Sock<Typed>,
    tcp: Tcp,
    conn: &Conn,
    (old, error, bits): (i32, i32, u32),
    (family, lport): (u16, u16),
    event: &mut Event,
) {
    event.ts_ns = task::now_ns();
    // SAFETY: no arguments.
    event.jiffies = unsafe { bpf_jiffies64() };
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = lport;
    event.tuple.rport = sk.rport();
    event.conn = *conn;
    event.bytes_sent = tcp.bytes_sent();
    event.bytes_retrans = tcp.bytes_retrans();
    event.bytes_acked = tcp.bytes_acked();
    event.bytes_received = tcp.bytes_received();
    event.last_packet_us = tcp.last_packet_us();
    event.state = old;
    event.error = error;
    event.soft_error = tcp.soft_error();
    let bit = |is: bool, bit: u32| if is { bit } else { 0 };
    event.bits = bits
        | bit(sk.is_shut(), SHUT)
        | bit(sk.is_dead(), DEAD)
        | bit(sk.is_done(), DONE)
        | bit(tcp.lingers_not(), LINGER)
        | bit(sk.has_file(), FILE);
    event.busy = tcp.limits();
    event.last_data_sent = tcp.last_data_sent();
    event.rtt_min_us = tcp.rtt_min_us();
    event.srtt_us_8 = tcp.srtt_us_8();
    event.retrans = tcp.total_retrans();
    event.data_segs_out = tcp.data_segs_out();
    event.dsack_dups = tcp.dsack_dups();
    event.ooo_segs = tcp.ooo_segs();
    event.unsent = tcp.write_seq().wrapping_sub(tcp.snd_nxt());
    event.unacked = tcp.snd_nxt().wrapping_sub(tcp.snd_una());
    event.unread = tcp.rcv_nxt().wrapping_sub(tcp.copied_seq());
    event.snd_wnd = tcp.snd_wnd();
    event.user_timeout_ms = tcp.user_timeout();
    event.probes = u16::from(tcp.probes());
    event.timeouts = u16::from(tcp.timeouts());
}

/// `sk` begins to listen, in a call of its owner's. Nothing tells a second time from the first, and it changes nothing.
#[inline(always)]
fn listens(sk: Sock<Typed>) -> bool {
    if setting!(CONFIG.live) != 0 && sk.is_tcp() {
        let Some(listener) = storage::get_or_zero(&LISTENERS, sk) else {
            lost(Loss::MapFull);
            return true;
        };
        listener.seen_ns = task::now_ns();
        listener.drops = sk.drops();
        listener.pid = task::pid();
        listener.kept = u32::from(filter::keeps_task());
        task::comm(&mut listener.comm);
    }
    true
}

/// A process has `sk` open when the tool starts. Whoever is found first owns it, as a child that inherited it would.
#[inline(always)]
fn is_there(holder: Holder, sk: Sock<Typed>) {
    let state = sk.state();
    if !is_inet(sk.family()) || !sk.is_tcp() || state == state::CLOSE {
        return;
    }
    let pid = holder.pid();
    let mut comm = [0; 16];
    holder.comm(&mut comm);
    let kept = filter::keeps_other(pid, || holder.uid(), &comm, || holder.cgroup());
    if state == state::LISTEN {
        let Some(listener) = storage::get_or_zero(&LISTENERS, sk) else {
            return lost(Loss::MapFull);
        };
        if listener.seen_ns == 0 {
            listener.drops = sk.drops();
            listener.pid = pid;
            listener.kept = u32::from(kept);
            listener.comm = comm;
            listener.seen_ns = task::now_ns();
        }
        return;
    }
    let Some(conn) = make(sk) else { return };
    if conn.owner == NOBODY && conn.birth_ns == 0 {
        conn.owner = READER;
        conn.pid = pid;
        conn.kept = u16::from(kept);
        conn.comm = comm;
    }
}

/// In which way `sk` is stuck, of which nobody holds the lock: each figure is right, and may be a moment newer than another.
#[inline(always)]
fn how_stuck(sk: Sock<Typed>, conn: &Conn, tcp: Tcp, state: i32) -> u16 {
    let now_ns = task::now_ns();
    let slow_ns = setting!(CONFIG.slow_us) * 1000;
    let is_slow = |since_ns: u64| slow_ns != 0 && since_ns != 0 && now_ns.saturating_sub(since_ns) > slow_ns;
    if state == state::SYN_SENT {
        return if is_slow(conn.birth_ns) { stuck::CONNECTING } else { stuck::NOT };
    }
    if tcp.timeouts() != 0 && tcp.snd_nxt() != tcp.snd_una() {
        return stuck::RESENDING;
    }
    if tcp.snd_wnd() == 0 && tcp.write_seq() != tcp.snd_nxt() {
        return stuck::SHUT_OUT;
    }
    let is_open = state == state::ESTABLISHED || state == state::CLOSE_WAIT;
    if is_open && conn.flags & SERVER != 0 && !sk.has_file() && !sk.is_dead() && is_slow(conn.established_ns)
    {
        return stuck::WAITING;
    }
    let unread = tcp.rcv_nxt().wrapping_sub(tcp.copied_seq()).wrapping_sub(u32::from(sk.is_done()));
    if is_open && unread != 0 && unread >> 31 == 0 && is_slow(tcp.last_packet_us() * 1000) {
        return stuck::UNREAD;
    }
    stuck::NOT
}

/// Looks at `sk`, which lives. It is told once for each way in which it is stuck, until that changes.
#[inline(always)]
fn looks(sk: Sock<Typed>, conn: &mut Conn) {
    let state = sk.state();
    if !sk.is_tcp() || state == state::CLOSE || state == state::LISTEN || state == state::SYN_RECV {
        return;
    }
    let Some(tcp) = Typed::tcp(sk) else { return };
    let how = how_stuck(sk, conn, tcp, state);
    if conn.stuck == how {
        return;
    }
    conn.stuck = how;
    if how != stuck::NOT {
        report(sk, tcp, conn, state, tcp.error(), LIVE);
    }
}

/// Looks at the listener `sk`.
#[inline(always)]
fn looks_at_listener(sk: Sock<Typed>, listener: &mut Listener) {
    if sk.state() != state::LISTEN {
        return;
    }
    let (drops, now_ns) = (sk.drops(), task::now_ns());
    let (before, since_ns) = (listener.drops, listener.seen_ns);
    listener.drops = drops;
    listener.seen_ns = now_ns;
    let family = sk.family();
    let lport = sk.num();
    if drops == before
        || listener.kept == 0
        || !filter::keeps_family(family)
        || !filter::keeps_ends(SockEnds { sk, lport })
    {
        return;
    }
    let Some(mut refused) = reserve_with::<Refused>(Facts::of(sk)) else { return };
    refused.ts_ns = now_ns;
    refused.span_ns = now_ns.saturating_sub(since_ns);
    sk.addrs(family, &mut refused.tuple);
    refused.tuple.lport = lport;
    refused.tuple.rport = 0;
    refused.pid = listener.pid;
    refused.drops = drops.wrapping_sub(before);
    refused.waiting = sk.waiting();
    refused.most = sk.most_waiting();
    refused.comm = listener.comm;
}

/// `skb` of `sk` was sent again.
#[inline(always)]
fn again(sk: *const u8, skb: *const u8, error: i32) {
    /// `ICSK_TIME_LOSS_PROBE` (include/net/inet_connection_sock.h).
    const LOSS_PROBE: u8 = 5;
    let (Some(sk), Some(skb)) = (Sock::<Typed>::new(sk), Skb::<Typed>::new(skb)) else { return };
    if error != 0 || !sk.is_tcp() {
        return;
    }
    let (Some(conn), Some(tcp)) = (make(sk), Typed::tcp(sk)) else { return };
    // Alone: TCP sends again with the socket's lock held, and no other program adds to these.
    if sk.state() == state::SYN_SENT {
        conn.syns += 1;
        conn.syn_ns = task::now_ns();
        note(sk, moment::SYN_AGAIN, conn.syns);
        return;
    }
    // Later it is known only when this was sent again.
    if conn.asked_us == 0 {
        speaks(conn, tcp);
    }
    let segments = skb.tcp_segments();
    let what = match tcp.pending() {
        // The timer of retransmissions is not pending while it does its work.
        0 => {
            conn.rto += segments;
            moment::RTO
        }
        LOSS_PROBE if tcp.lost_out() == 0 => {
            conn.tlp += segments;
            moment::TLP
        }
        _ => {
            conn.fast += segments;
            moment::FAST
        }
    };
    if setting!(CONFIG.events) != 0 {
        note(sk, what, place(conn, tcp, skb.tcp_seq()));
    }
}

/// A sequence number as it is counted from our SYN, which the kernel does not keep: what was acknowledged since tells it, the
/// SYN of a client included.
#[inline(always)]
fn place(conn: &Conn, tcp: Tcp, seq: u32) -> u32 {
    let first = tcp.snd_una().wrapping_sub(tcp.bytes_acked() as u32);
    seq.wrapping_sub(first).wrapping_add(u32::from(conn.flags & CLIENT == 0))
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        let (old, new): (u64, u64) = (ctx.arg(1), ctx.arg(2));
        changed(sk, old as i32, new as i32, false);
        NOTES.done(sk, old, new);
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_again_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        let (old, new): (u64, u64) = (ctx.arg(1), ctx.arg(2));
        if !NOTES.was_done(sk, old, new) && changed(sk, old as i32, new as i32, true) {
            lost(Loss::MadeUp);
        }
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn read_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        reads(sk);
    }
    0
}

// match-proto: void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb) (up to 6.14)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn again2_tp(ctx: BtfTracePointContext) -> i32 {
    again(ctx.arg(0), ctx.arg(1), 0);
    0
}

// match-proto: void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err) (since 6.17)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn again3_tp(ctx: BtfTracePointContext) -> i32 {
    again(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// A RST came for `sk`, or what the kernel takes for one. Answers whether this was news.
#[inline(always)]
fn resets(sk: Sock<Typed>) -> bool {
    let Some(conn) = make(sk) else { return true };
    let first = conn.flags & RESET == 0;
    conn.flags |= RESET;
    if first {
        note(sk, moment::RESET, 0);
    }
    first
}

// match-proto: void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        resets(sk);
    }
    0
}

// match-proto: void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_again_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && resets(sk)
    {
        lost(Loss::MadeUp);
    }
    0
}

// match-proto: void inet_sk_error_report(const struct sock *sk) (since 5.13)
#[btf_tracepoint(function = "inet_sk_error_report")]
fn error_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && let Some(conn) = storage::get(&CONNS, sk)
        && let Some(tcp) = Typed::tcp(sk)
    {
        conn.flags |= REPORTED;
        let error = tcp.error();
        conn.error = if error == 0 { tcp.soft_error() } else { error };
        note(sk, moment::ERROR, conn.error as u32);
    }
    0
}

/// Once, at the start: who has which socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn there_iter(open: &OverFiles) -> i32 {
    if let Some((holder, file)) = open.get()
        && let Some(sk) = file.socket()
    {
        is_there(holder, sk);
    }
    0
}

/// Looks at live sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn live_iter(ctx: *const OverSockets) -> i32 {
    // SAFETY: the kernel calls it with that, for values of CONNS.
    if let Some((sk, conn)) = unsafe { OverSockets::get::<Conn>(ctx) } {
        looks(sk, conn);
    }
    0
}

/// Looks at listeners.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn listener_iter(ctx: *const OverSockets) -> i32 {
    // SAFETY: the kernel calls it with that, for values of LISTENERS.
    if let Some((sk, listener)) = unsafe { OverSockets::get::<Listener>(ctx) } {
        looks_at_listener(sk, listener);
    }
    0
}
