//! tcptracer: which opens, accepts and closes are rows, whose they are, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use netbcc_common::mptcp::Owner;
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{How, Peer};
use netbcc_tests::raw::Map;
use netbcc_tests::rows::Row;
use netbcc_tests::run::{PATIENCE, Run, binary, memory_of};

use crate::tcpconnect::{Mounts, pinned};

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    rows_with_words_are_exactly_these_bytes,
    seconds_count_from_the_first_row,
    json_rows_carry_every_value,
    a_hostile_name_cannot_drive_a_terminal,
    the_namespace_filter_keeps_only_that_namespace,
    the_user_filter_goes_by_who_does_it,
    container_maps_keep_only_their_members,
    rows_leave_through_a_pipe_at_once,
];

pub(crate) const CHECKS: &[Check] = checks![
    a_connection_is_four_rows_of_exactly_these_bytes,
    what_is_never_established_gives_no_row,
    an_open_that_failed_before_the_start_gives_no_row,
    connections_over_ipv6_have_all_four_rows,
    families_go_by_the_socket,
    a_connection_from_before_the_start_has_its_closes_only,
    a_shutdown_is_no_row_and_the_close_after_it_is_one,
    the_last_descriptor_closes,
    a_killed_process_closes,
    sockets_without_a_connection_close_without_a_row,
    a_reset_is_no_row_and_the_close_after_it_is_one,
    closes_that_reset_are_rows,
    an_open_that_a_timer_completes_is_of_who_connected,
    a_connection_reset_before_accept_is_as_complete_as_is_said,
    a_thread_that_waited_before_the_start_is_seen,
    the_pid_filter_goes_by_who_does_it,
    an_mptcp_connection_has_no_closes,
    a_further_subflow_is_of_who_connected,
    a_full_table_of_owners_keeps_those_that_it_has: alone,
    every_connection_is_complete_or_told: alone,
    opens_that_fail_do_not_fill_the_maps: alone,
];

/// Starts the tool. A connection between two [`END_PORT`]s, all by `keeper`, ends its rows with four.
fn start<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer) -> Run<'n> {
    start_at(case, options, net, keeper, net.v4_of(3, END_PORT))
}

fn start_at<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer, at: SocketAddr) -> Run<'n> {
    let listener = keeper.listen(at);
    let from = if at.is_ipv6() { net.v6(END_PORT) } else { net.v4(END_PORT) };
    let end = move || {
        let near = keeper.connect_as(listener.address(), &How::plain().bound(from));
        // Nothing stays that would keep the ports for itself.
        listener.accept().abort();
        near.await_end();
        near.close();
    };
    case.launch(options).start(net).ended_by(end).end_rows(4)
}

/// The text row.
fn line(kind: &str, who: &Peer, comm: &str, local: SocketAddr, remote: SocketAddr) -> String {
    let address = |at: SocketAddr| match at {
        SocketAddr::V4(at) => at.ip().to_string(),
        SocketAddr::V6(at) => format!("[{}]", at.ip()),
    };
    format!(
        "{kind:<2} {:<6} {comm:<16} {:<2} {:<16} {:<16} {:<6} {:<6}",
        who.pid(),
        if local.is_ipv4() { 4 } else { 6 },
        address(local),
        address(remote),
        local.port(),
        remote.port(),
    )
}

/// The inode number of the near network namespace.
fn inode(net: &Net) -> u64 {
    net.near().enter(|| fs::metadata("/proc/thread-self/ns/net").expect("/proc is mounted").ino())
}

fn a_connection_is_four_rows_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("abcdefghijklmno"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let (local, remote) = (near.local(), web.address());
    let far = web.accept();
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(4);
    rows[0].reads(&line("C", &client, "abcdefghijklmno", local, remote));
    rows[1].reads(&line("A", &server, "server", remote, local));
    rows[2].reads(&line("X", &client, "abcdefghijklmno", local, remote));
    rows[3].reads(&line("X", &server, "server", remote, local));
    assert_eq!(rows[0].line.len(), 77);
    run.finish();
}

