//! How full a table would have been with a fix in force: from what was counted, as an interval that holds for
//! the same packets.
//!
//! With more room, nothing is dropped or evicted for want of it. A connection of which no packet was dropped
//! and whose entry was not evicted has the same entry at each moment, or none. Any other differs by one entry at
//! most. So at each moment there would have been what there was, and one entry more at most for each packet that
//! was dropped before and each entry that was evicted.

use std::time::Duration;

use ctwatch_abi::NetnsId;

use super::{StoryBucket, TableStory};
use crate::model::{effect::Effect, figure::Bounds};

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
    /// For each bucket of its line, the most.
    pub line: Vec<Option<u64>>,
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
    /// So many were read before anything was dropped or evicted.
    Read,
    /// Something was dropped or evicted because there were as many as there may be; so many may have been
    /// evicted before that uncounted.
    Full { uncounted: u64 },
    /// A census counted so many, less those that the fix is about.
    Counted { of: u64, less: u64 },
}

/// The sum of what there would have been at most, at the moment at which that is the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Most {
    pub at: Duration,
    /// There were, without those that the fix is about.
    pub entries: u64,
    /// Packets that were dropped for want of room since the line begins.
    pub dropped: u64,
    /// Entries that were evicted since.
    pub evicted: u64,
}

impl Most {
    pub fn all(&self) -> u64 {
        self.entries.saturating_add(self.dropped).saturating_add(self.evicted)
    }
}

/// One table with this fix in force since its line begins; `None` where the fix is not about it. `census`: when
/// that was taken which the fix goes by.
pub fn what_if(table: &TableStory, effect: &Effect, census: Option<Duration>) -> Option<WhatIf> {
    match *effect {
        Effect::Limit { to } => Some(with_room(table, to)),
        Effect::Fewer { netns, of, at_least, at_most } if netns == table.id() => {
            with_fewer(table, of, (at_least, at_most), census?)
        }
        Effect::Fewer { .. } => None,
    }
}

fn with_room(table: &TableStory, to: u64) -> WhatIf {
    let mut what_if = WhatIf {
        netns: table.id(),
        would: Err(Unsaid::Unread),
        census: None,
        limit: Some(to),
        line: Vec::new(),
    };
    if lacked_no_room(table) {
        what_if.would = Err(Unsaid::NothingToChange);
        return what_if;
    }
    let mut most: Option<Most> = None;
    let mut is_bounded = true;
    for (bucket, missed) in table.buckets.iter().zip(missed(table)) {
        let now = bucket.entries.and(missed).map(|missed| beside(fullest(bucket), missed, bucket));
        what_if.line.push(now.map(|now| now.all().min(to)));
        match now {
            Some(now) if most.is_none_or(|known| now.all() > known.all()) => most = Some(now),
            Some(_) => {}
            None => is_bounded &= bucket.entries.is_none(),
        }
    }
    what_if.would = match most {
        Some(most) if is_bounded => {
            // Nothing is certain where it began full.
            let (at_least, least) = at_least(table).unwrap_or((0, Least::Read));
            let at_most = most.all().min(to).max(at_least);
            Ok(WouldHold { at_least, least, at_most, most })
        }
        Some(_) => Err(Unsaid::Unbounded),
        None if is_bounded => Err(Unsaid::Unread),
        None => Err(Unsaid::Unbounded),
    };
    what_if
}

/// When a census counted so many: only then it is known who held the table.
fn with_fewer(
    table: &TableStory,
    of: u64,
    (fewer, at_most_fewer): (u64, u64),
    census: Duration,
) -> Option<WhatIf> {
    let at = table.buckets.partition_point(|bucket| bucket.to < census);
    let at = at.min(table.buckets.len().checked_sub(1)?);
    let bucket = &table.buckets[at];
    let limit = bucket.limit.map(|limit| u64::from(limit.most)).filter(|limit| *limit > 0);
    // What was dropped or evicted might have taken the room.
    let missed = missed(table).into_iter().nth(at).flatten();
    let most = missed.map(|missed| beside(of.saturating_sub(fewer), missed, bucket));
    let at_least = of.saturating_sub(at_most_fewer);
    let least = Least::Counted { of, less: at_most_fewer };
    let would = most.ok_or(Unsaid::Unbounded).map(|most| {
        let at_most = most.all().min(limit.unwrap_or(u64::MAX)).max(at_least);
        WouldHold { at_least, least, at_most, most }
    });
    Some(WhatIf { netns: table.id(), would, census: Some(census), limit, line: Vec::new() })
}

