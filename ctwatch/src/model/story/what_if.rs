//! How full a table would have been with a fix in force: from what was counted, as an interval that holds for
//! the same packets.
//!
//! With more room, nothing is dropped or evicted for want of it. So at each moment there would have been what
//! there was, and of what was dropped or evicted before, that whose time is not over: at most one entry for each
//! packet that was dropped, and one for each entry that was evicted.

use std::time::Duration;

use ctwatch_abi::{
    NetnsId,
    protocol::{DCCP, SCTP, TCP},
    top::{By, Stream},
};

use super::{StoryBucket, StoryCounts, TableStory};
use crate::model::{
    effect::{Effect, Lives},
    figure::Bounds,
    top::TopList,
};

/// Of one table, with a fix in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    pub netns: NetnsId,
    /// How many entries it would have held: at most, or when a census was taken; or why nobody can say.
    pub would: Result<WouldHold, Unsaid>,
    /// When that census was taken.
    pub census: Option<Duration>,
    /// More cannot be in it.
    pub limit: Option<u64>,
    /// For each bucket of its line, from and to.
    pub line: Vec<Option<(u64, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// Nothing was dropped or evicted for want of room.
    NothingToChange,
    /// Nobody knows how many packets were dropped, or entries evicted, at most.
    Unbounded,
    /// Its entries were not read.
    Unread,
}

/// An interval, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldHold {
    pub at_least: u64,
    pub least: Least,
    pub at_most: u64,
    pub most: Most,
}

/// What shows that there would have been so many at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// So many were read.
    Read,
    /// A packet was dropped because there were as many as there may be.
    Dropped,
    /// A census counted so many, less those that the fix is about.
    Counted { of: u64, less: u64 },
}

/// The sum of what there would have been at most, at the moment at which that is the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Most {
    pub at: Duration,
    /// There were, without those that the fix is about.
    pub entries: u64,
    /// Packets dropped for want of room, of connections that do not stay open.
    pub dropped: u64,
    /// The others.
    pub lasting: u64,
    /// Entries evicted.
    pub evicted: u64,
    /// Within so many seconds; `None`: since the line begins.
    pub within: Option<u32>,
    /// The same of those that may stay open.
    pub lasting_within: Option<u32>,
}

impl Most {
    pub fn all(&self) -> u64 {
        let missed = self.dropped.saturating_add(self.lasting).saturating_add(self.evicted);
        self.entries.saturating_add(missed)
    }
}

/// One table with this fix in force; `None` where the fix is not about it.
pub fn what_if(table: &TableStory, effect: &Effect, lives: Option<Lives>) -> Option<WhatIf> {
    match *effect {
        Effect::Limit { to } => Some(with_room(table, to, lives)),
        Effect::Fewer { netns, of, at_least, at_most } if netns == table.id() => {
            with_fewer(table, of, (at_least, at_most), lives)
        }
        Effect::Fewer { .. } => None,
    }
}

fn with_room(table: &TableStory, to: u64, lives: Option<Lives>) -> WhatIf {
    let missed = Missed::of(table, lives);
    let mut what_if = WhatIf {
        netns: table.id(),
        would: Err(Unsaid::Unread),
        census: None,
        limit: Some(to),
        line: Vec::new(),
    };
    if missed.is_nothing() {
        what_if.would = Err(Unsaid::NothingToChange);
        return what_if;
    }
    let (mut least, mut most): (Option<(u64, Least)>, Option<Most>) = (None, None);
    let mut is_bounded = true;
    for (at, bucket) in table.buckets.iter().enumerate() {
        let Some(at_least) = at_least(table, at) else {
            what_if.line.push(None);
            continue;
        };
        let at_most = missed.beside(bucket, fullest(bucket));
        what_if.line.push(at_most.map(|most| (at_least.0, most.all().min(to).max(at_least.0))));
        if least.is_none_or(|known| at_least.0 > known.0) {
            least = Some(at_least);
        }
        match at_most {
            Some(now) if most.is_none_or(|known| now.all() > known.all()) => most = Some(now),
            Some(_) => {}
            None => is_bounded = false,
        }
    }
    what_if.would = match (least, most) {
        (Some((at_least, least)), Some(most)) if is_bounded => {
            let at_most = most.all().min(to).max(at_least);
            Ok(WouldHold { at_least, least, at_most, most })
        }
        (Some(_), _) => Err(Unsaid::Unbounded),
        (None, _) => Err(Unsaid::Unread),
    };
    what_if
}

