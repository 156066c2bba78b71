//! What a tool printed, read back: text by its header, CSV, JSON Lines.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::ops::Index;
use std::rc::Rc;

/// How the rows of a run are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// BCC's text, under this header.
    Text(String),
    /// Comma-separated, under this header.
    Csv(String),
    /// One JSON object a line.
    Json,
}

/// A row's cells by column name; in JSON by key.
pub type Cells = Vec<(String, String)>;

impl Format {
    /// Text or CSV, whichever this header is.
    pub fn under(header: &str) -> Self {
        if header.contains(',') { Self::Csv(header.into()) } else { Self::Text(header.into()) }
    }

    /// The cells of a line, or why it is no row.
    pub fn parse(&self, line: &str) -> Result<Cells, String> {
        match self {
            Self::Text(header) => text(header, line),
            Self::Csv(header) => {
                let (names, cells): (Vec<_>, Vec<_>) = (header.split(',').collect(), fields(line));
                if names.len() != cells.len() {
                    return Err(format!("{} fields under {} names", cells.len(), names.len()));
                }
                Ok(names.into_iter().zip(cells).map(|(n, c)| (n.into(), c)).collect())
            }
            Self::Json => {
                let value = serde_json::from_str::<serde_json::Value>(line).map_err(|e| e.to_string())?;
                let object = value.as_object().ok_or("not an object")?;
                let cell =
                    |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
                Ok(object.iter().map(|(key, value)| (key.clone(), cell(value))).collect())
            }
        }
    }
}

/// The fields of a line of CSV; one in quotes may have commas in it, and quotes that are doubled (RFC 4180).
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut is_quoted, mut chars) = (false, line.chars().peekable());
    while let Some(c) = chars.next() {
        let last = fields.last_mut().expect("there is one");
        match c {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => last.push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            _ => last.push(c),
        }
    }
    fields
}

/// Reads a text row. Cells that are too long for their column push the rest to the right, so positions alone do
/// not help; but no cell other than COMM (C-COMM) has blanks in it, and COMM is cut to its column, or a name without blanks widens it. QUERY, VERDICT and HOST take what is left,
/// and so does REASON where it is the last.
fn text(header: &str, line: &str) -> Result<Cells, String> {
    let names: Vec<&str> = header.split_whitespace().collect();
    let chars: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut cells = Cells::new();
    for (nth, &name) in names.iter().enumerate() {
        let cell: String = if name == "COMM" || name == "C-COMM" {
            let start = position(header, name).max(if at == 0 { 0 } else { at + 1 });
            let next = names.get(nth + 1).ok_or("nothing after COMM")?;
            let width = position(header, next) - position(header, name) - 1;
            at = start + width;
            // With -o a column grows with its names.
            at += chars.get(at..).unwrap_or_default().iter().take_while(|&&c| c != ' ').count();
            chars.get(start..at).ok_or("too short for COMM")?.iter().collect::<String>().trim_end().into()
        } else if ["QUERY", "VERDICT", "HOST"].contains(&name) || name == "REASON" && nth + 1 == names.len() {
            let rest: String = chars[at..].iter().collect();
            at = chars.len();
            rest.trim().into()
        } else {
            let start = (at..chars.len()).find(|&i| chars[i] != ' ').ok_or_else(|| format!("no {name}"))?;
            at = (start..chars.len()).find(|&i| chars[i] == ' ').unwrap_or(chars.len());
            chars[start..at].iter().collect()
        };
        // `LADDR:LPORT` is two columns for who asks.
        if let (Some((addr, port)), Some((ip, number))) = (name.split_once(':'), cell.rsplit_once(':')) {
            cells.extend([(addr.into(), ip.into()), (port.into(), number.into())]);
        }
        cells.push((name.into(), cell));
    }
    if chars[at..].iter().any(|&c| c != ' ') {
        return Err(format!("something after {}", names.last().unwrap_or(&"")));
    }
    Ok(cells)
}

/// Where a header has this word.
fn position(header: &str, name: &str) -> usize {
    let mut at = 0;
    for word in header.split_inclusive(' ') {
        if word.trim_end() == name {
            return at;
        }
        at += word.chars().count();
    }
    panic!("no column {name} in {header:?}");
}

/// One row, and what to print when it is not what it should be.
#[derive(Clone, Debug)]
pub struct Row {
    /// The line as it was printed.
    pub line: String,
    pub(crate) cells: Rc<Cells>,
    pub(crate) report: Rc<str>,
}

