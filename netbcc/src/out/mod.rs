//! What a tool prints: columns declared once, rendered as BCC's text, CSV or JSON Lines.
//!
//! Lives here: everything between a row and the bytes on stdout, and the lines on stderr; nothing else in this
//! crate prints. Must never live here: what a tool traces, or where a row comes from. Start at [`Table`], then
//! [`Out`]; the one `match` on the format is in [`Out::row`].

#![expect(
    clippy::inline_always,
    reason = "the release profile is for size, and what every row goes through costs twice as much in pieces"
)]

mod beside;
mod cell;
mod choice;
mod clock;
mod csv;
mod escape;
mod field;
mod file;
pub mod hist;
pub mod journal;
mod json;
mod line;
mod number;
mod otlp;
mod sink;
pub mod socket;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use self::beside::Shared;
pub use self::beside::{Beside, Fact, Facts, Process, Value};
pub use self::cell::Cell;
pub use self::choice::{Choice, Wrong};
pub use self::clock::Clock;
pub use self::escape::{escaped, name_in};
pub use self::field::{About, Field, Kind, Listed, Rows};
pub use self::file::Rotation;
pub use self::json::{push_python_float, push_string as push_json_string, quoted};
use self::line::Line;
pub use self::number::{Fixed, address};
use self::sink::Sink;
pub use self::socket::{Of, SocketFact, Whose};
use self::table::Source;
pub use self::table::{Column, Table, data, interval, left, nanos, right, seconds, wall};
use crate::sys::confine::Folder;
use crate::sys::terminal;

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

/// How long a run that was told to end waits for whoever reads its output.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// What the buffer holds.
#[derive(Default)]
struct Records {
    /// Where each record begins. It ends where the next one begins, the last one with the buffer.
    starts: Vec<usize>,
    /// What it is.
    kinds: Vec<Record>,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Row,
    /// The titles of columns.
    Titles,
    /// A banner, a line between rows.
    Words,
}

/// Standard output: one buffer, written once per batch, as far as the reader takes it.
pub struct Out {
    format: Format,
    /// The columns that the user asked for; none means BCC's.
    choice: Option<Choice>,
    /// Whether tables have no header.
    bare: bool,
    /// Whoever knows processes, if a column of the choice is about them.
    beside: Option<Shared>,
    /// What records of OpenTelemetry's logs have in common, if JSON's rows are such records.
    origin_of_logs: Option<otlp::Origin>,
    buf: Vec<u8>,
    records: Records,
    /// None collects, for tests.
    sink: Option<Sink>,
    /// There instead of `sink`, where rows go to a file of their own.
    file: Option<file::Rows>,
    clock: Clock,
    /// When the first printed row happened.
    origin: Option<u64>,
    /// What the rows of a sampler cover.
    interval_ns: u64,
    /// A write that failed in the middle of a batch, until the flush that reports it.
    failed: Option<anyhow::Error>,
    /// When waiting for the reader ends.
    deadline: Option<Instant>,
    /// Nothing more is written.
    closed: bool,
    /// Rows that were not written.
    not_written: u64,
}

impl Out {
    /// The process's standard output.
    pub fn stdout() -> Result<Self> {
        stderr();
        Ok(Out { sink: Some(Sink::stdout()?), ..Out::memory(Format::Text, Clock::start()) })
    }

    /// What has no place to go to yet: [`Out::set_file`] gives it one.
    pub fn nowhere() -> Self {
        stderr();
        Out::memory(Format::Text, Clock::start())
    }

    /// Sends everything to this file from now on, which is opened for that; before the first line.
    ///
    /// # Errors
    /// It cannot be opened, or not be rotated.
    pub fn set_file(&mut self, path: &Path, rotation: Option<Rotation>) -> Result<()> {
        self.file = Some(file::Rows::open(path, rotation)?);
        self.sink = None;
        Ok(())
    }

