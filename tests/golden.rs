//! Golden output: hand-made events through the tools' own columns, compared byte by byte with `fixtures/<tool>/`.
//!
//! No kernel takes part, so here are the values that real traffic does not make: the largest and the smallest
//! numbers, the longest addresses, times that round. A fixture holds one block per command line, in the order of
//! the test; `UPDATE_EXPECT=1` makes it say what the tools print.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

use clap::FromArgMatches as _;

use netbcc::out::{Clock, Format, Out, Table};
use netbcc::tool::{self, Tool};
use netbcc::tools::bindsnoop::{self, Bindsnoop};
use netbcc::tools::gethostlatency::{self, Gethostlatency};
use netbcc::tools::hardirqs::{self, Hardirqs};
use netbcc::tools::netqtop::{self, Netqtop};
use netbcc::tools::softirqs::{self, Softirqs};
use netbcc::tools::softirqslower::{self, Softirqslower};
use netbcc::tools::solisten::{self, Solisten};
use netbcc::tools::tcpaccept::{self, Tcpaccept};
use netbcc::tools::tcpcong::{self, Tcpcong};
use netbcc::tools::tcpconnect::{self, Tcpconnect};
use netbcc::tools::tcpconnlat::{self, Tcpconnlat};
use netbcc::tools::tcpdrop::{self, Tcpdrop};
use netbcc::tools::tcplife::{self, Tcplife};
use netbcc::tools::tcppktlat::{self, Tcppktlat};
use netbcc::tools::tcpreset::{self, Tcpreset};
use netbcc::tools::tcpretrans::{self, Tcpretrans};
use netbcc::tools::tcprtt::{self, Tcprtt};
use netbcc::tools::tcpstates::{self, Tcpstates};
use netbcc::tools::tcpsubnet::{self, Tcpsubnet};
use netbcc::tools::tcpsynbl::{self, Tcpsynbl};
use netbcc::tools::tcptop::{self, Tcptop};
use netbcc::tools::tcptracer::{self, Tcptracer};
use netbcc::tools::tcpwhy::{self, Tcpwhy};
use netbcc_common::Comm;
use netbcc_common::addr::{AF_INET, AF_INET6, Addr, Tuple};
use netbcc_common::socket::SocketFacts;

const SECOND: u64 = 1_000_000_000;

/// 2026-05-01T12:34:56.123456789Z, in a zone two hours east, is monotonic second 1000.
fn clock() -> Clock {
    Clock::fixed(1_777_638_896_123_456_789 - 1000 * SECOND.cast_signed(), 2)
}

fn options<T: Tool>(args: &str) -> T::Args
where
    T::Args: clap::FromArgMatches,
{
    let words = std::iter::once(T::SPEC.name).chain(args.split_whitespace());
    let matches = tool::command::<T>().try_get_matches_from(words).unwrap_or_else(|e| panic!("{args}: {e}"));
    T::Args::from_arg_matches(&matches).expect("what was parsed can be taken")
}

thread_local! {
    /// The tool whose rows are to be records of OpenTelemetry's logs.
    static OTLP: Cell<Option<&'static str>> = const { Cell::new(None) };
}

fn memory(format: Format) -> Out {
    let mut out = Out::memory(format, clock());
    if let Some(tool) = OTLP.get() {
        out.set_otlp(tool, "a \"host\"");
    }
    out
}

/// Header and rows.
fn printed<R>(format: Format, table: &Table<R>, rows: &[R], at: impl Fn(&R) -> u64) -> String {
    let mut out = memory(format);
    out.header(table);
    for row in rows {
        out.row(table, at(row), row);
    }
    out.take()
}

/// Compares the blocks with the fixture.
#[track_caller]
fn matches_fixture(tool: &str, name: &str, blocks: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(tool).join(name);
    let mut actual = String::new();
    for (args, text) in blocks {
        // In JSON there is no room for anything but objects, and one block.
        if blocks.len() > 1 {
            let _infallible = writeln!(actual, "$ {}", format!("{tool} {args}").trim_end());
        }
        actual += text;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &actual).expect("the fixture can be written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (nth, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
        assert!(
            expected == actual,
            "{}, line {}:\n  {expected:?}\nis\n  {actual:?}",
            path.display(),
            nth + 1
        );
    }
    assert_eq!(expected.len(), actual.len(), "{}: UPDATE_EXPECT=1 rewrites it", path.display());
}

fn comm(name: &[u8]) -> Comm {
    let mut comm = Comm::default();
    comm[..name.len()].copy_from_slice(name);
    comm
}

fn tuple(laddr: &str, lport: u16, raddr: &str, rport: u16) -> Tuple {
    let words = |address: &str| -> (u16, Addr) {
        match address.parse().expect("an address") {
            IpAddr::V4(ip) => (AF_INET, [u32::from_ne_bytes(ip.octets()), 0, 0, 0]),
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                let word = |nth: usize| {
                    u32::from_ne_bytes(octets[4 * nth..4 * nth + 4].try_into().expect("four bytes"))
                };
                (AF_INET6, [word(0), word(1), word(2), word(3)])
            }
        }
    };
    let ((family, laddr), (_, raddr)) = (words(laddr), words(raddr));
    Tuple { laddr, raddr, lport, rport, family, zero: 0 }
}

/// Addresses of all forms: short, longest, loopback, mapped, compatible, unspecified.
fn tuples() -> [Tuple; 7] {
    [
        tuple("127.0.0.1", 46_644, "127.0.0.1", 23),
        tuple("10.1.2.3", 1, "192.168.100.200", 65_535),
        tuple("255.255.255.255", 65_535, "203.0.113.255", 0),
        tuple("::1", 40_000, "::1", 443),
        tuple("2001:db8:1111:2222:3333:4444:5555:6666", 50_000, "fe80::1ff:fe23:4567:890a", 8080),
        tuple("::ffff:10.0.0.1", 12_345, "::ffff:10.0.0.2", 80),
        tuple("::", 0, "::1.2.3.4", 9),
    ]
}

/// Names of all kinds: ordinary, full, with blanks and separators, wide, hostile, none.
const COMMS: [&[u8]; 7] =
    [b"telnet", b"abcdefghijklmno", b"a b, \"c\"", "grüße".as_bytes(), b"\x1b[2Jrm\n", b"\xff\xfe", b""];

/// Times in ns since the first: none, less than a microsecond, one that rounds, seconds, the one before.
const TIMES: [u64; 7] =
    [0, 999, 1_499_500, SECOND + 234_567_891, 2 * SECOND, 99_999 * SECOND + 999_600_000, 3 * SECOND - 1];

