//! A recording as the events of the session that it is of: the same model sees the same samples.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use ctwatch_abi::top::By;
use jiff::Timestamp;

use super::{
    frame::{Decoder, Frame},
    line::Line,
    mask::Mask,
    read::Lines,
};
use crate::{
    model::{Model, Snapshot, loading::Loaded},
    observe::{event::Event, loading::News},
    record::{
        counters::CounterSums,
        facts::Facts,
        sample::Sample,
        session::{Epoch, Header},
    },
};

/// So many loaded modules are remembered, as live.
pub(super) const LOADED: usize = 64;

/// What of a recording is played, and how it is shown.
#[derive(Clone, Debug, Default)]
pub struct Playing {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// So many ticks, and no more.
    pub most: Option<u64>,
    /// How long the top lists are, and by what they are told apart.
    pub length: usize,
    pub by: Vec<By>,
    /// Nothing is shown that it has not replaced.
    pub mask: Option<Mask>,
}

/// A recording that is read as it is played.
pub struct Player {
    lines: Lines,
    mask: Option<Mask>,
    playback: Playback,
}

impl Player {
    pub fn open(path: &Path, mut playing: Playing) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        if let Some(since) = playing.since {
            lines.skip_to(since);
        }
        let mask = playing.mask.take();
        Ok(Self { lines, mask, playback: Playback::new(playing) })
    }

    /// After what is played by now, the end.
    pub fn stop(&mut self) {
        self.playback.is_over = true;
    }

    /// As live: modules that were loaded, and from when on that was seen.
    pub fn loaded(&self) -> Option<(Timestamp, impl ExactSizeIterator<Item = &Loaded>)> {
        self.playback.loads_since.map(|since| (since, self.playback.loaded.iter()))
    }

    /// The last that were found, and when.
    pub fn facts(&self) -> Option<&(Timestamp, Box<Facts>)> {
        self.playback.facts.as_ref()
    }

    /// `End` after the last one.
    pub fn next_event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.playback.told() {
                return Ok(event);
            }
            if self.playback.is_over {
                return Ok(Event::End);
            }
            match self.lines.next_line()? {
                Some(line) => {
                    let line = match &mut self.mask {
                        Some(mask) => mask.line(line)?,
                        None => line,
                    };
                    self.playback.take(line);
                }
                None => self.playback.end(),
            }
        }
    }
}

/// From lines to events.
#[derive(Default)]
pub struct Playback {
    wanted: Playing,
    ready: VecDeque<Event>,
    decoder: Decoder,
    /// The life that is said to have begun.
    life: Option<(Box<Header>, Epoch)>,
    model: Option<Model>,
    /// The last sample: also of those that are before what is wanted.
    last: Option<Box<Sample>>,
    /// Of that life no sample was there yet.
    is_new: bool,
    /// It ended as it should.
    has_ended: bool,
    facts: Option<(Timestamp, Box<Facts>)>,
    loads_since: Option<Timestamp>,
    loaded: VecDeque<Loaded>,
    /// There was something in the time that was wanted.
    has_any: bool,
    /// Of the last reading, and whether it was after the clock was set ahead.
    clock: Option<(Timestamp, Duration)>,
    is_ahead: bool,
    /// The last reading was after what is wanted: what happens now is not shown.
    is_past: bool,
    /// Not all of a list was recorded: that was said.
    said_cut: bool,
    /// Lines and segments that could not be read.
    unread: u64,
    is_over: bool,
}

/// So many of them are spoken of.
const UNREAD: u64 = 64;
/// A recording of which so many cannot be read is none.
const HOPELESS: u64 = 10_000;

