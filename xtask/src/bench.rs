//! `cargo xtask bench`: what a tool costs. Start-up and memory on this machine's kernel; instructions per connection or
//! send in a guest whose time counts instructions (QEMU's `-icount`), which noise on this machine cannot change.
//!
//! Beside each figure stands that of libbpf-tools, where Debian's package is installed, and the budget.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::kernels::Line;
use crate::shell::{find_program, is_root, say, target};
use crate::vm::Guest;
use crate::{build, setup};

/// A tool and what it may cost.
struct Subject {
    tool: &'static str,
    /// Instructions per connection that libbpf-tools' tool was measured to cost; a third of it is the budget.
    peer_instructions: i64,
}

const SUBJECTS: [Subject; 3] = [
    Subject { tool: "tcpconnect", peer_instructions: 20_800 },
    Subject { tool: "tcplife", peer_instructions: 57_000 },
    Subject { tool: "tcpstates", peer_instructions: 100_600 },
];

/// A tool that counts sends or packets, its arguments, how it is hooked, and the budget of instructions per send.
struct Sampler {
    name: &'static str,
    args: fn() -> String,
    rung: &'static str,
    load: &'static str,
    budget: Option<i64>,
}

const SAMPLERS: [Sampler; 6] = [
    Sampler {
        name: "tcpsubnet/5",
        args: || "tcpsubnet -i 3600".to_owned(),
        rung: "fexit",
        load: "sends",
        budget: Some(350),
    },
    Sampler { name: "tcpsubnet/5000", args: many_subnets, rung: "fexit", load: "sends", budget: Some(350) },
    Sampler {
        name: "tcpsubnet/5/kprobe",
        args: || "tcpsubnet -i 3600".to_owned(),
        rung: "kprobe",
        load: "sends",
        budget: None,
    },
    Sampler {
        name: "tcpsubnet/5000/kprobe",
        args: many_subnets,
        rung: "kprobe",
        load: "sends",
        budget: None,
    },
    // One packet out and one in.
    Sampler { name: "netqtop", args: queues_of_lo, rung: "tracepoint", load: "datagrams", budget: Some(400) },
    Sampler { name: "netqtop/raw_tp", args: queues_of_lo, rung: "raw_tp", load: "datagrams", budget: None },
];

fn queues_of_lo() -> String {
    "netqtop -n lo -i 3600".to_owned()
}

/// tcpsubnet with 5000 subnets, and that of the traffic at their end.
fn many_subnets() -> String {
    let subnet = |nth: u32| format!("127.{}.{}.0/24", 1 + nth % 200, nth / 200);
    let others: Vec<String> = (0..5000).map(subnet).collect();
    format!("tcpsubnet -i 3600 {},127.0.0.1/32", others.join(","))
}

/// Starts per tool; the median counts.
const STARTS: usize = 9;
/// Budgets of a start on this machine's kernel.
const START_MS: f64 = 10.0;
const START_KIB: u64 = 8 << 10;
/// Connections per measurement.
const CONNECTIONS: u32 = 3001;
/// Sends or datagrams per measurement.
const SENDS: u32 = 20_001;

/// What is measured in the guest.
struct Contender {
    name: String,
    command: String,
    /// The traffic, and how much of it.
    load: (&'static str, u32),
}

/// Measures and prints.
///
/// # Errors
/// Set-up, the build, a tool or the guest fails.
pub(crate) fn bench(args: &[OsString]) -> Result<ExitCode> {
    if !args.is_empty() {
        bail!("bench takes no arguments");
    }
    setup::satisfy(&[setup::BUILD, &setup::guests(&[Line::V6_1])].concat())?;
    let binary = build::dist()?;
    let mut report = String::new();
    starts(&binary, &mut report)?;
    costs(&binary, &mut report)?;
    println!("\n{report}");
    Ok(ExitCode::SUCCESS)
}

/// From exec to the header, and the most memory that was resident until then.
fn starts(binary: &Path, report: &mut String) -> Result<()> {
    if !is_root() {
        writeln!(report, "start-up: not measured, because this is not root")?;
        return Ok(());
    }
    writeln!(report, "exec to header on this kernel, median of {STARTS}; peak resident memory")?;
    for Subject { tool, .. } in SUBJECTS {
        let mut command = Command::new(binary);
        let (ours_ms, ours_kib) = start_median(command.arg(tool))?;
        let peer = find_peer(tool).map(|peer| {
            // Its header would stay in a buffer; a line buffer is what a terminal would give it.
            let mut command = Command::new("stdbuf");
            start_median(command.arg("-oL").arg(peer))
        });
        let peer = match peer {
            Some(Ok((ms, kib))) => format!("libbpf-tools {ms:.1} ms, {kib} KiB"),
            Some(Err(why)) => format!("libbpf-tools does not start here ({why:#})"),
            None => "libbpf-tools is not installed".to_owned(),
        };
        writeln!(
            report,
            "  {tool:<12} {ours_ms:6.1} ms, {ours_kib} KiB   budget {START_MS:.0} ms, {START_KIB} KiB   {peer}"
        )?;
    }
    Ok(())
}

fn find_peer(tool: &str) -> Option<std::path::PathBuf> {
    find_program(&format!("bpf-{tool}")).or_else(|| find_program(tool))
}

fn start_median(command: &mut Command) -> Result<(f64, u64)> {
    let mut times = Vec::new();
    let mut peak = 0;
    for _ in 0..STARTS {
        let (time, kib) = start_once(command)?;
        times.push(time);
        peak = peak.max(kib);
    }
    times.sort_unstable();
    Ok((times[STARTS / 2].as_secs_f64() * 1e3, peak))
}

fn start_once(command: &mut Command) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Stopped(child.context("start the tool")?);
    let stdout = child.0.stdout.take().context("its output")?;
    let mut line = String::new();
    // Kept open until its memory is read: a tool whose reader is gone ends.
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).context("its header")?;
    let time = start.elapsed();
    if line.is_empty() {
        bail!("it ends without a header");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib = peak.trim().trim_end_matches("kB").trim().parse().context("VmHWM")?;
    Ok((time, kib))
}