fn connects() -> Vec<tcpconnect::Row> {
    let pids = [1479, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0];
    let uids = [0, 1000, 65_534, 4_294_967_294, 999_999, 5, 0];
    let queries = [
        "localhost",
        "No DNS Query",
        "www.example.com",
        "www.example.com (123.342ms)",
        r"hostile\x1bname.example.com",
        "a.b",
        "",
    ];
    let row = |nth: usize| tcpconnect::Row {
        event: netbcc_common::tcpconnect::Event {
            ts_ns: 1000 * SECOND + TIMES[nth],
            sk: 1,
            tuple: tuples()[nth],
            pid: pids[nth],
            uid: uids[nth],
            comm: comm(COMMS[nth]),
            kind: netbcc_common::tcpconnect::CONNECTED,
            zero: 0,
        }
        .into(),
        query: queries[nth].into(),
    };
    (0..7).map(row).collect()
}

fn connect_block(args: &str) -> String {
    let options = options::<Tcpconnect>(args);
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcpconnect::table(&options), &connects(), |row| row.event.ts_ns)
}

#[test]
fn tcpconnect_text() {
    let blocks = ["", "-t", "-U", "-L", "-d", "-tUL", "-tULd"].map(|args| (args, connect_block(args)));
    matches_fixture("tcpconnect", "rows.txt", &blocks);
}

#[test]
fn tcpconnect_json() {
    matches_fixture("tcpconnect", "rows.json", &[("--json -L -d", connect_block("--json -L -d"))]);
}

#[test]
fn tcpconnect_count() {
    let counts: Vec<_> = tuples()
        .into_iter()
        .zip([0, 1, 10, 9_999_999_999, 99_999_999_999, u64::MAX, 2])
        .map(|(tuple, connects)| tcpconnect::Count {
            flow: netbcc_common::tcpconnect::Flow {
                laddr: tuple.laddr,
                raddr: tuple.raddr,
                rport: tuple.rport,
                lport: tuple.lport,
                family: tuple.family,
                zero: 0,
            },
            connects,
        })
        .collect();
    let block = |args: &'static str| {
        let table = tcpconnect::count_table(&options::<Tcpconnect>(args));
        (args, printed(Format::Text, &table, &counts, |_| 1000 * SECOND))
    };
    matches_fixture("tcpconnect", "count.txt", &["-c", "-cs"].map(block));
}

fn lives() -> Vec<netbcc_common::tcplife::Event> {
    let pids = [22_597, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0];
    // 5 and 15 microseconds both print 0.01; nanoseconds are cut before anything is rounded.
    let spans = [230_000, 5_000, 15_000, 25_999, 999_994_999, 86_400 * SECOND, 0];
    let bytes = [0, 1023, 1024, 2047, 5002, 99_999 * 1024, u64::MAX];
    let life = |nth: usize| netbcc_common::tcplife::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        span_ns: spans[nth],
        tx_bytes: bytes[nth],
        rx_bytes: bytes[6 - nth],
        tuple: tuples()[nth],
        pid: pids[nth],
        existing: 0,
        comm: comm(COMMS[nth]),
    };
    (0..7).map(life).collect()
}

fn life_block(args: &str) -> String {
    let options = options::<Tcplife>(args);
    let format = match args {
        _ if args.contains("--json") => Format::Json,
        _ if args.contains('s') => Format::Csv,
        _ => Format::Text,
    };
    let rows: Vec<tcplife::Row> = lives().into_iter().map(Into::into).collect();
    printed(format, &tcplife::table(&options), &rows, |row| row.ts_ns)
}

#[test]
fn tcplife_text() {
    let blocks = ["", "-T", "-t", "-tT", "-w", "-wtT"].map(|args| (args, life_block(args)));
    matches_fixture("tcplife", "rows.txt", &blocks);
}

#[test]
fn tcplife_csv() {
    matches_fixture("tcplife", "rows.csv", &["-s", "-stT", "-sw"].map(|args| (args, life_block(args))));
}

#[test]
fn tcplife_json() {
    matches_fixture("tcplife", "rows.json", &[("--json", life_block("--json"))]);
}

fn accept_block(args: &str) -> String {
    let accept = |nth: usize| netbcc_common::tcpaccept::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        tuple: tuples()[nth],
        pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
        zero: 0,
        comm: comm(COMMS[nth]),
    };
    let accepts: Vec<tcpaccept::Row> = (0..7).map(accept).map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcpaccept::table(&options::<Tcpaccept>(args)), &accepts, |event| event.ts_ns)
}

#[test]
fn tcpaccept_text() {
    let blocks = ["", "-t", "-T", "-tT"].map(|args| (args, accept_block(args)));
    matches_fixture("tcpaccept", "rows.txt", &blocks);
}

#[test]
fn tcpaccept_json() {
    matches_fixture("tcpaccept", "rows.json", &[("--json", accept_block("--json"))]);
}

fn latency_block(args: &str) -> String {
    // 5, 15 and 25 microseconds are 0.01, 0.01 and 0.03: C rounds the double.
    let spans = [9_680_999, 5_000, 15_000, 25_999, 999_994_999, 86_400 * SECOND, 0];
    let answer = |nth: usize| netbcc_common::tcpconnlat::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        span_ns: spans[nth],
        tuple: tuples()[nth],
        pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
        zero: 0,
        comm: comm(COMMS[nth]),
    };
    let answers: Vec<tcpconnlat::Row> = (0..7).map(answer).map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcpconnlat::table(&options::<Tcpconnlat>(args)), &answers, |event| event.ts_ns)
}

#[test]
fn tcpconnlat_text() {
    let blocks = ["", "-t", "-L", "-tL"].map(|args| (args, latency_block(args)));
    matches_fixture("tcpconnlat", "rows.txt", &blocks);
}

#[test]
fn tcpconnlat_json() {
    matches_fixture("tcpconnlat", "rows.json", &[("--json", latency_block("--json"))]);
}

fn read_block(args: &str) -> String {
    // 5, 15 and 25 microseconds are 0.01, 0.01 and 0.03: C rounds the double.
    let spans = [50_196_999, 5_000, 15_000, 25_999, 999_994_999, 86_400 * SECOND, 1_000];
    let later = [101_000_000, 0, 1_999, 240_000_000, 0, SECOND, 0];
    let options = options::<Tcppktlat>(args);
    let read = |nth: usize| {
        let ts_ns = 100_000 * SECOND + TIMES[nth];
        let event = netbcc_common::tcppktlat::Event {
            ts_ns,
            // In the fourth row nothing came that was new and in order.
            first_ns: if nth == 4 { 0 } else { ts_ns - spans[nth] - later[nth] },
            last_ns: ts_ns - spans[nth],
            tuple: tuples()[nth],
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 4424][nth],
            tid: [1701, 2, 4_194_304, 2_147_483_647, 31_338, 78, 4424][nth],
            unread: [0, 40, u32::MAX, 1, 0, 0, 0][nth],
            netns: [4_026_531_833, 1, 0, u32::MAX, 4_026_532_178, 4_026_532_178, 4_026_532_178][nth],
            comm: comm(COMMS[nth]),
        };
        tcppktlat::Row::new((event, SocketFacts::default()), args.contains("--first"))
    };
    let reads: Vec<_> = (0..7).filter(|nth| *nth != 4 || !args.contains("--first")).map(read).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcppktlat::table(&options), &reads, |event| event.ts_ns)
}

