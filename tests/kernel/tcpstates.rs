//! tcpstates: which changes of state are rows, what the rows say, which of them the filters keep, and what goes to
//! the journal.
//!
//! A check is a sentence of the list that the tool was accepted by, or of what it promises beside that.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, lacks_rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{How, Peer};
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{Copy, Launch, PATIENCE, Run, in_place_of, own_mounts};
use nix::sys::signal::Signal;

use crate::engine::PROMPT;

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_tracepoint_is_the_first_choice,
    a_journal_that_is_not_there_is_one_clear_line,
    the_text_row_is_exactly_these_bytes,
    the_wide_row_is_exactly_these_bytes,
    the_csv_row_is_exactly_these_bytes,
    the_headers_are_exactly_these,
    csv_with_both_times_has_their_form,
    csv_wins_over_wide,
    the_journal_gets_every_row,
    the_journal_gets_ipv6,
    the_journal_may_go_away,
    a_slow_journal_keeps_neither_rows_nor_the_end,
    rows_leave_through_a_pipe_at_once,
    both_port_filters_mean_both,
    a_udp_socket_is_no_row,
    the_last_row_still_has_the_local_port,
    an_ordinary_user_sees_no_address,
    root_sees_no_address_where_the_kernel_hides_them,
];

pub(crate) const CHECKS: &[Check] = checks![
    a_connection_goes_through_these_states,
    rows_of_a_socket_have_one_address_and_durations,
    json_rows_carry_every_value,
    an_ephemeral_port_is_not_known_at_syn_sent_and_a_bound_one_is,
    a_refused_connect_is_two_rows,
    an_unroutable_connect_is_no_row,
    a_connect_without_a_free_local_address_is_two_rows,
    a_listener_is_two_rows,
    a_second_listen_is_no_row,
    a_listen_that_fails_is_two_rows,
    a_child_of_a_listener_begins_at_syn_recv,
    what_the_rung_does_not_see_is_said,
    a_reused_address_never_begins_with_a_duration,
    a_server_that_closes_first_goes_through_fin_wait,
    two_fins_that_cross_go_through_closing,
    an_abort_closes_both_ends_at_once,
    durations_are_what_the_clock_says,
    a_connection_from_before_begins_with_zero,
    a_connection_over_loopback_ipv6_is_ip_6,
    a_dual_stack_listener_has_a_v4_mapped_child,
    local_port_filter_keeps_only_those_ports,
    an_ephemeral_port_in_the_filter_begins_at_established,
    remote_port_filter_keeps_only_those_ports,
    family_filters_go_by_the_socket,
    an_mptcp_connection_shows_its_subflows_only,
    short_connections_are_all_seen_or_told_as_lost: alone,
];

/// Starts the tool. The end connect is refused: two rows.
fn start<'n>(case: &Case, options: &str, net: &'n Net) -> Run<'n> {
    case.launch(options).start(net).end_rows(2)
}

/// Whether this rung sees listeners and the birth of their children.
fn sees_listeners(case: &Case) -> bool {
    // The tool's own first choice is the tracepoint.
    matches!(case.rung, Rung::Tracepoint | Rung::Any)
}

/// Skips what only a rung can see that sees listeners.
fn needs_listeners(case: &Case) {
    if !sees_listeners(case) {
        skip("tcp_set_state is not called for listeners and new children; the tool says so");
    }
}

/// `old -> new` of rows, in order.
fn changes<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Vec<String> {
    rows.into_iter().map(|row| format!("{} {}", row.get("OLDSTATE"), row.get("NEWSTATE"))).collect()
}

/// The rows of the sockets that have this local port in one of their rows, in order of arrival.
fn socket_at(rows: &Rows, port: u16) -> Vec<&Row> {
    let port = port.to_string();
    let sockets: Vec<&str> =
        rows.iter().filter(|row| row.get("LPORT") == port).map(|row| row.get("SKADDR")).collect();
    rows.iter().filter(|row| sockets.contains(&row.get("SKADDR"))).collect()
}

/// The client of a connection that it closes first, and the server.
const CLIENT: [&str; 5] = [
    "CLOSE SYN_SENT",
    "SYN_SENT ESTABLISHED",
    "ESTABLISHED FIN_WAIT1",
    "FIN_WAIT1 FIN_WAIT2",
    "FIN_WAIT2 CLOSE",
];
const SERVER: [&str; 5] = [
    "LISTEN SYN_RECV",
    "SYN_RECV ESTABLISHED",
    "ESTABLISHED CLOSE_WAIT",
    "CLOSE_WAIT LAST_ACK",
    "LAST_ACK CLOSE",
];

/// The server's rows on this rung.
fn server_states(case: &Case) -> &'static [&'static str] {
    if sees_listeners(case) { &SERVER } else { &SERVER[1..] }
}

/// Connects to a listener that is there, and ends cleanly with the client first. Both local addresses.
fn talk(listener: &netbcc_tests::peer::Listener<'_>, client: &Peer, to: SocketAddr) -> SocketAddr {
    let near = client.connect(to);
    let far = listener.accept();
    let local = near.local();
    near.close();
    far.await_end();
    far.close();
    local
}

