//! Parses, dispatches, prints what went wrong, and exits: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use ctwatch::{
    cli::{Cli, Command, WatchArgs},
    commands,
    output::escape::escaped,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or(Command::Watch(cli.watch)) {
        Command::Watch(args) => watch(args),
        Command::Census(args) => commands::census::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctwatch: {}", escaped(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn watch(args: WatchArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::watch::run(args))
}
