//! Network namespaces of a test's own, with addresses that no other test has.
//!
//! The tools see the whole machine, so a test tells its rows from everybody else's by address or port: each
//! `Net` has a block of both to itself.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::kernel::skip;
use crate::netlink::Netlink;
use crate::peer::Peer;
use crate::run::{PATIENCE, spawn};

/// The port of the connect that says "nothing more is to come"; nobody listens there.
pub const END_PORT: u16 = 9;

/// Ports of a block.
const PORTS: u16 = 16;

/// How many blocks there are before one has the ports of another. Far more than tests that run at the same time.
const BLOCKS: u16 = 780;

/// The ports of all blocks: below the range from which the kernel takes local ports.
const OWN_PORTS: Range<u16> = 8192..FREE_PORTS;
/// From here on no port is some test's own. A client that the kernel gives one of those would be taken for a server.
pub const FREE_PORTS: u16 = 8192 + BLOCKS * PORTS;

/// One network namespace.
#[derive(Debug)]
pub struct Space(OwnedFd);

impl Space {
    /// The namespace of the calling thread.
    fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("/proc is mounted").into())
    }

    /// A new one with nothing but a loopback interface that is up.
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok::<_, nix::Error>(Self::current())
        });
        made.join().expect("no panic in there").expect("a network namespace (are we root?)")
    }

    /// Runs `action` in this namespace: sockets and processes that it makes belong there.
    pub fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        struct Back(Space);
        impl Drop for Back {
            fn drop(&mut self) {
                setns(&self.0.0, CloneFlags::CLONE_NEWNET).expect("back to where we came from");
            }
        }
        let _back = Back(Self::current());
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("into a namespace of ours");
        action()
    }

    /// With `NETBCC_SCATTER`, packets are received on whichever processor their addresses say, in whatever context is
    /// there (receive packet steering), rather than in the sender's own.
    fn scatter(&self) {
        if std::env::var_os("NETBCC_SCATTER").is_some() {
            self.steer();
        }
    }

    /// Packets are received on whichever processor their addresses say (receive packet steering).
    pub fn steer(&self) {
        let processors = thread::available_parallelism().map_or(1, |count| count.get().min(32));
        let mask = format!("{:x}", (1_u64 << processors) - 1);
        // The settings are files, and whoever mounts them sees those of its own namespace.
        let steer = || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
            for device in fs::read_dir("/sys/class/net")? {
                let Ok(queues) = fs::read_dir(device?.path().join("queues")) else { continue };
                for queue in queues {
                    let setting = queue?.path().join("rps_cpus");
                    if setting.exists() {
                        fs::write(setting, &mask)?;
                    }
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                steer()
            });
            thread.join().expect("no panic in there").expect("queues of ours");
        });
    }

    /// A path by which other programs find the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Writes a setting below `/proc/sys/net`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = PathBuf::from("/proc/sys/net").join(name);
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Sets it where the kernel has such a setting.
    pub fn sysctl_if_any(&self, name: &str, value: &str) {
        if self.enter(|| Path::new("/proc/sys/net").join(name).exists()) {
            self.sysctl(name, value);
        }
    }

    /// Feeds lines to a configuration program; false when it refuses them.
    fn configure(&self, program: &str, args: &[&str], lines: &str) -> Result<(), String> {
        let child = self.enter(|| {
            let mut command = Command::new(program);
            spawn(command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()))
        });
        let mut child = child.map_err(|e| format!("{program}: {e}"))?;
        child.stdin.take().expect("is piped").write_all(lines.as_bytes()).map_err(|e| e.to_string())?;
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        let told = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        if output.status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {told}")) }
    }

    /// `ip` commands, one a line.
    pub fn ip(&self, lines: &str) {
        self.configure("ip", &["-batch", "-"], lines).unwrap_or_else(|e| panic!("{e}\n{lines}"));
    }

    /// Makes a cable by this `ip` command; skips the test where the kernel has none.
    fn plug(&self, cable: &str) {
        // The first one loads the module. A second one that asks for it meanwhile would be told that there is none.
        static MODULE: Mutex<()> = Mutex::new(());
        let one = MODULE.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.configure("ip", &["-batch", "-"], cable);
        drop(one);
        if let Err(error) = made {
            skip(format!("veth ({error})"));
        }
    }

    /// One `tc` command; skips the test where the kernel refuses it.
    pub fn tc(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        if let Err(error) = self.configure("tc", &words, "") {
            skip(format!("this queueing discipline ({error})"));
        }
    }

    /// nft commands; skips the test where the kernel has no `nf_tables`.
    pub fn nft(&self, lines: &str) {
        // One after the other: while the kernel loads the module for one, it refuses another.
        static LOADING: Mutex<()> = Mutex::new(());
        let added = {
            let _turn = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
            self.configure("nft", &["add", "table", "inet", "probe"], "")
        };
        if let Err(error) = added {
            skip(format!("nf_tables ({error})"));
        }
        self.configure("nft", &["-f", "-"], lines).unwrap_or_else(|e| panic!("{e}\n{lines}"));
    }
}

