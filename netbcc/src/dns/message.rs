//! Reads one DNS response.
//!
//! The `dns-parser` crate reads the message first. It is strict: one record type that it does not know (RRSIG,
//! HTTPS), a byte of a label that is not ASCII, or a message cut short, and the whole message is refused. Then
//! a walker of our own takes over, which needs the framing of the answer section only, and recovers every complete
//! address up to the cut.
//!
//! Where both read a message they find the same addresses (the tests prove it). Three things are ours alone:
//!
//! * *The question's name.* `dns-parser` gives a name as text only, with the borders of labels lost, and by
//!   a recursion per compression pointer that a sender can drive thousands deep. Ours is bounded and keeps borders.
//! * *Limits on that name.* `dns-parser` follows one pointer forward and accepts names of any length. A pointer
//!   leads to a *prior* occurrence (RFC 1035 section 4.1.4; BCC's dnslib agrees), and a name has at most 255 octets
//!   (section 2.3.4). A question that breaks these rules is no question, so the message does not count.
//! * *The counts of the header.* `dns-parser` reserves memory for as many records as the header claims (29 MB for
//!   12 hostile bytes). It is not asked when the payload cannot hold them: the message is cut, which is the walker's.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use dns_parser::{Class, Packet, RData};

/// Bytes of a message that are looked at. The rest is a cut like any other.
pub const MAX_PAYLOAD: usize = 4096;

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// Bytes of the shortest question: root, type, class (RFC 1035 section 4.1.2).
const MIN_QUESTION_LEN: usize = 5;
/// Bytes of the shortest record: root, type, class, TTL, length (RFC 1035 section 4.1.3).
const MIN_RECORD_LEN: usize = 11;
/// Octets of a name on the wire, length octets and the root included (RFC 1035 section 2.3.4).
const MAX_NAME_OCTETS: usize = 255;
/// Bytes of a name as text: each octet of a label may need an escape in front of it.
const MAX_NAME_TEXT: usize = 2 * MAX_NAME_OCTETS;

/// Record type A (RFC 1035 section 3.2.2).
const TYPE_A: u16 = 1;
/// Record type AAAA (RFC 3596 section 2.1).
const TYPE_AAAA: u16 = 28;
/// Class IN (RFC 1035 section 3.2.4).
const CLASS_IN: u16 = 1;
/// The class without the cache-flush bit of multicast DNS (RFC 6762 section 10.2), which `dns-parser` drops too.
const CLASS_MASK: u16 = 0x7fff;

/// A domain name as dotted text without the final dot; the root is the empty text.
///
/// The bytes are those of the labels and may be anything, also ESC or invalid UTF-8: whoever prints them escapes
/// them. Only a dot and a backslash *inside* a label are written `\.` and `\\` (RFC 1035 section 5.1), so that the
/// borders of the labels stay visible. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The text, raw. At most 503 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the name at `at`; none when it is cut, longer than a name may be, or points anywhere but back.
    fn read(message: &[u8], mut at: usize) -> Option<Self> {
        let mut text = [0; MAX_NAME_TEXT];
        let mut used = 0;
        let mut push = |byte| {
            text[used] = byte;
            used += 1;
        };
        let mut octets = 1; // the root
        // Each pointer leads to before the run of labels that it ends, so there is no loop to be caught in.
        let mut run = at;
        loop {
            match Label::read(message, at)? {
                Label::Root => break,
                Label::Text(label) => {
                    if octets > 1 {
                        push(b'.');
                    }
                    octets += 1 + label.len();
                    if octets > MAX_NAME_OCTETS {
                        return None;
                    }
                    for &byte in label {
                        if matches!(byte, b'.' | b'\\') {
                            push(b'\\');
                        }
                        push(byte);
                    }
                    at += 1 + label.len();
                }
                Label::Pointer(target) if target < run => {
                    run = target;
                    at = target;
                }
                Label::Pointer(_) => return None,
            }
        }
        Some(Self(text[..used].into()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0.escape_ascii())
    }
}

/// What a response says: the question, and the addresses that it was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, in the letter case of the response.
    pub question: Name,
    /// Every A and AAAA record of class IN in the answer section, in the order of the message. An alias chain
    /// (CNAME) thus leads from the question to its addresses. At most 272, for that many fit into [`MAX_PAYLOAD`].
    pub addresses: Vec<IpAddr>,
}

/// Reads a UDP payload as a DNS response.
///
/// A message counts when it is a response (QR) with exactly one question, and has answers or is authoritative (AA).
/// Opcode and response code are not looked at, as in BCC. A message cut short after the question's name counts with
/// the addresses that are complete.
pub fn parse(payload: &[u8]) -> Option<Answer> {
    let message = &payload[..payload.len().min(MAX_PAYLOAD)];
    let header = Header::read(message)?;
    if !header.counts() {
        return None;
    }
    let question = Name::read(message, HEADER_LEN)?;
    let addresses = strict(message, &header).unwrap_or_else(|| tolerant(message, &header));
    Some(Answer { question, addresses })
}

