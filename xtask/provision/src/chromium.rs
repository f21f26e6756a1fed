//! A browser: this machine's own, as Debian installs it, or Debian's unpacked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Thing, process::find};

/// The program below a root: `/usr/bin/chromium` is a script, which adds what this machine's
/// administrator wants of a browser.
pub const PROGRAM: &str = "usr/lib/chromium/chromium";
/// Starts the one that was unpacked.
pub const WRAPPER: &str = "chromium";

/// What to start.
pub fn provide() -> Result<PathBuf> {
    let system = Path::new("/").join(PROGRAM);
    if find("chromium").is_some() && system.is_file() {
        return Ok(system);
    }
    let folder = Thing::Chromium.provide().context("Chromium could not be had")?;
    Ok(folder.join(WRAPPER))
}
