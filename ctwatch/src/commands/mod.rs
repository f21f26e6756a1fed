//! One file per verb. This is where the rooms are wired together.

pub mod census;
pub mod check;
pub mod doctor;
mod loading;
mod scope;
mod setup;
mod signals;
pub mod trace;
pub mod watch;
mod write;
mod writer;

use std::{io, time::Duration};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

use crate::{
    host::machine::files,
    model::{KEPT_UP, Model},
    observe::sampler::Collector,
    output::services::Services,
};

/// What services are called.
const SERVICES: &str = "/etc/services";

/// Where there is no such file, numbers will do.
fn services() -> Services {
    Services::parse(&files::text(SERVICES).unwrap_or_default())
}

/// Columns and rows. A file has room for every column.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => {
            let variable = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
            (variable("COLUMNS").unwrap_or(usize::MAX), variable("LINES").unwrap_or(24))
        }
    }
}

fn columns() -> usize {
    size().0
}

/// How long the machine has been awake.
fn uptime() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::Monotonic))?)
}

/// Waits, and keeps up with counters meanwhile.
async fn wait(collector: &Collector, model: &mut Model, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        sleep(left.min(KEPT_UP)).await;
        if left <= KEPT_UP {
            return Ok(());
        }
        model.keep_up(&collector.sample().await?);
    }
}

/// Options that make no sense, of which the parser of the command line cannot tell.
#[derive(Debug)]
pub struct WrongUsage(String);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Whoever read the output has gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
