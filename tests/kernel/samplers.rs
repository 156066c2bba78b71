//! Every option of a sampler alone, and every two that go together, from its own command line: all at once on one traffic
//! that is known. What a set must print follows from what each of its options says.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::run::{PATIENCE, Run};
use serde_json::Value;

use crate::hardirqs::{kernel_counts, stir};
use crate::pairs::{AT_ONCE, Choice, choices, command, is_slow};
use crate::tcpcong;
use crate::tcprtt::{self, End, Talk, listen};

/// Alone, as all checks of samplers that count what a function does.
const CHECKS: &[Check] = checks![any_two_options_say_what_each_says: alone];

/// The samplers that are walked.
const TOOLS: [&str; 8] =
    ["hardirqs", "netqtop", "softirqs", "tcpcong", "tcprtt", "tcpsubnet", "tcpsynbl", "tcptop"];

pub(crate) fn tools() -> impl Iterator<Item = &'static str> {
    TOOLS.into_iter()
}

/// The check; in guests only where all checks run in all of them, for it takes an emulated processor long.
pub(crate) fn checks() -> &'static [Check] {
    if is_slow() && std::env::var_os("NETBCC_WHOLE").is_some() { &[] } else { CHECKS }
}

/// Options by their names, as they are typed.
#[derive(Clone, Debug)]
struct Set(Vec<(String, String)>);

impl Set {
    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|(known, _)| known == id)
    }

    fn words(&self) -> String {
        self.0.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// Every option alone, and every two that the command line takes together. `value` is of an option that takes one; `None`
/// where every run has it, or none.
fn sets(tool: &str, value: impl Fn(&str) -> Option<String>) -> Vec<Set> {
    let word = |choice: Choice| {
        let word = if choice.takes_value {
            format!("{}={}", choice.typed, value(&choice.id)?)
        } else {
            choice.typed
        };
        Some((choice.id, word))
    };
    let all: Vec<_> = choices(tool).into_iter().filter_map(word).collect();
    let mut sets = vec![Set(vec![])];
    for (nth, one) in all.iter().enumerate() {
        sets.push(Set(vec![one.clone()]));
        sets.extend(all[nth + 1..].iter().map(|other| Set(vec![one.clone(), other.clone()])));
    }
    sets.retain(|set| {
        // A start takes a guest a second: there, pairs with JSON.
        if is_slow() && set.0.len() > 1 && !set.has("json") {
            return false;
        }
        let words = std::iter::once(tool).chain(set.0.iter().map(|(_, word)| word.as_str()));
        // netqtop has one option that must be there.
        let required = (tool == "netqtop").then_some("--name=lo");
        command(tool).try_get_matches_from(words.chain(required)).is_ok()
    });
    sets
}

/// Starts all of these; `None`: the tool says in a line why they do not go together.
fn start<'n>(case: &Case, net: &'n Net, sets: &[Set], rest: &str) -> Vec<Option<Run<'n>>> {
    let start = |set: &Set| {
        let launch = case.launch(format!("{} {rest}", set.words()).trim());
        match net.near().enter(|| launch.try_start(net)) {
            Ok(run) => Some(run),
            Err(ended) => {
                ended.one_line(case.tool, &[]);
                assert_eq!(ended.code, Some(2), "{set:?}");
                None
            }
        }
    };
    sets.iter().map(start).collect()
}

fn any_two_options_say_what_each_says(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    match case.tool {
        "hardirqs" => interrupts(case),
        "netqtop" => packets(case),
        "softirqs" => handlers(case),
        "tcpcong" => stays(case),
        "tcprtt" => round_trips(case),
        "tcpsubnet" => subnets(case),
        "tcpsynbl" => queues(case),
        _ => processes(case),
    }
}

fn json(ended: &Ended) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    ended.stdout.iter().map(parse).collect()
}

fn must(ended: &Ended, set: &Set, holds: bool, what: &str) {
    if !holds {
        ended.fail(&format!("{}: {what}", set.words()));
    }
}

/// A row of tcptop that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    pid: u64,
    ip: u64,
    rx: u64,
    tx: u64,
}

