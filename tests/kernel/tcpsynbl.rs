//! tcpsynbl: which handshakes are samples, of which limit, with which length, in which form.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Listener, Peer};
use netbcc_tests::run::{PATIENCE, Run, with_own_pids};
use netbcc_tests::{checks, raw};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde_json::Value;

use crate::pairs::is_slow;
use crate::tcpconnect::Groups;
use crate::tcprtt::{counted, is, listen, text};

/// Each has the machine for itself: where somebody else attaches to the same function, the kernel's fentry leaves out the calls
/// that are under way.
pub(crate) const CHECKS: &[Check] = checks![
    each_handshake_is_a_sample_of_its_limit: alone,
    an_ipv4_client_of_an_ipv6_listener_is_one_sample: alone,
    what_a_full_queue_refuses_late_is_above_the_limit: alone,
    syns_that_a_full_queue_refuses_are_no_samples: alone,
    each_filter_keeps_its_samples: alone,
    a_cgroup_is_that_of_the_listener: alone,
    sums_over_intervals_lose_nothing: alone,
    what_comes_while_the_tool_is_stopped_is_counted: alone,
    what_has_no_room_is_told: alone,
    cookies_and_fast_open_are_one_sample: alone,
    mptcp_is_one_sample: alone,
    each_listener_is_a_row_with_its_owner_and_its_queue: alone,
    refused_syns_are_those_of_their_listener: alone,
    a_listener_that_closed_has_a_last_row: alone,
    a_failed_listen_is_no_row: alone,
    a_listener_that_nobody_has_any_more_has_no_name: alone,
    what_an_older_mptcp_listener_took_is_counted_or_not_known: alone,
    what_a_listener_dropped_before_is_not_of_the_interval: alone,
    all_counts_of_a_row_are_of_one_moment: alone,
    listeners_that_come_and_go_keep_their_counts: alone,
    refusals_that_cannot_be_known_are_a_dash: alone,
];

pub(crate) const ANY: &[Check] = checks![
    ten_thousand_connections_are_ten_thousand_samples: alone,
    every_signal_prints_the_interval_under_way: alone,
    blocks_come_at_their_interval_and_end_by_themselves: alone,
    two_copies_count_the_same: alone,
];

const BANNER: &str = "Tracing SYN backlog size. Ctrl-C to end.";
const HEAD: &str = "     backlog             : count     distribution";

/// Connects so often, and lets all wait for accept().
fn wait_in_line(client: &Peer, to: SocketAddr, times: usize) -> Vec<Conn<'_>> {
    (0..times).map(|_| client.connect(to)).collect()
}

/// A listener with this limit.
fn listener(server: &Peer, at: SocketAddr, limit: i32) -> Listener<'_> {
    let listener = server.bind(at);
    listener.again(limit).expect("it may listen");
    listener
}

/// How many samples of this limit are between these lengths.
fn between(ended: &Ended, limit: u64, low: u64, high: u64) -> u64 {
    counted(ended, |row| row["backlog_max"] == limit && row["low"] == low && row["high"] == high)
}

