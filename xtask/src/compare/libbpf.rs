//! The tools of libbpf-tools as a third party: their columns are others, so what is compared is what both say of an
//! event, in the columns that both have.

use std::collections::BTreeMap;

use super::known::{Peer, reason, take_alone};
use super::rows::Compared;
use super::subjects::{Measure, Subject};
use super::sums::is_near;
use super::traffic::{FIRST, LAST, names_port};

/// How libbpf-tools' tool is called and read.
#[derive(Clone, Copy)]
pub(super) struct Libbpf {
    pub(super) args: &'static str,
    /// Columns that have another name there: theirs, netbcc's.
    pub(super) names: &'static [(&'static str, &'static str)],
    /// The columns that say to which connection a row belongs, if not netbcc's.
    pub(super) connection: Option<&'static [&'static str]>,
    /// What its lines say as a table.
    pub(super) read: fn(&[&str]) -> Vec<String>,
    /// What netbcc's lines say as a table.
    pub(super) read_ours: fn(&[&str]) -> Vec<String>,
}

impl Libbpf {
    /// Without arguments, with netbcc's names.
    pub(super) const PLAIN: Self =
        Self { args: "", names: &[], connection: None, read: as_it_is, read_ours: as_it_is };
}

/// A row: its text, and what it says in each column, by netbcc's names.
struct Row {
    text: String,
    cells: BTreeMap<String, String>,
}

fn as_it_is(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Holds what libbpf-tools' tool printed against netbcc's.
pub(super) fn compare_libbpf(subject: &Subject, libbpf: &Libbpf, theirs: &[&str], ours: &[&str]) -> Compared {
    let theirs = rows(&(libbpf.read)(theirs), libbpf.names);
    let ours = rows(&(libbpf.read_ours)(ours), libbpf.names);
    let mut compared = Compared { theirs: theirs.len(), ours: ours.len(), ..Compared::default() };
    let (Some(first), Some(our_first)) = (earliest(subject, &theirs), earliest(subject, &ours)) else {
        compared.problems.push("one of them shows no row: there is nothing to compare".to_owned());
        return compared;
    };
    let columns: Vec<&String> =
        first.cells.keys().filter(|name| our_first.cells.contains_key(*name)).collect();
    let mut connections: BTreeMap<String, [Vec<&Row>; 2]> = BTreeMap::new();
    for (which, rows) in [&theirs, &ours].into_iter().enumerate() {
        for row in rows {
            let key = libbpf
                .connection
                .unwrap_or(subject.connection)
                .iter()
                .filter(|name| columns.iter().any(|column| column == *name));
            let key: Vec<&str> =
                key.filter_map(|name| row.cells.get(*name)).map(|cell| key_of(cell)).collect();
            connections.entry(key.join(" ")).or_default()[which].push(row);
        }
    }
    for [mut theirs, mut ours] in connections.into_values() {
        let tool = (subject.tool, Peer::Libbpf);
        for reason in take_alone(tool, &mut theirs, &mut ours, |row| row.text.as_str()) {
            *compared.known.entry(reason).or_default() += 1;
        }
        for nth in 0..theirs.len().max(ours.len()) {
            let (their, our) = (theirs.get(nth).copied(), ours.get(nth).copied());
            let wrong = match (their, our) {
                (Some(their), Some(our)) => {
                    let firsts = (first, our_first);
                    let wrong = columns.iter().filter(|name| !same(subject, name, their, our, firsts));
                    wrong.map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
                }
                _ => "a row".to_owned(),
            };
            if wrong.is_empty() {
                continue;
            }
            let [their, our] = [their, our].map(|row| row.map(|row| row.text.as_str()));
            compared.differ(reason(subject.tool, Peer::Libbpf, their, our), || match (their, our) {
                (Some(their), Some(our)) => format!("{wrong} differs:\n    libbpf {their}\n    netbcc {our}"),
                (Some(their), None) => format!("only libbpf-tools has: {their}"),
                (None, our) => format!("only netbcc has:       {}", our.unwrap_or_default()),
            });
        }
    }
    compared
}

/// The row from which times are counted.
fn earliest<'r>(subject: &Subject, rows: &'r [Row]) -> Option<&'r Row> {
    let since = subject.measured.iter().find(|measured| matches!(measured.1, Measure::Since(_)));
    let time = |row: &Row| {
        let cell = since.and_then(|(column, _)| row.cells.get(*column));
        cell.and_then(|cell| cell.parse::<f64>().ok()).unwrap_or(f64::MAX)
    };
    rows.iter().min_by(|a, b| time(a).total_cmp(&time(b)))
}

