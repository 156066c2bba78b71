//! tcptop: per interval, KB received and sent by each process on each TCP connection, busiest first.
//!
//! Sums: `probes-ebpf/src/bin/tcptop.rs`. Sent is what the kernel took from the process (not what a call asked for),
//! received what the process took from the kernel; looking without taking (MSG_PEEK) is neither. Every connection that
//! moved a byte has a row, also one that closed meanwhile. What MPTCP and the kernel's TLS send is not seen, as in BCC,
//! nor what is received by mapping pages (TCP_ZEROCOPY_RECEIVE). With fexit, the kernel leaves out calls that are under
//! way while another tracer attaches to the same function, or detaches.
//!
//! BCC prints COMM as a Python object (`b'sshd'`), counts what MSG_PEEK saw, misses splice, and loses what arrives
//! while it reads its tables.
//!
//! Two connections over loopback, both ends in one process, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcptop -C 1 1
//! Tracing... Output every 1 secs. Hit Ctrl-C to end
//!
//! 06:02:01 loadavg: 0.36 0.49 0.53 3/92 6682
//!
//! PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB
//! 6639    python3      127.0.0.1:47095       127.0.0.1:47662          852      0
//! 6639    python3      127.0.0.1:47662       127.0.0.1:47095            0    852
//!
//! PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB
//! 6639    python3      ::1:40122                        ::1:49233                             0   2557
//! 6639    python3      ::1:49233                        ::1:40122                          2557      0
//! ```

use std::cmp::Reverse;
use std::collections::HashMap;
use std::env;
use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{ArgAction, Args, ValueEnum};
use netbcc_common::Comm;
use netbcc_common::addr::AF_INET;
use netbcc_common::kernel::Func;
use netbcc_common::socket::SocketFacts;
use netbcc_common::tcptop::{self, Config, Key, Sum, Used};
use zerocopy::{FromBytes as _, IntoBytes as _, transmute};

use super::{conn, object, sends};
use crate::hook::{Ladder, LessExact, Prog, Rung, RungName, fexit, kprobe, tp_btf};
use crate::options::select::{PlaceList, place_list};
use crate::options::{Containers, Every, Family, Json, Pid, Verbose};
use crate::out::{About, Cell, Format, Out, Process, Rows, SocketFact, Table, data, interval, left, right};
use crate::probe::{Blocks, Generations, Pace, Plan, Probe, Table as Map, Then, Turn};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcptop;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// Do not clear the screen between outputs
    #[arg(short = 'C', long, help_heading = "Output")]
    noclear: bool,
    /// Leave out the line with the load average
    #[arg(short = 'S', long, help_heading = "Output")]
    nosummary: bool,
    #[command(flatten)]
    pid: Pid,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    containers: Containers,
    /// What is in these cgroups (v2) only
    #[arg(
        short = 'c', long, value_name = "PATHS", value_parser = place_list, action = ArgAction::Append,
        help_heading = "Filters"
    )]
    cgroup: Vec<PlaceList>,
    /// What puts a row first
    #[arg(short = 's', long, value_enum, value_name = "KEY", default_value_t = Sort::All, help_heading = "Output")]
    sort: Sort,
    /// This many rows at most, of both families together
    #[arg(short = 'r', long, value_name = "N", value_parser = rows, help_heading = "Output")]
    rows: Option<usize>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    #[command(flatten)]
    every: Every,
}

/// What `-s` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Bytes in both directions
    All,
    /// Bytes sent
    Sent,
    /// Bytes received
    Received,
}

/// As in libbpf-tools.
const MAX_ROWS: usize = 10_240;

fn rows(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| (1..=MAX_ROWS).contains(rows));
    rows.ok_or_else(|| format!("not a whole number from 1 to {MAX_ROWS}"))
}

