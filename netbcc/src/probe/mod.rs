//! The engine between a tool and the kernel: what to attach ([`hook`]), how ([`plan`], `attach`, `object` and `load`),
//! and how events come back ([`drain`]).
//!
//! Lives here: everything that names aya (`sys::bpf` takes constants from aya-obj). Must never live here: a tool's
//! name, a kernel function's name, or anything that prints rows. Start at [`plan::Plan`].

mod attach;
mod capability;
mod code;
pub mod diagnosis;
pub mod drain;
mod fault;
mod ledger;
mod load;
mod object;
mod outside;
mod pid;
pub mod plan;
mod sample;
mod screen;
mod table;
mod verifier;
mod wards;

/// The ladders that it takes.
pub use crate::hook;
pub use attach::has_kprobes;
pub use diagnosis::{Diagnosis, Hooks, Verdict, Way};
pub use drain::{Batch, Probe, Walk};
pub use plan::{Plan, Rows};
pub use sample::{Blocks, Pace, Then, Turn, Watched, next_due};
pub use table::{Counters, Generations, Table};
