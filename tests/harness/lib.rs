//! How tests run the real binary against real traffic.
//!
//! Start reading at `kernel.rs` (what a check is), then `net.rs` (where it happens), `peer.rs` (who makes the
//! traffic), `run.rs` (the tool under test), `rows.rs` (what it said) and `ended.rs` (whether that adds up). No test lives here.

mod actor;
pub mod dns;
pub mod ended;
pub mod hidden;
pub mod kernel;
pub mod laws;
pub mod library;
mod lines;
pub mod net;
mod netlink;
pub mod peer;
pub mod raw;
pub mod rows;
pub mod run;
pub mod schema;

pub use actor::main as peer_main;
