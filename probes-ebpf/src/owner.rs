//! Whose a socket is, for tools that run where the task on the CPU is a stranger (ARCHITECTURE.md, D43), and what else is
//! said of a socket behind an event ([`SocketFacts`]).
//!
//! The owner is noted in its own system call: connect(), listen(), accept() or, where that cannot be seen, the first read, and
//! close(). What was open before the start is noted by an iterator over all open files. The note lies with the socket; where the
//! kernel cannot do that for such programs (before 5.11), and for kprobes, it lies in a table. The MPTCP sockets above subflows are
//! in the table always: programs get at them by address only.
//!
//! Threads of the kernel own nothing: they work for others.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::HashMap;
use netbcc_common::loss::Loss;
use netbcc_common::socket::asked::{BY_OWNER, CGROUP, COOKIE, IN_TABLE, MAKES_COOKIES, NETNS, OWNER};
use netbcc_common::socket::{
    ACCEPTOR, CLOSER, CONNECTOR, HELD, LISTENER, NOBODY, Owner, READER, SocketFacts,
};

use crate::emit::lost;
use crate::iter::{Holder, OverFiles};
use crate::mem::{Probed, Typed};
use crate::sock::{Sock, ToTcp, is_inet, state};
use crate::storage::{self, Inherited};
use crate::{filter, mptcp, setting, syscall, task};

/// Which [`asked`](netbcc_common::socket::asked) facts are asked for. Set by user space before loading.
#[unsafe(no_mangle)]
pub static SOCKET_FACTS: u32 = 0;

/// Owners of sockets, for typed programs. A connection has its listener's until it is accepted.
#[btf_map]
pub static SOCKET_OWNERS: Inherited<Owner> = Inherited::new();

/// Owners of sockets by their addresses: of MPTCP sockets, and of all where they are not in [`SOCKET_OWNERS`]. An entry goes when its
/// socket ends.
#[map]
pub static OWNERS_BY_SK: HashMap<u64, Owner> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Whether any of these is asked for.
#[inline(always)]
fn is_asked(which: u32) -> bool {
    setting!(SOCKET_FACTS) & which != 0
}

/// Whether facts follow each event.
#[inline(always)]
pub fn has_facts() -> bool {
    is_asked(OWNER | COOKIE | NETNS | CGROUP)
}

/// Where the owner of a socket is kept.
pub trait Owned: ToTcp {
    /// What is known of the owner of `sk`, if anything.
    fn note(sk: Sock<Self>) -> Option<&'static mut Owner>;
    /// What is known of the owner of `sk`, made if there was nothing. `None`: there is no room.
    fn note_or_new(sk: Sock<Self>) -> Option<&'static mut Owner>;
    /// The socket's cookie; 0: it has none yet, and this program cannot make one.
    fn cookie(sk: Sock<Self>) -> u64;
}

impl Owned for Typed {
    #[inline(always)]
    fn note(sk: Sock<Self>) -> Option<&'static mut Owner> {
        if is_asked(IN_TABLE) {
            storage::entry(&OWNERS_BY_SK, sk.id())
        } else {
            storage::get(&SOCKET_OWNERS, sk)
        }
    }
    #[inline(always)]
    fn note_or_new(sk: Sock<Self>) -> Option<&'static mut Owner> {
        if is_asked(IN_TABLE) {
            storage::entry_or_zero(&OWNERS_BY_SK, sk.id())
        } else {
            storage::get_or_zero(&SOCKET_OWNERS, sk)
        }
    }
    #[inline(always)]
    fn cookie(sk: Sock<Self>) -> u64 {
        if is_asked(MAKES_COOKIES) {
            // SAFETY: a socket that the verifier knows as one; the helper takes small ones, too.
            unsafe { bpf_get_socket_cookie(sk.as_ptr().cast_mut().cast()) }
        } else {
            sk.cookie()
        }
    }
}

