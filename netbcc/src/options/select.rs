//! The options by which every tool chooses what it shows: one group of long options with one grammar, checked before
//! anything is loaded. The engine adds them to each tool's command line; a tool only says which of them mean nothing to
//! it, and why ([`Refused`]).
//!
//! A value is a list with commas. A word of it is one value or a range, and `!` before it excludes what it names. Kept is
//! what one of the other words names, or everything where there are none, without what is excluded. Lists of an option
//! that is given more than once add up.
//!
//! Lives here: the grammar. `probe/plan.rs` brings it to the kernel, `probes-ebpf/src/filter.rs` asks it there.

mod places;
mod tasks;

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command};
use netbcc_common::Comm;
use netbcc_common::addr::Addr;
use netbcc_common::filter::PORT_SET_BYTES;
use nix::sys::statfs::{NSFS_MAGIC, statfs};

pub use self::places::{Group, Groups, PlaceList, place_list};
pub use self::tasks::{
    IdList, NameList, Names, name_list, pid_list, pid_list_or_all, prefixes as id_prefixes, uid_list,
};
use super::{FILTERS, Family};
use crate::error::usage;
use crate::words::{nearest_of, words};

/// What a tool refuses of the options here: their names, and why they mean nothing to it.
pub type Refused = (&'static [&'static str], &'static str);

/// Every option here: its name, the name of its value, and its sentence.
const OPTIONS: [(&str, &str, &str); 10] = [
    (PID, "PIDS", "These processes only: 181,1000-1999,!1234"),
    (UID, "UIDS", "These users only: 0,1000-1999"),
    (COMM, "NAMES", "Threads of these names only"),
    (CGROUP, "PATHS", "What is in these cgroups (v2) only"),
    (CONTAINER, "NAMES", "What is in these containers only: id or name"),
    (LADDR, "NETS", "These local addresses only: 10.0.0.0/8,!10.1.0.0/16"),
    (RADDR, "NETS", "These remote addresses only"),
    (LPORT, "PORTS", "These local ports only: 80,8000-8099,!8080"),
    (RPORT, "PORTS", "These remote ports only"),
    (NETNS, "NETNS", "This network namespace only: its name, a process, a path or its inode number"),
];

/// The name of the option that chooses local addresses.
pub const LADDR: &str = "laddr";
/// The name of the option that chooses remote addresses.
pub const RADDR: &str = "raddr";
/// The name of the option that chooses local ports.
pub const LPORT: &str = "lport";
/// The name of the option that chooses remote ports.
pub const RPORT: &str = "rport";
/// The name of the option that chooses a network namespace.
pub const NETNS: &str = "netns";
/// The name of the option that chooses processes.
pub const PID: &str = "pid";
/// The name of the option that chooses users.
pub const UID: &str = "uid";
/// The name of the option that chooses names of threads.
pub const COMM: &str = "comm";
/// The name of the option that chooses cgroups.
pub const CGROUP: &str = "cgroup";
/// The name of the option that chooses containers.
pub const CONTAINER: &str = "container";
/// Those that are about a process.
pub const TASKS: &[&str] = &[PID, UID, COMM, CGROUP, CONTAINER];
/// Those that are about an end of a connection.
pub const ENDS: &[&str] = &[LADDR, RADDR, LPORT, RPORT];

/// What a run is to show.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Local ports.
    pub lport: Option<PortSet>,
    /// Remote ports.
    pub rport: Option<PortSet>,
    /// Local addresses.
    pub laddr: Option<Vec<Prefix>>,
    /// Remote addresses.
    pub raddr: Option<Vec<Prefix>>,
    /// Inode number of a network namespace.
    pub netns: Option<u32>,
    /// Processes, as our PID namespace numbers them.
    pub pids: Option<IdList>,
    /// Real users.
    pub uids: Option<IdList>,
    /// Names of threads.
    pub comms: Option<Names>,
    /// Cgroups.
    pub groups: Option<Groups>,
    /// What the user may not expect of what was typed: said once the run begins.
    pub doubts: Vec<String>,
}

