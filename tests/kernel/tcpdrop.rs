//! tcpdrop: which drops are rows, what the rows say, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps. Faults come from nftables, a queueing discipline, socket
//! filters and the sockets themselves; reasons and their numbers are compared with the running kernel's BTF.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use netbcc::sys::btf::{self, Wanted};
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, note, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{How, Peer};
use netbcc_tests::raw::{Memory, drop_received, program};
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{PATIENCE, Run, attached_of, maps_of};
use nix::net::if_::if_nametoindex;

pub(crate) const CHECKS: &[Check] = checks![
    a_row_and_its_stack_are_exactly_these_bytes,
    the_header_is_exactly_these_bytes,
    a_drop_on_the_way_in_is_of_the_socket_that_receives,
    what_does_not_get_to_tcp_has_no_socket_of_an_earlier_packet,
    a_syn_ack_that_is_dropped_shows_the_state_of_the_open,
    a_socket_filter_shows_where_the_kernel_tells_the_socket,
    an_overflowing_accept_queue_shows_the_listener_where_the_kernel_tells_it,
    data_after_the_end_is_a_row,
    what_has_no_reason_is_a_row_with_all,
    what_xdp_drops_is_a_row_with_all,
    a_queue_that_overflows_is_a_row_of_the_sender,
    a_syn_ack_that_is_dropped_on_its_way_out_has_its_ends,
    ipv6_has_its_ends_the_right_way_round,
    families_go_by_the_socket,
    udp_and_closed_ports_are_no_rows,
    packets_without_a_socket_are_rows_on_request,
    connections_that_end_well_give_no_rows,
    namespaces_are_kept_by_number_and_by_process,
    reasons_are_kept_by_name_and_by_number,
    wrong_options_are_refused,
    a_stack_ends_where_an_interrupt_came_in,
    json_rows_carry_every_value,
    copies_of_a_program_have_a_room_each_for_stacks,
    every_row_of_a_flood_has_its_stack: alone,
];

/// What forces the tool to each of its ways by itself.
pub(crate) const WAYS: &[Check] = checks![what_tcp_itself_drops_has_its_socket_by_every_way];

/// Starts the tool. An open to [`END_PORT`] that never leaves ends its rows.
pub(crate) fn start<'n>(case: &Case, options: &str, net: &'n Net, client: &'n Peer) -> Run<'n> {
    on(case.rung, case, options, net, client, net.v4(END_PORT))
}

fn on<'n>(
    rung: Rung,
    case: &Case,
    options: &str,
    net: &'n Net,
    client: &'n Peer,
    end: SocketAddr,
) -> Run<'n> {
    net.near().nft(&format!(
        "add chain inet probe end {{ type filter hook output priority -5; }}\n\
         add rule inet probe end tcp dport {END_PORT} drop\n"
    ));
    case.launch(options)
        .rung(rung)
        .start(net)
        .ended_by(move || client.connect_as(end, &How::plain().nonblocking()).close())
}

/// A rule that drops packets where this hook sees them.
fn drops(hook: &str, what: &str) -> String {
    format!(
        "add chain inet probe {hook} {{ type filter hook {hook} priority 0; }}\n\
         add rule inet probe {hook} {what} drop\n"
    )
}

/// The kernel's reasons, as REASON (CODE) shows them.
fn reason(name: &str) -> String {
    if !gives_reasons() {
        return "- (-)".into();
    }
    code(name).map_or_else(|| skip(format!("the reason {name}")), |code| format!("{name} ({code})"))
}

fn code(name: &str) -> Option<u32> {
    let reasons = reasons();
    let mut reasons = reasons.iter();
    reasons.find(|(_, member)| member.strip_prefix("SKB_DROP_REASON_") == Some(name)).map(|(code, _)| *code)
}

fn reasons() -> Vec<(u32, String)> {
    let wanted = Wanted { enums: vec!["skb_drop_reason".into()], ..Wanted::default() };
    btf::read(&wanted).expect("the kernel has BTF").members_of("skb_drop_reason").to_vec()
}

/// Whether the kernel says why it drops a packet (since 5.17). One that does not, frees most of what TCP itself drops as
/// if it had been read.
pub(crate) fn gives_reasons() -> bool {
    !reasons().is_empty()
}

pub(crate) fn needs_reasons() {
    if !gives_reasons() {
        skip("the kernel gives no reasons, and does not tell of what TCP itself drops (before 5.17)");
    }
}

