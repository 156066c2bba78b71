//! tcptracer: one row per TCP connection that is opened (C), accepted (A) or closed (X), and who did it.
//!
//! Events: `probes-ebpf/src/bin/tcptracer.rs`. C comes when the handshake is complete and names who called connect();
//! A when accept() takes the connection; X when the last descriptor is closed: shutdown() alone is no row. What was
//! never established has no C and no X; connections older than the tool have an X only. Closing MPTCP's sockets is no
//! row, as in BCC. A further subflow of MPTCP is a C of who connected or accepted the MPTCP socket: a thread of the
//! kernel connects it, or whoever gives MPTCP a new address.
//!
//! BCC: it shows no C for a connection to a v4-mapped address, and after 10,240 of those none for IPv4 at all; it
//! shows an X for a refused non-blocking connect; it misses the A of threads that were waiting in accept() at the start.
//!
//! A connection over loopback, both ends in one process, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcptracer
//! Tracing TCP established connections. Ctrl-C to end.
//! T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT
//! C  4049   python3          4  127.0.0.1        127.0.0.1        51304  37243
//! A  4049   python3          4  127.0.0.1        127.0.0.1        37243  51304
//! X  4049   python3          4  127.0.0.1        127.0.0.1        51304  37243
//! X  4049   python3          4  127.0.0.1        127.0.0.1        37243  51304
//! ```

use anyhow::Result;
use clap::Args;
use netbcc_common::kernel::Func;
use netbcc_common::tcptracer::{ACCEPT, CLOSE, CONNECT, Config, Event};
use nix::libc;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::select::{Namespace, namespace};
use crate::options::{Containers, Family, Json, PidOrAll, Timestamp, Uid};
use crate::out::{
    About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, data, left, nanos, seconds,
};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcptracer;

/// Its options.
#[derive(Args, Debug)]
// The letters are those of libbpf-tools.
#[command(mut_arg("cgroupmap", |arg| arg.short('C')), mut_arg("mntnsmap", |arg| arg.short('M')))]
pub struct Options {
    #[command(flatten)]
    seconds: Timestamp,
    #[command(flatten)]
    pid: PidOrAll,
    /// This network namespace only: its name, a process, a path or its inode number; 0 means all
    #[arg(short = 'N', long, value_name = "NETNS", value_parser = namespace, help_heading = "Filters")]
    netns: Option<Namespace>,
    #[command(flatten)]
    uid: Uid,
    #[command(flatten)]
    containers: Containers,
    #[command(flatten)]
    family: Family,
    /// Add the user id
    #[arg(short = 'U', long, help_heading = "Output")]
    print_uid: bool,
    /// Whole words for types, the network namespace (unless -N), and -t in nanoseconds
    #[arg(short = 'v', long, help_heading = "Output")]
    verbose: bool,
    #[command(flatten)]
    json: Json,
}

impl Tool for Tcptracer {
    const SPEC: Spec = Spec {
        name: "tcptracer",
        about: "Trace TCP connections that are opened, accepted and closed",
        description: &[
            "Prints a row for each TCP connection that is opened (C), accepted (A) or closed (X), and who did it. C \
             comes when the handshake is complete and names who called connect(); A when accept() takes the \
             connection; X when the last descriptor of the socket is closed. shutdown() alone is no row.",
            "What was never established has no C and no X. Connections that were open before the start have an X \
             only. Closing sockets of MPTCP is no row. A further subflow of MPTCP is a C of who connected or accepted \
             the MPTCP socket; where that was before the start, it has PID 0 and COMM '-'. Where the kernel's lockdown \
             is 'confidentiality', it is of the kernel's thread.",
        ],
        examples: &[
            ("tcptracer", "all established connections, accepts and closes"),
            ("tcptracer -t", "with seconds since the first row"),
            ("tcptracer -v", "whole words, and the network namespace"),
            ("tcptracer -p 181", "process 181 only"),
            ("tcptracer -N 4026531840", "this network namespace only"),
            ("tcptracer -U", "with the user id"),
            ("tcptracer -u 1000", "user 1000 only"),
            ("tcptracer --cgroupmap /sys/fs/bpf/m", "only cgroups in this map"),
            ("tcptracer --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per accepted and per closed connection and at each change of a TCP socket's \
                   state, none per packet. Where the kernel has neither fentry nor kprobes, also one of a few \
                   instructions at the end of each system call.",
        differences: &[
            "Connections to v4-mapped addresses have their C; refused ones have no X, blocking or not.",
            "Threads that were waiting in accept() before the start are seen.",
            "Rows are in the order of the kernel's clock, and leave at once through a pipe.",
            "-U, -u, -C and -M are libbpf-tools'.",
            "A map path that does not exist is an error, not a new empty map.",
        ],
        refuses: &[],
        object: object!("tcptracer"),
        ladders: &[CONNECTIONS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        let table = table(&args);
        cx.out.set_format(args.json.format());
        let number = libc::c_long::cast_unsigned;
        let config = Config {
            accepts: [libc::SYS_accept, libc::SYS_accept4].map(number),
            shutdown: number(libc::SYS_shutdown),
        };
        let mut probe = Plan::new(cx)
            .socket_facts(table.asks_of_sockets(&cx.out))
            .ladder(&CONNECTIONS)
            .family(args.family)
            .containers(&args.containers)?
            .global("CONFIG", &config)
            .attach(cx)?;
        cx.out.line("Tracing TCP established connections. Ctrl-C to end.");
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for row in batch.events_with_facts::<Event>().map(Row::new) {
                cx.out.row(&table, row.ts_ns, &row);
            }
            Ok(None)
        })
    }
}

const CONNECTIONS: Ladder = Ladder {
    name: "connections",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("graft_fentry", "security_sock_graft").twice(),
                fentry("close_fentry", "tcp_close").twice(),
                tp_btf("open_tp", "inet_sock_set_state").twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("graft_kprobe", "security_sock_graft"),
                kprobe("close_kprobe", "tcp_close"),
                kprobe("open_kprobe", "tcp_set_state"),
                tp_btf("forget_tp", "tcp_destroy_sock"),
                kprobe("mptcp_kprobe", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("state_tp", "inet_sock_set_state").twice(),
                tp_btf("destroy_tp", "tcp_destroy_sock").twice(),
                tp_btf("exit_tp", "sys_exit"),
            ],
            less_exact: Some(
                LessExact::new("accepts by io_uring, 32-bit programs and the kernel itself have no A").detail(
                    "Nor has a connection whose descriptor another thread closes before accept() returns. A shutdown() \
                     by io_uring, by a 32-bit program or by the kernel itself is an X at once. The X of a connection \
                     that was shut down before it was closed names who shut it down. A connection that was reset before \
                     it was accepted has no X.",
                ),
            ),
        },
    ],
};

