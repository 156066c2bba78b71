//! The options by which every tool chooses its rows, each of them on each tool: on one traffic that is known, a run with
//! filters prints exactly those rows of a run without any that the filters name. That is decided here from what the rows
//! say, in another way than in the kernel.
//!
//! Rows are made in system calls and in interrupts: what arrives, what a timer sends again, what is dropped on both ways.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Instant;

use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, Rung, say};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Peer};
use netbcc_tests::run::{PATIENCE, Run};
use serde_json::{Map, Value};

use crate::pairs::is_slow;
use crate::tcpconnect::{Groups, pinned};

pub(crate) const CHECKS: &[Check] =
    checks![each_filter_keeps_exactly_its_rows, each_filter_of_tasks_keeps_exactly_its_rows];

/// What is checked once.
pub(crate) const ONCE: &[Check] = checks![the_end_of_a_cgroup_is_said_once];

/// The tools that have rows with an end, and the rungs on which they are walked.
pub(crate) const TOOLS: [(&str, &[Rung]); 15] = [
    ("bindsnoop", &Rung::FORCED),
    ("solisten", &Rung::FORCED),
    ("tcpaccept", &Rung::FORCED),
    ("tcpconnect", &Rung::FORCED),
    ("tcpconnlat", &Rung::FORCED),
    ("tcpdrop", &[Rung::Any]),
    ("tcplife", &Rung::FORCED),
    ("tcppktlat", &Rung::FORCED),
    ("tcpreset", &[Rung::Any]),
    ("tcpretrans", &Rung::FORCED),
    ("tcpstates", &Rung::FORCED),
    ("tcpsubnet", &Rung::FORCED),
    ("tcptop", &Rung::FORCED),
    ("tcptracer", &Rung::FORCED),
    ("tcpwhy", &[Rung::Tracepoint]),
];

/// Those whose rows have no remote end.
const WITHOUT_REMOTE: [&str; 2] = ["bindsnoop", "solisten"];

/// Those whose rows have ends and no process: a test of their own has the cgroup of the socket.
pub(crate) const TOOLS_OF_ENDS: [(&str, &[Rung]); 1] = [("tcprtt", &[Rung::Tracepoint])];

/// What is checked of them.
pub(crate) const CHECKS_OF_ENDS: &[Check] = checks![each_filter_keeps_exactly_its_rows];

/// Both ends of what a row is about, IPv4 addresses as such.
#[derive(Clone, Copy, Debug)]
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

/// Filters as they are typed, and whether they keep a row between these ends that names this process.
struct Filter<'n> {
    words: String,
    keeps: Box<dyn Fn(Ends, u32) -> bool + 'n>,
}

impl<'n> Filter<'n> {
    fn of(words: String, keeps: impl Fn(Ends, u32) -> bool + 'n) -> Self {
        Self { words, keeps: Box::new(keeps) }
    }
}

fn filters(net: &Net, process: u32) -> Vec<Filter<'_>> {
    let [one, two, two6] = [net.v4(0), net.v4_of(2, 0), net.v6_of(2, 0)].map(|address| address.ip());
    let v4 = format!("{}0/24", one.to_string().strip_suffix('1').expect("it is host 1"));
    let v6 = format!("{}/64", two6.to_string().strip_suffix('2').expect("it is host 2"));
    let prefix = v4.strip_suffix("0/24").expect("it is one").to_owned();
    let in_v4 = move |ip: IpAddr| ip.to_string().starts_with(&prefix);
    let in_v4_too = in_v4.clone();
    let mut all = vec![
        Filter::of(
            format!("--laddr={v6},{two} --lport=0-79,81-65535,!5001 --netns={process}"),
            move |ends, _| {
                (ends.local.is_ipv6() || ends.local.ip() == two) && ![80, 5001].contains(&ends.local.port())
            },
        ),
        Filter::of(format!("--raddr={v4},!{one} --rport=0-80,82-65535"), move |ends, _| {
            in_v4(ends.remote.ip()) && ends.remote.ip() != one && ends.remote.port() != 81
        }),
    ];
    if !is_slow() {
        all.extend([
            Filter::of("--lport=80-82,!81".into(), |ends, _| [80, 82].contains(&ends.local.port())),
            Filter::of("--rport=!80".into(), |ends, _| ends.remote.port() != 80),
            Filter::of(format!("--laddr={one}"), move |ends, _| ends.local.ip() == one),
            Filter::of("--raddr=::/0".into(), |ends, _| ends.remote.is_ipv6()),
            Filter::of(format!("--netns={}", net.near().path()), |_, _| true),
            // The namespace in which the tests began.
            Filter::of(format!("--netns={}", std::process::id()), |_, _| false),
            Filter::of(format!("--laddr=!{v4}"), move |ends, _| !in_v4_too(ends.local.ip())),
        ]);
    }
    all
}

