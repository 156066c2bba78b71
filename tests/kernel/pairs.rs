//! Every two options of a tool together, from its own command line, so that a new option joins by itself.
//!
//! What a pair must print follows from what each option does alone: rows that both keep, with the cells that all rows
//! have in JSON. Traffic is made again for each handful of runs, in a network of its own, so addresses,
//! ports and processes are compared by their part in it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use netbcc::options::select;
use netbcc::registry::TOOLS;
use netbcc_tests::checks;
use netbcc_tests::ended::Ended;
use netbcc_tests::kernel::{Case, Check, skip};
use netbcc_tests::net::{Net, has_ipv6};
use netbcc_tests::peer::{Conn, How, Peer};
use netbcc_tests::rows::Format;

const CHECKS: &[Check] = checks![any_two_options_keep_what_both_keep];

/// The check; in guests only where all checks run in all of them, for it takes an emulated processor minutes.
pub(crate) fn checks() -> &'static [Check] {
    if is_slow() && std::env::var_os("NETBCC_WHOLE").is_some() { &[] } else { CHECKS }
}

/// Whether starts are slow: guests, of which the tests know which rungs they have, take a second and more for each.
pub(crate) fn is_slow() -> bool {
    std::env::var_os("NETBCC_EXPECT_RUNGS").is_some()
}

/// A tool, the rows that one round of its traffic makes, and whose process `-p` names.
struct Scene {
    tool: &'static str,
    rows: usize,
    traffic: fn(&Stage) -> Rest<'_>,
    process: fn(&Stage) -> u32,
    /// Columns that are of chance here, such as whoever has the processor.
    chance: &'static [&'static str],
}

const SCENES: &[Scene] = &[
    Scene { tool: "bindsnoop", rows: 5, traffic: binds, process: Stage::server, chance: &[] },
    Scene { tool: "solisten", rows: 3, traffic: connections, process: Stage::server, chance: &[] },
    Scene { tool: "tcpaccept", rows: 4, traffic: connections, process: Stage::server, chance: &[] },
    Scene { tool: "tcpconnect", rows: 4, traffic: connections, process: Stage::client, chance: &[] },
    Scene { tool: "tcpconnlat", rows: 4, traffic: connections, process: Stage::client, chance: &[] },
    Scene { tool: "tcpdrop", rows: 4, traffic: drops, process: Stage::client, chance: &["pid"] },
    // Whether the last acknowledgement of a FIN came before the row is of chance, too.
    Scene {
        tool: "tcplife",
        rows: 8,
        traffic: connections,
        process: Stage::client,
        chance: &["rx_bytes", "tx_bytes"],
    },
    Scene { tool: "tcppktlat", rows: 4, traffic: connections, process: Stage::server, chance: &[] },
    Scene { tool: "tcpretrans", rows: 4, traffic: resends, process: Stage::client, chance: &["pid", "seq"] },
    // Who has no process has an empty name in text, and the port of -c is the service's.
    Scene {
        tool: "tcpreset",
        rows: 6,
        traffic: failures,
        process: Stage::client,
        chance: &["cookie", "cpu_pid", "cpu_comm", "comm", "reason", "lport"],
    },
    Scene {
        tool: "tcpstates",
        rows: 43,
        traffic: connections,
        process: Stage::client,
        chance: &["c_pid", "c_comm"],
    },
    Scene { tool: "tcptracer", rows: 16, traffic: connections, process: Stage::client, chance: &[] },
    // In text a verdict comes with its evidence, which has times.
    Scene {
        tool: "tcpwhy",
        rows: 4,
        traffic: failures,
        process: Stage::client,
        chance: &["verdict", "evidence", "events"],
    },
];

/// The tools that are walked.
pub(crate) fn tools() -> impl Iterator<Item = &'static str> {
    SCENES.iter().map(|scene| scene.tool)
}

/// A user that is not root.
const NOBODY: u32 = 65_534;

