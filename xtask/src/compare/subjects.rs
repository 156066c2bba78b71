//! The tools that are compared, and how.

use super::libbpf::Libbpf;
use super::sums::{self, Sums};
use super::traffic::Traffic;

/// A tool, its arguments, and what its rows are made of.
pub(super) struct Subject {
    pub(super) tool: &'static str,
    /// For BCC's and netbcc's.
    pub(super) args: &'static [&'static str],
    pub(super) traffic: Traffic,
    pub(super) form: Form,
    /// What is not a row: the newest BCC's bytes. Where rows come as things happen, the last line names the columns.
    pub(super) head: &'static [&'static str],
    /// The columns that say to which connection a row belongs; within it, order counts.
    pub(super) connection: &'static [&'static str],
    /// The columns that measure.
    pub(super) measured: &'static [(&'static str, Measure)],
    /// Where Debian's BCC prints something else than the newest.
    pub(super) older: Option<Older>,
    /// The same tool of libbpf-tools, if there is one.
    pub(super) libbpf: Option<Libbpf>,
    /// Why Debian's BCC has no such tool that runs: it is then held against libbpf-tools only.
    pub(super) without_bcc: Option<&'static str>,
}

/// How a tool tells.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// A row for each thing that happens.
    Rows,
    /// Sums, in blocks.
    Sums(Sums),
}

/// What Debian's BCC prints otherwise than the newest BCC, whose bytes netbcc keeps to.
pub(super) struct Older {
    /// In place of [`Subject::head`].
    pub(super) head: &'static [&'static str],
    /// A line of netbcc's as Debian's BCC prints it.
    pub(super) line: fn(&str) -> String,
    pub(super) reason: &'static str,
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
    /// A count of what goes on all the time, within this part of it and [`STRAY`] more: tools begin and end one after
    /// the other.
    Near(f64),
}

/// See [`Measure::Near`].
pub(super) const STRAY: f64 = 50.0;

/// A tool with one row per thing that happens, on the same connections as the others.
const ROWS: Subject = Subject {
    tool: "",
    args: &[],
    traffic: Traffic::Connections,
    form: Form::Rows,
    head: &[],
    connection: &[],
    measured: &[],
    older: None,
    libbpf: None,
    without_bcc: None,
};

