//! tcpreset: one event per TCP reset that this host sends or takes.
//!
//! Sent: `tcp:tcp_send_reset`, which since 6.10 says why, and is hit without a socket, too. With a packet it is the answer to
//! that packet, whose ends are then the row's: those of a listener are not. Without one, the socket's own end decided; it fires
//! when the segment has left and the state is CLOSE already, so what there was before is kept with the socket at the change
//! of its state. Before 6.10 an answer to a packet without a socket, or for one in TIME_WAIT, is seen at the entry of
//! `tcp_v4_send_reset` and `tcp_v6_send_reset`, or else when its packet leaves: at `net:net_dev_queue`, which sees every packet.
//!
//! `--all`: packets with a reset at `net:net_dev_queue` that are no answer of TCP's, which are noted just before, and those at
//! `net:netif_receive_skb`, of which user space leaves out what a socket takes.
//!
//! Received: `tcp:tcp_receive_reset`, before the state changes.
//!
//! Of a socket in TIME_WAIT, and of a request, only the common part is read. The owner of a connection that goes to
//! TIME_WAIT is kept by its cookie.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuHashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, MAPPED_WORD, Tuple};
use netbcc_common::loss::Loss;
use netbcc_common::socket::{ACCEPTOR, LISTENER, Owner};
use netbcc_common::tcpreset::{
    Config, Ends, Event, Key, Known, NO_ROW, Seen, UNTOLD, WAITING_PLACES, Waiting, cause,
};
use probes_ebpf::emit::{lost, reserve_with};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::segment::{RST, headers_at, may_be_reset};
use probes_ebpf::skb::Skb;
use probes_ebpf::sock::{Sock, TcpSock, ToTcp as _, is_inet, state};
use probes_ebpf::{filter, setting, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { count: 0, sent: 0, all: 0, notes: 0 };

/// What is known of sockets.
#[btf_map]
static KNOWN: SkStorage<Known> = SkStorage::new();

/// What is known of sockets, by their addresses, where owners are.
#[map]
static KNOWN_BY_SK: HashMap<u64, Known> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Owners of connections that went to TIME_WAIT, each at the rest of its socket's cookie. No program sees the end of TIME_WAIT, so
/// nothing could take an entry out of a table by key: here a later connection takes the place.
#[map]
static WAITING: Array<Waiting> = Array::with_max_entries(WAITING_PLACES, 0);

/// Number of the interval; never 0.
#[map]
static CURRENT: Array<u32> = Array::with_max_entries(1, 0);
/// Resets, for `-c`: programs use the one that the lowest bit of `CURRENT` names, and user space empties the other, so that what one
/// interval is full of takes no room from the next. User space may set another size.
#[map]
static COUNTS_0: PerCpuHashMap<Key, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);
/// Resets, the other generation. User space may set another size.
#[map]
static COUNTS_1: PerCpuHashMap<Key, u64> = PerCpuHashMap::with_max_entries(10_240, BPF_F_NO_PREALLOC);

/// Packets with resets, of late: those with which TCP answers, and those that had an event.
#[map]
static PACKETS: LruHashMap<Ends, Seen> = LruHashMap::with_max_entries(4096, 0);

/// How long a packet may need from one place to the next.
const SOON_NS: u64 = 100_000_000;

/// FIN_WAIT2, CLOSING: states before TIME_WAIT.
const FIN_WAIT2: i32 = 5;
const CLOSING: i32 = 11;

/// What is known of `sk`, if anything.
#[inline(always)]
fn known(sk: Sock<Typed>) -> Option<&'static mut Known> {
    if owner::is_in_table() { storage::entry(&KNOWN_BY_SK, sk.id()) } else { storage::get(&KNOWN, sk) }
}

/// What is known of `sk`, made if there was nothing.
#[inline(always)]
fn make(sk: Sock<Typed>) -> Option<&'static mut Known> {
    let made = if owner::is_in_table() {
        storage::entry_or_zero(&KNOWN_BY_SK, sk.id())
    } else {
        storage::get_or_zero(&KNOWN, sk)
    };
    if made.is_none() {
        lost(Loss::MapFull);
    }
    made
}

