//! tcpwhy: one row per TCP socket that ended badly or slowly: whose it was, how long each phase took, and why, in one word with
//! its evidence.
//!
//! Events: `probes-ebpf/src/bin/tcpwhy.rs`, from tracepoints only: `sock:inet_sock_set_state`, `tcp:tcp_retransmit_skb`,
//! `tcp:tcp_receive_reset`, `tcp:tcp_rcv_space_adjust`, `sock:inet_sk_error_report`. The rules are in `tcpwhy/rules.rs`.
//!
//! BCC has no such tool.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{ArgAction, Args};
use netbcc_common::kernel::Func;
use netbcc_common::socket::SocketFacts;
use netbcc_common::tcpwhy::{Config, Conn, Detailed, Event, Refused, Timeline};
use zerocopy::FromZeros as _;

use self::count::{Counts, Key, Keys};
use self::rules::{Facts, MEANINGS, RESET_REASONS, RULES, WORDS};
use super::conn::AtLeast;
use super::{conn, object};
use crate::context::ask_facts;
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, iter, iter_over, tp_btf};
use crate::options::{Family, FlowPorts, Json, Pid, Timestamp, Verbose, WallClock, WideCsv, positive};
use crate::out::{
    About, Cell, Format, Kind, Process, Rows, SocketFact, Table, data, left, right, seconds, wall,
};
use crate::probe::{Batch, Plan, Probe, Walk, next_due};
use crate::sys::machine::jiffy_us;
use crate::tool::{Ctx, Glossary, Spec, Tool};
use crate::words::{nearest_of, words};

pub mod count;
pub mod rules;
pub mod timeline;

/// The tool.
pub struct Tcpwhy;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    clock: WallClock,
    #[command(flatten)]
    seconds: Timestamp,
    /// Also sockets that ended well (ok)
    #[arg(short, long, help_heading = "Filters")]
    all: bool,
    /// What is slow, in milliseconds; 0: nothing is
    #[arg(long, value_name = "MS", default_value_t = 1000, help_heading = "Filters")]
    slow: u32,
    /// These verdicts only, comma-separated
    #[arg(long, value_name = "WORDS", value_parser = verdicts, help_heading = "Filters")]
    only: Vec<Verdicts>,
    /// All verdicts but these
    #[arg(long, value_name = "WORDS", value_parser = verdicts, help_heading = "Filters")]
    except: Vec<Verdicts>,
    /// Below each row what happened to the socket, and when
    #[arg(short, long, conflicts_with_all = ["count", "csv"], help_heading = "Output")]
    events: bool,
    /// Count by verdict and these columns; no rows, a table at the end
    #[arg(
        short, long, value_name = "COLUMNS", value_parser = Keys::parse, num_args = 0..=1, default_missing_value = "",
        action = ArgAction::Append, conflicts_with_all = ["time", "timestamp"], help_heading = "Output"
    )]
    count: Vec<Keys>,
    /// Also look for sockets that are stuck and for listeners that refuse, every so many seconds; with -c: a table
    #[arg(short, long, value_name = "SECONDS", value_parser = positive, help_heading = "Output")]
    interval: Option<NonZeroU32>,
    /// Print the verdicts with their rules, and end
    #[arg(long, exclusive = true, help_heading = "Output")]
    rules: bool,
    #[command(flatten)]
    layout: WideCsv,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    pid: Pid,
    #[command(flatten)]
    ports: FlowPorts,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    verbose: Verbose,
}

/// Verdicts, by the numbers of their rules.
#[derive(Clone, Debug)]
struct Verdicts(Vec<usize>);

/// Takes a comma list of verdicts apart.
fn verdicts(text: &str) -> Result<Verdicts, String> {
    let of = |typed: &str| {
        let known = WORDS.iter().position(|word| word.eq_ignore_ascii_case(typed));
        known.ok_or_else(|| {
            let near = nearest_of(&typed.to_lowercase(), WORDS.iter().copied(), 0);
            let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            format!("no verdict is called '{typed}' (--rules prints them){near}")
        })
    };
    words(text).map(of).collect::<Result<_, _>>().map(Verdicts)
}