impl Owned for Probed {
    #[inline(always)]
    fn note(sk: Sock<Self>) -> Option<&'static mut Owner> {
        storage::entry(&OWNERS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn note_or_new(sk: Sock<Self>) -> Option<&'static mut Owner> {
        storage::entry_or_zero(&OWNERS_BY_SK, sk.id())
    }
    #[inline(always)]
    fn cookie(sk: Sock<Self>) -> u64 {
        sk.cookie()
    }
}

/// The owner of `sk`, if anybody knows; of a subflow, that of its MPTCP socket.
#[inline(always)]
pub fn of<A: Owned>(sk: Sock<A>) -> Option<&'static Owner> {
    let known = A::note(sk).filter(|owner| owner.how != NOBODY);
    if known.is_some() {
        return known.map(|owner| &*owner);
    }
    let now = sk.state();
    if now == state::TIME_WAIT || now == state::NEW_SYN_RECV || !sk.is_tcp() {
        // What is that small is no subflow.
        return None;
    }
    // By address: newer verifiers hand out some sockets, such as a packet's, in a way that the helper for this does not take.
    let mptcp = mptcp::above(Sock::<Probed>::new(sk.as_ptr())?)?;
    storage::entry(&OWNERS_BY_SK, mptcp.id()).map(|owner| &*owner)
}

/// Whether filters of tasks are of the owner, not of the task on the CPU.
#[inline(always)]
pub fn is_by_owner() -> bool {
    is_asked(BY_OWNER)
}

/// Whether what is known of sockets is kept by their addresses, not with them.
#[inline(always)]
pub fn is_in_table() -> bool {
    is_asked(IN_TABLE)
}

/// Whether owners are asked for.
#[inline(always)]
pub fn is_wanted() -> bool {
    is_asked(OWNER)
}

/// Whether what happens to a socket of this owner and with this cgroup passes the filters of tasks. Both are asked for only if
/// they matter.
#[inline(always)]
pub fn keeps(owner: impl FnOnce() -> Option<&'static Owner>, cgroup: impl FnOnce() -> u64) -> bool {
    if !is_by_owner() {
        return filter::keeps_who() && filter::keeps_group(cgroup);
    }
    if !filter::by_task() {
        return true;
    }
    match owner() {
        Some(owner) => owner.kept != 0,
        None => filter::keeps_nobody(cgroup),
    }
}

/// Gives `sk` a cookie, if cookies are asked for: a later program can only read it.
#[inline(always)]
pub fn make_cookie(sk: Sock<Typed>) {
    if is_asked(COOKIE) {
        let _it_is_read_later = Typed::cookie(sk);
    }
}

/// What is asked for of a socket.
#[derive(Clone, Copy)]
pub struct Facts {
    /// Its owner.
    pub owner: Option<&'static Owner>,
    /// Its cookie; 0: it is not known, or not asked for.
    pub cookie: u64,
    cgroup: u64,
    /// Its network namespace; 0: it is not asked for.
    pub netns: u32,
}

impl Facts {
    /// There is no socket.
    pub const NONE: Self = Self { owner: None, cookie: 0, cgroup: 0, netns: 0 };

    /// What is asked for of `sk`.
    #[inline(always)]
    pub fn of<A: Owned>(sk: Sock<A>) -> Self {
        Self::of_request(sk, sk)
    }

    /// What is asked for of `sk`, a connection that is not complete yet: whoever has its listener owns it.
    #[inline(always)]
    pub fn of_request<A: Owned>(sk: Sock<A>, listener: Sock<A>) -> Self {
        if !has_facts() {
            return Self::NONE;
        }
        Self {
            owner: if is_asked(OWNER) { of(listener) } else { None },
            cookie: if is_asked(COOKIE) { A::cookie(sk) } else { 0 },
            cgroup: if is_asked(CGROUP) { sk.cgroup_id() } else { 0 },
            netns: if is_asked(NETNS) { sk.netns() } else { 0 },
        }
    }

