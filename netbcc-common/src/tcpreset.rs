//! tcpreset: one event per TCP reset that this host sends or takes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::{Addr, Tuple};
use crate::socket::Owner;

/// In [`Event::reason`]: the kernel does not tell.
pub const UNTOLD: u32 = u32::MAX;

/// What is known beside the kernel's word: in [`Event::cause`].
pub mod cause {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// close() with `SO_LINGER` and no time.
    pub const LINGER: u8 = 1;
    /// connect() to no address.
    pub const UNSPEC: u8 = 2;
    /// The listener was closed before the connection was accepted.
    pub const NEVER_ACCEPTED: u8 = 3;
    /// Somebody ended the connection from outside (`ss -K`).
    pub const ABORTED: u8 = 4;
    /// The segment belongs to no connection of the listener.
    pub const NO_CONNECTION: u8 = 5;
    /// close() with unread data.
    pub const UNREAD: u8 = 6;
    /// The other end did not answer keepalives.
    pub const KEEPALIVE: u8 = 7;
    /// The other end did not acknowledge data.
    pub const RETRIES: u8 = 8;
    /// The segment came for a connection in TIME_WAIT.
    pub const TIME_WAIT: u8 = 9;
    /// The segment came for no socket.
    pub const NO_SOCKET: u8 = 10;
    /// A program made the packet itself.
    pub const RAW: u8 = 11;
    /// No socket sent the packet, nor TCP in the name of one.
    pub const FIREWALL: u8 = 12;
    /// The packet came; whether a socket takes it is not known yet.
    pub const IGNORED: u8 = 13;
}

/// In [`Event::received`]: no row. What came with these ends was taken, but the filters do not keep that, or it went on.
pub const NO_ROW: u8 = 2;

/// A reset.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// When the connection began: at connect() or the third segment of the handshake. 0: before the start, or there is none.
    pub birth_ns: u64,
    /// Both ends, the local one first.
    pub tuple: Tuple,
    /// Bytes that were written and not sent.
    pub unsent: u32,
    /// Bytes that were sent and not acknowledged.
    pub unacked: u32,
    /// Bytes that came and were not read.
    pub unread: u32,
    /// A value of the kernel's `enum sk_rst_reason`, or [`UNTOLD`].
    pub reason: u32,
    /// Process (tgid) on the CPU.
    pub cpu_pid: u32,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Name of the thread on the CPU.
    pub cpu_comm: Comm,
    /// State of the socket before the reset; 0: there is no socket.
    pub state: u8,
    /// Of a socket in TIME_WAIT, the state that it stands for; else 0.
    pub substate: u8,
    /// 1: received; or [`NO_ROW`].
    pub received: u8,
    /// One of [`cause`].
    pub cause: u8,
    /// How the owner is known: as in [`Owner`](crate::socket::Owner).
    pub how: u8,
    /// Always zero.
    pub zero: [u8; 3],
}

/// What is counted together: the key of the map `COUNTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Key {
    /// The other end's address.
    pub raddr: Addr,
    /// The owner's name.
    pub comm: Comm,
    /// The owner (tgid); 0: nobody knows.
    pub pid: u32,
    /// As [`Event::reason`].
    pub reason: u32,
    /// The service's port.
    pub port: u16,
    /// How the address is to be read.
    pub family: u16,
    /// As [`Event::state`].
    pub state: u8,
    /// As [`Event::received`].
    pub received: u8,
    /// As [`Event::cause`].
    pub cause: u8,
    /// Always zero.
    pub zero: u8,
}

/// What is kept with a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Known {
    /// As [`Event::birth_ns`].
    pub birth_ns: u64,
    /// As [`Event::unsent`], when it closed.
    pub unsent: u32,
    /// As [`Event::unacked`], when it closed.
    pub unacked: u32,
    /// As [`Event::unread`], when it closed.
    pub unread: u32,
    /// The state that it left for CLOSE; 0: it did not.
    pub state: u8,
    /// As [`Event::cause`], when it closed.
    pub cause: u8,
    /// 1: the other end connected.
    pub server: u8,
    /// Always zero.
    pub zero: u8,
}

/// Who owned a connection that went to TIME_WAIT: value of the table `WAITING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Waiting {
    /// The socket's cookie; 0: the place is free.
    pub cookie: u64,
    /// The owner.
    pub owner: Owner,
}

/// Places of `WAITING`. A power of two: a socket's place is the rest of its cookie.
pub const WAITING_PLACES: u32 = 16_384;

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Count in `COUNTS`, send no events.
    pub count: u8,
    /// Resets that this host sends are asked for.
    pub sent: u8,
    /// Also packets that are no socket's.
    pub all: u8,
    /// Answers are noted, so that their packets are known.
    pub notes: u8,
}

/// The ends of a packet with a reset: the key of the map `PACKETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ends {
    /// The sender's first.
    pub tuple: Tuple,
    /// Network namespace (inode number).
    pub netns: u32,
    /// 1: the packet came in.
    pub came: u32,
}

/// What is known of such packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Seen {
    /// When, `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// The packet's address; 0: it is still to leave.
    pub skb: u64,
}
