//! tcpretrans: one row per packet that this host's TCP sends again, or a count of them per flow. A packet has more than one
//! segment where the interface takes it apart (GSO); JSON and `-c` count these, too.
//!
//! Events: `probes-ebpf/src/bin/tcpretrans.rs`, from the tracepoint `tcp:tcp_retransmit_skb`, or from the function of
//! that name. Tail loss probes (`-l`): from `tcp_send_loss_probe`, or from the timer that calls it. SYN-ACKs (`--synack`): from
//! `tcp:tcp_retransmit_synack`, or from `tcp_rtx_synack`. PID is the process that was interrupted, not the socket's owner:
//! retransmissions happen in timers and on arriving packets.
//!
//! Not rows: SYN-ACKs without `--synack` (the socket does not exist yet), window probes, keepalives, and attempts that failed on
//! this host, which newer kernels (6.17) report at the same tracepoint and BCC prints as if they had been sent; `--failed`
//! shows them. A probe that sends its last segment again is two rows, L and R; one with new data is L only.
//!
//! On a kernel without kprobes and fentry, with the packets of a connection dropped after its first exchange:
//!
//! ```text
//! # tcpretrans -ls
//! Tracing retransmits ... Hit Ctrl-C to end
//! TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE        SEQ
//! 05:02:11 0       4  10.74.50.1:40522     L> 10.74.50.2:80        ESTABLISHED  0
//! 05:02:11 0       4  10.74.50.1:40522     R> 10.74.50.2:80        ESTABLISHED  3196871937
//! 05:02:11 0       4  10.74.50.1:40522     R> 10.74.50.2:80        ESTABLISHED  3196871937
//! ```

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use netbcc_common::addr::Tuple;
use netbcc_common::kernel::Func;
use netbcc_common::tcpretrans::{Config, Event, LOSS_PROBE, RETRANSMIT, SYN_ACK};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use zerocopy::FromBytes as _;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Rung, RungName, fentry, fexit, kprobe, tp_btf};
use crate::options::{Family, Json, Owner, Verbose};
use crate::out::{
    About, Cell, Format, Kind, Process, Rows, SocketFact, Table, Whose, data, left, right, wall,
};
use crate::owner::OWNERS;
use crate::probe::{Batch, Plan, Probe};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpretrans;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// Add the sequence number; without effect with -c
    #[arg(short, long, help_heading = "Output")]
    sequence: bool,
    /// Also tail loss probes, as type L
    #[arg(short, long, help_heading = "Output")]
    lossprobe: bool,
    /// Also SYN-ACKs, as type S: a client does not complete its handshake
    #[arg(long, help_heading = "Output")]
    synack: bool,
    /// Count per flow, and print the table at the end
    #[arg(short, long, help_heading = "Output")]
    count: bool,
    /// Also attempts that failed on this host, as type F, with the error
    #[arg(long, conflicts_with = "count", help_heading = "Output")]
    failed: bool,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Tcpretrans {
    const SPEC: Spec = Spec {
        name: "tcpretrans",
        about: "Trace TCP retransmits",
        description: &[
            "Prints a row for each packet that TCP on this host sends again, which may have many segments (GSO); --json \
             says how many. -l adds tail loss probes: segments that \
             TCP sends, before its retransmission timer expires, to learn whether the last ones were lost. -c counts \
             per flow instead, and prints the table at the end: RETRANSMITS has the packets, as BCC does, and SEGMENTS \
             their segments, as ss -i counts them for a connection.",
            "--synack adds SYN-ACKs that are sent again, because the client did not answer the first one, or asked \
             once more. Their connections have no socket yet, only a request; the state is SYN_RECV.",
            "Window probes and keepalives are no rows. A probe that sends its last segment again is two rows, L and R.",
        ],
        examples: &[
            ("tcpretrans", "all retransmits"),
            ("tcpretrans -l", "tail loss probes (TLP), too"),
            ("tcpretrans --synack", "SYN-ACKs, too: what do clients not get, or not answer?"),
            ("tcpretrans -s", "with the sequence number"),
            ("tcpretrans -c", "count per flow until Ctrl-C"),
            ("tcpretrans --owner -o +container", "whose connections, and in which container"),
            ("tcpretrans -4", "IPv4 sockets only"),
            ("tcpretrans --failed", "attempts that this host refused, too"),
            ("tcpretrans --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per packet that is sent again, and none otherwise. -l adds one per loss probe; \
                   where the kernel has neither fentry nor kprobes, one of a few instructions per expired timer. \
                   --synack adds one per SYN-ACK that is sent again. --owner adds a program at each change of a TCP socket's state and at each accept, or \
                   read where accept() cannot be traced: some two microseconds per connection, both ends together. At the start \
                   it looks at all open files: 10 to 30 ms for 10,000 of them.",
        differences: &[
            "Attempts that failed on this host are not rows, on any kernel; --failed shows them.",
            "SYN-ACKs that are sent again are rows with --synack only.",
            "-l needs no kprobes.",
            "SIGTERM prints the table of -c, too.",
            "-c has one more column, SEGMENTS.",
        ],
        refuses: &[],
        object: object!("tcpretrans"),
        ladders: &[RETRANSMITS, ATTEMPTS, PROBES, SYN_ACKS, SYN_ACK_ATTEMPTS, OWNERS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Segments", table(args)).used_if(!args.count),
            Rows::new("Flows, with -c", count_table(args)).used_if(args.count),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let config = Config { count: args.count.into(), failed: args.failed.into() };
        let shown = if args.count { 0 } else { table(&args).asks_of_sockets(&cx.out) };
        let mut plan = Plan::new(cx)
            .socket_facts(args.owner.asks(shown))
            .groups_of_sockets()
            .ladder(if args.failed { &ATTEMPTS } else { &RETRANSMITS })
            .family(args.family)
            .global("CONFIG", &config);
        if args.lossprobe {
            // What sees a timer does not know sockets by their types.
            plan = plan.ladder(&PROBES).sockets_by_address();
        }
        if args.synack {
            plan = plan.ladder(if args.failed { &SYN_ACK_ATTEMPTS } else { &SYN_ACKS });
        }
        let probe = plan.attach(cx)?;
        if probe.rung(PROBES.name) == Some(RungName::Tracepoint) {
            // The kernel side takes the address of TCP's timer function from the next TCP socket that ends.
            let family = if args.family.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            drop(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
        }
        cx.out.line("Tracing retransmits ... Hit Ctrl-C to end");
        if args.count { count(&args, cx, probe) } else { rows(&args, cx, probe) }
    }
}

/// What `tcp_retransmit_skb` is not called for. The function below it, `__tcp_retransmit_skb`, is, but compilers may
/// make it a part of its callers, and Debian's 6.1 is such a case.
const NOT_BY_PROBES: LessExact = LessExact::new("a segment that a loss probe sends again is not seen");

const RETRANSMITS: Ladder = Ladder {
    name: "retransmits",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("again2_tp", "tcp_retransmit_skb").arity(Func::TcpRetransmitSkb, 2).twice(),
                tp_btf("again3_tp", "tcp_retransmit_skb").arity(Func::TcpRetransmitSkb, 3).twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[fexit("again_fexit", "tcp_retransmit_skb")
                .arity(Func::TcpRetransmitSkbFunction, 3)
                .twice()],
            less_exact: Some(NOT_BY_PROBES),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("again_kprobe", "tcp_retransmit_skb")],
            less_exact: Some(
                LessExact::new("attempts that fail on this host are rows, and loss probes' segments are not")
                    .detail("A loss probe that sends a segment again is seen with -l only."),
            ),
        },
    ],
};

const ATTEMPTS: Ladder = Ladder {
    name: "retransmits and failed attempts",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("again3_tp", "tcp_retransmit_skb").arity(Func::TcpRetransmitSkb, 3).twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[fexit("again_fexit", "tcp_retransmit_skb")
                .arity(Func::TcpRetransmitSkbFunction, 3)
                .twice()],
            less_exact: Some(NOT_BY_PROBES),
        },
    ],
};

