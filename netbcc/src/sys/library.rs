//! Files of programs, and where functions begin in them: C libraries that processes have mapped, or that lie where programs of
//! their mount namespaces find them.
//!
//! Nothing in such a file is trusted: who runs a container writes its C library. It is read as a whole, up to a limit, so that it
//! cannot change while it is looked at, and kept open, so that what is hooked is what was looked at. Anybody can call any number of
//! files so, of any size: the search has limits for all files together, and a signal ends it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use elf::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PF_X, PT_LOAD, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC};
use elf::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use elf::{Endianness, SectionIndex};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;

use super::machine;

/// What this machine's programs are made for.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };
/// Where Debian and its kin keep libraries of this machine.
const MULTIARCH: &str = if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };
/// The C library of musl, which is its loader as well.
const MUSL: &str = if cfg!(target_arch = "aarch64") { "ld-musl-aarch64.so.1" } else { "ld-musl-x86_64.so.1" };

/// A larger file is no C library.
const MOST_BYTES: u64 = 64 << 20;
/// So many files are looked for at most: each costs a few descriptors.
pub const MOST_FILES: usize = 256;
/// A search reads so many bytes of files at most: what [`MOST_FILES`] of glibc's take is half of that.
const MOST_BYTES_IN_ALL: u64 = 1 << 30;
/// A search opens so many different files at most, and so many that one process has mapped: it has one C library.
const MOST_OPENED: usize = 4096;
const MOST_OF_PROCESS: usize = 64;
/// A library has each of its functions a few times at most, as versions of it.
const MOST_PLACES: usize = 16;
/// What tells a program's file: `struct Elf64_Ehdr`.
const HEADER_BYTES: usize = 64;

/// A file that has some of the functions that are asked for.
#[derive(Debug)]
pub struct Library {
    /// Its path, as its processes name it.
    pub path: PathBuf,
    /// The file.
    pub file: File,
    /// Where its functions begin, in bytes from its start.
    pub functions: Vec<(&'static str, u64)>,
}

impl Library {
    /// Where this function begins; several places, if the file has several of the name.
    pub fn places<'l>(&'l self, function: &'l str) -> impl Iterator<Item = u64> + 'l {
        self.functions.iter().filter(move |(name, _)| *name == function).map(|(_, offset)| *offset)
    }

    /// Opens the file at `path`. A program without a shared C library may have the functions, too, if its symbols were not
    /// stripped.
    ///
    /// # Errors
    /// One sentence: it cannot be read, or has none of the `functions`.
    pub fn open(path: &Path, functions: &[&'static str]) -> Result<Self, String> {
        // A named pipe would have us wait.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let mut file = file.map_err(|error| error.to_string())?;
        let bytes = Begun::of(&mut file)?.read(&mut file)?;
        let functions = functions_of(&bytes, functions, &[SHT_DYNSYM, SHT_SYMTAB])?;
        Ok(Self { path: path.to_owned(), file, functions })
    }
}

/// All that were found.
#[derive(Debug, Default)]
pub struct Found {
    /// The files.
    pub libraries: Vec<Library>,
    /// Paths of those that cannot be hooked, each with the reason.
    pub unfit: BTreeMap<PathBuf, String>,
    /// How many more there are than [`MOST_FILES`].
    pub left_out: usize,
    /// How many files are called like C libraries and were not looked at, because there are too many, or they are too large
    /// together.
    pub not_looked_at: usize,
    /// Whether it was told to end before it was through.
    pub ended: bool,
}

/// Looks for the C libraries of all processes that we may look at, and for those in their mount namespaces. Of those, the ones
/// count that have the first of these `functions`. It ends when `ends` says so, which is asked for each process and each file.
///
/// # Errors
/// This process, or the machine, may not open more files.
pub fn search(functions: &[&'static str], ends: &dyn Fn() -> bool) -> io::Result<Found> {
    machine::raise_open_files();
    let mut search = Search {
        functions,
        ends,
        bytes_left: MOST_BYTES_IN_ALL,
        found: Found::default(),
        files: HashSet::new(),
        mapped: HashSet::new(),
        full: None,
        roots: HashSet::new(),
    };
    // Ours first: we may always look there.
    search.look_in(Path::new("/"));
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = numbers.map(|entry| entry.path()).filter(|path| is_number(path));
    for process in folders {
        if search.is_to_end() {
            break;
        }
        search.process(&process);
    }
    search.full.map_or(Ok(search.found), Err)
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit))
}

struct Search<'f> {
    functions: &'f [&'static str],
    ends: &'f dyn Fn() -> bool,
    /// How many bytes may yet be read.
    bytes_left: u64,
    found: Found,
    /// Devices and inode numbers of files that were opened, as stat(2) and /proc tell them.
    files: HashSet<(u64, u64)>,
    mapped: HashSet<(Vec<u8>, u64)>,
    /// Why no more files could be opened.
    full: Option<io::Error>,
    /// Roots that were looked at: of a mount namespace, by its number, and device and inode of the folder.
    roots: HashSet<(u64, u64, u64)>,
}

