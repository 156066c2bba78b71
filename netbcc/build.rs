//! Builds one BPF object per tool from `probes-ebpf`, drops its debugging information (the loader needs BTF only),
//! and leaves it in `OUT_DIR`, as it is and packed, for the tools to embed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use miniz_oxide::deflate::{CompressionLevel, compress_to_vec};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use xtask::toolchain::{Toolchain, bpf_rustflags, find_bpf_linker};

fn main() {
    if let Err(error) = run() {
        // One sentence instead of a backtrace.
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn run() -> Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("set by cargo")?);
    let workspace = manifest_dir.parent().context("netbcc lies in a workspace")?;
    for dir in ["probes-ebpf", "netbcc-common", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(dir).display());
    }
    for var in ["NETBCC_BPF_RUSTC", "BPF_LINKER", "PATH"] {
        println!("cargo::rerun-if-env-changed={var}");
    }

    let bins = workspace.join("probes-ebpf/src/bin");
    if !bins.is_dir() {
        return Ok(());
    }
    let left_out = env::var_os("CARGO_FEATURE_FUZZING").is_some();
    let target_dir = if left_out { PathBuf::new() } else { build_objects(workspace, &out_dir)? };
    for entry in fs::read_dir(&bins).with_context(|| format!("read {}", bins.display()))? {
        let source = entry?.path();
        let Some(name) = source.file_stem() else { continue };
        if left_out {
            fs::write(out_dir.join(name).with_extension("o.packed"), [])?;
            continue;
        }
        let built = target_dir.join("bpfel-unknown-none/release").join(name);
        let object = stripped(&built).with_context(|| format!("strip {}", built.display()))?;
        let packed = packed(&object).with_context(|| format!("pack {}", built.display()))?;
        fs::write(out_dir.join(name).with_extension("o"), object)?;
        fs::write(out_dir.join(name).with_extension("o.packed"), packed)?;
    }
    Ok(())
}

/// Runs the inner cargo; answers its target folder.
fn build_objects(workspace: &Path, out_dir: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let linker = find_bpf_linker(workspace).context(
        "bpf-linker was not found. Run `cargo xtask build`, which installs it, or: cargo install bpf-linker",
    )?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("set by cargo")?;
    // One folder for all of the outer profiles: `core` is compiled once (its fingerprint knows the compiler).
    let target_dir = out_dir.ancestors().nth(4).context("OUT_DIR is deep enough")?.join("bpf");
    let mut flags = bpf_rustflags(&linker, &arch);
    for flag in toolchain.same_everywhere(workspace) {
        flags.push("\x1f");
        flags.push(flag);
    }
    let mut cargo: Command = toolchain.cargo();
    cargo
        .current_dir(workspace)
        .args(["build", "--package=probes-ebpf", "--bins", "--release", "--target=bpfel-unknown-none"])
        .args(["-Zbuild-std=core", "--quiet", "--locked"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // The user-space release profile is about size and symbols; the objects want neither.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_TARGET_DIR", &target_dir);
    if env::var_os("CARGO_FEATURE_PROBE_LOG").is_some() {
        cargo.arg("--features=probe-log");
    }
    let status = cargo.status().with_context(|| format!("run {}", toolchain.cargo.display()))?;
    if !status.success() {
        bail!("building the BPF objects failed ({status})");
    }
    Ok(target_dir)
}

/// The object as `src/packed.rs` reads it: its length, then a raw DEFLATE stream.
fn packed(object: &[u8]) -> Result<Vec<u8>> {
    let mut packed = u32::try_from(object.len())?.to_le_bytes().to_vec();
    packed.extend(compress_to_vec(object, CompressionLevel::UberCompression as u8));
    Ok(packed)
}

/// The object without its `.debug_*` sections and their relocations, nor `.BTF.ext` (lines for verifier logs, as large
/// as the code). `.BTF` stays: maps are described in it.
fn stripped(path: &Path) -> Result<Vec<u8>> {
    let data = fs::read(path)?;
    let mut builder = Builder::read(&*data)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        if name.starts_with(b".debug") || name == b".BTF.ext" {
            section.delete = true;
        }
    }
    // LLVM keeps section names in .strtab; the writer wants a table of their own.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out)?;
    Ok(out)
}