fn what_is_never_established_gives_no_row(case: &Case) {
    let net = Net::new();
    let (client, keeper) = (net.peer("client"), net.peer("keeper"));
    net.near().sysctl("ipv4/tcp_syn_retries", "1");
    let run = start(case, "", &net, &keeper);
    client.refused(net.v4_of(2, 80));
    client.fails(net.unroutable(80), &How::plain(), "ENETUNREACH");
    let refused = client.connect_as(net.v4_of(2, 81), &How::plain().nonblocking());
    refused.await_writable();
    refused.close();
    client.connect_as(net.silent(80), &How::plain().nonblocking()).close();
    client.fails(net.silent(81), &How::plain(), "ETIMEDOUT");
    client.order(&format!("udp-connect {}", net.v4(80)));
    run.rows(0);
    run.finish();
}

fn an_open_that_failed_before_the_start_gives_no_row(case: &Case) {
    let net = Net::new();
    let (client, keeper) = (net.peer("client"), net.peer("keeper"));
    let refused = client.connect_as(net.v4_of(2, 81), &How::plain().nonblocking());
    refused.await_writable();
    let silent = client.connect_as(net.silent(80), &How::plain().nonblocking());
    let run = start(case, "", &net, &keeper);
    refused.close();
    silent.close();
    run.rows(0);
    run.finish();
}

fn connections_over_ipv6_have_all_four_rows(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, net.port(0))));
    let run = start(case, "", &net, &keeper);
    let mut expected = Vec::new();
    for to in [net.v6_of(2, net.port(0)), Net::mapped(net.v4_of(2, net.port(0)))] {
        let near = client.connect(to);
        let local = Net::mapped(near.local());
        let far = web.accept();
        far.close();
        near.await_end();
        near.close();
        expected.push(line("C", &client, "client", local, to));
        expected.push(line("A", &server, "server", to, local));
        expected.push(line("X", &server, "server", to, local));
        expected.push(line("X", &client, "client", local, to));
    }
    let rows = run.rows(8);
    for (row, expected) in rows.iter().zip(&expected) {
        row.reads(expected);
    }
    run.finish();
}

fn families_go_by_the_socket(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let both = server.listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, net.port(0))));
    let four = server.listen(net.v4_of(2, 80));
    let runs = [
        start_at(case, "-4", &net, &keeper, net.v4_of(3, END_PORT)),
        start_at(case, "-6", &net, &keeper, net.v6_of(3, END_PORT)),
    ];
    for (to, listener) in
        [(net.v6(net.port(0)), &both), (Net::mapped(net.v4(net.port(0))), &both), (four.address(), &four)]
    {
        let near = client.connect(to);
        let far = listener.accept();
        near.close();
        far.await_end();
        far.close();
    }
    let [only_four, only_six] = &runs;
    only_four.rows(4).are("IP", &[4; 4]);
    let rows = only_six.rows(8);
    rows.are("IP", &[6; 8]).are("T", &["C", "A", "X", "X", "C", "A", "X", "X"]);
    for run in runs {
        run.finish();
    }
}

fn a_connection_from_before_the_start_has_its_closes_only(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let run = start(case, "", &net, &keeper);
    near.close();
    far.await_end();
    far.close();
    run.rows(2).are("T", &["X"; 2]).are("PID", &[client.pid(), server.pid()]);
    run.finish();
}

fn a_shutdown_is_no_row_and_the_close_after_it_is_one(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    // The close that finds the other direction open, then the one that finds nothing left.
    let near = client.connect(web.address());
    let far = web.accept();
    near.finish_sending();
    far.await_end();
    run.rows(2).are("T", &["C", "A"]);
    near.close();
    run.rows(3)[2].is("T", "X").is("PID", client.pid()).is("DPORT", 80);
    far.close();
    run.rows(4)[3].is("T", "X").is("PID", server.pid()).is("SPORT", 80);
    // Both directions, and both ends before either closes.
    let near = client.connect(web.address());
    let far = web.accept();
    far.finish();
    near.await_end();
    near.finish();
    run.rows(6).are("T", &["C", "A", "X", "X", "C", "A"]);
    near.close();
    run.rows(7)[6].is("T", "X").is("PID", client.pid()).is("DPORT", 80);
    far.close();
    run.rows(8)[7].is("T", "X").is("PID", server.pid()).is("SPORT", 80);
    run.finish();
}

