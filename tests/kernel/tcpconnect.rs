//! tcpconnect: which connects are rows, what the rows say, and which of them the filters keep.
//!
//! A check is a sentence of the list that the tool was accepted by, or of what it promises beside that.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::dns::{AUTHORITATIVE, Message, RESPONSE, TRUNCATED, kind};
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{How, Peer};
use netbcc_tests::raw::Map;
use netbcc_tests::rows::Row;
use netbcc_tests::run::{PATIENCE, Run, own_mounts};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

pub(crate) const CHECKS: &[Check] = checks![
    a_connect_is_one_row_of_exactly_these_bytes,
    an_ipv6_connect_is_one_row_of_exactly_these_bytes,
    a_refused_connect_is_a_row_with_its_local_port,
    a_nonblocking_connect_into_silence_is_a_row_at_once,
    a_nonblocking_connect_into_silence_has_its_local_port,
    a_syn_that_a_firewall_drops_is_a_row_with_its_local_port,
    a_syn_that_waits_for_its_neighbour_is_a_row_at_once,
    an_unroutable_connect_is_no_row,
    a_connect_without_a_free_local_address_is_no_row,
    a_connect_without_a_free_local_port_is_no_row,
    a_loopback_ipv6_connect_is_an_ip_6_row,
    a_v4_mapped_connect_is_one_ip_4_row,
    a_v4_mapped_connect_is_one_ip_4_row_under_4,
    a_v4_mapped_connect_is_one_ip_6_row_under_6,
    option_4_hides_ipv6,
    option_6_hides_ipv4,
    a_connect_to_the_unspecified_address_shows_the_one_used,
    port_filter_keeps_only_that_port,
    port_filter_takes_a_list,
    pid_filter_keeps_only_that_process,
    a_second_thread_is_shown_with_its_name_and_the_process_id,
    uid_filter_keeps_only_that_user,
    the_uid_column_is_the_caller,
    the_local_port_is_that_of_the_socket,
    a_fast_open_is_one_row,
    a_deferred_fast_open_is_one_row_at_connect,
    an_mptcp_connect_is_one_row,
    further_subflows_are_of_who_connected,
    a_worker_of_io_uring_has_its_process_s_name,
    a_udp_connect_is_no_row,
    json_rows_carry_every_value,
    chosen_columns_tell_of_the_process,
    the_count_table_is_sorted_and_ends_with_exit_0,
    the_count_table_tells_local_ports_apart,
    cgroup_map_keeps_only_its_members,
    mount_namespace_map_keeps_only_its_members,
    a_prime_number_of_connects_is_that_number_of_rows: alone,
    parallel_connects_all_appear: alone,
    many_refusals_do_not_hide_what_follows: alone,
    many_refusals_do_not_hide_what_follows_under_count: alone,
    dns_answers_are_seen_however_they_are_read,
    dns_answers_over_ipv6_are_seen_however_they_are_read,
    dns_answers_on_dual_stack_sockets_are_seen,
    dns_answers_of_4_kib_count_to_their_last_record,
    dns_answers_from_other_ports_do_not_count,
    dns_answers_that_nobody_asked_for_do_not_count,
    dns_answers_that_fit_no_question_do_not_count,
    dns_answers_of_another_namespace_do_not_count,
    dns_answers_of_a_resolver_on_loopback_count,
    dns_answers_that_nobody_reads_do_not_count,
    dns_answers_in_a_flood_take_no_rows: alone,
    dns_prefers_what_the_process_asked_for,
    dns_keeps_a_question_that_was_asked_again: alone,
    dns_tells_of_questions_that_it_forgot,
];

pub(crate) const ANY: &[Check] = checks![
    every_column_has_its_place_in_the_header,
    count_and_dns_exclude_each_other,
    a_map_path_that_does_not_exist_is_refused,
    a_map_path_that_is_a_plain_file_is_refused,
    a_map_of_the_wrong_type_is_refused,
    dns_names_an_ipv6_address,
    dns_names_the_question_behind_aliases,
    dns_skips_record_types_it_does_not_know,
    dns_keeps_what_a_truncated_answer_has,
    dns_over_tcp_is_said_not_to_be_read,
    dns_keeps_what_a_cut_answer_has,
    dns_ignores_garbage_without_a_word,
    dns_ignores_what_is_no_response,
    dns_prefers_the_newest_name,
    long_ipv6_addresses_push_the_rest_to_the_right,
    six_leading_zero_groups_are_written_as_glibc_does,
    the_header_comes_first_and_without_waiting_for_rows,
    all_columns_have_their_place_in_the_header,
    seconds_count_from_the_first_row,
    a_hostile_name_cannot_drive_a_terminal,
    a_printable_name_of_many_bytes_stays,
    json_says_the_query,
    containers_are_told_by_the_cgroups_of_each_runtime,
    the_count_table_lists_ipv4_before_ipv6,
    the_count_table_obeys_the_filters,
    the_count_table_has_a_header_without_flows,
    sigterm_ends_like_ctrl_c,
    sigterm_prints_the_count_table_too,
    dns_says_how_long_ago_it_was,
    dns_says_when_there_was_none,
    dns_says_localhost,
];

const BANNER: &str = "Tracing connect ... Hit Ctrl-C to end";

/// The row that BCC prints.
fn line(pid: u32, comm: &str, from: SocketAddr, to: SocketAddr) -> String {
    let ip = if to.is_ipv6() { 6 } else { 4 };
    format!("{pid:<7} {comm:<12} {ip:<2} {:<16} {:<16} {:<6} ", from.ip(), to.ip(), to.port())
}

fn a_connect_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("").start(&net);
    let conn = client.connect(web.address());
    let rows = run.rows(1);
    rows[0].reads(&line(client.pid(), "abcdefghijkl", conn.local(), web.address()));
    run.finish();
}

fn an_ipv6_connect_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v6_of(2, 80));
    let run = case.launch("").start(&net);
    let conn = client.connect(web.address());
    run.rows(1)[0].reads(&line(client.pid(), "client", conn.local(), web.address()));
    run.finish();
}

fn long_ipv6_addresses_push_the_rest_to_the_right(case: &Case) {
    let net = Net::new();
    let SocketAddr::V6(base) = net.v6(80) else { unreachable!("it is IPv6") };
    let block = base.ip().segments()[1];
    let long = |last| Ipv6Addr::new(0xfd4e, block, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, last);
    let (from, to) = (SocketAddr::from((long(0x6666), 0)), SocketAddr::from((long(0x7777), 80)));
    net.add_address(from.ip());
    net.add_address(to.ip());
    let client = net.peer("client");
    let run = case.launch("-L").start(&net);
    client.fails(to, &How::plain().bound(from), "ECONNREFUSED");
    let rows = run.rows(1);
    let (pid, port) = (client.pid(), rows[0].get("LPORT"));
    rows[0].reads(&format!("{pid:<7} client       6  {} {port:<6} {} 80     ", from.ip(), to.ip()));
    run.finish();
}

fn six_leading_zero_groups_are_written_as_glibc_does(case: &Case) {
    let net = Net::new();
    let _skips_without_ipv6 = net.v6(0);
    let port = net.port(0);
    let to = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x0102, 0x0304);
    net.add_address(to);
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.refused((to, port).into());
    run.rows(1)[0].is("DADDR", "::1.2.3.4").is("DPORT", port);
    run.finish();
}

fn the_header_comes_first_and_without_waiting_for_rows(case: &Case) {
    let net = Net::new();
    let run = case.launch("").start(&net);
    let lines = run.await_lines(2);
    assert_eq!(lines[0], BANNER);
    assert_eq!(lines[1], "PID     COMM         IP SADDR            DADDR            DPORT ");
    run.finish();
}

fn all_columns_have_their_place_in_the_header(case: &Case) {
    let net = Net::new();
    let run = case.launch("-tUL").start(&net);
    let header = "TIME(s)  UID   PID     COMM         IP SADDR            LPORT  DADDR            DPORT ";
    assert_eq!(run.header(), header);
    run.finish();
}

