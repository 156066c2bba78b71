//! tcpconnlat: one event per active open that is answered, with the time from the connect to the SYN-ACK, the RST or the
//! crossing SYN.
//!
//! Trampolines and kprobes: from the entry of `tcp_v4_connect` or `tcp_v6_connect` to that of `tcp_finish_connect` (a
//! SYN-ACK) or `tcp_send_synack` (a SYN, which crosses ours), or to `tcp:tcp_receive_reset`. These run once per open;
//! `tcp_rcv_state_process`, which comes a microsecond before them, runs at each packet of a socket that is not
//! established, of those that were accepted too. An IPv6 socket that connects to a v4-mapped address comes by
//! `tcp_v4_connect` inside `tcp_v6_connect`, and begins at the second.
//!
//! Without either: from CLOSE to SYN_SENT (`sock:inet_sock_set_state`, inside the connect) to the state after
//! SYN_SENT, or to the RST. A socket that only goes back to CLOSE was not answered; nor was one from which no segment left,
//! as one under repair (TCP_REPAIR), which skips the handshake.
//!
//! An open that is not answered leaves nothing behind: what typed programs keep dies with the socket, and the table of
//! kprobes is cleared when a socket is destroyed.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6};
use netbcc_common::loss::Loss;
use netbcc_common::tcpconnlat::{Config, Event, Open};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::mem::{Probed, Typed};
use probes_ebpf::mptcp::{self, Opener, Owners};
use probes_ebpf::owner::{Facts, Owned};
use probes_ebpf::sock::{Sock, ToTcp as _, state};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { min_ns: 0 };

/// Opens that wait for their answer, for typed programs.
#[btf_map]
static OPENS: SkStorage<Open> = SkStorage::new();

/// Opens that wait for their answer by the socket's address, for kprobes.
#[map]
static OPENS_BY_SK: HashMap<u64, Open> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Who connected MPTCP sockets, if they are asked for.
#[map]
static OWNERS_BY_MPTCP: Owners = mptcp::owners();

/// Where the open of a socket is kept.
trait Opens: Owned {
    /// The open of `sk`, if there is one.
    fn get(sk: Sock<Self>) -> Option<&'static mut Open>;
    /// The open of `sk`, made if there was none. `None`: there is no room.
    fn make(sk: Sock<Self>) -> Option<&'static mut Open>;
    /// Forgets it, which is this.
    fn forget(sk: Sock<Self>, open: &mut Open);
}

impl Opens for Typed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Open> {
        storage::get(&OPENS, sk)
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Open> {
        storage::get_or_zero(&OPENS, sk)
    }
    #[inline(always)]
    fn forget(_: Sock<Self>, open: &mut Open) {
        // The socket may connect again; its memory stays with it until it is freed.
        open.ts_ns = 0;
    }
}

impl Opens for Probed {
    #[inline(always)]
    fn get(sk: Sock<Self>) -> Option<&'static mut Open> {
        storage::entry(&OPENS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn make(sk: Sock<Self>) -> Option<&'static mut Open> {
        storage::entry_or_zero(&OPENS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn forget(sk: Sock<Self>, _: &mut Open) {
        let _gone_already = OPENS_BY_SK.remove(sk.id());
    }
}

/// `sk` is opened, in the call of who does that.
#[inline(always)]
fn opens<A: Opens>(sk: Sock<A>) {
    let opener = Opener::of(&OWNERS_BY_MPTCP, sk);
    if !opener.is_kept() || !filter::keeps_family(sk.family()) {
        return;
    }
    let Some(open) = A::make(sk) else {
        lost(Loss::MapFull);
        return;
    };
    open.pid = opener.name::<A>(&mut open.comm);
    open.ts_ns = task::now_ns();
}

/// The answer to the open of `sk` arrives.
#[inline(always)]
fn answered<A: Opens>(sk: Sock<A>) {
    let Some(open) = A::get(sk) else { return };
    let (now_ns, since_ns) = (task::now_ns(), open.ts_ns);
    if since_ns != 0 && now_ns >= since_ns && now_ns - since_ns >= setting!(CONFIG.min_ns) {
        report(sk, open, now_ns);
    }
    A::forget(sk, open);
}

#[inline(always)]
fn report<A: Opens>(sk: Sock<A>, open: &Open, now_ns: u64) {
    // Only now are both ends known.
    if !filter::keeps_ends(sk) {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::of(sk)) else { return };
    event.ts_ns = now_ns;
    event.span_ns = now_ns - open.ts_ns;
    sk.addrs(sk.family(), &mut event.tuple);
    event.tuple.lport = sk.num();
    event.tuple.rport = sk.rport();
    event.pid = open.pid;
    event.zero = 0;
    event.comm = open.comm;
}

/// A connect begins in the function for sockets of `family`.
#[inline(always)]
fn called<A: Opens>(sk: Sock<A>, family: u16) {
    if sk.family() == family {
        opens(sk);
    }
}

/// A SYN-ACK was accepted. There is no packet where a socket under repair (TCP_REPAIR) skips the handshake.
#[inline(always)]
fn established<A: Opens>(sk: Sock<A>, skb: *const u8) {
    if !skb.is_null() {
        answered(sk);
    }
}

/// An RST was accepted.
#[inline(always)]
fn reset<A: Opens>(sk: Sock<A>) {
    if sk.state() == state::SYN_SENT {
        answered(sk);
    }
}

// match-proto: int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[fentry(function = "tcp_v4_connect")]
fn v4_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        called(sk, AF_INET);
    }
    0
}

// match-proto: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[fentry(function = "tcp_v6_connect")]
fn v6_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        called(sk, AF_INET6);
    }
    0
}

// match-proto: void tcp_finish_connect(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_finish_connect")]
fn established_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        established(sk, ctx.arg(1));
    }
    0
}

// match-proto: int tcp_send_synack(struct sock *sk)
#[fentry(function = "tcp_send_synack")]
fn crossed_fentry(ctx: FEntryContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        answered(sk);
    }
    0
}

// match-proto: int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v4_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        called(sk, AF_INET);
    }
    0
}

// match-proto: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
#[kprobe]
fn v6_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        called(sk, AF_INET6);
    }
    0
}

// match-proto: void tcp_finish_connect(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn established_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0).and_then(Sock::<Probed>::new), ctx.arg(1)) {
        established(sk, skb);
    }
    0
}

// match-proto: int tcp_send_synack(struct sock *sk)
#[kprobe]
fn crossed_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        answered(sk);
    }
    0
}

// match-proto: void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_by_sk_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Probed>::new(ctx.arg(0)) {
        reset(sk);
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn forget_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Probed>::new(ctx.arg(0)) {
        let _none_there = OPENS_BY_SK.remove(sk.id());
    }
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
    let (old, new) = (ctx.arg::<i32>(1), ctx.arg::<i32>(2));
    if !(old == state::SYN_SENT || new == state::SYN_SENT || new == state::CLOSE) {
        return 0;
    }
    let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) else { return 0 };
    if !sk.is_tcp() {
        mptcp::changed(&OWNERS_BY_MPTCP, sk, new);
    } else if old == state::SYN_SENT || new == state::SYN_SENT {
        if new == state::SYN_SENT {
            opens(sk);
        } else if new != state::CLOSE && Typed::tcp(sk).is_some_and(|tcp| tcp.segs_out() != 0) {
            answered(sk);
        } else if let Some(open) = Typed::get(sk) {
            Typed::forget(sk, open);
        }
    }
    0
}

// match-proto: void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        reset(sk);
    }
    0
}
