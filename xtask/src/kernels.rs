//! The kernels that guests run: Debian's cloud kernels, resolved from their meta packages (a versioned package is
//! gone from the archive within months), unpacked below `target/kernels/` and never installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::shell::{run, say, target};

/// A line of kernels that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Debian 12's.
    V6_1,
    /// Debian 13's, in Debian 12 as a backport.
    V6_12,
}

/// Every line, oldest first.
pub(crate) const LINES: [Line; 2] = [Line::V6_1, Line::V6_12];

/// A kernel on disk.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The tree of its modules.
    pub(crate) modules: PathBuf,
}

impl Line {
    /// # Errors
    /// The text names no line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let line = LINES.into_iter().find(|line| line.to_string() == text);
        line.with_context(|| format!("no kernel {text}: there are 6.1 and 6.12"))
    }

    /// The packages that may stand for the newest kernel of this line; which one does depends on the release of Debian.
    fn meta_packages(self) -> [&'static str; 2] {
        match self {
            Self::V6_1 => ["linux-image-6.1-cloud-amd64", "linux-image-cloud-amd64"],
            Self::V6_12 => ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"],
        }
    }

    /// The kernel of this line, if it was downloaded.
    pub(crate) fn find(self) -> Option<Kernel> {
        Kernel::in_folder(&self.folder()).ok()
    }

    /// Downloads the kernel of this line.
    ///
    /// # Errors
    /// No meta package leads to it, or the download or the unpacking fails.
    pub(crate) fn fetch(self) -> Result<()> {
        let package = self.resolve()?;
        say(&format!(
            "downloading the package {package}: the guest with kernel {self} boots it (it is not installed)"
        ));
        let folder = self.folder();
        let part = folder.with_extension("part");
        for old in [&part, &folder] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        fs::create_dir_all(&part)?;
        apt::download(&package, &part)?;
        let deb = one(&part, |name| name.starts_with("linux-image-"))?;
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&part))?;
        fs::remove_file(&deb)?;
        Kernel::in_folder(&part)?;
        fs::rename(&part, &folder).context("move the unpacked kernel into place")
    }

    fn folder(self) -> PathBuf {
        // A name without a dot, so that `with_extension` adds one.
        target().join("kernels").join(self.to_string().replace('.', "-"))
    }

    fn resolve(self) -> Result<String> {
        let mut looked = Vec::new();
        for meta in self.meta_packages() {
            match apt::depends(meta) {
                Ok(names) => match pick(self, &names) {
                    Some(name) => return Ok(name.to_owned()),
                    None => looked.push(format!("{meta} is now {}", names.join(", "))),
                },
                Err(why) => looked.push(why.to_string()),
            }
        }
        bail!("no package of a {self} kernel can be found here: {}", looked.join("; "))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl Kernel {
    fn in_folder(folder: &Path) -> Result<Self> {
        let image = one(&folder.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        let roots = ["lib/modules", "usr/lib/modules"].map(|root| folder.join(root).join(&release));
        let modules = roots.into_iter().find(|dir| dir.is_dir()).context("the package has no modules")?;
        Ok(Self { release, image, modules })
    }
}

/// The package among a meta package's dependencies that is a kernel of this line.
fn pick(line: Line, names: &[String]) -> Option<&str> {
    let prefix = format!("linux-image-{line}.");
    names.iter().map(String::as_str).find(|name| name.starts_with(&prefix))
}

/// The only entry of a folder whose name fits.
fn one(dir: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut found = entries.filter_map(Result::ok).filter(|entry| fits(&entry.file_name().to_string_lossy()));
    let first = found.next().with_context(|| format!("nothing that fits in {}", dir.display()))?;
    Ok(first.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_only_its_own_kernels() {
        let of = |name: &str| vec![name.to_owned()];
        assert_eq!(
            pick(Line::V6_1, &of("linux-image-6.1.0-56-cloud-amd64")),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(pick(Line::V6_1, &of("linux-image-6.12.117+deb12-cloud-amd64")), None);
        assert!(pick(Line::V6_12, &of("linux-image-6.12.117+deb12-cloud-amd64")).is_some());
        assert_eq!(pick(Line::V6_12, &[]), None);
    }

    #[test]
    fn lines_are_named_as_people_name_them() {
        assert_eq!(Line::parse("6.12").ok(), Some(Line::V6_12));
        assert!(Line::parse("5.10").is_err());
    }
}
