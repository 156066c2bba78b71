//! The little of ELF that xtask reads: 64-bit little-endian program headers, the dynamic section, sections by name.

use anyhow::{Context as _, Result, bail};

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;

/// A 64-bit little-endian ELF file in memory.
pub(crate) struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    /// # Errors
    /// The bytes are not such a file.
    pub(crate) fn new(data: &'a [u8]) -> Result<Self> {
        if !data.starts_with(b"\x7fELF\x02\x01") {
            bail!("not a 64-bit little-endian ELF file");
        }
        Ok(Self(data))
    }

    /// Why the program is not static, or nothing when it is: no interpreter and no shared library.
    ///
    /// # Errors
    /// The file is cut short.
    pub(crate) fn dynamic(&self) -> Result<Option<&'static str>> {
        let (table, size, count) = (self.word(0x20)?, self.half(0x36)?, self.half(0x38)?);
        for i in 0..count {
            let header = table + i * size;
            let kind = u32::from_le_bytes(self.array(header)?);
            if kind == PT_INTERP {
                return Ok(Some("it names an interpreter (PT_INTERP)"));
            }
            if kind == PT_DYNAMIC {
                let (start, len) = (self.word(header + 8)?, self.word(header + 32)?);
                for entry in (start..start + len).step_by(16) {
                    if self.word(entry)? as u64 == DT_NEEDED {
                        return Ok(Some("it needs a shared library (DT_NEEDED)"));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The libraries that a program or library names (DT_NEEDED), and the loader (PT_INTERP) as a full path.
    ///
    /// # Errors
    /// The file is cut short.
    pub(crate) fn needed(&self) -> Result<Vec<String>> {
        let text = |data: &[u8]| {
            let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
            String::from_utf8_lossy(&data[..end]).into_owned()
        };
        let names = self.section(".dynstr")?.unwrap_or_default();
        let mut needed: Vec<String> = self.section(".interp")?.map(text).into_iter().collect();
        for entry in self.section(".dynamic")?.unwrap_or_default().chunks_exact(16) {
            let (tag, value) = entry.split_at(8);
            if u64::from_le_bytes(tag.try_into()?) == DT_NEEDED {
                let at = usize::try_from(u64::from_le_bytes(value.try_into()?))?;
                needed.push(text(names.get(at..).context("a library's name lies outside the file")?));
            }
        }
        Ok(needed)
    }

    /// The content of the section called `name`, if there is one.
    ///
    /// # Errors
    /// The file is cut short.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&'a [u8]>> {
        let (table, size, count) = (self.word(0x28)?, self.half(0x3a)?, self.half(0x3c)?);
        let content = |index: usize| -> Result<&'a [u8]> {
            let header = table + index * size;
            self.slice(self.word(header + 24)?, self.word(header + 32)?)
        };
        let names = content(self.half(0x3e)?)?;
        for i in 0..count {
            let at = u32::from_le_bytes(self.array(table + i * size)?) as usize;
            let rest = names.get(at..).context("a section's name lies outside the file")?;
            if rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
                return content(i).map(Some);
            }
        }
        Ok(None)
    }

    fn slice(&self, start: usize, len: usize) -> Result<&'a [u8]> {
        let end = start.checked_add(len).context("the ELF file is damaged")?;
        self.0.get(start..end).context("the ELF file is cut short")
    }

    fn array<const N: usize>(&self, start: usize) -> Result<[u8; N]> {
        Ok(self.slice(start, N)?.try_into()?)
    }

    fn half(&self, start: usize) -> Result<usize> {
        Ok(u16::from_le_bytes(self.array(start)?).into())
    }

    fn word(&self, start: usize) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.array(start)?))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_has_a_note_section_and_no_nonsense() {
        let data = std::fs::read("/proc/self/exe").expect("the running test");
        let elf = Elf::new(&data).expect("an ELF file");
        assert!(elf.section(".text").expect("whole").is_some_and(|text| !text.is_empty()));
        assert!(elf.section(".nonsense").expect("whole").is_none());
    }

    #[test]
    fn a_dynamic_program_names_its_loader_and_libraries() {
        let data = std::fs::read("/bin/sh").expect("every machine has it");
        let elf = Elf::new(&data).expect("an ELF file");
        let needed = elf.needed().expect("whole");
        assert_eq!(needed.is_empty(), elf.dynamic().expect("whole").is_none(), "{needed:?}");
        assert!(needed.iter().all(|name| name.contains(".so")), "{needed:?}");
    }

    #[test]
    fn a_shell_script_and_a_cut_file_are_refused() {
        assert!(Elf::new(b"#!/bin/sh\n").is_err());
        assert!(Elf(b"\x7fELF\x02\x01").dynamic().is_err());
    }
}
