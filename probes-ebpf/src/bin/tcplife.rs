//! tcplife: one event per TCP socket that reaches CLOSE, with its owner, addresses, bytes and age.
//!
//! `sock:inet_sock_set_state` (since 4.16) sees every transition. What is known of a live socket is kept with the
//! socket itself where the program is typed, and in a table keyed by its address in kprobes.
//!
//! Owner: the task that closed, if its end closed last (LAST_ACK, as BCC); else the task that connected; else the first
//! to close (FIN_WAIT1); else the acceptor. Each of these events happens in the owner's own system call, unlike
//! CLOSE, which may interrupt any task. What MPTCP does with its subflows happens in threads of the kernel, and in calls of
//! whoever changes its endpoints: their owner is who owns the MPTCP socket, or nobody that is known.
//!
//! The kernel skips a program that is running on that CPU already, in a task that was interrupted. A second copy of the
//! program does what the first could not: each sees what interrupts the other. All that they do may be done twice.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, Queue};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::loss::Loss;
use netbcc_common::tcplife::{
    ACCEPTOR, CLOSER, CONNECTOR, Detailed, End, Event, KERNEL, LAST, Life, NOBODY, details,
};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::filter::{self, SockEnds};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::mptcp::{self, Owners};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::sock::{Sock, TcpSock, ToTcp};
use probes_ebpf::twice::Notes;
use probes_ebpf::{setting, storage, task};

/// What a row is asked to say beside what every row does. Set by user space before loading: what nobody asked for is not read.
#[unsafe(no_mangle)]
static DETAILS: u32 = 0;

/// Whether any of these [`details`] is asked for.
#[inline(always)]
fn is_asked(which: u32) -> bool {
    setting!(DETAILS) & which != 0
}

/// 1: connections from before the start are rows, too. Set by user space before loading.
#[unsafe(no_mangle)]
static EXISTING: u32 = 0;

/// When user space saw that all is attached, ns; 0: not yet.
#[map]
static STARTED: Array<u64> = Array::with_max_entries(1, 0);

/// In place of the time when a life began: before the start.
const BEFORE: u64 = 1;

/// State of live sockets, for typed programs.
#[btf_map]
static LIVES: SkStorage<Life> = SkStorage::new();

/// State of live sockets by address, for kprobes. Every way to CLOSE deletes the entry.
#[map]
static LIVES_BY_SK: HashMap<u64, Life> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Owners of MPTCP sockets. Their subflows may close after them: an entry goes when [`ENDED`] is full of later ones.
#[map]
static OWNERS_BY_MPTCP: Owners = mptcp::owners();

/// MPTCP sockets that ended, in that order: the address, and when.
#[map]
static ENDED: Queue<[u64; 2]> = Queue::with_max_entries(1024, 0);

/// What the first copy of the program at changes of state did.
static NOTES: Notes = Notes::new();

/// TCP states as programs get them: whole registers, to compare which takes one instruction. To compare halves takes five.
mod state {
    use probes_ebpf::sock::state;
    pub(super) const ESTABLISHED: u64 = state::ESTABLISHED as u64;
    pub(super) const SYN_SENT: u64 = state::SYN_SENT as u64;
    pub(super) const SYN_RECV: u64 = state::SYN_RECV as u64;
    pub(super) const FIN_WAIT1: u64 = state::FIN_WAIT1 as u64;
    pub(super) const CLOSE: u64 = state::CLOSE as u64;
    pub(super) const CLOSE_WAIT: u64 = state::CLOSE_WAIT as u64;
    pub(super) const LAST_ACK: u64 = state::LAST_ACK as u64;
    pub(super) const LISTEN: u64 = state::LISTEN as u64;
}

