//! JSON Lines, written by hand: one object per row, numbers as numbers, every row with its time.

use std::fmt::Write as _;

use super::Moment;
use super::cell::Cell;
use super::escape;
use super::line::Line;
use super::number;
use super::table::Table;

pub(super) fn row<R>(line: &mut Line<'_>, table: &Table<R>, row: &R, moment: &mut Moment<'_>) {
    begin(line, moment);
    for (column, prefix) in table.columns.iter().zip(&table.prefixes) {
        line.bytes(prefix.as_bytes());
        value(line, moment.cell(column, row));
    }
    line.bytes(b"}\n");
}

/// What every row begins with.
pub(super) fn begin(line: &mut Line<'_>, moment: &mut Moment<'_>) {
    line.bytes(b"{\"time\":\"");
    moment.clock.write_rfc3339(line, moment.ts_ns);
    line.bytes(b"\",\"ts_ns\":");
    number::unsigned(line, moment.ts_ns);
}

/// One value of a row.
pub(super) fn value(line: &mut Line<'_>, cell: Cell<'_>) {
    match cell {
        Cell::Empty => line.bytes(b"null"),
        Cell::Unsigned(number) | Cell::Scaled(number) => number::unsigned(line, number),
        Cell::Signed(number) => number::signed(line, number),
        Cell::Float(number) | Cell::ScaledFloat(number) => float(line, number),
        Cell::Name(bytes) => name(line, bytes),
        Cell::Buffer(buffer) => name(line, escape::name_in(buffer)),
        Cell::Label(label) => string(line, label),
        Cell::Bool(is) => line.bytes(if is { b"true" } else { b"false" }),
        Cell::Shown(shown) => name(line, shown.to_string().as_bytes()),
        Cell::List(names) => {
            line.push(b'[');
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    line.push(b',');
                }
                self::name(line, name.as_bytes());
            }
            line.push(b']');
        }
        Cell::Numbers(numbers) => {
            line.push(b'[');
            for (index, number) in numbers.iter().enumerate() {
                if index > 0 {
                    line.push(b',');
                }
                number::unsigned(line, (*number).into());
            }
            line.push(b']');
        }
        Cell::Bracketed(ip) => value(line, Cell::Ip(ip)),
        Cell::Hex(_) | Cell::Ip(_) | Cell::Endpoint(..) | Cell::FlowEnd(..) => {
            line.push(b'"');
            cell.write_text(line, 0, usize::MAX);
            line.push(b'"');
        }
    }
}

/// The shortest text that reads back as the same float; JSON has no word for the others.
fn float(line: &mut Line<'_>, number: f64) {
    if number.is_finite() {
        // Writing to memory does not fail.
        let _ = write!(line, "{number}");
    } else {
        line.bytes(b"null");
    }
}

/// A name of the traced world as a JSON string: a byte that is no UTF-8 is the four characters `\xNN`, and the backslash
/// of a name that has `\x` itself is `\x5c`. Two names are never the same string.
fn name(line: &mut Line<'_>, name: &[u8]) {
    line.push(b'"');
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        for (at, c) in valid.char_indices() {
            character(line, c);
            if c == '\\' && escape::looks_like_an_escape(&valid[at..]) {
                line.bytes(b"x5c");
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\\\x{byte:02x}");
        }
    }
    line.push(b'"');
}

/// A JSON string.
fn string(line: &mut Line<'_>, text: &str) {
    line.push(b'"');
    text.chars().for_each(|c| character(line, c));
    line.push(b'"');
}

/// One character of a JSON string; what could drive a terminal is an escape of JSON's.
fn character(line: &mut Line<'_>, c: char) {
    match c {
        '"' | '\\' => line.bytes(&[b'\\', c as u8]),
        '\n' => line.bytes(b"\\n"),
        '\r' => line.bytes(b"\\r"),
        '\t' => line.bytes(b"\\t"),
        // All of the hostile ones are below U+10000: one escape each.
        c if escape::hostile(c) => {
            // Writing to memory does not fail.
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        c => line.bytes(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends a JSON string, for JSON that is no table.
pub fn push_string(buf: &mut Vec<u8>, text: &str) {
    string(&mut Line::new(buf), text);
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut buf = Vec::new();
    push_string(&mut buf, text);
    String::from_utf8_lossy(&buf).into_owned()
}

/// A float as Python prints it: always with `.0` or an exponent of at least two digits.
pub fn push_python_float(buf: &mut Vec<u8>, number: f64) {
    let mut line = Line::new(buf);
    if number != 0.0 && number.is_finite() && !(1e-4..1e16).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        let _ = write!(line, "{mantissa}e{sign}{digits:0>2}");
    } else {
        let _ = write!(line, "{number:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut buf = Vec::new();
        write(&mut buf);
        String::from_utf8(buf).unwrap()
    }

    #[test]
    fn strings() {
        let of = |bytes: &[u8]| text(|buf| name(&mut Line::new(buf), bytes));
        assert_eq!(of(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(of(b"\x00\x1b\x7f\n\r\t"), r#""\u0000\u001b\u007f\n\r\t""#);
        assert_eq!(of("\u{85}\u{202e}\u{2028}é".as_bytes()), "\"\\u0085\\u202e\\u2028é\"");
        assert_eq!(of(b"a\xffb\xc3"), r#""a\\xffb\\xc3""#);
        assert_eq!(of(br"a\xffb\\xc3\"), r#""a\\x5cxffb\\\\x5cxc3\\""#);
        assert_eq!(text(|buf| push_string(buf, r"\xff")), r#""\\xff""#);
    }

    #[test]
    fn floats_as_python_prints_them() {
        let of = |number| text(|buf| push_python_float(buf, number));
        assert_eq!(
            [
                2.054_687_5,
                0.0,
                2.0,
                9.536_743_164_062_5e-7,
                1e16,
                1e-4,
                123_456_789.5,
                1.5e300,
                9_999_999_999_999_998.0
            ]
            .map(of),
            [
                "2.0546875",
                "0.0",
                "2.0",
                "9.5367431640625e-07",
                "1e+16",
                "0.0001",
                "123456789.5",
                "1.5e+300",
                "9999999999999998.0"
            ]
        );
    }
}
