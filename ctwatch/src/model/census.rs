//! Who holds the table: from single entries to what there is to say of all of them. Memory does
//! not grow with their number.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap, time::Duration};

use ctwatch_abi::{
    NetnsId,
    protocol::{SCTP, TCP},
    top::{By, Key, Seed, Set, Slot},
};

use serde::{Deserialize, Serialize};

mod focus;
mod joined;

use super::{figure::Exactness, ties::Ties, top::TopEntry};
use crate::record::{
    entry::{Held, Left, Status, states},
    nanoseconds,
    sample::Owner,
    workload::Workload,
};

/// Of each list, over all namespaces: 32,768 slots in 2.3 MB.
const SETS: usize = 4096;
/// Namespaces and zones that are told apart; what is beyond is counted, and said to be.
const MOST: usize = 16_384;

/// What the kernel does with an entry when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not assured: thrown out for a new one (`early_drop`).
    Reclaimable,
    /// Assured, and its connection is over but for the waiting: the garbage collector takes it
    /// when the table is more than 95% full.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_proto_tcp.c> `tcp_can_early_drop`
    Closing,
    /// Assured: stays until its time is over.
    Pinned,
    /// Its time is over: gone as soon as the garbage collector, or a packet of its chain, comes
    /// across it.
    Expired,
}

/// So many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    pub reclaimable: u64,
    pub closing: u64,
    pub pinned: u64,
    pub expired: u64,
    /// Of all of these: a flow table forwards their packets.
    pub offloaded: u64,
}

impl Holds {
    fn add(&mut self, hold: Hold, status: Status) {
        self.offloaded += u64::from(status.is_offloaded());
        match hold {
            Hold::Reclaimable => self.reclaimable += 1,
            Hold::Closing => self.closing += 1,
            Hold::Pinned => self.pinned += 1,
            Hold::Expired => self.expired += 1,
        }
    }

    pub fn all(&self) -> u64 {
        self.reclaimable + self.closing + self.pinned + self.expired
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            reclaimable: self.reclaimable + other.reclaimable,
            closing: self.closing + other.closing,
            pinned: self.pinned + other.pinned,
            expired: self.expired + other.expired,
            offloaded: self.offloaded + other.offloaded,
        }
    }
}

/// In place of a state: ctnetlink tells neither state nor time of an offloaded entry, and the flow
/// table keeps both as they are.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `nf_ct_offload_timeout`
const OFFLOADED: u8 = u8::MAX;

/// Where the protocol has no states of its own, whether an entry is assured is as good as one: its
/// time is another.
fn state_of(held: &Held) -> u8 {
    match held.key.protocol {
        _ if held.status.is_offloaded() => OFFLOADED,
        TCP | SCTP => held.state,
        _ => u8::from(held.status.is_assured()),
    }
}

/// The limits, in seconds, that every output shows: entries below them are counted exactly.
pub const LIMITS: [u32; 5] = [10, 60, 600, 3600, 86_400];

/// Whether the timeout of its state is what an entry lives by.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_proto_tcp.c>
/// `nf_conntrack_tcp_packet`
fn is_regular(held: &Held) -> bool {
    const ESTABLISHED: u8 = 3;
    let is_picked_up = (held.key.protocol, held.state) == (TCP, ESTABLISHED);
    !held.status.is_offloaded() && (held.status.is_replied() || !is_picked_up)
}

/// How long entries are still to live, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "WrittenLifetimes", into = "WrittenLifetimes")]
pub struct Lifetimes {
    /// Exact below 16 s; above that each power of two has 16 steps.
    steps: Vec<u32>,
    /// Between one of [`LIMITS`] and the next, which most steps end beside.
    columns: [u64; LIMITS.len() + 1],
    /// Of so many nothing is known; those that have expired are in neither.
    pub unknown: u64,
}

const FINE: u32 = 16;
const STEPS: usize = 16 + 28 * 16;

