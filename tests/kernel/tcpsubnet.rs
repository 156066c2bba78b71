//! tcpsubnet: what is counted, for which subnet, and in which form.
//!
//! The tool sees the whole machine, so the lists hold subnets that only this test's namespaces have.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::Net;
use netbcc_tests::run::Run;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Each has the machine for itself: where somebody else attaches to the same function, the kernel's fexit leaves out
/// the calls that are under way.
pub(crate) const CHECKS: &[Check] = checks![
    every_way_to_send_counts_what_the_socket_counts: alone,
    a_partial_write_counts_what_was_taken: alone,
    the_first_subnet_of_the_list_counts_and_rows_are_these_bytes: alone,
    families_are_kept_apart: alone,
    a_socket_that_connects_elsewhere_counts_there: alone,
    a_fast_open_counts_where_it_goes: alone,
    one_of_thousands_of_subnets_counts: alone,
    hundreds_of_addresses_are_kept_apart: alone,
    sends_of_many_threads_that_wait_are_all_counted: alone,
    sums_over_intervals_lose_nothing: alone,
];

pub(crate) const ANY: &[Check] = checks![
    idle_intervals_are_a_stamp_only: alone,
    each_interval_of_bccs_json_comes_in_its_time: alone,
    every_signal_prints_the_interval_under_way: alone,
    all_namespaces_count: alone,
    two_copies_count_the_same: alone,
];

/// The bytes of a subnet in all rows of a run with `--json`.
fn bytes(ended: &Ended, subnet: &str) -> u64 {
    let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let rows = ended.stdout.iter().map(parse).filter(|row| row["subnet"] == subnet);
    rows.map(|row| row["bytes"].as_u64().expect("a number")).sum()
}

#[track_caller]
fn is(ended: &Ended, subnet: &str, expected: u64) {
    let actual = bytes(ended, subnet);
    if actual != expected {
        ended.fail(&format!("{actual} bytes to {subnet}, not {expected}"));
    }
}

/// The subnet of one address.
fn host(address: SocketAddr) -> String {
    format!("{}/{}", address.ip(), if address.is_ipv6() { 128 } else { 32 })
}

/// Whether a line is `[MM/DD/YY HH:MM:SS]`.
fn is_stamp(line: &str) -> bool {
    let digits = line.replace(|c: char| c.is_ascii_digit(), "0");
    digits == "[00/00/00 00:00:00]"
}

fn every_way_to_send_counts_what_the_socket_counts(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let run = case.launch(&format!("--json -i 3600 {subnet}")).start(&net);
    let from = client.connect(listener.address());
    let to = listener.accept();
    let (mut all, mut unseen) = (0, 0);
    for (nth, how) in ["send", "sendmsg", "writev", "sendmmsg", "sendfile", "splice", "zerocopy", "uring"]
        .iter()
        .enumerate()
    {
        let bytes = 10_000 + nth;
        match from.push(how, bytes) {
            Ok(sent) => assert_eq!(sent, bytes, "{how}"),
            // Not there, or not allowed.
            Err(error) if *how == "uring" && ["ENOSYS", "EPERM", "EINVAL"].contains(&error.as_str()) => {
                continue;
            }
            Err(error) => panic!("{how}: {error}"),
        }
        all += bytes as u64;
        unseen += if *how == "uring" { bytes as u64 } else { 0 };
        to.receive(bytes);
    }
    let (_, received) = to.counts();
    let ended = run.finish();
    assert_eq!(received, all);
    // The rung of old kernels that looks at system calls says that it does not see this.
    is(&ended, &subnet, if ended.stderr.contains("io_uring") { all - unseen } else { all });
}

fn a_partial_write_counts_what_was_taken(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let run = case.launch(&format!("--json -i 3600 {subnet}")).start(&net);
    let from = client.connect(listener.address());
    let _to = listener.accept();
    let taken = from.push("flood", 1 << 20).expect("some of it is taken") as u64;
    assert!(taken < 10 << 20, "{taken} bytes fit into a socket");
    is(&run.finish(), &subnet, taken);
}

/// More threads in one call than a kretprobe has room for.
fn sends_of_many_threads_that_wait_are_all_counted(case: &Case) {
    const WRITERS: usize = 24;
    const WRITTEN: usize = 200_000;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let run = case.launch(&format!("--json -i 3600 {subnet}")).start(&net);
    let (near, far): (Vec<_>, Vec<_>) = (0..WRITERS)
        .map(|_| {
            let near = client.connect(listener.address());
            (near, listener.accept())
        })
        .unzip();
    client.all_wait_to_send(&near, WRITTEN);
    for conn in &far {
        conn.receive(WRITTEN);
    }
    assert_eq!(client.joined(), WRITERS * WRITTEN);
    is(&run.finish(), &subnet, (WRITERS * WRITTEN) as u64);
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let runs = [0, 1].map(|_| case.launch(&format!("--json -i 3600 {subnet}")).start(&net));
    let from = client.connect(listener.address());
    let to = listener.accept();
    from.send(10_007);
    to.receive(10_007);
    for ended in runs.map(Run::finish) {
        is(&ended, &subnet, 10_007);
    }
}

