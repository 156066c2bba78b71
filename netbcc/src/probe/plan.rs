//! What one run of a tool asks of the kernel, before anything is loaded: [`Plan`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{MapData, MapType};
use netbcc_common::Comm;
use netbcc_common::addr::{AF_INET, AF_INET6};
use netbcc_common::filter::{
    self, CGROUPMAP, COMM, Filter, GROUP, LADDR, LPORT, MNTNSMAP, NETNS, PID, PIDS, RADDR, RPORT, UID, UIDS,
};
use netbcc_common::kernel::{FIELD_COUNT, Field, MISSING};
use netbcc_common::socket::asked;
use zerocopy::{Immutable, IntoBytes};

use super::attach::{self, Chosen};
use super::capability;
use super::diagnosis::{Diagnosis, Hooks, Verdict, Way};
use super::drain::Probe;
use super::fault::root_cause;
use super::load::{Functions, Hold};
use super::object::{Means, Object, Preempted};
use super::pid;
use crate::error::{hinted, usage};
use crate::hook::{Kind, Ladder, LessExact, Need, Prog, RungName};
use crate::options::select::{Groups, IdList, PortSet, Prefix, Select, id_prefixes};
use crate::options::{Containers, Family, Ports};
use crate::out::escaped;
use crate::owner::{self, OWNERS, SNAPSHOT};
use crate::packed::Packed;
use crate::sys::bpf;
use crate::sys::btf::{self, Kernel, Wanted};
use crate::sys::library::Library;
use crate::sys::machine::{self, Space};
use crate::tool::{Ctx, Purpose};

/// Which families the rows have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// Both.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Room for events in the ring: at the rate that one core can make connections, tens of milliseconds' worth. Its
/// pages are mapped twice into our memory, so a larger ring is paid for in resident size.
const RING_BYTES: u32 = 1 << 20;

/// What every sysfs has.
const SYSFS: &str = "/sys/kernel";

/// What programs cast pointers with where the kernel has it (kernel/bpf/helpers.c, since 6.2).
const CAST_FUNCTION: &str = "bpf_rdonly_cast";

/// What programs keep their processor with, and give it back, where the kernel has it (kernel/bpf/helpers.c, since 6.14).
pub(super) const HOLD_FUNCTIONS: [&str; 4] =
    ["bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save", "bpf_local_irq_restore"];

/// What the kernel guards its tracepoints with since tasks may lose their processor in there (7.0). By then the storage of
/// sockets needs no lock for which a task may have to wait.
const TRACEPOINT_GUARD: &str = "class_srcu_fast_notrace_t";

/// What a kernel has whose locks may make tasks wait (`PREEMPT_RT`).
const LOCK_THAT_WAITS: &str = "rt_spin_lock";

/// What programs of tracepoints keep with a socket by, where the kernel lets them (net/core/bpf_sk_storage.c, since 5.11).
const STORAGE_FUNCTION: &str = "bpf_sk_storage_get_tracing";

/// What such programs ask a socket's cookie by, where the kernel has it (net/core/filter.c, since 5.12).
const COOKIE_FUNCTION: &str = "bpf_get_socket_ptr_cookie";

/// What programs are told by at which of several places they run, where the kernel has it (kernel/trace/bpf_trace.c, since 5.15).
const PLACE_FUNCTION: &str = "bpf_get_attach_cookie_pe";

/// What BPF allocates entries of tables with where the kernel has it (kernel/bpf/memalloc.c, since 6.1).
const ALLOCATOR: &str = "bpf_mem_alloc";

/// The maps that options put in place, of which a run without them needs none.
pub(super) const OPTIONAL: [&str; 10] =
    ["CGROUPS", "MNTNSES", LPORTS, RPORTS, LADDRS, RADDRS, "PIDS", "UIDS", COMMS, GROUPS];

/// The maps that say which names of threads are kept, and which cgroups are named.
const COMMS: &str = "COMMS";
const GROUPS: &str = "GROUPS";

/// The maps that say which local ports are kept, and which other ends.
const LPORTS: &str = "LPORTS";
const RPORTS: &str = "RPORTS";
const LADDRS: &str = "LADDRS";
const RADDRS: &str = "RADDRS";

