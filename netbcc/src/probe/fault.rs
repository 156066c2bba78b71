//! What can go wrong with a program on its way into the kernel.
//!
//! Lives here: the faults that `load` and `object` report and `attach` judges. Must never live here: what follows from a
//! fault.

use std::io;

/// Where a program stopped on its way into the kernel.
pub(super) enum Fault {
    /// The object has no such program, or not one that is attached in this way or there.
    Object(String),
    /// A map that it needs could not be created.
    Map(String, io::Error),
    /// It could not be loaded; and what the verifier said.
    Load(io::Error, String),
    /// The program could not be attached.
    Attach(io::Error),
}

/// The last cause: aya's own sentences name system calls, the last one says why.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