/// Where the state of a live socket is kept.
trait Lives: Owned {
    /// Whether a second copy of the program may see a change again.
    const TWICE: bool;
    /// The state of `sk`, if there is one.
    fn get(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// The state of `sk`, made if there was none.
    fn make(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// Forgets `sk`, whose state this is.
    fn forget(sk: Sock<Self>, life: &mut Life);
}

impl Lives for Typed {
    const TWICE: bool = true;
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::get(&LIVES, sk)
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::get_or_zero(&LIVES, sk)
    }
    #[inline(always)]
    fn forget(_: Sock<Self>, life: &mut Life) {
        // The socket may connect again; its memory stays with it until it is freed.
        life.birth_ns = 0;
        life.owner = NOBODY;
    }
}

impl Lives for Probed {
    const TWICE: bool = false;
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::entry(&LIVES_BY_SK, sk.id())
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Life> {
        storage::entry_or_zero(&LIVES_BY_SK, sk.id())
    }
    #[inline(always)]
    fn forget(sk: Sock<Self>, _: &mut Life) {
        let _gone_already = LIVES_BY_SK.remove(sk.id());
    }
}

/// In place of how an owner is known: the owner of the MPTCP socket above a subflow is not.
const UNKNOWN: u32 = u32::MAX;

/// The current task becomes the owner, as `how`. A thread of the kernel does only where nobody else is known.
#[inline(always)]
fn own<A: Lives>(life: &mut Life, how: u32) {
    if !task::is_kernel::<A>() {
        life.owner = how;
    } else if life.owner == NOBODY {
        life.owner = KERNEL;
    } else {
        return;
    }
    life.pid = task::pid();
    life.kept = u32::from(filter::keeps_task());
    task::comm_by::<A>(&mut life.comm);
}

/// The owner of the MPTCP socket becomes that of its subflow, whose state this is, if it is one by a better reason. What is
/// younger than the end of an MPTCP socket is the subflow of a later one at that address.
#[inline(always)]
fn inherit(life: &mut Life, mptcp: Sock<Probed>) {
    if let Some(owner) = storage::entry(&OWNERS_BY_MPTCP, mptcp.id())
        && owner.how > life.owner
        && (owner.ended_ns == 0 || life.birth_ns <= owner.ended_ns)
    {
        life.owner = owner.how;
        life.pid = owner.pid;
        life.kept = owner.kept;
        life.comm = owner.comm;
    }
}

/// `sk`, an MPTCP socket, goes from state `old` to `new`.
#[inline(always)]
fn mptcp_changed<A: Lives>(sk: Sock<A>, old: u64, new: u64) {
    // Without close(), what goes to CLOSE does so because of the other end, or of whoever takes its last subflow away.
    if (old == state::ESTABLISHED || old == state::CLOSE_WAIT)
        && (new != state::CLOSE || sk.is_shut())
        && !task::is_kernel::<A>()
    {
        let how = if new == state::LAST_ACK { LAST } else { CLOSER };
        if storage::entry(&OWNERS_BY_MPTCP, sk.id()).is_none_or(|owner| owner.how < how) {
            mptcp::own(&OWNERS_BY_MPTCP, sk, how);
        }
    }
    if new == state::CLOSE {
        mptcp_ended(sk.id());
    }
}

/// The MPTCP socket at this address ended.
#[inline(always)]
fn mptcp_ended(mptcp: u64) {
    let Some(owner) = storage::entry(&OWNERS_BY_MPTCP, mptcp) else { return };
    if owner.ended_ns != 0 {
        return;
    }
    owner.ended_ns = task::now_ns();
    let turn = [mptcp, owner.ended_ns];
    if ENDED.push(turn, 0).is_ok() {
        return;
    }
    if let Ok(Some([oldest, ended_ns])) = ENDED.pop()
        && storage::entry(&OWNERS_BY_MPTCP, oldest).is_some_and(|owner| owner.ended_ns == ended_ns)
    {
        mptcp::ended(&OWNERS_BY_MPTCP, oldest);
    }
    if ENDED.push(turn, 0).is_err() {
        // Other CPUs were faster.
        mptcp::ended(&OWNERS_BY_MPTCP, mptcp);
    }
}

/// `sk` goes from state `old` to `new`. Answers whether that was news; `false`: it was seen before.
#[inline(always)]
fn state_changed<A: Lives>(sk: Sock<A>, old: u64, new: u64) -> bool {
    if new == state::CLOSE {
        return closed(sk, old);
    }
    let opens = new < state::FIN_WAIT1;
    let closes = new == state::LAST_ACK || old == state::ESTABLISHED && new == state::FIN_WAIT1;
    if !(opens || closes) {
        return true;
    }
    if !sk.is_tcp() {
        if sk.is_mptcp() {
            if closes {
                mptcp_changed(sk, old, new);
            } else if old == state::LISTEN {
                // A new one, just copied from its listener: what was known is of an older one at this address.
                mptcp::ended(&OWNERS_BY_MPTCP, sk.id());
            }
        }
        return true;
    }
    if opens {
        let Some(life) = A::make(sk) else {
            lost(Loss::MapFull);
            return true;
        };
        if A::TWICE && life.is_in(new) {
            return false;
        }
        if new == state::SYN_SENT || !life.is_in(old) {
            // What was known is of an older socket at this address, whose end was not seen.
            life.owner = NOBODY;
            if is_asked(details::CONN | details::FIRST) {
                life.conn_ns = 0;
                life.first_ns = 0;
            }
        }
        let now_ns = task::now_ns();
        if is_asked(details::CONN) && old == state::SYN_SENT && life.is_in(old) && new == state::ESTABLISHED {
            life.conn_ns = now_ns.saturating_sub(life.birth_ns);
        }
        life.state = new as u32;
        life.birth_ns = now_ns;
        if new == state::SYN_SENT {
            let mptcp = mptcp::above(sk);
            if let Some(mptcp) = mptcp
                && !mptcp::is_opening(mptcp)
            {
                inherit(life, mptcp);
                return true;
            }
            own::<A>(life, CONNECTOR);
            if let Some(mptcp) = mptcp
                && life.owner == CONNECTOR
            {
                mptcp::own(&OWNERS_BY_MPTCP, mptcp, CONNECTOR);
            }
        }
        return true;
    }
    // A socket that was not seen opening makes no row, unless those are asked for.
    let Some(life) = A::get(sk).or_else(|| adopt(sk, old)) else { return true };
    if let Some(mptcp) = mptcp::above(sk) {
        inherit(life, mptcp);
    } else if new == state::LAST_ACK {
        own::<A>(life, LAST);
    } else if life.owner < CLOSER {
        own::<A>(life, CLOSER);
    }
    is_first(life, new)
}

/// The state of `sk`, of which nothing was known when it left the state `old`: it is older than the tool. `None`: nobody asks
/// for such, or it is no connection.
#[inline(always)]
fn adopt<A: Lives>(sk: Sock<A>, old: u64) -> Option<&'static mut Life> {
    if setting!(EXISTING) == 0 || old == state::LISTEN || old == state::CLOSE || !sk.is_tcp() {
        return None;
    }
    let Some(life) = A::make(sk) else {
        lost(Loss::MapFull);
        return None;
    };
    *life = Life { birth_ns: BEFORE, state: old as u32, ..Life::default() };
    if let Some(owner) = owner::of(sk) {
        life.owner = CONNECTOR;
        life.pid = owner.pid;
        life.kept = u32::from(owner.kept);
        life.comm = owner.comm;
    }
    Some(life)
}

