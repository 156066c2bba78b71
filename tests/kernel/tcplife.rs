//! tcplife: which sockets are rows, whose they are, what the rows say, and which of them the filters keep.
//!
//! A check is a sentence of the list that the tool was accepted by, or of what it promises beside that.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use netbcc_common::loss::Loss;
use netbcc_common::mptcp::Owner;
use netbcc_common::tcplife::{CONNECTOR, Life};
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Info, Peer};
use netbcc_tests::raw;
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{PATIENCE, Run, memory_of, programs_of};

use crate::tcpconnect::{CONTAINER, Groups};

pub(crate) const CHECKS: &[Check] = checks![
    a_connection_is_two_rows_with_their_owners_and_kilobytes,
    the_text_row_is_exactly_these_bytes,
    kilobytes_are_truncated_and_count_syn_and_fin,
    bytes_in_both_directions_are_counted,
    unacknowledged_bytes_are_not_sent_bytes,
    a_server_that_closes_first_owns_its_row,
    a_client_that_closes_last_owns_its_row,
    a_row_that_comes_in_an_interrupt_has_its_owners_container,
    an_aborted_server_shows_the_acceptor,
    an_aborted_server_that_never_read_shows_the_acceptor_or_the_tool_says_so,
    threads_that_wait_in_accept_hide_no_acceptor,
    an_aborting_server_owns_its_row,
    a_half_closed_connection_keeps_its_owners,
    life_begins_at_established,
    a_refused_connect_is_one_row,
    an_unroutable_connect_is_no_row,
    a_connect_without_a_free_local_address_is_one_row,
    a_connection_over_loopback_ipv6_is_ip_6,
    a_v4_mapped_connector_is_ip_6_and_its_listener_ip_4,
    a_listener_is_no_row,
    a_connection_from_before_is_no_row,
    a_connection_that_still_lives_is_no_row,
    local_port_filter_keeps_only_those_ports,
    remote_port_filter_keeps_only_those_ports,
    a_filtered_ephemeral_port_keeps_its_owner,
    pid_filter_goes_by_the_owner,
    pid_filter_knows_a_server_that_closes_first,
    who_closes_last_of_both_ends_owns_the_row_else_who_connected,
    an_mptcp_connection_shows_its_subflows,
    a_further_subflow_belongs_to_the_same_processes,
    a_subflow_from_a_new_address_belongs_to_the_same_processes,
    an_mptcp_socket_does_not_inherit_from_an_older_one,
    a_subflow_whose_owner_is_not_known_belongs_to_nobody: alone,
    unread_data_at_close_gives_two_whole_rows,
    json_rows_carry_every_value,
    what_the_socket_knew_at_its_end_is_what_it_said_before,
    a_receiver_without_room_is_told_from_a_network,
    how_a_connection_ended_is_told,
    short_connections_are_all_seen_or_told_as_lost: alone,
    rejected_rows_do_not_fill_the_maps: alone,
    refused_connects_do_not_fill_the_maps: alone,
];

/// What can be wrong in a table only that is keyed by a socket's address.
pub(crate) const KPROBES: &[Check] = checks![an_end_that_was_missed_leaves_no_owner: alone];

/// Where a second copy of the program makes up for what the kernel lets the first one skip.
pub(crate) const TYPED: &[Check] = checks![a_change_that_interrupts_another_is_seen: alone];

pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    the_csv_row_is_exactly_these_bytes,
    the_wide_row_is_exactly_these_bytes,
    chosen_columns_are_exactly_these_bytes,
    six_leading_zero_groups_are_written_as_glibc_does,
    csv_with_both_times_has_their_form,
    csv_wins_over_wide,
    seconds_count_from_the_first_row,
    the_wall_clock_is_now,
    both_port_filters_mean_both,
    a_hostile_name_cannot_drive_a_terminal,
    the_text_row_of_ipv6_is_exactly_these_bytes,
    option_6_takes_v4_mapped_sockets,
    option_4_leaves_v4_mapped_sockets,
    a_udp_socket_is_no_row,
];

/// Connects, sends, and ends cleanly with the client first.
fn talk(server: &Peer, client: &Peer, at: SocketAddr, to: SocketAddr, bytes: usize) -> SocketAddr {
    let listener = server.listen(at);
    let near = client.connect(to);
    let far = listener.accept();
    let local = near.local();
    if bytes > 0 {
        near.send(bytes);
        far.receive(bytes);
    }
    near.close();
    far.await_end();
    far.close();
    listener.close();
    local
}

/// The row of the socket whose local port this is.
fn end_at(rows: &Rows, port: u16) -> &Row {
    rows.with("LPORT", port)
}

/// The text row that BCC prints.
fn text(pid: u32, comm: &str, from: SocketAddr, to: SocketAddr, kb: (u32, u32), ms: &str) -> String {
    let (tx, rx) = kb;
    format!(
        "{pid:<5} {comm:<10} {:<15} {:<5} {:<15} {:<5} {tx:>5} {rx:>5} {ms}",
        from.ip(),
        from.port(),
        to.ip(),
        to.port()
    )
}

/// The life of a row, which must have two decimals.
fn ms(row: &Row) -> String {
    let ms = row.get("MS").to_owned();
    row.must(ms.split_once('.').is_some_and(|(_, part)| part.len() == 2), "MS has two decimals");
    ms
}

fn a_connection_is_two_rows_with_their_owners_and_kilobytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = net.v4_of(2, 80);
    let local = talk(&server, &client, web, web, 5000);
    let rows = run.rows(2);
    let near = end_at(&rows, local.port());
    near.is("PID", client.pid()).is("COMM", "client").is("LADDR", local.ip()).is("RADDR", web.ip());
    near.is("RPORT", 80).is("TX_KB", 4).is("RX_KB", 0);
    let far = end_at(&rows, 80);
    far.is("PID", server.pid()).is("COMM", "server").is("LADDR", web.ip()).is("RADDR", local.ip());
    far.is("RPORT", local.port()).is("TX_KB", 0).is("RX_KB", 4);
    run.finish();
}

