//! `cargo xtask test`: every tier, then one table.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::toolchain::{Toolchain, bpf_rustflags, find_bpf_linker};

use crate::arch::Arch;
use crate::build::{dist, dist_for, static_cargo, static_cargo_for};
use crate::dist::{guest as package, make};
use crate::fuzz::{self, Outcome};
use crate::kernels::{ARM64, LINES, Line};
use crate::matrix;
use crate::otlp;
use crate::report::{Harness, Report};
use crate::setup::{self, satisfy};
use crate::shell::{cargo, is_root, output, run, say, target, workspace};
use crate::vm::{Guest, quote};

/// The column of this machine; the guests follow in the order of [`LINES`], then of [`ARM64`].
const HERE: usize = 0;

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Only tests whose name holds this.
    filter: Option<String>,
    /// Leave the guests out.
    no_vm: bool,
    /// Nothing but the guests.
    no_here: bool,
    /// Only what needs no kernel: unit, golden and command-line tests.
    quick: bool,
    /// Packets are received on any processor: see `tests/harness/net.rs`.
    scatter: bool,
    /// Every check on every rung of every kernel.
    all: bool,
    /// In the guests no more than each tool's plainest rows on each rung.
    smoke: bool,
    /// Guests with these kernels instead of [`LINES`].
    kernels: Option<Vec<Line>>,
    /// Guests of arm64 too, and how much in them.
    arm64: Option<Extent>,
    /// How long each fuzz target runs, if not as usual.
    fuzz_seconds: Option<u32>,
}

/// Which of the kernel tests run in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Every one.
    All,
    /// Those that some kernel of the run must have passed, in its guest alone: see [`Line::part`].
    Part,
    /// Each tool's plainest rows on each rung, for emulation takes minutes.
    Smoke,
}

impl Extent {
    /// The lists whose checks all run in the guest of this line, as `NETBCC_WHOLE` says them; nothing when all do. Of
    /// every other list that belongs to a rung the first check runs.
    fn whole(self, line: Line) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Part => Some(line.part()),
            Self::Smoke => Some("smoke"),
        }
    }

    /// As much of this as there is on that line.
    fn on(self, line: Line) -> Self {
        if self == Self::Part && line.part().is_empty() { Self::Smoke } else { self }
    }

    /// What the column of the guest says.
    fn title(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Part => ", part",
            Self::Smoke => ", smoke",
        }
    }

    /// The same for a table of kernels.
    fn told(self, line: Line) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Part => format!("all of {}", line.part().replace(',', ", ")),
            Self::Smoke => "plainest rows".to_owned(),
        }
    }
}

/// How long each fuzz target runs beside the guests: enough to notice what a change breaks. CI says more.
const FUZZ_SECONDS: u32 = 10;

impl Options {
    /// # Errors
    /// There is an unknown option or a second filter.
    pub(crate) fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.to_str().context("an argument is not UTF-8")? {
                "--no-vm" => options.no_vm = true,
                "--no-here" => options.no_here = true,
                "--quick" => options.quick = true,
                "--scatter" => options.scatter = true,
                "--all" => options.all = true,
                "--smoke" => options.smoke = true,
                "--kernels" => {
                    let list = args.next().and_then(|list| list.to_str());
                    let list = list.context("--kernels wants a list of kernels, or all")?;
                    options.kernels = Some(Line::parse_list(list)?);
                }
                "--arm64" => options.arm64 = Some(Extent::Smoke),
                "--arm64=all" => options.arm64 = Some(Extent::All),
                "--fuzz-seconds" => options.fuzz_seconds = Some(fuzz::seconds(args.next())?),
                unknown if unknown.starts_with('-') => bail!("test has no option {unknown}"),
                filter if options.filter.is_none() => options.filter = Some(filter.to_owned()),
                second => bail!("test takes one filter; {second} is a second one"),
            }
        }
        if options.all && options.smoke {
            bail!("--all is every check, --smoke the plainest ones: one of them");
        }
        let guests = options.arm64.is_some() || options.all || options.smoke || options.kernels.is_some();
        if (options.no_vm || options.quick) && (guests || options.no_here) {
            bail!(
                "--no-vm and --quick leave the guests out; --all, --smoke, --kernels and --arm64 say what they \
                 run, --no-here leaves nothing but them"
            );
        }
        Ok(options)
    }
}

