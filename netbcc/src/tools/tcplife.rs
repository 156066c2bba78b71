//! tcplife: one row per TCP socket that reaches CLOSE: owner, addresses, KB sent and received, age.
//!
//! Events: `probes-ebpf/src/bin/tcplife.rs`, from `sock:inet_sock_set_state` (or `tcp_set_state`) and
//! `security_sock_graft` (or the first read). The byte counts are the kernel's `bytes_acked` and `bytes_received`, which
//! contain SYN and FIN; KB are cut, not rounded, as BCC.
//!
//! BCC: its owner of a server socket that closes first is whatever task the last ACK interrupts. Here it is the
//! acceptor or the closer; where BCC is right, both agree. `-p` and `-L` test the finished row, so that an ephemeral
//! port or a foreign task does not hide or show the wrong one.
//!
//! What else a socket knew at its end ([`END`]) is for `-o`: the program reads what is asked for and no more.
//!
//! Two connections over loopback, both ends in one process, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcplife
//! PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS
//! 31536 python3    127.0.0.1       52546 127.0.0.1       37671     0     0 0.08
//! 31536 python3    127.0.0.1       37671 127.0.0.1       52546     0     0 0.10
//! 31536 python3    127.0.0.1       52560 127.0.0.1       37671     0     0 0.04
//! 31536 python3    127.0.0.1       37671 127.0.0.1       52560     0     0 0.05
//! ```

use std::ops::Deref;

use anyhow::Result;
use clap::Args;
use netbcc_common::kernel::Func;
use netbcc_common::socket::SocketFacts;
use netbcc_common::tcplife::{Detailed, End, Event, details};
use nix::errno::Errno;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::{Existing, Family, FlowPorts, Json, Pid, Timestamp, Verbose, WallClock, WideCsv};
use crate::out::{
    About, Cell, Column, Format, Kind, Process, Rows, SocketFact, Table, data, left, right, seconds, wall,
};
use crate::owner::SNAPSHOT;
use crate::probe::{Batch, Plan};
use crate::sys::machine::jiffy_us;
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcplife;

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
    pid: Pid,
    #[command(flatten)]
    ports: FlowPorts,
    #[command(flatten)]
    existing: Existing,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Tcplife {
    const SPEC: Spec = Spec {
        name: "tcplife",
        about: "Trace the lifespan of TCP sockets and summarize",
        description: &[
            "Prints a row for each TCP socket that reaches the state CLOSE: whose it was, both ends, how much it sent \
             and received, and how long the connection lasted. A connection over loopback has two sockets, and so two \
             rows. Sockets that are open have no row yet, and those that were never connected have none.",
            "Connections that were established before the start have no row without --existing. With it they have: MS is then the \
             time since the start, with > before it, in JSON with \"since\": \"start\"; bytes are those of the whole \
             connection. Their owner is who had the socket open at the start, or who closed it last; where nobody is known, it \
             is PID 0 and COMM '-'.",
        ],
        examples: &[
            ("tcplife", "all TCP sockets that close"),
            ("tcplife -T", "with the time of day (HH:MM:SS)"),
            ("tcplife -wt", "wide columns, with seconds since the first row"),
            ("tcplife -stT", "comma-separated, with both times"),
            ("tcplife -p 181", "sockets of process 181 only"),
            ("tcplife -L 80,81", "local ports 80 and 81 only"),
            ("tcplife -D 443", "remote port 443 only"),
            ("tcplife --existing", "also connections that are older than the tool"),
            (
                "tcplife -o +rtt_min,retrans,closed_by",
                "also how far away it was, what was sent again, who ended it",
            ),
            ("tcplife --json", "JSON Lines"),
        ],
        overhead: "Runs a short program at each change of a TCP socket's state and at each accept: about ten per \
                   connection, none per packet. The cost grows with new connections per second. What -o adds of the \
                   socket is read once, at its end; first_ms runs a short program at each read besides. --existing looks at \
                   all open files at the start, 10 to 30 ms for 10,000 of them, and adds nothing per connection.",
        differences: &[
            "The owner of a server's socket is the process that accepted or closed it, not the task on the CPU.",
            "-p and -L test the finished row.",
            "A subflow belongs to the process that owns the MPTCP socket, not to the kernel's thread or the program that \
             opens or closes it. Where nobody saw who that is, it has PID 0 and COMM '-': where the client resets the connection \
             before accept(), and where neither fentry nor kprobes work also after accept(), because MPTCP's reads cannot be \
             traced. Where the kernel's lockdown is 'confidentiality', a subflow is a socket like any other.",
            "The kernel may make two sockets for one connection, when its packets meet on two CPUs. The one that it closes \
             at once is no row.",
        ],
        refuses: &[],
        object: object!("tcplife"),
        ladders: &[SOCKETS, SNAPSHOT],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        let table = table(&args);
        let details = table.needs(&cx.out);
        let jiffy_us = if details & details::LIMITS != 0 { jiffy_us()? } else { 0 };
        let mut plan = Plan::new(cx)
            .socket_facts(table.asks_of_sockets(&cx.out))
            .groups_of_sockets()
            .ladder(&SOCKETS)
            .global("DETAILS", &details);
        plan = plan.existing(args.existing.existing);
        if args.existing.existing {
            plan = plan.ladder(&SNAPSHOT);
        }
        if details & details::FIRST != 0 {
            plan = plan.ask(FIRST);
        }
        let mut probe = plan
            .family(args.family)
            .lports(&args.ports.localport)
            .rports(&args.ports.remoteport)
            .attach(cx)?;
        if args.existing.existing {
            probe.mark_start(cx.out.clock().monotonic_ns())?;
        }
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            if details == 0 {
                // One row for all: most of a row is the same in each where nothing is asked for.
                let mut row = None;
                for (event, facts) in batch.events_with_facts::<Event>() {
                    let row = row.get_or_insert_with(|| Row::from(event));
                    row.tells(event, facts);
                    cx.out.row(&table, event.ts_ns, row);
                }
            } else {
                for (Detailed { event, end }, facts) in batch.events_with_facts::<Detailed>() {
                    let row = Row { facts, ..Row::new(event, end, jiffy_us) };
                    cx.out.row(&table, event.ts_ns, &row);
                }
            }
            Ok(None)
        })
    }
}

