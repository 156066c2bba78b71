//! Holds the rows of two tools against each other.

use std::collections::BTreeMap;

use super::known::{KNOWN, Known};
use super::subjects::{Measure, Subject};
use super::traffic::{FIRST, LAST, names_port};

/// What came out of it.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Rows of BCC's tool.
    pub(super) bcc: usize,
    /// Rows of netbcc's.
    pub(super) ours: usize,
    /// The reasons of known differences, and how often each was met.
    pub(super) known: BTreeMap<&'static str, usize>,
    /// Differences that are not known.
    pub(super) problems: Vec<String>,
}

/// A row: its text, and its cells, each with the blanks after it.
#[derive(Clone, Copy)]
struct Row<'a> {
    text: &'a str,
    first: &'a str,
}

impl<'a> Row<'a> {
    fn cells(self) -> Vec<(&'a str, &'a str)> {
        let mut cells = Vec::new();
        let mut rest = self.text.trim_start_matches(' ');
        while !rest.is_empty() {
            let (word, after) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
            let next = after.trim_start_matches(' ');
            cells.push((word, &after[..after.len() - next.len()]));
            rest = next;
        }
        cells
    }

    fn cell(self, nth: usize) -> &'a str {
        self.cells().get(nth).map_or("", |cell| cell.0)
    }
}

/// Compares all that both printed.
pub(super) fn compare_rows(subject: &Subject, bcc: &[&str], ours: &[&str]) -> Compared {
    let mut compared = Compared::default();
    let bcc = body(subject, "BCC", bcc, &mut compared);
    let ours = body(subject, "netbcc", ours, &mut compared);
    (compared.bcc, compared.ours) = (bcc.len(), ours.len());
    let ours = without_known(subject, ours, &mut compared);
    if bcc.is_empty() {
        compared.problems.push("BCC shows no row: there is nothing to compare".to_owned());
    }
    let (theirs, own) = (by_connection(subject, &bcc), by_connection(subject, &ours));
    let mut names: Vec<&String> = theirs.keys().chain(own.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let none = Vec::new();
        let (a, b) = (theirs.get(name).unwrap_or(&none), own.get(name).unwrap_or(&none));
        for nth in 0..a.len().max(b.len()) {
            match (a.get(nth), b.get(nth)) {
                (Some(bcc), Some(ours)) => compare_row(subject, *bcc, *ours, &mut compared),
                (Some(bcc), None) => compared.problems.push(format!("only BCC has:    {}", bcc.text)),
                (None, Some(ours)) => compared.problems.push(format!("only netbcc has: {}", ours.text)),
                (None, None) => {}
            }
        }
    }
    compared
}

/// The rows between the marks; what comes before the rows must be what the subject says.
fn body<'a>(subject: &Subject, whose: &str, lines: &[&'a str], compared: &mut Compared) -> Vec<Row<'a>> {
    let head = subject.head.len().min(lines.len());
    if lines[..head] != *subject.head {
        compared.problems.push(format!("{whose} begins with {:?}", &lines[..head]));
    }
    let rows: Vec<&str> = lines[head..]
        .iter()
        .copied()
        .filter(|line| !line.is_empty() && !names_port(line, FIRST) && !names_port(line, LAST))
        .collect();
    if !lines.iter().any(|line| names_port(line, LAST)) {
        compared.problems.push(format!("{whose} does not show the last connection"));
    }
    let first = rows.first().copied().unwrap_or_default();
    rows.into_iter().map(|text| Row { text, first }).collect()
}

/// The rows without those that BCC is known not to have.
fn without_known<'a>(subject: &Subject, rows: Vec<Row<'a>>, compared: &mut Compared) -> Vec<Row<'a>> {
    let is_known = |row: &Row| {
        let fits = |known: &&Known| known.tool == subject.tool && (known.is)(row.text);
        KNOWN.iter().find(fits).map(|known| known.reason)
    };
    let (known, rest): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| is_known(row).is_some());
    for reason in known.iter().filter_map(is_known) {
        *compared.known.entry(reason).or_default() += 1;
    }
    rest
}

/// The rows of each connection, in their order.
fn by_connection<'a>(subject: &Subject, rows: &[Row<'a>]) -> BTreeMap<String, Vec<Row<'a>>> {
    let columns = subject.columns();
    let places = |name: &&str| columns.iter().position(|column| column == name);
    let places: Vec<usize> = subject.connection.iter().filter_map(places).collect();
    let mut by_connection: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let name: Vec<&str> = places.iter().map(|place| row.cell(*place)).collect();
        by_connection.entry(name.join(" ")).or_default().push(*row);
    }
    by_connection
}