/// The number of the last rule.
const OK: usize = RULES.len() - 1;

impl Options {
    /// Whether rows of this verdict are wanted.
    fn wants(&self, verdict: usize) -> bool {
        let has = |lists: &[Verdicts]| lists.iter().any(|list| list.0.contains(&verdict));
        let is_all = self.only.iter().all(|list| list.0.is_empty());
        if has(&self.except) {
            return false;
        }
        // To name the verdict of those that ended well is to ask for them.
        if is_all { self.all || verdict != OK } else { has(&self.only) }
    }

    fn slow_us(&self) -> u64 {
        u64::from(self.slow) * 1000
    }

    /// Whether sockets are counted, and have no rows.
    fn counts(&self) -> bool {
        !self.count.is_empty()
    }

    /// Whether sockets that live are looked at.
    fn looks(&self) -> bool {
        self.interval.is_some() && !self.counts()
    }

    fn every(&self) -> Option<Duration> {
        self.interval.map(|seconds| Duration::from_secs(seconds.get().into()))
    }

    /// By which columns they are counted beside the verdict.
    fn keys(&self) -> Vec<Key> {
        Keys::together(&self.count)
    }
}

impl Tool for Tcpwhy {
    const SPEC: Spec = Spec {
        name: "tcpwhy",
        about: "Say why TCP connections failed or were slow",
        description: &[
            "Prints a row for each TCP socket that ended and that something was wrong with: whose it was, both ends, how long \
             each phase took, and a verdict: one word, and a sentence of what was seen. -a shows those that ended well, too. A \
             connection over loopback has two sockets, and each may have a row. The first rule that matches is the verdict.",
            "What was open before the start has a row when it ends; its age is at least that which is shown, marked '>'. Where a \
             part of what a verdict rests on was not seen, its sentence ends with '(partly seen)'.",
            "-e adds what happened to the socket below each row, in JSON as events: when its first bytes were sent and came, what \
             was sent again and why, which errors and RSTs came, which end closed when. Sequence numbers count from our SYN. \
             The last 16 resends, errors and closes are kept, earlier ones are counted.",
            "-c counts sockets instead, by verdict and by the columns named: pid, comm, ip, laddr, lport, raddr, rport, state, \
             errno, reset_reason, closed_first, and what -o knows of a process, as container. The table comes at the end, or \
             with -i every so many seconds. It keeps 4096 groups apart; what comes then is counted per verdict, as other.",
            "A connect() that fails before a SYN could be sent, as without a route, has no row. Connections that a listener \
             refuses because its queue is full have none on the server; on the client the verdict is syn-resent or \
             connect-timeout. With -i the listener has one.",
            "-i looks at live sockets every so many seconds. One that is stuck has a row, once until that changes: no answer to \
             its SYN for longer than --slow (connect-timeout), data that the timer sends again (loss), a peer's window that is \
             closed (reader-slow-peer), or for longer than --slow waiting for accept() (never-accepted) or data unread \
             (reader-slow-here). A listener has a row for each interval in which it refused connections (accept-refused). At the \
             start -i finds out who has which socket, so owners of older sockets are known.",
        ],
        examples: &[
            ("tcpwhy", "what failed or was slow"),
            ("tcpwhy -a", "all TCP sockets that end"),
            ("tcpwhy --slow 200", "200 ms is slow"),
            ("tcpwhy --only refused,connect-timeout", "who cannot connect?"),
            ("tcpwhy --except reset-received -D 443", "remote port 443, but no RSTs"),
            ("tcpwhy -e", "with a timeline below each row"),
            ("tcpwhy -i 5", "also what is stuck now, and listeners that refuse"),
            ("tcpwhy -c raddr,rport", "how many by verdict and remote end"),
            ("tcpwhy -ac -i 10", "how many by verdict, every 10 s"),
            ("tcpwhy --rules", "what the verdicts mean"),
            ("tcpwhy --json", "JSON Lines, with every figure"),
        ],
        overhead: "Runs a short program at each change of a TCP socket's state, at each read from one, and for each segment \
                   that is sent again; none per packet. The kernel keeps 136 bytes per socket that began meanwhile, with -e \
                   264 more. -i goes through the open files of all processes once, at the start, and through the kernel's records \
                   of sockets at each interval.",
        differences: &[
            "BCC has no such tool.",
            "The owner is the process that connected; else the first that read, closed or shut down. PID is 0, and COMM is '-', where \
             no process did, as for a connection that no program accepted.",
        ],
        refuses: &[],
        object: object!("tcpwhy"),
        ladders: &[SOCKETS],
    };
    type Args = Options;
    const WORDS: Glossary = ("VERDICTS", &MEANINGS);
    const ONCE: &'static [&'static str] = &["slow", "interval"];

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Sockets", table(args)).used_if(!args.counts()),
            Rows::new("Counts, with -c", count::table(args)).used_if(args.counts()),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        if args.rules {
            for (word, meaning) in MEANINGS {
                cx.out.line(format_args!("{word:<18} {meaning}"));
            }
            return cx.out.finish();
        }
        cx.out.set_format(args.layout.format(args.json));
        if args.counts() {
            ask_facts(cx.spec.name, "-c", count::facts(&args.keys()), &mut cx.out)?;
        }
        let jiffy_us = jiffy_us()?;
        let config = Config {
            slow_us: args.slow_us(),
            all: args.wants(OK).into(),
            events: args.events.into(),
            live: args.looks().into(),
        };
        let mut plan = Plan::new(cx);
        if !args.events {
            plan = plan.without("TIMELINES");
        }
        plan = if args.looks() { plan.ask(LIVE) } else { plan.without("LISTENERS") };
        let probe = plan
            .socket_facts(if args.counts() { 0 } else { table(&args).asks_of_sockets(&cx.out) })
            .groups_of_sockets()
            .ladder(&SOCKETS)
            .family(args.family)
            .lports(&args.ports.localport)
            .rports(&args.ports.remoteport)
            .global("CONFIG", &config)
            .attach(cx)?;
        let since_ns = cx.out.clock().monotonic_ns();
        let facts = |event| Facts { event, slow_us: args.slow_us(), jiffy_us, since_ns, refused: None };
        if args.counts() { count(&args, cx, probe, facts) } else { rows(&args, cx, probe, facts) }
    }
}

