//! Which question led to which address.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Answer, Name};

/// Entries that are remembered: 10,240 addresses as in BCC, and each once more for a process that asked for it.
const CAPACITY: usize = 2 * 10_240;
/// Age at which an address is forgotten, in nanoseconds: 24 hours, as in BCC.
const TTL_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
/// Age above which the text tells it, in microseconds: 100 ms, as in BCC.
const QUIET_US: u64 = 100_000;

/// The questions behind the addresses of the last day: of each process that asked its newest, and the newest of all. At
/// most 20,480; the oldest make room.
///
/// Times are nanoseconds of the kernel's monotonic clock, taken when the response was received and when the
/// connection was opened. BCC takes the wall clock in user space instead, and drops the day part of the difference.
///
/// Memory is bounded: a name is shared by all addresses of its response, and the worst that a server can do, one
/// address per response and names full of escapes, comes to about 25 MB. Ordinary names come to about 5 MB when full.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// The keys of `entries` by time, oldest first.
    by_age: BTreeSet<(u64, Key)>,
    capacity: usize,
}

/// An address, and the process that asked for it or [`ANYBODY`].
type Key = (IpAddr, u32);

/// The process id of no process: whoever asked.
const ANYBODY: u32 = 0;

/// A response.
#[derive(Clone, Debug)]
struct Seen {
    question: Name,
    ns: u64,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// The response before, should this one have to be forgotten.
    before: Option<Seen>,
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

    /// Remembers the answer of a response to a question of process `pid` (0: not known), received at `seen_ns`.
    ///
    /// The newest response wins, by time and not by order of arrival here; of two at the same time, the later call.
    pub fn insert(&mut self, answer: &Answer, pid: u32, seen_ns: u64) {
        for address in &answer.addresses {
            let address = address.to_canonical();
            let seen = Seen { question: answer.question.clone(), ns: seen_ns };
            if pid != ANYBODY {
                self.put((address, pid), seen.clone());
            }
            self.put((address, ANYBODY), seen);
        }
    }

    fn put(&mut self, key: Key, seen: Seen) {
        let ns = seen.ns;
        let mut before = None;
        if let Some(known) = self.entries.remove(&key) {
            if known.seen.ns > ns {
                self.entries.insert(key, known);
                return;
            }
            self.by_age.remove(&(known.seen.ns, key));
            // A response that names an address twice is one response.
            before = if known.seen.ns == ns { known.before } else { Some(known.seen) };
        }
        self.entries.insert(key, Entry { seen, before });
        self.by_age.insert((ns, key));
        self.shrink(ns);
    }

    /// Forgets the response that was received at `seen_ns`: what it took the place of is back.
    pub fn forget(&mut self, seen_ns: u64) {
        let (first, last) = ((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), (IpAddr::from([u8::MAX; 16]), u32::MAX));
        let keys: Vec<Key> =
            self.by_age.range((seen_ns, first)..=(seen_ns, last)).map(|&(_, key)| key).collect();
        for key in keys {
            self.by_age.remove(&(seen_ns, key));
            let before = self.entries.remove(&key).and_then(|entry| entry.before);
            if let Some(seen) = before {
                self.by_age.insert((seen.ns, key));
                self.entries.insert(key, Entry { seen, before: None });
            }
        }
    }

    /// Drops what is too old at `now_ns` or too much.
    fn shrink(&mut self, now_ns: u64) {
        while let Some(&(seen_ns, key)) = self.by_age.first()
            && (self.entries.len() > self.capacity || expired(seen_ns, now_ns))
        {
            self.by_age.pop_first();
            self.entries.remove(&key);
        }
    }

    /// Appends the text of the `QUERY` column for a connection to `address` that process `pid` opened at `now_ns`.
    ///
    /// It is the question of the newest response to this process that carried the address, else of the newest response to
    /// anybody, in raw bytes (see [`Name`]). An age of more than 100 ms follows in milliseconds, cut to whole
    /// microseconds: `www.domain.com (123.342ms)`; it counts on past a day's end, where BCC's starts again from zero. A
    /// response that is newer than the connection has age zero. Without a response the text is `localhost` for a loopback
    /// address (`127.0.0.1` or `::1`) and `No DNS Query` for any other.
    ///
    /// A v4-mapped address (`::ffff:1.2.3.4`) is the IPv4 address that it holds, here and in [`Cache::insert`].
    pub fn query_text(&self, address: IpAddr, pid: u32, now_ns: u64, out: &mut Vec<u8>) {
        let address = address.to_canonical();
        let known = |asker| {
            let entry: &Entry = self.entries.get(&(address, asker))?;
            (!expired(entry.seen.ns, now_ns)).then_some(&entry.seen)
        };
        let Some(seen) = known(pid).or_else(|| known(ANYBODY)) else {
            let local = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
            out.extend_from_slice(if local { b"localhost" } else { b"No DNS Query" });
            return;
        };
        out.extend_from_slice(seen.question.as_bytes());
        let age_us = now_ns.saturating_sub(seen.ns) / 1000;
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
