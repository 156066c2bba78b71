//! tcppktlat: which reads are rows, whose they are, how long data is said to have lain there, and which of them the filters keep.
//!
//! Each check is a sentence that the tool keeps. A time must lie between what the two ends saw: at least from when the data was
//! certainly there to when the read began, at most from when it was sent to when the read was over.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::{END_PORT, Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Listener, Peer};
use netbcc_tests::rows::Row;
use netbcc_tests::run::{PATIENCE, Run};

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![
    the_headers_are_exactly_these,
    rows_have_the_time_of_day,
    json_rows_carry_every_value,
    a_hostile_name_cannot_drive_a_terminal,
];

pub(crate) const CHECKS: &[Check] = checks![
    a_read_is_one_row_of_exactly_these_bytes,
    the_last_arrival_counts_and_with_first_the_first,
    a_waiting_reader_and_an_echo_are_a_row_per_side_and_message,
    a_read_of_several_segments_is_one_row_and_what_it_leaves_is_none,
    a_look_at_the_data_is_the_read,
    the_end_of_the_stream_is_no_row_and_not_unread,
    duplicates_are_no_first_arrival,
    data_behind_a_hole_counts_from_when_that_is_filled,
    a_threshold_hides_what_was_read_sooner,
    a_process_is_the_reader_whoever_else_has_the_socket,
    a_thread_is_the_reader,
    ports_are_of_the_reader_s_end,
    families_go_by_the_socket_and_addresses_are_whole,
    data_that_comes_another_way_is_no_row_and_spoils_none,
    a_socket_with_another_connection_begins_anew,
    an_mptcp_read_is_no_row,
];

/// A span of time in which something happened.
#[derive(Clone, Copy, Debug)]
struct Moment {
    from: Instant,
    to: Instant,
}

impl Moment {
    fn of<T>(action: impl FnOnce() -> T) -> Self {
        let from = Instant::now();
        action();
        Self { from, to: Instant::now() }
    }

    /// The most and the least time from this to `end`, in microseconds.
    fn until(self, end: Self) -> (f64, f64) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        (us(end.to.duration_since(self.from)), us(end.from.saturating_duration_since(self.to)))
    }

    /// Insists that a number of microseconds is the time from this to `end`.
    fn must_lie_before(self, end: Self, row: &Row, us: f64) {
        let (most, least) = self.until(end);
        row.must((least - 1.0..=most).contains(&us), format!("{us} µs: between {least} and {most}"));
    }
}

/// A connection on which nothing was sent yet.
fn connected<'a, 'w>(client: &'a Peer, web: &Listener<'w>) -> (Conn<'a>, Conn<'w>) {
    let near = client.connect(web.address());
    (near, web.accept())
}

/// Sends so many bytes, and waits until all that came are `total`.
fn deliver(near: &Conn<'_>, far: &Conn<'_>, bytes: usize, total: u64) -> Moment {
    Moment::of(|| {
        near.send(bytes);
        arrived(far, total);
    })
}

/// Waits until so many bytes came in order.
fn arrived(far: &Conn<'_>, total: u64) {
    let deadline = Instant::now() + PATIENCE;
    while far.counts().1 < total {
        assert!(Instant::now() < deadline, "{} of {total} bytes came", far.counts().1);
        thread::sleep(Duration::from_millis(1));
    }
}

/// One call of recv() that takes so many bytes.
fn read(conn: &Conn<'_>, bytes: usize) -> Moment {
    Moment::of(|| assert_eq!(conn.pull("waitall", bytes), bytes))
}

fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// Starts the tool. What `keeper` reads on port 80 of host 3 from [`END_PORT`], after so many milliseconds, ends its rows.
fn start_late<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer, ms: u64) -> Run<'n> {
    let listener = keeper.listen(net.v4_of(3, 80));
    case.launch(options).start(net).ended_by(move || {
        let near = keeper.connect_as(listener.address(), &How::plain().bound(net.v4(END_PORT)));
        let far = listener.accept();
        near.send(1);
        pause(ms);
        far.receive(1);
        far.abort();
        near.await_end();
        near.close();
    })
}