fn every_column_has_its_place_in_the_header(case: &Case) {
    for (options, header) in [
        ("-d", "PID     COMM         IP SADDR            DADDR            DPORT  QUERY"),
        ("-Ld", "PID     COMM         IP SADDR            LPORT  DADDR            DPORT  QUERY"),
        ("-L", "PID     COMM         IP SADDR            LPORT  DADDR            DPORT "),
        ("-t", "TIME(s)  PID     COMM         IP SADDR            DADDR            DPORT "),
        ("-U", "UID   PID     COMM         IP SADDR            DADDR            DPORT "),
    ] {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn a_refused_connect_is_a_row_with_its_local_port(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-L").start(&net);
    client.refused(net.v4(81));
    let rows = run.rows(1);
    rows[0].is("DPORT", 81).must(rows[0].number("LPORT") >= 1.0, "a local port");
    run.finish();
}

fn a_nonblocking_connect_into_silence_is_a_row_at_once(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let to = net.silent(80);
    let run = case.launch("").start(&net);
    client.connect_as(to, &How::plain().nonblocking());
    // The socket is still open: nothing but its SYN can have made the row.
    run.rows(1)[0].is("DADDR", to.ip()).is("PID", client.pid());
    run.finish();
}

fn a_nonblocking_connect_into_silence_has_its_local_port(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let to = net.silent(80);
    let run = case.launch("-L").start(&net);
    let open = client.connect_as(to, &How::plain().nonblocking());
    run.rows(1)[0].is("DADDR", to.ip()).is("LPORT", open.local().port());
    let closed = client.connect_as(to, &How::plain().nonblocking());
    let port = closed.local().port();
    closed.close();
    run.rows(2)[1].is("DADDR", to.ip()).is("LPORT", port);
    run.finish();
}

fn a_syn_that_a_firewall_drops_is_a_row_with_its_local_port(case: &Case) {
    let net = Net::new();
    net.near().nft(
        "add chain inet probe out { type filter hook output priority 0; }\n\
         add rule inet probe out tcp dport 80 drop\n",
    );
    let client = net.peer("client");
    let run = case.launch("-Lt").start(&net);
    // Still open: its SYN is repeated, and dropped each time.
    let open = client.connect_as(net.v4(80), &How::plain().nonblocking());
    run.rows(1)[0].is("DPORT", 80).is("LPORT", open.local().port());
    client.refused(net.v4(81));
    let rows = run.rows(2);
    rows.are("DPORT", &[80, 81]);
    rows[1].must(rows[1].number("TIME(s)") >= rows[0].number("TIME(s)"), "rows are in the order of time");
    run.finish();
}

fn a_syn_that_waits_for_its_neighbour_is_a_row_at_once(case: &Case) {
    /// Long after a row is due, and before the kernel gives up on a neighbour, after three seconds.
    const AT_ONCE: Duration = Duration::from_secs(1);
    const TRIES: u8 = 5;
    let net = Net::pair();
    let client = net.peer("client");
    for options in case.variants() {
        let run = case.launch(&format!("{options} -t")).start(&net);
        // A machine that is busy is not late each time.
        let at_once = (0..TRIES).any(|nth| {
            // Nobody has this address.
            let to = net.v4_of(10 + nth, 80);
            let since = Instant::now();
            let open = client.connect_as(to, &How::plain().nonblocking());
            let waited = run.arrival(usize::from(nth) + 1) - since;
            let row = &run.so_far()[usize::from(nth)];
            row.is("DADDR", to.ip());
            if *options == "-L" {
                row.is("LPORT", open.local().port());
            }
            waited < AT_ONCE
        });
        assert!(at_once, "{options}: each row was later than {AT_ONCE:?}");
        client.refused(net.v4(81));
        run.wait_for_row("what was opened last", |row| row.get("DPORT") == "81");
        let rows = run.so_far();
        for pair in rows.iter().collect::<Vec<_>>().windows(2) {
            let is_later = pair[1].number("TIME(s)") >= pair[0].number("TIME(s)");
            pair[1].must(is_later, "rows are in the order of time");
        }
        run.finish();
    }
}

fn an_unroutable_connect_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let ports = format!("-P {},{END_PORT}", net.port(0));
    for variant in case.variants() {
        let run = case.launch(&format!("{variant} {ports}")).start(&net);
        client.fails(net.unroutable(net.port(0)), &How::plain(), "ENETUNREACH");
        if has_ipv6() {
            client.fails(net.unroutable6(net.port(0)), &How::plain(), "ENETUNREACH");
        }
        run.rows(0);
        run.finish();
    }
}

fn a_connect_without_a_free_local_address_is_no_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    for options in case.variants() {
        let run = case.launch(options).start(&net);
        let how = How::plain().bound(net.v4(5000));
        let first = client.connect_as(web.address(), &how);
        client.fails(web.address(), &how, "EADDRNOTAVAIL");
        run.rows(1)[0].is("DPORT", 80);
        run.finish();
        first.abort();
    }
}

fn a_connect_without_a_free_local_port_is_no_row(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/ip_local_port_range", "40000 40001");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    for options in case.variants() {
        let run = case.launch(options).start(&net).ended_by(|| {
            client.fails(net.v4(END_PORT), &How::plain().bound(net.v4(4000)), "ECONNREFUSED");
        });
        let (first, second) = (client.connect(web.address()), client.connect(web.address()));
        client.fails(web.address(), &How::plain(), "EADDRNOTAVAIL");
        run.rows(2).are("DPORT", &[80, 80]);
        run.finish();
        first.abort();
        second.abort();
    }
}

fn a_loopback_ipv6_connect_is_an_ip_6_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let to = Net::loopback6(net.port(0));
    let run = case.launch("").start(&net);
    client.refused(to);
    run.rows(1)[0].reads(&line(client.pid(), "client", to, to));
    run.finish();
}

/// One connect of an `AF_INET6` socket to an IPv4 address, and its only row.
fn v4_mapped(case: &Case, options: &str, ip: u8, address: &str) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let port = net.port(0);
    let web = server.listen((Ipv4Addr::LOCALHOST, port).into());
    let to = Net::mapped(web.address());
    for variant in case.variants() {
        let options = format!("{options} {variant}");
        let run =
            case.launch(&options).start(&net).ended_by(|| client.refused(Net::mapped(net.v4(END_PORT))));
        let conn = client.connect(to);
        let rows = run.rows(1);
        rows[0].is("PID", client.pid()).is("COMM", "client").is("IP", ip);
        rows[0].is("SADDR", address).is("DADDR", address).is("DPORT", port);
        if *variant == "-L" {
            rows[0].is("LPORT", conn.local().port());
        }
        run.finish();
    }
}

fn a_v4_mapped_connect_is_one_ip_4_row(case: &Case) {
    v4_mapped(case, "", 4, "127.0.0.1");
}

fn a_v4_mapped_connect_is_one_ip_4_row_under_4(case: &Case) {
    v4_mapped(case, "-4", 4, "127.0.0.1");
}

fn a_v4_mapped_connect_is_one_ip_6_row_under_6(case: &Case) {
    v4_mapped(case, "-6", 6, "::ffff:127.0.0.1");
}

fn option_4_hides_ipv6(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-4").start(&net);
    client.refused(net.v6(80));
    client.refused(net.v4(81));
    run.rows(1)[0].is("IP", 4).is("DPORT", 81);
    run.finish();
}

fn option_6_hides_ipv4(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-6").start(&net).ended_by(|| client.refused(net.v6(END_PORT)));
    client.refused(net.v4(80));
    client.refused(net.v6(81));
    run.rows(1)[0].is("IP", 6).is("DPORT", 81);
    run.finish();
}

fn a_connect_to_the_unspecified_address_shows_the_one_used(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let port = net.port(0);
    let run = case.launch("").start(&net);
    client.refused((Ipv4Addr::UNSPECIFIED, port).into());
    run.rows(1)[0].is("IP", 4).is("SADDR", "127.0.0.1").is("DADDR", "127.0.0.1").is("DPORT", port);
    if has_ipv6() {
        client.refused((Ipv6Addr::UNSPECIFIED, port).into());
        run.rows(2)[1].is("IP", 6).is("SADDR", "::1").is("DADDR", "::1").is("DPORT", port);
    }
    run.finish();
}

fn port_filter_keeps_only_that_port(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch(&format!("-P 80,{END_PORT}")).start(&net);
    for nth in 0..23 {
        client.refused(net.v4(80));
        if nth % 3 == 0 {
            client.refused(net.v4(81));
        }
    }
    run.rows(23).are("DPORT", &[80; 23]);
    run.finish();
}

fn port_filter_takes_a_list(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch(&format!("-P 80,81,65535,{END_PORT}")).start(&net);
    let ports = [79, 80, 81, 82, 8080, 65535, 65534, 20736];
    for port in ports {
        client.refused(net.v4(port));
    }
    if has_ipv6() {
        for port in ports {
            client.refused(net.v6(port));
        }
        run.rows(6).are("DPORT", &[80, 81, 65535, 80, 81, 65535]);
    } else {
        run.rows(3).are("DPORT", &[80, 81, 65535]);
    }
    run.finish();
}

fn pid_filter_keeps_only_that_process(case: &Case) {
    let net = Net::new();
    let (one, other) = (net.peer("one"), net.peer("other"));
    let run =
        case.launch(&format!("-p {}", one.pid())).start(&net).ended_by(|| one.refused(net.v4(END_PORT)));
    other.refused(net.v4(80));
    one.refused(net.v4(81));
    other.refused(net.v4(82));
    run.rows(1)[0].is("PID", one.pid()).is("COMM", "one").is("DPORT", 81);
    run.finish();
}

