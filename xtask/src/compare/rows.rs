//! Holds the rows of two tools against each other.

use std::collections::BTreeMap;

use super::known::{Peer, reason, take_alone};
use super::subjects::{Measure, Subject};
use super::sums::is_near;
use super::traffic::{FIRST, LAST, names_port};

/// What came out of it.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Rows of the peer's tool.
    pub(super) theirs: usize,
    /// Rows of netbcc's.
    pub(super) ours: usize,
    /// The reasons of known differences, and how often each was met.
    pub(super) known: BTreeMap<&'static str, usize>,
    /// Differences that are not known.
    pub(super) problems: Vec<String>,
}

impl Compared {
    /// Takes a difference, known if there is a reason.
    pub(super) fn differ(&mut self, reason: Option<&'static str>, problem: impl FnOnce() -> String) {
        match reason {
            Some(reason) => *self.known.entry(reason).or_default() += 1,
            None => self.problems.push(problem()),
        }
    }
}

/// A row: its text, and the stack below it.
#[derive(Clone, Debug)]
struct Row {
    text: String,
    stack: Vec<String>,
}

impl Row {
    /// Its cells, each with the blanks after it.
    fn cells(&self) -> Vec<(&str, &str)> {
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

    fn cell(&self, nth: usize) -> &str {
        self.cells().get(nth).map_or("", |cell| cell.0)
    }
}

/// Compares all that both printed. What `kernel` says of what happened stands at the end of netbcc's rows.
pub(super) fn compare_rows(subject: &Subject, bcc: &[&str], ours: &[&str], kernel: &[&str]) -> Compared {
    let mut compared = Compared::default();
    let older = subject.older.as_ref();
    let bcc_head = older.map_or(subject.head, |older| older.head);
    let bcc = body(bcc_head, "BCC", bcc, &mut compared);
    let mut ours = body(subject.head, "netbcc", ours, &mut compared);
    (compared.theirs, compared.ours) = (bcc.len(), ours.len());
    for row in &mut ours {
        if !kernel.is_empty() && !kernel.iter().any(|end| row.text.ends_with(end)) {
            compared.problems.push(format!("the kernel calls it {}: {}", kernel.join(" or "), row.text));
        }
        if let Some(older) = older {
            *compared.known.entry(older.reason).or_default() += 1;
            row.text = (older.line)(&row.text);
        }
    }
    if bcc.is_empty() {
        compared.problems.push("BCC shows no row: there is nothing to compare".to_owned());
    }
    let firsts = (earliest(subject, &bcc), earliest(subject, &ours));
    let mut connections: BTreeMap<String, [Vec<&Row>; 2]> = BTreeMap::new();
    for (which, rows) in [&bcc, &ours].into_iter().enumerate() {
        for row in rows {
            connections.entry(connection(subject, row)).or_default()[which].push(row);
        }
    }
    for [mut theirs, mut ours] in connections.into_values() {
        let tool = (subject.tool, Peer::Bcc);
        for reason in take_alone(tool, &mut theirs, &mut ours, |row| row.text.as_str()) {
            *compared.known.entry(reason).or_default() += 1;
        }
        for nth in 0..theirs.len().max(ours.len()) {
            let (bcc, ours) = (theirs.get(nth).copied(), ours.get(nth).copied());
            let wrong = match (bcc, ours, &firsts) {
                (Some(bcc), Some(ours), (Some(first), Some(our_first))) => {
                    wrong_columns(subject, (bcc, first), (ours, our_first))
                }
                _ => vec!["a row"],
            };
            if wrong.is_empty() {
                continue;
            }
            let [their_text, our_text] = [bcc, ours].map(|row| row.map(|row| row.text.as_str()));
            let known = reason(subject.tool, Peer::Bcc, their_text, our_text);
            compared.differ(known, || match (bcc, ours) {
                (Some(bcc), Some(ours)) => {
                    format!(
                        "{} differs:\n    BCC    {}\n    netbcc {}",
                        wrong.join(", "),
                        whole(bcc),
                        whole(ours)
                    )
                }
                (Some(bcc), None) => format!("only BCC has:    {}", bcc.text),
                (None, _) => format!("only netbcc has: {}", our_text.unwrap_or_default()),
            });
        }
    }
    compared
}

/// The row from which times are counted. Not the first: BCC has a buffer for each family, and may read one after the other.
fn earliest(subject: &Subject, rows: &[Row]) -> Option<Row> {
    let since = |column: &&str| matches!(subject.measure(column), Some(Measure::Since(_)));
    let Some(place) = subject.columns().iter().position(since) else { return rows.first().cloned() };
    let time = |row: &Row| row.cell(place).parse::<f64>().unwrap_or(f64::MAX);
    rows.iter().min_by(|a, b| time(a).total_cmp(&time(b))).cloned()
}

/// The rows between the marks; what comes before the rows must be as it is said.
fn body(head: &[&str], whose: &str, lines: &[&str], compared: &mut Compared) -> Vec<Row> {
    let end = head.len().min(lines.len());
    if lines[..end] != *head {
        compared.problems.push(format!("{whose} begins with {:?}", &lines[..end]));
    }
    let mut rows: Vec<Row> = Vec::new();
    for line in lines[end..].iter().filter(|line| !line.is_empty()) {
        match line.strip_prefix('\t') {
            Some(function) => {
                // Python's mark of an object of bytes.
                let name = function.strip_prefix("b'").and_then(|name| name.strip_suffix('\''));
                if let Some(row) = rows.last_mut() {
                    row.stack.push(name.unwrap_or(function).to_owned());
                }
            }
            None => rows.push(Row { text: (*line).to_owned(), stack: Vec::new() }),
        }
    }
    let shows = |port: u16| move |row: &Row| names_port(&row.text, port);
    if !rows.iter().any(shows(LAST)) {
        compared.problems.push(format!("{whose} does not show the last connection"));
    }
    rows.retain(|row| !shows(FIRST)(row) && !shows(LAST)(row));
    rows
}

/// The connection of a row.
fn connection(subject: &Subject, row: &Row) -> String {
    let columns = subject.columns();
    let places =
        subject.connection.iter().filter_map(|name| columns.iter().position(|column| column == name));
    places.map(|place| row.cell(place)).collect::<Vec<_>>().join(" ")
}

/// The row with its stack.
fn whole(row: &Row) -> String {
    std::iter::once(row.text.as_str())
        .chain(row.stack.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join("\n        ")
}

/// In which columns two rows differ, each given with the first that is compared.
fn wrong_columns(
    subject: &Subject,
    (bcc, first): (&Row, &Row),
    (ours, our_first): (&Row, &Row),
) -> Vec<&'static str> {
    let columns = subject.columns();
    let (theirs, own) = (bcc.cells(), ours.cells());
    let mut wrong = Vec::new();
    if theirs.len() != own.len() || own.len() != columns.len() {
        wrong.push("the number of cells");
    }
    for (nth, (a, b)) in theirs.iter().zip(&own).enumerate() {
        let column = columns.get(nth).copied().unwrap_or("a cell");
        let same = match subject.measure(column) {
            None => a == b,
            Some(measure) => {
                let is_last = nth + 1 == own.len();
                let as_wide = is_last || a.0.len() + a.1.len() == b.0.len() + b.1.len();
                as_wide && alike(measure, (a.0, first.cell(nth)), (b.0, our_first.cell(nth)))
            }
        };
        if !same {
            wrong.push(column);
        }
    }
    if !same_stacks(&bcc.stack, &ours.stack) {
        wrong.push("the stack");
    }
    wrong
}

/// Whether two measurements of the same, each with the first of its column, are alike.
fn alike(measure: Measure, (a, first): (&str, &str), (b, our_first): (&str, &str)) -> bool {
    let number = |cell: &str| cell.parse::<f64>().ok();
    let (values, within) = match measure {
        Measure::Since(within) => {
            let since = |cell, first| Some(number(cell)? - number(first)?);
            (since(a, first).zip(since(b, our_first)), within)
        }
        Measure::Span(within) => (number(a).zip(number(b)), within),
        Measure::Clock(within) => (seconds(a).zip(seconds(b)), within),
        Measure::Near(part) => return number(a).zip(number(b)).is_some_and(|(a, b)| is_near(a, b, part)),
    };
    values.is_some_and(|(a, b)| (a - b).abs() <= within)
}

/// The tracepoint's own function: what is above it in a stack is the tracing.
const TRACEPOINT: &str = "__traceiter_";

/// Whether the same functions led there, at the same offsets where both tell them.
fn same_stacks(bcc: &[String], ours: &[String]) -> bool {
    let untraced = |stack: &[String]| -> Vec<String> {
        let after =
            stack.iter().rposition(|function| function.starts_with(TRACEPOINT)).map_or(0, |nth| nth + 1);
        stack[after..].to_vec()
    };
    let (bcc, ours) = (untraced(bcc), untraced(ours));
    let same = |(a, b): (&String, &String)| match (a.split_once("+0x"), b.split_once("+0x")) {
        (Some(a), Some(b)) => a == b,
        _ => a.split("+0x").next() == b.split("+0x").next(),
    };
    bcc.len() == ours.len() && bcc.iter().zip(&ours).all(same)
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
        compare_rows(accept, &bcc, &ours, &[]).problems
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
    fn times_count_from_the_earliest_row() {
        let bcc = [("7.500", "40002"), ("7.000", "40000")];
        assert!(problems(&bcc, &[("0.000", "40000"), ("0.500", "40002")]).is_empty());
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
        assert!(compare_rows(accept, &bcc, &ours, &[]).problems[0].starts_with("COMM differs"));
        ours[1] = bcc[1];
        ours[0] = "PID";
        assert!(compare_rows(accept, &bcc, &ours, &[]).problems[0].starts_with("netbcc begins with"));
    }

    #[test]
    fn drops_agree_in_their_stacks_and_with_the_kernel() {
        let drop = SUBJECTS.iter().find(|subject| subject.tool == "tcpdrop").expect("is covered");
        let row = |port: u16| {
            format!("10:00:00 9       4  127.0.0.1:{port:<10} > 127.0.0.1:20020      ESTABLISHED (ACK)")
        };
        let theirs = |row: String, stack: &[&str]| -> Vec<String> {
            let frames = stack.iter().map(|function| format!("\tb'{function}'"));
            std::iter::once(row).chain(frames).chain([String::new()]).collect()
        };
        let traced = [
            "__traceiter_kfree_skb+0x4b",
            "__traceiter_kfree_skb+0x4b",
            "kfree_skb_reason+0x94",
            "nf_hook_slow+0x93",
        ];
        let older = drop.older.as_ref().expect("Debian's is older");
        let bcc: Vec<String> = older.head.iter().map(|line| (*line).to_owned()).collect();
        let bcc = [bcc, theirs(row(40000), &traced), theirs(row(7002), &[])].concat();
        let check = |stack: &str, reason: &str| {
            let ours = |port| format!("{:<90} {reason}", row(port));
            let lines = [drop.head[0], &ours(40000), stack, "\tnf_hook_slow+0x93", "", &ours(7002), ""];
            let bcc: Vec<&str> = bcc.iter().map(String::as_str).collect();
            compare_rows(drop, &bcc, &lines, &["NETFILTER_DROP (7)"]).problems
        };
        assert_eq!(check("\tkfree_skb_reason+0x94", "NETFILTER_DROP (7)"), Vec::<String>::new());
        assert!(check("\tkfree_skb_reason+0x95", "NETFILTER_DROP (7)")[0].starts_with("the stack differs"));
        assert!(check("\tkfree_skb_reason+0x94", "NETFILTER_DROP (8)")[0].starts_with("the kernel calls it"));
    }
}
