//! tcpreset: one row per TCP reset that this host sends or takes: whose connection it ended, in which state, and why.
//!
//! Events: `probes-ebpf/src/bin/tcpreset.rs`, from the tracepoints `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`. PID is the
//! owner of the socket, not the task on the CPU. A reset that this host sends has the kernel's word for its reason where the
//! kernel tells (6.10), else one in lower case that is deduced from the socket; one that came has a word for what it
//! interrupted. In brackets stands what the word does not say. `--all` adds what no socket takes, and what programs and the firewall
//! send, from `net:net_dev_queue` and `net:netif_receive_skb`; user space decides what was not taken, so it does not go with `-c`.
//!
//! Not known: whose a connection is that nobody accepted, where owners lie in a table (kprobes), as nothing tells there what it
//! inherits from its listener; whether what no socket took was dropped before TCP; a reset in a VLAN tag that is in the packet; two
//! resets with the same ends at once, one of which is taken, are told apart by their order only.
//!
//! BCC has no such tool.
//!
//! A connection to a closed port, and one that is closed with data unread, over loopback on a 6.18 kernel that has neither kprobes
//! nor fentry:
//!
//! ```text
//! # netbcc tcpreset
//! TIME     PID     COMM         IP LADDR            LPORT R  RADDR            RPORT STATE        REASON
//! 07:26:30 0                    4  127.0.0.1        7199  R> 127.0.0.1        60194 -            NO_SOCKET
//! 07:26:30 17274   python3      4  127.0.0.1        60194 <R 127.0.0.1        7199  SYN_SENT     REFUSED
//! 07:26:30 17274   python3      4  127.0.0.1        44518 <R 127.0.0.1        7200  ESTABLISHED  RESET
//! 07:26:30 17274   python3      4  127.0.0.1        7200  R> 127.0.0.1        44518 ESTABLISHED  TCP_ABORT_ON_CLOSE
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Args};
use netbcc_common::addr::{AF_INET, AF_INET6, MAPPED_WORD, Tuple};
use netbcc_common::kernel::Func;
use netbcc_common::socket::{ACCEPTOR, CLOSER, CONNECTOR, HELD, LISTENER, READER, SocketFacts, asked};
use netbcc_common::tcpreset::{Config, Event, Key, NO_ROW, UNTOLD, cause};
use zerocopy::FromBytes as _;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::select::{PortList, port_list};
use crate::options::{FILTERS, Family, Json, OUTPUT, Pid, Timestamp, Verbose, WallClock, positive};
use crate::out::{
    About, Cell, Format, Kind, Process, Rows, SocketFact, Table, Whose, data, interval, left, right, seconds,
    wall,
};
use crate::owner::{OWNERS, TABLE};
use crate::probe::{Batch, Generations, Pace, Plan, Probe, Table as Map, Turn};
use crate::tool::{Ctx, Spec, Tool};
use crate::words::words;

/// The tool.
pub struct Tcpreset;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    pid: Pid,
    /// These remote ports only: 80,8000-8099,!8080
    #[arg(
        short = 'P', long, value_name = "PORTS", value_parser = ports, action = ArgAction::Append, help_heading = FILTERS
    )]
    rport: Vec<PortList>,
    /// These local ports only
    #[arg(
        short = 'L', long, value_name = "PORTS", value_parser = ports, action = ArgAction::Append, help_heading = FILTERS
    )]
    lport: Vec<PortList>,
    #[command(flatten)]
    family: Family,
    /// Only resets that this host sends
    #[arg(long, conflicts_with = "received", help_heading = FILTERS)]
    sent: bool,
    /// Only resets that come
    #[arg(long, help_heading = FILTERS)]
    received: bool,
    /// Also resets that no socket takes, and those that programs or the firewall make
    #[arg(long, conflicts_with = "count", help_heading = FILTERS)]
    all: bool,
    #[command(flatten)]
    seconds: Timestamp,
    #[command(flatten)]
    clock: WallClock,
    /// Count instead; no rows, a table at the end
    #[arg(short, long, conflicts_with_all = ["timestamp", "time"], help_heading = OUTPUT)]
    count: bool,
    /// With -c: a table every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = positive, requires = "count", help_heading = OUTPUT)]
    interval: Option<NonZeroU32>,
    /// Wide columns of addresses
    #[arg(short, long, help_heading = OUTPUT)]
    wide: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

/// Parses a list of ports. No connection has port 0.
fn ports(text: &str) -> Result<PortList, String> {
    if words(text).any(|word| word == "0") {
        return Err("no connection has port 0".to_owned());
    }
    port_list(text)
}

