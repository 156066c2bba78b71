//! One lean forward pass over the running kernel's BTF (`/sys/kernel/btf/vmlinux`, about 5 MB; ARCHITECTURE.md, D1).
//!
//! A tool wants a few dozen names out of 120,000 types: offsets of fields, ids of functions and tracepoints. A full
//! parse costs 20 ms and 25 MB. Here the strings come by first and give the wanted names' offsets; then the types
//! come by and are compared by those integers. All that is kept is one word per type (its size or what it refers
//! to) and the few members found. Since 6.17 the file can be mapped; older kernels hand it out in pieces of a page.
//!
//! Format: Documentation/bpf/btf.rst. Nothing in it is trusted: every length is checked. A kind of type that is unknown here
//! is skipped where the BTF says how large it is (its layout section, Linux 7.1); else nobody can tell where the next one
//! begins, and it is named.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::mem;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use netbcc_common::kernel::{BIT, FIELD_COUNT, FIELDS, FUNC_COUNT, FUNCS, Field, Func, LOW_BITS, MISSING};

use super::bpf::KernelBtf;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What a tool wants to know.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of kernel functions (kind FUNC).
    pub functions: Vec<String>,
    /// Names of tracepoints (without the `btf_trace_` of their typedefs).
    pub tracepoints: Vec<String>,
    /// Names of enums whose members are asked for; of an enum without a name that of one of its members.
    pub enums: Vec<String>,
    /// Names of structs of which it is asked whether the kernel has them.
    pub structs: Vec<String>,
    /// Names of typedefs of which it is asked whether the kernel has them.
    pub typedefs: Vec<String>,
}

/// What the kernel's BTF says.
#[derive(Clone, Debug)]
pub struct Kernel {
    offsets: [u16; FIELD_COUNT],
    owners: [u32; FIELD_COUNT],
    /// Why a field has no offset: how it is there, but not as the probes would read it.
    refused: HashMap<usize, String>,
    arities: [u8; FUNC_COUNT],
    functions: HashMap<String, u32>,
    tracepoints: HashMap<String, u32>,
    enums: HashMap<String, Vec<(u32, String)>>,
    structs: HashSet<String>,
    typedefs: HashSet<String>,
}

impl Kernel {
    /// Offsets by [`Field`], [`MISSING`] where the kernel has none.
    pub fn offsets(&self) -> &[u16; FIELD_COUNT] {
        &self.offsets
    }

    /// BTF ids of the structs that have the fields, by [`Field`]; 0 where the kernel has none.
    pub fn owners(&self) -> &[u32; FIELD_COUNT] {
        &self.owners
    }

    /// Whether a function has that many arguments here; `None` asks nothing.
    pub fn fits(&self, arity: Option<(Func, u8)>) -> bool {
        arity.is_none_or(|(func, count)| self.arities[func as usize] == count)
    }

    /// BTF id of a wanted function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    /// BTF id of the typedef `btf_trace_<name>` of a wanted tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.tracepoints.get(name).copied()
    }

    /// Whether there is a struct or union of this wanted name.
    pub fn has_struct(&self, name: &str) -> bool {
        self.structs.contains(name)
    }

    /// Whether there is a typedef of this wanted name.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.typedefs.contains(name)
    }

    /// Values and names of a wanted enum's members, in the kernel's order; empty if it has no such enum.
    pub fn members_of(&self, name: &str) -> &[(u32, String)] {
        self.enums.get(name).map_or(&[], Vec::as_slice)
    }

    /// Fails with the field's name unless the kernel has `field` as the probes read it.
    pub fn require(&self, field: Field) -> Result<()> {
        let index = field as usize;
        if self.offsets[index] != MISSING {
            return Ok(());
        }
        let spec = FIELDS[index].1;
        match self.refused.get(&index) {
            Some(why) => bail!("this kernel's struct {}: {why}", spec.of),
            None => bail!("this kernel's struct {} has no field {}", spec.of, spec.member),
        }
    }
}

/// Reads the running kernel's BTF.
///
/// # Errors
/// It cannot be read, or is not BTF.
pub fn read(wanted: &Wanted) -> Result<Kernel> {
    let file = File::open(VMLINUX).with_context(|| format!("open {VMLINUX}"))?;
    let mut pass = Pass::new(Names::new(wanted));
    if let Ok(mapped) = KernelBtf::map(&file) {
        // Nothing is copied, and nothing counts as ours.
        return whole(&mapped, pass, wanted);
    }
    let header = streamed(&file, &mut pass)?;
    pass.finish(wanted, |at| header.string_of(&file, at))
}

/// Over bytes that are all there.
fn whole(bytes: &[u8], mut pass: Pass, wanted: &Wanted) -> Result<Kernel> {
    let header = Header::parse(bytes)?;
    let section = |at: u64, len: u64| {
        let (start, end) = (usize::try_from(at).ok()?, usize::try_from(at + len).ok()?);
        bytes.get(start..end)
    };
    let strings = section(header.strings_at, header.strings_len).context("BTF is cut short")?;
    see_strings(strings, 0, &mut pass.names);
    pass.names.seal();
    let types = section(header.types_at, header.types_len).context("BTF is cut short")?;
    pass.layout.see(section(header.layout_at, header.layout_len).context("BTF is cut short")?);
    ensure!(see_types(types, &mut pass)? == types.len(), "BTF types end in the middle of one");
    pass.finish(wanted, |at| {
        let string = strings.get(at as usize..).context("a BTF name lies outside of the strings")?;
        Ok(string_at_start(string))
    })
}

