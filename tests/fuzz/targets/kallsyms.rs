//! The kernel's symbols, read in pieces of any size: a name is that of the nearest function at or below the address.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use netbcc::fuzzing;
use netbcc_fuzz::take;

/// Hands out a few bytes at a time.
struct Pieces<'d>(&'d [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(to.len()).min(self.0.len());
        to[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Finds the names slowly and simply, in text of whole lines.
fn nearest(text: &[u8], wanted: u64) -> Option<(u64, Vec<u8>)> {
    let mut best: Option<(u64, Vec<u8>)> = None;
    for line in text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let line = &line[..line.len() - 1];
        let words: Vec<&[u8]> = line.splitn(3, |&byte| byte == b' ').collect();
        let [address, b"t" | b"T" | b"w" | b"W", name] = words[..] else { continue };
        let Some(address) = str::from_utf8(address).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok())
        else {
            continue;
        };
        let name = name.split(|&byte| byte == b'\t' || byte == b' ').next().unwrap_or_default();
        if address != 0 && address <= wanted && best.as_ref().is_none_or(|(known, _)| address > *known) {
            best = Some((address, name.to_vec()));
        }
    }
    best.filter(|(address, _)| wanted - address < 1 << 20)
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let [size, count] = take(&mut data);
    let addresses: Vec<u64> = (0..count % 8).map(|_| u64::from_be_bytes(take(&mut data))).collect();
    let text = data;
    let Ok(whole) = fuzzing::kallsyms(text, addresses.clone()) else { return };
    let pieces = fuzzing::kallsyms(Pieces(text, usize::from(size) + 1), addresses).expect("the same text");
    assert_eq!(whole, pieces);
    for (address, name) in whole {
        let expected = nearest(text, address)
            .map(|(start, name)| format!("{}+0x{:x}", String::from_utf8_lossy(&name), address - start));
        assert_eq!(name, expected, "{address:x}");
    }
});
