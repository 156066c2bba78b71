//! One program on its way through the verifier: [`load`].
//!
//! Lives here: what becomes of instructions. Must never live here: where programs hang, and maps.

use std::ffi::CStr;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_AND, BPF_ATOMIC, BPF_CALL, BPF_DW, BPF_EXIT, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JMP,
    BPF_JNE, BPF_K, BPF_LD, BPF_LDX, BPF_LSH, BPF_MEM, BPF_MOV, BPF_MUL, BPF_PSEUDO_CALL,
    BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_W,
    BPF_X, BPF_XCHG, bpf_attach_type, bpf_func_id, bpf_insn, bpf_prog_type,
};
use netbcc_common::kernel::CAST;
use netbcc_common::loss::Loss;
use nix::errno::Errno;

use super::fault::Fault;
use crate::hook::{Kind, Prog};
use crate::sys::bpf::{self, ENOTSUPP};

const CALL: u8 = byte(BPF_JMP | BPF_CALL);
const EXIT: u8 = byte(BPF_JMP | BPF_EXIT);
const JUMP: u8 = byte(BPF_JMP | BPF_JA);
const MOVE: u8 = byte(BPF_ALU64 | BPF_MOV | BPF_X);
const SET: u8 = byte(BPF_ALU64 | BPF_MOV | BPF_K);
const ADD: u8 = byte(BPF_ALU64 | BPF_ADD | BPF_K);
/// What tells a call of one of the kernel's own functions.
const FUNCTION: u8 = byte(BPF_PSEUDO_KFUNC_CALL);
/// What tells an address in a table's value, and a table.
const VALUE: u8 = byte(BPF_PSEUDO_MAP_VALUE);
const TABLE: u8 = byte(BPF_PSEUDO_MAP_FD);
/// Which atomic operation: what is in memory and in the register change places.
const XCHG: i32 = BPF_XCHG.cast_signed();

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
            Kind::Kprobe | Kind::Kretprobe | Kind::Uprobe | Kind::Uretprobe | Kind::Iter => false,
        }
    }
}

/// Which of the two copies of a program it is that see the same events (ARCHITECTURE.md, D8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) copy: Copied,
    /// Where the first copy marks what it sees: a table whose only value has [`MARKS`] bytes.
    pub(super) marks: RawFd,
    /// Where the second counts what it made up for.
    pub(super) lost: RawFd,
    /// What tells the programs of an object apart.
    pub(super) program: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    First,
    Second,
}

/// How many sets of two marks there are.
const SETS: i32 = 1 << 10;
/// Bytes of the table of marks.
pub(super) const MARKS: usize = SETS as usize * 2 * size_of::<u64>();

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