fn a_second_thread_is_shown_with_its_name_and_the_process_id(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    for options in [String::new(), format!("-p {}", client.pid())] {
        let run = case.launch(&options).start(&net).ended_by(|| client.refused(net.v4(END_PORT)));
        client.fails(net.v4(80), &How::plain().in_thread("second"), "ECONNREFUSED");
        run.rows(1)[0].is("PID", client.pid()).is("COMM", "second");
        run.finish();
    }
}

fn uid_filter_keeps_only_that_user(case: &Case) {
    let net = Net::new();
    let (root, nobody) = (net.peer("root"), net.peer("nobody"));
    nobody.become_user(65_534);
    let run = case.launch("-u 65534").start(&net).ended_by(|| nobody.refused(net.v4(END_PORT)));
    root.refused(net.v4(80));
    nobody.refused(net.v4(81));
    run.rows(1)[0].is("PID", nobody.pid()).is("DPORT", 81);
    run.finish();
    let run = case.launch("-u 0").start(&net).ended_by(|| root.refused(net.v4(END_PORT)));
    nobody.refused(net.v4(80));
    root.refused(net.v4(81));
    run.rows(1)[0].is("PID", root.pid()).is("DPORT", 81);
    run.finish();
}

fn the_uid_column_is_the_caller(case: &Case) {
    let net = Net::new();
    let (root, other) = (net.peer("root"), net.peer("other"));
    other.become_user(31_337);
    let run = case.launch("-U").start(&net);
    root.refused(net.v4(80));
    other.refused(net.v4(81));
    let rows = run.rows(2);
    let (row, to) = (line(other.pid(), "other", net.v4(0), net.v4(81)), net.v4(80));
    rows.with("DPORT", 80).reads(&format!("0     {}", line(root.pid(), "root", net.v4(0), to)));
    rows.with("DPORT", 81).reads(&format!("31337 {row}"));
    run.finish();
}

fn the_local_port_is_that_of_the_socket(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("-L").start(&net);
    let any = client.connect(web.address());
    let bound = client.connect_as(web.address(), &How::plain().bound(net.v4(7001)));
    client.fails(net.v4_of(2, 81), &How::plain().bound(net.v4(7002)), "ECONNREFUSED");
    let rows = run.rows(3);
    rows.are("LPORT", &[any.local().port(), 7001, 7002]);
    rows[1].reads(&format!(
        "{:<7} client       4  {:<16} 7001   {:<16} 80     ",
        client.pid(),
        bound.local().ip(),
        web.address().ip()
    ));
    if has_ipv6() {
        let web = server.listen(net.v6_of(2, 80));
        let any = client.connect(web.address());
        run.rows(4)[3].is("IP", 6).is("LPORT", any.local().port());
    }
    run.finish();
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
    rows[0].reads(&format!("0.000    {}", line(client.pid(), "client", net.v4(0), net.v4(port))));
    let passed = rows[1].number("TIME(s)");
    rows[1].must((0.12..20.0).contains(&passed), "0.12 s and not much more passed");
    rows[1].reads(&format!("{passed:<9.3}{}", line(client.pid(), "client", net.v4(0), net.v4(port))));
    run.finish();
}

fn a_fast_open_is_one_row(case: &Case) {
    let net = Net::new();
    // 1: clients may; 2: servers may; 4 and 0x200: without a cookie; 0x400: every listener.
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    for variant in case.variants() {
        let run = case.launch(variant).start(&net);
        let conn = client.fast_open(web.address(), 100);
        let rows = run.rows(1);
        rows[0]
            .is("PID", client.pid())
            .is("SADDR", conn.local().ip())
            .is("DADDR", web.address().ip())
            .is("DPORT", 80);
        if *variant == "-L" {
            rows[0].is("LPORT", conn.local().port());
        }
        run.finish();
    }
}

fn a_deferred_fast_open_is_one_row_at_connect(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("").start(&net);
    let conn = client.connect_as(web.address(), &How::plain().deferred_fast_open());
    run.rows(1)[0].is("PID", client.pid()).is("DPORT", 80);
    conn.send(100);
    run.rows(1);
    run.finish();
}

fn a_worker_of_io_uring_has_its_process_s_name(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("").start(&net);
    let conn = client
        .try_connect(web.address(), &How::plain().by_uring_worker())
        .unwrap_or_else(|error| skip(format!("io_uring ({error})")));
    run.rows(1)[0].reads(&line(client.pid(), "client", conn.local(), web.address()));
    // A name that anybody may have.
    let other = net.peer("iou-wrk-1");
    let conn = other.connect(web.address());
    run.rows(2)[1].reads(&line(other.pid(), "iou-wrk-1", conn.local(), web.address()));
    run.finish();
}

pub(crate) fn further_subflows_are_of_who_connected(case: &Case) {
    let net = Net::pair();
    let (server, client) = (net.far_peer("server"), net.peer("client"));
    let web = server.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let launch = |args: &str| case.launch(args).start(&net).ended_by(|| client.refused(net.v4(END_PORT)));
    let runs = [launch(""), launch(&format!("-p {}", client.pid()))];
    let _first = client.converse(&web);
    // This one's further subflow is opened in the call of `ip`, that of the next in a thread of the kernel.
    let second = net.further_subflow();
    net.await_further_subflows(1);
    let _next = client.converse(&web);
    net.await_further_subflows(2);
    for run in runs {
        let rows = run.rows(4);
        rows.are("PID", &[client.pid(); 4]).are("COMM", &["client"; 4]);
        let near = net.v4(0).ip();
        rows.are("SADDR", &[near, second.into(), near, second.into()]);
        run.finish();
    }
}

fn an_mptcp_connect_is_one_row(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen_mptcp(net.v4_of(2, 80)).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = case.launch("").start(&net);
    let conn = client.connect_as(web.address(), &How::plain().mptcp());
    run.rows(1)[0].reads(&line(client.pid(), "client", conn.local(), web.address()));
    run.finish();
}

fn a_udp_connect_is_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.order(&format!("udp-connect {}", net.v4(80)));
    run.rows(0);
    run.finish();
}

fn a_hostile_name_cannot_drive_a_terminal(case: &Case) {
    let names: [(&[u8], &str); 6] = [
        (b"\x1b[2Jrm", r"\x1b[2Jrm"),
        (b"a\nb\rc", r"a\x0ab\x0dc"),
        (b"\xff\x80", r"\xff\x80"),
        (b"\xc2\x9b1m", r"\xc2\x9b1m"),
        ("\u{202e}".as_bytes(), r"\xe2\x80\xae"),
        // An escape that does not fit into the column is left out whole.
        (b"abcdefghij\x7f", "abcdefghij"),
    ];
    let net = Net::new();
    let run = case.launch("").start(&net);
    for (nth, (name, shown)) in (1..).zip(names) {
        let client = net.peer_named(name);
        client.refused(net.v4(80));
        run.rows(nth)[nth - 1].reads(&line(client.pid(), shown, net.v4(0), net.v4(80)));
    }
    run.finish();
}

fn a_printable_name_of_many_bytes_stays(case: &Case) {
    let net = Net::new();
    let client = net.peer("grüße");
    let run = case.launch("").start(&net);
    client.refused(net.v4(80));
    run.rows(1)[0].reads(&line(client.pid(), "grüße", net.v4(0), net.v4(80)));
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("abcdefghijklmno"));
    client.become_user(31_337);
    let web = server.listen(net.v4_of(2, 80));
    let run = case.launch("--json -L -U -t").start(&net);
    let conn = client.connect(web.address());
    let rows = run.rows(1);
    // The whole name: cutting is for columns.
    rows[0].is("pid", client.pid()).is("comm", "abcdefghijklmno").is("ip", 4).is("uid", 31_337);
    rows[0].is("saddr", conn.local().ip()).is("lport", conn.local().port());
    rows[0].is("daddr", web.address().ip()).is("dport", 80);
    rfc3339(&rows[0]);
    run.finish();
}

fn chosen_columns_tell_of_the_process(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    client.become_user(31_337);
    let run = case.launch("--json -o +user,ppid,exe,cmdline").start(&net);
    let new = net.new_peer("new");
    client.refused(net.v4(80));
    new.refused(net.v4(81));
    let rows = run.rows(2);
    rows[0].is("pid", client.pid()).is("user", 31_337).is("ppid", std::process::id());
    let exe = std::env::current_exe().expect("this program has a path");
    rows[0].is("cmdline", "/proc/self/exe").is("exe", exe.display());
    // The tool has no power left to ask for its file.
    rows[1].is("pid", new.pid()).is("user", "root").is("cmdline", "/proc/self/exe");
    run.finish();
}

