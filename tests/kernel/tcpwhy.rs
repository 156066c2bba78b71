//! tcpwhy: each verdict, made by real traffic, exactly once and with its owner; what ended well; what the options keep.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, note};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Info, Listener, Peer};
use netbcc_tests::rows::{Row, Rows};
use nix::libc::{
    IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT,
};

use crate::owner::makes_cookies;
use crate::pairs::is_slow;
use crate::tcplife::a_change_that_interrupts_another_is_seen;

/// What does not depend on the rung.
pub(crate) const ANY: &[Check] = checks![the_header_is_exactly_this, the_verdicts_are_what_rules_prints];

pub(crate) const CHECKS: &[Check] = checks![
    what_ends_at_once_has_its_verdict_once,
    what_is_not_answered_has_its_verdict_once,
    what_is_slow_has_its_verdict_once,
    a_rst_has_its_verdict_in_each_state,
    what_gives_up_has_its_verdict_once,
    a_process_that_dies_resets_what_it_did_not_read,
    what_sends_no_packet_has_no_row,
    figures_are_those_that_the_socket_gave,
    what_is_lost_on_the_way_is_counted_as_the_socket_does,
    a_long_way_makes_a_slow_connect,
    ten_thousand_that_end_well_are_no_rows: alone,
    what_ends_well_is_no_row_but_with_all,
    only_and_except_keep_their_verdicts,
    a_socket_from_before_the_start_has_a_row_and_says_so,
    a_change_that_interrupts_another_is_seen,
    counts_are_by_verdict_and_by_the_columns_named,
    a_timeline_says_in_order_what_happened,
    what_is_stuck_is_a_row_once_and_says_that_it_lives,
    a_listener_that_refuses_is_a_row_with_its_owner,
];

const HEADER: &str = "TIME     PID    COMM         LADDR:LPORT           RADDR:RPORT           CONN_MS FIRST_MS       MS  \
                      RTT_MS  RTX VERDICT";

/// What counts as slow in these tests, and how long what is slow takes.
const SLOW: &str = "--slow 800";
const PAUSE: Duration = Duration::from_millis(1200);

/// Longer than the first timeout of a retransmission, much shorter than until the kernel gives up.
const LOST: Duration = Duration::from_millis(400);

/// A network in which no segment is sent again as a probe (TLP): on a machine that stalls for some milliseconds, what goes well
/// would not.
fn calm() -> Net {
    let net = Net::new();
    net.near().sysctl("ipv4/tcp_early_retrans", "0");
    net
}

fn the_header_is_exactly_this(case: &Case) {
    let net = calm();
    let run = case.launch("").start(&net);
    assert_eq!(run.header(), HEADER);
    run.finish();
}

fn the_verdicts_are_what_rules_prints(case: &Case) {
    let ended = case.launch("--rules").ends();
    ended.code(0);
    let words: Vec<&str> = ended.stdout.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words.first(), Some(&"refused"));
    assert_eq!(words.last(), Some(&"ok"));
    assert_eq!(words.len(), 20, "{words:?}");
}

/// The server's address, with the port that is asked for.
type At<'a> = &'a dyn Fn(u16) -> SocketAddr;

/// What a router says that does not know the way.
const UNREACHABLE: &str = "tcp dport 104 reject with icmpx type host-unreachable";

/// From now on these rules hold for what comes in, and no others.
fn rules(net: &Net, rules: &[&str]) {
    let mut lines = vec!["flush chain inet probe in".to_owned()];
    lines.extend(rules.iter().map(|rule| format!("add rule inet probe in {rule}")));
    net.near().nft(&format!("{}\n", lines.join("\n")));
}

/// The rows of a scene's port.
fn of(rows: &Rows, port: u16) -> Vec<&Row> {
    let port = port.to_string();
    rows.iter().filter(|row| row.get("lport") == port || row.get("rport") == port).collect()
}

/// What one end of a scene is to be told as.
struct Expected {
    port: u16,
    /// Whether it is the end that has the port.
    server: bool,
    verdict: &'static str,
    /// The state that it leaves, if that is to be told.
    state: Option<&'static str>,
    /// What its evidence begins with.
    says: &'static str,
}

impl Expected {
    const fn leaves(self, state: &'static str) -> Self {
        Self { state: Some(state), ..self }
    }

    const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }
}

/// Ended well, or slowly: the machine decides.
const EITHER: &str = "ok or slow-peer";

const fn near(port: u16, verdict: &'static str) -> Expected {
    Expected { port, server: false, verdict, state: None, says: "" }
}

const fn far(port: u16, verdict: &'static str) -> Expected {
    Expected { port, server: true, verdict, state: None, says: "" }
}

