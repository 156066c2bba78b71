//! The writers: what CSV, JSON and the journal's protocol carry is what was put in, by parsers of others (the journal's
//! has none that is small; it is read here as its description says).
#![no_main]

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;

use libfuzzer_sys::fuzz_target;
use netbcc::fuzzing;
use netbcc::out::journal::Journal;
use netbcc::out::{Cell, Format, Table, left, right, seconds, wall};
use netbcc_fuzz::{
    drives_a_terminal, is_harmless, printed, records, shifts_a_line, take, take_some, unescaped,
};
use serde_json::Value;

struct Row {
    name: Vec<u8>,
    shown: String,
    list: Vec<String>,
    number: u64,
    signed: i64,
    float: f64,
    ip: IpAddr,
    port: u16,
}

fn table(format: Format) -> Table<Row> {
    Table::new(format)
        .col(seconds(9, 6))
        .col(wall(8))
        .col(left("NAME", 12, |r: &Row| Cell::Name(&r.name)).cut())
        .col(right("NUMBER", 8, |r: &Row| r.number.into()))
        .col(left("SIGNED", 0, |r: &Row| r.signed.into()))
        .col(left("FLOAT", 8, |r: &Row| r.float.into()).precision(2))
        .col(left("HEX", 16, |r: &Row| Cell::Hex(r.number)))
        .col(left("IP", 16, |r: &Row| r.ip.into()))
        .col(left("BRACKETED", 16, |r: &Row| Cell::Bracketed(r.ip)))
        .col(left("END", 20, |r: &Row| Cell::Endpoint(r.ip, r.port)))
        .col(left("SCALED", 8, |r: &Row| Cell::Scaled(r.number)))
        .col(left("SHOWN", 10, |r: &Row| Cell::Shown(&r.shown)))
        .col(left("LIST", 10, |r: &Row| Cell::List(&r.list)))
}

struct Ends {
    journal: Journal,
    journald: UnixDatagram,
    _place: tempfile::TempDir,
}

thread_local! {
    static ENDS: RefCell<Ends> = RefCell::new({
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("a socket");
        Ends { journal: fuzzing::journal(path.into()).expect("it is there"), journald, _place: place }
    });
}

/// The fields of an entry (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn fields(mut entry: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|&byte| byte == b'\n').expect("a field ends with a line end");
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        let (name, value, rest) = if let Some(equals) = line.iter().position(|&byte| byte == b'=') {
            (&line[..equals], &line[equals + 1..], rest)
        } else {
            let (length, rest) = rest.split_first_chunk::<8>().expect("a length");
            let (value, rest) =
                rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("it is short"));
            (line, value, rest.strip_prefix(b"\n").expect("a line end after the value"))
        };
        fields.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
        entry = rest;
    }
    fields
}

/// Insists on a text of a name from which it can be read back, and which stays in its columns.
fn is_the_name(text: &str, name: &[u8]) {
    assert_eq!(unescaped(text), name, "{text:?}");
    assert!(!text.chars().any(|c| drives_a_terminal(c) || shifts_a_line(c)), "{text:?}");
}

fn journal(row: &Row) {
    ENDS.with_borrow_mut(|ends| {
        let entry = ends.journal.entry();
        entry.field("MESSAGE", &[Cell::Name(&row.name), row.number.into()]).bytes("RAW", &row.name).send();
        let mut entry = vec![0; 1 << 16];
        let length = ends.journald.recv(&mut entry).expect("it was sent");
        let fields = fields(&entry[..length]);
        let [(message, text), raw] = &fields[..] else { panic!("two fields") };
        assert_eq!((&**message, raw), ("MESSAGE", &("RAW".to_owned(), row.name.clone())));
        let text = str::from_utf8(text).expect("it is UTF-8");
        let name = text.strip_suffix(&format!(" {}", row.number)).expect("the second cell");
        is_the_name(name, &row.name);
    });
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let [family, names] = take(&mut data);
    let ip = if family & 1 == 0 {
        IpAddr::from(take::<4>(&mut data))
    } else {
        IpAddr::from(take::<16>(&mut data))
    };
    let ts_ns = u64::from_ne_bytes(take(&mut data));
    let row = Row {
        number: u64::from_ne_bytes(take(&mut data)),
        signed: i64::from_ne_bytes(take(&mut data)),
        float: f64::from_bits(u64::from_ne_bytes(take(&mut data))),
        ip,
        port: u16::from_ne_bytes(take(&mut data)),
        name: take_some(&mut data).to_vec(),
        shown: String::from_utf8_lossy(take_some(&mut data)).into_owned(),
        list: (0..names % 4).map(|_| String::from_utf8_lossy(take_some(&mut data)).into_owned()).collect(),
    };

    is_harmless(&printed(Format::Text, &table(Format::Text), ts_ns, &row), 2);

    let text = printed(Format::Csv, &table(Format::Csv), ts_ns, &row);
    is_harmless(&text, 2);
    let records = records(&text);
    let cell = |name: &str| {
        let at = records[0].iter().position(|title| title == name).expect("a column");
        records[1][at].as_str()
    };
    is_the_name(cell("NAME"), &row.name);
    assert_eq!(cell("NUMBER"), row.number.to_string());
    assert_eq!(cell("SIGNED"), row.signed.to_string());
    assert_eq!(cell("HEX"), format!("{:x}", row.number));
    is_the_name(cell("SHOWN"), row.shown.as_bytes());
    is_the_name(cell("LIST"), row.list.join(",").as_bytes());
    assert_eq!(cell("IP").parse::<IpAddr>(), Ok(row.ip));
    assert_eq!(
        cell("BRACKETED"),
        if row.ip.is_ipv4() { cell("IP").to_owned() } else { format!("[{}]", cell("IP")) }
    );
    assert_eq!(cell("END"), format!("{}:{}", cell("IP"), row.port));
    // One more or less in the last place is for ties, where C and Rust agree by the exact value of the double.
    if row.float.is_finite() {
        assert_eq!(cell("FLOAT"), format!("{:.2}", row.float));
    }

    let text = printed(Format::Json, &table(Format::Json), ts_ns, &row);
    is_harmless(&text, 1);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(value["ts_ns"].as_u64(), Some(ts_ns));
    let name = |value: &Value| unescaped(value.as_str().expect("a string"));
    assert_eq!(name(&value["name"]), row.name);
    assert_eq!(value["number"].as_u64(), Some(row.number));
    assert_eq!(value["signed"].as_i64(), Some(row.signed));
    assert_eq!(name(&value["shown"]), row.shown.as_bytes());
    assert_eq!(value["hex"].as_str(), Some(cell("HEX")));
    let list = value["list"].as_array().expect("an array");
    assert!(list.iter().map(name).eq(row.list.iter().map(|name| name.as_bytes())));
    match value["float"].as_f64() {
        Some(float) => assert_eq!(float.to_bits(), row.float.to_bits()),
        None => assert!(!row.float.is_finite() && value["float"].is_null()),
    }

    journal(&row);
});