/// BCC's letter for what happened.
fn letter(kind: u32) -> &'static str {
    match kind {
        CONNECT => "C",
        ACCEPT => "A",
        CLOSE => "X",
        _ => "U",
    }
}

/// BCC's word for it.
fn word(kind: u32) -> &'static str {
    match kind {
        CONNECT => "connect",
        ACCEPT => "accept",
        CLOSE => "close",
        _ => "unknown",
    }
}

const UID: About = conn::uid("The user who did it. In text with -U.");

/// What is printed of an event.
pub type Row = Of<Event>;

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let long = args.verbose;
    let dport = left("DPORT", 6, |e: &Row| e.tuple.rport.into()).about(conn::RPORT);
    Table::new(args.json.format())
        .col_if(args.seconds.timestamp && !args.verbose, seconds(9, 3).gap(""))
        .col_if(args.seconds.timestamp && args.verbose, nanos(14).gap(""))
        .col_if(
            args.print_uid,
            left("UID", 6, |e: &Row| e.who.uid.into()).gap("").except(Format::Json).about(UID),
        )
        .col_if(
            !long,
            left("T", 2, |e: &Row| letter(e.kind).into()).except(Format::Json).about(About::text(
                "C: the connection was opened by this host. A: it was accepted. X: it was closed.",
            )),
        )
        .col_if(
            long,
            left("TYPE", 12, |e: &Row| word(e.kind).into()).always(Format::Json).about(About::new(
                Kind::Word(&["connect", "accept", "close", "unknown"]),
                "With -v, in the place of T: the same as a word.",
            )),
        )
        .col(left("PID", 6, |e: &Row| e.who.pid.into()).about(conn::pid("The process that did it.")))
        .col(data("uid", |e: &Row| e.who.uid.into()).about(UID))
        .col(left("COMM", 16, |e: &Row| (&e.who.comm).into()).about(conn::COMM))
        .col(left("IP", 2, |e: &Row| Cell::Unsigned(conn::version(e.tuple.family))).about(conn::IP))
        .col(left("SADDR", 16, |e: &Row| Cell::Bracketed(conn::laddr(&e.tuple))).about(conn::LADDR))
        .col(left("DADDR", 16, |e: &Row| Cell::Bracketed(conn::raddr(&e.tuple))).about(conn::RADDR))
        .col(left("SPORT", 6, |e: &Row| e.tuple.lport.into()).about(conn::LPORT))
        // BCC's long header is a blank wider than its rows.
        .col(if args.verbose { dport.header_width(7).header_gap("") } else { dport })
        .col_if(
            args.verbose && args.netns.as_ref().is_none_or(|netns| *netns == Namespace::All),
            left("NETNS", 8, |e: &Row| e.netns.into()).always(Format::Json).about(conn::NETNS),
        )
        .process(|e| Process::now(e.who.pid).named(&e.who.comm))
        .socket(false, &[SocketFact::Cookie], |e| &e.facts)
}
