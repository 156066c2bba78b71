//! Facts of the machine that decide what programs may do. What cannot be seen is `None`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_getres};

use crate::error::hinted;

/// A setting of the kernel, as `/proc/sys` shows it.
pub fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

/// Fails where no `/proc` is mounted: what the kernel tells of processes, namespaces and itself is there.
///
/// # Errors
/// There is none.
pub fn require_proc() -> Result<()> {
    if !Path::new("/proc/self").exists() {
        return Err(hinted(anyhow!("no /proc is mounted here"), "mount -t proc proc /proc"));
    }
    Ok(())
}

/// The name of this host, as programs in this UTS namespace see it; empty if it has none.
pub fn host_name() -> String {
    sysctl("kernel/hostname").filter(|name| name != "(none)").unwrap_or_default()
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Numbers of processes.
    Pid,
    /// Users and their capabilities.
    User,
    /// Clocks.
    Time,
}

/// Whether this process is in another namespace than the host's first one, as far as that can be seen.
pub fn is_elsewhere(space: Space) -> bool {
    let (name, _) = first(space);
    let path = format!("/proc/self/ns/{name}");
    fs::metadata(&path).is_ok() && !is_first(&path, space)
}

/// Whether this file of /proc stands for the host's first namespace.
pub fn is_first(path: &str, space: Space) -> bool {
    fs::metadata(path).is_ok_and(|namespace| namespace.ino() == first(space).1)
}

/// The file of a kind of namespace, and the inode number of the host's first one.
fn first(space: Space) -> (&'static str, u64) {
    // The first ones have inode numbers of their own (include/linux/proc_ns.h, include/uapi/linux/nsfs.h since 6.18).
    match space {
        Space::Pid => ("pid", 0xefff_fffc),
        Space::User => ("user", 0xefff_fffd),
        Space::Time => ("time", 0xefff_fffa),
    }
}

/// How many microseconds the kernel takes a jiffy for: what its coarse clock counts by.
///
/// # Errors
/// The clock does not say.
pub fn jiffy_us() -> Result<u64> {
    let tick =
        clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context("ask the coarse clock how fine it is")?;
    let tick = u64::try_from(tick.num_nanoseconds()).ok().filter(|tick| (1..=1_000_000_000).contains(tick));
    let tick = tick.context("the coarse clock does not say how fine it is")?;
    // As many as fit into a second are a whole number: `USEC_PER_SEC / HZ`.
    let hz = (1_000_000_000 + tick / 2) / tick;
    Ok(1_000_000 / hz)
}

/// How far our monotonic clock is ahead of the kernel's own, by which events are stamped, in nanoseconds.
///
/// # Errors
/// We are in a time namespace whose clock cannot be told.
pub fn clock_ahead() -> Result<i64> {
    if !is_elsewhere(Space::Time) {
        return Ok(0);
    }
    let number = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).map(|namespace| namespace.ino());
    // What the kernel shows is the namespace that children will have.
    let ahead = if number("time")? == number("time_for_children")? {
        fs::read_to_string("/proc/self/timens_offsets").ok().and_then(|text| ahead(&text))
    } else {
        None
    };
    ahead.context("the clock of this time namespace cannot be compared with the host's")
}

/// Nanoseconds in the line `monotonic SECONDS NANOSECONDS`.
fn ahead(offsets: &str) -> Option<i64> {
    let mut numbers = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?.split_whitespace();
    let mut next = || numbers.next()?.parse::<i64>().ok();
    next()?.checked_mul(1_000_000_000)?.checked_add(next()?)
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

/// Fails where this process may have less memory or fewer open files than any tool needs: what is short of memory can
/// only be aborted later.
///
/// # Errors
/// Which limit is too low.
pub fn enough_room() -> Result<()> {
    /// More than any tool has taken right after its start, a thread's stack included.
    const LEAST: u64 = 16 << 20;
    for (option, resource) in [("-d", Resource::RLIMIT_DATA), ("-v", Resource::RLIMIT_AS)] {
        if let Ok((soft, _)) = getrlimit(resource)
            && soft < LEAST
        {
            bail!(
                "this process may have {} KiB of memory (ulimit {option}): it needs {}",
                soft >> 10,
                LEAST >> 10
            );
        }
    }
    if let Some(most) = open_files().filter(|&most| most < 16) {
        bail!("this process may have {most} open files (ulimit -n): it needs about 64");
    }
    Ok(())
}

/// How many files this process may have open.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

/// Lets this process open as many files as it may ask for.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _stays_as_it_is = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
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
    fn a_clock_may_be_ahead_or_behind() {
        let of = |seconds| format!("monotonic  {seconds}         5\nboottime            7         0\n");
        assert_eq!(ahead(&of("       86400")), Some(86_400_000_000_005));
        assert_eq!(ahead(&of("          -1")), Some(-999_999_995));
        assert_eq!(ahead("boottime 1 0\n"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:  1024 kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(2 << 20));
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(1 << 20));
        assert_eq!(kilobytes(text, "Other:"), None);
    }
}
