//! Parses, dispatches, prints what went wrong, and exits: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use ctwatch::{
    cli::{Cli, Command},
    commands,
    output::escape::escaped,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or(Command::Watch(cli.watch)) {
        Command::Watch(args) => asynchronously(commands::watch::run(args)),
        Command::Trace(args) => asynchronously(commands::trace::run(args)),
        Command::Census(args) => commands::census::run(&args),
        Command::Doctor(args) => asynchronously(commands::doctor::run(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctwatch: {}", escaped(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn asynchronously(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(work) {
        // Whoever read the output has seen enough.
        Err(error) if commands::is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}
