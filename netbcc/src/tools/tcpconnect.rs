//! tcpconnect: one row per active TCP open whose SYN was handed to IP; `-c` counts them per flow; `-d` adds the DNS
//! name that led to the address.
//!
//! Events: `probes-ebpf/src/bin/tcpconnect.rs`, from `tcp_v4_connect` and `tcp_v6_connect`, or from
//! `sock:inet_sock_set_state`. On the tracepoint rung a row waits [`HOLD_NS`] for news that the open failed on this
//! host (then it is none), but not with `-L`: its local port is known once it can no longer fail.
//!
//! A connect to a v4-mapped address is an IPv4 row, with `-6` an IPv6 row, as BCC.
//!
//! BCC: its `-d` misses resolvers that are not connected, that use recv or recvfrom (since 6.4), and answers above
//! 512 bytes. Here question and answer are taken from the packets. Its delta wraps after a day.
//!
//! Two connections over loopback, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpconnect -L
//! Tracing connect ... Hit Ctrl-C to end
//! PID     COMM         IP SADDR            LPORT  DADDR            DPORT
//! 31536   python3      4  127.0.0.1        52546  127.0.0.1        37671
//! 31536   python3      4  127.0.0.1        52560  127.0.0.1        37671
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Args};
use netbcc_common::kernel::Func;
use netbcc_common::tcpconnect::{
    CONNECTED, Config, DNS_LARGE_ROOM, DNS_SMALL, Dns, Event, FAILED, Flow, OPENED, QUESTIONS, Question,
    Unread,
};
use zerocopy::FromBytes as _;

use super::{conn, object};
use crate::dns;
use crate::error::usage;
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, fexit, kprobe, kretprobe, tp_btf};
use crate::options::select::{PortList, port_list};
use crate::options::{Containers, Family, Json, Pid, Ports, Timestamp, Uid, Verbose, ports};
use crate::out::{About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, data, left, seconds};
use crate::probe::{Batch, Plan, Probe};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpconnect;

/// Its options.
#[derive(Args, Debug)]
// The letters are those of libbpf-tools.
#[command(mut_arg("cgroupmap", |arg| arg.short('C')), mut_arg("mntnsmap", |arg| arg.short('M')))]
pub struct Options {
    #[command(flatten)]
    seconds: Timestamp,
    #[command(flatten)]
    pid: Pid,
    /// These remote ports only, comma-separated
    #[arg(short = 'P', long, value_name = "PORT", value_parser = ports, help_heading = "Filters")]
    port: Vec<Ports>,
    #[command(flatten)]
    family: Family,
    /// Add the local port (rows); with =PORTS: and keep these only
    #[arg(
        short = 'L', long, value_name = "PORTS", value_parser = port_list, num_args = 0..=1, require_equals = true,
        default_missing_value = "", action = ArgAction::Append, help_heading = "Output"
    )]
    lport: Vec<PortList>,
    /// Add the user id (rows)
    #[arg(short = 'U', long, help_heading = "Output")]
    print_uid: bool,
    #[command(flatten)]
    uid: Uid,
    /// Count connects per flow, print the table at the end
    #[arg(short = 'c', long, help_heading = "Output")]
    count: bool,
    #[command(flatten)]
    containers: Containers,
    /// Add the DNS name that led to the address
    #[arg(short = 'd', long, help_heading = "Output")]
    dns: bool,
    /// Show the local port: as -L in rows, as a column of its own with -c
    #[arg(short = 's', long, help_heading = "Output")]
    source_port: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Options {
    /// Whether rows have the local port.
    fn shows_lport(&self) -> bool {
        !self.lport.is_empty() || self.source_port
    }

    /// Whether the local port must be known, for a row or for the key of a count.
    fn wants_lport(&self) -> bool {
        self.source_port || !self.lport.is_empty() && !self.count
    }
}

/// A connect with what user space adds to it.
pub struct Row {
    /// As the kernel sent it.
    pub event: Of<Event>,
    /// The DNS name, as text for the column.
    pub query: Vec<u8>,
}

