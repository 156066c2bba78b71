//! The kernels that guests run: Debian's cloud kernels, resolved from their meta packages (a versioned package is
//! gone from the archive within months), unpacked below `target/kernels/` and never installed.

use std::cmp;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;

use anyhow::{Context as _, Result, bail};

use crate::apt::Archive;
use crate::arch::Arch;
use crate::shell::{run, say, target};

/// A line of kernels that guests can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The first two numbers of its versions, and `-rt` for the preemptible one or how it is set up.
    name: &'static str,
    /// What it runs on.
    pub(crate) arch: Arch,
}

/// The lines that a run of the tests has without `--kernels`, of this machine's architecture, oldest first: Debian 12's,
/// and Debian 13's, which Debian 12 has as a backport.
pub(crate) const LINES: [Line; 2] = [Line::V6_1, Line::V6_12];

/// Every line that [`Line::parse`] knows, oldest first. The `-rt` ones are preemptible everywhere (PREEMPT_RT); the last
/// ones are of a kernel that its owner set up as few do.
const NAMES: [&str; 17] = [
    "5.10",
    "5.10-rt",
    "6.1",
    "6.1-rt",
    "6.12",
    "6.12-rt",
    "6.16",
    "6.17",
    "6.18",
    "7.2",
    "7.3",
    "7.3-rt",
    "7.3-lockdown",
    "7.3-nojit",
    "7.3-lockdown-nojit",
    "7.3-noipv6",
    "7.3-nosymbols",
];

/// The kernels that are proved on arm64.
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
    /// What its command line says besides.
    pub(crate) setting: &'static str,
}

impl Line {
    /// Debian 12's, for this machine's architecture.
    pub(crate) const V6_1: Self = Self { name: "6.1", arch: Arch::HERE };
    /// Debian 13's, for this machine's architecture.
    pub(crate) const V6_12: Self = Self { name: "6.12", arch: Arch::HERE };

