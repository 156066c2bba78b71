//! `--listeners`: a row per listening socket: whose it is, how long its queue was, and how many connections it refused.
//!
//! Programs sum by listener; an iterator over open files writes beside that what each queue is, and who has it open. Where the functions
//! that refuse can be traced, refusals are counted. Else they follow from two counts of the kernel's: what the listener dropped, which
//! is more than refusals, and `ListenOverflows` of its network namespace, which is exactly the refusals of all its listeners.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use netbcc_common::kernel::Func;
use netbcc_common::tcpsynbl::Listener;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::super::conn;
use super::{FIRST, Options};
use crate::hook::{Ladder, LessExact, Need, Prog, Rung, RungName, fentry, iter, kprobe, tp_btf};
use crate::out::{About, Cell, Format, Kind, Process, Table, data, interval, left, right};
use crate::probe::{Generations, Probe, Table as Map, Walk};
use crate::sys::machine::{Space, is_elsewhere};
use crate::tool::Ctx;

/// The table that may get full, and is sized by the user.
pub(super) const TABLE: &str = "LISTENERS";
/// What connections inherit.
pub(super) const INHERITED: &str = "OF_LISTENER";

/// The program that counts what a listener takes, where functions cannot be traced.
const INHERITS: &str = "inherits_tp";
/// The program that counts third packets that are refused, where functions cannot be traced.
const LATE: &str = "late_tp";
/// The programs that look at all listeners.
const LOOKS: [&str; 2] = ["listener_iter", "listener_marks_iter"];

const OPEN_FILES: &str = "bpf_iter_task_file";
const LOOK: Prog = iter(LOOKS[0], OPEN_FILES);
/// Also lets connections know which listener they are of.
const LOOK_AND_MARK: Prog = iter(LOOKS[1], OPEN_FILES);
const LISTENS: Prog = tp_btf("listens_tp", "inet_sock_set_state");
const TAKES: Prog = tp_btf(INHERITS, "inet_sock_set_state");

const REFUSALS: LessExact =
    LessExact::new("REFUSED is at most what it says where it begins with '~'").detail(
        "A listener's drops are more than what it refused: what it drops for other reasons is among them. The overflows \
         of a network namespace are the refusals of all its listeners.",
    );

pub(super) const LISTENERS: Ladder = Ladder {
    name: "listeners",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("asked_fentry", "tcp_conn_request"),
                fentry("answered_v4_fentry", "tcp_v4_syn_recv_sock").when(Need::V4Rows),
                fentry("answered_v6_fentry", "tcp_v6_syn_recv_sock").when(Need::V6Rows),
                LISTENS,
                LOOK,
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("asked_kprobe", "tcp_conn_request"),
                kprobe("answered_v4_kprobe", "tcp_v4_syn_recv_sock").when(Need::V4Rows),
                kprobe("answered_v6_kprobe", "tcp_v6_syn_recv_sock").when(Need::V6Rows),
                LISTENS,
                LOOK,
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf(LATE, "kfree_skb").arity(Func::KfreeSkb, 4).when(Need::Known(super::OVERFLOW)),
                TAKES,
                LOOK_AND_MARK,
            ],
            less_exact: Some(REFUSALS),
        },
        Rung { name: RungName::Tracepoint, programs: &[TAKES, LOOK_AND_MARK], less_exact: Some(REFUSALS) },
        // Before 5.11, where such programs cannot keep anything with a socket.
        Rung {
            name: RungName::Tracepoint,
            programs: &[LISTENS, LOOK],
            less_exact: Some(
                LessExact::new(
                    "REFUSED is at most that where it begins with '~', and QLEN is the last queue",
                )
                .detail(
                    "What a listener takes is not counted, so a queue that was longer meanwhile is not seen.",
                ),
            ),
        },
    ],
};