impl Playback {
    pub fn new(wanted: Playing) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// What is to be told next, of the lines that were taken in.
    pub fn told(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn end(&mut self) {
        self.is_over = true;
        if let more @ 1.. = self.unread.saturating_sub(UNREAD) {
            self.note(format!("and {more} more lines or segments cannot be read"));
        }
        if !self.has_any {
            self.note("nothing was recorded in that time".to_owned());
        }
    }

    fn note(&mut self, words: String) {
        self.ready.push_back(Event::Note(words));
    }

    /// Whether what happens now is shown: not before what is wanted.
    fn is_shown(&self) -> bool {
        self.model.is_some() && !self.is_past
    }

    pub fn take(&mut self, line: Line) {
        match line {
            Line::Begin { again, header, epoch } => self.begin(again, header, epoch),
            Line::Tick(frame) => self.tick(*frame),
            Line::Census { taken } => {
                if let Some(model) = self.model.as_mut().filter(|_| !self.is_past) {
                    let taken = Arc::new(*taken);
                    model.take_in(Arc::clone(&taken));
                    self.ready.push_back(Event::Census(taken));
                }
            }
            Line::Facts { time, facts } => {
                let is_over = self.is_past || self.wanted.until.is_some_and(|until| time > until);
                if !is_over || self.facts.is_none() {
                    self.facts = Some((time, facts));
                }
            }
            Line::Changed { since, until, what } => {
                self.show(Event::Changed { since, until, what });
            }
            Line::LoadsSince { since } => self.loads_since = since,
            Line::Loaded { loaded } => {
                self.loaded.extend(loaded.iter().cloned());
                let more = self.loaded.len().saturating_sub(LOADED);
                self.loaded.drain(..more);
                self.show(Event::Loading(News::Loaded(loaded)));
            }
            Line::LoadsLost { more } => self.show(Event::Loading(News::Lost(more))),
            Line::LoadsBlind { why } => self.show(Event::Loading(News::Blind(why))),
            Line::NoCensus { why } => self.show(Event::NoCensus(why)),
            Line::Slow { seconds, netns, is_last } => {
                self.show(Event::Slow { since: Duration::from_secs(seconds), netns, is_last });
            }
            Line::Absent { was_there } => self.show(Event::Absent { was_there }),
            Line::Gone => {
                self.ended(Event::Gone);
                self.last = None;
            }
            Line::End => {
                self.ended(Event::Stopped);
                self.has_ended = true;
            }
            Line::Unwritten { lines } => {
                self.decoder.lose();
                self.note(format!("{lines} lines could not be written here"));
            }
            Line::Missing { from, to } => {
                self.decoder.lose();
                self.note(match from == to {
                    true => format!("segment {from} of the recording is missing"),
                    false => format!("segments {from} to {to} of the recording are missing"),
                });
            }
            Line::Torn { bytes } => {
                self.decoder.lose();
                self.note(format!("the recorder was killed while it wrote a line ({bytes} bytes)"));
            }
            Line::Unread { place, why } => {
                self.decoder.lose();
                self.unread += 1;
                if self.unread <= UNREAD {
                    self.note(format!("{place} cannot be read: {why}"));
                }
                if self.unread == HOPELESS {
                    self.note("too much of it cannot be read: the rest is left".to_owned());
                    self.end();
                }
            }
            Line::Segment(_) | Line::Unknown => {}
        }
    }

    fn ended(&mut self, event: Event) {
        let was_shown = self.is_shown();
        (self.life, self.model) = (None, None);
        if was_shown {
            self.ready.push_back(event);
        }
    }

    fn show(&mut self, event: Event) {
        if self.is_shown() {
            self.ready.push_back(event);
        }
    }

    fn begin(&mut self, again: bool, header: Box<Header>, epoch: Epoch) {
        let goes_on = again && self.life.as_ref().is_some_and(|(_, now)| *now == epoch);
        if goes_on {
            return;
        }
        self.life = Some((header, epoch));
        self.decoder.lose();
        // It counts from its own beginning: a gap is no clock that was set.
        (self.clock, self.is_ahead) = (None, false);
        (self.model, self.is_new) = (None, true);
    }

    fn tick(&mut self, frame: Frame) {
        let time = frame.sample.time;
        self.is_ahead = self.is_ahead(time, frame.sample.elapsed);
        self.clock = Some((time, frame.sample.elapsed));
        if self.wanted.until.is_some_and(|until| time > until) {
            // A clock that is ahead, or was when the recording began, may be set back again.
            if !self.is_ahead && self.has_any {
                return self.end();
            }
            self.is_past = true;
            let _ = self.decoder.decode(frame);
            return;
        }
        self.is_past = false;
        let is_before = self.wanted.since.is_some_and(|since| time < since);
        // Counting begins with the last reading before what is wanted.
        let first = match (is_before, &self.model, self.last.take()) {
            (false, None, Some(last)) if !self.is_new => Some(self.decoder.whole(*last)),
            (.., last) => {
                self.last = last;
                None
            }
        };
        let Some(sample) = self.decoder.decode(frame) else { return };
        let before = self.last.replace(Box::new(sample.clone()));
        let is_new = std::mem::take(&mut self.is_new);
        if is_before {
            return;
        }
        self.has_any = true;
        if self.model.is_none() {
            if let Some(before) = before.filter(|_| is_new) {
                self.note(gap(&before, &sample, self.has_ended));
            }
            self.has_ended = false;
            match first {
                Some(first) => self.first(first),
                None => return self.first(sample),
            }
        }
        let Some(model) = &mut self.model else { return };
        let snapshot = Box::new(model.advance(&sample));
        self.say_cut(&sample, &snapshot);
        self.ready.push_back(Event::Tick { sample: Box::new(sample), snapshot });
        self.wanted.most = self.wanted.most.map(|left| left.saturating_sub(1));
        self.is_over |= self.wanted.most == Some(0);
    }

    /// Whether the clock was set ahead since the last reading, or before that and not back since.
    fn is_ahead(&self, time: Timestamp, elapsed: Duration) -> bool {
        const SET: i128 = 60_000_000_000;
        let Some((last, then)) = self.clock else { return false };
        let by_clock = time.duration_since(last).as_nanos();
        let went = elapsed.as_nanos() as i128 - then.as_nanos() as i128;
        match by_clock - went {
            ahead if ahead > SET => true,
            ahead if ahead < -SET => false,
            _ => self.is_ahead,
        }
    }

    fn first(&mut self, sample: Sample) {
        let Some((header, epoch)) = self.life.clone() else { return };
        let model = Model::with_tops(self.wanted.length, &self.wanted.by);
        let snapshot = Box::new(self.model.insert(model).advance(&sample));
        let sample = Box::new(sample);
        self.ready.push_back(Event::Begin { header, epoch, sample, snapshot });
    }

    /// Once: where live showed more of a list than was recorded.
    fn say_cut(&mut self, sample: &Sample, snapshot: &Snapshot) {
        let is_cut = sample.tops.iter().any(|list| list.left_out > 0);
        let is_long = |table: &crate::model::Table| {
            table.top.iter().any(|list| list.entries.len() > super::LISTED)
        };
        if is_cut && !self.said_cut && snapshot.tables.iter().any(is_long) {
            self.said_cut = true;
            self.note(format!(
                "of each list the first {} were recorded: live may have shown others after them",
                super::LISTED
            ));
        }
    }
}

/// Between two recorders: how long, and what the kernel's counters say of it.
fn gap(before: &Sample, after: &Sample, has_ended: bool) -> String {
    let seconds = after.time.duration_since(before.time).as_secs_f64();
    let how = if has_ended { "was stopped" } else { "ended without a word" };
    let mut words = format!(
        "the recording {how} at {} and begins again {seconds:.1} s later; conntrack dropped meanwhile",
        before.time
    );
    let mut said = 0;
    for now in &after.tables {
        let then = before.tables.iter().find(|then| (then.id, then.inode) == (now.id, now.inode));
        let Some((then, sums)) =
            then.and_then(|then| then.counters.as_ref()).zip(now.counters.as_ref())
        else {
            continue;
        };
        let Some(dropped) = dropped(then, sums).filter(|dropped| *dropped > 0) else { continue };
        let name = now.name.clone().unwrap_or_else(|| now.inode.to_string());
        said += 1;
        if said > 8 {
            continue;
        }
        words += &format!("{} {dropped} in {name}", if said == 1 { "" } else { "," });
    }
    match said {
        0 => words += " nothing that its counters tell",
        9.. => words += &format!(", and some in {} more", said - 8),
        _ => {}
    }
    words + " (exact unless a counter went round or began anew meanwhile)"
}

/// `None` where they went back.
fn dropped(then: &CounterSums, now: &CounterSums) -> Option<u64> {
    now.dropped().checked_sub(then.dropped())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        model::verdict::situations::table, record::session::FORMAT, recording::frame::Encoder,
    };

