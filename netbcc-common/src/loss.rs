//! Why an event did not become a row. The kernel side counts per CPU, user space says it at exit.

/// The causes, as indices of the per-CPU array `LOST`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer had no room.
    RingFull = 0,
    /// A table had no room for one more entry (a socket, a flow).
    MapFull = 1,
    /// No loss: a run that the kernel skipped, and that the second copy of the program made up for.
    MadeUp = 2,
    /// A DNS question was forgotten while it waited for its answer, because too many did.
    Question = 3,
    /// The ring of DNS answers had no room.
    Answer = 4,
}

/// How many causes there are.
pub const LOSSES: u32 = 5;