impl Row {
    /// A cell, if the row has it.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.cells.iter().find(|(n, _)| n == name).map(|(_, cell)| cell.as_str())
    }

    /// A cell.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| self.fail(format!("there is no {name}")))
    }

    /// A cell as a number.
    pub fn number(&self, name: &str) -> f64 {
        let cell = self.get(name);
        cell.parse().unwrap_or_else(|_| self.fail(format!("{name} is {cell:?}, not a number")))
    }

    /// Insists on a cell.
    pub fn is(&self, name: &str, expected: impl Display) -> &Self {
        let (cell, expected) = (self.get(name), expected.to_string());
        if cell != expected {
            self.fail(format!("{name} is {cell:?}, not {expected:?}"));
        }
        self
    }

    /// Insists on the whole line, every blank of it.
    pub fn reads(&self, expected: &str) -> &Self {
        if self.line != expected {
            self.fail(format!("the line should be\n  {expected:?}\nand is\n  {:?}", self.line));
        }
        self
    }

    /// Insists on something else about the row.
    pub fn must(&self, holds: bool, what: impl Display) -> &Self {
        if !holds {
            self.fail(format!("{what} does not hold"));
        }
        self
    }

    /// Ends the test, with everything there is to know.
    pub fn fail(&self, message: impl Display) -> ! {
        panic!("{message}\nin the row\n  {:?}\n{}", self.line, self.report)
    }
}

/// The rows of one test, in the order of their arrival.
#[derive(Clone, Debug)]
pub struct Rows {
    pub(crate) rows: Vec<Row>,
    pub(crate) report: Rc<str>,
}

impl Rows {
    /// The first of them, as many as this at most.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.rows.truncate(count);
        self
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// The one row with this cell.
    pub fn with(&self, name: &str, value: impl Display) -> &Row {
        let value = value.to_string();
        let found: Vec<_> = self.iter().filter(|row| row.find(name) == Some(&value)).collect();
        match found[..] {
            [row] => row,
            _ => self.fail(format!("{} rows have {name} {value:?}, not one", found.len())),
        }
    }

    /// The rows that are unlike the others, to be read by people: where a flood has a row too many, these are where to
    /// look. Of sockets (their addresses and ports) that have more or fewer rows than most; and with another value where
    /// nearly all rows have the same.
    pub fn unusual(&self) -> String {
        let is_end = |(name, _): &&(String, String)| name.contains("ADDR") || name.contains("PORT");
        let mut sockets: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
        let mut values: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for row in self {
            let socket = row.cells.iter().filter(is_end).map(|(_, cell)| cell.as_str()).collect();
            sockets.entry(socket).or_default().push(&row.line);
            for (name, cell) in row.cells.iter() {
                values.entry(name).or_default().entry(cell).or_default().push(&row.line);
            }
        }
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for rows in sockets.values() {
            *counts.entry(rows.len()).or_default() += 1;
        }
        let usual = counts.iter().max_by_key(|(_, sockets)| **sockets).map_or(0, |(rows, _)| *rows);
        let rare =
            values.values().filter(|cells| cells.values().any(|rows| rows.len() * 50 > self.len() * 49));
        let rare = rare.flat_map(|cells| cells.values().filter(|rows| rows.len() * 50 <= self.len()));
        let unusual = sockets.values().filter(|rows| rows.len() != usual).chain(rare).flatten().take(20);
        unusual.fold(format!("most sockets have {usual} rows; unusual:"), |text, line| text + "\n  " + line)
    }

    /// Insists on the cells of one column, in order.
    pub fn are<T: Display>(&self, name: &str, expected: &[T]) -> &Self {
        let cells: Vec<_> = self.iter().map(|row| row.get(name).to_owned()).collect();
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        if cells != expected {
            self.fail(format!("{name}: {cells:?}, not {expected:?}"));
        }
        self
    }

    /// Ends the test, with everything there is to know.
    pub fn fail(&self, message: impl Display) -> ! {
        panic!("{message}\n{}", self.report)
    }
}

impl Index<usize> for Rows {
    type Output = Row;

    fn index(&self, nth: usize) -> &Row {
        self.rows.get(nth).unwrap_or_else(|| self.fail(format!("there is no row {nth}")))
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Lines between fences, for reports.
pub(crate) fn fenced(title: &str, lines: &[String]) -> String {
    let mut text = format!("---- {title} ----\n");
    let hidden = lines.len().saturating_sub(100);
    if hidden > 0 {
        let _infallible = writeln!(text, "({hidden} lines before)");
    }
    for line in &lines[hidden..] {
        let _infallible = writeln!(text, "{line}");
    }
    text
}
