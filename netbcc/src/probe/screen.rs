//! What whoever looks at a sampler's screen does: presses a key, changes its size, stops us and lets us go on.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::outside::watch;
use crate::sys::terminal::{Changes, Keys};

/// So many reads at most before we look at anything else.
const READS: usize = 16;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// This key was pressed.
    Key(u8),
    /// The screen has another size, or other things on it.
    Changed,
}

/// A terminal that is watched.
pub(super) struct Screen {
    /// None where standard input is no terminal. Given back before `changes` lets signals do what they do, hence above them.
    keys: Option<(Keys, AsyncFd<OwnedFd>)>,
    changes: Changes,
    signals: AsyncFd<OwnedFd>,
    /// Keys that nobody was told of yet.
    pressed: VecDeque<u8>,
}

impl Screen {
    /// Begins to watch.
    ///
    /// # Errors
    /// No descriptor is free.
    pub(super) fn open() -> Result<Self> {
        let copy = |fd: &dyn AsFd| watch(fd.as_fd().try_clone_to_owned()?, Interest::READABLE);
        let changes = Changes::listen()?;
        let signals = copy(&changes).context("watch for the terminal's signals")?;
        let keys = Keys::of_stdin().and_then(|keys| {
            let watched = copy(&keys).ok()?;
            Some((keys, watched))
        });
        let screen = Self { keys, changes, signals, pressed: VecDeque::new() };
        screen.take_keys();
        Ok(screen)
    }

    /// Has keys handed to us, if we are in the foreground now.
    pub(super) fn take_keys(&self) {
        if let Some((keys, _)) = &self.keys {
            keys.take();
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Act {
        loop {
            if let Some(key) = self.pressed.pop_front() {
                return Act::Key(key);
            }
            tokio::select! {
                biased;
                () = readable(Some(&self.signals)) => if self.changed() { return Act::Changed },
                () = readable(self.keys.as_ref().map(|(_, watched)| watched)) => self.read(),
            }
        }
    }

    /// Looks at all signals that came; answers whether there was one.
    fn changed(&mut self) -> bool {
        let mut any = false;
        while let Some(signal) = self.changes.next() {
            any = true;
            if Changes::takes_us_away(signal) {
                if let Some((keys, _)) = &self.keys {
                    keys.give_back();
                }
                Changes::happen(signal);
            }
            if signal != Signal::SIGWINCH {
                self.take_keys();
            }
        }
        any
    }

    fn read(&mut self) {
        let Some((keys, _)) = &mut self.keys else { return };
        for _ in 0..READS {
            let Some(pressed) = keys.pressed() else { return };
            self.pressed.extend(pressed);
        }
    }
}

/// Waits for what happens next on a screen, for ever if there is none.
pub(super) async fn act(screen: &mut Option<Screen>) -> Act {
    match screen {
        Some(screen) => screen.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until there is something to read; all of it is to be read then.
async fn readable(watched: Option<&AsyncFd<OwnedFd>>) {
    if let Some(watched) = watched
        && let Ok(mut ready) = watched.readable().await
    {
        ready.clear_ready();
    } else {
        std::future::pending::<()>().await;
    }
}
