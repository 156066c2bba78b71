//! Which cgroups a container has: what a filter by container compares with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::cgroup::{Container, Place};
use super::pods::Pods;
use crate::error::{hinted, usage};

/// More cgroups are not looked at.
const MOST: usize = 1 << 17;
/// Nor deeper ones.
const DEEPEST: usize = 32;

/// The cgroups of version 2 that the container `wanted` has, by the numbers that the kernel gives them
/// (`bpf_get_current_cgroup_id`, the inode numbers of their folders): its own and those in it, but not those of containers in
/// it. It is named by its id, or by the first digits that no other one has, or by the name that the column `container` shows.
///
/// This is how it is now: a container that is started anew has another cgroup.
///
/// # Errors
/// No container is called that, or several are (an error of usage); or there is no cgroup of version 2.
pub fn container(wanted: &str) -> Result<Vec<u64>> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let root = root(&mounts).ok_or_else(|| {
        hinted(
            anyhow!("container '{wanted}': no cgroup of version 2 is mounted"),
            "mount -t cgroup2 cgroup2 DIR",
        )
    })?;
    below(&root, wanted, &mut Pods::new(Path::new("/var/log")))
}

/// Where a list of mounts has version 2.
fn root(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find(|words| words.get(2) == Some(&"cgroup2"))?.get(1).map(PathBuf::from)
}

fn below(root: &Path, wanted: &str, pods: &mut Pods) -> Result<Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut rest = vec![(root.to_owned(), 0)];
    let mut count = 0;
    while let Some((folder, depth)) = rest.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            count += 1;
            if count > MOST {
                return Err(anyhow!("container '{wanted}': more than {MOST} cgroups"));
            }
            let path = entry.path();
            let place = Place::of(path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes());
            if let Some(key) = place.container.and_then(|container| key(&container, wanted, pods)) {
                found.entry(key).or_default().push(entry.ino());
            }
            if depth < DEEPEST {
                rest.push((path, depth + 1));
            }
        }
    }
    // An id is exact; else digits must be those of one container.
    if let Some(cgroups) = found.remove(wanted) {
        return Ok(cgroups);
    }
    let keys: Vec<&str> = found.keys().map(|key| key.get(..super::SHORT_ID).unwrap_or(key)).collect();
    match &keys[..] {
        [] => Err(usage(format!(
            "no container is called '{wanted}' (-o +container shows what they are called)"
        ))),
        [_] => Ok(found.into_values().flatten().collect()),
        keys => Err(usage(format!("several containers are called '{wanted}': {}", keys.join(", ")))),
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
    use std::os::unix::fs::MetadataExt as _;

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
        let found = |wanted: &str| {
            let mut inodes = below(&groups, wanted, &mut Pods::new(&root.join("log")))?;
            inodes.sort_unstable();
            Ok::<_, anyhow::Error>(inodes)
        };
        let inodes = |paths: &[String]| {
            let mut inodes: Vec<u64> =
                paths.iter().map(|path| fs::metadata(groups.join(path)).unwrap().ino()).collect();
            inodes.sort_unstable();
            inodes
        };
        let whole =
            ["", "/system.slice", "/system.slice/x.service"].map(|below| format!("docker/{one}{below}"));
        assert_eq!(found(&one).unwrap(), inodes(&whole));
        assert_eq!(found("3f4e9").unwrap(), inodes(&whole));
        let outer = [format!("system.slice/docker-{two}.scope")];
        assert_eq!(found("shop").unwrap(), inodes(&outer), "the one in it is another");
        assert_eq!(found("aaaa").unwrap().len(), 1);
        assert_eq!(found("web").unwrap(), inodes(&["machine.slice/machine-web.scope".to_owned()]));
        let refused = |wanted: &str| found(wanted).unwrap_err().to_string();
        assert_eq!(refused("3f4e"), "several containers are called '3f4e': 3f4e00003f4e, 3f4e9c1d3f4e");
        for wanted in ["", "docker", "x.service", "beef"] {
            assert!(refused(wanted).starts_with("no container is called"), "{wanted}");
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn version_2_is_found_where_it_is_mounted() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root("cgroup /x cgroup rw 0 0\n"), None);
    }
}
