//! Which tool a process is, from the name it was called by and its first words. Pure: it looks at nothing else.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::tool::Entry;

/// What is to be done.
pub enum Call {
    /// Run this tool with these arguments.
    Tool(&'static Entry, Vec<OsString>),
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
    /// Name all tools.
    List,
    /// Say the version.
    Version,
    /// No such tool.
    Unknown {
        /// What was asked for.
        name: String,
        /// The tool that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Not a way to call netbcc.
    Wrong(String),
}

/// Decides. Only the base name of `argv0` counts, so any path and any chain of links will do; a binary of any
/// other name is netbcc itself.
pub fn pick(argv0: &OsStr, args: &[OsString], tools: &'static [Entry]) -> Call {
    let base = Path::new(argv0).file_name().and_then(OsStr::to_str).unwrap_or_default();
    if let Some(entry) = called(base, tools) {
        return Call::Tool(entry, args.to_vec());
    }
    let Some((first, rest)) = args.split_first() else { return Call::Help };
    let first = first.to_string_lossy();
    let alone = |call: Call| match rest.first() {
        Some(extra) => {
            Call::Wrong(format!("unexpected argument '{}' after '{first}'", extra.to_string_lossy()))
        }
        None => call,
    };
    match &*first {
        "--help" | "-h" => alone(Call::Help),
        "--list" => alone(Call::List),
        "--version" | "-V" => alone(Call::Version),
        "install-links" => Call::InstallLinks(rest.to_vec()),
        "doctor" => Call::Doctor(rest.to_vec()),
        "man" => Call::Man(rest.to_vec()),
        "completions" => Call::Completions(rest.to_vec()),
        "schema" => Call::Schema(rest.to_vec()),
        "help" => match rest {
            [] => Call::Help,
            [flag] if flag == "--help" || flag == "-h" => Call::Help,
            [name] => find(&name.to_string_lossy(), tools).map_or_else(|| unknown(name, tools), Call::HelpOf),
            [_, extra, ..] => Call::Wrong(format!("unexpected argument '{}'", extra.to_string_lossy())),
        },
        option if option.starts_with('-') => Call::Wrong(format!("unknown option '{option}'")),
        name => match find(name, tools) {
            Some(entry) => Call::Tool(entry, rest.to_vec()),
            None => unknown(OsStr::new(name), tools),
        },
    }
}

/// The tool that a link of this name stands for: `NAME`, `netbcc-NAME`, or Debian's `NAME-bpfcc`.
pub(super) fn called(base: &str, tools: &'static [Entry]) -> Option<&'static Entry> {
    let name = base.strip_prefix("netbcc-").unwrap_or(base);
    find(name.strip_suffix("-bpfcc").unwrap_or(name), tools)
}

fn find(name: &str, tools: &'static [Entry]) -> Option<&'static Entry> {
    tools.iter().find(|entry| entry.spec.name == name)
}

fn unknown(name: &OsStr, tools: &'static [Entry]) -> Call {
    let name = name.to_string_lossy().into_owned();
    let nearest = tools
        .iter()
        .map(|entry| (distance(&name, entry.spec.name), entry.spec.name))
        .min()
        .filter(|(distance, tool)| *distance <= tool.len() / 3)
        .map(|(_, tool)| tool);
    Call::Unknown { name, nearest }
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The names and what they do, one per line.
pub(super) fn list(tools: &[Entry]) -> String {
    let mut builder = Builder::new();
    for entry in tools {
        builder.push_record([entry.spec.name, entry.spec.about]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How a link becomes a tool.
pub(super) const NAMES: &str = "A link to this binary, named after a tool, is that tool: see install-links.";

/// What netbcc says about itself.
pub(super) fn help(tools: &[Entry]) -> String {
    let list: String = list(tools).lines().flat_map(|line| ["  ", line, "\n"]).collect();
    format!(
        "\
BCC's network tools as one static binary

Usage: netbcc TOOL [OPTIONS]
       netbcc help TOOL
       netbcc --list
       netbcc install-links DIR [--prefix netbcc-] [--suffix=-bpfcc]
       netbcc doctor [TOOL] [--json]
       netbcc man [TOOL] | man -l -
       netbcc completions bash|zsh|fish [TOOL]
       netbcc schema TOOL

doctor says which tools run on this machine, and in which way.
{NAMES}

Options:
      --list     Name all tools
  -V, --version  Print the version
  -h, --help     Print this help

Tools:
{list}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::demo::TOOLS;

    /// What is chosen, in words.
    fn chosen(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(Into::into).collect();
        match pick(&words[0], &words[1..], TOOLS) {
            Call::Tool(entry, args) => {
                format!("{} {}", entry.spec.name, args.join(OsStr::new(" ")).display())
            }
            Call::InstallLinks(args) => format!("links {}", args.join(OsStr::new(" ")).display()),
            Call::Doctor(args) => format!("doctor {}", args.join(OsStr::new(" ")).display()),
            Call::Man(args) => format!("man {}", args.join(OsStr::new(" ")).display()),
            Call::Completions(args) => format!("completions {}", args.join(OsStr::new(" ")).display()),
            Call::Schema(args) => format!("schema {}", args.join(OsStr::new(" ")).display()),
            Call::Help => "help".into(),
            Call::HelpOf(entry) => format!("help of {}", entry.spec.name),
            Call::List => "list".into(),
            Call::Version => "version".into(),
            Call::Unknown { name, nearest } => format!("unknown {name}, nearest {nearest:?}"),
            Call::Wrong(what) => what,
        }
    }

    #[test]
    fn the_name_decides() {
        for name in [
            "tcpload",
            "netbcc-tcpload",
            "tcpload-bpfcc",
            "/usr/bin/tcpload",
            "../x/netbcc-tcpload",
            "./tcpload",
        ] {
            assert_eq!(chosen(&format!("{name} -C 5")), "tcpload -C 5");
        }
        for name in ["netbcc", "renamed", "/opt/netbcc-1.0", "tcploadx", "xtcpload", ""] {
            assert_eq!(chosen(&format!("{name} tcpload -C 5")), "tcpload -C 5");
        }
        assert_eq!(chosen("tcpload --list"), "tcpload --list");
    }

    #[test]
    fn the_first_word_decides() {
        assert_eq!(chosen("netbcc"), "help");
        assert_eq!(chosen("netbcc --help"), "help");
        assert_eq!(chosen("netbcc help"), "help");
        assert_eq!(chosen("netbcc help tcpload"), "help of tcpload");
        assert_eq!(chosen("netbcc --list"), "list");
        assert_eq!(chosen("netbcc --version"), "version");
        assert_eq!(chosen("netbcc install-links /x --prefix y"), "links /x --prefix y");
        assert_eq!(chosen("netbcc doctor tcpload --json"), "doctor tcpload --json");
        assert_eq!(chosen("netbcc man tcpload"), "man tcpload");
        assert_eq!(chosen("netbcc completions fish"), "completions fish");
        assert_eq!(chosen("netbcc schema tcpload"), "schema tcpload");
        assert_eq!(chosen("netbcc --list x"), "unexpected argument 'x' after '--list'");
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
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_list_has_one_line_per_tool() {
        assert_eq!(
            list(TOOLS),
            "tcpflows  Show nothing at all, for tests\ntcpload   Sample nothing, for tests\n"
        );
        assert_eq!(list(&[]), "");
    }
}
