//! tcpstates: one row per change of a TCP socket's state, with the time spent in the state before.
//!
//! Events: `probes-ebpf/src/bin/tcpstates.rs`, from `sock:inet_sock_set_state`, or from `tcp_set_state`, which sees
//! neither listeners nor the birth of their children. A row is about one socket: a connection over loopback has two.
//! TIME_WAIT never shows, because a smaller socket takes the place of one that goes there. MS is 0.000 where the
//! beginning was not seen, and wherever a socket leaves CLOSE.
//!
//! BCC: rows may come out of order, its buffers being per CPU and family. Here they are in the order of kernel time.
//!
//! A connection over loopback, both ends in one process, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpstates
//! SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE    MS
//! ffff88811932e5c0 31536 python3    127.0.0.1       37671 0.0.0.0         0     CLOSE       -> LISTEN      0.000
//! ffff88811932dc80 31536 python3    127.0.0.1       0     127.0.0.1       37671 CLOSE       -> SYN_SENT    0.000
//! ffff88811932dc80 31536 python3    127.0.0.1       52546 127.0.0.1       37671 SYN_SENT    -> ESTABLISHED 0.086
//! ffff888119328000 31536 python3    127.0.0.1       37671 127.0.0.1       52546 LISTEN      -> SYN_RECV    0.000
//! ffff888119328000 31536 python3    127.0.0.1       37671 127.0.0.1       52546 SYN_RECV    -> ESTABLISHED 0.007
//! ffff88811932dc80 31536 python3    127.0.0.1       52546 127.0.0.1       37671 ESTABLISHED -> FIN_WAIT1   0.078
//! ffff888119328000 31536 python3    127.0.0.1       37671 127.0.0.1       52546 ESTABLISHED -> CLOSE_WAIT  0.050
//! ffff888119328000 31536 python3    127.0.0.1       37671 127.0.0.1       52546 CLOSE_WAIT  -> LAST_ACK    0.007
//! ffff88811932dc80 31536 python3    127.0.0.1       52546 127.0.0.1       37671 FIN_WAIT1   -> FIN_WAIT2   0.013
//! ffff88811932dc80 31536 python3    127.0.0.1       52546 127.0.0.1       37671 FIN_WAIT2   -> CLOSE       0.004
//! ffff888119328000 31536 python3    127.0.0.1       37671 127.0.0.1       52546 LAST_ACK    -> CLOSE       0.041
//! ```

use std::ops::Deref;

