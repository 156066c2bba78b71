//! The costs as a picture: one bar per tool and peer, as SVG that is readable on light and on dark.

use std::fmt::Write as _;

use super::guest::Found;
use super::report::{Share, bcc_adds};
use super::subjects::Budget;

/// The instructions at the left edge of the bars and at the right: powers of ten.
const DECADES: [u32; 2] = [2, 6];
/// Pixels: where bars begin, and how long they can be.
const LEFT: f64 = 310.0;
const LONGEST: f64 = 560.0;
const WIDTH: f64 = 950.0;
/// Above the bars, and below them.
const TOP: f64 = 84.0;
const BOTTOM: f64 = 56.0;
/// A bar, and the gap after a group of them.
const BAR: f64 = 13.0;
const GAP: f64 = 11.0;

/// Whose bar it is: the class in the style, and the name in the legend.
const WHOSE: [(&str, &str); 3] = [("ours", "netbcc"), ("libbpf", "libbpf-tools"), ("bcc", "BCC")];

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px }
.title { font-size: 16px; font-weight: 600 }
.paper { fill: #ffffff }
.grid { stroke: #d0d7de }
.ours { fill: #0969da }
.libbpf { fill: #bc7a00 }
.bcc { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .paper { fill: #0d1117 }
  .grid { stroke: #30363d }
  .ours { fill: #58a6ff }
  .libbpf { fill: #e3b341 }
  .bcc { fill: #7d8590 }
}
";

/// A group of bars: what it is of, and per [`WHOSE`] the instructions.
struct Group {
    name: String,
    costs: [Option<f64>; 3],
}

/// What tools add to each operation.
pub(super) fn costs(found: &[Found]) -> String {
    let counted = found.iter().filter(|found| {
        // What happens, in the way that a tool prefers.
        !matches!(found.subject.budget, Some(Budget::Nothing)) && found.subject.rung.is_none()
    });
    let groups = counted.map(|found| {
        let added = |cost| Share::new(found, cost).added;
        Group {
            name: format!("{}, per {}", found.subject.name(), found.subject.load.operation()),
            costs: [Some(added(&found.ours)), found.peer.as_ref().map(added), bcc_adds(found)],
        }
    });
    draw(&groups.collect::<Vec<_>>())
}

fn draw(groups: &[Group]) -> String {
    let bars = |group: &Group| group.costs.iter().flatten().count() as f64;
    let length: f64 = groups.iter().map(|group| bars(group) * BAR + GAP).sum();
    let height = TOP + length + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Instructions that each tool adds per operation\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    text(&mut svg, (20.0, 28.0), "title", "start", "What a tool adds to each operation");
    for (nth, (class, name)) in WHOSE.iter().enumerate() {
        let x = LEFT + 130.0 * nth as f64;
        bar(&mut svg, class, (x, 44.0), 12.0);
        text(&mut svg, (x + 18.0, 55.0), "", "start", name);
    }
    let foot = TOP + length;
    for decade in DECADES[0]..=DECADES[1] {
        let value = 10_f64.powi(decade.cast_signed());
        let x = LEFT + along(value);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{foot:.1}\"/>",
            TOP - 8.0
        )
        .expect("a String takes all");
        text(&mut svg, (x, foot + 16.0), "small", "middle", &grouped(value));
    }
    text(
        &mut svg,
        (LEFT + LONGEST / 2.0, foot + 40.0),
        "",
        "middle",
        "instructions per operation, logarithmic (Linux 6.1, counted by QEMU)",
    );
    let mut y = TOP;
    for group in groups {
        let middle = y + bars(group) * BAR / 2.0 + 4.5;
        text(&mut svg, (LEFT - 10.0, middle), "", "end", &group.name);
        for ((class, _), cost) in WHOSE.iter().zip(group.costs) {
            let Some(cost) = cost else { continue };
            let long = along(cost);
            bar(&mut svg, class, (LEFT, y), long);
            text(&mut svg, (LEFT + long + 5.0, y + 10.0), "small", "start", &grouped(cost));
            y += BAR;
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

/// How long the bar of a cost is.
fn along(cost: f64) -> f64 {
    let [first, last] = DECADES.map(f64::from);
    ((cost.max(1.0).log10() - first) / (last - first)).clamp(0.0, 1.0) * LONGEST
}

fn bar(svg: &mut String, class: &str, (x, y): (f64, f64), long: f64) {
    let thick = BAR - 1.0;
    writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{thick}\" rx=\"2\"/>"
    )
    .expect("a String takes all");
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, anchor: &str, text: &str) {
    writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .expect("a String takes all");
}

/// A whole number with a comma before each three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && digit.is_ascii_digit() && (digits.len() - nth).is_multiple_of(3) && !text.ends_with('-')
        {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_a_decade_shorter() {
        let decade = LONGEST / f64::from(DECADES[1] - DECADES[0]);
        assert!((along(20_000.0) - along(2_000.0) - decade).abs() < 1e-9);
        assert!(along(0.0).abs() < 1e-9);
        assert!((along(1e9) - LONGEST).abs() < 1e-9);
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(grouped(7.4), "7");
        assert_eq!(grouped(306.0), "306");
        assert_eq!(grouped(1_155_000.2), "1,155,000");
        assert_eq!(grouped(-306.0), "-306");
    }

    #[test]
    fn there_is_a_bar_for_each_cost_that_is_known() {
        let group = |costs| Group { name: "tcplife, per connection".to_owned(), costs };
        let svg = draw(&[group([Some(14_106.0), Some(55_243.0), None]), group([Some(82_414.0), None, None])]);
        let bars = |class: &str| svg.matches(&format!("<rect class=\"{class}\"")).count();
        // One each is the legend's.
        assert_eq!([bars("ours"), bars("libbpf"), bars("bcc")], [3, 2, 1]);
        assert!(svg.contains(">14,106</text>") && svg.ends_with("</svg>\n"));
    }
}
