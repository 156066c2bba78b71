//! tcpconnlat: which opens are rows, how long they are said to take, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps.

use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::How;

use crate::tcpconnect::further_subflows_are_of_who_connected;

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    seconds_count_from_the_first_row,
    json_rows_carry_every_value,
    a_hostile_name_cannot_drive_a_terminal,
];

pub(crate) const CHECKS: &[Check] = checks![
    an_open_is_one_row_of_exactly_these_bytes,
    a_refused_open_is_one_row_with_its_local_port,
    a_socket_that_connects_to_itself_is_one_row,
    opens_without_an_answer_are_no_rows,
    families_go_by_the_socket,
    a_lost_syn_makes_a_long_row_that_thresholds_see,
    the_pid_filter_goes_by_the_process_and_names_are_of_threads,
    an_mptcp_open_is_one_row,
    further_subflows_are_of_who_connected,
    a_restored_connection_is_no_row,
    opens_that_leave_nothing_behind_do_not_fill_the_maps: alone,
];

fn an_open_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("").start(&net);
    let before = Instant::now();
    let near = client.connect(web.address());
    let most_ms = before.elapsed().as_secs_f64() * 1000.0;
    let rows = run.rows(1);
    let ms = rows[0].get("LAT(ms)").to_owned();
    rows[0].must(ms.split_once('.').is_some_and(|(_, part)| part.len() == 2), "two decimals");
    rows[0].must((0.0..=most_ms).contains(&rows[0].number("LAT(ms)")), format!("at most {most_ms} ms"));
    rows[0].reads(&format!(
        "{:<7} abcdefghijkl 4  {:<16} {:<16} 80    {ms}",
        client.pid(),
        near.local().ip(),
        web.address().ip(),
    ));
    run.finish();
}

fn a_refused_open_is_one_row_with_its_local_port(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-L").start(&net);
    client.fails(net.v4_of(2, 81), &How::plain().bound(net.v4(5000)), "ECONNREFUSED");
    let rows = run.rows(1);
    rows[0].is("SADDR", net.v4(5000).ip()).is("LPORT", 5000).is("DADDR", net.v4_of(2, 81).ip());
    rows[0].is("DPORT", 81).is("PID", client.pid()).is("COMM", "client").is("IP", 4);
    run.finish();
}

fn a_socket_that_connects_to_itself_is_one_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-L").start(&net);
    // Its SYN meets itself in SYN_SENT: a simultaneous open.
    let _near = client.connect_as(net.v4(5000), &How::plain().bound(net.v4(5000)));
    let rows = run.rows(1);
    rows[0].is("PID", client.pid()).is("LPORT", 5000).is("DPORT", 5000);
    run.finish();
}

fn opens_without_an_answer_are_no_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    net.near().sysctl("ipv4/tcp_syn_retries", "1");
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 83 reject with icmp type port-unreachable\n",
    );
    let taken = client.connect_as(web.address(), &How::plain().bound(net.v4(5000)));
    let run = case.launch("").start(&net);
    client.connect_as(net.silent(80), &How::plain().nonblocking()).close();
    client.fails(net.unroutable(80), &How::plain(), "ENETUNREACH");
    client.fails(web.address(), &How::plain().bound(net.v4(5000)), "EADDRNOTAVAIL");
    client.fails(net.v4_of(2, 83), &How::plain(), "ECONNREFUSED");
    // One that runs out of time: a SYN, and another one.
    client.fails(net.silent(81), &How::plain(), "ETIMEDOUT");
    client.order(&format!("udp-connect {}", net.v4(80)));
    run.rows(0);
    taken.close();
    run.finish();
}

fn families_go_by_the_socket(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let client = net.peer("client");
    let mapped = Net::mapped(net.v4_of(2, 81));
    let all = case.launch("").start(&net);
    let four = case.launch("-4").start(&net);
    let six = case.launch("-6").start(&net).ended_by(|| client.refused(net.v6(END_PORT)));
    client.refused(net.v6_of(2, 80));
    client.refused(mapped);
    client.refused(net.v4_of(2, 82));
    let rows = all.rows(3);
    rows.are("IP", &[6, 6, 4]).are("DPORT", &[80, 81, 82]);
    rows[0].is("DADDR", net.v6_of(2, 80).ip());
    rows[1].is("DADDR", mapped.ip()).must(rows[1].get("SADDR").starts_with("::ffff:10."), "both are mapped");
    four.rows(1).are("DPORT", &[82]);
    six.rows(2).are("DPORT", &[80, 81]);
    for run in [all, four, six] {
        run.finish();
    }
}