/// Whether the state `new` was not seen before.
#[inline(always)]
fn is_first(life: &mut Life, new: u64) -> bool {
    let first = !life.is_in(new);
    life.state = new as u32;
    first
}

/// `sk` reached CLOSE from the state `old`. Answers whether that was news.
#[inline(always)]
fn closed<A: Lives>(sk: Sock<A>, old: u64) -> bool {
    let Some(life) = A::get(sk).or_else(|| adopt(sk, old)) else {
        if sk.is_mptcp() {
            mptcp_changed(sk, old, state::CLOSE);
        }
        return true;
    };
    let first = is_first(life, state::CLOSE);
    if life.birth_ns != 0 && !(old == state::SYN_RECV && is_surplus(sk, life)) {
        report(sk, life, old);
    }
    A::forget(sk, life);
    first
}

/// Whether `sk`, which goes from SYN_RECV to CLOSE, is the second socket of one connection: where two packets that
/// complete the same handshake meet on two CPUs, each makes a socket, and `inet_ehash_nolisten` (since 4.4) closes the one
/// that comes too late. It still has its port, which every other way to CLOSE takes from a socket that was not bound, and
/// is not yet dead, as one is whose making failed.
#[inline(always)]
fn is_surplus<A: Lives>(sk: Sock<A>, life: &Life) -> bool {
    life.owner == NOBODY && sk.num() != 0 && !sk.is_dead()
}

