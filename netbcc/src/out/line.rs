//! The place where a row is written: a cursor over blanks.
//!
//! Padding is the most of a row of text, and here it costs an addition: the room ahead is blank already.

use std::fmt;

/// Blank room made at a time; most rows need it once.
const ROOM: usize = 256;

/// Appends to a buffer. What lies ahead of the cursor is always blank, and is gone when the line is dropped.
pub(super) struct Line<'b> {
    buf: &'b mut Vec<u8>,
    at: usize,
}

impl<'b> Line<'b> {
    pub(super) fn new(buf: &'b mut Vec<u8>) -> Self {
        let at = buf.len();
        // A copy of blanks costs less than to write each.
        buf.extend_from_slice(&[b' '; ROOM]);
        Line { buf, at }
    }

    /// Where the cursor is.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What was written from `start` on.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        &self.buf[start..self.at]
    }

    /// Steps over `n` bytes, to be filled in; they are blanks until then.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> &mut [u8] {
        let start = self.at;
        self.blanks(n);
        &mut self.buf[start..start + n]
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.take(1)[0] = byte;
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).copy_from_slice(bytes);
    }

    /// The next `N` bytes, blanks, to be filled in before [`Line::step`].
    #[inline(always)]
    pub(super) fn room<const N: usize>(&mut self) -> &mut [u8; N] {
        let at = self.at;
        if at <= self.buf.len() && N <= self.buf.len() - at {
            self.buf[at..].first_chunk_mut().expect("just compared")
        } else {
            self.more();
            self.buf[at..].first_chunk_mut().expect("there is room for more than that")
        }
    }

    /// Steps over `n` bytes of the room that was just filled in.
    #[inline(always)]
    pub(super) fn step(&mut self, n: usize) {
        self.at += n;
    }

    #[inline]
    pub(super) fn blanks(&mut self, n: usize) {
        self.at += n;
        if self.at > self.buf.len() {
            self.more();
        }
    }

    #[cold]
    #[inline(never)]
    fn more(&mut self) {
        self.buf.resize(self.at + ROOM, b' ');
    }

    /// Moves what was written from `start` on by `n` to the right.
    pub(super) fn indent(&mut self, start: usize, n: usize) {
        let end = self.at;
        self.take(n);
        self.buf.copy_within(start..end, start + n);
        self.buf[start..start + n].fill(b' ');
    }

    /// Takes back what was written from `start` on.
    pub(super) fn rewind(&mut self, start: usize) {
        self.buf[start..self.at].fill(b' ');
        self.at = start;
    }
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.buf.truncate(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_ahead_is_blank_and_goes_away() {
        let mut buf = b"x".to_vec();
        let mut line = Line::new(&mut buf);
        line.bytes(b"abc");
        line.blanks(2);
        line.push(b'd');
        line.indent(6, 1);
        line.bytes(b"gone");
        line.rewind(8);
        line.blanks(1);
        assert_eq!(line.since(0), b"xabc   d ");
        drop(line);
        assert_eq!(buf, b"xabc   d ");
    }

    #[test]
    fn long_lines_find_their_room() {
        let mut buf = Vec::new();
        let mut line = Line::new(&mut buf);
        for _ in 0..10 {
            line.bytes(&[b'x'; 200]);
            line.blanks(300);
            line.indent(0, 1);
        }
        drop(line);
        assert_eq!(buf.len(), 10 * 501);
        assert_eq!(String::from_utf8(buf).unwrap().matches('x').count(), 2000);
    }
}
