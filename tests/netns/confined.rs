//! What reads strangers' files, seen from outside: it holds no privilege, and opens nothing else. It is stopped
//! while it waits for more to read, and made to try.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    On, Test, test,
    watch::{PATIENCE, ctwatch},
};

pub(crate) const TESTS: &[Test] =
    &[test(On::OnceHere, "offline_a_reader_reaches_nothing_else", reader)];

/// A process that reads its standard input, killed at the end.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reader {
    /// Returns when one of its threads waits for more, and which that is.
    fn start(command: &mut Command, text: &str) -> Result<(Self, i32)> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut reader = Self(command.spawn()?);
        let input = reader.0.stdin.as_mut().context("no input")?;
        input.write_all(text.as_bytes())?;
        input.flush()?;
        let until = Instant::now() + PATIENCE;
        loop {
            for task in fs::read_dir(format!("/proc/{}/task", reader.0.id()))? {
                let task = task?;
                // `read`, of descriptor 0. One that runs has no number here.
                let call = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
                if call.starts_with("0 0x0 ") {
                    let thread = task.file_name().to_string_lossy().parse()?;
                    return Ok((reader, thread));
                }
            }
            ensure!(Instant::now() < until, "it does not wait for more");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&self) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/status", self.0.id()))?)
    }
}

/// A thread that was stopped in a system call.
struct Stopped {
    thread: i32,
    registers: libc::user_regs_struct,
}

impl Stopped {
    fn at(thread: i32) -> Result<Self> {
        let mut stopped = Self {
            thread,
            // SAFETY: plain numbers.
            registers: unsafe { std::mem::zeroed() },
        };
        stopped.ask(libc::PTRACE_ATTACH, 0, 0)?;
        stopped.wait()?;
        let registers = &raw mut stopped.registers;
        stopped.ask(libc::PTRACE_GETREGS, 0, registers as usize)?;
        Ok(stopped)
    }

    fn ask(&self, request: libc::c_uint, address: usize, data: usize) -> Result<()> {
        // SAFETY: of a thread of our own child; what is pointed to is of the kind that is asked for.
        let answer = unsafe { libc::ptrace(request, self.thread, address, data) };
        ensure!(answer >= 0, "ptrace {request}: {}", std::io::Error::last_os_error());
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let mut status = 0;
        // SAFETY: a thread that this one traces.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        ensure!(waited == self.thread && libc::WIFSTOPPED(status), "it is not stopped: {status}");
        Ok(())
    }

    /// Has it open this file: a descriptor, or an error below zero.
    fn open(&self, path: &str, flags: libc::c_int) -> Result<i64> {
        /// Below what the function that it is in may use beyond its stack's end.
        const BELOW: u64 = 4096;
        let mut text = path.as_bytes().to_vec();
        text.resize(text.len().next_multiple_of(8) + 8, 0);
        let place = (self.registers.rsp - BELOW) & !7;
        for (at, word) in (0..).zip(text.chunks_exact(8)) {
            let word = usize::from_ne_bytes(word.try_into()?);
            self.ask(libc::PTRACE_POKEDATA, usize::try_from(place)? + 8 * at, word)?;
        }
        let mut registers = self.registers;
        registers.rax = libc::SYS_openat.cast_unsigned();
        registers.rdi = i64::from(libc::AT_FDCWD).cast_unsigned();
        registers.rsi = place;
        registers.rdx = u64::try_from(flags)?;
        registers.r10 = 0o600;
        // Of the call that it was stopped in nothing is to be repeated; its instruction has two bytes.
        registers.orig_rax = u64::MAX;
        registers.rip -= 2;
        self.ask(libc::PTRACE_SETREGS, 0, &raw const registers as usize)?;
        self.ask(libc::PTRACE_SINGLESTEP, 0, 0)?;
        self.wait()?;
        self.ask(libc::PTRACE_GETREGS, 0, &raw mut registers as usize)?;
        Ok(registers.rax.cast_signed())
    }
}

fn has_landlock() -> bool {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: asks for the version only, and reads nothing.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) > 0 }
}

/// Each file that it tries to open, and to make, and what came of it.
fn tried(thread: i32, made: &str) -> Result<[i64; 3]> {
    // Only the thread that traces another may ask things of it.
    let stopped = Stopped::at(thread)?;
    Ok([
        stopped.open("/proc/version", libc::O_RDONLY)?,
        stopped.open("/", libc::O_RDONLY | libc::O_DIRECTORY)?,
        stopped.open(made, libc::O_WRONLY | libc::O_CREAT)?,
    ])
}

fn reader() -> Result<()> {
    let place = tempfile::tempdir()?;
    let made = place.path().join("made");
    let made = made.to_str().context("an odd name")?;
    let (other, thread) = Reader::start(&mut Command::new("cat"), "x\n")?;
    let free = tried(thread, made)?;
    ensure!(free.iter().all(|opened| *opened >= 0), "what is not confined: {free:?}");
    drop(other);
    fs::remove_file(made)?;

    for verb in ["doctor", "census"] {
        let mut command = ctwatch()?;
        command.args([verb, "--from", "-"]);
        let (confined, thread) =
            Reader::start(&mut command, "net.netfilter.nf_conntrack_count = 1\n")?;
        let status = confined.status()?;
        for set in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
            ensure!(status.lines().any(|line| line == set), "{verb}: no {set:?} in {status}");
        }
        let opened = tried(thread, made)?;
        if has_landlock() {
            let refused = i64::from(-libc::EACCES);
            ensure!(opened == [refused; 3], "{verb} opens other files: {opened:?}");
            ensure!(!fs::exists(made)?, "{verb} made a file");
        } else {
            println!(
                "this kernel has no Landlock: {verb} holds no privilege, and opens {opened:?}"
            );
        }
    }
    Ok(())
}
