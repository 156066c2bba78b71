//! What a cgroup's path says: which container it is, of which pod, under which unit of systemd.
//!
//! The layouts, each with a test of its name below. `ID` is 64 hexadecimal digits, `UID` a pod's.
//!
//! ```text
//! docker      /docker/ID                                          /system.slice/docker-ID.scope
//! containerd  /NAMESPACE/ID                                       /system.slice/nerdctl-ID.scope
//! podman      /libpod_parent/libpod-ID[/container]                /machine.slice/libpod-ID.scope[/container]
//!             /user.slice/…/user@UID.service/user.slice/libpod-ID.scope, /system.slice/X.service/libpod-payload-ID
//! Kubernetes  /kubepods/[burstable|besteffort]/podUID/ID          with cgroupfs; cri-o's: crio-ID
//!             /kubepods.slice/kubepods[-QOS].slice/kubepods[-QOS]-podU_I_D.slice/[cri-containerd|crio|docker]-ID.scope
//!             /system.slice/containerd.service/kubepods-QOS-podU_I_D.slice:cri-containerd:ID
//! nspawn      /machine.slice/systemd-nspawn@NAME.service[/payload] /machine.slice/machine-NAME.scope
//! LXC         /lxc.payload.NAME                                   /lxc/NAME
//! systemd     /system.slice/X.service: a unit, and no container
//! ```
//!
//! Version 1 has the same paths, once per hierarchy. Of containers in a container the innermost is told. Whoever may make
//! cgroups chooses their names, so this is a hint where a user or a container may.
//!
//! Lives here: text. Must never live here: where it comes from.

/// What a path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The container.
    pub container: Option<Container>,
    /// The pod's uid in Kubernetes.
    pub pod_uid: Option<String>,
    /// The innermost unit of systemd that is a service or a scope, outside of the container.
    pub unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// A runtime's number for it.
    Id(String),
    /// A name that is its only one.
    Name(String),
}

impl Place {
    /// What this path says.
    pub fn of(path: &[u8]) -> Self {
        let mut place = Self::default();
        let mut above = "";
        for segment in path.split(|&byte| byte == b'/').filter_map(|segment| str::from_utf8(segment).ok()) {
            if let Some(uid) = pod_uid(segment) {
                place.pod_uid = Some(uid);
            }
            if let Some(container) = container(segment, above) {
                place.container = Some(container);
            } else if place.container.is_none() && is_unit(segment) {
                place.unit = Some(segment.to_owned());
            }
            above = segment;
        }
        place
    }
}

/// The paths that a process's `cgroup` file has, the most telling hierarchy first: version 2, unless all is in its root, then
/// systemd's own, then the controllers'.
pub(super) fn paths(text: &[u8]) -> Vec<&[u8]> {
    let mut paths: Vec<(u8, &[u8])> = text.split(|&byte| byte == b'\n').filter_map(path).collect();
    paths.sort_by_key(|(rank, path)| (*path == b"/", *rank));
    paths.into_iter().map(|(_, path)| path).collect()
}

/// `HIERARCHY:CONTROLLERS:PATH`, with a rank: lower ones tell more.
fn path(line: &[u8]) -> Option<(u8, &[u8])> {
    let mut words = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (words.next()?, words.next()?, words.next()?);
    let rank = match controllers {
        b"" => 0,
        b"name=systemd" => 1,
        b"memory" => 2,
        b"pids" => 3,
        _ => 4,
    };
    Some((rank, path.strip_suffix(b" (deleted)").unwrap_or(path)))
}

fn container(segment: &str, above: &str) -> Option<Container> {
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    // The systemd form for runtimes that do not speak to systemd: SLICE:RUNTIME:ID.
    let bare = bare.rsplit(':').next().unwrap_or(bare);
    if is_id(bare) {
        return Some(Container::Id(bare.to_owned()));
    }
    if let Some((runtime, id)) = bare.rsplit_once('-')
        && is_id(id)
    {
        // What watches a container is not in it.
        return (!runtime.ends_with("conmon")).then(|| Container::Id(id.to_owned()));
    }
    let name = if let Some(name) = segment.strip_prefix("systemd-nspawn@") {
        unescaped(name.strip_suffix(".service")?)
    } else if let Some(name) = segment.strip_prefix("machine-").and_then(|name| name.strip_suffix(".scope")) {
        // Virtual machines are registered as well.
        let name = unescaped(name);
        if ["qemu-", "lxc-"].iter().any(|kind| name.starts_with(kind)) {
            return None;
        }
        name
    } else if let Some(name) = segment.strip_prefix("lxc.payload.") {
        name.to_owned()
    } else if above == "lxc" {
        segment.to_owned()
    } else {
        return None;
    };
    (!name.is_empty()).then_some(Container::Name(name))
}

