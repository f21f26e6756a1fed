//! From one sample after another to snapshots, of all namespaces together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ctwatch_abi::{
    Count, HostCount, NetnsId,
    top::{By, Stream},
};

use super::{
    census::Taken,
    figure::{Exactness, Figure},
    ledger::Machine,
    planes::{Doubts, Planes},
    snapshot::{GoneTables, Snapshot, Table},
    table_state::TableState,
    talkers::{self, Begun, Talkers},
    top::{Context, Listing, Names, Strangers},
};
use crate::record::{
    counters::EntryCounts,
    sample::{Misses, Probed, Sample},
};

/// So many namespaces that are gone are kept for the summary.
const MAX_DEPARTED: usize = 256;
/// And so many of them with their lists.
const MAX_LISTED: usize = 100;

/// Turns samples into snapshots.
#[derive(Clone, Debug, Default)]
pub struct Model {
    last: Option<Duration>,
    no_memory: u64,
    counts_entries: bool,
    tables: BTreeMap<NetnsId, TableState>,
    forgotten: u64,
    /// Of those that are kept no more.
    gone: GoneTables,
    talkers: Talkers,
    planes: Planes,
    listing: Listing,
    /// The last census, and the time of the sample before it.
    census: Option<(Arc<Taken>, Duration)>,
}

impl Model {
    /// With top lists of so many entries, by each of these.
    pub fn with_tops(most: usize, by: &[By]) -> Self {
        let listing = Listing { by: by.to_vec(), most, seconds: None };
        Self { listing, ..Self::default() }
    }

    /// Takes in a census, between two samples.
    pub fn take_in(&mut self, census: Arc<Taken>) {
        self.census = Some((census, self.last.unwrap_or_default()));
    }

    /// Takes in the next sample. The first one is the start: totals count from there.
    pub fn advance(&mut self, sample: &Sample) -> Snapshot {
        let interval = self.last.map(|last| sample.elapsed.saturating_sub(last));
        let machine = self.see(sample);
        let seconds = interval.map(|interval| interval.as_secs_f64());
        // Nothing is new of those: their lists too are as they were.
        let idle = self.tables.iter().filter(|(_, state)| state.is_as_it_was());
        let idle: HashSet<NetnsId> = idle.map(|(id, _)| *id).collect();
        let mut talking = self.talkers.advance(sample, seconds, &idle);
        self.talkers.passed_over(|stream| passed_over(sample, stream));
        talking.begun = self.talkers.begun().to_vec();
        self.planes.advance(sample, seconds);
        self.listing.seconds = seconds;
        let Self { tables, planes, listing, .. } = self;
        let of_strangers = machine.of_strangers(sample);
        let mut tables: Vec<Table> = tables
            .values_mut()
            .filter_map(|state| {
                let machine =
                    if state.sample.owner.is_stranger() { &of_strangers } else { &machine };
                let is_as_it_was = state.is_as_it_was();
                state.keep_lists(|list| {
                    talking.begun.iter().any(|begun| begun.stream == list.stream && !begun.now)
                });
                let table = state.table(sample, machine, seconds);
                for begun in talking.begun.iter().filter(|begun| begun.now && !begun.at_start) {
                    state.begin_list(begun.stream, table.as_ref());
                }
                let mut table = table?;
                if is_as_it_was {
                    return Some(table);
                }
                let strangers = state.strangers(machine);
                // What the probes were not run for is in no list either.
                let unseen = state.totals.as_ref().map_or(0, |totals| totals.unseen);
                let missed = |stream: Stream| match stream {
                    Stream::Drops => unseen,
                    Stream::Insertions => machine.missed.insertions.unwrap_or(0),
                };
                let at_most = |figure: &Figure| {
                    figure.total.filter(|_| figure.exactness != Exactness::LowerBound)
                };
                let meanwhile = state.meanwhile;
                let before = state.unlisted;
                let since = |stream: Stream, total: Option<u64>| match stream {
                    Stream::Drops => total.map(|total| total.saturating_sub(before.0)),
                    Stream::Insertions => total.map(|total| total.saturating_sub(before.1)),
                };
                let begun = |stream: Stream| talking.begun.iter().find(|b| b.stream == stream);
                let context = |stream: Stream, by: By| Context {
                    at_most: since(
                        stream,
                        match stream {
                            Stream::Drops => at_most(&table.drops.table_full),
                            Stream::Insertions => at_most(&table.insertions),
                        },
                    ),
                    meanwhile: match stream {
                        // Lists that began later count from a reading of their own.
                        _ if begun(stream).is_some_and(|begun| !begun.at_start) => 0,
                        Stream::Drops => meanwhile.0,
                        Stream::Insertions => meanwhile.1,
                    },
                    total: since(
                        stream,
                        match stream {
                            Stream::Drops => table.drops.table_full.total,
                            Stream::Insertions => table.insertions.total,
                        },
                    ),
                    unlisted: begun(stream)
                        .map_or(0, |begun| unlisted(sample, begun, by))
                        .saturating_add(missed(stream)),
                    per_s: match stream {
                        Stream::Drops => table.drops.table_full.per_s,
                        Stream::Insertions => table.insertions.per_s,
                    },
                    strangers: match stream {
                        Stream::Drops => strangers,
                        Stream::Insertions => Strangers::default(),
                    },
                };
                let names =
                    Names { interfaces: &state.sample.interfaces, cgroups: &sample.cgroups };
                let lists = talking.lists(table.id, listing, names, context);
                table.top = lists;
                let unwatched = match machine.counted.refusals {
                    true => machine.missed.refusals,
                    false => machine.missed.drops,
                };
                let may_miss = unseen > 0 || unwatched != Some(0);
                let doubts = Doubts { strangers, meanwhile: meanwhile.0, may_miss };
                table.control_plane = planes.of(table.id, talking.planes(table.id), doubts);
                state.is_fresh = false;
                if table.is_gone {
                    state.depart(&table);
                } else {
                    state.last = Some(Box::new((table.clone(), sample.elapsed)));
                }
                Some(table)
            })
            .collect();
        tables.sort_by_key(|table| !table.is_judged);
        self.last = Some(sample.elapsed);
        self.forget_departed();
        if tables.iter().any(|table| table.is_gone) {
            self.forget_lists();
        }
        let departed = self.tables.values().filter_map(|state| state.departed.clone());
        let departed: Vec<Arc<Table>> = departed.collect();
        let mut gone = self.gone;
        departed.iter().for_each(|table| gone.add(table));
        let now: HashSet<NetnsId> =
            tables.iter().filter(|table| table.is_gone).map(|table| table.id).collect();
        Snapshot {
            departed: departed.into_iter().filter(|table| !now.contains(&table.id)).collect(),
            gone,
            time: sample.time,
            interval: interval.unwrap_or_default(),
            elapsed: sample.elapsed,
            lost: self.lost(sample),
            unplaced_of_others: unplaced_of_others(sample),
            tables,
            forgotten: self.forgotten,
            lists_since: talking.begun.iter().map(|begun| (begun.stream, begun.since)).collect(),
            census: self
                .census
                .as_ref()
                .map(|(census, at)| (census.clone(), sample.elapsed.saturating_sub(*at))),
        }
    }

