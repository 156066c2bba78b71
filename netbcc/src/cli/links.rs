//! `netbcc install-links`: one symbolic link per tool, all or none.
//!
//! Must never happen here: touching anything that is not a link to netbcc.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::args::parse_args;
use super::multicall::called;
use super::verbs;
use crate::error::usage;
use crate::out::escaped;
use crate::tool::Entry;

/// Makes the links, pointing at this very binary.
pub(super) fn install(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = parse_args(verbs::links(), args)? else { return Ok(()) };
    let text = |id: &str| matches.get_one::<String>(id).cloned().unwrap_or_default();
    let dir = matches.get_one::<PathBuf>("dir").cloned().unwrap_or_default();
    let target = std::env::current_exe().context("find this binary")?;
    link_all(&dir, &text("prefix"), &text("suffix"), &target, tools)
}

fn link_all(dir: &Path, prefix: &str, suffix: &str, target: &Path, tools: &'static [Entry]) -> Result<()> {
    let mut links = Vec::new();
    for entry in tools {
        let name = format!("{prefix}{}{suffix}", entry.spec.name);
        if called(&name, tools).is_none_or(|found| found.spec.name != entry.spec.name) {
            return Err(usage(format!(
                "a link named '{}' would not be known as {}: the prefix can be 'netbcc-', the suffix '-bpfcc' or '.py'",
                escaped(&name),
                entry.spec.name
            )));
        }
        let path = dir.join(name);
        links.push(Link { old: old_target(&path, target)?, path });
    }
    let made = make_folder(dir)?;
    for (done, link) in links.iter().enumerate() {
        if let Err(err) = link.point_to(target) {
            for link in &links[..done] {
                link.restore();
            }
            remove_folders(&made);
            return Err(err);
        }
    }
    Ok(())
}

/// Makes the folder and those above it that are missing; answers which it made, the lowest first.
fn make_folder(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && fs::symlink_metadata(above).is_err())
        .map(Path::to_owned)
        .collect();
    let shown = || escaped(dir.as_os_str().as_encoded_bytes());
    if let Err(err) = fs::create_dir_all(dir) {
        remove_folders(&missing);
        return Err(err).with_context(|| format!("make the folder {}", shown()));
    }
    if !dir.is_dir() {
        bail!("{} is not a directory", shown());
    }
    Ok(missing)
}

/// Undoes `make_folder`, after an error that matters more than one of this. What is not empty stays.
fn remove_folders(made: &[PathBuf]) {
    for dir in made {
        let _ = fs::remove_dir(dir);
    }
}

/// A link to be made, and what stood there before.
struct Link {
    path: PathBuf,
    old: Option<PathBuf>,
}

impl Link {
    fn point_to(&self, target: &Path) -> Result<()> {
        let shown = || escaped(self.path.as_os_str().as_encoded_bytes());
        if self.old.is_none() {
            return symlink(target, &self.path).with_context(|| format!("link {}", shown()));
        }
        // By renaming, so that at no moment the name is missing.
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(format!(".netbcc-{}", std::process::id()));
        symlink(target, &fresh).with_context(|| format!("link {}", shown()))?;
        fs::rename(&fresh, &self.path).with_context(|| format!("replace {}", shown())).inspect_err(|_| {
            // The error is told already; a left-over link would only be one more.
            let _ = fs::remove_file(&fresh);
        })
    }

    /// Undoes `point_to`, after an error that matters more than one of this.
    fn restore(&self) {
        let _ = match &self.old {
            Some(old) => self.point_to(old),
            None => fs::remove_file(&self.path).map_err(Into::into),
        };
    }
}

