//! One BPF object on its way into the kernel: [`Object`].
//!
//! aya-obj reads the ELF file, sets the globals and links the calls; [`crate::sys::bpf`] talks to the kernel. Nothing
//! is made before it is used: a program is loaded when its rung is tried, and a map is created when the first
//! program that refers to it is loaded. So a rung pays for its own tables only (ARCHITECTURE.md, D25).
//!
//! Not here, because our objects have none of it: CO-RE relocations, maps in maps, sleepable programs; nor what would
//! need the object's own BTF in the kernel: callbacks, and locks or timers in values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Map, MapData};
use aya_obj::generated::{
    BPF_DW, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, BPF_IMM, BPF_LD, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE,
    bpf_insn, bpf_map_type,
};
use aya_obj::{Map as Definition, ProgramSection};
use netbcc_common::kernel::{FIELD_COUNT, FIELDS, Field, MISSING};
use nix::libc::{EMFILE, ENFILE, ENOMEM, ENOSYS};

use super::code::{self, Constants, Unclear};
use super::fault::{Fault, root_cause};
use super::load::{self, Copied, Functions, Loaded, MARKS, Turn};
use super::table::{Shape, Table};
use crate::hook::{Kind, Prog};
use crate::sys::bpf;
use crate::sys::library::Library;

/// How the name of a program ends that does what the kernel let the first one of its kind skip.
const SECOND: &str = "_again_tp";

/// A tool's object: what is loaded and attached of it. Dropping it detaches and unloads everything.
pub(super) struct Object {
    maps: Vec<Entry>,
    programs: HashMap<String, Program>,
    license: CString,
    /// Where the offsets of fields are: in which map, and at which of its bytes.
    offsets: Option<(usize, Range<usize>)>,
    /// What this kernel has.
    means: Means,
    /// What the first copies of programs mark, once there are such.
    marks: Option<OwnedFd>,
    /// The files in whose functions programs hang.
    libraries: Rc<[Library]>,
    /// Those that the kernel refuses, by their place among all, with the reason.
    refused: BTreeMap<usize, String>,
}

/// What the kernel has of what objects are made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Means {
    /// Its functions that programs call.
    pub(super) functions: Functions,
    /// Whether entries of a hash may be allocated when a program makes them: whether its BPF has an allocator of its own
    /// (since 6.1). Without it a program may be in the middle of the kernel's own allocation; 5.10 warns of each kprobe
    /// program with such a map, which is a panic where `panic_on_warn` is set, and refuses it with `PREEMPT_RT`.
    pub(super) allocates: bool,
    /// Whether it has IPv6, without which it lacks some fields that are then never read.
    pub(super) ipv6: bool,
    /// Whether a task may lose its processor in programs at functions (fentry, fexit), and in those at tracepoints.
    pub(super) preempted: Preempted,
}

/// In which programs a task may lose its processor to another, which the kernel then lets skip them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preempted {
    pub(super) functions: bool,
    pub(super) tracepoints: bool,
}

impl Means {
    /// Whether a second copy of `prog` has something to see.
    fn doubles(&self, prog: &Prog) -> bool {
        prog.twice
            && match prog.kind {
                Kind::Fentry | Kind::Fexit => self.preempted.functions,
                Kind::TpBtf | Kind::RawTp => self.preempted.tracepoints,
                // A breakpoint in the kernel keeps the processor; one in a program skips nothing; an iterator does not run
                // by itself.
                Kind::Kprobe | Kind::Kretprobe | Kind::Uprobe | Kind::Uretprobe | Kind::Iter => false,
            }
    }
}

/// A map of the object.
struct Entry {
    name: String,
    definition: Definition,
    /// `BPF_F_*`.
    flags: u32,
    state: State,
}

/// Whether a map is in the kernel.
enum State {
    /// Not yet.
    New,
    /// It was created, or is another's that takes its place.
    There(OwnedFd),
    /// It stays out: it belongs to an option that is not given. The code that refers to it is dead, which the verifier
    /// knows from constants.
    Absent,
}

