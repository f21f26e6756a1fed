//! `cargo xtask run`: build, then become ctwatch.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::Context;

use super::build;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    build: build::Options,
    /// Arguments of ctwatch: cargo xtask run -- watch --interval 2s
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let ctwatch = build::run(&args.build)?;
    // In its place, so that Ctrl-C and the exit code are ctwatch's own.
    let error = Command::new(&ctwatch).args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", ctwatch.display()))
}
