//! The sentences about a wrong command line, and the texts that help and manual share.

use std::fmt::Write as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::hook::{Rung, RungName};
use crate::out::escaped;
use crate::tool::Spec;

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
    use super::*;

    #[test]
    fn long_words_do_not_lose_the_indent() {
        let mut text = String::new();
        fill(&mut text, &format!("a {} b", "x".repeat(100)), "* ", "  ");
        assert_eq!(text, format!("* a\n  {}\n  b\n", "x".repeat(100)));
    }
}
