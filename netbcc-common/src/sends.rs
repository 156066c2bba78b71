//! The system calls that send, for kernels where nothing else tells what was sent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Their numbers on this architecture.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendCalls {
    /// Those whose first argument is a socket, and whose result is how many bytes it took.
    pub first: [u64; 5],
    /// `splice`, whose third argument is the socket.
    pub splice: u64,
    /// `sendmmsg`, whose result is a number of messages.
    pub sendmmsg: u64,
}

impl SendCalls {
    /// None: what stands in an object until user space sets it.
    pub const NONE: Self = Self { first: [u64::MAX; 5], splice: u64::MAX, sendmmsg: u64::MAX };
}
