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
    /// Network namespace of the socket (inode number), where it is asked for; else 0.
    pub netns: u32,
    /// Name of the thread.
    pub comm: Comm,
    /// Cookie of the socket, where it is asked for and known; else 0.
    pub cookie: u64,
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

/// Rows of an interval that lie in an array, where the sockets know their places. What does not fit there goes to the
/// tables `SUMS_0` and `SUMS_1`.
pub const ROWS: u32 = 8192;

/// Value of the arrays `ROWS_0` and `ROWS_1`: a process's part in a connection. Only the sums change once it is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Row {
    /// Both ends: the words of a [`Tuple`].
    pub tuple: [u64; TUPLE_WORDS],
    /// Process (tgid).
    pub pid: u32,
    /// Family of the socket.
    pub family: u32,
    /// Name of the thread as the kernel has it: behind its end anything may be.
    pub comm: [u64; 2],
    /// `skc_addrpair`.
    pub addrpair: u64,
    /// `skc_portpair`.
    pub portpair: u32,
    /// Network namespace of the socket (inode number), where it is asked for; else 0.
    pub netns: u32,
    /// Cookie of the socket, where it is asked for and known; else 0.
    pub cookie: u64,
    /// How much.
    pub sum: Sum,
}

/// 64-bit words of a [`Tuple`].
pub const TUPLE_WORDS: usize = size_of::<Tuple>() / size_of::<u64>();

/// How much of a generation's tables is used: value of the array `USED`, whose index is 0 or 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Used {
    /// Rows that were asked for, be there room or not.
    pub rows: u64,
    /// Whether anything is in the table.
    pub table: u64,
}

/// What typed programs keep with a socket: value of the map `SOCKETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Kept {
    /// The row of who received first in the interval, and of who sent first: the number of the interval in the upper
    /// half, the place of the row in the lower.
    pub rows: [u64; 2],
    /// `copied_seq` when it was last looked at, if `is_known`.
    pub seq: u32,
    /// Whether it was looked at.
    pub is_known: u16,
    /// It was first looked at in the call under way, whose first bytes are therefore not known yet.
    pub is_new: u16,
    /// Bytes of that call that are counted.
    pub counted: u64,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// The system calls that send.
    pub sends: SendCalls,
    /// Whether there is any filter.
    pub filters: u32,
    /// Always zero.
    pub zero: u32,
}
