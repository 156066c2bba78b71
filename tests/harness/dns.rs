//! DNS messages as servers write them, well-formed or not.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Record types.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// An alias.
    pub const CNAME: u16 = 5;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS options.
    pub const OPT: u16 = 41;
    /// A signature.
    pub const RRSIG: u16 = 46;
    /// How to reach a web server.
    pub const HTTPS: u16 = 65;
}

/// The bit that makes a message a response.
pub const RESPONSE: u16 = 0x8000;
/// The answer comes from the server's own data.
pub const AUTHORITATIVE: u16 = 0x0400;
/// The message was too long.
pub const TRUNCATED: u16 = 0x0200;
/// Recursion desired and available, as every resolver says.
const RECURSION: u16 = 0x0180;

/// A message under construction.
#[must_use]
#[derive(Clone, Debug)]
pub struct Message {
    flags: u16,
    question: Vec<u8>,
    answers: Vec<u8>,
    count: u16,
    additional: Vec<u8>,
    additional_count: u16,
}

/// A name on the wire.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("labels are short"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

impl Message {
    fn new(flags: u16, name: &str, kind: u16) -> Self {
        let mut question = wire(name);
        question.extend_from_slice(&kind.to_be_bytes());
        question.extend_from_slice(&1_u16.to_be_bytes());
        Self { flags, question, answers: vec![], count: 0, additional: vec![], additional_count: 0 }
    }

    /// A question.
    pub fn query(name: &str, kind: u16) -> Self {
        Self::new(0x0100, name, kind)
    }

    /// A response to that question.
    pub fn response(name: &str, kind: u16) -> Self {
        Self::new(RESPONSE | RECURSION, name, kind)
    }

    /// Sets flag bits.
    pub fn flag(mut self, bits: u16) -> Self {
        self.flags |= bits;
        self
    }

    /// Clears flag bits.
    pub fn without_flag(mut self, bits: u16) -> Self {
        self.flags &= !bits;
        self
    }

    /// Adds any record; an empty name points to the question's.
    pub fn record(mut self, name: &str, kind: u16, data: &[u8]) -> Self {
        self.answers.extend(record(name, kind, data));
        self.count += 1;
        self
    }

    /// Adds an IPv4 address.
    pub fn a(self, name: &str, address: Ipv4Addr) -> Self {
        self.record(name, kind::A, &address.octets())
    }

    /// Adds an IPv6 address.
    pub fn aaaa(self, name: &str, address: Ipv6Addr) -> Self {
        self.record(name, kind::AAAA, &address.octets())
    }

    /// Adds an address of whichever family it is.
    pub fn address(self, name: &str, address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(ip) => self.a(name, ip),
            std::net::IpAddr::V6(ip) => self.aaaa(name, ip),
        }
    }

    /// Adds an alias.
    pub fn cname(self, name: &str, target: &str) -> Self {
        self.record(name, kind::CNAME, &wire(target))
    }

    /// Adds a signature over some other record.
    pub fn signature(self, name: &str) -> Self {
        let mut data = vec![0, 1, 13, 3, 0, 0, 1, 44, 0x68, 0, 0, 0, 0x67, 0, 0, 0, 0x12, 0x34];
        data.extend(wire("example.net"));
        data.extend([0xa5; 64]);
        self.record(name, kind::RRSIG, &data)
    }

    /// Adds how to reach a web server: its own name, `alpn=h2`.
    pub fn https(self, name: &str) -> Self {
        self.record(name, kind::HTTPS, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2'])
    }

    /// Adds the EDNS record that almost every response carries today.
    pub fn edns(mut self) -> Self {
        // The root's name, the type, 1232 bytes, no flags, no options.
        self.additional.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        self.additional_count += 1;
        self
    }

    /// Adds addresses of nobody until the message has about this size.
    pub fn padded_to(mut self, size: usize) -> Self {
        for filler in 0_u32.. {
            if self.bytes().len() + 32 > size {
                break;
            }
            self = self.a("", Ipv4Addr::from(0xcb00_7100 + filler % 256));
        }
        self
    }

    /// Claims records that are not there.
    pub fn promising(mut self, more: u16) -> Self {
        self.count += more;
        self
    }

    /// The message with the id 0.
    pub fn bytes(&self) -> Vec<u8> {
        let header = [0x1234, self.flags, 1, self.count, 0, self.additional_count];
        let mut bytes: Vec<u8> = header.into_iter().flat_map(u16::to_be_bytes).collect();
        bytes.extend_from_slice(&self.question);
        bytes.extend_from_slice(&self.answers);
        bytes.extend_from_slice(&self.additional);
        bytes
    }
}

fn record(name: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    // The question's name begins at byte 12.
    let mut bytes = if name.is_empty() { vec![0xc0, 12] } else { wire(name) };
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1_u16.to_be_bytes());
    bytes.extend_from_slice(&300_u32.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(data.len()).expect("data is short").to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}