const PROBES: Ladder = Ladder {
    name: "loss probes",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[fentry("probe_fentry", "tcp_send_loss_probe").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("probe_kprobe", "tcp_send_loss_probe")],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("timer_tp", "timer_expire_entry"), tp_btf("learn_tp", "tcp_destroy_sock")],
            less_exact: Some(
                LessExact::new("a probe of a socket in use is a row when its timer fires")
                    .detail("The kernel sends it later, when the process no longer uses the socket."),
            ),
        },
    ],
};

const SYN_ACKS: Ladder = Ladder {
    name: "SYN-ACKs",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("synack_tp", "tcp_retransmit_synack").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[fexit("synack_fexit", "tcp_rtx_synack").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("synack_kprobe", "tcp_rtx_synack")],
            less_exact: Some(LessExact::new("a SYN-ACK that this host then refuses to send is a row, too")),
        },
    ],
};

/// The tracepoint is passed where it worked, on every kernel.
const SYN_ACK_ATTEMPTS: Ladder = Ladder {
    name: "SYN-ACKs and failed attempts",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[fexit("synack_fexit", "tcp_rtx_synack").twice()],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("synack_tp", "tcp_retransmit_synack").twice()],
            less_exact: Some(LessExact::new("a SYN-ACK that this host refuses to send is not seen")),
        },
    ],
};

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let state = |r: &Row| conn::state(r.event.state);
    let table = Table::new(args.json.format())
        .col(wall(8))
        .col(left("PID", 7, |r: &Row| r.event.pid.into()).about(conn::pid(
            "The process that was interrupted; not the socket's owner, because timers and arriving packets send again. With \
             --owner it is the owner, and 0 where nobody knows.",
        )))
        .col(left("IP", 2, |r: &Row| Cell::Unsigned(conn::version(r.event.tuple.family))).about(conn::IP))
        .col(data("laddr", |r: &Row| conn::laddr(&r.event.tuple).into()).about(conn::LADDR))
        .col(data("lport", |r: &Row| r.event.tuple.lport.into()).about(conn::LPORT))
        .col(
            left("LADDR:LPORT", 20, |r: &Row| {
                Cell::Endpoint(conn::laddr(&r.event.tuple), r.event.tuple.lport)
            })
            .except(Format::Json)
            .about(conn::LOCAL),
        )
        .col(left("T", 1, |r: &Row| kind(r.event.kind).into()).gap("> ").key("type").about(About::new(
            Kind::Word(&["R", "L", "S", "F"]),
            "R: a segment was sent again. L: a tail loss probe (-l). S: a SYN-ACK was sent again (--synack). F: an \
             attempt that failed on this host (--failed).",
        )))
        .col(data("raddr", |r: &Row| conn::raddr(&r.event.tuple).into()).about(conn::RADDR))
        .col(data("rport", |r: &Row| r.event.tuple.rport.into()).about(conn::RPORT))
        .col(
            left("RADDR:RPORT", 20, |r: &Row| {
                Cell::Endpoint(conn::raddr(&r.event.tuple), r.event.tuple.rport)
            })
            .except(Format::Json)
            .about(conn::REMOTE),
        );
    let width = if args.sequence || args.failed { 12 } else { 0 };
    let sequence = left("SEQ", if args.failed { 10 } else { 0 }, |r: &Row| r.event.seq.into())
        .key("seq_or_0")
        .header_width(10)
        .except(Format::Json)
        .about(About::count("With -s: the first segment's sequence number; 0 for a probe."));
    let about_error =
        About::text("With --failed: why the attempt failed, by the name of its errno.").or_null();
    table
        .col(left("STATE", width, state).about(conn::state_about("The socket's state.")))
        .col_if(args.sequence, sequence)
        .col(
            data("seq", |r: &Row| known(r, r.event.seq))
                .about(About::count("The first segment's sequence number; null for a probe.").or_null()),
        )
        .col(data("segments", |r: &Row| known(r, r.event.segments)).about(
            About::count("How many segments were sent again in this packet; null for a probe.").or_null(),
        ))
        .col_if(
            args.failed,
            left("ERROR", 0, |r: &Row| error(r, "-".into()))
                .except(Format::Json)
                .about(about_error)
                .known_if(args.failed, "add --failed"),
        )
        .col_if(
            args.failed,
            data("error", |r: &Row| error(r, Cell::Empty))
                .about(about_error)
                .known_if(args.failed, "add --failed"),
        )
        .process(|r| r.whose.process(Process::now(r.event.pid), r.event.ts_ns))
        .socket(args.owner.owner, &SocketFact::OF_OWNERS, |r| &r.whose.facts)
        .socket(false, &SocketFact::PLAIN, |r| &r.whose.facts)
}

