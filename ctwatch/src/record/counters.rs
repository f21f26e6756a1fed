//! Conntrack's own counters: as the kernel has them, one row a CPU and 32 bits wide, and summed over CPUs
//! and freed of their wrap-around.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::is_default;

/// No CPU drops, or finds invalid, more packets in a second: that would be 250 ns for each, all of
/// the way from the driver to conntrack's hash table, where the fastest seen takes more than 1,000.
pub const MOST_PER_S: u64 = 4_000_000;
/// A counter of 32 bits that is read again within this time has gone on by less than 2^31, so what it
/// has gone on by is known: 2^31 / 4,000,000 a second is 536 s.
const UNREAD: Duration = Duration::from_secs((1 << 31) / MOST_PER_S);
/// So they are read this often, however seldom they are shown: at a ninth of that time.
pub const KEPT_UP: Duration = Duration::from_secs(60);
const _: () = assert!(KEPT_UP.as_secs() * 8 < UNREAD.as_secs());

/// One CPU's counters since the namespace was made, in the words of `conntrack -S`. They are 32
/// bits wide in the kernel and wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    pub cpu: u16,
    pub found: u32,
    pub invalid: u32,
    pub insert: u32,
    /// Entries that left the table, on kernels that count them. `None` where there is no such
    /// column; others keep it, and leave it at 0.
    pub delete_list: Option<u32>,
    pub insert_failed: u32,
    pub drop: u32,
    pub early_drop: u32,
    pub error: u32,
    pub search_restart: u32,
    pub clash_resolve: u32,
    /// `None` before Linux 5.15: those kernels have no limit on a chain's length.
    pub chaintoolong: Option<u32>,
}

/// The same over all CPUs. They begin with what the kernel had counted at the first reading, and go on by
/// what it counted from each reading to the next: they never go back, nor wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterSums {
    /// How many CPUs there are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpus: u16,
    /// How often something may be missing from them: a counter went back, or was read too late to know
    /// by how much it had gone on. Another number than at the reading before: what they have gone on by
    /// since is a lower bound.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gaps: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub found: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub invalid: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub insert: u64,
    /// `None` where one of the CPUs has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delete_list: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub insert_failed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub drop: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub early_drop: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub error: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub search_restart: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub clash_resolve: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub chaintoolong: Option<u64>,
}

impl CounterSums {
    /// What there is at one reading.
    pub fn of(cpus: &[CpuCounters]) -> Self {
        let mut summing = Summing::default();
        summing.take(cpus, Duration::ZERO)
    }

    /// All packets that conntrack dropped: one whose chain is too long bumps no `drop`.
    pub fn dropped(&self) -> u64 {
        self.drop.saturating_add(self.chaintoolong.unwrap_or(0))
    }

    /// `insert` less `delete_list`, as wide as the number of entries. `None` where the kernel has no
    /// counter of removals.
    pub fn inserted_less_removed(&self) -> Option<u32> {
        let difference = self.insert.wrapping_sub(self.delete_list?);
        #[expect(clippy::cast_possible_truncation, reason = "the kernel's wrap around at 32 bits")]
        let narrow = difference as u32;
        Some(narrow)
    }
}

/// Sums the counters of one namespace, reading by reading.
#[derive(Clone, Debug, Default)]
pub struct Summing {
    last: BTreeMap<u16, CpuCounters>,
    at: Option<Duration>,
    sums: CounterSums,
}

impl Summing {
    /// Begun after so many gaps.
    pub fn after(gaps: u32) -> Self {
        Self { sums: CounterSums { gaps, ..CounterSums::default() }, ..Self::default() }
    }

