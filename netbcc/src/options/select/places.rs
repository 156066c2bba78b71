//! Cgroups of version 2, by their folders or by the container that has them.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use netbcc_common::filter::GROUPS;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::{CGROUP, CONTAINER, Word, guess, list};
use crate::context::find;
use crate::error::usage;
use crate::words::nearest_of;

/// Cgroups or containers as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceList(pub(super) Vec<Word<String>>);

/// Parses a list of folders, or of names of containers.
pub fn place_list(text: &str) -> Result<PlaceList, String> {
    list(text, |word| Ok(word.to_owned())).map(PlaceList)
}

/// A cgroup, which stands for all that are in it.
#[derive(Clone, Debug)]
pub struct Group {
    /// Whether what is in it is left out.
    pub excludes: bool,
    /// How a sentence names it.
    pub called: String,
    /// Its number in the kernel.
    pub id: u64,
    /// How deep it lies, if that can be seen from here.
    pub level: Option<u32>,
    folder: Rc<File>,
    /// Where the kernel tells whether a process is in it.
    events: Option<Rc<File>>,
}

impl Group {
    /// The open folder.
    pub fn fd(&self) -> RawFd {
        self.folder.as_raw_fd()
    }

    /// Where the kernel tells whether a process is in it.
    pub fn events(&self) -> Option<&File> {
        self.events.as_deref()
    }

    fn open(path: &Path, called: String, excludes: bool) -> Result<Self> {
        let context = || path.display().to_string();
        let folder = File::open(path).with_context(context)?;
        let id = folder.metadata().with_context(context)?.ino();
        let level = level(path);
        let events = File::open(path.join("cgroup.events")).ok().map(Rc::new);
        Ok(Self { excludes, called, id, level, folder: Rc::new(folder), events })
    }
}

/// How deep a folder lies in its tree, if that can be seen up to its root.
fn level(path: &Path) -> Option<u32> {
    /// The root of kernfs has this number (fs/kernfs/dir.c).
    const ROOT: u64 = 1;
    let path = fs::canonicalize(path).ok()?;
    let tree = fs::metadata(&path).ok()?.dev();
    let folders = path.ancestors().map_while(|above| fs::metadata(above).ok());
    (0..)
        .zip(folders.take_while(|folder| folder.dev() == tree))
        .find(|(_, folder)| folder.ino() == ROOT)
        .map(|(depth, _)| depth)
}

/// The cgroups that are named.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Each of them; of what is in several, those that exclude decide.
    pub named: Vec<Group>,
    /// Whether what is in none of them is kept.
    pub others: bool,
}

impl Groups {
    /// `None`: everything is kept.
    ///
    /// # Errors
    /// One of them is not there, or nothing is kept (errors of usage).
    pub(super) fn of(cgroups: &[Word<String>], containers: &[Word<String>]) -> Result<Option<Self>> {
        let option = match (cgroups.is_empty(), containers.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => return Err(usage(format!("--{CGROUP} cannot be used with --{CONTAINER}"))),
            (true, false) => CONTAINER,
            (false, true) => CGROUP,
        };
        let root = find::root().with_context(|| format!("--{option}"))?;
        let mut named = Vec::new();
        for word in cgroups {
            let path = folder(&root, &word.what)?;
            named.push(Group::open(&path, format!("cgroup {}", word.what), word.excludes)?);
        }
        for word in containers {
            for path in find::container(&word.what).with_context(|| format!("--{CONTAINER}"))? {
                let called = format!("container '{}'", word.what);
                named.push(Group::open(&path, called, word.excludes)?);
            }
        }
        // Everything is in the root.
        if named.iter().any(|group| group.excludes && group.level == Some(0)) {
            return Err(usage(format!("--{CGROUP}: the list keeps no cgroup")));
        }
        let others = named.iter().all(|group| group.excludes || group.level == Some(0))
            || named.iter().any(|group| group.level == Some(0));
        if others {
            named.retain(|group| group.excludes);
        }
        if named.len() > GROUPS {
            return Err(usage(format!("--{option}: more than {GROUPS} cgroups are named")));
        }
        Ok((!named.is_empty()).then_some(Self { named, others }))
    }
}

/// The folder of a cgroup: its path, or as the column `cgroup` and systemd have it, from the root of the tree.
fn folder(root: &Path, word: &str) -> Result<PathBuf> {
    let typed = PathBuf::from(word);
    let below = root.join(word.trim_start_matches('/'));
    let kind = |path: &Path| statfs(path).ok().map(|fs| fs.filesystem_type());
    for path in [&typed, &below] {
        if path.is_dir() && kind(path) == Some(CGROUP2_SUPER_MAGIC) {
            return Ok(path.clone());
        }
    }
    let why = match kind(&typed) {
        Some(CGROUP_SUPER_MAGIC) => {
            format!(
                "{word} is a cgroup of version 1, which cannot be asked for; those of version 2 are below {}",
                root.display()
            )
        }
        Some(BPF_FS_MAGIC) => {
            format!("{word} is a pinned map, or where those are: did you mean --cgroupmap?")
        }
        Some(_) => format!("{word} is no cgroup of version 2; those are below {}", root.display()),
        None => format!("there is no cgroup {word}{}", guess(near(root, &typed, &below))),
    };
    Err(usage(format!("--{CGROUP}: {why}")))
}

/// The path that was meant, where one word of it is wrong.
fn near(root: &Path, typed: &Path, below: &Path) -> Option<String> {
    let is_whole = typed.starts_with(root);
    let path = if is_whole { typed } else { below };
    let there = path.ancestors().find(|path| path.is_dir())?;
    let mut rest = path.strip_prefix(there).ok()?.components();
    let wrong = rest.next()?.as_os_str().to_str()?;
    let names: Vec<String> = fs::read_dir(there)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let near = nearest_of(wrong, names.iter().map(String::as_str), 0)?;
    let right: PathBuf = there.join(near).components().chain(rest).collect();
    let meant = right.is_dir().then_some(right)?;
    let shown = if is_whole { meant } else { Path::new("/").join(meant.strip_prefix(root).ok()?) };
    Some(shown.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_not_there_is_refused_with_the_nearest() {
        let root = std::env::temp_dir().join(format!("netbcc-places-{}", std::process::id()));
        fs::create_dir_all(root.join("system.slice/nginx.service")).unwrap();
        let near = |typed: &str| near(&root, Path::new(typed), &root.join(typed.trim_start_matches('/')));
        assert_eq!(near("/system.slice/ngnix.service").as_deref(), Some("/system.slice/nginx.service"));
        assert_eq!(near("system.slic/nginx.service").as_deref(), Some("/system.slice/nginx.service"));
        let whole = root.join("system.slice/nginx.servce");
        assert_eq!(
            near(whole.to_str().unwrap()),
            root.join("system.slice/nginx.service").to_str().map(Into::into)
        );
        assert_eq!(near("/somewhere/else"), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
