//! Processor architectures: this machine's, and the other one that servers have.

use std::fmt;

use anyhow::{Result, bail};

/// What netbcc is built for and guests are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arch {
    /// Debian's amd64.
    X86_64,
    /// Debian's arm64.
    Aarch64,
}

impl Arch {
    /// The architecture of this machine.
    pub(crate) const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// # Errors
    /// The text names none, neither in the kernel's way nor in Debian's.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            _ => bail!("no architecture {text}: there are x86_64 and aarch64"),
        }
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The compiler's name of a machine whose C library can be linked statically.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_an_architecture_are_known() {
        assert_eq!(Arch::parse("arm64").ok(), Some(Arch::Aarch64));
        assert_eq!(Arch::parse(&Arch::X86_64.to_string()).ok(), Some(Arch::X86_64));
        assert!(Arch::parse("riscv64").is_err());
        assert_eq!(Arch::HERE.to_string(), std::env::consts::ARCH);
    }
}
