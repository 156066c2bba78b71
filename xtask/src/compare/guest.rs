//! The part of the comparison that runs in the guest: both tools, the traffic, and what they print.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::subjects::SUBJECTS;
use super::traffic::{self, FIRST, LAST};

/// Whose line it is, in the guest's output.
pub(super) const BCC: &str = "bcc";
/// See [`BCC`].
pub(super) const OURS: &str = "netbcc";
/// Begins a line for who waits.
pub(super) const NOTE: &str = "note|";

/// Mounts BCC's file system.
pub(super) const MOUNT: &str = "\
mkdir -p /bcc
tries=0
while [ ! -b /dev/nvme0n1 ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 -o ro /dev/nvme0n1 /bcc || exit 1
for dir in proc sys dev; do mount -o rbind /$dir /bcc/$dir || exit 1; done
mount -t tmpfs tmpfs /bcc/tmp || exit 1
";

/// BCC compiles its program, on an emulated processor.
const START: Duration = Duration::from_mins(4);
/// Until the last row is out.
const TAIL: Duration = Duration::from_mins(1);

/// Runs one tool of each kind on the same traffic, and prints their lines.
///
/// # Errors
/// A tool does not start, or loopback does not work.
pub(crate) fn beside(args: &[&str]) -> Result<()> {
    let [tool] = args else { bail!("beside TOOL") };
    let subject = SUBJECTS.iter().find(|subject| subject.tool == *tool).context("no such tool")?;
    println!("{NOTE}{tool}: starting");
    subject.traffic.prepare()?;
    let mut chroot = Command::new("chroot");
    chroot.args(["/bcc", "/usr/bin/python3", "-u"]).arg(format!("/usr/sbin/{tool}-bpfcc")).args(subject.args);
    let mut netbcc = Command::new("/bin/netbcc");
    netbcc.arg(tool).args(subject.args);
    let mut tools = [Running::start(BCC, chroot)?, Running::start(OURS, netbcc)?];
    // A header may come before the tool is whole: only a row shows that it sees traffic.
    let deadline = Instant::now() + START;
    while !tools.iter_mut().all(|tool| tool.shows(FIRST)) {
        if let Some(why) = tools.iter_mut().find_map(|tool| tool.ended(deadline)) {
            bail!("{why}");
        }
        subject.traffic.mark(FIRST)?;
        tools[0].wait(Duration::from_millis(500));
    }
    println!("{NOTE}{tool}: both are at work");
    subject.traffic.run()?;
    subject.traffic.mark(LAST)?;
    let deadline = Instant::now() + TAIL;
    for tool in &mut tools {
        while !tool.shows(LAST) && Instant::now() < deadline {
            tool.wait(Duration::from_millis(500));
        }
    }
    subject.traffic.clear()?;
    for mut tool in tools {
        tool.stop()?;
        for line in &tool.lines {
            println!("{}/{}|{line}", subject.tool, tool.whose);
        }
        for line in tool.errors().lines() {
            println!("{NOTE}{} of {}: {line}", subject.tool, tool.whose);
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
        Ok(Self { whose, child, more, lines: Vec::new() })
    }

    /// Takes the lines that are there, and waits for one if there is none.
    fn wait(&mut self, timeout: Duration) {
        self.lines.extend(self.more.recv_timeout(timeout));
        self.lines.extend(self.more.try_iter());
    }

    /// Whether a row shows this port, of each family.
    fn shows(&mut self, port: u16) -> bool {
        self.lines.extend(self.more.try_iter());
        let mut marks = traffic::ADDRESSES.iter();
        marks.all(|address| self.lines.iter().any(|line| traffic::is_mark(line, port, address)))
    }

    /// Why there is no more to wait for.
    fn ended(&mut self, deadline: Instant) -> Option<String> {
        let status = self.child.try_wait().ok().flatten();
        let why = match status {
            Some(status) => format!("ended ({status})"),
            None if Instant::now() > deadline => "shows no row".to_owned(),
            None => return None,
        };
        Some(format!("{} {why}: {}\n{}", self.whose, self.lines.join("\n"), self.errors()))
    }

    fn errors(&self) -> String {
        fs::read_to_string(errors(self.whose)).unwrap_or_default()
    }

    /// Interrupts it and takes its last lines.
    fn stop(&mut self) -> Result<()> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        let deadline = Instant::now() + TAIL;
        // The channel ends when the tool does.
        while let Ok(line) = self.more.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.lines.push(line);
        }
        Ok(())
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