/// What is printed of a socket.
pub struct Row {
    event: Event,
    /// As far as it was asked for.
    end: End,
    error: conn::ErrorName,
    /// Microseconds of a jiffy.
    jiffy_us: u64,
    /// Where it is older than the tool.
    at_least: conn::AtLeast<2>,
    facts: SocketFacts,
}

impl Row {
    fn new(event: Event, end: End, jiffy_us: u64) -> Self {
        let at_least = conn::AtLeast(event.span_ns / 1000);
        Self {
            event,
            end,
            error: conn::ErrorName(end.error),
            jiffy_us,
            at_least,
            facts: SocketFacts::default(),
        }
    }

    /// It is of this, of whose end nothing is asked.
    fn tells(&mut self, event: Event, facts: SocketFacts) {
        self.event = event;
        self.at_least = conn::AtLeast(event.span_ns / 1000);
        self.facts = facts;
    }
}

/// A row of which nothing beside the usual is asked.
impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Self::new(event, End::default(), 0)
    }
}

impl Deref for Row {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.event
    }
}

/// What is asked for with the programs that see the first read.
const FIRST: &str = "first_ms";

const SOCKETS: Ladder = Ladder {
    name: "sockets",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("graft_fentry", "security_sock_graft").twice(),
                tp_btf("state_tp", "inet_sock_set_state"),
                tp_btf("state_again_tp", "inet_sock_set_state"),
                tp_btf("first_tp", "tcp_rcv_space_adjust").when(Need::Asked(FIRST)),
            ],
            less_exact: None,
        },
        // Before kprobes: every transition is seen, and nothing is stored that could leak.
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("state_tp", "inet_sock_set_state"),
                tp_btf("state_again_tp", "inet_sock_set_state"),
                tp_btf("read_tp", "tcp_rcv_space_adjust"),
            ],
            less_exact: Some(
                LessExact::new("a server's socket belongs to the process that first reads from it").detail(
                    "accept() cannot be traced in this way. Where nobody reads and the client resets the connection, \
                     the row shows the task on the CPU; of an MPTCP connection, whose reads cannot be traced, PID 0 and \
                     COMM '-'.",
                ),
            ),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("state_kprobe", "tcp_set_state"),
                kprobe("graft_kprobe", "security_sock_graft"),
                kprobe("first_kprobe", "tcp_rcv_space_adjust").when(Need::Asked(FIRST)),
                kprobe("mptcp_kprobe", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere),
            ],
            less_exact: None,
        },
    ],
};

