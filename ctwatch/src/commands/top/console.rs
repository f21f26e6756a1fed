//! The terminal: raw while the screen is on it, as it was when it is left, however it is left. Threads of their own
//! read and write it, so that nothing else waits for a slow one; of screens only the newest is sent.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc as blocking},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::super::WrongUsage;
use crate::{
    threads,
    tui::{
        grid::Grid,
        wire::{self, ENTER, LEAVE, MOUSE, NO_MOUSE},
    },
};

/// For so long a terminal may take nothing before it is left as it is.
const GRACE: Duration = Duration::from_secs(3);

pub(super) struct Console {
    before: Termios,
    outgoing: Arc<Outgoing>,
    /// What was typed; closed where the terminal is gone.
    typed: mpsc::UnboundedReceiver<Vec<u8>>,
    is_entered: bool,
    /// What a mouse does is told.
    mouse: bool,
}

/// What is to be written, by the thread that does.
#[derive(Default)]
struct Outgoing {
    due: Mutex<Due>,
    more: Condvar,
}

#[derive(Default)]
struct Due {
    /// Before the screen.
    texts: Vec<String>,
    screen: Option<Grid>,
    /// What the terminal shows is not known.
    is_anew: bool,
    /// Whoever waits until all of it is written.
    waiting: Option<blocking::SyncSender<()>>,
    /// Bytes that were sent by now.
    sent: u64,
    /// It cannot be written to any more.
    is_gone: bool,
}

impl Outgoing {
    /// A thread that ended badly has left it as whole as any other.
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Due)) {
        change(&mut self.lock());
        self.more.notify_one();
    }
}

fn output() -> io::Stdout {
    io::stdout()
}

impl Console {
    pub(super) fn open(mouse: bool) -> Result<Self> {
        if !isatty(io::stdin()) || !isatty(output()) {
            let why = "top needs a terminal; `ctwatch watch` prints lines for files and pipes";
            return Err(WrongUsage(why.to_owned()).into());
        }
        let before = tcgetattr(io::stdin()).context("cannot ask the terminal for its settings")?;
        let outgoing = Arc::new(Outgoing::default());
        let (send, typed) = mpsc::unbounded_channel();
        let shared = Arc::clone(&outgoing);
        threads::start("screen", move || write(&shared))?;
        threads::start("keys", move || read(&send))?;
        let mut console = Self { before, outgoing, typed, is_entered: false, mouse };
        console.enter()?;
        Ok(console)
    }

    /// Raw, and with nothing known of what it shows.
    pub(super) fn enter(&mut self) -> Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        self.is_entered = true;
        let mouse = self.mouse;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("cannot set up the terminal")?;
        self.outgoing.tell(|due| {
            due.texts.push(format!("{}{ENTER}", if mouse { MOUSE } else { "" }));
            due.is_anew = true;
        });
        Ok(())
    }

    /// As it was before. What is said last stays on it.
    pub(super) fn leave(&mut self, last_words: &str) {
        if !self.is_entered {
            return;
        }
        self.is_entered = false;
        let (tell, told) = blocking::sync_channel(1);
        let mouse = if self.mouse { NO_MOUSE } else { "" };
        self.outgoing.tell(|due| {
            due.screen = None;
            due.texts.push(format!("{mouse}{LEAVE}{}", last_words.replace('\n', "\r\n")));
            due.waiting = Some(tell);
        });
        // A slow terminal is waited for while it takes anything.
        let mut before = self.outgoing.lock().sent;
        while told.recv_timeout(GRACE) == Err(blocking::RecvTimeoutError::Timeout) {
            let sent = self.outgoing.lock().sent;
            if sent == before {
                break;
            }
            before = sent;
        }
        // A terminal that is gone needs none of it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }

    pub(super) fn is_entered(&self) -> bool {
        self.is_entered
    }

    /// Instead of one that was not sent yet.
    pub(super) fn show(&self, screen: Grid) {
        self.outgoing.tell(|due| due.screen = Some(screen));
    }

    pub(super) fn forget(&self) {
        self.outgoing.tell(|due| due.is_anew = true);
    }

    pub(super) fn copy(&self, text: &str) {
        self.outgoing.tell(|due| due.texts.push(wire::copy(text)));
    }

    /// What was typed since; `None`: the terminal is gone.
    pub(super) async fn typed(&mut self) -> Option<Vec<u8>> {
        self.typed.recv().await
    }

    /// Columns and rows.
    pub(super) fn size() -> (u16, u16) {
        match tcgetwinsize(output()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            // A serial console does not know.
            _ => (80, 24),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.leave("");
    }
}

fn read(send: &mpsc::UnboundedSender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    loop {
        match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let Some(typed) = buffer.get(..length) else { return };
                if send.send(typed.to_vec()).is_err() {
                    return;
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

fn write(outgoing: &Outgoing) {
    let stdout = output();
    let mut shown: Option<Grid> = None;
    loop {
        let (texts, screen, waiting) = {
            let mut due = outgoing.lock();
            while due.texts.is_empty() && due.screen.is_none() && due.waiting.is_none() {
                due = outgoing.more.wait(due).unwrap_or_else(PoisonError::into_inner);
            }
            if std::mem::take(&mut due.is_anew) {
                shown = None;
            }
            (std::mem::take(&mut due.texts), due.screen.take(), due.waiting.take())
        };
        let mut bytes = texts.concat();
        if let Some(screen) = screen {
            bytes.push_str(&wire::encode(shown.as_ref(), &screen));
            shown = Some(screen);
        }
        if put(stdout.as_fd(), bytes.as_bytes(), outgoing).is_err() {
            outgoing.lock().is_gone = true;
        }
        if let Some(waiting) = waiting {
            // Whoever waited may have given up.
            let _ = waiting.try_send(());
        }
    }
}

/// So much at a time, so that it is known whether a slow terminal takes anything.
const PORTION: usize = 256;

fn put(fd: BorrowedFd<'_>, bytes: &[u8], outgoing: &Outgoing) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(fd, &rest[..rest.len().min(PORTION)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                rest = &rest[length..];
                outgoing.lock().sent += length as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
