//! Which cgroups a container has: what a filter by container compares with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::cgroup::{Container, Place};
use super::pods::Pods;
use crate::error::{hinted, usage};
use crate::words::nearest_of;

/// More cgroups are not looked at.
const MOST: usize = 1 << 17;
/// Nor deeper ones.
const DEEPEST: usize = 32;

/// The folder of the cgroup of version 2 that the container `wanted` has; more than one where a runtime made several beside
/// each other. What is in a container is in its folder, containers in it as well. It is named by its id, or by the first
/// digits that no other one has, or by the name that the column `container` shows.
///
/// This is how it is now: a container that is started anew has another cgroup.
///
/// # Errors
/// No container is called that, or several are (an error of usage); or there is no cgroup of version 2.
pub fn container(wanted: &str) -> Result<Vec<PathBuf>> {
    below(&root()?, wanted, &mut Pods::new(Path::new("/var/log")))
}

/// Where version 2 is mounted.
///
/// # Errors
/// It is mounted nowhere.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    root_in(&mounts).ok_or_else(|| {
        hinted(
            usage("no cgroup of version 2 is mounted, and one of version 1 cannot be asked for"),
            "--netns and --pid work everywhere",
        )
    })
}

/// Where a list of mounts has version 2.
fn root_in(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find(|words| words.get(2) == Some(&"cgroup2"))?.get(1).map(PathBuf::from)
}

fn below(root: &Path, wanted: &str, pods: &mut Pods) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    // Each with the container that it is in, if that is a wanted one.
    let mut rest = vec![(root.to_owned(), 0, None)];
    let mut count = 0;
    while let Some((folder, depth, above)) = rest.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            count += 1;
            if count > MOST {
                return Err(anyhow!("container '{wanted}': more than {MOST} cgroups"));
            }
            let path = entry.path();
            let place = Place::of(path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes());
            let mut of = None;
            if let Some(container) = place.container {
                of = key(&container, wanted, pods);
                match &of {
                    // Its folder says it all.
                    Some(key) if above.as_ref() == Some(key) => {}
                    Some(key) => found.entry(key.clone()).or_default().push(path.clone()),
                    None => {
                        others.insert(name(&container, pods));
                    }
                }
            }
            if depth < DEEPEST {
                rest.push((path, depth + 1, of.or_else(|| above.clone())));
            }
        }
    }
    // An id is exact; else digits must be those of one container.
    if let Some(folders) = found.remove(wanted) {
        return Ok(folders);
    }
    let keys: Vec<&str> = found.keys().map(|key| short(key)).collect();
    match &keys[..] {
        [] => {
            let near = nearest_of(wanted, others.iter().map(String::as_str), 0);
            let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            Err(usage(format!(
                "no container is called '{wanted}' (-o +container shows what they are called){near}"
            )))
        }
        [_] => Ok(found.into_values().flatten().collect()),
        keys => Err(usage(format!("several containers are called '{wanted}': {}", keys.join(", ")))),
    }
}

/// The first digits of an id.
fn short(id: &str) -> &str {
    id.get(..super::SHORT_ID).unwrap_or(id)
}

/// What the column `container` shows.
fn name(container: &Container, pods: &mut Pods) -> String {
    match container {
        Container::Name(name) => name.clone(),
        Container::Id(id) => pods.container(id, 0).unwrap_or_else(|| short(id)).to_owned(),
    }
}

/// What tells this container from others, if it may be the wanted one.
fn key(container: &Container, wanted: &str, pods: &mut Pods) -> Option<String> {
    match container {
        Container::Name(name) => (name == wanted).then(|| name.clone()),
        // The folders of logs are read once: no time passes.
        Container::Id(id) => {
            let is_it = !wanted.is_empty() && id.starts_with(wanted) || pods.container(id, 0) == Some(wanted);
            is_it.then(|| id.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_by_its_id_its_first_digits_and_its_name() {
        let root = std::env::temp_dir().join(format!("netbcc-find-{}", std::process::id()));
        let [one, two, inner] = ["3f4e9c1d", "3f4e0000", "aaaa0000"].map(|start| start.repeat(8));
        for path in [
            format!("docker/{one}/system.slice/x.service"),
            format!("system.slice/docker-{two}.scope/{inner}"),
            "machine.slice/machine-web.scope".to_owned(),
            "system.slice/x.service".to_owned(),
        ] {
            fs::create_dir_all(root.join("groups").join(path)).unwrap();
        }
        fs::create_dir_all(root.join("log/containers")).unwrap();
        fs::write(root.join(format!("log/containers/p_n_shop-{two}.log")), "").unwrap();
        let groups = root.join("groups");
        let found = |wanted: &str| below(&groups, wanted, &mut Pods::new(&root.join("log")));
        let is_at = |wanted: &str, path: &str| assert_eq!(found(wanted).unwrap(), [groups.join(path)]);
        is_at(&one, &format!("docker/{one}"));
        is_at("3f4e9", &format!("docker/{one}"));
        // The one in it is another, and yet in its folder.
        is_at("shop", &format!("system.slice/docker-{two}.scope"));
        is_at("aaaa", &format!("system.slice/docker-{two}.scope/{inner}"));
        is_at("web", "machine.slice/machine-web.scope");
        let refused = |wanted: &str| found(wanted).unwrap_err().to_string();
        assert_eq!(refused("3f4e"), "several containers are called '3f4e': 3f4e00003f4e, 3f4e9c1d3f4e");
        for wanted in ["", "docker", "x.service", "beef"] {
            assert!(refused(wanted).starts_with("no container is called"), "{wanted}");
        }
        for (wanted, near) in [("wep", "web"), ("shopp", "shop"), ("3f4e9c1d3f4f", "3f4e9c1d3f4e")] {
            assert!(refused(wanted).ends_with(&format!("; did you mean '{near}'?")), "{}", refused(wanted));
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn version_2_is_found_where_it_is_mounted() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root_in(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root_in("cgroup /x cgroup rw 0 0\n"), None);
    }
}
