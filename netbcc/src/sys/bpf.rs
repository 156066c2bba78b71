//! `bpf(2)` and `perf_event_open(2)`, as far as netbcc needs them: one thin function per command, which takes slices
//! and descriptors and answers descriptors.
//!
//! The only `unsafe` of this crate is here: the kernel is handed addresses as numbers. Each lives in a borrowed
//! argument for as long as the call lasts, and the kernel reads or writes no more than the length beside it.
//!
//! The structs below are prefixes of `union bpf_attr` (include/uapi/linux/bpf.h), one per command. `IntoBytes`
//! proves that they have no padding; the kernel takes what lies behind them for zero. All are as old as 5.8.
#![expect(unsafe_code, reason = "the kernel is handed addresses; nowhere else in this crate")]

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use aya_obj::generated::{
    BPF_F_RDONLY_PROG, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_type,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::statfs::{SYSFS_MAGIC, fstatfs};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the kernel cuts names to, without the final NUL.
const NAME: usize = 15;

/// The kernel's ENOTSUPP, which has no name in user space.
pub const ENOTSUPP: i32 = 524;

/// A map to be created.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Its name, cut to 15 bytes.
    pub name: &'a str,
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries, or bytes of a ring.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// For map types that ask for it: a loaded BTF, and the ids of key and value in it.
    pub btf: Option<(BorrowedFd<'a>, u32, u32)>,
    /// For maps of maps: what those look like.
    pub inner: Option<BorrowedFd<'a>>,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME + 1],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

/// Creates a map.
///
/// # Errors
/// The kernel has no such map type, no memory, or does not allow it.
pub fn map_create(map: &Map<'_>) -> io::Result<OwnedFd> {
    let (btf_fd, btf_key_type_id, btf_value_type_id) =
        map.btf.map_or((0, 0, 0), |(fd, key, value)| (number(fd), key, value));
    let attr = MapCreate {
        map_type: map.map_type,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        map_flags: map.flags,
        inner_map_fd: map.inner.map_or(0, number),
        numa_node: 0,
        map_name: cut(map.name),
        map_ifindex: 0,
        btf_fd,
        btf_key_type_id,
        btf_value_type_id,
    };
    // SAFETY: no addresses; the command answers a new descriptor.
    with_memory(|| unsafe { open(bpf_cmd::BPF_MAP_CREATE, &attr) })
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MapElem {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Creates the map that holds global data: an array with `data` as its only element. With `BPF_F_RDONLY_PROG` in
/// `flags` it is frozen too: then neither side can change it, and what it holds are constants for the verifier.
///
/// # Errors
/// The kernel has no memory, or does not allow it.
pub fn data_create(name: &str, flags: u32, data: &[u8]) -> io::Result<OwnedFd> {
    let map = map_create(&Map {
        name,
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: size(data.len())?,
        max_entries: 1,
        flags,
        btf: None,
        inner: None,
    })?;
    let key = 0_u32;
    let attr = MapElem {
        map_fd: number(map.as_fd()),
        zero: 0,
        key: address(&raw const key),
        value: address(data.as_ptr()),
        flags: 0,
    };
    // SAFETY: the kernel reads a key of 4 bytes and a value of as many bytes as the map was created with.
    unsafe { call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &attr) }?;
    if flags & BPF_F_RDONLY_PROG != 0 {
        let attr = MapFreeze { map_fd: number(map.as_fd()) };
        // SAFETY: no addresses.
        unsafe { call(bpf_cmd::BPF_MAP_FREEZE, &attr) }?;
    }
    Ok(map)
}

/// A map's descriptor, and how long its keys and values are: what the kernel reads and writes of them.
#[derive(Debug)]
pub struct MapHandle {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

/// One step of reading a whole map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many entries; there may be more.
    More(usize),
    /// So many entries, and those were the last.
    End(usize),
}

#[repr(C)]
#[derive(IntoBytes, FromBytes, Immutable)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl MapHandle {
    /// `value` is the length of what one read gives: of a per-CPU map, that of all CPUs together.
    pub fn new(fd: OwnedFd, key: usize, value: usize) -> Self {
        Self { fd, key, value }
    }

    fn elem(&self, key: &[u8], value: *const u8) -> MapElem {
        // One mistake here would be the kernel's reading beyond our memory.
        assert_eq!(key.len(), self.key, "a key has this length");
        MapElem {
            map_fd: number(self.fd.as_fd()),
            zero: 0,
            key: address(key.as_ptr()),
            value: address(value),
            flags: 0,
        }
    }

    /// Reads the value of `key`; whether there is one.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        assert_eq!(value.len(), self.value, "a value has this length");
        let attr = self.elem(key, value.as_mut_ptr());
        // SAFETY: the kernel reads a key and writes a value, whose lengths were checked.
        found(unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &attr) })
    }

    /// Sets the value of `key`. The kernel reads as much as one read gives.
    ///
    /// # Errors
    /// The map is full, or the kernel does not allow it.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value, "a value has this length");
        let attr = self.elem(key, value.as_ptr());
        // SAFETY: the kernel reads a key and a value, whose lengths were checked.
        unsafe { call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &attr) }.map(drop)
    }

    /// Deletes `key`; whether it was there.
    ///
    /// # Errors
    /// The map cannot delete, or the kernel does not allow it.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        let attr = self.elem(key, ptr::null());
        // SAFETY: the kernel reads a key, whose length was checked.
        found(unsafe { call(bpf_cmd::BPF_MAP_DELETE_ELEM, &attr) })
    }

    /// Writes the key that follows `key`, or the first one; whether there is one.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        assert!(
            next.len() == self.key && key.is_none_or(|key| key.len() == self.key),
            "a key has this length"
        );
        let attr = MapElem {
            map_fd: number(self.fd.as_fd()),
            zero: 0,
            key: key.map_or(0, |key| address(key.as_ptr())),
            value: address(next.as_mut_ptr()),
            flags: 0,
        };
        // SAFETY: the kernel reads a key, unless there is none, and writes one; the lengths were checked.
        found(unsafe { call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &attr) })
    }

    /// Reads as many entries as `keys` and `values` have room for, after the place `at` or from the beginning, and
    /// writes there where it stopped. With `deletes`, what is read is deleted, too.
    ///
    /// # Errors
    /// `ENOSPC`: a bucket of the map has more entries than there is room for. `EINVAL` or `ENOTSUPP`: the kernel, or
    /// this type of map, has no such command.
    pub fn batch(
        &self,
        at: &mut [u8],
        first: bool,
        keys: &mut [u8],
        values: &mut [u8],
        deletes: bool,
    ) -> io::Result<Step> {
        // The kernel writes a key there, or a bucket's number of 4 bytes.
        assert!(at.len() >= self.key.max(4), "a place is at least as long as a key");
        let count = (keys.len() / self.key).min(values.len() / self.value);
        let mut attr = MapBatch {
            in_batch: if first { 0 } else { address(at.as_ptr()) },
            out_batch: address(at.as_mut_ptr()),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: size(count)?,
            map_fd: number(self.fd.as_fd()),
            elem_flags: 0,
            flags: 0,
        };
        let command =
            if deletes { bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_BATCH } else { bpf_cmd::BPF_MAP_LOOKUP_BATCH };
        let answer = {
            let attr = attr.as_mut_bytes();
            // SAFETY: the kernel writes how many into `attr`, which is ours, at most `count` keys and values where
            // there is room for them, and a place into `at`, which it reads as well.
            unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr.as_mut_ptr(), attr.len()) }
        };
        let read = attr.count as usize;
        match answered(answer) {
            Ok(_) => Ok(Step::More(read)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Step::End(read)),
            Err(error) => Err(error),
        }
    }
}