/// A network and who is in it.
struct Stage<'n> {
    net: &'n Net,
    server: Peer,
    client: Peer,
}

/// What a connection sends from an end: both ends as the sender has them, how many bytes, and who sends.
type Sent = (Ends, u64, u32);

impl Stage<'_> {
    /// Both families, an IPv4 connection of an IPv6 socket, two ports; a local port of the test's choice.
    fn targets(&self, ports: [u16; 2]) -> Vec<(Option<SocketAddr>, SocketAddr)> {
        let net = self.net;
        vec![
            (Some(net.v4(5001)), net.v4_of(2, ports[0])),
            (None, net.v4_of(2, ports[1])),
            (None, net.v6_of(2, ports[0])),
            (None, Net::mapped(net.v4_of(2, ports[0]))),
        ]
    }

    fn open(&self, (from, to): (Option<SocketAddr>, SocketAddr), how: How) -> Conn<'_> {
        self.client.connect_as(
            to,
            &match from {
                Some(from) => how.bound(from),
                None => how,
            },
        )
    }

    /// Whole connections, which send in both directions.
    fn converse(&self) -> Vec<Sent> {
        let (net, server) = (self.net, &self.server);
        let listeners =
            [net.v4_of(2, 80), net.v4_of(2, 81), net.v6_of(2, 80)].map(|address| server.listen(address));
        let mut sent = Vec::new();
        for (nth, target) in self.targets([80, 81]).into_iter().enumerate() {
            let to = canonical(target.1);
            let near = self.open(target, How::plain());
            let listener = listeners.iter().find(|listener| listener.address() == to).expect("it is there");
            let far = listener.accept();
            let (there, back) = (3000 << nth, 100 << nth);
            near.send(there);
            far.receive(there);
            far.send(back);
            near.receive(back);
            let ends = Ends { local: canonical(near.local()), remote: to };
            sent.push((ends, there as u64, self.client.pid()));
            let back_ends = Ends { local: ends.remote, remote: ends.local };
            sent.push((back_ends, back as u64, server.pid()));
            near.close();
            far.await_end();
            far.close();
        }
        sent
    }

    /// Opens to where nobody listens.
    fn refuse(&self) {
        for (from, to) in self.targets([80, 81]) {
            let how = from.map_or_else(How::plain, |from| How::plain().bound(from));
            self.client.fails(to, &how, "ECONNREFUSED");
        }
    }

    /// Opens whose SYN is dropped, on its way in (port 82) and on its way out (port 83).
    fn lose(&self) -> Vec<Conn<'_>> {
        self.net.near().nft(
            "add chain inet probe in { type filter hook input priority 0; }\n\
             add chain inet probe out { type filter hook output priority 0; }\n\
             add rule inet probe in tcp dport 82 drop\nadd rule inet probe out tcp dport 83 drop\n",
        );
        self.targets([82, 83])
            .into_iter()
            .map(|target| self.open(target, How::plain().nonblocking()))
            .collect()
    }
}

/// An address without the form in which IPv6 sockets have IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The ends of a row; `None`: it is of somebody else, or of a connection by which the harness waits.
fn ends(case: &Case, net: &Net, row: &Map<String, Value>) -> Option<Ends> {
    let ip = |names: [&str; 3]| {
        let text = names.iter().find_map(|name| row.get(*name)?.as_str());
        text.map(|text| text.parse::<IpAddr>().unwrap_or_else(|why| panic!("{why}: {row:?}")))
    };
    let port = |names: [&str; 3]| {
        let number = names.iter().find_map(|name| row.get(*name)?.as_u64()).unwrap_or_default();
        u16::try_from(number).expect("a port")
    };
    let local = SocketAddr::new(ip(["laddr", "saddr", "addr"])?, port(["lport", "sport", "port"]));
    let remote = ip(["raddr", "daddr", ""]).unwrap_or_else(|| local.ip());
    let remote = SocketAddr::new(remote, port(["rport", "dport", ""]));
    let texts = [local.ip().to_string(), remote.ip().to_string()];
    if !net.owns(texts.iter().map(String::as_str), std::iter::empty()) {
        return None;
    }
    let (local, remote) = (canonical(local), canonical(remote));
    // A packet's source comes first, wherever it is: those of port 82 are dropped where they arrive.
    let came_in = case.tool == "tcpdrop" && remote.port() == 82;
    Some(if came_in { Ends { local: remote, remote: local } } else { Ends { local, remote } })
}

