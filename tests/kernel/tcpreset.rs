//! tcpreset: which resets are rows, whose they are, what the rows say, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps. Both ends of each connection are here, so each reset that is taken is two rows.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use netbcc::sys::btf::{self, Wanted};
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Peer};
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{PATIENCE, Run};
use nix::errno::Errno;
use nix::libc::{IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, send, sendto, socket,
};

use crate::owner::makes_cookies;

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    json_rows_carry_every_value,
    resets_are_counted_by_the_service_s_port,
    what_one_interval_is_full_of_takes_no_room_from_the_next,
];

pub(crate) const CHECKS: &[Check] = checks![
    a_refused_connect_is_two_rows_of_exactly_these_bytes,
    a_close_with_unread_data_is_a_reset_of_the_owner_s,
    a_reset_by_so_linger_and_by_leaving_have_their_words,
    a_connection_that_nobody_accepted_is_the_listener_s,
    data_after_close_finds_a_socket_in_time_wait,
    ipv6_and_mapped_addresses_go_by_the_socket,
    filters_keep_exactly_their_rows,
    a_fin_is_no_byte_that_was_lost,
    older_sockets_have_an_owner_and_no_age,
    what_no_socket_takes_or_sends_is_a_row_with_all,
    what_is_ended_from_outside_or_by_its_timer_has_its_words,
];

/// Whether the kernel says why it sends a reset (since 6.10).
fn gives_reasons() -> bool {
    let wanted = Wanted { enums: vec!["sk_rst_reason".into()], ..Wanted::default() };
    !btf::read(&wanted).expect("the kernel has BTF").members_of("sk_rst_reason").is_empty()
}

/// Whether answers for no socket and for one in TIME_WAIT are known by their packets only.
fn guesses(case: &Case) -> bool {
    !gives_reasons() && case.rung == Rung::Tracepoint
}

/// The kernel's word with ours, or the deduced one.
fn word(of_kernel: &'static str, deduced: &'static str) -> &'static str {
    if gives_reasons() { of_kernel } else { deduced }
}

/// Starts the tool. A connect to where nobody listens ends its rows, which are two where both ends of it are seen.
fn start<'n>(case: &Case, options: &str, net: &'n Net) -> Run<'n> {
    let is_one = ["--sent", "--received"].iter().any(|one| options.contains(one));
    case.launch(options).start(net).end_rows(if is_one { 1 } else { 2 })
}

/// The one row with this arrow and local port.
fn of<'r>(rows: &'r Rows, arrow: &str, lport: u16) -> &'r Row {
    let lport = lport.to_string();
    let found: Vec<&Row> =
        rows.iter().filter(|row| row.get("R") == arrow && row.get("LPORT") == lport).collect();
    match found[..] {
        [row] => row,
        _ => rows.fail(format!("{} rows {arrow} of port {lport}", found.len())),
    }
}

fn reads(row: &Row, expected: &str) {
    row.must(row.line.get(9..) == Some(expected), format!("{expected:?}"));
}

fn pair<'a, 'w>(client: &'a Peer, server: &'w Peer, to: SocketAddr) -> (Conn<'a>, Conn<'w>) {
    let web = server.listen(to);
    let near = client.connect(to);
    let far = web.accept();
    web.close();
    (near, far)
}

/// Waits until all that was sent is acknowledged.
fn await_acknowledged(conn: &Conn<'_>) {
    /// `tcpi_unacked` (include/uapi/linux/tcp.h).
    const UNACKED: usize = 24;
    conn.await_info("nothing unacknowledged", |info| info.u32(UNACKED) == 0);
}

