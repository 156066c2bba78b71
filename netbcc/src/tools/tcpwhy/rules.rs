//! The rules of tcpwhy: one table, which rows, `--rules`, `--only`, the manual and the schema share.
//!
//! Lives here: what a verdict rests on, and its sentence. A sentence says what was seen, with figures, and guesses nothing.

use std::fmt;
use std::time::Duration;

use netbcc_common::tcpwhy::{
    CLIENT, DEAD, DONE, Event, FILE, GAP, INFLATED_TIMES, INFLATED_US, LINGER, LIVE, REPORTED, RESET,
    Refused, SERVER, SHUT, SHUT_WINDOW, stuck,
};
use nix::errno::Errno;

use crate::out::Fixed;
use crate::tools::conn;

/// TCP's states that are asked for here.
mod state {
    pub(super) const ESTABLISHED: i32 = 1;
    pub(super) const SYN_SENT: i32 = 2;
    pub(super) const FIN_WAIT1: i32 = 4;
    pub(super) const FIN_WAIT2: i32 = 5;
    pub(super) const CLOSE_WAIT: i32 = 8;
    pub(super) const LAST_ACK: i32 = 9;
    pub(super) const CLOSING: i32 = 11;
}

/// How long data must lie unread behind a closed window for the reader to be called slow.
const SHUT_FOR: Duration = Duration::from_millis(200);

/// One rule.
pub struct Rule {
    /// The verdict.
    pub word: &'static str,
    /// When it holds, for users.
    pub when: &'static str,
    holds: fn(&Facts) -> bool,
    evidence: fn(&Facts) -> String,
}

