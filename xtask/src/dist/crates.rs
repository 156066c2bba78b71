//! What is linked into the binary: crates of user space and of the BPF objects, the compiler's library and the C
//! library. Each with its licence, which must be one that somebody looked at.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xtask::toolchain::Toolchain;

use crate::arch::Arch;
use crate::build::triple;
use crate::setup::{Std, cross_linker, find_std};
use crate::shell::{cargo, output, workspace};

/// Licences under which a part may be linked into a static binary that is given away under MIT or Apache-2.0: notices
/// are all that they ask for. Where an expression offers several, one of them is enough.
const FIT: [&str; 8] =
    ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "Unicode-3.0", "Unlicense", "Zlib"];

/// A crate, or another part of the binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    /// Where its source is kept, if it says so.
    pub(super) repository: Option<String>,
    /// The SHA-256 of its package in the registry. What is ours has none.
    pub(super) checksum: Option<String>,
    /// Whether it is a crate.
    pub(super) is_crate: bool,
    /// Where its source lies on this machine.
    pub(super) folder: Option<PathBuf>,
}

/// All parts, and which is linked for which.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Linked {
    /// Sorted by name and version.
    pub(super) parts: BTreeMap<Key, Part>,
    /// What a part needs.
    pub(super) needs: BTreeSet<(Key, Key)>,
}

/// Name and version.
pub(super) type Key = (String, String);

impl Linked {
    /// Asks cargo and the compilers.
    ///
    /// # Errors
    /// One of them fails, or a licence is none of [`FIT`].
    pub(super) fn find(arch: Arch) -> Result<Self> {
        let mut linked = Self::default();
        let details = Details::read()?;
        linked.crates("netbcc", &triple(arch)?, &details)?;
        // The objects are embedded in the binary.
        linked.crates("probes-ebpf", "bpfel-unknown-none", &details)?;
        let (netbcc, probes) = (linked.key("netbcc")?, linked.key("probes-ebpf")?);
        linked.needs.insert((netbcc.clone(), probes.clone()));
        let rustc = match find_std(arch) {
            Some(Std::Built(toolchain)) => toolchain.rustc.into_os_string(),
            _ => std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
        };
        linked.other(&netbcc, "rust-std", &version_of(&rustc)?, "MIT OR Apache-2.0");
        linked.other(
            &probes,
            "rust-core",
            &version_of(Toolchain::find()?.rustc.as_os_str())?,
            "MIT OR Apache-2.0",
        );
        let cc = if arch == Arch::HERE { "cc" } else { cross_linker(arch)? };
        linked.other(&netbcc, "glibc", &libc_version(cc)?, "LGPL-2.1-or-later");
        let gcc = output(Command::new(cc).arg("-dumpfullversion"))?;
        linked.other(&netbcc, "libgcc", gcc.trim(), "GPL-3.0-or-later WITH GCC-exception-3.1");
        Ok(linked)
    }

    /// Adds what cargo links for a package of this workspace: neither macros nor build scripts, which end with the build.
    fn crates(&mut self, package: &str, target: &str, details: &Details) -> Result<()> {
        let mut cmd = cargo();
        cmd.args(["tree", "--locked", "--package", package, "--target", target]);
        cmd.args(["--edges=normal,no-proc-macro", "--no-dedupe", "--prefix=depth", "--format= {p}"]);
        self.tree(&output(&mut cmd)?, details)
    }

