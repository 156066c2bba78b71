//! tcptop: what is counted, for whom, and in which form.
//!
//! The sockets themselves count, too (`tcp_info`), and so do the processes that send and receive: all three agree.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::Net;
use netbcc_tests::peer::Peer;
use netbcc_tests::raw::Map;
use netbcc_tests::run::Run;
use nix::libc;
use serde_json::Value;

use crate::tcpconnect::{Mounts, pinned};

/// Each has the machine for itself: where somebody else attaches to the same function, the kernel's fexit leaves out
/// the calls that are under way.
pub(crate) const CHECKS: &[Check] = checks![
    every_way_to_send_counts_what_the_socket_counts: alone,
    every_way_to_receive_counts_what_the_socket_counts: alone,
    a_partial_write_counts_what_was_taken: alone,
    what_was_connected_before_the_start_counts: alone,
    rows_are_exactly_these_bytes_and_outlive_their_connection: alone,
    the_filters_keep_what_they_say: alone,
    sums_over_intervals_lose_nothing: alone,
    processes_that_share_a_socket_have_rows_of_their_own: alone,
    short_connections_keep_their_bytes_to_the_end_of_the_interval: alone,
    a_socket_that_connects_elsewhere_has_another_row: alone,
    who_takes_another_name_has_another_row: alone,
    calls_of_many_threads_that_wait_are_all_counted: alone,
    what_has_no_room_is_told: alone,
];

pub(crate) const ANY: &[Check] = checks![
    idle_intervals_have_no_header_and_end_by_themselves: alone,
    a_threads_own_name_is_in_its_row: alone,
    container_filters_keep_only_their_members: alone,
    two_copies_count_the_same: alone,
];

/// The bytes of this process in all rows of a JSON run.
fn sums(ended: &Ended, of: &Peer) -> (u64, u64) {
    rows(ended, of).iter().fold((0, 0), |(rx, tx), row| {
        (rx + row["rx_bytes"].as_u64().expect("a number"), tx + row["tx_bytes"].as_u64().expect("a number"))
    })
}

/// The rows of this process in a JSON run.
fn rows(ended: &Ended, of: &Peer) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let rows = ended.stdout.iter().map(parse).filter(|row| row["pid"] == of.pid());
    rows.inspect(|row| assert!(row["lport"] != 0 && row["rport"] != 0, "{row}")).collect()
}

fn is(ended: &Ended, what: &str, actual: (u64, u64), expected: (u64, u64)) {
    if actual != expected {
        ended.fail(&format!("{what} received and sent {actual:?}, not {expected:?}"));
    }
}

fn every_way_to_send_counts_what_the_socket_counts(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let from = client.connect(listener.address());
    let to = listener.accept();
    let (mut all, mut unseen) = (0, 0);
    let ways = ["send", "sendmsg", "writev", "sendmmsg", "sendfile", "splice", "zerocopy", "uring", "worker"];
    for (nth, how) in ways.iter().enumerate() {
        let bytes = 10_000 + nth;
        let by_uring = ["uring", "worker"].contains(how);
        match from.push(how, bytes) {
            Ok(sent) => assert_eq!(sent, bytes, "{how}"),
            // Not there, or not allowed.
            Err(error) if by_uring && ["ENOSYS", "EPERM", "EINVAL"].contains(&error.as_str()) => {
                continue;
            }
            Err(error) => panic!("{how}: {error}"),
        }
        all += bytes as u64;
        unseen += if by_uring { bytes as u64 } else { 0 };
        to.receive(bytes);
    }
    let (acked, _) = from.counts();
    let (_, received) = to.counts();
    let ended = run.finish();
    // The peer counts bytes, the sender its SYN, too.
    assert_eq!((received, acked), (all, all + 1));
    // The rung of old kernels that looks at system calls says that it does not see this.
    let seen = if ended.stderr.contains("io_uring") { all - unseen } else { all };
    is(&ended, "the client", sums(&ended, &client), (0, seen));
    is(&ended, "the server", sums(&ended, &server), (all, 0));
    // A thread that the kernel made to send for the client has no row of its own.
    for row in rows(&ended, &client) {
        assert_eq!(row["comm"], "client", "{row}");
    }
    ended.quiet();
}

