//! One table's time line.

use std::{cmp::Reverse, time::Duration};

use ctwatch_abi::NetnsId;

use super::{
    axis::Place,
    counts::StoryCounts,
    held::{CensusOf, HeldAt},
};
use crate::model::{Table, census::Taken, figure::Exactness, top::TopList};

/// What a number was within a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub first: u32,
    pub least: u32,
    pub most: u32,
    pub last: u32,
}

impl Spread {
    fn one(value: u32) -> Self {
        Self { first: value, least: value, most: value, last: value }
    }

    fn then(self, later: Self) -> Self {
        Self {
            first: self.first,
            least: self.least.min(later.least),
            most: self.most.max(later.most),
            last: later.last,
        }
    }
}

/// A time in which there was at least one snapshot of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoryBucket {
    /// Of its first and its last snapshot.
    pub from: Duration,
    pub to: Duration,
    /// The snapshot before its first one is in the bucket before, and there was no gap between.
    pub joins: bool,
    /// `None` where they could not be read.
    pub entries: Option<Spread>,
    pub limit: Option<Spread>,
    /// Until its last snapshot.
    pub counts: StoryCounts,
    /// At one of its snapshots at least.
    pub is_full: bool,
}

impl StoryBucket {
    fn then(self, later: Self) -> Self {
        let both = |one: Option<Spread>, other: Option<Spread>| match (one, other) {
            (Some(one), Some(other)) => Some(one.then(other)),
            (one, other) => one.or(other),
        };
        Self {
            from: self.from,
            to: later.to,
            joins: self.joins,
            entries: both(self.entries, later.entries),
            limit: both(self.limit, later.limit),
            counts: later.counts,
            is_full: self.is_full || later.is_full,
        }
    }
}

/// When a table was fullest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    pub at: Duration,
    pub entries: u32,
    pub limit: Option<u32>,
}

impl Peak {
    /// `None` where there is no limit.
    pub fn fill(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| *limit > 0)?;
        Some(f64::from(self.entries) / f64::from(limit))
    }

    fn rank(&self) -> (u64, u32) {
        let entries = u64::from(self.entries);
        let limit = self.limit.filter(|limit| *limit > 0).map(u64::from);
        (limit.map_or(0, |limit| entries.saturating_mul(1_000_000) / limit), self.entries)
    }
}

/// How long a table was full: it held as many entries as it may, or conntrack dropped packets or evicted
/// entries for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullTime {
    /// The first and the last snapshot at which it was.
    pub first: Duration,
    pub last: Duration,
    /// In all: between snapshots that both saw it full, and between those of which one did.
    pub at_least: Duration,
    pub at_most: Duration,
    /// How often it became full.
    pub times: u64,
    /// It was at its last snapshot.
    pub still: bool,
}

/// Packets of a control plane that were dropped, through all lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLoss {
    pub protocol: &'static str,
    pub at_least: u64,
    /// There were no more.
    pub is_exact: bool,
}

/// How bad it is: whether it decides alarms, what it certainly dropped, how full it was, and what it may have
/// dropped.
pub(super) type Badness = (bool, u64, (u64, u32), u64);

/// All that is kept of one table.
#[derive(Clone, Debug)]
pub struct TableStory {
    /// As it was at the last snapshot that spoke of it.
    pub last: Table,
    /// In order. Those without a snapshot are left out.
    pub buckets: Vec<StoryBucket>,
    /// What was counted before the first of them, where there was no room for its line.
    pub before: StoryCounts,
    /// In all, `before` included.
    pub counts: StoryCounts,
    pub peak: Option<Peak>,
    pub full: Option<FullTime>,
    pub planes: Vec<PlaneLoss>,
    /// The last of each list.
    pub lists: Vec<TopList>,
    /// What each census found, in order.
    pub held: Vec<HeldAt>,
    /// The census that found most entries, and the last one.
    pub fullest: Option<CensusOf>,
    pub latest: Option<CensusOf>,
    /// What earlier lives came to.
    offset: StoryCounts,
    planes_before: Vec<PlaneLoss>,
    /// The number of the last snapshot that spoke of it.
    seen: u64,
    was_full: bool,
    was_saturated: bool,
}

impl TableStory {
    /// `is_late`: there was no room for its line before.
    pub(super) fn new(table: &Table, is_late: bool) -> Self {
        let none = StoryCounts::none();
        let before = if is_late { StoryCounts::of(table) } else { none };
        Self {
            last: table.clone(),
            buckets: Vec::new(),
            before,
            counts: before,
            peak: None,
            full: None,
            planes: Vec::new(),
            lists: Vec::new(),
            held: Vec::new(),
            fullest: None,
            latest: None,
            offset: none,
            planes_before: Vec::new(),
            seen: 0,
            was_full: false,
            was_saturated: false,
        }
    }

    pub fn id(&self) -> NetnsId {
        self.last.id
    }

    /// The worst have the largest.
    pub(super) fn rank(&self) -> Badness {
        let peak = self.peak.map_or((0, 0), |peak| peak.rank());
        let most = self.counts.dropped.total().unwrap_or(0);
        (self.last.is_judged, self.counts.surely_dropped(), peak, most)
    }

