//! Names of kernel addresses, from `/proc/kallsyms`.
//!
//! The table has 100,000 lines, and tools ask for a few dozen addresses of it, once each: a pass over it per question
//! (40 ms) costs less than to keep it (10 MB). Passes run in a thread of their own, so that nobody waits who reads
//! events.
//!
//! Lives here: addresses and names. Must never live here: which frames of a stack matter.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

/// Where the kernel lists its symbols.
const TABLE: &str = "/proc/kallsyms";

/// A function further away than this is not the one that an address lies in: what lies there has no symbol.
const FAR: u64 = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// What a pass tells of addresses: `name+0x12`, or nothing.
pub(crate) type Named = Vec<(u64, Option<String>)>;

/// Asks for names, and remembers them.
pub struct Names {
    /// Until the worker takes it. Who may see addresses is decided when it is opened (`CAP_SYSLOG`), and the tool gives
    /// up its power before the first question.
    table: Option<io::Result<File>>,
    known: HashMap<u64, Option<String>>,
    asked: HashSet<u64>,
    worker: Option<Worker>,
    failed: Option<String>,
}

struct Worker {
    questions: Sender<Vec<u64>>,
    answers: Receiver<io::Result<Named>>,
}

impl Worker {
    fn start(mut table: File) -> io::Result<Self> {
        let (questions, asked) = channel::<Vec<u64>>();
        let (told, answers) = channel();
        thread::Builder::new().name("kallsyms".into()).spawn(move || {
            while let Ok(mut addresses) = asked.recv() {
                // Whatever was asked meanwhile is answered by the same pass.
                addresses.extend(asked.try_iter().flatten());
                if told.send(table.rewind().and_then(|()| name_all(&table, addresses))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }
}

impl Names {
    /// Opens the table. Nothing is known yet, and nothing is read.
    pub fn open() -> Self {
        let table = Some(File::open(TABLE));
        Self { table, known: HashMap::new(), asked: HashSet::new(), worker: None, failed: None }
    }

    /// Asks for the names of these addresses, as far as they are not known.
    pub fn ask(&mut self, addresses: &[u64]) {
        let new: Vec<u64> = addresses
            .iter()
            .copied()
            .filter(|address| !self.known.contains_key(address) && self.asked.insert(*address))
            .collect();
        if new.is_empty() {
            return;
        }
        if let Some(table) = self.table.take() {
            match table.and_then(Worker::start) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => return self.give_up(&error),
            }
        }
        // A worker that is gone answers nothing: `take` finds out.
        let _gone = self.worker.as_ref().map(|worker| worker.questions.send(new));
    }

    /// Takes the answers that are there; with `wait`, also those that are to come.
    pub fn take(&mut self, wait: bool) {
        while !self.asked.is_empty() {
            let Some(worker) = &self.worker else { return };
            let answer = if wait {
                worker.answers.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                worker.answers.try_recv()
            };
            match answer {
                Ok(Ok(named)) => {
                    for (address, name) in named {
                        self.asked.remove(&address);
                        self.known.insert(address, name);
                    }
                }
                Ok(Err(error)) => self.give_up(&error),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.give_up(&io::Error::other("its reader ended")),
            }
        }
    }

    /// Without names: what was asked for is answered with nothing.
    fn give_up(&mut self, error: &io::Error) {
        self.known.extend(self.asked.drain().map(|address| (address, None)));
        self.failed.get_or_insert_with(|| format!("{TABLE}: {error}"));
    }

    /// `name+0x12` of an address: `None` while it is not known, `Some(None)` if it has no name.
    pub fn of(&self, address: u64) -> Option<Option<&str>> {
        self.known.get(&address).map(Option::as_deref)
    }

    /// Why there are no names, if that is so: the table cannot be read, or the kernel hides its addresses.
    pub fn trouble(&mut self) -> Option<String> {
        self.failed.take()
    }
}

/// Names addresses by the table that `lines` reads.
pub(crate) fn name_all(mut lines: impl Read, mut addresses: Vec<u64>) -> io::Result<Named> {
    addresses.sort_unstable();
    addresses.dedup();
    // Per address: the nearest symbol that was seen right before it, and no other address in between.
    let mut nearest: Vec<(u64, Vec<u8>)> = vec![(0, Vec::new()); addresses.len()];
    let mut hidden = true;
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0;
    loop {
        let got = match lines.read(&mut buffer[kept..])? {
            0 => break,
            got => kept + got,
        };
        let whole = buffer[..got].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in buffer[..whole].split(|&byte| byte == b'\n') {
            let Some((address, name)) = function(line) else { continue };
            hidden &= address == 0;
            let next = addresses.partition_point(|&wanted| wanted < address);
            if let Some((best, best_name)) = nearest.get_mut(next)
                && address > *best
            {
                *best = address;
                best_name.clear();
                best_name.extend_from_slice(name);
            }
        }
        buffer.copy_within(whole..got, 0);
        kept = got - whole;
        // No line is as long as that; were there one, it would be none of a function.
        kept = if kept == buffer.len() { 0 } else { kept };
    }
    if hidden {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the kernel hides its addresses (CAP_SYSLOG is needed, and kernel.kptr_restrict below 2)",
        ));
    }
    let mut named = Named::with_capacity(addresses.len());
    let mut before: (u64, &[u8]) = (0, &[]);
    for (&address, (symbol, name)) in addresses.iter().zip(&nearest) {
        if *symbol > before.0 {
            before = (*symbol, name);
        }
        let offset = address - before.0;
        let text = (before.0 != 0 && offset < FAR)
            .then(|| format!("{}+0x{offset:x}", String::from_utf8_lossy(before.1)));
        named.push((address, text));
    }
    Ok(named)
}

/// Address and name, if the line is about a function: `ffffffff81000000 T _text`, of a module with `\t[module]`.
fn function(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
    if !matches!(kind, b"t" | b"T" | b"w" | b"W") {
        return None;
    }
    let address = u64::from_str_radix(str::from_utf8(address).ok()?, 16).ok()?;
    let end = name.iter().position(|&byte| byte == b'\t' || byte == b' ').unwrap_or(name.len());
    Some((address, &name[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that hands out a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let count = to.len().min(7).min(self.0.len());
            to[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    const TABLE: &[u8] = b"0000000000000000 A fixed_percpu_data\n\
        ffffffff81000000 T _text\n\
        ffffffff81000000 T startup_64\n\
        ffffffff81000100 t kfree_skb_reason\n\
        ffffffff81000200 D data\n\
        ffffffff81000300 W tcp_v4_rcv\n\
        ffffffffc0001000 t nft_do_chain\t[nf_tables]\n\
        ffffffffc0000000 t early\t[nf_tables]\n\
        bad line\n\
        zz T junk\n";

    fn names(addresses: &[u64]) -> Vec<Option<String>> {
        let named = name_all(Slow(TABLE), addresses.to_vec()).unwrap();
        addresses
            .iter()
            .map(|address| named.iter().find(|(of, _)| of == address).unwrap().1.clone())
            .collect()
    }

    #[test]
    fn addresses_have_the_function_before_them() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            names(&[
                0xffff_ffff_c000_1020,
                0xffff_ffff_8100_0100,
                0xffff_ffff_8100_01ff,
                0xffff_ffff_8100_02ff,
                0xffff_ffff_8100_0301,
                0xffff_ffff_8100_0302,
                0xffff_ffff_c000_0fff,
                0xffff_ffff_8100_0004,
            ]),
            [
                some("nft_do_chain+0x20"),
                some("kfree_skb_reason+0x0"),
                some("kfree_skb_reason+0xff"),
                some("kfree_skb_reason+0x1ff"),
                some("tcp_v4_rcv+0x1"),
                some("tcp_v4_rcv+0x2"),
                some("early+0xfff"),
                some("_text+0x4"),
            ]
        );
    }

    #[test]
    fn what_has_no_function_has_no_name() {
        assert_eq!(names(&[0, 0x1000, 0xffff_ffff_a000_0000, u64::MAX]), [None, None, None, None]);
    }

    #[test]
    fn hidden_addresses_are_said() {
        let hidden = b"0000000000000000 T _text\n0000000000000000 T tcp_v4_rcv\n";
        let error = name_all(&hidden[..], vec![1]).unwrap_err();
        assert!(error.to_string().contains("CAP_SYSLOG"));
    }

    #[test]
    fn names_come_once_they_were_asked_for() {
        let mut names = Names::open();
        assert_eq!(names.of(1), None);
        names.ask(&[1]);
        names.take(true);
        assert_eq!(names.of(1), Some(None), "nothing lies there");
    }
}
