use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TYPE_RRSIG: u16 = 46;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;

/// QR, RD, RA: an ordinary response.
const RESPONSE: u16 = 0x8180;
/// A pointer to the question's name.
const TO_QUESTION: &[u8] = b"\xc0\x0c";

/// A hand-built message. Records are counted as answers until [`Message::further`].
#[derive(Clone)]
struct Message {
    bytes: Vec<u8>,
    /// Offset of the ANCOUNT, NSCOUNT or ARCOUNT to count in.
    count_at: usize,
    /// Offset after each record.
    ends: Vec<usize>,
}

impl Message {
    fn new(flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        Self { bytes, count_at: 6, ends: Vec::new() }
    }

    /// A response to a question of type A.
    fn response(labels: &[&[u8]]) -> Self {
        Self::new(RESPONSE).question(&name(labels), TYPE_A)
    }

    fn question(mut self, name: &[u8], kind: u16) -> Self {
        self.count(4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        self
    }

    fn record_of(mut self, class: u16, owner: &[u8], kind: u16, data: &[u8]) -> Self {
        self.count(self.count_at);
        self.bytes.extend_from_slice(owner);
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&class.to_be_bytes());
        self.bytes.extend_from_slice(&300_u32.to_be_bytes());
        self.bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        self.bytes.extend_from_slice(data);
        self.ends.push(self.bytes.len());
        self
    }

    fn record(self, owner: &[u8], kind: u16, data: &[u8]) -> Self {
        self.record_of(CLASS_IN, owner, kind, data)
    }

    fn a(self, octets: [u8; 4]) -> Self {
        self.record(TO_QUESTION, TYPE_A, &octets)
    }

    fn aaaa(self, address: &str) -> Self {
        let address: Ipv6Addr = address.parse().unwrap();
        self.record(TO_QUESTION, TYPE_AAAA, &address.octets())
    }

    /// What follows belongs to the authority (1) or additional (2) section.
    fn further(mut self, section: usize) -> Self {
        self.count_at = 6 + 2 * section;
        self
    }

