//! tcpaccept: one event per connection that a task takes off an accept queue, in the context of that task.
//!
//! `security_sock_graft` (where the kernel has CONFIG_SECURITY_NETWORK, as distributions' do) is called when the new
//! connection gets its file's side: for every way to accept, and by threads, too, that were waiting in accept() before
//! the start. An exit probe of `inet_csk_accept` would miss those.
//!
//! Without it, the results of the system calls accept and accept4 are descriptors, and those tell the sockets.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::tcpaccept::{Config, Event};
use probes_ebpf::emit::reserve_with;
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::sock::{Sock, is_inet};
use probes_ebpf::syscall::{self, Regs};
use probes_ebpf::{setting, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { accepts: [u64::MAX; 2] };

/// The current task accepted `sk`.
#[inline(always)]
fn accepted<A: Owned>(sk: Sock<A>) {
    let family = sk.family();
    if !is_inet(family) || !(sk.is_tcp() || sk.is_mptcp()) {
        return;
    }
    if !filter::keeps_family(family) || !filter::keeps_task() {
        return;
    }
    let mut lport = sk.num();
    if lport == 0
        && let Some(tcp) = A::tcp(sk)
    {
        // Reset while it waited in the queue: the port is released, and yet known.
        lport = tcp.sport();
    }
    if !filter::keeps_ends(SockEnds { sk, lport }) {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    event.ts_ns = task::now_ns();
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = lport;
    event.tuple.rport = sk.rport();
    event.pid = task::pid();
    event.zero = 0;
    task::comm_by::<A>(&mut event.comm);
}

// match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
#[fentry(function = "security_sock_graft")]
fn graft_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        accepted(sk);
    }
    0
}

// match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
#[kprobe]
fn graft_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        accepted(sk);
    }
    0
}

// match-proto: void sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    // Every system call comes by: look at as little as possible.
    if let Some(regs) = Regs::new(ctx.arg(0))
        && let Some(sk) = syscall::accepted(regs, ctx.arg(1), setting!(CONFIG.accepts))
    {
        accepted(sk);
    }
    0
}