fn the_text_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let run = case.launch("").start(&net);
    let web = net.v4_of(2, 80);
    let local = talk(&server, &client, web, web, 5000);
    let rows = run.rows(2);
    let near = end_at(&rows, local.port());
    near.reads(&text(client.pid(), "abcdefghij", local, web, (4, 0), &ms(near)));
    let far = end_at(&rows, 80);
    far.reads(&text(server.pid(), "server", web, local, (0, 4), &ms(far)));
    run.finish();
}

fn the_text_row_of_ipv6_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let SocketAddr::V6(base) = net.v6(80) else { unreachable!("it is IPv6") };
    let long = Ipv6Addr::new(0xfd4e, base.ip().segments()[1], 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666);
    net.add_address(long);
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = SocketAddr::from((long, 80));
    let local = talk(&server, &client, web, web, 0);
    let rows = run.rows(2);
    let near = end_at(&rows, local.port());
    near.reads(&text(client.pid(), "client", local, web, (0, 0), &ms(near)));
    let far = end_at(&rows, 80);
    far.reads(&text(server.pid(), "server", web, local, (0, 0), &ms(far)));
    run.finish();
}

fn the_csv_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let run = case.launch("-s").start(&net);
    let web = net.v4_of(2, 80);
    let local = talk(&server, &client, web, web, 5000);
    let rows = run.rows(2);
    let near = end_at(&rows, local.port());
    let (pid, port) = (client.pid(), local.port());
    near.reads(&format!("{pid},abcdefghijklmno,4,{},{port},{},80,4,0,{}", local.ip(), web.ip(), ms(near)));
    run.finish();
}

fn chosen_columns_are_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let web = net.v4_of(2, 80);
    let run = case.launch("-o tx_bytes,raddr,LPORT,rport,RX_KB,pid").start(&net);
    let local = talk(&server, &client, web, web, 5000);
    let (pid, port, to) = (client.pid(), local.port(), web.ip().to_string());
    assert_eq!(run.header(), format!("TX_BYTES {:<15} LPORT RPORT RX_KB PID", "RADDR"));
    end_at(&run.rows(2), port).reads(&format!("5002     {to:<15} {port:<5} 80    {:>5} {pid}", 0));
    run.finish();

    let run = case.launch("-s -o rport,pid -o +lport,raddr,rport").start(&net);
    let local = talk(&server, &client, web, web, 5000);
    assert_eq!(run.header(), "RPORT,PID,LPORT,RADDR");
    end_at(&run.rows(2), local.port()).reads(&format!("80,{pid},{},{to}", local.port()));
    run.finish();
}

fn the_wide_row_is_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let run = case.launch("-w").start(&net);
    let mut ports = vec![];
    let mut expect = |ip: u8, web: SocketAddr, rows: usize| {
        let local = talk(&server, &client, web, web, 5000);
        ports.push(local.port());
        let rows = run.rows(rows);
        let near = end_at(&rows, local.port());
        let (pid, life) = (client.pid(), ms(near));
        let (from, to) = (local.ip().to_string(), web.ip().to_string());
        near.reads(&format!(
            "{pid:<5} {:<16} {ip:<2} {from:<39} {:<5} {to:<39} {:<5} {:>6} {:>6} {life}",
            "abcdefghijklmno",
            local.port(),
            80,
            4,
            0,
        ));
    };
    expect(4, net.v4_of(2, 80), 2);
    if has_ipv6() {
        expect(6, net.v6_of(2, 80), 4);
    }
    run.finish();
}

fn kilobytes_are_truncated_and_count_syn_and_fin(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    for (nth, (bytes, sent, received)) in [(1022, 1, 0), (1023, 1, 1), (1021, 0, 0)].into_iter().enumerate() {
        let web = net.v4(80 + u16::try_from(nth).expect("small"));
        let local = talk(&server, &client, web, web, bytes);
        let rows = run.rows(2 * nth + 2);
        end_at(&rows, local.port()).is("TX_KB", sent).is("RX_KB", 0);
        end_at(&rows, web.port()).is("TX_KB", 0).is("RX_KB", received);
    }
    run.finish();
}

fn bytes_in_both_directions_are_counted(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let far = web.accept();
    for _ in 0..7 {
        near.send(3000);
        far.receive(3000);
        far.send(11_000);
        near.receive(11_000);
    }
    let port = near.local().port();
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(2);
    // 21,000 and 77,000 bytes.
    end_at(&rows, port).is("TX_KB", 20).is("RX_KB", 75);
    end_at(&rows, 80).is("TX_KB", 75).is("RX_KB", 20);
    run.finish();
}

fn unacknowledged_bytes_are_not_sent_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let port = near.local().port();
    near.send(10_240);
    far.receive(10_240);
    // The cable is cut: what is sent now is never acknowledged.
    net.near().ip(&format!("addr del {}/32 dev lo\n", web.address().ip()));
    net.near().ip(&format!("route add blackhole {}\n", web.address().ip()));
    near.send(20_480);
    near.abort();
    let rows = run.rows(1);
    end_at(&rows, port).is("TX_KB", 10);
    run.finish();
}

fn a_server_that_closes_first_owns_its_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    far.close();
    near.await_end();
    near.close();
    let rows = run.rows(2);
    end_at(&rows, 80).is("PID", server.pid()).is("COMM", "server");
    end_at(&rows, port).is("PID", client.pid()).is("COMM", "client");
    run.finish();
}

fn a_row_that_comes_in_an_interrupt_has_its_owners_container(case: &Case) {
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let inside = groups.put(&client, &format!("system.slice/docker-{CONTAINER}.scope"));
        let run = case.launch("--json -o +cgroup,container,container_id").start(&net);
        let web = server.listen(net.v4(80));
        let near = client.connect(web.address());
        let (far, port) = (web.accept(), near.local().port());
        // The client's end reaches CLOSE while the server's packet arrives, in the server's call.
        near.close();
        far.await_end();
        far.close();
        let rows = run.rows(2);
        let row = rows.iter().find(|row| row.get("lport") == port.to_string()).expect("the client's row");
        row.is("pid", client.pid()).is("cgroup", inside);
        row.is("container", &CONTAINER[..12]).is("container_id", CONTAINER);
        let row = rows.iter().find(|row| row.get("lport") == "80").expect("the server's row");
        row.is("pid", server.pid()).is("container", "null");
        run.finish();
    }
    groups.remove();
}

