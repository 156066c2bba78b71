//! hardirqs: per interval or until Ctrl-C, the time in each hard interrupt's handler, by the handler's name, as totals or
//! histograms (`-d`), or how often it handled one (`-C`).
//!
//! Sums: `probes-ebpf/src/bin/hardirqs.rs`, per handler and CPU, from `irq:irq_handler_entry` and `irq:irq_handler_exit`. Handlers of
//! equal names are one row, as in BCC. A call that is under way at the end of an interval belongs to the next one; what began before
//! the start is left out, and so are calls of which the handler said that the interrupt was not its device's.
//!
//! Nanoseconds are summed and then divided once, so that many short calls count. Equal rows are sorted by name.
//!
//! A virtual machine's disk and network on a 6.18 kernel:
//!
//! ```text
//! # netbcc hardirqs 1 1
//! Tracing hard irq event time... Hit Ctrl-C to end.
//!
//! HARDIRQ                    TOTAL_usecs
//! virtio2-output.0                 11441
//! virtio1-req.0                      943
//! ACPI:Ged                             2
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use clap::Args;
use netbcc_common::hardirqs::{Config, Key, SlotKey, Sums, VECTORS};
use zerocopy::FromBytes as _;

use super::object;
use crate::error::usage;
use crate::hook::{Ladder, Need, Prog, Rung, RungName, raw_tp, tp_btf};
use crate::options::{Every, FILTERS, Json, OUTPUT, Verbose, cpu, select};
use crate::out::{About, Cell, Format, Kind, Rows, Table, data, escaped, hist, interval, left, right};
use crate::probe::{Generations, Pace, Plan, Probe, Table as Map, Turn};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Hardirqs;

/// Its options.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Options {
    /// Print the time of day (HH:MM:SS) before each output
    #[arg(short = 'T', long, help_heading = OUTPUT)]
    timestamp: bool,
    /// Nanoseconds instead of microseconds
    #[arg(short = 'N', long, help_heading = OUTPUT)]
    nanoseconds: bool,
    /// How often handlers handled an interrupt instead of how long
    #[arg(short = 'C', long = "count", help_heading = OUTPUT)]
    counts: bool,
    /// Histograms of how long single calls took
    #[arg(short = 'd', long, alias = "distributed", help_heading = OUTPUT)]
    dist: bool,
    /// Each CPU by itself
    #[arg(long, help_heading = OUTPUT)]
    per_cpu: bool,
    /// x86: also the interrupts of the CPU itself, as timers
    #[arg(long, help_heading = FILTERS)]
    vectors: bool,
    /// This CPU only
    #[arg(short = 'c', short_alias = 's', long, value_name = "CPU", value_parser = cpu, help_heading = FILTERS)]
    cpu: Option<u32>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    #[command(flatten)]
    every: Every,
}