/// Namespace, processes and families of the scenes.
struct Stage<'a> {
    net: &'a Net,
    server: &'a Peer,
    client: &'a Peer,
    families: &'a [fn(&Net, u8, u16) -> SocketAddr],
}

impl Stage<'_> {
    /// Plays a scene in each family.
    fn each(&self, scene: &dyn Fn(At<'_>)) {
        for address in self.families {
            scene(&|port| address(self.net, 2, port));
        }
    }

    /// Opens what nobody accepts, in each family, and does not wait.
    fn open(&self, port: u16) -> Vec<Conn<'_>> {
        let to = self.families.iter().map(|address| address(self.net, 2, port));
        to.map(|to| self.client.connect_as(to, &How::plain().nonblocking())).collect()
    }

    /// Both ends of a connection.
    fn pair(&self, to: SocketAddr) -> (Conn<'_>, Conn<'_>) {
        let web = self.server.listen(to);
        let near = self.client.connect(to);
        let far = web.accept();
        web.close();
        (near, far)
    }

    /// Both ends of a connection in each family.
    fn pairs(&self, port: u16) -> Vec<(Conn<'_>, Conn<'_>)> {
        self.families.iter().map(|address| self.pair(address(self.net, 2, port))).collect()
    }
}

/// Plays scenes; what `play` answers is closed when the rows are there. They must be these, in each family.
fn has_verdicts(
    case: &Case,
    expected: &[Expected],
    play: impl for<'a> FnOnce(&'a Stage<'_>) -> Vec<Conn<'a>>,
) {
    let net = calm();
    net.near().sysctl("ipv4/tcp_syn_retries", "2");
    net.near().sysctl("ipv4/tcp_retries2", "4");
    net.near().nft("add chain inet probe in { type filter hook input priority 0; }\n");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch(&format!("-a {SLOW} --json")).start(&net);
    let families: &[fn(&Net, u8, u16) -> SocketAddr] =
        if has_ipv6() { &[Net::v4_of, Net::v6_of] } else { &[Net::v4_of] };
    let stage = Stage { net: &net, server: &server, client: &client, families };
    let open = play(&stage);
    run.arrival(expected.len() * families.len());
    open.into_iter().for_each(Conn::close);
    let rows = run.so_far();
    for Expected { port, server: is_server, verdict, state, says } in expected {
        let name = port.to_string();
        let of_end: Vec<&Row> =
            of(&rows, *port).into_iter().filter(|row| (row.get("lport") == name) == *is_server).collect();
        if of_end.len() != families.len() {
            rows.fail(format!("port {port}: {} rows of that end, not {}", of_end.len(), families.len()));
        }
        for row in of_end {
            row.must(verdict.split(" or ").any(|word| word == row.get("verdict")), verdict)
                .is("complete", "true");
            row.is("state", state.unwrap_or_else(|| row.get("state")));
            row.must(row.get("evidence").starts_with(says), says);
            let owner = if *is_server { server.pid() } else { client.pid() };
            // Nobody read from these, or accepted them.
            let nobody = *is_server && [108].contains(port);
            row.is("pid", if nobody { 0 } else { owner });
        }
    }
    run.finish();
}

fn what_ends_at_once_has_its_verdict_once(case: &Case) {
    let expected = [
        near(101, "refused"),
        near(109, "refused"),
        near(102, "connect-abandoned"),
        near(105, "reset-received"),
        far(105, "reset-sent"),
        near(106, "reset-received"),
        far(106, "reset-sent"),
        near(108, "reset-sent"),
        far(108, "never-accepted"),
        near(113, "ok"),
        far(113, "ok"),
    ];
    has_verdicts(case, &expected, |stage| {
        let Stage { net, server, client, .. } = stage;
        rules(net, &["tcp dport 102 drop"]);
        stage.each(&|at| client.refused(at(101)));
        stage.each(&|at| {
            let late = client.connect_as(at(109), &How::plain().nonblocking());
            late.await_writable();
            late.close();
        });
        stage.each(&|at| client.connect_as(at(102), &How::plain().nonblocking()).close());
        stage.each(&|at| {
            let (near, far) = stage.pair(at(105));
            far.abort();
            near.await_end();
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(106));
            near.send(100);
            far.await_data();
            far.close();
            near.await_end();
            near.close();
        });
        stage.each(&|at| {
            let web = server.listen(at(108));
            let near = client.connect(at(108));
            near.send(10);
            near.abort();
            web.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(113));
            near.send(10);
            far.receive(10);
            far.send(10);
            near.receive(10);
            near.close();
            far.await_end();
            far.close();
        });
        Vec::new()
    });
}

