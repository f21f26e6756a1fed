//! One incident: what happened to one table from the first sign of trouble until it was quiet again.

use std::{borrow::Cow, time::Duration};

use ctwatch_abi::{NetnsId, top::Stream};

use super::{
    Drops, Table,
    census::{Holders, Holds},
    figure::{Bounds, Figure},
    top::TopList,
};
use crate::record::{
    sample::{Access, Owner},
    workload::Workload,
};

/// When all tables were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    pub time: jiff::Timestamp,
    /// Since the start: clocks are set, this is not.
    pub elapsed: Duration,
}

impl Tick {
    /// How long.
    pub(super) fn after(self, before: Self) -> Duration {
        self.elapsed.saturating_sub(before.elapsed)
    }
}

/// What it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Packets that were certainly dropped, for this reason; `dropped` where it is not known which.
    Dropped(&'static str),
    /// No packet is known to be dropped, and the table is full or entries are evicted to make room.
    Full,
    /// It will be full soon if it goes on like this.
    Filling,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dropped(reason) => reason,
            Self::Full => "full",
            Self::Filling => "filling",
        }
    }
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Filling,
    Full,
    Dropping,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Filling => "filling",
            Self::Full => "full",
            Self::Dropping => "dropping",
        }
    }
}

/// Why nothing more is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes on, or has not been quiet for long enough.
    Open,
    Quiet,
    /// The namespace went.
    Gone,
    /// nf_conntrack was unloaded, and all tables with it.
    Unloaded,
    /// Nobody watched for so long that it may have ended and begun anew.
    Unwatched,
}

impl Ending {
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Quiet => "quiet",
            Self::Gone => "gone",
            Self::Unloaded => "unloaded",
            Self::Unwatched => "not_watched",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Incident {
    /// A contract: the same recording, read again, has the same ones.
    pub id: String,
    /// Which life of the table.
    pub epoch: u32,
    pub netns: NetnsId,
    pub inode: u32,
    pub name: Option<String>,
    pub workload: Workload,
    pub owner: Owner,
    /// The first reading that shows it.
    pub begin: Tick,
    /// The reading before, from which on all of it is counted; `None`: it was so when watching began.
    pub begin_after: Option<Tick>,
    /// The last reading in which it went on.
    pub last: Tick,
    /// The first reading after that in which it did not, or in which the namespace had gone.
    pub over: Option<Tick>,
    pub ending: Ending,
    pub cause: Cause,
    pub stage: Stage,
    /// The table was certainly full at some moment, even if no reading met it.
    pub was_full: bool,
    /// When it began.
    pub limit: Option<u32>,
    pub entries: Option<u32>,
    /// The most entries that a reading met; between readings there may have been more.
    pub peak: Option<PeakEntries>,
    /// Between the reading before it and the last in which it went on.
    pub happened: Happened,
    /// Control planes among what was dropped, the most first.
    pub control_plane: Vec<PlaneDrops>,
    /// Who it was when most happened, a stream each.
    pub tops: Vec<AtPeak>,
    /// What the last census says of the table, which may be older than this.
    pub census: Option<LastCensus>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakEntries {
    pub at: Tick,
    pub entries: u32,
    pub limit: Option<u32>,
    /// Entries by limit, as in a table.
    pub fill: Option<f64>,
}

/// Packets of a control plane that were dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneDrops {
    pub protocol: &'static str,
    pub dropped: Figure,
}

/// Lists of one stream, when most of it happened.
#[derive(Clone, Debug)]
pub struct AtPeak {
    pub stream: Stream,
    pub at: Tick,
    /// When their counts began.
    pub since: Option<jiff::Timestamp>,
    /// Events a second at that time, whatever their source.
    pub per_s: f64,
    pub lists: Vec<TopList>,
}

#[derive(Clone, Debug)]
pub struct LastCensus {
    pub by: Cow<'static, str>,
    pub time: jiff::Timestamp,
    pub holds: Holds,
    /// No number of it is exact.
    pub is_torn: bool,
    pub top: Vec<Holders>,
}

/// What happened in one table: in all, or from one reading to another.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    pub insertions: Figure,
    pub removals: Figure,
    pub dropped: Figure,
    pub drops: Drops,
    pub early_drop: Figure,
    /// Nothing of it was out of reach.
    is_read: bool,
}

