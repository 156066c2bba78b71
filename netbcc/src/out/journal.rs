//! The systemd journal, by its native protocol: one datagram per entry
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). No library, no process.
//!
//! Lives here: how an entry travels. Must never live here: which fields a tool's entries have.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cell::Cell;
use super::line::Line;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// So many bytes of entries wait for journald at most.
const ROOM: usize = 4 << 20;

/// How soon to try again what journald did not take. Its queue tells nobody that it has room again.
const AGAIN: Duration = Duration::from_millis(10);

/// The way to journald. Nothing waits for it but entries: rows and signals never do.
pub struct Journal {
    socket: UnixDatagram,
    path: OsString,
    entry: Vec<u8>,
    /// Entries that journald has not taken yet, the oldest first, and their bytes together.
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    lost: u64,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Taken,
    /// Journald has no room now.
    NotYet,
    /// Nobody listens, or it is too large.
    Never,
}

impl Journal {
    /// The machine's journal; `NETBCC_JOURNAL_SOCKET` names another socket, for tests.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open() -> Result<Self> {
        Self::at(std::env::var_os("NETBCC_JOURNAL_SOCKET").unwrap_or_else(|| SOCKET.into()))
    }

    pub(crate) fn at(path: OsString) -> Result<Self> {
        let there = || format!("the systemd journal ({})", path.display());
        UnixDatagram::unbound().and_then(|probe| probe.connect(&path)).with_context(there)?;
        // Not connected: journald may be restarted while we run.
        let socket = UnixDatagram::unbound().with_context(there)?;
        socket.set_nonblocking(true).with_context(there)?;
        let (entry, waiting) = (Vec::new(), VecDeque::new());
        Ok(Self { socket, path, entry, waiting, waiting_bytes: 0, lost: 0 })
    }

    /// Begins an entry. It is sent by [`Entry::send`].
    pub fn entry(&mut self) -> Entry<'_> {
        self.entry.clear();
        Entry(self)
    }

    /// Sends of the entries that wait as many as journald takes now. Answers how soon to try the rest again, if there is one.
    pub fn go_on(&mut self) -> Option<Duration> {
        while let Some(entry) = self.waiting.front() {
            match self.sent(entry) {
                Sent::NotYet => return Some(AGAIN),
                Sent::Taken => {}
                Sent::Never => self.lost += 1,
            }
            let sent = self.waiting.pop_front();
            self.waiting_bytes -= sent.map_or(0, |entry| entry.len());
        }
        None
    }

    /// Nothing will follow: what journald does not take in this time is lost.
    pub fn finish(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        while let Some(again) = self.go_on() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(again.min(left));
        }
        self.lost += self.waiting.len() as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// One line for people about entries that journald did not take; none if it took all.
    pub fn losses(&self) -> Option<String> {
        (self.lost > 0).then(|| format!("the journal took all entries but {}", self.lost))
    }

    /// The entry goes out, or waits behind those that do.
    fn send(&mut self) {
        let sent = match self.go_on() {
            None => self.sent(&self.entry),
            Some(_) => Sent::NotYet,
        };
        if sent == Sent::NotYet && self.waiting_bytes + self.entry.len() <= ROOM {
            self.waiting_bytes += self.entry.len();
            self.waiting.push_back(self.entry.as_slice().into());
        } else if sent != Sent::Taken {
            self.lost += 1;
        }
    }

    fn sent(&self, entry: &[u8]) -> Sent {
        match self.socket.send_to(entry, &self.path) {
            Ok(_) => Sent::Taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::NotYet,
            Err(_) => Sent::Never,
        }
    }
}

/// One entry under way.
#[must_use]
pub struct Entry<'j>(&'j mut Journal);