/// Most steps are empty.
#[derive(Serialize, Deserialize)]
struct WrittenLifetimes {
    steps: Vec<(u16, u32)>,
    columns: [u64; LIMITS.len() + 1],
    unknown: u64,
}

impl From<Lifetimes> for WrittenLifetimes {
    fn from(Lifetimes { steps, columns, unknown }: Lifetimes) -> Self {
        let steps = (0..).zip(steps).filter(|(_, count)| *count > 0).collect();
        Self { steps, columns, unknown }
    }
}

impl From<WrittenLifetimes> for Lifetimes {
    fn from(WrittenLifetimes { steps, columns, unknown }: WrittenLifetimes) -> Self {
        let mut read = Self { columns, unknown, ..Self::default() };
        for (at, count) in steps {
            if let Some(step) = read.steps.get_mut(usize::from(at)) {
                *step = count;
            }
        }
        read
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { steps: vec![0; STEPS], columns: Default::default(), unknown: 0 }
    }
}

impl Lifetimes {
    fn add(&mut self, left: Left) {
        match left {
            Left::Seconds(seconds) => {
                self.steps[step(seconds)] += 1;
                self.columns[LIMITS.partition_point(|limit| *limit <= seconds)] += 1;
            }
            Left::Expired => {}
            Left::Unknown => self.unknown += 1,
        }
    }

    /// For each of [`LIMITS`], how many live less long, exactly.
    pub fn below_limits(&self) -> [u64; LIMITS.len()] {
        let mut sum = 0;
        std::array::from_fn(|at| {
            sum += self.columns[at];
            sum
        })
    }

    /// So many live less long than this; a step that the limit divides counts where it begins.
    pub fn below(&self, seconds: u32) -> u64 {
        self.steps[..step(seconds)].iter().map(|count| u64::from(*count)).sum()
    }

    /// About so many live less long than this: within a step, as if they were spread evenly.
    pub fn about_below(&self, seconds: u32) -> u64 {
        let at = step(seconds);
        let (begin, width) = match seconds {
            0..FINE => (seconds, 1),
            _ => {
                let width = 1 << (seconds.ilog2() - 4);
                (seconds - seconds % width, width)
            }
        };
        let within = u64::from(self.steps[at]) * u64::from(seconds - begin) / u64::from(width);
        self.below(seconds) + within
    }
}

fn step(seconds: u32) -> usize {
    if seconds < FINE {
        return seconds as usize;
    }
    let power = seconds.ilog2();
    let within = (seconds >> (power - 4)) & (FINE - 1);
    (FINE + (power - 4) * FINE + within) as usize
}

/// Entries of one protocol in one state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateCount {
    pub protocol: u8,
    pub state: u8,
    pub holds: Holds,
    /// Only the original direction was ever seen.
    pub unreplied: u64,
    pub lifetimes: Lifetimes,
    /// Of those that live by the timeout of their state: not of flow tables, which keep theirs a
    /// day, nor of TCP that was picked up in the middle and never answered.
    pub regular: Lifetimes,
}

impl StateCount {
    /// In conntrack's words; `None` where the protocol has no states.
    pub fn name(&self) -> Option<&'static str> {
        state_name(self.protocol, self.state)
    }
}

/// One namespace's entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableCensus {
    pub netns: NetnsId,
    pub holds: Holds,
    /// The most first.
    pub states: Vec<StateCount>,
    /// Zone and number, the most first.
    pub zones: Vec<(u16, u64)>,
    #[serde(skip)]
    places: Places,
    pub ties: Ties,
}

/// Where in a list of zones each is.
#[derive(Clone, Debug, Default)]
struct Places {
    of: HashMap<u16, usize>,
    /// Entries of one zone often come one after another.
    last: usize,
}

fn tops(by: &[By]) -> Tops {
    by.iter().map(|by| (*by, vec![Set::default(); SETS])).collect()
}