impl Happened {
    /// Since totals count.
    pub(super) fn in_all(table: &Table) -> Self {
        Self {
            insertions: table.insertions,
            removals: table.removals,
            dropped: table.dropped,
            drops: table.drops,
            early_drop: table.evictions.early_drop,
            is_read: table.access == Access::Entered && table.unread.is_none(),
        }
    }

    /// Nothing, as far as it is measured: of a namespace that was not there yet.
    pub(super) fn none_of(&self) -> Self {
        let none = |first: Bounds, _| match first {
            Bounds::Unmeasured => first,
            Bounds::Within { .. } => Bounds::exactly(0),
        };
        Self { is_read: true, ..self.with(self, none) }
    }

    /// Without what was not measured before: nobody knows how much of that is new.
    pub(super) fn as_far_as(&self, before: &Self) -> Self {
        let known = |now: Bounds, then| if then == Bounds::Unmeasured { then } else { now };
        self.with(before, known)
    }

    /// Between both readings.
    pub(super) fn since(&self, before: &Self) -> Self {
        self.with(before, |now, then| now.since(then, before.is_read))
    }

    /// What was certain once stays so, though one reading may find less of it than the one before.
    pub(super) fn not_before(&self, before: &Self) -> Self {
        self.with(before, |now, then| now.at_least_as(then))
    }

    fn with(&self, before: &Self, both: impl Fn(Bounds, Bounds) -> Bounds) -> Self {
        let figure =
            |now: Figure, then: Figure| both(now.bounds(), then.bounds()).figure(None, None);
        let of = |figure_of: fn(&Drops) -> Figure| {
            figure(figure_of(&self.drops), figure_of(&before.drops))
        };
        Self {
            insertions: figure(self.insertions, before.insertions),
            removals: figure(self.removals, before.removals),
            dropped: figure(self.dropped, before.dropped),
            drops: Drops {
                table_full: of(|drops| drops.table_full),
                no_memory: of(|drops| drops.no_memory),
                clash: of(|drops| drops.clash),
                chain_too_long: of(|drops| drops.chain_too_long),
                nat_exhausted: of(|drops| drops.nat_exhausted),
                tracker: of(|drops| drops.tracker),
                clash_or_nat_exhausted: of(|drops| drops.clash_or_nat_exhausted),
            },
            early_drop: figure(self.early_drop, before.early_drop),
            is_read: self.is_read,
        }
    }

    /// Packets that were certainly dropped for one of these reasons.
    pub(super) fn at_least(&self, reasons: &[&str]) -> u64 {
        let drops = self.drops.named();
        let wanted = drops.iter().filter(|(name, _)| reasons.contains(name));
        wanted.fold(0, |sum, (_, figure)| sum.saturating_add(least(figure)))
    }

    /// The same for any reason, also where only the probes counted them.
    pub fn certainly_dropped(&self) -> u64 {
        let others = self.at_least(&["table_full", "no_memory", "chain_too_long", "tracker"]);
        // Together they may be certain where neither is alone.
        let apart = self.at_least(&["clash", "nat_exhausted"]);
        let both = apart.max(least(&self.drops.clash_or_nat_exhausted));
        least(&self.dropped).max(others.saturating_add(both))
    }
}

pub(super) fn least(figure: &Figure) -> u64 {
    figure.at_least.unwrap_or(0)
}

impl Incident {
    /// `None` while it is open.
    pub fn end(&self) -> Option<Tick> {
        (self.ending != Ending::Open).then_some(self.last)
    }

    /// From the first reading that shows it to the last; and the most that it can have been.
    pub fn duration(&self) -> (Duration, Option<Duration>) {
        let seen = self.last.after(self.begin);
        let most = self.begin_after.zip(self.over).filter(|_| self.ending != Ending::Open);
        (seen, most.map(|(after, over)| over.after(after)))
    }
}
