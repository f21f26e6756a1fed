//! Threads that come to be, or an error that says why not: where no more tasks are allowed, the standard
//! library's own way ends the program.

use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};

pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let started = Builder::new().name(name.to_owned()).spawn(work);
    started.with_context(|| {
        format!("cannot start the thread {name}: are there too many tasks (ulimit -u, pids.max)?")
    })
}

/// On a thread of its own, whose end is waited for: for what changes a thread, as entering a namespace
/// does.
pub(crate) fn apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let ended = start(name, work)?.join();
    ended.map_err(|_| anyhow!("the thread {name} came to a bad end"))
}
