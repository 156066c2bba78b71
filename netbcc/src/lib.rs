//! netbcc: BCC's network tools as one static binary.

pub mod cli;
pub mod context;
#[cfg(test)]
mod demo;
pub mod dns;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
pub mod options;
pub mod out;
pub mod owner;
pub mod packed;
pub mod probe;
pub mod registry;
pub mod sys;
pub mod tool;
pub mod tools;
pub mod words;
