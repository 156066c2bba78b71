//! tcpdrop: one row per TCP packet that the kernel drops, with the reason that it gives and its stack.
//!
//! Events: `probes-ebpf/src/bin/tcpdrop.rs`, from `skb:kfree_skb`. Addresses and ports are the packet's own, so the
//! source is where it came from. STATE is that of its socket: the one that receives, else the one that sends. Names
//! and numbers of reasons are those of the running kernel. PID is the task on the CPU, which on the way in has nothing
//! to do with the packet.
//!
//! A stack comes once, with the names of its functions as the kernel writes them. It ends where an interrupt came into the
//! kernel: what was interrupted has nothing to do with the packet.
//!
//! BCC: since 5.19 it sees packets only that hold their sender, misses what TCP drops on the way in, takes UDP for TCP,
//! swaps IPv6 addresses on the way out, and names reasons by the table of Linux 6.14. It prints functions as Python
//! objects (`b'name+0x1'`).
//!
//! A SYN that a firewall drops on its way out, on a 6.18 kernel that has neither kprobes nor fentry:
//!
//! ```text
//! # netbcc tcpdrop
//! TIME     PID     IP SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)
//! 11:36:07 11651   4  127.0.0.1:41910      > 127.0.0.1:9          SYN_SENT (SYN)       NETFILTER_DROP (12)
//!     sk_skb_reason_drop+0x90
//!     nft_do_chain+0x3e8
//!     nft_do_chain_inet+0x43
//!     nf_hook_slow+0x43
//!     __ip_local_out+0x11c
//!     ip_local_out+0x1c
//!     __ip_queue_xmit+0x16b
//!     __tcp_transmit_skb+0xa10
//!     tcp_connect+0xb23
//!     tcp_v4_connect+0x474
//!     __inet_stream_connect+0x11a
//!     inet_stream_connect+0x38
//!     __sys_connect+0x89
//!     __x64_sys_connect+0x14
//!     do_syscall_64+0x71
//!     entry_SYSCALL_64_after_hwframe+0x76
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use clap::Args;
use netbcc_common::filter::PORT_SET_BYTES;
use netbcc_common::kernel::Func;
use netbcc_common::tcpdrop::{Config, Entries, Event, NAMES, WithStack};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{conn, object};
use crate::error::usage;
use crate::hook::{Ladder, LessExact, Need, Rung, RungName, fentry, kprobe, tp_btf};
use crate::options::{Family, Json, Owner, Verbose, Words, pid_or_all, word_list};
use crate::out::{
    About, Cell, Format, Kind, Process, Rows, SocketFact, Table, Whose, data, escaped, left, wall,
};
use crate::owner::OWNERS;
use crate::probe::{self, Batch, Plan, Probe};
use crate::sys::kallsyms::Symbols;
use crate::tool::{Ctx, Spec, Tool};

/// The tool.
pub struct Tcpdrop;

/// Its options.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    family: Family,
    /// This network namespace only (inode number); 0 means all
    #[arg(
        long,
        value_name = "NETNS_ID",
        default_value_t = 0,
        hide_default_value = true,
        help_heading = "Filters"
    )]
    netns_id: u32,
    /// The network namespace of this process only; 0 means all
    #[arg(
        long, value_name = "PID", value_parser = pid_or_all, default_value_t = 0, hide_default_value = true,
        help_heading = "Filters"
    )]
    pid_netns: u32,
    /// These reasons only: names or numbers, comma-separated
    #[arg(long, value_name = "REASONS", value_parser = word_list, help_heading = "Filters")]
    reason: Vec<Words>,
    /// All reasons but these
    #[arg(long, value_name = "REASONS", value_parser = word_list, help_heading = "Filters")]
    not_reason: Vec<Words>,
    /// Every drop: also packets without a socket (closed ports, routing, XDP), and without a reason (NOT_SPECIFIED)
    #[arg(long, help_heading = "Filters")]
    all: bool,
    /// Leave out the stacks
    #[arg(long, help_heading = "Output")]
    no_stack: bool,
    #[command(flatten)]
    owner: Owner,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    verbose: Verbose,
}