fn the_first_subnet_of_the_list_counts_and_rows_are_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [1, 2, 3].map(|nth| server.listen(net.v4_of(nth, 80)));
    let at = |nth: u8| net.v4_of(nth, 80).ip();
    // Host bits do not matter, and are shown as typed. The last one is within the one before.
    let list = format!("{}/32,{}/24,{}/32", at(3), at(7), at(2));
    let run = case.launch(&format!("-i 3600 {list}")).start(&net);
    for (listener, bytes) in listeners.iter().zip([70, 1000, 5000]) {
        let from = client.connect(listener.address());
        let to = listener.accept();
        from.send(bytes);
        to.receive(bytes);
        // A row outlives its connection.
        from.close();
        to.await_end();
    }
    let ended = run.finish();
    let (one, all) = (format!("{}/32", at(3)), format!("{}/24", at(7)));
    assert_eq!(ended.stdout[0], "Tracing... Output every 3600 secs. Hit Ctrl-C to end");
    assert!(is_stamp(&ended.stdout[1]), "{:?}", ended.stdout);
    assert_eq!(ended.stdout[2..], [format!("{one:<21}   5000"), format!("{all:<21}   1070")]);
}

fn families_are_kept_apart(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let (four, six) = (net.v4_of(2, 80), net.v6_of(2, 80));
    // An IPv6 socket that talks to an IPv4 address.
    let mapped = Net::mapped(net.v4_of(3, 80));
    let listeners = [four, six, mapped].map(|at| server.listen(at));
    let (all4, all6) = (format!("{}/24", four.ip()), format!("{}/64", six.ip()));
    let mapped6 = host(mapped);
    for (list, expected) in [
        (format!("{mapped6},{all4},{all6}"), [100, 2000, 30_000]),
        // What an IPv6 socket sends to an IPv4 address is for subnets of IPv4, too.
        (format!("{all4},{all6},{mapped6}"), [30_100, 2000, 0]),
        (all4.clone(), [30_100, 0, 0]),
        (all6.clone(), [0, 2000, 0]),
        // And for those of IPv6, of which an earlier one may have it.
        (format!("::ffff:0:0/97,{mapped6}"), [0, 0, 0]),
    ] {
        let run = case.launch(&format!("--json -i 3600 {list}")).start(&net);
        for (listener, bytes) in listeners.iter().zip([100, 2000, 30_000]) {
            let from = client.connect(listener.address());
            let to = listener.accept();
            from.send(bytes);
            to.receive(bytes);
        }
        net.near().enter(|| {
            let udp = UdpSocket::bind(net.v4_of(1, 0)).expect("a UDP socket");
            assert_eq!(udp.send_to(&[0; 77], four).expect("it is sent"), 77);
        });
        let ended = run.finish();
        for (subnet, expected) in [&all4, &all6, &mapped6].into_iter().zip(expected) {
            is(&ended, subnet, expected);
        }
    }
}

fn a_socket_that_connects_elsewhere_counts_there(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [2, 3].map(|nth| server.listen(net.v4_of(nth, 80)));
    let [two, three] = listeners.each_ref().map(|listener| host(listener.address()));
    let run = case.launch(&format!("--json -i 3600 {two},{three}")).start(&net);
    let from = client.connect(listeners[0].address());
    let _first = listeners[0].accept();
    from.send(100);
    from.send(20);
    from.connect_elsewhere(listeners[1].address());
    let _second = listeners[1].accept();
    from.send(3000);
    from.send(400);
    from.connect_elsewhere(listeners[0].address());
    from.send(5);
    let ended = run.finish();
    is(&ended, &two, 125);
    is(&ended, &three, 3400);
}

fn a_fast_open_counts_where_it_goes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    // At its beginning, the call's socket has no address yet.
    let run = case.launch(&format!("--json -i 3600 0.0.0.0/32,{subnet}")).start(&net);
    for _ in 0..2 {
        let _from = client.fast_open(listener.address(), 100);
        listener.accept().receive(100);
    }
    let ended = run.finish();
    is(&ended, &subnet, 200);
    is(&ended, "0.0.0.0/32", 0);
}

/// A list of this many subnets that nobody here sends to, in front of `end`.
fn long_list(many: usize, end: &str) -> String {
    let mut list = String::new();
    for nth in 0..many {
        let _infallible = match nth % 2 {
            0 => write!(list, "198.18.{}.{}/32,", nth >> 8 & 255, nth & 255),
            _ => write!(list, "240.{}.{}.0/24,", nth >> 8 & 255, nth & 255),
        };
    }
    list + end
}

