//! What the instructions of programs say about them: [`needed`], the fields of the kernel that a program reads.
//!
//! A program reads a field at the offset that it finds in the global `OFFSETS`. Which of these it reads, its instructions
//! say; which of them are ever reached, says a walk with the constants that user space has set, as the verifier does it: a
//! filter that is off reads nothing. So there is no list of fields by hand that could be wrong.
//!
//! Lives here: what can be known without the kernel. Must never live here: what becomes of a program.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use aya_obj::generated::{BPF_PSEUDO_CALL, BPF_PSEUDO_MAP_VALUE, bpf_insn};

/// What a program finds in memory that never changes.
pub(super) struct Constants<'a> {
    /// The bytes of each map of constants.
    pub(super) data: HashMap<usize, &'a [u8]>,
    /// Where the offsets are: in which map, and at which of its bytes.
    pub(super) table: (usize, Range<usize>),
}

/// An instruction of a kind that our compiler does not use for the table of offsets: what is read cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclear;

/// What is known of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Unknown,
    Number(u64),
    /// The address of a byte of a map of constants.
    Constant(usize, u64),
    /// It may be an address in the table of offsets, of any of them.
    Offsets,
}

use Value::{Constant, Number, Offsets, Unknown};

/// What is known where the program is.
#[derive(Clone, PartialEq, Eq)]
struct State {
    registers: [Value; 11],
    /// Addresses of constants that lie on the stack. Numbers there are not followed.
    stack: Vec<(i16, Value)>,
}

/// The number of the stack's register.
const STACK: usize = 10;

// Kinds of instructions (Documentation/bpf/standardization/instruction-set.rst).
const CLASS: u8 = 0x07;
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const SIZE: u8 = 0x18;
const WHOLE: u8 = 0x18;
const MODE: u8 = 0xe0;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
const OPERATION: u8 = 0xf0;
const BY_REGISTER: u8 = 0x08;
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The half of a register that 32-bit instructions know.
const LOWER: u64 = 0xffff_ffff;

