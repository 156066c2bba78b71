//! What is known of a row's socket: columns of every tool whose rows are about one.
//!
//! Lives here: what these columns are called and mean. Must never live here: a tool's name, or how it comes to be known
//! (`probes-ebpf/src/owner.rs`).

use std::ops::Deref;

use netbcc_common::mptcp::UNKNOWN;
use netbcc_common::socket::{SocketFacts, asked};

use super::beside::Process;
use super::cell::Cell;
use super::field::{About, Kind};

/// Something that is known of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFact {
    /// The number of the process that owns it.
    OwnerPid,
    /// The name of that process.
    OwnerComm,
    /// Its network namespace.
    Netns,
    /// Its cookie.
    Cookie,
}

impl SocketFact {
    /// Those of each row with a socket.
    pub const PLAIN: [Self; 2] = [Self::Netns, Self::Cookie];
    /// Those of rows whose process is not the socket's owner.
    pub const OF_OWNERS: [Self; 2] = [Self::OwnerPid, Self::OwnerComm];

    /// What its column is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnerPid => "owner_pid",
            Self::OwnerComm => "owner_comm",
            Self::Netns => "netns",
            Self::Cookie => "cookie",
        }
    }

    /// What programs have to be asked for.
    pub(super) const fn asks(self) -> u32 {
        match self {
            Self::OwnerPid | Self::OwnerComm => asked::OWNER,
            Self::Netns => asked::NETNS,
            Self::Cookie => asked::COOKIE,
        }
    }

    /// What its column means.
    pub(super) const fn about(self) -> About {
        let about = match self {
            Self::OwnerPid => About::new(
                Kind::Count,
                "The process that owns the socket: that connected, listened or accepted, or had it open before the start; \
                 of a socket that others got from it, by fork or in a message, still the first one.",
            ),
            Self::OwnerComm => About::text("The name of the process that owns the socket."),
            Self::Netns => About::count("The network namespace of the socket (inode number)."),
            Self::Cookie => About::count(
                "The number that the kernel gave the socket (SO_COOKIE), which no other socket has until the next boot: the \
                 same in all tools, and for the request that becomes a connection. Kprobes and kernels before 5.12 only see one that \
                 somebody asked for before.",
            ),
        };
        about.or_null()
    }

    pub(super) fn cell(self, facts: &SocketFacts) -> Cell<'_> {
        let known = |number: u64| if number == 0 { Cell::Empty } else { Cell::Unsigned(number) };
        match self {
            Self::OwnerPid => known(facts.owner_pid.into()),
            Self::OwnerComm if facts.owner_pid == 0 => Cell::Empty,
            Self::OwnerComm => (&facts.owner_comm).into(),
            Self::Netns => known(facts.netns.into()),
            Self::Cookie => known(facts.cookie),
        }
    }
}

/// The name of the owner as a column of BCC's has it: where nobody is known, a dash.
fn owner_comm(facts: &SocketFacts) -> [u8; 16] {
    if facts.owner_pid == 0 { UNKNOWN } else { facts.owner_comm }
}

/// The owner of the socket of a row that happened at `ts_ns`.
fn owner(facts: &SocketFacts, ts_ns: u64) -> Process<'_> {
    Process::now(facts.owner_pid).named(&facts.owner_comm).noted_before(ts_ns.saturating_sub(facts.noted_ns))
}

/// An event, and what was asked for of its socket beside that.
#[derive(Clone, Copy, Debug)]
pub struct Of<E> {
    event: E,
    /// What was asked for.
    pub facts: SocketFacts,
}

impl<E> Of<E> {
    /// Both together.
    pub fn new((event, facts): (E, SocketFacts)) -> Self {
        Self { event, facts }
    }
}

/// An event beside which nothing is asked for.
impl<E> From<E> for Of<E> {
    fn from(event: E) -> Self {
        Self::new((event, SocketFacts::default()))
    }
}

impl<E> Deref for Of<E> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.event
    }
}

/// What a row says of its socket, and whether its process is the socket's owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose {
    /// What was asked for.
    pub facts: SocketFacts,
    is_owner: bool,
}

impl Whose {
    /// With `owner`, the row's process is the owner.
    pub const fn new(facts: SocketFacts, owner: bool) -> Self {
        Self { facts, is_owner: owner }
    }

    /// The number of the row's process, where `current` is that on the CPU.
    pub const fn pid(&self, current: u32) -> u32 {
        if self.is_owner { self.facts.owner_pid } else { current }
    }

    /// The name of the row's process, where `current` is that of the task on the CPU.
    pub fn comm(&self, current: [u8; 16]) -> [u8; 16] {
        if self.is_owner { owner_comm(&self.facts) } else { current }
    }

    /// The row's process, for a row of `ts_ns`, where `current` is that on the CPU.
    pub fn process<'r>(&'r self, current: Process<'r>, ts_ns: u64) -> Process<'r> {
        if self.is_owner { owner(&self.facts, ts_ns) } else { current }
    }
}
