//! A tool's columns, declared once; header and rows of every format come from the same declaration.
//!
//! Lives here: what a column is. Must never live here: a tool's name, or code that asks which tool it prints.

use std::borrow::Cow;
use std::cell::OnceCell;

use netbcc_common::socket::SocketFacts;

use super::beside::{Fact, Process};
use super::cell::Cell;
use super::choice::{Choice, Layout};
use super::field::{About, Field, Kind};
use super::socket::SocketFact;
use super::text::Form;
use super::{Format, Out};

/// Where a column takes its cell from.
#[derive(Clone, Copy)]
pub(super) enum Source<R> {
    Row(fn(&R) -> Cell<'_>),
    /// Local time of day of the event.
    Wall,
    /// Seconds since the first printed row, from whole microseconds as BCC.
    Seconds,
    /// Nanoseconds since the first printed row.
    Nanos,
    /// What a sampler's row covers, in nanoseconds.
    Interval,
    /// The kernel's monotonic time of the event, in nanoseconds.
    Monotonic,
    /// What is known of the process that the row is of.
    Fact(fn(&R) -> Process<'_>, Fact),
    /// What is known of the socket that the row is about.
    Socket(fn(&R) -> &SocketFacts, SocketFact),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// One column. Made by [`left`], [`right`], [`wall`], [`seconds`], [`nanos`] or [`data`].
#[must_use]
pub struct Column<R> {
    pub(super) header: &'static str,
    pub(super) source: Source<R>,
    pub(super) align: Align,
    pub(super) width: usize,
    pub(super) header_width: Option<usize>,
    pub(super) gap: &'static str,
    pub(super) header_gap: Option<&'static str>,
    pub(super) precision: usize,
    pub(super) cut: bool,
    /// What of it a row of text needs; complete once it is in its table.
    pub(super) form: Form,
    key: Option<&'static str>,
    formats: u8,
    always: u8,
    about: Option<About>,
    /// Why this run does not know its values: what would make them known.
    unknown: Option<&'static str>,
    /// What its values need that no other column does.
    needs: u32,
    /// What it asks of sockets: bits of [`netbcc_common::socket::asked`].
    asks: u32,
}

const ALL: u8 = Format::Text.bit() | Format::Csv.bit() | Format::Json.bit();

/// A left-aligned column. Width 0 means: as wide as its text.
pub fn left<R>(header: &'static str, width: usize, cell: fn(&R) -> Cell<'_>) -> Column<R> {
    Column::new(header, Align::Left, width, Source::Row(cell))
}

/// A right-aligned column.
pub fn right<R>(header: &'static str, width: usize, cell: fn(&R) -> Cell<'_>) -> Column<R> {
    Column::new(header, Align::Right, width, Source::Row(cell))
}

/// `TIME`: the event's local time of day. Not in JSON, whose rows carry the full time anyway.
pub fn wall<R>(width: usize) -> Column<R> {
    Column::new("TIME", Align::Left, width, Source::Wall)
        .except(Format::Json)
        .about(About::text("The time of day at which it happened, local."))
}

/// `TIME(s)`: seconds since the first printed row.
pub fn seconds<R>(width: usize, precision: usize) -> Column<R> {
    Column::new("TIME(s)", Align::Left, width, Source::Seconds)
        .precision(precision)
        .about(About::new(Kind::Number, "Seconds since the first row."))
}

/// `TIME(ns)`: nanoseconds since the first printed row.
pub fn nanos<R>(width: usize) -> Column<R> {
    Column::new("TIME(ns)", Align::Left, width, Source::Nanos)
        .about(About::new(Kind::Integer, "Nanoseconds since the first row."))
}

/// What the row covers: the measured time between two blocks. Only in JSON.
pub fn interval<R>() -> Column<R> {
    Column::new("interval_ns", Align::Left, 0, Source::Interval)
        .key("interval_ns")
        .only(Format::Json)
        .about(About::count("The time that the row covers, as it was measured, in nanoseconds."))
}

/// The kernel's monotonic time of the event.
fn moment<R>() -> Column<R> {
    Column::new("ts_ns", Align::Left, 0, Source::Monotonic)
}

/// A column that only JSON has.
pub fn data<R>(key: &'static str, cell: fn(&R) -> Cell<'_>) -> Column<R> {
    left(key, 0, cell).key(key).only(Format::Json)
}

impl<R> Column<R> {
    fn new(header: &'static str, align: Align, width: usize, source: Source<R>) -> Self {
        Column {
            header,
            source,
            align,
            width,
            header_width: None,
            gap: " ",
            header_gap: None,
            precision: 0,
            cut: false,
            form: Form::new(0, false, 0, align),
            key: None,
            formats: ALL,
            always: 0,
            about: None,
            unknown: None,
            needs: 0,
            asks: 0,
        }
    }

    /// Says that this run knows its values only if `is_known`; `remedy` is what would change this.
    pub fn known_if(mut self, is_known: bool, remedy: &'static str) -> Self {
        self.unknown = (!is_known).then_some(remedy);
        self
    }

    /// Says what its values need that costs something: bits of the tool's own, for [`Table::needs`].
    pub fn needs(mut self, bits: u32) -> Self {
        self.needs = bits;
        self
    }

    /// Cuts names at the column's width, in text. CSV and JSON carry the whole name.
    pub fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// Another title than the column's own.
    pub fn title(mut self, header: &'static str) -> Self {
        self.header = header;
        self
    }

    /// Decimals of a float, in text and CSV.
    pub fn precision(mut self, decimals: usize) -> Self {
        self.precision = decimals;
        self
    }

    /// The JSON key, where the lower-cased header does not say enough.
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// What stands between this column and the next one in text. One blank, unless said otherwise; nothing
    /// follows the last column.
    pub fn gap(mut self, gap: &'static str) -> Self {
        self.gap = gap;
        self
    }

    /// A header wider or narrower than the rows, where BCC has it so.
    pub fn header_width(mut self, width: usize) -> Self {
        self.header_width = Some(width);
        self
    }

    /// A header followed by something else than the rows, where BCC has it so.
    pub fn header_gap(mut self, gap: &'static str) -> Self {
        self.header_gap = Some(gap);
        self
    }

    /// Shown in this format only.
    pub fn only(mut self, format: Format) -> Self {
        self.formats = format.bit();
        self
    }

    /// Shown in every format but this.
    pub fn except(mut self, format: Format) -> Self {
        self.formats &= !format.bit();
        self
    }

    /// Shown in this format also where [`Table::col_if`] is told not to.
    pub fn always(mut self, format: Format) -> Self {
        self.always |= format.bit();
        self
    }

    /// In no format unless it is named.
    fn only_if_chosen(mut self) -> Self {
        self.formats = 0;
        self
    }

    /// What it means, for the manual page and the JSON Schema.
    pub fn about(mut self, about: About) -> Self {
        self.about = Some(about);
        self
    }

    /// What stands before the value in a JSON row: `,"key":`.
    pub(super) fn json_prefix(&self) -> String {
        format!(",\"{}\":", self.name())
    }

    /// Its key in JSON, which `-o` takes as its name.
    pub(super) fn name(&self) -> Cow<'static, str> {
        self.field().key()
    }

    /// Whether `-o` means it by this name, which is in lower case.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.field().is_called(name)
    }

    /// Whether this format has it, shown or not.
    pub(super) fn is_in(&self, format: Format) -> bool {
        self.formats & format.bit() != 0
    }

    /// Its name as an attribute of a log record: OpenTelemetry's, or our own.
    pub(super) fn attribute(&self) -> Cow<'static, str> {
        match self.about.and_then(|about| about.otel) {
            Some(name) => name.into(),
            None => format!("netbcc.{}", self.name()).into(),
        }
    }

