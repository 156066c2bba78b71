//! What the kernel will let us do, asked before anything is loaded.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow};

use crate::error::hinted;

/// Bits of the capability sets (include/uapi/linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Fails unless this process may load and attach tracing programs.
pub(super) fn require() -> Result<()> {
    match missing()? {
        None => Ok(()),
        Some(names) => Err(hinted(
            anyhow!("no permission to load BPF programs: {}", lacks(names)),
            "run it as root (sudo), or give the binary the file capabilities cap_bpf,cap_perfmon=ep (setcap)",
        )),
    }
}

/// What this process would need and does not have.
pub(super) fn missing() -> Result<Option<&'static [&'static str]>> {
    let mut status = String::with_capacity(4096); // it says that it is empty, and would be read in tiny pieces
    File::open("/proc/self/status")
        .and_then(|mut file| file.read_to_string(&mut status))
        .context("read /proc/self/status")?;
    let effective = effective(&status).context("/proc/self/status shows no capabilities")?;
    let has = |bit: u32| effective >> bit & 1 != 0;
    Ok(match (has(CAP_SYS_ADMIN), has(CAP_BPF), has(CAP_PERFMON)) {
        (true, ..) | (_, true, true) => None,
        (_, true, false) => Some(&["CAP_PERFMON"]),
        (_, false, true) => Some(&["CAP_BPF"]),
        (_, false, false) => Some(&["CAP_BPF", "CAP_PERFMON"]),
    })
}

/// The same as a sentence.
pub(super) fn lacks(names: &[&str]) -> String {
    format!("{} {} missing", names.join(" and "), if names.len() == 1 { "is" } else { "are" })
}

pub(crate) fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn reads_the_effective_set() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000000000\nCapBnd:\t0\n"), Some(3 << 38));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