/// All rules. The first that holds is the verdict.
pub const RULES: [Rule; 20] = [
    Rule {
        word: "refused",
        when: "A RST answered the SYN (ECONNREFUSED).",
        holds: |f| f.is(state::SYN_SENT) && f.error() == Errno::ECONNREFUSED && f.has(RESET),
        evidence: |f| format!("a RST came {} after connect()", ms(f.span_us())),
    },
    Rule {
        word: "unreachable",
        when: "An ICMP message or a route ended it: the error's name.",
        holds: |f| f.is(state::SYN_SENT) && f.fails_to_connect() || f.is_cut_off(),
        evidence: |f| {
            let resent = count(f.event.retrans, "segment was", "segments were");
            format!("{} in {}, {} after it began; {resent} resent", f.errno(), f.state(), ms(f.span_us()))
        },
    },
    Rule {
        word: "connect-timeout",
        when: "Nothing answered the SYN until the kernel gave up (ETIMEDOUT).",
        holds: |f| f.is(state::SYN_SENT) && f.error() == Errno::ETIMEDOUT,
        evidence: |f| format!("{} in {}, no answer", f.syns_sent(), ms(f.span_us())),
    },
    Rule {
        word: "connect-abandoned",
        when: "The program closed the socket before anything answered the SYN.",
        holds: |f| f.is(state::SYN_SENT) && f.event.error == 0,
        evidence: |f| format!("closed after {} without an answer to {}", ms(f.span_us()), f.syns_sent()),
    },
    Rule {
        word: "never-accepted",
        when: "A connection that came in ended before any accept().",
        holds: |f| f.has(SERVER) && f.is_established() && !f.bit(FILE) && !f.bit(DEAD),
        evidence: |f| {
            let how = if f.has(RESET) {
                "then a RST came"
            } else if f.event.error != 0 {
                return format!("it waited {}, then {}", ms(f.established_for_us()), f.errno());
            } else if f.bit(DONE) {
                "the client had closed; then its listener did"
            } else {
                "then its listener closed"
            };
            format!(
                "it waited {} for accept(), {how}; {} unread",
                ms(f.established_for_us()),
                bytes(f.unread())
            )
        },
    },
    Rule {
        word: "reset-received",
        when: "A RST ended an established connection: in which state, and what was not sent, acknowledged or read. In FIN_WAIT1 \
               and FIN_WAIT2 data that comes after close() counts as a RST, since the kernel takes it for one.",
        holds: |f| f.has(RESET) && !f.is(state::SYN_SENT),
        evidence: |f| {
            let what = match f.event.state {
                state::FIN_WAIT1 | state::FIN_WAIT2 => "a RST, or data after close(),",
                _ => "a RST",
            };
            let left =
                [(f.event.unsent, "unsent"), (f.event.unacked, "unacknowledged"), (f.unread(), "unread")];
            let left: Vec<String> = left
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{} {what}", bytes(count)))
                .collect();
            let left =
                if left.is_empty() { "nothing left to send or read".to_owned() } else { left.join(", ") };
            let since = if f.event.bytes_sent > 0 {
                format!("{} after our last data", ms(f.silent_us()))
            } else {
                "we sent no data".to_owned()
            };
            format!("{what} in {}, {since}; {left}", f.state())
        },
    },
    Rule {
        word: "reset-sent",
        when: "This end sent a RST: for unread data, for SO_LINGER with no time, because it was aborted from outside (ss -K), or \
               by another abort.",
        holds: |f| f.is_cut_short() && (f.event.error == 0 || f.error() == Errno::ECONNABORTED),
        evidence: |f| match f.reset_reason().unwrap_or_default() {
            "unread-data" => format!("closed in {} with {} unread", f.state(), bytes(f.unread())),
            "linger-0" => {
                format!("closed in {} with SO_LINGER 0; {} unsent", f.state(), bytes(f.event.unsent))
            }
            "killed" => format!("aborted from outside in {} (ECONNABORTED)", f.state()),
            "after-close" => "the kernel gave it up after close(), in FIN_WAIT1".to_owned(),
            _ => format!("aborted by its program in {}, not by close()", f.state()),
        },
    },
    Rule {
        word: "timed-out",
        when: "ETIMEDOUT after it was established: by keepalive, TCP_USER_TIMEOUT, a window that stayed closed, or because \
               what was resent was never acknowledged.",
        holds: |f| f.error() == Errno::ETIMEDOUT && !f.is(state::SYN_SENT),
        evidence: |f| {
            let Event { unacked, unsent, snd_wnd, probes, timeouts, user_timeout_ms, .. } = f.event;
            if unacked == 0 && unsent == 0 {
                let probes = count(probes.into(), "probe", "probes");
                return format!("keepalive: {probes} unanswered, idle for {}", ms(f.silent_us()));
            }
            let what = if user_timeout_ms != 0 {
                format!("TCP_USER_TIMEOUT of {user_timeout_ms} ms")
            } else {
                "retransmissions exhausted".to_owned()
            };
            if unacked == 0 && snd_wnd == 0 {
                return format!("{what}: the peer's window stayed closed, {} unsent", bytes(unsent));
            }
            format!(
                "{what}: {} unacknowledged after {timeouts} timeouts, {} after the last data",
                bytes(unacked),
                ms(f.silent_us())
            )
        },
    },
    Rule {
        word: "accept-refused",
        when: "A listener dropped SYNs, or ACKs that would have ended a handshake, as for a full queue of connections that wait \
               for accept(). With -i only.",
        holds: |f| f.refused.is_some(),
        evidence: |f| {
            let Some(refused) = &f.refused else { return String::new() };
            let Refused { drops, waiting, most, span_ns, .. } = *refused;
            let full = if waiting > most { ", full" } else { "" };
            format!("{drops} in {}, queue {waiting} of {most}{full}", ms(span_ns / 1000))
        },
    },
    Rule {
        word: "syn-resent",
        when: "Established, but only after the SYN (client) or the SYN-ACK (server) was sent again.",
        holds: |f| f.is_established() && f.event.conn.syns > 0,
        evidence: |f| {
            let syns = f.event.conn.syns;
            if !f.has(CLIENT) {
                return format!("{} resent before the client answered", count(syns, "SYN-ACK", "SYN-ACKs"));
            }
            let after = f.event.conn.established_ns.saturating_sub(f.event.conn.syn_ns) / 1000;
            format!("{} resent; answered {} after the last", count(syns, "SYN", "SYNs"), ms(after))
        },
    },
    Rule {
        word: "loss",
        when: "Segments were lost and sent again: by the timer, or more than 1 % of all with data. Those that came twice by what the \
               peer says (DSACK) were not lost.",
        holds: |f| {
            let lost = u64::from(f.resent().saturating_sub(f.event.dsack_dups));
            lost > 0 && (f.event.conn.rto > 0 || lost * 100 > u64::from(f.event.data_segs_out))
        },
        evidence: |f| {
            let conn = &f.event.conn;
            let kinds = [(conn.rto, "RTO"), (conn.fast, "fast"), (conn.tlp, "TLP")];
            let kinds: Vec<String> = kinds
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, kind)| format!("{count} {kind}"))
                .collect();
            let kinds = if kinds.is_empty() { "of unknown kinds".to_owned() } else { kinds.join(", ") };
            let spurious = match f.event.dsack_dups {
                0 => String::new(),
                dups => format!("; {dups} came twice"),
            };
            let resent = count(f.resent(), "segment", "segments");
            format!("{resent} of {} resent ({kinds}){spurious}", f.event.data_segs_out)
        },
    },
    Rule {
        word: "reader-slow-peer",
        when: "Sending was limited by the peer's window for more than half of its busy time, and for longer than --slow.",
        holds: |f| f.is_limited(1),
        evidence: |f| f.limited(1, "the peer's window"),
    },
    Rule {
        word: "reader-slow-here",
        when: "Received data lay unread for longer than --slow, or for longer than 200 ms behind a closed window.",
        holds: |f| {
            let unread_us = f.event.conn.unread_ns / 1000;
            f.slow_us > 0
                && (unread_us > f.slow_us
                    || f.has(SHUT_WINDOW) && u128::from(unread_us) > SHUT_FOR.as_micros())
        },
        evidence: |f| {
            let window = if f.has(SHUT_WINDOW) { "; our window was closed" } else { "" };
            format!("data lay unread for {}{window}", ms(f.event.conn.unread_ns / 1000))
        },
    },
    Rule {
        word: "buffer-small",
        when: "Sending was limited by our send buffer for more than half of its busy time, and for longer than --slow.",
        holds: |f| f.is_limited(2),
        evidence: |f| f.limited(2, "our send buffer"),
    },
    Rule {
        word: "slow-connect",
        when: "The answer to the SYN took longer than --slow, without resends.",
        holds: |f| f.is_established() && f.is_slow(f.connect_us()),
        evidence: |f| format!("answered {} after connect()", ms(f.connect_us().unwrap_or_default())),
    },
    Rule {
        word: "slow-peer",
        when: "The peer's first byte came later than --slow: after our last data before it, or after the connection was there; \
               or none came until the connection was closed.",
        holds: |f| f.is_slow(f.peer_us()) || f.is_slow(f.unanswered_us()),
        evidence: |f| {
            let rtt = f.rtt();
            if let Some(waited) = f.unanswered_us() {
                return format!("closed {} after our data, without a byte from the peer{rtt}", ms(waited));
            }
            let after = if f.asked() { "ours" } else { "it was established" };
            format!("first byte {} after {after}{rtt}", ms(f.peer_us().unwrap_or_default()))
        },
    },
    Rule {
        word: "slow-here",
        when: "Our program's first answer left later than --slow after the client's first byte came.",
        holds: |f| f.is_slow(f.answer_us()),
        evidence: |f| {
            let after = ms(f.answer_us().unwrap_or_default());
            format!("our first answer left {after} after the client's first byte came{}", f.rtt())
        },
    },
    Rule {
        word: "rtt-inflated",
        when: "The smoothed round trip is above 100 ms, and more than 10 times the minimum.",
        holds: |f| {
            let (srtt, least) = (f.event.srtt_us_8 >> 3, f.event.rtt_min_us);
            srtt > INFLATED_US && u64::from(srtt) > u64::from(least) * u64::from(INFLATED_TIMES)
        },
        evidence: |f| {
            format!(
                "RTT {} at the end{}",
                ms((f.event.srtt_us_8 >> 3).into()),
                f.rtt().replace("RTT", "minimum")
            )
        },
    },
    Rule {
        word: "unknown",
        when: "It ended with an error, or in a way, that no rule names: the error and the state.",
        holds: |f| {
            f.event.error != 0
                || ![state::FIN_WAIT2, state::LAST_ACK, state::CLOSING].contains(&f.event.state)
        },
        evidence: |f| format!("{} in {}", f.errno(), f.state()),
    },
    Rule {
        word: "ok",
        when: "None of these. Such rows are shown with -a.",
        holds: |_| true,
        evidence: |f| {
            let first = if f.closed_first() == Some("here") { "we" } else { "the peer" };
            format!("{first} closed first")
        },
    },
];

