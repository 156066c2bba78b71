//! `cargo xtask bench`: what each tool costs, beside what the same tool of libbpf-tools costs in the same guest.
//!
//! Start-up and memory on this machine's kernel; instructions per operation in a guest whose time counts instructions
//! (QEMU's `-icount`), which noise on this machine cannot change. A whole run writes `BENCHMARKS.md`.

mod flood;
mod guest;
mod memory;
mod plot;
mod report;
mod size;
mod subjects;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::subjects::{SUBJECTS, Subject};
use crate::compare::disk;
use crate::kernels::Line;
use crate::shell::{find_program, is_root, output, say, workspace};
use crate::{build, peers, setup};

/// Starts per tool; the median counts.
const STARTS: usize = 9;
/// Between two starts.
const ALONE: Duration = Duration::from_millis(200);
/// Has BCC's tools measured too, which take a minute each to start in the guest.
const WITH_BCC: &str = "--bcc";
/// What a whole run writes.
const FILE: &str = "BENCHMARKS.md";
/// And draws.
const PLOT: &str = "docs/cost.svg";

/// How long a tool took to its first output, and its memory then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) ns: u128,
    /// The most that was resident.
    pub(crate) kib: u64,
    /// Bytes of the kernel's: maps, programs, buffers.
    pub(crate) kernel: u64,
}

/// One tool, here and in the guest.
struct Started {
    tool: &'static str,
    here: Result<Start>,
    /// `None`: there is no such tool.
    peer_here: Option<Result<Start>>,
}

/// All that a run found.
struct Measured {
    starts: Vec<Started>,
    floods: Vec<flood::Flood>,
    found: Vec<guest::Found>,
    sizes: Vec<size::Size>,
}