/// Runs all tiers; fails if anything in them does.
///
/// # Errors
/// Set-up fails, the release binary cannot be built, or a filter fits no test.
pub(crate) fn test(options: &Options) -> Result<ExitCode> {
    let mut phases = Phases::default();
    phases.begin("set-up");
    let ci = std::env::var_os("CI").is_some();
    let without = [(options.quick, "--quick"), (options.no_vm, "--no-vm")];
    let mut no_guests =
        without.iter().find(|(given, _)| *given).map(|(_, option)| format!("{option} was given"));
    satisfy(&[setup::LINTS, setup::BUILD, setup::MANUALS, setup::TRAFFIC].concat())?;
    let lines = match &options.kernels {
        Some(lines) => lines.clone(),
        // A run of all checks of some tests is for them, not for the kernels.
        None if options.all && options.filter.is_none() => Line::all(),
        None => LINES.to_vec(),
    };
    if no_guests.is_none()
        && let Err(why) = satisfy(&[&setup::guests(&[]), setup::PACKAGES, setup::INSTALLING].concat())
    {
        if ci {
            return Err(why.context("the guests, which must run in CI"));
        }
        no_guests = Some(format!("{why:#}").replace('\n', " "));
    }
    // Who names tests wants them on every rung of every kernel.
    let extent = match options {
        Options { smoke: true, .. } => Extent::Smoke,
        Options { all: true, .. } | Options { filter: Some(_), .. } => Extent::All,
        _ => Extent::Part,
    };
    let (mut guests, missing) = match no_guests {
        None => to_be_had(&lines, extent, ci)?,
        Some(_) => (lines.iter().map(|&line| (line, extent.on(line))).collect(), Vec::new()),
    };
    // On a machine of arm64 they are the guests already.
    if let Some(extent) = options.arm64
        && Arch::HERE != Arch::Aarch64
    {
        satisfy(&[setup::build(Arch::Aarch64), setup::guests(&ARM64)].concat())?;
        guests.extend(ARM64.map(|line| (line, extent)));
    }
    let mut columns = vec![format!("{} (here)", release())];
    for (line, extent) in &guests {
        let release = line.find().map_or_else(|| line.to_string(), |kernel| kernel.release);
        columns.push(format!("{release} (guest{})", extent.title()));
    }
    columns.extend(missing.iter().map(|(line, _)| format!("{line} (not to be had)")));
    let mut tiers = Run::new(columns);
    tiers.filter.clone_from(&options.filter);
    tiers.scatter = options.scatter;
    // A filter names tests; whoever gives one waits for those.
    if options.filter.is_none() && !options.quick && !options.no_here {
        phases.begin("fmt and clippy");
        tiers.lints()?;
    }
    phases.begin("the binary");
    let binary = dist()?;
    if !options.no_here {
        phases.begin("unit, golden, cli");
        tiers.cargo_test("unit", &binary, &["--workspace", "--exclude=probes-ebpf", "--lib", "--bins"])?;
        tiers.cargo_test("golden", &binary, &["--package=netbcc-tests", "--test=golden"])?;
        tiers.otlp()?;
        tiers.cargo_test("cli", &binary, &["--package=netbcc-tests", "--test=cli"])?;
    }
    if options.quick {
        return tiers.ended(options, &phases);
    }
    phases.begin("kernel tests here");
    let tests = kernel_tests(Arch::HERE)?;
    match &tests {
        None => tiers.report.failed(HERE, "kernel tests", "they do not compile"),
        Some(_) if options.no_here => tiers.no_tier(HERE, "--no-here was given"),
        Some(tests) => tiers.here(&binary, tests)?,
    }
    // Not beside the tests here: what they flood is measured against the other processor.
    let targets = if options.no_here { Vec::new() } else { tiers.fuzz_targets()? };
    let seconds = options.fuzz_seconds.unwrap_or(FUZZ_SECONDS);
    let fuzzed = thread::spawn(move || fuzz_all(&targets, seconds));
    phases.begin("guests");
    match (tests, &no_guests) {
        (None, _) => {}
        (_, Some(why)) => (1..).zip(&guests).for_each(|(column, _)| tiers.no_tier(column, why)),
        (Some(tests), None) => tiers.guests(&guests, &binary, &tests),
    }
    for (column, (_, why)) in (1 + guests.len()..).zip(&missing) {
        tiers.no_tier(column, why);
    }
    phases.begin("the rest of the fuzz targets");
    tiers.fuzzed(fuzzed.join().map_err(|_| anyhow::anyhow!("what runs the fuzz targets panicked"))?);
    if options.filter.is_none() && no_guests.is_none() && Line::all().iter().all(|line| lines.contains(line))
    {
        say(&format!("wrote {}", tiers.matrix(options, &guests, &missing, &binary)?));
    }
    tiers.ended(options, &phases)
}