fn each_handshake_is_a_sample_of_its_limit(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["", "--json", "-T", "-4 --json"];
    let [plain, rows, timed, v4] =
        words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let long = listener(&server, net.v4_of(2, 81), 17);
    let short = listener(&server, net.v4_of(2, 80), 5);
    let mut waiting = wait_in_line(&client, long.address(), 7);
    waiting.extend(wait_in_line(&client, short.address(), 3));
    // From now on its connections are of another section.
    short.again(6).expect("it listens");
    waiting.extend(wait_in_line(&client, short.address(), 1));
    let [plain, rows, timed, v4] = [plain, rows, timed, v4].map(Run::finish);
    for ended in [&rows, &v4] {
        is(ended, "all", counted(ended, |_| true), 11);
        is(ended, "5", between(ended, 5, 0, 1), 2);
        is(ended, "5", between(ended, 5, 2, 3), 1);
        is(ended, "6", between(ended, 6, 2, 3), 1);
        for (low, high, count) in [(0, 1, 2), (2, 3, 2), (4, 7, 3)] {
            is(ended, "17", between(ended, 17, low, high), count);
        }
    }
    let all = text(&plain, "-", false).1;
    is(&plain, "in text", all, 11);
    if all == 11 {
        let bar = |stars: usize| format!("|{:<40}|", "*".repeat(stars));
        let row = |range: &str, count: u64, stars| format!("{range} : {count:<8} {}", bar(stars));
        let (one, two, four) =
            ("         0 -> 1         ", "         2 -> 3         ", "         4 -> 7         ");
        let wanted = [
            BANNER.to_owned(),
            String::new(),
            String::new(),
            "backlog_max = 5".to_owned(),
            HEAD.to_owned(),
            row(one, 2, 40),
            row(two, 1, 20),
            String::new(),
            "backlog_max = 6".to_owned(),
            HEAD.to_owned(),
            row(one, 0, 0),
            row(two, 1, 40),
            String::new(),
            "backlog_max = 17".to_owned(),
            HEAD.to_owned(),
            row(one, 2, 26),
            row(two, 2, 26),
            row(four, 3, 40),
        ];
        assert_eq!(plain.stdout, wanted);
    }
    let time = &timed.stdout[2];
    assert!(timed.stdout[1].is_empty() && time.len() == 8 && time.matches(':').count() == 2, "{time}");
    assert_eq!(timed.stdout[4], "backlog_max = 5");
}

fn an_ipv4_client_of_an_ipv6_listener_is_one_sample(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    if !has_ipv6() {
        skip("IPv6");
    }
    let netns = net.near().path();
    let runs =
        ["", "-6", "-4"].map(|words| case.launch(&format!("{words} --json --netns={netns}")).start(&net));
    let both = listener(&server, (Ipv6Addr::UNSPECIFIED, 80).into(), 31);
    let one = listener(&server, net.v4_of(2, 81), 29);
    let mut waiting = wait_in_line(&client, net.v6_of(2, 80), 3);
    waiting.extend(wait_in_line(&client, net.v4_of(2, 80), 2));
    waiting.extend(wait_in_line(&client, one.address(), 7));
    let [all, v6, v4] = runs.map(Run::finish);
    for (ended, of_both, of_one) in [(&all, 5, 7), (&v6, 5, 0), (&v4, 2, 7)] {
        is(ended, "of both families", counted(ended, |row| row["backlog_max"] == 31), of_both);
        is(ended, "of IPv4", counted(ended, |row| row["backlog_max"] == 29), of_one);
        is(ended, "all", counted(ended, |_| true), of_both + of_one);
    }
    both.close();
}

/// How often a full queue refused a connection, as the kernel counts it in the far namespace.
fn overflows(net: &Net) -> u64 {
    overflows_of(
        &net.far().enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).expect("it is there"),
    )
}

/// `ListenOverflows` in such a text.
fn overflows_of(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "ListenOverflows").expect("the kernel counts them");
    found.1.parse().expect("a number")
}

fn what_a_full_queue_refuses_late_is_above_the_limit(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let netns = net.far().path();
    let runs = ["", "-4", "--laddr=!10.99.99.99"]
        .map(|words| case.launch(&format!("{words} --json --netns={netns}")).start(&net));
    let listeners = case.launch(&format!("--listeners --json --netns={netns}")).start(&net);
    // Room for four, of whom three come at once. Three more begin while there is room, and wait for their third packet.
    let web = listener(&server, net.v4_of(2, 80), 3);
    let mut near = wait_in_line(&client, web.address(), 3);
    let hold = "add rule inet probe prerouting tcp dport 80 tcp flags & (syn|ack) == ack drop";
    net.far().nft(&format!(
        "add chain inet probe prerouting {{ type filter hook prerouting priority 0; }}\n{hold}\n"
    ));
    let late: Vec<_> =
        (0..3).map(|_| client.connect_as(web.address(), &How::plain().nonblocking())).collect();
    late.iter().for_each(Conn::await_writable);
    near.extend(late);
    net.far().nft("flush chain inet probe prerouting\n");
    for near in &near[3..] {
        near.send(1);
    }
    let deadline = Instant::now() + PATIENCE;
    while overflows(&net) < 2 {
        assert!(Instant::now() < deadline, "no queue was too full");
        thread::yield_now();
    }
    // Nothing comes any more.
    net.far().nft(hold);
    let refused = overflows(&net);
    let ended = listeners.finish();
    let row = only_row(&ended, 80);
    let late = row["refused_late"].as_u64();
    holds(&ended, row["refused"] == refused && row["refused_exact"] == true, "each refusal once");
    holds(&ended, late.is_none() && case.rung == Rung::Tracepoint || late == Some(refused), "late ones");
    holds(&ended, row["sk_drops"].as_u64() >= Some(2 * refused), "two drops for each");
    for run in runs {
        let ended = run.finish();
        is(&ended, "taken", between(&ended, 3, 0, 1), 2);
        is(&ended, "taken", between(&ended, 3, 2, 3), 2);
        let tells = !ended.stderr.contains("connections that a full queue refuses are not counted");
        assert!(tells || case.rung == Rung::Tracepoint, "{}", ended.stderr);
        is(&ended, "refused", between(&ended, 3, 4, 7), if tells { refused } else { 0 });
        is(&ended, "all", counted(&ended, |_| true), if tells { refused + 4 } else { 4 });
    }
}

