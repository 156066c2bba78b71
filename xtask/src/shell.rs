//! Running other programs, and where things lie.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::on_path;

/// The workspace: the folder that holds `xtask/`.
pub(crate) fn workspace() -> PathBuf {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_owned)
}

/// `target/` of the workspace. Everything that xtask makes or downloads lies below it.
pub(crate) fn target() -> PathBuf {
    workspace().join("target")
}

/// The cargo that runs xtask, in the workspace, with `target/` as its target folder whatever the environment says.
pub(crate) fn cargo() -> Command {
    let mut cmd = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.current_dir(workspace()).env("CARGO_TARGET_DIR", target());
    cmd
}

/// Says one line about what xtask does.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or it ends with a code other than 0.
pub(crate) fn run(cmd: &mut Command) -> Result<()> {
    let status = cmd.status().with_context(|| format!("start {}", shown(cmd)))?;
    if !status.success() {
        bail!("{}: {status}", shown(cmd));
    }
    Ok(())
}

/// Runs a command and answers its standard output.
///
/// # Errors
/// It cannot be started, it fails (the error carries its standard error), or its output is not UTF-8.
pub(crate) fn output(cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).output().with_context(|| format!("start {}", shown(cmd)))?;
    if !out.status.success() {
        bail!("{}: {}: {}", shown(cmd), out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// A command line as a person would type it.
pub(crate) fn shown(cmd: &Command) -> String {
    let words = std::iter::once(cmd.get_program()).chain(cmd.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // The first field after `Uid:` is the real id, the second the effective one.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
    })
}

/// A command that runs as root: itself when this process is root, else through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut cmd = Command::new("sudo");
    cmd.arg(program);
    cmd
}

/// A program on PATH or in the folders of administrators' programs, which a user's PATH may lack.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| {
        let folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
        folders.iter().map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
    })
}