/// Every tool.
pub(super) const SUBJECTS: &[Subject] = &[
    Subject {
        tool: "tcpconnect",
        args: &["-tUL"],
        head: &[
            "Tracing connect ... Hit Ctrl-C to end",
            "TIME(s)  UID   PID     COMM         IP SADDR            LPORT  DADDR            DPORT ",
        ],
        connection: &["SADDR", "LPORT", "DADDR", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
        libbpf: Some(Libbpf { args: "-tU", ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "tcpaccept",
        args: &["-t"],
        head: &["TIME(s)  PID     COMM         IP RADDR            RPORT LADDR            LPORT"],
        connection: &["RADDR", "RPORT", "LADDR", "LPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
        ..ROWS
    },
    Subject {
        tool: "tcplife",
        args: &["-t"],
        head: &["TIME(s)   PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS"],
        connection: &["LADDR", "LPORT", "RADDR", "RPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("MS", Measure::Span(20.0))],
        libbpf: Some(Libbpf::PLAIN),
        ..ROWS
    },
    Subject {
        tool: "tcptracer",
        args: &["-t"],
        head: &[
            "Tracing TCP established connections. Ctrl-C to end.",
            "TIME(s)  T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT ",
        ],
        connection: &["SADDR", "DADDR", "SPORT", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
        libbpf: Some(Libbpf { args: "-t", ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "tcpstates",
        args: &["-t"],
        head: &[
            "TIME(s)   SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> \
             NEWSTATE    MS",
        ],
        // Not the ports: a socket has none in its first row.
        connection: &["SKADDR"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("MS", Measure::Span(20.0))],
        libbpf: Some(Libbpf { names: &[("PID", "C-PID"), ("COMM", "C-COMM")], ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "tcpconnlat",
        args: &["-tL"],
        head: &["TIME(s)  PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)"],
        connection: &["SADDR", "LPORT", "DADDR", "DPORT"],
        measured: &[("TIME(s)", Measure::Since(0.05)), ("LAT(ms)", Measure::Span(20.0))],
        libbpf: Some(Libbpf { args: "-tL", ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "solisten",
        args: &["--show-netns"],
        head: &[
            "PID     COMM         NETNS        PROTO  BACKLOG  PORT  ADDR                                   ",
        ],
        connection: &["PORT", "ADDR"],
        libbpf: Some(Libbpf { connection: Some(&["PORT"]), ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "bindsnoop",
        args: &["-twU"],
        head: &[
            "Tracing binds ... Hit Ctrl-C to end",
            "TIME(s)      UID        PID COMM         PROT ADDR                                    PORT   OPTS IF",
        ],
        connection: &["ADDR", "PORT"],
        measured: &[("TIME(s)", Measure::Since(0.05))],
        libbpf: Some(Libbpf { names: &[("OPT", "OPTS")], ..Libbpf::PLAIN }),
        ..ROWS
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
        ..ROWS
    },
    Subject {
        tool: "tcpdrop",
        traffic: Traffic::Drops,
        head: &[
            "TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)",
        ],
        connection: &["SADDR:SPORT", "DADDR:DPORT"],
        measured: &[("TIME", Measure::Clock(3.0))],
        older: Some(Older {
            head: &[
                "WARNING: tcp_drop() kernel function not found or traceable. Use tracpoint:skb:kfree_skb instead.",
                "TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)",
            ],
            line: drop_without_reason,
            reason: "BCC 0.26 does not print REASON and CODE, and functions as Python objects, the tracepoint's own too",
        }),
        ..ROWS
    },
    Subject {
        tool: "tcptop",
        args: &["-C", "3600"],
        traffic: Traffic::Transfers,
        form: Form::Sums(Sums { in_blocks: false, read: sums::tcptop }),
        head: &[
            "Tracing... Output every 3600 secs. Hit Ctrl-C to end",
            "",
            "(time) loadavg: (load)",
            "",
            "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB",
            "",
            "PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB",
        ],
        connection: &["PID", "COMM", "LADDR", "RADDR"],
        older: Some(Older {
            head: &[],
            line: quoted_name,
            reason: "BCC prints the name of a process as a Python object, cut to 12 characters with its quotes",
        }),
        libbpf: Some(Libbpf {
            args: "-C -r 100 3600",
            names: &[("LADDR6", "LADDR"), ("RADDR6", "RADDR")],
            ..Libbpf::PLAIN
        }),
        ..ROWS
    },
    Subject {
        tool: "tcpsubnet",
        args: &["-i", "3600", "127.0.0.1/32,127.1.0.0/16,127.1.2.0/24,127.9.0.0/16,0.0.0.0/0"],
        traffic: Traffic::Transfers,
        form: Form::Sums(Sums { in_blocks: false, read: sums::tcpsubnet }),
        head: &["Tracing... Output every 3600 secs. Hit Ctrl-C to end", "[(time)]"],
        ..ROWS
    },
    Subject {
        tool: "tcpcong",
        args: &["3600"],
        traffic: Traffic::Stalls,
        form: Form::Sums(Sums { in_blocks: false, read: sums::tcpcong }),
        head: &[
            "Tracing tcp congestion control status duration... Hit Ctrl-C to end.",
            "",
            "LAddrPort            RAddrPort             Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs ",
            "LAddrPort6                       RAddrPort6                       Open_ms Dod_ms Rcov_ms Cwr_ms  Los_ms Chgs ",
        ],
        ..ROWS
    },
    Subject {
        tool: "tcprtt",
        args: &["-B", "-i", "3600"],
        traffic: Traffic::Transfers,
        form: Form::Sums(Sums { in_blocks: false, read: sums::tcprtt }),
        head: &[
            "Tracing TCP RTT... Hit Ctrl-C to end.",
            "",
            "     usecs               : count     distribution",
        ],
        without_bcc: Some(
            "BCC 0.26's does not compile with the headers of Debian's 6.1, where tcp_sk() is another macro",
        ),
        libbpf: Some(Libbpf {
            args: "-B -i 3600",
            connection: Some(&["ADDRESS"]),
            read: sums::samples_of_addresses,
            read_ours: sums::samples_of_addresses,
            ..Libbpf::PLAIN
        }),
        ..ROWS
    },
    Subject {
        tool: "softirqs",
        args: &["-C"],
        traffic: Traffic::Interrupts,
        form: Form::Sums(Sums { in_blocks: false, read: sums::softirqs }),
        head: &["Tracing soft irq events... Hit Ctrl-C to end.", "", "SOFTIRQ          TOTAL_count"],
        connection: &["SOFTIRQ"],
        measured: &[("TOTAL_count", Measure::Near(0.05))],
        older: Some(Older {
            head: &[],
            line: str::to_owned,
            reason: "BCC 0.26 puts the least first; the newest, as netbcc, the greatest",
        }),
        // It counts only as a histogram.
        libbpf: Some(Libbpf { args: "-d", read: sums::counts_of_histograms, ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "hardirqs",
        args: &["-C"],
        traffic: Traffic::Disk,
        form: Form::Sums(Sums { in_blocks: false, read: sums::softirqs }),
        head: &[
            "Tracing hard irq events... Hit Ctrl-C to end.",
            "",
            "HARDIRQ                    TOTAL_count",
        ],
        connection: &["HARDIRQ"],
        measured: &[("TOTAL_count", Measure::Near(0.05))],
        older: Some(Older {
            head: &[],
            line: str::to_owned,
            reason: "BCC 0.26 puts the least first; the newest, as netbcc, the greatest",
        }),
        // Newer ones mean something else by -C.
        libbpf: Some(Libbpf { args: "-d", read: sums::counts_of_handlers, ..Libbpf::PLAIN }),
        ..ROWS
    },
    Subject {
        tool: "tcpsynbl",
        traffic: Traffic::Waiting,
        form: Form::Sums(Sums { in_blocks: false, read: sums::tcpsynbl }),
        head: &[
            "Tracing SYN backlog size. Ctrl-C to end.",
            "",
            "     backlog             : count     distribution",
        ],
        libbpf: Some(Libbpf {
            connection: Some(&["LIMIT"]),
            read: sums::samples_of_limits,
            read_ours: sums::samples_of_limits,
            ..Libbpf::PLAIN
        }),
        ..ROWS
    },
    Subject {
        tool: "netqtop",
        args: &["-n", "nq0", "-i", "15"],
        traffic: Traffic::Queues,
        form: Form::Sums(Sums { in_blocks: true, read: sums::netqtop }),
        head: &[
            "(time)",
            "TX",
            " QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) ",
            "",
            "RX",
            " QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) ",
            "-----------------------------------------------------------------------------",
        ],
        ..ROWS
    },
];

impl Subject {
    /// The names of the columns that both have.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let older = self.older.as_ref().and_then(|older| older.head.last());
        older.or(self.head.last()).map_or_else(Vec::new, |line| line.split_whitespace().collect())
    }

    /// How a column measures.
    pub(super) fn measure(&self, column: &str) -> Option<Measure> {
        self.measured.iter().find(|measured| measured.0 == column).map(|measured| measured.1)
    }
}

/// tcpdrop's row without its last column.
fn drop_without_reason(line: &str) -> String {
    line.split_inclusive(')').next().unwrap_or(line).to_owned()
}

/// tcptop's row with the name of the process as Python shows bytes.
fn quoted_name(line: &str) -> String {
    let cells: Vec<&str> = line.split_whitespace().collect();
    if cells.len() != 6 || !line.starts_with(|first: char| first.is_ascii_digit()) {
        return line.to_owned();
    }
    format!("{}{:<12.12}{}", &line[..8], format!("b'{}'", cells[1]), &line[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_every_tool() {
        assert_eq!(SUBJECTS.len(), 18);
    }

    #[test]
    fn older_lines_are_what_debians_bcc_prints() {
        let line = "14:46:49 0       4  39.156.66.10:80      > 10.211.55.10:33280   SYN_SENT (SYN|ACK)   NETFILTER_DROP (12)";
        let older = "14:46:49 0       4  39.156.66.10:80      > 10.211.55.10:33280   SYN_SENT (SYN|ACK)";
        assert_eq!(drop_without_reason(line), older);
        let line = "16647   sshd         100.66.3.172:22       100.127.69.165:6684        0   2149";
        let older = "16647   b'sshd'      100.66.3.172:22       100.127.69.165:6684        0   2149";
        assert_eq!(quoted_name(line), older);
        let line = "16647   abcdefghijkl 100.66.3.172:22       100.127.69.165:6684        0   2149";
        let older = "16647   b'abcdefghij 100.66.3.172:22       100.127.69.165:6684        0   2149";
        assert_eq!(quoted_name(line), older);
        assert_eq!(quoted_name("10:00:00 loadavg: 1"), "10:00:00 loadavg: 1");
    }
}
