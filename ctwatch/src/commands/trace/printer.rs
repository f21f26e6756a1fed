//! Lines from the ring buffer.

use std::time::Duration;

use anyhow::Result;

use crate::{
    cli::Output,
    host::netns::{names::Namer, owner},
    observe::loading::booted_at,
    output::{DropLine, json, services::Services, text},
    probe::trace::{Event, Trace, Traced},
    record::sample::Owner,
    recording::mask::Mask,
};

/// What is left in the buffer.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::commands) enum Rest {
    Nothing,
    /// Perhaps: so many lines are written first.
    More,
    /// As many were shown as were asked for.
    Enough,
}

/// As many lines are kept until they are written.
const AT_ONCE: usize = 4096;

pub(in crate::commands) struct Printer {
    pub(in crate::commands) output: Output,
    pub(in crate::commands) services: Services,
    pub(in crate::commands) zone: jiff::tz::TimeZone,
    pub(in crate::commands) left: Option<u64>,
    pub(in crate::commands) shown: u64,
    pub(in crate::commands) last: Traced,
    pub(in crate::commands) bytes: Vec<u8>,
    pub(in crate::commands) mask: Option<Mask>,
}

impl Printer {
    /// Prints what there is, or so much of it.
    pub(in crate::commands) fn drain(
        &mut self,
        trace: &mut Trace,
        namer: &mut Namer,
    ) -> Result<Rest> {
        // When the machine started, had it never slept; anew each time: the clock may be set.
        let booted = booted_at()?;
        for _ in 0..AT_ONCE {
            if self.left == Some(0) {
                return Ok(Rest::Enough);
            }
            let Some(event) = trace.take()? else { return Ok(Rest::Nothing) };
            self.line(&event, booted, namer)?;
            self.left = self.left.map(|left| left - 1);
            self.shown += 1;
        }
        Ok(if self.left == Some(0) { Rest::Enough } else { Rest::More })
    }

    /// How many there were since it was last said that were not told.
    pub(in crate::commands) fn more(&mut self, traced: Traced) -> Result<()> {
        let more = traced.untold.saturating_sub(self.last.untold);
        if more > 0 {
            match self.output {
                Output::Text => text::trace::more(&mut self.bytes, more)?,
                Output::Json => json::trace::more(&mut self.bytes, more)?,
            }
        }
        let undecided = traced.undecided.saturating_sub(self.last.undecided);
        if undecided > 0 {
            match self.output {
                Output::Text => text::trace::undecided(&mut self.bytes, undecided)?,
                Output::Json => json::trace::undecided(&mut self.bytes, undecided)?,
            }
        }
        self.last = traced;
        Ok(())
    }

    pub(in crate::commands) fn line(
        &mut self,
        event: &Event,
        booted: jiff::Timestamp,
        namer: &mut Namer,
    ) -> Result<()> {
        let mut named = namer.name(event.netns, event.ifindex)?;
        let mut event = *event;
        if let Some(mask) = &mut self.mask {
            mask.drop(&mut event, &mut named);
        }
        let time = booted + Duration::from_nanos(event.at);
        let owner = match event.owner() {
            Some(uid) => owner::as_counted(Some(uid)),
            None => Owner::Unknown("the programs could not read it".to_owned()),
        };
        let line = DropLine { time, zone: &self.zone, event: &event, named: &named, owner: &owner };
        match self.output {
            Output::Text => text::trace::line(&mut self.bytes, &line, &self.services)?,
            Output::Json => json::trace::line(&mut self.bytes, &line)?,
        }
        Ok(())
    }

    /// How many there were in all.
    pub(in crate::commands) fn end(&mut self, trace: &Trace) -> Result<()> {
        let traced = trace.traced()?;
        self.more(traced)?;
        match self.output {
            Output::Text => text::trace::end(&mut self.bytes, self.shown, traced.wanted)?,
            Output::Json => json::trace::end(&mut self.bytes, self.shown, traced.wanted)?,
        }
        Ok(())
    }

    /// All that is to be written by now.
    pub(in crate::commands) fn bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
