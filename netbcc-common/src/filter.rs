//! The filters that all tools share. They are read-only constants to the verifier, which removes what is off.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What to keep. Zero in a field means that the field filters nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Filter {
    /// Keep this process (tgid in the initial pid namespace).
    pub pid: u32,
    /// Keep this real uid (initial user namespace), if `by_uid`.
    pub uid: u32,
    /// Keep this network namespace (inode number). Programs that have a socket ask for it where [`NETNS`] is set.
    pub netns: u32,
    /// Keep [`crate::addr::AF_INET`] or [`crate::addr::AF_INET6`].
    pub family: u16,
    /// `uid` filters.
    pub by_uid: u8,
    /// Keep tasks whose cgroup id is a key of the map `CGROUPS`.
    pub by_cgroup: u8,
    /// Keep tasks whose mount namespace inode is a key of the map `MNTNSES`.
    pub by_mntns: u8,
    /// By which parts of a connection's ends it is kept: [`LPORT`] and the others. 0: by none.
    pub by_ends: u8,
    /// Always zero.
    pub zero: [u8; 2],
}

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
