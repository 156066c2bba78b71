//! The loss ledger of every event tool: what was made is seen or told as lost, exactly; nothing is left behind.
//!
//! One table says for each tool which traffic makes its rows and how many. Filters keep everybody else's events out of
//! the count of losses, which is one for the whole run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, least, note, skip};
use netbcc_tests::net::{END_PORT, FREE_PORTS, Net};
use netbcc_tests::peer::{How, Listener, Peer};
use netbcc_tests::raw::{link_exists, map_entries, map_exists, program, program_exists};
use netbcc_tests::run::{Launch, PATIENCE, Run, attached_of, links_of, maps_of, programs_of};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::engine::{PROMPT, Preemption, tools};

pub(crate) const CHECKS: &[Check] = checks![
    at_the_default_ring_nothing_is_lost: alone,
    a_full_ring_tells_exactly_what_it_lost: alone,
    kill_9_in_a_flood_leaves_nothing: alone,
    a_reader_that_takes_nothing_is_told_what_it_missed: alone,
    threads_that_share_processors_cost_no_row_untold: alone,
];

/// Not about one tool.
pub(crate) const ANY: &[Check] = checks![
    all_tools_at_once_are_right_after_five_seconds_without_them: alone,
    two_copies_of_each_tool_say_the_same: alone,
    many_short_connections_fill_no_map: alone,
    ten_times_the_events_take_no_more_memory: alone,
];

/// What makes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// Connects to where nobody listens.
    Refused,
    /// Connects that are accepted, closed and served to their end.
    Served,
    /// Sockets that listen and are closed.
    Listens,
    /// Opens that nobody answers, with one retransmission each.
    Silence,
    /// Reads of a byte that had come, on one connection.
    Reads,
}

/// A tool, the traffic that makes its rows, and how many rows each operation makes.
struct Flood {
    tool: &'static str,
    traffic: Traffic,
    rows: usize,
}

/// Every event tool.
const FLOODS: &[Flood] = &[
    Flood { tool: "tcpconnect", traffic: Traffic::Refused, rows: 1 },
    Flood { tool: "tcpconnlat", traffic: Traffic::Refused, rows: 1 },
    Flood { tool: "tcplife", traffic: Traffic::Served, rows: 1 },
    Flood { tool: "tcpstates", traffic: Traffic::Refused, rows: 2 },
    // Before those whose ends listen.
    Flood { tool: "solisten", traffic: Traffic::Listens, rows: 1 },
    Flood { tool: "bindsnoop", traffic: Traffic::Listens, rows: 1 },
    Flood { tool: "tcptracer", traffic: Traffic::Served, rows: 2 },
    Flood { tool: "tcpaccept", traffic: Traffic::Served, rows: 1 },
    Flood { tool: "tcpretrans", traffic: Traffic::Silence, rows: 1 },
    Flood { tool: "tcpdrop", traffic: Traffic::Refused, rows: 1 },
    Flood { tool: "tcpreset", traffic: Traffic::Refused, rows: 1 },
    Flood { tool: "tcppktlat", traffic: Traffic::Reads, rows: 1 },
    Flood { tool: "tcpwhy", traffic: Traffic::Refused, rows: 1 },
];

/// The tools of the table.
pub(crate) fn flooded() -> impl Iterator<Item = &'static str> {
    FLOODS.iter().map(|flood| flood.tool)
}

/// More operations than this are not made, however fast they are.
const MOST: usize = 20_000;
/// How long operations are made.
const LONG: Duration = Duration::from_millis(800);
/// How many operations at a time: prime, so that no other number is it by chance.
const SOME: usize = 503;
/// Nothing answers there.
const SILENT: u16 = 83;

/// Who makes the traffic, and where.
struct Scene<'n> {
    net: &'n Net,
    client: &'n Peer,
    server: &'n Peer,
    /// Both ends of the connections that are only read from: a connection per batch that no other tool's process opens.
    reader: &'n Peer,
    web: &'n Listener<'n>,
    /// How often this kernel sends the SYN of one open again that nobody answers.
    resent: usize,
    /// SYNs that were sent again since the last start of a tool. To where nobody listens: a machine that is busy is now and
    /// then late to refuse them. To where nobody answers: one each, and on a machine that is busy now and then two.
    again: Cell<usize>,
}

