//! Who may see addresses of the kernel's objects: [`Addresses`].
//!
//! They tell an attacker where to aim, and with file capabilities any user may run a tool.

use std::hash::{BuildHasher as _, RandomState};

use rustix::thread::{CapabilitySet, capabilities};

use super::machine;

/// Addresses as this user may see them.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// What they are hashed with (SipHash, by keys of getrandom(2)) where they must not be seen.
    key: Option<RandomState>,
}

impl Addresses {
    /// As the kernel decides for `/proc/kallsyms`: seen with CAP_SYSLOG, unless kernel.kptr_restrict is 2. Asked before
    /// the tool gives up its power.
    pub fn decide() -> Self {
        let powerful = capabilities(None).is_ok_and(|ours| ours.effective.contains(CapabilitySet::SYSLOG));
        let restrict = machine::sysctl("kernel/kptr_restrict");
        let open = restrict.is_some_and(|level| level == "0" || level == "1");
        Self { key: (!(powerful && open)).then(RandomState::new) }
    }

    /// Whether [`Addresses::shown`] is something else than the address.
    pub fn are_hidden(&self) -> bool {
        self.key.is_some()
    }

    /// The address, or what stands for it in this run: as wide, and for the same address the same.
    pub fn shown(&self, address: u64) -> u64 {
        /// The first digit is not 0, so that there are always 16.
        const WIDE: u64 = 1 << 60;
        self.key.as_ref().map_or(address, |key| key.hash_one(address) | WIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_address_is_as_wide_and_stands_for_itself_in_one_run() {
        let (one, other) = (0xffff_8881_0000_1000, 0xffff_8881_0000_1800);
        let open = Addresses { key: None };
        assert!(open.shown(one) == one && !open.are_hidden());
        let [first, second] = [(); 2].map(|()| Addresses { key: Some(RandomState::new()) });
        assert_eq!(first.shown(one), first.shown(one));
        assert_ne!(first.shown(one), first.shown(other));
        assert_ne!(first.shown(one), second.shown(one), "each run has a key of its own");
        for address in 0..100 {
            assert_eq!(format!("{:x}", first.shown(address)).len(), 16);
        }
    }
}
