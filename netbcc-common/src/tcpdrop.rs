//! tcpdrop: one event per TCP packet that the kernel drops, with its stack when that is new.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Tuple;

/// Frames of a stack, at most. The kernel's own limit is `sysctl kernel.perf_event_max_stack`, 127; this is a multiple of
/// [`NAMES`].
pub const FRAMES: usize = 130;

/// How many frames the kernel names at a time.
pub const NAMES: usize = 10;

/// Bytes for so many names; a name that does not fit is none.
pub const NAMES_BYTES: usize = 512;

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
    /// Why: a value of the kernel's `enum skb_drop_reason`; 0 where the kernel does not tell.
    pub reason: u32,
    /// State of the socket; 0 where there is none.
    pub state: u16,
    /// TCP flags: byte 13 of the header (RFC 9293 section 3.1).
    pub flags: u16,
    /// How many frames follow, if any do.
    pub depth: u32,
    /// 1: later events name this stack by its number alone. 0: it comes again with the next one.
    pub kept: u32,
}

/// A packet that was dropped by a stack not seen before.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WithStack {
    /// The packet.
    pub event: Event,
    /// Addresses in the kernel, innermost first; `event.depth` of them.
    pub frames: [u64; FRAMES],
    /// Their names as the kernel writes them, [`NAMES`] at a time: each a line, after the last one a zero. What follows
    /// that, and what belongs to no frame, may be anything.
    pub names: [[u8; NAMES_BYTES]; FRAMES / NAMES],
}

/// Addresses through which interrupts come into the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Entries {
    /// The lowest one.
    pub first: u64,
    /// How many bytes there are up to the highest one, that byte included. 0: none is known.
    pub bytes: u64,
}

/// What a row tells of the socket.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// Address of its cgroup; 0: the root, or none is known, or nobody asks.
    pub cgroup: u64,
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
    /// The kernel names the addresses of a stack (since 5.13).
    pub names: u8,
}