fn the_last_descriptor_closes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let _far = web.accept();
    let second = near.duplicate();
    near.close();
    run.rows(2).are("T", &["C", "A"]);
    second.close();
    run.rows(3)[2].is("T", "X").is("PID", client.pid());
    run.finish();
}

fn a_killed_process_closes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let _far = web.accept();
    let (pid, port) = (client.pid(), near.local().port());
    client.kill();
    run.rows(3)[2].is("T", "X").is("PID", pid).is("COMM", "client").is("SPORT", port).is("DPORT", 80);
    run.finish();
}

fn sockets_without_a_connection_close_without_a_row(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let run = start(case, "", &net, &keeper);
    let web = server.listen(net.v4_of(2, 80));
    server.bind(net.v4_of(2, 81)).close();
    // Nobody accepts this one.
    let near = client.connect(web.address());
    web.close();
    near.await_end();
    near.close();
    let rows = run.rows(2);
    rows.are("T", &["C", "X"]).are("PID", &[client.pid(); 2]);
    run.finish();
}

fn a_reset_is_no_row_and_the_close_after_it_is_one(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let local = near.local();
    web.accept().abort();
    near.await_end();
    run.rows(3).are("T", &["C", "A", "X"]).are("PID", &[client.pid(), server.pid(), server.pid()]);
    near.close();
    run.rows(4)[3].reads(&line("X", &client, "client", local, web.address()));
    run.finish();
}

fn closes_that_reset_are_rows(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    // Unread data.
    let near = client.connect(web.address());
    let far = web.accept();
    near.send(100);
    far.await_data();
    far.close();
    near.await_end();
    near.close();
    // SO_LINGER, after one direction was shut down.
    let near = client.connect(web.address());
    let local = near.local();
    let far = web.accept();
    near.finish_sending();
    far.await_end();
    near.abort();
    far.close();
    let rows = run.rows(8);
    rows.are("T", &["C", "A", "X", "X", "C", "A", "X", "X"]);
    let (c, s) = (client.pid(), server.pid());
    rows.are("PID", &[c, s, s, c, c, s, c, s]);
    rows[6].reads(&line("X", &client, "client", local, web.address()));
    run.finish();
}

fn an_open_that_a_timer_completes_is_of_who_connected(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 tcp flags & (syn|ack) == syn numgen inc mod 2 0 drop\n",
    );
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(web.address(), &How::plain().nonblocking());
    near.await_writable();
    run.rows(1)[0].is("T", "C").is("PID", client.pid()).is("COMM", "client").is("DPORT", 80);
    run.finish();
}

fn a_connection_reset_before_accept_is_as_complete_as_is_said(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let local = near.local();
    near.abort();
    let far = web.accept();
    far.await_end();
    let rows = run.rows(3);
    rows.are("T", &["C", "X", "A"]);
    rows[2].reads(&line("A", &server, "server", web.address(), local));
    far.close();
    if case.rung == Rung::Tracepoint {
        run.rows(3);
        run.finish();
        // The manual has what is too long for a line at the start.
        let manual = Command::new(binary()).args(["man", "tcptracer"]).output().expect("it runs");
        let words = String::from_utf8_lossy(&manual.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("A connection that was reset before it was accepted has no X."), "{words}");
    } else {
        run.rows(4)[3].reads(&line("X", &server, "server", web.address(), local));
        run.finish();
    }
}

fn a_thread_that_waited_before_the_start_is_seen(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let accepted = web.begin_accept();
    let run = start(case, "", &net, &keeper);
    let _near = client.connect(web.address());
    let _far = accepted();
    run.rows(2).are("T", &["C", "A"]).are("PID", &[client.pid(), server.pid()]);
    run.finish();
}

