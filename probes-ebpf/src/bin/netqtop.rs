//! netqtop: packets and bytes per queue of one network interface.
//!
//! `net:net_dev_start_xmit` sees every packet that goes to the driver, `net:netif_receive_skb` every one that comes
//! from it. Both are also hung on without types, for kernels that have no typed ones. Nothing is ever set to zero:
//! user space compares.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use netbcc_common::loss::Loss;
use netbcc_common::netqtop::{Config, Queue};
use probes_ebpf::dev::Dev;
use probes_ebpf::emit::lost;
use probes_ebpf::mem::{Access, Probed, Typed};
use probes_ebpf::skb::Skb;
use probes_ebpf::{setting, storage};

#[unsafe(no_mangle)]
static CONFIG: Config = Config { ifindex: 0, netns: 0, tx_queues: 0, rx_queues: 0 };

/// User space sets the size.
#[map]
static QUEUES: PerCpuArray<Queue> = PerCpuArray::with_max_entries(2, 0);

/// Whether this is the interface that is asked for. Most others are out after one comparison.
#[inline(always)]
fn is_asked_for<A: Access>(dev: Dev<A>) -> bool {
    dev.index() == setting!(CONFIG.ifindex) && dev.netns() == setting!(CONFIG.netns)
}

/// Counts a packet of `bytes` bytes.
#[inline(always)]
fn count(index: u32, bytes: u32) {
    let Some(queue) = storage::slot(&QUEUES, index) else { return lost(Loss::MapFull) };
    // Alone: of the programs that are attached together, one has the queues of TX, one those of RX.
    queue.bytes += u64::from(bytes);
    // Written out, so that the verifier sees where each goes.
    let [tiny, small, medium, large, huge, jumbo] = &mut queue.packets;
    let packets = match bytes {
        ..64 => tiny,
        64..512 => small,
        512..2048 => medium,
        2048..16_384 => large,
        16_384..65_536 => huge,
        65_536.. => jumbo,
    };
    *packets += 1;
}

/// A packet goes to the driver.
#[inline(always)]
fn sent<A: Access>(skb: Option<Skb<A>>, dev: Option<Dev<A>>) {
    if let (Some(skb), Some(dev)) = (skb, dev)
        && is_asked_for(dev)
    {
        // Queues without a row share the entry behind the last one.
        count(u32::from(skb.queue_mapping()).min(setting!(CONFIG.tx_queues)), skb.bytes());
    }
}

/// A packet comes from the driver.
#[inline(always)]
fn received<A: Access>(skb: Option<Skb<A>>) {
    if let Some(skb) = skb
        && let Some(dev) = skb.dev()
        && is_asked_for(dev)
    {
        // Drivers that record the queue write one more; 0 is not recorded.
        let queue = u32::from(skb.queue_mapping()).saturating_sub(1);
        count(setting!(CONFIG.tx_queues) + 1 + queue.min(setting!(CONFIG.rx_queues)), skb.bytes());
    }
}

// match-proto: void net_dev_start_xmit(const struct sk_buff *skb, const struct net_device *dev)
#[btf_tracepoint(function = "net_dev_start_xmit")]
fn sent_tp(ctx: BtfTracePointContext) -> i32 {
    sent::<Typed>(Skb::new(ctx.arg(0)), Dev::new(ctx.arg(1)));
    0
}

// match-proto: void netif_receive_skb(struct sk_buff *skb)
#[btf_tracepoint(function = "netif_receive_skb")]
fn received_tp(ctx: BtfTracePointContext) -> i32 {
    received::<Typed>(Skb::new(ctx.arg(0)));
    0
}

// match-proto: void net_dev_start_xmit(const struct sk_buff *skb, const struct net_device *dev)
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
fn sent_raw(ctx: RawTracePointContext) -> i32 {
    sent::<Probed>(Skb::new(ctx.arg(0)), Dev::new(ctx.arg(1)));
    0
}

// match-proto: void netif_receive_skb(struct sk_buff *skb)
#[raw_tracepoint(tracepoint = "netif_receive_skb")]
fn received_raw(ctx: RawTracePointContext) -> i32 {
    received::<Probed>(Skb::new(ctx.arg(0)));
    0
}
