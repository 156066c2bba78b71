//! From the ring buffer to the tool, batch by batch.
//!
//! The kernel wakes us at the first event after we had read everything. We hand over what is there, then rest a few
//! milliseconds before we look again: in a flood one wake-up serves hundreds of events, and a lone event is printed
//! at once. A batch is ordered by kernel time, because CPUs reserve room in the ring a little out of order.
//!
//! While output waits for its reader, nothing is taken out of the ring: it fills up, and the kernel counts what has no
//! room. So a slow reader costs no memory, and a signal is always heard.
//!
//! A rest is a plain sleep of the one thread there is. A timer of the event loop costs two system calls more, and while
//! we waited for it there the next event would wake us all the same.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, PerCpuHashMap, RingBuf};
use netbcc_common::TS_BYTES;
use netbcc_common::socket::SocketFacts;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use zerocopy::{FromBytes, IntoBytes as _};

use super::attach::Chosen;
use super::ledger::Ledger;
pub use super::ledger::Losses;
use super::object::Object;
use super::outside::{Outside, event_loop, until, watch};
use super::table::{Counters, Generations, Table};
use super::wards::Wards;
use crate::error::{is_reader_gone, reader_gone};
use crate::hook::RungName;
use crate::options::select::Groups;
use crate::sys::bpf;
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
/// So many batches at most at the end of a run: more than the ring holds.
const LAST_BATCHES: u32 = 16;

/// The attached probes of one run. Dropping it detaches everything.
pub struct Probe {
    pub(super) object: Object,
    /// Names of the rings, in the order in which they are read.
    ring_names: Vec<&'static str>,
    /// There while events are streamed.
    rings: Vec<RingBuf<MapData>>,
    pub(super) ledger: Ledger,
    rungs: Vec<(&'static str, RungName)>,
    /// The cgroups that were asked for.
    pub(super) groups: Option<Groups>,
    batch: Batch,
    /// When everything was attached.
    pub(super) since: Instant,
}

/// An iterator that is ready to run.
pub struct Walk(OwnedFd);

impl Walk {
    /// Has its program see everything that there is now. It needs no capability. What the program has to tell, it tells by
    /// events.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn go(&self) -> Result<()> {
        /// After a million of objects the kernel lets others have the processor.
        const MOST: usize = 1000;
        let mut all = bpf::run_iterator(self.0.as_fd()).context("begin to go through the sockets")?;
        let mut nothing = [0; 64];
        for _ in 0..MOST {
            match all.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) => return Err(error).context("go through the sockets"),
            }
        }
        Ok(())
    }
}

/// Events in the order of their kernel time.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    index: Vec<Place>,
    /// How many bytes of each record of events are facts of its socket.
    behind: usize,
    /// Monotonic time at which the batch was taken, ns.
    now_ns: u64,
    last: bool,
    /// Records of the whole run that nobody understood.
    unknown: Cell<u64>,
}

/// Where a record is in a batch.
#[derive(Clone, Copy)]
struct Place {
    /// Kernel time.
    ts_ns: u64,
    start: usize,
    end: usize,
    /// Where the facts of its socket end, which follow it if there are any.
    end_of_facts: usize,
}

impl Batch {
    /// The records of a tool that has one kind of them, each with what is asked for of its socket; zeroes where nothing is.
    pub fn events_with_facts<E: FromBytes>(&self) -> impl Iterator<Item = (E, SocketFacts)> {
        self.records_with_facts().filter_map(|(record, facts)| Some((self.decode(record)?, facts)))
    }

    /// The records, each with what is asked for of its socket; zeroes where nothing is.
    pub fn records_with_facts(&self) -> impl Iterator<Item = (&[u8], SocketFacts)> {
        self.index.iter().map(|place| {
            let facts = SocketFacts::read_from_bytes(&self.bytes[place.end..place.end_of_facts]);
            (&self.bytes[place.start..place.end], facts.unwrap_or_default())
        })
    }