/// The verdicts, in the order of their rules.
pub const WORDS: [&str; RULES.len()] = {
    let mut words = [""; RULES.len()];
    let mut nth = 0;
    while nth < words.len() {
        words[nth] = RULES[nth].word;
        nth += 1;
    }
    words
};

/// The number of the rule that names what no rule names.
const UNKNOWN: usize = RULES.len() - 2;

/// The verdicts with their rules, for the manual.
pub const MEANINGS: [(&str, &str); RULES.len()] = {
    let mut words = [("", ""); RULES.len()];
    let mut nth = 0;
    while nth < words.len() {
        words[nth] = (RULES[nth].word, RULES[nth].when);
        nth += 1;
    }
    words
};

/// What was seen of a socket, as the rules ask for it.
pub struct Facts {
    /// As the kernel sent it.
    pub event: Event,
    /// What counts as slow; 0: nothing does.
    pub slow_us: u64,
    /// How long the kernel's jiffy is.
    pub jiffy_us: u64,
    /// When the tool began to look, ns.
    pub since_ns: u64,
    /// Of a listener: what it refused. The event then has its end and its owner.
    pub refused: Option<Refused>,
}

/// The verdicts of sockets that live, by the way in which they are stuck.
const STUCK: [(u16, &str); 5] = [
    (stuck::CONNECTING, "connect-timeout"),
    (stuck::RESENDING, "loss"),
    (stuck::SHUT_OUT, "reader-slow-peer"),
    (stuck::WAITING, "never-accepted"),
    (stuck::UNREAD, "reader-slow-here"),
];