fn what_is_not_answered_has_its_verdict_once(case: &Case) {
    let expected = [
        near(103, "connect-timeout"),
        near(104, "unreachable"),
        near(107, "timed-out"),
        near(109, "syn-resent"),
        far(109, "ok"),
    ];
    has_verdicts(case, &expected, |stage| {
        let Stage { net, server, .. } = stage;
        // The SYN that is lost is sent again after a second.
        rules(net, &["tcp dport { 103, 109 } drop"]);
        let webs: Vec<_> = stage.families.iter().map(|address| server.listen(address(net, 2, 109))).collect();
        let late = stage.open(109);
        let mut waiting = stage.open(103);
        rules(net, &["tcp dport 103 drop", UNREACHABLE]);
        waiting.extend(stage.open(104));
        let dying = stage.pairs(107);
        rules(net, &["tcp dport { 103, 107 } drop", UNREACHABLE]);
        for (near, far) in dying {
            near.send(100);
            waiting.extend([near, far]);
        }
        for (near, web) in late.into_iter().zip(webs) {
            near.await_writable();
            let far = web.accept();
            near.close();
            far.await_end();
            far.close();
            web.close();
        }
        waiting
    });
}

fn what_is_slow_has_its_verdict_once(case: &Case) {
    let expected = [
        near(110, "loss"),
        far(110, EITHER),
        near(111, "slow-peer"),
        far(111, "slow-here"),
        near(112, "slow-peer"),
        far(112, "reader-slow-here"),
        near(114, "slow-peer"),
        far(114, "ok"),
    ];
    has_verdicts(case, &expected, |stage| {
        let (here, reader, silent) = (stage.pairs(111), stage.pairs(112), stage.pairs(114));
        for (near, far) in here.iter().chain(&silent) {
            near.send(10);
            far.receive(10);
        }
        for (near, far) in &reader {
            near.send(10);
            far.await_data();
        }
        let lossy = stage.pairs(110);
        rules(stage.net, &["tcp dport 110 drop"]);
        for (near, _) in &lossy {
            near.send(1000);
        }
        thread::sleep(LOST);
        // What was lost arrives when it is sent again.
        rules(stage.net, &[]);
        for (near, far) in lossy {
            far.receive(1000);
            near.close();
            far.await_end();
            far.close();
        }
        thread::sleep(PAUSE);
        for (near, far) in here {
            far.send(10);
            near.receive(10);
            near.close();
            far.await_end();
            far.close();
        }
        for (near, far) in reader {
            far.receive(10);
            far.send(10);
            near.receive(10);
            near.close();
            far.await_end();
            far.close();
        }
        for (near, far) in silent {
            near.close();
            far.await_end();
            far.close();
        }
        Vec::new()
    });
}

/// TCP's states, as the kernel numbers them.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSING: u8 = 11;

/// Waits until the socket has this state.
fn await_state(conn: &Conn<'_>, state: u8) {
    conn.await_info(&format!("state {state}"), |info| info.u8(0) == state);
}

fn a_rst_has_its_verdict_in_each_state(case: &Case) {
    let expected = [
        near(121, "reset-received").leaves("FIN_WAIT1"),
        far(121, "reset-sent").leaves("ESTABLISHED"),
        near(122, "reset-received").leaves("FIN_WAIT2"),
        far(122, "reset-sent").leaves("CLOSE_WAIT"),
        near(123, "reset-received").leaves("LAST_ACK"),
        far(123, "reset-sent").leaves("FIN_WAIT2").says("closed in FIN_WAIT2 with SO_LINGER 0"),
        near(124, "reset-received").leaves("CLOSE_WAIT"),
        far(124, "reset-sent").leaves("FIN_WAIT2"),
        near(125, "reset-received").leaves("CLOSING"),
        far(125, "reset-sent").leaves("FIN_WAIT2"),
        near(126, "reset-sent").leaves("FIN_WAIT2").says("closed in FIN_WAIT2 with 10 bytes unread"),
        far(126, "reset-received").leaves("CLOSE_WAIT"),
    ];
    has_verdicts(case, &expected, |stage| {
        // Here the FINs of these clients do not arrive.
        rules(stage.net, &["tcp dport { 121, 123, 125 } tcp flags & fin == fin drop"]);
        stage.each(&|at| {
            let (near, far) = stage.pair(at(121));
            near.finish_sending();
            await_state(&near, FIN_WAIT1);
            far.abort();
            await_state(&near, CLOSE);
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(122));
            near.finish_sending();
            far.await_end();
            await_state(&near, FIN_WAIT2);
            far.abort();
            await_state(&near, CLOSE);
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(123));
            far.finish_sending();
            near.await_end();
            await_state(&far, FIN_WAIT2);
            near.finish_sending();
            far.abort();
            await_state(&near, CLOSE);
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(124));
            far.finish_sending();
            near.await_end();
            await_state(&far, FIN_WAIT2);
            far.abort();
            await_state(&near, CLOSE);
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(125));
            near.finish_sending();
            far.finish_sending();
            await_state(&near, CLOSING);
            await_state(&far, FIN_WAIT2);
            far.abort();
            await_state(&near, CLOSE);
            near.close();
        });
        stage.each(&|at| {
            let (near, far) = stage.pair(at(126));
            // Who reads owns it, who only writes is not known.
            near.send(10);
            far.receive(10);
            near.finish_sending();
            far.await_end();
            await_state(&near, FIN_WAIT2);
            far.send(10);
            near.await_data();
            near.close();
            await_state(&far, CLOSE);
            far.close();
        });
        Vec::new()
    });
}

