//! The known, intended differences from the peers. Anything else fails.

use super::subjects::STRAY;

/// Whom netbcc is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// BCC's Python tools, as Debian has them.
    Bcc,
    /// The tools of libbpf-tools.
    Libbpf,
}

impl Peer {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bcc => "BCC",
            Self::Libbpf => "libbpf-tools",
        }
    }
}

/// Rows that one of them shows and the other does not, or both but not alike.
struct Known {
    tool: &'static str,
    peer: Peer,
    /// Whether the peer's row and netbcc's, of which one may be missing, are such.
    is: fn(theirs: Option<&str>, ours: Option<&str>) -> bool,
    reason: &'static str,
}

/// The table.
const KNOWN: &[Known] = &[
    Known {
        tool: "tcptracer",
        peer: Peer::Libbpf,
        is: lost_connect,
        reason: "libbpf-tools loses the connect of an IPv6 socket to an IPv4 address, as BCC does",
    },
    Known {
        tool: "solisten",
        peer: Peer::Libbpf,
        is: |theirs, ours| {
            both(theirs, ours, |theirs, ours| cell(theirs, 6) == "::" && cell(ours, 6) != "::")
        },
        reason: "libbpf-tools shows every IPv6 address as ::",
    },
    Known {
        tool: "tcptop",
        peer: Peer::Libbpf,
        is: |theirs, ours| {
            both(theirs, ours, |theirs, ours| {
                cell(ours, 3) == "127.9.0.1:20006" && number(theirs, 5) > number(ours, 5)
            })
        },
        reason: "libbpf-tools counts the bytes that a process asked to send; netbcc, as BCC, those that the kernel took",
    },
    Known {
        tool: "tcptracer",
        peer: Peer::Bcc,
        is: lost_connect,
        reason: "BCC loses the connect of an IPv6 socket to an IPv4 address: it stores it as IPv4 and looks it up as \
                 IPv6",
    },
    Known {
        tool: "tcpdrop",
        peer: Peer::Bcc,
        is: |theirs, ours| only(theirs, ours, |row| row.contains(":20023 ")),
        reason: "BCC takes a dropped datagram for a segment of TCP",
    },
    Known {
        tool: "tcpdrop",
        peer: Peer::Bcc,
        is: |theirs, ours| {
            only(theirs, ours, |row| cell(row, 5) == "::ffff:127.0.0.1:20022")
                || only(ours, theirs, |row| cell(row, 5) == "::ffff:127.0.0.9:20022")
        },
        reason: "BCC swaps the addresses of what an IPv6 socket sends, for it takes them as those of the receiver",
    },
    Known {
        tool: "tcprtt",
        peer: Peer::Libbpf,
        is: |theirs, ours| {
            let is_v6 = |row: &str| cell(row, 0).contains(':');
            ours.is_none() && theirs.is_some_and(|row| ["0.0.0.0", "127.0.0.6"].contains(&cell(row, 0)))
                || theirs.is_none() && ours.is_some_and(is_v6)
                || both(theirs, ours, |theirs, ours| {
                    cell(ours, 0) == "127.0.0.1" && number(theirs, 1) > number(ours, 1)
                })
        },
        reason: "Debian's libbpf-tools shows an IPv6 socket by the IPv4 address that the kernel has in it, the newest as it is",
    },
    Known {
        tool: "tcpcong",
        peer: Peer::Bcc,
        is: |theirs, ours| {
            both(theirs, ours, |theirs, ours| {
                time_in_states(ours) + 1.0 >= time_in_states(theirs) && number(ours, 7) >= number(theirs, 7)
            })
        },
        reason: "BCC starts its clock at the first change of a connection, and loses the stay under way",
    },
    Known {
        tool: "tcpcong",
        peer: Peer::Bcc,
        is: |theirs, ours| only(ours, theirs, |row| number(row, 7) <= 1.0),
        reason: "BCC has no row for a connection with one change",
    },
    Known {
        tool: "tcpsynbl",
        peer: Peer::Bcc,
        is: |theirs, ours| both(theirs, ours, |theirs, ours| cell(theirs, 4) == "2" && cell(ours, 4) == "1"),
        reason: "BCC counts a client of IPv4 at a listener of IPv6 twice",
    },
    Known {
        tool: "tcpsynbl",
        peer: Peer::Libbpf,
        is: |theirs, ours| both(theirs, ours, |theirs, ours| cell(theirs, 1) == "2" && cell(ours, 1) == "1"),
        reason: "libbpf-tools counts a client of IPv4 at a listener of IPv6 twice, as BCC does",
    },
    Known {
        tool: "hardirqs",
        peer: Peer::Bcc,
        is: |theirs, ours| only(theirs, ours, is_stray) || only(ours, theirs, is_stray),
        reason: STRAYS,
    },
    Known {
        tool: "hardirqs",
        peer: Peer::Libbpf,
        is: |theirs, ours| only(theirs, ours, is_stray) || only(ours, theirs, is_stray),
        reason: STRAYS,
    },
    Known {
        tool: "tcpsubnet",
        peer: Peer::Bcc,
        is: |theirs, ours| {
            both(theirs, ours, |theirs, ours| {
                cell(ours, 0) == "127.9.0.0/16" && number(theirs, 1) > number(ours, 1)
            })
        },
        reason: "BCC counts the bytes that a process asked to send; netbcc those that the kernel took",
    },
];

