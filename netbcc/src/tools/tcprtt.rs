//! tcprtt: a histogram of TCP's smoothed round-trip time per interval: of all connections together, or by local (`-b`) or
//! remote address (`-B`). With `--min` the shortest round trip of each connection, once, when it closes.
//!
//! Sums: `probes-ebpf/src/bin/tcprtt.rs`. A sample is a segment that an established connection receives; its value is what TCP
//! keeps, from before the segment (`srtt_us`, which the kernel has in eighths). With `--min` it is `rtt_min`, at the change to
//! CLOSE. The kernel sums in microseconds, so that the mean is divided once.
//!
//! BCC has room for 64 pairs of address and slot, puts all IPv6 addresses into one histogram, and loses what arrives while it
//! reads its tables.
//!
//! Requests of 1000 bytes and their answers over loopback, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcprtt -B -e -d 2
//! Tracing TCP RTT... Hit Ctrl-C to end.
//!
//!
//! Remote Address = 127.0.0.1 [AVG 38]
//!      usecs               : count     distribution
//!          0 -> 1          : 0        |                                        |
//!          2 -> 3          : 0        |                                        |
//!          4 -> 7          : 0        |                                        |
//!          8 -> 15         : 0        |                                        |
//!         16 -> 31         : 7141     |*******************************         |
//!         32 -> 63         : 9121     |****************************************|
//!         64 -> 127        : 1290     |*****                                   |
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use netbcc_common::tcprtt::{BY_LADDR, BY_NONE, BY_RADDR, Config, Event, HIST_WORDS, Hist, Key, SLOTS};
use zerocopy::FromBytes as _;

use super::{conn, object};
use crate::error::usage;
use crate::hook::{Ladder, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::select::{self, NetList, PortList, net_list, port_list};
use crate::options::{FILTERS, Family, Json, OUTPUT, Verbose, positive};
use crate::out::{About, Cell, Format, Kind, Rows, Table, address, data, hist, interval};
use crate::probe::{Batch, Counters, Generations, Pace, Plan, Probe, Table as Map, Turn};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcprtt;

/// Its options.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Options {
    /// Seconds between outputs; without it there is one, at the end
    #[arg(short = 'i', long, value_name = "SECONDS", value_parser = positive)]
    interval: Option<NonZeroU32>,
    /// Seconds in all
    #[arg(short = 'd', long, value_name = "SECONDS", value_parser = positive, default_value = "99999")]
    duration: NonZeroU32,
    /// Print the time of day (HH:MM:SS) before each output
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    timestamp: bool,
    /// Milliseconds instead of microseconds
    #[arg(short = 'm', long, help_heading = OUTPUT)]
    milliseconds: bool,
    /// These local ports only: 80,8000-8099,!8080
    #[arg(
        short = 'p', long, value_name = "PORTS", value_parser = port_list, action = ArgAction::Append,
        help_heading = FILTERS
    )]
    lport: Vec<PortList>,
    /// These remote ports only
    #[arg(
        short = 'P', long, value_name = "PORTS", value_parser = port_list, action = ArgAction::Append,
        help_heading = FILTERS
    )]
    rport: Vec<PortList>,
    /// These local addresses only: 10.0.0.0/8,!10.1.0.0/16
    #[arg(
        short = 'a', long, value_name = "NETS", value_parser = net_list, action = ArgAction::Append,
        help_heading = FILTERS
    )]
    laddr: Vec<NetList>,
    /// These remote addresses only
    #[arg(
        short = 'A', long, value_name = "NETS", value_parser = net_list, action = ArgAction::Append,
        help_heading = FILTERS
    )]
    raddr: Vec<NetList>,
    /// A histogram for each local address
    #[arg(short = 'b', long, conflicts_with = "byraddr", help_heading = OUTPUT)]
    byladdr: bool,
    /// A histogram for each remote address
    #[arg(short = 'B', long, help_heading = OUTPUT)]
    byraddr: bool,
    /// Add the mean
    #[arg(short = 'e', long, help_heading = OUTPUT)]
    extension: bool,
    /// The shortest round trip of each connection that closes
    #[arg(long, help_heading = OUTPUT)]
    min: bool,
    #[command(flatten)]
    family: Family,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    /// As -v
    #[arg(short = 'D', long)]
    debug: bool,
}

