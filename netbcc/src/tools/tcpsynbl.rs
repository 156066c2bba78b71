//! tcpsynbl: a histogram of the length of accept queues per interval, one for each limit: how many connections wait for accept()
//! when one more completes its handshake.
//!
//! Sums: `probes-ebpf/src/bin/tcpsynbl.rs`. A sample is a call of `tcp_v4_syn_recv_sock` or `tcp_v6_syn_recv_sock`, with the
//! listener's `sk_ack_backlog` from before it; the section is its `sk_max_ack_backlog`. Where these functions cannot be traced, the
//! new socket's change from LISTEN to SYN_RECV is seen, which holds copies of both.
//!
//! `--listeners` prints a row per listener instead: `tcpsynbl/listeners.rs`.
//!
//! BCC counts an IPv4 client of an IPv6 listener twice, and has room for 64 pairs of limit and slot.
//!
//! A server that is slow to accept, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpsynbl 10 1
//! Tracing SYN backlog size. Ctrl-C to end.
//!
//!
//! backlog_max = 128
//!      backlog             : count     distribution
//!          0 -> 1          : 961      |****************************************|
//!          2 -> 3          : 1        |                                        |
//! ```

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use netbcc_common::kernel::Func;
use netbcc_common::tcpsynbl::{Config, Hist, SLOTS};
use zerocopy::FromBytes as _;

use self::listeners::Listeners;
use super::object;
use crate::error::usage;
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::{Every, Family, Json, OUTPUT, Verbose, select};
use crate::out::{About, Format, Rows, Table, data, hist, interval};
use crate::probe::{Generations, Pace, Plan, Probe, Table as Map, Turn};
use crate::tool::{Ctx, Spec, Tool};

pub mod listeners;

/// The tool.
pub struct Tcpsynbl;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// Print the time of day (HH:MM:SS) before each output
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    timestamp: bool,
    /// A row for each listener: whose, how long its queue was, and how many SYNs and third packets it refused
    #[arg(long, help_heading = OUTPUT)]
    listeners: bool,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    #[command(flatten)]
    every: Every,
}

