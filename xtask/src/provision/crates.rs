//! Tools from crates.io, built into the store.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Of, Store, say};
use crate::process::{cargo, find, quiet_in_logs, run};

const QUICKLY: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];

/// A tool that is on PATH, or built from its crate.
pub(crate) fn tool(store: &Store, name: &str, version: &str, why: &str) -> Result<PathBuf> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    build(store, name, version, why)
}

/// This very version, whatever is on PATH.
pub(super) fn build(store: &Store, name: &str, version: &str, why: &str) -> Result<PathBuf> {
    let folder = store
        .folder(&format!("{name}-{version}"), Of::ThisCompiler, |dir| {
            say(&format!(
                "building {name} {version}, {why}, from crates.io: tens of MB of sources, and a \
                 minute or more"
            ));
            run(quiet_in_logs(&mut cargo())
                .args(["install", "--locked", name, "--version", version, "--root"])
                .arg(dir)
                // Not where this workspace's settings apply.
                .current_dir("/")
                .env("CARGO_TARGET_DIR", dir.join("build"))
                // It runs for seconds: what its authors make of a release takes minutes.
                .envs(QUICKLY)
                .env_remove("RUSTFLAGS"))?;
            std::fs::remove_dir_all(dir.join("build")).context("cannot remove what was built with")
        })
        .with_context(|| {
            format!("cannot build {name}; install it yourself: cargo install {name}")
        })?;
    Ok(folder.join("bin").join(name))
}