fn processes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let (near, far) = (u64::from(client.pid()), u64::from(server.pid()));
    let sets = sets("tcptop", |id| match id {
        "pid" => Some(near.to_string()),
        "sort" => Some("received".into()),
        "rows" => Some("2".into()),
        // Those of the machine, which a test of their own has.
        "cgroupmap" | "mntnsmap" | "cgroup" => None,
        other => panic!("say here which value of --{other} keeps some of the rows"),
    });
    // Enough for what else this machine sends to be less; sums and parts have different orders.
    let (out4, back4, out6, back6) = (9_000_000, 1_000_000, 5_000_000, 4_000_000);
    let flows = [
        Flow { pid: near, ip: 4, rx: back4, tx: out4 },
        Flow { pid: far, ip: 4, rx: out4, tx: back4 },
        Flow { pid: near, ip: 6, rx: back6, tx: out6 },
        Flow { pid: far, ip: 6, rx: out6, tx: back6 },
    ];
    let listeners = [server.listen(net.v4_of(2, 80)), server.listen(net.v6_of(2, 80))];
    for sets in sets.chunks(AT_ONCE) {
        let runs = start(case, &net, sets, "3600");
        for (listener, [out, back]) in listeners.iter().zip([[out4, back4], [out6, back6]]) {
            let from = client.connect(listener.address());
            let to = listener.accept();
            for (from, to, bytes) in [(&from, &to, out), (&to, &from, back)] {
                for _ in 0..bytes / 100_000 {
                    from.send(100_000);
                    to.receive(100_000);
                }
            }
        }
        for (set, run) in sets.iter().zip(runs) {
            if let Some(run) = run {
                compare(&run.finish(), set, &flows);
            }
        }
    }
}

/// Whether a run of tcptop says what is to be said of these.
fn compare(ended: &Ended, set: &Set, flows: &[Flow]) {
    let is_json = set.has("json");
    let mut wanted: Vec<Flow> = flows.to_vec();
    let (near, kb) = (flows[0].pid, if is_json { 1 } else { 1024 });
    wanted.retain(|flow| {
        (!set.has("ipv4") || flow.ip == 4)
            && (!set.has("ipv6") || flow.ip == 6)
            && (!set.has("pid") || flow.pid == near)
    });
    // As BCC has it, what is received decides where the sums are the same.
    let key = |flow: &Flow| if set.has("sort") { flow.rx } else { flow.rx + flow.tx };
    let text = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = if words.get(2)?.contains(']') || words[2].matches(':').count() > 1 { 6 } else { 4 };
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(Flow { pid: number(0)?, ip, rx: number(4)?, tx: number(5)? })
    };
    let all: Vec<Flow> = if is_json {
        let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
        let flow = |row: &Value| Flow {
            pid: number(row, "pid"),
            ip: number(row, "ip"),
            rx: number(row, "rx_bytes"),
            tx: number(row, "tx_bytes"),
        };
        json(ended).iter().map(flow).collect()
    } else {
        let load = ended.stdout.iter().any(|line| line.contains("loadavg"));
        must(ended, set, load != set.has("nosummary"), "the line with the load average");
        ended.stdout.iter().filter_map(text).collect()
    };
    must(ended, set, !set.has("rows") || all.len() <= 2, "two rows at most");
    let ours = |flow: &&Flow| flows.iter().any(|known| known.pid == flow.pid);
    let found: Vec<Flow> = all.iter().filter(ours).copied().collect();
    // Within a family the order is that of the key.
    for ip in [4, 6] {
        let keys: Vec<u64> = found.iter().filter(|flow| flow.ip == ip).map(key).collect();
        must(ended, set, keys.is_sorted_by(|a, b| a >= b), "sorted");
    }
    wanted.sort_by_key(|flow| std::cmp::Reverse(key(flow)));
    // Somebody else's rows may be among those that there is room for.
    if set.has("rows") {
        let least = found.iter().map(|flow| key(flow) * kb).min().unwrap_or(u64::MAX);
        must(ended, set, found.len() == wanted.len().min(2) || all.len() == 2, "as many as asked for");
        let missed = wanted.iter().skip(2).any(|flow| key(flow) > least + 2 * kb);
        must(ended, set, !missed, "those that are most");
        let is_one = |flow: &Flow| wanted.iter().any(|known| in_units(known, kb) == *flow);
        must(ended, set, found.iter().all(is_one), "what was sent and received");
        return;
    }
    let order = |flow: &Flow| (flow.ip, flow.pid);
    let (mut found, mut wanted) = (found, wanted.iter().map(|flow| in_units(flow, kb)).collect::<Vec<_>>());
    found.sort_by_key(order);
    wanted.sort_by_key(order);
    must(ended, set, found == wanted, &format!("{found:?}, not {wanted:?}"));
}