fn the_headers_are_exactly_these(case: &Case) {
    let net = Net::new();
    for (options, header) in [
        (
            "",
            "TIME     PID     COMM         IP LADDR            LPORT R  RADDR            RPORT STATE        REASON",
        ),
        (
            "-t",
            "TIME(s)   PID     COMM         IP LADDR            LPORT R  RADDR            RPORT STATE        REASON",
        ),
    ] {
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), header);
        run.stop().code(0);
    }
    let ended = case.launch("-c").start(&net).stop();
    assert_eq!(
        ended.stdout[0],
        "PID     COMM         R  RADDR            PORT  STATE        REASON                          COUNT"
    );
}

fn a_refused_connect_is_two_rows_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net);
    let (from, to) = (net.v4(5001), net.v4_of(2, 80));
    client.fails(to, &How::plain().bound(from), "ECONNREFUSED");
    let rows = run.rows(2);
    let owner = format!("{:<7} {:<12}", client.pid(), "client");
    let near = of(&rows, "<R", 5001);
    let ends = format!("4  {:<16} 5001  <R {:<16} 80    ", from.ip().to_string(), to.ip().to_string());
    reads(near, &format!("{owner} {ends}SYN_SENT     REFUSED"));
    let far = of(&rows, "R>", 80);
    let ends = format!("4  {:<16} 80    R> {:<16} 5001  ", to.ip().to_string(), from.ip().to_string());
    reads(far, &format!("0       {:<12} {ends}-            {}", "", word("NO_SOCKET", "no-socket")));
    run.finish();
}

fn a_close_with_unread_data_is_a_reset_of_the_owner_s(case: &Case) {
    let net = Net::new();
    let (client, server, dying) = (net.peer("client"), net.peer("server"), net.peer("dying"));
    let run = start(case, "", &net);
    let (near, far) = pair(&client, &server, net.v4_of(2, 80));
    let (second, left) = pair(&client, &dying, net.v4_of(2, 81));
    for (conn, other) in [(&near, &far), (&second, &left)] {
        conn.send(7);
        other.await_data();
        await_acknowledged(conn);
    }
    far.close();
    let dying_pid = dying.pid();
    dying.kill();
    let rows = run.rows(4);
    for (port, pid, name, conn) in [(80, server.pid(), "server", &near), (81, dying_pid, "dying", &second)] {
        let sent = of(&rows, "R>", port);
        sent.is("PID", pid).is("COMM", name).is("STATE", "ESTABLISHED").is("RPORT", conn.local().port());
        sent.is("REASON", word("TCP_ABORT_ON_CLOSE", "abort-on-close"));
        let taken = of(&rows, "<R", conn.local().port());
        taken.is("PID", client.pid()).is("COMM", "client").is("STATE", "ESTABLISHED").is("REASON", "RESET");
        taken.is("RPORT", port);
    }
    run.finish();
}

fn a_reset_by_so_linger_and_by_leaving_have_their_words(case: &Case) {
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let elsewhere = server.listen(net.v4_of(2, 82));
    let run = start(case, "", &net);
    let (near, _far) = pair(&client, &server, net.v4_of(2, 80));
    let (leaving, _left) = pair(&client, &server, net.v4_of(2, 81));
    let (near_port, leaving_port) = (near.local().port(), leaving.local().port());
    near.abort();
    leaving.connect_elsewhere(elsewhere.address());
    let rows = run.rows(4);
    for (port, remote, reason) in [
        (near_port, 80, word("TCP_STATE [linger 0]", "linger-0")),
        (leaving_port, 81, word("TCP_STATE [AF_UNSPEC]", "af-unspec")),
    ] {
        let sent = of(&rows, "R>", port);
        sent.is("PID", client.pid()).is("STATE", "ESTABLISHED").is("RPORT", remote).is("REASON", reason);
        of(&rows, "<R", remote).is("PID", server.pid()).is("RPORT", port).is("REASON", "RESET");
    }
    run.finish();
}

