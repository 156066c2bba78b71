//! The package and the tarball in a guest: what a person does with them, as tests that are counted like all others.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Made, VERSION};
use crate::kernels::Line;
use crate::shell::{find_program, output};
use crate::vm::Guest;

const SCRIPT: &str = include_str!("guest-package.sh");

/// The script's functions, in the order in which they run.
const CHECKS: [&str; 8] = [
    "installs_in_silence",
    "every_file_is_whole",
    "only_the_group_runs_it",
    "a_member_of_the_group_sees_a_row",
    "over_itself_it_keeps_its_power_and_its_group",
    "is_removed_without_a_trace",
    "without_setcap_it_says_so",
    "the_tarball_works_below_any_prefix",
];

/// Programs of this machine that dpkg and the package's script call; the others are busybox's.
const PROGRAMS: [&str; 10] = [
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-split",
    "dpkg-statoverride",
    "dpkg-trigger",
    "getent",
    "groupadd",
    "setcap",
    "tar",
];

/// Whether a filter leaves any of the checks. They build on each other, so one of them means all.
pub(crate) fn wanted(filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| CHECKS.iter().any(|check| format!("package::{check}").contains(filter)))
}

/// Runs the checks in a guest; answers their exit code.
///
/// # Errors
/// A program is missing here, or the guest fails.
pub(crate) fn check(made: &Made, line: Line, on_line: impl FnMut(&str)) -> Result<u8> {
    let kernel = line.find().context("the kernel was there a moment ago")?;
    let list = output(Command::new(&made.binary).arg("--list"))?;
    let tools: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut files = vec![
        (made.deb.clone(), "/package.deb".to_owned()),
        (made.tarball.clone(), "/package.tar.gz".to_owned()),
    ];
    for name in PROGRAMS {
        files.push((
            find_program(name).with_context(|| format!("no {name} here"))?,
            format!("/usr/sbin/{name}"),
        ));
    }
    // dpkg insists on it. It is a program of its own on some machines and a script around one on others.
    let ldconfig: PathBuf =
        find_program("ldconfig.real").or_else(|| find_program("ldconfig")).context("no ldconfig here")?;
    files.push((ldconfig, "/usr/sbin/ldconfig".to_owned()));
    let guest = Guest {
        name: format!("package-{line}"),
        kernel: &kernel,
        memory: 1024,
        smp: 1,
        icount: false,
        panic_on_warn: false,
        disk: None,
        files,
        script: format!(
            "VERSION={VERSION}\nTOOLS='{}'\nCHECKS='{}'\n{SCRIPT}",
            tools.join(" "),
            CHECKS.join(" ")
        ),
        timeout: Duration::from_mins(10),
    };
    Ok(guest.run(on_line)?.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_each_check() {
        for check in CHECKS {
            assert!(SCRIPT.contains(&format!("\n{check}() {{\n")), "{check}");
        }
        assert!(
            wanted(None) && wanted(Some("package")) && wanted(Some("removed")) && !wanted(Some("tcplife"))
        );
    }
}
