//! From what a session tells to the lines of a recording.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;

use super::{
    frame::Encoder,
    keep::Keep,
    line::{Line, RecordedOn},
    write::RecordingFolder,
};
use crate::{
    observe::{event::Event, loading::News, surveyor::Found},
    record::{
        sample::Sample,
        session::{Epoch, Header},
    },
};

/// A segment is finished when it is so old, or so long.
const OLD: Duration = Duration::from_secs(3600);
const LONG: u64 = 16 << 20;
/// Reading can begin at a full frame: so often there is one.
const FULL: Duration = Duration::from_secs(60);
/// How often a disk that takes nothing is tried.
const AGAIN: Duration = Duration::from_secs(10);

pub struct Recorder {
    folder: RecordingFolder,
    encoder: Encoder,
    life: Option<(Box<Header>, Epoch)>,
    segment: Option<Running>,
    last_full: Option<Duration>,
    loads_since: Option<Timestamp>,
    /// The last, as they are written.
    facts: Option<Vec<u8>>,
    /// Why it is not written, as was said.
    broken: Option<String>,
}

/// The segment that is being written.
struct Running {
    begun: Instant,
    bytes: u64,
}

impl Recorder {
    pub fn open(path: &Path, keep: Keep, origin: RecordedOn) -> Result<Self> {
        Ok(Self {
            folder: RecordingFolder::open(path, keep, origin)?,
            encoder: Encoder::default(),
            life: None,
            segment: None,
            last_full: None,
            loads_since: None,
            facts: None,
            broken: None,
        })
    }

    /// Takes in what happened. `loads_since`: from when on it is seen who loads modules. Returns what is
    /// to be said of the disk, when that changed.
    pub fn take(
        &mut self,
        event: &Event,
        loads_since: Option<Timestamp>,
    ) -> Result<Option<String>> {
        let news = self.look();
        let now = match event {
            Event::Begin { sample, .. } | Event::Tick { sample, .. } => sample.time,
            _ => Timestamp::now(),
        };
        self.turn(now)?;
        if loads_since != self.loads_since {
            self.loads_since = loads_since;
            self.line(&Line::LoadsSince { since: loads_since })?;
        }
        match event {
            Event::Absent { was_there } => self.line(&Line::Absent { was_there: *was_there })?,
            Event::Begin { header, epoch, sample, .. } => {
                self.life = Some((header.clone(), *epoch));
                (self.encoder, self.last_full) = (Encoder::default(), None);
                self.begin(false)?;
                self.tick(sample)?;
            }
            Event::Tick { sample, .. } => self.tick(sample)?,
            Event::Census(taken) => {
                let taken = Box::new(taken.as_ref().clone());
                self.line(&Line::Census { taken })?;
            }
            Event::NoCensus(why) => self.line(&Line::NoCensus { why: why.clone() })?,
            Event::Loading(News::Loaded(loaded)) => {
                self.line(&Line::Loaded { loaded: loaded.clone() })?;
            }
            Event::Loading(News::Lost(more)) => self.line(&Line::LoadsLost { more: *more })?,
            Event::Loading(News::Blind(why)) => {
                self.line(&Line::LoadsBlind { why: why.clone() })?
            }
            Event::Slow { since, netns, is_last } => {
                let (seconds, netns) = (since.as_secs(), netns.clone());
                self.line(&Line::Slow { seconds, netns, is_last: *is_last })?;
            }
            Event::Gone => {
                self.life = None;
                self.line(&Line::Gone)?;
            }
            Event::End => self.line(&Line::End)?,
            // Of a recording, and not of what is recorded.
            Event::Note(_) | Event::Changed { .. } | Event::Stopped => {}
        }
        Ok(news)
    }

    /// What was found out about the machine.
    pub fn found(&mut self, found: &Found) -> Result<()> {
        self.turn(found.until)?;
        if let Some(since) = found.since {
            let (until, what) = (found.until, found.what.clone());
            self.line(&Line::Changed { since, until, what })?;
        }
        self.facts = Some(Line::Facts { time: found.until, facts: found.facts.clone() }.text()?);
        self.write_facts();
        Ok(())
    }

    /// One that is over.
    pub fn incident(&self, line: Vec<u8>) {
        self.folder.incident(line);
    }

    fn write_facts(&mut self) {
        if let Some(text) = self.facts.clone() {
            self.put(text);
        }
    }

    /// Whether the disk takes what it is given, where that is otherwise than it was.
    fn look(&mut self) -> Option<String> {
        let now = self.folder.broken();
        let before = std::mem::replace(&mut self.broken, now);
        match (before, &self.broken) {
            (None, Some(why)) => {
                Some(format!("not recorded from now on: {why}; it is tried again"))
            }
            (Some(_), None) => Some("it is recorded again".to_owned()),
            _ => None,
        }
    }

    /// Begins another segment where it is time for one.
    fn turn(&mut self, now: Timestamp) -> Result<()> {
        let is_broken = self.broken.is_some();
        let is_over = |segment: &Running| {
            let age = segment.begun.elapsed();
            age >= OLD || segment.bytes >= LONG || is_broken && age >= AGAIN
        };
        if self.segment.as_ref().is_some_and(|segment| !is_over(segment)) {
            return Ok(());
        }
        self.folder.begin(now);
        self.segment = Some(Running { begun: Instant::now(), bytes: 0 });
        self.last_full = None;
        if self.loads_since.is_some() {
            self.line(&Line::LoadsSince { since: self.loads_since })?;
        }
        self.write_facts();
        self.begin(true)
    }

    fn begin(&mut self, again: bool) -> Result<()> {
        let Some((header, epoch)) = &self.life else { return Ok(()) };
        let line = Line::Begin { again, header: header.clone(), epoch: *epoch };
        self.line(&line)
    }

    fn tick(&mut self, sample: &Sample) -> Result<()> {
        if self.broken.is_none() {
            let lines = self.folder.take_unwritten();
            if lines > 0 {
                self.last_full = None;
                self.line(&Line::Unwritten { lines })?;
            }
        }
        let full = self.last_full.is_none_or(|last| sample.elapsed.saturating_sub(last) >= FULL);
        if full {
            self.last_full = Some(sample.elapsed);
        }
        let frame = self.encoder.encode(sample, full);
        self.line(&Line::Tick(Box::new(frame)))
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        self.put(line.text()?);
        Ok(())
    }

    fn put(&mut self, text: Vec<u8>) {
        if let Some(segment) = &mut self.segment {
            segment.bytes += text.len() as u64;
        }
        self.folder.write(text);
    }
}