impl Tool for Tcprtt {
    const SPEC: Spec = Spec {
        name: "tcprtt",
        about: "Summarize TCP round-trip times as histograms",
        description: &[
            "Prints, once per interval or at the end, how the round-trip times of TCP connections are distributed, as a \
             histogram of powers of two: of all connections together, or by local or remote address. A sample is a segment \
             that an established connection receives; its value is the smoothed round-trip time that the kernel had for \
             the connection by then.",
            "So a busy connection weighs more than a thousand idle ones, and a value that did not change counts again. An end \
             that only receives measures nothing after the handshake: look at the sender. A peer may put its answers off, \
             by 40 ms and more, which is in the value. A SYN that was sent again, or an answer with a SYN cookie, \
             makes the first values far too high. Segments that come after one side has closed are not samples.",
            "--min takes one sample per connection instead, when it closes: the shortest round trip of its last five minutes \
             (net.ipv4.tcp_min_rtt_wlen, 300 s). Connections from before the start are included; for those that are still open, \
             ss -ti shows minrtt. With --json a row is then a connection.",
        ],
        examples: &[
            ("tcprtt", "all connections, until Ctrl-C"),
            ("tcprtt -i 1 -d 10 -T", "every second for 10 seconds, with the time of day"),
            ("tcprtt -B -e -i 5", "by remote address, with the mean, every 5 seconds"),
            ("tcprtt -m -P 443", "connections to port 443, in milliseconds"),
            ("tcprtt -b -A 10.0.0.0/8", "by local address, to one network"),
            ("tcprtt --min -B", "the shortest of each connection that closes"),
            ("tcprtt --min --json", "one JSON object per connection"),
        ],
        overhead: "Runs a short program per segment that an established connection receives, after segments were merged, \
                   and sums in the kernel. --min runs one per change of a connection's state, and nothing per segment.",
        differences: &[
            "There is room for 10240 addresses per interval, not for 64 pairs of address and slot. What has none is \
             counted as lost, and said.",
            "IPv6 addresses have histograms of their own. IPv4 comes first, then IPv6, both in order.",
            "A connection without a measurement is no sample; BCC counts it as 0. -v says how many there were.",
            "With -m the mean is divided once: it may be higher than BCC's, by less than 1.",
            "What arrives while a block is printed belongs to the next one; BCC loses it.",
            "Ports and addresses may be lists. An IPv4 address also means that of an IPv6 socket (::ffff:a.b.c.d); -4 leaves \
             that out.",
            "-b with -B, filters that nothing passes, wrong ports, addresses and intervals are refused before \
             anything is loaded.",
        ],
        refuses: &[(
            &[select::PID, select::UID, select::COMM],
            "a segment arrives while any task has the processor; --cgroup and --container are the socket's own",
        )],
        object: object!("tcprtt"),
        ladders: &[SEGMENTS, CLOSES],
    };
    type Args = Options;
    const ONCE: &'static [&'static str] = &[];

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Slots of histograms, with --json", slot_table(args)).used_if(!args.min),
            Rows::new("Connections, with --min and --json", table(args)).used_if(args.min),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose || args.debug;
        cx.out.set_format(args.json.format());
        if !cx.select.addresses_agree(args.family) {
            bail!(usage("no connection has ends of both families: there would be no sample"));
        }
        if cx.out.is_chosen() && args.json.format() == Format::Text {
            bail!(usage("a histogram has no columns: -o is for --json"));
        }
        let rows = args.min && args.json.format() == Format::Json;
        if rows && (args.interval.is_some() || args.groups() || args.extension || args.milliseconds) {
            bail!(usage(
                "with --min and --json a row is a connection, in microseconds: not with -i, -b, -B, -e or -m"
            ));
        }
        let config = Config { by: args.by(), milliseconds: args.milliseconds.into() };
        let is_plain = !args.groups() && cx.select.is_empty() && !args.family.ipv4 && !args.family.ipv6;
        let mut plan = Plan::new(cx)
            .groups_of_sockets()
            .ladder(if args.min { &CLOSES } else { &SEGMENTS })
            .ask(match (args.min, rows, is_plain) {
                (true, true, _) => ROWS,
                (true, false, _) => SUMS,
                (false, _, true) => ALL,
                (false, _, false) => SOME,
            })
            .family(args.family)
            .global("CONFIG", &config)
            .entry("CURRENT", &0_u32, &FIRST);
        let entries = if args.groups() { cx.table_entries } else { Some(1) };
        if let Some(entries) = entries {
            plan = TABLES.iter().fold(plan, |plan, table| plan.size(table, entries));
        }
        let mut probe = plan.attach(cx)?;
        cx.out.line(if args.min {
            "Tracing minimum TCP RTT of closed connections... Hit Ctrl-C to end."
        } else {
            "Tracing TCP RTT... Hit Ctrl-C to end."
        });
        if rows { connections(&args, cx, probe) } else { histograms(&args, cx, &mut probe) }
    }
}

