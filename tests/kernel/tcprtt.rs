//! tcprtt: which segments are samples, with which values, in which form.
//!
//! The sockets count, too: all segments that came (`tcp_info`), of which the first completed the handshake and is no sample.
//! An end that only receives keeps the value that its handshake measured, so its samples are known exactly.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Info, Listener, Peer};
use netbcc_tests::run::{PATIENCE, Run};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::tcpconnect::Groups;

/// Each has the machine for itself: where somebody else attaches to the same function, the kernel's fentry leaves out the calls
/// that are under way.
pub(crate) const CHECKS: &[Check] = checks![
    every_segment_is_a_sample_of_its_address: alone,
    the_value_is_that_of_the_socket: alone,
    each_filter_keeps_its_samples: alone,
    a_cgroup_is_that_of_the_socket: alone,
    sums_over_intervals_lose_nothing: alone,
    what_comes_while_the_tool_is_stopped_is_counted: alone,
    what_has_no_room_is_told: alone,
    all_addresses_together_have_at_least_ours: alone,
];

pub(crate) const ANY: &[Check] = checks![
    the_shortest_round_trip_is_that_of_the_socket_at_its_end: alone,
    connections_that_never_were_have_no_shortest_round_trip: alone,
    blocks_come_until_they_are_as_long_as_the_duration: alone,
    rows_end_with_the_duration: alone,
    a_full_ring_tells_exactly_what_it_lost: alone,
    every_signal_prints_the_interval_under_way: alone,
    two_copies_count_the_same: alone,
];

/// Where `tcp_info` has what is asked for here.
const UNACKED: usize = 24;
const RTT: usize = 68;
const SEGS_IN: usize = 140;
const MIN_RTT: usize = 148;

/// What a socket says once nothing is under way between both ends.
fn settled(one: &Conn<'_>, other: &Conn<'_>) -> [Info; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let infos = [one.info(), other.info()];
        if infos.iter().all(|info| info.u32(UNACKED) == 0) {
            // An acknowledgement may have come between the two looks.
            return [one.info(), other.info()];
        }
        assert!(Instant::now() < deadline, "something is never acknowledged");
        std::thread::yield_now();
    }
}

/// Segments that came to both ends of an established connection: to who connected, all but the SYN-ACK; to who accepted, all
/// but the SYN, which its socket counts, too, and the ACK that made it.
fn samples([near, far]: &[Info; 2]) -> [u64; 2] {
    [u64::from(near.u32(SEGS_IN)) - 1, u64::from(far.u32(SEGS_IN)) - 2]
}

/// Of both ends together.
fn samples_of(infos: &[Info; 2]) -> u64 {
    samples(infos).iter().sum()
}

/// An end of a connection, and how many samples it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) local: SocketAddr,
    remote: SocketAddr,
    pub(crate) samples: u64,
}

/// Both ends, nothing being under way.
fn both(near: &Conn<'_>, far: &Conn<'_>, remote: SocketAddr) -> [End; 2] {
    let [one, other] = samples(&settled(near, far));
    let local = near.local();
    [End { local, remote, samples: one }, End { local: remote, remote: local, samples: other }]
}

/// So many requests and answers.
fn speak(near: &Conn<'_>, far: &Conn<'_>, times: usize) {
    for nth in 1..=times {
        near.send(nth);
        far.receive(nth);
        far.send(100);
        near.receive(100);
    }
}

fn json(ended: &Ended) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    ended.stdout.iter().map(parse).collect()
}

/// The addresses in the titles of a block, and the samples in all of its histograms.
pub(crate) fn text(ended: &Ended, word: &str, has_mean: bool) -> (Vec<IpAddr>, u64) {
    let titles = ended.stdout.iter().filter_map(|line| line.strip_prefix(&format!("{word} Address = ")));
    let addresses = titles.map(|rest| {
        let (text, mean) = rest.split_once(' ').unwrap_or((rest, ""));
        if (mean.starts_with("[AVG ") && mean.ends_with(']')) != has_mean {
            ended.fail(&format!("the mean in {rest:?}"));
        }
        text.parse().expect("an address")
    });
    let addresses = addresses.collect();
    let rows = ended.stdout.iter().filter(|line| line.contains(" -> "));
    let counts = rows.filter_map(|line| line.split([':', '|']).nth(1)?.trim().parse::<u64>().ok());
    (addresses, counts.sum())
}

