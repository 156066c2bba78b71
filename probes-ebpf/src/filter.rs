//! The shared filters. Each is off unless user space set its constant, and then costs nothing: the verifier removes
//! what a constant rules out.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, CgroupArray, HashMap};
use netbcc_common::Comm;
use netbcc_common::addr::{AF_INET, Addr, MAPPED_WORD, Tuple};
use netbcc_common::filter::{
    CGROUPMAP, COMM, Filter, GROUP, GROUPS as MOST_GROUPS, Group, LADDR, LPORT, MNTNSMAP, NETNS, PID,
    PIDS as IN_PIDS, PORT_SET_BYTES, RADDR, RPORT, UID, UIDS as IN_UIDS,
};
use netbcc_common::kernel::Field;

use crate::mem::{Access, copy, offset, offset_if_any};
use crate::sock::Sock;
use crate::{setting, task};

/// Set by user space before loading.
#[unsafe(no_mangle)]
pub static FILTER: Filter = Filter {
    groups: [Group { id: 0, level: 0, excludes: 0 }; MOST_GROUPS],
    pid: 0,
    uid: 0,
    netns: 0,
    family: 0,
    by_task: 0,
    by_ends: 0,
    group_count: 0,
    group_default: 0,
    comm_default: 0,
    zero: [0; 5],
};

/// `--cgroupmap`: keys are cgroup v2 ids. User space puts the pinned map in its place.
#[map]
pub static CGROUPS: HashMap<u64, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// `--mntnsmap`: keys are inode numbers of mount namespaces. User space puts the pinned map in its place.
#[map]
pub static MNTNSES: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The local ports to keep. User space fills it, and leaves it out of runs that do not ask.
#[map]
pub static LPORTS: Array<PortSet> = Array::with_max_entries(1, 0);

/// The remote ports to keep, with the same rules as [`LPORTS`].
#[map]
pub static RPORTS: Array<PortSet> = Array::with_max_entries(1, 0);

/// Prefixes of local addresses, those of IPv4 in their IPv6 form, with 1 where the addresses whose longest prefix it is are
/// kept. An address without a prefix is not kept. User space sets the size, and leaves it out of runs that do not ask.
#[map]
pub static LADDRS: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(1, 0);

/// Prefixes of remote addresses, with the same rules as [`LADDRS`].
#[map]
pub static RADDRS: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(1, 0);

/// Prefixes of the numbers of processes to keep, with the same rules as [`LADDRS`].
#[map]
pub static PIDS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);

/// Prefixes of the numbers of users to keep, with the same rules as [`LADDRS`].
#[map]
pub static UIDS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);

/// Names of threads, with 1 where they are kept. User space sets the size, and leaves it out of runs that do not ask.
#[map]
pub static COMMS: HashMap<Comm, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The cgroups that are named, in the order of [`Filter::groups`]. User space sets the size, and leaves it out of runs that do
/// not ask.
#[map]
pub static GROUPS: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// Whether the current task passes `--pid`, `--uid` and `--comm`, `--cgroup` and `--container`, and BCC's options of tasks.
#[inline(always)]
pub fn keeps_task() -> bool {
    setting!(FILTER.by_task) == 0 || keeps_task_by()
}

/// Whether the current task passes the filters that are given. Once per object: it would be at a dozen places.
#[inline(never)]
fn keeps_task_by() -> bool {
    let by = setting!(FILTER.by_task);
    keeps_who_by(by) && keeps_place_by(by)
}

/// Whether the current task passes `--pid`, `--uid` and `--comm`: for a program that interrupts strangers, as a row of it names
/// who is on the CPU. [`keeps_group`] goes with it.
#[inline(always)]
pub fn keeps_who() -> bool {
    setting!(FILTER.by_task) == 0 || keeps_who_now()
}

#[inline(never)]
fn keeps_who_now() -> bool {
    keeps_who_by(setting!(FILTER.by_task))
}

/// Whether what is in a cgroup passes `--cgroup` and `--container`. The cgroup's address is asked for only if they are given.
#[inline(always)]
pub fn keeps_group(cgroup: impl FnOnce() -> u64) -> bool {
    !by_group() || is_in_groups(cgroup())
}