impl Tool for Hardirqs {
    const SPEC: Spec = Spec {
        name: "hardirqs",
        about: "Summarize hard irq event time as totals or histograms",
        description: &[
            "Sums the time that the handlers of hard interrupts take, by the name of the handler, and prints the sums once per \
             interval or, without one, at Ctrl-C. -C counts instead how often they handled one, and -d shows how long single \
             calls took as a histogram of powers of two.",
            "The time is that of the call itself: soft interrupts come after it (softirqs), and what a threaded handler leaves to its \
             thread (irq/NN-NAME; with PREEMPT_RT nearly everything) is that task's. A line that several devices share calls the \
             handlers of all; those that say that it was not their device do not count. A call that is under way at the end of an \
             interval belongs to the next one.",
            "On x86 the local timer and what CPUs tell each other are no interrupts of a device: a machine that spends its time there \
             looks idle but with --vectors. On arm64 they have rows of their own.",
        ],
        examples: &[
            ("hardirqs", "sum time per handler until Ctrl-C"),
            ("hardirqs 1 10", "print 1-second summaries, 10 times"),
            ("hardirqs -NT 1", "1-second summaries, in ns, with the time of day"),
            ("hardirqs -d", "as histograms"),
            ("hardirqs -C 1", "how often per second"),
            ("hardirqs -c 1", "CPU 1 only"),
            ("hardirqs --per-cpu 1", "which CPUs they keep busy"),
            ("hardirqs --vectors 1", "x86: also timers and other CPUs' calls"),
        ],
        overhead: "Runs two short programs per call of a handler (one with -C); --vectors, also two per timer interrupt and per call \
                   from another CPU. Nothing is sent to user space but the sums.",
        differences: &[
            "BCC has room for 64 names, or with -d for 64 pairs of a name and a slot, and drops the rest in silence. Here there is room \
             for 16384 handlers, each CPU's by itself, and what does not fit is counted and said.",
            "What arrives while a block is printed belongs to the next one; BCC loses it.",
            "Wrong options, intervals and CPUs are refused before anything is loaded. The refusal of -C with -d or -N goes to \
             standard error.",
            "With libbpf-tools -C is --per-cpu, which adds a column here, and -c is a cgroup. Its columns count and max are in --json.",
        ],
        refuses: &[
            (select::ENDS, "a hard interrupt is of no connection"),
            (select::TASKS, "a hard interrupt is of no process"),
            (&[select::NETNS], "a hard interrupt is of no network namespace"),
        ],
        object: object!("hardirqs"),
        ladders: &[CALLS, OF_CPU],
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
        if args.counts && (args.dist || args.nanoseconds) {
            bail!(usage("The --count option can't be used with time-based options"));
        }
        if args.vectors && !cfg!(target_arch = "x86_64") {
            bail!(usage(
                "--vectors: these interrupts have tracepoints of their own on x86 only; here they have rows"
            ));
        }
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let config = Config {
            cpu: args.cpu.unwrap_or_default(),
            by_cpu: args.cpu.is_some().into(),
            counts: args.counts.into(),
            dist: args.dist.into(),
            nanoseconds: args.nanoseconds.into(),
        };
        let mut plan =
            Plan::new(cx).ladder(&CALLS).global("CONFIG", &config).entry("CURRENT", &0_u32, &FIRST);
        if args.vectors {
            plan = plan.ladder(&OF_CPU);
        }
        if !args.counts {
            plan = plan.ask(TIMES);
        }
        let mut probe = plan.attach(cx)?;
        cx.out.line(if args.counts {
            "Tracing hard irq events... Hit Ctrl-C to end."
        } else {
            "Tracing hard irq event time... Hit Ctrl-C to end."
        });
        let mut tables = Tables::new(&args, &mut probe)?;
        probe.sample(cx, Pace::from(args.every), |cx, turn| {
            let block = tables.taken(&args, turn)?;
            let now_ns = cx.out.clock().monotonic_ns();
            cx.out.line("");
            if args.timestamp {
                let time = cx.out.clock().hms(now_ns).to_owned();
                cx.out.line(time);
            }
            if args.dist {
                histograms(&args, cx, block, now_ns);
            } else {
                totals(&args, cx, block, now_ns);
            }
            Ok(())
        })
    }
}

/// The number of the first interval.
const FIRST: u32 = 1;

/// How long calls take.
const TIMES: &str = "times";

const CALLS: Ladder = Ladder {
    name: "calls of handlers",
    rungs: &[
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("entry_tp", "irq_handler_entry").when(Need::Asked(TIMES)),
                tp_btf("exit_tp", "irq_handler_exit"),
            ],
            less_exact: None,
        },
        // Sees the same, and costs more.
        Rung {
            name: RungName::RawTp,
            programs: &[
                raw_tp("entry_raw", "irq_handler_entry").when(Need::Asked(TIMES)),
                raw_tp("exit_raw", "irq_handler_exit"),
            ],
            less_exact: None,
        },
    ],
};

