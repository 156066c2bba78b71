//! `--pid` and `--tid` as the user's PID namespace counts (ARCHITECTURE.md, D22).
//!
//! Programs compare with the numbers of the initial namespace. Who runs a tool in another one (in a container) means the
//! numbers that `ps` shows there, and the kernel is asked for the other one: a BPF iterator over one task, which is
//! named as our namespace counts, tells its number. That works without the host's /proc.
//!
//! Lives here: numbers of processes. Must never live here: which processes a tool shows.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, anyhow};
use aya_obj::generated::{
    BPF_ALU64, BPF_CALL, BPF_DW, BPF_EXIT, BPF_JEQ, BPF_JMP, BPF_K, BPF_LDX, BPF_MEM, BPF_MOV, BPF_STX,
    BPF_W, BPF_X, bpf_attach_type, bpf_insn, bpf_prog_type,
};
use netbcc_common::kernel::Field;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::{hinted, usage};
use crate::sys::bpf;
use crate::sys::btf::Kernel;
use crate::sys::machine::{self, Space};
use crate::tool::Ctx;

/// The function whose type an iterator over tasks has.
pub(super) const ITERATOR: &str = "bpf_iter_task";

/// The numbers that programs compare with for those of a word of `--pid`. Says what a user may not expect: that there is no
/// such process, or that it is a thread.
pub(super) fn to_compare(low: u32, high: u32, kernel: &Kernel, cx: &Ctx) -> Result<(u32, u32)> {
    if low == high {
        return one(low, kernel, cx).map(|pid| (pid, pid));
    }
    if machine::is_elsewhere(Space::Pid) {
        return Err(hinted(
            usage(format!("--pid {low}-{high}: a range has no other numbers outside of this PID namespace")),
            "name single processes, or run it in the host's PID namespace (nsenter -t 1 -p, docker run --pid=host)",
        ));
    }
    Ok((low, high))
}

/// The number that programs compare with for that of `--tid`. Says what a user may not expect: that there is no such thread.
pub(super) fn thread_to_compare(tid: u32, kernel: &Kernel, cx: &Ctx) -> Result<u32> {
    let is_there = !matches!(look(tid), Found::Nothing);
    if !machine::is_elsewhere(Space::Pid) {
        if !is_there {
            cx.warn(format_args!("--tid {tid}: there is no such thread now"));
        }
        return Ok(tid);
    }
    if !is_there {
        return Err(hinted(
            anyhow!("--tid {tid}: there is no such thread in this PID namespace"),
            "it is named as this namespace counts (ps -L), not as the TID column does, which has the host's numbers",
        ));
    }
    let told = ask(tid, Field::TaskPid, kernel).map_err(|error| {
        let what =
            format!("--tid {tid}: this kernel does not tell which number a thread of this PID namespace has outside of it");
        hinted(error.context(what), IN_THE_HOSTS)
    })?;
    cx.warn(format_args!(
        "--tid {tid} of this PID namespace is thread {told} of the host, whose numbers the TID column has"
    ));
    Ok(told)
}

/// What helps where a number cannot be told.
const IN_THE_HOSTS: &str = "run it in the host's PID namespace (nsenter -t 1 -p, docker run --pid=host)";

fn one(pid: u32, kernel: &Kernel, cx: &Ctx) -> Result<u32> {
    let there = look(pid);
    if !machine::is_elsewhere(Space::Pid) {
        match there {
            Found::ThreadOf(process) => cx.warn(format_args!(
                "--pid {pid} is a thread of process {process}, and rows are of processes: --pid {process} shows them"
            )),
            Found::Nothing => cx.warn(format_args!("--pid {pid}: there is no such process now")),
            Found::Process | Found::Hidden => {}
        }
        return Ok(pid);
    }
    if matches!(there, Found::Nothing) {
        return Err(hinted(
            anyhow!("--pid {pid}: there is no such process in this PID namespace"),
            "it is named as this namespace counts (ps), not as the PID column does, which has the host's numbers",
        ));
    }
    let told = ask(pid, Field::TaskTgid, kernel).map_err(|error| {
        let what =
            format!("--pid {pid}: this kernel does not tell which number a process of this PID namespace has outside of it");
        hinted(error.context(what), IN_THE_HOSTS)
    })?;
    // The kernel tells a thread's process.
    let is = if matches!(there, Found::ThreadOf(_)) { "is a thread of" } else { "is" };
    cx.warn(format_args!(
        "--pid {pid} of this PID namespace {is} process {told} of the host, whose numbers the PID column has"
    ));
    Ok(told)
}

