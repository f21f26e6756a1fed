//! nfpm, which packs for distributions.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Thing;

pub const VERSION: &str = "2.48.0";
/// The file of the folder.
pub const PROGRAM: &str = "nfpm";

/// The program.
pub fn provide() -> Result<PathBuf> {
    let folder = Thing::Nfpm.provide().context("nfpm could not be had")?;
    Ok(folder.join(PROGRAM))
}
