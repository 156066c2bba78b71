//! `--file` and `--rotate`: rows in a file that stays below a size, whose older parts have numbers, and which SIGHUP has opened
//! again (logrotate(8)).
//!
//! Lives here: which file the next record goes to. Must never live here: how bytes are written ([`Sink`]).
//!
//! All names are looked up in the folder that was open at the start, and no link is followed there: whoever may change the path
//! above it cannot lead us elsewhere later.

use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, fstatat};

use super::sink::{self, Sink};
use crate::error::hinted;
use crate::sys::confine::{self, Folder};
use crate::sys::stop;

/// When a file is full, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The most that a file holds, unless one record is larger.
    pub bytes: u64,
    /// So many older files are kept: `FILE.1` is the newest.
    pub files: NonZeroU32,
}

/// The file that rows go to.
pub(super) struct Rows {
    folder: File,
    /// What the user calls it.
    typed: PathBuf,
    /// Its name in the folder.
    name: PathBuf,
    rotation: Option<Rotation>,
    sink: Sink,
    /// The titles of the rows to come, with which each file begins.
    titles: Vec<u8>,
    /// SIGHUP.
    again: SignalFd,
}

impl Rows {
    /// Opens the file to append to it, and makes it if there is none. That is done without the capabilities that the run gives up
    /// later: what works now works after SIGHUP, too.
    ///
    /// # Errors
    /// It is no regular file, or we may not write to it or to its folder.
    pub(super) fn open(typed: &Path, rotation: Option<Rotation>) -> Result<Self> {
        let open = || {
            let (folder, name) = place(typed)?;
            let file = open_in(&folder, &name)?;
            // A full file has to get another name.
            if rotation.is_some() {
                nix::unistd::faccessat(&folder, ".", nix::unistd::AccessFlags::W_OK, AtFlags::AT_EACCESS)?;
            }
            Ok((folder, name, file))
        };
        let opened: io::Result<_> = confine::without_power(open)?;
        let (folder, name, file) = opened.map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let error = anyhow::Error::new(error).context(format!("open {}", typed.display()));
            if denied { hinted(error, OWNER) } else { error }
        })?;
        // Whoever started us with SIGHUP ignored wants nothing to come of it.
        let again = stop::not_ignored(&[Signal::SIGHUP]);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let again = SignalFd::with_flags(&again, flags).context("listen for SIGHUP")?;
        Ok(Self {
            folder,
            typed: typed.to_owned(),
            name,
            rotation,
            sink: Sink::new(file),
            titles: Vec::new(),
            again,
        })
    }

    /// The file that is open now.
    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// What the user calls it.
    pub(super) fn typed(&self) -> &Path {
        &self.typed
    }

    pub(super) fn folder(&self) -> Folder<'_> {
        Folder { descriptor: self.folder.as_fd(), renames: self.rotation.is_some() }
    }

    /// Becomes readable when [`Rows::look`] has something to do.
    pub(super) fn again(&self) -> BorrowedFd<'_> {
        self.again.as_fd()
    }

    /// Opens the file again, if SIGHUP came.
    ///
    /// # Errors
    /// As [`Rows::open`].
    pub(super) fn look(&mut self, next: &[u8]) -> Result<()> {
        let mut came = false;
        while matches!(self.again.read_signal(), Ok(Some(_))) {
            came = true;
        }
        if came { self.begin(next) } else { Ok(()) }
    }

    /// How many of these bytes go to the file that is open, as far as records end: `starts` are the places where they begin. Where
    /// the file is full, it gets its number first, and the next one begins.
    ///
    /// # Errors
    /// The files cannot get their numbers, or the next one cannot be made.
    pub(super) fn make_room(&mut self, bytes: &[u8], starts: &[usize]) -> Result<usize> {
        let Some(rotation) = self.rotation else { return Ok(bytes.len()) };
        let fitting = |held: u64| fitting(rotation.bytes.saturating_sub(held), bytes.len(), starts);
        let held = self.held()?;
        let fit = fitting(held);
        if fit > 0 {
            return Ok(fit);
        }
        // A file that holds nothing but titles takes a record of any size.
        if held > self.titles.len() as u64 {
            self.number(rotation.files)?;
            self.begin(bytes)?;
        }
        let first = starts.iter().copied().find(|&start| start > 0).unwrap_or(bytes.len());
        Ok(fitting(self.held()?).max(first))
    }

    /// Keeps the titles of the rows to come.
    pub(super) fn keep_titles(&mut self, titles: &[u8]) {
        titles.clone_into(&mut self.titles);
    }

    /// How much the file holds: others may write to it, too.
    fn held(&self) -> Result<u64> {
        let metadata = self.sink.metadata().with_context(|| format!("look at {}", self.typed.display()))?;
        Ok(metadata.size())
    }

    /// The file gets number 1, and each older one the next number; what then has a number too many goes. If the name is not our
    /// file's any more, somebody else did that.
    fn number(&self, files: NonZeroU32) -> Result<()> {
        let numbered = |number: u32| {
            let mut name = self.name.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        let Ok(ours) = self.sink.metadata() else { return Ok(()) };
        match fstatat(&self.folder, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if (found.st_dev, found.st_ino) == (ours.dev(), ours.ino()) => {}
            _ => return Ok(()),
        }
        for number in (0..files.get()).rev() {
            let (from, to) = (numbered(number), numbered(number + 1));
            match renameat(&self.folder, &from, &self.folder, &to) {
                Ok(()) => {}
                Err(Errno::ENOENT) if number > 0 => {}
                Err(error) => {
                    let what = format!(
                        "rotate {}: rename {} to {}",
                        self.typed.display(),
                        from.display(),
                        to.display()
                    );
                    return Err(anyhow::Error::new(error).context(what));
                }
            }
        }
        Ok(())
    }

    /// Goes on in the file that has the name now, or is made; it begins with the titles, unless these are what is written next.
    fn begin(&mut self, next: &[u8]) -> Result<()> {
        let what = || format!("open {} again", self.typed.display());
        self.sink = Sink::new(open_in(&self.folder, &self.name).with_context(what)?);
        if self.titles.is_empty() || next.starts_with(&self.titles) || self.held()? > 0 {
            return Ok(());
        }
        self.sink.write(&self.titles, &[0]).1.with_context(|| format!("write to {}", self.typed.display()))
    }
}

