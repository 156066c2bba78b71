//! What was lost, by cause: counted in the kernel per CPU, and by the kernel itself for programs that could not run
//! (ARCHITECTURE.md, D23).

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use netbcc_common::loss::Loss;

use super::object::Object;

/// The counts of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events for which the ring had no room.
    pub ring_full: u64,
    /// Events for which a table had no room.
    pub map_full: u64,
    /// Runs of a program that the kernel skipped, because the program was already running on that CPU.
    pub missed: u64,
    /// Records that this program did not understand.
    pub unknown: u64,
    /// DNS questions that were forgotten while they waited for their answer.
    pub questions: u64,
    /// DNS answers for which their ring had no room.
    pub answers: u64,
}

impl Losses {
    /// What was lost after `earlier`. Skipped runs are told at the end only: they come all the time.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            ring_full: self.ring_full - earlier.ring_full,
            map_full: self.map_full - earlier.map_full,
            ..Self::default()
        }
    }

    /// One line for people; none if nothing was lost.
    pub fn sentence(&self) -> Option<String> {
        let causes = [(self.ring_full, "the ring buffer was full"), (self.map_full, "a table was full")];
        let total: u64 = causes.iter().map(|(count, _)| count).sum();
        let parts: Vec<String> = causes
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, cause)| format!("{count} because {cause}"))
            .collect();
        let mut sentences = Vec::new();
        if total > 0 {
            sentences.push(format!("lost {total} events: {}", parts.join(", ")));
        }
        if self.missed > 0 {
            // Not a count of rows: what a skipped run would have done is not known.
            sentences.push(format!(
                "the kernel skipped {} probe runs (the probe was running already on that processor, in a task that was \
                 interrupted or had to wait): rows may be missing",
                self.missed
            ));
        }
        let names = [
            (self.questions, "questions were forgotten, because too many waited for their answers"),
            (self.answers, "answers had no room"),
        ];
        let names = names.iter().filter(|(count, _)| *count > 0);
        let names: Vec<String> = names.map(|(count, what)| format!("{count} DNS {what}")).collect();
        if !names.is_empty() {
            sentences.push(format!("names may be missing: {}", names.join(", ")));
        }
        if self.unknown > 0 {
            let records = self.unknown;
            sentences
                .push(format!("not understood: {records} records (a defect of netbcc: please report it)"));
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

/// Where the counts are.
pub(super) struct Ledger {
    lost: PerCpuArray<MapData, u64>,
    /// Runs that were skipped, and made up for, while programs were being attached: the second copy may have run
    /// before the first.
    before: [u64; 2],
}

impl Ledger {
    pub(super) fn take(object: &mut Object) -> Result<Self> {
        let lost = PerCpuArray::try_from(object.map("LOST")?).context("map LOST")?;
        let before = [object.missed(), count(&lost, Loss::MadeUp)?];
        Ok(Self { lost, before })
    }

    pub(super) fn read(&self, object: &Object) -> Result<Losses> {
        let count = |cause| count(&self.lost, cause);
        let [skipped, made_up] = [object.missed(), count(Loss::MadeUp)?];
        Ok(Losses {
            ring_full: count(Loss::RingFull)?,
            map_full: count(Loss::MapFull)?,
            missed: skipped.saturating_sub(self.before[0]).saturating_sub(made_up - self.before[1]),
            unknown: 0,
            questions: count(Loss::Question)?,
            answers: count(Loss::Answer)?,
        })
    }
}

/// How often it happened, on all processors.
fn count(lost: &PerCpuArray<MapData, u64>, cause: Loss) -> Result<u64> {
    let values = lost.get(&(cause as u32), 0).context("read the loss counters")?;
    Ok(values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::Losses;

    #[test]
    fn nothing_lost_is_nothing_said() {
        assert_eq!(Losses::default().sentence(), None);
    }

    #[test]
    fn every_cause_is_named_with_its_count() {
        let losses = Losses { ring_full: 5, map_full: 2, missed: 3, unknown: 4, questions: 6, answers: 7 };
        assert_eq!(
            losses.sentence().expect("something was lost"),
            "lost 7 events: 5 because the ring buffer was full, 2 because a table was full; the kernel skipped 3 probe \
             runs (the probe was running already on that processor, in a task that was interrupted or had to wait): rows \
             may be missing; names may be missing: 6 DNS questions were forgotten, because too many waited for their answers, 7 DNS answers had no room; not understood: 4 \
             records (a defect of netbcc: please report it)"
        );
    }
}