/// Adds the options that a tool does not refuse. One that it has already is a flag of BCC's with the same name; it then takes
/// the list as `--name=LIST`.
pub fn add_to(command: Command, refuses: &[Refused]) -> Command {
    OPTIONS.iter().fold(command, |command, &(name, value, about)| {
        let has = command.get_arguments().any(|arg| arg.get_id() == name);
        if has || refusal(refuses, name).is_some() {
            return command;
        }
        let arg = Arg::new(name).long(name).value_name(value).help(about).help_heading(FILTERS);
        command.arg(match name {
            NETNS => arg.value_parser(namespace),
            PID => arg.action(ArgAction::Append).value_parser(pid_list),
            UID => arg.action(ArgAction::Append).value_parser(uid_list),
            COMM => arg.action(ArgAction::Append).value_parser(name_list),
            CGROUP | CONTAINER => arg.action(ArgAction::Append).value_parser(place_list),
            LPORT | RPORT => arg.action(ArgAction::Append).value_parser(port_list),
            _ => arg.action(ArgAction::Append).value_parser(net_list),
        })
    })
}

/// Those of the options here that a command line has.
pub fn names_in(command: &Command) -> impl Iterator<Item = &'static str> {
    let has = |name: &&str| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    OPTIONS.iter().map(|(name, ..)| *name).filter(has)
}

/// What the manual says of the lists.
pub const GRAMMAR: &[&str] = &[
    "All but --netns take lists with commas between the words. A word is a value, or a range such as 8000-8099 of ports, \
     processes or users, or a network such as 10.0.0.0/8 or 2001:db8::/32. A word with ! before it excludes what it names; \
     quote it in a shell.",
    "A list keeps what any of its words names. If all of its words exclude, it keeps everything else. Exclusion wins. An option \
     that is given twice has the words of both lists. A row must pass all options.",
    "Local and remote are as in the row. Of a packet, the local end is the one to which an interface brought it, or from which it \
     leaves. What a row shows as 0 is not an end yet. An IPv4 network also holds the addresses of IPv6 sockets that are IPv4's \
     (::ffff:a.b.c.d); ::/0 holds none of those.",
    "A network namespace is that of the socket, also in interrupts, and of a packet without one that of its interface. It is \
     named as ip netns does, or by a process that is in it, a path such as /proc/181/ns/net, or its inode number; a number \
     up to 4194304 is a process, and 0 is every namespace.",
    "--comm takes names of threads as the kernel has them: the first 15 bytes count. --cgroup takes a folder of cgroup version 2, \
     or its path as the column cgroup has it, and --container a name or the first digits of an id, as the columns container and \
     container_id have them. Both mean all that is in the cgroup, also what comes there later; a container that is started anew \
     has another cgroup. A row whose process is not known is not kept.",
    "A cgroup is that of the process. In tcpretrans, tcpdrop and tcpstates, and in tcplife and tcpwhy where no owner is known, it is the \
     socket's own, also in interrupts: that of who made it, or of the listener from which it was accepted. There --pid, --uid and \
     --comm are of the task on the CPU, as the PID of a row is, which may be a stranger. With --owner, all five are of the socket's \
     owner, as it was when it became that.",
    "What they add to one run of a program, in instructions on Linux 6.1: an address list some 500; a range of processes or users \
     some 1000; a cgroup or container some 90, and some 570 where the socket's own is asked.",
];

/// A list that was typed behind BCC's flag of its name, and not with `=`, as it was meant.
pub fn apart(command: &Command, args: &[OsString]) -> Option<String> {
    let is_flag = |arg: &Arg| arg.get_id() == LPORT && arg.is_require_equals_set();
    command.get_arguments().any(is_flag).then_some(())?;
    args.windows(2).find_map(|words| {
        let list = words[1].to_str()?;
        let is_list = words[0] == "--lport" && port_list(list).is_ok_and(|list| !list.is_empty());
        is_list.then(|| format!("--{LPORT}={list}"))
    })
}

/// What a user may not expect of what was typed.
fn doubt(matches: &ArgMatches) -> Option<String> {
    let Ok(Some(Namespace::Inode(inode))) = matches.try_get_one::<Namespace>(NETNS) else { return None };
    let inode_of = |path: PathBuf| fs::metadata(path).map(|file| file.ino()).ok();
    let processes =
        fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_there = processes.chain(named).filter_map(inode_of).any(|found| found == u64::from(*inode));
    (!is_there).then(|| {
        format!("--{NETNS} {inode}: no process that can be seen is in such a network namespace, and it has no name")
    })
}