/// Prints a row for each socket.
fn rows(args: &Options, cx: &mut Ctx, mut probe: Probe, facts: impl Fn(Event) -> Facts) -> Result<()> {
    let table = table(args);
    cx.out.header(&table);
    let show = |cx: &mut Ctx, row: &Row| {
        if args.wants(row.said.verdict) {
            cx.out.row(&table, row.facts.event.ts_ns, row);
            for line in &row.events {
                cx.out.below(timeline::Indented(line));
            }
        }
    };
    let walks: Vec<Walk> = ["live_iter", "listener_iter"]
        .into_iter()
        .filter_map(|name| probe.walk(name).transpose())
        .collect::<Result<_>>()?;
    let every = args.every().filter(|_| args.looks());
    let mut due = every.map(|every| Instant::now() + every);
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for (record, socket) in batch.records_with_facts() {
            let row = if args.looks() && record.len() == size_of::<Refused>() {
                batch.decode(record).map(|refused| Row::of(listener(refused, &facts)))
            } else if args.events {
                let detailed = batch.decode::<Detailed>(record);
                detailed.map(|detailed| Row::detailed(facts(detailed.event), &detailed.timeline))
            } else {
                batch.decode(record).map(|event| Row::of(facts(event)))
            };
            if let Some(row) = row {
                show(cx, &Row { socket, ..row });
            }
        }
        let Some((at, every)) = due.zip(every) else { return Ok(None) };
        let now = Instant::now();
        if now < at || batch.is_last() {
            return Ok(Some(at.saturating_duration_since(now)));
        }
        // What it finds comes by the ring.
        walks.iter().try_for_each(Walk::go)?;
        let next = next_due(at.into(), now.into(), every).into_std();
        due = Some(next);
        Ok(Some(next.saturating_duration_since(now)))
    })
}