/// What each row says that does not depend on the run, sorted, with the ends of what it is about, and its process.
fn rows(case: &Case, net: &Net, ended: &Ended) -> Vec<(String, Ends, u32)> {
    let own = ["time", "ts_ns", "interval_ns", "span_us", "skaddr", "stack", "frames"];
    let row = |line: &String| {
        let Ok(Value::Object(mut row)) = serde_json::from_str(line) else { return None };
        let ends = ends(case, net, &row)?;
        let pid = row
            .get("pid")
            .or_else(|| row.get("c_pid"))
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok());
        row.retain(|name, _| !own.contains(&name.as_str()));
        if ["tcppktlat", "tcpreset", "tcpwhy"].contains(&case.tool) {
            // Each run takes the time for itself.
            row.retain(|name, _| !name.ends_with("_us") && name != "evidence");
        }
        if case.tool == "tcpconnect" {
            row.remove("lport");
        }
        Some((Value::Object(row).to_string(), ends, pid.unwrap_or_default()))
    };
    let mut rows: Vec<_> = ended.stdout.iter().filter_map(row).collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

/// Bytes per subnet, as tcpsubnet says.
fn sums(ended: &Ended) -> BTreeMap<String, u64> {
    let row = |line: &String| {
        let row: Value = serde_json::from_str(line).ok()?;
        Some((row["subnet"].as_str()?.to_owned(), row["bytes"].as_u64()?))
    };
    ended.stdout.iter().filter_map(row).collect()
}

fn each_filter_keeps_exactly_its_rows(case: &Case) {
    if !has_ipv6() {
        netbcc_tests::kernel::skip("IPv6");
    }
    let net = Net::new();
    let stage = Stage { net: &net, server: net.peer("server"), client: net.peer("client") };
    let mut filters = filters(&net, stage.client.pid());
    if is_slow() {
        filters[1].words = format!("{} --netns={}", filters[1].words, net.near().path());
        // Another one on some rungs; of tcpdrop the first keeps all, and without a remote end there is no second.
        let second =
            case.rung == Rung::Kprobe && !WITHOUT_REMOTE.contains(&case.tool) || case.tool == "tcpdrop";
        filters.swap_remove(usize::from(!second));
    } else if ["tcplife", "tcpstates"].contains(&case.tool) {
        // A letter of BCC's and the long option: both hold.
        filters.push(Filter::of("-L 80,5001 --lport=0-80".into(), |ends, _| ends.local.port() == 80));
    }
    if WITHOUT_REMOTE.contains(&case.tool) {
        filters.retain(|filter| !filter.words.contains("--r"));
    }
    let kept = walk(case, &stage, &filters);
    // Else it shows little.
    let some = kept.iter().any(|&(kept, all)| 0 < kept && kept < all);
    assert!(some || case.tool == "tcpsubnet", "{kept:?}");
}

/// A number that no other case of this test has meanwhile.
fn number_of(case: &Case) -> u32 {
    let nth = TOOLS.iter().position(|(tool, _)| *tool == case.tool).expect("it is one of them");
    let rung = case.rung.name().len() + usize::from(case.rung.name().as_bytes()[0]);
    (std::process::id() % 1000) * 10_000 + u32::try_from(nth * 200 + rung).expect("it is small")
}

