//! solisten: which calls are rows, what the rows say, and which of them the filters keep.
//!
//! A check is a sentence of the list that the tool was accepted by, or of what it promises beside that.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::run::Run;

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_text_row_of_ipv6_is_exactly_these_bytes,
    the_headers_are_exactly_these,
    the_time_of_day_is_now,
    the_namespace_filter_keeps_only_that_namespace,
    wildcards_are_written_as_bcc_does,
    rows_leave_through_a_pipe_at_once,
];

pub(crate) const CHECKS: &[Check] = checks![
    a_listen_is_one_row,
    the_text_row_is_exactly_these_bytes,
    json_rows_carry_every_value,
    a_backlog_is_limited_by_somaxconn,
    a_backlog_of_zero_is_zero,
    an_unbound_socket_has_port_0,
    a_second_listen_is_a_second_row,
    a_listen_that_fails_is_a_row,
    a_listen_on_a_connected_socket_is_a_row,
    other_sockets_are_no_rows,
    an_mptcp_listener_is_one_row,
    an_mptcp_listener_that_listens_again_is_a_second_row,
    the_namespace_is_the_sockets,
    the_pid_filter_goes_by_the_process,
    what_the_rung_does_not_see_is_said,
    many_listens_are_all_seen: alone,
];

/// Makes the row that ends a test: somebody listens on [`END_PORT`].
fn end(net: &Net) {
    net.near().enter(|| drop(TcpListener::bind(net.v4(END_PORT)).expect("a port of ours")));
}

/// Starts the tool.
fn start<'n>(case: &Case, options: &str, net: &'n Net) -> Run<'n> {
    case.launch(options).start(net).ended_by(|| end(net))
}

/// The text row that BCC prints.
fn text(pid: u32, comm: &str, proto: &str, backlog: i32, at: SocketAddr) -> String {
    format!("{pid:<7} {comm:<12} {proto:<6} {backlog:<8} {:<5} {:<39}", at.port(), at.ip().to_string())
}

/// The inode number of the near network namespace.
fn inode(net: &Net) -> u64 {
    net.near().enter(|| fs::metadata("/proc/thread-self/ns/net").expect("/proc is mounted").ino())
}

fn a_listen_is_one_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    server.bind(net.v4(80)).again(5).expect("it may listen");
    let rows = run.rows(1);
    rows[0].is("PID", server.pid()).is("COMM", "server").is("PROTO", "TCPv4").is("BACKLOG", 5);
    rows[0].is("PORT", 80).is("ADDR", net.v4(80).ip());
    run.finish();
}

fn the_text_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let server = net.peer("abcdefghijklmno");
    let run = start(case, "", &net);
    let at = net.v4(4242);
    server.bind(at).again(5).expect("it may listen");
    let row = &run.rows(1)[0];
    row.reads(&text(server.pid(), "abcdefghijkl", "TCPv4", 5, at));
    row.must(row.line.len() == 82, "82 characters");
    run.finish();
}

fn the_text_row_of_ipv6_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (v6, mapped) = (net.v6(4242), Net::mapped(net.v4(4243)));
    let server = net.peer("server");
    let run = start(case, "", &net);
    server.bind(v6).again(128).expect("it may listen");
    server.bind(mapped).again(1).expect("it may listen");
    let rows = run.rows(2);
    rows[0].reads(&text(server.pid(), "server", "TCPv6", 128, v6));
    rows[1].reads(&text(server.pid(), "server", "TCPv6", 1, mapped));
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = format!("PID     COMM         PROTO  BACKLOG  PORT  ADDR{:35}", "");
    let netns = format!("PID     COMM         NETNS        PROTO  BACKLOG  PORT  ADDR{:35}", "");
    assert_eq!((plain.len(), netns.len()), (82, 95));
    for (options, header) in [
        ("", plain.clone()),
        ("--show-netns", netns.clone()),
        ("--show", netns.clone()),
        ("--netns 4026531999", plain.clone()),
        ("-t", format!("TIME(s)  {plain}")),
        ("-t --show-netns", format!("TIME(s)  {netns}")),
    ] {
        let net = Net::new();
        let run = start(case, options, &net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "--json", &net);
    server.bind(net.v4(80)).again(5).expect("it may listen");
    let rows = run.rows(1);
    rows[0].is("pid", server.pid()).is("comm", "server").is("netns", inode(&net)).is("proto", "TCPv4");
    rows[0].is("backlog", 5).is("port", 80).is("addr", net.v4(80).ip());
    rows[0].must(rows[0].get("time").ends_with('Z') && rows[0].number("ts_ns") > 0.0, "the time");
    run.finish();
}

/// Seconds of the day in UTC, in which the harness runs tools.
fn seconds_of_the_day() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    now.as_secs() % 86_400
}