/// A program of the object.
struct Program {
    section: ProgramSection,
    /// Where they refer to a map there is its index in `Object::maps`.
    instructions: Vec<bpf_insn>,
    /// Once it is loaded.
    loaded: Option<Loaded>,
    /// A second copy, which sees what the kernel lets the first one skip.
    second: Option<Loaded>,
    /// The map that the second copy has for itself.
    own: Option<OwnedFd>,
    /// Whether it is to have that here.
    doubles: bool,
    /// Where it is attached.
    links: Vec<(&'static str, OwnedFd)>,
}

impl Object {
    /// Reads `elf`. `globals` take the place of those in the object, and `pinned` maps that of its maps, or nothing does;
    /// `sizes` are those of its maps that have another one here; `means` is what the kernel has.
    pub(super) fn parse(
        elf: &[u8],
        globals: HashMap<&str, (&[u8], bool)>,
        sizes: &[(&str, u32)],
        pinned: Vec<(&str, Option<OwnedFd>)>,
        means: Means,
    ) -> Result<Self> {
        let mut object = aya_obj::Object::parse(elf).map_err(|error| anyhow!("{}", root_cause(&error)))?;
        let place = place_of_offsets(&mut object)?;
        object.patch_map_data(globals).map_err(|error| anyhow!("{}", root_cause(&error)))?;
        let definitions = mem::take(&mut object.maps);
        let text: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
        // Maps are not created yet: instructions get their indices.
        let numbered = definitions.iter().zip(0..).map(|((name, map), index)| (name.as_str(), index, map));
        object.relocate_maps(numbered, &text).map_err(|error| anyhow!("{}", root_cause(&error)))?;
        object.relocate_calls(&text).map_err(|error| anyhow!("{}", root_cause(&error)))?;

        let maps = definitions.into_iter().map(|(name, definition)| {
            let flags = definition.map_flags();
            Entry { name, definition, flags, state: State::New }
        });
        let mut maps: Vec<Entry> = maps.collect();
        let offsets = place.and_then(|(name, bytes)| {
            let map = maps.iter().position(|map| map.name == name)?;
            Some((map, bytes))
        });
        if !means.allocates {
            let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
            for map in &mut maps {
                map.preallocate(cpus);
            }
        }
        for &(name, entries) in sizes {
            find(&mut maps, name)?.definition.set_max_entries(entries);
        }
        for (name, fd) in pinned {
            let Some(fd) = fd else {
                // Not every object has what stays out.
                maps.iter_mut().filter(|map| map.name == name).for_each(|map| map.state = State::Absent);
                continue;
            };
            let map = find(&mut maps, name)?;
            let data = MapData::from_fd(fd.try_clone()?).and_then(|map| map.info());
            map.flags = data.map_err(|error| anyhow!("map {name}: {}", root_cause(&error)))?.map_flags();
            map.state = State::There(fd);
        }
        let mut programs = HashMap::new();
        for (name, program) in object.programs {
            let function = object.functions.remove(&program.function_key());
            let instructions = function.with_context(|| format!("program {name} is empty"))?.instructions;
            programs.insert(
                name,
                Program {
                    section: program.section,
                    instructions,
                    loaded: None,
                    second: None,
                    own: None,
                    doubles: false,
                    links: Vec::new(),
                },
            );
        }
        let license = object.license;
        Ok(Self {
            maps,
            programs,
            license,
            offsets,
            means,
            marks: None,
            libraries: Rc::new([]),
            refused: BTreeMap::new(),
        })
    }

    /// Names the files in whose functions programs hang.
    pub(super) fn hangs_in(&mut self, libraries: Rc<[Library]>) {
        self.libraries = libraries;
    }

    /// How many files there are in which programs can hang.
    pub(super) fn libraries(&self) -> usize {
        self.libraries.len()
    }

    /// The files that the kernel refused, with the reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.refused.iter().map(|(nth, why)| (self.libraries[*nth].path.as_path(), why.as_str()))
    }