fn syns_that_a_full_queue_refuses_are_no_samples(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --netns={}", net.near().path())).start(&net);
    let web = listener(&server, net.v4_of(2, 80), 1);
    let near: Vec<_> =
        (0..4).map(|_| client.connect_as(web.address(), &How::plain().nonblocking())).collect();
    near[..2].iter().for_each(Conn::await_writable);
    let ended = run.finish();
    is(&ended, "all", counted(&ended, |_| true), 2);
    is(&ended, "of limit 1", between(&ended, 1, 0, 1), 2);
}

/// Whether a filter keeps a connection, of which this is the local and that the remote end, as its socket has them.
type Keeps = Box<dyn Fn(SocketAddr, SocketAddr) -> bool>;

fn each_filter_keeps_its_samples(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = listen(&net, &server);
    let netns = net.near().path();
    let (v4, bound) = (net.v4(0).ip(), net.v4(5001));
    let [two, three] = [net.v4_of(2, 0).ip(), net.v4_of(3, 0).ip()];
    let plain = |at: SocketAddr| at.ip().to_canonical();
    let mut filters: Vec<(String, Keeps)> = vec![
        (String::new(), Box::new(|_, _| true)),
        ("-4".into(), Box::new(move |local, _| plain(local).is_ipv4())),
        ("-6".into(), Box::new(|local, _| local.is_ipv6())),
        ("--lport=80".into(), Box::new(|local, _| local.port() == 80)),
        ("--lport=!80 -4".into(), Box::new(|local, _| local.port() != 80)),
        ("--rport=5001".into(), Box::new(|_, remote| remote.port() == 5001)),
        ("--rport=!5001".into(), Box::new(|_, remote| remote.port() != 5001)),
        (format!("--raddr={v4}"), Box::new(move |_, remote| plain(remote) == v4)),
        (format!("--laddr={two},{three}"), Box::new(move |local, _| [two, three].contains(&plain(local)))),
        (
            format!("--laddr=!{two} --lport=80"),
            Box::new(move |local, _| plain(local) != two && local.port() == 80),
        ),
    ];
    if has_ipv6() {
        let six = net.v6_of(2, 0).ip();
        filters.push((format!("--laddr={six}"), Box::new(move |local, _| local.ip() == six)));
        filters.push((
            format!("--laddr={three} -6"),
            Box::new(move |local, _| local.is_ipv6() && plain(local) == three),
        ));
    }
    for chunk in filters.chunks(6) {
        let start = |(words, _): &(String, Keeps)| {
            case.launch(&format!("--json {words} --netns={netns}")).start(&net)
        };
        let runs: Vec<Run<'_>> = chunk.iter().map(start).collect();
        let (mut ends, mut open) = (Vec::new(), Vec::new());
        for (nth, (listener, times)) in listeners.iter().zip([3, 5, 7, 11]).enumerate() {
            for round in 0..times {
                let how = if nth == 0 && round == 0 { How::plain().bound(bound) } else { How::plain() };
                let near = client.connect_as(listener.address(), &how);
                ends.push((listener.address(), near.local()));
                open.push((near, listener.accept()));
            }
        }
        for ((words, keeps), run) in chunk.iter().zip(runs) {
            let ended = run.finish();
            let wanted = ends.iter().filter(|(local, remote)| keeps(*local, *remote)).count();
            is(&ended, words, counted(&ended, |_| true), wanted as u64);
        }
        for (near, far) in open {
            near.reset(far);
        }
    }
}