use anyhow::Result;
use clap::Args;
use netbcc_common::tcpstates::Event;
use nix::unistd::Uid;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::{Existing, Family, FlowPorts, Json, Owner, Timestamp, Verbose, WallClock, WideCsv};
use crate::out::journal::Journal;
use crate::out::{
    About, Cell, Format, Kind, Process, Rows, SocketFact, Table, Whose, data, left, name_in, seconds, wall,
};
use crate::owner::OWNERS;
use crate::probe::{Batch, Plan};
use crate::sys::address::Addresses;
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpstates;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    clock: WallClock,
    #[command(flatten)]
    seconds: Timestamp,
    #[command(flatten)]
    layout: WideCsv,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    existing: Existing,
    #[command(flatten)]
    ports: FlowPorts,
    /// Also send each transition to the systemd journal
    #[arg(short = 'Y', long, help_heading = "Output")]
    journal: bool,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Tcpstates {
    const SPEC: Spec = Spec {
        name: "tcpstates",
        about: "Trace TCP session state changes with durations",
        description: &[
            "Prints a row for each change of a TCP socket's state, and how long the socket was in the state before. A \
             row is about one socket: a connection over loopback has two.",
            "TIME_WAIT never shows: the kernel puts a smaller socket in the place of one that goes there. What leaves \
             CLOSE has a time of 0.",
        ],
        examples: &[
            ("tcpstates", "all changes of state"),
            ("tcpstates -t", "with seconds since the first row"),
            ("tcpstates -T", "with the time of day (HH:MM:SS)"),
            ("tcpstates -w", "wide columns, with room for IPv6 addresses"),
            ("tcpstates -stT", "comma-separated, with both times"),
            ("tcpstates -Y", "to the systemd journal as well"),
            ("tcpstates --existing", "also how long older sockets were in their state, at least"),
            ("tcpstates --owner", "whose sockets, not who was on the CPU"),
            ("tcpstates -L 80,81", "local ports 80 and 81 only"),
            ("tcpstates -D 443", "remote port 443 only"),
            ("tcpstates -4", "IPv4 sockets only"),
            ("tcpstates --json", "JSON Lines"),
        ],
        overhead: "Runs a short program at each change of a TCP socket's state: about ten per connection, none per \
                   packet. The cost grows with new connections per second. --owner adds a program at each change of a TCP socket's state and at each accept, or \
                   read where accept() cannot be traced: some two microseconds per connection, both ends together. At the start \
                   it looks at all open files: 10 to 30 ms for 10,000 of them.",
        differences: &[
            "Rows are in the order of the kernel's clock.",
            "SKADDR is the socket's address for those who may see addresses of the kernel (CAP_SYSLOG, and \
             kernel.kptr_restrict below 2). For others it is a hash with a key of this run.",
            "-Y needs no Python module; the journal's own time stamp stands for _SOURCE_REALTIME_TIMESTAMP.",
            "Rows never wait for the journal. What it does not take at once is sent a little later: 4 MiB of entries may wait; \
             how many had no room is said at the end.",
        ],
        refuses: &[],
        object: object!("tcpstates"),
        ladders: &[TRANSITIONS, OWNERS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        let table = table(&args);
        cx.out.set_format(args.layout.format(args.json));
        let mut journal = if args.journal { Some(Journal::open()?) } else { None };
        let mut probe = Plan::new(cx)
            .existing(args.existing.existing)
            .socket_facts(args.owner.asks(table.asks_of_sockets(&cx.out)))
            .groups_of_sockets()
            .ladder(&TRANSITIONS)
            .family(args.family)
            .lports(&args.ports.localport)
            .rports(&args.ports.remoteport)
            .attach(cx)?;
        if args.existing.existing {
            probe.mark_start(cx.out.clock().monotonic_ns())?;
        }
        let addresses = Addresses::decide();
        cx.out.header(&table);
        let ended = probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for (mut event, facts) in batch.events_with_facts::<Event>() {
                if addresses.are_hidden() {
                    event.sk = addresses.shown(event.sk);
                }
                let row = Row::new(event, Whose::new(facts, args.owner.owner));
                cx.out.row(&table, row.ts_ns, &row);
                if let Some(journal) = &mut journal {
                    enter(journal, &row);
                }
            }
            let Some(journal) = &mut journal else { return Ok(None) };
            if batch.is_last() {
                // Rows need the other half.
                journal.finish(cx.out.time_left() / 2);
            }
            Ok(journal.go_on())
        });
        if let Some(sentence) = journal.as_ref().and_then(Journal::losses) {
            cx.warn(sentence);
        }
        ended
    }
}

/// What `tcp_set_state` does not see.
const NOT_LISTENERS: LessExact = LessExact::new("the changes to LISTEN, and those to SYN_RECV, are not seen").detail(
    "A socket that begins to listen (CLOSE to LISTEN) is no row, nor is its new child (LISTEN to SYN_RECV). So the time \
     in LISTEN and the first time in SYN_RECV are not known.",
);

const TRANSITIONS: Ladder = Ladder {
    name: "transitions",
    rungs: &[
        // First: nothing else sees every transition.
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("state_tp", "inet_sock_set_state").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[fentry("state_fentry", "tcp_set_state").twice()],
            less_exact: Some(NOT_LISTENERS),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("state_kprobe", "tcp_set_state")],
            less_exact: Some(NOT_LISTENERS),
        },
    ],
};

/// Whole microseconds, as BCC.
fn span_us(event: &Event) -> u64 {
    event.span_ns / 1000
}

const OLD: About = About::new(Kind::WordOrNumber(&conn::STATES), "The state before.");
const NEW: About = conn::state_about("The state after.");

/// A transition with what user space makes of it.
pub struct Row {
    event: Event,
    whose: Whose,
    /// Where the old state is older than the tool.
    at_least: conn::AtLeast<3>,
}

impl Row {
    fn new(event: Event, whose: Whose) -> Self {
        let at_least = conn::AtLeast(span_us(&event));
        let event = Event { pid: whose.pid(event.pid), comm: whose.comm(event.comm), ..event };
        Self { event, whose, at_least }
    }
}

/// A row of which nothing beside the usual is asked.
impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Self::new(event, Whose::default())
    }
}

impl Deref for Row {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.event
    }
}

