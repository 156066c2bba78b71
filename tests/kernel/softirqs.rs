//! softirqs: what is counted, for how long, and in which form.
//!
//! The kernel counts the same handlers itself, in /proc/softirqs: what the tool says lies between what that says of
//! the time inside the run and of the time around it.

use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, note, skip};
use netbcc_tests::net::Net;
use netbcc_tests::raw;
use netbcc_tests::run::Run;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub(crate) const CHECKS: &[Check] = checks![
    runs_that_take_turns_are_all_counted: alone,
    counts_are_those_of_the_kernel,
    counts_of_one_cpu_are_those_of_the_kernel,
    times_of_one_cpu_have_the_counts_of_the_kernel,
    times_are_sorted_and_less_than_the_run,
    histograms_hold_every_run,
    times_are_those_of_a_clock: alone,
];

pub(crate) const ANY: &[Check] = checks![
    blocks_come_at_their_interval_and_end_by_themselves,
    ctrl_c_prints_the_interval_under_way,
    json_rows_carry_every_value,
    sums_over_intervals_lose_nothing,
    two_copies_count_the_same,
];

/// What the kernel counted of a vector: of one CPU, or of all.
fn kernel_count(vector: &str, cpu: Option<usize>) -> u64 {
    let text = fs::read_to_string("/proc/softirqs").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(vector)).expect("the vector is there");
    let counts = line.split_whitespace().skip(1).map(|count| count.parse::<u64>().expect("a number"));
    match cpu {
        Some(cpu) => counts.skip(cpu).take(1).sum(),
        None => counts.sum(),
    }
}

/// Some packets over loopback, each of which the kernel receives in a soft interrupt.
fn traffic(net: &Net) {
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    for _ in 0..20 {
        let conn = client.connect(listener.address());
        let other = listener.accept();
        conn.send(1000);
        other.receive(1000);
    }
}

