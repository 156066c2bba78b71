//! tcpcong: per interval, how long each TCP connection was in each state of congestion control, and how often that changed;
//! with `-d` histograms of how long single stays took.
//!
//! Sums: `probes-ebpf/src/bin/tcpcong.rs`, from `tcp:tcp_cong_state_set` and `sock:inet_sock_set_state`; nothing runs per packet. A
//! stay that is under way at the end of an interval counts up to there and goes on in the next, so the columns of a row add up to
//! the interval, or to the part of it in which the connection was there.
//!
//! A row is a connection that changed its state in the interval, or was in another one than open; with `--open` any. BCC only
//! starts its clock at the first change, loses the stay that is under way, and has no row for a connection with one change.
//!
//! A download through a network that loses one segment in twenty, on a 6.18 kernel:
//!
//! ```text
//! # netbcc tcpcong 1 1
//! Tracing tcp congestion control status duration... Hit Ctrl-C to end.
//!
//! LAddrPort            RAddrPort             Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs
//! 10.0.0.2/80           10.0.0.2/51844        655     58     210     0       76     131   
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::Args;
use netbcc_common::addr::AF_INET;
use netbcc_common::tcpcong::{Config, Flow, Key, SLOTS, STATES, TRACKED_WORDS};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{conn, object};
use crate::error::usage;
use crate::hook::{Ladder, LessExact, Rung, RungName, tp_btf};
use crate::options::{Every, FILTERS, Json, OUTPUT, Verbose, select};
use crate::out::{About, Cell, Format, Kind, Out, Rows, Table, address, data, hist, interval, left};
use crate::probe::{Counters, Pace, Plan, Probe, Table as Map};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpcong;

/// Its options.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Options {
    /// This local port, or these: 80, 3000-3006
    #[arg(short = 'L', long, value_name = "PORTS", value_parser = local, help_heading = FILTERS)]
    localport: Option<Range>,
    /// This remote port, or these
    #[arg(short = 'R', long, value_name = "PORTS", value_parser = remote, help_heading = FILTERS)]
    remoteport: Option<Range>,
    /// Print the time of day (HH:MM:SS) before each output
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    timestamp: bool,
    /// Histograms of how long single stays took, by state
    #[arg(short = 'd', long, help_heading = OUTPUT)]
    dist: bool,
    /// Microseconds instead of milliseconds
    #[arg(short = 'u', long, help_heading = OUTPUT)]
    microseconds: bool,
    /// Connections that never changed, too
    #[arg(long, help_heading = OUTPUT)]
    open: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    #[command(flatten)]
    every: Every,
}

/// Ports from the first to the last.
type Range = (u16, u16);

fn local(text: &str) -> Result<Range, String> {
    range(text).ok_or_else(|| "unrecognized local port range".to_owned())
}

fn remote(text: &str) -> Result<Range, String> {
    range(text).ok_or_else(|| "unrecognized remote port range".to_owned())
}

/// One port, or two in any order.
fn range(text: &str) -> Option<Range> {
    let (one, other) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port > 0);
    let (one, other) = (port(one)?, port(other)?);
    Some((one.min(other), one.max(other)))
}

