//! tcpsynbl: lengths of accept queues in slots of log2, per limit; or what each listener took and refused.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// Slots of a histogram: slot `i` counts lengths of `i` bits, slot 1 also the length 0, and slot 0 nothing.
pub const SLOTS: usize = 33;

/// Value of the tables `SUMS_0` and `SUMS_1`, of which the key is the limit: `sk_max_ack_backlog`, a `u32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hist {
    /// How many connections found a queue whose length falls into each slot.
    pub slots: [u64; SLOTS],
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The reason `TCP_LISTEN_OVERFLOW` of this kernel; 0: it has none.
    pub overflow: u32,
}

/// What a listener did with connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counts {
    /// Handshakes that found room.
    pub accepted: u64,
    /// SYNs that were refused because its queue was full.
    pub early: u64,
    /// Handshakes that were refused at their third packet because its queue was full.
    pub late: u64,
}

/// Value of the tables `LISTENERS`, of which the key is the listener's address, and `GONE`, of which the key is that and `born_ns`.
/// Counts only grow; what is seen of it is written anew whenever all listeners are looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listener {
    /// When it came to be known: `CLOCK_MONOTONIC`, ns. Tells it from an older one at this address.
    pub born_ns: u64,
    /// What it did by now.
    pub counts: Counts,
    /// What it had done when it was last looked at.
    pub then: Counts,
    /// The number that the kernel gave it (`SO_COOKIE`); 0: none, or not known.
    pub cookie: u64,
    /// Its end; the other one is zero.
    pub tuple: Tuple,
    /// The longest queue that handshakes made or found, by the lowest bit of the interval's number.
    pub longest: [u32; 2],
    /// In which intervals.
    pub intervals: [u32; 2],
    /// The interval in which it was last looked at; 0: none.
    pub seen: u32,
    /// How many connections waited for accept() then.
    pub queue: u32,
    /// How many might wait.
    pub limit: u32,
    /// The longest queue between the beginning of that interval and then; 0: none was seen.
    pub peak: u32,
    /// What it had dropped by then, or by its end, modulo 2^32.
    pub drops: u32,
    /// What it had dropped when it came to be known.
    pub base: u32,
    /// Its network namespace (inode number).
    pub netns: u32,
    /// How many processes had it open.
    pub holders: u32,
    /// The smallest of their numbers (tgid), but not 1 if there was another; 0: there was none.
    pub pid: u32,
    /// The last of them that was seen.
    pub last: u32,
    /// One of them that is in the listener's network namespace itself; 0: none is.
    pub inside: u32,
    /// 1: the filters keep it.
    pub kept: u32,
    /// 1: it is known since its listen().
    pub whole: u32,
    /// 1: its connections know whose they are, so that what it takes is counted where functions cannot be traced.
    pub marked: u32,
    /// 1: it listens no more, and `drops` is all that it dropped.
    pub closed: u32,
    /// Always 0: no padding.
    pub zero: u32,
    /// The name of the process `pid`.
    pub comm: Comm,
}