/// Insists on what follows the addresses.
fn ends_in(row: &Row, state_flags: &str, reason: &str) {
    let rest = format!("{state_flags:<20} {reason}");
    row.must(row.line.ends_with(&format!(" {rest}")), format!("{rest:?} at its end"));
}

/// Whether the kernel's tracepoint tells which socket receives a packet (since 6.11): else the tool says so.
fn tells_receivers(run: &Run<'_>) -> bool {
    ["are rows with --all only", "no reasons"].iter().all(|less| !run.said().contains(less))
}

/// The first row, of several that retransmissions make.
fn first(run: &Run<'_>) -> (Rows, usize) {
    run.arrival(1);
    run.settle();
    let rows = run.so_far();
    let count = rows.len();
    (rows, count)
}

fn the_header_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    for options in ["", "--no-stack --all"] {
        let run = case.launch(options).start(&net);
        assert_eq!(
            run.header(),
            "TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)"
        );
        run.finish();
    }
}

fn a_row_and_its_stack_are_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "tcp dport 80"));
    let run = start(case, "", &net, &client);
    let bare = start(case, "--no-stack", &net, &client);
    let how = How::plain().bound(net.v4(5000)).nonblocking();
    client.connect_as(net.v4_of(2, 80), &how).close();
    let rows = run.rows(1);
    let [source, destination] = [net.v4(5000), net.v4_of(2, 80)].map(|at| at.to_string());
    // Each run has its own time of day: two of them can see a second turn on both sides of one drop.
    let line_of = |row: &Row| {
        let time = row.get("TIME");
        row.must(time.len() == 8, "the time of day");
        format!(
            "{time} {:<7} 4  {source:<20} > {destination:<20} {:<20} {}",
            client.pid(),
            "SYN_SENT (SYN)",
            reason("NETFILTER_DROP")
        )
    };
    let line = line_of(&rows[0]);
    rows[0].reads(&line);
    let lines = run.lines();
    let at = lines.iter().position(|printed| *printed == line).expect("it was just read");
    let stack: Vec<&String> = lines[at + 1..].iter().take_while(|line| !line.is_empty()).collect();
    let is_function = |line: &str| {
        line.strip_prefix('\t').and_then(|line| line.rsplit_once("+0x")).is_some_and(|(name, offset)| {
            !name.is_empty() && !name.contains(' ') && u64::from_str_radix(offset, 16).is_ok()
        })
    };
    assert!(stack.iter().all(|line| is_function(line)), "{stack:#?}");
    let has = |name: &str| stack.iter().any(|line| line.contains(name));
    // Before 5.17 it is who called the firewall that frees the packet.
    let frees = if gives_reasons() { "\tnft_do_chain+0x" } else { "\tnf_hook_slow+0x" };
    assert!(has(frees) && has("\ttcp_v4_connect+0x"), "{stack:#?}");
    assert!(stack[0].contains("kfree_skb") || stack[0].contains("reason_drop"), "{stack:#?}");
    assert!(!has("bpf_") && !has("__traceiter"), "{stack:#?}");
    let short = &bare.rows(1)[0];
    short.reads(&line_of(short));
    assert!(bare.lines().iter().all(|line| !line.is_empty() && !line.starts_with('\t')));
    for run in [run, bare] {
        run.finish();
    }
}

fn a_drop_on_the_way_in_is_of_the_socket_that_receives(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let _far = web.accept();
    net.far().nft(&drops("input", "tcp dport 80"));
    let run = start(case, "", &net, &client);
    near.send(10);
    let (rows, _) = first(&run);
    rows[0].is("SADDR", net.v4(0).ip()).is("SPORT", near.local().port());
    rows[0].is("DADDR", net.v4_of(2, 0).ip()).is("DPORT", 80).is("IP", 4);
    ends_in(&rows[0], "ESTABLISHED (PSH|ACK)", &reason("NETFILTER_DROP"));
    run.finish();
}

fn what_does_not_get_to_tcp_has_no_socket_of_an_earlier_packet(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().nft(&drops("input", "tcp dport 80 meta length > 200"));
    let run = start(case, "", &net, &client);
    // The listener looks at the first packet. The next one is in the same place in memory, and over loopback the kernel
    // does not look for its socket before the firewall.
    let near = client.connect(web.address());
    let _far = web.accept();
    near.send(400);
    run.rows(0);
    run.finish();
}