impl Tool for Tcpcong {
    const SPEC: Spec = Spec {
        name: "tcpcong",
        about: "Summarize time in TCP congestion control states",
        description: &[
            "Prints, once per interval or at Ctrl-C, how long each TCP connection was in each state of its congestion \
             control, and how often that changed: open; disorder (Dod: duplicate or selective ACKs, nothing sent again yet); \
             recovery (Rcov: fast retransmit); CWR (the window is reduced, by ECN or since this host dropped a segment); loss \
             (Los: after a timeout). -d shows instead how long single stays took.",
            "These are states of a sender: a connection that only receives stays open. A row is a connection that changed \
             in the interval or was in another state than open; --open shows all that began during the run. A stay that is \
             under way counts up to the end of the interval, and goes on in the next one. With -d a stay counts in the \
             interval in which it ends, with its whole length; a connection that closes ends one.",
            "The first stay of a connection that is older than the run begins with the run. A SYN that is sent again is \
             loss, from then to the answer. BBR and others pass through the same states, though they do not act on all.",
        ],
        examples: &[
            ("tcpcong", "all connections that had congestion, at Ctrl-C"),
            ("tcpcong 1 10", "1-second summaries, 10 times"),
            ("tcpcong -T -u 1", "in microseconds, with the time of day"),
            ("tcpcong -L 80", "local port 80 only"),
            ("tcpcong -R 3000-3006 5", "these remote ports only, every 5 seconds"),
            ("tcpcong -d", "histograms of single stays"),
            ("tcpcong --json --open 1", "every connection, as JSON Lines"),
        ],
        overhead: "Runs a short program per connection that is established, per one that closes, and per change of the state; \
                   nothing per packet. Before 5.19 the kernel does not tell changes, and a program runs per segment that is \
                   received.",
        differences: &[
            "The first stay, the one under way, and connections with one change count. So numbers are larger than BCC's, \
             mostly Open, and the columns add up to the interval, or to the connection's part in it.",
            "A connection in another state than open has a row also in an interval without a change.",
            "Two connections with the same ends in one interval have two rows, as in two network namespaces.",
            "Rows with the same local port are sorted by remote address and port, histograms by the number of the state.",
            "There is room for 65536 connections; what has none is counted as lost, and said.",
            "Wrong ports, intervals and counts are refused before anything is loaded.",
        ],
        refuses: &[(
            &[select::PID, select::UID, select::COMM],
            "the state changes while any task has the processor; --cgroup and --container are the socket's own",
        )],
        object: object!("tcpcong"),
        ladders: &[CHANGES],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Connections", table(args, false)).used_if(!args.dist),
            Rows::new("Slots of histograms, with -d and --json", slot_table(args)).used_if(args.dist),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        if args.dist && cx.out.is_chosen() && args.json.format() == Format::Text {
            bail!(usage("a histogram has no columns: -o is for --json"));
        }
        let start_ns = cx.out.clock().monotonic_ns();
        let config = Config {
            start_ns,
            dist: args.dist.into(),
            microseconds: args.microseconds.into(),
            open: args.open.into(),
            zero: [0; 5],
        };
        let mut plan = Plan::new(cx)
            .groups_of_sockets()
            .ladder(&CHANGES)
            .lport_range(args.localport)
            .rport_range(args.remoteport)
            .global("CONFIG", &config);
        if let Some(entries) = cx.table_entries {
            plan = plan.size("FLOWS", entries).size("TABLE", entries);
        }
        let mut probe = plan.attach(cx)?;
        cx.out.line("Tracing tcp congestion control status duration... Hit Ctrl-C to end.");
        let pace = Pace::from(args.every);
        if args.dist {
            let mut counters = probe.counters("DIST")?;
            return probe.sample(cx, pace, |cx, _| {
                let now_ns = headline(&args, cx);
                histograms(&args, cx, &mut counters, now_ns)
            });
        }
        let mut stays = Stays::new(&mut probe, start_ns)?;
        probe.sample(cx, pace, |cx, _| {
            let now_ns = headline(&args, cx);
            let (rows, tracked) = stays.taken(args.open, now_ns)?;
            print(&args, &mut cx.out, &rows, tracked, now_ns);
            Ok(())
        })
    }
}

/// What begins a block; the time at which it ends.
fn headline(args: &Options, cx: &mut Ctx) -> u64 {
    let now_ns = cx.out.clock().monotonic_ns();
    cx.out.line("");
    if args.timestamp {
        let time = cx.out.clock().hms(now_ns).to_owned();
        cx.out.line(time);
    }
    now_ns
}

const CHANGES: Ladder = Ladder {
    name: "changes of the state",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("set_tp", "tcp_cong_state_set").twice(),
                tp_btf("state_tp", "inet_sock_set_state").twice(),
            ],
            less_exact: None,
        },
        // Before 5.19.
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("came_tp", "tcp_probe"),
                tp_btf("again_tp", "tcp_retransmit_skb").twice(),
                tp_btf("state_in_table_tp", "inet_sock_set_state").twice(),
            ],
            less_exact: Some(
                LessExact::new("a change counts from the next segment that comes or is sent again")
                    .detail("Changes to and fro between two such segments are not seen."),
            ),
        },
    ],
};

