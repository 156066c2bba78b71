//! tcpconnect: one event per connect, DNS answers for `-d`, and flow counts for `-c`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::{Addr, Tuple};

/// What a connect [`Event`] tells. Only the tracepoint rung sends more than [`CONNECTED`].
pub const CONNECTED: u32 = 0;
/// Entered SYN_SENT; whether a SYN is sent is not known yet.
pub const OPENED: u32 = 1;
/// The connect failed on this host after [`OPENED`]: no SYN was sent.
pub const FAILED: u32 = 2;

/// A connect.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Address of the `struct sock`: tells which OPENED a later event belongs to.
    pub sk: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Process (tgid).
    pub pid: u32,
    /// Real uid.
    pub uid: u32,
    /// Name of the calling thread.
    pub comm: Comm,
    /// [`CONNECTED`], [`OPENED`] or [`FAILED`].
    pub kind: u32,
    /// Always zero.
    pub zero: u32,
}

/// Key of the map `FLOWS`; the value is a `u64` count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flow {
    /// Local address.
    pub laddr: Addr,
    /// Remote address.
    pub raddr: Addr,
    /// Remote port, host order.
    pub rport: u16,
    /// Local port, host order, with `-s`; else 0.
    pub lport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Always zero.
    pub zero: u16,
}

/// A DNS answer. `N` is [`DNS_SMALL`] or [`DNS_LARGE_ROOM`]; records are told apart by their length.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
pub struct Dns<const N: usize> {
    /// `CLOCK_MONOTONIC`, ns, when the answer arrived.
    pub ts_ns: u64,
    /// Bytes of `payload` that count.
    pub len: u32,
    /// Always zero.
    pub zero: u32,
    /// The UDP payload from its start.
    pub payload: [u8; N],
}

/// Payload room of an ordinary answer (RFC 1035 section 2.3.4: 512 bytes over UDP).
pub const DNS_SMALL: usize = 512;
/// Payload room of an EDNS answer (RFC 6891 section 6.2.5 suggests 4096).
pub const DNS_LARGE: usize = 4096;
/// Room in the record of an EDNS answer. Twice the payload, because the verifier bounds where a fragment begins
/// and how long it is one by one, not their sum.
pub const DNS_LARGE_ROOM: usize = 2 * DNS_LARGE;

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Count flows in `FLOWS`, send no events.
    pub count: u8,
    /// The count key holds the local port.
    pub count_lport: u8,
    /// The local port is wanted: the tracepoint rung must wait until there is one.
    pub lport: u8,
    /// Always zero.
    pub zero: u8,
}
