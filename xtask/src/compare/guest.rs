//! The part of the comparison that runs in the guest: both tools, the traffic, and what they print.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::subjects::{Form, SUBJECTS, Subject};
use super::sums::{Sums, ends_a_block};
use super::traffic::{self, FIRST, LAST};
use crate::peers;
use crate::shell::run;

/// Whose line it is, in the guest's output.
pub(super) const BCC: &str = "bcc";
/// See [`BCC`].
pub(super) const OURS: &str = "netbcc";
/// See [`BCC`].
pub(super) const LIBBPF: &str = "libbpf-tools";
/// See [`BCC`]: why it came to nothing.
pub(super) const FAILED: &str = "failed";
/// See [`BCC`]: what the kernel itself calls what happened.
pub(super) const KERNEL: &str = "kernel";

/// Begins a line for who waits.
pub(super) const NOTE: &str = "note|";

/// BCC compiles its program, on an emulated processor.
const START: Duration = Duration::from_mins(8);
/// The system calls by which a program sleeps: nanosleep and clock_nanosleep, by their numbers on x86-64.
const SLEEPS: [&str; 2] = ["35", "230"];
/// Until the last row is out.
const TAIL: Duration = Duration::from_mins(1);

/// Runs one tool of each kind on the same traffic, and prints their lines, or why it cannot.
///
/// # Errors
/// There is no such tool; or the other end of the traffic, which this is too, has nobody to talk to.
pub(crate) fn beside(args: &[&str]) -> Result<()> {
    match args {
        ["flows", to] => traffic::flows(to),
        ["speak"] => traffic::speak(),
        [tool] => {
            let subject = SUBJECTS.iter().find(|subject| subject.tool == *tool).context("no such tool")?;
            println!("{NOTE}{tool}: starting");
            let ran = subject.traffic.prepare().and_then(|()| run_beside(subject));
            if let Err(why) = ran.and(subject.traffic.clear()) {
                format!("{why:#}").lines().for_each(|line| println!("{tool}/{FAILED}|{line}"));
            }
            Ok(())
        }
        _ => bail!("beside TOOL"),
    }
}

/// # Errors
/// A tool does not start, or the traffic cannot be made.
fn run_beside(subject: &Subject) -> Result<()> {
    let tool = subject.tool;
    // BCC first: it takes a minute, in which the others would count what it does.
    let mut tools = Vec::new();
    if subject.without_bcc.is_none() {
        tools.push(Running::start(BCC, bcc(subject))?);
        begin(subject, &mut tools)?;
    }
    if let Some((libbpf, program)) = subject.libbpf.as_ref().zip(libbpf_program(tool)) {
        let mut peer = Command::new("stdbuf");
        peer.arg("-oL").arg(program).args(libbpf.args.split_whitespace());
        tools.push(Running::start(LIBBPF, peer)?);
    }
    let mut netbcc = Command::new("/bin/netbcc");
    netbcc.arg(tool).args(subject.args);
    tools.push(Running::start(OURS, netbcc)?);
    begin(subject, &mut tools)?;
    let at_work: Vec<&str> = tools.iter().map(|tool| tool.whose).collect();
    println!("{NOTE}{tool}: at work: {}", at_work.join(", "));
    subject.traffic.run()?;
    end(subject, &mut tools)?;
    for line in subject.traffic.names()? {
        println!("{tool}/{KERNEL}|{line}");
    }
    for tool in &tools {
        tool.interrupt()?;
    }
    for mut tool in tools {
        tool.rest();
        for line in &tool.lines {
            println!("{}/{}|{line}", subject.tool, tool.whose);
        }
        for line in tool.errors().lines() {
            println!("{NOTE}{} of {}: {line}", subject.tool, tool.whose);
        }
    }
    Ok(())
}

fn bcc(subject: &Subject) -> Command {
    let mut chroot = Command::new("chroot");
    chroot.args(["/bcc", "/usr/bin/python3", "-u"]);
    chroot.arg(format!("/usr/sbin/{}-bpfcc", subject.tool)).args(subject.args);
    chroot
}

/// The tool of libbpf-tools, if it was there to be taken along.
fn libbpf_program(tool: &str) -> Option<PathBuf> {
    Some(Path::new(peers::FOLDER).join(tool)).filter(|program| program.is_file())
}

