//! What the machine must have for a verb, and how it gets it.
//!
//! Each need is first looked for; only what is missing is installed, with one line that says what and why. On a
//! machine that cannot be served (no apt, no sudo) the exact commands are printed instead. When all is there, this
//! costs a few milliseconds and no network access.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::{Toolchain, find_bpf_linker, on_path};

use crate::apt::{self, Archive};
use crate::arch::Arch;
use crate::kernels::Line;
use crate::shell::{find_program, output, run, say, shown, target, workspace};

/// Something that a verb cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A program, from a distribution's package.
    Program(&'static Program),
    /// The static C library, which makes the binary one file.
    StaticLibc,
    /// `cargo fmt` and `cargo clippy`.
    Lints,
    /// The emulator of the guests of an architecture.
    Qemu(Arch),
    /// What compiles and links for another architecture than this machine's.
    Cross(Arch),
    /// The programs of guests of another architecture than this machine's.
    Userland(Arch),
    /// Clippy of the compiler that builds BPF objects.
    BpfLints,
    /// A compiler with the source of `core`.
    Toolchain,
    /// The linker of BPF objects.
    Linker,
    /// A guest's kernel.
    Kernel(Line),
    /// What builds the fuzz targets.
    CargoFuzz,
}

/// A program and the packages that hold it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    name: &'static str,
    why: &'static str,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
}

const QEMU: Program = Program {
    name: "qemu-system-x86_64",
    why: "it runs the guests",
    apt: "qemu-system-x86",
    dnf: "qemu-system-x86-core",
    pacman: "qemu-system-x86",
};
const QEMU_ARM64: Program = Program {
    name: "qemu-system-aarch64",
    why: "it runs the arm64 guests",
    apt: "qemu-system-arm",
    dnf: "qemu-system-aarch64-core",
    pacman: "qemu-system-aarch64",
};
const CROSS_LIBC: Program = Program {
    name: "libc.a for aarch64",
    why: "the arm64 binary is linked with it, so that it is one file",
    apt: "libc6-dev-arm64-cross",
    dnf: "glibc-static for aarch64, which Fedora does not pack",
    pacman: "aarch64-linux-gnu-glibc",
};
const CROSS_LINKER: Program = Program {
    name: "aarch64-linux-gnu-gcc",
    why: "it links the arm64 binary",
    apt: "gcc-aarch64-linux-gnu",
    dnf: "gcc-aarch64-linux-gnu",
    pacman: "aarch64-linux-gnu-gcc",
};
const BUSYBOX: Program = Program {
    name: "busybox",
    why: "it is the guests' shell",
    apt: "busybox-static",
    dnf: "busybox",
    pacman: "busybox",
};
const IP: Program = Program {
    name: "ip",
    why: "the tests make network namespaces with it",
    apt: "iproute2",
    dnf: "iproute",
    pacman: "iproute2",
};
const TC: Program = Program {
    name: "tc",
    why: "the tests delay packets with it",
    apt: "iproute2",
    dnf: "iproute-tc",
    pacman: "iproute2",
};
const NFT: Program = Program {
    name: "nft",
    why: "the tests drop packets with it",
    apt: "nftables",
    dnf: "nftables",
    pacman: "nftables",
};
const XZ: Program =
    Program { name: "xz", why: "it unpacks kernel modules", apt: "xz-utils", dnf: "xz", pacman: "xz" };

const MAN: Program = Program {
    name: "man",
    why: "the tests render the manual pages with it",
    apt: "man-db",
    dnf: "man-db",
    pacman: "man-db",
};

const DPKG_DEB: Program = Program {
    name: "dpkg-deb",
    why: "it makes the Debian package",
    apt: "dpkg",
    dnf: "dpkg",
    pacman: "dpkg",
};
const TAR: Program =
    Program { name: "tar", why: "it makes the tarball", apt: "tar", dnf: "tar", pacman: "tar" };
const GZIP: Program =
    Program { name: "gzip", why: "it compresses the manual pages", apt: "gzip", dnf: "gzip", pacman: "gzip" };
const GIT: Program =
    Program { name: "git", why: "it knows the commit's time", apt: "git", dnf: "git", pacman: "git" };

