//! Guests: QEMU without hardware help, a Debian kernel, and a file system of our own making.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::initramfs::Content;
use crate::kernels::{Kernel, Line};
use crate::setup::find_qemu;
use crate::shell::target;
use crate::{build, modules, setup};

/// A guest to run.
pub(crate) struct Guest<'a> {
    /// The folder below `target/vm/` for its console's log. Guests that run at the same time have different names.
    pub(crate) name: String,
    /// What it boots.
    pub(crate) kernel: &'a Kernel,
    /// In MiB.
    pub(crate) memory: u32,
    /// Processors.
    pub(crate) smp: u32,
    /// Guest time counts guest instructions: for comparing costs. Wants one processor.
    pub(crate) icount: bool,
    /// Whether a warning of the kernel ends it, as production hosts have it.
    pub(crate) panic_on_warn: bool,
    /// The image of a file system: `/dev/nvme0n1`, for reading only.
    pub(crate) disk: Option<PathBuf>,
    /// Files of this machine and where they go in the guest. Programs bring their shared libraries.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// The shell script to run.
    pub(crate) script: String,
    /// How long the guest may run; then it is ended.
    pub(crate) timeout: Duration,
}

/// How a guest's script ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The script's exit code.
    pub(crate) exit_code: u8,
    /// What the script wrote on both of its streams.
    pub(crate) output: String,
}

/// The kernel's command line. A panic or an oops ends the guest. The timer's self-test fails at times when this machine
/// is busy, for both sides of its comparison are emulated; so does the watch over the time-stamp counter, which is
/// steady here and by far the cheapest clock.
const CMDLINE: &str = "quiet panic=-1 oops=panic mitigations=off";

impl Arch {
    /// The kernel's command line for this architecture: what is not an option of the kernel reaches `/init` as a
    /// variable.
    fn cmdline(self) -> String {
        match self {
            Self::X86_64 => {
                format!("console=ttyS0 output=/dev/ttyS1 no_timer_check tsc=reliable {CMDLINE}")
            }
            Self::Aarch64 => format!("console=ttyAMA0 output=/dev/ttyS0 {CMDLINE}"),
        }
    }
}

/// What a guest's console says just before it goes down.
const PANIC: &str = "Kernel panic";

