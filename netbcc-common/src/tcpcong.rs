//! tcpcong: how long each connection was in which state of congestion control, and how often that changed; with `-d` how long
//! single stays took, in slots of log2.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Tuple;

/// Room for states (`enum tcp_ca_state`); the kernel has 5.
pub const STATES: usize = 8;

/// What is kept with a socket: value of the map `SOCKETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Kept {
    /// When its connection began, or was first seen, ns; with the socket's address it names the connection. 0: there is none.
    pub born_ns: u64,
    /// When the stay under way began, ns.
    pub since_ns: u64,
    /// The state under way, as far as it was seen.
    pub state: u32,
    /// Whether the state ever changed.
    pub changed: u32,
}

/// Key of the table `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Key {
    /// Address of the socket.
    pub sk: u64,
    /// See [`Kept::born_ns`].
    pub born_ns: u64,
}

/// Value of the table `FLOWS`: a connection whose state changed, or with `--open` any. Its sums only grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flow {
    /// Whether the connection is closed: nothing changes any more. First, as who copies the value reads it before the sums.
    pub closed: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Time in each state, without the stay under way, ns.
    pub sums_ns: [u64; STATES],
    /// When the first stay began that these sums have, ns.
    pub begin_ns: u64,
    /// When the stay under way began, ns.
    pub since_ns: u64,
    /// How often the state changed.
    pub changes: u64,
    /// Of the first stay.
    pub first: u32,
    /// Of the stay under way.
    pub state: u32,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Whether `begin_ns` is when the connection began.
    pub from_start: u32,
}

/// Value of the per-CPU array `TRACKED`, whose index is 0 for IPv4 and 1 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tracked {
    /// Connections that were begun to be followed.
    pub begun: u64,
    /// Those of them that closed.
    pub closed: u64,
}

/// 64-bit words of a [`Tracked`].
pub const TRACKED_WORDS: usize = size_of::<Tracked>() / size_of::<u64>();

/// Slots of a histogram: slot `i` counts stays of `i` bits, and slot 1 also those of 0.
pub const SLOTS: u32 = 65;

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// When the run began, ns: from then on counts the first stay of a connection that is older.
    pub start_ns: u64,
    /// Histograms of single stays instead of sums.
    pub dist: u8,
    /// Slots are of microseconds, not of milliseconds.
    pub microseconds: u8,
    /// Connections without a change, too.
    pub open: u8,
    /// Always zero.
    pub zero: [u8; 5],
}
