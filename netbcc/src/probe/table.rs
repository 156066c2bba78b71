//! Tables that programs count in, read as a whole once per interval.
//!
//! By batch where the kernel has that (since 5.6; per-CPU arrays since 5.13), else entry by entry. Nothing that
//! arrives meanwhile is lost: [`Counters`] are never set to zero, only compared with what they were; of [`Generations`]
//! of tables there are two, of which programs use one at a time, and the other is emptied when no program can be in it.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type;
use nix::errno::Errno;

use crate::sys::bpf::{ENOTSUPP, MapHandle, Quiescence, Step};

/// Entries per batch, at most, unless the kernel asks for more room.
const CHUNK: usize = 4096;
/// Bytes of values per batch, about: of a machine with many CPUs.
const CHUNK_BYTES: usize = 1 << 20;

/// What a map looks like.
pub(super) struct Shape {
    pub(super) map_type: u32,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) entries: usize,
}

/// A table.
pub struct Table {
    name: String,
    map: MapHandle,
    key: usize,
    /// Of all CPUs, if it has a value for each.
    value: usize,
    /// Bytes between one CPU's value and the next.
    stride: usize,
    entries: usize,
    is_array: bool,
    /// Whether the kernel has batches for it.
    batches: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Table {
    pub(super) fn new(name: &str, fd: OwnedFd, shape: &Shape) -> Result<Self> {
        let is = |types: &[bpf_map_type]| types.iter().any(|&ty| ty as u32 == shape.map_type);
        let per_cpu = is(&[
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ]);
        let (stride, value) = if per_cpu {
            let cpus = aya::util::nr_cpus().map_err(|(what, error)| error_of(what, &error))?;
            let stride = shape.value.next_multiple_of(8);
            (stride, stride * cpus)
        } else {
            (shape.value, shape.value)
        };
        Ok(Self {
            name: name.to_owned(),
            map: MapHandle::new(fd, shape.key, value),
            key: shape.key,
            value,
            stride,
            entries: shape.entries,
            is_array: is(&[bpf_map_type::BPF_MAP_TYPE_ARRAY, bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY]),
            batches: true,
            keys: Vec::new(),
            values: Vec::new(),
        })
    }

    /// Calls `see` with every key and its value (of a per-CPU table: the values of all CPUs, one after the other).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn each(&mut self, see: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.read(self.entries, || false, see)
    }

