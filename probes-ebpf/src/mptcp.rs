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
    let mut owner = Owner { pid: task::pid(), uid: task::uid(), how, zero: 0, ended_ns: 0, comm: [0; 16] };
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
        own(owners, mptcp, how);
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

/// Who opens a connection.
#[derive(Clone, Copy)]
pub enum Opener {
    /// The current task.
    Current,
    /// Who owns the MPTCP socket.
    Owner(&'static Owner),
    /// Who owns an MPTCP socket that was connected or accepted while nobody looked.
    Unknown,
}

impl Opener {
    /// Who opens `sk`, which goes to SYN_SENT. Who connects an MPTCP socket is remembered, if the filters of tasks keep it.
    #[inline(always)]
    pub fn of<A: ToTcp>(owners: &'static Owners, sk: Sock<A>) -> Self {
        let Some(mptcp) = above(sk) else { return Self::Current };
        if is_opening(mptcp) {
            own_if_kept(owners, mptcp, CONNECTOR);
            return Self::Current;
        }
        storage::entry(owners, mptcp.id()).map_or(Self::Unknown, |owner| Self::Owner(owner))
    }

    /// Whether the filters of tasks keep it.
    #[inline(always)]
    pub fn is_kept(self) -> bool {
        match self {
            Self::Current => filter::keeps_task(),
            // Else it would not have been remembered.
            Self::Owner(_) => true,
            Self::Unknown => !filter::by_task(),
        }
    }

    /// Writes who it is, and answers the process and the user.
    #[inline(always)]
    pub fn name(self, comm: &mut Comm) -> (u32, u32) {
        match self {
            Self::Current => {
                task::comm(comm);
                (task::pid(), task::uid())
            }
            Self::Owner(owner) => {
                *comm = owner.comm;
                (owner.pid, owner.uid)
            }
            Self::Unknown => {
                *comm = UNKNOWN;
                (0, NO_USER)
            }
        }
    }
}