fn the_time_of_day_is_now(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "-t", &net);
    let before = seconds_of_the_day();
    server.bind(net.v4(80)).again(5).expect("it may listen");
    let rows = run.rows(1);
    let passed = (seconds_of_the_day() + 86_400 - before) % 86_400;
    let said = rows[0]
        .get("TIME(s)")
        .split(':')
        .fold(0, |sum, part| 60 * sum + part.parse::<u64>().expect("digits"));
    rows[0].must((said + 86_400 - before) % 86_400 <= passed, "the time is between before and after");
    rows[0].must(rows[0].line.as_bytes()[8] == b' ', "the time is 8 wide");
    run.finish();
}

fn a_backlog_is_limited_by_somaxconn(case: &Case) {
    let net = Net::new();
    net.near().sysctl("core/somaxconn", "1234");
    let server = net.peer("server");
    let run = start(case, "", &net);
    let socket = server.bind(net.v4(80));
    for backlog in [70_000, -1, i32::MAX, i32::MIN, 1235, 1234, 1233] {
        socket.again(backlog).expect("it may listen");
    }
    run.rows(7).are("BACKLOG", &[1234, 1234, 1234, 1234, 1234, 1234, 1233]);
    for (nth, backlog) in (1..).zip([70_000, -1]) {
        // The first listen() of a socket, too.
        server.bind(net.v4(80 + nth)).again(backlog).expect("it may listen");
        run.rows(7 + usize::from(nth))[6 + usize::from(nth)].is("BACKLOG", 1234);
    }
    run.finish();
}

fn a_backlog_of_zero_is_zero(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    let socket = server.bind(net.v4(80));
    socket.again(0).expect("it may listen");
    socket.again(0).expect("it may listen");
    run.rows(2).are("BACKLOG", &[0, 0]);
    run.finish();
}

/// Starts the tool for one process, whose rows are then the only ones, wherever it listens.
fn start_for<'n>(case: &Case, net: &'n Net, server: &'n netbcc_tests::peer::Peer) -> Run<'n> {
    case.launch(&format!("-p {}", server.pid())).start(net).ended_by(|| {
        let socket = server.bind(net.v4(END_PORT));
        socket.again(1).expect("a port of ours");
        socket.close();
    })
}

fn an_unbound_socket_has_port_0(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start_for(case, &net, &server);
    let at = server.try_bind("tcp4", None).expect("a socket").again(1).expect("it may listen");
    assert_ne!(at.port(), 0, "the kernel chose a port");
    let mut expected = vec![text(server.pid(), "server", "TCPv4", 1, (Ipv4Addr::UNSPECIFIED, 0).into())];
    if has_ipv6() {
        server.try_bind("tcp6", None).expect("a socket").again(2).expect("it may listen");
        expected.push(text(server.pid(), "server", "TCPv6", 2, "[::]:0".parse().expect("an address")));
    }
    run.settle();
    assert_eq!(run.lines()[1..=expected.len()], expected);
    run.finish();
}

fn wildcards_are_written_as_bcc_does(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let (v4, v6) =
        ((Ipv4Addr::UNSPECIFIED, net.port(0)).into(), "[::]:0".parse::<SocketAddr>().expect("an address"));
    let run = start(case, "", &net);
    server.bind(v4).again(3).expect("it may listen");
    run.rows(1)[0].reads(&text(server.pid(), "server", "TCPv4", 3, v4));
    if has_ipv6() {
        let v6 = SocketAddr::from((v6.ip(), net.port(1)));
        server.bind(v6).again(128).expect("it may listen");
        run.rows(2)[1].reads(&text(server.pid(), "server", "TCPv6", 128, v6));
    }
    run.finish();
}

fn a_second_listen_is_a_second_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    let socket = server.bind(net.v4(80));
    socket.again(5).expect("it may listen");
    socket.again(7).expect("it may listen again");
    run.rows(2).are("BACKLOG", &[5, 7]).are("PORT", &[80, 80]).are("PID", &[server.pid(); 2]);
    run.finish();
}

fn a_listen_that_fails_is_a_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    // Both may be bound there (SO_REUSEADDR), but only one may listen.
    let (first, second) = (server.bind(net.v4(80)), server.bind(net.v4(80)));
    let run = start(case, "", &net);
    first.again(1).expect("the first may");
    assert_eq!(second.again(2), Err("EADDRINUSE".into()));
    run.rows(2).are("BACKLOG", &[1, 2]).are("PORT", &[80, 80]);
    run.finish();
}

fn a_listen_on_a_connected_socket_is_a_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let run = start(case, "", &net);
    assert_eq!(near.listen(9), Err("EINVAL".into()));
    let rows = run.rows(1);
    rows[0].is("PID", client.pid()).is("BACKLOG", 9).is("PORT", near.local().port());
    rows[0].is("ADDR", near.local().ip());
    run.finish();
}