fn a_cgroup_is_that_of_the_listener(case: &Case) {
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let id = format!("{:064}", u64::from(std::process::id()) + (1 << 42));
        let within = groups.put(&server, &format!("docker/{id}"));
        let netns = net.near().path();
        let words = [format!("--cgroup={within}"), format!("--container=!{id}")];
        let runs =
            words.clone().map(|words| case.launch(&format!("--json {words} --netns={netns}")).start(&net));
        let (inside, outside) = (server.listen(net.v4_of(2, 80)), client.listen(net.v4_of(2, 81)));
        // A handshake over loopback ends while the client has the processor.
        let mut waiting = wait_in_line(&client, inside.address(), 7);
        waiting.extend(wait_in_line(&server, outside.address(), 11));
        for ((run, samples), words) in runs.into_iter().zip([7, 11]).zip(words) {
            let ended = run.finish();
            is(&ended, &words, counted(&ended, |_| true), samples);
        }
    }
    groups.remove();
}

/// Connects and is accepted, and only then is the connection reset: no two packets can complete one handshake.
fn take_turns(client: &Peer, listener: &Listener<'_>) {
    let near = client.connect(listener.address());
    let far = listener.accept();
    near.reset(far);
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["--json 1", "--json -4 1"];
    let runs = words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let (start, mut all) = (Instant::now(), 0);
    // Blocks come meanwhile.
    while start.elapsed() < Duration::from_millis(3300) {
        take_turns(&client, &listener);
        all += 1;
    }
    for run in runs {
        let ended = run.finish();
        let rows = ended.stdout.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut blocks: Vec<u64> = rows.map(|row| row["ts_ns"].as_u64().expect("a number")).collect();
        blocks.dedup();
        assert!(blocks.len() > 2, "{} blocks", blocks.len());
        is(&ended, "all blocks", counted(&ended, |_| true), all);
    }
}

fn what_comes_while_the_tool_is_stopped_is_counted(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json 1 --netns={}", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    run.suspend();
    for _ in 0..101 {
        take_turns(&client, &listener);
    }
    run.resume();
    let ended = run.finish();
    is(&ended, "all", counted(&ended, |_| true), 101);
}

fn what_has_no_room_is_told(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json --x-table-entries 4 --netns={}", net.near().path())).start(&net);
    let listener = server.bind(net.v4_of(2, 80));
    let (mut waiting, mut all) = (Vec::new(), 0);
    for (limit, times) in (100..).zip([2, 3, 5, 7, 11, 13, 17]) {
        listener.again(limit).expect("it may listen");
        waiting.extend(wait_in_line(&client, listener.address(), times));
        all += times;
    }
    let ended = run.stop();
    let seen = usize::try_from(counted(&ended, |_| true)).expect("few");
    assert!(seen > 0 && seen < all && ended.lost() > 0, "{seen} of {all}: {}", ended.stderr);
    ended.sums_up(seen, all);
}

fn cookies_and_fast_open_are_one_sample(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let netns = net.near().path();
    let runs = ["", "--laddr=!10.99.99.99"]
        .map(|words| case.launch(&format!("{words} --json --netns={netns}")).start(&net));
    let web = listener(&server, net.v4_of(2, 80), 19);
    let mut open: Vec<_> = (0..3).map(|_| client.fast_open(web.address(), 100)).collect();
    open.iter().for_each(Conn::await_writable);
    let far: Vec<_> = (0..3).map(|_| web.accept()).collect();
    net.near().sysctl("ipv4/tcp_syncookies", "2");
    let other = listener(&server, net.v4_of(2, 81), 23);
    open.extend(wait_in_line(&client, other.address(), 5));
    for ended in runs.map(Run::finish) {
        is(&ended, "fast opens", counted(&ended, |row| row["backlog_max"] == 19), 3);
        is(&ended, "by cookie", counted(&ended, |row| row["backlog_max"] == 23), 5);
        is(&ended, "all", counted(&ended, |_| true), 8);
    }
    drop(far);
}

