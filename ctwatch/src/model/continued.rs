//! Counts as a time series database wants them: they never fall. They run on when conntrack is unloaded and loaded
//! again, and what was counted in a namespace that is gone stays in the sum of those that are.
//!
//! A count is what is certain of it. How much more it may have been is a number of its own, because an upper
//! bound can shrink, and a database takes a count that shrinks for a restart.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use ctwatch_abi::{NetnsId, plane::Plane, top::Stream};

use super::{
    Snapshot, Table,
    figure::{Bounds, Figure},
    series_names::SeriesNames,
};

/// So many namespaces have series of their own. Those beyond are summed, until they go.
pub const MOST_SERIES: usize = 1000;
/// One that was hidden may be seen again: so many that went are known again then.
const MOST_DEPARTED: usize = 256;

/// What is counted in each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    Insertions,
    Removals,
    Dropped,
    TableFull,
    NoMemory,
    Clash,
    ChainTooLong,
    NatExhausted,
    Tracker,
    ClashOrNatExhausted,
    EarlyDrop,
    Gc,
    Invalid,
    RefusedCtnetlink,
}

const METERED: usize = 14;
const PLANES: usize = Plane::EACH.len();

impl Meter {
    pub const ALL: [Self; METERED] = [
        Self::Insertions,
        Self::Removals,
        Self::Dropped,
        Self::TableFull,
        Self::NoMemory,
        Self::Clash,
        Self::ChainTooLong,
        Self::NatExhausted,
        Self::Tracker,
        Self::ClashOrNatExhausted,
        Self::EarlyDrop,
        Self::Gc,
        Self::Invalid,
        Self::RefusedCtnetlink,
    ];
    /// Each reason of a drop, and two of them together.
    pub const DROPS: [Self; 7] = [
        Self::TableFull,
        Self::NoMemory,
        Self::Clash,
        Self::ChainTooLong,
        Self::NatExhausted,
        Self::Tracker,
        Self::ClashOrNatExhausted,
    ];
    pub const EVICTIONS: [Self; 2] = [Self::EarlyDrop, Self::Gc];

    /// As every output calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insertions => "insertions",
            Self::Removals => "removals",
            Self::Dropped => "dropped",
            Self::TableFull => "table_full",
            Self::NoMemory => "no_memory",
            Self::Clash => "clash",
            Self::ChainTooLong => "chain_too_long",
            Self::NatExhausted => "nat_exhausted",
            Self::Tracker => "tracker",
            Self::ClashOrNatExhausted => "clash_or_nat_exhausted",
            Self::EarlyDrop => "early_drop",
            Self::Gc => "gc",
            Self::Invalid => "invalid",
            Self::RefusedCtnetlink => "refused_ctnetlink",
        }
    }

    pub fn figure(self, table: &Table) -> &Figure {
        let (drops, evictions) = (&table.drops, &table.evictions);
        match self {
            Self::Insertions => &table.insertions,
            Self::Removals => &table.removals,
            Self::Dropped => &table.dropped,
            Self::TableFull => &drops.table_full,
            Self::NoMemory => &drops.no_memory,
            Self::Clash => &drops.clash,
            Self::ChainTooLong => &drops.chain_too_long,
            Self::NatExhausted => &drops.nat_exhausted,
            Self::Tracker => &drops.tracker,
            Self::ClashOrNatExhausted => &drops.clash_or_nat_exhausted,
            Self::EarlyDrop => &evictions.early_drop,
            Self::Gc => &evictions.gc,
            Self::Invalid => &table.invalid,
            Self::RefusedCtnetlink => &table.refused_ctnetlink,
        }
    }
}

/// So many are certain, and so many more there may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certain {
    pub count: u64,
    /// `None`: nothing says how many more.
    pub width: Option<u64>,
}

impl Certain {
    fn plus(self, other: Self) -> Self {
        let width = self.width.zip(other.width);
        Self {
            count: self.count.saturating_add(other.count),
            width: width.map(|(a, b)| a.saturating_add(b)),
        }
    }
}

/// All counts of one namespace, or of several; `None` where nothing measures it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meters {
    counts: [Option<Certain>; METERED],
    /// Packets of each control plane that were dropped.
    planes: Option<[u64; PLANES]>,
}

