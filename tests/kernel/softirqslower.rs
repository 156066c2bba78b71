//! softirqslower: which soft interrupts have rows, and what these say.
//!
//! The kernel counts its handlers itself, in /proc/softirqs: as many runs have a row as the kernel counted, between what it says
//! of the time inside the run and of the time around it.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::Net;
use netbcc_tests::run::{PATIENCE, Run, attached_of};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;

use crate::pairs::is_slow;

pub(crate) const CHECKS: &[Check] = checks![
    every_run_has_a_row,
    the_header_is_exactly_these_bytes,
    what_takes_less_has_no_row,
    a_wait_tells_how_long_others_ran,
    only_what_is_asked_for_has_rows,
    a_cpu_that_was_offline_has_not_waited: alone,
];

const BANNER: &str = "Tracing softirq latency higher than 10000 us... Hit Ctrl-C to end.";
const HEADER: &str = "TIME     STAGE                SOFTIRQ  LAT(us)        CPU    COMM  ";

fn the_header_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let run = case.launch("").start(&net);
    // At once, also into a pipe.
    let lines = run.await_lines(2);
    assert_eq!(lines[..2], [BANNER, HEADER]);
    assert_eq!(HEADER.len(), 67);
    let ended = run.finish();
    for line in &ended.stdout[2..] {
        // No row has the time since boot.
        let cells: Vec<&str> = line[30..].split_whitespace().collect();
        let waited = Duration::from_micros(cells[1].parse().expect("a number"));
        assert!(waited < PATIENCE, "{line}");
    }
}

/// The CPU that this thread, from now on, stays on.
pub(crate) fn stay_on_a_cpu() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("its own");
    let cpu =
        (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu) == Ok(true)).expect("it runs on one");
    let mut only = CpuSet::new();
    only.set(cpu).expect("it is one");
    sched_setaffinity(Pid::from_raw(0), &only).expect("it may");
    cpu
}

/// How often a CPU ran a handler, as the kernel counts.
fn kernel_count(vector: &str, cpu: usize) -> u64 {
    let text = fs::read_to_string("/proc/softirqs").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(vector)).expect("it is there");
    line.split_whitespace().nth(cpu).map_or(0, |count| count.parse().expect("a number"))
}

/// Sends datagrams to where nobody reads them: each is received in a soft interrupt of the CPU that it is sent on.
fn datagrams(net: &Net, count: usize) {
    net.near().enter(|| {
        let far = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let near = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = far.local_addr().expect("it is bound");
        for _ in 0..count {
            near.send_to(b"x", to).expect("loopback takes it");
        }
    });
}

/// The rows of a run that ended, in JSON.
fn rows(ended: &Ended) -> Vec<Value> {
    ended.code(0);
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.stdout.iter().map(parse).collect()
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no {name}: {row}"))
}

/// Of two copies: neither takes rows from the other.
fn every_run_has_a_row(case: &Case) {
    let count = if is_slow() { 101 } else { 1009 };
    let net = Net::new();
    net.near().enter(|| {
        let cpu = stay_on_a_cpu();
        let outer = kernel_count("NET_RX:", cpu);
        let options = format!("--json --softirq net_rx -c {cpu} --x-ring-bytes 4194304 0");
        let runs = [0, 1].map(|_| case.launch(&options).start(&net));
        let inner = kernel_count("NET_RX:", cpu);
        datagrams(&net, count);
        let inner = kernel_count("NET_RX:", cpu) - inner;
        let ended = runs.map(Run::stop);
        let outer = kernel_count("NET_RX:", cpu) - outer;
        assert!(inner >= count as u64 / 2, "{inner} of {count}");
        for ended in &ended {
            let rows = rows(ended);
            assert!(rows.iter().all(|row| row["softirq"] == "net_rx" && number(row, "cpu") == cpu as u64));
            let (mut waits, mut runs, mut waited) = (0, 0, None);
            for row in &rows {
                if row["stage"] == "wait" {
                    assert!(
                        number(row, "raises") >= 1 && number(row, "other_ns") <= number(row, "latency_ns")
                    );
                    waits += 1;
                    waited = Some(number(row, "ts_ns"));
                    continue;
                }
                assert_eq!((&row["stage"], &row["raises"]), (&Value::from("run"), &Value::Null));
                runs += 1;
                if let Some(waited_ns) = waited.take() {
                    // Its handler begins where its wait ends.
                    assert_eq!(number(row, "ts_ns") - number(row, "latency_ns"), waited_ns, "{row}");
                }
            }
            let lost = ended.lost() as u64;
            assert!(
                (inner..=outer).contains(&(runs + lost)) || lost > 0,
                "{runs} of {inner} to {outer}, {lost} lost"
            );
            // What was raised again before it began is one wait of two runs.
            assert!(waits <= runs + 1 && (waits >= runs / 2 || lost > 0), "{waits} waits, {runs} runs");
        }
    });
}

