//! What happened, from a stream of snapshots: a time line for each table that mattered, when it was full
//! and for how long, what was dropped and whose it was. Memory does not grow with the stream: a line has
//! a fixed number of buckets, and they become wider as time goes by.

mod axis;
mod counts;
mod held;
mod line;
mod shares;
#[cfg(test)]
mod tests;
mod what_if;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ctwatch_abi::NetnsId;

use super::{Snapshot, Sum, census::Taken};
use axis::{Axis, Place};
use line::Badness;

pub use axis::Silence;
pub use counts::{CLASH, Increase, NAT_EXHAUSTED, StoryCounts, bounds, increase};
pub use held::{CensusOf, HeldAt, HeldState};
pub use line::{FullTime, Peak, PlaneLoss, Spread, StoryBucket, TableStory};
pub use shares::DropShares;
pub use what_if::{Least, Most, Unsaid, WhatIf, WouldHold, what_if};

/// Buckets of a line, where nothing else is asked for.
pub const POINTS: usize = 600;
/// Tables that have one: those that dropped most, then the fullest.
pub const MOST_TABLES: usize = 64;
/// Tables without one that are told apart, so that each is counted once.
const MOST_COUNTED: usize = 16_384;
/// Marks that are kept: half of them the first ones, half the last ones.
pub const MOST_MARKS: usize = 256;
/// Characters of a mark's text.
const LONGEST_TEXT: usize = 400;
/// Of a bucket, at first: less than any interval.
const NARROWEST: Duration = Duration::from_millis(1);

/// Something that happened beside the figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub time: jiff::Timestamp,
    pub kind: MarkKind,
    /// As it came: not escaped.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// Modules were loaded.
    Modules,
    /// Rules were changed.
    Rules,
    /// Nothing was recorded.
    Gap,
    /// An incident.
    Began,
    Ended,
    /// Conntrack, or what watches it, began anew: all counts begin at zero.
    Life,
    /// The clock was set.
    Clock,
}

/// A mark, and where on the axis it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedMark {
    pub at: Duration,
    pub mark: Mark,
}

/// All that happened.
#[derive(Clone, Debug)]
pub struct WholeStory {
    /// By the clock, at the first snapshot.
    pub start: jiff::Timestamp,
    /// From the first snapshot to the last one.
    pub length: Duration,
    pub snapshots: u64,
    /// How far apart they are, mostly; `None` where there is only one.
    pub usual_step: Option<Duration>,
    /// Of a bucket.
    pub width: Duration,
    /// The longest ones, in order.
    pub gaps: Vec<Silence>,
    /// How many there are, and how long they are together.
    pub all_gaps: (u64, Duration),
    /// In order.
    pub marks: Vec<PlacedMark>,
    pub marks_left_out: u64,
    /// The worst first; those that decide no alarm come last.
    pub tables: Vec<TableStory>,
    /// Tables that tracked anything and have no line; `left_out_is_cut`: there are more.
    pub left_out: usize,
    pub left_out_is_cut: bool,
    /// Packets that were certainly dropped in those; and one of them at least was seen full.
    pub left_out_dropped: u64,
    pub left_out_full: bool,
    /// At the last snapshot: those that decide alarms and track nothing, and those that could not be read.
    pub quiet: usize,
    pub unread: usize,
    /// Events that no probe saw.
    pub lost: u64,
    /// Events in namespaces of unprivileged users that were not told apart.
    pub unplaced_of_others: u64,
}

impl WholeStory {
    /// By the clock as it was at the start.
    pub fn time(&self, at: Duration) -> jiff::Timestamp {
        jiff::SignedDuration::try_from(at)
            .ok()
            .and_then(|at| self.start.checked_add(at).ok())
            .unwrap_or(self.start)
    }
}

