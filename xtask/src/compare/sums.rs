//! Tools that add up: what their blocks say, and how two of them are held against each other.

use std::collections::BTreeMap;

use super::known::{Peer, reason};
use super::rows::Compared;
use super::subjects::{Measure, STRAY, Subject};

/// How a tool that adds up is read.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Whether it prints blocks by itself, and nothing before the first. The others have one for all of the traffic, which
    /// they print when they are interrupted.
    pub(super) in_blocks: bool,
    pub(super) read: fn(&[&str]) -> Block,
}

/// What a tool printed about the traffic.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// All that is not a row, without what differs from run to run.
    frame: Vec<String>,
    rows: Vec<Sum>,
    /// Rows that stand above a greater one.
    unsorted: Vec<String>,
}

#[derive(Debug)]
struct Sum {
    /// Of what: the same for each tool.
    key: String,
    text: String,
    /// The only number in it, if there is only one.
    value: Option<f64>,
}

/// The marks that end one of netqtop's blocks.
const RULE: &str = "-----";

/// Whether a block has just ended.
pub(super) fn ends_a_block(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with(RULE))
}

/// Holds what BCC's tool says against netbcc's.
pub(super) fn compare_sums(subject: &Subject, sums: &Sums, bcc: &[&str], ours: &[&str]) -> Compared {
    let mut compared = Compared::default();
    let own = (sums.read)(ours);
    let theirs = (sums.read)(bcc);
    (compared.theirs, compared.ours) = (theirs.rows.len(), own.rows.len());
    for (whose, block) in [("BCC", &theirs), ("netbcc", &own)] {
        if block.frame != subject.head {
            compared.problems.push(format!("{whose} prints {:?}", block.frame));
        }
    }
    compared.problems.extend(own.unsorted.iter().map(|row| format!("not the greatest first: {row}")));
    if theirs.rows.is_empty() {
        compared.problems.push("BCC shows no row: there is nothing to compare".to_owned());
    }
    let ours = match &subject.older {
        None => own,
        Some(older) => {
            compared.known.insert(older.reason, own.rows.len());
            let lines: Vec<String> = ours.iter().map(|line| (older.line)(line)).collect();
            (sums.read)(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    let near = subject.measured.first().map(|measured| measured.1);
    let mut pairs: BTreeMap<&str, (Option<&Sum>, Option<&Sum>)> = BTreeMap::new();
    for row in &theirs.rows {
        pairs.entry(&row.key).or_default().0 = Some(row);
    }
    for row in &ours.rows {
        pairs.entry(&row.key).or_default().1 = Some(row);
    }
    for (theirs, ours) in pairs.into_values() {
        if theirs.zip(ours).is_some_and(|(theirs, ours)| alike(theirs, ours, near)) {
            continue;
        }
        let [theirs, ours] = [theirs, ours].map(|row| row.map(|row| row.text.as_str()));
        compared.differ(reason(subject.tool, Peer::Bcc, theirs, ours), || match (theirs, ours) {
            (Some(theirs), Some(ours)) => format!("differ:\n    BCC    {theirs}\n    netbcc {ours}"),
            (Some(theirs), None) => format!("only BCC has:    {theirs}"),
            (None, ours) => format!("only netbcc has: {}", ours.unwrap_or_default()),
        });
    }
    compared
}

/// Whether they say the same, in the same bytes; a number may differ where both count what goes on all the time.
fn alike(theirs: &Sum, ours: &Sum, near: Option<Measure>) -> bool {
    match (theirs.value.zip(ours.value), near) {
        (Some((a, b)), Some(Measure::Near(part))) => {
            theirs.text.len() == ours.text.len() && is_near(a, b, part)
        }
        _ => theirs.text == ours.text,
    }
}

/// Whether two counts of what goes on all the time are near enough.
pub(super) fn is_near(a: f64, b: f64, part: f64) -> bool {
    (a - b).abs() <= a.max(b) * part + STRAY
}

/// tcptop: one block for all of the traffic.
pub(super) fn tcptop(lines: &[&str]) -> Block {
    let mut block = Block::default();
    let mut last = f64::MAX;
    for line in lines {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let numbers = (cells.len() == 6).then(|| Some((number(cells[4])?, number(cells[5])?))).flatten();
        if let Some((received, sent)) = numbers {
            block.row(cells[..4].join(" "), line, None, received + sent, &mut last);
        } else if cells.get(1) == Some(&"loadavg:") {
            block.frame.push("(time) loadavg: (load)".to_owned());
        } else {
            block.frame.push((*line).to_owned());
            last = f64::MAX;
        }
    }
    block
}

/// tcpsubnet: one block for all of the traffic.
pub(super) fn tcpsubnet(lines: &[&str]) -> Block {
    let mut block = Block::default();
    let mut last = f64::MAX;
    for line in lines {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [subnet, bytes] if subnet.contains('/') && !subnet.starts_with('[') => {
                block.row(subnet.to_owned(), line, None, number(bytes).unwrap_or(0.0), &mut last);
            }
            _ if line.starts_with('[') => block.frame.push("[(time)]".to_owned()),
            _ => block.frame.push((*line).to_owned()),
        }
    }
    block
}

/// softirqs and hardirqs: one block for all of the traffic.
pub(super) fn softirqs(lines: &[&str]) -> Block {
    let mut block = Block::default();
    let mut last = f64::MAX;
    for line in lines {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [vector, count] if number(count).is_some() => {
                let count = number(count);
                block.row(vector.to_owned(), line, count, count.unwrap_or(0.0), &mut last);
            }
            _ => block.frame.push((*line).to_owned()),
        }
    }
    block
}

/// tcprtt: one block for all of the traffic. A row is a slot of the histogram of an address.
pub(super) fn tcprtt(lines: &[&str]) -> Block {
    let mut block = Block::default();
    let mut title = "";
    for line in lines {
        if line.contains(" Addres") && line.contains(" = ") {
            title = line.split(" = ").nth(1).unwrap_or_default();
        } else if let Some((range, _)) = line.split_once(" : ").filter(|(range, _)| range.contains("->")) {
            block.row(format!("{title} {}", range.trim()), line, None, 0.0, &mut f64::MAX.clone());
        } else if !block.frame.iter().any(|known| known == line) {
            block.frame.push((*line).to_owned());
        }
    }
    block
}

/// tcpsynbl: one block for all of the traffic. A row is a slot of the histogram of a limit.
pub(super) fn tcpsynbl(lines: &[&str]) -> Block {
    let mut block = Block::default();
    let mut title = "";
    for line in lines {
        if let Some(limit) = line.strip_prefix(LIMIT) {
            title = limit;
        } else if let Some((range, _)) = line.split_once(" : ").filter(|(range, _)| range.contains("->")) {
            block.row(format!("{title} {}", range.trim()), line, None, 0.0, &mut f64::MAX.clone());
        } else if !block.frame.iter().any(|known| known == line) {
            block.frame.push((*line).to_owned());
        }
    }
    block
}

/// What the title of one of tcpsynbl's histograms begins with.
const LIMIT: &str = "backlog_max = ";

/// How many samples each limit has in tcpsynbl's histograms.
pub(super) fn samples_of_limits(lines: &[&str]) -> Vec<String> {
    counts(lines, LIMIT, "LIMIT SAMPLES")
}

/// tcpcong: one block for all of the traffic.
pub(super) fn tcpcong(lines: &[&str]) -> Block {
    let mut block = Block::default();
    for line in lines {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [near, far, _, _, _, _, _, changes] if number(changes).is_some() => {
                block.row(format!("{near} {far}"), line, None, 0.0, &mut f64::MAX.clone());
            }
            _ => block.frame.push((*line).to_owned()),
        }
    }
    block
}

