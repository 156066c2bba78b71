//! The traffic of the benchmark, run inside the guest, all of it over loopback and one thing after the other.
//!
//! `load NAME COUNT` prints the nanoseconds that it took, `load start COMMAND...` how long a tool takes to start,
//! `load memory PID` what the kernel keeps for it, `load programs PID` how long its BPF programs have run, and
//! `load flood NAME SECONDS` how often it was done in that time, after a number that stands in each row of it.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a load does `count` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Connects, accepts, sends 64 bytes, reads them, closes: ten changes of state.
    Connects,
    /// Connects, accepts, sends 64 bytes, closes the accepted end, which nobody read, and so resets the other: six.
    Resets,
    /// Makes a socket, binds it, listens, closes.
    Listens,
    /// Sends 1000 bytes over one connection and reads them.
    Sends,
    /// Sends a datagram of 100 bytes and reads it.
    Datagrams,
    /// Asks a DNS server, which is the same process, and reads its answer.
    Questions,
    /// Writes what the guest's filter drops on its way out.
    Drops,
    /// Waits, at work, while segments are sent again that the guest's filter drops on their way in.
    Retransmits,
}

/// Every load.
const LOADS: [Load; 8] = [
    Load::Connects,
    Load::Resets,
    Load::Listens,
    Load::Sends,
    Load::Datagrams,
    Load::Questions,
    Load::Drops,
    Load::Retransmits,
];

/// To this port goes what the guest's filter drops when it is longer than [`DROPPED_BYTES`].
pub(crate) const DROPPED_PORT: u16 = 9;
/// See [`DROPPED_PORT`]: bytes of a packet.
pub(crate) const DROPPED_BYTES: u32 = 200;
/// Writes per connection: together less than a socket's send buffer, and than one segment over loopback.
const WRITES: u32 = 8;
/// Rounds of a counter, for about a second of the guest: each connection sends its segment again a few times.
const SPIN: u64 = 60_000_000;

impl Load {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connects => "connects",
            Self::Resets => "resets",
            Self::Listens => "listens",
            Self::Sends => "sends",
            Self::Datagrams => "datagrams",
            Self::Questions => "questions",
            Self::Drops => "drops",
            Self::Retransmits => "retransmits",
        }
    }

    /// What one of its operations is called.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Connects => "connection",
            Self::Resets => "connection, reset",
            Self::Listens => "listen",
            Self::Sends => "send + receive",
            Self::Datagrams => "datagram",
            Self::Questions => "DNS question + answer",
            Self::Drops => "drop",
            Self::Retransmits => "retransmit",
        }
    }

    fn of(name: &str) -> Option<Self> {
        LOADS.into_iter().find(|load| load.name() == name)
    }

    /// Makes the traffic; answers the nanoseconds that took.
    ///
    /// # Errors
    /// Loopback does not work.
    fn run(self, count: u32) -> Result<u128> {
        match self {
            Self::Connects => connections(count, true),
            Self::Resets => connections(count, false),
            Self::Listens => listens(count),
            Self::Sends => sends(count),
            Self::Datagrams => datagrams(count),
            Self::Questions => questions(count),
            Self::Drops => drops(count),
            Self::Retransmits => retransmits(count),
        }
    }

    /// Does it as often as one core can in this time: a number that stands in each row of it, and how often.
    ///
    /// # Errors
    /// Loopback does not work, or this load cannot be a flood.
    fn flood(self, time: Duration) -> Result<(u32, u64)> {
        let mut count: u64 = 0;
        let start = Instant::now();
        match self {
            Self::Connects => {
                let listener = TcpListener::bind("0.0.0.0:0").context("listen")?;
                let port = listener.local_addr()?.port();
                while start.elapsed() < time {
                    // One address would be out of ports after 28,000, which are kept for a minute.
                    let [high, low, ..] = (count % 40_000).to_le_bytes();
                    connection(&listener, (Ipv4Addr::new(127, 1, high, low), port).into(), true)?;
                    count += 1;
                }
                Ok((port.into(), count))
            }
            Self::Listens => {
                while start.elapsed() < time {
                    drop(TcpListener::bind("127.0.0.1:0").context("listen on loopback")?);
                    count += 1;
                }
                Ok((std::process::id(), count))
            }
            _ => bail!("{} is no flood", self.name()),
        }
    }
}

/// The command inside the guest.
///
/// # Errors
/// It is not known, or loopback does not work.
pub(crate) fn load(args: &[&str]) -> Result<()> {
    match args {
        ["start", command @ ..] => {
            let start = crate::bench::start(command)?;
            println!("{} {} {}", start.ns, start.kib, start.kernel);
        }
        ["programs", pid] => println!("{}", crate::bench::program_time(pid)?),
        ["memory", pid] => println!("{}", crate::bench::kernel_memory(pid)?),
        ["flood", name, seconds] => {
            let load = Load::of(name).with_context(|| format!("no load {name}"))?;
            let (mark, count) = load.flood(Duration::from_secs(seconds.parse().context("for how long?")?))?;
            println!("{mark} {count}");
        }
        [name, count] => {
            let load = Load::of(name).with_context(|| format!("no load {name}"))?;
            println!("{}", load.run(count.parse().context("how often?")?)?);
        }
        _ => bail!("load NAME COUNT, load flood NAME SECONDS, or load start COMMAND"),
    }
    Ok(())
}