impl Tool for Tcpreset {
    const SPEC: Spec = Spec {
        name: "tcpreset",
        about: "Trace TCP resets: whose connection they end, and why",
        description: &[
            "Prints a row for each TCP reset that this host sends (R>) or that ends one of its connections (<R): whose connection \
             it was, both ends, the state before, and why. A connection over loopback has both ends here, and two rows.",
            "PID and COMM are of the process that owns the socket: that connected, accepted or listened, or had it open before the \
             start. They are 0 and empty where nobody does, as for a closed port.",
            "REASON of a reset that is sent is the kernel's own word where it has one (Linux 6.10), and in brackets what that does \
             not say: [linger 0], close() with SO_LINGER and no time; [AF_UNSPEC], connect() to no address; [never accepted], the \
             listener was closed first; [ss -K], ended from outside; [no connection], a segment for a listener. On older \
             kernels it is a word in lower case that is deduced from the socket: abort-on-close, linger-0, af-unspec, \
             never-accepted, aborted, keepalive, retries, no-connection, time-wait, no-socket, else unknown.",
            "REASON of a reset that came is what it interrupted: REFUSED, a connect(); HANDSHAKE, one on the server's side; RESET, an \
             open connection; AFTER_FIN, one that the other end had closed; AFTER_CLOSE, one that this end had closed, so that no \
             program is told. In brackets are the bytes that are lost: written and not sent, sent and not acknowledged, received \
             and not read.",
            "A reset that no socket takes is no row: for a closed port, out of the window, or for a request that is not complete. \
             Nor are those that programs or a firewall make by themselves. With --all they are: IGNORED came and was taken by \
             no socket within 100 ms; RAW is of a program that makes its own packets; FIREWALL is of the kernel, but not of its TCP, \
             as nftables' reject with tcp reset. What only passes through this host is none of them. Then rows come 100 ms late, in \
             the order of time. Time-outs and ICMP errors are no resets: see tcpwhy.",
        ],
        examples: &[
            ("tcpreset", "all resets"),
            ("tcpreset --received", "who resets us?"),
            ("tcpreset --sent", "whom do we reset?"),
            ("tcpreset -p 181", "connections of process 181 only"),
            ("tcpreset -L 443", "the server's side of port 443"),
            ("tcpreset -P 5432", "connections to port 5432"),
            ("tcpreset -c", "count by process, remote address, port, state and reason"),
            ("tcpreset --all", "also what no socket takes, and what the firewall sends"),
            ("tcpreset -ci 10", "the same, every 10 s"),
            ("tcpreset -tw", "with seconds since the first row, and room for IPv6 addresses"),
            ("tcpreset --json", "JSON Lines, with lost bytes and the age of the connection"),
        ],
        overhead: "Runs a short program per reset, and two at each change of a TCP socket's state, of which a connection has a \
                   handful; one more per accept, or per read where accept() cannot be traced. None per packet, but with --all, and \
                   for each packet that is sent where a kernel before 6.10 has neither kprobes nor fentry. The kernel keeps \
                   some 100 bytes per socket that began meanwhile. At the start it looks at all open files: 10 to 30 ms for 10,000 \
                   of them.",
        differences: &["BCC has no such tool."],
        refuses: &[],
        object: object!("tcpreset"),
        ladders: &[RESETS, OWNERS],
    };
    type Args = Options;
    const ONCE: &'static [&'static str] = &["interval"];

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Resets", table(args)).used_if(!args.count),
            Rows::new("Counts, with -c", count_table(args)).used_if(args.count),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let shown = if args.count { 0 } else { table(&args).asks_of_sockets(&cx.out) };
        let mut plan = Plan::new(cx)
            .socket_facts(shown | asked::OWNER | asked::BY_OWNER)
            .groups_of_sockets()
            .ladder(&RESETS)
            .family(args.family)
            .enumeration(REASONS)
            .entry("CURRENT", &0_u32, &FIRST);
        // Programs ask their map also where they never come to that.
        if let Some(entries) = if args.count { cx.table_entries } else { Some(1) } {
            plan = TABLES.iter().fold(plan, |plan, table| plan.size(table, entries));
        }
        if !args.received {
            plan = plan.ask(SENT);
        }
        if !args.sent {
            plan = plan.ask(RECEIVED);
        }
        if args.all {
            plan = plan.ask(ALL);
            if !args.sent {
                plan = plan.ask(ALL_RECEIVED);
            }
        }
        if args.all || !args.received {
            plan = plan.ask(GUESSED);
        }
        let reasons = Reasons::new(plan.known()?.members_of(REASONS));
        let config = Config {
            count: args.count.into(),
            sent: (!args.received).into(),
            all: args.all.into(),
            // Where the kernel gives no reasons, answers may have to be known by their packets.
            notes: (!args.received && (args.all || reasons.0.is_empty())).into(),
        };
        let probe = plan.global("CONFIG", &config).attach(cx)?;
        if args.count { count(&args, cx, probe, &reasons) } else { rows(&args, cx, probe, &reasons) }
    }
}

