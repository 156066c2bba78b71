//! bindsnoop: which calls are rows, what the rows say, and which of them the filters keep.

use std::net::{Ipv4Addr, SocketAddr};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::Peer;
use netbcc_tests::run::Run;

pub(crate) const CHECKS: &[Check] = checks![
    a_bind_is_one_row_of_exactly_these_bytes,
    each_option_is_its_letter_and_no_other,
    a_failed_bind_is_a_row_with_what_was_asked_for,
    a_port_that_the_kernel_chose_is_shown,
    ipv6_is_cut_unless_it_is_wide,
    protocols_have_their_names,
    an_mptcp_socket_is_one_row,
    other_sockets_are_no_rows,
    the_port_filter_keeps_exactly_these_ports,
    json_rows_carry_every_value,
    binds_are_counted_by_address_and_port,
    seen_and_filtered_are_all: alone,
];

/// Starts the tool for one process, whose rows are then the only ones.
fn start<'n>(case: &Case, options: &str, net: &'n Net, server: &'n Peer) -> Run<'n> {
    case.launch(&format!("-p {} {options}", server.pid())).start(net).ended_by(|| {
        server.bind_with("tcp4", net.v4(END_PORT), "").expect("a port of ours").close();
    })
}

/// The row that BCC prints.
fn text(pid: u32, prot: &str, addr: &str, port: u16, opts: &str, interface: i32) -> String {
    format!("{pid:>8} {:<12} {prot:<4} {addr:<15} {port:>5} {opts:<5} {interface:>2}", "server")
}

fn a_bind_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net, &server);
    let header = run.header();
    assert_eq!(header, "     PID COMM         PROT ADDR            PORT   OPTS IF");
    let at = net.v4(4242);
    server.bind_with("tcp4", at, "").expect("it is free");
    run.rows(1)[0].reads(&text(server.pid(), "TCP", &at.ip().to_string(), 4242, ".....", 0));
    run.finish();
}

/// Levels and options (include/uapi/linux/in.h, asm-generic/socket.h), and how they are shown.
const OPTIONS: [(&str, &str); 7] = [
    ("0:15:1", "F...."),
    ("0:19:1", ".T..."),
    ("0:24:1", "..N.."),
    ("1:2:1", "...R."),
    ("1:15:1", "....r"),
    // IP_MULTICAST_TTL and IP_MTU_DISCOVER, which BCC takes for others.
    ("0:33:36", "....."),
    ("0:10:3", "....."),
];

fn each_option_is_its_letter_and_no_other(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net, &server);
    let mut wanted = Vec::new();
    for (port, (option, letters)) in (4242..).zip(OPTIONS) {
        let at = net.v4(port);
        let socket = server.bind_with("udp4", at, option).unwrap_or_else(|e| panic!("{option}: {e}"));
        socket.close();
        wanted.push(text(server.pid(), "UDP", &at.ip().to_string(), port, letters, 0));
    }
    run.settle();
    assert_eq!(run.lines()[2..2 + wanted.len()], wanted);
    run.finish();
}

fn a_failed_bind_is_a_row_with_what_was_asked_for(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let at = net.v4(4242);
    let _first = server.bind_with("tcp4", at, "").expect("it is free");
    let run = start(case, "", &net, &server);
    assert!(server.bind_with("tcp4", at, "").is_err());
    run.settle();
    // Banner, header and the end.
    assert_eq!(run.lines().len(), 3, "{:?}", run.lines());
    run.finish();
    let run = start(case, &format!("-E -P 4242,{END_PORT}"), &net, &server);
    assert!(server.bind_with("tcp4", at, "").is_err());
    run.rows(1)[0]
        .reads(&format!("-98 {}", text(server.pid(), "TCP", &at.ip().to_string(), 4242, ".....", 0)));
    run.finish();
    let run = start(case, &format!("-Ew -P 4242,{END_PORT}"), &net, &server);
    assert!(server.bind_with("tcp4", at, "").is_err());
    run.rows(1)[0].reads(&format!(
        "{:<25} {:>10} {:<12} TCP  {:<39} {:>5} .....  0",
        "Address already in use",
        server.pid(),
        "server",
        at.ip().to_string(),
        4242
    ));
    run.finish();
}

fn a_port_that_the_kernel_chose_is_shown(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net, &server);
    let address = SocketAddr::new(net.v4(80).ip(), 0);
    let ip = address.ip().to_string();
    let chosen = server.bind_with("tcp4", address, "").expect("some port is free").address().port();
    server.bind_with("tcp4", address, "0:24:1").expect("no port is needed");
    let rows = run.rows(2);
    rows[0].reads(&text(server.pid(), "TCP", &ip, chosen, ".....", 0));
    rows[1].reads(&text(server.pid(), "TCP", &ip, 0, "..N..", 0));
    run.finish();
}

