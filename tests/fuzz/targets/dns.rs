//! DNS messages: what another's parser reads is read the same, and what is remembered of it can be printed.
#![no_main]

use dns_parser::{Class, Packet, RData};
use libfuzzer_sys::fuzz_target;
use netbcc::dns;

fuzz_target!(|data: &[u8]| {
    let _whatever_it_says = dns::is_cut(data);
    let Some(answer) = dns::parse(data) else { return };
    assert!(dns::repeats(data, &data[12..]), "it repeats its own question");
    let question = answer.question.as_bytes();
    assert!(question.len() <= 503, "{question:?}");
    assert!(answer.addresses.len() <= 272, "{}", answer.addresses.len());
    let message = &data[..data.len().min(dns::MAX_PAYLOAD)];
    // It makes room for what the header claims; ours does not, and nor does this.
    let claims: usize =
        (2..6).map(|word| usize::from(u16::from_be_bytes([message[2 * word], message[2 * word + 1]]))).sum();
    if claims * 5 <= message.len()
        && let Ok(packet) = Packet::parse(message)
    {
        let addresses: Vec<std::net::IpAddr> = packet
            .answers
            .iter()
            .filter(|record| record.cls == Class::IN)
            .filter_map(|record| match record.data {
                RData::A(a) => Some(a.0.into()),
                RData::AAAA(aaaa) => Some(aaaa.0.into()),
                _ => None,
            })
            .collect();
        assert_eq!(answer.addresses, addresses);
        let labels = question.split(|&byte| byte == b'.').count();
        assert!(labels >= 1 && packet.questions.len() == 1);
    }
    let mut names = dns::Cache::new();
    names.insert(&answer, 7, 1_000_000_000);
    for address in &answer.addresses {
        let mut text = Vec::new();
        names.query_text(*address, 7, 1_000_000_001, &mut text);
        assert_eq!(text, question);
        text.clear();
        names.query_text(*address, 8, 2_000_000_000, &mut text);
        assert!(text.starts_with(question) && text.ends_with(b" (1000.000ms)"));
    }
    names.forget(1_000_000_000);
    for address in &answer.addresses {
        let mut text = Vec::new();
        names.query_text(*address, 7, 1_000_000_001, &mut text);
        assert!(text == b"No DNS Query" || text == b"localhost");
    }
    // A prefix of a message never has other addresses than the message.
    if let Some(cut) = message.len().checked_sub(1).and_then(|end| dns::parse(&message[..end])) {
        assert_eq!(cut.question, answer.question);
    }
});