impl Facts {
    /// The number of the rule that holds, and its sentence.
    pub fn verdict(&self) -> (usize, String) {
        let nth = self.rule();
        if self.is_live() {
            return (nth, format!("still open: {}", self.stuck()));
        }
        (nth, (RULES[nth].evidence)(self))
    }

    /// The number of the rule that holds.
    pub fn rule(&self) -> usize {
        let of_stuck = |(_, word): &(u16, &str)| WORDS.iter().position(|known| known == word);
        if self.is_live() {
            let way = STUCK.iter().find(|(way, _)| *way == self.event.conn.stuck);
            return way.and_then(of_stuck).unwrap_or(UNKNOWN);
        }
        RULES.iter().position(|rule| (rule.holds)(self)).unwrap_or(RULES.len() - 1)
    }

    /// Whether it has not ended, and is stuck.
    pub fn is_live(&self) -> bool {
        self.bit(LIVE)
    }

    /// How a live socket is stuck.
    fn stuck(&self) -> String {
        let Event { unacked, unsent, timeouts, probes, snd_wnd, .. } = self.event;
        match self.event.conn.stuck {
            stuck::CONNECTING => format!("{} in {}, no answer", self.syns_sent(), ms(self.span_us())),
            stuck::RESENDING => format!(
                "{} unacknowledged after {timeouts} timeouts, {} after the last data",
                bytes(unacked),
                ms(self.silent_us())
            ),
            stuck::SHUT_OUT => {
                let probes = count(probes.into(), "probe", "probes");
                format!("the peer's window is closed, {} unsent, {probes} unanswered", bytes(unsent))
            }
            stuck::WAITING => {
                format!(
                    "it has waited {} for accept(); {} unread",
                    ms(self.established_for_us()),
                    bytes(self.unread())
                )
            }
            stuck::UNREAD => {
                format!("{} unread, the last packet {} ago", bytes(self.unread()), ms(self.quiet_us()))
            }
            _ => format!("window {snd_wnd}, {} unsent", bytes(unsent)),
        }
    }

