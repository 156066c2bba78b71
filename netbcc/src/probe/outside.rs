//! What may end a run, or hold its output up: signals, and whoever reads standard output.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::time::Instant;

use crate::out::Out;
use crate::sys::stop::Stop;

/// While output waits, we also look this often whether it can go on: not every descriptor says so by itself, and a large
/// record may have to wait for more room than that for which a pipe says so.
const LOOK: Duration = Duration::from_millis(20);

/// Signals and the reader of one run.
pub(super) struct Outside {
    signals: AsyncFd<OwnedFd>,
    /// None where nobody can go away or be slow: a file.
    reader: Option<AsyncFd<OwnedFd>>,
    /// SIGHUP, where it does not end the run.
    again: Option<AsyncFd<OwnedFd>>,
}

impl Outside {
    /// Begins to watch.
    pub(super) fn watch(out: &Out) -> Result<Self> {
        let again = out.again().map(|fd| fd.try_clone_to_owned()).transpose().context("listen for SIGHUP")?;
        let stop =
            Stop::listen(again.is_none())?.as_fd().try_clone_to_owned().context("listen for signals")?;
        let reader = out.descriptor().and_then(|fd| fd.try_clone_to_owned().ok());
        Ok(Self {
            signals: watch(stop, Interest::READABLE).context("watch for signals")?,
            reader: reader.and_then(|fd| watch(fd, Interest::WRITABLE.add(Interest::ERROR)).ok()),
            again: again.map(|fd| watch(fd, Interest::READABLE)).transpose().context("watch for SIGHUP")?,
        })
    }

    /// A signal says that the run is to end.
    pub(super) async fn told(&self) {
        // The signal is left where it is: who asks again hears it again.
        let _ready = self.signals.readable().await;
    }

    /// The same question, asked by who cannot wait.
    pub(super) fn was_told(&self) -> bool {
        let mut asked = [PollFd::new(self.signals.get_ref().as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// The reader went away: nobody is left to trace for, even before the next row. Of a pipe that is an error, of a socket of
    /// this machine its other end is closed. While output waits, the next write tells of that, and [`Outside::takes`] needs to
    /// hear of room.
    pub(super) async fn gone(&self, output_waits: bool) {
        let Some(fd) = &self.reader else { return std::future::pending().await };
        if output_waits {
            let _error = fd.ready(Interest::ERROR).await;
            return;
        }
        // There is no interest in that end alone: what only says that there is room is put aside.
        while let Ok(mut seen) = fd.ready(Interest::WRITABLE.add(Interest::ERROR)).await {
            if seen.ready().is_error() || seen.ready().is_write_closed() {
                return;
            }
            seen.clear_ready_matching(Ready::WRITABLE);
        }
    }

    /// SIGHUP came, and the output's file is to be opened again: by the next [`Out::flush`].
    pub(super) async fn wants_the_file_again(&self) {
        let ready = match &self.again {
            Some(fd) => fd.readable().await,
            None => std::future::pending().await,
        };
        if let Ok(mut guard) = ready {
            guard.clear_ready();
        }
    }

    /// The reader may take more.
    pub(super) async fn takes(&self) {
        let ready = async {
            match &self.reader {
                Some(fd) => {
                    if let Ok(mut guard) = fd.ready(Interest::WRITABLE).await {
                        guard.clear_ready();
                    }
                }
                None => std::future::pending().await,
            }
        };
        let _either = tokio::time::timeout(LOOK, ready).await;
    }

    /// Writes what waits, for as long as that takes, until a signal: then the last wait of [`Out::finish`] begins.
    ///
    /// # Errors
    /// Standard output takes nothing any more.
    pub(super) async fn drain(&self, out: &mut Out) -> Result<()> {
        out.flush()?;
        while out.is_waiting() {
            tokio::select! {
                biased;
                () = self.told() => {
                    out.end_soon();
                    break;
                }
                () = self.takes() => {}
            }
            out.flush()?;
        }
        out.finish()
    }
}

/// Registers a descriptor that it then owns.
#[expect(
    deprecated,
    reason = "sound here, as an OwnedFd stays open while it is registered; its successor is unsafe"
)]
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// The event loop of one run.
///
/// # Errors
/// No descriptor is free.
pub(super) fn event_loop() -> Result<tokio::runtime::Runtime> {
    /// What the event loop, signals and whatever is watched open at most. The event loop panics without.
    const DESCRIPTORS: usize = 16;
    let stderr = std::io::stderr();
    let room: std::io::Result<Vec<OwnedFd>> =
        (0..DESCRIPTORS).map(|_| stderr.as_fd().try_clone_to_owned()).collect();
    drop(room.context("start the event loop: room for open files (ulimit -n)")?);
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("start the event loop")
}

/// Waits until this moment; for ever if there is none.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
