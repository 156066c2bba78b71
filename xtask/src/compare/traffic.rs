//! The traffic on which tools are compared: connections over loopback, one after the other, so that there is one order.

mod lossy;
mod queues;
mod sums;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};

use self::lossy::Hook;
pub(super) use self::lossy::speak;
pub(super) use self::queues::flows;

/// Connections to this port come before what is compared.
pub(super) const FIRST: u16 = 7001;
/// And to this one after it.
pub(super) const LAST: u16 = 7002;
/// The marks go to both, for BCC has a buffer for each family, and reads one after the other.
pub(super) const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Nobody listens here.
const REFUSED: u16 = 20_004;

/// Of what kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Connections, of each family, refused, at once, with data both ways.
    Connections,
    /// Segments that the guest's filter drops, so that they are sent again.
    Retransmits,
    /// Segments that it drops for a while.
    Stalls,
    /// Segments that it drops on their way out, and on their way in from another host.
    Drops,
    /// Bytes over connections between the host's own addresses, as many as are told.
    Transfers,
    /// Datagrams and connections for some seconds.
    Interrupts,
    /// Reads from the disk that BCC is on.
    Disk,
    /// Connections that wait for accept(), at listeners with several limits.
    Waiting,
    /// Packets of each size on each queue of an interface.
    Queues,
}

impl Traffic {
    /// What has to be in place before the tools start.
    ///
    /// # Errors
    /// The filter refuses, or an interface cannot be made.
    pub(super) fn prepare(self) -> Result<()> {
        match self {
            Self::Retransmits | Self::Stalls => lossy::prepare(Hook::Input),
            Self::Drops => queues::prepare().and_then(|()| lossy::prepare(Hook::Output)),
            Self::Queues => queues::prepare(),
            Self::Connections | Self::Transfers | Self::Interrupts | Self::Disk | Self::Waiting => Ok(()),
        }
    }

    /// Takes away what was prepared.
    ///
    /// # Errors
    /// The filter refuses, or an interface cannot be taken away.
    pub(super) fn clear(self) -> Result<()> {
        match self {
            Self::Retransmits | Self::Stalls => lossy::clear(),
            Self::Drops => lossy::clear().and_then(|()| queues::clear()),
            Self::Queues => queues::clear(),
            Self::Connections | Self::Transfers | Self::Interrupts | Self::Disk | Self::Waiting => Ok(()),
        }
    }

    /// What every tool with rows for this traffic shows, at this port, in each family.
    ///
    /// # Errors
    /// Loopback does not work.
    pub(super) fn mark(self, port: u16) -> Result<()> {
        for address in ADDRESSES {
            let pair = connect((address, port).into(), (address, port).into())?;
            match self {
                Self::Retransmits => lossy::lose(pair, 1)?,
                Self::Drops => lossy::refused(pair)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What is compared.
    ///
    /// # Errors
    /// Loopback does not work.
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Connections => connections(),
            Self::Retransmits => lossy::retransmits(),
            Self::Stalls => lossy::stalls(),
            Self::Drops => lossy::drops(),
            Self::Transfers => sums::transfers(),
            Self::Interrupts => sums::interrupts(),
            Self::Disk => sums::reads(),
            Self::Waiting => sums::waiting(),
            Self::Queues => queues::run(),
        }
    }

    /// What the kernel itself calls what happened.
    ///
    /// # Errors
    /// The kernel does not name it.
    pub(super) fn names(self) -> Result<Vec<String>> {
        if self == Self::Drops { lossy::names() } else { Ok(Vec::new()) }
    }
}

/// Whether a line names this port: alone, or after its address.
pub(super) fn names_port(line: &str, port: u16) -> bool {
    let (port, after) = (port.to_string(), format!(":{port}"));
    line.split_whitespace().any(|word| word == port || word.ends_with(&after))
}

/// Whether a line is the row of a mark with this port and address.
pub(super) fn is_mark(line: &str, port: u16, address: &IpAddr) -> bool {
    let (address, whole) = (address.to_string(), format!("{address}:{port}"));
    let mut words = line.split_whitespace();
    names_port(line, port) && words.any(|word| word.trim_matches(['[', ']']) == address || word == whole)
}

fn connections() -> Result<()> {
    let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let any6: IpAddr = Ipv6Addr::UNSPECIFIED.into();
    let other: IpAddr = Ipv4Addr::new(127, 100, 200, 201).into();
    // Where it listens, where it connects to, who closes first, and how much goes which way.
    for (to, at, near_first, sent, answered) in [
        (v4, v4, true, 3000, 70_000),
        (v4, v4, false, 1023, 1024),
        (v6, v6, true, 5000, 100),
        (v6, v6, false, 0, 0),
        (v4, mapped, true, 10, 10),
        (any6, v4, true, 2048, 2047),
        (any6, v6, false, 1, 9000),
        (other, other, false, 1022, 1022),
    ] {
        let port = 20_001;
        exchange(connect((to, port).into(), (at, port).into())?, near_first, sent, answered)?;
    }
    // Refused, in each family.
    for address in [v4, v6, mapped] {
        drop(TcpStream::connect((address, REFUSED)));
    }
    // A thread whose name is longer than some columns.
    let thread = thread::Builder::new().name("abcdefghijklmno".to_owned());
    let thread =
        thread.spawn(move || exchange(connect((v4, 20_005).into(), (v4, 20_005).into())?, true, 100, 100))?;
    thread.join().ok().context("a thread of the traffic")??;
    // Several at once, closed in another order than opened.
    let mut open = Vec::new();
    for port in 20_010..20_015 {
        open.push(connect((v4, port).into(), (v4, port).into())?);
    }
    open.swap(0, 3);
    for pair in open {
        exchange(pair, true, 200, 300)?;
    }
    Ok(())
}

/// A listener, and a connection to it: its near end, and its far end.
fn connect(to: SocketAddr, at: SocketAddr) -> Result<(TcpStream, TcpStream, TcpListener)> {
    let listener = TcpListener::bind(to).with_context(|| format!("listen on {to}"))?;
    let near = TcpStream::connect(at).with_context(|| format!("connect to {at}"))?;
    let (far, _) = listener.accept()?;
    Ok((near, far, listener))
}

/// Sends there and back, all read, then closes in this order.
fn exchange(
    (mut near, mut far, listener): (TcpStream, TcpStream, TcpListener),
    near_first: bool,
    sent: usize,
    answered: usize,
) -> Result<()> {
    near.write_all(&vec![b'x'; sent])?;
    far.read_exact(&mut vec![0; sent])?;
    far.write_all(&vec![b'x'; answered])?;
    near.read_exact(&mut vec![0; answered])?;
    let (first, mut second) = if near_first { (near, far) } else { (far, near) };
    drop(first);
    // The end has come: the second close is not the first to be seen.
    second.read_to_end(&mut Vec::new())?;
    drop(second);
    drop(listener);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_its_port_and_its_family() {
        let row = "C  9  load  6  [::1]  [::1]  55758  7001  ";
        assert!(is_mark(row, FIRST, &ADDRESSES[1]));
        assert!(!is_mark(row, LAST, &ADDRESSES[1]));
        assert!(!is_mark(row, FIRST, &ADDRESSES[0]));
    }

    #[test]
    fn an_exchange_ends_whoever_closes_first() {
        let at = |listener: &TcpListener| listener.local_addr().expect("is bound");
        for near_first in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
            let near = TcpStream::connect(at(&listener)).expect("loopback");
            let (far, _) = listener.accept().expect("a connection");
            exchange((near, far, listener), near_first, 1000, 70_000).expect("it ends");
        }
    }
}