/// Bytes that are lost with a connection: unsent, unacknowledged, unread. A FIN is none.
#[inline(always)]
fn bytes(sk: Sock<Typed>, tcp: TcpSock<Typed>, state: i32) -> [u32; 3] {
    if state == state::SYN_SENT || state == state::SYN_RECV {
        return [0; 3];
    }
    let (mut unsent, mut unacked) =
        (tcp.write_seq().wrapping_sub(tcp.snd_nxt()), tcp.snd_nxt().wrapping_sub(tcp.snd_una()));
    if state == state::FIN_WAIT1 || state == CLOSING || state == state::LAST_ACK {
        if unsent != 0 {
            unsent -= 1;
        } else {
            unacked = unacked.saturating_sub(1);
        }
    }
    let mut unread = tcp.rcv_nxt().wrapping_sub(tcp.copied_seq());
    if unread != 0 && sk.is_done() {
        unread -= 1;
    }
    [unsent, unacked, unread]
}

/// Why a socket sends a reset that reaches CLOSE first.
#[inline(always)]
fn why_closed(sk: Sock<Typed>, tcp: TcpSock<Typed>, unread: u32) -> u8 {
    if !sk.is_shut() {
        return if sk.has_file() { cause::UNSPEC } else { cause::NEVER_ACCEPTED };
    }
    if unread != 0 {
        cause::UNREAD
    } else if tcp.lingers_not() {
        cause::LINGER
    } else {
        cause::NONE
    }
}

/// `sk` goes from state `old` to `new`.
#[inline(always)]
fn changed(sk: Sock<Typed>, old: i32, new: i32) {
    if !sk.is_tcp() {
        return;
    }
    if new == state::SYN_SENT {
        if let Some(known) = make(sk) {
            *known = Known { birth_ns: task::now_ns(), ..Known::default() };
        }
    } else if new == state::ESTABLISHED && old == state::SYN_RECV {
        if let Some(known) = make(sk)
            && known.birth_ns == 0
        {
            known.birth_ns = task::now_ns();
            known.server = 1;
        }
    } else if new == state::FIN_WAIT1 {
        // What becomes a socket in TIME_WAIT keeps it.
        let _it_is_read_later = Typed::cookie(sk);
    } else if new == state::CLOSE && old != state::LISTEN && old != state::CLOSE && old != state::LAST_ACK {
        closed(sk, old);
    }
}

/// The place in `WAITING` of the socket with this cookie. The kernel counts cookies up, so the places go round.
#[inline(always)]
fn place_of(cookie: u64) -> u32 {
    cookie as u32 % WAITING_PLACES
}

/// The owner of the connection that went to TIME_WAIT and whose socket has this cookie, unless a later one has its place.
#[inline(always)]
fn waiting(cookie: u64) -> Option<&'static Owner> {
    WAITING
        .get(place_of(cookie))
        .filter(|waiting| cookie != 0 && waiting.cookie == cookie)
        .map(|waiting| &waiting.owner)
}

#[inline(always)]
fn closed(sk: Sock<Typed>, old: i32) {
    let cookie = sk.cookie();
    if (old == FIN_WAIT2 || old == CLOSING || old == state::FIN_WAIT1)
        && cookie != 0
        && let Some(owner) = owner::of(sk)
    {
        let _the_place_exists = WAITING.set(place_of(cookie), Waiting { cookie, owner: *owner }, 0);
    }
    let Some(tcp) = Typed::tcp(sk) else { return };
    let Some(known) = make(sk) else { return };
    let [unsent, unacked, unread] = bytes(sk, tcp, old);
    known.unsent = unsent;
    known.unacked = unacked;
    known.unread = unread;
    known.cause = why_closed(sk, tcp, unread);
    known.state = old as u8;
}

/// What a row says beside its owner.
struct What {
    tuple: Tuple,
    known: Known,
    reason: u32,
    netns: u32,
    state: u8,
    substate: u8,
    received: u8,
    cause: u8,
    server: u8,
}

impl What {
    /// Nothing but the kernel's reason.
    #[inline(always)]
    fn new(reason: u32) -> Self {
        Self {
            tuple: Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 },
            known: Known {
                birth_ns: 0,
                unsent: 0,
                unacked: 0,
                unread: 0,
                state: 0,
                cause: 0,
                server: 0,
                zero: 0,
            },
            reason,
            netns: 0,
            state: 0,
            substate: 0,
            received: 0,
            cause: cause::NONE,
            server: 0,
        }
    }
}