    fn count(&mut self, at: usize) {
        let count = u16_at(&self.bytes, at).unwrap() + 1;
        self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    #[track_caller]
    fn says(&self, question: &[u8], addresses: &[&str]) {
        let answer = parse(&self.bytes).expect("the message counts");
        assert_eq!(
            answer.question.as_bytes().escape_ascii().to_string(),
            question.escape_ascii().to_string()
        );
        let found: Vec<_> = answer.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(found, addresses);
        // Neither reader leans on the other.
        let header = Header::read(&self.bytes).unwrap();
        assert_eq!(tolerant(&self.bytes, &header), answer.addresses);
    }
}

fn name(labels: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels.iter().map(AsRef::as_ref) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// What the strict reader alone makes of it.
fn by_dns_parser(message: &[u8]) -> Option<Vec<IpAddr>> {
    strict(message, &Header::read(message)?)
}

#[test]
fn a_and_aaaa_records_are_found() {
    let message = Message::response(&[b"www", b"Example", b"com"]).a([192, 0, 2, 1]).a([192, 0, 2, 2]);
    message.says(b"www.Example.com", &["192.0.2.1", "192.0.2.2"]);
    let message = Message::response(&[b"a"]).aaaa("2001:db8::1").a([192, 0, 2, 3]);
    message.says(b"a", &["2001:db8::1", "192.0.2.3"]);
    assert!(by_dns_parser(&message.bytes).is_some());
}

#[test]
fn an_alias_chain_leads_to_the_question() {
    // www.example.com -> cdn.example.com (compressed) -> edge.test (whole) -> two addresses.
    let alias = Message::response(&[b"www", b"example", b"com"]);
    let cdn_at = u16::try_from(alias.bytes.len()).unwrap() + 12;
    let edge = name(&["edge", "test"]);
    let message = alias
        .record(TO_QUESTION, TYPE_CNAME, b"\x03cdn\xc0\x10")
        .record(&(0xc000 | cdn_at).to_be_bytes(), TYPE_CNAME, &edge)
        .record(&edge, TYPE_A, &[198, 51, 100, 7])
        .record(&edge, TYPE_AAAA, &Ipv6Addr::LOCALHOST.octets());
    message.says(b"www.example.com", &["198.51.100.7", "::1"]);
    assert!(by_dns_parser(&message.bytes).is_some());
}

#[test]
fn only_responses_with_one_question_and_something_to_say_count() {
    let question = name(&["a", "test"]);
    let with = |flags| Message::new(flags).question(&question, TYPE_A);
    assert_eq!(parse(&with(0x0100).a([1; 4]).bytes), None, "a query");
    assert_eq!(parse(&with(RESPONSE).bytes), None, "no answers, no authority");
    assert_eq!(parse(&Message::new(RESPONSE).a([1; 4]).bytes), None, "no question");
    assert_eq!(parse(&with(RESPONSE).question(&question, TYPE_A).a([1; 4]).bytes), None, "two questions");
    with(RESPONSE | 0x0400).says(b"a.test", &[]);
    // NXDOMAIN, a strange opcode, TC and reserved bits do not matter.
    with(RESPONSE | 0x7a4b).a([1; 4]).says(b"a.test", &["1.1.1.1"]);
}

#[test]
fn addresses_outside_of_the_answer_section_are_not_answers() {
    let message = Message::response(&[b"a"]).a([1; 4]).further(1).a([2; 4]).further(2).a([3; 4]).record_of(
        1232,
        b"\0",
        TYPE_OPT,
        b"\0\x0a\0\x02ok",
    );
    message.says(b"a", &["1.1.1.1"]);
    assert!(by_dns_parser(&message.bytes).is_some());
}

#[test]
fn other_classes_and_wrong_lengths_hold_no_address() {
    let message = Message::response(&[b"a"]).record_of(3, TO_QUESTION, TYPE_A, &[9; 4]).record_of(
        CLASS_IN | !CLASS_MASK,
        TO_QUESTION,
        TYPE_A,
        &[1; 4],
    );
    message.says(b"a", &["1.1.1.1"]);
    assert!(by_dns_parser(&message.bytes).is_some());
    let message = message
        .record_of(0, TO_QUESTION, TYPE_A, &[9; 4])
        .record(TO_QUESTION, TYPE_A, &[9; 5])
        .record(TO_QUESTION, TYPE_AAAA, &[9; 4])
        .record(TO_QUESTION, TYPE_A, &[])
        .a([2; 4]);
    message.says(b"a", &["1.1.1.1", "2.2.2.2"]);
    assert!(by_dns_parser(&message.bytes).is_none());
}

/// A message as a validating resolver gets it, with all that makes `dns-parser` give up.
fn modern() -> Message {
    Message::new(RESPONSE)
        .question(&name(&["www", "example", "com"]), TYPE_HTTPS)
        .record(TO_QUESTION, TYPE_RRSIG, &[0x5a; 96])
        .record(TO_QUESTION, TYPE_CNAME, b"\x03cdn\xc0\x10")
        .record(b"\xc0\xff", TYPE_HTTPS, b"\0\x01\0\0\x01\0\x06\x02h3\x02h2")
        .a([192, 0, 2, 1])
        .record(b"\x03cdn\xc0\x10", TYPE_SVCB, b"\0\x01\0")
        .record_of(1232, b"\0", TYPE_OPT, b"")
        .aaaa("2001:db8::2")
        .further(1)
        .record(TO_QUESTION, TYPE_SOA, b"short")
        .further(2)
        .a([192, 0, 2, 99])
        .record_of(4096, b"\0", TYPE_OPT, b"")
        .record_of(4096, b"\0", TYPE_OPT, b"")
}

#[test]
fn unknown_record_types_do_not_hide_addresses() {
    modern().says(b"www.example.com", &["192.0.2.1", "2001:db8::2"]);
    assert!(by_dns_parser(&modern().bytes).is_none());
}

/// Cuts at every byte: what is recovered only grows, up to what the whole message says.
fn check_every_cut(message: &Message) {
    let whole = parse(&message.bytes).expect("the message counts");
    let mut found = 0;
    for cut in 0..=message.bytes.len() {
        let Some(answer) = parse(&message.bytes[..cut]) else {
            assert_eq!(found, 0, "lost the question at {cut}");
            continue;
        };
        assert_eq!(answer.question, whole.question);
        assert_eq!(answer.addresses, whole.addresses[..answer.addresses.len()]);
        assert!(answer.addresses.len() >= found, "lost an address at {cut}");
        found = answer.addresses.len();
    }
    assert_eq!(found, whole.addresses.len());
}

#[test]
fn a_cut_message_keeps_what_is_complete() {
    check_every_cut(&modern());
    let plain = Message::response(&[b"cut", b"test"]).a([1; 4]).aaaa("::2").a([3; 4]);
    check_every_cut(&plain);
    // The question survives as soon as its name is there; an address as soon as its last byte is.
    let name_end = HEADER_LEN + name(&["cut", "test"]).len();
    assert_eq!(parse(&plain.bytes[..name_end - 1]), None);
    assert_eq!(parse(&plain.bytes[..name_end]).unwrap().question.as_bytes(), b"cut.test");
    for (complete, &end) in plain.ends.iter().enumerate() {
        assert_eq!(parse(&plain.bytes[..end - 1]).unwrap().addresses.len(), complete);
        assert_eq!(parse(&plain.bytes[..end]).unwrap().addresses.len(), complete + 1);
    }
}

#[test]
fn a_header_that_claims_too_much_is_a_cut_message() {
    let mut message = Message::response(&[b"a"]).a([1; 4]);
    message.bytes[6..12].fill(0xff);
    assert!(!Header::read(&message.bytes).unwrap().fits(message.bytes.len()));
    message.says(b"a", &["1.1.1.1"]);
}

#[test]
fn the_payload_ends_at_its_limit() {
    let mut message = Message::response(&[b"a"]);
    while message.bytes.len() <= MAX_PAYLOAD {
        message = message.record(b"\0", TYPE_A, &[1; 4]);
    }
    let complete = message.ends.iter().filter(|&&end| end <= MAX_PAYLOAD).count();
    assert_eq!(parse(&message.bytes).unwrap().addresses.len(), complete);
    assert!(complete <= 272, "as documented");
}

#[test]
fn pointers_lead_back_and_never_around() {
    let asking = |name: &[u8]| Message::new(RESPONSE).question(name, TYPE_A).a([1; 4]);
    let refused = |name: &[u8]| parse(&asking(name).bytes).is_none();
    assert!(refused(b"\xc0\x0c"), "to itself");
    assert!(refused(b"\x01a\xc0\x0c"), "to the start of its own labels");
    assert!(refused(b"\x01a\xc0\x0e"), "to itself, behind a label");
    assert!(refused(b"\xc0\x0e\xc0\x0c"), "to each other");
    assert!(refused(b"\xff\xff"), "outside");
    assert_eq!(parse(&asking(b"\x01a\xc0\0").bytes[..15]), None, "half a pointer");
    // dns-parser follows one pointer forward, here to the record's root. RFC 1035 section 4.1.4: prior only.
    let forward = Message::new(RESPONSE).question(b"\x01a\xc0\x14", TYPE_A).record(b"\0", TYPE_A, &[1; 4]);
    assert_eq!(by_dns_parser(&forward.bytes), Some(vec![IpAddr::from([1; 4])]));
    assert_eq!(parse(&forward.bytes), None);
    // Backward leads into the header only, which is strange but sound: offset 0 holds a zero here.
    asking(b"\x01a\xc0\x00").says(b"a", &["1.1.1.1"]);
    // Owner names are stepped over, wherever they point.
    let looping = Message::response(&[b"a"]).record(b"\xc0\x13", TYPE_A, &[1; 4]).a([2; 4]);
    looping.says(b"a", &["1.1.1.1", "2.2.2.2"]);
    assert!(by_dns_parser(&looping.bytes).is_none());
}

#[test]
fn labels_of_no_known_kind_end_the_reading() {
    for kind in [0x40, 0x80] {
        assert_eq!(parse(&Message::new(RESPONSE).question(&[kind, 0], TYPE_A).a([1; 4]).bytes), None);
        let message = Message::response(&[b"a"]).a([1; 4]).record(&[kind, 0], TYPE_A, &[2; 4]).a([3; 4]);
        message.says(b"a", &["1.1.1.1"]);
    }
}

#[test]
fn a_name_has_at_most_255_octets() {
    let long = [b'x'; 63];
    let longest: [&[u8]; 4] = [&long, &long, &long, &long[..61]];
    assert_eq!(name(&longest).len(), MAX_NAME_OCTETS);
    Message::response(&longest).a([1; 4]).says(&longest.join(&b'.'), &["1.1.1.1"]);

    let too_long = Message::response(&[&long, &long, &long, &long[..62]]).a([1; 4]);
    assert!(by_dns_parser(&too_long.bytes).is_some());
    assert_eq!(parse(&too_long.bytes), None);

    let dots = [b'.'; 63];
    let message = Message::response(&[&dots, &dots, &dots, &dots[..61]]).a([1; 4]);
    assert_eq!(parse(&message.bytes).unwrap().question.as_bytes().len(), 503, "as documented");
}

#[test]
fn hostile_labels_stay_as_they_are() {
    let message = Message::response(&[b"\x1b[31m", b"a.b", b"\\", b"\xff\xfe", b"\0\n,\"", b"com"]).a([1; 4]);
    message.says(b"\x1b[31m.a\\.b.\\\\.\xff\xfe.\0\n,\".com", &["1.1.1.1"]);
    // A dot at the end of a label is not the final dot.
    Message::response(&[b"com."]).a([1; 4]).says(b"com\\.", &["1.1.1.1"]);
    assert_eq!(format!("{:?}", parse(&message.bytes).unwrap().question).find('\x1b'), None);
}

#[test]
fn the_root_is_the_empty_text() {
    Message::response(&[]).a([1; 4]).says(b"", &["1.1.1.1"]);
}

/// A record of a message to come, and the address that it holds.
#[derive(Debug, Clone)]
struct Sample {
    owner: Vec<u8>,
    class: u16,
    kind: u16,
    data: Vec<u8>,
}

impl Sample {
    fn address(&self) -> Option<IpAddr> {
        match (self.kind, self.data.len(), self.class) {
            (TYPE_A, 4, 1 | 0x8001) => {
                <[u8; 4]>::try_from(&self.data[..]).ok().map(|a| Ipv4Addr::from(a).into())
            }
            (TYPE_AAAA, 16, 1 | 0x8001) => {
                <[u8; 16]>::try_from(&self.data[..]).ok().map(|a| Ipv6Addr::from(a).into())
            }
            _ => None,
        }
    }
}

fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let letters = vec(b'a'..=b'z', 1..12);
    let bytes = vec(any::<u8>(), 1..12);
    vec(prop_oneof![4 => letters, 1 => bytes], 0..6)
}

fn sample() -> impl Strategy<Value = Sample> {
    let owner = prop_oneof![
        4 => Just(TO_QUESTION.to_vec()),
        1 => labels().prop_map(|labels| name(&labels)),
        1 => (0_u16..0x4000).prop_map(|at| (0xc000 | at).to_be_bytes().to_vec()),
    ];
    let class = prop_oneof![8 => Just(1), 1 => Just(0x8001), 1 => any::<u16>()];
    let kind_and_data = prop_oneof![
        4 => any::<[u8; 4]>().prop_map(|a| (TYPE_A, a.to_vec())),
        4 => any::<[u8; 16]>().prop_map(|a| (TYPE_AAAA, a.to_vec())),
        2 => labels().prop_map(|labels| (TYPE_CNAME, name(&labels))),
        1 => (any::<u16>(), vec(any::<u8>(), 0..40)),
        1 => (prop_oneof![Just(TYPE_A), Just(TYPE_AAAA)], vec(any::<u8>(), 0..20)),
    ];
    (owner, class, kind_and_data).prop_map(|(owner, class, (kind, data))| Sample { owner, class, kind, data })
}

/// A message of the samples: `answers` of them answer, the others follow in the additional section.
fn build(labels: &[Vec<u8>], samples: &[Sample], answers: usize) -> Message {
    let mut message = Message::new(RESPONSE | 0x0400).question(&name(labels), TYPE_A);
    for (index, sample) in samples.iter().enumerate() {
        if index == answers {
            message = message.further(2);
        }
        message = message.record_of(sample.class, &sample.owner, sample.kind, &sample.data);
    }
    message
}

/// Where `dns-parser` reads a message, we find the same in it.
fn check_against_dns_parser(bytes: &[u8]) -> Result<(), TestCaseError> {
    let bytes = &bytes[..bytes.len().min(MAX_PAYLOAD)];
    let ours = parse(bytes);
    let Some(header) = Header::read(bytes) else { return Ok(()) };
    let walked = tolerant(bytes, &header);
    prop_assert!(ours.as_ref().is_none_or(|answer| answer.addresses == walked));
    if !header.fits(bytes.len()) {
        prop_assert!(Packet::parse(bytes).is_err(), "fits() refused what dns-parser reads");
        return Ok(());
    }
    let Ok(theirs) = Packet::parse(bytes) else { return Ok(()) };
    let counts = !theirs.header.query
        && theirs.questions.len() == 1
        && (theirs.header.answers > 0 || theirs.header.authoritative);
    prop_assert_eq!(counts, header.counts());
    if !counts {
        prop_assert_eq!(ours, None);
        return Ok(());
    }
    prop_assert_eq!(&walked, &strict(bytes, &header).expect("dns-parser read it"));
    let their_name = theirs.questions[0].qname.to_string();
    let Some(ours) = ours else {
        // The two rules on names that dns-parser does not have.
        let end = name_end(bytes, HEADER_LEN).unwrap();
        prop_assert!(bytes[end - 2] >= 0xc0 || their_name.len() > MAX_NAME_OCTETS - 2, "{}", their_name);
        return Ok(());
    };
    // Their text has no escapes, and a final dot when a pointer leads to the root.
    let mut unescaped = Vec::new();
    let mut text = ours.question.as_bytes().iter();
    while let Some(&byte) = text.next() {
        unescaped.push(if byte == b'\\' { *text.next().expect("an escaped byte") } else { byte });
    }
    let unescaped = String::from_utf8(unescaped).expect("dns-parser reads ASCII only");
    prop_assert_eq!(unescaped.trim_end_matches('.'), their_name.trim_end_matches('.'));
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..600)) {
        check_against_dns_parser(&bytes)?;
    }

    #[test]
    fn random_bytes_behind_a_good_header_do_no_harm(
        labels in labels(),
        claimed in any::<u8>(),
        bytes in vec(prop_oneof![any::<u8>(), 0_u8..4, Just(0xc0)], 0..300),
    ) {
        let mut message = build(&labels, &[], 0).bytes;
        message[7] = claimed;
        message.extend_from_slice(&bytes);
        check_against_dns_parser(&message)?;
    }

    #[test]
    fn every_complete_address_is_found_at_every_cut(
        labels in labels(),
        samples in vec(sample(), 0..12),
        answers in 0_usize..=12,
    ) {
        let answers = answers.min(samples.len());
        let message = build(&labels, &samples, answers);
        check_against_dns_parser(&message.bytes)?;
        for cut in HEADER_LEN + name(&labels).len()..=message.bytes.len() {
            let complete = message.ends[..answers].iter().filter(|&&end| end <= cut).count();
            let expected: Vec<_> = samples[..complete].iter().filter_map(Sample::address).collect();
            let answer = parse(&message.bytes[..cut]).expect("the question is there");
            prop_assert_eq!(answer.addresses, expected);
        }
    }

    #[test]
    fn damaged_messages_are_read_alike(
        labels in labels(),
        samples in vec(sample(), 0..8),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = build(&labels, &samples, samples.len()).bytes;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_against_dns_parser(&bytes)?;
        // More bytes never mean fewer addresses, whatever they are.
        let mut found = 0;
        for cut in 0..=bytes.len() {
            let now = parse(&bytes[..cut]).map_or(0, |answer| answer.addresses.len());
            prop_assert!(now >= found, "lost an address at {}", cut);
            found = now;
        }
    }
}