fn found(answer: io::Result<RawFd>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until every program that ran when this was called has ended.
#[derive(Debug)]
pub struct Quiescence {
    inner: OwnedFd,
    outer: MapHandle,
}

impl Quiescence {
    /// An array of maps that no program uses: the kernel waits for running programs whenever user space changes one.
    ///
    /// # Errors
    /// The kernel has no memory, or does not allow it.
    pub fn new() -> io::Result<Self> {
        let array = |name, map_type, inner| {
            map_create(&Map {
                name,
                map_type,
                key_size: 4,
                value_size: 4,
                max_entries: 1,
                flags: 0,
                btf: None,
                inner,
            })
        };
        let inner = array("netbcc_inner", bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, None)?;
        let outer =
            array("netbcc_outer", bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32, Some(inner.as_fd()))?;
        Ok(Self { inner, outer: MapHandle::new(outer, 4, 4) })
    }

    /// Waits.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn wait(&self) -> io::Result<()> {
        self.outer.update(&0_u32.to_ne_bytes(), &number(self.inner.as_fd()).to_ne_bytes())
    }
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MapFreeze {
    map_fd: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// Nothing is pinned there.
pub fn pinned(path: &CStr) -> io::Result<OwnedFd> {
    let attr = ObjGet { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads a path up to its NUL; the command answers a new descriptor.
    unsafe { open(bpf_cmd::BPF_OBJ_GET, &attr) }
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    zero: u32,
}

/// Loads a BTF.
///
/// # Errors
/// The kernel does not accept it.
pub fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let attr = BtfLoad {
        btf: address(btf.as_ptr()),
        btf_log_buf: 0,
        btf_size: size(btf.len())?,
        btf_log_size: 0,
        btf_log_level: 0,
        zero: 0,
    };
    // SAFETY: the kernel reads `btf_size` bytes; the command answers a new descriptor.
    unsafe { open(bpf_cmd::BPF_BTF_LOAD, &attr) }
}

/// A program to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its name, cut to 15 bytes.
    pub name: &'a str,
    /// Its type.
    pub prog_type: bpf_prog_type,
    /// For typed programs: how it will be attached, and the id in the kernel's BTF of what to.
    pub attach: Option<(bpf_attach_type, u32)>,
    /// Its instructions, with the descriptors of maps in place.
    pub instructions: &'a [bpf_insn],
    /// Its licence.
    pub license: &'a CStr,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME + 1],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    core_relo_cnt: u32,
}

/// Loads a program. With an empty `log` the verifier works quietly; else it explains itself there (up to a NUL), and
/// answers `ENOSPC` if that is too small.
///
/// # Errors
/// The kernel does not accept it.
pub fn prog_load(program: &Program<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    /// The kernel gives up when a signal arrives while it verifies; libbpf tries as often.
    const TRIES: usize = 5;
    let (expected_attach_type, attach_btf_id) = program.attach.map_or((0, 0), |(how, id)| (how as u32, id));
    let attr = ProgLoad {
        prog_type: program.prog_type as u32,
        insn_cnt: size(program.instructions.len())?,
        insns: address(program.instructions.as_ptr()),
        license: address(program.license.as_ptr()),
        log_level: u32::from(!log.is_empty()),
        log_size: size(log.len())?,
        log_buf: if log.is_empty() { 0 } else { address(log.as_mut_ptr()) },
        kern_version: 0,
        prog_flags: 0,
        prog_name: cut(program.name),
        prog_ifindex: 0,
        expected_attach_type,
        prog_btf_fd: 0,
        func_info_rec_size: 0,
        func_info: 0,
        func_info_cnt: 0,
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id,
        attach_prog_fd: 0,
        core_relo_cnt: 0,
    };
    let mut tries = 0;
    with_memory(|| {
        loop {
            tries += 1;
            // SAFETY: the kernel reads `insn_cnt` instructions and a licence up to its NUL, and writes at most
            // `log_size` bytes into `log`, which is borrowed for writing; the command answers a new descriptor.
            match unsafe { open(bpf_cmd::BPF_PROG_LOAD, &attr) } {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < TRIES => {}
                done => return done,
            }
        }
    })
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    zero: u32,
}

/// Attaches a typed program to what it was loaded for, until the answer is closed.
///
/// # Errors
/// The kernel does not allow it there.
pub fn attach_typed(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attr = RawTracepointOpen { name: 0, prog_fd: number(program), zero: 0 };
    // SAFETY: no addresses (a typed program has no name here); the command answers a new descriptor.
    unsafe { open(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attr) }
}

/// Attaches an untyped program to the tracepoint `name`, until the answer is closed.
///
/// # Errors
/// There is no such tracepoint, or the kernel does not allow it there.
pub fn attach_raw(program: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let attr = RawTracepointOpen { name: address(name.as_ptr()), prog_fd: number(program), zero: 0 };
    // SAFETY: the kernel reads `name` up to its NUL; the command answers a new descriptor.
    unsafe { open(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attr) }
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

/// Attaches a program to a perf event, until the answer is closed. There the program gets `cookie` from the kernel, where that
/// has such links (5.15).
///
/// # Errors
/// The kernel does not allow it there.
pub fn attach_perf(program: BorrowedFd<'_>, event: OwnedFd, cookie: u64) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: number(program),
        target_fd: number(event.as_fd()),
        attach_type: bpf_attach_type::BPF_PERF_EVENT as u32,
        flags: 0,
        cookie,
    };
    // SAFETY: no addresses; the command answers a new descriptor.
    match unsafe { open(bpf_cmd::BPF_LINK_CREATE, &attr) } {
        // Links to perf events are known since 5.15.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => attach_perf_by_ioctl(program, event),
        // The link keeps the event.
        done => done,
    }
}

fn attach_perf_by_ioctl(program: BorrowedFd<'_>, event: OwnedFd) -> io::Result<OwnedFd> {
    // _IOW('$', 8, __u32) and _IO('$', 0) (include/uapi/linux/perf_event.h, asm-generic/ioctl.h).
    const SET_BPF: libc::Ioctl = 0x4004_2408;
    const ENABLE: libc::Ioctl = 0x2400;
    // SAFETY: both take a number, not an address.
    Errno::result(unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::ioctl(event.as_raw_fd(), ENABLE, 0) })?;
    Ok(event)
}

