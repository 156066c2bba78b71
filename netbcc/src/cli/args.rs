//! Parsing of command lines: matches, an answer to a question for help, or an error in one line.

use std::ffi::OsString;
use std::iter::once;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::parse;
use crate::error::usage;
use crate::options::select;
use crate::out::Out;
use crate::sys::stop;
use crate::tool::Entry;

/// Parses; None when it was a question for help, which is answered.
pub(super) fn parse_args(command: Command, args: Vec<OsString>) -> Result<Option<ArgMatches>> {
    parse_or(command, args, |_| None)
}

/// Parses as [`parse_args`]. An option that all tools have but this one is refused with the reason.
pub(super) fn parse_tool(entry: &Entry, command: Command, args: Vec<OsString>) -> Result<Option<ArgMatches>> {
    let apart = select::apart(&command, &args);
    let command_for_sentence = command.clone();
    parse_or(command, args, |err| {
        let typed = parse::unknown(err)?;
        let meant = apart.filter(|meant| meant.ends_with(&format!("={typed}")));
        let meant = meant
            .map(|meant| format!("{}; did you mean '{meant}'?", parse::one_line(err, &command_for_sentence)));
        meant.or_else(|| select::refused(entry.spec.refuses, entry.spec.name, typed))
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

/// Prints an answer. A signal ends this at once, whether standard output takes the text or not.
pub(super) fn print(text: impl std::fmt::Display) -> Result<()> {
    stop::release()?;
    let mut out = Out::stdout()?;
    out.raw().extend_from_slice(text.to_string().as_bytes());
    out.finish()
}

#[cfg(feature = "fuzzing")]
/// As [`parse_args`], for the fuzz targets: the error, if there is one; what was asked for is not printed.
pub(crate) fn refusal(entry: &Entry, words: Vec<OsString>) -> Option<String> {
    let mut command = (entry.command)();
    let words = once(OsString::from(entry.spec.name)).chain(words);
    let err = command.try_get_matches_from_mut(words).err().filter(clap::Error::use_stderr)?;
    Some(parse::one_line(&err, &command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    /// The sentence for a wrong command line of the first demo tool, or the second's when it is `tcpload`.
    fn wrong(words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        let tool = demo::TOOLS.iter().find(|tool| tool.spec.name == words[0]).unwrap();
        let args = words[1..].iter().map(Into::into).collect();
        let err = parse_args((tool.command)(), args).unwrap_err();
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
    fn an_option_that_means_nothing_to_a_tool_is_refused_with_the_reason() {
        let entry = &demo::TOOLS[1];
        for (typed, name) in [("--raddr=::1", "--raddr"), ("--rad", "--raddr"), ("--lport", "--lport")] {
            let words = vec![typed.split('=').next().unwrap().into(), "::1".into()];
            let err = parse_tool(entry, (entry.command)(), words).unwrap_err();
            let sentence = format!("{name} cannot be used with tcpload: it samples nothing");
            assert_eq!(err.to_string(), format!("{sentence} (try 'tcpload --help')"));
            assert_eq!(crate::error::exit_code(&err), 2);
        }
        // Which of two is meant cannot be told.
        assert_eq!(select::refused(entry.spec.refuses, "tcpload", "--r"), None);
        assert_eq!(select::refused(demo::TOOLS[0].spec.refuses, "tcpflows", "--raddr"), None);
    }
}