/// Why a tool does not take the option, if it refuses it.
fn refusal(refuses: &[Refused], name: &str) -> Option<&'static str> {
    refuses.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

/// The sentence for an option that `tool` refuses, as it was typed; a beginning is enough where no other one has it.
pub fn refused(refuses: &[Refused], tool: &str, typed: &str) -> Option<String> {
    let word = typed.strip_prefix("--").filter(|word| word.len() > 1)?;
    let mut names = OPTIONS.iter().map(|(name, ..)| *name).filter(|name| name.starts_with(word));
    let name = names.next().filter(|_| names.next().is_none())?;
    refusal(refuses, name).map(|why| format!("--{name} cannot be used with {tool}: {why}"))
}

impl Select {
    /// Whether nothing is asked for: everything is shown.
    pub fn is_empty(&self) -> bool {
        let Self { lport, rport, laddr, raddr, netns, pids, uids, comms, groups, doubts: _ } = self;
        let ends = lport.is_none() && rport.is_none() && laddr.is_none() && raddr.is_none();
        let tasks = pids.is_none() && uids.is_none() && comms.is_none() && groups.is_none();
        ends && tasks && netns.is_none()
    }

    /// Whether a connection can pass both lists of addresses, and the family: its ends are of one kind.
    pub fn addresses_agree(&self, family: Family) -> bool {
        let kinds = |list: &Option<Vec<Prefix>>| list.as_deref().map_or([true; 2], kinds);
        let [local, remote] = [kinds(&self.laddr), kinds(&self.raddr)];
        // IPv6 sockets have IPv4's addresses, too.
        let v4 = local[0] && remote[0];
        let v6 = local[1] && remote[1] && !family.ipv4;
        v4 || v6
    }

    /// What the command line asks for; `meant` is what [`apart`] found.
    ///
    /// # Errors
    /// A list keeps nothing, or there is no such namespace.
    pub fn of(matches: &ArgMatches, meant: Option<String>) -> anyhow::Result<Self> {
        let is_flag = |meant| {
            format!(
                "--{LPORT} is a flag here, as in BCC, and what follows it is DURATION_MS: did you mean '{meant}'?"
            )
        };
        Ok(Self {
            lport: ports(matches, LPORT)?,
            rport: ports(matches, RPORT)?,
            laddr: nets(matches, LADDR)?,
            raddr: nets(matches, RADDR)?,
            netns: netns(matches)?,
            pids: ids(matches, PID)?,
            uids: ids(matches, UID)?,
            comms: names(matches)?,
            groups: Groups::of(&places(matches, CGROUP), &places(matches, CONTAINER))?,
            doubts: meant.map(is_flag).into_iter().chain(doubt(matches)).collect(),
        })
    }
}

fn ids(matches: &ArgMatches, name: &str) -> anyhow::Result<Option<IdList>> {
    let Ok(Some(lists)) = matches.try_get_many::<IdList>(name) else { return Ok(None) };
    let list = IdList::together(lists);
    if list.kept().is_empty() {
        return Err(usage(format!("--{name}: the list keeps nothing")));
    }
    Ok((!list.is_empty()).then_some(list))
}

fn names(matches: &ArgMatches) -> anyhow::Result<Option<Names>> {
    let Ok(Some(lists)) = matches.try_get_many::<NameList>(COMM) else { return Ok(None) };
    let words: Vec<Word<Comm>> = lists.flat_map(|list| list.0.iter().copied()).collect();
    if words.is_empty() {
        return Ok(None);
    }
    let names = Names::of(&words);
    if names.is_nothing() {
        return Err(usage(format!("--{COMM}: the list keeps no name")));
    }
    Ok(Some(names))
}

fn places(matches: &ArgMatches, name: &str) -> Vec<Word<String>> {
    let lists = matches.try_get_many::<PlaceList>(name).ok().flatten();
    lists.into_iter().flatten().flat_map(|list| list.0.iter().cloned()).collect()
}

