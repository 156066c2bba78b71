//! The terminal of whoever looks at a screen: its size, its keys, and the signals that tell of it.
//!
//! Keys are read from standard input, one by one and not shown: line mode and echo are off while a tool has them. Ctrl-C and
//! Ctrl-Z go on being signals. The modes that the terminal had come back however the tool ends, also by a panic or another
//! signal than those of [`super::stop`]; only SIGKILL, and a fault of the processor, leave no time for that. A process
//! in the background has no keys and changes no modes: the kernel would stop it (SIGTTOU, SIGTTIN).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

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
pub struct Keys {
    terminal: OwnedFd,
    sequences: Sequences,
}

impl Keys {
    /// Those of standard input, if it is a terminal.
    pub fn of_stdin() -> Option<Self> {
        Self::of(rustix::stdio::stdin())
    }

    fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let copy = || terminal.try_clone_to_owned().ok();
        let terminal = isatty(terminal).then(copy).flatten()?;
        Some(Self { terminal, sequences: Sequences::default() })
    }

    /// Has keys handed out one by one, if we are in the foreground. To ask again does no harm.
    pub fn take(&self) {
        static HOOK: Once = Once::new();
        if !is_foreground(self.as_fd()) {
            return;
        }
        HOOK.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                others(panic);
            }));
        });
        let (Ok(modes), Ok(copy)) = (tcgetattr(&self.terminal), self.terminal.try_clone()) else { return };
        let mut ours = modes.clone();
        ours.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // To read waits for nothing: we are told when there is something.
        ours.special_codes[SpecialCodeIndex::VMIN] = 0;
        ours.special_codes[SpecialCodeIndex::VTIME] = 0;
        // After a stop that we did not hear of, the modes are ours still.
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((copy, modes));
        let _gone = tcsetattr(&self.terminal, OptionalActions::Now, &ours);
    }

    /// The keys that were pressed, if there is anything to read.
    pub fn pressed(&mut self) -> Option<Vec<u8>> {
        let mut bytes = [0; 64];
        if !self.are_ours() {
            return None;
        }
        let count = rustix::io::read(&self.terminal, &mut bytes[..]).ok().filter(|&count| count > 0)?;
        Some(self.sequences.characters(&bytes[..count], Instant::now()))
    }

    /// Whether they are handed out to us: else a read waits for a whole line.
    fn are_ours(&self) -> bool {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).is_some() && is_foreground(self.as_fd())
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
        self.terminal.as_fd()
    }
}

/// How long the rest of a sequence may take: a slow line tears it into several reads. What comes later is a key of its own, and
/// the escape was the key called so.
const TORN: Duration = Duration::from_secs(1);

/// Tells keys that are characters from the others. An arrow, a function key or one with Alt is a sequence that begins with an
/// escape (ECMA-48), and none of its bytes is a key.
#[derive(Debug, Default)]
struct Sequences {
    within: Within,
    /// When the last bytes came.
    last: Option<Instant>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// To no sequence.
    #[default]
    Nothing,
    /// To what an escape began.
    Escape,
    /// To parameters, which a letter ends.
    Parameters,
    /// It is the last of its sequence.
    Last,
}

impl Sequences {
    /// The characters among the bytes that come now.
    fn characters(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > TORN) {
            self.within = Within::Nothing;
        }
        self.last = Some(now);
        bytes.iter().copied().filter(|&byte| self.is_character(byte)).collect()
    }

    fn is_character(&mut self, byte: u8) -> bool {
        let before = self.within;
        self.within = match (before, byte) {
            (_, b'\x1b') => Within::Escape,
            (Within::Escape, b'O') => Within::Last,
            (Within::Escape, b'[') | (Within::Parameters, b' '..=b'?') => Within::Parameters,
            _ => Within::Nothing,
        };
        before == Within::Nothing && self.within == Within::Nothing
    }
}

/// Signals that end a process unless it does something else, and that no tool means by its end. The modes come back first.
const FATAL: [Signal; 10] = [
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGXCPU,
];

/// SIGWINCH (another size), SIGTSTP (Ctrl-Z), SIGCONT and those of [`FATAL`] (SIGQUIT is Ctrl-\), as they come. SIGTTIN is
/// blocked, too: a read in the background fails then.
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
        let changes = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];
        let told = stop::not_ignored(&[&changes[..], &FATAL].concat());
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

    /// Whether the terminal has to have its modes back before this signal does what it does.
    pub fn takes_us_away(signal: Signal) -> bool {
        signal == Signal::SIGTSTP || FATAL.contains(&signal)
    }

    /// Lets this signal do what it does to a process that does not care: comes back when it is continued, if that was a stop.
    pub fn happen(signal: Signal) {
        let only: SigSet = std::iter::once(signal).collect();
        let _pending = raise(signal);
        let _happened = only.thread_unblock();
        let _goes_on = only.thread_block();
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
    fn no_byte_of_a_sequence_is_a_key_however_it_is_torn() {
        let start = Instant::now();
        for (read, keys) in [
            (&b"sq"[..], &b"sq"[..]),
            (b"\x1b[A q", b" q"),
            (b"p\x1b[15~\x1bOqr", b"pr"),
            (b"\x1bqs", b"s"),
            (b"\x1b\x1b[As", b"s"),
            (b"\x1b", b""),
            (b"\x1b[1;2", b""),
        ] {
            // In one read, in two, and byte by byte.
            let tears = (0..=read.len()).map(|at| read.split_at(at)).map(|(one, two)| vec![one, two]);
            for pieces in tears.chain([read.chunks(1).collect()]) {
                let mut sequences = Sequences::default();
                let found: Vec<u8> =
                    pieces.iter().flat_map(|piece| sequences.characters(piece, start)).collect();
                assert_eq!(found, keys, "{pieces:?}");
            }
        }
    }

    #[test]
    fn the_key_escape_swallows_nothing_that_comes_later() {
        let start = Instant::now();
        let mut sequences = Sequences::default();
        assert_eq!(sequences.characters(b"\x1b", start), b"");
        assert_eq!(sequences.characters(b"q", start + 2 * TORN), b"q");
        assert_eq!(sequences.characters(b"\x1b[1", start + 3 * TORN), b"");
        assert_eq!(sequences.characters(b"qs", start + 4 * TORN), b"s", "it is still the same sequence");
    }

    #[test]
    fn a_terminal_has_its_modes_back_also_after_a_panic() {
        let pty = openpty(None, None).unwrap();
        let terminal = &pty.slave;
        let modes = || tcgetattr(terminal).unwrap().local_modes;
        let before = modes();
        let line = LocalModes::ICANON | LocalModes::ECHO;
        assert!(before.contains(line));
        let mut keys = Keys::of(terminal.as_fd()).unwrap();
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