/// What is counted in: programs use one at a time.
const TABLES: [&str; 2] = ["COUNTS_0", "COUNTS_1"];
/// The number of the first interval.
const FIRST: u32 = 1;

/// What is asked for with the programs of one direction.
const SENT: &str = "resets sent";
const RECEIVED: &str = "resets received";
/// What is asked for with the programs that look at packets: for `--all`, and where they stand for others.
const ALL: &str = "packets with resets";
const ALL_RECEIVED: &str = "packets with resets that come";
const GUESSED: &str = "packets with resets that are sent";

/// The kernel's enum of reasons.
const REASONS: &str = "sk_rst_reason";

/// What its names begin with.
const PREFIX: &str = "SK_RST_REASON_";

/// All but what sees answers to packets without a socket before 6.10.
macro_rules! programs {
    ($sent:literal, $arguments:literal $(, $more:expr)*) => {
        programs!(
            $sent,
            $arguments;
            tp_btf("queued_tp", "net_dev_queue").when(Need::Asked(ALL))
            $(, $more)*
        )
    };
    ($sent:literal, $arguments:literal; $($more:expr),*) => {
        &[
            $($more,)*
            tp_btf("came_tp", "netif_receive_skb").when(Need::Asked(ALL_RECEIVED)),
            tp_btf($sent, "tcp_send_reset").arity(Func::TcpSendReset, $arguments).when(Need::Asked(SENT)).twice(),
            tp_btf("received_tp", "tcp_receive_reset").when(Need::Asked(RECEIVED)).twice(),
            tp_btf("state_tp", "inet_sock_set_state").twice(),
            tp_btf("forget_tp", "tcp_destroy_sock").when(Need::Asked(TABLE)),
        ]
    };
}

const RESETS: Ladder = Ladder {
    name: "resets",
    rungs: &[
        // The tracepoint says all since 6.10.
        Rung { name: RungName::Tracepoint, programs: programs!("sent3_tp", 3), less_exact: None },
        Rung { name: RungName::Fexit, programs: programs!("sent3_tp", 3), less_exact: None },
        Rung { name: RungName::Kprobe, programs: programs!("sent3_tp", 3), less_exact: None },
        Rung {
            name: RungName::Fexit,
            programs: programs!(
                "sent2_tp",
                2,
                fentry("answer4_fentry", "tcp_v4_send_reset").when(Need::Asked(SENT)).twice(),
                fentry("answer6_fentry", "tcp_v6_send_reset").when(Need::V6Kernel).twice()
            ),
            less_exact: Some(DEDUCED),
        },
        Rung {
            name: RungName::Kprobe,
            programs: programs!(
                "sent2_tp",
                2,
                kprobe("answer4_kprobe", "tcp_v4_send_reset").when(Need::Asked(SENT)),
                kprobe("answer6_kprobe", "tcp_v6_send_reset").when(Need::V6Kernel)
            ),
            less_exact: Some(DEDUCED),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: programs!(
                "sent2_tp",
                2;
                tp_btf("guessed_tp", "net_dev_queue").when(Need::Asked(GUESSED))
            ),
            less_exact: Some(
                LessExact::new("each packet sent is looked at for a reset, and time-wait is no-socket").detail(
                    "This kernel gives no reasons: they are deduced, and in lower case. A firewall's reset over IPv6 is told as \
                     no-socket, too.",
                ),
            ),
        },
    ],
};

/// What kernels before 6.10 do not tell.
const DEDUCED: LessExact = LessExact::new("reasons of resets that are sent are deduced, and in lower case")
    .detail("This kernel gives none; Linux 6.10 does.");

/// The reasons of the running kernel.
pub struct Reasons(HashMap<u32, String>);

