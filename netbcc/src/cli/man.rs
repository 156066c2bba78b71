//! `netbcc man`: manual pages from the tables that also make the help: command line, columns, hooks, and what the
//! tool says about itself.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::args::{parse_args, print as answer};
use super::{multicall, parse, verbs};
use crate::hook::{Ladder, Rung};
use crate::options::select;
use crate::out::{Field, Rows};
use crate::tool::Entry;

/// `netbcc man [TOOL]`: the page, as troff's source.
pub(super) fn print(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = parse_args(verbs::man(tools), args)? else { return Ok(()) };
    answer(match verbs::tool(&matches, tools) {
        Some(entry) => of_tool(entry)?,
        None => of_netbcc(tools)?,
    })
}

/// A tool's page.
fn of_tool(entry: &Entry) -> Result<String> {
    let spec = entry.spec;
    let description = [spec.description, &[ENDS]].concat().join("\n\n");
    let typed = multicall::typed(entry);
    let mut page = start((entry.command)().bin_name(&typed).long_about(description))?;
    let mut text = Roff::new();
    let rows = (entry.rows)()?;
    text.control("SH", ["FIELDS"]);
    fields(&mut text, &rows);
    let (title, words) = entry.words;
    if !title.is_empty() {
        text.control("SH", [title]);
        for (word, meaning) in words {
            text.control("TP", []).text([bold(*word)]).text([roman(*meaning)]);
        }
    }
    choosing(&mut text, entry);
    text.control("SH", ["EXAMPLES"]);
    for (command, meaning) in parse::examples(spec, &typed) {
        text.control("TP", []).text([bold(command)]).text([roman(meaning)]);
    }
    text.control("SH", ["OVERHEAD"]).text([roman(spec.overhead)]);
    text.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXITS {
        text.control("TP", []).text([bold(*code)]).text([roman(*meaning)]);
    }
    text.control("SH", ["DIFFERENCES FROM BCC"]);
    for difference in spec.differences {
        text.control("IP", ["\\(bu", "2"]).text([roman(*difference)]);
    }
    text.control("SH", ["HOOKS"]);
    for ladder in spec.ladders {
        hooks(&mut text, ladder);
    }
    text.control("SH", ["ENVIRONMENT"]);
    let attach = format!("NETBCC_ATTACH={}", parse::rungs(spec).join("|"));
    text.control("TP", []).text([bold(attach)]).text([roman("Use this kind of hook only.")]);
    text.control("TP", []).text([bold("NETBCC_LOG=debug")]);
    text.text([roman("Say on standard error which hooks are used, and why not others.")]);
    text.control("SH", ["SEE ALSO"]).text([bold("netbcc"), roman("(8)")]);
    page.push_str(&body(&text));
    Ok(page)
}

/// The grammar of the filters that all tools share, where a tool has any of them.
fn choosing(text: &mut Roff, entry: &Entry) {
    let names: Vec<String> = select::names_in(&(entry.command)()).map(|name| format!("--{name}")).collect();
    if names.is_empty() {
        return;
    }
    text.control("SH", ["FILTERS"]).text([bold(names.join(", ")), roman(" choose rows:")]);
    for paragraph in select::GRAMMAR {
        text.control("IP", ["\\(bu", "2"]).text([roman(*paragraph)]);
    }
}

/// The page of the binary itself.
fn of_netbcc(tools: &'static [Entry]) -> Result<String> {
    let mut page = start(verbs::netbcc(tools).long_about(NETBCC))?;
    let mut text = Roff::new();
    text.control("SH", ["TOOLS"]);
    for entry in tools {
        text.control("TP", []).text([bold(entry.spec.name), roman("(8)")]).text([roman(entry.spec.about)]);
    }
    text.control("SH", ["COMMANDS"]);
    page.push_str(&body(&text));
    for verb in verbs::all(tools) {
        page.push_str(&of_verb(verb)?);
    }
    let mut text = Roff::new();
    text.control("SH", ["NAMES"]).text([roman(multicall::NAMES)]);
    page.push_str(&body(&text));
    Ok(page)
}