fn one_of_thousands_of_subnets_counts(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners =
        [net.v4_of(2, 80), net.v4_of(3, 80), net.v6_of(2, 80)].map(|address| server.listen(address));
    let [two, three, six] = listeners.each_ref().map(|listener| host(listener.address()));
    let around = format!("{}/24", net.v4_of(1, 80).ip());
    let list = long_list(5000, &format!("{six},{two},{around},{three}"));
    let run = case.launch(&format!("--json -i 3600 {list}")).start(&net);
    for (listener, bytes) in listeners.iter().zip([100, 2000, 30_000]) {
        let from = client.connect(listener.address());
        let _to = listener.accept();
        from.send(bytes);
        from.send(bytes);
    }
    let ended = run.finish();
    for (subnet, expected) in [(&two, 200), (&around, 4000), (&six, 60_000), (&three, 0)] {
        is(&ended, subnet, expected);
    }
    assert_eq!(ended.stdout.len(), 3, "{:?}", ended.stdout);
}

/// The kernel side keeps what it found for an address until another one takes its slot; some of these share one.
fn hundreds_of_addresses_are_kept_apart(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen((Ipv4Addr::UNSPECIFIED, net.port(0)).into());
    // All of 127/8 is local; nobody else uses these.
    let addresses: Vec<SocketAddr> = (0..200_u16)
        .map(|nth| {
            let [high, low] = nth.wrapping_mul(31_337).to_be_bytes();
            (Ipv4Addr::new(127, 77, high, low), listener.address().port()).into()
        })
        .collect();
    let list: Vec<String> = addresses.iter().map(|&address| host(address)).collect();
    let run = case.launch(&format!("--json -i 3600 {}", list.join(","))).start(&net);
    let conns: Vec<_> =
        addresses.iter().map(|&address| (client.connect(address), listener.accept())).collect();
    for _ in 0..2 {
        for ((from, _), nth) in conns.iter().zip(1..) {
            from.send(nth);
        }
    }
    let ended = run.finish();
    for (subnet, nth) in list.iter().zip(1..) {
        is(&ended, subnet, 2 * nth);
    }
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let run = case.launch(&format!("-J -i 1 {subnet}")).start(&net);
    let from = client.connect(listener.address());
    let to = listener.accept();
    let start = Instant::now();
    let mut all = 0;
    // Over the ends of some intervals.
    while start.elapsed() < Duration::from_millis(3300) {
        from.send(777);
        to.receive(777);
        all += 777;
    }
    let ended = run.finish();
    let blocks: Vec<u64> = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .filter_map(|block| block["entries"][&subnet].as_u64())
        .collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    if blocks.iter().sum::<u64>() != all {
        ended.fail(&format!("{all} bytes were sent"));
    }
}

fn idle_intervals_are_a_stamp_only(case: &Case) {
    let net = Net::new();
    let nobody = host(net.v4_of(1, 80));
    // The second is the default list, to which others may send.
    for list in [nobody.as_str(), "--"] {
        let start = Instant::now();
        let run = case.launch(&format!("-i 1 {list}")).start(&net);
        let lines = run.await_lines(3);
        assert!(start.elapsed() >= Duration::from_secs(2), "an interval each");
        assert_eq!(lines[0], "Tracing... Output every 1 secs. Hit Ctrl-C to end");
        let ended = run.finish();
        if list == nobody {
            assert!(ended.stdout[1..].iter().all(|line| is_stamp(line)), "{:?}", ended.stdout);
        }
    }
}

fn each_interval_of_bccs_json_comes_in_its_time(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let subnet = host(listener.address());
    let run = case.launch(&format!("-J -fK -i 1 {subnet}")).start(&net);
    let from = client.connect(listener.address());
    let _to = listener.accept();
    from.send(300);
    let lines = run.await_lines(1);
    // It was in the first interval, or in the second one.
    let lines = if lines[0].contains("{}") { run.await_lines(2) } else { lines };
    let line = lines.last().expect("there is one");
    let entries = format!("\"entries\": {{\"{subnet}\": 0.29296875}}}}");
    assert!(line.starts_with("{\"date\": \"") && line.ends_with(&entries), "{line}");
    let seen = lines.len();
    let idle = run.await_lines(seen + 1);
    assert!(idle[seen].ends_with("\", \"entries\": {}}"), "{}", idle[seen]);
    run.finish();
}

fn every_signal_prints_the_interval_under_way(case: &Case) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let listener = server.listen(net.v4_of(2, 80));
        let subnet = host(listener.address());
        let run = case.launch(&format!("-fb -i 3600 {subnet}")).start(&net);
        let from = client.connect(listener.address());
        let _to = listener.accept();
        from.send(1000);
        let ended = run.signal(signal);
        ended.code(0).quiet();
        assert!(is_stamp(&ended.stdout[1]), "{:?}", ended.stdout);
        assert_eq!(ended.stdout[2..], [format!("{subnet:<21}   8000")]);
    }
}

fn all_namespaces_count(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let [here, there] = [1, 2].map(|nth| host(net.v4_of(nth, 80)));
    let run = case.launch(&format!("--json -i 3600 {here},{there}")).start(&net);
    let from = client.connect(listener.address());
    let to = listener.accept();
    from.send(100);
    to.receive(100);
    to.send(2000);
    from.receive(2000);
    let ended = run.finish();
    is(&ended, &there, 100);
    is(&ended, &here, 2000);
}