impl Options {
    /// Whether there is a histogram for each address.
    fn groups(&self) -> bool {
        self.byladdr || self.byraddr
    }

    fn by(&self) -> u8 {
        match self {
            Self { byladdr: true, .. } => BY_LADDR,
            Self { byraddr: true, .. } => BY_RADDR,
            Self { .. } => BY_NONE,
        }
    }

    /// A block per interval, until they are as long as `-d` says.
    fn pace(&self) -> Pace {
        let seconds = self.interval.unwrap_or(self.duration).get();
        Pace {
            interval: Some(Duration::from_secs(seconds.into())),
            count: Some(self.duration.get().div_ceil(seconds)),
            whole_only: false,
        }
    }
}

/// All segments, one histogram.
const ALL: &str = "all";
/// Some of them, or several histograms.
const SOME: &str = "some";
/// Histograms of connections that close.
const SUMS: &str = "sums";
/// A row per connection that closes.
const ROWS: &str = "rows";

const SEGMENTS: Ladder = Ladder {
    name: "segments",
    // All see the same; the tracepoint is the first thing that the function does, and costs least.
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("all_tp", "tcp_probe").when(Need::Asked(ALL)),
                tp_btf("some_tp", "tcp_probe").when(Need::Asked(SOME)),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("all_fentry", "tcp_rcv_established").when(Need::Asked(ALL)),
                fentry("some_fentry", "tcp_rcv_established").when(Need::Asked(SOME)),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("all_kprobe", "tcp_rcv_established").when(Need::Asked(ALL)),
                kprobe("some_kprobe", "tcp_rcv_established").when(Need::Asked(SOME)),
            ],
            less_exact: None,
        },
    ],
};

const CLOSES: Ladder = Ladder {
    name: "connections that close",
    rungs: &[Rung {
        name: RungName::Tracepoint,
        programs: &[
            tp_btf("closes_tp", "inet_sock_set_state").when(Need::Asked(SUMS)),
            tp_btf("row_tp", "inet_sock_set_state").when(Need::Asked(ROWS)).twice(),
        ],
        less_exact: None,
    }],
};

/// What may get full.
const TABLES: [&str; 2] = ["SUMS_0", "SUMS_1"];

/// The number of the first interval.
const FIRST: u32 = 1;

/// A histogram, and the address that it is of, if it is of one.
#[derive(Clone, Debug)]
pub struct Section {
    /// Whose it is; none: all addresses'.
    pub addr: Option<IpAddr>,
    /// By [`hist::slot`], in the unit of the run.
    pub slots: [u64; SLOTS],
    /// The sum, in microseconds.
    pub sum_us: u64,
}

impl Section {
    fn samples(&self) -> u64 {
        self.slots[1..].iter().sum()
    }
}

/// Where the kernel sums.
enum Sums {
    All(Counters),
    ByAddress { generations: Generations, tables: Box<[Map; 2]> },
}

impl Sums {
    fn new(args: &Options, probe: &mut Probe) -> Result<Self> {
        if !args.groups() {
            return Ok(Self::All(probe.counters("TOTAL")?));
        }
        Ok(Self::ByAddress {
            generations: probe.generations("CURRENT", FIRST)?,
            tables: Box::new([probe.table(TABLES[0])?, probe.table(TABLES[1])?]),
        })
    }

    /// What was summed since the last time, in the order of blocks; what was never measured is in slot 0.
    fn taken(&mut self, turn: &Turn<'_>) -> Result<Vec<Section>> {
        match self {
            Self::All(counters) => {
                let words: [u64; HIST_WORDS] = counters.increments()?.try_into().unwrap_or([0; HIST_WORDS]);
                let Hist { slots, sum_us } = zerocopy::transmute!(words);
                Ok(vec![Section { addr: None, slots, sum_us }])
            }
            Self::ByAddress { generations, tables } => {
                let mut sections = BTreeMap::new();
                let full = generations.turn()?;
                tables[full].drain(
                    || turn.ends(),
                    |key, value| {
                        if let (Ok(key), Ok(hist)) = (Key::read_from_bytes(key), Hist::read_from_bytes(value))
                            && let Ok(family) = key.family.try_into()
                        {
                            sections.insert(conn::ip(family, &key.addr), hist);
                        }
                    },
                )?;
                let section = |(addr, Hist { slots, sum_us })| Section { addr: Some(addr), slots, sum_us };
                Ok(sections.into_iter().map(section).collect())
            }
        }
    }
}

