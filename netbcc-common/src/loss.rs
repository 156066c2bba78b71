//! Why an event did not become a row. The kernel side counts per CPU, user space says it at exit.

/// The causes, as indices of the per-CPU array `LOST`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer had no room.
    RingFull = 0,
    /// A table had no room for one more entry (a socket, a flow).
    MapFull = 1,
}

/// How many causes there are.
pub const LOSSES: u32 = 2;