/// Each way in code of its own: there are a million of these to a second.
fn offer(set: &mut Set, by: By, whole: &Key, hash: u64) {
    match by {
        By::Source => set.offer(By::Source, &whole.of(By::Source), hash, 1),
        By::Destination => set.offer(By::Destination, &whole.of(By::Destination), hash, 1),
        By::Service => set.offer(By::Service, &whole.of(By::Service), hash, 1),
        By::Backend => set.offer(By::Backend, &whole.of(By::Backend), hash, 1),
        other => set.offer(other, &whole.of(other), hash, 1),
    }
}

/// Who holds most, told apart in each way.
type Tops = Vec<(By, Vec<Set>)>;

/// All that was counted.
pub struct Census {
    tables: Vec<TableCensus>,
    last: usize,
    tops: Tops,
    /// Of the entries in one state, where that was asked for.
    focus: Option<(StateOf, Tops)>,
    /// Namespaces whose entries are another's.
    joined: Vec<(NetnsId, NetnsId)>,
    seed: Seed,
    /// Entries of namespaces and zones for which there was no room.
    pub unplaced: u64,
}

impl Census {
    /// `seed`: what nobody knows, so that nobody can choose keys that meet.
    pub fn new(by: &[By], seed: Seed) -> Self {
        let (tops, focus) = (tops(by), None);
        Self { tables: Vec::new(), last: 0, tops, focus, joined: Vec::new(), seed, unplaced: 0 }
    }

    /// Takes in one entry.
    pub fn enter(&mut self, held: &Held) {
        let hashes = held.key.hashes(|at| self.seed.0[at]);
        let seed = &self.seed;
        let offer_all = |tops: &mut Tops| {
            for (by, sets) in tops {
                let (whole, hash) = match by.is_of_replies() {
                    false => (&held.key, hashes.of(*by)),
                    true => {
                        let hashes = held.translated.hashes(|at| seed.0[at]);
                        (&held.translated, hashes.of(*by))
                    }
                };
                let at = usize::try_from(hash).map_or(0, |hash| hash % SETS);
                offer(&mut sets[at], *by, whole, hash);
            }
        };
        offer_all(&mut self.tops);
        if let Some((of, tops)) = &mut self.focus
            && of.netns == held.key.netns
            && (of.protocol, of.state) == (held.key.protocol, state_of(held))
        {
            offer_all(tops);
        }
        let Some(table) = self.table(held.key.netns) else {
            self.unplaced += 1;
            return;
        };
        table.ties.enter(held);
        let hold = hold(held);
        table.holds.add(hold, held.status);
        let id = (held.key.protocol, state_of(held));
        let at = table.states.iter().position(|state| (state.protocol, state.state) == id);
        let at = at.unwrap_or_else(|| {
            table.states.push(StateCount {
                protocol: id.0,
                state: id.1,
                holds: Holds::default(),
                unreplied: 0,
                lifetimes: Lifetimes::default(),
                regular: Lifetimes::default(),
            });
            table.states.len() - 1
        });
        let state = &mut table.states[at];
        state.holds.add(hold, held.status);
        state.unreplied += u64::from(!held.status.is_replied());
        state.lifetimes.add(if id.1 == OFFLOADED { Left::Unknown } else { held.left });
        if is_regular(held) {
            state.regular.add(held.left);
        }
        let TableCensus { zones, places, .. } = table;
        if zones.get(places.last).is_none_or(|(zone, _)| *zone != held.zone) {
            places.last = match places.of.get(&held.zone) {
                Some(at) => *at,
                None if zones.len() >= MOST => {
                    self.unplaced += 1;
                    return;
                }
                None => {
                    places.of.insert(held.zone, zones.len());
                    zones.push((held.zone, 0));
                    zones.len() - 1
                }
            };
        }
        zones[places.last].1 += 1;
    }

