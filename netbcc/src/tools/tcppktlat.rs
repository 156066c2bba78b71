//! tcppktlat: one row per read of data that arrived at a TCP socket, with the time that the data lay there.
//!
//! Events: `probes-ebpf/src/bin/tcppktlat.rs`. PID, TID and COMM are of the reader. The time begins when TCP processes a segment
//! with data, and ends when the first byte is taken, or looked at. It begins anew with each segment, as libbpf-tools' tool has
//! it; with `--first` at the first segment whose data nobody has looked at. Only the first of several segments that one call
//! reads makes a row, and what a call leaves is not timed again.
//!
//! libbpf-tools: a table of 10,240 sockets, which may fill up with those that others read, and says nothing then. Here the time
//! lies with the socket.
//!
//! Requests to a server on loopback and their answers, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcppktlat
//! PID     TID     COMM             LADDR           LPORT RADDR           RPORT MS
//! 31536   31536   python3          127.0.0.1       37671 127.0.0.1       52546 0.06
//! 31540   31540   curl             127.0.0.1       52546 127.0.0.1       37671 0.09
//! ```

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Deref;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use netbcc_common::socket::SocketFacts;
use netbcc_common::tcppktlat::{Config, Event, details};

use super::{conn, object};
use crate::error::usage;
use crate::hook::{Ladder, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::select::{PortList, port_list};
use crate::options::{FILTERS, Family, Json, OUTPUT, Pid, Verbose};
use crate::out::{About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, data, left, wall};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};
use crate::words::words;

/// The tool.
pub struct Tcppktlat;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    pid: Pid,
    /// This thread only
    #[arg(short, long, value_name = "TID", value_parser = tid, help_heading = FILTERS)]
    tid: Option<NonZeroU32>,
    /// These local ports only: 80,8000-8099,!8080
    #[arg(
        short, long, value_name = "PORTS", value_parser = ports, action = ArgAction::Append, help_heading = FILTERS
    )]
    lport: Vec<PortList>,
    /// These remote ports only
    #[arg(
        short, long, value_name = "PORTS", value_parser = ports, action = ArgAction::Append, help_heading = FILTERS
    )]
    rport: Vec<PortList>,
    #[command(flatten)]
    family: Family,
    /// Add the time of day (HH:MM:SS)
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    timestamp: bool,
    /// Wide columns of addresses
    #[arg(short, long, help_heading = OUTPUT)]
    wide: bool,
    /// From the first arrival that was not looked at, not from the last
    #[arg(long, help_heading = OUTPUT)]
    first: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    /// Show what lay longer than this, in microseconds
    #[arg(value_name = "MIN_US", value_parser = min_us)]
    min_us: Option<NonZeroU64>,
}

/// Parses the number of a thread.
fn tid(text: &str) -> Result<NonZeroU32, String> {
    match text.parse::<NonZeroU32>() {
        Ok(tid) if i32::try_from(tid.get()).is_ok() => Ok(tid),
        _ => Err(format!("not a thread id, which is 1 to {}", i32::MAX)),
    }
}

/// Parses a list of ports. No connection has port 0.
fn ports(text: &str) -> Result<PortList, String> {
    if words(text).any(|word| word == "0") {
        return Err("no connection has port 0".to_owned());
    }
    port_list(text)
}

/// Parses microseconds.
fn min_us(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "not a whole number of microseconds, from 1 on".to_owned())
}