/// Whether the question of the response `payload` is the one that `question` begins with: name, type and class, in
/// whatever letter case. Of a response that is cut within its question, what there is after the whole name.
pub fn repeats(payload: &[u8], question: &[u8]) -> bool {
    let Some(end) = name_end(payload, HEADER_LEN) else { return false };
    let repeated = &payload[HEADER_LEN..payload.len().min(end + 4)];
    question.get(..repeated.len()).is_some_and(|asked| asked.eq_ignore_ascii_case(repeated))
}

/// Whether the response `payload` says that it is cut (TC, RFC 1035 section 4.1.1), so that one asks again over TCP.
pub fn is_cut(payload: &[u8]) -> bool {
    u16_at(payload, 2).is_some_and(|flags| flags & 0x8200 == 0x8200)
}

/// The addresses by `dns-parser`; none when it gives up.
fn strict(message: &[u8], header: &Header) -> Option<Vec<IpAddr>> {
    if !header.fits(message.len()) {
        return None;
    }
    let packet = Packet::parse(message).ok()?;
    let address = |data: &RData| match data {
        RData::A(record) => Some(IpAddr::from(record.0)),
        RData::AAAA(record) => Some(IpAddr::from(record.0)),
        _ => None,
    };
    let in_class = packet.answers.iter().filter(|record| record.cls == Class::IN);
    Some(in_class.filter_map(|record| address(&record.data)).collect())
}

/// The addresses up to the first byte that breaks the framing. The owner names of records are stepped over, not
/// read: every address in the answer section belongs to the question.
fn tolerant(message: &[u8], header: &Header) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    // Past the question: its name, type and class.
    let mut next = name_end(message, HEADER_LEN).map(|end| end + 4);
    for _ in 0..header.answers {
        let Some(record) = next.and_then(|at| Record::read(message, at)) else { break };
        addresses.extend(record.address());
        next = Some(record.end);
    }
    addresses
}

/// The header's fields that matter here (RFC 1035 section 4.1.1).
struct Header {
    /// QR: a response, not a query.
    response: bool,
    /// AA: the sender is an authority for the name.
    authoritative: bool,
    /// QDCOUNT.
    questions: u16,
    /// ANCOUNT.
    answers: u16,
    /// NSCOUNT + ARCOUNT: the records after the answers.
    further: u32,
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let flags = u16_at(message, 2)?;
        Some(Self {
            response: flags & 0x8000 != 0,
            authoritative: flags & 0x0400 != 0,
            questions: u16_at(message, 4)?,
            answers: u16_at(message, 6)?,
            further: u32::from(u16_at(message, 8)?) + u32::from(u16_at(message, 10)?),
        })
    }

    /// Whether this is a response to look at.
    fn counts(&self) -> bool {
        self.response && self.questions == 1 && (self.answers > 0 || self.authoritative)
    }

    /// Whether a message of `len` bytes can hold what the header claims.
    fn fits(&self, len: usize) -> bool {
        let records = u64::from(self.answers) + u64::from(self.further);
        let least = HEADER_LEN as u64
            + u64::from(self.questions) * MIN_QUESTION_LEN as u64
            + records * MIN_RECORD_LEN as u64;
        least <= len as u64
    }
}

/// One step of a name (RFC 1035 sections 3.1 and 4.1.4).
enum Label<'a> {
    /// The empty label that ends a name.
    Root,
    /// 1 to 63 octets.
    Text(&'a [u8]),
    /// The name goes on at this offset of the message.
    Pointer(usize),
}

impl<'a> Label<'a> {
    /// Reads the label at `at`; none when it is cut or of a kind that never came to be (top bits 01 and 10,
    /// RFC 6891 section 5).
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let first = *message.get(at)?;
        match first >> 6 {
            0 if first == 0 => Some(Self::Root),
            0 => message.get(at + 1..)?.get(..first.into()).map(Self::Text),
            3 => u16_at(message, at).map(|word| Self::Pointer(usize::from(word & 0x3fff))),
            _ => None,
        }
    }
}

/// The offset after the name at `at`, pointers not followed.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match Label::read(message, at)? {
            Label::Root => return Some(at + 1),
            Label::Text(label) => at += 1 + label.len(),
            Label::Pointer(_) => return Some(at + 2),
        }
    }
}

/// A complete resource record (RFC 1035 section 4.1.3).
struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
    /// Offset of what follows.
    end: usize,
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let fixed = name_end(message, at)?;
        let start = fixed + 10;
        let end = start + usize::from(u16_at(message, fixed + 8)?);
        Some(Self {
            kind: u16_at(message, fixed)?,
            class: u16_at(message, fixed + 2)? & CLASS_MASK,
            data: message.get(start..end)?,
            end,
        })
    }

    /// The address it holds. An A or AAAA record of the wrong length holds none.
    fn address(&self) -> Option<IpAddr> {
        match (self.class, self.kind) {
            (CLASS_IN, TYPE_A) => <[u8; 4]>::try_from(self.data).ok().map(IpAddr::from),
            (CLASS_IN, TYPE_AAAA) => <[u8; 16]>::try_from(self.data).ok().map(IpAddr::from),
            _ => None,
        }
    }
}

/// The number at `at`, in network order.
fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests;