/// Namespace and processes of a flood.
fn with_scene(traffic: Traffic, action: impl FnOnce(&Scene<'_>)) {
    let net = Net::new();
    // Every connection has a port of its own for as long as TIME_WAIT keeps it, and none has a server's.
    net.near().sysctl("ipv4/ip_local_port_range", &format!("{FREE_PORTS} 65535"));
    net.near().sysctl("ipv4/tcp_syn_retries", "1");
    // Newer kernels (6.5) send a SYN some times more at the pace of the first; how often until the time of the retries is
    // over, depends on how punctual timers are.
    net.near().sysctl_if_any("ipv4/tcp_syn_linear_timeouts", "0");
    let (server, client, reader) = (net.peer("server"), net.peer("client"), net.peer("reader"));
    let web = server.listen(net.v4_of(2, net.port(0)));
    web.serve();
    let mut scene = Scene {
        net: &net,
        client: &client,
        server: &server,
        reader: &reader,
        web: &web,
        resent: 0,
        again: Cell::new(0),
    };
    if traffic == Traffic::Silence {
        scene.make(traffic, 1);
        scene.resent = scene.again.take();
    }
    action(&scene);
}

impl Scene<'_> {
    /// A tool of the table that sees this scene only.
    fn launch(&self, flood: &Flood, more: &str) -> Launch {
        self.again.set(0);
        let (client, server) = (self.client.pid(), self.server.pid());
        let options = match flood.tool {
            // It cannot tell whose they are, but no other test has these ports.
            "tcpstates" => format!("-D {},{},{END_PORT}", self.net.port(0), self.net.port(1)),
            // What is served takes a busy machine so long that it may have a row, too.
            "tcpwhy" => format!("-p {client} -D {},{END_PORT}", self.net.port(1)),
            "tcpaccept" | "solisten" | "bindsnoop" => format!("-p {server}"),
            "tcppktlat" => format!("-p {}", self.reader.pid()),
            "tcpdrop" => format!("--all --netns-id {}", self.namespace()),
            // What earlier tests left sends segments again, too.
            "tcpretrans" => format!("--netns {}", self.namespace()),
            _ => format!("-p {client}"),
        };
        Launch::new(flood.tool, &format!("{options} {more}"))
    }

    /// Starts it, with its rows to the test.
    fn start(&self, flood: &'static Flood, more: &str) -> Run<'_> {
        let run = self.launch(flood, more).start(self.net);
        let run = run.watched().ended_by(|| self.end(flood));
        run.end_rows(self.rows(flood))
    }

    /// How many rows an operation makes, at the least.
    fn rows(&self, flood: &Flood) -> usize {
        if flood.traffic == Traffic::Silence { self.resent } else { flood.rows }
    }

    /// How many rows the operations made since the last start of a tool, which are so many.
    fn made(&self, flood: &Flood, operations: usize) -> usize {
        match flood.tool {
            "tcpretrans" => self.again.get(),
            // What is sent again is dropped again.
            "tcpdrop" => operations * self.rows(flood) + self.again.get(),
            _ => operations * self.rows(flood),
        }
    }

    fn namespace(&self) -> u64 {
        self.net.near().enter(|| fs::metadata("/proc/thread-self/ns/net").expect("it is there").ino())
    }

    /// Where nobody listens.
    fn closed(&self) -> SocketAddr {
        self.net.v4_of(2, self.net.port(1))
    }

    /// Does it `count` times.
    fn make(&self, traffic: Traffic, count: usize) {
        let before = self.net.retransmissions();
        match traffic {
            Traffic::Refused => assert_eq!(self.client.churn(self.closed(), count, 1), (0, count)),
            Traffic::Served => {
                assert_eq!(self.client.churn(self.web.address(), count, 1), (count, 0));
                self.web.served(count);
            }
            Traffic::Listens => self.server.listens(self.net.v4(81), count),
            Traffic::Silence => self.client.time_out(self.net.silent(SILENT), count),
            Traffic::Reads => self.reader.reads(self.net.v4_of(3, 84), count),
        }
        let again = self.net.retransmissions() - before;
        if traffic == Traffic::Refused && again > 0 {
            note(format!("NOTE {again} SYNs to where nobody listens were sent again"));
        }
        if matches!(traffic, Traffic::Refused | Traffic::Silence) {
            self.again.set(self.again.get() + again);
        }
    }

    /// As often as it can be done in a while; answers how often that is.
    fn flood(&self, traffic: Traffic) -> usize {
        let start = Instant::now();
        let mut done = 0;
        // All of these are sent again at once.
        let again = traffic != Traffic::Silence;
        while done == 0 || again && done < MOST && start.elapsed() < LONG {
            self.make(traffic, SOME);
            done += SOME;
        }
        done
    }

    /// What says that nothing more is to come.
    fn end(&self, flood: &Flood) {
        match (flood.tool, flood.traffic) {
            // One of them knows the client's port only, the other the server's.
            ("tcpaccept" | "tcptracer", _) => {
                let listener = self.server.listen(self.net.v4_of(3, END_PORT));
                let from = How::plain().bound(self.net.v4(END_PORT));
                let near = self.client.connect_as(listener.address(), &from);
                // Nothing stays that would keep the ports for itself.
                listener.accept().abort();
                near.await_end();
                near.close();
                listener.close();
            }
            (_, Traffic::Refused | Traffic::Served) => self.client.refused(self.net.v4(END_PORT)),
            (_, Traffic::Listens) => self.server.listens(self.net.v4(END_PORT), 1),
            (_, Traffic::Silence) => self.client.time_out(self.net.silent(END_PORT), 1),
            (_, Traffic::Reads) => self.reader.reads(self.net.v4_of(3, END_PORT), 1),
        }
    }
}

/// The row of this case's tool.
fn row_of(case: &Case) -> &'static Flood {
    FLOODS.iter().find(|flood| flood.tool == case.tool).expect("it is in the table")
}

