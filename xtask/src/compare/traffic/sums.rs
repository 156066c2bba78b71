//! Traffic that is added up.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
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