/// A number of the packet. A probe may carry any, and what it sends again has a row of its own.
fn known(row: &Row, number: u32) -> Cell<'_> {
    if row.event.kind == LOSS_PROBE { Cell::Empty } else { number.into() }
}

/// The error of an attempt that failed; `none` where it did not.
fn error<'r>(row: &'r Row, none: Cell<'r>) -> Cell<'r> {
    if row.error.0 == 0 { none } else { Cell::Shown(&row.error) }
}

/// T.
fn kind(kind: u32) -> &'static str {
    match kind {
        RETRANSMIT => "R",
        LOSS_PROBE => "L",
        SYN_ACK => "S",
        _ => "F",
    }
}

/// An event with what user space makes of it.
pub struct Row {
    /// As the kernel sent it.
    pub event: Event,
    error: conn::ErrorName,
    whose: Whose,
}

impl Row {
    fn new(event: Event, whose: Whose) -> Self {
        let event = Event { pid: whose.pid(event.pid), ..event };
        Self { event, error: conn::ErrorName(event.error), whose }
    }
}

/// A row of which nothing beside the usual is asked.
impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Self::new(event, Whose::default())
    }
}

fn rows(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    let table = table(args);
    cx.out.header(&table);
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for (event, facts) in batch.events_with_facts::<Event>() {
            let whose = Whose::new(facts, args.owner.owner);
            cx.out.row(&table, event.ts_ns, &Row::new(event, whose));
        }
        Ok(None)
    })
}