    /// Reads `cargo tree`: a depth, a name, a version.
    fn tree(&mut self, text: &str, details: &Details) -> Result<()> {
        let mut path: Vec<Key> = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let mut word = || words.next().with_context(|| format!("cargo tree says {line:?}"));
            let (depth, name, version) =
                (word()?.parse::<usize>()?, word()?, word()?.trim_start_matches('v'));
            let key = (name.to_owned(), version.to_owned());
            path.truncate(depth);
            if let Some(above) = path.last() {
                self.needs.insert((above.clone(), key.clone()));
            }
            path.push(key.clone());
            if let Entry::Vacant(place) = self.parts.entry(key) {
                place.insert(details.of(name, version)?);
            }
        }
        Ok(())
    }

    /// Adds a part that is no crate.
    fn other(&mut self, whose: &Key, name: &str, version: &str, licence: &str) {
        let key = (name.to_owned(), version.to_owned());
        let part = Part {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.to_owned(),
            ..Part::default()
        };
        self.parts.insert(key.clone(), part);
        self.needs.insert((whose.clone(), key));
    }

    fn key(&self, name: &str) -> Result<Key> {
        let found = self.parts.keys().find(|(known, _)| known == name);
        found.cloned().with_context(|| format!("cargo tree does not name {name}"))
    }

    /// Parts that others wrote.
    fn foreign(&self) -> impl Iterator<Item = &Part> {
        self.parts.values().filter(|part| !part.is_crate || part.checksum.is_some())
    }

    /// The package's `copyright`, in Debian's form.
    pub(super) fn copyright(&self, mit: &str) -> Result<String> {
        let copyright =
            mit.lines().find(|line| line.starts_with("Copyright")).context("LICENSE-MIT has no copyright")?;
        let mut text = format!(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: netbcc\nSource: {}\n\
             Comment: The binary is static. Besides netbcc's own code it holds the parts below; their notices are in\n \
             third-party-licences.gz, all of it as SPDX in netbcc.spdx.json.gz. The C library is the GNU one, under the\n \
             LGPL: netbcc's source and `cargo xtask build` are what is needed to link the binary with another.\n .\n",
            env!("CARGO_PKG_REPOSITORY")
        );
        for part in self.foreign() {
            writeln!(text, " {} {}: {}", part.name, part.version, part.licence)?;
        }
        write!(
            text,
            "\nFiles: *\n{}\nLicense: Expat or Apache-2.0\n\nLicense: Expat\n",
            copyright.replacen("Copyright", "Copyright:", 1)
        )?;
        for line in mit.lines().skip_while(|line| !line.starts_with("Permission")) {
            writeln!(text, " {}", if line.is_empty() { "." } else { line })?;
        }
        text.push_str("\nLicense: Apache-2.0\n On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.\n");
        Ok(text)
    }

    /// The notices of all that others wrote, each text once.
    pub(super) fn notices(&self) -> Result<String> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in self.foreign() {
            let whose = format!("{} {} ({})", part.name, part.version, part.licence);
            for text in part.notices()? {
                texts.entry(text).or_default().push(whose.clone());
            }
        }
        let mut groups: Vec<(Vec<String>, String)> =
            texts.into_iter().map(|(text, whose)| (whose, text)).collect();
        groups.sort();
        let rule = "=".repeat(80);
        let mut all = String::new();
        for (whose, text) in groups {
            write!(all, "{rule}\n{}\n{rule}\n\n{}\n\n", whose.join("\n"), text.trim())?;
        }
        Ok(all)
    }
}

impl Part {
    /// The texts that its package brings. Of a choice with MIT, MIT is what we take.
    fn notices(&self) -> Result<Vec<String>> {
        let Some(folder) = &self.folder else {
            return Ok(vec![
                "Its licence is part of the compiler's or of the C library's distribution.".to_owned(),
            ]);
        };
        let mut names: Vec<String> = fs::read_dir(folder)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                let name = name.to_ascii_lowercase();
                ["licen", "copying", "copyright", "notice", "unlicense"]
                    .iter()
                    .any(|start| name.starts_with(start))
            })
            .collect();
        let is_mit = |name: &String| name.to_ascii_lowercase().contains("mit");
        if names.iter().any(is_mit) {
            names.retain(is_mit);
        }
        names.sort();
        let texts = names.iter().map(|name| folder.join(name)).filter(|file| file.is_file());
        let texts: Vec<String> = texts.map(fs::read_to_string).collect::<Result<_, _>>()?;
        Ok(if texts.is_empty() {
            vec!["Its package brings no text of its licence.".to_owned()]
        } else {
            texts
        })
    }
}

/// What cargo knows about crates beyond their names.
struct Details {
    crates: BTreeMap<Key, Part>,
}

impl Details {
    fn read() -> Result<Self> {
        let text = output(cargo().args(["metadata", "--locked", "--format-version=1"]))?;
        let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("read Cargo.lock")?;
        Self::parse(&text, &lock)
    }

    fn parse(metadata: &str, lock: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata).context("cargo metadata")?;
        let checksums = checksums(lock);
        let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        let crates = packages.iter().map(|package| {
            let text = |name: &str| package[name].as_str().map(str::to_owned);
            let key = (text("name").context("a name")?, text("version").context("a version")?);
            let part = Part {
                name: key.0.clone(),
                version: key.1.clone(),
                licence: expression(&text("license").unwrap_or_default()),
                repository: text("repository"),
                checksum: checksums.get(&key).cloned(),
                is_crate: true,
                folder: text("manifest_path").and_then(|file| Some(Path::new(&file).parent()?.to_owned())),
            };
            Ok((key, part))
        });
        Ok(Self { crates: crates.collect::<Result<_>>()? })
    }

    fn of(&self, name: &str, version: &str) -> Result<Part> {
        let key = (name.to_owned(), version.to_owned());
        let part = self
            .crates
            .get(&key)
            .with_context(|| format!("cargo metadata does not know {name} {version}"))?;
        if !fits(&part.licence) {
            bail!(
                "nobody has looked at the licence of {name} {version} yet: {:?}. If it is fit for a static binary, add it to \
                 those in xtask/src/dist/crates.rs",
                part.licence
            );
        }
        Ok(part.clone())
    }
}