    /// The records of a tool that has one kind of them. One of another size is counted.
    pub fn events<E: FromBytes>(&self) -> impl Iterator<Item = E> {
        self.records().filter_map(|record| self.decode(record))
    }

    /// A copy of this record, if it has the size that it should have; else it is counted. A copy, because records have no
    /// alignment here.
    pub fn decode<E: FromBytes>(&self, record: &[u8]) -> Option<E> {
        let event = E::read_from_bytes(record).ok();
        if event.is_none() {
            self.unknown();
        }
        event
    }

    /// Counts a record that has no meaning here.
    pub fn unknown(&self) {
        self.unknown.set(self.unknown.get() + 1);
    }

    /// The records, each as the kernel wrote it.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.index.iter().map(|place| &self.bytes[place.start..place.end])
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

    /// Takes a record whose last bytes, so many, are facts of its socket.
    fn push(&mut self, record: &[u8], behind: usize) {
        let Some(&ts) = record.first_chunk::<TS_BYTES>() else { return self.unknown() };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        let end_of_facts = self.bytes.len();
        let end = end_of_facts.saturating_sub(behind).max(start);
        self.index.push(Place { ts_ns: u64::from_ne_bytes(ts), start, end, end_of_facts });
    }

    fn sort(&mut self) {
        if !self.index.is_sorted_by_key(|place| place.ts_ns) {
            self.index.sort_by_key(|place| place.ts_ns);
        }
    }
}

/// What a tool does with a batch. It answers when it wants to be called again even if nothing happens.
pub trait OnBatch: FnMut(&mut Ctx, &Batch) -> Result<Option<Duration>> {}
impl<F: FnMut(&mut Ctx, &Batch) -> Result<Option<Duration>>> OnBatch for F {}

impl Probe {
    /// `side` is a second ring, if the run has one.
    pub(super) fn new(
        mut object: Object,
        chosen: &[Chosen],
        side: Option<&'static str>,
        groups: Option<Groups>,
        has_facts: bool,
    ) -> Result<Self> {
        Ok(Self {
            // What leads to an event comes before it: who reads the events first, has it too.
            ring_names: ["EVENTS"].into_iter().chain(side).collect(),
            rings: Vec::new(),
            ledger: Ledger::take(&mut object)?,
            rungs: chosen.iter().map(|chosen| (chosen.ladder.name, chosen.rung.name)).collect(),
            object,
            groups,
            batch: Batch { behind: if has_facts { size_of::<SocketFacts>() } else { 0 }, ..Batch::default() },
            since: Instant::now(),
        })
    }

    /// Which rung of a ladder is attached.
    pub fn rung(&self, ladder: &str) -> Option<RungName> {
        self.rungs.iter().find(|(name, _)| *name == ladder).map(|&(_, rung)| rung)
    }

    /// Whether the program of this name is attached.
    pub fn has(&self, name: &str) -> bool {
        self.object.iterator(name).is_some()
    }

    /// What has the iterator of this name run; `None`: the run has none.
    ///
    /// # Errors
    /// There is no room for one more descriptor.
    pub fn walk(&self, name: &str) -> Result<Option<Walk>> {
        let link = self.object.iterator(name).transpose().context("duplicate an iterator's descriptor")?;
        Ok(link.map(Walk))
    }

    /// Runs until SIGINT, SIGTERM, SIGHUP or the end of our output's reader. What the tool printed so far (its header)
    /// goes out first: by then everything is attached.
    ///
    /// # Errors
    /// Output cannot be written, or its reader is gone (a broken pipe), or the tool failed.
    pub fn stream(&mut self, cx: &mut Ctx, on_batch: impl OnBatch) -> Result<()> {
        self.stream_for(cx, None, on_batch)
    }

