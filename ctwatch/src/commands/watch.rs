//! `ctwatch watch`: sample, model, render, once a tick.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::setup;
use crate::{
    cli::{Output, WatchArgs},
    collect::Collector,
    model::{Model, Snapshot},
    output::{
        Header, json,
        text::{Style, Text},
    },
    sample::Sample,
};

/// How often the first reading is tried again for one in which nothing ended meanwhile.
const STILL_TRIES: u32 = 20;

pub async fn run(args: WatchArgs) -> Result<()> {
    let mut signals = Signals::new()?;
    if !wait_for_conntrack(args.interval(), &mut signals).await? {
        return Ok(());
    }
    let (means, header) = setup::prepare(&args)?;
    let collector = Collector::start(means)?;
    let mut model = Model::default();
    let mut screen = Screen::new(args.output, header);
    let outcome = watch(&args, &collector, &mut model, &mut screen, &mut signals).await;
    match outcome {
        // Whoever read the output has seen enough.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}

async fn watch(
    args: &WatchArgs,
    collector: &Collector,
    model: &mut Model,
    screen: &mut Screen,
    signals: &mut Signals,
) -> Result<()> {
    screen.start(&model.advance(&first_sample(collector).await?))?;
    let every = args.interval();
    let mut ticks = interval_at(Instant::now() + every, every);
    // After a pause (a stopped terminal, a suspended machine) one tick, not all that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = args.count();
    loop {
        let stop = tokio::select! {
            _ = ticks.tick() => false,
            () = signals.any() => true,
        };
        let snapshot = model.advance(&collector.sample().await?);
        screen.tick(&snapshot)?;
        left = left.map(|left| left - 1);
        if stop || left == Some(0) {
            return screen.finish(&snapshot);
        }
    }
}

/// Totals count from the first reading. The number of entries and what the probes counted are not
/// read at one moment, so where entries end in between, it is read again.
async fn first_sample(collector: &Collector) -> Result<Sample> {
    let mut sample = collector.sample().await?;
    for _ in 1..STILL_TRIES {
        if sample.is_still() {
            break;
        }
        sample = collector.sample().await?;
    }
    Ok(sample)
}

/// True when conntrack is there, false when a signal came first.
async fn wait_for_conntrack(every: Duration, signals: &mut Signals) -> Result<bool> {
    if setup::conntrack_is_there() {
        return Ok(true);
    }
    eprintln!(
        "ctwatch: nf_conntrack is not loaded: nothing is tracked, and conntrack drops nothing; \
         waiting for it"
    );
    while !setup::conntrack_is_there() {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = signals.any() => return Ok(false),
        }
    }
    Ok(true)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Ctrl-C, and what service managers and closed terminals send: each asks for a last summary.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Where snapshots go, as what was asked for.
struct Screen {
    header: Header,
    text: Option<Text>,
}

impl Screen {
    fn new(output: Output, header: Header) -> Self {
        let text = match output {
            Output::Text => Some(Text::new(style())),
            Output::Json => None,
        };
        Self { header, text }
    }

    fn start(&mut self, snapshot: &Snapshot) -> Result<()> {
        match &mut self.text {
            Some(text) => emit(|out| text.start(out, &self.header, snapshot)),
            None => {
                // Standard output is the objects alone.
                for note in &self.header.notes {
                    eprintln!("ctwatch: {}", crate::output::escape::escaped(note));
                }
                Ok(())
            }
        }
    }

    fn tick(&mut self, snapshot: &Snapshot) -> Result<()> {
        match &mut self.text {
            Some(text) => {
                let (columns, rows) = size();
                text.resize(columns, rows);
                emit(|out| text.tick(out, snapshot))
            }
            None => emit(|out| json::write(out, &self.header, snapshot)),
        }
    }

    fn finish(&mut self, snapshot: &Snapshot) -> Result<()> {
        match &mut self.text {
            Some(text) => emit(|out| text.finish(out, snapshot)),
            None => Ok(()),
        }
    }
}

/// One tick is one write: a reader at the other end sees whole lines.
fn emit(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<()> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    let mut out = io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn style() -> Style {
    let (columns, rows) = size();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stdout().is_terminal() && !no_color;
    Style { columns, rows, colour, zone: jiff::tz::TimeZone::system() }
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