#[test]
fn tcppktlat_text() {
    let blocks = ["", "-T", "-w", "-Tw --first"].map(|args| (args, read_block(args)));
    matches_fixture("tcppktlat", "rows.txt", &blocks);
}

#[test]
fn tcppktlat_json() {
    let blocks = ["--json", "--json --first"].map(|args| (args, read_block(args)));
    matches_fixture("tcppktlat", "rows.json", &blocks);
}

/// The kernel's words, as far as the golden rows have them.
fn reset_reasons() -> tcpreset::Reasons {
    let members = [
        (2, "SK_RST_REASON_NO_SOCKET"),
        (9, "SK_RST_REASON_TCP_TIMEWAIT_SOCKET"),
        (11, "SK_RST_REASON_TCP_ABORT_ON_CLOSE"),
        (14, "SK_RST_REASON_TCP_STATE"),
    ];
    tcpreset::Reasons::new(&members.map(|(number, name)| (number, name.to_owned())))
}

fn reset_block(args: &str) -> String {
    use netbcc_common::tcpreset::{Event, UNTOLD, cause};
    let reset = |nth: usize| {
        let ts_ns = 1000 * SECOND + TIMES[nth];
        let owner_pid = [1479, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth];
        let event = Event {
            ts_ns,
            birth_ns: [0, ts_ns - 1500, ts_ns - SECOND, 1, ts_ns, 0, 0][nth],
            tuple: tuples()[nth],
            unsent: [0, 0, 40, 0, 0, u32::MAX, 0][nth],
            unacked: [0, 0, 1448, 0, 7, 0, 0][nth],
            unread: [0, 100, 2, 0, 0, 0, 0][nth],
            reason: [UNTOLD, 11, UNTOLD, 14, UNTOLD, 77, 2][nth],
            cpu_pid: [0, 1, 2, 3, 4, 5, 4_194_304][nth],
            netns: [4_026_531_833, 1, 0, u32::MAX, 4_026_532_178, 4_026_532_178, 4_026_532_178][nth],
            cpu_comm: comm(COMMS[6 - nth]),
            state: [2, 1, 8, 1, 1, 6, 0][nth],
            substate: [0, 0, 0, 0, 0, 5, 0][nth],
            received: [1, 0, 1, 0, 0, 0, 0][nth],
            cause: [
                cause::NONE,
                cause::UNREAD,
                cause::NONE,
                cause::LINGER,
                cause::RETRIES,
                cause::TIME_WAIT,
                cause::NO_SOCKET,
            ][nth],
            how: [6, 5, 4, 3, 1, 6, 0][nth],
            zero: [0; 3],
        };
        let facts = SocketFacts {
            owner_pid,
            owner_comm: if owner_pid == 0 { Comm::default() } else { comm(COMMS[nth]) },
            cookie: [1, 4096, 0, u64::MAX, 5, 6, 0][nth],
            ..SocketFacts::default()
        };
        tcpreset::Row::new((event, facts), &reset_reasons())
    };
    let resets: Vec<_> = (0..7).map(reset).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcpreset::table(&options::<Tcpreset>(args)), &resets, |row| row.event.ts_ns)
}

#[test]
fn tcpreset_text() {
    let blocks = ["", "-t", "-tT", "-w"].map(|args| (args, reset_block(args)));
    matches_fixture("tcpreset", "rows.txt", &blocks);
}

#[test]
fn tcpreset_json() {
    matches_fixture("tcpreset", "rows.json", &[("--json", reset_block("--json"))]);
}

#[test]
fn tcpreset_counts() {
    use netbcc_common::tcpreset::{Key, UNTOLD, cause};
    let count = |nth: usize| {
        let Tuple { raddr, family, rport, .. } = tuples()[nth];
        let key = Key {
            raddr,
            comm: comm(COMMS[nth]),
            pid: [1479, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            reason: [UNTOLD, 11, UNTOLD, 14, UNTOLD, 77, 2][nth],
            port: rport,
            family,
            state: [2, 1, 8, 1, 1, 6, 0][nth],
            received: [1, 0, 1, 0, 0, 0, 0][nth],
            cause: [0, cause::UNREAD, 0, cause::NEVER_ACCEPTED, cause::RETRIES, cause::TIME_WAIT, 10][nth],
            zero: 0,
        };
        tcpreset::Count::new(key, [1, 2, 3, 99_999_999, 100_000_000, u64::MAX, 7][nth], &reset_reasons())
    };
    let counts: Vec<_> = (0..7).map(count).collect();
    let blocks = ["-c", "-cw", "-c --json"].map(|args| {
        let format = if args.contains("--json") { Format::Json } else { Format::Text };
        let table = tcpreset::count_table(&options::<Tcpreset>(args));
        (args, printed(format, &table, &counts, |_| 1000 * SECOND))
    });
    matches_fixture("tcpreset", "counts.txt", &blocks);
}

fn retransmits() -> Vec<tcpretrans::Row> {
    use netbcc_common::tcpretrans::{Event, FAILED, LOSS_PROBE, RETRANSMIT, SYN_ACK};
    let states = [1, 2, 3, 4, 9, 12, 13];
    let kinds = [RETRANSMIT, LOSS_PROBE, SYN_ACK, FAILED, FAILED, FAILED, RETRANSMIT];
    let row = |nth: usize| {
        let event = Event {
            ts_ns: 1000 * SECOND + TIMES[nth],
            tuple: tuples()[nth],
            pid: [0, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            seq: [1, 0, u32::MAX, 2_879_306_108, 5, 6, 7][nth],
            state: states[nth],
            error: [0, 0, 0, -1, -113, -4095, 0][nth],
            kind: kinds[nth],
            segments: [1, 0, 45, 65_535, 2, 3, 1][nth],
        };
        event.into()
    };
    (0..7).map(row).collect()
}

fn retransmit_block(args: &str) -> String {
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    let table = tcpretrans::table(&options::<Tcpretrans>(args));
    printed(format, &table, &retransmits(), |row| row.event.ts_ns)
}

#[test]
fn tcpretrans_text() {
    let blocks = ["", "-s", "-l", "--failed", "-s --failed"].map(|args| (args, retransmit_block(args)));
    matches_fixture("tcpretrans", "rows.txt", &blocks);
}

#[test]
fn tcpretrans_json() {
    let blocks = ["--json", "--json --failed"].map(|args| (args, retransmit_block(args)));
    matches_fixture("tcpretrans", "rows.json", &blocks);
}

#[test]
fn tcpretrans_count() {
    let counts: Vec<_> = tuples()
        .into_iter()
        .zip([0, 1, 10, 9_999_999_999, 99_999_999_999, u64::MAX, 2])
        .map(|(flow, retransmits)| tcpretrans::Count {
            flow,
            retransmits,
            segments: retransmits.saturating_mul(3),
        })
        .collect();
    let block = |args: &'static str| {
        let options = options::<Tcpretrans>(args);
        let format = if args.contains("--json") { Format::Json } else { Format::Text };
        (args, printed(format, &tcpretrans::count_table(&options), &counts, |_| 1000 * SECOND))
    };
    matches_fixture("tcpretrans", "count.txt", &["-c", "-c --json"].map(block));
}

fn queues() -> Vec<netqtop::Row> {
    use netqtop::Direction::{Rx, Tx};
    // Every border of the number rule, what overflows its column, and ties that round to even.
    let packets = [
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [999, 1000, 1001, 1023, 1024, 1025],
        [1_000_000, 1_000_001, 1_048_576, 1_500_000, 10_485_760, 0],
        [0, 0, 0, 0, 0, 7],
        [u64::MAX / 8, 1, 1, 1, 1, 1],
        [8, 0, 0, 0, 0, 0],
    ];
    let bytes = [0, 38, 6_000_000, 20_000_000_000, 7 * 65_549, u64::MAX, 8 * 1000 + 1];
    let row = |nth: usize| netqtop::Row {
        direction: [Tx, Rx, Tx, Rx, Tx, Rx, Tx][nth],
        queue: [Some(0), Some(1), Some(63), Some(1023), None, None, Some(7)][nth],
        bytes: bytes[nth],
        packets: packets[nth],
        interval_s: 2.0,
    };
    (0..7).map(row).collect()
}

fn queue_block(args: &str) -> String {
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &netqtop::table(&options::<Netqtop>(args)), &queues(), |_| 1000 * SECOND)
}