/// `BPF_LINK_CREATE` of an iterator.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct IterLink {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    zero: u32,
}

/// `union bpf_iter_link_info` of an iterator over tasks, since 6.1.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct IterTask {
    tid: u32,
    pid: u32,
    pid_fd: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// Makes a program that iterates over the sockets for which `map` has a value ready to be run by [`run_iterator`], until the
/// answer is closed.
///
/// # Errors
/// The kernel does not allow it.
pub fn attach_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info` of an iterator over a map.
    let over = number(map);
    let attr = IterLink {
        prog_fd: number(program),
        target_fd: 0,
        attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
        flags: 0,
        iter_info: address(&raw const over),
        iter_info_len: size(size_of::<u32>())?,
        zero: 0,
    };
    // SAFETY: the kernel reads `iter_info_len` bytes of `over`; the command answers a new descriptor.
    unsafe { open(bpf_cmd::BPF_LINK_CREATE, &attr) }
}

/// Runs an iterator once: whoever reads the answer to its end has the program see everything.
///
/// # Errors
/// The kernel has no memory for it.
pub fn run_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    let attr = IterCreate { link_fd: number(link), flags: 0 };
    // SAFETY: no addresses; the command answers a new descriptor, which keeps the link.
    unsafe { open(bpf_cmd::BPF_ITER_CREATE, &attr) }.map(File::from)
}

/// Runs a program that iterates over tasks for one thread, by its number in our PID namespace: whoever reads the answer
/// gets what the program writes.
///
/// # Errors
/// There is no such thread, or the kernel cannot choose one (before 6.1).
pub fn iterate_task(program: BorrowedFd<'_>, tid: u32) -> io::Result<File> {
    let task = IterTask { tid, pid: 0, pid_fd: 0 };
    let attr = IterLink {
        prog_fd: number(program),
        target_fd: 0,
        attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
        flags: 0,
        iter_info: address(&raw const task),
        iter_info_len: size(size_of::<IterTask>())?,
        zero: 0,
    };
    // SAFETY: the kernel reads `iter_info_len` bytes of `task`; the command answers a new descriptor.
    let link = unsafe { open(bpf_cmd::BPF_LINK_CREATE, &attr) }?;
    run_iterator(link.as_fd())
}

/// Runs a program that iterates over all that its iterator has, to the end. What it writes is thrown away. The answer is its link.
///
/// # Errors
/// The kernel does not allow it, or the iterator has too much for a call to look at without finding anything.
pub fn iterate(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attr = IterLink {
        prog_fd: number(program),
        target_fd: 0,
        attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
        flags: 0,
        iter_info: 0,
        iter_info_len: 0,
        zero: 0,
    };
    // SAFETY: no addresses; the command answers a new descriptor.
    let link = unsafe { open(bpf_cmd::BPF_LINK_CREATE, &attr) }?;
    let attr = IterCreate { link_fd: number(link.as_fd()), flags: 0 };
    // SAFETY: no addresses; the command answers a new descriptor.
    let mut told = unsafe { open(bpf_cmd::BPF_ITER_CREATE, &attr) }.map(File::from)?;
    let mut room = [0; 64];
    loop {
        match told.read(&mut room) {
            Ok(0) => return Ok(link),
            Ok(_) => {}
            // It looked at a million of them, none of which wrote anything, and goes on with the next read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

#[repr(C)]
#[derive(IntoBytes, FromBytes, Immutable)]
struct InfoByFd {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of a link to a kprobe's event: since 6.6, `missed` since 6.7.
#[repr(C)]
#[derive(Default, IntoBytes, FromBytes, Immutable)]
struct KprobeLinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    event_type: u32,
    event_pad: u32,
    func_name: u64,
    name_len: u32,
    offset: u32,
    addr: u64,
    missed: u64,
}

/// How often the kernel could not run the kprobe behind `link`, because another probe was running on that CPU or
/// (kretprobes) too many calls were under way. Nothing if the kernel does not tell (before 6.6).
pub fn kprobe_missed(link: BorrowedFd<'_>) -> Option<u64> {
    let mut info = KprobeLinkInfo::default();
    let mut attr = InfoByFd {
        fd: number(link),
        info_len: size(size_of::<KprobeLinkInfo>()).ok()?,
        info: address(ptr::from_mut(&mut info)),
    };
    let attr = attr.as_mut_bytes();
    // SAFETY: the kernel writes into `attr`, which is ours, and at most `info_len` bytes into `info`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as libc::c_long,
            attr.as_mut_ptr(),
            attr.len(),
        )
    };
    answered(answer).ok()?;
    (info.event_type != 0).then_some(info.missed)
}

/// `struct perf_event_attr` as of its second version (`include/uapi/linux/perf_event.h`).
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct PerfEvent {
    perf_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// Here: the function's name, or the file's.
    config1: u64,
    /// Here: the offset in it.
    config2: u64,
}

/// Opens the event "the kernel's `function` was called" (or, with the bit for that in `config`: has returned).
/// `perf_type` is that of the kprobe PMU.
///
/// # Errors
/// There is no such function, or it cannot be probed.
pub fn kprobe_event(perf_type: u32, config: u64, function: &CStr) -> io::Result<OwnedFd> {
    probe_event(perf_type, config, function, 0)
}

/// Opens the event "a process runs the instruction at this offset of this file" (or, with the bit for that in `config`: the
/// function that begins there has returned). `perf_type` is that of the uprobe PMU.
///
/// # Errors
/// There is no such file, or it cannot be probed.
pub fn uprobe_event(perf_type: u32, config: u64, file: &CStr, offset: u64) -> io::Result<OwnedFd> {
    probe_event(perf_type, config, file, offset)
}

fn probe_event(perf_type: u32, config: u64, name: &CStr, offset: u64) -> io::Result<OwnedFd> {
    let attr = PerfEvent {
        perf_type,
        size: u32::try_from(size_of::<PerfEvent>()).unwrap_or_default(),
        config,
        sample_period: 0,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 0,
        bp_type: 0,
        config1: address(name.as_ptr()),
        config2: offset,
    };
    let (every_process, cpu, no_group): (libc::c_long, libc::c_long, libc::c_long) = (-1, 0, -1);
    // SAFETY: the kernel reads `size` bytes of `attr`, and a name up to its NUL.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            every_process,
            cpu,
            no_group,
            libc::c_long::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    let fd = RawFd::try_from(answered(answer)?).map_err(io::Error::other)?;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The running kernel's BTF in our memory: the kernel's own pages, of which nothing is copied.
pub struct KernelBtf {
    address: *mut c_void,
    len: usize,
}

impl KernelBtf {
    /// Maps `file`, which is `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// It is another file, or the kernel cannot do that (before 6.17).
    pub fn map(file: &File) -> io::Result<Self> {
        // Nothing else may be mapped: a file that somebody shortens or writes to while we look at it.
        if fstatfs(file)?.filesystem_type() != SYSFS_MAGIC {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping, wherever the kernel likes; nothing of ours is replaced.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { address, len }) }
    }
}

