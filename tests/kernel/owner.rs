//! `--owner`: a row's process is the socket's owner, whoever had the CPU (ARCHITECTURE.md, D43).
//!
//! Rows come in interrupts or in the calls of the other end; sockets are opened before the tool starts and after that; their
//! owners are in containers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use netbcc::registry::TOOLS;
use netbcc::sys::btf::{self, Wanted};
use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check, Rung, skip};
use netbcc_tests::net::Net;
use netbcc_tests::peer::{Conn, How, Listener, Peer};
use netbcc_tests::rows::{Row, Rows};
use netbcc_tests::run::{Launch, Run};

use crate::tcpconnect::Groups;

/// The checks of each tool, and the rungs on which they run.
pub(crate) const TOOLS_AND_CHECKS: [(&str, &[Rung], &[Check]); 4] = [
    ("tcplife", &Rung::FORCED, LIVES),
    ("tcpretrans", &Rung::FORCED, RETRANSMITS),
    ("tcpstates", &Rung::FORCED, STATES),
    ("tcpdrop", &[Rung::Any], DROPS),
];

/// What is checked once, with all tools together.
pub(crate) const ANY: &[Check] = checks![a_socket_has_one_cookie_in_all_tools];

const RETRANSMITS: &[Check] = checks![
    a_retransmit_in_an_interrupt_is_of_the_owner_and_its_container,
    a_socket_that_others_got_is_of_who_opened_it,
    a_syn_ack_is_of_who_listens_and_a_probe_of_who_sends,
];

const STATES: &[Check] = checks![
    a_change_that_the_other_end_makes_is_of_the_owner,
    a_connection_that_nobody_accepted_has_no_owner,
    owners_beside_the_task_on_the_cpu,
    a_state_from_before_the_start_has_a_time_where_it_is_asked_for,
];

const LIVES: &[Check] = checks![a_connection_from_before_the_start_is_a_row_where_it_is_asked_for];

const DROPS: &[Check] = checks![a_packet_that_tcp_drops_is_of_the_owner_of_the_socket_that_receives];

/// What all runs print.
const USUAL: &str = "--json -o +owner_pid,owner_comm,container_id,netns,cookie";

/// What says that a connection which nobody accepted yet has no owner: a table does not know its listener.
const IN_TABLE: &str = "kept in a table";

/// An id of a container that nobody else's is.
fn id_of(case: &Case, nth: usize) -> String {
    let tool = TOOLS.iter().position(|tool| tool.spec.name == case.tool).expect("it is a tool");
    format!("{:056x}{:02x}{:02x}{:02x}{:02x}", std::process::id(), tool, case.rung.name().len(), nth, 0x5e)
}

/// The rows of the socket with this local port.
fn of_port(rows: &Rows, port: u16) -> Vec<&Row> {
    rows.iter().filter(|row| row.get("lport") == port.to_string()).collect()
}

/// A row says that this process owns the socket.
fn is_of(row: &Row, pid: &str, owner: &Peer, name: &str, container: &dyn Display) {
    row.is(pid, owner.pid()).is("owner_pid", owner.pid()).is("owner_comm", name);
    row.is("container_id", container);
}

/// Waits for some rows of each of these local ports.
fn await_ports(run: &Run<'_>, ports: &[u16]) -> Rows {
    for port in ports {
        run.wait_for_row("a row of each", |row| row.get("lport") == port.to_string());
    }
    run.so_far()
}

/// A connection in which both ends wrote and read 10 bytes.
fn converse<'c, 's>(client: &'c Peer, web: &Listener<'s>) -> (Conn<'c>, Conn<'s>) {
    let near = client.connect(web.address());
    let far = web.accept();
    near.send(10);
    far.receive(10);
    far.send(10);
    near.receive(10);
    (near, far)
}

/// Whether programs of this kernel can ask for a socket's cookie, on this rung.
pub(crate) fn makes_cookies(case: &Case) -> bool {
    let wanted = Wanted { functions: vec!["bpf_get_socket_ptr_cookie".into()], ..Wanted::default() };
    let kernel = btf::read(&wanted).expect("the kernel has BTF");
    case.rung != Rung::Kprobe && kernel.function("bpf_get_socket_ptr_cookie").is_some()
}

fn forget<'c>(conns: impl IntoIterator<Item = Conn<'c>>) {
    conns.into_iter().for_each(Conn::abort);
}

fn forget_here<'c>(conns: impl IntoIterator<Item = Conn<'c>>) {
    conns.into_iter().for_each(Conn::close);
}

