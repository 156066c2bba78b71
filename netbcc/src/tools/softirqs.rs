//! softirqs: per interval or until Ctrl-C, the time in each soft interrupt's handler, as totals or histograms (`-d`),
//! or how often it ran (`-C`).
//!
//! Counts: `probes-ebpf/src/bin/softirqs.rs`, per CPU, from `irq:softirq_entry` and `irq:softirq_exit`. Hard
//! interrupts inside a run belong to its time. A run that is under way at the end of an interval belongs to the next
//! one; what began before the start is left out.
//!
//! With `PREEMPT_RT`, tasks lose their processor while they run handlers, since 6.18 also to others that run the same one:
//! runs are told apart by task there, and the programs see what the kernel skips of each other (ARCHITECTURE.md, D8).
//!
//! Nanoseconds are summed and then divided once, so that many short runs count. Of equal rows the lower vector comes
//! first.
//!
//! TCP over loopback on a 6.18 kernel:
//!
//! ```text
//! # netbcc softirqs -T 1 1
//! Tracing soft irq event time... Hit Ctrl-C to end.
//!
//! 05:47:42
//! SOFTIRQ          TOTAL_usecs
//! net_rx                306722
//! rcu                     4532
//! timer                   1086
//! sched                    170
//! block                     73
//! ```

use std::cmp::Reverse;

use anyhow::{Result, bail};
use clap::Args;
use netbcc_common::softirqs::{Config, RUNS_WORDS, SLOTS};

use super::object;
use super::vectors::{NAMES, name};
use crate::error::usage;
use crate::hook::{Ladder, Need, Rung, RungName, tp_btf};
use crate::options::{Every, Json, Verbose, cpu, select};
use crate::out::{About, Cell, Format, Kind, Rows, Table, data, hist, interval, left, right};
use crate::probe::{Counters, Pace, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Softirqs;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// Print the time of day (HH:MM:SS) before each output
    #[arg(short = 'T', long, help_heading = "Output")]
    timestamp: bool,
    /// Nanoseconds instead of microseconds
    #[arg(short = 'N', long, help_heading = "Output")]
    nanoseconds: bool,
    /// How often handlers ran instead of how long
    #[arg(short = 'C', long, help_heading = "Output")]
    events: bool,
    /// Add how often handlers ran to how long
    #[arg(long = "count", help_heading = "Output")]
    counts: bool,
    /// Histograms of how long single runs took
    #[arg(short = 'd', long, alias = "distributed", help_heading = "Output")]
    dist: bool,
    /// This CPU only
    #[arg(short = 'c', long, value_name = "CPU", value_parser = cpu, help_heading = "Filters")]
    cpu: Option<u32>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    #[command(flatten)]
    every: Every,
}