fn compare_row(subject: &Subject, bcc: Row, ours: Row, compared: &mut Compared) {
    let columns = subject.columns();
    let (theirs, own) = (bcc.cells(), ours.cells());
    let mut wrong = Vec::new();
    if theirs.len() != own.len() || own.len() != columns.len() {
        wrong.push("the number of cells");
    }
    for (nth, (a, b)) in theirs.iter().zip(&own).enumerate() {
        let column = columns.get(nth).copied().unwrap_or("a cell");
        let measure = subject.measured.iter().find(|measured| measured.0 == column);
        let same = match measure {
            None => a == b,
            Some((_, measure)) => {
                let is_last = nth + 1 == own.len();
                let as_wide = is_last || a.0.len() + a.1.len() == b.0.len() + b.1.len();
                let value = |row: Row, cell: &str| -> Option<f64> {
                    let start = match measure {
                        Measure::Since(_) => Row { text: row.first, ..row }.cell(nth),
                        Measure::Span(_) | Measure::Clock(_) => "0",
                    };
                    if matches!(measure, Measure::Clock(_)) {
                        return seconds(cell);
                    }
                    Some(cell.parse::<f64>().ok()? - start.parse::<f64>().ok()?)
                };
                let (Measure::Since(within) | Measure::Span(within) | Measure::Clock(within)) = measure;
                let values = value(bcc, a.0).zip(value(ours, b.0));
                as_wide && values.is_some_and(|(a, b)| (a - b).abs() <= *within)
            }
        };
        if !same {
            wrong.push(column);
        }
    }
    if !wrong.is_empty() {
        compared.problems.push(format!(
            "{} differs:\n    BCC    {}\n    netbcc {}",
            wrong.join(", "),
            bcc.text,
            ours.text
        ));
    }
}

/// The seconds of a time of day, `HH:MM:SS`.
fn seconds(time: &str) -> Option<f64> {
    let fields: Vec<f64> = time.split(':').map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = fields[..] else { return None };
    Some((hours * 60.0 + minutes) * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::super::subjects::SUBJECTS;
    use super::*;

    /// What tcpaccept would print with these times and rows, the last mark after them.
    fn lines(rows: &[(&str, &str)]) -> Vec<String> {
        let accept = SUBJECTS.iter().find(|subject| subject.tool == "tcpaccept").expect("is covered");
        let rest =
            |port: &str| format!("9       load         4  127.0.0.1        {port} 127.0.0.1        20001");
        let mut lines: Vec<String> = accept.head.iter().map(|line| (*line).to_owned()).collect();
        lines.extend(rows.iter().map(|(time, port)| format!("{time:<9}{}", rest(port))));
        lines.push(format!("{:<9}{}", "99.000", rest("7002")));
        lines
    }

    fn problems(bcc: &[(&str, &str)], ours: &[(&str, &str)]) -> Vec<String> {
        let accept = SUBJECTS.iter().find(|subject| subject.tool == "tcpaccept").expect("is covered");
        let (bcc, ours) = (lines(bcc), lines(ours));
        let bcc: Vec<&str> = bcc.iter().map(String::as_str).collect();
        let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
        compare_rows(accept, &bcc, &ours).problems
    }

    #[test]
    fn clocks_that_started_at_other_times_agree() {
        let bcc = [("7.000", "40000"), ("7.500", "40002")];
        assert!(problems(&bcc, &[("0.000", "40000"), ("0.501", "40002")]).is_empty());
        let late = problems(&bcc, &[("0.000", "40000"), ("0.900", "40002")]);
        assert_eq!(late.len(), 1);
        assert!(late[0].starts_with("TIME(s) differs"));
    }

    #[test]
    fn a_row_that_one_of_them_lacks_is_a_difference() {
        let (one, two) = ([("0.000", "40000")], [("0.000", "40000"), ("0.100", "40002")]);
        assert!(problems(&one, &two)[0].starts_with("only netbcc has: 0.100"));
        assert!(problems(&two, &one)[0].starts_with("only BCC has:    0.100"));
        assert_eq!(problems(&[], &[]), ["BCC shows no row: there is nothing to compare"]);
    }

    #[test]
    fn other_blanks_are_a_difference() {
        let accept = SUBJECTS.iter().find(|subject| subject.tool == "tcpaccept").expect("is covered");
        let lines = lines(&[("0.000", "40000")]);
        let bcc: Vec<&str> = lines.iter().map(String::as_str).collect();
        let wider = lines[1].replace("load ", "load  ");
        let mut ours = bcc.clone();
        ours[1] = &wider;
        assert!(compare_rows(accept, &bcc, &ours).problems[0].starts_with("COMM differs"));
        ours[1] = bcc[1];
        ours[0] = "PID";
        assert!(compare_rows(accept, &bcc, &ours).problems[0].starts_with("netbcc begins with"));
    }
}