    /// The folder in which files are made during the run.
    pub fn folder(&self) -> Option<Folder<'_>> {
        self.file.as_ref().map(file::Rows::folder)
    }

    /// Becomes readable when the next [`Out::flush`] opens its file again.
    pub(crate) fn again(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(file::Rows::again)
    }

    /// Keeps what is printed, for [`Out::take`].
    pub fn memory(format: Format, clock: Clock) -> Self {
        Out {
            format,
            choice: None,
            bare: false,
            beside: None,
            origin_of_logs: None,
            buf: Vec::new(),
            records: Records::default(),
            sink: None,
            file: None,
            clock,
            origin: None,
            interval_ns: 0,
            failed: None,
            deadline: None,
            closed: false,
            not_written: 0,
        }
    }

    /// Chooses the format; before the first line.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The format that was chosen.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Chooses the columns, and whether tables have a header; before the first line.
    pub fn choose(&mut self, choice: Option<Choice>, bare: bool) {
        self.choice = choice;
        self.bare = bare;
    }

    /// Whom to ask about processes; before the first line.
    pub fn set_beside(&mut self, beside: impl Beside + 'static) {
        self.beside = Some(Rc::new(RefCell::new(beside)));
    }

    /// Rows of JSON are records of OpenTelemetry's logs (OTLP/JSON), of this tool on the host of this name.
    pub fn set_otlp(&mut self, tool: &str, host: &str) {
        self.origin_of_logs = Some(otlp::Origin::of(tool, host));
    }

    /// The columns that the user chose.
    fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Whether the user chose columns.
    pub fn is_chosen(&self) -> bool {
        self.choice.is_some()
    }

    /// Whether the usual columns are there, and what a tool prints below its rows.
    pub fn has_usual(&self) -> bool {
        self.choice.as_ref().is_none_or(Choice::adds)
    }

    /// Whether tables have no header.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// An empty page of text, which shows what this shows.
    #[must_use]
    pub fn page(&self) -> Self {
        let mut page = Out::memory(Format::Text, self.clock.clone());
        page.choose(self.choice.clone(), self.bare);
        page.beside.clone_from(&self.beside);
        page
    }

    /// The clock that stamps rows.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// A line of text outside of any table. Left out of CSV and JSON, whose readers want rows only.
    pub fn line(&mut self, line: impl fmt::Display) {
        if self.format == Format::Text && self.begin(Record::Words) {
            // Memory takes everything.
            let mut text = Line::new(&mut self.buf);
            let _ = write!(escape::Text::with_tabs(&mut text), "{line}");
            text.push(b'\n');
        }
    }

    /// The table's header; JSON has none.
    pub fn header<R>(&mut self, table: &Table<R>) {
        if table.format == Format::Json || self.bare || !self.begin(Record::Titles) {
            return;
        }
        if let Some(choice) = &self.choice {
            table.layout(choice).header(&mut Line::new(&mut self.buf), table);
            return;
        }
        match table.format {
            Format::Text => text::header(&mut Line::new(&mut self.buf), table),
            Format::Csv => csv::header(&mut Line::new(&mut self.buf), table),
            Format::Json => {}
        }
    }

    /// One row. `ts_ns` is the kernel's monotonic time of the event.
    pub fn row<R>(&mut self, table: &Table<R>, ts_ns: u64, row: &R) {
        if !self.begin(Record::Row) {
            return;
        }
        let origin = *self.origin.get_or_insert(ts_ns);
        let mut moment = Moment {
            clock: &mut self.clock,
            ts_ns,
            origin,
            interval_ns: self.interval_ns,
            beside: self.beside.as_deref(),
            facts: None,
        };
        let mut line = Line::new(&mut self.buf);
        if let Some(origin) = self.origin_of_logs.as_ref().filter(|_| table.format == Format::Json) {
            match &self.choice {
                Some(choice) => origin.row(&mut line, table.layout(choice).columns(table), row, &mut moment),
                None => origin.row(&mut line, table.columns.iter(), row, &mut moment),
            }
            return;
        }
        if let Some(choice) = &self.choice {
            table.layout(choice).row(&mut line, table, row, &mut moment);
            return;
        }
        match table.format {
            Format::Text => text::row(&mut line, table, row, &mut moment),
            Format::Csv => csv::row(&mut line, table, row, &mut moment),
            Format::Json => json::row(&mut line, table, row, &mut moment),
        }
    }

    /// A row will be printed a little later, and its process may be gone by then: what the columns say of it is read now.
    pub fn meet<R>(&mut self, table: &Table<R>, ts_ns: u64, row: &R) {
        if let (Some(beside), Some(process)) = (&self.beside, table.process) {
            beside.borrow_mut().facts(&process(row), ts_ns, &self.clock);
        }
    }

    /// What is known of the process of a row that happened at `ts_ns`; `None`: nobody was asked to know it.
    pub fn facts(&self, process: &Process<'_>, ts_ns: u64) -> Option<Rc<Facts>> {
        self.beside.as_ref().map(|beside| beside.borrow_mut().facts(process, ts_ns, &self.clock))
    }

    /// Begins a record, which ends where the next one begins; answers whether there is anybody to write it for.
    #[inline]
    fn begin(&mut self, kind: Record) -> bool {
        if self.buf.len() >= SPILL {
            self.write_out();
        }
        if self.closed {
            self.not_written += u64::from(kind == Record::Row);
            return false;
        }
        self.records.starts.push(self.buf.len());
        self.records.kinds.push(kind);
        true
    }

    /// Bytes as they are, in every format, for the rare output that is no table. They belong to the record before them.
    pub fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// A line below the last row, which belongs to it. Left out of CSV and JSON, whose readers want rows only.
    pub fn below(&mut self, line: impl fmt::Display) {
        if self.format == Format::Text && !self.closed {
            let mut text = Line::new(&mut self.buf);
            let _ = write!(escape::Text::with_tabs(&mut text), "{line}");
            text.push(b'\n');
        }
    }

    /// A row that is no table's: bytes as they are, in every format.
    pub fn raw_row(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.begin(Record::Row) {
            write(&mut self.buf);
        }
    }

    /// Whether it goes to a terminal.
    pub fn is_terminal(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::is_terminal)
    }

    /// Columns and lines that have room on the terminal's screen: the cursor has the last line. What a terminal does not
    /// tell is without end.
    pub fn room(&self) -> (usize, usize) {
        let size = self.descriptor().and_then(terminal::size);
        size.map_or((usize::MAX, usize::MAX), |(columns, lines)| (columns, lines.saturating_sub(1).max(1)))
    }

    /// Clears the terminal's screen and shows this page, as much of it as has room there.
    pub fn show(&mut self, page: &Out) {
        if self.begin(Record::Words) {
            // Home, erase the screen, erase the scrollback: what `clear` sends.
            self.buf.extend_from_slice(b"\x1b[H\x1b[2J\x1b[3J");
        }
        self.show_lines(page, self.room());
    }

    fn show_lines(&mut self, page: &Out, (columns, lines): (usize, usize)) {
        let Records { starts, kinds } = &page.records;
        let ends = starts.iter().skip(1).copied().chain([page.buf.len()]);
        for ((&start, end), &kind) in starts.iter().zip(ends).zip(kinds).take(lines) {
            if !self.begin(kind) {
                continue;
            }
            let mut line = Line::new(&mut self.buf);
            let text = str::from_utf8(&page.buf[start..end]).unwrap_or_default();
            // Memory takes everything. What has to be escaped is escaped already.
            let mut cut = escape::Text::of_part(&mut line, columns);
            let _ = cut.write_str(text.trim_end_matches('\n'));
            cut.end();
            line.push(b'\n');
        }
    }

    /// What the rows to come cover.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// Sets what the rows to come cover, for the column [`interval`].
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Writes as much as the reader takes without waiting. Once per batch: rows must not wait.
    ///
    /// # Errors
    /// Standard output takes nothing any more, or the file.
    pub fn flush(&mut self) -> Result<()> {
        self.write_out();
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Whether something waits for the reader.
    pub fn is_waiting(&self) -> bool {
        self.sink.is_some() && !self.buf.is_empty()
    }

    /// What to watch while something waits.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.sink.as_ref().map(|sink| sink.as_fd())
    }

    /// The run was told to end: what the reader does not take from now on in half a second is not written.
    pub fn end_soon(&mut self) {
        self.deadline.get_or_insert_with(|| Instant::now() + LAST_WAIT);
    }

    /// How much is left of that, for whatever else is to be waited for; nothing before the run was told to end.
    pub fn time_left(&self) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Gives up what waits, and what is printed from now on; its rows are counted.
    pub fn give_up(&mut self) {
        self.closed = true;
        let rows = self.records.kinds.drain(..).filter(|&kind| kind == Record::Row);
        self.not_written += rows.count() as u64;
        self.records.starts.clear();
        self.buf.clear();
    }

    /// The last flush: waits for the reader until the deadline, if there is one, and then gives up.
    ///
    /// # Errors
    /// Standard output takes nothing any more.
    pub fn finish(&mut self) -> Result<()> {
        loop {
            let before = self.buf.len();
            self.flush()?;
            let Some(sink) = self.sink.as_ref().filter(|_| !self.buf.is_empty()) else { return Ok(()) };
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.give_up();
                return Ok(());
            }
            // It may have room, and not enough for a large record.
            if sink.wait(left.unwrap_or(Duration::from_secs(1))) && before == self.buf.len() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// One line for people about rows that were not written; none if all were.
    pub fn losses(&self) -> Option<String> {
        let rows = self.not_written;
        (rows > 0).then(|| format!("not written: {rows} rows, which {} did not take", self.target()))
    }

    /// Where rows go, for a sentence.
    fn target(&self) -> String {
        match &self.file {
            Some(file) => file.typed().display().to_string(),
            None => "standard output".to_owned(),
        }
    }

    /// What was printed into memory so far.
    pub fn take(&mut self) -> String {
        self.records = Records::default();
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }

    fn write_out(&mut self) {
        if self.sink.is_none() && self.file.is_none() {
            return;
        }
        if self.closed {
            // What belongs to a row that was given up.
            self.buf.clear();
            return;
        }
        if self.failed.is_some() {
            return;
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.look(&self.buf)
        {
            return self.fails(error);
        }
        while !self.buf.is_empty() && self.write_some() && self.file.is_some() {}
    }

    /// Writes to what is open what it takes; `false`: it takes nothing more.
    fn write_some(&mut self) -> bool {
        let Records { starts, kinds } = &mut self.records;
        let room = match &mut self.file {
            Some(file) => file.make_room(&self.buf, starts),
            None => Ok(self.buf.len()),
        };
        let room = match room {
            Ok(room) => room,
            Err(error) => {
                self.fails(error);
                return false;
            }
        };
        let Some(sink) = self.file.as_ref().map(file::Rows::sink).or(self.sink.as_ref()) else {
            return false;
        };
        let (written, result) = sink.write(&self.buf[..room], starts);
        let whole = match starts.partition_point(|&start| start <= written) {
            all if written == self.buf.len() => all,
            // The last of these is not written whole, and the rest of it stays.
            begun => begun.saturating_sub(1),
        };
        if let Some(file) = &mut self.file
            && let Some(titles) = kinds[..whole].iter().rposition(|&kind| kind == Record::Titles)
        {
            let end = starts.get(titles + 1).copied().unwrap_or(written);
            file.keep_titles(&self.buf[starts[titles]..end]);
        }
        starts.drain(..whole);
        for start in starts.iter_mut() {
            *start = start.saturating_sub(written);
        }
        kinds.drain(..whole);
        self.buf.drain(..written);
        if let Err(error) = result {
            self.fails(crate::error::not_written(error, &self.target()));
            return false;
        }
        true
    }

    /// The flush that comes reports this. Nothing more is written.
    fn fails(&mut self, error: anyhow::Error) {
        self.failed = Some(error);
        self.give_up();
    }
}

/// What a row needs to tell its time.
struct Moment<'c> {
    clock: &'c mut Clock,
    ts_ns: u64,
    origin: u64,
    interval_ns: u64,
    beside: Option<&'c RefCell<dyn Beside>>,
    /// What is known of the row's process, once a column has asked.
    facts: Option<Rc<Facts>>,
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
            Source::Interval => Cell::Unsigned(self.interval_ns),
            Source::Monotonic => Cell::Unsigned(self.ts_ns),
            Source::Fact(process, fact) => self.fact(process(row), fact),
            Source::Socket(facts, fact) => fact.cell(facts(row)),
        }
    }

    #[inline(never)]
    fn fact(&mut self, process: Process<'_>, fact: Fact) -> Cell<'_> {
        if self.facts.is_none() {
            // A sampler's row is of all that happened since the one before.
            let process = process.noted_before(process.before_ns.max(self.interval_ns));
            self.facts =
                self.beside.map(|beside| beside.borrow_mut().facts(&process, self.ts_ns, self.clock));
        }
        self.facts.as_ref().map_or(Cell::Empty, |facts| facts.cell(fact))
    }
}