/// How many tools run at once: a function has room for 38 programs (`BPF_MAX_TRAMP_LINKS`), and other checks' as well.
pub(crate) const AT_ONCE: usize = 8;

/// A network and who is in it.
struct Stage {
    net: Net,
    servers: [Peer; 2],
    clients: [Peer; 2],
    /// Local ports that the kernel chose, in the order of the opens.
    ports: RefCell<Vec<u16>>,
    /// The machine was so busy that packets were sent again: rows came that nobody counted on.
    late: Cell<bool>,
}

impl Stage {
    fn new() -> Self {
        let net = Net::new();
        let servers = ["first", "second"].map(|name| net.peer(name));
        let clients = ["one", "two"].map(|name| net.peer(name));
        clients[1].become_user(NOBODY);
        Self { net, servers, clients, ports: RefCell::default(), late: Cell::default() }
    }

    fn client(&self) -> u32 {
        self.clients[0].pid()
    }

    fn server(&self) -> u32 {
        self.servers[0].pid()
    }

    fn inode(&self) -> u64 {
        fs::metadata(self.net.near().path()).expect("it is ours").ino()
    }

    /// An open, from a port of the test's or of the kernel's choice: the kernel makes it when a tool may have looked.
    fn connect<'s>(&self, client: &'s Peer, from: Option<SocketAddr>, to: SocketAddr, how: How) -> Conn<'s> {
        let conn = match from {
            Some(from) => client.connect_as(to, &how.bound(from)),
            None => client.connect_as(to, &how),
        };
        if from.is_none() {
            self.ports.borrow_mut().push(conn.local().port());
        }
        conn
    }

    /// A cell as it would be in any other network.
    fn anywhere(&self, cell: &str) -> String {
        let mut cell = cell.replace(['[', ']'], "");
        for (at, name) in [(self.net.v4(80), "v4-"), (self.net.v6(80), "v6-")] {
            let address = at.ip().to_string();
            cell = cell.replace(address.strip_suffix('1').expect("it is host 1"), name);
        }
        // Two forms write the same in their own words.
        let words = [("C", "connect"), ("A", "accept"), ("X", "close"), ("-", "null")];
        if let Some((_, word)) = words.iter().find(|(short, _)| *short == cell) {
            return (*word).to_owned();
        }
        if let Some(nth) = self.ports.borrow().iter().position(|port| port.to_string() == cell) {
            return format!("port {nth}");
        }
        if cell == self.inode().to_string() {
            return "net".to_owned();
        }
        for (pid, name) in [
            (self.servers[0].pid(), "first"),
            (self.servers[1].pid(), "second"),
            (self.clients[0].pid(), "one"),
            (self.clients[1].pid(), "two"),
        ] {
            if cell == pid.to_string() {
                return name.to_owned();
            }
        }
        cell
    }
}

/// What is left to do once all rows are there.
type Rest<'s> = Box<dyn FnOnce() + 's>;

/// Two clients, one of them another user's, and two servers; two ports, both families.
fn connections(stage: &Stage) -> Rest<'_> {
    let (net, [first, second], [one, two]) = (&stage.net, &stage.servers, &stage.clients);
    let listeners =
        [first.listen(net.v4_of(2, 80)), second.listen(net.v4_of(2, 81)), second.listen(net.v6_of(2, 80))];
    for (client, from, to) in [
        (one, Some(net.v4(5001)), &listeners[0]),
        (one, None, &listeners[1]),
        (two, None, &listeners[0]),
        (two, None, &listeners[2]),
    ] {
        let near = stage.connect(client, from, to.address(), How::plain());
        let far = to.accept();
        near.send(3000);
        far.receive(3000);
        near.close();
        far.await_end();
        far.close();
    }
    Box::new(|| {})
}

/// Calls of bind() by two users, one of them twice at the same address with SO_REUSEADDR. All on IPv4: other addresses are cut in rows.
fn binds(stage: &Stage) -> Rest<'_> {
    let (net, [first, second], [one, two]) = (&stage.net, &stage.servers, &stage.clients);
    for (process, at) in [
        (first, net.v4_of(2, 80)),
        (first, net.v4_of(2, 80)),
        (second, net.v4_of(2, 5001)),
        (one, net.v4_of(2, 81)),
        (two, net.v4(5001)),
    ] {
        process.bind(at);
    }
    Box::new(|| {})
}