/// A listener that refused, as a row has it.
fn listener(refused: Refused, facts: impl Fn(Event) -> Facts) -> Facts {
    let conn = Conn {
        birth_ns: refused.ts_ns.saturating_sub(refused.span_ns),
        pid: refused.pid,
        comm: refused.comm,
        ..Conn::default()
    };
    let event = Event {
        ts_ns: refused.ts_ns,
        tuple: refused.tuple,
        conn,
        state: LISTEN,
        rtt_min_us: u32::MAX,
        ..Event::new_zeroed()
    };
    Facts { refused: Some(refused), ..facts(event) }
}

/// `TCP_LISTEN`.
const LISTEN: i32 = 10;

/// Counts sockets, and prints the table at the end, or at the end of each interval.
fn count(args: &Options, cx: &mut Ctx, mut probe: Probe, facts: impl Fn(Event) -> Facts) -> Result<()> {
    let table = count::table(args);
    let keys = args.keys();
    let asks = !count::facts(&keys).is_empty();
    let mut counts = Counts::new(keys, cx.table_entries.unwrap_or(count::MOST));
    let every = args.every();
    if every.is_some() {
        cx.out.header(&table);
    }
    let mut from = Instant::now();
    let mut due = every.map(|every| from + every);
    let print = |cx: &mut Ctx, counts: &mut Counts, span: Duration| {
        cx.out.set_interval(span);
        let now_ns = cx.out.clock().monotonic_ns();
        for count in &counts.take(cx.out.format()) {
            cx.out.row(&table, now_ns, count);
        }
    };
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for event in batch.events::<Event>() {
            let facts = facts(event);
            let verdict = facts.rule();
            if args.wants(verdict) {
                let known = asks.then(|| cx.out.facts(&process(&facts), event.ts_ns)).flatten();
                counts.add(verdict, &facts, known.as_ref());
            }
        }
        let Some((at, every)) = due.zip(every) else { return Ok(None) };
        let now = Instant::now();
        if now < at {
            return Ok(Some(at - now));
        }
        print(cx, &mut counts, now - from);
        from = now;
        let next = next_due(at.into(), now.into(), every).into_std();
        due = Some(next);
        Ok(Some(next - now))
    })?;
    if every.is_none() {
        cx.out.line("");
        cx.out.header(&table);
    }
    print(cx, &mut counts, from.elapsed());
    Ok(())
}

/// The process that owned a socket.
fn process(facts: &Facts) -> Process<'_> {
    let Event { conn, .. } = &facts.event;
    Process::now(conn.pid).named(&conn.comm).noted_before(facts.span_us() * 1000)
}

/// What is asked for with the programs that look at live sockets.
const LIVE: &str = "live sockets";

const SOCKETS: Ladder = Ladder {
    name: "sockets",
    rungs: &[Rung {
        name: RungName::Tracepoint,
        programs: &[
            tp_btf("state_tp", "inet_sock_set_state"),
            tp_btf("state_again_tp", "inet_sock_set_state"),
            tp_btf("again2_tp", "tcp_retransmit_skb").arity(Func::TcpRetransmitSkb, 2).twice(),
            tp_btf("again3_tp", "tcp_retransmit_skb").arity(Func::TcpRetransmitSkb, 3).twice(),
            tp_btf("reset_tp", "tcp_receive_reset"),
            tp_btf("reset_again_tp", "tcp_receive_reset"),
            tp_btf("read_tp", "tcp_rcv_space_adjust"),
            tp_btf("error_tp", "inet_sk_error_report").arity(Func::InetSkErrorReport, 1).when(Need::IfThere),
            iter("there_iter", "bpf_iter_task_file").when(Need::Asked(LIVE)),
            iter_over("live_iter", "CONNS").when(Need::Asked(LIVE)),
            iter_over("listener_iter", "LISTENERS").when(Need::Asked(LIVE)),
        ],
        less_exact: None::<LessExact>,
    }],
};