#[test]
fn netqtop_text() {
    let blocks = ["-n lo", "-n lo -t -i 2"].map(|args| (args, queue_block(args)));
    matches_fixture("netqtop", "rows.txt", &blocks);
}

#[test]
fn netqtop_json() {
    matches_fixture("netqtop", "rows.json", &[("-n lo --json", queue_block("-n lo --json"))]);
}

fn hardirq_block(args: &str) -> String {
    let calls = [
        ("", 0, 0, 0, 0),
        ("virtio1-req.0", 1, 999, 2, 3),
        ("a name of more than twenty-six", 2, 1000, 3, 0),
        ("eth0\x1b[2J\"", 3, u64::MAX, u64::MAX, u64::MAX),
        ("ACPI:Ged", 4, 1 << 40, 7, 1),
        ("ahci", 5, 77, 1, 0),
        ("local_timer", 6, 1_000_000, 250, 0),
    ];
    let totals = calls.map(|(name, irq, total_ns, count, unhandled)| hardirqs::Total {
        name: name.to_owned(),
        cpu: args.contains("--per-cpu").then_some(irq),
        irqs: (0..irq).map(|nth| 10 + nth).collect(),
        sums: netbcc_common::hardirqs::Sums { total_ns, count, max_ns: total_ns, unhandled, name: [0; 32] },
    });
    printed(Format::Json, &hardirqs::table(&options::<Hardirqs>(args)), &totals, |_| 1000 * SECOND)
}

#[test]
fn hardirqs_json() {
    let blocks = ["--json", "--json -C", "--json -N --per-cpu"].map(|args| (args, hardirq_block(args)));
    matches_fixture("hardirqs", "rows.json", &blocks);
}

fn softirq_block(args: &str) -> String {
    let runs = [
        (0, 0, 0),
        (1, 1, 1),
        (2, 999, 2),
        (3, 1000, 3),
        (5, u64::MAX, u64::MAX),
        (7, 1 << 40, 7),
        (9, 77, 1),
    ];
    let totals = runs.map(|(vector, time_ns, count)| softirqs::Total { vector, time_ns, count });
    printed(Format::Json, &softirqs::table(&options::<Softirqs>(args)), &totals, |_| 1000 * SECOND)
}

