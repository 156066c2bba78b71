//! The kernels that guests run: Debian's cloud kernels, resolved from their meta packages (a versioned package is
//! gone from the archive within months), unpacked below `target/kernels/` and never installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::Archive;
use crate::arch::Arch;
use crate::shell::{run, say, target};

/// A line of kernels that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    series: Series,
    /// What it runs on.
    pub(crate) arch: Arch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Series {
    /// Debian 11's, for trying by hand: no test needs it.
    V5_10,
    /// Debian 12's.
    V6_1,
    /// Debian 13's, in Debian 12 as a backport.
    V6_12,
}

/// Every line of this machine's architecture, oldest first.
pub(crate) const LINES: [Line; 2] = [Line::V6_1, Line::V6_12];

/// The lines that [`Line::parse`] knows: those of the tests, and those for trying by hand, which need a Debian that has
/// them (or an unpacked package below `target/kernels/`).
const NAMED: [Line; 3] = [Line { series: Series::V5_10, arch: Arch::HERE }, Line::V6_1, Line::V6_12];

/// Every line on arm64, oldest first.
pub(crate) const ARM64: [Line; 2] = [Line::V6_1.on(Arch::Aarch64), Line::V6_12.on(Arch::Aarch64)];

/// A kernel on disk.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What it runs on.
    pub(crate) arch: Arch,
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The tree of its modules.
    pub(crate) modules: PathBuf,
}

impl Line {
    /// Debian 12's, for this machine's architecture.
    pub(crate) const V6_1: Self = Self { series: Series::V6_1, arch: Arch::HERE };
    /// Debian 13's, for this machine's architecture.
    pub(crate) const V6_12: Self = Self { series: Series::V6_12, arch: Arch::HERE };

    /// The line of this machine's architecture that the text names.
    ///
    /// # Errors
    /// The text names no line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let line = NAMED.into_iter().find(|line| line.series.name() == text);
        line.with_context(|| format!("no kernel {text}: there are 5.10, 6.1 and 6.12"))
    }

    /// The same line for an architecture.
    pub(crate) const fn on(self, arch: Arch) -> Self {
        Self { series: self.series, arch }
    }

    /// What the attach ladder must offer on Debian's kernel of this line: there a missing rung is a failure, not a skip.
    pub(crate) fn rungs(self) -> &'static str {
        match (self.series, self.arch) {
            // arm64 got direct calls from ftrace, which fentry and fexit are made of, with 6.4.
            (Series::V6_1, Arch::Aarch64) => "kprobe,tracepoint,raw_tp",
            _ => "fexit,kprobe,tracepoint,raw_tp",
        }
    }

    /// The lists of checks that run whole in this line's guest when the run is not of all: together with this machine's
    /// kernel every rung has one kernel on which all of its checks run, and `netbcc` what does not depend on kernels.
    pub(crate) fn part(self) -> &'static str {
        match self.series {
            Series::V6_1 => "netbcc,any,kprobe,tracepoint,raw_tp",
            Series::V6_12 => "any,fexit",
            Series::V5_10 => "",
        }
    }

    /// The packages that may stand for the newest kernel of this line; which one does depends on the release of Debian.
    fn meta_packages(self) -> [String; 2] {
        let (series, arch) = (self.series.name(), self.arch.debian());
        [format!("linux-image-{series}-cloud-{arch}"), format!("linux-image-cloud-{arch}")]
    }

    /// The kernel of this line, if it was downloaded.
    pub(crate) fn find(self) -> Option<Kernel> {
        Kernel::in_folder(&self.folder(), self.arch).ok()
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
        self.archive().download(&package, &part)?;
        let deb = one(&part, |name| name.starts_with("linux-image-"))?;
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&part))?;
        fs::remove_file(&deb)?;
        Kernel::in_folder(&part, self.arch)?;
        fs::rename(&part, &folder).context("move the unpacked kernel into place")
    }

    fn folder(self) -> PathBuf {
        target().join("kernels").join(self.folder_name())
    }

    /// A name without a dot, so that `with_extension` adds one.
    pub(crate) fn folder_name(self) -> String {
        self.to_string().replace(['.', ' '], "-")
    }

    fn archive(self) -> Archive {
        Archive::of(self.arch)
    }

    fn resolve(self) -> Result<String> {
        let mut looked = Vec::new();
        for meta in self.meta_packages() {
            match self.archive().depends(&meta) {
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
        f.write_str(self.series.name())?;
        if self.arch == Arch::HERE { Ok(()) } else { write!(f, " {}", self.arch.debian()) }
    }
}

impl Series {
    fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

impl Kernel {
    fn in_folder(folder: &Path, arch: Arch) -> Result<Self> {
        let image = one(&folder.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        let roots = ["lib/modules", "usr/lib/modules"].map(|root| folder.join(root).join(&release));
        let modules = roots.into_iter().find(|dir| dir.is_dir()).context("the package has no modules")?;
        Ok(Self { arch, release, image, modules })
    }
}

/// The package among a meta package's dependencies that is a kernel of this line.
fn pick(line: Line, names: &[String]) -> Option<&str> {
    let prefix = format!("linux-image-{}.", line.series.name());
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
        assert!(Line::parse("5.10").is_ok_and(|line| !LINES.contains(&line)));
        assert!(Line::parse("5.4").is_err());
        assert_eq!(Line::V6_12.to_string(), "6.12");
        if Arch::HERE != Arch::Aarch64 {
            assert_eq!(ARM64[0].folder_name(), "6-1-arm64");
            assert_eq!(ARM64[1].to_string(), "6.12 arm64");
        }
    }
}
