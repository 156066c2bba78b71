//! tcpsubnet: per interval, the bytes that this host sent by TCP to each subnet of a list, most first.
//!
//! Sums: `probes-ebpf/src/bin/tcpsubnet.rs`. Counted is what the kernel took from processes, in all network namespaces,
//! when it took it: what a call asked for and did not get is not, nor what is sent again. The first subnet of the list
//! that has the destination gets the bytes; what no subnet has is left out. What MPTCP and the kernel's TLS send is not
//! seen, as in BCC. With fexit, the kernel leaves out calls that are under way while another tracer attaches to the
//! same function, or detaches.
//!
//! The kernel finds the longest prefix that an address has, not the first of a list. So each prefix carries the first
//! subnet that contains it, which is the answer for every address whose longest prefix it is. A prefix whose answer is
//! that of the prefix around it is left out.
//!
//! A socket of IPv6 that talks to an IPv4 address sends to `::ffff:a.b.c.d`. Subnets of IPv4 have these addresses, too,
//! so the table of IPv6 holds them a second time in that form. In BCC such a socket counts nowhere.
//!
//! Each subnet has its sum from the start, so there is no table that could be full.
//!
//! In a namespace with two more networks, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpsubnet
//! Tracing... Output every 1 secs. Hit Ctrl-C to end
//! [11/24/26 11:34:05]
//! 0.0.0.0/0               5000
//! 10.0.0.0/8              1000
//! 127.0.0.1/32               8
//! [11/24/26 11:34:06]
//! [11/24/26 11:34:07]
//! 10.0.0.0/8                77
//! ^C[11/24/26 11:34:08]
//!
//! # netbcc tcpsubnet -J -fk 2001:db8::/32,10.1.0.0/16,10.0.0.0/8
//! {"date": "11/24/26", "time": "11:34:09", "entries": {"10.1.0.0/16": 7.8125, "2001:db8::/32": 2.34375}}
//! {"date": "11/24/26", "time": "11:34:10", "entries": {}}
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use netbcc_common::tcpsubnet::{Config, Prefix4, Prefix6, SUM_WORDS};

use super::{object as embedded, sends};
use crate::error::usage;
use crate::hook::{Ladder, LessExact, Prog, Rung, RungName, fexit, kprobe, tp_btf};
use crate::options::{Every, Json, OUTPUT, Verbose};
use crate::out::{
    About, Cell, Format, Kind, Out, Rows, Table, data, interval, left, push_json_string, push_python_float,
    right,
};
use crate::probe::{Counters, Pace, Plan};
use crate::tool::{Ctx, Spec, Tool};
use crate::words::words;

/// The tool.
pub struct Tcpsubnet;

/// What BCC looks at unless it is told otherwise.
const DEFAULT: &str = "127.0.0.1/32,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,0.0.0.0/0";

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    /// One JSON object per interval, as BCC prints it
    #[arg(short = 'J', conflicts_with = "json", help_heading = OUTPUT)]
    object: bool,
    /// Unit: bits (b, k, m) or bytes (B, K, M); k and K are 1024, m and M 1024 * 1024
    #[arg(short = 'f', long, value_enum, value_name = "UNIT", default_value_t = Unit::Bytes, help_heading = OUTPUT)]
    format: Unit,
    /// Seconds between outputs
    #[arg(
        short = 'i', long, value_name = "SECONDS", value_parser = whole, default_value_t = 1,
        allow_negative_numbers = true, help_heading = OUTPUT
    )]
    interval: i64,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
    /// Subnets, comma-separated; the first that has an address counts it
    #[arg(value_name = "SUBNETS", default_value = DEFAULT)]
    subnets: String,
}

/// Parses a whole number of seconds; whether there are so many is another question.
fn whole(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|&number| number <= i64::from(u32::MAX));
    number.ok_or_else(|| format!("not a whole number up to {}", u32::MAX))
}

/// What `-f` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Bits
    #[value(name = "b")]
    Bits,
    /// 1024 bits
    #[value(name = "k")]
    Kilobits,
    /// 1024 times 1024 bits
    #[value(name = "m")]
    Megabits,
    /// Bytes
    #[value(name = "B")]
    Bytes,
    /// 1024 bytes
    #[value(name = "K")]
    Kilobytes,
    /// 1024 times 1024 bytes
    #[value(name = "M")]
    Megabytes,
}