const SETCAP: Program = Program {
    name: "setcap",
    why: "the package gives the binary its capabilities by it",
    apt: "libcap2-bin",
    dnf: "libcap",
    pacman: "libcap",
};
const ZSH: Program =
    Program { name: "zsh", why: "the tests load its completions", apt: "zsh", dnf: "zsh", pacman: "zsh" };
const FISH: Program =
    Program { name: "fish", why: "the tests load its completions", apt: "fish", dnf: "fish", pacman: "fish" };

/// To build the release binary.
pub(crate) const BUILD: &[Need] = &[Need::StaticLibc, Need::Toolchain, Need::Linker];
/// To make packages of it.
pub(crate) const PACKAGES: &[Need] =
    &[Need::Program(&DPKG_DEB), Need::Program(&TAR), Need::Program(&GZIP), Need::Program(&GIT)];
/// To install packages in guests.
pub(crate) const INSTALLING: &[Need] = &[Need::Program(&SETCAP)];
/// To check the code.
pub(crate) const LINTS: &[Need] = &[Need::Lints, Need::BpfLints];
/// To test the command line.
pub(crate) const MANUALS: &[Need] = &[Need::Program(&MAN), Need::Program(&ZSH), Need::Program(&FISH)];
/// To run the kernel tests on this machine.
pub(crate) const TRAFFIC: &[Need] = &[Need::Program(&IP), Need::Program(&TC), Need::Program(&NFT)];
/// To run guests, whatever their kernel.
const GUEST: [Need; 5] = [
    Need::Program(&BUSYBOX),
    Need::Program(&XZ),
    Need::Program(&IP),
    Need::Program(&TC),
    Need::Program(&NFT),
];

/// To build the release binary for an architecture.
pub(crate) fn build(arch: Arch) -> Vec<Need> {
    let mut needs = BUILD.to_vec();
    if arch != Arch::HERE {
        needs.push(Need::Cross(arch));
    }
    needs
}

/// What guests with these kernels need.
pub(crate) fn guests(lines: &[Line]) -> Vec<Need> {
    let mut needs = GUEST.to_vec();
    for line in lines {
        needs.push(Need::Qemu(line.arch));
        if line.arch != Arch::HERE {
            needs.push(Need::Userland(line.arch));
        }
        needs.push(Need::Kernel(*line));
    }
    needs
}

/// Sees to it that the machine has what is needed.
///
/// # Errors
/// Something is missing and cannot be installed from here; the message holds the commands that do.
pub(crate) fn satisfy(needs: &[Need]) -> Result<()> {
    install_packages(needs)?;
    for need in needs {
        match need {
            Need::Program(_) | Need::StaticLibc => {}
            Need::Qemu(arch) => qemu(*arch)?,
            Need::Cross(arch) => cross_std(*arch)?,
            Need::Userland(arch) => userland(*arch)?,
            Need::Lints => lints()?,
            Need::BpfLints => bpf_lints()?,
            Need::Toolchain => drop(toolchain()?),
            Need::Linker => linker()?,
            Need::Kernel(line) => kernel(*line)?,
            Need::CargoFuzz => cargo_fuzz()?,
        }
    }
    Ok(())
}