    pub(in crate::recording) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn sample(second: u32, drop: u32) -> Sample {
        let mut sample = Frame::of(at(second.into()), Duration::from_secs(second.into())).sample;
        sample.limit = Some(1000);
        sample.tables = vec![table(1, "rt", 100, drop)];
        sample
    }

    fn begin(number: u32, again: bool) -> Line {
        let header = Header {
            format: FORMAT,
            version: "0".to_owned(),
            kernel: "6.12".to_owned(),
            boot_id: None,
            interval: Duration::from_secs(1),
            mechanisms: Vec::new(),
            notes: Vec::new(),
            top_bytes: None,
        };
        Line::Begin { again, header: Box::new(header), epoch: Epoch { number, gap: None } }
    }

    /// What is told of these lines: of each sample the second, and what was dropped by then.
    pub(in crate::recording) fn played(
        wanted: Playing,
        lines: impl IntoIterator<Item = Line>,
    ) -> Vec<String> {
        let mut playback = Playback::new(wanted);
        let mut told = Vec::new();
        for line in lines {
            playback.take(line);
            if playback.is_over {
                break;
            }
        }
        playback.end();
        while let Some(event) = playback.told() {
            told.push(match event {
                Event::Begin { snapshot, .. } => format!("begin {}", second(&snapshot)),
                Event::Tick { snapshot, .. } => format!("tick {}", second(&snapshot)),
                Event::Note(note) => note,
                Event::Gone => "gone".to_owned(),
                _ => "other".to_owned(),
            });
        }
        told
    }