impl Tool for Tcppktlat {
    const SPEC: Spec = Spec {
        name: "tcppktlat",
        about: "Trace how long data lies in a TCP socket before it is read",
        description: &[
            "Prints a row each time that a program reads from a TCP socket after data arrived: how long the data lay there. So \
             it tells a slow program from a slow network. The time begins when TCP processes the segment, and ends when the \
             reader takes the first byte. The way through the network card and the queues before TCP is not in it; that the \
             program has to wake up, or is busy elsewhere, is.",
            "Each segment with data begins the time anew, also one that repeats data that is already there: where several came, \
             MS is the time since the last one, and a slow reader of a busy or lossy connection looks fast. --first counts \
             from the first segment whose data nobody has looked at, once nothing before it is missing.",
            "A call that reads several segments is one row. What it leaves is not timed again: the next row's time begins with \
             the next segment. Looking at data (MSG_PEEK) counts as reading it. A read with nothing new since the last one is \
             no row, nor is one within a microsecond of the arrival, the end of the stream, or data that nobody reads.",
        ],
        examples: &[
            ("tcppktlat", "all reads of data that arrived"),
            ("tcppktlat 1000", "those of data that lay longer than 1 ms"),
            ("tcppktlat --first 10000", "longer than 10 ms since the first segment"),
            ("tcppktlat -p 181", "process 181 only"),
            ("tcppktlat -t 184", "thread 184 only"),
            ("tcppktlat -l 443", "the server's side of port 443"),
            ("tcppktlat -r 5432", "clients of port 5432"),
            ("tcppktlat -Tw", "with the time of day, and room for IPv6 addresses"),
            ("tcppktlat --json", "JSON Lines, with both times"),
        ],
        overhead: "Runs a short program per segment that an established connection receives, after segments were merged, and one \
                   per read. A row per read is what costs most: give MIN_US on a busy host.",
        differences: &[
            "Every socket is timed, however many have data that nobody reads.",
            "Wrong numbers are refused; libbpf-tools takes '1000x' for 1000, and a port that is none for no filter.",
            "Ports and processes may be lists.",
            "Not timed is what does not come the usual way: data in a SYN (Fast Open) or with the end of the handshake, data that \
             comes after this side has shut down, and MPTCP.",
            "Where the kernel reads for a program while packets arrive (KCM, sockmap's parsers), the reader is whoever was interrupted.",
        ],
        refuses: &[],
        object: object!("tcppktlat"),
        ladders: &[READS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        if !cx.select.addresses_agree(args.family) {
            bail!(usage("no connection has ends of both families: there would be no row"));
        }
        let table = table(&args);
        cx.out.set_format(args.json.format());
        let needs = table.needs(&cx.out) | if args.first { details::FIRST } else { 0 };
        let config = Config { min_ns: args.min_ns(), details: needs, first: args.first.into() };
        let mut probe = Plan::new(cx)
            .socket_facts(table.asks_of_sockets(&cx.out))
            .ladder(&READS)
            .family(args.family)
            .thread("TID", args.tid)
            .global("CONFIG", &config)
            .attach(cx)?;
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for row in batch.events_with_facts::<Event>().map(|event| Row::new(event, args.first)) {
                cx.out.row(&table, row.ts_ns, &row);
            }
            Ok(None)
        })
    }
}

impl Options {
    /// Whole microseconds have to be more than asked for, and at least one.
    fn min_ns(&self) -> u64 {
        self.min_us.map_or(0, NonZeroU64::get).saturating_add(1).saturating_mul(1000)
    }
}

const READS: Ladder = Ladder {
    name: "reads",
    // All see the same moments; the tracepoints are the first thing that the functions do, and cost least.
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("arrives_tp", "tcp_probe"),
                tp_btf("reads_tp", "tcp_rcv_space_adjust").twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("arrives_fentry", "tcp_rcv_established"),
                fentry("reads_fentry", "tcp_rcv_space_adjust").twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("arrives_kprobe", "tcp_rcv_established"),
                kprobe("reads_kprobe", "tcp_rcv_space_adjust"),
                tp_btf("forget_tp", "tcp_destroy_sock"),
            ],
            less_exact: None,
        },
    ],
};

/// An event, and from which of its arrivals the row counts.
pub struct Row {
    event: Of<Event>,
    first: bool,
}

impl Row {
    /// Counts from the first arrival, or from the last.
    pub fn new(event: (Event, SocketFacts), first: bool) -> Self {
        Self { event: Of::new(event), first }
    }

    /// Whole microseconds, as libbpf-tools.
    fn us_since(&self, arrival_ns: u64) -> u64 {
        self.ts_ns.saturating_sub(arrival_ns) / 1000
    }

