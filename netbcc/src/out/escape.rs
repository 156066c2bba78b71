//! Makes names of strangers safe to print.
//!
//! Lives here: the one rule of what may reach a terminal as it is. A process can call itself anything; its
//! name must never move a cursor, change a colour or reorder a line.

use std::fmt;

use super::line::Line;

/// Characters that could drive a terminal or reorder its text: C0, DEL, C1, bidi controls, line separators.
pub(super) fn hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `name` with hostile characters and invalid bytes as `\xNN`, at most `max` characters of the
/// result and never half of an escape. Answers the number of characters.
pub(super) fn text(line: &mut Line<'_>, name: &[u8], max: usize) -> usize {
    // Nearly all names are short printable ASCII.
    if name.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        let end = name.len().min(max);
        line.bytes(&name[..end]);
        return end;
    }
    let mut out = Text::new(line, max);
    for chunk in name.utf8_chunks() {
        out.str(chunk.valid());
        for &byte in chunk.invalid() {
            out.bytes(&[byte]);
        }
    }
    out.written()
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
}

impl<'l, 'b> Text<'l, 'b> {
    pub(super) fn new(line: &'l mut Line<'b>, max: usize) -> Self {
        Text { line, max, written: 0, full: false, tabs: false }
    }

    /// Lets TAB pass, for lines whose layout has one.
    pub(super) fn with_tabs(line: &'l mut Line<'b>) -> Self {
        Text { tabs: true, ..Text::new(line, usize::MAX) }
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    fn str(&mut self, valid: &str) {
        for c in valid.chars() {
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            if hostile(c) && !(self.tabs && c == '\t') {
                self.bytes(bytes);
            } else if self.room(1) {
                self.line.bytes(bytes);
            }
        }
    }

    /// The bytes of one character, or one byte that belongs to none, as `\xNN`.
    fn bytes(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if self.room(4 * bytes.len()) {
            for byte in bytes {
                let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
                self.line.bytes(&[b'\\', b'x', high, low]);
            }
        }
    }

    /// Takes room for `chars` more; the first thing that does not fit ends the text.
    fn room(&mut self, chars: usize) -> bool {
        self.full |= self.written + chars > self.max;
        if !self.full {
            self.written += chars;
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