    /// Loads and attaches `prog`; `target` is the BTF id of what a typed program hangs on. Answers whether it was
    /// not attached there before.
    pub(super) fn attach(&mut self, prog: &Prog, target: Option<u32>) -> Result<bool, Fault> {
        let Self { maps, programs, license, means, marks, libraries, refused, .. } = self;
        let missing = || Fault::Object(format!("the object has no program {} of this kind", prog.name));
        let program = programs
            .get_mut(prog.name)
            .filter(|program| is(prog.kind, &program.section))
            .ok_or_else(missing)?;
        if program.links.iter().any(|(at, _)| *at == prog.target) {
            return Ok(false);
        }
        match &program.loaded {
            Some(loaded) if loaded.target == target => {}
            Some(_) => return Err(Fault::Object(format!("{} cannot hang on several functions", prog.name))),
            None => {
                // The kernel asks that of programs without types only.
                let typed = matches!(prog.kind, Kind::Fentry | Kind::Fexit | Kind::TpBtf | Kind::Iter);
                let allocates = means.allocates || typed;
                let instructions = with_maps(&program.instructions, maps, allocates, None)?;
                let load = |code: &[_], turn| {
                    load::load(prog, target, code.to_vec(), means.functions, turn, license)
                };
                program.doubles = means.doubles(prog);
                if program.doubles
                    && let Some(first) = first_turn(marks, maps, prog)
                    && let Ok(loaded) = load(&instructions, Some(first))
                {
                    program.loaded = Some(loaded);
                    let turn = Turn { copy: Copied::Second, ..first };
                    program.second = match prog.own {
                        None => load(&instructions, Some(turn)).ok(),
                        // Without memory for that map it does without the second copy.
                        Some(name) => one_more(maps, name).and_then(|(at, fd)| {
                            let instead = Some((at, fd.as_raw_fd()));
                            let code = with_maps(&program.instructions, maps, allocates, instead).ok()?;
                            program.own = Some(fd);
                            load(&code, Some(turn)).ok()
                        }),
                    };
                } else {
                    program.loaded = Some(load(&instructions, None)?);
                }
            }
        }
        let over = match prog.over {
            Some(map) => {
                let map = find(maps, map).map_err(|error| Fault::Object(error.to_string()))?;
                Some(map.create().and_then(|fd| fd.try_clone_to_owned()).map_err(Fault::Attach)?)
            }
            None => None,
        };
        if prog.kind.is_in_files() {
            let program_fd = program.loaded.as_ref().ok_or_else(missing)?.fd.as_fd();
            let links = attach_in_files(program_fd, prog, libraries, refused).map_err(Fault::Attach)?;
            program.links.extend(links.into_iter().map(|link| (prog.target, link)));
            return Ok(true);
        }
        let attach = |loaded: &Loaded| match prog.kind {
            Kind::Fentry | Kind::Fexit | Kind::TpBtf => bpf::attach_typed(loaded.fd.as_fd()),
            Kind::Kprobe | Kind::Kretprobe => attach_kprobe(loaded.fd.as_fd(), prog),
            Kind::Uprobe | Kind::Uretprobe => Err(io::ErrorKind::Unsupported.into()),
            Kind::Iter => match &over {
                Some(map) => bpf::attach_iterator(loaded.fd.as_fd(), map.as_fd()),
                None => bpf::iterate(loaded.fd.as_fd()),
            },
            Kind::RawTp => CString::new(prog.target)
                .map_err(io::Error::from)
                .and_then(|name| bpf::attach_raw(loaded.fd.as_fd(), &name)),
        };
        let mut links = Vec::new();
        let copies = [program.second.as_ref(), program.loaded.as_ref()];
        // Of a function's programs the kernel runs that first which came last, of a tracepoint's that which came first.
        let order = if matches!(prog.kind, Kind::Fentry | Kind::Fexit) { [0, 1] } else { [1, 0] };
        for at in order {
            match copies[at].map(attach) {
                Some(Ok(link)) => links.push((prog.target, link)),
                Some(Err(error)) if at == 1 => return Err(Fault::Attach(error)),
                // It does without the second copy.
                Some(Err(_)) | None => {}
            }
        }
        program.links.extend(links);
        Ok(true)
    }

    /// The first field that `prog` reads, as far as the constants of this run let it come, and that this kernel has not got.
    pub(super) fn lacks(&self, prog: &Prog) -> Result<Option<Field>, Unclear> {
        let Some(program) = self.programs.get(prog.name) else { return Ok(None) };
        let of_ipv6 = |field| matches!(field, Field::SkV6RcvSaddr | Field::SkV6Daddr);
        let is_there = |field: &Field| {
            let (map, bytes) = self.offsets.as_ref()?;
            let at = bytes.start + size_of::<u16>() * *field as usize;
            let offset = self.maps.get(*map)?.definition.data().get(at..)?.first_chunk()?;
            Some(u16::from_ne_bytes(*offset) != MISSING)
        };
        let needed = self.needed(&program.instructions)?;
        let mut needed = needed.into_iter().filter_map(|index| Some(FIELDS.get(index)?.0));
        Ok(needed.find(|field| is_there(field) != Some(true) && (self.means.ipv6 || !of_ipv6(*field))))
    }

    /// Indices of the fields that these instructions read.
    fn needed(&self, instructions: &[bpf_insn]) -> Result<BTreeSet<usize>, Unclear> {
        let Some(table) = self.offsets.clone() else { return Ok(BTreeSet::new()) };
        let data = self.maps.iter().enumerate().filter(|(_, map)| map.flags & BPF_F_RDONLY_PROG != 0);
        let data = data.map(|(index, map)| (index, map.definition.data())).collect();
        code::needed(instructions, &Constants { data, table })
    }