fn a_syn_ack_that_is_dropped_shows_the_state_of_the_open(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    net.near().nft(&drops("input", "tcp sport 80"));
    let run = start(case, "", &net, &client);
    let near = client.connect_as(web.address(), &How::plain().nonblocking());
    let (rows, _) = first(&run);
    rows[0].is("SADDR", net.v4_of(2, 0).ip()).is("SPORT", 80);
    rows[0].is("DADDR", net.v4(0).ip()).is("DPORT", near.local().port());
    ends_in(&rows[0], "SYN_SENT (SYN|ACK)", &reason("NETFILTER_DROP"));
    run.finish();
}

fn what_tcp_itself_drops_has_its_socket_by_every_way(case: &Case) {
    needs_reasons();
    let mut ways = 0;
    for rung in Rung::FORCED {
        if let Some(why) = case.launch("").rung(rung).refusal() {
            // Where the tracepoint tells the socket, nothing else is needed.
            assert!(why.contains("does not offer"), "{why}");
            continue;
        }
        let net = Net::pair();
        let (server, client) = (net.far_peer("server"), net.peer("client"));
        let web = server.listen(net.v4_of(2, 80));
        let near = client.connect(web.address());
        let far = web.accept();
        // The client sends again what the server has, because no answer arrives.
        net.near().nft(&drops("prerouting", "tcp sport 80"));
        let run = on(rung, case, "", &net, &client, net.v4(END_PORT));
        near.send(10);
        far.receive(10);
        let (rows, _) = first(&run);
        rows[0].is("SADDR", net.v4(0).ip()).is("SPORT", near.local().port()).is("DPORT", 80);
        ends_in(&rows[0], "ESTABLISHED (PSH|ACK)", &reason("TCP_OLD_DATA"));
        run.finish();
        ways += 1;
    }
    assert!(ways > 0, "no way tells the socket");
}

fn a_socket_filter_shows_where_the_kernel_tells_the_socket(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    far.reject_all();
    let run = start(case, "", &net, &client);
    if !tells_receivers(&run) {
        skip("the tracepoint kfree_skb does not tell the receiving socket (before 6.11)");
    }
    near.send(10);
    let (rows, _) = first(&run);
    rows[0].is("SPORT", near.local().port()).is("DPORT", 80);
    ends_in(&rows[0], "ESTABLISHED (PSH|ACK)", &reason("SOCKET_FILTER"));
    run.finish();
}

fn an_overflowing_accept_queue_shows_the_listener_where_the_kernel_tells_it(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.bind(net.v4_of(2, 80));
    // Room for one connection.
    web.again(0).expect("it may listen");
    // Handshakes that wait for their last packet, because the queue has still room when they begin.
    net.far().nft(&drops("prerouting", "tcp dport 80 tcp flags & (syn|ack) == ack"));
    let mut conns = Vec::new();
    for _ in 0..4 {
        let near = client.connect_as(web.address(), &How::plain().nonblocking());
        near.await_writable();
        conns.push(near);
    }
    let run = start(case, "", &net, &client);
    if !tells_receivers(&run) {
        skip("the tracepoint kfree_skb does not tell the receiving socket (before 6.11)");
    }
    net.far().nft("flush chain inet probe prerouting\n");
    for near in &conns {
        near.send(1);
    }
    // Rows of the other end may come as well: to it, a SYN-ACK that is sent again is out of order.
    let is_listener = |row: &Row| row.line.contains(" LISTEN (");
    run.wait_for_row("a row with the listener's state", is_listener);
    let rows = run.so_far();
    let row = rows.iter().find(|row| is_listener(row)).expect("it was just seen");
    row.is("DADDR", net.v4_of(2, 0).ip()).is("DPORT", 80);
    run.finish();
}

fn data_after_the_end_is_a_row(case: &Case) {
    needs_reasons();
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    // Older kernels give no reason; such drops are rows only if asked for.
    let reasons = ["TCP_ABORT_ON_DATA", "NOT_SPECIFIED"].into_iter().filter(|name| code(name).is_some());
    let reasons: Vec<_> = reasons.collect();
    let run = start(case, &format!("--reason NETFILTER_DROP,{}", reasons.join(",")), &net, &client);
    far.finish();
    near.await_end();
    near.send(10);
    let (rows, _) = first(&run);
    rows[0].is("SPORT", near.local().port()).is("DPORT", 80);
    let given = |name: &&str| rows[0].line.ends_with(&reason(name));
    rows[0].must(reasons.iter().any(given), "one of these reasons");
    run.finish();
}

