//! solisten: one row per call that makes a TCP socket listen, or tries to: who, with what backlog, where.
//!
//! Events: `probes-ebpf/src/bin/solisten.rs`, from `inet_listen` and `__inet_listen_sk`, or from
//! `sock:inet_sock_set_state` and the system call's entry. The backlog is the one that the kernel took: never above
//! net.core.somaxconn. A socket that was not bound shows port 0, because the kernel chooses one only afterwards.
//!
//! BCC: it does not see MPTCP listeners since Linux 6.6.
//!
//! A socket that is made to listen, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc solisten
//! PID     COMM         PROTO  BACKLOG  PORT  ADDR
//! 31536   python3      TCPv4  9        37671 127.0.0.1
//! ```

use anyhow::Result;
use clap::Args;
use netbcc_common::addr::{AF_INET, AF_INET6};
use netbcc_common::solisten::{Config, Event};
use nix::libc::SYS_listen;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Rung, RungName, fentry, fexit, kprobe, kretprobe, tp_btf};
use crate::options::select::{Namespace, namespace};
use crate::options::{Json, PidOrAll, Verbose, select};
use crate::out::{About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, left, wall};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Solisten;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// Add the network namespace (inode number)
    #[arg(long, help_heading = "Output")]
    show_netns: bool,
    #[command(flatten)]
    pid: PidOrAll,
    /// This network namespace only: its name, a process, a path or its inode number; 0 means all
    #[arg(short = 'n', long, value_name = "NETNS", value_parser = namespace, help_heading = "Filters")]
    netns: Option<Namespace>,
    /// Add the time of day (HH:MM:SS)
    #[arg(short = 't', long, help_heading = "Output")]
    timestamp: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Solisten {
    const SPEC: Spec = Spec {
        name: "solisten",
        about: "Trace TCP sockets that are made to listen (listen())",
        description: &[
            "Prints a row for each call that makes a TCP socket listen, or tries to: who called, with what backlog, \
             and on which address and port. MPTCP's sockets are TCP sockets here.",
        ],
        examples: &[
            ("solisten", "all listen() calls on TCP sockets"),
            ("solisten -t", "with the time of day (HH:MM:SS)"),
            ("solisten --show-netns", "with the network namespace"),
            ("solisten -p 181", "process 181 only"),
            ("solisten --netns 4026531840", "this network namespace only"),
            ("solisten --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per listen(), none per connection or packet. Where the kernel has neither \
                   fentry nor kprobes, also one of a few instructions at each system call and at each change of a \
                   TCP socket's state.",
        differences: &[
            "MPTCP listeners are shown.",
            "-t is libbpf-tools', whose title TIME(s) stands above a time of day.",
        ],
        refuses: &[(&[select::RADDR, select::RPORT], "a socket that listens has no other end")],
        object: object!("solisten"),
        ladders: &[LISTENS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        let table = table(&args);
        cx.out.set_format(args.json.format());
        let mut probe = Plan::new(cx)
            .socket_facts(table.asks_of_sockets(&cx.out))
            .ladder(&LISTENS)
            .global("CONFIG", &Config { listen: SYS_listen.cast_unsigned() })
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

const LISTENS: Ladder = Ladder {
    name: "listens",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("inner_fentry", "__inet_listen_sk").twice(),
                fentry("enter_fentry", "inet_listen").twice(),
                fexit("leave_fexit", "inet_listen").twice(),
            ],
            less_exact: None,
        },
        // Before 6.6, MPTCP calls inet_listen like everybody else.
        Rung { name: RungName::Fexit, programs: &[fentry("listen_fentry", "inet_listen").twice()], less_exact: None },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("inner_kprobe", "__inet_listen_sk"),
                kprobe("enter_kprobe", "inet_listen"),
                kretprobe("leave_kretprobe", "inet_listen"),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("listen_kprobe", "inet_listen")],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("state_tp", "inet_sock_set_state").twice(), tp_btf("again_tp", "sys_enter")],
            less_exact: Some(
                LessExact::new("some calls of listen() on a socket that already listens are not seen").detail(
                    "These are the calls of io_uring, of 32-bit programs and of the kernel itself, on sockets that \
                     listen or are connected. A call on such a socket that a security module forbids is a row all \
                     the same.",
                ),
            ),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("state_tp", "inet_sock_set_state").twice()],
            less_exact: Some(LessExact::new(
                "listen() on a socket that already listens or is connected is not seen",
            )),
        },
    ],
};

const PORT: About = About::new(
    Kind::Port,
    "The local port; 0 where the socket was not bound, because the kernel chooses one only afterwards.",
)
.otel("network.local.port");

const ADDR: About = About::new(Kind::Address, "The local address.").or_null().otel("network.local.address");

/// What is printed of an event.
pub type Row = Of<Event>;

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col_if(args.timestamp, wall(8).title("TIME(s)").about(About::text("With -t: the local time of day.")))
        .col(left("PID", 7, |e: &Row| e.pid.into()).about(conn::pid("The process that called listen().")))
        .col(left("COMM", 12, |e: &Row| (&e.comm).into()).cut().about(conn::COMM))
        .col_if(
            args.show_netns,
            left("NETNS", 12, |e: &Row| e.netns.into()).always(Format::Json).about(conn::NETNS),
        )
        .col(
            left("PROTO", 6, |e: &Row| proto(e.family).into()).about(About::new(
                Kind::Word(&["TCPv4", "TCPv6", "TCP"]),
                "The protocol, with the IP version; TCP alone is a socket of neither.",
            )),
        )
        .col(left("BACKLOG", 8, |e: &Row| e.backlog.into()).about(About::new(
            Kind::Integer,
            "How many connections may wait to be accepted, as the kernel took it: at most net.core.somaxconn.",
        )))
        .col(left("PORT", 5, |e: &Row| e.lport.into()).about(PORT))
        .col(left("ADDR", 39, |e: &Row| addr(e)).about(ADDR))
        .process(|e| Process::now(e.pid).named(&e.comm))
        .socket(false, &[SocketFact::Cookie], |e| &e.facts)
}

/// The protocol, with its family.
fn proto(family: u16) -> &'static str {
    match family {
        AF_INET => "TCPv4",
        AF_INET6 => "TCPv6",
        _ => "TCP",
    }
}

/// The local address, where it has a form.
fn addr(event: &Event) -> Cell<'_> {
    match event.family {
        AF_INET | AF_INET6 => conn::ip(event.family, &event.laddr).into(),
        _ => Cell::Empty,
    }
}