fn mptcp_is_one_sample(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    web.again(37).expect("it listens");
    let netns = net.near().path();
    let runs = ["", "-4"].map(|words| case.launch(&format!("{words} --json --netns={netns}")).start(&net));
    let talks: Vec<_> = (0..3).map(|_| client.converse(&web)).collect();
    for ended in runs.map(Run::finish) {
        is(&ended, "all", counted(&ended, |_| true), 3);
        is(&ended, "of its limit", counted(&ended, |row| row["backlog_max"] == 37), 3);
    }
    drop(talks);
}

fn ten_thousand_connections_are_ten_thousand_samples(case: &Case) {
    let times = if is_slow() { 1009 } else { 10_007 };
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--netns={}", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    for _ in 0..times {
        take_turns(&client, &listener);
    }
    let ended = run.finish();
    is(&ended, "all", text(&ended, "-", false).1, times);
}

fn every_signal_prints_the_interval_under_way(case: &Case) {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let netns = net.near().path();
        let words = ["3600", "", "--lport=1"];
        let [timed, plain, nothing] =
            words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
        let listener = server.listen(net.v4_of(2, 80));
        let waiting = wait_in_line(&client, listener.address(), 5);
        for run in [timed, plain] {
            let ended = run.signal(signal);
            ended.code(0);
            is(&ended, signal.as_str(), text(&ended, "-", false).1, 5);
        }
        let ended = nothing.signal(signal);
        ended.code(0);
        assert_eq!(ended.stdout, [BANNER, ""]);
        drop(waiting);
    }
}

fn blocks_come_at_their_interval_and_end_by_themselves(case: &Case) {
    let net = Net::new();
    let start = Instant::now();
    let ended = case.launch("-T --lport=1 1 3").start(&net).ends();
    let took = start.elapsed();
    ended.code(0);
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert_eq!(ended.stdout.len(), 7, "{:?}", ended.stdout);
    for block in ended.stdout[1..].chunks(2) {
        assert!(block[0].is_empty() && block[1].len() == 8, "{:?}", ended.stdout);
    }
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let words = format!("--json --netns={}", net.near().path());
    let runs = [0, 1].map(|_| case.launch(&words).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let waiting = wait_in_line(&client, listener.address(), 23);
    for ended in runs.map(Run::finish) {
        is(&ended, "each", counted(&ended, |_| true), 23);
    }
    drop(waiting);
}

/// Rows of `--listeners` with this local port.
fn rows_of(ended: &Ended, port: u16) -> Vec<Value> {
    let rows = ended.stdout.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.filter(|row| row["lport"] == port).collect()
}

fn only_row(ended: &Ended, port: u16) -> Value {
    let mut rows = rows_of(ended, port);
    if rows.len() != 1 {
        ended.fail(&format!("{} rows of {port}, not one", rows.len()));
    }
    rows.remove(0)
}

#[track_caller]
fn holds(ended: &Ended, holds: bool, what: &str) {
    if !holds {
        ended.fail(what);
    }
}

fn each_listener_is_a_row_with_its_owner_and_its_queue(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let before = listener(&server, net.v4_of(2, 79), 19);
    let words = ["--json", "", "-T", "--json --lport=81", "--json -6", "--json --laddr=10.99.99.99"];
    let runs = words.map(|words| case.launch(&format!("--listeners {words} --netns={netns}")).start(&net));
    let long = listener(&server, net.v4_of(2, 81), 17);
    let short = listener(&client, net.v4_of(2, 80), 5);
    let mut waiting = wait_in_line(&client, long.address(), 7);
    waiting.extend(wait_in_line(&server, short.address(), 3));
    waiting.extend(wait_in_line(&client, before.address(), 2));
    // One of them leaves the queue, which was longer.
    let taken = long.accept();
    let [rows, plain, timed, one, six, none] = runs.map(Run::finish);
    for ended in [&rows, &one] {
        let row = only_row(ended, 81);
        holds(
            ended,
            row["pid"] == server.pid() && row["comm"] == "server" && row["holders"] == 1,
            "its owner",
        );
        holds(ended, row["qlen_now"] == 6 && row["qmax"] == 17, "its queue");
        let knows = row["accepted"].is_u64();
        holds(ended, row["qlen"] == if knows { 7 } else { 6 }, "its longest queue");
        holds(ended, !knows || row["accepted"] == 7, "what it took");
        holds(ended, row["refused"] == 0 && row["refused_exact"] == true, "nothing was refused");
        holds(ended, row["laddr"] == long.address().ip().to_string(), "its address");
        holds(
            ended,
            row["netns"].as_u64() == fs::metadata(&netns).ok().map(|file| file.ino()),
            "its namespace",
        );
    }
    for (port, pid, queue, limit) in [(79, server.pid(), 2, 19), (80, client.pid(), 3, 5)] {
        let row = only_row(&rows, port);
        holds(&rows, row["pid"] == pid && row["qlen"] == queue && row["qmax"] == limit, "each its own");
        holds(&rows, row["accepted"].is_null() || row["accepted"] == queue, "what it took");
    }
    for (ended, count) in [(&rows, 3), (&one, 1), (&six, 0), (&none, 0)] {
        holds(ended, ended.stdout.len() == count, "one row for each that is kept");
    }
    // The fullest first.
    let head = format!(
        "{:<7} {:<16} {:<25} {:<5} {:>6} {:>6} {:>8}",
        "PID", "COMM", "LADDR", "LPORT", "QLEN", "QMAX", "REFUSED"
    );
    let first = format!(
        "{:<7} {:<16} {:<25} {:<5} {:>6} {:>6} {:>8}",
        client.pid(),
        "client",
        short.address().ip(),
        80,
        3,
        5,
        0
    );
    assert_eq!(plain.stdout[..4], ["Tracing accept queues... Hit Ctrl-C to end.", "", &head, &first]);
    assert_eq!(plain.stdout.len(), 6, "{:?}", plain.stdout);
    assert!(timed.stdout[2].len() == 8 && timed.stdout[3] == head, "{:?}", timed.stdout);
    drop((waiting, taken));
}

/// How often full queues refused a connection in the near namespace, and not fewer times than before.
fn refusals(net: &Net) -> u64 {
    overflows_of(
        &net.near().enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).expect("it is there"),
    )
}