/// What both ways of reading make of the same bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn both(bytes: &[u8], file: &File, wanted: &Wanted) -> [Result<Kernel>; 2] {
    let in_pieces = || {
        let mut pass = Pass::new(Names::new(wanted));
        let header = streamed(file, &mut pass)?;
        pass.finish(wanted, |at| header.string_of(file, at))
    };
    [whole(bytes, Pass::new(Names::new(wanted)), wanted), in_pieces()]
}

/// The string at the start of `bytes`, up to its NUL.
fn string_at_start(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Over a file, a buffer at a time.
fn streamed(file: &File, pass: &mut Pass) -> Result<Header> {
    let mut bytes = [0_u8; LONG_HEADER];
    file.read_exact_at(&mut bytes[..HEADER], 0).context("BTF header")?;
    if u32_at(&bytes, 4) as usize >= LONG_HEADER {
        file.read_exact_at(&mut bytes[HEADER..], HEADER as u64).context("BTF header")?;
    }
    let header = Header::parse(&bytes)?;
    let mut layout = vec![0; usize::try_from(header.layout_len)?];
    file.read_exact_at(&mut layout, header.layout_at).context("BTF is cut short")?;
    pass.layout.see(&layout);
    header.stream_strings(file, &mut pass.names)?;
    pass.names.seal();
    header.stream_types(file, pass)?;
    Ok(header)
}

/// The strings in `bytes`, which start at `at` in their section; answers how many bytes whole ones have.
fn see_strings(bytes: &[u8], at: u64, names: &mut Names) -> usize {
    let mut start = 0;
    let mut see = |end: usize| {
        names.see(&bytes[start..end], at + start as u64);
        start = end + 1;
    };
    // 17 bytes are usual: the ends of several strings are found at once.
    let (blocks, rest) = bytes.as_chunks::<64>();
    for (index, block) in blocks.iter().enumerate() {
        let mut ends = zeros(block);
        while ends != 0 {
            see(64 * index + ends.trailing_zeros() as usize);
            ends &= ends - 1;
        }
    }
    for (index, _) in rest.iter().enumerate().filter(|(_, byte)| **byte == 0) {
        see(64 * blocks.len() + index);
    }
    start
}

/// Which bytes are zero, the first in the lowest bit.
#[inline]
fn zeros(block: &[u8; 64]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    /// Brings the upper bits of eight bytes together in the uppermost byte.
    const GATHER: u64 = 0x0002_0408_1020_4081;
    let mut found = 0;
    for (word, index) in block.as_chunks::<8>().0.iter().zip(0..) {
        let word = u64::from_le_bytes(*word);
        // The upper bit of each byte: only 0 does not carry into it and has not got it.
        let zero = !(((word & LOW) + LOW) | word | LOW);
        found |= (zero.wrapping_mul(GATHER) >> 56) << (8 * index);
    }
    found
}

/// The types in `bytes`; answers how many bytes whole ones have.
fn see_types(bytes: &[u8], pass: &mut Pass) -> Result<usize> {
    let mut start = 0;
    while let Some(head) = bytes[start..].first_chunk::<RECORD>() {
        let [name_at, info, size_or_type] = words(head);
        let mut shape = &SHAPES[kind_of(info)];
        if !shape.known {
            let untold = || format!("BTF kind {} is unknown, and its size is not told", kind_of(info));
            shape = pass.layout.0.get(&kind_of(info)).with_context(untold)?;
        }
        let size = RECORD + usize::from(shape.fixed) + usize::from(shape.member) * members_of(info);
        let Some(record) = bytes.get(start..start + size) else { break };
        let id = pass.types.len();
        pass.types.push(size_or_type & shape.keep | info & shape.keep_info | shape.say);
        // Few are.
        if shape.named && pass.names.may_have(name_at) {
            pass.see(u32::try_from(id)?, info, name_at, &record[RECORD..]);
        }
        start += size;
    }
    Ok(start)
}

/// The 24 bytes at the start, or 32.
struct Header {
    types_at: u64,
    types_len: u64,
    strings_at: u64,
    strings_len: u64,
    layout_at: u64,
    /// Of the kinds that there can be; 0 if nothing is told of them.
    layout_len: u64,
}

const HEADER: usize = 24;
const LONG_HEADER: usize = 32;

/// How large the types of kinds are that are unknown here, by kind.
struct Layout(HashMap<usize, Shape>);

impl Layout {
    /// Bytes per kind: what follows the head of a type, what follows for each of its members, and two without a meaning.
    const ENTRY: usize = 4;

    fn see(&mut self, section: &[u8]) {
        for (kind, &[fixed, member, ..]) in section.as_chunks::<{ Self::ENTRY }>().0.iter().enumerate() {
            // Of its own size, which a field has, nothing is known.
            self.0.insert(kind, Shape { fixed, member, ..UNKNOWN });
        }
    }
}

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() >= HEADER, "BTF header");
        let word = |at: usize| u64::from(u32_at(bytes, at));
        ensure!(bytes[0..2] == 0xeb9f_u16.to_ne_bytes(), "not BTF of this machine's byte order");
        ensure!(bytes[2] == 1, "BTF version {} is unknown", bytes[2]);
        let header_len = word(4);
        let has_layout = header_len >= LONG_HEADER as u64;
        ensure!(!has_layout || bytes.len() >= LONG_HEADER, "BTF header");
        let (layout_at, layout_len) = if has_layout { (word(24), word(28)) } else { (0, 0) };
        Ok(Self {
            layout_at: header_len + layout_at,
            layout_len: layout_len.min((KINDS * Layout::ENTRY) as u64),
            types_at: header_len + word(8),
            types_len: word(12),
            strings_at: header_len + word(16),
            strings_len: word(20),
        })
    }

    /// Streams the strings; a string is known by its offset in the section.
    fn stream_strings(&self, file: &File, names: &mut Names) -> Result<()> {
        let mut buffer = vec![0_u8; CHUNK];
        let (mut done, mut kept) = (0_u64, 0_usize);
        while done + (kept as u64) < self.strings_len && !names.complete() {
            let got = fill(file, &mut buffer, kept, self.strings_at + done, self.strings_len - done)?;
            let whole = see_strings(&buffer[..got], done, names);
            // A string longer than the buffer is none of ours: skip what is there of it.
            let consumed = if whole == 0 { got } else { whole };
            buffer.copy_within(consumed..got, 0);
            kept = got - consumed;
            done += consumed as u64;
        }
        Ok(())
    }

    /// The string at this offset of the section; the kernel has no names of 512 bytes (KSYM_NAME_LEN).
    fn string_of(&self, file: &File, at: u32) -> Result<String> {
        let mut bytes = [0; 512];
        let left = usize::try_from(self.strings_len.saturating_sub(at.into()))?.min(bytes.len());
        file.read_exact_at(&mut bytes[..left], self.strings_at + u64::from(at)).context("a BTF name")?;
        Ok(string_at_start(&bytes[..left]))
    }

    /// Streams the types.
    fn stream_types(&self, file: &File, pass: &mut Pass) -> Result<()> {
        // Almost all types fit.
        let mut buffer = vec![0_u8; CHUNK];
        let (mut done, mut kept) = (0_u64, 0_usize);
        while done + (kept as u64) < self.types_len {
            let got = fill(file, &mut buffer, kept, self.types_at + done, self.types_len - done)?;
            let whole = see_types(&buffer[..got], pass)?;
            if whole == 0 {
                ensure!(done + (got as u64) < self.types_len, "BTF types end in the middle of one");
                // The largest type is an enum or struct with 65535 members of 12 bytes.
                ensure!(got < LARGEST, "BTF type of {got} bytes or more");
                buffer.resize(LARGEST, 0);
            }
            buffer.copy_within(whole..got, 0);
            kept = got - whole;
            done += whole as u64;
        }
        Ok(())
    }
}