fn in_units(flow: &Flow, unit: u64) -> Flow {
    Flow { rx: flow.rx / unit, tx: flow.tx / unit, ..*flow }
}

fn subnets(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [server.listen(net.v4_of(2, 80)), server.listen(net.v6_of(2, 80))];
    let names = listeners.each_ref().map(|listener| {
        let ip = listener.address().ip();
        format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 })
    });
    let sets = sets("tcpsubnet", |id| match id {
        "format" => Some("k".into()),
        "interval" => None,
        other => panic!("say here which value of --{other} changes the rows"),
    });
    let list = format!("-i 3600 {}", names.join(","));
    for sets in sets.chunks(AT_ONCE) {
        let runs = start(case, &net, sets, &list);
        let sent = [70_007_u32, 3_000];
        for (listener, bytes) in listeners.iter().zip(sent) {
            let from = client.connect(listener.address());
            let to = listener.accept();
            from.send(bytes as usize);
            to.receive(bytes as usize);
        }
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            let kilobits = |bytes: u32| f64::from(bytes) * 8.0 / 1024.0;
            for (name, bytes) in names.iter().zip(sent) {
                let exact = if set.has("format") { kilobits(bytes) } else { f64::from(bytes) };
                let numbers: Vec<f64> = if set.has("json") {
                    let rows = json(&ended);
                    let mine = rows.iter().filter(|row| row["subnet"] == **name);
                    let of = |row: &Value| {
                        must(&ended, set, row["bytes"] == bytes, "bytes");
                        let value = if set.has("format") { &row["value"] } else { &row["bytes"] };
                        value.as_f64().expect("a number")
                    };
                    mine.map(of).collect()
                } else if ended.stdout.iter().any(|line| line.starts_with('{')) {
                    json(&ended).iter().filter_map(|block| block["entries"][name].as_f64()).collect()
                } else {
                    let lines = ended.stdout.iter().filter_map(|line| line.strip_prefix(name.as_str()));
                    lines.map(|rest| rest.trim().parse().expect("a number")).collect()
                };
                let is_text = !ended.stdout.iter().any(|line| line.starts_with('{'));
                let exact = if is_text { exact.floor() } else { exact };
                must(&ended, set, numbers == [exact], &format!("{numbers:?} for {name}, not {exact}"));
            }
        }
    }
}

/// One connection with a timeout and one without.
fn stays(case: &Case) {
    let sets = sets("tcpcong", |id| match id {
        "localport" | "remoteport" => Some("80".into()),
        other => panic!("say here which value of --{other} changes the rows"),
    });
    for sets in sets.chunks(AT_ONCE) {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let listener = server.listen(net.v4_of(2, 80));
        let runs = start(case, &net, sets, &format!("--netns={}", net.near().path()));
        let conns = [0, 1].map(|_| {
            let near = client.connect(listener.address());
            (near, listener.accept())
        });
        for (near, far) in &conns {
            tcpcong::speak(near, far);
        }
        tcpcong::time_out(&net, &conns[0].0, &conns[0].1, Duration::from_millis(20));
        for (near, far) in conns {
            near.reset(far);
        }
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            // Whether it is a near end, whether it changed, and how many stays it had.
            let ends = [(true, true, 3), (true, false, 1), (false, false, 1), (false, false, 1)];
            let kept = ends.into_iter().filter(|(is_near, changed, _)| {
                (*changed || set.has("open"))
                    && (!set.has("localport") || !is_near)
                    && (!set.has("remoteport") || *is_near)
            });
            let wanted: u64 = kept.map(|(_, _, stays)| if set.has("dist") { stays } else { 1 }).sum();
            let found: u64 = if set.has("json") {
                let rows = json(&ended);
                let unit = if set.has("microseconds") { "high_usecs" } else { "high_msecs" };
                let has_unit = rows.iter().all(|row| row.get(unit).is_some());
                must(&ended, set, !set.has("dist") || has_unit, "the unit");
                let sum = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
                if set.has("dist") { sum } else { rows.len() as u64 }
            } else {
                let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
                let stamped = ended.stdout.iter().any(is_time);
                must(&ended, set, stamped == set.has("timestamp"), "the time of day");
                let unit = match (set.has("dist"), set.has("microseconds")) {
                    (true, true) => "usecs",
                    (true, false) => "msecs",
                    (false, true) => "Open_us",
                    (false, false) => "Open_ms",
                };
                let has_unit =
                    ended.stdout.iter().any(|line| line.split_whitespace().any(|word| word == unit));
                must(&ended, set, has_unit || wanted == 0, "the unit");
                if set.has("dist") {
                    tcprtt::text(&ended, "-", false).1
                } else {
                    ended.stdout.iter().filter(|line| line.matches('/').count() == 2).count() as u64
                }
            };
            tcprtt::is(&ended, &set.words(), found, wanted);
        }
    }
}