/// An event with what user space makes of it.
pub struct Row {
    facts: Facts,
    said: Said,
    /// COMM in text.
    comm: netbcc_common::Comm,
    /// Age in text, of a socket whose beginning was not seen.
    age: AtLeast<2>,
    errno: Option<String>,
    /// Its timeline, if it was asked for.
    events: Vec<String>,
    /// What was asked for of its socket.
    socket: SocketFacts,
}

/// What a row says of its socket: it shows the verdict's word with the evidence.
struct Said {
    verdict: usize,
    /// What was seen.
    evidence: String,
    is_complete: bool,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS[self.verdict])?;
        f.write_str(": ")?;
        f.write_str(&self.evidence)?;
        f.write_str(if self.is_complete { "" } else { " (partly seen)" })
    }
}

impl Row {
    /// What `event` says, in a run with these options that began to look at `since_ns`, on a kernel with jiffies of `jiffy_us`.
    pub fn new(event: Event, args: &Options, since_ns: u64, jiffy_us: u64) -> Self {
        Self::of(Facts { event, slow_us: args.slow_us(), jiffy_us, since_ns, refused: None })
    }

    /// With what happened to it.
    pub fn detailed(facts: Facts, timeline: &Timeline) -> Self {
        let events = timeline::lines(&facts, timeline);
        Self { events, ..Self::of(facts) }
    }

    fn of(facts: Facts) -> Self {
        let (verdict, evidence) = facts.verdict();
        let said = Said { verdict, evidence, is_complete: facts.is_complete() };
        let age = AtLeast(facts.span_us());
        let mut comm = facts.event.conn.comm;
        if comm[0] == 0 {
            comm[0] = b'-';
            comm[1] = 0;
        }
        let errno = (facts.error_number() != 0).then(|| rules::errno(facts.error_number()));
        Self { facts, said, comm, age, errno, events: Vec::new(), socket: SocketFacts::default() }
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn ms_or_dash(us: Option<u64>) -> Cell<'static> {
    us.map_or(Cell::Label("-"), |us| ms(us).into())
}

fn or_null<'r, T: Into<Cell<'r>>>(value: Option<T>) -> Cell<'r> {
    value.map_or(Cell::Empty, Into::into)
}

/// A figure of the kernel's that only JSON has.
macro_rules! figure {
    ($name:literal, $text:literal, $of:expr) => {
        data($name, $of).about(About::count($text))
    };
}

const CONNECT: &str =
    "From connect() to its answer, also one that refused; unknown on a server, and where nothing answered.";
const FIRST: &str = "On a client from our last data before the peer's first byte to that byte; on a server from the handshake's \
                     end to the first read.";
const AGE: &str = "From connect(), or the handshake, to CLOSE; of a socket that is older than the tool since the tool began.";
const RTT: &str = "The minimum round trip, as TCP measured it.";