/// A tool that does not outlive the measurement.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The guest's script. For each contender: connections without it, then with it, then what it still does after them.
/// The tool's own time comes from schedstat (ns on a processor); on one processor, where time is instructions, all
/// that a connection costs is either in the loop's time or in that tail.
fn script(contenders: &[Contender]) -> String {
    let mut text = String::from(
        "load() { /bin/load load $1 $2; }\nload connects 301 >/dev/null; load sends 301 >/dev/null; load datagrams 301 >/dev/null\n",
    );
    for Contender { name, command, load: (load, count) } in contenders {
        write!(
            text,
            "base=$(load {load} {count})\n\
             {command} >/tmp/rows 2>/tmp/err &\n\
             pid=$!\n\
             tries=0\n\
             while [ ! -s /tmp/rows ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done\n\
             sleep 0.3\n\
             with=$(load {load} {count})\n\
             read before rest </proc/$pid/schedstat\n\
             sleep 1\n\
             read after rest </proc/$pid/schedstat\n\
             kill -INT $pid; wait $pid\n\
             echo \"result {name} $base $with $((after-before)) $(grep -c 127.0.0.1 /tmp/rows) $(head -c 200 /tmp/err | tr '\\n' ' ')\"\n"
        )
        .expect("a String takes all");
    }
    text
}

fn costs(binary: &Path, report: &mut String) -> Result<()> {
    let kernel = Line::V6_1.find().context("the kernel was there a moment ago")?;
    let mut files = vec![
        (binary.to_owned(), "/bin/netbcc".to_owned()),
        (std::env::current_exe().context("this program")?, "/bin/load".to_owned()),
    ];
    let mut contenders = Vec::new();
    for Subject { tool, .. } in SUBJECTS {
        let load = ("connects", CONNECTIONS);
        contenders.push(Contender { name: tool.to_owned(), command: format!("netbcc {tool}"), load });
        if let Some(peer) = find_peer(tool) {
            let at = format!("/peer/{tool}");
            files.push((peer, at.clone()));
            contenders.push(Contender {
                name: format!("{tool}/libbpf-tools"),
                command: format!("stdbuf -oL {at}"),
                load,
            });
        }
    }
    if contenders.len() > SUBJECTS.len() {
        for (program, at) in [("/usr/bin/stdbuf", "/bin/stdbuf"), (LIBSTDBUF, LIBSTDBUF)] {
            files.push((program.into(), at.to_owned()));
        }
    }
    for Sampler { name, args, rung, load, .. } in SAMPLERS {
        let command = format!("env NETBCC_ATTACH={rung} netbcc {}", args());
        contenders.push(Contender { name: name.to_owned(), command, load: (load, SENDS) });
    }
    say("counting instructions in a guest (some minutes)");
    let guest = Guest {
        name: format!("bench-{}", std::process::id()),
        kernel: &kernel,
        memory: 2048,
        smp: 1,
        icount: true,
        files,
        script: script(&contenders),
        timeout: Duration::from_mins(20),
    };
    let outcome = guest.run(say)?;
    fs::remove_dir_all(target().join("vm").join(&guest.name))?;
    writeln!(
        report,
        "instructions added per loopback connection, send or datagram, {} under -icount",
        kernel.release
    )?;
    for line in outcome.output.lines().filter_map(|line| line.strip_prefix("result ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, base, with, tail, rows, said @ ..] = &words[..] else { bail!("the guest said: {line}") };
        let [base, with, tail] = [base, with, tail].map(|word| word.parse::<i64>());
        let contender = contenders.iter().find(|contender| contender.name == *name);
        let (load, count) = contender.with_context(|| format!("the guest said: {line}"))?.load;
        let (base, count) = (base?, i64::from(count));
        let added = (with? - base + tail?) / count;
        write!(report, "  {name:<24} {added:7} on {:6}   {rows} rows of {count} {load}", base / count)?;
        let budget = SUBJECTS.iter().find(|subject| subject.tool == *name).map(|s| s.peer_instructions / 3);
        let sampler = SAMPLERS.iter().find(|sampler| sampler.name == *name);
        if let Some(budget) = budget.or(sampler.and_then(|sampler| sampler.budget)) {
            write!(report, "   budget {budget}")?;
        }
        writeln!(report, "   {}", said.join(" "))?;
    }
    Ok(())
}

/// The library by which coreutils' stdbuf works.
const LIBSTDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";
