//! tcptracer: one event per connection that is opened, accepted or closed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// An active open was established.
pub const CONNECT: u32 = 1;
/// A connection was taken off an accept queue.
pub const ACCEPT: u32 = 2;
/// A connection's socket was closed.
pub const CLOSE: u32 = 3;

/// What happened to a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Who did it.
    pub who: Who,
    /// [`CONNECT`], [`ACCEPT`] or [`CLOSE`].
    pub kind: u32,
    /// Network namespace (inode number).
    pub netns: u32,
}

/// A task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Who {
    /// Process (tgid).
    pub pid: u32,
    /// Real uid.
    pub uid: u32,
    /// Name of the thread.
    pub comm: Comm,
}

/// What is known of a socket: one of [`UNKNOWN`], [`OPENING`], [`FAILED`], [`SHUT`], [`GONE`].
pub type Stage = u32;
/// Nothing, or nothing that matters.
pub const UNKNOWN: Stage = 0;
/// Somebody connects it.
pub const OPENING: Stage = 1;
/// That failed: the socket was never connected.
pub const FAILED: Stage = 2;
/// shutdown() began the connection's end; the socket is not yet closed. Tracepoints only.
pub const SHUT: Stage = 3;
/// The connection ended before the socket is closed. Tracepoints only.
pub const GONE: Stage = 4;

/// What is kept of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// How far it is.
    pub stage: Stage,
    /// Always zero.
    pub zero: u32,
    /// Who connects it, or shut it down.
    pub who: Who,
    /// Both ends at the end of the connection; its family is 0 where there is nothing to remember.
    pub tuple: Tuple,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Numbers of the system calls accept and accept4.
    pub accepts: [u64; 2],
    /// Number of the system call shutdown.
    pub shutdown: u64,
}