/// Loads `prog`, made of these instructions; `target` is the BTF id of what it hangs on if it is typed, and `turn` says
/// which of two copies it is.
pub(super) fn load(
    prog: &Prog,
    target: Option<u32>,
    mut instructions: Vec<bpf_insn>,
    functions: Functions,
    turn: Option<Turn>,
    license: &CStr,
) -> Result<Loaded, Fault> {
    let casts = casts(&instructions);
    let mut cast = functions.cast.filter(|_| !casts.is_empty());
    let hold = functions.hold.filter(|hold| hold.is_for(prog.kind));
    let mut hold = hold.filter(|hold| wrapped(&instructions, Some(*hold), turn).is_some());
    let wanted = (cast, hold);
    // Quietly at first, because a log costs time and nobody reads that of a success.
    loop {
        put(&mut instructions, &casts, cast);
        let whole = wrapped(&instructions, hold, turn);
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

/// An instruction.
fn new(code: impl Into<u32>, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code: byte(code.into()),
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(to, from),
        off,
        imm,
    }
}

/// The program with the processor kept from its first instruction to its last (ARCHITECTURE.md, D35), if `hold` says how,
/// and as the copy that `turn` says. `None`: nothing is to be done, or it is not built as expected.
fn wrapped(instructions: &[bpf_insn], hold: Option<Hold>, turn: Option<Turn>) -> Option<Vec<bpf_insn>> {
    if hold.is_none() && turn.is_none() {
        return None;
    }
    // The functions that a program calls come behind it, and begin where they are called.
    let is_call = |this: &bpf_insn| this.code == CALL && u32::from(this.src_reg()) == BPF_PSEUDO_CALL;
    let calls = instructions.iter().enumerate().filter(|(_, this)| is_call(this));
    let begins: Option<Vec<usize>> =
        calls.map(|(at, this)| (at + 1).checked_add_signed(isize::try_from(this.imm).ok()?)).collect();
    let main = begins?.into_iter().min().unwrap_or(instructions.len());
    let (main, rest) = instructions.split_at_checked(main)?;
    // Register 6 outlives a call.
    let (keep_context, give_context) = (new(MOVE, 6, 1, 0, 0), new(MOVE, 1, 6, 0, 0));
    let mut whole = vec![keep_context];
    whole.extend(hold.map(|hold| function(hold.keep)));
    let mut leaves = Vec::new();
    if let Some(turn) = turn {
        let begin = whole.len();
        let (code, seen) = marks(turn);
        whole.extend(code);
        leaves.extend(seen.map(|at| begin + at));
    }
    whole.push(give_context);
    let mut after = hold.map(give_back).unwrap_or_default();
    // What such a program answers means nothing.
    after.extend([new(SET, 0, 0, 0, 0), new(EXIT, 0, 0, 0, 0)]);
    for this in main {
        let mut this = *this;
        if this.code == EXIT {
            leaves.push(whole.len());
        } else if is_call(&this) {
            this.imm += i32::try_from(after.len()).ok()?;
        }
        whole.push(this);
    }
    for at in leaves {
        whole[at] = new(JUMP, 0, 0, i16::try_from(whole.len() - at - 1).ok()?, 0);
    }
    whole.extend(after);
    whole.extend_from_slice(rest);
    Some(whole)
}

/// A call of the kernel's function with this BTF id.
fn function(id: i32) -> bpf_insn {
    new(CALL, 0, FUNCTION, 0, id)
}

/// Gives the processor back. The kernel looks whether another task waits for it then, but not with interrupts masked,
/// nor when these are unmasked. So it looks when the program has ended. Nothing of the stack is needed any more.
fn give_back(hold: Hold) -> Vec<bpf_insn> {
    let slot = |id| [new(MOVE, 1, 10, 0, 0), new(ADD, 1, 0, 0, -8), function(id)];
    [&slot(hold.mask)[..], &[function(hold.give_back)], &slot(hold.unmask)].concat()
}

/// What the copies of a program do before all else, with the context in register 6; and where in there is a place from
/// which the second one leaves, if the first saw this.
///
/// The context is where the kernel has the arguments of this event, on the stack that it happens on. It is the same for
/// both copies, and no other event's while this one lasts.
fn marks(turn: Turn) -> (Vec<bpf_insn>, Option<usize>) {
    let Turn { copy, marks, lost, program } = turn;
    let (whole_word, end_of_load) = (BPF_LD | BPF_IMM | BPF_DW, new(0_u32, 0, 0, 0, 0));
    let (load, store) = (BPF_LDX | BPF_MEM | BPF_DW, BPF_STX | BPF_MEM | BPF_DW);
    let alu = |operation: u32, to, imm| new(BPF_ALU64 | operation | BPF_K, to, 0, 0, imm);
    let mut code = vec![
        new(whole_word, 3, VALUE, 0, marks),
        end_of_load,
        // r2: the mark. A difference of two addresses is a number.
        new(MOVE, 2, 6, 0, 0),
        new(BPF_ALU64 | BPF_SUB | BPF_X, 2, 3, 0, 0),
        alu(BPF_ADD, 2, program),
        // r3: its set. The factor is the golden ratio of 2^31, which spreads what is near.
        new(MOVE, 4, 2, 0, 0),
        alu(BPF_MUL, 4, 0x4f1b_bcdd),
        alu(BPF_RSH, 4, 20),
        alu(BPF_AND, 4, SETS - 1),
        alu(BPF_LSH, 4, 4),
        new(BPF_ALU64 | BPF_ADD | BPF_X, 3, 4, 0, 0),
    ];
    match copy {
        // What was there moves on. That is a mark that nobody took, as the second copy could not run; rarely one of an event
        // that has lost its processor in between.
        Copied::First => {
            code.extend([
                new(MOVE, 4, 2, 0, 0),
                new(BPF_STX | BPF_ATOMIC | BPF_DW, 3, 4, 0, XCHG),
                new(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2, 0),
                new(BPF_JMP | BPF_JEQ | BPF_X, 4, 2, 1, 0),
                new(store, 3, 4, 8, 0),
            ]);
            (code, None)
        }
        Copied::Second => {
            code.extend([
                new(load, 5, 3, 0, 0),
                new(BPF_JMP | BPF_JEQ | BPF_X, 5, 2, 3, 0),
                new(ADD, 3, 0, 0, 8),
                new(load, 5, 3, 0, 0),
                new(BPF_JMP | BPF_JNE | BPF_X, 5, 2, 2, 0),
                new(BPF_ST | BPF_MEM | BPF_DW, 3, 0, 0, 0),
            ]);
            let seen = code.len();
            code.extend([
                new(JUMP, 0, 0, 0, 0),
                // It is news.
                new(BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, Loss::MadeUp as i32),
                new(MOVE, 2, 10, 0, 0),
                new(ADD, 2, 0, 0, -4),
                new(whole_word, 1, TABLE, 0, lost),
                end_of_load,
                new(CALL, 0, 0, 0, bpf_func_id::BPF_FUNC_map_lookup_elem as i32),
                new(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2, 0),
                new(SET, 1, 0, 0, 1),
                new(BPF_STX | BPF_ATOMIC | BPF_DW, 0, 1, 0, 0),
            ]);
            (code, Some(seen))
        }
    }
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
        Kind::Kprobe | Kind::Kretprobe | Kind::Uprobe | Kind::Uretprobe => {
            (bpf_prog_type::BPF_PROG_TYPE_KPROBE, None)
        }
        Kind::RawTp => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None),
        Kind::Iter => (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(bpf_attach_type::BPF_TRACE_ITER)),
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
    use std::os::fd::AsRawFd as _;

    use aya_obj::generated::bpf_map_type;
    use netbcc_common::loss::LOSSES;

    use super::*;
    use crate::hook::fentry;
    use crate::probe::plan::{HOLD_FUNCTIONS, hold};
    use crate::sys::btf::{self, Wanted};

    #[test]
    fn a_kernel_that_takes_no_calls_is_asked_without() {
        for (errno, about) in [(524, true), (22, true), (13, true), (1, false), (12, false), (28, false)] {
            assert_eq!(is_about_instructions(&io::Error::from_raw_os_error(errno)), about, "{errno}");
        }
    }

    #[test]
    fn the_second_copy_leaves_where_the_first_has_been_and_counts_where_it_has_not() {
        let end = (0x95, 0, 0, 0, 0);
        let program = [(0xb7, 7, 0, 0, 5), end].map(instruction);
        let with = |copy| {
            let turn = Turn { copy, marks: 8, lost: 9, program: 3 };
            wrapped(&program, None, Some(turn))
                .expect("it is built so")
                .into_iter()
                .map(code)
                .collect::<Vec<_>>()
        };
        let mark = [
            (0xbf, 6, 1, 0, 0),
            (0x18, 3, 2, 0, 8),
            (0, 0, 0, 0, 0),
            (0xbf, 2, 6, 0, 0),
            (0x1f, 2, 3, 0, 0),
            (0x07, 2, 0, 0, 3),
            (0xbf, 4, 2, 0, 0),
            (0x27, 4, 0, 0, 0x4f1b_bcdd),
            (0x77, 4, 0, 0, 20),
            (0x57, 4, 0, 0, 1023),
            (0x67, 4, 0, 0, 4),
            (0x0f, 3, 4, 0, 0),
        ];
        let body = [(0xbf, 1, 6, 0, 0), (0xb7, 7, 0, 0, 5), (0x05, 0, 0, 0, 0), (0xb7, 0, 0, 0, 0), end];
        let leaves = [
            (0xbf, 4, 2, 0, 0),
            (0xdb, 3, 4, 0, 0xe1),
            (0x15, 4, 0, 2, 0),
            (0x1d, 4, 2, 1, 0),
            (0x7b, 3, 4, 8, 0),
        ];
        assert_eq!(with(Copied::First), [&mark[..], &leaves, &body].concat());
        let takes = [
            (0x79, 5, 3, 0, 0),
            (0x1d, 5, 2, 3, 0),
            (0x07, 3, 0, 0, 8),
            (0x79, 5, 3, 0, 0),
            (0x5d, 5, 2, 2, 0),
            (0x7a, 3, 0, 0, 0),
            (0x05, 0, 0, 12, 0),
            (0x62, 10, 0, -4, 2),
            (0xbf, 2, 10, 0, 0),
            (0x07, 2, 0, 0, -4),
            (0x18, 1, 1, 0, 9),
            (0, 0, 0, 0, 0),
            (0x85, 0, 0, 0, 1),
            (0x15, 0, 0, 2, 0),
            (0xb7, 1, 0, 0, 1),
            (0xdb, 0, 1, 0, 0),
        ];
        assert_eq!(with(Copied::Second), [&mark[..], &takes, &body].concat());
        assert_eq!(SETS as usize * 16, MARKS);
    }

    #[test]
    fn a_kernel_that_has_the_functions_takes_a_program_that_keeps_its_processor_and_its_copies() {
        const TARGET: &str = "tcp_v4_connect";
        let functions = HOLD_FUNCTIONS.into_iter().chain([TARGET]).map(str::to_owned).collect();
        let Ok(kernel) = btf::read(&Wanted { functions, ..Wanted::default() }) else { return };
        // All that is known here is whether it has them: what waits for a lock was not asked for.
        let hold = hold(&kernel);
        let lost = bpf::map_create(&bpf::Map {
            name: "LOST",
            map_type: bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32,
            key_size: 4,
            value_size: 8,
            max_entries: LOSSES,
            flags: 0,
            btf: None,
            inner: None,
        });
        // Nothing where we may not make one.
        let (Ok(lost), Ok(marks)) = (lost, bpf::data_create("MARKS", 0, &[0; MARKS])) else { return };
        let turn = |copy| Turn { copy, marks: marks.as_raw_fd(), lost: lost.as_raw_fd(), program: 1 };
        for turn in [None, Some(turn(Copied::First)), Some(turn(Copied::Second))] {
            for hold in [None, hold] {
                let program = vec![new(SET, 0, 0, 0, 0), new(EXIT, 0, 0, 0, 0)];
                let functions = Functions { cast: None, hold };
                let prog = fentry("test", TARGET);
                let loaded = load(&prog, kernel.function(TARGET), program, functions, turn, c"GPL");
                match loaded {
                    Ok(loaded) => assert!(!loaded.unheld, "{turn:?}"),
                    Err(Fault::Load(error, log)) => {
                        assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32), "{turn:?}: {log}");
                    }
                    Err(_) => unreachable!(),
                }
            }
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
        let whole = wrapped(&program, Some(HOLD), None).expect("it is built so");
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
        assert!(wrapped(&[instruction((0x85, 0, 1, 0, -5))], Some(HOLD), None).is_none());
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
