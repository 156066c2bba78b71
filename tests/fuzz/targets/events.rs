//! Events of every tool, with any bytes in them: each gives one harmless line of text, a record of CSV with all its
//! fields, and a JSON object that is what the tool's schema says.
#![no_main]

use std::collections::HashMap;
use std::rc::Rc;

use clap::FromArgMatches as _;
use libfuzzer_sys::fuzz_target;
use netbcc::out::{Format, Table};
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
use netbcc::{fuzzing, registry};
use netbcc_common::addr::AF_INET6;
use netbcc_common::socket::SocketFacts;
use netbcc_fuzz::{is_harmless, printed, records, take, take_some};
use netbcc_tests::schema::Schema;
use zerocopy::FromBytes;

/// Prints a row made of bytes, in a form of a tool.
type Print = Box<dyn Fn(&mut &[u8]) -> String>;

struct Form {
    tool: &'static str,
    format: Format,
    print: Print,
}

/// The options of this command line.
fn options<T: Tool>(args: &str) -> T::Args {
    let words = std::iter::once(T::SPEC.name).chain(args.split_whitespace());
    let matches = tool::command::<T>().try_get_matches_from(words).unwrap_or_else(|e| panic!("{args}: {e}"));
    T::Args::from_arg_matches(&matches).expect("what was parsed can be taken")
}

fn format(args: &str) -> Format {
    let words: Vec<&str> = args.split(' ').collect();
    match () {
        () if words.contains(&"--json") => Format::Json,
        () if words.contains(&"--csv") => Format::Csv,
        () => Format::Text,
    }
}

/// A form for each of these command lines.
fn forms<T: Tool, R: 'static>(
    lines: &[&str],
    table: fn(&T::Args) -> Table<R>,
    row: fn(&T::Args, &mut &[u8]) -> Option<(u64, R)>,
) -> Vec<Form> {
    let form = |args: &&str| {
        let (options, format) = (options::<T>(args), format(args));
        let table = table(&options);
        let print = move |data: &mut &[u8]| match row(&options, data) {
            Some((ts_ns, row)) => printed(format, &table, ts_ns, &row),
            None => String::new(),
        };
        Form { tool: T::SPEC.name, format, print: Box::new(print) }
    };
    lines.iter().map(form).collect()
}

/// What the kernel side sends, of any bytes.
fn event<E: FromBytes>(data: &mut &[u8]) -> Option<E> {
    let mut bytes = vec![0; size_of::<E>()];
    let (now, rest) = data.split_at(data.len().min(bytes.len()));
    bytes[..now.len()].copy_from_slice(now);
    *data = rest;
    E::read_from_bytes(&bytes).ok()
}

/// Events of tools that print what the kernel side sends and nothing else.
macro_rules! plain {
    ($tool:ident, $module:ident, $lines:expr) => {
        forms::<$tool, _>($lines, $module::table, |_, data| {
            let event = event::<netbcc_common::$module::Event>(data)?;
            Some((event.ts_ns, event.into()))
        })
    };
}

/// Words of the kernel's.
fn resets() -> tcpreset::Reasons {
    tcpreset::Reasons::new(&[(14, "SK_RST_REASON_TCP_STATE".to_owned())])
}