/// Measures and prints.
///
/// # Errors
/// Set-up, the build, a tool or the guest fails.
pub(crate) fn bench(args: &[OsString]) -> Result<ExitCode> {
    let (options, wanted): (Vec<&str>, Vec<&str>) =
        args.iter().filter_map(|arg| arg.to_str()).partition(|arg| arg.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| **option != WITH_BCC) {
        bail!("bench knows {WITH_BCC} and names of tools, not {unknown}");
    }
    if let Some(unknown) = wanted.iter().find(|name| !SUBJECTS.iter().any(|subject| subject.tool == **name)) {
        bail!("bench takes names of tools: {unknown} is none");
    }
    let subjects: Vec<&Subject> =
        SUBJECTS.iter().filter(|subject| wanted.is_empty() || wanted.contains(&subject.tool)).collect();
    setup::satisfy(&[setup::BUILD, &setup::guests(&[Line::V6_1])].concat())?;
    if let Some(code) = with_tracefs(args)? {
        return Ok(code);
    }
    if let Err(why) = peers::fetch() {
        say(&format!("without {}: {why:#}", peers::PACKAGE));
    }
    let binary = build::dist()?;
    let starts = starts(&binary, &subjects);
    let floods = flood::floods(&binary, &subjects);
    let kernel = Line::V6_1.find().context("the kernel was there a moment ago")?;
    let bcc = if options.is_empty() { None } else { Some(disk::make(&kernel.release)?) };
    let found = guest::measure(&binary, &kernel, &subjects, bcc)?;
    let measured = Measured { starts, floods, found, sizes: size::sizes(&binary, &kernel.release) };
    let text = report::markdown(&kernel.release, &measured);
    println!("{text}");
    if wanted.is_empty() {
        for (name, content) in [(FILE, text), (PLOT, plot::costs(&measured.found))] {
            let file = workspace().join(name);
            fs::create_dir_all(file.parent().context("the workspace")?)?;
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
            say(&format!("written to {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that this is the command that [`with_tracefs`] started.
const INSIDE: &str = "NETBCC_BENCH_INSIDE";

/// libbpf-tools' tools attach through tracefs, which netbcc's do without. Where it is not mounted, the whole command is run
/// again in a mount namespace that has it; answers with what exit code.
fn with_tracefs(args: &[OsString]) -> Result<Option<ExitCode>> {
    const TRACEFS: &str = "/sys/kernel/tracing";
    let mounted = Path::new(TRACEFS).join("events").exists();
    if mounted || !is_root() || std::env::var_os(INSIDE).is_some() || find_program("unshare").is_none() {
        return Ok(None);
    }
    let mut cmd = Command::new("unshare");
    cmd.args(["--mount", "sh", "-c", &format!("mount -t tracefs tracefs {TRACEFS}; exec \"$@\""), "sh"]);
    cmd.arg(std::env::current_exe().context("this program")?).arg("bench").args(args);
    let status = cmd.env(INSIDE, "1").status().context("start unshare")?;
    Ok(Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// Each tool once, in the order of the table.
fn starts(binary: &Path, subjects: &[&Subject]) -> Vec<Started> {
    say("starting each tool on this machine's kernel");
    let binary = binary.display().to_string();
    let mut starts: Vec<Started> = Vec::new();
    for subject in subjects {
        if starts.iter().any(|start| start.tool == subject.tool) {
            continue;
        }
        let args = start_args(subject.tool);
        let here = if is_root() {
            median(&[&[&binary, subject.tool], args].concat())
        } else {
            Err(anyhow::anyhow!("this is not root"))
        };
        let peer_here =
            peers::find(subject.tool).filter(|_| subject.libbpf.is_some() && is_root()).map(|peer| {
                // Its header would stay in a buffer; a line buffer is what a terminal would give it.
                median(&["stdbuf", "-oL", &peer.display().to_string()])
            });
        starts.push(Started { tool: subject.tool, here, peer_here });
    }
    starts
}

/// What a tool cannot do without.
fn start_args(tool: &str) -> &'static [&'static str] {
    if tool == "netqtop" { &["-n", "lo"] } else { &[] }
}

fn median(command: &[&str]) -> Result<Start> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        // The kernel is still taking down what the one before had attached.
        thread::sleep(ALONE);
        starts.push(start(command)?);
    }
    starts.sort_unstable_by_key(|start| start.ns);
    let kib = starts.iter().map(|start| start.kib).max().unwrap_or(0);
    Ok(Start { kib, ..starts[STARTS / 2] })
}

/// Starts a tool, waits for its first line, stops it. netbcc's tools also say on a descriptor that they are ready, for
/// those whose first line comes later.
///
/// # Errors
/// It cannot be started, or ends without a line.
pub(crate) fn start(command: &[&str]) -> Result<Start> {
    let [program, args @ ..] = command else { bail!("start what?") };
    let mut cmd = Command::new(program);
    cmd.args(args).env("NETBCC_READY_FD", "1");
    with_libraries(&mut cmd);
    let begin = Instant::now();
    let child = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Stopped(child.with_context(|| format!("start {program}"))?);
    let stdout = child.0.stdout.take().context("its output")?;
    let mut line = String::new();
    // Kept open until its memory is read: a tool whose reader is gone ends.
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).context("its header")?;
    let ns = begin.elapsed().as_nanos();
    if line.is_empty() {
        bail!("it ends without a header");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib = peak.trim().trim_end_matches("kB").trim().parse().context("VmHWM")?;
    Ok(Start { ns, kib, kernel: memory::kernel_bytes(child.0.id())? })
}

/// Peers find their libraries, which are not installed.
fn with_libraries(cmd: &mut Command) {
    if let Ok(libraries) = std::env::join_paths(peers::libraries())
        && !libraries.is_empty()
    {
        cmd.env("LD_LIBRARY_PATH", libraries);
    }
}

/// Bytes of the kernel's memory that a process takes for BPF.
///
/// # Errors
/// The process is gone.
pub(crate) fn kernel_memory(pid: &str) -> Result<u64> {
    memory::kernel_bytes(pid.parse().context("a process's number")?)
}

/// Nanoseconds that the BPF programs of a process have run.
///
/// # Errors
/// The process is gone.
pub(crate) fn program_time(pid: &str) -> Result<u64> {
    memory::program_ns(pid.parse().context("a process's number")?)
}

/// A tool that does not outlive the measurement.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a command says, on one line; or that it says nothing.
fn version(program: &str, args: &[&str]) -> String {
    let text = output(Command::new(program).args(args)).unwrap_or_default();
    text.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown").to_owned()
}