/// A reset of a socket becomes an event or is counted, if it passes the filters.
#[inline(always)]
fn happens<A: Access>(what: &What, facts: &Facts, sk: Sock<A>) {
    if owner::keeps(|| facts.owner, || sk.cgroup()) {
        leaves(what, facts);
    } else if what.received == 1 {
        is_no_row(what);
    }
}

/// What came with these ends has no row: user space is told where it waits for that. Once per object.
#[inline(never)]
fn is_no_row(what: &What) {
    if setting!(CONFIG.all) == 0 {
        return;
    }
    let Some(mut event) = reserve_with::<Event>(Facts::NONE) else { return };
    event.ts_ns = task::now_ns();
    event.birth_ns = 0;
    event.tuple = what.tuple;
    event.unsent = 0;
    event.unacked = 0;
    event.unread = 0;
    event.reason = UNTOLD;
    event.cpu_pid = 0;
    event.netns = what.netns;
    event.cpu_comm = [0; 16];
    event.state = 0;
    event.substate = 0;
    event.received = NO_ROW;
    event.cause = cause::NONE;
    event.how = 0;
    event.zero = [0; 3];
}

/// A reset with all that is known of it becomes an event or is counted, if it passes the filters of connections. Once per object.
#[inline(never)]
fn leaves(what: &What, facts: &Facts) {
    if !filter::keeps_family(what.tuple.family)
        || !filter::keeps_netns(|| what.netns)
        || !filter::keeps_ends(&what.tuple)
    {
        if what.received == 1 && what.state != 0 {
            is_no_row(what);
        }
        return;
    }
    if setting!(CONFIG.count) != 0 {
        count(what, facts.owner);
        return;
    }
    let Some(mut event) = reserve_with::<Event>(*facts) else { return };
    event.ts_ns = task::now_ns();
    event.birth_ns = what.known.birth_ns;
    event.tuple = what.tuple;
    event.unsent = what.known.unsent;
    event.unacked = what.known.unacked;
    event.unread = what.known.unread;
    event.reason = what.reason;
    event.cpu_pid = task::pid();
    event.netns = what.netns;
    task::comm(&mut event.cpu_comm);
    event.state = what.state;
    event.substate = what.substate;
    event.received = what.received;
    event.cause = what.cause;
    event.how = facts.owner.map_or(0, |owner| owner.how) as u8;
    event.zero = [0; 3];
}

/// One more of what is counted together.
#[inline(always)]
fn count(what: &What, owner: Option<&Owner>) {
    let how = owner.map_or(0, |owner| owner.how);
    let is_server = what.server != 0 || what.state == 0 || how == ACCEPTOR || how == LISTENER;
    let mut key = Key {
        raddr: what.tuple.raddr,
        comm: [0; 16],
        pid: 0,
        reason: what.reason,
        port: if is_server { what.tuple.lport } else { what.tuple.rport },
        family: what.tuple.family,
        state: what.state,
        received: what.received,
        cause: what.cause,
        zero: 0,
    };
    if let Some(owner) = owner {
        key.pid = owner.pid;
        key.comm = owner.comm;
    }
    let is_first = CURRENT.get(0).copied().unwrap_or(0) & 1 == 0;
    if !storage::add(if is_first { &COUNTS_0 } else { &COUNTS_1 }, key, 1) {
        lost(Loss::MapFull);
    }
}

/// Writes the ends of the packet at this address, the sender's first; answers its TCP flags and [`IS_TCP`], or 0. Once per object.
#[inline(never)]
fn ends_of_packet(skb: u64, came: bool, to: &mut Tuple) -> u32 {
    let Some(skb) = Skb::<Probed>::new(skb as *const u8) else { return 0 };
    let ip = if came { skb.data() } else { skb.network() };
    headers_at(ip, skb.protocol(), to).map_or(0, |flags| IS_TCP | u32::from(flags))
}
const IS_TCP: u32 = 1 << 8;