impl Tool for Tcpsynbl {
    const SPEC: Spec = Spec {
        name: "tcpsynbl",
        about: "Summarize how full TCP accept queues are, as histograms",
        description: &[
            "Prints, once per interval or, without one, at Ctrl-C, how long the accept queue of listening TCP sockets was when \
             one more connection completed its handshake, as a histogram of powers of two for each limit. Despite the tool's \
             name it is not the queue of SYNs: a connection comes into the accept queue with the third packet of its handshake, \
             and accept() takes it out.",
            "The limit (backlog_max) is what listen() was called with, but at most net.core.somaxconn of the listener's \
             network namespace. All listeners with one limit are one histogram. The length is from before the connection, so \
             a queue with the limit N holds N+1. A value above the limit is a connection that the kernel refused.",
            "A SYN that finds the queue full is dropped before any of this, and no histogram shows it: lengths that reach the limit \
             do not say how many clients were turned away. --listeners does: it prints a row for each listener of all network \
             namespaces, with the process that has it open, its longest queue in the interval (QLEN), the limit (QMAX) and the packets \
             that it refused because its queue was full (REFUSED): SYNs, and third packets of a handshake. A client that tries \
             again after 1, 3 and 7 seconds is refused four times. Most refusals come first.",
            "Where functions cannot be traced, the kernel tells only some refusals: since 6.18 third packets have a reason of their own, \
             but not those of a handshake by SYN cookie, which are dropped as packets of no connection. What a listener dropped, which may be more \
             than it refused, is then held against ListenOverflows of its network namespace, which counts all. Where that does not \
             tell whose they are, REFUSED is at most what it says, and begins with ~; - is not known. A listener that no process holds, as \
             one of the kernel's own, has a row only if it took or refused something, or may have. One that closed \
             has a last row; one that nobody looked at has it only if it took, refused or dropped something.",
        ],
        examples: &[
            ("tcpsynbl", "all listeners, until Ctrl-C"),
            ("tcpsynbl 1 10", "print 1-second summaries, 10 times"),
            ("tcpsynbl -T 5", "every 5 seconds, with the time of day"),
            ("tcpsynbl -4", "connections of IPv4 only"),
            ("tcpsynbl --listeners 1", "who refuses connections? every second"),
            ("tcpsynbl --lport 80,443 1", "listeners of two ports, every second"),
            ("tcpsynbl --json 60", "one JSON object per slot, every minute"),
        ],
        overhead: "Runs a short program per connection that a listener of this host takes; where functions cannot be traced, one per change of a \
                   TCP socket's state, and a comparison per packet that the kernel drops. Nothing is sent to user space but \
                   the sums. --listeners also runs a program per SYN, and goes through the open files of all processes at the end of each \
                   interval.",
        differences: &[
            "An IPv4 client of an IPv6 listener is one sample; BCC counts two. With -4 and with -6 it is among the samples, as in BCC.",
            "There is room for 10240 limits per interval, not for 64 pairs of limit and slot. What has none is counted as lost, \
             and said.",
            "Sections are sorted by limit, and what arrives while a block is printed belongs to the next one; BCC loses it.",
            "--listeners is not in BCC, nor in libbpf-tools.",
            "-T, an interval and a number of outputs are those of libbpf-tools. A wrong interval and -4 with -6 are refused before anything \
             is loaded.",
        ],
        refuses: &[(
            &[select::PID, select::UID, select::COMM],
            "a handshake ends while any task has the processor; --cgroup and --container are the listener's own",
        )],
        object: object!("tcpsynbl"),
        ladders: &[COMPLETIONS, listeners::LISTENERS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Slots of histograms, with --json", slot_table(args)).used_if(!args.listeners),
            Rows::new("Listeners, with --listeners", listeners::table(args)).used_if(args.listeners),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        if !cx.select.addresses_agree(args.family) {
            bail!(usage("no connection has ends of both families: there would be no sample"));
        }
        if args.listeners && (cx.select.raddr.is_some() || cx.select.rport.is_some()) {
            bail!(usage("--listeners: a listener has no remote end, so --raddr and --rport mean nothing"));
        }
        if !args.listeners && cx.out.is_chosen() && args.json.format() == Format::Text {
            bail!(usage("a histogram has no columns: -o is for --json"));
        }
        let select = &cx.select;
        let by_ends = select.laddr.is_some() || select.raddr.is_some() || select.rport.is_some();
        let plan = Plan::new(cx).groups_of_sockets();
        let plan = if args.listeners {
            TABLES
                .iter()
                .chain(&["YOUNG"])
                .fold(plan.ladder(&listeners::LISTENERS), |plan, table| plan.without(table))
        } else {
            plan.ladder(&COMPLETIONS)
                .without(listeners::TABLE)
                .without(listeners::GONE)
                .without(listeners::INHERITED)
        };
        let mut plan = plan
            .ask(if by_ends || args.family.ipv4 { ENDS } else { BEGINNINGS })
            .family(args.family)
            .enumeration(REASONS)
            .ask_if(OVERFLOW, |kernel| {
                let reasons = kernel.members_of(REASONS);
                kernel.fits(Some((Func::KfreeSkb, 4))) && reasons.iter().any(|(_, name)| name == OVERFLOW)
            })?
            .entry("CURRENT", &0_u32, &FIRST);
        let reasons = plan.known()?.members_of(REASONS);
        let overflow = reasons.iter().find(|(_, name)| name == OVERFLOW).map_or(0, |(code, _)| *code);
        plan = plan.global("CONFIG", &Config { overflow });
        if let Some(entries) = cx.table_entries {
            let tables = if args.listeners { &[listeners::TABLE, listeners::GONE] } else { &TABLES };
            plan = tables.iter().fold(plan, |plan, table| plan.size(table, entries));
        }
        if args.listeners {
            // Before capabilities are dropped.
            let namespaces = listeners::Namespaces::there();
            let mut probe = plan.attach(cx)?;
            cx.out.line("Tracing accept queues... Hit Ctrl-C to end.");
            let mut listeners = Listeners::new(&mut probe, namespaces)?;
            return probe.sample(cx, Pace::from(args.every), |cx, _| {
                let rows = listeners.taken()?;
                let now_ns = cx.out.clock().monotonic_ns();
                listeners::print(&args, cx, &rows, now_ns);
                Ok(())
            });
        }
        let mut probe = plan.attach(cx)?;
        cx.out.line("Tracing SYN backlog size. Ctrl-C to end.");
        let mut sums = Sums::new(&mut probe)?;
        probe.sample(cx, Pace::from(args.every), |cx, turn| {
            let now_ns = cx.out.clock().monotonic_ns();
            let sections = sums.taken(turn)?;
            print(&args, cx, &sections, now_ns);
            Ok(())
        })
    }
}

/// The number of the first interval.
const FIRST: u32 = 1;

/// The kernel's enum of reasons, and that of a packet for which an accept queue had no room.
const REASONS: &str = "skb_drop_reason";
const OVERFLOW: &str = "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW";

/// Connections by what their listener says of them.
const BEGINNINGS: &str = "beginnings";
/// Connections by what they say of their ends.
const ENDS: &str = "ends";

/// What may get full, and is sized by the user.
const TABLES: [&str; 2] = ["SUMS_0", "SUMS_1"];

const COMPLETIONS: Ladder = Ladder {
    name: "handshakes that complete",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("v4_fentry", "tcp_v4_syn_recv_sock").when(Need::V4Rows),
                fentry("v6_fentry", "tcp_v6_syn_recv_sock").when(Need::V6Rows),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("v4_kprobe", "tcp_v4_syn_recv_sock").when(Need::V4Rows),
                kprobe("v6_kprobe", "tcp_v6_syn_recv_sock").when(Need::V6Rows),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("refused_tp", "kfree_skb").arity(Func::KfreeSkb, 4).when(Need::Known(OVERFLOW)),
                tp_btf("begins_tp", "inet_sock_set_state").when(Need::Asked(BEGINNINGS)),
                tp_btf("ends_tp", "inet_sock_set_state").when(Need::Asked(ENDS)),
            ],
            less_exact: Some(
                LessExact::new("of refused connections, those by SYN cookie are not counted").detail(
                    "The kernel drops their last packet as one that belongs to no connection. Nor is what is refused for want of \
                     memory or of a route counted. All other samples are there.",
                ),
            ),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("begins_tp", "inet_sock_set_state").when(Need::Asked(BEGINNINGS)),
                tp_btf("ends_tp", "inet_sock_set_state").when(Need::Asked(ENDS)),
            ],
            less_exact: Some(
                LessExact::new("connections that a full queue refuses are not counted").detail(
                    "This kernel gives no reason of its own for them. Samples above the limit are missing, and what is refused for \
                     want of memory or of a route; all others are there.",
                ),
            ),
        },
    ],
};

