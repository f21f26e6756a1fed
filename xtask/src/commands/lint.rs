//! `cargo xtask lint`: what the compiler does not complain about.

use std::process::Command;

use anyhow::Result;
use ctwatch_provision::{
    bpf::Toolchain,
    crates::cargo_deny,
    minimum,
    process::{cargo, quiet_in_logs, root, run as run_process},
};

pub(crate) fn run() -> Result<()> {
    formatting()?;
    all_but_formatting()
}

pub(crate) fn formatting() -> Result<()> {
    step("formatting", cargo().args(["fmt", "--all", "--check"]))
}

pub(crate) fn all_but_formatting() -> Result<()> {
    // Locked: here it shows when Cargo.lock was left behind.
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("clippy", quiet_in_logs(&mut cargo()).args(clippy))?;
    let toolchain = Toolchain::provide()?;
    step("clippy of the probes, for BPF", quiet_in_logs(&mut toolchain.clippy()?))?;
    let deny = cargo_deny()?;
    // deny.toml says why not advisories too.
    let deny_args = ["check", "bans", "licenses", "sources"];
    step("dependencies", Command::new(deny).current_dir(root()).args(deny_args))?;
    // Without tests: those who use or package ctwatch compile it, contributors have the newest Rust.
    let oldest = format!("Rust {}, the oldest that must do", minimum::version());
    let check = ["check", "--locked", "--workspace"];
    step(&oldest, quiet_in_logs(&mut minimum::cargo()?).args(check))
}

fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("xtask: {what}");
    run_process(command)
}
