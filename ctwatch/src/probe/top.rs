//! Heavy hitters: reading what the programs write, where they write it, and adding up the CPUs.

use std::{
    os::fd::BorrowedFd,
    sync::atomic::{Ordering, fence},
};

use anyhow::{Context, Result};
use ctwatch_abi::top::{By, Set, Stream, TABLES, WAYS, table};

use super::mapped::Mapped;
use crate::record::sample::{TopCount, TopCounts};

/// All tables of all CPUs are to be no larger.
const MOST_BYTES: usize = 7 << 20;
/// Of one table on one CPU.
const MOST_SETS: usize = 128;
/// One set in each table.
const OF_A_CPU: usize = size_of::<Set>() * TABLES as usize;

/// CPUs that have tables, and how many sets there are in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) sets: usize,
    pub(super) cpus: usize,
}

impl Shape {
    /// Goes by the CPUs that are online, and takes at most [`MOST_BYTES`]. A CPU may get no tables: no list has what
    /// happens there, and the lists say how much that is.
    pub(super) fn of(online: usize) -> Self {
        let online = online.max(1);
        let fits = (MOST_BYTES / (OF_A_CPU * online)).max(1);
        // The largest power of two that fits.
        let sets = (1 << fits.ilog2()).min(MOST_SETS);
        Self { sets, cpus: online.min(MOST_BYTES / (OF_A_CPU * sets)) }
    }

    /// Of all tables.
    pub(super) fn all_sets(self) -> usize {
        self.sets * self.cpus * TABLES as usize
    }
}

/// What the programs write, and how it is laid out.
pub(super) struct TopSets {
    map: Mapped<Set>,
    shape: Shape,
}

impl TopSets {
    pub(super) fn map(fd: BorrowedFd<'_>, shape: Shape) -> Result<Self> {
        let map =
            Mapped::new(fd, shape.all_sets()).context("cannot map the tables of heavy hitters")?;
        Ok(Self { map, shape })
    }

    /// Memory of the kernel that they take.
    pub(super) fn bytes(&self) -> usize {
        self.map.bytes()
    }

    pub(super) fn read(&self) -> Vec<TopCounts> {
        let lists = Stream::ALL.into_iter().flat_map(|stream| By::ALL.map(|by| (stream, by)));
        lists.map(|(stream, by)| self.list(stream, by)).collect()
    }

    fn list(&self, stream: Stream, by: By) -> TopCounts {
        let mut list = TopCounts {
            stream,
            by,
            offered: 0,
            left_out: 0,
            left_out_at_most: 0,
            counts: Vec::new(),
        };
        let Shape { sets, cpus: of_cpus } = self.shape;
        let mut cpus = Vec::with_capacity(of_cpus);
        let at = |set: usize, cpu: usize| {
            (cpu * TABLES as usize + table(stream, by) as usize) * sets + set
        };
        // Before any is read again, so that time passes in between.
        let places = (0..sets).flat_map(|set| (0..of_cpus).map(move |cpu| (set, cpu)));
        let first: Vec<Option<Set>> = match SHOWS_IN_ORDER {
            true => Vec::new(),
            false => places.map(|(set, cpu)| self.set(at(set, cpu))).collect(),
        };
        for set in 0..sets {
            cpus.clear();
            for cpu in 0..of_cpus {
                let read = || self.set(at(set, cpu));
                cpus.extend(match first.get(set * of_cpus + cpu) {
                    None => read(),
                    Some(first) => settled(*first, read),
                });
            }
            merge(&cpus, &mut list);
        }
        list
    }

    /// `None` for one that was never written.
    fn set(&self, index: usize) -> Option<Set> {
        let at = self.map.at(index)?;
        // SAFETY: within the mapping. The kernel may write it meanwhile, so it is read as memory
        // that changes, and again where it did.
        unsafe {
            let sequence = &raw const (*at).sequence;
            for _ in 0..1000 {
                let before = sequence.read_volatile();
                if before == 0 {
                    return None;
                }
                // Nothing of the set is read before its sequence, or after it is read again.
                fence(Ordering::Acquire);
                let set = at.read_volatile();
                fence(Ordering::Acquire);
                if before.is_multiple_of(2) && sequence.read_volatile() == before {
                    return Some(set);
                }
                std::hint::spin_loop();
            }
            // Written faster than it can be read: a few slots may be of two moments.
            Some(at.read_volatile())
        }
    }
}

/// Whether this CPU shows others its stores in the order in which it made them, as x86 does. Where it
/// does not, an even sequence may be seen before what it stands for, or an odd one after it began.
const SHOWS_IN_ORDER: bool = cfg!(any(target_arch = "x86", target_arch = "x86_64"));

/// How often it is read again where it changes.
const TRIES: u32 = 4;