/// How many samples each address has in tcprtt's histograms.
pub(super) fn samples_of_addresses(lines: &[&str]) -> Vec<String> {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for line in lines {
        if line.contains(" Address") && line.contains(" = ") {
            counts.push((line.split(" = ").nth(1).unwrap_or_default().trim(), 0));
        } else if let (Some((_, last)), Some((range, rest))) = (counts.last_mut(), line.split_once(" : "))
            && range.contains("->")
        {
            *last += rest.split_whitespace().next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    let rows = counts.iter().map(|(address, count)| format!("{address} {count}"));
    std::iter::once("ADDRESS COUNT".to_owned()).chain(rows).collect()
}

/// netqtop: the last block that has packets.
pub(super) fn netqtop(lines: &[&str]) -> Block {
    let mut blocks = lines.split_inclusive(|line| line.starts_with(RULE));
    let has_packets = |block: &&[&str]| {
        block
            .iter()
            .any(|line| line.starts_with(" Total") && line.split_whitespace().any(|cell| cell.contains('.')))
    };
    let mut block = Block::default();
    let mut direction = "";
    for line in blocks.rfind(has_packets).unwrap_or_default() {
        let cells: Vec<&str> = line.split_whitespace().collect();
        match cells.first() {
            Some(&queue) if cells.len() == 7 && (queue == "Total" || number(queue).is_some()) => {
                block.row(format!("{direction} {queue}"), line, None, 0.0, &mut f64::MAX.clone());
            }
            Some(&tx_rx) if ["TX", "RX"].contains(&tx_rx) => {
                direction = tx_rx;
                block.frame.push(tx_rx.to_owned());
            }
            _ if block.frame.is_empty() => block.frame.push("(time)".to_owned()),
            _ => block.frame.push((*line).to_owned()),
        }
    }
    block
}

/// A histogram's counts, added up: lines as softirqs prints counts.
pub(super) fn counts_of_histograms(lines: &[&str]) -> Vec<String> {
    counts(lines, "softirq = ", "SOFTIRQ TOTAL_count")
}

/// A histogram's counts, added up: lines as hardirqs prints counts.
pub(super) fn counts_of_handlers(lines: &[&str]) -> Vec<String> {
    counts(lines, "hardirq = ", "HARDIRQ TOTAL_count")
}

/// What the histograms count that have titles beginning so, each added up, below this header.
fn counts(lines: &[&str], title: &str, header: &str) -> Vec<String> {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix(title) {
            counts.push((name, 0));
        } else if let (Some((_, last)), Some((range, rest))) = (counts.last_mut(), line.split_once(" : "))
            && range.contains("->")
        {
            *last += rest.split_whitespace().next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    let rows = counts.iter().map(|(name, count)| format!("{name} {count}"));
    std::iter::once(header.to_owned()).chain(rows).collect()
}

impl Block {
    fn row(&mut self, key: String, text: &str, value: Option<f64>, weight: f64, last: &mut f64) {
        if weight > *last {
            self.unsorted.push(text.to_owned());
        }
        *last = weight;
        self.rows.push(Sum { key, text: text.to_owned(), value });
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::subjects::{Form, SUBJECTS};
    use super::*;

    fn compare(tool: &str, bcc: &[&str], ours: &[&str]) -> Compared {
        let subject = SUBJECTS.iter().find(|subject| subject.tool == tool).expect("is covered");
        let Form::Sums(sums) = &subject.form else { panic!("{tool} adds up") };
        compare_sums(subject, sums, bcc, ours)
    }

    #[test]
    fn bytes_of_a_process_are_the_same_but_for_its_quotes() {
        let head =
            ["Tracing... Output every 3600 secs. Hit Ctrl-C to end", "", "10:00:00 loadavg: 0 0 0 1/9 7", ""];
        let header = "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB";
        let header6 = "PID     COMM         LADDR6                           RADDR6                            RX_KB  TX_KB";
        let row = |name: &str, sent: &str| {
            format!("{:<7} {name:<12} {:<21} {:<21} {:>6} {sent:>6}", 9, "127.0.0.1:1", "127.0.0.1:2", 0)
        };
        let whole = |rows: &[String]| -> Vec<String> {
            let rows = rows.iter().map(String::as_str);
            let lines = head.into_iter().chain([header]).chain(rows).chain(["", header6]);
            lines.map(str::to_owned).collect()
        };
        let check = |bcc: &[String], ours: &[String]| {
            let (bcc, ours) = (whole(bcc), whole(ours));
            let [bcc, ours]: [Vec<&str>; 2] =
                [&bcc, &ours].map(|lines| lines.iter().map(String::as_str).collect());
            compare("tcptop", &bcc, &ours).problems
        };
        let bcc = [row("b'load'", "7")];
        assert_eq!(check(&bcc, &[row("load", "7")]), Vec::<String>::new());
        assert!(check(&bcc, &[row("load", "8")])[0].starts_with("differ:"));
        assert!(check(&bcc, &[row("load", "7").replace("load  ", "load   ")])[0].starts_with("differ:"));
        let twice = [row("load", "7"), row("load", "9")];
        assert!(check(&bcc, &twice)[0].starts_with("not the greatest first"));
    }

    #[test]
    fn counts_of_what_goes_on_may_stray() {
        let lines = |count: &str| {
            let head = ["Tracing soft irq events... Hit Ctrl-C to end.", "", "SOFTIRQ          TOTAL_count"];
            let row = format!("{:<16} {count:>11}", "net_rx");
            head.into_iter().map(str::to_owned).chain([row]).collect::<Vec<_>>()
        };
        let problems = |bcc: &str, ours: &str| {
            let (bcc, ours) = (lines(bcc), lines(ours));
            let [bcc, ours]: [Vec<&str>; 2] =
                [&bcc, &ours].map(|lines| lines.iter().map(String::as_str).collect());
            compare("softirqs", &bcc, &ours).problems.len()
        };
        assert_eq!(problems("10000", "10500"), 0);
        assert_eq!(problems("10000", "10600"), 1);
        assert_eq!(problems("10", "40"), 0);
    }

    #[test]
    fn the_last_block_with_packets_counts() {
        let rule = "-----------------------------------------------------------------------------";
        let header = " QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) ";
        let idle = " 0          0          0          0          0          0          0          ";
        let busy = " 0          52.0       1          0          0          0          0          ";
        let total = |row: &str| row.replacen(" 0     ", " Total ", 1);
        let block = |row: &str| {
            let lines = ["Tue Jan  3 07:38:55 2023", "TX", header, row, "", "RX", header, idle, rule];
            let mut lines = lines.map(str::to_owned).to_vec();
            lines.insert(4, total(row));
            lines.insert(9, total(idle));
            lines
        };
        let all = [block(busy), block(idle)].concat();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let compared = compare("netqtop", &all, &all);
        assert_eq!(compared.problems, Vec::<String>::new());
        assert_eq!(compared.ours, 4);
        let read = netqtop(&all);
        assert_eq!(read.rows[0].text, busy);
    }

    #[test]
    fn a_histogram_says_how_often() {
        let lines = [
            "softirq = net_rx",
            "     usecs               : count    distribution",
            "         0 -> 1          : 5        |**   |",
            "         2 -> 3          : 80       |*****|",
        ];
        assert_eq!(counts_of_histograms(&lines), ["SOFTIRQ TOTAL_count", "net_rx 85"]);
    }
}
