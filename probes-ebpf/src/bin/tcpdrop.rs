//! tcpdrop: one event per TCP packet that the kernel frees as dropped (`skb:kfree_skb` with a reason).
//!
//! What is TCP, and between which ends, is said by the packet's own headers: a socket may be a request or a TIME_WAIT
//! one, of which only the common part can be read, or one that sends other protocols.
//!
//! Its socket is the one that receives (told by the tracepoint since 6.11), else the one that sends or was found for it
//! early. Before 6.11 that is not enough for what TCP drops: there `tcp_v4_do_rcv` and `tcp_v6_do_rcv` tell, per packet
//! that arrives, which socket is about to look at it.
//!
//! A stack has a hash of its addresses as its number, and is sent once, with the names that the kernel itself gives to the
//! addresses (`%pS`). It ends where an interrupt came into the kernel: what was interrupted has nothing to do with the
//! packet, and there is no end of different ones.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, MAPPED_WORD, Tuple};
use netbcc_common::tcpdrop::{Config, Entries, Event, FRAMES, Holder, NAMES, NAMES_BYTES, WithStack};
use probes_ebpf::emit::{reserve_with, reserve_with_if_room};
use probes_ebpf::filter::{self, PortSet, Received};
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::owner::{self, Facts, Owned};
use probes_ebpf::segment::headers;
use probes_ebpf::skb::Skb;
use probes_ebpf::sock::{Sock, is_inet, state};
use probes_ebpf::{setting, stack, storage, task};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { all: 0, stacks: 0, subsystems: 0, names: 0 };

/// The reasons to keep, of those below 65,536.
#[unsafe(no_mangle)]
static REASONS: PortSet = PortSet::new();

/// Where a stack is taken, and lies until its names are written. The second copy of a program (ARCHITECTURE.md, D8), which may run in
/// the middle of the first, has a map of its own in this one's place.
#[map]
static ROOM: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// A stack, and how many of its frames count. The verifier knows nothing of a number that it finds in memory: else it
/// would follow the rest of the program once for each way out of the loop that counted them.
struct Room {
    frames: [u64; FRAMES],
    depth: u32,
}

/// Numbers of the stacks that were sent. User space keeps these stacks, and empties the table before it is full.
#[map]
static SENT: HashMap<u64, u8> = HashMap::with_max_entries(1024, 0);

/// Through which addresses interrupts come, as far as user space saw it in the names of earlier stacks.
#[map]
static ENTRIES: Array<Entries> = Array::with_max_entries(1, 0);

/// A line per address.
#[unsafe(no_mangle)]
static FORMAT: [u8; 4 * NAMES + 1] = *b"%pS\n%pS\n%pS\n%pS\n%pS\n%pS\n%pS\n%pS\n%pS\n%pS\n\0";

/// The packets that sockets look at or looked at last on this CPU, for kernels before 6.11. Several, as one may
/// interrupt another.
#[map]
static RECEIVERS: PerCpuArray<Receivers> = PerCpuArray::with_max_entries(1, 0);

const SLOTS: usize = 8;

/// A ring of the last ones.
#[repr(C)]
struct Receivers {
    /// How many there were.
    count: usize,
    last: [Receiver; SLOTS],
}

/// A packet and the socket that receives it, by their addresses.
#[repr(C)]
#[derive(Clone, Copy)]
struct Receiver {
    skb: u64,
    sk: u64,
}

#[inline(always)]
fn keeps_reason(reason: u32) -> bool {
    match u16::try_from(reason) {
        Ok(reason) => REASONS.has(reason),
        Err(_) => setting!(CONFIG.subsystems) != 0,
    }
}

/// What there is to say of `sk`, which may be a small one: without a filter of cgroups only the common part is read.
#[inline(always)]
fn holder<A: Owned>(sk: Sock<A>) -> (Holder, Facts) {
    (holder_only(sk), Facts::of(sk))
}

/// What there is to say of the socket that a packet points to.
#[inline(always)]
fn sender(sk: Sock<Typed>) -> (Holder, Facts) {
    (holder_only(sk), Facts::of_packets(sk))
}

