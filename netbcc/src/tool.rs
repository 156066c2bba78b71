//! The contract between the engine and a tool.
//!
//! Lives here: what a tool must say about itself, and what it is given. Must never live here: anything that one
//! tool needs and the others do not.

use std::fmt;
use std::marker::PhantomData;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _};

use crate::hook::Ladder;
use crate::options::select::{self, Refused, Select};
use crate::options::{self, manners};
use crate::out::{self, Out, Rows};
use crate::packed::Packed;

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
    /// Which options of [`select`](crate::options::select) mean nothing to it, and why.
    pub refuses: &'static [Refused],
    /// The embedded BPF object.
    pub object: Packed,
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
        command: command::<T>,
        rows: rows::<T>,
        rows_of: rows_of::<T>,
        run: run::<T>,
    }
}

/// A tool's command line: its own options under the manners that all tools share.
pub fn command<T: Tool>() -> Command {
    let spec = &T::SPEC;
    let command =
        T::Args::augment_args(manners(Command::new(spec.name))).about(spec.about).args(options::output());
    let command = select::add_to(command, spec.refuses);
    if T::ONCE.is_empty() { command } else { command.args_override_self(false).mut_args(last_wins::<T>) }
}

/// As `args_override_self`, option by option: of one that is given twice the last counts, unless the tool says that it
/// is an error; lists add up.
fn last_wins<T: Tool>(arg: Arg) -> Arg {
    let id = arg.get_id().clone();
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    if is_list || T::ONCE.contains(&id.as_str()) { arg } else { arg.overrides_with(id) }
}

/// Gives a tool's spec a place to live in, so that it can be borrowed for ever.
struct Of<T>(PhantomData<T>);

impl<T: Tool> Of<T> {
    const SPEC: &'static Spec = &T::SPEC;
}

/// The tables of a run without arguments: they declare all columns, whatever they show.
fn rows<T: Tool>() -> Result<Vec<Rows>> {
    rows_of::<T>(&command::<T>().try_get_matches_from([T::SPEC.name])?)
}

fn rows_of<T: Tool>(matches: &ArgMatches) -> Result<Vec<Rows>> {
    Ok(T::rows(&T::Args::from_arg_matches(matches)?))
}

fn run<T: Tool>(matches: &ArgMatches, cx: &mut Ctx) -> Result<()> {
    T::run(T::Args::from_arg_matches(matches)?, cx)
}