/// Installs the missing programs and libraries that are plain packages, in one go.
fn install_packages(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<(&str, &Program)> = Vec::new();
    for need in needs {
        match need {
            Need::Program(program) if find_program(program.name).is_none() => {
                missing.push((program.name, program));
            }
            Need::StaticLibc if !has_static_libc("cc") => missing.push(("libc.a", &STATIC_LIBC)),
            Need::Cross(arch) => {
                let linker = linker_program(*arch)?;
                if find_program(linker.name).is_none() {
                    missing.push((linker.name, linker));
                }
                if !has_static_libc(linker.name) {
                    missing.push((CROSS_LIBC.name, &CROSS_LIBC));
                }
            }
            _ => {}
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !apt::usable() {
        bail!("{}", commands(&missing));
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, program)| program.apt).collect();
    packages.dedup();
    for (name, program) in &missing {
        say(&format!("installing {} for {name}: {}", program.apt, program.why));
    }
    apt::install(&packages)
}

const STATIC_LIBC: Program = Program {
    name: "libc.a",
    why: "the binary is linked with it, so that it is one file",
    apt: "libc6-dev",
    dnf: "glibc-static",
    pacman: "glibc",
};

fn has_static_libc(compiler: &str) -> bool {
    // The linker driver answers with the bare name when it does not find the file.
    output(Command::new(compiler).arg("-print-file-name=libc.a"))
        .is_ok_and(|path| Path::new(path.trim()).is_absolute())
}

/// What a person must type on a machine without apt.
fn commands(missing: &[(&str, &Program)]) -> String {
    let (manager, package): (_, fn(&Program) -> &'static str) = if on_path("dnf").is_some() {
        ("sudo dnf install", |program| program.dnf)
    } else if on_path("pacman").is_some() {
        ("sudo pacman -S", |program| program.pacman)
    } else {
        ("sudo apt-get install", |program| program.apt)
    };
    let mut packages: Vec<_> = missing.iter().map(|(_, program)| package(program)).collect();
    packages.dedup();
    let names: Vec<_> = missing.iter().map(|(name, program)| format!("{name} ({})", program.why)).collect();
    format!("missing: {}. Install by:\n    {manager} {}", names.join(", "), packages.join(" "))
}

fn lints() -> Result<()> {
    if on_path("cargo-fmt").is_some() && on_path("cargo-clippy").is_some() && lints_answer() {
        return Ok(());
    }
    let mut cmd = rustup();
    cmd.args(["component", "add", "rustfmt", "clippy"]);
    if on_path("rustup").is_none() {
        bail!("cargo fmt and cargo clippy are missing. Install by:\n    {}", shown(&cmd));
    }
    say("installing rustfmt and clippy: the tests check the code with them");
    run(&mut cmd)
}

/// rustup's `cargo-fmt` is there also when the component is not.
fn lints_answer() -> bool {
    ["fmt", "clippy"].iter().all(|tool| output(crate::shell::cargo().args([tool, "--version"])).is_ok())
}

/// The kernel side compiles for the BPF target only, so it takes the clippy of the compiler that can.
fn bpf_lints() -> Result<()> {
    let toolchain = toolchain()?;
    if toolchain.clippy().is_some() {
        return Ok(());
    }
    let package = "rust-web-clippy";
    if toolchain.rustc == Path::new("/usr/bin/rustc") && apt::usable() && apt::offers(package) {
        say(&format!("installing {package}: the tests check the kernel side with it"));
        return apt::install(&[package]);
    }
    bail!(
        "clippy is missing beside {}, and the kernel side is checked with it. Install by:\n    \
         rustup component add clippy --toolchain nightly",
        toolchain.rustc.display()
    )
}

/// The program that links for another architecture.
fn linker_program(arch: Arch) -> Result<&'static Program> {
    match arch {
        Arch::Aarch64 => Ok(&CROSS_LINKER),
        Arch::X86_64 => bail!("an {} machine builds for itself only", Arch::HERE),
    }
}

/// The linker for another architecture.
///
/// # Errors
/// There is none for it.
pub(crate) fn cross_linker(arch: Arch) -> Result<&'static str> {
    Ok(linker_program(arch)?.name)
}

/// How the standard library for another architecture is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Std {
    /// The compiler has it.
    Installed,
    /// This compiler builds it from its source.
    Built(Toolchain),
}

/// The standard library for another architecture, if it can be had without installing anything.
pub(crate) fn find_std(arch: Arch) -> Option<Std> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = output(Command::new(rustc).args(["--print=target-libdir", "--target", arch.triple()]));
    let installed = libraries.is_ok_and(|dir| {
        fs::read_dir(dir.trim()).is_ok_and(|mut dir| {
            dir.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libstd-")))
        })
    });
    if installed { Some(Std::Installed) } else { Toolchain::find().ok().map(Std::Built) }
}