/// A limit, and by [`hist::slot`] how many connections found a queue of which length.
type Section = (u32, [u64; SLOTS]);

/// Where the kernel sums.
struct Sums {
    generations: Generations,
    tables: [Map; 2],
}

impl Sums {
    fn new(probe: &mut Probe) -> Result<Self> {
        Ok(Self {
            generations: probe.generations("CURRENT", FIRST)?,
            tables: [probe.table(TABLES[0])?, probe.table(TABLES[1])?],
        })
    }

    /// What was summed since the last time, by limit.
    fn taken(&mut self, turn: &Turn<'_>) -> Result<Vec<Section>> {
        let mut sections = BTreeMap::new();
        let full = self.generations.turn()?;
        self.tables[full].drain(
            || turn.ends(),
            |key, value| {
                if let (Ok(limit), Ok(Hist { slots })) =
                    (u32::read_from_bytes(key), Hist::read_from_bytes(value))
                {
                    sections.insert(limit, slots);
                }
            },
        )?;
        Ok(sections.into_iter().collect())
    }
}

/// One block. In JSON a row is a slot that is not empty.
fn print(args: &Options, cx: &mut Ctx, sections: &[Section], now_ns: u64) {
    cx.out.line("");
    if args.timestamp {
        let time = cx.out.clock().hms(now_ns).to_owned();
        cx.out.line(time);
    }
    let table = slot_table(args);
    for &(backlog_max, ref slots) in sections {
        if args.json.format() == Format::Json {
            for (bits, &count) in slots.iter().enumerate().filter(|(_, count)| **count > 0) {
                cx.out.row(&table, now_ns, &Slot { backlog_max, bits, count });
            }
        } else if slots.iter().any(|count| *count > 0) {
            cx.out.line("");
            cx.out.line(format!("backlog_max = {backlog_max}"));
            hist::print(&mut cx.out, "backlog", slots);
        }
    }
}

