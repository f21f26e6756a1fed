//! The oldest Rust that compiles ctwatch, by rustup, into the store.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing, minimum,
    process::{find, output, run},
};

use super::{Of, Store, say};

/// Nobody compiles with these.
const SPARED: [&str; 3] = ["share", "bin/rustdoc", "libexec"];

pub(super) fn provide(store: &Store) -> Result<()> {
    let version = minimum::version();
    store
        .folder(&Thing::MinimumRust, Of::Itself, |dir| {
            ensure!(find("rustup").is_some(), "this machine has no rustup");
            say(&format!(
                "fetching Rust {version}, the oldest that must compile ctwatch, by rustup, for \
                 target/ only: 100 MB, 550 MB unpacked"
            ));
            let home = dir.join("rustup");
            run(Command::new("rustup")
                .args(["toolchain", "install", &version, "--profile", "minimal"])
                .arg("--no-self-update")
                .env("RUSTUP_HOME", &home)
                .env_remove("RUSTUP_TOOLCHAIN"))?;
            let toolchains = fs::read_dir(home.join("toolchains"))?;
            let toolchain = toolchains.flatten().next().context("rustup installed nothing")?;
            for entry in fs::read_dir(toolchain.path())? {
                let entry = entry?;
                fs::rename(entry.path(), dir.join(entry.file_name()))?;
            }
            fs::remove_dir_all(&home)?;
            for spared in SPARED.map(|spared| dir.join(spared)) {
                if spared.is_dir() {
                    fs::remove_dir_all(&spared)?;
                } else if spared.exists() {
                    fs::remove_file(&spared)?;
                }
            }
            let said = output(Command::new(dir.join("bin/rustc")).arg("-V"))?;
            ensure!(said.contains(&format!(" {version} ")), "rustup brought {said}");
            Ok(())
        })
        .with_context(|| {
            format!(
                "cannot fetch Rust {version}; with one of your own nothing is fetched: rustup \
                 toolchain install {version} --profile minimal"
            )
        })
}
