//! The known, intended differences from BCC. Anything else fails.

/// One of them.
pub(super) struct Known {
    pub(super) tool: &'static str,
    pub(super) what: What,
    pub(super) reason: &'static str,
}

/// What differs.
pub(super) enum What {
    /// BCC's row has this cell where netbcc's has that one, in the column of this name.
    Cell(&'static str, fn(bcc: &str, ours: &str) -> bool),
    /// BCC does not have netbcc's row with this text.
    OnlyOurs(fn(row: &str) -> bool),
}

/// The table.
pub(super) const KNOWN: &[Known] = &[Known {
    tool: "tcptracer",
    what: What::OnlyOurs(|row| cell(row, 1) == "C" && cell(row, 5).starts_with("[::ffff:")),
    reason: "BCC loses the connect of an IPv6 socket to an IPv4 address: it stores it as IPv4 and looks it up as IPv6",
}];

/// The cell of a row, counted from 0.
fn cell(row: &str, nth: usize) -> &str {
    row.split_whitespace().nth(nth).unwrap_or_default()
}