impl Tool for Tcpconnect {
    const SPEC: Spec = Spec {
        name: "tcpconnect",
        about: "Trace TCP active connections (connect())",
        description: &[
            "Prints a row for each TCP connection that a process on this host opens, when its first packet is on its \
             way, whether or not anybody answers. Opens that fail on this host, for want of a route for example, are \
             no rows. -c counts them per flow instead, and prints the table at the end.",
            "-d adds the DNS name that led to the address. It is taken from answers over UDP to questions that a process \
             on this host sent to port 53. Of two names with one address, the one is shown that this process itself \
             asked for last; if it asked for none (a service of the system asks for it), the one that anybody on this \
             host asked for last. Whoever answers chooses the name, and processes on this host can ask whom they like: \
             take it for a hint. DNS over TCP (after an answer that was cut, for example), TLS or HTTPS is not read; of \
             TCP a line on stderr says so when it is first used. Answers to questions from before the start do not count. \
             Where the kernel's lockdown is 'confidentiality', an answer that came in fragments is read as far as the \
             first one goes.",
        ],
        examples: &[
            ("tcpconnect", "all connects"),
            ("tcpconnect -t", "with seconds since the first row"),
            ("tcpconnect -d", "with the DNS names that led there"),
            ("tcpconnect -p 181", "process 181 only"),
            ("tcpconnect -P 80,81", "remote ports 80 and 81 only"),
            ("tcpconnect -U", "with the user id"),
            ("tcpconnect -u 1000", "user 1000 only"),
            ("tcpconnect -c", "count per flow until Ctrl-C"),
            ("tcpconnect -L", "with the local port"),
            ("tcpconnect --cgroupmap /sys/fs/bpf/m", "only cgroups in this map"),
        ],
        overhead: "Runs a short program per connect and none per packet; -d adds one per UDP packet that is sent \
                   or read: on Linux 6.1 some 500 instructions per connect, and 14,000 per question with its answer, which takes \
                   18,000 itself. Where the kernel has neither fentry nor kprobes, -d adds one per packet instead, and what asks \
                   for the local port (-L, --lport=PORTS; with -c: -s) one of a few instructions per timer that the \
                   kernel starts.",
        differences: &[
            "-c with -d is refused on stderr with exit code 2.",
            "-d takes a name only from an answer to a question that this host sent, and prefers what the process itself \
             asked for; it also sees unconnected and recv() resolvers and answers up to 4 KiB; its delta does not wrap \
             after a day.",
            "A map path that does not exist is an error, not a new empty map.",
            "A further subflow of MPTCP is of the process that connected the MPTCP socket, not of the kernel's thread or the \
             program that has it opened. Where nobody saw who that is (before the start; an MPTCP socket that was accepted), \
             it has PID 0 and COMM '-'. Where the kernel's lockdown is 'confidentiality', it is of that thread.",
        ],
        refuses: &[],
        object: object!("tcpconnect"),
        ladders: &[CONNECTS, ANSWERS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Connects", table(args)).used_if(!args.count),
            Rows::new("Flows, with -c", count_table(args)).used_if(args.count),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        if args.count && args.dns {
            return Err(usage("you may not specify -d/--dns with -c/--count."));
        }
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        // Also where it is no column: a filter asks for it.
        let wants_lport = args.wants_lport() || cx.select.lport.is_some();
        let config = Config {
            count: args.count.into(),
            count_lport: args.source_port.into(),
            lport: wants_lport.into(),
            zero: 0,
        };
        let mut plan = Plan::new(cx)
            .ladder(&CONNECTS)
            .family(args.family)
            .rports(&args.port)
            .containers(&args.containers)?
            .global("CONFIG", &config);
        if !args.count {
            plan = plan.socket_facts(table(&args).asks_of_sockets(&cx.out));
        }
        if wants_lport {
            plan = plan.ask("lport");
        }
        if args.dns {
            let questions = cx.table_entries.unwrap_or(QUESTIONS);
            plan = plan
                .ladder(&ANSWERS)
                .size("TURNS", questions)
                // What lost its turn on one CPU may still be there when another one adds to it.
                .size("QUESTIONS", questions + QUESTIONS / 16)
                .side_ring("ANSWERS", ANSWER_RING_BYTES);
        }
        let probe = plan.attach(cx)?;
        cx.out.line("Tracing connect ... Hit Ctrl-C to end");
        if args.count { count(&args, cx, probe) } else { rows(&args, cx, probe) }
    }
}

const CONNECTS: Ladder = Ladder {
    name: "connects",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fexit("v4_fexit", "tcp_v4_connect").arity(Func::TcpV4Connect, 3).when(Need::V4Rows).twice(),
                fexit("v6_fexit", "tcp_v6_connect").arity(Func::TcpV6Connect, 3).when(Need::V6Rows).twice(),
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
                kretprobe("v4_kretprobe", "tcp_v4_connect").when(Need::V4Rows),
                kprobe("v6_kprobe", "tcp_v6_connect").when(Need::V6Rows),
                kretprobe("v6_kretprobe", "tcp_v6_connect").when(Need::V6Rows),
                kprobe("mptcp_kprobe", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere),
            ],
            less_exact: None,
        },
        // Its rows are those of the other rungs.
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("state_tp", "inet_sock_set_state").twice(),
                tp_btf("timer_tp", "timer_start").when(Need::Asked("lport")),
            ],
            less_exact: None,
        },
    ],
};