/// What the link at `path` points to, if it may be replaced; None where nothing is.
fn old_target(path: &Path, ours: &Path) -> Result<Option<PathBuf>> {
    let shown = || escaped(path.as_os_str().as_encoded_bytes());
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).with_context(|| format!("look at {}", shown())),
        Ok(meta) if !meta.is_symlink() => bail!("{} exists and is not a link to netbcc", shown()),
        Ok(_) => {
            let target = fs::read_link(path).with_context(|| format!("read the link {}", shown()))?;
            let name = target.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            if target != ours && name != "netbcc" && !name.starts_with("netbcc-") {
                bail!("{} is a link to something else than netbcc", shown());
            }
            Ok(Some(target))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;
    use crate::demo::TOOLS;

    /// A folder that goes away with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("netbcc-links-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Dir(path)
        }

        /// Links and where they point, plain files with an empty target.
        fn content(&self) -> Vec<(String, String)> {
            let mut all: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let target = fs::read_link(entry.path()).unwrap_or_default();
                    (entry.file_name().into_string().unwrap(), target.display().to_string())
                })
                .collect();
            all.sort();
            all
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn install(dir: &Dir, prefix: &str, suffix: &str) -> Result<(), String> {
        link_all(&dir.0, prefix, suffix, Path::new("/opt/netbcc"), TOOLS).map_err(|err| format!("{err:#}"))
    }

    fn pairs(names: [&str; 2]) -> Vec<(String, String)> {
        names.map(|name| (name.to_owned(), "/opt/netbcc".to_owned())).into()
    }

    #[test]
    fn every_tool_gets_a_link_and_a_second_time_changes_nothing() {
        let dir = Dir::new("twice");
        for _ in 0..2 {
            install(&dir, "", "").unwrap();
            assert_eq!(dir.content(), pairs(["tcpflows", "tcpload"]));
        }
    }

    #[test]
    fn a_link_to_an_older_netbcc_is_replaced() {
        let dir = Dir::new("older");
        symlink("/gone/netbcc", dir.0.join("tcpload")).unwrap();
        install(&dir, "", "").unwrap();
        assert_eq!(dir.content(), pairs(["tcpflows", "tcpload"]));
    }

    #[test]
    fn prefix_and_suffix_must_be_known_again() {
        let dir = Dir::new("affixes");
        install(&dir, "netbcc-", "").unwrap();
        assert_eq!(dir.content(), pairs(["netbcc-tcpflows", "netbcc-tcpload"]));
        let dir = Dir::new("affixes2");
        install(&dir, "", "-bpfcc").unwrap();
        assert_eq!(dir.content(), pairs(["tcpflows-bpfcc", "tcpload-bpfcc"]));
        for (prefix, suffix) in [("my-", ""), ("", ".exe"), ("../", ""), ("/", "")] {
            assert!(install(&dir, prefix, suffix).unwrap_err().contains("would not be known"));
        }
    }

    #[test]
    fn strangers_are_never_touched_and_then_nothing_is_made() {
        for stranger in ["file", "link", "folder"] {
            let dir = Dir::new(stranger);
            let path = dir.0.join("tcpload");
            match stranger {
                "file" => fs::write(&path, "x").unwrap(),
                "link" => symlink("/usr/sbin/tcpload-bpfcc", &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let before = dir.content();
            assert!(install(&dir, "", "").is_err());
            assert_eq!(dir.content(), before);
        }
    }

    #[test]
    fn a_missing_folder_is_made_and_what_is_none_is_named() {
        let dir = Dir::new("made");
        let deep = Dir(dir.0.join("a/b"));
        install(&deep, "", ".py").unwrap();
        assert_eq!(deep.content(), pairs(["tcpflows.py", "tcpload.py"]));
        let err = link_all(Path::new("/dev/null"), "", "", Path::new("/opt/netbcc"), TOOLS).unwrap_err();
        assert!(format!("{err:#}").contains("/dev/null"), "{err:#}");
        // Nothing is left of a folder that could not be made in the end.
        let file = dir.0.join("file");
        fs::write(&file, "").unwrap();
        let err = link_all(&file.join("x/y"), "", "", Path::new("/opt/netbcc"), TOOLS).unwrap_err();
        assert!(format!("{err:#}").contains("file/x/y"), "{err:#}");
        // Nor of one for links of names that nobody would know.
        assert!(link_all(&dir.0.join("c"), "my-", "", Path::new("/opt/netbcc"), TOOLS).is_err());
        assert!(!dir.0.join("c").exists());
    }

    #[test]
    fn what_was_made_is_undone() {
        let dir = Dir::new("undo");
        let made = Link { path: dir.0.join("new"), old: None };
        symlink("/gone/netbcc", dir.0.join("old")).unwrap();
        let replaced = Link { path: dir.0.join("old"), old: Some("/gone/netbcc".into()) };
        let before = dir.content();
        for link in [&made, &replaced] {
            link.point_to(Path::new("/opt/netbcc")).unwrap();
        }
        assert_eq!(dir.content(), pairs(["new", "old"]));
        for link in [&made, &replaced] {
            link.restore();
        }
        assert_eq!(dir.content(), before);
    }
}
