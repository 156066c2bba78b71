//! Names of kernel addresses, from `/proc/kallsyms`, for kernels that do not name them in a program's event.
//!
//! The table has 100,000 lines, and a tool asks for a few dozen addresses of it, once each: a pass over it per question
//! (40 ms) costs less than to keep it (10 MB).
//!
//! Lives here: addresses and names. Must never live here: which frames of a stack matter.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _};

/// Where the kernel lists its symbols.
const TABLE: &str = "/proc/kallsyms";

/// A function further away than this is not the one that an address lies in: what lies there has no symbol.
const FAR: u64 = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// So many addresses are remembered before it begins anew.
const MOST: usize = 4096;

/// What a pass tells of addresses: `name+0x12`, or nothing.
pub(crate) type Named = Vec<(u64, Option<String>)>;

/// The kernel's symbols, and the names that were asked for.
#[derive(Debug)]
pub struct Symbols {
    /// Opened early: who may see addresses is decided then (`CAP_SYSLOG`), and a tool gives up its power before the
    /// first question. None once it could not be read.
    table: Option<io::Result<File>>,
    known: HashMap<u64, Option<String>>,
}

impl Symbols {
    /// Opens the table. Nothing is read yet.
    pub fn open() -> Self {
        Self { table: Some(File::open(TABLE)), known: HashMap::new() }
    }

    /// Looks up what is not known of these addresses. Answers why there are no names, the first time only.
    pub fn look_up(&mut self, addresses: &[u64]) -> Option<String> {
        let new = |known: &HashMap<_, _>| -> Vec<u64> {
            addresses.iter().copied().filter(|address| !known.contains_key(address)).collect()
        };
        if self.known.len() + new(&self.known).len() > MOST {
            self.known.clear();
        }
        let (new, table) = (new(&self.known), self.table.take()?);
        if new.is_empty() {
            self.table = Some(table);
            return None;
        }
        let pass = |mut table: File| {
            table.rewind()?;
            Ok((name_all(&table, new)?, table))
        };
        match table.and_then(pass) {
            Ok((named, table)) => {
                self.known.extend(named);
                self.table = Some(Ok(table));
                None
            }
            Err(error) => Some(format!("{TABLE}: {error}")),
        }
    }

    /// `name+0x12` of an address that was looked up, if it has a name.
    pub fn name(&self, address: u64) -> Option<&str> {
        self.known.get(&address)?.as_deref()
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
    fn what_cannot_be_read_is_said_once() {
        let mut symbols = Symbols { table: Some(Err(io::ErrorKind::NotFound.into())), known: HashMap::new() };
        assert!(symbols.look_up(&[1]).is_some_and(|why| why.starts_with(super::TABLE)));
        assert_eq!(symbols.look_up(&[1]), None);
        assert_eq!(symbols.name(1), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = (0..MOST as u64).map(|address| (address, None)).collect();
        let mut symbols = Symbols { table: None, known };
        assert_eq!(symbols.look_up(&[1, 2]), None, "all are known");
        assert_eq!(symbols.known.len(), MOST);
        assert_eq!(symbols.look_up(&[1, MOST as u64]), None);
        assert!(symbols.known.is_empty());
    }
}
