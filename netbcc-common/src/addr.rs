//! Addresses and ports of a connection, one shape for IPv4 and IPv6.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// One IPv4 or IPv6 address in network byte order. IPv4 uses the first 4 bytes, the others are zero.
/// As 32-bit words because that is the unit in which the kernel's types may be loaded.
pub type Addr = [u32; 4];

/// A connection's two ends as the local host sees them. Ports are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tuple {
    /// Local address.
    pub laddr: Addr,
    /// Remote address.
    pub raddr: Addr,
    /// Local port.
    pub lport: u16,
    /// Remote port.
    pub rport: u16,
    /// [`AF_INET`] or [`AF_INET6`]: how the addresses are to be read.
    pub family: u16,
    /// Always zero; makes the size a multiple of 8.
    pub zero: u16,
}

/// The third word of a v4-mapped IPv6 address, `0000:ffff` in network byte order.
pub const MAPPED_WORD: u32 = 0xffff_u32.to_be();
