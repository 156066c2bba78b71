//! tcplife: one event per TCP socket that reaches CLOSE, with its owner, addresses, bytes and age.
//!
//! `sock:inet_sock_set_state` (since 4.16) sees every transition. What is known of a live socket is kept with the
//! socket itself where the program is typed, and in a table keyed by its address in kprobes.
//!
//! Owner: the task that connected; else the task that closed last of both ends (LAST_ACK, as BCC); else the first
//! to close (FIN_WAIT1); else the acceptor. Each of these events happens in the owner's own system call, unlike
//! CLOSE, which may interrupt any task.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use netbcc_common::loss::Loss;
use netbcc_common::tcplife::{ACCEPTOR, CLOSER, CONNECTOR, Event, Life, NOBODY};
use probes_ebpf::emit::{lost, reserve};
use probes_ebpf::filter::{self, PortSet};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::sock::{Sock, ToTcp, state};
use probes_ebpf::{storage, task};

#[unsafe(no_mangle)]
static LPORTS: PortSet = PortSet::new();
#[unsafe(no_mangle)]
static RPORTS: PortSet = PortSet::new();

/// State of live sockets, for typed programs.
#[btf_map]
static LIVES: SkStorage<Life> = SkStorage::new();

/// State of live sockets by address, for kprobes. Every way to CLOSE deletes the entry.
#[map]
static LIVES_BY_SK: HashMap<u64, Life> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where the state of a live socket is kept.
trait Lives: ToTcp {
    /// The state of `sk`, if there is one.
    fn get(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// The state of `sk`, made if there was none.
    fn make(sk: Sock<Self>) -> Option<&'static mut Life>;
    /// Forgets `sk`, whose state this is.
    fn forget(sk: Sock<Self>, life: &mut Life);
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
    #[inline(always)]
    fn forget(_: Sock<Self>, life: &mut Life) {
        // The socket may connect again; its memory stays with it until it is freed.
        life.birth_ns = 0;
        life.owner = NOBODY;
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
    #[inline(always)]
    fn forget(sk: Sock<Self>, _: &mut Life) {
        let _gone_already = LIVES_BY_SK.remove(sk.id());
    }
}

/// The current task becomes the owner, as `how`.
#[inline(always)]
fn own(life: &mut Life, how: u32) {
    life.owner = how;
    life.pid = task::pid();
    task::comm(&mut life.comm);
}

/// `sk` goes from state `old` to `new`.
#[inline(always)]
fn state_changed<A: Lives>(sk: Sock<A>, old: i32, new: i32) {
    if new == state::CLOSE {
        closed(sk, old);
        return;
    }
    let opens = new < state::FIN_WAIT1;
    let closes = new == state::LAST_ACK || old == state::ESTABLISHED && new == state::FIN_WAIT1;
    if !(opens || closes) || !sk.is_tcp() {
        return;
    }
    if opens {
        let Some(life) = A::make(sk) else {
            lost(Loss::MapFull);
            return;
        };
        life.birth_ns = task::now_ns();
        if new == state::SYN_SENT {
            own(life, CONNECTOR);
        } else if new == state::SYN_RECV {
            life.owner = NOBODY;
        }
        return;
    }
    // A socket that was not seen opening makes no row.
    let Some(life) = A::get(sk) else { return };
    if new == state::LAST_ACK || life.owner < CLOSER {
        own(life, CLOSER);
    }
}

/// `sk` reached CLOSE from the state `old`.
#[inline(always)]
fn closed<A: Lives>(sk: Sock<A>, old: i32) {
    let Some(life) = A::get(sk) else { return };
    if life.birth_ns != 0 && !(old == state::SYN_RECV && is_surplus(sk, life)) {
        report(sk, life);
    }
    A::forget(sk, life);
}

/// Whether `sk`, which goes from SYN_RECV to CLOSE, is the second socket of one connection: where two packets that
/// complete the same handshake meet on two CPUs, each makes a socket, and `inet_ehash_nolisten` (since 4.4) closes the one
/// that comes too late. It still has its port, which every other way to CLOSE takes from a socket that was not bound, and
/// is not yet dead, as one is whose making failed.
#[inline(always)]
fn is_surplus<A: Lives>(sk: Sock<A>, life: &Life) -> bool {
    life.owner == NOBODY && sk.num() != 0 && !sk.is_dead()
}

#[inline(always)]
fn report<A: Lives>(sk: Sock<A>, life: &Life) {
    let family = sk.family();
    if !filter::keeps_family(family) {
        return;
    }
    let pid = if life.owner == NOBODY { task::pid() } else { life.pid };
    if !filter::keeps_pid(pid) {
        return;
    }
    let Some(tcp) = A::tcp(sk) else { return };
    let (lport, rport) = (tcp.sport(), sk.rport());
    if !filter::keeps_lport(&LPORTS, lport) || !filter::keeps_rport(&RPORTS, rport) {
        return;
    }
    let now_ns = task::now_ns();
    let Some(mut event) = reserve::<Event>() else { return };
    event.ts_ns = now_ns;
    event.span_ns = now_ns.saturating_sub(life.birth_ns);
    event.tx_bytes = tcp.bytes_acked();
    event.rx_bytes = tcp.bytes_received();
    sk.addrs(family, &mut event.tuple);
    event.tuple.lport = lport;
    event.tuple.rport = rport;
    event.pid = pid;
    event.zero = 0;
    if life.owner == NOBODY {
        task::comm(&mut event.comm);
    } else {
        event.comm = life.comm;
    }
}

/// The current task took `sk` from an accept queue, or reads from it.
#[inline(always)]
fn accepted<A: Lives>(sk: Sock<A>) {
    if let Some(life) = A::get(sk)
        && life.owner == NOBODY
    {
        own(life, ACCEPTOR);
    }
}

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        state_changed(sk, ctx.arg(1), ctx.arg(2));
    }
    0
}

// match-proto: void tcp_set_state(struct sock *sk, int state)
#[kprobe]
fn state_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(new)) = (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1)) {
        state_changed(sk, sk.state(), new);
    }
    0
}

// The return value lies behind the arguments. Read there it is a socket to the verifier; from bpf_get_func_ret it
// would be a number, and the state that is kept with a socket could not be asked for.

// match-proto: struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern) (up to 6.9)
#[fexit(function = "inet_csk_accept")]
fn accept4_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(4)) {
        accepted(sk);
    }
    0
}

// match-proto: struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg) (since 6.10)
#[fexit(function = "inet_csk_accept")]
fn accept2_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(2)) {
        accepted(sk);
    }
    0
}

#[kretprobe]
fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = Sock::<Probed>::new(ctx.ret()) {
        accepted(sk);
    }
    0
}

// match-proto: void tcp_rcv_space_adjust(struct sock *sk)
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn read_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        accepted(sk);
    }
    0
}
