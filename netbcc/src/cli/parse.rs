//! Values that users type, checked before anything is loaded, and the sentences when they are wrong.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Command;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::out::escaped;
use crate::probe::hook::{Rung, RungName};
use crate::tool::Spec;

/// A list of ports without duplicates, in the order given. Empty means: no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<u16>);

impl Ports {
    /// What several lists name together, as an option that is given more than once.
    pub fn together(lists: &[Self]) -> Self {
        let mut all = Vec::new();
        for port in lists.iter().flat_map(|list| &list.0) {
            if !all.contains(port) {
                all.push(*port);
            }
        }
        Self(all)
    }

    /// The ports.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    /// Whether there is nothing to filter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The words of a comma list, without the blanks around them. An empty list has none: an option that is given an empty
/// value, as from an unset variable of a script, counts as not given.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_empty = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !is_empty)
}

/// Several words of one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// What several lists name together, as an option that is given more than once.
    pub fn together(lists: &[Self]) -> impl Iterator<Item = &str> + Clone {
        lists.iter().flat_map(|list| list.0.iter().map(String::as_str))
    }
}

/// Takes a comma list apart.
pub fn word_list(text: &str) -> Result<Words, Infallible> {
    Ok(Words(words(text).map(Into::into).collect()))
}

/// Parses a path. An empty one is kept; [`given`] tells it from others.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The path of an option that is not empty: an empty one counts as not given.
pub fn given(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}

/// The word for all ports, as if no list were given.
const ALL_PORTS: &str = "all";

/// Parses a comma list of ports, as BCC does: blanks around numbers are fine, and an empty list is no filter.
pub fn ports(text: &str) -> Result<Ports, String> {
    let mut ports = Vec::new();
    if text != ALL_PORTS {
        for word in words(text) {
            let port = word.parse().map_err(|_| format!("'{word}' is not a port, which is 0 to 65535"))?;
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    Ok(Ports(ports))
}

/// Parses a whole number of at least 1.
pub fn positive(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("not a whole number from 1 to {}", u32::MAX))
}

/// Parses a process id.
fn pid(text: &str) -> Result<NonZeroU32, String> {
    match text.parse::<NonZeroU32>() {
        Ok(pid) if i32::try_from(pid.get()).is_ok() => Ok(pid),
        _ => Err(format!("not a process id, which is 1 to {}", i32::MAX)),
    }
}

/// Parses a process id, or 0 for all.
pub fn pid_or_all(text: &str) -> Result<u32, String> {
    if text == "0" { Ok(0) } else { pid(text).map(NonZeroU32::get) }
}

/// clap's error as one line: what is wrong and why, without its advice.
pub(super) fn one_line(err: &clap::Error, command: &Command) -> String {
    if let Some(sentence) = ambiguous(err, command) {
        return sentence;
    }
    let text = err.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let what = text.split("\n\n").next().unwrap_or(text);
    let words: Vec<&str> = what.lines().map(str::trim).collect();
    escaped(words.join(" "))
}

/// The sentence for a prefix that several long options begin with; clap only calls it unknown.
fn ambiguous(err: &clap::Error, command: &Command) -> Option<String> {
    let typed = unknown(err)?;
    let prefix = typed.strip_prefix("--").filter(|prefix| !prefix.is_empty())?;
    let longs = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long);
    let found: Vec<String> =
        longs.filter(|long| long.starts_with(prefix)).map(|long| format!("'--{long}'")).collect();
    (found.len() > 1).then(|| format!("ambiguous option '{}': {}", escaped(typed), found.join(" or ")))
}

/// The option that clap does not know, as it was typed, if that is the error.
pub(super) fn unknown(err: &clap::Error) -> Option<&str> {
    match err.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(typed)) if err.kind() == ErrorKind::UnknownArgument => Some(typed),
        _ => None,
    }
}

/// What follows the options in a tool's help.
pub(super) fn after_help(spec: &Spec, typed: &str) -> String {
    let mut text = String::from("Examples:\n");
    for (command, meaning) in examples(spec, typed) {
        let _ = writeln!(text, "  {command}\n      {meaning}");
    }
    text.push_str("\nOverhead:\n");
    fill(&mut text, spec.overhead, "  ", "  ");
    if !spec.differences.is_empty() {
        text.push_str("\nDifferences from BCC:\n");
        for difference in spec.differences {
            fill(&mut text, difference, "  * ", "    ");
        }
    }
    text.push_str("\nEnvironment:\n");
    let attach = format!("NETBCC_ATTACH={}", rungs(spec).join("|"));
    let _ = write!(
        text,
        "  {attach}  use this kind of hook only\n  {:<width$}  say which hooks are used, and why",
        "NETBCC_LOG=debug",
        width = attach.len(),
    );
    text
}

/// A tool's examples, as its user types them.
pub(super) fn examples(spec: &Spec, typed: &str) -> Vec<(String, &'static str)> {
    let typed = |command: &str| match command.strip_prefix(spec.name) {
        Some(rest) => format!("{typed}{rest}"),
        None => command.to_owned(),
    };
    spec.examples.iter().map(|(command, meaning)| (typed(command), *meaning)).collect()
}

/// The kinds of hooks that a tool has.
pub(super) fn rungs(spec: &Spec) -> Vec<&'static str> {
    let has = |name: &RungName| {
        spec.ladders.iter().flat_map(|ladder| ladder.rungs).any(|rung: &Rung| rung.name == *name)
    };
    RungName::ALL.into_iter().filter(has).map(RungName::as_str).collect()
}