/// The kernel's numbers of the states, in BCC's order of columns.
const OPEN: usize = 0;
const DISORDER: usize = 1;
const CWR: usize = 2;
const RECOVERY: usize = 3;
const LOSS: usize = 4;

const NAMES: [&str; STATES] =
    ["open", "disorder", "cwr", "recovery", "loss", "state_5", "state_6", "state_7"];

/// What a connection did in an interval.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the kernel has it at the end of the interval.
    pub flow: Flow,
    /// Time in each state within the interval, ns.
    pub spans_ns: [u64; STATES],
    /// Changes within the interval.
    pub changes: u64,
    /// `address/port` of this end, and of the other.
    pub ends: [String; 2],
}

impl Row {
    /// With the texts of its ends.
    pub fn new(flow: Flow, spans_ns: [u64; STATES], changes: u64) -> Self {
        let tuple = &flow.tuple;
        let end = |ip: IpAddr, port: u16| format!("{}/{port}", address(ip));
        let ends = [end(conn::laddr(tuple), tuple.lport), end(conn::raddr(tuple), tuple.rport)];
        Self { flow, spans_ns, changes, ends }
    }
}

/// How many connections of each family are followed at the end of an interval, or were in it.
type Tracked = [bool; 2];

/// Where the kernel sums.
struct Stays {
    flows: Map,
    tracked: Counters,
    /// Connections that are followed, by family.
    alive: [u64; 2],
    /// What was told of connections that are not closed.
    told: HashMap<Key, ([u64; STATES], u64)>,
    /// When the interval began, ns.
    since_ns: u64,
}

impl Stays {
    fn new(probe: &mut Probe, start_ns: u64) -> Result<Self> {
        Ok(Self {
            flows: probe.table("FLOWS")?,
            tracked: probe.counters("TRACKED")?,
            alive: [0; 2],
            told: HashMap::new(),
            since_ns: start_ns,
        })
    }

    /// What connections did since the last time, up to `now_ns`; with `open` those without a change, too.
    fn taken(&mut self, open: bool, now_ns: u64) -> Result<(Vec<Row>, Tracked)> {
        let Self { flows, tracked, alive, told, since_ns } = self;
        let mut all = Vec::new();
        flows.each(|key, value| {
            if let (Ok(key), Ok(flow)) = (Key::read_from_bytes(key), Flow::read_from_bytes(value)) {
                all.push((key, flow));
            }
        })?;
        let mut rows = Vec::new();
        for (key, flow) in all {
            let sums = sums(&flow, now_ns);
            let (before, changes) = told.remove(&key).unwrap_or_else(|| (before(&flow, *since_ns), 0));
            let spans = std::array::from_fn(|nth| sums[nth].saturating_sub(before[nth]));
            let row = Row::new(flow, spans, flow.changes - changes.min(flow.changes));
            if row.changes > 0 || row.spans_ns.iter().skip(1).any(|&span| span > 0) || open {
                rows.push(row);
            }
            if flow.closed == 0 {
                told.insert(key, (sums, flow.changes));
            } else {
                flows.remove(key.as_bytes())?;
            }
        }
        *since_ns = now_ns;
        let mut seen = [false; 2];
        for (nth, words) in tracked.increments()?.chunks_exact(TRACKED_WORDS).enumerate().take(2) {
            seen[nth] = alive[nth] > 0 || words[0] > 0;
            alive[nth] = (alive[nth] + words[0]).saturating_sub(words[1]);
        }
        rows.sort_by_cached_key(|row| {
            let tuple = &row.flow.tuple;
            (tuple.lport, conn::raddr(tuple), tuple.rport, conn::laddr(tuple), row.flow.begin_ns)
        });
        Ok((rows, seen))
    }
}

/// All time in each state, with the stay under way, up to `now_ns`.
fn sums(flow: &Flow, now_ns: u64) -> [u64; STATES] {
    let mut sums = flow.sums_ns;
    if flow.closed == 0 {
        sums[flow.state as usize % STATES] += now_ns.saturating_sub(flow.since_ns);
    }
    sums
}

