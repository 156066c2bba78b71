//! The traffic of the benchmark, run inside the guest: connections over loopback, or sends in one, or datagrams, one after the
//! other.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Connects, accepts, sends 64 bytes, reads them, closes, `count` times; answers the nanoseconds that took.
///
/// # Errors
/// Loopback does not work.
pub(crate) fn connections(count: u32) -> Result<u128> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let at = listener.local_addr()?;
    let mut bytes = [b'x'; 64];
    let start = Instant::now();
    for _ in 0..count {
        let mut near = TcpStream::connect(at).context("connect over loopback")?;
        let (mut far, _) = listener.accept()?;
        near.write_all(&bytes)?;
        far.read_exact(&mut bytes)?;
        drop(near);
        drop(far);
    }
    Ok(start.elapsed().as_nanos())
}

/// Sends 1000 bytes over one connection and reads them, `count` times; answers the nanoseconds that took.
///
/// # Errors
/// Loopback does not work.
pub(crate) fn sends(count: u32) -> Result<u128> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let mut near = TcpStream::connect(listener.local_addr()?).context("connect over loopback")?;
    let (mut far, _) = listener.accept()?;
    let mut bytes = [b'x'; 1000];
    let start = Instant::now();
    for _ in 0..count {
        near.write_all(&bytes)?;
        far.read_exact(&mut bytes)?;
    }
    Ok(start.elapsed().as_nanos())
}

/// Sends a datagram of 100 bytes and reads it, `count` times; answers the nanoseconds that took.
///
/// # Errors
/// Loopback does not work.
pub(crate) fn datagrams(count: u32) -> Result<u128> {
    let far = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    let near = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    near.connect(far.local_addr()?)?;
    let mut bytes = [b'x'; 100];
    let start = Instant::now();
    for _ in 0..count {
        near.send(&bytes)?;
        far.recv(&mut bytes)?;
    }
    Ok(start.elapsed().as_nanos())
}
