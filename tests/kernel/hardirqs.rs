//! hardirqs: what is counted, for how long, and in which form.
//!
//! The kernel counts the same calls itself, in /proc/interrupts: what the tool says lies between what that says of the time
//! inside the run and of the time around it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::laws::now;
use netbcc_tests::net::Net;
use netbcc_tests::run::{PATIENCE, Run};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::softirqslower::stay_on_a_cpu;

pub(crate) const CHECKS: &[Check] = checks![
    blocks_come_at_their_interval_and_end_by_themselves,
    counts_are_those_of_the_kernel,
    vectors_are_those_of_the_kernel,
];

pub(crate) const ANY: &[Check] =
    checks![ctrl_c_prints_the_interval_under_way, times_are_those_of_a_clock: alone];

/// How often each CPU took an interrupt: by the name of its only handler, or by the kernel's label.
pub(crate) fn kernel_counts() -> BTreeMap<String, Vec<u64>> {
    let text = fs::read_to_string("/proc/interrupts").expect("/proc is mounted");
    let mut lines = text.lines();
    let cpus = lines.next().map_or(0, |header| header.split_whitespace().count());
    let count = |line: &str| {
        let (label, rest) = line.trim().split_once(':')?;
        let counts: Vec<u64> =
            rest.split_whitespace().take(cpus).map_while(|count| count.parse().ok()).collect();
        let name = match label.parse::<u32>() {
            // A line that is shared is counted once for all of its handlers.
            Ok(_) if rest.contains(", ") => return None,
            Ok(_) => rest.split_whitespace().nth(cpus).and(rest.split_whitespace().last())?,
            Err(_) => label,
        };
        (counts.len() == cpus).then(|| (name.to_owned(), counts))
    };
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (name, counts) in lines.filter_map(count) {
        let sums = all.entry(name).or_insert_with(|| vec![0; cpus]);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    all
}

/// Makes disk interrupts, where there is a disk; and lasts until timers have interrupted, too.
pub(crate) fn stir() {
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(ToOwned::to_owned));
    for _ in 0..23 {
        let file = folder.as_ref().and_then(|folder| tempfile::tempfile_in(folder).ok());
        let file = file.or_else(|| tempfile::tempfile().ok());
        let wrote = |mut file: File| file.write_all(&[1; 4096]).and_then(|()| file.sync_all());
        let _no_disk_is_fine = file.map(wrote);
    }
    if cfg!(target_arch = "x86_64") {
        let timers = || kernel_counts()["LOC"].iter().sum::<u64>();
        let (before, deadline) = (timers(), Instant::now() + PATIENCE);
        while timers() < before + 7 {
            assert!(Instant::now() < deadline, "no timer fires");
        }
    }
}

/// The count of a name, in a text of a single block.
fn value(ended: &Ended, name: &str) -> u64 {
    let row = ended.stdout.iter().find_map(|line| line.strip_prefix(&format!("{name:<26} ")));
    row.map_or(0, |value| value.trim().parse().expect("a number"))
}

fn blocks_come_at_their_interval_and_end_by_themselves(case: &Case) {
    let net = Net::new();
    let start = Instant::now();
    let ended = case.launch("-T 1 2").start(&net).ends();
    ended.code(0).quiet();
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(ended.stdout[..2], ["Tracing hard irq event time... Hit Ctrl-C to end.", ""]);
    let heads: Vec<usize> = (0..ended.stdout.len())
        .filter(|&at| ended.stdout[at] == "HARDIRQ                    TOTAL_usecs")
        .collect();
    assert_eq!(heads.len(), 2, "{:?}", ended.stdout);
    for at in heads {
        assert_eq!(ended.stdout[at - 2], "");
        let time = &ended.stdout[at - 1];
        assert!(time.len() == 8 && time.matches(':').count() == 2, "{time:?}");
    }
}

/// Of each handler, and in each form: the counts, and times that are less than there was.
fn counts_are_those_of_the_kernel(case: &Case) {
    let net = Net::new();
    let begin = Instant::now();
    let outer = kernel_counts();
    let runs = ["-C", "-d -N", "--json --per-cpu"].map(|options| case.launch(options).start(&net));
    let inner = kernel_counts();
    stir();
    let inner_end = kernel_counts();
    let [counts, slots, json] = runs.map(Run::finish);
    let outer_end = kernel_counts();
    let most_ns = begin.elapsed().as_nanos();
    assert_eq!(
        counts.stdout[..3],
        ["Tracing hard irq events... Hit Ctrl-C to end.", "", "HARDIRQ                    TOTAL_count"]
    );
    let rows: Vec<serde_json::Value> =
        json.stdout.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let cell = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or_else(|| json.fail(name));
    let mut looked_at = 0;
    for (name, sums) in &inner {
        // The kernel's own labels are in capitals, and these have no handler.
        let is_label = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        let sum = |counts: &BTreeMap<String, Vec<u64>>| counts.get(name).map_or(0, |sums| sums.iter().sum());
        let least = sum(&inner_end) - sums.iter().sum::<u64>();
        if is_label || least == 0 {
            continue;
        }
        looked_at += 1;
        let bounds = least..=sum(&outer_end) - sum(&outer);
        let count = value(&counts, name);
        assert!(bounds.contains(&count), "{name}: {count}, not {bounds:?}: {:?}", counts.stdout);
        // What began before the start has no time.
        let bounds = least.saturating_sub(sums.len() as u64)..=*bounds.end();
        let lines = slots.stdout.iter().skip_while(|line| **line != format!("hardirq = {name}")).skip(2);
        let counted = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split([':', '|']).nth(1)?.trim().parse::<u64>().ok());
        let count = counted.sum();
        assert!(bounds.contains(&count), "{name}: {count}, not {bounds:?}: {:?}", slots.stdout);
        let of_name = || rows.iter().filter(|row| row["hardirq"] == **name);
        let count = of_name().map(|row| cell(row, "count")).sum();
        assert!(bounds.contains(&count), "{name}: {count}, not {bounds:?}: {:?}", json.stdout);
        for row in of_name() {
            let (total_us, max_ns) = (cell(row, "total_usecs"), cell(row, "max_nsecs"));
            assert!(u128::from(total_us) * 1000 <= most_ns, "{row} in {most_ns} ns");
            assert!(max_ns > 0 && max_ns / 1000 <= total_us.max(1), "{row}");
            assert!(cell(row, "cpu") < sums.len() as u64 && row["irq"].is_array(), "{row}");
        }
    }
    if looked_at == 0 {
        skip("no device interrupted this machine meanwhile");
    }
}