fn a_client_that_closes_last_owns_its_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    for nth in 1..=3 {
        let near = client.connect(web.address());
        let (far, port) = (web.accept(), near.local().port());
        far.finish_sending();
        near.await_end();
        near.close();
        far.await_end();
        far.close();
        let rows = run.rows(2 * nth);
        end_at(&rows, port).is("PID", client.pid()).is("COMM", "client");
    }
    run.finish();
}

fn who_closes_last_of_both_ends_owns_the_row_else_who_connected(case: &Case) {
    let net = Net::new();
    let (server, client, heir) = (net.peer("server"), net.peer("client"), net.peer("heir"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    for (nth, server_first) in [(1, true), (2, false)] {
        let near = client.connect(web.address());
        let (far, port) = (web.accept(), near.local().port());
        let shared = near.share(&heir);
        near.close();
        if server_first {
            far.close();
            shared.await_end();
            shared.close();
        } else {
            shared.close();
            far.await_end();
            far.close();
        }
        let rows = run.rows(2 * nth);
        let owner = if server_first { heir.pid() } else { client.pid() };
        end_at(&rows, port).is("PID", owner).is("COMM", if server_first { "heir" } else { "client" });
    }
    run.finish();
}

fn an_aborted_server_shows_the_acceptor(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    near.send(100);
    far.receive(100);
    // The RST arrives while the client is running; the server sleeps.
    near.abort();
    let rows = run.rows(2);
    end_at(&rows, 80).is("PID", server.pid()).is("COMM", "server");
    end_at(&rows, port).is("PID", client.pid()).is("COMM", "client");
    run.finish();
}

fn an_aborted_server_that_never_read_shows_the_acceptor_or_the_tool_says_so(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let (_far, port) = (web.accept(), near.local().port());
    near.abort();
    let rows = run.rows(2);
    end_at(&rows, port).is("PID", client.pid()).is("COMM", "client");
    let row = end_at(&rows, 80).clone();
    row.is("RPORT", port).is("TX_KB", 0).is("RX_KB", 0);
    let told = run.finish().stderr;
    let less_exact = told.contains("the process that first reads from it");
    // accept() cannot be traced by tracepoints.
    row.must(less_exact == (case.rung == Rung::Tracepoint), "stderr tells what is less exact");
    if !less_exact {
        row.is("PID", server.pid()).is("COMM", "server");
    }
}

/// More of them than a kretprobe has room for.
fn threads_that_wait_in_accept_hide_no_acceptor(case: &Case) {
    let net = Net::new();
    let (many, server, client) = (net.peer("many"), net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    many.listen(net.v4_of(2, 81)).wait_in_accept(64);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    if case.rung == Rung::Tracepoint {
        // There it is who reads.
        near.send(1);
        far.receive(1);
    }
    near.abort();
    let rows = run.rows(2);
    end_at(&rows, 80).is("PID", server.pid()).is("COMM", "server");
    run.finish();
}

fn an_end_that_was_missed_leaves_no_owner(case: &Case) {
    const MANY: usize = 40;
    let net = Net::new();
    let (server, client, gone) = (net.peer("server"), net.peer("client"), net.peer("gone"));
    let run = case.launch("-L 80").start(&net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(80)), "ECONNREFUSED");
    });
    let memory = memory_of(run.pid(), "LIVES_BY_SK").expect("a table of kprobes");
    let entries = || memory.entries::<Life>().expect("we may read it");
    let old = server.listen(net.v4_of(3, 81));
    let conns: Vec<_> = (0..MANY)
        .map(|_| {
            let near = gone.connect(old.address());
            (near, old.accept())
        })
        .collect();
    let is_gone = |life: &Life| life.pid == gone.pid() && life.owner == CONNECTOR;
    let ghosts: HashMap<u64, Life> = entries().into_iter().filter(|(_, life)| is_gone(life)).collect();
    assert_eq!(ghosts.len(), MANY);
    for (near, far) in conns {
        near.abort();
        far.close();
    }
    let deadline = Instant::now() + PATIENCE;
    while entries().iter().any(|(sk, _)| ghosts.contains_key(sk)) {
        assert!(Instant::now() < deadline, "they are closed");
        thread::sleep(Duration::from_millis(1));
    }
    // As if nobody had seen that.
    for (&sk, life) in &ghosts {
        memory.set(sk, life).expect("we may write it");
    }
    let web = server.listen(net.v4_of(2, 80));
    let conns: Vec<_> = (0..MANY)
        .map(|_| {
            let near = client.connect(web.address());
            (near, web.accept())
        })
        .collect();
    let is_used_again =
        |(sk, life): &(u64, Life)| ghosts.get(sk).is_some_and(|ghost| ghost.birth_ns != life.birth_ns);
    let again = entries()
        .iter()
        .filter(|entry| is_used_again(entry))
        .filter(|(_, life)| life.pid != client.pid())
        .count();
    for (near, _far) in conns {
        near.abort();
    }
    run.rows(MANY).are("PID", &[server.pid(); MANY]);
    run.finish();
    if again == 0 {
        skip("the kernel used no address again for a passive open");
    }
}

fn an_aborting_server_owns_its_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    far.abort();
    let rows = run.rows(2);
    end_at(&rows, 80).is("PID", server.pid()).is("COMM", "server");
    // The client sleeps while its socket dies.
    end_at(&rows, port).is("PID", client.pid()).is("COMM", "client");
    run.finish();
}

fn a_half_closed_connection_keeps_its_owners(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let (far, port) = (web.accept(), near.local().port());
    near.finish_sending();
    far.await_end();
    far.send(3000);
    near.receive(3000);
    far.close();
    near.await_end();
    near.close();
    let rows = run.rows(2);
    end_at(&rows, 80).is("PID", server.pid()).is("TX_KB", 2);
    end_at(&rows, port).is("PID", client.pid()).is("RX_KB", 2);
    run.finish();
}