fn ipv6_is_cut_unless_it_is_wide(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let server = net.peer("server");
    for (options, wide) in [("", false), ("-w", true)] {
        let run = start(case, options, &net, &server);
        let mapped = Net::mapped(net.v4(4243));
        for at in [net.v6(4242), mapped] {
            server.bind_with("udp6", at, "").expect("it is free").close();
        }
        run.settle();
        let wanted = [net.v6(4242), mapped].map(|at| {
            let (pid, ip) = (server.pid(), at.ip().to_string());
            if wide {
                format!("{pid:>10} {:<12} UDP  {ip:<39} {:>5} .....  0", "server", at.port())
            } else {
                text(pid, "UDP", &ip[..ip.len().min(15)], at.port(), ".....", 0)
            }
        });
        // A cut address tells nobody whose it is.
        assert_eq!(run.lines()[2..4], wanted);
        run.finish();
    }
}

fn protocols_have_their_names(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net, &server);
    let group: SocketAddr = (Ipv4Addr::new(239, 1, 1, 1), 4242).into();
    server.bind_with("udp4", group, "").expect("it is free");
    server.bind_with("icmp4", SocketAddr::new(net.v4(1).ip(), 0), "").expect("root may");
    let mut wanted = vec![
        text(server.pid(), "UDP", "239.1.1.1", 4242, ".....", 0),
        // The kernel makes each raw socket with SO_REUSEADDR.
        text(server.pid(), "ICMP", &net.v4(1).ip().to_string(), 1, "...R.", 0),
    ];
    // Gone from Linux 7.1.
    if server.bind_with("udplite4", net.v4(4243), "").is_ok() {
        wanted.push(text(server.pid(), "UDPL", &net.v4(1).ip().to_string(), 4243, ".....", 0));
    }
    run.settle();
    assert_eq!(run.lines()[2..2 + wanted.len()], wanted);
    run.finish();
}

fn an_mptcp_socket_is_one_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, "", &net, &server);
    let at = net.v4(4242);
    server.bind_with("mptcp4", at, "").unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    run.settle();
    let row = text(server.pid(), "MPTC", &at.ip().to_string(), 4242, ".....", 0);
    assert_eq!(run.lines()[2..run.lines().len() - 1], [row]);
    run.finish();
}

fn other_sockets_are_no_rows(case: &Case) {
    let net = Net::new();
    let (server, far) = (net.peer("server"), net.peer("far"));
    let web = far.listen(net.v4_of(2, 80));
    let run = start(case, "-E", &net, &server);
    server.try_bind("unix", None).expect("it has an address");
    server.connect(web.address()).close();
    run.settle();
    // Banner, header and the end.
    assert_eq!(run.lines().len(), 3, "{:?}", run.lines());
    run.finish();
}

fn the_port_filter_keeps_exactly_these_ports(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, &format!("-P 80,81,{END_PORT}"), &net, &server);
    for port in [79, 80, 81, 82, 0] {
        server.bind_with("tcp4", SocketAddr::new(net.v4(1).ip(), port), "").expect("it is free").close();
    }
    run.settle();
    // Banner, header and the end.
    assert_eq!(run.lines().len(), 5, "{:?}", run.lines());
    run.rows(2).are("PORT", &[80, 81]);
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let at = net.v4(4242);
    let _first = server.bind_with("tcp4", at, "").expect("it is free");
    let run = start(case, "--json -E", &net, &server);
    assert!(server.bind_with("tcp4", at, "1:15:1").is_err());
    let rows = run.rows(1);
    rows[0].is("pid", server.pid()).is("tid", server.pid()).is("comm", "server").is("uid", 0);
    rows[0].is("ip", 4).is("protocol", 6).is("prot", "TCP").is("addr", at.ip()).is("port", 4242);
    rows[0].is("asked_addr", at.ip()).is("asked_port", 4242).is("errno", "EADDRINUSE").is("ifindex", 0);
    rows[0].is("freebind", false).is("transparent", false).is("no_port", false);
    rows[0].is("reuseaddr", false).is("reuseport", true);
    run.finish();
}

fn binds_are_counted_by_address_and_port(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = case.launch(&format!("-p {} --count", server.pid())).start(&net);
    for (port, count) in [(80, 1), (81, 3), (82, 2)] {
        for _ in 0..count {
            server.bind_with("udp4", net.v4(port), "").expect("it is free").close();
        }
    }
    let ended = run.finish();
    let ip = net.v4(1).ip().to_string();
    let mut wanted = vec![String::new(), format!("{:<32} {:>20}     {:<10}", "LADDR", "LPORT", "BINDS")];
    for (port, count) in [(81, 3), (82, 2), (80, 1)] {
        wanted.push(format!("{ip:<32} {port:>20}     {count:<10}"));
    }
    assert_eq!(ended.stdout[ended.stdout.len() - wanted.len()..], wanted);
}

fn seen_and_filtered_are_all(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = start(case, &format!("-P 81,{END_PORT}"), &net, &server);
    // Prime, and as many of another port, which are filtered.
    let count = 503;
    server.listens(net.v4(81), count);
    server.listens(net.v4(82), count);
    run.settle();
    // Banner, header and the end.
    assert_eq!(run.lines().len(), count + 3);
    run.finish();
}
