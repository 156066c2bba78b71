//! tcpretrans: which segments are rows, what the rows say, and what is counted.
//!
//! Each check is a sentence that the tool keeps. Packets are dropped on their way in, after they were sent; on their way
//! out, where the sender learns of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Listener};
use netbcc_tests::raw::program;
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{Launch, PATIENCE, Run, programs_of};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] =
    checks![the_headers_are_exactly_these, the_first_choice_is_the_tracepoint, an_empty_count_is_a_header];

pub(crate) const CHECKS: &[Check] = checks![
    lost_data_is_probed_for_and_sent_again_with_the_same_number,
    a_probe_with_new_data_is_no_retransmission,
    lost_syns_are_sent_again_and_lost_syn_acks_are_no_rows,
    the_count_is_the_number_of_rows,
    segments_are_what_the_kernel_counts,
    what_the_host_refuses_is_no_row_and_failed_shows_it,
    a_syn_ack_that_no_client_completes_is_a_row_where_asked_for,
    a_syn_ack_that_the_host_refuses_is_a_failed_one_where_that_is_seen,
];

const BANNER: &str = "Tracing retransmits ... Hit Ctrl-C to end";
const HEADER: &str = "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE";

/// What the rungs that hang on functions do not see.
const NOT_BY_PROBES: &str = "loss probe";

/// Drops what comes in for this rule.
fn drop_in(net: &Net, rule: &str) {
    net.near().nft(&format!(
        "add chain inet probe in {{ type filter hook input priority 0; }}\nadd rule inet probe in {rule} drop\n"
    ));
}

/// Rows of this type, or of all types.
fn of<'r>(rows: &'r Rows, kind: &str) -> Vec<&'r Row> {
    rows.iter().filter(|row| row.get("T>") == format!("{kind}>")).collect()
}

/// Waits for this many rows.
fn await_rows(run: &Run<'_>, count: usize) -> Rows {
    run.arrival(count);
    run.so_far()
}

/// Ends connections whose last packets would be sent again for minutes, as rows of whoever counts them then.
fn forget<'c>(conns: impl IntoIterator<Item = Conn<'c>>) {
    conns.into_iter().for_each(Conn::abort);
}

/// The time between two rows of `--json`.
fn between(first: &Row, second: &Row) -> Duration {
    let ns = |row: &Row| row.get("ts_ns").parse::<u64>().expect("a number");
    Duration::from_nanos(ns(second) - ns(first))
}

/// Shorter than any retransmission timeout (200 ms at least), longer than a probe takes.
const INSTANT: Duration = Duration::from_millis(100);

fn lost_data_is_probed_for_and_sent_again_with_the_same_number(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let (text, json) = (case.launch("-ls").start(&net), case.launch("-l --json").start(&net));
    let near = client.connect(web.address());
    let far = web.accept();
    drop_in(&net, "tcp dport 80");
    let wire = wire(&net);
    near.send(100);
    // What nobody acknowledges goes on to be sent again, later and later.
    let rows = await_rows(&text, 3).first(3);
    assert_eq!(text.header(), format!("{HEADER}        SEQ       "));
    rows.are("LADDR:LPORT", &[near.local(); 3]).are("RADDR:RPORT", &[web.address(); 3]);
    rows.are("IP", &[4; 3]).are("STATE", &["ESTABLISHED"; 3]).are("T>", &["L>", "R>", "R>"]);
    let number = rows[1].get("SEQ");
    rows.are("SEQ", &["0", number, number]);
    let sent = data_to(&wire, 80);
    rows[1]
        .must(sent.iter().any(|number| number.to_string() == rows[1].get("SEQ")), format!("one of {sent:?}"));
    let row = &rows[1];
    row.must(row.number("SEQ") > 0.0, "a sequence number");
    row.reads(&format!(
        "{:<8} {:<7} 4  {:<20} R> {:<20} ESTABLISHED  {number}",
        row.get("TIME"),
        row.get("PID"),
        near.local().to_string(),
        web.address().to_string(),
    ));
    // The probe is sent at once, and the rest by the timer.
    let rows = await_rows(&json, 3).first(3);
    rows.are("type", &["L", "R", "R"]).are("lport", &[near.local().port(); 3]).are("rport", &[80; 3]);
    rows.are("laddr", &[near.local().ip(); 3]).are("raddr", &[web.address().ip(); 3]);
    rows.are("seq", &["null", number, number]).are("state", &["ESTABLISHED"; 3]);
    rows.are("segments", &["null", "1", "1"]);
    // Only the tracepoint sees the segment that the probe itself sends again; the tool says so.
    let at_once = between(&rows[0], &rows[1]) < INSTANT;
    rows[1].must(at_once == (case.rung == Rung::Tracepoint), "the probe is sent");
    rows[2].must(between(&rows[1], &rows[2]) > INSTANT, "a timeout");
    let told = text.finish().stderr;
    assert_eq!(told.contains(NOT_BY_PROBES), case.rung != Rung::Tracepoint, "{told}");
    json.finish();
    forget([near, far]);
}