/// Each datagram passes so many rules that its handler takes long.
fn many_rules(net: &Net) {
    let count = if is_slow() { 300 } else { 2000 };
    let rules: Vec<String> =
        (0..count).map(|nth| format!("add rule inet probe in udp dport {} drop\n", 1 + nth % 1000)).collect();
    let chain = "add table inet probe\nadd chain inet probe in { type filter hook input priority 0; }\n";
    net.near().nft(&format!("{chain}{}", rules.concat()));
}

fn what_takes_less_has_no_row(case: &Case) {
    const COUNT: usize = 101;
    const MIN_US: u64 = 10;
    let net = Net::new();
    many_rules(&net);
    net.near().enter(|| {
        let cpu = stay_on_a_cpu();
        let run = case.launch(&format!("--json -c {cpu} {MIN_US}")).start(&net);
        let text = case.launch(&format!("-c {cpu} --softirq net_rx --stage run {MIN_US}")).start(&net);
        datagrams(&net, COUNT);
        let (ended, text) = (run.finish(), text.finish());
        let rows = rows(&ended);
        assert!(rows.iter().all(|row| number(row, "latency_ns") >= MIN_US * 1000));
        let is_run = |row: &&Value| row["stage"] == "run" && row["softirq"] == "net_rx";
        let count = rows.iter().filter(is_run).count();
        assert!(count >= COUNT / 2, "{count} of {COUNT}");
        let lines = &text.stdout[2..];
        assert!(lines.len() >= COUNT / 2, "{} of {COUNT}", lines.len());
        for line in lines {
            assert_eq!(line[8..39], *" softirq runtime      net_rx   ", "{line}");
            assert!(line[39..53].trim().parse::<u64>().is_ok_and(|us| us >= MIN_US), "{line}");
            assert_eq!(line[54..60].trim(), cpu.to_string(), "{line}");
            assert!(line.len() >= 67, "{line}");
        }
    });
}

/// While handlers of packets run most of the time, ticks raise others that have to wait for them.
fn a_wait_tells_how_long_others_ran(case: &Case) {
    let net = Net::new();
    many_rules(&net);
    net.near().enter(|| {
        let cpu = stay_on_a_cpu();
        let run = case
            .launch(&format!("--json --stage wait --softirq timer,sched,rcu,hrtimer -c {cpu} 1"))
            .start(&net);
        let deadline = Instant::now() + PATIENCE;
        loop {
            datagrams(&net, 499);
            let others = run.lines().iter().any(|line| {
                let row: Value = serde_json::from_str(line).expect("JSON");
                assert!(number(&row, "other_ns") <= number(&row, "latency_ns"), "{row}");
                number(&row, "other_ns") * 2 > number(&row, "latency_ns")
            });
            if others {
                break;
            }
            assert!(Instant::now() < deadline, "no wait that others made long: {:?}", run.lines());
        }
        run.stop().code(0);
    });
}

fn only_what_is_asked_for_has_rows(case: &Case) {
    let net = Net::new();
    net.near().enter(|| {
        let cpu = stay_on_a_cpu();
        let options = ["--stage run", "--stage wait", "--softirq rcu,sched", ""];
        let runs = options.map(|options| case.launch(&format!("--json -c {cpu} {options} 0")).start(&net));
        let programs = runs.each_ref().map(|run| attached_of(run.pid()).len());
        // Waits cost a program at each raise.
        assert!(programs[1..].iter().all(|more| *more > programs[0]), "{programs:?}");
        datagrams(&net, 23);
        let ended = runs.map(Run::stop);
        let [only_runs, only_waits, some, all] = [0, 1, 2, 3].map(|nth: usize| rows(&ended[nth]));
        let has = |rows: &[Value], key: &str, value: &str| rows.iter().any(|row| row[key] == value);
        assert!(has(&only_runs, "stage", "run") && !has(&only_runs, "stage", "wait"));
        assert!(has(&only_waits, "stage", "wait") && !has(&only_waits, "stage", "run"));
        assert!(some.iter().all(|row| row["softirq"] == "rcu" || row["softirq"] == "sched"));
        assert!(has(&all, "stage", "wait") && has(&all, "stage", "run") && has(&all, "softirq", "net_rx"));
        let of_cpu = |row: &Value| number(row, "cpu") == cpu as u64;
        assert!([only_runs, only_waits, some, all].iter().flatten().all(of_cpu));
    });
}

/// Only in a guest: the machine's own CPUs are not the tests' to take.
fn a_cpu_that_was_offline_has_not_waited(case: &Case) {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    const OFFLINE: Duration = Duration::from_millis(1500);
    if !is_slow() || fs::read_to_string(ONLINE).map_or(true, |text| text.trim() != "1") {
        skip("a second CPU that may go offline");
    }
    let net = Net::new();
    let run = case.launch("--json --stage wait 1000000").start(&net);
    for _ in 0..3 {
        fs::write(ONLINE, "0").expect("it may go");
        std::thread::sleep(OFFLINE);
        fs::write(ONLINE, "1").expect("it may come back");
        datagrams(&net, 101);
    }
    let ended = run.stop();
    let long: Vec<Value> = rows(&ended).into_iter().filter(|row| number(row, "cpu") == 1).collect();
    assert!(long.is_empty(), "{long:?}");
}
