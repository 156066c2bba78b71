//! One program on its way through the verifier: [`load`].
//!
//! Lives here: what becomes of instructions. Must never live here: where programs hang, and maps.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_CALL, BPF_EXIT, BPF_JA, BPF_JMP, BPF_K, BPF_MOV, BPF_PSEUDO_CALL,
    BPF_PSEUDO_KFUNC_CALL, BPF_X, bpf_attach_type, bpf_insn, bpf_prog_type,
};
use netbcc_common::kernel::CAST;
use nix::errno::Errno;

use super::hook::{Kind, Prog};
use super::object::Fault;
use crate::sys::bpf::{self, ENOTSUPP};

const CALL: u8 = byte(BPF_JMP | BPF_CALL);
const EXIT: u8 = byte(BPF_JMP | BPF_EXIT);
const JUMP: u8 = byte(BPF_JMP | BPF_JA);
const MOVE: u8 = byte(BPF_ALU64 | BPF_MOV | BPF_X);
const SET: u8 = byte(BPF_ALU64 | BPF_MOV | BPF_K);
const ADD: u8 = byte(BPF_ALU64 | BPF_ADD | BPF_K);
/// What tells a call of one of the kernel's own functions.
const FUNCTION: u8 = byte(BPF_PSEUDO_KFUNC_CALL);

/// What instructions are made of are bytes.
const fn byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// Functions of the kernel that programs may call, by their BTF ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Functions {
    /// `bpf_rdonly_cast`, if the kernel has it.
    pub(super) cast: Option<i32>,
    /// Those that keep a processor, where its loss costs runs.
    pub(super) hold: Option<Hold>,
}

/// Functions that keep a processor and give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// `bpf_preempt_disable`.
    pub(super) keep: i32,
    /// `bpf_preempt_enable`.
    pub(super) give_back: i32,
    /// `bpf_local_irq_save`.
    pub(super) mask: i32,
    /// `bpf_local_irq_restore`.
    pub(super) unmask: i32,
    /// Whether programs of tracepoints lose their processor, too; else the kernel keeps it for them.
    pub(super) tracepoints: bool,
}

impl Hold {
    /// Whether a task may lose its processor in such a program. A breakpoint keeps it.
    fn is_for(self, kind: Kind) -> bool {
        match kind {
            Kind::Fentry | Kind::Fexit => true,
            Kind::TpBtf | Kind::RawTp => self.tracepoints,
            Kind::Kprobe | Kind::Kretprobe => false,
        }
    }
}

/// A program in the kernel.
pub(super) struct Loaded {
    pub(super) fd: OwnedFd,
    /// The BTF id that it was loaded for, if it is typed.
    pub(super) target: Option<u32>,
    /// Whether the kernel wanted it without the casts that it has.
    pub(super) uncast: bool,
    /// Whether the kernel did not let it keep its processor, although it has the means.
    pub(super) unheld: bool,
}

/// Loads `prog`, made of these instructions; `target` is the BTF id of what it hangs on if it is typed.
pub(super) fn load(
    prog: &Prog,
    target: Option<u32>,
    mut instructions: Vec<bpf_insn>,
    functions: Functions,
    license: &CStr,
) -> Result<Loaded, Fault> {
    let casts = casts(&instructions);
    let mut cast = functions.cast.filter(|_| !casts.is_empty());
    let hold = functions.hold.filter(|hold| hold.is_for(prog.kind));
    let mut hold = hold.filter(|hold| held(&instructions, *hold).is_some());
    let wanted = (cast, hold);
    // Quietly at first, because a log costs time and nobody reads that of a success.
    loop {
        put(&mut instructions, &casts, cast);
        let whole = hold.and_then(|hold| held(&instructions, hold));
        let program = program(prog, target, whole.as_deref().unwrap_or(&instructions), license);
        let fd = match bpf::prog_load(&program, &mut []) {
            Ok(fd) => fd,
            Err(error) if is_about_instructions(&error) && (cast.is_some() || hold.is_some()) => {
                // What costs no run goes last.
                if hold.take().is_none() {
                    cast = None;
                }
                continue;
            }
            Err(_) => load_and_hear(&program)?,
        };
        let (uncast, unheld) = (cast != wanted.0, hold != wanted.1);
        return Ok(Loaded { fd, target, uncast, unheld });
    }
}