    fn see(&mut self, sample: &Sample) -> Machine {
        let first = self.last.is_none();
        let machine = self.machine(sample);
        self.tables.values_mut().for_each(|state| state.spoken_of = false);
        let of_strangers = machine.of_strangers(sample);
        for table in &sample.tables {
            let machine = if table.owner.is_stranger() { &of_strangers } else { &machine };
            match self.tables.get_mut(&table.id) {
                Some(state) => state.see(table, machine, self.no_memory),
                None => {
                    let state = TableState::new(table, !first, machine, self.no_memory);
                    self.tables.insert(table.id, state);
                }
            }
        }
        for idle in &sample.idle {
            if let Some(state) = self.tables.get_mut(&idle.id) {
                (state.spoken_of, state.age) = (true, idle.age);
            }
        }
        for state in self.tables.values_mut().filter(|state| !state.spoken_of) {
            state.lose_sight();
        }
        machine
    }

    fn machine(&mut self, sample: &Sample) -> Machine {
        self.counts_entries |= sample.tables.iter().any(|table| {
            let both = table.entries.zip(table.counters.as_ref());
            both.is_some_and(|(entries, sums)| EntryCounts::of(entries, sums) == EntryCounts::Agree)
        });
        let counts_entries = self.counts_entries;
        let Some(Probed { host, counted, misses, .. }) = sample.probed else {
            return Machine { counts_entries, ..Machine::default() };
        };
        // What the program was not run for may have been a refusal.
        let no_memory =
            misses.page_allocations.map(|missed| missed + host.get(HostCount::NoMemory));
        let before = self.no_memory;
        self.no_memory = no_memory.unwrap_or(before);
        let plus = |missed: Option<u64>, unplaced: &[HostCount]| {
            missed.map(|missed| missed + unplaced.iter().map(|count| host.get(*count)).sum::<u64>())
        };
        Machine {
            no_memory: no_memory.map(|now| now.saturating_sub(before)),
            counts_entries,
            counted,
            missed: Misses {
                drops: plus(misses.drops, &[HostCount::UnplacedDrops]),
                refusals: plus(misses.refusals, &[HostCount::UnplacedRefusals]),
                clashes: plus(misses.clashes, &[HostCount::UnplacedClashes]),
                insertions: plus(misses.insertions, &[HostCount::UnplacedInsertions]),
                ends: plus(
                    misses.ends,
                    &[
                        HostCount::UnplacedEnds,
                        HostCount::UnplacedEndsMissed,
                        HostCount::DoubtfulEnds,
                    ],
                ),
                ..misses
            },
        }
    }

