//! The shared filters. Each is off unless user space set its constant, and then costs nothing: the verifier removes
//! what a constant rules out.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap};
use netbcc_common::addr::{AF_INET, Addr, MAPPED_WORD, Tuple};
use netbcc_common::filter::{Filter, LADDR, LPORT, NETNS, PORT_SET_BYTES, RADDR, RPORT};

use crate::mem::Access;
use crate::sock::Sock;
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
    by_ends: 0,
    zero: [0; 2],
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
    #[inline(always)]
    fn netns(self) -> Option<u32> {
        None
    }
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