/// Those of [`VECTORS`].
const OF_CPU_PROGRAMS: &[Prog] = &[
    raw_tp("local_timer_entry_raw", "local_timer_entry").when(Need::IfThere),
    raw_tp("local_timer_exit_raw", "local_timer_exit").when(Need::IfThere),
    raw_tp("reschedule_entry_raw", "reschedule_entry").when(Need::IfThere),
    raw_tp("reschedule_exit_raw", "reschedule_exit").when(Need::IfThere),
    raw_tp("call_function_entry_raw", "call_function_entry").when(Need::IfThere),
    raw_tp("call_function_exit_raw", "call_function_exit").when(Need::IfThere),
    raw_tp("call_function_single_entry_raw", "call_function_single_entry").when(Need::IfThere),
    raw_tp("call_function_single_exit_raw", "call_function_single_exit").when(Need::IfThere),
    raw_tp("irq_work_entry_raw", "irq_work_entry").when(Need::IfThere),
    raw_tp("irq_work_exit_raw", "irq_work_exit").when(Need::IfThere),
    raw_tp("x86_platform_ipi_entry_raw", "x86_platform_ipi_entry").when(Need::IfThere),
    raw_tp("x86_platform_ipi_exit_raw", "x86_platform_ipi_exit").when(Need::IfThere),
    raw_tp("thermal_apic_entry_raw", "thermal_apic_entry").when(Need::IfThere),
    raw_tp("thermal_apic_exit_raw", "thermal_apic_exit").when(Need::IfThere),
    raw_tp("threshold_apic_entry_raw", "threshold_apic_entry").when(Need::IfThere),
    raw_tp("threshold_apic_exit_raw", "threshold_apic_exit").when(Need::IfThere),
    raw_tp("deferred_error_apic_entry_raw", "deferred_error_apic_entry").when(Need::IfThere),
    raw_tp("deferred_error_apic_exit_raw", "deferred_error_apic_exit").when(Need::IfThere),
    raw_tp("error_apic_entry_raw", "error_apic_entry").when(Need::IfThere),
    raw_tp("error_apic_exit_raw", "error_apic_exit").when(Need::IfThere),
    raw_tp("spurious_apic_entry_raw", "spurious_apic_entry").when(Need::IfThere),
    raw_tp("spurious_apic_exit_raw", "spurious_apic_exit").when(Need::IfThere),
];

/// With `--vectors`. Whichever way handlers are seen in.
const OF_CPU: Ladder = Ladder {
    name: "interrupts of the CPU itself",
    rungs: &[
        Rung { name: RungName::Tracepoint, programs: OF_CPU_PROGRAMS, less_exact: None },
        Rung { name: RungName::RawTp, programs: OF_CPU_PROGRAMS, less_exact: None },
    ],
};

/// Where the kernel sums.
struct Tables {
    generations: Generations,
    sums: [Map; 2],
    /// With `-d`.
    slots: Option<[Map; 2]>,
}

/// A row's handler: its name, and the CPU where each is by itself.
type Handler = (String, Option<u32>);

/// What was summed of an interval.
#[derive(Default)]
struct Block {
    totals: BTreeMap<Handler, Sum>,
    slots: BTreeMap<Handler, [u64; SLOTS]>,
}

/// Slots of a histogram.
const SLOTS: usize = 65;

impl Tables {
    fn new(args: &Options, probe: &mut Probe) -> Result<Self> {
        Ok(Self {
            generations: probe.generations("CURRENT", FIRST)?,
            sums: [probe.table("SUMS_0")?, probe.table("SUMS_1")?],
            slots: if args.dist { Some([probe.table("DIST_0")?, probe.table("DIST_1")?]) } else { None },
        })
    }

    /// What was summed since the last time.
    fn taken(&mut self, args: &Options, turn: &Turn<'_>) -> Result<Block> {
        let used = self.generations.turn()?;
        let mut block = Block::default();
        let mut names = BTreeMap::new();
        let of = |name: &str, cpu: u32| (name.to_owned(), args.per_cpu.then_some(cpu));
        self.sums[used].drain(
            || turn.ends(),
            |key, value| {
                let (Ok(key), Ok(sums)) = (Key::read_from_bytes(key), Sums::read_from_bytes(value)) else {
                    return;
                };
                let name = name(&key, &sums);
                block.totals.entry(of(&name, key.cpu)).or_default().add(&key, &sums);
                names.insert(key, name);
            },
        )?;
        if let Some(slots) = &mut self.slots {
            slots[used].drain(
                || turn.ends(),
                |key, value| {
                    if let (Ok(key), Ok(count)) = (SlotKey::read_from_bytes(key), u64::read_from_bytes(value))
                        && let Some(name) = names.get(&key.handler)
                        && let Some(sum) = block
                            .slots
                            .entry(of(name, key.handler.cpu))
                            .or_insert([0; SLOTS])
                            .get_mut(key.slot as usize)
                    {
                        *sum += count;
                    }
                },
            )?;
        }
        Ok(block)
    }
}