fn the_pid_filter_goes_by_who_does_it(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let by_client = start(case, &format!("-p {}", client.pid()), &net, &client);
    let by_server = start_at(case, &format!("-p {}", server.pid()), &net, &server, net.v4_of(2, END_PORT));
    let near = client.connect(web.address());
    let far = web.accept();
    near.close();
    far.await_end();
    far.close();
    by_client.rows(2).are("T", &["C", "X"]).are("PID", &[client.pid(); 2]);
    by_server.rows(2).are("T", &["A", "X"]).are("PID", &[server.pid(); 2]);
    for run in [by_client, by_server] {
        run.finish();
    }
}

fn an_mptcp_connection_has_no_closes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(at, &How::plain().mptcp());
    let local = near.local();
    let far = web.accept();
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(2);
    rows[0].reads(&line("C", &client, "client", local, at));
    rows[1].reads(&line("A", &server, "server", at, local));
    run.finish();
}

/// Waits for this many opens of further subflows, which are from `second`.
fn further(run: &Run<'_>, second: Ipv4Addr, count: usize) -> Vec<Row> {
    let second = second.to_string();
    let is_one = |row: &&Row| row.get("T") == "C" && row.get("DPORT") == "80" && row.get("SADDR") == second;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows: Vec<Row> = run.so_far().iter().filter(is_one).cloned().collect();
        if rows.len() >= count {
            return rows;
        }
        assert!(Instant::now() < deadline, "a subflow is seen");
        thread::sleep(Duration::from_millis(2));
    }
}