/// An open that nobody answers, given up at once: `CLOSE -> SYN_SENT -> CLOSE`. Both rows are made in the client's own
/// system calls, so that it is the task of both; an answer may come in anybody's context, even on loopback.
fn give_up(client: &Peer, from: SocketAddr, to: SocketAddr) {
    client.connect_as(to, &How::plain().bound(from).nonblocking()).close();
}

/// How many rows a [`talk`] has.
fn talk_rows(case: &Case) -> usize {
    CLIENT.len() + server_states(case).len()
}

/// The duration of a row, which must have three decimals.
fn ms(row: &Row) -> String {
    let ms = row.get("MS").to_owned();
    row.must(ms.split_once('.').is_some_and(|(_, part)| part.len() == 3), "MS has three decimals");
    ms
}

fn the_tracepoint_is_the_first_choice(case: &Case) {
    if let Some(why) = Launch::new(case.tool, "").rung(Rung::Tracepoint).refusal() {
        lacks_rung(Rung::Tracepoint, &why);
    }
    let net = Net::new();
    let ended = start(case, "-v", &net).finish();
    assert!(ended.stderr.contains("attached by tracepoint"), "{}", ended.stderr);
}

fn a_connection_goes_through_these_states(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net);
    let local = talk(&web, &client, web.address());
    let rows = run.rows(talk_rows(case));
    let near = socket_at(&rows, local.port());
    assert_eq!(changes(near.iter().copied()), CLIENT);
    for row in &near {
        row.is("LADDR", local.ip()).is("RADDR", web.address().ip()).is("RPORT", 80);
    }
    // The task on the CPU; what the client does itself is in its own system calls.
    for row in [near[0], near[2]] {
        row.is("C-PID", client.pid()).is("C-COMM", "client");
    }
    let far = socket_at(&rows, 80);
    assert_eq!(changes(far.iter().copied()), server_states(case));
    for row in far.iter().skip(usize::from(sees_listeners(case))) {
        row.is("LADDR", web.address().ip()).is("RADDR", local.ip()).is("RPORT", local.port());
    }
    far[far.len() - 2].is("C-PID", server.pid()).is("C-COMM", "server");
    run.finish();
}

fn rows_of_a_socket_have_one_address_and_durations(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net);
    let local = talk(&web, &client, web.address());
    let rows = run.rows(talk_rows(case));
    let addresses: Vec<&str> = [local.port(), 80]
        .map(|port| {
            let socket = socket_at(&rows, port);
            socket[0].is("MS", "0.000");
            for row in &socket[1..] {
                row.is("SKADDR", socket[0].get("SKADDR")).must(row.number("MS") > 0.0, "time passed");
            }
            socket[0].get("SKADDR")
        })
        .into();
    rows[0].must(addresses[0] != addresses[1], "two sockets");
    for address in addresses {
        let digits = address.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        rows[0].must(digits && address.len() == 16, "the address of a kernel object in hexadecimal");
    }
    run.finish();
}

fn the_text_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let client = net.peer("abcdefghijklmno");
    let (from, to) = (net.v4(5000), net.silent(80));
    let run = start(case, "", &net);
    give_up(&client, from, to);
    let rows = run.rows(2);
    for (row, old, new) in [(&rows[0], "CLOSE", "SYN_SENT"), (&rows[1], "SYN_SENT", "CLOSE")] {
        row.reads(&format!(
            "{:<16} {:<5} abcdefghij {:<15} 5000  {:<15} 80    {old:<11} -> {new:<11} {}",
            row.get("SKADDR"),
            client.pid(),
            from.ip(),
            to.ip(),
            ms(row),
        ));
    }
    if has_ipv6() {
        let from = net.v6(5000);
        client.fails(net.v6_of(2, 80), &How::plain().bound(from), "ECONNREFUSED");
        let row = &run.rows(4)[2];
        row.reads(&format!(
            "{:<16} {:<5} abcdefghij {:<15} 5000  {:<15} 80    CLOSE       -> SYN_SENT    0.000",
            row.get("SKADDR"),
            client.pid(),
            from.ip(),
            net.v6_of(2, 80).ip(),
        ));
    }
    run.finish();
}

fn the_wide_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let mut ends = vec![(4, net.v4(5000), server.listen(net.v4_of(2, 80)))];
    if has_ipv6() {
        ends.push((6, net.v6(5000), server.listen(net.v6_of(2, 80))));
    }
    let run = start(case, "-w", &net);
    for (nth, (ip, from, web)) in ends.iter().enumerate() {
        let near = client.connect_as(web.address(), &How::plain().bound(*from));
        let far = web.accept();
        near.close();
        far.await_end();
        far.close();
        let rows = run.rows((nth + 1) * talk_rows(case));
        // What the client itself did: it is the task of that row for sure.
        let closed: Vec<&Row> = rows.iter().filter(|row| row.get("NEWSTATE") == "FIN_WAIT1").collect();
        let row = closed[nth];
        row.reads(&format!(
            "{:<16} {:<5} {:<16} {ip:<2} {:<39} 5000  {:<39} 80    ESTABLISHED -> FIN_WAIT1   {}",
            row.get("SKADDR"),
            client.pid(),
            "abcdefghijklmno",
            from.ip().to_string(),
            web.address().ip().to_string(),
            ms(row),
        ));
    }
    run.finish();
}

