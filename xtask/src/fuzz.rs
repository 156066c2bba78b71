//! `cargo xtask fuzz`: every fuzz target of `tests/fuzz` for a bounded time.
//!
//! The targets are built by cargo-fuzz, and run as the programs that they are, one after the other on one processor.
//! What a run finds stays in `target/fuzz`: inputs that lead somewhere new in `corpus`, those that crash in `artifacts`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup::{self, satisfy};
use crate::shell::{cargo, output, run, say, target, workspace};

/// How long each target runs, unless the command line says otherwise.
const SECONDS: u32 = 60;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// Only this one.
    target: Option<String>,
    seconds: u32,
}

impl Options {
    fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self { target: None, seconds: SECONDS };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.to_str().context("an argument is not UTF-8")? {
                "--seconds" => options.seconds = seconds(args.next())?,
                unknown if unknown.starts_with('-') => bail!("fuzz has no option {unknown}"),
                name if options.target.is_none() => options.target = Some(name.to_owned()),
                second => bail!("fuzz takes one target; {second} is a second one"),
            }
        }
        Ok(options)
    }
}

/// The value of an option that says how long.
pub(crate) fn seconds(value: Option<&OsString>) -> Result<u32> {
    let seconds = value.and_then(|value| value.to_str()?.parse().ok()).filter(|&seconds| seconds > 0);
    seconds.context("how many seconds, 1 at least?")
}

/// Runs one target or all.
///
/// # Errors
/// They cannot be built, or there is no such target.
pub(crate) fn fuzz(args: &[OsString]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let all = targets()?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| options.target.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    ensure!(!chosen.is_empty(), "there is no such target; there are {}", all.join(", "));
    let programs = build()?;
    let mut failed = Vec::new();
    for name in chosen {
        say(&format!("fuzzing {name} for {} s", options.seconds));
        match run_one(&programs, name, options.seconds)? {
            Outcome::Clean { runs } => println!("{name}: {runs} runs, no crash"),
            Outcome::Crash { what } => {
                println!("{name}: CRASH: {what}");
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("crashed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The targets' names.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn targets() -> Result<Vec<String>> {
    let folder = sources().join("targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let name = entry?.path();
        names.extend(name.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn sources() -> PathBuf {
    workspace().join("tests/fuzz")
}

/// The product's own compiler looks at all targets.
pub(crate) fn check() -> Command {
    let mut cmd = cargo();
    cmd.args(["check", "--locked", "--manifest-path"]).arg(sources().join("Cargo.toml"));
    cmd.arg("--target-dir").arg(target().join("fuzz-check"));
    cmd
}

/// Builds all targets; answers the folder where they are.
///
/// # Errors
/// The build fails.
pub(crate) fn build() -> Result<PathBuf> {
    satisfy(&[setup::Need::CargoFuzz])?;
    let cargo_fuzz = target().join("tools/bin/cargo-fuzz");
    let nightly = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "cargo"])).is_ok();
    let mut cmd = if nightly {
        let mut cmd = Command::new("rustup");
        cmd.args(["run", "nightly"]).arg(cargo_fuzz).arg("build");
        cmd
    } else {
        // The parsers are safe code, and overflows are checked without a sanitizer, too.
        say("no nightly compiler, so the fuzz targets are built without the address sanitizer");
        let mut cmd = Command::new(cargo_fuzz);
        cmd.args(["build", "--sanitizer", "none"]);
        cmd
    };
    let folder = target().join("fuzz");
    cmd.current_dir(workspace()).arg("--fuzz-dir").arg(sources()).arg("--target-dir").arg(&folder);
    // The compiler is chosen above, and its flags are cargo-fuzz's.
    for name in
        ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"]
    {
        if nightly || name.ends_with("FLAGS") || name.ends_with("DIR") {
            cmd.env_remove(name);
        }
    }
    say("building the fuzz targets");
    run(cmd.stdin(Stdio::null()))?;
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(folder.join(host).join("release"))
}

/// How a run of a target ended.
pub(crate) enum Outcome {
    /// Nothing was found.
    Clean {
        /// How often its body ran.
        runs: u64,
    },
    /// Something was.
    Crash {
        /// What it says of it.
        what: String,
    },
}

/// Runs one target at the lowest priority: whatever else the machine does comes first.
///
/// # Errors
/// The fuzzer cannot be started.
pub(crate) fn run_one(programs: &Path, name: &str, seconds: u32) -> Result<Outcome> {
    let folder = target().join("fuzz");
    let (corpus, artifacts) = (folder.join("corpus").join(name), folder.join("artifacts").join(name));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut cmd = Command::new("nice");
    cmd.args(["-n", "19"]).arg(programs.join(name)).arg(&corpus).arg(sources().join("corpus").join(name));
    cmd.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", artifacts.display()));
    // Names of new functions would be looked up in a megabyte of lines each.
    // And a search for leaks after each run costs a thousand runs; what leaks here is memory only.
    cmd.args(["-print_final_stats=1", "-print_funcs=0", "-detect_leaks=0", "-timeout=25"]);
    let out = cmd.stdin(Stdio::null()).output().with_context(|| format!("start the fuzz target {name}"))?;
    let log = String::from_utf8_lossy(&out.stderr);
    fs::write(folder.join(format!("{name}.log")), log.as_bytes())?;
    if out.status.success() {
        return Ok(Outcome::Clean { runs: runs(&log).context("libFuzzer tells no statistics")? });
    }
    let said =
        log.lines().skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: ")).take(3);
    let what = said.chain(log.lines().filter(|line| line.starts_with("artifact_prefix")));
    Ok(Outcome::Crash { what: what.collect::<Vec<_>>().join(" ") })
}

/// How many runs libFuzzer's statistics tell.
fn runs(log: &str) -> Option<u64> {
    let (_, rest) = log.split_once("stat::number_of_executed_units:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_a_time() {
        let parse = |words: &[&str]| Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(parse(&[]).expect("fits"), Options { target: None, seconds: SECONDS });
        let options = parse(&["dns", "--seconds", "5"]).expect("fits");
        assert_eq!(options, Options { target: Some("dns".to_owned()), seconds: 5 });
        assert!(
            parse(&["--seconds"]).is_err() && parse(&["--seconds", "0"]).is_err() && parse(&["-x"]).is_err()
        );
    }

    #[test]
    fn every_target_has_a_source_and_seeds() {
        for name in targets().expect("they are there") {
            let seeds = fs::read_dir(sources().join("corpus").join(&name)).expect("a folder of seeds");
            assert!(seeds.count() > 0, "{name} has no seeds");
        }
    }

    #[test]
    fn runs_are_read_from_the_statistics() {
        assert_eq!(runs("x\nstat::number_of_executed_units: 1756\nstat::other: 1\n"), Some(1756));
        assert_eq!(runs("x\n"), None);
    }
}