#[inline(always)]
fn holder_only<A: Access>(sk: Sock<A>) -> Holder {
    let cgroup = if filter::by_group() { sk.cgroup() } else { 0 };
    Holder { cgroup, netns: sk.netns(), family: sk.family(), state: sk.state() as u16 }
}

/// `skb` is dropped for a reason that is asked for.
#[inline(always)]
fn dropped(ctx: &BtfTracePointContext, skb: Skb<Typed>, (mut holder, facts): (Holder, Facts), reason: u32) {
    if !is_inet(holder.family) {
        // None, or one that sends whole packets.
        if setting!(CONFIG.all) == 0 {
            return;
        }
        let netns = skb.distrusted().dev().map_or(0, |dev| dev.netns());
        holder = Holder { cgroup: holder.cgroup, netns, family: 0, state: 0 };
    } else if !filter::keeps_family(holder.family) {
        return;
    }
    let kept = owner::keeps(|| facts.owner, || holder.cgroup);
    if !kept || !filter::keeps_netns(|| holder.netns) {
        return;
    }
    let mut tuple = Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 };
    let Some(flags) = headers(skb, &mut tuple) else { return };
    if holder.family == 0 {
        if !filter::keeps_family(tuple.family) {
            return;
        }
    } else if holder.family == AF_INET6 && tuple.family == AF_INET {
        tuple.laddr = [0, 0, MAPPED_WORD, tuple.laddr[0]];
        tuple.raddr = [0, 0, MAPPED_WORD, tuple.raddr[0]];
        tuple.family = AF_INET6;
    }
    let kept = !filter::by_ends()
        || if skb.came_in() { filter::keeps_ends(Received(&tuple)) } else { filter::keeps_ends(&tuple) };
    if !kept {
        return;
    }
    let fill = |event: &mut Event, stack: u64, depth: u32| {
        event.ts_ns = task::now_ns();
        event.stack = stack;
        event.tuple = tuple;
        event.pid = task::pid();
        event.netns = holder.netns;
        event.reason = reason;
        event.state = holder.state;
        event.flags = u16::from(flags);
        event.depth = depth;
        event.kept = 0;
    };
    let (mut number, mut depth) = (0, 0);
    if setting!(CONFIG.stacks) != 0
        && let Some(Room { frames, depth: counted }) = storage::slot(&ROOM, 0)
    {
        depth = stack::take(ctx, frames);
        if depth != 0 {
            let Entries { first, bytes } = ENTRIES.get(0).copied().unwrap_or_default();
            (number, *counted) = stack::number(frames, depth, first, bytes);
            depth = stack::unknown(counted);
            // Where a stack has no room, its row still may.
            if SENT.get_ptr(number).is_none()
                && let Some(mut event) = reserve_with_if_room::<WithStack>(facts)
            {
                fill(&mut event.event, number, depth);
                // Once more, as only a helper that a lockdown may forbid copies it.
                let _the_same = stack::take(ctx, &mut event.frames);
                let event = &mut *event;
                let named = setting!(CONFIG.names) == 0
                    || stack::write_names::<FRAMES, NAMES, NAMES_BYTES, { FRAMES / NAMES }, _>(
                        frames,
                        depth,
                        &FORMAT,
                        &mut event.names,
                    );
                // Before the event leaves: who finds the number there sends behind it.
                event.event.kept = u32::from(named && SENT.insert(number, 1, 0).is_ok());
                return;
            }
        }
    }
    let Some(mut event) = reserve_with::<Event>(facts) else { return };
    fill(&mut event, number, depth);
}

probes_ebpf::owner_programs!();

// match-proto: void kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk) (since 6.11)
#[btf_tracepoint(function = "kfree_skb")]
fn drop4_tp(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if keeps_reason(reason)
        && let Some(skb) = Skb::<Typed>::new(ctx.arg(0))
    {
        let holder = match Sock::<Typed>::new(ctx.arg(3)) {
            Some(sk) => holder(sk),
            None => skb.sk().map_or(NOBODY, sender),
        };
        dropped(&ctx, skb, holder, reason);
    }
    0
}