/// Which of two timers sends again first: the client's, or the server's.
const EITHER_TIMER: &str = "syn-resent or slow-connect";

fn what_gives_up_has_its_verdict_once(case: &Case) {
    let expected = [
        near(131, "timed-out").says("TCP_USER_TIMEOUT of 500 ms: 100 bytes unacknowledged"),
        near(132, "timed-out").says("keepalive: 1 probe unanswered"),
        near(133, "timed-out").says("TCP_USER_TIMEOUT of 500 ms: the peer's window stayed closed, "),
        near(134, EITHER_TIMER),
        // By its timer, for the client's second SYN, or both.
        far(134, "syn-resent"),
    ];
    has_verdicts(case, &expected, |stage| {
        let first = ["ipv4", "ipv6"].map(|family| {
            let syn_ack = "tcp sport 134 tcp flags & (syn | ack) == (syn | ack)";
            format!("meta nfproto {family} {syn_ack} numgen inc mod 1000000 == 0 drop")
        });
        let (impatient, probing) = (stage.pairs(131), stage.pairs(132));
        let full = stage.pairs(133);
        rules(stage.net, &[&first[0], &first[1], "tcp dport { 131, 132 } drop"]);
        let webs: Vec<_> =
            stage.families.iter().map(|address| stage.server.listen(address(stage.net, 2, 134))).collect();
        let late = stage.open(134);
        let mut waiting = Vec::new();
        for (near, far) in probing {
            let tcp = [(TCP_KEEPIDLE, 1), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 1)];
            for (name, value) in tcp {
                near.set(IPPROTO_TCP, name, value);
            }
            near.set(SOL_SOCKET, SO_KEEPALIVE, 1);
            waiting.extend([near, far]);
        }
        for (near, far) in impatient {
            near.set(IPPROTO_TCP, TCP_USER_TIMEOUT, 500);
            near.send(100);
            waiting.extend([near, far]);
        }
        for (near, far) in full {
            near.set(IPPROTO_TCP, TCP_USER_TIMEOUT, 500);
            near.push("flood", 1_000_000).expect("the socket takes some of it");
            waiting.extend([near, far]);
        }
        for (near, web) in late.into_iter().zip(webs) {
            near.await_writable();
            let far = web.accept();
            near.close();
            far.await_end();
            far.close();
            web.close();
        }
        waiting
    });
}

fn a_process_that_dies_resets_what_it_did_not_read(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-a --json").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let far = web.accept();
    near.send(10);
    far.await_data();
    let pid = server.pid();
    server.kill();
    near.await_end();
    near.close();
    let rows = run.rows(2);
    let reset = rows.with("verdict", "reset-sent");
    reset.is("pid", pid).is("comm", "server").is("reset_reason", "unread-data").is("state", "ESTABLISHED");
    reset.is("evidence", "closed in ESTABLISHED with 10 bytes unread");
    rows.with("verdict", "reset-received").is("pid", client.pid());
    run.finish();
}

fn what_sends_no_packet_has_no_row(case: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let run = case.launch(&format!("-a -p {} --json", client.pid())).start(&net);
    let nowhere = ["198.51.100.1:80", "[2001:db8::1]:80"].map(|to| to.parse().expect("an address"));
    let connect = || {
        for to in nowhere.iter().filter(|to| SocketAddr::is_ipv4(to) || has_ipv6()) {
            let failed = client.try_connect(*to, &How::plain());
            assert!(failed.is_err(), "{to} can be reached");
        }
    };
    connect();
    for kind in ["blackhole", "unreachable", "prohibit"] {
        net.near().ip(&format!("route replace {kind} 198.51.100.0/24\n"));
        if has_ipv6() {
            net.near().ip(&format!("route replace {kind} 2001:db8::/32\n"));
        }
        connect();
    }
    client.refused(net.v4_of(2, 81));
    run.arrival(1);
    run.so_far()[0].is("verdict", "refused");
    // The others have addresses that are no test's.
    assert_eq!(run.finish().stdout.len(), 1);
}