impl Meters {
    pub fn of(&self, what: Meter) -> Option<Certain> {
        self.counts[what as usize]
    }

    /// Each control plane, and what was dropped of it; nothing where they are not told apart.
    pub fn planes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let each = |planes: [u64; PLANES]| Plane::EACH.map(Plane::name).into_iter().zip(planes);
        self.planes.into_iter().flat_map(each)
    }

    /// Takes in what a table says now. What was certain once stays certain.
    fn see(&mut self, table: &Table, tells_planes: bool) {
        for what in Meter::ALL {
            let now = &mut self.counts[what as usize];
            *now = match what.figure(table).bounds() {
                Bounds::Unmeasured => None,
                Bounds::Within { at_least, at_most } => {
                    let count = now.map_or(at_least, |before| before.count.max(at_least));
                    Some(Certain { count, width: at_most.map(|most| most.saturating_sub(count)) })
                }
            };
        }
        if !tells_planes && table.control_plane.is_empty() {
            return;
        }
        let planes = self.planes.get_or_insert([0; PLANES]);
        for of in &table.control_plane {
            let at = Plane::EACH.into_iter().position(|plane| plane.name() == of.protocol);
            if let Some(now) = at.and_then(|at| planes.get_mut(at)) {
                *now = (*now).max(of.at_least);
            }
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum = match (*sum, *more) {
                (Some(sum), Some(more)) => Some(sum.plus(more)),
                (one, other) => one.or(other),
            };
        }
        if let Some(more) = other.planes {
            let sums = self.planes.get_or_insert([0; PLANES]);
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        }
    }

    /// Without what was counted elsewhere already.
    fn less(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (count, less) in rest.counts.iter_mut().zip(&other.counts) {
            if let (Some(count), Some(less)) = (count, less) {
                count.count = count.count.saturating_sub(less.count);
            }
        }
        if let (Some(counts), Some(less)) = (&mut rest.planes, other.planes) {
            counts
                .iter_mut()
                .zip(less)
                .for_each(|(count, less)| *count = count.saturating_sub(less));
        }
        rest
    }

    /// No count of the other is larger.
    fn is_beyond(&self, other: &Self) -> bool {
        let count = |of: &Option<Certain>| of.map_or(0, |certain| certain.count);
        self.counts.iter().zip(&other.counts).all(|(a, b)| count(a) >= count(b))
    }
}

/// The counts of one namespace, under the name of its series.
#[derive(Clone, Debug)]
pub struct Series {
    pub netns: NetnsId,
    pub name: Arc<str>,
    pub meters: Meters,
}

/// All of them at one moment.
#[derive(Clone, Debug, Default)]
pub struct AllSeries {
    /// Which life of the table it is, or was last; 0 before the first.
    pub epoch: u64,
    /// In the order of their names.
    pub own: Vec<Series>,
    /// Of namespaces beyond those that have series of their own, where there were any.
    pub more: Option<Meters>,
    /// Of those that are gone, where there are any.
    pub gone: Option<Meters>,
    pub gone_namespaces: u64,
    /// Namespaces that decide no alarm: they have no series.
    pub left_out: usize,
    /// Events that no probe saw.
    pub lost: u64,
}

#[derive(Clone, Debug)]
struct Place {
    /// `None`: it has no series of its own.
    name: Option<Arc<str>>,
    /// What was counted in lives of the table that are over.
    earlier: Meters,
    now: Meters,
    /// Of `now`, what the sum of those that are gone has already: it was hidden, and is seen again.
    handed_over: Meters,
}

impl Place {
    /// What is measured now; where conntrack is not there, what was measured last.
    fn shown(&self, is_living: bool) -> Meters {
        let mut shown = self.all();
        if is_living {
            let measured = shown.counts.iter_mut().zip(&self.now.counts);
            measured.filter(|(_, now)| now.is_none()).for_each(|(sum, _)| *sum = None);
        }
        shown
    }

    /// All that was ever counted, and is in no other sum.
    fn all(&self) -> Meters {
        let mut all = self.now.less(&self.handed_over);
        all.add(&self.earlier);
        all
    }
}

