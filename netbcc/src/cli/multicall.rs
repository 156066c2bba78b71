//! Which tool a process is, from the name it was called by and its first words. Pure: it looks at nothing else.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::verbs;
use crate::out::quoted;
use crate::tool::Entry;
use crate::words::nearest_of;

/// What is to be done.
pub enum Call {
    /// Run this tool.
    Tool {
        /// Which.
        entry: &'static Entry,
        /// What its user types to run it: the name of a link, or `netbcc NAME`.
        typed: String,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// Make links; the arguments of `install-links`.
    InstallLinks(Vec<OsString>),
    /// Say what runs here; the arguments of `doctor`.
    Doctor(Vec<OsString>),
    /// Print a manual page; the arguments of `man`.
    Man(Vec<OsString>),
    /// Print completions; the arguments of `completions`.
    Completions(Vec<OsString>),
    /// Print a JSON Schema; the arguments of `schema`.
    Schema(Vec<OsString>),
    /// Say what netbcc is.
    Help,
    /// Say what a tool is.
    HelpOf(&'static Entry),
    /// Say what one of netbcc's own commands does.
    HelpOfVerb(Box<Command>),
    /// Name all tools.
    List(Listing),
    /// Say the version.
    Version,
    /// No such tool.
    Unknown {
        /// What was asked for.
        name: String,
        /// The tool that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Called by a link whose name is no tool's.
    UnknownLink {
        /// The name of the link.
        name: String,
        /// The tool that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Not a way to call netbcc.
    Wrong(String),
}

/// What `--list` says of each tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Its name.
    Names,
    /// Its name and what it does.
    About,
    /// Both, as JSON.
    Json,
}

/// Decides. Only the base name of `argv0` counts, so any path and any chain of links will do. A name that is neither
/// a tool's nor netbcc's is a mistake, unless the first word says which tool or command is meant: BCC has more tools
/// than netbcc, and a script that calls one of the others by a link must not see success.
pub fn pick(argv0: &OsStr, args: &[OsString], tools: &'static [Entry]) -> Call {
    let base = Path::new(argv0).file_name().and_then(OsStr::to_str).unwrap_or_default();
    if let Some(entry) = called(base, tools) {
        return Call::Tool { entry, typed: base.to_owned(), args: args.to_vec() };
    }
    let words = args.split_first();
    if !is_netbcc(base) && !words.is_some_and(|(first, _)| is_known(&first.to_string_lossy(), tools)) {
        let name = Path::new(argv0).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let nearest = nearest(&name, tools);
        return Call::UnknownLink { name, nearest };
    }
    let Some((first, rest)) = words else { return Call::Help };
    let first = first.to_string_lossy();
    let alone = |call: Call| match rest.first() {
        Some(extra) => {
            Call::Wrong(format!("unexpected argument '{}' after '{first}'", extra.to_string_lossy()))
        }
        None => call,
    };
    match &*first {
        "--list" => listing(rest),
        "--version" | "-V" => alone(Call::Version),
        "install-links" => Call::InstallLinks(rest.to_vec()),
        "doctor" => Call::Doctor(rest.to_vec()),
        "man" => Call::Man(rest.to_vec()),
        "completions" => Call::Completions(rest.to_vec()),
        "schema" => Call::Schema(rest.to_vec()),
        "--help" | "-h" | "help" => match rest {
            [] => Call::Help,
            [flag] if flag == "--help" || flag == "-h" => Call::Help,
            [flag] if flag == "--version" || flag == "-V" => Call::Version,
            [name] => help_of(name, tools),
            [_, extra, ..] => Call::Wrong(format!("unexpected argument '{}'", extra.to_string_lossy())),
        },
        option if option.starts_with('-') => Call::Wrong(format!("unknown option '{option}'")),
        name => match find(name, tools) {
            Some(entry) => Call::Tool { entry, typed: typed(entry), args: rest.to_vec() },
            None => unknown(OsStr::new(name), tools),
        },
    }
}

/// The tool that a link of this name stands for: `NAME`, `netbcc-NAME`, Debian's `NAME-bpfcc`, or `NAME.py` as in
/// BCC's source.
pub(super) fn called(base: &str, tools: &'static [Entry]) -> Option<&'static Entry> {
    let name = base.strip_prefix("netbcc-").unwrap_or(base);
    let name = ["-bpfcc", ".py"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    find(name, tools)
}

/// What a user types who has no link: the tools are not in PATH by themselves.
pub(super) fn typed(entry: &Entry) -> String {
    format!("netbcc {}", entry.spec.name)
}

/// Whether a file of this name is netbcc itself: `netbcc`, and with a version or an architecture behind it. A process
/// without a name is, too.
fn is_netbcc(base: &str) -> bool {
    base.is_empty()
        || base.strip_prefix("netbcc").is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

/// Whether the word is a tool's name or one of netbcc's own commands.
fn is_known(word: &str, tools: &'static [Entry]) -> bool {
    find(word, tools).is_some() || verbs::all(tools).iter().any(|verb| verb.get_name() == word)
}

/// `--list` and what follows it.
fn listing(words: &[OsString]) -> Call {
    let (mut verbose, mut json) = (false, false);
    for word in words {
        match word.to_str() {
            Some("-v" | "--verbose") => verbose = true,
            Some("--json") => json = true,
            _ => {
                let word = word.to_string_lossy();
                return Call::Wrong(format!("unexpected argument '{word}' after '--list'"));
            }
        }
    }
    Call::List(match (json, verbose) {
        (true, _) => Listing::Json,
        (false, true) => Listing::About,
        (false, false) => Listing::Names,
    })
}

/// The help of a tool or of one of netbcc's own commands.
fn help_of(name: &OsStr, tools: &'static [Entry]) -> Call {
    let word = name.to_string_lossy();
    if let Some(entry) = find(&word, tools) {
        return Call::HelpOf(entry);
    }
    match verbs::all(tools).into_iter().find(|verb| verb.get_name() == word) {
        Some(verb) => Call::HelpOfVerb(Box::new(verb)),
        None => unknown(name, tools),
    }
}

fn find(name: &str, tools: &'static [Entry]) -> Option<&'static Entry> {
    tools.iter().find(|entry| entry.spec.name == name)
}

fn unknown(name: &OsStr, tools: &'static [Entry]) -> Call {
    let name = name.to_string_lossy().into_owned();
    let nearest = nearest(&name, tools);
    Call::Unknown { name, nearest }
}

/// The tool whose name is most like this one, if it is much like it.
fn nearest(name: &str, tools: &'static [Entry]) -> Option<&'static str> {
    nearest_of(name, tools.iter().map(|entry| entry.spec.name), 0)
}

/// A line per tool.
pub(super) fn list(tools: &[Entry], listing: Listing) -> String {
    let line = |entry: &Entry| match listing {
        Listing::Json => {
            format!("{{\"tool\":{},\"about\":{}}}\n", quoted(entry.spec.name), quoted(entry.spec.about))
        }
        _ => entry.spec.name.to_owned() + "\n",
    };
    if listing == Listing::About { names_and_meanings(tools) } else { tools.iter().map(line).collect() }
}

/// The names and what the tools do, in two columns.
fn names_and_meanings(tools: &[Entry]) -> String {
    let mut builder = Builder::new();
    for entry in tools {
        builder.push_record([entry.spec.name, entry.spec.about]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How a link becomes a tool.
pub(super) const NAMES: &str =
    "A link to this binary that is named after a tool runs that tool: see install-links.";

/// What netbcc says about itself.
pub(super) fn help(tools: &[Entry]) -> String {
    let list: String = names_and_meanings(tools).lines().flat_map(|line| ["  ", line, "\n"]).collect();
    format!(
        "\
BCC's network tools as one static binary

Usage: netbcc TOOL [OPTIONS]
       netbcc help TOOL|COMMAND
       netbcc --list [-v|--json]
       netbcc install-links DIR [--prefix netbcc-] [--suffix .py]
       netbcc doctor [TOOL] [-v] [--json]
       netbcc man [TOOL] | man -l -
       netbcc completions bash|zsh|fish [TOOL]
       netbcc schema TOOL

doctor says which tools run on this machine, and in which way.
{NAMES}

Options:
      --list     Name all tools, one per line
  -v, --verbose  With --list: say what they do, too
      --json     With --list: as JSON, one object per line
  -V, --version  Print the version
  -h, --help     Print this help

Tools:
{list}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::TOOLS;

    /// What is chosen, in words.
    fn chosen(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(Into::into).collect();
        match pick(&words[0], &words[1..], TOOLS) {
            Call::Tool { entry, typed, args } => {
                let args = args.join(OsStr::new(" "));
                format!("{} as {typed:?}: {}", entry.spec.name, args.display())
            }
            Call::InstallLinks(args) => format!("links {}", args.join(OsStr::new(" ")).display()),
            Call::Doctor(args) => format!("doctor {}", args.join(OsStr::new(" ")).display()),
            Call::Man(args) => format!("man {}", args.join(OsStr::new(" ")).display()),
            Call::Completions(args) => format!("completions {}", args.join(OsStr::new(" ")).display()),
            Call::Schema(args) => format!("schema {}", args.join(OsStr::new(" ")).display()),
            Call::Help => "help".into(),
            Call::HelpOf(entry) => format!("help of {}", entry.spec.name),
            Call::HelpOfVerb(verb) => format!("help of the command {verb}"),
            Call::List(listing) => format!("list {listing:?}"),
            Call::Version => "version".into(),
            Call::Unknown { name, nearest } => format!("unknown {name}, nearest {nearest:?}"),
            Call::UnknownLink { name, nearest } => format!("unknown link {name}, nearest {nearest:?}"),
            Call::Wrong(what) => what,
        }
    }

    #[test]
    fn the_name_decides() {
        for (name, base) in [
            ("tcpload", "tcpload"),
            ("netbcc-tcpload", "netbcc-tcpload"),
            ("tcpload-bpfcc", "tcpload-bpfcc"),
            ("tcpload.py", "tcpload.py"),
            ("/usr/bin/tcpload", "tcpload"),
            ("../x/netbcc-tcpload", "netbcc-tcpload"),
            ("./tcpload", "tcpload"),
        ] {
            assert_eq!(chosen(&format!("{name} -C 5")), format!("tcpload as {base:?}: -C 5"));
        }
        for name in ["netbcc", "renamed", "/opt/netbcc-1.0", "tcploadx", "xtcpload", ""] {
            assert_eq!(chosen(&format!("{name} tcpload -C 5")), r#"tcpload as "netbcc tcpload": -C 5"#);
        }
        assert_eq!(chosen("tcpload --list"), r#"tcpload as "tcpload": --list"#);
    }

    #[test]
    fn a_name_that_is_no_tools_says_so() {
        for words in ["opensnoop", "/x/opensnoop --help", "opensnoop -t", "opensnoop 5", "opensnoop --list"] {
            assert_eq!(chosen(words), "unknown link opensnoop, nearest None");
        }
        assert_eq!(chosen("tcplod.py"), "unknown link tcplod.py, nearest None");
        assert_eq!(chosen("tcplod"), "unknown link tcplod, nearest Some(\"tcpload\")");
        assert_eq!(chosen("netbccx"), "unknown link netbccx, nearest None");
        for name in ["netbcc", "netbcc-aarch64", "netbcc_0.1", "netbcc.old", "/x/netbcc"] {
            assert_eq!(chosen(name), "help");
        }
        assert_eq!(chosen("renamed doctor"), "doctor ");
    }

    #[test]
    fn the_first_word_decides() {
        assert_eq!(chosen("netbcc"), "help");
        assert_eq!(chosen("netbcc --help"), "help");
        assert_eq!(chosen("netbcc help"), "help");
        for help in ["help", "-h", "--help"] {
            assert_eq!(chosen(&format!("netbcc {help} tcpload")), "help of tcpload");
            assert_eq!(chosen(&format!("netbcc {help} doctor")), "help of the command doctor");
        }
        assert_eq!(chosen("netbcc --list"), "list Names");
        assert_eq!(chosen("netbcc --list -v"), "list About");
        assert_eq!(chosen("netbcc --list --json --verbose"), "list Json");
        assert_eq!(chosen("netbcc --version"), "version");
        assert_eq!(chosen("netbcc install-links /x --prefix y"), "links /x --prefix y");
        assert_eq!(chosen("netbcc doctor tcpload --json"), "doctor tcpload --json");
        assert_eq!(chosen("netbcc man tcpload"), "man tcpload");
        assert_eq!(chosen("netbcc completions fish"), "completions fish");
        assert_eq!(chosen("netbcc schema tcpload"), "schema tcpload");
        assert_eq!(chosen("netbcc --list x"), "unexpected argument 'x' after '--list'");
        assert_eq!(chosen("netbcc --version x"), "unexpected argument 'x' after '--version'");
        assert_eq!(chosen("netbcc -x"), "unknown option '-x'");
    }

    #[test]
    fn a_typo_finds_the_nearest_name() {
        assert_eq!(chosen("netbcc tcplod"), "unknown tcplod, nearest Some(\"tcpload\")");
        assert_eq!(chosen("netbcc tcpflow"), "unknown tcpflow, nearest Some(\"tcpflows\")");
        assert_eq!(chosen("netbcc help tcpfolws"), "unknown tcpfolws, nearest Some(\"tcpflows\")");
        assert_eq!(chosen("netbcc frobnicate"), "unknown frobnicate, nearest None");
    }

    #[test]
    fn the_list_has_one_line_per_tool() {
        assert_eq!(
            list(TOOLS, Listing::About),
            "tcpflows  Show nothing at all, for tests\ntcpload   Sample nothing, for tests\n"
        );
        assert_eq!(list(TOOLS, Listing::Names), "tcpflows\ntcpload\n");
        let json = list(TOOLS, Listing::Json);
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!((&first["tool"], json.lines().count()), (&"tcpflows".into(), 2));
        for listing in [Listing::Names, Listing::About, Listing::Json] {
            assert_eq!(list(&[], listing), "");
        }
    }
}