/// Where `struct tcp_info` has what a row says, and of how many bytes it is.
const FIGURES: [(&str, usize, usize); 11] = [
    ("srtt_us", 68, 4),
    ("rtt_min_us", 148, 4),
    ("retrans_segs", 100, 4),
    ("retrans_bytes", 208, 8),
    ("bytes_sent", 200, 8),
    ("bytes_acked", 120, 8),
    ("busy_us", 168, 8),
    ("rwnd_limited_us", 176, 8),
    ("sndbuf_limited_us", 184, 8),
    ("dsack_dups", 216, 4),
    ("ooo_segs", 224, 4),
];
const RWND_LIMITED: usize = 176;
const TOTAL_RETRANS: usize = 100;
const BYTES_RECEIVED: usize = 128;

/// Closes both ends; answers what the first said of itself once its FIN was acknowledged. What comes then is the other's FIN,
/// which changes nothing but what was received.
fn part(near: Conn<'_>, far: Conn<'_>) -> Info {
    near.finish_sending();
    far.await_end();
    await_state(&near, FIN_WAIT2);
    let info = near.info();
    far.close();
    near.await_end();
    near.close();
    info
}

/// The row has the figures of that socket, after which a FIN was received.
fn has_figures(row: &Row, info: &Info) {
    for (name, at, bytes) in FIGURES {
        row.is(name, if bytes == 4 { info.u32(at).into() } else { info.u64(at) });
    }
    row.is("bytes_received", info.u64(BYTES_RECEIVED) + 1);
}

/// Networks' families.
fn families(net: &Net, port: u16) -> Vec<SocketAddr> {
    let mut all = vec![net.v4_of(2, port)];
    if has_ipv6() {
        all.push(net.v6_of(2, port));
    }
    all
}

/// Packets are of the size that they have on a cable, each by itself.
fn small_packets(net: &Net) {
    net.near().ip("link set lo mtu 1500 gso_max_segs 1\n");
}

fn figures_are_those_that_the_socket_gave(case: &Case) {
    let net = calm();
    let (server, client, watcher) = (net.peer("server"), net.peer("client"), net.peer("watcher"));
    let run = case.launch("-a --slow 200 --json").start(&net);
    for (nth, at) in families(&net, 80).into_iter().enumerate() {
        let web = server.listen(at);
        let (near, far) = plain(&client, &web);
        far.send(7001);
        near.receive(7001);
        // The reader does not read for a while; the writer waits in its call.
        let watch = near.share(&watcher);
        let sent = near.begin_sends(1_000_000, 1);
        watch.await_info("limited by the window", |info| info.u64(RWND_LIMITED) >= 600_000);
        watch.close();
        far.receive(1_000_000);
        sent();
        let info = part(near, far);
        run.arrival(2 * nth + 2);
        let rows = run.so_far();
        let row = rows.iter().skip(2 * nth).find(|row| row.get("rport") == "80").expect("the client's");
        has_figures(row, &info);
        row.is("verdict", "reader-slow-peer").is("pid", client.pid());
    }
    run.finish();
}

fn what_is_lost_on_the_way_is_counted_as_the_socket_does(case: &Case) {
    // An emulated processor takes a second for some hundred segments.
    let bytes = if is_slow() { 300_000 } else { 1_000_000 };
    let net = Net::new();
    small_packets(&net);
    net.near().nft("add chain inet probe in { type filter hook input priority 0; }\n");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-a --slow 0 --json").start(&net);
    for (nth, at) in families(&net, 80).into_iter().enumerate() {
        let web = server.listen(at);
        let (near, far) = plain(&client, &web);
        // One of 20.
        rules(&net, &["tcp dport 80 numgen random mod 20 == 0 drop"]);
        let sent = near.begin_sends(bytes, 1);
        far.receive(bytes);
        sent();
        rules(&net, &[]);
        let info = part(near, far);
        run.arrival(2 * nth + 2);
        let rows = run.so_far();
        let row = rows.iter().skip(2 * nth).find(|row| row.get("rport") == "80").expect("the client's");
        has_figures(row, &info);
        row.is("verdict", "loss").is("complete", true).is("pid", client.pid());
        let kinds: f64 = ["rto", "fast", "tlp"].into_iter().map(|kind| row.number(kind)).sum();
        row.is("retrans_segs", kinds);
        // Some 36 of 700 were lost; a machine that stalls sends more again.
        row.must(info.u32(TOTAL_RETRANS) >= if is_slow() { 3 } else { 10 }, "a loss of 5 %");
    }
    run.finish();
}