fn a_probe_with_new_data_is_no_retransmission(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("-l --json").start(&net);
    let near = client.connect(web.address());
    let far = web.accept();
    drop_in(&net, "tcp dport 80");
    near.send(10);
    // Nagle holds it back: the first is not acknowledged.
    near.send(10);
    let rows = await_rows(&run, 2).first(2);
    rows.are("type", &["L", "R"]);
    rows[1].must(between(&rows[0], &rows[1]) > INSTANT, "the probe carried new data");
    run.finish();
    forget([near, far]);
}

fn lost_syns_are_sent_again_and_lost_syn_acks_are_no_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let deaf = server.listen(net.v4(82));
    drop_in(&net, "tcp dport 81");
    drop_in(&net, "tcp sport 82");
    let runs = ["-s", "-4", "-6"].map(|options| case.launch(options).start(&net));
    let mut targets = vec![(4, net.v4_of(2, 81)), (4, deaf.address())];
    if has_ipv6() {
        targets.extend([(6, net.v6_of(2, 81)), (6, Net::mapped(net.v4_of(3, 81)))]);
    }
    let opened: Vec<_> =
        targets.iter().map(|(_, to)| client.connect_as(*to, &How::plain().nonblocking())).collect();
    for (run, wanted) in runs.iter().zip([&[4, 6][..], &[4], &[6]]) {
        let wanted = || targets.iter().filter(|(ip, _)| wanted.contains(ip));
        for (_, to) in wanted() {
            let raddr = to.ip().to_string();
            run.wait_for_row("a SYN that is sent again", |row| row.get("RADDR") == raddr);
        }
        let rows = run.so_far();
        for (ip, to) in wanted() {
            let at = opened[targets.iter().position(|(_, other)| other == to).expect("it is one")].local();
            // A socket shows itself again, later.
            let row =
                rows.iter().find(|row| row.get("RADDR") == to.ip().to_string()).expect("a row for each");
            row.is("IP", ip).is("RPORT", if *to == deaf.address() { 82 } else { 81 }).is("STATE", "SYN_SENT");
            row.is("T>", "R>").is("LPORT", at.port()).is("LADDR", at.ip());
        }
        for row in &rows {
            row.must(row.get("LPORT") != "82", "a SYN-ACK is not sent again by a socket");
            row.must(
                wanted().any(|(ip, _)| row.get("IP") == ip.to_string()),
                "the family that was asked for",
            );
        }
    }
    let rows = runs[0].so_far();
    let first = rows[0].get("LPORT");
    let numbers: Vec<_> = rows.iter().filter(|row| row.get("LPORT") == first).map(|r| r.get("SEQ")).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    for run in runs {
        run.finish();
    }
}

