//! PID 1 of a virtual machine that exists for one job: sets the machine up, runs the job, says how
//! it ended on the serial line, and switches off.
//!
//! `/job` holds what to do: `argv`, one argument a line, `env`, one NAME=VALUE a line, and
//! `modules`, one kernel module a line. With no `argv` there is a shell on the console.
//!
//! Where there is a root file system in `/system`, PID 1 hands over to the systemd in it, which starts this program
//! again as a service: that runs the job of the `/job` in there.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use rustix::{
    mount::{MountFlags, mount, mount_bind, mount_move},
    process::{WaitOptions, chdir, chroot, getpid, ioctl_tiocsctty, setsid, wait},
    system::{RebootCommand, reboot, sethostname},
};

/// The kernel's log, and the job's output with the verdict.
#[cfg(target_arch = "x86_64")]
const SERIALS: (&str, &str) = ("/dev/ttyS0", "/dev/ttyS1");
#[cfg(not(target_arch = "x86_64"))]
const SERIALS: (&str, &str) = ("/dev/ttyAMA0", "/dev/ttyS0");
const CONSOLE: &str = SERIALS.0;
const VERDICT: &str = SERIALS.1;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// With the systemd that this machine is for, if it is for one.
const SYSTEM: &str = "/system";

const MOUNTS: &[(&str, &str, &str)] = &[
    ("devtmpfs", "/dev", ""),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("devpts", "/dev/pts", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

fn main() {
    let verdict = match live() {
        Ok(status) => match status.code() {
            Some(code) => format!("exit {code}"),
            None => format!("{status}"),
        },
        Err(error) => format!("failed: {error:#}"),
    };
    // Read by `cargo xtask vm`.
    let line = format!("\nctwatch-vm: {verdict}\n");
    let said = OpenOptions::new().write(true).open(VERDICT).and_then(|mut serial| {
        serial.write_all(line.as_bytes())?;
        rustix::termios::tcdrain(&serial).map_err(Into::into)
    });
    if let Err(error) = said {
        eprintln!("{VERDICT}: {error}; {line}");
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("cannot switch off: {error}");
    }
}

fn live() -> Result<ExitStatus> {
    if !getpid().is_init() {
        return in_turn();
    }
    if Path::new(SYSTEM).is_dir() {
        return hand_over();
    }
    for (kind, at, options) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        let options = std::ffi::CString::new(*options)?;
        mount(*kind, *at, *kind, MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("cannot mount {at}"))?;
    }
    sethostname(b"ctwatch-vm").context("cannot set the host name")?;
    in_turn()
}

/// The modules, then the job.
fn in_turn() -> Result<ExitStatus> {
    for module in lines("modules")? {
        let status = Command::new("/sbin/modprobe").arg(&module).status();
        if !status.context("cannot run modprobe")?.success() {
            eprintln!("modprobe {module} failed");
        }
    }
    let mut argv = lines("argv")?.into_iter();
    match argv.next() {
        None => shell(),
        Some(program) => job(&program, argv.collect()),
    }
}

/// Returns only where it cannot. The root is a mount on top of the kernel's first one, in which systemd could make no
/// file systems of their own for services.
fn hand_over() -> Result<ExitStatus> {
    mount_bind(SYSTEM, SYSTEM).context("cannot mount the system")?;
    chdir(SYSTEM)?;
    mount_move(".", "/").context("cannot move the system to the root")?;
    chroot(".")?;
    chdir("/")?;
    Err(Command::new("/sbin/init").env_clear().exec()).context("cannot start systemd")
}

fn lines(name: &str) -> Result<Vec<String>> {
    let path = Path::new("/job").join(name);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn command(program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("HOME", "/").current_dir("/tmp");
    for variable in lines("env")? {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    Ok(command)
}

fn job(program: &str, args: Vec<String>) -> Result<ExitStatus> {
    let serial = OpenOptions::new()
        .write(true)
        .open(VERDICT)
        .with_context(|| format!("cannot open {VERDICT}"))?;
    // Lines end as they are written: no carriage returns in a log.
    let mut settings = rustix::termios::tcgetattr(&serial)?;
    settings.make_raw();
    rustix::termios::tcsetattr(&serial, rustix::termios::OptionalActions::Now, &settings)?;
    let mut job = command(program)?;
    job.args(args).stdin(Stdio::null()).stdout(serial.try_clone()?).stderr(serial);
    run(job)
}

fn shell() -> Result<ExitStatus> {
    let console = File::options().read(true).write(true).open(CONSOLE)?;
    let mut shell = command("/bin/sh")?;
    shell.arg("-i").env("PS1", "vm# ").env("TERM", "vt220");
    shell.stdin(console.try_clone()?).stdout(console.try_clone()?).stderr(console);
    // SAFETY: two system calls, both safe between fork and exec.
    unsafe {
        shell.pre_exec(|| {
            setsid()?;
            ioctl_tiocsctty(rustix::stdio::stdin().as_fd())?;
            Ok(())
        });
    }
    run(shell)
}

/// Runs it to its end, and meanwhile buries whoever else dies without a parent.
fn run(mut command: Command) -> Result<ExitStatus> {
    let program = command.get_program().to_owned();
    let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let wanted = i32::try_from(child.id())?;
    loop {
        let (pid, status) =
            wait(WaitOptions::empty()).context("cannot wait for the job")?.context("no child")?;
        if pid.as_raw_nonzero().get() == wanted {
            use std::os::unix::process::ExitStatusExt;
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}