    /// As [`Probe::stream`], and not longer than this.
    ///
    /// # Errors
    /// As [`Probe::stream`].
    pub fn stream_for(
        &mut self,
        cx: &mut Ctx,
        time: Option<Duration>,
        mut on_batch: impl OnBatch,
    ) -> Result<()> {
        event_loop()?.block_on(self.run(cx, time, &mut on_batch))
    }

    async fn run(&mut self, cx: &mut Ctx, time: Option<Duration>, on_batch: &mut impl OnBatch) -> Result<()> {
        let outside = Outside::watch(&cx.out)?;
        let mut wards = Wards::watch(self.groups.as_ref())?;
        let mut watched = Vec::new();
        for name in &self.ring_names {
            let ring = RingBuf::try_from(self.object.map(name)?).context("map the ring buffer")?;
            watched.push(watch(duplicate(&ring)?, Interest::READABLE).context("watch the ring buffer")?);
            self.rings.push(ring);
        }
        self.begin(cx)?;

        let end = time.map(|time| Instant::now() + time);
        // Asked once before anything happens, because a tool may have a wish then.
        let mut busy = true;
        let mut again: Option<Instant> = None;
        let ended = loop {
            let waits = cx.out.is_waiting();
            tokio::select! {
                biased;
                () = outside.told() => break Ok(()),
                () = outside.gone(waits) => break Err(reader_gone()),
                () = outside.wants_the_file_again() => match cx.out.flush() {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                },
                () = until(end) => break Ok(()),
                said = wards.ended() => {
                    cx.warn(said);
                    continue;
                }
                () = outside.takes(), if waits => {}
                // The event loop looks for signals meanwhile.
                () = tokio::task::yield_now(), if busy && !waits => {}
                ready = one_of(&watched), if !waits => ready.context("wait for events")?,
                () = until(again), if !waits => {}
            }
            if waits {
                match cx.out.flush() {
                    Ok(()) if cx.out.is_waiting() => continue,
                    // The ring filled meanwhile.
                    Ok(()) => {}
                    Err(error) => break Err(error),
                }
            }
            match self.looks(cx, on_batch) {
                Ok((bytes, wish)) => {
                    again = wish.map(|wait| Instant::now() + wait);
                    // Look once more after the rest: the kernel may wake us when that found nothing.
                    busy = bytes > 0;
                }
                Err(error) => break Err(error),
            }
        };
        self.finish(cx, on_batch, ended)
    }

    /// Hands over what is in the ring, a few times in a row; answers how much there was the last time, and what the tool
    /// wishes then.
    fn looks(&mut self, cx: &mut Ctx, on_batch: &mut impl OnBatch) -> Result<(usize, Option<Duration>)> {
        let mut last = (0, None);
        for _ in 0..LOOKS {
            let bytes = self.take(cx);
            let wish = on_batch(cx, &self.batch)?;
            cx.out.flush()?;
            last = (bytes, wish);
            match bytes {
                0 => break,
                _ if cx.out.is_waiting() => break,
                FLOOD_BYTES.. => {}
                // Rest after work.
                _ => thread::sleep(wish.map_or(REST, |wish| wish.min(REST))),
            }
        }
        Ok(last)
    }

    /// Everything is attached and open: gives up all power, hands out what was printed, says that we are ready.
    pub(super) fn begin(&self, cx: &mut Ctx) -> Result<()> {
        let ready = ready()?;
        confine(cx.out.folder(), || self.losses().is_ok())?;
        cx.out.flush()?;
        ready.map_or(Ok(()), |mut file| file.write_all(b"\n")).context("write to NETBCC_READY_FD")
    }

