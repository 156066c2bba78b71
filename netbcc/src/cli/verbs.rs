//! netbcc's own commands beside its tools: their command lines, for parsing, manual and completions alike.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::options::manners;
use crate::tool::Entry;

/// All of them, as `netbcc --help` lists them.
pub(super) fn all(tools: &[Entry]) -> Vec<Command> {
    vec![help(tools), doctor(tools), links(), man(tools), completions(tools), schema(tools)]
}

/// The binary: tools and verbs as its subcommands.
pub(super) fn netbcc(tools: &[Entry]) -> Command {
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    manners(Command::new("netbcc"))
        .about("BCC's network tools as one static binary")
        .override_usage("netbcc TOOL [OPTIONS]\nnetbcc COMMAND")
        .arg(flag("list", "Name all tools, one per line"))
        .arg(flag("verbose", "With --list: say what they do, too").short('v'))
        .arg(flag("json", "With --list: as JSON, one object per line"))
        .subcommands(tools.iter().map(|entry| (entry.command)()))
        .subcommands(all(tools))
}

fn verb(name: &'static str, bin_name: &'static str, about: &'static str) -> Command {
    manners(Command::new(name)).bin_name(bin_name).about(about)
}

/// A tool's name.
pub(super) fn tool_arg(tools: &[Entry]) -> Arg {
    let names: Vec<&'static str> = tools.iter().map(|entry| entry.spec.name).collect();
    Arg::new("tool")
        .value_name("TOOL")
        .value_parser(PossibleValuesParser::new(names))
        .hide_possible_values(true)
}

/// The tool that was named.
pub(super) fn tool(matches: &ArgMatches, tools: &'static [Entry]) -> Option<&'static Entry> {
    let name = matches.get_one::<String>("tool")?;
    tools.iter().find(|entry| entry.spec.name == name)
}

fn help(tools: &[Entry]) -> Command {
    let own = ["completions", "doctor", "help", "install-links", "man", "schema"];
    let names = tools.iter().map(|entry| entry.spec.name).chain(own);
    verb("help", "netbcc help", "Print the help of a tool or of a command").arg(
        Arg::new("tool")
            .value_name("TOOL|COMMAND")
            .value_parser(PossibleValuesParser::new(names))
            .hide_possible_values(true)
            .help("The tool; without one, netbcc itself"),
    )
}

/// `netbcc man`.
pub(super) fn man(tools: &[Entry]) -> Command {
    verb("man", "netbcc man", "Print a manual page: netbcc man TOOL | man -l -")
        .arg(tool_arg(tools).help("The tool; without one, netbcc itself"))
}

/// `netbcc completions`.
pub(super) fn completions(tools: &[Entry]) -> Command {
    let shells = PossibleValuesParser::new(["bash", "zsh", "fish"]);
    verb("completions", "netbcc completions", "Print completions for a shell")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(shells).help("Which shell"))
        .arg(tool_arg(tools).help("For a link named after this tool; without one, for netbcc"))
}

/// `netbcc schema`.
pub(super) fn schema(tools: &[Entry]) -> Command {
    verb("schema", "netbcc schema", "Print the JSON Schema of a tool's --json rows")
        .arg(tool_arg(tools).required(true).help("The tool"))
}

/// `netbcc doctor`.
pub(super) fn doctor(tools: &[Entry]) -> Command {
    verb("doctor", "netbcc doctor", "Say which tools run on this machine, and in which way")
        .arg(tool_arg(tools).help("This tool only, in detail"))
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::SetTrue)
                .help("Each way to attach, and what it lacks"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("One JSON object"))
        .after_help(
            "Every way to attach is tried and taken back at once; nothing is traced. Without the permission to do that \
             (root, or CAP_BPF and CAP_PERFMON) it says what can be seen without. The exit code is 0 when all tools run, \
             1 otherwise.",
        )
}

/// `netbcc install-links`.
pub(super) fn links() -> Command {
    let affix = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TEXT").allow_hyphen_values(true).help(help)
    };
    verb("install-links", "netbcc install-links", "Link the tools' names to this binary, all or none")
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The folder for the links, made where it is missing; what is not a link to netbcc is never replaced"),
        )
        .arg(affix("prefix", "Before each name: netbcc-"))
        .arg(affix("suffix", "After each name: -bpfcc, or .py as in BCC's source"))
}
