//! `--listeners`: a row per listening socket: whose it is, how long its queue was, and how many connections it refused.
//!
//! Programs sum by listener; an iterator over open files writes beside that what each queue is, and who has it open. Where the functions
//! that refuse can be traced, refusals are counted. Else they follow from two counts of the kernel's: what the listener dropped, which
//! is more than refusals, and `ListenOverflows` of its network namespace, which is exactly the refusals of all its listeners.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Context as _, Result};
use netbcc_common::kernel::Func;
use netbcc_common::tcpsynbl::{Counts, Listener};
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
/// Listeners that ended.
pub(super) const GONE: &str = "GONE";
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
    /// What it refused, where that is known.
    pub refused: Option<u64>,
    /// Whether that is exact; else it is at most so many.
    pub is_exact: bool,
    /// Those of them that were refused at their third packet, where they are told apart.
    pub late: Option<u64>,
    /// What it dropped.
    pub drops: u32,
    /// Refusals of all listeners of its network namespace, as the kernel counts them.
    pub overflows: Option<u64>,
    /// Whether it was there when all listeners were looked at in this interval.
    is_seen: bool,
    /// Whether anything was counted in this interval.
    is_busy: bool,
    /// The column REFUSED.
    text: String,
}

impl Row {
    /// A listener whose longest queue was so long, and which refused so many, if that is known; whether that is exact.
    pub fn new(listener: Listener, longest: u32, (refused, is_exact): (Option<u64>, bool)) -> Self {
        let mut row = Self {
            listener,
            longest: longest.max(listener.queue),
            accepted: None,
            refused: None,
            is_exact: false,
            late: None,
            drops: 0,
            overflows: None,
            is_seen: false,
            is_busy: false,
            text: String::new(),
        };
        row.refuses(refused, is_exact);
        row
    }

    /// It refused so many; whether that is exact.
    fn refuses(&mut self, refused: Option<u64>, is_exact: bool) {
        (self.refused, self.is_exact) = (refused, is_exact);
        self.text = match refused {
            None => "-".to_owned(),
            Some(refused) if is_exact => refused.to_string(),
            Some(refused) => format!("~{refused}"),
        };
    }

    /// Whether all is known that it dropped in this interval.
    fn has_drops(&self) -> bool {
        self.is_seen || self.listener.closed != 0
    }
}

/// How many overflows each network namespace had, by its inode number.
type Overflows = BTreeMap<u32, u64>;

/// What was known of a listener at the end of the last interval.
#[derive(Clone, Copy)]
struct Told {
    counts: Counts,
    drops: u32,
    /// Whether what it takes from then on is counted where functions cannot be traced.
    is_marked: bool,
    /// Whether it was there when all listeners were looked at.
    is_seen: bool,
}

impl Told {
    /// `is_seen`: it was looked at in this interval.
    fn of(listener: &Listener, is_seen: bool) -> Self {
        let Listener { counts, then, drops, marked, .. } = *listener;
        // What is seen of a listener is of one moment.
        Self { counts: if is_seen { then } else { counts }, drops, is_marked: marked != 0, is_seen }
    }

    /// Of one that came to be known in this interval.
    fn before(listener: &Listener) -> Self {
        let Listener { base, whole, .. } = *listener;
        Self { counts: Counts::default(), drops: base, is_marked: whole != 0, is_seen: false }
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
    gone: Map,
    walk: Walk,
    /// Whether refusals are counted where they happen.
    counts: bool,
    /// Whether those at the third packet are known.
    knows_late: bool,
    /// Whether what a listener takes is known.
    knows_accepted: bool,
    told: HashMap<Key, Told>,
    /// Those of a namespace without listeners are of the last time that it had one, or of the start.
    overflows: Overflows,
    /// Whether `told` and `overflows` are of the same moment.
    was_sure: bool,
    files: Files,
}

/// `ListenOverflows` of each network namespace that has a process, by inode number; nothing where /proc has other numbers than the
/// kernel's programs.
pub(super) struct Namespaces(Overflows);

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
                && !all.contains_key(&inode)
                && let Some(overflows) = open(pid).as_ref().and_then(overflows_in_file)
            {
                all.insert(inode, overflows);
            }
        }
        Self(all)
    }
}