impl Tool for Tcpdrop {
    const SPEC: Spec = Spec {
        name: "tcpdrop",
        about: "Trace TCP packets that the kernel drops, and why",
        description: &[
            "Prints a row for each TCP packet that the kernel of this host drops, with the reason that it gives, and \
             below the row the functions through which the packet came. Addresses and ports are the packet's own, so \
             the source is where it came from. The state is that of the socket that receives, else of the one that \
             sends.",
            "Without --all, two kinds of drops are no rows: packets that belong to no socket, for example those for \
             closed ports, and those whose reason is NOT_SPECIFIED, for example data for a connection in TIME_WAIT and \
             what XDP drops on some kernels. --reason NOT_SPECIFIED shows the second kind alone. With --all, some \
             kernels show QUEUE_PURGE also where a connection ends as it should.",
            "A stack begins where the packet is freed. It ends where an interrupt came into the kernel: what that \
             interrupted has nothing to do with the packet.",
            "A SYN that finds the accept queue full is not freed as a drop, so no option shows it. `nstat -az \
             TcpExtListenDrops` counts such SYNs, and `ss -lnt` shows the queue: Recv-Q above Send-Q.",
        ],
        examples: &[
            ("tcpdrop", "all drops of packets that have a socket"),
            ("tcpdrop --no-stack", "one line per drop"),
            ("tcpdrop --owner", "whose packets, not who was on the CPU"),
            ("tcpdrop -4", "IPv4 sockets only"),
            ("tcpdrop --netns-id 4026531840", "this network namespace only"),
            ("tcpdrop --pid-netns 181", "the network namespace of process 181 only"),
            ("tcpdrop --all", "every drop: also packets for closed ports, and without a reason"),
            ("tcpdrop --reason NETFILTER_DROP,QDISC_DROP", "these reasons only"),
            ("tcpdrop --not-reason QUEUE_PURGE", "all reasons but this"),
            ("tcpdrop --json", "JSON Lines"),
        ],
        overhead: "Runs a short program per packet that the kernel drops, none per packet that gets through, except \
                   on kernels before 6.11: there a few instructions per TCP packet that arrives. A stack costs some \
                   microseconds per drop; --no-stack saves them. --owner adds a program at each change of a TCP socket's state and at each accept, or \
                   read where accept() cannot be traced: some two microseconds per connection, both ends together. At the start \
                   it looks at all open files: 10 to 30 ms for 10,000 of them.",
        differences: &[
            "Packets that TCP itself drops are seen, and UDP packets are not.",
            "Source and destination are the packet's, in IPv6 as well.",
            "Reasons have the names and numbers of the running kernel.",
            "Functions are written as name+0x1, not b'name+0x1'; they begin where the packet is freed, and end where an \
             interrupt came into the kernel.",
            "No warning that tcp_drop() is not there: it is not needed.",
            "--all, --reason, --not-reason and --no-stack are additions.",
        ],
        refuses: &[],
        object: object!("tcpdrop"),
        ladders: &[DROPS, OWNERS],
    };
    type Args = Options;

    fn rows(args: &Options) -> Vec<Rows> {
        vec![Rows::new("", table(args))]
    }

    fn run(args: Options, cx: &mut Ctx) -> Result<()> {
        // Not clap's question: an empty list is none.
        if let [Some(_), Some(_)] =
            [&args.reason, &args.not_reason].map(|lists| Words::together(lists).next())
        {
            return Err(usage(
                "the argument '--reason <REASONS>' cannot be used with '--not-reason <REASONS>' (try 'tcpdrop --help')",
            ));
        }
        cx.verbose |= args.verbose.verbose;
        let netns = namespace(&args)?;
        let table = table(&args);
        cx.out.set_format(args.json.format());
        let asks = args.owner.asks(table.asks_of_sockets(&cx.out));
        let mut plan = Plan::new(cx).socket_facts(asks).groups_of_sockets();
        plan = plan.ladder(&DROPS).family(args.family).netns(netns);
        plan = plan.enumeration(REASONS).enumeration(HELPERS);
        let kernel = plan.known()?;
        let reasons = Reasons::new(kernel.members_of(REASONS));
        let kept = reasons.kept(&args)?;
        let tells_receivers = kernel.fits(Some((Func::KfreeSkb, 4)));
        let names = kernel.members_of(HELPERS).iter().any(|(_, helper)| helper == NAMES_ADDRESSES);
        let config = Config {
            all: args.all.into(),
            stacks: (!args.no_stack).into(),
            subsystems: Words::together(&args.reason).next().is_none().into(),
            names: names.into(),
        };
        if !tells_receivers {
            plan = plan.sockets_by_address();
        }
        // Before the power to read it is given up.
        let symbols = (!names && !args.no_stack).then(Symbols::open);
        let mut probe = plan.global("CONFIG", &config).global("REASONS", &*kept).attach(cx)?;
        cx.out.header(&table);
        let mut drops = Drops {
            by_owner: args.owner.owner,
            reasons,
            lexicon: Lexicon::default(),
            stacks: Stacks::of(&mut probe, symbols)?,
        };
        probe.stream(cx, |cx: &mut Ctx, batch: &Batch| drops.print(cx, &table, batch).map(|()| None))
    }
}