/// The indices, in the table of offsets, of those that the program may read.
pub(super) fn needed(
    instructions: &[bpf_insn],
    constants: &Constants<'_>,
) -> Result<BTreeSet<usize>, Unclear> {
    let mut walk = Walk {
        instructions,
        constants,
        met: vec![None; instructions.len()],
        is_met: vec![false; instructions.len()],
        todo: Vec::new(),
        found: BTreeSet::new(),
    };
    for (at, this) in instructions.iter().enumerate() {
        if let Some(to) = Walk::target(at, *this) {
            *walk.is_met.get_mut(to).ok_or(Unclear)? = true;
        }
    }
    walk.todo.push((0, State { registers: [Unknown; 11], stack: Vec::new() }));
    while let Some((at, state)) = walk.todo.pop() {
        walk.from(at, state)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    instructions: &'a [bpf_insn],
    constants: &'a Constants<'a>,
    /// Where ways meet: what is known on all of them so far.
    met: Vec<Option<Box<State>>>,
    /// Whether a jump leads there.
    is_met: Vec<bool>,
    todo: Vec<(usize, State)>,
    found: BTreeSet<usize>,
}

impl Walk<'_> {
    /// Where the instruction at `at` may jump to, or which function it calls.
    fn target(at: usize, this: bpf_insn) -> Option<usize> {
        let class = this.code & CLASS;
        if class != JMP && class != JMP32 {
            return None;
        }
        let by = match this.code & OPERATION {
            EXIT => return None,
            CALL if u32::from(this.src_reg()) != BPF_PSEUDO_CALL => return None,
            CALL => this.imm,
            ALWAYS if class == JMP32 => this.imm,
            _ => this.off.into(),
        };
        (at + 1).checked_add_signed(isize::try_from(by).ok()?)
    }

    /// Goes on from `at` until the program ends, or until nothing new is known.
    fn from(&mut self, mut at: usize, mut state: State) -> Result<(), Unclear> {
        loop {
            let this = *self.instructions.get(at).ok_or(Unclear)?;
            if self.is_met[at] {
                match &mut self.met[at] {
                    Some(known) => {
                        let both = self.constants.both(known, &state);
                        if both == **known {
                            return Ok(());
                        }
                        state.clone_from(&both);
                        **known = both;
                    }
                    unknown => *unknown = Some(Box::new(state.clone())),
                }
            }
            let class = this.code & CLASS;
            if class != JMP && class != JMP32 {
                at += self.step(at, this, &mut state)?;
                continue;
            }
            match this.code & OPERATION {
                EXIT => return Ok(()),
                CALL => {
                    if let Some(function) = Self::target(at, this) {
                        self.todo.push((function, State { registers: [Unknown; 11], stack: Vec::new() }));
                    }
                    state.registers[..6].fill(Unknown);
                }
                operation => {
                    let to = Self::target(at, this).ok_or(Unclear)?;
                    match Self::jumps(this, operation, &state) {
                        Some(true) => {
                            at = to;
                            continue;
                        }
                        Some(false) => {}
                        None => self.todo.push((to, state.clone())),
                    }
                }
            }
            at += 1;
        }
    }

    /// Whether a jump is taken, if that is known.
    fn jumps(this: bpf_insn, operation: u8, state: &State) -> Option<bool> {
        if operation == ALWAYS {
            return Some(true);
        }
        let (Number(mut a), Number(mut b)) =
            (state.registers[usize::from(this.dst_reg())], Self::source(this, state))
        else {
            return None;
        };
        if this.code & CLASS == JMP32 {
            // With their signs, so that all comparisons are those of 64 bits.
            [a, b] = [a, b].map(|word| ((word << 32).cast_signed() >> 32).cast_unsigned());
        }
        let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
        Some(match operation {
            0x10 => a == b,
            0x20 => a > b,
            0x30 => a >= b,
            0x40 => a & b != 0,
            0x50 => a != b,
            0x60 => signed_a > signed_b,
            0x70 => signed_a >= signed_b,
            0xa0 => a < b,
            0xb0 => a <= b,
            0xc0 => signed_a < signed_b,
            0xd0 => signed_a <= signed_b,
            _ => return None,
        })
    }

    /// The second operand.
    fn source(this: bpf_insn, state: &State) -> Value {
        if this.code & BY_REGISTER != 0 {
            state.registers[usize::from(this.src_reg())]
        } else {
            Number(i64::from(this.imm).cast_unsigned())
        }
    }

    /// Does an instruction that is no jump; answers how many places it has.
    fn step(&mut self, at: usize, this: bpf_insn, state: &mut State) -> Result<usize, Unclear> {
        let (to, from) = (usize::from(this.dst_reg()), usize::from(this.src_reg()));
        if to > STACK || from > STACK {
            return Err(Unclear);
        }
        let whole = this.code & SIZE == WHOLE;
        match this.code & CLASS {
            LD if this.code == WHOLE => {
                let next = self.instructions.get(at + 1).ok_or(Unclear)?.imm;
                state.registers[to] = match u32::from(this.src_reg()) {
                    0 => Number(u64::from(this.imm.cast_unsigned()) | u64::from(next.cast_unsigned()) << 32),
                    BPF_PSEUDO_MAP_VALUE => Constant(
                        usize::try_from(this.imm).map_err(|_| Unclear)?,
                        u64::from(next.cast_unsigned()),
                    ),
                    _ => Unknown,
                };
                return Ok(2);
            }
            LD => state.registers[0] = Unknown,
            LDX if from == STACK => {
                let there = state.stack.iter().find(|(place, _)| whole && *place == this.off);
                state.registers[to] = there.map_or(Unknown, |(_, value)| *value);
            }
            LDX => state.registers[to] = self.load(this, state.registers[from])?,
            ST | STX if to == STACK => {
                // An entry is eight bytes, and so is what is written at most.
                state.stack.retain(|(place, _)| place.abs_diff(this.off) >= 8);
                let value = state.registers[from];
                let is_plain = this.code & (CLASS | MODE) == STX | MEM;
                if is_plain && matches!(value, Constant(..) | Offsets) {
                    if !whole {
                        return Err(Unclear);
                    }
                    state.stack.push((this.off, value));
                    state.stack.sort_unstable_by_key(|(place, _)| *place);
                }
                Self::fetch(this, state);
            }
            STX => {
                if self.constants.has(state.registers[from]) {
                    return Err(Unclear);
                }
                Self::fetch(this, state);
            }
            ST => {}
            _ => state.registers[to] = self.calculate(this, state),
        }
        Ok(1)
    }

    /// What an atomic instruction leaves in registers.
    fn fetch(this: bpf_insn, state: &mut State) {
        if this.code & (CLASS | MODE) == STX | ATOMIC {
            state.registers[usize::from(this.src_reg())] = Unknown;
            state.registers[0] = Unknown;
        }
    }

    /// What is read through `address`.
    fn load(&mut self, this: bpf_insn, address: Value) -> Result<Value, Unclear> {
        let Constant(map, start) = address else {
            return if address == Offsets { Err(Unclear) } else { Ok(Unknown) };
        };
        let start = start.wrapping_add_signed(this.off.into());
        let start = usize::try_from(start).map_err(|_| Unclear)?;
        let bytes = match this.code & SIZE {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        };
        let (table, places) = &self.constants.table;
        if map == *table && places.contains(&start) {
            self.found.insert((start - places.start) / size_of::<u16>());
        }
        let read = self.constants.data.get(&map).and_then(|data| data.get(start..start + bytes));
        Ok(match read {
            Some(read) if this.code & MODE == MEM => {
                let mut word = [0; 8];
                word[..bytes].copy_from_slice(read);
                Number(u64::from_le_bytes(word))
            }
            _ => Unknown,
        })
    }

    /// The result of an arithmetic instruction.
    fn calculate(&self, this: bpf_insn, state: &State) -> Value {
        let (a, b) = (state.registers[usize::from(this.dst_reg())], Self::source(this, state));
        let operation = this.code & OPERATION;
        let narrow = this.code & CLASS == ALU;
        match (a, b) {
            (_, b) if operation == 0xb0 && this.off == 0 && !narrow => b,
            (_, Number(b)) if operation == 0xb0 && this.off == 0 => Number(b & LOWER),
            (Constant(map, at), Number(by)) if operation == 0x00 && !narrow => {
                Constant(map, at.wrapping_add(by))
            }
            (Number(by), Constant(map, at)) if operation == 0x00 && !narrow => {
                Constant(map, at.wrapping_add(by))
            }
            (Number(a), Number(b)) => number(operation, a, b, narrow).map_or(Unknown, Number),
            (a, b) if operation != 0xb0 && (self.constants.has(a) || self.constants.has(b)) => Offsets,
            _ => Unknown,
        }
    }
}