impl Guest<'_> {
    /// Boots, runs the script, powers off. Each line that the script writes is also handed to `on_line` as it comes.
    ///
    /// # Errors
    /// QEMU cannot be started, the guest panics, or it does not end in time. The message holds the console's last lines.
    pub(crate) fn run(&self, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
        let files = self.prepare(Some(self.script.clone()), String::new())?;
        let console = files.dir.join("console.log");
        let mut cmd = self.qemu(&files)?;
        cmd.arg("-serial").arg(format!("file:{}", console.display())).args(["-monitor", "none"]);
        match self.kernel.arch {
            Arch::X86_64 => cmd.args(["-serial", "stdio"]),
            // The board has one port; the kernel has the driver of this card built in.
            Arch::Aarch64 => {
                cmd.args(["-chardev", "stdio,id=output", "-device", "pci-serial,chardev=output"])
            }
        };
        cmd.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = Running(cmd.spawn().context("start QEMU")?);
        let pipe = qemu.0.stdout.take().context("QEMU's output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + self.timeout;
        let mut written = String::new();
        let problem = loop {
            match lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => {
                    on_line(&line);
                    written.push_str(&line);
                    written.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) if log(&console).contains(PANIC) => {
                    break Some("its kernel panicked");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() > deadline {
                break Some("it did not end in time and was stopped");
            }
        };
        if problem.is_none() {
            qemu.0.wait().context("wait for QEMU")?;
        }
        drop(qemu);
        drop(fs::remove_file(&files.initramfs));
        let console_text = log(&console);
        match (problem, exit_code(&console_text)) {
            (None, Some(exit_code)) => Ok(Outcome { exit_code, output: written }),
            (problem, _) => {
                let problem = problem.unwrap_or("it went down without an exit code");
                let lines: Vec<&str> = console_text.lines().collect();
                let last = lines[lines.len().saturating_sub(60)..].join("\n");
                bail!(
                    "guest {}: {problem}. Its console ({}) ended with:\n{last}",
                    self.name,
                    console.display()
                )
            }
        }
    }

    /// An interactive shell on this terminal; answers its exit code, which is 0 when QEMU was told to quit.
    ///
    /// # Errors
    /// QEMU cannot be started or fails, or the guest panics.
    pub(crate) fn shell(&self) -> Result<u8> {
        let files = self.prepare(None, profile())?;
        let mut cmd = self.qemu(&files)?;
        let console = files.dir.join("console.log");
        // Ctrl-C goes to the guest; Ctrl-A is QEMU's own key.
        let terminal = format!("stdio,id=terminal,mux=on,signal=off,logfile={}", console.display());
        cmd.args(["-chardev", &terminal, "-serial", "chardev:terminal", "-mon", "chardev=terminal"]);
        let mut qemu = Running(cmd.spawn().context("start QEMU")?);
        let status = qemu.0.wait().context("wait for QEMU")?;
        let text = log(&console);
        fs::remove_dir_all(&files.dir)?;
        if !status.success() {
            bail!("QEMU: {status}");
        }
        if text.contains(PANIC) {
            bail!("guest {}: its kernel panicked", self.name);
        }
        Ok(exit_code(&text).unwrap_or(0))
    }

    fn prepare(&self, script: Option<String>, profile: String) -> Result<Files> {
        let dir = target().join("vm").join(&self.name);
        fs::create_dir_all(&dir)?;
        let files = Files { initramfs: dir.join("initramfs.cpio"), dir };
        drop(fs::remove_file(files.dir.join("console.log")));
        let modules = modules::collect(&self.kernel.modules)?;
        let arch = self.kernel.arch;
        Content {
            arch,
            release: &self.kernel.release,
            modules: &modules,
            files: &self.files,
            script,
            profile,
        }
        .write(&files.initramfs)?;
        Ok(files)
    }

    fn qemu(&self, files: &Files) -> Result<Command> {
        let arch = self.kernel.arch;
        let mut cmd = find_qemu(arch).with_context(|| format!("qemu-system-{arch}"))?.command();
        // One thread for all processors: with one each, a guest that patches its own code (every tracepoint that is
        // switched on does) has been seen to stumble over a breakpoint that was already gone.
        let thread = "single";
        cmd.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        match arch {
            Arch::X86_64 => cmd.args(["-cpu", "max"]),
            // A server's processor, with the atomic instructions that the kernel's BPF compiler wants. The greatest one
            // also signs pointers, which costs an emulator much.
            Arch::Aarch64 => cmd.args(["-machine", "virt", "-cpu", "neoverse-n1"]),
        };
        cmd.args(["-accel", &format!("tcg,thread={thread}"), "-smp", &self.smp.to_string()]);
        cmd.args(["-m", &format!("{}M", self.memory)]);
        if self.icount {
            cmd.args(["-icount", "shift=0,align=off,sleep=off"]);
        }
        if let Some(disk) = &self.disk {
            // A device whose driver is part of the cloud kernels, as is ext4.
            cmd.arg("-drive").arg(format!("file={},if=none,id=disk,format=raw,readonly=on", disk.display()));
            cmd.args(["-device", "nvme,serial=disk,drive=disk"]);
        }
        cmd.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&files.initramfs);
        let warned = if self.panic_on_warn { "panic_on_warn=1" } else { "" };
        cmd.args(["-append", &format!("{} {} {warned}", arch.cmdline(), self.kernel.setting)]);
        Ok(cmd)
    }
}

struct Files {
    dir: PathBuf,
    initramfs: PathBuf,
}

/// A QEMU that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn log(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The exit code that `/init` wrote on the console.
fn exit_code(console: &str) -> Option<u8> {
    let (_, rest) = console.rsplit_once("guest: exit code ")?;
    rest.split_once(';')?.0.parse().ok()
}

/// The terminal's size and kind, for the guest's shell; a serial line does not carry them.
fn profile() -> String {
    let mut text =
        format!("export TERM={}\n", quote(&std::env::var("TERM").unwrap_or_else(|_| "vt100".into())));
    if std::io::stdin().is_terminal()
        && let Ok(size) = Command::new("stty").arg("size").stdin(Stdio::inherit()).output()
        && let Some((rows, columns)) = String::from_utf8_lossy(&size.stdout).trim().split_once(' ')
    {
        writeln!(text, "stty rows {} cols {}", quote(rows), quote(columns)).expect("a String takes all");
    }
    text
}

