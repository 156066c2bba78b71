//! Which columns a user asked for: `-o COL,…` and `-o +COL,…`.
//!
//! Lives here: what the words mean, and how a table is laid out after them. Must never live here: a tool's name. Without
//! `-o` nothing of this is used: a table's own columns are BCC's, byte for byte.

use std::cell;
use std::collections::HashSet;

use super::line::Line;
use super::table::{Align, Column, Table};
use super::text::pad;
use super::{Fact, Field, Format, Moment, Rows, escape, json};

/// The columns that a user asked for, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Whether the usual columns are there as well.
    adds: bool,
    /// In lower case, each once.
    names: Vec<String>,
}

/// Why a choice is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A list has an empty place, or nothing at all.
    Empty,
    /// No column of these rows has this name.
    Unknown {
        /// As it was typed, in lower case.
        name: String,
        /// What the columns are called.
        names: Vec<String>,
    },
    /// This run does not know the column's values.
    NotKnown {
        /// The column.
        name: String,
        /// What would make them known.
        remedy: &'static str,
    },
    /// The output of this run is no table.
    NoTable,
}

impl Choice {
    /// Whether the usual columns are there as well.
    pub(super) fn adds(&self) -> bool {
        self.adds
    }

    /// Reads the lists in the order in which they were given. They add up; the usual columns are there as well if each of
    /// them begins with `+`.
    ///
    /// # Errors
    /// An empty name.
    pub fn of<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Self, Wrong> {
        let (mut adds, mut names) = (true, Vec::<String>::new());
        for list in lists {
            let rest = list.strip_prefix('+');
            adds &= rest.is_some();
            for name in rest.unwrap_or(list).split(',').map(str::trim) {
                if name.is_empty() {
                    return Err(Wrong::Empty);
                }
                let name = name.to_ascii_lowercase();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(Self { adds, names })
    }

    /// What it asks of processes.
    pub fn facts(&self) -> Vec<Fact> {
        Fact::ALL.into_iter().filter(|fact| self.names.iter().any(|name| name == fact.name())).collect()
    }

    /// Holds it against the rows of a run.
    ///
    /// # Errors
    /// A name that no column has, or a column whose values are not known.
    pub fn check(&self, kinds: &[Rows]) -> Result<(), Wrong> {
        let mut used = kinds.iter().filter(|rows| rows.is_used()).peekable();
        if used.peek().is_none() {
            return Err(Wrong::NoTable);
        }
        for rows in used {
            let all = rows.choosable();
            for name in &self.names {
                let mut fields = all.iter().filter(|field| field.is_called(name)).peekable();
                if fields.peek().is_none() {
                    let names = names_of(&all).collect();
                    return Err(Wrong::Unknown { name: name.clone(), names });
                }
                if let Some(remedy) = fields.map(Field::unknown).min().flatten() {
                    return Err(Wrong::NotKnown { name: name.clone(), remedy });
                }
            }
        }
        Ok(())
    }
}

/// What columns are called, each name once.
pub(super) fn names_of(fields: &[Field]) -> impl Iterator<Item = String> {
    let mut seen = HashSet::new();
    fields.iter().map(|field| field.key().into_owned()).filter(move |name| seen.insert(name.clone()))
}

/// Where a column of a layout is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Shown(usize),
    Spare(usize),
}

/// One column of a layout.
struct Place {
    at: At,
    title: String,
    /// What stands before the value in JSON.
    prefix: String,
    /// The widest so far of those that are not too wide, title included.
    width: cell::Cell<usize>,
}

/// A column does not grow beyond that for a value: a longer one moves the rest of its own row to the right, not that of all
/// later ones. Addresses, names of pods and most paths are shorter.
const WIDEST: usize = 48;

/// A table's columns after a choice, in its order.
pub(super) struct Layout(Vec<Place>);

impl Layout {
    pub(super) fn of<R>(table: &Table<R>, choice: &Choice) -> Self {
        let format = table.format;
        // Two names may mean one column.
        let mut chosen: Vec<At> = Vec::new();
        for at in choice.names.iter().filter_map(|name| find(table, name)) {
            if !chosen.contains(&at) {
                chosen.push(at);
            }
        }
        let is_chosen =
            |index: &usize| !chosen.iter().any(|at| matches!(at, At::Shown(other) if other == index));
        let usual = (0..table.columns.len()).filter(is_chosen).map(At::Shown);
        let usual: Vec<At> = if choice.adds { usual.collect() } else { Vec::new() };
        let mut keys = HashSet::new();
        let places = usual.into_iter().chain(chosen).filter_map(|at| {
            let column = column(table, at);
            let key = column.name();
            // Every row of JSON begins with these two, and has no key twice.
            let is_there = format == Format::Json && (OF_EVERY_ROW.contains(&&*key) || !keys.insert(key));
            (!is_there).then(|| Place {
                at,
                title: column.title_of(format),
                prefix: column.json_prefix(),
                width: cell::Cell::new(column.width.max(column.title_of(format).chars().count())),
            })
        });
        Self(places.collect())
    }