/// Format and lints; fails if anything in them does.
///
/// # Errors
/// Set-up fails.
pub(crate) fn lint() -> Result<ExitCode> {
    satisfy(&[setup::LINTS, setup::BUILD].concat())?;
    let mut phases = Phases::default();
    phases.begin("fmt and clippy");
    let mut tiers = Run::new(vec![format!("{} (here)", release())]);
    tiers.lints()?;
    // The tests build them with a compiler of their own, and run them.
    tiers.check("fuzz", &mut fuzz::check())?;
    tiers.ended(&Options::default(), &phases)
}

/// Kernels that guests run, with how much of the tests, and kernels that are not to be had, with why.
type Kernels = (Vec<(Line, Extent)>, Vec<(Line, String)>);

/// Fetches the kernels of these lines: those that are there, with what runs on them, and those that are not, with why.
///
/// # Errors
/// One that each run must have is missing in CI.
fn to_be_had(lines: &[Line], extent: Extent, ci: bool) -> Result<Kernels> {
    let (mut guests, mut missing) = (Vec::new(), Vec::new());
    for &line in lines {
        match satisfy(&setup::guests(&[line])) {
            Ok(()) => guests.push((line, extent.on(line))),
            Err(why) if ci && LINES.contains(&line) => {
                return Err(why.context("the guests, which must run in CI"));
            }
            // It may be gone from all suites of Debian.
            Err(why) => {
                say(&format!("SKIP kernel {line}: {why:#}"));
                missing.push((line, format!("{why:#}").replace('\n', " ")));
            }
        }
    }
    Ok((guests, missing))
}

