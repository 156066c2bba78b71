//! tcpcong: how long a connection was in which state, and how often that changed.
//!
//! Losses are made by a filter, for as long as a test wants; the socket says in which state it is (`tcp_info`), which bounds the
//! stay from inside and from outside.

use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How};
use netbcc_tests::run::{PATIENCE, Run};
use serde_json::Value;

use crate::tcpconnect::Groups;

pub(crate) const CHECKS: &[Check] = checks![
    a_timeout_is_loss_until_it_is_answered,
    a_syn_that_is_sent_again_is_loss_until_it_is_answered,
    a_stay_longer_than_the_interval_is_in_each,
    a_connection_without_a_change_has_a_row_if_asked_for,
    each_filter_keeps_its_connections,
    a_cgroup_is_that_of_the_socket,
    histograms_hold_every_stay_that_ended,
    what_has_no_room_is_told,
    a_socket_that_connects_elsewhere_is_another_connection,
    what_happens_while_the_tool_is_stopped_is_counted,
];

pub(crate) const ANY: &[Check] = checks![blocks_are_bccs_and_end_by_themselves, two_copies_say_the_same,];

/// The number of a state of congestion control, as `tcp_info` has it.
const OPEN: u32 = 0;
const LOSS: u32 = 4;

/// The state that a socket says it is in.
fn state(conn: &Conn<'_>) -> u32 {
    conn.info().u32(0) >> 8 & 0xff
}

fn await_state(conn: &Conn<'_>, wanted: u32) {
    let deadline = Instant::now() + PATIENCE;
    while state(conn) != wanted {
        assert!(Instant::now() < deadline, "it never comes to state {wanted}");
        std::thread::yield_now();
    }
}

/// Drops what is sent to these ports, but for what is no data.
fn lose(net: &Net, ports: &str) {
    net.near().nft(&format!(
        "add chain inet probe in {{ type filter hook input priority 0; }}\n\
         add rule inet probe in tcp dport {{ {ports} }} meta length > 200 drop\n"
    ));
}

fn keep(net: &Net) {
    net.near().nft("flush chain inet probe in\n");
}

/// How long a stay was, at least and at most, in microseconds.
type Bounds = (u64, u64);

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("seconds")
}

/// Some requests and answers.
pub(crate) fn speak(near: &Conn<'_>, far: &Conn<'_>) {
    for _ in 0..5 {
        near.send(10);
        far.receive(10);
        far.send(10);
        near.receive(10);
    }
}

/// Sends what gets lost until the timer has fired and `time` has passed, and then what arrives.
pub(crate) fn time_out(net: &Net, near: &Conn<'_>, far: &Conn<'_>, time: Duration) -> Bounds {
    lose(net, "80");
    let begin = Instant::now();
    near.send(1000);
    await_state(near, LOSS);
    let inner = Instant::now();
    while inner.elapsed() < time {
        std::thread::sleep(Duration::from_millis(5));
    }
    let least = inner.elapsed();
    keep(net);
    far.receive(1000);
    await_state(near, OPEN);
    // Where only packets tell, the change is seen with the next one.
    speak(near, far);
    (micros(least), micros(begin.elapsed()))
}

fn json(ended: &Ended) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    ended.stdout.iter().map(parse).collect()
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row}"))
}

/// The sum of a row's columns, in microseconds.
fn sum(row: &Value) -> u64 {
    ["open_us", "disorder_us", "recovery_us", "cwr_us", "loss_us"].iter().map(|key| number(row, key)).sum()
}

#[track_caller]
fn within(ended: &Ended, what: &str, actual: u64, (least, most): Bounds) {
    if !(least..=most).contains(&actual) {
        ended.fail(&format!("{what}: {actual} is not between {least} and {most}"));
    }
}

