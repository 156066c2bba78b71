//! A C library of the tests' own: an ELF file with getaddrinfo(), gethostbyname() and gethostbyname2(), which do what the test
//! says. A peer maps the file and calls the functions, so that nothing outside is asked, and a guest needs no C library.
#![expect(unsafe_code, reason = "code from a file is mapped and called")]

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr;

use nix::libc;

/// Its functions, in their order.
pub const FUNCTIONS: [&str; 3] = ["getaddrinfo", "gethostbyname", "gethostbyname2"];

/// Where the first one begins, and how far the next one is.
const FIRST: usize = 0x400;
const STEP: usize = 0x40;
/// One page.
const BYTES: usize = 0x1000;

/// Calls what the fourth argument points to, with the first arguments as they are, and answers what that answers.
const CODE: &[u8] = if cfg!(target_arch = "aarch64") {
    // stp x29, x30, [sp, #-16]!; mov x29, sp; blr x3; ldp x29, x30, [sp], #16; ret
    b"\xfd\x7b\xbf\xa9\xfd\x03\x00\x91\x60\x00\x3f\xd6\xfd\x7b\xc1\xa8\xc0\x03\x5f\xd6"
} else {
    // sub $8, %rsp; call *%rcx; add $8, %rsp; ret
    b"\x48\x83\xec\x08\xff\xd1\x48\x83\xc4\x08\xc3"
};

/// Writes the library to `path`, with these of its functions.
pub fn write(path: &Path, functions: &[&str]) -> io::Result<()> {
    fs::write(path, bytes(functions, SHT_DYNSYM))
}

/// Writes a file as that of a static program to `path`: its functions are for debuggers only.
pub fn write_program(path: &Path, functions: &[&str]) -> io::Result<()> {
    fs::write(path, bytes(functions, SHT_SYMTAB))
}

/// Types of sections (`elf.h`).
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;

/// The bytes of an ELF file for this machine: a header, a segment, three sections, symbols of this type and their names, code.
fn bytes(functions: &[&str], symbol_type: u32) -> Vec<u8> {
    const SECTIONS: usize = 0x100;
    const SYMBOLS: usize = 0x200;
    const NAMES: usize = 0x300;
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut names = vec![0];
    // struct Elf64_Sym: name, info and other, section, value, size.
    let mut symbols = vec![0; 24];
    for (nth, name) in FUNCTIONS.iter().enumerate().filter(|(_, name)| functions.contains(name)) {
        symbols.extend(u32::try_from(names.len()).expect("they are short").to_le_bytes());
        // A function that others may use, in the third section.
        symbols.extend([0x12, 0, 3, 0]);
        symbols.extend(((FIRST + nth * STEP) as u64).to_le_bytes());
        symbols.extend((CODE.len() as u64).to_le_bytes());
        names.extend(name.bytes().chain([0]));
    }
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut file = vec![0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x10, &[3_u16, machine].map(u16::to_le_bytes).concat());
    put(0x14, &1_u32.to_le_bytes());
    put(0x20, &words(&[0x40, SECTIONS as u64]));
    // Sections have no names: those of symbols begin with an empty one.
    put(0x34, &[0x40_u16, 56, 1, 64, 4, 2].map(u16::to_le_bytes).concat());
    // struct Elf64_Phdr: PT_LOAD, to be read and run, all of the file.
    put(0x40, &words(&[pair(1, 5), 0, 0, 0, BYTES as u64, BYTES as u64, BYTES as u64]));
    // struct Elf64_Shdr: symbols, whose names are in section 2; SHT_STRTAB; SHT_PROGBITS.
    let symbol_bytes = symbols.len() as u64;
    put(
        SECTIONS + 64,
        &words(&[pair(0, symbol_type), 2, SYMBOLS as u64, SYMBOLS as u64, symbol_bytes, pair(2, 1), 8, 24]),
    );
    put(SECTIONS + 128, &words(&[pair(0, 3), 2, NAMES as u64, NAMES as u64, names.len() as u64, 0, 1, 0]));
    let code_bytes = (STEP * FUNCTIONS.len()) as u64;
    put(SECTIONS + 192, &words(&[pair(0, 1), 6, FIRST as u64, FIRST as u64, code_bytes, 0, 16, 0]));
    put(SYMBOLS, &symbols);
    put(NAMES, &names);
    for nth in 0..FUNCTIONS.len() {
        put(FIRST + nth * STEP, CODE);
    }
    file
}

/// The library in this process's memory.
pub(crate) struct Library(*mut c_void);

/// A name that is looked up, in memory.
pub(crate) struct Name(*const u8);

// SAFETY: the pointers are to memory that stays, and that nobody writes to.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}
// SAFETY: as above.
unsafe impl Send for Name {}
// SAFETY: as above.
unsafe impl Sync for Name {}

/// Maps the first page of a file.
fn map(path: &Path, rights: libc::c_int) -> io::Result<*mut c_void> {
    let file = File::open(path)?;
    // SAFETY: a new mapping, wherever the kernel likes; nothing of ours is replaced.
    let at = unsafe { libc::mmap(ptr::null_mut(), BYTES, rights, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
}

impl Library {
    /// Maps the file at `path`, which [`write`] made.
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        map(path, libc::PROT_READ | libc::PROT_EXEC).map(Self)
    }

    /// Calls one of the functions, which does what `within` does, and answers what it answers.
    pub(crate) fn call(&self, function: &str, name: &Name, within: &mut dyn FnMut() -> isize) -> isize {
        type Within<'w> = &'w mut dyn FnMut() -> isize;
        type Function = unsafe extern "C" fn(
            *const u8,
            *mut c_void,
            usize,
            unsafe extern "C" fn(*const u8, *mut c_void) -> isize,
        ) -> isize;
        unsafe extern "C" fn inner(_name: *const u8, within: *mut c_void) -> isize {
            // SAFETY: `call` handed it over, and waits.
            unsafe { (*within.cast::<Within<'_>>())() }
        }
        let nth = FUNCTIONS.iter().position(|known| *known == function).expect("it is one of them");
        let mut within: Within<'_> = within;
        // SAFETY: code of this type lies there, and calls its fourth argument with the first two.
        unsafe {
            let code = self.0.byte_add(FIRST + nth * STEP);
            let function: Function = std::mem::transmute(code);
            function(name.0, (&raw mut within).cast(), 0, inner)
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: mapped by us, with this length; no call is under way.
        let _always_there = unsafe { libc::munmap(self.0, BYTES) };
    }
}

impl Name {
    /// In memory, for good.
    pub(crate) fn new(name: &[u8]) -> Self {
        Self([name, b"\0"].concat().leak().as_ptr())
    }

    /// No name.
    pub(crate) fn null() -> Self {
        Self(ptr::null())
    }

    /// Where nothing is mapped.
    pub(crate) fn nowhere() -> Self {
        Self(ptr::without_provenance(0x1000))
    }

    /// In a file that is mapped, and of which nothing was read.
    pub(crate) fn in_file(path: &Path) -> io::Result<Self> {
        map(path, libc::PROT_READ).map(|at| Self(at.cast_const().cast()))
    }

    /// Reads its first byte.
    pub(crate) fn touch(&self) {
        // SAFETY: it is mapped, and nobody writes to it.
        let _first = unsafe { self.0.read_volatile() };
    }
}

/// Ends this thread, and nothing that it has on its stack.
pub(crate) fn end_thread() -> ! {
    // SAFETY: no addresses. Nobody waits for what the thread would have answered.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("it has ended");
}