/// What a handler is called.
fn name(key: &Key, sums: &Sums) -> String {
    if key.name_at == 0 {
        return usize::try_from(key.action)
            .ok()
            .and_then(|nth| VECTORS.get(nth))
            .map_or_else(String::new, |name| (*name).to_owned());
    }
    let text = sums.name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// What the handlers of a name did.
#[derive(Clone, Debug)]
pub struct Total {
    /// The name.
    pub name: String,
    /// The CPU, where each is by itself.
    pub cpu: Option<u32>,
    /// Numbers of their interrupts.
    pub irqs: Vec<u32>,
    /// As the kernel summed it.
    pub sums: Sums,
}

/// A sum over handlers, and the numbers of their interrupts.
#[derive(Default)]
struct Sum {
    sums: Sums,
    irqs: BTreeSet<u32>,
}

impl Sum {
    fn add(&mut self, key: &Key, sums: &Sums) {
        self.sums.total_ns = self.sums.total_ns.wrapping_add(sums.total_ns);
        self.sums.count += sums.count;
        self.sums.max_ns = self.sums.max_ns.max(sums.max_ns);
        self.sums.unhandled += sums.unhandled;
        if key.name_at != 0 {
            self.irqs.insert(key.irq);
        }
    }
}

/// The columns of totals.
pub fn table(args: &Options) -> Table<Total> {
    let nanos = args.nanoseconds;
    Table::new(args.json.format())
        .col(interval())
        .col(
            left("HARDIRQ", 26, |t: &Total| Cell::Name(t.name.as_bytes()))
                .about(About::text("The name of the handler.")),
        )
        .col(data("irq", |t: &Total| Cell::Numbers(&t.irqs)).about(About::new(
            Kind::Numbers,
            "The numbers of the interrupts that handlers of this name were called for; none for --vectors.",
        )))
        .col_if(
            !args.counts && nanos,
            right("TOTAL_nsecs", 11, |t: &Total| t.sums.total_ns.into())
                .about(About::count("With -N: the time in its handler, in nanoseconds."))
                .known_if(!args.counts, NO_TIMES),
        )
        // The sum is divided, not what it is made of.
        .col_if(
            !args.counts && !nanos,
            right("TOTAL_usecs", 11, |t: &Total| (t.sums.total_ns / 1000).into())
                .about(About::count("The time in its handler, in microseconds; not with -N or -C."))
                .known_if(!args.counts, NO_TIMES),
        )
        .col_if(
            args.counts,
            right("TOTAL_count", 11, |t: &Total| t.sums.count.into())
                .about(About::count("With -C: how often it handled an interrupt.")),
        )
        .col_if(
            args.per_cpu,
            right("CPU", 4, |t: &Total| t.cpu.map_or(Cell::Empty, Into::into))
                .about(About::count("With --per-cpu: the CPU.").or_null()),
        )
        .col_if(
            !args.counts,
            data("count", |t: &Total| t.sums.count.into())
                .about(About::count("How often it handled an interrupt; with -C that is total_count.")),
        )
        .col(
            data("max_nsecs", |t: &Total| t.sums.max_ns.into())
                .about(About::count("Its longest call, in nanoseconds."))
                .known_if(!args.counts, NO_TIMES),
        )
        .col(data("unhandled", |t: &Total| t.sums.unhandled.into()).about(About::count(
            "Calls of which it said that the interrupt was not its device's; the time is without these.",
        )))
}

/// What makes a run know times.
const NO_TIMES: &str = "leave -C out";

/// One block of totals.
fn totals(args: &Options, cx: &mut Ctx, block: Block, now_ns: u64) {
    let is_json = args.json.format() == Format::Json;
    let named = block.totals.into_iter().map(|((name, cpu), Sum { sums, irqs })| Total {
        name,
        cpu,
        irqs: irqs.into_iter().collect(),
        sums,
    });
    // What only had nothing to do is for JSON.
    let mut totals: Vec<Total> = named.filter(|total| is_json || total.sums.count > 0).collect();
    print_totals(args, cx, &mut totals, now_ns);
}

fn print_totals(args: &Options, cx: &mut Ctx, totals: &mut [Total], now_ns: u64) {
    // The map had them sorted by name and CPU.
    totals.sort_by_key(|total| Reverse(if args.counts { total.sums.count } else { total.sums.total_ns }));
    let table = table(args);
    cx.out.header(&table);
    for total in totals {
        cx.out.row(&table, now_ns, total);
    }
}

/// A slot of a histogram, for JSON.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The handler's name.
    pub name: String,
    /// The CPU, where each is by itself.
    pub cpu: Option<u32>,
    /// Which slot.
    pub bits: usize,
    /// How many calls took so long.
    pub count: u64,
}

