//! The release binary: one static file.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::same_everywhere;

use crate::arch::Arch;
use crate::elf::Elf;
use crate::setup::{self, Std, cross_linker, find_std};
use crate::shell::{cargo, output, run, say, target, workspace};

/// The binary is not to grow beyond this: 6 MiB. It was 4 until what is known of processes and containers became columns of
/// every tool: code that reads files of /proc and of container runtimes, whose pages nobody touches who asks for none of them;
/// then 4.5 until the fourteenth tool, which has programs and rules of its own, and 4.75 until the rest of BCC's network tools
/// began to come. 6 is for all of these.
const LIMIT: usize = 24 << 18;

/// `cargo xtask build`.
///
/// # Errors
/// Set-up or the build fails, or the arguments are no architecture.
pub(crate) fn build(args: &[OsString]) -> Result<ExitCode> {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let arch = match words[..] {
        [] => Arch::HERE,
        ["--arch", name] => Arch::parse(name)?,
        [word] if word.starts_with("--arch=") => Arch::parse(word.trim_start_matches("--arch="))?,
        _ => bail!("build takes nothing but --arch x86_64|aarch64"),
    };
    setup::satisfy(&setup::build(arch))?;
    dist_for(arch).map(|_| ExitCode::SUCCESS)
}

/// A cargo command whose artefacts are static programs for this machine.
///
/// # Errors
/// As [`static_cargo_for`].
pub(crate) fn static_cargo(verb: &str) -> Result<Command> {
    static_cargo_for(Arch::HERE, verb)
}

/// A cargo command whose artefacts are static programs. A target must be named for that, or the flags would go to
/// build scripts too.
///
/// # Errors
/// The compiler does not say what machine this is, or there is none for that architecture.
pub(crate) fn static_cargo_for(arch: Arch, verb: &str) -> Result<Command> {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<OsString> = own.split_whitespace().map(Into::into).collect();
    flags.push("-Ctarget-feature=+crt-static".into());
    let mut cmd = if arch == Arch::HERE {
        flags.extend(same_everywhere(&workspace()));
        let mut cmd = cargo();
        cmd.arg(verb);
        cmd
    } else {
        cross_cargo(arch, verb, &mut flags)?
    };
    cmd.args(["--locked", "--target", &triple(arch)?]);
    // In the encoded form, in which a path may hold blanks.
    cmd.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
    // The tests travel into guests: lines for backtraces, but not megabytes of types.
    cmd.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    Ok(cmd)
}

/// A cargo whose compiler has or makes the standard library for another architecture, at this verb.
fn cross_cargo(arch: Arch, verb: &str, flags: &mut Vec<OsString>) -> Result<Command> {
    let mut cmd = match find_std(arch) {
        Some(Std::Installed) => {
            flags.extend(same_everywhere(&workspace()));
            let mut cmd = cargo();
            cmd.arg(verb);
            cmd
        }
        Some(Std::Built(toolchain)) => {
            flags.extend(toolchain.same_everywhere(&workspace()));
            let mut cmd = toolchain.cargo();
            cmd.current_dir(workspace()).env("CARGO_TARGET_DIR", target());
            cmd.args([verb, "-Zbuild-std=std,panic_abort"]);
            cmd
        }
        None => bail!("no compiler here has Rust's standard library for {arch}"),
    };
    let name = arch.triple().replace('-', "_").to_uppercase();
    cmd.env(format!("CARGO_TARGET_{name}_LINKER"), cross_linker(arch)?);
    Ok(cmd)
}

/// Builds the binary for this machine, checks it, and answers where it is.
///
/// # Errors
/// As [`dist_for`].
pub(crate) fn dist() -> Result<PathBuf> {
    dist_for(Arch::HERE)
}

/// Builds the binary for an architecture, checks it, and answers where it is.
///
/// # Errors
/// The build fails, or the binary is not static or too large.
pub(crate) fn dist_for(arch: Arch) -> Result<PathBuf> {
    run(static_cargo_for(arch, "build")?.args(["--release", "--package", "netbcc", "--bin", "netbcc"]))?;
    let built = target().join(triple(arch)?).join("release/netbcc");
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
    let name = if arch == Arch::HERE { "netbcc".to_owned() } else { format!("netbcc-{arch}") };
    let (part, binary) = (dist.join(format!("{name}.part")), dist.join(&name));
    fs::copy(&built, &part)?;
    fs::rename(&part, &binary)?;
    // Hundredths, so that no floating point is needed.
    let mib = |bytes: usize| format!("{}.{:02} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 100) >> 20);
    say(&format!("target/dist/{name}: static, {size} bytes ({} of at most {})", mib(size), mib(LIMIT)));
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

/// The compiler's name of the machine that is built for. This machine's is asked for: it may be one with another C
/// library.
///
/// # Errors
/// The compiler does not say it.
pub(crate) fn triple(arch: Arch) -> Result<String> {
    if arch != Arch::HERE {
        return Ok(arch.triple().to_owned());
    }
    let text = output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