fn start<'n>(case: &Case, options: &str, net: &'n Net, keeper: &'n Peer) -> Run<'n> {
    start_late(case, options, net, keeper, 0)
}

/// The milliseconds of a row, in microseconds; a hundredth is cut off or added by rounding.
fn must_take(row: &Row, from: Moment, to: Moment) {
    let us = row.number("MS") * 1000.0;
    let (most, least) = from.until(to);
    row.must((least - 6.0..=most + 6.0).contains(&us), format!("{us} µs: between {least} and {most}, about"));
}

fn a_read_is_one_row_of_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("abcdefghijklmno"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(web.address(), &How::plain().bound(net.v4(40_000)));
    let far = web.accept();
    let sent = deliver(&near, &far, 100, 100);
    pause(100);
    let taken = read(&far, 100);
    let rows = run.rows(1);
    must_take(&rows[0], sent, taken);
    let ms = rows[0].get("MS").to_owned();
    rows[0].must(rows[0].number("MS") >= 100.0, "as long as it slept");
    rows[0].must(ms.split_once('.').is_some_and(|(_, part)| part.len() == 2), "two decimals");
    rows[0].reads(&format!(
        "{:<7} {:<7} abcdefghijklmno  {:<15} 80    {:<15} 40000 {ms}",
        server.pid(),
        server.pid(),
        web.address().ip(),
        near.local().ip(),
    ));
    let ended = run.finish();
    assert!(!ended.said().contains("less exact"), "every way to attach sees the same: {}", ended.said());
}

fn the_last_arrival_counts_and_with_first_the_first(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let [last, first, json, json_first] = ["", "--first", "--json", "--json --first"].map(|options| {
        let listener_of_one = if options.is_empty() { Some(&keeper) } else { None };
        match listener_of_one {
            Some(keeper) => start(case, options, &net, keeper),
            None => case.launch(options).start(&net),
        }
    });
    let (near, far) = connected(&client, &web);
    let early = deliver(&near, &far, 100, 100);
    pause(100);
    let late = deliver(&near, &far, 200, 300);
    pause(50);
    let taken = read(&far, 300);
    must_take(&last.rows(1)[0], late, taken);
    // The end's row of the first run came to the others as well.
    for run in [&first, &json, &json_first] {
        run.arrival(1);
    }
    must_take(&first.so_far()[0], early, taken);
    for (run, chosen) in [(&json, "last_us"), (&json_first, "first_us")] {
        let row = &run.so_far()[0];
        early.must_lie_before(taken, row, row.number("first_us"));
        late.must_lie_before(taken, row, row.number("last_us"));
        row.must(row.number("first_us") >= row.number("last_us") + 100_000.0, "the first is older");
        row.is("latency_us", row.get(chosen));
    }
    for run in [last, first, json, json_first] {
        run.finish();
    }
}

fn a_waiting_reader_and_an_echo_are_a_row_per_side_and_message(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    let waiting = [far.duplicate()];
    let mut spans = Vec::new();
    for message in [7_usize, 11, 13] {
        server.all_wait_to_receive("waitall", &waiting, message, nix::libc::SYS_recvfrom);
        spans.push(Moment::of(|| {
            near.send(message);
            assert_eq!(server.joined(), message);
        }));
        spans.push(Moment::of(|| {
            far.send(message);
            assert_eq!(near.pull("waitall", message), message);
        }));
    }
    let rows = run.rows(6);
    rows.are("lport", &[80, near.local().port(), 80, near.local().port(), 80, near.local().port()]);
    let (there, here) = (server.pid(), client.pid());
    rows.are("pid", &[there, here, there, here, there, here]).are("unread", &[0; 6]);
    for (row, span) in rows.iter().zip(spans) {
        span.must_lie_before(span, row, row.number("latency_us"));
        row.is("first_us", row.get("last_us"));
    }
    run.finish();
}

