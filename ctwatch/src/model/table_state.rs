//! One namespace: from its samples to its table.

use std::{sync::Arc, time::Duration};

use ctwatch_abi::{Count, NetnsTally, top::Stream};

use super::{
    figure::{Bounds, Figure},
    ledger::{Ledger, Machine, RunningTotals},
    snapshot::{Change, Drops, Evictions, Table, TableReading},
    top::{Strangers, TopList},
    trend::{Trend, time_to_full},
};
use crate::record::sample::{Access, HookReadings, Sample, TableSample};

/// Above this fill the kernel's garbage collector removes entries before their time (Linux 6.0).
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
const PRESSED: f64 = 0.95;
/// A namespace that nothing leads to any more still holds entries, or counts, until the kernel has
/// taken it down; where that cannot be seen, it is given so long.
const TAKEN_DOWN: Duration = Duration::from_secs(10);
/// And this long where all that was last seen in it has ended: more may have come since.
const SETTLED: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct TableState {
    ledger: Ledger,
    trend: Trend,
    pub(super) totals: Option<RunningTotals>,
    saturated: bool,
    /// What the probes had seen before the first reading: totals count from there.
    dropped_before: u64,
    /// Refusals and insertions that the probes saw while it was first read: totals began among them.
    pub(super) meanwhile: (u64, u64),
    /// Drops and insertions that were counted before their lists began to.
    pub(super) unlisted: (u64, u64),
    /// What a rule has certainly dropped, at the last sample.
    surely_strangers: u64,
    /// What the probes had seen at the last sample, before anything else of it was read.
    dropped_at: u64,
    pub(super) sample: TableSample,
    /// The last sample spoke of it.
    pub(super) spoken_of: bool,
    /// How long before the last sample it was read.
    pub(super) age: Duration,
    /// Something is known that `last` does not hold yet.
    pub(super) is_fresh: bool,
    /// What was shown of it, and when that was read.
    pub(super) last: Option<Box<(Table, Duration)>>,
    /// How often no memory was to be had, at its last reading.
    no_memory_at: u64,
    /// Since when nothing leads to it, and what the probes had counted in it by then or since.
    unseen: Option<(Duration, NetnsTally)>,
    /// As it was when it had gone.
    pub(super) departed: Option<Arc<Table>>,
}

fn dropped_untracked(tally: Option<NetnsTally>) -> u64 {
    tally.map_or(0, |tally| tally.get(Count::DroppedUntracked))
}

impl TableState {
    pub(super) fn new(sample: &TableSample, new: bool, machine: &Machine, no_memory: u64) -> Self {
        Self {
            age: Duration::ZERO,
            is_fresh: true,
            last: None,
            no_memory_at: no_memory,
            unseen: None,
            departed: None,
            ledger: Ledger::open(sample, new, machine),
            trend: Trend::default(),
            totals: None,
            saturated: false,
            dropped_before: match new {
                true => 0,
                false => dropped_untracked(sample.hooks.map(|hooks| hooks.before)),
            },
            meanwhile: match (new, sample.hooks) {
                (false, Some(HookReadings { before, after })) => {
                    let of = |count| after.get(count).saturating_sub(before.get(count));
                    let refused = of(Count::DroppedUntracked) + of(Count::TableFull);
                    (refused, of(Count::Inserted))
                }
                _ => (0, 0),
            },
            unlisted: (0, 0),
            surely_strangers: 0,
            dropped_at: 0,
            sample: sample.clone(),
            spoken_of: true,
        }
    }

    pub(super) fn see(&mut self, sample: &TableSample, machine: &Machine, no_memory: u64) {
        // Since it was last read, which may have been some samples ago.
        let short = machine.no_memory.map(|_| no_memory.saturating_sub(self.no_memory_at));
        self.ledger.enter(sample, &Machine { no_memory: short, ..*machine });
        self.no_memory_at = no_memory;
        self.sample = sample.clone();
        self.spoken_of = true;
        (self.age, self.is_fresh) = (Duration::ZERO, true);
    }

    /// Of what is shown until it is read again. A list that ended counts from zero when it begins again.
    pub(super) fn keep_lists(&mut self, is_kept: impl Fn(&TopList) -> bool) {
        if let Some((table, _)) = self.last.as_deref_mut()
            && !table.top.iter().all(&is_kept)
        {
            table.top.retain(is_kept);
        }
    }

