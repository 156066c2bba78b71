//! solisten: one event per call that makes a TCP socket listen, or tries to, with what the socket is at that moment.
//!
//! `inet_listen` is where listen() of a TCP socket arrives, failing ones included. Since 6.6 MPTCP's listen() calls
//! `__inet_listen_sk` for its subflow instead, which `inet_listen` calls as well: there an event is dropped while the
//! same thread is inside `inet_listen` with the same socket.
//!
//! Without either, `sock:inet_sock_set_state` sees CLOSE to LISTEN, in the caller's context and with the backlog
//! already stored. A listen() that changes no state, on a listening or a connected socket, is seen on its way in, by
//! `raw_syscalls:sys_enter`.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::solisten::{Config, Event};
use probes_ebpf::emit::reserve_with;
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::sock::{Sock, is_inet, socket_sk, state};
use probes_ebpf::syscall::{self, Regs};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { listen: u64::MAX };

/// Sockets of threads that are inside `inet_listen`, by thread.
#[map]
static CALLS: HashMap<u32, u64> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Whether a listen() of `sk` by the current task is asked for.
#[inline(always)]
fn keeps<A: Access>(sk: Sock<A>) -> bool {
    filter::keeps_task() && filter::keeps_ends(sk)
}

/// The current task makes `sk` listen. It passed the filters.
#[inline(always)]
fn listens<A: Owned>(sk: Sock<A>, backlog: i32) {
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    let family = sk.family();
    event.ts_ns = task::now_ns();
    sk.laddr(family, &mut event.laddr);
    event.pid = task::pid();
    event.netns = sk.netns();
    event.backlog = backlog;
    event.lport = sk.num();
    event.family = family;
    task::comm_by::<A>(&mut event.comm);
}

/// `inet_listen` begins, on a kernel where `__inet_listen_sk` is watched, too.
#[inline(always)]
fn entered<A: Owned>(sk: Sock<A>, backlog: i32) {
    // No room to remember the call: then the row comes from the inner function.
    if keeps(sk) && CALLS.insert(task::pid_tid() as u32, sk.id(), 0).is_ok() {
        listens(sk, backlog);
    }
}

/// `inet_listen` ends.
#[inline(always)]
fn left() {
    let _filtered = CALLS.remove(task::pid_tid() as u32);
}

/// `__inet_listen_sk` begins.
#[inline(always)]
fn entered_inner<A: Owned>(sk: Sock<A>, backlog: i32) {
    if keeps(sk) && storage::entry(&CALLS, task::pid_tid() as u32).is_none_or(|outer| *outer != sk.id()) {
        listens(sk, backlog);
    }
}

// match-proto: int inet_listen(struct socket *sock, int backlog)
#[fentry(function = "inet_listen")]
fn listen_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = socket_sk::<Typed>(ctx.arg(0))
        && keeps(sk)
    {
        listens(sk, ctx.arg(1));
    }
    0
}

// match-proto: int inet_listen(struct socket *sock, int backlog)
#[fentry(function = "inet_listen")]
fn enter_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = socket_sk::<Typed>(ctx.arg(0)) {
        entered(sk, ctx.arg(1));
    }
    0
}

// match-proto: int inet_listen(struct socket *sock, int backlog)
#[fexit(function = "inet_listen")]
fn leave_fexit(_ctx: FExitContext) -> i32 {
    left();
    0
}

// match-proto: int __inet_listen_sk(struct sock *sk, int backlog) (since 6.6)
#[fentry(function = "__inet_listen_sk")]
fn inner_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        entered_inner(sk, ctx.arg(1));
    }
    0
}

// match-proto: int inet_listen(struct socket *sock, int backlog)
#[kprobe]
fn listen_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(backlog)) = (ctx.arg(0).and_then(socket_sk::<Probed>), ctx.arg(1))
        && keeps(sk)
    {
        listens(sk, backlog);
    }
    0
}

// match-proto: int inet_listen(struct socket *sock, int backlog)
#[kprobe]
fn enter_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(backlog)) = (ctx.arg(0).and_then(socket_sk::<Probed>), ctx.arg(1)) {
        entered(sk, backlog);
    }
    0
}

#[kretprobe]
fn leave_kretprobe(_ctx: RetProbeContext) -> u32 {
    left();
    0
}

// match-proto: int __inet_listen_sk(struct sock *sk, int backlog) (since 6.6)
#[kprobe]
fn inner_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(backlog)) = (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1)) {
        entered_inner(sk, backlog);
    }
    0
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    // MPTCP's own socket changes its state as well as its subflow: one of both is enough.
    if ctx.arg::<i32>(2) == state::LISTEN
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && keeps(sk)
    {
        listens(sk, sk.backlog());
    }
    0
}

// match-proto: void sys_enter(struct pt_regs *regs, long id)
#[btf_tracepoint(function = "sys_enter")]
fn again_tp(ctx: BtfTracePointContext) -> i32 {
    // Every system call comes by: look at as little as possible. A 32-bit one's numbers mean other calls.
    if ctx.arg::<u64>(1) == setting!(CONFIG.listen)
        && !syscall::is_compat()
        && let Some(regs) = Regs::new(ctx.arg(0))
    {
        let (fd, backlog) = regs.args();
        if let Some(sk) = syscall::socket(fd as u32)
            && changes_no_state(sk)
            && keeps(sk)
        {
            // As the kernel is about to limit it.
            listens(sk, (backlog as u32).min(sk.somaxconn()) as i32);
        }
    }
    0
}

/// Whether a listen() of `sk` leaves its state alone, and yet arrives where the other rungs see it.
#[inline(always)]
fn changes_no_state(sk: Sock<Probed>) -> bool {
    if !is_inet(sk.family()) || !sk.is_stream() {
        return false;
    }
    let now = sk.state();
    sk.is_tcp() && now != state::CLOSE || sk.is_mptcp() && now == state::LISTEN
}