/// Insists on a time with nanoseconds: `2026-08-11T12:34:56.123456789+02:00`, or `Z` at the end.
fn rfc3339(row: &Row) {
    let time = row.get("time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let ends = ["Z", "+00:00", "-00:00"];
    let right = ends.iter().any(|end| shape == format!("0000-00-00T00:00:00.000000000{end}"));
    row.must(right, "the time has RFC 3339's form with nanoseconds");
}

fn json_says_the_query(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("--json -d").start(&net);
    client.refused(net.v4(80));
    run.rows(1)[0].is("query", "No DNS Query");
    run.finish();
}

/// The table of `-c`, as the tool printed it at its end, without the flows of others.
fn table(ended: &Ended, net: &Net) -> Vec<String> {
    ended.code(0).quiet();
    let lines: Vec<&str> = ended.stdout.iter().map(String::as_str).collect();
    let header = format!("{:<25} {:<25} {:<20} {:<10}", "LADDR", "RADDR", "RPORT", "CONNECTS");
    if lines.get(..3) != Some(&[BANNER, "", &header]) {
        ended.fail("the table should start with the banner, an empty line and its header");
    }
    let mine = |line: &&&str| {
        let mut cells = line.split_whitespace();
        let mut cell =
            || cells.next().unwrap_or_else(|| ended.fail(&format!("a line is too short: {line:?}")));
        let (from, to, port) = (cell(), cell(), cell());
        net.owns([from, to].into_iter(), [port].into_iter())
    };
    lines[3..].iter().filter(mine).map(ToString::to_string).collect()
}

fn the_count_table_tells_local_ports_apart(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    // One port only, so that the next two opens fail: where the kernel chooses at bind(), and at connect().
    net.near().sysctl("ipv4/ip_local_port_range", "40000 40000");
    net.near().sysctl("ipv4/ip_autobind_reuse", "1");
    let run = case.launch("-cs").start(&net);
    let _held: Vec<_> = [40_000, 7001, 7001, 7002]
        .into_iter()
        .zip([80, 80, 81, 80])
        .filter_map(|(from, to)| client.try_connect(net.v4(to), &How::plain().bound(net.v4(from))).ok())
        .collect();
    client.fails(web.address(), &How::plain().bound(net.v4(0)), "EADDRNOTAVAIL");
    client.fails(web.address(), &How::plain(), "EADDRNOTAVAIL");
    client.fails(web.address(), &How::plain().bound(net.v4(7002)), "EADDRNOTAVAIL");
    client.fails(net.unroutable(80), &How::plain(), "ENETUNREACH");
    let ended = run.stop();
    let address = net.v4(0).ip().to_string();
    let line = |from: u16, to: u16| format!("{address:<25} {address:<25} {from:<20} {to:<20} 1         ");
    let expected = [line(7001, 80), line(7002, 80), line(40_000, 80), line(7001, 81)];
    let mine = |text: &&String| text.starts_with(&address);
    let table: Vec<_> = ended.code(0).quiet().stdout.iter().filter(mine).collect();
    assert_eq!(table, expected.iter().collect::<Vec<_>>(), "{:#?}", ended.stdout);
}

fn flow(from: SocketAddr, to: SocketAddr, count: usize) -> String {
    format!("{:<25} {:<25} {:<20} {count:<10}", from.ip().to_string(), to.ip().to_string(), to.port())
}

fn the_count_table_is_sorted_and_ends_with_exit_0(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let (a, b) = (server.listen(net.v4(80)), server.listen(net.v4(81)));
    let run = case.launch("-c").start(&net);
    client.connect(b.address());
    for _ in 0..3 {
        client.connect(a.address());
    }
    let ended = run.stop();
    let from = net.v4(0);
    assert_eq!(table(&ended, &net), [flow(from, a.address(), 3), flow(from, b.address(), 1)]);
}

fn the_count_table_lists_ipv4_before_ipv6(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-c").start(&net);
    for (to, times) in
        [(net.v6(80), 5), (net.v6(81), 7), (net.v4(82), 2), (net.v4_of(2, 82), 1), (net.v4(81), 2)]
    {
        for _ in 0..times {
            client.refused(to);
        }
    }
    let ended = run.stop();
    let (v4, v6) = (net.v4(0), net.v6(0));
    // Flows that are as frequent are sorted by address and port.
    let expected = [
        flow(v4, net.v4(81), 2),
        flow(v4, net.v4(82), 2),
        flow(net.v4_of(2, 0), net.v4_of(2, 82), 1),
        flow(v6, net.v6(81), 7),
        flow(v6, net.v6(80), 5),
    ];
    assert_eq!(table(&ended, &net), expected, "{:#?}", ended.stdout);
}

fn the_count_table_obeys_the_filters(case: &Case) {
    let net = Net::new();
    let (one, other) = (net.peer("one"), net.peer("other"));
    other.become_user(65_534);
    let count = |options: &str, peers: &[&Peer]| {
        let run = case.launch(options).start(&net);
        for peer in peers {
            peer.refused(net.v4(80));
            peer.refused(net.v4(81));
        }
        table(&run.stop(), &net)
    };
    let (from, a, b) = (net.v4(0), net.v4(80), net.v4(81));
    assert_eq!(count("-c -u 65534 -P 81", &[&one, &other, &other]), [flow(from, b, 2)]);
    let both = [flow(from, a, 1), flow(from, b, 1)];
    assert_eq!(count(&format!("-cp {}", one.pid()), &[&one, &other]), both);
    // Each connect has a port of its own, which is asked for and is no part of the flow.
    let thrice = [flow(from, a, 3), flow(from, b, 3)];
    assert_eq!(count("-c --lport=1-65535,!80", &[&one, &one, &other]), thrice);
}

fn the_count_table_has_a_header_without_flows(case: &Case) {
    let net = Net::new();
    let run = case.launch(&format!("-c -P {}", net.port(3))).start(&net);
    let ended = run.stop();
    assert_eq!(table(&ended, &net), Vec::<String>::new());
    assert_eq!(ended.stdout.len(), 3, "{:?}", ended.stdout);
}

fn sigterm_ends_like_ctrl_c(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("").start(&net);
    client.refused(net.v4(80));
    run.rows(1);
    run.signal(Signal::SIGTERM).code(0).quiet();
}

fn sigterm_prints_the_count_table_too(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-c").start(&net);
    client.refused(net.v4(80));
    let ended = run.signal(Signal::SIGTERM);
    assert_eq!(table(&ended, &net), [flow(net.v4(0), net.v4(80), 1)]);
}

/// Mounts that only this test's thread and its children see, taken away at the end.
pub(crate) struct Mounts {
    root: PathBuf,
    kinds: Vec<&'static str>,
}

impl Mounts {
    pub(crate) fn new() -> Self {
        own_mounts();
        let root = tempfile::tempdir().expect("a directory").keep();
        Self { root, kinds: vec![] }
    }

    /// Mounts a file system of this kind and says where.
    pub(crate) fn mount(&mut self, kind: &'static str) -> PathBuf {
        let at = self.root.join(kind);
        fs::create_dir(&at).expect("a directory");
        if let Err(error) = mount(Some(kind), &at, Some(kind), MsFlags::empty(), None::<&str>) {
            skip(format!("a file system of kind {kind} ({error})"));
        }
        self.kinds.push(kind);
        at
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for kind in &self.kinds {
            let _gone_with_the_namespace = umount2(&self.root.join(kind), MntFlags::MNT_DETACH);
        }
        let _left_in_tmp = fs::remove_dir_all(&self.root);
    }
}

pub(crate) fn pinned(map: &Map, at: &Path) -> String {
    map.pin(at).expect("a bpf file system takes pins");
    at.display().to_string()
}

/// Cgroups of our own, with the paths that runtimes give theirs.
pub(crate) struct Groups {
    root: PathBuf,
    name: String,
    made: Vec<PathBuf>,
    /// Gone after the cgroups.
    mounts: Mounts,
}

impl Groups {
    pub(crate) fn new(case: &Case) -> Self {
        let mut mounts = Mounts::new();
        let root = mounts.mount("cgroup2");
        let name = format!("netbcc-test-{}-{}-{}", std::process::id(), case.tool, case.rung.name());
        Self { root, name, made: vec![], mounts }
    }

    /// Moves a peer into the cgroup with this path below ours; says the whole path.
    pub(crate) fn put(&mut self, peer: &Peer, path: &str) -> String {
        let whole = format!("/{}/{path}", self.name);
        let mut at = self.root.clone();
        for part in whole.split('/').skip(1) {
            at.push(part);
            match fs::create_dir(&at) {
                Ok(()) => self.made.push(at.clone()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => skip(format!("cgroups of our own ({error})")),
            }
        }
        peer.join_cgroup(&at);
        whole
    }

    /// A file system for pinned maps.
    pub(crate) fn pins(&mut self) -> PathBuf {
        self.mounts.mount("bpf")
    }

    /// The folder of a cgroup, as [`Groups::put`] says its path.
    pub(crate) fn folder(&self, whole: &str) -> PathBuf {
        self.root.join(whole.trim_start_matches('/'))
    }

    /// Takes them away; nobody is left in them.
    pub(crate) fn remove(mut self) {
        for group in self.made.drain(..).rev() {
            // A process that ended is in its cgroup until it is buried.
            let deadline = Instant::now() + PATIENCE;
            while let Err(error) = fs::remove_dir(&group) {
                assert!(Instant::now() < deadline, "{}: {error}", group.display());
                thread::yield_now();
            }
        }
    }
}

/// A container's id.
pub(crate) const CONTAINER: &str = "3f4e9c1d2b5a6978c0d1e2f30415263748596a7b8c9daebfc0d1e2f3a4b5c6d7";

fn containers_are_told_by_the_cgroups_of_each_runtime(case: &Case) {
    let uid = "0b1c2d3e_4f50_6172_8394_a5b6c7d8e9f0";
    let cri = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let run = case.launch("--json -o +cgroup,unit,container,container_id,pod_uid").start(&net);
        let paths = [
            (format!("docker/{CONTAINER}"), true, false),
            (format!("machine.slice/libpod-{CONTAINER}.scope/container"), true, false),
            (format!("{cri}/cri-containerd-{CONTAINER}.scope"), true, true),
            (format!("{cri}/crio-{CONTAINER}.scope"), true, true),
            ("system.slice/nginx.service".to_owned(), false, false),
        ];
        // Each has a number of its own, as what is known of one may be a tenth of a second old.
        let peers: Vec<Peer> = paths.iter().map(|_| net.peer("client")).collect();
        for (nth, ((path, is_container, is_pod), peer)) in paths.iter().zip(&peers).enumerate() {
            let whole = groups.put(peer, path);
            peer.refused(net.v4(80));
            let rows = run.rows(nth + 1);
            let known = |known: bool, text: &str| if known { text.to_owned() } else { "null".to_owned() };
            rows[nth].is("pid", peer.pid()).is("cgroup", whole);
            rows[nth].is("container", known(*is_container, &CONTAINER[..12]));
            rows[nth].is("container_id", known(*is_container, CONTAINER));
            rows[nth].is("pod_uid", known(*is_pod, &uid.replace('_', "-")));
            rows[nth].is("unit", known(!is_container, "nginx.service"));
        }
        run.finish();
    }
    groups.remove();
}

fn cgroup_map_keeps_only_its_members(case: &Case) {
    let mut mounts = Mounts::new();
    let (bpf, groups) = (mounts.mount("bpf"), mounts.mount("cgroup2"));
    let group = groups.join(format!("netbcc-test-{}-{}", std::process::id(), case.rung.name()));
    fs::create_dir(&group).unwrap_or_else(|e| skip(format!("cgroups of our own ({e})")));
    {
        let net = Net::new();
        let (inside, outside) = (net.peer("inside"), net.peer("outside"));
        inside.join_cgroup(&group);
        let map = Map::hash(8).expect("a map");
        map.insert(fs::metadata(&group).expect("it is there").ino()).expect("a key");
        let path = pinned(&map, &bpf.join("groups"));
        let options = format!("--cgroupmap {path}");
        let run = case.launch(&options).start(&net).ended_by(|| inside.refused(net.v4(END_PORT)));
        outside.refused(net.v4(80));
        inside.refused(net.v4(81));
        run.rows(1)[0].is("PID", inside.pid()).is("DPORT", 81);
        run.finish();
        let run = case.launch(&format!("-c {options}")).start(&net);
        outside.refused(net.v4(80));
        inside.refused(net.v4(81));
        assert_eq!(table(&run.stop(), &net), [flow(net.v4(0), net.v4(81), 1)]);
    }
    fs::remove_dir(&group).expect("nobody is left in it");
}

fn mount_namespace_map_keeps_only_its_members(case: &Case) {
    let mut mounts = Mounts::new();
    let bpf = mounts.mount("bpf");
    let net = Net::new();
    let (inside, outside) = (net.peer("inside"), net.peer("outside"));
    let map = Map::hash(4).expect("a map");
    map.insert(inside.own_mounts()).expect("a key");
    let path = pinned(&map, &bpf.join("mounts"));
    let options = format!("--mntnsmap {path}");
    let run = case.launch(&options).start(&net).ended_by(|| inside.refused(net.v4(END_PORT)));
    outside.refused(net.v4(80));
    inside.refused(net.v4(81));
    run.rows(1)[0].is("PID", inside.pid()).is("DPORT", 81);
    run.finish();
}

fn a_map_path_that_does_not_exist_is_refused(case: &Case) {
    for option in ["--cgroupmap", "--mntnsmap"] {
        let ended = case.launch(&format!("{option} /sys/fs/bpf/netbcc-no-such-map")).ends();
        ended.code(1).one_line("tcpconnect", &["/sys/fs/bpf/netbcc-no-such-map"]);
    }
}

fn a_map_path_that_is_a_plain_file_is_refused(case: &Case) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    for option in ["--cgroupmap", "--mntnsmap"] {
        case.launch(&format!("{option} {path}")).ends().code(1).one_line("tcpconnect", &[&path]);
    }
}