impl Entry<'_> {
    /// A field: cells as text, with one blank between them, names escaped as everywhere.
    pub fn field(self, name: &str, cells: &[Cell<'_>]) -> Self {
        let mut line = Line::new(&mut self.0.entry);
        line.bytes(name.as_bytes());
        line.push(b'=');
        for (nth, cell) in cells.iter().enumerate() {
            if nth > 0 {
                line.push(b' ');
            }
            // No cell has a line end in it, so the simple form of a field will do.
            cell.write_text(&mut line, 0, usize::MAX);
        }
        line.push(b'\n');
        drop(line);
        self
    }

    /// A field with any bytes: name, line end, length, value, line end.
    pub fn bytes(self, name: &str, value: &[u8]) -> Self {
        let entry = &mut self.0.entry;
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value);
        entry.push(b'\n');
        self
    }

    /// Hands it to journald.
    pub fn send(self) {
        self.0.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_datagram_of_the_native_protocol() {
        let path = std::env::temp_dir().join(format!("netbcc-journal-{}", std::process::id()));
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::at(path.clone().into()).unwrap();
        journal
            .entry()
            .field("MESSAGE", &[Cell::Name(b"a\nb"), Cell::Unsigned(7), Cell::Label("\u{2192}")])
            .field("PRIORITY", &[Cell::Unsigned(5)])
            .bytes("OBJECT_COMM", b"a\nb")
            .send();
        let mut datagram = [0; 256];
        let length = journald.recv(&mut datagram).unwrap();
        assert_eq!(
            datagram[..length].escape_ascii().to_string(),
            "MESSAGE=a\\\\x0ab 7 \\xe2\\x86\\x92\\nPRIORITY=5\\nOBJECT_COMM\\n\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00a\\nb\\n"
        );
        assert_eq!(journal.losses(), None);
        drop(journald);
        journal.entry().field("PRIORITY", &[Cell::Unsigned(5)]).send();
        assert_eq!(journal.losses().unwrap(), "the journal took all entries but 1");
        std::fs::remove_file(path).unwrap();
    }

    /// A journald that takes nothing yet, and the way to it.
    fn full(name: &str) -> (std::path::PathBuf, UnixDatagram, Journal) {
        let path = std::env::temp_dir().join(format!("netbcc-journal-{name}-{}", std::process::id()));
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(path.clone().into()).unwrap();
        (path, journald, journal)
    }

    fn send(journal: &mut Journal, nth: u64) {
        journal.entry().field("PRIORITY", &[Cell::Unsigned(nth)]).bytes("OBJECT_COMM", &[b'x'; 1000]).send();
    }

    /// The numbers of the entries that are in the queue of the socket.
    fn queued(journald: &UnixDatagram) -> Vec<u64> {
        journald.set_nonblocking(true).unwrap();
        let mut datagram = [0; 2000];
        std::iter::from_fn(|| {
            journald.recv(&mut datagram).ok()?;
            let end = datagram.iter().position(|&byte| byte == b'\n')?;
            str::from_utf8(&datagram[..end]).ok()?.strip_prefix("PRIORITY=")?.parse().ok()
        })
        .collect()
    }

    #[test]
    fn entries_wait_for_a_slow_journal_in_their_order_and_what_has_no_room_is_counted() {
        const COUNT: u64 = 10_000;
        let (path, journald, mut journal) = full("slow");
        for nth in 0..COUNT {
            send(&mut journal, nth);
        }
        assert!(journal.lost > 0 && journal.waiting_bytes <= ROOM, "more than there is room for");
        assert!(journal.waiting_bytes + 1100 > ROOM, "{}", journal.waiting_bytes);
        assert_eq!(journal.go_on(), Some(AGAIN));
        let mut taken = Vec::new();
        while !journal.waiting.is_empty() {
            taken.extend(queued(&journald));
            let _rest = journal.go_on();
        }
        assert_eq!((journal.go_on(), journal.waiting_bytes), (None, 0));
        taken.extend(queued(&journald));
        let expected: Vec<u64> = (0..COUNT - journal.lost).collect();
        assert_eq!(taken, expected, "the youngest had no room");
        let lost = journal.lost;
        send(&mut journal, COUNT);
        assert_eq!((queued(&journald), journal.lost), (vec![COUNT], lost));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_last_entries_wait_no_longer_than_they_may() {
        let (path, journald, mut journal) = full("last");
        for nth in 0..2000 {
            send(&mut journal, nth);
        }
        let since = Instant::now();
        journal.finish(Duration::from_millis(30));
        assert!(since.elapsed() >= Duration::from_millis(30), "it may take some yet");
        let taken = queued(&journald).len() as u64;
        assert_eq!((taken + journal.lost, journal.go_on()), (2000, None));
        // Where nobody listens any more, nothing waits.
        drop(journald);
        send(&mut journal, 0);
        assert_eq!((journal.waiting.len(), journal.lost), (0, 2001 - taken));
        std::fs::remove_file(path).unwrap();
    }
}