fn the_csv_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let client = net.peer("abcdefghijklmno");
    let (from, to) = (net.v4(5000), net.silent(80));
    let run = start(case, "-s", &net);
    give_up(&client, from, to);
    let rows = run.rows(2);
    let row = &rows[1];
    row.reads(&format!(
        "{},{},abcdefghijklmno,4,{},5000,{},80,SYN_SENT,CLOSE,{}",
        row.get("SKADDR"),
        client.pid(),
        from.ip(),
        to.ip(),
        ms(row)
    ));
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = "SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> \
                 NEWSTATE    MS";
    let csv = "SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS";
    let wide = format!(
        "SKADDR           C-PID C-COMM           IP {:<39} LPORT {:<39} RPORT OLDSTATE    -> NEWSTATE    MS",
        "LADDR", "RADDR"
    );
    assert_eq!((plain.len(), wide.len()), (107, 164));
    for (options, header) in [
        ("", plain.to_owned()),
        ("-T", format!("TIME     {plain}")),
        ("-t", format!("TIME(s)   {plain}")),
        ("-tT", format!("TIME     TIME(s)   {plain}")),
        ("-w", wide.clone()),
        ("-wT", format!("TIME     {wide}")),
        ("-s", csv.to_owned()),
        ("-sT", format!("TIME,{csv}")),
        ("-st", format!("TIME(s),{csv}")),
    ] {
        let net = Net::new();
        let run = start(case, options, &net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

/// Whether the text has the form of this example: digits stand for digits, the rest for itself.
fn shaped(text: &str, example: &str) -> bool {
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    shape(text) == shape(example)
}

fn csv_with_both_times_has_their_form(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let (port, near) = (net.port(0), net.port(1));
    // A local port of this test only, so that its rows are the first that are printed: other tests connect too.
    let refused = |port| client.fails(net.v4(port), &How::plain().bound(net.v4(near)), "ECONNREFUSED");
    let run = start(case, &format!("-stT -L {near}"), &net).ended_by(|| refused(END_PORT));
    assert_eq!(
        run.header(),
        "TIME,TIME(s),SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS"
    );
    refused(port);
    let rows = run.rows(2);
    for row in &rows {
        row.must(shaped(row.get("TIME"), "12:34:56"), "TIME is HH:MM:SS");
        row.must(shaped(row.get("TIME(s)"), "0.123456"), "TIME(s) has six decimals");
        row.must(!row.line.contains("->"), "no arrow in CSV");
    }
    rows[0].is("TIME(s)", "0.000000");
    // Both are cut to whole microseconds, one from the difference, one from both moments.
    let between = rows[1].number("TIME(s)") * 1000.0 - rows[1].number("MS");
    rows[1].must(between.abs() < 0.0015, "the duration is what passed between the rows");
    run.finish();
}

fn csv_wins_over_wide(case: &Case) {
    let net = Net::new();
    let run = start(case, "-s -w", &net);
    assert_eq!(run.header(), "SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS");
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let (from, to) = (net.v4(5000), net.silent(80));
    let run = start(case, "--json", &net);
    give_up(&client, from, to);
    let rows = run.rows(2);
    for row in &rows {
        row.is("c_pid", client.pid()).is("c_comm", "client").is("ip", 4);
        row.is("laddr", from.ip()).is("lport", 5000).is("raddr", to.ip()).is("rport", 80);
        row.is("skaddr", rows[0].get("skaddr"));
        row.must(shaped(row.get("time"), "2026-08-11T12:34:56.123456789Z"), "RFC 3339 with nanoseconds");
    }
    // The kernel's own addresses are in the upper half, and what begins there is aligned.
    let address = u64::from_str_radix(rows[0].get("skaddr"), 16).expect("hexadecimal");
    rows[0].must(address >> 63 == 1 && address.is_multiple_of(8), "an address of the kernel");
    rows[0].is("oldstate", "CLOSE").is("newstate", "SYN_SENT").is("span_us", 0);
    rows[1].is("oldstate", "SYN_SENT").is("newstate", "CLOSE");
    let passed = rows[1].number("ts_ns") - rows[0].number("ts_ns");
    let span = rows[1].number("span_us") * 1000.0;
    rows[1].must((0.0..1000.0).contains(&(passed - span)), "whole microseconds of what passed");
    run.finish();
}

fn an_ephemeral_port_is_not_known_at_syn_sent_and_a_bound_one_is(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "-D 80,9", &net);
    let near = client.connect(web.address());
    let port = near.local().port();
    run.rows(2).are("LPORT", &[0, port]);
    let _bound = client.connect_as(web.address(), &How::plain().bound(net.v4(5000)));
    run.rows(4).are("LPORT", &[0, port, 5000, 5000]);
    run.finish();
}

fn the_last_row_still_has_the_local_port(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net);
    let local = talk(&web, &client, web.address());
    let rows = run.rows(talk_rows(case));
    let last: Vec<_> = rows.iter().filter(|row| row.get("NEWSTATE") == "CLOSE").collect();
    let mut ports: Vec<f64> = last.iter().map(|row| row.number("LPORT")).collect();
    ports.sort_by(f64::total_cmp);
    assert_eq!(ports, [80.0, f64::from(local.port())]);
    run.finish();
}