fn round_trips(case: &Case) {
    let sets = sets("tcprtt", |id| match id {
        "interval" | "duration" => Some("3600".into()),
        other => panic!("say here which value of --{other} changes the rows"),
    });
    for sets in sets.chunks(AT_ONCE) {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let listeners = listen(&net, &server);
        let runs = start(case, &net, sets, &format!("--netns={}", net.near().path()));
        let talk = Talk::new(&listeners, &client, None);
        talk.speak();
        let mut ends = talk.ends();
        // A reset is the last segment that comes to the far ends; the near ones come first.
        ends.iter_mut().skip(1).step_by(2).for_each(|far| far.samples += 1);
        for (near, far, _) in talk.pairs {
            near.reset(far);
        }
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            let of_family = |end: &&End| {
                (!set.has("ipv4") || end.local.is_ipv4()) && (!set.has("ipv6") || end.local.is_ipv6())
            };
            let kept = ends.iter().filter(of_family);
            let wanted: u64 = kept.map(|end| if set.has("min") { 1 } else { end.samples }).sum();
            if set.has("json") {
                let rows = json(&ended);
                if set.has("min") {
                    must(&ended, set, rows.len() as u64 == wanted, &format!("{wanted} connections"));
                    continue;
                }
                tcprtt::is(&ended, &set.words(), tcprtt::counted(&ended, |_| true), wanted);
                for row in rows {
                    let has = |key: &str| row.get(key).is_some();
                    must(&ended, set, has("low_msecs") == set.has("milliseconds"), "the unit");
                    must(&ended, set, has("laddr") == set.has("byladdr"), "the local address");
                    must(&ended, set, has("raddr") == set.has("byraddr"), "the remote address");
                    must(&ended, set, has("avg_us") == set.has("extension"), "the mean");
                }
                continue;
            }
            let word = match (set.has("byladdr"), set.has("byraddr")) {
                (true, _) => "Local Address = ",
                (_, true) => "Remote Address = ",
                _ => "All Addresses = ",
            };
            let titles: Vec<&String> = ended.stdout.iter().filter(|line| line.starts_with(word)).collect();
            must(&ended, set, titles.is_empty() == (wanted == 0), "titles");
            let means = titles.iter().all(|title| title.contains(" [AVG ") == set.has("extension"));
            must(&ended, set, means, "the mean");
            let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
            must(&ended, set, ended.stdout.iter().any(is_time) == set.has("timestamp"), "the time of day");
            let minimum = ended.stdout[0].starts_with("Tracing minimum TCP RTT of closed connections...");
            must(&ended, set, minimum == set.has("min"), "the headline");
            let unit = if set.has("milliseconds") { "     msecs " } else { "     usecs " };
            let heads = ended.stdout.iter().filter(|line| line.starts_with(unit)).count();
            must(&ended, set, heads == titles.len(), "the unit");
            tcprtt::is(&ended, &set.words(), tcprtt::text(&ended, "-", false).1, wanted);
        }
    }
}

/// What the kernel counted of received packets, of one CPU or of all.
fn received(cpu: Option<usize>) -> u64 {
    let text = fs::read_to_string("/proc/softirqs").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("NET_RX:")).expect("it is there");
    let counts = line.split_whitespace().map(|count| count.parse::<u64>().expect("a number"));
    match cpu {
        Some(cpu) => counts.skip(cpu).take(1).sum(),
        None => counts.sum(),
    }
}

