//! tcpconnlat: one row per active open that is answered, with the time from connect() to the SYN-ACK or RST.
//!
//! Events: `probes-ebpf/src/bin/tcpconnlat.rs`. PID and COMM are of the connect, whoever runs when the answer comes.
//! Timeouts, ICMP errors, connects without a route and sockets closed before an answer are no rows.
//!
//! BCC: it keeps an entry for every open that is not answered or too fast for its threshold, and falls silent after
//! 10,240 of them. Here nothing stays. To BCC any packet that comes first is the answer, as an ACK that belongs to an
//! older connection between the same ports, after which the SYN is sent again.
//!
//! Two connections over loopback, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpconnlat -L
//! PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)
//! 31536   python3      4  127.0.0.1        52546  127.0.0.1        37671 0.06
//! 31536   python3      4  127.0.0.1        52560  127.0.0.1        37671 0.01
//! ```

use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Args};
use netbcc_common::kernel::Func;
use netbcc_common::tcpconnlat::{Config, Event};

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::select::{PortList, port_list};
use crate::options::{Family, Json, Pid, Timestamp, Verbose};
use crate::out::{About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, data, left, seconds};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpconnlat;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    seconds: Timestamp,
    /// Add the local port; with =PORTS: and keep these only
    #[arg(
        short = 'L', long, value_name = "PORTS", value_parser = port_list, num_args = 0..=1, require_equals = true,
        default_missing_value = "", action = ArgAction::Append, help_heading = "Output"
    )]
    lport: Vec<PortList>,
    #[command(flatten)]
    pid: Pid,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    /// Show what took this long at least, in milliseconds
    #[arg(value_name = "DURATION_MS", value_parser = min_us, default_value = "0", hide_default_value = true)]
    min_us: u64,
}

/// Parses milliseconds, as BCC: whole microseconds count, and what is less shows everything.
fn min_us(text: &str) -> Result<u64, String> {
    let ms: f64 = text.trim().parse().map_err(|_| "must be a float".to_owned())?;
    if ms < 0.0 {
        return Err("must be positive".to_owned());
    }
    let span = Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| "must be a finite time".to_owned())?;
    u64::try_from(span.as_micros()).map_err(|_| "is longer than any clock runs".to_owned())
}

impl Tool for Tcpconnlat {
    const SPEC: Spec = Spec {
        name: "tcpconnlat",
        about: "Trace TCP active connection latency",
        description: &[
            "Prints a row for each TCP connection that a process on this host opens, when the answer comes: the other \
             side's SYN-ACK or RST. The time from connect() to that answer is a round trip and what the other kernel \
             needs; the other side's program has no part in it.",
            "Opens that time out, meet an ICMP error, have no route, or are closed before an answer are no rows.",
        ],
        examples: &[
            ("tcpconnlat", "all active opens that are answered"),
            ("tcpconnlat 1", "those that took 1 ms at least"),
            ("tcpconnlat 0.1", "those that took 0.1 ms at least"),
            ("tcpconnlat -t", "with seconds since the first row"),
            ("tcpconnlat -p 181", "process 181 only"),
            ("tcpconnlat -L", "with the local port"),
            ("tcpconnlat -4", "IPv4 sockets only"),
            ("tcpconnlat --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per connect, one per answer and one per RST that arrives; where the kernel has \
                   neither fentry nor kprobes, one per change of a TCP socket's state.",
        differences: &[
            "-v says on stderr which hooks are used; there is no C program to print.",
            "Opens that are never answered leave nothing behind.",
            "A packet that neither opens nor refuses the connection is no answer: the time goes on.",
            "A further subflow of MPTCP is of the process that connected the MPTCP socket, not of the kernel's thread or the \
             program that has it opened. Where nobody saw who that is (before the start; an MPTCP socket that was accepted), \
             it has PID 0 and COMM '-'. Where the kernel's lockdown is 'confidentiality', it is of that thread.",
        ],
        refuses: &[],
        object: object!("tcpconnlat"),
        ladders: &[ANSWERS],
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
            .ladder(&ANSWERS)
            .family(args.family)
            .global("CONFIG", &Config { min_ns: args.min_us.saturating_mul(1000) })
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

const ANSWERS: Ladder = Ladder {
    name: "answers",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("v4_fentry", "tcp_v4_connect").when(Need::V4Rows).twice(),
                fentry("v6_fentry", "tcp_v6_connect").when(Need::V6Rows).twice(),
                fentry("established_fentry", "tcp_finish_connect").twice(),
                fentry("crossed_fentry", "tcp_send_synack").twice(),
                tp_btf("reset_tp", "tcp_receive_reset").twice(),
                fentry("mptcp_fentry", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere)
                    .twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("v4_kprobe", "tcp_v4_connect").when(Need::V4Rows),
                kprobe("v6_kprobe", "tcp_v6_connect").when(Need::V6Rows),
                kprobe("established_kprobe", "tcp_finish_connect"),
                kprobe("crossed_kprobe", "tcp_send_synack"),
                tp_btf("reset_by_sk_tp", "tcp_receive_reset"),
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
                tp_btf("reset_tp", "tcp_receive_reset").twice(),
            ],
            less_exact: Some(
                LessExact::new("the time leaves out the choice of route and source address")
                    .detail("That choice takes microseconds."),
            ),
        },
    ],
};

/// Whole microseconds, as BCC.
fn span_us(event: &Event) -> u64 {
    event.span_ns / 1000
}

/// What is printed of an event.
pub type Row = Of<Event>;

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col_if(args.seconds.timestamp, seconds(9, 3).gap(""))
        .col(left("PID", 7, |e: &Row| e.pid.into()).about(conn::pid("The process that called connect().")))
        .col(left("COMM", 12, |e: &Row| (&e.comm).into()).cut().about(conn::COMM))
        .col(left("IP", 2, |e: &Row| Cell::Unsigned(conn::version(e.tuple.family))).about(conn::IP))
        .col(left("SADDR", 16, |e: &Row| conn::laddr(&e.tuple).into()).about(conn::LADDR))
        .col_if(
            !args.lport.is_empty(),
            left("LPORT", 6, |e: &Row| e.tuple.lport.into()).always(Format::Json).about(conn::LPORT),
        )
        .col(left("DADDR", 16, |e: &Row| conn::raddr(&e.tuple).into()).about(conn::RADDR))
        .col(left("DPORT", 5, |e: &Row| e.tuple.rport.into()).about(conn::RPORT))
        .col(
            data("span_us", |e: &Row| span_us(e).into())
                .about(About::count("From connect() to the answer, in microseconds.")),
        )
        .col(
            left("LAT(ms)", 0, |e: &Row| Cell::Float(span_us(e) as f64 / 1000.0))
                .precision(2)
                .except(Format::Json)
                .about(About::new(Kind::Number, "From connect() to the answer, in milliseconds.")),
        )
        .process(|e| Process::now(e.pid).named(&e.comm).noted_before(e.span_ns))
        .socket(false, &SocketFact::PLAIN, |e| &e.facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_microseconds_of_a_threshold_count() {
        for (text, us) in
            [("0", 0), ("1", 1000), ("0.1", 100), ("1e3", 1_000_000), ("0.0001", 0), (" 2.5 ", 2500)]
        {
            assert_eq!(min_us(text), Ok(us), "{text}");
        }
        for text in ["", "abc", "-5", "nan", "inf", "-inf", "1e300", "1 2"] {
            min_us(text).unwrap_err();
        }
    }
}