/// A socket that ended each way: refused, timed out while it connected, reset, sent again, answered late, before the start, well.
#[expect(clippy::too_many_lines, reason = "one event, in seven forms")]
fn endings() -> Vec<netbcc_common::tcpwhy::Event> {
    use netbcc_common::tcpwhy::{
        CLIENT, CLOSED_HERE, CLOSED_THERE, CONNECTOR, Conn, DEAD, DONE, Event, READER, RESET, SERVER, SHUT,
    };
    let ending = |nth: usize| {
        let ts_ns = 1000 * SECOND + TIMES[nth];
        let birth_ns = ts_ns - 2_500_123_000;
        let established_ns = birth_ns + 1_900_000;
        let conn = Conn {
            birth_ns,
            established_ns,
            closing_ns: ts_ns - 1_000_000,
            read_ns: established_ns + 20_000_000,
            asked_us: established_ns / 1000 + 100,
            arrived_us: established_ns / 1000 + 19_000,
            pid: [22_597, 1, 4_194_304, 2_147_483_647, 31_337, 0, 77][nth],
            owner: CONNECTOR,
            flags: CLIENT | CLOSED_HERE,
            comm: comm(COMMS[nth]),
            ..Conn::default()
        };
        let unconnected =
            Conn { established_ns: 0, closing_ns: 0, read_ns: 0, asked_us: 0, arrived_us: 0, ..conn };
        let event = Event {
            ts_ns,
            // 250 in a second, which began 300 s before the start.
            jiffies: (1 << 32) - 75_000 + ts_ns / 4_000_000,
            tuple: tuples()[nth],
            conn,
            bytes_sent: 5002,
            bytes_retrans: 0,
            bytes_acked: 5003,
            bytes_received: 77_001,
            last_packet_us: 0,
            state: 5,
            error: 0,
            soft_error: 0,
            bits: SHUT | DEAD | DONE,
            busy: [3, 0, 0],
            last_data_sent: 0,
            rtt_min_us: 1903,
            srtt_us_8: 2001 << 3,
            retrans: 0,
            data_segs_out: 100,
            dsack_dups: 0,
            ooo_segs: 0,
            unsent: 0,
            unacked: 0,
            unread: 0,
            snd_wnd: 65_536,
            user_timeout_ms: 0,
            probes: 0,
            timeouts: 0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let event = Event { last_data_sent: event.jiffies as u32 - 25, ..event };
        let unmeasured = Event {
            rtt_min_us: u32::MAX,
            srtt_us_8: 0,
            bytes_sent: 0,
            bytes_acked: 0,
            bytes_received: 0,
            ..event
        };
        match nth {
            0 => Event {
                conn: Conn { flags: CLIENT | RESET, ..unconnected },
                state: 2,
                error: 111,
                ..unmeasured
            },
            1 => Event {
                conn: Conn { flags: CLIENT, syns: 2, ..unconnected },
                state: 2,
                error: 110,
                retrans: 2,
                ..unmeasured
            },
            2 => Event {
                conn: Conn { flags: CLIENT | RESET, ..conn },
                state: 1,
                error: 104,
                unacked: 1,
                unread: 100,
                ..event
            },
            3 => Event {
                conn: Conn { rto: 2, fast: 36, ..conn },
                retrans: 38,
                bytes_retrans: 38 * 1448,
                dsack_dups: 1,
                ..event
            },
            4 => Event {
                conn: Conn { arrived_us: conn.asked_us + 880_232, flags: CLIENT | CLOSED_THERE, ..conn },
                state: 9,
                ..event
            },
            5 => Event {
                conn: Conn { birth_ns: 0, flags: SERVER | CLOSED_THERE, owner: READER, ..unconnected },
                state: 9,
                error: 107,
                ..event
            },
            _ => event,
        }
    };
    (0..7).map(ending).collect()
}

fn why_block(args: &str) -> String {
    let options = options::<Tcpwhy>(args);
    let format = match args {
        _ if args.contains("--json") => Format::Json,
        _ if args.contains("-s") && !args.contains("--s") => Format::Csv,
        _ => Format::Text,
    };
    let rows: Vec<_> = endings()
        .into_iter()
        .map(|event| (event.ts_ns, tcpwhy::Row::new(event, &options, 900 * SECOND, 4000)))
        .collect();
    let table = tcpwhy::table(&options);
    let mut out = memory(format);
    out.header(&table);
    for (ts_ns, row) in &rows {
        out.row(&table, *ts_ns, row);
    }
    out.take()
}

#[test]
fn tcpwhy_text() {
    let blocks = ["", "-T", "-t", "-tT", "-w", "--slow 500"].map(|args| (args, why_block(args)));
    matches_fixture("tcpwhy", "rows.txt", &blocks);
}

#[test]
fn tcpwhy_csv() {
    matches_fixture("tcpwhy", "rows.csv", &["-s", "-stT"].map(|args| (args, why_block(args))));
}

#[test]
fn tcpwhy_json() {
    matches_fixture("tcpwhy", "rows.json", &[("--json", why_block("--json"))]);
}

/// That these are what the published protobufs say is checked by `tests/otlp.py`.
#[test]
fn otlp_records() {
    type Block = (&'static str, &'static str, fn(&str) -> String);
    let blocks: [Block; 23] = [
        ("bindsnoop", "--json -E", bind_block),
        ("gethostlatency", "--json", lookup_block),
        ("hardirqs", "--json", hardirq_block),
        ("netqtop", "-n lo --json", queue_block),
        ("softirqs", "--json --count", softirq_block),
        ("softirqslower", "--json", stage_block),
        ("solisten", "--json", listen_block),
        ("tcpaccept", "--json", accept_block),
        ("tcpcong", "--json", stay_block),
        ("tcpconnect", "--json -L -d", connect_block),
        ("tcpconnlat", "--json", latency_block),
        ("tcpdrop", "--json", drop_block),
        ("tcplife", "--json", life_block),
        ("tcppktlat", "--json", read_block),
        ("tcpreset", "--json", reset_block),
        ("tcpretrans", "--json --failed", retransmit_block),
        ("tcprtt", "--json --min", shortest_block),
        ("tcpstates", "--json", transition_block),
        ("tcpsubnet", "--json -fM", subnet_block),
        ("tcpsynbl", "--json", queue_length_block),
        ("tcptop", "--json", transfer_block),
        ("tcptracer", "--json", tracer_block),
        ("tcpwhy", "--json", why_block),
    ];
    let mut text = String::new();
    for (tool, args, block) in blocks {
        OTLP.set(Some(tool));
        let lines = block(args);
        assert!(lines.lines().count() >= 7, "{tool}");
        for line in lines.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let record = &value["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
            let keys = record["attributes"].as_array().expect("attributes").iter();
            let mut keys: Vec<&str> = keys.map(|one| one["key"].as_str().expect("a name")).collect();
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "an attribute twice: {line}");
        }
        text += &lines;
    }
    OTLP.set(None);
    matches_fixture("otlp", "rows.json", &[("", text)]);
}

#[test]
fn json_can_be_read_by_others() {
    for text in [connect_block("--json -L -d -t"), life_block("--json -t")] {
        assert_eq!(text.lines().count(), 7);
        for line in text.lines() {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let object = value.as_object().expect("an object");
            assert!(
                object["pid"].is_u64() && object["comm"].is_string() && object["time"].is_string(),
                "{line}"
            );
        }
    }
}

fn tracer_block(args: &str) -> String {
    use netbcc_common::tcptracer::{ACCEPT, CLOSE, CONNECT, Event, Who};
    let event = |nth: usize| Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        tuple: tuples()[nth],
        who: Who {
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            uid: [0, 1000, 65_534, 4_294_967_294, 1, 2, 3][nth],
            comm: comm(COMMS[nth]),
        },
        kind: [CONNECT, ACCEPT, CLOSE, CONNECT, ACCEPT, CLOSE, 9][nth],
        netns: [4_026_531_840, 1, 0, 4_294_967_295, 4_026_531_969, 7, 8][nth],
    };
    let events: Vec<tcptracer::Row> = (0..7).map(event).map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcptracer::table(&options::<Tcptracer>(args)), &events, |event| event.ts_ns)
}

#[test]
fn tcptracer_text() {
    let blocks = ["", "-t", "-U", "-v", "-tv", "-v -N 4026531840"].map(|args| (args, tracer_block(args)));
    matches_fixture("tcptracer", "rows.txt", &blocks);
}

#[test]
fn tcptracer_json() {
    matches_fixture("tcptracer", "rows.json", &[("--json", tracer_block("--json"))]);
}

fn subnet_block(args: &str) -> String {
    let options = options::<Tcpsubnet>(args);
    let rows = [
        ("127.0.0.1/32", 1),
        ("10.0.0.7/8", 1023),
        ("172.16/12", 1024),
        ("0.0.0.0/0", 1_048_577),
        ("255.255.255.255/32", u64::MAX / 8),
        ("2001:db8:1111:2222::/64", 99_999_999),
        ("::/0", 1024),
    ];
    let rows = rows.map(|(label, bytes)| options.row(label, bytes));
    let mut out = memory(options.format());
    tcpsubnet::block(&options, &mut out, rows.to_vec(), 1000 * SECOND);
    tcpsubnet::block(&options, &mut out, Vec::new(), 1001 * SECOND);
    out.take()
}

#[test]
fn tcpsubnet_text() {
    let blocks = ["", "-f b", "-f k", "-f m", "-f B", "-f K", "-f M"].map(|args| (args, subnet_block(args)));
    matches_fixture("tcpsubnet", "rows.txt", &blocks);
}

