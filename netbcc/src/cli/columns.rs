//! What `-o`, `--no-header` and `--json` do to the rows of every tool: columns by name, checked before anything is loaded.
//!
//! Must never live here: what a column prints.

use anyhow::Result;
use clap::ArgMatches;

use super::parse::fill;
use crate::context::ask_facts;
use crate::error::usage;
use crate::options::JsonForm;
use crate::out::{Choice, Listed, Out, Rows, Wrong};
use crate::sys::machine;
use crate::tool::Entry;
use crate::words::nearest_of;

/// Applies the options to `out`. Answers the list of columns instead where it was asked for.
pub(super) fn choose(
    entry: &Entry,
    typed: &str,
    matches: &ArgMatches,
    out: &mut Out,
) -> Result<Option<String>> {
    let lists: Vec<&str> =
        matches.get_many::<String>("output").into_iter().flatten().map(String::as_str).collect();
    let bare = matches.get_flag("no-header");
    if let Ok(Some(JsonForm::Otlp)) = matches.try_get_one("json") {
        out.set_otlp(entry.spec.name, &machine::host_name());
    }
    if lists.is_empty() {
        out.choose(None, bare);
        return Ok(None);
    }
    let kinds = (entry.rows_of)(matches)?;
    let mut words = lists.iter().flat_map(|list| list.trim_start_matches('+').split(','));
    if words.any(|word| word.trim().eq_ignore_ascii_case("help")) {
        return Ok(Some(listing(&kinds)));
    }
    let choice = Choice::of(lists).and_then(|choice| choice.check(&kinds).map(|()| choice));
    let choice = choice.map_err(|wrong| usage(sentence(typed, wrong)))?;
    ask_facts(entry.spec.name, "-o", choice.facts(), out)?;
    out.choose(Some(choice), bare);
    Ok(None)
}

/// Names and meanings, in two columns; of several kinds of rows, each under its title.
fn listing(kinds: &[Rows]) -> String {
    let mut text = String::new();
    for rows in kinds {
        if !rows.about.is_empty() {
            text.push_str(if text.is_empty() { "" } else { "\n" });
            text.push_str(rows.about);
            text.push_str(if rows.is_used() { ":\n" } else { " (not in this run):\n" });
        }
        let names = rows.names();
        let width = names.iter().map(|listed| listed.name.len()).max().unwrap_or_default() + 2;
        for Listed { name, text: meaning, remedy } in names {
            let remedy = remedy.map(|remedy| format!(" (To have it, {remedy}.)")).unwrap_or_default();
            fill(&mut text, &format!("{meaning}{remedy}"), &format!("{name:width$}"), &" ".repeat(width));
        }
    }
    text
}

fn sentence(tool: &str, wrong: Wrong) -> String {
    match wrong {
        Wrong::Empty => format!("-o: the name of a column is empty (try '{tool} -o help')"),
        Wrong::Unknown { name, names } => match nearest_of(&name, names.iter().map(String::as_str), 2) {
            Some(nearest) => {
                format!("-o: no column is called '{name}'; did you mean '{nearest}'? (try '{tool} -o help')")
            }
            None => format!("-o: no column is called '{name}'; there are {}", names.join(", ")),
        },
        Wrong::NotKnown { name, remedy } => format!("-o: column '{name}' is not known in this run: {remedy}"),
        Wrong::NoTable => "-o: what these options print has no columns; --json may have some".to_owned(),
    }
}