fn what_has_no_reason_is_a_row_with_all(case: &Case) {
    /// `TCP_FIN_WAIT2` (include/net/tcp_states.h), in `tcpi_state`.
    const FIN_WAIT2: u8 = 5;
    needs_reasons();
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let [all, usual, named] = ["--all", "", "--reason NOT_SPECIFIED,NETFILTER_DROP"]
        .map(|options| start(case, options, &net, &client));
    let near = client.connect(web.address());
    let far = web.accept();
    let from = near.local();
    near.finish_sending();
    near.await_info("FIN_WAIT2", |info| info.u8(0) == FIN_WAIT2);
    near.close();
    far.await_end();
    // A connection in TIME_WAIT takes no data.
    far.send(11);
    let is_it = |row: &Row| row.get("SPORT") == "80" && row.line.contains(" (PSH|ACK) ");
    for run in [&all, &named] {
        run.wait_for_row("the data", is_it);
        let rows = run.so_far();
        let row = rows.iter().find(|row| is_it(row)).expect("it was just seen");
        row.is("SADDR", web.address().ip()).is("DADDR", from.ip()).is("DPORT", from.port());
        // Where the kernel does not tell the receiving socket, nobody knows its state.
        row.must([" TIME_WAIT (", " - ("].iter().any(|state| row.line.contains(state)), "the state");
        if !row.line.ends_with(&reason("NOT_SPECIFIED")) {
            skip("a drop without a reason: this kernel has one for data in TIME_WAIT");
        }
    }
    usual.rows(0);
    for run in [all, usual, named] {
        run.finish();
    }
}

fn what_xdp_drops_is_a_row_with_all(case: &Case) {
    needs_reasons();
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let run = start(case, "--all", &net, &client);
    let dropping = net.near().enter(|| drop_received(if_nametoindex("cable").expect("it is there")));
    let _dropping = dropping.unwrap_or_else(|error| skip(format!("links of XDP ({error})")));
    far.send(10);
    let is_it = |row: &Row| row.get("SPORT") == "80" && row.line.contains("(PSH|ACK)");
    run.wait_for_row("the data", is_it);
    let rows = run.so_far();
    let row = rows.iter().find(|row| is_it(row)).expect("it was just seen");
    row.is("SADDR", web.address().ip()).is("DADDR", near.local().ip()).is("DPORT", near.local().port());
    // Kernels call it XDP, or give no reason; then the stack tells.
    let reasons = ["XDP", "NOT_SPECIFIED"].into_iter().filter(|name| code(name).is_some());
    row.must(reasons.into_iter().any(|name| row.line.ends_with(&reason(name))), "XDP, or nothing");
    let lines = run.lines();
    let at = lines.iter().position(|line| *line == row.line).expect("it is there");
    let stack: Vec<_> = lines[at + 1..].iter().take_while(|line| line.starts_with('\t')).collect();
    assert!(stack.iter().any(|line| line.contains("xdp")), "{stack:#?}");
    run.finish();
}

fn a_queue_that_overflows_is_a_row_of_the_sender(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let _far = web.accept();
    net.near().tc("qdisc add dev cable root tbf rate 5mbit burst 3000 limit 6000");
    let run = start(case, "", &net, &client);
    near.push("flood", 20_000).expect("the socket takes some of it");
    let (rows, _) = first(&run);
    rows[0].is("SADDR", net.v4(0).ip()).is("SPORT", near.local().port()).is("DPORT", 80);
    rows[0].must(rows[0].line.contains(" ESTABLISHED ("), "the sender's state");
    rows[0].must(rows[0].line.ends_with(&reason("QDISC_DROP")), "the reason");
    run.finish();
}