/// What one run of a tool asks of the kernel. Built by the tool, then [`Plan::attach`]ed.
#[must_use]
pub struct Plan {
    purpose: Purpose,
    ring_bytes: u32,
    object: Packed,
    ladders: Vec<&'static Ladder>,
    asked: Vec<&'static str>,
    with_v: Option<LessExact>,
    rows: Rows,
    filter: Filter,
    two_netns: bool,
    lports: Option<PortSet>,
    rports: Option<PortSet>,
    pids: Option<IdList>,
    /// The thread to keep, and the global of the tool's object that says so.
    thread: Option<(&'static str, u32)>,
    groups: Option<Groups>,
    by_socket: bool,
    /// What is asked for of sockets: bits of [`asked`].
    facts: u32,
    /// Programs of this run know some sockets by address only.
    by_address: bool,
    /// What began before the start is told from what began unseen.
    existing: bool,
    globals: Vec<(&'static str, Vec<u8>)>,
    pinned: Vec<(&'static str, OwnedFd)>,
    /// Tables of the tool's object that stay out.
    absent: Vec<&'static str>,
    sizes: Vec<(&'static str, u32)>,
    side_ring: Option<&'static str>,
    /// The files in whose functions programs hang.
    libraries: Rc<[Library]>,
    contents: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    enums: Vec<&'static str>,
    /// What the kernel's BTF says, once it was asked.
    kernel: Option<Kernel>,
}

impl Plan {
    /// A plan that attaches nothing yet.
    pub fn new(cx: &Ctx) -> Self {
        let plan = Self {
            purpose: cx.purpose,
            ring_bytes: cx.ring_bytes.unwrap_or(RING_BYTES),
            object: cx.spec.object,
            ladders: Vec::new(),
            asked: Vec::new(),
            with_v: None,
            rows: Rows::Both,
            filter: Filter::default(),
            two_netns: false,
            lports: None,
            rports: None,
            pids: None,
            thread: None,
            groups: None,
            by_socket: false,
            facts: 0,
            by_address: false,
            existing: false,
            globals: Vec::new(),
            pinned: Vec::new(),
            absent: Vec::new(),
            sizes: Vec::new(),
            side_ring: None,
            libraries: Rc::new([]),
            contents: Vec::new(),
            enums: Vec::new(),
            kernel: None,
        };
        plan.select(&cx.select)
    }

    /// Attaches one rung of this ladder.
    pub fn ladder(mut self, ladder: &'static Ladder) -> Self {
        self.ladders.push(ladder);
        self
    }

    /// What is less exact in this way is said with `-v` only, and in the manual.
    pub fn told_with_v(mut self, less_exact: LessExact) -> Self {
        self.with_v = Some(less_exact);
        self
    }

    /// Attaches the programs that need this.
    pub fn ask(mut self, need: &'static str) -> Self {
        self.asked.push(need);
        self
    }

    /// Attaches the programs that need this where the kernel `has` what they cannot do without.
    ///
    /// # Errors
    /// As [`Plan::known`].
    pub fn ask_if(mut self, need: &'static str, has: impl FnOnce(&Kernel) -> bool) -> Result<Self> {
        // The kernel is asked once, also for what these programs hang on.
        self.asked.push(need);
        if !has(self.known()?) {
            self.asked.retain(|known| *known != need);
        }
        Ok(self)
    }

    /// Attaches the programs that need `by_task` where a task may lose its processor to another while it handles a soft
    /// interrupt (`PREEMPT_RT`), else those that need `by_cpu`.
    ///
    /// # Errors
    /// As [`Plan::known`].
    pub fn ask_by_turns(mut self, by_cpu: &[&'static str], by_task: &[&'static str]) -> Result<Self> {
        // The kernel is asked once, for what either needs.
        self.asked.extend(by_cpu.iter().chain(by_task));
        let waits = self.known()?.function(LOCK_THAT_WAITS).is_some();
        let others = if waits { by_cpu } else { by_task };
        self.asked.retain(|need| !others.contains(need));
        Ok(self)
    }

    /// Asks for the members of this enum of the kernel, which [`Plan::known`] then tells.
    pub fn enumeration(mut self, name: &'static str) -> Self {
        self.enums.push(name);
        self
    }

    /// What the kernel's BTF says of what was asked for so far; ladders that come later are unknown.
    ///
    /// # Errors
    /// One sentence that names what this kernel or this user lacks.
    pub fn known(&mut self) -> Result<&Kernel> {
        if self.kernel.is_none() {
            forced_rung()?;
            if self.purpose == Purpose::Trace {
                capability::require()?;
            }
            self.kernel = Some(self.ask_kernel(kernel_has_ipv6())?);
        }
        self.kernel.as_ref().context("the kernel was just asked")
    }

    /// Sets a configuration global of the tool's object.
    pub fn global<T: IntoBytes + Immutable>(mut self, name: &'static str, value: &T) -> Self {
        self.globals.push((name, value.as_bytes().to_vec()));
        self
    }

    /// Sets a configuration global of the tool's object to the number of a thread, which is named as our PID namespace counts.
    pub fn thread(mut self, name: &'static str, tid: Option<NonZeroU32>) -> Self {
        self.thread = tid.map(|tid| (name, tid.get()));
        self
    }

    /// Leaves a table of the tool's object out: it belongs to an option that is not given, and constants of this run keep
    /// programs from it.
    pub fn without(mut self, table: &'static str) -> Self {
        self.absent.push(table);
        self
    }

    /// Gives a table of the tool's object room for so many entries.
    pub fn size(mut self, table: &'static str, entries: u32) -> Self {
        self.sizes.push((table, entries));
        self
    }

    /// Reads a ring of the tool's object besides that of events. What leads to an event is in there before the event is
    /// in its own.
    pub fn side_ring(mut self, name: &'static str, bytes: u32) -> Self {
        self.side_ring = Some(name);
        self.size(name, bytes)
    }

    /// Names the files in whose functions programs of this run hang. Where the kernel tells a program at which of its places it
    /// runs, it gets the number of the file, counted from 1.
    pub fn libraries(mut self, libraries: Vec<Library>) -> Self {
        self.libraries = libraries.into();
        self
    }

    /// Puts `value` at `key` into a table of the tool's object, before anything is attached.
    pub fn entry(
        mut self,
        table: &'static str,
        key: &(impl IntoBytes + Immutable),
        value: &(impl IntoBytes + Immutable),
    ) -> Self {
        self.contents.push((table, key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        self
    }

    /// Says that programs of this run compare the cgroup of a socket, not only that of the current task.
    pub fn groups_of_sockets(mut self) -> Self {
        self.by_socket = true;
        self
    }

    /// Has `facts` of its socket follow each event: bits of [`asked`]. Owners come to be known by programs of their own, before those
    /// of ladders that are added later.
    pub fn socket_facts(mut self, facts: u32) -> Self {
        self.facts |= facts;
        if facts & asked::OWNER != 0 { self.ladder(&OWNERS) } else { self }
    }

    /// `--existing`: tells what began before the start from what began unseen, once [`Probe::mark_start`] was called.
    pub fn existing(mut self, existing: bool) -> Self {
        self.existing = existing;
        if existing { self.global("EXISTING", &1_u32) } else { self }
    }

    /// The maps of [`owner`] and of [`Plan::existing`] that this run has no use for.
    fn unused(&self) -> impl Iterator<Item = &'static str> {
        let knows = |name| self.ladders.iter().any(|ladder| ladder.name == name);
        let knows_owners = knows(OWNERS.name) || knows(SNAPSHOT.name);
        let in_table = self.facts & asked::IN_TABLE != 0;
        [
            ("STARTED", self.existing),
            (owner::BY_ADDRESS, knows_owners),
            (owner::WITH_SOCKET, knows_owners && !in_table),
        ]
        .into_iter()
        .filter_map(|(name, is_used)| (!is_used).then_some(name))
    }

    /// Says that programs of this run know some sockets by address only.
    pub fn sockets_by_address(mut self) -> Self {
        self.by_address = true;
        self
    }

    /// Settles how facts of sockets are found on this kernel.
    fn settle_facts(&mut self, kernel: &Kernel, forced: Option<RungName>) {
        if kernel.function(COOKIE_FUNCTION).is_some() {
            self.facts |= asked::MAKES_COOKIES;
        }
        let with_socket = kernel.function(STORAGE_FUNCTION).is_some() && forced != Some(RungName::Kprobe);
        if self.by_address || !with_socket {
            self.facts |= asked::IN_TABLE;
            self.asked.push(owner::TABLE);
        }
    }

    /// `-4` and `-6`.
    pub fn family(mut self, family: Family) -> Self {
        (self.rows, self.filter.family) = match family {
            Family { ipv4: true, .. } => (Rows::V4, AF_INET),
            Family { ipv6: true, .. } => (Rows::V6, AF_INET6),
            Family { .. } => (Rows::Both, 0),
        };
        self
    }

    /// Keeps this network namespace (inode number), and none if another one was asked for in another way; 0: all.
    pub fn netns(mut self, inode: u32) -> Self {
        if inode != 0 {
            self.two_netns |= self.filter.netns != 0 && self.filter.netns != inode;
            self.filter.netns = inode;
            self.filter.by_ends |= NETNS;
        }
        self
    }

    /// Keeps these local ports, and of them those only that were asked for in other ways.
    pub fn lports(mut self, ports: &[Ports]) -> Self {
        narrow(&mut self.lports, port_set(ports));
        self
    }

    /// Keeps the local ports from the first to the last of these, and of them those only that were asked for in other ways.
    pub fn lport_range(mut self, ports: Option<(u16, u16)>) -> Self {
        narrow(&mut self.lports, ports.map(range_set));
        self
    }

    /// Keeps the remote ports from the first to the last of these, and of them those only that were asked for in other ways.
    pub fn rport_range(mut self, ports: Option<(u16, u16)>) -> Self {
        narrow(&mut self.rports, ports.map(range_set));
        self
    }

    /// Keeps these remote ports, and of them those only that were asked for in other ways.
    pub fn rports(mut self, ports: &[Ports]) -> Self {
        narrow(&mut self.rports, port_set(ports));
        self
    }

    /// What the options that all tools share ask for.
    fn select(self, select: &Select) -> Self {
        let mut plan = self.netns(select.netns.unwrap_or_default());
        plan.pids.clone_from(&select.pids);
        if let Some(uids) = &select.uids {
            plan.ids(uids, UID, |filter| &mut filter.uid, UIDS, "UIDS");
        }
        if let Some(names) = &select.comms {
            plan.filter.by_task |= COMM;
            plan.filter.comm_default = names.others.into();
            let entry =
                |(name, kept): &(Comm, bool)| (COMMS, name.to_vec(), u32::from(*kept).as_bytes().to_vec());
            plan.contents.extend(names.named.iter().map(entry));
            plan.sizes.push((COMMS, entries(names.named.len())));
        }
        if let Some(groups) = &select.groups {
            plan.groups(groups);
        }
        narrow(&mut plan.lports, select.lport.clone());
        narrow(&mut plan.rports, select.rport.clone());
        plan.prefixes(LADDRS, LADDR, select.laddr.as_deref()).prefixes(RADDRS, RADDR, select.raddr.as_deref())
    }

    fn prefixes(mut self, trie: &'static str, part: u8, prefixes: Option<&[Prefix]>) -> Self {
        let Some(prefixes) = prefixes else { return self };
        self.filter.by_ends |= part;
        for prefix in prefixes {
            let (bits, addr) = prefix.key();
            let key = [&bits.to_ne_bytes()[..], addr.as_bytes()].concat();
            self.contents.push((trie, key, u32::from(prefix.is_kept).as_bytes().to_vec()));
        }
        self.size(trie, entries(prefixes.len()))
    }

    /// Keeps these numbers: one is a constant, more are a trie.
    fn ids(
        &mut self,
        ids: &IdList,
        one: u8,
        place: impl FnOnce(&mut Filter) -> &mut u32,
        more: u8,
        trie: &'static str,
    ) {
        let kept = ids.kept();
        if let [(low, high)] = kept[..]
            && low == high
        {
            self.filter.by_task |= one;
            *place(&mut self.filter) = low;
            return;
        }
        self.filter.by_task |= more;
        let prefixes: Vec<_> = kept.into_iter().flat_map(id_prefixes).collect();
        self.sizes.push((trie, entries(prefixes.len())));
        for (bits, first) in prefixes {
            let key = [bits.to_ne_bytes(), first.to_be_bytes()].concat();
            self.contents.push((trie, key, 1_u32.as_bytes().to_vec()));
        }
    }

    /// Keeps what is in these cgroups.
    fn groups(&mut self, groups: &Groups) {
        self.filter.by_task |= GROUP;
        self.filter.group_default = groups.others.into();
        self.filter.group_count = u8::try_from(groups.named.len()).unwrap_or(u8::MAX);
        for (nth, (group, place)) in groups.named.iter().zip(&mut self.filter.groups).enumerate() {
            let level = group.level.unwrap_or(u32::MAX);
            *place = filter::Group { id: group.id, level, excludes: group.excludes.into() };
            let key = entries(nth).as_bytes().to_vec();
            self.contents.push((GROUPS, key, group.fd().as_bytes().to_vec()));
        }
        self.sizes.push((GROUPS, self.filter.group_count.into()));
        self.groups = Some(groups.clone());
    }

    /// Hands the sets of ports over, once all that narrows them is known.
    fn settle_filters(&mut self) -> Result<()> {
        if self.two_netns {
            bail!(usage("two network namespaces are asked for: there would be no row"));
        }
        let unseen = |groups: &Groups| groups.named.iter().any(|group| group.level.is_none());
        if self.by_socket && self.groups.as_ref().is_some_and(unseen) {
            return Err(hinted(
                usage(
                    "how deep a cgroup lies cannot be seen in this cgroup namespace, and sockets are compared by that",
                ),
                "run it in the host's cgroup namespace (nsenter -t 1 -C -m, docker run --cgroupns=host)",
            ));
        }
        for (set, table, part, which) in
            [(self.lports.take(), LPORTS, LPORT, "local"), (self.rports.take(), RPORTS, RPORT, "remote")]
        {
            let Some(set) = set else { continue };
            if set.is_empty() {
                bail!(usage(format!("no {which} port is in both lists of them: there would be no row")));
            }
            self.filter.by_ends |= part;
            self.contents.push((table, 0_u32.as_bytes().to_vec(), set.as_bytes().to_vec()));
        }
        Ok(())
    }

    /// `--cgroupmap` and `--mntnsmap`: opens the pinned maps.
    ///
    /// # Errors
    /// There is no such map, or it is not a hash of the form that BCC documents.
    pub fn containers(mut self, containers: &Containers) -> Result<Self> {
        if let Some(path) = containers.cgroupmap() {
            self.pin("CGROUPS", path, 8).with_context(|| format!("--cgroupmap {}", path.display()))?;
            self.filter.by_task |= CGROUPMAP;
        }
        if let Some(path) = containers.mntnsmap() {
            self.pin("MNTNSES", path, 4).with_context(|| format!("--mntnsmap {}", path.display()))?;
            self.filter.by_task |= MNTNSMAP;
        }
        Ok(self)
    }

    fn pin(&mut self, name: &'static str, path: &Path, value_size: u32) -> Result<()> {
        // Said before opening: BCC would silently make an empty map there, which nothing ever matches.
        fs::metadata(path)?;
        let no_map = |why: &dyn std::error::Error| {
            let hint = "bpftool map pin id ID PATH makes one";
            hinted(anyhow!("not a pinned BPF map: {}", root_cause(why)), hint)
        };
        let fd = bpf::pinned(&CString::new(path.as_os_str().as_bytes())?).map_err(|error| no_map(&error))?;
        let map = fd.try_clone().context("duplicate its descriptor")?;
        let info = MapData::from_fd(map).and_then(|map| map.info()).map_err(|error| no_map(&error))?;
        let ty = info.map_type().context("unknown type of map")?;
        if ty != MapType::Hash && ty != MapType::LruHash || info.key_size() != 8 {
            bail!("a {ty:?} map with {}-byte keys; needed is a Hash with 8-byte keys", info.key_size());
        }
        if info.value_size() != value_size && info.value_size() != 8 && info.value_size() != 4 {
            bail!("its values have {} bytes; needed are {value_size}", info.value_size());
        }
        self.pinned.push((name, fd));
        Ok(())
    }

    /// Whether `prog` is part of this run.
    pub(super) fn needs(&self, prog: &Prog, kernel_has_ipv6: bool) -> bool {
        match prog.need {
            Need::Always | Need::IfThere => true,
            Need::V4Rows => self.rows != Rows::V6,
            Need::V6Rows => self.rows != Rows::V4 && kernel_has_ipv6,
            Need::V6Kernel => kernel_has_ipv6,
            Need::Asked(what) | Need::Known(what) => self.asked.contains(&what),
        }
    }

    /// Loads and attaches everything, or nothing.
    ///
    /// # Errors
    /// One sentence that names what this kernel or this user lacks.
    pub fn attach(mut self, cx: &Ctx) -> Result<Probe> {
        let forced = forced_rung()?;
        self.settle_filters()?;
        if self.purpose == Purpose::Diagnose {
            return Err(self.diagnose(cx)?.into());
        }
        capability::require()?;
        let has_ipv6 = kernel_has_ipv6();
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => self.ask_kernel(has_ipv6)?,
        };
        self.settle_facts(&kernel, forced);
        if let Some(mut pids) = self.pids.take() {
            pids.translate(|low, high| pid::to_compare(low, high, &kernel, cx))?;
            self.ids(&pids, PID, |filter| &mut filter.pid, PIDS, "PIDS");
        }
        if let Some((name, tid)) = self.thread.take() {
            let tid = pid::thread_to_compare(tid, &kernel, cx)?;
            self = self.global(name, &tid);
        }
        let mut object = self.parse_object(&kernel, &self.absent)?;
        self.fill(&mut object)?;
        let mut chosen = Vec::new();
        for ladder in &self.ladders {
            let needed = |prog: &Prog| self.needs(prog, has_ipv6);
            chosen.push(attach::ladder(&mut object, &kernel, ladder, forced, needed)?);
        }
        for Chosen { ladder, rung, lost } in &chosen {
            for why in lost {
                cx.debug(format_args!("{}: {why}", ladder.name));
            }
            cx.debug(format_args!("{}: attached by {}", ladder.name, rung.name));
            match rung.less_exact {
                Some(what) if cx.verbose => {
                    cx.debug(format_args!("{}: less exact here: {what}", ladder.name));
                }
                Some(what) if self.with_v != Some(what) => {
                    cx.warn(format_args!("less exact here: {}", what.short));
                }
                _ => {}
            }
        }
        object.settle();
        for (path, why) in object.refused() {
            cx.debug(format_args!("not hooked: {}: {why}", escaped(path.as_os_str().as_bytes())));
        }
        // What is hooked stays so without its file being open.
        object.hangs_in(Rc::new([]));
        for name in object.uncast() {
            cx.debug(format_args!("{name}: without {CAST_FUNCTION}: verified more slowly"));
        }
        for name in object.unheld() {
            cx.debug(format_args!("{name}: the kernel may take its processor, and skips it then"));
        }
        for name in object.alone() {
            cx.debug(format_args!("{name}: no second copy: what the kernel lets it skip is missed"));
        }
        if object.misses_untold() {
            cx.warn(format_args!(
                "this kernel skips a kprobe that interrupts another, and does not count that: rows may be missing untold"
            ));
        }
        if self.facts & asked::OWNER != 0 {
            let place = if self.facts & asked::IN_TABLE != 0 { "in a table" } else { "with each socket" };
            cx.debug(format_args!("{}: kept {place}", OWNERS.name));
        }
        if self.facts & asked::OWNER != 0 && machine::is_elsewhere(Space::Pid) {
            cx.warn(
                "a socket that was open before the start has an owner only if that is in this PID namespace, or else once it closes",
            );
        }
        for doubt in &cx.select.doubts {
            cx.warn(doubt);
        }
        let has_facts = self.facts & asked::ALL != 0;
        Probe::new(object, &chosen, self.side_ring, self.groups, has_facts)
    }

    /// Fills the tables: programs rely on it from their first run on.
    fn fill(&self, object: &mut Object) -> Result<()> {
        let mut tables = HashMap::new();
        for (name, key, value) in &self.contents {
            let table = match tables.entry(*name) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(object.table(name)?),
            };
            table.set(key, value)?;
        }
        Ok(())
    }

    /// Tries every rung of every ladder, those that only options ask for last, and leaves nothing behind.
    fn diagnose(&mut self, cx: &Ctx) -> Result<Diagnosis> {
        let ladders = self.ladders.len();
        let options =
            cx.spec.ladders.iter().filter(|other| self.ladders.iter().all(|l| l.name != other.name));
        self.ladders.extend(options.collect::<Vec<_>>());
        let missing = capability::missing()?;
        let mut lacks: Vec<String> = missing.iter().map(|names| capability::lacks(names)).collect();
        if machine::is_elsewhere(Space::User) {
            lacks.push(capability::ELSEWHERE.to_owned());
        }
        let has_ipv6 = kernel_has_ipv6();
        let kernel = match self.ask_kernel(has_ipv6) {
            Ok(kernel) => kernel,
            Err(error) => {
                lacks.push(format!("{error:#}"));
                return Ok(Diagnosis { lacks, hooks: Vec::new() });
            }
        };
        self.settle_facts(&kernel, None);
        let mut hooks = Vec::new();
        for (nth, ladder) in self.ladders.iter().enumerate() {
            let mut ways = Vec::new();
            for rung in ladder.rungs {
                // A new object each time: what it holds is then this rung's. What this run leaves out, a run with another
                // ladder does not.
                let absent = if nth >= ladders { &[] } else { &self.absent[..] };
                let mut object = self.parse_object(&kernel, absent)?;
                let power = missing.is_none();
                let filled = if power { self.fill(&mut object) } else { Ok(()) };
                let verdict = match filled {
                    Ok(()) => {
                        attach::examine(&mut object, &kernel, rung, power, |prog| self.needs(prog, has_ipv6))
                    }
                    Err(error) => Verdict::Lacks(format!("{error:#}")),
                };
                let (rung, less_exact) = (rung.name, rung.less_exact);
                ways.push(Way { rung, less_exact, verdict, kernel_bytes: object.kernel_bytes() });
            }
            hooks.push(Hooks { sees: ladder.name, optional: nth >= ladders, ways });
        }
        Ok(Diagnosis { lacks, hooks })
    }

    /// One pass over the kernel's BTF for everything that this run may attach to.
    fn ask_kernel(&self, has_ipv6: bool) -> Result<Kernel> {
        let mut wanted = Wanted::default();
        let functions = [CAST_FUNCTION, LOCK_THAT_WAITS, COOKIE_FUNCTION, STORAGE_FUNCTION];
        let of_files = (!self.libraries.is_empty()).then_some(PLACE_FUNCTION);
        let functions = functions.into_iter().chain(HOLD_FUNCTIONS).chain(of_files);
        wanted.functions.extend(functions.map(str::to_owned));
        if self.pids.is_some() || self.thread.is_some() {
            wanted.functions.push(pid::ITERATOR.to_owned());
        }
        wanted.structs.push(ALLOCATOR.to_owned());
        wanted.typedefs.push(TRACEPOINT_GUARD.to_owned());
        wanted.enums.extend(self.enums.iter().map(|&name| name.to_owned()));
        for prog in self.programs().filter(|prog| self.needs(prog, has_ipv6)) {
            match prog.kind {
                Kind::Fentry | Kind::Fexit | Kind::Iter => wanted.functions.push(prog.target.to_owned()),
                Kind::TpBtf => wanted.tracepoints.push(prog.target.to_owned()),
                Kind::Kprobe | Kind::Kretprobe | Kind::Uprobe | Kind::Uretprobe | Kind::RawTp => {}
            }
        }
        if !Path::new(SYSFS).exists() {
            return Err(hinted(
                anyhow!("no /sys is mounted here: there is no {SYSFS}"),
                "mount -t sysfs sysfs /sys",
            ));
        }
        if !Path::new(btf::VMLINUX).exists() {
            return Err(hinted(
                anyhow!("this kernel does not offer BTF: there is no {}", btf::VMLINUX),
                "a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed (most distributions' since 2020)",
            ));
        }
        btf::read(&wanted).context("the kernel's BTF")
    }

    fn programs(&self) -> impl Iterator<Item = &'static Prog> {
        self.ladders.iter().flat_map(|ladder| ladder.rungs).flat_map(|rung| rung.programs)
    }

    fn parse_object(&self, kernel: &Kernel, absent_here: &[&'static str]) -> Result<Object> {
        let own = self.globals.iter().map(|(name, value)| (*name, value.as_slice()));
        let shared = [("OFFSETS", kernel.offsets().as_bytes()), ("FILTER", self.filter.as_bytes())];
        let mut globals: HashMap<&str, (&[u8], bool)> =
            own.chain(shared).map(|(name, value)| (name, (value, true))).collect();
        // Not every object has it: only those that load pointers.
        globals.insert("OWNERS", (kernel.owners().as_bytes(), false));
        let secretive = machine::lockdown().as_deref() == Some("confidentiality");
        let if_any = if_any(kernel, secretive);
        globals.insert("OFFSETS_IF_ANY", (if_any.as_bytes(), false));
        let locked = u32::from(secretive && kernel.function(CAST_FUNCTION).is_some());
        globals.insert("LOCKED", (locked.as_bytes(), false));
        let tells_place = u32::from(kernel.function(PLACE_FUNCTION).is_some());
        globals.insert("TELLS_PLACE", (tells_place.as_bytes(), false));
        globals.insert("SOCKET_FACTS", (self.facts.as_bytes(), false));
        let sizes = [&self.sizes[..], &[("EVENTS", self.ring_bytes)]].concat();
        let pinned = self.pinned.iter().map(|(name, fd)| Ok((*name, Some(fd.try_clone()?))));
        let mut pinned: Vec<_> = pinned.collect::<io::Result<_>>().context("duplicate a map's descriptor")?;
        let given = |name: &str| {
            self.pinned.iter().any(|(given, _)| *given == name)
                || self.contents.iter().any(|(given, ..)| *given == name)
        };
        let absent = OPTIONAL.iter().filter(|&name| !given(name));
        pinned.extend(absent.chain(absent_here).copied().chain(self.unused()).map(|name| (name, None)));
        let means = Means {
            functions: Functions { cast: function(kernel, CAST_FUNCTION), hold: hold(kernel) },
            allocates: kernel.has_struct(ALLOCATOR),
            ipv6: kernel_has_ipv6(),
            preempted: preempted(kernel),
        };
        let parsed =
            self.object.unpack().and_then(|elf| Object::parse(elf.as_ref(), globals, &sizes, pinned, means));
        let mut object = parsed.context("its BPF object")?;
        object.hangs_in(Rc::clone(&self.libraries));
        Ok(object)
    }
}

/// A number of entries, as maps have it.
fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Those of BCC's options; `None`: all.
fn port_set(ports: &[Ports]) -> Option<PortSet> {
    let ports = Ports::together(ports);
    let mut set = PortSet::default();
    ports.as_slice().iter().for_each(|port| set.insert(*port));
    (!ports.is_empty()).then_some(set)
}

fn range_set((first, last): (u16, u16)) -> PortSet {
    let mut set = PortSet::default();
    (first..=last).for_each(|port| set.insert(port));
    set
}

/// Leaves only what is in `other` as well, if that is given.
fn narrow(set: &mut Option<PortSet>, other: Option<PortSet>) {
    match (set, other) {
        (Some(set), Some(other)) => set.narrow(&other),
        (set @ None, other) => *set = other,
        (Some(_), None) => {}
    }
}

/// BTF id of one of the kernel's functions, as instructions have it.
fn function(kernel: &Kernel, name: &str) -> Option<i32> {
    kernel.function(name).and_then(|id| i32::try_from(id).ok())
}

/// What keeps a processor, where a program can lose it and may keep it.
pub(super) fn hold(kernel: &Kernel) -> Option<Hold> {
    let [keep, give_back, mask, unmask] = HOLD_FUNCTIONS.map(|name| function(kernel, name));
    let tracepoints = kernel.has_typedef(TRACEPOINT_GUARD);
    let allowed = tracepoints || kernel.function(LOCK_THAT_WAITS).is_none();
    allowed.then_some(())?;
    Some(Hold { keep: keep?, give_back: give_back?, mask: mask?, unmask: unmask?, tracepoints })
}

/// In which programs a task may lose its processor, as far as it is known without asking how this kernel was booted.
fn preempted(kernel: &Kernel) -> Preempted {
    let tracepoints = kernel.has_typedef(TRACEPOINT_GUARD);
    Preempted { functions: tracepoints || kernel.function(LOCK_THAT_WAITS).is_some(), tracepoints }
}

/// A module that is not loaded, or a kernel without it: there is nothing to see then.
fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// `NETBCC_ATTACH`.
fn forced_rung() -> Result<Option<RungName>> {
    let Some(value) = std::env::var_os("NETBCC_ATTACH").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    match RungName::parse(&value) {
        Some(rung) => Ok(Some(rung)),
        None => Err(usage(format!(
            "NETBCC_ATTACH={value}: it must be fexit, kprobe, tracepoint, raw_tp or uprobe"
        ))),
    }
}

/// The offsets of fields that a program can do without. The structs of MPTCP can be read by a helper only that the kernel's
/// lockdown forbids when it is to keep secrets: there a subflow is a socket like any other. Other tasks' names are read by it
/// where the kernel cannot cast: there a thread of io_uring has its own.
fn if_any(kernel: &Kernel, secretive: bool) -> [u16; FIELD_COUNT] {
    let mut offsets = *kernel.offsets();
    if secretive {
        offsets[Field::TcpIsMptcp as usize] = MISSING;
        if kernel.function(CAST_FUNCTION).is_none() {
            offsets[Field::TaskGroupLeader as usize] = MISSING;
        }
    }
    offsets
}
