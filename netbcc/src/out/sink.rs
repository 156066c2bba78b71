//! Where bytes go without ever waiting: a descriptor, written in whole records, for as long as it takes them
//! (ARCHITECTURE.md, D19).
//!
//! Standard output is shared with whoever gave it to us, so it must not be made non-blocking. Pipes and terminals are
//! opened once more, non-blocking, by their name in /proc, or /dev/tty where the terminal is another user's; sockets have a
//! flag for that; what can be opened in no way is asked before each write whether it takes one. Files are written as they
//! are: they do not wait for a reader.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::makedev;
use nix::unistd::ftruncate;
use rustix::process::getsid;
use rustix::termios::tcgetsid;

use crate::sys::stdio;

/// The most that one write takes to a descriptor with a reader. A pipe takes so much at once or not at all (pipe(7)), so
/// a record is never torn, and records of several writers of one pipe never mix.
const CHUNK: usize = PIPE_BUF;

/// How a descriptor is kept from making us wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It never waits for a reader: a file, or a device such as /dev/null.
    Plain,
    /// It is ours alone and non-blocking.
    Own,
    /// Each call says that it must not wait.
    Socket,
    /// It is asked before each write.
    Asked,
}

/// Standard output.
pub(super) struct Sink {
    file: File,
    manner: Manner,
    terminal: bool,
    /// How much a pipe holds.
    pipe_bytes: Option<usize>,
}

impl Sink {
    /// The process's standard output.
    ///
    /// # Errors
    /// It was closed when the process began.
    pub(super) fn stdout() -> Result<Self> {
        if stdio::stdout_was_closed() {
            bail!("write to standard output: it is closed");
        }
        // A descriptor of our own: std's handle looks for line ends in every buffer.
        let file = io::stdout().as_fd().try_clone_to_owned().context("duplicate standard output")?;
        Ok(Self::new(File::from(file)))
    }

