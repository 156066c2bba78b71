//! What the verifier's last words mean: whether the kernel lacks or forbids what a program uses, or the program is wrong.
//!
//! Kernels answer EINVAL to both, and their words change. Those here are of 5.4 to 7.3 (`kernel/bpf/verifier.c`).

use std::fmt;
use std::io;

use nix::errno::Errno;

/// What verifiers say of a program that asks for something which this kernel, its configuration or its lockdown does not
/// give.
const LACKS: [&str; 8] = [
    // A helper: of a later kernel; not for programs of this type (two wordings), or not where they hang.
    "invalid func",
    "unknown func",
    "cannot use helper",
    "helper call is not allowed in probe",
    // A function of the kernel: there is no JIT, or it is not for programs of this type.
    "calling kernel function",
    // A hash that allocates its entries.
    "can only use preallocated hash map",
    // An instruction of a later kernel.
    "uses reserved fields",
    "unknown opcode",
];

/// Whether the verifier looked at the program and found it wrong, as opposed to a kernel that lacks what it uses.
pub(super) fn is_rejection(error: &io::Error, log: &str) -> bool {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let by_verifier =
        matches!(errno, Errno::EACCES | Errno::EINVAL | Errno::E2BIG | Errno::EFAULT | Errno::EPERM);
    // More to say than fits into the largest log: it got far, and then refused.
    let at_length = errno == Errno::ENOSPC;
    (at_length || by_verifier && reached_instructions(log)) && lacking(log).is_none()
}

/// The line that tells what the kernel lacks, if there is one.
pub(super) fn lacking(log: &str) -> Option<&str> {
    log.lines().rev().find(|line| LACKS.iter().any(|words| line.contains(words)))
}

/// Whether the log speaks of the program. Before 5.12, one about what the program hangs on ends in a count, too: of 0
/// instructions.
fn reached_instructions(log: &str) -> bool {
    let counts = log.lines().rev().filter_map(|line| line.strip_prefix("processed "));
    counts.take(1).any(|count| !count.starts_with("0 "))
}

/// The verifier's last sentence, without its statistics.
pub(super) fn last_words(log: &str) -> &str {
    log.lines().rfind(|line| !line.starts_with("processed ")).unwrap_or_default()
}

/// The last lines of a verifier log: where it stopped.
pub(super) struct Tail<'a>(pub(super) &'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.0.lines().collect();
        for line in &lines[lines.len().saturating_sub(20)..] {
            write!(f, "{line} | ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kernels said it: the error, and the end of the log.
    fn said(errno: i32, log: &str) -> (bool, Option<&str>) {
        (is_rejection(&io::Error::from_raw_os_error(errno), log), lacking(log))
    }

    const EINVAL: i32 = Errno::EINVAL as i32;
    const EACCES: i32 = Errno::EACCES as i32;

    #[test]
    fn what_the_kernel_lacks_or_forbids_is_no_defect_of_ours() {
        let stats = |count: u32| {
            format!(
                "processed {count} insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1\n"
            )
        };
        let cases = [
            // 5.10: no storage with sockets; a kernel of 6.12 and one of 7.3 under lockdown=confidentiality.
            (EINVAL, "10: (85) call bpf_sk_storage_get#107\nunknown func bpf_sk_storage_get#107\n", 11),
            (EINVAL, "invalid func unknown#184\n", 9),
            (EINVAL, "program of this type cannot use helper bpf_probe_read_kernel#113\n", 40),
            (EINVAL, "helper call is not allowed in probe\n", 3),
            // 7.3 with net.core.bpf_jit_enable=0; and a kernel whose kfunc is for other programs.
            (524, "JIT is required for calling kernel function\n", 0),
            (EINVAL, "JIT does not support calling kernel function\n", 0),
            (EACCES, "calling kernel function bpf_rdonly_cast is not allowed\n", 5),
            // 5.10-rt, and an atomic instruction before 5.12.
            (EINVAL, "trace type programs can only use preallocated hash map\n", 0),
            (EINVAL, "BPF_STX uses reserved fields\n", 0),
            (EINVAL, "unknown opcode c3\n", 17),
        ];
        for (errno, text, count) in cases {
            let log = text.to_owned() + &stats(count);
            let (rejection, lacks) = said(errno, &log);
            assert!(!rejection, "{log}");
            assert_eq!(lacks, text.lines().last(), "{log}");
        }
    }

    #[test]
    fn what_a_program_hangs_on_is_no_defect_of_ours() {
        let log = "attach_btf_id 4711 is not a function\n";
        assert!(!said(EINVAL, log).0);
        // Up to 5.11 the statistics follow all the same.
        let log = log.to_owned()
            + "processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n";
        assert!(!said(EINVAL, &log).0);
        assert!(!said(EINVAL, "").0);
        assert_eq!(last_words(&log), "attach_btf_id 4711 is not a function");
    }

    #[test]
    fn what_nothing_explains_is_a_defect_of_ours() {
        let stats =
            "processed 812 insns (limit 1000000) max_states_per_insn 4 total_states 60 peak_states 60\n";
        for (errno, text) in [
            (EACCES, "R2 invalid mem access 'scalar'\n"),
            (EACCES, "invalid access to map value, value_size=8 off=8 size=8\n"),
            (EINVAL, "R1 type=fp expected=ctx\n"),
            (Errno::E2BIG as i32, "BPF program is too large. Processed 1000001 insn\n"),
        ] {
            let log = text.to_owned() + stats;
            assert_eq!(said(errno, &log), (true, None), "{log}");
        }
        assert!(said(Errno::ENOSPC as i32, "1: (85) call bpf_map_lookup_elem#1\n").0);
    }
}
