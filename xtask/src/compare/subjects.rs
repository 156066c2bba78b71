//! The tools that are compared, and how.

use super::traffic::Traffic;

/// A tool, its arguments, and what its rows are made of.
pub(super) struct Subject {
    pub(super) tool: &'static str,
    /// For both.
    pub(super) args: &'static [&'static str],
    pub(super) traffic: Traffic,
    /// What comes before the rows: the newest BCC's bytes. The last line names the columns.
    pub(super) head: &'static [&'static str],
    /// The columns that say to which connection a row belongs; within it, order counts.
    pub(super) connection: &'static [&'static str],
    /// The columns that measure.
    pub(super) measured: &'static [(&'static str, Measure)],
}

/// How alike two measurements of the same are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// Since the first row that is compared, within this.
    Since(f64),
    /// Within this.
    Span(f64),
    /// Seconds of the wall's clock, within this: each tool reads it when it prints.
    Clock(f64),
}

/// Every tool that is covered.
pub(super) const SUBJECTS: &[Subject] = &[
    Subject {
        tool: "tcpconnect",
        args: &["-tUL"],
        traffic: Traffic::Connections,
        head: &[
            "Tracing connect ... Hit Ctrl-C to end",
            "TIME(s)  UID   PID     COMM         IP SADDR            LPORT  DADDR            DPORT ",
        ],
        connection: &["SADDR", "LPORT", "DADDR", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
    },
    Subject {
        tool: "tcpaccept",
        args: &["-t"],
        traffic: Traffic::Connections,
        head: &["TIME(s)  PID     COMM         IP RADDR            RPORT LADDR            LPORT"],
        connection: &["RADDR", "RPORT", "LADDR", "LPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
    },
    Subject {
        tool: "tcplife",
        args: &["-t"],
        traffic: Traffic::Connections,
        head: &["TIME(s)   PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS"],
        connection: &["LADDR", "LPORT", "RADDR", "RPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("MS", Measure::Span(20.0))],
    },
    Subject {
        tool: "tcptracer",
        args: &["-t"],
        traffic: Traffic::Connections,
        head: &[
            "Tracing TCP established connections. Ctrl-C to end.",
            "TIME(s)  T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT ",
        ],
        connection: &["SADDR", "DADDR", "SPORT", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
    },
    Subject {
        tool: "tcpstates",
        args: &["-t"],
        traffic: Traffic::Connections,
        head: &[
            "TIME(s)   SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> \
             NEWSTATE    MS",
        ],
        // Not the ports: a socket has none in its first row.
        connection: &["SKADDR"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("MS", Measure::Span(20.0))],
    },
    Subject {
        tool: "tcpconnlat",
        args: &["-tL"],
        traffic: Traffic::Connections,
        head: &["TIME(s)  PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)"],
        connection: &["SADDR", "LPORT", "DADDR", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("LAT(ms)", Measure::Span(20.0))],
    },
    Subject {
        tool: "solisten",
        args: &["--show-netns"],
        traffic: Traffic::Connections,
        head: &[
            "PID     COMM         NETNS        PROTO  BACKLOG  PORT  ADDR                                   ",
        ],
        connection: &["PORT", "ADDR"],
        measured: &[],
    },
    Subject {
        tool: "tcpretrans",
        args: &["-s"],
        traffic: Traffic::Retransmits,
        head: &[
            "Tracing retransmits ... Hit Ctrl-C to end",
            "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE        SEQ       ",
        ],
        connection: &["LADDR:LPORT", "RADDR:RPORT"],
        measured: &[("TIME", Measure::Clock(3.0))],
    },
];

impl Subject {
    /// The columns' names.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        self.head.last().map_or_else(Vec::new, |line| line.split_whitespace().collect())
    }
}
