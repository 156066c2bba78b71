//! tcptop: bytes per process and connection.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;
use crate::sends::SendCalls;

/// Key of the maps `SUMS_0` and `SUMS_1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Key {
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid).
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// Their value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sum {
    /// Bytes that the process took from the connection.
    pub rx_bytes: u64,
    /// Bytes that the kernel took from the process.
    pub tx_bytes: u64,
}

/// What is known of a socket that is read from: value of the map `READ`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Read {
    /// `copied_seq` when it was last looked at.
    pub seq: u32,
    /// The socket was not seen before the call under way, whose first bytes are therefore not known yet.
    pub is_new: u32,
    /// Bytes of that call that are counted.
    pub counted: u64,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The system calls that send.
    pub sends: SendCalls,
    /// Keep tasks below the cgroup in `GROUP`.
    pub by_group: u64,
}