/// The value of a row.
fn value(lines: &[String], name: &str) -> u64 {
    let row = lines.iter().find_map(|line| line.strip_prefix(&format!("{name:<16} ")));
    row.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// Runs `options` around traffic; what the kernel counted of received packets inside the run, around it, and the end.
fn around(case: &Case, options: &str, cpu: Option<usize>) -> (u64, u64, Ended) {
    let net = Net::new();
    let outer = kernel_count("NET_RX", cpu);
    let run = case.launch(options).start(&net);
    let inner = kernel_count("NET_RX", cpu);
    traffic(&net);
    let inner = kernel_count("NET_RX", cpu) - inner;
    let ended = run.finish();
    (inner, kernel_count("NET_RX", cpu) - outer, ended)
}

fn between(ended: &Ended, inner: u64, count: u64, outer: u64) {
    if !(inner..=outer).contains(&count) {
        ended.fail(&format!("{count} is not between {inner} and {outer}"));
    }
}

fn counts_are_those_of_the_kernel(case: &Case) {
    let (inner, outer, ended) = around(case, "-C", None);
    assert_eq!(
        ended.stdout[..3],
        ["Tracing soft irq events... Hit Ctrl-C to end.", "", "SOFTIRQ          TOTAL_count"]
    );
    assert!(inner >= 20, "{inner}");
    between(&ended, inner, value(&ended.stdout, "net_rx"), outer);
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::new();
    let outer = kernel_count("NET_RX", None);
    let runs = [0, 1].map(|_| case.launch("-C").start(&net));
    let inner = kernel_count("NET_RX", None);
    traffic(&net);
    let inner = kernel_count("NET_RX", None) - inner;
    let ended = runs.map(Run::finish);
    let outer = kernel_count("NET_RX", None) - outer;
    for ended in ended {
        between(&ended, inner, value(&ended.stdout, "net_rx"), outer);
    }
}

fn counts_of_one_cpu_are_those_of_the_kernel(case: &Case) {
    let (inner, outer, ended) = around(case, "-C -c 0", Some(0));
    between(&ended, inner, value(&ended.stdout, "net_rx"), outer);
}

fn times_of_one_cpu_have_the_counts_of_the_kernel(case: &Case) {
    let (inner, outer, ended) = around(case, "-N --count -c 0", Some(0));
    let row = ended.stdout.iter().find_map(|line| line.strip_prefix("net_rx"));
    let count =
        row.map_or(0, |row| row.split_whitespace().nth(1).expect("a count").parse().expect("a number"));
    // Where an exit came before the end of the run, its entry may have come before the beginning.
    between(&ended, inner.saturating_sub(1), count, outer);
}

fn times_are_sorted_and_less_than_the_run(case: &Case) {
    let start = Instant::now();
    let (inner, outer, ended) = around(case, "-N --count", None);
    let most = start.elapsed().as_nanos() * thread_count();
    assert_eq!(
        ended.stdout[..3],
        ["Tracing soft irq event time... Hit Ctrl-C to end.", "", "SOFTIRQ          TOTAL_nsecs TOTAL_count"]
    );
    let rows: Vec<Vec<&str>> =
        ended.stdout[3..].iter().map(|line| line.split_whitespace().collect()).collect();
    let times: Vec<u128> = rows.iter().map(|row| row[1].parse().expect("a number")).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{rows:?}");
    assert!(times.iter().sum::<u128>() <= most, "{rows:?} in {most} ns");
    let received = rows.iter().find(|row| row[0] == "net_rx").unwrap_or_else(|| ended.fail("no net_rx"));
    // Where an exit came before the end of the run, its entry may have come before the beginning.
    let count: u64 = received[2].parse().expect("a number");
    between(&ended, inner.saturating_sub(cpus()), count, outer);
    assert!(received[1].parse::<u64>().expect("a number") >= count, "a run takes longer than 1 ns");
}

/// A task of high priority sends packets in the middle of what another one sends on the same CPU. Where tasks can lose their
/// processor while they handle interrupts (`PREEMPT_RT`), one run then begins before another one has ended.
fn runs_that_take_turns_are_all_counted(case: &Case) {
    const CPU: usize = 0;
    const PACKETS: usize = 1500;
    let net = Net::new();
    let options = ["-C -c 0", "--count -c 0", "--count", "-dN -c 0"];
    // Of that CPU, and of all.
    let now = || [Some(CPU), None].map(|cpu| kernel_count("NET_RX", cpu));
    let before = now();
    let runs = options.map(|options| case.launch(options).start(&net));
    let begin = now();
    let mut only = CpuSet::new();
    only.set(CPU).expect("it is there");
    let done = AtomicBool::new(false);
    let (net, only) = (&net, &only);
    let sender = |host| {
        sched_setaffinity(Pid::from_raw(0), only).expect("CPU 0 is there");
        let from = net.near().enter(|| UdpSocket::bind(net.v4_of(host, 0))).expect("a port");
        let to = net.v4_of(3, 80);
        move || {
            from.send_to(b"x", to).expect("there is a route");
        }
    };
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let send = sender(2);
            raw::real_time(1).expect("we are root");
            while !done.load(Ordering::Relaxed) {
                send();
                // The task of low priority sends meanwhile.
                thread::sleep(Duration::from_micros(100));
            }
        });
        let sent = scope.spawn(move || {
            let send = sender(1);
            (0..PACKETS).for_each(|_| send());
        });
        let sent = sent.join();
        done.store(true, Ordering::Relaxed);
        sent.expect("it sent");
    });
    let end = now();
    let ended = runs.map(Run::finish);
    let after = now();
    let counts: Vec<u64> = ended
        .iter()
        .zip(options)
        .map(|(ended, options)| {
            if options.starts_with("-d") {
                return slots(ended, "net_rx").iter().sum();
            }
            let row = ended.stdout.iter().find_map(|line| line.strip_prefix("net_rx")).unwrap_or_default();
            row.split_whitespace().last().map_or(0, |count| count.parse().expect("a number"))
        })
        .collect();
    for ((ended, options), count) in ended.iter().zip(options).zip(counts) {
        let which = usize::from(!options.contains("-c 0"));
        // Where an exit came before the end of the run, its entry may have come before the beginning.
        let inner = (end[which] - begin[which]).saturating_sub(cpus());
        between(ended, inner, count, after[which] - before[which]);
    }
}

/// The counts of a histogram's slots.
fn slots(ended: &Ended, vector: &str) -> Vec<u64> {
    let title = format!("softirq = {vector}");
    let rows =
        ended.stdout.iter().skip_while(|line| **line != title).skip(2).take_while(|line| !line.is_empty());
    rows.map(|line| line.split([':', '|']).nth(1).and_then(|n| n.trim().parse().ok()).unwrap_or(0)).collect()
}

fn cpus() -> u64 {
    thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}

fn thread_count() -> u128 {
    // All that there are, not only those that we may use.
    let text = fs::read_to_string("/proc/softirqs").expect("/proc is mounted");
    text.lines().next().map_or(1, |header| header.split_whitespace().count() as u128)
}

