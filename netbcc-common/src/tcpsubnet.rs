//! tcpsubnet: bytes sent per subnet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;
use crate::sends::SendCalls;

/// What a destination's subnet is when none of the list has it.
pub const NO_SUBNET: u32 = u32::MAX;

/// Value of the per-CPU array `SUMS`, whose index is the subnet's place in the list. A word for each function that
/// sends: where programs can be preempted, those of two functions may meet in the middle of an addition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sum {
    /// Bytes that the kernel took from processes as messages.
    pub message_bytes: u64,
    /// Bytes that it took as pages (`tcp_sendpage`, up to 6.4).
    pub page_bytes: u64,
}

/// 64-bit words of a [`Sum`].
pub const SUM_WORDS: usize = size_of::<Sum>() / size_of::<u64>();

/// The subnet of an address: value of the per-CPU array `FOUND`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Found {
    /// The address.
    pub addr: Addr,
    /// Its family; 0: there is none yet.
    pub family: u32,
    /// Place in the list, or [`NO_SUBNET`].
    pub subnet: u32,
}

/// Key of the trie `SUBNETS_4`, as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Prefix4 {
    /// How many bits count.
    pub bits: u32,
    /// Network byte order.
    pub addr: u32,
}

/// Key of the trie `SUBNETS_6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Prefix6 {
    /// How many bits count.
    pub bits: u32,
    /// Network byte order.
    pub addr: Addr,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The system calls that send.
    pub sends: SendCalls,
    /// The list has subnets of IPv4.
    pub v4: u32,
    /// The list has subnets of IPv6.
    pub v6: u32,
}