/// No type has more bytes, on the kernels whose BTF cannot be mapped.
const LARGEST: usize = RECORD + 12 * 65535;

/// Reads on into `buffer[kept..]`, at most `left` bytes of a section in all; answers how many bytes are valid.
fn fill(file: &File, buffer: &mut [u8], kept: usize, at: u64, left: u64) -> Result<usize> {
    let upto = buffer.len().min(usize::try_from(left)?);
    file.read_exact_at(&mut buffer[kept..upto], at + kept as u64).context("BTF is cut short")?;
    Ok(upto)
}

fn words<const N: usize>(bytes: &[u8; N]) -> [u32; 3] {
    [u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8)]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// Kinds of types (include/uapi/linux/btf.h).
mod kind {
    pub(super) const INT: usize = 1;
    pub(super) const PTR: usize = 2;
    pub(super) const ARRAY: usize = 3;
    pub(super) const STRUCT: usize = 4;
    pub(super) const UNION: usize = 5;
    pub(super) const ENUM: usize = 6;
    pub(super) const TYPEDEF: usize = 8;
    pub(super) const FUNC: usize = 12;
    pub(super) const FUNC_PROTO: usize = 13;
    pub(super) const VAR: usize = 14;
    pub(super) const DATASEC: usize = 15;
    pub(super) const FLOAT: usize = 16;
    pub(super) const DECL_TAG: usize = 17;
    pub(super) const ENUM64: usize = 19;
    /// The newest kind that is known here.
    pub(super) const LAST: usize = 19;
}

/// So many kinds there can be: 7 bits of a type's info, of which kernels before 7.2 leave two unused.
const KINDS: usize = 128;

/// The kind of a type with this info.
#[inline]
fn kind_of(info: u32) -> usize {
    (info >> 24) as usize % KINDS
}

/// How many members it has: 24 bits, of which kernels before 7.2 leave eight unused.
#[inline]
fn members_of(info: u32) -> usize {
    (info & 0xff_ffff) as usize
}

/// Bytes of a type record: 12, then members by kind.
const RECORD: usize = 12;

/// What a kind of type is like.
#[derive(Clone, Copy)]
struct Shape {
    known: bool,
    /// Bytes behind the head: so many, and so many per member.
    fixed: u8,
    member: u8,
    /// What makes its word in [`Pass::types`]: bits of its size or reference, bits of its info, and others.
    keep: u32,
    keep_info: u32,
    say: u32,
    /// Whether its name may be a wanted one.
    named: bool,
}

/// Of a kind that is unknown here.
const UNKNOWN: Shape =
    Shape { known: false, fixed: 0, member: 0, keep: 0, keep_info: 0, say: UNSIZED, named: false };