    fn second(snapshot: &Snapshot) -> String {
        let second = snapshot.time.as_second() - 1_800_000_000;
        let dropped = snapshot.tables[0].dropped.total.unwrap_or(0);
        format!("{second}: {dropped}")
    }

    /// Seconds 0 to 9; from 5 on ten packets are dropped in each.
    pub(in crate::recording) fn ten(encoder: &mut Encoder) -> Vec<Line> {
        let tick = |second: u32| {
            let sample = sample(second, 7 + second.saturating_sub(4) * 10);
            Line::Tick(Box::new(encoder.encode(&sample, false)))
        };
        std::iter::once(begin(1, false)).chain((0..10).map(tick)).collect()
    }

    #[test]
    fn a_part_counts_from_the_reading_before_it() {
        let lines = || ten(&mut Encoder::default());
        let all = played(Playing::default(), lines());
        assert_eq!((all.len(), &*all[0], &*all[9]), (10, "begin 0: 0", "tick 9: 50"));
        let part = Playing { since: Some(at(7)), until: Some(at(8)), ..Playing::default() };
        assert_eq!(played(part, lines()), ["begin 6: 0", "tick 7: 10", "tick 8: 20"]);
        let one = Playing { since: Some(at(7)), most: Some(1), ..Playing::default() };
        assert_eq!(played(one, lines()), ["begin 6: 0", "tick 7: 10"]);
        let none = Playing { since: Some(at(70)), ..Playing::default() };
        assert_eq!(played(none, lines()), ["nothing was recorded in that time"]);
    }