/// The standard library for another architecture: rustup's, or else the one that the compiler of the BPF objects makes
/// of its source.
fn cross_std(arch: Arch) -> Result<()> {
    let found = find_std(arch);
    // Where rustup could not, it is not asked again.
    let marker = target().join("tools").join(format!("std-{arch}-is-built"));
    if found == Some(Std::Installed) || found.is_some() && marker.exists() {
        return Ok(());
    }
    let mut cmd = rustup();
    cmd.args(["target", "add", arch.triple()]);
    if on_path("rustup").is_some() {
        say(&format!("adding Rust's standard library for {arch}, which its binary needs ({})", shown(&cmd)));
        if output(&mut cmd).is_ok() {
            return Ok(());
        }
    }
    let Some(Std::Built(toolchain)) = found else {
        bail!("Rust's standard library for {arch} is missing. Install by:\n    {}", shown(&cmd));
    };
    say(&format!(
        "no such library is to be had here: {} will build it from its source",
        toolchain.rustc.display()
    ));
    fs::create_dir_all(target().join("tools"))?;
    fs::write(&marker, "").with_context(|| format!("write {}", marker.display()))
}

/// Where the programs of another architecture's guests are unpacked.
pub(crate) fn userland_folder(arch: Arch) -> PathBuf {
    target().join(format!("guest-{arch}"))
}

/// The programs of another architecture's guests: Debian's, unpacked with their libraries.
fn userland(arch: Arch) -> Result<()> {
    let folder = userland_folder(arch);
    if folder.is_dir() {
        return Ok(());
    }
    if !apt::usable() {
        bail!("the {arch} guests' programs come from Debian's packages, and this machine has no apt");
    }
    let packages = [BUSYBOX.apt, IP.apt, NFT.apt];
    say(&format!(
        "unpacking {} of {} into target/guest-{arch} (they are not installed): the programs of the guests",
        packages.join(", "),
        arch.debian()
    ));
    Archive::of(arch).unpack_whole(&packages, &[], &folder)
}

/// The emulator of an architecture.
fn qemu_program(arch: Arch) -> &'static Program {
    match arch {
        Arch::X86_64 => &QEMU,
        Arch::Aarch64 => &QEMU_ARM64,
    }
}

/// Where an emulator is unpacked.
fn qemu_folder(arch: Arch) -> PathBuf {
    match arch {
        Arch::X86_64 => target().join("qemu"),
        Arch::Aarch64 => target().join("qemu-aarch64"),
    }
}

/// The emulator of the guests. Debian's is unpacked and not installed: on a machine that has another release's
/// `qemu-utils`, installing it would remove that.
fn qemu(arch: Arch) -> Result<()> {
    if find_qemu(arch).is_some() {
        return Ok(());
    }
    let program = qemu_program(arch);
    if !apt::usable() {
        bail!("{}", commands(&[(program.name, program)]));
    }
    let folder = qemu_folder(arch);
    say(&format!(
        "unpacking {} into target/{} (it is not installed): {}",
        program.apt,
        folder.file_name().unwrap_or_default().to_string_lossy(),
        program.why
    ));
    apt::unpack(program.apt, &folder)?;
    match find_qemu(arch).map(|qemu| output(qemu.command().arg("--version"))) {
        Some(version) => version.map(drop),
        None => bail!("the package {} holds no {}", program.apt, program.name),
    }
}

/// An emulator on disk.
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where its libraries are, when it was unpacked; its other files it finds by itself.
    libraries: Option<OsString>,
}

/// The machine's own emulator of an architecture, or else the one below `target/`.
pub(crate) fn find_qemu(arch: Arch) -> Option<Qemu> {
    let root = qemu_folder(arch);
    let name = qemu_program(arch).name;
    let own = || {
        let libraries = format!("lib/{}-linux-gnu", Arch::HERE);
        let dirs = [root.join("usr").join(&libraries), root.join(&libraries)];
        Qemu {
            program: root.join("usr/bin").join(name),
            libraries: Some(std::env::join_paths(dirs).unwrap_or_default()),
        }
    };
    find_program(name)
        .map(|program| Qemu { program, libraries: None })
        .or_else(|| Some(own()).filter(|qemu| qemu.program.is_file()))
}

