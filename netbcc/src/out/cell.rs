//! One value of one row, and its text form.
//!
//! Lives here: the typed cell and the text that BCC would print for it. Must never live here: widths, columns,
//! or anything about a whole row.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::escape;
use super::line::Line;
use super::number::{self, Room};

/// One value of one row. The type decides its form: text and CSV print it, JSON keeps numbers as numbers.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// Nothing known: empty text, JSON `null`.
    Empty,
    /// An unsigned number.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// Lower-case hexadecimal without prefix; a string in JSON, where 64-bit numbers lose bits.
    Hex(u64),
    /// A float, printed with its column's precision; JSON gets the shortest form that reads back the same.
    Float(f64),
    /// netqtop's number rule on a count: `1000`, `0.98K`, `0.95M`. A plain number in JSON.
    Scaled(u64),
    /// netqtop's number rule on a mean or a rate: `38.0`, `1.5K`. A plain number in JSON.
    ScaledFloat(f64),
    /// Bytes from the traced world: a process name, a DNS name. Always escaped.
    Name(&'a [u8]),
    /// A name in a buffer of the kernel's, such as `comm`: it ends at the first NUL.
    Buffer(&'a [u8; 16]),
    /// Text of our own: one byte per character where it is padded.
    Label(&'static str),
    /// Anything printable; escaped like a name.
    Shown(&'a dyn fmt::Display),
    /// Yes or no: `true` or `false`.
    Bool(bool),
    /// Names in a row, comma-separated in text; an array in JSON.
    List(&'a [String]),
    /// Numbers in a row, comma-separated in text; an array in JSON.
    Numbers(&'a [u32]),
    /// An address as glibc's `inet_ntop` writes it.
    Ip(IpAddr),
    /// An address; version 6 in square brackets. Without brackets in CSV and JSON.
    Bracketed(IpAddr),
    /// `address:port`, without brackets, as BCC.
    Endpoint(IpAddr, u16),
    /// `[address]#port`, as tcpretrans counts flows.
    FlowEnd(IpAddr, u16),
}

impl Cell<'_> {
    /// The text form into the room ahead, names cut to `max` characters, if it is one that nearly all cells have: short
    /// and ASCII. Answers its length.
    #[inline(always)]
    pub(super) fn write_short(&self, room: &mut Room, precision: usize, max: usize) -> Option<usize> {
        match *self {
            Cell::Unsigned(value) => number::short(room, value),
            Cell::Hex(value) => Some(number::short_hex(room, value)),
            Cell::Float(value) => number::short_fixed(room, value, precision),
            Cell::Buffer(buffer) => escape::short(room, buffer, max),
            Cell::Name(name) => escape::short_name(room, name, max),
            Cell::Label(label) if label.len() <= max.min(room.len()) => {
                room[..label.len()].copy_from_slice(label.as_bytes());
                Some(label.len())
            }
            Cell::Ip(IpAddr::V4(ip)) => Some(number::short_ipv4(room, ip)),
            Cell::Endpoint(IpAddr::V4(ip), port) => number::short_endpoint(room, ip, port),
            _ => None,
        }
    }

    /// Appends the text form, names cut to `max` characters; answers how many characters that were.
    pub(super) fn write_text(&self, line: &mut Line<'_>, precision: usize, max: usize) -> usize {
        let start = line.at();
        match *self {
            Cell::Empty => {}
            Cell::Unsigned(value) => number::unsigned(line, value),
            Cell::Signed(value) => number::signed(line, value),
            Cell::Hex(value) => number::hex(line, value),
            Cell::Float(value) => number::fixed(line, value, precision),
            Cell::Scaled(value) => number::scaled(line, value),
            Cell::ScaledFloat(value) => number::scaled_float(line, value),
            Cell::Name(name) => return escape::text(line, name, max),
            Cell::Buffer(buffer) => return escape::text(line, escape::name_in(buffer), max),
            Cell::Label(label) => line.bytes(&label.as_bytes()[..label.len().min(max)]),
            Cell::Bool(is) => line.bytes(if is { b"true" } else { b"false" }),
            Cell::Shown(value) => {
                let mut text = escape::Text::of_name(line, max);
                // The sink is memory and never fails; a Display that does has said all that it could.
                let _ = write!(text, "{value}");
                return text.end();
            }
            Cell::List(names) => {
                let mut written = 0;
                for (index, name) in names.iter().enumerate() {
                    if index > 0 && written < max {
                        line.push(b',');
                        written += 1;
                    }
                    written += escape::text(line, name.as_bytes(), max.saturating_sub(written));
                }
                return written;
            }
            Cell::Numbers(numbers) => {
                let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                return escape::text(line, texts.join(",").as_bytes(), max);
            }
            Cell::Ip(ip) | Cell::Bracketed(ip @ IpAddr::V4(_)) => number::ip(line, ip),
            Cell::Bracketed(ip @ IpAddr::V6(_)) => {
                line.push(b'[');
                number::ip(line, ip);
                line.push(b']');
            }
            Cell::Endpoint(ip, port) => {
                number::ip(line, ip);
                line.push(b':');
                number::unsigned(line, port.into());
            }
            Cell::FlowEnd(ip, port) => {
                line.push(b'[');
                number::ip(line, ip);
                line.bytes(b"]#");
                number::unsigned(line, port.into());
            }
        }
        // Everything that comes here is ASCII.
        line.at() - start
    }
}

macro_rules! cell_from {
    ($($from:ty => $to:ident,)*) => {$(
        impl From<$from> for Cell<'_> {
            fn from(value: $from) -> Self {
                Cell::$to(value.into())
            }
        }
    )*};
}

cell_from! {
    u8 => Unsigned,
    u16 => Unsigned,
    u32 => Unsigned,
    u64 => Unsigned,
    i32 => Signed,
    i64 => Signed,
    f64 => Float,
    bool => Bool,
    &'static str => Label,
    IpAddr => Ip,
    std::net::Ipv4Addr => Ip,
    std::net::Ipv6Addr => Ip,
}

impl<'a> From<&'a [u8]> for Cell<'a> {
    fn from(name: &'a [u8]) -> Self {
        Cell::Name(name)
    }
}

impl<'a> From<&'a [u8; 16]> for Cell<'a> {
    fn from(buffer: &'a [u8; 16]) -> Self {
        Cell::Buffer(buffer)
    }
}