fn all() -> Vec<Form> {
    let mut all = [
        plain!(Tcpstates, tcpstates, &["", "-wtT", "--csv", "--csv -tTw", "--json -t"]),
        plain!(Tcpaccept, tcpaccept, &["-tT", "--json"]),
        plain!(Tcpconnlat, tcpconnlat, &["-tL", "--json"]),
        plain!(Tcptracer, tcptracer, &["-t", "-tvU", "--json"]),
        plain!(Tcprtt, tcprtt, &["--json --min"]),
        plain!(Bindsnoop, bindsnoop, &["-tUE", "-wE", "--json -E"]),
        plain!(Gethostlatency, gethostlatency, &["", "--errors", "--json"]),
        plain!(Softirqslower, softirqslower, &["", "--json"]),
        plain!(Solisten, solisten, &["-t --show-netns", "--json"]),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    all.extend(forms::<Tcplife, _>(
        &["", "-wtT", "--csv", "--csv -tT", "--json"],
        tcplife::table,
        |_, data| {
            let event = event::<netbcc_common::tcplife::Event>(data)?;
            Some((event.ts_ns, event.into()))
        },
    ));
    all.extend(forms::<Tcppktlat, _>(&["", "-Tw --first", "--json"], tcppktlat::table, |_, data| {
        let [first] = take(data);
        let event = event::<netbcc_common::tcppktlat::Event>(data)?;
        Some((event.ts_ns, tcppktlat::Row::new((event, SocketFacts::default()), first & 1 != 0)))
    }));
    all.extend(forms::<Tcpconnect, _>(&["", "-tULd", "--json -d -L"], tcpconnect::table, |_, data| {
        let query = take_some(data).to_vec();
        let event = event::<netbcc_common::tcpconnect::Event>(data)?;
        Some((event.ts_ns, tcpconnect::Row { event: event.into(), query }))
    }));
    all.extend(forms::<Tcpconnect, _>(&["-c", "-cs", "-cs --json"], tcpconnect::count_table, |_, data| {
        let connects = u64::from_ne_bytes(take(data));
        Some((connects, tcpconnect::Count { flow: event(data)?, connects }))
    }));
    all.extend(forms::<Tcpreset, _>(&["", "-tTw", "--json"], tcpreset::table, |_, data| {
        let event = event::<netbcc_common::tcpreset::Event>(data)?;
        let facts =
            SocketFacts { owner_pid: event.cpu_pid, owner_comm: event.cpu_comm, ..SocketFacts::default() };
        Some((event.ts_ns, tcpreset::Row::new((event, facts), &resets())))
    }));
    all.extend(forms::<Tcpreset, _>(&["-c", "-cwi1", "-c --json"], tcpreset::count_table, |_, data| {
        let count = u64::from_ne_bytes(take(data));
        Some((count, tcpreset::Count::new(event(data)?, count, &resets())))
    }));
    all.extend(forms::<Tcpretrans, _>(
        &["-s -l", "--failed", "--json --failed"],
        tcpretrans::table,
        |_, data| {
            let event = event::<netbcc_common::tcpretrans::Event>(data)?;
            Some((event.ts_ns, event.into()))
        },
    ));
    all.extend(forms::<Tcpretrans, _>(&["-c", "-c --json"], tcpretrans::count_table, |_, data| {
        let (retransmits, segments) = (u64::from_ne_bytes(take(data)), u64::from_ne_bytes(take(data)));
        Some((retransmits, tcpretrans::Count { flow: event(data)?, retransmits, segments }))
    }));
    all.extend(forms::<Tcpdrop, _>(&["", "--json"], tcpdrop::table, |_, data| {
        let text = |data: &mut &[u8]| String::from_utf8_lossy(take_some(data)).into_owned();
        let reason = text(data);
        let frames = vec![text(data), text(data)];
        let event = event::<netbcc_common::tcpdrop::Event>(data)?;
        let stack = Rc::new(tcpdrop::Functions::new(frames));
        Some((event.ts_ns, tcpdrop::Row::new(event, Some(reason.into()), stack)))
    }));
    all.extend(forms::<Tcpwhy, _>(&["", "-wtT", "--csv", "--json --slow 1"], tcpwhy::table, |args, data| {
        let event = event::<netbcc_common::tcpwhy::Event>(data)?;
        Some((event.ts_ns, tcpwhy::Row::new(event, args, u64::from_ne_bytes(take(data)), 4000)))
    }));
    // A table is of one family; so are its rows.
    all.extend(forms::<Tcptop, _>(
        &["", "--json"],
        |args| tcptop::table(args, true),
        |_, data| {
            let mut key = event::<netbcc_common::tcptop::Key>(data)?;
            key.tuple.family = AF_INET6;
            Some((u64::from_ne_bytes(take(data)), tcptop::Row::new(key, event(data)?)))
        },
    ));
    all.extend(forms::<Tcpsubnet, _>(&["-f b", "-f M", "--json -f k"], tcpsubnet::table, |args, data| {
        let bytes = u64::from_ne_bytes(take(data));
        Some((bytes, args.row(&String::from_utf8_lossy(take_some(data)), bytes)))
    }));
    all.extend(forms::<Netqtop, _>(&["-n lo", "-n lo -t", "-n lo --json"], netqtop::table, |_, data| {
        let [direction, queue] = take(data);
        let row = netqtop::Row {
            direction: if direction == 0 { netqtop::Direction::Tx } else { netqtop::Direction::Rx },
            queue: (queue != 0).then(|| u64::from_ne_bytes(take(data))),
            bytes: u64::from_ne_bytes(take(data)),
            // Six of them are added up; a count that large would take centuries.
            packets: std::array::from_fn(|_| u64::from_ne_bytes(take(data)) >> 3),
            interval_s: f64::from(u32::from_ne_bytes(take(data)).max(1)) / 1000.0,
        };
        Some((row.bytes, row))
    }));
    all.extend(forms::<Hardirqs, _>(&["", "-N", "-C", "--per-cpu", "--json"], hardirqs::table, |_, data| {
        let bytes: [u8; size_of::<netbcc_common::hardirqs::Sums>()] = take(data);
        let mut sums = netbcc_common::hardirqs::Sums::read_from_bytes(&bytes).ok()?;
        // Of several CPUs they are added up.
        sums.count >>= 8;
        sums.unhandled >>= 8;
        let [cpu] = take(data);
        let name = String::from_utf8_lossy(&sums.name).into_owned();
        let irqs = vec![cpu.into()];
        Some((sums.max_ns, hardirqs::Total { name, cpu: Some(cpu.into()), irqs, sums }))
    }));
    all.extend(forms::<Tcpcong, _>(
        &["", "-u", "--json"],
        |args| tcpcong::table(args, true),
        |_, data| {
            let spans = std::array::from_fn(|_| u64::from_ne_bytes(take(data)));
            let flow = event::<netbcc_common::tcpcong::Flow>(data)?;
            Some((flow.since_ns, tcpcong::Row::new(flow, spans, u64::from_ne_bytes(take(data)))))
        },
    ));
    all.extend(forms::<Tcpcong, _>(&["--json -d", "--json -du"], tcpcong::slot_table, |_, data| {
        let ([state], [bits]) = (take(data), take(data));
        let count = u64::from_ne_bytes(take(data));
        Some((count, tcpcong::Slot { state: state.into(), bits: bits.into(), count }))
    }));
    all.extend(forms::<Tcprtt, _>(
        &["--json", "--json -m -b", "--json -Be"],
        tcprtt::slot_table,
        |_, data| {
            let [bits] = take(data);
            let (count, samples) = (u64::from_ne_bytes(take(data)), u64::from_ne_bytes(take(data)));
            let addr = Some(std::net::Ipv6Addr::from(take::<16>(data)).into());
            let avg_us = f64::from(u32::from_ne_bytes(take(data))) / 7.0;
            Some((count, tcprtt::Slot { addr, bits: bits.into(), count, avg_us, samples }))
        },
    ));
    all.extend(forms::<Tcpsynbl, _>(&["--json"], tcpsynbl::slot_table, |_, data| {
        let [bits] = take(data);
        let (count, backlog_max) = (u64::from_ne_bytes(take(data)), u32::from_ne_bytes(take(data)));
        Some((count, tcpsynbl::Slot { backlog_max, bits: bits.into(), count }))
    }));
    let listeners = ["--listeners", "--listeners --json"];
    all.extend(forms::<Tcpsynbl, _>(&listeners, tcpsynbl::listeners::table, |_, data| {
        let listener = event::<netbcc_common::tcpsynbl::Listener>(data)?;
        let [known] = take(data);
        let (longest, refused) = (u32::from_ne_bytes(take(data)), u64::from_ne_bytes(take(data)));
        let refused = (known % 4 < 3).then_some(refused);
        let row = tcpsynbl::listeners::Row::new(listener, longest, (refused, known % 2 == 0));
        Some((listener.born_ns, row))
    }));
    all.extend(forms::<Softirqs, _>(&["", "-N", "-C", "--json"], softirqs::table, |_, data| {
        let [vector] = take(data);
        let (time_ns, count) = (u64::from_ne_bytes(take(data)), u64::from_ne_bytes(take(data)));
        Some((time_ns, softirqs::Total { vector: vector.into(), time_ns, count }))
    }));
    all
}

thread_local! {
    static FORMS: Vec<Form> = all();
    static SCHEMAS: HashMap<&'static str, Schema> = registry::TOOLS
        .iter()
        .map(|entry| {
            (entry.spec.name, Schema::parse(&fuzzing::schema(entry).expect("it has one")))
        })
        .collect();
}

fuzz_target!(|data: &[u8]| {
    let Some((&form, mut rest)) = data.split_first() else { return };
    FORMS.with(|forms| {
        let form = &forms[usize::from(form) % forms.len()];
        let text = (form.print)(&mut rest);
        match form.format {
            Format::Text => is_harmless(&text, 2),
            Format::Csv => {
                is_harmless(&text, 2);
                assert_eq!(records(&text).len(), 2, "{text:?}");
            }
            Format::Json => {
                is_harmless(&text, 1);
                if let Err(why) = SCHEMAS.with(|schemas| schemas[form.tool].check(text.trim_end())) {
                    panic!("{}: {why}: {text:?}", form.tool);
                }
            }
        }
    });
});