    /// The last events, the last words. Without a reader nothing can be written; the rows are counted all the same.
    fn finish(&mut self, cx: &mut Ctx, on_batch: &mut impl OnBatch, ended: Result<()>) -> Result<()> {
        let mut ended = ended;
        cx.out.end_soon();
        if ended.as_ref().is_err_and(is_reader_gone) {
            cx.out.give_up();
        }
        // Bounded: traffic may go on for ever.
        for left in (0..LAST_BATCHES).rev() {
            self.batch.last = self.take(cx) < BATCH_BYTES || left == 0;
            let handed = on_batch(cx, &self.batch).map(|_| ());
            ended = ended.and(handed).and(cx.out.finish());
            if self.batch.last {
                break;
            }
        }
        let losses = Losses { unknown: self.batch.unknown.get(), ..self.ledger.read(&self.object)? };
        if let Some(sentence) = losses.sentence() {
            cx.warn(sentence);
        }
        ended
    }

    /// Fills the batch with what is in the ring; answers its bytes.
    fn take(&mut self, cx: &mut Ctx) -> usize {
        self.batch.clear();
        let mut room = 0;
        // The first ring has the events.
        let behind = [self.batch.behind].into_iter().chain(std::iter::repeat(0));
        for (ring, behind) in self.rings.iter_mut().zip(behind) {
            room += BATCH_BYTES;
            while self.batch.bytes.len() < room
                && let Some(record) = ring.next()
            {
                self.batch.push(&record, behind);
            }
        }
        self.batch.sort();
        self.batch.now_ns = cx.out.clock().monotonic_ns();
        self.batch.bytes.len()
    }

    /// What was lost so far.
    pub fn losses(&self) -> Result<Losses> {
        self.ledger.read(&self.object)
    }

    /// A table of the tool's object.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn table(&mut self, name: &str) -> Result<Table> {
        self.object.table(name)
    }

    /// Tells programs that all is attached: what they did not see begin from now on is older than the tool.
    ///
    /// # Errors
    /// The object has no map `STARTED`, or the kernel refuses.
    pub fn mark_start(&mut self, now_ns: u64) -> Result<()> {
        self.table("STARTED")?.set(0_u32.as_bytes(), now_ns.as_bytes())
    }

    /// An array of counts that are never set to zero.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn counters(&mut self, name: &str) -> Result<Counters> {
        Ok(Counters::new(self.table(name)?))
    }

    /// The array that says which generation of tables programs use. It must hold `interval`, the number of the first.
    ///
    /// # Errors
    /// There is none of this name, or the kernel refuses.
    pub fn generations(&mut self, current: &str, interval: u32) -> Result<Generations> {
        Generations::new(self.table(current)?, interval)
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

/// Waits until one of these rings has something, and takes note of which.
async fn one_of(rings: &[AsyncFd<OwnedFd>]) -> io::Result<()> {
    poll_fn(|context| {
        let mut ready = Poll::Pending;
        for ring in rings {
            if let Poll::Ready(guard) = ring.poll_read_ready(context) {
                guard?.clear_ready();
                ready = Poll::Ready(Ok(()));
            }
        }
        ready
    })
    .await
}

fn duplicate(ring: &RingBuf<MapData>) -> Result<OwnedFd> {
    ring.as_fd().try_clone_to_owned().context("duplicate the ring buffer's descriptor")
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
fn descriptor(number: i32) -> io::Result<OwnedFd> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(ourselves, number, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use netbcc_common::solisten::Event;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn a_record_is_read_wherever_it_lies_and_one_of_another_size_is_counted() {
        let mut batch = Batch::default();
        let event = |ts_ns| Event { ts_ns, ..Event::new_zeroed() };
        // Of no known size, and too short for a time; what lies behind the first is aligned to nothing.
        batch.push(&[7; 9], 0);
        batch.push(&[7; 3], 0);
        batch.push(event(2).as_bytes(), 0);
        batch.push(event(1).as_bytes(), 0);
        batch.sort();
        assert_eq!(batch.events::<Event>().map(|event| event.ts_ns).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(batch.unknown.get(), 2);
        batch.clear();
        assert_eq!((batch.events::<Event>().count(), batch.unknown.get()), (0, 2), "of the whole run");
    }
}
