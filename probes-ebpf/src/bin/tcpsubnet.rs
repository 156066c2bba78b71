//! tcpsubnet: bytes that processes send by TCP, per subnet of a list.
//!
//! Sent is what the kernel took: the results of `tcp_sendmsg` (and of `tcp_sendpage`, by which sendfile and splice sent
//! before 6.5). Kprobes see these calls begin, and what they sent where they let go of the socket ([`calls`]). Without
//! fentry and kprobes, `sock:sock_send_length` (since 6.3) tells, or else the results of the system calls that send.
//!
//! The subnet is looked up in a trie, whose longest prefix user space has given the first subnet of the list. What was
//! found is kept per address, so that the length of the list costs nothing for addresses that come again.
#![no_std]
#![no_main]

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext};
use netbcc_common::addr::{AF_INET, AF_INET6, Addr};
use netbcc_common::loss::Loss;
use netbcc_common::sends::SendCalls;
use netbcc_common::tcpsubnet::{Config, Found, NO_SUBNET, Sum};
use probes_ebpf::answer::answer;
use probes_ebpf::emit::lost;
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::sock::Sock;
use probes_ebpf::{calls, filter, setting, storage, syscall};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { sends: SendCalls::NONE, v4: 0, v6: 0 };

/// What was sent to each subnet, by its place in the list. Only ever added to. User space sets the size.
#[map]
static SUMS: PerCpuArray<Sum> = PerCpuArray::with_max_entries(1, 0);

/// Prefixes of IPv4, and the first subnet of the list that has them. User space sets the size.
#[map]
static SUBNETS_4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(1, 0);

/// Prefixes of IPv6, and the same.
#[map]
static SUBNETS_6: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(1, 0);

/// So many bits have the numbers of a half's slots in [`FOUND`].
const SLOT_BITS: u32 = 10;

/// The last address of each slot, and what was found for it.
#[map]
static FOUND: PerCpuArray<Found> = PerCpuArray::with_max_entries(2 << SLOT_BITS, 0);

/// Calls under way, for kprobes.
#[map]
static CALLS: calls::Table = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The function by which bytes come into TCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Message = 0,
    Page = 1,
}

/// The subnet of an address, or [`NO_SUBNET`].
#[inline(always)]
fn find(family: u16, addr: &Addr) -> u32 {
    let found = if family == AF_INET {
        SUBNETS_4.get(Key::new(32, addr[0]))
    } else {
        SUBNETS_6.get(Key::new(128, *addr))
    };
    found.copied().unwrap_or(NO_SUBNET)
}

/// The slot of an address in [`FOUND`]. Each way has its own half: where programs can be preempted, those of two
/// functions may meet in the middle of a change.
#[inline(always)]
fn slot(by: By, addr: &Addr) -> u32 {
    // The golden ratio spreads neighbours over all slots (Knuth's multiplicative hash).
    let mixed = (addr[0] ^ addr[1] ^ addr[2] ^ addr[3]).wrapping_mul(0x9e37_79b1);
    (by as u32) << SLOT_BITS | mixed >> (32 - SLOT_BITS)
}

/// The subnet of an address, or [`NO_SUBNET`]: from its slot, or from [`find`] if another address was last in that slot.
#[inline(always)]
fn find_again(by: By, family: u16, addr: &Addr) -> u32 {
    let Some(found) = storage::slot(&FOUND, slot(by, addr)) else { return find(family, addr) };
    let same = found.family == u32::from(family)
        && found.addr[0] == addr[0]
        && (family == AF_INET
            || (found.addr[1] ^ addr[1]) | (found.addr[2] ^ addr[2]) | (found.addr[3] ^ addr[3]) == 0);
    if !same {
        *found = Found { addr: *addr, family: family.into(), subnet: find(family, addr) };
    }
    found.subnet
}

/// A send of `sk` that answered `result`.
#[inline(always)]
fn sent<A: Access>(by: By, sk: Sock<A>, result: i64) {
    if result <= 0 {
        return;
    }
    let family = sk.family();
    let asked = match family {
        AF_INET => setting!(CONFIG.v4) != 0,
        AF_INET6 => setting!(CONFIG.v6) != 0,
        _ => false,
    };
    if !asked || !filter::keeps_task() || !filter::keeps_ends(sk) {
        return;
    }
    let mut addr = [0; 4];
    sk.raddr(family, &mut addr);
    let subnet = find_again(by, family, &addr);
    if subnet == NO_SUBNET {
        return;
    }
    let Some(sum) = storage::slot(&SUMS, subnet) else {
        lost(Loss::MapFull);
        return;
    };
    // Alone: of the programs that are attached together, each way has one, and each way its own word.
    match by {
        By::Message => sum.message_bytes += result as u64,
        By::Page => sum.page_bytes += result as u64,
    }
}

// match-proto: int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[fexit(function = "tcp_sendmsg")]
fn send_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        sent(By::Message, sk, (answer(&ctx) as i32).into());
    }
    0
}

// match-proto: int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags) (up to 6.4)
#[fexit(function = "tcp_sendpage")]
fn page_fexit(ctx: FExitContext) -> i32 {
    if let Some(sk) = Sock::<Typed>::new(ctx.arg(0)) {
        sent(By::Page, sk, (answer(&ctx) as i32).into());
    }
    0
}

// match-proto: int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[kprobe]
fn send_kprobe(ctx: ProbeContext) -> u32 {
    if !calls::send_begins(&CALLS, ctx.arg(0).and_then(Sock::new).zip(ctx.arg(1))) {
        lost(Loss::MapFull);
    }
    0
}

// match-proto: int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags) (up to 6.4)
#[kprobe]
fn page_kprobe(ctx: ProbeContext) -> u32 {
    if !calls::page_begins(&CALLS, ctx.arg(0).and_then(Sock::new).zip(ctx.arg(3))) {
        lost(Loss::MapFull);
    }
    0
}

// match-proto: void release_sock(struct sock *sk)
#[kprobe]
fn release_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0).and_then(Sock::<Probed>::new) {
        sent(By::Message, sk, calls::released(&CALLS, sk).sent as i64);
    }
    0
}

// match-proto: void sock_send_length(struct sock *sk, int ret, int flags) (since 6.3)
#[btf_tracepoint(function = "sock_send_length")]
fn sent_tp(ctx: BtfTracePointContext) -> i32 {
    let result: i32 = ctx.arg(1);
    if result > 0
        && let Some(sk) = Sock::<Typed>::new(ctx.arg(0))
        && sk.is_tcp()
        && sk.is_stream()
    {
        sent(By::Message, sk, result.into());
    }
    0
}

// match-proto: void sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
fn call_tp(ctx: BtfTracePointContext) -> i32 {
    if let Some((sk, bytes)) = syscall::sent(ctx.arg(0), ctx.arg(1), || setting!(CONFIG.sends)) {
        sent(By::Message, sk, bytes);
    }
    0
}