/// Opens of which a rule drops the packets where this hook sees them; ended at once, or when all rows are there.
fn opens<'s>(stage: &'s Stage, hook: &str, at_once: bool) -> Rest<'s> {
    let (net, [one, two]) = (&stage.net, &stage.clients);
    net.near().nft(&format!(
        "add chain inet probe {hook} {{ type filter hook {hook} priority 0; }}\n\
         add rule inet probe {hook} tcp dport {{ 80, 81 }} drop\n"
    ));
    let mut opened = Vec::new();
    for (client, from, to) in [
        (one, Some(net.v4(5001)), net.v4_of(2, 80)),
        (one, None, net.v4_of(2, 81)),
        (two, None, net.v4_of(2, 80)),
        (two, None, net.v6_of(2, 80)),
    ] {
        let start = Instant::now();
        let conn = stage.connect(client, from, to, How::plain().nonblocking());
        if !at_once {
            opened.push(conn);
            continue;
        }
        conn.close();
        // Its SYN is sent again, and dropped again, after a second.
        if start.elapsed() > Duration::from_millis(800) {
            stage.late.set(true);
        }
    }
    Box::new(|| opened.into_iter().for_each(Conn::close))
}

fn drops(stage: &Stage) -> Rest<'_> {
    opens(stage, "output", true)
}

fn resends(stage: &Stage) -> Rest<'_> {
    opens(stage, "input", false)
}

/// Opens that are refused, and one that is given up before it is answered.
fn failures(stage: &Stage) -> Rest<'_> {
    let (net, [one, two]) = (&stage.net, &stage.clients);
    net.near().nft(
        "add chain inet probe input { type filter hook input priority 0; }\n\
         add rule inet probe input meta nfproto ipv6 tcp dport 80 drop\n",
    );
    for (client, from, to) in [
        (one, Some(net.v4(5001)), net.v4_of(2, 80)),
        (one, None, net.v4_of(2, 81)),
        (two, None, net.v4_of(2, 80)),
        (two, None, net.v6_of(2, 80)),
    ] {
        let start = Instant::now();
        let conn = stage.connect(client, from, to, How::plain().nonblocking());
        if to.is_ipv4() {
            conn.await_writable();
        }
        conn.close();
        // Its SYN may have been sent again.
        if start.elapsed() > Duration::from_millis(800) {
            stage.late.set(true);
        }
    }
    Box::new(|| {})
}

/// An option of a tool, as its command line declares it.
pub(crate) struct Choice {
    pub(crate) id: String,
    pub(crate) typed: String,
    pub(crate) takes_value: bool,
    is_filter: bool,
}

/// All options but those that lay out a row whose values are there already: `netbcc/src/out/choice.rs` has their tests. And but those
/// that say where rows go: `engine.rs` has theirs.
pub(crate) fn choices(tool: &str) -> Vec<Choice> {
    let options = command(tool);
    let is_one = |arg: &&clap::Arg| {
        let name = arg.get_id().as_str();
        // The options that every tool has to choose its rows are walked in `select.rs`; an option of BCC's with such a name is not.
        let is_long_only = arg.get_short().is_none();
        let selects = (select::ENDS.contains(&name)
            || (name == select::NETNS || select::TASKS.contains(&name)) && is_long_only)
            && !arg.is_require_equals_set();
        !arg.is_positional() && !selects && !["help", "output", "no-header", "file", "rotate"].contains(&name)
    };
    let options = options.get_arguments().filter(is_one);
    options
        .map(|arg| Choice {
            id: arg.get_id().to_string(),
            typed: arg
                .get_long()
                .map_or_else(|| format!("-{}", arg.get_short().expect("a name")), |long| format!("--{long}")),
            // `--json` is enough.
            takes_value: arg.get_action().takes_values() && !arg.is_require_equals_set(),
            is_filter: arg.get_help_heading() == Some("Filters"),
        })
        .collect()
}

