//! Conntrack's own counters, summed over CPUs and freed of their 32-bit wrap-around.

use std::{collections::BTreeMap, time::Duration};

use crate::record::sample::CpuCounters;

/// No CPU refuses, or finds invalid, more packets in a second: that would be 250 ns for each, all of
/// the way from the driver to conntrack's hash table, where the fastest seen takes more than 1,000.
pub const MOST_PER_S: u64 = 4_000_000;
/// A counter of 32 bits that is read again within this time has gone on by less than 2^31, so what it
/// has gone on by is known: 2^31 / 4,000,000 a second is 536 s.
pub(super) const UNREAD: Duration = Duration::from_secs((1 << 31) / MOST_PER_S);
/// So they are read this often, however seldom they are shown: at a ninth of that time.
pub const KEPT_UP: Duration = Duration::from_secs(60);
const _: () = assert!(KEPT_UP.as_secs() * 8 < UNREAD.as_secs());

/// Counts since watching began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) invalid: u64,
    /// Of worth only where [`EntryCounts`](crate::record::sample::EntryCounts) says so, as `delete_list`.
    pub(super) insert: u64,
    pub(super) delete_list: u64,
    pub(super) insert_failed: u64,
    pub(super) drop: u64,
    pub(super) early_drop: u64,
    pub(super) clash_resolve: u64,
    /// `None` where the kernel has no such counter.
    pub(super) chaintoolong: Option<u64>,
}

impl Counts {
    /// Packets refused at confirmation for another reason than the length of a chain: those bump
    /// `insert_failed` and `drop`, a chain too long bumps `insert_failed` and `chaintoolong`.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
    pub(super) fn refused_at_confirm(&self) -> u64 {
        self.insert_failed.saturating_sub(self.chaintoolong.unwrap_or(0))
    }

    /// All packets that conntrack dropped: a chain too long bumps no `drop`.
    pub(super) fn dropped(&self) -> u64 {
        self.drop + self.chaintoolong.unwrap_or(0)
    }

    /// Packets refused by `nf_conntrack_in`: table full, no memory, or the tracker's own verdict.
    pub(super) fn refused_at_door(&self) -> u64 {
        self.drop.saturating_sub(self.refused_at_confirm())
    }
}

/// Adds up the differences between readings, CPU by CPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    last: BTreeMap<u16, CpuCounters>,
    pub(super) counts: Counts,
}

impl Counters {
    /// Counting begins at this reading.
    pub(super) fn from(cpus: &[CpuCounters]) -> Self {
        let mut counters = Self::from_zero(cpus);
        counters.counts =
            Counts { chaintoolong: counters.counts.chaintoolong.map(|_| 0), ..Counts::default() };
        counters
    }

    /// Counting began with the namespace itself.
    pub(super) fn from_zero(cpus: &[CpuCounters]) -> Self {
        let mut counters = Self::default();
        // From zero it can only go on.
        let _ = counters.advance(cpus);
        counters
    }

    /// False where one of them went back: then this is what there is at least.
    pub(super) fn advance(&mut self, cpus: &[CpuCounters]) -> bool {
        let mut went_on = true;
        let mut more = |now: u32, last: u32| {
            let (more, is_so) = more(now, last);
            went_on &= is_so;
            more
        };
        for now in cpus {
            let last = self.last.insert(now.cpu, *now).unwrap_or_default();
            let counts = &mut self.counts;
            counts.invalid += more(now.invalid, last.invalid);
            counts.insert += more(now.insert, last.insert);
            let removed = [now, &last].map(|cpu| cpu.delete_list.unwrap_or(0));
            counts.delete_list += more(removed[0], removed[1]);
            counts.insert_failed += more(now.insert_failed, last.insert_failed);
            counts.drop += more(now.drop, last.drop);
            counts.early_drop += more(now.early_drop, last.early_drop);
            counts.clash_resolve += more(now.clash_resolve, last.clash_resolve);
            if let Some(chain) = now.chaintoolong {
                let last = last.chaintoolong.unwrap_or(0);
                *counts.chaintoolong.get_or_insert(0) += more(chain, last);
            }
        }
        went_on
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu: u16, drop: u32, insert_failed: u32, chaintoolong: Option<u32>) -> CpuCounters {
        CpuCounters { cpu, drop, insert_failed, chaintoolong, ..Default::default() }
    }

    #[test]
    fn counting_begins_at_the_first_reading_or_at_zero() {
        let cpus = [cpu(0, 10, 0, Some(1)), cpu(1, 20, 0, Some(0))];
        assert_eq!(Counters::from(&cpus).counts.drop, 0);
        assert_eq!(Counters::from(&cpus).counts.chaintoolong, Some(0));
        assert_eq!(Counters::from_zero(&cpus).counts.drop, 30);
    }

    #[test]
    fn a_counter_that_wraps_around_goes_on() {
        let mut counters = Counters::from(&[cpu(0, u32::MAX - 1, 0, None)]);
        assert!(counters.advance(&[cpu(0, 3, 0, None)]));
        assert_eq!(counters.counts.drop, 5);
    }

    #[test]
    fn a_counter_that_begins_anew_counts_from_zero() {
        let mut counters = Counters::from(&[cpu(0, 1000, 0, None)]);
        assert!(!counters.advance(&[cpu(0, 7, 0, None)]), "what it was is not known");
        assert_eq!(counters.counts.drop, 7);
    }

    #[test]
    fn a_step_beyond_half_is_never_less() {
        let mut counters = Counters::from(&[cpu(0, 1000, 0, None)]);
        assert!(counters.advance(&[cpu(0, 3_000_000_000, 0, None)]));
        assert_eq!(counters.counts.drop, 2_999_999_000, "not the value itself");
    }

    #[test]
    fn the_door_is_what_confirmation_did_not_refuse() {
        // 7 table-full, 2 lost clashes (drop + insert_failed), 3 long chains (insert_failed only).
        let counts = Counters::from_zero(&[cpu(0, 9, 5, Some(3))]).counts;
        assert_eq!((counts.refused_at_confirm(), counts.refused_at_door()), (2, 7));
    }

    #[test]
    fn a_kernel_without_the_chain_counter_has_none() {
        assert_eq!(Counters::from(&[cpu(0, 1, 1, None)]).counts.chaintoolong, None);
    }
}