fn histograms(args: &Options, cx: &mut Ctx, probe: &mut Probe) -> Result<()> {
    let mut sums = Sums::new(args, probe)?;
    let mut unmeasured: u64 = 0;
    let ended = probe.sample(cx, args.pace(), |cx, turn| {
        let now_ns = cx.out.clock().monotonic_ns();
        let sections = sums.taken(turn)?;
        unmeasured += sections.iter().map(|section| section.slots[0]).sum::<u64>();
        print(args, cx, &sections, now_ns);
        Ok(())
    });
    if unmeasured > 0 {
        cx.debug(format_args!("{unmeasured} samples of connections without a measurement were left out"));
    }
    ended
}

/// One block. In JSON a row is a slot that is not empty.
fn print(args: &Options, cx: &mut Ctx, sections: &[Section], now_ns: u64) {
    cx.out.line("");
    if args.timestamp {
        let time = cx.out.clock().hms(now_ns).to_owned();
        cx.out.line(time);
    }
    let table = slot_table(args);
    for section in sections {
        let samples = section.samples();
        if samples == 0 {
            continue;
        }
        if args.json.format() == Format::Json {
            let avg_us = section.sum_us as f64 / samples as f64;
            for (bits, &count) in section.slots.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
                cx.out.row(&table, now_ns, &Slot { addr: section.addr, bits, count, avg_us, samples });
            }
            continue;
        }
        cx.out.line("");
        cx.out.line(title(args, section, samples));
        hist::print(&mut cx.out, if args.milliseconds { "msecs" } else { "usecs" }, &section.slots);
    }
}

fn title(args: &Options, section: &Section, samples: u64) -> String {
    let mean = match (args.extension, args.milliseconds) {
        (false, _) => String::new(),
        (true, false) => format!(" [AVG {}]", section.sum_us / samples),
        (true, true) => format!(" [AVG {}]", section.sum_us / samples / 1000),
    };
    match section.addr {
        None => format!("All Addresses = *******{mean}"),
        Some(addr) => {
            let end = if args.byladdr { "Local" } else { "Remote" };
            format!("{end} Address = {}{mean}", address(addr))
        }
    }
}

/// A slot of a histogram, for JSON.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Whose histogram it is.
    pub addr: Option<IpAddr>,
    /// Its number.
    pub bits: usize,
    /// Samples in it.
    pub count: u64,
    /// The mean of the histogram, in microseconds.
    pub avg_us: f64,
    /// Samples in the histogram.
    pub samples: u64,
}

/// The columns of a slot, which only JSON has.
pub fn slot_table(args: &Options) -> Table<Slot> {
    let millis = args.milliseconds;
    let addr = |s: &Slot| s.addr.map_or(Cell::Empty, Cell::Ip);
    let low = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).0.into()).about(About::count(text));
    let high = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).1.into()).about(About::count(text));
    Table::new(args.json.format())
        .col(interval())
        .col_if(
            args.byladdr,
            data("laddr", addr)
                .about(About::new(Kind::Address, "With -b: the local address.").otel("network.local.address"))
                .known_if(args.byladdr, "add -b"),
        )
        .col_if(
            args.byraddr,
            data("raddr", addr)
                .about(About::new(Kind::Address, "With -B: the remote address.").otel("network.peer.address"))
                .known_if(args.byraddr, "add -B"),
        )
        .col_if(
            !millis,
            low("low_usecs", "The shortest time that this slot counts, in microseconds; not with -m."),
        )
        .col_if(
            !millis,
            high("high_usecs", "The longest time that this slot counts, in microseconds; not with -m."),
        )
        .col_if(
            millis,
            low("low_msecs", "With -m: the shortest time that this slot counts, in milliseconds."),
        )
        .col_if(
            millis,
            high("high_msecs", "With -m: the longest time that this slot counts, in milliseconds."),
        )
        .col(data("count", |s: &Slot| s.count.into()).about(About::count("How many samples fell into it.")))
        .col_if(
            args.extension,
            data("avg_us", |s: &Slot| Cell::Float(s.avg_us)).about(About::new(
                Kind::Number,
                "With -e: the mean of the whole histogram, in microseconds.",
            )),
        )
        .col_if(
            args.extension,
            data("samples", |s: &Slot| s.samples.into())
                .about(About::count("With -e: how many samples the whole histogram has.")),
        )
}

fn connections(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    let table = table(args);
    let time = Duration::from_secs(args.duration.get().into());
    probe.stream_for(cx, Some(time), |cx: &mut Ctx, batch: &Batch| {
        for event in batch.events::<Event>() {
            cx.out.row(&table, event.ts_ns, &event);
        }
        Ok(None)
    })
}