fn ports(matches: &ArgMatches, name: &str) -> anyhow::Result<Option<PortSet>> {
    let Ok(Some(lists)) = matches.try_get_many::<PortList>(name) else { return Ok(None) };
    let words: Vec<Word<(u16, u16)>> = lists.flat_map(|list| list.0.iter().copied()).collect();
    if words.is_empty() {
        return Ok(None);
    }
    let mut set = PortSet::default();
    let all = Word { excludes: false, what: (0, u16::MAX) };
    let kept = words.iter().filter(|word| !word.excludes);
    let everything = kept.clone().next().is_none().then_some(&all);
    for word in kept.chain(everything) {
        (word.what.0..=word.what.1).for_each(|port| set.insert(port));
    }
    for word in words.iter().filter(|word| word.excludes) {
        (word.what.0..=word.what.1).for_each(|port| set.remove(port));
    }
    if set.is_empty() {
        return Err(usage(format!("--{name}: the list keeps no port")));
    }
    Ok(Some(set))
}

fn nets(matches: &ArgMatches, name: &str) -> anyhow::Result<Option<Vec<Prefix>>> {
    let Ok(Some(lists)) = matches.try_get_many::<NetList>(name) else { return Ok(None) };
    let words: Vec<Word<Net>> = lists.flat_map(|list| list.0.iter().copied()).collect();
    if words.is_empty() {
        return Ok(None);
    }
    let prefixes = prefixes(&words);
    if prefixes.iter().all(|prefix| !prefix.is_kept) {
        return Err(usage(format!("--{name}: the list keeps no address")));
    }
    Ok(Some(prefixes))
}

/// A network namespace as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// None in particular.
    All,
    /// The one with this inode number.
    Inode(u32),
    /// That of this process.
    Process(u32),
    /// The one that a file stands for.
    Path(PathBuf),
    /// The one that `ip netns` knows by this name.
    Name(String),
}

/// Where `ip netns` keeps the files that stand for namespaces.
const NAMED: &str = "/run/netns";

/// Parses a network namespace.
pub fn namespace(text: &str) -> Result<Namespace, String> {
    /// No process has a larger number (`PID_MAX_LIMIT`, include/linux/threads.h), and the kernel numbers namespaces from
    /// far beyond it (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c).
    const LAST_PID: u32 = 1 << 22;
    let text = text.trim();
    if text.is_empty() {
        return Ok(Namespace::All);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(0) => Ok(Namespace::All),
            Ok(pid) if pid <= LAST_PID => Ok(Namespace::Process(pid)),
            Ok(inode) => Ok(Namespace::Inode(inode)),
            Err(_) => Err(format!("not a number of a process or of a namespace, which is 0 to {}", u32::MAX)),
        };
    }
    Ok(match text {
        "." | ".." => return Err("a folder is no network namespace".to_owned()),
        _ if text.contains('/') => Namespace::Path(text.into()),
        _ => Namespace::Name(text.to_owned()),
    })
}

fn netns(matches: &ArgMatches) -> anyhow::Result<Option<u32>> {
    let Ok(Some(typed)) = matches.try_get_one::<Namespace>(NETNS) else { return Ok(None) };
    match typed {
        Namespace::All => Ok(None),
        Namespace::Inode(inode) => Ok(Some(*inode)),
        Namespace::Process(pid) => {
            inode_of(&format!("/proc/{pid}/ns/net").into(), |_| format!("there is no process {pid}"))
        }
        Namespace::Path(path) => inode_of(path, |why| format!("{}: {why}", path.display())),
        Namespace::Name(name) => inode_of(&Path::new(NAMED).join(name), |_| {
            let names: Vec<String> = fs::read_dir(NAMED)
                .map(|files| {
                    files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect()
                })
                .unwrap_or_default();
            let near = nearest_of(name, names.iter().map(String::as_str), 2).map(ToOwned::to_owned);
            format!("no network namespace is called '{name}'{}", guess(near))
        }),
    }
}

/// The inode number of the namespace that a file stands for; `missing` says what is wrong if there is no such file.
fn inode_of(path: &PathBuf, missing: impl FnOnce(&io::Error) -> String) -> anyhow::Result<Option<u32>> {
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(usage(format!("--{NETNS}: {}", missing(&why))));
        }
        Err(why) => return Err(why).with_context(|| format!("--{NETNS}: {}", path.display())),
    };
    // A link of /proc says which kind of namespace it leads to.
    let kind = fs::read_link(path).ok();
    let other = kind
        .as_ref()
        .and_then(|kind| kind.to_str())
        .is_some_and(|kind| kind.split_once(":[").is_some_and(|(kind, _)| kind != "net"));
    let is_one = statfs(path).is_ok_and(|of| of.filesystem_type() == NSFS_MAGIC);
    match u32::try_from(file.ino()) {
        Ok(inode) if is_one && !other => Ok(Some(inode)),
        _ => Err(usage(format!("--{NETNS}: {} is no network namespace", path.display()))),
    }
}