/// The namespaces of one test.
#[derive(Debug)]
pub struct Net {
    block: u16,
    spaces: Vec<Space>,
}

impl Net {
    fn block() -> u16 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Another copy of these tests may run beside this one.
        let start = std::process::id().wrapping_mul(977);
        let block = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(block % 65_000).expect("is below") + 1
    }

    /// One namespace whose loopback interface carries three addresses of each family.
    pub fn new() -> Self {
        Self::of(Self::block())
    }

    /// Another namespace with the very addresses that this one had when it was made.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self::of(self.block)
    }

    fn of(block: u16) -> Self {
        let net = Self { block, spaces: vec![Space::new()] };
        let configure = || {
            let netlink = Netlink::open()?;
            netlink.loopback_up()?;
            for host in 1..=3 {
                netlink.loopback_address(net.host(host).into())?;
                if has_ipv6() {
                    netlink.loopback_address(net.host6(host).into())?;
                }
            }
            if has_ipv6() {
                (1..=3).for_each(|host| await_local(net.host6(host)));
            }
            Ok::<_, io::Error>(())
        };
        net.near().enter(configure).expect("addresses for a namespace of ours");
        net.near().scatter();
        net
    }

    /// Gives the near namespace one more host of each family, for `v4_of` and `v6_of`.
    pub fn add_host(&self, host: u8) {
        self.add_address(self.host(host));
        if has_ipv6() {
            self.add_address(self.host6(host));
        }
    }

    /// Gives the near namespace one more address.
    pub fn add_address(&self, address: impl Into<IpAddr>) {
        let address = address.into();
        let add = || {
            Netlink::open()?.loopback_address(address)?;
            if let IpAddr::V6(ip) = address {
                await_local(ip);
            }
            Ok::<_, io::Error>(())
        };
        self.near().enter(add).expect("an address for a namespace of ours");
    }

    /// Two namespaces joined by a cable: address 1 is here, address 2 there.
    pub fn pair() -> Self {
        let net = Self { block: Self::block(), spaces: vec![Space::new(), Space::new()] };
        let cable = format!("link add cable type veth peer name cable netns {}", net.far().path());
        net.near().plug(&cable);
        for (space, host) in [(net.near(), 1), (net.far(), 2)] {
            let mut lines = String::from("link set lo up\nlink set cable up\n");
            let _infallible = writeln!(lines, "addr add {}/24 dev cable", net.host(host));
            if has_ipv6() {
                let _infallible = writeln!(lines, "addr add {}/64 dev cable nodad", net.host6(host));
            }
            space.ip(&lines);
            space.scatter();
        }
        net
    }

    /// MPTCP connections of a [`Net::pair`] from here to there get a further subflow from address 3, and it answers that: in
    /// the call that sets this, those that are there; in a thread of the kernel, later ones. Skips the test where the kernel
    /// has no such setting.
    pub fn further_subflow(&self) -> Ipv4Addr {
        let address = self.host(3);
        let limits = "mptcp limits set subflows 1 add_addr_accepted 0\n";
        let here =
            format!("addr replace {address}/24 dev cable\n{limits}mptcp endpoint add {address} subflow\n");
        for (space, lines) in [(self.far(), limits), (self.near(), &here)] {
            if let Err(error) = space.configure("ip", &["-batch", "-"], lines) {
                skip(format!("further subflows ({error})"));
            }
        }
        address
    }

    /// Waits until so many connections from that address are established on both sides of the cable.
    pub fn await_further_subflows(&self, count: usize) {
        const ESTABLISHED: &str = "01";
        let address = format!("{:08X}:", u32::from_ne_bytes(self.host(3).octets()));
        let deadline = Instant::now() + PATIENCE;
        // Words of a line: its number, the local end, the remote end, the state (Documentation/networking/proc_net_tcp.rst).
        let is_one = |line: &&str| {
            let words: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
            words[1..3].iter().any(|end| end.starts_with(&address)) && words[3] == ESTABLISHED
        };
        let sockets = || fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc is mounted");
        for space in [self.near(), self.far()] {
            space.enter(|| {
                while sockets().lines().filter(is_one).count() < count {
                    assert!(Instant::now() < deadline, "no connection from there:\n{}", sockets());
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
    }

    /// Two namespaces joined by a cable whose ends have so many queues (TX and RX) and the same number, and on which
    /// nothing moves by itself. Address 1 is here, address 2 there.
    pub fn cable(near: (u8, u8), far: (u8, u8)) -> Self {
        let net = Self { block: Self::block(), spaces: vec![Space::new(), Space::new()] };
        let end = |host: u8, (tx, rx): (u8, u8)| {
            format!("cable index 77 address 02:00:00:00:00:0{host} numtxqueues {tx} numrxqueues {rx}")
        };
        let cable = format!(
            "link add {} type veth peer name {} netns {}",
            end(1, near),
            end(2, far),
            net.far().path()
        );
        net.near().plug(&cable);
        for (space, host) in [(net.near(), 1), (net.far(), 2)] {
            if has_ipv6() {
                space.sysctl("ipv6/conf/all/disable_ipv6", "1");
            }
            space.ip(&format!(
                "link set cable up\naddr add {}/24 dev cable\n{}",
                net.host(host),
                net.neighbour(3 - host, "cable")
            ));
        }
        net
    }

    /// The `ip` command by which this address of a [`Net::cable`] is not asked for.
    pub fn neighbour(&self, host: u8, device: &str) -> String {
        format!(
            "neigh replace {} lladdr 02:00:00:00:00:0{host} dev {device} nud permanent\n",
            self.host(host)
        )
    }

    /// The namespace where a test's processes are unless it says otherwise.
    pub fn near(&self) -> &Space {
        &self.spaces[0]
    }

    /// The other end of the cable.
    pub fn far(&self) -> &Space {
        &self.spaces[1]
    }

    fn host(&self, host: u8) -> Ipv4Addr {
        let [high, low] = self.block.to_be_bytes();
        Ipv4Addr::new(10, high, low, host)
    }

    fn host6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd4e, self.block, 0, 0, 0, 0, 0, host.into())
    }

    /// Our IPv4 address with this port.
    pub fn v4(&self, port: u16) -> SocketAddr {
        self.v4_of(1, port)
    }

    /// Address 1, 2 or 3 with this port.
    pub fn v4_of(&self, host: u8, port: u16) -> SocketAddr {
        (self.host(host), self.named(port)).into()
    }

    /// A new IPv6 address that begins with the bytes of that IPv4 address and has no others, with this port.
    pub fn v4_like(&self, host: u8, port: u16) -> SocketAddr {
        let [a, b, c, d] = self.host(host).octets();
        let ip = Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.add_address(ip);
        (ip, self.named(port)).into()
    }

    /// Our IPv6 address with this port; skips the test where there is no IPv6.
    pub fn v6(&self, port: u16) -> SocketAddr {
        self.v6_of(1, port)
    }

    /// IPv6 address 1, 2 or 3 with this port.
    pub fn v6_of(&self, host: u8, port: u16) -> SocketAddr {
        require_ipv6();
        (self.host6(host), self.named(port)).into()
    }

    /// An IPv4 address as IPv6 sockets write it.
    pub fn mapped(address: SocketAddr) -> SocketAddr {
        require_ipv6();
        match address.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), address.port()).into(),
            IpAddr::V6(ip) => (ip, address.port()).into(),
        }
    }

    /// An address from which nothing ever comes back, not even an error.
    pub fn silent(&self, port: u16) -> SocketAddr {
        let ip = self.host(66);
        let route = || Netlink::open()?.route_into_loopback(ip.into());
        self.near().enter(route).expect("a route for a namespace of ours");
        (ip, port).into()
    }

    /// An address to which there is no route.
    pub fn unroutable(&self, port: u16) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, 1), port).into()
    }

    /// An IPv6 address to which there is no route.
    pub fn unroutable6(&self, port: u16) -> SocketAddr {
        require_ipv6();
        (Ipv6Addr::new(0x2001, 0xdb8, self.block, 0, 0, 0, 0, 1), port).into()
    }

    /// `::1`, for tests that must use it.
    pub fn loopback6(port: u16) -> SocketAddr {
        require_ipv6();
        (Ipv6Addr::LOCALHOST, port).into()
    }

    /// Segments that the kernel says it sent again in the near namespace.
    pub fn retransmissions(&self) -> usize {
        let text =
            self.near().enter(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("there is TCP"));
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let mut found = names.split(' ').zip(values.split(' '));
        let (_, value) = found.find(|(name, _)| *name == "RetransSegs").expect("it counts them");
        value.parse().expect("a number")
    }

    /// A port that only this test has, for tests that must use 127.0.0.1 or `::1`.
    pub fn port(&self, nth: u16) -> u16 {
        assert!(nth < PORTS, "a block has {PORTS} ports");
        OWN_PORTS.start + self.block % BLOCKS * PORTS + nth
    }

    /// Insists that no other test would take a row with this port for its own.
    fn named(&self, port: u16) -> u16 {
        let is_own = (self.port(0)..self.port(0) + PORTS).contains(&port);
        assert!(is_own || !OWN_PORTS.contains(&port), "port {port} belongs to some other test");
        port
    }

    /// Whether a row with these addresses and ports is this test's.
    pub fn owns<'a>(
        &self,
        addresses: impl Iterator<Item = &'a str>,
        mut ports: impl Iterator<Item = &'a str>,
    ) -> bool {
        let [high, low] = self.block.to_be_bytes();
        let v4 = format!("10.{high}.{low}.");
        let mapped = format!("::ffff:{v4}");
        let v6 = format!("fd4e:{:x}:", self.block);
        let mine = self.port(0)..self.port(0) + PORTS;
        addresses
            .map(|a| a.strip_prefix('[').unwrap_or(a))
            .any(|a| [&v4, &mapped, &v6].into_iter().any(|prefix| a.starts_with(prefix)))
            || ports.any(|p| p.parse().is_ok_and(|p| mine.contains(&p)))
    }

    /// A process of this name in the near namespace.
    pub fn peer(&self, name: &str) -> Peer {
        Peer::of(name.as_bytes(), &self.near().path())
    }

    /// A process that this thread starts now, in the namespaces that its children have.
    pub fn new_peer(&self, name: &str) -> Peer {
        Peer::new_of(name.as_bytes(), &self.near().path())
    }

    /// A process with any bytes as its name.
    pub fn peer_named(&self, name: &[u8]) -> Peer {
        Peer::of(name, &self.near().path())
    }

    /// A process of this name at the other end of the cable.
    pub fn far_peer(&self, name: &str) -> Peer {
        Peer::of(name.as_bytes(), &self.far().path())
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until packets to a new IPv6 address arrive: the kernel makes the route for that a little later.
fn await_local(address: Ipv6Addr) {
    const RTF_LOCAL: u32 = 0x8000_0000;
    let wanted = format!("{:032x} 80 ", address.to_bits());
    let is_local = |line: &str| {
        let flags = line.split_whitespace().nth(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        line.starts_with(&wanted) && flags.is_some_and(|flags| flags & RTF_LOCAL != 0)
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").expect("there is IPv6");
        if routes.lines().any(is_local) {
            return;
        }
        assert!(Instant::now() < deadline, "{address} does not become local\n{routes}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this kernel does IPv6 at all.
pub fn has_ipv6() -> bool {
    fs::exists("/proc/net/if_inet6").is_ok_and(|exists| exists)
}

fn require_ipv6() {
    if !has_ipv6() {
        skip("IPv6");
    }
}