impl Search<'_> {
    /// What this process has mapped, and what lies where programs beside it find their libraries.
    fn process(&mut self, folder: &Path) {
        let root = folder.join("root");
        let space = fs::metadata(folder.join("ns/mnt")).map(|space| space.ino());
        // Who ends meanwhile, or is not ours to look at, has nothing.
        if let (Ok(space), Ok(place)) = (space, fs::metadata(&root))
            && self.roots.insert((space, place.dev(), place.ino()))
        {
            self.look_in(&root);
        }
        let Ok(maps) = fs::read(folder.join("maps")) else { return };
        let mut tried = HashSet::new();
        for mapping in maps.split(|&byte| byte == b'\n').filter_map(Mapping::parse) {
            let place = (mapping.device.to_vec(), mapping.inode);
            if !is_c_library(mapping.path) || self.mapped.contains(&place) || !tried.insert(place.clone()) {
                continue;
            }
            if tried.len() > MOST_OF_PROCESS {
                self.found.not_looked_at += 1;
                continue;
            }
            let path = mapping.path.strip_suffix(b" (deleted)").unwrap_or(mapping.path);
            let path = Path::new(OsStr::from_bytes(path));
            // The file itself, also one whose name is another's by now; that takes more power than the other way.
            let range = OsStr::from_bytes(mapping.range);
            let opened = open_quietly(&folder.join("map_files").join(range));
            let Some(file) = self.opened(opened.or_else(|_| open_in(&root, path))) else {
                // Another process may have it still when this one has ended.
                continue;
            };
            self.mapped.insert(place);
            if let Err(why) = self.look_at(path, file)
                // What anybody may put there is not kept without end.
                && self.found.unfit.len() < MOST_FILES
            {
                self.found.unfit.insert(path.to_owned(), why);
            }
        }
    }

    /// Whether it was told to end, or can open no more files.
    fn is_to_end(&mut self) -> bool {
        self.found.ended = self.found.ended || (self.ends)();
        self.found.ended || self.full.is_some()
    }

    /// The C libraries at their usual places below this root.
    fn look_in(&mut self, root: &Path) {
        for folder in ["lib", "usr/lib", "lib64", "usr/lib64"] {
            for within in ["", MULTIARCH] {
                for name in ["libc.so.6", MUSL, "libc.so"] {
                    let path = Path::new("/").join(folder).join(within).join(name);
                    if let Some(file) = self.opened(open_in(root, &path)) {
                        // What is called so and is none, as a script for linkers, is of no interest.
                        let _may_be_none = self.look_at(&path, file);
                    }
                }
            }
        }
    }

    /// The file, if it could be opened.
    fn opened(&mut self, file: io::Result<File>) -> Option<File> {
        match file {
            Ok(file) => Some(file),
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    self.full = Some(error);
                }
                None
            }
        }
    }

    /// Keeps the file if it is a C library; else says why it is none.
    fn look_at(&mut self, path: &Path, mut file: File) -> Result<(), String> {
        let Ok(known) = file.metadata() else { return Ok(()) };
        let place = (known.dev(), known.ino());
        if self.files.contains(&place) {
            return Ok(());
        }
        if self.files.len() >= MOST_OPENED {
            self.found.not_looked_at += 1;
            return Err("too many files are called like C libraries".to_owned());
        }
        self.files.insert(place);
        let begun = Begun::of(&mut file)?;
        if self.is_to_end() {
            return Ok(());
        }
        let Some(left) = self.bytes_left.checked_sub(begun.file_bytes) else {
            self.found.not_looked_at += 1;
            return Err("files that are called like C libraries are too large together".to_owned());
        };
        self.bytes_left = left;
        let functions = functions_of(&begun.read(&mut file)?, self.functions, &[SHT_DYNSYM])?;
        if functions.iter().all(|(name, _)| Some(name) != self.functions.first()) {
            return Err(format!("it has no {}", self.functions.first().unwrap_or(&"")));
        }
        if self.found.libraries.len() >= MOST_FILES {
            self.found.left_out += 1;
        } else {
            self.found.libraries.push(Library { path: path.to_owned(), file, functions });
        }
        Ok(())
    }
}