/// Whether the life began before the start.
#[inline(always)]
fn is_older(life: &Life) -> bool {
    setting!(EXISTING) != 0 && life.birth_ns == BEFORE
}

/// Sends the row of `sk`, which came from the state `old`.
#[inline(always)]
fn report<A: Lives>(sk: Sock<A>, life: &mut Life, old: u64) {
    let family = sk.family();
    if !filter::keeps_family(family) {
        return;
    }
    let Some(tcp) = A::tcp(sk) else { return };
    let mut owner = life.owner;
    if let Some(mptcp) = tcp.mptcp() {
        inherit(life, mptcp);
        owner = if life.owner > KERNEL { life.owner } else { UNKNOWN };
    }
    let older = is_older(life);
    if owner == NOBODY && older {
        owner = UNKNOWN;
    }
    let (pid, kept) = match owner {
        // Who happens to be on the CPU has nothing to do with the socket's cgroup.
        NOBODY => (task::pid(), filter::keeps_who() && filter::keeps_group(|| sk.cgroup())),
        UNKNOWN => (0, filter::keeps_nobody(|| sk.cgroup())),
        _ => (life.pid, life.kept != 0),
    };
    if !kept {
        return;
    }
    let lport = tcp.sport();
    if !filter::keeps_ends(SockEnds { sk, lport }) {
        return;
    }
    if is_asked(u32::MAX) {
        let Some(mut row) = reserve_with::<Detailed>(Facts::of(sk)) else { return };
        detail(tcp, life, old, &mut row.end);
        fill(sk, tcp, (life, older), (owner, pid), (family, lport), &mut row.event);
    } else {
        let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
        fill(sk, tcp, (life, older), (owner, pid), (family, lport), &mut event);
    }
}

/// Writes what every row says.
#[inline(always)]
fn fill<A: Lives>(
    sk: Sock<A>,
    tcp: TcpSock<A>,
    (life, older): (&Life, bool),
    (owner, pid): (u32, u32),
    (family, lport): (u16, u16),
    event: &mut Event,
) {
    let now_ns = task::now_ns();
    event.ts_ns = now_ns;
    event.existing = u32::from(older);
    event.span_ns = now_ns.saturating_sub(if older {
        STARTED.get(0).copied().filter(|started_ns| *started_ns != 0).unwrap_or(now_ns)
    } else {
        life.birth_ns
    });
    event.tx_bytes = tcp.bytes_acked();
    event.rx_bytes = tcp.bytes_received();
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = lport;
    event.tuple.rport = sk.rport();
    event.pid = pid;
    match owner {
        NOBODY => task::comm_by::<A>(&mut event.comm),
        UNKNOWN => event.comm = netbcc_common::mptcp::UNKNOWN,
        _ => event.comm = life.comm,
    }
}