fn a_syn_ack_that_is_dropped_on_its_way_out_has_its_ends(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    net.far().nft(&drops("output", "tcp sport 80"));
    let run = start(case, "", &net, &client);
    let near = client.connect_as(web.address(), &How::plain().nonblocking());
    let (rows, _) = first(&run);
    rows[0].is("SADDR", net.v4_of(2, 0).ip()).is("SPORT", 80);
    rows[0].is("DADDR", net.v4(0).ip()).is("DPORT", near.local().port());
    let ends = ["NEW_SYN_RECV (SYN|ACK)", "LISTEN (SYN|ACK)"].map(|state| format!(" {state:<20} "));
    rows[0]
        .must(ends.iter().any(|end| rows[0].line.contains(end)), "the state of the request or its listener");
    run.finish();
}

fn ipv6_has_its_ends_the_right_way_round(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v6_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    net.near().nft(&drops("output", "tcp dport 80"));
    net.far().nft(&drops("output", "tcp sport 80"));
    let run = on(case.rung, case, "-6", &net, &client, net.v6(END_PORT));
    near.send(10);
    let (rows, _) = first(&run);
    rows[0].is("SADDR", net.v6(0).ip()).is("SPORT", near.local().port()).is("IP", 6);
    rows[0].is("DADDR", net.v6_of(2, 0).ip()).is("DPORT", 80);
    far.send(10);
    let from_far = |row: &&Row| row.get("SPORT") == "80";
    run.wait_for_row("a row of the other end", |row| row.get("SPORT") == "80");
    let rows = run.so_far();
    let row = rows.iter().find(from_far).expect("it was just seen");
    row.is("SADDR", net.v6_of(2, 0).ip()).is("DADDR", net.v6(0).ip()).is("DPORT", near.local().port());
    run.finish();
}

fn families_go_by_the_socket(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "tcp dport 80"));
    let four = start(case, "-4", &net, &client);
    let six = on(case.rung, case, "-6", &net, &client, net.v6(END_PORT));
    let mapped = Net::mapped(net.v4_of(2, 80));
    for to in [mapped, net.v4_of(2, 80)] {
        client.connect_as(to, &How::plain().nonblocking()).close();
    }
    four.rows(1)[0].is("IP", 4).is("DADDR", net.v4_of(2, 0).ip());
    let rows = six.rows(1);
    rows[0].is("IP", 6).is("DADDR", mapped.ip());
    rows[0].must(rows[0].get("SADDR").starts_with("::ffff:10."), "both are mapped");
    for run in [four, six] {
        run.finish();
    }
}

fn udp_and_closed_ports_are_no_rows(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "udp dport 80"));
    let run = start(case, "", &net, &client);
    client.order(&format!("udp-send {}", net.v4_of(2, 80)));
    client.refused(net.v4_of(2, 81));
    run.rows(0);
    run.finish();
}

fn packets_without_a_socket_are_rows_on_request(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "udp dport 80"));
    let run = start(case, "--all --netns-id 0", &net, &client);
    let others = start(case, "--all --netns-id 1", &net, &client);
    client.order(&format!("udp-send {}", net.v4_of(2, 80)));
    client.fails(net.v4_of(2, 81), &How::plain().bound(net.v4(5000)), "ECONNREFUSED");
    let rows = run.rows(1);
    rows[0].is("SADDR", net.v4(0).ip()).is("SPORT", 5000).is("DADDR", net.v4_of(2, 0).ip()).is("DPORT", 81);
    rows[0].is("IP", 4);
    ends_in(&rows[0], "- (SYN)", &reason("NO_SOCKET"));
    run.finish();
    assert_eq!(others.stop().code(0).stdout.len(), 1, "another namespace");
}

fn connections_that_end_well_give_no_rows(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    // A FIN that a closed socket still holds is purged with it, and a machine that is slow sends twice.
    let routine = ["QUEUE_PURGE", "TCP_OLD_DATA"].into_iter().filter(|name| code(name).is_some());
    needs_reasons();
    let options = format!("--not-reason {}", routine.collect::<Vec<_>>().join(","));
    let run = start(case, &options, &net, &client);
    let near = client.connect(web.address());
    let far = web.accept();
    near.send(100_000);
    far.receive(100_000);
    near.close();
    far.await_end();
    far.close();
    // And one that ends by a reset.
    let near = client.connect(web.address());
    let far = web.accept();
    far.abort();
    near.await_end();
    near.close();
    run.rows(0);
    run.finish();
}

/// The inode number of a network namespace.
fn inode(path: &str) -> u64 {
    fs::metadata(path).expect("/proc is mounted").ino()
}

