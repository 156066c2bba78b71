//! Debian's and Ubuntu's packages: installing some, downloading one, asking what a meta package stands for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::on_path;

use crate::shell::{as_root, find_program, is_root, output, run, say};

/// Whether this machine installs packages with apt and we may do it.
pub(crate) fn usable() -> bool {
    on_path("apt-get").is_some()
        && on_path("dpkg-deb").is_some()
        && (is_root() || find_program("sudo").is_some())
}

/// Whether the archive offers a package. Lists that do not name it may be old: they are fetched, once per run.
pub(crate) fn offers(package: &str) -> bool {
    static FRESH: OnceLock<bool> = OnceLock::new();
    candidate(package) || (*FRESH.get_or_init(|| update().is_ok()) && candidate(package))
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
    if !have_lists() || !packages.iter().all(|package| candidate(package)) {
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

/// What a meta package depends on today.
///
/// # Errors
/// The archive does not have it.
pub(crate) fn depends(meta: &str) -> Result<Vec<String>> {
    if !offers(meta) {
        bail!("this machine's package lists have no {meta}");
    }
    let text = output(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    Ok(parse_depends(&text))
}

/// Downloads the newest .deb of a package into the folder `into`, without installing it.
///
/// # Errors
/// apt-get fails also after an update of its lists.
pub(crate) fn download(package: &str, into: &Path) -> Result<()> {
    download_all(&[package], into)
}

fn download_all(packages: &[&str], into: &Path) -> Result<()> {
    let download = || {
        run(Command::new("apt-get")
            .args(["-o", "APT::Sandbox::User=root", "download", "-qq"])
            .args(packages)
            .current_dir(into))
    };
    if download().is_ok() {
        return Ok(());
    }
    update()?;
    download()
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
    unpack_all(&plan(package, &[])?, into)
}

/// Unpacks a package below the folder `into` with every package it needs, down to the C library, and with the packages
/// `besides`, without what those need.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpack_whole(package: &str, besides: &[String], into: &Path) -> Result<()> {
    unpack_all(&whole(package, besides)?, into)
}

/// How many packages this one is with every package it needs, down to the C library, and those `besides`, and their bytes
/// once they are installed.
///
/// # Errors
/// The archive does not have them.
pub(crate) fn installed_size(package: &str, besides: &[String]) -> Result<(usize, u64)> {
    let packages = whole(package, besides)?;
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

/// A package with every package it needs, as if nothing were installed, and those `besides`, without what those need.
fn whole(package: &str, besides: &[String]) -> Result<Vec<String>> {
    if let Some(missing) =
        [package].into_iter().chain(besides.iter().map(String::as_str)).find(|p| !offers(p))
    {
        bail!("this machine's package lists have no {missing}");
    }
    let mut packages = plan(package, &["-o", "Dir::State::status=/dev/null"])?;
    packages.extend(besides.iter().cloned());
    Ok(packages)
}

/// The packages that installing this one would add.
fn plan(package: &str, options: &[&str]) -> Result<Vec<String>> {
    let mut cmd = Command::new("apt-get");
    cmd.args(["install", "--simulate", "--yes", "--no-install-recommends"]).args(options).arg(package);
    Ok(parse_plan(&output(&mut cmd)?))
}

fn unpack_all(packages: &[String], into: &Path) -> Result<()> {
    let part = into.with_extension("part");
    for old in [part.as_path(), into] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let debs = part.join("debs");
    fs::create_dir_all(&debs)?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    download_all(&names, &debs)?;
    for deb in fs::read_dir(&debs)? {
        run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&part))?;
    }
    fs::remove_dir_all(&debs)?;
    fs::rename(&part, into).context("move what was unpacked into place")
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

fn candidate(package: &str) -> bool {
    output(Command::new("apt-cache").args(["policy", package])).is_ok_and(|text| has_candidate(&text))
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
