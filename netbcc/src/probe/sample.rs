//! The loop of tools that sum in the kernel and print per interval.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::drain::{Probe, Reader, event_loop, until, watch};
use super::ledger::Losses;
use crate::cli::Every;
use crate::tool::Ctx;

/// How often to print, and how many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Between two blocks; none: there is one block, at the end.
    pub interval: Option<Duration>,
    /// So many blocks; none: until Ctrl-C.
    pub count: Option<u32>,
    /// Whether Ctrl-C leaves out the interval under way, as in some of BCC's tools.
    pub whole_only: bool,
}

/// Something else to look at between two blocks.
pub struct Watched {
    /// What becomes readable when there is something to see.
    pub descriptor: OwnedFd,
    /// Looks at all of it. An error ends the run.
    pub look: Box<dyn FnMut() -> Result<()>>,
}

impl From<Every> for Pace {
    fn from(every: Every) -> Self {
        Self {
            interval: every.interval.map(|seconds| Duration::from_secs(seconds.get().into())),
            count: every.count.map(Into::into),
            whole_only: false,
        }
    }
}

impl Probe {
    /// Calls `block` at the end of every interval, until there were enough, or SIGINT or SIGTERM (then once more, for
    /// the interval under way), or the end of our output's reader. What the tool printed so far (its banner) goes out
    /// first: by then everything is attached.
    ///
    /// # Errors
    /// Output cannot be written, or the tool failed.
    pub fn sample(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        mut block: impl FnMut(&mut Ctx) -> Result<()>,
    ) -> Result<()> {
        event_loop()?.block_on(self.blocks(cx, pace, None, &mut block))
    }

    /// The same, with an eye on something else.
    ///
    /// # Errors
    /// As above, or what was watched says so.
    pub fn sample_watching(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        watched: Watched,
        mut block: impl FnMut(&mut Ctx) -> Result<()>,
    ) -> Result<()> {
        event_loop()?.block_on(self.blocks(cx, pace, Some(watched), &mut block))
    }

    async fn blocks(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        watched: Option<Watched>,
        block: &mut impl FnMut(&mut Ctx) -> Result<()>,
    ) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut watched = watched.map(Eye::open).transpose()?;
        let reader = Reader::watch();
        self.begin(cx)?;

        let mut told = Losses::default();
        let mut printed = 0;
        let mut due = pace.interval.map(|interval| Instant::now() + interval);
        let ended = loop {
            let mut last = tokio::select! {
                biased;
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = reader.gone() => break Ok(()),
                seen = seen(&mut watched) => match seen {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                },
                () = until(due) => false,
            };
            if last && pace.whole_only {
                break Ok(());
            }
            block(cx)?;
            cx.out.flush()?;
            printed += 1;
            last |= pace.count == Some(printed);
            if last {
                break Ok(());
            }
            let now = self.losses()?;
            if let Some(sentence) = now.since(told).sentence() {
                cx.warn(format_args!("in this interval: {sentence}"));
            }
            told = now;
            // From when it was due, so that blocks keep the clock's pace; from now on if that was missed.
            due = due.zip(pace.interval).map(|(due, interval)| (due + interval).max(Instant::now()));
        };
        if let Some(sentence) = self.losses()?.sentence() {
            cx.warn(sentence);
        }
        ended
    }
}

/// What is watched, while it is.
struct Eye {
    descriptor: AsyncFd<OwnedFd>,
    look: Box<dyn FnMut() -> Result<()>>,
}

impl Eye {
    fn open(watched: Watched) -> Result<Self> {
        let Watched { descriptor, look } = watched;
        let descriptor = watch(descriptor, Interest::READABLE).context("watch a descriptor")?;
        Ok(Self { descriptor, look })
    }
}

/// Waits until there is something to see, and looks.
async fn seen(watched: &mut Option<Eye>) -> Result<()> {
    match watched {
        Some(Eye { descriptor, look }) => {
            descriptor.readable().await.context("wait for a descriptor")?.clear_ready();
            look()
        }
        None => std::future::pending().await,
    }
}
