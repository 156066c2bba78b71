//! The part of the benchmark that runs in a guest: its script, and what it answers.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::subjects::{Budget, Subject};
use super::{Start, start_args};
use crate::compare::disk;
use crate::kernels::Kernel;
use crate::load::{DROPPED_BYTES, DROPPED_PORT, Load};
use crate::peers;
use crate::shell::{say, target};
use crate::vm::Guest;

/// What the guest found about one subject.
pub(super) struct Found {
    pub(super) subject: &'static Subject,
    pub(super) ours: Cost,
    pub(super) peer: Option<Cost>,
    /// `None`: BCC was not asked for, or is no match for this.
    pub(super) bcc: Option<Cost>,
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
    pub(super) rows: i64,
    /// What its BPF programs took when the load was run once more, and the rows of that.
    pub(super) programs: i64,
    pub(super) again: i64,
    /// Most memory that was resident, KiB.
    pub(super) kib: u64,
    /// The kernel's memory for it, bytes.
    pub(super) kernel: u64,
    /// Tenths of a second from its start until it said something.
    pub(super) tenths: u64,
    /// What it said on standard error.
    pub(super) said: String,
}

/// A measurement to be made.
#[derive(Clone)]
struct Contender {
    /// Its place in the list of subjects, and whose tool it is.
    name: String,
    command: String,
    load: Load,
    count: u32,
    /// How often each load is run, without it and with it. An odd number.
    rounds: u32,
    /// How it is told to end. A shell's background commands ignore an interrupt, and netbcc keeps what it was given.
    signal: &'static str,
    /// Seconds for what it still does after the load.
    tail: u32,
}

/// See [`Contender::rounds`].
pub(super) const ROUNDS: u32 = 5;
/// For BCC's tools, which add so much that less is enough, and print for long.
const BCC_ROUNDS: u32 = 3;

/// Measures in one guest.
///
/// # Errors
/// The guest or a tool in it fails.
pub(super) fn measure(
    binary: &Path,
    kernel: &Kernel,
    subjects: &[&'static Subject],
    bcc: Option<PathBuf>,
) -> Result<Vec<Found>> {
    let mut files = vec![
        (binary.to_owned(), "/bin/netbcc".to_owned()),
        (std::env::current_exe().context("this program")?, "/bin/load".to_owned()),
    ];
    // What a tool leaves behind is not to cost netbcc's anything: those are first, and Python's, which are killed, last.
    let [mut ours_all, mut peers_all, mut bcc_all] = [const { Vec::new() }; 3];
    let mut starts = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        let (load, count) = (subject.load, subject.count());
        let rung = subject.rung.map_or(String::new(), |rung| format!("NETBCC_ATTACH={rung} "));
        let command =
            format!("NETBCC_READY_FD=3 {rung}netbcc {} {} 3>/tmp/ready", subject.tool, (subject.args)());
        let name = format!("{index}/ours");
        let ours = Contender { name, command, load, count, rounds: ROUNDS, signal: "TERM", tail: 1 };
        ours_all.push(ours.clone());
        starts.push((
            format!("{index}/ours"),
            format!("netbcc {} {}", subject.tool, start_args(subject.tool).join(" ")),
        ));
        if let (Some(args), Some(_)) = (subject.libbpf, peers::find(subject.tool)) {
            let at = format!("{}/{}", peers::FOLDER, subject.tool);
            let command = format!("stdbuf -oL {at} {args}");
            // Its handler takes an interrupt all the same, and only that one lets it print what it still has.
            peers_all.push(Contender {
                name: format!("{index}/peer"),
                command,
                signal: "INT",
                ..ours.clone()
            });
            starts.push((format!("{index}/peer"), format!("stdbuf -oL {at}")));
        }
        if let (Some(_), Some(args)) = (&bcc, bcc_args(subject)) {
            let command = format!("chroot /bcc /usr/bin/python3 -u /usr/sbin/{}-bpfcc {args}", subject.tool);
            let name = format!("{index}/bcc");
            // Its rows keep coming for seconds. Who adds up prints each second, which has no end.
            let tail = if matches!(load, Load::Sends | Load::Datagrams | Load::Questions) { 1 } else { 20 };
            bcc_all.push(Contender { name, command, rounds: BCC_ROUNDS, tail, ..ours });
        }
    }
    let contenders = [ours_all, peers_all, bcc_all].concat();
    let with_peers = subjects.iter().filter(|subject| subject.libbpf.is_some()).map(|subject| subject.tool);
    files.extend(peers::files(&with_peers.collect::<Vec<_>>()));
    files.sort();
    files.dedup();
    say("counting instructions in a guest (some minutes)");
    let guest = Guest {
        name: format!("bench-{}", std::process::id()),
        kernel,
        memory: 2048,
        smp: 1,
        icount: true,
        panic_on_warn: false,
        files,
        script: if bcc.is_some() { disk::MOUNT } else { "" }.to_owned() + &script(&contenders, &starts),
        timeout: Duration::from_mins(if bcc.is_some() { 240 } else { 90 }),
        disk: bcc,
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
                bcc: cost("bcc")?,
                start: start("ours"),
                peer_start: start("peer"),
            })
        })
        .collect()
}

/// How BCC's tool is called for the same; `None`: it has no such way, or nothing happens that it could show.
fn bcc_args(subject: &Subject) -> Option<String> {
    let args = (subject.args)();
    if subject.rung.is_some() || matches!(subject.budget, Some(Budget::Nothing)) || args.len() > ARGS {
        return None;
    }
    // It says nothing before its first interval ends.
    Some(if subject.tool == "netqtop" { args.replace("3600", "60") } else { args })
}