    /// The sums as they are now; `at`: when this was read.
    pub fn take(&mut self, cpus: &[CpuCounters], at: Duration) -> CounterSums {
        let before = self.at.replace(at);
        let in_time = before.is_none_or(|before| at.saturating_sub(before) <= UNREAD);
        let (sums, mut went_on) = (&mut self.sums, true);
        let mut more = |sum: &mut u64, now: u32, last: u32| {
            let (more, is_so) = more(now, last);
            went_on &= is_so;
            *sum += more;
        };
        for now in cpus {
            let last = self.last.insert(now.cpu, *now).unwrap_or_default();
            more(&mut sums.found, now.found, last.found);
            more(&mut sums.invalid, now.invalid, last.invalid);
            more(&mut sums.insert, now.insert, last.insert);
            more(&mut sums.insert_failed, now.insert_failed, last.insert_failed);
            more(&mut sums.drop, now.drop, last.drop);
            more(&mut sums.early_drop, now.early_drop, last.early_drop);
            more(&mut sums.error, now.error, last.error);
            more(&mut sums.search_restart, now.search_restart, last.search_restart);
            more(&mut sums.clash_resolve, now.clash_resolve, last.clash_resolve);
            let optional = [
                (&mut sums.delete_list, now.delete_list, last.delete_list),
                (&mut sums.chaintoolong, now.chaintoolong, last.chaintoolong),
            ];
            for (sum, now, last) in optional {
                if let Some(now) = now {
                    more(sum.get_or_insert(0), now, last.unwrap_or(0));
                }
            }
        }
        if cpus.is_empty() || cpus.iter().any(|cpu| cpu.delete_list.is_none()) {
            sums.delete_list = None;
        }
        sums.gaps += u32::from(!(went_on && in_time));
        sums.cpus = u16::try_from(cpus.len()).unwrap_or(u16::MAX);
        *sums
    }
}

/// How far a counter went on, at least; and whether it did. One that went back by more than it can
/// have gone on belongs to another namespace now (on kernels without cookies, an inode number that is
/// used again), or was not read for too long.
fn more(now: u32, last: u32) -> (u64, bool) {
    let gone_on = now.wrapping_sub(last);
    match now < last && gone_on > u32::MAX / 2 {
        true => (now.into(), false),
        false => (gone_on.into(), true),
    }
}

/// Whether the kernel's counters say how many entries were inserted and how many removed. That
/// some kernels keep the columns and count nothing in them is told by an identity: all entries that
/// were inserted since the namespace was made, less those that were removed, are there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryCounts {
    /// There is no column for removals.
    Absent,
    /// Nothing was counted yet, or this kernel never counts: that looks the same.
    Still,
    /// Both moved, and their difference is not what is there: not counted, or read while entries
    /// came and went.
    Differ { entries: u32, sum: u32 },
    /// Both moved, and their difference is what is there.
    Agree,
}

impl EntryCounts {
    pub fn of(entries: u32, sums: &CounterSums) -> Self {
        let Some(sum) = sums.inserted_less_removed() else { return Self::Absent };
        match sums.insert > 0 && sums.delete_list > Some(0) {
            false => Self::Still,
            true if sum == entries => Self::Agree,
            true => Self::Differ { entries, sum },
        }
    }