fn a_refused_connect_is_two_rows(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net);
    client.refused(net.v4(81));
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["CLOSE SYN_SENT", "SYN_SENT CLOSE"]);
    rows.are("RPORT", &[81, 81]);
    rows[0].is("MS", "0.000");
    rows[1].must(rows[1].number("MS") > 0.0, "time passed");
    run.finish();
}

fn an_unroutable_connect_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net);
    client.fails(net.unroutable(net.port(0)), &How::plain(), "ENETUNREACH");
    run.rows(0);
    run.finish();
}

fn a_connect_without_a_free_local_address_is_two_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let how = How::plain().bound(net.v4(5000));
    let _first = client.connect_as(web.address(), &how);
    let run = start(case, "", &net);
    client.fails(web.address(), &how, "EADDRNOTAVAIL");
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["CLOSE SYN_SENT", "SYN_SENT CLOSE"]);
    rows.are("LPORT", &[5000, 5000]).are("C-PID", &[client.pid(); 2]);
    run.finish();
}

fn a_listener_is_two_rows(case: &Case) {
    needs_listeners(case);
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    server.listen(net.v4(80)).close();
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["CLOSE LISTEN", "LISTEN CLOSE"]);
    for row in &rows {
        row.is("LADDR", net.v4(80).ip()).is("LPORT", 80).is("RADDR", "0.0.0.0").is("RPORT", 0);
        row.is("C-PID", server.pid()).is("C-COMM", "server");
    }
    rows[0].is("MS", "0.000");
    rows[1].is("SKADDR", rows[0].get("SKADDR")).must(rows[1].number("MS") > 0.0, "it listened");
    if has_ipv6() {
        server.listen(net.v6(80)).close();
        let rows = run.rows(4);
        rows[2].is("LADDR", net.v6(80).ip()).is("RADDR", "::").is("RPORT", 0);
    }
    run.finish();
}

fn a_second_listen_is_no_row(case: &Case) {
    needs_listeners(case);
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    let web = server.listen(net.v4(80));
    web.again(7).expect("a listening socket may listen");
    assert_eq!(changes(&run.rows(1)), ["CLOSE LISTEN"]);
    run.finish();
}

fn a_listen_that_fails_is_two_rows(case: &Case) {
    needs_listeners(case);
    let net = Net::new();
    let server = net.peer("server");
    // Both may be bound there (SO_REUSEADDR), but only one may listen.
    let (first, second) = (server.bind(net.v4(80)), server.bind(net.v4(80)));
    first.again(1).expect("the first may");
    let run = start(case, "", &net);
    assert_eq!(second.again(1), Err("EADDRINUSE".into()));
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["CLOSE LISTEN", "LISTEN CLOSE"]);
    run.finish();
}

fn a_child_of_a_listener_begins_at_syn_recv(case: &Case) {
    needs_listeners(case);
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "-L 80 -D 0,9", &net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(80)), "ECONNREFUSED");
    });
    let _near = client.connect(web.address());
    let _far = web.accept();
    // Older kernels set the state before the remote end: only there does a filter for port 0 keep the row.
    run.settle();
    let rows = run.so_far();
    let older = rows.len() == 1;
    for row in &rows {
        row.is("OLDSTATE", "LISTEN").is("NEWSTATE", "SYN_RECV").is("MS", "0.000");
        row.is("LADDR", web.address().ip()).is("RADDR", "0.0.0.0").is("RPORT", 0);
    }
    run.finish();
    let run = start(case, "-L 80", &net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(80)), "ECONNREFUSED");
    });
    let near = client.connect(web.address());
    let _far = web.accept();
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["LISTEN SYN_RECV", "SYN_RECV ESTABLISHED"]);
    if !older {
        rows[0].is("RADDR", near.local().ip()).is("RPORT", near.local().port());
    }
    rows[1].is("RADDR", near.local().ip()).is("RPORT", near.local().port());
    run.finish();
}

fn what_the_rung_does_not_see_is_said(case: &Case) {
    let net = Net::new();
    let told = start(case, "", &net).finish().stderr;
    if sees_listeners(case) {
        assert!(!told.contains("the changes to LISTEN"), "{told}");
    } else {
        assert!(told.contains("the changes to LISTEN"), "{told}");
    }
}