fn handlers(case: &Case) {
    let sets = sets("softirqs", |id| match id {
        "cpu" => Some("0".into()),
        other => panic!("say here which value of --{other} changes the rows"),
    });
    let cpus = fs::read_to_string("/proc/softirqs")
        .map_or(1, |text| text.lines().next().map_or(1, |header| header.split_whitespace().count() as u64));
    for sets in sets.chunks(AT_ONCE) {
        let net = Net::new();
        let both = || [received(None), received(Some(0))];
        let before = both();
        let runs = start(case, &net, sets, "");
        let inner = both();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let listener = server.listen(net.v4_of(2, 80));
        for _ in 0..50 {
            let conn = client.connect(listener.address());
            listener.accept().send(1000);
            conn.receive(1000);
        }
        let after = both();
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            let nth = usize::from(set.has("cpu"));
            let (least, most) = (after[nth] - inner[nth], both()[nth] - before[nth]);
            let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
            let stamped = ended.stdout.iter().any(is_time);
            must(&ended, set, stamped == (set.has("timestamp") && !set.has("json")), "the time of day");
            // A run whose exit comes before the end may have begun before the beginning.
            let least = least.saturating_sub(if set.has("events") { 0 } else { cpus });
            if let Some(count) = runs_in(&ended, set) {
                must(&ended, set, (least..=most).contains(&count), &format!("{count} of {least} to {most}"));
            }
        }
    }
}

/// How many runs of NET_RX a run of softirqs says that it saw, if it counts. It may have seen none on one CPU.
fn runs_in(ended: &Ended, set: &Set) -> Option<u64> {
    let (events, dist, counts) = (set.has("events"), set.has("dist"), set.has("counts"));
    let unit = if set.has("nanoseconds") { "nsecs" } else { "usecs" };
    if set.has("json") {
        let rows = json(ended);
        let mine: Vec<_> = rows.iter().filter(|row| row["softirq"] == "net_rx").collect();
        for row in &mine {
            let has = |name: &str| row.get(name).is_some();
            let times = if dist { format!("high_{unit}") } else { format!("total_{unit}") };
            must(ended, set, has(&times) != events, "the unit");
            must(ended, set, has("total_count") == (events || counts), "the count");
        }
        let sum = |name: &str| mine.iter().map(|row| row[name].as_u64().expect("a number")).sum();
        return if dist { Some(sum("count")) } else { (events || counts).then(|| sum("total_count")) };
    }
    let has = |word: &str| ended.stdout.iter().any(|line| line.split_whitespace().any(|known| known == word));
    if dist {
        let lines = ended.stdout.iter().skip_while(|line| *line != "softirq = net_rx").skip(1);
        let rows = lines.take_while(|line| !line.is_empty());
        let counts = rows.filter_map(|line| line.split([':', '|']).nth(1)?.trim().parse::<u64>().ok());
        must(ended, set, has(unit), "the unit");
        return Some(counts.sum());
    }
    must(ended, set, has(&format!("TOTAL_{unit}")) != events, "the unit");
    must(ended, set, has("TOTAL_count") == (events || counts), "the count");
    let row = ended.stdout.iter().find_map(|line| line.strip_prefix("net_rx "));
    let last = row.map_or(0, |row| row.split_whitespace().last().expect("a cell").parse().expect("a number"));
    (events || counts).then_some(last)
}

/// What the kernel counted of hard interrupts by name: of all CPUs, and of the first.
fn interrupted() -> BTreeMap<String, [u64; 2]> {
    let names = kernel_counts().into_iter();
    names.map(|(name, counts)| (name, [counts.iter().sum(), counts[0]])).collect()
}