/// A listener in an interval.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the kernel has it at the end of the interval.
    pub listener: Listener,
    /// The longest queue in the interval.
    pub longest: u32,
    /// Handshakes that found room, where that is known.
    pub accepted: Option<u64>,
    /// What it refused.
    pub refused: u64,
    /// Whether that is exact; else it is at most so many.
    pub is_exact: bool,
    /// Those of them that were refused at their third packet, where they are told apart.
    pub late: Option<u64>,
    /// What it dropped.
    pub drops: u32,
    /// Refusals of all listeners of its network namespace, as the kernel counts them.
    pub overflows: Option<u64>,
    /// The column REFUSED.
    text: String,
}

impl Row {
    /// A listener whose longest queue was so long, and which refused so many; whether that is exact.
    pub fn new(listener: Listener, longest: u32, refused: (u64, bool)) -> Self {
        let mut row = Self {
            listener,
            longest: longest.max(listener.queue),
            accepted: None,
            refused: 0,
            is_exact: true,
            late: None,
            drops: 0,
            overflows: None,
            text: String::new(),
        };
        row.refuses(refused);
        row
    }

    /// It refused so many; whether that is exact.
    fn refuses(&mut self, (refused, is_exact): (u64, bool)) {
        (self.refused, self.is_exact) = (refused, is_exact);
        self.text = format!("{}{refused}", if is_exact { "" } else { "~" });
    }

    /// Whether it was there when all listeners were looked at in this interval.
    fn is_seen(&self, interval: u32) -> bool {
        self.listener.closed == 0 && self.listener.seen == interval
    }
}

/// How many overflows each network namespace had, by its inode number.
type Overflows = BTreeMap<u32, u64>;

/// What was known of a listener at the end of the last interval.
#[derive(Clone, Copy)]
struct Told {
    accepted: u64,
    early: u64,
    late: u64,
    drops: u32,
}

impl Told {
    fn of(listener: &Listener) -> Self {
        let Listener { accepted, early, late, drops, .. } = *listener;
        Self { accepted, early, late, drops }
    }
}

/// Tells a listener from others, also from one that had its address before.
type Key = (u64, u64);

/// Where the kernel sums.
pub(super) struct Listeners {
    generations: Generations,
    /// The number of the interval.
    interval: u32,
    table: Map,
    walk: Walk,
    /// Whether refusals are counted where they happen.
    counts: bool,
    /// Whether those at the third packet are known.
    knows_late: bool,
    /// Whether what a listener takes is known.
    knows_accepted: bool,
    told: HashMap<Key, Told>,
    overflows: Overflows,
    /// Whether `told` and `overflows` are of the same moment.
    was_sure: bool,
    /// A process in each network namespace.
    inside: BTreeMap<u32, u32>,
}

/// Network namespaces that have a process, by inode number; nothing where /proc has other numbers than the kernel's programs.
pub(super) struct Namespaces(BTreeMap<u32, u32>);

impl Namespaces {
    /// Those that there are. To be asked before capabilities are dropped.
    pub(super) fn there() -> Self {
        let mut all = BTreeMap::new();
        if is_elsewhere(Space::Pid) {
            return Self(all);
        }
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in folders.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/net"))
                && let Ok(inode) = u32::try_from(namespace.ino())
            {
                all.entry(inode).or_insert(pid);
            }
        }
        Self(all)
    }
}

/// What one look at all listeners says.
struct Look {
    listeners: Vec<(Key, Listener)>,
    longest: HashMap<Key, u32>,
    overflows: Overflows,
    /// Whether nothing was refused between what is said of listeners and what is said of namespaces.
    is_sure: bool,
}

impl Listeners {
    pub(super) fn new(probe: &mut Probe, namespaces: Namespaces) -> Result<Self> {
        let walks = LOOKS.iter().find_map(|name| probe.walk(name).transpose());
        let mut all = Self {
            generations: probe.generations("CURRENT", FIRST)?,
            interval: FIRST,
            table: probe.table(TABLE)?,
            walk: walks.context("no program looks at listeners")??,
            counts: probe.rung(LISTENERS.name) != Some(RungName::Tracepoint),
            knows_late: probe.has(LATE),
            knows_accepted: probe.has(INHERITS),
            told: HashMap::new(),
            overflows: overflows(&namespaces.0),
            was_sure: false,
            inside: namespaces.0,
        };
        all.knows_late |= all.counts;
        all.knows_accepted |= all.counts;
        // What was before the start.
        let look = all.look()?;
        all.told = look.listeners.iter().map(|(key, listener)| (*key, Told::of(listener))).collect();
        all.overflows.extend(look.overflows);
        all.was_sure = look.is_sure;
        Ok(all)
    }

