//! tcpwhy: one event per TCP socket that ended, with all that was seen of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Comm;
use crate::addr::Tuple;

/// What is known of a live socket: value of the map `CONNS`, and the part of an [`Event`] that was collected.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Conn {
    /// When it began to connect, or was made for a connection that came in: `CLOCK_MONOTONIC`, ns. 0: before the start.
    pub birth_ns: u64,
    /// When it was established; 0: never, or that was not seen.
    pub established_ns: u64,
    /// When the first of both ends closed; 0: neither did.
    pub closing_ns: u64,
    /// When the SYN was last sent again; 0: it was not.
    pub syn_ns: u64,
    /// When a program first read from it; 0: none did.
    pub read_ns: u64,
    /// The longest time that received data lay unread, as far as it was seen, ns.
    pub unread_ns: u64,
    /// When the data was sent before which the other end said nothing, in microseconds; 0: there was none.
    pub asked_us: u64,
    /// When the other end's first byte came, in microseconds; 0: none did, or nobody read it.
    pub arrived_us: u64,
    /// When our first bytes were sent after that, in microseconds; 0: there were none, or that was not seen.
    pub answered_us: u64,
    /// Owner (tgid), if `owner` is not [`NOBODY`].
    pub pid: u32,
    /// How the owner is known.
    pub owner: u32,
    /// Of [`CLIENT`] and the others.
    pub flags: u32,
    /// The last state that was seen of it.
    pub state: i32,
    /// The error that was last reported for it: an errno.
    pub error: i32,
    /// SYNs that were sent again.
    pub syns: u32,
    /// Segments that were sent again by the timer.
    pub rto: u32,
    /// Segments that were sent again because the peer's acknowledgements told of a loss.
    pub fast: u32,
    /// Segments that were sent again to probe for a loss.
    pub tlp: u32,
    /// 1: the filters of tasks keep the owner.
    pub kept: u16,
    /// In which way it was stuck when it was last looked at: of [`stuck`]. Only who looks at it writes this.
    pub stuck: u16,
    /// Owner's name.
    pub comm: Comm,
}

/// No owner is stored.
pub const NOBODY: u32 = 0;
/// The task that read from the socket.
pub const READER: u32 = 1;
/// The task that closed it or shut it down.
pub const CLOSER: u32 = 2;
/// The task that called connect().
pub const CONNECTOR: u32 = 3;

/// In [`Conn::flags`]: this end connected.
pub const CLIENT: u32 = 1 << 0;
/// In [`Conn::flags`]: the other end connected.
pub const SERVER: u32 = 1 << 1;
/// In [`Conn::flags`]: a change of its state was not seen.
pub const GAP: u32 = 1 << 2;
/// In [`Conn::flags`]: a RST came, or what the kernel takes for one.
pub const RESET: u32 = 1 << 3;
/// In [`Conn::flags`]: an error was reported to its program.
pub const REPORTED: u32 = 1 << 4;
/// In [`Conn::flags`]: this end closed first.
pub const CLOSED_HERE: u32 = 1 << 5;
/// In [`Conn::flags`]: the other end closed first.
pub const CLOSED_THERE: u32 = 1 << 6;
/// In [`Conn::flags`]: our window was closed when a program read.
pub const SHUT_WINDOW: u32 = 1 << 7;

/// In which way a live socket is stuck.
pub mod stuck {
    /// It is not, or was not looked at.
    pub const NOT: u16 = 0;
    /// Nothing answers its SYN.
    pub const CONNECTING: u16 = 1;
    /// What it sent is not acknowledged, and the timer sends it again.
    pub const RESENDING: u16 = 2;
    /// The peer's window is closed.
    pub const SHUT_OUT: u16 = 3;
    /// No program accepts it.
    pub const WAITING: u16 = 4;
    /// Received data lies unread.
    pub const UNREAD: u16 = 5;
}

/// In [`Event::bits`]: both directions were shut down, as by close().
pub const SHUT: u32 = 1 << 0;
/// In [`Event::bits`]: no program holds it any more.
pub const DEAD: u32 = 1 << 1;
/// In [`Event::bits`]: a FIN of the other end came.
pub const DONE: u32 = 1 << 2;
/// In [`Event::bits`]: `SO_LINGER` with no time.
pub const LINGER: u32 = 1 << 3;
/// In [`Event::bits`]: a file stands above it.
pub const FILE: u32 = 1 << 4;
/// In [`Event::bits`]: it has not ended, and is stuck.
pub const LIVE: u32 = 1 << 5;