pub(crate) fn command(tool: &str) -> clap::Command {
    let entry = TOOLS.iter().find(|entry| entry.spec.name == tool).expect("it is a tool");
    (entry.command)()
}

impl Choice {
    /// As it is typed, with a value that keeps some rows and not others where it is a filter.
    fn word(&self, scene: &Scene, stage: &Stage) -> String {
        if !self.takes_value {
            return self.typed.clone();
        }
        let value = match self.id.as_str() {
            "pid" | "pid_netns" | "tid" => (scene.process)(stage).to_string(),
            "uid" => NOBODY.to_string(),
            "port" | "remoteport" | "lport" => "80".into(),
            "rport" => "5001".into(),
            "localport" => "80,5001".into(),
            "netns" | "netns_id" => stage.inode().to_string(),
            "reason" => "NETFILTER_DROP".into(),
            "not_reason" => "TCP_CSUM".into(),
            "only" | "except" => "refused".into(),
            "slow" => "500".into(),
            // Longer than any of these runs.
            "interval" => "1000".into(),
            other => panic!("{}: say here which value of --{other} keeps some of its rows", scene.tool),
        };
        format!("{}={value}", self.typed)
    }
}

/// What a row says of what is the same in each network.
type Said = BTreeMap<String, String>;

/// The names by which BCC's tools call the same.
fn key(name: &str) -> String {
    let name = name.to_lowercase().replace('-', "_");
    let known = [
        ("saddr", "laddr"),
        ("addr", "laddr"),
        ("port", "lport"),
        ("daddr", "raddr"),
        ("sport", "lport"),
        ("dport", "rport"),
        ("t", "type"),
    ];
    known.iter().find(|(other, _)| *other == name).map_or(name, |(_, one)| (*one).to_owned())
}

/// The rows of an output that are of this network, as often as a count says.
fn rows_of(ended: &Ended, scene: &Scene, stage: &Stage, json: bool) -> Vec<Said> {
    let is_time = |name: &str| {
        ["time", "ts_ns", "_us", "ms", "skaddr", "stack", "interval"].iter().any(|part| name.contains(part))
    };
    let mut format = json.then_some(Format::Json);
    let mut rows = Vec::new();
    for line in &ended.stdout {
        // A stack stands below its row, or a timeline.
        let is_below = line.starts_with('\t') || line.trim_start().starts_with('+');
        // So does the time above a table.
        let is_clock = line.len() == 8 && line.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        let is_row = json || !line.is_empty() && !is_below && !is_clock;
        if !is_row || line.contains("Hit Ctrl-C to end") || line.contains("Ctrl-C to end.") {
            continue;
        }
        let Some(format) = &format else {
            format = Some(Format::under(line));
            continue;
        };
        // tcpretrans draws a line between both ends of a flow that it counts.
        let line = line.replace(" <-> ", " ").replace("]#", "]:");
        let cells = format.parse(&line).unwrap_or_else(|why| ended.fail(&format!("{why}: {line:?}")));
        let mut said: Said =
            cells.into_iter().map(|(name, cell)| (key(&name), stage.anywhere(&cell))).collect();
        if !said.values().any(|cell| cell.starts_with("v4-") || cell.starts_with("v6-")) {
            continue;
        }
        let count = ["connects", "retransmits", "binds", "count"].iter().find_map(|name| said.remove(*name));
        said.retain(|name, _| !is_time(name) && !scene.chance.contains(&name.as_str()));
        let times = count.map_or(1, |count| count.parse().unwrap_or_else(|_| ended.fail("no count")));
        // A count that is absurd is a failure, not a reason to fill the memory.
        rows.extend(std::iter::repeat_n(said, std::cmp::min(times, 1000)));
    }
    rows
}

