//! From the ring buffer to the tool, batch by batch.
//!
//! The kernel wakes us at the first event after we had read everything. We hand over what is there, then rest a few
//! milliseconds before we look again: in a flood one wake-up serves hundreds of events, and a lone event is printed
//! at once. A batch is ordered by kernel time, because CPUs reserve room in the ring a little out of order.
//!
//! A rest is a plain sleep of the one thread there is. A timer of the event loop costs two system calls more, and while
//! we waited for it there the next event would wake us all the same.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, PerCpuHashMap, RingBuf};
use netbcc_common::TS_BYTES;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::attach::Chosen;
use super::hook::RungName;
use super::ledger::Ledger;
pub use super::ledger::Losses;
use super::object::Object;
use crate::sys::confine::confine;
use crate::tool::Ctx;

/// How long we rest after a batch. Rows still leave well within 50 ms of their event.
const REST: Duration = Duration::from_millis(10);
/// So many batches in a row at most before we look for signals.
const LOOKS: u32 = 4;
/// More bytes than this in one batch, and we do not rest: the ring fills faster than that.
const FLOOD_BYTES: usize = 128 << 10;
/// A batch is handed over at the latest when it has grown to this.
const BATCH_BYTES: usize = 1 << 20;

/// The attached probes of one run. Dropping it detaches everything.
pub struct Probe {
    pub(super) object: Object,
    /// There while events are streamed.
    ring: Option<RingBuf<MapData>>,
    pub(super) ledger: Ledger,
    rungs: Vec<(&'static str, RungName)>,
    batch: Batch,
}

/// Events in the order of their kernel time.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Kernel time, start and end in `bytes`.
    index: Vec<(u64, usize, usize)>,
    /// Monotonic time at which the batch was taken, ns.
    now_ns: u64,
    last: bool,
}

impl Batch {
    /// The records, each as the kernel wrote it.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.index.iter().map(|&(_, start, end)| &self.bytes[start..end])
    }

    /// When the batch was taken: `CLOCK_MONOTONIC`, ns.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Whether the run ends: nothing will follow.
    pub fn is_last(&self) -> bool {
        self.last
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
    }

    fn push(&mut self, record: &[u8]) {
        let Some(&ts) = record.first_chunk::<TS_BYTES>() else { return };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.index.push((u64::from_ne_bytes(ts), start, self.bytes.len()));
    }

    fn sort(&mut self) {
        if !self.index.is_sorted_by_key(|entry| entry.0) {
            self.index.sort_by_key(|entry| entry.0);
        }
    }
}

/// What a tool does with a batch. It answers when it wants to be called again even if nothing happens.
pub trait OnBatch: FnMut(&mut Ctx, &Batch) -> Result<Option<Duration>> {}
impl<F: FnMut(&mut Ctx, &Batch) -> Result<Option<Duration>>> OnBatch for F {}

impl Probe {
    pub(super) fn new(mut object: Object, chosen: &[Chosen]) -> Result<Self> {
        Ok(Self {
            ring: None,
            ledger: Ledger::take(&mut object)?,
            rungs: chosen.iter().map(|chosen| (chosen.ladder.name, chosen.rung.name)).collect(),
            object,
            batch: Batch::default(),
        })
    }

    /// Which rung of a ladder is attached.
    pub fn rung(&self, ladder: &str) -> Option<RungName> {
        self.rungs.iter().find(|(name, _)| *name == ladder).map(|&(_, rung)| rung)
    }

    /// Runs until SIGINT, SIGTERM or the end of our output's reader. What the tool printed so far (its header) goes
    /// out first: by then everything is attached.
    ///
    /// # Errors
    /// Output cannot be written, or the tool failed.
    pub fn stream(&mut self, cx: &mut Ctx, mut on_batch: impl OnBatch) -> Result<()> {
        event_loop()?.block_on(self.run(cx, &mut on_batch))
    }

    async fn run(&mut self, cx: &mut Ctx, on_batch: &mut impl OnBatch) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let ring = RingBuf::try_from(self.object.map("EVENTS")?).context("map the ring buffer")?;
        let events = watch(duplicate(&ring)?, Interest::READABLE).context("watch the ring buffer")?;
        self.ring = Some(ring);
        let reader = Reader::watch();
        self.begin(cx)?;