/// A slot of a histogram, for JSON.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The limit of the queues.
    pub backlog_max: u32,
    /// Its number.
    pub bits: usize,
    /// Samples in it.
    pub count: u64,
}

/// The columns of a slot, which only JSON has.
pub fn slot_table(args: &Options) -> Table<Slot> {
    Table::new(args.json.format())
        .col(interval())
        .col(
            data("backlog_max", |s: &Slot| s.backlog_max.into()).about(About::count(
                "How many connections may wait for accept(): the limit of the listeners.",
            )),
        )
        .col(
            data("low", |s: &Slot| hist::bounds(s.bits).0.into())
                .about(About::count("The shortest queue that this slot counts.")),
        )
        .col(
            data("high", |s: &Slot| hist::bounds(s.bits).1.into())
                .about(About::count("The longest queue that this slot counts.")),
        )
        .col(
            data("count", |s: &Slot| s.count.into())
                .about(About::count("How many connections found a queue of such a length.")),
        )
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::out::{Clock, Out};

    fn block(words: &str, sections: &[(u32, &[(u64, u64)])]) -> String {
        let words = format!("tcpsynbl {words}");
        let matches =
            crate::tool::command::<Tcpsynbl>().try_get_matches_from(words.split_whitespace()).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let sections: Vec<Section> = sections
            .iter()
            .map(|&(limit, lengths)| {
                let mut slots = [0; SLOTS];
                for &(length, count) in lengths {
                    slots[hist::slot(length)] += count;
                }
                (limit, slots)
            })
            .collect();
        let out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        let mut cx = Ctx::new(&Tcpsynbl::SPEC, out);
        print(&args, &mut cx, &sections, 1);
        cx.out.take()
    }

    #[test]
    fn blocks_are_bccs() {
        assert_eq!(
            block("", &[(5, &[(0, 900), (1, 61), (2, 1)]), (500, &[(0, 2)])]),
            "\n\
             \n\
             backlog_max = 5\n\
             \x20    backlog             : count     distribution\n\
             \x20        0 -> 1          : 961      |****************************************|\n\
             \x20        2 -> 3          : 1        |                                        |\n\
             \n\
             backlog_max = 500\n\
             \x20    backlog             : count     distribution\n\
             \x20        0 -> 1          : 2        |****************************************|\n"
        );
        // Nothing arrived; and a limit of which nothing is left.
        assert_eq!(block("", &[]), "\n");
        assert_eq!(block("-T", &[(5, &[])]), "\n00:00:00\n");
    }

    #[test]
    fn the_longest_queue_has_a_slot() {
        let json = block("--json", &[(u32::MAX, &[(u64::from(u32::MAX), 3)])]);
        assert!(
            json.ends_with(
                "\"backlog_max\":4294967295,\"low\":2147483648,\"high\":4294967295,\"count\":3}\n"
            ),
            "{json}"
        );
    }
}