fn a_timeout_is_loss_until_it_is_answered(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let runs = ["--json", "", "-u"].map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let begin = Instant::now();
    let near = client.connect(listener.address());
    let connected = Instant::now();
    let far = listener.accept();
    let bounds = time_out(&net, &near, &far, Duration::from_millis(300));
    let least = connected.elapsed();
    let [rows, millis, text] = runs.map(Run::finish);
    let life = (micros(least).saturating_sub(1000), micros(begin.elapsed()));
    let all = json(&rows);
    // Who receives is always open.
    assert_eq!(all.len(), 1, "{all:?}");
    let row = &all[0];
    assert_eq!((number(row, "rport"), number(row, "lport")), (80, near.local().port().into()), "{row}");
    assert_eq!(number(row, "changes"), 2, "{row}");
    assert_eq!((&row["state"], &row["closed"]), (&"open".into(), &false.into()), "{row}");
    assert_eq!(row["seen_from_start"], true, "{row}");
    within(&rows, "loss", number(row, "loss_us"), bounds);
    within(&rows, "all columns", sum(row), life);
    for (ended, unit, scale) in [(&millis, "ms", 1000), (&text, "us", 1)] {
        assert_eq!(ended.stdout[0], "Tracing tcp congestion control status duration... Hit Ctrl-C to end.");
        assert_eq!(ended.stdout[1], "");
        let header = "LAddrPort            RAddrPort             Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs ";
        assert_eq!(ended.stdout[2], header.replace("_ms", &format!("_{unit}")));
        assert_eq!(ended.stdout.len(), 4, "{:?}", ended.stdout);
        let cells: Vec<&str> = ended.stdout[3].split_whitespace().collect();
        assert_eq!(cells[0], format!("{}/{}", near.local().ip(), near.local().port()));
        assert_eq!(cells[1], format!("{}/80", listener.address().ip()));
        assert_eq!((cells[3], cells[7], cells.len()), ("0", "2", 8), "{:?}", ended.stdout[3]);
        let loss: u64 = cells[6].parse().expect("a number");
        within(ended, "Los", loss, (bounds.0 / scale, bounds.1 / scale));
    }
}

fn a_syn_that_is_sent_again_is_loss_until_it_is_answered(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --netns={}", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 drop\n",
    );
    let begin = Instant::now();
    let near = client.connect_as(listener.address(), &How::plain().nonblocking());
    await_state(&near, LOSS);
    keep(&net);
    near.await_writable();
    let far = listener.accept();
    speak(&near, &far);
    let ended = run.finish();
    let most = micros(begin.elapsed());
    let rows = json(&ended);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((number(&rows[0], "changes"), number(&rows[0], "rport")), (2, 80), "{}", rows[0]);
    assert_eq!(number(&rows[0], "lport"), u64::from(near.local().port()), "{}", rows[0]);
    // The answer to the SYN after that one ends it, a second later at least.
    within(&ended, "loss", number(&rows[0], "loss_us"), (900_000, most));
}

fn a_stay_longer_than_the_interval_is_in_each(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --netns={} 1", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    let bounds = time_out(&net, &near, &far, Duration::from_millis(3300));
    let ended = run.finish();
    let rows = json(&ended);
    let whole: Vec<&Value> = rows.iter().filter(|row| number(row, "changes") == 0).collect();
    assert!(whole.len() >= 2, "{rows:?}");
    for row in whole {
        let interval = number(row, "interval_ns") / 1000;
        within(&ended, "all columns", sum(row), (interval.saturating_sub(50_000), interval + 50_000));
        assert_eq!((number(row, "loss_us"), &row["state"]), (sum(row), &"loss".into()), "{row}");
    }
    let total = |key: &str| rows.iter().map(|row| number(row, key)).sum::<u64>();
    assert_eq!(total("changes"), 2, "{rows:?}");
    within(&ended, "loss in all blocks", total("loss_us"), bounds);
}

fn a_connection_without_a_change_has_a_row_if_asked_for(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["", "--open --json", "--open"];
    let runs = words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let mut targets = vec![net.v4_of(2, 80)];
    targets.extend(has_ipv6().then(|| net.v6_of(2, 80)));
    let mut bounds = Vec::new();
    let mut conns = Vec::new();
    let listeners: Vec<_> = targets.iter().map(|to| server.listen(*to)).collect();
    let before = Instant::now();
    for listener in &listeners {
        let near = client.connect(listener.address());
        let far = listener.accept();
        speak(&near, &far);
        conns.push((near, far));
    }
    let made = Instant::now();
    // One closes within the interval.
    let (near, far) = conns.remove(0);
    near.reset(far);
    let least = micros(made.elapsed());
    let [plain, rows, text] = runs.map(Run::finish);
    bounds.push((least, micros(before.elapsed())));
    let header = if has_ipv6() { 4 } else { 3 };
    assert_eq!(plain.stdout.len(), header, "headers without rows: {:?}", plain.stdout);
    assert!(plain.stdout[2].starts_with("LAddrPort  "), "{:?}", plain.stdout);
    let all = json(&rows);
    assert_eq!(all.len(), 2 * targets.len(), "{all:?}");
    for row in &all {
        assert_eq!((number(row, "changes"), sum(row)), (0, number(row, "open_us")), "{row}");
        assert_eq!(row["closed"], number(row, "ip") == 4, "{row}");
        assert_eq!(row["state"].is_null(), number(row, "ip") == 4, "{row}");
        within(&rows, "its age", sum(row), (0, bounds[0].1));
    }
    assert_eq!(text.stdout.len(), header + all.len(), "{:?}", text.stdout);
}

