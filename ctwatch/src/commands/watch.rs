//! `ctwatch watch`: what a session sees, rendered once a tick.

use std::io::{self, IsTerminal};

use anyhow::Result;

use super::{WrongUsage, setup, signals::Signals, size, writer::Writer};
use crate::{
    cli::{self, Output, WatchArgs},
    host::machine::zone,
    model::{Snapshot, census::StateOf, loading::Loaded},
    observe::{
        event::Event,
        loading::News,
        session::{Beginning, Session, Wishes, absent},
    },
    output::{
        aside, json,
        text::{
            loading,
            preamble::interruption,
            shown::ShownTops,
            watch::{Style, Text},
        },
    },
    record::{
        facts::Facts,
        session::{Epoch, Header},
    },
    recording::{
        mask::Mask,
        mirror::Mirror,
        play::{Player, Playing},
        recorder::Recorder,
    },
};

pub async fn run(args: WatchArgs, mask: Option<Mask>) -> Result<()> {
    if args.record.is_some() && mask.is_some() {
        let why = "--record records what there is: `ctwatch record --cut FILE --mask` masks a copy";
        return Err(WrongUsage(why.to_owned()).into());
    }
    let mut signals = Signals::new()?;
    let writer = Writer::start()?;
    let prepared = args.clone();
    let mut source = source(&args, mask, move || setup::prepare(&prepared))?;
    let mut recorder = match &args.record {
        Some(folder) => Some(Recorder::open(folder, Default::default(), setup::origin())?),
        None => None,
    };
    let mut screen = Screen::new(args);
    loop {
        let event = tokio::select! {
            biased;
            () = signals.any() => {
                source.stop();
                continue;
            }
            event = source.next() => event?,
        };
        if let Some(recorder) = &mut recorder
            && let Some(note) = recorder.take(&event, source.loaded().map(|(since, _)| since))?
        {
            aside::say(&note);
        }
        let is_over = matches!(event, Event::End);
        let bytes = screen.event(event, &source)?;
        if writer.write(bytes, &mut signals).await? {
            source.stop();
        }
        if is_over {
            return Ok(());
        }
    }
}

/// A session of this machine, or one that was recorded.
pub(super) enum EventSource {
    Live(Box<Session>),
    Masked(Box<Session>, Box<Mirror>),
    Recorded(Box<Player>),
}

/// `prepare` finds the means of each life that is watched.
pub(super) fn source(
    args: &WatchArgs,
    mask: Option<Mask>,
    prepare: impl FnMut() -> Result<Beginning> + 'static,
) -> Result<EventSource> {
    if let Some(path) = &args.past.from {
        let wanted = Playing {
            since: args.past.since.or(args.past.at),
            until: args.past.until,
            most: args.past.at.map(|_| 1).or(args.count()),
            length: args.tops(),
            by: args.by(),
            mask,
        };
        return Ok(EventSource::Recorded(Box::new(Player::open(path, wanted)?)));
    }
    Ok(live(args, mask, prepare))
}

/// A session of this machine.
pub(super) fn live(
    args: &WatchArgs,
    mask: Option<Mask>,
    prepare: impl FnMut() -> Result<Beginning> + 'static,
) -> EventSource {
    let session = Box::new(Session::new(wishes(args), prepare));
    match mask {
        Some(mask) => {
            EventSource::Masked(session, Box::new(Mirror::new(mask, args.tops(), args.by())))
        }
        None => EventSource::Live(session),
    }
}

pub(super) fn wishes(args: &WatchArgs) -> Wishes {
    Wishes {
        interval: args.interval(),
        count: args.count(),
        loading: args.how.mechanism != cli::MechanismArg::Counters,
        most: args.tops(),
        by: args.by(),
        insertions: args.asks_for_lists(),
    }
}

impl EventSource {
    pub(super) async fn next(&mut self) -> Result<Event> {
        match self {
            Self::Live(session) => session.next().await,
            Self::Masked(session, mirror) => mirror.event(session.next().await?),
            Self::Recorded(player) => {
                // Nothing of a file has to be waited for, so signals would never be heard.
                tokio::task::yield_now().await;
                player.next_event()
            }
        }
    }

    pub(super) fn stop(&mut self) {
        match self {
            Self::Live(session) | Self::Masked(session, _) => session.stop(),
            Self::Recorded(player) => player.stop(),
        }
    }

    /// Who holds the entries in this state is to be counted too. Of a recording only what was counted is known.
    pub(super) fn focus(&mut self, of: Option<StateOf>) {
        match self {
            Self::Live(session) | Self::Masked(session, _) => session.focus(of),
            Self::Recorded(_) => {}
        }
    }