impl Tool for Tcptop {
    const SPEC: Spec = Spec {
        name: "tcptop",
        about: "Summarize TCP send/recv throughput by host",
        description: &[
            "Prints, once per interval, a row for each process on each TCP connection that moved a byte: how much it \
             received and sent, busiest first. IPv4 comes first, then IPv6 under titles of its own.",
            "Sent is what the kernel took from the process, received what the process took from the kernel. A \
             connection that closed in the interval has its row. What MPTCP and the kernel's TLS send is not seen, \
             nor what is received by mapping pages (TCP_ZEROCOPY_RECEIVE).",
            "On a terminal, unless -C or --json is given, a block replaces the one before it: the busiest rows, as many as \
             have room, cut where the screen ends. Another size of the screen takes effect at once. Where standard input is \
             a terminal, too, and netbcc is in its foreground, these keys work. q: quit; the screen keeps what it shows, \
             where Ctrl-C shows the interval under way first. s: sort by what is sent. r: by what is received. a: by both. \
             p: pause, and go on; in a pause intervals end as ever, and are not shown. Space: end the interval now, and show \
             it, also in a pause. The terminal has its modes back at the end, while netbcc is stopped (Ctrl-Z), and after \
             every signal but SIGKILL.",
        ],
        examples: &[
            ("tcptop", "the busiest connections, every second"),
            ("tcptop -C 1 10", "1-second summaries, 10 times, one below the other"),
            ("tcptop -p 181", "process 181 only"),
            ("tcptop -4", "IPv4 only"),
            ("tcptop -s received -r 20 5", "the 20 that receive most, every 5 seconds"),
            ("tcptop --cgroupmap /sys/fs/bpf/m", "only cgroups in this map"),
            ("tcptop -c /sys/fs/cgroup/system.slice", "only tasks below this cgroup"),
            ("tcptop -CS --json 1", "JSON Lines"),
        ],
        overhead: "Runs a short program per send and per receive of a TCP socket and sums in the kernel: the cost \
                   grows with calls, not with rows or bytes; the shortest writes (128 bytes that join others in the \
                   socket's buffer) take about a sixth longer. A socket knows the row of the thread that uses it; a \
                   call costs two or three times as much where threads of several names use a socket in the same \
                   direction, and with kprobes. Where the kernel has neither fentry, kprobes nor \
                   sock_send_length (before 6.3), every system call costs a little.",
        differences: &[
            "COMM is the plain name.",
            "What MSG_PEEK sees is not counted; splice and sendfile are, on every kernel.",
            "A terminal shows as many rows as fit, cut at its width, and has keys: q quits; s, r and a sort by what is \
             sent, received, or both; p pauses; the space bar ends the interval.",
            "The screen is cleared only where there is one that can be: no escape sequence goes into a pipe or file, nor \
             where TERM is unset, empty or dumb. There, and with -C, all rows are printed.",
            "Where neither fentry nor kprobes are there: of a connection that was there before the start, what a first \
             splice takes out of it is not counted.",
            "There is room for 65536 rows per interval at least; what has none is counted as lost, and said.",
            "-c, -s, -r and -v are those of libbpf-tools; without -r there is no limit of rows.",
        ],
        refuses: &[],
        object: object!("tcptop"),
        ladders: &[TRANSFERS],
    };
    type Args = Options;
    const ONCE: &'static [&'static str] = &["sort", "rows"];

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args, false))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let filters = args.family.ipv4
            || args.family.ipv6
            || args.containers.cgroupmap().is_some()
            || args.containers.mntnsmap().is_some()
            || !cx.select.is_empty();
        let config = Config { sends: sends::calls(), filters: filters.into(), zero: 0 };
        let mut plan = Plan::new(cx)
            .socket_facts(table(&args, false).asks_of_sockets(&cx.out))
            .ladder(&TRANSFERS)
            .told_with_v(FIRST_SPLICE)
            .family(args.family)
            .containers(&args.containers)?
            .global("CONFIG", &config)
            .entry("CURRENT", &0_u32, &FIRST);
        if let Some(entries) = cx.table_entries {
            plan = TABLES.iter().fold(plan, |plan, table| plan.size(table, entries));
        }
        let mut probe = plan.attach(cx)?;
        let sums = Sums::new(&mut probe)?;
        let seconds = args.every.interval.unwrap_or(NonZeroU32::MIN);
        cx.out.line(format_args!("Tracing... Output every {seconds} secs. Hit Ctrl-C to end"));
        let pace = Pace::from(Every { interval: Some(seconds), ..args.every });
        let screen = !args.noclear && args.json.json.is_none() && can_clear() && cx.out.is_terminal();
        let mut top =
            Top { sort: args.sort, args: &args, sums, screen, paused: false, step: false, last: None };
        if screen {
            probe.sample_on_screen(cx, pace, &mut top)
        } else {
            probe.sample(cx, pace, |cx, turn| top.block(cx, turn))
        }
    }
}

