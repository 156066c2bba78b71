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

/// Which DNS question it is: key of the map `QUESTIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Asked {
    /// Address of the network namespace in the kernel: two of them may have the same addresses.
    pub net: u64,
    /// Address that asked, as in the packet; of IPv4 the first 4 bytes.
    pub near: [u8; 16],
    /// Address of the server.
    pub far: [u8; 16],
    /// Port that asked, host order.
    pub lport: u16,
    /// Id of the message, host order.
    pub id: u16,
    /// 1 for IPv6, else 0.
    pub is_v6: u32,
}

/// Room for a question: a name of 255 octets, type and class (RFC 1035 sections 2.3.4 and 4.1.2), to a multiple of 8.
pub const QUESTION_ROOM: usize = 264;
/// So many questions are remembered at most; the oldest makes room.
pub const QUESTIONS: u32 = 4096;
/// How long a question waits for its answer, ns. Resolvers give up earlier: glibc's after 30 s at most.
pub const ANSWER_NS: u64 = 30_000_000_000;
/// More messages than this are not looked at as the answer to one question.
pub const ANSWERS_PER_QUESTION: u32 = 4;

/// What was asked, when and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Question {
    /// `CLOCK_MONOTONIC`, ns, when it was sent.
    pub ts_ns: u64,
    /// Process (tgid) that sent it; 0 if that is not known.
    pub pid: u32,
    /// Messages that may be its answer, so far.
    pub answers: u32,
    /// Bytes of `bytes` that count.
    pub len: u32,
    /// Always zero.
    pub zero: u32,
    /// The message from behind its header.
    pub bytes: [u8; QUESTION_ROOM],
}

/// What may be the answer to a question of this host: both ends and the id are right, the question itself is for user
/// space to compare. `N` is [`DNS_SMALL`] or [`DNS_LARGE_ROOM`]; records are told apart by their length.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
pub struct Dns<const N: usize> {
    /// `CLOCK_MONOTONIC`, ns, when the answer was read or (tracepoints) arrived.
    pub ts_ns: u64,
    /// Bytes of `payload` that count.
    pub len: u32,
    /// Always zero.
    pub zero: u32,
    /// The question that had the same ends and the same id.
    pub question: Question,
    /// The UDP payload from its start.
    pub payload: [u8; N],
}

/// An answer that was told at its arrival then reached no reader: it counts for nothing. From the tracepoint rung.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Unread {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// When the answer arrived: [`Dns::ts_ns`].
    pub arrived_ns: u64,
    /// When its question was sent: [`Question::ts_ns`].
    pub asked_ns: u64,
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