fn the_count_is_the_number_of_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    web.serve();
    let (rows, count) = (case.launch("-s").start(&net), case.launch("-c").start(&net));
    let near = client.connect(web.address());
    let local = near.local();
    // More than 200 bytes: data.
    drop_in(&net, "tcp dport 80 meta length > 200 numgen inc mod 10 3");
    near.send(2_000_003);
    near.close();
    web.served(1);
    let told = await_rows(&rows, 2);
    for row in &told {
        row.is("T>", "R>");
        let state = row.get("STATE");
        row.must(
            ["ESTABLISHED", "FIN_WAIT1", "CLOSE_WAIT"].contains(&state),
            "a state in which data is sent",
        );
        row.is("LPORT", local.port()).is("RPORT", 80);
    }
    let (rows, count) = (rows.stop(), count.stop());
    rows.code(0);
    count.code(0);
    let ours = |line: &&String| line.contains(&format!("{local} ")) && line.contains("R>");
    let printed = rows.stdout.iter().filter(ours).count();
    let mut lines = count.stdout.iter();
    assert_eq!(lines.next().map(String::as_str), Some(BANNER));
    assert_eq!(lines.next().map(String::as_str), Some(""));
    let header = "LADDR:LPORT               RADDR:RPORT               RETRANSMITS SEGMENTS";
    assert_eq!(lines.next().map(String::as_str), Some(header));
    let ends = format!("{:<20} <-> {:<20} ", flow_end(local), flow_end(web.address()));
    let counted = lines.find_map(|line| line.strip_prefix(&ends)).expect("the flow");
    let (counted, segments) = counted.split_at(counted.len().min(10));
    assert_eq!(counted.trim(), printed.to_string(), "{:?}", rows.stdout);
    let segments: usize = segments.trim().parse().expect("a number");
    assert!(segments >= printed, "{segments} segments in {printed} packets");
}

fn segments_are_what_the_kernel_counts(case: &Case) {
    for takes_packets_apart in [true, false] {
        let net = Net::new();
        // Not all rungs see what a loss probe sends again.
        net.near().sysctl("ipv4/tcp_early_retrans", "0");
        // A segment of loopback is as large as a packet otherwise.
        net.near()
            .ip(&format!("link set lo mtu 1500 gso_max_segs {}\n", if takes_packets_apart { 40 } else { 1 }));
        let (server, client) = (net.peer("server"), net.peer("client"));
        let web = server.listen(net.v4_of(2, 80));
        web.serve();
        let (rows, count) = (case.launch("--json").start(&net), case.launch("-c --json").start(&net));
        let near = client.connect(web.address());
        drop_in(&net, "tcp dport 80 meta length > 200 numgen inc mod 10 3");
        near.send(400_003);
        near.close();
        web.served(1);
        let packets = await_rows(&rows, 1);
        let wanted = net.retransmissions();
        let (rows, count) = (rows.finish(), count.finish());
        let sum = |lines: &[String], what: &str| -> usize {
            let objects =
                lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let mine = objects.filter(|row| row["raddr"] == web.address().ip().to_string());
            mine.map(|row| usize::try_from(row[what].as_u64().expect("a number")).expect("fits")).sum()
        };
        assert_eq!(sum(&rows.stdout, "segments"), wanted, "{:?}", rows.stdout);
        assert_eq!(sum(&count.stdout, "segments"), wanted, "{:?}", count.stdout);
        let calls = sum(&count.stdout, "retransmits");
        // What is lost is a whole packet, and loopback's have 40 segments.
        if takes_packets_apart {
            assert!(calls < wanted, "{calls} packets of {wanted} segments");
        } else {
            assert_eq!(calls, wanted);
            // Who is on the CPU: an acknowledgement over loopback comes in a system call of one of the ends, unless the
            // machine is so busy that a thread of the kernel takes it.
            let ends = [client.pid(), server.pid()].map(|pid| format!("\"pid\":{pid},"));
            let is_of_an_end = |line: &&String| ends.iter().any(|pid| line.contains(pid));
            assert!(rows.stdout.iter().any(|line| is_of_an_end(&line)), "{:?}", rows.stdout);
        }
        assert!(!packets.is_empty());
    }
}

fn flow_end(at: SocketAddr) -> String {
    format!("[{}]#{}", at.ip(), at.port())
}