/// Whether a socket of which no task is known passes: `--cgroup` and `--container` are then of its own cgroup, and nothing passes
/// the other filters of tasks.
#[inline(always)]
pub fn keeps_nobody(cgroup: impl FnOnce() -> u64) -> bool {
    let by = setting!(FILTER.by_task);
    by == 0 || by == GROUP && is_in_groups(cgroup())
}

/// Whether `--cgroup` or `--container` is given.
#[inline(always)]
pub fn by_group() -> bool {
    setting!(FILTER.by_task) & GROUP != 0
}

/// Whether there is any filter of tasks: what no task is known of is then not kept.
#[inline(always)]
pub fn by_task() -> bool {
    setting!(FILTER.by_task) != 0
}

/// Whether a process that is not the current task passes `--pid`, `--uid` and `--comm`, `--cgroup` and `--container`.
#[inline(always)]
pub fn keeps_other(pid: u32, uid: impl FnOnce() -> u32, name: &Comm, cgroup: impl FnOnce() -> u64) -> bool {
    let by = setting!(FILTER.by_task);
    by == 0
        || keeps_pid(by, || pid)
            && keeps_uid(by, uid)
            && (by & COMM == 0 || keeps_name(name))
            && (by & GROUP == 0 || is_in_groups(cgroup()))
}

#[inline(always)]
fn keeps_who_by(by: u8) -> bool {
    keeps_pid(by, task::pid) && keeps_uid(by, task::uid) && (by & COMM == 0 || keeps_comm())
}

#[inline(always)]
fn keeps_pid(by: u8, pid: impl FnOnce() -> u32) -> bool {
    if by & (PID | IN_PIDS) == 0 {
        return true;
    }
    let pid = pid();
    if by & PID != 0 { pid == setting!(FILTER.pid) } else { has_id(&PIDS, pid) }
}

#[inline(always)]
fn keeps_uid(by: u8, uid: impl FnOnce() -> u32) -> bool {
    if by & (UID | IN_UIDS) == 0 {
        return true;
    }
    let uid = uid();
    if by & UID != 0 { uid == setting!(FILTER.uid) } else { has_id(&UIDS, uid) }
}

#[inline(always)]
fn keeps_place_by(by: u8) -> bool {
    if by & GROUP != 0 && !is_task_in_groups() {
        return false;
    }
    if by & CGROUPMAP != 0 && CGROUPS.get_ptr(task::cgroup_id()).is_none() {
        return false;
    }
    by & MNTNSMAP == 0 || MNTNSES.get_ptr(u64::from(task::mntns())).is_some()
}

#[inline(always)]
fn has_id(ids: &'static LpmTrie<[u8; 4], u32>, id: u32) -> bool {
    ids.get(Key::new(32, id.to_be_bytes())).is_some_and(|kept| *kept != 0)
}

/// Whether the name of the current thread, as rows show it, is kept.
#[inline(always)]
fn keeps_comm() -> bool {
    let mut comm = [0; 16];
    task::comm(&mut comm);
    keeps_name(&comm)
}

/// Whether this name of a thread is kept.
#[inline(always)]
fn keeps_name(comm: &Comm) -> bool {
    // Behind a name's end anything may be.
    let ([low, high], _) = comm.as_chunks::<8>() else { return false };
    let (low, is_whole) = until_nul(u64::from_le_bytes(*low));
    let high = if is_whole { until_nul(u64::from_le_bytes(*high)).0 } else { 0 };
    let mut name = [0; 16];
    name[..8].copy_from_slice(&low.to_le_bytes());
    name[8..].copy_from_slice(&high.to_le_bytes());
    COMMS.get_ptr(name).map_or(setting!(FILTER.comm_default) != 0, |kept| {
        // SAFETY: a word of a map's value, which nobody changes.
        unsafe { *kept != 0 }
    })
}

/// The bytes of a word, the lowest first, up to the first that is 0, and whether none is.
#[inline(always)]
fn until_nul(word: u64) -> (u64, bool) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The lowest bit that is set here is the highest of the first byte that is 0.
    let nul = word.wrapping_sub(ONES) & !word & (ONES << 7);
    if nul == 0 {
        return (word, true);
    }
    let first = nul & nul.wrapping_neg();
    (word & ((first >> 7) - 1), false)
}