const ANSWERS: Ladder = Ladder {
    name: "DNS answers",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("answer_fentry", "skb_consume_udp"),
                fentry("ask4_fentry", "ip_send_skb"),
                fentry("ask6_fentry", "ip6_send_skb").when(Need::V6Kernel),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("answer_kprobe", "skb_consume_udp"),
                kprobe("ask4_kprobe", "ip_send_skb"),
                kprobe("ask6_kprobe", "ip6_send_skb").when(Need::V6Kernel),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("unread_tp", "kfree_skb"),
                tp_btf("answer_tp", "netif_receive_skb"),
                tp_btf("ask_tp", "net_dev_queue"),
            ],
            less_exact: Some(
                LessExact::new("of an answer in IP fragments only the first fragment is read").detail(
                    "A question that NAT on this host sends to another port than 53 is not seen. Who asked is not known \
                     of a question that had to wait for a neighbour, or that a 32-bit program or io_uring sent: then \
                     the newest name is shown.",
                ),
            ),
        },
    ],
};

const UID: About = conn::uid("The user who called it. In text with -U.");

const LPORT: About = About::new(Kind::Port, "With -L or -s: the local port.").otel("network.local.port");

const QUERY: About = About::text(
    "With -d: the DNS name that led to the address, of several the newest that this process asked for, else the newest \
     that anybody asked for; with the age of the answer where that is above 100 ms. Without an \
     answer in the last day: localhost for 127.0.0.1 and ::1, else No DNS Query.",
);

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let table = Table::new(args.json.format())
        .col_if(args.seconds.timestamp, seconds(9, 3).gap(""))
        .col_if(
            args.print_uid,
            left("UID", 6, |r: &Row| r.event.uid.into()).gap("").except(Format::Json).about(UID),
        )
        .col(
            left("PID", 7, |r: &Row| r.event.pid.into())
                .about(conn::pid("The process that called connect().")),
        )
        .col(data("uid", |r: &Row| r.event.uid.into()).about(UID))
        .col(left("COMM", 12, |r: &Row| (&r.event.comm).into()).cut().about(conn::COMM))
        .col(left("IP", 2, |r: &Row| Cell::Unsigned(conn::version(r.event.tuple.family))).about(conn::IP))
        .col(left("SADDR", 16, |r: &Row| conn::laddr(&r.event.tuple).into()).about(conn::LADDR))
        .col_if(
            args.shows_lport(),
            left("LPORT", 6, |r: &Row| r.event.tuple.lport.into())
                .about(LPORT)
                .known_if(args.shows_lport(), "add -L"),
        )
        .col(left("DADDR", 16, |r: &Row| conn::raddr(&r.event.tuple).into()).about(conn::RADDR))
        .col(left("DPORT", 6, |r: &Row| r.event.tuple.rport.into()).about(conn::RPORT))
        .col_if(
            args.dns,
            left("QUERY", 0, |r: &Row| Cell::Name(&r.query)).about(QUERY).known_if(args.dns, "add -d"),
        )
        .process(|r| Process::now(r.event.pid).named(&r.event.comm))
        .socket(false, &SocketFact::PLAIN, |r| &r.event.facts);
    // BCC's rows always have the blank that QUERY would follow; its header does not.
    if args.dns { table } else { table.tail(" ") }
}