/// One line on standard error, in the name of `who`.
pub fn warn(who: &str, what: impl fmt::Display) {
    let mut line = Vec::new();
    push_line(&mut line, format_args!("{who}: {what}"));
    tell(&line);
}

/// How long standard error may keep us waiting, all its lines together.
const STDERR_WAIT: Duration = Duration::from_millis(200);

/// Standard error, kept from making us wait; none where it is closed. A tool asks for it before it gives up all power.
fn stderr() -> Option<&'static Sink> {
    static STDERR: OnceLock<Option<Sink>> = OnceLock::new();
    let open = || Some(Sink::new(File::from(io::stderr().as_fd().try_clone_to_owned().ok()?)));
    STDERR.get_or_init(open).as_ref()
}

/// Writes to standard error, for as long as its reader may take. Nobody is left to tell when that is over.
fn tell(text: &[u8]) {
    static WAITED_MS: AtomicU64 = AtomicU64::new(0);
    let Some(sink) = stderr() else {
        // It is closed, or no descriptor is free.
        let _ = io::stderr().write_all(text);
        return;
    };
    let mut rest = text;
    loop {
        let (written, result) = sink.write(rest, &[0]);
        rest = &rest[written..];
        let waited = Duration::from_millis(WAITED_MS.load(Ordering::Relaxed));
        let left = STDERR_WAIT.saturating_sub(waited);
        if rest.is_empty() || result.is_err() || left.is_zero() {
            return;
        }
        let since = Instant::now();
        sink.wait(left);
        let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        // One more, so that waits of no time come to an end.
        WAITED_MS.fetch_add(waited_ms + 1, Ordering::Relaxed);
    }
}

/// The error that ends a run: its causes and its hint on one line.
pub fn error(who: &str, err: &anyhow::Error) {
    tell(&error_text(who, err));
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
    let _ = escape::Text::of_sentence(&mut text).write_fmt(line);
    text.push(b'\n');
}