fn each_filter_keeps_its_connections(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let listeners = [(2, 80), (3, 81), (3, 85)].map(|(host, port)| server.listen(net.v4_of(host, port)));
    let two = net.v4_of(2, 0).ip();
    // The connections' ends, as port of the listener: near ends have it remote, far ends local.
    let filters: [(String, &[u64], &[u64]); 8] = [
        (String::new(), &[80, 81, 85], &[80, 81, 85]),
        ("-R 80".into(), &[80], &[]),
        ("-L 80-81".into(), &[], &[80, 81]),
        ("-R 85-81".into(), &[81, 85], &[]),
        ("-R 81-85 --rport=!85".into(), &[81], &[]),
        ("-L 1-79 -R 80".into(), &[], &[]),
        (format!("--raddr={two}"), &[80], &[80]),
        ("--lport=81,85".into(), &[], &[81, 85]),
    ];
    let runs: Vec<Run<'_>> = filters
        .iter()
        .map(|(words, ..)| case.launch(&format!("--json --open {words} --netns={netns}")).start(&net))
        .collect();
    let conns: Vec<_> = listeners
        .iter()
        .map(|listener| {
            let near = client.connect(listener.address());
            (near, listener.accept())
        })
        .collect();
    for (near, far) in &conns {
        speak(near, far);
    }
    for ((words, near, far), run) in filters.iter().zip(runs) {
        let ended = run.finish();
        let mut found: Vec<(bool, u64)> = json(&ended)
            .iter()
            .map(|row| {
                let port = number(row, "rport");
                let is_near = [80, 81, 85].contains(&port);
                (is_near, if is_near { port } else { number(row, "lport") })
            })
            .collect();
        let mut wanted: Vec<(bool, u64)> =
            near.iter().map(|port| (true, *port)).chain(far.iter().map(|port| (false, *port))).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            ended.fail(&format!("{words}: {found:?}, not {wanted:?}"));
        }
    }
}

fn a_cgroup_is_that_of_the_socket(case: &Case) {
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let id = format!("{:064}", u64::from(std::process::id()) + (1 << 42));
        let within = groups.put(&client, &format!("docker/{id}"));
        let netns = net.near().path();
        let words = [format!("--cgroup={within}"), format!("--container=!{id}")];
        let runs =
            words.map(|words| case.launch(&format!("--json --open {words} --netns={netns}")).start(&net));
        let listener = server.listen(net.v4_of(2, 80));
        let near = client.connect(listener.address());
        let far = listener.accept();
        speak(&near, &far);
        for (run, key) in runs.into_iter().zip(["rport", "lport"]) {
            let ended = run.finish();
            let rows = json(&ended);
            assert!(rows.len() == 1 && rows[0][key] == 80, "{key}: {rows:?}");
        }
    }
    groups.remove();
}

