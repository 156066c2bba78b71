//! Reading a [`Tuple`] as people do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netbcc_common::addr::{AF_INET, Addr, Tuple};

use crate::out::Cell;

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

/// A TCP state's name (include/net/tcp_states.h), if it has one.
pub(super) fn state_name(number: i32) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
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
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// A TCP state's name, or its number if it has none.
pub(super) fn state(number: i32) -> Cell<'static> {
    state_name(number).map_or(Cell::Signed(number.into()), Cell::Label)
}