/// Ends the tool and insists that its rows and losses are what was made.
fn adds_up(run: Run<'_>, all: usize) -> (usize, Ended) {
    run.settle();
    let rows = run.so_far();
    let ended = run.stop();
    ended.code(0).adds_up(&rows, all);
    (rows.len(), ended)
}

/// How long a tool may have to wait for its processor before the ring, which holds this long a flood, may be full.
const STARVED: Duration = Duration::from_millis(50);

fn at_the_default_ring_nothing_is_lost(case: &Case) {
    let flood = row_of(case);
    with_scene(flood.traffic, |scene| {
        let run = scene.start(flood, "");
        let before = run.waited_for_cpu();
        let all = scene.made(flood, scene.flood(flood.traffic));
        let waited = run.waited_for_cpu().saturating_sub(before);
        let (_, ended) = adds_up(run, all);
        if ended.lost() > 0 && waited > STARVED {
            note(format!(
                "NOTE {}: {} of {all} lost: it had no processor for {waited:?}",
                case.tool,
                ended.lost()
            ));
        } else if ended.lost() > 0 {
            ended.fail("the default ring was full");
        }
    });
}

/// How many connections threads make that share processors.
const SHARED: usize = 400;

/// More threads than processors, so that tasks lose theirs anywhere, also in the middle of a program.
fn threads_that_share_processors_cost_no_row_untold(case: &Case) {
    let flood = row_of(case);
    let served = flood.traffic == Traffic::Served;
    if !served && flood.traffic != Traffic::Refused {
        skip("one thread makes its rows");
    }
    let kernel = Preemption::of_kernel();
    with_scene(flood.traffic, |scene| {
        // A task may lose its processor in the second copy of a program while another waits for its own in the first.
        for tries in (0..if kernel.keeps_tracepoints() { 3 } else { 1 }).rev() {
            let run = scene.start(flood, "");
            if kernel.keeps_tracepoints() {
                are_doubled(&run);
            }
            let before = scene.net.retransmissions();
            let (to, outcome) =
                if served { (scene.web.address(), (SHARED, 0)) } else { (scene.closed(), (0, SHARED)) };
            assert_eq!(scene.client.churn(to, SHARED, 8), outcome);
            if served {
                scene.web.served(SHARED);
            } else {
                scene.again.set(scene.net.retransmissions() - before);
            }
            let all = scene.made(flood, SHARED);
            let (rows, ended) = adds_up(run, all);
            if rows == all {
                break;
            }
            let skipped = ended.skipped();
            note(format!("NOTE {}: {rows} of {all} rows, {skipped} runs were skipped", case.tool));
            if kernel.keeps_tracepoints() && tries == 0 {
                ended.fail("rows are missing each time");
            }
        }
    });
}

