//! What users type: the names that the binary is called by, its own commands, and errors in one line.
//!
//! Must never live here: what an option means (`options/`), or what a tool does with it.

mod args;
mod columns;
mod completions;
mod doctor;
mod links;
mod man;
pub mod multicall;
mod parse;
mod run;
mod schema;
mod verbs;

#[cfg(feature = "fuzzing")]
pub(crate) use self::args::refusal;
pub use self::run::main;
#[cfg(feature = "fuzzing")]
pub(crate) use self::schema::of_tool;
