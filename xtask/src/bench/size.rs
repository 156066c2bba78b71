//! What lies on the disk for the tools to run: files, and by apt's own account the packages that they cannot run without.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{apt, peers};

/// Debian's package of BCC's tools.
const BCC: &str = "bpfcc-tools";

/// One way to have the tools.
pub(super) struct Size {
    pub(super) what: String,
    pub(super) bytes: Result<u64>,
}

/// netbcc, BCC for this kernel, libbpf-tools: each with all that it needs, down to the C library.
pub(super) fn sizes(binary: &Path, kernel: &str) -> Vec<Size> {
    let ours = fs::metadata(binary).with_context(|| binary.display().to_string()).map(|file| file.len());
    vec![
        Size { what: "netbcc: one static file with all tools, which needs nothing".to_owned(), bytes: ours },
        packages(
            BCC,
            &apt::headers(kernel),
            "all of its tools, their Python and compiler, the kernel's headers",
        ),
        packages(peers::PACKAGE, &[], "all of its tools, of which 8 are here, with libc, libelf and zlib"),
    ]
}

/// A package with those that it needs, and those `besides`.
fn packages(package: &str, besides: &[String], with: &str) -> Size {
    match apt::installed_size(package, besides) {
        Ok((count, bytes)) => {
            Size { what: format!("{package}: {with} ({count} packages)"), bytes: Ok(bytes) }
        }
        Err(why) => Size { what: format!("{package}: {with}"), bytes: Err(why) },
    }
}