fn a_connection_that_nobody_accepted_is_the_listener_s(case: &Case) {
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let run = start(case, "", &net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    web.close();
    let rows = run.rows(2);
    let sent = of(&rows, "R>", 80);
    sent.is("STATE", "ESTABLISHED").is("REASON", word("TCP_STATE [never accepted]", "never-accepted"));
    // Where owners are kept by addresses, nothing tells what a connection inherits.
    sent.is("PID", if case.rung == Rung::Kprobe { 0 } else { server.pid() });
    of(&rows, "<R", near.local().port()).is("PID", client.pid()).is("REASON", "RESET");
    run.finish();
}

fn data_after_close_finds_a_socket_in_time_wait(case: &Case) {
    /// `TCP_FIN_WAIT2` (include/net/tcp_states.h), in `tcpi_state`.
    const FIN_WAIT2: u8 = 5;
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let run = start(case, "", &net);
    let (near, far) = pair(&client, &server, net.v4_of(2, 80));
    let port = near.local().port();
    // Data that acknowledges the FIN would find the whole socket.
    near.finish_sending();
    near.await_info("FIN_WAIT2", |info| info.u8(0) == FIN_WAIT2);
    near.close();
    far.await_end();
    far.send(11);
    let rows = run.rows(2);
    let taken = of(&rows, "<R", 80);
    taken.is("PID", server.pid()).is("STATE", "CLOSE_WAIT").is("REASON", "AFTER_FIN [unacked 11]");
    let sent = of(&rows, "R>", port);
    if guesses(case) {
        sent.is("STATE", "-").is("PID", 0).is("REASON", "no-socket").is("RPORT", 80);
    } else {
        sent.is("STATE", "TIME_WAIT").is("REASON", word("TCP_TIMEWAIT_SOCKET", "time-wait")).is("RPORT", 80);
        // Before 5.12 no program makes a cookie, by which its owner is known.
        let known = gives_reasons() || sent.get("PID") != "0";
        sent.is("PID", if known { client.pid() } else { 0 });
    }
    run.finish();
}

fn ipv6_and_mapped_addresses_go_by_the_socket(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let client = net.peer("client");
    let all = start(case, "-w", &net);
    let v4 = start(case, "-4", &net);
    let (to, mapped) = (net.v6_of(2, 80), Net::mapped(net.v4_of(2, 81)));
    client.refused(to);
    client.refused(mapped);
    let rows = all.rows(4);
    let by_remote = |port| rows.iter().find(|row| row.get("R") == "<R" && row.get("RPORT") == port);
    by_remote("80").expect("a row").is("IP", 6).is("RADDR", to.ip());
    by_remote("81").expect("a row").is("IP", 6).is("RADDR", mapped.ip()).is("PID", client.pid());
    of(&rows, "R>", 80).is("IP", 6).is("LADDR", to.ip());
    // Without a socket it is the packet's.
    of(&rows, "R>", 81).is("IP", 4);
    v4.rows(1)[0].is("LPORT", 81).is("R", "R>");
    all.finish();
    v4.finish();
}

fn filters_keep_exactly_their_rows(case: &Case) {
    let net = Net::new();
    let (client, other) = (net.peer("client"), net.peer("other"));
    let of_client = case.launch(&format!("-p {}", client.pid())).start(&net).ended_by(|| {
        client.refused(net.v4(END_PORT));
    });
    let by_remote = start(case, &format!("-P 80,{END_PORT} --received"), &net);
    let by_local = start(case, &format!("-L 80,{END_PORT} --sent"), &net);
    for (peer, port) in [(&client, 80), (&other, 80), (&client, 81)] {
        peer.refused(net.v4_of(2, port));
    }
    let rows = of_client.rows(2);
    rows.are("RPORT", &[80, 81]).are("PID", &[client.pid(); 2]).are("R", &["<R"; 2]);
    by_remote.rows(2).are("PID", &[client.pid(), other.pid()]).are("R", &["<R"; 2]);
    by_local.rows(2).are("LPORT", &[80; 2]).are("PID", &[0; 2]).are("R", &["R>"; 2]);
    by_local.finish();
    of_client.finish();
    by_remote.finish();
}

/// Sends a segment with these TCP flags and this sequence number from the near namespace, as a program that makes its own packets.
fn send_segment(net: &Net, from: SocketAddr, to: SocketAddr, flags: u8, sequence: u32) {
    /// The number of the protocol.
    const TCP: u8 = 6;
    let (IpAddr::V4(near), IpAddr::V4(far)) = (from.ip(), to.ip()) else { unreachable!("it is IPv4") };
    let addresses = [near.octets(), far.octets()].concat();
    let ports = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    let mut tcp = [&ports[..], &sequence.to_be_bytes(), &[0; 4], &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat();
    let summed = [&addresses[..], &[0, TCP, 0, 20], &tcp].concat();
    let mut sum: u32 = summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    let header = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, TCP, 0, 0];
    let packet = [&header[..], &addresses, &tcp].concat();
    let raw = net
        .near()
        .enter(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw))
        .expect("we are root");
    // The kernel fills in the length and the checksum of the IP header.
    let sent = sendto(raw.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty());
    assert_eq!(sent, Ok(packet.len()));
}