fn histograms_hold_every_run(case: &Case) {
    let (inner, outer, ended) = around(case, "-dN", None);
    assert_eq!(ended.stdout[..3], ["Tracing soft irq event time... Hit Ctrl-C to end.", "", ""]);
    let at =
        ended.stdout.iter().position(|line| line == "softirq = net_rx").unwrap_or_else(|| ended.fail("none"));
    assert_eq!(ended.stdout[at - 1], "");
    assert_eq!(ended.stdout[at + 1], "     nsecs               : count     distribution");
    assert!(
        ended.stdout[at + 2].starts_with("         0 -> 1          : 0        |"),
        "{}",
        ended.stdout[at + 2]
    );
    let rows: Vec<&str> =
        ended.stdout[at + 2..].iter().map(String::as_str).take_while(|line| !line.is_empty()).collect();
    let count =
        |line: &&str| line.split([':', '|']).nth(1).and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    assert!(count(rows.last().expect("rows")) > 0, "{rows:?}");
    assert_eq!(rows.iter().map(|line| line.matches('*').count()).max(), Some(40), "{rows:?}");
    between(&ended, inner.saturating_sub(cpus()), rows.iter().map(count).sum(), outer);
}

/// What the kernel does with a packet, on one CPU, by the clock of who sends it: as packets come in within the sender's own
/// call, what a call takes at least is the time of a handler, if its work is nearly all of that.
fn times_are_those_of_a_clock(case: &Case) {
    if std::env::var_os("NETBCC_SCATTER").is_some() {
        skip("packets that come in within the sender's call");
    }
    let net = Net::new();
    // Rules that no packet is for, one after the other.
    let rules = "add rule inet probe in udp sport 1 udp dport 2 accept\n".repeat(4000);
    net.near().nft(&format!(
        "add chain inet probe in {{ type filter hook input priority 0; policy drop; }}\n{rules}"
    ));
    let mut told = Vec::new();
    for _ in 0..5 {
        match time_packets(case, &net) {
            // Packets of others were received meanwhile, and what they took is not known.
            None => {}
            Some(wrong) if wrong.is_empty() => return,
            Some(wrong) => told.push(wrong),
        }
    }
    if told.is_empty() {
        note(format!("NOTE {}: others' packets came all the time: times have wide bounds only", case.tool));
    } else {
        panic!("times are not those of the sender's clock, in {} of 5 runs: {told:#?}", told.len());
    }
}

/// How long this thread was ready to run and another had its processor, in all; nothing where the kernel does not say.
fn waited_for_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).map_or(Duration::ZERO, Duration::from_nanos)
}

/// Sends packets, and looks at what the tool says of the time that they took: it fails where that is more than there was,
/// or far too little. Where no others' packets were received: what is less than the usual call took, or more than all.
fn time_packets(case: &Case, net: &Net) -> Option<Vec<String>> {
    const CPU: usize = 0;
    const PACKETS: u32 = 1500;
    let runs = ["-N --count -c 0", "-N --count", "-N", "-c 0", "-d -N", "--json -c 0", "--json -d -c 0"];
    let start = Instant::now();
    let runs = runs.map(|options| (options, case.launch(options).start(net)));
    let me = Pid::from_raw(0);
    let before = sched_getaffinity(me).expect("it is ours");
    let mut only = CpuSet::new();
    only.set(CPU).expect("it is there");
    sched_setaffinity(me, &only).expect("CPU 0 is there");
    let from = net.near().enter(|| UdpSocket::bind(net.v4(0))).expect("a port");
    let send = |_| {
        let call = Instant::now();
        from.send_to(b"x", net.v4_of(2, 80)).expect("there is a route");
        call.elapsed()
    };
    let waited = waited_for_cpu();
    let mut calls: Vec<Duration> = (0..PACKETS).map(send).collect();
    let waited = waited_for_cpu().saturating_sub(waited);
    calls.sort_unstable();
    let shortest = calls[0];
    let usual = (calls[calls.len() / 2] * PACKETS).as_nanos();
    // Where the whole machine stands still, that is in a handler's time, too; where only the sender waits, it is not.
    let all = calls.iter().sum::<Duration>().saturating_sub(waited).as_nanos();
    sched_setaffinity(me, &before).expect("as before");
    // Half of it may be what is not the handler's.
    let least = (shortest * PACKETS).as_nanos() / 2;
    assert!(shortest > Duration::from_micros(20), "{shortest:?} is too short to tell anything");
    let close = usual * 6 / 10..=all.max(usual) * 115 / 100;
    let (mut wrong, mut quiet) = (Vec::new(), true);
    for (options, run) in runs {
        let ended = run.finish();
        let cpus = if options.contains("-c 0") { 1 } else { thread_count() };
        let most = start.elapsed().as_nanos() * cpus;
        let number = |text: &str| text.parse::<u128>().unwrap_or_else(|_| ended.fail(text));
        let (low, high) = if options.contains("--json") {
            let rows =
                ended.stdout.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            rows.filter(|row| row["softirq"] == "net_rx").fold((0, 0), |(low, high), row| {
                let cell = |name: &str| u128::from(row[name].as_u64().expect("a number"));
                if options.contains("-d") {
                    let count = cell("count") * 1000;
                    (low + cell("low_usecs") * count, high + (cell("high_usecs") + 1) * count)
                } else {
                    (low + cell("total_usecs") * 1000, high + cell("total_usecs") * 1000)
                }
            })
        } else if options.contains("-d") {
            let lines = ended.stdout.iter().skip_while(|line| *line != "softirq = net_rx").skip(2);
            let rows = lines.take_while(|line| !line.is_empty()).map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (number(words[0]) * number(words[4]), number(words[2]) * number(words[4]))
            });
            rows.fold((0, 0), |(low, high), row| (low + row.0, high + row.1))
        } else {
            let row = ended.stdout.iter().find_map(|line| line.strip_prefix("net_rx"));
            let mut words = row.unwrap_or_else(|| ended.fail("none")).split_whitespace();
            let time = number(words.next().unwrap_or_else(|| ended.fail("no time")));
            if let Some(count) = words.next() {
                quiet &= number(count) <= u128::from(PACKETS) * 11 / 10;
            }
            let time = time * if options.contains("-N") { 1 } else { 1000 };
            (time, time)
        };
        if high < least || low > most {
            ended.fail(&format!("net_rx took {low} to {high} ns, not {least} to {most}"));
        }
        if high < *close.start() || low > *close.end() {
            wrong.push(format!("{options}: net_rx took {low} to {high} ns, the calls {usual} to {all} ns"));
        }
    }
    quiet.then_some(wrong)
}

