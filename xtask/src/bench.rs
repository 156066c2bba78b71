//! `cargo xtask bench`: what each tool costs, beside what the same tool of libbpf-tools costs in the same guest.
//!
//! Start-up and memory on this machine's kernel; instructions per operation in a guest whose time counts instructions
//! (QEMU's `-icount`), which noise on this machine cannot change. A whole run writes `BENCHMARKS.md`.

mod guest;
mod report;
mod subjects;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use self::subjects::{SUBJECTS, Subject};
use crate::kernels::Line;
use crate::shell::{find_program, is_root, output, say, target, workspace};
use crate::{apt, build, setup};

/// Starts per tool; the median counts.
const STARTS: usize = 9;
/// The package of the peers.
const PEERS: &str = "libbpf-tools";
/// What a whole run writes.
const FILE: &str = "BENCHMARKS.md";

/// How long a tool took to its first output, and the most memory that was resident until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) ns: u128,
    pub(crate) kib: u64,
}

/// One tool, here and in the guest.
struct Started {
    tool: &'static str,
    here: Result<Start>,
    /// `None`: there is no such tool.
    peer_here: Option<Result<Start>>,
}

/// Measures and prints.
///
/// # Errors
/// Set-up, the build, a tool or the guest fails.
pub(crate) fn bench(args: &[OsString]) -> Result<ExitCode> {
    let wanted: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !SUBJECTS.iter().any(|subject| subject.tool == **name)) {
        bail!("bench takes names of tools: {unknown} is none");
    }
    let subjects: Vec<&Subject> =
        SUBJECTS.iter().filter(|subject| wanted.is_empty() || wanted.contains(&subject.tool)).collect();
    setup::satisfy(&[setup::BUILD, &setup::guests(&[Line::V6_1])].concat())?;
    if let Err(why) = fetch_peers() {
        say(&format!("without {PEERS}: {why:#}"));
    }
    let binary = build::dist()?;
    let starts = starts(&binary, &subjects);
    let kernel = Line::V6_1.find().context("the kernel was there a moment ago")?;
    let found = guest::measure(&binary, &kernel, &subjects)?;
    let text = report::markdown(&binary, &kernel.release, &starts, &found)?;
    println!("{text}");
    if wanted.is_empty() {
        let file = workspace().join(FILE);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        say(&format!("written to {FILE}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Unpacks the peers below `target/`, unless they are there or installed.
fn fetch_peers() -> Result<()> {
    if find_program("bpf-tcpstates").is_some() || peers().is_dir() {
        return Ok(());
    }
    if !apt::usable() {
        bail!("this machine has no apt");
    }
    say(&format!("unpacking {PEERS} into target/{PEERS} (it is not installed): to measure beside it"));
    apt::unpack(PEERS, &peers())
}

fn peers() -> PathBuf {
    target().join(PEERS)
}

/// The folders of the libraries that came with the peers.
fn peer_libraries() -> Vec<PathBuf> {
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [peers().join("usr").join(&libraries), peers().join(libraries)];
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// The tool of libbpf-tools. Later packages give its programs a prefix.
fn find_peer(tool: &str) -> Option<PathBuf> {
    let names = [format!("bpf-{tool}"), tool.to_owned()];
    let unpacked = names.iter().map(|name| peers().join("usr/sbin").join(name)).find(|file| file.is_file());
    unpacked.or_else(|| find_program(&names[0]))
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
            find_peer(subject.tool).filter(|_| subject.libbpf.is_some() && is_root()).map(|peer| {
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
    if let Ok(libraries) = std::env::join_paths(peer_libraries())
        && !libraries.is_empty()
    {
        cmd.env("LD_LIBRARY_PATH", libraries);
    }
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
    Ok(Start { ns, kib })
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