    /// The line of this machine's architecture that the text names.
    ///
    /// # Errors
    /// The text names no line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let name = NAMES.into_iter().find(|name| *name == text);
        let name = name.with_context(|| format!("no kernel {text}: there are {}", NAMES.join(", ")))?;
        Ok(Self { name, arch: Arch::HERE })
    }

    /// The lines that a list names: names with commas between them, or `all`.
    ///
    /// # Errors
    /// A word names no line.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>> {
        if text == "all" {
            return Ok(Self::all());
        }
        text.split(',').map(|name| Self::parse(name.trim())).collect()
    }

    /// This line, for another architecture.
    pub(crate) const fn on(self, arch: Arch) -> Self {
        Self { name: self.name, arch }
    }

    /// What the attach ladder must offer on Debian's kernel of this line: there a missing rung is a failure, not a skip.
    pub(crate) fn rungs(self) -> &'static str {
        match (self.name, self.arch) {
            // arm64 got direct calls from ftrace, which fentry and fexit are made of, with 6.4.
            ("6.1", Arch::Aarch64) => "kprobe,tracepoint,raw_tp,uprobe",
            // Programs before 5.11 have no storage per socket, which most tools' other rungs need.
            ("5.10" | "5.10-rt", _) => "kprobe,uprobe",
            // What reads memory by a helper is forbidden: every program of a kprobe, and a few others.
            ("7.3-lockdown" | "7.3-lockdown-nojit", _) => "fexit",
            _ => "fexit,kprobe,tracepoint,raw_tp,uprobe",
        }
    }

    /// The lists of checks that run whole in this line's guest when the run is not of all: every rung has one kernel on
    /// which all of its checks run, and so has every program of a rung that only one of the kernels loads. All of `netbcc`,
    /// which does not depend on kernels, runs on this machine's only. A list with a minus does not run at all: what takes
    /// long and says on one of two guests what it says on the other.
    pub(crate) fn part(self) -> &'static str {
        match self.name {
            // Tools have other programs of tracepoints than on newer kernels where tcpretrans, tcpsubnet, tcptop and tcpwhy
            // are named, and other fexit programs where inet_listen is one function, and sendfile another call.
            "6.1" => {
                "-doctor,kprobe,raw_tp,uprobe,tcpretrans::tracepoint,tcpsubnet::tracepoint,tcptop::tracepoint,\
                 tcpreset::tracepoint,tcpwhy::tracepoint,solisten::fexit,tcpreset::fexit,tcpsubnet::fexit,\
                 tcptop::fexit"
            }
            // Its inet_listen is two functions, and what tells of resets has a reason.
            "6.12" => "fexit,solisten::kprobe,tcpreset::kprobe",
            _ => "",
        }
    }

    /// The numbers alone.
    fn series(self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Whether it is the preemptible one.
    fn is_rt(self) -> bool {
        self.name.ends_with("-rt")
    }

    /// Every line that `--kernels` knows.
    pub(crate) fn all() -> Vec<Self> {
        NAMES.map(|name| Self { name, arch: Arch::HERE }).to_vec()
    }

    /// What the command line of its kernel says besides.
    fn setting(self) -> &'static str {
        match self.name.split_once('-').map(|(_, setting)| setting) {
            Some("lockdown") => "lockdown=confidentiality",
            Some("lockdown-nojit") => "lockdown=confidentiality sysctl.net.core.bpf_jit_enable=0",
            Some("nojit") => "sysctl.net.core.bpf_jit_enable=0",
            Some("noipv6") => "ipv6.disable=1",
            Some("nosymbols") => "sysctl.kernel.kptr_restrict=2",
            _ => "",
        }
    }

    /// What the names of its packages end with: the kernel for virtual machines, or the preemptible one.
    fn flavour(self) -> String {
        let flavour = if self.is_rt() { "rt" } else { "cloud" };
        format!("-{flavour}-{}", self.arch.debian())
    }

    /// The packages that may stand for the newest kernel of this line; which one does depends on the release of Debian.
    fn meta_packages(self) -> [String; 2] {
        let (series, flavour) = (self.series(), self.flavour());
        [format!("linux-image-{series}{flavour}"), format!("linux-image{flavour}")]
    }

    /// The kernel of this line, if it was downloaded.
    pub(crate) fn find(self) -> Option<Kernel> {
        let kernel = Kernel::in_folder(&self.folder(), self.arch).ok()?;
        Some(Kernel { setting: self.setting(), ..kernel })
    }

    /// Downloads the kernel of this line: the machine's own release of Debian has it, or another suite.
    ///
    /// # Errors
    /// No suite has such a kernel any more, or the download or the unpacking fails.
    pub(crate) fn fetch(self) -> Result<()> {
        let here = Archive::of(self.arch);
        let why = match self.resolve(here) {
            Ok(package) => return self.download(here, &[&package]),
            Err(why) => why,
        };
        let suites = Archive::of_all_suites(self.arch);
        let images = newest_first(self, suites.names(&format!("linux-image-{}.", self.series())));
        let mut looked = vec![format!("{why:#}")];
        // The lists may name kernels whose files are gone.
        for image in images.iter().take(6) {
            // From 6.19 on the image's package has nothing but these.
            let release = image.trim_start_matches("linux-image-");
            let mut packages = suites.depends(image)?;
            packages.retain(|name| {
                ["linux-binary-", "linux-modules-"]
                    .iter()
                    .any(|kind| name.strip_prefix(kind) == Some(release))
            });
            packages.push(image.clone());
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            match self.download(suites, &packages) {
                Ok(()) => return Ok(()),
                // apt has said why: its command line is long, and says nothing.
                Err(_) => looked.push(format!("{image} cannot be downloaded")),
            }
        }
        bail!("no package of a {self} kernel can be had: {}", looked.join("; "))
    }

    fn download(self, archive: Archive, packages: &[&str]) -> Result<()> {
        say(&format!(
            "downloading {}: the guest with kernel {self} boots it (nothing is installed)",
            packages.join(", ")
        ));
        let folder = self.folder();
        let part = folder.with_extension("part");
        for old in [&part, &folder] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        let debs = part.join("debs");
        fs::create_dir_all(&debs)?;
        archive.download(packages, &debs)?;
        for deb in fs::read_dir(&debs)? {
            run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&part))?;
        }
        fs::remove_dir_all(&debs)?;
        slim(&Kernel::in_folder(&part, self.arch)?.modules.join("kernel"))?;
        fs::rename(&part, &folder).context("move the unpacked kernel into place")
    }

    /// Lines that differ in how they are set up have one kernel.
    fn folder(self) -> PathBuf {
        let name = if self.setting().is_empty() { self.name } else { self.series() };
        target().join("kernels").join(Self { name, ..self }.folder_name())
    }

    /// A name without a dot, so that `with_extension` adds one.
    pub(crate) fn folder_name(self) -> String {
        self.to_string().replace(['.', ' '], "-")
    }

    fn resolve(self, archive: Archive) -> Result<String> {
        let mut looked = Vec::new();
        for meta in self.meta_packages() {
            match archive.depends(&meta) {
                Ok(names) => match pick(self, &names) {
                    Some(name) => return Ok(name.to_owned()),
                    None => looked.push(format!("{meta} is now {}", names.join(", "))),
                },
                Err(why) => looked.push(why.to_string()),
            }
        }
        bail!("this machine's own release: {}", looked.join("; "))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.arch == Arch::HERE { Ok(()) } else { write!(f, " {}", self.arch.debian()) }
    }
}