/// Takes out of a connection's rows, where one side has more of them, those that the other is known not to have; answers
/// why.
pub(super) fn take_alone<R>(
    (tool, peer): (&str, Peer),
    theirs: &mut Vec<R>,
    ours: &mut Vec<R>,
    text: fn(&R) -> &str,
) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    while theirs.len() != ours.len() {
        let is_ours = ours.len() > theirs.len();
        let rows = if is_ours { &mut *ours } else { &mut *theirs };
        let alone = rows.iter().enumerate().find_map(|(nth, row)| {
            let row = Some(text(row));
            let (theirs, ours) = if is_ours { (None, row) } else { (row, None) };
            Some((nth, reason(tool, peer, theirs, ours)?))
        });
        let Some((nth, why)) = alone else { break };
        rows.remove(nth);
        reasons.push(why);
    }
    reasons
}

/// The reason why these may differ.
pub(super) fn reason(
    tool: &str,
    peer: Peer,
    theirs: Option<&str>,
    ours: Option<&str>,
) -> Option<&'static str> {
    let fits = |known: &&Known| known.tool == tool && known.peer == peer && (known.is)(theirs, ours);
    KNOWN.iter().find(fits).map(|known| known.reason)
}

/// Why only one has an interrupt that came seldom.
const STRAYS: &str = "tools begin and end one after the other";

/// A count that two tools may differ by.
fn is_stray(row: &str) -> bool {
    number(row, 1) <= STRAY
}

/// tcptracer's row for the connect of an IPv6 socket to an IPv4 address.
fn lost_connect(theirs: Option<&str>, ours: Option<&str>) -> bool {
    only(ours, theirs, |row| cell(row, 1) == "C" && cell(row, 5).starts_with("[::ffff:"))
}

/// All columns of time of tcpcong's row together.
fn time_in_states(row: &str) -> f64 {
    (2..7).map(|nth| number(row, nth)).sum()
}

/// The one is there and such, the other is not there.
fn only(one: Option<&str>, other: Option<&str>, is: fn(&str) -> bool) -> bool {
    other.is_none() && one.is_some_and(is)
}

fn both(theirs: Option<&str>, ours: Option<&str>, are: fn(&str, &str) -> bool) -> bool {
    theirs.zip(ours).is_some_and(|(theirs, ours)| are(theirs, ours))
}

/// The cell of a row, counted from 0.
fn cell(row: &str, nth: usize) -> &str {
    row.split_whitespace().nth(nth).unwrap_or_default()
}

fn number(row: &str, nth: usize) -> f64 {
    cell(row, nth).parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_for_one_tool_and_one_side() {
        let row = "0.1  C  9  load  6  [::ffff:127.0.0.1] [::ffff:127.0.0.1] 1 20001";
        assert!(reason("tcptracer", Peer::Bcc, None, Some(row)).is_some());
        assert!(reason("tcptracer", Peer::Bcc, Some(row), None).is_none());
        assert!(reason("tcptop", Peer::Libbpf, None, Some(row)).is_none());
        assert!(reason("tcplife", Peer::Bcc, None, Some(row)).is_none());
    }

    #[test]
    fn more_than_the_kernel_took_is_what_was_asked_for() {
        let reason = |bcc, ours| reason("tcpsubnet", Peer::Bcc, Some(bcc), Some(ours));
        assert!(reason("127.9.0.0/16   8388608", "127.9.0.0/16   100000").is_some());
        assert!(reason("127.9.0.0/16   100000", "127.9.0.0/16   8388608").is_none());
        assert!(reason("127.1.0.0/16   8388608", "127.1.0.0/16   100000").is_none());
    }

    #[test]
    fn a_row_that_one_is_known_to_lack_does_not_shift_the_rest() {
        let (lost, close) =
            ("0.1  C  9  load  6  [::ffff:127.0.0.1]", "0.2  X  9  load  6  [::ffff:127.0.0.1]");
        let tool = ("tcptracer", Peer::Bcc);
        let (mut theirs, mut ours) = (vec![close], vec![lost, close]);
        assert_eq!(take_alone(tool, &mut theirs, &mut ours, |row| row).len(), 1);
        assert_eq!(ours, [close]);
        // One that is not known stays.
        let (mut theirs, mut ours) = (vec![], vec![close]);
        assert!(take_alone(tool, &mut theirs, &mut ours, |row| row).is_empty());
        assert_eq!(ours, [close]);
    }
}