    /// Looks at all listeners, until the counts of namespaces are of the same moment as theirs.
    fn look(&mut self) -> Result<Look> {
        const MOST: usize = 4;
        let mut look = Look {
            listeners: Vec::new(),
            longest: HashMap::new(),
            overflows: BTreeMap::new(),
            is_sure: false,
        };
        for _ in 0..MOST {
            let before = overflows(&self.inside);
            let ended = self.interval;
            let used = self.generations.turn()?;
            self.interval = ended.checked_add(1).unwrap_or(2);
            self.walk.go()?;
            look.listeners.clear();
            let longest = &mut look.longest;
            self.table.each(|key, value| {
                if let (Ok(at), Ok(listener)) = (u64::read_from_bytes(key), Listener::read_from_bytes(value))
                {
                    let key = (at, listener.born_ns);
                    if listener.intervals[used] == ended {
                        let known: &mut u32 = longest.entry(key).or_default();
                        *known = listener.longest[used].max(*known);
                    }
                    look.listeners.push((key, listener));
                }
            })?;
            if !is_elsewhere(Space::Pid) {
                // Who had a listener that is gone may be gone, too.
                let is_there = |listener: &Listener| listener.seen == self.interval && listener.inside != 0;
                let inside = look.listeners.iter().filter(|(_, listener)| is_there(listener));
                self.inside.extend(inside.map(|(_, listener)| (listener.netns, listener.inside)));
            }
            look.overflows = overflows(&self.inside);
            look.is_sure = before == look.overflows;
            // Where refusals are counted, nothing follows from the counts of namespaces.
            if look.is_sure || self.counts {
                break;
            }
        }
        Ok(look)
    }

    /// What listeners did since the last time.
    pub(super) fn taken(&mut self) -> Result<Vec<Row>> {
        let Look { listeners, longest, overflows, is_sure } = self.look()?;
        let mut rows: Vec<Row> = Vec::new();
        let mut told = HashMap::new();
        let mut namespaces: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (key, listener) in listeners {
            let zero = Told { accepted: 0, early: 0, late: 0, drops: 0 };
            let before = self.told.get(&key).copied().unwrap_or(zero);
            let now = Told::of(&listener);
            let late = now.late.wrapping_sub(before.late);
            let counted = now.early.wrapping_sub(before.early) + late;
            let overflows = overflows.get(&listener.netns).zip(self.overflows.get(&listener.netns));
            let mut row = Row::new(listener, longest.get(&key).copied().unwrap_or(0), (counted, true));
            row.accepted = self.knows_accepted.then(|| now.accepted.wrapping_sub(before.accepted));
            row.late = self.knows_late.then_some(late);
            row.drops = now.drops.wrapping_sub(before.drops);
            row.overflows = overflows.map(|(now, before)| now.wrapping_sub(*before));
            let is_gone = !row.is_seen(self.interval);
            namespaces.entry(listener.netns).or_default().push(rows.len());
            rows.push(row);
            if is_gone {
                self.table.remove(key.0.as_bytes())?;
            } else {
                told.insert(key, now);
            }
        }
        if !self.counts {
            for nths in namespaces.values() {
                let is_whole =
                    is_sure && self.was_sure && nths.iter().all(|&nth| rows[nth].is_seen(self.interval));
                let of = |&nth: &usize| (rows[nth].drops.into(), rows[nth].late.unwrap_or(0));
                let each: Vec<(u64, u64)> = nths.iter().map(of).collect();
                let all = nths.first().and_then(|&nth| rows[nth].overflows);
                for (&nth, share) in nths.iter().zip(shares(&each, all, is_whole)) {
                    let (late, is_seen) = (rows[nth].late.unwrap_or(0), rows[nth].is_seen(self.interval));
                    rows[nth].refuses(match all {
                        // What it dropped since the last time is not known: it may have refused all of them.
                        Some(all) if !is_seen => (all.max(late), all <= late),
                        _ => share,
                    });
                }
            }
        }
        self.told = told;
        // A namespace that was not read has no base for the next time.
        self.overflows = overflows;
        self.was_sure = is_sure;
        rows.retain(|row| row.listener.kept != 0);
        rows.sort_by_cached_key(|row| {
            let Listener { limit, tuple, born_ns, .. } = row.listener;
            // A limit of 0 has room for one.
            let full = u64::from(row.longest) * 1_000_000 / (u64::from(limit) + 1);
            (Reverse(row.refused), Reverse(full), tuple.lport, conn::laddr(&tuple), born_ns)
        });
        Ok(rows)
    }
}

