//! The part of the benchmark that runs in a guest: its script, and what it answers.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::subjects::{Budget, Subject};
use super::{Start, find_peer, peer_libraries, start_args};
use crate::kernels::Kernel;
use crate::load::{DROPPED_BYTES, DROPPED_PORT, Load};
use crate::shell::{say, target};
use crate::vm::Guest;

/// What the guest found about one subject.
pub(super) struct Found {
    pub(super) subject: &'static Subject,
    pub(super) ours: Cost,
    pub(super) peer: Option<Cost>,
    pub(super) start: Option<Start>,
    pub(super) peer_start: Option<Start>,
}

/// What a tool cost under a load. Instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// The load without the tool.
    pub(super) base: i64,
    /// What the tool added, all that it did afterwards included.
    pub(super) added: i64,
    /// What of it the tool's own process spent, in its system calls too.
    pub(super) reader: i64,
    pub(super) rows: i64,
    /// Most memory that was resident, KiB.
    pub(super) kib: u64,
    /// What it said on standard error.
    pub(super) said: String,
}

/// A measurement to be made.
struct Contender {
    /// Its place in the list of subjects, and whose tool it is.
    name: String,
    command: String,
    load: Load,
    count: u32,
    /// How often each load is run; the shortest counts. Now and then one takes half a percent more whatever the tool does,
    /// which is nothing beside a cost, but much beside nothing.
    rounds: u32,
}

/// Where peers and their libraries lie in the guest.
const PEERS: &str = "/peer";
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// The library by which coreutils' stdbuf works.
const LIBSTDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";