/// The program with the processor kept from its first instruction to its last (ARCHITECTURE.md, D35). `None`: it is not
/// built as expected.
fn held(instructions: &[bpf_insn], hold: Hold) -> Option<Vec<bpf_insn>> {
    // The functions that a program calls come behind it, and begin where they are called.
    let is_call = |this: &bpf_insn| this.code == CALL && u32::from(this.src_reg()) == BPF_PSEUDO_CALL;
    let calls = instructions.iter().enumerate().filter(|(_, this)| is_call(this));
    let begins: Option<Vec<usize>> =
        calls.map(|(at, this)| (at + 1).checked_add_signed(isize::try_from(this.imm).ok()?)).collect();
    let main = begins?.into_iter().min().unwrap_or(instructions.len());
    let (main, rest) = instructions.split_at_checked(main)?;
    let new = |code: u8, to: u8, from: u8, imm: i32| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(to, from),
        off: 0,
        imm,
    };
    let function = |id| new(CALL, 0, FUNCTION, id);
    // Register 6 outlives a call.
    let before = [new(MOVE, 6, 1, 0), function(hold.keep), new(MOVE, 1, 6, 0)];
    // The kernel looks whether another task waits for the processor when it is given back, but not with interrupts masked,
    // nor when these are unmasked. So it looks when the program has ended. Nothing of the stack is needed any more.
    let slot = |function_id| [new(MOVE, 1, 10, 0), new(ADD, 1, 0, -8), function(function_id)];
    let after = [
        &slot(hold.mask)[..],
        &[function(hold.give_back)],
        &slot(hold.unmask),
        // What such a program answers means nothing.
        &[new(SET, 0, 0, 0), new(EXIT, 0, 0, 0)],
    ]
    .concat();
    let mut whole = before.to_vec();
    for (at, this) in main.iter().enumerate() {
        let mut this = *this;
        if this.code == EXIT {
            this = new(JUMP, 0, 0, 0);
            this.off = i16::try_from(main.len() - at - 1).ok()?;
        } else if is_call(&this) {
            this.imm += i32::try_from(after.len()).ok()?;
        }
        whole.push(this);
    }
    whole.extend(after);
    whole.extend_from_slice(rest);
    Some(whole)
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
    let is_cast =
        |call: &bpf_insn| call.code == CALL && call.src_reg() == 0 && usize::try_from(call.imm) == Ok(CAST);
    (0..instructions.len()).filter(|&at| is_cast(&instructions[at])).collect()
}

/// Puts what this kernel does for a [`CAST`] at these places: a call of the function with this BTF id, or a move.
fn put(instructions: &mut [bpf_insn], casts: &[usize], function: Option<i32>) {
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

    /// An instruction, as it is written here.
    fn code(this: bpf_insn) -> (u8, u8, u8, i16, i32) {
        (this.code, this.dst_reg(), this.src_reg(), this.off, this.imm)
    }

    fn instruction((code, to, from, off, imm): (u8, u8, u8, i16, i32)) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off, imm }
    }

    #[test]
    fn a_program_keeps_its_processor_from_its_first_instruction_to_all_of_its_ends() {
        const HOLD: Hold = Hold { keep: 71, give_back: 72, mask: 73, unmask: 74, tracepoints: true };
        let end = (0x95, 0, 0, 0, 0);
        // if r1 == 0 { return }; f(); return; fn f() { g() } fn g() {}
        let program = [
            (0x15, 1, 0, 1, 0),
            (0x05, 0, 0, 1, 0),
            end,
            (0x85, 0, 1, 0, 1),
            end,
            (0x85, 0, 1, 0, 1),
            end,
            (0xb7, 0, 0, 0, 0),
            end,
        ];
        let program = program.map(instruction);
        let whole = held(&program, HOLD).expect("it is built so");
        let call = |id| (0x85, 0, 2, 0, id);
        let slot = [(0xbf, 1, 10, 0, 0), (0x07, 1, 0, 0, -8)];
        let expected = [
            &[(0xbf, 6, 1, 0, 0), call(71), (0xbf, 1, 6, 0, 0)][..],
            &[(0x15, 1, 0, 1, 0), (0x05, 0, 0, 1, 0), (0x05, 0, 0, 2, 0)],
            &[(0x85, 0, 1, 0, 10), (0x05, 0, 0, 0, 0)],
            &slot,
            &[call(73), call(72)],
            &slot,
            &[call(74), (0xb7, 0, 0, 0, 0), end],
            // The functions behind it are as they were.
            &[(0x85, 0, 1, 0, 1), end, (0xb7, 0, 0, 0, 0), end],
        ]
        .concat();
        assert_eq!(whole.iter().copied().map(code).collect::<Vec<_>>(), expected);
        // What goes backwards is not built so.
        assert!(held(&[instruction((0x85, 0, 1, 0, -5))], HOLD).is_none());
    }

    #[test]
    fn only_what_may_lose_its_processor_keeps_it() {
        let kinds = [Kind::Fentry, Kind::Fexit, Kind::TpBtf, Kind::RawTp, Kind::Kprobe, Kind::Kretprobe];
        let held = |tracepoints| {
            let hold = Hold { keep: 1, give_back: 2, mask: 3, unmask: 4, tracepoints };
            kinds.map(|kind| hold.is_for(kind))
        };
        assert_eq!(held(true), [true, true, true, true, false, false]);
        assert_eq!(held(false), [true, true, false, false, false, false]);
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
