//! netqtop: per interval, packets by size and their mean size on each queue of one network interface.
//!
//! Counts: `probes-ebpf/src/bin/netqtop.rs`, per CPU and queue, from `net:net_dev_start_xmit` and
//! `net:netif_receive_skb`. A packet is the kernel's: up to 64 KB before segmentation or after merging, on TX with its
//! link header, on RX without. RX queue ids are as good as the driver: where it records none, all is queue 0. veth
//! leaves the sender's TX queue there, so that what was sent from queue 2 is received on queue 1.
//!
//! A bond, team, VLAN or macvlan shows no RX, as in BCC: its packets are received once, by the device below it.
//!
//! The interface is the one that has the name at the start, in this network namespace; BCC goes on by name, in all
//! namespaces, and loses what arrives while it reads its table.
//!
//! Requests of 20000 bytes by TCP and short answers, over a veth pair with two queues each, on a 6.18 kernel:
//!
//! ```text
//! # netbcc netqtop -n eth0 -t
//! Tue Nov 24 11:22:33 2026
//! TX
//!  QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) BPS        PPS
//!  0          19.3K      0          9          0          12         1.12K      22.07M     1.14K
//!  1          19.28K     1          9          0          12         1.13K      22.18M     1.15K
//!  Total      19.29K     1          18         0          24         2.25K      44.25M     2.29K
//!
//! RX
//!  QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) BPS        PPS
//!  0          201.3      2.28K      2.26K      0          0          0          914.48K    4.54K
//!  1          0          0          0          0          0          0          0.0        0.0
//!  Total      201.3      2.28K      2.26K      0          0          0          914.48K    4.54K
//! -----------------------------------------------------------------------------------------------
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use netbcc_common::netqtop::{Config, QUEUE_WORDS, SIZES};

use super::object;
use crate::error::usage;
use crate::hook::{Ladder, Rung, RungName, raw_tp, tp_btf};
use crate::options::{Json, Verbose, select};
use crate::out::{About, Cell, Format, Kind, Rows, Table, data, interval, left};
use crate::probe::{Pace, Plan, Watched};
use crate::sys::link::{self, Departures, Link};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Netqtop;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// The network interface to look at; required
    #[arg(short = 'n', long, help_heading = "Filters")]
    name: Option<String>,
    /// Seconds between outputs; fractions are fine
    #[arg(short = 'i', long, value_parser = seconds, default_value = "1", allow_negative_numbers = true)]
    interval: f64,
    /// Add bytes and packets per second (BPS, PPS)
    #[arg(short = 't', long, help_heading = "Output")]
    throughput: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

/// The shortest interval: one of which a millisecond is left to print a block.
const LEAST: f64 = 0.001;
/// The longest: more than the clock has.
const MOST: f64 = u32::MAX as f64;

/// Parses a number of seconds. What is not above zero is refused later, in BCC's words.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds =
        text.parse().ok().filter(|&seconds: &f64| seconds <= 0.0 || (LEAST..=MOST).contains(&seconds));
    seconds.ok_or_else(|| format!("not a number of seconds from {LEAST} to {MOST}"))
}

/// More queues per direction are refused, as in BCC.
const MOST_QUEUES: usize = 1024;

