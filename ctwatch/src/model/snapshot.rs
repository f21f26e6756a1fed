//! What every output renders.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use ctwatch_abi::{
    Count, HostCount, NetnsId, NetnsTally,
    top::{By, Stream},
};

use super::{
    census::{TableCensus, Taken},
    figure::{Bounds, Exactness, Figure},
    ledger::{Ledger, Machine, RunningTotals},
    planes::{ControlPlane, Doubts, Planes},
    top::{self, Begun, Context, Listing, Names, Strangers, Talkers, TopList},
    trend::{Trend, time_to_full},
};
use crate::record::{
    sample::{Access, EntryCounts, HookReadings, Misses, Owner, Probed, Sample, TableSample},
    workload::Workload,
};

/// Above this fill the kernel's garbage collector removes entries before their time (Linux 6.0).
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
const PRESSED: f64 = 0.95;
/// So many namespaces that are gone are kept for the summary.
const MAX_DEPARTED: usize = 256;
/// And so many of them with their lists.
const MAX_LISTED: usize = 100;

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
    fn add(&mut self, table: &Table) {
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
    reading: Arc<TableReading>,
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

/// Turns samples into snapshots.
#[derive(Clone, Debug, Default)]
pub struct Model {
    last: Option<Duration>,
    no_memory: u64,
    counts_entries: bool,
    tables: BTreeMap<NetnsId, State>,
    forgotten: u64,
    /// Of those that are kept no more.
    gone: GoneTables,
    talkers: Talkers,
    planes: Planes,
    listing: Listing,
    /// The last census, and the time of the sample before it.
    census: Option<(Arc<Taken>, Duration)>,
}

#[derive(Clone, Debug)]
struct State {
    ledger: Ledger,
    trend: Trend,
    totals: Option<RunningTotals>,
    saturated: bool,
    /// What the probes had seen before the first reading: totals count from there.
    dropped_before: u64,
    /// Refusals and insertions that the probes saw while it was first read: totals began among them.
    meanwhile: (u64, u64),
    /// Drops and insertions that were counted before their lists began to.
    unlisted: (u64, u64),
    /// What a rule has certainly dropped, at the last sample.
    surely_strangers: u64,
    /// What the probes had seen at the last sample, before anything else of it was read.
    dropped_at: u64,
    sample: TableSample,
    /// The last sample spoke of it.
    spoken_of: bool,
    /// How long before the last sample it was read.
    age: Duration,
    /// Something is known that `last` does not hold yet.
    is_fresh: bool,
    /// What was shown of it, and when that was read.
    last: Option<Box<(Table, Duration)>>,
    /// How often no memory was to be had, at its last reading.
    no_memory_at: u64,
    /// Since when nothing leads to it, and what the probes had counted in it by then or since.
    unseen: Option<(Duration, NetnsTally)>,
    /// As it was when it had gone.
    departed: Option<Arc<Table>>,
}

/// A namespace that nothing leads to any more still holds entries, or counts, until the kernel has
/// taken it down; where that cannot be seen, it is given so long.
const TAKEN_DOWN: Duration = Duration::from_secs(10);
/// And this long where all that was last seen in it has ended: more may have come since.
const SETTLED: Duration = Duration::from_secs(1);

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
                let mut table = state.table(sample, machine, seconds)?;
                for begun in talking.begun.iter().filter(|begun| begun.now && !begun.at_start) {
                    state.begin_list(begun.stream, &table);
                }
                if is_as_it_was {
                    let is_kept = |list: &TopList| {
                        talking.begun.iter().any(|begun| begun.stream == list.stream && !begun.now)
                    };
                    table.top.retain(is_kept);
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

    /// Takes in a sample that is not shown: counters are to be read before they can have gone all the
    /// way round, which is [`KEPT_UP`](super::KEPT_UP).
    pub fn keep_up(&mut self, sample: &Sample) {
        self.see(sample);
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
                    let state = State::new(table, !first, machine, self.no_memory);
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
            let both = table.entries.zip(table.counters.as_deref());
            both.is_some_and(|(entries, cpus)| EntryCounts::of(entries, cpus) == EntryCounts::Agree)
        });
        let counts_entries = self.counts_entries;
        let Some(Probed { host, counted, misses, .. }) = sample.probed else {
            return Machine { counts_entries, at: sample.elapsed, ..Machine::default() };
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
            at: sample.elapsed,
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
    list.map_or(0, |list| match top::told(sample, stream) {
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
    top::told(sample, stream)
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

fn dropped_untracked(tally: Option<NetnsTally>) -> u64 {
    tally.map_or(0, |tally| tally.get(Count::DroppedUntracked))
}

impl State {
    fn new(sample: &TableSample, new: bool, machine: &Machine, no_memory: u64) -> Self {
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

    fn see(&mut self, sample: &TableSample, machine: &Machine, no_memory: u64) {
        // Since it was last read, which may have been some samples ago.
        let short = machine.no_memory.map(|_| no_memory.saturating_sub(self.no_memory_at));
        self.ledger.enter(sample, &Machine { no_memory: short, ..*machine });
        self.no_memory_at = no_memory;
        self.sample = sample.clone();
        self.spoken_of = true;
        (self.age, self.is_fresh) = (Duration::ZERO, true);
    }

    /// The lists of a stream begin to count now. What happened while this was read may be in them, and in
    /// what was counted before.
    fn begin_list(&mut self, stream: Stream, table: &Table) {
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
    fn strangers(&mut self, machine: &Machine) -> Strangers {
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
    fn depart(&mut self, table: &Table) {
        self.departed = Some(Arc::new(table.clone()));
        self.last = None;
        self.trend = Trend::default();
        self.sample.interfaces = Vec::new();
    }

    /// Until this reading says otherwise, the namespace is gone.
    fn lose_sight(&mut self) {
        self.is_fresh = true;
        self.age = Duration::ZERO;
        self.sample.access = Access::Unseen;
        self.sample.entries = None;
        self.sample.counters = None;
    }

    /// `None` where it was gone before.
    fn table(&mut self, sample: &Sample, machine: &Machine, seconds: Option<f64>) -> Option<Table> {
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
    fn is_as_it_was(&self) -> bool {
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