/// A word as the shell takes it literally.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the command line of `cargo xtask vm` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    line: Line,
    /// See [`Guest::icount`].
    icount: bool,
    timeout: Option<Duration>,
    command: Vec<String>,
}

impl Options {
    /// # Errors
    /// The arguments do not fit; the message says how.
    pub(crate) fn parse(args: Vec<OsString>) -> Result<Self> {
        let mut args = args.into_iter().map(|arg| arg.into_string().ok().context("an argument is not UTF-8"));
        let (mut line, mut arch, mut timeout, mut command) = (None, Arch::HERE, None, Vec::new());
        let mut icount = false;
        while let Some(arg) = args.next().transpose()? {
            let (name, attached) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || match attached.clone() {
                Some(value) => Ok(value),
                None => args.next().transpose()?.with_context(|| format!("{name} wants a value")),
            };
            match name {
                "--kernel" => line = Some(Line::parse(&value()?)?),
                "--arch" => arch = Arch::parse(&value()?)?,
                "--timeout" => {
                    let seconds = value()?.parse().context("--timeout wants seconds")?;
                    timeout = Some(Duration::from_secs(seconds));
                }
                "--icount" if attached.is_none() => icount = true,
                "--" => {
                    command = args.by_ref().collect::<Result<_>>()?;
                }
                _ => bail!("{arg} is not known here; a command comes after --"),
            }
        }
        let line = line.context("which kernel? --kernel 6.1, for one")?;
        Ok(Self { line: line.on(arch), icount, timeout, command })
    }

    /// The command as a shell script: one word is a shell line, several are taken literally.
    fn script(&self) -> String {
        match &self.command[..] {
            [line] => format!("{line}\n"),
            words => format!("{}\n", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// Runs a shell or one command in a guest; answers the command's exit code.
///
/// # Errors
/// See [`Guest::run`]; besides, set-up or the build may fail.
pub(crate) fn vm(options: &Options) -> Result<ExitCode> {
    setup::satisfy(&[setup::build(options.line.arch), setup::guests(&[options.line])].concat())?;
    let binary = build::dist_for(options.line.arch)?;
    let kernel = options.line.find().context("the kernel was there a moment ago")?;
    let guest = Guest {
        name: format!("{}-{}", options.line.folder_name(), std::process::id()),
        kernel: &kernel,
        memory: 2048,
        smp: if options.icount { 1 } else { 2 },
        icount: options.icount,
        panic_on_warn: false,
        disk: None,
        files: vec![(binary, "/bin/netbcc".to_owned())],
        script: options.script(),
        timeout: options.timeout.unwrap_or(Duration::from_mins(10)),
    };
    if options.command.is_empty() {
        return guest.shell().map(ExitCode::from);
    }
    let outcome = guest.run(|line| println!("{line}"))?;
    fs::remove_dir_all(target().join("vm").join(&guest.name))?;
    Ok(ExitCode::from(outcome.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_command_after_two_dashes_is_untouched() {
        let options = parse(&["--kernel", "6.1", "--timeout=5", "--", "tcplife", "--", "it's", "--kernel"])
            .expect("fits");
        assert_eq!(options.timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.script(), "'tcplife' '--' 'it'\\''s' '--kernel'\n");
        let line = parse(&["--kernel=6.12", "--", "uname -r; true"]).expect("fits");
        assert_eq!(line.script(), "uname -r; true\n");
        assert_eq!(line.line.arch, Arch::HERE);
        let other = parse(&["--kernel", "6.1", "--arch", "arm64"]).expect("fits");
        assert_eq!(other.line.arch, Arch::Aarch64);
        assert!(parse(&["--kernel", "6.1", "--arch", "riscv64"]).is_err());
        assert!(!line.icount && parse(&["--kernel", "6.1", "--icount"]).expect("fits").icount);
        assert!(parse(&["--kernel", "6.1", "--icount=1"]).is_err());
    }

    #[test]
    fn a_kernel_must_be_named() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--kernel"]).is_err());
        assert!(parse(&["--kernel", "5.4"]).is_err());
        assert!(parse(&["--kernel", "6.1", "uname"]).is_err());
    }

    #[test]
    fn the_exit_code_is_the_last_on_the_console() {
        assert_eq!(exit_code("boot\nguest: exit code 3;\r\n[ 4.1] reboot: Power down\n"), Some(3));
        assert_eq!(exit_code("guest: exit code "), None);
        assert_eq!(exit_code(""), None);
    }
}
