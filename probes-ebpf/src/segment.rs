//! TCP segments: the headers of a packet.
//!
//! The TCP header is found behind the network header: in a packet that a firewall makes, the transport header is not set.

use netbcc_common::addr::{AF_INET, AF_INET6, Tuple};

use crate::mem::Access;
use crate::skb::{ETH_P_IP, ETH_P_IPV6, Packet, Skb};

/// The flag of a reset (RFC 9293 section 3.1).
pub const RST: u8 = 4;

/// Protocol numbers (IANA).
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Reads the packet's ends; answers its TCP flags, or `None` if it is no TCP packet.
#[inline(always)]
pub fn headers<A: Access>(skb: Skb<A>, tuple: &mut Tuple) -> Option<u8> {
    headers_at(skb.network(), skb.protocol(), tuple)
}

/// Reads the ends of a packet whose network header of this protocol is there; answers its TCP flags, or `None` if it is no TCP
/// packet.
#[inline(always)]
pub fn headers_at(ip: Packet, protocol: u16, tuple: &mut Tuple) -> Option<u8> {
    let tcp = match protocol {
        ETH_P_IP => {
            let header = ip.read::<20>();
            // The offset bits of a fragment that is not the first (RFC 791 section 3.1): no TCP header there.
            if header[0] >> 4 != 4 || header[9] != TCP || header[6] & 0x1f != 0 || header[7] != 0 {
                return None;
            }
            tuple.family = AF_INET;
            tuple.laddr[0] = word(&header, 12);
            tuple.raddr[0] = word(&header, 16);
            ip.skip(u64::from(header[0] & 0xf) * 4)
        }
        ETH_P_IPV6 => {
            let header = ip.read::<40>();
            if header[0] >> 4 != 6 {
                return None;
            }
            tuple.family = AF_INET6;
            tuple.laddr = [word(&header, 8), word(&header, 12), word(&header, 16), word(&header, 20)];
            tuple.raddr = [word(&header, 24), word(&header, 28), word(&header, 32), word(&header, 36)];
            behind_extensions(ip.skip(40), header[6])?
        }
        _ => return None,
    };
    let header = tcp.read::<14>();
    tuple.lport = u16::from_be_bytes([header[0], header[1]]);
    tuple.rport = u16::from_be_bytes([header[2], header[3]]);
    Some(header[13])
}

/// Whether the packet whose network header of this protocol is there may be a TCP reset: quickly, as most are not.
#[inline(always)]
pub fn may_be_reset(ip: Packet, protocol: u16) -> bool {
    const FLAGS: u64 = 13;
    let is_reset = |tcp: Packet| tcp.skip(FLAGS).read::<1>()[0] & RST != 0;
    match protocol {
        ETH_P_IP => {
            let header = ip.read::<10>();
            header[9] == TCP && is_reset(ip.skip(u64::from(header[0] & 0xf) * 4))
        }
        ETH_P_IPV6 => match ip.skip(6).read::<1>()[0] {
            TCP => is_reset(ip.skip(40)),
            next => matches!(next, HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT),
        },
        _ => false,
    }
}

/// Four bytes of a header, as they lie there.
#[inline(always)]
fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The TCP header behind IPv6 extension headers (RFC 8200 section 4), of which `next` is the first.
#[inline(always)]
fn behind_extensions(mut at: Packet, mut next: u8) -> Option<Packet> {
    for _ in 0..6 {
        if next == TCP {
            return Some(at);
        }
        let [following, len, offset_hi, offset_lo] = at.read::<4>();
        let bytes = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (u64::from(len) + 1) * 8,
            AUTHENTICATION => (u64::from(len) + 2) * 4,
            FRAGMENT if u16::from_be_bytes([offset_hi, offset_lo]) >> 3 == 0 => 8,
            _ => return None,
        };
        at = at.skip(bytes);
        next = following;
    }
    None
}
