//! The loop of tools that sum in the kernel and print per interval, as it was measured (ARCHITECTURE.md, D20).

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::drain::Probe;
use super::ledger::Losses;
use super::outside::{Outside, event_loop, until, watch};
use super::screen::{Act, Screen, act};
use super::wards::Wards;
use crate::error::{is_reader_gone, reader_gone};
use crate::options::Every;
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

/// What a block is told.
pub struct Turn<'o> {
    /// The time that the block covers, as it was measured.
    pub span: Duration,
    outside: &'o Outside,
}

impl Turn<'_> {
    /// Whether the run was told to end, also while the block is made.
    pub fn ends(&self) -> bool {
        self.outside.was_told()
    }
}

/// What becomes of a run after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The run goes on.
    On,
    /// The screen is drawn again.
    Draw,
    /// The interval ends now; the next one is a whole one.
    Block,
    /// The run ends, and the interval under way has no block.
    Quit,
}

/// What a sampler prints on the screen of a terminal.
pub trait Blocks {
    /// At the end of every interval.
    ///
    /// # Errors
    /// The tool failed.
    fn block(&mut self, cx: &mut Ctx, turn: &Turn<'_>) -> Result<()>;

    /// A key was pressed.
    fn key(&mut self, key: u8) -> Then;

    /// Draws the last block again: the screen has another size, or a key wanted it. Never while output waits.
    fn draw(&mut self, cx: &mut Ctx);
}

/// A sampler without a screen.
struct Plain<F>(F);

impl<F: FnMut(&mut Ctx, &Turn<'_>) -> Result<()>> Blocks for Plain<F> {
    fn block(&mut self, cx: &mut Ctx, turn: &Turn<'_>) -> Result<()> {
        (self.0)(cx, turn)
    }

    fn key(&mut self, _: u8) -> Then {
        Then::On
    }

    fn draw(&mut self, _: &mut Ctx) {}
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

/// A block that is later than this part of its interval missed its time: the next one is a whole interval later.
const LATE: u32 = 10;

impl Probe {
    /// Calls `block` at the end of every interval, until there were enough, or SIGINT, SIGTERM or SIGHUP (then once more,
    /// for the interval under way), or the end of our output's reader. What the tool printed so far (its banner) goes out
    /// first: by then everything is attached.
    ///
    /// `block` is told what time it covers. That is an interval only where nobody held us up: a
    /// machine that is busy, a stopped process, a reader that is slow. What was missed is in the next block, and there is
    /// one for it, however long it was.
    ///
    /// # Errors
    /// Output cannot be written, or its reader is gone (a broken pipe), or the tool failed.
    pub fn sample(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        block: impl FnMut(&mut Ctx, &Turn<'_>) -> Result<()>,
    ) -> Result<()> {
        event_loop()?.block_on(self.blocks(cx, pace, None, None, &mut Plain(block)))
    }

    /// As [`Probe::sample`], with an eye on something else.
    ///
    /// # Errors
    /// As [`Probe::sample`], or what was watched says so.
    pub fn sample_watching(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        watched: Watched,
        block: impl FnMut(&mut Ctx, &Turn<'_>) -> Result<()>,
    ) -> Result<()> {
        event_loop()?.block_on(self.blocks(cx, pace, Some(watched), None, &mut Plain(block)))
    }

    /// As [`Probe::sample`], on the screen of a terminal, with its keys where standard input is one.
    ///
    /// # Errors
    /// As [`Probe::sample`].
    pub fn sample_on_screen(&mut self, cx: &mut Ctx, pace: Pace, blocks: &mut impl Blocks) -> Result<()> {
        let run = async {
            let screen = Screen::open()?;
            self.blocks(cx, pace, None, Some(screen), blocks).await
        };
        event_loop()?.block_on(run)
    }

    async fn blocks(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        watched: Option<Watched>,
        mut screen: Option<Screen>,
        blocks: &mut impl Blocks,
    ) -> Result<()> {
        let outside = Outside::watch(&cx.out)?;
        let mut watched = watched.map(Eye::open).transpose()?;
        self.begin(cx)?;
        let mut ended = self.until_the_last(cx, pace, &outside, &mut watched, &mut screen, blocks).await;
        // The terminal is its user's again, whatever is left to say.
        drop(screen);
        if ended.as_ref().is_err_and(is_reader_gone) {
            cx.out.give_up();
        }
        // What was printed before an error is as good as any.
        let written = outside.drain(&mut cx.out).await;
        ended = ended.and(written);
        if let Some(sentence) = self.losses()?.sentence() {
            cx.warn(sentence);
        }
        ended
    }

    async fn until_the_last(
        &mut self,
        cx: &mut Ctx,
        pace: Pace,
        outside: &Outside,
        watched: &mut Option<Eye>,
        screen: &mut Option<Screen>,
        blocks: &mut impl Blocks,
    ) -> Result<()> {
        let mut told = Losses::default();
        let mut printed = 0;
        let mut draws = false;
        // The programs count from when they are attached.
        let mut from = self.since;
        let mut due = pace.interval.map(|interval| Instant::now() + interval);
        let mut wards = Wards::watch(self.groups.as_ref())?;
        loop {
            // A block waits for the one before it to be written.
            let waits = cx.out.is_waiting();
            let mut last = tokio::select! {
                biased;
                () = outside.told() => true,
                () = outside.gone(waits) => return Err(reader_gone()),
                () = outside.wants_the_file_again() => {
                    cx.out.flush()?;
                    continue;
                }
                said = wards.ended() => {
                    cx.warn(said);
                    continue;
                }
                seen = seen(watched) => {
                    seen?;
                    continue;
                }
                happened = act(screen) => {
                    match happened {
                        Act::Changed => draws = true,
                        Act::Key(key) => match blocks.key(key) {
                            Then::On => {}
                            Then::Draw => draws = true,
                            Then::Block => due = Some(Instant::now()),
                            Then::Quit => {
                                cx.out.end_soon();
                                return Ok(());
                            }
                        },
                    }
                    continue;
                }
                () = outside.takes(), if waits => {
                    cx.out.flush()?;
                    continue;
                }
                () = std::future::ready(()), if draws && !waits => {
                    draws = false;
                    blocks.draw(cx);
                    cx.out.flush()?;
                    continue;
                }
                () = until(due), if !waits => false,
            };
            if last {
                cx.out.end_soon();
            }
            if last && pace.whole_only {
                return Ok(());
            }
            if let Some(screen) = screen {
                screen.take_keys();
            }
            let now = Instant::now();
            let span = now - from;
            from = now;
            cx.out.set_interval(span);
            blocks.block(cx, &Turn { span, outside })?;
            draws = false;
            cx.out.flush()?;
            printed += 1;
            last |= pace.count == Some(printed);
            if last {
                return Ok(());
            }
            let losses = self.losses()?;
            if let Some(sentence) = losses.since(told).sentence() {
                cx.warn(format_args!("in this interval: {sentence}"));
            }
            told = losses;
            due = due.zip(pace.interval).map(|(due, interval)| next_due(due, now, interval));
        }
    }
}

/// When the next block is due: blocks keep the clock's pace, unless one missed its time.
pub fn next_due(due: Instant, now: Instant, interval: Duration) -> Instant {
    if now.saturating_duration_since(due) > interval / LATE { now + interval } else { due + interval }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_miss_the_next_block_is_a_whole_interval_later() {
        let due = Instant::now();
        let interval = Duration::from_secs(1);
        let after = |late: u64| next_due(due, due + Duration::from_millis(late), interval) - due;
        assert_eq!(after(0), interval);
        assert_eq!(after(100), interval, "the pace of the clock is kept");
        assert_eq!(after(101), Duration::from_millis(1101));
        assert_eq!(after(5200), Duration::from_millis(6200), "no block catches up");
    }
}