/// The samples in all slots of which this holds.
pub(crate) fn counted(ended: &Ended, holds: impl Fn(&Value) -> bool) -> u64 {
    let rows = json(ended);
    rows.iter().filter(|row| holds(row)).map(|row| row["count"].as_u64().expect("a number")).sum()
}

/// Insists on this sum, but for what is told as lost, and for runs that the kernel skipped or hid.
#[track_caller]
pub(crate) fn is(ended: &Ended, what: &str, actual: u64, expected: u64) {
    if actual > expected {
        ended.fail(&format!("{what}: {actual}, not {expected}"));
    }
    let number = |count: u64| usize::try_from(count).expect("few");
    ended.sums_up(number(actual), number(expected));
}

/// Where a server listens: both families, an IPv4 address of an IPv6 socket, two ports.
pub(crate) fn listen<'p>(net: &Net, server: &'p Peer) -> Vec<Listener<'p>> {
    let mut at = vec![net.v4_of(2, 80), net.v4_of(3, 81)];
    if has_ipv6() {
        at.extend([net.v6_of(2, 80), Net::mapped(net.v4_of(3, 80))]);
    }
    at.into_iter().map(|at| server.listen(at)).collect()
}

/// A connection to each of a server's addresses: its near end, its far end, and where it goes.
pub(crate) struct Talk<'p> {
    pub(crate) pairs: Vec<(Conn<'p>, Conn<'p>, SocketAddr)>,
}