fn a_read_of_several_segments_is_one_row_and_what_it_leaves_is_none(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    for total in [100, 200, 300] {
        deliver(&near, &far, 100, total);
    }
    read(&far, 300);
    deliver(&near, &far, 50, 350);
    read(&far, 10);
    read(&far, 40);
    // What was left, and more.
    deliver(&near, &far, 50, 400);
    read(&far, 10);
    deliver(&near, &far, 30, 430);
    read(&far, 70);
    for (how, total) in [("readv", 450), ("splice", 470)] {
        deliver(&near, &far, 20, total);
        assert_eq!(far.pull(how, 20), 20);
    }
    let rows = run.rows(6);
    rows.are("pid", &[server.pid(); 6]).are("lport", &[80; 6]);
    // How many segments the kernel merges while they wait is its own affair: of several, the rest may count as unread.
    for (nth, unread) in [(1, 40), (2, 40), (4, 0), (5, 0)] {
        rows[nth].is("unread", unread);
    }
    run.finish();
}

fn a_look_at_the_data_is_the_read(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    let sent = deliver(&near, &far, 10, 10);
    let looked = Moment::of(|| assert_eq!(far.pull("peek", 10), 10));
    pause(20);
    read(&far, 10);
    let sent_again = deliver(&near, &far, 10, 20);
    let thrown_away = Moment::of(|| assert_eq!(far.pull("trunc", 10), 10));
    let rows = run.rows(2);
    rows.are("unread", &[10, 0]);
    sent.must_lie_before(looked, &rows[0], rows[0].number("latency_us"));
    sent_again.must_lie_before(thrown_away, &rows[1], rows[1].number("latency_us"));
    run.finish();
}

fn the_end_of_the_stream_is_no_row_and_not_unread(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    let (silent, end_only) = connected(&client, &web);
    near.send(5);
    near.finish_sending();
    silent.finish_sending();
    end_only.await_end();
    // CLOSE_WAIT: the FIN is there, too.
    far.await_info("its end", |info| info.u8(0) == 8);
    read(&far, 3);
    read(&far, 2);
    far.await_end();
    run.rows(1)[0].is("unread", 2);
    run.finish();
}

fn duplicates_are_no_first_arrival(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    let resent = |times: u32| {
        // tcpi_total_retrans
        near.await_info("duplicates", |info| info.u32(100) >= times);
    };
    // Its acknowledgements are lost, so it comes again and again.
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp sport 80 drop\n",
    );
    let sent = deliver(&near, &far, 50, 50);
    resent(2);
    let taken = read(&far, 50);
    // After the read as well.
    resent(3);
    net.near().nft("flush chain inet probe in\n");
    // tcpi_unacked
    near.await_info("an acknowledgement", |info| info.u32(24) == 0);
    let sent_later = deliver(&near, &far, 50, 100);
    let taken_later = read(&far, 50);
    let rows = run.rows(2);
    sent.must_lie_before(taken, &rows[0], rows[0].number("first_us"));
    rows[0]
        .must(rows[0].number("last_us") + 190_000.0 < rows[0].number("first_us"), "a duplicate is the last");
    sent_later.must_lie_before(taken_later, &rows[1], rows[1].number("first_us"));
    sent_later.must_lie_before(taken_later, &rows[1], rows[1].number("last_us"));
    run.finish();
}

fn data_behind_a_hole_counts_from_when_that_is_filled(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let (near, far) = connected(&client, &web);
    let (lost, hole) = (700, 60);
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 meta length > 700 drop\n",
    );
    near.send(lost);
    near.send(hole);
    // tcpi_rcv_ooopack is young; what was acknowledged out of order is tcpi_sacked.
    near.await_info("data behind a hole", |info| info.u32(28) == 1);
    pause(300);
    let filled = Moment::of(|| {
        net.near().nft("flush chain inet probe in\n");
        arrived(&far, 760);
    });
    let taken = read(&far, 760);
    let row = &run.rows(1)[0];
    filled.must_lie_before(taken, row, row.number("first_us"));
    run.finish();
}

fn a_threshold_hides_what_was_read_sooner(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start_late(case, "--json 400000", &net, &keeper, 401);
    let (near, far) = connected(&client, &web);
    let mut total = 0;
    let mut both = || {
        total += 10;
        let sent = deliver(&near, &far, 10, total);
        (sent, read(&far, 10))
    };
    let (sent, taken) = both();
    if taken.to - sent.from > Duration::from_millis(400) {
        skip("a machine that does not stall for 400 ms");
    }
    run.rows(0);
    total += 10;
    deliver(&near, &far, 10, total);
    pause(401);
    read(&far, 10);
    let rows = run.rows(1);
    for row in &rows {
        row.must(row.number("latency_us") > 400_000.0, "longer than that");
    }
    run.finish();
}

