//! BPF objects as the binary carries them: compressed to a sixth of their size.

use anyhow::{Context as _, Result, anyhow};
use miniz_oxide::inflate::decompress_slice_iter_to_slice;
use zerocopy::IntoBytes as _;

/// A tool's BPF object, an ELF file, as the build script packs it: its length in bytes as a little-endian `u32`, then a raw
/// DEFLATE stream (RFC 1951).
#[derive(Clone, Copy, Debug)]
pub struct Packed(&'static [u8]);

impl Packed {
    /// Of bytes that the build script packed; whether they are such is seen when they are unpacked.
    pub const fn new(bytes: &'static [u8]) -> Self {
        Self(bytes)
    }

    /// How much the binary grows by it, in bytes.
    pub const fn size(self) -> usize {
        self.0.len()
    }

    /// The ELF file, in memory of its own.
    ///
    /// # Errors
    ///
    /// The bytes are not what the build script wrote.
    pub fn unpack(self) -> Result<Elf> {
        let (len, stream) = self.0.split_first_chunk().context("its length is missing")?;
        let len = usize::try_from(u32::from_le_bytes(*len)).context("its length")?;
        let mut elf = Elf { words: vec![0; len.div_ceil(size_of::<u64>())], len };
        let out = elf.words.as_mut_bytes().get_mut(..len).context("its length")?;
        match decompress_slice_iter_to_slice(out, [stream].into_iter(), false, true) {
            Ok(written) if written == len => Ok(elf),
            Ok(written) => Err(anyhow!("{written} of {len} bytes are there")),
            Err(status) => Err(anyhow!("it cannot be unpacked: {status:?}")),
        }
    }
}

/// An ELF file in memory, where the parser wants it: at an address that a multiple of 8 divides.
pub struct Elf {
    words: Vec<u64>,
    len: usize,
}

impl AsRef<[u8]> for Elf {
    fn as_ref(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::TOOLS;

    #[test]
    fn every_object_is_an_elf_file_again() {
        for tool in TOOLS {
            let elf = tool.spec.object.unpack().unwrap();
            let elf = elf.as_ref();
            assert!(elf.starts_with(b"\x7fELF"), "{}", tool.spec.name);
            assert_eq!(elf.as_ptr().align_offset(align_of::<u64>()), 0);
        }
    }

    #[test]
    fn bytes_that_are_no_packed_object_are_an_error() {
        // Nothing, a part of a length, a length alone, another block type, fewer and more bytes than were promised.
        let bytes: [&[u8]; 6] = [
            b"",
            b"\x01\0",
            b"\x01\0\0\0",
            b"\x01\0\0\0\x07",
            b"\x02\0\0\0\x01\x01\0\xfe\xffx",
            b"\x01\0\0\0\x01\x02\0\xfd\xffxy",
        ];
        for bytes in bytes {
            assert!(Packed::new(bytes).unpack().is_err(), "{bytes:?}");
        }
        let elf = Packed::new(b"\x01\0\0\0\x01\x01\0\xfe\xffx").unpack().unwrap();
        assert_eq!(elf.as_ref(), b"x");
    }
}
