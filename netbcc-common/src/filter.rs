//! The filters that all tools share. They are read-only constants to the verifier, which removes what is off.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What to keep. Zero in a field means that the field filters nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Filter {
    /// The cgroups that are named, of which the first [`Filter::group_count`] count.
    pub groups: [Group; GROUPS],
    /// Keep this process (tgid in the initial pid namespace), if [`PID`] is set.
    pub pid: u32,
    /// Keep this real uid (initial user namespace), if [`UID`] is set.
    pub uid: u32,
    /// Keep this network namespace (inode number). Programs that have a socket ask for it where [`NETNS`] is set.
    pub netns: u32,
    /// Keep [`crate::addr::AF_INET`] or [`crate::addr::AF_INET6`].
    pub family: u16,
    /// By what a task is kept: [`PID`] and the others. 0: by nothing.
    pub by_task: u8,
    /// By which parts of a connection's ends it is kept: [`LPORT`] and the others. 0: by none.
    pub by_ends: u8,
    /// How many cgroups are named.
    pub group_count: u8,
    /// 1: what is in none of the cgroups is kept.
    pub group_default: u8,
    /// 1: a name that is not in the map `COMMS` is kept.
    pub comm_default: u8,
    /// Always zero.
    pub zero: [u8; 5],
}

/// So many cgroups may be named.
pub const GROUPS: usize = 8;

/// A cgroup of version 2, which stands for all that are in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Group {
    /// Its number: the inode number of its folder.
    pub id: u64,
    /// How deep it lies; the root has 0.
    pub level: u32,
    /// 1: what is in it is not kept.
    pub excludes: u32,
}

/// In [`Filter::by_task`]: keep the process [`Filter::pid`].
pub const PID: u8 = 1 << 0;
/// In [`Filter::by_task`]: keep processes that are in the trie `PIDS`.
pub const PIDS: u8 = 1 << 1;
/// In [`Filter::by_task`]: keep the user [`Filter::uid`].
pub const UID: u8 = 1 << 2;
/// In [`Filter::by_task`]: keep users that are in the trie `UIDS`.
pub const UIDS: u8 = 1 << 3;
/// In [`Filter::by_task`]: keep the names that the map `COMMS` says are kept.
pub const COMM: u8 = 1 << 4;
/// In [`Filter::by_task`]: keep what is in [`Filter::groups`].
pub const GROUP: u8 = 1 << 5;
/// In [`Filter::by_task`]: keep tasks whose cgroup id is a key of the map `CGROUPS`.
pub const CGROUPMAP: u8 = 1 << 6;
/// In [`Filter::by_task`]: keep tasks whose mount namespace inode is a key of the map `MNTNSES`.
pub const MNTNSMAP: u8 = 1 << 7;

/// In [`Filter::by_ends`]: keep local ports that are in the set `LPORTS`.
pub const LPORT: u8 = 1 << 0;
/// In [`Filter::by_ends`]: keep remote ports that are in the set `RPORTS`.
pub const RPORT: u8 = 1 << 1;
/// In [`Filter::by_ends`]: keep local addresses that the trie `LADDRS` says are kept.
pub const LADDR: u8 = 1 << 2;
/// In [`Filter::by_ends`]: keep remote addresses that the trie `RADDRS` says are kept.
pub const RADDR: u8 = 1 << 3;
/// In [`Filter::by_ends`]: keep the network namespace [`Filter::netns`].
pub const NETNS: u8 = 1 << 4;

/// A set of ports: bit `port % 8` of byte `port / 8`. One load answers, however long the list was.
pub const PORT_SET_BYTES: usize = 65_536 / 8;