impl Deref for KernelBtf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for reading until we are dropped, and the kernel does not change its BTF.
        unsafe { slice::from_raw_parts(self.address.cast(), self.len) }
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        // SAFETY: mapped by us, with this length; nobody borrows from it any more.
        let _always_there = unsafe { libc::munmap(self.address, self.len) };
    }
}

/// # Safety
/// Every address in `attr` must be good for what `command` does with it, and `command` must answer a new descriptor
/// (the kernel makes all of them close-on-exec).
unsafe fn open<A: IntoBytes + Immutable>(command: bpf_cmd, attr: &A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let fd = unsafe { call(command, attr) }?;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// Every address in `attr` must be good for what `command` does with it.
unsafe fn call<A: IntoBytes + Immutable>(command: bpf_cmd, attr: &A) -> io::Result<RawFd> {
    let attr = attr.as_bytes();
    // SAFETY: the kernel reads as many bytes of `attr` as it is told; what is behind its addresses is the caller's.
    // No command that comes here writes into `attr`.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr.as_ptr(), attr.len()) };
    RawFd::try_from(answered(answer)?).map_err(io::Error::other)
}

/// The answer of a system call. nix's `Errno` is not asked, for it forgets the number of an error that it has no name
/// for, as the kernel's ENOTSUPP (524).
fn answered(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Before 5.11 maps and programs count as locked memory, of which a process may have 64 KiB; too little is EPERM.
fn with_memory(mut make: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    static RAISED: AtomicBool = AtomicBool::new(false);
    match make() {
        Err(error)
            if error.raw_os_error() == Some(libc::EPERM)
                && !RAISED.swap(true, Ordering::Relaxed)
                && setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY).is_ok() =>
        {
            make()
        }
        done => done,
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor is never negative.
    u32::try_from(fd.as_raw_fd()).unwrap_or_default()
}

fn size(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(io::Error::other)
}

fn cut(name: &str) -> [u8; NAME + 1] {
    let mut bytes = [0; NAME + 1];
    for (to, from) in bytes[..NAME].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn names_are_cut_and_end_in_nul() {
        assert_eq!(&cut(".rodata")[..8], b".rodata\0");
        assert_eq!(&cut("accept_kretprobe"), b"accept_kretprob\0");
    }
}