/// `a` and `b` put together; `None` for what is not followed.
fn number(operation: u8, a: u64, b: u64, narrow: bool) -> Option<u64> {
    let (a, shift) = if narrow { (a & LOWER, b & 31) } else { (a, b & 63) };
    let result = match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << shift,
        0x70 => a >> shift,
        0xa0 => a ^ b,
        _ => return None,
    };
    Some(if narrow { result & LOWER } else { result })
}

impl Constants<'_> {
    /// Whether `value` may be an address in the table of offsets.
    fn has(&self, value: Value) -> bool {
        match value {
            Offsets => true,
            Constant(map, at) => {
                map == self.table.0 && usize::try_from(at).is_ok_and(|at| self.table.1.contains(&at))
            }
            Unknown | Number(_) => false,
        }
    }

    /// What is known of a value that is one of these.
    fn either(&self, a: Value, b: Value) -> Value {
        if a == b {
            a
        } else if self.has(a) || self.has(b) {
            Offsets
        } else {
            Unknown
        }
    }

    /// What is known where both ways may have led.
    fn both(&self, a: &State, b: &State) -> State {
        let mut both = a.clone();
        for (value, other) in both.registers.iter_mut().zip(b.registers) {
            *value = self.either(*value, other);
        }
        for (place, value) in &mut both.stack {
            let other = b.stack.iter().find(|(other, _)| other == place);
            *value = self.either(*value, other.map_or(Unknown, |(_, value)| *value));
        }
        // What lies there on one of the ways only.
        let others = b.stack.iter().filter(|(place, _)| a.stack.iter().all(|(other, _)| other != place));
        let others: Vec<_> = others.map(|(place, value)| (*place, self.either(Unknown, *value))).collect();
        both.stack.extend(others);
        both.stack.retain(|(_, value)| *value != Unknown);
        both.stack.sort_unstable_by_key(|(place, _)| *place);
        both
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use aya_obj::generated::bpf_insn;
    use netbcc_common::filter::{Filter, GROUP, MNTNSMAP};
    use netbcc_common::kernel::{FIELD_COUNT, Field, MISSING};
    use zerocopy::IntoBytes as _;

    use super::super::object::{Means, Object};
    use crate::hook::Prog;
    use crate::registry::TOOLS;

    /// `BPF_LDX | BPF_MEM` and `BPF_STX | BPF_MEM`, without the bits of the size.
    const LOAD: u8 = 0x61;
    const STORE: u8 = 0x63;
    const SIZE: u8 = 0x18;

    /// Whether a sum is read from memory, added to, and written back by these instructions, which end with the write; the
    /// stack, which is each run's own, aside.
    fn adds(instructions: &[bpf_insn]) -> bool {
        let Some((write, before)) = instructions.split_last() else { return false };
        let (place, value) = (write.dst_reg(), write.src_reg());
        if write.code & !SIZE != STORE & !SIZE || place == 10 {
            return false;
        }
        let mut added = false;
        for this in before.iter().rev().take(16) {
            let class = this.code & 7;
            // A jump, a call, or another place in the same register.
            if class == 5 || class == 6 || (this.dst_reg() == place && class != 3 && class != 2) {
                return false;
            }
            let is_sum = (class == 4 || class == 7) && this.code & 0xf0 == 0 && this.dst_reg() == value;
            added |= is_sum;
            let same = this.code == write.code & SIZE | LOAD & !SIZE && this.src_reg() == place;
            if added && same && this.off == write.off {
                return true;
            }
        }
        false
    }

    /// The object of a tool, on a kernel that has all fields but `absent`, with this filter.
    fn object(tool: &str, absent: &[Field], filter: Filter) -> Object {
        let mut offsets = [8_u16; FIELD_COUNT];
        for field in absent {
            offsets[*field as usize] = MISSING;
        }
        let globals = HashMap::from([
            ("OFFSETS", (offsets.as_bytes(), true)),
            ("OFFSETS_IF_ANY", (offsets.as_bytes(), false)),
            ("FILTER", (filter.as_bytes(), true)),
        ]);
        let tool = TOOLS.iter().find(|other| other.spec.name == tool).unwrap();
        let means = Means { ipv6: true, ..Means::default() };
        let elf = tool.spec.object.unpack().unwrap();
        Object::parse(elf.as_ref(), globals, &[], Vec::new(), means).unwrap()
    }

    /// The programs of a tool that such a kernel has not got all fields for, and the first of these fields.
    fn lacking(tool: &str, absent: &[Field], filter: Filter) -> BTreeMap<&'static str, Field> {
        let object = object(tool, absent, filter);
        let ladders = TOOLS.iter().find(|other| other.spec.name == tool).unwrap().spec.ladders;
        let programs = ladders.iter().flat_map(|ladder| ladder.rungs).flat_map(|rung| rung.programs);
        let lacks = |prog: &Prog| Some((prog.name, object.lacks(prog).expect("it can be told")?));
        programs.filter_map(lacks).collect()
    }

    #[test]
    fn what_every_program_reads_can_be_told() {
        for tool in TOOLS {
            assert_eq!(lacking(tool.spec.name, &[], Filter::default()), BTreeMap::new());
        }
    }

    #[test]
    fn a_missing_field_is_missed_by_the_programs_that_read_it_only() {
        let programs = |tool, field| {
            let found = lacking(tool, &[field], Filter::default());
            assert!(found.values().all(|other| *other == field), "{found:?}");
            found.into_keys().collect::<Vec<_>>()
        };
        // Descriptors are looked up where system calls tell what was sent, and nowhere else.
        for field in [Field::TaskFiles, Field::FdtFd, Field::SocketFile, Field::TaskThreadInfo, Field::RegsDi]
        {
            // On arm64 arguments are elsewhere.
            let absent = [field, Field::RegsRegs];
            for tool in ["tcptop", "tcpsubnet"] {
                let found = lacking(tool, &absent, Filter::default());
                assert_eq!(found, BTreeMap::from([("call_tp", field)]), "{tool}");
            }
        }
        assert_eq!(programs("tcpconnect", Field::TcpSegsOut), ["state_tp"]);
        // Kprobes ask a helper for a name, but for another thread's.
        let absent = [Field::TaskComm, Field::TaskGroupLeader];
        let names = lacking("tcptop", &absent, Filter::default());
        assert_eq!(names.get("send_fexit"), Some(&Field::TaskComm), "{names:?}");
        assert_eq!(names.get("release_kprobe"), None, "{names:?}");
        assert!(programs("softirqs", Field::SkFamily).is_empty());
    }

    #[test]
    fn a_field_that_a_kernel_may_be_without_is_not_missed() {
        let mptcp = [Field::TcpIsMptcp, Field::IcskUlpData, Field::SubflowConn];
        for tool in TOOLS {
            let name = tool.spec.name;
            // Without MPTCP; of the other architecture; where a timer is never early; where other tasks cannot be read.
            let other_arch = [Field::RegsRegs, Field::RegsOrigX0];
            for absent in [&mptcp[..], &other_arch, &[Field::IcskTimeout], &[Field::TaskGroupLeader]] {
                assert_eq!(lacking(name, absent, Filter::default()), BTreeMap::new(), "{name}");
            }
        }
        // With MPTCP the other two are needed.
        let found = lacking("tcplife", &mptcp[2..], Filter::default());
        assert_eq!(found.get("state_tp"), Some(&Field::SubflowConn));
    }

    #[test]
    fn a_field_of_a_filter_is_missed_with_that_filter_only() {
        let absent = [Field::TaskNsproxy];
        let on = |by_task| Filter { by_task, ..Filter::default() };
        for tool in ["tcpconnect", "tcptracer", "tcptop", "tcpaccept"] {
            assert_eq!(lacking(tool, &absent, Filter::default()), BTreeMap::new(), "{tool}");
            assert!(!lacking(tool, &absent, on(MNTNSMAP)).is_empty(), "{tool}");
        }
        for tool in ["tcpdrop", "tcplife", "tcpretrans", "tcpstates"] {
            assert_eq!(lacking(tool, &[Field::SkCgrpData], Filter::default()), BTreeMap::new(), "{tool}");
            assert!(!lacking(tool, &[Field::SkCgrpData], on(GROUP)).is_empty(), "{tool}");
        }
    }

    #[test]
    fn a_sum_in_three_steps_is_found_and_an_atomic_one_is_not() {
        let this = |code, dst, src, imm| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
            off: 0,
            imm,
        };
        // r1 = *(u64 *)(r0 + 0); r1 += 1; *(u64 *)(r0 + 0) = r1
        let steps = [this(0x79, 1, 0, 0), this(0x07, 1, 0, 1), this(0x7b, 0, 1, 0)];
        assert!(adds(&steps));
        assert!(!adds(&steps[1..]));
        // r1 = 1; lock *(u64 *)(r0 + 0) += r1
        assert!(!adds(&[this(0xb7, 1, 0, 1), this(0xdb, 0, 1, 0)]));
    }

    #[test]
    fn words_of_maps_that_several_programs_add_to_are_added_to_at_once() {
        // Each says beside the sum why nothing comes between: "Alone".
        let alone = [
            ("hardirqs", "exit_raw"),
            ("hardirqs", "exit_tp"),
            ("netqtop", "received_raw"),
            ("netqtop", "received_tp"),
            ("netqtop", "sent_raw"),
            ("netqtop", "sent_tp"),
            ("softirqs", "entry_of_some_tp"),
            ("softirqs", "exit_of_some_tp"),
            ("softirqs", "exit_tp"),
            ("softirqslower", "raise_tp"),
            // These forget one of two packets where one interrupts another right there.
            ("tcpdrop", "receive4_fentry"),
            ("tcpdrop", "receive4_kprobe"),
            ("tcpdrop", "receive6_fentry"),
            ("tcpdrop", "receive6_kprobe"),
            ("tcpdrop", "receive_tp"),
            ("tcpsubnet", "call_tp"),
            ("tcpsubnet", "page_fexit"),
            ("tcpsubnet", "send_fexit"),
            ("tcpsubnet", "release_kprobe"),
            ("tcpsubnet", "sent_tp"),
            ("tcpsynbl", "listener_iter"),
            ("tcpsynbl", "listener_marks_iter"),
            ("tcptop", "read_tp"),
            ("tcpwhy", "again2_tp"),
            ("tcpwhy", "again3_tp"),
            ("tcpwhy", "error_tp"),
            ("tcpwhy", "reset_again_tp"),
            ("tcpwhy", "reset_tp"),
            ("tcpwhy", "state_again_tp"),
            ("tcpwhy", "state_tp"),
        ];
        let mut found = BTreeSet::new();
        for tool in TOOLS {
            let name = tool.spec.name;
            let elf = tool.spec.object.unpack().unwrap();
            let object =
                Object::parse(elf.as_ref(), HashMap::new(), &[], Vec::new(), Means::default()).unwrap();
            for (program, instructions) in object.code() {
                if (1..=instructions.len()).any(|end| adds(&instructions[..end])) {
                    found.insert((name, program.to_owned()));
                }
            }
        }
        let vectors = netbcc_common::hardirqs::VECTORS.map(|name| ("hardirqs", format!("{name}_exit_raw")));
        let expected: BTreeSet<_> =
            alone.iter().map(|&(tool, program)| (tool, program.to_owned())).chain(vectors).collect();
        assert_eq!(found, expected, "use atomic::add, or say why the program is alone with the word");
    }

    /// What a register, or a word of the stack, may be: references to maps, and addresses in values of maps with one per
    /// processor, each as a set of indices.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct May {
        refer: u128,
        point: u128,
    }

    impl May {
        fn or(self, other: Self) -> Self {
            Self { refer: self.refer | other.refer, point: self.point | other.point }
        }
    }

    /// What is known where a program is.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Known {
        registers: [May; 11],
        stack: BTreeMap<i16, May>,
    }

    impl Known {
        /// What is known where another way leads to the same place; whether that is more.
        fn meets(&mut self, other: &Self) -> bool {
            let before = self.clone();
            for (one, two) in self.registers.iter_mut().zip(other.registers) {
                *one = one.or(two);
            }
            for (place, two) in &other.stack {
                let one = self.stack.entry(*place).or_default();
                *one = one.or(*two);
            }
            *self != before
        }
    }

    /// Helpers that write to memory, each with the registers that tell where, as bits: all that tracing programs may call
    /// (`enum bpf_func_id` in linux/bpf.h). Other registers may still hold what nobody needs any more.
    const WRITERS: [(i32, u8); 26] = [
        (4, 1 << 1),   // probe_read
        (16, 1 << 1),  // get_current_comm
        (26, 1 << 3),  // skb_load_bytes
        (45, 1 << 1),  // probe_read_str
        (55, 1 << 3),  // perf_event_read_value
        (56, 1 << 2),  // perf_prog_read_value
        (67, 1 << 2),  // get_stack
        (88, 1 << 2),  // map_pop_elem
        (89, 1 << 2),  // map_peek_elem
        (105, 1 << 4), // strtol
        (106, 1 << 4), // strtoul
        (112, 1 << 1), // probe_read_user
        (113, 1 << 1), // probe_read_kernel
        (114, 1 << 1), // probe_read_user_str
        (115, 1 << 1), // probe_read_kernel_str
        (119, 1 << 2), // read_branch_records
        (120, 1 << 3), // get_ns_current_pid_tgid
        (141, 1 << 2), // get_task_stack
        (147, 1 << 2), // d_path
        (148, 1 << 1), // copy_from_user
        (149, 1 << 1), // snprintf_btf
        (165, 1 << 1), // snprintf
        (183, 1 << 3), // get_func_arg
        (184, 1 << 2), // get_func_ret
        (191, 1 << 1), // copy_from_user_task
        (201, 1 << 1), // dynptr_read
    ];

    /// The maps, of those with these indices, to whose values a program writes other than by one atomic instruction, itself or by a
    /// helper. All ways are gone, also those that constants close.
    fn written(instructions: &[bpf_insn], per_cpu: u128) -> u128 {
        const LOOKUPS: [i32; 2] = [1, 195];
        let target = |at: usize, by: i32| (at + 1).checked_add_signed(isize::try_from(by).unwrap()).unwrap();
        let is_call = |this: &bpf_insn| this.code == 0x85 && this.src_reg() == 1;
        let mut begins: BTreeSet<usize> = BTreeSet::from([0]);
        begins.extend(
            instructions
                .iter()
                .enumerate()
                .filter(|(_, this)| is_call(this))
                .map(|(at, this)| target(at, this.imm)),
        );
        // What each function answers.
        let mut answers: BTreeMap<usize, May> = BTreeMap::new();
        let mut known: BTreeMap<usize, Known> = BTreeMap::from([(0, Known::default())]);
        let mut written = 0;
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            let this = instructions[at];
            let (to, from) = (usize::from(this.dst_reg()), usize::from(this.src_reg()));
            let mut state = known[&at].clone();
            let mut next = vec![at + 1];
            match this.code & 7 {
                // A number, a map, or the address of a value that all processors share.
                0 if this.code == 0x18 => {
                    let refer = if from == 1 { 1 << this.imm } else { 0 };
                    state.registers[to] = May { refer, point: 0 };
                    next = vec![at + 2];
                }
                0 => state.registers[0] = May::default(),
                1 if from == 10 => {
                    state.registers[to] = state.stack.get(&this.off).copied().unwrap_or_default();
                }
                1 => state.registers[to] = May::default(),
                class @ (2 | 3) if to == 10 => {
                    let value = if class == 3 { state.registers[from] } else { May::default() };
                    state.stack.insert(this.off, value);
                }
                2 | 3 if this.code & 0xe0 == 0x60 => written |= state.registers[to].point,
                2 | 3 => {}
                4 | 7 => {
                    let other = if this.code & 8 != 0 { state.registers[from] } else { May::default() };
                    let is_move = this.code & 0xf0 == 0xb0;
                    state.registers[to] = if is_move { other } else { state.registers[to].or(other) };
                }
                _ => match this.code & 0xf0 {
                    0x80 => {
                        let mut result = May::default();
                        if is_call(&this) {
                            let function = target(at, this.imm);
                            let mut entry = Known::default();
                            entry.registers[1..6].copy_from_slice(&state.registers[1..6]);
                            let is_new = !known.contains_key(&function);
                            if known.entry(function).or_default().meets(&entry) || is_new {
                                todo.push(function);
                            }
                            result = answers.get(&function).copied().unwrap_or_default();
                        } else {
                            let to = WRITERS.iter().find(|(helper, _)| *helper == this.imm);
                            for at in (1..6).filter(|at| to.is_some_and(|(_, to)| to & 1 << at != 0)) {
                                written |= state.registers[at].point;
                            }
                            if LOOKUPS.contains(&this.imm) {
                                result.point = state.registers[1].refer & per_cpu;
                            }
                        }
                        state.registers[..6].fill(May::default());
                        state.registers[0] = result;
                    }
                    0x90 => {
                        next.clear();
                        let function = *begins.range(..=at).next_back().unwrap();
                        let answer = answers.entry(function).or_default();
                        let more = answer.or(state.registers[0]);
                        if more != *answer {
                            *answer = more;
                            // Whoever called it hears more now.
                            let calls = instructions.iter().enumerate().filter(|(_, this)| is_call(this));
                            let calls = calls.filter(|(at, this)| target(*at, this.imm) == function);
                            todo.extend(calls.map(|(at, _)| at).filter(|at| known.contains_key(at)));
                        }
                    }
                    0x00 => {
                        next = vec![target(at, if this.code & 7 == 6 { this.imm } else { this.off.into() })];
                    }
                    _ => next.push(target(at, this.off.into())),
                },
            }
            for at in next {
                let is_new = !known.contains_key(&at);
                if known.entry(at).or_default().meets(&state) || is_new {
                    todo.push(at);
                }
            }
        }
        written
    }

    #[test]
    fn writes_to_values_of_a_processor_are_found() {
        let this = |code, dst, src, off, imm| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
            off,
            imm,
        };
        let exit = this(0x95, 0, 0, 0, 0);
        // r1 = map 3; call bpf_map_lookup_elem; if r0 == 0 goto exit; then what follows.
        let program = |body: &[bpf_insn]| {
            let begin = [
                this(0x18, 1, 1, 0, 3),
                this(0, 0, 0, 0, 0),
                this(0x85, 0, 0, 0, 1),
                this(0x15, 0, 0, i16::try_from(body.len()).unwrap(), 0),
            ];
            [&begin[..], body, &[exit]].concat()
        };
        let of = |body: &[bpf_insn]| written(&program(body), 1 << 3);
        // *(u64 *)(r0 + 8) = 1, and as one atomic addition.
        assert_eq!(of(&[this(0x7a, 0, 0, 8, 1)]), 1 << 3);
        assert_eq!(of(&[this(0xdb, 0, 1, 8, 0)]), 0);
        // By way of the stack, and of another register with something added.
        assert_eq!(
            of(&[
                this(0x7b, 10, 0, -8, 0),
                this(0x79, 6, 10, -8, 0),
                this(0x07, 6, 0, 0, 16),
                this(0x62, 6, 0, 0, 1)
            ]),
            1 << 3
        );
        // r1 = r0; call bpf_get_current_comm, which writes there, and bpf_map_delete_elem, which reads.
        assert_eq!(of(&[this(0xbf, 1, 0, 0, 0), this(0x85, 0, 0, 0, 16)]), 1 << 3);
        assert_eq!(of(&[this(0xbf, 2, 0, 0, 0), this(0x85, 0, 0, 0, 3)]), 0);
        // What is read there is written elsewhere.
        assert_eq!(of(&[this(0x79, 2, 0, 0, 0), this(0x7b, 10, 2, -8, 0)]), 0);
        // r1 = r0; call a function of the program, which writes: it lies behind the end.
        let mut whole = program(&[this(0xbf, 1, 0, 0, 0), this(0x85, 0, 1, 0, 1)]);
        whole.extend([this(0x7a, 1, 0, 0, 1), exit]);
        assert_eq!(written(&whole, 1 << 3), 1 << 3);
        // A map whose values all processors share.
        assert_eq!(written(&program(&[this(0x7a, 0, 0, 8, 1)]), 0), 0);
    }

    #[test]
    fn a_program_with_a_copy_writes_to_no_value_of_a_processor_that_the_copy_uses() {
        // What is known of a processor, not of a run: both copies are to see it, and change it by whole words.
        let of_processors = BTreeSet::from([
            ("softirqslower", "entry_of_task_tp", "CPUS"),
            ("softirqslower", "exit_of_task_tp", "CPUS"),
        ]);
        let (mut own, mut shared) = (0, BTreeSet::new());
        for tool in TOOLS {
            let name = tool.spec.name;
            let elf = tool.spec.object.unpack().unwrap();
            let object =
                Object::parse(elf.as_ref(), HashMap::new(), &[], Vec::new(), Means::default()).unwrap();
            let per_cpu: BTreeMap<usize, String> =
                object.per_cpu().map(|(at, map)| (at, map.to_owned())).collect();
            let bits = per_cpu.keys().fold(0, |bits, index| bits | 1_u128 << index);
            let code: HashMap<&str, &[bpf_insn]> = object.code().collect();
            let programs = tool.spec.ladders.iter().flat_map(|ladder| ladder.rungs);
            for prog in programs.flat_map(|rung| rung.programs).filter(|prog| prog.twice) {
                let written = written(code[prog.name], bits);
                let mut needs_own = false;
                for (_, map) in per_cpu.iter().filter(|(at, _)| written & 1 << **at != 0) {
                    if prog.own == Some(map) {
                        needs_own = true;
                    } else {
                        shared.insert((name, prog.name, map.clone()));
                    }
                }
                assert_eq!(needs_own, prog.own.is_some(), "{name}: {}", prog.name);
                own += usize::from(needs_own);
            }
        }
        let of_processors: BTreeSet<_> =
            of_processors.into_iter().map(|(tool, prog, map)| (tool, prog, map.to_owned())).collect();
        assert_eq!(shared, of_processors, "see Prog::twice_with_own, or say why both copies may write there");
        assert!(own > 0, "tcpdrop keeps a stack there");
    }
}