impl Tool for Netqtop {
    const SPEC: Spec = Spec {
        name: "netqtop",
        about: "Show packets and sizes per queue of a network interface",
        description: &[
            "Prints, once per interval, a block for each direction of one network interface. A row is a queue: how \
             many packets of which size passed it, and their mean size. The last row of a block is the sum.",
            "A packet is what the kernel counts as one: up to 64 KB before it is cut for the wire, or after packets \
             that arrived were merged. What is sent counts with its link header, what is received without.",
            "The queue on which a packet was received is as good as the driver: where it records none, all is queue \
             0. A bond, team, VLAN or macvlan shows nothing as received: its packets are received by the interface \
             below it.",
        ],
        examples: &[
            ("netqtop -n enp1s0", "every second, the queues of enp1s0"),
            ("netqtop -n enp1s0 -i 2", "every 2 seconds"),
            ("netqtop -n enp1s0 -t", "with bytes and packets per second"),
            ("netqtop -n enp1s0 --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per packet that any interface sends or receives; other interfaces' packets \
                   are left after one comparison. Counts are per CPU; nothing is sent to user space but the sums.",
        differences: &[
            "The interface is followed by its number and network namespace: others of the same name do not count, \
             and it may be renamed. When it is removed, or moved to another namespace, the tool says so and exits \
             with 1.",
            "What arrives while a block is printed belongs to the next one; BCC loses it. Counters do not wrap.",
            "Errors go to stderr and exit with 1, wrong options with 2.",
            "As in BCC: packets of queues without a row are in Total only, and packets of 64 KB and more are in no \
             size class but in all other columns; JSON has both. The RX table of a bond, team, VLAN or macvlan \
             stays at zero: look at the interface below it.",
        ],
        refuses: &[
            (select::ENDS, "packets are counted by queue, whatever is in them"),
            (select::TASKS, "packets are counted by queue, whoever sends them"),
            (&[select::NETNS], "an interface is one of the network namespace in which netqtop runs"),
        ],
        object: object!("netqtop"),
        ladders: &[PACKETS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        // Listens before it looks, so that nothing is missed.
        let departures = Departures::listen()?;
        let (name, link) = find(&args)?;
        let interval =
            Duration::try_from_secs_f64(args.interval).map_err(|error| usage(error.to_string()))?;
        let mut probe = Plan::new(cx)
            .ladder(&PACKETS)
            .global("CONFIG", &config(&link)?)
            .size("QUEUES", entries(&link)?)
            .attach(cx)?;
        let mut counters = probe.counters("QUEUES")?;
        let watched = Watched {
            descriptor: departures.descriptor().context("watch the interface")?,
            look: Box::new(move || {
                let Some(last) = departures.left(link.index)? else { return Ok(()) };
                // It may have been renamed.
                let name = if last.is_empty() { &name } else { &last };
                bail!("the network interface {name} is gone: it was removed, or moved to another namespace")
            }),
        };
        // BCC prints nothing at Ctrl-C.
        let pace = Pace { interval: Some(interval), count: None, whole_only: true };
        probe.sample_watching(cx, pace, watched, |cx, turn| {
            let now_ns = cx.out.clock().monotonic_ns();
            print(&args, cx, &queues(&link, &counters.increments()?, turn.span), now_ns);
            Ok(())
        })
    }
}

/// The interface that is asked for. The sentences are BCC's without its typing error, and so is their order.
fn find(args: &Options) -> Result<(String, Link)> {
    let name = args.name.clone().unwrap_or_default();
    link::check_name(&name)?;
    if args.interval <= 0.0 {
        bail!(usage("print interval must be non-zero"));
    }
    let Some(link) = link::find(&name)? else { bail!("Net interface {name} does not exist.") };
    if link.tx_queues.max(link.rx_queues) > MOST_QUEUES {
        bail!("number of queues over {MOST_QUEUES} is not supported.");
    }
    Ok((name, link))
}

fn config(link: &Link) -> Result<Config> {
    Ok(Config {
        ifindex: link.index,
        netns: link.netns,
        tx_queues: link.tx_queues.try_into()?,
        rx_queues: link.rx_queues.try_into()?,
    })
}

/// One per queue, and one per direction for all queues that have none.
fn entries(link: &Link) -> Result<u32> {
    Ok((link.tx_queues + 1 + link.rx_queues + 1).try_into()?)
}

const PACKETS: Ladder = Ladder {
    name: "packets",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("sent_tp", "net_dev_start_xmit"), tp_btf("received_tp", "netif_receive_skb")],
            less_exact: None,
        },
        // Sees the same, and costs more.
        Rung {
            name: RungName::RawTp,
            programs: &[
                raw_tp("sent_raw", "net_dev_start_xmit"),
                raw_tp("received_raw", "netif_receive_skb"),
            ],
            less_exact: None,
        },
    ],
};

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent.
    Tx,
    /// Received.
    Rx,
}

/// What one queue did in an interval, or all of them.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Of which direction.
    pub direction: Direction,
    /// Its number; none: the sum of all, also of those without a row.
    pub queue: Option<u64>,
    /// Bytes of all packets.
    pub bytes: u64,
    /// Packets by size; the last are in no column of the text.
    pub packets: [u64; SIZES],
    /// The time that it covers, as it was measured, s.
    pub interval_s: f64,
}

impl Row {
    fn all_packets(&self) -> u64 {
        self.packets.iter().sum()
    }