/// The counts of network namespaces that have listeners. A file stays open: the number of the process by which it was found may
/// become another's. An open one keeps its namespace alive, so none is kept for longer than there are listeners.
struct Files(BTreeMap<u32, File>);

impl Files {
    /// Opens those of namespaces in which a process was just seen with a listener.
    fn meet<'a>(&mut self, seen: impl Iterator<Item = &'a Listener>) {
        if is_elsewhere(Space::Pid) {
            return;
        }
        for listener in seen.filter(|listener| listener.inside != 0) {
            if !self.0.contains_key(&listener.netns)
                && let Some(file) = open(listener.inside)
            {
                self.0.insert(listener.netns, file);
            }
        }
    }

    fn overflows(&self) -> Overflows {
        self.0.iter().filter_map(|(netns, file)| Some((*netns, overflows_in_file(file)?))).collect()
    }
}

/// What one look at all listeners says.
struct Look {
    /// Those that listen.
    live: Vec<(Key, Listener)>,
    /// Those that ended since the last look.
    gone: BTreeMap<Key, Listener>,
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
            gone: probe.table(GONE)?,
            walk: walks.context("no program looks at listeners")??,
            counts: probe.rung(LISTENERS.name) != Some(RungName::Tracepoint),
            knows_late: probe.has(LATE),
            knows_accepted: probe.has(INHERITS),
            told: HashMap::new(),
            overflows: namespaces.0,
            was_sure: false,
            files: Files(BTreeMap::new()),
        };
        all.knows_late |= all.counts;
        all.knows_accepted |= all.counts;
        // What was before the start.
        let look = all.look()?;
        let told =
            |(key, listener): &(Key, Listener)| (*key, Told::of(listener, listener.seen == all.interval));
        all.told = look.live.iter().map(told).collect();
        all.settle(&look);
        Ok(all)
    }

    /// Looks at all listeners, until the counts of namespaces are of the same moment as theirs.
    fn look(&mut self) -> Result<Look> {
        const MOST: usize = 4;
        let mut look = Look {
            live: Vec::new(),
            gone: BTreeMap::new(),
            longest: HashMap::new(),
            overflows: BTreeMap::new(),
            is_sure: false,
        };
        for _ in 0..MOST {
            let before = self.files.overflows();
            let ended = self.interval;
            self.generations.turn()?;
            self.interval = ended.checked_add(1).unwrap_or(2);
            self.walk.go()?;
            let Look { live, gone, longest, .. } = &mut look;
            live.clear();
            self.table.each(|key, value| {
                if let (Ok(at), Ok(listener)) = (u64::read_from_bytes(key), Listener::read_from_bytes(value))
                {
                    live.push(((at, listener.born_ns), listener));
                }
            })?;
            // After those that listen: what ends meanwhile is in both, or in here.
            self.gone.drain(
                || false,
                |key, value| {
                    if let (Ok([at, born_ns]), Ok(listener)) =
                        (<[u64; 2]>::read_from_bytes(key), Listener::read_from_bytes(value))
                    {
                        gone.insert((at, born_ns), listener);
                    }
                },
            )?;
            live.retain(|(key, _)| !gone.contains_key(key));
            let now = self.interval;
            let listeners = live.iter().map(|(key, listener)| (key, listener, false));
            for (key, listener, is_gone) in
                listeners.chain(gone.iter().map(|(key, listener)| (key, listener, true)))
            {
                let known: &mut u32 = longest.entry(*key).or_default();
                if listener.seen == now {
                    *known = listener.peak.max(*known);
                }
                for (length, interval) in listener.longest.into_iter().zip(listener.intervals) {
                    // There is no other row for what one did that ended after the turn.
                    if interval == ended || is_gone && interval == now {
                        *known = length.max(*known);
                    }
                }
            }
            self.files.meet(live.iter().map(|(_, listener)| listener).filter(|one| one.seen == now));
            look.overflows = self.files.overflows();
            look.is_sure = before == look.overflows;
            // Where refusals are counted, nothing follows from the counts of namespaces.
            if look.is_sure || self.counts {
                break;
            }
        }
        Ok(look)
    }

    /// Keeps what a look says of namespaces for the next one.
    fn settle(&mut self, look: &Look) {
        let live = look.live.iter().map(|(_, listener)| listener.netns);
        let live: BTreeSet<u32> = live.collect();
        for netns in live.iter().copied().chain(look.gone.values().map(|listener| listener.netns)) {
            // One that was not read has no base for the next time.
            match look.overflows.get(&netns) {
                Some(overflows) => self.overflows.insert(netns, *overflows),
                None => self.overflows.remove(&netns),
            };
        }
        self.files.0.retain(|netns, _| live.contains(netns));
        self.was_sure = look.is_sure;
    }

    /// What a listener did since the last time; whether it ended.
    fn row(&self, key: Key, listener: Listener, is_gone: bool, look: &Look) -> Row {
        let is_seen = !is_gone && listener.seen == self.interval;
        let before = self.told.get(&key).copied().unwrap_or_else(|| Told::before(&listener));
        let now = Told::of(&listener, is_seen);
        let since = |of: fn(&Counts) -> u64| of(&now.counts).wrapping_sub(of(&before.counts));
        let late = since(|counts| counts.late);
        let accepts = self.counts || self.knows_accepted && before.is_marked && now.is_marked;
        let overflows = look.overflows.get(&listener.netns).zip(self.overflows.get(&listener.netns));
        let longest = look.longest.get(&key).copied().unwrap_or(0);
        let refused = since(|counts| counts.early) + late;
        let mut row = Row::new(listener, longest, (Some(refused), true));
        row.accepted = accepts.then(|| since(|counts| counts.accepted));
        row.late = self.knows_late.then_some(late);
        row.drops = now.drops.wrapping_sub(before.drops);
        // A namespace with the number of one that is gone begins anew.
        row.overflows = overflows.and_then(|(now, before)| now.checked_sub(*before));
        row.is_seen = is_seen;
        row.is_busy = now.counts != before.counts;
        row
    }

    /// What listeners did since the last time.
    pub(super) fn taken(&mut self) -> Result<Vec<Row>> {
        let look = self.look()?;
        let live = look.live.iter().map(|(key, listener)| (*key, *listener, false));
        let gone = look.gone.iter().map(|(key, listener)| (*key, *listener, true));
        let (keys, mut rows): (Vec<(Key, bool)>, Vec<Row>) = live
            .chain(gone)
            .map(|(key, listener, is_gone)| ((key, is_gone), self.row(key, listener, is_gone, &look)))
            .unzip();
        if !self.counts {
            let mut namespaces: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for (nth, row) in rows.iter().enumerate() {
                namespaces.entry(row.listener.netns).or_default().push(nth);
            }
            for nths in namespaces.values() {
                let is_whole = look.is_sure && self.was_sure && nths.iter().all(|&nth| rows[nth].has_drops());
                let of = |&nth: &usize| (rows[nth].drops.into(), rows[nth].late.unwrap_or(0));
                let each: Vec<(u64, u64)> = nths.iter().map(of).collect();
                let all = nths.first().and_then(|&nth| rows[nth].overflows);
                for (&nth, (share, is_exact)) in nths.iter().zip(shares(&each, all, is_whole)) {
                    let (late, has_drops) = (rows[nth].late.unwrap_or(0), rows[nth].has_drops());
                    match all {
                        _ if has_drops => rows[nth].refuses(Some(share), is_exact),
                        // What it dropped since the last time is not known: it may have refused all of them.
                        Some(all) => rows[nth].refuses(Some(all.max(late)), all <= late),
                        None => rows[nth].refuses(None, false),
                    }
                }
            }
        }
        let mut told = HashMap::new();
        for (&(key, is_gone), row) in keys.iter().zip(&rows) {
            if is_gone {
                continue;
            }
            let was_there = self.told.get(&key).is_none_or(|before| before.is_seen);
            if row.is_seen || row.is_busy || was_there {
                told.insert(key, Told::of(&row.listener, row.is_seen));
            } else {
                // Nobody has it, it does nothing, and that is not since now.
                self.table.remove(key.0.as_bytes())?;
            }
        }
        self.told = told;
        self.settle(&look);
        let mut ended = keys.iter().map(|(_, is_gone)| *is_gone);
        rows.retain(|row| {
            let is_gone = ended.next().unwrap_or(false);
            row.listener.kept != 0 && (row.is_seen || row.is_busy || is_gone || row.refused != Some(0))
        });
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

/// The counts of the network namespace of this process.
fn open(pid: u32) -> Option<File> {
    File::open(format!("/proc/{pid}/net/netstat")).ok()
}

/// `ListenOverflows` as such a file says now.
fn overflows_in_file(file: &File) -> Option<u64> {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match file.read_at(&mut part, text.len() as u64).ok()? {
            0 => return overflows_in(&String::from_utf8(text).ok()?),
            bytes => text.extend_from_slice(&part[..bytes]),
        }
    }
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

/// The name of the process that has it open.
fn comm<'r>(row: &'r Row, none: Cell<'r>) -> Cell<'r> {
    if row.listener.pid == 0 { none } else { (&row.listener.comm).into() }
}

const COMM: About =
    About::text("The name of that process; text has a dash where there is none.").otel("thread.name");

/// The columns of `--listeners`.
pub fn table(args: &Options) -> Table<Row> {
    let table = Table::new(args.json.format())
        .col(interval())
        .col(left("PID", 7, |r: &Row| r.listener.pid.into()).about(conn::pid(
            "The process that has it open, the smallest of several, but not 1; 0: none was found.",
        )))
        .col(left("COMM", 16, |r: &Row| comm(r, Cell::Label("-"))).except(Format::Json).about(COMM))
        .col(data("comm", |r: &Row| comm(r, Cell::Empty)).about(COMM.or_null()))
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
                .about(About::count("Connections that found room in the queue; null where that is not counted: without fentry and kprobes of an MPTCP listener that is older \
                 than the tool, and on kernels before 5.11.").or_null()),
        )
        .col(
            right("REFUSED", 8, |r: &Row| Cell::Shown(&r.text))
                .key("refusals")
                .except(Format::Json)
                .about(About::text("SYNs and third packets that were refused because the queue was full; with ~ at most so many, - not known.")),
        )
        .col(
            data("refused", |r: &Row| or_null(r.refused)).about(
                About::count("SYNs and third packets that were refused because the queue was full; null where not even a bound is known.")
                    .or_null(),
            ),
        )
        .col(
            data("refused_exact", |r: &Row| r.is_exact.into())
                .about(About::new(Kind::Bool, "Whether that is exact; else it is at most so many, or not known.")),
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
    fn an_open_file_says_each_time_what_is_there_now() {
        let path = std::env::temp_dir().join(format!("netbcc-netstat-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        let open = File::open(&path).unwrap();
        assert_eq!(overflows_in_file(&open), None);
        // More than one read takes.
        let names = "TcpExt: SyncookiesSent".to_owned() + &" X".repeat(4096);
        for overflows in [38, 40] {
            let values = "TcpExt: 1".to_owned() + &" 0".repeat(4096);
            fs::write(&path, format!("{names} ListenOverflows\n{values} {overflows}\n")).unwrap();
            assert_eq!(overflows_in_file(&open), Some(overflows));
        }
        fs::remove_file(path).unwrap();
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