impl Unit {
    /// So many of what `-f` names are a byte, and so many are one of it.
    const fn ratio(self) -> (u64, u64) {
        match self {
            Self::Bits => (8, 1),
            Self::Kilobits => (8, 1 << 10),
            Self::Megabits => (8, 1 << 20),
            Self::Bytes => (1, 1),
            Self::Kilobytes => (1, 1 << 10),
            Self::Megabytes => (1, 1 << 20),
        }
    }

    /// Whole ones in so many bytes.
    fn whole(self, bytes: u64) -> u64 {
        let (times, by) = self.ratio();
        u64::try_from(u128::from(bytes) * u128::from(times) / u128::from(by)).unwrap_or(u64::MAX)
    }

    /// As a fraction, where that says more; as BCC's JSON does.
    fn fraction(self, bytes: u64) -> Option<f64> {
        let (times, by) = self.ratio();
        (by != 1).then(|| bytes as f64 * times as f64 / by as f64)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bits => "b",
            Self::Kilobits => "k",
            Self::Megabits => "m",
            Self::Bytes => "B",
            Self::Kilobytes => "K",
            Self::Megabytes => "M",
        }
    }
}

impl Tool for Tcpsubnet {
    const SPEC: Spec = Spec {
        name: "tcpsubnet",
        about: "Summarize TCP sends per destination subnet",
        description: &[
            "Prints, once per interval, how many bytes this host sent by TCP to each subnet of a list, most first; \
             subnets to which nothing was sent are left out. The first subnet of the list that has a destination gets \
             its bytes.",
            "Counted is what the kernel took from processes, in all network namespaces, when it took it; what is sent \
             again is not counted again. What MPTCP and the kernel's TLS send is not seen.",
        ],
        examples: &[
            ("tcpsubnet", "bytes sent to loopback, private networks and the rest, per second"),
            ("tcpsubnet -fK", "in KB"),
            ("tcpsubnet -i 5 10.80.0.0/24", "to one subnet, every 5 seconds"),
            ("tcpsubnet 10.80.0.7/32,10.0.0.0/8", "one host, and its network without it"),
            ("tcpsubnet -J -fk", "one JSON object per interval, in kilobits"),
            ("tcpsubnet ::1/128,2001:db8::/32,::/0", "IPv6"),
            ("tcpsubnet --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per send of a TCP socket and sums in the kernel: the cost grows with calls, \
                   not with bytes, and not with the length of the list. Where the kernel has neither fentry, \
                   kprobes nor sock_send_length (before 6.3), every system call costs a little.",
        differences: &[
            "Counted is what the kernel took, not what a call asked for.",
            "Subnets of IPv6 may be in the list. What an IPv6 socket sends to an IPv4 address (::ffff:a.b.c.d) counts for \
             subnets of IPv4, too.",
            "What is sent while a block is printed belongs to the next one; BCC loses it.",
            "-J is BCC's JSON. The long option --json means JSON Lines, as in all tools here.",
            "Subnets with the same number of bytes stay in the order of the list.",
            "A wrong subnet or interval is one line on stderr, and the exit code is 2.",
        ],
        refuses: &[],
        object: embedded!("tcpsubnet"),
        ladders: &[SENDS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args)).used_if(!args.object)]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        cx.verbose |= args.verbose.verbose;
        cx.out.set_format(args.format());
        let interval = u32::try_from(args.interval).ok().and_then(NonZeroU32::new);
        let Some(interval) = interval else { bail!(usage("Invalid interval, must be > 0. Exiting.")) };
        let subnets = subnets(&args.subnets)?;
        let trie = trie(&subnets);
        say_subnets(cx, &subnets, &trie);

        let has = |v6| u32::from(trie.iter().any(|(prefix, _)| prefix.v6 == v6));
        let config = Config { sends: sends::calls(), v4: has(false), v6: has(true) };
        // The kernel has no empty tables.
        let room = u32::try_from(subnets.len().max(1))?;
        let mut plan = Plan::new(cx)
            .ladder(&SENDS)
            .global("CONFIG", &config)
            .size("SUMS", room)
            .size("SUBNETS_4", room)
            .size("SUBNETS_6", room);
        for (prefix, first) in &trie {
            let first = u32::try_from(*first)?;
            plan = if prefix.v6 {
                plan.entry("SUBNETS_6", &prefix.key6(), &first)
            } else {
                plan.entry("SUBNETS_4", &prefix.key4(), &first)
            };
        }
        let mut probe = plan.attach(cx)?;
        let mut sums = probe.counters("SUMS")?;
        cx.out.line(format_args!("Tracing... Output every {interval} secs. Hit Ctrl-C to end"));
        let pace = Pace::from(Every { interval: Some(interval), count: None });
        probe.sample(cx, pace, |cx, _| {
            let now_ns = cx.out.clock().monotonic_ns();
            let rows = taken(&args, &mut sums, &subnets)?;
            block(&args, &mut cx.out, rows, now_ns);
            Ok(())
        })
    }
}

