//! A Debian with systemd, to boot in a virtual machine and to install packages in.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Thing;

/// Its root file system.
pub fn provide() -> Result<PathBuf> {
    Thing::Debian.provide().context("a Debian to boot could not be had")
}