    /// Calls `see` with the first `count` entries of an array.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn first(&mut self, count: usize, see: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let count = count.min(self.entries);
        if count == 0 { Ok(()) } else { self.read(count, || false, see) }
    }

    /// Calls `see` with every key and its value, and leaves the table empty. What programs add meanwhile may or may not be
    /// seen. From when `stays` says so on, entries are left where they are, for a run that ends: to delete one takes the
    /// kernel ten times as long as to read it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drain(&mut self, stays: impl Fn() -> bool, see: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.read(self.entries, || !stays(), see)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.map.update(key, value).with_context(|| format!("write to the map {}", self.name))
    }

    /// Takes an entry out, if it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, key: &[u8]) -> Result<()> {
        let deleted = self.map.delete(key);
        deleted.map(|_| ()).with_context(|| format!("delete from the map {}", self.name))
    }

    /// At most `most` entries, which are all, or the first of an array. `deletes` is asked before each batch.
    fn read(
        &mut self,
        most: usize,
        deletes: impl Fn() -> bool,
        mut see: impl FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        if self.batches {
            match self.by_batch(most, &deletes, &mut see) {
                Ok(true) => return Ok(()),
                Ok(false) => self.batches = false,
                Err(error) => return Err(error).with_context(|| format!("read the map {}", self.name)),
            }
        }
        self.one_by_one(most, &deletes, &mut see).with_context(|| format!("read the map {}", self.name))
    }

    /// Whether the kernel has batches for this table; if not, nothing was seen.
    fn by_batch(
        &mut self,
        most: usize,
        deletes: &impl Fn() -> bool,
        see: &mut impl FnMut(&[u8], &[u8]),
    ) -> io::Result<bool> {
        let mut room = self.entries.min(CHUNK).min(CHUNK_BYTES / self.value).max(1);
        let mut at = vec![0; self.key.max(8)];
        let mut first = true;
        let mut left = most;
        loop {
            if self.is_array {
                room = room.min(left);
            }
            self.keys.resize(room * self.key, 0);
            self.values.resize(room * self.value, 0);
            let step = match self.map.batch(&mut at, first, &mut self.keys, &mut self.values, deletes()) {
                Err(error) => match error.raw_os_error() {
                    // A bucket with more entries than that; nothing was read.
                    Some(errno) if errno == Errno::ENOSPC as i32 && room < self.entries => {
                        room = (room * 2).min(self.entries);
                        continue;
                    }
                    Some(errno) if first && (errno == Errno::EINVAL as i32 || errno == ENOTSUPP) => {
                        return Ok(false);
                    }
                    _ => return Err(error),
                },
                Ok(step) => step,
            };
            let (Step::More(count) | Step::End(count)) = step;
            let keys = self.keys.chunks_exact(self.key);
            keys.zip(self.values.chunks_exact(self.value))
                .take(count)
                .for_each(|(key, value)| see(key, value));
            left = left.saturating_sub(count);
            if matches!(step, Step::End(_)) || self.is_array && left == 0 {
                return Ok(true);
            }
            first = false;
        }
    }

    fn one_by_one(
        &mut self,
        most: usize,
        deletes: &impl Fn() -> bool,
        see: &mut impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        // All keys first: what is deleted or added in between cannot send us back to the beginning.
        let mut keys = Vec::new();
        if self.is_array {
            for index in 0..most {
                keys.extend_from_slice(&u32::try_from(index).map_err(io::Error::other)?.to_ne_bytes());
            }
        } else {
            let mut next = vec![0; self.key];
            let mut more = self.map.next_key(None, &mut next)?;
            while more && keys.len() < self.entries * self.key {
                keys.extend_from_slice(&next);
                let last = next.clone();
                more = self.map.next_key(Some(&last), &mut next)?;
            }
        }
        let mut value = vec![0; self.value];
        for key in keys.chunks_exact(self.key) {
            if self.map.lookup(key, &mut value)? {
                see(key, &value);
                if deletes() {
                    self.map.delete(key)?;
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn without_batches(mut self) -> Self {
        self.batches = false;
        self
    }
}

fn error_of(what: &str, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("{what}: {error}")
}

/// The 64-bit words of a value, summed over CPUs (modulo 2^64) into `sums`.
fn add_words(value: &[u8], stride: usize, sums: &mut [u64]) {
    for cpu in value.chunks_exact(stride) {
        for (sum, word) in sums.iter_mut().zip(cpu.chunks_exact(8)) {
            *sum = sum.wrapping_add(word.try_into().map(u64::from_ne_bytes).unwrap_or_default());
        }
    }
}

/// An array of counts that programs only ever add to: what they added since the last look. Each value consists of
/// 64-bit words.
pub struct Counters {
    table: Table,
    last: Vec<u64>,
}

impl Counters {
    pub(super) fn new(table: Table) -> Self {
        Self { last: vec![0; table.entries * (table.stride / 8)], table }
    }

    /// Of every entry its words, one entry after the other, each summed over CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn increments(&mut self) -> Result<Vec<u64>> {
        let Self { table, last } = self;
        let (stride, words) = (table.stride, table.stride / 8);
        let mut now = vec![0; last.len()];
        table.each(|key, value| {
            let index = key.try_into().map_or(u32::MAX, u32::from_ne_bytes) as usize;
            if let Some(sums) =
                now.get_mut(index.saturating_mul(words)..).and_then(|from| from.get_mut(..words))
            {
                add_words(value, stride, sums);
            }
        })?;
        let increments = now.iter().zip(&*last).map(|(now, last)| now.wrapping_sub(*last)).collect();
        *last = now;
        Ok(increments)
    }
}

/// Two generations of tables. Programs use that which the lowest bit of an array's only `u32` names: the number of the
/// interval.
pub struct Generations {
    current: Table,
    interval: u32,
    quiescence: Quiescence,
}

impl Generations {
    /// `current` is the array, which holds `interval` by now.
    ///
    /// # Errors
    /// The kernel refuses a map.
    pub(super) fn new(current: Table, interval: u32) -> Result<Self> {
        Ok(Self { current, interval, quiescence: Quiescence::new().context("a map to wait with")? })
    }

    /// Turns programs to the other generation. Answers which one they used, 0 or 1: no program is in that any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn turn(&mut self) -> Result<usize> {
        let used = self.interval;
        // Never 0, which is what sockets keep that were in no interval.
        self.interval = used.checked_add(1).unwrap_or(2);
        self.current.set(&0_u32.to_ne_bytes(), &self.interval.to_ne_bytes())?;
        self.quiescence.wait().context("wait for running programs")?;
        Ok((used & 1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sys::bpf;

    /// A map of this type, or nothing where we may not make one.
    fn table(map_type: bpf_map_type, value: usize, entries: usize) -> Option<Table> {
        let shape = Shape { map_type: map_type as u32, key: 4, value, entries };
        let fd = bpf::map_create(&bpf::Map {
            name: "test",
            map_type: shape.map_type,
            key_size: 4,
            value_size: u32::try_from(value).unwrap(),
            max_entries: u32::try_from(entries).unwrap(),
            flags: 0,
            btf: None,
            inner: None,
        })
        .ok()?;
        Some(Table::new("test", fd, &shape).unwrap())
    }

    fn read(table: &mut Table, deletes: bool) -> BTreeMap<u32, u64> {
        let mut all = BTreeMap::new();
        table
            .read(
                table.entries,
                || deletes,
                |key, value| {
                    let before = all.insert(
                        u32::from_ne_bytes(key.try_into().unwrap()),
                        u64::from_ne_bytes(value[..8].try_into().unwrap()),
                    );
                    assert_eq!(before, None, "seen twice");
                },
            )
            .unwrap();
        all
    }

    #[test]
    fn a_hash_is_read_and_emptied_with_batches_and_without() {
        for batches in [true, false] {
            let Some(mut table) = table(bpf_map_type::BPF_MAP_TYPE_HASH, 8, 10_000) else { return };
            if !batches {
                table = table.without_batches();
            }
            assert!(read(&mut table, true).is_empty());
            // To the last entry that it takes.
            for key in 0..10_000_u32 {
                table.set(&key.to_ne_bytes(), &u64::from(key * 3).to_ne_bytes()).unwrap();
            }
            let all: BTreeMap<u32, u64> = (0..10_000).map(|key| (key, u64::from(key * 3))).collect();
            assert_eq!(read(&mut table, false), all);
            assert_eq!(read(&mut table, true), all);
            assert!(read(&mut table, false).is_empty());
        }
    }

    #[test]
    fn what_a_run_reads_at_its_end_stays_where_it_is() {
        use std::cell::Cell;
        for batches in [true, false] {
            let Some(mut table) = table(bpf_map_type::BPF_MAP_TYPE_HASH, 8, 20_000) else { return };
            if !batches {
                table = table.without_batches();
            }
            for nth in 0..20_000_u32 {
                table.set(&nth.to_ne_bytes(), &u64::from(nth).to_ne_bytes()).unwrap();
            }
            // The signal comes while the first entry is looked at.
            let (seen, ends) = (Cell::new(0_u32), Cell::new(false));
            let mut keys = std::collections::BTreeSet::new();
            let see = |key: &[u8], _: &[u8]| {
                ends.set(true);
                seen.set(seen.get() + 1);
                keys.insert(u32::from_ne_bytes(key.try_into().unwrap()));
            };
            table.drain(|| ends.get(), see).unwrap();
            assert_eq!((seen.get(), keys.len()), (20_000, 20_000), "each one once");
            let left = read(&mut table, false).len();
            let most = if batches { 20_000 - 1 } else { 20_000 };
            assert!((20_000 - CHUNK..=most).contains(&left), "{left} of them are left");
        }
    }

    #[test]
    fn counters_tell_what_came_since_the_last_look_of_all_cpus() {
        for batches in [true, false] {
            let Some(mut table) = table(bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, 16, 5000) else { return };
            if !batches {
                table = table.without_batches();
            }
            let cpus = aya::util::nr_cpus().unwrap() as u64;
            let mut counters = Counters::new(table);
            let set = |counters: &Counters, words: [u64; 2]| {
                let one: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let value: Vec<u8> = (0..cpus).flat_map(|_| one.clone()).collect();
                counters.table.set(&4999_u32.to_ne_bytes(), &value).unwrap();
            };
            set(&counters, [5, u64::MAX]);
            let first = counters.increments().unwrap();
            assert_eq!((first.len(), first[9998], first[9999]), (10_000, 5 * cpus, 0_u64.wrapping_sub(cpus)));
            assert!(counters.increments().unwrap().iter().all(|&count| count == 0));
            set(&counters, [6, 1]);
            let second = counters.increments().unwrap();
            assert_eq!((second[9998], second[9999]), (cpus, 2 * cpus));
        }
    }

    #[test]
    fn of_an_array_the_first_entries_are_read() {
        for batches in [true, false] {
            let Some(mut table) = table(bpf_map_type::BPF_MAP_TYPE_ARRAY, 8, 10_000) else { return };
            if !batches {
                table = table.without_batches();
            }
            for key in 0..10_000_u32 {
                table.set(&key.to_ne_bytes(), &u64::from(key * 3).to_ne_bytes()).unwrap();
            }
            for count in [0, 1, 4096, 4097, 9999, 10_000, 10_001] {
                let mut seen = Vec::new();
                table
                    .first(count, |key, value| {
                        seen.push((
                            u32::from_ne_bytes(key.try_into().unwrap()),
                            u64::from_ne_bytes(value.try_into().unwrap()),
                        ));
                    })
                    .unwrap();
                let last = u32::try_from(count.min(10_000)).unwrap();
                assert_eq!(seen, (0..last).map(|key| (key, u64::from(key * 3))).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn generations_take_turns() {
        let Some(current) = table(bpf_map_type::BPF_MAP_TYPE_ARRAY, 4, 1) else { return };
        let mut generations = Generations { current, interval: 1, quiescence: Quiescence::new().unwrap() };
        for round in [1, 2, 3, u32::MAX] {
            generations.interval = round;
            assert_eq!(generations.turn().unwrap(), (round & 1) as usize);
            let mut now = [0; 4];
            assert!(generations.current.map.lookup(&[0; 4], &mut now).unwrap());
            let now = u32::from_ne_bytes(now);
            assert!(now != 0 && now & 1 != round & 1, "{round}, then {now}");
        }
    }
}