fn life_begins_at_established(case: &Case) {
    let net = Net::pair();
    // The SYN waits for the other end's hardware address, which that keeps to itself for now.
    net.near().sysctl("ipv4/neigh/cable/retrans_time_ms", "20");
    net.near().sysctl("ipv4/neigh/cable/mcast_solicit", "10000");
    net.far().ip("link set cable arp off\n");
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("-o +span_us,conn_ms,first_ms").start(&net);
    let began = Instant::now();
    let near = client.connect_as(web.address(), &How::plain().nonblocking());
    let left = Instant::now();
    let port = near.local().port();
    // These two pauses are what is measured, not waits for something.
    thread::sleep(Duration::from_millis(200));
    let (opened, connecting) = (Instant::now(), left.elapsed());
    net.far().ip("link set cable arp on\n");
    let far = web.accept();
    near.await_writable();
    let established = Instant::now();
    thread::sleep(Duration::from_millis(100));
    let connected = established - began;
    far.send(1);
    let silent = established.elapsed();
    near.receive(1);
    let read = opened.elapsed();
    let at_least = established.elapsed();
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(2);
    let at_most = opened.elapsed();
    let row = end_at(&rows, port);
    let life = row.number("MS") / 1000.0;
    row.must(life >= at_least.as_secs_f64() - 0.001, format!("at least {at_least:?}"));
    row.must(life <= at_most.as_secs_f64() + 0.001, format!("at most {at_most:?}"));
    // MS has hundredths.
    row.must(
        (row.number("SPAN_US") / 1000.0 - row.number("MS")).abs() <= 0.005_001,
        "as long in microseconds",
    );
    // How long the SYN waited for its answer, and how long it was until the first byte was read.
    for (column, least, most) in [("CONN_MS", connecting, connected), ("FIRST_MS", silent, read)] {
        let ms = row.number(column);
        row.must(
            ms >= least.as_secs_f64() * 1000.0 - 1.0 && ms <= most.as_secs_f64() * 1000.0 + 1.0,
            format!("{column} of {least:?} to {most:?}"),
        );
    }
    run.finish();
}

fn a_refused_connect_is_one_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    let took = [(); 7].map(|()| {
        let before = Instant::now();
        client.refused(net.v4(81));
        // The row has hundredths, the nearest.
        before.elapsed().as_secs_f64() * 1000.0 + 0.005
    });
    let rows = run.rows(7);
    for (row, took) in rows.iter().zip(took) {
        row.is("PID", client.pid()).is("COMM", "client").is("RPORT", 81).is("TX_KB", 0).is("RX_KB", 0);
        row.must(row.number("LPORT") >= 1.0, "a local port");
        row.must((0.0..=took).contains(&row.number("MS")), format!("no more than the {took} ms of the call"));
    }
    run.finish();
}

fn an_unroutable_connect_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.fails(net.unroutable(net.port(0)), &How::plain(), "ENETUNREACH");
    if has_ipv6() {
        client.fails(net.unroutable6(net.port(0)), &How::plain(), "ENETUNREACH");
    }
    run.rows(0);
    run.finish();
}

fn a_connect_without_a_free_local_address_is_one_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    let run = case.launch("").start(&net);
    let how = How::plain().bound(net.v4(5000));
    let _first = client.connect_as(web.address(), &how);
    client.fails(web.address(), &how, "EADDRNOTAVAIL");
    run.rows(1)[0].is("PID", client.pid()).is("RPORT", 80).is("TX_KB", 0).is("RX_KB", 0);
    run.finish();
}

fn a_connection_over_loopback_ipv6_is_ip_6(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = Net::loopback6(net.port(0));
    let run = case.launch("-s").start(&net);
    let local = talk(&server, &client, web, web, 0);
    let rows = run.rows(2);
    end_at(&rows, local.port()).is("IP", 6).is("LADDR", "::1").is("RADDR", "::1").is("PID", client.pid());
    end_at(&rows, web.port()).is("IP", 6).is("LADDR", "::1").is("RADDR", "::1").is("PID", server.pid());
    run.finish();
}

/// A v4-mapped connector and a plain listener on 127.0.0.1; the connector's and the listener's port.
fn v4_mapped(net: &Net, server: &Peer, client: &Peer) -> (u16, u16) {
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, net.port(0)));
    (talk(server, client, web, Net::mapped(web), 0).port(), web.port())
}

fn a_v4_mapped_connector_is_ip_6_and_its_listener_ip_4(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-s").start(&net);
    let (near, far) = v4_mapped(&net, &server, &client);
    let rows = run.rows(2);
    let mapped = "::ffff:127.0.0.1";
    end_at(&rows, near).is("IP", 6).is("LADDR", mapped).is("RADDR", mapped).is("PID", client.pid());
    end_at(&rows, far).is("IP", 4).is("LADDR", "127.0.0.1").is("RADDR", "127.0.0.1").is("PID", server.pid());
    run.finish();
}

fn option_6_takes_v4_mapped_sockets(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-s6").start(&net).ended_by(|| client.refused(net.v6(END_PORT)));
    let (near, _) = v4_mapped(&net, &server, &client);
    run.rows(1)[0].is("IP", 6).is("LPORT", near).is("LADDR", "::ffff:127.0.0.1");
    run.finish();
}

fn option_4_leaves_v4_mapped_sockets(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-s4").start(&net);
    let (_, far) = v4_mapped(&net, &server, &client);
    run.rows(1)[0].is("IP", 4).is("LPORT", far).is("PID", server.pid());
    run.finish();
}

fn six_leading_zero_groups_are_written_as_glibc_does(case: &Case) {
    let net = Net::new();
    let port = Net::loopback6(net.port(0)).port();
    let to = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x0102, 0x0304);
    net.add_address(to);
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.refused((to, port).into());
    run.rows(1)[0].is("RADDR", "::1.2.3.4").is("RPORT", port);
    run.finish();
}

fn a_listener_is_no_row(case: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let run = case.launch("").start(&net);
    server.listen(net.v4(80)).close();
    run.rows(0);
    run.finish();
}

fn a_connection_from_before_is_no_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    let far = web.accept();
    let aborted = client.connect(web.address());
    web.accept();
    let run = case.launch("").start(&net);
    near.close();
    far.await_end();
    far.close();
    aborted.abort();
    run.rows(0);
    run.finish();
}

fn a_connection_that_still_lives_is_no_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    let run = case.launch("").start(&net);
    let _near = client.connect(web.address());
    let _far = web.accept();
    run.rows(0);
    run.finish();
}

fn a_udp_socket_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.order(&format!("udp-connect {}", net.v4(80)));
    run.rows(0);
    run.finish();
}

