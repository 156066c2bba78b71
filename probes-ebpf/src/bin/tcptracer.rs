//! tcptracer: active opens that are established (C), accepts (A) and closes (X).
//!
//! C: who connects is noted when the socket goes to SYN_SENT, in its own system call, and told when it goes to
//! ESTABLISHED, in whoever's context. A: as in tcpaccept. X: at the entry of `tcp_close`, unless the socket is known
//! never to have been connected.
//!
//! Without fentry and kprobes, X is where close() changes the state, which shutdown() does as well: what that began is
//! noted and told when the socket is closed, which is seen only when nothing is left of the connection
//! ([`netbcc_common::tcptracer::Stage`]).
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::Tuple;
use netbcc_common::loss::Loss;
use netbcc_common::tcptracer::{
    ACCEPT, CLOSE, CONNECT, Config, Event, FAILED, GONE, Life, OPENING, SHUT, UNKNOWN, Who,
};
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::sock::{Sock, ToTcp, is_inet, state};
use probes_ebpf::syscall::{self, Regs};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { accepts: [u64::MAX; 2], shutdown: u64::MAX };

/// What is known of sockets, for typed programs.
#[btf_map]
static LIVES: SkStorage<Life> = SkStorage::new();

/// The same by socket address, for kprobes. Cleared when a socket is destroyed.
#[map]
static LIVES_BY_SK: HashMap<u64, Life> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where what is known of a socket is kept.
trait Lives: ToTcp {
    /// What is known of `sk`, if anything.
    fn get(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// The same, made if there was nothing. `None`: there is no room.
    fn make(sk: Sock<Self>) -> Option<&'static mut Life>;
}

impl Lives for Typed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::get(&LIVES, sk)
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::get_or_zero(&LIVES, sk)
    }
}

impl Lives for Probed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::entry(&LIVES_BY_SK, sk.id())
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::entry_or_zero(&LIVES_BY_SK, sk.id())
    }
}

/// Writes who the current task is.
#[inline(always)]
fn current(who: &mut Who) {
    who.pid = task::pid();
    who.uid = task::uid();
    task::comm(&mut who.comm);
}

/// A socket, and how its network namespace is told.
///
/// Typed programs of many paths read that once, before they part: newer verifiers search the whole of the kernel's BTF
/// several times for each place where a pointer is loaded through a trusted one (`btf_nested_type_is_trusted`, Linux 6.3),
/// which took most of this tool's start.
#[derive(Clone, Copy)]
struct Seen<A, N> {
    sk: Sock<A>,
    netns: N,
}

impl<A: ToTcp, N: Fn() -> u32 + Copy> Seen<A, N> {
    /// Whether something that the current task does with the socket is asked for.
    #[inline(always)]
    fn is_kept(self) -> bool {
        let family = self.sk.family();
        is_inet(family)
            && filter::keeps_family(family)
            && filter::keeps_task()
            && filter::keeps_netns(self.netns)
    }

    /// Tells what happened to the socket; `who` did it, or else the current task.
    #[inline(always)]
    fn report(self, kind: u32, tuple: &Tuple, who: Option<&Who>) {
        let Some(mut event) = reserve::<Event>() else { return };
        event.ts_ns = task::now_ns();
        event.tuple = *tuple;
        event.kind = kind;
        event.netns = (self.netns)();
        match who {
            Some(who) => event.who = *who,
            None => current(&mut event.who),
        }
    }

    /// The current task accepted or closes the socket.
    #[inline(always)]
    fn does(self, kind: u32) {
        if self.is_kept()
            && let Some(tuple) = ends(self.sk)
        {
            self.report(kind, &tuple, None);
        }
    }
}

/// As it is asked for.
#[inline(always)]
fn seen<A: ToTcp>(sk: Sock<A>) -> Seen<A, impl Fn() -> u32 + Copy> {
    Seen { sk, netns: move || sk.netns() }
}

/// As it is now.
#[inline(always)]
fn seen_whole(sk: Sock<Typed>) -> Seen<Typed, impl Fn() -> u32 + Copy> {
    let netns = sk.netns();
    Seen { sk, netns: move || netns }
}

/// Both ends of `sk`; `None` if one of them is missing: it listens, or is not connected.
#[inline(always)]
fn ends<A: ToTcp>(sk: Sock<A>) -> Option<Tuple> {
    let mut tuple =
        Tuple { laddr: [0; 4], raddr: [0; 4], lport: sk.num(), rport: sk.rport(), family: 0, zero: 0 };
    if tuple.rport == 0 {
        return None;
    }
    if tuple.lport == 0
        && let Some(tcp) = A::tcp(sk)
    {
        // After the end of a connection its port is released, and yet known.
        tuple.lport = tcp.sport();
    }
    sk.addrs(sk.family(), &mut tuple);
    let is_zero = |[a, b, c, d]: [u32; 4]| a | b | c | d == 0;
    (tuple.lport != 0 && !is_zero(tuple.laddr) && !is_zero(tuple.raddr)).then_some(tuple)
}

/// The current task connects the socket.
#[inline(always)]
fn opens<A: Lives, N: Fn() -> u32 + Copy>(seen: Seen<A, N>) {
    if !seen.is_kept() {
        return;
    }
    let Some(life) = A::make(seen.sk) else {
        lost(Loss::MapFull);
        return;
    };
    life.stage = OPENING;
    life.tuple.family = 0;
    current(&mut life.who);
}