impl Options {
    /// What was sent to a subnet, in the unit asked for.
    pub fn row(&self, label: &str, bytes: u64) -> Row {
        Row { label: label.to_owned(), bytes, unit: self.format }
    }

    /// Of rows.
    pub fn format(&self) -> Format {
        if self.object { Format::Json } else { self.json.format() }
    }
}

const FEXIT: Prog = fexit("send_fexit", "tcp_sendmsg");
const KPROBE: [Prog; 2] = [kprobe("send_kprobe", "tcp_sendmsg"), kprobe("release_kprobe", "release_sock")];

const SENDS: Ladder = Ladder {
    name: "sends",
    rungs: &[
        // With the function by which sendfile and splice sent up to 6.4, and without it.
        Rung {
            name: RungName::Fexit,
            programs: &[fexit("page_fexit", "tcp_sendpage"), FEXIT],
            less_exact: None,
        },
        Rung { name: RungName::Fexit, programs: &[FEXIT], less_exact: None },
        Rung {
            name: RungName::Kprobe,
            programs: &[kprobe("page_kprobe", "tcp_sendpage"), KPROBE[0], KPROBE[1]],
            less_exact: None,
        },
        Rung { name: RungName::Kprobe, programs: &KPROBE, less_exact: None },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("sent_tp", "sock_send_length")],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("call_tp", "sys_exit")],
            less_exact: Some(LessExact::new(
                "what io_uring, 32-bit programs and the kernel itself send is not counted",
            )),
        },
    ],
};

/// Addresses whose first bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    v6: bool,
    /// From the highest on; those beyond `len` are 0.
    bits: u128,
    len: u32,
}

impl Prefix {
    /// The prefix of this length; `bits` may have more.
    fn new(v6: bool, bits: u128, len: u32) -> Self {
        Self { v6, bits: bits & u128::MAX.checked_shl(128 - len).unwrap_or_default(), len }
    }

    fn contains(&self, other: &Self) -> bool {
        self.v6 == other.v6 && self.len <= other.len && Self::new(self.v6, other.bits, self.len) == *self
    }

    /// Of IPv4 addresses: the prefix of the same addresses as IPv6 sockets have them.
    fn mapped(&self) -> Option<Self> {
        const MAPPED: u128 = 0xffff << 32;
        (!self.v6).then(|| Self::new(true, MAPPED | self.bits >> 96, self.len + 96))
    }

    fn key4(&self) -> Prefix4 {
        let [a, b, c, d, ..] = self.bits.to_be_bytes();
        Prefix4 { bits: self.len, addr: u32::from_ne_bytes([a, b, c, d]) }
    }

    fn key6(&self) -> Prefix6 {
        let bytes = self.bits.to_be_bytes();
        let mut addr = [0; 4];
        for (word, bytes) in addr.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        }
        Prefix6 { bits: self.len, addr }
    }
}

/// One item of the list.
#[derive(Clone, Debug)]
struct Subnet {
    /// As it was typed.
    label: String,
    prefix: Prefix,
}

/// Parses the list; of an empty one nothing is ever shown.
fn subnets(list: &str) -> Result<Vec<Subnet>> {
    if list.trim().is_empty() {
        return Err(usage("the list of subnets is empty"));
    }
    words(list).map(|item| Ok(Subnet { label: item.to_owned(), prefix: prefix(item)? })).collect()
}