/// What is kept from one snapshot to the next.
#[derive(Clone, Debug, Default)]
pub struct Continued {
    epoch: u64,
    is_living: bool,
    places: BTreeMap<NetnsId, Place>,
    /// How many of them have series of their own.
    own: usize,
    names: SeriesNames,
    departed: VecDeque<(NetnsId, Meters)>,
    gone: Meters,
    gone_namespaces: u64,
    more: Option<Meters>,
    left_out: usize,
    lost: (u64, u64),
}

impl Continued {
    /// A life of the table begins.
    pub fn begin(&mut self) {
        self.end();
        self.is_living = true;
        self.epoch += 1;
    }

    /// It is over: what was counted in it stays.
    pub fn end(&mut self) {
        if !std::mem::take(&mut self.is_living) {
            return;
        }
        for place in self.places.values_mut() {
            place.earlier = place.all();
            (place.now, place.handed_over) = Default::default();
        }
        self.departed.clear();
        self.lost.0 += std::mem::take(&mut self.lost.1);
    }

    /// Takes in what there is now.
    pub fn advance(&mut self, snapshot: &Snapshot) {
        self.lost.1 = self.lost.1.max(snapshot.lost);
        self.left_out = snapshot.tables.iter().filter(|t| !t.is_judged && !t.is_gone).count();
        // What is told apart of the dropped tells control planes.
        let tells_planes = snapshot.lists_since.iter().any(|(of, _)| *of == Stream::Drops);
        let mut there = HashSet::new();
        for table in snapshot.tables.iter().filter(|table| table.is_judged) {
            if table.is_gone {
                // What was counted last.
                if let Some(place) = self.places.get_mut(&table.id) {
                    place.now.see(table, tells_planes);
                }
                continue;
            }
            there.insert(table.id);
            self.see(table, tells_planes);
        }
        let gone = self.places.keys().filter(|id| !there.contains(id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.depart(id);
        }
    }

    fn see(&mut self, table: &Table, tells_planes: bool) {
        let place = match self.places.get_mut(&table.id) {
            Some(place) => place,
            None => {
                let has_room = self.own < MOST_SERIES;
                self.own += usize::from(has_room);
                if !has_room && self.more.is_none() {
                    self.more = Some(Meters::default());
                }
                let mut now = Meters::default();
                now.see(table, tells_planes);
                let known = self.departed.iter().position(|(id, _)| *id == table.id);
                let known = known.and_then(|at| self.departed.remove(at));
                // Where it counts less now, it is another one under that number.
                let handed_over = known.map(|(_, meters)| meters);
                let handed_over = handed_over.filter(|before| now.is_beyond(before));
                let place = Place {
                    name: has_room.then(|| self.names.name(table)),
                    earlier: Meters::default(),
                    now: Meters::default(),
                    handed_over: handed_over.unwrap_or_default(),
                };
                self.places.entry(table.id).or_insert(place)
            }
        };
        place.now.see(table, tells_planes);
        if let Some(name) = &mut place.name {
            *name = self.names.name(table);
        }
    }

    fn depart(&mut self, id: NetnsId) {
        let Some(place) = self.places.remove(&id) else { return };
        self.names.forget(id);
        let meters = place.all();
        self.own -= usize::from(place.name.is_some());
        match (&place.name, &mut self.more) {
            (None, Some(more)) => more.add(&meters),
            _ => self.gone.add(&meters),
        }
        self.gone_namespaces += 1;
        self.departed.push_back((id, place.now));
        let more = self.departed.len().saturating_sub(MOST_DEPARTED);
        self.departed.drain(..more);
    }

    pub fn series(&self) -> AllSeries {
        let mut own = Vec::new();
        let mut more = self.more.clone();
        for (netns, place) in &self.places {
            let meters = place.shown(self.is_living);
            match (&place.name, &mut more) {
                (Some(name), _) => {
                    own.push(Series { netns: *netns, name: Arc::clone(name), meters });
                }
                (None, Some(more)) => more.add(&meters),
                (None, None) => {}
            }
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        AllSeries {
            epoch: self.epoch,
            own,
            more,
            gone: (self.gone_namespaces > 0).then(|| self.gone.clone()),
            gone_namespaces: self.gone_namespaces,
            left_out: self.left_out,
            lost: self.lost.0 + self.lost.1,
        }
    }
}