const FEXIT_PAGE: Prog = fexit("page_fexit", "tcp_sendpage");
const FEXIT: [Prog; 4] = [
    fexit("send_fexit", "tcp_sendmsg"),
    fexit("receive_fexit", "tcp_recvmsg").arity(Func::TcpRecvmsg, 5),
    fexit("receive_fexit", "tcp_recvmsg").arity(Func::TcpRecvmsg, 4),
    fexit("splice_fexit", "tcp_splice_read"),
];
const KPROBE_PAGE: Prog = kprobe("page_kprobe", "tcp_sendpage");
const KPROBE: [Prog; 7] = [
    kprobe("send_kprobe", "tcp_sendmsg"),
    kprobe("receive6_kprobe", "tcp_recvmsg").arity(Func::TcpRecvmsg, 6),
    kprobe("receive_kprobe", "tcp_recvmsg").arity(Func::TcpRecvmsg, 5),
    kprobe("receive_kprobe", "tcp_recvmsg").arity(Func::TcpRecvmsg, 4),
    kprobe("splice_kprobe", "skb_splice_bits"),
    kprobe("wait_kprobe", "sk_wait_data"),
    kprobe("release_kprobe", "release_sock"),
];

/// Too rare for a line at every start.
const FIRST_SPLICE: LessExact =
    LessExact::new("what the first splice out of an older connection takes is not counted")
        .detail("A connection is older if it was there before the start.");

const TRANSFERS: Ladder = Ladder {
    name: "transfers",
    rungs: &[
        // With the function by which sendfile and splice sent up to 6.4, and without it.
        Rung {
            name: RungName::Fexit,
            programs: &[FEXIT_PAGE, FEXIT[0], FEXIT[1], FEXIT[2], FEXIT[3]],
            less_exact: None,
        },
        Rung { name: RungName::Fexit, programs: &FEXIT, less_exact: None },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                KPROBE_PAGE,
                KPROBE[0],
                KPROBE[1],
                KPROBE[2],
                KPROBE[3],
                KPROBE[4],
                KPROBE[5],
                KPROBE[6],
            ],
            less_exact: None,
        },
        Rung { name: RungName::Kprobe, programs: &KPROBE, less_exact: None },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("sent_tp", "sock_send_length"),
                tp_btf("received_tp", "sock_recv_length"),
                tp_btf("state_tp", "inet_sock_set_state"),
                tp_btf("read_tp", "tcp_rcv_space_adjust"),
            ],
            less_exact: Some(FIRST_SPLICE),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("call_tp", "sys_exit"),
                tp_btf("state_tp", "inet_sock_set_state"),
                tp_btf("read_tp", "tcp_rcv_space_adjust"),
            ],
            less_exact: Some(
                LessExact::new("what io_uring, 32-bit programs and first receives move is not counted").detail(
                    "Of io_uring and of 32-bit programs it is what they send that is not counted. Of a connection that \
                     was there before the start it is what the first call receives.",
                ),
            ),
        },
    ],
};

/// A process's part in a connection.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Who and where.
    pub key: Key,
    /// How much.
    pub sum: Sum,
    /// What was asked for of its socket.
    facts: SocketFacts,
}

