//! tcpaccept: which accepts are rows, whose they are, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{How, Peer};
use netbcc_tests::raw::Map;
use netbcc_tests::run::Run;

use crate::tcpconnect::{Mounts, pinned};

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    seconds_count_from_the_first_row,
    json_rows_carry_every_value,
    hostile_and_long_names_cannot_drive_a_terminal,
    container_maps_keep_only_their_members,
    rows_leave_through_a_pipe_at_once,
];

pub(crate) const CHECKS: &[Check] = checks![
    an_accept_is_one_row_of_exactly_these_bytes,
    a_connection_is_a_row_when_it_is_accepted,
    what_gives_no_connection_gives_no_row,
    families_go_by_the_listener,
    threads_that_wait_in_accept_use_nothing_up,
    a_thread_that_waited_before_the_start_is_seen,
    local_ports_are_kept_by_their_list,
    the_pid_filter_goes_by_the_process_and_names_are_of_threads,
    a_connection_reset_before_accept_keeps_its_port,
    a_fast_open_is_one_row,
    an_mptcp_accept_is_one_row,
    accepts_by_io_uring_are_seen_or_said_not_to_be,
    accepts_are_all_seen_or_told: alone,
];

/// Starts the tool. A connection from [`END_PORT`] to port 80 of host 3, which `keeper` accepts, ends its rows.
fn start<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer) -> Run<'n> {
    start_at(case, options, net, keeper, net.v4_of(3, 80))
}

fn start_at<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer, at: SocketAddr) -> Run<'n> {
    let listener = keeper.listen(at);
    let from = if at.is_ipv6() { net.v6(END_PORT) } else { net.v4(END_PORT) };
    case.launch(options).start(net).ended_by(move || {
        let near = keeper.connect_as(listener.address(), &How::plain().bound(from));
        listener.accept().abort();
        near.await_end();
        near.close();
    })
}

fn an_accept_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("abcdefghijklmno"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, net.port(0))));
    let at = net.v4_of(2, net.port(0));
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(at, &How::plain().bound(net.v4(40_000)));
    let _far = web.accept();
    run.rows(1)[0].reads(&format!(
        "{:<7} abcdefghijkl 4  {:<16} 40000 {:<16} {:<5}",
        server.pid(),
        near.local().ip(),
        at.ip(),
        at.port(),
    ));
    run.finish();
}

fn a_connection_is_a_row_when_it_is_accepted(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let _near = client.connect(web.address());
    run.rows(0);
    let _far = web.accept();
    run.rows(1)[0].is("PID", server.pid()).is("COMM", "server").is("LPORT", 80);
    run.finish();
}

fn what_gives_no_connection_gives_no_row(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    client.refused(net.v4_of(2, 81));
    for _ in 0..503 {
        assert_eq!(web.accept_as("now").map(|conn| conn.local()), Err("EAGAIN".into()));
    }
    run.rows(0);
    run.finish();
}

fn families_go_by_the_listener(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let port = net.port(0);
    let both = server.listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let four = server.listen(net.v4_of(2, 80));
    let mapped = Net::mapped(net.v4(port));
    let runs = [
        start(case, "", &net, &keeper),
        start_at(case, "-4", &net, &keeper, net.v4_of(3, 81)),
        start_at(case, "-6", &net, &keeper, net.v6_of(3, 80)),
    ];
    let mut conns = Vec::new();
    for (to, listener) in [(net.v4(port), &both), (net.v6(port), &both), (four.address(), &four)] {
        conns.push(client.connect(to));
        conns.push(listener.accept());
    }
    let [all, only_four, only_six] = &runs;
    let rows = all.rows(3);
    rows.are("IP", &[6, 6, 4]);
    rows[0].is("LADDR", mapped.ip()).must(rows[0].get("RADDR").starts_with("::ffff:10."), "both are mapped");
    rows[1].is("LADDR", net.v6(0).ip()).is("RADDR", conns[2].local().ip());
    rows[2].is("LADDR", four.address().ip());
    only_four.rows(1).are("LPORT", &[80]);
    only_six.rows(2).are("LPORT", &[port; 2]);
    for run in runs {
        run.finish();
    }
}