/// From 95% on the kernel's collector evicts, which nothing counts: where no reading met less than this, it may have.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `nf_conntrack_max95`
const COLLECTS: f64 = 0.9;

fn may_collect(bucket: &StoryBucket) -> bool {
    let (entries, limit) = (bucket.entries, bucket.limit.filter(|limit| limit.least > 0));
    let fill = |most: u32, limit: u32| f64::from(most) / f64::from(limit);
    let below = entries.zip(limit).is_some_and(|(e, l)| fill(e.most, l.least) < COLLECTS);
    bucket.is_full || !below
}

/// What is certain of the most: until something is dropped or evicted, both tables are the same; and what that
/// makes room for would have been in the roomier one beside as many as there may be.
fn at_least(table: &TableStory) -> Option<(u64, Least)> {
    let mut best: Option<(u64, Least)> = None;
    // The last bucket in which the collector had certainly evicted nothing, and the last one.
    let (mut calm, mut before, mut last_limit) = (&table.before, &table.before, None);
    for bucket in &table.buckets {
        let now = &bucket.counts;
        let certain = certainly(before.table_full(), now.table_full())
            + certainly(before.early_drop, now.early_drop);
        let limit = bucket.limit.map(|limit| limit.least).filter(|limit| *limit > 0);
        if certain > 0 {
            let Some(removed) = at_most_grown(calm.removals, now.removals) else { return best };
            let uncounted = removed.saturating_sub(certainly(calm.early_drop, now.early_drop));
            let limit = limit.into_iter().chain(last_limit).min();
            let full = limit.map(|limit| (u64::from(limit) + 1).saturating_sub(uncounted));
            let full = full.map(|full| (full, Least::Full { uncounted }));
            return [best, full].into_iter().flatten().max_by_key(|(count, _)| *count);
        }
        if before.table_full() != now.table_full() || before.early_drop != now.early_drop {
            // Perhaps: then nothing more is certain.
            return best;
        }
        if !may_collect(bucket) {
            let read = bucket.entries.map_or(0, |entries| u64::from(entries.most));
            if best.is_none_or(|(known, _)| read > known) {
                best = Some((read, Least::Read));
            }
            calm = now;
        }
        (before, last_limit) = (now, limit);
    }
    best
}

/// As far as readings and counters tell.
fn lacked_no_room(table: &TableStory) -> bool {
    let (from, to) = (&table.before, &table.counts);
    let room = table.peak.and_then(|peak| peak.fill()).is_some_and(|fill| fill < COLLECTS);
    room && table.full.is_none()
        && at_most_grown(from.table_full(), to.table_full()) == Some(0)
        && at_most_grown(from.early_drop, to.early_drop) == Some(0)
}

/// Between readings a full table was as full as it may be, at most.
fn fullest(bucket: &StoryBucket) -> u64 {
    let read = bucket.entries.map_or(0, |entries| entries.most);
    let limit = bucket.limit.filter(|_| bucket.is_full).map_or(0, |limit| limit.most);
    read.max(limit).into()
}

fn beside(entries: u64, (dropped, evicted): (u64, u64), until: &StoryBucket) -> Most {
    Most { at: until.to, entries, dropped, evicted }
}

/// What found no room until the end of each bucket: packets dropped, and entries evicted.
fn missed(table: &TableStory) -> Vec<Option<(u64, u64)>> {
    let (mut before, mut was_hot, mut evicted) = (&table.before, false, Some(0_u64));
    let mut all = Vec::with_capacity(table.buckets.len());
    for bucket in &table.buckets {
        let (now, is_hot) = (&bucket.counts, may_collect(bucket));
        // The collector's evictions are counted nowhere: no more were evicted than removed.
        let more = match is_hot || was_hot || !bucket.joins {
            true => at_most_grown(before.removals, now.removals),
            false => at_most_grown(before.early_drop, now.early_drop),
        };
        evicted = evicted.zip(more).map(|(sum, more)| sum.saturating_add(more));
        all.push(at_most_grown(table.before.table_full(), now.table_full()).zip(evicted));
        (before, was_hot) = (now, is_hot);
    }
    all
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
