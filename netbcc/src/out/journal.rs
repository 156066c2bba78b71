//! The systemd journal, by its native protocol: one datagram per entry
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). No library, no process.
//!
//! Lives here: how an entry travels. Must never live here: which fields a tool's entries have.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cell::Cell;
use super::line::Line;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// How long an entry may wait for journald. Rows wait meanwhile, and the ring buffer fills.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to journald.
pub struct Journal {
    socket: UnixDatagram,
    path: OsString,
    entry: Vec<u8>,
    /// The last entry was not taken in time: the next does not wait.
    stuck: bool,
    lost: u64,
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
        socket.set_write_timeout(Some(PATIENCE)).with_context(there)?;
        Ok(Self { socket, path, entry: Vec::new(), stuck: false, lost: 0 })
    }

    /// Begins an entry. It is sent by [`Entry::send`].
    pub fn entry(&mut self) -> Entry<'_> {
        self.entry.clear();
        Entry(self)
    }

    /// One line for people about entries that journald did not take; none if it took all.
    pub fn losses(&self) -> Option<String> {
        (self.lost > 0).then(|| format!("the journal took all entries but {}", self.lost))
    }

    fn send(&mut self) {
        match self.socket.send_to(&self.entry, &self.path) {
            Ok(_) if self.stuck => self.wait_from_now_on(true),
            Ok(_) => {}
            Err(error) => {
                self.lost += 1;
                // EAGAIN is what a write that waited for too long says.
                if error.kind() == ErrorKind::WouldBlock && !self.stuck {
                    self.wait_from_now_on(false);
                }
            }
        }
    }

    fn wait_from_now_on(&mut self, wait: bool) {
        // Should this fail, the next entry tries again.
        self.stuck = !wait;
        let _next_time = self.socket.set_nonblocking(!wait);
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

    #[test]
    fn a_journal_that_does_not_take_entries_holds_rows_up_once() {
        let path = std::env::temp_dir().join(format!("netbcc-journal-full-{}", std::process::id()));
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::at(path.clone().into()).unwrap();
        let send = |journal: &mut Journal| journal.entry().field("PRIORITY", &[Cell::Unsigned(5)]).send();
        let start = std::time::Instant::now();
        // The queue of a datagram socket holds net.unix.max_dgram_qlen of them, some hundreds at most.
        for _ in 0..10_000 {
            send(&mut journal);
        }
        assert!(journal.stuck && journal.lost > 0);
        let passed = start.elapsed();
        assert!(PATIENCE <= passed && passed < 5 * PATIENCE, "{passed:?}");
        let mut datagram = [0; 64];
        journald.recv(&mut datagram).unwrap();
        let lost = journal.lost;
        send(&mut journal);
        assert!(!journal.stuck && journal.lost == lost);
        std::fs::remove_file(path).unwrap();
    }
}