fn interrupts(case: &Case) {
    /// As the kernel calls the local timer, and as the tool does.
    const TIMER: [&str; 2] = ["LOC", "local_timer"];
    let sets = sets("hardirqs", |id| match id {
        "cpu" => Some("0".into()),
        other => panic!("say here which value of --{other} changes the rows"),
    });
    let cpus = kernel_counts().values().next().map_or(1, |counts| counts.len() as u64);
    for sets in sets.chunks(AT_ONCE) {
        let net = Net::new();
        let before = interrupted();
        let runs = start(case, &net, sets, "");
        let inner = interrupted();
        stir();
        let after = interrupted();
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            let at_end = interrupted();
            let nth = usize::from(set.has("cpu"));
            let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
            let stamped = ended.stdout.iter().any(is_time);
            must(&ended, set, stamped == (set.has("timestamp") && !set.has("json")), "the time of day");
            for (name, counts) in &inner {
                let [least, most] = [(&after, counts), (&at_end, before.get(name).unwrap_or(&[0; 2]))]
                    .map(|(to, from)| to.get(name).unwrap_or(&[0; 2])[nth].saturating_sub(from[nth]));
                // The kernel's own labels are in capitals, and these have no handler.
                let is_label = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
                let name = match (name == TIMER[0], is_label) {
                    (true, _) => TIMER[1],
                    (_, true) => continue,
                    _ => name,
                };
                let is_seen = set.has("vectors") || name != TIMER[1];
                // A call that began before the start has no time.
                let least = least.saturating_sub(if set.has("counts") { 0 } else { cpus });
                let bounds = if is_seen { least..=most } else { 0..=0 };
                if let Some(count) = calls_in(&ended, set, name) {
                    must(&ended, set, bounds.contains(&count), &format!("{name}: {count}, not {bounds:?}"));
                }
            }
        }
    }
}

/// How many calls of this handler a run of hardirqs says that it saw, if it counts.
fn calls_in(ended: &Ended, set: &Set, name: &str) -> Option<u64> {
    let (dist, counts) = (set.has("dist"), set.has("counts"));
    let unit = if set.has("nanoseconds") { "nsecs" } else { "usecs" };
    if set.has("json") {
        let rows = json(ended);
        let mine: Vec<_> = rows.iter().filter(|row| row["hardirq"] == *name).collect();
        for row in &mine {
            let has = |name: &str| row.get(name).is_some();
            let time = if dist { format!("high_{unit}") } else { format!("total_{unit}") };
            must(ended, set, has(&time) != counts, "the unit");
            must(ended, set, has("cpu") == set.has("per_cpu"), "the CPU");
        }
        let key = if counts { "total_count" } else { "count" };
        return Some(mine.iter().map(|row| row[key].as_u64().expect("a number")).sum());
    }
    let has = |word: &str| ended.stdout.iter().any(|line| line.split_whitespace().any(|known| known == word));
    if dist {
        let mut sum = 0;
        let mut lines = ended.stdout.iter().peekable();
        while let Some(line) = lines.next() {
            let title = line.strip_prefix("hardirq = ").unwrap_or_default();
            let (title, cpu) = title.split_once(", cpu = ").map_or((title, false), |(name, _)| (name, true));
            if title != name {
                continue;
            }
            must(ended, set, cpu == set.has("per_cpu"), "the CPU");
            while let Some(row) = lines.next_if(|line| !line.is_empty()) {
                let count = row.split([':', '|']).nth(1).and_then(|count| count.trim().parse::<u64>().ok());
                sum += count.unwrap_or(0);
            }
        }
        must(ended, set, has(unit) || sum == 0, "the unit");
        return Some(sum);
    }
    must(ended, set, has(&format!("TOTAL_{unit}")) != counts, "the unit");
    must(ended, set, has("TOTAL_count") == counts, "the count");
    must(ended, set, has("CPU") == set.has("per_cpu"), "the CPU");
    let rows = ended.stdout.iter().filter_map(|line| line.strip_prefix(&format!("{name} ")));
    // The CPU comes behind it.
    let nth = usize::from(set.has("per_cpu"));
    let count = |row: &str| row.split_whitespace().nth_back(nth)?.parse::<u64>().ok();
    counts.then(|| rows.filter_map(count).sum())
}

