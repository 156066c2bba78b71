//! Network interfaces: which one a name means, how many queues it has, and that it is gone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::net::if_::{Interface, if_nameindex};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::machine;
use crate::error::{hinted, usage};

/// A network interface of our namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, which stays when it is renamed.
    pub index: u32,
    /// Inode number of the namespace.
    pub netns: u32,
    /// TX queues in use.
    pub tx_queues: usize,
    /// RX queues in use.
    pub rx_queues: usize,
}

/// The interface with exactly this name, if there is one.
///
/// # Errors
/// The machine does not answer.
pub fn find(name: &str) -> Result<Option<Link>> {
    let Some(index) = index_of(name)? else { return Ok(None) };
    machine::require_proc()?;
    let netns = fs::metadata("/proc/self/ns/net").context("look at /proc/self/ns/net")?.ino();
    let netns = u32::try_from(netns).context("the number of the network namespace")?;
    let owned = name.to_owned();
    let counting = thread::Builder::new().spawn(move || queues_in_own_sysfs(&owned, index));
    let (tx_queues, rx_queues) = match counting {
        Ok(counting) => counting.join().map_err(|_| anyhow!("the thread that counts queues died"))??,
        // Where no thread may be made (`ulimit -u`), the `/sys` that is there is mostly ours.
        Err(_) => queues_in_sysfs(name, index)?,
    };
    Ok(Some(Link { index, netns, tx_queues, rx_queues }))
}

/// Neither other names of the interface (`altname`) nor labels (`eth0:1`), which the kernel takes for it.
fn index_of(name: &str) -> Result<Option<u32>> {
    let links = if_nameindex().context("list the network interfaces")?;
    Ok(links.iter().find(|link| link.name().to_bytes() == name.as_bytes()).map(Interface::index))
}

/// `/sys` shows the interfaces of the network namespace in which it was mounted, which need not be ours (`nsenter
/// --net`). A fresh one, which only this thread sees, shows ours. Who may not mount takes what there is, if it is
/// right.
fn queues_in_own_sysfs(name: &str, index: u32) -> Result<(usize, usize)> {
    // EBUSY: it is mounted there already, and is ours.
    let _ours_or_not = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none)
    });
    queues_in_sysfs(name, index)
}

/// What `/sys` says of this interface, if it is this one.
fn queues_in_sysfs(name: &str, index: u32) -> Result<(usize, usize)> {
    let folder: PathBuf = ["/sys/class/net", name].iter().collect();
    let shown = fs::read_to_string(folder.join("ifindex")).ok().and_then(|text| text.trim().parse().ok());
    if shown != Some(index) {
        let error = anyhow!("{} is not the interface {name} of this network namespace", folder.display());
        return Err(hinted(
            error,
            "mount sysfs in this namespace (as ip netns exec does), or run it as root",
        ));
    }
    count(&folder.join("queues")).with_context(|| format!("read {}/queues", folder.display()))
}

/// TX and RX queues.
fn count(folder: &Path) -> io::Result<(usize, usize)> {
    let (mut tx, mut rx) = (0, 0);
    for entry in fs::read_dir(folder)? {
        match OsStr::as_encoded_bytes(&entry?.file_name()).first() {
            Some(b't') => tx += 1,
            Some(b'r') => rx += 1,
            _ => {}
        }
    }
    Ok((tx, rx))
}

/// What the kernel tells of interfaces that go away. Made before the interface is looked for, it misses nothing.
#[derive(Debug)]
pub struct Departures(OwnedFd);

impl Departures {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub fn listen() -> Result<Self> {
        /// Multicast group of interfaces: `RTMGRP_LINK`.
        const LINKS: u32 = 1;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
        let fd = socket(family, SockType::Raw, flags, protocol).context("a netlink socket")?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, LINKS)).context("listen for changes of interfaces")?;
        Ok(Self(fd))
    }

    /// What becomes readable when there is something to see.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Reads what was told until now; whether the interface `index` left our namespace, and under which name. The name
    /// is empty if that was not told.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn left(&self, index: u32) -> Result<Option<String>> {
        let mut buffer = [0; 8 << 10];
        let mut left = None;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(bytes) => left = left.or(departure(&buffer[..bytes], index)),
                Err(Errno::EAGAIN) => return Ok(left),
                // More than there was room for: look.
                Err(Errno::ENOBUFS) if left.is_none() && !is_there(index)? => left = Some(String::new()),
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(error) => return Err(error).context("listen for changes of interfaces"),
            }
        }
    }
}

