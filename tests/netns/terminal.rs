//! A program on a terminal of its own, and what that shows.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::picture;

/// A machine that is not alone takes long for everything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Terminal {
    child: Child,
    /// The terminal's end; `None` after it hung up.
    end: Option<File>,
    /// The program's end, which stays open: its settings are looked at afterwards.
    far: OwnedFd,
    /// The settings that it had before the program was started.
    before: Termios,
    shown: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    received: Arc<AtomicUsize>,
    /// Nothing that the program sends is taken.
    is_stuck: Arc<AtomicBool>,
}

impl Terminal {
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&end)?;
        unlockpt(&end)?;
        let name = ptsname(&end, Vec::new())?;
        let name = name.to_str().context("a terminal without a name")?.to_owned();
        let far = File::options().read(true).write(true).open(&name)?;
        tcsetwinsize(&end, size(columns, rows))?;
        let before = tcgetattr(&far)?;
        command.stdin(Stdio::from(far.try_clone()?));
        command.stdout(Stdio::from(far.try_clone()?));
        command.stderr(Stdio::from(far.try_clone()?));
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        // SAFETY: only calls that are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(std::io::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().context("cannot start on a terminal")?;
        let shown = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::new(AtomicUsize::new(0));
        let end = File::from(end);
        let (mut reads, screen, kept) = (end.try_clone()?, Arc::clone(&shown), Arc::clone(&raw));
        let counts = Arc::clone(&received);
        let is_stuck = Arc::new(AtomicBool::new(false));
        let stuck = Arc::clone(&is_stuck);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reads.read(&mut buffer) {
                while stuck.load(Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
                counts.fetch_add(length, Relaxed);
                if let Ok(mut screen) = screen.lock() {
                    screen.process(&buffer[..length]);
                }
                if let Ok(mut kept) = kept.lock() {
                    kept.extend_from_slice(&buffer[..length]);
                }
            }
        });
        Ok(Self { child, end: Some(end), far: far.into(), before, shown, raw, received, is_stuck })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn press(&mut self, keys: &str) -> Result<()> {
        let end = self.end.as_mut().context("it hung up")?;
        end.write_all(keys.as_bytes())?;
        Ok(())
    }

    pub(crate) fn screen(&self) -> String {
        match self.shown.lock() {
            Ok(shown) => shown.screen().contents(),
            Err(_) => "the terminal panicked".to_owned(),
        }
    }

    /// As a picture.
    pub(crate) fn svg(&self) -> Result<String> {
        match self.shown.lock() {
            Ok(shown) => Ok(picture::svg(shown.screen())),
            Err(_) => bail!("the terminal panicked"),
        }
    }

    pub(crate) fn is_alternate(&self) -> bool {
        self.shown.lock().is_ok_and(|shown| shown.screen().alternate_screen())
    }

    pub(crate) fn hides_cursor(&self) -> bool {
        self.shown.lock().is_ok_and(|shown| shown.screen().hide_cursor())
    }

    /// It is to tell what the mouse does.
    pub(crate) fn tells_mouse(&self) -> bool {
        self.shown.lock().is_ok_and(|shown| {
            shown.screen().mouse_protocol_mode() != vt100::MouseProtocolMode::None
        })
    }

    /// Bytes that the program has sent by now.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Relaxed)
    }

    /// All that it has sent.
    pub(crate) fn sent(&self) -> Vec<u8> {
        self.raw.lock().map(|raw| raw.clone()).unwrap_or_default()
    }

    /// Whether its settings are those that it had before the program was started.
    pub(crate) fn is_set_as_before(&self) -> Result<bool> {
        let (before, after) = (&self.before, tcgetattr(&self.far)?);
        Ok(after.local_modes == before.local_modes
            && after.input_modes == before.input_modes
            && after.output_modes == before.output_modes)
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let end = self.end.as_ref().context("it hung up")?;
        if let Ok(mut shown) = self.shown.lock() {
            // It panics where it scrolls a single row, as it does with what was drawn for a larger one.
            shown.screen_mut().set_size(rows.max(2), columns.max(2));
        }
        tcsetwinsize(end, size(columns, rows))?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)?;
        Ok(())
    }

    /// Until it shows these words.
    pub(crate) fn wait_for(&self, words: &str) -> Result<String> {
        self.wait_until(words, |screen| screen.contains(words))
    }

    pub(crate) fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return Ok(screen);
            }
            if begun.elapsed() > PATIENCE {
                bail!("{what:?} did not come:\n{screen}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it is stopped, as Ctrl-Z does.
    pub(crate) fn wait_for_state(&self, wanted: char) -> Result<()> {
        let path = format!("/proc/{}/stat", self.pid());
        let begun = Instant::now();
        loop {
            let stat = std::fs::read_to_string(&path)?;
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            if state == Some(wanted) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "it is {state:?}, not {wanted}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// From now on it takes nothing, or everything again.
    pub(crate) fn stick(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Relaxed);
    }

    /// Nobody is at the terminal any more.
    pub(crate) fn hang_up(&mut self) {
        // The reading thread holds one more; with the signal it is as if both were gone.
        self.end = None;
        let _ = self.signal(Signal::HUP);
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                // What it wrote last is still on its way.
                thread::sleep(Duration::from_millis(200));
                return Ok(status);
            }
            ensure!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}
