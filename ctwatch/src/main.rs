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
    let Command::Watch(args) = cli.command.unwrap_or(Command::Watch(cli.watch));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::watch::run(args)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctwatch: {}", escaped(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