const OWNER: &str = "the user who runs netbcc must own it, or be let write there: a run gives up what lets root write anywhere";

/// How many of `len` bytes have room, as far as records end.
fn fitting(room: u64, len: usize, starts: &[usize]) -> usize {
    match usize::try_from(room) {
        Ok(room) if room < len => sink::last_border(starts, room).unwrap_or(0),
        _ => len,
    }
}

/// The folder and the name of a file, links followed, also where there is no file yet.
fn place(typed: &Path) -> io::Result<(File, PathBuf)> {
    let whole = match typed.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = typed.file_name().ok_or(error)?;
            let folder = typed.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or(Path::new(".")).canonicalize()?.join(name)
        }
        found => found?,
    };
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    Ok((File::open(folder)?, PathBuf::from(name)))
}

/// Opens a regular file of this name to append to it.
fn open_in(folder: &File, name: &Path) -> io::Result<File> {
    // A pipe or a device must not keep us.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    // Who connects where is not everybody's business.
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP;
    let irregular = || io::Error::other("it is no regular file");
    match openat(folder, name, flags, mode) {
        Ok(file) => {
            let file = File::from(file);
            if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
        }
        // A pipe that nobody reads.
        Err(Errno::ENXIO) => Err(irregular()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder that goes when the test ends.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("netbcc-file-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// Names and texts of all files, in order.
        fn all(&self) -> Vec<(String, String)> {
            let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
            let mut all: Vec<(String, String)> = files
                .map(|path| {
                    (path.file_name().unwrap().to_string_lossy().into(), fs::read_to_string(path).unwrap())
                })
                .collect();
            all.sort();
            all
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Writes these records as [`super::super::Out`] does, the first of them as titles.
    fn write(rows: &mut Rows, records: &[&str]) {
        let mut bytes = records.concat().into_bytes();
        let mut starts: Vec<usize> =
            records.iter().scan(0, |at, record| Some(std::mem::replace(at, *at + record.len()))).collect();
        while !bytes.is_empty() {
            let end = rows.make_room(&bytes, &starts).unwrap();
            assert!(end > 0);
            let (written, result) = rows.sink().write(&bytes[..end], &starts);
            result.unwrap();
            rows.keep_titles(records[0].as_bytes());
            bytes.drain(..written);
            starts.retain(|&start| start >= written);
            for start in &mut starts {
                *start -= written;
            }
        }
    }

    fn files(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn full_files_get_numbers_and_each_begins_with_titles() {
        let folder = Temporary::new("numbers");
        let rotation = Rotation { bytes: 12, files: NonZeroU32::new(2).unwrap() };
        let mut rows = Rows::open(&folder.0.join("r"), Some(rotation)).unwrap();
        write(&mut rows, &["T\n", "one\n", "two\n", "three\n"]);
        assert_eq!(folder.all(), files(&[("r", "T\nthree\n"), ("r.1", "T\none\ntwo\n")]));
        // Larger than a file.
        write(&mut rows, &["T\n", "0123456789abcdef\n", "four\n"]);
        assert_eq!(
            folder.all(),
            files(&[("r", "T\nfour\n"), ("r.1", "T\n0123456789abcdef\n"), ("r.2", "T\nthree\nT\n")])
        );
        // The oldest goes.
        write(&mut rows, &["T\n", "five\n", "six\n"]);
        assert_eq!(folder.all()[2], ("r.2".into(), "T\n0123456789abcdef\n".into()));
    }

    #[test]
    fn what_somebody_else_put_in_its_place_gets_no_number() {
        let folder = Temporary::new("place");
        let rotation = Rotation { bytes: 8, files: NonZeroU32::new(3).unwrap() };
        let path = folder.0.join("r");
        let mut rows = Rows::open(&path, Some(rotation)).unwrap();
        write(&mut rows, &["one\n", "two\n"]);
        fs::rename(&path, folder.0.join("taken")).unwrap();
        fs::write(&path, "X\n").unwrap();
        write(&mut rows, &["three\n"]);
        assert_eq!(folder.all(), files(&[("r", "X\nthree\n"), ("taken", "one\ntwo\n")]));
    }

    #[test]
    fn only_regular_files_are_taken_and_nothing_keeps_us() {
        let folder = Temporary::new("kinds");
        let refused = |path: &Path| format!("{:#}", Rows::open(path, None).err().expect("it is refused"));
        nix::unistd::mkfifo(&folder.0.join("pipe"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("nowhere/at/all", folder.0.join("link")).unwrap();
        for (path, why) in [
            (folder.0.join("pipe"), "it is no regular file"),
            (PathBuf::from("/dev/null"), "it is no regular file"),
            (folder.0.clone(), "Is a directory"),
            (folder.0.join("none/r"), "No such file or directory"),
            (folder.0.join("link"), "Too many levels of symbolic links"),
        ] {
            let sentence = refused(&path);
            assert!(sentence.starts_with(&format!("open {}: {why}", path.display())), "{sentence}");
        }
    }
}
