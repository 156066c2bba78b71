//! Debian's and Ubuntu's packages: installing some, downloading one, asking what a meta package stands for.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::on_path;

use crate::arch::Arch;
use crate::shell::{as_root, find_program, is_root, output, run, say, target};

/// Whether this machine installs packages with apt and we may do it.
pub(crate) fn usable() -> bool {
    on_path("apt-get").is_some()
        && on_path("dpkg-deb").is_some()
        && (is_root() || find_program("sudo").is_some())
}

/// Whether the archive offers a package. Lists that do not name it may be old: they are fetched, once per run.
pub(crate) fn offers(package: &str) -> bool {
    Archive::of(Arch::HERE).offers(package)
}

/// Whether a package is installed.
pub(crate) fn installed(package: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", package];
    output(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
}

/// Installs packages. Nothing that is installed is removed for them.
///
/// # Errors
/// apt-get fails also after an update of its lists.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !have_lists() || !packages.iter().all(|package| Archive::of(Arch::HERE).candidate(package)) {
        update()?;
    }
    let install = || {
        let mut cmd = apt_get();
        cmd.args(["install", "--yes", "--no-install-recommends", "--no-remove", "-qq"]).args(packages);
        // Its log of each unpacked file is of no use; errors come on the other stream.
        run(cmd.stdout(Stdio::null()))
    };
    if install().is_ok() {
        return Ok(());
    }
    // Lists older than the archive name files that are gone.
    update()?;
    install().with_context(|| format!("install {}", packages.join(" ")))
}

/// Unpacks a package below the folder `into`, with every package it needs that the machine does not have. Nothing is
/// installed, so nothing on the machine changes or has to make room.
///
/// # Errors
/// apt-get fails also after an update of its lists, or there is no room.
pub(crate) fn unpack(package: &str, into: &Path) -> Result<()> {
    if !offers(package) {
        bail!("this machine's package lists have no {package}");
    }
    let archive = Archive::of(Arch::HERE);
    archive.unpack_all(&archive.plan(&[package], &[])?, into)
}

/// How many packages this one is with every package it needs, down to the C library, and those `besides`, and their bytes
/// once they are installed.
///
/// # Errors
/// The archive does not have them.
pub(crate) fn installed_size(package: &str, besides: &[String]) -> Result<(usize, u64)> {
    let packages = Archive::of(Arch::HERE).whole(&[package], besides)?;
    let text = output(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(&packages))?;
    let sizes = parse_sizes(&text);
    if sizes.len() != packages.len() {
        bail!("apt knows the sizes of {} of {} packages", sizes.len(), packages.len());
    }
    Ok((sizes.len(), sizes.iter().sum::<u64>() * 1024))
}

/// The packages of a kernel's headers: those of its flavour, and what all flavours share.
pub(crate) fn headers(release: &str) -> [String; 2] {
    let base = release.rsplit_once("-cloud-").map_or(release, |(base, _)| base);
    [format!("linux-headers-{release}"), format!("linux-headers-{base}-common")]
}

/// The suites of Debian that have kernels, older and newer than this machine's own.
const SUITES: [&str; 6] = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// The suites of Debian's security archive that have kernels.
const SECURITY_SUITES: [&str; 1] = ["bullseye-security"];

/// The packages of an architecture, from the archives that this machine knows. What is downloaded for another one than
/// this machine's, or from other suites than its own, goes below `target/`, as do the lists: the machine's own apt is told
/// of neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Archive {
    arch: Arch,
    /// All of [`SUITES`], from the mirror that this machine uses.
    suites: bool,
}

impl Archive {
    pub(crate) fn of(arch: Arch) -> Self {
        Self { arch, suites: false }
    }

    /// Every suite of Debian that has kernels.
    pub(crate) fn of_all_suites(arch: Arch) -> Self {
        Self { arch, suites: true }
    }

    /// The names of packages that begin so; none where the lists cannot be fetched.
    pub(crate) fn names(self, prefix: &str) -> Vec<String> {
        let names = || output(self.command("apt-cache").args(["pkgnames", prefix])).unwrap_or_default();
        let mut text = names();
        if text.is_empty() && self.refreshed() {
            text = names();
        }
        text.lines().map(str::to_owned).collect()
    }

    /// What a meta package depends on today.
    ///
    /// # Errors
    /// The archive does not have it.
    pub(crate) fn depends(self, meta: &str) -> Result<Vec<String>> {
        self.must_offer(&[meta])?;
        let text = output(self.command("apt-cache").args(["depends", "--important", meta]))?;
        Ok(parse_depends(&text))
    }

    /// Downloads the newest .deb of each package into the folder `into`, without installing it.
    ///
    /// # Errors
    /// apt-get fails also after an update of its lists.
    pub(crate) fn download(self, packages: &[&str], into: &Path) -> Result<()> {
        self.download_all(packages, into)
    }

