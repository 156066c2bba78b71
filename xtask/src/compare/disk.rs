//! The file system with BCC in it: its packages with all they need, and the kernel's headers, unpacked below `target/`
//! and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Archive};
use crate::arch::Arch;
use crate::shell::{find_program, run, say, target};

/// Debian's package of BCC's tools.
const TOOLS: &str = "bpfcc-tools";
/// What the guest mounts over, beyond the packages' own folders.
const FOLDERS: [&str; 4] = ["proc", "sys", "dev", "tmp"];

/// Mounts it, as a guest's shell does.
pub(crate) const MOUNT: &str = "\
mkdir -p /bcc
tries=0
while [ ! -b /dev/nvme0n1 ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 -o ro /dev/nvme0n1 /bcc || exit 1
for dir in proc sys dev; do mount -o rbind /$dir /bcc/$dir || exit 1; done
mount -t tmpfs tmpfs /bcc/tmp || exit 1
";

/// Answers the image of the file system for this kernel; makes it unless it is there.
///
/// # Errors
/// This machine has no apt, the packages cannot be had, or there is no room.
pub(crate) fn make(release: &str) -> Result<PathBuf> {
    let image = target().join(format!("bcc-{release}.img"));
    if image.is_file() {
        return Ok(image);
    }
    if !apt::usable() {
        bail!("this machine has no apt, and BCC for the guest comes from Debian");
    }
    let mke2fs = find_program("mke2fs").context("no mke2fs here: the package e2fsprogs has it")?;
    say(&format!(
        "unpacking {TOOLS} and the headers of {release} into target/{} (they are not installed): to compare with",
        image.file_name().unwrap_or_default().to_string_lossy()
    ));
    let tree = target().join("bcc");
    Archive::of(Arch::HERE).unpack_whole(&[TOOLS], &apt::headers(release), &tree)?;
    for folder in FOLDERS {
        fs::create_dir_all(tree.join(folder))?;
    }
    let part = image.with_extension("part");
    let mib = size(&tree)? / (1 << 20) * 5 / 4 + 64;
    let mut cmd = Command::new(mke2fs);
    cmd.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(&tree).arg(&part);
    run(cmd.arg(format!("{mib}M")))?;
    fs::remove_dir_all(&tree)?;
    fs::rename(&part, &image).context("move the file system's image into place")?;
    Ok(image)
}

/// The bytes of a tree's files, each rounded up to a block.
fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += kind.len().next_multiple_of(4096);
        if kind.is_dir() {
            bytes += size(&entry.path())?;
        }
    }
    Ok(bytes)
}