/// `podUID` or `kubepods-QOS-podU_I_D.slice`, also with a colon and more behind it.
fn pod_uid(segment: &str) -> Option<String> {
    let (_, rest) = match segment.strip_prefix("pod") {
        Some(rest) => ("", rest),
        None => segment.rsplit_once("-pod")?,
    };
    let rest = rest.split(':').next()?;
    let uid = rest.strip_suffix(".slice").unwrap_or(rest).replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// 8-4-4-4-12 digits; of a pod that the kubelet read from a file 32.
fn is_uid(text: &str) -> bool {
    let is_hash = text.len() == 32 && text.bytes().all(is_digit);
    let lengths = text.split('-').map(str::len);
    is_hash || lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || is_digit(byte))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_unit(segment: &str) -> bool {
    [".service", ".scope"].iter().any(|kind| segment.len() > kind.len() && segment.ends_with(kind))
}

/// systemd's `\xNN`.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = name_of_byte(rest);
        bytes.push(hex.unwrap_or(*first));
        rest = if hex.is_some() { &rest[4..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn name_of_byte(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2)?;
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e9c1d2b5a6978c0d1e2f30415263748596a7b8c9daebfc0d1e2f3a4b5c6d7";
    const UID: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

    /// What the path says, with the container's number, the pod's uid and the same with underscores put in.
    fn place(path: &str) -> (Option<String>, Option<String>, Option<String>) {
        let path = path.replace("ID", ID).replace("POD", UID).replace("P_D", &UID.replace('-', "_"));
        let Place { container, pod_uid, unit } = Place::of(path.as_bytes());
        let container = container.map(|container| match container {
            Container::Id(id) if id == ID => "ID".to_owned(),
            Container::Id(id) => panic!("{id}"),
            Container::Name(name) => name,
        });
        let pod_uid = pod_uid.map(|uid| if uid == UID { "POD".to_owned() } else { uid });
        (container, pod_uid, unit)
    }

    #[track_caller]
    fn is(path: &str, container: &str, pod: &str, unit: &str) {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        assert_eq!(place(path), (known(container), known(pod), known(unit)), "{path}");
    }

    #[test]
    fn docker_with_cgroupfs() {
        is("/docker/ID", "ID", "", "");
        is("/docker/ID/init.scope", "ID", "", "");
        is("/docker/ID/system.slice/nginx.service", "ID", "", "");
    }

    #[test]
    fn docker_with_systemd() {
        is("/system.slice/docker-ID.scope", "ID", "", "");
        is(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "ID",
            "",
            "user@1000.service",
        );
    }

    #[test]
    fn containerd_with_cgroupfs() {
        is("/default/ID", "ID", "", "");
        is("/moby/ID", "ID", "", "");
    }

    #[test]
    fn containerd_with_systemd() {
        is("/system.slice/nerdctl-ID.scope", "ID", "", "");
    }

    #[test]
    fn podman_with_cgroupfs() {
        is("/libpod_parent/libpod-ID", "ID", "", "");
        is("/libpod_parent/libpod-ID/container", "ID", "", "");
        is("/libpod_parent/conmon", "", "", "");
    }

    #[test]
    fn podman_with_systemd() {
        is("/machine.slice/libpod-ID.scope", "ID", "", "");
        is("/machine.slice/libpod-ID.scope/container", "ID", "", "");
        is("/machine.slice/libpod-conmon-ID.scope", "", "", &format!("libpod-conmon-{ID}.scope"));
    }

    #[test]
    fn podman_pods() {
        is("/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope/container", "ID", "", "");
    }

    #[test]
    fn podman_of_an_ordinary_user() {
        is(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "ID",
            "",
            "user@1000.service",
        );
    }

    #[test]
    fn podman_in_a_service() {
        is("/system.slice/web.service/libpod-payload-ID", "ID", "", "web.service");
        is("/system.slice/web.service/runtime", "", "", "web.service");
    }

    #[test]
    fn kubernetes_guaranteed_with_cgroupfs() {
        is("/kubepods/podPOD/ID", "ID", "POD", "");
    }

    #[test]
    fn kubernetes_burstable_with_cgroupfs() {
        is("/kubepods/burstable/podPOD/ID", "ID", "POD", "");
    }

    #[test]
    fn kubernetes_besteffort_with_cgroupfs() {
        is("/kubepods/besteffort/podPOD/ID", "ID", "POD", "");
    }

    #[test]
    fn kubernetes_guaranteed_with_systemd() {
        is("/kubepods.slice/kubepods-podP_D.slice/cri-containerd-ID.scope", "ID", "POD", "");
    }

    #[test]
    fn kubernetes_burstable_with_systemd() {
        let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice";
        is(&format!("{slices}/cri-containerd-ID.scope"), "ID", "POD", "");
        is(&format!("{slices}/docker-ID.scope"), "ID", "POD", "");
        is(slices, "", "POD", "");
    }

    #[test]
    fn kubernetes_besteffort_with_systemd() {
        let slices = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_D.slice";
        is(&format!("{slices}/cri-containerd-ID.scope"), "ID", "POD", "");
    }

    #[test]
    fn kubernetes_with_containerd_that_does_not_speak_to_systemd() {
        is(
            "/system.slice/containerd.service/kubepods-burstable-podP_D.slice:cri-containerd:ID",
            "ID",
            "POD",
            "containerd.service",
        );
        is("/kubepods-podP_D.slice:cri-containerd:ID", "ID", "POD", "");
    }

    #[test]
    fn kubernetes_pods_from_files() {
        let hash = "9f8e7d6c5b4a39281706f5e4d3c2b1a0";
        is(&format!("/kubepods/burstable/pod{hash}/ID"), "ID", hash, "");
        is(&format!("/kubepods.slice/kubepods-pod{hash}.slice/crio-ID.scope"), "ID", hash, "");
    }

    #[test]
    fn kubernetes_in_a_container() {
        is(
            "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podP_D.slice/cri-containerd-ID.scope",
            "ID",
            "POD",
            "",
        );
        is("/docker/ID/kubelet/kubepods/besteffort/podPOD/ID", "ID", "POD", "");
    }

    #[test]
    fn crio_with_cgroupfs() {
        is("/kubepods/burstable/podPOD/crio-ID", "ID", "POD", "");
        is("/kubepods/burstable/podPOD/crio-conmon-ID", "", "POD", "");
    }

    #[test]
    fn crio_with_systemd() {
        let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice";
        is(&format!("{slices}/crio-ID.scope"), "ID", "POD", "");
        is(&format!("{slices}/crio-ID.scope/container"), "ID", "POD", "");
        is(&format!("{slices}/crio-conmon-ID.scope"), "", "POD", &format!("crio-conmon-{ID}.scope"));
    }

    #[test]
    fn nspawn() {
        is("/machine.slice/systemd-nspawn@deb\\x2d12.service/payload", "deb-12", "", "");
        is("/machine.slice/machine-web.scope", "web", "", "");
        is("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "", "", "machine-qemu\\x2d1\\x2dvm.scope");
    }

    #[test]
    fn lxc() {
        is("/lxc.payload.web/system.slice/nginx.service", "web", "", "");
        is("/lxc/web", "web", "", "");
        is("/lxc.monitor.web", "", "", "");
    }

    #[test]
    fn systemd_services_and_sessions_are_units() {
        is("/system.slice/nginx.service", "", "", "nginx.service");
        is("/system.slice/system-getty.slice/getty@tty1.service", "", "", "getty@tty1.service");
        is("/user.slice/user-0.slice/session-3.scope", "", "", "session-3.scope");
        is("/user.slice/user-7.slice/user@7.service/app.slice/a.service", "", "", "a.service");
        is("/init.scope", "", "", "init.scope");
        for path in ["/", "", "/system.slice", "/x/pod/y", "/a-podx.slice", "/.scope", "/lxc", "/../.."] {
            is(path, "", "", "");
        }
    }

    #[test]
    fn hostile_paths_are_text() {
        for path in [&b"/docker/\xff\xfe"[..], b"/machine.slice/machine-\\x.scope", b"/:::/--/-pod/pod"] {
            Place::of(path);
        }
        assert_eq!(unescaped("a\\x2db\\x2\\xzz\\x"), "a-b\\x2\\xzz\\x");
    }

    #[test]
    fn version_2_comes_first_and_a_root_last() {
        let of = |text: &str| -> Vec<String> {
            paths(text.as_bytes())
                .into_iter()
                .map(|path| String::from_utf8_lossy(path).into_owned())
                .collect()
        };
        assert_eq!(of("0::/system.slice/a:b.service\n"), ["/system.slice/a:b.service"]);
        assert_eq!(of("0::/docker/x (deleted)\n"), ["/docker/x"]);
        assert_eq!(of("9:cpu,cpuacct:/c\n4:memory:/m\n1:name=systemd:/s\n0::/\n"), ["/s", "/m", "/c", "/"]);
        assert_eq!(of("4:memory:/\n1:name=systemd:/\n0::/u\n"), ["/u", "/", "/"]);
        assert!(of("garbage\n\n1:x").is_empty());
    }
}