fn blocks_come_at_their_interval_and_end_by_themselves(case: &Case) {
    let net = Net::new();
    let start = Instant::now();
    let run = case.launch("-T 1 2").start(&net);
    run.await_lines(3);
    assert!(start.elapsed() >= Duration::from_secs(1), "not before its time");
    let ended = run.ends();
    ended.code(0).quiet();
    assert!(start.elapsed() >= Duration::from_secs(2));
    let heads: Vec<usize> =
        (0..ended.stdout.len()).filter(|&at| ended.stdout[at] == "SOFTIRQ          TOTAL_usecs").collect();
    assert_eq!(heads.len(), 2, "{:?}", ended.stdout);
    for at in heads {
        assert_eq!(ended.stdout[at - 2], "");
        let time = &ended.stdout[at - 1];
        assert!(time.len() == 8 && time.matches(':').count() == 2, "{time:?}");
    }
}

fn ctrl_c_prints_the_interval_under_way(case: &Case) {
    let net = Net::new();
    let run = case.launch("3600 10").start(&net);
    traffic(&net);
    let ended = run.finish();
    assert_eq!(ended.stdout.iter().filter(|line| line.starts_with("SOFTIRQ ")).count(), 1);
    assert!(ended.stdout.iter().any(|line| line.starts_with("net_rx ")), "{:?}", ended.stdout);
}

fn json_rows_carry_every_value(case: &Case) {
    for (options, keys) in [
        ("--json -C", vec!["softirq", "total_count"]),
        ("--json -d", vec!["softirq", "low_usecs", "high_usecs", "count"]),
        ("--json -dN", vec!["softirq", "low_nsecs", "high_nsecs", "count"]),
    ] {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        traffic(&net);
        let ended = run.finish();
        assert!(!ended.stdout.is_empty());
        for line in &ended.stdout {
            let row: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
            for key in ["time", "ts_ns"].iter().chain(&keys) {
                assert!(!row[key].is_null(), "{key} in {line}");
            }
        }
    }
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    let net = Net::new();
    let outer = kernel_count("NET_RX", None);
    let run = case.launch("-C 1").start(&net);
    let inner = kernel_count("NET_RX", None);
    // Banner, and two blocks at least.
    while run.lines().iter().filter(|line| line.starts_with("SOFTIRQ ")).count() < 2 {
        traffic(&net);
    }
    let inner = kernel_count("NET_RX", None) - inner;
    let ended = run.finish();
    let outer = kernel_count("NET_RX", None) - outer;
    let rows = ended.stdout.iter().filter_map(|line| line.strip_prefix("net_rx "));
    let sum = rows.map(|value| value.trim().parse::<u64>().expect("a number")).sum();
    between(&ended, inner, sum, outer);
}
