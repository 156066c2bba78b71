//! The benchmark's tables, as Markdown.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::flood::{self, Flood, Seen};
use super::guest::{Cost, Found, ROUNDS};
use super::size::Size;
use super::subjects::Budget;
use super::{Measured, PLOT, STARTS, Start, Started, version};
use crate::arch::Arch;
use crate::load::Load;
use crate::setup::find_qemu;
use crate::shell::{output, workspace};
use crate::{build, peers};

/// What the tables mean.
const COST: &str = "\
Instructions that a tool adds per operation, everything counted: probes, wake-ups, reading, formatting, writing each row
to a file. One processor, QEMU's `-icount`: the guest's clock counts instructions. A load is run ROUNDS times without the
tool and as often with it, and the median counts; medians without any tool differ by NOISE % of what a load takes. Nothing
stays in TIME_WAIT (`tcp_max_tw_buckets` is 0). Peers run in the same guest under the same load, their rows written at once
as on a terminal (`stdbuf -oL`). BCC's figures are of this run if it was asked for (`--bcc`); else those that there are were
measured once, with BCC 0.26 in such a guest. Budgets of the tools that print events are a fifth of what libbpf-tools' tool
was measured to cost, a twelfth of BCC's where only that has the tool, and set for the rest.";
const LOADS: &str = "\
A *connection* is connect, accept, 64 bytes sent and read, both ends closed (ten changes of state); one that is *reset* is
closed by the accepting end before it read (six). *Send + receive* moves 1000 bytes. A *datagram* of 100 bytes is one
packet out and one in. A *drop* is a segment that a packet filter drops on its way out, a *retransmit* one that it had
dropped on its way in.";
const SPLIT: &str = "\
What the BPF *programs* take of it, by the kernel's own count (`bpf_stats_enabled`) of the same load, with some 30
instructions per run for that; and the *rest*: the ways into the programs, wake-ups, and the reader in user space with its
system calls, formatting and writing. Ratios to libbpf-tools.";
const FLOOD: &str = "\
Connections over loopback (for solisten: listens) as fast as one core of this machine makes them for 10 s, the tool on
another, its rows into a file. *Missing* are rows that should have been and were not; *lost* is what the tool itself says
at its end. *Of a core* is what its process took meanwhile. What else the machine does at the time shows here.";
const KERNEL_MEMORY: &str = "\
The kernel's memory for it once it has started: maps, programs, ring or perf buffers, as the kernel counts them
(`memlock` in fdinfo; ring buffers, of which kernels before 6.6 count nothing, by their size). It does not depend on
traffic: tables are made at their full size.";
const SIZE: &str = "\
BCC's and libbpf-tools' packages are whole, with every package that they cannot run without, down to the C library, by
the sizes that apt's lists give for what is installed.";
const MISSED: &str = "\
What misses its budget, and where it goes. **softirqs**: a message over TCP is two soft interrupts, so four runs of a
program. Measured in the same way, programs that do nothing cost 261 at these tracepoints, typed or not, and 561 by
trampolines at the handler itself; programs that only look at the clock cost 457. What is left finds this CPU's sums and
adds to them. **tcplife**: a second copy of its program runs at each of a connection's ten changes of state. It sees the changes
for which the kernel skips the first copy; without it a busy host loses rows (ARCHITECTURE.md, D8). Before it had a second copy
and the owners of MPTCP's sockets, tcplife took 10323.

Where it is felt most. **tcptop**: the shortest call is a write of 128 bytes that joins others in the socket's buffer, 380 ns
on this machine without a tool. tcptop's tracepoints add some 50 ns, 13 to 17 % (the median of 15 pairs, measured by hand): half
of it in the program, which compares the row that the socket knows and makes one atomic addition, a tenth in finding what is
kept with the socket, the rest on the way into the program. While the kernel takes the time of programs (`bpf_stats_enabled`, as
bpftop does), it is more than twice as much.";
const IDLE: &str = "\
What tools add to each connection while what they look for does not happen: no retransmit, no drop, no listen; and for
tcpconnlat no connect by the process it is told to watch, but one by another, and its answer (a host that only accepts has
neither). *Met* is what is not more than the medians without any tool differ.";
const IDLE_WHY: &str = "\
Before Linux 6.11, which tells the socket that a dropped packet was for, tcpdrop's program runs at each packet that TCP
looks at: to enter and leave a program is most of what that costs, and no function that only dropped packets reach has
both the packet and its socket. tcpconnlat's two programs, at the connect and at its answer, look at each open to tell whose
it is.";
const START: &str = "\
From exec to the first line or to where everything is attached, the median of";
const START_REST: &str = "\
starts on this machine; the most memory that was resident until then. Then the same in the guest, by its clock, waiting
included, and the most memory that was resident after the traffic above. A figure from this machine depends on what else
it does at the time. BCC's netqtop says nothing before its first interval, here of a minute, has ended.";

