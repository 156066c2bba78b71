//! The Debian package, by `dpkg-deb` itself: with fixed owners and `SOURCE_DATE_EPOCH` it writes the same bytes for the
//! same files. `cargo-deb` could do it, too, but is hundreds of crates to build for what is one command here.
//!
//! There is no script for the removal, because nothing is left to do: the file capabilities go with the file. Without
//! one, dpkg forgets the package altogether when it is removed.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::VERSION;
use super::tree;
use crate::shell::{find_program, output, run, say};

/// A mailbox, because Debian's tools insist on one. Nobody reads it: reports go where SECURITY.md and the homepage say.
pub(super) const MAINTAINER: &str = "The netbcc authors <netbcc@users.noreply.github.com>";

const POSTINST: &str = include_str!("postinst.sh");

/// The script runs again when setcap comes, wherever a release of Debian has it: apt may configure this package first.
const TRIGGERS: &str = "interest-noawait /sbin/setcap\ninterest-noawait /usr/sbin/setcap\n";

/// What lintian finds and is as it should be, each with its reason.
const OVERRIDES: &str = "# The binary is static, and position-independent all the same.
netbcc: shared-library-lacks-prerequisites [usr/bin/netbcc]
# The section says which compilers made the binary.
netbcc: binary-has-unneeded-section .comment [usr/bin/netbcc]
";

/// Debian's form of a changelog, which it insists on. What changed stands in our own.
fn changelog(date: &str) -> String {
    format!(
        "netbcc ({VERSION}) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md.gz beside this file.\n\n \
         -- {MAINTAINER}  {date}\n"
    )
}

/// Adds what only Debian wants to the files below `root`, and packs them.
pub(super) fn build(root: &Path, arch: &str, epoch: u64, to: &Path) -> Result<()> {
    let doc = root.join("usr/share/doc/netbcc");
    let mut date = Command::new("date");
    let date = output(date.env("LC_ALL", "C").args(["-u", "-R", "-d", &format!("@{epoch}")]))?;
    tree::zipped(&doc.join("changelog"), &changelog(date.trim()))?;
    tree::file(&root.join("usr/share/lintian/overrides/netbcc"), OVERRIDES.as_bytes())?;
    let files = tree::files(root)?;
    let mut bytes = 0;
    let mut sums = Command::new("md5sum");
    sums.current_dir(root);
    for file in &files {
        let meta = fs::symlink_metadata(root.join(file))?;
        bytes += meta.len().next_multiple_of(1024);
        if meta.is_file() {
            sums.arg(file);
        }
    }
    let debian = root.join("DEBIAN");
    tree::folder(&debian)?;
    tree::file(&debian.join("control"), control(arch, bytes / 1024).as_bytes())?;
    tree::file(&debian.join("md5sums"), output(&mut sums)?.as_bytes())?;
    tree::file(&debian.join("triggers"), TRIGGERS.as_bytes())?;
    tree::file(&debian.join("postinst"), POSTINST.as_bytes())?;
    fs::set_permissions(debian.join("postinst"), Permissions::from_mode(0o755))?;
    let mut cmd = Command::new("dpkg-deb");
    // One thread: several cut the data into blocks, and so give other bytes on a machine with more processors.
    cmd.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("DPKG_DEB_THREADS_MAX", "1");
    run(cmd
        .args(["--root-owner-group", "-Zxz", "-z6", "--build"])
        .arg(root)
        .arg(to)
        .stdout(std::process::Stdio::null()))
}

/// Asks lintian, where it is installed, and says where it is not.
///
/// # Errors
/// It finds something.
pub(super) fn lint(deb: &Path) -> Result<()> {
    if find_program("lintian").is_none() {
        say("lintian is not installed: nobody looked at the package");
        return Ok(());
    }
    let mut cmd = Command::new("lintian");
    // What looks like a word there stands in tables of numbers, in one build and not in the next.
    cmd.args(["--allow-root", "--display-info", "--suppress-tags", "spelling-error-in-binary"]);
    cmd.args(["--fail-on", "error,warning,info"]).arg(deb);
    run(&mut cmd).context("lintian finds what it says above")
}

fn control(arch: &str, kib: u64) -> String {
    let mut text = String::new();
    let fields = [
        ("Package", "netbcc"),
        ("Version", VERSION),
        ("Architecture", arch),
        ("Maintainer", MAINTAINER),
        ("Installed-Size", &kib.to_string()),
        // groupadd, for the script.
        ("Depends", "passwd"),
        ("Recommends", "libcap2-bin"),
        ("Section", "net"),
        ("Priority", "optional"),
        ("Homepage", env!("CARGO_PKG_REPOSITORY")),
        ("Description", "BCC's network tools as one static binary"),
    ];
    for (name, value) in fields {
        writeln!(text, "{name}: {value}").expect("a String takes all");
    }
    text.push_str(
        " Who connects where, how long, with what latency, what is dropped or sent\n again: tcpconnect, tcplife, \
         tcpdrop and ten more, as eBPF programs that ask\n the running kernel for its layout. No Python, no compiler, \
         no kernel headers.\n .\n The tools' own names are links in /usr/lib/netbcc/bin, so that they do not\n clash \
         with those of bpfcc-tools and libbpf-tools.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maintainer_is_a_mailbox_and_the_changelog_is_debians() {
        let (name, mailbox) = MAINTAINER.split_once(" <").expect("a name comes first");
        let (user, host) =
            mailbox.strip_suffix('>').and_then(|address| address.split_once('@')).expect("a mailbox");
        assert!(
            !name.is_empty() && !user.is_empty() && host.contains('.') && !host.contains(['/', ' ']),
            "{mailbox}"
        );
        let text = changelog("Sat, 28 Nov 2026 19:00:00 +0000");
        assert_eq!(text.lines().next(), Some(&*format!("netbcc ({VERSION}) unstable; urgency=medium")));
        assert!(
            text.contains("\n\n  * ") && text.ends_with(">  Sat, 28 Nov 2026 19:00:00 +0000\n"),
            "{text}"
        );
    }

    #[test]
    fn control_has_a_field_a_line_and_a_folded_description() {
        let text = control("amd64", 5000);
        let (fields, description) = text.split_once("Description: ").expect("the last field");
        assert!(
            fields.contains("Architecture: amd64\n") && fields.contains("Installed-Size: 5000\n"),
            "{text}"
        );
        assert!(fields.lines().all(|line| line.split_once(": ").is_some_and(|(_, value)| !value.is_empty())));
        assert!(description.lines().skip(1).all(|line| line.starts_with(' ') && line.len() < 80), "{text}");
    }
}
