//! bindsnoop: one row per bind() of an IPv4 or IPv6 socket of any protocol: who, where, with which socket options.
//!
//! Events: `probes-ebpf/src/bin/bindsnoop.rs`, from `inet_bind`, `inet6_bind` and `mptcp_bind`, or from the result of the
//! system call. They come at the end of the call, so a port that the kernel chose is shown.
//!
//! BCC: OPTS is wrong there since Linux 6.6. Its rows of failed calls have the address 0.0.0.0 and port 0, because the kernel
//! has taken them back; here they have what was asked for. Multicast and broadcast addresses are 0.0.0.0 there.
//!
//! ```text
//! # netbcc bindsnoop
//! Tracing binds ... Hit Ctrl-C to end
//!      PID COMM         PROT ADDR            PORT   OPTS IF
//!    31536 python3      TCP  127.0.0.1        8080 ...R.  0
//! ```

use std::cmp::Reverse;
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use netbcc_common::bindsnoop::{Config, Event, Key, option};
use netbcc_common::kernel::Func;
use nix::errno::Errno;
use nix::libc::SYS_bind;
use zerocopy::FromBytes as _;

use super::{conn, object};
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fexit, kprobe, kretprobe, tp_btf};
use crate::options::{Containers, Json, Pid, Ports, Timestamp, Uid, Verbose, ports, select};
use crate::out::{
    About, Cell, Format, Kind, Of, Process, Rows, SocketFact, Table, address, data, left, right, seconds,
};
use crate::probe::{Batch, Plan, Probe};
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Bindsnoop;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    seconds: Timestamp,
    /// Wide columns: whole IPv6 addresses and names of protocols, with -E the error's text
    #[arg(short, long, help_heading = "Output")]
    wide: bool,
    #[command(flatten)]
    pid: Pid,
    /// These local ports only, comma-separated; 0: none was chosen yet
    #[arg(short = 'P', long, alias = "ports", value_name = "PORT", value_parser = ports, help_heading = "Filters")]
    port: Vec<Ports>,
    /// Failed calls, too, and what each call returned
    #[arg(short = 'E', long, short_alias = 'x', alias = "failed", help_heading = "Output")]
    errors: bool,
    /// Add the user id (rows)
    #[arg(short = 'U', long, help_heading = "Output")]
    print_uid: bool,
    #[command(flatten)]
    uid: Uid,
    /// Count calls per address and port, print the table at the end
    #[arg(long, help_heading = "Output")]
    count: bool,
    #[command(flatten)]
    containers: Containers,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Bindsnoop {
    const SPEC: Spec = Spec {
        name: "bindsnoop",
        about: "Trace IPv4 and IPv6 binds (bind())",
        description: &[
            "Prints a row for each call of bind() on an IPv4 or IPv6 socket of any protocol, when the call is over: who \
             called, the address and port that the socket has now, the socket options that decide whether a bind \
             succeeds, and the interface that the socket is bound to. A port that connect(), sendto() or listen() lets \
             the kernel choose is no bind.",
            "OPTS has a letter, or a dot, for each of: F IP_FREEBIND, T IP_TRANSPARENT, N IP_BIND_ADDRESS_NO_PORT, \
             R SO_REUSEADDR, r SO_REUSEPORT. The port of a raw socket is its IP protocol, that of a ping socket its ICMP \
             identifier.",
            "With -E failed calls are rows, too, with the address and port that were asked for, on which -P, --lport and \
             --laddr are tested then. Use -w for IPv6: without it addresses are cut to 15 characters, and names of \
             protocols to four.",
        ],
        examples: &[
            ("bindsnoop", "all binds that succeed"),
            ("bindsnoop -t", "with seconds since the first row"),
            ("bindsnoop -E", "failed calls, too, with what was asked for"),
            ("bindsnoop -wE", "wide columns, and errors as text"),
            ("bindsnoop -p 181", "process 181 only"),
            ("bindsnoop -P 80,81", "local ports 80 and 81 only"),
            ("bindsnoop -U", "with the user id"),
            ("bindsnoop -u 1000", "user 1000 only"),
            ("bindsnoop --count", "count per address and port until Ctrl-C"),
            ("bindsnoop --cgroupmap /sys/fs/bpf/m", "only cgroups in this map"),
            ("bindsnoop --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per bind(), none per connection or packet. Where the kernel has neither fentry nor \
                   kprobes, one of a few instructions at the end of each system call, and the kernel traces every system \
                   call of every process meanwhile.",
        differences: &[
            "OPTS is right on Linux 6.6 and later.",
            "A failed call shows the address and port that were asked for, which -P looks at, too.",
            "The address of a multicast or broadcast bind is shown in rows, not only counted.",
            "An MPTCP socket is one row with its own protocol, on every kernel.",
            "-E with -w has the error's text, not 'Unknown error'.",
            "-p 0 is refused: no process has this number.",
        ],
        refuses: &[(&[select::RADDR, select::RPORT], "a bind has no other end")],
        object: object!("bindsnoop"),
        ladders: &[BINDS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![
            Rows::new("Binds", table(args)).used_if(!args.count),
            Rows::new("Counts, with --count", count_table(args)).used_if(args.count),
        ]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.json.format());
        let asks = if args.count { 0 } else { table(&args).asks_of_sockets(&cx.out) };
        let mut plan = Plan::new(cx)
            .socket_facts(asks)
            .ladder(&BINDS)
            .lports(&args.port)
            .containers(&args.containers)?
            .enumeration(FREEBIND);
        let flags = plan.known()?.members_of(FREEBIND);
        let bit = |name: &str| flags.iter().find(|(_, flag)| flag == name).map_or(0, |(bit, _)| *bit);
        let config = Config {
            bind: SYS_bind.cast_unsigned(),
            errors: args.errors.into(),
            count: args.count.into(),
            freebind: bit(FREEBIND),
            transparent: bit("INET_FLAGS_TRANSPARENT"),
            no_port: bit("INET_FLAGS_BIND_ADDRESS_NO_PORT"),
            zero: 0,
        };
        let probe = plan.global("CONFIG", &config).attach(cx)?;
        cx.out.line("Tracing binds ... Hit Ctrl-C to end");
        if args.count { count(&args, cx, probe) } else { rows(&args, cx, probe) }
    }
}

/// A member of the enum that numbers the bits of `inet_flags`, which has no name (Linux 6.6).
const FREEBIND: &str = "INET_FLAGS_FREEBIND";

const BINDS: Ladder = Ladder {
    name: "binds",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fexit("v4_fexit", "inet_bind").arity(Func::InetBind, 3).twice(),
                fexit("v6_fexit", "inet6_bind").arity(Func::Inet6Bind, 3).when(Need::V6Kernel).twice(),
                fexit("mptcp_fexit", "mptcp_bind").arity(Func::MptcpBind, 3).when(Need::IfThere).twice(),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("v4_kprobe", "inet_bind").arity(Func::InetBind, 3),
                kretprobe("v4_kretprobe", "inet_bind").arity(Func::InetBind, 3),
                kprobe("v6_kprobe", "inet6_bind").arity(Func::Inet6Bind, 3).when(Need::V6Kernel),
                kretprobe("v6_kretprobe", "inet6_bind").arity(Func::Inet6Bind, 3).when(Need::V6Kernel),
                kprobe("mptcp_kprobe", "mptcp_bind").arity(Func::MptcpBind, 3).when(Need::IfThere),
                kretprobe("mptcp_kretprobe", "mptcp_bind").arity(Func::MptcpBind, 3).when(Need::IfThere),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("exit_tp", "sys_exit")],
            less_exact: Some(
                LessExact::new("binds by io_uring, 32-bit programs and the kernel itself are not seen").detail(
                    "Nor is one whose descriptor another thread closes before bind() returns. With -E there are also \
                     calls that were refused before the protocol was asked, by a security module for example. Meanwhile \
                     the kernel traces every system call of every process.",
                ),
            ),
        },
    ],
};