/// When a census counted so many: only then it is known who held the table.
fn with_fewer(
    table: &TableStory,
    of: u64,
    (fewer, at_most_fewer): (u64, u64),
    lives: Option<Lives>,
) -> Option<WhatIf> {
    let census = table.held.iter().rev().find(|held| held.holds.all() == of)?.at;
    let at = table.buckets.partition_point(|bucket| bucket.to < census);
    let bucket = table.buckets.get(at).or(table.buckets.last())?;
    let limit = bucket.limit.map(|limit| u64::from(limit.most)).filter(|limit| *limit > 0);
    // What was dropped or evicted might have taken the room.
    let most = Missed::of(table, lives).beside(bucket, of.saturating_sub(fewer));
    let at_least = of.saturating_sub(at_most_fewer);
    let least = Least::Counted { of, less: at_most_fewer };
    let would = most.ok_or(Unsaid::Unbounded).map(|most| {
        let at_most = most.all().min(limit.unwrap_or(u64::MAX)).max(at_least);
        WouldHold { at_least, least, at_most, most }
    });
    Some(WhatIf { netns: table.id(), would, census: Some(census), limit, line: Vec::new() })
}

fn at_least(table: &TableStory, at: usize) -> Option<(u64, Least)> {
    let bucket = &table.buckets[at];
    let read = u64::from(bucket.entries?.most);
    let before = at.checked_sub(1).map(|at| &table.buckets[at]);
    let full = before.map_or(&table.before, |before| &before.counts).table_full();
    let dropped = certainly(full, bucket.counts.table_full()) > 0;
    // The lowest that was read near it.
    let near = before.into_iter().chain([bucket]).filter_map(|bucket| bucket.limit);
    let limit = near.map(|limit| limit.least).min().filter(|limit| dropped && *limit > 0);
    Some(match limit.map(|limit| u64::from(limit) + 1).filter(|held| *held > read) {
        Some(held) => (held, Least::Dropped),
        None => (read, Least::Read),
    })
}

/// Between readings a full table was as full as it may be, at most.
fn fullest(bucket: &StoryBucket) -> u64 {
    let read = bucket.entries.map_or(0, |entries| entries.most);
    let limit = bucket.limit.filter(|_| bucket.is_full).map_or(0, |limit| limit.most);
    read.max(limit).into()
}

/// Below this fill the kernel's collector evicts nothing.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `nf_conntrack_max95`
const COLLECTS: f64 = 0.95;
/// How much later than its time a reading may be made.
const LATE: Duration = Duration::from_secs(1);

/// What found no room.
struct Missed<'a> {
    table: &'a TableStory,
    lives: Option<Lives>,
    /// Packets whose connections may be open for long.
    lasting: u64,
}

impl<'a> Missed<'a> {
    fn of(table: &'a TableStory, lives: Option<Lives>) -> Self {
        Self { table, lives, lasting: lasting(table) }
    }

    /// Nothing, as far as readings and counters tell.
    fn is_nothing(&self) -> bool {
        let (from, to) = (&self.table.before, &self.table.counts);
        let room = self.table.peak.and_then(|peak| peak.fill()).is_some_and(|fill| fill < COLLECTS);
        room && self.table.full.is_none()
            && at_most_grown(from.table_full(), to.table_full()) == Some(0)
            && at_most_grown(from.early_drop, to.early_drop) == Some(0)
    }