fn a_long_way_makes_a_slow_connect(case: &Case) {
    let net = calm();
    net.near().tc("qdisc add dev lo root netem delay 150ms");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let run = case.launch("-a --slow 200 --json").start(&net);
    for (nth, at) in families(&net, 80).into_iter().enumerate() {
        let web = server.listen(at);
        let (near, far) = plain(&client, &web);
        let info = part(near, far);
        run.arrival(2 * nth + 2);
        let rows = run.so_far();
        let row = rows.iter().skip(2 * nth).find(|row| row.get("rport") == "80").expect("the client's");
        row.is("verdict", "slow-connect").is("pid", client.pid());
        row.must(row.number("connect_us") >= 300_000.0 && row.number("rtt_min_us") >= 300_000.0, "300 ms");
        has_figures(row, &info);
    }
    run.finish();
}

fn ten_thousand_that_end_well_are_no_rows(case: &Case) {
    /// So many at a time: the server is not far behind, and a guest's table of ended connections has room.
    const BATCH: usize = 500;
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    // Whatever was slow on this machine is not told.
    let run = case.launch("--slow 0").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    web.serve();
    // An emulated processor makes a second's work of a batch.
    for _ in 0..if is_slow() { 1 } else { 20 } {
        assert_eq!(client.churn(web.address(), BATCH, 2), (BATCH, 0));
        web.served(BATCH);
    }
    client.refused(net.v4_of(2, 81));
    run.settle();
    let rows = run.so_far();
    let (refused, others): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.get("VERDICT").starts_with("refused: "));
    assert_eq!(refused.len(), 1);
    // A machine that stalls sends a segment again: such a connection did not go well, and says so.
    for row in &others {
        row.must(row.get("RTX") != "0", "only what was sent again has a row");
    }
    if !others.is_empty() {
        note(format!("NOTE {} connections sent a segment again on this machine", others.len()));
    }
    run.finish();
}

fn what_ends_well_is_no_row_but_with_all(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let (some, all) = (case.launch("").start(&net), case.launch("-a").start(&net));
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = client.converse(&web);
    near.send(10);
    far.receive(10);
    near.close();
    far.await_end();
    far.close();
    let rows = all.rows(2);
    for row in &rows {
        row.must(row.get("VERDICT").starts_with("ok: "), "it ended well");
    }
    some.rows(0);
    some.finish();
    all.finish();
}

fn only_and_except_keep_their_verdicts(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let only = case.launch("--only reset-received,ok,refused").start(&net);
    let except = case.launch("--except reset-received").start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = client.converse(&web);
    far.abort();
    near.await_end();
    near.close();
    only.rows(1).iter().for_each(|row| {
        row.must(row.get("VERDICT").starts_with("reset-received: "), "the client's");
    });
    except.rows(1).iter().for_each(|row| {
        row.must(row.get("VERDICT").starts_with("reset-sent: "), "the server's");
    });
    only.finish();
    except.finish();
}

fn a_socket_from_before_the_start_has_a_row_and_says_so(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = client.converse(&web);
    let run = case.launch("").start(&net);
    far.abort();
    near.await_end();
    near.close();
    for row in &run.rows(2) {
        row.must(row.get("MS").starts_with('>'), "an age that is not known");
        row.must(row.get("VERDICT").ends_with("(partly seen)"), "it says so");
    }
    run.finish();
}