/// A word of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<T> {
    excludes: bool,
    what: T,
}

/// Takes a list apart; `parse` makes of each word, without its `!`, what it names.
fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<Word<T>>, String> {
    let word = |word: &str| {
        let (excludes, rest) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest.trim_start()));
        if rest.is_empty() {
            return Err("a word of the list is empty".to_owned());
        }
        Ok(Word { excludes, what: parse(rest)? })
    };
    words(text).map(word).collect()
}

/// What is added to the sentence about a wrong word.
fn guess(word: Option<String>) -> String {
    word.map(|word| format!("; did you mean '{word}'?")).unwrap_or_default()
}

/// Ports as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortList(Vec<Word<(u16, u16)>>);

impl PortList {
    /// Whether it is empty, as of a flag without a value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Parses a list of ports and ranges of ports.
pub fn port_list(text: &str) -> Result<PortList, String> {
    list(text, port_range).map(PortList)
}

fn port_range(word: &str) -> Result<(u16, u16), String> {
    let (low, high) = word.split_once('-').unwrap_or((word, word));
    let port = |text: &str| text.trim().parse::<u16>().ok();
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(low), Some(high)) => {
            Err(format!("the range '{word}' is empty{}", guess(Some(format!("{high}-{low}")))))
        }
        _ => Err(format!(
            "'{word}' is neither a port, which is 0 to 65535, nor a range as 8000-8099{}",
            guess(
                // As others write a range.
                ["..", ":", "–"].iter().find_map(|dash| {
                    let (low, high) = word.split_once(dash)?;
                    Some(format!("{}-{}", port(low)?, port(high)?))
                }),
            )
        )),
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Box<[u8; PORT_SET_BYTES]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; PORT_SET_BYTES]))
    }
}

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port >> 3)] |= 1 << (port & 7);
    }

    fn remove(&mut self, port: u16) {
        self.0[usize::from(port >> 3)] &= !(1 << (port & 7));
    }

    /// Leaves only what is in `other` as well.
    pub fn narrow(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(byte, other)| *byte &= other);
    }

    /// Whether there is no port in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// As the kernel side has it: bit `port % 8` of byte `port / 8`.
    pub fn as_bytes(&self) -> &[u8; PORT_SET_BYTES] {
        &self.0
    }
}

/// Networks as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetList(Vec<Word<Net>>);

/// Addresses whose first bits are the same. IPv4 is in its IPv6 form, `::ffff:a.b.c.d`, in which sockets of IPv6 have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Net {
    /// From the highest on; those beyond `len` are 0.
    bits: u128,
    len: u32,
}

/// Where IPv6 has the addresses of IPv4.
const V4: Net = Net { bits: 0xffff << 32, len: 96 };
/// Every address.
const ALL: Net = Net { bits: 0, len: 0 };

impl Net {
    const fn mask(len: u32) -> u128 {
        match len {
            0 => 0,
            _ => u128::MAX << (128 - len),
        }
    }

    /// Whether all addresses of `other` are in it, bit by bit.
    fn covers(self, other: Self) -> bool {
        self.len <= other.len && other.bits & Self::mask(self.len) == self.bits
    }

    /// Whether its user means that all addresses of `other` are in it: who writes `::/0` means no address of IPv4.
    fn means(self, other: Self) -> bool {
        self.covers(other) && (V4.covers(self) || !V4.covers(other))
    }
}

/// Parses a list of addresses and networks.
pub fn net_list(text: &str) -> Result<NetList, String> {
    list(text, net).map(NetList)
}

