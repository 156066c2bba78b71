//! Names of Kubernetes' pods and containers, from the links and folders that the kubelet makes for logs, as far as
//! everybody may read them:
//!
//! ```text
//! /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log
//! /var/log/pods/NAMESPACE_POD_UID/
//! ```
//!
//! No runtime and no API server is asked.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A name that is not known is looked for no more often than that.
const PAUSE_NS: u64 = 1_000_000_000;
/// So many names are taken from a folder at most.
const MOST: usize = 1 << 14;

/// What is known of pods.
pub(super) struct Pods {
    logs: PathBuf,
    /// The names of containers, by their ids.
    containers: HashMap<String, String>,
    /// Namespace and name, by uid.
    places: HashMap<String, (String, String)>,
    /// When the folders were read last.
    read_ns: Option<u64>,
}

impl Pods {
    pub(super) fn new(logs: &Path) -> Self {
        Self { logs: logs.to_owned(), containers: HashMap::new(), places: HashMap::new(), read_ns: None }
    }

    /// The name of a container.
    pub(super) fn container(&mut self, id: &str, now_ns: u64) -> Option<&str> {
        if !self.containers.contains_key(id) {
            self.read(now_ns);
        }
        self.containers.get(id).map(String::as_str)
    }

    /// Namespace and name of a pod.
    pub(super) fn pod(&mut self, uid: &str, now_ns: u64) -> Option<(&str, &str)> {
        if !self.places.contains_key(uid) {
            self.read(now_ns);
        }
        self.places.get(uid).map(|(namespace, name)| (namespace.as_str(), name.as_str()))
    }

    fn read(&mut self, now_ns: u64) {
        if self.read_ns.is_some_and(|read_ns| now_ns.saturating_sub(read_ns) < PAUSE_NS) {
            return;
        }
        self.read_ns = Some(now_ns);
        self.containers = names(&self.logs.join("containers")).filter_map(|name| container(&name)).collect();
        self.places = names(&self.logs.join("pods")).filter_map(|name| pod(&name)).collect();
    }
}

/// What a folder has; nothing where it is not there, or not for us.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).take(MOST)
}

/// `POD_NAMESPACE_CONTAINER-ID.log`: a container's id and name. Only names of Kubernetes are before it, without underscores.
fn container(file: &str) -> Option<(String, String)> {
    let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let name = names.splitn(3, '_').nth(2)?;
    Some((id.to_owned(), name.to_owned()))
}

/// `NAMESPACE_POD_UID`.
fn pod(folder: &str) -> Option<(String, (String, String))> {
    let mut words = folder.split('_');
    let (namespace, name, uid) = (words.next()?, words.next()?, words.next()?);
    words.next().is_none().then(|| (uid.to_owned(), (namespace.to_owned(), name.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};

    use super::*;

    #[test]
    fn names_are_those_of_the_kubelets_links() {
        assert_eq!(
            container("web-7d4_shop_nginx-proxy-3f4e.log"),
            Some(("3f4e".into(), "nginx-proxy".into()))
        );
        assert_eq!(pod("shop_web-7d4_0b1c-2d"), Some(("0b1c-2d".into(), ("shop".into(), "web-7d4".into()))));
        for wrong in ["x", "a_b.log", "a_b_c.log", "a_b_c-", "_"] {
            assert_eq!(container(wrong), None, "{wrong}");
        }
        for wrong in ["x", "a_b", "a_b_c_d"] {
            assert_eq!(pod(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn new_names_are_found_and_looked_for_once_a_second() {
        let logs = std::env::temp_dir().join(format!("netbcc-pods-{}", std::process::id()));
        let mut pods = Pods::new(&logs);
        assert_eq!(pods.container("3f", 0), None);
        create_dir_all(logs.join("containers")).unwrap();
        create_dir_all(logs.join("pods/shop_web_0b")).unwrap();
        File::create(logs.join("containers/web_shop_nginx-3f.log")).unwrap();
        assert_eq!(pods.container("3f", PAUSE_NS - 1), None);
        assert_eq!(pods.container("3f", PAUSE_NS), Some("nginx"));
        assert_eq!(pods.pod("0b", PAUSE_NS), Some(("shop", "web")));
        fs::remove_dir_all(&logs).unwrap();
        assert_eq!(pods.pod("0b", 9 * PAUSE_NS), Some(("shop", "web")), "what is known stays");
        assert_eq!(pods.pod("0c", 9 * PAUSE_NS), None);
    }
}
