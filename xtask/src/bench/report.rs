//! The benchmark's tables, as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::guest::{Cost, Found};
use super::subjects::Budget;
use super::{PEERS, STARTS, Start, Started, find_peer, version};
use crate::build;
use crate::load::Load;
use crate::setup::find_qemu;
use crate::shell::{output, workspace};

/// What the tables mean.
const COST: &str = "\
Instructions that a tool adds per operation, everything counted: probes, wake-ups, reading, formatting, writing each row
to a file. One processor, QEMU's `-icount`: the guest's clock counts instructions. *Reader* is the part of it that the
tool's own process spent, its system calls included; the rest is spent in the kernel on the way of the traffic. Peers run
in the same guest under the same load, their rows written at once as on a terminal (`stdbuf -oL`). BCC's figures were
measured once with BCC 0.26 in such a guest and are not of this run; its tcpstates rows were six per connection. Budgets
are a third of what libbpf-tools' tool was measured to cost, a twelfth of BCC's where only that has the tool, and set for
the rest.";
const LOADS: &str = "\
A *connection* is connect, accept, 64 bytes sent and read, both ends closed (ten changes of state); one that is *reset* is
closed by the accepting end before it read (six). *Send + receive* moves 1000 bytes. A *datagram* of 100 bytes is one
packet out and one in. A *drop* is a segment that a packet filter drops on its way out, a *retransmit* one that it had
dropped on its way in.";
const MISSED: &str = "\
What misses its budget, and where it goes. **tcptop** looks into a hash table per send and per receive, by a key of 64
bytes: the process, its name and both ends of the connection. tcpsubnet, whose programs hang at the same place and add to
an array, shows what that would cost without the table. **softirqs**: a message over TCP is two soft interrupts, so four
runs of a program, each with a look at the clock and into an array.";
const IDLE: &str = "\
What tools add to each connection while what they look for does not happen: no retransmit, no drop, no listen; and for
tcpconnlat no connect by the process it is told to watch (both ends are counted here, of a host that only accepts half of
it). Each is the shortest of three runs. *Met* is what is not more than the runs without any tool differ among each other,
here by";
const IDLE_WHY: &str = "\
tcpconnlat's program runs at each packet of a connection that is being made or ended, to look at the socket's state.
Before Linux 6.11, which tells the socket that a dropped packet was for, tcpdrop's runs at each packet that TCP looks at.";
const START: &str = "\
From exec to the first line or to where everything is attached, the median of";
const START_REST: &str = "\
starts on this machine; the most memory that was resident until then. Then the same in the guest, by its clock, waiting
included, and the most memory that was resident after the traffic above. A figure from this machine depends on what else
it does at the time.";

/// Everything that was measured.
///
/// # Errors
/// The binary cannot be read.
pub(super) fn markdown(binary: &Path, kernel: &str, starts: &[Started], found: &[Found]) -> Result<String> {
    let mut text = String::from(
        "# Benchmarks\n\nMade by `cargo xtask bench`, which measures again and writes this file; `cargo xtask bench TOOL...` only prints.\n\n",
    );
    environment(&mut text, kernel);
    writeln!(text, "\n## Cost per operation\n\n{COST}\n\n{LOADS}\n")?;
    costs(&mut text, found);
    writeln!(text, "\n{MISSED}")?;
    let idle = found.iter().any(|found| matches!(found.subject.budget, Some(Budget::Nothing)));
    if idle {
        let noise = noise(found);
        writeln!(text, "\n## Cost where nothing happens\n\n{IDLE}\n{noise:.2} % of what they take.\n")?;
        nothing(&mut text, found, noise);
        writeln!(text, "\n{IDLE_WHY}")?;
    }
    writeln!(text, "\n## Start, memory, size\n\n{START} {STARTS}\n{START_REST}\n")?;
    started(&mut text, starts, found);
    sizes(&mut text, binary, starts)?;
    Ok(text)
}

