//! The terminal of whoever looks at a screen: its size, its keys, and the signals that tell of it.
//!
//! Keys are read from standard input, one by one and not shown: line mode and echo are off while a tool has them. Ctrl-C and
//! Ctrl-Z go on being signals. The modes that the terminal had come back however the tool ends, also by a panic. A process
//! in the background has no keys and changes no modes: the kernel would stop it (SIGTTOU, SIGTTIN).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

use super::stop;

/// Columns and lines of a terminal; nothing where it does not tell them.
pub fn size(terminal: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let size = tcgetwinsize(terminal).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0)?;
    Some((size.ws_col.into(), size.ws_row.into()))
}

/// The terminal whose modes are not its own, and the modes that it had.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Sets the modes again. Never waits: neither for the lock, which a thread that panics may hold, nor for output that
/// nobody reads.
fn restore() {
    let before = match BEFORE.try_lock() {
        Ok(mut before) => before.take(),
        Err(_) => None,
    };
    if let Some((terminal, modes)) = before
        && is_foreground(terminal.as_fd())
    {
        let _gone = tcsetattr(&terminal, OptionalActions::Now, &modes);
    }
}

/// Whether this process may read from the terminal and set its modes. One that is not our controlling terminal asks
/// nobody; one of whose foreground we cannot see (in a PID namespace) may be another's.
fn is_foreground(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Ok(group) => group == getpgrp(),
        Err(error) => error.raw_os_error() == Errno::ENOTTY as i32,
    }
}

/// The keys of a terminal.
#[derive(Debug)]
pub struct Keys(OwnedFd);

impl Keys {
    /// Those of standard input, if it is a terminal.
    pub fn of_stdin() -> Option<Self> {
        Self::of(rustix::stdio::stdin())
    }

    fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let copy = || terminal.try_clone_to_owned().ok();
        isatty(terminal).then(copy).flatten().map(Self)
    }

    /// Has keys handed out one by one, if we are in the foreground. To ask again does no harm.
    pub fn take(&self) {
        static HOOK: Once = Once::new();
        if !is_foreground(self.0.as_fd()) {
            return;
        }
        HOOK.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                others(panic);
            }));
        });
        let (Ok(modes), Ok(copy)) = (tcgetattr(&self.0), self.0.try_clone()) else { return };
        let mut ours = modes.clone();
        ours.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // To read waits for nothing: we are told when there is something.
        ours.special_codes[SpecialCodeIndex::VMIN] = 0;
        ours.special_codes[SpecialCodeIndex::VTIME] = 0;
        // After a stop that we did not hear of, the modes are ours still.
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((copy, modes));
        let _gone = tcsetattr(&self.0, OptionalActions::Now, &ours);
    }

    /// The keys that were pressed, if there is anything to read.
    pub fn pressed(&self) -> Option<Vec<u8>> {
        let mut bytes = [0; 64];
        if !self.are_ours() {
            return None;
        }
        let count = rustix::io::read(&self.0, &mut bytes[..]).ok().filter(|&count| count > 0)?;
        Some(characters(&bytes[..count]))
    }

    /// Whether they are handed out to us: else a read waits for a whole line.
    fn are_ours(&self) -> bool {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).is_some() && is_foreground(self.0.as_fd())
    }

    /// Gives the terminal its modes back.
    pub fn give_back(&self) {
        restore();
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl AsFd for Keys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The keys that are characters. An arrow, a function key or one with Alt is a sequence that begins with an escape
/// (ECMA-48), and none of its bytes is a key.
fn characters(bytes: &[u8]) -> Vec<u8> {
    let mut keys = Vec::new();
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\x1b' {
            keys.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'[') => {
                bytes.by_ref().find(|byte| (b'@'..=b'~').contains(byte));
            }
            Some(b'O') => {
                bytes.next();
            }
            _ => {}
        }
    }
    keys
}

/// SIGWINCH (another size), SIGTSTP (Ctrl-Z) and SIGCONT, as they come. SIGTTIN is blocked, too: a read in the background
/// fails then.
#[derive(Debug)]
pub struct Changes {
    signals: SignalFd,
    blocked: SigSet,
}

impl Changes {
    /// Blocks them and opens a descriptor that becomes readable when there is one.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn listen() -> Result<Self> {
        let told = stop::not_ignored(&[Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT]);
        let mut blocked = told;
        blocked.add(Signal::SIGTTIN);
        blocked.thread_block().context("block the terminal's signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&told, flags).context("listen for the terminal's signals")?;
        Ok(Self { signals, blocked })
    }

    /// The next of them that came.
    pub fn next(&self) -> Option<Signal> {
        let info = self.signals.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }

    /// Stops this process as Ctrl-Z does; comes back when it is continued.
    pub fn stop() {
        let stop: SigSet = std::iter::once(Signal::SIGTSTP).collect();
        let _pending = raise(Signal::SIGTSTP);
        let _stopped = stop.thread_unblock();
        let _goes_on = stop.thread_block();
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let _as_before = self.blocked.thread_unblock();
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn no_byte_of_a_sequence_is_a_key() {
        for (read, keys) in [
            (&b"sq"[..], &b"sq"[..]),
            (b"\x1b[A q", b" q"),
            (b"p\x1b[15~\x1bOqr", b"pr"),
            (b"\x1bqs", b"s"),
            (b"\x1b", b""),
            (b"\x1b[1;2", b""),
        ] {
            assert_eq!(characters(read), keys, "{}", read.escape_ascii());
        }
    }

    #[test]
    fn a_terminal_has_its_modes_back_also_after_a_panic() {
        let pty = openpty(None, None).unwrap();
        let terminal = &pty.slave;
        let modes = || tcgetattr(terminal).unwrap().local_modes;
        let before = modes();
        let line = LocalModes::ICANON | LocalModes::ECHO;
        assert!(before.contains(line));
        let keys = Keys::of(terminal.as_fd()).unwrap();
        keys.take();
        keys.take();
        assert_eq!(modes(), before.difference(line), "Ctrl-C goes on being a signal");
        assert!(keys.pressed().is_none(), "and waits for nothing");
        keys.give_back();
        assert_eq!(modes(), before);
        keys.take();
        assert!(thread::spawn(|| panic!("of a test")).join().is_err());
        assert_eq!(modes(), before);
        assert!(Keys::of(std::fs::File::open("/dev/null").unwrap().as_fd()).is_none());
    }
}
