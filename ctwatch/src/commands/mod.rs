//! One file per verb. This is where the rooms are wired together.

pub mod census;
pub mod check;
pub mod collect;
pub mod confine;
mod diff;
pub mod doctor;
mod following;
pub mod incidents;
mod offline;
mod past;
mod past_check;
pub mod record;
pub mod report;
mod scope;
pub mod serve;
mod setup;
mod signals;
pub mod top;
pub mod trace;
pub mod watch;
mod write;
mod writer;
mod written;

use std::io::{self, Write};

pub use crate::recording::mask::Mask;

use anyhow::{Context, Result, bail};

use crate::{
    cli::MaskArgs,
    host::machine::files,
    model::Snapshot,
    observe::{
        event::Event,
        session::{Beginning, Session, Wishes},
    },
    output::services::Services,
    record::sample::Sample,
    recording::mirror::Mirror,
};

/// What replaces names and addresses, where that was asked for.
pub fn mask(args: &MaskArgs) -> Result<Option<Mask>> {
    match &args.mask_key {
        Some(key) => Mask::by_file(key).map(Some),
        None => Ok(args.mask.then(Mask::random)),
    }
}

/// An error in words; with --mask it lists no names that nobody asked for.
pub fn said(error: &anyhow::Error, is_masked: bool) -> String {
    match error.downcast_ref::<scope::Naming>().filter(|_| is_masked) {
        Some(naming) => naming.masked(),
        None => format!("{error:#}"),
    }
}

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

/// All of it. Whoever reads it may have seen enough before its end.
fn print(bytes: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

fn columns() -> usize {
    size().0
}

/// Two readings, and what happened from one to the other.
struct Between {
    sample: Box<Sample>,
    snapshot: Box<Snapshot>,
    /// Why there is no census, where one was wanted.
    uncounted: Option<String>,
}

/// Reads once, says that it did, and reads again when the interval is over.
async fn between(
    wishes: Wishes,
    beginning: Beginning,
    mask: Option<Mask>,
    begun: impl FnOnce(),
) -> Result<Between> {
    const UNLOADED: &str = "nf_conntrack was unloaded while it was read";
    let mut beginning = Some(beginning);
    let prepare = move || beginning.take().context(UNLOADED);
    let mut mirror = mask.map(|mask| Mirror::new(mask, wishes.most, wishes.by.clone()));
    let mut session = Session::new(Wishes { count: Some(1), ..wishes }, prepare);
    let (mut begun, mut last, mut uncounted) = (Some(begun), None, None);
    loop {
        let event = session.next().await?;
        let event = match &mut mirror {
            Some(mirror) => mirror.event(event)?,
            None => event,
        };
        match event {
            Event::Begin { .. } => _ = begun.take().map(|begun| begun()),
            Event::Tick { sample, snapshot } => last = Some((sample, snapshot)),
            Event::NoCensus(why) => uncounted = Some(why),
            Event::Absent { .. } | Event::Gone => bail!(UNLOADED),
            Event::Census(_) | Event::Loading(_) | Event::Slow { .. } => {}
            Event::Note(_) | Event::Changed { .. } | Event::Stopped => {}
            Event::End => {
                let (sample, snapshot) = last.context(UNLOADED)?;
                return Ok(Between { sample, snapshot, uncounted });
            }
        }
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
