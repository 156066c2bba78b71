//! Traffic that is added up.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{connect, exchange};

/// What a process asks to send at once where nobody reads: more than any buffer takes.
const TOO_MUCH: usize = 32 << 20;

/// Transfers over connections whose sums are far apart, so that there is one order.
pub(super) fn transfers() -> Result<()> {
    let v4 = |last: [u8; 3]| -> IpAddr { Ipv4Addr::new(127, last[0], last[1], last[2]).into() };
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let one = v4([0, 0, 1]);
    for (to, at, sent, answered) in [
        (one, one, 3000, 70_000),
        (one, one, 1023, 1),
        // In two subnets of the list: the first counts.
        (v4([1, 2, 3]), v4([1, 2, 3]), 150_000, 20_000),
        (v4([1, 9, 9]), v4([1, 9, 9]), 400_000, 0),
        // In the last only, which has all.
        (v4([100, 200, 201]), v4([100, 200, 201]), 1_000_000, 9_000),
        // Not for tcpsubnet.
        (v6, v6, 5000, 12_000),
        (one, mapped, 33_000, 7),
    ] {
        let port = 20_001;
        exchange(connect((to, port).into(), (at, port).into())?, true, sent, answered)?;
    }
    // A process whose name is longer than the column.
    let thread = thread::Builder::new().name("abcdefghijklmno".to_owned());
    let thread = thread
        .spawn(move || exchange(connect((one, 20_005).into(), (one, 20_005).into())?, true, 11_000, 900))?;
    thread.join().ok().context("a thread of the traffic")??;
    refused(connect((v4([9, 0, 1]), 20_006).into(), (v4([9, 0, 1]), 20_006).into())?)
}

/// Asks to send more than the kernel takes.
fn refused((mut near, _far, _listener): (TcpStream, TcpStream, TcpListener)) -> Result<()> {
    near.set_nonblocking(true)?;
    let bytes = vec![b'x'; TOO_MUCH];
    let taken = near.write(&bytes)?;
    if taken == TOO_MUCH {
        bail!("the kernel takes {TOO_MUCH} bytes that nobody reads");
    }
    match near.write(&bytes[taken..]) {
        Err(why) if why.kind() == ErrorKind::WouldBlock => {}
        other => drop(other?),
    }
    Ok(())
}

/// For how long, so that what is counted while tools start and end is little.
const TIME: Duration = Duration::from_secs(20);

/// Datagrams and connections.
pub(super) fn interrupts() -> Result<()> {
    let far = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    let near = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    near.connect(far.local_addr()?)?;
    let mut bytes = [b'x'; 100];
    let deadline = Instant::now() + TIME;
    while Instant::now() < deadline {
        for _ in 0..100 {
            near.send(&bytes)?;
            far.recv(&mut bytes)?;
        }
        exchange(connect("127.0.0.1:20001".parse()?, "127.0.0.1:20001".parse()?)?, true, 100, 100)?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A page, as a read that goes past the page cache wants it.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Reads that are an interrupt each.
pub(super) fn reads() -> Result<()> {
    /// `O_DIRECT` on x86-64, where tools are compared.
    const DIRECT: i32 = 0o40000;
    /// Of this part of the disk.
    const PAGES: u64 = 8192;
    let disk: File = OpenOptions::new().read(true).custom_flags(DIRECT).open(DISK).context(DISK)?;
    let mut page = Page([0; 4096]);
    let deadline = Instant::now() + TIME;
    for nth in 0.. {
        if Instant::now() > deadline {
            break;
        }
        disk.read_exact_at(&mut page.0, nth % PAGES * 4096).context("read from the disk")?;
    }
    Ok(())
}

/// The disk that BCC is on.
const DISK: &str = "/dev/nvme0n1";

/// What limits the queues of listeners to come.
const LIMIT: &str = "/proc/sys/net/core/somaxconn";

/// Connections that nobody accepts: 0, 1 and more wait when the next one comes.
pub(super) fn waiting() -> Result<()> {
    let before = fs::read_to_string(LIMIT).context(LIMIT)?;
    let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let mut open = Vec::new();
    for (limit, at, from, count) in [
        ("5", v4, v4, 3),
        ("7", v6, v6, 7),
        ("100", v4, v4, 67),
        // A client of IPv4 at a listener of IPv6.
        ("31", Ipv6Addr::UNSPECIFIED.into(), v4, 1),
    ] {
        fs::write(LIMIT, limit).context(LIMIT)?;
        let listener = TcpListener::bind((at, 0)).context("listen")?;
        let to = (from, listener.local_addr()?.port());
        let clients = (0..count).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>, _>>()?;
        open.push((listener, clients));
    }
    fs::write(LIMIT, before).context(LIMIT)
}
