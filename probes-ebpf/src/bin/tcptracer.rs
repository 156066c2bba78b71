//! tcptracer: active opens that are established (C), accepts (A) and closes (X).
//!
//! C: who connects is noted when the socket goes to SYN_SENT, in its own system call, and told when it goes to
//! ESTABLISHED, in whoever's context. Who opens a further subflow of an MPTCP connection is who connected or accepted the
//! MPTCP socket. A: as in tcpaccept. X: at the entry of `tcp_close`, unless the socket is known
//! never to have been connected (both by what was seen of it, and by what it is).
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
use netbcc_common::tcplife::ACCEPTOR;
use netbcc_common::tcptracer::{
    ACCEPT, CLOSE, CONNECT, Config, Event, FAILED, GONE, Life, OPENING, SHUT, UNKNOWN, Who,
};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::mptcp::{self, Opener, Owners};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::sock::{Sock, ToTcp, is_inet, state};
use probes_ebpf::syscall::{self, Regs};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { accepts: [u64::MAX; 2], shutdown: u64::MAX };

/// What is known of sockets, for typed programs.
#[btf_map]
static LIVES: SkStorage<Life> = SkStorage::new();

/// What is known of sockets by their addresses, for kprobes. An entry goes when its socket is destroyed.
#[map]
static LIVES_BY_SK: HashMap<u64, Life> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Who connected or accepted MPTCP sockets, if they are asked for.
#[map]
static OWNERS_BY_MPTCP: Owners = mptcp::owners();

