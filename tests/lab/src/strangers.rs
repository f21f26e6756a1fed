//! Unprivileged users who make network namespaces and do there as they like. Each in a process of its
//! own: whoever makes a user namespace must be alone in his.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::UdpSocket,
    os::{fd::FromRawFd, unix::process::CommandExt},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{links::Change, netfilter};

const ASKED: &str = "CTWATCH_LAB_STRANGER";
/// Nothing is left of them after that, whatever becomes of the test.
const LONGEST: Duration = Duration::from_secs(600);
const LONGEST_FLOOD: Duration = Duration::from_secs(120);

/// What one of them does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub uid: u32,
    /// So many namespaces that track.
    pub namespaces: u32,
    /// In each, so many packets to itself, each a flow of its own.
    pub packets: u16,
    /// And in one more, as many as it can.
    pub flood: bool,
}

/// One of them at work, until this is dropped.
pub struct Stranger {
    child: Child,
    /// Packets that were refused in all of his namespaces, before any flood.
    pub refused: u64,
}

impl Stranger {
    /// Returns when all namespaces are there, and have sent what they send.
    pub fn start(plan: Plan) -> Result<Self> {
        let Plan { uid, namespaces, packets, flood } = plan;
        let mut command = Command::new("/proc/self/exe");
        command
            .env(ASKED, format!("{uid} {namespaces} {packets} {}", u8::from(flood)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("cannot start a stranger")?;
        let mut stranger = Self { child, refused: 0 };
        let stdout = stranger.child.stdout.take().context("a stranger has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let refused = line.trim().parse();
        stranger.refused = refused.with_context(|| format!("a stranger ended early: {line:?}"))?;
        Ok(stranger)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: a signal to a group that this process made, and whose first it has not waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

/// To be called before a test program does anything else: `Some` where it was started as one of them.
pub fn stranger() -> Option<ExitCode> {
    let asked = env::var(ASKED).ok()?;
    Some(match be(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "a stranger: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn be(asked: &str) -> Result<()> {
    let numbers: Vec<u32> = asked.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [uid, namespaces, packets, flood] = numbers[..] else { anyhow::bail!("{asked}") };
    let packets = u16::try_from(packets)?;
    // SAFETY: plain system calls of a process with one thread.
    unsafe {
        ensure!(libc::setgroups(0, std::ptr::null()) == 0, "{}", io::Error::last_os_error());
        ensure!(libc::setresgid(uid, uid, uid) == 0, "{}", io::Error::last_os_error());
        ensure!(libc::setresuid(uid, uid, uid) == 0, "{}", io::Error::last_os_error());
        ensure!(libc::unshare(libc::CLONE_NEWUSER) == 0, "{}", io::Error::last_os_error());
    }
    end_with_parent();
    let mut refused = 0;
    for _ in 0..namespaces {
        refused += settle(|| send(packets), false)?;
    }
    if flood != 0 {
        settle(|| Ok(0), true)?;
    }
    let mut out = io::stdout();
    writeln!(out, "{refused}")?;
    out.flush()?;
    thread::sleep(LONGEST);
    Ok(())
}

/// Whoever is killed takes these along.
fn end_with_parent() {
    // SAFETY: a plain system call about this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// A process of its own in a new namespace, which stays there; what it did first.
fn settle(first: impl FnOnce() -> Result<u64>, flood: bool) -> Result<u64> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are owned at once.
    let (mut read, mut write) = unsafe {
        ensure!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0, "no pipe");
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    };
    // SAFETY: this process has one thread, so its child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            end_with_parent();
            let outcome = make().and_then(|()| first());
            let code =
                match outcome.and_then(|refused| Ok(write.write_all(&refused.to_ne_bytes())?)) {
                    Ok(()) if flood => i32::from(keep_sending().is_err()),
                    Ok(()) => {
                        thread::sleep(LONGEST);
                        0
                    }
                    Err(error) => {
                        let _ = writeln!(io::stderr(), "a stranger's namespace: {error:#}");
                        1
                    }
                };
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(code) }
        }
        -1 => Err(io::Error::last_os_error()).context("cannot fork"),
        _ => {
            drop(write);
            let mut refused = [0; 8];
            read.read_exact(&mut refused).context("a namespace was not made")?;
            Ok(u64::from_ne_bytes(refused))
        }
    }
}

fn make() -> Result<()> {
    // SAFETY: a plain system call of a process with one thread.
    let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(made == 0, "no network namespace: {}", io::Error::last_os_error());
    let mut links = Change::new();
    links.up("lo")?;
    links.made()?;
    netfilter::lay_rules(true)
}

/// How many were refused.
fn send(packets: u16) -> Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut refused = 0;
    for port in 1..=packets {
        match socket.send_to(b"x", ("127.0.0.1", port)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused += 1,
            _ => {}
        }
    }
    Ok(refused)
}

/// With pauses: others use this machine too.
fn keep_sending() -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_FLOOD {
        send(2000)?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
