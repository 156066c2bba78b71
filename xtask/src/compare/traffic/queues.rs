//! Packets of each size on each queue of an interface that has several.
//!
//! The other end of the pair is in a namespace of its own. Nothing moves on it by itself: no IPv6, no search for neighbours.

use std::net::UdpSocket;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::run as run_command;

/// The guest's end, whose name the tools get, and the other one with its namespace.
const SETUP: [&str; 13] = [
    "ip link add nq0 mtu 65535 numtxqueues 4 numrxqueues 4 type veth peer name nq1 mtu 65535 numtxqueues 4 numrxqueues 4",
    "ip netns add far",
    "ip link set nq1 netns far",
    "sysctl -qw net.ipv6.conf.nq0.disable_ipv6=1",
    "ip netns exec far sysctl -qw net.ipv6.conf.nq1.disable_ipv6=1",
    "ip link set nq0 address 02:00:00:00:00:01",
    "ip -n far link set nq1 address 02:00:00:00:00:02",
    "ip addr add 10.77.0.1/24 dev nq0",
    "ip -n far addr add 10.77.0.2/24 dev nq1",
    "ip link set nq0 up",
    "ip -n far link set nq1 up",
    "ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 nud permanent dev nq0",
    "ip -n far neigh replace 10.77.0.1 lladdr 02:00:00:00:00:01 nud permanent dev nq1",
];

/// The address behind the cable, in the network namespace `far`.
pub(super) const FAR: &str = "10.77.0.2";

pub(super) fn prepare() -> Result<()> {
    SETUP.iter().try_for_each(|line| words(line))
}

pub(super) fn clear() -> Result<()> {
    words("ip link delete nq0")?;
    words("ip netns delete far")
}

fn words(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    run_command(Command::new(words.next().context("a command")?).args(words))
}

/// Runs this program in the network namespace behind the cable.
pub(super) fn far(args: &[&str]) -> Result<Command> {
    let mut cmd = Command::new("ip");
    cmd.args(["netns", "exec", "far"]).arg(std::env::current_exe()?).args(args);
    Ok(cmd)
}

/// Sends flows through the cable in both directions.
pub(super) fn run() -> Result<()> {
    flows(FAR)?;
    run_command(&mut far(&["beside", "flows", "10.77.0.1"])?)
}

/// Datagrams of many flows, in sizes on all sides of the classes. Whoever gets them does not listen, and says so.
///
/// # Errors
/// The datagrams cannot be sent.
pub(crate) fn flows(to: &str) -> Result<()> {
    // Headers of UDP, IPv4 and the link are 42 bytes, of which the receiver counts 28.
    for payload in [10, 21, 22, 35, 36, 400, 470, 484, 2005, 2006, 5000, 16_341, 16_356, 40_000, 65_000] {
        for flow in 0..16 {
            let socket = UdpSocket::bind("0.0.0.0:0").context("a port")?;
            // Nobody is asked twice, for to ask again would give the answer to the first.
            socket.send_to(&vec![b'x'; payload], (to, 20_100 + flow)).context("send")?;
        }
    }
    Ok(())
}