    /// Detaches a program. It stays loaded, for another rung may want it.
    pub(super) fn detach(&mut self, prog: &Prog) {
        if let Some(program) = self.programs.get_mut(prog.name) {
            program.links.retain(|(at, _)| *at != prog.target);
        }
    }

    /// Everything that is needed is attached: unloads the other programs, and forgets the instructions.
    pub(super) fn settle(&mut self) {
        self.programs.retain(|_, program| !program.links.is_empty());
        for program in self.programs.values_mut() {
            program.instructions = Vec::new();
        }
    }

    /// What runs the iterator of this name, if it is attached.
    pub(super) fn iterator(&self, name: &str) -> Option<io::Result<OwnedFd>> {
        let (_, link) = self.programs.get(name)?.links.first()?;
        Some(link.try_clone())
    }

    /// The map `name`, to be read by aya.
    pub(super) fn map(&mut self, name: &str) -> Result<Map> {
        let fd = find(&mut self.maps, name)?
            .create()
            .and_then(|fd| fd.try_clone_to_owned())
            .with_context(|| format!("map {name}"))?;
        let data = MapData::from_fd(fd).and_then(Map::from_map_data);
        data.map_err(|error| anyhow!("map {name}: {}", root_cause(&error)))
    }

    /// The map `name`, to be read as a whole.
    pub(super) fn table(&mut self, name: &str) -> Result<Table> {
        let entry = find(&mut self.maps, name)?;
        let fd =
            entry.create().and_then(|fd| fd.try_clone_to_owned()).with_context(|| format!("map {name}"))?;
        let definition = &entry.definition;
        let shape = Shape {
            map_type: definition.map_type(),
            key: definition.key_size() as usize,
            value: definition.value_size() as usize,
            entries: definition.max_entries() as usize,
        };
        Table::new(name, fd, &shape)
    }

    /// Runs of programs that the kernel skipped. Its own counts: of programs, from the descriptors' files in /proc
    /// (since 5.12; for kprobes since 6.7), and of kprobes that were not even asked.
    pub(super) fn missed(&self) -> u64 {
        // What the second copy of a program skipped, the first one did.
        let first = self.programs.iter().filter(|(name, _)| !name.ends_with(SECOND));
        let loaded = first.filter_map(|(_, program)| program.loaded.as_ref());
        let skipped = loaded.filter_map(|loaded| told(&loaded.fd, "recursion_misses:"));
        skipped.sum::<u64>() + self.kprobes().flatten().sum::<u64>()
    }

    /// The instructions of its programs, by name.
    #[cfg(test)]
    pub(super) fn code(&self) -> impl Iterator<Item = (&str, &[bpf_insn])> {
        self.programs.iter().map(|(name, program)| (name.as_str(), program.instructions.as_slice()))
    }

    /// The maps of which each processor has its own values, by their indices.
    #[cfg(test)]
    pub(super) fn per_cpu(&self) -> impl Iterator<Item = (usize, &str)> {
        let types = [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ];
        let maps = self.maps.iter().enumerate();
        maps.filter(move |(_, map)| types.iter().any(|&ty| ty as u32 == map.definition.map_type()))
            .map(|(index, map)| (index, map.name.as_str()))
    }

    /// Programs that the kernel took without their casts only.
    pub(super) fn uncast(&self) -> impl Iterator<Item = &str> {
        let uncast = |program: &Program| program.loaded.as_ref().is_some_and(|loaded| loaded.uncast);
        self.programs.iter().filter(move |(_, program)| uncast(program)).map(|(name, _)| name.as_str())
    }

    /// Programs that the kernel took only without what keeps their processor.
    pub(super) fn unheld(&self) -> impl Iterator<Item = &str> {
        let unheld = |program: &Program| program.loaded.as_ref().is_some_and(|loaded| loaded.unheld);
        self.programs.iter().filter(move |(_, program)| unheld(program)).map(|(name, _)| name.as_str())
    }

    /// Programs that are to have a second copy here, and have none.
    pub(super) fn alone(&self) -> impl Iterator<Item = &str> {
        let alone = |program: &Program| program.doubles && program.second.is_none();
        self.programs.iter().filter(move |(_, program)| alone(program)).map(|(name, _)| name.as_str())
    }

