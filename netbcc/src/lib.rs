//! netbcc: BCC's network tools as one static binary.

pub mod cli;
pub mod context;
pub mod dns;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod out;
pub mod probe;
pub mod registry;
pub mod sys;
pub mod tool;
pub mod tools;
