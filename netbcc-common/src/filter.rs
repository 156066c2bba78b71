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
    /// Keep this network namespace (inode number).
    pub netns: u32,
    /// Keep [`crate::addr::AF_INET`] or [`crate::addr::AF_INET6`].
    pub family: u16,
    /// `uid` filters.
    pub by_uid: u8,
    /// Keep tasks whose cgroup id is a key of the map `CGROUPS`.
    pub by_cgroup: u8,
    /// Keep tasks whose mount namespace inode is a key of the map `MNTNSES`.
    pub by_mntns: u8,
    /// Keep local ports that are in the set `LPORTS`.
    pub by_lport: u8,
    /// Keep remote ports that are in the set `RPORTS`.
    pub by_rport: u8,
    /// Always zero.
    pub zero: u8,
}

/// A set of ports: bit `port % 8` of byte `port / 8`. One load answers, however long the list was.
pub const PORT_SET_BYTES: usize = 65_536 / 8;
