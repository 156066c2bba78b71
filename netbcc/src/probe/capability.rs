//! What the kernel will let us do, asked before anything is loaded.

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::hinted;
use crate::sys::machine::{self, Space};

/// Fails unless this process may load and attach tracing programs.
pub(super) fn require() -> Result<()> {
    if let Some(names) = missing()? {
        return Err(hinted(
            anyhow!("no permission to load BPF programs: {}", lacks(names)),
            "run it as root (sudo), or give the binary the file capabilities cap_bpf,cap_perfmon=ep (setcap)",
        ));
    }
    if machine::is_elsewhere(Space::User) {
        return Err(hinted(
            anyhow!("no permission to load BPF programs: {ELSEWHERE}"),
            "run it as root of the host, outside of the container or of unshare -U",
        ));
    }
    machine::require_proc()
}

/// What capabilities are worth that are not the host's.
pub(super) const ELSEWHERE: &str =
    "its capabilities are those of a user namespace, and the kernel asks for those of the host";

/// What this process would need and does not have.
pub(super) fn missing() -> Result<Option<&'static [&'static str]>> {
    let ours = capabilities(None).context("read our capabilities")?.effective;
    let has = |capability| ours.contains(capability);
    Ok(match (has(CapabilitySet::SYS_ADMIN), has(CapabilitySet::BPF), has(CapabilitySet::PERFMON)) {
        (true, ..) | (_, true, true) => None,
        (_, true, false) => Some(&["CAP_PERFMON"]),
        (_, false, true) => Some(&["CAP_BPF"]),
        (_, false, false) => Some(&["CAP_BPF", "CAP_PERFMON"]),
    })
}

/// Whether this process may lock more memory than it was given.
pub(super) fn may_lock() -> bool {
    capabilities(None).is_ok_and(|ours| ours.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Says what is missing.
pub(super) fn lacks(names: &[&str]) -> String {
    format!("{} {} missing", names.join(" and "), if names.len() == 1 { "is" } else { "are" })
}
