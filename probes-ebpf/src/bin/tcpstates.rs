//! tcpstates: one event per change of a TCP socket's state, with the time that it spent in the state before.
//!
//! `sock:inet_sock_set_state` (since 4.16) sees every transition. `tcp_set_state` sees all but those of listeners
//! (CLOSE to LISTEN) and of their new children (LISTEN to SYN_RECV), which the kernel makes elsewhere.
//!
//! The time of the last transition is kept with the socket itself where the program is typed, and in a table keyed
//! by its address in kprobes. CLOSE forgets it: the kernel reuses addresses at once.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::AF_INET;
use netbcc_common::loss::Loss;
use netbcc_common::tcpstates::Event;
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::sock::{Sock, state};
use probes_ebpf::{setting, storage, task};

/// 1: the time in a state from before the start is counted from the start. Set by user space before loading.
#[unsafe(no_mangle)]
static EXISTING: u32 = 0;

/// When user space saw that all is attached, ns; 0: not yet.
#[map]
static STARTED: Array<u64> = Array::with_max_entries(1, 0);

/// When the last transition was, for typed programs.
#[btf_map]
static SINCE: SkStorage<u64> = SkStorage::new();

/// When the last transition was by the socket's address, for kprobes. Every way to CLOSE deletes the entry.
#[map]
static SINCE_BY_SK: HashMap<u64, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where the time of a socket's last transition is kept.
trait Since: Owned {
    /// That time, made (0) if there was none; `None`: there is no room.
    fn make(sk: Sock<Self>) -> Option<&'static mut u64>;
    /// Forgets it; answers what it was, 0 if unknown.
    fn take(sk: Sock<Self>) -> u64;
}

impl Since for Typed {
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut u64> {
        storage::get_or_zero(&SINCE, sk)
    }
    #[inline(always)]
    fn take(sk: Sock<Self>) -> u64 {
        // The socket may be opened again; its memory stays with it until it is freed.
        storage::get(&SINCE, sk).map_or(0, |since| core::mem::replace(since, 0))
    }
}

impl Since for Probed {
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut u64> {
        storage::entry_or_zero(&SINCE_BY_SK, sk.id())
    }
    #[inline(always)]
    fn take(sk: Sock<Self>) -> u64 {
        let since = storage::entry(&SINCE_BY_SK, sk.id()).map_or(0, |since| *since);
        if since != 0 {
            let _gone_already = SINCE_BY_SK.remove(sk.id());
        }
        since
    }
}

/// `sk` goes from state `old` to `new`. `sees_all`: the program sees how listeners and their new connections begin, too.
#[inline(always)]
fn state_changed<A: Since>(sk: Sock<A>, old: i32, new: i32, sees_all: bool) {
    let family = sk.family();
    if !filter::keeps_family(family) || !sk.is_tcp() {
        return;
    }
    let Some(tcp) = A::tcp(sk) else { return };
    let (lport, rport) = (tcp.sport(), sk.rport());
    if !owner::is_by_owner() && !filter::keeps_group(|| sk.cgroup())
        || !filter::keeps_ends(SockEnds { sk, lport })
    {
        // As BCC: the next row of this socket knows of no time before. Else that would be taken for one from before the start.
        if setting!(EXISTING) == 0 || new == state::CLOSE {
            A::take(sk);
        } else if let Some(since) = A::make(sk) {
            *since = task::now_ns();
        } else {
            lost(Loss::MapFull);
        }
        return;
    }
    let now_ns = task::now_ns();
    let since = if new == state::CLOSE {
        A::take(sk)
    } else if let Some(since) = A::make(sk) {
        core::mem::replace(since, now_ns)
    } else {
        lost(Loss::MapFull);
        return;
    };
    // Only now: another task's changes are part of the time of the next one.
    let facts = Facts::of(sk);
    if !owner::keeps(|| facts.owner, || sk.cgroup()) {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(facts) else { return };
    event.ts_ns = now_ns;
    let begins = old == state::CLOSE || old == state::LISTEN && new == state::SYN_RECV;
    event.span_ns = if since == 0 || begins { 0 } else { now_ns.saturating_sub(since) };
    event.existing = 0;
    let is_unseen = !sees_all && (old == state::LISTEN || old == state::SYN_RECV);
    if setting!(EXISTING) != 0 && since == 0 && !begins && !is_unseen {
        let started_ns = STARTED.get(0).copied().unwrap_or(0);
        if started_ns != 0 {
            event.existing = 1;
            event.span_ns = now_ns.saturating_sub(started_ns);
        }
    }
    event.sk = sk.id();
    sk.addrs(family, &mut event.tuple);
    if family == AF_INET {
        // The source address of packets, as the tracepoint's own fields; it differs where a socket is bound to a
        // multicast address.
        event.tuple.laddr[0] = tcp.saddr();
    }
    event.tuple.lport = lport;
    event.tuple.rport = rport;
    event.pid = task::pid();
    event.old = old;
    event.new = new;
    task::comm_by::<A>(&mut event.comm);
}

probes_ebpf::owner_programs!();

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        state_changed(sk, ctx.arg(1), ctx.arg(2), true);
    }
    0
}

/// `sk` is about to go from state `old` to `new`. Its owner has to be known first, and programs at a function run in no certain order.
#[inline(always)]
fn owned<A: Since>(sk: Sock<A>, old: i32, new: i32) {
    if owner::is_wanted() {
        owner::changed(sk, old, new);
    }
    state_changed(sk, old, new, false);
}

// match-proto: void tcp_set_state(struct sock *sk, int state)
#[fentry(function = "tcp_set_state")]
fn state_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        owned(sk, sk.state(), ctx.arg(1));
    }
    0
}

// match-proto: void tcp_set_state(struct sock *sk, int state)
#[kprobe]
fn state_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(new)) = (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1)) {
        owned(sk, sk.state(), new);
    }
    0
}
