//! `cargo xtask lint`: what the compiler does not complain about.

use anyhow::Result;

use crate::{
    process::{cargo, run as run_process},
    provision::{Store, crates},
};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    run_process(cargo().args(["fmt", "--all", "--check"]))?;
    run_process(cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    let why = "which checks the licences of dependencies";
    let deny = crates::tool(&Store::open()?, "cargo-deny", CARGO_DENY, why)?;
    run_process(
        std::process::Command::new(deny)
            .current_dir(crate::process::root())
            // Advisories need a database that is fetched at every run.
            .args(["check", "bans", "licenses", "sources"]),
    )
}