fn each_filter_of_tasks_keeps_exactly_its_rows(case: &Case) {
    if !has_ipv6() {
        netbcc_tests::kernel::skip("IPv6");
    }
    let mut groups = Groups::new(case);
    {
        let number = number_of(case);
        let (user, name, id) = (100_000 + number, format!("c{number}"), format!("{number:064}"));
        let net = Net::new();
        let stage = Stage { net: &net, server: net.peer("server"), client: net.peer(&name) };
        let (client, server) = (stage.client.pid(), stage.server.pid());
        // Filters name what it is in.
        let within = groups.put(&stage.client, &format!("docker-{id}.scope/system.slice/x.service"));
        let container = within.strip_suffix("/system.slice/x.service").expect("it is in there").to_owned();
        stage.client.become_user(user);
        let by = move |_: Ends, pid: u32| pid == client;
        // Where the task on the CPU may be a stranger, it is the socket's own cgroup. None has what an interface brought.
        let tool = case.tool;
        let within = move |ends: Ends, pid: u32| match tool {
            "tcpretrans" | "tcpstates" => ![80, 81].contains(&ends.local.port()),
            "tcpdrop" => ends.remote.port() == 83,
            _ => pid == client,
        };
        let folder = groups.folder(&container);
        let folder = folder.display();
        // Its rows come in interrupts, and all of them are of the client's sockets.
        let is_timer = tool == "tcpretrans";
        let not = if is_timer { "" } else { "!" };
        let mut filters = vec![
            Filter::of(
                format!("--pid={client} --uid={user} --comm={name} --container={id}"),
                move |ends, pid| by(ends, pid) && within(ends, pid),
            ),
            Filter::of(format!("--uid=!{user} --cgroup={not}{folder}"), move |ends, pid| {
                !by(ends, pid) && within(ends, pid) == is_timer
            }),
        ];
        if !is_slow() {
            let (below, above) = (client - 1, client + 1);
            filters.extend([
                Filter::of(format!("--pid=1-{below},{above}-4194304"), move |ends, pid| {
                    pid != 0 && !by(ends, pid)
                }),
                Filter::of(format!("--pid={client},1-9,!2"), move |ends, pid| {
                    by(ends, pid) || [1, 3, 4, 5, 6, 7, 8, 9].contains(&pid)
                }),
                Filter::of(format!("--uid={}-{user},!1", user - 1), by),
                Filter::of(format!("--comm=!{name}"), move |ends, pid| !by(ends, pid)),
                Filter::of(format!("--comm={name},server"), move |ends, pid| by(ends, pid) || pid == server),
                Filter::of(format!("--cgroup={container}"), within),
                Filter::of(format!("--cgroup=/,!{container}/system.slice"), move |ends, pid| {
                    !within(ends, pid)
                }),
                Filter::of(format!("--container=!{id}"), move |ends, pid| !within(ends, pid)),
            ]);
        }
        // Another test has it on slow kernels: there maps of tests have no room beside those of many tools.
        if !is_slow() && ["tcpaccept", "tcpconnect", "tcptop", "tcptracer"].contains(&tool) {
            let map = netbcc_tests::raw::Map::hash(8).expect("a map");
            let inode = fs::metadata(groups.folder(&format!("{container}/system.slice/x.service")));
            map.insert(inode.expect("it is there").ino()).expect("a key");
            let pins = groups.pins();
            let words = format!("-p {client} --cgroupmap {}", pinned(&map, &pins.join("select")));
            filters.push(Filter::of(words, by));
        }
        let kept = walk(case, &stage, &filters);
        assert!(
            kept.iter().any(|(kept, _)| *kept > 0) && kept.iter().any(|(kept, all)| kept < all),
            "{kept:?}"
        );
    }
    groups.remove();
}

fn the_end_of_a_cgroup_is_said_once(_: &Case) {
    const SAID: &str = "no process is left in container";
    for tool in ["tcpretrans", "tcptop"] {
        let case = Case { tool, rung: Rung::Any };
        let mut groups = Groups::new(&case);
        {
            let net = Net::new();
            let inside = net.peer("inside");
            let id = format!("{:064}", u64::from(number_of(&case)) + (1 << 40));
            groups.put(&inside, &format!("docker/{id}"));
            let run =
                case.launch(&format!("--container {id} {}", if tool == "tcptop" { "3600" } else { "" }));
            let run = run.start(&net);
            inside.kill();
            let deadline = Instant::now() + PATIENCE;
            while !run.said().contains(SAID) {
                assert!(Instant::now() < deadline, "{}", run.said());
                thread::yield_now();
            }
            let ended = run.finish();
            assert_eq!(ended.stderr.matches(SAID).count(), 1, "{}", ended.stderr);
            ended.code(0);
        }
        groups.remove();
    }
}

