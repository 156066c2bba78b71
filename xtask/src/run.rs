//! `cargo xtask run`: build, then become the tool.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::shell::as_root;
use crate::{build, setup};

/// Builds the binary and replaces this process by it, so that the terminal and signals are the tool's own.
///
/// # Errors
/// No tool is named, the build fails, or the binary (or sudo) cannot be started.
pub(crate) fn run(mut args: Vec<OsString>) -> Result<ExitCode> {
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    if args.is_empty() {
        bail!("which tool? For example: cargo xtask run tcpconnect -t");
    }
    setup::satisfy(setup::BUILD)?;
    let binary = build::dist()?;
    let mut cmd = as_root(&binary);
    Err(cmd.args(args).exec()).with_context(|| format!("start {}", binary.display()))
}
