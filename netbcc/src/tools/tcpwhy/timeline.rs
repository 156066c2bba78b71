//! `tcpwhy -e`: what happened to a socket, one line per event, in the order in which it happened.
//!
//! Lives here: the words of a timeline. What happens once per connection is in the record of the socket; resends, errors and
//! closes are kept as they come, the last [`KEPT`] of them.

use std::fmt;

use netbcc_common::tcpwhy::{CLIENT, Conn, Event, KEPT, Moment, SERVER, Timeline, moment};

use super::rules::{Facts, errno};
use crate::tools::conn;

/// States that say that an end closed.
const FIN_WAIT1: i32 = 4;
const FIN_WAIT2: i32 = 5;
const CLOSE_WAIT: i32 = 8;
const LAST_ACK: i32 = 9;
const CLOSING: i32 = 11;

/// A line as it stands below a row: the points of the times stand below each other.
pub(super) struct Indented<'l>(pub(super) &'l str);

impl fmt::Display for Indented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(" ms ") {
            Some((time, what)) => write!(f, "{time:>11} ms  {what}"),
            None => write!(f, "{:14}{}", "", self.0),
        }
    }
}

/// The timeline of a socket: `+0.021 ms SYN resent (1)`.
pub(super) fn lines(facts: &Facts, timeline: &Timeline) -> Vec<String> {
    let Event { conn, ts_ns, .. } = &facts.event;
    let mut all = once(conn);
    let (kept, earlier) = kept(timeline);
    all.extend(kept.iter().map(|moment| (moment.ts_ns, said(moment))));
    let state = conn::state_name(facts.event.state).unwrap_or("an unknown state");
    let error = match facts.error_number() {
        0 => String::new(),
        number => format!(", {}", errno(number)),
    };
    all.push((*ts_ns, format!("ended in {state}{error}")));
    // What TCP measured is told in its clock's microseconds, and some of it later than it happened.
    all.sort_by_key(|(at_ns, _)| *at_ns);
    let from_ns = facts.from_ns();
    let mut lines: Vec<String> = all.iter().map(|(at_ns, what)| at(*at_ns, from_ns, what)).collect();
    if let Some(first) = kept.first().filter(|_| earlier > 0) {
        let before = all.iter().position(|(at_ns, _)| *at_ns >= first.ts_ns).unwrap_or_default();
        lines.insert(before, format!("({earlier} earlier events)"));
    }
    lines
}

/// A moment, as the time since the beginning and what happened.
fn at(at_ns: u64, from_ns: u64, what: &str) -> String {
    let us = at_ns.saturating_sub(from_ns) / 1000;
    format!("+{}.{:03} ms {what}", us / 1000, us % 1000)
}

/// What happens once.
fn once(conn: &Conn) -> Vec<(u64, String)> {
    let is = |flag: u32| conn.flags & flag != 0;
    let begins = if is(CLIENT) { "connect()" } else { "a client's handshake ends" };
    let us = |us: u64| us.saturating_mul(1000);
    let answers = is(SERVER) && conn.answered_us != 0;
    [
        (conn.birth_ns, begins),
        (if is(CLIENT) { conn.established_ns } else { 0 }, "established"),
        (us(conn.asked_us), "first byte sent"),
        (us(conn.arrived_us), "first byte received"),
        (conn.read_ns, "first byte read"),
        (if answers { us(conn.answered_us) } else { 0 }, "first answer sent"),
    ]
    .into_iter()
    .filter(|(at_ns, _)| *at_ns != 0)
    .map(|(at_ns, what)| (at_ns, what.to_owned()))
    .collect()
}

/// What is kept of a timeline, the oldest first, and how many events came before that.
fn kept(timeline: &Timeline) -> (Vec<Moment>, u64) {
    let size = KEPT as u64;
    let earlier = timeline.count.saturating_sub(size);
    let place = |nth: u64| usize::try_from(nth % size).unwrap_or_default();
    ((earlier..timeline.count).map(|nth| timeline.moments[place(nth)]).collect(), earlier)
}

fn said(moment: &Moment) -> String {
    let Moment { what, value, .. } = *moment;
    match what {
        moment::SYN_AGAIN => format!("SYN resent ({value})"),
        moment::RTO => format!("segment resent: RTO, seq +{value}"),
        moment::FAST => format!("segment resent: fast, seq +{value}"),
        moment::TLP => format!("segment resent: TLP, seq +{value}"),
        moment::RESET => "RST received".to_owned(),
        // An ICMP message that came within connect() leaves its number in the program's queue of errors only.
        moment::ERROR if value == 0 => "error reported".to_owned(),
        moment::ERROR => format!("error reported: {}", errno(value.cast_signed())),
        moment::STATE => match value.cast_signed() {
            FIN_WAIT1 | LAST_ACK => "we closed: FIN sent".to_owned(),
            CLOSE_WAIT | CLOSING => "the peer closed: FIN received".to_owned(),
            FIN_WAIT2 => "our FIN acknowledged".to_owned(),
            state => match conn::state_name(state) {
                Some(name) => format!("state {name}"),
                None => format!("state {state}"),
            },
        },
        _ => format!("event {what}"),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const MS: u64 = 1_000_000;

    fn told(conn: Conn, count: u64, moment: impl Fn(u64) -> Moment) -> Vec<String> {
        let mut event = Event::new_zeroed();
        event.conn = conn;
        event.state = 1;
        event.error = 110;
        event.ts_ns = 2000 * MS;
        let mut timeline = Timeline { count, ..Timeline::default() };
        for nth in 0..count {
            timeline.moments[usize::try_from(nth % 16).unwrap()] = moment(nth);
        }
        lines(&Facts { event, slow_us: 0, jiffy_us: 4000, since_ns: 0, refused: None }, &timeline)
    }

    #[test]
    fn what_is_measured_and_what_is_kept_stand_in_order() {
        let conn = Conn {
            birth_ns: 1000 * MS,
            established_ns: 1002 * MS,
            asked_us: 1_003_000,
            flags: CLIENT,
            ..Conn::default()
        };
        let again = |_| Moment { ts_ns: 1250 * MS, what: moment::RTO, value: 1 };
        assert_eq!(
            told(conn, 1, again),
            [
                "+0.000 ms connect()",
                "+2.000 ms established",
                "+3.000 ms first byte sent",
                "+250.000 ms segment resent: RTO, seq +1",
                "+1000.000 ms ended in ESTABLISHED, ETIMEDOUT",
            ]
        );
        assert_eq!(Indented("+3.000 ms first byte sent").to_string(), "     +3.000 ms  first byte sent");
        assert_eq!(Indented("(1 earlier events)").to_string(), "              (1 earlier events)");
    }

    #[test]
    fn what_has_no_room_is_counted_where_it_was() {
        let conn = Conn { birth_ns: 1000 * MS, established_ns: 1000 * MS, flags: SERVER, ..Conn::default() };
        let again = |nth| Moment { ts_ns: (1010 + nth) * MS, what: moment::FAST, value: 1 };
        let lines = told(conn, 20, again);
        assert_eq!(lines.len(), 1 + 1 + 16 + 1, "{lines:?}");
        assert_eq!(
            lines[..3],
            [
                "+0.000 ms a client's handshake ends",
                "(4 earlier events)",
                "+14.000 ms segment resent: fast, seq +1"
            ]
        );
    }
}