/// Where what is known of a socket is kept.
trait Lives: Owned {
    /// What is known of `sk`, if anything.
    fn get(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// What is known of `sk`, made if there was nothing. `None`: there is no room.
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
fn current<A: Access>(who: &mut Who) {
    who.pid = task::pid();
    who.uid = task::uid();
    task::comm_by::<A>(&mut who.comm);
}

/// Whether something that the current task does with the socket is asked for.
#[inline(always)]
fn is_kept<A: Access>(sk: Sock<A>) -> bool {
    is_kept_by_socket(sk) && filter::keeps_task()
}

/// Whether the filters of sockets keep this one.
#[inline(always)]
fn is_kept_by_socket<A: Access>(sk: Sock<A>) -> bool {
    let family = sk.family();
    is_inet(family) && filter::keeps_family(family) && filter::keeps_netns(|| sk.netns())
}

/// Something to tell. What programs see is decided first and told at one place: a copy of that for each case is most of
/// what the verifier would look at.
#[derive(Clone, Copy)]
struct News<'a> {
    kind: u32,
    /// Who did it; or else the current task.
    who: Option<&'a Who>,
}

/// The current task accepted or closes the socket: news if that is asked for.
#[inline(always)]
fn does<'a, A: Access>(sk: Sock<A>, kind: u32) -> Option<News<'a>> {
    is_kept(sk).then_some(News { kind, who: None })
}

/// Tells what happened to the socket between these ends.
#[inline(always)]
fn report<A: Owned>(sk: Sock<A>, news: News<'_>, tuple: &Tuple) {
    if !filter::keeps_ends(tuple) {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    event.ts_ns = task::now_ns();
    event.tuple = *tuple;
    event.kind = news.kind;
    event.netns = sk.netns();
    match news.who {
        Some(who) => event.who = *who,
        None => current::<A>(&mut event.who),
    }
}

/// Tells what happened to the socket, if there is news, and both of its ends are there.
#[inline(always)]
fn tell<A: Owned>(sk: Sock<A>, news: Option<News<'_>>) {
    if let Some(news) = news
        && let Some(tuple) = ends(sk)
    {
        report(sk, news, &tuple);
    }
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
fn opens<A: Lives>(sk: Sock<A>) {
    if !is_kept_by_socket(sk) {
        return;
    }
    let opener = Opener::of(&OWNERS_BY_MPTCP, sk);
    if !opener.is_kept() {
        return;
    }
    let Some(life) = A::make(sk) else {
        lost(Loss::MapFull);
        return;
    };
    life.stage = OPENING;
    life.tuple.family = 0;
    life.who.pid = opener.name::<A>(&mut life.who.comm);
    life.who.uid = opener.uid();
}

/// What began with [`opens`] ended: the socket is connected, or is not.
#[inline(always)]
fn opened(life: &mut Life, established: bool) -> Option<News<'_>> {
    life.stage = if established { UNKNOWN } else { FAILED };
    established.then_some(News { kind: CONNECT, who: Some(&life.who) })
}

/// The socket, which is TCP's, goes to state `new`.
#[inline(always)]
fn active_open<'a, A: Lives>(sk: Sock<A>, new: i32) -> Option<News<'a>> {
    if new == state::SYN_SENT {
        opens(sk);
    } else if (new == state::ESTABLISHED || new == state::CLOSE)
        && let Some(life) = A::get(sk)
        && life.stage == OPENING
    {
        return opened(life, new == state::ESTABLISHED);
    }
    None
}

/// The current task took `sk` off an accept queue.
#[inline(always)]
fn accepted<A: Owned>(sk: Sock<A>) {
    let is_mptcp = sk.is_mptcp();
    if is_inet(sk.family()) && (is_mptcp || sk.is_tcp()) {
        if is_mptcp {
            mptcp::own_if_kept(&OWNERS_BY_MPTCP, sk, ACCEPTOR);
        }
        tell(sk, does(sk, ACCEPT));
    }
}

/// The last descriptor of `sk` is closed.
#[inline(always)]
fn closes<A: Lives>(sk: Sock<A>) {
    let now = sk.state();
    if now == state::SYN_SENT || now == state::SYN_RECV || now == state::NEW_SYN_RECV || !is_kept(sk) {
        return;
    }
    if now == state::CLOSE && was_never_connected(sk) {
        return;
    }
    if A::get(sk).is_none_or(|life| life.stage != FAILED) {
        tell(sk, Some(News { kind: CLOSE, who: None }));
    }
}

/// Whether `sk`, which is in CLOSE, certainly never had another end. It is so for an open that failed while nobody
/// looked: before the start, or in a run of a program that the kernel skipped.
#[inline(always)]
fn was_never_connected<A: ToTcp>(sk: Sock<A>) -> bool {
    // Set by the other end's SYN, never to 0 again but by one number in 2^32.
    A::tcp(sk).is_some_and(|tcp| tcp.copied_seq() == 0)
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn open_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    if sk.is_tcp() {
        tell(sk, active_open(sk, ctx.arg(2)));
    } else {
        mptcp::changed(&OWNERS_BY_MPTCP, sk, ctx.arg(2));
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
        tell(sk, active_open(sk, new));
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

// match-proto: void mptcp_token_destroy(struct mptcp_sock *msk)
#[kprobe]
fn mptcp_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        mptcp::ended(&OWNERS_BY_MPTCP, sk);
    }
    0
}

/// Whether the current thread is in shutdown().
#[inline(always)]
fn is_in_shutdown() -> bool {
    Regs::current().is_some_and(|regs| regs.call() == setting!(CONFIG.shutdown)) && !syscall::is_compat()
}

/// close() or shutdown() begins the connection's end, in the caller's context.
#[inline(always)]
fn finishes<'a>(sk: Sock<Typed>) -> Option<News<'a>> {
    if !is_in_shutdown() {
        return does(sk, CLOSE);
    }
    if is_kept(sk) {
        if let Some(life) = Typed::make(sk) {
            life.stage = SHUT;
            life.tuple.family = 0;
            current::<Typed>(&mut life.who);
        } else {
            lost(Loss::MapFull);
        }
    }
    None
}

/// In place of a kind of news: both ends are to be kept, for the close that comes when they are gone.
const KEEP: u32 = u32::MAX;

/// The connection is at its end, in any context. Where both ends are to be kept, `KEEP`.
#[inline(always)]
fn ended<'a>(sk: Sock<Typed>, life: Option<&'a mut Life>, old: i32) -> Option<News<'a>> {
    let has_file = sk.has_file();
    if let Some(life) = life {
        if life.stage == OPENING {
            return opened(life, false);
        }
        if life.stage == SHUT {
            if has_file {
                return Some(News { kind: KEEP, who: None });
            }
            // Closed while the connection was still ending: by whoever had shut it down, as far as is known.
            life.stage = UNKNOWN;
            return Some(News { kind: CLOSE, who: Some(&life.who) });
        }
    }
    // Without a file the socket was never accepted, or its close was told.
    if (old != state::ESTABLISHED && old != state::CLOSE_WAIT) || !has_file {
        return None;
    }
    if sk.is_shut() {
        // close() resets the connection, because of unread data or SO_LINGER.
        return does(sk, CLOSE);
    }
    if filter::keeps_family(sk.family()) && filter::keeps_netns(|| sk.netns()) {
        // Reset by the other end, or timed out: the socket is still to be closed.
        if let Some(life) = Typed::make(sk) {
            life.stage = GONE;
            life.tuple.family = 0;
        } else {
            lost(Loss::MapFull);
        }
    }
    None
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if !sk.is_tcp() {
        mptcp::changed(&OWNERS_BY_MPTCP, sk, new);
        return 0;
    }
    let finishing = old == state::ESTABLISHED && new == state::FIN_WAIT1
        || old == state::CLOSE_WAIT && new == state::LAST_ACK;
    let news = if finishing || new == state::CLOSE {
        // The socket above the subflows is what a process closes.
        if Typed::tcp(sk).is_some_and(|tcp| tcp.is_mptcp()) {
            return 0;
        }
        if finishing { finishes(sk) } else { ended(sk, Typed::get(sk), old) }
    } else {
        active_open(sk, new)
    };
    if let Some(news) = news
        && let Some(tuple) = ends(sk)
    {
        if news.kind != KEEP {
            report(sk, news, &tuple);
        } else if let Some(life) = Typed::get(sk) {
            life.tuple = tuple;
        }
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn destroy_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && let Some(life) = Typed::get(sk)
    {
        let stage = life.stage;
        life.stage = UNKNOWN;
        let news = if stage == GONE {
            does(sk, CLOSE)
        } else {
            (stage == SHUT).then_some(News { kind: CLOSE, who: Some(&life.who) })
        };
        if let Some(news) = news {
            let known = if stage == SHUT && life.tuple.family != 0 { Some(life.tuple) } else { ends(sk) };
            if let Some(tuple) = known {
                report(sk, news, &tuple);
            }
        }
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