const DROPS: Ladder = Ladder {
    name: "drops",
    rungs: &[
        // First: it tells the receiving socket of every drop, and nothing else is needed.
        Rung {
            name: RungName::Tracepoint,
            programs: &[tp_btf("drop4_tp", "kfree_skb").arity(Func::KfreeSkb, 4).twice_with_own("ROOM")],
            less_exact: None,
        },
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("receive4_fentry", "tcp_v4_do_rcv"),
                fentry("receive6_fentry", "tcp_v6_do_rcv").when(Need::V6Kernel),
                tp_btf("drop3_tp", "kfree_skb").arity(Func::KfreeSkb, 3),
            ],
            less_exact: Some(NOT_BEFORE_TCP),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("receive4_kprobe", "tcp_v4_do_rcv"),
                kprobe("receive6_kprobe", "tcp_v6_do_rcv").when(Need::V6Kernel),
                tp_btf("drop3_tp", "kfree_skb").arity(Func::KfreeSkb, 3),
            ],
            less_exact: Some(NOT_BEFORE_TCP),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("receive_tp", "tcp_probe"),
                tp_btf("drop3_tp", "kfree_skb").arity(Func::KfreeSkb, 3),
            ],
            less_exact: Some(
                LessExact::new("drops on the way in are rows with --all only, unless established").detail(
                    "This kernel does not tell which socket receives a packet. Where its connection is not, or no \
                     longer, established, a packet that TCP drops on the way in counts as one without a socket.",
                ),
            ),
        },
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("receive4_fentry", "tcp_v4_do_rcv"),
                fentry("receive6_fentry", "tcp_v6_do_rcv").when(Need::V6Kernel),
                tp_btf("drop2_tp", "kfree_skb").arity(Func::KfreeSkb, 2),
            ],
            less_exact: Some(NO_REASONS),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("receive4_kprobe", "tcp_v4_do_rcv"),
                kprobe("receive6_kprobe", "tcp_v6_do_rcv").when(Need::V6Kernel),
                tp_btf("drop2_tp", "kfree_skb").arity(Func::KfreeSkb, 2),
            ],
            less_exact: Some(NO_REASONS),
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("receive_tp", "tcp_probe"),
                tp_btf("drop2_tp", "kfree_skb").arity(Func::KfreeSkb, 2),
            ],
            less_exact: Some(NO_REASONS),
        },
    ],
};

/// What kernels before 5.17 do not tell.
const NO_REASONS: LessExact =
    LessExact::new("no reasons, and few of the drops that TCP itself decides on").detail(
        "This kernel gives no reason for a drop, so that --reason and --not-reason are refused. It frees most packets that \
         TCP itself drops as if they had been read; what a socket still holds when it closes as it should is a row. \
         Packets that never get to TCP are rows with --all only.",
    );

/// What kernels before 6.11 do not tell.
const NOT_BEFORE_TCP: LessExact = LessExact::new("packets that never get to TCP are rows with --all only").detail(
    "This kernel does not tell which socket would receive them. One that a socket's filter rejects is such a packet.",
);

/// The kernel's enum of reasons.
const REASONS: &str = "skb_drop_reason";

/// The kernel's enum of the helpers that it has for programs, and the one that names addresses (5.13).
const HELPERS: &str = "bpf_func_id";
const NAMES_ADDRESSES: &str = "BPF_FUNC_snprintf";

/// What its names begin with, apart from the first two.
const PREFIX: &str = "SKB_DROP_REASON_";

/// The reasons of the running kernel.
pub struct Reasons {
    names: HashMap<u32, Rc<str>>,
    unknown: Rc<str>,
}

impl Reasons {
    /// From pairs of value and name, as the kernel has them.
    pub fn new(members: &[(u32, String)]) -> Self {
        let mut names: HashMap<u32, Rc<str>> = HashMap::new();
        for (code, name) in members {
            // What only marks an end has a value that another one may have, too.
            names.entry(*code).or_insert_with(|| name.strip_prefix(PREFIX).unwrap_or(name).into());
        }
        Self { names, unknown: "UNKNOWN".into() }
    }

    /// The name of a reason; none where the kernel gives no reasons.
    pub fn name(&self, code: u32) -> Option<Rc<str>> {
        (!self.names.is_empty()).then(|| Rc::clone(self.names.get(&code).unwrap_or(&self.unknown)))
    }

    /// The number of what a user typed.
    fn code(&self, typed: &str) -> Result<u16> {
        if self.names.is_empty() {
            return Err(usage(format!(
                "'{typed}' is no reason of this kernel: it gives none (Linux 5.17 does)"
            )));
        }
        let wanted = typed.strip_prefix(PREFIX).unwrap_or(typed);
        let by_name = self.names.iter().find(|(_, name)| name.eq_ignore_ascii_case(wanted));
        let code = by_name.map(|(code, _)| *code).or_else(|| wanted.parse().ok());
        code.and_then(|code| u16::try_from(code).ok()).ok_or_else(|| {
            let like = self.like(wanted).join(", ");
            usage(format!("'{typed}' is no reason of this kernel, nor the number of one: it has {like}"))
        })
    }