/// Parses one item. The sentences are BCC's.
fn prefix(item: &str) -> Result<Prefix> {
    let parts: Vec<&str> = item.split('/').collect();
    let [address, mask] = parts[..] else {
        bail!(usage(format!("Subnet [{item}] is invalid, please refer to the examples.")));
    };
    let (v6, bits) = if address.contains(':') {
        (true, address.parse::<Ipv6Addr>().ok().map(u128::from))
    } else {
        (false, inet_aton(address).map(|ip| u128::from(u32::from(ip)) << 96))
    };
    let bits = bits.ok_or_else(|| {
        usage(format!("Invalid net address in subnet [{item}], please refer to the examples."))
    })?;
    let mask = mask.trim();
    let digits = mask.strip_prefix(['+', '-']).unwrap_or(mask);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!(usage(format!("Invalid mask in subnet [{item}]. Mask must be an int")));
    }
    let most = if v6 { 128 } else { 32 };
    match mask.parse::<i64>().map(u32::try_from) {
        Ok(Ok(len)) if len <= most => Ok(Prefix::new(v6, bits, len)),
        _ => Err(usage(format!("Invalid mask in subnet [{item}]. Must be an int between 0 and {most}."))),
    }
}

/// An IPv4 address in any form that C's inet_aton takes: up to four numbers, decimal, octal (`0`) or hexadecimal
/// (`0x`), of which the last one fills all the bytes that are left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, front) = parts.split_last()?;
    if front.len() > 3 {
        return None;
    }
    let mut address = 0;
    for (nth, part) in front.iter().enumerate() {
        let byte = number(part).filter(|&byte| byte <= 0xff)?;
        address |= byte << (24 - 8 * nth);
    }
    let left = number(last).filter(|&left| left <= u64::from(u32::MAX) >> (8 * front.len()))?;
    u32::try_from(address | left).ok().map(Ipv4Addr::from)
}

/// A number as C writes it.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // Rust takes a sign as well.
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| plain)
}

/// Prefixes and, for each, the place in the list of the subnet that gets the bytes of an address whose longest prefix
/// it is.
fn trie(subnets: &[Subnet]) -> Vec<(Prefix, usize)> {
    let mut firsts = BTreeMap::new();
    for (place, subnet) in subnets.iter().enumerate() {
        firsts.entry(subnet.prefix).or_insert(place);
        if let Some(mapped) = subnet.prefix.mapped() {
            firsts.entry(mapped).or_insert(place);
        }
    }
    let mut trie = Vec::new();
    // Prefixes around the one we are at, outermost first: in this order a prefix comes before those inside it.
    let mut around: Vec<(Prefix, usize)> = Vec::new();
    for (prefix, place) in firsts {
        while around.pop_if(|(outer, _)| !outer.contains(&prefix)).is_some() {}
        match around.last() {
            // An outer one is before it in the list: nothing is left for this one.
            Some(&(_, first)) if first < place => {}
            _ => {
                around.push((prefix, place));
                trie.push((prefix, place));
            }
        }
    }
    trie
}

/// The list as its labels, and the trie as the places of its prefixes.
#[cfg(feature = "fuzzing")]
pub(crate) fn parsed(list: &str) -> Result<Vec<ParsedSubnet>> {
    let subnets = subnets(list)?;
    let trie = trie(&subnets);
    let has_place = |nth| trie.iter().any(|(_, place)| *place == nth);
    let parsed = subnets.iter().enumerate().map(|(nth, subnet)| {
        let Prefix { v6, bits, len } = subnet.prefix;
        (subnet.label.clone(), v6, bits, len, has_place(nth))
    });
    Ok(parsed.collect())
}

/// Label, whether it is IPv6, bits from the highest on, how many, and whether any address comes to it first.
#[cfg(feature = "fuzzing")]
pub type ParsedSubnet = (String, bool, u128, u32, bool);

/// The list, for those who want to know.
fn say_subnets(cx: &Ctx, subnets: &[Subnet], trie: &[(Prefix, usize)]) {
    if !cx.verbose {
        return;
    }
    let mut has_place = vec![false; subnets.len()];
    for (_, place) in trie {
        has_place[*place] = true;
    }
    for (subnet, has_place) in subnets.iter().zip(has_place) {
        let note = if has_place { "" } else { ": never, because an earlier one has all of its addresses" };
        cx.debug(format_args!("subnet {}{note}", subnet.label));
    }
}