    /// The lists of a stream begin to count now. What happened while this was read may be in them, and in
    /// what was counted before. `None`: it was gone before, and may only be hidden.
    pub(super) fn begin_list(&mut self, stream: Stream, table: Option<&Table>) {
        let departed = self.departed.clone();
        let Some(table) = table.or(departed.as_deref()) else { return };
        let hooks = self.sample.hooks.unwrap_or_default();
        let meanwhile = |count| hooks.after.get(count).saturating_sub(hooks.before.get(count));
        let before = |figure: &Figure, meanwhile: u64| {
            figure.at_least.unwrap_or(0).saturating_sub(meanwhile)
        };
        match stream {
            Stream::Drops => {
                let now = meanwhile(Count::DroppedUntracked) + meanwhile(Count::TableFull);
                self.unlisted.0 = before(&table.drops.table_full, now);
            }
            Stream::Insertions => {
                self.unlisted.1 = before(&table.insertions, meanwhile(Count::Inserted));
            }
        }
    }

    /// Packets among the refused that a rule may have dropped: where the probes cannot tell.
    pub(super) fn strangers(&mut self, machine: &Machine) -> Strangers {
        let Some(hooks) = self.sample.hooks.filter(|_| machine.counted.drops) else {
            return Strangers::default();
        };
        let since = |tally| dropped_untracked(Some(tally)).saturating_sub(self.dropped_before);
        let refused = self.totals.map(|totals| totals.reasons.table_full);
        let least = refused.and_then(Bounds::least).unwrap_or(0);
        let in_all = since(hooks.after).saturating_sub(least);
        let meanwhile = since(hooks.after).saturating_sub(self.dropped_at);
        self.dropped_at = since(hooks.before);
        // A doubt about what was before is none about what is now.
        let others = meanwhile.saturating_sub(self.ledger.take_certain_now());
        let now = in_all.saturating_sub(self.surely_strangers).min(others);
        if let Some(Bounds::Within { at_most: Some(most), .. }) = refused {
            self.surely_strangers = since(hooks.before).saturating_sub(most);
        }
        Strangers { in_all, now }
    }

    /// It has gone, as this: little is kept of it.
    pub(super) fn depart(&mut self, table: &Table) {
        self.departed = Some(Arc::new(table.clone()));
        self.last = None;
        self.trend = Trend::default();
        self.sample.interfaces = Vec::new();
    }

    /// Until this reading says otherwise, the namespace is gone.
    pub(super) fn lose_sight(&mut self) {
        self.is_fresh = true;
        self.age = Duration::ZERO;
        self.sample.access = Access::Unseen;
        self.sample.entries = None;
        self.sample.counters = None;
    }

    /// `None` where it was gone before.
    pub(super) fn table(
        &mut self,
        sample: &Sample,
        machine: &Machine,
        seconds: Option<f64>,
    ) -> Option<Table> {
        let is_gone = self.is_gone(sample.elapsed);
        if is_gone && self.departed.is_some() {
            return None;
        }
        self.departed = None;
        if let Some(last) = self.last.as_ref().filter(|_| self.is_as_it_was()) {
            return Some(Table { age: self.age, is_gone, change: None, ..last.0.clone() });
        }
        Some(Table { is_gone, ..self.read(sample, machine, seconds) })
    }

    /// It was not read since it was last shown, and is there.
    pub(super) fn is_as_it_was(&self) -> bool {
        !self.is_fresh && self.last.is_some() && self.sample.access != Access::Unseen
    }

    /// Nothing leads to it, and either it is known to have been taken down or nothing has happened in it
    /// for a while.
    fn is_gone(&mut self, now: Duration) -> bool {
        if self.sample.access != Access::Unseen {
            self.unseen = None;
            return false;
        }
        // Without probes nothing more can come.
        let Some(counted) = self.sample.hooks.map(|hooks| hooks.after) else { return true };
        match self.unseen {
            Some((since, before)) if before == counted => {
                let quiet_for = now.saturating_sub(since);
                quiet_for >= TAKEN_DOWN
                    || quiet_for >= SETTLED && self.ledger.is_taken_down(&self.sample)
            }
            _ => {
                self.unseen = Some((now, counted));
                false
            }
        }
    }

