//! Numbers and addresses as text, without allocation and without the formatting machinery where rows are hot.
//!
//! Lives here: digits. Must never live here: widths, or what a number means.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::line::Line;

/// Eight bytes of `'0'`, of blanks; [`eight`] answers less than this.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
const BLANKS: u64 = u64::from_le_bytes([b' '; 8]);
const EIGHT: u64 = 100_000_000;

/// The eight decimal digits of a number below 10^8 as bytes of 0 to 9, the first in the lowest byte: halved into lanes
/// of four digits, two, one, each lane divided by one multiplication for all.
#[inline(always)]
const fn eight(value: u64) -> u64 {
    let high = value / 10_000;
    let fours = high | (value - 10_000 * high) << 32;
    let high = (fours * 10_486) >> 20 & 0x7f_0000_007f;
    let twos = high | (fours - 100 * high) << 16;
    let high = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    high | (twos - 10 * high) << 8
}

/// Digits as text, without the first `skip`, blanks behind them.
#[inline(always)]
const fn text_of(digits: u64, skip: usize) -> [u8; 8] {
    (((digits + (ZEROS - BLANKS)) >> (8 * skip)) + BLANKS).to_le_bytes()
}

/// Where short texts are written: the next bytes of a line, all blank.
pub(super) type Room = [u8; 32];

/// Decimal, if it has at most eight digits; answers how many.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "0 to 9")]
pub(super) fn short(room: &mut Room, value: u64) -> Option<usize> {
    if value < 10 {
        room[0] = b'0' + value as u8;
        return Some(1);
    }
    if value >= EIGHT {
        return None;
    }
    let digits = eight(value);
    // The last one stands, also if it is 0.
    let skip = (digits | 1 << 56).trailing_zeros() as usize / 8;
    room[..8].copy_from_slice(&text_of(digits, skip));
    Some(8 - skip)
}

/// Decimal.
pub(super) fn unsigned(line: &mut Line<'_>, value: u64) {
    if let Some(len) = short(line.room(), value) {
        line.step(len);
    } else {
        let high = value / EIGHT;
        unsigned(line, high);
        padded(line, value % EIGHT, 8);
    }
}

/// Decimal with a minus sign where needed.
pub(super) fn signed(line: &mut Line<'_>, value: i64) {
    if value < 0 {
        line.push(b'-');
    }
    unsigned(line, value.unsigned_abs());
}

/// `digits` decimal digits of `value`, with leading zeros; at most nine.
pub(super) fn padded(line: &mut Line<'_>, value: u64, digits: usize) {
    let mut left = digits;
    if digits > 8 {
        line.push(b'0' + (value / EIGHT % 10) as u8);
        left = 8;
    }
    *line.room() = text_of(eight(value % EIGHT), 8 - left);
    line.step(left);
}

/// Lower-case hexadecimal, no prefix, no leading zeros.
pub(super) fn hex(line: &mut Line<'_>, value: u64) {
    let len = short_hex(line.room(), value);
    line.step(len);
}

/// [`hex`]; answers how many digits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(super) fn short_hex(room: &mut Room, value: u64) -> usize {
    let digits = 16 - (value | 1).leading_zeros() / 4;
    // The first of them come first, and zeros behind the last.
    let value = value << (64 - 4 * digits);
    room[..8].copy_from_slice(&hex_text((value >> 32) as u32));
    room[8..16].copy_from_slice(&hex_text(value as u32));
    let digits = digits as usize;
    for blank in &mut room[digits..16] {
        *blank = b' ';
    }
    digits
}

/// Eight digits, leading zeros too.
#[inline(always)]
const fn hex_text(value: u32) -> [u8; 8] {
    let wide = value as u64;
    let wide = (wide << 16 | wide) & 0x0000_ffff_0000_ffff;
    let wide = (wide << 8 | wide) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (wide << 4 | wide) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + ZEROS + letters * (b'a' - b'9' - 1) as u64).to_be_bytes()
}

