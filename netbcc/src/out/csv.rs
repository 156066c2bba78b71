//! BCC's CSV: the same cells without padding. Quoted only where a name would break its record.

use super::Moment;
use super::cell::Cell;
use super::line::Line;
use super::table::Table;

pub(super) fn header<R>(line: &mut Line<'_>, table: &Table<R>) {
    for (index, column) in table.columns.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        line.bytes(column.header.as_bytes());
    }
    line.push(b'\n');
}

pub(super) fn row<R>(line: &mut Line<'_>, table: &Table<R>, row: &R, moment: &mut Moment<'_>) {
    for (index, column) in table.columns.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        field(line, &moment.cell(column, row), column.precision);
    }
    line.push(b'\n');
}

/// One field of a record.
pub(super) fn field(line: &mut Line<'_>, cell: &Cell<'_>, precision: usize) {
    let start = line.at();
    cell.write_text(line, precision, usize::MAX);
    quote(line, start);
}

/// RFC 4180 quotes around the field that begins at `start`, if a plain field could not carry it. Line ends
/// cannot be in it: they are escaped like every control character.
pub(super) fn quote(line: &mut Line<'_>, start: usize) {
    if !line.since(start).iter().any(|byte| matches!(byte, b',' | b'"')) {
        return;
    }
    let field = line.since(start).to_vec();
    line.rewind(start);
    line.push(b'"');
    for byte in field {
        line.push(byte);
        if byte == b'"' {
            line.push(b'"');
        }
    }
    line.push(b'"');
}