/// What a connection that was never told was before the interval began: its first stay.
fn before(flow: &Flow, since_ns: u64) -> [u64; STATES] {
    let mut sums = [0; STATES];
    sums[flow.first as usize % STATES] = since_ns.saturating_sub(flow.begin_ns);
    sums
}

/// BCC's columns.
pub fn table(args: &Options, v6: bool) -> Table<Row> {
    let us = args.microseconds;
    let [local, remote] = if v6 { ["LAddrPort6", "RAddrPort6"] } else { ["LAddrPort", "RAddrPort"] };
    let (width, gap) = if v6 { (32, " ") } else { (21, "") };
    let (dod, cwr) = if v6 { (7, 6) } else { (6, 7) };
    let text = |header, width, cell: fn(&Row) -> Cell<'_>| left(header, width, cell).except(Format::Json);
    Table::new(args.json.format())
        .col(interval())
        .col(data("ip", |r: &Row| Cell::Unsigned(conn::version(r.flow.tuple.family))).about(conn::IP))
        .col(data("laddr", |r: &Row| conn::laddr(&r.flow.tuple).into()).about(conn::LADDR))
        .col(data("lport", |r: &Row| r.flow.tuple.lport.into()).about(conn::LPORT))
        .col(data("raddr", |r: &Row| conn::raddr(&r.flow.tuple).into()).about(conn::RADDR))
        .col(data("rport", |r: &Row| r.flow.tuple.rport.into()).about(conn::RPORT))
        .col(
            text(local, width, |r| Cell::Shown(&r.ends[0]))
                .header_gap(gap)
                .key("local")
                .about(About::text("The local address and port; LAddrPort6 where they are IPv6.")),
        )
        .col(
            text(remote, width, |r| Cell::Shown(&r.ends[1]))
                .key("remote")
                .about(About::text("The remote address and port; RAddrPort6 where they are IPv6.")),
        )
        .col_if(!us, text("Open_ms", 7, |r| millis(r, OPEN)).about(About::count(OPEN_MS)))
        .col_if(!us, text("Dod_ms", dod, |r| millis(r, DISORDER)).header_width(6).about(About::count(DOD_MS)))
        .col_if(!us, text("Rcov_ms", 7, |r| millis(r, RECOVERY)).about(About::count(RCOV_MS)))
        .col_if(!us, text("Cwr_ms", cwr, |r| millis(r, CWR)).header_width(7).about(About::count(CWR_MS)))
        .col_if(!us, text("Los_ms", 6, |r| millis(r, LOSS)).about(About::count(LOS_MS)))
        .col_if(us, micros("Open_us", 7, "open_us", |r| of(r, OPEN), OPEN_US))
        .col_if(us, micros("Dod_us", dod, "disorder_us", |r| of(r, DISORDER), DOD_US).header_width(6))
        .col_if(us, micros("Rcov_us", 7, "recovery_us", |r| of(r, RECOVERY), RCOV_US))
        .col_if(us, micros("Cwr_us", cwr, "cwr_us", |r| of(r, CWR), CWR_US).header_width(7))
        .col_if(us, micros("Los_us", 6, "loss_us", |r| of(r, LOSS), LOS_US))
        .col(
            left("Chgs", 5, |r: &Row| r.changes.into())
                .key("changes")
                .about(About::count("How often its state changed in the interval.")),
        )
        .col(
            data("state", |r: &Row| match r.flow.closed {
                0 => Cell::Label(NAMES[r.flow.state as usize % STATES]),
                _ => Cell::Empty,
            })
            .about(
                About::new(Kind::Word(&NAMES), "Its state at the end of the interval; null: it is closed.")
                    .or_null(),
            ),
        )
        .col(
            data("closed", |r: &Row| Cell::Bool(r.flow.closed != 0))
                .about(About::new(Kind::Bool, "Whether it closed in the interval.")),
        )
        .col(data("seen_from_start", |r: &Row| Cell::Bool(r.flow.from_start != 0)).about(About::new(
            Kind::Bool,
            "Whether the run saw it begin; of an older one the first stay begins with the run.",
        )))
        .col(data("netns", |r: &Row| r.flow.netns.into()).about(conn::NETNS))
}