    pub(super) fn take(&mut self, table: &Table, place: &Place, width: Duration) {
        let was_there = self.seen > 0 && self.seen + 1 == place.number;
        let joins = was_there && !place.after_gap;
        let last = self.counts;
        self.counts = last.onward(self.offset.plus(StoryCounts::of(table)));
        let is_full = self.is_full(table, &last, was_there);
        self.count_full(is_full, table.saturated, place, was_there);
        if let Some(entries) = table.entries {
            let peak = Peak { at: place.at, entries, limit: table.limit };
            if self.peak.is_none_or(|known| peak.rank() > known.rank()) {
                self.peak = Some(peak);
            }
        }
        let bucket = StoryBucket {
            from: place.at,
            to: place.at,
            joins,
            entries: table.entries.map(Spread::one),
            limit: table.limit.map(Spread::one),
            counts: self.counts,
            is_full,
        };
        match self.buckets.last_mut() {
            Some(last) if index(last.to, width) == index(bucket.to, width) => {
                *last = last.then(bucket);
            }
            _ => self.buckets.push(bucket),
        }
        self.keep_lists(table);
        self.planes = table.control_plane.iter().map(loss).collect();
        (self.seen, self.was_full, self.was_saturated) = (place.number, is_full, table.saturated);
        self.last = table.clone();
    }

    fn is_full(&self, table: &Table, before: &StoryCounts, was_there: bool) -> bool {
        let grew = |of: fn(&StoryCounts) -> Option<u64>| {
            of(&self.counts).unwrap_or(0) > of(before).unwrap_or(0)
        };
        table.fill.is_some_and(|fill| fill >= 1.0)
            || was_there
                && (grew(|counts| counts.table_full().least())
                    || grew(|counts| counts.early_drop.least()))
    }

    fn count_full(&mut self, is_full: bool, saturated: bool, place: &Place, was_there: bool) {
        let begins = saturated && !self.was_saturated;
        if !is_full && !self.was_full {
            return;
        }
        let (was_full, at) = (self.was_full && was_there, place.at);
        let none = FullTime {
            first: at,
            last: at,
            at_least: Duration::ZERO,
            at_most: Duration::ZERO,
            times: 0,
            still: false,
        };
        let full = self.full.get_or_insert(none);
        let step = place.step.filter(|_| was_there).unwrap_or_default();
        full.at_most += step;
        if is_full && was_full && !place.after_gap {
            full.at_least += step;
        }
        if is_full {
            full.last = at;
        }
        // Full without being saturated is not: the model turns at the same signs.
        full.times = (full.times + u64::from(begins)).max(1);
        full.still = is_full;
    }

    /// The model drops a list that is not asked for any more: then this was its last state.
    fn keep_lists(&mut self, table: &Table) {
        let is_there = |lists: &[TopList], of: &TopList| {
            let is_it = |list: &TopList| (list.stream, list.by) == (of.stream, of.by);
            lists.iter().any(|list| is_it(list) && !list.entries.is_empty())
        };
        let ended = self.last.top.iter().filter(|list| !list.entries.is_empty());
        for list in ended.filter(|list| !is_there(&table.top, list)) {
            self.lists.retain(|kept| (kept.stream, kept.by) != (list.stream, list.by));
            self.lists.push(list.clone());
        }
    }

    /// A census that was taken at this time.
    pub(super) fn hold(&mut self, taken: &Taken, at: Duration, width: Duration) {
        let Some(held) = HeldAt::of(taken, self.id(), at) else { return };
        if self.fullest.as_ref().is_none_or(|most| held.holds.all() > most.held.holds.all()) {
            self.fullest = Some(CensusOf::of(taken, self.id(), held));
        }
        self.latest = Some(CensusOf::of(taken, self.id(), held));
        match self.held.last_mut() {
            Some(last) if index(last.at, width) == index(at, width) => *last = held,
            _ => self.held.push(held),
        }
    }

    /// Conntrack began anew, and so did its counts and lists.
    pub(super) fn begin_life(&mut self) {
        self.offset = self.counts.ended();
        self.planes_before = self.all_planes();
        self.planes = Vec::new();
        (self.was_full, self.was_saturated) = (false, false);
    }

    /// Buckets are so wide from now on.
    pub(super) fn widen(&mut self, width: Duration) {
        self.buckets.dedup_by(|later, kept| {
            let same = index(later.to, width) == index(kept.to, width);
            if same {
                *kept = kept.then(*later);
            }
            same
        });
        self.held.dedup_by(|later, kept| {
            let same = index(later.at, width) == index(kept.at, width);
            if same {
                *kept = *later;
            }
            same
        });
    }

    /// All that is known in the end holds for what was before, too.
    pub(super) fn finish(mut self) -> Self {
        let mut later = self.counts;
        for bucket in self.buckets.iter_mut().rev() {
            bucket.counts = bucket.counts.before(later);
            later = bucket.counts;
        }
        self.before = self.before.before(later);
        self.planes = self.all_planes();
        let now = self.last.top.iter().filter(|list| !list.entries.is_empty()).cloned();
        let now: Vec<TopList> = now.collect();
        self.lists.retain(|old| !now.iter().any(|l| (l.stream, l.by) == (old.stream, old.by)));
        self.lists.extend(now);
        self.lists.sort_by_key(|list| (list.stream as u32, list.by as u32));
        self
    }

    fn all_planes(&self) -> Vec<PlaneLoss> {
        let mut all = self.planes.clone();
        for before in &self.planes_before {
            match all.iter_mut().find(|plane| plane.protocol == before.protocol) {
                Some(plane) => {
                    plane.at_least += before.at_least;
                    plane.is_exact = false;
                }
                None => all.push(PlaneLoss { is_exact: false, ..*before }),
            }
        }
        all.sort_by_key(|plane| Reverse(plane.at_least));
        all
    }
}

fn loss(plane: &crate::model::planes::ControlPlane) -> PlaneLoss {
    PlaneLoss {
        protocol: plane.protocol,
        at_least: plane.at_least,
        is_exact: plane.exactness == Exactness::Exact,
    }
}

/// Which bucket a time is in.
fn index(at: Duration, width: Duration) -> u128 {
    at.as_nanos() / width.as_nanos().max(1)
}
