//! Tools from crates.io.

use std::path::PathBuf;

use anyhow::Result;

use crate::{Thing, process::find};

pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
    pub why: &'static str,
}

/// Loads whatever libLLVM it finds at run time; later versions are linked to an LLVM of the
/// system's, with its headers.
pub const BPF_LINKER: Tool =
    Tool { name: "bpf-linker", version: "0.10.1", why: "which links the probes" };

/// The newest that the stable rustc of this workspace builds.
pub const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "which checks the licences of dependencies",
};

impl Tool {
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// This very version, whatever is on PATH.
    pub(crate) fn provide(&self, thing: &Thing) -> Result<PathBuf> {
        Ok(thing.provide()?.join("bin").join(self.name))
    }
}

/// The one on PATH, or one that is built from its crate.
pub fn cargo_deny() -> Result<PathBuf> {
    find(CARGO_DENY.name).map_or_else(|| CARGO_DENY.provide(&Thing::CargoDeny), Ok)
}