impl Reasons {
    /// From pairs of value and name, as the kernel has them.
    pub fn new(members: &[(u32, String)]) -> Self {
        let mut names = HashMap::new();
        for (number, name) in members {
            // What only marks an end comes last, and has a value that another one may have, too.
            names.entry(*number).or_insert_with(|| name.strip_prefix(PREFIX).unwrap_or(name).to_owned());
        }
        Self(names)
    }

    /// The kernel's word for a reason; `None`: it does not tell.
    fn word(&self, reason: u32) -> Option<String> {
        let known = || self.0.get(&reason).cloned().unwrap_or_else(|| format!("REASON_{reason}"));
        (reason != UNTOLD).then(known)
    }
}

/// TCP's states that words depend on.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// Our word for a reset that was sent or came in `state`; none: the kernel's says it all.
fn cause_word(received: bool, word: Option<&str>, state: u8, cause: u8) -> Option<&'static str> {
    match cause {
        cause::RAW => return Some("RAW"),
        cause::FIREWALL => return Some("FIREWALL"),
        cause::IGNORED => return Some("IGNORED"),
        _ => {}
    }
    if received {
        return Some(match state {
            SYN_SENT => "REFUSED",
            SYN_RECV => "HANDSHAKE",
            ESTABLISHED => "RESET",
            CLOSE_WAIT => "AFTER_FIN",
            _ => "AFTER_CLOSE",
        });
    }
    let Some(word) = word else {
        return Some(match cause {
            cause::LINGER => "linger-0",
            cause::UNSPEC => "af-unspec",
            cause::NEVER_ACCEPTED => "never-accepted",
            cause::ABORTED => "aborted",
            cause::NO_CONNECTION => "no-connection",
            cause::UNREAD => "abort-on-close",
            cause::KEEPALIVE => "keepalive",
            cause::RETRIES => "retries",
            cause::TIME_WAIT => "time-wait",
            cause::NO_SOCKET => "no-socket",
            _ => "unknown",
        });
    };
    if state == LISTEN {
        return Some("no connection");
    }
    // Words of the kernel's that are of one cause need no more.
    match cause {
        _ if word != "TCP_STATE" => None,
        cause::LINGER => Some("linger 0"),
        cause::UNSPEC => Some("AF_UNSPEC"),
        cause::NEVER_ACCEPTED => Some("never accepted"),
        cause::ABORTED | cause::KEEPALIVE | cause::RETRIES => Some("ss -K"),
        _ => None,
    }
}

/// REASON without what was lost.
fn phrase(word: Option<&str>, cause: Option<&str>) -> String {
    match (word, cause) {
        (Some(word), Some(cause)) => format!("{word} [{cause}]"),
        (word, cause) => word.or(cause).unwrap_or_default().to_owned(),
    }
}

/// An event with what user space makes of it.
pub struct Row {
    /// As the kernel sent it.
    pub event: Event,
    whose: Whose,
    /// The kernel's word.
    word: Option<String>,
    /// Our word.
    cause: Option<&'static str>,
    /// REASON.
    reason: String,
}

impl Row {
    /// The event with its words.
    pub fn new((event, facts): (Event, SocketFacts), reasons: &Reasons) -> Self {
        let word = reasons.word(event.reason);
        let cause = cause_word(event.received != 0, word.as_deref(), event.state, event.cause);
        let mut reason = phrase(word.as_deref(), cause);
        if event.received != 0 {
            for (what, bytes) in
                [("unsent", event.unsent), ("unacked", event.unacked), ("unread", event.unread)]
            {
                if bytes != 0 {
                    let _infallible = write!(reason, " [{what} {bytes}]");
                }
            }
        }
        Self { event, whose: Whose::new(facts, true), word, cause, reason }
    }

    fn pid(&self) -> u32 {
        self.whose.pid(0)
    }

    fn age_us(&self) -> Option<u64> {
        let Event { ts_ns, birth_ns, .. } = self.event;
        (birth_ns != 0).then(|| ts_ns.saturating_sub(birth_ns) / 1000)
    }

    fn told_by(&self) -> &'static str {
        match self.event.received {
            0 if self.word.is_some() => "kernel",
            0 => "deduced",
            _ if self.event.state == 0 => "packet",
            _ => "state",
        }
    }
}

/// How the owner of a socket is known.
const HOWS: [&str; 6] = ["listener", "close", "read", "snapshot", "accept", "connect"];

fn how(how: u8) -> Option<&'static str> {
    match u16::from(how) {
        LISTENER => Some(HOWS[0]),
        CLOSER => Some(HOWS[1]),
        READER => Some(HOWS[2]),
        HELD => Some(HOWS[3]),
        ACCEPTOR => Some(HOWS[4]),
        CONNECTOR => Some(HOWS[5]),
        _ => None,
    }
}