fn namespaces_are_kept_by_number_and_by_process(case: &Case) {
    let (net, other) = (Net::new(), Net::new());
    let (client, stranger) = (net.peer("client"), other.peer("stranger"));
    for space in [&net, &other] {
        space.near().nft(&drops("output", "tcp dport 80"));
    }
    let own = net.near().enter(|| inode("/proc/thread-self/ns/net"));
    let runs = [
        start(case, &format!("--netns-id {own}"), &net, &client),
        start(case, &format!("--pid-netns {}", client.pid()), &net, &client),
    ];
    stranger.connect_as(other.v4_of(2, 80), &How::plain().nonblocking()).close();
    client.connect_as(net.v4_of(2, 80), &How::plain().nonblocking()).close();
    let strange = other.v4_of(2, 80).to_string();
    for run in runs {
        run.rows(1)[0].is("DADDR", net.v4_of(2, 0).ip()).is("DPORT", 80);
        assert!(!run.lines().iter().any(|line| line.contains(&strange)), "{:?}", run.lines());
        run.finish();
    }
}

fn reasons_are_kept_by_name_and_by_number(case: &Case) {
    needs_reasons();
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "tcp dport 80"));
    let words = reason("NETFILTER_DROP");
    let number = words.trim_start_matches("NETFILTER_DROP (").trim_end_matches(')');
    let kept = [
        start(case, "--reason NO_SOCKET,netfilter_drop", &net, &client),
        start(case, &format!("--reason {number}"), &net, &client),
        start(case, "--not-reason NO_SOCKET", &net, &client),
    ];
    let left_out = [
        case.launch("--reason NO_SOCKET").start(&net),
        case.launch(&format!("--not-reason SKB_DROP_REASON_NETFILTER_DROP,{number}")).start(&net),
    ];
    client.connect_as(net.v4_of(2, 80), &How::plain().nonblocking()).close();
    for run in kept {
        run.rows(1)[0].is("DPORT", 80);
        run.finish();
    }
    let ours = net.v4_of(2, 80).to_string();
    for run in left_out {
        let ended = run.finish();
        assert!(!ended.stdout.iter().any(|line| line.contains(&ours)), "{:?}", ended.stdout);
    }
}

fn wrong_options_are_refused(case: &Case) {
    let refused = |options: &str, code: i32, words: &[&str]| {
        case.launch(options).ends().code(code).one_line("tcpdrop", words);
    };
    refused("--netns-id 1 --pid-netns 1", 2, &["ERROR: --pid_netns and --netns-id not allowed together"]);
    refused("--pid-netns 2147483647", 1, &["/proc/2147483647/ns/net", "No such file"]);
    refused("--netns-id x", 2, &["--netns-id", "try 'netbcc tcpdrop --help'"]);
    refused("--pid-netns -1", 2, &[]);
    refused("-4 -6", 2, &["--ipv4", "--ipv6"]);
    refused(
        "--reason NO_SUCH_REASON",
        2,
        &[
            "'NO_SUCH_REASON' is no reason of this kernel",
            if gives_reasons() { "NETFILTER_DROP" } else { "5.17" },
        ],
    );
    refused("--reason 1 --not-reason 2", 2, &["--reason", "--not-reason"]);
}

/// Keeps every processor in the kernel, until it is dropped: packets that are received there interrupt something.
struct Busy(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Busy {
    fn start() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let work = |_| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                let mut zeros = fs::File::open("/dev/zero").expect("there is /dev/zero");
                let mut room = vec![0; 1 << 20];
                while !ended.load(Ordering::Relaxed) {
                    zeros.read_exact(&mut room).expect("it has no end");
                }
            })
        };
        let threads = (0..processors()).map(work).collect();
        Self(ended, threads)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _told_where_it_failed = thread.join();
        }
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

/// Whether this line of a stack is where an interrupt enters the kernel.
fn is_entry(line: &str) -> bool {
    line.starts_with("\tasm_") && !line.starts_with("\tasm_call_")
        || ["\tel1h_64_irq+", "\tel0t_64_irq+"].iter().any(|entry| line.starts_with(entry))
}

fn copies_of_a_program_have_a_room_each_for_stacks(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = start(case, "", &net, &client);
    let attached = attached_of(run.pid());
    let names = attached.iter().map(|(_, id)| program(*id).expect("the tool holds it").name);
    // One, or two where the kernel lets one be skipped.
    let copies = names.filter(|name| name.starts_with("drop")).count();
    let is_room = |id: &u32| Memory::named(*id, "ROOM").expect("the tool holds it").is_some();
    let rooms = maps_of(run.pid()).iter().filter(|id| is_room(id)).count();
    assert!((1..=2).contains(&copies) && rooms == copies, "{rooms} rooms for {copies} copies");
    run.finish();
}