fn vectors_are_those_of_the_kernel(case: &Case) {
    if !cfg!(target_arch = "x86_64") {
        skip("tracepoints of the CPU's own interrupts");
    }
    let net = Net::new();
    let of = |counts: &BTreeMap<String, Vec<u64>>| {
        let sums = counts.get("LOC").expect("the local timer");
        [sums.iter().sum::<u64>(), sums[0]]
    };
    let outer = of(&kernel_counts());
    let runs = ["-C --vectors", "-C --vectors -c 0"].map(|options| case.launch(options).start(&net));
    let inner = of(&kernel_counts());
    stir();
    let inner_end = of(&kernel_counts());
    let ended = runs.map(Run::finish);
    let outer_end = of(&kernel_counts());
    assert!(inner_end[0] > inner[0], "time passed without a timer");
    for (nth, ended) in ended.iter().enumerate() {
        let count = value(ended, "local_timer");
        let bounds = inner_end[nth] - inner[nth]..=outer_end[nth] - outer[nth];
        if !bounds.contains(&count) {
            ended.fail(&format!("{count} is not in {bounds:?}"));
        }
    }
}

fn ctrl_c_prints_the_interval_under_way(case: &Case) {
    let net = Net::new();
    let run = case.launch("3600 10").start(&net);
    stir();
    let ended = run.finish();
    assert_eq!(ended.stdout.iter().filter(|line| line.starts_with("HARDIRQ ")).count(), 1);
}

/// Many timers that end at once are one long call of the timer's handler, for which a program on its CPU stands still: no less
/// than the call, and not much more.
fn times_are_those_of_a_clock(case: &Case) {
    const TIMERS: usize = 600;
    const TRIES: usize = 10;
    const AHEAD: Duration = Duration::from_millis(50);
    const AROUND: Duration = Duration::from_millis(2);
    if !cfg!(target_arch = "x86_64") {
        skip("tracepoints of the CPU's own interrupts");
    }
    if fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1") {
        skip("timers that end in an interrupt: PREEMPT_RT leaves them to a thread");
    }
    let net = Net::new();
    let cpu = stay_on_a_cpu();
    let timers: Vec<TimerFd> = (0..TIMERS)
        .map(|_| TimerFd::new(TimerClock::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).expect("a timer"))
        .collect();
    let mut told = Vec::new();
    for _ in 0..TRIES {
        let begin = Instant::now();
        let runs = ["--json", "--json -d -N", "-N"]
            .map(|options| case.launch(&format!("{options} --vectors -c {cpu}")).start(&net));
        let (now, due) = (now(ClockId::CLOCK_MONOTONIC), Instant::now() + AHEAD);
        let at = TimeSpec::from_duration(Duration::from_nanos(now) + AHEAD);
        for timer in &timers {
            timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME).expect("a time to come");
        }
        let (mut last, mut still) = (Instant::now(), Duration::ZERO);
        while last < due + AROUND {
            let now = Instant::now();
            if now + AROUND > due {
                still = still.max(now - last);
            }
            last = now;
        }
        let [sums, slots, text] = runs.map(Run::finish);
        let most = begin.elapsed().as_nanos();
        let still = still.as_nanos();
        let rows = |ended: &Ended| -> Vec<serde_json::Value> {
            let rows = ended.stdout.iter().filter_map(|line| serde_json::from_str(line).ok());
            rows.filter(|row: &serde_json::Value| row["hardirq"] == "local_timer").collect()
        };
        let cell = |row: &serde_json::Value, name: &str| u128::from(row[name].as_u64().expect("a number"));
        let rows_of_sums = rows(&sums);
        let [row] = &rows_of_sums[..] else { sums.fail("one row of the timer") };
        let longest = cell(row, "max_nsecs");
        let total = (cell(row, "total_usecs") + 1) * 1000;
        let slot = rows(&slots).last().map(|row| (cell(row, "low_nsecs"), cell(row, "high_nsecs")));
        let (low, high) = slot.unwrap_or_else(|| slots.fail("a slot of the timer"));
        let sum = u128::from(value(&text, "local_timer"));
        for all in [total, sum] {
            assert!(all >= longest / 2 && all <= most, "{all} ns in all, {longest} the longest, of {most}");
        }
        let half = still / 2;
        if (half..=still).contains(&longest) && low <= still && high >= half && total >= half && sum >= half {
            return;
        }
        told.push(format!(
            "it stood still for {still} ns: {longest}, {low} to {high}, {total} and {sum} in all"
        ));
    }
    panic!("times are not those of a clock, in any of {TRIES} runs: {told:#?}");
}