/// BCC's columns. The IP version is shown only where it is told apart from nothing else: `-w`, `-s` and JSON.
pub fn table(args: &Options) -> Table<Row> {
    let format = args.layout.format(args.json);
    let wide = args.layout.wide && format == Format::Text;
    let (comm, addr) = if wide { (16, 39) } else { (10, 15) };
    Table::new(format)
        .col_if(args.clock.time, wall(8))
        .col_if(args.seconds.timestamp, seconds(9, 6))
        .col(left("SKADDR", 16, |e: &Row| Cell::Hex(e.sk)).about(About::new(
            Kind::Hex,
            "The address of the socket in the kernel: rows with the same one are about the same socket. Without CAP_SYSLOG, \
             or where kernel.kptr_restrict is 2, another number stands for it, which is the same in this run only.",
        )))
        .col(left("C-PID", 5, |e: &Row| e.pid.into()).about(conn::pid(
            "The process on the CPU, which where a packet changed the state has nothing to do with the socket. With --owner it \
             is the socket's owner, and 0 where nobody knows.",
        )))
        .col(left("C-COMM", comm, |e: &Row| (&e.comm).into()).cut().about(conn::COMM))
        .col_if(
            wide,
            left("IP", 2, |e: &Row| Cell::Unsigned(conn::version(e.tuple.family)))
                .always(Format::Csv)
                .always(Format::Json)
                .about(conn::IP),
        )
        .col(left("LADDR", addr, |e: &Row| conn::laddr(&e.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |e: &Row| e.tuple.lport.into()).about(conn::LPORT))
        .col(left("RADDR", addr, |e: &Row| conn::raddr(&e.tuple).into()).about(conn::RADDR))
        .col(left("RPORT", 5, |e: &Row| e.tuple.rport.into()).about(conn::RPORT))
        .col(left("OLDSTATE", 11, |e: &Row| conn::state(e.old)).gap(" -> ").about(OLD))
        .col(left("NEWSTATE", 11, |e: &Row| conn::state(e.new)).about(NEW))
        .col(data("span_us", |e: &Row| span_us(e).into()).about(About::count(
"The time in the old state, in microseconds; 0 where its beginning was not seen.",
)))
        .col(
            left("MS", 0, |e: &Row| {
                if e.existing != 0 {
                    return Cell::Shown(&e.at_least);
                }
                Cell::Float(span_us(e) as f64 / 1000.0)
            })
                .precision(3)
                .except(Format::Json)
                .about(About::new(
                    Kind::Number,
                    "The time in the old state, in milliseconds; 0 where its beginning was not seen.",
                )),
        )
        .col_if(
            args.existing.existing,
            data("since", |e: &Row| if e.existing != 0 { Cell::Label("start") } else { Cell::Empty })
                .about(conn::SINCE)
                .known_if(args.existing.existing, "add --existing"),
        )
        .process(|e| e.whose.process(Process::now(e.pid).named(&e.comm), e.ts_ns))
        .socket(args.owner.owner, &SocketFact::OF_OWNERS, |e| &e.whose.facts)
        .socket(false, &SocketFact::PLAIN, |e| &e.whose.facts)
}

/// The entry that BCC sends to the journal.
fn enter(journal: &mut Journal, event: &Event) {
    let comm = Cell::from(&event.comm);
    let (laddr, lport) = (Cell::from(conn::laddr(&event.tuple)), Cell::from(event.tuple.lport));
    let (raddr, rport) = (Cell::from(conn::raddr(&event.tuple)), Cell::from(event.tuple.rport));
    let (old, new, to) = (conn::state(event.old), conn::state(event.new), Cell::Label("→"));
    let (source, destination) = if conn::version(event.tuple.family) == 4 {
        ("OBJECT_IPV4_SOURCE_ADDRESS", "OBJECT_IPV4_DESTINATION_ADDRESS")
    } else {
        ("OBJECT_IPV6_SOURCE_ADDRESS", "OBJECT_IPV6_DESTINATION_ADDRESS")
    };
    let mut entry = journal
        .entry()
        .field("MESSAGE", &[comm, laddr, lport, to, raddr, rport, old, to, new])
        .field("SYSLOG_IDENTIFIER", &[Cell::Label("tcpstates")])
        // LOG_NOTICE.
        .field("PRIORITY", &[Cell::Unsigned(5)])
        .field("OBJECT_PID", &[event.pid.into()])
        .field(source, &[laddr])
        .field("OBJECT_TCP_SOURCE_PORT", &[lport])
        .field(destination, &[raddr])
        .field("OBJECT_TCP_DESTINATION_PORT", &[rport])
        .field("OBJECT_TCP_OLD_STATE", &[old])
        .field("OBJECT_TCP_NEW_STATE", &[new])
        .field("OBJECT_TCP_SPAN_TIME", &[span_us(event).into()]);
    // From root, journald takes OBJECT_PID for true and adds the name itself.
    if !Uid::current().is_root() {
        entry = entry.bytes("OBJECT_COMM", name_in(&event.comm));
    }
    entry.send();
}