    /// Since a packet of it came or left.
    fn quiet_us(&self) -> u64 {
        (self.event.ts_ns / 1000).saturating_sub(self.event.last_packet_us)
    }

    fn has(&self, flag: u32) -> bool {
        self.event.conn.flags & flag != 0
    }

    fn bit(&self, bit: u32) -> bool {
        self.event.bits & bit != 0
    }

    fn is(&self, state: i32) -> bool {
        self.event.state == state
    }

    fn is_established(&self) -> bool {
        self.event.conn.established_ns != 0
    }

    /// Whether it was there before the tool.
    pub fn is_older(&self) -> bool {
        self.event.conn.birth_ns == 0 && self.refused.is_none()
    }

    /// Whether all was seen that its rules rest on.
    pub fn is_complete(&self) -> bool {
        let conn = &self.event.conn;
        let counted = [conn.syns, conn.rto, conn.fast, conn.tlp].into_iter().fold(0, u32::saturating_add);
        self.refused.is_some() || !self.is_older() && !self.has(GAP) && counted >= self.event.retrans
    }

    fn error(&self) -> Errno {
        Errno::from_raw(self.event.error)
    }

    /// The error that it ended with; one that its program was told of in the meantime counts, too.
    pub fn error_number(&self) -> i32 {
        match (self.event.error, self.is(state::SYN_SENT) && self.has(REPORTED)) {
            (0, true) => self.event.conn.error,
            (error, _) => error,
        }
    }

    fn errno(&self) -> String {
        match self.error_number() {
            0 if self.has(REPORTED) => "an error without a name".to_owned(),
            0 => "no error".to_owned(),
            number => errno(number),
        }
    }

    /// In SYN_SENT: neither a RST nor silence, but a message.
    fn fails_to_connect(&self) -> bool {
        match self.error() {
            Errno::ETIMEDOUT => false,
            Errno::ECONNREFUSED => !self.has(RESET),
            // The kernel's own; a program's close() may follow a report.
            _ => self.event.error != 0 || self.has(REPORTED),
        }
    }

    /// After SYN_SENT: by an error that ICMP and routes bring.
    fn is_cut_off(&self) -> bool {
        use Errno::{
            EACCES, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO,
        };
        !self.has(RESET)
            && [
                EACCES,
                EHOSTDOWN,
                EHOSTUNREACH,
                ENETDOWN,
                ENETUNREACH,
                ENOPROTOOPT,
                EOPNOTSUPP,
                EPERM,
                EPROTO,
            ]
            .contains(&self.error())
    }

