//! tcpretrans: one event per packet that TCP sends again, with `-l` per tail loss probe, with `--synack` per SYN-ACK;
//! flows counted with `-c`.
//!
//! `tcp:tcp_retransmit_skb` (since 4.15) is hit in `__tcp_retransmit_skb`, so by every cause: timeout, fast
//! retransmit, SYN, and the probe that sends its last segment again. Since 6.17 it is hit by failed attempts as well,
//! and says so. The function `tcp_retransmit_skb` is called by all but the probe, and answers whether it failed.
//!
//! Probes: `tcp_send_loss_probe` is called for each. Where nothing can hang on a function, `timer:timer_expire_entry`
//! sees the timer of every socket, among all other timers: it is one that calls TCP's function. Which address that
//! has is learned from any TCP socket that is destroyed; user space makes one for that.
//!
//! SYN-ACKs: `tcp_rtx_synack` sends each, for the timer and for a SYN that comes once more, MPTCP's too. It hits
//! `tcp:tcp_retransmit_synack` (since 4.15) where that worked. Both have the request, which begins as a socket does.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, kprobe, map};
use aya_ebpf::maps::{Array, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext};
use netbcc_common::addr::Tuple;
use netbcc_common::loss::Loss;
use netbcc_common::tcpretrans::{Config, Event, FAILED, LOSS_PROBE, RETRANSMIT, SYN_ACK};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::skb::Skb;
use probes_ebpf::sock::{Sock, state};
use probes_ebpf::timer::{self, Timer};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { count: 0, failed: 0 };

/// Retransmissions per flow, for `-c`.
#[map]
static FLOWS: PerCpuHashMap<Tuple, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Segments per flow, for `-c`: what was sent again at once counts as all that it has.
#[map]
static SEGMENTS: PerCpuHashMap<Tuple, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Address of the function that TCP's timers call, once it is known.
#[map]
static WRITE_TIMER: Array<u64> = Array::with_max_entries(1, 0);

/// What is sent, and in which state: its first sequence number, how many segments it has, the state.
type What = (u32, u32, i32);

/// Something happens to `sk`; of a connection that is not complete yet, whoever has `listener` owns it.
#[inline(always)]
fn happens<A: Owned>(sk: Sock<A>, listener: Sock<A>, kind: u32, error: i32, what: impl FnOnce() -> What) {
    let family = sk.family();
    if !filter::keeps_family(family) || !owner::keeps(|| owner::of(listener), || sk.cgroup()) {
        return;
    }
    if !filter::keeps_ends(sk) {
        return;
    }
    if setting!(CONFIG.count) != 0 {
        let mut flow = Tuple::default();
        ends(sk, family, &mut flow);
        let segments = what().1;
        // One loss for both tables, which have the same flows, but for those with nothing but probes.
        if !storage::add(&FLOWS, flow, 1)
            || segments != 0 && !storage::add(&SEGMENTS, flow, u64::from(segments))
        {
            lost(Loss::MapFull);
        }
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of_request(sk, listener)) else { return };
    event.ts_ns = task::now_ns();
    ends(sk, family, &mut event.tuple);
    event.pid = task::pid();
    (event.seq, event.segments, event.state) = what();
    event.error = error;
    event.kind = kind;
}

#[inline(always)]
fn ends<A: Access>(sk: Sock<A>, family: u16, to: &mut Tuple) {
    sk.addrs(family, to);
    to.lport = sk.num();
    to.rport = sk.rport();
}

/// `skb` of `sk` was sent again, or not; not more of it than this many segments.
#[inline(always)]
fn again<A: Owned>(sk: *const u8, skb: *const u8, error: i32, most: u32) {
    let (Some(sk), Some(skb)) = (Sock::<A>::new(sk), Skb::<A>::new(skb)) else { return };
    let what = || (skb.tcp_seq(), skb.tcp_segments().min(most), sk.state());
    if error == 0 {
        happens(sk, sk, RETRANSMIT, 0, what);
    } else if setting!(CONFIG.failed) != 0 {
        happens(sk, sk, FAILED, error, what);
    }
}

probes_ebpf::owner_programs!();

