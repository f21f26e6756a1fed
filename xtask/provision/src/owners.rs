//! Programs that own a firewall, as Debian has them, in a root file system of their own.

use std::path::PathBuf;

use anyhow::Result;

use crate::Thing;

/// The root file system.
pub fn provide() -> Result<PathBuf> {
    Thing::Owners.provide()
}
