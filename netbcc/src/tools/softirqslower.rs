//! softirqslower: soft interrupts that waited, from raise to handler, or whose handler ran, for at least so long.
//!
//! Events: `probes-ebpf/src/bin/softirqslower.rs`, from `irq:softirq_raise`, `irq:softirq_entry` and `irq:softirq_exit`. A wait
//! counts from the first raise; what is raised again before the handler begins is one wait. A raise that came before the start,
//! or before its CPU went offline, has none.
//!
//! On a 6.18 kernel that ran virtual machines:
//!
//! ```text
//! # netbcc softirqslower 20
//! Tracing softirq latency higher than 20 us... Hit Ctrl-C to end.
//! TIME     STAGE                SOFTIRQ  LAT(us)        CPU    COMM
//! 08:12:32 softirq runtime      sched    20             0      qemu-system-x86
//! 08:12:33 irq(hard) to softirq sched    24             1      swapper/1
//! ```

use anyhow::Result;
use clap::{Args, ValueEnum};
use netbcc_common::softirqslower::{Config, Event, VECTORS};

use super::object;
use super::vectors::{NAMES, name};
use crate::hook::{Ladder, Need, Rung, RungName, tp_btf};
use crate::options::{Json, Verbose, cpu, select};
use crate::out::{About, Cell, Format, Kind, Process, Rows, Table, data, left, name_in, wall};
use crate::probe::{Batch, Plan};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Softirqslower;

/// A stage of a soft interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// From the raise to the handler's start
    Wait,
    /// From the handler's start to its end
    Run,
}

/// Kinds of soft interrupts, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors(u32);

/// Parses names of soft interrupts, comma-separated.
fn vectors(text: &str) -> Result<Vectors, String> {
    let mut mask = 0;
    for word in text.split(',').map(str::trim) {
        let known = NAMES[..VECTORS].iter().position(|name| *name == word);
        let vector = known.ok_or_else(|| {
            format!("no soft interrupt is called {word:?}; the kernel's are {}", NAMES[..10].join(", "))
        })?;
        mask |= 1 << vector;
    }
    Ok(Vectors(mask))
}

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// What took at least so many microseconds; 0: everything
    #[arg(value_name = "MIN_US", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(..=1_000_000_000_000))]
    min_us: u64,
    /// This CPU only
    #[arg(short = 'c', long, value_name = "CPU", value_parser = cpu, help_heading = "Filters")]
    cpu: Option<u32>,
    /// These soft interrupts only, by name, comma-separated
    #[arg(long, value_name = "LIST", value_parser = vectors, help_heading = "Filters")]
    softirq: Vec<Vectors>,
    /// This stage only
    #[arg(long, value_enum, value_name = "STAGE", help_heading = "Filters")]
    stage: Option<Stage>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Softirqslower {
    const SPEC: Spec = Spec {
        name: "softirqslower",
        about: "Trace soft interrupts that wait or run for long",
        description: &[
            "Prints a row for each soft interrupt that waited at least MIN_US microseconds (10000) from its raise to the \
             start of its handler, and for each handler that ran so long. COMM is the task on the CPU at the end of the \
             stage: whoever was interrupted, or ksoftirqd/N, which runs what the kernel could not run at once.",
            "A wait of more than a tick means that interrupts or soft interrupts were disabled, that a handler before it ran \
             long, that ksoftirqd had to get the CPU first, or that the hypervisor took it. Handlers run one after the \
             other: a slow one makes those behind it wait, so read its row of the same CPU first. What is raised again before its handler begins joins the wait under way, \
             also where the kernel then runs the handler twice. JSON tells how much of \
             a wait others' handlers took (other_ns).",
        ],
        examples: &[
            ("softirqslower", "what waited or ran for 10 ms or more"),
            ("softirqslower 1000", "for 1 ms or more"),
            ("softirqslower -c 1 0", "everything on CPU 1"),
            ("softirqslower --softirq net_rx,net_tx 500", "of packets only"),
            ("softirqslower --stage run 500", "handlers only, not waits"),
            ("softirqslower --json", "JSON Lines"),
        ],
        overhead: "Runs three short programs per soft interrupt, with --stage run two: network load makes tens of thousands \
                   per second. What took less than MIN_US never leaves the kernel.",
        differences: &[
            "A soft interrupt that was raised before the start has no row; BCC shows the time since boot for it.",
            "TIME is when it happened; BCC shows when the row was printed.",
            "A CPU that was offline has no row of that time.",
            "Wrong numbers and CPUs are refused before anything is loaded.",
            "COMM is padded to 6 characters, as BCC does; libbpf-tools pads it to 16.",
        ],
        refuses: &[
            (select::ENDS, "a soft interrupt is of no connection"),
            (select::TASKS, "a soft interrupt is of no process"),
            (&[select::NETNS], "a soft interrupt is of no network namespace"),
        ],
        object: object!("softirqslower"),
        ladders: &[STAGES],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let table = table(&args);
        let (waits, runs) = (args.stage != Some(Stage::Run), args.stage != Some(Stage::Wait));
        let others = waits && table.needs(&cx.out) & OTHERS != 0;
        let mask = args.softirq.iter().fold(0, |mask, list| mask | list.0);
        let config = Config {
            min_ns: args.min_us * 1000,
            vectors: if mask == 0 { u32::MAX } else { mask },
            cpu: args.cpu.unwrap_or_default(),
            by_cpu: args.cpu.is_some().into(),
            waits: waits.into(),
            runs: runs.into(),
            others: others.into(),
            zero: 0,
        };
        let mut plan = Plan::new(cx).ladder(&STAGES).global("CONFIG", &config);
        if waits {
            plan = plan.ask(WAITS);
        }
        let plan = if runs || others {
            plan.ask_by_turns(&[STARTS, ENDS], &[STARTS_BY_TASK, ENDS_BY_TASK])?
        } else {
            plan.ask_by_turns(&[STARTS], &[STARTS_BY_TASK])?
        };
        let mut probe = plan.attach(cx)?;
        cx.out.line(format_args!(
            "Tracing softirq latency higher than {} us... Hit Ctrl-C to end.",
            args.min_us
        ));
        cx.out.header(&table);
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
            for event in batch.events::<Event>() {
                cx.out.row(&table, event.ts_ns, &event);
            }
            Ok(None)
        })
    }
}

