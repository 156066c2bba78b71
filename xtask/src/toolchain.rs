//! The eBPF-capable toolchain: a compiler with the source of `core` beside it, and `bpf-linker`.
//!
//! Two ways lead there. rustup: `nightly` with the component `rust-src`. A distribution: its compiler plus its
//! source package (Debian's `rustc-web` and `rust-web-src`), made to accept `-Zbuild-std` by `RUSTC_BOOTSTRAP=1`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// A compiler that can build `core` for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// Where its libraries and their sources are.
    pub sysroot: PathBuf,
    /// A released compiler refuses `-Z` flags unless `RUSTC_BOOTSTRAP=1` is set.
    pub bootstrap: bool,
}

impl Toolchain {
    /// The first toolchain of this machine that has the source of `core`: `$NETBCC_BPF_RUSTC` when set, then
    /// rustup's nightly, then `/usr/bin/rustc`, then the `rustc` on PATH.
    ///
    /// # Errors
    /// None of them has it; the message says what was looked at and what to do.
    pub fn find() -> Result<Self> {
        let mut tried = Vec::new();
        for (what, rustc, cargo) in candidates() {
            match Self::check(&rustc, &cargo) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{what}: {why}")),
            }
        }
        bail!(
            "no Rust compiler with the source of `core` was found ({}). Run `cargo xtask build`, which installs \
             one, or: rustup toolchain install nightly --component rust-src",
            tried.join("; ")
        )
    }

    fn check(rustc: &Path, cargo: &Path) -> Result<Self> {
        let print = |args: &[&str]| -> Result<String> {
            let out = Command::new(rustc)
                .args(args)
                .stderr(Stdio::null())
                .output()
                .map_err(|e| anyhow!("{}: {e}", rustc.display()))?;
            if !out.status.success() {
                bail!("{} {} failed", rustc.display(), args.join(" "));
            }
            Ok(String::from_utf8(out.stdout)?.trim().to_owned())
        };
        let sysroot = PathBuf::from(print(&["--print", "sysroot"])?);
        let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.is_file() {
            bail!("no {}", core.display());
        }
        if !cargo.is_file() {
            bail!("no {}", cargo.display());
        }
        let bootstrap = !print(&["--version"])?.contains("nightly");
        Ok(Self { rustc: rustc.to_owned(), cargo: cargo.to_owned(), sysroot, bootstrap })
    }

    /// A cargo command of this toolchain, free of the settings that an outer cargo leaves in the environment.
    pub fn cargo(&self) -> Command {
        self.command(&self.cargo)
    }

    /// Clippy of this toolchain, if it has one: the arguments follow as they would after `cargo clippy`. (A plain
    /// `cargo clippy` would run the first `cargo-clippy` on PATH, which may belong to another toolchain.)
    pub fn clippy(&self) -> Option<Command> {
        let program = self.cargo.with_file_name("cargo-clippy");
        if !program.is_file() || !self.cargo.with_file_name("clippy-driver").is_file() {
            return None;
        }
        let mut cmd = self.command(&program);
        cmd.arg("clippy");
        Some(cmd)
    }

    /// [`same_everywhere`], also for the source of `core`.
    pub fn same_everywhere(&self, workspace: &Path) -> Vec<OsString> {
        let mut flags = same_everywhere(workspace);
        flags.push(remap(&self.sysroot, "/src/rust"));
        flags
    }

    fn command(&self, program: &Path) -> Command {
        let mut cmd = Command::new(program);
        for (key, _) in env::vars_os() {
            let name = key.to_string_lossy();
            let inherited = name.starts_with("CARGO_") && !KEEP.contains(&&*name)
                || matches!(
                    &*name,
                    "RUSTC_WRAPPER"
                        | "RUSTC_WORKSPACE_WRAPPER"
                        | "RUSTFLAGS"
                        | "RUSTUP_TOOLCHAIN"
                        | "RUSTDOC"
                );
            if inherited {
                cmd.env_remove(&key);
            }
        }
        cmd.env("RUSTC", &self.rustc).env("CARGO", &self.cargo);
        if self.bootstrap {
            cmd.env("RUSTC_BOOTSTRAP", "1");
        }
        cmd
    }
}

/// Cargo settings that are about the machine, not about the outer build.
const KEEP: [&str; 4] =
    ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL"];

fn candidates() -> Vec<(&'static str, PathBuf, PathBuf)> {
    let mut list = Vec::new();
    if let Some(rustc) = env::var_os("NETBCC_BPF_RUSTC") {
        let rustc = PathBuf::from(rustc);
        list.push(("NETBCC_BPF_RUSTC", rustc.clone(), rustc.with_file_name("cargo")));
    }
    if let Ok(rustc) = rustup_which("rustc") {
        list.push(("rustup nightly", rustc.clone(), rustc.with_file_name("cargo")));
    }
    list.push(("distribution", "/usr/bin/rustc".into(), "/usr/bin/cargo".into()));
    if let Some(rustc) = on_path("rustc") {
        list.push(("PATH", rustc.clone(), rustc.with_file_name("cargo")));
    }
    list
}

fn rustup_which(tool: &str) -> Result<PathBuf> {
    let out = Command::new("rustup")
        .args(["which", "--toolchain", "nightly", tool])
        .stderr(Stdio::null())
        .output()
        .context("rustup")?;
    if !out.status.success() {
        bail!("rustup has no nightly");
    }
    Ok(PathBuf::from(String::from_utf8(out.stdout)?.trim()))
}

/// The first executable file called `name` on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Where `bpf-linker` is: `$BPF_LINKER`, PATH, cargo's own bin folder, or this project's `target/tools/bin`.
pub fn find_bpf_linker(workspace: &Path) -> Option<PathBuf> {
    env::var_os("BPF_LINKER")
        .map(PathBuf::from)
        .filter(|file| file.is_file())
        .or_else(|| Some(workspace.join("target/tools/bin/bpf-linker")).filter(|file| file.is_file()))
        .or_else(|| on_path("bpf-linker"))
        .or_else(|| Some(cargo_home()?.join("bin/bpf-linker")).filter(|file| file.is_file()))
}

/// Flags by which neither the folder of the workspace nor that of the crates' sources gets into what is built: the same
/// source gives the same bytes wherever it lies.
pub fn same_everywhere(workspace: &Path) -> Vec<OsString> {
    let crates = cargo_home().map(|home| (home.join("registry/src"), "/src/crates"));
    let folders = [(workspace.to_owned(), "/src/netbcc")].into_iter().chain(crates);
    folders.map(|(from, to)| remap(&from, to)).collect()
}

/// The flag that lets `to` stand for the folder `from`.
fn remap(from: &Path, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push("=");
    flag.push(to);
    flag
}

/// Cargo's own folder.
fn cargo_home() -> Option<PathBuf> {
    let own = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(own)
}

/// The flags that turn Rust into a BPF object with BTF, in cargo's encoded form (`CARGO_ENCODED_RUSTFLAGS`).
///
/// Without the second link argument the linker makes LLVM leave copies and fills to functions that go byte by byte: 80
/// instructions for the 16 bytes of a name.
pub fn bpf_rustflags(linker: &Path, arch: &str) -> OsString {
    let mut flags = OsString::from(format!(
        "--cfg=bpf_target_arch=\"{arch}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clink-arg=--disable-expand-memcpy-in-order\x1f-Clinker="
    ));
    flags.push(linker);
    flags
}