    #[test]
    fn a_gap_is_told_with_what_the_counters_say() {
        let mut lines = ten(&mut Encoder::default());
        let mut other = Encoder::default();
        let mut after = sample(3, 157);
        after.time = at(100);
        lines.push(Line::Torn { bytes: 5 });
        lines.push(begin(1, false));
        lines.push(Line::Tick(Box::new(other.encode(&after, false))));
        let told = played(Playing::default(), lines);
        assert!(told[10].contains("killed while it wrote"), "{told:?}");
        let gap = &told[11];
        assert!(gap.contains("ended without a word") && gap.contains("91.0 s later"), "{gap}");
        assert!(gap.contains("dropped meanwhile 100 in rt"), "{gap}");
        assert_eq!(told[12], "begin 100: 0");
        assert_eq!(told.len(), 13);
    }

    #[test]
    fn a_clock_that_jumps_loses_no_reading() {
        const HOUR: i64 = 3_600;
        let mut encoder = Encoder::default();
        // Ahead by an hour at the third second, and back at the sixth.
        let tick = |second: u32| {
            let mut sample = sample(second, 7 + second);
            if (3..6).contains(&second) {
                sample.time = at(HOUR + i64::from(second));
            }
            Line::Tick(Box::new(encoder.encode(&sample, false)))
        };
        let lines: Vec<Line> = std::iter::once(begin(1, false)).chain((0..9).map(tick)).collect();
        let told = played(Playing::default(), lines.clone());
        assert_eq!(told.len(), 9, "{told:?}");
        assert_eq!((&*told[3], &*told[8]), ("tick 3603: 3", "tick 8: 8"));
        let part = Playing { until: Some(at(20)), ..Playing::default() };
        let mut with_census = lines.clone();
        let told = played(part.clone(), with_census.clone());
        with_census.insert(5, Line::NoCensus { why: "at a time that is not wanted".to_owned() });
        assert_eq!(played(part, with_census), told);
        assert_eq!(told[2..], ["tick 2: 2", "tick 6: 6", "tick 7: 7", "tick 8: 8"], "{told:?}");
        let part = Playing { until: Some(at(7)), ..Playing::default() };
        assert_eq!(played(part, lines).last().unwrap(), "tick 7: 7");
        // Ahead from the first reading on, and set back later.
        let mut encoder = Encoder::default();
        let tick = |second: u32| {
            let mut sample = sample(second, 7 + second);
            if second < 3 {
                sample.time = at(HOUR + i64::from(second));
            }
            Line::Tick(Box::new(encoder.encode(&sample, false)))
        };
        let lines: Vec<Line> = std::iter::once(begin(1, false)).chain((0..9).map(tick)).collect();
        let part = Playing { since: Some(at(4)), until: Some(at(7)), ..Playing::default() };
        let told = played(part, lines);
        assert_eq!(told[1..], ["tick 4: 1", "tick 5: 2", "tick 6: 3", "tick 7: 4"], "{told:?}");
    }

    #[test]
    fn a_new_segment_goes_on() {
        let mut encoder = Encoder::default();
        let mut lines = ten(&mut encoder);
        lines.insert(5, begin(1, true));
        assert_eq!(played(Playing::default(), lines).len(), 10);
        // One that is missing: until the next full tick nothing is known.
        let mut encoder = Encoder::default();
        let mut lines = ten(&mut encoder);
        lines.insert(5, Line::Missing { from: 2, to: 2 });
        lines.push(begin(1, true));
        lines.push(Line::Tick(Box::new(encoder.encode(&sample(20, 107), true))));
        let told = played(Playing::default(), lines);
        assert_eq!(
            told[3..],
            ["tick 3: 0", "segment 2 of the recording is missing", "tick 20: 100"]
        );
    }
}
