//! The three things that nearly every test asks of its namespace, asked of the kernel directly: starting `ip` for
//! them takes most of a second in an emulated guest.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

const NEW_LINK: u16 = 16;
const NEW_ADDR: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// Asks for something in the namespace of the calling thread.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
        Ok(Self(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Switches the loopback interface on.
    pub(crate) fn loopback_up(&self) -> io::Result<()> {
        let up = libc::IFF_UP.cast_unsigned();
        let mut body = vec![0; 4];
        for word in [LOOPBACK, up, up] {
            body.extend(word.to_ne_bytes());
        }
        self.ask(NEW_LINK, &body)
    }

    /// Gives the loopback interface an address.
    pub(crate) fn loopback_address(&self, address: IpAddr) -> io::Result<()> {
        let (family, octets) = parts(address);
        // Usable at once: no duplicate address detection.
        let no_dad = 2;
        let mut body = vec![family, bits(&octets), no_dad, 0];
        body.extend(LOOPBACK.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &octets);
        attribute(&mut body, libc::IFA_ADDRESS, &octets);
        self.ask(NEW_ADDR, &body)
    }

    /// Sends packets for an address that nobody has into the loopback interface, where they vanish.
    pub(crate) fn route_into_loopback(&self, address: IpAddr) -> io::Result<()> {
        let (family, octets) = parts(address);
        let (table, protocol, scope, unicast) = (254, 4, 253, 1);
        let mut body = vec![family, bits(&octets), 0, 0, table, protocol, scope, unicast, 0, 0, 0, 0];
        attribute(&mut body, libc::RTA_DST, &octets);
        attribute(&mut body, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
        self.ask(NEW_ROUTE, &body)
    }

    /// Sends a request and reads what the kernel says to it. What is there already is fine.
    fn ask(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        let (request, acknowledge, create) = (1_u16, 4, 0x400);
        let mut message = u32::try_from(16 + body.len()).expect("requests are short").to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((request | acknowledge | create).to_ne_bytes());
        // Sequence number and sender: there is only one request under way.
        message.extend([0; 8]);
        message.extend(body);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 1024];
        recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let error = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
        match Errno::from_raw(-error) {
            _ if error == 0 => Ok(()),
            Errno::EEXIST => Ok(()),
            errno => Err(errno.into()),
        }
    }
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(ip) => (2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    }
}

/// The prefix length of a single address.
fn bits(octets: &[u8]) -> u8 {
    u8::try_from(8 * octets.len()).expect("an address")
}

fn attribute(body: &mut Vec<u8>, kind: u16, data: &[u8]) {
    body.extend(u16::try_from(4 + data.len()).expect("an address").to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(data);
}
