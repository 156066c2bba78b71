//! The guest's whole file system: busybox, netbcc, the network programs with their libraries, kernel modules, and the
//! `/init` that runs one command (or a shell) and powers off.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::cpio::Archive;
use crate::elf::Elf;
use crate::modules::{Module, OPTIONS, alias_table, dep_table};
use crate::setup::userland_folder;
use crate::shell::{find_program, output};

const INIT: &str = include_str!("guest-init.sh");

/// What `/init` mounts, in this order.
const FSTAB: &str = "\
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
devpts /dev/pts devpts defaults 0 0
tmpfs /dev/shm tmpfs defaults 0 0
tmpfs /tmp tmpfs defaults 0 0
tmpfs /run tmpfs defaults 0 0
cgroup2 /sys/fs/cgroup cgroup2 defaults 0 0
bpf /sys/fs/bpf bpf defaults 0 0
debugfs /sys/kernel/debug debugfs defaults 0 0
tracefs /sys/kernel/tracing tracefs defaults 0 0
securityfs /sys/kernel/security securityfs defaults 0 0
";

/// Programs of this machine that a guest has too.
const PROGRAMS: [&str; 3] = ["ip", "tc", "nft"];

/// Small files that programs look things up in. Those that this machine lacks are left out.
const TABLES: [&str; 4] =
    ["/etc/protocols", "/etc/services", "/usr/lib/tc/normal.dist", "/usr/lib/tc/pareto.dist"];

/// What goes into one guest beyond what every guest has.
pub(crate) struct Content<'a> {
    /// What its programs are made for.
    pub(crate) arch: Arch,
    /// What `uname -r` says in the guest.
    pub(crate) release: &'a str,
    /// Loaded when the kernel asks for them.
    pub(crate) modules: &'a [Module],
    /// Files of this machine and where they go. Programs bring their shared libraries.
    pub(crate) files: &'a [(PathBuf, String)],
    /// The shell script to run instead of an interactive shell.
    pub(crate) script: Option<String>,
    /// Settings for the interactive shell, as shell lines.
    pub(crate) profile: String,
}

impl Content<'_> {
    /// Writes the file system as an archive to `path`.
    ///
    /// # Errors
    /// A file cannot be read or the archive cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut files = self.files.to_vec();
        // This machine's tells the names, for another architecture's does not run here.
        let applets = output(Command::new(find_program("busybox").context("busybox")?).arg("--list"))?;
        files.push((self.program("busybox")?, "/bin/busybox".to_owned()));
        for name in PROGRAMS {
            files.push((self.program(name)?, format!("/usr/sbin/{name}")));
        }
        files.extend(TABLES.iter().map(|table| (table.into(), (*table).to_owned())));
        files.retain(|(from, _)| from.exists() || !TABLES.iter().any(|table| from == Path::new(table)));
        let mut libraries = BTreeSet::new();
        for (from, _) in &files {
            if self.arch == Arch::HERE {
                libraries.extend(self::libraries(from)?.into_iter().map(|file| (file.clone().into(), file)));
            } else {
                unpacked_libraries(self.arch, from, &mut libraries)?;
            }
        }
        files.extend(libraries);

        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut tree = Tree { archive: Archive::new(BufWriter::new(file)), folders: BTreeSet::new() };
        for dir in
            ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/var/tmp", "/usr/bin", "/usr/sbin", "/bin"]
        {
            tree.folder(dir)?;
        }
        tree.archive.link("/sbin", "usr/sbin")?;
        // The real programs, not busybox's, also for who names them by a full path.
        for applet in applets.lines().filter(|name| *name != "busybox" && !PROGRAMS.contains(name)) {
            tree.archive.link(&format!("/bin/{applet}"), "busybox")?;
        }
        for name in PROGRAMS {
            tree.archive.link(&format!("/bin/{name}"), &format!("/usr/sbin/{name}"))?;
        }
        tree.archive.link("/usr/sbin/modprobe", "/bin/busybox")?;
        tree.folder("/etc/dev")?;
        for (name, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            tree.archive.link(&format!("/etc/dev/{name}"), &format!("/proc/self/fd{to}"))?;
        }
        tree.file("/etc/fstab", 0o644, FSTAB.as_bytes())?;
        tree.file("/init", 0o755, INIT.as_bytes())?;
        tree.file(
            "/etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        )?;
        tree.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
        tree.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
        tree.file("/etc/profile", 0o644, self.profile.as_bytes())?;
        if let Some(script) = &self.script {
            tree.file("/command", 0o755, script.as_bytes())?;
        }
        let modules = format!("/lib/modules/{}", self.release);
        for module in self.modules {
            tree.file(&format!("{modules}/{}.ko", module.name), 0o644, &module.data)?;
        }
        tree.file(&format!("{modules}/modules.dep"), 0o644, dep_table(self.modules).as_bytes())?;
        tree.file(&format!("{modules}/modules.alias"), 0o644, alias_table(self.modules).as_bytes())?;
        tree.file("/etc/modprobe.d/guest.conf", 0o644, OPTIONS.as_bytes())?;
        for (from, to) in &files {
            let data = fs::read(from).with_context(|| format!("read {}", from.display()))?;
            tree.file(to, 0o755, &data)?;
        }
        tree.archive.finish()?;
        Ok(())
    }

    /// Where a program for this guest is.
    fn program(&self, name: &str) -> Result<PathBuf> {
        if self.arch == Arch::HERE {
            return find_program(name).with_context(|| name.to_owned());
        }
        let folder = userland_folder(self.arch);
        let places = ["bin", "sbin", "usr/bin", "usr/sbin"].map(|dir| folder.join(dir).join(name));
        places
            .into_iter()
            .find(|file| file.is_file())
            .with_context(|| format!("no {name} in {}", folder.display()))
    }
}