/// Measures in one guest.
///
/// # Errors
/// The guest or a tool in it fails.
pub(super) fn measure(binary: &Path, kernel: &Kernel, subjects: &[&'static Subject]) -> Result<Vec<Found>> {
    let mut files = vec![
        (binary.to_owned(), "/bin/netbcc".to_owned()),
        (std::env::current_exe().context("this program")?, "/bin/load".to_owned()),
    ];
    let (mut contenders, mut starts) = (Vec::new(), Vec::new());
    for (index, subject) in subjects.iter().enumerate() {
        let (load, count) = (subject.load, subject.count());
        let rounds = if matches!(subject.budget, Some(Budget::Nothing)) { 3 } else { 1 };
        let rung = subject.rung.map_or(String::new(), |rung| format!("NETBCC_ATTACH={rung} "));
        let command =
            format!("NETBCC_READY_FD=3 {rung}netbcc {} {} 3>/tmp/ready", subject.tool, (subject.args)());
        contenders.push(Contender { name: format!("{index}/ours"), command, load, count, rounds });
        starts.push((
            format!("{index}/ours"),
            format!("netbcc {} {}", subject.tool, start_args(subject.tool).join(" ")),
        ));
        if let (Some(args), Some(peer)) = (subject.libbpf, find_peer(subject.tool)) {
            let at = format!("{PEERS}/{}", subject.tool);
            files.push((peer, at.clone()));
            let command = format!("stdbuf -oL {at} {args}");
            contenders.push(Contender { name: format!("{index}/peer"), command, load, count, rounds });
            starts.push((format!("{index}/peer"), format!("stdbuf -oL {at}")));
        }
    }
    if files.len() > 2 {
        files.extend(
            [("/usr/bin/stdbuf", "/bin/stdbuf"), (LIBSTDBUF, LIBSTDBUF)]
                .map(|(from, to)| (from.into(), to.to_owned())),
        );
        files.extend(libraries());
    }
    files.sort();
    files.dedup();
    say("counting instructions in a guest (some minutes)");
    let guest = Guest {
        name: format!("bench-{}", std::process::id()),
        kernel,
        memory: 2048,
        smp: 1,
        icount: true,
        disk: None,
        files,
        script: script(&contenders, &starts),
        timeout: Duration::from_mins(40),
    };
    let outcome = guest.run(say)?;
    fs::remove_dir_all(target().join("vm").join(&guest.name))?;
    subjects
        .iter()
        .enumerate()
        .map(|(index, subject)| {
            let cost = |whose: &str| {
                line(&outcome.output, "result", &format!("{index}/{whose}")).map(parse).transpose()
            };
            let start = |whose: &str| {
                line(&outcome.output, "start", &format!("{index}/{whose}")).and_then(parse_start)
            };
            Ok(Found {
                subject,
                ours: cost("ours")?
                    .with_context(|| format!("the guest says nothing of {}", subject.name()))?,
                peer: cost("peer")?,
                start: start("ours"),
                peer_start: start("peer"),
            })
        })
        .collect()
}

/// The peers' libraries that are not this machine's own.
fn libraries() -> Vec<(PathBuf, String)> {
    let folders = peer_libraries().into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let files = folders.flatten().filter_map(Result::ok).filter(|entry| entry.path().is_file());
    files
        .map(|entry| (entry.path(), format!("{LIBRARIES}/{}", entry.file_name().to_string_lossy())))
        .collect()
}

/// The script's beginning. A minute before each load, which costs nothing here, so that no connection of an earlier one
/// is left in TIME_WAIT, where the search for a free port would meet it.
const PRELUDE: &str = "\
load() { /bin/load load $1 $2; }
least() {
    least=
    for round in $(seq $3); do took=$(load $1 $2); [ -n \"$least\" ] && [ $least -lt $took ] || least=$took; [ $3 = 1 ] || sleep 61; done
    echo $least
}
for warm in connects resets listens sends datagrams; do /bin/load load $warm 301 >/dev/null; done
nft add table ip bench
";

/// For each contender: its load without it, then with it, then what it still does after it. The tool's own time comes
/// from schedstat (ns on a processor); on one processor, where time is instructions, all that an operation costs is
/// either in the load's time or in that tail.
fn script(contenders: &[Contender], starts: &[(String, String)]) -> String {
    let mut text = PRELUDE.to_owned();
    for (name, command) in starts {
        writeln!(text, "echo start {name} $(/bin/load load start {command})").expect("a String takes all");
    }
    for Contender { name, command, load, count, rounds } in contenders {
        let filter = match load {
            Load::Drops => Some("output"),
            Load::Retransmits => Some("input"),
            _ => None,
        };
        if let Some(hook) = filter {
            writeln!(
                text,
                "nft add chain ip bench drops '{{ type filter hook {hook} priority 0; }}'\n\
                 nft add rule ip bench drops tcp dport {DROPPED_PORT} ip length '>' {DROPPED_BYTES} drop"
            )
            .expect("a String takes all");
        }
        let load = load.name();
        write!(
            text,
            "sleep 61\n\
             base=$(least {load} {count} {rounds})\n\
             rm -f /tmp/ready /tmp/rows\n\
             {command} >/tmp/rows 2>/tmp/err &\n\
             pid=$!\n\
             tries=0\n\
             while [ ! -s /tmp/ready ] && [ ! -s /tmp/rows ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done\n\
             sleep 61\n\
             read first rest </proc/$pid/schedstat\n\
             with=$(least {load} {count} {rounds})\n\
             read before rest </proc/$pid/schedstat\n\
             sleep 1\n\
             read after rest </proc/$pid/schedstat\n\
             while read key value rest; do [ $key = VmHWM: ] && peak=$value; done </proc/$pid/status\n\
             rows=$(grep -c 127.0.0.1 /tmp/rows)\n\
             kill -INT $pid; wait $pid\n\
             echo \"result {name} $base $with $((after-before)) $((after-first)) $rows $peak $(head -c 300 /tmp/err | tr '\\n' ' ')\"\n"
        )
        .expect("a String takes all");
        if filter.is_some() {
            text.push_str("nft delete chain ip bench drops\n");
        }
    }
    text
}

/// What stands after `kind` and `name` in the guest's output.
fn line<'a>(text: &'a str, kind: &str, name: &str) -> Option<&'a str> {
    let rest =
        |line: &'a str| line.strip_prefix(kind)?.strip_prefix(' ')?.strip_prefix(name)?.strip_prefix(' ');
    text.lines().find_map(rest)
}

fn parse(line: &str) -> Result<Cost> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [base, with, tail, reader, rows, kib, said @ ..] = &words[..] else {
        bail!("the guest said: {line}")
    };
    let numbers = [base, with, tail, reader, rows].map(|word| word.parse::<i64>());
    let [Ok(base), Ok(with), Ok(tail), Ok(reader), Ok(rows)] = numbers else {
        bail!("the guest said: {line}")
    };
    let kib = kib.parse().with_context(|| format!("the guest said: {line}"))?;
    Ok(Cost { base, added: with - base + tail, reader, rows, kib, said: said.join(" ") })
}

fn parse_start(line: &str) -> Option<Start> {
    let (ns, kib) = line.split_once(' ')?;
    Some(Start { ns: ns.parse().ok()?, kib: kib.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_counts_and_names_are_whole() {
        let text =
            "start 1/ours 5000 17\nresult 12/ours 1 2 3 4 5 6\nresult 1/ours 100 150 7 30 4 2048 a word\n";
        let cost = parse(line(text, "result", "1/ours").expect("is there")).expect("fits");
        let said = "a word".to_owned();
        assert_eq!(cost, Cost { base: 100, added: 57, reader: 30, rows: 4, kib: 2048, said });
        assert_eq!(line(text, "start", "1/ours").and_then(parse_start), Some(Start { ns: 5000, kib: 17 }));
        assert_eq!(line(text, "result", "2/ours"), None);
        assert!(parse("1 2 x 4 5 6").is_err());
    }
}
