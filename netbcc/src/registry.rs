//! The one list of tools. Help, `--list`, links and tests are views of it.

use crate::tool::{Entry, entry};
use crate::tools::bindsnoop::Bindsnoop;
use crate::tools::gethostlatency::Gethostlatency;
use crate::tools::hardirqs::Hardirqs;
use crate::tools::netqtop::Netqtop;
use crate::tools::softirqs::Softirqs;
use crate::tools::softirqslower::Softirqslower;
use crate::tools::solisten::Solisten;
use crate::tools::tcpaccept::Tcpaccept;
use crate::tools::tcpcong::Tcpcong;
use crate::tools::tcpconnect::Tcpconnect;
use crate::tools::tcpconnlat::Tcpconnlat;
use crate::tools::tcpdrop::Tcpdrop;
use crate::tools::tcplife::Tcplife;
use crate::tools::tcppktlat::Tcppktlat;
use crate::tools::tcpreset::Tcpreset;
use crate::tools::tcpretrans::Tcpretrans;
use crate::tools::tcprtt::Tcprtt;
use crate::tools::tcpstates::Tcpstates;
use crate::tools::tcpsubnet::Tcpsubnet;
use crate::tools::tcpsynbl::Tcpsynbl;
use crate::tools::tcptop::Tcptop;
use crate::tools::tcptracer::Tcptracer;
use crate::tools::tcpwhy::Tcpwhy;

/// All tools, sorted by name.
pub const TOOLS: &[Entry] = &[
    entry::<Bindsnoop>(),
    entry::<Gethostlatency>(),
    entry::<Hardirqs>(),
    entry::<Netqtop>(),
    entry::<Softirqs>(),
    entry::<Softirqslower>(),
    entry::<Solisten>(),
    entry::<Tcpaccept>(),
    entry::<Tcpcong>(),
    entry::<Tcpconnect>(),
    entry::<Tcpconnlat>(),
    entry::<Tcpdrop>(),
    entry::<Tcplife>(),
    entry::<Tcppktlat>(),
    entry::<Tcpreset>(),
    entry::<Tcpretrans>(),
    entry::<Tcprtt>(),
    entry::<Tcpstates>(),
    entry::<Tcpsubnet>(),
    entry::<Tcpsynbl>(),
    entry::<Tcptop>(),
    entry::<Tcptracer>(),
    entry::<Tcpwhy>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;
    use crate::out::{Choice, Field, Listed, Rows, Wrong};

    fn all() -> impl Iterator<Item = &'static Entry> {
        TOOLS.iter().chain(demo::TOOLS)
    }

    #[test]
    fn names_are_sorted_and_unique() {
        for tools in [TOOLS, demo::TOOLS] {
            assert!(tools.is_sorted_by(|a, b| a.spec.name < b.spec.name));
        }
    }

    #[test]
    fn every_tool_says_what_it_is_in_one_short_line() {
        for Entry { spec, command, .. } in all() {
            assert!(!spec.about.ends_with('.') && spec.about.len() <= 60, "{}", spec.name);
            assert_eq!(
                command().get_about().unwrap().to_string(),
                spec.about,
                "a doc comment took its place"
            );
        }
    }

    #[test]
    fn examples_start_with_the_tools_name_and_parse() {
        for Entry { spec, command, .. } in all() {
            assert!(!spec.examples.is_empty(), "{}", spec.name);
            for (example, _) in spec.examples {
                let words: Vec<&str> = example.split_whitespace().collect();
                assert_eq!(words[0], spec.name);
                command().try_get_matches_from(words).unwrap_or_else(|err| panic!("{example}: {err}"));
            }
        }
    }

    #[test]
    fn help_is_less_than_80_columns_wide() {
        for Entry { command, .. } in all() {
            let help = command().render_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() < 80, "{line}");
            }
        }
    }

    #[test]
    fn every_column_says_what_it_means() {
        for Entry { spec, rows, .. } in TOOLS {
            assert!(!spec.description.is_empty() && spec.description.iter().all(|text| text.ends_with('.')));
            let kinds = rows().unwrap();
            assert!(!kinds.is_empty());
            for field in kinds.iter().flat_map(|rows| &rows.fields) {
                let text = field.text();
                assert!(text.len() > 10 && text.ends_with('.'), "{}: {}: {text:?}", spec.name, field.title());
            }
            for rows in kinds {
                let mut keys: Vec<_> =
                    rows.fields.iter().filter(|field| field.has_key()).map(Field::key).collect();
                let count = keys.len();
                keys.sort();
                keys.dedup();
                assert_eq!(keys.len(), count, "{}: a key twice", spec.name);
            }
        }
    }

    #[test]
    fn every_column_can_be_chosen_by_its_name() {
        for Entry { spec, command, rows_of, .. } in TOOLS {
            let matches = command().try_get_matches_from([spec.name]).unwrap();
            let kinds = rows_of(&matches).unwrap();
            for Listed { name, text, .. } in kinds.iter().filter(|rows| rows.is_used()).flat_map(Rows::names)
            {
                let checked = Choice::of([&*name]).unwrap().check(&kinds);
                assert!(matches!(checked, Ok(()) | Err(Wrong::NotKnown { .. })), "{}: {name}", spec.name);
                assert!(!text.is_empty() && name.is_ascii() && !name.contains([' ', ',', '+']), "{name:?}");
            }
        }
    }

    #[test]
    fn a_name_means_the_same_in_text_and_json() {
        for Entry { spec, rows, .. } in TOOLS {
            for fields in rows().unwrap().iter().map(|rows| &rows.fields) {
                for field in fields {
                    let other = fields.iter().find(|other| other.key() == field.key()).unwrap();
                    assert_eq!(field.text(), other.text(), "{}: {}", spec.name, field.key());
                }
            }
        }
    }

    #[test]
    fn what_is_less_exact_fits_into_a_line() {
        for ladder in TOOLS.iter().flat_map(|entry| entry.spec.ladders) {
            for less in ladder.rungs.iter().filter_map(|rung| rung.less_exact) {
                // With doctor's words before it, two lines of 80 columns.
                assert!(less.short.len() <= 76 && !less.short.contains(['.', ';', ':']), "{less}");
                assert!(less.detail.is_empty() || less.detail.ends_with('.'), "{less}");
            }
        }
    }

    #[test]
    fn options_are_unique_and_well_formed() {
        // clap's own check: letters, long names, conflicts that name nothing.
        for Entry { command, .. } in all() {
            command().debug_assert();
        }
    }
}