    /// What is asked for of `sk`, of which only the common part may be read, with this owner.
    #[inline(always)]
    pub fn of_small<A: Owned>(sk: Sock<A>, owner: Option<&'static Owner>) -> Self {
        Self {
            owner,
            cookie: if is_asked(COOKIE) { A::cookie(sk) } else { 0 },
            cgroup: if is_asked(CGROUP) { sk.cgroup_id() } else { 0 },
            netns: if is_asked(NETNS) { sk.netns() } else { 0 },
        }
    }

    /// What is asked for of `sk`, which a packet points to. Newer verifiers hand it out in a way that the cookie's helper does not
    /// take.
    #[inline(always)]
    pub fn of_packets(sk: Sock<Typed>) -> Self {
        Self {
            owner: if is_asked(OWNER) { of(sk) } else { None },
            cookie: if is_asked(COOKIE) { sk.cookie() } else { 0 },
            cgroup: if is_asked(CGROUP) { sk.cgroup_id() } else { 0 },
            netns: if is_asked(NETNS) { sk.netns() } else { 0 },
        }
    }

    /// Writes what follows an event.
    #[inline(always)]
    pub fn write(self, to: &mut SocketFacts) {
        to.cookie = self.cookie;
        to.cgroup = self.cgroup;
        to.netns = self.netns;
        match self.owner {
            Some(owner) => {
                to.noted_ns = owner.noted_ns;
                to.owner_pid = owner.pid;
                to.owner_comm = owner.comm;
            }
            None => {
                to.noted_ns = 0;
                to.owner_pid = 0;
                to.owner_comm = [0; 16];
            }
        }
    }
}

/// The current task becomes the owner, as `how`.
#[inline(always)]
fn write<A: Owned>(owner: &mut Owner, how: u16) {
    owner.noted_ns = task::now_ns();
    owner.pid = task::pid();
    owner.how = how;
    owner.kept = u16::from(filter::keeps_task());
    task::comm_by::<A>(&mut owner.comm);
}

/// The current task becomes the owner of `sk` as `how`, unless a better one is known.
#[inline(always)]
fn own<A: Owned>(sk: Sock<A>, how: u16) {
    if A::note(sk).is_some_and(|owner| owner.how >= how) || task::is_kernel::<A>() {
        return;
    }
    match A::note_or_new(sk) {
        Some(owner) => write::<A>(owner, how),
        None => lost(Loss::MapFull),
    }
}

/// The current task becomes the owner of an MPTCP socket as `how`, unless a better one is known.
#[inline(always)]
fn own_mptcp<A: Owned, S: Owned>(mptcp: Sock<S>, how: u16) {
    let known = storage::entry(&OWNERS_BY_SK, mptcp.id());
    if known.is_some_and(|owner| owner.how >= how) || task::is_kernel::<A>() {
        return;
    }
    match storage::entry_or_zero(&OWNERS_BY_SK, mptcp.id()) {
        Some(owner) => write::<A>(owner, how),
        None => lost(Loss::MapFull),
    }
}

/// `sk` begins anew: what was known is of another connection of this socket, or of an older socket at this address.
#[inline(always)]
fn forget<A: Owned>(sk: Sock<A>) {
    if let Some(owner) = A::note(sk) {
        owner.how = NOBODY;
    }
}