/// R: which way the reset goes, where this host is on the left.
const fn arrow(received: u8) -> &'static str {
    if received == 0 { "R>" } else { "<R" }
}

fn or_null<'r, T: Into<Cell<'r>>>(value: Option<T>) -> Cell<'r> {
    value.map_or(Cell::Empty, Into::into)
}

/// A state, or what stands for none.
fn state(state: u8, none: Cell<'static>) -> Cell<'static> {
    if state == 0 { none } else { conn::state(state.into()) }
}

const PID: About = conn::pid("The process that owns the socket; 0: nobody does, or nobody knows.");
const REASON: About = About::text(
    "Why: of one that is sent the kernel's word, of one that came what it interrupted. Text has a deduced word in lower case where the \
     kernel has none, JSON null, and in brackets what the word does not say.",
);
const R: About = About::new(Kind::Word(&["R>", "<R"]), "R>: sent by this host. <R: received.");
const DIRECTION: About = About::new(
    Kind::Word(&["sent", "received"]),
    "Whether this host sent it, or a connection of this host was ended by it.",
);

/// The columns.
pub fn table(args: &Options) -> Table<Row> {
    let addr = if args.wide { 39 } else { 16 };
    let is_json = args.json.json.is_some();
    Table::new(args.json.format())
        .col_if(args.clock.time || !args.seconds.timestamp, wall(8))
        .col_if(args.seconds.timestamp, seconds(9, 3))
        .col(left("PID", 7, |r: &Row| r.pid().into()).about(PID))
        .col(
            left("COMM", 12, |r: &Row| (&r.whose.facts.owner_comm).into())
                .cut()
                .except(Format::Json)
                .about(conn::COMM),
        )
        .col(
            data("comm", |r: &Row| if r.pid() == 0 { Cell::Empty } else { (&r.whose.facts.owner_comm).into() })
                .about(conn::COMM.or_null()),
        )
        .col(data("owner_how", |r: &Row| or_null(how(r.event.how))).about(
            About::new(
                Kind::Word(&HOWS),
                "How the owner is known: it connected, accepted or, where accept() cannot be traced, read or closed first; it has the \
                 listener; or it had the socket before the start (snapshot). Null where nobody is known.",
            )
            .or_null(),
        ))
        .col(data("cpu_pid", |r: &Row| r.event.cpu_pid.into()).about(About::count(
            "The process on the CPU, which may have nothing to do with it.",
        )))
        .col(
            data("cpu_comm", |r: &Row| (&r.event.cpu_comm).into())
                .about(About::text("The name of the thread on the CPU.")),
        )
        .col(left("IP", 2, |r: &Row| Cell::Unsigned(conn::version(r.event.tuple.family))).about(conn::IP))
        .col(left("LADDR", addr, |r: &Row| conn::laddr(&r.event.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |r: &Row| r.event.tuple.lport.into()).about(conn::LPORT))
        .col(left("R", 2, |r: &Row| arrow(r.event.received).into()).except(Format::Json).about(R))
        .col(data("direction", |r: &Row| direction(r.event.received).into()).about(DIRECTION))
        .col(left("RADDR", addr, |r: &Row| conn::raddr(&r.event.tuple).into()).about(conn::RADDR))
        .col(left("RPORT", 5, |r: &Row| r.event.tuple.rport.into()).about(conn::RPORT))
        .col(
            left("STATE", 12, |r: &Row| state(r.event.state, Cell::Label("-")))
                .except(Format::Json)
                .about(STATE),
        )
        .col(data("state", |r: &Row| state(r.event.state, Cell::Empty)).about(STATE.or_null()))
        .col(
            data("substate", |r: &Row| state(r.event.substate, Cell::Empty)).about(
                About::new(Kind::WordOrNumber(&conn::STATES), "Of a socket in TIME_WAIT, the state that it stands for; else null.")
                    .or_null(),
            ),
        )
        .col(
            left("REASON", 0, |r: &Row| Cell::Name(r.reason.as_bytes())).except(Format::Json).about(REASON),
        )
        .col(
            data("reason", |r: &Row| or_null(r.word.as_deref().map(|word| Cell::Name(word.as_bytes())))).about(
                REASON.or_null(),
            ),
        )
        .col(
            data("cause", |r: &Row| or_null(r.cause))
                .about(About::text("Our word for it; null where the kernel's says it all.").or_null()),
        )
        .col(data("reason_from", |r: &Row| r.told_by().into()).about(About::new(
            Kind::Word(&["kernel", "deduced", "state", "packet"]),
            "Who says why: the kernel; or it is deduced, from the socket or the packet; or it is what state a reset that came found; or \
             only its packet was seen.",
        )))
        .col(data("age_us", |r: &Row| or_null(r.age_us())).about(
            About::count(
                "How old the connection was, from connect() or the third segment of the handshake, in microseconds; null without \
                 one, and where it is older than the tool.",
            )
            .or_null(),
        ))
        .col(data("unsent", |r: &Row| r.event.unsent.into()).about(About::count("Bytes written and not sent.")))
        .col(
            data("unacked", |r: &Row| r.event.unacked.into())
                .about(About::count("Bytes sent and not acknowledged.")),
        )
        .col(data("unread", |r: &Row| r.event.unread.into()).about(About::count("Bytes received and not read.")))
        .col(data("netns", |r: &Row| r.event.netns.into()).about(conn::NETNS))
        .process(|r| r.whose.process(Process::now(r.pid()), r.event.ts_ns))
        .socket(is_json, &[SocketFact::Cookie], |r| &r.whose.facts)
}

const STATE: About = conn::state_about("The state of the socket before the reset.");

const fn direction(received: u8) -> &'static str {
    if received == 0 { "sent" } else { "received" }
}

fn rows(args: &Options, cx: &mut Ctx, mut probe: Probe, reasons: &Reasons) -> Result<()> {
    let table = table(args);
    cx.out.header(&table);
    let mut held = Held::default();
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for event in batch.events_with_facts::<Event>() {
            if args.all {
                held.takes(event);
            } else {
                let row = Row::new(event, reasons);
                cx.out.row(&table, row.event.ts_ns, &row);
            }
        }
        let until_ns = if batch.is_last() { u64::MAX } else { batch.now_ns().saturating_sub(HELD_NS) };
        while let Some(event) = held.before(until_ns) {
            let row = Row::new(event, reasons);
            cx.out.row(&table, row.event.ts_ns, &row);
        }
        Ok(held
            .first_ns()
            .map(|first_ns| Duration::from_nanos((first_ns + HELD_NS).saturating_sub(batch.now_ns()))))
    })
}