/// Writes what is asked for of the end of the socket `tcp`, which came from the state `old`. This is right at CLOSE and not
/// before: what the kernel clears until then is not asked for.
#[inline(always)]
fn detail<A: ToTcp>(tcp: TcpSock<A>, life: &Life, old: u64, end: &mut End) {
    macro_rules! ask {
        ($($which:ident: $($to:ident = $value:expr),+;)*) => {$(
            if is_asked(details::$which) {
                $(end.$to = $value;)+
            } else {
                $(end.$to = 0;)+
            }
        )*};
    }
    ask! {
        RTT_MIN: rtt_min_us = tcp.rtt_min_us();
        RTT: rtt_us = tcp.srtt_us_8() >> 3;
        RETRANS: retrans = tcp.total_retrans();
        RETRANS_BYTES: retrans_bytes = tcp.bytes_retrans();
        LOST: lost = tcp.lost();
        OOO: ooo = tcp.ooo_segs();
        SEGS_IN: segs_in = tcp.segs_in();
        SEGS_OUT: segs_out = tcp.segs_out();
        CONN: conn_ns = life.conn_ns;
        FIRST: first_ns = life.first_ns;
        HOW: error = tcp.error(), state = old as i32, shutdown = u32::from(tcp.shutdown());
    }
    let [busy, rwnd, sndbuf] = if is_asked(details::LIMITS) { tcp.limits() } else { [0; 3] };
    (end.busy_jiffies, end.rwnd_jiffies, end.sndbuf_jiffies) = (busy, rwnd, sndbuf);
    end.zero = 0;
}

/// A process reads from `sk`.
#[inline(always)]
fn read<A: Lives>(sk: Sock<A>) {
    if let Some(life) = A::get(sk)
        && life.first_ns == 0
    {
        life.first_ns = task::now_ns();
    }
}

/// The current task took `sk` from an accept queue, or reads from it.
#[inline(always)]
fn accepted<A: Lives>(sk: Sock<A>) {
    if let Some(life) = A::get(sk)
        && life.owner < ACCEPTOR
        && mptcp::above(sk).is_none()
    {
        own::<A>(life, ACCEPTOR);
    } else if sk.is_mptcp() && sk.state() as u64 != state::CLOSE && !task::is_kernel::<A>() {
        // One that was reset before has ended already, and would stay in the table.
        mptcp::own(&OWNERS_BY_MPTCP, sk, ACCEPTOR);
    }
}

probes_ebpf::owner_snapshot!();

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        let (old, new) = (ctx.arg(1), ctx.arg(2));
        state_changed(sk, old, new);
        NOTES.done(sk, old, new);
    }
    0
}

/// Does what the first copy was skipped for. A function of its own, so that the second copy, which nearly always finds it done,
/// needs no room for this.
#[inline(never)]
fn make_up(sk: Sock<Typed>, old: u64, new: u64) {
    if state_changed(sk, old, new) {
        lost(Loss::MadeUp);
    }
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_again_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        let (old, new) = (ctx.arg(1), ctx.arg(2));
        if !NOTES.was_done(sk, old, new) {
            make_up(sk, old, new);
        }
    }
    0
}

// match-proto: void tcp_set_state(struct sock *sk, int state)
#[kprobe]
fn state_kprobe(ctx: ProbeContext) -> u32 {
    let new: Option<u32> = ctx.arg(1);
    if let (Some(sk), Some(new)) = (ctx.arg(0).and_then(Sock::<Probed>::new), new) {
        state_changed(sk, sk.state() as u64, u64::from(new));
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

// match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
#[kprobe]
fn graft_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        accepted(sk);
    }
    0
}

// match-proto: void mptcp_token_destroy(struct mptcp_sock *msk)
#[kprobe]
fn mptcp_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        mptcp_ended(sk);
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn read_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        accepted(sk);
        if is_asked(details::FIRST) {
            read(sk);
        }
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn first_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        read(sk);
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[kprobe]
fn first_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        read(sk);
    }
    0
}