fn a_process_is_the_reader_whoever_else_has_the_socket(case: &Case) {
    let net = Net::new();
    let (server, client, other) = (net.peer("server"), net.peer("client"), net.peer("other"));
    let web = server.listen(net.v4_of(2, 80));
    // The end's reader is the process that is asked for.
    let run = start(case, &format!("-p {}", server.pid()), &net, &server);
    let all = case.launch("").start(&net);
    let (near, far) = connected(&client, &web);
    let shared = far.share(&other);
    deliver(&near, &far, 10, 10);
    pause(300);
    read(&shared, 10);
    // What the other took is not what this one reads.
    let sent = deliver(&near, &far, 10, 20);
    let taken = read(&far, 10);
    far.send(10);
    near.receive(10);
    let rows = run.rows(1);
    rows[0].is("PID", server.pid()).is("COMM", "server");
    must_take(&rows[0], sent, taken);
    all.arrival(3);
    all.so_far().are("PID", &[other.pid(), server.pid(), client.pid()]);
    run.finish();
    all.finish();
}

fn a_thread_is_the_reader(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    // The end's reader is the first thread, which has its process's number.
    let run = start(case, &format!("-t {}", server.pid()), &net, &server);
    let all = case.launch("").start(&net);
    let (near, far) = connected(&client, &web);
    deliver(&near, &far, 10, 10);
    assert_eq!(far.pull_in_thread("waitall", 10, "second"), 10);
    let sent = deliver(&near, &far, 10, 20);
    let taken = read(&far, 10);
    let rows = run.rows(1);
    rows[0].is("TID", server.pid()).is("COMM", "server");
    must_take(&rows[0], sent, taken);
    all.arrival(2);
    let rows = all.so_far();
    rows.are("PID", &[server.pid(); 2]).are("COMM", &["second", "server"]);
    rows[0].must(rows[0].get("TID") != server.pid().to_string(), "another thread");
    // It is gone.
    let gone = case.launch(&format!("-t {}", rows[0].get("TID"))).start(&net);
    assert!(gone.stop().code(0).stderr.contains("there is no such thread now"), "said");
    run.finish();
    all.finish();
}

fn ports_are_of_the_reader_s_end(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let (web, other) = (server.listen(net.v4_of(2, 81)), server.listen(net.v4_of(2, 82)));
    // Both keep the end's row as well, which has port 80 here and [`END_PORT`] there.
    let local = start(case, "-l 80,81", &net, &keeper);
    let remote = case.launch("-r 9,81").start(&net);
    for web in [&web, &other] {
        let (near, far) = connected(&client, web);
        deliver(&near, &far, 10, 10);
        read(&far, 10);
        deliver(&far, &near, 10, 10);
        read(&near, 10);
    }
    local.rows(1)[0].is("LPORT", 81).is("PID", server.pid());
    remote.arrival(1);
    let rows = remote.so_far();
    assert_eq!(rows.len(), 1, "one row");
    rows[0].is("RPORT", 81).is("PID", client.pid());
    local.finish();
    remote.finish();
}