/// Those columns of a row that all rows have.
fn project(row: &Said, columns: &BTreeSet<String>) -> Said {
    row.iter()
        .filter(|(name, _)| columns.contains(*name))
        .map(|(name, cell)| (name.clone(), cell.clone()))
        .collect()
}

/// Runs the tool with each of these sets of options at once, on one round of its traffic; `None` if packets were sent
/// again.
fn round(case: &Case, scene: &Scene, sets: &[Vec<&Choice>]) -> Option<Vec<Option<Vec<Said>>>> {
    let stage = Stage::new();
    let watcher = case.launch("--json").start(&stage.net);
    let runs: Vec<_> = sets
        .iter()
        .map(|set| {
            let words: Vec<_> = set.iter().map(|choice| choice.word(scene, &stage)).collect();
            match case.launch(&words.join(" ")).try_start(&stage.net) {
                Ok(run) => Some(run),
                // They exclude each other, which is a good answer if it is said.
                Err(ended) => {
                    ended.one_line(scene.tool, &[]);
                    None
                }
            }
        })
        .collect();
    let rest = (scene.traffic)(&stage);
    if stage.late.get() {
        return None;
    }
    watcher.arrival(scene.rows);
    rest();
    watcher.finish();
    let rows = runs.into_iter().zip(sets).map(|(run, set)| {
        let json = set.iter().any(|choice| choice.id == "json");
        run.map(|run| rows_of(&run.finish(), scene, &stage, json))
    });
    Some(rows.collect())
}

/// Which options exclude each other is the command line's to say.
fn accepted(scene: &Scene, set: &[&Choice]) -> bool {
    let typed = set.iter().map(|choice| match choice.id.as_str() {
        _ if !choice.takes_value => choice.typed.clone(),
        _ if ["only", "except"].contains(&choice.id.as_str()) => format!("{}=refused", choice.typed),
        // The command line asks for a number, or for anything.
        _ => format!("{}=80", choice.typed),
    });
    let words = std::iter::once(scene.tool.to_owned()).chain(typed);
    command(scene.tool).try_get_matches_from(words).is_ok()
}

/// Every option alone, and every two that go together.
fn all_sets<'c>(scene: &Scene, all: &'c [Choice], json: &'c Choice) -> Vec<Vec<&'c Choice>> {
    let mut sets: Vec<Vec<&Choice>> = vec![vec![json]];
    for (nth, one) in all.iter().enumerate() {
        sets.extend(all[nth + 1..].iter().map(|other| vec![one, other]));
        sets.push(vec![one]);
    }
    sets.retain(|set| accepted(scene, set));
    sets
}

/// Every option in JSON, and every filter beside as many other options at once as go together: a cell or a row that one of
/// them spoils is then still seen, if not which two it needs.
fn few_sets<'c>(scene: &Scene, all: &'c [Choice], json: &'c Choice) -> Vec<Vec<&'c Choice>> {
    let with_json = all.iter().filter(|choice| choice.id != json.id).map(|choice| vec![choice, json]);
    let mut sets: Vec<Vec<&Choice>> = std::iter::once(vec![json]).chain(with_json).collect();
    sets.retain(|set| accepted(scene, set));
    let columns: Vec<&Choice> =
        all.iter().filter(|choice| !choice.is_filter && choice.id != json.id).collect();
    for (nth, filter) in all.iter().filter(|choice| choice.is_filter).enumerate() {
        let mut set = vec![filter];
        // Each filter begins with another one, so that those that exclude each other have their turns.
        for column in columns.iter().cycle().skip(nth % columns.len()).take(columns.len()) {
            set.push(column);
            if !accepted(scene, &set) {
                set.pop();
            }
        }
        sets.push(set);
    }
    sets
}