/// What a run spends its time on.
#[derive(Debug, Default)]
struct Phases(Vec<(&'static str, Instant)>);

impl Phases {
    /// Ends the phase before.
    fn begin(&mut self, name: &'static str) {
        self.0.push((name, Instant::now()));
    }

    /// Each phase with its seconds, until now.
    fn text(&self) -> String {
        let ends = self.0.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        let phases = self.0.iter().zip(ends);
        let phases: Vec<String> =
            phases.map(|((name, at), end)| format!("{name} {} s", (end - *at).as_secs())).collect();
        format!("took: {}", phases.join(", "))
    }
}

/// Clippy on all that runs on this machine. Built as the tests are, so that the BPF objects are built once for both.
fn clippy() -> Result<Command> {
    let mut cmd = static_cargo("clippy")?;
    cmd.args(["--workspace", "--exclude=probes-ebpf", "--all-targets", "--", "-Dwarnings"]);
    Ok(cmd)
}

/// Clippy on what runs in the kernel: it compiles for the BPF target only.
fn bpf_clippy() -> Result<Command> {
    let mut cmd = Toolchain::find()?.clippy().context("the toolchain's clippy")?;
    let linker = find_bpf_linker(&workspace()).context("bpf-linker")?;
    cmd.current_dir(workspace());
    cmd.args(["--locked", "--package=probes-ebpf", "--lib", "--bins", "--target=bpfel-unknown-none"]);
    cmd.args(["-Zbuild-std=core", "--", "-Dwarnings"]);
    cmd.env("CARGO_ENCODED_RUSTFLAGS", bpf_rustflags(&linker, std::env::consts::ARCH));
    cmd.env("CARGO_TARGET_DIR", target().join("bpf-clippy"));
    Ok(cmd)
}

/// A run under way.
struct Run {
    report: Report,
    filter: Option<String>,
    scatter: bool,
    /// How many tests were seen in all tiers.
    seen: usize,
}

impl Run {
    /// Nothing was run yet on the kernels that these columns are of.
    fn new(columns: Vec<String>) -> Self {
        Self { report: Report::new(columns), filter: None, scatter: false, seen: 0 }
    }

    /// What reads the source only.
    fn lints(&mut self) -> Result<()> {
        self.check("fmt", cargo().args(["fmt", "--all", "--check"]))?;
        self.check("fmt", cargo().args(["fmt", "--manifest-path=tests/fuzz/Cargo.toml", "--check"]))?;
        self.check("clippy", &mut clippy()?)?;
        self.check("clippy", &mut bpf_clippy()?)
    }

    /// Prints the table and what the time went into; answers whether all is well.
    fn ended(&self, options: &Options, phases: &Phases) -> Result<ExitCode> {
        print!("\n{}", self.report.text());
        say(&phases.text());
        if let Some(filter) = &options.filter
            && self.seen == 0
        {
            bail!("no test's name holds {filter:?}");
        }
        Ok(if self.report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// A command that is one check by itself.
    fn check(&mut self, row: &str, cmd: &mut Command) -> Result<()> {
        say(&format!("{row}: {}", crate::shell::shown(cmd)));
        if cmd.status().with_context(|| format!("start {row}"))?.success() {
            self.report.passed(HERE, row);
        } else {
            self.report.failed(HERE, row, "see above");
        }
        Ok(())
    }

    /// Test binaries with the standard harness, all in one row.
    fn cargo_test(&mut self, row: &str, binary: &Path, targets: &[&str]) -> Result<()> {
        say(&format!("{row} tests"));
        let mut cmd = static_cargo("test")?;
        cmd.args(["--no-fail-fast"]).args(targets).env("NETBCC_BIN", binary);
        if run(static_cargo("test")?.arg("--no-run").args(targets)).is_err() {
            self.report.failed(HERE, row, "they do not compile");
            return Ok(());
        }
        let harness = stream(cmd.arg("--quiet").arg("--").args(&self.filter).arg("--format=pretty"))?;
        self.report.tier(HERE, row, &harness);
        self.seen += harness.len();
        Ok(())
    }

    /// The records of OpenTelemetry, checked against the published protobufs, when no filter names other tests.
    fn otlp(&mut self) -> Result<()> {
        if self.filter.is_some() {
            return Ok(());
        }
        match otlp::check() {
            Ok(mut check) => self.check("otlp", &mut check)?,
            Err(why) => {
                let why = format!("{why:#}").replace('\n', " ");
                say(&format!("SKIP otlp: {why}"));
                self.report.skipped(HERE, "otlp", "records against the published protobufs", &why);
            }
        }
        Ok(())
    }

    /// What the kernel tests are told in their environment.
    fn environment(&self) -> Option<&'static str> {
        self.scatter.then_some("NETBCC_SCATTER=1")
    }

    /// The kernel tests on this machine's own kernel.
    fn here(&mut self, binary: &Path, tests: &Path) -> Result<()> {
        let mut cmd = Command::new("env");
        if !is_root() {
            if output(Command::new("sudo").args(["-n", "true"])).is_err() {
                self.no_tier(HERE, "not root, and sudo asks for a password");
                return Ok(());
            }
            cmd = Command::new("sudo");
            cmd.args(["-n", "env"]);
        }
        say("kernel tests on this machine's kernel");
        cmd.arg(format!("NETBCC_BIN={}", binary.display()))
            .args(self.environment())
            .arg(tests)
            .arg("--color=never")
            .args(&self.filter);
        let harness = stream(&mut cmd)?;
        self.report.tools(HERE, &harness);
        self.seen += harness.len();
        Ok(())
    }

    /// The kernel tests in a guest per kernel line, on one of them the package first. Two guests run at a time, as each
    /// keeps one processor busy; whichever ends makes room for the next one, and the long ones come first.
    fn guests(&mut self, guests: &[(Line, Extent)], binary: &Path, tests: &Path) {
        const AT_ONCE: usize = 2;
        let filter = self.filter.clone();
        let filter = filter.as_deref();
        let environment = self.environment().unwrap_or_default();
        let package = package::wanted(filter).then(|| make(Arch::HERE, binary, binary));
        let package = match package {
            Some(Err(why)) => {
                self.report.failed(HERE, "package", &format!("{why:#}"));
                None
            }
            Some(Ok(made)) => Some(made),
            None => None,
        };
        let package = package.as_ref();
        let here = Built { binary: binary.to_owned(), tests: tests.to_owned() };
        let elsewhere: OnceLock<Result<Built, String>> = OnceLock::new();
        let mut order: Vec<usize> = (0..guests.len()).collect();
        order.sort_by_key(|&nth| guests[nth].1 == Extent::Smoke);
        let next = AtomicUsize::new(0);
        let run = |(line, extent): (Line, Extent)| -> Vec<Harness> {
            let built = if line.arch == Arch::HERE {
                &here
            } else {
                match elsewhere.get_or_init(|| Built::of(line.arch).map_err(|why| format!("{why:#}"))) {
                    Ok(built) => built,
                    Err(why) => return vec![broken(why)],
                }
            };
            say(&format!("kernel tests in the guest with kernel {line}"));
            let installed = package
                .filter(|_| line == Line::V6_12 && extent != Extent::Smoke)
                .map(|made| told(line, |on_line| package::check(made, line, on_line)));
            let since = Instant::now();
            let tested = told(line, |on_line| guest(line, extent, built, environment, filter, on_line));
            say(&format!("the guest with kernel {line} took {} s", since.elapsed().as_secs()));
            installed.into_iter().chain([tested]).collect()
        };
        let work = || {
            let mut done = Vec::new();
            loop {
                let Some(&nth) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { return done };
                done.push((nth, run(guests[nth])));
            }
        };
        let harnesses: Vec<(usize, Vec<Harness>)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        });
        for column in 0..guests.len() {
            match harnesses.iter().find(|(nth, _)| *nth == column) {
                None => self.report.tools(column + 1, &broken("what reads its output panicked")),
                Some((_, harnesses)) => {
                    for harness in harnesses {
                        self.report.tools(column + 1, harness);
                        self.seen += harness.len();
                    }
                }
            }
        }
    }

    /// The fuzz targets that the filter leaves, which are called `fuzz::NAME`.
    fn fuzz_targets(&self) -> Result<Vec<String>> {
        let mut targets = fuzz::targets()?;
        targets.retain(|name| {
            self.filter.as_ref().is_none_or(|filter| format!("fuzz::{name}").contains(filter))
        });
        Ok(targets)
    }

    fn fuzzed(&mut self, outcomes: Result<Vec<(String, Outcome)>>) {
        match outcomes {
            Err(why) => self.report.failed(HERE, "fuzz", &format!("{why:#}").replace('\n', " ")),
            Ok(outcomes) => {
                for (name, outcome) in outcomes {
                    self.seen += 1;
                    match outcome {
                        Outcome::Clean { .. } => self.report.passed(HERE, "fuzz"),
                        Outcome::Crash { what } => {
                            self.report.failed(HERE, "fuzz", &format!("{name}: {what}"));
                        }
                    }
                }
            }
        }
    }

    /// Writes the table of kernels; answers where.
    fn matrix(
        &self,
        options: &Options,
        guests: &[(Line, Extent)],
        missing: &[(Line, String)],
        binary: &Path,
    ) -> Result<&'static str> {
        let list = output(Command::new(binary).arg("--list"))?;
        let tools: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let date = output(Command::new("date").args(["-u", "+%F"]))?;
        let mut rows: Vec<matrix::Row> = (1..)
            .zip(guests)
            .map(|(column, &(line, extent))| matrix::Row {
                line: line.to_string(),
                release: line.find().map_or_else(String::new, |kernel| kernel.release),
                column: Some(column),
                extent: extent.told(line),
            })
            .collect();
        rows.extend(missing.iter().map(|(line, _)| matrix::Row {
            line: line.to_string(),
            release: "the archive had none".to_owned(),
            column: None,
            extent: "none".to_owned(),
        }));
        if !options.no_here {
            rows.push(matrix::Row {
                line: "(the machine of the run)".to_owned(),
                release: release(),
                column: Some(HERE),
                extent: Extent::All.told(Line::V6_1),
            });
        }
        matrix::write(&self.report, &rows, &tools, date.trim())
    }

    fn no_tier(&mut self, column: usize, why: &str) {
        self.report.skipped(column, "kernel tests", "the whole tier", why);
    }
}

