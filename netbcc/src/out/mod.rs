//! What a tool prints: columns declared once, rendered as BCC's text, CSV or JSON Lines.
//!
//! Lives here: everything between a row and the bytes on stdout, and the lines on stderr; nothing else in this
//! crate prints. Must never live here: what a tool traces, or where a row comes from. Start at [`Table`], then
//! [`Out`]; the one `match` on the format is in [`Out::row`].

#![expect(
    clippy::inline_always,
    reason = "the release profile is for size, and what every row goes through costs twice as much in pieces"
)]

mod cell;
mod clock;
mod csv;
mod escape;
mod field;
pub mod hist;
pub mod journal;
mod json;
mod line;
mod number;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

pub use self::cell::Cell;
pub use self::clock::Clock;
pub use self::escape::{escaped, name_in};
pub use self::field::{About, Field, Kind, Rows};
pub use self::json::{push_python_float, push_string as push_json_string, quoted};
use self::line::Line;
use self::table::Source;
pub use self::table::{Column, Table, data, left, nanos, right, seconds, wall};

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// BCC's padded columns.
    #[default]
    Text,
    /// BCC's comma-separated fields.
    Csv,
    /// One JSON object per line.
    Json,
}

impl Format {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A batch larger than this goes out in pieces.
const SPILL: usize = 64 << 10;

/// Standard output: one buffer, written once per batch.
pub struct Out {
    format: Format,
    buf: Vec<u8>,
    /// None collects, for tests.
    file: Option<File>,
    terminal: bool,
    clock: Clock,
    /// When the first printed row happened.
    origin: Option<u64>,
    /// A write that failed in the middle of a batch, until the flush that reports it.
    failed: Option<io::Error>,
}

impl Out {
    /// The process's standard output.
    pub fn stdout() -> Result<Self> {
        let stdout = io::stdout();
        // A descriptor of our own: std's handle looks for line ends in every buffer.
        let file = File::from(stdout.as_fd().try_clone_to_owned().context("duplicate standard output")?);
        let terminal = file.is_terminal();
        Ok(Out { file: Some(file), terminal, ..Out::memory(Format::Text, Clock::start()) })
    }

    /// Keeps what is printed, for [`Out::take`].
    pub fn memory(format: Format, clock: Clock) -> Self {
        Out { format, buf: Vec::new(), file: None, terminal: false, clock, origin: None, failed: None }
    }

    /// Chooses the format; before the first line.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The format that was chosen.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The clock that stamps rows.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// A line of text outside of any table. Left out of CSV and JSON, whose readers want rows only.
    pub fn line(&mut self, line: impl fmt::Display) {
        if self.format == Format::Text {
            // Memory takes everything.
            let mut text = Line::new(&mut self.buf);
            let _ = write!(escape::Text::with_tabs(&mut text), "{line}");
            text.push(b'\n');
        }
    }

    /// The table's header; JSON has none.
    pub fn header<R>(&mut self, table: &Table<R>) {
        match table.format {
            Format::Text => text::header(&mut Line::new(&mut self.buf), table),
            Format::Csv => csv::header(&mut Line::new(&mut self.buf), table),
            Format::Json => {}
        }
    }

    /// One row. `ts_ns` is the kernel's monotonic time of the event.
    pub fn row<R>(&mut self, table: &Table<R>, ts_ns: u64, row: &R) {
        let origin = *self.origin.get_or_insert(ts_ns);
        let mut moment = Moment { clock: &mut self.clock, ts_ns, origin };
        let mut line = Line::new(&mut self.buf);
        match table.format {
            Format::Text => text::row(&mut line, table, row, &mut moment),
            Format::Csv => csv::row(&mut line, table, row, &mut moment),
            Format::Json => json::row(&mut line, table, row, &mut moment),
        }
        drop(line);
        if self.buf.len() >= SPILL {
            self.write_out();
        }
    }

    /// Bytes as they are, in every format, for the rare output that is no table.
    pub fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Clears the screen when there is one; answers whether there is.
    pub fn clear_screen(&mut self) -> bool {
        if self.terminal {
            // Home, erase the screen, erase the scrollback: what `clear` sends.
            self.buf.extend_from_slice(b"\x1b[H\x1b[2J\x1b[3J");
        }
        self.terminal
    }

    /// Hands everything to the system. Once per batch: rows must not wait.
    pub fn flush(&mut self) -> Result<()> {
        self.write_out();
        match self.failed.take() {
            Some(error) => Err(error).context("write to standard output"),
            None => Ok(()),
        }
    }

    /// What was printed into memory so far.
    pub fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }

    fn write_out(&mut self) {
        let Some(file) = &mut self.file else { return };
        if self.failed.is_none() && !self.buf.is_empty() {
            self.failed = file.write_all(&self.buf).err();
        }
        self.buf.clear();
    }
}

/// What a row needs to tell its time.
struct Moment<'c> {
    clock: &'c mut Clock,
    ts_ns: u64,
    origin: u64,
}

impl Moment<'_> {
    /// Since the first printed row. Whole microseconds first, as BCC: the digits must agree.
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years of microseconds")]
    fn seconds(&self) -> f64 {
        let micros = (self.ts_ns / 1000).cast_signed() - (self.origin / 1000).cast_signed();
        micros as f64 / 1e6
    }

    fn nanos(&self) -> i64 {
        self.ts_ns.cast_signed() - self.origin.cast_signed()
    }

    /// The value of a column.
    #[inline(always)]
    fn cell<'r, R>(&'r mut self, column: &Column<R>, row: &'r R) -> Cell<'r> {
        match column.source {
            Source::Row(cell) => cell(row),
            Source::Wall => Cell::Name(self.clock.hms(self.ts_ns).as_bytes()),
            Source::Seconds => Cell::Float(self.seconds()),
            Source::Nanos => Cell::Signed(self.nanos()),
        }
    }
}

/// One line on standard error, in the name of `who`.
pub fn warn(who: &str, what: impl fmt::Display) {
    let mut line = Vec::new();
    push_line(&mut line, format_args!("{who}: {what}"));
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().write_all(&line);
}

/// The error that ends a run: its causes and its hint on one line.
pub fn error(who: &str, err: &anyhow::Error) {
    let _ = io::stderr().write_all(&error_text(who, err));
}

/// Only a hint of several lines, such as a verifier's log, gets lines of its own.
fn error_text(who: &str, err: &anyhow::Error) -> Vec<u8> {
    let mut text = Vec::new();
    let hint = crate::error::hint_of(err).unwrap_or_default();
    match hint.lines().count() {
        0 => push_line(&mut text, format_args!("{who}: {err:#}")),
        1 => push_line(&mut text, format_args!("{who}: {err:#}; {hint}")),
        _ => {
            push_line(&mut text, format_args!("{who}: {err:#}"));
            for line in hint.lines() {
                push_line(&mut text, format_args!("  {line}"));
            }
        }
    }
    text
}

/// Appends a line that is one line on any terminal.
fn push_line(buf: &mut Vec<u8>, line: fmt::Arguments<'_>) {
    // Memory takes everything.
    let mut text = Line::new(buf);
    let _ = escape::Text::new(&mut text, usize::MAX).write_fmt(line);
    text.push(b'\n');
}