    /// Whether its values may have a fraction.
    pub(super) fn is_number(&self) -> bool {
        self.about.is_some_and(|about| about.kind == Kind::Number)
    }

    /// Its title where `-o` chose it: its own, and in capitals the key of a column that only JSON has.
    pub(super) fn title_of(&self, format: Format) -> String {
        if self.is_in(format) { self.header.to_owned() } else { self.name().to_ascii_uppercase() }
    }

    /// What it says about itself.
    fn field(&self) -> Field {
        Field {
            title: self.header,
            key: self.key,
            formats: self.formats,
            always: self.always,
            about: self.about,
            unknown: self.unknown,
        }
    }
}

/// The columns of one kind of row, in one format.
#[must_use]
pub struct Table<R> {
    pub(super) format: Format,
    pub(super) columns: Vec<Column<R>>,
    /// Per column, for JSON.
    pub(super) prefixes: Vec<String>,
    /// Columns that this run shows only to those who ask for them by name.
    pub(super) spare: Vec<Column<R>>,
    /// All that were declared, shown or not.
    declared: Vec<Field>,
    /// The process that a row is of.
    pub(super) process: Option<fn(&R) -> Process<'_>>,
    /// What it looks like after a choice, once that is needed.
    layout: OnceCell<Layout>,
    pub(super) lead: &'static str,
    pub(super) tail: &'static str,
}