fn other_sockets_are_no_rows(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start_for(case, &net, &server);
    let udp = server.try_bind("udp4", Some(net.v4(80))).expect("a socket");
    assert_eq!(udp.again(1), Err("EOPNOTSUPP".into()));
    let unix = server.try_bind("unix", None).expect("a socket");
    unix.again(1).expect("it may listen");
    unix.again(2).expect("it may listen");
    // A descriptor that is no socket, and one that is none.
    assert_eq!(server.ask("listen-fd 0 1"), Err("ENOTSOCK".into()));
    assert_eq!(server.ask("listen-fd 100000 1"), Err("EBADF".into()));
    run.settle();
    // The header and the end.
    assert_eq!(run.lines().len(), 2, "{:?}", run.lines());
    run.finish();
}

fn an_mptcp_listener_is_one_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let socket = server.try_bind("mptcp4", Some(net.v4(80))).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = start(case, "", &net);
    socket.again(5).expect("it may listen");
    let rows = run.rows(1);
    rows[0].is("PID", server.pid()).is("COMM", "server").is("PROTO", "TCPv4").is("BACKLOG", 5);
    rows[0].is("PORT", 80).is("ADDR", net.v4(80).ip());
    run.finish();
}

fn an_mptcp_listener_that_listens_again_is_a_second_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let socket = server.try_bind("mptcp4", Some(net.v4(80))).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = start(case, "", &net);
    socket.again(5).expect("it may listen");
    if let Err(error) = socket.again(7) {
        // Before 6.3 MPTCP has one listen() per socket; where it never arrives at TCP there is nothing to see.
        skip(format!("a second listen() of an MPTCP socket ({error})"));
    }
    run.rows(2).are("BACKLOG", &[5, 7]).are("PORT", &[80, 80]).are("ADDR", &[net.v4(80).ip(); 2]);
    run.finish();
}

fn the_namespace_is_the_sockets(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "--show-netns", &net);
    server.bind(net.v4(80)).again(5).expect("it may listen");
    let rows = run.rows(1);
    rows[0].reads(&format!(
        "{:<7} server       {:<12} TCPv4  5        80    {:<39}",
        server.pid(),
        inode(&net),
        net.v4(80).ip().to_string()
    ));
    run.finish();
}

fn the_namespace_filter_keeps_only_that_namespace(case: &Case) {
    let (net, other) = (Net::new(), Net::new());
    let (server, stranger) = (net.peer("server"), other.peer("stranger"));
    let run = start(case, &format!("-n {}", inode(&net)), &net);
    // The same addresses there: were it not for the filter, its row would be ours.
    other.near().ip(&format!("addr add {}/32 dev lo\n", net.v4(81).ip()));
    let strange = stranger.bind(net.v4(81));
    strange.again(5).expect("it may listen");
    strange.again(6).expect("it may listen");
    let socket = server.bind(net.v4(80));
    socket.again(5).expect("it may listen");
    socket.again(6).expect("it may listen");
    run.rows(2).are("PORT", &[80, 80]).are("PID", &[server.pid(); 2]);
    run.finish();
    let run = start(case, "--netns 0", &net);
    stranger.bind(net.v4(82)).again(5).expect("it may listen");
    run.rows(1)[0].is("PID", stranger.pid());
    run.finish();
}

fn the_pid_filter_goes_by_the_process(case: &Case) {
    let net = Net::new();
    let (server, other) = (net.peer("server"), net.peer("other"));
    let run = start_for(case, &net, &server);
    other.bind(net.v4(81)).again(5).expect("it may listen");
    let socket = server.bind(net.v4(80));
    socket.again_in_thread(5, "worker").expect("it may listen");
    socket.again_in_thread(6, "worker").expect("it may listen");
    let rows = run.rows(2);
    rows.are("PID", &[server.pid(); 2]).are("COMM", &["worker"; 2]).are("PORT", &[80, 80]);
    run.finish();
}

fn what_the_rung_does_not_see_is_said(case: &Case) {
    let net = Net::new();
    let told = start(case, "", &net).finish().stderr;
    if case.rung == Rung::Tracepoint {
        assert!(told.contains("not seen"), "{told}");
    } else {
        assert!(!told.contains("not seen"), "{told}");
    }
}

fn rows_leave_through_a_pipe_at_once(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    let socket = server.bind(net.v4(80));
    let mut delays: Vec<Duration> = (1..=7)
        .map(|nth| {
            let before = Instant::now();
            socket.again(1).expect("it may listen");
            run.arrival(nth) - before
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[3] < Duration::from_millis(200), "{delays:?}");
    run.finish();
}

fn many_listens_are_all_seen(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net);
    let count = 300;
    for _ in 0..count / 2 {
        let socket = server.bind(net.v4(80));
        socket.again(1).expect("it may listen");
        socket.again(2).expect("it may listen");
        socket.close();
    }
    run.rows(count);
    run.finish();
}