fn a_retransmit_in_an_interrupt_is_of_the_owner_and_its_container(case: &Case) {
    let mut groups = Groups::new(case);
    let makes_cookies = makes_cookies(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let ids = [0, 1].map(|nth| id_of(case, nth));
        groups.put(&server, &format!("docker-{}.scope", ids[0]));
        groups.put(&client, &format!("docker-{}.scope", ids[1]));
        let web = server.listen(net.v4_of(2, 80));
        let (old, old_far) = converse(&client, &web);
        let run = case.launch(&format!("--owner -v {USUAL}")).start(&net);
        let filters = [
            format!("--pid={}", client.pid()),
            format!("--container={}", ids[1]),
            "--comm=client".to_owned(),
            format!("--pid={} --container={}", server.pid(), ids[1]),
        ];
        let filtered = filters.map(|filter| case.launch(&format!("--owner {filter} {USUAL}")).start(&net));
        let (new, new_far) = converse(&client, &web);
        net.near().nft(
            "add chain inet probe in { type filter hook input priority 0; }\n\
             add rule inet probe in tcp dport 80 drop\nadd rule inet probe in tcp sport 80 drop\n",
        );
        // Both ends send, and a timer sends again.
        for conn in [&old, &new, &old_far, &new_far] {
            conn.send(100);
        }
        let clients = [old.local().port(), new.local().port()];
        let is_of_server =
            |row: &Row, port: u16| row.get("lport") == "80" && row.get("rport") == port.to_string();
        let rows = await_ports(&run, &clients);
        for port in clients {
            run.wait_for_row("one of the server's", |row| is_of_server(row, port));
            for row in of_port(&rows, port) {
                is_of(row, "pid", &client, "client", &ids[1]);
                row.must(row.number("netns") > 0.0, "a namespace");
                row.must(!makes_cookies || row.number("cookie") > 0.0, "a cookie");
            }
            for row in run.so_far().iter().filter(|row| is_of_server(row, port)) {
                is_of(row, "pid", &server, "server", &ids[0]);
            }
        }
        for (nth, run) in filtered.into_iter().enumerate() {
            if nth == 3 {
                assert_eq!(run.so_far().len(), 0, "no process is in the other one's container");
                run.finish();
                continue;
            }
            for row in &await_ports(&run, &clients) {
                is_of(row, "pid", &client, "client", &ids[1]);
            }
            run.finish();
        }
        run.finish();
        forget([old, old_far, new, new_far]);
    }
    groups.remove();
}

fn a_socket_that_others_got_is_of_who_opened_it(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.new_peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    // It started later.
    let heir = net.new_peer("heir");
    let (old, old_far) = converse(&client, &web);
    let old_heir = old.share(&heir);
    let run = case.launch(&format!("--owner {USUAL}")).start(&net);
    let (new, new_far) = converse(&client, &web);
    let new_heir = new.share(&heir);
    let ports = [old.local().port(), new.local().port()];
    // It alone uses them.
    forget_here([old, new]);
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 80 drop\n",
    );
    old_heir.send(100);
    new_heir.send(100);
    for row in &await_ports(&run, &ports) {
        is_of(row, "pid", &client, "client", &"null");
    }
    run.finish();
    forget([old_heir, new_heir, old_far, new_far]);
}

fn a_syn_ack_is_of_who_listens_and_a_probe_of_who_sends(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let old = server.listen(net.v4_of(2, 82));
    let run = case.launch(&format!("-l --synack --owner {USUAL}")).start(&net);
    let new = server.listen(net.v4_of(2, 83));
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = converse(&client, &web);
    net.near().nft(
        "add chain inet probe in { type filter hook input priority 0; }\n\
         add rule inet probe in tcp dport 82-83 tcp flags & ack == ack drop\n\
         add rule inet probe in tcp dport 80 drop\n",
    );
    let opened = [&old, &new].map(|to| client.connect(to.address()));
    near.send(100);
    for port in [82, 83] {
        run.wait_for_row("a SYN-ACK", |row| row.get("lport") == port.to_string());
    }
    run.wait_for_row("a probe", |row| row.get("type") == "L");
    for row in &run.so_far() {
        let owner = match row.get("type") {
            "S" => (&server, "server"),
            _ => (&client, "client"),
        };
        is_of(row, "pid", owner.0, owner.1, &"null");
    }
    run.finish();
    forget(opened.into_iter().chain([near, far]));
}