/// An archive that makes the folders of its files by itself.
struct Tree<W> {
    archive: Archive<W>,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Tree<W> {
    fn folder(&mut self, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        if name.parent().is_none() || self.folders.contains(name) {
            return Ok(());
        }
        if let Some(parent) = name.parent() {
            self.folder(parent)?;
        }
        self.archive.folder(&name.to_string_lossy())?;
        self.folders.insert(name.to_owned());
        Ok(())
    }

    fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> Result<()> {
        if let Some(parent) = Path::new(name).parent() {
            self.folder(parent)?;
        }
        self.archive.file(name, permissions, data)?;
        Ok(())
    }
}

/// The shared libraries that a program needs, the loader included. None for a static program or another kind of file.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let data = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let is_dynamic = Elf::new(&data).is_ok_and(|elf| elf.dynamic().is_ok_and(|why| why.is_some()));
    if !is_dynamic {
        return Ok(Vec::new());
    }
    Ok(parse_ldd(&output(Command::new("ldd").arg(program))?))
}

/// Adds what a program of another architecture needs, from the folder of its unpacked programs, and where it goes. The
/// loader looks for libraries in the same places in the guest.
fn unpacked_libraries(arch: Arch, program: &Path, libraries: &mut BTreeSet<(PathBuf, String)>) -> Result<()> {
    let data = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let Ok(elf) = Elf::new(&data) else { return Ok(()) };
    for name in elf.needed()? {
        let dirs = ["lib", "usr/lib"].map(|dir| format!("{dir}/{arch}-linux-gnu"));
        // The loader has a full path, which lies in the first of these on Debian.
        let file = Path::new(&name).file_name().unwrap_or_default();
        let found = dirs.iter().map(|dir| Path::new(dir).join(file)).find_map(|path| {
            let from = userland_folder(arch).join(&path);
            from.is_file().then_some((from, path))
        });
        let (from, path) = found.with_context(|| format!("{} needs {name}", program.display()))?;
        let to = if name.starts_with('/') { name } else { format!("/{}", path.display()) };
        if libraries.insert((from.clone(), to)) {
            unpacked_libraries(arch, &from, libraries)?;
        }
    }
    Ok(())
}

/// The files in the text of ldd: `libmnl.so.0 => /lib/.../libmnl.so.0 (0x...)`, and the loader without an arrow.
fn parse_ldd(text: &str) -> Vec<String> {
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_loader_but_not_the_vdso() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(parse_ldd(text), ["/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