    /// The state that it left.
    fn state(&self) -> &'static str {
        conn::state_name(self.event.state).unwrap_or("an unknown state")
    }

    fn syns_sent(&self) -> Count {
        count(self.event.conn.syns.saturating_add(1), "SYN", "SYNs")
    }

    /// Received bytes that nobody read: an unread FIN is none.
    fn unread(&self) -> u32 {
        self.event.unread.saturating_sub(u32::from(self.bit(DONE)))
    }

    /// How old it was.
    pub fn span_us(&self) -> u64 {
        self.event.ts_ns.saturating_sub(self.from_ns()) / 1000
    }

    /// When it began, or the tool did: `CLOCK_MONOTONIC`, ns.
    pub fn from_ns(&self) -> u64 {
        if self.is_older() { self.since_ns } else { self.event.conn.birth_ns }
    }

    fn established_for_us(&self) -> u64 {
        self.event.ts_ns.saturating_sub(self.event.conn.established_ns) / 1000
    }

    /// From connect() to its answer, also one that refused.
    pub fn connect_us(&self) -> Option<u64> {
        let conn = &self.event.conn;
        if !self.has(CLIENT) || self.is_older() {
            return None;
        }
        match conn.established_ns {
            0 if self.is(state::SYN_SENT) && self.has(RESET | REPORTED) => Some(self.span_us()),
            0 => None,
            then => Some(then.saturating_sub(conn.birth_ns) / 1000),
        }
    }

    /// When what the peer's first byte may answer was there: our data, or the connection.
    fn before_first_us(&self) -> u64 {
        self.event.conn.asked_us.max(self.event.conn.established_ns / 1000)
    }

    fn asked(&self) -> bool {
        self.has(CLIENT) && self.event.conn.asked_us > self.event.conn.established_ns / 1000
    }

    /// Until the peer's first byte, of a client from our data on; `None`: none was read.
    fn peer_us(&self) -> Option<u64> {
        let conn = &self.event.conn;
        if self.is_older() || conn.arrived_us == 0 || !self.is_established() {
            return None;
        }
        let from = if self.has(CLIENT) { self.before_first_us() } else { conn.established_ns / 1000 };
        Some(conn.arrived_us.saturating_sub(from))
    }

    /// Until the first byte: of a client when it came, of a server when it was read.
    pub fn first_us(&self) -> Option<u64> {
        let conn = &self.event.conn;
        if self.has(CLIENT) {
            return self.peer_us();
        }
        (!self.is_older() && conn.read_ns != 0 && self.is_established())
            .then(|| conn.read_ns.saturating_sub(conn.established_ns) / 1000)
    }

    /// How long a client waited for an answer that never came.
    fn unanswered_us(&self) -> Option<u64> {
        let Event { conn, bytes_sent, bytes_received, .. } = &self.event;
        let waits =
            self.has(CLIENT) && self.asked() && *bytes_sent > 0 && *bytes_received <= 1 && conn.read_ns == 0;
        (waits && conn.closing_ns != 0).then(|| (conn.closing_ns / 1000).saturating_sub(conn.asked_us))
    }

    /// From a client's first byte to our answer.
    fn answer_us(&self) -> Option<u64> {
        let conn = &self.event.conn;
        (self.has(SERVER) && conn.arrived_us != 0 && conn.answered_us != 0)
            .then(|| conn.answered_us.saturating_sub(conn.arrived_us))
    }

    fn is_slow(&self, us: Option<u64>) -> bool {
        self.slow_us > 0 && us.is_some_and(|us| us > self.slow_us)
    }

    /// Segments sent again but SYNs.
    fn resent(&self) -> u32 {
        self.event.retrans.saturating_sub(self.event.conn.syns)
    }

    /// Time that sending was busy without a limit, limited by the peer's window, and by our buffer.
    pub fn busy_us(&self) -> [u64; 3] {
        self.event.busy.map(|jiffies| u64::from(jiffies) * self.jiffy_us)
    }

    fn is_limited(&self, by: usize) -> bool {
        let busy = self.busy_us();
        self.slow_us > 0 && busy[by] > self.slow_us && busy[by] * 2 > busy.iter().sum::<u64>()
    }

    fn limited(&self, by: usize, what: &str) -> String {
        let busy = self.busy_us();
        format!("limited by {what} for {} of {} busy", ms(busy[by]), ms(busy.iter().sum()))
    }

    /// Since our last data, in the kernel's jiffies of 1 to 10 ms; never longer than the socket is old.
    fn silent_us(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is compared")]
        let jiffies = (self.event.jiffies as u32).wrapping_sub(self.event.last_data_sent);
        (u64::from(jiffies) * self.jiffy_us).min(self.span_us())
    }

    fn rtt(&self) -> String {
        self.rtt_us().map(|us| format!(", RTT {}", ms(us))).unwrap_or_default()
    }

    /// The minimum round trip.
    pub fn rtt_us(&self) -> Option<u64> {
        (self.event.rtt_min_us != u32::MAX && self.event.srtt_us_8 != 0).then(|| self.event.rtt_min_us.into())
    }

    /// Which end closed first, if one did.
    pub fn closed_first(&self) -> Option<&'static str> {
        use netbcc_common::tcpwhy::{CLOSED_HERE, CLOSED_THERE};
        if self.has(CLOSED_HERE) {
            Some("here")
        } else if self.has(CLOSED_THERE) {
            Some("there")
        } else {
            None
        }
    }

    /// Whether it ended where an end without a RST and an error is one by a RST of ours. From FIN_WAIT2 a socket also leaves by
    /// the other end's FIN, or, once it was closed, for what the kernel keeps in its place.
    fn is_cut_short(&self) -> bool {
        match self.event.state {
            state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT1 => true,
            state::FIN_WAIT2 => !self.bit(DONE) && !self.bit(DEAD),
            _ => false,
        }
    }

    /// Why this end sent a RST, if it did.
    pub fn reset_reason(&self) -> Option<&'static str> {
        if !self.is_cut_short() || self.has(RESET) {
            return None;
        }
        match self.error() {
            Errno::ECONNABORTED => Some("killed"),
            _ if self.event.error != 0 => None,
            _ if self.is(state::FIN_WAIT1) => Some("after-close"),
            _ if !self.bit(SHUT) => Some("aborted"),
            _ if self.unread() > 0 => Some("unread-data"),
            _ if self.bit(LINGER) => Some("linger-0"),
            _ => Some("aborted"),
        }
    }
}

