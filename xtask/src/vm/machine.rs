//! One virtual machine, from power on to its verdict.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_provision::{machine::Machine, qemu::Qemu};

/// The line that PID 1 ends with.
const VERDICT: &str = "ctwatch-vm: ";
const CPUS: &str = "2";
const MEMORY: &str = "2G";

/// What a machine's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// That of the machine underneath.
    Real,
    /// A nanosecond is an instruction, on one CPU, whatever else goes on underneath: what is measured
    /// by this clock comes out the same each time.
    Instructions,
}

/// What runs its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// The emulator.
    None,
}

impl Accelerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::None => "emulation",
        }
    }
}

pub(crate) struct Virtual<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: &'a Path,
    pub(crate) clock: Clock,
    pub(crate) accelerator: Accelerator,
    /// More than there are, where a kernel lets itself be told: x86 up to Linux 6.8.
    pub(crate) possible_cpus: Option<u32>,
    /// Where the logs go: `console.log`, what the kernel says, and `output.log`, what the job says.
    pub(crate) logs: PathBuf,
}

impl Virtual<'_> {
    fn command(&self) -> Result<std::process::Command> {
        let mut qemu = self.qemu.command()?;
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        let cpu = match self.qemu.machine {
            Machine::X86_64 => "max",
            // Signing return addresses as the architecture does it takes the emulator most of its time.
            Machine::Aarch64 => {
                qemu.args(["-machine", "virt"]);
                "max,pauth-impdef=on"
            }
            Machine::Armv7 => {
                // Else PCI is above 4 GB, where a kernel with addresses of 32 bits finds no device.
                qemu.args(["-machine", "virt,highmem=off"]);
                "cortex-a15"
            }
        };
        match self.accelerator {
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
            // All CPUs of it in one thread: with a thread for each, the emulator now and then runs an
            // instruction that the kernel patched away (`int3` in a jump label), and panics it.
            // With two CPUs in one thread a kernel of 32 bits was seen to hang at boot; why, is not known.
            Accelerator::None => {
                let threads = match self.qemu.machine {
                    Machine::Armv7 => "tcg,thread=multi",
                    Machine::X86_64 | Machine::Aarch64 => "tcg,thread=single",
                };
                qemu.args(["-accel", threads, "-cpu", cpu])
            }
        };
        qemu.args(["-m", MEMORY]);
        match self.clock {
            Clock::Real => qemu.args(["-smp", CPUS]),
            Clock::Instructions => qemu.args(["-smp", "1", "-icount", "shift=0,sleep=off"]),
        };
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(self.initrd);
        // No mitigations: a guest that is emulated has nothing to guard against. A stall of the
        // machine underneath is no fault of the guest's, nor is a timer that comes late at boot.
        let console = match self.qemu.machine {
            Machine::X86_64 => "ttyS0",
            Machine::Aarch64 | Machine::Armv7 => "ttyAMA0",
        };
        let arguments = "panic=-1 oops=panic mitigations=off no_timer_check \
                         rcupdate.rcu_cpu_stall_suppress=1 rcupdate.rcu_expedited=1 nosoftlockup";
        let possible = self.possible_cpus.map(|cpus| format!(" possible_cpus={cpus}"));
        let possible = possible.unwrap_or_default();
        qemu.args(["-append", &format!("console={console} {arguments}{possible}")]);
        Ok(qemu)
    }

    /// Runs the job; each line it prints is handed to `each`. Returns its exit code.
    pub(crate) fn run(&self, patience: Duration, mut each: impl FnMut(&str)) -> Result<i32> {
        fs::create_dir_all(&self.logs)
            .with_context(|| format!("cannot make {}", self.logs.display()))?;
        let console = self.logs.join("console.log");
        let mut log = fs::File::create(self.logs.join("output.log"))?;
        let mut child = self
            .command()?
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(self.second_serial())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let output = child.stdout.take().context("QEMU has no output")?;
        let complaints = child.stderr.take().context("QEMU has no error output")?;
        let guard = Kill::after(child, patience);
        let mut verdict = None;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the serial line")?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            writeln!(log, "{line}")?;
            match line.strip_prefix(VERDICT) {
                Some(words) => verdict = Some(words.to_owned()),
                None => each(line),
            }
        }
        let timed_out = guard.end()?;
        if let Some(verdict) = verdict {
            let code = verdict.strip_prefix("exit ").and_then(|code| code.parse().ok());
            return code.with_context(|| format!("PID 1 says: {verdict}"));
        }
        ensure!(!timed_out, "no verdict after {} s", patience.as_secs());
        let said = std::io::read_to_string(complaints).unwrap_or_default();
        let text = fs::read(&console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let tail: Vec<_> = text.lines().rev().take(15).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("it stopped without a verdict: {}\n{}", said.trim(), tail.join("\n"))
    }

    /// For what the job says. The machines with an Arm CPU have one line only, and get another.
    fn second_serial(&self) -> &'static [&'static str] {
        match self.qemu.machine {
            Machine::X86_64 => &["-serial", "stdio"],
            Machine::Aarch64 | Machine::Armv7 => {
                &["-chardev", "stdio,id=job", "-device", "pci-serial,chardev=job"]
            }
        }
    }

    /// A shell on this terminal.
    pub(crate) fn shell(&self) -> Result<()> {
        let mut qemu = self.command()?;
        let status = qemu.args(["-serial", "mon:stdio", "-serial", "null"]).status();
        status.context("cannot start QEMU").map(|_| ())
    }
}

/// Kills the emulator when it takes too long, or when whoever waits for it gives up.
struct Kill {
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<bool>>,
}

impl Kill {
    fn after(mut child: Child, patience: Duration) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&done);
        let until = Instant::now() + patience;
        let thread = thread::spawn(move || {
            loop {
                // It ends by itself when the guest switches off.
                if !matches!(child.try_wait(), Ok(None)) {
                    return false;
                }
                let late = Instant::now() > until;
                if late || given_up.load(Ordering::Relaxed) {
                    let _ = child.kill();
                    let _ = child.wait();
                    return late;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { done, thread: Some(thread) }
    }

    /// Its output has ended. Whether it was killed because it took too long.
    fn end(mut self) -> Result<bool> {
        let thread = self.thread.take().context("waited for twice")?;
        thread.join().ok().context("the thread that waits for QEMU panicked")
    }
}

impl Drop for Kill {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
