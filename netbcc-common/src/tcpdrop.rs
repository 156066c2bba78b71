//! tcpdrop: one event per TCP packet that the kernel drops, with its stack when that is new.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Tuple;

/// Frames of a stack, at most (the kernel's own limit is `sysctl kernel.perf_event_max_stack`, 127).
pub const FRAMES: usize = 127;

/// A packet that was dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Names the stack: the same number, the same stack. 0: there is none.
    pub stack: u64,
    /// The packet's source (as local end) and destination (as remote end), read as its socket's family.
    pub tuple: Tuple,
    /// Process (tgid) on the CPU.
    pub pid: u32,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Why: a value of the kernel's `enum skb_drop_reason`.
    pub reason: u32,
    /// State of the socket; 0 where there is none.
    pub state: u16,
    /// TCP flags: byte 13 of the header (RFC 9293 section 3.1).
    pub flags: u16,
    /// How many frames follow, if any do.
    pub depth: u32,
    /// Always zero.
    pub zero: u32,
}

/// A packet that was dropped by a stack not seen before.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WithStack {
    /// The packet.
    pub event: Event,
    /// Addresses in the kernel, innermost first; `event.depth` of them.
    pub frames: [u64; FRAMES],
}

/// What a row tells of the socket.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// Network namespace (inode number).
    pub netns: u32,
    /// Family; 0: there is no socket.
    pub family: u16,
    /// State.
    pub state: u16,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Packets without a socket are kept.
    pub all: u8,
    /// Stacks are taken.
    pub stacks: u8,
    /// Reasons of more than 16 bits, which subsystems have, are kept.
    pub subsystems: u8,
    /// Always zero.
    pub zero: u8,
}
