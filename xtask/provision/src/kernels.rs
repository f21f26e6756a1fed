//! Debian's kernels, to boot in virtual machines.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Thing, machine::Machine};

/// Of all kernels that Debian offers, the one with the highest version.
pub const NEWEST: &str = "newest";

/// Behind a version: the kernel of which kind it is. Without one it is this machine's smallest, which
/// boots fastest; its configuration of conntrack, BPF and BTF is that of Debian's other flavours.
const KINDS: [(&str, Kind); 3] =
    [("-arm64", Kind::Arm64), ("-armmp", Kind::Armmp), ("-rt", Kind::RealTime)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Own,
    /// For aarch64.
    Arm64,
    /// For armv7: of 32 bits.
    Armmp,
    /// PREEMPT_RT.
    RealTime,
}

impl Kind {
    /// The version that was asked for, and of which kind.
    pub fn of(name: &str) -> (&str, Self) {
        let known = KINDS.iter().find_map(|(end, kind)| Some((name.strip_suffix(end)?, *kind)));
        known.unwrap_or((name, Self::Own))
    }

    pub fn machine(self) -> Result<Machine> {
        match self {
            Self::Own | Self::RealTime => Machine::of_this(),
            Self::Arm64 => Ok(Machine::Aarch64),
            Self::Armmp => Ok(Machine::Armv7),
        }
    }
}

pub struct Kernel {
    /// What was asked for: `6.1`, `newest`, `6.12-arm64`, `6.12-armmp`, `6.12-rt`.
    pub name: String,
    pub machine: Machine,
    /// What `uname -r` says in it.
    pub release: String,
    dir: PathBuf,
}

impl Kernel {
    /// The newest of Debian's kernels whose version begins with `name`. What was fetched once stays
    /// until its folder, target/provision/kernel-NAME, is removed.
    pub fn provide(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_digit() || c == '.';
        let (version, kind) = Kind::of(name);
        if version != NEWEST && (version.is_empty() || !version.chars().all(fits)) {
            bail!(
                "{name:?} is no kernel: a version such as 6.1, 6.12-arm64, 6.12-armmp, 6.12-rt, or {NEWEST}"
            );
        }
        let dir = Thing::Kernel(name.to_owned())
            .provide()
            .with_context(|| format!("cannot fetch kernel {name}"))?;
        let release = fs::read_to_string(dir.join("release"))?;
        Ok(Self { name: name.to_owned(), machine: kind.machine()?, release, dir })
    }

    pub fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// A folder that holds `lib/modules`.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_of_a_kind() {
        assert_eq!(Kind::of("6.1"), ("6.1", Kind::Own));
        assert_eq!(Kind::of("6.12-arm64"), ("6.12", Kind::Arm64));
        assert_eq!(Kind::of("6.12-armmp"), ("6.12", Kind::Armmp));
        assert_eq!(Kind::of("6.12-rt"), ("6.12", Kind::RealTime));
        assert_eq!(Kind::of(NEWEST), (NEWEST, Kind::Own));
    }
}