/// What two readings in a row agree on. What a CPU has not shown yet at the first it has at the
/// second: it does so within a microsecond, and there is a list between the two. Not that any
/// architecture promises it; what is torn all the same is a few slots of two moments.
fn settled(first: Option<Set>, mut read: impl FnMut() -> Option<Set>) -> Option<Set> {
    let mut last = first;
    for _ in 0..TRIES {
        let next = read();
        if next == last {
            break;
        }
        last = next;
    }
    last
}

/// One set of a table, as each CPU has it: a key is in the same set everywhere. A CPU that does
/// not hold a key may have counted it as often as the least that it does hold. One that is torn adds
/// up to nonsense, and to nothing worse.
pub fn merge(cpus: &[Set], list: &mut TopCounts) {
    let first = list.counts.len();
    for set in cpus {
        for slot in set.slots() {
            list.offered = list.offered.saturating_add(slot.count);
            let found = list.counts[first..].iter().any(|found| found.key == slot.key);
            if found {
                continue;
            }
            let mut sum = TopCount { key: slot.key, ..TopCount::default() };
            for other in cpus {
                let (scaled, heaviest) = other.scaled();
                sum.scaled = sum.scaled.saturating_add(scaled);
                sum.heaviest = sum.heaviest.max(heaviest);
                match other.slots().find(|other| other.key == slot.key) {
                    Some(other) => {
                        sum.count = sum.count.saturating_add(other.count);
                        sum.error = sum.error.saturating_add(other.error);
                    }
                    None => {
                        let least = other.least();
                        sum.count = sum.count.saturating_add(least);
                        sum.error = sum.error.saturating_add(least);
                    }
                }
            }
            list.counts.push(sum);
        }
    }
    debug_assert!(list.counts.len() - first <= cpus.len() * WAYS);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ctwatch_abi::top::Key;

    use super::*;

    #[test]
    fn tables_stay_within_bounds_on_every_machine() {
        for online in [1, 2, 3, 8, 16, 100, 256, 1000, 8192] {
            let shape = Shape::of(online);
            let bytes = shape.all_sets() * size_of::<Set>();
            assert!(shape.sets.is_power_of_two(), "{shape:?}");
            assert!(bytes <= MOST_BYTES, "{online} CPUs: {bytes}");
            assert!(shape.cpus == online || shape.sets == 1, "{online} CPUs: {shape:?}");
        }
        let of = |online| {
            let Shape { sets, cpus } = Shape::of(online);
            (sets, cpus)
        };
        assert_eq!((of(1), of(2), of(8)), ((128, 1), (128, 2), (128, 8)));
        assert_eq!((of(16), of(256), of(8192)), ((64, 16), (4, 256), (1, 1076)));
    }

    #[test]
    fn a_set_is_believed_when_it_stays_as_it_is() {
        let hash = |key: &Key| key.hashes(|at| 3 << at).of(By::Source);
        let of = |sequence| {
            let mut set = Set::default();
            set.sequence = sequence;
            set
        };
        let mut whole = of(2);
        let key = Key { family: 2, ..Key::default() };
        whole.offer(By::Source, &key, hash(&key), 1);
        // The sequence is there, and the rest not yet.
        let torn = of(2);
        let mut readings = [whole, whole].into_iter();
        assert_eq!(settled(Some(torn), || readings.next()), Some(whole));
        let mut reads = 0;
        assert_eq!(
            settled(None, || {
                reads += 1;
                None
            }),
            None
        );
        assert_eq!(reads, 1);
        // One that never stops changing is read so often and no more.
        let mut sequence = 2;
        let last = settled(Some(torn), || {
            sequence += 2;
            Some(of(sequence))
        });
        assert_eq!(last.map(|set| set.sequence), Some(2 + 2 * TRIES));
    }

    #[test]
    fn sums_over_cpus_keep_their_bounds() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut cpus = vec![Set::default(); 4];
        let mut truth: HashMap<Key, u64> = HashMap::new();
        for _ in 0..100_000 {
            // Some talk much, most only once; each on whatever CPU.
            let source = if next() % 2 == 0 { next() % 12 } else { next() };
            let mut key = Key::default();
            key.src[..8].copy_from_slice(&source.to_le_bytes());
            let cpu = usize::try_from(next() % 4).unwrap();
            let hash = key.hashes(|at| 0x9e37_79b9_7f4a_7c15 << at).of(By::Source);
            cpus[cpu].offer(By::Source, &key, hash, 1);
            *truth.entry(key).or_default() += 1;
        }
        let by = By::Source;
        let mut list = TopCounts {
            stream: Stream::Drops,
            by,
            offered: 0,
            left_out: 0,
            left_out_at_most: 0,
            counts: Vec::new(),
        };
        merge(&cpus, &mut list);
        assert_eq!(list.offered, 100_000);
        assert!(list.counts.len() <= 32);
        for count in &list.counts {
            let truth = truth[&count.key];
            assert!(
                count.count - count.error <= truth && truth <= count.count,
                "{truth} {count:?}"
            );
        }
    }
}