fn counts_are_by_verdict_and_by_the_columns_named(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let pid = client.pid();
    let all = case.launch(&format!("-p {pid} -c rport,raddr -c user --json")).start(&net);
    let few = case.launch(&format!("-p {pid} -c rport --x-table-entries 2")).start(&net);
    let often = case.launch(&format!("-p {pid} -c -i 1 --json")).start(&net);
    let web = server.listen(net.v4_of(2, 83));
    for (port, times) in [(81, 2), (82, 3)] {
        (0..times).for_each(|_| client.refused(net.v4_of(2, port)));
    }
    let (near, far) = client.converse(&web);
    far.abort();
    near.await_end();
    near.close();
    let counted = |lines: &[String]| -> Vec<serde_json::Value> {
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = counted(&all.finish().stdout);
    let told: Vec<_> = all
        .iter()
        .map(|row| (row["verdict"].as_str(), row["rport"].as_u64(), row["count"].as_u64()))
        .collect();
    let expected = [("refused", 82, 3), ("refused", 81, 2), ("reset-received", 83, 1)];
    assert_eq!(told, expected.map(|(word, port, count)| (Some(word), Some(port), Some(count))));
    for row in &all {
        assert_eq!(row["raddr"], net.v4_of(2, 80).ip().to_string());
        assert_eq!((row["user"].as_str(), row["other"].as_bool()), (Some("root"), Some(false)));
    }
    // Which two groups came first is seen by the rows: what came then is summed per verdict.
    let few = few.finish().stdout;
    let words: Vec<Vec<&str>> = few.iter().map(|line| line.split_whitespace().collect()).collect();
    let expected: [&[&str]; 5] = [
        &[],
        &["VERDICT", "RPORT", "COUNT"],
        &["refused", "82", "3"],
        &["refused", "81", "2"],
        &["reset-received", "other", "1"],
    ];
    assert_eq!(words, expected);
    let often = counted(&often.finish().stdout);
    let sum = |word: &str| -> u64 {
        often.iter().filter(|row| row["verdict"] == word).filter_map(|row| row["count"].as_u64()).sum()
    };
    assert_eq!((sum("refused"), sum("reset-received")), (5, 1), "{often:?}");
    assert!(often.iter().all(|row| row["interval_ns"].as_u64() > Some(0)), "{often:?}");
}

/// The words of a row's timeline, without the times, which must not go back.
fn timeline(row: &serde_json::Value) -> Vec<String> {
    let mut before = 0.0;
    let lines = row["events"].as_array().expect("a list").iter();
    lines
        .map(|line| {
            let line = line.as_str().expect("text");
            let (time, what) = line.split_once(" ms ").expect("a time");
            let time: f64 = time.parse().expect("a number");
            assert!(time >= before, "{row}");
            before = time;
            what.to_owned()
        })
        .collect()
}

/// Both ends of a connection of TCP's own: what MPTCP reads, it reads itself.
fn plain<'c>(client: &'c Peer, web: &Listener<'c>) -> (Conn<'c>, Conn<'c>) {
    let near = client.connect(web.address());
    (near, web.accept())
}

fn a_timeline_says_in_order_what_happened(case: &Case) {
    let net = Net::new();
    net.near().nft("add chain inet probe in { type filter hook input priority 0; }\n");
    let (server, client) = (net.peer("server"), net.peer("client"));
    let json = case.launch("-ae --json").start(&net);
    let text = case.launch(&format!("-ae -p {}", client.pid())).start(&net);
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = plain(&client, &web);
    near.send(10);
    far.receive(10);
    far.send(10);
    near.receive(10);
    near.close();
    far.await_end();
    far.close();
    json.arrival(2);
    client.refused(net.v4_of(2, 81));
    // What is lost is sent again.
    let (near, far) = plain(&client, &web);
    rules(&net, &["tcp dport 80 drop"]);
    near.send(1000);
    thread::sleep(LOST);
    rules(&net, &[]);
    far.receive(1000);
    near.close();
    far.await_end();
    far.close();
    json.arrival(5);
    let told: Vec<serde_json::Value> =
        json.finish().stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |port: &str, at: u16, verdict: &str| -> Vec<Vec<String>> {
        let is_it = |row: &&serde_json::Value| {
            let is_ours = row["raddr"] == net.v4_of(2, 80).ip().to_string();
            is_ours && row[port] == at && (row["verdict"] == "loss") == (verdict == "loss")
        };
        told.iter().filter(is_it).map(timeline).collect()
    };
    assert_eq!(
        of("rport", 80, "ok"),
        [[
            "connect()",
            "established",
            "first byte sent",
            "first byte received",
            "first byte read",
            "we closed: FIN sent",
            "our FIN acknowledged",
            "ended in FIN_WAIT2",
        ]]
    );
    assert_eq!(
        of("lport", 80, "ok")[0],
        [
            "a client's handshake ends",
            "first byte received",
            "first byte read",
            "first answer sent",
            "the peer closed: FIN received",
            "we closed: FIN sent",
            "ended in LAST_ACK",
        ]
    );
    assert_eq!(
        of("rport", 81, "refused"),
        [["connect()", "RST received", "ended in SYN_SENT, ECONNREFUSED"]]
    );
    let lossy = &of("rport", 80, "loss")[0];
    let again = lossy.iter().filter(|line| line.starts_with("segment resent: ")).count();
    assert!(
        again > 0 && lossy.iter().all(|line| !line.starts_with("segment") || line.ends_with(", seq +1")),
        "{lossy:?}"
    );
    // In text it stands below its row.
    let text = text.finish().stdout;
    let rows = text
        .iter()
        .filter(|line| line.contains(" ok: ") || line.contains(" refused: ") || line.contains(" loss: "));
    assert_eq!(rows.count(), 3, "{text:?}");
    let refused = text.iter().position(|line| line.contains(" refused: ")).expect("its row");
    assert_eq!(text[refused + 1], "     +0.000 ms  connect()");
    assert!(text[refused + 2].ends_with(" ms  RST received"), "{text:?}");
}