/// BCC's columns. The IP version is shown only where it is told apart from nothing else: `-w`, `-s` and JSON.
pub fn table(args: &Options) -> Table<Row> {
    let format = args.layout.format(args.json);
    let wide = args.layout.wide && format == Format::Text;
    let (comm, addr, kb) = if wide { (16, 39, 6) } else { (10, 15, 5) };
    let table = Table::new(format)
        .col_if(args.clock.time, wall(8))
        .col_if(args.seconds.timestamp, seconds(9, 6))
        .col(
            left("PID", 5, |e: &Row| e.pid.into())
                .about(conn::pid("The process that owned the socket: that opened, accepted or closed it.")),
        )
        .col(left("COMM", comm, |e: &Row| (&e.comm).into()).cut().about(conn::COMM))
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
        .col(
            right("TX_KB", kb, |e: &Row| (e.tx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that were sent and acknowledged.")),
        )
        .col(
            right("RX_KB", kb, |e: &Row| (e.rx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that were received.")),
        )
        .col(
            data("tx_bytes", |e: &Row| e.tx_bytes.into())
                .about(About::count("Bytes that were sent and acknowledged; SYN and FIN count as one each.")),
        )
        .col(
            data("rx_bytes", |e: &Row| e.rx_bytes.into())
                .about(About::count("Bytes that were received; a FIN counts as one.")),
        )
        .col(data("span_us", |e: &Row| (e.span_ns / 1000).into()).about(About::count(
            "From when the connection was established, or else tried, to CLOSE, in microseconds.",
        )))
        // Whole microseconds first, as BCC: the digits must agree.
        .col(
            left("MS", 0, |e: &Row| {
                if e.existing != 0 {
                    return Cell::Shown(&e.at_least);
                }
                Cell::Float((e.span_ns / 1000) as f64 / 1000.0)
            })
                .precision(2)
                .except(Format::Json)
                .about(About::new(
                    Kind::Number,
                    "From when the connection was established, or else tried, to CLOSE, in milliseconds. With > before it, of \
                     a connection that is older than the tool (--existing): since the start.",
                )),
        )
        .col_if(
            args.existing.existing,
            data("since", |e: &Row| if e.existing != 0 { Cell::Label("start") } else { Cell::Empty })
                .about(conn::SINCE)
                .known_if(args.existing.existing, "add --existing"),
        )
        .process(|e| Process::now(e.pid).named(&e.comm).noted_before(e.span_ns))
        .socket(false, &SocketFact::PLAIN, |e| &e.facts);
    END.into_iter().fold(table, |table, column| table.col_if(false, column()))
}

/// What a socket knew at its end: for those who ask for it by name.
const END: [fn() -> Column<Row>; 15] = [
    || {
        data("rtt_min", |r: &Row| known((r.end.rtt_min_us != u32::MAX).then_some(r.end.rtt_min_us)))
            .needs(details::RTT_MIN)
            .about(About::count(RTT_MIN).or_null())
    },
    || {
        data("rtt", |r: &Row| known((r.end.rtt_us != 0).then_some(r.end.rtt_us)))
            .needs(details::RTT)
            .about(About::count("The smoothed round-trip time at the end, in microseconds.").or_null())
    },
    || {
        data("retrans", |r: &Row| r.end.retrans.into())
            .needs(details::RETRANS)
            .about(About::count("Segments that were sent again, SYN and FIN included."))
    },
    || {
        data("retrans_bytes", |r: &Row| r.end.retrans_bytes.into())
            .needs(details::RETRANS_BYTES)
            .about(About::count("Bytes of data that were sent again."))
    },
    || {
        data("lost", |r: &Row| r.end.lost.into())
            .needs(details::LOST)
            .about(About::count("Segments that the kernel took for lost, be it by mistake."))
    },
    || {
        data("rwnd_limited", |r: &Row| micros(r, [r.end.rwnd_jiffies])).needs(details::LIMITS).about(
            About::count("For how long the other end had no room for what was to be sent, in microseconds."),
        )
    },
    || {
        data("sndbuf_limited", |r: &Row| micros(r, [r.end.sndbuf_jiffies])).needs(details::LIMITS).about(
            About::count(
                "For how long the send buffer was too small for what was to be sent, in microseconds.",
            ),
        )
    },
    || {
        data("busy", |r: &Row| micros(r, [r.end.busy_jiffies, r.end.rwnd_jiffies, r.end.sndbuf_jiffies]))
            .needs(details::LIMITS)
            .about(About::count(
                "For how long there was something to send or to be acknowledged, in microseconds.",
            ))
    },
    || {
        data("conn_ms", |r: &Row| millis((r.end.conn_ns != 0).then_some(r.end.conn_ns)))
            .needs(details::CONN)
            .precision(3)
            .about(About::new(Kind::Number, CONN_MS).or_null())
    },
    || {
        data("first_ms", |r: &Row| {
            let birth_ns = r.ts_ns.saturating_sub(r.span_ns);
            millis((r.end.first_ns != 0).then(|| r.end.first_ns.saturating_sub(birth_ns)))
        })
        .needs(details::FIRST)
        .precision(3)
        .about(About::new(Kind::Number, FIRST_MS).or_null())
    },
    || {
        data("ooo", |r: &Row| r.end.ooo.into())
            .needs(details::OOO)
            .about(About::count("Segments that came out of order."))
    },
    || {
        data("segs_in", |r: &Row| r.end.segs_in.into())
            .needs(details::SEGS_IN)
            .about(About::count("Segments that came."))
    },
    || {
        data("segs_out", |r: &Row| r.end.segs_out.into())
            .needs(details::SEGS_OUT)
            .about(About::count("Segments that were sent."))
    },
    || {
        data("errno", |r: &Row| if r.error.0 == 0 { Cell::Empty } else { Cell::Shown(&r.error) })
            .needs(details::HOW)
            .about(About::text(ERRNO).or_null())
    },
    || {
        data("closed_by", |r: &Row| closed_by(&r.end).map_or(Cell::Empty, Cell::Label))
            .needs(details::HOW)
            .about(
                About::new(Kind::Word(&["local", "remote", "both", "timeout", "network"]), CLOSED_BY)
                    .or_null(),
            )
    },
];

const RTT_MIN: &str =
    "The shortest round-trip time of the last minutes (net.ipv4.tcp_min_rtt_wlen), in microseconds.";
const CONN_MS: &str =
    "How long it took to connect, in milliseconds. Not known of a connection that was accepted.";
const FIRST_MS: &str = "From when the connection was established to when a process first read from it, in \
                        milliseconds.";
const ERRNO: &str = "The error that the connection ended with and that no call had been told, by its name.";
const CLOSED_BY: &str = "Who ended it: local or remote, by the first FIN or by a reset; both, by FINs that crossed; a \
                         timeout; or an error that the network reported. Not known where a connect() fails at once.";

fn known(number: Option<u32>) -> Cell<'static> {
    number.map_or(Cell::Empty, Into::into)
}

/// Jiffies in all, as the kernel tells them in `tcp_info`.
fn micros<const N: usize>(row: &Row, jiffies: [u32; N]) -> Cell<'static> {
    jiffies.into_iter().map(|jiffies| u64::from(jiffies) * row.jiffy_us).sum::<u64>().into()
}

fn millis(ns: Option<u64>) -> Cell<'static> {
    ns.map_or(Cell::Empty, |ns| Cell::Float((ns / 1000) as f64 / 1000.0))
}

/// Who ended a connection, by the state before CLOSE, the error, and what was shut down.
fn closed_by(end: &End) -> Option<&'static str> {
    let error = Errno::from_raw(end.error);
    // What CLOSE was reached from without a FIN of either end.
    let aborted = || match (end.error, error) {
        (0, _) | (_, Errno::ECONNABORTED) => "local",
        (_, Errno::ECONNRESET | Errno::ECONNREFUSED | Errno::EPIPE) => "remote",
        (_, Errno::ETIMEDOUT) => "timeout",
        _ => "network",
    };
    match conn::state_name(end.state)? {
        "FIN_WAIT1" | "FIN_WAIT2" => Some("local"),
        "CLOSE_WAIT" | "LAST_ACK" => Some("remote"),
        "CLOSING" => Some("both"),
        // Of a connect() that fails at once, nothing is left by then; a program that gave up has closed.
        "SYN_SENT" | "SYN_RECV" if end.error == 0 && end.shutdown == 0 => None,
        "SYN_SENT" | "SYN_RECV" | "ESTABLISHED" => Some(aborted()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ended_it_follows_from_the_last_state_and_the_error() {
        let by = |state: &str, error: Errno, shutdown| {
            let mut states = (1..).zip(conn::STATES);
            let (state, _) = states.find(|(_, name)| *name == state).expect("a state");
            closed_by(&End { state, error: error as i32, shutdown, ..End::default() })
        };
        let none = Errno::UnknownErrno;
        assert_eq!(by("FIN_WAIT2", none, 3), Some("local"));
        assert_eq!(by("FIN_WAIT1", Errno::ECONNRESET, 3), Some("local"), "its FIN came first");
        assert_eq!(by("LAST_ACK", none, 3), Some("remote"));
        assert_eq!(by("CLOSE_WAIT", Errno::EPIPE, 1), Some("remote"));
        assert_eq!(by("CLOSING", none, 3), Some("both"));
        assert_eq!(by("ESTABLISHED", none, 3), Some("local"));
        assert_eq!(by("ESTABLISHED", Errno::ECONNABORTED, 0), Some("local"));
        assert_eq!(by("ESTABLISHED", Errno::ECONNRESET, 0), Some("remote"));
        assert_eq!(by("ESTABLISHED", Errno::ETIMEDOUT, 0), Some("timeout"));
        assert_eq!(by("ESTABLISHED", Errno::EHOSTUNREACH, 0), Some("network"));
        assert_eq!(by("SYN_SENT", Errno::ECONNREFUSED, 0), Some("remote"));
        assert_eq!(by("SYN_SENT", none, 3), Some("local"), "it gave up");
        assert_eq!(by("SYN_SENT", none, 0), None);
        assert_eq!(by("LISTEN", none, 3), None);
    }
}