/// The values of [`Facts::reset_reason`].
pub const RESET_REASONS: [&str; 5] = ["unread-data", "linger-0", "killed", "after-close", "aborted"];

/// An errno's name, or its number if it has none.
pub fn errno(number: i32) -> String {
    conn::ErrorName(number).to_string()
}

fn ms(us: u64) -> Ms {
    Ms(us)
}

/// Microseconds as milliseconds.
struct Ms(u64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", Fixed(self.0 as f64 / 1000.0, 1))
    }
}

fn bytes(count: u32) -> Count {
    self::count(count, "byte", "bytes")
}

fn count(count: u32, one: &'static str, many: &'static str) -> Count {
    Count(count, if count == 1 { one } else { many })
}

/// So many of what the word says.
struct Count(u32, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, word) = *self;
        write!(f, "{count} {word}")
    }
}

#[cfg(test)]
mod tests {
    use netbcc_common::tcpwhy::{CLOSED_HERE, Conn};
    use zerocopy::FromZeros as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A client's connection that ended well after 10 s, of which 20 ms were the handshake.
    fn ended() -> Event {
        let conn = Conn {
            birth_ns: 990 * SECOND,
            established_ns: 990 * SECOND + 20_000_000,
            closing_ns: 999 * SECOND,
            flags: CLIENT | CLOSED_HERE,
            ..Conn::default()
        };
        Event {
            ts_ns: 1000 * SECOND,
            jiffies: (1 << 32) + 250 * 700,
            conn,
            state: state::FIN_WAIT2,
            bits: SHUT | DEAD | DONE,
            data_segs_out: 100,
            bytes_sent: 1000,
            bytes_received: 1000,
            rtt_min_us: 1000,
            srtt_us_8: 8000,
            ..Event::new_zeroed()
        }
    }

    fn says(event: &Event) -> String {
        let facts = Facts { event: *event, slow_us: 1_000_000, jiffy_us: 4000, since_ns: 0, refused: None };
        let (nth, evidence) = facts.verdict();
        format!("{}: {evidence}", WORDS[nth])
    }