fn a_change_that_the_other_end_makes_is_of_the_owner(case: &Case) {
    let mut groups = Groups::new(case);
    {
        let net = Net::new();
        let (server, client) = (net.peer("server"), net.peer("client"));
        let ids = [0, 1].map(|nth| id_of(case, nth));
        groups.put(&server, &format!("docker-{}.scope", ids[0]));
        groups.put(&client, &format!("docker-{}.scope", ids[1]));
        let web = server.listen(net.v4_of(2, 80));
        let (old, old_far) = converse(&client, &web);
        let run = case.launch(&format!("--owner -v {USUAL}")).start(&net);
        let filtered = case.launch(&format!("--owner --pid={} {USUAL}", client.pid())).start(&net);
        let not = case.launch(&format!("--owner --pid={} --comm=client {USUAL}", server.pid())).start(&net);
        let (new, new_far) = converse(&client, &web);
        let ports = [old.local().port(), new.local().port()];
        for (near, far) in [(old, old_far), (new, new_far)] {
            near.close();
            far.await_end();
            far.close();
        }
        for port in ports {
            // The acknowledgement of the last FIN may come much later, in anybody's context.
            run.wait_for_row("the end", |row| {
                row.get("rport") == port.to_string() && row.get("newstate") == "CLOSE"
            });
        }
        let is_in_table = run.said().contains(IN_TABLE);
        let rows = run.so_far();
        let mut accepted = 0;
        for row in &rows {
            if row.get("lport") == "80" {
                let is_new = ["LISTEN", "SYN_RECV"].contains(&row.get("oldstate"));
                // On another processor who accepts may be faster than the end of the handshake, for which it need not wait.
                if is_new && is_in_table && row.get("owner_pid") == "null" {
                    row.is("c_pid", 0).is("c_comm", "-").is("owner_comm", "null");
                    continue;
                }
                accepted += 1;
                row.is("c_comm", "server");
                is_of(row, "c_pid", &server, "server", &ids[0]);
            } else {
                row.is("c_comm", "client");
                is_of(row, "c_pid", &client, "client", &ids[1]);
            }
        }
        // CLOSE_WAIT, LAST_ACK and CLOSE of two; what came before depends on the rung.
        assert!(accepted >= 6, "{accepted} of the server's rows");
        let count = rows.iter().filter(|row| row.get("lport") != "80").count();
        filtered.arrival(count);
        let mine = filtered.so_far();
        assert_eq!(mine.iter().filter(|row| row.get("lport") != "80").count(), count);
        assert_eq!((mine.len(), not.so_far().len()), (count, 0));
        for run in [run, filtered, not] {
            run.finish();
        }
    }
    groups.remove();
}

fn a_connection_that_nobody_accepted_has_no_owner(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let near = client.connect(web.address());
    let port = near.local().port();
    let run = case.launch(&format!("--owner {USUAL}")).start(&net);
    let others =
        ["client", "server"].map(|name| case.launch(&format!("--owner --comm={name} {USUAL}")).start(&net));
    near.close();
    let is_far = |row: &Row| row.get("rport") == port.to_string() && row.get("newstate") == "CLOSE_WAIT";
    run.wait_for_row("a FIN that nobody hears", is_far);
    let rows = run.so_far();
    let row = rows.iter().find(|row| is_far(row)).expect("it came");
    row.is("c_pid", 0).is("c_comm", "-").is("owner_pid", "null").is("owner_comm", "null");
    // It is nobody's, and no stranger's either.
    for run in others {
        let of_the_end = |line: &&String| line.contains(&format!("\"rport\":{port},"));
        let ended = run.finish();
        assert_eq!(ended.stdout.iter().find(of_the_end), None);
    }
    web.accept().close();
    run.finish();
}

fn owners_beside_the_task_on_the_cpu(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = converse(&client, &web);
    let run = case.launch("--json -o +owner_pid,owner_comm").start(&net);
    // A run that names no owner has none of this.
    let plain = case.launch("--json").start(&net);
    let port = near.local().port();
    near.close();
    let is_far = |row: &Row| row.get("rport") == port.to_string() && row.get("newstate") == "CLOSE_WAIT";
    run.wait_for_row("the server's", is_far);
    let rows = run.so_far();
    let row = rows.iter().find(|row| is_far(row)).expect("it came");
    row.is("owner_pid", server.pid()).is("owner_comm", "server");
    plain.wait_for_row("the server's", is_far);
    let plain_rows = plain.so_far();
    let other = plain_rows.iter().find(|row| is_far(row)).expect("it came");
    other.must(other.find("owner_pid").is_none(), "nobody asked");
    // Both are of one event: who was on the CPU is the same.
    row.is("c_pid", other.get("c_pid")).is("c_comm", other.get("c_comm"));
    far.close();
    run.finish();
    plain.finish();
}