/// What is printed of an event.
pub struct Row {
    bind: Of<Event>,
    addr: String,
    asked_addr: String,
    options: [u8; 5],
    error: String,
}

impl From<Of<Event>> for Row {
    fn from(bind: Of<Event>) -> Self {
        let letter = |letter: u8, mask: u16| if bind.options & mask != 0 { letter } else { b'.' };
        let options = [
            letter(b'F', option::FREEBIND),
            letter(b'T', option::TRANSPARENT),
            letter(b'N', option::NO_PORT),
            letter(b'R', option::REUSEADDR),
            letter(b'r', option::REUSEPORT),
        ];
        Self {
            addr: address(conn::ip(bind.addr_family, &bind.addr)),
            asked_addr: address(conn::ip(bind.asked_family, &bind.asked_addr)),
            options,
            error: error_text(bind.error),
            bind,
        }
    }
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        Of::from(event).into()
    }
}

impl Row {
    fn has(&self, mask: u16) -> Cell<'_> {
        Cell::Bool(self.bind.options & mask != 0)
    }
}

const UID: About = conn::uid("The user who called it. In text with -U.");

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let wide = args.wide;
    let plain = |column: crate::out::Column<Row>| if wide { column } else { column.cut() };
    let code = if wide {
        left("RC", 25, |r: &Row| Cell::Name(r.error.as_bytes()))
    } else {
        right("RC", 3, |r: &Row| r.bind.error.into())
    };
    Table::new(args.json.format())
        .col_if(args.seconds.timestamp, seconds(9, 6))
        .col_if(
            args.print_uid,
            right("UID", 6, |r: &Row| r.bind.uid.into()).except(Format::Json).about(UID),
        )
        .col_if(args.errors, code.except(Format::Json).about(RC))
        .col(
            right("PID", if wide { 10 } else { 8 }, |r: &Row| r.bind.pid.into())
                .about(conn::pid("The process that called bind().")),
        )
        .col(data("tid", |r: &Row| r.bind.tid.into()).about(About::count("The thread that called it.").otel("thread.id")))
        .col(left("COMM", 12, |r: &Row| (&r.bind.comm).into()).cut().about(conn::COMM))
        .col(data("uid", |r: &Row| r.bind.uid.into()).about(UID))
        .col(data("ip", |r: &Row| Cell::Unsigned(conn::version(r.bind.family))).about(conn::IP))
        .col(
            data("protocol", |r: &Row| r.bind.protocol.into())
                .about(About::count("The socket's protocol, by its number.")),
        )
        .col(plain(left("PROT", 4, |r: &Row| Cell::Label(protocol(r.bind.protocol)))).about(About::text(
            "The socket's protocol, by its name; UNKNOWN if it has none here. In text cut to 4 characters without -w.",
        )))
        .col(plain(left("ADDR", if wide { 39 } else { 15 }, |r: &Row| Cell::Name(r.addr.as_bytes()))).about(ADDR))
        // Its title stands at the left of a column whose values stand at the right.
        .col(right("PORT ", 5, |r: &Row| r.bind.port.into()).key("port").about(PORT))
        .col(data("asked_addr", |r: &Row| Cell::Name(r.asked_addr.as_bytes())).about(About::new(
            Kind::Address,
            "The address asked for.",
        )))
        .col(
            data("asked_port", |r: &Row| r.bind.asked_port.into())
                .about(About::new(Kind::Port, "The port asked for.")),
        )
        .col(right("OPTS", 5, |r: &Row| Cell::Name(&r.options)).except(Format::Json).about(About::text(
            "Socket options, a letter or a dot each: F IP_FREEBIND, T IP_TRANSPARENT, N IP_BIND_ADDRESS_NO_PORT, \
             R SO_REUSEADDR, r SO_REUSEPORT.",
        )))
        .col(data("freebind", |r: &Row| r.has(option::FREEBIND)).about(About::new(Kind::Bool, "IP_FREEBIND.")))
        .col(
            data("transparent", |r: &Row| r.has(option::TRANSPARENT))
                .about(About::new(Kind::Bool, "IP_TRANSPARENT.")),
        )
        .col(
            data("no_port", |r: &Row| r.has(option::NO_PORT))
                .about(About::new(Kind::Bool, "IP_BIND_ADDRESS_NO_PORT.")),
        )
        .col(
            data("reuseaddr", |r: &Row| r.has(option::REUSEADDR))
                .about(About::new(Kind::Bool, "SO_REUSEADDR.")),
        )
        .col(
            data("reuseport", |r: &Row| r.has(option::REUSEPORT))
                .about(About::new(Kind::Bool, "SO_REUSEPORT.")),
        )
        .col(right("IF", 2, |r: &Row| r.bind.ifindex.into()).key("ifindex").about(About::new(
            Kind::Integer,
            "The number of the interface that the socket is bound to; 0: none.",
        )))
        .col(data("errno", |r: &Row| error_cell(r.bind.error)).about(About::new(
            Kind::WordOrNumber(&ERROR_NAMES),
            "Why it failed, by name; 0: it did not.",
        )))
        .col(data("netns", |r: &Row| r.bind.netns.into()).about(conn::NETNS))
        .process(|r| Process::now(r.bind.pid).named(&r.bind.comm))
        .socket(args.json.json.is_some(), &[SocketFact::Cookie], |r| &r.bind.facts)
}