/// How long a row waits with `--all`: until then it is known whether a socket took what came.
const HELD_NS: u64 = 100_000_000;

/// Rows that wait, in the order of time.
#[derive(Default)]
struct Held {
    events: BTreeMap<(u64, u64), (Event, SocketFacts)>,
    /// What came and may yet be taken, by its ends and namespace.
    pending: HashMap<(Tuple, u32), Vec<(u64, u64)>>,
    last: u64,
}

impl Held {
    /// An event happened.
    fn takes(&mut self, (event, facts): (Event, SocketFacts)) {
        let ends = (plain(event.tuple), event.netns);
        self.last += 1;
        let place = (event.ts_ns, self.last);
        if event.cause == cause::IGNORED {
            self.pending.entry(ends).or_default().push(place);
        } else if event.received != 0
            && let Some(places) = self.pending.get_mut(&ends)
        {
            // The oldest of those that are alike.
            self.events.remove(&places.remove(0));
            if places.is_empty() {
                self.pending.remove(&ends);
            }
        }
        if event.received != NO_ROW {
            self.events.insert(place, (event, facts));
        }
    }

    /// The oldest event, if it is not younger than this.
    fn before(&mut self, until_ns: u64) -> Option<(Event, SocketFacts)> {
        if self.first_ns()? > until_ns {
            return None;
        }
        let (place, (event, facts)) = self.events.pop_first()?;
        let ends = (plain(event.tuple), event.netns);
        if event.cause == cause::IGNORED
            && let Some(places) = self.pending.get_mut(&ends)
        {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.pending.remove(&ends);
            }
        }
        Some((event, facts))
    }

    /// When the oldest event was.
    fn first_ns(&self) -> Option<u64> {
        self.events.first_key_value().map(|(place, _)| place.0)
    }
}

/// The ends as packets have them, where a socket has them mapped to IPv6.
fn plain(tuple: Tuple) -> Tuple {
    let is_mapped = |addr: &[u32; 4]| addr[..3] == [0, 0, MAPPED_WORD];
    if tuple.family != AF_INET6 || !is_mapped(&tuple.laddr) || !is_mapped(&tuple.raddr) {
        return tuple;
    }
    let word = |addr: [u32; 4]| [addr[3], 0, 0, 0];
    Tuple { family: AF_INET, laddr: word(tuple.laddr), raddr: word(tuple.raddr), ..tuple }
}