fn a_reused_address_never_begins_with_a_duration(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    web.serve();
    let run = start(case, "", &net);
    assert_eq!(client.churn(net.v4_of(2, 80), 100, 1), (100, 0));
    // The servers' ends may still be on their way out, so the number of rows is not certain yet.
    let deadline = Instant::now() + PATIENCE;
    let rows = loop {
        run.settle();
        let rows = run.so_far();
        if rows.iter().filter(|row| row.get("OLDSTATE") == "LAST_ACK").count() == 100 {
            break rows;
        }
        assert!(Instant::now() < deadline, "100 servers close\n{}", rows.len());
    };
    let opens: Vec<_> = rows.iter().filter(|row| row.get("OLDSTATE") == "CLOSE").collect();
    assert_eq!(opens.len(), 100);
    for row in opens {
        row.is("NEWSTATE", "SYN_SENT").is("MS", "0.000");
    }
    for row in rows.iter().filter(|row| row.get("OLDSTATE") == "LISTEN") {
        row.is("MS", "0.000");
    }
    run.finish();
}

fn a_server_that_closes_first_goes_through_fin_wait(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let port = near.local().port();
    let run = start(case, "", &net);
    far.close();
    near.await_end();
    near.close();
    let rows = run.rows(6);
    assert_eq!(changes(socket_at(&rows, 80)), &CLIENT[2..]);
    assert_eq!(changes(socket_at(&rows, port)), &SERVER[2..]);
    run.finish();
}

fn two_fins_that_cross_go_through_closing(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let port = near.local().port();
    // Neither FIN arrives at first: both ends are in FIN_WAIT1. The first that is sent again finds the other end so.
    net.near().nft(
        "add chain inet probe out { type filter hook output priority 0; }\n\
         add rule inet probe out tcp flags & fin == fin drop\n",
    );
    let run = start(case, "", &net);
    near.finish_sending();
    far.finish_sending();
    net.near().nft("flush chain inet probe out\n");
    near.await_end();
    far.await_end();
    let deadline = Instant::now() + PATIENCE;
    let rows = loop {
        run.settle();
        let rows = run.so_far();
        if rows.iter().filter(|row| row.get("NEWSTATE") == "CLOSE").count() == 2 {
            break rows;
        }
        assert!(Instant::now() < deadline, "both close");
    };
    let states = [port, 80].map(|port| changes(socket_at(&rows, port)));
    let crossed = ["ESTABLISHED FIN_WAIT1", "FIN_WAIT1 CLOSING", "CLOSING CLOSE"];
    assert!(states.iter().any(|states| *states == crossed), "{states:?}");
    run.finish();
}

fn an_abort_closes_both_ends_at_once(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let _far = web.accept();
    let run = start(case, "", &net);
    near.abort();
    let rows = run.rows(2);
    assert_eq!(changes(&rows), ["ESTABLISHED CLOSE"; 2]);
    run.finish();
}

fn durations_are_what_the_clock_says(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net);
    let opened = Instant::now();
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    let established = Instant::now();
    // This pause is what is measured, not a wait for something.
    thread::sleep(Duration::from_millis(150));
    let at_least = established.elapsed();
    near.close();
    far.await_end();
    let at_most = opened.elapsed();
    run.settle();
    let rows = run.so_far();
    let socket = socket_at(&rows, port);
    let row = socket.iter().find(|row| row.get("OLDSTATE") == "ESTABLISHED").expect("it was");
    let span = row.number("MS") / 1000.0;
    row.must(span >= at_least.as_secs_f64() - 0.001, format!("at least {at_least:?}"));
    row.must(span <= at_most.as_secs_f64() + 0.001, format!("at most {at_most:?}"));
    run.finish();
}

fn a_connection_from_before_begins_with_zero(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    let run = start(case, "", &net);
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(6);
    let socket = socket_at(&rows, port);
    socket[0].is("OLDSTATE", "ESTABLISHED").is("MS", "0.000");
    socket[1].must(socket[1].number("MS") > 0.0, "the second is known");
    run.finish();
}

fn a_connection_over_loopback_ipv6_is_ip_6(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let at = Net::loopback6(net.port(0));
    let web = server.listen(at);
    let run = start(case, "-s", &net);
    talk(&web, &client, at);
    let rows = run.rows(talk_rows(case));
    for row in &rows {
        row.is("IP", 6).is("LADDR", "::1");
        // Before the remote end is known (older kernels, LISTEN to SYN_RECV) it is the unspecified one.
        row.must(row.get("RADDR") == "::1" || row.get("RPORT") == "0" && row.get("RADDR") == "::", "RADDR");
    }
    run.finish();
}

