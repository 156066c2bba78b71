//! Which question led to which address.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Answer, Name};

/// Addresses that are remembered, as in BCC.
const CAPACITY: usize = 10_240;
/// Age at which an address is forgotten, in nanoseconds: 24 hours, as in BCC.
const TTL_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
/// Age above which the text tells it, in microseconds: 100 ms, as in BCC.
const QUIET_US: u64 = 100_000;

/// The questions behind the addresses of the last day, at most 10,240; the oldest make room.
///
/// Times are nanoseconds of the kernel's monotonic clock, taken when the response was received and when the
/// connection was opened. BCC takes the wall clock in user space instead, and drops the day part of the difference.
///
/// Memory is bounded: a name is shared by all addresses of its response, and the worst that a sender can do, one
/// address per response and names full of escapes, comes to about 7 MB. Ordinary names come to about 2 MB when full.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<IpAddr, Entry>,
    /// The keys of `entries` by time, oldest first.
    by_age: BTreeSet<(u64, IpAddr)>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    question: Name,
    seen_ns: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    /// An empty cache. It takes memory as it fills.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_age: BTreeSet::new(), capacity }
    }

    /// Remembers the answer of a response that was received at `seen_ns`.
    ///
    /// The newest response wins, by time and not by order of arrival here; of two at the same time, the later call.
    pub fn insert(&mut self, answer: &Answer, seen_ns: u64) {
        for address in &answer.addresses {
            let address = address.to_canonical();
            if let Some(known) = self.entries.get(&address) {
                if known.seen_ns > seen_ns {
                    continue;
                }
                self.by_age.remove(&(known.seen_ns, address));
            }
            self.entries.insert(address, Entry { question: answer.question.clone(), seen_ns });
            self.by_age.insert((seen_ns, address));
            self.shrink(seen_ns);
        }
    }

    /// Drops what is too old at `now_ns` or too much.
    fn shrink(&mut self, now_ns: u64) {
        while let Some(&(seen_ns, address)) = self.by_age.first()
            && (self.entries.len() > self.capacity || expired(seen_ns, now_ns))
        {
            self.by_age.pop_first();
            self.entries.remove(&address);
        }
    }

    /// Appends the text of the `QUERY` column for a connection to `address` that was opened at `now_ns`.
    ///
    /// It is the question of the newest response that carried the address, in raw bytes (see [`Name`]). An age of
    /// more than 100 ms follows in milliseconds, cut to whole microseconds: `www.domain.com (123.342ms)`; it
    /// counts on past a day's end, where BCC's starts again from zero. A response that is newer than the
    /// connection has age zero. Without a response the text is `localhost` for a loopback address (`127.0.0.1` or
    /// `::1`) and `No DNS Query` for any other.
    ///
    /// A v4-mapped address (`::ffff:1.2.3.4`) is the IPv4 address that it holds, here and in [`Cache::insert`].
    pub fn query_text(&self, address: IpAddr, now_ns: u64, out: &mut Vec<u8>) {
        let address = address.to_canonical();
        let entry = self.entries.get(&address).filter(|entry| !expired(entry.seen_ns, now_ns));
        let Some(entry) = entry else {
            let local = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
            out.extend_from_slice(if local { b"localhost" } else { b"No DNS Query" });
            return;
        };
        out.extend_from_slice(entry.question.as_bytes());
        let age_us = now_ns.saturating_sub(entry.seen_ns) / 1000;
        if age_us > QUIET_US {
            // Writing to a Vec cannot fail.
            let _ = write!(out, " ({}.{:03}ms)", age_us / 1000, age_us % 1000);
        }
    }
}

fn expired(seen_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(seen_ns) >= TTL_NS
}

#[cfg(test)]
mod tests;