    #[test]
    fn what_traffic_hardly_makes_has_its_verdict() {
        let conn = ended().conn;
        let cases = [
            (ended(), "ok: we closed first"),
            // What the kernel keeps in its place waits for the other end's FIN.
            (Event { bits: SHUT | DEAD, ..ended() }, "ok: we closed first"),
            (
                Event { bits: SHUT | LINGER, ..ended() },
                "reset-sent: closed in FIN_WAIT2 with SO_LINGER 0; 0 bytes unsent",
            ),
            (
                Event { bits: SHUT, unread: 10, ..ended() },
                "reset-sent: closed in FIN_WAIT2 with 10 bytes unread",
            ),
            (Event { bits: 0, ..ended() }, "reset-sent: aborted by its program in FIN_WAIT2, not by close()"),
            (
                Event { conn: Conn { established_ns: conn.birth_ns + 2 * SECOND, ..conn }, ..ended() },
                "slow-connect: answered 2000.0 ms after connect()",
            ),
            (
                Event { srtt_us_8: 200_000 << 3, ..ended() },
                "rtt-inflated: RTT 200.0 ms at the end, minimum 1.0 ms",
            ),
            (
                Event { busy: [100, 400, 0], ..ended() },
                "reader-slow-peer: limited by the peer's window for 1600.0 ms of 2000.0 ms busy",
            ),
            (
                Event { busy: [100, 0, 400], ..ended() },
                "buffer-small: limited by our send buffer for 1600.0 ms of 2000.0 ms busy",
            ),
            (
                Event {
                    state: state::ESTABLISHED,
                    error: 110,
                    probes: 3,
                    last_data_sent: 250 * 700 - 250,
                    ..ended()
                },
                "timed-out: keepalive: 3 probes unanswered, idle for 1000.0 ms",
            ),
            (
                Event {
                    state: state::ESTABLISHED,
                    error: 110,
                    unacked: 1,
                    timeouts: 5,
                    user_timeout_ms: 500,
                    last_data_sent: 250 * 700 - 250,
                    ..ended()
                },
                "timed-out: TCP_USER_TIMEOUT of 500 ms: 1 byte unacknowledged after 5 timeouts, 1000.0 ms after the last data",
            ),
            (
                Event { state: state::ESTABLISHED, error: 113, ..ended() },
                "unreachable: EHOSTUNREACH in ESTABLISHED, 10000.0 ms after it began; 0 segments were resent",
            ),
            (
                Event { state: state::ESTABLISHED, error: 103, ..ended() },
                "reset-sent: aborted from outside in ESTABLISHED (ECONNABORTED)",
            ),
            (Event { error: 5, ..ended() }, "unknown: EIO in FIN_WAIT2"),
            // Lost was one of two, of a hundred; what came twice was not.
            (
                Event { conn: Conn { fast: 2, ..conn }, retrans: 2, dsack_dups: 1, ..ended() },
                "ok: we closed first",
            ),
            (
                Event { conn: Conn { fast: 3, ..conn }, retrans: 3, dsack_dups: 1, ..ended() },
                "loss: 3 segments of 100 resent (3 fast); 1 came twice",
            ),
        ];
        for (event, expected) in cases {
            assert_eq!(says(&event), expected);
        }
    }

    #[test]
    fn nothing_is_slow_at_zero() {
        let conn = ended().conn;
        let event = Event { conn: Conn { established_ns: conn.birth_ns + 5 * SECOND, ..conn }, ..ended() };
        assert_eq!(
            WORDS[Facts { event, slow_us: 0, jiffy_us: 4000, since_ns: 0, refused: None }.verdict().0],
            "ok"
        );
    }

    #[test]
    fn every_word_is_there_once_and_the_last_is_ok() {
        let mut words = WORDS.to_vec();
        assert_eq!(words.pop(), Some("ok"));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), RULES.len() - 1);
        assert!(RULES.iter().all(|rule| rule.when.ends_with('.')));
    }
}
