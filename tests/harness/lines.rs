//! What a process writes, line by line, while it writes it.

use std::fs::File;
use std::io::Read as _;
use std::mem;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines that come through a pipe. A thread reads them as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<(Mutex<Told>, Condvar)>);

#[derive(Debug, Default)]
pub(crate) struct Told {
    /// None: somebody else reads it.
    pipe: Option<File>,
    /// What was read and not looked at yet, with when it was read.
    chunks: Vec<(Instant, Vec<u8>)>,
    /// With when each was read.
    pub(crate) lines: Vec<(Instant, String)>,
    /// A line whose end is still to come.
    begun: Vec<u8>,
    ended: bool,
}

impl Told {
    /// Reads what the pipe holds now, and waits for nothing. No more than that: in a flood the tool waits for whoever reads.
    fn pull(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 1 << 14];
        while !self.ended && has_come(pipe.as_fd(), PollTimeout::ZERO) {
            let length = pipe.read(&mut buffer).unwrap_or(0);
            self.ended = length == 0;
            self.chunks.push((Instant::now(), buffer[..length].to_vec()));
        }
    }

    /// Makes lines of what was read.
    fn split(&mut self) {
        for (read, chunk) in mem::take(&mut self.chunks) {
            // Nothing comes behind the end.
            let is_last = chunk.is_empty();
            self.begun.extend_from_slice(&chunk);
            let whole = self.begun.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let whole = if is_last { self.begun.len() } else { whole };
            let bytes: Vec<u8> = self.begun.drain(..whole).collect();
            let text = String::from_utf8_lossy(&bytes);
            self.lines.extend(text.split_terminator('\n').map(|line| (read, line.to_owned())));
        }
    }
}

/// Whether there is something to read, or the end, within this time.
fn has_come(pipe: BorrowedFd<'_>, patience: PollTimeout) -> bool {
    poll(&mut [PollFd::new(pipe, PollFlags::POLLIN)], patience).is_ok_and(|ready| ready > 0)
}

impl Lines {
    pub(crate) fn from(pipe: impl Into<OwnedFd>) -> Self {
        let pipe = File::from(pipe.into());
        let watched = pipe.try_clone().expect("room for one more");
        let lines = Self::default();
        lines.read().pipe = Some(pipe);
        let sink = lines.clone();
        thread::spawn(move || {
            loop {
                // Outside the lock, so that whoever looks need not wait for the next line.
                has_come(watched.as_fd(), PollTimeout::NONE);
                let mut read = sink.read();
                read.pull();
                sink.0.1.notify_all();
                if read.ended {
                    return;
                }
            }
        });
        lines
    }

    /// Those of a pipe that somebody else reads.
    pub(crate) fn none() -> Self {
        let lines = Self::default();
        lines.read().ended = true;
        lines
    }

    fn read(&self) -> MutexGuard<'_, Told> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was read so far.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Told> {
        let mut read = self.read();
        read.split();
        read
    }

    /// Waits until there are more lines than `known`; false when there will be none or the time is over.
    pub(crate) fn grow(&self, known: usize, deadline: Instant) -> bool {
        let mut read = self.lock();
        while read.lines.len() <= known && !read.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            read = self.0.1.wait_timeout(read, left).unwrap_or_else(PoisonError::into_inner).0;
            read.split();
        }
        read.lines.len() > known
    }

    /// Waits until the pipe is closed.
    pub(crate) fn end(&self, deadline: Instant) {
        let mut known = 0;
        while self.grow(known, deadline) {
            known = self.lock().lines.len();
        }
    }

    /// All that came so far, read by the thread or not.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut read = self.read();
        read.pull();
        read.split();
        read.lines.iter().map(|(_, line)| line.clone()).collect()
    }
}