fn what_the_host_refuses_is_no_row_and_failed_shows_it(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let (plain, failed) = (case.launch("-s").start(&net), Launch::new("tcpretrans", "--failed").start(&net));
    let near = client.connect(web.address());
    let far = web.accept();
    drop_in(&net, "tcp dport 80");
    near.send(100);
    net.near().nft(
        "add chain inet probe out { type filter hook output priority 0; }\nadd rule inet probe out tcp dport 80 drop\n",
    );
    let mut count = 1;
    let refused = loop {
        let rows = await_rows(&failed, count);
        if let Some(row) = of(&rows, "F").get(1) {
            break (*row).clone();
        }
        count = rows.len() + 1;
    };
    refused.is("ERROR", "EPERM").is("STATE", "ESTABLISHED").is("LPORT", near.local().port());
    // What was refused twice is no row at all. One of them may not see what the probe sent again.
    let (plain, failed) = (plain.stop(), failed.stop());
    let rows = |lines: &[String], kind: &str| {
        lines.iter().filter(|line| line.contains(&near.local().to_string()) && line.contains(kind)).count()
    };
    if case.rung == Rung::Kprobe {
        plain.code(0);
        assert!(plain.stderr.contains("attempts that fail on this host are rows"), "{}", plain.stderr);
    } else {
        let (plain, failed) = (rows(&plain.stdout, "R>"), rows(&failed.stdout, "R>"));
        assert!(plain.abs_diff(failed) <= 1, "{plain} retransmits and {failed}");
    }
    assert_eq!(rows(&plain.stdout, "F>"), 0);
    forget([near, far]);
}

/// A socket that hears every TCP packet of IPv4 that comes in, before its connection does.
fn ear(net: &Net) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    net.near()
        .enter(|| socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Tcp))
        .expect("we are root")
}

/// A socket that hears all of IPv4 that comes in, before the firewall does.
fn wire(net: &Net) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    net.near()
        .enter(|| socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll))
        .expect("we are root")
}

/// The sequence numbers of the segments with data to this port that it heard.
fn data_to(wire: &OwnedFd, port: u16) -> Vec<u32> {
    let mut heard = Vec::new();
    let mut packet = [0; 256];
    while let Ok(bytes) = recv(wire.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        let bytes = bytes.min(packet.len());
        let (begins, is_tcp) = (usize::from(packet[0] & 15) * 4, packet[9] == 6);
        if packet[0] >> 4 != 4 || !is_tcp || bytes < begins + 20 {
            continue;
        }
        let tcp = &packet[begins..bytes];
        let has_data = tcp.len() > usize::from(tcp[12] >> 4) * 4;
        if has_data && u16::from_be_bytes([tcp[2], tcp[3]]) == port {
            heard.push(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]));
        }
    }
    heard
}

/// The SYN-ACKs of the ports of the check below, when it heard so many, or after a while.
fn hear(ear: &OwnedFd, count: usize) -> Vec<(u16, u16, u32)> {
    let deadline = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    loop {
        heard.extend(syn_acks(ear).into_iter().filter(|(from, ..)| (82..=85).contains(from)));
        let left = deadline.saturating_duration_since(Instant::now());
        if heard.len() >= count || left.is_zero() {
            return heard;
        }
        let patience = PollTimeout::try_from(left).expect("seconds");
        poll(&mut [PollFd::new(ear.as_fd(), PollFlags::POLLIN)], patience).expect("it is a socket");
    }
}

/// The SYN-ACKs that it heard: from this port, to that port, with this sequence number.
fn syn_acks(ear: &OwnedFd) -> Vec<(u16, u16, u32)> {
    /// SYN and ACK, of the byte with the flags.
    const BOTH: u8 = 0x12;
    let mut heard = Vec::new();
    let mut packet = [0; 256];
    while let Ok(bytes) = recv(ear.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        let tcp = &packet[usize::from(packet[0] & 15) * 4..bytes.min(packet.len())];
        if tcp[13] & BOTH == BOTH {
            let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
            heard.push((port(0), port(2), u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])));
        }
    }
    heard
}

