//! Makes names of strangers safe to print.
//!
//! Lives here: the one rule of what may reach a terminal as it is. A process can call itself anything; its
//! name must never move a cursor, change a colour, shift a column or reorder a line. Two names never look alike for
//! an escape: the backslash of a name that has `\x` itself is written as `\x5c`.

use std::fmt;

use unicode_width::UnicodeWidthChar as _;

use super::line::Line;
use super::number::Room;

/// Characters that could drive a terminal or reorder its text: C0, DEL, C1, bidi controls, line separators.
pub(super) fn hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many columns of a terminal a character takes; nothing for one that must not be printed as it is: what is hostile,
/// what takes no column of its own (it would shift those behind it), and letters that are written from right to left (a
/// terminal that follows their direction reorders the columns around them).
fn columns(c: char) -> Option<usize> {
    c.width().filter(|&width| width > 0 && !hostile(c) && !from_right_to_left(c))
}

/// Where Unicode puts scripts of that direction, now and in times to come (Bidi_Class R and AL, DerivedBidiClass.txt).
fn from_right_to_left(c: char) -> bool {
    matches!(c,
        '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}'
        | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
const ONES: u64 = u64::from_le_bytes([1; 8]);
const BLANKS: u64 = u64::from_le_bytes([b' '; 8]);
const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);

/// Whether all eight bytes are printed as they are whatever is next to them: ' ' to '~' without the backslash.
#[inline(always)]
const fn plain(bytes: u64) -> bool {
    // Without high bits there is no carry: 0x60 more sets it from ' ' on, 1 more behind '~'.
    let over = bytes | ((bytes & !HIGH) + ONES);
    let enough = (bytes & !HIGH) + 0x60 * ONES;
    (over | !enough) & HIGH == 0 && nul(bytes ^ BACKSLASHES) == 8
}

/// Whether all bytes are printed as they are whatever is next to them. Nearly all text is such.
#[inline(always)]
fn all_plain(text: &[u8]) -> bool {
    let (eights, rest) = text.as_chunks();
    eights.iter().all(|&eight| plain(u64::from_le_bytes(eight)))
        && rest.iter().all(|byte| matches!(byte, b' '..=b'[' | b']'..=b'~'))
}

/// The name in a buffer of the kernel's, up to its first NUL and `max` characters, if all of it is printable ASCII
/// without a backslash; answers its length.
#[inline(always)]
pub(super) fn short(room: &mut Room, buffer: &[u8; 16], max: usize) -> Option<usize> {
    let half = |at: usize| u64::from_le_bytes(*buffer[at..].first_chunk().expect("there are two halves"));
    let (first, second) = (half(0), half(8));
    let (mut end, mut second_kept) = (nul(first), BLANKS);
    if end == 8 {
        end += nul(second);
        second_kept = kept(second, end.min(max).saturating_sub(8));
    }
    let end = end.min(max);
    let first = kept(first, end);
    if !(plain(first) && plain(second_kept)) {
        return None;
    }
    room[..8].copy_from_slice(&first.to_le_bytes());
    room[8..16].copy_from_slice(&second_kept.to_le_bytes());
    Some(end)
}

/// A name of printable ASCII without a backslash, up to `max` characters, if the room holds all of it; answers its length.
#[inline(always)]
pub(super) fn short_name(room: &mut Room, name: &[u8], max: usize) -> Option<usize> {
    let to = room.get_mut(..name.len())?;
    if !all_plain(name) {
        return None;
    }
    let end = name.len().min(max);
    to[..end].copy_from_slice(&name[..end]);
    Some(end)
}

/// The name in a buffer of the kernel's: what is before its first NUL.
pub fn name_in(buffer: &[u8; 16]) -> &[u8] {
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    &buffer[..end]
}

/// Where the first NUL of eight bytes is; 8 without one.
#[inline(always)]
const fn nul(bytes: u64) -> usize {
    (bytes.wrapping_sub(ONES) & !bytes & HIGH).trailing_zeros() as usize / 8
}

/// The first `len` of eight bytes, blanks behind them.
#[inline(always)]
const fn kept(bytes: u64, len: usize) -> u64 {
    if len >= 8 {
        return bytes;
    }
    let mask = (1 << (8 * len)) - 1;
    bytes & mask | BLANKS & !mask
}

/// Appends `name` with invalid bytes, and characters that must not be printed as they are, as `\xNN`, and a backslash
/// before an `x` as `\x5c`: at most `max` columns of the result, and never half of an escape. Answers the number of
/// columns.
pub(super) fn text(line: &mut Line<'_>, name: &[u8], max: usize) -> usize {
    if all_plain(name) {
        let end = name.len().min(max);
        line.bytes(&name[..end]);
        return end;
    }
    escaped_text(line, name, max)
}

#[cold]
#[inline(never)]
fn escaped_text(line: &mut Line<'_>, name: &[u8], max: usize) -> usize {
    let mut out = Text::of_name(line, max);
    for chunk in name.utf8_chunks() {
        out.str(chunk.valid());
        for &byte in chunk.invalid() {
            out.escape(&[byte]);
        }
    }
    out.end()
}

/// Whether the backslash at the start of `text` would look like that of an escape: the rule of names.
pub(super) fn looks_like_an_escape(text: &str) -> bool {
    text.starts_with("\\x")
}

/// A string, escaped: for messages that carry words of a user or of the traced world.
pub fn escaped(name: impl AsRef<[u8]>) -> String {
    let mut buf = Vec::new();
    text(&mut Line::new(&mut buf), name.as_ref(), usize::MAX);
    String::from_utf8(buf).unwrap_or_default()
}

/// The writer behind [`text`]; also a [`fmt::Write`], so that anything printable can be escaped on its way.
pub(super) struct Text<'l, 'b> {
    line: &'l mut Line<'b>,
    max: usize,
    written: usize,
    full: bool,
    tabs: bool,
    /// Whether a backslash may look like that of an escape: in sentences, whose names are escaped already.
    sentence: bool,
    /// A backslash of a name that is not written yet: what follows decides how.
    backslash: bool,
}

impl<'l, 'b> Text<'l, 'b> {
    /// For a name, or what a name is part of.
    pub(super) fn of_name(line: &'l mut Line<'b>, max: usize) -> Self {
        Text { line, max, written: 0, full: false, tabs: false, sentence: false, backslash: false }
    }

    /// For a sentence, in which escapes of names stand already.
    pub(super) fn of_sentence(line: &'l mut Line<'b>) -> Self {
        Text { sentence: true, ..Text::of_name(line, usize::MAX) }
    }

    /// For as much of a sentence as takes no more columns than these.
    pub(super) fn of_part(line: &'l mut Line<'b>, max: usize) -> Self {
        Text { sentence: true, ..Text::of_name(line, max) }
    }

    /// For a sentence whose layout has TABs.
    pub(super) fn with_tabs(line: &'l mut Line<'b>) -> Self {
        Text { tabs: true, ..Text::of_sentence(line) }
    }

    /// Writes what was held back; answers the number of columns.
    pub(super) fn end(mut self) -> usize {
        self.settle(None);
        self.written
    }

    fn str(&mut self, valid: &str) {
        let Some(&first) = valid.as_bytes().first() else { return };
        if all_plain(valid.as_bytes()) {
            self.settle(Some(first.into()));
            if !self.full {
                let fits = valid.len().min(self.max - self.written);
                self.line.bytes(&valid.as_bytes()[..fits]);
                self.written += fits;
                self.full = fits < valid.len();
            }
            return;
        }
        for c in valid.chars() {
            self.settle(Some(c));
            if c == '\\' && !self.sentence {
                self.backslash = true;
                continue;
            }
            let width = if self.tabs && c == '\t' { Some(1) } else { columns(c) };
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            match width {
                None => self.escape(bytes),
                Some(width) if self.room(width) => self.line.bytes(bytes),
                Some(_) => {}
            }
        }
    }

    /// Writes a backslash that was held back, now that it is known what follows.
    fn settle(&mut self, next: Option<char>) {
        if !std::mem::take(&mut self.backslash) {
            return;
        }
        if next == Some('x') {
            self.escape(b"\\");
        } else if self.room(1) {
            self.line.push(b'\\');
        }
    }

    /// The bytes of one character, or one byte that belongs to none, as `\xNN`.
    fn escape(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.settle(None);
        if self.room(4 * bytes.len()) {
            for byte in bytes {
                let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
                self.line.bytes(&[b'\\', b'x', high, low]);
            }
        }
    }

    /// Takes room for `columns` more; the first thing that does not fit ends the text.
    fn room(&mut self, columns: usize) -> bool {
        self.full |= self.written + columns > self.max;
        if !self.full {
            self.written += columns;
        }
        !self.full
    }
}

impl fmt::Write for Text<'_, '_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.str(s);
        Ok(())
    }
}