/// Builds and runs fuzz targets, one after the other.
fn fuzz_all(targets: &[String], seconds: u32) -> Result<Vec<(String, Outcome)>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let programs = fuzz::build()?;
    targets
        .iter()
        .map(|name| {
            let outcome = fuzz::run_one(&programs, name, seconds)?;
            match &outcome {
                Outcome::Clean { runs } => {
                    say(&format!("fuzz::{name}: {runs} runs in {seconds} s, no crash"));
                }
                Outcome::Crash { what } => say(&format!("fuzz::{name}: CRASH: {what}")),
            }
            Ok((name.clone(), outcome))
        })
        .collect()
}

/// Runs a harness, shows what it prints as it comes, and counts.
fn stream(cmd: &mut Command) -> Result<Harness> {
    let (reader, writer) = std::io::pipe()?;
    cmd.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = cmd.spawn().with_context(|| format!("start {}", crate::shell::shown(cmd)))?;
    // The command holds the pipe's other end; without this the end would never be seen.
    cmd.stdout(Stdio::null()).stderr(Stdio::null());
    let mut harness = Harness::default();
    for line in lines(reader) {
        println!("{line}");
        harness.line(&line);
    }
    harness.ended(child.wait()?.success());
    Ok(harness)
}

/// What guests of one architecture run.
struct Built {
    binary: PathBuf,
    tests: PathBuf,
}