/// A command's part of that page: how it is called, what it does, its options as a tool's page has them.
fn of_verb(mut verb: Command) -> Result<String> {
    let usage = verb.render_usage().to_string();
    let mut text = Roff::new();
    text.control("SS", [usage.trim_start_matches("Usage: ").trim()]);
    text.text([roman(verb.get_about().map(ToString::to_string).unwrap_or_default())]);
    if let Some(more) = verb.get_after_help() {
        text.control("PP", []).text([roman(more.to_string())]);
    }
    let mut options = Vec::new();
    Man::new(verb).render_options_section(&mut options)?;
    let (part, options) = (body(&text), String::from_utf8(options)?);
    Ok(part + options.split_once(".SH OPTIONS\n").map_or("", |(_, entries)| entries))
}

const NETBCC: &str = "One static binary that holds BCC's network tools. Their eBPF programs are inside it and ask the \
                      running kernel for its layout: no Python, no compiler, no kernel headers.\n\n\
                      It needs root, or the capabilities CAP_BPF and CAP_PERFMON.";

/// What all tools have in common.
const ENDS: &str = "It runs until Ctrl-C, unless the command line says otherwise. Events that were lost are counted by \
                    cause and said on standard error at the end. With --file, SIGHUP opens the file again and does \
                    not end it. With --rotate, a full file is renamed to FILE.1, an older one to the next number, \
                    and the oldest is removed.";

const EXITS: &[(&str, &str)] = &[
    ("0", "A normal end, Ctrl-C, SIGTERM, SIGHUP (without --file), or a reader that went away."),
    ("1", "It could not be done; one line on standard error says what failed and why."),
    ("2", "The command line makes no sense; one line on standard error says why."),
];

/// Title, NAME, SYNOPSIS, DESCRIPTION and OPTIONS.
fn start(command: Command) -> Result<String> {
    let name = command.get_name().to_owned();
    let mut bytes = Vec::new();
    // No date: a page that is made twice must be the same twice.
    let source = concat!("netbcc ", env!("CARGO_PKG_VERSION"));
    let mut title = Roff::new();
    title.control("TH", [&name, "8", "\"\"", source, "netbcc"]);
    title.to_writer(&mut bytes)?;
    // One section for all options: the headings of the help are not those of manuals.
    let command = command.mut_args(|arg| arg.help_heading(None));
    let page = Man::new(command.clone());
    let mut parts = Vec::new();
    page.render_name_section(&mut parts)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]).text(self::synopsis(&command));
    synopsis.to_writer(&mut parts)?;
    page.render_description_section(&mut parts)?;
    page.render_options_section(&mut parts)?;
    let parts = String::from_utf8(parts)?;
    let mut text = String::from_utf8(bytes)?;
    // Each part brings the definition that stands before the title already.
    let preamble = text.split(".TH").next().unwrap_or_default().to_owned();
    text.push_str(&parts.replace(&preamble, ""));
    Ok(text)
}