#[test]
fn tcpsubnet_json() {
    let blocks = ["-J", "-J -fb", "-J -fk", "-J -fm", "-J -fK", "-J -fM", "--json", "--json -fM"]
        .map(|args| (args, subnet_block(args)));
    matches_fixture("tcpsubnet", "rows.json", &blocks);
}

fn drop_block(args: &str) -> String {
    let reasons = [
        "NO_SOCKET",
        "NETFILTER_DROP",
        "QDISC_DROP",
        "TCP_OLD_DATA",
        "UNKNOWN",
        "SKB_CONSUMED",
        "TAP_TXFILTER",
    ];
    let drop = |nth: usize| {
        let event = netbcc_common::tcpdrop::Event {
            ts_ns: 1000 * SECOND + TIMES[nth],
            stack: 1,
            tuple: tuples()[nth],
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            netns: [4_026_531_840, 1, 0, 4_294_967_295, 4_026_531_969, 7, 8][nth],
            reason: [3, 12, 64, 41, 65_537, 1, 4_294_967_295][nth],
            state: [0, 1, 12, 6, 13, 10, 65_535][nth],
            flags: [2, 18, 0, 255, 4, 17, 16][nth],
            depth: 2,
            kept: 1,
        };
        let stack = ["kfree_skb_reason+0x94".to_owned(), "[unknown]".to_owned()];
        tcpdrop::Row::new(event, Some(reasons[nth].into()), Rc::new(tcpdrop::Functions::new(stack.into())))
    };
    let drops: Vec<_> = (0..7).map(drop).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &tcpdrop::table(&options::<Tcpdrop>(args)), &drops, |drop| drop.event.ts_ns)
}

#[test]
fn tcpdrop_text() {
    matches_fixture("tcpdrop", "rows.txt", &[("", drop_block(""))]);
}

#[test]
fn tcpdrop_json() {
    let blocks = ["--json", "--json --no-stack"].map(|args| (args, drop_block(args)));
    matches_fixture("tcpdrop", "rows.json", &blocks);
}

fn stay_block(args: &str) -> String {
    let row = |nth: usize| {
        let flow = netbcc_common::tcpcong::Flow {
            closed: u64::from(nth.is_multiple_of(3)),
            tuple: tuples()[nth],
            sums_ns: [1; 8],
            begin_ns: 1,
            since_ns: 2,
            changes: 9,
            first: 0,
            state: [0, 1, 2, 3, 4, 5, u32::MAX][nth],
            netns: [4_026_531_840, 1, 0, u32::MAX, 4_026_531_969, 7, 8][nth],
            from_start: u32::from(nth.is_multiple_of(2)),
        };
        let ms = 1_000_000;
        let spans = [884 * ms + 999_999, 12 * ms, 507 * ms, 102 * ms, 999, u64::MAX, 0, 0];
        let mut spans: [u64; 8] = std::array::from_fn(|state| spans[(state + nth) % 8]);
        if nth == 0 {
            spans = [884 * ms, 12 * ms, 507 * ms, 102 * ms, 0, 0, 0, 0];
        }
        tcpcong::Row::new(flow, spans, [2721, 1, 0, 99_999, u64::MAX, 7, 12][nth])
    };
    let rows: Vec<_> = (0..7).map(row).collect();
    if args.contains("--json") {
        return printed(Format::Json, &tcpcong::table(&options::<Tcpcong>(args), false), &rows, |_| {
            1000 * SECOND
        });
    }
    // A table is of one family; so are its rows.
    let (v4, v6) = rows.split_at(3);
    [(v4, false), (v6, true)]
        .map(|(rows, v6)| {
            printed(Format::Text, &tcpcong::table(&options::<Tcpcong>(args), v6), rows, |_| 1000 * SECOND)
        })
        .concat()
}

#[test]
fn tcpcong_text() {
    let blocks = ["", "-u"].map(|args| (args, stay_block(args)));
    matches_fixture("tcpcong", "rows.txt", &blocks);
}

#[test]
fn tcpcong_json() {
    matches_fixture("tcpcong", "rows.json", &[("--json", stay_block("--json"))]);
    let slot =
        |nth: usize| tcpcong::Slot { state: nth, bits: [1, 2, 6, 10, 20, 31, 64][nth], count: 7 << nth };
    let slots: Vec<_> = (0..7).map(slot).collect();
    let block = |args: &str| {
        printed(Format::Json, &tcpcong::slot_table(&options::<Tcpcong>(args)), &slots, |_| 1000 * SECOND)
    };
    let blocks = ["--json -d", "--json -du"].map(|args| (args, block(args)));
    matches_fixture("tcpcong", "slots.json", &blocks);
}

fn slot_block(args: &str) -> String {
    let slot = |nth: usize| tcprtt::Slot {
        addr: Some(IpAddr::from(
            [
                tuples()[nth].laddr[0].to_ne_bytes(),
                tuples()[nth].laddr[1].to_ne_bytes(),
                tuples()[nth].laddr[2].to_ne_bytes(),
                tuples()[nth].laddr[3].to_ne_bytes(),
            ]
            .concat()
            .first_chunk::<16>()
            .copied()
            .expect("four words"),
        )),
        bits: [1, 2, 6, 10, 20, 31, 32][nth],
        count: [1, 7, 13, 1 << 40, u64::MAX, 2, 3][nth],
        avg_us: [0.5, 2.0, 38.25, 1000.0, 1e6, 4_294_967_294.0, 1.0 / 3.0][nth],
        samples: [1, 7, 13, 1 << 40, u64::MAX, 2, 3][nth],
    };
    let slots: Vec<_> = (0..7).map(slot).collect();
    printed(Format::Json, &tcprtt::slot_table(&options::<Tcprtt>(args)), &slots, |_| 1000 * SECOND)
}

fn shortest_block(args: &str) -> String {
    let event = |nth: usize| netbcc_common::tcprtt::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        tuple: tuples()[nth],
        min_rtt_us: [0, 1, 38, 1_023_000, u32::MAX, 2_029_000, 62_000][nth],
        srtt_us_8: [8, 0, 7, 8 * 38 + 7, u32::MAX, 1_023_000 * 8, 64][nth],
        netns: [4_026_531_840, 1, 0, u32::MAX, 4_026_531_969, 7, 8][nth],
        zero: 0,
    };
    let events: Vec<_> = (0..7).map(event).collect();
    printed(Format::Json, &tcprtt::table(&options::<Tcprtt>(args)), &events, |event| event.ts_ns)
}

#[test]
fn tcprtt_json() {
    let slots = ["--json", "--json -m", "--json -b", "--json -Be"].map(|args| (args, slot_block(args)));
    matches_fixture("tcprtt", "slots.json", &slots);
    matches_fixture("tcprtt", "rows.json", &[("--json --min", shortest_block("--json --min"))]);
}