/// What each of a namespace's listeners refused, and whether that is exact. Each is given by what it dropped and by how many third
/// packets it is known to have refused, each of which counts as two drops. `overflows` is what all refused together. `is_whole`: all of
/// these were looked at in the same moment.
fn shares(listeners: &[(u64, u64)], overflows: Option<u64>, is_whole: bool) -> Vec<(u64, bool)> {
    let other = |(drops, late): &(u64, u64)| drops.saturating_sub(2 * late);
    let all: u64 = listeners.iter().map(other).sum();
    let dropping = listeners.iter().filter(|listener| other(listener) > 0).count();
    let late: u64 = listeners.iter().map(|(_, late)| late).sum();
    let left = overflows.map(|overflows| overflows.saturating_sub(late));
    let share = |listener: &(u64, u64)| {
        let (other, late) = (other(listener), listener.1);
        match left {
            _ if other == 0 && is_whole => (late, true),
            Some(left) if is_whole && left == all => (late + other, true),
            Some(left) if is_whole && dropping == 1 && left < all => (late + left, true),
            Some(left) if is_whole => (late + other.min(left), false),
            _ => (late + other, false),
        }
    };
    listeners.iter().map(share).collect()
}

/// `ListenOverflows` of the network namespaces of these processes.
fn overflows(inside: &BTreeMap<u32, u32>) -> Overflows {
    let of = |pid: &u32| overflows_in(&fs::read_to_string(format!("/proc/{pid}/net/netstat")).ok()?);
    inside.iter().filter_map(|(netns, pid)| Some((*netns, of(pid)?))).collect()
}

/// `ListenOverflows` in the text of /proc/net/netstat: a line of names, and one of values.
fn overflows_in(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
}

/// One block.
pub(super) fn print(args: &Options, cx: &mut Ctx, rows: &[Row], now_ns: u64) {
    cx.out.line("");
    if args.timestamp {
        let time = cx.out.clock().hms(now_ns).to_owned();
        cx.out.line(time);
    }
    let table = table(args);
    cx.out.header(&table);
    for row in rows {
        cx.out.row(&table, now_ns, row);
    }
}

/// What is known, or null.
fn or_null(value: Option<u64>) -> Cell<'static> {
    value.map_or(Cell::Empty, Cell::Unsigned)
}

