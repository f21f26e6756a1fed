//! Standard output, written by a thread of its own: where no process reads the other end of a pipe, a
//! write takes for ever, and signals must be heard all the same.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::signals::Signals;
use crate::threads;

/// For so long a reader may take nothing after a signal has come.
const GRACE: Duration = Duration::from_secs(1);

type Job = (Vec<u8>, oneshot::Sender<io::Result<()>>);

pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    /// Bytes that were taken.
    taken: Arc<AtomicUsize>,
}

impl Writer {
    pub(super) fn start() -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let taken = Arc::new(AtomicUsize::new(0));
        let so_far = Arc::clone(&taken);
        threads::start("output", move || {
            for (bytes, reply) in inbox {
                // Whoever asked may have given up.
                let _ = reply.send(put(&bytes, &so_far));
            }
        })?;
        Ok(Self { jobs, taken })
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
            None => loop {
                let before = self.taken.load(Relaxed);
                match tokio::time::timeout(GRACE, &mut answer).await {
                    Ok(answered) => break answered,
                    // A slow reader is one all the same.
                    Err(_) if self.taken.load(Relaxed) > before => {}
                    Err(_) => {
                        bail!("no process reads standard output: the rest of the output is lost")
                    }
                }
            },
        };
        let written = answered.context("the thread of the output has ended")?;
        written.context("cannot write to standard output")?;
        Ok(asked_to_stop)
    }
}

/// A line in one go; what is longer by so much at a time, because a write ends when all of it was taken.
const PORTION: usize = 16 << 10;

fn put(bytes: &[u8], taken: &AtomicUsize) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // Not by the standard library's own, which looks for ends of lines.
        match rustix::io::write(io::stdout(), &rest[..rest.len().min(PORTION)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                taken.fetch_add(length, Relaxed);
                rest = &rest[length..];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
