//! What the `cargo xtask` command and netbcc's build script share: finding a compiler that can build eBPF.
//!
//! Lives here: questions about the machine that both sides ask. Must never live here: anything that installs
//! or prints (that is the command's work), and any dependency that would slow the build script down.

pub mod toolchain;