fn a_dual_stack_listener_has_a_v4_mapped_child(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let at = Net::loopback6(net.port(0));
    let web = server.listen((std::net::Ipv6Addr::UNSPECIFIED, at.port()).into());
    let run = start(case, "-s", &net);
    let local = talk(&web, &client, (Ipv4Addr::LOCALHOST, at.port()).into());
    let rows = run.rows(talk_rows(case));
    for row in socket_at(&rows, local.port()) {
        row.is("IP", 4).is("LADDR", "127.0.0.1").is("RADDR", "127.0.0.1");
    }
    let far = socket_at(&rows, at.port());
    assert_eq!(changes(far.iter().copied()), server_states(case));
    for row in far.iter().skip(usize::from(sees_listeners(case))) {
        row.is("IP", 6).is("LADDR", "::ffff:127.0.0.1").is("RADDR", "::ffff:127.0.0.1");
    }
    run.finish();
}

fn local_port_filter_keeps_only_those_ports(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let from = |port| How::plain().bound(net.v4(port));
    let run = start(case, "-L 22,80", &net).ended_by(|| {
        client.fails(net.v4(END_PORT), &from(22), "ECONNREFUSED");
    });
    for port in [22, 23, 80, 81] {
        client.fails(net.v4_of(2, 443), &from(port), "ECONNREFUSED");
    }
    run.rows(4).are("LPORT", &[22, 22, 80, 80]);
    run.finish();
}

fn an_ephemeral_port_in_the_filter_begins_at_established(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/ip_local_port_range", "40000 40000");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "-L 40000,4000", &net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(4000)), "ECONNREFUSED");
    });
    let _near = client.connect(web.address());
    let rows = run.rows(1);
    rows[0].is("OLDSTATE", "SYN_SENT").is("NEWSTATE", "ESTABLISHED").is("MS", "0.000");
    run.finish();
}

fn remote_port_filter_keeps_only_those_ports(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, &format!("-D 443,{END_PORT}"), &net);
    for port in [22, 443, 444] {
        client.refused(net.v4_of(2, port));
    }
    run.rows(2).are("RPORT", &[443, 443]);
    run.finish();
}

fn both_port_filters_mean_both(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let from = |port| How::plain().bound(net.v4(port));
    let run = start(case, &format!("-L 22,80 -D 443,{END_PORT}"), &net).ended_by(|| {
        client.fails(net.v4_of(2, END_PORT), &from(22), "ECONNREFUSED");
    });
    for (local, remote) in [(22, 443), (22, 444), (23, 443), (80, 443), (443, 22)] {
        client.fails(net.v4_of(2, remote), &from(local), "ECONNREFUSED");
    }
    run.rows(4).are("LPORT", &[22, 22, 80, 80]).are("RPORT", &[443; 4]);
    run.finish();
}

fn family_filters_go_by_the_socket(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let mapped = Net::mapped(net.v4_of(2, 81));
    let run = start(case, "-s4", &net);
    client.refused(net.v6_of(2, 80));
    client.refused(mapped);
    client.refused(net.v4_of(2, 82));
    run.rows(2).are("IP", &[4, 4]).are("RPORT", &[82, 82]);
    run.finish();
    let run = start(case, "-s6", &net).ended_by(|| client.refused(net.v6(END_PORT)));
    client.refused(net.v6_of(2, 80));
    client.refused(mapped);
    client.refused(net.v4_of(2, 82));
    let rows = run.rows(4);
    rows.are("IP", &[6; 4]).are("RPORT", &[80, 80, 81, 81]);
    rows[2].is("RADDR", mapped.ip());
    run.finish();
}

fn an_mptcp_connection_shows_its_subflows_only(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = start(case, "", &net);
    let near = client.connect_as(at, &How::plain().mptcp());
    let far = web.accept();
    let port = near.local().port();
    near.close();
    far.await_end();
    far.close();
    // The last FINs are sent by workers, in their own time.
    let deadline = Instant::now() + PATIENCE;
    let rows = loop {
        run.settle();
        let rows = run.so_far();
        if rows.iter().filter(|row| row.get("NEWSTATE") == "CLOSE").count() >= 2 {
            break rows;
        }
        assert!(Instant::now() < deadline, "both subflows close");
    };
    for (port, first) in [(port, CLIENT[0]), (80, server_states(case)[0])] {
        let socket = socket_at(&rows, port);
        let sockets: std::collections::HashSet<&str> = socket.iter().map(|row| row.get("SKADDR")).collect();
        assert_eq!(sockets.len(), 1, "one subflow, and nothing of the MPTCP socket above it\n{rows:?}");
        let states = changes(socket);
        assert_eq!(states[0], first);
        // Each row begins in the state in which the one before ended.
        for pair in states.windows(2) {
            assert_eq!(pair[0].split(' ').nth(1), pair[1].split(' ').next(), "{states:?}");
        }
    }
    run.finish();
}

fn a_udp_socket_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net);
    client.order(&format!("udp-connect {}", net.v4(80)));
    run.rows(0);
    run.finish();
}

/// A journald of our own: takes entries and keeps them apart. It reads them as they come, because the queue of a
/// socket is short (10 where nobody raised it), and the tool reports every test's connections.
struct Journald {
    socket: UnixDatagram,
    /// Whether it takes a moment for each entry.
    is_slow: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
    entries: Receiver<Vec<u8>>,
    place: tempfile::TempDir,
}

