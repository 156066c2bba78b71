//! Numbers and addresses as text, without allocation and without the formatting machinery where rows are hot.
//!
//! Lives here: digits. Must never live here: widths, or what a number means.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::line::Line;

/// Decimal.
pub(super) fn unsigned(line: &mut Line<'_>, value: u64) {
    padded(line, value, 1 + value.checked_ilog10().unwrap_or(0) as usize);
}

/// Decimal with a minus sign where needed.
pub(super) fn signed(line: &mut Line<'_>, value: i64) {
    if value < 0 {
        line.push(b'-');
    }
    unsigned(line, value.unsigned_abs());
}

/// Lower-case hexadecimal, no prefix, no leading zeros.
pub(super) fn hex(line: &mut Line<'_>, value: u64) {
    let nibbles = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        let [low, ..] = (value >> (4 * nibble)).to_le_bytes();
        line.push(b"0123456789abcdef"[usize::from(low & 15)]);
    }
}

/// `digits` decimal digits of `value`, with leading zeros.
pub(super) fn padded(line: &mut Line<'_>, mut value: u64, digits: usize) {
    for byte in line.take(digits).iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// What C's `%.*f` prints: the exact binary value, rounded to `precision` decimals.
pub(super) fn fixed(line: &mut Line<'_>, value: f64, precision: usize) {
    const POWERS: [(f64, u64); 7] =
        [(1.0, 1), (1e1, 10), (1e2, 100), (1e3, 1000), (1e4, 10_000), (1e5, 100_000), (1e6, 1_000_000)];
    if let Some((factor, power)) = POWERS.get(precision).filter(|_| value.is_sign_positive()) {
        let scaled = value * factor;
        let fraction = scaled.fract();
        // Far enough from a tie, the error of one multiplication (2^-53 of 10^12) cannot change the rounding.
        if scaled < 1e12 && (fraction - 0.5).abs() > 1e-3 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10^12")]
            let rounded = scaled as u64 + u64::from(fraction > 0.5);
            unsigned(line, rounded / power);
            if precision > 0 {
                line.push(b'.');
                padded(line, rounded % power, precision);
            }
            return;
        }
    }
    // Rust rounds the exact value as well. Writing to memory does not fail.
    let _ = write!(line, "{value:.precision$}");
}

/// netqtop's rule for counts.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown of it")]
pub(super) fn scaled(line: &mut Line<'_>, value: u64) {
    if value > 1000 { scaled_float(line, value as f64) } else { unsigned(line, value) }
}

/// netqtop's rule for means and rates: decimal thresholds, binary divisors, at most two decimals and at
/// least one.
pub(super) fn scaled_float(line: &mut Line<'_>, value: f64) {
    let start = line.at();
    let (value, unit) = match value {
        v if v > 1_000_000.0 => (v / 1_048_576.0, Some(b'M')),
        v if v > 1000.0 => (v / 1024.0, Some(b'K')),
        v => (v, None),
    };
    fixed(line, value, 2);
    if line.since(start).ends_with(b"0") {
        line.rewind(line.at() - 1);
    }
    if let Some(unit) = unit {
        line.push(unit);
    }
}

/// What glibc's `inet_ntop` writes. Rust's own form differs for `::1.2.3.4`.
pub(super) fn ip(line: &mut Line<'_>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => ipv4(line, v4),
        IpAddr::V6(v6) => ipv6(line, v6),
    }
}

/// The hottest of all: in one piece, not octet by octet.
fn ipv4(line: &mut Line<'_>, ip: Ipv4Addr) {
    let mut text = [b'.'; 16];
    let mut end = 0;
    for octet in ip.octets() {
        if octet >= 100 {
            text[end] = b'0' + octet / 100;
            end += 1;
        }
        if octet >= 10 {
            text[end] = b'0' + octet / 10 % 10;
            end += 1;
        }
        text[end] = b'0' + octet % 10;
        // Past the dot that stands there already.
        end += 2;
    }
    line.bytes(&text[..end - 1]);
}

fn ipv6(line: &mut Line<'_>, ip: Ipv6Addr) {
    let groups = ip.segments();
    // A single zero group is written out.
    let (start, length) = Some(longest_zeros(groups)).filter(|run| run.1 >= 2).unwrap_or((8, 0));
    let dotted = start == 0 && (length == 6 || length == 5 && groups[5] == 0xffff);
    let mut at = 0;
    while at < 8 {
        if at == start {
            line.bytes(b"::");
            at += length;
            continue;
        }
        if at > 0 && at != start + length {
            line.push(b':');
        }
        if at == 6 && dotted {
            let [.., a, b, c, d] = ip.octets();
            return ipv4(line, Ipv4Addr::new(a, b, c, d));
        }
        hex(line, groups[at].into());
        at += 1;
    }
}