/// What was measured, on what.
fn environment(text: &mut String, kernel: &str) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cpus = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let qemu = find_qemu().and_then(|qemu| output(qemu.command().arg("--version")).ok()).unwrap_or_default();
    let qemu = qemu.lines().next().unwrap_or("unknown").to_owned();
    let here = workspace().display().to_string();
    let commit = version("git", &["-C", &here, "describe", "--always", "--dirty", "--exclude=*"]);
    for (what, value) in [
        ("netbcc", format!("commit {commit}, {}", profile(&build::overrides()))),
        ("compiler", version("rustc", &["--version"])),
        ("machine", format!("{model}, {cpus} processors, Linux {}", version("uname", &["-r"]))),
        ("guest", format!("Linux {kernel} (Debian), 1 processor, {qemu}")),
        ("peer", format!("{PEERS} {}", peer_version())),
    ] {
        writeln!(text, "* {what}: {value}").expect("a String takes all");
    }
}

/// Which profile was measured: whoever works on a tool sets a quicker one.
fn profile(overrides: &[(String, String)]) -> String {
    if overrides.is_empty() {
        return "release profile".to_owned();
    }
    let lower = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let list: Vec<String> =
        overrides.iter().map(|(name, value)| format!("{} {value}", lower(name))).collect();
    format!("**not the release profile**: {}", list.join(", "))
}

fn peer_version() -> String {
    let policy = output(std::process::Command::new("apt-cache").args(["policy", PEERS])).unwrap_or_default();
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate.map_or_else(|| "of unknown version".to_owned(), |version| format!("{version} (Debian)"))
}

fn costs(text: &mut String, found: &[Found]) {
    text.push_str(
        "| tool | operation | it takes | netbcc adds | reader | rows | per row | budget | | libbpf-tools adds | rows | per row | ratio | BCC adds |\n\
         |---|---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|\n",
    );
    for found in found.iter().filter(|found| !matches!(found.subject.budget, Some(Budget::Nothing))) {
        let subject = found.subject;
        let ours = Share::new(found, &found.ours);
        let (budget, verdict) = match subject.budget {
            Some(Budget::Operation(most)) => (most.to_string(), met(ours.added <= most as f64)),
            Some(Budget::Row(most)) => {
                (format!("{most} per row"), met(ours.per_row.is_some_and(|n| n <= most as f64)))
            }
            Some(Budget::Nothing) | None => (String::new(), ""),
        };
        let peer = found.peer.as_ref().map(|cost| Share::new(found, cost));
        let (peer_cells, ratio) = match &peer {
            Some(peer) => (
                format!("{:.0} | {} | {}", peer.added, rows(peer.rows), whole(peer.per_row)),
                format!("{:.2}", ours.added / peer.added),
            ),
            None => (" | | ".to_owned(), String::new()),
        };
        writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {} | {} | {budget} | {verdict} | {peer_cells} | {ratio} | {} |",
            subject.name(),
            subject.load.operation(),
            ours.base,
            ours.added,
            ours.reader,
            rows(ours.rows),
            whole(ours.per_row),
            subject.bcc.map_or(String::new(), |bcc| bcc.to_string()),
        )
        .expect("a String takes all");
        if !found.ours.said.is_empty() {
            writeln!(text, "| | it said: {} |", found.ours.said).expect("a String takes all");
        }
    }
}

/// By how much the runs of the first load without a tool differ: percent.
fn noise(found: &[Found]) -> f64 {
    let bases = found.iter().filter(|found| found.subject.load == Load::Connects);
    let bases: Vec<i64> = bases
        .flat_map(|found| [Some(&found.ours), found.peer.as_ref()])
        .flatten()
        .map(|cost| cost.base)
        .collect();
    let (least, most) = (bases.iter().min().copied().unwrap_or(0), bases.iter().max().copied().unwrap_or(0));
    if least == 0 { 0.0 } else { (most - least) as f64 * 100.0 / least as f64 }
}