fn net(word: &str) -> Result<Net, String> {
    let (address, len) = word.split_once('/').map_or((word, None), |(address, len)| (address, Some(len)));
    let parsed = address.trim().parse::<IpAddr>().map_err(|_| {
        let text = "is no address or network, as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";
        format!("'{word}' {text}{}", guess(filled_up(address, len)))
    })?;
    let (bits, most) = match parsed {
        IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let given = len.map(str::trim).map(|len| len.parse().ok().filter(|len: &u32| *len <= most));
    let Some(len) = given.unwrap_or(Some(most)) else {
        let netmask = len.and_then(|text| text.trim().parse::<Ipv4Addr>().ok()).map(u32::from);
        // As ifconfig and iptables take it.
        let bits = netmask.filter(|mask| most == 32 && mask.leading_ones() + mask.trailing_zeros() == 32);
        let guess = guess(bits.map(|mask| format!("{address}/{}", mask.leading_ones())));
        return Err(format!("'{word}': the length of this network is 0 to {most}{guess}"));
    };
    let net = Net { bits: bits & Net::mask(len + 128 - most), len: len + 128 - most };
    if net.bits != bits {
        let first = Ipv6Addr::from(net.bits);
        let first = match parsed {
            IpAddr::V4(_) => first.to_ipv4_mapped().map_or(IpAddr::V6(first), IpAddr::V4),
            IpAddr::V6(_) => IpAddr::V6(first),
        };
        return Err(format!("'{word}' has bits beyond its length{}", guess(Some(format!("{first}/{len}")))));
    }
    Ok(net)
}

/// An IPv4 network of which only the first bytes were typed, as `10/8`.
fn filled_up(address: &str, len: Option<&str>) -> Option<String> {
    let bytes: Result<Vec<u8>, _> = address.trim().trim_end_matches('.').split('.').map(str::parse).collect();
    let mut bytes = bytes.ok().filter(|bytes| bytes.len() < 4)?;
    let typed = 8 * bytes.len();
    bytes.resize(4, 0);
    let bytes: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    let word = format!("{}/{}", bytes.join("."), len.map_or(typed.to_string(), |len| len.trim().to_owned()));
    net(&word).is_ok().then_some(word)
}

/// A network, and whether the addresses are kept whose longest network of the list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    net: Net,
    /// Whether they are kept.
    pub is_kept: bool,
}

impl Prefix {
    /// As a trie of the kernel has it.
    pub fn key(self) -> (u32, Addr) {
        let bytes = self.net.bits.to_be_bytes();
        let mut addr = [0; 4];
        for (word, bytes) in addr.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        }
        (self.net.len, addr)
    }
}

/// Whether some address of IPv4 is kept, and whether one of IPv6 that is not IPv4's.
fn kinds(prefixes: &[Prefix]) -> [bool; 2] {
    let has_v4 = prefixes.iter().any(|prefix| prefix.net == V4);
    let kept = || prefixes.iter().filter(|prefix| prefix.is_kept).map(|prefix| prefix.net);
    let v4 = kept().any(|net| V4.covers(net) || !has_v4 && net.covers(V4));
    [v4, kept().any(|net| !V4.covers(net))]
}