/// Appends `words`, broken into lines of less than 80 columns.
pub(super) fn fill(text: &mut String, words: &str, first: &str, rest: &str) {
    let mut line = String::from(first);
    for word in words.split_whitespace() {
        if !line.ends_with(' ') {
            if line.len() + 1 + word.len() > 78 {
                text.push_str(&line);
                text.push('\n');
                rest.clone_into(&mut line);
            } else {
                line.push(' ');
            }
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// Parses the size of a ring buffer: a power of two of whole pages.
pub(super) fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok().filter(|bytes: &u32| *bytes >= 4096 && bytes.is_power_of_two());
    bytes.ok_or_else(|| "not a power of two from 4096 on".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tool::demo;

    /// The sentence for a wrong command line of the first demo tool, or the second's when it is `tcpload`.
    fn wrong(words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        let tool = demo::TOOLS.iter().find(|tool| tool.spec.name == words[0]).unwrap();
        let args = words[1..].iter().map(Into::into).collect();
        let err = super::super::parse_args((tool.command)(), args).unwrap_err();
        assert_eq!(crate::error::exit_code(&err), 2);
        format!("{err:#}")
    }

    #[test]
    fn errors_are_one_line_that_says_what_and_why() {
        let hint = "(try 'tcpflows --help')";
        for (words, expected) in [
            (
                "tcpflows -p abc",
                "invalid value 'abc' for '--pid <PIDS>': 'abc' is neither a process id, which is 1 to 2147483647, nor a range as 1000-1999",
            ),
            (
                "tcpflows -p 0",
                "invalid value '0' for '--pid <PIDS>': '0' is neither a process id, which is 1 to 2147483647, nor a range as 1000-1999",
            ),
            ("tcpflows -p", "a value is required for '--pid <PIDS>' but none was supplied"),
            (
                "tcpflows -L 1,x",
                "invalid value '1,x' for '--localport <PORTS>': 'x' is not a port, which is 0 to 65535",
            ),
            ("tcpflows -4 -6", "the argument '--ipv4' cannot be used with '--ipv6'"),
            ("tcpflows -64", "the argument '--ipv6' cannot be used with '--ipv4'"),
            ("tcpflows -s --json", "the argument '--csv' cannot be used with '--json[=<FORM>]'"),
            ("tcpflows --tim", "ambiguous option '--tim': '--time' or '--timestamp'"),
            ("tcpflows --nothing", "unexpected argument '--nothing' found"),
            ("tcpflows stray", "unexpected argument 'stray' found"),
        ] {
            assert_eq!(wrong(words), format!("{expected} {hint}"));
        }
        // clap drops the sequence itself where another package of the workspace turns its colours on.
        let hostile = wrong("tcpflows --\x1b[31m");
        assert!(hostile.starts_with("unexpected argument '--") && !hostile.contains('\x1b'), "{hostile}");
        assert_eq!(
            wrong("tcpload 0"),
            "invalid value '0' for '[INTERVAL]': not a whole number from 1 to 4294967295 (try 'tcpload --help')"
        );
        assert!(wrong("tcpload -1").starts_with("unexpected argument '-1' found"));
        assert!(wrong("tcpload 1 2 3").starts_with("unexpected argument '3' found"));
    }

    #[test]
    fn ports_as_people_type_them() {
        assert_eq!(ports("80, 443 ,80").unwrap().as_slice(), [80, 443]);
        assert_eq!(ports("0,65535").unwrap().as_slice(), [0, 65535]);
        assert!(ports("all").unwrap().is_empty());
        for none in ["", " "] {
            assert!(ports(none).unwrap().is_empty(), "{none:?}");
        }
        for junk in [",", "80,", "65536", "-1", "x", "8 0", "ALL"] {
            assert!(ports(junk).is_err(), "{junk:?}");
        }
    }

    #[test]
    fn lists_add_up_and_empty_ones_add_nothing() {
        let lists = ["80, 443", "", "all", "443,22"].map(|text| ports(text).unwrap());
        assert_eq!(Ports::together(&lists).as_slice(), [80, 443, 22]);
        let lists = ["A, b", " ", "c"].map(|text| word_list(text).unwrap());
        assert_eq!(Words::together(&lists).collect::<Vec<_>>(), ["A", "b", "c"]);
        assert_eq!(words("a,,b").collect::<Vec<_>>(), ["a", "", "b"]);
        assert_eq!(given(Some(&PathBuf::new())), None);
        assert_eq!(given(Some(&"/x".into())), Some(Path::new("/x")));
    }

    #[test]
    fn process_ids() {
        assert_eq!(pid("2147483647").map(NonZeroU32::get), Ok(i32::MAX.unsigned_abs()));
        assert!(pid("2147483648").is_err() && pid("").is_err() && pid(" 1").is_err());
        assert_eq!(pid_or_all("0"), Ok(0));
        assert!(pid_or_all("-1").is_err());
    }

    #[test]
    fn long_words_do_not_lose_the_indent() {
        let mut text = String::new();
        fill(&mut text, &format!("a {} b", "x".repeat(100)), "* ", "  ");
        assert_eq!(text, format!("* a\n  {}\n  b\n", "x".repeat(100)));
    }

    proptest! {
        #[test]
        fn any_list_of_ports_reads_back(list in proptest::collection::vec(any::<u16>(), 1..20)) {
            let text = list.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            let mut seen = std::collections::HashSet::new();
            let unique: Vec<u16> = list.into_iter().filter(|&port| seen.insert(port)).collect();
            let ports = ports(&text).unwrap();
            prop_assert_eq!(ports.as_slice(), unique);
        }

        #[test]
        fn junk_never_panics(text: String) {
            let _ = (ports(&text), pid(&text), pid_or_all(&text), positive(&text));
        }
    }
}