    /// At this moment, beside so many entries.
    fn beside(&self, bucket: &StoryBucket, entries: u64) -> Option<Most> {
        let seconds = |of: fn(&Lives) -> u32| self.lives.as_ref().map(of);
        let (from, within) = self.since(bucket, seconds(|lives| lives.passing));
        let (long_from, lasting_within) = self.since(bucket, seconds(|lives| lives.longest));
        let now = &bucket.counts;
        let dropped = at_most_grown(from.table_full(), now.table_full())?;
        let longer = at_most_grown(long_from.table_full(), now.table_full())?;
        // The recent ones are among the others already.
        let lasting = self.lasting.min(longer.saturating_sub(dropped));
        let evicted = evicted(from, now)?;
        Some(Most { at: bucket.to, entries, dropped, lasting, evicted, within, lasting_within })
    }

    /// What was counted before so many seconds ago, and these; else when the line begins.
    fn since(&self, now: &StoryBucket, seconds: Option<u32>) -> (&'a StoryCounts, Option<u32>) {
        let ago = |seconds: u32| now.from.checked_sub(Duration::from_secs(seconds.into()) + LATE);
        let older = seconds.and_then(ago).and_then(|from| {
            let older = self.table.buckets.partition_point(|bucket| bucket.to <= from);
            self.table.buckets.get(older.checked_sub(1)?)
        });
        older.map_or((&self.table.before, None), |bucket| (&bucket.counts, seconds))
    }
}

/// Entries evicted to make room. The collector's are not counted everywhere: no more than were removed.
fn evicted(from: &StoryCounts, now: &StoryCounts) -> Option<u64> {
    let removed = at_most_grown(from.removals, now.removals);
    let early = at_most_grown(from.early_drop, now.early_drop);
    let gc = at_most_grown(from.gc, now.gc);
    let told = early.zip(gc).map(|(early, gc)| early.saturating_add(gc));
    told.into_iter().chain(removed).min()
}

/// Packets dropped for want of room whose connections may be open for long: all but those of which the lists
/// certainly tell another protocol.
fn lasting(table: &TableStory) -> u64 {
    let Some(full) = at_most_grown(table.before.table_full(), table.counts.table_full()) else {
        return u64::MAX;
    };
    let dropped = at_most_grown(table.before.dropped, table.counts.dropped);
    let full_at_least = certainly(table.before.table_full(), table.counts.table_full());
    // Lists count packets that were dropped for other reasons too.
    let others = dropped.map_or(u64::MAX, |all| all.saturating_sub(full_at_least));
    let of_lists = table.lists.iter().filter(|list| list.stream == Stream::Drops).map(passing);
    full.saturating_sub(of_lists.max().unwrap_or(0).saturating_sub(others))
}

/// Packets that were certainly of a protocol whose connections do not stay open.
fn passing(list: &TopList) -> u64 {
    if !matches!(list.by, By::Service | By::Flow) {
        return 0;
    }
    let proven = list.entries.iter().filter(|entry| entry.estimate.is_none());
    let others = proven.filter(|entry| !matches!(entry.key.protocol, TCP | SCTP | DCCP));
    others.map(|entry| entry.count.saturating_sub(entry.error)).sum()
}

/// The least by which it grew.
fn certainly(from: Bounds, to: Bounds) -> u64 {
    match (from, to) {
        (Bounds::Within { at_most: Some(most), .. }, Bounds::Within { at_least, .. }) => {
            at_least.saturating_sub(most)
        }
        _ => 0,
    }
}

/// The most; `None` where nobody knows.
fn at_most_grown(from: Bounds, to: Bounds) -> Option<u64> {
    match (from, to) {
        (Bounds::Within { at_least, .. }, Bounds::Within { at_most: Some(most), .. }) => {
            Some(most.saturating_sub(at_least))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