/// Writes the ends of the answer to the packet at this address: this host's first. `false`: it is no TCP segment, or a reset, which
/// is not answered. Once per object.
#[inline(never)]
fn ends_of_answer(skb: u64, family: u64, to: &mut Tuple) -> bool {
    let flags = ends_of_packet(skb, false, to);
    if flags == 0 || flags & u32::from(RST) != 0 {
        return false;
    }
    core::mem::swap(&mut to.lport, &mut to.rport);
    if family == u64::from(AF_INET6) && to.family == AF_INET {
        to.family = AF_INET6;
        let (laddr, raddr) = (to.raddr[0], to.laddr[0]);
        to.laddr = [0, 0, MAPPED_WORD, laddr];
        to.raddr = [0, 0, MAPPED_WORD, raddr];
    } else {
        core::mem::swap(&mut to.laddr, &mut to.raddr);
    }
    true
}

/// A reset answers `skb`, which is for no socket.
#[inline(always)]
fn answers_nobody<A: Access>(skb: Skb<A>, reason: u32) {
    let mut what = What::new(reason);
    if !ends_of_answer(skb.id(), 0, &mut what.tuple) {
        return;
    }
    what.netns = skb.distrusted().dev().map_or(0, |dev| dev.netns());
    what.cause = cause::NO_SOCKET;
    is_to_leave(&what);
    if owner::keeps(|| None, || 0) {
        leaves(&what, &Facts::NONE);
    }
}

/// The packet of this answer is to leave, which then is no event. Once per object.
#[inline(never)]
fn is_to_leave(what: &What) {
    if setting!(CONFIG.notes) == 0 {
        return;
    }
    let mut ends = Ends { tuple: what.tuple, netns: what.netns, came: 0 };
    if ends.tuple.family == AF_INET6
        && ends.tuple.laddr[2] == MAPPED_WORD
        && ends.tuple.raddr[2] == MAPPED_WORD
    {
        ends.tuple.family = AF_INET;
        ends.tuple.laddr = [ends.tuple.laddr[3], 0, 0, 0];
        ends.tuple.raddr = [ends.tuple.raddr[3], 0, 0, 0];
    }
    // Where there is no room, another one goes.
    let _there_is_room = PACKETS.insert(ends, Seen { ts_ns: task::now_ns(), skb: 0 }, 0);
}

/// Whether the packet at this address, with these ends, is an answer of TCP's or had an event at another interface; it is noted. Once
/// per object.
#[inline(never)]
fn is_known(what: &What, came: u32, skb: u64) -> bool {
    let ends = Ends { tuple: what.tuple, netns: what.netns, came };
    let now = task::now_ns();
    if let Some(seen) = storage::lru_entry(&PACKETS, ends)
        && now.wrapping_sub(seen.ts_ns) < SOON_NS
        && (seen.skb == 0 || seen.skb == skb)
    {
        if seen.skb == 0 {
            let _there_is_room = PACKETS.insert(ends, Seen { ts_ns: now, skb }, 0);
        }
        return true;
    }
    let _there_is_room = PACKETS.insert(ends, Seen { ts_ns: now, skb }, 0);
    false
}

/// A packet is about to leave by an interface. Without `GUESSES` all answers of TCP's are noted; with it those are not that are for
/// no socket or for one in TIME_WAIT.
#[inline(always)]
fn queued<const GUESSES: bool>(skb: Skb<Typed>) {
    if !may_be_reset(skb.network(), skb.protocol()) {
        return;
    }
    let Some(skb) = Skb::<Probed>::new(skb.id() as *const u8) else { return };
    let mut what = What::new(UNTOLD);
    if ends_of_packet(skb.id(), false, &mut what.tuple) & u32::from(RST) == 0 {
        return;
    }
    what.netns = skb.dev().map_or(0, |dev| dev.netns());
    if skb.came_in() {
        core::mem::swap(&mut what.tuple.lport, &mut what.tuple.rport);
        core::mem::swap(&mut what.tuple.laddr, &mut what.tuple.raddr);
        is_no_row(&what);
        return;
    }
    what.cause = match skb.sk() {
        None if GUESSES && what.tuple.family == AF_INET6 => cause::NO_SOCKET,
        None => cause::FIREWALL,
        Some(sk) => {
            let now = sk.state();
            if now == state::TIME_WAIT || now == state::NEW_SYN_RECV || sk.is_stream() {
                return;
            }
            if sk.is_open() { cause::RAW } else { cause::NO_SOCKET }
        }
    };
    let is_asked = if what.cause == cause::NO_SOCKET { GUESSES } else { setting!(CONFIG.all) != 0 };
    if is_asked && setting!(CONFIG.sent) != 0 && !is_known(&what, 0, skb.id()) && !filter::by_task() {
        leaves(&what, &Facts::NONE);
    }
}