fn refused_syns_are_those_of_their_listener(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let both = [80, 81].map(|port| listener(&server, net.v4_of(2, port), 1));
    let run = case.launch(&format!("--listeners --json --netns={netns}")).start(&net);
    let open = |at: SocketAddr, times: usize| {
        let how = How::plain().nonblocking();
        (0..times).map(|_| client.connect_as(at, &how)).collect::<Vec<_>>()
    };
    // Two have room. What the others send once more is refused, too.
    let first = open(both[0].address(), 5);
    let second = open(both[1].address(), 7);
    let least = refusals(&net);
    let ended = run.finish();
    let most = refusals(&net);
    let rows = [80, 81].map(|port| only_row(&ended, port));
    let refused = rows.each_ref().map(|row| row["refused"].as_u64().expect("a number"));
    for (row, (refused, own)) in rows.iter().zip(refused.into_iter().zip([3, 5])) {
        holds(&ended, row["qlen"] == 2 && row["qmax"] == 1, "a full queue");
        holds(&ended, refused >= own && row["refused_exact"] == true, "all that came");
    }
    holds(&ended, (least..=most).contains(&(refused[0] + refused[1])), &format!("{least} to {most} in all"));
    drop((first, second));
}

fn a_listener_that_closed_has_a_last_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--listeners --json --netns={} 1", net.near().path())).start(&net);
    let web = listener(&server, net.v4_of(2, 80), 7);
    let waiting = wait_in_line(&client, web.address(), 3);
    run.await_lines(1);
    web.close();
    let other = listener(&server, net.v4_of(2, 81), 7);
    let deadline = Instant::now() + PATIENCE;
    let both = |lines: &[String]| {
        let last = lines.iter().rposition(|line| line.contains("\"lport\":80,"));
        last.is_some_and(|last| lines.len() > last + 3)
    };
    let mut lines = run.lines();
    while !both(&lines) {
        assert!(Instant::now() < deadline, "it has rows for ever: {lines:?}");
        lines = run.await_lines(lines.len() + 1);
    }
    let ended = run.finish();
    let rows = rows_of(&ended, 80);
    let taken: u64 = rows.iter().filter_map(|row| row["accepted"].as_u64()).sum();
    holds(&ended, rows[0]["accepted"].is_null() || taken == 3, "what it took");
    holds(&ended, rows.iter().all(|row| row["refused"] == 0), "nothing was refused");
    drop(waiting);
    other.close();
}