/// The first of the longest runs of zero groups: where and how long.
fn longest_zeros(groups: [u16; 8]) -> (usize, usize) {
    let (mut best, mut run) = ((0, 0), (0, 0));
    for (index, group) in groups.into_iter().enumerate() {
        run = match (group, run) {
            (0, (_, 0)) => (index, 1),
            (0, (start, length)) => (start, length + 1),
            _ => (0, 0),
        };
        if run.1 > best.1 {
            best = run;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut buf = Vec::new();
        write(&mut Line::new(&mut buf));
        String::from_utf8(buf).unwrap()
    }

    /// Pairs of what was parsed and what glibc 2.36's `inet_ntop` made of it.
    #[test]
    fn addresses_look_as_glibc_writes_them() {
        for (address, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("::2", "::2"),
            ("::1:2", "::0.1.0.2"),
            ("::1.2.3.4", "::1.2.3.4"),
            ("::1.2.0.0", "::1.2.0.0"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::ffff:0:0", "::ffff:0.0.0.0"),
            ("::fffe:1.2.3.4", "::fffe:102:304"),
            ("::ffff:0:1.2.3.4", "::ffff:0:102:304"),
            ("fe80::1", "fe80::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
            ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
            ("0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"),
            ("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"),
            ("0:0:3:4:5:6:7:8", "::3:4:5:6:7:8"),
            ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
            ("1::", "1::"),
            ("0:0:0:0:1:0:0:0", "::1:0:0:0"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("0:0:0:0:0:ffff:0:1", "::ffff:0.0.0.1"),
            ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
            ("::abcd:0:0", "::abcd:0:0"),
        ] {
            assert_eq!(text(|line| ipv6(line, address.parse().unwrap())), expected);
        }
        assert_eq!(text(|line| ip(line, [255, 0, 10, 1].into())), "255.0.10.1");
    }

    #[test]
    fn netqtops_number_rule() {
        let of = |value| text(|line| scaled_float(line, value));
        assert_eq!(
            [0.0, 38.0, 0.125, 0.375, 2.675, 1000.0, 1001.0, 1536.0, 1e6, 1_000_001.0].map(of),
            ["0.0", "38.0", "0.12", "0.38", "2.67", "1000.0", "0.98K", "1.5K", "976.56K", "0.95M"]
        );
        let of = |value| text(|line| scaled(line, value));
        assert_eq!([0, 1000, 1001, 1500, 1024].map(of), ["0", "1000", "0.98K", "1.46K", "1.0K"]);
    }

    #[test]
    fn milliseconds_round_as_c_does() {
        let of = |us: u32| text(|line| fixed(line, f64::from(us) / 1000.0, 2));
        assert_eq!([5, 15, 25, 230, 0, 999_995].map(of), ["0.01", "0.01", "0.03", "0.23", "0.00", "1000.00"]);
    }

    #[test]
    fn hexadecimal_has_no_padding() {
        assert_eq!(
            [0, 15, 16, 0xffff_9fd7_e819_2000, u64::MAX].map(|v| text(|line| hex(line, v))),
            ["0", "f", "10", "ffff9fd7e8192000", "ffffffffffffffff"]
        );
    }

    proptest! {
        #[test]
        fn floats_agree_with_exact_rounding(value: f64, precision in 0_usize..8) {
            prop_assert_eq!(text(|line| fixed(line, value, precision)), format!("{value:.precision$}"));
        }

        #[test]
        fn microseconds_agree_with_exact_rounding(us in 0_u64..100_000_000_000, precision in 0_usize..7) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let ms = us as f64 / 1000.0;
            prop_assert_eq!(text(|line| fixed(line, ms, precision)), format!("{ms:.precision$}"));
        }

        #[test]
        fn integers_agree_with_rusts(value: u64, negative: i64) {
            prop_assert_eq!(text(|line| unsigned(line, value)), value.to_string());
            prop_assert_eq!(text(|line| signed(line, negative)), negative.to_string());
            prop_assert_eq!(text(|line| hex(line, value)), format!("{value:x}"));
        }

        #[test]
        fn addresses_read_back(groups: [u16; 8], zeros: u8, v4: u32) {
            // Random groups are hardly ever zero: clear some.
            let mut groups = groups;
            for (index, group) in groups.iter_mut().enumerate() {
                *group &= if zeros >> index & 1 == 0 { u16::MAX } else { 0 };
            }
            let address = IpAddr::V6(groups.into());
            prop_assert_eq!(text(|line| ip(line, address)).parse::<IpAddr>().unwrap(), address);
            let address = IpAddr::V4(v4.into());
            prop_assert_eq!(text(|line| ip(line, address)), address.to_string());
        }
    }
}
