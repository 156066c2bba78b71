//! `cargo xtask dist`: what is handed to strangers. The binary, a Debian package, a tarball of the same files, a list of
//! all that is linked in, and the checksums of these.
//!
//! The same commit gives the same bytes, in whatever folder: no path gets into the binary ([`crate::build`]), every
//! time is the commit's, every owner is root, every list is sorted. `--check` proves it by a clone elsewhere.

mod crates;
mod deb;
pub(crate) mod guest;

mod sbom;
mod tree;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::find_bpf_linker;

use self::crates::Linked;
use crate::arch::Arch;
use crate::shell::{cargo, output, run, say, target, workspace};
use crate::{build, setup};

/// The version of all that is made.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes everything in `target/dist`, for this machine's architecture or another; with `--check` once more in a clone, and
/// compares.
///
/// # Errors
/// Set-up or the build fails, a crate's licence was never looked at, or the clone gives other bytes.
pub(crate) fn dist(args: &[OsString]) -> Result<ExitCode> {
    let (mut check, mut arch) = (false, Arch::HERE);
    let mut words = args.iter().map(|arg| arg.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        match word {
            "--check" => check = true,
            "--arch" => arch = Arch::parse(words.next().context("--arch wants a value")?)?,
            _ => match word.strip_prefix("--arch=") {
                Some(name) => arch = Arch::parse(name)?,
                None => bail!("dist takes --check and --arch x86_64|aarch64, nothing else"),
            },
        }
    }
    setup::satisfy(&[setup::build(arch), setup::PACKAGES.to_vec()].concat())?;
    if check {
        // A clone has what was committed.
        let changes = output(Command::new("git").current_dir(workspace()).args(["status", "--porcelain"]))?;
        if let Some(change) = changes.lines().next() {
            bail!(
                "--check compares with a clone, which does not have what is not committed: {}",
                change.trim()
            );
        }
    }
    let made = make(arch, &build::dist_for(arch)?, &build::dist()?)?;
    for file in &made.files {
        say(&format!("target/dist/{file}"));
    }
    if check {
        compare(arch, &made)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was made.
pub(crate) struct Made {
    binary: PathBuf,
    deb: PathBuf,
    tarball: PathBuf,
    /// The names of all files in `target/dist` that belong together; the last holds the checksums of the others.
    files: Vec<String>,
}

/// Makes all files around this binary. What it says of itself is asked of one of the same source that runs here.
///
/// # Errors
/// A program of this machine fails, a crate's licence was never looked at, or lintian finds something in the package.
pub(crate) fn make(arch: Arch, binary: &Path, runs_here: &Path) -> Result<Made> {
    let epoch = epoch()?;
    let debian = arch.debian();
    let dir = target().join("dist");
    let stage = dir.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    let linked = Linked::find(arch)?;
    let sbom = sbom::write(&linked, &checksum(binary)?, &utc(epoch)?)?;
    let sbom_name = format!("netbcc-{VERSION}-linux-{debian}.spdx.json");
    fs::write(dir.join(&sbom_name), &sbom)?;

    let tree = |prefix: &Path, home| tree::write(prefix, home, binary, runs_here, &linked, &sbom);
    let root = stage.join("deb");
    tree(&root.join("usr"), tree::Home::Distribution)?;
    let deb = format!("netbcc_{VERSION}_{debian}.deb");
    deb::build(&root, debian, epoch, &dir.join(&deb))?;
    deb::lint(&dir.join(&deb))?;

    let top = format!("netbcc-{VERSION}");
    tree(&stage.join(&top), tree::Home::Local)?;
    let tarball = format!("netbcc-{VERSION}-linux-{debian}.tar.gz");
    tar(&stage, &top, epoch, &dir.join(&tarball))?;
    fs::remove_dir_all(&stage)?;

    let name = binary.file_name().context("the binary has a name")?.to_string_lossy();
    let mut files = vec![name.into_owned(), sbom_name, tarball.clone(), deb.clone()];
    let sums = output(Command::new("sha256sum").args(&files).current_dir(&dir))?;
    // A set of its own per architecture: one can be made without the other.
    let sums_name = format!("SHA256SUMS-{debian}");
    fs::write(dir.join(&sums_name), sums)?;
    files.push(sums_name);
    Ok(Made { binary: binary.to_owned(), deb: dir.join(deb), tarball: dir.join(tarball), files })
}

/// A tarball of the folder `name` in `dir`, the same for the same files.
fn tar(dir: &Path, name: &str, epoch: u64, to: &Path) -> Result<()> {
    let plain = to.with_extension("");
    let mut cmd = Command::new("tar");
    cmd.args(["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    cmd.arg(format!("--mtime=@{epoch}")).arg("-C").arg(dir).arg("-cf").arg(&plain).arg(name);
    run(&mut cmd)?;
    tree::gzip(&plain)
}

/// The SHA-256 of a file, in hexadecimal digits.
fn checksum(file: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg(file))?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// A time as SPDX writes it.
fn utc(epoch: u64) -> Result<String> {
    let mut cmd = Command::new("date");
    Ok(output(cmd.args(["-u", "-d", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned())
}

/// The time that all files have: the commit's, or `SOURCE_DATE_EPOCH`, as everywhere that builds are reproducible.
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(Command::new("git").current_dir(workspace()).args(["log", "-1", "--format=%ct"]))
            .context("no commit tells the time that the files get; SOURCE_DATE_EPOCH=SECONDS does, too")?,
    };
    text.trim()
        .parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH: {:?} is no number of seconds", text.trim()))
}

/// Builds the same commit in a clone in another folder, from nothing, and compares.
fn compare(arch: Arch, made: &Made) -> Result<()> {
    let clone = target().join("dist-check/the same source elsewhere");
    if clone.exists() {
        fs::remove_dir_all(&clone)?;
    }
    say("building once more, from nothing, in a clone in another folder");
    run(Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).arg(workspace()).arg(&clone))?;
    let mut cmd = cargo();
    cmd.current_dir(&clone).args(["run", "--quiet", "--package", "xtask", "--", "dist"]);
    cmd.args(["--arch", &arch.to_string()]);
    cmd.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_MANIFEST_DIR");
    cmd.env("SOURCE_DATE_EPOCH", epoch()?.to_string());
    if let Some(linker) = find_bpf_linker(&workspace()) {
        cmd.env("BPF_LINKER", linker);
    }
    run(&mut cmd)?;
    let (here, there) = (target().join("dist"), clone.join("target/dist"));
    for file in &made.files {
        let read = |dir: &Path| {
            fs::read(dir.join(file)).with_context(|| format!("read {file} in {}", dir.display()))
        };
        if read(&here)? != read(&there)? {
            bail!("{file} differs between {} and {}", here.display(), there.display());
        }
    }
    let sums = made.files.last().context("the checksums are the last file")?;
    say(&format!("the same bytes twice:\n{}", fs::read_to_string(here.join(sums))?.trim_end()));
    fs::remove_dir_all(target().join("dist-check")).context("remove the clone")
}
