//! The release binary: one static file.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::same_everywhere;

use crate::elf::Elf;
use crate::shell::{cargo, output, run, say, target, workspace};

/// The binary is not to grow beyond this.
const LIMIT: usize = 4 << 20;

/// A cargo command whose artefacts are static programs for this machine. A target must be named for that, or the
/// flags would go to build scripts too.
///
/// # Errors
/// The compiler does not say what machine this is.
pub(crate) fn static_cargo(verb: &str) -> Result<Command> {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<OsString> = own.split_whitespace().map(Into::into).collect();
    flags.push("-Ctarget-feature=+crt-static".into());
    flags.extend(same_everywhere(&workspace()));
    let mut cmd = cargo();
    cmd.arg(verb).args(["--locked", "--target", &triple()?]);
    // In the encoded form, in which a path may hold blanks.
    cmd.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
    // The tests travel into guests: lines for backtraces, but not megabytes of types.
    cmd.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    Ok(cmd)
}

/// Builds the binary, checks it, and answers where it is.
///
/// # Errors
/// The build fails, or the binary is not static or too large.
pub(crate) fn dist() -> Result<PathBuf> {
    run(static_cargo("build")?.args(["--release", "--package", "netbcc", "--bin", "netbcc"]))?;
    let built = target().join(triple()?).join("release/netbcc");
    let data = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    if let Some(why) = Elf::new(&data)?.dynamic()? {
        bail!("{} is not static: {why}", built.display());
    }
    let size = data.len();
    // Another profile, which whoever works on a tool sets for a faster build, says nothing about size.
    if size > LIMIT && overrides().is_empty() {
        bail!("{} has {size} bytes, more than the {LIMIT} that it may have", built.display());
    }
    let dist = target().join("dist");
    fs::create_dir_all(&dist)?;
    // Renamed into place: the old file may be running.
    let (part, binary) = (dist.join("netbcc.part"), dist.join("netbcc"));
    fs::copy(&built, &part)?;
    fs::rename(&part, &binary)?;
    // Hundredths, so that no floating point is needed.
    let (whole, part) = (size >> 20, ((size & 0xf_ffff) * 100) >> 20);
    say(&format!(
        "target/dist/netbcc: static, {size} bytes ({whole}.{part:02} MiB of at most {} MiB)",
        LIMIT >> 20
    ));
    Ok(binary)
}

/// What the environment changes of the release profile: name and value.
pub(crate) fn overrides() -> Vec<(String, String)> {
    let vars = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = vars.filter_map(|(name, value)| {
        let name = name.strip_prefix("CARGO_PROFILE_RELEASE_")?.to_owned();
        Some((name, value.to_string_lossy().into_owned()))
    });
    let mut all: Vec<_> = ours.collect();
    all.sort();
    all
}

/// The name of this machine for the compiler, such as `x86_64-unknown-linux-gnu`.
///
/// # Errors
/// The compiler does not say it.
pub(crate) fn triple() -> Result<String> {
    let text = output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
