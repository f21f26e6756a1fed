//! Debian's kernels, to boot in virtual machines.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::Thing;

/// Of all kernels that Debian offers, the one with the highest version.
pub const NEWEST: &str = "newest";

pub struct Kernel {
    /// What was asked for: `6.1`, `newest`.
    pub name: String,
    /// What `uname -r` says in it.
    pub release: String,
    dir: PathBuf,
}

impl Kernel {
    /// The newest of Debian's kernels whose version begins with `name`. What was fetched once stays
    /// until its folder, target/provision/kernel-NAME, is removed.
    pub fn provide(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_digit() || c == '.';
        if name != NEWEST && (name.is_empty() || !name.chars().all(fits)) {
            bail!("{name:?} is no kernel: a version such as 6.1, or {NEWEST}");
        }
        let dir = Thing::Kernel(name.to_owned())
            .provide()
            .with_context(|| format!("cannot fetch kernel {name}"))?;
        let release = fs::read_to_string(dir.join("release"))?;
        Ok(Self { name: name.to_owned(), release, dir })
    }

    pub fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// A folder that holds `lib/modules`.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }
}
