//! A writer of cpio archives in the "newc" form, which is what the kernel unpacks as its first root file system.

use std::io::{self, Write};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// An archive under way. Names are absolute paths of the guest; a folder must come before what lies in it.
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    pub(crate) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, FOLDER | 0o755, &[])
    }

    /// A file with the given permissions, such as `0o755`.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.entry(name, FILE | permissions, data)
    }

    pub(crate) fn link(&mut self, name: &str, to: &str) -> io::Result<()> {
        self.entry(name, LINK | 0o777, to.as_bytes())
    }

    /// Writes the end mark and answers what was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        let name = name.trim_start_matches('/');
        let size = u32::try_from(data.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::Error::other("a name of 4 GiB"))?;
        self.inode += 1;
        self.out.write_all(b"070701")?;
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of name, checksum
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.out.write_all(&b"\0\0\0"[..padding(110 + name.len() + 1)])?;
        self.out.write_all(data)?;
        self.out.write_all(&b"\0\0\0"[..padding(data.len())])
    }
}

/// How many bytes are missing to the next multiple of four.
fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_end_is_marked() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("/dev").expect("memory");
        archive.file("/init", 0o755, b"hello").expect("memory");
        let bytes = archive.finish().expect("memory");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.starts_with("07070100000001000041ed"));
        assert!(text.contains("000081ed"));
        // 110 bytes of header, "init\0" and one byte of padding.
        let init = text.find("init\0").expect("the name");
        assert_eq!(&text[init..init + 18], "init\0\0hello\0\0\x000707");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
    }

    #[test]
    fn padding_fills_to_four() {
        assert_eq!([0, 1, 2, 3, 4].map(padding), [0, 3, 2, 1, 0]);
    }
}