    /// Unpacks packages below the folder `into` with every package they need, down to the C library, and with the
    /// packages `besides`, without what those need.
    ///
    /// # Errors
    /// As [`unpack`].
    pub(crate) fn unpack_whole(self, packages: &[&str], besides: &[String], into: &Path) -> Result<()> {
        self.unpack_all(&self.whole(packages, besides)?, into)
    }

    /// Packages with every package they need, as if nothing were installed, and those `besides`, without what those need.
    fn whole(self, packages: &[&str], besides: &[String]) -> Result<Vec<String>> {
        self.must_offer(packages)?;
        self.must_offer(&besides.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut packages = self.plan(packages, &["-o", "Dir::State::status=/dev/null"])?;
        packages.extend(besides.iter().cloned());
        Ok(packages)
    }

    fn must_offer(self, packages: &[&str]) -> Result<()> {
        match packages.iter().find(|package| !self.offers(package)) {
            None => Ok(()),
            Some(missing) if self.suites => bail!("no suite of Debian's has {missing} any more"),
            Some(missing) if self.arch == Arch::HERE => {
                bail!("this machine's package lists have no {missing}")
            }
            Some(missing) => bail!("this machine's archives have no {missing} for {}", self.arch.debian()),
        }
    }

    fn offers(self, package: &str) -> bool {
        self.candidate(package) || (self.refreshed() && self.candidate(package))
    }

    /// Fetches the lists, once per run; answers whether that went well.
    fn refreshed(self) -> bool {
        static FRESH: [OnceLock<bool>; 4] = [const { OnceLock::new() }; 4];
        let which = usize::from(self.arch != Arch::HERE) + 2 * usize::from(self.suites);
        *FRESH[which].get_or_init(|| self.update().is_ok())
    }

    fn candidate(self, package: &str) -> bool {
        output(self.command("apt-cache").args(["policy", package])).is_ok_and(|text| has_candidate(&text))
    }

    fn update(self) -> Result<()> {
        if !self.is_apart() {
            return update();
        }
        let of = if self.suites { "all suites of Debian" } else { self.arch.debian() };
        say(&format!("fetching the package lists of {of} into {}", self.folder().display()));
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder().join(dir))?;
        }
        if self.suites {
            fs::write(self.folder().join(SOURCES), sources(self.arch)?)?;
        }
        run(self.command("apt-get").args(["update", "-qq"]))
    }

    /// Whether the machine's own apt is not asked.
    fn is_apart(self) -> bool {
        self.suites || self.arch != Arch::HERE
    }

    /// Where lists are that are not the machine's own.
    fn folder(self) -> PathBuf {
        target().join(format!("apt-{}{}", self.arch, if self.suites { "-suites" } else { "" }))
    }

    /// The packages that installing these would add.
    fn plan(self, packages: &[&str], options: &[&str]) -> Result<Vec<String>> {
        let mut cmd = self.command("apt-get");
        cmd.args(["install", "--simulate", "--yes", "--no-install-recommends"]).args(options).args(packages);
        Ok(parse_plan(&output(&mut cmd)?))
    }

    fn download_all(self, packages: &[&str], into: &Path) -> Result<()> {
        let download = || {
            run(self
                .command("apt-get")
                .args(["-o", "APT::Sandbox::User=root", "download", "-qq"])
                .args(packages)
                .current_dir(into))
        };
        // Lists older than the archive name files that are gone.
        download().or_else(|why| if self.refreshed() { download() } else { Err(why) })
    }

    fn unpack_all(self, packages: &[String], into: &Path) -> Result<()> {
        let part = into.with_extension("part");
        for old in [part.as_path(), into] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        let debs = part.join("debs");
        fs::create_dir_all(&debs)?;
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        self.download_all(&names, &debs)?;
        for deb in fs::read_dir(&debs)? {
            run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&part))?;
        }
        fs::remove_dir_all(&debs)?;
        fs::rename(&part, into).context("move what was unpacked into place")
    }

    /// A program of apt that knows these packages and, if they are not the machine's own, nothing of what is installed
    /// here.
    fn command(self, program: &str) -> Command {
        let mut cmd = Command::new(program);
        let (arch, folder) = (self.arch.debian(), self.folder());
        if self.is_apart() {
            for option in [
                format!("APT::Architecture={arch}"),
                format!("APT::Architectures::={arch}"),
                format!("Dir::State::lists={}", folder.join("lists").display()),
                format!("Dir::Cache={}", folder.join("cache").display()),
                "Dir::State::status=/dev/null".to_owned(),
                "APT::Sandbox::User=root".to_owned(),
            ] {
                cmd.args(["-o", &option]);
            }
        }
        if self.suites {
            for option in [
                format!("Dir::Etc::sourcelist={}", folder.join(SOURCES).display()),
                "Dir::Etc::sourceparts=/dev/null".to_owned(),
                "Acquire::Languages=none".to_owned(),
                // What desktops show of packages.
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            ] {
                cmd.args(["-o", &option]);
            }
        }
        cmd
    }
}

