//! Signals that a program with a screen hears.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Stop,
    Resized,
    Suspend,
    Continued,
}

pub(super) struct Hearing {
    stop: [Signal; 4],
    resized: Signal,
    suspend: Signal,
    continued: Signal,
}

impl Hearing {
    pub(super) fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        let stop = [
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
            on(SignalKind::quit())?,
        ];
        Ok(Self {
            stop,
            resized: on(SignalKind::window_change())?,
            suspend: on(SignalKind::from_raw(libc::SIGTSTP))?,
            continued: on(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    pub(super) async fn next(&mut self) -> Heard {
        let [interrupt, terminate, hangup, quit] = &mut self.stop;
        tokio::select! {
            _ = interrupt.recv() => Heard::Stop,
            _ = terminate.recv() => Heard::Stop,
            _ = hangup.recv() => Heard::Stop,
            _ = quit.recv() => Heard::Stop,
            _ = self.resized.recv() => Heard::Resized,
            _ = self.suspend.recv() => Heard::Suspend,
            _ = self.continued.recv() => Heard::Continued,
        }
    }
}