const RC: About =
    About::text("With -E: what bind() returned, 0 or a negative errno; with -w the error's text.");

const ADDR: About = About::new(
    Kind::Address,
    "The socket's local address, of a call that failed the one asked for. In text cut to 15 characters without -w.",
)
.otel("network.local.address");

const PORT: About =
    About::new(Kind::Port, "The socket's local port, of a call that failed the one asked for; 0: none yet.")
        .otel("network.local.port");

fn rows(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    let table = table(args);
    cx.out.header(&table);
    probe.stream(cx, |cx: &mut Ctx, batch: &Batch| {
        for event in batch.events_with_facts::<Event>().map(Of::new) {
            cx.out.row(&table, event.ts_ns, &Row::from(event));
        }
        Ok(None)
    })
}

/// An address with its port, and how often it was bound.
pub struct Count {
    /// Where.
    pub key: Key,
    /// How often.
    pub binds: u64,
}

impl Count {
    fn addr(&self) -> IpAddr {
        conn::ip(self.key.family, &self.key.addr)
    }
}

/// The columns of `--count`.
pub fn count_table(args: &Options) -> Table<Count> {
    Table::new(args.json.format())
        .col(left("LADDR", 32, |c: &Count| c.addr().into()).key("addr").about(conn::LADDR))
        .col(right("LPORT", 20, |c: &Count| c.key.port.into()).gap("     ").key("port").about(conn::LPORT))
        .col(
            left("BINDS", 10, |c: &Count| c.binds.into()).key("count").about(About::count("How many calls.")),
        )
}

