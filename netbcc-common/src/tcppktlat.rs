//! tcppktlat: one event per read of data that arrived.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// A read of data that arrived since the read before.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC` at the read, ns.
    pub ts_ns: u64,
    /// `CLOCK_MONOTONIC` at the first arrival that the reader had not looked at, ns; 0: there was none, or [`details::FIRST`] was
    /// not asked for.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` at the last segment with data, ns.
    pub last_ns: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid) that reads.
    pub pid: u32,
    /// Thread that reads.
    pub tid: u32,
    /// Bytes that are still to be read; 0 where [`details::UNREAD`] was not asked for.
    pub unread: u32,
    /// Inode number of the network namespace; 0 where [`details::NETNS`] was not asked for.
    pub netns: u32,
    /// Name of the thread that reads.
    pub comm: Comm,
}

/// What arrived at a socket and was not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// `CLOCK_MONOTONIC` at the first segment whose data nobody has looked at, ns; 0: there is none.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` at the last segment with data, ns; 0: there is none since the last read.
    pub last_ns: u64,
}

/// What a run asks for beside the rest: bits of [`Config::details`].
pub mod details {
    /// [`super::Event::first_ns`].
    pub const FIRST: u32 = 1 << 0;
    /// [`super::Event::unread`].
    pub const UNREAD: u32 = 1 << 1;
    /// [`super::Event::netns`].
    pub const NETNS: u32 = 1 << 2;
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Reads that came sooner after the arrival are no rows, ns.
    pub min_ns: u64,
    /// What is asked for: bits of [`details`].
    pub details: u32,
    /// 1: a row's time begins with the first arrival, not with the last one.
    pub first: u32,
}
