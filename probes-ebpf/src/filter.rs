//! The shared filters. Each is off unless user space set its constant, and then costs nothing: the verifier removes
//! what a constant rules out.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use netbcc_common::filter::{Filter, PORT_SET_BYTES};

use crate::{setting, task};

/// Set by user space before loading.
#[unsafe(no_mangle)]
pub static FILTER: Filter = Filter {
    pid: 0,
    uid: 0,
    netns: 0,
    family: 0,
    by_uid: 0,
    by_cgroup: 0,
    by_mntns: 0,
    by_lport: 0,
    by_rport: 0,
    zero: 0,
};

/// `--cgroupmap`: keys are cgroup v2 ids. User space puts the pinned map in its place.
#[map]
pub static CGROUPS: HashMap<u64, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// `--mntnsmap`: keys are inode numbers of mount namespaces. User space puts the pinned map in its place.
#[map]
pub static MNTNSES: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Whether process `pid` passes `-p`.
#[inline(always)]
pub fn keeps_pid(pid: u32) -> bool {
    let want = setting!(FILTER.pid);
    want == 0 || want == pid
}

/// Whether the current task passes the container filters `--cgroupmap` and `--mntnsmap`.
#[inline(always)]
pub fn keeps_container() -> bool {
    if setting!(FILTER.by_cgroup) != 0 {
        let id = task::cgroup_id();
        if CGROUPS.get_ptr(id).is_none() {
            return false;
        }
    }
    if setting!(FILTER.by_mntns) != 0 {
        let inode = u64::from(task::mntns());
        if MNTNSES.get_ptr(inode).is_none() {
            return false;
        }
    }
    true
}

/// Whether the current task passes `-p`, `-u` and the container filters.
#[inline(always)]
pub fn keeps_task() -> bool {
    if setting!(FILTER.pid) != 0 && !keeps_pid(task::pid()) {
        return false;
    }
    if setting!(FILTER.by_uid) != 0 && setting!(FILTER.uid) != task::uid() {
        return false;
    }
    keeps_container()
}

/// Whether `-p`, `-u` or a container filter is given: what no task is known of is then not kept.
#[inline(always)]
pub fn by_task() -> bool {
    setting!(FILTER.pid) != 0
        || setting!(FILTER.by_uid) != 0
        || setting!(FILTER.by_cgroup) != 0
        || setting!(FILTER.by_mntns) != 0
}

/// The family asked for by `-4` or `-6`; 0: both.
#[inline(always)]
pub fn family() -> u16 {
    setting!(FILTER.family)
}

/// Whether a socket of `family` passes `-4` and `-6`.
#[inline(always)]
pub fn keeps_family(family: u16) -> bool {
    let want = setting!(FILTER.family);
    want == 0 || want == family
}

/// Whether a socket of this network namespace passes `-N`. Asked for only if there is such a filter.
#[inline(always)]
pub fn keeps_netns(inode: impl FnOnce() -> u32) -> bool {
    let want = setting!(FILTER.netns);
    want == 0 || want == inode()
}

/// A set of ports that user space fills before loading. One `static` per set, in the tool that needs it (8 KiB).
#[repr(transparent)]
pub struct PortSet([u8; PORT_SET_BYTES]);

impl PortSet {
    /// The empty set.
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self([0; PORT_SET_BYTES])
    }

    /// Whether `port` is in the set.
    #[inline(always)]
    pub fn has(&self, port: u16) -> bool {
        // The verifier of 6.1 takes a number whose bytes were swapped for any number: read again, it has 16 bits.
        // SAFETY: a local.
        let port = unsafe { read_volatile(&raw const port) };
        // SAFETY: `port >> 3` is at most 8191. Volatile, because user space replaces the bytes.
        let byte = unsafe { read_volatile(addr_of!(self.0).cast::<u8>().add((port >> 3) as usize)) };
        byte >> (port & 7) & 1 != 0
    }
}

/// Whether the local port passes its list.
#[inline(always)]
pub fn keeps_lport(set: &PortSet, port: u16) -> bool {
    setting!(FILTER.by_lport) == 0 || set.has(port)
}

/// Whether the remote port passes its list.
#[inline(always)]
pub fn keeps_rport(set: &PortSet, port: u16) -> bool {
    setting!(FILTER.by_rport) == 0 || set.has(port)
}
