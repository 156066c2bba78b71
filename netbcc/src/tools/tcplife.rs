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

use std::num::NonZeroU32;

use anyhow::Result;
use clap::Args;
use netbcc_common::kernel::Func;
use netbcc_common::tcplife::Event;

use super::{conn, object};
use crate::cli::{Family, FlowPorts, Json, Pid, Timestamp, Verbose, WallClock, WideCsv};
use crate::out::{About, Cell, Format, Kind, Process, Rows, Table, data, left, right, seconds, wall};
use crate::probe::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::probe::{Batch, Plan};
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
            "Connections that were established before the start have no row.",
        ],
        examples: &[
            ("tcplife", "all TCP sockets that close"),
            ("tcplife -T", "with the time of day (HH:MM:SS)"),
            ("tcplife -wt", "wide columns, with seconds since the first row"),
            ("tcplife -stT", "comma-separated, with both times"),
            ("tcplife -p 181", "sockets of process 181 only"),
            ("tcplife -L 80,81", "local ports 80 and 81 only"),
            ("tcplife -D 443", "remote port 443 only"),
            ("tcplife --json", "JSON Lines"),
        ],
        overhead: "Runs a short program at each change of a TCP socket's state and at each accept: about ten per \
                   connection, none per packet. The cost grows with new connections per second.",
        differences: &[
            "The owner of a server's socket is the process that accepted or closed it, not the task on the CPU.",
            "-p and -L test the finished row.",
            "A subflow belongs to the process that owns the MPTCP socket, not to the kernel's thread or the program that \
             opens or closes it. Where nobody saw who that is, it has PID 0 and COMM '-'. Where the kernel's lockdown is \
             'confidentiality', a subflow is a socket like any other.",
            "The kernel may make two sockets for one connection, when its packets meet on two CPUs. The one that it closes \
             at once is no row.",
        ],
        refuses: &[],
        object: object!("tcplife"),
        ladders: &[SOCKETS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        let table = table(&args);
        let mut probe = Plan::new(cx)
            .ladder(&SOCKETS)
            .pid(args.pid.pid.map_or(0, NonZeroU32::get))
            .family(args.family)
            .lports(&args.ports.localport)
            .rports(&args.ports.remoteport)
            .attach(cx)?;
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for event in batch.events::<Event>() {
                cx.out.row(&table, event.ts_ns, &event);
            }
            Ok(None)
        })
    }
}

const SOCKETS: Ladder = Ladder {
    name: "sockets",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("graft_fentry", "security_sock_graft").twice(),
                tp_btf("state_tp", "inet_sock_set_state"),
                tp_btf("state_again_tp", "inet_sock_set_state"),
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
                     the row shows the task on the CPU.",
                ),
            ),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("state_kprobe", "tcp_set_state"),
                kprobe("graft_kprobe", "security_sock_graft"),
                kprobe("mptcp_kprobe", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere),
            ],
            less_exact: None,
        },
    ],
};

/// BCC's columns. The IP version is shown only where it is told apart from nothing else: `-w`, `-s` and JSON.
pub fn table(args: &Options) -> Table<Event> {
    let format = args.layout.format(args.json);
    let wide = args.layout.wide && format == Format::Text;
    let (comm, addr, kb) = if wide { (16, 39, 6) } else { (10, 15, 5) };
    Table::new(format)
        .col_if(args.clock.time, wall(8))
        .col_if(args.seconds.timestamp, seconds(9, 6))
        .col(
            left("PID", 5, |e: &Event| e.pid.into())
                .about(conn::pid("The process that owned the socket: that opened, accepted or closed it.")),
        )
        .col(left("COMM", comm, |e: &Event| (&e.comm).into()).cut().about(conn::COMM))
        .col_if(
            wide,
            left("IP", 2, |e: &Event| Cell::Unsigned(conn::version(e.tuple.family)))
                .always(Format::Csv)
                .always(Format::Json)
                .about(conn::IP),
        )
        .col(left("LADDR", addr, |e: &Event| conn::laddr(&e.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |e: &Event| e.tuple.lport.into()).about(conn::LPORT))
        .col(left("RADDR", addr, |e: &Event| conn::raddr(&e.tuple).into()).about(conn::RADDR))
        .col(left("RPORT", 5, |e: &Event| e.tuple.rport.into()).about(conn::RPORT))
        .col(
            right("TX_KB", kb, |e: &Event| (e.tx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that were sent and acknowledged.")),
        )
        .col(
            right("RX_KB", kb, |e: &Event| (e.rx_bytes / 1024).into())
                .except(Format::Json)
                .about(About::count("Whole KB that were received.")),
        )
        .col(
            data("tx_bytes", |e: &Event| e.tx_bytes.into())
                .about(About::count("Bytes that were sent and acknowledged; SYN and FIN count as one each.")),
        )
        .col(
            data("rx_bytes", |e: &Event| e.rx_bytes.into())
                .about(About::count("Bytes that were received; a FIN counts as one.")),
        )
        .col(data("span_us", |e: &Event| (e.span_ns / 1000).into()).about(About::count(
            "From when the connection was established, or else tried, to CLOSE, in microseconds.",
        )))
        // Whole microseconds first, as BCC: the digits must agree.
        .col(
            left("MS", 0, |e: &Event| Cell::Float((e.span_ns / 1000) as f64 / 1000.0))
                .precision(2)
                .except(Format::Json)
                .about(About::new(
                    Kind::Number,
                    "From when the connection was established, or else tried, to CLOSE, in milliseconds.",
                )),
        )
        .process(|e| Process::now(e.pid).named(&e.comm).noted_before(e.span_ns))
}
