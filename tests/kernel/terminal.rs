//! What a terminal is sent, through a pseudo-terminal: no name of the traced world, and no path that a user typed, can
//! move its cursor, change its colours or reorder its lines.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::Net;
use netbcc_tests::run::{Copy, Launch, PATIENCE, Run, Seat};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

pub(crate) const CHECKS: &[Check] = checks![
    no_name_moves_the_cursor,
    no_path_in_an_error_moves_the_cursor,
    no_escapes_for_a_terminal_that_knows_none,
    doctor_has_colours_on_a_terminal_unless_they_are_unwanted,
    a_screen_has_as_many_rows_as_fit_and_keys_sort_them,
    the_terminal_is_as_it_was_however_the_tool_ends,
    a_stopped_tool_gives_the_terminal_back_and_takes_it_again,
    a_screen_that_takes_nothing_keeps_no_tool,
    a_terminal_of_another_user_keeps_no_tool,
    no_name_is_wider_than_the_screen,
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
        let (screen, _keys, program) = Self::with_keys();
        (screen, program)
    }

    /// The screen, where keys are written to, and the program's side.
    fn with_keys() -> (Self, File, OwnedFd) {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let (sink, pieces) = channel();
        let mut master = File::from(pty.master);
        let keys = master.try_clone().expect("a descriptor");
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO, once nobody has the other side.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                if sink.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        (Self { sent: Vec::new(), pieces }, keys, pty.slave)
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

fn doctor_has_colours_on_a_terminal_unless_they_are_unwanted(_: &Case) {
    for (unwanted, has_colours) in [("", true), ("1", false)] {
        let (mut screen, program) = Screen::new();
        let launch = Launch::new("doctor", "softirqs").env("NO_COLOR", unwanted).stdout(program);
        launch.ends().code(0);
        screen.await_text("runs");
        if has_colours {
            assert!(screen.text().contains("\x1b[32mruns\x1b[0m"), "{:?}", screen.text());
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

/// tcptop on a screen, which shows the sums of one process whenever the space bar is pressed.
struct Top<'n> {
    run: Run<'n>,
    screen: Screen,
    /// The keyboard's side of the pseudo-terminal.
    keys: File,
    terminal: OwnedFd,
}

impl<'n> Top<'n> {
    fn start(net: &'n Net, of: u32, (lines, columns): (u16, u16), seat: Seat) -> Self {
        let (screen, keys, terminal) = Screen::with_keys();
        resize(&keys, lines, columns);
        let copy = || terminal.try_clone().expect("a descriptor");
        let run = Launch::new("tcptop", &format!("-p {of} 3600")).env("TERM", "xterm");
        let run = run.stdin(copy(), seat).stdout(copy()).start(net);
        let mut top = Self { run, screen, keys, terminal };
        top.screen.await_text("Ctrl-C to end");
        top
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("room for a key");
    }

    /// Waits until the screen shows what is wanted.
    fn await_page(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.screen.text();
            let page = text.rsplit("\x1b[3J").next().unwrap_or_default();
            let mut lines: Vec<String> = page.split("\r\n").map(Into::into).collect();
            // The cursor stands behind the last line.
            if lines.pop().is_some_and(|rest| rest.is_empty()) && wanted(&lines) {
                return lines;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.screen.pieces.recv_timeout(left);
            self.screen.sent.extend(piece.unwrap_or_else(|_| panic!("no {what}: {lines:#?}")));
        }
    }

    /// Line mode and echo.
    fn modes(&self) -> LocalModes {
        tcgetattr(&self.terminal).expect("it is a terminal").local_modes & LINE
    }

    /// Waits until the terminal has these modes.
    fn await_modes(&self, modes: LocalModes) {
        let deadline = Instant::now() + PATIENCE;
        while self.modes() != modes {
            assert!(Instant::now() < deadline, "{:?}, not {modes:?}", self.modes());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

const LINE: LocalModes = LocalModes::ICANON.union(LocalModes::ECHO);

fn resize(terminal: &File, lines: u16, columns: u16) {
    let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("any size will do");
}

/// RX_KB and TX_KB of the rows of a page.
fn sums(page: &[String]) -> Vec<(u64, u64)> {
    let number = |word: Option<&str>| word.expect("a column").parse().expect("a number");
    let row = |line: &String| {
        let mut words = line.split_whitespace().rev();
        let tx = number(words.next());
        (number(words.next()), tx)
    };
    page.iter().skip(3).map(row).collect()
}

fn a_screen_has_as_many_rows_as_fit_and_keys_sort_them(_: &Case) {
    const KB: usize = 1024;
    let net = Net::new();
    let (server, client) = (net.peer("server"), net.peer("client"));
    let listener = server.listen(net.v4_of(2, 80));
    let mut top = Top::start(&net, client.pid(), (24, 80), Seat::Session);
    let mut kept = Vec::new();
    for nth in 0..30 {
        let from = client.connect(listener.address());
        let to = listener.accept();
        let (sent, received) = ((nth + 1) * KB, (nth * 7 % 30 + 1) * 2 * KB);
        from.send(sent);
        to.receive(sent);
        to.send(received);
        from.receive(received);
        kept.push((from, to));
    }
    top.press(" ");
    let full = |page: &[String]| page.len() == 23;
    let by = |key: fn((u64, u64)) -> u64| {
        move |page: &[String]| {
            let keys: Vec<u64> = sums(page).into_iter().map(key).collect();
            full(page) && keys.is_sorted_by(|one, next| one >= next)
        }
    };
    let page = top.await_page("full screen", by(|(rx, tx)| rx + tx));
    assert!(page[0].contains(" loadavg: ") && page[1].is_empty(), "{page:?}");
    assert_eq!(page[2], "PID     COMM         LADDR                 RADDR                  RX_KB  TX_KB");
    assert!(page.iter().all(|line| line.chars().count() <= 80), "{page:#?}");
    // None of these needs another block: what was summed has no other sums.
    top.press("s");
    let page = top.await_page("order by what was sent", by(|(_, tx)| tx));
    assert_eq!(sums(&page)[0].1, 30);
    top.press("r");
    let page = top.await_page("order by what was received", by(|(rx, _)| rx));
    assert_eq!(sums(&page)[0].0, 60);
    top.press("a");
    top.await_page("order by both", by(|(rx, tx)| rx + tx));
    top.press("p");
    let page = top.await_page("pause", |page| full(page) && page[0].ends_with("  paused"));
    let first = page[3].clone();
    resize(&top.keys, 10, 60);
    let page = top.await_page("small screen", |page| page.len() == 9);
    assert_eq!(page[3], first[..60]);
    assert!(page.iter().all(|line| line.chars().count() <= 60), "{page:#?}");
    resize(&top.keys, 3, 8);
    let page = top.await_page("tiny screen", |page| page.len() == 2);
    assert!(page.iter().all(|line| line.chars().count() <= 8), "{page:#?}");
    resize(&top.keys, 24, 80);
    top.await_page("large screen", full);
    // An arrow, a function key: none of their bytes is a key. In the pause the space bar shows one block, of nothing.
    top.press("\x1b[A");
    top.press(" ");
    let page = top.await_page("empty block", |page| page.len() == 2);
    assert!(page[0].ends_with("  paused"), "{page:?}");
    top.press("p");
    top.await_page("end of the pause", |page| page.len() == 2 && !page[0].ends_with("paused"));
    top.press("q");
    top.run.ends().code(0).quiet();
}

fn the_terminal_is_as_it_was_however_the_tool_ends(_: &Case) {
    use Signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXCPU};
    let net = Net::new();
    let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGALRM, SIGXCPU];
    for end in std::iter::once(None).chain(signals.map(Some)) {
        let mut top = Top::start(&net, std::process::id(), (24, 80), Seat::Session);
        top.await_modes(LocalModes::empty());
        match end {
            // Before there is any block, no key but this one has anything to act on.
            None => top.press("srap q"),
            // Ctrl-\.
            Some(SIGQUIT) => top.press("\x1c"),
            Some(signal) => {
                let pid = i32::try_from(top.run.pid()).expect("PIDs are positive");
                kill(Pid::from_raw(pid), signal).expect("it runs");
            }
        }
        let (terminal, run) = (top.terminal, top.run);
        let ended = run.ends();
        match end {
            None | Some(SIGINT | SIGTERM | SIGHUP) => {
                ended.code(0);
            }
            // It does what it does to any process.
            Some(signal) => assert_eq!(ended.signal, Some(signal as i32), "{}", ended.stderr),
        }
        assert_eq!(tcgetattr(&terminal).expect("a terminal").local_modes & LINE, LINE, "{end:?}");
    }
}

fn a_stopped_tool_gives_the_terminal_back_and_takes_it_again(_: &Case) {
    let net = Net::new();
    let mut top = Top::start(&net, std::process::id(), (24, 80), Seat::Job);
    top.await_modes(LocalModes::empty());
    let pid = Pid::from_raw(i32::try_from(top.run.pid()).expect("PIDs are positive"));
    kill(pid, Signal::SIGTSTP).expect("it runs");
    top.await_modes(LINE);
    kill(pid, Signal::SIGCONT).expect("it is there");
    top.await_modes(LocalModes::empty());
    top.press("q");
    let (terminal, run) = (top.terminal, top.run);
    run.ends().code(0);
    assert_eq!(tcgetattr(&terminal).expect("a terminal").local_modes & LINE, LINE);
}

fn a_screen_that_takes_nothing_keeps_no_tool(_: &Case) {
    let net = Net::new();
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let (mut keys, terminal) = (File::from(pty.master), pty.slave);
    resize(&keys, 24, 80);
    let copy = || terminal.try_clone().expect("a descriptor");
    let launch = Launch::new("tcptop", "3600").env("TERM", "xterm");
    let run = launch.stdin(copy(), Seat::Session).stdout(copy()).start(&net);
    // Ctrl-S: nothing is taken from then on.
    keys.write_all(b"\x13").expect("room for a key");
    for _ in 0..200 {
        keys.write_all(b" s").expect("room for a key");
    }
    let since = Instant::now();
    keys.write_all(b"q").expect("room for a key");
    run.ends().code(0);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(tcgetattr(&terminal).expect("a terminal").local_modes & LINE, LINE);
}

/// As after su(1): the session is an ordinary user's, its terminal root's. Nobody looks at the screen.
fn a_terminal_of_another_user_keeps_no_tool(_: &Case) {
    let net = Net::new();
    let client = net.peer("client");
    let copy = Copy::new();
    copy.grant(Copy::NEEDED);
    let pty = openpty(None, None).expect("a pseudo-terminal");
    let side = || pty.slave.try_clone().expect("a descriptor");
    let launch = Launch::new("tcpconnect", "--json").program(copy.path()).user(65_534);
    let run = launch.stdin(side(), Seat::Session).stdout(side()).start(&net);
    // Each is a row of 200 bytes at least, and a terminal takes 64 KiB at most.
    assert_eq!(client.churn(net.v4(80), 1009, 1), (0, 1009));
    let ended = run.signal(Signal::SIGTERM);
    ended.code(0);
    assert!(ended.not_written() > 0, "{}", ended.stderr);
}

fn no_name_is_wider_than_the_screen(_: &Case) {
    let net = Net::new();
    let server = net.peer("server");
    let listener = server.listen(net.v4_of(2, 80));
    for name in HOSTILE.iter().copied().chain(["\u{6f22}\u{5b57}\u{6f22}\u{5b57}".as_bytes()]) {
        let client = net.peer_named(name);
        let mut top = Top::start(&net, client.pid(), (24, 15), Seat::Session);
        let from = client.connect(listener.address());
        let to = listener.accept();
        from.send(100);
        to.receive(100);
        top.press(" ");
        let page = top.await_page("row", |page| page.len() == 4);
        for line in &page {
            // Of these, only Chinese letters are wide.
            let wide = line.chars().filter(|c| ('\u{4e00}'..'\u{a000}').contains(c)).count();
            assert!(line.chars().count() + wide <= 15 && !line.chars().any(char::is_control), "{page:?}");
        }
        assert!(page[3].starts_with(&client.pid().to_string()), "{page:?}");
        top.press("q");
        top.run.ends().code(0);
    }
}