fn what_no_socket_takes_or_sends_is_a_row_with_all(case: &Case) {
    const RST: u8 = 4;
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 83 reject with tcp reset\n",
    );
    let _web = server.listen(net.v4_of(2, 81));
    let (near, _far) = pair(&client, &server, net.v4_of(2, 82));
    let all = start(case, "--all", &net);
    let taken = start(case, "--all --received", &net);
    let usual = start(case, "", &net);
    // To a closed port, to a listener, and out of the window.
    for (from, port) in [(net.v4(5001), 80), (net.v4(5001), 81), (near.local(), 82)] {
        send_segment(&net, from, net.v4_of(2, port), RST, 7);
    }
    client.refused(net.v4_of(2, 83));
    let rows = all.rows(8);
    for port in [80, 81, 82] {
        let ignored = of(&rows, "<R", port);
        ignored.is("PID", 0).is("COMM", "").is("STATE", "-").is("REASON", "IGNORED");
        let remote = if port == 82 { near.local().port() } else { 5001 };
        ignored.is("RPORT", remote);
        let made = rows.iter().filter(|row| row.get("R") == "R>" && row.get("RPORT") == port.to_string());
        let [made] = made.collect::<Vec<_>>()[..] else { rows.fail(format!("of port {port}")) };
        made.is("PID", 0).is("STATE", "-").is("REASON", "RAW").is("LPORT", remote);
    }
    of(&rows, "R>", 83).is("PID", 0).is("STATE", "-").is("REASON", "FIREWALL");
    let refused = rows.iter().find(|row| row.get("RPORT") == "83" && row.get("R") == "<R");
    refused.expect("a row").is("REASON", "REFUSED").is("PID", client.pid());
    taken.rows(4).are("R", &["<R"; 4]);
    usual.rows(1)[0].is("REASON", "REFUSED").is("RPORT", 83);
    for run in [all, taken, usual] {
        run.finish();
    }
}

/// Ends the connection with these ends as `ss -K` does; skips the check where the kernel cannot.
fn destroy(net: &Net, local: SocketAddr, remote: SocketAddr) {
    /// `SOCK_DESTROY`, `NLM_F_REQUEST | NLM_F_ACK`, `AF_INET`, `IPPROTO_TCP` (include/uapi/linux).
    const DESTROY: u16 = 21;
    const FLAGS: u16 = 5;
    const INET: u8 = 2;
    const TCP: u8 = 6;
    const BYTES: u32 = 16 + 56;
    let address = |at: SocketAddr| {
        let IpAddr::V4(ip) = at.ip() else { unreachable!("it is IPv4") };
        [&ip.octets()[..], &[0; 12]].concat()
    };
    let message = [
        &BYTES.to_ne_bytes()[..],
        &DESTROY.to_ne_bytes(),
        &FLAGS.to_ne_bytes(),
        &[0; 8],
        // Any state.
        &[INET, TCP, 0, 0, 255, 255, 255, 255],
        &local.port().to_be_bytes(),
        &remote.port().to_be_bytes(),
        &address(local),
        &address(remote),
        &[0; 4],
        // Any cookie.
        &[255; 8],
    ]
    .concat();
    let diag = net
        .near()
        .enter(|| {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkSockDiag,
            )
        })
        .expect("there are network sockets");
    assert_eq!(send(diag.as_raw_fd(), &message, MsgFlags::empty()), Ok(message.len()));
    let mut answer = [0; 128];
    let bytes = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    assert!(bytes >= 20, "{bytes} bytes");
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => {}
        error if -error == Errno::EOPNOTSUPP as i32 => skip("ss -K"),
        error => panic!("{}", Errno::from_raw(-error)),
    }
}