    /// Refusals that the counters know of and the probes do not; insertions and ends that the
    /// kernel says they missed; and all that they could not place.
    fn lost(&self, sample: &Sample) -> u64 {
        let Probed { host, misses, strangers_rest: rest, .. } = sample.probed.unwrap_or_default();
        let unplaced = [
            HostCount::UnplacedDrops,
            HostCount::UnplacedEnds,
            HostCount::UnplacedEndsMissed,
            HostCount::UnplacedRefusals,
            HostCount::UnplacedClashes,
            HostCount::UnplacedInsertions,
        ];
        let unseen = |strangers: bool| {
            let of = self.tables.values().filter(|s| s.sample.owner.is_stranger() == strangers);
            of.filter_map(|state| state.totals.as_ref()).map(|totals| totals.unseen).sum::<u64>()
        };
        // What had no room was seen.
        let refused = [
            Count::DroppedUntracked,
            Count::DroppedUnconfirmed,
            Count::TableFull,
            Count::Clash,
            Count::NatExhausted,
        ];
        let rest = refused.map(|count| rest.get(count)).iter().sum();
        unseen(false)
            + unseen(true).saturating_sub(rest)
            + misses.insertions.unwrap_or(0)
            + misses.ends.unwrap_or(0)
            + unplaced.map(|count| host.get(count)).iter().sum::<u64>()
    }

    /// Most of the memory that a namespace takes is its lists: of those that are gone, the worst keep
    /// them.
    fn forget_lists(&mut self) {
        let mut departed: Vec<&mut Arc<Table>> =
            self.tables.values_mut().filter_map(|state| state.departed.as_mut()).collect();
        departed.retain(|table| !table.top.is_empty());
        departed.sort_by_key(|table| Reverse((table.is_judged, table.dropped.total)));
        for table in departed.into_iter().skip(MAX_LISTED) {
            Arc::make_mut(table).top = Vec::new();
        }
    }

    fn forget_departed(&mut self) {
        // One that is hidden and counts is still spoken of, and would be taken for a new one.
        let departed = self.tables.iter().filter(|(_, state)| !state.spoken_of);
        let mut departed: Vec<_> =
            departed.map(|(key, state)| (state.sample.is_judged, *key)).collect();
        // However many others there were, the host's are remembered.
        departed.sort_unstable();
        let keys: Vec<_> = departed.into_iter().map(|(_, key)| key).collect();
        for key in keys.iter().take(keys.len().saturating_sub(MAX_DEPARTED)) {
            let state = self.tables.remove(key);
            let last = state.as_ref().and_then(|state| match &state.departed {
                Some(table) => Some(&**table),
                None => state.last.as_ref().map(|last| &last.0),
            });
            last.inspect(|table| self.gone.add(table));
            self.planes.forget(*key);
            self.forgotten += 1;
        }
    }
}

/// Events that this list has no entry for, because it was not found out whose they were.
fn unlisted(sample: &Sample, begun: &Begun, by: By) -> u64 {
    let stream = begun.stream;
    // What came in by an interface is no process' of this host.
    let by = if by == By::Process { By::Interface } else { by };
    let list = sample.tops.iter().find(|list| (list.stream, list.by) == (stream, by));
    list.map_or(0, |list| match talkers::told(sample, stream) {
        None => happened(sample, stream).saturating_sub(list.offered),
        Some(told) => {
            let passed_over = passed_over(sample, stream) - begun.passed_over;
            let passed_over = u64::try_from(passed_over.max(0)).unwrap_or(u64::MAX);
            passed_over.saturating_add(told.taken.saturating_sub(list.offered))
        }
    })
}

/// All events of a stream that were counted.
fn happened(sample: &Sample, stream: Stream) -> u64 {
    let Some(probed) = sample.probed else { return 0 };
    probed.everywhere.get(match stream {
        Stream::Drops if probed.counted.refusals => Count::TableFull,
        Stream::Drops => Count::DroppedUntracked,
        Stream::Insertions => Count::Inserted,
    })
}

/// Those of them that did not come to the budget.
fn passed_over(sample: &Sample, stream: Stream) -> i128 {
    talkers::told(sample, stream)
        .map_or(0, |told| i128::from(happened(sample, stream)) - i128::from(told.considered))
}

fn unplaced_of_others(sample: &Sample) -> u64 {
    let rest = sample.probed.unwrap_or_default().strangers_rest;
    let counts = [
        Count::DroppedUntracked,
        Count::DroppedUnconfirmed,
        Count::TableFull,
        Count::TableFullCtnetlink,
        Count::Clash,
        Count::NatExhausted,
        Count::Inserted,
    ];
    counts.map(|count| rest.get(count)).iter().sum::<u64>() + rest.ended()
}