/// An executable mapping of a file, as a line of /proc/PID/maps tells it.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'l> {
    range: &'l [u8],
    device: &'l [u8],
    inode: u64,
    path: &'l [u8],
}

impl<'l> Mapping<'l> {
    fn parse(line: &'l [u8]) -> Option<Self> {
        // The path is all behind the blanks after the inode, and may have blanks of its own.
        let (range, rest) = word(line)?;
        let (rights, rest) = word(rest)?;
        let (_offset, rest) = word(rest)?;
        let (device, rest) = word(rest)?;
        let (inode, rest) = word(rest)?;
        let inode = str::from_utf8(inode).ok()?.parse().ok()?;
        let path = rest.trim_ascii_start();
        (rights.get(2) == Some(&b'x') && path.first() == Some(&b'/')).then_some(Self {
            range,
            device,
            inode,
            path,
        })
    }
}

/// The first word of a line, and the rest.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|&byte| byte == b' ')?;
    Some((&line[..end], &line[end + 1..]))
}

/// Whether a file is called as C libraries are: that of GNU, of musl, of Android, or uClibc.
fn is_c_library(path: &[u8]) -> bool {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let between = |head: &[u8], tail: &[u8]| name.starts_with(head) && name.ends_with(tail);
    name == b"libc.so.6"
        || name == b"libc.so"
        || between(b"libc-2.", b".so")
        || between(b"ld-musl-", b".so.1")
        || between(b"libc.musl-", b".so.1")
        || between(b"libuClibc-", b".so")
}

/// Opens a path as a process with this root does: links lead nowhere else.
fn open_in(root: &Path, path: &Path) -> io::Result<File> {
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(folder, path, how)?.into())
}