/// Whether the text has the form of this example: digits stand for digits, the rest for itself.
fn shaped(text: &str, example: &str) -> bool {
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    shape(text) == shape(example)
}

fn csv_with_both_times_has_their_form(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-stT").start(&net);
    let web = net.v4(80);
    let local = talk(&server, &client, web, web, 0);
    assert_eq!(run.header(), "TIME,TIME(s),PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS");
    let rows = run.rows(2);
    for row in &rows {
        row.must(shaped(row.get("TIME"), "12:34:56"), "TIME is HH:MM:SS");
        let (whole, part) =
            row.get("TIME(s)").split_once('.').unwrap_or_else(|| row.fail("TIME(s) has a point"));
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        row.must(whole.bytes().all(|b| b.is_ascii_digit()) && !whole.is_empty(), "whole seconds");
        row.must(part.len() == 6 && part.bytes().all(|b| b.is_ascii_digit()), "six decimals");
        row.is("IP", 4);
    }
    end_at(&rows, local.port()).is("COMM", "client").is("PID", client.pid());
    run.finish();
}

fn csv_wins_over_wide(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-s -w").start(&net);
    let web = net.v4(80);
    let port = talk(&server, &client, web, web, 0).port();
    assert_eq!(run.header(), "PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS");
    let rows = run.rows(2);
    let (row, pid, ip) = (end_at(&rows, port), client.pid(), web.ip());
    row.reads(&format!("{pid},client,4,{ip},{port},{ip},80,0,0,{}", ms(row)));
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = "PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS";
    let csv = "PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS";
    let wide =
        format!("PID   COMM             IP {:<39} LPORT {:<39} RPORT  TX_KB  RX_KB MS", "LADDR", "RADDR");
    assert_eq!((plain.len(), wide.len()), (75, 134));
    // As the acceptance list counts: LADDR at character 27, LPORT 40 characters later.
    assert_eq!((wide.find("LADDR"), wide.find("LPORT")), (Some(26), Some(66)));
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
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn seconds_count_from_the_first_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let port = net.port(0);
    // One process only, so that its rows are the first that are printed: other tests connect at the same time.
    let run = case
        .launch(&format!("-t -p {}", client.pid()))
        .start(&net)
        .ended_by(|| client.refused(net.v4(END_PORT)));
    client.refused(net.v4(port));
    run.arrival(1);
    // This pause is what is measured, not a wait for something.
    thread::sleep(Duration::from_millis(120));
    client.refused(net.v4(port));
    let rows = run.rows(2);
    rows[0].must(rows[0].line.starts_with("0.000000  "), "the first row is at 0.000000");
    let passed = rows[1].number("TIME(s)");
    rows[1].must((0.12..20.0).contains(&passed), "0.12 s and not much more passed");
    rows[1].must(rows[1].line.starts_with(&format!("{passed:<9.6} ")), "the cell is padded");
    run.finish();
}

/// Seconds of the day in UTC, in which the harness runs tools.
fn seconds_of_the_day() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    now.as_secs() % 86_400
}

fn the_wall_clock_is_now(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-T").start(&net);
    let before = seconds_of_the_day();
    client.refused(net.v4(80));
    let rows = run.rows(1);
    let passed = (seconds_of_the_day() + 86_400 - before) % 86_400;
    let time = rows[0].get("TIME");
    rows[0].must(shaped(time, "12:34:56"), "TIME is HH:MM:SS");
    let said = time.split(':').fold(0, |sum, part| 60 * sum + part.parse::<u64>().expect("digits"));
    rows[0].must((said + 86_400 - before) % 86_400 <= passed, "TIME is between before and after");
    run.finish();
}

fn local_port_filter_keeps_only_those_ports(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-L 22,80").start(&net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(22)), "ECONNREFUSED");
    });
    for port in [22, 80, 81, 443] {
        let web = net.v4_of(2, port);
        talk(&server, &client, web, web, 0);
    }
    // The listeners' ends only: the clients' local ports are others.
    let rows = run.rows(2);
    rows.are("LPORT", &[22, 80]).are("PID", &[server.pid(); 2]);
    run.finish();
}

fn remote_port_filter_keeps_only_those_ports(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("-D 443,{END_PORT}")).start(&net);
    for port in [22, 443, 444] {
        let web = net.v4_of(2, port);
        talk(&server, &client, web, web, 0);
    }
    run.rows(1)[0].is("RPORT", 443).is("PID", client.pid()).is("COMM", "client");
    run.finish();
}

fn both_port_filters_mean_both(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let from = |port| How::plain().bound(net.v4(port));
    let run = case.launch(&format!("-L 22,80 -D 443,{END_PORT}")).start(&net).ended_by(|| {
        client.fails(net.v4_of(2, END_PORT), &from(22), "ECONNREFUSED");
    });
    for (local, remote) in [(22, 443), (22, 444), (23, 443), (80, 443), (443, 22)] {
        client.fails(net.v4_of(2, remote), &from(local), "ECONNREFUSED");
    }
    run.rows(2).are("LPORT", &[22, 80]).are("RPORT", &[443, 443]);
    run.finish();
}

fn a_filtered_ephemeral_port_keeps_its_owner(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/ip_local_port_range", "40000 40000");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-L 40000,4000").start(&net).ended_by(|| {
        client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(4000)), "ECONNREFUSED");
    });
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    // The client dies of the server's RST and does nothing itself.
    far.abort();
    near.await_end();
    run.rows(1)[0].is("LPORT", 40_000).is("PID", client.pid()).is("COMM", "client");
    run.finish();
}

fn pid_filter_goes_by_the_owner(case: &Case) {
    let net = Net::new();
    let (server, client, other) = (net.peer("server"), net.peer("client"), net.peer("other"));
    let run = case
        .launch(&format!("-p {}", client.pid()))
        .start(&net)
        .ended_by(|| client.refused(net.v4(END_PORT)));
    let web = net.v4(80);
    let local = talk(&server, &client, web, web, 0);
    talk(&server, &other, web, web, 0);
    run.rows(1)[0].is("PID", client.pid()).is("LPORT", local.port());
    run.finish();
    let run = case
        .launch(&format!("-p {}", server.pid()))
        .start(&net)
        .ended_by(|| server.refused(net.v4(END_PORT)));
    talk(&server, &client, web, web, 0);
    run.rows(1)[0].is("PID", server.pid()).is("LPORT", 80);
    run.finish();
}

