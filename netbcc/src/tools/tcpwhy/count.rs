//! `tcpwhy -c`: sockets counted by verdict, and by columns that the user names.
//!
//! Lives here: which columns can be named, what is counted, and the table of counts. The number of groups is bounded: what
//! comes after it was reached is counted per verdict, in a row that says `other`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;

use super::rules::{Facts, RESET_REASONS, WORDS};
use super::{Options, conn};
use crate::out::{
    About, Cell, Fact, Facts as Known, Format, Kind, Table, Value, data, interval, left, right, wall,
};
use crate::words::{nearest_of, words};

/// So many groups are kept apart at most: some 2 MB where each has a long name.
pub(super) const MOST: u32 = 4096;

/// A column by which sockets can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Pid,
    Comm,
    Ip,
    Laddr,
    Lport,
    Raddr,
    Rport,
    State,
    Errno,
    ResetReason,
    ClosedFirst,
    Fact(Fact),
}

impl Key {
    /// All but those of processes.
    const OWN: [Self; 11] = [
        Self::Pid,
        Self::Comm,
        Self::Ip,
        Self::Laddr,
        Self::Lport,
        Self::Raddr,
        Self::Rport,
        Self::State,
        Self::Errno,
        Self::ResetReason,
        Self::ClosedFirst,
    ];

    fn all() -> impl Iterator<Item = Self> + Clone {
        Self::OWN.into_iter().chain(Fact::ALL.into_iter().map(Self::Fact))
    }

    /// The key of its column in JSON, which is what users type.
    const fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Comm => "comm",
            Self::Ip => "ip",
            Self::Laddr => "laddr",
            Self::Lport => "lport",
            Self::Raddr => "raddr",
            Self::Rport => "rport",
            Self::State => "state",
            Self::Errno => "errno",
            Self::ResetReason => "reset_reason",
            Self::ClosedFirst => "closed_first",
            Self::Fact(fact) => fact.name(),
        }
    }

    /// What a socket has in this column.
    fn of(self, facts: &Facts, known: Option<&Known>) -> Group {
        let event = &facts.event;
        let word = |word: Option<&'static str>| word.map_or(Group::Unknown, Group::Word);
        match self {
            Self::Pid => Group::Number(event.conn.pid.into()),
            Self::Comm if event.conn.comm[0] == 0 => Group::Unknown,
            Self::Comm => {
                let name = event.conn.comm.split(|byte| *byte == 0).next().unwrap_or_default();
                Group::Name(name.into())
            }
            Self::Ip => Group::Number(conn::version(event.tuple.family)),
            Self::Laddr => Group::Ip(conn::laddr(&event.tuple)),
            Self::Lport => Group::Number(event.tuple.lport.into()),
            Self::Raddr => Group::Ip(conn::raddr(&event.tuple)),
            Self::Rport => Group::Number(event.tuple.rport.into()),
            Self::State => conn::state_name(event.state)
                .map_or_else(|| Group::Number(event.state.unsigned_abs().into()), Group::Word),
            Self::Errno if facts.error_number() == 0 => Group::Unknown,
            Self::Errno => Group::Name(super::rules::errno(facts.error_number()).into_bytes().into()),
            Self::ResetReason => word(facts.reset_reason()),
            Self::ClosedFirst => word(facts.closed_first()),
            Self::Fact(fact) => match known.map(|known| known.get(fact)) {
                None | Some(Value::Unknown) => Group::Unknown,
                Some(Value::Number(number)) => Group::Number(*number),
                Some(Value::Text(text)) => Group::Name(text.clone()),
            },
        }
    }
}

/// Columns that a user named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Takes a comma list of columns apart.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let of = |typed: &str| {
            let names = Key::all().map(Key::name);
            Key::all().find(|key| key.name().eq_ignore_ascii_case(typed)).ok_or_else(|| {
                match nearest_of(&typed.to_lowercase(), names.clone(), 0) {
                    Some(near) => {
                        format!("sockets are not counted by '{typed}'; did you mean '{near}'?")
                    }
                    None => format!(
                        "sockets are not counted by '{typed}', but by {}",
                        names.collect::<Vec<_>>().join(", ")
                    ),
                }
            })
        };
        words(text).map(of).collect::<Result<_, _>>().map(Self)
    }

    /// What several lists name together.
    pub(super) fn together(lists: &[Self]) -> Vec<Key> {
        let mut all = Vec::new();
        for key in lists.iter().flat_map(|list| &list.0) {
            if !all.contains(key) {
                all.push(*key);
            }
        }
        all
    }
}