/// A flow and its retransmissions.
pub struct Count {
    /// Both ends.
    pub flow: Tuple,
    /// How many; loss probes add to it with `-l`, as in BCC, and SYN-ACKs with `--synack`.
    pub retransmits: u64,
    /// How many segments they had.
    pub segments: u64,
}

/// The columns of `-c`.
pub fn count_table(args: &Options) -> Table<Count> {
    let ends =
        |header, cell, about| left(header, 20, cell).header_width(25).except(Format::Json).about(about);
    Table::new(args.json.format())
        .col(data("laddr", |c: &Count| conn::laddr(&c.flow).into()).about(conn::LADDR))
        .col(data("lport", |c: &Count| c.flow.lport.into()).about(conn::LPORT))
        .col(
            ends("LADDR:LPORT", |c: &Count| Cell::FlowEnd(conn::laddr(&c.flow), c.flow.lport), conn::LOCAL)
                .gap(" <-> ")
                .header_gap(" "),
        )
        .col(data("raddr", |c: &Count| conn::raddr(&c.flow).into()).about(conn::RADDR))
        .col(data("rport", |c: &Count| c.flow.rport.into()).about(conn::RPORT))
        .col(ends("RADDR:RPORT", |c: &Count| Cell::FlowEnd(conn::raddr(&c.flow), c.flow.rport), conn::REMOTE))
        .col(right("RETRANSMITS", 10, |c: &Count| c.retransmits.into()).about(About::count(
            "How many packets were sent again, with --synack SYN-ACKs, too, and with -l how many loss probes were sent.",
        )))
        .col(right("SEGMENTS", 8, |c: &Count| c.segments.into()).about(About::count(
            "How many segments were sent again: a packet has many where the interface takes it apart.",
        )))
}

fn count(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    probe.stream(cx, |_: &mut Ctx, _: &Batch| Ok(None))?;
    let flows = probe.counts::<{ size_of::<Tuple>() }>("FLOWS")?.into_iter();
    let segments: HashMap<_, _> = probe.counts::<{ size_of::<Tuple>() }>("SEGMENTS")?.into_iter().collect();
    let mut counts: Vec<Count> = flows
        .filter_map(|(key, retransmits)| {
            let segments = segments.get(&key).copied().unwrap_or_default();
            Some(Count { flow: Tuple::read_from_bytes(&key).ok()?, retransmits, segments })
        })
        .collect();
    // BCC leaves ties to chance; here addresses decide.
    counts.sort_by_key(|Count { flow, retransmits, .. }| {
        (flow.family, *retransmits, conn::laddr(flow), flow.lport, conn::raddr(flow), flow.rport)
    });
    let table = count_table(args);
    cx.out.line("");
    cx.out.header(&table);
    let now_ns = cx.out.clock().monotonic_ns();
    for count in &counts {
        cx.out.row(&table, now_ns, count);
    }
    Ok(())
}
