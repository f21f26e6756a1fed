//! Parses, dispatches, prints what went wrong, and exits: 0 done, 1 failed, 2 wrong usage; but
//! `check` as monitoring plugins do.

#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::{io, os::unix::net::UnixStream, process::ExitCode};

use anyhow::Context;
use ctwatch::{
    cli::{CheckArgs, CheckOutput, Cli, Command},
    commands::{self, Mask, confine::Reach},
    host::kernel::privileges::{Work, keep},
    output::aside,
    web::{self, listen::Listening},
};

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == web::child::NAME) {
        return listen();
    }
    let cli = match Cli::of(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => return wrong(&error),
    };
    let command = cli.command.unwrap_or(Command::Watch(cli.watch));
    // Before anything else, and before there is a thread that would keep its own.
    let (work, writes) = match &command {
        Command::Check(args) if args.from.is_some() => (Work::Read, false),
        Command::Check(args) => (Work::Look, args.state.is_some()),
        Command::Census(args) if args.from.is_some() => (Work::Read, false),
        Command::Doctor(args) if args.then.from.is_some() || !args.diff.is_empty() => {
            (Work::Read, false)
        }
        Command::Doctor(args) => (Work::All, args.write.is_some()),
        Command::Watch(args) if args.past.from.is_some() => (Work::Read, false),
        Command::Watch(args) => (Work::All, args.record.is_some()),
        Command::Top(args) if args.past.from.is_some() => (Work::Read, true),
        Command::Top(_) => (Work::All, true),
        Command::Record(args) if args.cut.is_some() => (Work::Read, true),
        Command::Record(_) => (Work::All, true),
        Command::Serve(args) => (Work::All, args.record.is_some() || args.textfile.is_some()),
        Command::Incidents(_) => (Work::Read, false),
        Command::Report(_) => (Work::Read, true),
        Command::Collect(_) => (Work::Collect, true),
        _ => (Work::All, false),
    };
    let mask = commands::mask(&cli.mask);
    let is_masked = cli.mask.mask || cli.mask.mask_key.is_some();
    // A port below 1024 takes what is given up next.
    let listening = match &command {
        Command::Serve(args) => commands::serve::listen(args),
        _ => Ok(Listening::default()),
    };
    let kept = keep(work, writes).and_then(|()| match Reach::of(&command) {
        Some(reach) => reach.confine(),
        None => Ok(()),
    });
    let kept = kept.and(mask);
    let outcome = match command {
        Command::Check(args) => return check(&args, kept),
        Command::Serve(args) => {
            kept.and_then(|mask| asynchronously(commands::serve::run(args, listening?, mask)))
        }
        command => kept.and_then(|mask| run(command, mask)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            aside::say(&commands::said(&error, is_masked));
            match error.is::<commands::WrongUsage>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command, mask: Option<Mask>) -> anyhow::Result<()> {
    match command {
        Command::Watch(args) => asynchronously(commands::watch::run(args, mask)),
        Command::Top(args) => asynchronously(commands::top::run(args, mask)),
        Command::Record(args) => asynchronously(commands::record::run(args, mask)),
        Command::Collect(args) => asynchronously(commands::collect::run(args, mask)),
        Command::Trace(args) => asynchronously(commands::trace::run(args, mask)),
        Command::Incidents(args) => commands::incidents::run(&args, mask),
        Command::Report(args) => commands::report::run(&args, mask),
        Command::Census(args) => commands::census::run(&args, mask),
        Command::Doctor(args) => asynchronously(commands::doctor::run(args, mask)),
        // One has an exit code of its own, the other sockets.
        Command::Check(_) | Command::Serve(_) => Ok(()),
    }
}

/// As the process that `serve` starts.
fn listen() -> ExitCode {
    match web::child::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            aside::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// To monitoring, the 2 of a wrong usage would be a critical finding.
fn wrong(error: &clap::Error) -> ExitCode {
    let is_check = std::env::args_os().nth(1).is_some_and(|arg| arg == "check");
    if !is_check || !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    // What follows after an empty line is advice for somebody at a terminal.
    let complaint = text.split("\n\n").next().unwrap_or_default();
    commands::check::unknown(complaint.trim_start_matches("error: "), CheckOutput::Plugin)
}

fn check(args: &CheckArgs, kept: anyhow::Result<Option<Mask>>) -> ExitCode {
    match kept.and_then(|mask| Ok((runtime()?, mask))) {
        Ok((runtime, mask)) => runtime.block_on(commands::check::run(args, mask)),
        Err(error) => commands::check::unknown(&format!("{error:#}"), args.output),
    }
}

/// tokio panics where it cannot open what it takes to wait for signals: it is seen before.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    const PAIRS: usize = 4;
    let enough = (0..PAIRS).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>();
    enough.context("cannot open files: more descriptors are needed (ulimit -n)")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")
}

fn asynchronously(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime()?;
    match runtime.block_on(work) {
        // Whoever read the output has seen enough.
        Err(error) if commands::is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}
