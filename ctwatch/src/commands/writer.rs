//! Standard output, written by a thread of its own: where nobody reads the other end of a pipe, a write
//! takes for ever, and signals are to be heard all the same.

use std::{
    io::{self, Write},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::signals::Signals;
use crate::threads;

/// For so long a reader may be slow after a signal has come.
const GRACE: Duration = Duration::from_secs(1);

type Job = (Vec<u8>, oneshot::Sender<io::Result<()>>);

pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start() -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        threads::start("output", move || {
            for (bytes, reply) in inbox {
                let mut out = io::stdout().lock();
                let written = out.write_all(&bytes).and_then(|()| out.flush());
                // Whoever asked may have given up.
                let _ = reply.send(written);
            }
        })?;
        Ok(Self { jobs })
    }

    /// All of it in one go: a reader at the other end sees whole lines. Returns whether a signal came
    /// meanwhile.
    pub(super) async fn write(&self, bytes: Vec<u8>, signals: &mut Signals) -> Result<bool> {
        if bytes.is_empty() {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send((bytes, reply)).ok().context("the thread of the output has ended")?;
        let mut answer = std::pin::pin!(answer);
        let at_once = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            () = signals.any() => None,
        };
        let asked_to_stop = at_once.is_none();
        let answered = match at_once {
            Some(answered) => answered,
            None => match tokio::time::timeout(GRACE, &mut answer).await {
                Ok(answered) => answered,
                Err(_) => bail!("nobody reads standard output: what was to be written is lost"),
            },
        };
        let written = answered.context("the thread of the output has ended")?;
        written.context("cannot write to standard output")?;
        Ok(asked_to_stop)
    }
}