/// One block of histograms. In JSON a row is a slot that is not empty.
fn histograms(args: &Options, cx: &mut Ctx, block: Block, now_ns: u64) {
    let table = slot_table(args);
    for ((name, cpu), slots) in block.slots {
        if args.json.format() == Format::Text {
            cx.out.line("");
            let of_cpu = cpu.map(|cpu| format!(", cpu = {cpu}")).unwrap_or_default();
            cx.out.line(format_args!("hardirq = {}{of_cpu}", escaped(&name)));
            hist::print(&mut cx.out, if args.nanoseconds { "nsecs" } else { "usecs" }, &slots);
            continue;
        }
        for (bits, &count) in slots.iter().enumerate().filter(|(_, count)| **count > 0) {
            cx.out.row(&table, now_ns, &Slot { name: name.clone(), cpu, bits, count });
        }
    }
}

/// The columns of a slot, which only JSON has.
pub fn slot_table(args: &Options) -> Table<Slot> {
    let nanos = args.nanoseconds;
    let low = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).0.into()).about(About::count(text));
    let high = |key, text| data(key, |s: &Slot| hist::bounds(s.bits).1.into()).about(About::count(text));
    Table::new(args.json.format())
        .col(interval())
        .col(
            data("hardirq", |s: &Slot| Cell::Name(s.name.as_bytes()))
                .about(About::text("The name of the handler.")),
        )
        .col_if(
            args.per_cpu,
            data("cpu", |s: &Slot| s.cpu.map_or(Cell::Empty, Into::into))
                .about(About::count("With --per-cpu: the CPU.").or_null()),
        )
        .col_if(
            !nanos,
            low("low_usecs", "The shortest call that this slot counts, in microseconds; not with -N."),
        )
        .col_if(
            !nanos,
            high("high_usecs", "The longest call that this slot counts, in microseconds; not with -N."),
        )
        .col_if(nanos, low("low_nsecs", "With -N: the shortest call that this slot counts, in nanoseconds."))
        .col_if(nanos, high("high_nsecs", "With -N: the longest call that this slot counts, in nanoseconds."))
        .col(data("count", |s: &Slot| s.count.into()).about(About::count("How many calls took so long.")))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::out::{Clock, Out};

    fn block(words: &str, handlers: &[(&str, u32, u64, u64)]) -> String {
        let words = format!("hardirqs {words}");
        let matches =
            crate::tool::command::<Hardirqs>().try_get_matches_from(words.split_whitespace()).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let mut block = Block::default();
        for &(name, cpu, total_ns, count) in handlers {
            let key = Key { name_at: 1, irq: 10 + cpu, cpu, ..Key::default() };
            let sums = Sums { total_ns, count, unhandled: 1, ..Sums::default() };
            let of = (name.to_owned(), args.per_cpu.then_some(cpu));
            block.totals.entry(of).or_default().add(&key, &sums);
        }
        let out = Out::memory(args.json.format(), Clock::fixed(0, 0));
        let mut cx = Ctx::new(&Hardirqs::SPEC, out);
        totals(&args, &mut cx, block, 1);
        cx.out.take()
    }

    #[test]
    fn equal_names_are_one_row_and_sorted_and_divided_once() {
        let handlers = [
            ("ahci", 0, 600, 1),
            ("ahci", 1, 600, 1),
            ("a name of more than 26 characters", 0, 1200, 5),
            ("silent", 0, 0, 0),
            ("eth0", 1, 9_000_999, 7),
        ];
        assert_eq!(
            block("", &handlers),
            "HARDIRQ                    TOTAL_usecs\n\
             eth0                              9000\n\
             a name of more than 26 characters           1\n\
             ahci                                 1\n"
        );
        assert_eq!(
            block("-N --per-cpu", &handlers[..2]),
            "HARDIRQ                    TOTAL_nsecs  CPU\n\
             ahci                               600    0\n\
             ahci                               600    1\n"
        );
        assert_eq!(
            block("-C", &handlers[..2]),
            "HARDIRQ                    TOTAL_count\nahci                                 2\n"
        );
        assert_eq!(block("", &[]), "HARDIRQ                    TOTAL_usecs\n");
    }

    #[test]
    fn json_tells_what_had_nothing_to_do() {
        assert!(block("--json", &[("silent", 3, 0, 0)]).ends_with(
            "\"ts_ns\":1,\"interval_ns\":0,\"hardirq\":\"silent\",\"irq\":[13],\"total_usecs\":0,\"count\":0,\"max_nsecs\":0,\"unhandled\":1}\n"
        ));
    }
}
