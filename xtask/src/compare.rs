//! `cargo xtask compare`: BCC's tool and netbcc's at the same time on the same traffic, row by row.
//!
//! Both run in one guest with Debian's 6.1, where BCC works: its Python, its compiler and the kernel's headers are
//! unpacked into a file system of their own that the guest mounts. Whatever differs and is not in [`known`] fails.

mod disk;
mod guest;
mod known;
mod rows;
mod subjects;
mod traffic;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::guest::beside;
use self::rows::{Compared, compare_rows};
use self::subjects::{SUBJECTS, Subject};
use crate::kernels::Line;
use crate::shell::{say, target};
use crate::vm::Guest;
use crate::{build, setup};

/// Compares and prints.
///
/// # Errors
/// A tool that is not covered, or set-up, the build or the guest fails.
pub(crate) fn compare(args: &[OsString]) -> Result<ExitCode> {
    let subjects = chosen(args)?;
    setup::satisfy(&[setup::BUILD, &setup::guests(&[Line::V6_1])].concat())?;
    let kernel = Line::V6_1.find().context("the kernel was there a moment ago")?;
    let disk = disk::make(&kernel.release)?;
    let binary = build::dist()?;
    let mut script = guest::MOUNT.to_owned();
    for subject in &subjects {
        script.push_str("/bin/load beside ");
        script.push_str(subject.tool);
        script.push_str(" || exit 1\n");
    }
    say("running both in a guest; BCC takes a minute there to start");
    let guest = Guest {
        name: format!("compare-{}", std::process::id()),
        kernel: &kernel,
        memory: 2048,
        smp: 1,
        icount: false,
        disk: Some(disk),
        files: vec![
            (binary, "/bin/netbcc".to_owned()),
            (std::env::current_exe().context("this program")?, "/bin/load".to_owned()),
        ],
        script,
        timeout: Duration::from_mins(5 + 5 * subjects.len() as u64),
    };
    let outcome = guest.run(|line| {
        if let Some(note) = line.strip_prefix(guest::NOTE) {
            say(note);
        }
    })?;
    if outcome.exit_code != 0 {
        bail!("the guest's part failed:\n{}", outcome.output);
    }
    fs::remove_dir_all(target().join("vm").join(&guest.name))?;
    let mut good = true;
    for subject in &subjects {
        let lines = |whose: &str| -> Vec<&str> {
            let prefix = format!("{}/{whose}|", subject.tool);
            outcome.output.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
        };
        let compared = compare_rows(subject, &lines(guest::BCC), &lines(guest::OURS));
        good &= compared.problems.is_empty();
        print(subject, &compared);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tools that the command line names, or all that are covered.
fn chosen(args: &[OsString]) -> Result<Vec<&'static Subject>> {
    let find = |name: &OsString| SUBJECTS.iter().find(|subject| name.to_str() == Some(subject.tool));
    if args.is_empty() {
        return Ok(SUBJECTS.iter().collect());
    }
    let covered: Vec<&str> = SUBJECTS.iter().map(|subject| subject.tool).collect();
    args.iter()
        .map(|name| {
            find(name).with_context(|| {
                format!("compare does not cover {}; it covers {}", name.to_string_lossy(), covered.join(", "))
            })
        })
        .collect()
}

fn print(subject: &Subject, compared: &Compared) {
    let verdict = match compared.problems.len() {
        0 => "the same".to_owned(),
        many => format!("{many} differences that are not known"),
    };
    println!(
        "{} {}: {} rows of BCC, {} of netbcc: {verdict}",
        subject.tool,
        subject.args.join(" "),
        compared.bcc,
        compared.ours
    );
    for (reason, times) in &compared.known {
        println!("  known, {times} times: {reason}");
    }
    for problem in &compared.problems {
        println!("  {problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_covered_is_refused_by_name() {
        let error = chosen(&["tcpconnect".into(), "ping".into()]).err().expect("ping is none of them");
        assert!(error.to_string().starts_with("compare does not cover ping; it covers tcpconnect, "));
        assert_eq!(chosen(&[]).expect("all").len(), SUBJECTS.len());
        assert_eq!(chosen(&["tcpaccept".into()]).expect("is covered")[0].tool, "tcpaccept");
    }
}
