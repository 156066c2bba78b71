//! Reading a [`Tuple`] as people do.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netbcc_common::addr::{AF_INET, Addr, Tuple};
use nix::errno::Errno;

use crate::out::{About, Cell, Fixed, Kind};

/// The IP version.
pub(super) const IP: About = About::new(Kind::Choice(&[4, 6]), "The IP version.").otel("network.type");
/// The local address.
pub(super) const LADDR: About = About::new(Kind::Address, "The local address.").otel("network.local.address");
/// The local port.
pub(super) const LPORT: About = About::new(Kind::Port, "The local port.").otel("network.local.port");
/// The local address and port in one column.
pub(super) const LOCAL: About = About::text("The local address and port.");
/// The remote address.
pub(super) const RADDR: About = About::new(Kind::Address, "The remote address.").otel("network.peer.address");
/// The remote port.
pub(super) const RPORT: About = About::new(Kind::Port, "The remote port.").otel("network.peer.port");
/// The remote address and port in one column.
pub(super) const REMOTE: About = About::text("The remote address and port.");
/// The name of the thread that PID stands for.
pub(super) const COMM: About =
    About::text("The name of its thread, of at most 15 bytes; the process's where io_uring made the thread.")
        .otel("thread.name");
/// A namespace.
pub(super) const NETNS: About = About::count("The inode number of its network namespace.");

/// A process.
pub(super) const fn pid(text: &'static str) -> About {
    About::count(text).otel("process.pid")
}

/// A user.
pub(super) const fn uid(text: &'static str) -> About {
    About::count(text).otel("process.real_user.id")
}

/// An errno, positive or negative, shown by its name (`EHOSTUNREACH`), or as it is if it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorName(pub(super) i32);

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Errno::from_raw(self.0.wrapping_abs()) {
            Errno::UnknownErrno => write!(f, "{}", self.0),
            errno => write!(f, "{errno:?}"),
        }
    }
}

/// The address that `words` hold for `family`.
pub(super) fn ip(family: u16, words: &Addr) -> IpAddr {
    if family == AF_INET {
        return IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()));
    }
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(bytes))
}

/// Local address.
pub(super) fn laddr(tuple: &Tuple) -> IpAddr {
    ip(tuple.family, &tuple.laddr)
}

/// Remote address.
pub(super) fn raddr(tuple: &Tuple) -> IpAddr {
    ip(tuple.family, &tuple.raddr)
}

/// 4 or 6.
pub(super) fn version(family: u16) -> u64 {
    if family == AF_INET { 4 } else { 6 }
}

/// TCP's states, from 1 on.
pub(super) const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// A state, by name.
pub(super) const fn state_about(text: &'static str) -> About {
    About::new(Kind::WordOrNumber(&STATES), text).otel("network.connection.state")
}

/// A TCP state's name (include/net/tcp_states.h), if it has one.
pub(super) fn state_name(number: i32) -> Option<&'static str> {
    STATES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// A TCP state's name, or its number if it has none.
pub(super) fn state(number: i32) -> Cell<'static> {
    state_name(number).map_or(Cell::Signed(number.into()), Cell::Label)
}

/// Where a time is counted from.
pub(super) const SINCE: About = About::new(
    Kind::Word(&["start"]),
    "start: the time is counted from the start of the tool, because its beginning lies before that (--existing).",
)
.or_null();

/// Milliseconds of which the beginning is not known, from whole microseconds, with so many decimals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AtLeast<const DECIMALS: usize>(pub(super) u64);

impl<const DECIMALS: usize> fmt::Display for AtLeast<DECIMALS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">{}", Fixed(self.0 as f64 / 1000.0, DECIMALS))
    }
}