/// Everything that was measured.
pub(super) fn markdown(kernel: &str, measured: &Measured) -> String {
    let found = &measured.found[..];
    let mut text = String::from(
        "# Benchmarks\n\nMade by `cargo xtask bench`, which measures again and writes this file; `cargo xtask bench TOOL...` only prints.\n\n",
    );
    environment(&mut text, kernel);
    let mut say = |part: String| text.push_str(&part);
    let noise = noise(found);
    let cost = COST.replace("ROUNDS", &ROUNDS.to_string()).replace("NOISE", &format!("{noise:.2}"));
    say(format!(
        "\n## Cost per operation\n\n![A bar per tool and peer, on a logarithmic scale]({PLOT})\n\n{cost}\n\n{LOADS}\n\n"
    ));
    say(costs(found));
    say(format!("\n{MISSED}\n"));
    say(format!("\n### Where it is spent\n\n{SPLIT}\n\n{}", split(found)));
    if found.iter().any(|found| matches!(found.subject.budget, Some(Budget::Nothing))) {
        say(format!("\n## Cost where nothing happens\n\n{IDLE}\n\n"));
        say(format!("{}\n{IDLE_WHY}\n", nothing(found, noise)));
    }
    if !measured.floods.is_empty() {
        say(format!("\n## Flood\n\n{FLOOD}\n\n{}", floods(&measured.floods)));
    }
    say(format!(
        "\n## Start and memory\n\n{START} {STARTS}\n{START_REST}\n\n{}",
        started(&measured.starts, found)
    ));
    say(format!("\n{KERNEL_MEMORY}\n\n{}", kernel_memory(&measured.starts, found)));
    say(format!("\n## Size on disk\n\n{SIZE}\n\n{}", sizes(&measured.sizes, &measured.starts)));
    text
}

/// What was measured, on what.
fn environment(text: &mut String, kernel: &str) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cpus = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let qemu = find_qemu(Arch::HERE)
        .and_then(|qemu| output(qemu.command().arg("--version")).ok())
        .unwrap_or_default();
    let qemu = qemu.lines().next().unwrap_or("unknown").to_owned();
    let here = workspace().display().to_string();
    let commit = version("git", &["-C", &here, "describe", "--always", "--dirty", "--exclude=*"]);
    for (what, value) in [
        ("netbcc", format!("commit {commit}, {}", profile(&build::overrides()))),
        ("compiler", version("rustc", &["--version"])),
        ("machine", format!("{model}, {cpus} processors, Linux {}", version("uname", &["-r"]))),
        ("guest", format!("Linux {kernel} (Debian), 1 processor, {qemu}")),
        ("peer", format!("{} {}", peers::PACKAGE, peer_version())),
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
    let policy =
        output(std::process::Command::new("apt-cache").args(["policy", peers::PACKAGE])).unwrap_or_default();
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate.map_or_else(|| "of unknown version".to_owned(), |version| format!("{version} (Debian)"))
}

fn costs(found: &[Found]) -> String {
    let mut rows = Vec::new();
    for found in counted(found) {
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
        let of_peer = |value: fn(&Share) -> Option<f64>| peer.as_ref().and_then(value);
        rows.push(vec![
            subject.name(),
            subject.load.operation().to_owned(),
            whole(Some(ours.base)),
            whole(Some(ours.added)),
            hundredths(ours.rows),
            whole(ours.per_row),
            budget,
            verdict.to_owned(),
            whole(of_peer(|peer| Some(peer.added))),
            hundredths(of_peer(|peer| peer.rows)),
            whole(of_peer(|peer| peer.per_row)),
            hundredths(peer.as_ref().map(|peer| ours.added / peer.added)),
            whole(bcc_adds(found)),
            hundredths(found.bcc.as_ref().and_then(|cost| Share::new(found, cost).rows)),
        ]);
        if !found.ours.said.is_empty() {
            rows.push(vec![String::new(), format!("it said: {}", found.ours.said)]);
        }
    }
    table(
        "tool | operation | >it takes | >netbcc adds | >rows | >per row | >budget | | >libbpf-tools adds | >rows | \
         >per row | >ratio | >BCC adds | >rows",
        &rows,
    )
}