/// How long a row of the tracepoint rung waits for news that its open failed on this host. That comes from the same
/// call, microseconds later; the rest is for a thread that loses its CPU in between.
const HOLD_NS: u64 = 20_000_000;

/// Room for DNS answers that are on their way here.
const ANSWER_RING_BYTES: u32 = 1 << 19;

/// More opens than this do not wait: the oldest goes out.
const MAX_WAITING: usize = 10_240;

/// Opens that wait, in the order in which they came.
#[derive(Default)]
struct Waiting(VecDeque<Row>);

impl Waiting {
    /// Takes out the latest open of this socket. It is near the end: what ends a wait follows within microseconds.
    fn remove(&mut self, sk: u64) -> Option<Row> {
        let at = self.0.iter().rposition(|row| row.event.sk == sk)?;
        self.0.remove(at)
    }

    /// Takes out the oldest, if it came no later than `until_ns` or too many wait.
    fn oldest(&mut self, until_ns: u64) -> Option<Row> {
        let front = self.0.front()?;
        if front.event.ts_ns <= until_ns || self.0.len() > MAX_WAITING { self.0.pop_front() } else { None }
    }

    /// When the oldest came.
    fn since_ns(&self) -> Option<u64> {
        self.0.front().map(|row| row.event.ts_ns)
    }
}

fn rows(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    let table = table(args);
    cx.out.header(&table);
    let mut waiting = Waiting::default();
    let mut names = args.dns.then(Names::default);
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for (record, facts) in batch.records_with_facts() {
            let Ok(event) = Event::read_from_bytes(record) else {
                match &mut names {
                    Some(names) => names.learn(batch, record),
                    None => batch.unknown(),
                }
                continue;
            };
            let event = Of::new((event, facts));
            let mut row = || match &mut names {
                Some(names) => names.row(event),
                None => Row { event, query: Vec::new() },
            };
            match event.kind {
                CONNECTED => cx.out.row(&table, event.ts_ns, &row()),
                OPENED => {
                    let row = row();
                    cx.out.meet(&table, event.ts_ns, &row);
                    waiting.0.push_back(row);
                }
                FAILED => drop(waiting.remove(event.sk)),
                _ => batch.unknown(),
            }
        }
        let until_ns = if batch.is_last() { u64::MAX } else { batch.now_ns().saturating_sub(HOLD_NS) };
        while let Some(row) = waiting.oldest(until_ns) {
            cx.out.row(&table, row.event.ts_ns, &row);
        }
        if let Some(what) = names.as_mut().and_then(Names::say) {
            cx.warn(what);
        }
        Ok(waiting.since_ns().map(|since| {
            Duration::from_nanos((since + HOLD_NS).saturating_sub(batch.now_ns()).max(1_000_000))
        }))
    })
}

/// Port of DNS servers, over UDP and over TCP.
const DNS_PORT: u16 = 53;

/// The names of `-d`.
#[derive(Default)]
struct Names {
    cache: dns::Cache,
    /// When the questions were sent that had their answer: a second one is not believed. At most as many as the kernel side
    /// remembers.
    answered: BTreeSet<u64>,
    /// What is to be said about DNS over TCP: once, when it is first seen.
    over_tcp: Option<&'static str>,
    told: bool,
}

impl Names {
    /// The row of `event`, with the name that is known for its address now.
    fn row(&mut self, event: Of<Event>) -> Row {
        if event.tuple.rport == DNS_PORT {
            self.over_tcp =
                Some("a process asks for names over TCP, which is not read: names may be missing");
        }
        let mut query = Vec::new();
        self.cache.query_text(conn::raddr(&event.tuple), event.pid, event.ts_ns, &mut query);
        Row { event, query }
    }