/// What began with [`opens`] ended: the socket is connected, or is not.
#[inline(always)]
fn opened<A: Lives, N: Fn() -> u32 + Copy>(seen: Seen<A, N>, life: &mut Life, established: bool) {
    if !established {
        life.stage = FAILED;
        return;
    }
    life.stage = UNKNOWN;
    if let Some(tuple) = ends(seen.sk) {
        seen.report(CONNECT, &tuple, Some(&life.who));
    }
}

/// The socket, which is TCP's, goes to state `new`.
#[inline(always)]
fn active_open<A: Lives, N: Fn() -> u32 + Copy>(seen: Seen<A, N>, new: i32) {
    if new == state::SYN_SENT {
        opens(seen);
    } else if (new == state::ESTABLISHED || new == state::CLOSE)
        && let Some(life) = A::get(seen.sk)
        && life.stage == OPENING
    {
        opened(seen, life, new == state::ESTABLISHED);
    }
}

/// The current task took `sk` off an accept queue.
#[inline(always)]
fn accepted<A: ToTcp>(sk: Sock<A>) {
    if is_inet(sk.family()) && (sk.is_tcp() || sk.is_mptcp()) {
        seen(sk).does(ACCEPT);
    }
}

/// The last descriptor of `sk` is closed.
#[inline(always)]
fn closes<A: Lives>(sk: Sock<A>) {
    let now = sk.state();
    if now == state::SYN_SENT || now == state::SYN_RECV || now == state::NEW_SYN_RECV || !seen(sk).is_kept() {
        return;
    }
    if A::get(sk).is_some_and(|life| life.stage == FAILED) {
        return;
    }
    if let Some(tuple) = ends(sk) {
        seen(sk).report(CLOSE, &tuple, None);
    }
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn open_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
    {
        active_open(seen(sk), ctx.arg(2));
    }
    0
}

// match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
#[fentry(function = "security_sock_graft")]
fn graft_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        accepted(sk);
    }
    0
}

// match-proto: void tcp_close(struct sock *sk, long timeout)
#[fentry(function = "tcp_close")]
fn close_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        closes(sk);
    }
    0
}

// match-proto: void tcp_set_state(struct sock *sk, int state)
#[kprobe]
fn open_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(new)) = (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1)) {
        active_open(seen(sk), new);
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

// match-proto: void tcp_close(struct sock *sk, long timeout)
#[kprobe]
fn close_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        closes(sk);
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn forget_tp(ctx: BtfTracePointContext) -> i32 {
    let _unknown = LIVES_BY_SK.remove(ctx.arg::<u64>(0));
    0
}

/// Whether the current thread is in shutdown().
#[inline(always)]
fn is_in_shutdown() -> bool {
    Regs::current().is_some_and(|regs| regs.call() == setting!(CONFIG.shutdown)) && !syscall::is_compat()
}

/// close() or shutdown() begins the connection's end, in the caller's context.
#[inline(always)]
fn finishes<N: Fn() -> u32 + Copy>(seen: Seen<Typed, N>) {
    if !is_in_shutdown() {
        seen.does(CLOSE);
        return;
    }
    if !seen.is_kept() {
        return;
    }
    let Some(life) = Typed::make(seen.sk) else {
        lost(Loss::MapFull);
        return;
    };
    life.stage = SHUT;
    life.tuple.family = 0;
    current(&mut life.who);
}

/// The connection is at its end, in any context.
#[inline(always)]
fn ended<N: Fn() -> u32 + Copy>(seen: Seen<Typed, N>, old: i32) {
    let sk = seen.sk;
    let has_file = sk.has_file();
    let life = Typed::get(sk);
    if let Some(life) = life {
        if life.stage == OPENING {
            opened(seen, life, false);
            return;
        }
        if life.stage == SHUT {
            if !has_file {
                // Closed while the connection was still ending: by whoever had shut it down, as far as is known.
                life.stage = UNKNOWN;
                if let Some(tuple) = ends(sk) {
                    seen.report(CLOSE, &tuple, Some(&life.who));
                }
            } else if let Some(tuple) = ends(sk) {
                life.tuple = tuple;
            }
            return;
        }
    }
    // Without a file the socket was never accepted, or its close was told.
    if (old != state::ESTABLISHED && old != state::CLOSE_WAIT) || !has_file {
        return;
    }
    if sk.is_shut() {
        // close() resets the connection, because of unread data or SO_LINGER.
        seen.does(CLOSE);
    } else if filter::keeps_family(sk.family()) && filter::keeps_netns(seen.netns) {
        // Reset by the other end, or timed out: the socket is still to be closed.
        match Typed::make(sk) {
            Some(life) => {
                life.stage = GONE;
                life.tuple.family = 0;
            }
            None => lost(Loss::MapFull),
        }
    }
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    if !sk.is_tcp() {
        return 0;
    }
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let seen = seen_whole(sk);
    let finishing = old == state::ESTABLISHED && new == state::FIN_WAIT1
        || old == state::CLOSE_WAIT && new == state::LAST_ACK;
    if finishing || new == state::CLOSE {
        // The socket above the subflows is what a process closes.
        if Typed::tcp(sk).is_some_and(|tcp| tcp.is_mptcp()) {
            return 0;
        }
        if finishing { finishes(seen) } else { ended(seen, old) }
    } else {
        active_open(seen, new);
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn destroy_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && let Some(life) = Typed::get(sk)
    {
        let seen = seen_whole(sk);
        if life.stage == GONE {
            seen.does(CLOSE);
        } else if life.stage == SHUT {
            if life.tuple.family != 0 {
                seen.report(CLOSE, &life.tuple, Some(&life.who));
            } else if let Some(tuple) = ends(sk) {
                seen.report(CLOSE, &tuple, Some(&life.who));
            }
        }
        life.stage = UNKNOWN;
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