/// Whether the cgroup of the current task is kept. Once per object, as [`is_in_groups`].
#[inline(never)]
fn is_task_in_groups() -> bool {
    let count = usize::from(setting!(FILTER.group_count));
    let mut kept = setting!(FILTER.group_default) != 0;
    for nth in 0..MOST_GROUPS {
        if nth >= count {
            break;
        }
        if matches!(GROUPS.current_task_under_cgroup(nth as u32), Ok(true)) {
            if setting!(FILTER.groups[nth].excludes) != 0 {
                return false;
            }
            kept = true;
        }
    }
    kept
}

/// Whether what is in the cgroup at this address is kept; 0 is the root.
#[inline(never)]
fn is_in_groups(cgroup: u64) -> bool {
    let Some(level) = offset(Field::CgroupLevel) else { return false };
    let level = u32::from_ne_bytes(copy(cgroup.wrapping_add(level as u64)));
    let count = usize::from(setting!(FILTER.group_count));
    let mut kept = setting!(FILTER.group_default) != 0;
    for nth in 0..MOST_GROUPS {
        if nth >= count {
            break;
        }
        let wanted = setting!(FILTER.groups[nth].level);
        if level >= wanted && ancestor(cgroup, wanted) == setting!(FILTER.groups[nth].id) {
            if setting!(FILTER.groups[nth].excludes) != 0 {
                return false;
            }
            kept = true;
        }
    }
    kept
}

/// The number of the cgroup at this level that the one at this address is in, which lies no higher.
#[inline(always)]
fn ancestor(cgroup: u64, level: u32) -> u64 {
    let word = |at: u64| u64::from_ne_bytes(copy(at));
    let nth = 8 * u64::from(level);
    if let Some(ids) = offset_if_any(Field::CgroupAncestorIds) {
        return word(cgroup.wrapping_add(ids as u64).wrapping_add(nth));
    }
    let (Some(ancestors), Some(kn), Some(id)) =
        (offset(Field::CgroupAncestors), offset(Field::CgroupKn), offset(Field::KernfsId))
    else {
        return 0;
    };
    let ancestor = word(cgroup.wrapping_add(ancestors as u64).wrapping_add(nth));
    word(word(ancestor.wrapping_add(kn as u64)).wrapping_add(id as u64))
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

/// Whether a socket of this network namespace passes the option for one. Asked for only if that is given.
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

/// What has two ends. A part of an end is only asked for if a filter wants to know it.
pub trait Ends: Copy {
    /// Local port in host order.
    fn lport(self) -> u16;
    /// Remote port in host order.
    fn rport(self) -> u16;
    /// How its addresses are to be read.
    fn family(self) -> u16;
    /// Writes the local address.
    fn laddr(self, to: &mut Addr);
    /// Writes the remote address.
    fn raddr(self, to: &mut Addr);
    /// Inode number of the network namespace; `None`: the program asks [`keeps_netns`] itself.
    fn netns(self) -> Option<u32>;
}

impl Ends for &Tuple {
    #[inline(always)]
    fn lport(self) -> u16 {
        self.lport
    }
    #[inline(always)]
    fn rport(self) -> u16 {
        self.rport
    }
    #[inline(always)]
    fn family(self) -> u16 {
        self.family
    }
    #[inline(always)]
    fn laddr(self, to: &mut Addr) {
        *to = self.laddr;
    }
    #[inline(always)]
    fn raddr(self, to: &mut Addr) {
        *to = self.raddr;
    }
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        None
    }
}

/// A packet, whose tuple has its source first: the local end is where it came to.
#[derive(Clone, Copy)]
pub struct Received<'a>(pub &'a Tuple);

#[expect(clippy::misnamed_getters, reason = "the ends change places")]
impl Ends for Received<'_> {
    #[inline(always)]
    fn lport(self) -> u16 {
        self.0.rport
    }
    #[inline(always)]
    fn rport(self) -> u16 {
        self.0.lport
    }
    #[inline(always)]
    fn family(self) -> u16 {
        self.0.family
    }
    #[inline(always)]
    fn laddr(self, to: &mut Addr) {
        *to = self.0.raddr;
    }
    #[inline(always)]
    fn raddr(self, to: &mut Addr) {
        *to = self.0.laddr;
    }
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        None
    }
}