fn a_map_of_the_wrong_type_is_refused(case: &Case) {
    let mut mounts = Mounts::new();
    let bpf = mounts.mount("bpf");
    // An array; short keys; values of the wrong size.
    for (nth, (kind, key, value)) in [(2, 4, 8), (1, 4, 8), (1, 8, 16)].into_iter().enumerate() {
        let map = Map::create(kind, key, value, 16).expect("a map");
        let path = pinned(&map, &bpf.join(nth.to_string()));
        for option in ["--cgroupmap", "--mntnsmap"] {
            case.launch(&format!("{option} {path}")).ends().code(1).one_line("tcpconnect", &[&path]);
        }
    }
}

fn a_prime_number_of_connects_is_that_number_of_rows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    web.serve();
    let run = case.launch("").start(&net);
    assert_eq!(client.churn(web.address(), 1009, 1), (1009, 0));
    run.rows(1009).are("PID", &[client.pid(); 1009]);
    run.finish();
}

fn parallel_connects_all_appear(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    web.serve();
    for options in case.variants() {
        let run = case.launch(options).start(&net);
        assert_eq!(client.churn(web.address(), 1009, 16), (1009, 0));
        run.rows(1009);
        run.finish();
    }
}

fn many_refusals_do_not_hide_what_follows(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    for options in case.variants() {
        let run = case.launch(options).start(&net);
        assert_eq!(client.churn(net.v4(81), 1200, 1), (0, 1200));
        client.connect(web.address());
        run.rows(1201)[1200].is("DPORT", 80);
        run.finish();
    }
}

fn many_refusals_do_not_hide_what_follows_under_count(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4(80));
    let run = case.launch("-c").start(&net);
    assert_eq!(client.churn(net.v4(81), 1200, 1), (0, 1200));
    client.connect(web.address());
    let from = net.v4(0);
    assert_eq!(table(&run.stop(), &net), [flow(from, net.v4(81), 1200), flow(from, net.v4(80), 1)]);
}

/// A name server, a client, and the tool that watches both.
struct Dns<'n> {
    net: &'n Net,
    named: Peer,
    client: Peer,
    run: Run<'n>,
    rows: Cell<usize>,
    hosts: Cell<u8>,
    /// What the server that was made last is asked.
    question: RefCell<Vec<u8>>,
}

/// The question that this message answers, if it can be read; else any.
fn question_of(answer: &[u8]) -> Vec<u8> {
    let name = answer.get(12..).and_then(|rest| rest.iter().position(|&byte| byte == 0));
    match name.and_then(|root| answer.get(12..12 + root + 5)) {
        Some(question) => [&Message::query("", kind::A).bytes()[..12], question].concat(),
        None => Message::query("any.example.com", kind::A).bytes(),
    }
}

impl<'n> Dns<'n> {
    fn new(case: &Case, net: &'n Net) -> Self {
        let (named, client) = (net.peer("named"), net.peer("client"));
        let run = case.launch("-d").start(net);
        Self {
            net,
            named,
            client,
            run,
            rows: Cell::new(0),
            hosts: Cell::new(100),
            question: RefCell::default(),
        }
    }

    /// The number of a host that nobody has used: what was said of others cannot be taken for it.
    fn host(&self) -> u8 {
        let host = self.hosts.get();
        self.hosts.set(host + 1);
        self.net.add_host(host);
        host
    }

