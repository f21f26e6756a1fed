//! What every output renders.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use ctwatch_abi::{NetnsId, top::Stream};

use super::{
    census::{TableCensus, Taken},
    figure::Figure,
    planes::ControlPlane,
    top::TopList,
};
use crate::record::{
    sample::{Access, Owner},
    workload::Workload,
};

/// The state of all tables at one moment, and what happened since the moment before.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub time: jiff::Timestamp,
    /// Since the snapshot before; zero in the first.
    pub interval: Duration,
    /// Since the start.
    pub elapsed: Duration,
    /// Events that happened, by the kernel's own counters, and that the probes did not see; and
    /// those they saw in more namespaces than they have room for.
    pub lost: u64,
    /// Events in namespaces of unprivileged users beyond those that have room: in all of theirs
    /// together, and in none of the host's.
    pub unplaced_of_others: u64,
    /// Those that are judged first, each kind in the order of their numbers.
    pub tables: Vec<Table>,
    /// Those that were gone before: as they were last.
    pub departed: Vec<Arc<Table>>,
    /// What happened in all that are gone, those of `tables` and those that are kept no more included.
    pub gone: GoneTables,
    /// Namespaces that are gone and were left out of `departed` to keep memory bounded.
    pub forgotten: u64,
    /// The last census, and how old it is.
    pub census: Option<(Arc<Taken>, Duration)>,
    /// Of which streams there are lists now, and since when they count.
    pub lists_since: Vec<(Stream, jiff::Timestamp)>,
}

/// A sum of totals, each of which is at least so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub total: u64,
    pub at_least: u64,
}

/// What happened in namespaces that are gone, over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    pub namespaces: u64,
    pub insertions: Sum,
    pub removals: Sum,
    pub dropped: Sum,
    pub table_full: Sum,
    pub early_drop: Sum,
    pub invalid: Sum,
}

/// The same, for those that are judged and for others apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoneTables {
    pub judged: Gone,
    pub others: Gone,
}

impl GoneTables {
    pub(super) fn add(&mut self, table: &Table) {
        if table.is_judged { self.judged.add(table) } else { self.others.add(table) }
    }
}

impl Gone {
    fn add(&mut self, table: &Table) {
        self.namespaces += 1;
        let sums = [
            (&mut self.insertions, &table.insertions),
            (&mut self.removals, &table.removals),
            (&mut self.dropped, &table.dropped),
            (&mut self.table_full, &table.drops.table_full),
            (&mut self.early_drop, &table.evictions.early_drop),
            (&mut self.invalid, &table.invalid),
        ];
        for (sum, figure) in sums {
            sum.total += figure.total.unwrap_or(0);
            sum.at_least += figure.at_least.unwrap_or(0);
        }
    }
}

/// One namespace's table.
#[derive(Clone, Debug)]
pub struct Table {
    /// How long ago it was read: all of this is as it was then. The probes have counted nothing in it
    /// since.
    pub age: Duration,
    /// Nothing leads to it, and nothing happens in it any more. It is spoken of for the last time.
    pub is_gone: bool,
    pub change: Option<Change>,
    /// Shared with the snapshots before, because most namespaces are as they were.
    pub(super) reading: Arc<TableReading>,
}

impl Deref for Table {
    type Target = TableReading;

    fn deref(&self) -> &TableReading {
        &self.reading
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut TableReading {
        Arc::make_mut(&mut self.reading)
    }
}

/// What its last reading says of it.
#[derive(Clone, Debug)]
pub struct TableReading {
    pub id: NetnsId,
    pub inode: u32,
    pub name: Option<String>,
    pub workload: Workload,
    pub owner: Owner,
    /// It decides alarms: it is the host's own, or was asked for.
    pub is_judged: bool,
    pub access: Access,
    pub unread: Option<String>,
    pub entries: Option<u32>,
    pub limit: Option<u32>,
    pub buckets: Option<u32>,
    /// Entries by limit; `None` where either is unknown or there is no limit.
    pub fill: Option<f64>,
    pub trend_per_s: Option<f64>,
    pub time_to_full_s: Option<f64>,
    pub insertions: Figure,
    pub removals: Figure,
    /// Packets dropped by conntrack, for whatever reason: what its own counters say.
    pub dropped: Figure,
    /// The same, by reason.
    pub drops: Drops,
    /// Entries evicted to make room, by how.
    pub evictions: Evictions,
    /// Packets left untracked because they fit no connection: not dropped by conntrack.
    pub invalid: Figure,
    /// Entries that user space asked for by ctnetlink and that were refused because the table is
    /// full: no packet is lost by that.
    pub refused_ctnetlink: Figure,
    pub saturated: bool,
    /// Who it is; empty where nobody counts that.
    pub top: Vec<TopList>,
    /// Control planes among the refused.
    pub control_plane: Vec<ControlPlane>,
}

#[derive(Clone, Copy, Debug)]
pub struct Drops {
    pub table_full: Figure,
    pub no_memory: Figure,
    pub clash: Figure,
    pub chain_too_long: Figure,
    pub nat_exhausted: Figure,
    pub tracker: Figure,
    /// `clash` and `nat_exhausted` together, which is no reason of its own: exact in many cases in which
    /// neither of the two is.
    pub clash_or_nat_exhausted: Figure,
}

impl Drops {
    /// Each reason once, with the names that every output uses.
    pub fn named(&self) -> [(&'static str, &Figure); 6] {
        [
            ("table_full", &self.table_full),
            ("no_memory", &self.no_memory),
            ("clash", &self.clash),
            ("chain_too_long", &self.chain_too_long),
            ("nat_exhausted", &self.nat_exhausted),
            ("tracker", &self.tracker),
        ]
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Evictions {
    pub early_drop: Figure,
    /// No counter counts these, and no tracepoint tells them from other ends of entries.
    pub gc: Figure,
}

impl Evictions {
    pub fn named(&self) -> [(&'static str, &Figure); 2] {
        [("early_drop", &self.early_drop), ("gc", &self.gc)]
    }
}

/// A turn that deserves a loud line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Saturated,
    Recovered,
}

impl Snapshot {
    /// What the last census says of a table.
    pub fn census(&self, table: &Table) -> Option<&TableCensus> {
        self.census.as_ref()?.0.counted.table(table.id)
    }

    /// Of the judged tables that hold or held anything and can be looked into, the fullest.
    pub fn fullest(&self) -> Option<&Table> {
        let there = |table: &&Table| {
            table.is_judged && table.access != Access::Unseen && table.is_tracking()
        };
        let tables = self.tables.iter().filter(there);
        tables.max_by_key(|table| table.entries)
    }
}

impl Table {
    /// It is there, and how many entries it holds is not known: nothing can be said of it.
    pub fn is_unknown(&self) -> bool {
        self.access != Access::Unseen && self.entries.is_none()
    }

    /// Whether anything was ever tracked here, or anything happens.
    pub fn is_tracking(&self) -> bool {
        let figures = [&self.insertions, &self.removals, &self.invalid];
        let drops = self.drops.named();
        let evictions = self.evictions.named();
        let mut all = figures
            .into_iter()
            .chain(drops.iter().map(|(_, figure)| *figure))
            .chain(evictions.iter().map(|(_, figure)| *figure));
        self.entries.is_some_and(|entries| entries > 0)
            || all.any(|figure| figure.total.is_some_and(|total| total > 0))
    }
}