    /// Entries of one namespace come one after another, or a few namespaces take turns.
    fn table(&mut self, netns: NetnsId) -> Option<&mut TableCensus> {
        if self.tables.get(self.last).is_none_or(|table| table.netns != netns) {
            let found = self.tables.binary_search_by_key(&netns, |table| table.netns);
            self.last = match found {
                Ok(at) => at,
                Err(_) if self.tables.len() >= MOST => return None,
                Err(at) => {
                    let table = TableCensus {
                        netns,
                        holds: Holds::default(),
                        states: Vec::new(),
                        zones: Vec::new(),
                        places: Places::default(),
                        ties: Ties::default(),
                    };
                    self.tables.insert(at, table);
                    at
                }
            };
        }
        self.tables.get_mut(self.last)
    }

    /// What it came to in each namespace.
    pub fn finish(mut self, most: usize) -> CensusCounts {
        for table in &mut self.tables {
            table.states.sort_by_key(|state| Reverse(state.holds.all()));
            table.zones.sort_by_key(|(_, count)| Reverse(*count));
        }
        let mut tops = Vec::new();
        for (by, sets) in &self.tops {
            let mut first: HashMap<NetnsId, First> = HashMap::new();
            for mut slot in sets.iter().flat_map(Set::slots) {
                if slot.count > slot.error {
                    slot.key.netns = self.joined(slot.key.netns);
                    first.entry(slot.key.netns).or_default().offer(slot, most);
                }
            }
            for table in &self.tables {
                let Some(first) = first.remove(&table.netns) else { continue };
                let all = table.holds.all();
                let entry = |slot: &Slot| {
                    let share = (all > 0).then(|| (slot.count as f64 / all as f64).min(1.0));
                    held_by(slot.key, slot.count, slot.error, share)
                };
                let entries = first.finish(most).iter().map(entry).collect();
                tops.push(Holders { netns: table.netns, by: *by, entries });
            }
        }
        // Stable: the lists of one namespace stay in the order that was asked for.
        tops.sort_by_key(|list| list.netns);
        let of_state = self.focus.take().map(|(of, sets)| self.holders(of, &sets, most));
        CensusCounts { tables: self.tables, tops, of_state, unplaced: self.unplaced }
    }
}

/// Who holds the most entries of one namespace, told apart in one way. None has a rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Holders {
    pub netns: NetnsId,
    pub by: By,
    #[serde(with = "holder")]
    pub entries: Vec<TopEntry>,
}

/// Entries of one namespace that are of one protocol and in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateOf {
    pub netns: NetnsId,
    pub protocol: u8,
    pub state: u8,
}

/// Who holds them, told apart in each way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateHolders {
    pub of: StateOf,
    pub lists: Vec<Holders>,
}