fn what_is_ended_from_outside_or_by_its_timer_has_its_words(case: &Case) {
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let run = start(case, "", &net);
    let (near, far) = pair(&client, &server, net.v4_of(2, 80));
    destroy(&net, near.local(), far.local());
    let (probing, _silent) = pair(&client, &server, net.v4_of(2, 81));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 81 drop\n",
    );
    for (name, value) in [(TCP_KEEPIDLE, 1), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 1)] {
        probing.set(IPPROTO_TCP, name, value);
    }
    probing.set(SOL_SOCKET, SO_KEEPALIVE, 1);
    let rows = run.rows(3);
    for (conn, reason) in [
        (&near, word("TCP_STATE [ss -K]", "aborted")),
        (&probing, word("TCP_KEEPALIVE_TIMEOUT", "keepalive")),
    ] {
        let sent = of(&rows, "R>", conn.local().port());
        sent.is("PID", client.pid()).is("COMM", "client").is("STATE", "ESTABLISHED").is("REASON", reason);
    }
    of(&rows, "<R", 80).is("PID", server.pid()).is("REASON", "RESET");
    run.finish();
}

fn a_fin_is_no_byte_that_was_lost(case: &Case) {
    const BYTES: usize = 100;
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let run = start(case, "--json", &net);
    let (near, far) = pair(&client, &server, net.v4_of(2, 80));
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 drop\n",
    );
    let port = near.local().port();
    // Neither data nor FIN arrives.
    near.send(BYTES);
    near.close();
    far.abort();
    run.wait_for_row("the reset", |row| row.get("lport") == port.to_string());
    let rows = run.so_far();
    let taken = rows.with("lport", port);
    taken.is("direction", "received").is("state", "FIN_WAIT1").is("pid", client.pid());
    taken.is("unacked", BYTES).is("unsent", 0).is("unread", 0);
    run.finish();
}