const OPEN_MS: &str = "Time in the state open, in whole milliseconds; not with -u.";
const DOD_MS: &str = "Time in disorder, in whole milliseconds; not with -u.";
const RCOV_MS: &str = "Time in recovery, in whole milliseconds; not with -u.";
const CWR_MS: &str = "Time in CWR, in whole milliseconds; not with -u.";
const LOS_MS: &str = "Time in loss, in whole milliseconds; not with -u.";
const OPEN_US: &str = "Time in the state open in the interval, in microseconds.";
const DOD_US: &str = "Time in disorder in the interval, in microseconds.";
const RCOV_US: &str = "Time in recovery in the interval, in microseconds.";
const CWR_US: &str = "Time in CWR in the interval, in microseconds.";
const LOS_US: &str = "Time in loss in the interval, in microseconds.";

fn millis(row: &Row, state: usize) -> Cell<'_> {
    Cell::Unsigned(row.spans_ns[state] / 1_000_000)
}

fn of(row: &Row, state: usize) -> Cell<'_> {
    Cell::Unsigned(row.spans_ns[state] / 1000)
}

/// A column that text has with `-u`, and JSON always.
fn micros(
    header: &'static str,
    width: usize,
    key: &'static str,
    cell: fn(&Row) -> Cell<'_>,
    about: &'static str,
) -> crate::out::Column<Row> {
    left(header, width, cell).key(key).always(Format::Json).about(About::count(about))
}

/// IPv4 and then IPv6; a family of which no connection is followed has no header.
fn print(args: &Options, out: &mut Out, rows: &[Row], tracked: Tracked, now_ns: u64) {
    for v6 in [false, true] {
        let mut rows = rows.iter().filter(|row| (row.flow.tuple.family != AF_INET) == v6).peekable();
        if rows.peek().is_none() && !tracked[usize::from(v6)] {
            continue;
        }
        let table = table(args, v6);
        out.header(&table);
        for row in rows {
            out.row(&table, now_ns, row);
        }
    }
}

/// A slot of a histogram, for JSON.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Of which state.
    pub state: usize,
    /// Its number.
    pub bits: usize,
    /// Stays in it.
    pub count: u64,
}

/// One block of histograms. In JSON a row is a slot that is not empty.
fn histograms(args: &Options, cx: &mut Ctx, counters: &mut Counters, now_ns: u64) -> Result<()> {
    let increments = counters.increments()?;
    let table = slot_table(args);
    for (state, slots) in increments.chunks_exact(SLOTS as usize).enumerate() {
        if slots.iter().all(|&count| count == 0) {
            continue;
        }
        if args.json.format() == Format::Text {
            cx.out.line("");
            cx.out.line(format_args!("tcp_congest_state = {}", NAMES[state % STATES]));
            hist::print(&mut cx.out, if args.microseconds { "usecs" } else { "msecs" }, slots);
            continue;
        }
        for (bits, &count) in slots.iter().enumerate().filter(|(_, count)| **count > 0) {
            cx.out.row(&table, now_ns, &Slot { state, bits, count });
        }
    }
    Ok(())
}