impl<A: Access> Ends for Sock<A> {
    #[inline(always)]
    fn lport(self) -> u16 {
        self.num()
    }
    #[inline(always)]
    fn rport(self) -> u16 {
        Self::rport(self)
    }
    #[inline(always)]
    fn family(self) -> u16 {
        Self::family(self)
    }
    #[inline(always)]
    fn laddr(self, to: &mut Addr) {
        Self::laddr(self, Self::family(self), to);
    }
    #[inline(always)]
    fn raddr(self, to: &mut Addr) {
        Self::raddr(self, Self::family(self), to);
    }
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        Some(Self::netns(self))
    }
}

/// A socket whose local port is known in another way: it may be released already.
#[derive(Clone, Copy)]
pub struct SockEnds<A> {
    /// The socket.
    pub sk: Sock<A>,
    /// Its local port, as its row shows it.
    pub lport: u16,
}

impl<A: Access> Ends for SockEnds<A> {
    #[inline(always)]
    fn lport(self) -> u16 {
        self.lport
    }
    #[inline(always)]
    fn rport(self) -> u16 {
        self.sk.rport()
    }
    #[inline(always)]
    fn family(self) -> u16 {
        self.sk.family()
    }
    #[inline(always)]
    fn laddr(self, to: &mut Addr) {
        Ends::laddr(self.sk, to);
    }
    #[inline(always)]
    fn raddr(self, to: &mut Addr) {
        Ends::raddr(self.sk, to);
    }
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        Ends::netns(self.sk)
    }
}

/// Whether some filter asks for an end.
#[inline(always)]
pub fn by_ends() -> bool {
    setting!(FILTER.by_ends) != 0
}

/// Whether both ends pass `--lport`, `--rport`, `--laddr`, `--raddr` and `--netns`, and the options of BCC that mean the same.
#[inline(always)]
pub fn keeps_ends(ends: impl Ends) -> bool {
    keeps_parts(setting!(FILTER.by_ends), ends)
}

/// Whether all of both ends but the local port, which is not chosen yet, passes what [`keeps_ends`] asks.
#[inline(always)]
pub fn keeps_ends_but_lport(ends: impl Ends) -> bool {
    keeps_parts(setting!(FILTER.by_ends) & !LPORT, ends)
}

/// Whether the local port passes what [`keeps_ends`] asks.
#[inline(always)]
pub fn keeps_lport(port: u16) -> bool {
    setting!(FILTER.by_ends) & LPORT == 0 || has_port(&LPORTS, port)
}

#[inline(always)]
fn keeps_parts(by: u8, ends: impl Ends) -> bool {
    if by == 0 {
        return true;
    }
    if by & LPORT != 0 && !has_port(&LPORTS, ends.lport()) {
        return false;
    }
    if by & RPORT != 0 && !has_port(&RPORTS, ends.rport()) {
        return false;
    }
    if by & NETNS != 0 && !ends.netns().is_none_or(|netns| netns == setting!(FILTER.netns)) {
        return false;
    }
    let mut addr = [0; 4];
    if by & LADDR != 0 {
        ends.laddr(&mut addr);
        if !has_addr(&LADDRS, ends.family(), addr) {
            return false;
        }
    }
    if by & RADDR != 0 {
        ends.raddr(&mut addr);
        if !has_addr(&RADDRS, ends.family(), addr) {
            return false;
        }
    }
    true
}

#[inline(always)]
fn has_port(ports: &'static Array<PortSet>, port: u16) -> bool {
    ports.get(0).is_some_and(|set| set.has(port))
}

#[inline(always)]
fn has_addr(prefixes: &'static LpmTrie<Addr, u32>, family: u16, addr: Addr) -> bool {
    let addr = if family == AF_INET { [0, 0, MAPPED_WORD, addr[0]] } else { addr };
    prefixes.get(Key::new(128, addr)).is_some_and(|kept| *kept != 0)
}
