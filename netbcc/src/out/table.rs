//! A tool's columns, declared once; header and rows of every format come from the same declaration.
//!
//! Lives here: what a column is. Must never live here: a tool's name, or code that asks which tool it prints.

use super::Format;
use super::cell::Cell;
use super::field::{About, Field, Kind, key_of};
use super::text::Form;

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
        }
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

    /// What it means, for the manual page and the JSON Schema.
    pub fn about(mut self, about: About) -> Self {
        self.about = Some(about);
        self
    }

    /// What stands before the value in a JSON row: `,"key":`.
    fn json_prefix(&self) -> String {
        match self.key {
            Some(key) => format!(",\"{key}\":"),
            None => format!(",\"{}\":", key_of(self.header)),
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
    /// All that were declared, shown or not.
    declared: Vec<Field>,
    pub(super) lead: &'static str,
    pub(super) tail: &'static str,
}

impl<R> Table<R> {
    /// A table without columns.
    pub fn new(format: Format) -> Self {
        Table { format, columns: Vec::new(), prefixes: Vec::new(), declared: Vec::new(), lead: "", tail: "" }
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
        self.declared.push(Field {
            title: column.header,
            key: column.key,
            formats: column.formats,
            always: column.always,
            about: column.about,
        });
        let bit = self.format.bit();
        if (wanted || column.always & bit != 0) && column.formats & bit != 0 {
            self.prefixes.push(column.json_prefix());
            if let Some(before) = self.columns.last_mut() {
                before.form.set_gap(before.gap);
            }
            column.form = Form::new(column.width, column.cut, column.precision, column.align);
            self.columns.push(column);
        }
        self
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
