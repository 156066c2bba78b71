//! netqtop: what each CPU counts per queue of one network interface.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the per-CPU array `QUEUES`. Its entries: the TX queues, one for all other TX queues, then the same of RX.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Queue {
    /// Bytes of all packets.
    pub bytes: u64,
    /// Packets by size, in bytes: below 64, 512, 2 Ki, 16 Ki, 64 Ki, and larger ones.
    pub packets: [u64; SIZES],
}

/// Classes of size.
pub const SIZES: usize = 6;

/// 64-bit words of a [`Queue`].
pub const QUEUE_WORDS: usize = size_of::<Queue>() / size_of::<u64>();

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Index of the interface.
    pub ifindex: u32,
    /// Inode number of its network namespace: others have interfaces with the same index.
    pub netns: u32,
    /// TX queues that have an entry of their own.
    pub tx_queues: u32,
    /// RX queues that have one.
    pub rx_queues: u32,
}