    /// A server that gives this answer.
    fn serve(&self, answer: &[u8]) -> SocketAddr {
        *self.question.borrow_mut() = question_of(answer);
        let server = self.net.v4_of(self.host(), 53);
        self.named.serve_dns(server, answer);
        server
    }

    /// A server over IPv6 that gives this answer.
    fn serve6(&self, answer: &[u8]) -> SocketAddr {
        *self.question.borrow_mut() = question_of(answer);
        let server = self.net.v6_of(self.host(), 53);
        self.named.serve_dns(server, answer);
        server
    }

    /// Somewhere to connect to.
    fn target(&self) -> SocketAddr {
        self.net.v4_of(self.host(), 80)
    }

    /// Resolves and connects at once; what QUERY says.
    fn query(&self, server: SocketAddr, how: &str, to: SocketAddr) -> String {
        for _ in 0..20 {
            let took = self.client.resolve_and_connect(server, &self.question.borrow(), how, to);
            self.rows.set(self.rows.get() + 1);
            let rows = self.run.rows(self.rows.get());
            // On a busy machine 100 ms may pass between the two, and then the row rightly says so.
            if took < Duration::from_millis(90) {
                return rows[self.rows.get() - 1].get("QUERY").into();
            }
        }
        self.run.fail("this machine takes 90 ms for a question and a connect, each of 20 times")
    }

    /// What QUERY says about a connect without a question before.
    fn query_of(&self, to: SocketAddr) -> String {
        self.client.refused(to);
        self.rows.set(self.rows.get() + 1);
        self.run.rows(self.rows.get())[self.rows.get() - 1].get("QUERY").into()
    }

    fn finish(self) {
        self.run.finish();
    }
}

/// The ways to read an answer; `actor.rs` says what they do.
const HOWS: [&str; 7] =
    ["recv", "read", "recvfrom", "recvmsg", "connected-recvmsg", "recvmsg-in-parts", "mmsg"];

fn dns_answers_are_seen_however_they_are_read(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    for how in HOWS {
        let (name, to) = (format!("{how}.example.com"), dns.target());
        let server = dns.serve(&Message::response(&name, kind::A).address("", to.ip()).edns().bytes());
        assert_eq!(dns.query(server, how, to), name);
    }
    dns.finish();
}

fn dns_answers_over_ipv6_are_seen_however_they_are_read(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    for how in HOWS {
        let (name, to) = (format!("{how}.example.com"), dns.target());
        let server = dns.serve6(&Message::response(&name, kind::A).address("", to.ip()).edns().bytes());
        assert_eq!(dns.query(server, how, to), name);
    }
    dns.finish();
}

fn dns_answers_on_dual_stack_sockets_are_seen(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    for how in HOWS {
        let (name, to) = (format!("{how}.example.com"), dns.target());
        let server = dns.serve(&Message::response(&name, kind::A).address("", to.ip()).bytes());
        assert_eq!(dns.query(Net::mapped(server), how, to), name);
    }
    dns.finish();
}

fn dns_answers_of_4_kib_count_to_their_last_record(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    for (how, ipv6) in [("recv", false), ("recvfrom", false), ("recvmsg", true), ("recvfrom", true)] {
        if ipv6 && !has_ipv6() {
            continue;
        }
        let (name, to) = (format!("{how}-{ipv6}.example.com"), dns.target());
        let answer = Message::response(&name, kind::A).padded_to(4096).address("", to.ip()).bytes();
        assert!((4064..=4096).contains(&answer.len()), "{}", answer.len());
        let server = if ipv6 { dns.serve6(&answer) } else { dns.serve(&answer) };
        assert_eq!(dns.query(server, how, to), name);
    }
    dns.finish();
}

fn dns_answers_from_other_ports_do_not_count(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let to = dns.target();
    let answer = Message::response("www.example.com", kind::A).address("", to.ip());
    let server = net.v4_of(3, 5353);
    *dns.question.borrow_mut() = question_of(&answer.bytes());
    dns.named.serve_dns(server, &answer.bytes());
    for how in ["recv", "recvfrom"] {
        assert_eq!(dns.query(server, how, to), "No DNS Query", "{how}");
    }
    dns.finish();
}

/// A socket in the namespace of the test, at this address.
fn udp_at(net: &Net, at: SocketAddr) -> UdpSocket {
    net.near().enter(|| UdpSocket::bind(at)).expect("a socket")
}

fn dns_answers_that_nobody_asked_for_do_not_count(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let (closed, open) = (dns.target(), dns.target());
    let (server, client) = (udp_at(&net, net.v4_of(dns.host(), 53)), udp_at(&net, net.v4(4053)));
    let forged =
        |to: SocketAddr| Message::response("never.example.com", kind::A).address("", to.ip()).bytes();
    server.send_to(&forged(closed), net.v4(4054)).expect("sent");
    server.send_to(&forged(open), client.local_addr().expect("bound")).expect("sent");
    client.recv(&mut [0; 512]).expect("it came");
    for to in [closed, open] {
        assert_eq!(dns.query_of(to), "No DNS Query");
    }
    dns.finish();
}

/// The families that there are: a host's address of each.
fn families(net: &Net) -> Vec<impl Fn(u8, u16) -> SocketAddr> {
    let of = |is_v6| move |host, port| if is_v6 { net.v6_of(host, port) } else { net.v4_of(host, port) };
    if has_ipv6() { vec![of(false), of(true)] } else { vec![of(false)] }
}

/// The answer with this name that names `to`, under this id.
fn answer_of(name: &str, to: SocketAddr, id: u8) -> Vec<u8> {
    let mut bytes = Message::response(name, kind::A).address("", to.ip()).bytes();
    bytes[1] = id;
    bytes
}

/// The question to it.
fn asks_for(answer: &[u8]) -> Vec<u8> {
    let mut bytes = question_of(answer);
    bytes[1] = answer[1];
    bytes
}

/// Sends this from one socket to the other, and reads it there.
fn hand(from: &UdpSocket, to: &UdpSocket, message: &[u8]) {
    from.send_to(message, to.local_addr().expect("bound")).expect("sent");
    to.recv(&mut [0; 512]).expect("it came");
}

impl Dns<'_> {
    /// Insists that what this forgery says of `to` is not believed.
    fn disbelieves(&self, forgery: &str, to: SocketAddr) {
        let said = self.query_of(to);
        if said != "No DNS Query" {
            self.run.fail(&format!("{forgery}: {said}"));
        }
    }

    /// Insists that `to` has this name, however old it is.
    fn names(&self, to: SocketAddr, name: &str) {
        let said = self.query_of(to);
        if said.split(' ').next() != Some(name) {
            self.run.fail(&format!("{name}: {said}"));
        }
    }
}

/// A question, and messages that each get one thing of its answer wrong; the right one, which counts all the same; what
/// comes after it; and messages that are no question, with answers to them.
fn dns_answers_that_fit_no_question_do_not_count(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    for at in families(&net) {
        let host = dns.host();
        let [server, elsewhere] = [53, 5353].map(|port| udp_at(&net, at(host, port)));
        let stranger = udp_at(&net, at(dns.host(), 53));
        let [client, other] = [4053, 4054].map(|port| udp_at(&net, at(1, port)));
        let (right, wrong) = (dns.target(), dns.target());
        let forged = |id| answer_of("asked.example.com", wrong, id);

        let good = answer_of("asked.example.com", right, 1);
        hand(&client, &server, &asks_for(&good));
        hand(&server, &client, &forged(2));
        dns.disbelieves("another id", wrong);
        hand(&stranger, &client, &forged(1));
        dns.disbelieves("from another address", wrong);
        hand(&elsewhere, &client, &forged(1));
        dns.disbelieves("from another port", wrong);
        hand(&server, &other, &forged(1));
        dns.disbelieves("to another port", wrong);
        hand(&server, &udp_at(&net, at(3, 4053)), &forged(1));
        dns.disbelieves("to another address", wrong);
        hand(&server, &client, &answer_of("other.example.com", wrong, 1));
        dns.disbelieves("to another question", wrong);
        let mut kind = forged(1);
        kind[12 + 19 + 1] = 28;
        hand(&server, &client, &kind);
        dns.disbelieves("of another type", wrong);
        hand(&server, &client, &good);
        dns.names(right, "asked.example.com");
        hand(&server, &client, &forged(1));
        dns.disbelieves("a second answer", wrong);

        hand(&client, &server, &asks_for(&forged(3)));
        for _ in 0..4 {
            hand(&server, &client, &answer_of("other.example.com", wrong, 3));
        }
        hand(&server, &client, &forged(3));
        dns.disbelieves("after as many as are looked at", wrong);

        // These are no answers, and leave room for one.
        let latest = dns.target();
        let late = answer_of("late.example.com", latest, 6);
        hand(&client, &server, &asks_for(&late));
        for _ in 0..4 {
            hand(&server, &client, &asks_for(&late));
            hand(&server, &client, &late[..3]);
        }
        hand(&server, &client, &late);
        dns.names(latest, "late.example.com");

        hand(&client, &server, &forged(4));
        hand(&server, &client, &forged(4));
        dns.disbelieves("to an answer", wrong);
        hand(&client, &elsewhere, &asks_for(&forged(5)));
        hand(&server, &client, &forged(5));
        dns.disbelieves("to a question that went to another port", wrong);
        dns.names(right, "asked.example.com");
    }
    if has_ipv6() {
        // The numbers of the addresses are the same, as far as those of IPv4 go.
        let (v4, v6) = (|host, port| net.v4_of(host, port), |host, port| net.v4_like(host, port));
        let ([client, server], [client6, server6]) = (
            [udp_at(&net, v4(1, 4055)), udp_at(&net, v4(2, 53))],
            [udp_at(&net, v6(1, 4055)), udp_at(&net, v6(2, 53))],
        );
        let wrong = dns.target();
        let forged = answer_of("asked.example.com", wrong, 1);
        hand(&client, &server, &asks_for(&forged));
        hand(&server6, &client6, &forged);
        dns.disbelieves("by the other family", wrong);
    }
    dns.finish();
}

