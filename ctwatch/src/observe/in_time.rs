//! Files and answers of the kernel that may never come (a disk that died, a file system that waits for its
//! server): each is read on a thread of its own, so that it costs itself and nothing else.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::{record::facts::Known, threads};

/// What is read for the doctor is read in milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked for, and may be there by now.
pub(super) struct Awaited<T> {
    what: &'static str,
    until: Instant,
    /// Or why nobody reads it.
    told: Known<Receiver<T>>,
}

/// Begins to read it.
pub(super) fn ask<T: Send + 'static>(
    what: &'static str,
    read: impl FnOnce() -> T + Send + 'static,
) -> Awaited<T> {
    let (tell, told) = mpsc::channel();
    let started = threads::start(what, move || {
        // Whoever asked may have had no more time.
        let _ = tell.send(read());
    });
    let told = started.map(|_| told).map_err(|error| format!("{error:#}"));
    Awaited { what, until: Instant::now() + PATIENCE, told }
}

impl<T> Awaited<T> {
    /// Waits for it, but not for ever.
    pub(super) fn answer(self) -> Known<T> {
        let Self { what, until, told } = self;
        match told?.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("{what}: no answer within {} s", PATIENCE.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(format!("{what}: the thread that reads it came to a bad end"))
            }
        }
    }

    /// Or nothing, and why that is no answer.
    pub(super) fn or_none(self, why_not: &mut Vec<String>) -> T
    where
        T: Default,
    {
        self.answer().unwrap_or_else(|why| {
            why_not.push(why);
            T::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_named_and_costs_only_itself() {
        let (_held, never) = mpsc::channel::<u32>();
        let mut waits = ask("a dead disk", move || never.recv().unwrap_or(0));
        let answers = ask("a file", || 7);
        waits.until = Instant::now();
        let mut why_not = Vec::new();
        assert_eq!(waits.or_none(&mut why_not), 0);
        assert_eq!(why_not, ["a dead disk: no answer within 5 s"]);
        assert_eq!(answers.answer(), Ok(7));
    }
}
