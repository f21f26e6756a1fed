//! `cargo xtask vm`: other kernels.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::build;
use crate::{
    process::root,
    provision::{
        Store,
        guest::Guest,
        kernels::{Kernel, NEWEST},
        qemu::Qemu,
    },
    vm::{
        image::{self, Job},
        machine::{Clock, Machine},
    },
};

/// Those of the distributions that switches and routers are built on, and what is to come; and by
/// which mechanisms ctwatch must be able to count on each.
pub(crate) const KERNELS: [(&str, &[&str]); 4] = [
    // Without the BTF of modules.
    ("5.10", &["kprobe", "tracepoint", "counters"]),
    ("6.1", ALL),
    ("6.12", ALL),
    (NEWEST, ALL),
];
const ALL: &[&str] = &["fexit", "kprobe", "tracepoint", "counters"];
/// A job that takes longer hangs: emulated, and beside another one, all takes ten times its time.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these kernels: the beginning of a version that Debian offers, or "newest"
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// A shell in one of them, with ctwatch and the tests' tools inside (Ctrl-A X switches off)
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    #[command(flatten)]
    build: build::Options,
    /// Run this instead of a look at ctwatch
    #[arg(last = true)]
    command: Vec<String>,
}

/// What virtual machines are made of.
pub(crate) struct Parts {
    qemu: Qemu,
    guest: Guest,
    init: PathBuf,
    kernels: Vec<Kernel>,
}

impl Parts {
    pub(crate) fn provide(names: &[String]) -> Result<Self> {
        let init = build::init()?;
        let store = Store::open()?;
        let qemu = Qemu::provide(&store)?;
        let guest = Guest::provide(&store)?;
        let kernels = names.iter().map(|name| Kernel::provide(&store, &guest, name));
        Ok(Self { qemu, kernels: kernels.collect::<Result<_>>()?, guest, init })
    }

    fn machine<'a>(&'a self, kernel: &Kernel, image: &'a Path, of: &'a Path) -> Machine<'a> {
        let logs = root().join("target/vm").join(&kernel.name);
        Machine { qemu: &self.qemu, kernel: of, initrd: image, clock: Clock::Real, logs }
    }

    fn image(&self, kernel: &Kernel, job: &Job) -> Result<PathBuf> {
        let dir = root().join("target/vm").join(&kernel.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join("image.cpio");
        image::write(&path, &[self.guest.root(), &kernel.modules()], &self.init, job)?;
        Ok(path)
    }

    /// Runs the job on each kernel, as many at once as this machine has CPUs for. Each line they
    /// print goes to `each`, with the kernel's name.
    pub(crate) fn run(
        &self,
        clock: Clock,
        job: impl Fn(&Kernel) -> Job + Sync,
        each: impl Fn(&Kernel, &str) + Sync,
    ) -> Vec<(&Kernel, Result<i32>, Duration)> {
        let queue = Mutex::new(self.kernels.iter().rev().collect::<Vec<_>>());
        let done = Mutex::new(Vec::new());
        let at_once = thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            loop {
                let next = queue.lock().unwrap_or_else(|error| error.into_inner()).pop();
                let Some(kernel) = next else { return };
                let started = Instant::now();
                let outcome = self.run_one(kernel, clock, &job(kernel), |line| each(kernel, line));
                let mut done = done.lock().unwrap_or_else(|error| error.into_inner());
                done.push((kernel, outcome, started.elapsed()));
            }
        };
        thread::scope(|scope| {
            for _ in 0..at_once.min(self.kernels.len()) {
                scope.spawn(work);
            }
        });
        let mut done = done.into_inner().unwrap_or_else(|error| error.into_inner());
        let order = |kernel: &Kernel| self.kernels.iter().position(|k| k.name == kernel.name);
        done.sort_by_key(|(kernel, ..)| order(kernel));
        done
    }

    fn run_one(
        &self,
        kernel: &Kernel,
        clock: Clock,
        job: &Job,
        each: impl FnMut(&str),
    ) -> Result<i32> {
        let image = self.image(kernel, job)?;
        let of = kernel.image();
        let machine = Machine { clock, ..self.machine(kernel, &image, &of) };
        let outcome = machine.run(PATIENCE, each);
        // Large, and made anew for each job; the logs stay.
        let _ = std::fs::remove_file(&image);
        outcome
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let names: Vec<String> = match args.kernels.as_slice() {
        [] => KERNELS.map(|(name, _)| name.to_owned()).to_vec(),
        some => some.to_vec(),
    };
    let built = build::run(&args.build)?;
    let parts = Parts::provide(&names)?;
    let job = Job {
        argv: match args.command.as_slice() {
            [] if args.shell => Vec::new(),
            [] => vec!["/usr/bin/ctwatch".to_owned(), "1".to_owned(), "3".to_owned()],
            command => command.to_vec(),
        },
        env: Vec::new(),
        modules: MODULES.map(str::to_owned).to_vec(),
        files: vec![(built.ctwatch, "usr/bin/ctwatch".to_owned())],
    };
    if args.shell {
        let [kernel] = parts.kernels.as_slice() else {
            bail!("a shell is in one kernel: cargo xtask vm --kernel 6.1 --shell");
        };
        let image = parts.image(kernel, &job)?;
        eprintln!("xtask: Linux {} (Ctrl-A X switches off)", kernel.release);
        parts.machine(kernel, &image, &kernel.image()).shell()?;
        return Ok(ExitCode::SUCCESS);
    }
    let say = |kernel: &Kernel, line: &str| println!("[{}] {line}", kernel.name);
    let outcomes = parts.run(Clock::Real, |_| job.clone(), say);
    let mut good = true;
    for (kernel, outcome, took) in outcomes {
        let (name, release, took) = (&kernel.name, &kernel.release, took.as_secs_f64());
        good &= matches!(outcome, Ok(0));
        match outcome {
            Ok(code) => eprintln!("xtask: {name} ({release}): exit code {code}, {took:.0} s"),
            Err(error) => eprintln!("xtask: {name} ({release}): {error:#}, {took:.0} s"),
        }
    }
    eprintln!("xtask: logs are in target/vm");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a router has loaded.
pub(crate) const MODULES: [&str; 3] = ["veth", "nf_conntrack", "nf_conntrack_netlink"];