    pub(super) fn new(file: File) -> Self {
        let terminal = file.is_terminal();
        let kind = file.metadata().map(|metadata| metadata.file_type());
        let open = |path: &str| {
            let mut options = File::options();
            options.write(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
            options.open(path)
        };
        // A terminal may belong to another user, as after su(1): everyone may open the one that controls his session.
        let again = |file: &File| {
            open(&format!("/proc/self/fd/{}", file.as_raw_fd()))
                .or_else(|error| if controls_us(file) { open("/dev/tty") } else { Err(error) })
        };
        let (file, manner) = match kind {
            Ok(kind) if kind.is_socket() => (file, Manner::Socket),
            Ok(kind) if kind.is_fifo() || terminal => match again(&file) {
                Ok(own) => (own, Manner::Own),
                // Another user's, or there is no /proc. A terminal that takes a little may then keep us for the rest.
                Err(_) => (file, Manner::Asked),
            },
            Ok(kind) if kind.is_char_device() && !is_memory(&file) => (file, Manner::Asked),
            _ => (file, Manner::Plain),
        };
        let pipe_bytes =
            fcntl(&file, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
        Self { file, manner, terminal, pipe_bytes }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// Writes as much of `bytes` as can be written without waiting; answers how much that is. `starts` are the places
    /// where records begin, in order; the last one ends with `bytes`.
    ///
    /// # Errors
    /// It takes nothing more. What stands before the error was written, up to the end of a record where that can be had.
    pub(super) fn write(&self, bytes: &[u8], starts: &[usize]) -> (usize, io::Result<()>) {
        if self.manner == Manner::Plain {
            return self.write_plain(bytes, starts);
        }
        let mut done = 0;
        while done < bytes.len() {
            let end = chunk_end(bytes.len(), starts, done);
            if end - done == CHUNK && !self.has_room(large_record(bytes.len(), starts, done)) {
                break;
            }
            match self.write_some(&bytes[done..end]) {
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Whether a record of this length that begins now gets in whole. A pipe is a row of pages, which may be half empty
    /// where records did not fit into them; what a reader began to take counts as full.
    fn has_room(&self, len: Option<usize>) -> bool {
        let (Some(len), Some(all)) = (len, self.pipe_bytes) else { return true };
        let queued = rustix::io::ioctl_fionread(&self.file).unwrap_or(0);
        let queued = usize::try_from(queued).unwrap_or(usize::MAX);
        // One that is larger than the pipe has to go in pieces, at any time.
        queued == 0 || len > all || queued.saturating_mul(2) + 3 * CHUNK + len <= all
    }

    fn write_some(&self, chunk: &[u8]) -> io::Result<usize> {
        let written = match self.manner {
            Manner::Socket => {
                return Ok(send(
                    self.file.as_raw_fd(),
                    chunk,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                )?);
            }
            Manner::Asked if !self.takes(PollTimeout::ZERO) => return Err(io::ErrorKind::WouldBlock.into()),
            _ => (&self.file).write(chunk)?,
        };
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Waits until it takes something, or this is over; answers whether it does, or has an error to tell.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        self.takes(PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX))
    }

    fn takes(&self, patience: PollTimeout) -> bool {
        let mut asked = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        poll(&mut asked, patience).is_ok_and(|ready| ready > 0)
    }

    /// To a file, all at once. A disk that is full takes the first half of a record: that half is taken back, if nobody
    /// wrote behind it.
    fn write_plain(&self, bytes: &[u8], starts: &[usize]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < bytes.len() {
            match (&self.file).write(&bytes[done..]) {
                Ok(0) => return (self.whole(done, starts), Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (self.whole(done, starts), Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Takes half a record back; answers what is left.
    fn whole(&self, done: usize, starts: &[usize]) -> usize {
        let whole = last_border(starts, done).unwrap_or(0);
        let torn = (done - whole) as u64;
        if torn == 0 {
            return done;
        }
        let place = self.file.metadata().ok().filter(std::fs::Metadata::is_file);
        let Some(size) = place.map(|metadata| metadata.size()) else { return done };
        // Ours is the last write if the file ends where we are.
        let ours = io::Seek::stream_position(&mut &self.file).is_ok_and(|at| at == size);
        let back = size.checked_sub(torn).and_then(|size| i64::try_from(size).ok());
        match back {
            Some(back) if ours && ftruncate(&self.file, back).is_ok() => {
                // What comes later, if anything, begins there.
                let _same = io::Seek::seek(&mut &self.file, io::SeekFrom::Start(back.unsigned_abs()));
                whole
            }
            _ => done,
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether this is the terminal that controls our session, and not the other end of it.
fn controls_us(file: &File) -> bool {
    let same = matches!((tcgetsid(file), getsid(None)), (Ok(its), Ok(ours)) if its == ours);
    same && file.metadata().is_ok_and(|metadata| metadata.rdev() != PTMX)
}

/// /dev/ptmx, by which the other end of a terminal is opened.
const PTMX: u64 = makedev(5, 2);

/// Where the next write ends: as many whole records as fit, or a piece of one that is larger.
fn chunk_end(len: usize, starts: &[usize], start: usize) -> usize {
    let limit = start + CHUNK;
    if limit >= len {
        return len;
    }
    last_border(starts, limit).filter(|&end| end > start).unwrap_or(limit)
}

/// The length of the record that begins at `start`, if one does begin there and it is larger than a write.
fn large_record(len: usize, starts: &[usize], start: usize) -> Option<usize> {
    let nth = starts.binary_search(&start).ok()?;
    let end = starts.get(nth + 1).copied().unwrap_or(len);
    Some(end - start).filter(|&len| len > CHUNK)
}

/// Whether it is /dev/null or one of its kin, which take everything at once (admin-guide/devices.txt: major number 1).
fn is_memory(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| nix::sys::stat::major(metadata.rdev()) == 1)
}

/// The last place at or before this one at which a record begins, and the one before it ends.
pub(super) fn last_border(starts: &[usize], place: usize) -> Option<usize> {
    let count = starts.partition_point(|&start| start <= place);
    count.checked_sub(1).map(|last| starts[last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_holds_whole_records() {
        let starts = [0, 1000, 4000, 4096, 4097, 9000];
        assert_eq!(chunk_end(9001, &starts, 0), 4096);
        assert_eq!(chunk_end(9001, &starts, 1), 4097);
        assert_eq!(chunk_end(9001, &starts, 4097), 4097 + CHUNK, "a record larger than a write");
        assert_eq!(large_record(9001, &starts, 4097), Some(4903));
        assert_eq!(large_record(9001, &starts, 4000), None, "it fits");
        assert_eq!(large_record(9001, &starts, 8193), None, "the rest of one");
        assert_eq!(chunk_end(9001, &starts, 8193), 9001);
        assert_eq!(chunk_end(10, &[], 0), 10);
    }

    #[test]
    fn half_a_record_is_taken_back_from_a_file() {
        let file = tempfile_in_memory();
        let sink = Sink::new(file.try_clone().unwrap());
        let (done, error) = sink.write(b"first\nsecond\n", &[0, 6]);
        assert_eq!((done, error.is_ok()), (13, true));
        // As if the disk had been full after two bytes of a third.
        (&sink.file).write_all(b"th").unwrap();
        assert_eq!(sink.whole(15, &[0, 6, 13]), 13);
        assert_eq!(file.metadata().unwrap().len(), 13);
    }

    #[test]
    fn a_pipe_takes_what_fits_and_no_half_record() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = Sink::new(File::from(std::os::fd::OwnedFd::from(writer)));
        assert_eq!(sink.manner, Manner::Own);
        let record = [b"x".repeat(999), b"\n".to_vec()].concat();
        let bytes = record.repeat(1000);
        let starts: Vec<usize> = (0..1000).map(|nth| nth * 1000).collect();
        let (done, error) = sink.write(&bytes, &starts);
        assert!(error.is_ok() && done > 0 && done < bytes.len() && done % 1000 == 0, "{done}");
        assert!(!sink.wait(Duration::ZERO));
        let mut some = [0; 8192];
        io::Read::read_exact(&mut reader, &mut some).unwrap();
        assert!(sink.wait(Duration::from_secs(10)));
        drop(reader);
        assert_eq!(sink.write(&bytes, &starts).1.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    /// A file of no name.
    fn tempfile_in_memory() -> File {
        let path = std::env::temp_dir().join(format!("netbcc-sink-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}