fn any_two_options_keep_what_both_keep(case: &Case) {
    if !has_ipv6() {
        skip("IPv6");
    }
    let scene = SCENES.iter().find(|scene| scene.tool == case.tool).expect("it is there");
    // A map that nobody made is a file that is not there, which is another check; so are a table by chosen columns and what
    // is printed without a run.
    let is_walked = |choice: &Choice| {
        let is_table = choice.id == "count" && choice.takes_value;
        !choice.id.ends_with("map") && !is_table && choice.id != "rules"
    };
    let mut all: Vec<_> = choices(scene.tool).into_iter().filter(is_walked).collect();
    if !crate::tcpdrop::gives_reasons() {
        all.retain(|choice| !choice.id.ends_with("reason"));
    }
    let json = all.iter().find(|choice| choice.id == "json").expect("all tools have it");
    let sets = if is_slow() { few_sets(scene, &all, json) } else { all_sets(scene, &all, json) };
    let told: Vec<_> = sets
        .chunks(AT_ONCE)
        .flat_map(|sets| {
            let calm = (0..6).find_map(|_| round(case, scene, sets));
            calm.unwrap_or_else(|| {
                skip("this machine was too busy, six times, to end an open within a second")
            })
        })
        .collect();

    let mut reference = told[0].clone().expect("JSON alone");
    assert_eq!(reference.len(), scene.rows, "{reference:#?}");
    let with_json = |choice: &Choice| {
        let nth = sets.iter().position(|set| {
            set.len() == 2 && set.iter().any(|c| c.id == "json") && set.iter().any(|c| c.id == choice.id)
        });
        nth.and_then(|nth| told[nth].as_ref())
    };
    // What a column option adds in JSON is known of each row from there on.
    for choice in all.iter().filter(|choice| !choice.is_filter) {
        let rows = with_json(choice).filter(|rows| rows.len() == reference.len()).into_iter().flatten();
        for row in rows {
            let is_same =
                |known: &Said| row.iter().all(|(name, cell)| known.get(name).is_none_or(|c| c == cell));
            let mut same = reference.iter_mut().filter(|known| is_same(known));
            if let (Some(known), None) = (same.next(), same.next()) {
                known.extend(row.clone());
            }
        }
    }
    let everything: BTreeSet<usize> = (0..reference.len()).collect();
    // Which rows of the reference each option keeps.
    let keeps = |choice: &Choice| -> BTreeSet<usize> {
        if !choice.is_filter {
            return everything.clone();
        }
        let rows = with_json(choice).expect("a filter goes with JSON");
        let mut places = BTreeSet::new();
        for row in rows {
            // Of rows that say the same, each is kept by itself.
            let is_same = |nth: usize| row.iter().all(|cell| reference[nth].get(cell.0) == Some(cell.1));
            let Some(place) = (0..reference.len()).find(|&nth| !places.contains(&nth) && is_same(nth)) else {
                panic!(
                    "{} --json has a row that is not there without it: {row:?}\n{reference:#?}",
                    choice.typed
                );
            };
            places.insert(place);
        }
        places
    };
    let kept: Vec<(&str, BTreeSet<usize>)> =
        all.iter().map(|choice| (choice.id.as_str(), keeps(choice))).collect();
    for (set, rows) in sets.iter().zip(&told) {
        let Some(rows) = rows else { continue };
        let mut expected = everything.clone();
        for choice in set {
            let (_, these) = kept.iter().find(|(id, _)| *id == choice.id).expect("it is there");
            expected.retain(|row| these.contains(row));
        }
        let columns: BTreeSet<String> = rows.first().map_or_else(BTreeSet::new, |row| {
            row.keys().filter(|name| reference[0].contains_key(*name)).cloned().collect()
        });
        let sorted = |mut rows: Vec<Said>| {
            rows.sort();
            rows
        };
        let found = sorted(rows.iter().map(|row| project(row, &columns)).collect());
        let wanted = sorted(expected.iter().map(|&nth| project(&reference[nth], &columns)).collect());
        let words: Vec<_> = set.iter().map(|choice| choice.typed.as_str()).collect();
        assert!(
            found == wanted,
            "{} {} prints\n{found:#?}\nand what its options keep alone is\n{wanted:#?}",
            scene.tool,
            words.join(" "),
        );
    }
}
