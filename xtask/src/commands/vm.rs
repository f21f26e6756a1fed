//! `cargo xtask vm`: other kernels.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use ctwatch_provision::{kernels::Kind, machine::Machine};

use super::build;
use crate::{
    matrix::kernel_names,
    vm::{
        image::Job,
        machine::Clock,
        parts::{MODULES, Named, Parts},
    },
};

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these kernels: the beginning of a version that Debian offers, or "newest"
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// A shell in one of them, with ctwatch and the tests' tools inside (Ctrl-A X switches off)
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// Tell the kernels to have room for N CPUs
    #[arg(long, value_name = "N")]
    possible_cpus: Option<u32>,
    #[command(flatten)]
    build: build::Options,
    /// Run this instead of a look at ctwatch
    #[arg(last = true)]
    command: Vec<String>,
}

impl Named for String {
    fn kernel(&self) -> &str {
        self
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let names: Vec<String> = match args.kernels.as_slice() {
        // Those that this machine's executable runs on.
        [] => {
            let own = |name: &&str| matches!(Kind::of(name), (_, Kind::Own | Kind::RealTime));
            kernel_names().into_iter().filter(own).map(str::to_owned).collect()
        }
        some => some.to_vec(),
    };
    let machines: BTreeSet<Machine> =
        names.iter().map(|name| Kind::of(name).1.machine()).collect::<Result<_>>()?;
    let [machine] = Vec::from_iter(machines)[..] else {
        bail!("kernels of one machine at a time");
    };
    let (ctwatch, init) = if machine == Machine::of_this()? {
        (build::run(&args.build)?, build::init()?)
    } else {
        let inside = build::inside(machine, &args.build)?;
        (inside.ctwatch, inside.init)
    };
    let parts = Parts::provide(&names)?;
    let job = Job {
        argv: match args.command.as_slice() {
            [] if args.shell => Vec::new(),
            [] => vec!["/usr/bin/ctwatch".to_owned(), "1".to_owned(), "3".to_owned()],
            command => command.to_vec(),
        },
        modules: MODULES.map(str::to_owned).to_vec(),
        files: vec![(ctwatch, "usr/bin/ctwatch".to_owned())],
        possible_cpus: args.possible_cpus,
        ..Job::default()
    };
    if args.shell {
        let [kernel] = parts.kernels() else {
            bail!("a shell is in one kernel: cargo xtask vm --kernel 6.1 --shell");
        };
        eprintln!("xtask: Linux {} (Ctrl-A X switches off)", kernel.release);
        parts.shell(kernel, &init, &job)?;
        return Ok(ExitCode::SUCCESS);
    }
    let good = AtomicBool::new(true);
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    parts.run_all(&names, at_once, |_, name, kernel| {
        let begun = Instant::now();
        let say = |line: &str| println!("[{name}] {line}");
        let outcome = parts.run_one(kernel, name, Clock::Real, &init, &job, PATIENCE, say);
        let (release, took) = (&kernel.release, begun.elapsed().as_secs_f64());
        if !matches!(outcome, Ok(0)) {
            good.store(false, Ordering::Relaxed);
        }
        match outcome {
            Ok(code) => eprintln!("xtask: {name} ({release}): exit code {code}, {took:.0} s"),
            Err(error) => eprintln!("xtask: {name} ({release}): {error:#}, {took:.0} s"),
        }
    })?;
    eprintln!("xtask: logs are in target/vm");
    Ok(if good.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