    fn read(&mut self, sample: &Sample, machine: &Machine, seconds: Option<f64>) -> Table {
        let totals = self.ledger.totals(&self.sample, machine);
        let entries = self.sample.entries;
        if let Some(entries) = entries {
            self.trend.push(sample.elapsed, entries);
        }
        let limit = sample.limit;
        let fill = entries.zip(limit).and_then(|(entries, limit)| {
            (limit > 0).then(|| f64::from(entries) / f64::from(limit))
        });
        let trend_per_s = entries.and_then(|_| self.trend.per_s());
        let change = self.turn(&totals, fill);
        // What was counted in a new namespace before its first snapshot was counted since the one
        // before: it was not there then.
        let before = self.totals.replace(totals);
        // What the probes count happened since the sample before; other things since this was read.
        let since = self.last.as_ref().zip(seconds);
        let since = since.map(|(last, _)| sample.elapsed.saturating_sub(last.1).as_secs_f64());
        let unprobed = since.or(seconds);
        let rated = |of: fn(&RunningTotals) -> Bounds, seconds| {
            let last = before.as_ref().map_or(Some(0), |before| of(before).total());
            of(&totals).figure(last, seconds)
        };
        let probed = |is: bool| if is { seconds } else { unprobed };
        let counted = machine.counted;
        let inserted = probed(counted.insertions);
        let removed = probed(counted.ends);
        let drops = probed(counted.drops);
        let refused = probed(counted.drops || counted.refusals);
        let confirmed = probed(counted.drops || counted.clashes);
        let dropped = |of| rated(of, drops);
        let reading = TableReading {
            id: self.sample.id,
            inode: self.sample.inode,
            name: self.sample.name.clone(),
            workload: self.sample.workload.clone(),
            owner: self.sample.owner.clone(),
            is_judged: self.sample.is_judged,
            access: self.sample.access,
            unread: self.sample.unread.clone(),
            entries,
            limit,
            buckets: sample.buckets,
            fill,
            trend_per_s,
            time_to_full_s: entries
                .zip(trend_per_s)
                .and_then(|(entries, per_s)| time_to_full(entries, limit, per_s)),
            insertions: rated(|totals| totals.insertions, inserted),
            removals: rated(|totals| totals.removals, removed),
            dropped: dropped(|totals| totals.reasons.dropped),
            drops: Drops {
                table_full: rated(|totals| totals.reasons.table_full, refused),
                no_memory: dropped(|totals| totals.reasons.no_memory),
                clash: rated(|totals| totals.reasons.clash, confirmed),
                chain_too_long: dropped(|totals| totals.reasons.chain_too_long),
                nat_exhausted: rated(|totals| totals.reasons.nat_exhausted, confirmed),
                tracker: dropped(|totals| totals.reasons.tracker),
                clash_or_nat_exhausted: rated(
                    |totals| totals.reasons.clash_or_nat_exhausted,
                    confirmed,
                ),
            },
            evictions: Evictions {
                early_drop: rated(|totals| totals.reasons.early_drop, removed),
                gc: Bounds::Unmeasured.figure(None, None),
            },
            invalid: rated(|totals| totals.reasons.invalid, unprobed),
            refused_ctnetlink: rated(|totals| totals.refused_ctnetlink, refused),
            saturated: self.saturated,
            top: Vec::new(),
            control_plane: Vec::new(),
        };
        Table { age: Duration::ZERO, is_gone: false, change, reading: Arc::new(reading) }
    }

    /// Saturated: full, or refusing, or evicting to make room. Over when none of it happens any
    /// more and the table is below the mark at which the kernel still collects early.
    fn turn(&mut self, totals: &RunningTotals, fill: Option<f64>) -> Option<Change> {
        let grew = |of: fn(&RunningTotals) -> Option<u64>| {
            let before = self.totals.as_ref().map_or(Some(0), of).unwrap_or(0);
            of(totals).is_some_and(|now| now > before)
        };
        let refusing = grew(|totals| totals.reasons.table_full.least())
            // An upper bound alone (a raw-table rule drops, perhaps) is not enough to cry out.
            || (fill.is_some_and(|fill| fill >= PRESSED)
                && grew(|totals| totals.reasons.table_full.total()));
        let evicting = grew(|totals| totals.reasons.early_drop.least());
        let full = fill.is_some_and(|fill| fill >= 1.0);
        let pressed = full || refusing || evicting;
        match (self.saturated, pressed) {
            (false, true) => {
                self.saturated = true;
                Some(Change::Saturated)
            }
            (true, false) if fill.is_none_or(|fill| fill < PRESSED) => {
                self.saturated = false;
                Some(Change::Recovered)
            }
            _ => None,
        }
    }
}
