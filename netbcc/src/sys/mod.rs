//! Questions that we ask the machine, and the system calls that nobody else wraps. Must never live here: anything
//! about a tool, and anything that prints.

pub mod address;
pub mod bpf;
pub mod btf;
pub mod confine;
pub mod kallsyms;
pub mod library;
pub mod link;
pub mod machine;
pub mod stdio;
pub mod stop;
pub mod terminal;
