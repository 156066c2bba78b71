//! Two tools that trace nothing, for the tests of everything around tools; and the tests of the option groups that they have.

use std::path::Path;

use anyhow::Result;
use clap::{Args, FromArgMatches as _};

use crate::options::select::{ENDS, IdList, NETNS, pid_list};
use crate::options::{
    Containers, Every, Family, FlowPorts, Json, Pid, PidOrAll, Ports, Timestamp, Verbose, WallClock, WideCsv,
};
use crate::out::{self, About, Cell, Kind, Out, Rows, Table};
use crate::packed::Packed;
use crate::tool::{Ctx, Entry, Spec, Tool, entry};

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
        object: Packed::new(&[1, 2, 3]),
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
        object: Packed::new(&[]),
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

fn flows(words: &str) -> FlowsArgs {
    let matches = (TOOLS[0].command)().try_get_matches_from(words.split(' ')).unwrap();
    FlowsArgs::from_arg_matches(&matches).unwrap()
}

fn load(words: &str) -> LoadArgs {
    let matches = (TOOLS[1].command)().try_get_matches_from(words.split(' ')).unwrap();
    LoadArgs::from_arg_matches(&matches).unwrap()
}

#[test]
fn short_options_bundle() {
    let args = flows("x -stT");
    assert!(args.wide.csv && args.timestamp.timestamp && args.time.time);
    let args = load("x -Cp 181");
    assert!(args.noclear && args.pid.pid == pid_list("181").ok());
    assert_eq!(load("x -Cp181").pid.pid, pid_list("181").ok());
}

#[test]
fn unique_prefixes_are_enough_and_exact_names_win() {
    let args = flows("x --timest");
    assert!(args.timestamp.timestamp && !args.time.time);
    let args = flows("x --time");
    assert!(args.time.time && !args.timestamp.timestamp);
    assert_eq!(Ports::together(&flows("x --local 1,2").ports.localport).as_slice(), [1, 2]);
    assert_eq!(flows("x --cgroupm=/x").containers.cgroupmap(), Some(Path::new("/x")));
}

#[test]
fn options_may_follow_positionals() {
    let args = load("x 5 2 -C");
    assert_eq!((args.every.interval.map(Into::into), args.every.count.map(Into::into)), (Some(5), Some(2)));
    assert!(args.noclear);
}

#[test]
fn the_last_of_a_repeated_option_wins() {
    assert_eq!(flows("x -p 1 -p 2 -4 -4").pid.pid, pid_list("2").ok());
    assert!(flows("x -t -t").timestamp.timestamp);
}

#[test]
fn repeated_lists_add_up() {
    let args = flows("x -L 1 -D 9 -L 2,3");
    assert_eq!(Ports::together(&args.ports.localport).as_slice(), [1, 2, 3]);
    assert_eq!(Ports::together(&args.ports.remoteport).as_slice(), [9]);
}

#[test]
fn nothing_is_filtered_unless_asked() {
    let args = flows("x");
    assert!(args.pid.pid.is_none() && args.ports.localport.is_empty() && args.ports.remoteport.is_empty());
    assert!(!args.family.ipv4 && !args.family.ipv6 && args.containers.mntnsmap().is_none());
    assert_eq!(args.wide.format(args.json), out::Format::Text);
    assert!(!args.verbose.verbose);
    assert_eq!(load("x -p 0").pid.pid, Some(IdList::default()));
    assert!(load("x").every.interval.is_none());
}

#[test]
fn an_empty_value_is_no_filter_and_neither_is_all() {
    for words in ["x -L all", "x -L  --cgroupmap  --mntnsmap="] {
        let args = flows(words);
        assert!(Ports::together(&args.ports.localport).is_empty(), "{words}");
        assert_eq!((args.containers.cgroupmap(), args.containers.mntnsmap()), (None, None));
    }
}