/// The socket that sends `skb`, else the one that looks at it, for kernels that do not tell.
#[inline(always)]
fn holder_of(skb: Skb<Typed>) -> (Holder, Facts) {
    match skb.sk() {
        Some(sk) => sender(sk),
        None => receiver(skb).map_or(NOBODY, holder),
    }
}

const NOBODY: (Holder, Facts) = (Holder { cgroup: 0, netns: 0, family: 0, state: 0 }, Facts::NONE);

// match-proto: void kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason) (5.17 to 6.10)
#[btf_tracepoint(function = "kfree_skb")]
fn drop3_tp(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    if keeps_reason(reason)
        && let Some(skb) = Skb::<Typed>::new(ctx.arg(0))
    {
        dropped(&ctx, skb, holder_of(skb), reason);
    }
    0
}

// match-proto: void kfree_skb(struct sk_buff *skb, void *location) (up to 5.16)
#[btf_tracepoint(function = "kfree_skb")]
fn drop2_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some(skb) = Skb::<Typed>::new(ctx.arg(0)) {
        dropped(&ctx, skb, holder_of(skb), 0);
    }
    0
}

/// The socket that looks at `skb`. What is remembered may be of an earlier packet at the same address: then it is
/// this one's socket only if this one, too, has got to TCP and their ports agree.
#[inline(always)]
fn receiver(skb: Skb<Typed>) -> Option<Sock<Probed>> {
    // TCP has its IP header behind it. Before that, as where a firewall sees it, a packet begins with that header.
    if !skb.data().is_behind(skb.network()) {
        return None;
    }
    let receivers = storage::slot(&RECEIVERS, 0)?;
    let mut sk = 0;
    // The newest comes last.
    for back in (1..=SLOTS).rev() {
        let slot = &receivers.last[receivers.count.wrapping_sub(back) % SLOTS];
        if slot.skb == skb.id() {
            sk = slot.sk;
        }
    }
    let sk = Sock::<Probed>::new(sk as *const u8)?;
    let mut tuple = Tuple { laddr: [0; 4], raddr: [0; 4], lport: 0, rport: 0, family: 0, zero: 0 };
    headers(skb, &mut tuple)?;
    let connected = sk.rport() == tuple.lport || sk.state() == state::LISTEN;
    (connected && (sk.num() == tuple.rport || sk.num() == 0)).then_some(sk)
}

/// `sk` is about to look at the packet at this address.
#[inline(always)]
fn looks(sk: u64, skb: u64) {
    if let Some(receivers) = storage::slot(&RECEIVERS, 0) {
        // Not alone: where the one for IPv6 interrupts the one for IPv4 right here, one of both packets is forgotten, and
        // its drop, if it is one, says nothing of its socket.
        receivers.last[receivers.count % SLOTS] = Receiver { skb, sk };
        receivers.count = receivers.count.wrapping_add(1);
    }
}

// match-proto: int tcp_v4_do_rcv(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_v4_do_rcv")]
fn receive4_fentry(ctx: FEntryContext) -> i32 {
    looks(ctx.arg(0), ctx.arg(1));
    0
}

// match-proto: int tcp_v6_do_rcv(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_v6_do_rcv")]
fn receive6_fentry(ctx: FEntryContext) -> i32 {
    looks(ctx.arg(0), ctx.arg(1));
    0
}

// match-proto: int tcp_v4_do_rcv(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn receive4_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        looks(sk, skb);
    }
    0
}

// match-proto: int tcp_v6_do_rcv(struct sock *sk, struct sk_buff *skb)
#[kprobe]
fn receive6_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        looks(sk, skb);
    }
    0
}

// match-proto: void tcp_probe(struct sock *sk, struct sk_buff *skb)
#[btf_tracepoint(function = "tcp_probe")]
fn receive_tp(ctx: BtfTracePointContext) -> i32 {
    looks(ctx.arg(0), ctx.arg(1));
    0
}