    /// Takes a record of the ring of answers in. There is no other one besides events.
    fn learn(&mut self, batch: &Batch, record: &[u8]) {
        if let Ok(small) = Dns::<DNS_SMALL>::read_from_bytes(record) {
            self.answer(&small);
        } else if let Ok(large) = Dns::<DNS_LARGE_ROOM>::read_from_bytes(record) {
            self.answer(&large);
        } else if let Some(unread) = batch.decode::<Unread>(record) {
            self.cache.forget(unread.arrived_ns);
            self.answered.remove(&unread.asked_ns);
        }
    }

    /// Remembers an answer that repeats the question that was asked.
    fn answer<const N: usize>(&mut self, record: &Dns<N>) {
        let Question { ts_ns, pid, len, ref bytes, .. } = record.question;
        let question = bytes.get(..len as usize).unwrap_or_default();
        let payload = record.payload.get(..record.len as usize).unwrap_or_default();
        if !dns::repeats(payload, question) {
            return;
        }
        if dns::is_cut(payload) {
            self.over_tcp =
                Some("a DNS answer was cut; who asks again over TCP is not read: names may be missing");
        }
        if let Some(answer) = dns::parse(payload)
            && self.answered.insert(ts_ns)
        {
            self.cache.insert(&answer, pid, record.ts_ns);
            if self.answered.len() > QUESTIONS as usize {
                self.answered.pop_first();
            }
        }
    }

    /// What is to be said now.
    fn say(&mut self) -> Option<&'static str> {
        let what = self.over_tcp.filter(|_| !self.told)?;
        self.told = true;
        Some(what)
    }
}

/// A flow and its connects.
pub struct Count {
    /// The flow.
    pub flow: Flow,
    /// How many connects.
    pub connects: u64,
}

/// The columns of `-c`.
pub fn count_table(args: &Options) -> Table<Count> {
    Table::new(args.json.format())
        .col(left("LADDR", 25, |c: &Count| conn::ip(c.flow.family, &c.flow.laddr).into()).about(conn::LADDR))
        .col(left("RADDR", 25, |c: &Count| conn::ip(c.flow.family, &c.flow.raddr).into()).about(conn::RADDR))
        .col_if(
            args.source_port,
            left("LPORT", 20, |c: &Count| c.flow.lport.into())
                .about(About::new(Kind::Port, "With -s: the local port.").otel("network.local.port")),
        )
        .col(left("RPORT", 20, |c: &Count| c.flow.rport.into()).about(conn::RPORT))
        .col(left("CONNECTS", 10, |c: &Count| c.connects.into()).about(About::count("How many connects.")))
}

fn count(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    probe.stream(cx, |_: &mut Ctx, _: &Batch| Ok(None))?;
    let mut counts: Vec<Count> = probe
        .counts::<{ size_of::<Flow>() }>("FLOWS")?
        .into_iter()
        .filter_map(|(key, connects)| Some(Count { flow: Flow::read_from_bytes(&key).ok()?, connects }))
        // Opens that failed on this host were taken back; also some that began before the start, or by a task that the
        // filters do not keep.
        .filter(|count| count.connects.cast_signed() > 0)
        .collect();
    sort_counts(&mut counts);
    let table = count_table(args);
    cx.out.line("");
    cx.out.header(&table);
    let now_ns = cx.out.clock().monotonic_ns();
    for count in &counts {
        cx.out.row(&table, now_ns, count);
    }
    Ok(())
}

/// IPv4 before IPv6, then by count, most first. BCC leaves ties to chance; here addresses decide.
fn sort_counts(counts: &mut [Count]) {
    counts.sort_by_key(|Count { flow, connects }| {
        let raddr = conn::ip(flow.family, &flow.raddr);
        (flow.family, Reverse(*connects), raddr, flow.rport, conn::ip(flow.family, &flow.laddr), flow.lport)
    });
}
