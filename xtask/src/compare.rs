//! `cargo xtask compare`: BCC's tool, libbpf-tools' and netbcc's at the same time on the same traffic.
//!
//! All run in one guest with Debian's 6.1, where BCC works: its Python, its compiler and the kernel's headers are
//! unpacked into a file system of their own that the guest mounts. With BCC bytes are compared, with libbpf-tools, whose
//! columns are others, what both say of an event. Whatever differs and is not in [`known`] fails.

pub(crate) mod disk;
mod guest;
mod known;
mod libbpf;
mod rows;
mod subjects;
mod sums;
mod traffic;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::guest::beside;
use self::known::Peer;
use self::libbpf::compare_libbpf;
use self::rows::{Compared, compare_rows};
use self::subjects::{Form, SUBJECTS, Subject};
use self::sums::compare_sums;
use crate::kernels::Line;
use crate::shell::{say, target};
use crate::vm::Guest;
use crate::{build, peers, setup};

/// What the tools printed in the last run, below `target/`.
const PRINTED: &str = "compare.txt";

/// Compares and prints.
///
/// # Errors
/// A tool that is not covered, or set-up, the build or the guest fails.
pub(crate) fn compare(args: &[OsString]) -> Result<ExitCode> {
    let subjects = chosen(args)?;
    setup::satisfy(&[setup::BUILD, &setup::guests(&[Line::V6_1])].concat())?;
    let kernel = Line::V6_1.find().context("the kernel was there a moment ago")?;
    let disk = disk::make(&kernel.release)?;
    if let Err(why) = peers::fetch() {
        say(&format!("without {}: {why:#}", peers::PACKAGE));
    }
    let binary = build::dist()?;
    let mut script = disk::MOUNT.to_owned();
    for subject in &subjects {
        script.push_str("/bin/load beside ");
        script.push_str(subject.tool);
        script.push('\n');
    }
    say("running all in a guest; BCC takes a minute there to start");
    let with_libbpf = subjects.iter().filter(|subject| subject.libbpf.is_some()).map(|subject| subject.tool);
    let mut files = vec![
        (binary, "/bin/netbcc".to_owned()),
        (std::env::current_exe().context("this program")?, "/bin/load".to_owned()),
    ];
    files.extend(peers::files(&with_libbpf.collect::<Vec<_>>()));
    let guest = Guest {
        name: format!("compare-{}", std::process::id()),
        kernel: &kernel,
        memory: 2048,
        smp: 1,
        icount: false,
        panic_on_warn: false,
        disk: Some(disk),
        files,
        script,
        timeout: Duration::from_mins(10 + 5 * subjects.len() as u64),
    };
    let outcome = guest.run(|line| {
        if let Some(note) = line.strip_prefix(guest::NOTE) {
            say(note);
        }
    })?;
    fs::write(target().join(PRINTED), &outcome.output).with_context(|| format!("write target/{PRINTED}"))?;
    if outcome.exit_code != 0 {
        bail!("the guest's part failed:\n{}", outcome.output);
    }
    fs::remove_dir_all(target().join("vm").join(&guest.name))?;
    let mut good = true;
    for subject in &subjects {
        good &= verdict(subject, &outcome.output);
    }
    say(&format!("what each of them printed is in target/{PRINTED}"));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how the tools of one name compare, from all that the guest printed; answers whether nothing is unknown.
fn verdict(subject: &Subject, printed: &str) -> bool {
    let lines = |whose: &str| -> Vec<&str> {
        let prefix = format!("{}/{whose}|", subject.tool);
        printed.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
    };
    let failed = lines(guest::FAILED);
    if !failed.is_empty() {
        println!("{}: it came to nothing: {}", subject.tool, failed.join("\n  "));
        return false;
    }
    let (bcc, ours) = (lines(guest::BCC), lines(guest::OURS));
    // What netbcc prints around its rows is looked at all the same.
    let theirs = if subject.without_bcc.is_some() { &ours } else { &bcc };
    let compared = match &subject.form {
        Form::Rows => compare_rows(subject, theirs, &ours, &lines(guest::KERNEL)),
        Form::Sums(sums) => compare_sums(subject, sums, theirs, &ours),
    };
    let mut good = compared.problems.is_empty();
    match subject.without_bcc {
        Some(why) if good => println!("{}: without BCC: {why}", subject.tool),
        _ => print(subject, Peer::Bcc, &compared),
    }
    if let Some(libbpf) = &subject.libbpf {
        let theirs = lines(guest::LIBBPF);
        if theirs.is_empty() {
            println!("{}: libbpf-tools was not there", subject.tool);
        } else {
            let compared = compare_libbpf(subject, libbpf, &theirs, &ours);
            print(subject, Peer::Libbpf, &compared);
            good &= compared.problems.is_empty();
        }
    }
    good
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

fn print(subject: &Subject, peer: Peer, compared: &Compared) {
    let verdict = match compared.problems.len() {
        0 => "the same".to_owned(),
        many => format!("{many} differences that are not known"),
    };
    println!(
        "{} {}: {} rows of {}, {} of netbcc: {verdict}",
        subject.tool,
        subject.args.join(" "),
        compared.theirs,
        peer.name(),
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