fn every_way_to_receive_counts_what_the_socket_counts(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let to = client.connect(listener.address());
    let from = listener.accept();
    let mut all = 0;
    for (nth, how) in ["waitall", "readv", "trunc", "splice", "peek", "splice"].iter().enumerate() {
        let bytes = 3000 + nth;
        // In pieces: what is waited for comes in more than one.
        from.push("send", 1000).expect("it is sent");
        from.push("send", bytes - 1000).expect("it is sent");
        assert_eq!(to.pull(how, bytes), bytes, "{how}");
        if *how == "peek" {
            to.pull("peek", bytes);
            to.receive(bytes);
        }
        all += bytes as u64;
    }
    let (_, received) = to.counts();
    let ended = run.finish();
    assert_eq!(received, all);
    is(&ended, "the client", sums(&ended, &client), (all, 0));
    is(&ended, "the server", sums(&ended, &server), (0, all));
    ended.quiet();
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let runs = [0, 1].map(|_| case.launch("--json 3600").start(&net));
    let from = client.connect(listener.address());
    let to = listener.accept();
    from.send(10_007);
    to.receive(10_007);
    for ended in runs.map(Run::finish) {
        is(&ended, "the client", sums(&ended, &client), (0, 10_007));
        is(&ended, "the server", sums(&ended, &server), (10_007, 0));
    }
}

fn a_partial_write_counts_what_was_taken(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let from = client.connect(listener.address());
    let _to = listener.accept();
    let taken = from.push("flood", 1 << 20).expect("some of it is taken") as u64;
    let ended = run.finish();
    assert!(taken < 10 << 20, "{taken} bytes fit into a socket");
    is(&ended, "the client", sums(&ended, &client), (0, taken));
    assert!(rows(&ended, &server).is_empty(), "who read nothing has no row");
}

fn what_was_connected_before_the_start_counts(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v6_of(2, 80));
    let from = client.connect(listener.address());
    let to = listener.accept();
    from.send(5000);
    to.receive(2000);
    let run = case.launch("--json 3600").start(&net);
    // Also what was sent before and is read only now, and a look before the first read.
    to.pull("peek", 1000);
    to.receive(1500);
    to.receive(1500);
    from.send(70_000);
    to.receive(70_000);
    let ended = run.finish();
    is(&ended, "the client", sums(&ended, &client), (0, 70_000));
    let (received, sent) = sums(&ended, &server);
    if ended.stderr.contains("first receives") {
        // The first that takes something; the look before tells where it began.
        assert!((70_000..=73_000).contains(&received) && sent == 0, "{received}");
    } else {
        is(&ended, "the server", (received, sent), (73_000, 0));
    }
    assert_eq!(rows(&ended, &client)[0]["ip"], 6);
}

/// The text row that BCC prints.
fn text(peer: &Peer, comm: &str, from: SocketAddr, to: SocketAddr, rx_kb: u64, tx_kb: u64) -> String {
    let width = if from.is_ipv6() { 32 } else { 21 };
    let end = |at: SocketAddr| format!("{}:{}", at.ip(), at.port());
    format!("{:<7} {comm:<12} {:<width$} {:<width$} {rx_kb:>6} {tx_kb:>6}", peer.pid(), end(from), end(to))
}

const HEADER: &str = "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB";
const HEADER6: &str =
    "PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB";

fn rows_are_exactly_these_bytes_and_outlive_their_connection(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("a b \u{fc}"), net.peer("abcdefghijklmno"));
    let (four, six) = (server.listen(net.v4_of(2, 80)), server.listen(net.v6_of(2, 80)));
    let run = case.launch("3600").start(&net);
    let mut expected = Vec::new();
    for (listener, bytes) in [(&four, 65_536), (&six, 2047)] {
        let from = client.connect(listener.address());
        let to = listener.accept();
        from.send(bytes);
        to.receive(bytes);
        to.send(1);
        from.receive(1);
        let (near, far, kb) = (from.local(), to.local(), bytes as u64 / 1024);
        from.close();
        to.await_end();
        to.close();
        expected.push(text(&client, "abcdefghijkl", near, far, 0, kb));
        expected.push(text(&server, "a b \u{fc}", far, near, kb, 0));
    }
    let ended = run.finish();
    let at = |line: &str| {
        let found = ended.stdout.iter().position(|other| other == line);
        found.unwrap_or_else(|| ended.fail(&format!("there is no line\n  {line:?}")))
    };
    assert_eq!(ended.stdout[..2], ["Tracing... Output every 3600 secs. Hit Ctrl-C to end", ""]);
    let load: Vec<&str> = ended.stdout[2].split(' ').collect();
    assert!(load.len() == 7 && load[0].len() == 8 && load[1] == "loadavg:", "{load:?}");
    assert_eq!(ended.stdout[3..5], ["", HEADER]);
    let order = [at(HEADER), at(&expected[0]), at(HEADER6), at(&expected[2])];
    assert!(order.is_sorted(), "{order:?}");
    assert!(at(&expected[1]) < at(HEADER6) && at(&expected[3]) > at(HEADER6));
    assert_eq!(ended.stdout[at(HEADER6) - 1], "");
    assert!(ended.stdout.iter().all(|line| !line.contains('\x1b')), "no escape sequences");
}

