//! What a tool sees of as many connections as one core makes, on this machine: load and tool on different cores.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::subjects::Subject;
use super::{Stopped, with_libraries};
use crate::load::Load;
use crate::peers;
use crate::shell::{find_program, is_root, output, say, target};

/// For how long.
pub(super) const SECONDS: u64 = 10;
/// The cores: of the tool, and of the load.
const CORES: [&str; 2] = ["0", "1"];
/// Until a tool is attached, or has nothing more to say.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tools with a row per thing that the flood does: what it is of, how many rows one of them makes, and how many more the
/// listener that is used for all makes.
const ROWS: [(&str, Load, u64, u64); 7] = [
    ("tcpconnect", Load::Connects, 1, 0),
    ("tcpaccept", Load::Connects, 1, 0),
    ("tcpconnlat", Load::Connects, 1, 0),
    ("tcplife", Load::Connects, 2, 0),
    ("tcpstates", Load::Connects, 10, 2),
    ("tcptracer", Load::Connects, 4, 0),
    ("solisten", Load::Listens, 1, 0),
];

/// A tool and its peer in the flood.
pub(super) struct Flood {
    pub(super) tool: &'static str,
    pub(super) ours: Result<Seen>,
    /// `None`: there is no such tool.
    pub(super) peer: Option<Result<Seen>>,
}

/// What one of them saw.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    /// Connections, or listens.
    pub(super) operations: u64,
    pub(super) rows: u64,
    /// Rows that there should have been.
    pub(super) due: u64,
    /// Events that it says it lost.
    pub(super) reported: u64,
    /// What it said besides.
    pub(super) said: String,
    /// Of a core, while the flood lasted and the rest was written.
    pub(super) cpu: f64,
}

/// Floods each of these tools that have rows for it.
pub(super) fn floods(binary: &Path, subjects: &[&Subject]) -> Vec<Flood> {
    let mut floods = Vec::new();
    for (tool, load, each, once) in ROWS {
        let Some(subject) = subjects.iter().find(|subject| subject.tool == tool) else { continue };
        say(&format!("flooding {tool} for {SECONDS} s"));
        let ours = flood(command(&[], binary, Some(tool)), load, (each, once));
        let peer = subject.libbpf.and_then(|_| peers::find(tool));
        let peer = peer.map(|peer| flood(command(&["stdbuf", "-oL"], &peer, None), load, (each, once)));
        floods.push(Flood { tool, ours, peer });
    }
    floods
}

/// A tool on its core.
fn command(before: &[&str], program: &Path, tool: Option<&str>) -> Command {
    let mut cmd = Command::new("taskset");
    cmd.args(["-c", CORES[0]]).args(before).arg(program).args(tool);
    with_libraries(&mut cmd);
    cmd
}

/// Where its rows go, and what it says besides.
fn files() -> [PathBuf; 2] {
    ["flood.rows", "flood.err"].map(|name| target().join(name))
}

/// Floods one tool; what it wrote does not stay.
fn flood(tool: Command, load: Load, due: (u64, u64)) -> Result<Seen> {
    let seen = seen(tool, load, due);
    for file in files() {
        drop(fs::remove_file(file));
    }
    seen
}

fn seen(mut tool: Command, load: Load, (each, once): (u64, u64)) -> Result<Seen> {
    if !is_root() {
        bail!("this is not root");
    }
    if thread::available_parallelism().map_or(1, usize::from) < CORES.len()
        || find_program("taskset").is_none()
    {
        bail!("this takes two cores, and taskset");
    }
    let [rows, errors] = files();
    tool.stdin(Stdio::null()).stdout(File::create(&rows)?).stderr(File::create(&errors)?);
    let mut tool = Stopped(tool.spawn().context("start it")?);
    let written = || fs::metadata(&rows).map_or(0, |data| data.len());
    wait(&mut tool.0, || written() > 0).context("its header")?;
    let before = busy(tool.0.id())?;
    let start = Instant::now();
    let mut cmd = Command::new("taskset");
    cmd.args(["-c", CORES[1]]).arg(std::env::current_exe()?);
    let told = output(cmd.args(["load", "flood", load.name(), &SECONDS.to_string()]))?;
    let (mark, operations) = told.trim().split_once(' ').with_context(|| format!("the load said: {told}"))?;
    let operations: u64 = operations.parse().context("a count")?;
    let mut size = written();
    let deadline = Instant::now() + PATIENCE;
    // It has come to its end when there is nothing new for a while.
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(300));
        if size == written() {
            break;
        }
        size = written();
    }
    let cpu = (busy(tool.0.id())? - before) / start.elapsed().as_secs_f64();
    // Not an interrupt: whoever runs this in the background of a script has it ignored.
    output(Command::new("kill").args(["-TERM", &tool.0.id().to_string()]))?;
    tool.0.wait()?;
    let shown = count(&rows, mark)?;
    let said = fs::read_to_string(&errors)?.trim().to_owned();
    Ok(Seen { operations, rows: shown, due: operations * each + once, reported: lost(&said), said, cpu })
}

fn wait(tool: &mut Child, is: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        if tool.try_wait()?.is_some() {
            bail!("it ends without");
        }
        if Instant::now() > deadline {
            bail!("it does not come");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Seconds that a process has been on a processor.
fn busy(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).context("it is gone")?;
    let ns: f64 = text.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
    Ok(ns / 1e9)
}

/// The rows with this number in them: others on this machine make traffic too. Hundreds of megabytes: grep is quick.
fn count(rows: &Path, mark: &str) -> Result<u64> {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-c", "-w", mark]).arg(rows);
    // Its code is 1 if there is none.
    let found = grep.output().context("start grep")?;
    String::from_utf8_lossy(&found.stdout).trim().parse().context("grep counts")
}

/// The numbers in `lost 7 events`: peers say it again and again.
fn lost(said: &str) -> u64 {
    let numbers = said.split("lost ").skip(1).map(|after| after.split(' ').next().unwrap_or_default());
    numbers.filter_map(|number| number.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_told_is_read() {
        let said = "tcpstates: lost 1234 events: 1234 because the ring buffer was full";
        assert_eq!(lost(said), 1234);
        assert_eq!(lost("lost 12 events on CPU #0\nlost 3 events on CPU #0"), 15);
        assert_eq!(lost("tcplife: drops: not by fentry"), 0);
        assert_eq!(lost(""), 0);
    }

    #[test]
    fn rows_are_those_of_the_load() {
        let file = target().join(format!("flood-test-{}", std::process::id()));
        fs::write(&file, "9 load 127.0.0.1 40000 127.0.0.1 5001\n9 load 127.0.0.1:5001\n9 load 15001\n")
            .expect("room");
        assert_eq!(count(&file, "5001").expect("grep"), 2);
        assert_eq!(count(&file, "77").expect("grep"), 0);
        fs::remove_file(file).expect("it was there");
    }
}