/// Runs each filter and one run without any on one traffic; how many rows each keeps, and of how many.
fn walk(case: &Case, stage: &Stage<'_>, filters: &[Filter<'_>]) -> Vec<(usize, usize)> {
    let net = stage.net;
    let subnets = [net.v4_of(2, 0), net.v6_of(2, 0), net.v4(0)].map(|address| address.ip());
    let subnets = subnets.map(|ip| format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 }));
    let (usual, rows_before) = match case.tool {
        "tcpdrop" => ("--json --all --no-stack".to_owned(), 4),
        // Those of port 82 only: what a rule refuses to send is not sent again on every kernel.
        "solisten" | "tcpretrans" => ("--json".to_owned(), 3),
        "tcpsubnet" => (format!("--json -i 3600 {}", subnets.join(",")), 0),
        "tcptop" => ("--json 3600".to_owned(), 0),
        // Functions do not see what a listener does, nor how its children begin.
        "tcpstates" if case.rung != Rung::Tracepoint => ("--json".to_owned(), 36),
        "tcpstates" => ("--json".to_owned(), 43),
        "tcptracer" => ("--json".to_owned(), 16),
        "tcplife" | "tcppktlat" => ("--json".to_owned(), 8),
        "tcpwhy" => ("--json -a".to_owned(), 8),
        "tcprtt" => ("--json --min".to_owned(), 8),
        // Who sends these resets has no socket.
        "tcpreset" => ("--json --received".to_owned(), 4),
        _ => ("--json".to_owned(), 4),
    };
    let launch = |words: &str| case.launch(&format!("{words} {usual}")).start(net);
    // Its rows have the local port only where that is asked for.
    let all: Run<'_> = launch(if case.tool == "tcpconnect" { "-L" } else { "" });
    let runs: Vec<Run<'_>> = filters.iter().map(|filter| launch(&filter.words)).collect();
    let mut sent = Vec::new();
    if case.tool == "tcpreset" {
        stage.refuse();
        all.arrival(rows_before);
    } else if ["tcpdrop", "tcpretrans"].contains(&case.tool) {
        let lost = stage.lose();
        all.arrival(rows_before);
        lost.into_iter().for_each(Conn::close);
    } else {
        sent = stage.converse();
        if rows_before > 0 {
            all.arrival(rows_before);
        }
    }
    let all = all.finish();
    let known = rows(case, net, &all);
    let (mut table, mut kept) = (Vec::new(), Vec::new());
    for (filter, run) in filters.iter().zip(runs) {
        let ended = run.finish();
        if case.tool == "tcpsubnet" {
            let mut wanted = BTreeMap::new();
            for (ends, bytes, _) in sent.iter().filter(|(ends, _, pid)| (filter.keeps)(*ends, *pid)) {
                let subnet = subnets.iter().find(|name| name.starts_with(&format!("{}/", ends.remote.ip())));
                *wanted.entry(subnet.expect("each has one").clone()).or_insert(0) += bytes;
            }
            let found = sums(&ended);
            if found != wanted {
                ended.fail(&format!("{}: {found:?}, not {wanted:?}", filter.words));
            }
            table.push(format!(
                "{} {}/{}",
                filter.words,
                found.values().sum::<u64>(),
                sums(&all).values().sum::<u64>()
            ));
            kept.push((found.len(), sums(&all).len()));
            continue;
        }
        let wanted: Vec<&String> =
            known.iter().filter(|(_, ends, pid)| (filter.keeps)(*ends, *pid)).map(|(row, ..)| row).collect();
        let found = rows(case, net, &ended);
        let found: Vec<&String> = found.iter().map(|(row, ..)| row).collect();
        if found != wanted {
            // What the kernel skipped may lack in either run.
            let said = &all.stderr;
            ended.fail(&format!(
                "{}:\n{found:#?}\nnot\n{wanted:#?}\nof\n{known:#?}\nwithout filters it said:\n{said}",
                filter.words
            ));
        }
        table.push(format!("{} {}/{}", filter.words, wanted.len(), known.len()));
        kept.push((wanted.len(), known.len()));
    }
    say(&format!("{} by {} keeps {}", case.tool, case.rung.name(), table.join(", ")));
    kept
}