fn a_packet_that_tcp_drops_is_of_the_owner_of_the_socket_that_receives(case: &Case) {
    crate::tcpdrop::needs_reasons();
    let mut groups = Groups::new(case);
    {
        let net = Net::pair();
        let (server, client) = (net.far_peer("server"), net.peer("client"));
        let ids = [0, 1].map(|nth| id_of(case, nth));
        groups.put(&server, &format!("docker-{}.scope", ids[0]));
        groups.put(&client, &format!("docker-{}.scope", ids[1]));
        let web = server.listen(net.v4_of(2, 80));
        let (old, old_far) = converse(&client, &web);
        let start =
            |words: &str| crate::tcpdrop::start(case, &format!("{words} --no-stack {USUAL}"), &net, &client);
        let run = start("--owner");
        let filtered = start(&format!("--owner --container={}", ids[0]));
        let (new, new_far) = converse(&client, &web);
        // The client sends again what the server has, because no answer arrives.
        net.near().nft(
            "add chain inet probe pre { type filter hook prerouting priority 0; }\n\
             add rule inet probe pre tcp sport 80 drop\n",
        );
        for (near, far) in [(&old, &old_far), (&new, &new_far)] {
            near.send(10);
            far.receive(10);
        }
        let ports = [old.local().port(), new.local().port()];
        let is_old_data = |row: &Row, port: u16| {
            row.get("sport") == port.to_string() && row.get("reason") == "TCP_OLD_DATA"
        };
        for run in [&run, &filtered] {
            for port in ports {
                run.wait_for_row("what was sent again", |row| is_old_data(row, port));
            }
            for row in run.so_far().iter().filter(|row| ports.iter().any(|port| is_old_data(row, *port))) {
                is_of(row, "pid", &server, "server", &ids[0]);
            }
        }
        // A SYN that does not leave is of who connects.
        net.near().nft(
            "add chain inet probe out { type filter hook output priority 0; }\n\
             add rule inet probe out tcp dport 81 drop\n",
        );
        client.connect_as(net.v4_of(2, 81), &How::plain().nonblocking()).close();
        run.wait_for_row("a SYN", |row| row.get("dport") == "81");
        for row in run.so_far().iter().filter(|row| row.get("dport") == "81") {
            is_of(row, "pid", &client, "client", &ids[1]);
        }
        for row in &filtered.so_far() {
            row.is("pid", server.pid());
        }
        run.finish();
        filtered.stop();
        forget([old, old_far, new, new_far]);
    }
    groups.remove();
}

fn a_connection_from_before_the_start_is_a_row_where_it_is_asked_for(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let [ours, theirs, reset] = [(); 3].map(|()| converse(&client, &web));
    for (near, far) in [&ours, &theirs, &reset] {
        near.send(3000);
        far.receive(3000);
    }
    let before = Instant::now();
    let [text, plain, json, mine] = [
        "--existing".to_owned(),
        String::new(),
        "--existing --json -o +segs_in,retrans".to_owned(),
        format!("--existing --json --pid={}", client.pid()),
    ]
    .map(|words| case.launch(&words).start(&net));
    let new = converse(&client, &web);
    let ports = [&ours, &theirs, &reset, &new].map(|(near, _)| near.local().port());
    // The client closes first, the server does, and one end resets.
    for ((near, far), client_first) in [(ours, true), (new, true), (theirs, false)] {
        let (first, last) = if client_first { (near, far) } else { (far, near) };
        first.close();
        last.await_end();
        last.close();
    }
    reset.0.abort();
    reset.1.await_end();
    reset.1.close();
    let rows = json.rows_at_last(8);
    let most_ms = before.elapsed().as_secs_f64() * 1000.0;
    for row in &rows {
        let is_client = row.get("lport") != "80";
        let port = if is_client { row.get("lport") } else { row.get("rport") };
        let nth = ports.iter().position(|one| one.to_string() == port).expect("one of ours");
        if nth == 3 {
            row.is("since", "null");
            continue;
        }
        // 3010, a SYN or not, and a FIN that was acknowledged or not.
        let bytes = row.number(if is_client { "tx_bytes" } else { "rx_bytes" });
        row.is("since", "start").must((3010.0..=3012.0).contains(&bytes), "all bytes of the connection");
        row.must(row.number("span_us") / 1000.0 <= most_ms, "since the start");
        let (owner, name) = if is_client { (&client, "client") } else { (&server, "server") };
        row.is("pid", owner.pid()).is("comm", name);
    }
    text.arrival(8);
    let marked = text.so_far().iter().filter(|row| row.get("MS").starts_with('>')).count();
    assert_eq!((text.so_far().len(), marked), (8, 6));
    plain.arrival(2);
    plain.settle();
    assert_eq!(plain.so_far().len(), 2, "without the option there are those that were seen to begin");
    mine.arrival(4);
    for run in [text, plain, json] {
        run.finish();
    }
    let ended = mine.finish();
    let ours = ended.stdout.iter().filter(|line| ports.iter().any(|port| line.contains(&port.to_string())));
    assert_eq!(ours.count(), 4, "{:?}", ended.stdout);
}