fn is_there(index: u32) -> Result<bool> {
    let links = if_nameindex().context("list the network interfaces")?;
    Ok(links.iter().any(|link| link.index() == index))
}

/// Whether one of the messages (`struct nlmsghdr` and `struct ifinfomsg`) says that `index` is gone, and its last name,
/// which is empty if it is not there. A message may be cut at the end.
pub(crate) fn departure(mut messages: &[u8], index: u32) -> Option<String> {
    const HEADER: usize = 16;
    while let Some(message) = messages.first_chunk::<{ HEADER + 16 }>() {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|nth| message[at + nth]));
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let family = libc::c_int::from(message[HEADER]);
        // A bridge tells in its own family which port it gave up.
        if kind == libc::RTM_DELLINK && family == libc::AF_UNSPEC && word(HEADER + 4) == index {
            let end = (word(0) as usize).clamp(HEADER + 16, messages.len());
            return Some(name_in(&messages[HEADER + 16..end]).unwrap_or_default());
        }
        let length = (word(0) as usize).next_multiple_of(4).max(HEADER);
        messages = messages.get(length..).unwrap_or_default();
    }
    None
}

/// The name among the attributes (`struct rtattr`) of an interface.
fn name_in(mut attributes: &[u8]) -> Option<String> {
    const HEADER: usize = 4;
    while let Some(&[len_0, len_1, kind_0, kind_1]) = attributes.first_chunk::<HEADER>() {
        let length = usize::from(u16::from_ne_bytes([len_0, len_1])).max(HEADER);
        if u16::from_ne_bytes([kind_0, kind_1]) == libc::IFLA_IFNAME {
            let name = attributes.get(HEADER..length)?;
            let name = name.split(|&byte| byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Insists on a name that an interface can have, in the words of BCC.
///
/// # Errors
/// There is none, or it is too long.
pub fn check_name(name: &str) -> Result<()> {
    ensure!(!name.is_empty(), usage("Please specify a network interface."));
    // One byte of IFNAMSIZ is for the NUL.
    ensure!(name.len() < libc::IFNAMSIZ, usage("NIC name too long"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_queue_for_each_direction() {
        let Some(lo) = find("lo").unwrap() else { return };
        assert_eq!((lo.index, lo.tx_queues, lo.rx_queues), (1, 1, 1));
    }

    #[test]
    fn other_names_are_no_interface() {
        for name in ["", "lo:1", "lo ", "l", "lo/", "../net/lo", "no such one"] {
            assert_eq!(find(name).unwrap(), None, "{name:?}");
        }
    }

    /// An `nlmsghdr` and an `ifinfomsg`, and `more` bytes of attributes.
    fn message(kind: u16, family: i32, index: u32, more: usize) -> Vec<u8> {
        let length = u32::try_from(32 + more).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend([u8::try_from(family).unwrap(), 0, 0, 0]);
        message.extend(index.to_ne_bytes());
        message.extend([0; 8]);
        message.resize(32 + more.next_multiple_of(4), 0);
        message
    }

    #[test]
    fn only_the_end_of_the_interface_itself_is_a_departure() {
        let (new, gone) = (libc::RTM_NEWLINK, libc::RTM_DELLINK);
        assert!(departure(&message(gone, libc::AF_UNSPEC, 7, 5), 7).is_some());
        assert!(departure(&message(gone, libc::AF_UNSPEC, 8, 5), 7).is_none());
        assert!(departure(&message(new, libc::AF_UNSPEC, 7, 5), 7).is_none());
        assert!(departure(&message(gone, libc::AF_BRIDGE, 7, 5), 7).is_none());
        let both = [message(new, libc::AF_UNSPEC, 7, 5), message(gone, libc::AF_UNSPEC, 7, 9)].concat();
        assert!(departure(&both, 7).is_some());
        // Cut, or not even a message.
        assert!(departure(&message(gone, libc::AF_UNSPEC, 7, 4000)[..100], 7).is_some());
        assert!(departure(&[0; 31], 7).is_none() && departure(&[0; 64], 7).is_none());
        let mut named = message(gone, libc::AF_UNSPEC, 7, 20);
        named[32..52].copy_from_slice(b"\x05\0\x01\0x\0\0\0\x09\0\x03\0eth0\0\0\0\0");
        assert_eq!(departure(&named, 7).as_deref(), Some("eth0"));
        assert_eq!(departure(&named[..46], 7).as_deref(), Some(""), "cut");
    }
}