    /// The names that have `part` in them, or all where none has; in the order of their numbers. Those of the enum that no
    /// drop has are left out.
    fn like(&self, part: &str) -> Vec<&str> {
        let mut all: Vec<(u32, &str)> = self.names.iter().map(|(code, name)| (*code, &**name)).collect();
        all.sort_unstable();
        let is_reason =
            |name: &&str| !["SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "MAX", "SUBSYS_MASK"].contains(name);
        let all: Vec<&str> = all.into_iter().map(|(_, name)| name).filter(is_reason).collect();
        let part = part.to_ascii_uppercase();
        let some: Vec<&str> = all.iter().copied().filter(|name| name.contains(&part)).collect();
        if part.is_empty() || some.is_empty() { all } else { some }
    }

    /// One bit per reason that the options ask for.
    fn kept(&self, args: &Options) -> Result<Box<[u8; PORT_SET_BYTES]>> {
        let only = Words::together(&args.reason);
        let all = only.clone().next().is_none();
        let mut bits = Box::new([if all { 0xff } else { 0 }; PORT_SET_BYTES]);
        let mut set = |code: u16, on: bool| {
            let (byte, bit) = (usize::from(code >> 3), 1 << (code & 7));
            bits[byte] = if on { bits[byte] | bit } else { bits[byte] & !bit };
        };
        if all {
            // Not dropped at all; or nobody says why, which only `--all` shows.
            let unsaid = (!args.all).then_some("NOT_SPECIFIED");
            for quiet in ["SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "CONSUMED"].into_iter().chain(unsaid) {
                for (code, _) in self.names.iter().filter(|(_, name)| &***name == quiet) {
                    set(u16::try_from(*code)?, false);
                }
            }
        }
        for typed in only {
            set(self.code(typed)?, true);
        }
        for typed in Words::together(&args.not_reason) {
            set(self.code(typed)?, false);
        }
        Ok(bits)
    }
}

/// The namespace that the options name; 0: all.
fn namespace(args: &Options) -> Result<u32> {
    let Some(pid) = NonZeroU32::new(args.pid_netns) else { return Ok(args.netns_id) };
    if args.netns_id != 0 {
        // BCC's words.
        return Err(usage("ERROR: --pid_netns and --netns-id not allowed together"));
    }
    let path = format!("/proc/{pid}/ns/net");
    let inode = fs::metadata(&path).with_context(|| format!("--pid-netns {pid}: {path}"))?.ino();
    u32::try_from(inode).context("the inode number of a namespace")
}

/// A packet that was dropped, with what user space adds to it.
pub struct Row {
    /// As the kernel sent it.
    pub event: Event,
    /// The functions that led there, innermost first.
    pub stack: Rc<Functions>,
    phrases: Rc<Phrases>,
    whose: Whose,
}

impl Row {
    /// The event with its words.
    pub fn new(event: Event, reason: Option<Rc<str>>, stack: Rc<Functions>) -> Self {
        let phrases = Rc::new(Phrases::new(&event, reason));
        Self { event, stack, phrases, whose: Whose::default() }
    }
}

/// What text says of a reason, a state and TCP flags.
struct Phrases {
    /// Why, if the kernel tells.
    reason: Option<Rc<str>>,
    /// `NETFILTER_DROP (12)`; two dashes where the kernel does not tell.
    reason_code: String,
    /// `ESTABLISHED (FIN|ACK)`.
    state_flags: String,
    flags: Flags,
}

impl Phrases {
    fn new(event: &Event, reason: Option<Rc<str>>) -> Self {
        let flags = Flags(event.flags);
        let state_flags = StateFlags { state: event.state, flags }.to_string();
        let reason_code = match &reason {
            Some(reason) => format!("{reason} ({})", event.reason),
            None => "- (-)".to_owned(),
        };
        Self { reason, reason_code, state_flags, flags }
    }
}

/// The phrases of rows so far: a flood repeats few of them.
#[derive(Default)]
struct Lexicon(BTreeMap<(u32, u16, u16), Rc<Phrases>>);

/// So many phrases are kept before we begin anew: who sends packets chooses their flags.
const PHRASES: usize = 1024;

impl Lexicon {
    fn phrases(&mut self, event: &Event, reasons: &Reasons) -> Rc<Phrases> {
        if self.0.len() >= PHRASES {
            self.0.clear();
        }
        let phrases = self.0.entry((event.reason, event.state, event.flags));
        Rc::clone(phrases.or_insert_with(|| Rc::new(Phrases::new(event, reasons.name(event.reason)))))
    }
}

/// The functions of a stack.
pub struct Functions {
    names: Vec<String>,
    /// As they stand below a row, with the empty line that ends them. Made once: a flood repeats few stacks.
    text: String,
}

impl Functions {
    /// From names such as `tcp_v4_rcv+0x1`, innermost first.
    pub fn new(names: Vec<String>) -> Self {
        let mut text = names.iter().fold(String::new(), |text, name| text + "\t" + &escaped(name) + "\n");
        text.push('\n');
        Self { names, text }
    }
}

/// `FIN|ACK`.
#[derive(Clone, Copy)]
struct Flags(u16);

impl Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (bit, name) in ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"].into_iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                f.write_str(between)?;
                f.write_str(name)?;
                between = "|";
            }
        }
        Ok(())
    }
}

