//! What the benchmark measures: tools, their traffic, their budgets, and what their peers cost.

use crate::load::Load;

/// A tool with its arguments, under a load.
pub(crate) struct Subject {
    pub(crate) tool: &'static str,
    /// Its arguments.
    pub(crate) args: fn() -> String,
    /// What the table says of them.
    pub(crate) variant: &'static str,
    pub(crate) load: Load,
    /// Forces a rung (`NETBCC_ATTACH`).
    pub(crate) rung: Option<&'static str>,
    /// Instructions per operation that it may cost.
    pub(crate) budget: Option<Budget>,
    /// How libbpf-tools' tool is called for the same, if there is one.
    pub(crate) libbpf: Option<&'static str>,
    /// What BCC's tool cost when it was measured: instructions per operation.
    pub(crate) bcc: Option<i64>,
}

/// What a tool may cost.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    /// Instructions per operation.
    Operation(i64),
    /// Instructions per row.
    Row(i64),
    /// Nothing: what it looks for does not happen.
    Nothing,
}

/// A tool without arguments, under a load, on the rung that it takes by itself.
const fn plain(tool: &'static str, load: Load) -> Subject {
    Subject { tool, args: String::new, variant: "", load, rung: None, budget: None, libbpf: None, bcc: None }
}

/// One that is not to cost anything.
const fn idle(tool: &'static str, args: fn() -> String, variant: &'static str) -> Subject {
    Subject { args, variant, budget: Some(Budget::Nothing), ..plain(tool, Load::Connects) }
}

