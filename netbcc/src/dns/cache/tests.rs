use proptest::collection::vec;
use proptest::prelude::*;

use super::super::parse;
use super::*;

const MS: u64 = 1_000_000;
const DAY: u64 = 86_400_000 * MS;

/// A response to a question of one label, with these addresses.
fn answer(question: &str, addresses: &[&str]) -> Answer {
    let mut message = b"\0\0\x84\0\0\x01\0\0\0\0\0\0".to_vec();
    message.push(u8::try_from(question.len()).unwrap());
    message.extend_from_slice(question.as_bytes());
    message.extend_from_slice(b"\0\0\x01\0\x01");
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Answer { addresses, ..parse(&message).unwrap() }
}

fn text(cache: &Cache, address: &str, now_ns: u64) -> String {
    let mut out = Vec::new();
    cache.query_text(address.parse().unwrap(), 0, now_ns, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_age_above_100_ms_is_told() {
    let mut cache = Cache::new();
    cache.insert(&answer("name", &["192.0.2.1", "2001:db8::1"]), 0, 5 * MS);
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(text(&cache, address, 5 * MS), "name");
        assert_eq!(text(&cache, address, 105 * MS + 999), "name");
        assert_eq!(text(&cache, address, 105 * MS + 1000), "name (100.001ms)");
        assert_eq!(text(&cache, address, 128 * MS + 342_999), "name (123.342ms)");
        assert_eq!(text(&cache, address, 2005 * MS), "name (2000.000ms)");
        assert_eq!(text(&cache, address, 0), "name", "the events came out of order");
    }
}

#[test]
fn the_text_is_appended() {
    let mut out = b"row ".to_vec();
    Cache::default().query_text("192.0.2.1".parse().unwrap(), 0, 0, &mut out);
    assert_eq!(out, b"row No DNS Query");
}

#[test]
fn without_a_response_only_loopback_has_a_name() {
    let mut cache = Cache::new();
    assert_eq!(text(&cache, "127.0.0.1", 0), "localhost");
    assert_eq!(text(&cache, "::1", 0), "localhost");
    assert_eq!(text(&cache, "::ffff:127.0.0.1", 0), "localhost");
    for other in ["127.0.0.2", "192.0.2.1", "::", "::2", "::127.0.0.1"] {
        assert_eq!(text(&cache, other, 0), "No DNS Query");
    }
    cache.insert(&answer("box", &["127.0.0.1"]), 0, 0);
    assert_eq!(text(&cache, "127.0.0.1", 0), "box");
    assert_eq!(text(&cache, "::1", 0), "localhost");
}

#[test]
fn mapped_addresses_are_ipv4_addresses() {
    let mut cache = Cache::new();
    cache.insert(&answer("four", &["192.0.2.1"]), 0, 0);
    cache.insert(&answer("six", &["::ffff:192.0.2.2"]), 0, 0);
    assert_eq!(text(&cache, "::ffff:192.0.2.1", 0), "four");
    assert_eq!(text(&cache, "192.0.2.2", 0), "six");
    // Not mapped: the address of another machine.
    assert_eq!(text(&cache, "::192.0.2.1", 0), "No DNS Query");
}

#[test]
fn the_newest_response_wins() {
    let mut cache = Cache::new();
    cache.insert(&answer("second", &["192.0.2.1"]), 0, 20);
    cache.insert(&answer("first", &["192.0.2.1"]), 0, 10);
    assert_eq!(text(&cache, "192.0.2.1", 20), "second");
    cache.insert(&answer("third", &["192.0.2.1"]), 0, 20);
    assert_eq!(text(&cache, "192.0.2.1", 20), "third");
    cache.insert(&answer("fourth", &["192.0.2.1"]), 0, 30);
    assert_eq!(text(&cache, "192.0.2.1", 30), "fourth");
    assert_eq!((cache.entries.len(), cache.by_age.len()), (1, 1));
}

#[test]
fn an_address_is_forgotten_after_a_day() {
    let mut cache = Cache::new();
    cache.insert(&answer("old", &["192.0.2.1"]), 0, MS);
    assert_eq!(text(&cache, "192.0.2.1", MS + DAY - MS), "old (86399999.000ms)");
    assert_eq!(text(&cache, "192.0.2.1", MS + DAY), "No DNS Query");
    // The next response drops it.
    cache.insert(&answer("new", &["192.0.2.2"]), 0, MS + DAY);
    assert_eq!((cache.entries.len(), cache.by_age.len()), (1, 1));
}

#[test]
fn the_oldest_make_room() {
    let mut cache = Cache::new();
    let address = |n: usize| IpAddr::from(Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
    let mut response = answer("name", &[]);
    for n in 0..CAPACITY + 3 {
        response.addresses = vec![address(n)];
        cache.insert(&response, 0, n as u64);
    }
    assert_eq!((cache.entries.len(), cache.by_age.len()), (CAPACITY, CAPACITY));
    for n in 0..CAPACITY + 3 {
        assert_eq!(cache.entries.contains_key(&(address(n), ANYBODY)), n >= 3);
    }
    // A response older than all of them finds no room.
    response.addresses = vec![address(0)];
    cache.insert(&response, 0, 0);
    assert!(!cache.entries.contains_key(&(address(0), ANYBODY)));
}

#[test]
fn what_the_process_asked_for_comes_first() {
    let mut cache = Cache::new();
    let said = |cache: &Cache, pid| {
        let mut out = Vec::new();
        cache.query_text("192.0.2.1".parse().unwrap(), pid, 3, &mut out);
        String::from_utf8(out).unwrap()
    };
    cache.insert(&answer("one", &["192.0.2.1"]), 1, 1);
    cache.insert(&answer("two", &["192.0.2.1"]), 2, 2);
    assert_eq!([1, 2, 3, 0].map(|pid| said(&cache, pid)), ["one", "two", "two", "two"]);
    // What is forgotten leaves what was there before.
    cache.forget(2);
    assert_eq!([1, 2, 3, 0].map(|pid| said(&cache, pid)), ["one"; 4]);
    cache.forget(1);
    assert_eq!(said(&cache, 1), "No DNS Query");
    assert!(cache.entries.is_empty() && cache.by_age.is_empty());
}

proptest! {
    /// Against a plain list: an address's newest response, if it is among the newest of all addresses.
    #[test]
    fn like_a_plain_list(inserts in vec((0_u8..8, 0_u64..20), 0..60), now in 0_u64..40) {
        let hours = DAY / 24;
        let mut cache = Cache::with_capacity(4);
        let mut list: Vec<(u64, IpAddr, usize)> = Vec::new();
        for (number, (host, hour)) in inserts.into_iter().enumerate() {
            let seen_ns = hour * hours;
            let address = IpAddr::from([192, 0, 2, host]);
            cache.insert(&answer(&number.to_string(), &[&address.to_string()]), 0, seen_ns);
            if !list.iter().any(|entry| entry.1 == address && entry.0 > seen_ns) {
                list.retain(|entry| entry.1 != address);
                list.push((seen_ns, address, number));
                list.sort_unstable();
                if list.len() > 4 {
                    list.remove(0);
                }
            }
            prop_assert_eq!(cache.entries.len(), list.len());
            prop_assert_eq!(cache.by_age.len(), list.len());
        }
        let now_ns = now * hours;
        for host in 0..8 {
            let address = IpAddr::from([192, 0, 2, host]);
            let expected = match list.iter().find(|entry| entry.1 == address) {
                Some((seen_ns, _, _)) if now_ns >= seen_ns + DAY => "No DNS Query".to_owned(),
                Some((seen_ns, _, number)) if now_ns > *seen_ns => {
                    format!("{number} ({}.000ms)", (now_ns - seen_ns) / MS)
                }
                Some((_, _, number)) => number.to_string(),
                None => "No DNS Query".to_owned(),
            };
            prop_assert_eq!(text(&cache, &address.to_string(), now_ns), expected);
        }
    }
}
