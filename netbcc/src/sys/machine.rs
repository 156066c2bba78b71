//! Facts of the machine that decide what programs may do. What cannot be seen is `None`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::resource::{Resource, getrlimit};

/// A setting of the kernel, as `/proc/sys` shows it.
pub fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Numbers of processes.
    Pid,
    /// Users and their capabilities.
    User,
}

/// Whether this process is in another namespace than the host's first one, as far as that can be seen.
pub fn is_elsewhere(space: Space) -> bool {
    // The first ones have inode numbers of their own (include/linux/proc_ns.h, include/uapi/linux/nsfs.h since 6.18).
    let (name, first) = match space {
        Space::Pid => ("pid", 0xefff_fffc),
        Space::User => ("user", 0xefff_fffd),
    };
    fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|namespace| namespace.ino() != first)
}

/// How far the kernel is locked down: `none`, `integrity` or `confidentiality`.
pub fn lockdown() -> Option<String> {
    chosen(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?).map(Into::into)
}

/// The bracketed word: `[none] integrity confidentiality`.
pub(crate) fn chosen(modes: &str) -> Option<&str> {
    modes.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
}

/// The security modules that have a say.
pub fn security_modules() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lsm").ok().map(|text| text.trim().to_owned())
}

/// Bytes of memory: all, and what is to be had.
pub fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some((kilobytes(&text, "MemTotal:")?, kilobytes(&text, "MemAvailable:")?))
}

pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes that this process may lock: kernels before 5.11 count maps and programs as such.
pub fn lockable() -> Option<u64> {
    getrlimit(Resource::RLIMIT_MEMLOCK).ok().map(|(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_bracketed_word() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:  1024 kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(2 << 20));
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(1 << 20));
        assert_eq!(kilobytes(text, "Other:"), None);
    }
}