impl Kernel {
    fn in_folder(folder: &Path, arch: Arch) -> Result<Self> {
        let roots = ["lib/modules", "usr/lib/modules"].map(|root| folder.join(root));
        let root = roots.iter().find(|dir| dir.is_dir()).context("the package has no modules")?;
        let modules = one(root, |_| true)?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // From 6.19 on the image lies beside its modules.
        let images = [folder.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|file| file.is_file()).context("the package has no image")?;
        Ok(Self { arch, release, image, modules, setting: "" })
    }
}

/// Removes drivers that no guest has a use for: all but those of networks. Of a kernel for real machines that is most.
fn slim(modules: &Path) -> Result<()> {
    let mut useless = vec![modules.join("sound")];
    let drivers = modules.join("drivers");
    if drivers.is_dir() {
        for driver in fs::read_dir(&drivers).with_context(|| format!("read {}", drivers.display()))? {
            useless.push(driver?.path());
        }
    }
    for dir in useless.iter().filter(|dir| dir.is_dir() && !dir.ends_with("drivers/net")) {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// The package among a meta package's dependencies that is a kernel of this line.
fn pick(line: Line, names: &[String]) -> Option<&str> {
    let prefix = format!("linux-image-{}.", line.series());
    names.iter().map(String::as_str).find(|name| name.starts_with(&prefix))
}

/// The images of a line's flavour, newest first: by all the numbers of their names.
fn newest_first(line: Line, mut names: Vec<String>) -> Vec<String> {
    let numbers = |name: &String| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    names.retain(|name| pick(line, slice::from_ref(name)).is_some() && name.ends_with(&line.flavour()));
    names.sort_by_key(|name| cmp::Reverse(numbers(name)));
    names
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
    fn the_newest_kernel_of_a_line_is_the_highest_in_all_numbers() {
        let names = [
            "linux-image-6.12.90+deb12-rt-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-rt-amd64",
            "linux-image-6.12.117+deb13-rt-amd64-unsigned",
            "linux-image-6.1.0-50-rt-amd64",
        ];
        let line = Line { name: "6.12-rt", arch: Arch::X86_64 };
        let newest = newest_first(line, names.map(str::to_owned).to_vec());
        assert_eq!(newest, ["linux-image-6.12.117+deb13-rt-amd64", "linux-image-6.12.90+deb12-rt-amd64"]);
    }

    /// The table of what the verifier did says which kernel loads which program, by which way of which tool.
    #[test]
    fn every_program_has_a_kernel_on_which_all_checks_run() {
        let table = include_str!("../../tests/fixtures/verifier.txt");
        let programs: Vec<[&str; 4]> = table
            .lines()
            .filter_map(|line| line.split(' ').take(4).collect::<Vec<_>>().try_into().ok())
            .filter(|program: &[&str; 4]| program[0] != "#")
            .collect();
        assert!(programs.len() > 100, "the table has another form");
        // Its checks name no way: each kernel has its own by itself, and the others are only loaded.
        for [_, tool, rung, program] in programs.iter().filter(|program| program[1] != "tcpdrop") {
            let is_whole = |series: &str| {
                // Where there is no guest, the tests themselves run, and all of them.
                let Some(line) = LINES.iter().find(|line| line.name == series) else { return true };
                let of_tool = format!("{tool}::{rung}");
                line.part().split(',').any(|word| word == *rung || word == of_tool)
            };
            let with_it = |other: &&[&str; 4]| other[1..] == [*tool, *rung, *program];
            let found = programs.iter().filter(with_it).any(|other| is_whole(other[0]));
            assert!(found, "{tool} {rung} {program}: no kernel's part has the checks of it");
        }
    }

    #[test]
    fn lines_are_named_as_people_name_them() {
        assert_eq!(Line::parse("6.12").ok(), Some(Line::V6_12));
        assert_eq!(Line::parse("7.3-rt").expect("it is one").to_string(), "7.3-rt");
        assert_eq!(Line::parse_list("all").expect("all").len(), NAMES.len());
        assert_eq!(Line::parse_list("6.1, 6.12").ok(), Some(LINES.to_vec()));
        assert!(Line::parse_list("6.1,x").is_err());
        assert!(Line::parse("5.10").is_ok_and(|line| !LINES.contains(&line)));
        assert!(Line::parse("5.4").is_err());
        assert_eq!(Line::V6_12.to_string(), "6.12");
        let set_up = Line::parse("7.3-lockdown").expect("it is one");
        assert_eq!(set_up.folder(), Line::parse("7.3").expect("it is one").folder());
        assert_eq!(
            (set_up.setting(), set_up.folder_name().as_str()),
            ("lockdown=confidentiality", "7-3-lockdown")
        );
        if Arch::HERE != Arch::Aarch64 {
            assert_eq!(ARM64[0].folder_name(), "6-1-arm64");
            assert_eq!(ARM64[1].to_string(), "6.12 arm64");
        }
    }
}
