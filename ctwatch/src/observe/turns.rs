//! Which namespaces are read now. What the probes count says where something happened; what they do not
//! see is read in turns. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ctwatch_abi::{NetnsId, NetnsTally};

use crate::{
    host::netns::Netns,
    record::{
        counters::CounterSums,
        netns_map::NetnsMap,
        sample::{Idle, TableSample},
    },
};

/// What was counted, by namespace.
pub(super) type Tallies = NetnsMap<NetnsTally>;

/// No reading is older than this, where readings come that often.
const OLDEST: Duration = Duration::from_secs(10);
/// So many are read each time, or each second where that is longer, however little happens in them.
const FEW: usize = 64;
/// A table that is so full is never idle.
const NEARLY_FULL: f64 = 0.8;

/// What one reading of a namespace came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Read {
    id: NetnsId,
    /// What the probes had counted before.
    tally: Option<NetnsTally>,
    entries: Option<u32>,
    /// The sum of all counters: each only grows, so it stays while none does.
    counters: Option<u64>,
    at: Duration,
}

impl Read {
    pub(super) fn of(table: &TableSample, tally: Option<NetnsTally>, at: Duration) -> Self {
        let counters = table.counters.as_ref().map(sum);
        Self { id: table.id, tally, entries: table.entries, counters, at }
    }

    fn is_as(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..*other }
    }
}

fn sum(of: &CounterSums) -> u64 {
    let CounterSums { found, invalid, insert, insert_failed, drop, early_drop, error, .. } = *of;
    let known = [found, invalid, insert, insert_failed, drop, early_drop, error];
    let more = [of.search_restart, of.clash_resolve];
    let perhaps = [of.delete_list, of.chaintoolong];
    known.into_iter().chain(more).chain(perhaps.into_iter().flatten()).sum()
}

/// How much it matters what happens in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Full,
    /// A stranger's: it is read at once where the probes say that something happened, and in turns
    /// however full it is, else he decides how long a reading takes.
    Little,
    /// Nobody asked for it: it is read to know whether it is still the same.
    None,
}

/// One namespace, as it was found and read.
#[derive(Debug)]
struct Turn {
    netns: Netns,
    read: Read,
    weight: Weight,
    /// The reading before came to the same.
    is_still: bool,
    /// It was found this time.
    is_found: bool,
}

/// The last reading of each, by inode number: more is not known before one is entered.
#[derive(Debug, Default)]
pub(super) struct Turns {
    of: HashMap<u32, Turn>,
    /// In which the probes had counted at the last reading.
    counted: NetnsMap<()>,
    last: Duration,
}

impl Turns {
    /// Of all that were `found`, those to be read now; `whole`: all of them.
    pub(super) fn due(
        &mut self,
        found: Vec<Netns>,
        counted: Option<&Tallies>,
        limit: Option<u32>,
        now: Duration,
        whole: bool,
    ) -> Vec<Netns> {
        let interval = now.saturating_sub(self.last);
        self.last = now;
        self.of.values_mut().for_each(|turn| turn.is_found = false);
        // Another namespace may have the number of one that is gone.
        let mut newcomers = HashSet::new();
        if let Some(counted) = counted {
            let new = counted.iter().filter(|(id, _)| !self.counted.contains_key(id));
            newcomers.extend(new.map(|(_, tally)| tally.inode()));
            self.counted.retain(|id, ()| counted.contains_key(id));
            self.counted.extend(counted.keys().map(|id| (*id, ())));
        }
        let (mut due, mut idle) = (Vec::new(), Vec::new());
        for netns in found {
            let Some(turn) = self.of.get_mut(&netns.inode) else {
                due.push(netns);
                continue;
            };
            turn.is_found = true;
            let counted = counted.map(|counted| counted.get(&turn.read.id).copied());
            let is_same = counted.is_some_and(|tally| {
                tally.unwrap_or_default() == turn.read.tally.unwrap_or_default()
            });
            let is_own = !newcomers.contains(&netns.inode);
            let is_full = turn.read.entries.zip(limit).is_some_and(|(entries, limit)| {
                f64::from(entries) >= NEARLY_FULL * f64::from(limit) && limit > 0
            });
            let is_quiet = match turn.weight {
                Weight::Full => is_same && !is_full && turn.is_still,
                Weight::Little => is_same,
                Weight::None => true,
            };
            let is_idle = is_quiet && is_own && turn.netns == netns;
            match is_idle && !whole {
                true => idle.push((turn.read.at, netns)),
                false => due.push(netns),
            }
        }
        self.of.retain(|_, turn| turn.is_found);
        idle.sort_unstable_by_key(|(at, _)| *at);
        let quota = quota(idle.len(), interval);
        let too_old = |at: Duration| now.saturating_sub(at) + interval > OLDEST;
        let in_turn = idle.into_iter().enumerate();
        let in_turn = in_turn.take_while(|(number, (at, _))| *number < quota || too_old(*at));
        due.extend(in_turn.map(|(_, (_, netns))| netns));
        due
    }

