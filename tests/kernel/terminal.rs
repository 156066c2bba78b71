//! What a terminal is sent, through a pseudo-terminal: no name of the traced world, and no path that a user typed, can
//! move its cursor, change its colours or reorder its lines.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::Net;
use netbcc_tests::run::{Launch, PATIENCE};
use nix::pty::openpty;

pub(crate) const CHECKS: &[Check] = checks![
    no_name_moves_the_cursor,
    no_path_in_an_error_moves_the_cursor,
    no_escapes_for_a_terminal_that_knows_none
];

/// Escape sequences, C1 controls (as UTF-8 and alone), line ends, bells, bidi controls, line separators.
const HOSTILE: &[&[u8]] = &[
    b"\x1b[2J\x1b[Hx",
    b"\x1b]0;t\x07",
    "\u{202e}gpj.exe".as_bytes(),
    "\u{2066}a\u{2069}".as_bytes(),
    "\u{9b}2J".as_bytes(),
    "\u{2028}b".as_bytes(),
    b"\x9b2J",
    b"a\rb\nc\td\x08\x7f",
];

/// The screen's side of a pseudo-terminal, and what it was sent.
struct Screen {
    sent: Vec<u8>,
    pieces: Receiver<Vec<u8>>,
}

impl Screen {
    /// The screen, and the program's side.
    fn new() -> (Self, OwnedFd) {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let (sink, pieces) = channel();
        let mut master = File::from(pty.master);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO, once nobody has the other side.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                if sink.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        (Self { sent: Vec::new(), pieces }, pty.slave)
    }

    /// Waits until this text was sent.
    fn await_text(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.sent).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left);
            self.sent.extend(piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.text())));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.sent).into_owned()
    }

    /// All of it, when the program has ended: insists on nothing but characters and the terminal's own line ends.
    fn calm(mut self) -> String {
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.sent.extend(piece);
        }
        let text = String::from_utf8(self.sent).expect("UTF-8");
        let bidi = |c| matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        for line in text.split("\r\n") {
            assert!(!line.chars().any(|c| c.is_control() || bidi(c)), "{line:?}");
        }
        text
    }
}

fn no_name_moves_the_cursor(_: &Case) {
    // Text, text with a DNS column, CSV, JSON.
    for (tool, options) in
        [("tcpconnect", ""), ("tcpconnect", "-d"), ("tcplife", "-s"), ("tcpconnect", "--json")]
    {
        let net = Net::new();
        let (mut screen, program) = Screen::new();
        let run = Launch::new(tool, options).stdout(program).start(&net);
        for (nth, name) in (0..).zip(HOSTILE) {
            let to = net.v4_of(2, 80 + nth);
            net.peer_named(name).refused(to);
        }
        // The last row is there when its port is.
        screen.await_text(&(79 + HOSTILE.len()).to_string());
        run.stop().code(0);
        let text = screen.calm();
        let rows = text.split("\r\n").filter(|line| line.contains(&net.v4_of(2, 0).ip().to_string())).count();
        assert_eq!(rows, HOSTILE.len(), "{tool} {options}: {text:?}");
    }
}

fn no_escapes_for_a_terminal_that_knows_none(_: &Case) {
    for (term, clears) in [("", false), ("dumb", false), ("xterm", true)] {
        let (mut screen, program) = Screen::new();
        let net = Net::new();
        let run = Launch::new("tcptop", "1").env("TERM", term).stdout(program).start(&net);
        screen.await_text("loadavg");
        run.stop().code(0);
        if clears {
            assert!(screen.text().contains("\x1b[2J"), "{term:?}: {:?}", screen.text());
        } else {
            screen.calm();
        }
    }
}

fn no_path_in_an_error_moves_the_cursor(_: &Case) {
    let place = tempfile::tempdir().expect("a directory");
    for name in HOSTILE {
        // One that is no map, and one that is not there. What separates words cannot be in this test's arguments.
        let name: Vec<u8> = name.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let Ok(name) = String::from_utf8(name) else { continue };
        let name = name.replace('\u{2028}', "");
        let there = place.path().join(OsStr::from_bytes(name.as_bytes()));
        fs::write(&there, "").expect("any name will do");
        for option in ["--cgroupmap", "--mntnsmap"] {
            for path in [there.clone(), place.path().join(format!("{name}-not"))] {
                let (screen, program) = Screen::new();
                let launch = Launch::new("tcpconnect", &format!("{option}={}", path.display()));
                launch.stderr(program).ends().code(1);
                let text = screen.calm();
                assert!(text.starts_with(&format!("tcpconnect: {option} ")), "{text:?}");
                assert_eq!(text.matches("\r\n").count(), 1, "{text:?}");
            }
        }
    }
}