impl Built {
    fn of(arch: Arch) -> Result<Self> {
        Ok(Self { binary: dist_for(arch)?, tests: kernel_tests(arch)?.context("the tests do not compile")? })
    }
}

/// Tests that could not run.
fn broken(why: &str) -> Harness {
    let mut harness = Harness::default();
    harness.broke(why.lines().next().unwrap_or_default());
    harness
}

/// Runs what runs tests in a guest, shows what it prints as it comes, and counts.
fn told(line: Line, run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<u8>) -> Harness {
    let mut harness = Harness::default();
    let outcome = run(&mut |text| {
        println!("{line} | {text}");
        harness.line(text);
    });
    match outcome {
        Ok(exit_code) => harness.ended(exit_code == 0),
        // What was seen until then counts.
        Err(why) => {
            say(&format!("{why:#}"));
            harness.broke(why.to_string().lines().next().unwrap_or_default());
        }
    }
    harness
}

/// What ends the script of a guest: a test of the kernel's own log, told as a harness tells its tests. A stall or a lockup
/// is not looked for: on an emulated processor it may be the emulator's.
const SPLATS: &str = r"code=$?
name=dmesg::nothing_we_do_makes_the_kernel_warn
if dmesg | grep -E -A24 'WARNING: |BUG: |Oops|general protection|UBSAN: |KASAN: |refcount_t: |possible recursive|invalid context' >/tmp/splats; then
    printf 'test %s ... FAILED\n\n---- %s ----\n' $name $name
    cat /tmp/splats
    printf 'test result: FAILED. 0 passed; 1 failed; 0 ignored;\n'
    code=101
else
    printf 'test %s ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored;\n' $name
fi
exit $code
";