    fn latency_us(&self) -> u64 {
        self.us_since(if self.first { self.first_ns } else { self.last_ns })
    }
}

impl Deref for Row {
    type Target = Of<Event>;
    fn deref(&self) -> &Of<Event> {
        &self.event
    }
}

/// The columns of libbpf-tools.
pub fn table(args: &Options) -> Table<Row> {
    let format = args.json.format();
    let addr = if args.wide { 26 } else { 15 };
    Table::new(format)
        .col_if(args.timestamp, wall(8).title("TIME(s)").about(About::text("With -T: the local time of day.")))
        .col(left("PID", 7, |r: &Row| r.pid.into()).about(conn::pid("The process that reads.")))
        .col(left("TID", 7, |r: &Row| r.tid.into()).about(About::count("The thread that reads.").otel("thread.id")))
        .col(left("COMM", 16, |r: &Row| (&r.comm).into()).cut().about(conn::COMM))
        .col(data("ip", |r: &Row| Cell::Unsigned(conn::version(r.tuple.family))).about(conn::IP))
        .col(left("LADDR", addr, |r: &Row| conn::laddr(&r.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |r: &Row| r.tuple.lport.into()).about(conn::LPORT))
        .col(left("RADDR", addr, |r: &Row| conn::raddr(&r.tuple).into()).about(conn::RADDR))
        .col(left("RPORT", 5, |r: &Row| r.tuple.rport.into()).about(conn::RPORT))
        .col(data("latency_us", |r: &Row| r.latency_us().into()).about(About::count(
            "How long the data lay in the socket, in microseconds: first_us with --first, else last_us.",
        )))
        .col(
            left("MS", 0, |r: &Row| Cell::Float(r.latency_us() as f64 / 1000.0))
                .precision(2)
                .except(Format::Json)
                .about(About::new(
                    Kind::Number,
                    "How long the data lay in the socket, in milliseconds: since the last segment with data, with --first since the \
                     first one whose data nobody had looked at.",
                )),
        )
        .col(
            data("first_us", |r: &Row| {
                if r.first_ns == 0 { Cell::Empty } else { r.us_since(r.first_ns).into() }
            })
            .needs(details::FIRST)
            .about(
                About::count(
                    "Since the first segment whose data nobody had looked at and before which nothing was missing, in \
                     microseconds. Null where no segment brought new data.",
                )
                .or_null(),
            ),
        )
        .col(
            data("last_us", |r: &Row| r.us_since(r.last_ns).into())
                .about(About::count("Since the last segment with data, in microseconds.")),
        )
        .col(
            data("unread", |r: &Row| r.unread.into()).needs(details::UNREAD).about(About::count(
                "Bytes that were left to read once the reader had taken, or looked at, the first segment; it may have gone on.",
            )),
        )
        .col(data("netns", |r: &Row| r.netns.into()).needs(details::NETNS).about(conn::NETNS))
        .process(|r| Process::now(r.pid).named(&r.comm))
        .socket(false, &[SocketFact::Cookie], |r| &r.facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_whole_microseconds_from_one_on() {
        for (text, us) in [("1", 1), ("1000", 1000), ("18446744073709551615", u64::MAX)] {
            assert_eq!(min_us(text).map(NonZeroU64::get), Ok(us), "{text}");
        }
        for text in ["", "0", "-5", "1000x", "1.5", "1e3", " 1", "18446744073709551616"] {
            min_us(text).unwrap_err();
        }
    }

    #[test]
    fn numbers_of_threads_and_ports_are_whole_and_not_0() {
        assert_eq!(tid("2147483647").map(NonZeroU32::get), Ok(2_147_483_647));
        for text in ["", "0", "-1", "12x", "2147483648"] {
            tid(text).unwrap_err();
        }
        ports("80,8000-8099,!8080").unwrap();
        for text in ["0", "80,0", "abc", "65616", "-1"] {
            ports(text).unwrap_err();
        }
    }
}
