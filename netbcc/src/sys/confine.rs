//! Giving up what is not needed any more: once everything is attached and open, a tool only reads maps and writes
//! to its output. What attacks it then through what it prints gets nothing (ARCHITECTURE.md, D21).

use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _,
};
use rustix::process::{DumpableBehavior, getuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};

/// Keeps the user who runs us with file capabilities from tracing us and from reading our memory. The kernel does so when
/// it grants them, unless fs.suid_dumpable says otherwise. What lies below /proc/self then belongs to root, and we may
/// still read it.
///
/// # Errors
/// The kernel does not let us, which it always does.
pub fn shield() -> Result<()> {
    let granted = capabilities(None).is_ok_and(|ours| !ours.permitted.is_empty());
    if granted && !getuid().is_root() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("set PR_SET_DUMPABLE")?;
    }
    Ok(())
}

/// Drops all capabilities of this thread and of threads to come, for good, and with Landlock (where the kernel has
/// it) the right to change, make or execute any file and to open TCP connections. What is open stays open.
///
/// `folder` is left: what is made and written there afterwards needs nothing but its owner's rights.
///
/// `works` tells whether maps can still be read: kernels before 5.19 want `CAP_BPF` for that where
/// kernel.unprivileged_bpf_disabled is set, so there it is kept.
///
/// # Errors
/// The kernel does not let us, which it always does.
pub fn confine(folder: Option<Folder<'_>>, works: impl FnOnce() -> bool) -> Result<()> {
    let none = CapabilitySet::empty();
    let permitted = capabilities(None).context("read our capabilities")?.permitted;
    if !permitted.is_empty() {
        clear_ambient_capability_set().context("clear the ambient capabilities")?;
        set(none, permitted)?;
        let kept = if works() { none } else { permitted & CapabilitySet::BPF };
        set(kept, kept)?;
    }
    set_no_new_privs(true).context("set no_new_privs")?;
    // As far as the kernel knows it; reading stays: /proc/self, /proc/loadavg, the time zone.
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_write(ABI::V5) | AccessFs::Execute)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(Ruleset::create)
        .and_then(|rules| match folder {
            Some(Folder { descriptor, renames }) => {
                let names = if renames { AccessFs::RemoveFile.into() } else { BitFlags::EMPTY };
                rules.add_rule(PathBeneath::new(descriptor, AccessFs::WriteFile | AccessFs::MakeReg | names))
            }
            None => Ok(rules),
        });
    ruleset.and_then(RulesetCreated::restrict_self).context("restrict ourselves with Landlock")?;
    Ok(())
}

/// The folder of a file to which a run writes, and what it may do there.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'f> {
    /// The folder.
    pub descriptor: BorrowedFd<'f>,
    /// Whether files get other names, and the oldest goes.
    pub renames: bool,
}

/// Does something without the capabilities of this thread, which it has again afterwards.
///
/// # Errors
/// The kernel does not let us, which it always does.
pub fn without_power<T>(act: impl FnOnce() -> T) -> Result<T> {
    let ours = capabilities(None).context("read our capabilities")?;
    let change = |effective| {
        set_capabilities(None, CapabilitySets { effective, ..ours }).context("set our capabilities aside")
    };
    change(CapabilitySet::empty())?;
    let done = act();
    change(ours.effective)?;
    Ok(done)
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("drop capabilities")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Write as _};
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Capabilities, and what Landlock forbids, are a thread's own.
    fn confined<T: Send + 'static>(check: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            confine(None, || true).unwrap();
            check()
        });
        thread.join().unwrap()
    }

    #[test]
    fn nothing_is_left_of_our_power() {
        let status = confined(|| fs::read_to_string("/proc/thread-self/status").unwrap());
        for line in ["CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
        assert!(
            status.contains("CapAmb:\t0000000000000000") && status.contains("NoNewPrivs:\t1"),
            "{status}"
        );
    }

    #[test]
    fn what_is_open_stays_open_and_nothing_else_can_be_changed() {
        let path = std::env::temp_dir().join(format!("netbcc-confine-{}", std::process::id()));
        let mut open = File::create(&path).unwrap();
        let own = path.clone();
        let refused = confined(move || {
            open.write_all(b"x").unwrap();
            assert_eq!(fs::read(&own).unwrap(), b"x");
            [File::create(&own).err(), fs::remove_file(&own).err(), Command::new("/bin/true").status().err()]
        });
        fs::remove_file(&path).unwrap();
        let enforced =
            fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.contains("landlock"));
        if enforced {
            assert!(
                refused.iter().flatten().filter(|error| error.kind() == ErrorKind::PermissionDenied).count()
                    == 3,
                "{refused:?}"
            );
        }
    }
}
