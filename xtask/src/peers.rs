//! The tools of libbpf-tools, to measure and to compare with: unpacked below `target/`, never installed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::apt;
use crate::shell::{find_program, say, target};

/// Debian's package of them.
pub(crate) const PACKAGE: &str = "libbpf-tools";
/// Where they lie in a guest.
pub(crate) const FOLDER: &str = "/peer";
/// And their libraries.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// The library by which coreutils' stdbuf works.
const LIBSTDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";

/// Unpacks them, unless they are there or installed.
///
/// # Errors
/// This machine has no apt, or the package cannot be had.
pub(crate) fn fetch() -> Result<()> {
    if find_program("bpf-tcpstates").is_some() || folder().is_dir() {
        return Ok(());
    }
    if !apt::usable() {
        bail!("this machine has no apt");
    }
    say(&format!(
        "unpacking {PACKAGE} into target/{PACKAGE} (it is not installed): to hold netbcc against it"
    ));
    apt::unpack(PACKAGE, &folder())
}

fn folder() -> PathBuf {
    target().join(PACKAGE)
}

/// The folders of the libraries that came with them.
pub(crate) fn libraries() -> Vec<PathBuf> {
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [folder().join("usr").join(&libraries), folder().join(libraries)];
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// The tool of that name. Later packages give its program a prefix.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let names = [format!("bpf-{tool}"), tool.to_owned()];
    let unpacked = names.iter().map(|name| folder().join("usr/sbin").join(name)).find(|file| file.is_file());
    unpacked.or_else(|| find_program(&names[0]))
}

/// What a guest needs to run these tools, and where it goes. Their header would stay in a buffer: stdbuf gives them the
/// one of a terminal.
pub(crate) fn files(tools: &[&str]) -> Vec<(PathBuf, String)> {
    let tools = tools.iter().filter_map(|tool| Some((find(tool)?, format!("{FOLDER}/{tool}"))));
    let mut files: Vec<(PathBuf, String)> = tools.collect();
    if files.is_empty() {
        return files;
    }
    files.extend(
        [("/usr/bin/stdbuf", "/bin/stdbuf"), (LIBSTDBUF, LIBSTDBUF)]
            .map(|(from, to)| (from.into(), to.to_owned())),
    );
    let folders = libraries().into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let libraries = folders.flatten().filter_map(Result::ok).filter(|entry| entry.path().is_file());
    files.extend(
        libraries.map(|entry| (entry.path(), format!("{LIBRARIES}/{}", entry.file_name().to_string_lossy()))),
    );
    files.sort();
    files.dedup();
    files
}
