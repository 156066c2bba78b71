//! What several fuzz targets ask of what netbcc prints.

use netbcc::out::{Clock, Format, Out, Table};

/// 2026-05-01T12:34:56.123456789Z, in a zone two hours east, is monotonic second 1000.
pub fn clock() -> Clock {
    Clock::fixed(1_777_638_896_123_456_789 - 1_000_000_000_000, 2)
}

/// Header and one row, as a run prints them.
pub fn printed<R>(format: Format, table: &Table<R>, ts_ns: u64, row: &R) -> String {
    let mut out = Out::memory(format, clock());
    out.header(table);
    out.row(table, ts_ns, row);
    // `take` would make anything of bytes that are no UTF-8.
    String::from_utf8(std::mem::take(out.raw())).expect("what is printed is UTF-8")
}

/// What could move a cursor, change a colour or reorder a line. Written down here once more, from the Unicode Character
/// Database (Cc; Bidi_Control; line and paragraph separators): netbcc's own list is what is tested.
pub fn drives_a_terminal(c: char) -> bool {
    let bidi = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
        '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
    ];
    c.is_control() || bidi.contains(&c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether a terminal may put what follows this character elsewhere than one or two columns on: no column of its own, or
/// a script from right to left.
pub fn shifts_a_line(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{590}'..='\u{8ff}' | '\u{200b}'..='\u{200d}' | '\u{feff}')
}

/// The bytes of a name in which `\xNN` stands for a byte.
pub fn unescaped(text: &str) -> Vec<u8> {
    let mut pieces = text.split("\\x");
    let mut name = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        name.push(u8::from_str_radix(digits, 16).expect("two digits"));
        name.extend(rest.as_bytes());
    }
    name
}

/// Insists on `lines` whole lines without anything that a terminal would obey.
pub fn is_harmless(text: &str, lines: usize) {
    assert_eq!(text.matches('\n').count(), lines, "{text:?}");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    assert!(!text.chars().any(|c| c != '\n' && drives_a_terminal(c)), "{text:?}");
}

/// The records of CSV, by another's parser, which insists that all have as many fields.
pub fn records(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let records = reader.records().map(|record| record.unwrap_or_else(|e| panic!("{e}: {text:?}")));
    records.map(|record| record.iter().map(str::to_owned).collect()).collect()
}

/// The next `N` bytes; zeros where there are none.
pub fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (now, rest) = data.split_at(data.len().min(N));
    bytes[..now.len()].copy_from_slice(now);
    *data = rest;
    bytes
}

/// The next bytes, as many as the byte before them says.
pub fn take_some<'d>(data: &mut &'d [u8]) -> &'d [u8] {
    let [length] = take(data);
    let (now, rest) = data.split_at(data.len().min(length.into()));
    *data = rest;
    now
}