/// As they are written down: what no census has is left out.
mod holder {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Key, TopEntry};

    #[derive(Serialize, Deserialize)]
    struct Written {
        key: Key,
        count: u64,
        error: u64,
        share: Option<f64>,
    }

    pub(super) fn serialize<S: Serializer>(
        entries: &[TopEntry],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(entries.iter().map(|entry| {
            let TopEntry { key, count, error, share, .. } = *entry;
            Written { key, count, error, share }
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<TopEntry>, D::Error> {
        let written: Vec<Written> = Vec::deserialize(deserializer)?;
        let entry = |Written { key, count, error, share }| super::held_by(key, count, error, share);
        Ok(written.into_iter().map(entry).collect())
    }
}

fn held_by(key: Key, count: u64, error: u64, share: Option<f64>) -> TopEntry {
    TopEntry {
        key,
        interface: None,
        cgroup: None,
        count,
        error,
        per_s: None,
        per_s_is: Exactness::Unavailable,
        share,
        share_now: None,
        estimate: None,
    }
}

/// The largest so far, and some more: to sort all of them takes as long as to count them.
#[derive(Default)]
struct First(Vec<Slot>);

impl First {
    fn offer(&mut self, slot: Slot, most: usize) {
        self.0.push(slot);
        if self.0.len() > 4 * most.max(16) {
            self.0.select_nth_unstable_by_key(most, |slot| Reverse(slot.count));
            self.0.truncate(most);
        }
    }

    fn finish(mut self, most: usize) -> Vec<Slot> {
        self.0.sort_unstable_by_key(|slot| Reverse(slot.count));
        self.0.truncate(most);
        self.0
    }
}

/// The outcome of a census.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CensusCounts {
    pub tables: Vec<TableCensus>,
    /// In the order of the namespaces' numbers, too.
    tops: Vec<Holders>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of_state: Option<StateHolders>,
    pub unplaced: u64,
}

impl CensusCounts {
    pub fn table(&self, netns: NetnsId) -> Option<&TableCensus> {
        // They are in the order of their numbers.
        let at = self.tables.binary_search_by_key(&netns, |table| table.netns).ok()?;
        self.tables.get(at)
    }

    pub fn lists(&self, netns: NetnsId) -> impl Iterator<Item = &Holders> {
        let first = self.tops.partition_point(|list| list.netns < netns);
        self.tops[first..].iter().take_while(move |list| list.netns == netns)
    }

    pub fn holds(&self) -> Holds {
        self.tables.iter().fold(Holds::default(), |sum, table| sum.plus(table.holds))
    }
}

/// How a census was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    pub by: Cow<'static, str>,
    #[serde(rename = "took_ns", with = "nanoseconds")]
    pub took: Duration,
    #[serde(rename = "cpu_ns", with = "nanoseconds")]
    pub cpu: Duration,
    /// Chains that changed under the walk: entries of them may be missing.
    pub strayed: u64,
    /// What the kernel counted in each namespace just before and just after. It counts entries
    /// that are not, or no longer, in the table too.
    pub kernel: Vec<KernelCount>,
    pub counted: CensusCounts,
    /// Why it was not taken in a better way, and of which namespaces it was not taken.
    pub notes: Vec<String>,
}

/// One namespace, and how full the kernel says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    pub netns: NetnsId,
    pub owner: Owner,
    /// It is the host's own, or was asked for.
    pub is_judged: bool,
    pub inode: u32,
    pub name: Option<String>,
    pub workload: Workload,
    pub before: Option<u32>,
    pub after: Option<u32>,
    /// Why its entries could not be listed, or not to the end.
    pub unlisted: Option<String>,
    /// The kernel says that they changed while it listed them: some may be missing, and others counted
    /// twice.
    pub is_torn: bool,
}

/// What [`KernelCount::is_torn`] means.
pub const TORN: &str =
    "its entries changed while they were listed: some may be missing, or counted twice";

impl Taken {
    /// Entries that were counted, less those that the kernel counts: from, to.
    pub fn difference(&self, of: &KernelCount) -> Option<(i64, i64)> {
        let counted = self.counted.table(of.netns).map_or(0, |table| table.holds.all());
        let counted = i64::try_from(counted).ok()?;
        let (before, after) = (i64::from(of.before?), i64::from(of.after?));
        Some((counted - before.max(after), counted - before.min(after)))
    }
}

fn hold(held: &Held) -> Hold {
    match held.status.is_assured() {
        // The garbage collector renews an offloaded entry's time before it looks at it.
        _ if held.left == Left::Expired && !held.status.is_offloaded() => Hold::Expired,
        false => Hold::Reclaimable,
        true if is_closing(held.key.protocol, held.state) => Hold::Closing,
        true => Hold::Pinned,
    }
}

/// What the kernel's `can_early_drop` says of the protocol.
fn is_closing(protocol: u8, state: u8) -> bool {
    match protocol {
        TCP => matches!(state, 4..=8),
        SCTP => matches!(state, 5..=7),
        _ => false,
    }
}

pub fn state_name(protocol: u8, state: u8) -> Option<&'static str> {
    if state == OFFLOADED {
        return Some("OFFLOAD");
    }
    match states(protocol) {
        Some(names) => Some(names.get(usize::from(state)).copied().unwrap_or("UNKNOWN")),
        None => (state != 0).then_some("ASSURED"),
    }
}