/// A packet came by an interface.
#[inline(always)]
fn came(skb: Skb<Typed>) {
    if !may_be_reset(skb.data(), skb.protocol()) {
        return;
    }
    let mut what = What::new(UNTOLD);
    if ends_of_packet(skb.id(), true, &mut what.tuple) & u32::from(RST) == 0 {
        return;
    }
    what.netns = skb.distrusted().dev().map_or(0, |dev| dev.netns());
    if is_known(&what, 1, skb.id()) || filter::by_task() {
        return;
    }
    core::mem::swap(&mut what.tuple.lport, &mut what.tuple.rport);
    core::mem::swap(&mut what.tuple.laddr, &mut what.tuple.raddr);
    what.received = 1;
    what.cause = cause::IGNORED;
    leaves(&what, &Facts::NONE);
}

/// A reset answers `skb`, which is for a socket in TIME_WAIT or for a request.
#[inline(always)]
fn answers_small<A: Owned>(sk: Sock<A>, skb: Skb<A>, now: i32, reason: u32) {
    let mut what = What::new(reason);
    if !ends_of_answer(skb.id(), sk.family().into(), &mut what.tuple) {
        return;
    }
    what.netns = sk.netns();
    is_to_leave(&what);
    what.state = now as u8;
    if now == state::TIME_WAIT {
        what.substate = sk.substate();
        what.cause = cause::TIME_WAIT;
    }
    happens(&what, &Facts::of_small(sk, waiting(sk.cookie())), sk);
}

/// Writes the ends of a whole socket.
#[inline(always)]
fn ends(sk: Sock<Typed>, tcp: TcpSock<Typed>, family: u16, to: &mut Tuple) {
    sk.addrs(family, to);
    to.lport = tcp.sport();
    to.rport = sk.rport();
}

/// `sk`, a whole socket, sends a reset: as an answer to `skb`, or of its own accord.
#[inline(always)]
fn sends(sk: Sock<Typed>, skb: Option<Skb<Typed>>, now: i32, reason: u32) {
    let family = sk.family();
    if !is_inet(family) || !sk.is_tcp() {
        return;
    }
    let Some(tcp) = Typed::tcp(sk) else { return };
    let mut what = What::new(reason);
    what.netns = sk.netns();
    if let Some(skb) = skb {
        if !ends_of_answer(skb.id(), family.into(), &mut what.tuple) {
            return;
        }
        is_to_leave(&what);
    } else {
        ends(sk, tcp, family, &mut what.tuple);
    }
    what.state = now as u8;
    if let Some(known) = known(sk) {
        what.known.birth_ns = known.birth_ns;
        what.server = known.server;
        if now == state::CLOSE && known.state != 0 {
            what.state = known.state;
            what.known.unsent = known.unsent;
            what.known.unacked = known.unacked;
            what.known.unread = known.unread;
            if skb.is_none() {
                what.cause = known.cause;
            }
        }
    }
    if now == state::LISTEN {
        what.cause = cause::NO_CONNECTION;
    } else if now != state::CLOSE {
        [what.known.unsent, what.known.unacked, what.known.unread] = bytes(sk, tcp, now);
        if skb.is_none() {
            what.cause = if what.known.unacked != 0 && tcp.timeouts() != 0 {
                cause::RETRIES
            } else if tcp.probes() != 0 && what.known.unacked == 0 {
                cause::KEEPALIVE
            } else {
                cause::ABORTED
            };
        }
    }
    happens(&what, &Facts::of(sk), sk);
}