impl Qemu {
    /// A command line that begins with it. It is killed when xtask is.
    pub(crate) fn command(&self) -> Command {
        let mut cmd = match find_program("setpriv") {
            Some(setpriv) => {
                let mut cmd = Command::new(setpriv);
                cmd.args(["--pdeathsig", "KILL"]).arg(&self.program);
                cmd
            }
            None => Command::new(&self.program),
        };
        if let Some(libraries) = &self.libraries {
            cmd.env("LD_LIBRARY_PATH", libraries);
        }
        cmd
    }
}

/// A rustup that gives up quickly where its server cannot be reached.
fn rustup() -> Command {
    let mut cmd = Command::new("rustup");
    cmd.env("RUSTUP_MAX_RETRIES", "1");
    cmd
}

/// The toolchain that builds BPF objects; installed if there is none.
fn toolchain() -> Result<Toolchain> {
    if let Ok(found) = Toolchain::find() {
        return Ok(found);
    }
    let mut by_rustup = None;
    if on_path("rustup").is_some() {
        let mut cmd = rustup();
        cmd.args(["component", "add", "rust-src"]);
        let list = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
        let nightly = list.lines().any(|name| name.starts_with("nightly"));
        if nightly {
            cmd.args(["--toolchain", "nightly"]);
        }
        let whose = if nightly { "rustup's nightly" } else { "rustup's current toolchain" };
        say(&format!("adding rust-src to {whose}: BPF objects need the source of core ({})", shown(&cmd)));
        match output(&mut cmd) {
            Ok(_) => return Toolchain::find(),
            Err(why) => by_rustup = Some(why),
        }
    }
    let packages = ["rustc-web", "cargo-web", "rust-web-src"];
    if apt::usable() && packages.iter().all(|package| apt::offers(package)) {
        if let Some(why) = &by_rustup {
            // The whole error names servers and temporary files.
            let why = format!("{why:#}");
            let why = why.split("error: ").nth(1).and_then(|text| text.split(": ").next()).unwrap_or(&why);
            say(&format!("rustup could not: {why}"));
        }
        say(&format!(
            "installing {}: a compiler with the source of core, for BPF objects",
            packages.join(", ")
        ));
        apt::install(&packages)?;
        return Toolchain::find();
    }
    let why = by_rustup.map(|why| format!("\nrustup: {why:#}")).unwrap_or_default();
    bail!(
        "no Rust compiler with the source of core, which BPF objects need. Install by:\n    \
         rustup toolchain install nightly --component rust-src{why}"
    )
}

/// The version that builds the objects, and the versions of LLVM that it can be built with.
const LINKER_VERSION: &str = "0.13.0";
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The linker of BPF objects; built if there is none. Its LLVM must be at least the compiler's, for it reads what that
/// one wrote.
fn linker() -> Result<()> {
    let toolchain = toolchain()?;
    let own = target().join("tools");
    let marker = own.join("llvm-version");
    let made_with = fs::read_to_string(&marker).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let found = find_bpf_linker(&workspace());
    if let Some(linker) = &found
        && !linker.starts_with(&own)
    {
        let version = output(Command::new(linker).arg("--version"))?;
        if !too_old(&version) {
            return Ok(());
        }
        if std::env::var_os("BPF_LINKER").is_some_and(|path| path == linker.as_os_str()) {
            bail!("BPF_LINKER={} is {}, but {LINKER_VERSION} is needed", linker.display(), version.trim());
        }
        say(&format!("{} is {}: too old", linker.display(), version.trim()));
    }
    let compilers = llvm_of(&output(Command::new(&toolchain.rustc).arg("-vV"))?)
        .with_context(|| format!("{} does not say which LLVM it has", toolchain.rustc.display()))?;
    if found.is_some_and(|linker| linker.starts_with(&own)) && made_with.is_some_and(|llvm| llvm >= compilers)
    {
        return Ok(());
    }
    let llvm = llvm(compilers)?;
    let mut cmd = crate::shell::cargo();
    // Its build is no part of this workspace: the default target folder of `cargo install` is a temporary one.
    cmd.env_remove("CARGO_TARGET_DIR").env("LLVM_PREFIX", llvm_prefix(llvm));
    cmd.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--quiet"]);
    cmd.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]).arg(&own);
    say(&format!(
        "building bpf-linker {LINKER_VERSION} with LLVM {llvm} into target/tools: it links the BPF objects (about a \
         minute)"
    ));
    run(&mut cmd)?;
    fs::write(marker, llvm.to_string()).context("note the LLVM of bpf-linker")
}