    /// Bytes of the kernel's memory that its programs and maps take, as the kernel counts them.
    pub(super) fn kernel_bytes(&self) -> u64 {
        let programs =
            self.programs.values().flat_map(|program| program.loaded.iter().chain(&program.second));
        let programs = programs.map(|loaded| &loaded.fd);
        let maps = self.maps.iter().filter_map(|map| match &map.state {
            State::There(fd) => Some(fd),
            State::New | State::Absent => None,
        });
        let own = self.programs.values().filter_map(|program| program.own.as_ref());
        programs.chain(maps).chain(own).chain(&self.marks).filter_map(|fd| told(fd, "memlock:")).sum()
    }

    /// Whether there are kprobes of which the kernel does not tell how often it skipped them (before 6.6).
    pub(super) fn misses_untold(&self) -> bool {
        self.kprobes().any(|missed| missed.is_none())
    }

    /// Per attached kprobe, how often it was missed, if the kernel tells.
    fn kprobes(&self) -> impl Iterator<Item = Option<u64>> {
        let by_breakpoint = |program: &&Program| {
            matches!(program.section, ProgramSection::KProbe | ProgramSection::KRetProbe)
        };
        let programs = self.programs.values().filter(by_breakpoint);
        programs.flat_map(|program| &program.links).map(|(_, link)| bpf::kprobe_missed(link.as_fd()))
    }
}

impl Entry {
    /// Whether its entries are allocated when a program makes them.
    fn allocates(&self) -> bool {
        let is = |map_type| self.definition.map_type() == map_type as u32;
        let hash = is(bpf_map_type::BPF_MAP_TYPE_HASH) || is(bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH);
        hash && self.flags & BPF_F_NO_PREALLOC != 0
    }

    /// Has a hash keep room for all its entries from the beginning, and not too much of it.
    fn preallocate(&mut self, cpus: usize) {
        /// `struct htab_elem`, and what the list of free ones costs.
        const HEAD: usize = 56;
        if !self.allocates() {
            return;
        }
        let definition = &mut self.definition;
        let per_cpu = definition.map_type() == bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32;
        let [key, value] =
            [definition.key_size(), definition.value_size()].map(|size| (size as usize).next_multiple_of(8));
        let entry = HEAD + key + value * if per_cpu { cpus } else { 1 };
        let most = u32::try_from(PREALLOCATED_BYTES / entry).unwrap_or(u32::MAX).max(1);
        definition.set_max_entries(definition.max_entries().min(most));
        self.flags &= !BPF_F_NO_PREALLOC;
    }

    /// Creates the map unless it is there.
    fn create(&mut self) -> io::Result<BorrowedFd<'_>> {
        let Self { name, definition, flags, state } = self;
        if matches!(state, State::New) {
            let data = definition.data();
            *state = State::There(if data.is_empty() {
                create(name, definition, *flags)?
            } else {
                bpf::data_create(name, *flags, data)?
            });
        }
        match &*state {
            State::There(fd) => Ok(fd.as_fd()),
            State::New | State::Absent => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Where the offsets of fields are among the object's constants: in which map, and at which of its bytes. aya-obj tells no
/// addresses, so a mark is put there, and looked for.
fn place_of_offsets(object: &mut aya_obj::Object) -> Result<Option<(String, Range<usize>)>> {
    let mark: Vec<u8> = (0xa500..).take(FIELD_COUNT).flat_map(u16::to_ne_bytes).collect();
    let mut put = |bytes: &[u8]| {
        let done = object.patch_map_data(HashMap::from([("OFFSETS", (bytes, false))]));
        done.map_err(|error| anyhow!("{}", root_cause(&error)))?;
        let place = |map: &Definition| map.data().windows(mark.len()).position(|window| window == mark);
        Ok(object.maps.iter().find_map(|(name, map)| Some((name.clone(), place(map)?))))
    };
    let found: Result<Option<(String, usize)>> = put(&mark);
    let _none: Result<_> = put(&[MISSING; FIELD_COUNT].map(u16::to_ne_bytes).concat());
    Ok(found?.map(|(name, start)| (name, start..start + mark.len())))
}

/// A number that the kernel tells of a descriptor.
fn told(fd: &OwnedFd, name: &str) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

fn find<'a>(maps: &'a mut [Entry], name: &str) -> Result<&'a mut Entry> {
    maps.iter_mut().find(|map| map.name == name).with_context(|| format!("the object has no map {name}"))
}