fn a_failed_listen_is_no_row(case: &Case) {
    /// `SO_REUSEADDR`: both may bind, and the first to listen has the port.
    const BOTH: &str = "1:2:1";
    let net = Net::new();
    let server = net.peer("server");
    let at = net.v4_of(2, 80);
    let [first, second] = [0, 1].map(|_| server.bind_with("tcp4", at, BOTH).expect("both may bind"));
    let run = case.launch(&format!("--listeners --json --netns={}", net.near().path())).start(&net);
    first.again(3).expect("the first one may listen");
    assert_eq!(second.again(5).expect_err("the second one may not"), "EADDRINUSE");
    let ended = run.finish();
    let row = only_row(&ended, 80);
    holds(&ended, row["qmax"] == 3 && row["pid"] == server.pid(), "the one that listens");
}

fn a_listener_that_nobody_has_any_more_has_no_name(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let [json, plain] =
        ["--json", ""].map(|words| case.launch(&format!("--listeners {words} --netns={netns}")).start(&net));
    let there = listener(&server, net.v4_of(2, 81), 3);
    let mut waiting = wait_in_line(&client, there.address(), 1);
    let web = listener(&server, net.v4_of(2, 80), 3);
    waiting.extend(wait_in_line(&client, web.address(), 2));
    web.close();
    let [json, plain] = [json, plain].map(Run::finish);
    let of = |port: &str| plain.stdout.iter().find(|line| line.contains(&format!(" {port} ")));
    if only_row(&json, 81)["accepted"].is_null() {
        // Nothing tells that it took any.
        holds(&json, case.rung == Rung::Tracepoint && rows_of(&json, 80).is_empty(), "no row");
        return;
    }
    let row = only_row(&json, 80);
    holds(&json, row["pid"] == 0 && row["comm"].is_null(), "nobody has it");
    holds(&json, row["accepted"] == 2 && row["qlen"] == 2, "what it took");
    holds(&plain, of("80").is_some_and(|line| line.starts_with(&format!("{:<7} {:<16} ", 0, "-"))), "a dash");
    holds(&plain, of("81").is_some_and(|line| line.contains(" server ")), "a name");
    drop(waiting);
}

fn what_an_older_mptcp_listener_took_is_counted_or_not_known(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listen = |port| server.listen_mptcp(net.v4_of(2, port));
    let older = listen(80).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    let run = case.launch(&format!("--listeners --json --netns={}", net.near().path())).start(&net);
    let newer = listen(81).expect("a second one");
    let mut talks: Vec<_> = (0..3).map(|_| client.converse(&older)).collect();
    talks.extend((0..2).map(|_| client.converse(&newer)));
    let ended = run.finish();
    let [older, newer] = [80, 81].map(|port| only_row(&ended, port)["accepted"].as_u64());
    // Without functions nobody can let its connections know whose they are; before 5.11, nor those of a new one.
    let is_counted = case.rung != Rung::Tracepoint;
    holds(&ended, older == is_counted.then_some(3), "the older one");
    holds(&ended, newer == Some(2) || newer.is_none() && !is_counted, "the newer one");
    drop(talks);
}

/// No process has the listener any more, until it is taken from the socket that this answers.
fn in_flight(web: Listener<'_>) -> UnixDatagram {
    let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
    raw::send_descriptor(&near, &web.borrowed().expect("a descriptor")).expect("it may be sent");
    web.close();
    far
}

fn what_a_listener_dropped_before_is_not_of_the_interval(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = listener(&server, net.v4_of(2, 80), 0);
    let waiting = wait_in_line(&client, web.address(), 1);
    for _ in 0..5 {
        client.connect_as(web.address(), &How::plain().nonblocking()).close();
    }
    // The first look does not meet it.
    let mail = in_flight(web);
    let run = case.launch(&format!("--listeners --json --netns={}", net.near().path())).start(&net);
    let web = raw::receive_descriptor(&mail).expect("it comes");
    let ended = run.finish();
    let row = only_row(&ended, 80);
    holds(&ended, row["pid"] == std::process::id(), "who has it now");
    holds(&ended, row["sk_drops"] == 0 && row["refused"] == 0, "nothing was refused since");
    drop((web, waiting));
}

