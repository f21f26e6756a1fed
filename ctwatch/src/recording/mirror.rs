//! What happens now, masked: the same events, as they would be played back from a recording that was masked.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use anyhow::{Context, Result};
use ctwatch_abi::{top::By, trace::Event as Dropped};

use super::{frame::Frame, line::Line, mask::Mask, play::LOADED};
use crate::{
    model::{Model, Snapshot, census::Taken, loading::Loaded, names},
    observe::{event::Event, loading::News},
    record::{
        facts::Facts,
        sample::{Named, Sample},
    },
};

pub struct Mirror {
    mask: Mask,
    /// How long the top lists are, and by what they are told apart.
    most: usize,
    by: Vec<By>,
    /// Of the life that is watched: it sees what is masked.
    model: Option<Model>,
    loaded: VecDeque<Loaded>,
}

impl Mirror {
    pub fn new(mask: Mask, most: usize, by: Vec<By>) -> Self {
        Self { mask, most, by, model: None, loaded: VecDeque::new() }
    }

    pub fn event(&mut self, event: Event) -> Result<Event> {
        Ok(match event {
            Event::Begin { header, epoch, sample, .. } => {
                let line = Line::Begin { again: false, header, epoch };
                let Line::Begin { header, epoch, .. } = self.mask.line(line)? else {
                    return lost("a header");
                };
                self.model = Some(Model::with_tops(self.most, &self.by));
                let (sample, snapshot) = self.reading(*sample)?;
                Event::Begin { header, epoch, sample, snapshot }
            }
            Event::Tick { sample, .. } => {
                let (sample, snapshot) = self.reading(*sample)?;
                Event::Tick { sample, snapshot }
            }
            Event::Census(taken) => {
                let taken = Arc::new(self.mask.taken(taken.as_ref().clone())?);
                if let Some(model) = &mut self.model {
                    model.take_in(Arc::clone(&taken));
                }
                Event::Census(taken)
            }
            Event::Loading(News::Loaded(loaded)) => {
                let Line::Loaded { loaded } = self.mask.line(Line::Loaded { loaded })? else {
                    return lost("who loads modules");
                };
                self.loaded.extend(loaded.iter().cloned());
                let more = self.loaded.len().saturating_sub(LOADED);
                self.loaded.drain(..more);
                Event::Loading(News::Loaded(loaded))
            }
            Event::Loading(News::Blind(why)) => Event::Loading(News::Blind(self.mask.words(&why))),
            Event::Slow { since, netns, is_last } => {
                let netns = netns.map(|netns| self.mask.netns(&netns));
                Event::Slow { since, netns, is_last }
            }
            Event::NoCensus(why) => Event::NoCensus(self.mask.words(&why)),
            Event::Note(note) => Event::Note(self.mask.words(&note)),
            Event::Changed { since, until, what } => {
                let Line::Changed { since, until, what } =
                    self.mask.line(Line::Changed { since, until, what })?
                else {
                    return lost("what changed");
                };
                Event::Changed { since, until, what }
            }
            Event::Gone => {
                self.model = None;
                Event::Gone
            }
            Event::Absent { .. } | Event::Loading(News::Lost(_)) | Event::Stopped | Event::End => {
                event
            }
        })
    }

    /// Modules that were loaded.
    pub fn loaded(&self) -> impl ExactSizeIterator<Item = &Loaded> {
        self.loaded.iter()
    }

    fn reading(&mut self, sample: Sample) -> Result<(Box<Sample>, Box<Snapshot>)> {
        let sample = self.mask.sample(sample)?;
        let model = self.model.as_mut().context("a reading before watching began")?;
        let snapshot = Box::new(model.advance(&sample));
        Ok((Box::new(sample), snapshot))
    }
}

impl Mask {
    /// All of a reading.
    pub fn sample(&mut self, sample: Sample) -> Result<Sample> {
        let frame = Frame { full: true, ..Frame::of(sample.time, sample.elapsed) };
        match self.line(Line::Tick(Box::new(Frame { sample, ..frame })))? {
            Line::Tick(frame) => Ok(frame.sample),
            _ => lost("a reading"),
        }
    }

    /// One dropped packet, and what its namespace and interface are called.
    pub fn drop(&mut self, event: &mut Dropped, named: &mut Named) {
        for bytes in [&mut event.src, &mut event.dst] {
            *bytes = match self.address(names::address(event.family, bytes)) {
                IpAddr::V4(address) => {
                    let mut masked = [0; 16];
                    masked[..4].copy_from_slice(&address.octets());
                    masked
                }
                IpAddr::V6(address) => address.octets(),
            };
        }
        let comm = names::comm(&event.comm);
        if !comm.is_empty() {
            let masked = self.process(&comm);
            event.comm = std::array::from_fn(|at| masked.as_bytes().get(at).copied().unwrap_or(0));
        }
        named.netns = named.netns.take().map(|name| self.netns(&name));
        named.interface = named.interface.take().map(|name| self.interface(&name));
        named.workload = self.workload(&named.workload);
    }

    pub fn taken(&mut self, taken: Taken) -> Result<Taken> {
        match self.line(Line::Census { taken: Box::new(taken) })? {
            Line::Census { taken } => Ok(*taken),
            _ => lost("a census"),
        }
    }

    pub fn facts(&mut self, facts: Facts) -> Result<Facts> {
        let (time, facts) = (jiff::Timestamp::UNIX_EPOCH, Box::new(facts));
        match self.line(Line::Facts { time, facts })? {
            Line::Facts { facts, .. } => Ok(*facts),
            _ => lost("facts"),
        }
    }
}

/// What was masked is of another kind than before: it must not be shown as it was.
fn lost<T>(what: &str) -> Result<T> {
    anyhow::bail!("{what} cannot be masked")
}
