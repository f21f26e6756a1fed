//! Cleaning up by one path: also after a panic, Ctrl-C, or SIGKILL.
//!
//! A shell in a session of its own waits for the end of its standard input, a pipe that only this
//! process holds. When the pipe closes, for whatever reason, it runs what it was told to.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};

pub struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

/// Takes in commands line by line, and at the end runs them in reverse: what was made last goes
/// first. A command may fail; the others still run. `keep` and `forget` are none of them.
const SCRIPT: &str = r#"
kept= undo=
while IFS= read -r line; do
    case $line in
    keep) kept=$undo undo= ;;
    forget) undo= ;;
    *) undo="$line
$undo" ;;
    esac
done
eval "$undo"
eval "$kept"
exit 0
"#;

impl Guard {
    /// The shell holds `lock` too, until it has cleaned up.
    pub fn start(lock: &File) -> Result<Self> {
        let lock = lock.try_clone().context("cannot duplicate a lock file")?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: two system calls that touch nothing of this process.
        unsafe {
            command.pre_exec(move || {
                rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
                // A Ctrl-C at the terminal must not reach the one that cleans up after it.
                rustix::process::setsid()?;
                Ok(())
            });
        }
        let mut shell = command.spawn().context("cannot start sh")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// From now on, `command` is run at the end, whatever the end is.
    pub fn at_the_end(&self, command: &str) -> Result<()> {
        let mut pipe = self.pipe.as_ref().context("the guard has ended")?;
        pipe.write_all(format!("{command}\n").as_bytes()).context("cannot reach the guard")
    }

    /// What it was told up to now, it does not forget.
    pub fn keep(&self) -> Result<()> {
        self.at_the_end("keep")
    }

    /// What it was told since `keep` is done already.
    pub fn forget(&self) -> Result<()> {
        self.at_the_end("forget")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // A drop has nobody to report to; what the guard cannot undo is left to the next look.
        let _ = self.shell.wait();
    }
}