/// Connections of each family, which wait for accept().
fn queues(case: &Case) {
    let sets = sets("tcpsynbl", |id| panic!("say here which value of --{id} changes the rows"));
    for sets in sets.chunks(AT_ONCE) {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let runs = start(case, &net, sets, &format!("--netns={}", net.near().path()));
        let listeners = [(net.v4_of(2, 80), 5, 3), (net.v6_of(2, 80), 11, 7)].map(|(at, limit, times)| {
            let listener = server.bind(at);
            listener.again(limit).expect("it may listen");
            (listener, limit, times)
        });
        let conns = listeners.iter().flat_map(|(to, _, times)| vec![to.address(); *times]);
        let waiting: Vec<_> = conns.map(|to| client.connect(to)).collect();
        for (set, run) in sets.iter().zip(runs) {
            let Some(run) = run else { continue };
            let ended = run.finish();
            let is_kept = |nth: usize| !set.has(["ipv6", "ipv4"][nth]);
            let wanted: u64 =
                [3, 7].iter().enumerate().filter(|(nth, _)| is_kept(*nth)).map(|(_, n)| n).sum();
            let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
            let stamped = ended.stdout.iter().any(is_time);
            must(&ended, set, stamped == (set.has("timestamp") && !set.has("json")), "the time of day");
            if set.has("listeners") {
                let limits = [("80", "5"), ("80", "11")].into_iter().enumerate();
                let wanted: Vec<String> = limits
                    .filter(|(nth, _)| is_kept(*nth))
                    .map(|(nth, (_, limit))| format!("{} {limit}", [3, 7][nth]))
                    .collect();
                let mut found: Vec<String> = if set.has("json") {
                    json(&ended).iter().map(|row| format!("{} {}", row["qlen"], row["qmax"])).collect()
                } else {
                    let cells = ended.stdout.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
                    let rows = cells.filter(|cells| cells.len() == 7 && cells[3] == "80");
                    rows.map(|cells| format!("{} {}", cells[4], cells[5])).collect()
                };
                // The fuller one is the first.
                found.reverse();
                found.sort_by_key(String::len);
                must(&ended, set, found == wanted, &format!("{found:?}, not {wanted:?}"));
                continue;
            }
            let found = if set.has("json") {
                tcprtt::counted(&ended, |_| true)
            } else {
                let titles: Vec<&str> =
                    ended.stdout.iter().filter_map(|line| line.strip_prefix("backlog_max = ")).collect();
                let limits = ["5", "11"].into_iter().enumerate().filter(|(nth, _)| is_kept(*nth));
                must(&ended, set, limits.map(|(_, limit)| limit).eq(titles), "the limits");
                tcprtt::text(&ended, "-", false).1
            };
            tcprtt::is(&ended, &set.words(), found, wanted);
        }
        drop(waiting);
    }
}

fn packets(case: &Case) {
    const PACKETS: u64 = 20;
    const BYTES: u64 = 400;
    let net = Net::new();
    let sets = sets("netqtop", |id| match id {
        "interval" => Some("0.2".into()),
        "name" => None,
        other => panic!("say here which value of --{other} changes the rows"),
    });
    let runs = start(case, &net, &sets, "-n lo");
    let from = net.near().enter(|| std::net::UdpSocket::bind(net.v4(0))).expect("a port");
    // What nobody reads, and nobody answers.
    let sink = net.near().enter(|| std::net::UdpSocket::bind(net.v4_of(2, 0))).expect("a port");
    let to = sink.local_addr().expect("it is bound");
    for _ in 0..PACKETS {
        let payload = vec![0; usize::try_from(BYTES - 28).expect("it is short")];
        from.send_to(&payload, to).expect("there is a route");
    }
    for (set, run) in sets.iter().zip(runs) {
        let Some(run) = run else { continue };
        let is_json = set.has("json");
        let total = |lines: &[String]| -> u64 {
            // Packets of this size have one column; the second table is RX.
            let of = |line: &String| -> Option<u64> {
                if is_json {
                    let row: Value = serde_json::from_str(line).ok()?;
                    (row["direction"] == "rx" && row["queue"].is_null()).then(|| row["under_512"].as_u64())?
                } else {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    (words.first() == Some(&"Total")).then(|| words[3].parse().ok())?
                }
            };
            lines.iter().filter_map(of).sum()
        };
        // In text both directions have a line, and the packets of both are these.
        let wanted = if is_json { PACKETS } else { 2 * PACKETS };
        let mut lines = run.lines();
        let deadline = Instant::now() + PATIENCE;
        while total(&lines) < wanted && Instant::now() < deadline {
            lines = run.await_lines(lines.len() + 1);
        }
        let ended = run.finish();
        must(&ended, set, total(&ended.stdout) == wanted, "each packet once");
        // JSON has them always.
        let rates = ended.stdout.iter().any(|line| line.contains("BPS") || line.contains("bytes_per_s"));
        must(&ended, set, rates == (is_json || set.has("throughput")), "rates");
    }
}