impl Row {
    /// Of these.
    pub fn new(key: Key, sum: Sum) -> Self {
        let facts = SocketFacts { cookie: key.cookie, netns: key.netns, ..SocketFacts::default() };
        Self { key, sum, facts }
    }
}

/// BCC's columns, for rows of IPv6 or of IPv4.
pub fn table(args: &Options, v6: bool) -> Table<Row> {
    let (laddr, raddr, width) = if v6 { ("LADDR6", "RADDR6", 32) } else { ("LADDR", "RADDR", 21) };
    Table::new(args.json.format())
        .col(interval())
        .col(
            left("PID", 7, |r: &Row| r.key.pid.into()).about(conn::pid("The process that sent or received.")),
        )
        .col(left("COMM", 12, |r: &Row| (&r.key.comm).into()).cut().about(conn::COMM))
        .col(data("ip", |r: &Row| Cell::Unsigned(conn::version(r.key.tuple.family))).about(conn::IP))
        .col(data("laddr", |r: &Row| conn::laddr(&r.key.tuple).into()).about(conn::LADDR))
        .col(data("lport", |r: &Row| r.key.tuple.lport.into()).about(conn::LPORT))
        .col(data("raddr", |r: &Row| conn::raddr(&r.key.tuple).into()).about(conn::RADDR))
        .col(data("rport", |r: &Row| r.key.tuple.rport.into()).about(conn::RPORT))
        .col(
            left(laddr, width, |r: &Row| Cell::Endpoint(conn::laddr(&r.key.tuple), r.key.tuple.lport))
                .key("local")
                .except(Format::Json)
                .about(About::text("The local address and port; LADDR6 where they are IPv6.")),
        )
        .col(
            left(raddr, width, |r: &Row| Cell::Endpoint(conn::raddr(&r.key.tuple), r.key.tuple.rport))
                .key("remote")
                .except(Format::Json)
                .about(About::text("The remote address and port; RADDR6 where they are IPv6.")),
        )
        .col(
            right("RX_KB", 6, |r: &Row| (r.sum.rx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that the process received in the interval.")),
        )
        .col(
            right("TX_KB", 6, |r: &Row| (r.sum.tx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that the process sent in the interval.")),
        )
        .col(
            data("rx_bytes", |r: &Row| r.sum.rx_bytes.into())
                .about(About::count("Bytes that the process received in the interval.")),
        )
        .col(
            data("tx_bytes", |r: &Row| r.sum.tx_bytes.into())
                .about(About::count("Bytes that the process sent in the interval.")),
        )
        .socket(false, &SocketFact::PLAIN, |r| &r.facts)
        .process(|r| Process::now(r.key.pid).named(&r.key.comm))
}

/// Whether the terminal, if there is one, knows how to clear its screen.
fn can_clear() -> bool {
    env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// A run.
struct Top<'a> {
    args: &'a Options,
    sums: Sums,
    sort: Sort,
    /// Whether blocks are shown on a terminal's screen, one in place of the other.
    screen: bool,
    /// The screen keeps what it shows; intervals end as ever.
    paused: bool,
    /// The next block is shown all the same.
    step: bool,
    /// What the screen shows.
    last: Option<Block>,
}

/// The sums of an interval.
struct Block {
    interval: Duration,
    summary: Option<String>,
    rows: Vec<Row>,
    now_ns: u64,
}

impl Blocks for Top<'_> {
    fn block(&mut self, cx: &mut Ctx, turn: &Turn<'_>) -> Result<()> {
        let now_ns = cx.out.clock().monotonic_ns();
        let mut rows = self.sums.taken(turn)?;
        if self.paused && !std::mem::take(&mut self.step) {
            return Ok(());
        }
        let summary = if self.args.nosummary { None } else { Some(summary(cx, now_ns)?) };
        if self.screen {
            self.last = Some(Block { interval: cx.out.interval(), summary, rows, now_ns });
            self.draw(cx);
            return Ok(());
        }
        cx.out.line("");
        if let Some(summary) = summary {
            cx.out.line(summary);
            cx.out.line("");
        }
        sort(self.sort, &mut rows);
        rows.truncate(most(self.args));
        print(self.args, &mut cx.out, &rows, now_ns);
        Ok(())
    }

    fn key(&mut self, key: u8) -> Then {
        match key {
            b'q' => return Then::Quit,
            b' ' => {
                self.step = self.paused;
                return Then::Block;
            }
            b'a' => self.sort = Sort::All,
            b's' => self.sort = Sort::Sent,
            b'r' => self.sort = Sort::Received,
            b'p' => self.paused = !self.paused,
            _ => return Then::On,
        }
        Then::Draw
    }

    fn draw(&mut self, cx: &mut Ctx) {
        let (args, paused) = (self.args, self.paused);
        if let Some(last) = &mut self.last {
            sort(self.sort, &mut last.rows);
            let page = page(args, cx.out.page(), last, paused, cx.out.room().1);
            cx.out.show(&page);
        }
    }
}

/// The line with the load average.
fn summary(cx: &mut Ctx, now_ns: u64) -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(format!("{} loadavg: {}", cx.out.clock().hms(now_ns), load.trim_end()))
}

/// A block for a screen of so many lines.
fn page(args: &Options, mut page: Out, block: &Block, paused: bool, lines: usize) -> Out {
    page.set_interval(block.interval);
    let mut room = lines;
    if let Some(summary) = &block.summary {
        page.line(format_args!("{summary}{}", if paused { "  paused" } else { "" }));
        page.line("");
        room = room.saturating_sub(2);
    }
    let count = fitting(&block.rows, room, !page.is_bare()).min(most(args));
    print(args, &mut page, &block.rows[..count], block.now_ns);
    page
}

/// How many of these rows, from the first on, have room on so many lines, with the headers above them if there are any.
fn fitting(rows: &[Row], lines: usize, has_headers: bool) -> usize {
    let (mut used, mut headers) = (0, [false; 2]);
    let fits = |row: &&Row| {
        let v6 = row.key.tuple.family != AF_INET;
        if !std::mem::replace(&mut headers[usize::from(v6)], true) {
            // An empty line is above that of IPv6.
            used += usize::from(has_headers) + usize::from(v6);
        }
        used += 1;
        used <= lines
    };
    rows.iter().take_while(fits).count()
}

/// What may get full.
const TABLES: [&str; 4] = ["ROWS_0", "ROWS_1", "SUMS_0", "SUMS_1"];

/// The number of the first interval.
const FIRST: u32 = 1;

/// Where the kernel sums: of each table two, of which programs use one at a time.
struct Sums {
    generations: Generations,
    used: Map,
    rows: [Map; 2],
    tables: [Map; 2],
}

impl Sums {
    fn new(probe: &mut Probe) -> Result<Self> {
        Ok(Self {
            generations: probe.generations("CURRENT", FIRST)?,
            used: probe.table("USED")?,
            rows: [probe.table(TABLES[0])?, probe.table(TABLES[1])?],
            tables: [probe.table(TABLES[2])?, probe.table(TABLES[3])?],
        })
    }

    /// What the kernel summed since the last time.
    fn taken(&mut self, turn: &Turn<'_>) -> Result<Vec<Row>> {
        let Self { generations, used, rows, tables } = self;
        let full = generations.turn()?;
        let at = u32::try_from(full)?.to_ne_bytes();
        let mut filled = Used::default();
        used.each(|index, value| {
            if let Ok(value) = Used::read_from_bytes(value)
                && index == at
            {
                filled = value;
            }
        })?;
        let mut sums: HashMap<Key, Sum> = HashMap::new();
        let mut add = |key, Sum { rx_bytes, tx_bytes }| {
            let sum = sums.entry(key).or_default();
            sum.rx_bytes += rx_bytes;
            sum.tx_bytes += tx_bytes;
        };
        rows[full].first(usize::try_from(filled.rows)?, |_, row| {
            if let Ok(row) = tcptop::Row::read_from_bytes(row) {
                add(key(&row), row.sum);
            }
        })?;
        if filled.table != 0 {
            let see = |key: &[u8], cpus: &[u8]| {
                let Ok(key) = Key::read_from_bytes(key) else { return };
                for cpu in cpus.chunks_exact(size_of::<Sum>()) {
                    let Ok(sum) = Sum::read_from_bytes(cpu) else { continue };
                    add(key, sum);
                }
            };
            tables[full].drain(|| turn.ends(), see)?;
        }
        used.set(&at, Used::default().as_bytes())?;
        Ok(sums.into_iter().map(|(key, sum)| Row::new(key, sum)).collect())
    }
}

/// Whose row it is.
fn key(row: &tcptop::Row) -> Key {
    let mut comm: Comm = transmute!(row.comm);
    if let Some(end) = comm.iter().position(|&byte| byte == 0) {
        comm[end..].fill(0);
    }
    Key { tuple: transmute!(row.tuple), pid: row.pid, netns: row.netns, comm, cookie: row.cookie }
}

/// Most first, then by process and addresses, so that equal rows stay where they are.
fn sort(by: Sort, rows: &mut [Row]) {
    rows.sort_by_cached_key(|Row { key, sum, .. }| {
        let bytes = match by {
            Sort::All => u128::from(sum.rx_bytes) + u128::from(sum.tx_bytes),
            Sort::Sent => sum.tx_bytes.into(),
            Sort::Received => sum.rx_bytes.into(),
        };
        let tuple = &key.tuple;
        let ends = (conn::laddr(tuple), tuple.lport, conn::raddr(tuple), tuple.rport);
        (Reverse(bytes), key.pid, ends, key.comm)
    });
}

/// How many rows `-r` asks for.
fn most(args: &Options) -> usize {
    args.rows.unwrap_or(usize::MAX)
}

/// IPv4 and then IPv6; a family without rows has no header.
fn print(args: &Options, out: &mut Out, rows: &[Row], now_ns: u64) {
    for v6 in [false, true] {
        let mut rows = rows.iter().filter(|row| (row.key.tuple.family != AF_INET) == v6).peekable();
        if rows.peek().is_none() {
            continue;
        }
        if v6 {
            out.line("");
        }
        let table = table(args, v6);
        out.header(&table);
        for row in rows {
            out.row(&table, now_ns, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;
    use netbcc_common::addr::{AF_INET6, Tuple};

    use super::*;
    use crate::out::Clock;

    fn row(pid: u32, comm: &[u8], family: u16, lport: u16, rx_bytes: u64, tx_bytes: u64) -> Row {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        let laddr = if family == AF_INET {
            [u32::from_ne_bytes([10, 0, 0, 1]), 0, 0, 0]
        } else {
            [0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]
        };
        let tuple = Tuple { laddr, raddr: laddr, lport, rport: 80, family, zero: 0 };
        Row::new(Key { tuple, pid, netns: 0, comm: name, cookie: 0 }, Sum { rx_bytes, tx_bytes })
    }

    fn printed(words: &str, mut rows: Vec<Row>) -> String {
        let words = format!("tcptop {words}");
        let matches =
            crate::tool::command::<Tcptop>().try_get_matches_from(words.split_whitespace()).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let mut out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        sort(args.sort, &mut rows);
        rows.truncate(most(&args));
        print(&args, &mut out, &rows, 1);
        out.take()
    }

    #[test]
    fn both_families_have_their_block() {
        let rows = || {
            vec![
                row(2, b"barad_agent long", AF_INET, 1, 1024, 2_200_576),
                row(9_999_999, b"sshd", AF_INET6, 22, 5 << 40, 1),
                row(1, b"a b", AF_INET, 2, 1_000_000 << 10, 1023),
            ]
        };
        assert_eq!(
            printed("", rows()),
            "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB\n\
             1       a b          10.0.0.1:2            10.0.0.1:80           1000000      0\n\
             2       barad_agent  10.0.0.1:1            10.0.0.1:80                1   2149\n\
             \n\
             PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB\n\
             9999999 sshd         ::1:22                           ::1:80                           5368709120      0\n"
        );
        assert!(printed("-r 1", rows()).contains("LADDR6") && !printed("-r 1", rows()).contains("LADDR "));
        assert_eq!(printed("", vec![]), "");
        let json = printed("--json", rows());
        assert_eq!(json.lines().count(), 3);
        assert!(json.contains(
            "\"pid\":1,\"comm\":\"a b\",\"ip\":4,\"laddr\":\"10.0.0.1\",\"lport\":2,\"raddr\":\"10.0.0.1\",\"rport\":80,\
             \"rx_bytes\":1024000000,\"tx_bytes\":1023}"
        ));
    }

    #[test]
    fn rows_are_sorted_by_bytes_and_stay_in_order_when_equal() {
        let pids = |words: &str, rows: &[(u32, u64, u64)]| -> Vec<String> {
            let rows = rows.iter().map(|&(pid, rx, tx)| row(pid, b"x", AF_INET, 1, rx, tx)).collect();
            let text = printed(words, rows);
            text.lines().skip(1).filter_map(|line| line.split(' ').next().map(Into::into)).collect()
        };
        assert_eq!(pids("", &[(1, 1000, 400), (2, 1500, 0)]), ["2", "1"], "bytes, not KB");
        assert_eq!(pids("", &[(3, 5, 0), (1, 0, 5), (2, 2, 3)]), ["1", "2", "3"]);
        let rows = [(1, 9, 1), (2, 1, 8), (3, u64::MAX, 0)];
        assert_eq!(pids("-s sent", &rows), ["2", "1", "3"]);
        assert_eq!(pids("-s received", &rows), ["3", "1", "2"]);
        assert_eq!(pids("-s all -r 2", &rows), ["3", "1"]);
    }

    #[test]
    fn a_page_has_the_first_rows_that_fit_and_no_header_without_one() {
        let matches = crate::tool::command::<Tcptop>().try_get_matches_from(["tcptop"]).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let mut rows: Vec<Row> = (0..9)
            .map(|nth: u16| {
                let family = if nth % 3 == 1 { AF_INET6 } else { AF_INET };
                row(nth.into(), b"x", family, nth + 1, 1_000_000 - u64::from(nth), 0)
            })
            .collect();
        sort(Sort::All, &mut rows);
        let empty = || Out::memory(Format::Text, Clock::fixed(0, 0));
        let mut block = Block { interval: Duration::ZERO, summary: Some("now".to_owned()), rows, now_ns: 1 };
        let mut before = 0;
        for lines in 0..30 {
            let text = page(&args, empty(), &block, false, lines).take();
            let count = text.lines().count();
            assert!(count <= lines.max(2), "{lines}: {text}");
            // A header has a row below it.
            assert!(!text.lines().last().unwrap_or_default().starts_with("PID"), "{lines}: {text}");
            let pids = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
            assert!(pids >= before, "more room, no fewer rows");
            before = pids;
        }
        assert_eq!(before, 9);
        // IPv4, then an empty line, a header and a row of IPv6.
        assert_eq!(
            page(&args, empty(), &block, false, 6).take().lines().count(),
            4,
            "no room for the first of IPv6"
        );
        assert_eq!(page(&args, empty(), &block, false, 7).take().lines().count(), 7);
        let bare = || {
            let mut page = empty();
            page.choose(None, true);
            page
        };
        assert_eq!(
            page(&args, bare(), &block, false, 7).take().lines().count(),
            7,
            "no header, one row more"
        );
        assert!(page(&args, empty(), &block, true, 7).take().starts_with("now  paused\n"));
        block.summary = None;
        assert_eq!(page(&args, empty(), &block, true, 5).take().lines().count(), 5);
    }
}