/// Resets that have all of this in common.
pub struct Count {
    key: Key,
    reason: String,
    resets: u64,
}

impl Count {
    /// The key with its words.
    pub fn new(key: Key, resets: u64, reasons: &Reasons) -> Self {
        let word = reasons.word(key.reason);
        let cause = cause_word(key.received != 0, word.as_deref(), key.state, key.cause);
        Self { key, reason: phrase(word.as_deref(), cause), resets }
    }
}

/// The columns of `-c`.
pub fn count_table(args: &Options) -> Table<Count> {
    let addr = if args.wide { 39 } else { 16 };
    let has_interval = args.interval.is_some();
    Table::new(args.json.format())
        .col_if(has_interval, interval())
        .col(left("PID", 7, |c: &Count| c.key.pid.into()).about(PID))
        .col(left("COMM", 12, |c: &Count| (&c.key.comm).into()).cut().about(conn::COMM))
        .col(left("R", 2, |c: &Count| arrow(c.key.received).into()).except(Format::Json).about(R))
        .col(data("direction", |c: &Count| direction(c.key.received).into()).about(DIRECTION))
        .col(
            left("RADDR", addr, |c: &Count| conn::ip(c.key.family, &c.key.raddr).into()).about(conn::RADDR),
        )
        .col(left("PORT", 5, |c: &Count| c.key.port.into()).about(About::new(
            Kind::Port,
            "The service's port: the local one of a listener, of a connection that was accepted, and without a socket; else the \
             remote one.",
        )))
        .col(
            left("STATE", 12, |c: &Count| state(c.key.state, Cell::Label("-")))
                .except(Format::Json)
                .about(STATE),
        )
        .col(data("state", |c: &Count| state(c.key.state, Cell::Empty)).about(STATE.or_null()))
        .col(left("REASON", 28, |c: &Count| Cell::Name(c.reason.as_bytes())).about(REASON))
        .col(right("COUNT", 8, |c: &Count| c.resets.into()).about(About::count("How many resets.")))
}

/// How many there were since the last time, most first.
fn new_counts(
    generations: &mut Generations,
    tables: &mut [Map; 2],
    turn: &Turn<'_>,
    reasons: &Reasons,
) -> Result<Vec<Count>> {
    let mut counts = Vec::new();
    let full = generations.turn()?;
    tables[full].drain(
        || turn.ends(),
        |key, cpus| {
            let Ok(key) = Key::read_from_bytes(key) else { return };
            let words = cpus.chunks_exact(size_of::<u64>()).filter_map(|cpu| u64::read_from_bytes(cpu).ok());
            counts.push(Count::new(key, words.fold(0, u64::wrapping_add), reasons));
        },
    )?;
    counts.sort_by_cached_key(|Count { key, reason, resets }| {
        let ends = (key.received, conn::ip(key.family, &key.raddr), key.port);
        (Reverse(*resets), key.pid, key.comm, ends, key.state, reason.clone())
    });
    Ok(counts)
}