/// The first of two copies of `prog`. `None`: there is no memory for what it marks.
fn first_turn(marks: &mut Option<OwnedFd>, maps: &mut [Entry], prog: &Prog) -> Option<Turn> {
    let lost = find(maps, "LOST").ok()?.create().ok()?.as_raw_fd();
    let marks = match marks {
        Some(marks) => marks,
        None => marks.insert(bpf::data_create("MARKS", 0, &[0; MARKS]).ok()?),
    };
    // Marks are words' addresses: within a word there is room for this. It tells apart what hangs on different places, for
    // these may find their arguments at the same address one after the other.
    let program = prog.name.bytes().map(i32::from).sum::<i32>();
    Some(Turn { copy: Copied::First, marks: marks.as_raw_fd(), lost, program })
}

/// Whether a program of this section is attached in this way.
fn is(kind: Kind, section: &ProgramSection) -> bool {
    matches!(
        (kind, section),
        (Kind::Fentry, ProgramSection::FEntry { sleepable: false })
            | (Kind::Fexit, ProgramSection::FExit { sleepable: false })
            | (Kind::TpBtf, ProgramSection::BtfTracePoint)
            | (Kind::RawTp, ProgramSection::RawTracePoint)
            | (Kind::Iter, ProgramSection::Iter { sleepable: false })
            | (Kind::Kprobe, ProgramSection::KProbe)
            | (Kind::Kretprobe, ProgramSection::KRetProbe)
            | (Kind::Uprobe, ProgramSection::UProbe { sleepable: false })
            | (Kind::Uretprobe, ProgramSection::URetProbe { sleepable: false })
    )
}

/// Another map like that of this name, and the index of that.
fn one_more(maps: &[Entry], name: &str) -> Option<(usize, OwnedFd)> {
    let (at, map) = maps.iter().enumerate().find(|(_, map)| map.name == name)?;
    Some((at, create(&map.name, &map.definition, map.flags).ok()?))
}

/// The instructions with descriptors of maps instead of their indices. Creates the maps that are new. `allocates`:
/// whether the program may use one that allocates its entries. `instead`: the descriptor of another map in place of that with this
/// index.
fn with_maps(
    instructions: &[bpf_insn],
    maps: &mut [Entry],
    allocates: bool,
    instead: Option<(usize, RawFd)>,
) -> Result<Vec<bpf_insn>, Fault> {
    const LOAD: u32 = BPF_LD | BPF_IMM | BPF_DW;
    let mut instructions = instructions.to_vec();
    for instruction in &mut instructions {
        let refers = matches!(u32::from(instruction.src_reg()), BPF_PSEUDO_MAP_FD | BPF_PSEUDO_MAP_VALUE);
        if u32::from(instruction.code) != LOAD || !refers {
            continue;
        }
        let index = usize::try_from(instruction.imm).ok();
        if let Some((_, fd)) = instead.filter(|(at, _)| Some(*at) == index) {
            instruction.imm = fd;
            continue;
        }
        let map = index.and_then(|index| maps.get_mut(index));
        let map = map.ok_or_else(|| Fault::Object("an instruction refers to an unknown map".to_owned()))?;
        if matches!(map.state, State::Absent) {
            // The number 0, which no helper takes for a map: should this be reached, the verifier says so.
            instruction.set_src_reg(0);
            instruction.imm = 0;
            continue;
        }
        if !allocates && map.allocates() {
            let why = "it has BPF_F_NO_PREALLOC, and this kernel is not safe with that here";
            return Err(Fault::Map(map.name.clone(), io::Error::other(why)));
        }
        let fd = map.create().map(|fd| fd.as_raw_fd());
        instruction.imm = fd.map_err(|error| Fault::Map(map.name.clone(), error))?;
    }
    Ok(instructions)
}

fn attach_kprobe(program: BorrowedFd<'_>, prog: &Prog) -> io::Result<OwnedFd> {
    let function = CString::new(prog.target)?;
    let returns = if prog.kind == Kind::Kretprobe {
        // The bit of `config` that says so: `config:0`.
        1_u64.checked_shl(number(RETPROBE, "config:")?).unwrap_or_default()
    } else {
        0
    };
    let event = bpf::kprobe_event(number(KPROBE, "")?, returns, &function)?;
    bpf::attach_perf(program, event, 0)
}

