//! What a contributor types: `cargo xtask --help`.

mod commands;
mod process;
mod provision;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, run and test ctwatch. Whatever is missing for that is fetched into target/provision;
/// nothing outside target/ is changed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and start ctwatch on this host; arguments after `--` are ctwatch's
    Run(commands::run::Args),
    /// Build target/release/ctwatch, the probes inside
    Build(commands::build::Options),
    /// Run all tests; those that need root and network namespaces are skipped without root
    Test(commands::test::Args),
    /// Build a router with a small table in network namespaces, saturate it, watch, clean up (root)
    Lab(commands::lab::Args),
    /// Measure what watching costs, beside nothing and beside conntrack -E (root)
    Bench(commands::bench::Args),
    /// Check formatting, lints, and licences of dependencies
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Build(args) => commands::build::run(&args).map(|_| ExitCode::SUCCESS),
        Command::Test(args) => commands::test::run(&args),
        Command::Lab(args) => commands::lab::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Lint => commands::lint::run().map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
