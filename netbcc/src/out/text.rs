//! BCC's text: padded columns, byte for byte.

use super::Moment;
use super::escape;
use super::line::Line;
use super::table::{Align, Table};

pub(super) fn header<R>(line: &mut Line<'_>, table: &Table<R>) {
    line.bytes(table.lead.as_bytes());
    for (index, column) in table.columns.iter().enumerate() {
        let width = column.header_width.unwrap_or(column.width);
        let max = if column.cut { width } else { usize::MAX };
        let start = line.at();
        let written = escape::text(line, column.header.as_bytes(), max);
        pad(line, start, column.align, width.saturating_sub(written));
        if index + 1 < table.columns.len() {
            line.bytes(column.header_gap.unwrap_or(column.gap).as_bytes());
        }
    }
    line.push(b'\n');
}

pub(super) fn row<R>(line: &mut Line<'_>, table: &Table<R>, row: &R, moment: &mut Moment<'_>) {
    literal(line, table.lead);
    let last = table.columns.len().saturating_sub(1);
    for (index, column) in table.columns.iter().enumerate() {
        let max = if column.cut { column.width } else { usize::MAX };
        let start = line.at();
        let written = moment.write_text(line, column, row, max);
        pad(line, start, column.align, column.width.saturating_sub(written));
        if index < last {
            literal(line, column.gap);
        }
    }
    literal(line, table.tail);
    line.push(b'\n');
}

/// Most literals are one blank, or nothing.
#[inline]
fn literal(line: &mut Line<'_>, text: &str) {
    match text {
        "" => {}
        " " => line.blanks(1),
        text => line.bytes(text.as_bytes()),
    }
}

/// Brings the cell that begins at `start` to its width.
fn pad(line: &mut Line<'_>, start: usize, align: Align, missing: usize) {
    match align {
        Align::Left => line.blanks(missing),
        Align::Right => line.indent(start, missing),
    }
}