fn threads_that_wait_in_accept_use_nothing_up(case: &Case) {
    let net = Net::new();
    let (many, server, client, keeper) =
        (net.peer("many"), net.peer("server"), net.peer("client"), net.peer("keeper"));
    let run = start(case, "", &net, &keeper);
    many.listen(net.v4_of(2, 81)).wait_in_accept(150);
    let web = server.listen(net.v4_of(2, 80));
    let _near = client.connect(web.address());
    let _far = web.accept();
    run.rows(1)[0].is("PID", server.pid()).is("LPORT", 80);
    run.finish();
}

fn a_thread_that_waited_before_the_start_is_seen(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let accepted = web.begin_accept();
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let far = accepted();
    run.rows(1)[0].is("PID", server.pid()).is("RPORT", near.local().port()).is("LPORT", 80);
    near.close();
    far.close();
    run.finish();
}

fn local_ports_are_kept_by_their_list(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let run = start(case, "-P 80,81", &net, &keeper);
    let mut conns = Vec::new();
    for port in [80, 81, 82] {
        let web = server.listen(net.v4_of(2, port));
        // A remote port is no reason to be kept.
        conns.push(client.connect_as(web.address(), &How::plain().bound(net.v4(81))));
        conns.push(web.accept());
    }
    run.rows(2).are("LPORT", &[80, 81]).are("RPORT", &[81; 2]);
    run.finish();
}

fn the_pid_filter_goes_by_the_process_and_names_are_of_threads(case: &Case) {
    let net = Net::new();
    let (server, other, client) = (net.peer("server"), net.peer("other"), net.peer("client"));
    let run = start(case, &format!("-p {}", server.pid()), &net, &server);
    let (web, mail) = (server.listen(net.v4_of(2, 80)), other.listen(net.v4_of(2, 25)));
    let mut conns = Vec::new();
    for to in [web.address(), mail.address(), web.address()] {
        conns.push(client.connect(to));
    }
    conns.push(mail.accept());
    conns.push(web.accept_in_thread("second"));
    conns.push(web.accept());
    let rows = run.rows(2);
    rows.are("PID", &[server.pid(); 2]).are("LPORT", &[80; 2]).are("COMM", &["second", "server"]);
    run.finish();
}

fn a_connection_reset_before_accept_keeps_its_port(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "-P 80", &net, &keeper);
    let near = client.connect(web.address());
    let local = near.local();
    near.abort();
    let far = web.accept();
    far.await_end();
    let rows = run.rows(1);
    rows[0].is("PID", server.pid()).is("LADDR", web.address().ip()).is("LPORT", 80);
    rows[0].is("RADDR", local.ip()).is("RPORT", local.port());
    run.finish();
}

fn a_fast_open_is_one_row(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.fast_open(web.address(), 100);
    web.accept().receive(100);
    run.rows(1)[0].is("PID", server.pid()).is("LPORT", 80).is("RPORT", near.local().port());
    run.finish();
}

fn an_mptcp_accept_is_one_row(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|error| skip(format!("MPTCP ({error})")));
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(at, &How::plain().mptcp());
    let _far = web.accept();
    // One that speaks plain TCP.
    let plain = client.connect(at);
    let _second = web.accept();
    let rows = run.rows(2);
    rows.are("PID", &[server.pid(); 2]).are("LPORT", &[80; 2]);
    rows.are("RPORT", &[near.local().port(), plain.local().port()]);
    rows[0].is("LADDR", at.ip()).is("RADDR", near.local().ip()).is("IP", 4);
    run.finish();
}

fn accepts_by_io_uring_are_seen_or_said_not_to_be(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect(web.address());
    let far = web.accept_as("uring").unwrap_or_else(|error| skip(format!("io_uring ({error})")));
    if case.rung == Rung::Tracepoint {
        run.rows(0);
        let said = run.finish().stderr;
        assert!(said.contains("accepts by io_uring"), "{said}");
    } else {
        run.rows(1)[0].is("PID", server.pid()).is("COMM", "server").is("RPORT", near.local().port());
        run.finish();
    }
    far.close();
}