/// Insists that there are two of each program that the run has attached.
fn are_doubled(run: &Run<'_>) {
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for (_, id) in attached_of(run.pid()) {
        let name = program(id).expect("the tool holds it").name;
        // It runs once, at the start.
        if name.ends_with("_iter") {
            continue;
        }
        // What tcplife has in place of a copy.
        *copies.entry(name.replace("_again_tp", "_tp")).or_default() += 1;
    }
    assert!(!copies.is_empty() && copies.values().all(|count| *count == 2), "{copies:?}");
}

fn a_full_ring_tells_exactly_what_it_lost(case: &Case) {
    let flood = row_of(case);
    with_scene(flood.traffic, |scene| {
        let run = scene.start(flood, "--x-ring-bytes 4096");
        run.suspend();
        // More than the ring holds.
        scene.make(flood.traffic, SOME);
        run.resume();
        // It empties the ring before it prints: from now on there is room.
        run.arrival(1);
        run.settle();
        let (before, some) = (run.so_far().len(), scene.made(flood, SOME));
        // What comes after it is right.
        scene.make(flood.traffic, 3);
        run.settle();
        let all = scene.made(flood, SOME + 3);
        assert_eq!(run.so_far().len() - before, all - some, "rows after the ring had room again");
        let (seen, ended) = adds_up(run, all);
        assert!(ended.lost() > 0 && seen < some, "{seen} rows fit into 4 KiB");
    });
}

/// A pipe of one page that nobody reads, until the tool has ended.
fn a_reader_that_takes_nothing_is_told_what_it_missed(case: &Case) {
    let flood = row_of(case);
    with_scene(flood.traffic, |scene| {
        let mut waits = Vec::new();
        let ways = [(Signal::SIGTERM, OFlag::empty()), (Signal::SIGINT, OFlag::O_NONBLOCK)];
        for (nth, (signal, flags)) in ways.into_iter().cycle().take(3 * ways.len()).enumerate() {
            if nth >= ways.len() && waits.iter().any(|waited| *waited < PROMPT) {
                return;
            }
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("it holds a page");
            fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("it is ours");
            let run = scene.launch(flood, "--json").stdout(writer).start(scene.net).watched();
            scene.make(flood.traffic, SOME);
            let all = scene.made(flood, SOME);
            let (ended, waited) = run.ends_after(signal);
            ended.code(0);
            waits.push(waited);
            let text = io::read_to_string(File::from(reader)).expect("rows are UTF-8");
            assert!(
                text.ends_with("}\n") && text.lines().all(|line| line.starts_with('{')),
                "{signal}: torn: {text}"
            );
            let (written, not) = (text.lines().count(), ended.not_written());
            assert!(written > 0 && not > 0, "{signal}: {written} rows were written, {not} not");
            ended.sums_up(written + not, all);
        }
        assert!(waits.iter().any(|waited| *waited < PROMPT), "it took {waits:?} to end");
    });
}

fn kill_9_in_a_flood_leaves_nothing(case: &Case) {
    let flood = row_of(case);
    with_scene(flood.traffic, |scene| {
        let run = scene.start(flood, "");
        let (programs, maps, links) = (programs_of(run.pid()), maps_of(run.pid()), links_of(run.pid()));
        assert!(
            !programs.is_empty() && !maps.is_empty() && !links.is_empty(),
            "{programs:?} {maps:?} {links:?}"
        );
        // An order that takes a while, and is not over when the tool dies.
        let peer = match flood.traffic {
            Traffic::Listens => scene.server,
            Traffic::Reads => scene.reader,
            Traffic::Refused | Traffic::Served | Traffic::Silence => scene.client,
        };
        match flood.traffic {
            Traffic::Refused => peer.begin(&format!("churn {} 2003 1", scene.closed())),
            Traffic::Served => peer.begin(&format!("churn {} 2003 1", scene.web.address())),
            Traffic::Listens => peer.begin(&format!("listens {} 2003", scene.net.v4(81))),
            Traffic::Silence => peer.begin(&format!("time-out {} 503", scene.net.silent(SILENT))),
            Traffic::Reads => peer.begin(&format!("reads {} 2003", scene.net.v4_of(3, 84))),
        }
        run.arrival(1);
        run.signal(Signal::SIGKILL);
        let gone = |exists: fn(u32) -> io::Result<bool>, ids: &[u32]| {
            ids.iter().all(|&id| !exists(id).expect("we may ask"))
        };
        let deadline = Instant::now() + PATIENCE;
        // The kernel frees them in its own time, and tells nobody.
        while !(gone(program_exists, &programs) && gone(map_exists, &maps) && gone(link_exists, &links)) {
            assert!(Instant::now() < deadline, "{}: something is still there", case.tool);
            thread::sleep(Duration::from_millis(5));
        }
        peer.end().expect("the traffic goes on to its end");
    });
}

