//! One program on its way through the verifier: [`load`].
//!
//! Lives here: what becomes of instructions. Must never live here: where programs hang, and maps.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use aya_obj::generated::{
    BPF_ALU64, BPF_CALL, BPF_JMP, BPF_MOV, BPF_PSEUDO_KFUNC_CALL, BPF_X, bpf_attach_type, bpf_insn,
    bpf_prog_type,
};
use netbcc_common::kernel::CAST;
use nix::errno::Errno;

use super::hook::{Kind, Prog};
use super::object::Fault;
use crate::sys::bpf::{self, ENOTSUPP};

/// A program in the kernel.
pub(super) struct Loaded {
    pub(super) fd: OwnedFd,
    /// The BTF id that it was loaded for, if it is typed.
    pub(super) target: Option<u32>,
    /// Whether the kernel wanted it without the casts that it has.
    pub(super) uncast: bool,
}

/// Loads `prog`, made of these instructions; `target` is the BTF id of what it hangs on if it is typed, `cast` that of
/// the kernel's `bpf_rdonly_cast`, if it has that.
pub(super) fn load(
    prog: &Prog,
    target: Option<u32>,
    mut instructions: Vec<bpf_insn>,
    cast: Option<u32>,
    license: &CStr,
) -> Result<Loaded, Fault> {
    let casts = casts(&instructions);
    let cast = cast.and_then(|id| i32::try_from(id).ok()).filter(|_| !casts.is_empty());
    put(&mut instructions, &casts, cast);
    // Quietly at first, because a log costs time and nobody reads that of a success.
    let mut done = bpf::prog_load(&program(prog, target, &instructions, license), &mut []);
    let uncast = cast.is_some() && done.as_ref().is_err_and(is_about_instructions);
    if uncast {
        put(&mut instructions, &casts, None);
        done = bpf::prog_load(&program(prog, target, &instructions, license), &mut []);
    }
    let fd = done.or_else(|_| load_and_hear(&program(prog, target, &instructions, license)))?;
    Ok(Loaded { fd, target, uncast })
}

/// How the kernel is told of a program.
fn program<'p>(
    prog: &Prog,
    target: Option<u32>,
    instructions: &'p [bpf_insn],
    license: &'p CStr,
) -> bpf::Program<'p> {
    let (prog_type, attach) = match prog.kind {
        Kind::Fentry => (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_FENTRY)),
        Kind::Fexit => (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_FEXIT)),
        Kind::TpBtf => (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_RAW_TP)),
        Kind::Kprobe | Kind::Kretprobe => (bpf_prog_type::BPF_PROG_TYPE_KPROBE, None),
        Kind::RawTp => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None),
    };
    bpf::Program { name: prog.name, prog_type, attach: attach.zip(target), instructions, license }
}

/// Where the [`CAST`]s are.
fn casts(instructions: &[bpf_insn]) -> Vec<usize> {
    #[expect(clippy::cast_possible_truncation, reason = "what instructions are made of are bytes")]
    const CALL: u8 = (BPF_JMP | BPF_CALL) as u8;
    let is_cast =
        |call: &bpf_insn| call.code == CALL && call.src_reg() == 0 && usize::try_from(call.imm) == Ok(CAST);
    (0..instructions.len()).filter(|&at| is_cast(&instructions[at])).collect()
}

/// Puts what this kernel does for a [`CAST`] at these places: a call of the function with this BTF id, or a move.
fn put(instructions: &mut [bpf_insn], casts: &[usize], function: Option<i32>) {
    #[expect(clippy::cast_possible_truncation, reason = "what instructions are made of are bytes")]
    const MOVE: u8 = (BPF_ALU64 | BPF_MOV | BPF_X) as u8;
    #[expect(clippy::cast_possible_truncation, reason = "as above")]
    const FUNCTION: u8 = BPF_PSEUDO_KFUNC_CALL as u8;
    for &at in casts {
        let this = &mut instructions[at];
        if let Some(id) = function {
            this.set_src_reg(FUNCTION);
            this.imm = id;
        } else {
            // A call leaves its result in r0, which is its destination already; r1 is its first argument.
            this.code = MOVE;
            this.set_src_reg(1);
            this.imm = 0;
        }
    }
}

/// Whether the kernel looked at the instructions and did not like them. ENOTSUPP says so of calls of the kernel's own
/// functions where it has no JIT.
fn is_about_instructions(error: &io::Error) -> bool {
    [Errno::EINVAL as i32, Errno::EACCES as i32, ENOTSUPP].map(Some).contains(&error.raw_os_error())
}

/// Loads a program that was refused once more, to hear why.
fn load_and_hear(program: &bpf::Program<'_>) -> Result<OwnedFd, Fault> {
    /// What all kernels take: less than 16 MiB.
    const MOST: usize = (16 << 20) - 1;
    let mut log = vec![0; 64 << 10];
    loop {
        match bpf::prog_load(program, &mut log) {
            Ok(fd) => return Ok(fd),
            Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) && log.len() < MOST => {
                log = vec![0; (log.len() * 8).min(MOST)];
            }
            Err(error) => {
                let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
                return Err(Fault::Load(error, String::from_utf8_lossy(&log[..end]).into_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_takes_no_calls_is_asked_without() {
        for (errno, about) in [(524, true), (22, true), (13, true), (1, false), (12, false), (28, false)] {
            assert_eq!(is_about_instructions(&io::Error::from_raw_os_error(errno)), about, "{errno}");
        }
    }

    #[test]
    fn a_cast_becomes_a_call_of_the_kernels_own_or_a_move() {
        let call = |imm| bpf_insn {
            code: 0x85,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm,
        };
        let seen = |function: Option<i32>| {
            let mut instructions = [call(5), call(i32::try_from(CAST).unwrap())];
            let casts = casts(&instructions);
            put(&mut instructions, &casts, function);
            instructions.map(|this| (this.code, this.dst_reg(), this.src_reg(), this.imm))
        };
        // Helper 5 stays what it is; then: call of the kernel function 7, or r0 = r1.
        assert_eq!(seen(Some(7)), [(0x85, 0, 0, 5), (0x85, 0, 2, 7)]);
        assert_eq!(seen(None), [(0x85, 0, 0, 5), (0xbf, 0, 1, 0)]);
    }
}