/// The columns.
pub fn table(args: &Options) -> Table<Row> {
    let format = args.layout.format(args.json);
    let wide = args.layout.wide && format == Format::Text;
    let (comm, end) = if wide { (16, 45) } else { (12, 21) };
    let table = Table::new(format)
        .col_if(args.clock.time || !args.seconds.timestamp, wall(8))
        .col_if(args.seconds.timestamp, seconds(9, 6))
        .col(left("PID", 6, |r: &Row| r.facts.event.conn.pid.into()).about(conn::pid(
            "The process that owned the socket: that connected, or first read or closed; 0: not known.",
        )))
        .col(left("COMM", comm, |r: &Row| (&r.comm).into()).cut().about(conn::COMM))
        .col(data("ip", |r: &Row| Cell::Unsigned(conn::version(r.facts.event.tuple.family))).about(conn::IP))
        .col(data("laddr", |r: &Row| conn::laddr(&r.facts.event.tuple).into()).about(conn::LADDR))
        .col(data("lport", |r: &Row| r.facts.event.tuple.lport.into()).about(conn::LPORT))
        .col(
            left("LADDR:LPORT", end, |r: &Row| {
                Cell::Endpoint(conn::laddr(&r.facts.event.tuple), r.facts.event.tuple.lport)
            })
            .except(Format::Json)
            .about(conn::LOCAL),
        )
        .col(data("raddr", |r: &Row| conn::raddr(&r.facts.event.tuple).into()).about(conn::RADDR))
        .col(data("rport", |r: &Row| r.facts.event.tuple.rport.into()).about(conn::RPORT))
        .col(
            left("RADDR:RPORT", end, |r: &Row| {
                Cell::Endpoint(conn::raddr(&r.facts.event.tuple), r.facts.event.tuple.rport)
            })
            .except(Format::Json)
            .about(conn::REMOTE),
        );
    let table = phases(table);
    let table = figures(table);
    table
        .col(
            left("VERDICT", 0, |r: &Row| Cell::Shown(&r.said))
                .key("sentence")
                .except(Format::Json)
                .about(About::text("The verdict: a word of the rules, and what was seen.")),
        )
        .col(
            data("verdict", |r: &Row| WORDS[r.said.verdict].into())
                .about(About::new(Kind::Word(&WORDS), "The first rule that matches.")),
        )
        .col(
            data("evidence", |r: &Row| Cell::Shown(&r.said.evidence))
                .about(About::text("What was seen, in a sentence.")),
        )
        .col(
            data("complete", |r: &Row| r.facts.is_complete().into())
                .about(About::new(Kind::Bool, "Whether all was seen that the verdict rests on.")),
        )
        .col(
            data("live", |r: &Row| r.facts.is_live().into())
                .about(About::new(Kind::Bool, "Whether it has not ended and is stuck (-i); its figures are those of that moment.")),
        )
        .col(data("refused", |r: &Row| or_null(r.facts.refused.map(|refused| refused.drops))).about(
            About::count("How many SYNs and ACKs a listener dropped since it was looked at before; null of other sockets.").or_null(),
        ))
        .col(data("queue", |r: &Row| or_null(r.facts.refused.map(|refused| refused.waiting))).about(
            About::count("How many connections wait for accept() at a listener; null of other sockets.").or_null(),
        ))
        .col(data("queue_limit", |r: &Row| or_null(r.facts.refused.map(|refused| refused.most))).about(
            About::count("How many may wait there; null of other sockets.").or_null(),
        ))
        .col_if(
            args.events,
            data("events", |r: &Row| Cell::List(&r.events))
                .about(About::new(
                    Kind::List,
                    "With -e: what happened to the socket, in order: the time since connect() or the handshake, and what.",
                ))
                .known_if(args.events, "add -e"),
        )
        .socket(false, &SocketFact::PLAIN, |r| &r.socket)
        .process(|r| {
            Process::now(r.facts.event.conn.pid).named(&r.comm).noted_before(r.facts.span_us() * 1000)
        })
}

/// How long each phase took.
fn phases(table: Table<Row>) -> Table<Row> {
    table
        .col(
            right("CONN_MS", 7, |r: &Row| ms_or_dash(r.facts.connect_us()))
                .precision(2)
                .except(Format::Json)
                .about(About::new(Kind::Number, CONNECT)),
        )
        .col(
            data("connect_us", |r: &Row| or_null(r.facts.connect_us()))
                .about(About::count(CONNECT).or_null()),
        )
        .col(
            right("FIRST_MS", 8, |r: &Row| ms_or_dash(r.facts.first_us()))
                .precision(2)
                .except(Format::Json)
                .about(About::new(Kind::Number, FIRST)),
        )
        .col(data("first_in_us", |r: &Row| or_null(r.facts.first_us())).about(About::count(FIRST).or_null()))
        .col(
            right("MS", 8, |r: &Row| {
                if r.facts.is_older() { Cell::Shown(&r.age) } else { ms(r.facts.span_us()).into() }
            })
            .precision(2)
            .except(Format::Json)
            .about(About::text(AGE)),
        )
        .col(data("span_us", |r: &Row| r.facts.span_us().into()).about(About::count(AGE)))
        .col(
            right("RTT_MS", 7, |r: &Row| ms_or_dash(r.facts.rtt_us()))
                .precision(2)
                .except(Format::Json)
                .about(About::new(Kind::Number, RTT)),
        )
        .col(data("rtt_min_us", |r: &Row| or_null(r.facts.rtt_us())).about(About::count(RTT).or_null()))
}