/// `sk` goes from state `old` to `new`.
#[inline(always)]
pub fn changed<A: Owned>(sk: Sock<A>, old: i32, new: i32) {
    let opens = new == state::SYN_SENT || new == state::LISTEN;
    let closes = new == state::LAST_ACK || old == state::ESTABLISHED && new == state::FIN_WAIT1;
    if sk.is_mptcp() {
        if new == state::CLOSE {
            ended(sk.id());
        } else if closes {
            own_mptcp::<A, A>(sk, CLOSER);
        }
        return;
    }
    if new == state::SYN_RECV && is_asked(IN_TABLE) && sk.is_tcp() {
        // A new connection.
        ended(sk.id());
        return;
    }
    if !(opens || closes) || !sk.is_tcp() {
        return;
    }
    let how = if new == state::SYN_SENT {
        CONNECTOR
    } else if opens {
        LISTENER
    } else {
        CLOSER
    };
    if opens {
        forget(sk);
    }
    if let Some(mptcp) = mptcp::above(sk) {
        if opens && mptcp::is_opening(mptcp) {
            ended(mptcp.id());
            own_mptcp::<A, Probed>(mptcp, how);
        } else {
            // MPTCP does it, in threads of the kernel or in the calls of strangers.
            if let Some(known) = storage::entry(&OWNERS_BY_SK, mptcp.id())
                && let Some(owner) = A::note_or_new(sk)
            {
                *owner = *known;
            }
            return;
        }
    }
    own(sk, how);
}

/// The current task accepts `sk`.
#[inline(always)]
pub fn accepted<A: Owned>(sk: Sock<A>) {
    takes(sk, ACCEPTOR);
}

/// The current task reads from `sk`.
#[inline(always)]
pub fn read<A: Owned>(sk: Sock<A>) {
    takes(sk, READER);
}

#[inline(always)]
fn takes<A: Owned>(sk: Sock<A>, how: u16) {
    if !is_inet(sk.family()) {
        return;
    }
    if sk.is_mptcp() {
        own_mptcp::<A, A>(sk, how);
    } else if sk.is_tcp() && mptcp::above(sk).is_none() {
        own(sk, how);
    }
}

/// The current task makes `sk` listen.
#[inline(always)]
pub fn listens<A: Owned>(sk: Sock<A>) {
    if sk.is_mptcp() {
        own_mptcp::<A, A>(sk, LISTENER);
    } else if sk.is_tcp() {
        forget(sk);
        own(sk, LISTENER);
    }
}

/// The socket at this address ended.
#[inline(always)]
pub fn ended(sk: u64) {
    let _may_be_none = OWNERS_BY_SK.remove(sk);
}

/// A process has this file open: it owns the socket behind it, if nobody better is known.
#[inline(always)]
pub fn is_open(open: &OverFiles) {
    let Some((holder, file)) = open.get() else { return };
    if is_asked(IN_TABLE) {
        if let Some(sk) = syscall::socket_of(file.id()) {
            is_held(sk, holder);
        }
    } else if let Some(sk) = file.socket() {
        is_held(sk, holder);
    }
}

/// The process has a descriptor of `sk`.
#[inline(always)]
fn is_held<A: Owned>(sk: Sock<A>, holder: Holder) {
    let now = sk.state();
    let is_mptcp = sk.is_mptcp();
    if !is_inet(sk.family()) || !sk.is_stream() || !(is_mptcp || sk.is_tcp()) || now == state::CLOSE {
        return;
    }
    let how = if now == state::LISTEN { LISTENER } else { HELD };
    let (started_ns, pid) = (holder.started_ns(), holder.pid());
    let known = if is_mptcp { storage::entry(&OWNERS_BY_SK, sk.id()) } else { A::note(sk) };
    // Those who inherited it started later.
    if known.is_some_and(|owner| owner.how > how || owner.how == how && owner.noted_ns <= started_ns) {
        return;
    }
    let made = if is_mptcp { storage::entry_or_zero(&OWNERS_BY_SK, sk.id()) } else { A::note_or_new(sk) };
    let Some(owner) = made else {
        lost(Loss::MapFull);
        return;
    };
    owner.noted_ns = started_ns;
    owner.pid = pid;
    owner.how = how;
    holder.comm(&mut owner.comm);
    owner.kept = u16::from(filter::keeps_other(pid, || holder.uid(), &owner.comm, || holder.cgroup()));
}