/// The columns of `--listeners`.
pub fn table(args: &Options) -> Table<Row> {
    let table = Table::new(args.json.format())
        .col(interval())
        .col(left("PID", 7, |r: &Row| r.listener.pid.into()).about(conn::pid(
            "The process that has it open, the smallest of several, but not 1; 0: none was found.",
        )))
        .col(
            left("COMM", 16, |r: &Row| match r.listener.pid {
                0 => Cell::Label("-"),
                _ => (&r.listener.comm).into(),
            })
            .about(About::text("The name of that process; a dash where there is none.").otel("thread.name")),
        )
        .col(
            data("holders", |r: &Row| r.listener.holders.into())
                .about(About::count("How many processes have it open.")),
        )
        .col(left("LADDR", 25, |r: &Row| conn::laddr(&r.listener.tuple).into()).about(conn::LADDR))
        .col(left("LPORT", 5, |r: &Row| r.listener.tuple.lport.into()).about(conn::LPORT))
        .col(
            right("QLEN", 6, |r: &Row| r.longest.into())
                .about(About::count("The longest queue that was seen in the interval.")),
        )
        .col(
            data("qlen_now", |r: &Row| r.listener.queue.into())
                .about(About::count("How many connections wait for accept() at the interval's end.")),
        )
        .col(
            right("QMAX", 6, |r: &Row| r.listener.limit.into())
                .about(About::count("The limit of the queue, which holds one more.")),
        );
    let table = table
        .col(
            data("accepted", |r: &Row| or_null(r.accepted))
                .about(About::count("Connections that found room in the queue; null where that is not counted.").or_null()),
        )
        .col(
            right("REFUSED", 8, |r: &Row| Cell::Shown(&r.text))
                .key("refusals")
                .except(Format::Json)
                .about(About::text("SYNs and third packets that were refused because the queue was full; with ~ at most so many.")),
        )
        .col(
            data("refused", |r: &Row| r.refused.into())
                .about(About::count("SYNs and third packets that were refused because the queue was full.")),
        )
        .col(
            data("refused_exact", |r: &Row| r.is_exact.into())
                .about(About::new(Kind::Bool, "Whether that is exact; else it is at most so many.")),
        )
        .col(
            data("refused_late", |r: &Row| or_null(r.late)).about(
                About::count(
                    "Those that were refused at their third packet; null where they are not told apart. Without fentry and kprobes \
                     those by SYN cookie are not among them.",
                )
                .or_null(),
            ),
        );
    table
        .col(data("sk_drops", |r: &Row| r.drops.into()).about(About::count(
            "Packets that the listener dropped, for whatever reason, by its own count; a refusal may count more than once.",
        )))
        .col(
            data("overflows", |r: &Row| or_null(r.overflows)).about(
                About::count(
                    "Refusals of all listeners of its network namespace (ListenOverflows); null where no process in it has a listener.",
                )
                .or_null(),
            ),
        )
        .col(data("netns", |r: &Row| r.listener.netns.into()).about(conn::NETNS))
        .col(
            data("cookie", |r: &Row| or_null(Some(r.listener.cookie).filter(|&cookie| cookie != 0))).about(
                About::count("The number that the kernel gave the socket (SO_COOKIE); null where it has none yet.").or_null(),
            ),
        )
        .process(|r| Process::now(r.listener.pid).named(&r.listener.comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_are_found_by_their_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 38 40\nIpExt: InNoRoutes\nIpExt: 7\n";
        assert_eq!(overflows_in(text), Some(38));
        assert_eq!(overflows_in("TcpExt: ListenOverflows\n"), None);
        assert_eq!(overflows_in("TcpExt: ListenOverflows\nTcpExt: x\n"), None);
        assert_eq!(overflows_in(""), None);
    }

    #[test]
    fn what_all_refused_tells_what_each_did() {
        // Each dropped what it refused; one of them also two third packets.
        assert_eq!(shares(&[(3, 0), (9, 2), (0, 0)], Some(10), true), [(3, true), (7, true), (0, true)]);
        // SYNs came again at the only one that dropped any.
        assert_eq!(shares(&[(8, 0), (0, 0)], Some(5), true), [(5, true), (0, true)]);
        assert_eq!(shares(&[(2, 0)], Some(0), true), [(0, true)]);
        // And at one of two.
        assert_eq!(shares(&[(8, 0), (2, 0)], Some(5), true), [(5, false), (2, false)]);
        // Somebody refused who is not among them.
        assert_eq!(shares(&[(2, 0)], Some(5), true), [(2, false)]);
        // Nobody says what all refused, or one closed meanwhile.
        assert_eq!(shares(&[(2, 0), (0, 0)], None, true), [(2, false), (0, true)]);
        assert_eq!(shares(&[(2, 0), (0, 0)], Some(2), false), [(2, false), (0, false)]);
    }
}
