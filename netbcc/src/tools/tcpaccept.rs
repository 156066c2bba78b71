//! tcpaccept: one row per TCP connection that is taken off an accept queue, with who took it.
//!
//! Events: `probes-ebpf/src/bin/tcpaccept.rs`, from `security_sock_graft`, or from the results of accept() and
//! accept4(). They come when accept() takes the connection, not when the handshake ends, and always in the context of
//! the task that accepts: PID is never somebody else's. Connections that nobody accepts are no rows.
//!
//! BCC: threads that wait in accept() use up its probe's slots, and it misses the connection for which a thread was
//! already waiting at the start. It shows port 0 for a connection that was reset before it was accepted, and drops it
//! under `-P`. Here both are rows with their ports.
//!
//! Two connections over loopback, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpaccept -t
//! TIME(s)  PID     COMM         IP RADDR            RPORT LADDR            LPORT
//! 0.000    25728   python3      4  127.0.0.1        58962 127.0.0.1        35921
//! 0.000    25728   python3      4  127.0.0.1        58972 127.0.0.1        35921
//! ```

use anyhow::Result;
use clap::Args;
use netbcc_common::tcpaccept::{Config, Event};
use nix::libc;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::{Containers, Family, Json, Pid, Ports, Timestamp, Verbose, WallClock, ports};
use crate::out::{Cell, Of, Process, Rows, SocketFact, Table, left, seconds, wall};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpaccept;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    clock: WallClock,
    #[command(flatten)]
    seconds: Timestamp,
    #[command(flatten)]
    pid: Pid,
    /// These local ports only, comma-separated
    #[arg(short = 'P', long, value_name = "PORTS", value_parser = ports, help_heading = "Filters")]
    port: Vec<Ports>,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    containers: Containers,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Tcpaccept {
    const SPEC: Spec = Spec {
        name: "tcpaccept",
        about: "Trace TCP accepts (accept())",
        description: &[
            "Prints a row for each TCP connection that a process takes off an accept queue. The row comes when \
             accept() takes the connection, not when its handshake ends; connections that nobody accepts are no rows. \
             What others opened to this host is here; what this host opens is in tcpconnect(8).",
        ],
        examples: &[
            ("tcpaccept", "all accepted connections"),
            ("tcpaccept -t", "with seconds since the first row"),
            ("tcpaccept -T", "with the time of day (HH:MM:SS)"),
            ("tcpaccept -P 80,81", "local ports 80 and 81 only"),
            ("tcpaccept -p 181", "process 181 only"),
            ("tcpaccept -4", "IPv4 sockets only"),
            ("tcpaccept --cgroupmap /sys/fs/bpf/m", "only cgroups in this map"),
            ("tcpaccept --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per accepted connection, none per packet. Where the kernel has neither fentry \
                   nor kprobes, one of a few instructions at the end of each system call.",
        differences: &[
            "Threads that were waiting in accept() before the start are seen, however many wait.",
            "A connection that was reset before accept() keeps its local port.",
            "Rows are in the order of the kernel's clock.",
            "A map path that does not exist is an error, not a new empty map.",
        ],
        refuses: &[],
        object: object!("tcpaccept"),
        ladders: &[ACCEPTS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        let table = table(&args);
        cx.out.set_format(args.json.format());
        let accepts = [libc::SYS_accept, libc::SYS_accept4].map(libc::c_long::cast_unsigned);
        let mut probe = Plan::new(cx)
            .socket_facts(table.asks_of_sockets(&cx.out))
            .ladder(&ACCEPTS)
            .family(args.family)
            .lports(&args.port)
            .containers(&args.containers)?
            .global("CONFIG", &Config { accepts })
            .attach(cx)?;
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for row in batch.events_with_facts::<Event>().map(Row::new) {
                cx.out.row(&table, row.ts_ns, &row);
            }
            Ok(None)
        })
    }
}

const ACCEPTS: Ladder = Ladder {
    name: "accepts",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[fentry("graft_fentry", "security_sock_graft").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("graft_kprobe", "security_sock_graft")],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("exit_tp", "sys_exit")],
            less_exact: Some(
                LessExact::new("accepts by io_uring, 32-bit programs and the kernel itself are not seen")
                    .detail("Nor is one whose descriptor another thread closes before accept() returns."),
            ),
        },
    ],
};

/// What is printed of an event.
pub type Row = Of<Event>;

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col_if(args.clock.time, wall(9).gap(""))
        .col_if(args.seconds.timestamp, seconds(9, 3).gap(""))
        .col(
            left("PID", 7, |e: &Row| e.pid.into())
                .about(conn::pid("The process that accepted the connection.")),
        )
        .col(left("COMM", 12, |e: &Row| (&e.comm).into()).cut().about(conn::COMM))
        .col(left("IP", 2, |e: &Row| Cell::Unsigned(conn::version(e.tuple.family))).about(conn::IP))
        .col(left("RADDR", 16, |e: &Row| conn::raddr(&e.tuple).into()).about(conn::RADDR))
        .col(left("RPORT", 5, |e: &Row| e.tuple.rport.into()).about(conn::RPORT))
        .col(left("LADDR", 16, |e: &Row| conn::laddr(&e.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |e: &Row| e.tuple.lport.into()).about(conn::LPORT))
        .process(|e| Process::now(e.pid).named(&e.comm))
        .socket(false, &SocketFact::PLAIN, |e| &e.facts)
}
