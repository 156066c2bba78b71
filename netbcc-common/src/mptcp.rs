//! Who has an MPTCP socket: value of the map `OWNERS_BY_MPTCP`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;

/// A process that has an MPTCP socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Owner {
    /// Process (tgid).
    pub pid: u32,
    /// Real uid.
    pub uid: u32,
    /// How that is known, in the words of [`crate::tcplife`]; never [`crate::tcplife::NOBODY`].
    pub how: u32,
    /// 1: the filters of tasks keep it.
    pub kept: u32,
    /// When the socket ended, ns; 0: it lives.
    pub ended_ns: u64,
    /// Name of the thread.
    pub comm: Comm,
}

/// The name in place of a process's where the MPTCP socket of a further subflow has no known owner; the PID is 0.
pub const UNKNOWN: Comm = *b"-\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// The uid in that place: the kernel's number for no user.
pub const NO_USER: u32 = u32::MAX;