/// Takes in snapshots and marks, in the order in which they come.
#[derive(Debug)]
pub struct Story {
    points: usize,
    width: Duration,
    axis: Option<Axis>,
    lines: Vec<TableStory>,
    rest: HashSet<NetnsId>,
    rest_is_cut: bool,
    rest_was_full: bool,
    first_marks: Vec<PlacedMark>,
    last_marks: VecDeque<PlacedMark>,
    marks_left_out: u64,
    /// Marks of before the first snapshot.
    early: Vec<Mark>,
    census: Option<Arc<Taken>>,
    is_new_life: bool,
    /// Of earlier lives, and of this one.
    dropped_before: u64,
    dropped: u64,
    lost: (u64, u64),
    unplaced: (u64, u64),
    quiet: usize,
    unread: usize,
}

impl Story {
    /// `points`: buckets of a time line, at most.
    pub fn new(points: usize) -> Self {
        Self {
            points: points.max(2),
            width: NARROWEST,
            axis: None,
            lines: Vec::new(),
            rest: HashSet::new(),
            rest_is_cut: false,
            rest_was_full: false,
            first_marks: Vec::new(),
            last_marks: VecDeque::new(),
            marks_left_out: 0,
            early: Vec::new(),
            census: None,
            is_new_life: false,
            dropped_before: 0,
            dropped: 0,
            lost: (0, 0),
            unplaced: (0, 0),
            quiet: 0,
            unread: 0,
        }
    }

    pub fn take(&mut self, snapshot: &Snapshot) {
        let points = self.points;
        let axis = self.axis.get_or_insert_with(|| Axis::new(snapshot.time, points));
        let is_new_life = axis.snapshots > 0 && (self.is_new_life || !axis.counts_on(snapshot));
        let place = axis.advance(snapshot, is_new_life);
        for mark in std::mem::take(&mut self.early) {
            self.mark(mark);
        }
        // A life that began before the first snapshot is the one that it counts in.
        self.is_new_life = false;
        if is_new_life {
            self.begin_life();
        }
        if let Some(seconds) = place.clock_set_s {
            let by = if seconds < 0 { "back" } else { "forward" };
            let text = format!("the clock was set {by} by {} s", seconds.unsigned_abs());
            self.mark(Mark { time: snapshot.time, kind: MarkKind::Clock, text });
        }
        self.fit(place.at);
        self.tables(snapshot, &place);
        self.census(snapshot, place.at);
        self.lost.1 = snapshot.lost;
        self.unplaced.1 = snapshot.unplaced_of_others;
    }

    /// Something that happened between the last snapshot and the next one.
    pub fn mark(&mut self, mark: Mark) {
        self.is_new_life |= mark.kind == MarkKind::Life;
        let Some(axis) = &self.axis else {
            if self.early.len() < MOST_MARKS {
                self.early.push(mark)
            } else {
                self.marks_left_out += 1
            }
            return;
        };
        let at = axis.place(mark.time);
        let text = mark.text.chars().take(LONGEST_TEXT).collect();
        let placed = PlacedMark { at, mark: Mark { text, ..mark } };
        if self.first_marks.len() < MOST_MARKS / 2 {
            self.first_marks.push(placed);
            return;
        }
        if self.last_marks.len() == MOST_MARKS / 2 {
            self.last_marks.pop_front();
            self.marks_left_out += 1;
        }
        self.last_marks.push_back(placed);
    }

    /// `None`: there was no snapshot.
    pub fn finish(self) -> Option<WholeStory> {
        let axis = self.axis?;
        let of_lines: u64 = self.lines.iter().map(|line| line.counts.surely_dropped()).sum();
        let mut tables: Vec<TableStory> = self.lines.into_iter().map(TableStory::finish).collect();
        tables
            .sort_by_key(|table| std::cmp::Reverse((table.rank(), std::cmp::Reverse(table.id()))));
        let mut marks = self.first_marks;
        marks.extend(self.last_marks);
        marks.sort_by_key(|placed| placed.at);
        Some(WholeStory {
            start: axis.start,
            length: axis.end(),
            snapshots: axis.snapshots,
            usual_step: axis.usual(),
            width: self.width,
            all_gaps: axis.all_gaps,
            gaps: axis.gaps,
            marks,
            marks_left_out: self.marks_left_out,
            tables,
            left_out: self.rest.len(),
            left_out_is_cut: self.rest_is_cut,
            left_out_dropped: (self.dropped_before + self.dropped).saturating_sub(of_lines),
            left_out_full: self.rest_was_full,
            quiet: self.quiet,
            unread: self.unread,
            lost: self.lost.0 + self.lost.1,
            unplaced_of_others: self.unplaced.0 + self.unplaced.1,
        })
    }