impl Tool for Softirqs {
    const SPEC: Spec = Spec {
        name: "softirqs",
        about: "Summarize soft irq event time as totals or histograms",
        description: &[
            "Sums the time that the handlers of soft interrupts take, per kind, and prints the sums once per interval \
             or, without one, at Ctrl-C. -C counts instead how often they ran, and -d shows how long single runs took \
             as a histogram of powers of two.",
            "Hard interrupts in the middle of a run belong to its time. A run that is under way at the end of an \
             interval belongs to the next one.",
        ],
        examples: &[
            ("softirqs", "sum time per soft irq until Ctrl-C"),
            ("softirqs 1 10", "print 1-second summaries, 10 times"),
            ("softirqs -NT 1", "1-second summaries, in ns, with the time of day"),
            ("softirqs -d", "as histograms"),
            ("softirqs -C 1", "how often per second"),
            ("softirqs -c 1", "CPU 1 only"),
            ("softirqs --count 1", "how long and how often"),
        ],
        overhead: "Runs two short programs per run of a handler (one with -C): network load makes tens of thousands \
                   per second. Nothing is sent to user space but the sums.",
        differences: &[
            "What arrives while a block is printed belongs to the next one; BCC loses it.",
            "Wrong options, intervals and CPUs are refused before anything is loaded.",
            "With libbpf-tools, -C adds a column; here that is --count.",
        ],
        refuses: &[
            (select::ENDS, "a soft interrupt is of no connection"),
            (select::TASKS, "a soft interrupt is of no process"),
            (&[select::NETNS], "a soft interrupt is of no network namespace"),
        ],
        object: object!("softirqs"),
        ladders: &[RUNS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Totals", table(args)).used_if(!args.dist),
            Rows::new("Slots of histograms, with -d", slot_table(args))
                .used_if(args.dist && args.json.format() == Format::Json),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        if args.events && (args.dist || args.nanoseconds || args.counts) {
            bail!(usage("The --events option can't be used with time-based options"));
        }
        if args.dist && args.counts {
            bail!(usage("The --count option can't be used with histograms, which count"));
        }
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let config = Config {
            cpu: args.cpu.unwrap_or_default(),
            by_cpu: args.cpu.is_some().into(),
            events: args.events.into(),
            dist: args.dist.into(),
            nanoseconds: args.nanoseconds.into(),
        };
        let plan = Plan::new(cx).ladder(&RUNS).global("CONFIG", &config);
        let plan = match &args {
            Options { events: true, .. } => plan.ask_by_turns(&[SOME], &[BY_TASK])?,
            Options { dist: false, cpu: None, .. } => plan.ask_by_turns(&[TOTALS], TIMES_BY_TASK)?,
            _ => plan.ask_by_turns(&[SOME, TIME_OF_SOME], TIMES_BY_TASK)?,
        };
        let mut probe = plan.attach(cx)?;
        cx.out.line(if args.events {
            "Tracing soft irq events... Hit Ctrl-C to end."
        } else {
            "Tracing soft irq event time... Hit Ctrl-C to end."
        });
        let mut counters = probe.counters(if args.dist { "DIST" } else { "RUNS" })?;
        probe.sample(cx, Pace::from(args.every), |cx, _| {
            let now_ns = cx.out.clock().monotonic_ns();
            cx.out.line("");
            if args.timestamp {
                let time = cx.out.clock().hms(now_ns).to_owned();
                cx.out.line(time);
            }
            if args.dist {
                histograms(&args, cx, &mut counters, now_ns)
            } else {
                totals(&args, cx, &mut counters, now_ns)
            }
        })
    }
}

/// All CPUs' totals of time.
const TOTALS: &str = "totals";
/// Counts, histograms or one CPU.
const SOME: &str = "some";
/// Times, by programs that can also count, make histograms or look at one CPU.
const TIME_OF_SOME: &str = "time of some";
/// Anything, where tasks take turns.
const BY_TASK: &str = "by task";
/// Times, where tasks take turns.
const TIME_BY_TASK: &str = "time by task";
const TIMES_BY_TASK: &[&str] = &[BY_TASK, TIME_BY_TASK];

const RUNS: Ladder = Ladder {
    name: "runs of handlers",
    // Every kernel that has BTF has these, and nothing sees more.
    rungs: &[Rung {
        name: RungName::Tracepoint,
        programs: &[
            tp_btf("entry_tp", "softirq_entry").when(Need::Asked(TOTALS)),
            tp_btf("exit_tp", "softirq_exit").when(Need::Asked(TOTALS)),
            tp_btf("entry_of_some_tp", "softirq_entry").when(Need::Asked(SOME)),
            tp_btf("exit_of_some_tp", "softirq_exit").when(Need::Asked(TIME_OF_SOME)),
            tp_btf("entry_of_task_tp", "softirq_entry").when(Need::Asked(BY_TASK)).twice(),
            tp_btf("exit_of_task_tp", "softirq_exit").when(Need::Asked(TIME_BY_TASK)).twice(),
        ],
        less_exact: None,
    }],
};

const SOFTIRQ: About = About::new(Kind::Word(&NAMES), "The kind of soft interrupt.");

/// A vector's total.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    /// The vector.
    pub vector: usize,
    /// Time in its handler, ns.
    pub time_ns: u64,
    /// Runs of its handler.
    pub count: u64,
}

/// BCC's columns.
pub fn table(args: &Options) -> Table<Total> {
    let nanos = args.nanoseconds;
    Table::new(args.json.format())
        .col(interval())
        .col(left("SOFTIRQ", 16, |t: &Total| Cell::Label(name(t.vector))).about(SOFTIRQ))
        .col_if(
            !args.events && nanos,
            right("TOTAL_nsecs", 11, |t: &Total| t.time_ns.into())
                .about(About::count("With -N: the time in its handler, in nanoseconds."))
                .known_if(!args.events, TIMES),
        )
        // The sum is divided, not what it is made of.
        .col_if(
            !args.events && !nanos,
            right("TOTAL_usecs", 11, |t: &Total| (t.time_ns / 1000).into())
                .about(About::count("The time in its handler, in microseconds; not with -N or -C."))
                .known_if(!args.events, TIMES),
        )
        .col_if(
            args.events || args.counts,
            right("TOTAL_count", 11, |t: &Total| t.count.into())
                .about(About::count("With -C or --count: how often its handler ran.")),
        )
}

/// One block of totals.
fn totals(args: &Options, cx: &mut Ctx, counters: &mut Counters, now_ns: u64) -> Result<()> {
    let increments = counters.increments()?;
    let mut totals: Vec<Total> = increments
        .chunks_exact(RUNS_WORDS)
        .enumerate()
        // The first word is when the run under way began.
        .map(|(vector, words)| Total { vector, time_ns: time_ns(words[1]), count: words[2] })
        .filter(|total| total.count > 0)
        .collect();
    print_totals(args, cx, &mut totals, now_ns);
    Ok(())
}