/// The columns of a slot, which only JSON has.
pub fn slot_table(args: &Options) -> Table<Slot> {
    let us = args.microseconds;
    let low = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).0.into()).about(About::count(text));
    let high = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).1.into()).about(About::count(text));
    Table::new(args.json.format())
        .col(interval())
        .col(
            data("state", |s: &Slot| Cell::Label(NAMES[s.state % STATES]))
                .about(About::new(Kind::Word(&NAMES), "The state that the stays were in.")),
        )
        .col_if(
            !us,
            low("low_msecs", "The shortest stay that this slot counts, in milliseconds; not with -u."),
        )
        .col_if(
            !us,
            high("high_msecs", "The longest stay that this slot counts, in milliseconds; not with -u."),
        )
        .col_if(us, low("low_usecs", "With -u: the shortest stay that this slot counts, in microseconds."))
        .col_if(us, high("high_usecs", "With -u: the longest stay that this slot counts, in microseconds."))
        .col(data("count", |s: &Slot| s.count.into()).about(About::count("How many stays took so long.")))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;
    use netbcc_common::addr::Tuple;

    use super::*;
    use crate::out::Clock;

    fn options(words: &str) -> Options {
        let words = format!("tcpcong {words}");
        let matches =
            crate::tool::command::<Tcpcong>().try_get_matches_from(words.split_whitespace()).unwrap();
        Options::from_arg_matches(&matches).unwrap()
    }

    fn flow(laddr: [u8; 4], lport: u16, raddr: [u8; 4], rport: u16) -> Flow {
        let addr = |bytes| [u32::from_ne_bytes(bytes), 0, 0, 0];
        let tuple = Tuple { laddr: addr(laddr), raddr: addr(raddr), lport, rport, family: AF_INET, zero: 0 };
        Flow { tuple, ..Flow::default() }
    }

    fn printed(words: &str, rows: &[Row], tracked: Tracked) -> String {
        let args = options(words);
        let mut out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        print(&args, &mut out, rows, tracked, 1);
        out.take()
    }

    #[test]
    fn rows_are_bccs() {
        let spans = [884_999_999, 12_000_000, 507_000_000, 102_000_000, 0, 0, 0, 0];
        let row = Row::new(flow([192, 168, 219, 3], 34_968, [192, 168, 219, 4], 19_230), spans, 2721);
        assert_eq!(
            printed("", std::slice::from_ref(&row), [true, false]),
            "LAddrPort            RAddrPort             Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs \n\
             192.168.219.3/34968   192.168.219.4/19230   884     12     102     507     0      2721 \n"
        );
        let text = printed("-u", std::slice::from_ref(&row), [true, false]);
        assert!(text.contains(" Open_us Dod_us Rcov_us Cwr_us  Los_us Chgs \n"), "{text}");
        assert!(text.contains(" 884999  12000  102000  507000  0      2721 \n"), "{text}");
        let mut six = row;
        six.flow.tuple.family = netbcc_common::addr::AF_INET6;
        six.flow.tuple.laddr = [0, 0, netbcc_common::addr::MAPPED_WORD, u32::from_ne_bytes([10, 0, 0, 1])];
        six.flow.tuple.raddr = six.flow.tuple.laddr;
        let six = Row::new(six.flow, spans, 7);
        assert_eq!(
            printed("", &[six], [false, true]),
            "LAddrPort6                       RAddrPort6                       Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs \n\
             ::ffff:10.0.0.1/34968            ::ffff:10.0.0.1/19230            884     12      102     507    0      7    \n"
        );
        assert_eq!(printed("", &[], [false, true]).lines().count(), 1, "a header without rows");
        assert_eq!(printed("", &[], [false, false]), "");
    }

    #[test]
    fn a_stay_under_way_counts_up_to_now_and_what_was_before_does_not() {
        let mut flow = flow([10, 0, 0, 1], 1, [10, 0, 0, 2], 2);
        // Open from 100 on, in loss from 1100 on.
        (flow.begin_ns, flow.since_ns, flow.state) = (100, 1100, 4);
        flow.sums_ns[OPEN] = 1000;
        assert_eq!(sums(&flow, 1500)[..5], [1000, 0, 0, 0, 400]);
        assert_eq!(before(&flow, 600)[..5], [500, 0, 0, 0, 0]);
        assert_eq!(before(&flow, 50), [0; STATES]);
        flow.closed = 1;
        assert_eq!(sums(&flow, 1500)[..5], [1000, 0, 0, 0, 0]);
    }

    #[test]
    fn ranges_of_ports_are_bccs() {
        assert_eq!(
            ["80", "3000-3006", "3006-3000"].map(range),
            [Some((80, 80)), Some((3000, 3006)), Some((3000, 3006))]
        );
        assert_eq!(["", "a", "80-", "1-2-3", "0", "65536", "-1"].map(range), [None; 7]);
    }
}