/// Every second.
const LIVE: &str = "-i 1 --slow 300 --json -o +cookie,netns";

/// A row that names its socket: by the network's inode, and by its cookie where programs can ask for one.
fn has_socket(row: &Row, net: &Net, makes_cookies: bool) {
    let inode = fs::metadata(net.near().path()).expect("it is ours").ino();
    row.is("netns", inode);
    row.must(!makes_cookies || row.get("cookie") != "null", "a cookie");
}

fn what_is_stuck_is_a_row_once_and_says_that_it_lives(case: &Case) {
    let net = Net::new();
    net.near().nft("add chain inet probe in { type filter hook input priority 0; }\n");
    let (server, client, writer) = (net.peer("server"), net.peer("client"), net.peer("writer"));
    let web = server.listen(net.v4_of(2, 94));
    let (older, far_older) = plain(&client, &web);
    let run = case.launch(LIVE).start(&net);
    let lossy = server.listen(net.v4_of(2, 92));
    let (near, far) = plain(&client, &lossy);
    let unread = server.listen(net.v4_of(2, 93));
    let (full, reader) = plain(&writer, &unread);
    let late = server.listen(net.v4_of(2, 95));
    let waiting = client.connect(late.address());
    rules(&net, &["tcp dport { 91, 92, 94 } drop"]);
    let silent = client.connect_as(net.v4_of(2, 91), &How::plain().nonblocking());
    older.send(100);
    near.send(100);
    let sent = full.begin_sends(8_000_000, 1);
    let is = |row: &Row, port: &str, at: u16, verdict: &str| {
        row.get("live") == "true" && row.get(port) == at.to_string() && row.get("verdict") == verdict
    };
    let expected = [
        ("rport", 91, "connect-timeout", client.pid()),
        ("rport", 92, "loss", client.pid()),
        ("rport", 94, "loss", client.pid()),
        ("rport", 93, "reader-slow-peer", writer.pid()),
        ("lport", 93, "reader-slow-here", 0),
        ("lport", 95, "never-accepted", 0),
    ];
    for (port, at, verdict, _) in expected {
        run.wait_for_row(&format!("{verdict} of {port} {at}"), |row| is(row, port, at, verdict));
    }
    // Each of them for a while longer.
    thread::sleep(PAUSE);
    let rows = run.so_far();
    let makes_cookies = makes_cookies(case);
    for (port, at, verdict, owner) in expected {
        let found: Vec<&Row> = rows.iter().filter(|row| is(row, port, at, verdict)).collect();
        let [row] = found[..] else { rows.fail(format!("{} rows of {verdict}, not one", found.len())) };
        row.is("pid", owner).is("complete", at != 94);
        has_socket(row, &net, makes_cookies);
        row.must(row.get("evidence").starts_with("still open: "), "it lives");
    }
    // What was stuck goes on.
    rules(&net, &[]);
    reader.receive(8_000_000);
    sent();
    far_older.receive(100);
    far.receive(100);
    silent.close();
    for conn in [older, far_older, near, far, full, reader, waiting] {
        conn.close();
    }
    run.finish();
}

fn a_listener_that_refuses_is_a_row_with_its_owner(case: &Case) {
    let net = calm();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let before = server.listen(net.v4_of(2, 80));
    before.again(1).expect("a shorter queue");
    let run = case.launch(LIVE).start(&net);
    let after = server.listen(net.v4_of(2, 81));
    after.again(1).expect("a shorter queue");
    // Two wait, for which there is room; of the others the SYNs are dropped.
    let open = |to: SocketAddr| client.connect_as(to, &How::plain().nonblocking());
    let conns: Vec<Conn> = [80, 81]
        .into_iter()
        .flat_map(|port| (0..5).map(move |_| port))
        .map(|port| open(net.v4_of(2, port)))
        .collect();
    for port in ["80", "81"] {
        run.wait_for_row(&format!("the listener at {port}"), |row| {
            row.get("verdict") == "accept-refused" && row.get("lport") == port
        });
    }
    let rows = run.so_far();
    let makes_cookies = makes_cookies(case);
    for row in rows.iter().filter(|row| row.get("verdict") == "accept-refused") {
        has_socket(row, &net, makes_cookies);
        row.is("pid", server.pid()).is("comm", "server").is("state", "LISTEN").is("live", false);
        row.is("queue", 2).is("queue_limit", 1).is("complete", true);
        row.must(
            (1..=20).contains(&row.number("refused").to_string().parse().unwrap_or(0)),
            "three SYNs, and what is sent again",
        );
    }
    conns.into_iter().for_each(Conn::close);
    run.finish();
}