fn older_sockets_have_an_owner_and_no_age(case: &Case) {
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let (near, _far) = pair(&client, &server, net.v4_of(2, 80));
    let run = start(case, "--json", &net);
    near.abort();
    let rows = run.rows(2);
    let sent = rows.with("direction", "sent");
    sent.is("pid", client.pid()).is("comm", "client").is("owner_how", "snapshot").is("age_us", "null");
    let taken = rows.with("direction", "received");
    taken.is("pid", server.pid()).is("comm", "server").is("owner_how", "snapshot").is("age_us", "null");
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let (client, server) = (net.peer("client"), net.peer("server"));
    let run = start(case, "--json", &net);
    let began = Instant::now();
    let (near, far) = pair(&client, &server, net.v4_of(2, 80));
    let opened = Instant::now();
    near.send(13);
    far.await_data();
    await_acknowledged(&near);
    let from = near.local();
    let port = from.port();
    // This pause is what is measured, not a wait for something.
    thread::sleep(Duration::from_millis(150));
    let least = opened.elapsed();
    near.abort();
    let most = began.elapsed();
    let rows = run.rows(2);
    let sent = rows.with("direction", "sent");
    sent.is("pid", client.pid()).is("comm", "client").is("owner_how", "connect").is("cpu_pid", client.pid());
    sent.is("cpu_comm", "client").is("ip", 4).is("laddr", from.ip()).is("lport", port).is("rport", 80);
    sent.is("raddr", net.v4_of(2, 80).ip()).is("state", "ESTABLISHED").is("substate", "null");
    sent.is("unsent", 0).is("unacked", 0).is("unread", 0);
    if gives_reasons() {
        sent.is("reason", "TCP_STATE").is("cause", "linger 0").is("reason_from", "kernel");
    } else {
        sent.is("reason", "null").is("cause", "linger-0").is("reason_from", "deduced");
    }
    let age = Duration::from_secs_f64(sent.number("age_us") / 1e6);
    sent.must(age >= least && age <= most, format!("{least:?} to {most:?}"));
    sent.must(!makes_cookies(case) || sent.get("cookie") != "null", "a cookie");
    sent.must(sent.number("netns") > 0.0, "a namespace");
    let taken = rows.with("direction", "received");
    taken.is("pid", server.pid()).is("reason", "null").is("cause", "RESET").is("reason_from", "state");
    taken.is("unread", 13).is("unacked", 0).is("lport", 80).is("rport", port);
    run.finish();
}

fn what_one_interval_is_full_of_takes_no_room_from_the_next(case: &Case) {
    const NEW: u16 = 7777;
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-c --json -i 1 --x-table-entries 64").start(&net);
    // All of it is one interval.
    run.suspend();
    for port in 1000..1200 {
        client.refused(net.v4_of(2, port));
    }
    run.resume();
    // Others may fill an interval as well, but not each.
    let deadline = Instant::now() + PATIENCE;
    while !run.lines().iter().any(|line| line.contains(&format!("\"port\":{NEW},"))) {
        assert!(Instant::now() < deadline, "no interval had room for a new port: {:?}", run.said());
        client.refused(net.v4_of(2, NEW));
        thread::sleep(Duration::from_millis(50));
    }
    let ended = run.stop();
    ended.code(0);
    assert!(ended.stderr.contains("because a table was full"), "{}", ended.stderr);
}

fn resets_are_counted_by_the_service_s_port(case: &Case) {
    // Prime, so that no other number is it by chance.
    const COUNT: usize = 503;
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-c -P 1-65535").start(&net);
    let json = case.launch("-c --json -i 1").start(&net);
    assert_eq!(client.churn(net.v4_of(2, 80), COUNT, 1), (0, COUNT));
    let is_all = |text: &str| text.matches("\"REFUSED\"").count() > 0;
    let deadline = Instant::now() + PATIENCE;
    while !json.lines().iter().any(|line| is_all(line)) {
        assert!(Instant::now() < deadline, "{:?}", json.lines());
        thread::yield_now();
    }
    let sum = |reason: &str, ended: &[String]| -> u64 {
        let mine = net.v4_of(2, 80).ip().to_string();
        let near = net.v4(1).ip().to_string();
        let rows = ended.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let rows = rows.filter(|row| row["port"] == 80 && (row["raddr"] == mine || row["raddr"] == near));
        rows.filter(|row| row["reason"] == reason).filter_map(|row| row["count"].as_u64()).sum()
    };
    let ended = json.stop();
    assert_eq!(sum("REFUSED", &ended.stdout), COUNT as u64);
    if gives_reasons() {
        assert_eq!(sum("NO_SOCKET", &ended.stdout), COUNT as u64);
    }
    let ended = run.stop();
    let line = format!(
        "{:<7} {:<12} <R {:<16} 80    SYN_SENT     {:<28} {COUNT:>8}",
        client.pid(),
        "client",
        net.v4_of(2, 80).ip().to_string(),
        "REFUSED"
    );
    assert!(ended.stdout.contains(&line), "{line:?}\n{:?}", ended.stdout);
}