/// Attaches a program in each file that has its function. There it is told the number of the file, counted from 1. A file that
/// the kernel refuses is left out, also by the programs that come later.
///
/// # Errors
/// The kernel refuses all of them: why the first one.
fn attach_in_files(
    program: BorrowedFd<'_>,
    prog: &Prog,
    libraries: &[Library],
    refused: &mut BTreeMap<usize, String>,
) -> io::Result<Vec<OwnedFd>> {
    let perf_type = number(UPROBE, "")?;
    let returns = if prog.kind == Kind::Uretprobe {
        1_u64.checked_shl(number(URETPROBE, "config:")?).unwrap_or_default()
    } else {
        0
    };
    let (mut links, mut first_error) = (Vec::new(), None);
    for (nth, library) in libraries.iter().enumerate() {
        // By its descriptor: whatever its path is by now.
        let path = CString::new(format!("/proc/self/fd/{}", library.file.as_raw_fd()))?;
        for offset in library.places(prog.target) {
            if refused.contains_key(&nth) {
                break;
            }
            let event = bpf::uprobe_event(perf_type, returns, &path, offset);
            match event.and_then(|event| bpf::attach_perf(program, event, nth as u64 + 1)) {
                Ok(link) => links.push(link),
                // That is about this process, not about the file.
                Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | ENOSYS)) => {
                    return Err(error);
                }
                Err(error) => {
                    refused.insert(nth, error.to_string());
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    match first_error {
        Some(error) if refused.len() == libraries.len() => Err(error),
        _ => Ok(links),
    }
}

/// Type of the uprobe PMU.
pub(super) const UPROBE: &str = "/sys/bus/event_source/devices/uprobe/type";
const URETPROBE: &str = "/sys/bus/event_source/devices/uprobe/format/retprobe";

/// Type of the kprobe PMU.
pub(super) const KPROBE: &str = "/sys/bus/event_source/devices/kprobe/type";
const RETPROBE: &str = "/sys/bus/event_source/devices/kprobe/format/retprobe";

fn number(path: &str, prefix: &str) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    let number = text.trim().strip_prefix(prefix).and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {text}")))
}

/// What the entries of a table that has to have all of them from the beginning may take, unless a size is asked for.
const PREALLOCATED_BYTES: usize = 8 << 20;

fn create(name: &str, definition: &Definition, flags: u32) -> io::Result<OwnedFd> {
    let btf = if is_storage(definition.map_type()) {
        Some(bpf::btf_load(&storage_btf(definition.value_size()))?)
    } else {
        None
    };
    bpf::map_create(&bpf::Map {
        name,
        map_type: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: definition.max_entries(),
        flags,
        btf: btf.as_ref().map(|btf| (btf.as_fd(), STORAGE_KEY, STORAGE_VALUE)),
        inner: None,
    })
}

/// The types of map whose values are kept with a kernel object. The kernel wants to know the types of their keys and
/// values.
fn is_storage(map_type: u32) -> bool {
    [
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_map_type::BPF_MAP_TYPE_INODE_STORAGE,
        bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE,
        bpf_map_type::BPF_MAP_TYPE_CGRP_STORAGE,
    ]
    .iter()
    .any(|&storage| storage as u32 == map_type)
}

const STORAGE_KEY: u32 = 1;
const STORAGE_VALUE: u32 = 2;

/// The least BTF that describes a storage map: `int` and a struct of `bytes` bytes. The object's own has everything
/// that the compiler knew, which every kernel would have to understand (Documentation/bpf/btf.rst).
fn storage_btf(bytes: u32) -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const STRUCT: u32 = 4 << 24;
    const SIGNED_32_BITS: u32 = 1 << 24 | 32;
    const NAMES: &[u8; 11] = b"\0int\0value\0";
    let types = [1, INT, 4, SIGNED_32_BITS, 5, STRUCT, bytes];
    let (types_len, names_len) = (7 * 4, 11);
    let mut btf = Vec::new();
    btf.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
    btf.extend_from_slice(&[1, 0]);
    for word in [24, 0, types_len, types_len, names_len].iter().chain(&types) {
        btf.extend_from_slice(&u32::to_ne_bytes(*word));
    }
    btf.extend_from_slice(NAMES);
    btf
}

#[cfg(test)]
mod tests {
    use aya::Endianness;
    use aya_obj::btf::{Btf, BtfKind};

    use super::super::plan::OPTIONAL;
    use super::*;
    use crate::registry::TOOLS;

    #[test]
    fn a_storage_map_is_described_at_the_ids_it_is_created_with() {
        let btf = Btf::parse(&storage_btf(48), Endianness::default()).expect("a valid BTF");
        let id = |name, kind| btf.id_by_type_name_kind(name, kind).expect("the name is there");
        assert_eq!(id("int", BtfKind::Int), STORAGE_KEY);
        assert_eq!(id("value", BtfKind::Struct), STORAGE_VALUE);
    }

