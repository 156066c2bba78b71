//! What users type: the tools' options, the multicall names, and errors in one line.
//!
//! Lives here: one small struct per meaning of an option, shared by the tools that agree on its letter. Must
//! never live here: what an option does to a probe, or an option of one tool only.
//! Doc comments on the structs would replace the commands' descriptions, hence `//`.

mod columns;
mod completions;
mod doctor;
mod groups;
mod links;
mod man;
pub mod multicall;
mod parse;
mod schema;
pub mod select;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::iter::once;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

pub use self::groups::{
    Containers, Every, FILTERS, Family, FlowPorts, Json, JsonForm, OUTPUT, Pid, PidOrAll, Timestamp, Uid,
    Verbose, WallClock, WideCsv,
};
pub use self::multicall::nearest_of;
pub use self::parse::{Ports, Words, given, path, pid_or_all, ports, positive, word_list, words};
use crate::error::{self, hinted, usage};
use crate::out::{self, Out};
use crate::sys::{confine, machine, stop};
use crate::tool::{Ctx, Entry, Tool};

use self::multicall::Call;

/// The whole process: picks a tool, runs it, turns an error into a line and an exit code.
pub fn main(words: &[OsString], tools: &'static [Entry]) -> ExitCode {
    let (argv0, args) = words.split_first().map_or((OsStr::new(""), &[][..]), |(name, args)| (name, args));
    let call = multicall::pick(argv0, args, tools);
    let name = match &call {
        Call::Tool { entry, .. } => entry.spec.name,
        _ => "netbcc",
    };
    ExitCode::from(match dispatch(call, tools) {
        Ok(()) => error::EXIT_OK,
        Err(err) => {
            if !error::is_broken_pipe(&err) {
                out::error(name, &err);
            }
            error::exit_code(&err)
        }
    })
}

fn dispatch(call: Call, tools: &'static [Entry]) -> Result<()> {
    match call {
        Call::Tool { entry, typed, args } => run_tool(entry, &typed, args),
        Call::InstallLinks(args) => links::install(args, tools),
        Call::Doctor(args) => doctor::examine(args, tools),
        Call::Man(args) => man::print(args, tools),
        Call::Completions(args) => completions::print(args, tools),
        Call::Schema(args) => schema::print(args, tools),
        Call::Help => print(multicall::help(tools)),
        Call::HelpOf(entry) => print(command_as(entry, &multicall::typed(entry)).render_help()),
        Call::HelpOfVerb(mut verb) => print(verb.render_help()),
        Call::List(listing) => print(multicall::list(tools, listing)),
        Call::Version => print(concat!("netbcc ", env!("CARGO_PKG_VERSION"), "\n")),
        Call::Unknown { name, nearest } => {
            Err(usage(format!("unknown tool '{name}'{} (netbcc --list names them all)", guess(nearest))))
        }
        Call::UnknownLink { name, nearest } => Err(usage(format!(
            "it was called '{name}', which is no tool of netbcc{} (netbcc --list names them all)",
            guess(nearest)
        ))),
        Call::Wrong(what) => Err(usage(format!("{what} (try 'netbcc --help')"))),
    }
}

/// What is added to an unknown name.
fn guess(nearest: Option<&str>) -> String {
    nearest.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default()
}

/// A tool's command line whose help says what its user types to call it.
fn command_as(entry: &Entry, typed: &str) -> Command {
    (entry.command)().bin_name(typed).after_help(parse::after_help(entry.spec, typed))
}

fn run_tool(entry: &'static Entry, typed: &str, args: Vec<OsString>) -> Result<()> {
    confine::shield()?;
    machine::enough_room()?;
    // BCC's developers' option, of which help, manual and completions do not speak.
    let ebpf = Arg::new("ebpf").long("ebpf").hide(true).action(ArgAction::SetTrue);
    // For tests of what happens when something is full. No tool's option begins with this letter.
    let ring = Arg::new("x-ring-bytes").long("x-ring-bytes").hide(true).value_parser(parse::ring_bytes);
    let table = Arg::new("x-table-entries").long("x-table-entries").hide(true);
    let table = table.value_parser(clap::value_parser!(u32).range(1..));
    let command = command_as(entry, typed).args([ebpf, ring, table]);
    let apart = select::apart(&command, &args);
    let Some(matches) = parse_tool(entry, command, args)? else { return Ok(()) };
    let select = select::Select::of(&matches, apart)?;
    let mut out = Out::stdout()?;
    if let Some(list) = columns::choose(entry, typed, &matches, &mut out)? {
        return print(list);
    }
    if matches.get_flag("ebpf") {
        return print(format!(
            "{name}: no source is generated at run time: its BPF object, {size} bytes in this binary, is \
             compiled from probes-ebpf/src/bin/{name}.rs\n",
            name = entry.spec.name,
            size = entry.spec.object.len(),
        ));
    }
    let verbose = wants_debug()?;
    let ring_bytes = matches.get_one("x-ring-bytes").copied();
    let table_entries = matches.get_one("x-table-entries").copied();
    if (ring_bytes.is_some() || table_entries.is_some()) && !rustix::process::geteuid().is_root() {
        return Err(usage("--x-ring-bytes and --x-table-entries take memory of the kernel: for root only"));
    }
    let mut cx = Ctx { verbose, select, ring_bytes, table_entries, ..Ctx::new(entry.spec, out) };
    cx.out.clock().set_ahead(machine::clock_ahead()?);
    stop::hold()?;
    let ran = (entry.run)(&matches, &mut cx);
    // Rows that were printed before an error are as good as any.
    cx.out.end_soon();
    let ended = ran.and(cx.out.finish());
    match (ended, cx.out.losses()) {
        (Ok(()), Some(sentence)) => cx.warn(sentence),
        // Whoever closes a pipe wants no more rows.
        (Err(err), Some(sentence)) if !error::is_broken_pipe(&err) => return Err(hinted(err, sentence)),
        (ended, _) => return ended,
    }
    Ok(())
}