/// By kind. A table, because a branch per type would be guessed wrongly too often.
const SHAPES: [Shape; KINDS] = {
    let none = Shape { say: 0, ..UNKNOWN };
    let refers = Shape { known: true, keep: VALUE, say: REFERS, ..none };
    let sized = Shape { known: true, keep: VALUE, ..none };
    let unsized_ = Shape { known: true, say: UNSIZED, ..none };
    let mut shapes = [UNKNOWN; KINDS];
    let mut kind = 0;
    while kind <= kind::LAST {
        shapes[kind] = refers;
        kind += 1;
    }
    shapes[kind::INT] = Shape { fixed: 4, ..sized };
    shapes[kind::PTR] = Shape { known: true, keep: VALUE, say: POINTS, ..none };
    shapes[kind::ARRAY] = Shape { fixed: 12, ..unsized_ };
    shapes[kind::STRUCT] = Shape { member: 12, named: true, ..sized };
    shapes[kind::UNION] = Shape { member: 12, named: true, ..sized };
    shapes[kind::ENUM] = Shape { member: 8, named: true, ..sized };
    shapes[kind::TYPEDEF] = Shape { named: true, ..refers };
    shapes[kind::FUNC] = Shape { named: true, ..refers };
    shapes[kind::FUNC_PROTO] = Shape { known: true, member: 8, keep_info: 0xff_ffff, ..none };
    shapes[kind::VAR] = Shape { fixed: 4, ..refers };
    shapes[kind::DATASEC] = Shape { member: 12, ..unsized_ };
    shapes[kind::FLOAT] = sized;
    shapes[kind::DECL_TAG] = Shape { fixed: 4, ..refers };
    shapes[kind::ENUM64] = Shape { member: 12, named: true, ..sized };
    shapes
};

/// The wanted names, and where they turned out to be in the string section.
struct Names {
    wanted: Vec<Vec<u8>>,
    /// Per [`print()`]: the last name that has it, plus one. Most strings are dismissed by one look here.
    heads: Box<[Name; PRINTS]>,
    /// Per name: the one before it with the same print, plus one.
    before: Vec<Name>,
    /// Offset in the string section, by name.
    at: Vec<Option<u32>>,
    left: usize,
    /// (offset, name), sorted.
    sorted: Vec<(u32, Name)>,
    /// Bloom filter over the offsets: most types are dismissed by one test.
    bloom: [u64; BLOOM / 64],
}

const BLOOM: usize = 8192;

fn bloom_bit(offset: u32) -> usize {
    (offset.wrapping_mul(0x9e37_79b1) >> 19) as usize % BLOOM
}

const PRINTS: usize = 4096;

/// A number below [`PRINTS`] that few strings share: of the length, the first bytes and the last.
#[inline]
fn print(string: &[u8]) -> usize {
    let (Some(&[a, b]), Some(&[y, z])) = (string.first_chunk(), string.last_chunk()) else { return 0 };
    let ends = u32::from_ne_bytes([a, b, y, z]) as usize ^ string.len();
    (ends.wrapping_mul(0x9e37_79b1) >> 20) % PRINTS
}

/// Index of a name in [`Names`].
type Name = u16;

impl Names {
    fn new(wanted: &Wanted) -> Self {
        let mut names = Self {
            wanted: Vec::new(),
            heads: Box::new([0; PRINTS]),
            before: Vec::new(),
            at: Vec::new(),
            left: 0,
            sorted: Vec::new(),
            bloom: [0; BLOOM / 64],
        };
        for (_, spec) in FIELDS {
            names.want(spec.of);
            names.want(spec.member);
        }
        for (_, name) in FUNCS {
            names.want(name);
        }
        for name in &wanted.functions {
            names.want(name);
        }
        for name in &wanted.tracepoints {
            names.want(&typedef_name(name));
        }
        for name in wanted.enums.iter().chain(&wanted.structs).chain(&wanted.typedefs) {
            names.want(name);
        }
        names.left = names.at.len();
        names
    }

    fn want(&mut self, name: &str) {
        let Ok(number) = Name::try_from(self.wanted.len() + 1) else { return };
        if self.of(name).is_none() {
            let head = &mut self.heads[print(name.as_bytes())];
            self.before.push(mem::replace(head, number));
            self.wanted.push(name.as_bytes().to_vec());
            self.at.push(None);
        }
    }

    /// A string of the section.
    #[inline]
    fn see(&mut self, string: &[u8], at: u64) {
        let head = self.heads[print(string)];
        if head == 0 {
            return;
        }
        let (Some(name), Ok(at)) = (self.find(head, string), u32::try_from(at)) else { return };
        if self.at[usize::from(name)].replace(at).is_none() {
            self.left -= 1;
        }
    }

    /// `string` among the names that share its print, of which `next` is the last, plus one.
    fn find(&self, mut next: Name, string: &[u8]) -> Option<Name> {
        loop {
            let name = next.checked_sub(1)?;
            if self.wanted[usize::from(name)] == string {
                return Some(name);
            }
            next = self.before[usize::from(name)];
        }
    }

    fn complete(&self) -> bool {
        self.left == 0
    }

