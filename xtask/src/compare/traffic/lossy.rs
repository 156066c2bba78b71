//! Segments that the guest's filter drops.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{ADDRESSES, FIRST, LAST, connect, queues};

/// The filter's own network, for both families.
const TABLE: &str = "inet compare";
/// What goes to this port, and is longer than a segment without much in it, is dropped on its way in.
const LOSSY: u16 = 20_020;
/// And all that goes to this one.
const SILENT: u16 = 20_021;
/// Long segments to this one are dropped on their way out.
const SHUT: u16 = 20_022;
/// So are datagrams to this one.
const SHUT_DATAGRAM: u16 = 20_023;
/// Long segments from this one, of another host, are dropped on their way in.
const SPEAKS: u16 = 20_024;
/// Bytes of a segment that is dropped.
const LONG: usize = 400;
/// Until something was sent again so often.
const AGAIN: Duration = Duration::from_secs(30);
/// What the kernel says of its tracepoint for drops, the names of reasons among it.
const FORMAT: &str = "/sys/kernel/tracing/events/skb/kfree_skb/format";

/// Where the filter drops the segments of the marks.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    /// On their way in: they are sent, and sent again.
    Input,
    /// On their way out: their socket is known. Over loopback none is before TCP has them.
    Output,
}

pub(super) fn prepare(marks: Hook) -> Result<()> {
    let marks = match marks {
        Hook::Input => "drops",
        Hook::Output => "out",
    };
    nft(&format!(
        "add table {TABLE}\nflush table {TABLE}\n\
         add chain {TABLE} drops {{ type filter hook input priority 0; }}\n\
         add chain {TABLE} out {{ type filter hook output priority 0; }}\n\
         add rule {TABLE} {marks} tcp dport {{ {FIRST}, {LAST} }} meta length > 200 drop\n\
         add rule {TABLE} drops tcp dport {LOSSY} meta length > 200 drop\n\
         add rule {TABLE} drops tcp dport {SILENT} drop\n\
         add rule {TABLE} drops tcp sport {SPEAKS} meta length > 200 drop\n\
         add rule {TABLE} out tcp dport {SHUT} meta length > 200 drop\n\
         add rule {TABLE} out udp dport {SHUT_DATAGRAM} drop\n"
    ))
}

pub(super) fn clear() -> Result<()> {
    nft(&format!("delete table {TABLE}\n"))
}

fn nft(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("start nft")?;
    nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    if !nft.wait()?.success() {
        bail!("nft refuses: {rules}");
    }
    Ok(())
}

/// Until a timer has tried again to send what the filter refuses: half a second.
const RETRY: Duration = Duration::from_millis(700);

/// Sends what the filter refuses, and resets.
pub(super) fn refused((mut near, far, _listener): (TcpStream, TcpStream, TcpListener)) -> Result<()> {
    near.set_nodelay(true)?;
    // Left unread, so that to close is to reset.
    near.write_all(b"x")?;
    near.write_all(&[b'x'; LONG])?;
    thread::sleep(RETRY);
    drop(far);
    Ok(())
}

/// Sends what is dropped until the kernel has sent something again so often, then resets.
pub(super) fn lose(
    (mut near, far, _listener): (TcpStream, TcpStream, TcpListener),
    times: u64,
) -> Result<()> {
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

pub(super) fn retransmits() -> Result<()> {
    let port = LOSSY;
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

/// Connections whose segments are lost until a timer has fired, and then arrive, three times each.
pub(super) fn stalls() -> Result<()> {
    let again = format!("add rule {TABLE} drops tcp dport {LOSSY} meta length > 200 drop\n");
    for address in ADDRESSES {
        let (mut near, mut far, _listener) = connect((address, LOSSY).into(), (address, LOSSY).into())?;
        near.set_nodelay(true)?;
        for _ in 0..3 {
            nft(&format!("flush chain {TABLE} drops\n{again}"))?;
            // The first may be a probe, which no timer of a loss sends.
            let until = sent_again()? + 2;
            near.write_all(&[b'x'; LONG])?;
            let deadline = Instant::now() + AGAIN;
            while sent_again()? < until {
                if Instant::now() > deadline {
                    bail!("nothing is sent again");
                }
                thread::sleep(Duration::from_millis(20));
            }
            nft(&format!("flush chain {TABLE} drops\n"))?;
            far.read_exact(&mut [0; LONG])?;
            far.write_all(b"x")?;
            near.read_exact(&mut [0])?;
        }
    }
    Ok(())
}

pub(super) fn drops() -> Result<()> {
    let other = Ipv4Addr::new(127, 0, 0, 9);
    let mapped: IpAddr = other.to_ipv6_mapped().into();
    for (to, at) in [(ADDRESSES[0], ADDRESSES[0]), (ADDRESSES[1], ADDRESSES[1]), (other.into(), mapped)] {
        refused(connect((to, SHUT).into(), (at, SHUT).into())?)?;
    }
    // On their way in over loopback: neither tool can tell whose they are.
    lose(connect((ADDRESSES[0], LOSSY).into(), (ADDRESSES[0], LOSSY).into())?, 1)?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    // The filter's refusal comes back as an error of this call.
    drop(socket.send_to(&[b'x'; LONG], ("127.0.0.1", SHUT_DATAGRAM)));
    // On their way in from another host: the kernel looks for their socket before the filter.
    let mut far =
        queues::far(&["beside", "speak"])?.stdout(Stdio::piped()).spawn().context("the other host")?;
    // It says when it listens.
    far.stdout.take().context("its output")?.read_exact(&mut [0])?;
    let near = TcpStream::connect((queues::FAR, SPEAKS)).context("connect to the other host")?;
    let status = far.wait()?;
    drop(near);
    if !status.success() {
        bail!("the other host: {status}");
    }
    Ok(())
}

/// What the other host does: sends to who connects what the filter drops there.
///
/// # Errors
/// The address is not its own, or nobody connects.
pub(crate) fn speak() -> Result<()> {
    let listener = TcpListener::bind((queues::FAR, SPEAKS)).context("listen")?;
    println!("listening");
    let (mut far, _) = listener.accept()?;
    let until = sent_again()? + 2;
    far.write_all(&[b'x'; LONG])?;
    let deadline = Instant::now() + AGAIN;
    while sent_again()? < until && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What the kernel calls a drop by its filter: name and number.
pub(super) fn names() -> Result<Vec<String>> {
    let format = fs::read_to_string(FORMAT).with_context(|| format!("read {FORMAT}"))?;
    Ok(vec![reason(&format, "NETFILTER_DROP").context("the kernel has no NETFILTER_DROP")?])
}

/// The reason with its number, from a list like `{ 2, "NO_SOCKET" }, { 7, "NETFILTER_DROP" }`.
fn reason(format: &str, name: &str) -> Option<String> {
    let (before, _) = format.split_once(&format!("\"{name}\""))?;
    let number = before.rsplit('{').next()?.trim_matches([' ', ',']);
    Some(format!("{name} ({number})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_list_gives_the_number() {
        let format = "__print_symbolic(REC->reason, { 2, \"NO_SOCKET\" }, { 7, \"NETFILTER_DROP\" })";
        assert_eq!(reason(format, "NETFILTER_DROP").as_deref(), Some("NETFILTER_DROP (7)"));
        assert_eq!(reason(format, "QDISC_DROP"), None);
    }
}
