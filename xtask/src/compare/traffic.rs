//! The traffic on which tools are compared: connections over loopback, one after the other, so that there is one order.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

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
}

/// The filter's own network, for both families.
const TABLE: &str = "inet compare";
/// It drops what goes to these ports and is longer than this.
const LOSSY: &str = "add rule inet compare drops tcp dport { 7001, 7002, 20020 } meta length > 200 drop";
/// And all that goes to this one.
const SILENT: u16 = 20_021;
/// Bytes of a segment that is dropped.
const LONG: usize = 400;
/// Until something was sent again so often.
const AGAIN: Duration = Duration::from_secs(30);

impl Traffic {
    /// What has to be in place before the tools start.
    ///
    /// # Errors
    /// The filter refuses.
    pub(super) fn prepare(self) -> Result<()> {
        if self == Self::Connections {
            return Ok(());
        }
        let rules = format!(
            "add table {TABLE}\nflush table {TABLE}\n\
             add chain {TABLE} drops {{ type filter hook input priority 0; }}\n\
             {LOSSY}\nadd rule {TABLE} drops tcp dport {SILENT} drop\n"
        );
        nft(&rules)
    }

    /// Takes away what was prepared.
    ///
    /// # Errors
    /// The filter refuses.
    pub(super) fn clear(self) -> Result<()> {
        if self == Self::Connections { Ok(()) } else { nft(&format!("delete table {TABLE}\n")) }
    }

    /// What every tool for this traffic shows, at this port, in each family.
    ///
    /// # Errors
    /// Loopback does not work.
    pub(super) fn mark(self, port: u16) -> Result<()> {
        for address in ADDRESSES {
            let pair = connect((address, port).into(), (address, port).into())?;
            if self == Self::Retransmits {
                lose(pair, 1)?;
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
            Self::Retransmits => retransmits(),
        }
    }
}

fn nft(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("start nft")?;
    nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    if !nft.wait()?.success() {
        bail!("nft refuses: {rules}");
    }
    Ok(())
}

/// Sends what is dropped until the kernel has sent something again so often, then resets.
fn lose((mut near, far, _listener): (TcpStream, TcpStream, TcpListener), times: u64) -> Result<()> {
    near.set_nodelay(true)?;
    // Left unread, so that to close is to reset.
    near.write_all(b"x")?;
    let until = sent_again()? + times;
    near.write_all(&[b'x'; LONG])?;
    let deadline = Instant::now() + AGAIN;
    while sent_again()? < until {
        if Instant::now() > deadline {
            bail!("nothing is sent again");
        }
        thread::sleep(Duration::from_millis(20));
    }
    drop(far);
    Ok(())
}

/// How many segments the kernel has sent again.
fn sent_again() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp").context("read /proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no counters of TCP")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "RetransSegs").context("no RetransSegs")?;
    value.parse().context("RetransSegs")
}

fn retransmits() -> Result<()> {
    let port = 20_020;
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    for (to, at) in [(ADDRESSES[0], ADDRESSES[0]), (ADDRESSES[1], ADDRESSES[1]), (ADDRESSES[0], mapped)] {
        lose(connect((to, port).into(), (at, port).into())?, 3)?;
    }
    // Nobody answers: the first segment is sent again.
    for address in ADDRESSES {
        drop(TcpStream::connect_timeout(&(address, SILENT).into(), Duration::from_millis(3500)));
    }
    Ok(())
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