/// Waits are asked for.
const WAITS: &str = "waits";
/// The starts of handlers.
const STARTS: &str = "starts";
/// The ends of handlers.
const ENDS: &str = "ends";
/// The starts of handlers, where tasks take turns.
const STARTS_BY_TASK: &str = "starts by task";
/// The ends of handlers, where tasks take turns.
const ENDS_BY_TASK: &str = "ends by task";

const STAGES: Ladder = Ladder {
    name: "stages of soft interrupts",
    // Every kernel that has BTF has these, and nothing sees more.
    rungs: &[Rung {
        name: RungName::Tracepoint,
        // Raises last: whatever is raised from then on has its start seen.
        programs: &[
            tp_btf("exit_tp", "softirq_exit").when(Need::Asked(ENDS)),
            tp_btf("exit_of_task_tp", "softirq_exit").when(Need::Asked(ENDS_BY_TASK)).twice(),
            tp_btf("entry_tp", "softirq_entry").when(Need::Asked(STARTS)),
            tp_btf("entry_of_task_tp", "softirq_entry").when(Need::Asked(STARTS_BY_TASK)).twice(),
            tp_btf("hotplug_tp", "cpuhp_enter").when(Need::Asked(WAITS)),
            tp_btf("raise_tp", "softirq_raise").when(Need::Asked(WAITS)),
        ],
        less_exact: None,
    }],
};

/// What the values of the column of others' time need.
const OTHERS: u32 = 1;

/// What is printed of an event.
pub type Row = Event;

fn is_wait(row: &Row) -> bool {
    row.raises > 0
}

/// Whether the task is the thread that runs what the kernel could not run at once on this CPU.
fn is_ksoftirqd(row: &Row) -> bool {
    row.kernel != 0 && name_in(&row.comm) == format!("ksoftirqd/{}", row.cpu).as_bytes()
}

const STAGE: &str = "What took so long: a wait from its raise to its handler's start, in text `irq(hard) to softirq`, or the \
                     handler's run, in text `softirq runtime`.";

/// The columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col(wall(8))
        .col(
            left("STAGE", 20, |r: &Row| {
                Cell::Label(if is_wait(r) { "irq(hard) to softirq" } else { "softirq runtime" })
            })
            .except(Format::Json)
            .about(About::text(STAGE)),
        )
        .col(
            data("stage", |r: &Row| Cell::Label(if is_wait(r) { "wait" } else { "run" }))
                .about(About::new(Kind::Word(&["wait", "run"]), STAGE)),
        )
        .col(
            left("SOFTIRQ", 8, |r: &Row| Cell::Label(name(r.vector as usize)))
                .about(About::new(Kind::Word(&NAMES), "The kind of soft interrupt.")),
        )
        .col(
            data("vec", |r: &Row| r.vector.into())
                .about(About::count("The kind of soft interrupt, by its number.")),
        )
        .col(
            left("LAT(us)", 14, |r: &Row| (r.latency_ns / 1000).into())
                .except(Format::Json)
                .about(About::count("How long it took, in microseconds.")),
        )
        .col(
            data("latency_ns", |r: &Row| r.latency_ns.into())
                .about(About::count("How long it took, in nanoseconds.")),
        )
        .col(
            left("CPU", 6, |r: &Row| r.cpu.into()).about(
                About::count("The CPU that raised it and ran its handler.").otel("cpu.logical_number"),
            ),
        )
        .col(data("pid", |r: &Row| r.pid.into()).about(About::count("The process of the task on the CPU.")))
        .col(data("tid", |r: &Row| r.tid.into()).about(About::count("The task on the CPU.")))
        .col(left("COMM", 6, |r: &Row| (&r.comm).into()).about(About::text(
            "The task on the CPU at the end of the stage: whoever was interrupted, or ksoftirqd.",
        )))
        .col(data("ksoftirqd", |r: &Row| Cell::Bool(is_ksoftirqd(r))).about(About::new(
            Kind::Bool,
            "Whether the task is the thread that runs what the kernel could not run at once.",
        )))
        .col(
            data("raises", |r: &Row| if is_wait(r) { r.raises.into() } else { Cell::Empty })
                .about(About::count("Of a wait: how often it was raised until its handler began.").or_null()),
        )
        .col(
            data("other_ns", |r: &Row| if is_wait(r) { r.other_ns.into() } else { Cell::Empty })
                .needs(OTHERS)
                .about(
                    About::count(
                        "Of a wait: how long other handlers ran on this CPU meanwhile, in nanoseconds.",
                    )
                    .or_null(),
                ),
        )
        .process(|r| Process::now(r.pid).named(&r.comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_interrupts_are_named() {
        assert_eq!(vectors("net_rx"), Ok(Vectors(1 << 3)));
        assert_eq!(vectors("rcu, hi,net_rx,hi"), Ok(Vectors(1 << 9 | 1 | 1 << 3)));
        assert_eq!(vectors("vec_15"), Ok(Vectors(1 << 15)));
        for wrong in ["", "net_rx,", "NET_RX", "3", "vec_16", "vec_other"] {
            assert!(vectors(wrong).unwrap_err().contains("net_rx, block"), "{wrong}");
        }
    }
}