    #[test]
    fn the_objects_have_what_the_ladders_name_and_nothing_else() {
        for tool in TOOLS {
            let name = tool.spec.name;
            let object = Object::parse(
                tool.spec.object.unpack().unwrap().as_ref(),
                HashMap::new(),
                &[("EVENTS", 4096)],
                Vec::new(),
                Means::default(),
            );
            let mut programs = object.unwrap_or_else(|error| panic!("{name}: {error:#}")).programs;
            let named: Vec<&Prog> = tool
                .spec
                .ladders
                .iter()
                .flat_map(|ladder| ladder.rungs)
                .flat_map(|rung| rung.programs)
                .collect();
            for prog in &named {
                let program = programs.get(prog.name).unwrap_or_else(|| panic!("{name}: no {}", prog.name));
                assert!(is(prog.kind, &program.section), "{name}: {} is not {:?}", prog.name, prog.kind);
            }
            programs.retain(|name, _| !named.iter().any(|prog| prog.name == name));
            assert_eq!(programs.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: never attached");
        }
    }

    #[test]
    fn without_the_kernels_allocator_no_hash_allocates_and_none_is_large() {
        for tool in TOOLS {
            let name = tool.spec.name;
            let maps = |allocates| {
                let means = Means { allocates, ..Means::default() };
                let sizes = [("EVENTS", 4096)];
                let elf = tool.spec.object.unpack().unwrap();
                let object = Object::parse(elf.as_ref(), HashMap::new(), &sizes, Vec::new(), means);
                let mut maps = object.unwrap().maps;
                maps.sort_by(|a, b| a.name.cmp(&b.name));
                maps
            };
            for (map, with) in maps(false).iter().zip(maps(true)) {
                assert!(!map.allocates(), "{name}: {}", map.name);
                if with.allocates() {
                    let least = map.definition.key_size() + map.definition.value_size();
                    let bytes = (map.definition.max_entries() * least) as usize;
                    assert!(bytes <= PREALLOCATED_BYTES, "{name}: {}: {bytes}", map.name);
                    assert!(map.definition.max_entries() > 0);
                } else {
                    // A trie has to allocate, and nothing else is changed.
                    assert_eq!(map.flags, with.flags, "{name}: {}", map.name);
                }
            }
        }
    }

    #[test]
    fn the_maps_of_options_that_are_not_given_stay_out() {
        let mut total = 0;
        for tool in TOOLS {
            let pinned = OPTIONAL.map(|name| (name, None)).into();
            let sizes = [("EVENTS", 4096)];
            let elf = tool.spec.object.unpack().unwrap();
            let object = Object::parse(elf.as_ref(), HashMap::new(), &sizes, pinned, Means::default());
            let mut object = object.unwrap();
            // Nothing else is to be made here.
            for map in object.maps.iter_mut().filter(|map| matches!(map.state, State::New)) {
                map.state = State::There(fs::File::open("/dev/null").unwrap().into());
            }
            let absent = object.maps.iter().filter(|map| matches!(map.state, State::Absent)).count();
            let refers = |instruction: &&bpf_insn| {
                u32::from(instruction.code) == BPF_LD | BPF_IMM | BPF_DW && instruction.src_reg() != 0
            };
            let mut dropped = 0;
            for program in object.programs.values() {
                let Ok(placed) = with_maps(&program.instructions, &mut object.maps, true, None) else {
                    panic!("{}: a map is missing", tool.spec.name);
                };
                dropped += program.instructions.iter().filter(refers).count();
                dropped -= placed.iter().filter(refers).count();
            }
            // An object may have such a map and never ask it.
            assert!(absent > 0 || dropped == 0, "{}", tool.spec.name);
            total += dropped;
        }
        assert!(total > 0);
    }

    #[test]
    fn an_unknown_global_or_map_is_an_error() {
        let elf = TOOLS[0].spec.object.unpack().unwrap();
        let elf = elf.as_ref();
        let globals = || HashMap::from([("FILTER", (&[0_u8; 1][..], true))]);
        assert!(
            Object::parse(elf, globals(), &[("EVENTS", 4096)], Vec::new(), Means::default()).is_err(),
            "of another size"
        );
        assert!(
            Object::parse(elf, HashMap::new(), &[("OTHER", 4096)], Vec::new(), Means::default()).is_err()
        );
    }
}