/// Budgets: a fifth of what libbpf-tools' tool was measured to cost, where it has a tool of events; a twelfth of BCC's
/// where only that has it; the rest as set for each.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        budget: Some(Budget::Operation(20_800 / 5)),
        libbpf: Some(""),
        bcc: Some(52_900),
        ..plain("tcpconnect", Load::Connects)
    },
    Subject { args: || "-d".to_owned(), variant: "-d", ..plain("tcpconnect", Load::Connects) },
    Subject { args: || "-d".to_owned(), variant: "-d", ..plain("tcpconnect", Load::Questions) },
    Subject { args: plus_container, variant: "-o +container", ..plain("tcpconnect", Load::Connects) },
    Subject {
        budget: Some(Budget::Operation(52_000 / 12)),
        bcc: Some(52_000),
        ..plain("tcpaccept", Load::Connects)
    },
    Subject {
        budget: Some(Budget::Operation(22_500 / 5)),
        libbpf: Some(""),
        ..plain("tcpconnlat", Load::Connects)
    },
    Subject {
        budget: Some(Budget::Operation(55_000 / 5)),
        libbpf: Some(""),
        bcc: Some(104_500),
        ..plain("tcplife", Load::Connects)
    },
    Subject {
        budget: Some(Budget::Operation(102_000 / 5)),
        libbpf: Some(""),
        bcc: Some(110_100),
        ..plain("tcpstates", Load::Resets)
    },
    // The same per row, for connections of more rows.
    Subject {
        budget: Some(Budget::Row(102_000 / 5 / 6)),
        libbpf: Some(""),
        ..plain("tcpstates", Load::Connects)
    },
    Subject {
        budget: Some(Budget::Operation(92_500 / 5)),
        libbpf: Some(""),
        bcc: Some(115_500),
        ..plain("tcptracer", Load::Connects)
    },
    Subject {
        budget: Some(Budget::Operation(17_500 / 5)),
        libbpf: Some(""),
        ..plain("solisten", Load::Listens)
    },
    // Each listens on a port that it binds first.
    Subject { budget: Some(Budget::Operation(20_000 / 5)), ..plain("bindsnoop", Load::Listens) },
    Subject {
        args: || "-a".to_owned(),
        variant: "-a",
        budget: Some(Budget::Operation(15_000)),
        ..plain("tcpwhy", Load::Connects)
    },
    Subject { budget: Some(Budget::Operation(8_000)), ..plain("tcpwhy", Load::Connects) },
    Subject { budget: Some(Budget::Operation(40_000)), ..plain("tcpreset", Load::Resets) },
    plain("tcpretrans", Load::Retransmits),
    Subject { budget: Some(Budget::Operation(15_000)), ..plain("tcpdrop", Load::Drops) },
    Subject { args: || "--no-stack".to_owned(), variant: "--no-stack", ..plain("tcpdrop", Load::Drops) },
    Subject {
        args: || "-C 1".to_owned(),
        variant: "-C 1",
        budget: Some(Budget::Operation(1000)),
        libbpf: Some("-C 1"),
        bcc: Some(3850),
        ..plain("tcptop", Load::Sends)
    },
    Subject {
        args: || "-i 3600".to_owned(),
        variant: "5 subnets",
        budget: Some(Budget::Operation(350)),
        bcc: Some(690),
        ..plain("tcpsubnet", Load::Sends)
    },
    Subject {
        args: many_subnets,
        variant: "5000 subnets",
        budget: Some(Budget::Operation(350)),
        ..plain("tcpsubnet", Load::Sends)
    },
    Subject {
        args: many_subnets,
        variant: "5000 subnets, kprobes",
        rung: Some("kprobe"),
        ..plain("tcpsubnet", Load::Sends)
    },
    Subject {
        args: || "1".to_owned(),
        variant: "1",
        budget: Some(Budget::Operation(350)),
        libbpf: Some("1"),
        ..plain("softirqs", Load::Sends)
    },
    Subject {
        args: || "1".to_owned(),
        variant: "1",
        budget: Some(Budget::Operation(350)),
        libbpf: Some("1"),
        bcc: Some(1800),
        ..plain("softirqs", Load::Datagrams)
    },
    // Of a datagram: a raise, a handler's start and its end.
    Subject {
        budget: Some(Budget::Operation(600)),
        libbpf: Some(""),
        ..plain("softirqslower", Load::Datagrams)
    },
    Subject {
        args: || "--stage run".to_owned(),
        variant: "--stage run",
        ..plain("softirqslower", Load::Datagrams)
    },
    // Two segments that an established connection receives: data, and its acknowledgement. Most of what is left is the way into
    // a program.
    Subject {
        args: || "-i 3600".to_owned(),
        variant: "-i 3600",
        budget: Some(Budget::Operation(400)),
        libbpf: Some("-i 3600"),
        ..plain("tcprtt", Load::Sends)
    },
    // A look into a table for each of them.
    Subject {
        args: || "-B -i 3600".to_owned(),
        variant: "-B -i 3600",
        budget: Some(Budget::Operation(1000)),
        libbpf: Some("-B -i 3600"),
        ..plain("tcprtt", Load::Sends)
    },
    // A segment with data, its read, and a row.
    Subject { budget: Some(Budget::Operation(4000)), libbpf: Some(""), ..plain("tcppktlat", Load::Sends) },
    // A segment with data and its read, without a row.
    Subject {
        args: || "60000000".to_owned(),
        variant: "60000000",
        budget: Some(Budget::Operation(1200)),
        libbpf: Some("60000000"),
        ..plain("tcppktlat", Load::Sends)
    },
    // What is kept with both sockets, and a program at each of their ten changes of state.
    Subject {
        args: || "3600".to_owned(),
        variant: "3600",
        budget: Some(Budget::Operation(6500)),
        ..plain("tcpcong", Load::Connects)
    },
    // A comparison at each change of state of both ends, and at each packet that is dropped.
    Subject {
        args: || "3600".to_owned(),
        variant: "3600",
        budget: Some(Budget::Operation(2000)),
        libbpf: Some("3600"),
        ..plain("tcpsynbl", Load::Connects)
    },
    // One packet out and one in.
    Subject {
        args: queues_of_lo,
        variant: "-n lo",
        budget: Some(Budget::Operation(400)),
        bcc: Some(2000),
        ..plain("netqtop", Load::Datagrams)
    },
    Subject {
        args: queues_of_lo,
        variant: "-n lo, raw_tp",
        rung: Some("raw_tp"),
        ..plain("netqtop", Load::Datagrams)
    },
    // Nothing here interrupts but timers, which have no handler.
    idle("hardirqs", || "1".to_owned(), "1"),
    idle("tcpretrans", String::new, ""),
    idle("tcpretrans", || "-l".to_owned(), "-l"),
    idle("tcpdrop", String::new, ""),
    idle("solisten", String::new, ""),
    idle("bindsnoop", String::new, ""),
    // Nobody looks up a name.
    idle("gethostlatency", String::new, ""),
    // Another process connects, which is not asked for.
    idle("tcpconnlat", || "-p 1".to_owned(), "-p 1"),
];

fn plus_container() -> String {
    "-o +container".to_owned()
}

fn queues_of_lo() -> String {
    "-n lo -i 3600".to_owned()
}

/// 5000 subnets, and that of the traffic at their end.
fn many_subnets() -> String {
    let subnet = |nth: u32| format!("127.{}.{}.0/24", 1 + nth % 200, nth / 200);
    let others: Vec<String> = (0..5000).map(subnet).collect();
    format!("-i 3600 {},127.0.0.1/32", others.join(","))
}

impl Subject {
    /// Operations per measurement.
    pub(crate) fn count(&self) -> u32 {
        match self.load {
            Load::Connects | Load::Resets => 3000,
            Load::Listens | Load::Questions => 6000,
            Load::Sends | Load::Datagrams => 20_000,
            Load::Drops => 4000,
            Load::Retransmits => 500,
        }
    }

    /// The tool and its variant.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.tool, self.variant).trim_end().to_owned()
    }
}