    /// BCC's zero is an integer, and all else is a float.
    fn avg_size(&self) -> Cell<'_> {
        match self.all_packets() {
            0 => Cell::Scaled(0),
            packets => Cell::ScaledFloat(self.bytes as f64 / packets as f64),
        }
    }

    fn add(&mut self, words: &[u64]) {
        if let Some((bytes, packets)) = words.split_first() {
            self.bytes += bytes;
            self.packets.iter_mut().zip(packets).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let rates = args.throughput;
    Table::new(args.json.format())
        .lead(" ")
        .col(interval())
        .col(
            data("direction", |r: &Row| match r.direction {
                Direction::Tx => "tx".into(),
                Direction::Rx => "rx".into(),
            })
            .about(
                About::new(Kind::Word(&["tx", "rx"]), "Whether it was sent or received.")
                    .otel("network.io.direction"),
            ),
        )
        .col(
            left("QueueID", 11, |r: &Row| r.queue.map_or("Total".into(), Cell::Unsigned))
                .gap("")
                .except(Format::Json)
                .about(About::text(
                    "The number of the queue; Total is the sum of all, also of those without a row.",
                )),
        )
        .col(
            data("queue", |r: &Row| r.queue.map_or(Cell::Empty, Cell::Unsigned)).about(
                About::count("The number of the queue; null is the sum of all, also of those without a row.")
                    .or_null(),
            ),
        )
        .col(data("bytes", |r: &Row| r.bytes.into()).about(About::count("Bytes of all packets.")))
        .col(data("packets", |r: &Row| r.all_packets().into()).about(About::count("All packets.")))
        .col(
            left("avg_size", 11, Row::avg_size)
                .gap("")
                .about(About::new(Kind::Number, "The mean size of a packet, in bytes.")),
        )
        .col(
            left("[0, 64)", 11, |r: &Row| Cell::Scaled(r.packets[0]))
                .gap("")
                .key("under_64")
                .about(About::count("Packets of less than 64 bytes.")),
        )
        .col(
            left("[64, 512)", 11, |r: &Row| Cell::Scaled(r.packets[1]))
                .gap("")
                .key("under_512")
                .about(About::count("Packets of 64 to 511 bytes.")),
        )
        .col(
            left("[512, 2K)", 11, |r: &Row| Cell::Scaled(r.packets[2]))
                .gap("")
                .key("under_2k")
                .about(About::count("Packets of 512 to 2047 bytes.")),
        )
        .col(
            left("[2K, 16K)", 11, |r: &Row| Cell::Scaled(r.packets[3]))
                .gap("")
                .key("under_16k")
                .about(About::count("Packets of 2048 to 16383 bytes.")),
        )
        .col(
            left("[16K, 64K)", 11, |r: &Row| Cell::Scaled(r.packets[4]))
                .gap("")
                .key("under_64k")
                .about(About::count("Packets of 16384 to 65535 bytes.")),
        )
        .col(
            data("from_64k", |r: &Row| r.packets[5].into())
                .about(About::count("Packets of 65536 bytes and more, which are in no column of the text.")),
        )
        .col_if(
            rates,
            left("BPS", 11, |r: &Row| Cell::ScaledFloat(r.bytes as f64 / r.interval_s))
                .gap("")
                .key("bytes_per_s")
                .always(Format::Json)
                .about(About::new(Kind::Number, "With -t: bytes per second.")),
        )
        .col_if(
            rates,
            left("PPS", 11, |r: &Row| Cell::ScaledFloat(r.all_packets() as f64 / r.interval_s))
                .gap("")
                .key("packets_per_s")
                .always(Format::Json)
                .about(About::new(Kind::Number, "With -t: packets per second.")),
        )
}

/// The rows of both directions, each ending with its sum.
fn queues(link: &Link, increments: &[u64], span: Duration) -> [Vec<Row>; 2] {
    let (tx, rx) = increments.split_at(increments.len().min((link.tx_queues + 1) * QUEUE_WORDS));
    [(Direction::Tx, tx, link.tx_queues), (Direction::Rx, rx, link.rx_queues)].map(
        |(direction, words, shown)| {
            let none =
                Row { direction, queue: None, bytes: 0, packets: [0; SIZES], interval_s: span.as_secs_f64() };
            let mut total = none;
            let mut rows = Vec::new();
            for (queue, words) in (0..).zip(words.chunks_exact(QUEUE_WORDS)) {
                total.add(words);
                if rows.len() < shown {
                    let mut row = Row { queue: Some(queue), ..none };
                    row.add(words);
                    rows.push(row);
                }
            }
            rows.push(total);
            rows
        },
    )
}

/// One block.
fn print(args: &Options, cx: &mut Ctx, queues: &[Vec<Row>; 2], now_ns: u64) {
    let table = table(args);
    let time = cx.out.clock().asctime(now_ns);
    cx.out.line(time);
    for (title, rows) in ["TX", "RX"].into_iter().zip(queues) {
        if title == "RX" {
            cx.out.line("");
        }
        cx.out.line(title);
        cx.out.header(&table);
        for row in rows {
            cx.out.row(&table, now_ns, row);
        }
    }
    cx.out.line("-".repeat(if args.throughput { 95 } else { 77 }));
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::out::{Clock, Out};

    fn options(words: &str) -> Options {
        let words = format!("netqtop {words}");
        let matches =
            crate::tool::command::<Netqtop>().try_get_matches_from(words.split_whitespace()).unwrap();
        Options::from_arg_matches(&matches).unwrap()
    }

    /// A block of an interface with two TX queues and one RX queue.
    fn block(words: &str, increments: &[[u64; QUEUE_WORDS]; 5]) -> String {
        let args = options(words);
        let link = Link { index: 1, netns: 1, tx_queues: 2, rx_queues: 1 };
        assert_eq!(entries(&link).unwrap(), 5);
        // Monotonic 0 is 2023-01-03 06:38:55 UTC.
        let out = Out::memory(args.json.format(), Clock::fixed(1_672_727_935_000_000_000, 1));
        let mut cx = Ctx::new(&Netqtop::SPEC, out);
        let span = Duration::from_secs_f64(args.interval);
        cx.out.set_interval(span);
        print(&args, &mut cx, &queues(&link, increments.as_flattened(), span), 0);
        cx.out.take()
    }

    #[test]
    fn blocks_are_bccs() {
        let increments = [
            [550 * 2, 0, 11, 0, 0, 0, 0],
            [0; QUEUE_WORDS],
            [64, 0, 1, 0, 0, 0, 0],
            [3_000_000 + 65_549, 1000, 1500, 0, 0, 1, 1],
            [10, 1, 0, 0, 0, 0, 0],
        ];
        assert_eq!(
            block("-t -i 2", &increments),
            "Tue Jan  3 07:38:55 2023\n\
             TX\n \
             QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) BPS        PPS        \n \
             0          100.0      0          11         0          0          0          550.0      5.5        \n \
             1          0          0          0          0          0          0          0.0        0.0        \n \
             Total      97.0       0          12         0          0          0          582.0      6.0        \n\
             \n\
             RX\n \
             QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) BPS        PPS        \n \
             0          1.2K       1000       1.46K      0          0          1          1.46M      1.22K      \n \
             Total      1.2K       0.98K      1.46K      0          0          1          1.46M      1.22K      \n\
             -----------------------------------------------------------------------------------------------\n"
        );
        let text = block("", &[[0; QUEUE_WORDS]; 5]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 12);
        assert_eq!(
            lines[2],
            " QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) "
        );
        assert_eq!(
            lines[5],
            " Total      0          0          0          0          0          0          "
        );
        assert_eq!(lines[11], "-".repeat(77));
    }

    #[test]
    fn json_rows_are_flat_and_hold_everything() {
        let text = block("--json -i 0.5", &[[65_549, 0, 0, 0, 0, 0, 1]; 5]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[4].ends_with(
            ",\"ts_ns\":0,\"interval_ns\":500000000,\"direction\":\"rx\",\"queue\":null,\"bytes\":131098,\"packets\":2,\"avg_size\":65549,\
             \"under_64\":0,\"under_512\":0,\"under_2k\":0,\"under_16k\":0,\"under_64k\":0,\"from_64k\":2,\
             \"bytes_per_s\":262196,\"packets_per_s\":4}"
        ));
    }

    #[test]
    fn intervals_as_people_type_them() {
        for (text, expected) in
            [("1", 1.0), ("0.5", 0.5), (".25", 0.25), ("1e3", 1000.0), ("0", 0.0), ("-1", -1.0)]
        {
            assert_eq!(seconds(text), Ok(expected));
        }
        for junk in ["", "x", "nan", "inf", "1e300", "0.0001", "1 s"] {
            assert!(seconds(junk).is_err(), "{junk:?}");
        }
        assert_eq!(seconds("-inf"), Ok(f64::NEG_INFINITY), "refused as everything below zero");
    }
}