        let mut busy = false;
        let mut again: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = reader.gone() => break,
                // The event loop looks for signals meanwhile.
                () = tokio::task::yield_now(), if busy => {}
                ready = events.readable() => ready.context("wait for events")?.clear_ready(),
                () = until(again) => {}
            }
            for _ in 0..LOOKS {
                let bytes = self.take(cx);
                let wish = on_batch(cx, &self.batch)?;
                cx.out.flush()?;
                again = wish.map(|wait| Instant::now() + wait);
                // Rest after work, and look once more after the rest: the kernel may wake us when that found nothing.
                busy = bytes > 0;
                match bytes {
                    0 => break,
                    FLOOD_BYTES.. => {}
                    _ => thread::sleep(wish.map_or(REST, |wish| wish.min(REST))),
                }
            }
        }
        self.finish(cx, on_batch)
    }

    /// Everything is attached and open: gives up all power, hands out what was printed, says that we are ready.
    pub(super) fn begin(&self, cx: &mut Ctx) -> Result<()> {
        let ready = ready()?;
        confine(|| self.losses().is_ok())?;
        cx.out.flush()?;
        ready.map_or(Ok(()), |mut file| file.write_all(b"\n")).context("write to NETBCC_READY_FD")
    }

    /// The last events, the last words.
    fn finish(&mut self, cx: &mut Ctx, on_batch: &mut impl OnBatch) -> Result<()> {
        // Bounded: traffic may go on for ever.
        for left in (0..64).rev() {
            self.batch.last = self.take(cx) < BATCH_BYTES || left == 0;
            on_batch(cx, &self.batch)?;
            if self.batch.last {
                break;
            }
        }
        let flushed = cx.out.flush();
        if let Some(sentence) = self.ledger.read(&self.object)?.sentence() {
            cx.warn(sentence);
        }
        flushed
    }

    /// Fills the batch with what is in the ring; answers its bytes.
    fn take(&mut self, cx: &mut Ctx) -> usize {
        self.batch.clear();
        while self.batch.bytes.len() < BATCH_BYTES
            && let Some(record) = self.ring.as_mut().and_then(RingBuf::next)
        {
            self.batch.push(&record);
        }
        self.batch.sort();
        self.batch.now_ns = cx.out.clock().monotonic_ns();
        self.batch.bytes.len()
    }

    /// What was lost so far.
    pub fn losses(&self) -> Result<Losses> {
        self.ledger.read(&self.object)
    }

    /// Every key of a per-CPU table of counts, with the sum over CPUs (modulo 2^64).
    pub fn counts<const N: usize>(&mut self, table: &str) -> Result<Vec<([u8; N], u64)>> {
        let map = self.object.map(table)?;
        let map = PerCpuHashMap::<_, [u8; N], u64>::try_from(map).with_context(|| format!("map {table}"))?;
        map.iter()
            .map(|entry| {
                let (key, values) = entry.with_context(|| format!("read the map {table}"))?;
                Ok((key, values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value))))
            })
            .collect()
    }
}

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

fn duplicate(ring: &RingBuf<MapData>) -> Result<OwnedFd> {
    ring.as_fd().try_clone_to_owned().context("duplicate the ring buffer's descriptor")
}

/// Registers a descriptor that it then owns.
#[expect(
    deprecated,
    reason = "sound here, as an OwnedFd stays open while it is registered; its successor is unsafe"
)]
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Who reads our output. When a pipe's reader goes away there is nobody left to trace for, even before the next row.
pub(super) struct Reader(Option<AsyncFd<OwnedFd>>);

impl Reader {
    pub(super) fn watch() -> Self {
        let watched = std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .ok()
            // A regular file cannot be watched, and needs not be.
            .and_then(|fd| watch(fd, Interest::ERROR).ok());
        Self(watched)
    }

    pub(super) async fn gone(&self) {
        match &self.0 {
            Some(fd) => {
                let _error = fd.ready(Interest::ERROR).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Scripts and tests may wait for readiness on a descriptor, which works in every output format. It is duplicated, not
/// opened again by its name in /proc: what was handed over for reading stays so.
fn ready() -> Result<Option<File>> {
    let Ok(fd) = std::env::var("NETBCC_READY_FD") else { return Ok(None) };
    let copy = || {
        let file = File::from(descriptor(fd.parse().context("not a descriptor")?)?);
        let mode = fcntl(&file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain)? & OFlag::O_ACCMODE;
        ensure!(mode == OFlag::O_WRONLY || mode == OFlag::O_RDWR, "it is not open for writing");
        Ok(Some(file))
    };
    copy().with_context(|| format!("NETBCC_READY_FD={fd}"))
}

/// A duplicate of the descriptor with this number (`pidfd_getfd(2)`, since 5.6): the only way that checks whether it is
/// open.
fn descriptor(number: i32) -> std::io::Result<OwnedFd> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(ourselves, number, PidfdGetfdFlags::empty())?)
}
