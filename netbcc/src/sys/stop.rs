//! The signals that end a tool: SIGINT, SIGTERM and SIGHUP, unless whoever started us had them ignored.
//!
//! They are blocked and read from a descriptor (signalfd(2)), so that none interrupts a system call, none is missed
//! between two looks, and one that comes while the tool still loads its programs is a normal end, too.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const STOPS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Blocks the signals that end a tool; from now on they wait for [`Stop::listen`].
///
/// SIGXFSZ is blocked, too: a write beyond the limit of a file's size then fails (EFBIG), and is reported as any other.
///
/// # Errors
/// The kernel does not take the mask, which it always does.
pub fn hold() -> Result<()> {
    let mut mask = stops();
    mask.add(Signal::SIGXFSZ);
    mask.thread_block().context("block the signals that end a run")
}

/// Takes back what [`hold`] did: one of the signals that has come meanwhile ends this process now.
///
/// # Errors
/// The kernel does not take the mask, which it always does.
pub fn release() -> Result<()> {
    let mut mask = stops();
    mask.add(Signal::SIGXFSZ);
    mask.thread_unblock().context("let signals end this process")
}

/// The signals of [`STOPS`] that were not ignored when we started: nohup(1) ignores SIGHUP, and a shell that is not
/// interactive ignores SIGINT for what it starts in the background.
fn stops() -> SigSet {
    not_ignored(&STOPS)
}

/// Those of these signals that were not ignored when we started.
pub fn not_ignored(signals: &[Signal]) -> SigSet {
    // Without /proc nobody can tell, and ignored signals are rare.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let ignored = ignored(&status);
    signals.iter().copied().filter(|&signal| ignored & (1 << (signal as i32 - 1)) == 0).collect()
}

/// The mask of ignored signals in a process's status file.
fn ignored(status: &str) -> u64 {
    mask(status, "SigIgn:")
}

/// A mask of signals in a process's status file: bit 0 is signal 1.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a signal that ends a tool has come and waits, because [`hold`] blocked it: for work that may take long before anybody
/// listens. It goes on waiting. SIGHUP may have another meaning.
pub fn waits(hup_ends: bool) -> bool {
    fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| waits_in(&status, hup_ends))
}

fn waits_in(status: &str, hup_ends: bool) -> bool {
    let pending = mask(status, "SigPnd:") | mask(status, "ShdPnd:");
    let mut stops = STOPS.iter().filter(|&&signal| hup_ends || signal != Signal::SIGHUP);
    stops.any(|&signal| pending & (1 << (signal as i32 - 1)) != 0)
}

/// Becomes readable when the tool is to end.
#[derive(Debug)]
pub struct Stop(SignalFd);

impl Stop {
    /// Opens the descriptor, and blocks the signals if that was not done before. SIGHUP may have another meaning.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn listen(hup_ends: bool) -> Result<Self> {
        hold()?;
        let mut signals = stops();
        if !hup_ends {
            signals.remove(Signal::SIGHUP);
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&signals, flags).context("listen for signals")?))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_bits_of_a_hexadecimal_mask() {
        assert_eq!(ignored("Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored("SigIgn:\tjunk\n"), 0);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn a_signal_that_waits_is_in_one_of_two_masks() {
        let status = |thread: u32, process: u32| {
            format!(
                "SigQ:\t1/63000\nSigPnd:\t{thread:016x}\nShdPnd:\t{process:016x}\nSigBlk:\t{:016x}\n",
                0x4003
            )
        };
        // SIGTERM is 15, SIGINT 2, SIGHUP 1; SIGWINCH, 28, ends nothing.
        for (thread, process, waits) in
            [(0, 0, false), (0, 1 << 14, true), (1 << 1, 0, true), (0, 1, true), (1 << 27, 1 << 27, false)]
        {
            assert_eq!(waits_in(&status(thread, process), true), waits, "{thread:x} {process:x}");
        }
        assert!(!waits_in(&status(0, 1), false) && waits_in(&status(2, 1), false) && !waits_in("", true));
    }
}