/// The columns of a connection, which only JSON has.
pub fn table(args: &Options) -> Table<Event> {
    let min_rtt =
        |e: &Event| if e.min_rtt_us == u32::MAX { Cell::Empty } else { Cell::Unsigned(e.min_rtt_us.into()) };
    let srtt =
        |e: &Event| if e.srtt_us_8 == 0 { Cell::Empty } else { Cell::Unsigned((e.srtt_us_8 >> 3).into()) };
    Table::new(args.json.format())
        .col(data("ip", |e: &Event| Cell::Unsigned(conn::version(e.tuple.family))).about(conn::IP))
        .col(data("laddr", |e: &Event| conn::laddr(&e.tuple).into()).about(conn::LADDR))
        .col(data("lport", |e: &Event| e.tuple.lport.into()).about(conn::LPORT))
        .col(data("raddr", |e: &Event| conn::raddr(&e.tuple).into()).about(conn::RADDR))
        .col(data("rport", |e: &Event| e.tuple.rport.into()).about(conn::RPORT))
        .col(data("min_rtt_us", min_rtt).about(
            About::count(
                "The shortest round trip of its last five minutes (net.ipv4.tcp_min_rtt_wlen), in microseconds; null: none \
                 was measured.",
            )
            .or_null(),
        ))
        .col(data("srtt_us", srtt).about(
            About::count("The smoothed round-trip time at its end, in microseconds; null: none was measured.").or_null(),
        ))
        .col(data("netns", |e: &Event| e.netns.into()).about(conn::NETNS))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::out::{Clock, Out};

    fn options(words: &str) -> Options {
        let words = format!("tcprtt {words}");
        let matches =
            crate::tool::command::<Tcprtt>().try_get_matches_from(words.split_whitespace()).unwrap();
        Options::from_arg_matches(&matches).unwrap()
    }

    fn section(addr: Option<&str>, times_us: &[(u64, u64)], unit: u64) -> Section {
        let mut section =
            Section { addr: addr.map(|addr| addr.parse().unwrap()), slots: [0; SLOTS], sum_us: 0 };
        for &(time_us, count) in times_us {
            section.slots[hist::slot(time_us / unit)] += count;
            section.sum_us += time_us * count;
        }
        section
    }

    fn block(words: &str, sections: &[Section]) -> String {
        let args = options(words);
        let out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        let mut cx = Ctx::new(&Tcprtt::SPEC, out);
        print(&args, &mut cx, sections, 1);
        cx.out.take()
    }

    #[test]
    fn blocks_are_bccs() {
        assert_eq!(
            block("", &[section(None, &[(2, 12), (7, 240)], 1)]),
            "\n\
             \n\
             All Addresses = *******\n\
             \x20    usecs               : count     distribution\n\
             \x20        0 -> 1          : 0        |                                        |\n\
             \x20        2 -> 3          : 12       |**                                      |\n\
             \x20        4 -> 7          : 240      |****************************************|\n"
        );
        let text = block("-TBe", &[section(Some("10.194.87.206"), &[(170, 1), (171, 1)], 1)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["", "00:00:00", "", "Remote Address = 10.194.87.206 [AVG 170]"]);
        assert!(
            block("-b", &[section(Some("::ffff:10.0.0.1"), &[(1, 1)], 1)])
                .contains("\nLocal Address = ::ffff:10.0.0.1\n")
        );
        // Nothing was measured, or nothing arrived.
        assert_eq!(block("", &[section(None, &[], 1)]), "\n");
        let mut unmeasured = section(None, &[], 1);
        unmeasured.slots[0] = 7;
        assert_eq!(block("-e", &[unmeasured]), "\n");
        assert_eq!(block("-T -b", &[]), "\n00:00:00\n");
    }

    #[test]
    fn the_mean_is_divided_once() {
        let text = block("-me", &[section(None, &[(900, 3), (1300, 2)], 1000)]);
        assert!(text.contains("All Addresses = ******* [AVG 1]\n     msecs "), "{text}");
        let json = block("--json -e", &[section(None, &[(1, 1), (2, 1)], 1)]);
        assert!(json.lines().all(|line| line.ends_with("\"avg_us\":1.5,\"samples\":2}")), "{json}");
        assert_eq!(json.lines().count(), 2);
    }

    #[test]
    fn blocks_come_until_they_are_as_long_as_the_duration() {
        let paces = ["-i 3 -d 10", "-i 20 -d 5", "-d 5", "-i 1", ""].map(|words| {
            let pace = options(words).pace();
            (pace.interval.unwrap().as_secs(), pace.count.unwrap())
        });
        assert_eq!(paces, [(3, 4), (20, 1), (5, 1), (1, 99_999), (99_999, 1)]);
    }
}
