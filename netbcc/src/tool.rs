//! The contract between the engine and a tool.
//!
//! Lives here: what a tool must say about itself, and what it is given. Must never live here: anything that one
//! tool needs and the others do not.

use std::fmt;
use std::marker::PhantomData;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches as _};

use crate::cli;
use crate::cli::select::{Refused, Select};
use crate::out::{self, Out, Rows};
use crate::probe::hook::Ladder;

/// One of BCC's tools.
pub trait Tool: 'static {
    /// What it is.
    const SPEC: Spec;
    /// What the user may say.
    type Args: Args;
    /// Options that BCC does not have and whose values do not add up: given twice, they are an error.
    const ONCE: &'static [&'static str] = &[];
    /// Words that its rows use, each with its meaning: a section of the manual, under this title.
    const WORDS: Glossary = ("", &[]);
    /// Its rows, with all columns that any option shows.
    fn rows(args: &Self::Args) -> Vec<Rows>;
    /// What it does.
    fn run(args: Self::Args, cx: &mut Ctx) -> Result<()>;
}

/// A title, and words with their meanings; without a title there are none.
pub type Glossary = (&'static str, &'static [(&'static str, &'static str)]);

/// What a tool says about itself.
pub struct Spec {
    /// File name, object name, and the name it is called by.
    pub name: &'static str,
    /// One line, no full stop.
    pub about: &'static str,
    /// What a row is and what is none, in paragraphs for the manual page.
    pub description: &'static [&'static str],
    /// Command line and meaning; they end the help.
    pub examples: &'static [(&'static str, &'static str)],
    /// What it costs to run it, honestly.
    pub overhead: &'static str,
    /// Where it differs from BCC's tool on purpose.
    pub differences: &'static [&'static str],
    /// Which options of [`select`](crate::cli::select) mean nothing to it, and why.
    pub refuses: &'static [Refused],
    /// The embedded BPF object.
    pub object: &'static [u8],
    /// How its programs are attached.
    pub ladders: &'static [Ladder],
}

/// What a tool is given.
pub struct Ctx {
    /// The tool.
    pub spec: &'static Spec,
    /// Whether to say which hooks were chosen and why.
    pub verbose: bool,
    /// Where rows go.
    pub out: Out,
    /// What the run is to show.
    pub select: Select,
    /// What becomes of the tool's plan.
    pub purpose: Purpose,
    /// Room for events in the ring, if not the usual.
    pub ring_bytes: Option<u32>,
    /// Room in each table that may get full, if not the usual.
    pub table_entries: Option<u32>,
}

/// What becomes of a tool's plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The plan is attached.
    #[default]
    Trace,
    /// Every way to attach it is tried, and taken back at once: `Plan::attach` ends the tool with a
    /// [`Diagnosis`](crate::probe::Diagnosis) as its error.
    Diagnose,
}

impl Ctx {
    /// A quiet run of `spec`.
    pub fn new(spec: &'static Spec, out: Out) -> Self {
        Self {
            spec,
            verbose: false,
            out,
            select: Select::default(),
            purpose: Purpose::Trace,
            ring_bytes: None,
            table_entries: None,
        }
    }

    /// One line on stderr that every user should see: a degraded hook, lost events.
    pub fn warn(&self, what: impl fmt::Display) {
        out::warn(self.spec.name, what);
    }

    /// One line on stderr for those who asked for them.
    pub fn debug(&self, what: impl fmt::Display) {
        if self.verbose {
            self.warn(what);
        }
    }
}

/// A tool as the registry holds it.
pub struct Entry {
    /// What it says about itself.
    pub spec: &'static Spec,
    /// Words that its rows use.
    pub words: Glossary,
    /// Its command line.
    pub command: fn() -> Command,
    /// Its rows, with all columns that any option shows.
    pub rows: fn() -> Result<Vec<Rows>>,
    /// Its rows in a run with this command line.
    pub rows_of: fn(&ArgMatches) -> Result<Vec<Rows>>,
    /// Runs it with a parsed command line.
    pub run: fn(&ArgMatches, &mut Ctx) -> Result<()>,
}

/// Turns a tool into an entry.
pub const fn entry<T: Tool>() -> Entry {
    Entry {
        spec: Of::<T>::SPEC,
        words: T::WORDS,
        command: cli::command::<T>,
        rows: rows::<T>,
        rows_of: rows_of::<T>,
        run: run::<T>,
    }
}

/// Gives a tool's spec a place to live in, so that it can be borrowed for ever.
struct Of<T>(PhantomData<T>);

impl<T: Tool> Of<T> {
    const SPEC: &'static Spec = &T::SPEC;
}