fn histograms_hold_every_stay_that_ended(case: &Case) {
    const TIMES: u64 = 3;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["--json", "--json -d -u", "--json -d", "-d -u", "-d -T"];
    let runs = words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    let mut bounds = Vec::new();
    for _ in 0..TIMES {
        bounds.push(time_out(&net, &near, &far, Duration::from_millis(20)));
    }
    near.reset(far);
    let [sums, micros, millis, text, stamped] = runs.map(Run::finish);
    let rows = json(&sums);
    assert_eq!((rows.len(), number(&rows[0], "changes")), (1, 2 * TIMES), "{rows:?}");
    for (ended, unit) in [(&micros, "usecs"), (&millis, "msecs")] {
        let count = |state: &str| -> u64 {
            json(ended).iter().filter(|row| row["state"] == state).map(|row| number(row, "count")).sum()
        };
        // The last one ends with the connection.
        assert_eq!((count("open"), count("loss")), (TIMES + 1, TIMES), "{:?}", ended.stdout);
        assert!(json(ended).iter().all(|row| row.get(format!("high_{unit}")).is_some()));
    }
    let (least, most) =
        bounds.iter().fold((u64::MAX, 0), |(least, most), bounds| (least.min(bounds.0), most.max(bounds.1)));
    for row in json(&micros).iter().filter(|row| row["state"] == "loss") {
        assert!(number(row, "high_usecs") >= least && number(row, "low_usecs") <= most, "{row}");
    }
    let titles: Vec<&str> =
        text.stdout.iter().filter_map(|line| line.strip_prefix("tcp_congest_state = ")).collect();
    assert_eq!(titles, ["open", "loss"], "by the number of the state");
    assert_eq!(
        text.stdout[2..5],
        ["", "tcp_congest_state = open", "     usecs               : count     distribution"]
    );
    assert!(stamped.stdout[2].len() == 8 && stamped.stdout[3].is_empty(), "{:?}", stamped.stdout);
}

fn what_has_no_room_is_told(case: &Case) {
    const CONNECTIONS: usize = 7;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let words = format!("--json --open --x-table-entries 4 --netns={} -R 80", net.near().path());
    let run = case.launch(&words).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    let conns: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let near = client.connect(listener.address());
            (near, listener.accept())
        })
        .collect();
    let ended = run.stop();
    let seen = json(&ended).len();
    assert!(seen > 0 && seen < CONNECTIONS, "{seen}");
    ended.sums_up(seen, CONNECTIONS);
    drop(conns);
}

fn a_socket_that_connects_elsewhere_is_another_connection(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --open --netns={}", net.near().path())).start(&net);
    let [one, other] = [80, 81].map(|port| server.listen(net.v4_of(2, port)));
    let near = client.connect(one.address());
    let far = one.accept();
    speak(&near, &far);
    near.connect_elsewhere(other.address());
    let second = other.accept();
    speak(&near, &second);
    let ended = run.finish();
    let mut found: Vec<(u64, bool)> =
        json(&ended).iter().map(|row| (number(row, "rport"), row["closed"] == true)).collect();
    found.retain(|(port, _)| [0, 80, 81].contains(port));
    found.sort_unstable();
    assert_eq!(found, [(80, true), (81, false)], "no row without a remote end: {:?}", ended.stdout);
}

fn what_happens_while_the_tool_is_stopped_is_counted(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --netns={} 1", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    run.suspend();
    let bounds = time_out(&net, &near, &far, Duration::from_millis(1500));
    near.reset(far);
    run.resume();
    let ended = run.finish();
    let rows = json(&ended);
    let total = |key: &str| rows.iter().map(|row| number(row, key)).sum::<u64>();
    assert_eq!(total("changes"), 2, "{rows:?}");
    within(&ended, "loss", total("loss_us"), bounds);
    assert_eq!(rows.last().expect("a row")["closed"], true, "{rows:?}");
}

fn blocks_are_bccs_and_end_by_themselves(case: &Case) {
    let net = Net::new();
    let ended = case.launch("-T -L 1 1 2").start(&net).ends();
    ended.code(0).quiet();
    let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
    assert_eq!(ended.stdout.len(), 5, "{:?}", ended.stdout);
    assert!(is_time(&ended.stdout[2]) && is_time(&ended.stdout[4]), "{:?}", ended.stdout);
    assert_eq!([&*ended.stdout[1], &*ended.stdout[3]], ["", ""]);
}

fn two_copies_say_the_same(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let words = format!("--json --netns={}", net.near().path());
    let runs = [0, 1].map(|_| case.launch(&words).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    let bounds = time_out(&net, &near, &far, Duration::from_millis(50));
    for ended in runs.map(Run::finish) {
        let rows = json(&ended);
        assert_eq!((rows.len(), number(&rows[0], "changes")), (1, 2), "{rows:?}");
        within(&ended, "loss", number(&rows[0], "loss_us"), bounds);
    }
}