/// What C's `%.*f` prints: the exact binary value, rounded to `precision` decimals, half to even.
pub(super) fn fixed(line: &mut Line<'_>, value: f64, precision: usize) {
    if let Some(len) = short_fixed(line.room(), value, precision) {
        line.step(len);
    } else {
        // Rust rounds the exact value as well. Writing to memory does not fail.
        let _ = write!(line, "{value:.precision$}");
    }
}

/// A number with so many decimals, as C's `%.*f` prints it, in a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub f64, pub usize);

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, precision) = *self;
        let mut room: Room = [b' '; 32];
        match short_fixed(&mut room, value, precision) {
            Some(len) => room[..len].iter().try_for_each(|&digit| f.write_char(digit.into())),
            None => write!(f, "{value:.precision$}"),
        }
    }
}

/// [`fixed`] in integers, if it has at most eight digits before the point.
#[inline(always)]
pub(super) fn short_fixed(room: &mut Room, value: f64, precision: usize) -> Option<usize> {
    const POWERS: [u64; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    let &power = POWERS.get(precision)?;
    let bits = value.to_bits();
    // Of a number below 2^32: 0 to 1054. All others, negative ones too, have a larger one.
    let exponent = (bits >> FRACTION) as u32;
    if exponent >= 1023 + 32 {
        return None;
    }
    let (implicit, exponent) = if exponent == 0 { (0, 1) } else { (1 << FRACTION, exponent) };
    let mantissa = bits & ((1 << FRACTION) - 1) | implicit;
    // The value is mantissa / 2^down.
    let down = 1023 + FRACTION - exponent;
    let rounded = if power > 1000 {
        wide_rounded(mantissa, power, down)
    } else if down < 64 {
        let scaled = mantissa * power;
        let (whole, rest, half) = (scaled >> down, scaled & ((1 << down) - 1), 1 << (down - 1));
        whole + u64::from(rest > half || rest == half && whole & 1 == 1)
    } else {
        // Scaled, it has 63 bits at most: less than the half of one.
        0
    };
    if rounded >= EIGHT {
        return long_fixed(room, rounded, power, precision);
    }
    let digits = eight(rounded);
    // The last one before the point stands, also if it is 0.
    let skip = (digits | 1 << (8 * (7 - precision))).trailing_zeros() as usize / 8;
    let (text, point) = (text_of(digits, skip), (8 - skip - precision) & 15);
    room[..8].copy_from_slice(&text);
    if precision == 0 {
        return Some(point);
    }
    let behind = u64::from_le_bytes(text) - BLANKS;
    room[point] = b'.';
    room[point + 1..point + 9].copy_from_slice(&((behind >> (8 * point)) + BLANKS).to_le_bytes());
    Some(point + 1 + precision)
}

/// A float with more decimals than fit above: `mantissa * power / 2^down`, rounded half to even.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the value is below 2^32, the power at most 10^6")]
fn wide_rounded(mantissa: u64, power: u64, down: u32) -> u64 {
    // It has 73 bits at most: of what is shifted by more, nothing is left.
    let (scaled, down) = (u128::from(mantissa) * u128::from(power), down.min(127));
    let (whole, rest, half) = ((scaled >> down) as u64, scaled & ((1 << down) - 1), 1 << (down - 1));
    whole + u64::from(rest > half || rest == half && whole & 1 == 1)
}

/// Writes a float with more digits than fit into eight bytes.
#[inline(never)]
fn long_fixed(room: &mut Room, rounded: u64, power: u64, precision: usize) -> Option<usize> {
    let mut len = short(room, rounded / power)?;
    if precision > 0 {
        room[len & 15] = b'.';
        len = (len & 15) + 1;
        room[len..len + 8].copy_from_slice(&text_of(eight(rounded % power), 8 - precision));
        len += precision;
    }
    Some(len)
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

/// An address as glibc's `inet_ntop` writes it, for lines that are no rows.
pub fn address(of: IpAddr) -> String {
    let mut text = Vec::new();
    let mut line = Line::new(&mut text);
    ip(&mut line, of);
    drop(line);
    String::from_utf8_lossy(&text).into_owned()
}

/// Each octet with a dot behind it, blanks behind that; and how many bytes that is without them.
const OCTETS: ([[u8; 4]; 256], [u8; 256]) = {
    let (mut texts, mut lens) = ([[b' '; 4]; 256], [0; 256]);
    let mut octet = 0;
    while octet < 256 {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let (skip, len) = match octet {
            0..10 => (2, 2),
            10..100 => (1, 3),
            _ => (0, 4),
        };
        let mut nth = skip;
        while nth < 3 {
            texts[octet][nth - skip] = b"0123456789"[digits[nth]];
            nth += 1;
        }
        texts[octet][3 - skip] = b'.';
        lens[octet] = len;
        octet += 1;
    }
    (texts, lens)
};
static OCTET_TEXTS: [[u8; 4]; 256] = OCTETS.0;
static OCTET_LENS: [u8; 256] = OCTETS.1;

fn ipv4(line: &mut Line<'_>, ip: Ipv4Addr) {
    let len = short_ipv4(line.room(), ip);
    line.step(len);
}

/// An IPv4 address; answers its length.
#[inline(always)]
pub(super) fn short_ipv4(room: &mut Room, ip: Ipv4Addr) -> usize {
    let [a, b, c, d] = ip.octets();
    // At most 12 before the last; the mask tells the compiler.
    let mut put = |at: usize, octet: u8| {
        let at = at & 15;
        room[at..at + 4].copy_from_slice(&OCTET_TEXTS[usize::from(octet)]);
        at + usize::from(OCTET_LENS[usize::from(octet)])
    };
    let end = put(0, a);
    let end = put(end, b);
    let end = put(end, c);
    let end = (put(end, d) - 1) & 15;
    room[end] = b' ';
    end
}

/// An IPv4 address, a colon, a port; answers its length.
#[inline(always)]
pub(super) fn short_endpoint(room: &mut Room, ip: Ipv4Addr, port: u16) -> Option<usize> {
    let mut digits = [b' '; size_of::<Room>()];
    let len = short(&mut digits, port.into())?;
    // At most 15; the mask tells the compiler.
    let end = short_ipv4(room, ip) & 15;
    room[end] = b':';
    room[end + 1..end + 9].copy_from_slice(&digits[..8]);
    Some(end + 1 + len)
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
        let of = |us: u32| Fixed(f64::from(us) / 1000.0, 2).to_string();
        assert_eq!([5, 15, 25, 230, 0, 999_995].map(of), ["0.01", "0.01", "0.03", "0.23", "0.00", "1000.00"]);
        assert_eq!([1e12, -0.25].map(|value| Fixed(value, 1).to_string()), ["1000000000000.0", "-0.2"]);
    }

    #[test]
    fn hexadecimal_has_no_padding() {
        assert_eq!(
            [0, 15, 16, 0xffff_9fd7_e819_2000, u64::MAX].map(|v| text(|line| hex(line, v))),
            ["0", "f", "10", "ffff9fd7e8192000", "ffffffffffffffff"]
        );
    }

    #[test]
    fn ties_go_to_even_and_large_floats_have_all_their_digits() {
        for value in
            [0.5, 1.5, 2.5, 0.125, 0.375, 1e8, 99_999_999.5, 99_999_999.0, 4_294_967_295.75, 1e15, 5e-324]
        {
            for precision in 0..8 {
                let expected = format!("{value:.precision$}");
                assert_eq!(text(|line| fixed(line, value, precision)), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn small_floats_agree_with_exact_rounding(bits in 0_u64..1055 << 52, precision in 0_usize..8) {
            let value = f64::from_bits(bits);
            prop_assert_eq!(text(|line| fixed(line, value, precision)), format!("{value:.precision$}"));
        }

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