/// The keys of Debian's archives, where Debian's package of them puts them. Without that apt asks its own folder of keys.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file of the sources of [`SUITES`].
const SOURCES: &str = "sources.list";

/// The sources of all suites, from the mirrors that this machine takes Debian's packages from.
fn sources(arch: Arch) -> Result<String> {
    let format = "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)";
    let mut cmd = Command::new("apt-get");
    let targets = output(cmd.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let keys = Path::new(KEYS).exists().then_some(KEYS);
    let text = sources_from(&targets, arch, keys);
    if text.is_empty() {
        bail!("this machine's apt knows no archive of Debian's");
    }
    Ok(text)
}

/// The sources by the text of `apt-get indextargets`: origin, label, address.
fn sources_from(targets: &str, arch: Arch, keys: Option<&str>) -> String {
    let mut text = String::new();
    let keys = keys.map(|keys| format!(" signed-by={keys}")).unwrap_or_default();
    for (label, suites) in [("Debian", &SUITES[..]), ("Debian-Security", &SECURITY_SUITES)] {
        let fields = targets.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let mut mirrors = fields.filter(|fields| fields.len() == 3 && fields[..2] == ["Debian", label]);
        let Some(mirror) = mirrors.next() else { continue };
        for suite in suites {
            writeln!(text, "deb [arch={}{keys}] {} {suite} main", arch.debian(), mirror[2])
                .expect("a String takes all");
        }
    }
    text
}

/// Fetches the package lists.
///
/// # Errors
/// apt-get fails.
pub(crate) fn update() -> Result<()> {
    say("fetching the package lists: apt-get update");
    run(apt_get().args(["update", "-qq"]))
}

fn apt_get() -> Command {
    let mut cmd = as_root("env");
    // Another apt may be at work: wait for its lock rather than fail.
    cmd.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    cmd
}

fn have_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|mut dir| {
        dir.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().contains("_Packages")))
    })
}

/// Whether the text of `apt-cache policy` names a version that can be installed.
fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .any(|version| version.trim() != "(none)")
}

/// The packages that a simulated `apt-get install` would add.
fn parse_plan(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// The sizes in the text of `apt-cache show`, KiB.
fn parse_sizes(text: &str) -> Vec<u64> {
    let sizes = text.lines().filter_map(|line| line.strip_prefix("Installed-Size: "));
    sizes.filter_map(|size| size.trim().parse().ok()).collect()
}

/// The packages in the text of `apt-cache depends`.
fn parse_depends(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends:"));
    names.map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_resolves_to_its_depends() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: x\n";
        assert_eq!(parse_depends(text), ["linux-image-6.1.0-56-cloud-amd64"]);
    }

    #[test]
    fn suites_come_from_the_machines_own_mirrors() {
        let targets = "Other\tDebian\thttp://x/\nDebian\tDebian\thttp://a/debian/\n\
                       Debian\tDebian-Security\thttp://a/debian-security/\n";
        let text = sources_from(targets, Arch::X86_64, Some("/k.gpg"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "deb [arch=amd64 signed-by=/k.gpg] http://a/debian/ bullseye main");
        assert_eq!(
            lines[6..],
            ["deb [arch=amd64 signed-by=/k.gpg] http://a/debian-security/ bullseye-security main"]
        );
        assert_eq!(sources_from("Ubuntu\tUbuntu\thttp://u/\n", Arch::X86_64, None), "");
    }

    #[test]
    fn a_plan_names_what_is_added_and_not_what_goes() {
        let text = "Remv qemu-utils [1:10.0.2]\nInst libfdt1 (1.6.1-4 Debian:12.0 [amd64])\nConf libfdt1 (1.6.1-4)\n";
        assert_eq!(parse_plan(text), ["libfdt1"]);
    }

    #[test]
    fn sizes_are_of_what_is_installed() {
        let text = "Package: libelf1\nInstalled-Size: 201\nSize: 174000\n\nPackage: x\nInstalled-Size: 99\n";
        assert_eq!(parse_sizes(text), [201, 99]);
    }

    #[test]
    fn headers_are_of_the_flavour_and_of_all() {
        assert_eq!(
            headers("6.1.0-56-cloud-amd64"),
            ["linux-headers-6.1.0-56-cloud-amd64", "linux-headers-6.1.0-56-common"]
        );
    }

    #[test]
    fn a_candidate_is_a_version() {
        assert!(has_candidate("xz-utils:\n  Installed: (none)\n  Candidate: 5.4.1-1\n"));
        assert!(!has_candidate("virtual:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
