//! The known, intended differences from BCC. Anything else fails.

/// Rows that netbcc's tool shows and BCC's does not.
pub(super) struct Known {
    pub(super) tool: &'static str,
    /// Whether it is such a row.
    pub(super) is: fn(row: &str) -> bool,
    pub(super) reason: &'static str,
}

/// The table.
pub(super) const KNOWN: &[Known] = &[Known {
    tool: "tcptracer",
    is: |row| cell(row, 1) == "C" && cell(row, 5).starts_with("[::ffff:"),
    reason: "BCC loses the connect of an IPv6 socket to an IPv4 address: it stores it as IPv4 and looks it up as IPv6",
}];

/// The cell of a row, counted from 0.
fn cell(row: &str, nth: usize) -> &str {
    row.split_whitespace().nth(nth).unwrap_or_default()
}
