//! A process's folder in /proc. Once open, it stays that of the same process, whoever gets its number later.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

/// A longer path is cut.
const LONGEST_PATH: usize = 512;
/// So many threads are asked for their name at most.
const MOST_THREADS: usize = 256;

/// A folder, /proc itself or a process's.
pub(super) struct Folder(OwnedFd);

/// What `stat` says.
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) comm: [u8; 16],
    state: u8,
    pub(super) ppid: u32,
    /// In ticks since the machine was started.
    pub(super) start: u64,
}

impl Stat {
    /// `PID (COMM) STATE PPID …`, with the start as the 22nd. COMM may have blanks and brackets.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let name = text.get(open + 1..close)?;
        let mut comm = [0; 16];
        let kept = name.len().min(15);
        comm[..kept].copy_from_slice(&name[..kept]);
        let rest = str::from_utf8(text.get(close + 1..)?).ok()?;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid: str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?,
            comm,
            state: *words.first()?.as_bytes().first()?,
            ppid: words.get(1)?.parse().ok()?,
            start: words.get(19)?.parse().ok()?,
        })
    }

    /// When it started, in nanoseconds since the machine was started.
    pub(super) fn start_ns(&self) -> i64 {
        // Linux tells it in hundredths of a second on every machine that we run on.
        i64::try_from(self.start.saturating_mul(10_000_000)).unwrap_or(i64::MAX)
    }

    /// Whether all that is left of it is its end's result.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

impl Folder {
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map(Self)
    }

    /// The folder of this process, or thread.
    pub(super) fn folder(&self, number: u32) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.0, number.to_string().as_str(), flags, Mode::empty()).ok().map(Self)
    }

    /// The beginning of a file; nothing where it cannot be read, or its process is gone.
    fn read(&self, name: &str, most: usize) -> Option<Vec<u8>> {
        let file = openat(&self.0, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(file).take(most as u64).read_to_end(&mut text).ok()?;
        Some(text)
    }

    pub(super) fn stat(&self) -> Option<Stat> {
        Stat::parse(&self.read("stat", 1024)?)
    }

    /// The real user.
    pub(super) fn uid(&self) -> Option<u32> {
        let text = self.read("status", 4096)?;
        let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
        str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The arguments, with blanks between.
    pub(super) fn cmdline(&self, most: usize) -> Vec<u8> {
        let mut text = self.read("cmdline", most).unwrap_or_default();
        while text.last() == Some(&0) {
            text.pop();
        }
        text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        text
    }

    /// Its cgroups: a line per hierarchy.
    pub(super) fn cgroup(&self) -> Vec<u8> {
        self.read("cgroup", 1 << 16).unwrap_or_default()
    }

    /// Pages of code.
    pub(super) fn text_pages(&self) -> Option<u64> {
        let text = self.read("statm", 256)?;
        str::from_utf8(&text).ok()?.split_ascii_whitespace().nth(3)?.parse().ok()
    }

    /// The file that it runs, if we may know.
    pub(super) fn exe(&self) -> Option<Rc<[u8]>> {
        let path = readlinkat(&self.0, "exe").ok()?;
        let path = path.as_bytes();
        Some(path[..path.len().min(LONGEST_PATH)].into())
    }

    /// Whether one of its threads has this name.
    pub(super) fn has_thread(&self, comm: &[u8; 16]) -> bool {
        let name = crate::out::name_in(comm);
        let is_called = |folder: &Self| {
            folder.read("comm", 64).is_some_and(|text| text.strip_suffix(b"\n") == Some(name))
        };
        if is_called(self) {
            return true;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut tasks) = Dir::openat(&self.0, "task", flags, Mode::empty()) else { return false };
        let Ok(folder) = openat(&self.0, "task", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else {
            return false;
        };
        let folder = Self(folder);
        let numbers =
            tasks.iter().flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        numbers.take(MOST_THREADS).filter_map(|tid| folder.folder(tid)).any(|thread| is_called(&thread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_blanks_and_brackets() {
        let line = b"42 (a) (b c) S 7 42 42 0 -1 4194304 103 0 0 0 0 0 0 0 20 0 1 0 6573734 3133440 378 1\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.start, stat.is_dead()), (42, 7, 6_573_734, false));
        assert_eq!(&stat.comm, b"a) (b c\0\0\0\0\0\0\0\0\0");
        for cut in 0..60 {
            assert!(Stat::parse(&line[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn we_see_ourselves() {
        let proc = Folder::open(Path::new("/proc")).unwrap();
        let own = proc.folder(std::process::id()).unwrap();
        let stat = own.stat().unwrap();
        assert_eq!(stat.pid, std::process::id());
        assert_eq!(i32::try_from(stat.ppid).unwrap(), nix::unistd::getppid().as_raw());
        assert_eq!(own.uid(), Some(nix::unistd::getuid().as_raw()));
        assert!(own.text_pages().unwrap() > 0);
        let exe = std::env::current_exe().unwrap();
        assert_eq!(&*own.exe().unwrap(), exe.as_os_str().as_bytes());
        assert!(own.cmdline(4096).starts_with(std::env::args().next().unwrap().as_bytes()));
        assert_eq!(own.cmdline(3).len(), 3);
        assert!(own.has_thread(&stat.comm));
        assert!(!own.has_thread(b"nobody is called"));
    }
}
