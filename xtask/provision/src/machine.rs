//! Machines that ctwatch is built for, and what Rust and Debian call them.

use std::env::consts::ARCH;

use anyhow::{Result, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    X86_64,
    Aarch64,
    /// 32 bits: without programs in the kernel.
    Armv7,
}

impl Machine {
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Armv7];

    pub fn of_this() -> Result<Self> {
        match Self::ALL.into_iter().find(|machine| machine.name() == ARCH) {
            Some(machine) => Ok(machine),
            None => bail!("ctwatch is built for x86_64, aarch64 and armv7, and this is {ARCH}"),
        }
    }

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Armv7 => "armv7",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|machine| machine.name() == name)
    }

    /// As rustc calls it.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::Armv7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// As Debian calls it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
            Self::Armv7 => "armhf",
        }
    }

    /// Debian's name for where its libraries are.
    pub const fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::Armv7 => "arm-linux-gnueabihf",
        }
    }

    /// Whether the kernel's half can run there.
    pub const fn has_probes(self) -> bool {
        !matches!(self, Self::Armv7)
    }
}
