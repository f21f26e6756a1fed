//! Doing things inside a network namespace.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::Mode,
    mount::{MountPropagationFlags, UnmountFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::judge::Verdict;

const FOLDER: &str = "/run/netns";

/// A namespace that `ip netns` knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
    /// What conntrack had counted in it when it was handed out.
    pub(crate) since: Verdict,
}

impl Netns {
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), since: Verdict::default() }
    }

    /// Makes them, as `ip netns add` does.
    pub(crate) fn make(these: &[Self]) -> Result<()> {
        prepare_folder()?;
        let make = |netns: &Self| -> Result<()> {
            let path = netns.path();
            let file = File::create_new(&path);
            file.with_context(|| format!("cannot create {}", path.display()))?;
            // SAFETY: this thread shares no network state with code that relies on it.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .context("cannot make a network namespace")?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
                .with_context(|| format!("cannot mount {}", path.display()))
        };
        thread::scope(|scope| match scope.spawn(|| these.iter().try_for_each(make)).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Takes it down, as `ip netns del` does; nothing happens where it is gone.
    pub(crate) fn delete(&self) -> Result<()> {
        let path = self.path();
        // It may be a file that nothing was mounted on.
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.name)
    }

    pub fn inode(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.path().metadata().with_context(|| format!("no namespace {}", self.name))?.ino())
    }

    pub(crate) fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("no namespace {}", self.name))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let netns = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: setns is one system call, safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(())
            });
        }
        Ok(command)
    }

    /// Runs a program inside and returns what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().context("no program to run")?;
        output(self.command(program)?.args(args), "")
    }

    /// Loads an nftables ruleset.
    pub fn nft(&self, script: &str) -> Result<()> {
        output(self.command("nft")?.args(["-f", "-"]), script).map(|_| ())
    }

    /// Sets a sysctl of this namespace, its name written with slashes.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{name}");
        let value = value.to_owned();
        self.within(move || fs::write(&path, value).with_context(|| format!("cannot set {path}")))?
    }

    /// Runs `work` on a thread inside the namespace, and waits for it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let netns = self.open()?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter a network namespace")?;
                Ok(work())
            });
            match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Namespaces that are deleted in one mount namespace are to go in the others too.
fn prepare_folder() -> Result<()> {
    let made = rustix::fs::mkdir(FOLDER, Mode::from_raw_mode(0o755));
    if made.is_err_and(|error| error != rustix::io::Errno::EXIST) {
        bail!("cannot make {FOLDER}");
    }
    let share = || {
        let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        rustix::mount::mount_change(FOLDER, flags)
    };
    if share().is_err() {
        rustix::mount::mount_bind_recursive(FOLDER, FOLDER)
            .and_then(|()| share())
            .with_context(|| format!("cannot share {FOLDER}"))?;
    }
    Ok(())
}

/// Runs to the end with `input` on standard input; an error carries what it complained about.
pub(crate) fn output(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program} (cargo xtask test provides it)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {program}"))?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}", args.join(" "), complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