    fn begin_life(&mut self) {
        self.lines.iter_mut().for_each(TableStory::begin_life);
        self.dropped_before += std::mem::take(&mut self.dropped);
        self.lost = (self.lost.0 + self.lost.1, 0);
        self.unplaced = (self.unplaced.0 + self.unplaced.1, 0);
        // Its number belongs to the life that ended.
        self.census = None;
    }

    /// Buckets so wide that this time is in one of them.
    fn fit(&mut self, at: Duration) {
        let before = self.width;
        while at.as_nanos() / self.width.as_nanos().max(1) >= self.points as u128 {
            self.width = self.width.saturating_mul(2);
        }
        if self.width != before {
            let width = self.width;
            self.lines.iter_mut().for_each(|line| line.widen(width));
        }
    }

    fn tables(&mut self, snapshot: &Snapshot, place: &Place) {
        let here = snapshot.tables.iter();
        self.quiet =
            here.clone().filter(|t| t.is_judged && !t.is_tracking() && !t.is_unknown()).count();
        self.unread = here.clone().filter(|table| table.is_judged && table.is_unknown()).count();
        let gone = &snapshot.gone;
        self.dropped = [&gone.judged, &gone.others]
            .map(|gone| of_gone(gone.dropped, gone.table_full))
            .iter()
            .sum();
        let mut least: Option<(usize, _)> = None;
        for table in &snapshot.tables {
            if !table.is_gone {
                self.dropped += StoryCounts::of(table).surely_dropped();
            }
            if let Some(line) = self.lines.iter_mut().find(|line| line.id() == table.id) {
                line.take(table, place, self.width);
                continue;
            }
            if !table.is_tracking() {
                continue;
            }
            let mut line = TableStory::new(table, false);
            line.take(table, place, self.width);
            if self.lines.len() < MOST_TABLES {
                self.lines.push(line);
                continue;
            }
            // One that gets a line now had none before: what it came to until now is no increase.
            let (at, rank) = match least {
                Some(known) => known,
                None => match self.least() {
                    Some(known) => *least.insert(known),
                    None => continue,
                },
            };
            if line.rank() > rank {
                let mut line = TableStory::new(table, true);
                line.take(table, place, self.width);
                self.rest.remove(&table.id);
                let other = std::mem::replace(&mut self.lines[at], line);
                self.leave_out(&other);
                least = None;
            } else {
                self.leave_out(&line);
            }
        }
    }

    /// The line that would be left out first.
    fn least(&self) -> Option<(usize, Badness)> {
        let ranks = self.lines.iter().enumerate().map(|(at, line)| (at, line.rank()));
        ranks.min_by_key(|(_, rank)| *rank)
    }

    fn leave_out(&mut self, line: &TableStory) {
        self.rest_was_full |= line.full.is_some();
        match self.rest.len() < MOST_COUNTED || self.rest.contains(&line.id()) {
            true => drop(self.rest.insert(line.id())),
            false => self.rest_is_cut = true,
        }
    }

    /// Each census once, at the time at which it was taken.
    fn census(&mut self, snapshot: &Snapshot, at: Duration) {
        let Some((taken, age)) = &snapshot.census else { return };
        if self.census.as_ref().is_some_and(|known| Arc::ptr_eq(known, taken)) {
            return;
        }
        self.census = Some(taken.clone());
        let at = at.saturating_sub(*age);
        self.lines.iter_mut().for_each(|line| line.hold(taken, at, self.width));
    }
}

/// Of namespaces that are gone: the certain part.
fn of_gone(dropped: Sum, table_full: Sum) -> u64 {
    dropped.at_least.max(table_full.at_least)
}