impl Journald {
    fn new() -> Self {
        Self::with(false)
    }

    /// One that takes an entry every twentieth of a second, if it is slow.
    fn with(slow: bool) -> Self {
        let is_slow = Arc::new(AtomicBool::new(slow));
        let place = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(place.path().join("socket")).expect("a socket");
        let waits = Arc::clone(&is_slow);
        let (sink, entries) = channel();
        let inlet = socket.try_clone().expect("another descriptor");
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            // Nothing is what is read when the socket is shut down.
            while let Ok(length) = inlet.recv(&mut buffer) {
                if length == 0 || sink.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
                if waits.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        Self { socket, is_slow, reader: Some(reader), entries, place }
    }

    fn path(&self) -> String {
        self.place.path().join("socket").to_string_lossy().into_owned()
    }

    /// The next entry, by the native protocol.
    fn entry(&self) -> HashMap<String, Vec<u8>> {
        let entry = self.entries.recv_timeout(PATIENCE).expect("an entry");
        let mut rest = &entry[..];
        let mut fields = HashMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|&byte| byte == b'\n').expect("a line end");
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if let Some(equals) = line.iter().position(|&byte| byte == b'=') {
                fields.insert(
                    String::from_utf8_lossy(&line[..equals]).into_owned(),
                    line[equals + 1..].to_vec(),
                );
                rest = after;
            } else {
                let (length, after) = after.split_at(8);
                let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
                let (value, after) = after.split_at(usize::try_from(length).expect("it is short"));
                fields.insert(String::from_utf8_lossy(line).into_owned(), value.to_vec());
                rest = after.strip_prefix(b"\n").expect("a line end after the value");
            }
        }
        fields
    }

    /// The next entry about this remote port.
    fn entry_of(&self, rport: u16) -> HashMap<String, String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let entry = self.entry();
            if entry
                .get("OBJECT_TCP_DESTINATION_PORT")
                .is_some_and(|port| *port == rport.to_string().as_bytes())
            {
                let text = |value: Vec<u8>| String::from_utf8(value).expect("UTF-8");
                return entry.into_iter().map(|(name, value)| (name, text(value))).collect();
            }
        }
        panic!("no entry about port {rport}");
    }
}

impl Drop for Journald {
    /// Nobody listens when this returns.
    fn drop(&mut self) {
        let _awake = self.socket.shutdown(Shutdown::Both);
        let _gone = self.reader.take().map(thread::JoinHandle::join);
    }
}

fn the_journal_gets_every_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("cli\nent x");
    let journald = Journald::new();
    let run = case.launch("-Ys").env("NETBCC_JOURNAL_SOCKET", journald.path()).start(&net).end_rows(2);
    let (from, to) = (net.v4(5000), net.v4_of(2, net.port(0)));
    client.fails(to, &How::plain().bound(from), "ECONNREFUSED");
    let rows = run.rows(2);
    // The answer may come in anybody's context, but the open is the client's.
    rows[0].is("C-PID", client.pid()).is("C-COMM", r"cli\x0aent x");
    for row in &rows {
        let (old, new) = (row.get("OLDSTATE"), row.get("NEWSTATE"));
        let mut entry = journald.entry_of(to.port());
        let micros = entry.remove("OBJECT_TCP_SPAN_TIME").expect("a duration");
        let thousandths = micros.parse::<f64>().expect("digits") / 1000.0;
        row.is("MS", format!("{thousandths:.3}"));
        let expected = [
            (
                "MESSAGE",
                format!(
                    "{} {} 5000 \u{2192} {} {} {old} \u{2192} {new}",
                    row.get("C-COMM"),
                    from.ip(),
                    to.ip(),
                    to.port()
                ),
            ),
            ("SYSLOG_IDENTIFIER", "tcpstates".to_owned()),
            ("PRIORITY", "5".to_owned()),
            ("OBJECT_PID", row.get("C-PID").to_owned()),
            ("OBJECT_IPV4_SOURCE_ADDRESS", from.ip().to_string()),
            ("OBJECT_TCP_SOURCE_PORT", "5000".to_owned()),
            ("OBJECT_IPV4_DESTINATION_ADDRESS", to.ip().to_string()),
            ("OBJECT_TCP_DESTINATION_PORT", to.port().to_string()),
            ("OBJECT_TCP_OLD_STATE", old.to_owned()),
            ("OBJECT_TCP_NEW_STATE", new.to_owned()),
        ];
        // Neither more nor less: root's entries have no OBJECT_COMM.
        let expected: HashMap<String, String> = expected.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(entry, expected);
    }
    run.finish();
}