fn queue_length_block(args: &str) -> String {
    let slot = |nth: usize| tcpsynbl::Slot {
        backlog_max: [0, 1, 5, 128, 511, 4096, u32::MAX][nth],
        bits: [1, 2, 3, 7, 9, 12, 32][nth],
        count: [1, 7, 13, 1 << 40, u64::MAX, 2, 3][nth],
    };
    let slots: Vec<_> = (0..7).map(slot).collect();
    printed(Format::Json, &tcpsynbl::slot_table(&options::<Tcpsynbl>(args)), &slots, |_| 1000 * SECOND)
}

#[test]
fn tcpsynbl_json() {
    matches_fixture("tcpsynbl", "slots.json", &[("--json", queue_length_block("--json"))]);
}

fn stage_block(args: &str) -> String {
    let stage = |nth: usize| netbcc_common::softirqslower::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        latency_ns: [10_000_000, 0, 999, 1000, 50_223_999, u64::MAX, 1 << 60][nth],
        other_ns: [9_999_999, 0, 0, 1000, 7, u64::MAX, 0][nth],
        raises: [1, 0, 2, u64::MAX, 0, 1, 0][nth],
        pid: [1701, 0, 14, 2_147_483_647, 21, 77, 0][nth],
        tid: [1702, 0, 14, 2_147_483_647, 21, 77, 0][nth],
        cpu: [0, 1, 127, 8191, 1_000_000, 5, u32::MAX][nth],
        vector: [3, 0, 9, 10, 1, 16, u32::MAX][nth],
        kernel: [0, 1, 1, 0, 1, 0, 0][nth],
        zero: 0,
        // The second of these is no thread of the kernel's.
        comm: comm(
            ["cat", "swapper/1", "ksoftirqd/127", "ksoftirqd/0", "a23456789012345", "", "\u{1b}[2J"][nth]
                .as_bytes(),
        ),
    };
    let stages: Vec<_> = (0..7).map(stage).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    let nth = Cell::new(0);
    printed(format, &softirqslower::table(&options::<Softirqslower>(args)), &stages, |_| {
        stages[nth.replace(nth.get() + 1)].ts_ns
    })
}

#[test]
fn softirqslower_text() {
    matches_fixture("softirqslower", "rows.txt", &[("", stage_block(""))]);
}

#[test]
fn softirqslower_json() {
    matches_fixture("softirqslower", "rows.json", &[("--json", stage_block("--json"))]);
}

fn listening_block(args: &str) -> String {
    let row = |nth: usize| {
        let v6 = [0xb80d_0120, 0, 0, 0x0100_0000];
        let listener = netbcc_common::tcpsynbl::Listener {
            cookie: [0, 1, 4097, u64::MAX, 5, 6, 7][nth],
            tuple: Tuple {
                laddr: if nth.is_multiple_of(2) { [0x0100_007f, 0, 0, 0] } else { v6 },
                raddr: [0; 4],
                lport: [1, 22, 80, 443, 8080, 32_768, 65_535][nth],
                rport: 0,
                family: if nth.is_multiple_of(2) { AF_INET } else { AF_INET6 },
                zero: 0,
            },
            queue: [0, 1, 5, 128, 511, 4096, u32::MAX][nth],
            limit: [0, 1, 5, 128, 511, 4096, u32::MAX][nth],
            netns: 4_026_531_840,
            holders: [0, 1, 1, 4, 1, 2, u32::MAX][nth],
            pid: [0, 1, 42, 1701, 4_194_304, 7, u32::MAX][nth],
            comm: *b"a name of 15 by\0",
            ..Default::default()
        };
        let refused = [Some(0), Some(1), Some(38), Some(1 << 40), None, Some(7), Some(u64::MAX)][nth];
        let is_exact = [true, false, true, false, false, true, false][nth];
        let mut row = tcpsynbl::listeners::Row::new(listener, 7, (refused, is_exact));
        row.accepted = [None, Some(0), Some(3), Some(u64::MAX), Some(1), Some(2), None][nth];
        row.late = [None, Some(0), Some(2), None, Some(0), Some(1), Some(u64::MAX)][nth];
        row.drops = [0, 2, 40, u32::MAX, 0, 8, 1][nth];
        row.overflows = [None, Some(1), Some(38), Some(u64::MAX), Some(0), Some(7), None][nth];
        row
    };
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    let rows: Vec<_> = (0..7).map(row).collect();
    printed(format, &tcpsynbl::listeners::table(&options::<Tcpsynbl>(args)), &rows, |_| 1000 * SECOND)
}

#[test]
fn tcpsynbl_listeners() {
    for (name, args) in [("listeners.txt", "--listeners"), ("listeners.json", "--listeners --json")] {
        matches_fixture("tcpsynbl", name, &[(args, listening_block(args))]);
    }
}