impl<R> Table<R> {
    /// A table without columns.
    pub fn new(format: Format) -> Self {
        Table {
            format,
            columns: Vec::new(),
            prefixes: Vec::new(),
            // What every row has, whatever the tool.
            spare: vec![wall(8).only_if_chosen(), moment().only_if_chosen()],
            declared: Vec::new(),
            process: None,
            layout: OnceCell::new(),
            lead: "",
            tail: "",
        }
    }

    /// Adds a column, unless this format does not show it.
    pub fn col(self, column: Column<R>) -> Self {
        self.add(true, Column { always: ALL, ..column })
    }

    /// Adds a column when `wanted`.
    pub fn col_if(self, wanted: bool, column: Column<R>) -> Self {
        self.add(wanted, column)
    }

    fn add(mut self, wanted: bool, mut column: Column<R>) -> Self {
        self.declared.push(column.field());
        let bit = self.format.bit();
        if (wanted || column.always & bit != 0) && column.formats & bit != 0 {
            self.prefixes.push(column.json_prefix());
            if let Some(before) = self.columns.last_mut() {
                before.form.set_gap(before.gap);
            }
            column.form = Form::new(column.width, column.cut, column.precision, column.align);
            self.columns.push(column);
        } else {
            self.spare.push(column);
        }
        self
    }

    /// Says which process a row is of. That brings a column for each [`Fact`], for those who ask for it by name.
    pub fn process(mut self, of: fn(&R) -> Process<'_>) -> Self {
        self.process = Some(of);
        Fact::ALL.into_iter().fold(self, |table, fact| {
            let column = Column::new(fact.name(), Align::Left, 0, Source::Fact(of, fact));
            table.col_if(false, column.key(fact.name()).only(Format::Json).about(fact.about()))
        })
    }

    /// Says where a row has what is asked for of its socket. That brings a column for each of `facts` that the tool has not got
    /// already; without `shown`, for those who ask for it by name.
    pub fn socket(self, shown: bool, facts: &[SocketFact], of: fn(&R) -> &SocketFacts) -> Self {
        facts.iter().fold(self, |table, fact| {
            let mut column = Column::new(fact.name(), Align::Left, 0, Source::Socket(of, *fact));
            column.asks = fact.asks();
            table.col_if(shown, column.key(fact.name()).only(Format::Json).about(fact.about()))
        })
    }

    /// What the columns that `out` shows of it ask of sockets: bits of [`netbcc_common::socket::asked`].
    pub fn asks_of_sockets(&self, out: &Out) -> u32 {
        self.sum(out, |column| column.asks)
    }

    /// What the columns need that `out` shows of it.
    pub fn needs(&self, out: &Out) -> u32 {
        self.sum(out, |column| column.needs)
    }

    /// The bits of all columns that `out` shows of it.
    fn sum(&self, out: &Out, bits: impl Fn(&Column<R>) -> u32) -> u32 {
        let of = |sum: u32, column: &Column<R>| sum | bits(column);
        match out.choice() {
            Some(choice) => self.layout(choice).columns(self).fold(0, of),
            None => self.columns.iter().fold(0, of),
        }
    }

    /// What it looks like after `choice`, which is the same for all of its rows.
    pub(super) fn layout(&self, choice: &Choice) -> &Layout {
        self.layout.get_or_init(|| Layout::of(self, choice))
    }

    /// All columns that were declared, whether or not this run shows them.
    pub fn fields(self) -> Vec<Field> {
        self.declared
    }

    /// What begins every line in text, header included.
    pub fn lead(mut self, lead: &'static str) -> Self {
        self.lead = lead;
        self
    }

    /// What ends every row, but not the header, in text.
    pub fn tail(mut self, tail: &'static str) -> Self {
        self.tail = tail;
        self
    }
}
