//! BCC's text: padded columns, byte for byte.

use super::Moment;
use super::cell::Cell;
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
    // Hardly any table has these, and to copy nothing costs as much as a short name.
    if !table.lead.is_empty() {
        line.bytes(table.lead.as_bytes());
    }
    for column in &table.columns {
        column.form.put(line, &moment.cell(column, row));
    }
    if !table.tail.is_empty() {
        line.bytes(table.tail.as_bytes());
    }
    line.push(b'\n');
}

/// How a column's cells are laid out: what a row needs to know, made once.
pub(super) struct Form {
    width: usize,
    /// Most characters of a name.
    max: usize,
    precision: usize,
    align: Align,
    /// What comes behind, blanks behind that.
    gap: [u8; 8],
    gap_len: usize,
}

impl Form {
    pub(super) fn new(width: usize, cut: bool, precision: usize, align: Align) -> Self {
        Self {
            width,
            max: if cut { width } else { usize::MAX },
            precision,
            align,
            gap: [b' '; 8],
            gap_len: 0,
        }
    }

    /// What comes before the next column.
    pub(super) fn set_gap(&mut self, gap: &str) {
        self.gap[..gap.len()].copy_from_slice(gap.as_bytes());
        self.gap_len = gap.len();
    }

    /// One cell, its padding, its gap. Once for all kinds of rows, and hot: about all of what a row costs.
    #[inline(always)]
    fn put(&self, line: &mut Line<'_>, cell: &Cell<'_>) {
        let room = line.room::<ROOM>();
        let (text, _) = room.split_first_chunk_mut().expect("shorter than ROOM");
        let end = match cell.write_short(text, self.precision, self.max) {
            Some(written) if self.align == Align::Left => written.max(self.width),
            // Most numbers: half a word is shifted at a fifth of the cost.
            Some(written) if written > 0 && written.max(self.width) <= HALF => {
                let missing = self.width.saturating_sub(written);
                let (half, _) = room.split_first_chunk_mut::<HALF>().expect("shorter than ROOM");
                let before = u64::from_le_bytes([b' '; HALF]) & ((1 << (8 * missing)) - 1);
                *half = (u64::from_le_bytes(*half) << (8 * missing) | before).to_le_bytes();
                written + missing
            }
            // A shift by a whole word is none.
            Some(written) if written > 0 && written.max(self.width) <= WORD => {
                let missing = self.width.saturating_sub(written);
                let (word, _) = room.split_first_chunk_mut::<WORD>().expect("shorter than ROOM");
                let before = u128::from_le_bytes([b' '; WORD]) & ((1 << (8 * missing)) - 1);
                *word = (u128::from_le_bytes(*word) << (8 * missing) | before).to_le_bytes();
                written + missing
            }
            _ => ROOM,
        };
        if let Some(gap) = room.get_mut(end..).and_then(<[u8]>::first_chunk_mut) {
            *gap = self.gap;
            line.step(end + self.gap_len);
        } else {
            self.put_any(line, cell);
        }
    }

    /// Appends a cell of any length.
    #[cold]
    #[inline(never)]
    fn put_any(&self, line: &mut Line<'_>, cell: &Cell<'_>) {
        let start = line.at();
        let written = cell.write_text(line, self.precision, self.max);
        pad(line, start, self.align, self.width.saturating_sub(written));
        line.bytes(&self.gap[..self.gap_len]);
    }
}

/// What a cell may take with its padding and its gap, unless it is a rare one.
const ROOM: usize = 64;
/// The most that is shifted to the right at once.
const WORD: usize = size_of::<u128>();
/// What is shifted by one instruction.
const HALF: usize = size_of::<u64>();

/// Brings the cell that begins at `start` to its width.
pub(super) fn pad(line: &mut Line<'_>, start: usize, align: Align, missing: usize) {
    match align {
        Align::Left => line.blanks(missing),
        Align::Right => line.indent(start, missing),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn printed(put: impl FnOnce(&mut Line<'_>)) -> String {
        let mut buf = Vec::new();
        let mut line = Line::new(&mut buf);
        put(&mut line);
        // What lies ahead of the cursor is still blank.
        line.blanks(60);
        drop(line);
        String::from_utf8_lossy(&buf).into_owned()
    }

    #[test]
    fn nothing_to_the_right_is_a_column_of_blanks() {
        for width in 0..=20 {
            let form = Form::new(width, true, 0, Align::Right);
            for cell in [Cell::Buffer(&[0; 16]), Cell::Label("")] {
                assert_eq!(
                    printed(|line| form.put(line, &cell)),
                    printed(|line| form.put_any(line, &cell)),
                    "{width}"
                );
            }
        }
    }

    proptest! {
        /// The short way and the way of any length.
        #[test]
        fn both_ways_write_the_same(
            kind in 0..10,
            bits: u64,
            port: u16,
            shift in 0_u32..64,
            mut name: [u8; 16],
            printable: bool,
            nul in 0_usize..24,
            width in 0_usize..70,
            (cut, right) in any::<(bool, bool)>(),
            precision in 0_usize..8,
        ) {
            let value = bits >> shift;
            if printable {
                name = name.map(|byte| b' ' + byte % 95);
            }
            if let Some(end) = name.get_mut(nul) {
                *end = 0;
            }
            let v4 = Ipv4Addr::from_bits((value >> 32 ^ value & 0xffff_ffff).try_into().expect("32 bits"));
            let cell = match kind {
                0 => Cell::Unsigned(value),
                1 => Cell::Hex(value),
                2 => Cell::Float(f64::from_bits(value)),
                // Spans have whole microseconds.
                3 => Cell::Float(f64::from(v4.to_bits()) / 1000.0),
                4 => Cell::Buffer(&name),
                5 => Cell::Label(&"ESTABLISHED, and a label that is longer than any room has room for"[..nul * 2]),
                6 => Cell::Ip(v4.into()),
                7 => Cell::Endpoint(v4.into(), port),
                8 => Cell::Name(&name[..nul.min(16)]),
                _ => Cell::Ip(Ipv6Addr::from_bits(value.into()).into()),
            };
            let align = if right { Align::Right } else { Align::Left };
            let mut form = Form::new(width, cut, precision, align);
            form.set_gap(" -> ");
            prop_assert_eq!(printed(|line| form.put(line, &cell)), printed(|line| form.put_any(line, &cell)));
        }
    }
}
