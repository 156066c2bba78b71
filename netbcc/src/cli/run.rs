//! The whole process: which tool or command was called, its run, and its end.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, Command};

use super::args::{parse_tool, print};
use super::multicall::Call;
use super::{columns, completions, doctor, links, man, multicall, parse, schema};
use crate::error::{self, hinted, usage};
use crate::options::select;
use crate::out::{self, Out};
use crate::sys::{confine, machine, stop};
use crate::tool::{Ctx, Entry};

/// Picks a tool, runs it, turns an error into a line and an exit code.
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
            if !error::is_reader_gone(&err) {
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
    // The first thing of all: a signal that comes while the command line is read is a normal end, too.
    stop::hold()?;
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
    let file = matches.get_one::<PathBuf>("file");
    if file.is_some_and(|path| path.as_os_str().is_empty()) {
        return Err(usage("--file: the name is empty"));
    }
    let mut out = if file.is_some() { Out::nowhere() } else { Out::stdout()? };
    if let Some(list) = columns::choose(entry, typed, &matches, &mut out)? {
        return print(list);
    }
    if matches.get_flag("ebpf") {
        return print(format!(
            "{name}: no source is generated at run time: its BPF object, {size} bytes in this binary, is \
             compiled from probes-ebpf/src/bin/{name}.rs\n",
            name = entry.spec.name,
            size = entry.spec.object.size(),
        ));
    }
    let verbose = wants_debug()?;
    let ring_bytes = matches.get_one("x-ring-bytes").copied();
    let table_entries = matches.get_one("x-table-entries").copied();
    if (ring_bytes.is_some() || table_entries.is_some()) && !rustix::process::geteuid().is_root() {
        return Err(usage("--x-ring-bytes and --x-table-entries take memory of the kernel: for root only"));
    }
    if let Some(path) = file {
        out.set_file(path, matches.get_one("rotate").copied())?;
    }
    let mut cx = Ctx { verbose, select, ring_bytes, table_entries, ..Ctx::new(entry.spec, out) };
    cx.out.clock().set_ahead(machine::clock_ahead()?);
    let ran = (entry.run)(&matches, &mut cx);
    // Rows that were printed before an error are as good as any.
    cx.out.end_soon();
    let ended = ran.and(cx.out.finish());
    match (ended, cx.out.losses()) {
        (Ok(()), Some(sentence)) => cx.warn(sentence),
        // Whoever closes a pipe wants no more rows.
        (Err(err), Some(sentence)) if !error::is_reader_gone(&err) => return Err(hinted(err, sentence)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::TOOLS;

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