/// What BCC's tool adds per operation: measured now, else when its figure was taken down.
pub(super) fn bcc_adds(found: &Found) -> Option<f64> {
    let now = found.bcc.as_ref().map(|cost| Share::new(found, cost).added);
    now.or(found.subject.bcc.map(|bcc| bcc as f64))
}

/// Those with an operation that is seen.
fn counted(found: &[Found]) -> impl Iterator<Item = &Found> {
    found.iter().filter(|found| !matches!(found.subject.budget, Some(Budget::Nothing)))
}

fn split(found: &[Found]) -> String {
    let rows = counted(found).map(|found| {
        let ours = Share::new(found, &found.ours);
        let peer = found.peer.as_ref().map(|cost| Share::new(found, cost));
        let ratio = |part: fn(&Share) -> f64| {
            hundredths(peer.as_ref().filter(|peer| part(peer) >= 1.0).map(|peer| part(&ours) / part(peer)))
        };
        let [programs, rest]: [fn(&Share) -> f64; 2] = [|share| share.programs, Share::rest];
        vec![
            found.subject.name(),
            found.subject.load.operation().to_owned(),
            whole(Some(programs(&ours))),
            whole(peer.as_ref().map(programs)),
            ratio(programs),
            whole(Some(rest(&ours))),
            whole(peer.as_ref().map(rest)),
            ratio(rest),
        ]
    });
    table(
        "tool | operation | >netbcc's programs | >libbpf-tools' | >ratio | >netbcc's rest | >libbpf-tools' | >ratio",
        &rows.collect::<Vec<_>>(),
    )
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

fn nothing(found: &[Found], noise: f64) -> String {
    let idle = found.iter().filter(|found| matches!(found.subject.budget, Some(Budget::Nothing)));
    let rows = idle.map(|found| {
        let per = Share::new(found, &found.ours);
        let percent = per.added * 100.0 / per.base;
        vec![
            found.subject.name(),
            whole(Some(per.base)),
            whole(Some(per.added)),
            format!("{percent:.2} %"),
            met(percent <= noise).to_owned(),
        ]
    });
    table("tool | >a connection takes | >netbcc adds | >part of it | ", &rows.collect::<Vec<_>>())
}

fn floods(floods: &[Flood]) -> String {
    let seen = |seen: &Result<Seen>| match seen {
        Ok(seen) => {
            let rate = seen.operations as f64 / flood::SECONDS as f64;
            let lost = format!("{}", seen.due.saturating_sub(seen.rows));
            [
                format!("{rate:.0}"),
                seen.rows.to_string(),
                lost,
                seen.reported.to_string(),
                format!("{:.0} %", seen.cpu * 100.0),
            ]
        }
        Err(why) => [format!("not ({why:#})"), String::new(), String::new(), String::new(), String::new()],
    };
    let mut rows = Vec::new();
    for flood in floods {
        let peer = flood.peer.as_ref().map_or_else(<[String; 5]>::default, seen);
        rows.push([vec![flood.tool.to_owned()], seen(&flood.ours).to_vec(), peer.to_vec()].concat());
        if let Ok(seen) = &flood.ours
            && !seen.said.is_empty()
        {
            rows.push(vec![String::new(), format!("it said: {}", seen.said.replace('\n', " "))]);
        }
    }
    table(
        "tool | >per second | >rows | >missing | >lost, it says | >of a core | >libbpf-tools: per second | >rows | \
         >missing | >lost, it says | >of a core",
        &rows,
    )
}

fn started(starts: &[Started], found: &[Found]) -> String {
    let mut rows = Vec::new();
    for Started { tool, here, peer_here } in starts {
        let of = |start: &Result<Start>| match start {
            Ok(start) => (millis(Some(start)), start.kib.to_string()),
            Err(why) => (format!("not ({why:#})"), String::new()),
        };
        let (ms, kib) = of(here);
        let found = found.iter().find(|found| found.subject.tool == *tool);
        let bcc = found.and_then(|found| found.bcc.as_ref());
        let kibs = |cost: Option<&Cost>| cost.map_or(String::new(), |cost| cost.kib.to_string());
        rows.push(vec![
            (*tool).to_owned(),
            ms,
            kib,
            millis(found.and_then(|found| found.start.as_ref())),
            kibs(found.map(|found| &found.ours)),
            peer_here.as_ref().map_or(String::new(), |start| of(start).0),
            millis(found.and_then(|found| found.peer_start.as_ref())),
            kibs(found.and_then(|found| found.peer.as_ref())),
            bcc.map_or(String::new(), |bcc| format!("{:.1}", bcc.tenths as f64 / 10.0)),
            kibs(bcc),
        ]);
    }
    table(
        "tool | >start here, ms | >memory, KiB | >start in the guest, ms | >memory after traffic, KiB | \
         >libbpf-tools here, ms | >in the guest, ms | >memory after traffic, KiB | >BCC in the guest, s | \
         >memory after traffic, KiB",
        &rows,
    )
}

fn millis(start: Option<&Start>) -> String {
    start.map_or(String::new(), |start| format!("{:.1}", start.ns as f64 / 1e6))
}

fn kernel_memory(starts: &[Started], found: &[Found]) -> String {
    let kib = |start: Option<&Start>| start.map_or(String::new(), |start| (start.kernel / 1024).to_string());
    let rows = starts.iter().map(|Started { tool, here, peer_here }| {
        let found = found.iter().find(|found| found.subject.tool == *tool);
        vec![
            (*tool).to_owned(),
            kib(here.as_ref().ok()),
            kib(found.and_then(|found| found.start.as_ref())),
            kib(peer_here.as_ref().and_then(|start| start.as_ref().ok())),
            kib(found.and_then(|found| found.peer_start.as_ref())),
            found
                .and_then(|found| found.bcc.as_ref())
                .map_or(String::new(), |bcc| (bcc.kernel / 1024).to_string()),
        ]
    });
    table(
        "tool | >here, KiB | >in the guest, KiB | >libbpf-tools here, KiB | >in the guest, KiB | >BCC in the guest, KiB",
        &rows.collect::<Vec<_>>(),
    )
}

fn sizes(sizes: &[Size], starts: &[Started]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for Size { what, bytes } in sizes {
        let bytes = match bytes {
            Ok(bytes) => format!("{:.1}", *bytes as f64 / f64::from(1 << 20)),
            Err(why) => format!("not known ({why:#})"),
        };
        rows.push(vec![what.clone(), bytes]);
    }
    let peers = starts.iter().filter(|start| start.peer_here.is_some());
    let files: Vec<u64> =
        peers.filter_map(|start| Some(fs::metadata(peers::find(start.tool)?).ok()?.len())).collect();
    if !files.is_empty() {
        let what = format!("of libbpf-tools, the files of the same {} tools alone", files.len());
        rows.push(vec![what, format!("{:.1}", files.iter().sum::<u64>() as f64 / f64::from(1 << 20))]);
    }
    table("what | >MiB", &rows)
}

/// A table in Markdown. Columns stand between bars, those to be aligned to the right after a `>`. A short row is one
/// remark, in its last cell.
fn table(columns: &str, rows: &[Vec<String>]) -> String {
    let columns: Vec<&str> = columns.split('|').map(str::trim).collect();
    let names: Vec<&str> = columns.iter().map(|name| name.trim_start_matches('>')).collect();
    let lines = columns.iter().map(|name| if name.starts_with('>') { "--:" } else { "---" });
    let mut text = format!("| {} |\n|{}|\n", names.join(" | "), lines.collect::<Vec<_>>().join("|"));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("a String takes all");
    }
    text
}