/// The programs by which owners come to be known. A tool's object has them beside its own; `netbcc/src/owner.rs` has their ladder.
#[macro_export]
macro_rules! owner_programs {
    () => {
        // match-proto: void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
        #[::aya_ebpf::macros::btf_tracepoint(function = "inet_sock_set_state")]
        fn owner_state_tp(ctx: ::aya_ebpf::programs::BtfTracePointContext) -> i32 {
            if let Some(sk) = $crate::sock::Sock::<$crate::mem::Typed>::new(ctx.arg(0)) {
                $crate::owner::changed(sk, ctx.arg(1), ctx.arg(2));
            }
            0
        }

        // match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
        #[::aya_ebpf::macros::fentry(function = "security_sock_graft")]
        fn owner_graft_fentry(ctx: ::aya_ebpf::programs::FEntryContext) -> i32 {
            if let Some(sk) = $crate::sock::Sock::<$crate::mem::Typed>::new(ctx.arg(0)) {
                $crate::owner::accepted(sk);
            }
            0
        }

        // match-proto: void tcp_rcv_space_adjust(struct sock *sk)
        #[::aya_ebpf::macros::btf_tracepoint(function = "tcp_rcv_space_adjust")]
        fn owner_read_tp(ctx: ::aya_ebpf::programs::BtfTracePointContext) -> i32 {
            if let Some(sk) = $crate::sock::Sock::<$crate::mem::Typed>::new(ctx.arg(0)) {
                $crate::owner::read(sk);
            }
            0
        }

        // match-proto: void tcp_destroy_sock(struct sock *sk)
        #[::aya_ebpf::macros::btf_tracepoint(function = "tcp_destroy_sock")]
        fn owner_destroy_tp(ctx: ::aya_ebpf::programs::BtfTracePointContext) -> i32 {
            $crate::owner::ended(ctx.arg(0));
            0
        }

        // match-proto: void tcp_set_state(struct sock *sk, int state)
        #[::aya_ebpf::macros::kprobe]
        fn owner_state_kprobe(ctx: ::aya_ebpf::programs::ProbeContext) -> u32 {
            if let (Some(sk), Some(new)) =
                (ctx.arg(0).and_then($crate::sock::Sock::<$crate::mem::Probed>::new), ctx.arg(1))
            {
                $crate::owner::changed(sk, sk.state(), new);
            }
            0
        }

        // match-proto: int inet_csk_listen_start(struct sock *sk) (up to 5.16 with int backlog)
        #[::aya_ebpf::macros::kprobe]
        fn owner_listen_kprobe(ctx: ::aya_ebpf::programs::ProbeContext) -> u32 {
            if let Some(sk) = ctx.arg(0).and_then($crate::sock::Sock::<$crate::mem::Probed>::new) {
                $crate::owner::listens(sk);
            }
            0
        }

        // match-proto: void security_sock_graft(struct sock *sk, struct socket *parent)
        #[::aya_ebpf::macros::kprobe]
        fn owner_graft_kprobe(ctx: ::aya_ebpf::programs::ProbeContext) -> u32 {
            if let Some(sk) = ctx.arg(0).and_then($crate::sock::Sock::<$crate::mem::Probed>::new) {
                $crate::owner::accepted(sk);
            }
            0
        }

        // match-proto: void mptcp_token_destroy(struct mptcp_sock *msk)
        #[::aya_ebpf::macros::kprobe]
        fn owner_mptcp_kprobe(ctx: ::aya_ebpf::programs::ProbeContext) -> u32 {
            if let Some(sk) = ctx.arg(0) {
                $crate::owner::ended(sk);
            }
            0
        }

        $crate::owner_snapshot!();
    };
}

/// The program that notes who has a socket open. [`owner_programs`](crate::owner_programs) has it, too.
#[macro_export]
macro_rules! owner_snapshot {
    () => {
        // match-proto: void bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "iter/task_file")]
        extern "C" fn owner_file_iter(open: &$crate::iter::OverFiles) -> i32 {
            $crate::owner::is_open(open);
            0
        }
    };
}
