//! What conntrack's own counters have gone on by.

use crate::record::counters::CounterSums;

/// Counts since watching began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) invalid: u64,
    /// Of worth only where [`EntryCounts`](crate::record::counters::EntryCounts) says so, as `delete_list`.
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

/// From the reading at which counting began to the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    base: CounterSums,
    last: CounterSums,
}

impl Counters {
    /// Counting begins at this reading.
    pub(super) fn from(sums: CounterSums) -> Self {
        Self { base: sums, last: sums }
    }

    /// Counting began with the namespace itself.
    pub(super) fn from_zero(sums: CounterSums) -> Self {
        Self { base: CounterSums::default(), last: sums }
    }

    /// False where something may be missing: then this is what there is at least.
    pub(super) fn advance(&mut self, sums: CounterSums) -> bool {
        let before = std::mem::replace(&mut self.last, sums);
        sums.gaps == before.gaps
    }

    pub(super) fn counts(&self) -> Counts {
        let Self { base, last } = self;
        Counts {
            invalid: last.invalid.saturating_sub(base.invalid),
            insert: last.insert.saturating_sub(base.insert),
            delete_list: last
                .delete_list
                .map_or(0, |now| now.saturating_sub(base.delete_list.unwrap_or(0))),
            insert_failed: last.insert_failed.saturating_sub(base.insert_failed),
            drop: last.drop.saturating_sub(base.drop),
            early_drop: last.early_drop.saturating_sub(base.early_drop),
            clash_resolve: last.clash_resolve.saturating_sub(base.clash_resolve),
            chaintoolong: last
                .chaintoolong
                .map(|now| now.saturating_sub(base.chaintoolong.unwrap_or(0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::counters::CpuCounters;

    fn sums(drop: u32, insert_failed: u32, chaintoolong: Option<u32>) -> CounterSums {
        CounterSums::of(&[CpuCounters { drop, insert_failed, chaintoolong, ..Default::default() }])
    }

    #[test]
    fn counting_begins_at_the_first_reading_or_at_zero() {
        let first = sums(30, 0, Some(1));
        assert_eq!(
            Counters::from(first).counts(),
            Counts { chaintoolong: Some(0), ..Counts::default() }
        );
        assert_eq!(Counters::from_zero(first).counts().drop, 30);
    }

    #[test]
    fn what_may_be_missing_is_told() {
        let mut counters = Counters::from(sums(10, 0, None));
        assert!(counters.advance(sums(12, 0, None)));
        assert!(!counters.advance(CounterSums { gaps: 1, ..sums(15, 0, None) }));
        assert!(counters.advance(CounterSums { gaps: 1, ..sums(16, 0, None) }));
        assert_eq!(counters.counts().drop, 6);
    }

    #[test]
    fn the_door_is_what_confirmation_did_not_refuse() {
        // 7 table-full, 2 lost clashes (drop + insert_failed), 3 long chains (insert_failed only).
        let counts = Counters::from_zero(sums(9, 5, Some(3))).counts();
        assert_eq!((counts.refused_at_confirm(), counts.refused_at_door()), (2, 7));
    }

    #[test]
    fn a_kernel_without_the_chain_counter_has_none() {
        assert_eq!(Counters::from(sums(1, 1, None)).counts().chaintoolong, None);
    }
}