/// A cost per operation.
pub(super) struct Share {
    base: f64,
    pub(super) added: f64,
    programs: f64,
    /// `None`: its rows do not come from single operations.
    rows: Option<f64>,
    per_row: Option<f64>,
}

impl Share {
    pub(super) fn new(found: &Found, cost: &Cost) -> Self {
        let load = found.subject.load;
        // How often timers send again is theirs to decide: what was seen is counted.
        let operations = |rows: i64| {
            if load == Load::Retransmits { rows.max(1) as f64 } else { found.subject.count().into() }
        };
        let (count, again) = (operations(cost.rows), operations(cost.again));
        let sums = matches!(load, Load::Sends | Load::Datagrams | Load::Questions);
        let rows = (!sums).then_some(cost.rows as f64 / count);
        Self {
            base: cost.base as f64 / count,
            added: cost.added as f64 / count,
            programs: cost.programs as f64 / again,
            rows,
            per_row: (!sums && cost.rows > 0).then(|| cost.added as f64 / cost.rows as f64),
        }
    }

    /// What the programs do not take.
    fn rest(&self) -> f64 {
        self.added - self.programs
    }
}

fn met(yes: bool) -> &'static str {
    if yes { "met" } else { "**missed**" }
}

fn whole(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.0}"))
}

fn hundredths(value: Option<f64>) -> String {
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

    #[test]
    fn a_table_has_a_line_of_dashes() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = table("tool | >ms | ", &[row(&["tcplife", "7.1", "met"]), row(&["", "it said: x"])]);
        assert_eq!(text, "| tool | ms |  |\n|---|--:|---|\n| tcplife | 7.1 | met |\n|  | it said: x |\n");
    }
}