/// Runs the kernel tests in a guest; answers their exit code.
fn guest(
    line: Line,
    extent: Extent,
    built: &Built,
    environment: &str,
    filter: Option<&str>,
    on_line: impl FnMut(&str),
) -> Result<u8> {
    let kernel = line.find().context("the kernel was there a moment ago")?;
    let guest = Guest {
        name: format!("test-{}", line.folder_name()),
        kernel: &kernel,
        memory: 2048,
        smp: 2,
        icount: false,
        panic_on_warn: true,
        disk: None,
        files: vec![
            (built.binary.clone(), "/bin/netbcc".to_owned()),
            (built.tests.clone(), "/bin/kernel-tests".to_owned()),
        ],
        script: format!(
            "export NETBCC_BIN=/bin/netbcc {environment} NETBCC_EXPECT_RUNGS={}{}\n\
             dmesg -c >/dev/null\n\
             kernel-tests --color=never --test-threads=4 {}\n\
             {SPLATS}",
            line.rungs(),
            extent.whole(line).map(|lists| format!(" NETBCC_WHOLE={lists}")).unwrap_or_default(),
            filter.map(quote).unwrap_or_default()
        ),
        // Minutes on an idle machine; a busy one may take its time.
        timeout: Duration::from_hours(1),
    };
    let outcome = guest.run(on_line)?;
    std::fs::write(target().join("vm").join(&guest.name).join("output.log"), outcome.output)?;
    Ok(outcome.exit_code)
}

/// Builds the kernel tests as a static program; answers where it is, or nothing when they do not compile.
fn kernel_tests(arch: Arch) -> Result<Option<PathBuf>> {
    let mut cmd = static_cargo_for(arch, "test")?;
    cmd.args([
        "--no-run",
        "--package=netbcc-tests",
        "--test=kernel",
        "--message-format=json-render-diagnostics",
    ]);
    let out = cmd.stderr(Stdio::inherit()).output().context("start cargo")?;
    if !out.status.success() {
        return Ok(None);
    }
    let messages = String::from_utf8_lossy(&out.stdout);
    let path = executable(&messages).context("cargo names no test program")?;
    Ok(Some(path.into()))
}

/// The program in cargo's messages, one JSON object per line.
fn executable(messages: &str) -> Option<&str> {
    let (_, rest) = messages.rsplit_once("\"executable\":\"")?;
    rest.split_once('"').map(|(path, _)| path)
}

fn lines(pipe: PipeReader) -> impl Iterator<Item = String> {
    BufReader::new(pipe)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// What `uname -r` says here.
fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_filter_and_no_unknown_option() {
        let parse = |words: &[&str]| Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let options = parse(&["tcplife", "--no-vm"]).expect("fits");
        let expected = Options { filter: Some("tcplife".to_owned()), no_vm: true, ..Options::default() };
        assert_eq!(options, expected);
        assert_eq!(parse(&["--fuzz-seconds", "60"]).expect("fits").fuzz_seconds, Some(60));
        assert!(parse(&["--scatter"]).expect("fits").scatter);
        assert!(parse(&["a", "b"]).is_err());
        assert!(parse(&["--vm"]).is_err());
        assert_eq!(parse(&["--arm64"]).expect("fits").arm64, Some(Extent::Smoke));
        assert_eq!(parse(&["--arm64=all", "tcp"]).expect("fits").arm64, Some(Extent::All));
        assert!(parse(&["--arm64", "--no-vm"]).is_err());
        assert!(parse(&["--all"]).expect("fits").all);
        assert!(parse(&["--all", "--quick"]).is_err());
        assert_eq!(parse(&["--kernels", "6.1,6.12"]).expect("fits").kernels, Some(LINES.to_vec()));
        assert!(parse(&["--no-here", "--smoke"]).is_ok_and(|options| options.no_here && options.smoke));
        assert!(parse(&["--no-here", "--no-vm"]).is_err());
        assert!(parse(&["--all", "--smoke"]).is_err());
        assert!(parse(&["--kernels"]).is_err());
        assert!(parse(&["--kernels", "5.4"]).is_err());
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/deps/kernel-1a\",\"fresh\":true}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages), Some("/t/deps/kernel-1a"));
        assert_eq!(executable("{}"), None);
    }
}