/// Two namespaces with the same addresses, where the same is asked, from the same port and under the same id.
fn dns_answers_of_another_namespace_do_not_count(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let twin = net.twin();
    for at in families(&net) {
        let [(client, server), (its_client, its_server)] =
            [&net, &twin].map(|net| (udp_at(net, at(1, 4053)), udp_at(net, at(2, 53))));
        let (here, there) = (dns.target(), dns.target());
        let [answer, its_answer] = [here, there].map(|to| answer_of("twin.example.com", to, 1));
        hand(&client, &server, &asks_for(&answer));
        hand(&its_server, &its_client, &its_answer);
        dns.disbelieves("in a namespace where nobody asked", there);
        hand(&its_client, &its_server, &asks_for(&answer));
        hand(&its_server, &its_client, &its_answer);
        hand(&server, &client, &answer);
        dns.names(there, "twin.example.com");
        dns.names(here, "twin.example.com");
    }
    dns.finish();
}

/// As systemd-resolved and dnsmasq have it: who answers is on this host.
fn dns_answers_of_a_resolver_on_loopback_count(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let stub: SocketAddr = (Ipv4Addr::new(127, 0, 0, 53), 53).into();
    let servers = if has_ipv6() { vec![stub, Net::loopback6(53)] } else { vec![stub] };
    for (server, name) in servers.into_iter().zip(["stub.example.com", "stub6.example.com"]) {
        let to = dns.target();
        let answer = Message::response(name, kind::A).address("", to.ip()).edns().bytes();
        *dns.question.borrow_mut() = question_of(&answer);
        dns.named.serve_dns(server, &answer);
        assert_eq!(dns.query(server, "mmsg", to), name);
    }
    dns.finish();
}

/// An IPv4 packet with a UDP header, of this protocol and with these fragment bits, from a raw socket. Its checksum is that
/// of the text, but for `wrong`.
fn send_raw(
    net: &Net,
    from: SocketAddr,
    to: SocketAddr,
    (protocol, fragment, wrong): (u8, u16, u16),
    text: &[u8],
) {
    let (IpAddr::V4(near), IpAddr::V4(far)) = (from.ip(), to.ip()) else { unreachable!("it is IPv4") };
    let length = u16::try_from(8 + text.len()).expect("it is short");
    let ports = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    let pseudo = [&near.octets()[..], &far.octets(), &[0, 17], &length.to_be_bytes()].concat();
    let summed = [&pseudo[..], &ports, &length.to_be_bytes(), &[0, 0], text].concat();
    let mut sum: u32 =
        summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded") ^ wrong;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend([near.octets(), far.octets()].concat());
    packet.extend(ports);
    packet.extend(length.to_be_bytes());
    packet.extend(checksum.to_be_bytes());
    packet.extend(text);
    let raw = net
        .near()
        .enter(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw))
        .expect("we are root");
    // The kernel fills in the length and the checksum of the IP header.
    let sent = sendto(raw.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty());
    assert_eq!(sent, Ok(packet.len()));
}

/// What reaches no reader, and what only looks like a datagram.
fn dns_answers_that_nobody_reads_do_not_count(case: &Case) {
    const UDP: u8 = 17;
    /// A protocol of nobody (RFC 3692).
    const NONE: u8 = 253;
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let host = dns.host();
    let (server, client) = (udp_at(&net, net.v4_of(host, 53)), udp_at(&net, net.v4(4053)));
    let (from, to) = (net.v4_of(host, 53), net.v4(4053));
    let (right, wrong) = (dns.target(), dns.target());
    let answer = |to, id| answer_of("asked.example.com", to, id);

    hand(&client, &server, &asks_for(&answer(right, 1)));
    send_raw(&net, from, to, (UDP, 0, 1), &answer(wrong, 1));
    send_raw(&net, from, to, (UDP, 1, 0), &answer(wrong, 1));
    hand(&server, &client, &answer(right, 1));
    dns.disbelieves("with a wrong checksum, or in a fragment that is not the first", wrong);
    dns.names(right, "asked.example.com");
    // Other packets take the place of the answer in memory, many at once, and nobody reads them.
    for port in 5000..5008 {
        let silent = udp_at(&net, net.v4(port));
        for _ in 0..250 {
            server.send_to(&answer(wrong, 2), silent.local_addr().expect("bound")).expect("sent");
        }
    }
    // Their sockets are freed a little later.
    thread::sleep(Duration::from_millis(50));
    dns.names(right, "asked.example.com");

    send_raw(&net, to, from, (NONE, 0, 0), &asks_for(&answer(wrong, 3)));
    hand(&server, &client, &answer(wrong, 3));
    dns.disbelieves("to a question of another protocol", wrong);

    hand(&client, &server, &asks_for(&answer(wrong, 4)));
    server.send_to(&answer(wrong, 4), to).expect("sent");
    let ready = poll(&mut [PollFd::new(client.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16));
    assert_eq!(ready, Ok(1));
    if case.rung == Rung::Tracepoint {
        // It counts as long as somebody may read it.
        dns.names(wrong, "asked.example.com");
    } else {
        dns.disbelieves("while it waits for a reader", wrong);
    }
    drop(client);
    // The kernel frees the socket, and with it the answer, a little later.
    let deadline = Instant::now() + PATIENCE;
    while dns.query_of(wrong) != "No DNS Query" {
        assert!(Instant::now() < deadline, "an answer whose socket is closed counts");
    }
    let client = udp_at(&net, to);
    hand(&client, &server, &asks_for(&answer(wrong, 5)));
    drop(client);
    server.send_to(&answer(wrong, 5), to).expect("sent");
    dns.disbelieves("to a socket that is closed", wrong);
    dns.names(right, "asked.example.com");
    dns.finish();
}

fn dns_answers_in_a_flood_take_no_rows(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let server = udp_at(&net, net.v4_of(2, 53));
    let run = case.launch("-d --x-ring-bytes 262144").start(&net);
    let message = Message::response("flood.example.com", kind::A).padded_to(1400).bytes();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _no_matter = server.send_to(&message, net.v4(4054));
            }
        });
        assert_eq!(client.churn(net.v4(81), 1009, 1), (0, 1009));
        done.store(true, Ordering::Relaxed);
    });
    run.rows(1009).are("PID", &[client.pid(); 1009]);
    run.finish();
}

fn dns_prefers_what_the_process_asked_for(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let (second, third) = (net.peer("second"), net.peer("third"));
    let to = dns.target();
    for (peer, name) in [(&dns.client, "one.example.com"), (&second, "two.example.com")] {
        let server = dns.serve(&Message::response(name, kind::A).address("", to.ip()).bytes());
        peer.resolve(server, &dns.question.borrow(), "recvfrom");
    }
    for peer in [&dns.client, &second, &third] {
        peer.refused(to);
    }
    let rows = dns.run.rows(3);
    // The third asked nobody: the newest.
    for (row, name) in (0..).zip(["one.example.com", "two.example.com", "two.example.com"]) {
        let query = rows[row].get("QUERY").to_owned();
        rows[row].must(query.starts_with(name), name);
    }
    dns.finish();
}

