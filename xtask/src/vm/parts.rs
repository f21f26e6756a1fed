//! What virtual machines are made of, and running one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ctwatch_provision::{
    guest::Guest, kernels::Kernel, machine::Machine, process::root, qemu::Qemu,
};

use super::{
    image::{self, Job},
    machine::{Accelerator, Clock, Virtual},
};

/// What a router has loaded.
pub(crate) const MODULES: [&str; 3] = ["veth", "nf_conntrack", "nf_conntrack_netlink"];

/// A machine that is accelerated is there within this time; on some machines it never is.
const ACCELERATED_BOOT: Duration = Duration::from_secs(20);

pub(crate) struct Parts {
    /// Of each machine that a kernel is for.
    hardware: BTreeMap<Machine, (Qemu, Guest)>,
    kernels: Vec<Kernel>,
}

impl Parts {
    pub(crate) fn provide(names: &[String]) -> Result<Self> {
        let kernels = names.iter().map(|name| Kernel::provide(name));
        let kernels: Vec<Kernel> = kernels.collect::<Result<_>>()?;
        let mut hardware = BTreeMap::new();
        for machine in kernels.iter().map(|kernel| kernel.machine) {
            if let Entry::Vacant(place) = hardware.entry(machine) {
                place.insert((Qemu::provide(machine)?, Guest::provide(machine)?));
            }
        }
        Ok(Self { hardware, kernels })
    }

    fn hardware(&self, of: &Kernel) -> Result<&(Qemu, Guest)> {
        self.hardware.get(&of.machine).context("a kernel for a machine that was not provided")
    }

    pub(crate) fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    fn machine<'a>(
        &'a self,
        of: &Kernel,
        logs: &str,
        image: &'a Path,
        by: Accelerator,
        possible_cpus: Option<u32>,
    ) -> Result<Virtual<'a>> {
        Ok(Virtual {
            qemu: &self.hardware(of)?.0,
            kernel: of.image(),
            initrd: image,
            clock: Clock::Real,
            accelerator: by,
            possible_cpus,
            logs: logs_of(logs),
        })
    }

    fn image(&self, kernel: &Kernel, logs: &str, init: &Path, job: &Job) -> Result<PathBuf> {
        let dir = logs_of(logs);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join("image.cpio");
        image::write(&path, self.hardware(kernel)?.1.root(), &kernel.modules(), init, job)?;
        Ok(path)
    }

    /// Takes job after job, on as many threads as this machine has CPUs; `each` gets their number
    /// and their kernel.
    pub(crate) fn run_all<J: Named + Sync>(
        &self,
        jobs: &[J],
        at_once: usize,
        each: impl Fn(usize, &J, &Kernel) + Sync,
    ) -> Result<()> {
        let kernel = |job: &J| {
            let found = self.kernels.iter().find(|kernel| kernel.name == job.kernel());
            found.with_context(|| format!("kernel {} was not provided", job.kernel()))
        };
        let jobs: Vec<_> = jobs.iter().map(|job| Ok((job, kernel(job)?))).collect::<Result<_>>()?;
        let queue = Mutex::new(jobs.iter().enumerate());
        let work = || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((number, (job, kernel))) = next else { return };
                each(number, job, kernel);
            }
        };
        thread::scope(|scope| {
            for _ in 0..at_once.min(jobs.len()) {
                scope.spawn(work);
            }
        });
        Ok(())
    }

    /// Runs the job; each line that it prints goes to `each`. Returns its exit code.
    #[expect(clippy::too_many_arguments, reason = "each is another thing about one machine")]
    pub(crate) fn run_one(
        &self,
        kernel: &Kernel,
        logs: &str,
        clock: Clock,
        init: &Path,
        job: &Job,
        patience: Duration,
        each: impl FnMut(&str),
    ) -> Result<i32> {
        let image = self.image(kernel, logs, init, job)?;
        let by = match clock {
            Clock::Real => self.accelerator(kernel, init),
            Clock::Instructions => Accelerator::None,
        };
        let machine =
            Virtual { clock, ..self.machine(kernel, logs, &image, by, job.possible_cpus)? };
        let outcome = machine.run(patience, each);
        // Large, and made anew for each job; the logs stay.
        let _ = std::fs::remove_file(&image);
        outcome
    }

    /// A shell on this terminal.
    pub(crate) fn shell(&self, kernel: &Kernel, init: &Path, job: &Job) -> Result<()> {
        let image = self.image(kernel, &kernel.name, init, job)?;
        let by = self.accelerator(kernel, init);
        self.machine(kernel, &kernel.name, &image, by, job.possible_cpus)?.shell()
    }

    /// KVM, if a machine is really there within a moment: opening its device says little. Another
    /// CPU's instructions are emulated.
    fn accelerator(&self, of: &Kernel, init: &Path) -> Accelerator {
        if !Machine::of_this().is_ok_and(|own| own == of.machine) {
            return Accelerator::None;
        }
        static FOUND: Mutex<Option<Accelerator>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        *found.get_or_insert_with(|| {
            let (accelerator, why) = match self.boots_accelerated(of, init) {
                Ok(took) => (Accelerator::Kvm, format!("a machine was there in {took:.1?}")),
                Err(error) => (Accelerator::None, format!("{error:#}")),
            };
            eprintln!("xtask: virtual machines run by {}: {why}", accelerator.name());
            accelerator
        })
    }

    fn boots_accelerated(&self, kernel: &Kernel, init: &Path) -> Result<Duration> {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("/dev/kvm cannot be opened")?;
        let job = Job { argv: vec!["/bin/true".to_owned()], ..Job::default() };
        let image = self.image(kernel, "accelerated", init, &job)?;
        let begun = Instant::now();
        let machine = self.machine(kernel, "accelerated", &image, Accelerator::Kvm, None)?;
        let code = machine.run(ACCELERATED_BOOT, |_| {});
        let _ = std::fs::remove_file(&image);
        anyhow::ensure!(code.context("no machine by KVM")? == 0, "its first job failed");
        Ok(begun.elapsed())
    }
}

/// Something for a machine with a certain kernel.
pub(crate) trait Named {
    fn kernel(&self) -> &str;
}

fn logs_of(name: &str) -> PathBuf {
    root().join("target/vm").join(name)
}