/// What the kernel counted.
fn figures(table: Table<Row>) -> Table<Row> {
    table
        .col(figure!("srtt_us", "The smoothed round trip at the end.", |r: &Row| (r.facts.event.srtt_us_8
            >> 3)
            .into()))
        .col(
            right("RTX", 4, |r: &Row| r.facts.event.retrans.into())
                .key("retrans_segs")
                .about(About::count("Segments sent again, SYN, SYN-ACK and FIN among them.")),
        )
        .col(figure!("retrans_bytes", "Bytes sent again.", |r: &Row| r.facts.event.bytes_retrans.into()))
        .col(figure!("rto", "Segments sent again by the timer of retransmissions.", |r: &Row| r
            .facts
            .event
            .conn
            .rto
            .into()))
        .col(figure!("fast", "Segments sent again because acknowledgements told of a loss.", |r: &Row| r
            .facts
            .event
            .conn
            .fast
            .into()))
        .col(figure!("tlp", "Segments sent again to probe for a loss.", |r: &Row| r
            .facts
            .event
            .conn
            .tlp
            .into()))
        .col(figure!("syn_resent", "SYNs, or SYN-ACKs, sent again.", |r: &Row| r
            .facts
            .event
            .conn
            .syns
            .into()))
        .col(figure!("dsack_dups", "Segments that came twice at the peer, by what it says.", |r: &Row| r
            .facts
            .event
            .dsack_dups
            .into()))
        .col(figure!("ooo_segs", "Segments that came out of order.", |r: &Row| r.facts.event.ooo_segs.into()))
        .col(figure!("bytes_sent", "Bytes sent, those sent again among them.", |r: &Row| r
            .facts
            .event
            .bytes_sent
            .into()))
        .col(figure!(
            "bytes_acked",
            "Bytes that the peer acknowledged; SYN and FIN count as one each.",
            |r: &Row| r.facts.event.bytes_acked.into()
        ))
        .col(figure!("bytes_received", "Bytes received in order; a FIN counts as one.", |r: &Row| r
            .facts
            .event
            .bytes_received
            .into()))
        .col(figure!("rwnd_limited_us", "How long the peer's window limited sending.", |r: &Row| r
            .facts
            .busy_us()[1]
            .into()))
        .col(figure!("sndbuf_limited_us", "How long our send buffer limited sending.", |r: &Row| r
            .facts
            .busy_us()[2]
            .into()))
        .col(figure!("busy_us", "How long sending was busy, limited or not.", |r: &Row| {
            r.facts.busy_us().iter().sum::<u64>().into()
        }))
        .col(
            data("state", |r: &Row| conn::state(r.facts.event.state))
                .about(conn::state_about("The state that it left for CLOSE.")),
        )
        .col(data("errno", |r: &Row| or_null(r.errno.as_ref().map(|name| Cell::Shown(name)))).about(
            About::text("The error that it ended with, by its name; null where there was none.").or_null(),
        ))
        .col(
            data("reset_reason", |r: &Row| or_null(r.facts.reset_reason())).about(
                About::new(Kind::Word(&RESET_REASONS), "Why this end sent a RST; null where it did not.")
                    .or_null(),
            ),
        )
        .col(
            data("closed_first", |r: &Row| or_null(r.facts.closed_first())).about(
                About::new(
                    Kind::Word(&["here", "there"]),
                    "Which end sent its FIN first; null where neither did.",
                )
                .or_null(),
            ),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_verdict_is_refused_with_the_nearest() {
        let why = |text: &str| verdicts(text).unwrap_err();
        assert_eq!(
            why("ok,Refusd"),
            "no verdict is called 'Refusd' (--rules prints them); did you mean 'refused'?"
        );
        assert_eq!(why("what"), "no verdict is called 'what' (--rules prints them)");
        assert_eq!(verdicts("REFUSED, ok").unwrap().0, [0, OK]);
    }
}