/// What of processes must be known to count by these columns.
pub(super) fn facts(keys: &[Key]) -> Vec<Fact> {
    let fact = |key: &Key| if let Key::Fact(fact) = key { Some(*fact) } else { None };
    keys.iter().filter_map(fact).collect()
}

/// What a group of sockets has in a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group {
    Number(u64),
    Ip(IpAddr),
    Word(&'static str),
    Name(Box<[u8]>),
    Unknown,
}

/// A value per column; none: of several groups.
type Values = Option<Box<[Group]>>;

/// The sockets of one interval.
pub(super) struct Counts {
    keys: Vec<Key>,
    /// By the number of the verdict and a value per column; no values: whatever came when there was no room for its group.
    groups: HashMap<(usize, Values), u64>,
    most: usize,
}

impl Counts {
    /// Of these columns, with room for so many groups.
    pub(super) fn new(keys: Vec<Key>, most: u32) -> Self {
        Self { keys, groups: HashMap::new(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// Counts a socket; `known` is what is known of its process.
    pub(super) fn add(&mut self, verdict: usize, facts: &Facts, known: Option<&Rc<Known>>) {
        let values = self.keys.iter().map(|key| key.of(facts, known.map(|known| &**known))).collect();
        let mut group = (verdict, Some(values));
        if self.groups.len() >= self.most && !self.groups.contains_key(&group) {
            group.1 = None;
        }
        *self.groups.entry(group).or_default() += 1;
    }

    /// The rows of the table, the largest counts first; nothing is counted any more afterwards.
    pub(super) fn take(&mut self, format: Format) -> Vec<Count> {
        let groups = mem::take(&mut self.groups).into_iter();
        let mut rows: Vec<Count> = groups
            .map(|((verdict, values), count)| Count {
                verdict,
                named: self.keys.clone(),
                values,
                sockets: count,
                is_json: format == Format::Json,
            })
            .collect();
        rows.sort_by(|one, other| {
            let place = |row: &Count| (row.values.is_none(), Reverse(row.sockets), row.verdict);
            place(one).cmp(&place(other)).then_with(|| one.values.cmp(&other.values))
        });
        rows
    }
}

/// How many sockets had this verdict and these values.
pub struct Count {
    verdict: usize,
    named: Vec<Key>,
    /// One per column that was named; none: of several groups.
    values: Values,
    sockets: u64,
    is_json: bool,
}

impl Count {
    fn cell(&self, key: Key) -> Cell<'_> {
        let none = |text| if self.is_json { Cell::Empty } else { Cell::Label(text) };
        let Some(values) = &self.values else { return none("other") };
        let place = self.named.iter().position(|named| *named == key);
        match place.and_then(|place| values.get(place)) {
            None | Some(Group::Unknown) => none("-"),
            Some(Group::Number(number)) => Cell::Unsigned(*number),
            Some(Group::Ip(ip)) => Cell::Ip(*ip),
            Some(Group::Word(word)) => Cell::Label(word),
            Some(Group::Name(name)) => Cell::Name(name),
        }
    }
}

/// The columns of the table of counts.
pub fn table(args: &Options) -> Table<Count> {
    let format = args.layout.format(args.json);
    let wide = args.layout.wide && format == Format::Text;
    let (comm, address) = if wide { (16, 39) } else { (12, 15) };
    let named = args.keys();
    let has_interval = args.interval.is_some();
    let mut table = Table::new(format).col_if(has_interval, wall(8)).col_if(has_interval, interval()).col(
        left("VERDICT", 17, |c: &Count| WORDS[c.verdict].into())
            .about(About::new(Kind::Word(&WORDS), "The first rule that matches.")),
    );
    macro_rules! columns {
        ($($key:expr, $title:literal, $width:expr, $about:expr;)*) => {$(
            let is_named = named.contains(&$key);
            table = table.col_if(
                is_named,
                left($title, $width, |c: &Count| c.cell($key))
                    .key($key.name())
                    .about($about.or_null())
                    .known_if(is_named, "name it with -c"),
            );
        )*};
    }
    columns! {
        Key::Pid, "PID", 7, conn::pid("The process that owned the socket; 0: not known.");
        Key::Comm, "COMM", comm, conn::COMM;
        Key::Ip, "IP", 2, conn::IP;
        Key::Laddr, "LADDR", address, conn::LADDR;
        Key::Lport, "LPORT", 5, conn::LPORT;
        Key::Raddr, "RADDR", address, conn::RADDR;
        Key::Rport, "RPORT", 5, conn::RPORT;
        Key::State, "STATE", 11, conn::state_about("The state that it left for CLOSE.");
        Key::Errno, "ERRNO", 12, About::text("The error that it ended with, by its name.");
        Key::ResetReason, "RESET_REASON", 12, About::new(Kind::Word(&RESET_REASONS), "Why this end sent a RST.");
        Key::ClosedFirst, "CLOSED_FIRST", 12,
            About::new(Kind::Word(&["here", "there"]), "Which end sent its FIN first.");
        Key::Fact(Fact::User), "USER", 12, Fact::User.about();
        Key::Fact(Fact::Ppid), "PPID", 7, Fact::Ppid.about();
        Key::Fact(Fact::Exe), "EXE", 24, Fact::Exe.about();
        Key::Fact(Fact::Cmdline), "CMDLINE", 24, Fact::Cmdline.about();
        Key::Fact(Fact::Cgroup), "CGROUP", 24, Fact::Cgroup.about();
        Key::Fact(Fact::Unit), "UNIT", 24, Fact::Unit.about();
        Key::Fact(Fact::Container), "CONTAINER", 16, Fact::Container.about();
        Key::Fact(Fact::ContainerId), "CONTAINER_ID", 24, Fact::ContainerId.about();
        Key::Fact(Fact::Pod), "POD", 24, Fact::Pod.about();
        Key::Fact(Fact::PodUid), "POD_UID", 36, Fact::PodUid.about();
        Key::Fact(Fact::Namespace), "NAMESPACE", 12, Fact::Namespace.about();
    }
    table
        .col(data("other", |c: &Count| c.values.is_none().into()).about(About::new(
            Kind::Bool,
            "Whether it is the sum of what came when there were 4096 groups already; its columns are null then.",
        )))
        .col(
            right("COUNT", 8, |c: &Count| c.sockets.into()).about(About::count("How many sockets ended so.")),
        )
}

#[cfg(test)]
mod tests {
    use netbcc_common::tcpwhy::Event;
    use zerocopy::FromZeros as _;

    use super::*;

    fn facts(rport: u16) -> Facts {
        let mut event = Event::new_zeroed();
        event.tuple.rport = rport;
        Facts { event, slow_us: 0, jiffy_us: 4000, since_ns: 0, refused: None }
    }

    #[test]
    fn a_column_that_is_none_is_refused_with_the_nearest() {
        assert_eq!(
            Keys::parse("raddr,containr").unwrap_err(),
            "sockets are not counted by 'containr'; did you mean 'container'?"
        );
        assert!(Keys::parse("xyzzy").unwrap_err().contains("but by pid, comm,"));
        let lists = [
            Keys::parse("RADDR, rport").unwrap(),
            Keys::parse("").unwrap(),
            Keys::parse("rport,comm").unwrap(),
        ];
        assert_eq!(Keys::together(&lists), [Key::Raddr, Key::Rport, Key::Comm]);
    }

    #[test]
    fn what_has_no_room_is_counted_per_verdict() {
        let mut counts = Counts::new(vec![Key::Rport], 3);
        for rport in [80, 81, 80, 82, 83, 84, 81, 80] {
            counts.add(0, &facts(rport), None);
        }
        counts.add(4, &facts(80), None);
        let rows: Vec<(usize, Option<Group>, u64)> = counts
            .take(Format::Text)
            .into_iter()
            .map(|row| (row.verdict, row.values.map(|values| values[0].clone()), row.sockets))
            .collect();
        let group = |port| Some(Group::Number(port));
        assert_eq!(
            rows,
            [(0, group(80), 3), (0, group(81), 2), (0, group(82), 1), (0, None, 2), (4, None, 1)]
        );
        assert!(counts.take(Format::Text).is_empty(), "each interval begins anew");
    }
}