fn all_counts_of_a_row_are_of_one_moment(case: &Case) {
    /// What one client may have under way, with a margin for a processor that goes away between two loads.
    const UNDER_WAY: u64 = 8;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = listener(&server, net.v4_of(2, 80), 0);
    let run = case.launch(&format!("--listeners --json --netns={} 1", net.near().path())).start(&net);
    let waiting = wait_in_line(&client, web.address(), 1);
    let (to, is_over) = (SockaddrStorage::from(web.address()), AtomicBool::new(false));
    // Each is a SYN that is refused, and never sent again.
    let refusals: u64 = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let open = || {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
                assert_eq!(connect(socket.as_raw_fd(), &to), Err(Errno::EINPROGRESS));
            };
            net.near().enter(|| {
                let mut times = 0;
                while !is_over.load(Ordering::Relaxed) {
                    open();
                    times += 1;
                }
                times
            })
        });
        run.await_lines(5);
        is_over.store(true, Ordering::Relaxed);
        flood.join().expect("it ends")
    });
    let ended = run.finish();
    let rows = rows_of(&ended, 80);
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().expect("a number")).sum::<u64>();
    holds(&ended, sum("sk_drops") == refusals, &format!("{refusals} drops"));
    if case.rung == Rung::Tracepoint {
        // Refusals go on while the tool looks at what says how many there were.
        holds(&ended, sum("refused") >= refusals, &format!("at least {refusals}"));
        return;
    }
    holds(&ended, sum("refused") == refusals, &format!("{refusals} refusals"));
    for row in &rows {
        let [refused, drops] = ["refused", "sk_drops"].map(|key| row[key].as_u64().expect("a number"));
        holds(&ended, refused.abs_diff(drops) <= UNDER_WAY, &format!("{refused} refusals, {drops} drops"));
    }
    drop(waiting);
}

fn listeners_that_come_and_go_keep_their_counts(case: &Case) {
    let rounds: u16 = if is_slow() { 100 } else { 400 };
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--listeners --json --netns={}", net.near().path())).start(&net);
    let there = listener(&server, net.v4_of(2, 80), 3);
    let waiting = wait_in_line(&client, there.address(), 1);
    // Each may lie where an older one was.
    for port in (1001..).take(rounds.into()) {
        let web = listener(&server, net.v4_of(2, port), 3);
        let near = client.connect(web.address());
        web.close();
        near.close();
    }
    let ended = run.finish();
    let knows = only_row(&ended, 80)["accepted"].is_u64();
    holds(&ended, knows || case.rung == Rung::Tracepoint, "what it took");
    let rows = if knows { usize::from(rounds) } else { 0 };
    holds(&ended, ended.stdout.len() == rows + 1, &format!("{rounds} rows of those that are gone"));
    for port in (1001..).take(rows) {
        let row = only_row(&ended, port);
        holds(&ended, row["accepted"] == 1 && row["refused"] == 0, "what each took");
    }
    drop(waiting);
}

fn refusals_that_cannot_be_known_are_a_dash(case: &Case) {
    let net = Net::new();
    // There the numbers of /proc are not those of the kernel's programs, so nobody reads ListenOverflows.
    with_own_pids(|| {
        let server = net.new_peer("server");
        let web = listener(&server, net.v4_of(2, 80), 3);
        let netns = net.near().path();
        let [json, plain] = ["--json", ""]
            .map(|words| case.launch(&format!("--listeners {words} --netns={netns}")).start(&net));
        // Nor does anybody see what it drops.
        let mail = in_flight(web);
        let [json, plain] = [json, plain].map(Run::finish);
        if case.rung == Rung::Tracepoint {
            let row = only_row(&json, 80);
            holds(&json, row["refused"].is_null() && row["refused_exact"] == false, "not known");
            holds(&plain, plain.stdout.last().is_some_and(|line| line.ends_with("        -")), "a dash");
        } else {
            holds(&json, json.stdout.is_empty(), "nobody has it, and it did nothing");
        }
        drop(mail);
    });
}