    pub(super) fn header<R>(&self, line: &mut Line<'_>, table: &Table<R>) {
        for (nth, place) in self.0.iter().enumerate() {
            let start = line.at();
            match table.format {
                Format::Text => {
                    let written = escape::text(line, place.title.as_bytes(), usize::MAX);
                    self.pad(line, nth, start, written, column(table, place.at).align);
                }
                Format::Csv => {
                    line.bytes(if nth > 0 { b"," } else { b"" });
                    let start = line.at();
                    line.bytes(place.title.as_bytes());
                    super::csv::quote(line, start);
                }
                Format::Json => {}
            }
        }
        line.push(b'\n');
    }

    /// The columns, in their order.
    pub(super) fn columns<'t, R>(&'t self, table: &'t Table<R>) -> impl Iterator<Item = &'t Column<R>> {
        self.0.iter().map(|place| column(table, place.at))
    }

    pub(super) fn row<R>(&self, line: &mut Line<'_>, table: &Table<R>, row: &R, moment: &mut Moment<'_>) {
        match table.format {
            Format::Text => {
                for (nth, place) in self.0.iter().enumerate() {
                    let column = column(table, place.at);
                    let start = line.at();
                    let mut written = moment.cell(column, row).write_text(line, column.precision, usize::MAX);
                    if written == 0 {
                        // Who reads by fields would take the next one for it.
                        line.push(b'-');
                        written = 1;
                    }
                    self.pad(line, nth, start, written, column.align);
                }
            }
            Format::Csv => {
                for (nth, place) in self.0.iter().enumerate() {
                    line.bytes(if nth > 0 { b"," } else { b"" });
                    let column = column(table, place.at);
                    super::csv::field(line, &moment.cell(column, row), column.precision);
                }
            }
            Format::Json => {
                json::begin(line, moment);
                for place in &self.0 {
                    line.bytes(place.prefix.as_bytes());
                    json::value(line, moment.cell(column(table, place.at), row));
                }
                line.push(b'}');
            }
        }
        line.push(b'\n');
    }