/// `ESTABLISHED (FIN|ACK)`.
struct StateFlags {
    state: u16,
    flags: Flags,
}

impl Display for StateFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, conn::state_name(self.state.into())) {
            (0, _) => f.write_char('-')?,
            (_, Some(name)) => f.write_str(name)?,
            (number, None) => write!(f, "{number}")?,
        }
        write!(f, " ({})", self.flags)
    }
}

/// Drops on their way from the ring to the output.
struct Drops {
    /// A row's process is the socket's owner.
    by_owner: bool,
    reasons: Reasons,
    lexicon: Lexicon,
    stacks: Stacks,
}

impl Drops {
    fn print(&mut self, cx: &mut Ctx, table: &Table<Row>, batch: &Batch) -> Result<()> {
        for (record, facts) in batch.records_with_facts() {
            let (mut event, stack) = if let Ok(event) = Event::read_from_bytes(record) {
                (event, self.stacks.known.get(event.stack))
            } else if let Some(new) = batch.decode::<WithStack>(record) {
                (new.event, self.stacks.take(cx, &new)?)
            } else {
                continue;
            };
            let whose = Whose::new(facts, self.by_owner);
            event.pid = whose.pid(event.pid);
            let row = Row { event, stack, phrases: self.lexicon.phrases(&event, &self.reasons), whose };
            print_row(cx, table, &row);
        }
        self.stacks.make_room()
    }
}

/// Stacks by the numbers that the kernel side gave them, and what that side knows of them.
struct Stacks {
    known: Known,
    /// Which numbers are not sent with their stack any more.
    sent: probe::Table,
    /// Where stacks are cut.
    cut: probe::Table,
    entries: Entries,
    /// The kernel's symbols, where programs cannot have it name addresses.
    symbols: Option<Symbols>,
}

impl Stacks {
    fn of(probe: &mut Probe, symbols: Option<Symbols>) -> Result<Self> {
        Ok(Self {
            known: Known::default(),
            sent: probe.table("SENT")?,
            cut: probe.table("ENTRIES")?,
            entries: Entries::default(),
            symbols,
        })
    }

    /// A stack with its names. If an interrupt brought it, the next ones that come through that entry end there.
    fn take(&mut self, cx: &mut Ctx, new: &WithStack) -> Result<Rc<Functions>> {
        let depth = (new.event.depth as usize).min(new.frames.len());
        let frames = &new.frames[..depth];
        let names: Vec<Option<&str>> = match &mut self.symbols {
            None => (0..depth).map(|nth| name(new, nth)).collect(),
            Some(symbols) => {
                if let Some(why) = symbols.look_up(frames) {
                    cx.warn(format_args!("functions have no names here: {why}"));
                }
                frames.iter().map(|&address| symbols.name(address)).collect()
            }
        };
        if let Some(at) = names.iter().position(|name| name.is_some_and(is_entry)) {
            let entries = with(self.entries, new.frames[at]);
            if entries != self.entries {
                self.entries = entries;
                self.cut.set(0_u32.as_bytes(), entries.as_bytes())?;
            }
        }
        let functions = Rc::new(Functions::new(functions(&names)));
        if new.event.kept != 0 {
            self.known.new.insert(new.event.stack, Rc::clone(&functions));
        }
        Ok(functions)
    }

    /// Forgets what is old before the kernel's table is full. Stacks that still occur are sent once more.
    fn make_room(&mut self) -> Result<()> {
        if self.known.new.len() >= STACKS {
            self.sent.drain(|| false, |_, _| ())?;
            self.known.turn();
        }
        Ok(())
    }
}

/// So many stacks are kept before we begin anew: fewer than the kernel's table holds, by what may come in one batch.
const STACKS: usize = 768;

/// Stacks that were sent since the kernel's table was emptied, and those of the time before: an event that names one of
/// these may have been on its way.
struct Known {
    none: Rc<Functions>,
    new: BTreeMap<u64, Rc<Functions>>,
    old: BTreeMap<u64, Rc<Functions>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { none: Rc::new(Functions::new(Vec::new())), new: BTreeMap::new(), old: BTreeMap::new() }
    }
}