fn bind_block(args: &str) -> String {
    let bind = |nth: usize| {
        let (at, asked) = (tuples()[nth], tuples()[6 - nth]);
        netbcc_common::bindsnoop::Event {
            ts_ns: 1000 * SECOND + TIMES[nth],
            addr: at.laddr,
            asked_addr: asked.laddr,
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            tid: [1702, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            uid: [0, 1000, 4_294_967_294, 65_534, 1, 2, 3][nth],
            netns: [4_026_531_840, 1, 0, 4_294_967_295, 4_026_531_969, 7, 8][nth],
            // One that the table has not got, one that has no name, and one that is no errno.
            error: [0, -98, -99, -13, -110, -4000, i32::MIN][nth],
            ifindex: [0, 1, 123, i32::MAX, -1, 0, 0][nth],
            port: at.lport,
            asked_port: asked.lport,
            family: at.family,
            addr_family: at.family,
            asked_family: asked.family,
            protocol: [6, 17, 136, 262, 58, 1, 65_535][nth],
            options: [0, 1, 2, 4, 8, 16, 31][nth],
            zero: 0,
            comm: comm(COMMS[nth]),
        }
    };
    let binds: Vec<bindsnoop::Row> = (0..7).map(bind).map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    let times = (0..7).map(|nth| bind(nth).ts_ns).collect::<Vec<_>>();
    let nth = Cell::new(0);
    printed(format, &bindsnoop::table(&options::<Bindsnoop>(args)), &binds, |_| {
        times[nth.replace(nth.get() + 1)]
    })
}

#[test]
fn bindsnoop_text() {
    let blocks = ["", "-t", "-U", "-E", "-w", "-tUE", "-wtUE"].map(|args| (args, bind_block(args)));
    matches_fixture("bindsnoop", "rows.txt", &blocks);
}

#[test]
fn bindsnoop_json() {
    matches_fixture("bindsnoop", "rows.json", &[("--json -E", bind_block("--json -E"))]);
}

#[test]
fn bindsnoop_counts() {
    let count = |(nth, binds): (usize, u64)| bindsnoop::Count {
        key: netbcc_common::bindsnoop::Key {
            addr: tuples()[nth].laddr,
            port: tuples()[nth].lport,
            family: tuples()[nth].family,
        },
        binds,
    };
    let counts: Vec<_> = (0..7).zip([3, 2, 1, u64::MAX, 503, 2, 1]).map(count).collect();
    let blocks = ["--count", "--count --json"].map(|args| {
        let format = if args.contains("--json") { Format::Json } else { Format::Text };
        let table = bindsnoop::count_table(&options::<Bindsnoop>(args));
        (args, printed(format, &table, &counts, |_| 1000 * SECOND))
    });
    matches_fixture("bindsnoop", "counts.txt", &blocks);
}

fn lookup_block(args: &str) -> String {
    let lookup = |nth: usize| {
        let names: [&[u8]; 7] = [
            b"www.example.org",
            b"",
            b"a\x1b[2Jb",
            &[b'n'; 79],
            "m\u{fc}nchen.example".as_bytes(),
            b"not read",
            b"a \"b\\",
        ];
        let mut host = [0; 80];
        host[..names[nth].len()].copy_from_slice(names[nth]);
        netbcc_common::gethostlatency::Event {
            ts_ns: 1000 * SECOND + TIMES[nth],
            latency_ns: [90_000_000, 0, 4999, 5_005_000_000, 999_995_000, u64::MAX, 20_360_000][nth],
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            tid: [1702, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            mntns: [4_026_531_841, 1, 0, 4_294_967_295, 4_026_531_969, 7, 8][nth],
            // The first file is known, the others are not.
            library: [1, 0, 2, u32::MAX, 1, 1, 1][nth],
            function: [0, 1, 2, 0, 0, 1, 9][nth],
            ret: [0, 0, -1, -105, 12_345, -1, i32::MIN][nth],
            host_len: if nth == 5 { -1 } else { i32::try_from(names[nth].len()).expect("it is short") },
            zero: 0,
            comm: comm(COMMS[nth]),
            host,
        }
    };
    let events: Vec<_> = (0..7).map(lookup).collect();
    let rows: Vec<gethostlatency::Row> = events.iter().copied().map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    let nth = Cell::new(0);
    printed(format, &gethostlatency::table(&options::<Gethostlatency>(args)), &rows, |_| {
        events[nth.replace(nth.get() + 1)].ts_ns
    })
}

#[test]
fn gethostlatency_text() {
    let blocks = ["", "--errors"].map(|args| (args, lookup_block(args)));
    matches_fixture("gethostlatency", "rows.txt", &blocks);
}

#[test]
fn gethostlatency_json() {
    matches_fixture("gethostlatency", "rows.json", &[("--json", lookup_block("--json"))]);
}

fn listen_block(args: &str) -> String {
    let listen = |nth: usize| netbcc_common::solisten::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        laddr: tuples()[nth].laddr,
        pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
        netns: [4_026_531_840, 1, 0, 4_294_967_295, 4_026_531_969, 7, 8][nth],
        backlog: [5, 0, 4096, 2_147_483_647, -1, 128, 1][nth],
        lport: tuples()[nth].lport,
        // The last has a family without a form of address.
        family: if nth == 6 { 0 } else { tuples()[nth].family },
        comm: comm(COMMS[nth]),
    };
    let listens: Vec<solisten::Row> = (0..7).map(listen).map(Into::into).collect();
    let format = if args.contains("--json") { Format::Json } else { Format::Text };
    printed(format, &solisten::table(&options::<Solisten>(args)), &listens, |event| event.ts_ns)
}

#[test]
fn solisten_text() {
    let blocks = ["", "-t", "--show-netns", "-t --show-netns"].map(|args| (args, listen_block(args)));
    matches_fixture("solisten", "rows.txt", &blocks);
}

#[test]
fn solisten_json() {
    matches_fixture("solisten", "rows.json", &[("--json", listen_block("--json"))]);
}

fn transition_block(args: &str) -> String {
    let spans = [0, 999, 1_999_999, 86_400 * SECOND, 1_000, 123_456_789, SECOND];
    let transition = |nth: usize| netbcc_common::tcpstates::Event {
        ts_ns: 1000 * SECOND + TIMES[nth],
        span_ns: spans[nth],
        sk: [0xffff_9fd7_e8ac_0000, 0xffff_ffff_ffff_ffff, 1, 0, 0xdead_beef, 0xffff_8881_0000_0001, 16][nth],
        tuple: tuples()[nth],
        pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
        old: [7, 2, 1, 4, 8, 10, 13][nth],
        new: [2, 1, 4, 5, 9, 3, 0][nth],
        existing: 0,
        comm: comm(COMMS[nth]),
    };
    let transitions: Vec<tcpstates::Row> = (0..7).map(|nth| transition(nth).into()).collect();
    let words: Vec<&str> = args.split(' ').collect();
    let format = match words[..] {
        ["--json", ..] => Format::Json,
        ["-s", ..] => Format::Csv,
        _ => Format::Text,
    };
    printed(format, &tcpstates::table(&options::<Tcpstates>(args)), &transitions, |row| row.ts_ns)
}

#[test]
fn tcpstates_text() {
    let blocks = ["", "-t", "-T", "-w", "-w -tT"].map(|args| (args, transition_block(args)));
    matches_fixture("tcpstates", "rows.txt", &blocks);
}

#[test]
fn tcpstates_csv() {
    let blocks = ["-s", "-s -tT", "-s -w"].map(|args| (args, transition_block(args)));
    matches_fixture("tcpstates", "rows.csv", &blocks);
}

#[test]
fn tcpstates_json() {
    matches_fixture("tcpstates", "rows.json", &[("--json", transition_block("--json"))]);
}

fn transfer_block(args: &str) -> String {
    use netbcc_common::tcptop::{Key, Sum};
    let sums = [(0, 1023), (1024, 0), (1, 1), (u64::MAX, 1 << 40), (999_999 << 10, 0), (0, 0), (2048, 4096)];
    let transfer = |nth: usize| {
        let key = Key {
            tuple: tuples()[nth],
            pid: [1701, 1, 4_194_304, 2_147_483_647, 31_337, 77, 0][nth],
            netns: 0,
            comm: comm(COMMS[nth]),
            cookie: 0,
        };
        tcptop::Row::new(key, Sum { rx_bytes: sums[nth].0, tx_bytes: sums[nth].1 })
    };
    let json = args.contains("--json");
    let format = if json { Format::Json } else { Format::Text };
    let mut text = String::new();
    for v6 in [false, true] {
        let family = if v6 { AF_INET6 } else { AF_INET };
        let rows: Vec<_> = (0..7).map(transfer).filter(|row| row.key.tuple.family == family).collect();
        text += &printed(format, &tcptop::table(&options::<Tcptop>(args), v6), &rows, |_| 1000 * SECOND);
    }
    text
}

#[test]
fn tcptop_text() {
    matches_fixture("tcptop", "rows.txt", &[("", transfer_block(""))]);
}

#[test]
fn tcptop_json() {
    matches_fixture("tcptop", "rows.json", &[("--json", transfer_block("--json"))]);
}