/// A socket that ended, or is stuck ([`LIVE`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// `CLOCK_MONOTONIC` of the end, or of when it was looked at, ns.
    pub ts_ns: u64,
    /// Jiffies at the end: tells how many there are in a second.
    pub jiffies: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// What was collected.
    pub conn: Conn,
    /// Bytes sent, those that were sent again among them.
    pub bytes_sent: u64,
    /// Bytes sent again.
    pub bytes_retrans: u64,
    /// Acknowledged by the peer, SYN and FIN included.
    pub bytes_acked: u64,
    /// Received in order, FIN included.
    pub bytes_received: u64,
    /// When the last packet came or left, in microseconds of `CLOCK_MONOTONIC`.
    pub last_packet_us: u64,
    /// The state that it left, or has.
    pub state: i32,
    /// The error that it ended with: an errno.
    pub error: i32,
    /// An error that might have passed: an errno.
    pub soft_error: i32,
    /// Of [`SHUT`] and the others.
    pub bits: u32,
    /// Jiffies that sending was busy without a limit, limited by the peer's window, limited by our buffer.
    pub busy: [u32; 3],
    /// When the last data was sent, in jiffies.
    pub last_data_sent: u32,
    /// The minimum round trip, microseconds; `u32::MAX`: there is none.
    pub rtt_min_us: u32,
    /// Smoothed round trip, eighths of a microsecond.
    pub srtt_us_8: u32,
    /// Segments sent again, SYN and FIN among them.
    pub retrans: u32,
    /// Segments with data that were sent.
    pub data_segs_out: u32,
    /// Segments that the peer says came twice.
    pub dsack_dups: u32,
    /// Segments that came out of order.
    pub ooo_segs: u32,
    /// Bytes that were written and not sent.
    pub unsent: u32,
    /// Bytes that were sent and not acknowledged.
    pub unacked: u32,
    /// Bytes that were received and not read.
    pub unread: u32,
    /// The window that the peer offered.
    pub snd_wnd: u32,
    /// `TCP_USER_TIMEOUT`, milliseconds.
    pub user_timeout_ms: u32,
    /// Probes without an answer.
    pub probes: u16,
    /// How often the timer sent again without an answer.
    pub timeouts: u16,
}

/// How many events of a socket are kept.
pub const KEPT: usize = 16;

/// Something that happened to a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Moment {
    /// When: `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// What: of [`moment`].
    pub what: u32,
    /// What it says of it.
    pub value: u32,
}

/// What a [`Moment`] is of.
pub mod moment {
    /// A SYN was sent again; the value: how often by now.
    pub const SYN_AGAIN: u32 = 1;
    /// A segment was sent again by the timer; the value: its sequence number, where the SYN's is 0.
    pub const RTO: u32 = 2;
    /// A segment was sent again because acknowledgements told of a loss; the value is that of [`RTO`].
    pub const FAST: u32 = 3;
    /// A segment was sent again to probe for a loss; the value is that of [`RTO`].
    pub const TLP: u32 = 4;
    /// A RST came.
    pub const RESET: u32 = 5;
    /// An error was reported to the program; the value: its errno.
    pub const ERROR: u32 = 6;
    /// It took a state; the value: which.
    pub const STATE: u32 = 7;
}

/// What happened to a socket: value of the map `TIMELINES`, which is there only where it is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timeline {
    /// How many events there were. The last ones are kept.
    pub count: u64,
    /// Event number n is at n modulo [`KEPT`].
    pub moments: [Moment; KEPT],
}

/// A socket that ended, with its timeline.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Detailed {
    /// What every row says.
    pub event: Event,
    /// What happened to it. Behind its count it may hold what is of no socket.
    pub timeline: Timeline,
}

/// What is known of a listener: value of the map `LISTENERS`, which is there only where it is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listener {
    /// When it was last looked at: `CLOCK_MONOTONIC`, ns.
    pub seen_ns: u64,
    /// What it had dropped by then, modulo 2^32.
    pub drops: u32,
    /// Owner (tgid): who called listen(), or had it open at the start; 0: not known.
    pub pid: u32,
    /// Owner's name.
    pub comm: Comm,
    /// 1: the filters of tasks keep the owner.
    pub kept: u32,
    /// Always 0: no padding.
    pub zero: u32,
}

/// A listener that refused connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Refused {
    /// When it was looked at: `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// The time in which it refused them, ns.
    pub span_ns: u64,
    /// Its end; the other one is zero.
    pub tuple: Tuple,
    /// Owner (tgid); 0: not known.
    pub pid: u32,
    /// How many SYNs and ACKs it dropped.
    pub drops: u32,
    /// How many connections wait for accept() now.
    pub waiting: u32,
    /// How many may.
    pub most: u32,
    /// Owner's name.
    pub comm: Comm,
}

/// How this run behaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// What counts as slow, microseconds; 0: nothing does.
    pub slow_us: u64,
    /// Sockets that ended well are events, too.
    pub all: u64,
    /// Events are [`Detailed`].
    pub events: u64,
    /// Live sockets and listeners are looked at.
    pub live: u64,
}

/// What counts as an inflated round trip at least, microseconds.
pub const INFLATED_US: u32 = 100_000;
/// How many times the minimum it is then at least.
pub const INFLATED_TIMES: u32 = 10;