/// The longest list of arguments that BCC's program can be made of: it compares with each subnet in turn.
const ARGS: usize = 1000;

/// The script's beginning. Nothing stays in TIME_WAIT, where the search for a free port would meet it: how often it does
/// differs from run to run by more than the cheapest tools cost.
const PRELUDE: &str = "\
echo 1 >/proc/sys/kernel/printk
echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets
ran() { read on rest </proc/$1/schedstat; echo $on; }
# Runs load $1 of $2 operations $3 times: the median is took. What process $5, if there is one, does in the $4 s after each
# is spent, on average.
load() {
    all= spent=0 round=0
    while [ $round -lt $3 ]; do
        sleep 5
        all=\"$all $(/bin/load load $1 $2)\"
        [ -z \"$5\" ] || { spent=$((spent-$(ran $5))); sleep $4; spent=$((spent+$(ran $5))); }
        round=$((round+1))
    done
    spent=$((spent/$3))
    took=$(printf '%s\\n' $all | sort -n | sed -n $((($3+1)/2))p)
}
for warm in connects resets listens sends datagrams; do /bin/load load $warm 301 >/dev/null; done
nft add table ip bench
";

/// For each contender: its load without it, then with it, then what it still does after it. The tool's own time comes
/// from schedstat (ns on a processor); on one processor, where time is instructions, all that an operation costs is
/// either in the load's time or in that tail. Then the load once more while the kernel takes the time of each BPF program,
/// which itself costs something.
fn script(contenders: &[Contender], starts: &[(String, String)]) -> String {
    let mut text = PRELUDE.to_owned();
    for (name, command) in starts {
        writeln!(text, "echo start {name} $(/bin/load load start {command})").expect("a String takes all");
    }
    for Contender { name, command, load, count, rounds, signal, tail } in contenders {
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
            "load {load} {count} {rounds}\n\
             base=$took\n\
             rm -f /tmp/ready /tmp/rows\n\
             {command} >/tmp/rows 2>/tmp/err &\n\
             pid=$!\n\
             tries=0\n\
             while [ ! -s /tmp/ready ] && [ ! -s /tmp/rows ] && [ $tries -lt 3000 ]; do sleep 0.1; tries=$((tries+1)); done\n\
             load {load} {count} {rounds} {tail} $pid\n\
             with=$took tail=$spent\n\
             while read key value rest; do [ $key = VmHWM: ] && peak=$value; done </proc/$pid/status\n\
             kernel=$(/bin/load load memory $pid)\n\
             rows=$(grep -c 127.0.0.1 /tmp/rows)\n\
             echo 1 >/proc/sys/kernel/bpf_stats_enabled\n\
             load {load} {count} 1 {tail} $pid\n\
             programs=$(/bin/load load programs $pid)\n\
             echo 0 >/proc/sys/kernel/bpf_stats_enabled\n\
             again=$(($(grep -c 127.0.0.1 /tmp/rows)-rows))\n\
             kill -{signal} $pid; wait $pid\n\
             echo \"result {name} $base $with $tail $((rows/{rounds})) $programs $again $peak $kernel $tries $(head -c 300 /tmp/err | tr '\\n' ' ')\"\n"
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
    let [base, with, tail, rows, programs, again, kib, kernel, tenths, said @ ..] = &words[..] else {
        bail!("the guest said: {line}")
    };
    let numbers = [base, with, tail, rows, programs, again].map(|word| word.parse::<i64>());
    let [Ok(base), Ok(with), Ok(tail), Ok(rows), Ok(programs), Ok(again)] = numbers else {
        bail!("the guest said: {line}")
    };
    let sizes = [kib, kernel, tenths].map(|word| word.parse::<u64>());
    let [Ok(kib), Ok(kernel), Ok(tenths)] = sizes else { bail!("the guest said: {line}") };
    let added = with - base + tail;
    Ok(Cost { base, added, rows, programs, again, kib, kernel, tenths, said: said.join(" ") })
}

fn parse_start(line: &str) -> Option<Start> {
    let words: Vec<&str> = line.split(' ').collect();
    let [ns, kib, kernel] = words[..] else { return None };
    Some(Start { ns: ns.parse().ok()?, kib: kib.parse().ok()?, kernel: kernel.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_counts_and_names_are_whole() {
        let text = "start 1/ours 5000 17 4096\nresult 12/ours 1 2 3 4 5 6 7 8 9\nresult 1/ours 100 150 7 4 30 5 2048 4096 3 a word\n";
        let cost = parse(line(text, "result", "1/ours").expect("is there")).expect("fits");
        let said = "a word".to_owned();
        assert_eq!(
            cost,
            Cost {
                base: 100,
                added: 57,
                rows: 4,
                programs: 30,
                again: 5,
                kib: 2048,
                kernel: 4096,
                tenths: 3,
                said
            }
        );
        assert_eq!(
            line(text, "start", "1/ours").and_then(parse_start),
            Some(Start { ns: 5000, kib: 17, kernel: 4096 })
        );
        assert_eq!(line(text, "result", "2/ours"), None);
        assert!(parse("1 2 x 4 5 6 7 8 9").is_err());
    }

    #[test]
    fn bcc_is_asked_what_it_can() {
        use super::super::subjects::SUBJECTS;
        let asked: Vec<String> = SUBJECTS
            .iter()
            .filter_map(|subject| Some(format!("{} {}", subject.tool, bcc_args(subject)?)))
            .collect();
        assert!(asked.contains(&"netqtop -n lo -i 60".to_owned()), "{asked:?}");
        assert!(asked.iter().all(|command| command.len() < ARGS));
    }
}