    /// Why they do not count; `Ok` where they do.
    pub fn why(self) -> Result<(), String> {
        match self {
            Self::Agree => Ok(()),
            Self::Absent => Err("this kernel's counters have no column delete_list".to_owned()),
            Self::Still => Err("insert and delete_list did not both move since the namespace was \
                                made: most kernels count nothing there"
                .to_owned()),
            Self::Differ { entries, sum } => Err(format!(
                "insert less delete_list is {}, but there are {entries} entries",
                sum.cast_signed()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu: u16, drop: u32, insert_failed: u32, chaintoolong: Option<u32>) -> CpuCounters {
        CpuCounters { cpu, drop, insert_failed, chaintoolong, ..Default::default() }
    }

    /// What `drop` comes to, and how often something may be missing.
    fn drops(readings: &[(u64, &[CpuCounters])]) -> (u64, u32) {
        let mut summing = Summing::default();
        let mut sums = CounterSums::default();
        for (second, cpus) in readings {
            sums = summing.take(cpus, Duration::from_secs(*second));
        }
        (sums.drop, sums.gaps)
    }

    #[test]
    fn all_cpus_are_summed() {
        let cpus = [cpu(0, 10, 1, Some(1)), cpu(1, 20, 2, Some(0))];
        let sums = CounterSums::of(&cpus);
        assert_eq!((sums.drop, sums.insert_failed, sums.chaintoolong), (30, 3, Some(1)));
        assert_eq!((sums.cpus, sums.gaps), (2, 0));
        assert_eq!(CounterSums::of(&[cpu(0, 1, 1, None)]).chaintoolong, None);
        assert_eq!(drops(&[(0, &cpus), (1, &[cpu(1, 25, 2, None), cpu(0, 11, 1, None)])]), (36, 0));
    }

    #[test]
    fn a_counter_that_wraps_around_goes_on() {
        let last = u32::MAX - 1;
        let wraps = drops(&[(0, &[cpu(0, last, 0, None)]), (1, &[cpu(0, 3, 0, None)])]);
        assert_eq!(wraps, (u64::from(last) + 5, 0));
    }

    #[test]
    fn a_counter_that_begins_anew_counts_from_zero() {
        let anew = drops(&[(0, &[cpu(0, 1000, 0, None)]), (1, &[cpu(0, 7, 0, None)])]);
        assert_eq!(anew, (1007, 1), "what it was is not known");
    }

    #[test]
    fn a_step_beyond_half_is_never_less() {
        let step = drops(&[(0, &[cpu(0, 1000, 0, None)]), (1, &[cpu(0, 3_000_000_000, 0, None)])]);
        assert_eq!(step, (3_000_000_000, 0), "not the value itself");
    }

    /// 50,000 a second for a day: more than a counter of 32 bits holds.
    #[test]
    fn a_counter_kept_up_with_loses_nothing() {
        const PER_S: u64 = 50_000;
        const DAY: u64 = 86_400;
        let mut summing = Summing::default();
        let mut sums = CounterSums::default();
        for second in (0..=DAY).step_by(KEPT_UP.as_secs() as usize) {
            let now = cpu(0, (second * PER_S) as u32, 0, None);
            sums = summing.take(&[now], Duration::from_secs(second));
        }
        assert_eq!((sums.drop, sums.gaps), (DAY * PER_S, 0));
    }

    #[test]
    fn one_read_too_late_may_have_gone_round() {
        let after =
            |seconds| drops(&[(0, &[cpu(0, 1, 0, None)]), (seconds, &[cpu(0, 9, 0, None)])]);
        assert_eq!(after(500), (9, 0));
        assert_eq!(after(600), (9, 1));
    }

    #[test]
    fn entry_counts_are_told_by_an_identity() {
        use EntryCounts::{Absent, Agree, Differ, Still};
        let cpu = |cpu, insert, delete_list| CpuCounters {
            cpu,
            insert,
            delete_list,
            ..CpuCounters::default()
        };
        let of = |entries, cpus: &[CpuCounters]| EntryCounts::of(entries, &CounterSums::of(cpus));
        // One CPU inserts what another removes, and both wrap around.
        let cpus = [cpu(0, u32::MAX, Some(3)), cpu(1, 5, Some(0)), cpu(2, 0, Some(u32::MAX - 1))];
        assert_eq!(of(3, &cpus), Agree);
        assert_eq!(of(2, &cpus), Differ { entries: 2, sum: 3 });
        // A kernel that keeps the columns; one whose entries came by ctnetlink, which it counts.
        assert_eq!(of(50, &[cpu(0, 0, Some(0))]), Still);
        assert_eq!(of(50, &[cpu(0, 50, Some(0))]), Still);
        assert_eq!(of(50, &[cpu(0, 50, None)]), Absent);
        assert_eq!(of(0, &[]), Absent);
        assert_eq!((Agree.why().is_ok(), Still.why().is_ok()), (true, false));
    }
}