/// `NETBCC_LOG`. A word that means nothing is refused: whoever sets it waits for lines that would never come.
fn wants_debug() -> Result<bool> {
    match std::env::var_os("NETBCC_LOG").filter(|level| !level.is_empty()) {
        None => Ok(false),
        Some(level) if level == "debug" => Ok(true),
        Some(level) => Err(usage(format!("NETBCC_LOG={}: it must be debug", level.to_string_lossy()))),
    }
}

/// Parses; None when it was a question for help, which is answered.
fn parse_args(command: Command, args: Vec<OsString>) -> Result<Option<ArgMatches>> {
    parse_or(command, args, |_| None)
}

/// Parses as [`parse_args`]. An option that all tools have but this one is refused with the reason.
fn parse_tool(entry: &Entry, command: Command, args: Vec<OsString>) -> Result<Option<ArgMatches>> {
    let apart = select::apart(&command, &args);
    let command_for_sentence = command.clone();
    parse_or(command, args, |err| {
        let typed = parse::unknown(err)?;
        let meant = apart.filter(|meant| meant.ends_with(&format!("={typed}")));
        let meant = meant
            .map(|meant| format!("{}; did you mean '{meant}'?", parse::one_line(err, &command_for_sentence)));
        meant.or_else(|| select::refused(entry.spec, typed))
    })
}

/// Parses; `better` may know a better sentence for an error.
fn parse_or(
    mut command: Command,
    args: Vec<OsString>,
    better: impl FnOnce(&clap::Error) -> Option<String>,
) -> Result<Option<ArgMatches>> {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    match command.try_get_matches_from_mut(once(OsString::from(&name)).chain(args)) {
        Ok(matches) => Ok(Some(matches)),
        Err(err) if !err.use_stderr() => print(err.render()).map(|()| None),
        Err(err) => {
            let sentence = better(&err).unwrap_or_else(|| parse::one_line(&err, &command));
            Err(usage(format!("{sentence} (try '{name} --help')")))
        }
    }
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod doors {
    use super::{Entry, OsString, Result, once, parse};

    pub(crate) fn schema(entry: &Entry) -> Result<String> {
        super::schema::of_tool(entry)
    }

    /// As `parse_args`, but what was asked for is not printed.
    pub(crate) fn refusal(entry: &Entry, words: Vec<OsString>) -> Option<String> {
        let mut command = (entry.command)();
        let words = once(OsString::from(entry.spec.name)).chain(words);
        let err = command.try_get_matches_from_mut(words).err().filter(clap::Error::use_stderr)?;
        Some(parse::one_line(&err, &command))
    }
}

fn print(text: impl std::fmt::Display) -> Result<()> {
    let mut out = Out::stdout()?;
    out.raw().extend_from_slice(text.to_string().as_bytes());
    out.finish()
}

/// A tool's command line: its own options under the manners that all tools share.
pub fn command<T: Tool>() -> Command {
    let spec = &T::SPEC;
    let command =
        T::Args::augment_args(manners(Command::new(spec.name))).about(spec.about).args(columns::args());
    let command = select::add_to(command, spec.refuses);
    if T::ONCE.is_empty() { command } else { command.args_override_self(false).mut_args(last_wins::<T>) }
}

/// What all of our command lines have in common: argparse's manners, as BCC's users know them.
fn manners(command: Command) -> Command {
    // One form of help, the compact one.
    let help = Arg::new("help").short('h').long("help").help("Print this help");
    // No group has this letter, and a script that asks for the version asks the tool that it will call.
    let version = Arg::new("version").short('V').long("version").help("Print the version");
    command
        .version(concat!("(netbcc) ", env!("CARGO_PKG_VERSION")))
        .disable_version_flag(true)
        .arg(version.action(ArgAction::Version).display_order(1001))
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .arg(help.action(ArgAction::HelpShort))
        .infer_long_args(true)
        .args_override_self(true)
        .term_width(79)
}

/// As `args_override_self`, option by option: of one that is given twice the last counts, unless the tool says that it
/// is an error; lists add up.
fn last_wins<T: Tool>(arg: Arg) -> Arg {
    let id = arg.get_id().clone();
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    if is_list || T::ONCE.contains(&id.as_str()) { arg } else { arg.overrides_with(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::demo::TOOLS;

    /// The error line of a call that must not print anything else.
    fn wrong(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(Into::into).collect();
        let err = dispatch(multicall::pick(&words[0], &words[1..], TOOLS), TOOLS).unwrap_err();
        assert_eq!(error::exit_code(&err), error::EXIT_USAGE);
        format!("{err:#}")
    }

    #[test]
    fn wrong_calls_are_answered_in_one_line() {
        for (words, expected) in [
            (
                "netbcc tcplod",
                "unknown tool 'tcplod'; did you mean 'tcpload'? (netbcc --list names them all)",
            ),
            ("netbcc frobnicate", "unknown tool 'frobnicate' (netbcc --list names them all)"),
            ("netbcc --frobnicate", "unknown option '--frobnicate' (try 'netbcc --help')"),
            (
                "tcpload 0x",
                "invalid value '0x' for '[INTERVAL]': not a whole number from 1 to 4294967295 (try 'tcpload --help')",
            ),
            (
                "netbcc install-links",
                "the following required arguments were not provided: <DIR> (try 'netbcc install-links --help')",
            ),
        ] {
            assert_eq!(wrong(words), expected);
        }
    }
}
