//! Who owns what MPTCP does. It opens and closes subflows in threads of the kernel and in the calls of whoever changes
//! its endpoints, so the task on the CPU tells nothing: the owner of a subflow is that of its MPTCP socket.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::maps::HashMap;
use netbcc_common::Comm;
use netbcc_common::loss::Loss;
use netbcc_common::mptcp::{NO_USER, Owner, UNKNOWN};
use netbcc_common::tcplife::CONNECTOR;

use crate::emit::lost;
use crate::mem::{Access, Probed};
use crate::sock::{Sock, ToTcp, state};
use crate::{filter, storage, task};

/// Owners of MPTCP sockets, by the socket's address. An entry goes when its socket ends.
pub type Owners = HashMap<u64, Owner>;

/// The table, without entries.
pub const fn owners() -> Owners {
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC)
}

/// The MPTCP socket whose subflow `sk` is, if it is one.
#[inline(always)]
pub fn above<A: ToTcp>(sk: Sock<A>) -> Option<Sock<Probed>> {
    A::tcp(sk)?.mptcp()
}

/// Whether `mptcp` is not connected yet. A subflow is then opened by its own connect(), in the current task.
#[inline(always)]
pub fn is_opening(mptcp: Sock<Probed>) -> bool {
    let now = mptcp.state();
    now == state::SYN_SENT || now == state::CLOSE
}

/// The current task becomes the owner of the MPTCP socket, as `how`.
#[inline(always)]
pub fn own<A: Access>(owners: &'static Owners, mptcp: Sock<A>, how: u32) {
    own_as(owners, mptcp, how, filter::keeps_task());
}

#[inline(always)]
fn own_as<A: Access>(owners: &'static Owners, mptcp: Sock<A>, how: u32, kept: bool) {
    let (pid, uid, kept) = (task::pid(), task::uid(), u32::from(kept));
    let mut owner = Owner { pid, uid, how, kept, ended_ns: 0, comm: [0; 16] };
    task::comm(&mut owner.comm);
    if owners.insert(mptcp.id(), owner, 0).is_err() {
        lost(Loss::MapFull);
    }
}

/// The current task becomes the owner of the MPTCP socket if the filters of tasks keep it. Else nobody is: what was known is of
/// an older socket at this address.
#[inline(always)]
pub fn own_if_kept<A: Access>(owners: &'static Owners, mptcp: Sock<A>, how: u32) {
    if filter::keeps_task() {
        own_as(owners, mptcp, how, true);
    } else {
        ended(owners, mptcp.id());
    }
}

/// The MPTCP socket at this address ended, and no subflow will be opened any more.
#[inline(always)]
pub fn ended(owners: &'static Owners, mptcp: u64) {
    let _may_be_none = owners.remove(mptcp);
}

/// `sk`, which is not TCP's, goes to state `new`: it may be an MPTCP socket at its end.
#[inline(always)]
pub fn changed<A: Access>(owners: &'static Owners, sk: Sock<A>, new: i32) {
    if new == state::CLOSE && sk.is_mptcp() {
        ended(owners, sk.id());
    }
}

/// Who opens a connection. Both parts are always there: of an enum, compilers load the part that only one of its cases has
/// before they look which one it is, and kernels before 6.3 let no program read what it did not write.
#[derive(Clone, Copy)]
pub struct Opener {
    /// Whether it is the current task.
    is_current: bool,
    /// Who owns the MPTCP socket; `None` also for one that was connected or accepted while nobody looked.
    owner: Option<&'static Owner>,
}

impl Opener {
    /// The current task.
    pub const CURRENT: Self = Self { is_current: true, owner: None };

    /// Who opens `sk`, which goes to SYN_SENT. Who connects an MPTCP socket is remembered, if the filters of tasks keep it.
    #[inline(always)]
    pub fn of<A: ToTcp>(owners: &'static Owners, sk: Sock<A>) -> Self {
        let Some(mptcp) = above(sk) else { return Self::CURRENT };
        if is_opening(mptcp) {
            own_if_kept(owners, mptcp, CONNECTOR);
            return Self::CURRENT;
        }
        Self { is_current: false, owner: storage::entry(owners, mptcp.id()).map(|owner| &*owner) }
    }

    /// Whether the filters of tasks keep it.
    #[inline(always)]
    pub fn is_kept(self) -> bool {
        if self.is_current {
            return filter::keeps_task();
        }
        // An owner would not have been remembered else.
        self.owner.is_some() || !filter::by_task()
    }

    /// Writes the name, and answers the process.
    #[inline(always)]
    pub fn name<A: Access>(self, comm: &mut Comm) -> u32 {
        if self.is_current {
            task::comm_by::<A>(comm);
            return task::pid();
        }
        let Some(owner) = self.owner else {
            *comm = UNKNOWN;
            return 0;
        };
        *comm = owner.comm;
        owner.pid
    }

    /// The user.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        if self.is_current { task::uid() } else { self.owner.map_or(NO_USER, |owner| owner.uid) }
    }
}