/// The version of an LLVM that bpf-linker can be built with; its packages are installed if they are missing.
fn llvm(compilers: u32) -> Result<u32> {
    let usable = || LINKER_LLVM.filter(|version| *version >= compilers);
    let packages = |version: u32| {
        [
            format!("llvm-{version}-dev"),
            format!("libpolly-{version}-dev"),
            "zlib1g-dev".into(),
            "libzstd-dev".into(),
        ]
    };
    if apt::usable() {
        for version in usable() {
            let wanted = packages(version);
            if wanted.iter().all(|package| apt::offers(package)) {
                let missing: Vec<&str> =
                    wanted.iter().map(String::as_str).filter(|package| !apt::installed(package)).collect();
                if !missing.is_empty() {
                    say(&format!(
                        "installing {}: bpf-linker is built with LLVM {version}",
                        missing.join(", ")
                    ));
                    apt::install(&missing)?;
                }
                return Ok(version);
            }
        }
    } else if let Some(version) =
        usable().find(|version| llvm_prefix(*version).join("bin/llvm-config").is_file())
    {
        return Ok(version);
    }
    bail!(
        "bpf-linker is missing, and there is no LLVM {compilers} or newer to build it with. Install by either of:\n    \
         cargo binstall bpf-linker@{LINKER_VERSION}\n    \
         LLVM_PREFIX=... cargo install bpf-linker --version {LINKER_VERSION} --locked --no-default-features \
         --features llvm-{compilers}\n\
         or have the BPF objects built by another compiler, named in NETBCC_BPF_RUSTC"
    )
}

fn llvm_prefix(version: u32) -> PathBuf {
    format!("/usr/lib/llvm-{version}").into()
}

/// The major version in the line `LLVM version: 22.1.8` of `rustc -vV`.
fn llvm_of(verbose_version: &str) -> Option<u32> {
    let version = verbose_version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// Whether the text of `bpf-linker --version` names a version below the needed one.
fn too_old(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let number = text.split_whitespace().last().unwrap_or_default();
        number.split('.').map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) < numbers(LINKER_VERSION)
}

/// The version that builds the fuzz targets.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

fn cargo_fuzz() -> Result<()> {
    let own = target().join("tools");
    if own.join("bin/cargo-fuzz").is_file() {
        return Ok(());
    }
    let mut cmd = crate::shell::cargo();
    cmd.env_remove("CARGO_TARGET_DIR");
    cmd.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--quiet", "--root"])
        .arg(&own);
    say(&format!("building cargo-fuzz {CARGO_FUZZ_VERSION} into target/tools: it builds the fuzz targets"));
    run(&mut cmd)
}

fn kernel(line: Line) -> Result<()> {
    if line.find().is_some() {
        return Ok(());
    }
    if !apt::usable() {
        bail!(
            "the guest with kernel {line} needs Debian's kernel package, and this machine has no apt. Unpack it by:\n    \
             dpkg-deb -x linux-image-*-cloud-{}*.deb target/kernels/{}",
            line.arch.debian(),
            line.folder_name()
        );
    }
    line.fetch()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_llvm_is_read() {
        assert_eq!(llvm_of("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of("rustc 1.96.0\n"), None);
    }

    #[test]
    fn linker_versions_compare_as_numbers() {
        assert!(too_old("bpf-linker 0.9.15\n"));
        assert!(!too_old("bpf-linker 0.13.0\n"));
        assert!(!too_old("bpf-linker 0.14.1\n"));
        assert!(!too_old("bpf-linker 1.0.0\n"));
    }

    #[test]
    fn commands_name_program_reason_and_package() {
        let text = commands(&[("nft", &NFT)]);
        assert!(text.contains("nft (the tests drop packets with it)"), "{text}");
        assert!(text.contains("nftables"), "{text}");
    }
}