impl Known {
    /// The functions of a stack that came earlier.
    fn get(&self, number: u64) -> Rc<Functions> {
        if number == 0 {
            // No stack was asked for, or the kernel could not tell it.
            return Rc::clone(&self.none);
        }
        let known = self.new.get(&number).or_else(|| self.old.get(&number));
        // The ring buffer had room for the row, and none for its stack.
        known.map_or_else(|| Rc::new(Functions::new(vec!["[no room for the stack]".to_owned()])), Rc::clone)
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.new);
    }
}

/// `entries`, stretched to this address.
fn with(entries: Entries, address: u64) -> Entries {
    if entries.bytes == 0 {
        return Entries { first: address, bytes: 1 };
    }
    let first = entries.first.min(address);
    let last = (entries.first + (entries.bytes - 1)).max(address);
    Entries { first, bytes: last - first + 1 }
}

/// Whether interrupts come into the kernel through this function: x86's are all named so and lie together, arm64 has
/// one per kind. Before 5.12, x86's way to another stack for the interrupts that are left for later is called so, too.
fn is_entry(name: &str) -> bool {
    !name.starts_with("asm_call_")
        && ["asm_", "xen_asm_", "el1h_64_irq+", "el1h_64_fiq+"].iter().any(|begin| name.starts_with(begin))
}

/// `name+0x1` of a frame, as the kernel wrote it: `name+0x1/0x20 [module]`. `None`: it has no name, or too long a one.
fn name(of: &WithStack, frame: usize) -> Option<&str> {
    let text = of.names.get(frame / NAMES)?;
    let text = &text[..text.iter().position(|&byte| byte == 0)?];
    // Behind each whole line there is another one, which may be empty.
    let mut lines = text.split(|&byte| byte == b'\n').skip(frame % NAMES);
    let (line, _rest) = (lines.next()?, lines.next()?);
    let line = str::from_utf8(line).ok()?;
    // What has no name is a bare address.
    let name = line.split_once('/').map_or(line, |(name, _size)| name);
    (!name.starts_with("0x")).then_some(name)
}

/// The functions of a stack without those that trace it, up to the one through which an interrupt came.
fn functions(names: &[Option<&str>]) -> Vec<String> {
    let is = |name: Option<&str>, what: &str| name.is_some_and(|name| name.starts_with(what));
    // Where the kernel calls its tracepoints; on some kernels there are two such frames.
    let called = names.iter().rposition(|name| is(*name, "__traceiter_kfree_skb+"));
    let own = match called {
        Some(at) => at + 1,
        // A kernel that calls ours without a function of its own in between.
        None => names.iter().take_while(|name| is(**name, "bpf_") || is(**name, "__bpf_")).count(),
    };
    let entry = names.iter().position(|name| name.is_some_and(is_entry));
    let end = entry.map_or(names.len(), |at| at + 1).max(own);
    names[own..end].iter().map(|name| name.unwrap_or("[unknown]").to_owned()).collect()
}

/// The row, and below it the stack and an empty line, unless the user wants other columns than these.
fn print_row(cx: &mut Ctx, table: &Table<Row>, row: &Row) {
    cx.out.row(table, row.event.ts_ns, row);
    if row.event.stack != 0 && cx.out.format() == Format::Text && cx.out.has_usual() {
        cx.out.raw().extend_from_slice(row.stack.text.as_bytes());
    }
}