/// Of the tests, here and elsewhere.
#[cfg(test)]
pub const SEED: Seed = Seed([
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
]);

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::Key;

    use super::*;
    use crate::record::entry::Status;

    fn held(netns: NetnsId, source: u32, protocol: u8, state: u8, assured: bool) -> Held {
        let mut src = [0; 16];
        src[..4].copy_from_slice(&source.to_be_bytes());
        let key = Key { netns, src, protocol, family: 2, ..Key::default() };
        let status = Status(1 << 3 | if assured { 1 << 2 | 1 << 1 } else { 0 });
        let left = Left::Seconds(source % 100);
        Held { key, translated: key, status, state, zone: 0, left }
    }

    #[test]
    fn what_is_pinned_is_told_from_what_makes_room() {
        let mut census = Census::new(&[By::Source], SEED);
        for (protocol, state, assured) in
            [(6, 3, true), (6, 3, true), (6, 7, true), (6, 1, false), (17, 0, true), (17, 0, false)]
        {
            census.enter(&held(1, 5, protocol, state, assured));
        }
        census.enter(&Held { left: Left::Expired, ..held(1, 5, 17, 0, true) });
        let mut zoned = held(2, 5, 17, 0, false);
        zoned.zone = 9;
        census.enter(&zoned);
        let counted = census.finish(5);
        let table = counted.table(1).unwrap();
        let holds = Holds { reclaimable: 2, closing: 1, pinned: 3, expired: 1, offloaded: 0 };
        assert_eq!(table.holds, holds);
        let named: Vec<_> = table.states.iter().map(|s| (s.name(), s.holds.all())).collect();
        assert_eq!(named[0].1, 2);
        assert!(named.contains(&(Some("TIME_WAIT"), 1)), "{named:?}");
        assert_eq!(counted.table(2).unwrap().zones, [(9, 1)]);
        assert_eq!(counted.holds().all(), 8);
        let list = counted.lists(1).next().unwrap();
        assert_eq!((list.entries[0].count, list.entries[0].error), (7, 0));
        assert_eq!(list.entries[0].share, Some(1.0));
    }

    #[test]
    fn bounds_hold_however_many_sources_there_are() {
        let mut census = Census::new(&[By::Source], SEED);
        let mut truth: HashMap<u32, u64> = HashMap::new();
        for number in 0..400_000_u32 {
            let source = if number % 4 == 0 { number % 37 } else { number };
            census.enter(&held(1, source, 17, 0, false));
            *truth.entry(source).or_default() += 1;
        }
        let counted = census.finish(20);
        let list = counted.lists(1).next().unwrap();
        assert_eq!(list.entries.len(), 20);
        for entry in &list.entries {
            let [a, b, c, d, ..] = entry.key.src;
            let source = u32::from_be_bytes([a, b, c, d]);
            assert!(source < 37, "{source}");
            let truth = truth[&source];
            assert!(entry.count - entry.error <= truth && truth <= entry.count, "{entry:?}");
        }
    }

    #[test]
    fn lifetimes_are_exact_where_it_matters_and_near_elsewhere() {
        let mut lifetimes = Lifetimes::default();
        (0..1000).for_each(|seconds| lifetimes.add(Left::Seconds(seconds)));
        lifetimes.add(Left::Unknown);
        lifetimes.add(Left::Expired);
        for limit in [0, 1, 15, 16, 17, 31, 64, 90, 120] {
            let (below, truth) = (lifetimes.below(limit), u64::from(limit));
            assert!(below <= truth && truth - below <= truth / 16, "{limit}: {below}");
        }
        assert_eq!((lifetimes.below(u32::MAX), lifetimes.unknown), (1000, 1));
        assert_eq!(step(u32::MAX), STEPS - 1);
    }

    #[test]
    fn counts_below_each_limit_are_exact() {
        for (at, limit) in LIMITS.into_iter().enumerate() {
            let mut lifetimes = Lifetimes::default();
            for seconds in [limit - 5, limit - 1, limit, limit + 5] {
                lifetimes.add(Left::Seconds(seconds));
            }
            let below = lifetimes.below_limits();
            assert_eq!(below[at], 2, "{limit}: {below:?}");
            assert!(below[at + 1..].iter().all(|count| *count == 4), "{limit}: {below:?}");
            assert!(below[..at].iter().all(|count| *count == 0), "{limit}: {below:?}");
        }
    }

    #[test]
    fn offloaded_entries_are_a_state_of_their_own() {
        let mut census = Census::new(&[], SEED);
        let plain = held(1, 5, 6, 3, true);
        census.enter(&plain);
        // As the walk sees one: its state and some time; and as ctnetlink does: neither.
        let offloaded = Status(plain.status.0 | 1 << 14);
        let hardware = Status(offloaded.0 | 1 << 15);
        census.enter(&Held { status: offloaded, left: Left::Seconds(86_399), ..plain });
        census.enter(&Held { status: hardware, left: Left::Expired, ..plain });
        census.enter(&Held { status: offloaded, left: Left::Unknown, state: 0, ..plain });
        let counted = census.finish(1);
        let table = counted.table(1).unwrap();
        let holds = Holds { pinned: 4, offloaded: 3, ..Holds::default() };
        assert_eq!(table.holds, holds);
        let states: Vec<_> =
            table.states.iter().map(|s| (s.name(), s.holds.all(), s.lifetimes.unknown)).collect();
        assert_eq!(states, [(Some("OFFLOAD"), 3, 3), (Some("ESTABLISHED"), 1, 0)]);
    }

    #[test]
    fn backends_are_who_answers_whatever_was_asked() {
        let by = [By::Backend, By::ReplyDestination, By::Service];
        let mut census = Census::new(&by, SEED);
        for source in 0..30 {
            let mut held = held(1, source, 17, 0, false);
            held.key.dst[..4].copy_from_slice(&[10, 96, 0, 10]);
            held.key.dport = 53_u16.to_be();
            held.translated = held.key;
            // A third was sent to a backend that is gone, and all as one address.
            let backend = if source % 3 == 0 { 5 } else { 6 };
            held.translated.dst[..4].copy_from_slice(&[10, 244, 0, backend]);
            held.translated.dport = 5353_u16.to_be();
            held.translated.src[..4].copy_from_slice(&[192, 0, 2, 1]);
            census.enter(&held);
        }
        let counted = census.finish(5);
        let list = |by| counted.lists(1).find(|list| list.by == by).unwrap();
        let named = |by| {
            let entries = list(by).entries.iter();
            entries.map(|e| (e.name(by, |_, _| None), e.count, e.error)).collect::<Vec<_>>()
        };
        let backends = [("10.244.0.6 udp/5353", 20, 0), ("10.244.0.5 udp/5353", 10, 0)];
        assert_eq!(named(By::Backend), backends.map(|(name, n, e)| (name.to_owned(), n, e)));
        assert_eq!(named(By::ReplyDestination), [("192.0.2.1".to_owned(), 30, 0)]);
        assert_eq!(named(By::Service), [("10.96.0.10 udp/53".to_owned(), 30, 0)]);
    }

    #[test]
    fn the_difference_is_against_what_the_kernel_counts() {
        let mut census = Census::new(&[], SEED);
        (0..10).for_each(|source| census.enter(&held(1, source, 17, 0, false)));
        let kernel = KernelCount {
            workload: Default::default(),
            netns: 1,
            owner: Owner::Host,
            is_judged: true,
            inode: 1,
            name: None,
            before: Some(9),
            after: Some(12),
            unlisted: None,
            is_torn: false,
        };
        let taken = Taken {
            by: "walk".into(),
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            strayed: 0,
            kernel: vec![kernel.clone()],
            counted: census.finish(1),
            notes: Vec::new(),
        };
        assert_eq!(taken.difference(&kernel), Some((-2, 1)));
    }
}
