//! The files below a prefix, as the package and the tarball have them.
//!
//! `lib/netbcc` is a prefix of its own, with the tools under their own names: in PATH, its `bin` brings manual pages
//! (man looks beside it) and completions (bash-completion does, too) along; out of it, nothing clashes with the tools
//! of other packages.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::crates::Linked;
use crate::shell::{output, run, workspace};

/// Where a tree goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// `/usr`, in Debian's folders.
    Distribution,
    /// `/usr/local` or any other prefix.
    Local,
}

impl Home {
    /// Where zsh looks.
    fn zsh(self) -> &'static str {
        match self {
            Self::Distribution => "share/zsh/vendor-completions",
            Self::Local => "share/zsh/site-functions",
        }
    }
}

/// The documents that come along.
const DOCUMENTS: [&str; 5] =
    ["README.md", "SECURITY.md", "BENCHMARKS.md", "docs/which-tool.md", "docs/fields.md"];

/// Writes all files below `prefix`. `binary` may be of another architecture than `runs_here`, which is the same otherwise.
pub(super) fn write(
    prefix: &Path,
    home: Home,
    binary: &Path,
    runs_here: &Path,
    linked: &Linked,
    sbom: &str,
) -> Result<()> {
    let says = |args: &[&str]| output(Command::new(runs_here).args(args));
    let list = says(&["--list"])?;
    let tools: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();

    let bin = prefix.join("bin/netbcc");
    file(&bin, &fs::read(binary)?)?;
    fs::set_permissions(&bin, Permissions::from_mode(0o755))?;

    let man = prefix.join("share/man/man8");
    zipped(&man.join("netbcc.8"), &says(&["man"])?)?;
    for (shell, path) in [
        ("bash", "share/bash-completion/completions/netbcc".to_owned()),
        ("zsh", format!("{}/_netbcc", home.zsh())),
        ("fish", "share/fish/vendor_completions.d/netbcc.fish".to_owned()),
    ] {
        file(&prefix.join(path), says(&["completions", shell])?.as_bytes())?;
    }
    let own = prefix.join("lib/netbcc");
    for tool in tools {
        link(&own.join("bin").join(tool), "../../../bin/netbcc")?;
        zipped(&man.join(format!("netbcc-{tool}.8")), &says(&["man", tool])?)?;
        let page = format!("../../../../../share/man/man8/netbcc-{tool}.8.gz");
        link(&own.join(format!("share/man/man8/{tool}.8.gz")), &page)?;
        for (shell, path) in [
            ("bash", format!("share/bash-completion/completions/{tool}")),
            ("zsh", format!("share/zsh/site-functions/_{tool}")),
            ("fish", format!("share/fish/vendor_completions.d/{tool}.fish")),
        ] {
            file(&own.join(path), says(&["completions", shell, tool])?.as_bytes())?;
        }
        file(&prefix.join(format!("share/netbcc/schema/{tool}.json")), says(&["schema", tool])?.as_bytes())?;
    }

    let doc = prefix.join("share/doc/netbcc");
    let source = workspace();
    let read = |name: &str| fs::read_to_string(source.join(name)).with_context(|| format!("read {name}"));
    for name in DOCUMENTS {
        file(&doc.join(Path::new(name).file_name().unwrap_or_default()), read(name)?.as_bytes())?;
    }
    zipped(&doc.join("CHANGELOG.md"), &read("CHANGELOG.md")?)?;
    file(&doc.join("copyright"), linked.copyright(&read("LICENSE-MIT")?)?.as_bytes())?;
    zipped(&doc.join("third-party-licences"), &linked.notices()?)?;
    zipped(&doc.join("netbcc.spdx.json"), sbom)
}

/// A file that all may read, in folders that are made.
pub(super) fn file(path: &Path, data: &[u8]) -> Result<()> {
    folder(path.parent().context("a file has a folder")?)?;
    fs::write(path, data).with_context(|| format!("write {}", path.display()))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o644))?)
}

/// A folder and those above it, whatever the umask.
pub(super) fn folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    folder(path.parent().context("the root is there")?)?;
    fs::create_dir(path).with_context(|| format!("create {}", path.display()))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// Replaces a file by its compressed form, without name and time.
pub(super) fn gzip(path: &Path) -> Result<()> {
    run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(path))
}

/// A file that all may read, compressed.
pub(super) fn zipped(path: &Path, text: &str) -> Result<()> {
    file(path, text.as_bytes())?;
    gzip(path)
}

fn link(path: &Path, to: &str) -> Result<()> {
    folder(path.parent().context("a link has a folder")?)?;
    symlink(to, path).with_context(|| format!("link {}", path.display()))
}

/// All files and links below `root`, relative to it, sorted.
pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(dir) = folders.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