/// How a command is called: each option with its value, then what has no dash. clap_mangen leaves the values out.
fn synopsis(command: &Command) -> Vec<Inline> {
    let mut line = vec![bold(command.get_bin_name().unwrap_or(command.get_name()))];
    if command.has_subcommands() {
        line.extend([
            roman(" "),
            italic("TOOL"),
            roman("|"),
            italic("COMMAND"),
            roman(" ["),
            italic("ARGUMENT"),
        ]);
        line.extend([
            roman("...] | "),
            bold("--list"),
            roman(" ["),
            bold("-v"),
            roman("|"),
            bold("--json"),
            roman("]"),
        ]);
        return line;
    }
    let (words, options): (Vec<&Arg>, Vec<&Arg>) = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version")
        .partition(|arg| arg.is_positional());
    for option in options {
        line.push(roman(" ["));
        let short = option.get_short().map(|letter| format!("-{letter}"));
        let names = short.into_iter().chain(option.get_long().map(|name| format!("--{name}")));
        for (nth, name) in names.enumerate() {
            line.extend((nth > 0).then(|| roman("|")));
            line.push(bold(name));
        }
        if option.get_action().takes_values() {
            let optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
            let (before, after) = match (optional, option.is_require_equals_set()) {
                (true, true) => ("[=", "]"),
                (true, false) => (" [", "]"),
                (false, true) => ("=", ""),
                (false, false) => (" ", ""),
            };
            line.extend([roman(before), italic(value_name(option)), roman(after)]);
        }
        line.push(roman("]"));
    }
    for word in words {
        let (before, after) = if word.is_required_set() { (" ", "") } else { (" [", "]") };
        line.extend([roman(before), italic(value_name(word)), roman(after)]);
    }
    line
}

fn value_name(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| arg.get_id().to_string().to_uppercase(), ToString::to_string)
}

/// troff's source without the definitions that a page begins with.
fn body(text: &Roff) -> String {
    let whole = text.render();
    let preamble = Roff::new().render();
    whole.strip_prefix(&preamble).unwrap_or(&whole).to_owned()
}

fn fields(text: &mut Roff, kinds: &[Rows]) {
    text.text([
        roman("Titles are those of text and CSV; what "),
        bold(JSON),
        roman(" calls the same field stands behind them. "),
        bold("-o"),
        roman(" takes either name, in any case of letters, and keys before titles; several lists add up, and the usual \
               columns are there as well if each list begins with +. Columns are then as wide as what was in them so \
               far, and what is not known is a dash. "),
        roman("Each JSON row begins with these:"),
    ]);
    for field in Field::of_every_row() {
        one(text, vec![bold(field.key())], &field);
    }
    for rows in kinds {
        if rows.about.is_empty() {
            text.control("PP", []).text([roman("Then, as in text:")]);
        } else {
            text.control("SS", [rows.about]);
        }
        for field in &rows.fields {
            // What text and JSON declare apart, because its place differs, is one field to a reader.
            let twin = |other: &&Field| other.has_title() && !other.has_key() && other.text() == field.text();
            let tag = match (field.has_title(), field.has_key()) {
                (true, true) => vec![bold(field.title()), roman(", "), italic(field.key())],
                (true, false) => match rows
                    .fields
                    .iter()
                    .find(|other| !other.has_title() && other.has_key() && other.text() == field.text())
                {
                    Some(other) => vec![bold(field.title()), roman(", "), italic(other.key())],
                    None => vec![bold(field.title())],
                },
                (false, _) if rows.fields.iter().any(|other| twin(&other)) => continue,
                (false, _) => vec![italic(field.key()), roman(" ("), bold(JSON), roman(" only)")],
            };
            one(text, tag, field);
        }
    }
}

const JSON: &str = "--json";

fn one(text: &mut Roff, tag: Vec<Inline>, field: &Field) {
    text.control("TP", []).text(tag);
    let words = [field.text(), &field.value()].join(" ");
    text.text([roman(words.trim_end())]);
}

fn hooks(text: &mut Roff, ladder: &Ladder) {
    text.control("PP", [])
        .text([roman(format!("For {}, the first that the kernel offers of:", ladder.name))]);
    for Rung { name, programs, less_exact } in ladder.rungs {
        let mut targets: Vec<&str> = programs.iter().map(|program| program.target).collect();
        targets.dedup();
        text.control("TP", []).text([bold(name.as_str()), roman(format!(": {}", targets.join(", ")))]);
        text.text([roman(match less_exact {
            Some(what) => format!("Less exact: {}.", what.to_string().trim_end_matches('.')),
            None => "Exact.".to_owned(),
        })]);
    }
}
