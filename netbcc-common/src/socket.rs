//! What is known of a socket beside what a tool's own event says: whose it is, its cookie, its cgroup, its network namespace.
//!
//! Where any of it is asked for, [`SocketFacts`] follow the event in each record. [`Owner`] is what is kept while the socket lives.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;

/// Which parts of [`SocketFacts`] are asked for: bits of the global `SOCKET_FACTS`. None: no record has any.
pub mod asked {
    /// `owner_pid`, `owner_comm`, `noted_ns`.
    pub const OWNER: u32 = 1 << 0;
    /// `cookie`.
    pub const COOKIE: u32 = 1 << 1;
    /// `netns`.
    pub const NETNS: u32 = 1 << 2;
    /// `cgroup`.
    pub const CGROUP: u32 = 1 << 3;
    /// All that follows an event.
    pub const ALL: u32 = OWNER | COOKIE | NETNS | CGROUP;
    /// Filters of tasks are of the owner, not of the task on the CPU.
    pub const BY_OWNER: u32 = 1 << 4;
    /// The cookie is made by the kernel's helper; else only one that the socket has already is known.
    pub const MAKES_COOKIES: u32 = 1 << 5;
    /// Owners are kept in a table by the socket's address, not with the socket.
    pub const IN_TABLE: u32 = 1 << 6;
}

/// What follows an event. What was not asked for, or is not known, is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketFacts {
    /// The number that the kernel gave the socket (`SO_COOKIE`), which no other socket has until the next boot.
    pub cookie: u64,
    /// The socket's own cgroup of version 2: the inode number of its folder.
    pub cgroup: u64,
    /// Since when the owner is known: `CLOCK_MONOTONIC`, ns. Of a process that had the socket before the start, when that
    /// process started.
    pub noted_ns: u64,
    /// The socket's network namespace (inode number).
    pub netns: u32,
    /// The owner (tgid); 0: nobody knows.
    pub owner_pid: u32,
    /// The owner's name.
    pub owner_comm: Comm,
}

/// Who owns a socket: value of the maps `OWNERS` and `OWNERS_BY_SK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Owner {
    /// Since when that is known: `CLOCK_MONOTONIC`, ns. Where `how` is [`HELD`], when the process started.
    pub noted_ns: u64,
    /// Process (tgid).
    pub pid: u32,
    /// How that is known: the higher, the better.
    pub how: u16,
    /// 1: the filters of tasks keep it.
    pub kept: u16,
    /// Name of the thread.
    pub comm: Comm,
}

/// Nobody is known.
pub const NOBODY: u16 = 0;
/// It made the socket listen, or had the listener before the start. Connections inherit that until they are accepted.
pub const LISTENER: u16 = 1;
/// It closed or shut down.
pub const CLOSER: u16 = 2;
/// It read first.
pub const READER: u16 = 3;
/// It had a descriptor before the start. Of several, it is the process that started first.
pub const HELD: u16 = 4;
/// It accepted.
pub const ACCEPTOR: u16 = 5;
/// It connected.
pub const CONNECTOR: u16 = 6;