    /// Brings a text of `written` characters from `start` on to its column's width, which it may widen, and adds a blank.
    /// Nothing follows the last column.
    fn pad(&self, line: &mut Line<'_>, nth: usize, start: usize, written: usize, align: Align) {
        let width = &self.0[nth].width;
        width.set(width.get().max(if written <= WIDEST { written } else { 0 }));
        let is_last = nth + 1 == self.0.len();
        if align == Align::Right || !is_last {
            pad(line, start, align, width.get().saturating_sub(written));
        }
        if !is_last {
            line.push(b' ');
        }
    }
}

/// The keys that begin every row of JSON.
const OF_EVERY_ROW: [&str; 2] = ["time", "ts_ns"];

/// The column of this name: a key comes before a title, then a column that this format has before another one, then
/// one that is shown.
fn find<R>(table: &Table<R>, name: &str) -> Option<At> {
    let shown = (0..table.columns.len()).map(At::Shown);
    let all = shown.chain((0..table.spare.len()).map(At::Spare));
    // The first of equals: `max_by_key` would take the last one.
    all.filter(|at| column(table, *at).is_called(name)).reduce(|best, other| {
        let rank = |at| {
            let column = column(table, at);
            (column.name() == name, column.is_in(table.format), matches!(at, At::Shown(_)))
        };
        if rank(other) > rank(best) { other } else { best }
    })
}

fn column<R>(table: &Table<R>, at: At) -> &Column<R> {
    match at {
        At::Shown(index) => &table.columns[index],
        At::Spare(index) => &table.spare[index],
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::out::{About, Cell, Clock, Kind, Out, data, left, right, seconds};

    struct Row {
        comm: &'static str,
        ip: IpAddr,
        bytes: u64,
    }

    /// A column of each kind: in all formats, in text only, in JSON only, under an option, and one that is not known.
    fn table(format: Format) -> Table<Row> {
        Table::new(format)
            .col_if(false, seconds(9, 3))
            .col(left("C-COMM", 6, |r: &Row| r.comm.as_bytes().into()).cut().about(About::text("Who.")))
            .col(left("ADDR", 9, |r: &Row| Cell::Endpoint(r.ip, 7)).key("end").except(Format::Json))
            .col(data("addr", |r: &Row| r.ip.into()).about(About::new(Kind::Address, "Where.")))
            .col(right("KB", 4, |r: &Row| (r.bytes / 1024).into()).gap(" > ").except(Format::Json))
            .col(data("bytes", |r: &Row| r.bytes.into()))
            .col_if(false, left("NAME", 0, |_: &Row| Cell::Empty).known_if(false, "add -d"))
            .lead(" ")
            .tail(" ")
    }

    fn rows() -> [Row; 3] {
        let row = |comm, ip: &str, bytes| Row { comm, ip: ip.parse().unwrap(), bytes };
        [
            row("a", "10.0.0.1", 4096),
            row("much longer, and \"so\"", "2001:db8::1", 1 << 40),
            row("b", "::1", 1),
        ]
    }

    fn printed(format: Format, lists: &[&str], bare: bool) -> String {
        let mut out = Out::memory(format, Clock::fixed(0, 0));
        out.choose(Some(Choice::of(lists.iter().copied()).unwrap()), bare);
        let table = table(format);
        out.header(&table);
        for row in rows() {
            out.row(&table, 1_000_000_007, &row);
        }
        out.take()
    }

    #[test]
    fn text_has_these_columns_in_this_order_and_widths_grow() {
        assert_eq!(
            printed(Format::Text, &["bytes,C-Comm,kb"], false),
            "BYTES C-COMM   KB\n\
             4096  a         4\n\
             1099511627776 much longer, and \"so\" 1073741824\n\
             1             b                              0\n"
        );
        assert_eq!(printed(Format::Text, &["end"], true), "10.0.0.1:7\n2001:db8::1:7\n::1:7\n");
        // A key comes before a title: the name of JSON's field means that field.
        assert_eq!(printed(Format::Text, &["ADDR"], true), "10.0.0.1\n2001:db8::1\n::1\n");
        assert_eq!(
            printed(Format::Text, &["time,ts_ns,time_s"], false).lines().nth(1),
            Some("00:00:01 1000000007 0.000")
        );
    }

    #[test]
    fn a_value_that_is_far_too_long_widens_its_own_row_only() {
        let table = Table::new(Format::Text)
            .col(left("NAME", 4, |name: &&str| Cell::Name(name.as_bytes())))
            .col(right("N", 1, |_: &&str| 7_u64.into()));
        let mut out = Out::memory(Format::Text, Clock::fixed(0, 0));
        out.choose(Some(Choice::of(["name,n"]).unwrap()), true);
        let (long, longest) = ("x".repeat(WIDEST), "y".repeat(WIDEST + 1));
        for name in ["a", &longest, "a", &long, "a"] {
            out.row(&table, 0, &name);
        }
        let wide = format!("a{} 7", " ".repeat(WIDEST - 1));
        assert_eq!(out.take(), format!("a    7\n{longest} 7\na    7\n{long} 7\n{wide}\n"));
    }

    #[test]
    fn a_plus_adds_behind_the_usual_ones_and_nothing_is_there_twice() {
        let header = |lists: &[&str]| {
            let text = printed(Format::Text, lists, false);
            text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(header(&["+bytes"]), ["C-COMM", "ADDR", "KB", "BYTES"]);
        assert_eq!(header(&["+bytes,c_comm"]), ["ADDR", "KB", "BYTES", "C-COMM"]);
        assert_eq!(header(&["+bytes", "+ts_ns"]), ["C-COMM", "ADDR", "KB", "BYTES", "TS_NS"]);
        assert_eq!(header(&["kb", "+bytes,KB", "end", "C-COMM,c_comm"]), ["KB", "BYTES", "ADDR", "C-COMM"]);
    }

    #[test]
    fn csv_and_json_have_them_as_well() {
        assert_eq!(
            printed(Format::Csv, &["bytes,c_comm"], false),
            "BYTES,C-COMM\n4096,a\n1099511627776,\"much longer, and \"\"so\"\"\"\n1,b\n"
        );
        assert_eq!(
            printed(Format::Json, &["kb,addr,time,ts_ns"], false).lines().next(),
            Some(r#"{"time":"1970-01-01T00:00:01.000000007Z","ts_ns":1000000007,"kb":4,"addr":"10.0.0.1"}"#)
        );
        assert!(printed(Format::Json, &["+kb"], false).starts_with(
            r#"{"time":"1970-01-01T00:00:01.000000007Z","ts_ns":1000000007,"c_comm":"a","addr":"10.0.0.1","bytes":4096,"kb":4}"#
        ));
    }

    #[test]
    fn what_is_no_choice_is_told() {
        let check = |list: &str| Choice::of([list])?.check(&[Rows::new("", table(Format::Text))]);
        assert_eq!(check("c_comm, C-COMM ,time,ts_ns,time_s,bytes"), Ok(()));
        for empty in ["", "+", ",", "kb,", "+,kb"] {
            assert_eq!(check(empty), Err(Wrong::Empty), "{empty:?}");
        }
        assert!(matches!(check("kb,comm"), Err(Wrong::Unknown { name, .. }) if name == "comm"));
        assert_eq!(check("name"), Err(Wrong::NotKnown { name: "name".to_owned(), remedy: "add -d" }));
        let unused = Rows::new("", table(Format::Text)).used_if(false);
        assert_eq!(Choice::of(["kb"]).unwrap().check(&[unused]), Err(Wrong::NoTable));
    }

    #[test]
    fn names_are_listed_once_each() {
        let names: Vec<String> =
            Rows::new("", table(Format::Text)).names().into_iter().map(|listed| listed.name).collect();
        assert_eq!(names, ["time_s", "c_comm", "end", "addr", "kb", "bytes", "name", "time", "ts_ns"]);
    }
}