/// The oldest of 64 questions makes room; not one that was asked again since. That had its answer, so nothing is told.
fn dns_keeps_a_question_that_was_asked_again(case: &Case) {
    let net = Net::new();
    let (client, server) = (udp_at(&net, net.v4(4053)), udp_at(&net, net.v4_of(2, 53)));
    let by = net.peer("client");
    let run = case.launch("-d --x-table-entries 64").start(&net);
    let answer = |name: &str, id| answer_of(name, net.v4(80), id);
    let (once, again) = ("once.example.com", "again.example.com");
    let both = |id| {
        hand(&client, &server, &asks_for(&answer(once, id)));
        hand(&server, &client, &answer(once, id));
    };
    (0..50).for_each(both);
    hand(&client, &server, &asks_for(&answer(again, 0)));
    (50..80).for_each(both);
    hand(&server, &client, &answer(again, 0));
    by.refused(net.v4(80));
    let rows = run.rows(1);
    rows[0].must(rows[0].get("QUERY").starts_with(again), "the name of what was asked last");
    let ended = run.stop();
    if ended.code(0).said().contains("forgotten") {
        ended.fail("each question that made room had its answer");
    }
}

fn dns_tells_of_questions_that_it_forgot(case: &Case) {
    let net = Net::new();
    let client = udp_at(&net, net.v4(4053));
    let server = udp_at(&net, net.v4_of(2, 53));
    let run = case.launch("-d --x-table-entries 64").start(&net);
    for id in 0..67_u8 {
        let mut question = Message::query("silent.example.com", kind::A).bytes();
        question[1] = id;
        client.send_to(&question, server.local_addr().expect("bound")).expect("sent");
    }
    let ended = run.stop();
    // Other tests may ask meanwhile.
    let said = ended.code(0).said();
    let told = said
        .split_once("names may be missing: ")
        .and_then(|(_, told)| told.split_once(" DNS questions were forgotten"));
    if told.and_then(|(number, _)| number.parse().ok()).unwrap_or(0) < 3 {
        ended.fail("three questions were forgotten at least");
    }
}

fn dns_says_how_long_ago_it_was(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let to = dns.target();
    let server = dns.serve(&Message::response("www.example.com", kind::A).address("", to.ip()).bytes());
    assert_eq!(dns.query(server, "recv", to), "www.example.com");
    // This pause is what is measured, not a wait for something.
    thread::sleep(Duration::from_millis(200));
    let said = dns.query_of(to);
    let delta = said.strip_prefix("www.example.com (").and_then(|rest| rest.strip_suffix("ms)"));
    let (whole, part) = delta.and_then(|delta| delta.split_once('.')).unwrap_or_else(|| panic!("{said:?}"));
    assert!(part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()), "{said:?}");
    assert!((200..20_000).contains(&whole.parse::<u32>().expect("milliseconds")), "{said:?}");
    dns.finish();
}

/// One server with this answer about the target; what QUERY says then.
fn says(case: &Case, target: IpAddr, net: &Net, answer: &[u8]) -> String {
    let dns = Dns::new(case, net);
    let said = dns.query(dns.serve(answer), "recv", (target, 80).into());
    dns.finish();
    said
}

fn dns_names_an_ipv6_address(case: &Case) {
    let net = Net::new();
    let to = net.v6_of(2, 80).ip();
    let answer = Message::response("six.example.com", kind::AAAA).address("", to);
    assert_eq!(says(case, to, &net, &answer.bytes()), "six.example.com");
}

fn dns_names_the_question_behind_aliases(case: &Case) {
    let net = Net::new();
    let to = net.v4_of(2, 80).ip();
    let answer = Message::response("www.example.com", kind::A)
        .cname("www.example.com", "cdn.example.net")
        .cname("cdn.example.net", "edge.example.org")
        .address("edge.example.org", to);
    assert_eq!(says(case, to, &net, &answer.bytes()), "www.example.com");
}

fn dns_skips_record_types_it_does_not_know(case: &Case) {
    let net = Net::new();
    let to = net.v4_of(2, 80).ip();
    let answer = Message::response("signed.example.com", kind::A)
        .https("")
        .signature("")
        .record("", 65_280, b"\xff\x00 of a private type")
        .address("", to)
        .edns();
    assert_eq!(says(case, to, &net, &answer.bytes()), "signed.example.com");
}

fn dns_keeps_what_a_truncated_answer_has(case: &Case) {
    let net = Net::new();
    let to = net.v4_of(2, 80).ip();
    let answer = Message::response("cut.example.com", kind::A).flag(TRUNCATED).address("", to).promising(7);
    let dns = Dns::new(case, &net);
    let server = dns.serve(&answer.bytes());
    assert_eq!(dns.query(server, "recv", (to, 80).into()), "cut.example.com");
    // The reason why names may be missing now, once.
    dns.query_of(SocketAddr::new(to, 53));
    let said = dns.run.stop().code(0).said();
    assert_eq!(said.matches("over TCP").count(), 1, "{said}");
    assert!(said.contains("a DNS answer was cut"), "{said}");
}

/// As with `use-vc` in resolv.conf: no answer was cut.
fn dns_over_tcp_is_said_not_to_be_read(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch(&format!("-d -p {}", client.pid())).start(&net);
    let run = run.ended_by(|| client.refused(net.v4(END_PORT)));
    client.refused(net.v4(80));
    run.rows(1);
    assert!(!run.said().contains("over TCP"), "{}", run.said());
    for _ in 0..3 {
        client.refused(net.v4(53));
    }
    run.rows(4);
    let said = run.stop().code(0).said();
    assert_eq!(said.matches("a process asks for names over TCP, which is not read").count(), 1, "{said}");
}

fn dns_keeps_what_a_cut_answer_has(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let (to, lost) = (dns.target(), dns.target());
    let answer = Message::response("cut.example.com", kind::A).address("", to.ip()).address("", lost.ip());
    let bytes = answer.bytes();
    let server = dns.serve(&bytes[..bytes.len() - 3]);
    assert_eq!(dns.query(server, "recv", to), "cut.example.com");
    assert_eq!(dns.query_of(lost), "No DNS Query");
    dns.finish();
}

fn dns_ignores_garbage_without_a_word(case: &Case) {
    // Another test may ask over TCP meanwhile.
    let unasked = |said: String| -> Vec<String> {
        said.lines().filter(|line| !line.contains("over TCP")).map(str::to_owned).collect()
    };
    let notes = unasked(case.notes("-d"));
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let to = dns.target();
    let good = Message::response("good.example.com", kind::A).address("", to.ip()).bytes();
    let mut looping = good.clone();
    // The question's name points to itself.
    looping.splice(12..14, [0xc0, 12]);
    let garbage: [&[u8]; 6] = [b"", b"\x00", &good[..11], &good[..20], &[0xff; 700], &looping];
    for bytes in garbage {
        let server = dns.serve(bytes);
        dns.client.resolve(server, &dns.question.borrow(), "recv");
    }
    assert_eq!(dns.query_of(to), "No DNS Query");
    assert_eq!(dns.query(dns.serve(&good), "recv", to), "good.example.com");
    assert_eq!(unasked(dns.run.stop().code(0).said()), notes);
}

fn dns_ignores_what_is_no_response(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let to = dns.target();
    let query = Message::response("query.example.com", kind::A).without_flag(RESPONSE).address("", to.ip());
    assert_eq!(dns.query(dns.serve(&query.bytes()), "recv", to), "No DNS Query");
    // An authoritative answer without records counts, and changes nothing.
    let empty = Message::response("none.example.com", kind::A).flag(AUTHORITATIVE);
    assert_eq!(dns.query(dns.serve(&empty.bytes()), "recv", to), "No DNS Query");
    dns.finish();
}

fn dns_prefers_the_newest_name(case: &Case) {
    let net = Net::new();
    let dns = Dns::new(case, &net);
    let to = dns.target();
    for name in ["old.example.com", "new.example.com", "newest.example.com"] {
        let server = dns.serve(&Message::response(name, kind::A).address("", to.ip()).bytes());
        assert_eq!(dns.query(server, "recv", to), name);
    }
    dns.finish();
}

fn dns_says_when_there_was_none(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch("-d").start(&net);
    client.refused(net.v4(80));
    run.rows(1)[0].reads(&format!("{}No DNS Query", line(client.pid(), "client", net.v4(0), net.v4(80))));
    run.finish();
}

fn dns_says_localhost(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let port = net.port(0);
    let run = case.launch("-d").start(&net);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    client.refused(to);
    run.rows(1)[0].reads(&format!("{}localhost", line(client.pid(), "client", to, to)));
    if has_ipv6() {
        client.refused(Net::loopback6(port));
        run.rows(2)[1].is("DADDR", "::1").is("QUERY", "localhost");
    }
    // Only these two addresses are localhost.
    client.refused((Ipv4Addr::new(127, 0, 0, 2), port).into());
    let rows = run.rows(if has_ipv6() { 3 } else { 2 });
    rows.with("DADDR", "127.0.0.2").is("QUERY", "No DNS Query");
    run.finish();
}

fn count_and_dns_exclude_each_other(case: &Case) {
    let ended = case.launch("-c -d").ends();
    ended.code(2).one_line("tcpconnect", &["you may not specify -d/--dns with -c/--count"]);
}