/// A sum of times. The kernel's fast clock may go back a little while it is adjusted; a sum of nothing else is 0.
fn time_ns(sum: u64) -> u64 {
    if sum.cast_signed() < 0 { 0 } else { sum }
}

fn print_totals(args: &Options, cx: &mut Ctx, totals: &mut [Total], now_ns: u64) {
    let events = args.events;
    totals.sort_by_key(|total| (Reverse(if events { total.count } else { total.time_ns }), total.vector));
    let table = table(args);
    cx.out.header(&table);
    for total in totals {
        cx.out.row(&table, now_ns, total);
    }
}

/// What makes a run know times.
const TIMES: &str = "leave -C out";

/// A slot of a histogram, for JSON.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    vector: usize,
    bits: usize,
    count: u64,
}

/// One block of histograms. In JSON a row is a slot that is not empty.
fn histograms(args: &Options, cx: &mut Ctx, counters: &mut Counters, now_ns: u64) -> Result<()> {
    let increments = counters.increments()?;
    let table = slot_table(args);
    for (vector, slots) in increments.chunks_exact(SLOTS as usize).enumerate() {
        if slots.iter().all(|&count| count == 0) {
            continue;
        }
        if args.json.format() == Format::Text {
            cx.out.line("");
            cx.out.line(format_args!("softirq = {}", name(vector)));
            hist::print(&mut cx.out, if args.nanoseconds { "nsecs" } else { "usecs" }, slots);
            continue;
        }
        for (bits, &count) in slots.iter().enumerate().filter(|(_, count)| **count > 0) {
            cx.out.row(&table, now_ns, &Slot { vector, bits, count });
        }
    }
    Ok(())
}

/// The columns of a slot, which only JSON has.
pub fn slot_table(args: &Options) -> Table<Slot> {
    let nanos = args.nanoseconds;
    let low = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).0.into()).about(About::count(text));
    let high = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).1.into()).about(About::count(text));
    Table::new(args.json.format())
        .col(interval())
        .col(data("softirq", |s: &Slot| Cell::Label(name(s.vector))).about(SOFTIRQ))
        .col_if(
            !nanos,
            low("low_usecs", "The shortest run that this slot counts, in microseconds; not with -N."),
        )
        .col_if(
            !nanos,
            high("high_usecs", "The longest run that this slot counts, in microseconds; not with -N."),
        )
        .col_if(nanos, low("low_nsecs", "With -N: the shortest run that this slot counts, in nanoseconds."))
        .col_if(nanos, high("high_nsecs", "With -N: the longest run that this slot counts, in nanoseconds."))
        .col(data("count", |s: &Slot| s.count.into()).about(About::count("How many runs took so long.")))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::out::{Clock, Out};

    fn block(words: &str, totals: &[(usize, u64, u64)]) -> String {
        let words = format!("softirqs {words}");
        let matches =
            crate::tool::command::<Softirqs>().try_get_matches_from(words.split_whitespace()).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let mut totals: Vec<Total> =
            totals.iter().map(|&(vector, time_ns, count)| Total { vector, time_ns, count }).collect();
        let out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        let mut cx = Ctx::new(&Softirqs::SPEC, out);
        print_totals(&args, &mut cx, &mut totals, 1);
        cx.out.take()
    }

    #[test]
    fn totals_are_sorted_and_divided_once() {
        let totals =
            [(1, 306_256_999, 3), (9, 999, 7), (7, 182_360_000, 9), (12, 182_360_000, 1), (3, u64::MAX, 2)];
        assert_eq!(
            block("", &totals),
            "SOFTIRQ          TOTAL_usecs\n\
             net_rx           18446744073709551\n\
             timer                 306256\n\
             sched                 182360\n\
             vec_12                182360\n\
             rcu                        0\n"
        );
        assert_eq!(
            block("-N", &totals[1..2]),
            "SOFTIRQ          TOTAL_nsecs\nrcu                      999\n"
        );
        assert_eq!(
            block("-C", &totals[..2]),
            "SOFTIRQ          TOTAL_count\nrcu                        7\ntimer                      3\n"
        );
        assert_eq!(
            block("--count", &totals[..1]),
            "SOFTIRQ          TOTAL_usecs TOTAL_count\ntimer                 306256           3\n"
        );
        assert_eq!(block("", &[]), "SOFTIRQ          TOTAL_usecs\n");
    }

    #[test]
    fn a_clock_that_went_back_is_no_time() {
        assert_eq!([0, 7, 5_u64.wrapping_sub(7)].map(time_ns), [0, 7, 0]);
    }

    #[test]
    fn json_rows_are_flat() {
        assert!(
            block("--json -N", &[(3, 5, 1)])
                .ends_with("\"ts_ns\":1,\"interval_ns\":0,\"softirq\":\"net_rx\",\"total_nsecs\":5}\n")
        );
    }
}