fn nothing(text: &mut String, found: &[Found], noise: f64) {
    text.push_str("| tool | a connection takes | netbcc adds | part of it | |\n|---|--:|--:|--:|---|\n");
    for found in found.iter().filter(|found| matches!(found.subject.budget, Some(Budget::Nothing))) {
        let per = Share::new(found, &found.ours);
        let percent = per.added * 100.0 / per.base;
        writeln!(
            text,
            "| {} | {:.0} | {:.0} | {percent:.2} % | {} |",
            found.subject.name(),
            per.base,
            per.added,
            met(percent <= noise)
        )
        .expect("a String takes all");
    }
}

fn started(text: &mut String, starts: &[Started], found: &[Found]) {
    text.push_str(
        "| tool | start here, ms | memory, KiB | start in the guest, ms | memory after traffic, KiB | libbpf-tools here, ms | in the guest, ms | memory after traffic, KiB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for Started { tool, here, peer_here } in starts {
        let of = |start: &Result<Start>| match start {
            Ok(start) => (format!("{:.1}", start.ns as f64 / 1e6), start.kib.to_string()),
            Err(why) => (format!("not ({why:#})"), String::new()),
        };
        let (ms, kib) = of(here);
        let peer_ms = peer_here.as_ref().map_or(String::new(), |start| of(start).0);
        let found = found.iter().find(|found| found.subject.tool == *tool);
        let millis = |start: Option<Start>| {
            start.map_or(String::new(), |start| format!("{:.1}", start.ns as f64 / 1e6))
        };
        let kibs = |cost: Option<&Cost>| cost.map_or(String::new(), |cost| cost.kib.to_string());
        writeln!(
            text,
            "| {tool} | {ms} | {kib} | {} | {} | {peer_ms} | {} | {} |",
            millis(found.and_then(|found| found.start)),
            kibs(found.map(|found| &found.ours)),
            millis(found.and_then(|found| found.peer_start)),
            kibs(found.and_then(|found| found.peer.as_ref())),
        )
        .expect("a String takes all");
    }
}

fn sizes(text: &mut String, binary: &Path, starts: &[Started]) -> Result<()> {
    let ours = fs::metadata(binary).with_context(|| format!("{}", binary.display()))?.len();
    let peers: Vec<u64> = starts
        .iter()
        .filter(|start| start.peer_here.is_some())
        .filter_map(|start| Some(fs::metadata(find_peer(start.tool)?).ok()?.len()))
        .collect();
    writeln!(text, "\nSize: netbcc is one static file of {ours} bytes with all of its tools.")?;
    if !peers.is_empty() {
        writeln!(
            text,
            "libbpf-tools' {} files of the same tools have {} bytes, and need libc, libelf and libz.",
            peers.len(),
            peers.iter().sum::<u64>()
        )?;
    }
    Ok(())
}

/// A cost per operation.
struct Share {
    base: f64,
    added: f64,
    reader: f64,
    /// `None`: its rows do not come from single operations.
    rows: Option<f64>,
    per_row: Option<f64>,
}

impl Share {
    fn new(found: &Found, cost: &Cost) -> Self {
        let load = found.subject.load;
        // How often timers send again is theirs to decide: what was seen is counted.
        let count =
            if load == Load::Retransmits { cost.rows.max(1) } else { found.subject.count().into() } as f64;
        let sums = matches!(load, Load::Sends | Load::Datagrams);
        let rows = (!sums).then_some(cost.rows as f64 / count);
        Self {
            base: cost.base as f64 / count,
            added: cost.added as f64 / count,
            reader: cost.reader as f64 / count,
            rows,
            per_row: (!sums && cost.rows > 0).then(|| cost.added as f64 / cost.rows as f64),
        }
    }
}

fn met(yes: bool) -> &'static str {
    if yes { "met" } else { "**missed**" }
}

fn whole(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.0}"))
}

fn rows(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quicker_profile_is_said() {
        assert_eq!(profile(&[]), "release profile");
        let overrides = [("CODEGEN_UNITS".to_owned(), "16".to_owned())];
        assert_eq!(profile(&overrides), "**not the release profile**: codegen-units 16");
    }
}