    /// Rules and settings, as they were recorded last.
    pub(super) fn facts(&self) -> Option<&(jiff::Timestamp, Box<Facts>)> {
        match self {
            Self::Live(_) | Self::Masked(..) => None,
            Self::Recorded(player) => player.facts(),
        }
    }

    /// Modules that were loaded, and from when on that is seen.
    pub(super) fn loaded(&self) -> Option<(jiff::Timestamp, Vec<&Loaded>)> {
        match self {
            Self::Live(session) => session.loaded().map(|(since, all)| (since, all.collect())),
            Self::Masked(session, mirror) => {
                session.loaded().map(|(since, _)| (since, mirror.loaded().collect()))
            }
            Self::Recorded(player) => player.loaded().map(|(since, all)| (since, all.collect())),
        }
    }
}

/// Renders what happens, as what was asked for.
struct Screen {
    args: WatchArgs,
    /// `None`: JSON.
    text: Option<Text>,
    /// Of the life that is watched.
    life: Option<(Box<Header>, Epoch)>,
    last: Option<Box<Snapshot>>,
}

impl Screen {
    fn new(args: WatchArgs) -> Self {
        Self { args, text: None, life: None, last: None }
    }

    fn event(&mut self, event: Event, source: &EventSource) -> Result<Vec<u8>> {
        match event {
            Event::Absent { was_there } => {
                aside::say(&absent(was_there));
                Ok(Vec::new())
            }
            Event::Begin { header, epoch, snapshot, .. } => self.start(header, epoch, &snapshot),
            Event::Tick { snapshot, .. } => self.tick(snapshot, source),
            Event::Census(_) => Ok(Vec::new()),
            Event::Note(words) => self.note(&words),
            Event::Changed { since, until, what } => {
                self.note(&format!("between {since} and {until}: {}", what.join("; ")))
            }
            Event::NoCensus(why) => self.note(&format!("no census: {why}")),
            Event::Loading(news) => {
                let lines = words(&news);
                Ok(lines.iter().map(|line| self.note(line)).collect::<Result<Vec<_>>>()?.concat())
            }
            Event::Slow { since, netns, is_last } => {
                let netns = netns.map_or_else(String::new, |netns| format!(": {netns}"));
                let end = if is_last { "; the figures before are the last" } else { "" };
                let since = since.as_secs();
                self.note(&format!("the counters have not been read for {since} s{netns}{end}"))
            }
            Event::Gone | Event::Stopped | Event::End => self.finish(),
        }
    }

    fn start(&mut self, header: Box<Header>, epoch: Epoch, first: &Snapshot) -> Result<Vec<u8>> {
        let (header, epoch) = self.life.insert((header, epoch));
        match self.args.print.output {
            Output::Text => {
                let text = self.text.insert(Text::new(style(&self.args)));
                rendered(|out| text.start(out, header, *epoch, first))
            }
            Output::Json => {
                // Standard output is the objects alone.
                for note in interruption(*epoch).iter().chain(&header.notes) {
                    aside::say(note);
                }
                Ok(Vec::new())
            }
        }
    }

    /// Something that happened beside the figures.
    fn note(&mut self, note: &str) -> Result<Vec<u8>> {
        match &mut self.text {
            Some(text) => rendered(|out| text.note(out, note)),
            None => {
                aside::say(note);
                Ok(Vec::new())
            }
        }
    }

    fn tick(&mut self, snapshot: Box<Snapshot>, source: &EventSource) -> Result<Vec<u8>> {
        let snapshot = self.last.insert(snapshot);
        match (&mut self.text, &self.life) {
            (Some(text), _) => {
                let (columns, rows) = size();
                text.resize(columns, rows);
                rendered(|out| text.tick(out, snapshot))
            }
            (None, Some((header, epoch))) => {
                rendered(|out| json::watch::write(out, header, *epoch, snapshot, source.loaded()))
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// What that life came to.
    fn finish(&mut self) -> Result<Vec<u8>> {
        self.life = None;
        match (self.text.take(), self.last.take()) {
            (Some(text), Some(last)) => rendered(|out| text.finish(out, &last)),
            _ => Ok(Vec::new()),
        }
    }
}

pub(super) fn words(news: &News) -> Vec<String> {
    match news {
        News::Loaded(loaded) => loading::notes(loaded, &zone::local()),
        News::Lost(more) => vec![loading::untold(*more)],
        News::Blind(why) => vec![format!("who loads modules is not seen any more: {why}")],
    }
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    Ok(bytes)
}

fn style(args: &WatchArgs) -> Style {
    let (columns, rows) = size();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stdout().is_terminal() && !no_color;
    let tops = ShownTops {
        always: args.top.is_some(),
        most: args.tops(),
        by: args.by(),
        // Where there is no such file, numbers will do.
        services: super::services(),
    };
    Style { columns, rows, colour, zone: zone::local(), tops }
}