fn a_lost_syn_makes_a_long_row_that_thresholds_see(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 tcp flags & (syn|ack) == syn numgen inc mod 2 0 drop\n",
    );
    let (all, json) = (case.launch("0.0001").start(&net), case.launch("--json 0.0001").start(&net));
    let slow = || client.connect(web.address());
    let long = case.launch("900").start(&net);
    let longer = case.launch("60000.5").start(&net);
    client.refused(net.v4(81));
    // The answer comes when the timer has sent the second SYN: nobody's system call.
    let before = Instant::now();
    let near = slow();
    let most_ms = before.elapsed().as_secs_f64() * 1000.0;
    let rows = all.rows(2);
    rows.are("DPORT", &[81, 80]).are("PID", &[client.pid(); 2]).are("COMM", &["client"; 2]);
    rows[1]
        .must((990.0..=most_ms).contains(&rows[1].number("LAT(ms)")), format!("1 s, {most_ms} ms at most"));
    let row = &json.rows(2)[1];
    row.must((990.0..=most_ms).contains(&(row.number("span_us") / 1000.0)), "as long in microseconds");
    json.finish();
    long.arrival(1);
    for (run, count) in [(long, 1), (longer, 0)] {
        // Its end connect is too fast to be a row.
        let ended = run.stop();
        ended.code(0).quiet();
        let ours = |line: &&String| line.contains(&web.address().ip().to_string());
        assert_eq!(ended.stdout.iter().filter(ours).count(), count, "{:?}", ended.stdout);
    }
    near.close();
    all.finish();
}

fn the_pid_filter_goes_by_the_process_and_names_are_of_threads(case: &Case) {
    let net = Net::new();
    let (client, other) = (net.peer("client"), net.peer("other"));
    let run = case
        .launch(&format!("-p {}", client.pid()))
        .start(&net)
        .ended_by(|| client.refused(net.v4(END_PORT)));
    other.refused(net.v4(80));
    client.fails(net.v4(81), &How::plain().in_thread("second"), "ECONNREFUSED");
    client.refused(net.v4(82));
    let rows = run.rows(2);
    rows.are("DPORT", &[81, 82]).are("PID", &[client.pid(); 2]).are("COMM", &["second", "client"]);
    run.finish();
}

fn an_mptcp_open_is_one_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = case.launch("").start(&net);
    let _near = client.connect_as(at, &How::plain().mptcp());
    let _far = web.accept();
    run.rows(1)[0].is("PID", client.pid()).is("DPORT", 80);
    run.finish();
}

fn a_restored_connection_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    let near = client.connect_as(net.v4_of(2, 80), &How::plain().repaired().bound(net.v4(5000)));
    near.close();
    run.rows(0);
    run.finish();
}

fn opens_that_leave_nothing_behind_do_not_fill_the_maps(case: &Case) {
    let net = Net::new();
    let (server, client, other) = (net.peer("server"), net.peer("client"), net.peer("other"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 tcp flags & (syn|ack) == syn numgen inc mod 2 0 drop\n",
    );
    // All but the last are too fast.
    let run = case.launch("900").start(&net);
    let start = Instant::now();
    assert_eq!(other.churn(net.v4(81), 2003, 1), (0, 2003));
    if start.elapsed() < Duration::from_millis(400) {
        // More than any table has room for, where that takes seconds and not minutes.
        assert_eq!(other.churn(net.v4(81), 70_001, 2), (0, 70_001));
    }
    let _near = client.connect(web.address());
    run.arrival(1);
    run.so_far()[0].is("DPORT", 80).is("PID", client.pid());
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = "PID     COMM         IP SADDR            DADDR            DPORT LAT(ms)";
    let lport = "PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)";
    assert_eq!((plain.len(), lport.len()), (71, 78));
    for (options, header) in
        [("", plain.to_owned()), ("-L", lport.to_owned()), ("-t", format!("TIME(s)  {plain}"))]
    {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn seconds_count_from_the_first_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case
        .launch(&format!("-t -p {}", client.pid()))
        .start(&net)
        .ended_by(|| client.refused(net.v4(END_PORT)));
    client.refused(net.v4(80));
    client.refused(net.v4(81));
    let rows = run.rows(2);
    let begins = format!("0.000    {:<7} ", client.pid());
    rows[0].must(rows[0].line.starts_with(&begins), format!("{begins:?} at its start"));
    rows[1].must(rows[1].number("TIME(s)") >= 0.0, "later");
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("--json").start(&net);
    client.fails(net.v4_of(2, 81), &How::plain().bound(net.v4(5000)), "ECONNREFUSED");
    let rows = run.rows(1);
    rows[0].is("saddr", net.v4(5000).ip()).is("lport", 5000).is("daddr", net.v4_of(2, 81).ip());
    rows[0].is("dport", 81).is("pid", client.pid()).is("comm", "client").is("ip", 4);
    rows[0].must(rows[0].number("span_us") >= 0.0, "a span");
    run.finish();
}

fn a_hostile_name_cannot_drive_a_terminal(case: &Case) {
    let net = Net::new();
    let run = case.launch("").start(&net);
    net.peer_named(b"\x1b[2Ja\nb\xff").refused(net.v4(80));
    run.rows(1)[0].is("COMM", r"\x1b[2Ja\x0a");
    run.finish();
}