/// BCC's columns.
pub fn table(args: &Options) -> Table<Row> {
    Table::new(args.json.format())
        .col(wall(8))
        .col(left("PID", 7, |r: &Row| r.event.pid.into()).about(conn::pid(
            "The process on the CPU, which where a packet arrives has nothing to do with it. With --owner it is the owner of the \
             packet's socket, and 0 where nobody knows.",
        )))
        .col(left("IP", 2, |r: &Row| Cell::Unsigned(conn::version(r.event.tuple.family))).about(conn::IP))
        .col(
            left("SADDR:SPORT", 20, |r: &Row| {
                Cell::Endpoint(conn::laddr(&r.event.tuple), r.event.tuple.lport)
            })
            .gap(" > ")
            .except(Format::Json)
            .about(About::text("The packet's source address and port.")),
        )
        .col(
            left("DADDR:DPORT", 20, |r: &Row| {
                Cell::Endpoint(conn::raddr(&r.event.tuple), r.event.tuple.rport)
            })
            .except(Format::Json)
            .about(About::text("The packet's destination address and port.")),
        )
        .col(
            left("STATE (FLAGS)", 20, |r: &Row| Cell::Name(r.phrases.state_flags.as_bytes()))
                .except(Format::Json)
                .about(About::text("The state of the packet's socket, and the packet's TCP flags.")),
        )
        .col(
            left("REASON (CODE)", 0, |r: &Row| Cell::Name(r.phrases.reason_code.as_bytes()))
                .key("reason_and_code")
            .except(Format::Json)
                .about(About::text("Why, by the running kernel's name and number; `- (-)` before Linux 5.17.")),
        )
        .col(
            data("saddr", |r: &Row| conn::laddr(&r.event.tuple).into())
                .about(About::new(Kind::Address, "The packet's source address.").otel("source.address")),
        )
        .col(
            data("sport", |r: &Row| r.event.tuple.lport.into())
                .about(About::new(Kind::Port, "The packet's source port.").otel("source.port")),
        )
        .col(
            data("daddr", |r: &Row| conn::raddr(&r.event.tuple).into())
                .about(About::new(Kind::Address, "The packet's destination address.").otel("destination.address")),
        )
        .col(
            data("dport", |r: &Row| r.event.tuple.rport.into())
                .about(About::new(Kind::Port, "The packet's destination port.").otel("destination.port")),
        )
        .col(
            data("state", |r: &Row| match r.event.state {
                0 => Cell::Empty,
                state => conn::state(state.into()),
            })
            .about(conn::state_about("The state of the packet's socket; null where it has none.").or_null()),
        )
        .col(
            data("flags", |r: &Row| Cell::Shown(&r.phrases.flags))
                .about(About::text("The packet's TCP flags, joined by a bar.")),
        )
        .col(
            data("reason", |r: &Row| r.phrases.reason.as_ref().map_or(Cell::Empty, |reason| Cell::Shown(reason)))
                .about(About::text("Why, by the running kernel's name; null before Linux 5.17.").or_null()),
        )
        .col(
            data("reason_code", |r: &Row| r.phrases.reason.as_ref().map_or(Cell::Empty, |_| r.event.reason.into()))
                .about(About::count("Why, by the running kernel's number; null before Linux 5.17.").or_null()),
        )
        .col(data("netns", |r: &Row| r.event.netns.into()).about(conn::NETNS))
        .col_if(
            !args.no_stack,
            data("stack", |r: &Row| Cell::List(&r.stack.names)).about(About::new(
                Kind::List,
                "The kernel's functions on the way to the drop, the last one first, with offsets; not with --no-stack. \
                 In text each has a line below the row.",
            )).known_if(!args.no_stack, "leave --no-stack out"),
        )
        .process(|r| r.whose.process(Process::now(r.event.pid), r.event.ts_ns))
        .socket(args.owner.owner, &SocketFact::OF_OWNERS, |r| &r.whose.facts)
        .socket(false, &[SocketFact::Cookie], |r| &r.whose.facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn trimmed(names: &[Option<&str>]) -> Vec<String> {
        functions(names)
    }

    #[test]
    fn stacks_begin_where_the_packet_is_freed() {
        let kernel = ["kfree_skb_reason+0x94", "tcp_v4_rcv+0x1"];
        let tail: Vec<Option<&str>> = kernel.iter().copied().map(Some).chain([None]).collect();
        let expected = ["kfree_skb_reason+0x94", "tcp_v4_rcv+0x1", "[unknown]"];
        for head in [
            &["bpf_prog_1_x+0x10", "bpf_trace_run3+0x2", "__traceiter_kfree_skb+0x4"][..],
            &["bpf_prog_1_x+0x10", "__traceiter_kfree_skb+0x4", "__traceiter_kfree_skb+0x4"],
            &["bpf_prog_1_x+0x10", "bpf_trace_run4+0x2"],
            &[],
        ] {
            let names: Vec<Option<&str>> = head.iter().copied().map(Some).chain(tail.clone()).collect();
            assert_eq!(trimmed(&names), expected, "{head:?}");
        }
    }

    #[test]
    fn stacks_end_where_an_interrupt_came_in() {
        for entry in ["asm_sysvec_apic_timer_interrupt+0x16", "el1h_64_irq+0x6c"] {
            let names = ["tcp_v4_rcv+0x1", entry, "default_idle+0x9", "el1h_64_irq+0x6c"].map(Some);
            assert_eq!(trimmed(&names), ["tcp_v4_rcv+0x1", entry]);
        }
        let entries = [50, 40, 45, 60].into_iter().fold(Entries::default(), with);
        assert_eq!(entries, Entries { first: 40, bytes: 21 });
    }

    /// A stack as the kernel sends it.
    fn new_stack(names: &[&[u8]]) -> WithStack {
        let mut new = WithStack::new_zeroed();
        for (to, from) in new.names.iter_mut().zip(names) {
            // What an older event left there.
            to.fill(b'x');
            to[..from.len()].copy_from_slice(from);
            to[from.len()] = 0;
        }
        new
    }

    #[test]
    fn names_are_what_the_kernel_writes() {
        let ten =
            b"a+0x1/0x2\nb+0x10/0x20 [nf_tables]\n0xffffffff81000000\n\nc+0x1/0x2\n0\n0\n0\n0\nd+0x1/0x2\n";
        let new = new_stack(&[ten, b"e+0x1/0x2\ncut+0x"]);
        let named: Vec<Option<&str>> = (0..13).map(|nth| name(&new, nth)).collect();
        let some = |nth: usize| named[nth];
        assert_eq!(
            [some(0), some(1), some(2), some(4)],
            [Some("a+0x1"), Some("b+0x10"), None, Some("c+0x1")]
        );
        assert_eq!([some(9), some(10), some(11), some(12)], [Some("d+0x1"), Some("e+0x1"), None, None]);
        assert_eq!(name(&new, 9999), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut known = Known::default();
        let named = |name: &str| Rc::new(Functions::new(vec![name.to_owned()]));
        known.new.insert(1, named("a"));
        known.turn();
        known.new.insert(2, named("b"));
        assert_eq!(
            [1, 2, 3].map(|number| known.get(number).names.concat()),
            ["a", "b", "[no room for the stack]"]
        );
        assert!(known.get(0).names.is_empty());
        known.turn();
        assert_eq!([1, 2].map(|number| known.get(number).names.concat()), ["[no room for the stack]", "b"]);
    }

    #[test]
    fn phrases_are_of_their_event_and_bounded() {
        let (mut lexicon, reasons) = (Lexicon::default(), reasons());
        for nth in (0..u16::MAX).step_by(16) {
            let event =
                Event { reason: u32::from(nth) % 5, state: nth % 14, flags: nth / 14, ..Event::new_zeroed() };
            let phrases = lexicon.phrases(&event, &reasons);
            let again = lexicon.phrases(&event, &reasons);
            let new = Phrases::new(&event, reasons.name(event.reason));
            assert_eq!(phrases.state_flags, new.state_flags);
            assert_eq!([&phrases.reason_code, &again.reason_code], [&new.reason_code; 2]);
            assert!(lexicon.0.len() <= PHRASES);
        }
        assert_eq!(Phrases::new(&Event::new_zeroed(), None).reason_code, "- (-)");
    }

    #[test]
    fn flags_are_in_the_order_of_their_bits() {
        for (flags, text) in
            [(0, ""), (2, "SYN"), (0x12, "SYN|ACK"), (0xff, "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR")]
        {
            assert_eq!(Flags(flags).to_string(), text);
        }
        assert_eq!(StateFlags { state: 1, flags: Flags(0) }.to_string(), "ESTABLISHED ()");
        assert_eq!(StateFlags { state: 0, flags: Flags(2) }.to_string(), "- (SYN)");
        assert_eq!(StateFlags { state: 13, flags: Flags(4) }.to_string(), "13 (RST)");
    }

    fn reasons() -> Reasons {
        let members = [
            (0, "SKB_NOT_DROPPED_YET"),
            (1, "SKB_CONSUMED"),
            (2, "SKB_DROP_REASON_NOT_SPECIFIED"),
            (3, "SKB_DROP_REASON_NO_SOCKET"),
            (12, "SKB_DROP_REASON_NETFILTER_DROP"),
        ];
        Reasons::new(&members.map(|(code, name)| (code, name.to_owned())))
    }

    #[test]
    fn reasons_go_by_the_kernels_names() {
        let reasons = reasons();
        for (code, name) in
            [(0, "SKB_NOT_DROPPED_YET"), (3, "NO_SOCKET"), (4, "UNKNOWN"), (65_536, "UNKNOWN")]
        {
            assert_eq!(reasons.name(code).as_deref(), Some(name));
        }
        for (typed, code) in
            [("NO_SOCKET", 3), ("netfilter_drop", 12), ("SKB_DROP_REASON_NO_SOCKET", 3), ("77", 77)]
        {
            assert_eq!(reasons.code(typed).unwrap(), code, "{typed}");
        }
        for typed in ["", "NO_SUCH_REASON", "65536", "-1"] {
            let error = reasons.code(typed).unwrap_err();
            assert_eq!(crate::error::exit_code(&error), 2, "{typed}");
            assert!(error.to_string().ends_with("NO_SOCKET, NETFILTER_DROP"), "{error}");
        }
        let told = |typed| reasons.code(typed).unwrap_err().to_string();
        assert!(
            told("filter").ends_with("nor the number of one: it has NETFILTER_DROP"),
            "{}",
            told("filter")
        );
        assert!(told("x").ends_with("NOT_SPECIFIED, NO_SOCKET, NETFILTER_DROP"), "{}", told("x"));
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn all_is_all_that_is_dropped() {
        use clap::Parser as _;
        let kept = |line: &str| {
            let line = Line::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
            reasons().kept(&line.options).unwrap()[0] & 0b1111
        };
        assert_eq!(kept("tcpdrop"), 0b1000);
        assert_eq!(kept("tcpdrop --all"), 0b1100);
        assert_eq!(kept("tcpdrop --reason NOT_SPECIFIED"), 0b0100);
        assert_eq!(kept("tcpdrop --all --not-reason NOT_SPECIFIED"), 0b1000);
    }
}