fn pid_filter_knows_a_server_that_closes_first(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case
        .launch(&format!("-p {}", server.pid()))
        .start(&net)
        .ended_by(|| server.refused(net.v4(END_PORT)));
    let web = server.listen(net.v4(80));
    let near = client.connect(web.address());
    web.accept().close();
    near.await_end();
    near.close();
    let near = client.connect(web.address());
    let far = web.accept();
    near.send(100);
    far.receive(100);
    near.abort();
    run.rows(2).are("PID", &[server.pid(); 2]).are("LPORT", &[80, 80]);
    run.finish();
}

fn an_mptcp_connection_shows_its_subflows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = case.launch("").start(&net);
    let near = client.connect_as(at, &How::plain().mptcp());
    let far = web.accept();
    let port = near.local().port();
    near.send(5000);
    far.receive(5000);
    near.close();
    far.await_end();
    far.close();
    let rows = run.rows(2);
    // MPTCP's own signalling is in TCP options, not in the counters.
    end_at(&rows, port).is("TX_KB", 4).is("RX_KB", 0).is("PID", client.pid());
    // A thread of the kernel closes the subflow.
    end_at(&rows, 80).is("TX_KB", 0).is("RX_KB", 4).is("PID", server.pid()).is("COMM", "server");
    run.finish();
}

/// Waits for both rows of the further subflow, and looks whose they are.
fn further(run: &Run<'_>, second: Ipv4Addr, near: (u32, &str), far: (u32, &str)) {
    run.arrival(4);
    let rows = run.so_far();
    for (column, (pid, comm)) in [("LADDR", near), ("RADDR", far)] {
        rows.with(column, second).is("PID", pid).is("COMM", comm);
    }
}

fn a_further_subflow_belongs_to_the_same_processes(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let second = net.further_subflow();
    let run = case.launch("").start(&net);
    let near = client.connect_as(at, &How::plain().mptcp());
    let far = web.accept();
    near.send(5000);
    far.receive(5000);
    far.send(10);
    near.receive(10);
    net.await_further_subflows(1);
    near.close();
    far.await_end();
    far.close();
    further(&run, second, (client.pid(), "client"), (server.pid(), "server"));
    run.finish();
}

fn a_subflow_from_a_new_address_belongs_to_the_same_processes(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = case.launch("").start(&net);
    let (near, far) = client.converse(&web);
    // The subflow is opened in the call of `ip`.
    let second = net.further_subflow();
    net.await_further_subflows(1);
    near.close();
    far.await_end();
    far.close();
    further(&run, second, (client.pid(), "client"), (server.pid(), "server"));
    run.finish();
}

/// New MPTCP sockets lie where older ones were: no row may name those who had the older ones.
fn an_mptcp_socket_does_not_inherit_from_an_older_one(case: &Case) {
    const ROUNDS: usize = 20;
    let net = Net::new();
    let [closes, resets] =
        [("one", "first"), ("other", "second")].map(|(server, client)| (net.peer(server), net.peer(client)));
    let closing = closes.0.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let resetting = resets.0.listen_mptcp(net.v4_of(2, 81)).expect("the other one may listen, too");
    let run = case.launch("").start(&net);
    let mptcp = How::plain().mptcp();
    for _ in 0..ROUNDS {
        // The server closes first, and the client last.
        let near = closes.1.connect_as(closing.address(), &mptcp);
        closing.accept().close();
        near.await_end();
        near.close();
        // The client resets before accept().
        resets.1.connect_as(resetting.address(), &mptcp).abort();
        resetting.accept().close();
    }
    for row in &run.rows(4 * ROUNDS) {
        let is = |pid: u32, comm: &str| row.get("PID") == pid.to_string() && row.get("COMM") == comm;
        let of = |wanted: &Peer, comm: &str| is(wanted.pid(), comm);
        let known = match (row.get("LPORT"), row.get("RPORT")) {
            ("80", _) => of(&closes.0, "one"),
            (_, "80") => of(&closes.1, "first"),
            // The reset may have come after accept().
            ("81", _) => is(0, "-") || of(&resets.0, "other"),
            (_, "81") => of(&resets.1, "second"),
            _ => false,
        };
        row.must(known, "it names its own process");
    }
    run.finish();
}

fn a_subflow_whose_owner_is_not_known_belongs_to_nobody(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = case.launch("").start(&net);
    let owners = memory_of(run.pid(), "OWNERS_BY_MPTCP").expect("a table of owners");
    // At addresses of no socket.
    let is_full = |error: io::Error| error.raw_os_error() == Some(nix::libc::E2BIG);
    assert!((1..1 << 16).any(|sk| owners.set(sk, &Owner::default()).is_err_and(is_full)), "it is full");
    let second = net.further_subflow();
    let (near, far) = client.converse(&web);
    net.await_further_subflows(1);
    near.close();
    far.await_end();
    far.close();
    further(&run, second, (0, "-"), (0, "-"));
    let told = run.stop().stderr;
    assert!(told.contains("because a table was full"), "{told}");
}

fn unread_data_at_close_gives_two_whole_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    let local = near.local();
    near.send(100);
    far.await_data();
    far.close();
    let rows = run.rows(2);
    let end = end_at(&rows, local.port());
    end.is("LADDR", local.ip()).is("RADDR", web.address().ip()).is("RPORT", 80).is("PID", client.pid());
    let end = end_at(&rows, 80);
    end.is("LADDR", web.address().ip())
        .is("RADDR", local.ip())
        .is("RPORT", local.port())
        .is("PID", server.pid());
    run.finish();
}

