//! The oldest Rust that compiles ctwatch, by Cargo.toml: a compiler of that very version.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    Thing,
    process::{output, root},
};

/// As rustup calls it: `1.89.0`.
pub fn version() -> String {
    let stated = env!("CARGO_PKG_RUST_VERSION");
    if stated.matches('.').count() == 1 { format!("{stated}.0") } else { stated.to_owned() }
}

/// Cargo of that version with its compiler: this user's, or one in `target/provision`. It compiles
/// into a folder of its own, because the other compiler would begin anew after it.
pub fn cargo() -> Result<Command> {
    let bin = match installed() {
        Some(bin) => bin,
        None => Thing::MinimumRust.provide()?.join("bin"),
    };
    let mut cargo = Command::new(bin.join("cargo"));
    cargo.current_dir(root()).env("CARGO_TARGET_DIR", root().join("target/minimum"));
    cargo.env("RUSTC", bin.join("rustc"));
    for of_another in ["CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(of_another);
    }
    Ok(cargo)
}

/// Where rustup has it, if this user installed it.
fn installed() -> Option<PathBuf> {
    let version = version();
    let mut rustup = Command::new("rustup");
    rustup.args(["which", "--toolchain", &version, "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    let rustc = output(&mut rustup).ok()?;
    let bin = Path::new(rustc.trim()).parent()?;
    bin.join("cargo").is_file().then(|| bin.to_owned())
}