fn the_filters_keep_what_they_say(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [
        server.listen(net.v4_of(2, 80)),
        server.listen(net.v6_of(2, 80)),
        // An IPv6 socket that an IPv4 address reaches.
        server.listen(Net::mapped(net.v4_of(3, 80))),
    ];
    let (pid, own) = (format!("-p {}", client.pid()), client.pid());
    for (option, expected) in [
        (pid.as_str(), &[(4, own), (6, own), (6, own)][..]),
        ("-4", &[(4, own), (4, server.pid())]),
        ("-6", &[(6, own), (6, own), (6, server.pid()), (6, server.pid())]),
    ] {
        let run = case.launch(&format!("--json {option} 3600")).start(&net);
        for listener in &listeners {
            let from = client.connect(listener.address());
            let to = listener.accept();
            from.send(100);
            to.receive(100);
        }
        let ended = run.finish();
        let mut found: Vec<(u64, u32)> = [&client, &server]
            .iter()
            .flat_map(|peer| {
                rows(&ended, peer).into_iter().map(|row| (row["ip"].as_u64().unwrap(), peer.pid()))
            })
            .collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{option}: {:?}", ended.stdout);
    }
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    let net = Net::new();
    let (server, client, other) = (net.peer("server"), net.peer("client"), net.peer("other"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 1").start(&net);
    let from = client.connect(listener.address());
    let shared = from.share(&other);
    let to = listener.accept();
    let start = Instant::now();
    let (mut all, mut others) = (0, 0);
    // Over two ends of intervals at least: on a connection that stays, by two processes, and on some that do not.
    while start.elapsed() < Duration::from_millis(2300) {
        from.send(777);
        shared.send(333);
        to.receive(777 + 333);
        let short = client.connect(listener.address());
        let end = listener.accept();
        short.send(55);
        end.receive(55);
        short.close();
        end.close();
        all += 777 + 55;
        others += 333;
    }
    let ended = run.finish();
    let blocks = rows(&ended, &other).len();
    assert!(blocks >= 2, "{blocks} blocks");
    is(&ended, "the client", sums(&ended, &client), (0, all));
    is(&ended, "who shares its socket", sums(&ended, &other), (0, others));
    is(&ended, "the server", sums(&ended, &server), (all + others, 0));
    ended.quiet();
}

fn processes_that_share_a_socket_have_rows_of_their_own(case: &Case) {
    const TIMES: usize = 500;
    let net = Net::new();
    let server = net.peer("server");
    // Of one name: only the process tells them apart.
    let clients = [net.peer("client"), net.peer("client"), net.peer("client")];
    let listener = server.listen(net.v6_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let first = clients[0].connect(listener.address());
    let to = listener.accept();
    let all = [first.share(&clients[0]), first.share(&clients[1]), first.share(&clients[2])];
    // One after the other, in both directions; then all at once.
    for (nth, conn) in all.iter().enumerate() {
        conn.send(100 + nth);
        to.receive(100 + nth);
        to.send(10 + nth);
        conn.receive(10 + nth);
    }
    let received = to.begin_receive(TIMES * (7 + 8 + 9));
    let sent: Vec<_> = all.iter().enumerate().map(|(nth, conn)| conn.begin_sends(7 + nth, TIMES)).collect();
    for wait in sent {
        wait();
    }
    received();
    let ended = run.finish();
    for (nth, client) in clients.iter().enumerate() {
        let expected = (10 + nth, 100 + nth + (7 + nth) * TIMES);
        is(&ended, "a client", sums(&ended, client), (expected.0 as u64, expected.1 as u64));
        assert_eq!(rows(&ended, client).len(), 1, "{:?}", ended.stdout);
    }
    is(&ended, "the server", sums(&ended, &server), ((303 + 24 * TIMES) as u64, 33));
    ended.quiet();
}

fn short_connections_keep_their_bytes_to_the_end_of_the_interval(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let mut expected = Vec::new();
    for bytes in 1..=60 {
        let from = client.connect(listener.address());
        let to = listener.accept();
        from.send(bytes);
        to.receive(bytes);
        expected.push((u64::from(from.local().port()), bytes as u64));
        from.close();
        to.await_end();
        to.close();
    }
    let ended = run.finish();
    let found = |of: &Peer, port: &str, bytes: &str| {
        let rows = rows(&ended, of);
        let mut found: Vec<(u64, u64)> = rows
            .iter()
            .map(|row| (row[port].as_u64().expect("a port"), row[bytes].as_u64().expect("a number")))
            .collect();
        found.sort_by_key(|&(_, bytes)| bytes);
        found
    };
    assert_eq!(found(&client, "lport", "tx_bytes"), expected);
    assert_eq!(found(&server, "rport", "rx_bytes"), expected);
    ended.quiet();
}

fn a_socket_that_connects_elsewhere_has_another_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    for (address, elsewhere) in [(net.v4_of(2, 80), net.v4_of(3, 80)), (net.v6_of(2, 80), net.v6_of(3, 80))] {
        let listeners = [server.listen(address), server.listen(elsewhere)];
        let run = case.launch("--json 3600").start(&net);
        let from = client.connect(listeners[0].address());
        let to = listeners[0].accept();
        from.send(100);
        to.receive(100);
        from.connect_elsewhere(listeners[1].address());
        let to = listeners[1].accept();
        from.send(20);
        to.receive(20);
        let ended = run.finish();
        let rows = rows(&ended, &client);
        let found: Vec<_> =
            rows.iter().map(|row| (row["raddr"].as_str(), row["tx_bytes"].as_u64())).collect();
        let (first, second) = (address.ip().to_string(), elsewhere.ip().to_string());
        assert_eq!(found, [(Some(first.as_str()), Some(100)), (Some(second.as_str()), Some(20))]);
        // Both are addresses of this host, and its source is the address that it connects to.
        assert!(rows.iter().all(|row| row["laddr"] == row["raddr"]), "from elsewhere: {rows:?}");
        is(&ended, "the server", sums(&ended, &server), (120, 0));
        ended.quiet();
    }
}

fn who_takes_another_name_has_another_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("a long name"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let from = client.connect(listener.address());
    let _to = listener.accept();
    from.send(100);
    // What is left of the old name behind the new one's end is no part of it.
    client.rename("short");
    from.send(20);
    client.rename("a long name");
    from.send(3);
    let ended = run.finish();
    let rows = rows(&ended, &client);
    let found: Vec<_> = rows.iter().map(|row| (row["comm"].as_str(), row["tx_bytes"].as_u64())).collect();
    assert_eq!(found, [(Some("a long name"), Some(103)), (Some("short"), Some(20))]);
    ended.quiet();
}

/// More threads in one call than a kretprobe has room for.
fn calls_of_many_threads_that_wait_are_all_counted(case: &Case) {
    const READERS: usize = 64;
    const WRITERS: usize = 24;
    const READ: usize = 1000;
    const WRITTEN: usize = 200_000;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let (near, far): (Vec<_>, Vec<_>) = (0..READERS)
        .map(|_| {
            let near = client.connect(listener.address());
            (near, listener.accept())
        })
        .unzip();
    let mut received = 0;
    for (how, call) in
        [("waitall", libc::SYS_recvfrom), ("trunc", libc::SYS_recvfrom), ("splice", libc::SYS_splice)]
    {
        server.all_wait_to_receive(how, &far, READ, call);
        for conn in &near {
            // In two pieces: who waits for all of it waits twice.
            conn.send(READ / 4);
            conn.send(READ - READ / 4);
        }
        received += READ;
        assert_eq!(server.joined(), READERS * READ, "{how}");
    }
    client.all_wait_to_send(&near[..WRITERS], WRITTEN);
    for conn in &far[..WRITERS] {
        conn.receive(WRITTEN);
    }
    assert_eq!(client.joined(), WRITERS * WRITTEN);
    let ended = run.finish();
    let expected = |nth| (received + if nth < WRITERS { WRITTEN } else { 0 }) as u64;
    for (of, port, ends, bytes) in
        [(&server, "rport", &near, "rx_bytes"), (&client, "lport", &near, "tx_bytes")]
    {
        let rows = rows(&ended, of);
        for (nth, end) in ends.iter().enumerate() {
            let is_its = |row: &&Value| row[port] == end.local().port();
            let sum: u64 = rows.iter().filter(is_its).map(|row| row[bytes].as_u64().expect("a number")).sum();
            if sum != expected(nth) {
                ended.fail(&format!("connection {nth}: {bytes} {sum}, not {}", expected(nth)));
            }
        }
    }
    is(&ended, "the server", sums(&ended, &server), ((0..READERS).map(expected).sum(), 0));
    is(&ended, "the client", sums(&ended, &client), (0, (0..READERS).map(expected).sum()));
    ended.quiet();
}

fn what_has_no_room_is_told(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    // What others send has no room, either.
    let inode = fs::metadata(net.near().path()).expect("it is ours").ino();
    let run = case.launch(&format!("--json --x-table-entries 4 --netns {inode} 3600")).start(&net);
    let mut kept = Vec::new();
    for _ in 0..20 {
        let from = client.connect(listener.address());
        let to = listener.accept();
        from.send(100);
        to.receive(100);
        kept.push((from, to));
    }
    let ended = run.stop();
    ended.code(0);
    let counted: u64 = [&server, &client].iter().map(|of| sums(&ended, of)).map(|(rx, tx)| rx + tx).sum();
    let told = ended.stderr.lines().find_map(|line| line.split_once(": lost ")?.1.split_once(" events: "));
    let (lost, why) = told.unwrap_or_else(|| ended.fail("it does not say that something was lost"));
    assert!(why.starts_with(&format!("{lost} because a table was full")), "{why}");
    assert_eq!(counted + lost.parse::<u64>().expect("a number") * 100, 2 * 20 * 100);
    // Each of at most two tables has its four rows.
    assert!([400, 800].contains(&counted), "{counted}");
}

fn idle_intervals_have_no_header_and_end_by_themselves(case: &Case) {
    let net = Net::new();
    // Nobody else's traffic: of a process that sends nothing.
    let run = case.launch(&format!("-C -p {} 1 2", std::process::id())).start(&net);
    let ended = run.ends();
    ended.code(0).quiet();
    let lines: Vec<&str> = ended.stdout.iter().map(String::as_str).collect();
    let [_, "", first, "", "", second, ""] = lines[..] else { panic!("{lines:?}") };
    assert!(first.contains(" loadavg: ") && second.contains(" loadavg: "));
    let ended = case.launch(&format!("-S -p {} 3600", std::process::id())).start(&net).finish();
    assert_eq!(ended.stdout, ["Tracing... Output every 3600 secs. Hit Ctrl-C to end", ""]);
}

fn a_threads_own_name_is_in_its_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json 3600").start(&net);
    let from = client.connect(listener.address());
    from.push("send", 100).expect("it is sent");
    from.push_in_thread("send", 200, "worker").expect("it is sent");
    let ended = run.finish();
    let rows = rows(&ended, &client);
    assert_eq!(rows.len(), 2, "{rows:?}");
    // The busier one comes first.
    assert_eq!([&rows[0]["comm"], &rows[1]["comm"]], ["worker", "client"]);
    assert_eq!([&rows[0]["tx_bytes"], &rows[1]["tx_bytes"]], [200, 100]);
}

fn container_filters_keep_only_their_members(_: &Case) {
    let mut mounts = Mounts::new();
    let (bpf, groups) = (mounts.mount("bpf"), mounts.mount("cgroup2"));
    let group = groups.join(format!("netbcc-tcptop-{}", std::process::id()));
    let below = group.join("below");
    fs::create_dir_all(&below).unwrap_or_else(|e| skip(format!("cgroups of our own ({e})")));
    {
        let net = Net::new();
        let (inside, outside) = (net.peer("inside"), net.peer("outside"));
        inside.join_cgroup(&below);
        let map = Map::hash(8).expect("a map");
        map.insert(fs::metadata(&below).expect("it is there").ino()).expect("a key");
        let path = pinned(&map, &bpf.join("tcptop"));
        let listener = outside.listen(net.v4_of(2, 80));
        for option in [format!("--cgroupmap {path}"), format!("--cgroup {}", group.display())] {
            let case = Case { tool: "tcptop", rung: Rung::Any };
            let run = case.launch(&format!("--json {option} 3600")).start(&net);
            let from = inside.connect(listener.address());
            let to = listener.accept();
            from.send(100);
            to.receive(100);
            let ended = run.finish();
            is(&ended, "the one inside", sums(&ended, &inside), (0, 100));
            assert!(rows(&ended, &outside).is_empty(), "{option}");
        }
    }
    fs::remove_dir(&below).and_then(|()| fs::remove_dir(&group)).expect("nobody is left in it");
}