/// The checksums in a Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<Key, String> {
    let value = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|text| text.trim_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| {
            Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))
        })
        .collect()
}

/// A crate's licence as an SPDX expression: older crates have a slash for OR.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// Whether we may link what has this licence. An exception only ever allows more.
fn fits(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ");
    let fit = |name: &str| FIT.contains(&name.split(" WITH ").next().unwrap_or_default().trim());
    // AND binds stronger. With brackets it may not, so then all must fit.
    if expression.contains('(') {
        return plain.split(" OR ").flat_map(|part| part.split(" AND ")).all(fit);
    }
    plain.split(" OR ").any(|part| part.split(" AND ").all(fit))
}

/// The version in `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version_of(rustc: &OsStr) -> Result<String> {
    let text = output(Command::new(rustc).arg("--version"))?;
    text.split_whitespace().nth(1).map(str::to_owned).context("rustc says no version")
}

/// The version of the C library that a compiler links, by the macros of its headers: it may be one for another machine, which
/// cannot be asked.
fn libc_version(cc: &str) -> Result<String> {
    let mut cmd = Command::new(cc);
    let macros = output(cmd.args(["-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null"]))?;
    let value = |name: &str| {
        let prefix = format!("#define {name} ");
        macros.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim)
    };
    let (major, minor) = value("__GLIBC__").zip(value("__GLIBC_MINOR__")).context("not the GNU C library")?;
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages":[
        {"name":"netbcc","version":"0.1.0","license":"MIT OR Apache-2.0","repository":null,"manifest_path":"/w/netbcc/Cargo.toml"},
        {"name":"a","version":"1.0.0","license":"MIT/Apache-2.0","repository":"https://example.org/a","manifest_path":"/c/a/Cargo.toml"},
        {"name":"b","version":"2.0.0","license":"AGPL-3.0-only","manifest_path":"/c/b/Cargo.toml"}]}"#;
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"0a\"\n\n\
                        [[package]]\nname = \"netbcc\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";

    #[test]
    fn a_tree_becomes_parts_and_needs() {
        let details = Details::parse(METADATA, LOCK).expect("good");
        let mut linked = Linked::default();
        linked.tree("0 netbcc v0.1.0 (/w/netbcc)\n1 a v1.0.0\n1 a v1.0.0\n", &details).expect("good");
        let a = linked.key("a").expect("is there");
        assert_eq!(linked.parts[&a].checksum.as_deref(), Some("0a"));
        assert_eq!(linked.parts[&a].licence, "MIT OR Apache-2.0");
        assert_eq!(linked.needs, BTreeSet::from([(linked.key("netbcc").expect("is there"), a)]));
        assert_eq!(linked.foreign().count(), 1);
        let copyright = linked
            .copyright("MIT License\n\nCopyright (c) 2026 us\n\nPermission is\n\ngiven\n")
            .expect("good");
        assert!(
            copyright.contains("\n a 1.0.0: MIT OR Apache-2.0\n")
                && copyright.contains("\nCopyright: (c) 2026 us\n")
        );
        assert!(copyright.contains("\n Permission is\n .\n given\n"), "{copyright}");
    }

    #[test]
    fn a_licence_that_nobody_looked_at_is_refused_by_name() {
        let details = Details::parse(METADATA, LOCK).expect("good");
        let error = Linked::default().tree("0 netbcc v0.1.0\n1 b v2.0.0\n", &details).expect_err("AGPL");
        assert!(error.to_string().contains("b 2.0.0") && error.to_string().contains("AGPL"), "{error}");
    }

    #[test]
    fn licences() {
        for good in [
            "MIT",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "GPL-2.0-only OR MIT",
            "(MIT OR Zlib) AND 0BSD",
        ] {
            assert!(fits(good), "{good}");
        }
        for bad in ["", "GPL-3.0-only", "MIT AND LGPL-2.1-only", "(MIT OR GPL-2.0-only) AND 0BSD"] {
            assert!(!fits(bad), "{bad}");
        }
        assert_eq!(expression("Apache-2.0 / MIT"), "Apache-2.0 OR MIT");
    }
}