fn a_further_subflow_is_of_who_connected(case: &Case) {
    let net = Net::pair();
    let (server, client, keeper) = (net.far_peer("server"), net.peer("client"), net.peer("keeper"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    let second = net.further_subflow();
    net.near().ip(&format!("addr add {}/24 dev cable\n", net.v4_of(4, 0).ip()));
    let run = start(case, "", &net, &keeper);
    let by_client = start_at(case, &format!("-p {}", client.pid()), &net, &client, net.v4_of(4, END_PORT));
    let near = client.connect_as(at, &How::plain().mptcp());
    let far = web.accept();
    near.send(10);
    far.receive(10);
    far.send(10);
    near.receive(10);
    for run in [&run, &by_client] {
        further(run, second, 1)[0].is("PID", client.pid()).is("COMM", "client").is("DADDR", at.ip());
    }
    near.close();
    far.close();
    for run in [run, by_client] {
        run.finish();
    }
}

fn a_full_table_of_owners_keeps_those_that_it_has(case: &Case) {
    let net = Net::pair();
    let (server, client, keeper) = (net.far_peer("server"), net.peer("client"), net.peer("keeper"));
    let late = net.peer("late");
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    net.near().ip(&format!("addr add {}/24 dev cable\n", net.v4_of(3, 0).ip()));
    let run = start(case, "", &net, &keeper);
    let owners = memory_of(run.pid(), "OWNERS_BY_MPTCP").expect("a table of owners");
    let first = client.converse(&web);
    run.rows(2);
    // At addresses of no socket.
    let is_full = |error: io::Error| error.raw_os_error() == Some(nix::libc::E2BIG);
    assert!((1..1 << 16).any(|sk| owners.set(sk, &Owner::default()).is_err_and(is_full)), "it is full");
    // The subflow is opened in the call of `ip`.
    let second = net.further_subflow();
    further(&run, second, 1)[0].is("PID", client.pid()).is("COMM", "client");
    let other = late.converse(&web);
    further(&run, second, 2)[1].is("PID", 0).is("COMM", "-");
    for (near, far) in [first, other] {
        near.close();
        far.close();
    }
    let deadline = Instant::now() + PATIENCE;
    let is_a_socket = |(sk, _): &(u64, Owner)| *sk >= 1 << 16;
    while owners.entries::<Owner>().expect("we may read it").iter().any(is_a_socket) {
        assert!(Instant::now() < deadline, "they are closed");
        thread::sleep(Duration::from_millis(1));
    }
    let told = run.stop().stderr;
    assert!(told.contains("because a table was full"), "{told}");
}

fn every_connection_is_complete_or_told(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    web.serve();
    let run = start(case, "", &net, &keeper).watched();
    let all = 1009;
    assert_eq!(client.churn(web.address(), all, 2), (all, 0));
    web.served(all);
    run.settle();
    let rows = run.rows_at_last(4 * all);
    // By the client's port: what its end and the server's did.
    let mut ends: HashMap<String, [String; 2]> = HashMap::new();
    for row in &rows {
        let (port, end) = if row.get("DPORT") == "80" { ("SPORT", 0) } else { ("DPORT", 1) };
        row.is("PID", [&client, &server][end].pid());
        ends.entry(row.get(port).into()).or_default()[end].push_str(row.get("T"));
    }
    let seen = rows.len();
    let ended = run.stop();
    ended.code(0).accounts_for(seen, 4 * all);
    if seen == 4 * all {
        assert_eq!(ends.len(), all);
        assert!(ends.values().all(|ends| ends == &["CX".to_owned(), "AX".to_owned()]), "{ends:?}");
    }
}

fn opens_that_fail_do_not_fill_the_maps(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let begin = Instant::now();
    assert_eq!(client.churn(net.v4(81), 2003, 1), (0, 2003));
    if begin.elapsed() < Duration::from_millis(400) {
        // More than any table has room for, where that takes seconds and not minutes.
        assert_eq!(client.churn(net.v4(81), 70_001, 2), (0, 70_001));
    }
    let _near = client.connect(web.address());
    run.rows(1)[0].is("T", "C").is("PID", client.pid());
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let net = Net::new();
    let plain = "T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT ";
    let words = "TYPE         PID    COMM             IP SADDR            DADDR            SPORT  DPORT  ";
    assert_eq!((plain.len(), words.len() + 8), (77, 96));
    let long = format!("{words}NETNS   ");
    for (options, header) in [
        ("", plain.to_owned()),
        ("-N 4026531999", plain.to_owned()),
        ("-t", format!("TIME(s)  {plain}")),
        ("-U", format!("UID   {plain}")),
        ("-v", long.clone()),
        ("-vt", format!("TIME(ns)      {long}")),
        ("-v -N 4026531999", words.to_owned()),
    ] {
        let run = case.launch(options).start(&net);
        assert_eq!(run.await_lines(2)[0], "Tracing TCP established connections. Ctrl-C to end.");
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn rows_with_words_are_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let inode = inode(&net);
    let with = start(case, "-v", &net, &keeper);
    let without = start_at(case, &format!("-v -N {inode}"), &net, &keeper, net.v4_of(2, END_PORT));
    let near = client.connect(web.address());
    let far = web.accept();
    let row = |word: &str, who: &Peer, comm: &str, local, remote| {
        format!("{word:<12}{}", &line("", who, comm, local, remote)[2..])
    };
    let expected = [
        row("connect", &client, "client", near.local(), web.address()),
        row("accept", &server, "server", web.address(), near.local()),
        row("close", &client, "client", near.local(), web.address()),
    ];
    near.close();
    far.await_end();
    for ((long, short), expected) in with.rows(3).iter().zip(&without.rows(3)).zip(&expected) {
        long.reads(&format!("{expected} {inode:<8}"));
        short.reads(expected);
    }
    for run in [with, without] {
        run.finish();
    }
}

fn seconds_count_from_the_first_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, &format!("-t -p {}", client.pid()), &net, &client);
    let nanos = start_at(case, &format!("-tv -p {}", client.pid()), &net, &client, net.v4_of(2, END_PORT));
    client.connect(web.address()).close();
    let rows = run.rows(2);
    let begins = format!("0.000    C  {:<6} client ", client.pid());
    rows[0].must(rows[0].line.starts_with(&begins), format!("{begins:?} at its start"));
    rows[1].must(rows[1].number("TIME(s)") >= 0.0, "later");
    let rows = nanos.rows(2);
    let begins = format!("0             connect      {:<6} client ", client.pid());
    rows[0].must(rows[0].line.starts_with(&begins), format!("{begins:?} at its start"));
    rows[1].must(rows[1].get("TIME(ns)").parse::<u64>().is_ok_and(|ns| ns > 0), "later");
    for run in [run, nanos] {
        run.finish();
    }
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json -tv", &net, &keeper);
    let near = client.connect(web.address());
    let rows = run.rows(1);
    rows[0].is("type", "connect").is("pid", client.pid()).is("uid", 0).is("comm", "client").is("ip", 4);
    rows[0].is("saddr", near.local().ip()).is("sport", near.local().port());
    rows[0].is("daddr", web.address().ip()).is("dport", 80).is("netns", inode(&net));
    run.finish();
}

fn a_hostile_name_cannot_drive_a_terminal(case: &Case) {
    let net = Net::new();
    let keeper = net.peer("keeper");
    let (server, client) = (net.peer("server"), net.peer_named(b"\x1b[2Ja\n"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let _near = client.connect(web.address());
    run.rows(1)[0].is("COMM", r"\x1b[2Ja\x0a");
    run.finish();
}

fn the_namespace_filter_keeps_only_that_namespace(case: &Case) {
    let (net, other) = (Net::new(), Net::new());
    let keeper = net.peer("keeper");
    let run = start(case, &format!("-N {}", inode(&net)), &net, &keeper);
    let all = start_at(case, "-N 0", &net, &keeper, net.v4_of(2, END_PORT));
    for space in [&other, &net] {
        let (server, client) = (space.peer("server"), space.peer("client"));
        let web = server.listen(space.v4_of(2, 80));
        let near = client.connect(web.address());
        let far = web.accept();
        near.close();
        far.await_end();
        far.close();
    }
    run.rows(4).are("T", &["C", "A", "X", "X"]);
    all.rows(4);
    let others = |run: &Run<'_>| {
        let ip = other.v4_of(2, 80).ip().to_string();
        run.lines().iter().filter(|line| line.contains(&ip)).count()
    };
    assert_eq!((others(&run), others(&all)), (0, 4));
    for run in [run, all] {
        run.finish();
    }
}

fn the_user_filter_goes_by_who_does_it(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().sysctl("ipv4/ip_unprivileged_port_start", "0");
    client.become_user(4242);
    let run = start(case, "-U -u 4242", &net, &client);
    let near = client.connect(web.address());
    let far = web.accept();
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(2);
    rows.are("T", &["C", "X"]).are("UID", &[4242; 2]);
    rows[0].must(rows[0].line.starts_with("4242  C  "), "the user id first");
    run.finish();
}

fn container_maps_keep_only_their_members(case: &Case) {
    let mut mounts = Mounts::new();
    let (bpf, groups) = (mounts.mount("bpf"), mounts.mount("cgroup2"));
    let group = groups.join(format!("netbcc-test-{}-tracer", std::process::id()));
    fs::create_dir(&group).unwrap_or_else(|e| skip(format!("cgroups of our own ({e})")));
    {
        let net = Net::new();
        let (inside, outside) = (net.peer("inside"), net.peer("outside"));
        inside.join_cgroup(&group);
        let cgroups = Map::hash(8).expect("a map");
        cgroups.insert(fs::metadata(&group).expect("it is there").ino()).expect("a key");
        let mntnses = Map::hash(4).expect("a map");
        mntnses.insert(inside.own_mounts()).expect("a key");
        let mail = outside.listen(net.v4_of(2, 25));
        for (options, host) in [
            (format!("--cgroupmap {}", pinned(&cgroups, &bpf.join("groups"))), 3),
            (format!("--mntnsmap {}", pinned(&mntnses, &bpf.join("mounts"))), 2),
        ] {
            let run = start_at(case, &options, &net, &inside, net.v4_of(host, END_PORT));
            let near = inside.connect(mail.address());
            let far = mail.accept();
            near.close();
            far.await_end();
            far.close();
            run.rows(2).are("T", &["C", "X"]).are("PID", &[inside.pid(); 2]);
            run.finish();
        }
    }
    fs::remove_dir(&group).expect("nobody is left in it");
}

fn rows_leave_through_a_pipe_at_once(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let mut conns = Vec::new();
    let mut delays: Vec<Duration> = (1..=7)
        .map(|nth| {
            let before = Instant::now();
            conns.push(client.connect(web.address()));
            run.arrival(nth) - before
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[3] < Duration::from_millis(200), "{delays:?}");
    run.finish();
}