/// Counts resets, and prints the table at the end, or at the end of each interval.
fn count(args: &Options, cx: &mut Ctx, mut probe: Probe, reasons: &Reasons) -> Result<()> {
    let table = count_table(args);
    let mut generations = probe.generations("CURRENT", FIRST)?;
    let mut tables = [probe.table(TABLES[0])?, probe.table(TABLES[1])?];
    let interval = args.interval.map(|seconds| Duration::from_secs(seconds.get().into()));
    let pace = Pace { interval, ..Pace::default() };
    let is_text = cx.out.format() == Format::Text;
    probe.sample(cx, pace, |cx: &mut Ctx, turn: &Turn<'_>| {
        let counts = new_counts(&mut generations, &mut tables, turn, reasons)?;
        let now_ns = cx.out.clock().monotonic_ns();
        if interval.is_some() && is_text && !cx.out.is_bare() {
            let now = cx.out.clock().hms(now_ns).to_owned();
            cx.out.line("");
            cx.out.line(now);
        }
        cx.out.header(&table);
        for count in &counts {
            cx.out.row(&table, now_ns, count);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn reasons_go_by_the_kernels_words() {
        let members =
            [(2, "SK_RST_REASON_NO_SOCKET"), (14, "SK_RST_REASON_TCP_STATE"), (14, "SK_RST_REASON_MAX")];
        let reasons = Reasons::new(&members.map(|(number, name)| (number, name.to_owned())));
        for (number, word) in
            [(2, Some("NO_SOCKET")), (14, Some("TCP_STATE")), (77, Some("REASON_77")), (UNTOLD, None)]
        {
            assert_eq!(reasons.word(number).as_deref(), word);
        }
    }

    #[test]
    fn what_came_is_ignored_unless_it_is_taken_or_goes_on() {
        const SECOND: u64 = 1_000_000_000;
        let event = |ms: u64, port: u16, received: u8, state: u8, cause: u8| Event {
            ts_ns: SECOND + ms * 1_000_000,
            tuple: Tuple {
                family: AF_INET,
                laddr: [1, 0, 0, 0],
                raddr: [2, 0, 0, 0],
                lport: port,
                ..Tuple::default()
            },
            received,
            state,
            cause,
            ..Event::new_zeroed()
        };
        let mapped = |event: Event| {
            let tuple = Tuple {
                family: AF_INET6,
                laddr: [0, 0, MAPPED_WORD, 1],
                raddr: [0, 0, MAPPED_WORD, 2],
                ..event.tuple
            };
            Event { tuple, ..event }
        };
        let mut held = Held::default();
        for event in [
            event(0, 80, 1, 0, cause::IGNORED),
            event(1, 81, 1, 0, cause::IGNORED),
            event(2, 80, 1, ESTABLISHED, cause::NONE),
            event(3, 82, 1, 0, cause::IGNORED),
            event(4, 82, NO_ROW, 0, cause::NONE),
            event(5, 83, 1, 0, cause::IGNORED),
            mapped(event(6, 83, 1, ESTABLISHED, cause::NONE)),
            event(7, 81, 0, 0, cause::FIREWALL),
            event(8, 81, 1, 0, cause::IGNORED),
        ] {
            held.takes((event, SocketFacts::default()));
        }
        let mut rows = Vec::new();
        assert!(held.before(SECOND - 1).is_none());
        while let Some((event, _)) = held.before(SECOND + 7_000_000) {
            rows.push((event.tuple.lport, event.received, event.cause));
        }
        let (none, ignored) = (cause::NONE, cause::IGNORED);
        assert_eq!(rows, [(81, 1, ignored), (80, 1, none), (83, 1, none), (81, 0, cause::FIREWALL)]);
        assert_eq!(held.first_ns(), Some(SECOND + 8_000_000));
        assert!(held.before(u64::MAX).is_some() && held.pending.is_empty() && held.first_ns().is_none());
    }

    #[test]
    fn brackets_say_what_the_kernels_word_does_not() {
        let sent = |word, state, cause| phrase(word, cause_word(false, word, state, cause));
        for (word, state, cause, text) in [
            (Some("TCP_STATE"), ESTABLISHED, cause::LINGER, "TCP_STATE [linger 0]"),
            (Some("TCP_STATE"), ESTABLISHED, cause::UNSPEC, "TCP_STATE [AF_UNSPEC]"),
            (Some("TCP_STATE"), ESTABLISHED, cause::NEVER_ACCEPTED, "TCP_STATE [never accepted]"),
            (Some("TCP_STATE"), ESTABLISHED, cause::ABORTED, "TCP_STATE [ss -K]"),
            (Some("TCP_STATE"), ESTABLISHED, cause::NONE, "TCP_STATE"),
            (Some("TCP_ABORT_ON_CLOSE"), ESTABLISHED, cause::UNREAD, "TCP_ABORT_ON_CLOSE"),
            (Some("TCP_FLAGS"), LISTEN, cause::NO_CONNECTION, "TCP_FLAGS [no connection]"),
            (Some("NO_SOCKET"), 0, cause::NO_SOCKET, "NO_SOCKET"),
            (None, 0, cause::NO_SOCKET, "no-socket"),
            (None, ESTABLISHED, cause::UNREAD, "abort-on-close"),
            (None, ESTABLISHED, cause::NONE, "unknown"),
        ] {
            assert_eq!(sent(word, state, cause), text);
        }
        let words =
            [SYN_SENT, SYN_RECV, ESTABLISHED, CLOSE_WAIT, 4].map(|state| cause_word(true, None, state, 0));
        let wanted = ["REFUSED", "HANDSHAKE", "RESET", "AFTER_FIN", "AFTER_CLOSE"];
        assert_eq!(words, wanted.map(Some));
    }
}