fn a_hostile_name_cannot_drive_a_terminal(case: &Case) {
    let names: [(&[u8], &str); 4] = [
        (b"\x1b[2Jrm -rf", r"\x1b[2Jrm -rf"),
        (b"a\nb\rc", r"a\x0ab\x0dc"),
        (b"\xff\x80\xc2\x9b", r"\xff\x80\xc2\x9b"),
        ("\u{202e}grüße".as_bytes(), r"\xe2\x80\xaegrüße"),
    ];
    let net = Net::new();
    let run = case.launch("-s").start(&net);
    for (nth, (name, shown)) in (1..).zip(names) {
        let client = net.peer_named(name);
        client.refused(net.v4(80));
        run.rows(nth)[nth - 1].is("COMM", shown).is("PID", client.pid());
    }
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let run = case.launch("--json").start(&net);
    let web = net.v4_of(2, 80);
    let local = talk(&server, &client, web, web, 5000);
    let rows = run.rows(2);
    let near = rows.with("lport", local.port());
    near.is("pid", client.pid()).is("comm", "abcdefghijklmno").is("ip", 4);
    near.is("laddr", local.ip()).is("raddr", web.ip()).is("rport", 80);
    // SYN and FIN count, as in the kernel; the other end's FIN only if it came before TIME_WAIT took over.
    near.is("tx_bytes", 5002).must(near.number("rx_bytes") <= 1.0, "nothing but a FIN");
    rows.with("lport", 80).is("pid", server.pid()).is("tx_bytes", 1).is("rx_bytes", 5001);
    near.must(near.number("span_us") >= 0.0, "a life");
    near.must(shaped(near.get("time"), "2026-08-11T12:34:56.123456789Z"), "RFC 3339 with nanoseconds");
    run.finish();
}

/// Waits until the socket says `settled` of itself, and twice the same but for how long ago something was.
fn settled(conn: &Conn<'_>, settled: impl Fn(&Info) -> bool) -> Info {
    let counts = |info: &Info| [100, 136, 140, 224].map(|at| info.u32(at));
    let deadline = Instant::now() + PATIENCE;
    let mut last = conn.info();
    loop {
        let info = conn.info();
        if settled(&info) && counts(&info) == counts(&last) {
            return info;
        }
        assert!(Instant::now() < deadline, "it does not settle: {info:?}");
        last = info;
    }
}

/// All columns of a socket's end, but for those that need something to go on.
const END: &str = "--json -o +rtt_min,rtt,retrans,retrans_bytes,lost,rwnd_limited,sndbuf_limited,busy,conn_ms,first_ms,\
                   ooo,segs_in,segs_out,errno,closed_by";

fn what_the_socket_knew_at_its_end_is_what_it_said_before(case: &Case) {
    const BYTES: usize = 300_000;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(END).start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    far.send(100);
    near.receive(100);
    // More than 200 bytes: data. Not the last of them.
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 meta length > 200 numgen inc mod 4 1 drop\n",
    );
    near.send(BYTES);
    far.receive(BYTES);
    // SYN and data; nothing is under way.
    let near_said = settled(&near, |info| info.u64(120) == BYTES as u64 + 1 && info.u32(24) == 0);
    let far_said = settled(&far, |info| info.u32(24) == 0);
    assert!(near_said.u32(100) > 0 && far_said.u32(224) > 0, "packets were lost: {near_said:?} {far_said:?}");
    let local = near.local();
    near.abort();
    let rows = run.rows(2);
    let row = rows.with("lport", local.port());
    row.is("retrans", near_said.u32(100))
        .is("retrans_bytes", near_said.u64(208))
        .is("ooo", near_said.u32(224));
    row.is("rtt", near_said.u32(68)).is("rtt_min", near_said.u32(148));
    row.is("segs_in", near_said.u32(140)).is("segs_out", near_said.u32(136));
    row.is("busy", near_said.u64(168)).is("rwnd_limited", near_said.u64(176));
    row.is("sndbuf_limited", near_said.u64(184)).is("errno", "null").is("closed_by", "local");
    row.must(row.number("lost") > 0.0, "some were taken for lost");
    row.must(row.number("conn_ms") > 0.0 && row.number("first_ms") >= 0.0, "it connected, and read");
    row.must(row.number("first_ms") * 1000.0 <= row.number("span_us") + 1.0, "it read while it lived");
    let row = rows.with("lport", 80);
    row.is("retrans", far_said.u32(100)).is("ooo", far_said.u32(224)).is("rtt", far_said.u32(68));
    // The RST came since.
    row.is("segs_in", far_said.u32(140) + 1).is("segs_out", far_said.u32(136)).is("conn_ms", "null");
    row.is("errno", "ECONNRESET").is("closed_by", "remote");
    row.must(row.number("first_ms") >= 0.0, "it read");
    run.finish();
}

fn a_receiver_without_room_is_told_from_a_network(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("--json -o +rwnd_limited,busy,sndbuf_limited,first_ms").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    near.push("flood", 1 << 20).expect("it has room for some");
    let said = settled(&near, |info| info.u64(176) > 0);
    let local = near.local();
    near.abort();
    let rows = run.rows(2);
    let row = rows.with("lport", local.port());
    // It goes on until the end.
    row.must(row.number("rwnd_limited") >= said.u64(176) as f64, "as long as the socket said, or longer");
    let most = row.number("span_us") + 20_000.0;
    row.must(
        row.number("busy") >= said.u64(168) as f64 && row.number("busy") <= most,
        "it is a part of its life",
    );
    row.must(row.number("busy") >= row.number("rwnd_limited"), "limits are a part of being busy");
    row.is("first_ms", "null");
    rows.with("lport", 80).is("rwnd_limited", 0).is("busy", 0).is("first_ms", "null");
    far.close();
    run.finish();
}

fn how_a_connection_ended_is_told(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-o +closed_by,errno").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let ends = |nth: usize, near: &str, far: &str, local: SocketAddr| {
        let rows = run.rows(2 * nth);
        rows.with("LPORT", local.port()).is("RPORT", 80).is("CLOSED_BY", near).is("ERRNO", "-");
        let row = rows.iter().find(|row| row.get("RPORT") == local.port().to_string()).expect("the server's");
        row.is("CLOSED_BY", far);
    };
    let (near, far) = client.converse(&web);
    let local = near.local();
    near.close();
    far.await_end();
    far.close();
    ends(1, "local", "remote", local);
    let (near, far) = client.converse(&web);
    let local = near.local();
    far.close();
    near.await_end();
    near.close();
    ends(2, "remote", "local", local);
    client.refused(net.v4_of(2, 81));
    let rows = run.rows(5);
    rows.with("RPORT", 81).is("CLOSED_BY", "remote").is("ERRNO", "ECONNREFUSED");
    run.finish();
}