fn the_journal_gets_ipv6(case: &Case) {
    let net = Net::new();
    let to = net.v6_of(2, net.port(0));
    let client = net.peer("client");
    let journald = Journald::new();
    let run =
        case.launch("-Y6").env("NETBCC_JOURNAL_SOCKET", journald.path()).start(&net).end_rows(2).ended_by(
            || {
                client.refused(net.v6(END_PORT));
            },
        );
    let from = net.v6(5000);
    client.fails(to, &How::plain().bound(from), "ECONNREFUSED");
    run.rows(2);
    let entry = journald.entry_of(to.port());
    assert_eq!(entry["OBJECT_IPV6_SOURCE_ADDRESS"], from.ip().to_string());
    assert_eq!(entry["OBJECT_IPV6_DESTINATION_ADDRESS"], to.ip().to_string());
    assert!(!entry.contains_key("OBJECT_IPV4_SOURCE_ADDRESS"));
    run.finish();
}

fn the_journal_may_go_away(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let journald = Journald::new();
    let run = case.launch("-Y").env("NETBCC_JOURNAL_SOCKET", journald.path()).start(&net).end_rows(2);
    drop(journald);
    client.refused(net.v4(81));
    run.rows(2);
    let ended = run.stop();
    ended.code(0);
    assert!(ended.stderr.contains("the journal took all entries but"), "{}", ended.stderr);
}

fn a_slow_journal_keeps_neither_rows_nor_the_end(case: &Case) {
    const OPENS: usize = 1009;
    let net = Net::new();
    let client = net.peer("client");
    let mut times = Vec::new();
    // What a busy machine adds to the end, it does not add each time.
    let prompt = (0..3).any(|_| {
        let journald = Journald::with(true);
        let run = case.launch("-Y").env("NETBCC_JOURNAL_SOCKET", journald.path()).start(&net).end_rows(2);
        assert_eq!(client.churn(net.v4(80), OPENS, 1), (0, OPENS));
        run.arrival(2 * OPENS);
        // Each row has an entry; a socket's queue has room for 512 of them at most.
        let taken = journald.entries.try_iter().count();
        assert!(taken < OPENS, "rows waited until {taken} entries were taken");
        let (ended, took) = run.ends_after(Signal::SIGTERM);
        ended.code(0);
        let (_, rest) = ended.stderr.split_once("the journal took all entries but ").expect("it is slow");
        let lost: usize = rest.lines().next().and_then(|number| number.parse().ok()).expect("a number");
        let rows = ended.stdout.len() - 1;
        journald.is_slow.store(false, Ordering::Relaxed);
        for _ in taken + lost..rows {
            journald.entry();
        }
        let quiet = journald.entries.recv_timeout(Duration::from_millis(100));
        assert!(quiet.is_err(), "more than {rows} rows - {lost} lost");
        times.push(took);
        took < PROMPT
    });
    assert!(prompt, "it took {times:?} to end");
}

fn a_journal_that_is_not_there_is_one_clear_line(case: &Case) {
    let ended = case.launch("-Y").env("NETBCC_JOURNAL_SOCKET", "/nonexistent/socket").ends();
    ended.code(1).one_line("tcpstates", &["journal", "/nonexistent/socket", "No such file"]);
}

fn rows_leave_through_a_pipe_at_once(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net);
    let mut delays: Vec<Duration> = (1..=7)
        .map(|nth| {
            let before = Instant::now();
            client.refused(net.v4(80));
            run.arrival(2 * nth) - before
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[3] < Duration::from_millis(200), "{delays:?}");
    run.finish();
}

fn short_connections_are_all_seen_or_told_as_lost(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net).watched();
    let done = 2003;
    assert_eq!(client.churn(net.v4_of(2, 80), done, 2), (0, done));
    run.settle();
    let all = 2 * done;
    let seen = run.rows_at_last(all).len();
    let ended = run.stop();
    ended.code(0);
    ended.accounts_for(seen, all);
}

/// Insists that the second of two runs shows something else than an address, which is as wide and the same in all its rows.
fn hides_addresses(net: &Net, seen: &Run<'_>, hidden: &Run<'_>) {
    net.peer("client").refused(net.v4(80));
    let [seen, hidden] = [seen, hidden].map(|run| {
        let rows = run.rows(2);
        let address = rows[0].get("SKADDR").to_owned();
        rows.are("SKADDR", &[&address, &address]);
        address
    });
    assert_eq!(hidden.len(), 16, "as wide as an address");
    assert_ne!(seen, hidden);
}

fn an_ordinary_user_sees_no_address(case: &Case) {
    let net = Net::new();
    let copy = Copy::new();
    copy.grant(Copy::NEEDED);
    let seen = case.launch("").start(&net);
    let hidden = case.launch("").program(copy.path()).user(65_534).start(&net);
    hides_addresses(&net, &seen, &hidden);
}

fn root_sees_no_address_where_the_kernel_hides_them(case: &Case) {
    let net = Net::new();
    let seen = case.launch("").start(&net);
    // What the kernel would say if it were told so: the setting itself is the whole machine's.
    let level = tempfile::NamedTempFile::new().expect("a file");
    fs::write(level.path(), "2\n").expect("there is room");
    own_mounts();
    in_place_of(level.path(), "/proc/sys/kernel/kptr_restrict");
    let hidden = case.launch("").start(&net);
    hides_addresses(&net, &seen, &hidden);
}