fn a_syn_ack_that_no_client_completes_is_a_row_where_asked_for(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    // The SYN is let in, and nothing that comes after it.
    drop_in(&net, "tcp dport 82-85 tcp flags & ack == ack");
    let mut targets = vec![(4, server.listen(net.v4_of(2, 82)))];
    targets.extend(server.listen_mptcp(net.v4_of(3, 83)).map(|listener| (4, listener)));
    if has_ipv6() {
        targets.push((6, server.listen(net.v6_of(2, 84))));
        targets.push((6, server.listen(([0_u16; 8], 85).into())));
    }
    let [rows, v4, v6, plain, count] =
        ["--synack -s", "--synack --json -4", "--synack --json -6", "--json", "--synack -c --json"]
            .map(|options| case.launch(options).start(&net));
    // Where the kernel may skip one, there are two of each.
    let programs = |run: &Run<'_>| {
        let names = programs_of(run.pid()).into_iter().map(|id| program(id).expect("it holds it").name);
        names.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(programs(&rows), programs(&plain) + 1);
    let ear = ear(&net);
    let opened: Vec<_> = targets
        .iter()
        .map(|(ip, listener)| {
            let (at, how) = (listener.address(), How::plain().nonblocking());
            match at.port() {
                // A listener of both families shows a client of IPv4 in IPv6's form.
                85 => (*ip, Net::mapped(net.v4_of(3, 85)), client.connect_as(net.v4_of(3, 85), &how)),
                83 => (*ip, at, client.connect_as(at, &how.mptcp())),
                _ => (*ip, at, client.connect_as(at, &how)),
            }
        })
        .collect();
    for (_, at, _) in &opened {
        let is_one = |row: &Row| row.get("LPORT") == at.port().to_string();
        rows.wait_for_row("a SYN-ACK that is sent again", is_one);
    }
    // Requests end with their listener.
    for (_, listener) in targets {
        listener.close();
    }
    let sent_again = net.retransmissions();
    let told = await_rows(&rows, sent_again);
    // A row leaves before its packet arrives. The ear hears no IPv6, which is all of port 84.
    let audible = |port: &str| port != "84";
    let firsts = opened.iter().filter(|(_, at, _)| audible(&at.port().to_string())).count();
    let again = told.iter().filter(|row| audible(row.get("LPORT"))).count();
    let heard = hear(&ear, firsts + again);
    for (ip, at, conn) in &opened {
        let mine: Vec<_> = told.iter().filter(|row| row.get("LPORT") == at.port().to_string()).collect();
        let (near, far) = match at {
            SocketAddr::V6(_) if at.port() == 85 => (*at, Net::mapped(conn.local())),
            _ => (*at, conn.local()),
        };
        for row in &mine {
            row.is("IP", ip).is("T>", "S>").is("STATE", "SYN_RECV").is("LADDR", near.ip());
            row.is("RADDR", far.ip()).is("RPORT", far.port());
        }
        // The first one that was heard was sent for the first time.
        let heard: Vec<_> =
            heard.iter().filter(|(from, to, _)| (*from, *to) == (near.port(), far.port())).collect();
        if near.port() != 84 {
            assert_eq!(heard.len(), mine.len() + 1, "{heard:?} {mine:#?}");
            mine.iter().zip(&heard[1..]).for_each(|(row, (_, _, number))| {
                row.is("SEQ", number);
            });
        }
    }
    let ends: Vec<_> = opened.iter().map(|(_, at, _)| (at.ip().to_string(), at.port())).collect();
    forget(opened.into_iter().map(|(_, _, conn)| conn));
    assert_eq!(told.len(), sent_again, "the kernel counts as many");
    rows.finish();
    let objects = |ended: &[String]| -> Vec<serde_json::Value> {
        let ours = |row: &serde_json::Value| {
            ends.iter().any(|(at, port)| row["laddr"] == *at && row["lport"] == *port)
        };
        ended.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(ours).collect()
    };
    assert_eq!(objects(&plain.finish().stdout), [] as [serde_json::Value; 0]);
    let (v4, v6) = (objects(&v4.finish().stdout), objects(&v6.finish().stdout));
    assert_eq!(v4.len() + v6.len(), sent_again);
    for (rows, ip) in [(&v4, 4), (&v6, 6)] {
        for row in rows {
            assert!(row["ip"] == ip && row["type"] == "S" && row["segments"] == 1, "{row}");
        }
    }
    let flows = objects(&count.finish().stdout);
    let sum = |what: &str| flows.iter().map(|flow| flow[what].as_u64().expect("a number")).sum::<u64>();
    let sent_again = u64::try_from(sent_again).expect("fits");
    assert_eq!((sum("retransmits"), sum("segments")), (sent_again, sent_again), "{flows:?}");
}