/// The tables of a run without arguments: they declare all columns, whatever they show.
fn rows<T: Tool>() -> Result<Vec<Rows>> {
    rows_of::<T>(&cli::command::<T>().try_get_matches_from([T::SPEC.name])?)
}

fn rows_of<T: Tool>(matches: &ArgMatches) -> Result<Vec<Rows>> {
    Ok(T::rows(&T::Args::from_arg_matches(matches)?))
}

fn run<T: Tool>(matches: &ArgMatches, cx: &mut Ctx) -> Result<()> {
    T::run(T::Args::from_arg_matches(matches)?, cx)
}

/// Two tools that trace nothing, for the tests of everything around tools.
#[cfg(test)]
pub(crate) mod demo {
    use super::*;
    use crate::cli::select::{ENDS, NETNS};
    use crate::cli::{
        Containers, Every, Family, FlowPorts, Json, Pid, PidOrAll, Timestamp, Verbose, WallClock, WideCsv,
    };
    use crate::out::{About, Cell, Kind, Table};

    pub(crate) const TOOLS: &[Entry] = &[entry::<Flows>(), entry::<Load>()];

    // Every option group of event tools.
    #[derive(Args, Debug)]
    pub(crate) struct FlowsArgs {
        #[command(flatten)]
        pub(crate) time: WallClock,
        #[command(flatten)]
        pub(crate) timestamp: Timestamp,
        #[command(flatten)]
        pub(crate) wide: WideCsv,
        #[command(flatten)]
        pub(crate) json: Json,
        #[command(flatten)]
        pub(crate) pid: Pid,
        #[command(flatten)]
        pub(crate) family: Family,
        #[command(flatten)]
        pub(crate) ports: FlowPorts,
        #[command(flatten)]
        pub(crate) containers: Containers,
        #[command(flatten)]
        pub(crate) verbose: Verbose,
    }

    pub(crate) struct Flows;

    impl Tool for Flows {
        const SPEC: Spec = Spec {
            name: "tcpflows",
            about: "Show nothing at all, for tests",
            description: &["Prints no row, however long -t it runs.", ".And never will."],
            examples: &[("tcpflows -t", "with a time"), ("tcpflows -L 80,443", "two local ports")],
            overhead: "None. It traces nothing, and says so in a sentence that is long enough to be broken \
                       into two lines.",
            differences: &[
                "It is not in BCC.",
                "Its rows are the fewest of all the tools, which is why this \
                            sentence must be broken somewhere.",
            ],
            refuses: &[],
            object: &[1, 2, 3],
            ladders: &[],
        };
        type Args = FlowsArgs;

        fn rows(args: &FlowsArgs) -> Vec<Rows> {
            let about = About::new(Kind::Port, "The \\port\\.").otel("a.port");
            let table = Table::new(args.json.format())
                .col(out::left("PORT", 5, |port: &u16| (*port).into()).about(about))
                .col_if(
                    args.wide.wide,
                    out::data("wide", |_: &u16| Cell::Empty).about(About::text("Null.").or_null()),
                );
            vec![Rows::new("", table)]
        }

        fn run(args: FlowsArgs, cx: &mut Ctx) -> Result<()> {
            cx.out.set_format(args.wide.format(args.json));
            Ok(())
        }
    }

    // A sampler.
    #[derive(Args, Debug)]
    pub(crate) struct LoadArgs {
        /// Do not clear the screen
        #[arg(short = 'C', long)]
        pub(crate) noclear: bool,
        #[command(flatten)]
        pub(crate) pid: PidOrAll,
        #[command(flatten)]
        pub(crate) every: Every,
    }

    pub(crate) struct Load;

    impl Tool for Load {
        const SPEC: Spec = Spec {
            name: "tcpload",
            about: "Sample nothing, for tests",
            description: &[],
            examples: &[("tcpload 5 2", "two outputs")],
            overhead: "None.",
            differences: &[],
            refuses: &[(ENDS, "it samples nothing"), (&[NETNS], "it samples nothing")],
            object: &[],
            ladders: &[],
        };
        type Args = LoadArgs;

        fn rows(_: &LoadArgs) -> Vec<Rows> {
            vec![]
        }

        fn run(_: LoadArgs, cx: &mut Ctx) -> Result<()> {
            cx.out.line("nothing");
            Ok(())
        }
    }

    #[test]
    fn an_entry_runs_its_tool_with_its_arguments() {
        let entry = &TOOLS[0];
        let matches = (entry.command)().try_get_matches_from(["tcpflows", "-s"]).unwrap();
        let clock = out::Clock::fixed(0, 0);
        let out = Out::memory(out::Format::Text, clock);
        let mut cx = Ctx::new(entry.spec, out);
        (entry.run)(&matches, &mut cx).unwrap();
        assert_eq!(cx.out.format(), out::Format::Csv);
    }
}