    /// All strings were seen: make them findable by offset. What has no name passes [`Names::may_have`] too.
    fn seal(&mut self) {
        self.bloom[0] |= 1;
        for (name, at) in self.at.iter().enumerate() {
            if let (Some(at), Ok(name)) = (*at, Name::try_from(name)) {
                self.sorted.push((at, name));
                let bit = bloom_bit(at);
                self.bloom[bit / 64] |= 1 << (bit % 64);
            }
        }
        self.sorted.sort_unstable();
    }

    /// Whether the name at this offset may be a wanted one. Most are not.
    #[inline]
    fn may_have(&self, at: u32) -> bool {
        let bit = bloom_bit(at);
        self.bloom[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// The wanted name at this offset, if it is one.
    #[inline]
    fn at_offset(&self, at: u32) -> Option<Name> {
        if !self.may_have(at) {
            return None;
        }
        self.sorted.binary_search_by_key(&at, |&(at, _)| at).ok().map(|found| self.sorted[found].1)
    }

    fn of(&self, name: &str) -> Option<Name> {
        self.find(self.heads[print(name.as_bytes())], name.as_bytes())
    }
}

fn typedef_name(tracepoint: &str) -> String {
    format!("btf_trace_{tracepoint}")
}

/// What one word per type says, in its two upper bits.
const REFERS: u32 = 1 << 30;
const UNSIZED: u32 = 2 << 30;
/// A pointer to the type in the lower bits.
const POINTS: u32 = 3 << 30;
const VALUE: u32 = REFERS - 1;

/// Bytes of a pointer.
const POINTER: u32 = 8;

/// A member with a wanted name, of a wanted or anonymous struct or union.
struct Member {
    owner: u32,
    name: Name,
    bits: u32,
    bitfield: bool,
    ty: u32,
}

/// An anonymous member that may contain wanted ones.
struct Nested {
    owner: u32,
    bits: u32,
    ty: u32,
}

struct Pass {
    names: Names,
    /// Per type id: its size, what it refers to, or (`FUNC_PROTO`) its number of arguments.
    types: Vec<u32>,
    members: Vec<Member>,
    nested: Vec<Nested>,
    structs: Vec<(Name, u32)>,
    funcs: Vec<(Name, u32)>,
    typedefs: Vec<(Name, u32)>,
    /// The first enum of a wanted name: values, and where their names are.
    enums: HashMap<Name, Vec<(u32, u32)>>,
    layout: Layout,
}

impl Pass {
    fn new(names: Names) -> Self {
        let mut types = Vec::with_capacity(160_000);
        types.push(UNSIZED); // id 0: void
        Self {
            names,
            types,
            members: Vec::new(),
            nested: Vec::new(),
            structs: Vec::new(),
            funcs: Vec::new(),
            typedefs: Vec::new(),
            enums: HashMap::new(),
            layout: Layout(HashMap::new()),
        }
    }

    /// A type whose name may be a wanted one, or which has none; and its members.
    fn see(&mut self, id: u32, info: u32, name_at: u32, members: &[u8]) {
        let name = self.names.at_offset(name_at);
        match (kind_of(info), name) {
            (kind::STRUCT | kind::UNION, Some(name)) => {
                self.structs.push((name, id));
                self.see_members(id, members, info >> 31 != 0);
            }
            (kind::STRUCT | kind::UNION, None) if name_at == 0 => {
                self.see_members(id, members, info >> 31 != 0);
            }
            (kind::FUNC, Some(name)) => self.funcs.push((name, id)),
            (kind::TYPEDEF, Some(name)) => self.typedefs.push((name, id)),
            (kind @ (kind::ENUM | kind::ENUM64), Some(name)) => {
                // A name and a value; the upper half of a long value is beyond what probes are told.
                let size = if kind == kind::ENUM { 8 } else { 12 };
                let members = members.chunks_exact(size).map(|member| (u32_at(member, 4), u32_at(member, 0)));
                self.enums.entry(name).or_insert_with(|| members.collect());
            }
            (kind::ENUM, None) if name_at == 0 => {
                for member in members.as_chunks::<8>().0 {
                    let Some(name) = self.names.at_offset(u32_at(member, 0)) else { continue };
                    let all = members.as_chunks::<8>().0.iter();
                    let all = all.map(|member| (u32_at(member, 4), u32_at(member, 0)));
                    self.enums.entry(name).or_insert_with(|| all.collect());
                }
            }
            _ => {}
        }
    }

    fn see_members(&mut self, owner: u32, members: &[u8], has_bitfields: bool) {
        for member in members.as_chunks::<12>().0 {
            let [name_at, ty, offset] = words(member);
            let (bits, bitfield) =
                if has_bitfields { (offset & 0xff_ffff, offset >> 24 != 0) } else { (offset, false) };
            if name_at == 0 {
                self.nested.push(Nested { owner, bits, ty });
            } else if let Some(name) = self.names.at_offset(name_at) {
                self.members.push(Member { owner, name, bits, bitfield, ty });
            }
        }
    }

    /// `string` is asked for the names of enum members.
    fn finish(mut self, wanted: &Wanted, string: impl Fn(u32) -> Result<String>) -> Result<Kernel> {
        self.members.sort_by_key(|member| member.owner);
        self.nested.sort_by_key(|nested| nested.owner);
        let mut kernel = Kernel {
            offsets: [MISSING; FIELD_COUNT],
            owners: [0; FIELD_COUNT],
            refused: HashMap::new(),
            arities: [0; FUNC_COUNT],
            functions: HashMap::new(),
            tracepoints: HashMap::new(),
            enums: HashMap::new(),
            structs: HashSet::new(),
            typedefs: HashSet::new(),
        };
        for (index, (_, spec)) in FIELDS.iter().enumerate() {
            match self.field_offset(spec.of, spec.member, u32::from(spec.bytes)) {
                Ok(Some((offset, owner))) => {
                    kernel.offsets[index] = offset;
                    kernel.owners[index] = owner;
                }
                Ok(None) => {}
                Err(why) => {
                    kernel.refused.insert(index, format!("{why:#}"));
                }
            }
        }
        for (index, (_, name)) in FUNCS.iter().enumerate() {
            kernel.arities[index] = self.func_arity(name).unwrap_or(0);
        }
        for name in &wanted.functions {
            if let Some(id) = self.names.of(name).and_then(|name| only(&self.funcs, name)) {
                kernel.functions.insert(name.clone(), id);
            }
        }
        for name in &wanted.tracepoints {
            if let Some(id) = self.names.of(&typedef_name(name)).and_then(|name| only(&self.typedefs, name)) {
                kernel.tracepoints.insert(name.clone(), id);
            }
        }
        for name in &wanted.enums {
            let Some(members) = self.names.of(name).and_then(|name| self.enums.get(&name)) else { continue };
            let members: Result<_> = members.iter().map(|&(value, at)| Ok((value, string(at)?))).collect();
            kernel.enums.insert(name.clone(), members?);
        }
        for name in &wanted.structs {
            let id = self.names.of(name);
            if self.structs.iter().any(|&(found, _)| Some(found) == id) {
                kernel.structs.insert(name.clone());
            }
        }
        for name in &wanted.typedefs {
            let id = self.names.of(name);
            if self.typedefs.iter().any(|&(found, _)| Some(found) == id) {
                kernel.typedefs.insert(name.clone());
            }
        }
        Ok(kernel)
    }

    /// Offset in bytes, and the id of the struct; `None` if no struct of this name has such a member.
    fn field_offset(&self, of: &str, member: &str, bytes: u32) -> Result<Option<(u16, u32)>> {
        let (Some(of), Some(name)) = (self.names.of(of), self.names.of(member)) else { return Ok(None) };
        let mut found: Option<(u16, u32)> = None;
        for &(_, id) in self.structs.iter().filter(|&&(name, _)| name == of) {
            let Some((bits, found_member)) = self.find(id, name, 0, 0) else { continue };
            if bytes == u32::from(BIT) {
                ensure!(found_member.bitfield, "field {member} is no bit-field");
                let offset = u16::try_from(bits).ok().filter(|&offset| offset != MISSING);
                let offset = offset.with_context(|| format!("field {member} lies too far out"))?;
                ensure!(found.is_none_or(|(known, _)| known == offset), "field {member} is ambiguous");
                found = Some((offset, found.map_or(id, |(_, first)| first)));
                continue;
            }
            let low_bits = bytes == u32::from(LOW_BITS);
            ensure!((low_bits || !found_member.bitfield) && bits % 8 == 0, "field {member} is a bit-field");
            let bytes = if low_bits { 1 } else { bytes };
            let size = self.size_of(found_member.ty);
            ensure!(
                bytes == 0 || size == Some(bytes),
                "field {member} has {} bytes instead of {bytes}",
                size.map_or_else(|| "unknown".to_owned(), |size| size.to_string())
            );
            let offset = u16::try_from(bits / 8).ok().filter(|&offset| offset != MISSING);
            let offset = offset.with_context(|| format!("field {member} lies too far out"))?;
            ensure!(found.is_none_or(|(known, _)| known == offset), "field {member} is ambiguous");
            found = Some((offset, found.map_or(id, |(_, first)| first)));
        }
        Ok(found)
    }

    /// `name` in the struct or union `owner` or in an anonymous one inside of it; and its bits from the start, which
    /// 32 bits do not hold if the BTF lies.
    fn find(&self, owner: u32, name: Name, base: u64, depth: u32) -> Option<(u64, &Member)> {
        let start = self.members.partition_point(|member| member.owner < owner);
        let own = self.members[start..].iter().take_while(|member| member.owner == owner);
        for member in own {
            if member.name == name {
                return Some((base + u64::from(member.bits), member));
            }
        }
        if depth == 8 {
            return None;
        }
        let start = self.nested.partition_point(|nested| nested.owner < owner);
        self.nested[start..]
            .iter()
            .take_while(|nested| nested.owner == owner)
            .find_map(|nested| self.find(nested.ty, name, base + u64::from(nested.bits), depth + 1))
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..16 {
            let word = *self.types.get(id as usize)?;
            if word & !VALUE != REFERS {
                return Some(word);
            }
            id = word & VALUE;
        }
        None
    }

    fn size_of(&self, id: u32) -> Option<u32> {
        match self.resolve(id)? {
            word if word & !VALUE == POINTS => Some(POINTER),
            word => (word & UNSIZED == 0).then_some(word),
        }
    }

    /// How many arguments a function has, or a tracepoint by the name of its typedef.
    fn func_arity(&self, name: &str) -> Option<u8> {
        let name = self.names.of(name)?;
        // FUNC refers to its FUNC_PROTO, whose word is the number of arguments.
        if let Some(id) = only(&self.funcs, name) {
            return u8::try_from(self.resolve(id)?).ok();
        }
        // A pointer to such a function, whose first argument is the tracepoint's own.
        let pointer = self.resolve(only(&self.typedefs, name)?).filter(|word| word & !VALUE == POINTS)?;
        u8::try_from(self.resolve(pointer & VALUE)?.checked_sub(1)?).ok()
    }
}

/// The one id of this name; none if there are several (static functions that share a name).
fn only(found: &[(Name, u32)], wanted: Name) -> Option<u32> {
    let mut ids = found.iter().filter(|&&(name, _)| name == wanted).map(|&(_, id)| id);
    let first = ids.next()?;
    ids.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings and types of a small BTF. `LONG` does not fit a block.
    struct Blob {
        strings: Vec<u8>,
        types: Vec<u32>,
        layout: Vec<u8>,
    }

    impl Blob {
        fn new() -> Self {
            Self { strings: vec![0], types: Vec::new(), layout: Vec::new() }
        }

        fn name(&mut self, name: &str) -> u32 {
            let at = self.strings.len();
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            u32::try_from(at).unwrap()
        }

        fn add(&mut self, name: &str, info: u32, rest: &[u32]) {
            let name = if name.is_empty() { 0 } else { self.name(name) };
            self.types.extend([name, info]);
            self.types.extend(rest);
        }

        fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (u32::try_from(4 * self.types.len()), u32::try_from(self.strings.len()));
            let (types, strings) = (types.unwrap(), strings.unwrap());
            let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
            bytes.extend([1, 0]);
            let layout = u32::try_from(self.layout.len()).unwrap();
            let (short, long) = ([24, 0, types, types, strings], [32, 0, types, types, strings]);
            let header =
                if layout == 0 { &short[..] } else { &[&long[..], &[types + strings, layout]].concat() };
            for word in header.iter().chain(&self.types) {
                bytes.extend(u32::to_ne_bytes(*word));
            }
            bytes.extend(&self.strings);
            bytes.extend(&self.layout);
            bytes
        }
    }

    fn info(kind: usize, members: u32) -> u32 {
        u32::try_from(kind << 24).unwrap() | members
    }

    /// `struct sock_common` of which `skc_family` lies 16 bytes into an anonymous union at 8.
    fn sample() -> Vec<u8> {
        let mut blob = Blob::new();
        let family = blob.name("skc_family");
        blob.add("unsigned short", info(kind::INT, 0), &[2, 16]); // 1
        blob.add("", info(kind::UNION, 1), &[24, family, 1, 16 * 8]); // 2
        blob.add("sock_common", info(kind::STRUCT, 1), &[136, 0, 2, 8 * 8]); // 3
        blob.add("", info(kind::PTR, 0), &[3]); // 4
        blob.add("", info(kind::FUNC_PROTO, 2), &[1, 0, 4, 0, 4]); // 5
        blob.add("tcp_v4_connect", info(kind::FUNC, 1), &[5]); // 6
        blob.add(&"x".repeat(200), info(kind::FUNC, 1), &[5]); // 7
        blob.add("twice", info(kind::FUNC, 0), &[5]); // 8
        blob.types.extend([blob.types[blob.types.len() - 3], info(kind::FUNC, 0), 5]); // 9
        blob.add("btf_trace_net_dev_queue", info(kind::TYPEDEF, 0), &[4]); // 10
        blob.add("", info(kind::PTR, 0), &[12]); // 11
        blob.add("", info(kind::FUNC_PROTO, 3), &[0, 0, 4, 0, 4, 0, 4]); // 12
        blob.add("btf_trace_tcp_retransmit_skb", info(kind::TYPEDEF, 0), &[11]); // 13
        let pointer = blob.name("sk_socket");
        blob.add("sock", info(kind::STRUCT, 1), &[8, pointer, 4, 64]); // 14
        let reasons = [blob.name("SKB_NOT_DROPPED_YET"), 0, blob.name("SKB_DROP_REASON_NO_SOCKET"), 3];
        blob.add("skb_drop_reason", info(kind::ENUM, 2), &[&[4], &reasons[..]].concat()); // 15
        blob.bytes()
    }

    fn wanted() -> Wanted {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Wanted {
            functions: owned(&["tcp_v4_connect", "twice", "missing"]),
            tracepoints: owned(&["net_dev_queue"]),
            enums: owned(&["skb_drop_reason", "no_such_enum"]),
            structs: owned(&["sock", "bpf_no_such"]),
            typedefs: owned(&["btf_trace_net_dev_queue", "sock", "no_such_type"]),
        }
    }

    fn read_whole(bytes: &[u8]) -> Result<Kernel> {
        whole(bytes, Pass::new(Names::new(&wanted())), &wanted())
    }

    #[test]
    fn finds_fields_in_anonymous_unions_and_ids_of_unique_names() {
        let kernel = read_whole(&sample()).unwrap();
        assert_eq!(kernel.offsets()[Field::SkFamily as usize], 24);
        assert_eq!(kernel.owners()[Field::SkFamily as usize], 3);
        assert_eq!(kernel.offsets()[Field::SkState as usize], MISSING);
        assert_eq!(kernel.owners()[Field::SkState as usize], 0);
        assert_eq!(kernel.offsets()[Field::SkSocket as usize], 8);
        assert_eq!(kernel.function("tcp_v4_connect"), Some(6));
        assert_eq!(kernel.function("twice"), None);
        assert_eq!(kernel.function("missing"), None);
        assert_eq!(kernel.tracepoint("net_dev_queue"), Some(10));
        let reasons = [(0, "SKB_NOT_DROPPED_YET".to_owned()), (3, "SKB_DROP_REASON_NO_SOCKET".to_owned())];
        assert_eq!(kernel.members_of("skb_drop_reason"), reasons);
        assert!(kernel.members_of("no_such_enum").is_empty() && kernel.members_of("sock").is_empty());
        assert!(kernel.has_struct("sock") && !kernel.has_struct("bpf_no_such"));
        assert!(kernel.has_typedef("btf_trace_net_dev_queue"));
        assert!(!kernel.has_typedef("sock") && !kernel.has_typedef("no_such_type"));
        assert!(kernel.fits(Some((Func::TcpRetransmitSkb, 2))));
        assert!(!kernel.fits(Some((Func::TcpRetransmitSkb, 3))));
    }

    #[test]
    fn offsets_that_add_up_to_more_than_32_bits_are_refused() {
        // Found by the fuzz target.
        let mut blob = Blob::new();
        let family = blob.name("skc_family");
        blob.add("unsigned short", info(kind::INT, 0), &[2, 16]); // 1
        blob.add("", info(kind::UNION, 1), &[24, family, 1, 16]); // 2
        blob.add("sock_common", info(kind::STRUCT, 1), &[136, 0, 2, u32::MAX - 7]); // 3
        let error = read_whole(&blob.bytes()).unwrap().require(Field::SkFamily).unwrap_err();
        assert!(error.to_string().ends_with("lies too far out"), "{error}");
    }

    #[test]
    fn a_blob_that_is_cut_short_is_an_error() {
        let bytes = sample();
        for len in [0, 23, 24, 100, bytes.len() - 1] {
            read_whole(&bytes[..len]).unwrap_err();
        }
    }

    #[test]
    fn a_type_that_is_cut_short_or_unknown_is_an_error() {
        let mut blob = Blob::new();
        blob.add("cut", info(kind::STRUCT, 2), &[8, 0, 0, 0]);
        read_whole(&blob.bytes()).unwrap_err();
        let mut blob = Blob::new();
        blob.add("new", info(31, 0), &[8]);
        let error = read_whole(&blob.bytes()).unwrap_err();
        assert_eq!(error.to_string(), "BTF kind 31 is unknown, and its size is not told");
    }

    #[test]
    fn a_kind_that_is_unknown_is_skipped_by_its_size() {
        for (kind, fixed, member) in [(20, 0, 0), (20, 8, 0), (31, 4, 12), (77, 0, 255)] {
            let mut blob = Blob::new();
            let (family, state) = (blob.name("skc_family"), blob.name("skc_state"));
            let words = (usize::from(fixed) + 4 * usize::from(member)) / 4;
            blob.add("unsigned short", info(kind::INT, 0), &[2, 16]); // 1
            blob.add("new", info(kind, 4), &[&[1][..], &vec![u32::MAX; words]].concat()); // 2
            blob.add("sock_common", info(kind::STRUCT, 2), &[136, family, 1, 64, state, 2, 128]); // 3
            blob.layout = vec![0; 4 * (kind + 1)];
            blob.layout[4 * kind..].copy_from_slice(&[fixed, member, 0, 0]);
            let bytes = blob.bytes();
            let path = std::env::temp_dir().join(format!("netbcc-btf-{}", std::process::id()));
            std::fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let mut pass = Pass::new(Names::new(&wanted()));
            let header = streamed(&file, &mut pass).unwrap();
            let pieces = pass.finish(&wanted(), |at| header.string_of(&file, at)).unwrap();
            for kernel in [read_whole(&bytes).unwrap(), pieces] {
                assert_eq!(kernel.offsets()[Field::SkFamily as usize], 8);
                // A member of that kind has no size that anybody knows.
                let error = kernel.require(Field::SkState).unwrap_err().to_string();
                assert!(error.contains("skc_state has unknown bytes"), "{error}");
            }
        }
    }

    #[test]
    fn every_zero_byte_is_found() {
        for at in 0..64 {
            let mut block = [1_u8, 0x80, 0xff, 0x7f].repeat(16);
            block[at] = 0;
            assert_eq!(zeros(block.first_chunk().unwrap()), 1 << at);
        }
        assert_eq!(zeros(&[0; 64]), u64::MAX);
    }

    #[test]
    fn a_file_in_pieces_says_the_same_as_the_whole() {
        // Needs BTF in the running kernel.
        let Ok(bytes) = std::fs::read(VMLINUX) else { return };
        let mut pass = Pass::new(Names::new(&wanted()));
        let file = File::open(VMLINUX).unwrap();
        let header = streamed(&file, &mut pass).unwrap();
        let pieces = pass.finish(&wanted(), |at| header.string_of(&file, at)).unwrap();
        let whole = read_whole(&bytes).unwrap();
        assert_eq!(format!("{:?}", pieces.offsets), format!("{:?}", whole.offsets));
        assert_eq!(format!("{:?}", pieces.owners), format!("{:?}", whole.owners));
        assert_eq!(pieces.arities, whole.arities);
        assert_eq!(pieces.functions, whole.functions);
        assert_eq!(pieces.tracepoints, whole.tracepoints);
        assert_eq!(pieces.enums, whole.enums);
        assert!(whole.function("tcp_v4_connect").is_some());
    }
}