/// What has a number here.
enum Found {
    Process,
    ThreadOf(u32),
    Nothing,
    /// What it is cannot be seen.
    Hidden,
}

fn look(pid: u32) -> Found {
    let Ok(number) = i32::try_from(pid) else { return Found::Nothing };
    if kill(Pid::from_raw(number), None) == Err(Errno::ESRCH) {
        return Found::Nothing;
    }
    // A /proc of another PID namespace has other processes by these numbers.
    let ours =
        fs::read_link("/proc/self").is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()));
    let Some(status) = ours.then(|| fs::read_to_string(format!("/proc/{pid}/status")).ok()).flatten() else {
        return Found::Hidden;
    };
    match status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()) {
        Some(process) if process == pid => Found::Process,
        Some(process) => Found::ThreadOf(process),
        None => Found::Hidden,
    }
}

/// A number outside of the thread that is `tid` here: its process's (`TaskTgid`) or its own (`TaskPid`).
fn ask(tid: u32, which: Field, kernel: &Kernel) -> Result<u32> {
    kernel.require(which)?;
    let offset = kernel.offsets()[which as usize];
    let target = kernel.function(ITERATOR).context("no iterators over tasks (before 5.8)")?;
    let instructions = tell(i16::try_from(offset).context("its number lies too far behind")?);
    let program = bpf::Program {
        name: "pid",
        prog_type: bpf_prog_type::BPF_PROG_TYPE_TRACING,
        attach: Some((bpf_attach_type::BPF_TRACE_ITER, target)),
        instructions: &instructions,
        license: c"Dual MIT/GPL",
    };
    let program = bpf::prog_load(&program, &mut []).context("load an iterator over tasks")?;
    let mut number = [0; 4];
    bpf::iterate_task(program.as_fd(), tid)
        .and_then(|mut told| told.read_exact(&mut number))
        .context("iterate over one task")?;
    match u32::from_ne_bytes(number) {
        0 => Err(io::Error::from(io::ErrorKind::NotFound)).context("iterate over one task"),
        number => Ok(number),
    }
}

/// An iterator that writes the number that its task has at `offset`.
fn tell(offset: i16) -> [bpf_insn; 13] {
    /// `bpf_seq_write`.
    const SEQ_WRITE: i32 = 127;
    let new = |code: u32, dst: u8, src: u8, off: i16, imm: i32| bpf_insn {
        #[expect(clippy::cast_possible_truncation, reason = "what instructions are made of are bytes")]
        code: code as u8,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
        off,
        imm,
    };
    let load = |size, dst, src, off| new(BPF_LDX | BPF_MEM | size, dst, src, off, 0);
    let copy = |dst, src| new(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
    let set = |dst, value| new(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
    [
        copy(6, 1),
        // struct bpf_iter__task: the iterator's own, then the task, which is null in the last call.
        load(BPF_DW, 2, 6, 8),
        new(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 8, 0),
        load(BPF_W, 2, 2, offset),
        new(BPF_STX | BPF_MEM | BPF_W, 10, 2, -4, 0),
        load(BPF_DW, 1, 6, 0),
        load(BPF_DW, 1, 1, 0),
        copy(2, 10),
        new(BPF_ALU64 | BPF_K, 2, 0, 0, -4),
        set(3, 4),
        new(BPF_JMP | BPF_CALL, 0, 0, 0, SEQ_WRITE),
        set(0, 0),
        new(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    ]
}