fn families_go_by_the_socket_and_addresses_are_whole(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let port = net.port(0);
    let any = server.listen(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)));
    let wide = start(case, "-w", &net, &keeper);
    let [all, four, six] = ["", "-4", "-6"].map(|options| case.launch(options).start(&net));
    let ends = [net.v6_of(2, port), net.v4_of(2, port), Net::loopback6(port)];
    for (to, from) in ends.into_iter().zip([net.v6(40_000), net.v4(40_000), Net::loopback6(net.port(1))]) {
        let near = client.connect_as(to, &How::plain().bound(from));
        let far = any.accept();
        deliver(&near, &far, 10, 10);
        read(&far, 10);
    }
    let mapped = |at: SocketAddr| Net::mapped(at).ip().to_string();
    let laddrs = [ends[0].ip().to_string(), mapped(ends[1]), "::1".to_owned()];
    let raddrs = [net.v6(0).ip().to_string(), mapped(net.v4(0)), "::1".to_owned()];
    let rports = [40_000, 40_000, net.port(1)];
    for (run, width) in [(&wide, 26), (&all, 15)] {
        run.rows_at_last(3);
        let rows = run.so_far();
        rows.are("LADDR", &laddrs).are("RADDR", &raddrs);
        for (row, nth) in rows.iter().zip(0..) {
            let words: Vec<_> = [server.pid().to_string(), server.pid().to_string()].into();
            row.reads(&format!(
                "{:<7} {:<7} server           {:<width$} {port:<5} {:<width$} {:<5} {}",
                words[0],
                words[1],
                laddrs[nth],
                raddrs[nth],
                rports[nth],
                row.get("MS"),
            ));
        }
    }
    wide.rows(3);
    six.arrival(3);
    assert_eq!((six.so_far().len(), four.so_far().len()), (3, 0), "a mapped one is of IPv6");
    let plain = server.listen(net.v4_of(2, 81));
    let (near, far) = connected(&client, &plain);
    deliver(&near, &far, 10, 10);
    read(&far, 10);
    wide.rows(4);
    four.arrival(1);
    assert_eq!((six.so_far().len(), four.so_far().len()), (3, 1), "and a plain one of IPv4");
    for run in [wide, all, four, six] {
        run.finish();
    }
}

/// How many segments came without data (`tcpi_segs_in`, `tcpi_data_segs_in`).
fn bare_segments(conn: &Conn<'_>) -> u32 {
    let info = conn.info();
    info.u32(140) - info.u32(152)
}

/// A connection whose first data came with the ACK that completes its handshake, so that fewer segments than usual came without.
fn with_the_third_packet<'a>(
    net: &Net,
    client: &'a Peer,
    web: &Listener<'a>,
    usual: u32,
) -> Option<(Conn<'a>, Conn<'a>)> {
    /// `IPPROTO_TCP`, `TCP_DEFER_ACCEPT`: a client's ACK waits for data, if that comes soon.
    const DEFER: (i32, i32) = (6, 9);
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 81 tcp flags & (syn|ack) == syn drop\n",
    );
    let near = client.connect_as(web.address(), &How::plain().nonblocking());
    near.set(DEFER.0, DEFER.1, 1);
    net.near().nft("flush chain inet probe in\n");
    near.await_writable();
    near.send(100);
    let far = web.accept();
    arrived(&far, 100);
    (bare_segments(&far) < usual).then_some((near, far))
}

fn data_that_comes_another_way_is_no_row_and_spoils_none(case: &Case) {
    let net = Net::new();
    net.near().sysctl("ipv4/tcp_fastopen", "1543");
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let (web, third) = (server.listen(net.v4_of(2, 80)), server.listen(net.v4_of(2, 81)));
    let (run, first) =
        (start(case, "--json", &net, &keeper), case.launch("--json --first --lport=80,81").start(&net));
    let fast = client.fast_open(web.address(), 100);
    let fast_far = web.accept();
    read(&fast_far, 100);
    // This side has shut down: FIN_WAIT2.
    let (near, far) = connected(&client, &web);
    let usual = bare_segments(&far);
    far.finish_sending();
    near.await_end();
    deliver(&near, &far, 100, 100);
    read(&far, 100);
    run.rows(0);
    let found = (0..5).find_map(|_| with_the_third_packet(&net, &client, &third, usual));
    let Some((third_near, third_far)) = found else { skip("a machine that is idle enough") };
    let before = run.so_far().len();
    read(&third_far, 100);
    run.rows(before);
    let mut spans = Vec::new();
    for (near, far) in [(&fast, &fast_far), (&third_near, &third_far)] {
        spans.push((deliver(near, far, 50, 150), read(far, 50)));
    }
    let rows = run.rows(before + 2);
    first.arrival(2);
    let first_rows = first.so_far();
    for ((sent, taken), nth) in spans.into_iter().zip(0..) {
        for row in [&rows[before + nth], &first_rows[first_rows.len() - 2 + nth]] {
            sent.must_lie_before(taken, row, row.number("latency_us"));
            sent.must_lie_before(taken, row, row.number("first_us"));
        }
    }
    run.finish();
    first.finish();
}