// match-proto: void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb) (up to 6.14)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn again2_tp(ctx: BtfTracePointContext) -> i32 {
    again::<Typed>(ctx.arg(0), ctx.arg(1), 0, u32::MAX);
    0
}

// match-proto: void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err) (since 6.17)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn again3_tp(ctx: BtfTracePointContext) -> i32 {
    again::<Typed>(ctx.arg(0), ctx.arg(1), ctx.arg(2), u32::MAX);
    0
}

// match-proto: int tcp_retransmit_skb(struct sock *sk, struct sk_buff *skb, int segs)
#[fexit(function = "tcp_retransmit_skb")]
fn again_fexit(ctx: FExitContext) -> i32 {
    // The return value lies behind the arguments. The verifier of 6.1 does not know that bpf_get_func_ret changes
    // the variable that it is given, and removes code that asks for it.
    again::<Typed>(ctx.arg(0), ctx.arg(1), ctx.arg(3), u32::MAX);
    0
}

// match-proto: int tcp_retransmit_skb(struct sock *sk, struct sk_buff *skb, int segs)
#[kprobe]
fn again_kprobe(ctx: ProbeContext) -> u32 {
    // Called before the packet is cut to what is to be sent of it.
    if let (Some(sk), Some(skb), Some(most)) = (ctx.arg(0), ctx.arg(1), ctx.arg::<i32>(2)) {
        again::<Probed>(sk, skb, 0, most.cast_unsigned());
    }
    0
}

#[inline(always)]
fn probes<A: Owned>(sk: Sock<A>) {
    happens(sk, sk, LOSS_PROBE, 0, || (0, 0, sk.state()));
}

// match-proto: void tcp_send_loss_probe(struct sock *sk)
#[fentry(function = "tcp_send_loss_probe")]
fn probe_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        probes(sk);
    }
    0
}

// match-proto: void tcp_send_loss_probe(struct sock *sk)
#[kprobe]
fn probe_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        probes(sk);
    }
    0
}

// match-proto: void timer_expire_entry(struct timer_list *timer, unsigned long baseclk)
#[btf_tracepoint(function = "timer_expire_entry")]
fn timer_tp(ctx: BtfTracePointContext) -> i32 {
    // Every timer of the kernel comes by.
    if let Some(timer) = Timer::new(ctx.arg(0))
        && WRITE_TIMER.get(0).is_some_and(|known| *known == timer.function())
        && let Some(sk) = timer.socket()
        && timer::is_loss_probe(sk)
    {
        probes(sk);
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn learn_tp(ctx: BtfTracePointContext) -> i32 {
    if WRITE_TIMER.get(0).is_some_and(|known| *known == 0)
        && let Some(sk) = Sock::<Probed>::new(ctx.arg(0))
    {
        let _array_entries_are_there = WRITE_TIMER.set(0, timer::function_of(sk), 0);
    }
    0
}

/// The SYN-ACK of a request to a listener was sent again, or not.
#[inline(always)]
fn syn_acks<A: Owned>(listener: *const u8, request: *const u8, error: i32) {
    let (Some(listener), Some(as_socket)) = (Sock::<A>::new(listener), Sock::<A>::new(request)) else {
        return;
    };
    // The kernel calls this state of a request NEW_SYN_RECV.
    let what = || (as_socket.syn_ack_number(), 1, state::SYN_RECV);
    if error == 0 {
        happens(as_socket, listener, SYN_ACK, 0, what);
    } else if setting!(CONFIG.failed) != 0 {
        happens(as_socket, listener, FAILED, error, what);
    }
}

// match-proto: void tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn synack_tp(ctx: BtfTracePointContext) -> i32 {
    syn_acks::<Typed>(ctx.arg(0), ctx.arg(1), 0);
    0
}

// match-proto: int tcp_rtx_synack(const struct sock *sk, struct request_sock *req)
#[fexit(function = "tcp_rtx_synack")]
fn synack_fexit(ctx: FExitContext) -> i32 {
    // The return value lies behind the arguments.
    syn_acks::<Typed>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

// match-proto: int tcp_rtx_synack(const struct sock *sk, struct request_sock *req)
#[kprobe]
fn synack_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(listener), Some(request)) = (ctx.arg(0), ctx.arg(1)) {
        syn_acks::<Probed>(listener, request, 0);
    }
    0
}