fn open_quietly(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// A file of a sensible size that begins as a program of this machine does.
struct Begun {
    header: Vec<u8>,
    /// How large it is.
    file_bytes: u64,
}

impl Begun {
    /// Reads its first bytes.
    fn of(file: &mut File) -> Result<Self, String> {
        let known = file.metadata().map_err(|error| error.to_string())?;
        if !known.is_file() {
            return Err("it is no regular file".to_owned());
        }
        if known.len() > MOST_BYTES {
            return Err(format!("it is larger than {} MiB", MOST_BYTES >> 20));
        }
        let mut header = Vec::new();
        file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(|error| error.to_string())?;
        parse(&header)?;
        Ok(Self { header, file_bytes: known.len() })
    }

    /// All of its bytes, as many as there were when it was opened.
    fn read(self, file: &mut File) -> Result<Vec<u8>, String> {
        let mut bytes = self.header;
        let rest = self.file_bytes.saturating_sub(bytes.len() as u64);
        file.take(rest).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// The header of an ELF file for this machine, and the order of its bytes.
fn parse(bytes: &[u8]) -> Result<(&FileHeader64<Endianness>, Endianness), String> {
    let header =
        FileHeader64::<Endianness>::parse(bytes).map_err(|_| "it is no ELF file of 64 bits".to_owned())?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != MACHINE {
        return Err("it is made for another processor".to_owned());
    }
    Ok((header, endian))
}

fn broken(error: elf::read::Error) -> String {
    format!("its ELF headers are broken: {error}")
}

/// Where `functions` begin in this ELF file, by the first of these kinds of `tables` that has any of them.
fn functions_of(
    bytes: &[u8],
    functions: &[&'static str],
    tables: &[u32],
) -> Result<Vec<(&'static str, u64)>, String> {
    let (header, endian) = parse(bytes)?;
    let segments = header.program_headers(endian, bytes).map_err(broken)?;
    let sections = header.sections(endian, bytes).map_err(broken)?;
    for table in tables {
        let symbols = sections.symbols(endian, bytes, *table).map_err(broken)?;
        let mut found = BTreeSet::new();
        if symbols.section() == SectionIndex(0) {
            continue;
        }
        let names = sections.section(symbols.string_section()).map_err(broken)?;
        let names = names.data(endian, bytes).map_err(broken)?;
        let mut known = 0;
        for symbol in symbols.iter() {
            // Those that are chosen when a program starts (IFUNC) are another type.
            if symbol.st_type() != STT_FUNC || symbol.st_shndx(endian) == 0 {
                continue;
            }
            // Compared where it stands: to look for its end takes long where none is near, and millions of symbols may say so.
            let rest = usize::try_from(symbol.st_name(endian)).ok().and_then(|at| names.get(at..));
            let is =
                |name: &&&str| rest.and_then(|rest| rest.strip_prefix(name.as_bytes())?.first()) == Some(&0);
            let Some(name) = functions.iter().find(is) else { continue };
            known += 1;
            if known > MOST_PLACES {
                return Err(format!("it has {} more than {MOST_PLACES} times", functions.join(", ")));
            }
            let address = symbol.st_value(endian);
            let place = segments.iter().find_map(|segment| {
                let within = address.checked_sub(segment.p_vaddr(endian))?;
                let runs = segment.p_type(endian) == PT_LOAD && segment.p_flags(endian) & PF_X != 0;
                (runs && within < segment.p_filesz(endian)).then_some(())?;
                segment.p_offset(endian).checked_add(within)
            });
            found.extend(place.map(|place| (*name, place)));
        }
        if !found.is_empty() {
            return Ok(found.into_iter().collect());
        }
    }
    let names = functions.join(", ");
    Err(format!("it has none of the functions {names}"))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["getaddrinfo", "gethostbyname", "gethostbyname2"];

    #[test]
    fn lines_of_maps_are_read() {
        let line = b"7f00a000-7f00b000 r-xp 00026000 fe:01 1234   /lib/a b/libc.so.6 (deleted)";
        let expected = Mapping {
            range: b"7f00a000-7f00b000",
            device: b"fe:01",
            inode: 1234,
            path: b"/lib/a b/libc.so.6 (deleted)",
        };
        assert_eq!(Mapping::parse(line), Some(expected));
        for other in [
            &b"7f00a000-7f00b000 r--p 00026000 fe:01 1234   /lib/libc.so.6"[..],
            b"7f00a000-7f00b000 r-xp 00000000 00:00 0   [vdso]",
            b"7f00a000-7f00b000 r-xp 00000000 00:00 0 ",
            b"7f00a000-7f00b000 r-xp",
            b"",
        ] {
            assert_eq!(Mapping::parse(other), None);
        }
    }

    #[test]
    fn c_libraries_are_known_by_their_names() {
        for name in [
            "/lib/libc.so.6",
            "/lib/libc-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
            "/system/lib64/libc.so",
            "/lib/libuClibc-1.0.31.so",
            "/lib/libc.so.6 (deleted)",
        ] {
            assert!(is_c_library(name.as_bytes()), "{name}");
        }
        for name in ["/lib/libc.so.6/x", "/lib/libc.so.5", "/lib/libcap.so", "/lib/ld-linux-x86-64.so.2", ""]
        {
            assert!(!is_c_library(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_is_no_library_is_refused_with_its_reason() {
        let open = |path: &str| Library::open(Path::new(path), &NAMES).expect_err("it is none");
        assert!(open("/etc/passwd").contains("no ELF file"));
        assert!(open("/dev/null").contains("no regular file"));
        assert!(open("/nowhere/at/all").contains("No such file"));
    }

    #[test]
    fn this_machines_own_library_is_found_with_its_functions() {
        let found = search(&NAMES, &|| false).expect("there is room for files");
        assert!(!found.ended);
        // A machine may have no program but static ones.
        let Some(library) = found.libraries.iter().find(|library| library.path.ends_with("libc.so.6")) else {
            return;
        };
        for name in NAMES {
            assert_eq!(library.places(name).count(), 1, "{name}: {library:?}");
        }
        let places: BTreeSet<u64> = library.functions.iter().map(|(_, place)| *place).collect();
        assert_eq!(places.len(), NAMES.len());
    }

    /// A file for this machine with so many functions, whose names all begin at the same place of `names`.
    fn with_functions(count: usize, name: u32, names: &[u8]) -> Vec<u8> {
        const SECTIONS: usize = HEADER_BYTES;
        const SYMBOLS: usize = SECTIONS + 3 * 64;
        let names_at = SYMBOLS + 24 * count;
        let mut bytes = vec![0; names_at];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"\x7fELF\x02\x01\x01");
        // struct Elf64_Ehdr: type, machine, version; where the sections are, their size, their count, which has names.
        put(16, &3_u16.to_le_bytes());
        put(18, &MACHINE.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(40, &(SECTIONS as u64).to_le_bytes());
        for (at, value) in [(52, 64), (54, 56), (58, 64), (60, 3), (62, 2_u16)] {
            put(at, &value.to_le_bytes());
        }
        // struct Elf64_Shdr: type; offset, size; the section with names, and the size of an entry.
        for (nth, kind, offset, size) in [(1, SHT_DYNSYM, SYMBOLS, 24 * count), (2, 3, names_at, names.len())]
        {
            let at = SECTIONS + 64 * nth;
            put(at + 4, &kind.to_le_bytes());
            put(at + 24, &(offset as u64).to_le_bytes());
            put(at + 32, &(size as u64).to_le_bytes());
        }
        put(SECTIONS + 64 + 40, &2_u32.to_le_bytes());
        put(SECTIONS + 64 + 56, &24_u64.to_le_bytes());
        for nth in 0..count {
            // struct Elf64_Sym: name, a function, its section.
            put(SYMBOLS + 24 * nth, &name.to_le_bytes());
            put(SYMBOLS + 24 * nth + 4, &[2, 0, 1, 0]);
        }
        bytes.extend(names);
        bytes
    }

    #[test]
    fn no_file_takes_longer_than_its_size() {
        let of = |bytes: &[u8]| functions_of(bytes, &NAMES, &[SHT_DYNSYM]);
        // Each of the names has no end: to look for one, all of this would be read a quarter of a million times.
        let since = std::time::Instant::now();
        let endless = with_functions(1 << 18, 1, &vec![b'x'; 16 << 20]);
        assert!(of(&endless).unwrap_err().contains("has none of the functions"));
        assert!(since.elapsed() < std::time::Duration::from_secs(20), "{:?}", since.elapsed());
        // Each has a name that is looked for, and nobody puts a hook at so many places.
        let names = b"\0getaddrinfo\0";
        assert!(of(&with_functions(MOST_PLACES, 1, names)).unwrap_err().contains("none"), "in no segment");
        let many = of(&with_functions(MOST_PLACES + 1, 1, names)).unwrap_err();
        assert!(many.contains("more than 16 times"), "{many}");
        // The name goes on, or is cut.
        assert!(of(&with_functions(MOST_PLACES + 1, 1, b"\0getaddrinfo_a\0")).unwrap_err().contains("none"));
        assert!(of(&with_functions(MOST_PLACES + 1, 1, b"\0getaddrinfo")).unwrap_err().contains("none"));
    }

    #[test]
    fn a_search_ends_when_it_is_told_to() {
        let asked = std::cell::Cell::new(0);
        let ends = || {
            asked.set(asked.get() + 1);
            asked.get() > 1
        };
        let found = search(&NAMES, &ends).expect("there is room for files");
        // One file was looked at, at most, and nobody asks again.
        assert!(found.ended && found.libraries.len() <= 1 && asked.get() == 2, "{found:?}");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _any = functions_of(&bytes, &NAMES, &[SHT_DYNSYM, SHT_SYMTAB]);
        }

        #[test]
        fn no_change_of_a_library_makes_it_fail(at in 0_usize..1 << 16, to in any::<u8>()) {
            static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let found = search(&NAMES, &|| false).expect("there is room for files").libraries.pop();
                found.and_then(|found| fs::read(found.path).ok()).unwrap_or_default()
            });
            let mut bytes = BYTES.clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            let _any = functions_of(&bytes, &NAMES, &[SHT_DYNSYM, SHT_SYMTAB]);
        }
    }
}