fn a_syn_ack_that_the_host_refuses_is_a_failed_one_where_that_is_seen(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    drop_in(&net, "tcp dport 82-83 tcp flags & ack == ack");
    // The first one is let out.
    net.near().nft(
        "add chain inet probe out { type filter hook output priority 0; }\n\
         add rule inet probe out tcp sport 82 numgen inc mod 1000000 != 0 drop\n",
    );
    let listeners = [82, 83].map(|port| server.listen(net.v4_of(2, port)));
    let (plain, failed) =
        (case.launch("--synack").start(&net), Launch::new("tcpretrans", "--synack --failed -s").start(&net));
    let is_less_exact = failed.said().contains("refuses to send is not seen");
    let refused = client.connect(listeners[0].address());
    // Its turn comes later.
    let sent = client.connect(listeners[1].address());
    for run in [&plain, &failed] {
        run.wait_for_row("the SYN-ACK that is sent", |row| row.get("LPORT") == "83");
    }
    // Two processors may see to both timers.
    if !is_less_exact {
        failed.wait_for_row("the SYN-ACK that is refused", |row| row.get("LPORT") == "82");
    }
    if case.rung == Rung::Kprobe {
        plain.wait_for_row("the SYN-ACK that is refused", |row| row.get("LPORT") == "82");
    }
    let of_port = |run: &Run<'_>, port: &str| -> Vec<Row> {
        run.so_far().iter().filter(|row| row.get("LPORT") == port).cloned().collect()
    };
    for row in of_port(&failed, "83") {
        row.is("T>", "S>").is("ERROR", "-").is("RPORT", sent.local().port());
    }
    let attempts = of_port(&failed, "82");
    assert_eq!(attempts.is_empty(), is_less_exact, "{attempts:#?}");
    for row in attempts {
        row.is("T>", "F>").is("ERROR", "EPERM").is("STATE", "SYN_RECV").is("RPORT", refused.local().port());
    }
    // Only a breakpoint at the entry takes it for one that was sent, and says so.
    assert_eq!(of_port(&plain, "82").is_empty(), case.rung != Rung::Kprobe);
    let said = plain.said();
    assert_eq!(said.contains("refuses to send is a row, too"), case.rung == Rung::Kprobe, "{said}");
    listeners.into_iter().for_each(Listener::close);
    forget([refused, sent]);
    plain.finish();
    failed.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let sequence = format!("{HEADER}        SEQ       ");
    for (options, header) in
        [("", HEADER), ("-s", &sequence), ("-l", HEADER), ("--failed", &format!("{HEADER}        ERROR"))]
    {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), *header, "{options}");
        assert_eq!(run.lines()[0], BANNER);
        run.finish();
    }
}

fn the_first_choice_is_the_tracepoint(case: &Case) {
    let net = Net::new();
    let ended = case.launch("-v").start(&net).finish();
    assert!(ended.stderr.contains("retransmits: attached by tracepoint"), "{}", ended.stderr);
}

fn an_empty_count_is_a_header(case: &Case) {
    let net = Net::new();
    let run = case.launch("-c -6").start(&net);
    let ended = run.finish();
    assert_eq!(ended.stdout[1], "");
    assert!(ended.stdout[2].starts_with("LADDR:LPORT "), "{:?}", ended.stdout);
}