/// A network for each word of the list. The kernel finds the longest one that an address is in; all others of the list that
/// it is in contain that, so the answer for the address is the answer for the network. An address without one is not kept.
fn prefixes(words: &[Word<Net>]) -> Vec<Prefix> {
    let by_default = words.iter().all(|word| word.excludes);
    let mut nets: Vec<Net> = words.iter().map(|word| word.what).collect();
    // Where words are meant for one of both only, the border between them has an answer of its own.
    nets.extend(nets.iter().any(|net| net.covers(V4)).then_some(V4));
    nets.extend(by_default.then_some(ALL));
    nets.sort_unstable();
    nets.dedup();
    let is_kept = |net: &Net| {
        let named =
            |excludes: bool| words.iter().any(|word| word.excludes == excludes && word.what.means(*net));
        (by_default || named(false)) && !named(true)
    };
    nets.iter().map(|net| Prefix { net: *net, is_kept: is_kept(net) }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn select(words: &[&str]) -> Result<Select, String> {
        let words = std::iter::once(&"x").chain(words);
        let matches = add_to(Command::new("x"), &[]).try_get_matches_from(words).map_err(|err| {
            let text = err.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        })?;
        Select::of(&matches, None).map_err(|err| err.to_string())
    }

    fn kept_ports(lists: &[&str]) -> Vec<u16> {
        let options: Vec<String> = lists.iter().map(|list| format!("--lport={list}")).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let set = select(&options).unwrap().lport.unwrap();
        (0..=u16::MAX).filter(|port| set.0[usize::from(port >> 3)] & 1 << (port & 7) != 0).collect()
    }

    /// What the kernel's trie answers for an address.
    fn keeps(list: &str, address: &str) -> bool {
        let prefixes = select(&[&format!("--raddr={list}")]).unwrap().raddr.unwrap();
        let address = Net { bits: net(address).unwrap().bits, len: 128 };
        let longest = prefixes.iter().filter(|prefix| prefix.net.covers(address)).max_by_key(|p| p.net.len);
        longest.is_some_and(|prefix| prefix.is_kept)
    }

    #[test]
    fn lists_ranges_and_exclusions_of_ports() {
        assert_eq!(kept_ports(&["80, 443,80"]), [80, 443]);
        assert_eq!(kept_ports(&["8000-8003"]), [8000, 8001, 8002, 8003]);
        assert_eq!(kept_ports(&["!8001,8000-8002"]), [8000, 8002]);
        assert_eq!(kept_ports(&["! 3-65535 "]), [0, 1, 2]);
        assert_eq!(kept_ports(&["0-2", "7", "!1"]), [0, 2, 7]);
        assert_eq!(kept_ports(&["!80"]).len(), 65_535);
    }

    #[test]
    fn an_empty_value_counts_as_not_given() {
        let none = select(&["--lport=", "--rport", " ", "--laddr=", "--raddr="]).unwrap();
        assert!(none.is_empty());
        assert!(select(&[]).unwrap().is_empty());
        assert!(!select(&["--laddr=::1"]).unwrap().is_empty());
    }

    #[test]
    fn networks_keep_what_their_words_mean() {
        for (list, kept, not) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8,!10.1.0.0/16", "10.2.0.0", "10.1.0.0"),
            // Excluded is excluded, whatever is named inside.
            ("10.0.0.0/8,!10.1.0.0/16,10.1.2.0/24", "10.2.0.0", "10.1.2.3"),
            ("!10.1.2.0/24,!::1", "10.1.3.0", "10.1.2.3"),
            ("!10.0.0.0/8", "2001:db8::1", "10.0.0.0"),
            // One family each.
            ("0.0.0.0/0", "10.1.1.1", "::1"),
            ("::/0", "::1", "10.1.1.1"),
            ("!::/0", "10.1.1.1", "2001:db8::1"),
            ("!0.0.0.0/0", "::1", "10.1.1.1"),
            ("::/0,10.0.0.0/8", "10.1.1.1", "11.1.1.1"),
            ("2001:db8::/32,!2001:db8:1::/48", "2001:db8::1", "2001:db8:1::1"),
            ("fe80::/10", "fe80::1", "fec0::1"),
        ] {
            assert!(keeps(list, kept), "{list}: {kept}");
            assert!(!keeps(list, not), "{list}: {not}");
        }
        assert!(keeps("::/0,0.0.0.0/0", "10.1.1.1") && keeps("::/0,0.0.0.0/0", "::1"));
    }

    #[test]
    fn a_namespace_by_name_process_path_and_number() {
        for (text, namespace_) in [
            ("0", Namespace::All),
            ("1", Namespace::Process(1)),
            ("4194304", Namespace::Process(4_194_304)),
            ("4026531840", Namespace::Inode(4_026_531_840)),
            ("/proc/1/ns/net", Namespace::Path("/proc/1/ns/net".into())),
            ("./web", Namespace::Path("./web".into())),
            ("web", Namespace::Name("web".into())),
            ("1web", Namespace::Name("1web".into())),
        ] {
            assert_eq!(namespace(text), Ok(namespace_));
        }
        assert!(["4294967296", ".."].iter().all(|text| namespace(text).is_err()));
        assert!(["", " ", "0"].iter().all(|text| namespace(text) == Ok(Namespace::All)));
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let found =
            |text: &str| select(&[&format!("--netns={text}")]).map(|select| select.netns.map(u64::from));
        assert_eq!(found("/proc/self/ns/net"), Ok(Some(own)));
        assert_eq!(found(&std::process::id().to_string()), Ok(Some(own)));
        assert_eq!(found("4026531840"), Ok(Some(4_026_531_840)));
        assert_eq!(found("0"), Ok(None));
        for (text, why) in [
            ("nobody-calls-one-so", "no network namespace is called 'nobody-calls-one-so'"),
            ("4194304", "there is no process 4194304"),
            ("/nowhere/ns", "/nowhere/ns: No such file or directory (os error 2)"),
            ("/proc/self/ns/mnt", "/proc/self/ns/mnt is no network namespace"),
            ("/etc/passwd", "/etc/passwd is no network namespace"),
        ] {
            assert_eq!(found(text), Err(format!("--netns: {why}")));
        }
    }

    #[test]
    fn wrong_words_are_refused_with_the_nearest_right_one() {
        for (list, why) in [
            ("8099-8000", "the range '8099-8000' is empty; did you mean '8000-8099'?"),
            (
                "80..90",
                "'80..90' is neither a port, which is 0 to 65535, nor a range as 8000-8099; did you mean '80-90'?",
            ),
            ("http", "'http' is neither a port, which is 0 to 65535, nor a range as 8000-8099"),
            ("65536", "'65536' is neither a port, which is 0 to 65535, nor a range as 8000-8099"),
            ("80,", "a word of the list is empty"),
            ("!", "a word of the list is empty"),
            ("!!80", "'!80' is neither a port, which is 0 to 65535, nor a range as 8000-8099"),
            ("-5", "'-5' is neither a port, which is 0 to 65535, nor a range as 8000-8099"),
        ] {
            assert_eq!(port_list(list), Err(why.to_owned()));
        }
        let form = "is no address or network, as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";
        for (list, why) in [
            ("10.1.2.3/8", "'10.1.2.3/8' has bits beyond its length; did you mean '10.0.0.0/8'?".to_owned()),
            (
                "2001:db8::1/64",
                "'2001:db8::1/64' has bits beyond its length; did you mean '2001:db8::/64'?".into(),
            ),
            ("10.0.0.0/33", "'10.0.0.0/33': the length of this network is 0 to 32".into()),
            ("::/129", "'::/129': the length of this network is 0 to 128".into()),
            (
                "10.0.0.0/255.0.0.0",
                "'10.0.0.0/255.0.0.0': the length of this network is 0 to 32; did you mean '10.0.0.0/8'?"
                    .into(),
            ),
            ("10.0.0.0/255.0.0.1", "'10.0.0.0/255.0.0.1': the length of this network is 0 to 32".into()),
            ("10.0.0.0/", "'10.0.0.0/': the length of this network is 0 to 32".into()),
            ("10/8", format!("'10/8' {form}; did you mean '10.0.0.0/8'?")),
            ("10.1.", format!("'10.1.' {form}; did you mean '10.1.0.0/16'?")),
            ("localhost", format!("'localhost' {form}")),
            ("10.0.0.0/8,,", "a word of the list is empty".into()),
        ] {
            assert_eq!(net_list(list), Err(why));
        }
        assert_eq!(select(&["--lport=80,!80"]).unwrap_err(), "--lport: the list keeps no port");
        assert_eq!(
            select(&["--raddr=10.1.0.0/16,!10.0.0.0/8"]).unwrap_err(),
            "--raddr: the list keeps no address"
        );
        assert_eq!(select(&["--laddr=!::/0,!0.0.0.0/0"]).unwrap_err(), "--laddr: the list keeps no address");
    }

    proptest! {
        #[test]
        fn junk_never_panics(text: String) {
            let _ = (port_list(&text), net_list(&text));
        }

        #[test]
        fn the_longest_network_answers_as_the_list_does(
            words in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u32..=4, any::<u128>()), 1..8),
            address: u128,
            is_v4: bool,
        ) {
            // Few bits, so that networks meet.
            let net = |is_v4: bool, len: u32, bits: u128| {
                let base = if is_v4 { V4 } else { ALL };
                let bits = base.bits | bits & 0xf << 124 >> base.len;
                Net { bits: bits & Net::mask(base.len + len), len: base.len + len }
            };
            let words: Vec<Word<Net>> = words
                .into_iter()
                .map(|(excludes, is_v4, len, bits)| Word { excludes, what: net(is_v4, len, bits) })
                .collect();
            let address = Net { len: 128, ..net(is_v4, 4, address) };
            let named = |excludes| words.iter().any(|word| word.excludes == excludes && word.what.means(address));
            let expected = (named(false) || words.iter().all(|word| word.excludes)) && !named(true);
            let found = prefixes(&words);
            let longest = found.iter().filter(|prefix| prefix.net.covers(address)).max_by_key(|p| p.net.len);
            prop_assert_eq!(longest.is_some_and(|prefix| prefix.is_kept), expected);
        }
    }
}