fn count(args: &Options, cx: &mut Ctx, mut probe: Probe) -> Result<()> {
    probe.stream(cx, |_: &mut Ctx, _: &Batch| Ok(None))?;
    let mut counts: Vec<Count> = probe
        .counts::<{ size_of::<Key>() }>("BINDS")?
        .into_iter()
        .filter_map(|(key, binds)| Some(Count { key: Key::read_from_bytes(&key).ok()?, binds }))
        .collect();
    sort_counts(&mut counts);
    let table = count_table(args);
    cx.out.line("");
    cx.out.header(&table);
    let now_ns = cx.out.clock().monotonic_ns();
    for count in &counts {
        cx.out.row(&table, now_ns, count);
    }
    Ok(())
}

/// IPv4 before IPv6, then by count, most first; addresses decide ties.
fn sort_counts(counts: &mut [Count]) {
    counts.sort_by_key(|count| (count.key.family, Reverse(count.binds), count.addr(), count.key.port));
}

/// The name of an IP protocol, as Python's `socket` has them.
fn protocol(number: u16) -> &'static str {
    match number {
        0 => "IP",
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        8 => "EGP",
        12 => "PUP",
        17 => "UDP",
        22 => "IDP",
        29 => "TP",
        41 => "IPV6",
        43 => "ROUTING",
        44 => "FRAGMENT",
        46 => "RSVP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPV6",
        59 => "NONE",
        60 => "DSTOPTS",
        103 => "PIM",
        132 => "SCTP",
        136 => "UDPLITE",
        255 => "RAW",
        262 => "MPTCP",
        _ => "UNKNOWN",
    }
}