/// `tcp:tcp_send_reset` is hit.
#[inline(always)]
fn sent(sk: *const u8, skb: *const u8, reason: u32) {
    let skb = Skb::<Typed>::new(skb);
    let Some(sk) = Sock::<Typed>::new(sk) else {
        if let Some(skb) = skb {
            answers_nobody(skb, reason);
        }
        return;
    };
    let now = sk.state();
    if now != state::TIME_WAIT && now != state::NEW_SYN_RECV {
        sends(sk, skb, now, reason);
    } else if let Some(skb) = skb {
        answers_small(sk, skb, now, reason);
    }
}

/// A reset may answer `skb`: one that the tracepoint does not see before 6.10.
#[inline(always)]
fn may_answer<A: Owned>(sk: *const u8, skb: *const u8) {
    if setting!(CONFIG.sent) == 0 {
        return;
    }
    let Some(skb) = Skb::<A>::new(skb) else { return };
    match Sock::<A>::new(sk) {
        None => answers_nobody(skb, UNTOLD),
        Some(sk) => {
            let now = sk.state();
            if now == state::TIME_WAIT || now == state::NEW_SYN_RECV {
                answers_small(sk, skb, now, UNTOLD);
            }
        }
    }
}

/// A reset ends the connection of `sk`.
#[inline(always)]
fn takes(sk: Sock<Typed>) {
    let (family, now) = (sk.family(), sk.state());
    if !is_inet(family) || now == state::NEW_SYN_RECV || now == state::TIME_WAIT || !sk.is_tcp() {
        return;
    }
    let Some(tcp) = Typed::tcp(sk) else { return };
    let mut what = What::new(UNTOLD);
    ends(sk, tcp, family, &mut what.tuple);
    what.netns = sk.netns();
    what.state = now as u8;
    what.received = 1;
    [what.known.unsent, what.known.unacked, what.known.unread] = bytes(sk, tcp, now);
    if let Some(known) = known(sk) {
        what.known.birth_ns = known.birth_ns;
        what.server = known.server;
    }
    happens(&what, &Facts::of(sk), sk);
}

probes_ebpf::owner_programs!();

// match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        changed(sk, ctx.arg(1), ctx.arg(2));
    }
    0
}

// match-proto: void tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable, const enum sk_rst_reason reason) (since 6.10)
#[btf_tracepoint(function = "tcp_send_reset")]
fn sent3_tp(ctx: BtfTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

// match-proto: void tcp_send_reset(const struct sock *sk, const struct sk_buff *skb) (up to 6.9)
#[btf_tracepoint(function = "tcp_send_reset")]
fn sent2_tp(ctx: BtfTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), UNTOLD);
    0
}

// match-proto: void tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
fn received_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        takes(sk);
    }
    0
}

// match-proto: void net_dev_queue(struct sk_buff *skb)
#[btf_tracepoint(function = "net_dev_queue")]
fn queued_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        queued::<false>(skb);
    }
    0
}

// match-proto: void net_dev_queue(struct sk_buff *skb)
#[btf_tracepoint(function = "net_dev_queue")]
fn guessed_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        queued::<true>(skb);
    }
    0
}

// match-proto: void netif_receive_skb(struct sk_buff *skb)
#[btf_tracepoint(function = "netif_receive_skb")]
fn came_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        came(skb);
    }
    0
}

// match-proto: void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn forget_tp(ctx: BtfTracePointContext) -> i32 {
    let _may_be_none = KNOWN_BY_SK.remove(ctx.arg::<u64>(0));
    0
}

// match-proto: void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb) (up to 6.9)
#[fentry(function = "tcp_v4_send_reset")]
fn answer4_fentry(ctx: FEntryContext) -> i32 {
    may_answer::<Typed>(ctx.arg(0), ctx.arg(1));
    0
}

// match-proto: void tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb) (up to 6.9)
#[fentry(function = "tcp_v6_send_reset")]
fn answer6_fentry(ctx: FEntryContext) -> i32 {
    may_answer::<Typed>(ctx.arg(0), ctx.arg(1));
    0
}

// match-proto: void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb) (up to 6.9)
#[kprobe]
fn answer4_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        may_answer::<Probed>(sk, skb);
    }
    0
}

// match-proto: void tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb) (up to 6.9)
#[kprobe]
fn answer6_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        may_answer::<Probed>(sk, skb);
    }
    0
}
