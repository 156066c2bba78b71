//! `cargo xtask`: the project's own commands. One file per concern; this one knows the verbs.
//!
//! Start reading at [`verb`]. `setup` decides what the machine lacks, `kernels` + `initramfs` + `vm` make and run a
//! guest, `test` strings the tiers together and `report` counts them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: it prints, unlike netbcc's library"
)]

mod apt;
mod arch;
mod bench;
mod build;
mod compare;
mod cpio;
mod dist;
mod elf;
mod fuzz;
mod initramfs;
mod kernels;
mod load;
mod matrix;
mod modules;
mod otlp;
mod peers;
mod report;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
netbcc's own commands. Each first installs what the machine lacks for it.

cargo xtask run [--] TOOL ARGS...            build, then run one tool (through sudo when not root)
cargo xtask build [--arch aarch64]           the release binary: one static file, target/dist/netbcc (for another
                                             architecture: netbcc-aarch64)
cargo xtask dist [--arch aarch64] [--check]  the Debian package, a tarball, SPDX, checksums, all in target/dist;
                                             --check builds once more in a clone elsewhere and compares all bytes
cargo xtask test [FILTER] [--all|--smoke] [--kernels LIST|all] [--quick|--no-vm|--no-here] [--arm64[=all]] [--scatter]
                 [--fuzz-seconds N]
                                             all tiers: format, lints, unit, golden, command line, this machine's
                                             kernel, and QEMU guests with Debian's 6.1 and 6.12 kernels, with the fuzz
                                             targets beside them for N (10) seconds each; --kernels: guests with these
                                             kernels of Debian's instead (5.10, 6.1-rt, 7.3 and others). Without FILTER
                                             6.1 and 6.12 run all checks of some ways to attach and the first ones of
                                             the others, other kernels each tool's plainest rows. --smoke: only
                                             these, everywhere; --all: every check of every way on every kernel that
                                             Debian has (hours), and the table in docs/kernels.md, which --kernels all
                                             writes, too. --no-here: nothing but the guests. --arm64 adds guests with
                                             Debian's arm64 kernels and each tool's plainest rows (=all: everything);
                                             --scatter receives the tests' packets on whichever processor their
                                             addresses say
cargo xtask lint                             what of it reads the source only: format and lints; and whether the fuzz
                                             targets compile
cargo xtask fuzz [TARGET] [--seconds N]      one fuzz target, or each, for N (60) seconds
cargo xtask vm --kernel K [--arch aarch64] [--icount] [--timeout SECONDS] [-- COMMAND...]
                                             a shell in a guest with kernel K (6.1, 5.10-rt, 7.3, ...), or one command
                                             and its exit code; a COMMAND of one word is a shell line:
                                             -- 'uname -r; ip link'; --icount: one processor, and the guest's clock
                                             counts instructions (ns)
cargo xtask bench [--bcc] [TOOL...]          what the tools cost, beside libbpf-tools (and BCC, which is slow); all of
                                             them: BENCHMARKS.md and docs/cost.svg
cargo xtask compare [TOOL...]                BCC's tool, libbpf-tools' and netbcc's at once on the same traffic in a
                                             guest: what differs and is not known to fails
";

fn main() -> ExitCode {
    match verb(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The lines of the help about one verb; all of it, if it has none of its own.
fn help_of(verb: &str) -> String {
    let starts = format!("cargo xtask {verb} ");
    let mut lines = HELP.lines().skip_while(|line| !line.starts_with(&starts));
    let first = lines.next();
    let more = lines.take_while(|line| line.starts_with(' '));
    let text: String = first.into_iter().chain(more).flat_map(|line| [line, "\n"]).collect();
    if text.is_empty() { HELP.to_owned() } else { text }
}

/// Runs the verb that the arguments name.
fn verb(mut args: Vec<OsString>) -> Result<ExitCode> {
    if args.is_empty() {
        eprint!("{HELP}");
        return Ok(ExitCode::from(2));
    }
    let name = args.remove(0);
    // Before the first `--`: what comes behind it is another program's.
    let own = args.iter().take_while(|arg| *arg != "--");
    if name != "run" && own.into_iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", help_of(name.to_str().unwrap_or_default()));
        return Ok(ExitCode::SUCCESS);
    }
    match name.to_str() {
        Some("run") => run::run(args),
        Some("build") => build::build(&args),
        Some("dist") => dist::dist(&args),
        Some("test") => test::test(&test::Options::parse(&args)?),
        Some("lint") if args.is_empty() => test::lint(),
        Some("fuzz") => fuzz::fuzz(&args),
        Some("bench") => bench::bench(&args),
        Some("compare") => compare::compare(&args),
        // Inside the guests of the benchmark and of the comparison.
        Some(inside @ ("load" | "beside")) => {
            let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
            if inside == "load" { load::load(&words) } else { compare::beside(&words) }?;
            Ok(ExitCode::SUCCESS)
        }
        Some("vm") => vm::vm(&vm::Options::parse(args)?),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("no such command, or too many arguments: {}\n\n{HELP}", name.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_own_lines_of_the_help() {
        for verb in ["run", "build", "dist", "test", "lint", "fuzz", "vm", "bench", "compare"] {
            let help = help_of(verb);
            assert!(help.starts_with(&format!("cargo xtask {verb} ")), "{help}");
            assert_eq!(help.matches("cargo xtask").count(), 1, "{help}");
        }
        assert_eq!(help_of("frobnicate"), HELP);
        assert_eq!(verb(vec!["test".into(), "--help".into()]).expect("an answer"), ExitCode::SUCCESS);
    }
}