/// A subnet and what was sent to it.
#[derive(Clone, Debug)]
pub struct Row {
    /// As it was typed.
    pub label: String,
    /// Bytes, in this interval.
    pub bytes: u64,
    /// What to count them in.
    pub unit: Unit,
}

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    let converted = args.format != Unit::Bytes;
    Table::new(args.format())
        .col(interval())
        .col(
            left("SUBNET", 21, |r: &Row| r.label.as_bytes().into())
                .about(About::text("The subnet, as it was typed.")),
        )
        .col(
            right("VALUE", 6, |r: &Row| r.unit.whole(r.bytes).into())
                .key("whole")
                .except(Format::Json)
                .about(About::count("What was sent in the interval, in whole units of -f.")),
        )
        .col(
            data("bytes", |r: &Row| r.bytes.into())
                .about(About::count("Bytes that were sent in the interval.")),
        )
        .col_if(
            converted,
            data("unit", |r: &Row| r.unit.name().into()).about(About::new(
                Kind::Word(&["b", "k", "m", "B", "K", "M"]),
                "With -f: the unit of value.",
            )),
        )
        .col_if(
            converted,
            data("value", |r: &Row| {
                r.unit.fraction(r.bytes).map_or(Cell::Unsigned(r.unit.whole(r.bytes)), Cell::Float)
            })
            .about(About::new(Kind::Number, "With -f: what was sent, in that unit.")),
        )
}

/// What was sent since the last time.
fn taken(args: &Options, sums: &mut Counters, subnets: &[Subnet]) -> Result<Vec<Row>> {
    let sent = sums.increments()?;
    let bytes = sent.chunks_exact(SUM_WORDS).map(|words| words.iter().fold(0_u64, |a, b| a.wrapping_add(*b)));
    let rows = subnets.iter().zip(bytes).filter(|(_, bytes)| *bytes > 0);
    Ok(rows.map(|(subnet, bytes)| args.row(&subnet.label, bytes)).collect())
}

/// One block. Most bytes come first; where there are as many, the order of the list stays.
pub fn block(args: &Options, out: &mut Out, mut rows: Vec<Row>, now_ns: u64) {
    rows.sort_by_key(|row| Reverse(row.bytes));
    let (date, time) = (out.clock().mdy(now_ns), out.clock().hms(now_ns).to_owned());
    if args.object {
        out.raw_row(|to| object(to, &date, &time, &rows));
        return;
    }
    out.line(format_args!("[{date} {time}]"));
    let table = table(args);
    // BCC's have no titles.
    if out.is_chosen() && !rows.is_empty() {
        out.header(&table);
    }
    for row in &rows {
        out.row(&table, now_ns, row);
    }
}