impl<'p> Talk<'p> {
    /// The first one from `from`, if it is given.
    pub(crate) fn new(listeners: &[Listener<'p>], client: &'p Peer, from: Option<SocketAddr>) -> Self {
        let pairs = listeners.iter().enumerate().map(|(nth, listener)| {
            let how = match from.filter(|_| nth == 0) {
                Some(from) => How::plain().bound(from),
                None => How::plain(),
            };
            let near = client.connect_as(listener.address(), &how);
            (near, listener.accept(), listener.address())
        });
        Self { pairs: pairs.collect() }
    }

    pub(crate) fn speak(&self) {
        for ((near, far, _), times) in self.pairs.iter().zip([3, 7, 13, 5]) {
            speak(near, far, times);
        }
    }

    pub(crate) fn ends(&self) -> Vec<End> {
        self.pairs.iter().flat_map(|(near, far, to)| both(near, far, *to)).collect()
    }
}

/// Samples at these ends.
fn sum(ends: &[End], keeps: impl Fn(&End) -> bool) -> u64 {
    ends.iter().filter(|end| keeps(end)).map(|end| end.samples).sum()
}

/// The address of a row.
fn address(row: &Value, key: &str) -> Option<IpAddr> {
    row[key].as_str().map(|text| text.parse().expect("an address"))
}

fn every_segment_is_a_sample_of_its_address(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = listen(&net, &server);
    let talk = Talk::new(&listeners, &client, None);
    // The connections are older than the tool.
    let before = talk.ends();
    let netns = net.near().path();
    let words = ["-B", "-Be", "-b", "-B --json", "-bm --json", "-B -e --json"];
    let runs = words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    talk.speak();
    let mut ends = talk.ends();
    for (end, before) in ends.iter_mut().zip(&before) {
        end.samples -= before.samples;
    }
    let [plain, with_mean, by_local, remote, local, means] = runs.map(Run::finish);
    let all = sum(&ends, |_| true);
    for (ended, key) in [(&remote, "raddr"), (&local, "laddr")] {
        let ip_of = |end: &End| if key == "raddr" { end.remote.ip() } else { end.local.ip() };
        for ip in ends.iter().map(ip_of) {
            let actual = counted(ended, |row| address(row, key) == Some(ip));
            is(ended, &format!("{key} {ip}"), actual, sum(&ends, |end| ip_of(end) == ip));
        }
        is(ended, "all", counted(ended, |_| true), all);
    }
    assert!(json(&local).iter().all(|row| row["high_msecs"].is_u64() && row.get("high_usecs").is_none()));
    for row in json(&means) {
        assert_eq!(row["samples"], counted(&means, |other| other["raddr"] == row["raddr"]), "{row}");
        assert!(row["avg_us"].as_f64().is_some_and(|mean| mean > 0.0), "{row}");
    }
    for (ended, word, has_mean) in
        [(&plain, "Remote", false), (&with_mean, "Remote", true), (&by_local, "Local", false)]
    {
        assert_eq!(ended.stdout[..3], ["Tracing TCP RTT... Hit Ctrl-C to end.", "", ""]);
        assert_eq!(ended.stdout[4], "     usecs               : count     distribution");
        let (addresses, count) = text(ended, word, has_mean);
        let ip_of = |end: &End| if word == "Remote" { end.remote.ip() } else { end.local.ip() };
        let mut wanted: Vec<IpAddr> = ends.iter().map(ip_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        assert_eq!(addresses, wanted, "IPv4 first, each in order");
        is(ended, "in text", count, all);
    }
}

fn the_value_is_that_of_the_socket(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let filter = format!("-p 80 --netns={}", net.near().path());
    let words = ["--json -e", "--json -em", "-e", "-m"];
    let runs = words.map(|words| case.launch(&format!("{words} {filter}")).start(&net));
    let near = client.connect(listener.address());
    let far = listener.accept();
    // This end sends nothing: it keeps what the handshake measured.
    for _ in 0..17 {
        near.send(1000);
        far.receive(1000);
    }
    let infos = settled(&near, &far);
    let end = &infos[1];
    let rtt = u64::from(end.u32(RTT));
    let [micros, millis, text, text_millis] = runs.map(Run::finish);
    is(&micros, "all", counted(&micros, |_| true), samples(&infos)[1]);
    for row in json(&micros) {
        let bound = |key: &str| row[key].as_u64().expect("a number");
        assert!((bound("low_usecs")..=bound("high_usecs")).contains(&rtt), "{rtt}: {row}");
        assert_eq!(row["avg_us"].as_f64(), Some(end.u32(RTT).into()), "{row}");
    }
    for row in json(&millis) {
        let bound = |key: &str| row[key].as_u64().expect("a number");
        assert!((bound("low_msecs")..=bound("high_msecs")).contains(&(rtt / 1000)), "{rtt}: {row}");
    }
    assert_eq!(text.stdout[3], format!("All Addresses = ******* [AVG {rtt}]"));
    assert_eq!(
        text_millis.stdout[3..5],
        ["All Addresses = *******", "     msecs               : count     distribution"]
    );
}

/// An IPv4 address as an IPv6 socket has it.
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Whether a filter keeps what comes to an end.
type Keeps = Box<dyn Fn(&End) -> bool>;

fn each_filter_keeps_its_samples(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = listen(&net, &server);
    let netns = net.near().path();
    let v4 = net.v4(0).ip();
    let [two, three] = [net.v4_of(2, 0).ip(), net.v4_of(3, 0).ip()];
    let mut filters: Vec<(String, Keeps)> = vec![
        (String::new(), Box::new(|_| true)),
        ("-4".into(), Box::new(|end| end.local.is_ipv4())),
        ("-6".into(), Box::new(|end| end.local.is_ipv6())),
        ("-p 80".into(), Box::new(|end| end.local.port() == 80)),
        ("-P 80".into(), Box::new(|end| end.remote.port() == 80)),
        ("-p 1-79,81-65535 --lport=!5001".into(), Box::new(|end| ![80, 5001].contains(&end.local.port()))),
        (format!("-a {v4}"), Box::new(move |end| end.local.ip().to_canonical() == v4)),
        (
            format!("-A {two},{three}"),
            Box::new(move |end| [two, three].contains(&end.remote.ip().to_canonical())),
        ),
        (
            format!("-A !{two} -p !80 -4"),
            Box::new(move |end| end.local.is_ipv4() && end.remote.ip() != two && end.local.port() != 80),
        ),
        (
            format!("--laddr={two} --rport=5001"),
            Box::new(move |end| end.local.ip().to_canonical() == two && end.remote.port() == 5001),
        ),
    ];
    if has_ipv6() {
        // An IPv6 socket has it, too.
        filters.push((
            format!("-A {three} -6"),
            Box::new(move |end| end.remote.ip() == IpAddr::from(mapped(three))),
        ));
    }
    for chunk in filters.chunks(6) {
        let runs: Vec<Run<'_>> = chunk
            .iter()
            .map(|(words, _)| case.launch(&format!("--json {words} --netns={netns}")).start(&net))
            .collect();
        let talk = Talk::new(&listeners, &client, Some(net.v4(5001)));
        talk.speak();
        let ends = talk.ends();
        for ((words, keeps), run) in chunk.iter().zip(runs) {
            let ended = run.finish();
            let wanted = sum(&ends, keeps);
            is(&ended, words, counted(&ended, |_| true), wanted);
        }
        for (near, far, _) in talk.pairs {
            near.reset(far);
        }
    }
}

fn a_cgroup_is_that_of_the_socket(case: &Case) {
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let id = format!("{:064}", u64::from(std::process::id()) + (1 << 41));
        let within = groups.put(&client, &format!("docker/{id}"));
        let netns = net.near().path();
        let words = [format!("--cgroup={within}"), format!("--container=!{id}")];
        let runs =
            words.clone().map(|words| case.launch(&format!("--json {words} --netns={netns}")).start(&net));
        let listener = server.listen(net.v4_of(2, 80));
        let near = client.connect(listener.address());
        let far = listener.accept();
        // What comes to either end comes while the other end's process has the processor.
        speak(&near, &far, 11);
        let samples = samples(&settled(&near, &far));
        for ((run, samples), words) in runs.into_iter().zip(samples).zip(words) {
            let ended = run.finish();
            is(&ended, &words, counted(&ended, |_| true), samples);
        }
    }
    groups.remove();
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["-B", "--lport=1-65535"];
    let runs = words.map(|words| case.launch(&format!("--json -i 1 {words} --netns={netns}")).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    let start = Instant::now();
    // Blocks come meanwhile.
    while start.elapsed().as_millis() < 3300 {
        speak(&near, &far, 3);
    }
    let all = samples_of(&settled(&near, &far));
    for run in runs {
        let ended = run.finish();
        let mut blocks: Vec<u64> =
            json(&ended).iter().map(|row| row["ts_ns"].as_u64().expect("a number")).collect();
        blocks.dedup();
        assert!(blocks.len() > 2, "{} blocks", blocks.len());
        is(&ended, "all blocks", counted(&ended, |_| true), all);
    }
}

fn what_comes_while_the_tool_is_stopped_is_counted(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--json -i 1 -B --netns={}", net.near().path())).start(&net);
    let listener = server.listen(net.v4_of(2, 80));
    run.suspend();
    let near = client.connect(listener.address());
    let far = listener.accept();
    speak(&near, &far, 101);
    let all = samples_of(&settled(&near, &far));
    run.resume();
    let ended = run.finish();
    is(&ended, "all", counted(&ended, |_| true), all);
}

fn what_has_no_room_is_told(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [2, 3, 4, 5, 6, 7, 8].map(|host| {
        if host > 3 {
            net.add_host(host);
        }
        server.listen(net.v4_of(host, 80))
    });
    let run = case
        .launch(&format!("--json -B --x-table-entries 4 --netns={} -P 80", net.near().path()))
        .start(&net);
    let mut all = 0;
    for (listener, times) in listeners.iter().zip([2, 3, 5, 7, 11, 13, 17]) {
        let near = client.connect(listener.address());
        let far = listener.accept();
        speak(&near, &far, times);
        all += samples(&settled(&near, &far))[0];
    }
    let ended = run.stop();
    let seen = counted(&ended, |_| true);
    assert!(seen > 0 && seen < all && ended.lost() > 0, "{seen} of {all}: {}", ended.stderr);
    let number = |count: u64| usize::try_from(count).expect("few");
    ended.sums_up(number(seen), number(all));
}

fn all_addresses_together_have_at_least_ours(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let runs = ["", "-e", "--json"].map(|words| case.launch(words).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    speak(&near, &far, 211);
    let ours: u64 = samples_of(&settled(&near, &far));
    let [plain, with_mean, rows] = runs.map(Run::finish);
    assert_eq!(
        plain.stdout[..4],
        ["Tracing TCP RTT... Hit Ctrl-C to end.", "", "", "All Addresses = *******"]
    );
    assert!(with_mean.stdout[3].starts_with("All Addresses = ******* [AVG "), "{}", with_mean.stdout[3]);
    let counts = [text(&plain, "-", false).1, text(&with_mean, "-", false).1, counted(&rows, |_| true)];
    // Others may speak meanwhile.
    for (ended, count) in [&plain, &with_mean, &rows].into_iter().zip(counts) {
        is(ended, "at least", count.min(ours), ours);
    }
}

fn the_shortest_round_trip_is_that_of_the_socket_at_its_end(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let netns = net.near().path();
    let words = ["--min --json", "--min -B", "--min -be -P 80", "--min -p 80"];
    let runs = words.map(|words| case.launch(&format!("{words} --netns={netns}")).start(&net));
    let mut wanted = Vec::new();
    let listeners = listen(&net, &server);
    for nth in 0..7 {
        let talk = Talk::new(&listeners, &client, None);
        talk.speak();
        for (near, far, to) in talk.pairs {
            let infos = settled(&near, &far);
            let ends = [(near.local(), to), (to, near.local())];
            // Closed by this end, or by both with a reset.
            let by_fin = nth % 2 == 0;
            wanted.extend(ends.into_iter().zip(infos).map(|(ends, info)| (ends, info.u32(MIN_RTT), by_fin)));
            if by_fin {
                near.close();
                far.await_end();
                far.close();
            } else {
                near.reset(far);
            }
        }
    }
    let [rows, by_remote, by_local, of_port] = runs;
    rows.await_lines(wanted.len());
    let ended = rows.finish();
    let mut found = Vec::new();
    for row in json(&ended) {
        let end = |ip: &str, port: &str| {
            let port = row[port].as_u64().and_then(|port| u16::try_from(port).ok());
            SocketAddr::new(address(&row, ip).expect("there is one"), port.expect("a port"))
        };
        let min = row["min_rtt_us"].as_u64().and_then(|min| u32::try_from(min).ok());
        assert!(row["srtt_us"].is_u64() && row["netns"].is_u64() && row["ip"].is_u64(), "{row}");
        found.push(((end("laddr", "lport"), end("raddr", "rport")), min.expect("it was measured")));
    }
    found.sort_unstable();
    wanted.sort_unstable();
    // The round trip of a FIN may be shorter than all before it.
    let is_right = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|((ends, min), (its_ends, before, by_fin))| {
            ends == its_ends && (min == before || *by_fin && min < before)
        });
    if !is_right {
        ended.fail(&format!("{found:?}\nnot\n{wanted:?}"));
    }
    let of = |keeps: fn(&(SocketAddr, SocketAddr)) -> bool| {
        wanted.iter().filter(|(ends, ..)| keeps(ends)).count() as u64
    };
    let ended = by_remote.finish();
    assert_eq!(ended.stdout[0], "Tracing minimum TCP RTT of closed connections... Hit Ctrl-C to end.");
    is(&ended, "-B", text(&ended, "Remote", false).1, of(|_| true));
    let ended = by_local.finish();
    is(&ended, "-be -P 80", text(&ended, "Local", true).1, of(|ends| ends.1.port() == 80));
    let ended = of_port.finish();
    is(&ended, "-p 80", text(&ended, "-", false).1, of(|ends| ends.0.port() == 80));
}

fn connections_that_never_were_have_no_shortest_round_trip(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("--min --json --netns={}", net.near().path())).start(&net);
    client.refused(net.v4_of(2, 82));
    server.listen(net.v4_of(2, 81)).close();
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    // Nobody accepts it, and then nobody listens.
    listener.close();
    near.await_end();
    near.close();
    run.await_lines(2);
    let ended = run.finish();
    let ports: Vec<Value> = json(&ended).iter().map(|row| row["rport"].clone()).collect();
    assert!(ports.len() == 2 && ports.iter().filter(|port| **port == 80).count() == 1, "{ports:?}");
}

fn blocks_come_until_they_are_as_long_as_the_duration(case: &Case) {
    let net = Net::new();
    let start = Instant::now();
    let ended = case.launch("-i 2 -d 3 -T -p 1").start(&net).ends();
    let took = start.elapsed().as_secs_f64();
    ended.code(0).quiet();
    assert!(took >= 4.0, "{took} s");
    let is_time = |line: &String| line.len() == 8 && line.matches(':').count() == 2;
    assert_eq!(ended.stdout.len(), 5, "{:?}", ended.stdout);
    assert!(is_time(&ended.stdout[2]) && is_time(&ended.stdout[4]), "{:?}", ended.stdout);
    assert_eq!([&*ended.stdout[1], &*ended.stdout[3]], ["", ""]);
}

fn rows_end_with_the_duration(case: &Case) {
    let net = Net::new();
    let start = Instant::now();
    let run = case.launch(&format!("--min --json -d 2 --netns={}", net.near().path())).start(&net);
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    near.close();
    let ended = run.ends();
    ended.code(0);
    assert!(start.elapsed().as_secs() >= 2, "{:?}", start.elapsed());
    assert!(!ended.stdout.is_empty(), "it closed before the end");
}

fn a_full_ring_tells_exactly_what_it_lost(case: &Case) {
    const CONNECTIONS: usize = 503;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    listener.serve();
    let run = case.launch(&format!("--min --json --x-ring-bytes 4096 --netns={}", net.near().path()));
    let run = run.start(&net).watched();
    run.suspend();
    assert_eq!(client.churn(listener.address(), CONNECTIONS, 1), (CONNECTIONS, 0));
    listener.served(CONNECTIONS);
    run.resume();
    let ended = run.stop();
    assert!(ended.lost() > 0, "{}", ended.stderr);
    // Both ends.
    ended.sums_up(ended.stdout.len(), 2 * CONNECTIONS);
}

fn every_signal_prints_the_interval_under_way(case: &Case) {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let run = case.launch(&format!("-i 3600 -B --netns={}", net.near().path())).start(&net);
        let listener = server.listen(net.v4_of(2, 80));
        let near = client.connect(listener.address());
        let far = listener.accept();
        speak(&near, &far, 5);
        let all = samples_of(&settled(&near, &far));
        let ended = run.signal(signal);
        ended.code(0);
        is(&ended, signal.as_str(), text(&ended, "Remote", false).1, all);
    }
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let words = format!("--json -B --netns={}", net.near().path());
    let runs = [0, 1].map(|_| case.launch(&words).start(&net));
    let listener = server.listen(net.v4_of(2, 80));
    let near = client.connect(listener.address());
    let far = listener.accept();
    speak(&near, &far, 23);
    let all = samples_of(&settled(&near, &far));
    for ended in runs.map(Run::finish) {
        is(&ended, "each", counted(&ended, |_| true), all);
    }
}