fn all_tools_at_once_are_right_after_five_seconds_without_them(_: &Case) {
    with_scene(Traffic::Served, |scene| {
        // The samplers run beside them.
        let event_tools = |tool: &&str| !flooded().any(|other| other == *tool);
        let samplers: Vec<Run<'_>> =
            tools().filter(event_tools).map(|tool| Launch::new(tool, least(tool)).start(scene.net)).collect();
        let runs: Vec<(&Flood, Run<'_>)> =
            FLOODS.iter().map(|flood| (flood, scene.start(flood, ""))).collect();
        let start = Instant::now();
        for (_, run) in &runs {
            run.suspend();
        }
        let kinds = [Traffic::Refused, Traffic::Served, Traffic::Listens, Traffic::Reads];
        let counts = kinds.map(|traffic| (traffic, scene.flood(traffic)));
        // What is tested is that the time itself does no harm.
        thread::sleep(Duration::from_secs(5).saturating_sub(start.elapsed()));
        for (_, run) in &runs {
            run.resume();
        }
        // Each sees the connects that end the others, for which its ring must have room.
        for (_, run) in &runs {
            run.is_through();
        }
        for (flood, run) in runs {
            if flood.traffic == Traffic::Silence {
                run.stop().code(0);
                continue;
            }
            run.arrival(1);
            let made =
                |traffic| counts.iter().find(|(kind, _)| *kind == traffic).map_or(0, |(_, count)| *count);
            let all = match flood.tool {
                // These see every kind of connect.
                "tcpconnect" | "tcpconnlat" | "tcplife" => made(Traffic::Refused) + made(Traffic::Served),
                // Accepted ones change their state five times at this end.
                "tcpstates" => 2 * made(Traffic::Refused) + 5 * made(Traffic::Served),
                _ => scene.made(flood, made(flood.traffic)),
            };
            if flood.tool == "tcpdrop" {
                // What follows a connection that was served is dropped, too, now and then.
                let port = scene.closed().port().to_string();
                run.settle();
                let seen = run.so_far().iter().filter(|row| row.get("DPORT") == port).count();
                run.stop().code(0).accounts_for(seen, all);
                continue;
            }
            adds_up(run, all);
        }
        for run in samplers {
            run.stop().code(0);
        }
    });
}

fn two_copies_of_each_tool_say_the_same(_: &Case) {
    for flood in FLOODS {
        with_scene(flood.traffic, |scene| {
            let runs = [scene.start(flood, ""), scene.start(flood, "")];
            let count = if flood.traffic == Traffic::Silence { 3 } else { 101 };
            scene.make(flood.traffic, count);
            // Each end is seen by the other, too; so the rows are counted when both are through.
            runs.iter().for_each(Run::settle);
            for run in runs {
                let rows = run.so_far();
                run.stop().code(0).adds_up(&rows, scene.made(flood, count));
            }
        });
    }
}

/// Memory of its own that a process has now, in bytes.
fn own_memory(run: &Run<'_>) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("each has it");
    line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
}

fn ten_times_the_events_take_no_more_memory(_: &Case) {
    /// Less than the smallest thing that could be kept of an event, an address and a port.
    const PER_EVENT: usize = 6;
    const TIMES: usize = 10;
    const ROUNDS: usize = 10;
    // Not silence, which takes seconds each time.
    for traffic in [Traffic::Refused, Traffic::Served, Traffic::Listens, Traffic::Reads] {
        with_scene(traffic, |scene| {
            let floods = FLOODS.iter().filter(|flood| flood.traffic == traffic);
            let runs: Vec<(&Flood, Run<'_>)> = floods.map(|flood| (flood, scene.start(flood, ""))).collect();
            // What they hold grows with what waits for them at once.
            let make = |runs: &[(&Flood, Run<'_>)], operations| {
                for (_, run) in runs {
                    run.suspend();
                }
                scene.make(traffic, operations);
                for (_, run) in runs {
                    run.resume();
                }
                for (_, run) in runs {
                    run.settle();
                }
            };
            // So the first time more of them wait than later.
            let start = Instant::now();
            make(&runs, 2 * SOME);
            if start.elapsed() > Duration::from_secs(1) {
                // What a tool keeps does not depend on the kernel: an emulated processor would take minutes for it.
                skip(format!("a processor that makes {} connections in a second", 2 * SOME));
            }
            // What is made once, as the memory of a thread, or is kept of the first some hundreds of its kind, as tcpdrop's stacks,
            // comes at any time; what is kept of events grows each time.
            let mut growing = runs;
            for nth in (0..ROUNDS).rev() {
                let before: Vec<usize> = growing.iter().map(|(_, run)| own_memory(run)).collect();
                for _ in 0..2 * TIMES {
                    make(&growing, SOME);
                }
                let mut still = Vec::new();
                for ((flood, run), before) in growing.into_iter().zip(before) {
                    let grown = own_memory(&run).saturating_sub(before);
                    let most = PER_EVENT * 2 * TIMES * SOME * flood.rows;
                    if grown <= most {
                        run.stop().code(0);
                        continue;
                    }
                    let tool = flood.tool;
                    assert!(
                        nth > 0,
                        "{tool}: each time {TIMES} times as many events take more memory, at last {grown} bytes; {most} at \
                         most"
                    );
                    note(format!("NOTE {tool}: {grown} bytes more"));
                    still.push((flood, run));
                }
                growing = still;
                if growing.is_empty() {
                    break;
                }
            }
        });
    }
}

/// How many connections `many_short_connections_fill_no_map` makes, if not as many as take a few seconds.
const CONNECTIONS: &str = "NETBCC_CONNECTIONS";

fn many_short_connections_fill_no_map(_: &Case) {
    let wanted = std::env::var(CONNECTIONS).ok().map(|text| text.parse::<usize>().expect("a number"));
    with_scene(Traffic::Served, |scene| {
        // A port is free again at once: the count may be larger than the range.
        scene.net.near().sysctl("ipv4/tcp_max_tw_buckets", "0");
        let runs: Vec<(&str, Run<'_>)> = tools()
            .map(|tool| {
                (tool, Launch::new(tool, least(tool)).stdout(std::process::Stdio::null()).start(scene.net))
            })
            .collect();
        let entries = |run: &Run<'_>| -> Vec<(String, usize)> {
            let maps = maps_of(run.pid()).into_iter();
            maps.filter_map(|id| map_entries(id).expect("we may ask")).collect()
        };
        let start = Instant::now();
        let mut done = 0;
        while match wanted {
            Some(wanted) => done < wanted,
            None => done == 0 || done < 50_000 && start.elapsed() < Duration::from_secs(3),
        } {
            scene.make(Traffic::Refused, SOME);
            scene.make(Traffic::Served, SOME);
            scene.client.churn_resets(scene.web.address(), SOME);
            scene.web.served(SOME);
            done += 3 * SOME;
        }
        scene.make(Traffic::Silence, SOME);
        done += SOME;
        let took = start.elapsed();
        let mut report = String::new();
        for (tool, run) in runs {
            for (map, count) in entries(&run) {
                let _infallible = write!(report, " {tool}.{map} {count}");
                // Tables of a sampler hold an interval; those of sockets hold those that are open. tcpcong's interval is
                // the run, at whose end each connection that lost something is a row, as those that nobody answered.
                let kept = if tool == "tcpcong" { SOME } else { 0 };
                assert!(count < 200 + kept, "{tool}: {count} entries in {map} after {done} connections");
            }
            let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            let _infallible = write!(report, " {tool} {}", line.trim());
            run.stop().code(0);
        }
        if wanted.is_some() {
            note(format!("NOTE {done} connections in {took:?}; entries left, and most memory:{report}"));
        }
    });
}