/// How many of something are many here: more than any table has room for where that takes seconds rather than
/// minutes; fewer on an emulated processor.
fn many(few: usize, all: usize, mut make: impl FnMut(usize)) -> usize {
    let start = Instant::now();
    make(few);
    if start.elapsed() > Duration::from_millis(400) {
        return few;
    }
    make(all - few);
    all
}

fn short_connections_are_all_seen_or_told_as_lost(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/ip_local_port_range", "1024 65535");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listeners = [80, 81, 82, 83, 84].map(|port| server.listen(net.v4_of(2, port)));
    for listener in &listeners {
        listener.serve();
    }
    let run = case.launch("").start(&net).watched();
    let churn = |nth: usize, count: usize| {
        assert_eq!(client.churn(listeners[nth].address(), count, 1), (count, 0));
        listeners[nth].served(count);
    };
    let start = Instant::now();
    let mut done = many(2003, 10_007, |count| churn(0, count));
    // 10^5 only where they take seconds, not minutes.
    if start.elapsed() < Duration::from_secs(2) && done > 2003 {
        for nth in 1..listeners.len() {
            churn(nth, 22_501);
            done += 22_501;
        }
    }
    // After all of them, a connection is still seen from its beginning to its end.
    let web = net.v4(443);
    talk(&server, &client, web, web, 2000);
    run.settle();
    let rows = run.rows_at_last(2 * done + 2);
    let ours = |row: &&Row| row.get("LPORT") == "443" || row.get("RPORT") == "443";
    let after = rows.iter().filter(ours).count();
    assert_eq!(after, 2, "rows of the last connection");
    let (seen, all) = (rows.len() - after, 2 * done);
    let ended = run.stop();
    ended.code(0);
    // An event that was lost may or may not have cost a row; a row that is missing must have been told.
    ended.accounts_for(seen, all);
}

/// Sets a flag when it is dropped, also by a failure.
struct AtEnd<'f>(&'f AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Of each tool whose programs at changes of state have a second copy of their own.
pub(crate) fn a_change_that_interrupts_another_is_seen(case: &Case) {
    /// So many are waited for, so long; fewer than the least say nothing.
    const SOME: u64 = 100;
    const LONG: Duration = Duration::from_secs(3);
    const LEAST: u64 = 5;
    let net = Net::new();
    let client = net.peer("client");
    // Answers to a thread come by interrupts to another that opens or closes.
    net.near().steer();
    let port = net.port(2);
    let run = case.launch(&format!("-p {}", client.pid())).start(&net).watched();
    let run = run.ended_by(|| client.refused(net.v4(END_PORT)));
    let skipped = || {
        let programs =
            programs_of(run.pid()).into_iter().map(|id| raw::program(id).expect("the tool holds it"));
        // Those that have a second copy.
        let first = ["state_tp", "reset_tp"];
        programs
            .filter(|program| first.contains(&program.name.as_str()))
            .map(|program| program.skipped)
            .sum::<u64>()
    };
    let ended = AtomicBool::new(false);
    let mut done = 0;
    thread::scope(|scope| {
        let _end = AtEnd(&ended);
        // Changes of which the tool keeps nothing, so that nothing tells later whether they were seen.
        let listens = scope.spawn(|| {
            net.near().enter(|| {
                while !ended.load(Ordering::Relaxed) {
                    match TcpListener::bind(net.v4(port)) {
                        Ok(listener) => drop(listener),
                        // A process that another test starts right now has it, too, until it runs its program.
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}"),
                    }
                }
            });
        });
        let start = Instant::now();
        while skipped() < SOME && start.elapsed() < LONG {
            assert_eq!(client.churn(net.v4_of(2, net.port(1)), 200, 4), (0, 200));
            done += 200;
        }
        ended.store(true, Ordering::Relaxed);
        if let Err(why) = listens.join() {
            std::panic::resume_unwind(why);
        }
    });
    run.settle();
    let seen = run.rows_at_last(done).len();
    let skipped = skipped();
    let made_up =
        memory_of(run.pid(), "LOST").expect("it is there").sum(Loss::MadeUp as u32).expect("we may read");
    let ended = run.stop();
    ended.code(0).accounts_for(seen, done);
    if skipped < LEAST {
        skip(format!("interrupts in the middle of changes of state: of {done} opens there were {skipped}"));
    }
    // Changes that share a place may hide one from the second copy, which then takes it for one that was skipped.
    assert!(made_up <= skipped + skipped / 20, "{made_up} runs made up for, {skipped} skipped");
    // What interrupts the second copy in turn, nobody sees.
    assert!(made_up > skipped / 2, "{made_up} runs made up for, {skipped} skipped");
}

fn rejected_rows_do_not_fill_the_maps(case: &Case) {
    let net = Net::new();
    let (server, client, other) = (net.peer("server"), net.peer("client"), net.peer("other"));
    let busy = server.listen(net.v4_of(2, 80));
    busy.serve();
    // Where there is IPv6, two filters reject.
    let six = has_ipv6();
    let options = format!("-p {} {}", client.pid(), if six { "-6" } else { "" });
    let (web, end) =
        if six { (net.v6_of(2, 81), net.v6(END_PORT)) } else { (net.v4_of(2, 81), net.v4(END_PORT)) };
    let run = case.launch(&options).start(&net).ended_by(|| client.refused(end));
    many(2003, 10_301, |count| {
        assert_eq!(other.churn(busy.address(), count, 1), (count, 0));
        busy.served(count);
    });
    let port = talk(&server, &client, web, web, 0).port();
    run.rows(1)[0].is("PID", client.pid()).is("LPORT", port);
    run.stop().code(0);
}

fn refused_connects_do_not_fill_the_maps(case: &Case) {
    let net = Net::new();
    let (client, other) = (net.peer("client"), net.peer("other"));
    let run = case
        .launch(&format!("-p {}", client.pid()))
        .start(&net)
        .ended_by(|| client.refused(net.v4(END_PORT)));
    many(2003, 10_301, |count| assert_eq!(other.churn(net.v4(81), count, 1), (0, count)));
    client.refused(net.v4(82));
    run.rows(1)[0].is("PID", client.pid()).is("RPORT", 82);
    run.stop().code(0);
}
