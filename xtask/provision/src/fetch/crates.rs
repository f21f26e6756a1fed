//! Tools from crates.io, built into the store.

use anyhow::{Context, Result};
use ctwatch_provision::{
    Thing,
    crates::Tool,
    process::{cargo, quiet_in_logs, run},
};

use super::{Of, Store, say};

const QUICKLY: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];

pub(super) fn build(store: &Store, thing: &Thing, tool: &Tool) -> Result<()> {
    let Tool { name, version, why } = tool;
    store
        .folder(thing, Of::ThisCompiler, |dir| {
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
        .with_context(|| format!("cannot build {name}; install it yourself: cargo install {name}"))
}