/// The rows of a text, each by the last header above it.
fn rows(lines: &[String], names: &[(&str, &str)]) -> Vec<Row> {
    let mut columns: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_some_and(|first| HEADERS.contains(first)) {
            let name = |word: &&str| names.iter().find(|name| name.0 == *word).map(|name| name.1);
            columns = words.iter().map(|word| name(word).unwrap_or(word)).collect();
        } else if words.len() == columns.len()
            && !words.is_empty()
            && !names_port(line, FIRST)
            && !names_port(line, LAST)
        {
            let cells =
                columns.iter().zip(&words).map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned()));
            rows.push(Row { text: line.clone(), cells: cells.collect() });
        }
    }
    rows
}

/// How headers begin.
const HEADERS: [&str; 8] = ["TIME(s)", "PID", "T", "SKADDR", "SOFTIRQ", "HARDIRQ", "ADDRESS", "LIMIT"];

/// Some put an address into brackets, some cut a name.
fn key_of(cell: &str) -> &str {
    cell.trim_matches(['[', ']'])
}

/// Whether both say the same in this column.
fn same(subject: &Subject, column: &str, theirs: &Row, ours: &Row, firsts: (&Row, &Row)) -> bool {
    let cell = |row: &Row| row.cells.get(column).map_or(String::new(), |cell| key_of(cell).to_owned());
    let (a, b) = (cell(theirs), cell(ours));
    let number = |cell: &str| cell.parse::<f64>().unwrap_or(f64::NAN);
    match subject.measure(column) {
        Some(Measure::Since(within)) => {
            let (since_a, since_b) = (cell(firsts.0), cell(firsts.1));
            ((number(&a) - number(&since_a)) - (number(&b) - number(&since_b))).abs() <= within
        }
        Some(Measure::Span(within)) => (number(&a) - number(&b)).abs() <= within,
        Some(Measure::Near(part)) => is_near(number(&a), number(&b), part),
        Some(Measure::Clock(_)) => true,
        // Each cuts names at another length.
        None if column.ends_with("COMM") => a.starts_with(&b) || b.starts_with(&a),
        // Some show hundredths, rounded, of what netbcc, as BCC, shows whole.
        None if column.ends_with("_KB") => (-0.005..1.005).contains(&(number(&a) - number(&b))),
        None => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::super::subjects::SUBJECTS;
    use super::*;

    fn problems(theirs: &[&str], ours: &[&str]) -> Vec<String> {
        let subject = SUBJECTS.iter().find(|subject| subject.tool == "tcplife").expect("is covered");
        compare_libbpf(subject, &subject.libbpf.expect("has one"), theirs, ours).problems
    }

    const THEIRS: [&str; 2] = [
        "PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS",
        "9       abcdefghijklmno  127.0.0.1       40000 127.0.0.1       20001 2.93   68.36  1.20",
    ];
    const OURS: [&str; 2] = [
        "TIME(s)   PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS",
        "0.000000  9     abcdefghij 127.0.0.1       40000 127.0.0.1       20001     2    68 1.25",
    ];

    #[test]
    fn columns_that_both_have_are_compared() {
        assert_eq!(problems(&THEIRS, &OURS), Vec::<String>::new());
        let rounded = THEIRS[1].replace("68.36", "69.00");
        assert_eq!(problems(&[THEIRS[0], &rounded], &OURS), Vec::<String>::new());
        let more = OURS[1].replace(" 68 ", " 69 ");
        assert!(problems(&THEIRS, &[OURS[0], &more])[0].starts_with("RX_KB differs"));
        let other = OURS[1].replace("abcdefghij", "xyz       ");
        assert!(problems(&THEIRS, &[OURS[0], &other])[0].starts_with("COMM differs"));
    }

    #[test]
    fn a_row_that_one_of_them_lacks_is_a_difference() {
        assert!(problems(&[THEIRS[0], THEIRS[1], THEIRS[1]], &OURS)[0].starts_with("only libbpf-tools has"));
        assert!(problems(&THEIRS, &[OURS[0], OURS[1], OURS[1]])[0].starts_with("only netbcc has"));
        assert!(problems(&[THEIRS[0]], &OURS)[0].contains("nothing to compare"));
    }
}