fn connections(count: u32, read: bool) -> Result<u128> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let at = listener.local_addr()?;
    let start = Instant::now();
    for _ in 0..count {
        connection(&listener, at, read)?;
    }
    Ok(start.elapsed().as_nanos())
}

fn connection(listener: &TcpListener, at: SocketAddr, read: bool) -> Result<()> {
    let mut bytes = [b'x'; 64];
    let mut near = TcpStream::connect(at).context("connect over loopback")?;
    let (mut far, _) = listener.accept()?;
    near.write_all(&bytes)?;
    if read {
        far.read_exact(&mut bytes)?;
        drop(near);
        drop(far);
    } else {
        drop(far);
        drop(near);
    }
    Ok(())
}

fn listens(count: u32) -> Result<u128> {
    let start = Instant::now();
    for _ in 0..count {
        drop(TcpListener::bind("127.0.0.1:0").context("listen on loopback")?);
    }
    Ok(start.elapsed().as_nanos())
}

fn sends(count: u32) -> Result<u128> {
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

fn datagrams(count: u32) -> Result<u128> {
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

fn questions(count: u32) -> Result<u128> {
    const NAME: &[u8] = b"\x03www\x07example\x03com\0";
    // A header with one question; its type and class; and a record that points to its name.
    let begin = |flags: [u8; 2], answers: u8| [0, 0, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0];
    let mut question = [&begin([1, 0], 0)[..], NAME, &[0, 1, 0, 1]].concat();
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 8, 7];
    let mut answer = [&begin([0x81, 0x80], 1)[..], NAME, &[0, 1, 0, 1], &record].concat();
    let far = UdpSocket::bind("127.0.0.1:53").context("the port of DNS on loopback")?;
    let near = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    let at = near.local_addr()?;
    near.connect(far.local_addr()?)?;
    let mut bytes = [0; 512];
    let start = Instant::now();
    for nth in 0..count {
        let id = nth.to_be_bytes();
        question[..2].copy_from_slice(&id[2..]);
        answer[..2].copy_from_slice(&id[2..]);
        near.send(&question)?;
        far.recv(&mut bytes)?;
        far.send_to(&answer, at)?;
        near.recv(&mut bytes)?;
    }
    Ok(start.elapsed().as_nanos())
}

fn drops(count: u32) -> Result<u128> {
    let listener = TcpListener::bind(("127.0.0.1", DROPPED_PORT)).context("listen on loopback")?;
    let at = listener.local_addr()?;
    let start = Instant::now();
    for _ in 0..count / WRITES {
        let mut near = TcpStream::connect(at).context("connect over loopback")?;
        near.set_nodelay(true)?;
        let (far, _) = listener.accept()?;
        near.write_all(b"x")?;
        for _ in 0..WRITES {
            near.write_all(&[b'x'; DROPPED_BYTES as usize])?;
        }
        // It did not read its byte: this resets the other end, which then has nothing left to send.
        drop(far);
    }
    Ok(start.elapsed().as_nanos())
}

fn retransmits(count: u32) -> Result<u128> {
    let listener = TcpListener::bind(("127.0.0.1", DROPPED_PORT)).context("listen on loopback")?;
    let at = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut near = TcpStream::connect(at).context("connect over loopback")?;
        let (far, _) = listener.accept()?;
        near.write_all(b"x")?;
        pairs.push((near, far));
    }
    for (near, _) in &mut pairs {
        near.write_all(&[b'x'; DROPPED_BYTES as usize])?;
    }
    // Timers send again. To sleep meanwhile would cost the same time whatever they cost; a count of rounds takes as much
    // longer as they take from it.
    let start = Instant::now();
    for round in 0..SPIN {
        black_box(round);
    }
    let took = start.elapsed().as_nanos();
    for (near, far) in pairs {
        drop(far);
        drop(near);
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_found_by_their_names() {
        for load in LOADS {
            assert_eq!(Load::of(load.name()), Some(load));
        }
        assert_eq!(Load::of("connect"), None);
    }

    #[test]
    fn traffic_that_needs_no_filter_runs_anywhere() {
        for load in [Load::Connects, Load::Resets, Load::Listens, Load::Sends, Load::Datagrams] {
            assert!(load.run(3).expect("loopback works") > 0);
        }
    }

    #[test]
    fn a_flood_ends_and_tells_how_much_it_was() {
        for load in [Load::Connects, Load::Listens] {
            let (mark, count) = load.flood(Duration::from_millis(50)).expect("loopback works");
            assert!(mark > 0 && count > 0);
        }
        assert!(Load::Drops.flood(Duration::ZERO).is_err());
    }
}