fn a_stack_ends_where_an_interrupt_came_in(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().steer();
    let reasons = if gives_reasons() { "--reason NO_SOCKET,NETFILTER_DROP" } else { "" };
    let run = start(case, &format!("--all {reasons}"), &net, &client).watched();
    let busy = Busy::start();
    let (mut made, deadline) = (0, Instant::now() + PATIENCE);
    // Each from another port, so that they meet on different processors.
    while made < 300 || !run.lines().iter().any(|line| is_entry(line)) && Instant::now() < deadline {
        for _ in 0..100 {
            client.refused(net.v4_of(2, 81));
        }
        made += 100;
        run.settle();
    }
    drop(busy);
    let all = made + net.retransmissions();
    run.settle();
    let seen = run.rows_at_last(all).len();
    let lines = run.lines();
    let mut entries = 0;
    for pair in lines.windows(2).filter(|pair| is_entry(&pair[0])) {
        entries += 1;
        assert!(pair[1].is_empty(), "{pair:#?}");
    }
    if processors() == 1 {
        note(format!("NOTE {}: no other processor sends interrupts: {entries} were seen", case.tool));
    } else {
        assert!(entries > 0, "no packet of {made} came by an interrupt");
    }
    // Stacks are told apart by what is in them: bounded by the ways through the kernel, not by what was interrupted.
    let stacks: HashSet<&[String]> = lines
        .split(String::is_empty)
        .filter_map(|block| block.iter().position(|line| line.starts_with('\t')).map(|at| &block[at..]))
        .collect();
    assert!(!stacks.is_empty() && stacks.len() < 60, "{} stacks", stacks.len());
    run.stop().code(0).accounts_for(seen, all);
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(&drops("output", "tcp dport 80"));
    let run = start(case, "--json", &net, &client);
    let how = How::plain().bound(net.v4(5000)).nonblocking();
    client.connect_as(net.v4_of(2, 80), &how).close();
    let rows = run.rows(1);
    rows[0].is("saddr", net.v4(0).ip()).is("sport", 5000).is("daddr", net.v4_of(2, 0).ip()).is("dport", 80);
    rows[0].is("pid", client.pid()).is("ip", 4).is("state", "SYN_SENT").is("flags", "SYN");
    if gives_reasons() {
        let code = rows[0].get("reason_code").to_owned();
        let words = format!("{} ({code})", rows[0].get("reason"));
        rows[0].must(words == reason("NETFILTER_DROP"), "the reason");
    } else {
        rows[0].is("reason", "null").is("reason_code", "null");
    }
    rows[0].is("netns", net.near().enter(|| inode("/proc/thread-self/ns/net")));
    rows[0].must(rows[0].get("stack").starts_with("[\"") && rows[0].get("stack").contains("+0x"), "a stack");
    run.finish();
}

fn every_row_of_a_flood_has_its_stack(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    net.near().nft(
        "add chain inet probe output { type filter hook output priority 0; }\n\
         add rule inet probe output tcp dport 80 reject with tcp reset\n",
    );
    let run = start(case, "", &net, &client).watched();
    let made = 2003;
    assert_eq!(client.churn(net.v4_of(2, 80), made, 2), (0, made));
    // A SYN that is sent again, as its RST was late or lost, is dropped again.
    let all = made + net.retransmissions();
    run.settle();
    let rows = run.rows_at_last(all);
    let syn_sent = reason("NETFILTER_DROP");
    for row in &rows {
        row.is("DPORT", 80).must(row.line.ends_with(&syn_sent), "the reason");
    }
    let lines = run.lines();
    let begins = format!(" > {}", net.v4_of(2, 80));
    let mut stacks = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(&begins)) {
        let depth = lines[at + 1..].iter().take_while(|line| line.starts_with('\t')).count();
        assert!(depth > 5 && lines[at + 1 + depth].is_empty(), "{line}");
        stacks += 1;
    }
    let seen = rows.len();
    assert_eq!(stacks, seen);
    run.stop().code(0).accounts_for(seen, all);
}