fn accepts_are_all_seen_or_told(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    web.serve();
    let run = start(case, "", &net, &keeper).watched();
    let all = 5003;
    assert_eq!(client.churn(web.address(), all, 2), (all, 0));
    web.served(all);
    run.settle();
    let rows = run.rows_at_last(all);
    let seen = rows.len();
    for row in &rows {
        row.is("PID", server.pid()).is("LPORT", 80);
    }
    run.stop().code(0).accounts_for(seen, all);
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = "PID     COMM         IP RADDR            RPORT LADDR            LPORT";
    assert_eq!(plain.len(), 69);
    for (options, times) in
        [("", ""), ("-t", "TIME(s)  "), ("-T", "TIME     "), ("-tT", "TIME     TIME(s)  ")]
    {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), format!("{times}{plain}"), "{options}");
        run.finish();
    }
}

fn seconds_count_from_the_first_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, &format!("-Tt -p {}", server.pid()), &net, &server);
    let _near = [client.connect(web.address()), client.connect(web.address())];
    let _far = [web.accept(), web.accept()];
    let rows = run.rows(2);
    let after_time = rows[0].line.get(8..).unwrap_or_default();
    let begins = format!(" 0.000    {:<7} server ", server.pid());
    rows[0].must(after_time.starts_with(&begins), format!("{begins:?} after the time of day"));
    rows[1].must(rows[1].number("TIME(s)") >= 0.0, "later");
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let near = client.connect(web.address());
    let _far = web.accept();
    let rows = run.rows(1);
    rows[0].is("pid", server.pid()).is("comm", "server").is("ip", 4);
    rows[0].is("raddr", near.local().ip()).is("rport", near.local().port());
    rows[0].is("laddr", web.address().ip()).is("lport", 80);
    run.finish();
}

fn hostile_and_long_names_cannot_drive_a_terminal(case: &Case) {
    let net = Net::new();
    let (client, keeper) = (net.peer("client"), net.peer("keeper"));
    let server = net.peer_named(b"\x1b[2Ja\nb\xff");
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let _near = client.connect(web.address());
    let _far = web.accept();
    run.rows(1)[0].is("COMM", r"\x1b[2Ja\x0a");
    run.finish();
}

fn container_maps_keep_only_their_members(case: &Case) {
    let mut mounts = Mounts::new();
    let (bpf, groups) = (mounts.mount("bpf"), mounts.mount("cgroup2"));
    let group = groups.join(format!("netbcc-test-{}-accept", std::process::id()));
    fs::create_dir(&group).unwrap_or_else(|e| skip(format!("cgroups of our own ({e})")));
    {
        let net = Net::new();
        let (inside, outside, client) = (net.peer("inside"), net.peer("outside"), net.peer("client"));
        inside.join_cgroup(&group);
        let cgroups = Map::hash(8).expect("a map");
        cgroups.insert(fs::metadata(&group).expect("it is there").ino()).expect("a key");
        let mntnses = Map::hash(4).expect("a map");
        mntnses.insert(inside.own_mounts()).expect("a key");
        let (web, mail) = (inside.listen(net.v4_of(2, 80)), outside.listen(net.v4_of(2, 25)));
        for (options, port) in [
            (format!("--cgroupmap {}", pinned(&cgroups, &bpf.join("groups"))), 80),
            (format!("--mntnsmap {}", pinned(&mntnses, &bpf.join("mounts"))), 81),
        ] {
            let run = start_at(case, &options, &net, &inside, net.v4_of(3, port));
            let _theirs = [client.connect(mail.address()), mail.accept()];
            let _ours = [client.connect(web.address()), web.accept()];
            run.rows(1)[0].is("PID", inside.pid()).is("LPORT", 80);
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
    let mut delays: Vec<Duration> = (1..=7)
        .map(|nth| {
            let _near = client.connect(web.address());
            let before = Instant::now();
            let _far = web.accept();
            run.arrival(nth) - before
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[3] < Duration::from_millis(200), "{delays:?}");
    run.finish();
}