/// BCC's JSON: fractions are those of Python.
fn object(to: &mut Vec<u8>, date: &str, time: &str, rows: &[Row]) {
    to.extend_from_slice(format!("{{\"date\": \"{date}\", \"time\": \"{time}\", \"entries\": {{").as_bytes());
    for (nth, row) in rows.iter().enumerate() {
        if nth > 0 {
            to.extend_from_slice(b", ");
        }
        push_json_string(to, &row.label);
        to.extend_from_slice(b": ");
        match row.unit.fraction(row.bytes) {
            Some(fraction) => push_python_float(to, fraction),
            None => to.extend_from_slice(row.unit.whole(row.bytes).to_string().as_bytes()),
        }
    }
    to.extend_from_slice(b"}}\n");
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_map_type};
    use clap::FromArgMatches as _;
    use proptest::prelude::*;
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::out::Clock;
    use crate::sys::bpf::{self, MapHandle};

    fn prefixes(list: &str) -> Vec<Prefix> {
        subnets(list).unwrap().into_iter().map(|subnet| subnet.prefix).collect()
    }

    fn refused(list: &str) -> String {
        format!("{:#}", subnets(list).unwrap_err())
    }

    /// What the kernel does: the longest prefix that the address has.
    fn longest(trie: &[(Prefix, usize)], address: &Prefix) -> Option<usize> {
        trie.iter()
            .filter(|(prefix, _)| prefix.contains(address))
            .max_by_key(|(p, _)| p.len)
            .map(|found| found.1)
    }

    /// What the user asked for.
    fn first(subnets: &[Subnet], address: &Prefix) -> Option<usize> {
        subnets.iter().position(|subnet| subnet.prefix.contains(address))
    }

    fn v4(address: &str) -> Prefix {
        Prefix::new(false, u128::from(u32::from(address.parse::<Ipv4Addr>().unwrap())) << 96, 32)
    }

    #[test]
    fn the_first_of_the_default_list_counts() {
        let list = subnets(DEFAULT).unwrap();
        let labels: Vec<&str> = list.iter().map(|subnet| subnet.label.as_str()).collect();
        assert_eq!(labels, ["127.0.0.1/32", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/0"]);
        let trie = trie(&list);
        for (address, place) in [
            ("127.0.0.1", 0),
            ("127.0.0.2", 4),
            ("10.255.255.255", 1),
            ("11.0.0.0", 4),
            ("172.15.255.255", 4),
            ("172.31.255.255", 2),
            ("172.32.0.0", 4),
            ("192.168.0.1", 3),
            ("0.0.0.0", 4),
            ("255.255.255.255", 4),
        ] {
            assert_eq!(longest(&trie, &v4(address)), Some(place), "{address}");
        }
        assert_eq!(longest(&trie, &prefixes("::/0")[0]), None);
    }

    #[test]
    fn what_ipv6_sockets_send_to_ipv4_addresses_counts_for_the_first_that_has_it() {
        let place = |list: &str, address: &str| {
            longest(&trie(&subnets(list).unwrap()), &prefixes(&format!("{address}/128"))[0])
        };
        assert_eq!(place(DEFAULT, "::ffff:10.1.2.3"), Some(1));
        assert_eq!(place(DEFAULT, "::ffff:11.1.2.3"), Some(4));
        assert_eq!(place(DEFAULT, "::10.1.2.3"), None);
        assert_eq!(place("10.0.0.0/8,::/0", "::ffff:10.1.2.3"), Some(0));
        assert_eq!(place("::/0,10.0.0.0/8", "::ffff:10.1.2.3"), Some(0));
        assert_eq!(place("::ffff:10.1.0.0/112,10.0.0.0/8", "::ffff:10.1.2.3"), Some(0));
        assert_eq!(place("::ffff:10.1.0.0/112,10.0.0.0/8", "::ffff:10.2.2.3"), Some(1));
        assert_eq!(place("10.0.0.0/8,::ffff:10.1.0.0/112", "::ffff:10.1.2.3"), Some(0));
    }

    #[test]
    fn what_an_earlier_subnet_has_is_left_out() {
        let places = |list: &str| -> Vec<usize> {
            let trie = trie(&subnets(list).unwrap()).into_iter();
            trie.filter(|(prefix, _)| !prefix.v6 || prefix.len < 96).map(|(_, place)| place).collect()
        };
        assert_eq!(places("0.0.0.0/0,10.0.0.0/8,10.1.0.0/16"), [0]);
        assert_eq!(places("10.1.0.0/16,0.0.0.0/0,10.0.0.0/8"), [1, 0]);
        assert_eq!(places("10.1.1.0/24,10.1.0.0/16,10.0.0.0/8,10.1.1.1/32"), [2, 1, 0]);
        assert_eq!(places("10.1.0.0/16,10.1.2.3/16"), [0]);
        assert_eq!(places("::/0,0.0.0.0/0"), [1, 0]);
        assert_eq!(crate::error::exit_code(&subnets(" ").unwrap_err()), 2);
    }

    #[test]
    fn subnets_as_people_type_them() {
        let same = |one: &str, other: &str| assert_eq!(prefixes(one), prefixes(other), "{one}");
        same("192.30.253.110/27", "192.30.253.96/27");
        same("10.1/16", "10.0.0.0/16");
        same("0x7f.1/8", "127.0.0.0/8");
        same("010.0.0.1/32", "8.0.0.1/32");
        same("3232235777/32", "192.168.1.1/32");
        same("10.0.0.0/+8", "10.0.0.0/ 8");
        same("10.0.0.0/8, 192.30.253.96/27 ", "10.0.0.0/8,192.30.253.96/27");
        same("2001:db8::1/32", "2001:db8:ffff::/32");
        same("::ffff:10.0.0.1/104", "::ffff:a00:0/104");
        assert_eq!(subnets("10.0.0.7/8").unwrap()[0].label, "10.0.0.7/8");
    }

    #[test]
    fn wrong_subnets_get_bccs_sentences() {
        for item in ["10.0.0.0", "", "1/2/3"] {
            let expected = format!("Subnet [{item}] is invalid, please refer to the examples.");
            assert_eq!(refused(&format!("1.1.1.1/1,{item}")), expected);
        }
        for item in [
            "x/8",
            "/8",
            "256.1.1.1/8",
            "1.2.3.4.5/8",
            "1..2/8",
            "08.1/8",
            "-1/8",
            "+1/8",
            "1.+2/8",
            "0x/8",
            "1.2.65536/8",
            "4294967296/8",
            "::g/8",
            "fe80::1%lo/64",
            ":/8",
        ] {
            let expected = format!("Invalid net address in subnet [{item}], please refer to the examples.");
            assert_eq!(refused(item), expected);
        }
        for item in ["10.0.0.0/a", "10.0.0.0/", "10.0.0.0/8.0", "10.0.0.0/- 8", "::/x", "10.0.0.0/+"] {
            assert_eq!(refused(item), format!("Invalid mask in subnet [{item}]. Mask must be an int"));
        }
        for item in ["10.0.0/33", "10.0.0.0/-1", "10.0.0.0/99999999999999999999"] {
            let expected = format!("Invalid mask in subnet [{item}]. Must be an int between 0 and 32.");
            assert_eq!(refused(item), expected);
        }
        assert_eq!(refused("::/129"), "Invalid mask in subnet [::/129]. Must be an int between 0 and 128.");
    }

    #[test]
    fn keys_are_in_network_byte_order() {
        let key = prefixes("10.1.2.3/24")[0].key4();
        assert_eq!((key.bits, key.addr.to_ne_bytes()), (24, [10, 1, 2, 0]));
        let key = prefixes("2001:db8::ff/128")[0].key6();
        assert_eq!(key.bits, 128);
        assert_eq!(key.addr.map(u32::to_ne_bytes), [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 0xff]]);
    }

    /// Prefixes that overlap often: few different bits, at the beginning and at the end.
    fn some_prefix() -> impl Strategy<Value = Prefix> {
        (any::<bool>(), 0_u128..8, 0_u128..8, 0_u32..10).prop_map(|(v6, high, low, len)| {
            let width = if v6 { 128 } else { 32 };
            let bits = high << 125 | low << (128 - width);
            // Up to 4 bits from the beginning, or up to 5 from the end.
            Prefix::new(v6, bits, if len < 5 { len } else { width + 5 - len })
        })
    }

    fn list(prefixes: &[Prefix]) -> Vec<Subnet> {
        prefixes.iter().map(|&prefix| Subnet { label: String::new(), prefix }).collect()
    }

    /// The tables of the kernel, or nothing where we may not make any.
    fn kernel_tries(trie: &[(Prefix, usize)]) -> Option<[MapHandle; 2]> {
        let map = |key: usize| {
            let fd = bpf::map_create(&bpf::Map {
                name: "test",
                map_type: bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32,
                key_size: u32::try_from(key).unwrap(),
                value_size: 4,
                max_entries: 100,
                flags: BPF_F_NO_PREALLOC,
                btf: None,
                inner: None,
            });
            fd.ok().map(|fd| MapHandle::new(fd, key, 4))
        };
        let (four, six) = (map(size_of::<Prefix4>())?, map(size_of::<Prefix6>())?);
        for (prefix, place) in trie {
            let place = u32::try_from(*place).unwrap().to_ne_bytes();
            let set = if prefix.v6 {
                six.update(prefix.key6().as_bytes(), &place)
            } else {
                four.update(prefix.key4().as_bytes(), &place)
            };
            set.unwrap();
        }
        Some([four, six])
    }

    proptest! {
        #[test]
        fn the_longest_prefix_carries_the_first_subnet(
            items in prop::collection::vec(some_prefix(), 0..40),
            addresses in prop::collection::vec((any::<bool>(), 0_u128..8, 0_u128..8), 1..40),
        ) {
            let subnets = list(&items);
            let trie = trie(&subnets);
            for (v6, high, low) in addresses {
                let width = if v6 { 128 } else { 32 };
                let address = Prefix::new(v6, high << 125 | low << (128 - width), width);
                prop_assert_eq!(longest(&trie, &address), first(&subnets, &address));
            }
            // Nothing is there in vain: without it, its own address would go elsewhere.
            for (nth, (prefix, place)) in trie.iter().enumerate() {
                let mut less = trie.clone();
                less.remove(nth);
                prop_assert_ne!(longest(&less, prefix), Some(*place));
            }
        }

        #[test]
        fn the_kernels_trie_finds_it(
            items in prop::collection::vec(some_prefix(), 1..40),
            addresses in prop::collection::vec((any::<bool>(), 0_u128..8, 0_u128..8), 1..40),
        ) {
            let subnets = list(&items);
            let Some([four, six]) = kernel_tries(&trie(&subnets)) else { return Ok(()) };
            for (v6, high, low) in addresses {
                let width = if v6 { 128 } else { 32 };
                let address = Prefix::new(v6, high << 125 | low << (128 - width), width);
                let mut place = [0; 4];
                let found = if v6 {
                    six.lookup(address.key6().as_bytes(), &mut place)
                } else {
                    four.lookup(address.key4().as_bytes(), &mut place)
                };
                let found = found.unwrap().then(|| u32::from_ne_bytes(place) as usize);
                prop_assert_eq!(found, first(&subnets, &address));
            }
        }

        #[test]
        fn fractions_and_whole_numbers_agree(bytes in 0_u64..1 << 50) {
            for unit in Unit::value_variants() {
                if let Some(fraction) = unit.fraction(bytes) {
                    prop_assert_eq!(fraction.floor().to_string(), unit.whole(bytes).to_string());
                }
            }
        }
    }

    fn printed(words: &str, rows: &[(&str, u64)]) -> String {
        let words = format!("tcpsubnet {words}");
        let matches =
            crate::tool::command::<Tcpsubnet>().try_get_matches_from(words.split_whitespace()).unwrap();
        let args = Options::from_arg_matches(&matches).unwrap();
        let rows = rows.iter().map(|&(label, bytes)| args.row(label, bytes));
        let mut out = Out::memory(args.format(), Clock::fixed(1_525_387_138_000_000_000, 0));
        block(&args, &mut out, rows.collect(), 0);
        out.take()
    }

    #[test]
    fn blocks_are_bccs_bytes() {
        let rows = [
            ("10.0.0.0/8", 300),
            ("0.0.0.0/0", 2104),
            ("2001:db8:1111:2222::/64", 12_345_678),
            ("::/0", 300),
        ];
        assert_eq!(
            printed("", &rows),
            "[05/03/18 22:38:58]\n\
             2001:db8:1111:2222::/64 12345678\n\
             0.0.0.0/0               2104\n\
             10.0.0.0/8               300\n\
             ::/0                     300\n"
        );
        assert_eq!(printed("", &[]), "[05/03/18 22:38:58]\n");
        assert_eq!(
            printed("-fK", &rows[..2]),
            "[05/03/18 22:38:58]\n0.0.0.0/0                  2\n10.0.0.0/8                 0\n"
        );
        assert_eq!(printed("-fb", &[("::/0", 1000)]), "[05/03/18 22:38:58]\n::/0                    8000\n");
        assert_eq!(
            printed("-f k", &[("::/0", u64::MAX)]),
            format!("[05/03/18 22:38:58]\n::/0                  {}\n", u64::MAX / 128)
        );
        assert_eq!(
            printed("-J -fK", &rows[..2]),
            "{\"date\": \"05/03/18\", \"time\": \"22:38:58\", \"entries\": {\"0.0.0.0/0\": 2.0546875, \
             \"10.0.0.0/8\": 0.29296875}}\n"
        );
        assert_eq!(
            printed("-J", &rows[..1]),
            "{\"date\": \"05/03/18\", \"time\": \"22:38:58\", \"entries\": {\"10.0.0.0/8\": 300}}\n"
        );
        assert_eq!(
            printed("-JfM", &[("::/0", 1)]),
            "{\"date\": \"05/03/18\", \"time\": \"22:38:58\", \"entries\": {\"::/0\": 9.5367431640625e-07}}\n"
        );
        assert_eq!(printed("-J", &[]), "{\"date\": \"05/03/18\", \"time\": \"22:38:58\", \"entries\": {}}\n");
        assert!(printed("--json", &rows[..1]).ends_with(",\"subnet\":\"10.0.0.0/8\",\"bytes\":300}\n"));
        assert!(
            printed("--json -fK", &rows[..1])
                .ends_with("\"bytes\":300,\"unit\":\"K\",\"value\":0.29296875}\n")
        );
        assert!(
            printed("--json -fb", &rows[..1]).ends_with("\"bytes\":300,\"unit\":\"b\",\"value\":2400}\n")
        );
        assert_eq!(printed("--json", &[]), "");
    }
}