/// Waits until all of them see what happens.
fn begin(subject: &Subject, tools: &mut [Running]) -> Result<()> {
    let deadline = Instant::now() + START;
    let sees = |tool: &mut Running| match &subject.form {
        // A header may come before the tool is whole: only a row shows that it sees traffic.
        Form::Rows => tool.shows(FIRST),
        Form::Sums(sums) => tool.counts(sums),
    };
    // Those that end blocks do so within moments of each other: the traffic comes between two such moments.
    tools.iter_mut().for_each(Running::look_again);
    while !tools.iter_mut().all(sees) {
        if let Some(why) = tools.iter_mut().find_map(|tool| tool.ended(deadline)) {
            bail!("{why}");
        }
        if matches!(subject.form, Form::Rows) {
            subject.traffic.mark(FIRST)?;
        }
        tools[0].wait(Duration::from_millis(500));
    }
    Ok(())
}

/// Waits until all of them have shown the traffic, as far as they do that before they are interrupted.
fn end(subject: &Subject, tools: &mut [Running]) -> Result<()> {
    let deadline = Instant::now() + TAIL;
    match &subject.form {
        Form::Rows => subject.traffic.mark(LAST)?,
        Form::Sums(_) => tools.iter_mut().for_each(Running::look_again),
    }
    for tool in tools {
        let shown = |tool: &mut Running| match &subject.form {
            Form::Rows => tool.shows(LAST),
            Form::Sums(sums) => !sums.in_blocks || tool.counts(sums),
        };
        while !shown(tool) && Instant::now() < deadline {
            tool.wait(Duration::from_millis(500));
        }
    }
    Ok(())
}

/// A tool at work.
struct Running {
    whose: &'static str,
    child: Child,
    more: Receiver<String>,
    lines: Vec<String>,
    /// How many lines there were when it was last begun to wait for something.
    seen: usize,
}

impl Running {
    fn start(whose: &'static str, mut cmd: Command) -> Result<Self> {
        let errors = File::create(errors(whose))?;
        let child = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = child.with_context(|| format!("start {whose}"))?;
        let pipe = child.stdout.take().context("its output")?;
        let (sender, more) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { whose, child, more, lines: Vec::new(), seen: 0 })
    }

    /// Takes the lines that are there, and waits for one if there is none.
    fn wait(&mut self, timeout: Duration) {
        self.lines.extend(self.more.recv_timeout(timeout));
        self.lines.extend(self.more.try_iter());
    }

    /// Whether a row shows this port, of each family. Those of libbpf-tools have one buffer, so any such row does.
    fn shows(&mut self, port: u16) -> bool {
        self.lines.extend(self.more.try_iter());
        if self.whose == LIBBPF {
            return self.lines.iter().any(|line| traffic::names_port(line, port));
        }
        let mut marks = traffic::ADDRESSES.iter();
        marks.all(|address| self.lines.iter().any(|line| traffic::is_mark(line, port, address)))
    }

    /// Only what it says from now on shows that it counts, of a tool that prints blocks.
    fn look_again(&mut self) {
        self.lines.extend(self.more.try_iter());
        self.seen = self.lines.len();
    }

    /// Whether it counts.
    fn counts(&mut self, sums: &Sums) -> bool {
        self.lines.extend(self.more.try_iter());
        if sums.in_blocks {
            ends_a_block(&self.lines[self.seen..])
        } else {
            !self.lines.is_empty() || self.sleeps()
        }
    }

    /// Whether it waits for its interval to end: some say nothing before it does.
    fn sleeps(&self) -> bool {
        let call = fs::read_to_string(format!("/proc/{}/syscall", self.child.id())).unwrap_or_default();
        SLEEPS.iter().any(|number| call.split(' ').next() == Some(number))
    }

    /// Why there is no more to wait for.
    fn ended(&mut self, deadline: Instant) -> Option<String> {
        let status = self.child.try_wait().ok().flatten();
        let why = match status {
            Some(status) => format!("ended ({status})"),
            None if Instant::now() > deadline => "shows no row".to_owned(),
            None => return None,
        };
        let last = self.lines[self.lines.len().saturating_sub(5)..].join("\n");
        Some(format!("{} {why}; its last lines:\n{last}\n{}", self.whose, self.errors()))
    }

    fn errors(&self) -> String {
        fs::read_to_string(errors(self.whose)).unwrap_or_default()
    }

    fn interrupt(&self) -> Result<()> {
        run(Command::new("kill").args(["-INT", &self.child.id().to_string()]))
    }

    /// Takes its last lines.
    fn rest(&mut self) {
        let deadline = Instant::now() + TAIL;
        // The channel ends when the tool does.
        while let Ok(line) = self.more.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.lines.push(line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn errors(whose: &str) -> String {
    format!("/tmp/{whose}.err")
}