    /// Takes in what a reading came to.
    pub(super) fn read(&mut self, netns: Netns, read: Read, weight: Weight) {
        let before = self.of.get(&netns.inode);
        let is_still = before.is_some_and(|before| before.read.is_as(&read));
        self.of.insert(netns.inode, Turn { netns, read, weight, is_still, is_found: true });
    }

    /// Nothing leads to it any more.
    pub(super) fn forget(&mut self, inode: u32) {
        self.of.remove(&inode);
    }

    /// All that were found and are told of, with the age of their last reading.
    pub(super) fn idle(&self, now: Duration) -> impl Iterator<Item = Idle> {
        let idle =
            move |turn: &Turn| Idle { id: turn.read.id, age: now.saturating_sub(turn.read.at) };
        self.of.values().filter(|turn| turn.weight != Weight::None).map(idle)
    }
}

/// How many of so many idle ones are read: all where there are few, else so many that each has its turn
/// in time.
fn quota(idle: usize, interval: Duration) -> usize {
    if idle <= FEW {
        return idle;
    }
    let share = |of: usize, time: Duration| {
        let share = interval.as_secs_f64() / time.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is less")]
        let share = (of as f64 * share.min(1.0)).ceil() as usize;
        share
    };
    share(FEW, Duration::from_secs(1)).max(share(idle, OLDEST - Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwatch_abi::Count;

    const LIMIT: Option<u32> = Some(1000);

    fn netns(inode: u32) -> Netns {
        let (name, workload) = (None, Default::default());
        Netns { inode, name, path: format!("/run/netns/{inode}").into(), workload }
    }

    fn tally(inode: u32, refused: u32) -> NetnsTally {
        let mut tally = NetnsTally::new(inode.into(), inode);
        (0..refused).for_each(|_| tally.bump(Count::TableFull));
        tally
    }

    struct Host {
        turns: Turns,
        counted: Tallies,
        entries: HashMap<u32, u32>,
        all: u32,
        weight: Weight,
        now: u64,
    }

    impl Host {
        fn new(all: u32) -> Self {
            let (turns, weight) = (Turns::default(), Weight::Full);
            Self {
                turns,
                counted: Tallies::default(),
                entries: HashMap::new(),
                all,
                weight,
                now: 0,
            }
        }

        /// Inode numbers of those that are read after another second.
        fn tick(&mut self, whole: bool) -> Vec<u32> {
            self.now += 1;
            let now = Duration::from_secs(self.now);
            let found = (1..=self.all).map(netns).collect();
            let due = self.turns.due(found, Some(&self.counted), LIMIT, now, whole);
            let inodes = due.iter().map(|netns| netns.inode).collect();
            for netns in due {
                let id = NetnsId::from(netns.inode);
                let entries = Some(self.entries.get(&netns.inode).copied().unwrap_or(0));
                let tally = self.counted.get(&id).copied();
                let read = Read { id, tally, entries, counters: Some(0), at: now };
                self.turns.read(netns, read, self.weight);
            }
            inodes
        }

        fn settle(&mut self) {
            (0..3).for_each(|_| _ = self.tick(true));
        }
    }

    #[test]
    fn few_namespaces_are_read_each_time() {
        let mut host = Host::new(FEW as u32);
        host.settle();
        assert_eq!(host.tick(false).len(), FEW);
    }

    #[test]
    fn each_idle_namespace_has_its_turn_in_time() {
        let mut host = Host::new(2000);
        assert_eq!(host.tick(false).len(), 2000, "all are new");
        assert_eq!(host.tick(false).len(), 2000, "nothing is known of what is usual");
        let mut last: HashMap<u32, u64> = (1..=2000).map(|inode| (inode, host.now)).collect();
        for _ in 0..60 {
            let read = host.tick(false);
            assert!(read.len() <= 2000 / 9 + 1, "{}", read.len());
            read.iter().for_each(|inode| _ = last.insert(*inode, host.now));
            let oldest = last.values().min().unwrap();
            assert!(host.now - oldest <= 10, "{} s", host.now - oldest);
            let age = host.turns.idle(Duration::from_secs(host.now)).map(|idle| idle.age).max();
            assert_eq!(age, Some(Duration::from_secs(host.now - oldest)));
        }
        assert_eq!(host.tick(true).len(), 2000);
    }

    #[test]
    fn what_changes_is_read_until_it_is_still() {
        let mut host = Host::new(1000);
        host.settle();
        host.counted.insert(500, tally(500, 1));
        for _ in 0..2 {
            assert!(host.tick(false).contains(&500));
        }
        let reads = (0..5).filter(|_| host.tick(false).contains(&500)).count();
        assert!(reads <= 1, "{reads}");
        // What no probe saw, since it was read in its turn.
        host.entries.insert(500, 7);
        while !host.tick(false).contains(&500) {}
        assert!(host.tick(false).contains(&500), "it may go on");
    }

    #[test]
    fn a_table_that_is_nearly_full_is_read_each_time() {
        let mut host = Host::new(1000);
        host.entries.insert(500, 800);
        host.settle();
        assert!((0..5).all(|_| host.tick(false).contains(&500)));
    }

    #[test]
    fn a_strangers_full_table_waits_for_its_turn() {
        let mut host = Host::new(1000);
        host.weight = Weight::Little;
        host.settle();
        host.counted.insert(500, tally(500, 1));
        assert!(host.tick(false).contains(&500), "something happened");
        // No probe sees it.
        (1..=1000).for_each(|inode| _ = host.entries.insert(inode, 900));
        let reads: Vec<usize> = (0..20).map(|_| host.tick(false).len()).collect();
        assert!(reads.iter().all(|reads| *reads <= 1000 / 9 + 1), "{reads:?}");
        host.weight = Weight::None;
        host.settle();
        assert!(host.turns.idle(Duration::from_secs(host.now)).next().is_none());
        host.counted.insert(500, tally(500, 2));
        let reads = (0..5).filter(|_| host.tick(false).contains(&500)).count();
        assert!(reads <= 1, "{reads}");
    }

    #[test]
    fn another_under_the_same_number_is_read_at_once() {
        let mut host = Host::new(1000);
        host.settle();
        let stranger = NetnsTally::new(70_000, 500);
        host.counted.insert(70_000, stranger);
        assert!(host.tick(false).contains(&500));
    }

    #[test]
    fn without_probes_nothing_is_known_to_be_still() {
        let mut turns = Turns::default();
        for second in 1..5 {
            let now = Duration::from_secs(second);
            let due = turns.due((1..=200).map(netns).collect(), None, LIMIT, now, false);
            assert_eq!(due.len(), 200);
            for netns in due {
                let (id, at) = (netns.inode.into(), now);
                let read = Read { id, tally: None, entries: Some(0), counters: None, at };
                turns.read(netns, read, Weight::Full);
            }
        }
    }
}