/// What bind() fails with, and what glibc says of it: the C library of this program has other words.
const ERRORS: [(i32, &str, &str); 30] = [
    (1, "EPERM", "Operation not permitted"),
    (2, "ENOENT", "No such file or directory"),
    (4, "EINTR", "Interrupted system call"),
    (5, "EIO", "Input/output error"),
    (6, "ENXIO", "No such device or address"),
    (9, "EBADF", "Bad file descriptor"),
    (11, "EAGAIN", "Resource temporarily unavailable"),
    (12, "ENOMEM", "Cannot allocate memory"),
    (13, "EACCES", "Permission denied"),
    (14, "EFAULT", "Bad address"),
    (16, "EBUSY", "Device or resource busy"),
    (17, "EEXIST", "File exists"),
    (19, "ENODEV", "No such device"),
    (22, "EINVAL", "Invalid argument"),
    (28, "ENOSPC", "No space left on device"),
    (34, "ERANGE", "Numerical result out of range"),
    (38, "ENOSYS", "Function not implemented"),
    (71, "EPROTO", "Protocol error"),
    (88, "ENOTSOCK", "Socket operation on non-socket"),
    (92, "ENOPROTOOPT", "Protocol not available"),
    (93, "EPROTONOSUPPORT", "Protocol not supported"),
    (95, "EOPNOTSUPP", "Operation not supported"),
    (97, "EAFNOSUPPORT", "Address family not supported by protocol"),
    (98, "EADDRINUSE", "Address already in use"),
    (99, "EADDRNOTAVAIL", "Cannot assign requested address"),
    (100, "ENETDOWN", "Network is down"),
    (101, "ENETUNREACH", "Network is unreachable"),
    (105, "ENOBUFS", "No buffer space available"),
    (106, "EISCONN", "Transport endpoint is already connected"),
    (107, "ENOTCONN", "Transport endpoint is not connected"),
];

/// Their names.
const ERROR_NAMES: [&str; ERRORS.len()] = {
    let mut names = [""; ERRORS.len()];
    let mut nth = 0;
    while nth < names.len() {
        names[nth] = ERRORS[nth].1;
        nth += 1;
    }
    names
};

/// Name and text of a negative errno, if it is of the table.
fn known_error(error: i32) -> Option<(&'static str, &'static str)> {
    let number = error.checked_neg()?;
    ERRORS.iter().find(|(known, ..)| *known == number).map(|&(_, name, text)| (name, text))
}

/// What glibc says of what bind() returned.
fn error_text(error: i32) -> String {
    match (error, known_error(error)) {
        (0, _) => "Success".to_owned(),
        (_, Some((_, text))) => text.to_owned(),
        _ => match Errno::from_raw(error.wrapping_neg()) {
            Errno::UnknownErrno => format!("Unknown error {}", error.wrapping_neg()),
            errno => errno.desc().to_owned(),
        },
    }
}

/// 0, the name of an error, or the number of one that is not of the table.
fn error_cell(error: i32) -> Cell<'static> {
    known_error(error).map_or(Cell::Signed(error.wrapping_neg().into()), |(name, _)| Cell::Label(name))
}