fn a_socket_with_another_connection_begins_anew(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let (one, other) = (server.listen(net.v4_of(2, 80)), server.listen(net.v4_of(2, 81)));
    let run = start(case, "--json --first", &net, &keeper);
    let (near, far) = connected(&client, &one);
    deliver(&far, &near, 100, 100);
    pause(300);
    near.connect_elsewhere(other.address());
    let far = other.accept();
    let sent = Moment::of(|| {
        far.send(50);
        near.await_data();
    });
    let taken = read(&near, 50);
    let row = &run.rows(1)[0];
    sent.must_lie_before(taken, row, row.number("latency_us"));
    row.is("rport", 81).is("pid", client.pid());
    run.finish();
}

fn an_mptcp_read_is_no_row(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let at = net.v4_of(2, 80);
    let web = server.listen_mptcp(at).unwrap_or_else(|e| skip(format!("MPTCP ({e})")));
    let run = start(case, "", &net, &keeper);
    let near = client.connect_as(at, &How::plain().mptcp());
    let far = web.accept();
    near.send(100);
    far.receive(100);
    far.send(100);
    near.receive(100);
    run.rows(0);
    run.finish();
}

fn the_headers_are_exactly_these(case: &Case) {
    let plain = "PID     TID     COMM             LADDR           LPORT RADDR           RPORT MS";
    let wide = "PID     TID     COMM             LADDR                      LPORT RADDR                      RPORT MS";
    assert_eq!((plain.len(), wide.len()), (79, 101));
    for (options, header) in [
        ("", plain.to_owned()),
        ("-w", wide.to_owned()),
        ("-T", format!("TIME(s)  {plain}")),
        ("--timestamp --wide --first 5", format!("TIME(s)  {wide}")),
    ] {
        let net = Net::new();
        let run = case.launch(options).start(&net);
        assert_eq!(run.header(), header, "{options}");
        run.finish();
    }
}

fn rows_have_the_time_of_day(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "-T", &net, &keeper);
    let (near, far) = connected(&client, &web);
    deliver(&near, &far, 10, 10);
    read(&far, 10);
    let rows = run.rows(1);
    let (time, rest) = rows[0].line.split_at(8);
    rows[0].must(rest.starts_with(&format!(" {:<7} ", server.pid())), "the process behind it");
    rows[0].must(
        time.split(':').filter(|part| part.len() == 2 && part.parse::<u8>().is_ok()).count() == 3,
        "HH:MM:SS",
    );
    run.finish();
}

fn json_rows_carry_every_value(case: &Case) {
    use std::os::unix::fs::MetadataExt as _;
    let net = Net::new();
    let (server, client, keeper) = (net.peer("server"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "--json", &net, &keeper);
    let near = client.connect_as(web.address(), &How::plain().bound(net.v4(5000)));
    let far = web.accept();
    deliver(&near, &far, 17, 17);
    read(&far, 5);
    let rows = run.rows(1);
    rows[0].is("pid", server.pid()).is("tid", server.pid()).is("comm", "server").is("ip", 4);
    rows[0].is("laddr", web.address().ip()).is("lport", 80).is("raddr", net.v4(5000).ip()).is("rport", 5000);
    rows[0].is("unread", 12).is("latency_us", rows[0].get("last_us")).is("first_us", rows[0].get("last_us"));
    rows[0].is("netns", std::fs::metadata(net.near().path()).expect("it is there").ino());
    run.finish();
}

fn a_hostile_name_cannot_drive_a_terminal(case: &Case) {
    let net = Net::new();
    let (server, client, keeper) =
        (net.peer_named(b"\x1b[2Ja\nb\xff"), net.peer("client"), net.peer("keeper"));
    let web = server.listen(net.v4_of(2, 80));
    let run = start(case, "", &net, &keeper);
    let (near, far) = connected(&client, &web);
    deliver(&near, &far, 10, 10);
    read(&far, 10);
    run.rows(1)[0].is("COMM", r"\x1b[2Ja\x0ab");
    run.finish();
}