fn a_state_from_before_the_start_has_a_time_where_it_is_asked_for(case: &Case) {
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = converse(&client, &web);
    let before = Instant::now();
    let [run, plain] = ["--existing", ""].map(|words| case.launch(words).start(&net));
    let started = Instant::now();
    let new = converse(&client, &web);
    let port = near.local().port();
    // This pause is what is measured, not a wait for something.
    thread::sleep(Duration::from_millis(150));
    let least = started.elapsed();
    for (near, far) in [(near, far), new] {
        near.close();
        far.await_end();
        far.close();
    }
    for run in [&run, &plain] {
        let is_last = |row: &Row| row.get("RPORT") == port.to_string() && row.get("NEWSTATE") == "CLOSE";
        run.wait_for_row("the end", is_last);
    }
    let most = before.elapsed();
    let bounds = least.as_secs_f64() * 1000.0..=most.as_secs_f64() * 1000.0;
    for row in run.so_far().iter().filter(|row| row.get("MS").starts_with('>')) {
        let since = row.get("MS").trim_start_matches('>').parse::<f64>().expect("a number");
        row.must(bounds.contains(&since), format!("{bounds:?} ms since the start"));
    }
    let marked = |run: &Run<'_>| run.so_far().iter().filter(|row| row.get("MS").starts_with('>')).count();
    // ESTABLISHED of both ends of one connection; what follows was seen to begin.
    run.settle();
    assert_eq!((marked(&run), marked(&plain)), (2, 0));
    run.finish();
    plain.finish();
}

fn a_socket_has_one_cookie_in_all_tools(case: &Case) {
    if !makes_cookies(case) {
        skip("programs that ask for cookies (5.12)");
    }
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let inode = fs::metadata(net.near().path()).expect("it is ours").ino().to_string();
    // Of the client's socket, of the server's, or of the listener; each with how many rows.
    let tools = [
        ("tcpconnect", "", 1),
        ("tcpconnect", "-L", 1),
        ("tcpconnlat", "", 1),
        ("tcpstates", "", 11),
        ("tcplife", "", 2),
        ("tcptracer", "", 4),
        ("tcpaccept", "", 1),
        ("solisten", "", 1),
        ("tcpwhy", "-a", 2),
        ("tcpwhy", "-ae", 2),
        ("tcptop", "", 2),
    ];
    let runs = tools.map(|(tool, words, rows)| {
        let launch = Launch::new(tool, &format!("{words} --json -o +cookie,netns"));
        (tool, launch.start(&net), rows)
    });
    let web = server.listen(net.v4_of(2, 80));
    let (near, far) = converse(&client, &web);
    let local = near.local().port().to_string();
    near.close();
    far.await_end();
    far.close();
    let mut cookies: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (tool, run, rows) in runs {
        run.arrival(rows);
        for row in &run.so_far() {
            row.is("netns", &inode);
            let cell =
                |names: [&str; 2]| names.iter().find_map(|name| row.find(name)).unwrap_or("0").to_owned();
            let ends = (cell(["lport", "sport"]), cell(["rport", "dport"]));
            // accept() without fentry is seen by a program that can only read a cookie.
            let cookie = row.get("cookie");
            row.must(cookie != "null" || ["tcpaccept", "tcptracer", "solisten"].contains(&tool), "a cookie");
            if cookie != "null" && (ends.0 == local || ends.1 == local) && ends.0 != "0" {
                cookies.entry(ends).or_default().insert(cookie.to_owned());
            }
        }
        run.finish();
    }
    let each: Vec<usize> = cookies.values().map(BTreeSet::len).collect();
    assert_eq!(each, [1, 1], "{cookies:?}");
}
