//! What the instructions of programs say about them.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use aya_obj::generated::bpf_insn;

    use super::super::object::{Means, Object};
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
            ("netqtop", "received_raw"),
            ("netqtop", "received_tp"),
            ("netqtop", "sent_raw"),
            ("netqtop", "sent_tp"),
            ("softirqs", "entry_of_some_tp"),
            ("softirqs", "exit_of_some_tp"),
            ("softirqs", "exit_tp"),
            // These forget one of two packets where one interrupts another right there.
            ("tcpdrop", "receive4_fentry"),
            ("tcpdrop", "receive4_kprobe"),
            ("tcpdrop", "receive6_fentry"),
            ("tcpdrop", "receive6_kprobe"),
            ("tcpdrop", "receive_tp"),
            ("tcpsubnet", "call_tp"),
            ("tcpsubnet", "page_fexit"),
            ("tcpsubnet", "page_kretprobe"),
            ("tcpsubnet", "send_fexit"),
            ("tcpsubnet", "send_kretprobe"),
            ("tcpsubnet", "sent_tp"),
            ("tcptop", "read_tp"),
        ];
        let mut found = BTreeSet::new();
        for tool in TOOLS {
            let name = tool.spec.name;
            let object =
                Object::parse(tool.spec.object, HashMap::new(), &[], Vec::new(), Means::default()).unwrap();
            for (program, instructions) in object.code() {
                if (1..=instructions.len()).any(|end| adds(&instructions[..end])) {
                    found.insert((name, program.to_owned()));
                }
            }
        }
        let expected: BTreeSet<_> = alone.iter().map(|&(tool, program)| (tool, program.to_owned())).collect();
        assert_eq!(found, expected, "use atomic::add, or say why the program is alone with the word");
    }
}
