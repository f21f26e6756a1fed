//! From what was witnessed in one namespace to an interval for each reason: pure arithmetic.
//!
//! Three witnesses testify. Conntrack's counters are exact, but lump reasons together. The probes
//! see every drop, but cannot tell a full table from a rule in the raw table. The number of
//! entries is exact at one moment. Each reason's count is the interval that none of them
//! contradicts.

use super::{counters::Counts, figure::Bounds};

/// What the tracepoints saw dropped, each at most (the probes may have missed some, which is
/// included here).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// With no conntrack attached.
    pub(super) untracked: u64,
    /// With an unconfirmed entry attached.
    pub(super) unconfirmed: u64,
    /// Those of them that NAT had changed.
    pub(super) unconfirmed_nat: u64,
}

impl Dropped {
    /// Up to so many more of each.
    pub(super) fn or_missed(self, missed: u64) -> Self {
        Self {
            untracked: self.untracked.saturating_add(missed),
            unconfirmed: self.unconfirmed.saturating_add(missed),
            unconfirmed_nat: self.unconfirmed_nat.saturating_add(missed),
        }
    }
}

/// What is known of one namespace's refusals, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// `None`: the counters were never read.
    pub(super) counts: Option<Counts>,
    /// The counters were read from the start up to now.
    pub(super) complete: bool,
    /// At most so many of the counted refusals at the door were a protocol tracker's verdict.
    pub(super) tracker: u64,
    /// At most so many of them were for lack of memory.
    pub(super) no_memory: u64,
    /// `None`: no probe watches.
    pub(super) dropped: Option<Dropped>,
}

/// An interval for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasons {
    pub(super) table_full: Bounds,
    pub(super) no_memory: Bounds,
    pub(super) tracker: Bounds,
    pub(super) clash: Bounds,
    pub(super) chain_too_long: Bounds,
    pub(super) nat_exhausted: Bounds,
    pub(super) early_drop: Bounds,
    pub(super) invalid: Bounds,
}

impl Evidence {
    pub(super) fn reasons(&self) -> Reasons {
        let counts = self.counts.unwrap_or_default();
        let door = self.interval(counts.refused_at_door(), |dropped| dropped.untracked);
        let confirm = self.interval(counts.refused_at_confirm(), |dropped| dropped.unconfirmed);

        // What the counters have not been read for may have had any reason.
        let tracker = door.up_to(self.tracker.saturating_add(door.unread()));
        let no_memory = door.up_to(self.no_memory.saturating_add(door.unread()));
        let table_full = door
            .less(self.tracker.saturating_add(self.no_memory))
            .capped(self.dropped.map(|dropped| dropped.untracked));

        let nat = confirm.up_to(self.dropped.map_or(u64::MAX, |dropped| dropped.unconfirmed_nat));
        let clash = confirm.less(nat.most_counted(&confirm));

        Reasons {
            table_full: table_full.bounds(),
            no_memory: no_memory.bounds(),
            tracker: tracker.bounds(),
            clash: clash.bounds(),
            nat_exhausted: nat.bounds(),
            chain_too_long: self.counted(counts.chaintoolong),
            early_drop: self.counted(self.counts.map(|counts| counts.early_drop)),
            invalid: self.counted(self.counts.map(|counts| counts.invalid)),
        }
    }

    /// A figure that a counter of its own gives.
    fn counted(&self, count: Option<u64>) -> Bounds {
        match count {
            None => Bounds::Unmeasured,
            Some(count) if self.complete => Bounds::exactly(count),
            Some(count) => Bounds::at_least(count),
        }
    }

    /// What the counters say, and beyond what was read of them the probes.
    fn interval(&self, counted: u64, seen: impl Fn(&Dropped) -> u64) -> Interval {
        let most = match (self.complete, &self.dropped) {
            (true, _) => Some(counted),
            (false, Some(dropped)) => Some(seen(dropped).max(counted)),
            (false, None) => None,
        };
        let measured = self.counts.is_some() || self.dropped.is_some();
        Interval { least: counted, most, counted, measured }
    }
}

/// An interval in the making.
#[derive(Clone, Copy)]
struct Interval {
    least: u64,
    most: Option<u64>,
    /// What the counters counted of all the reasons that this one is mixed with.
    counted: u64,
    measured: bool,
}

impl Interval {
    /// Some of these, perhaps none, and not more than `limit`.
    fn up_to(self, limit: u64) -> Self {
        Self { least: 0, most: self.most.map(|most| most.min(limit)), ..self }
    }

    /// These without those that may have had another reason.
    fn less(self, others: u64) -> Self {
        Self { least: self.counted.saturating_sub(others), ..self }
    }

    fn capped(self, cap: Option<u64>) -> Self {
        let most = match (self.most, cap) {
            (Some(most), Some(cap)) => Some(most.min(cap)),
            (most, _) => most,
        };
        Self { most, ..self }
    }

    /// How many of those that the counters counted this one may be.
    fn most_counted(&self, of: &Self) -> u64 {
        self.most.unwrap_or(u64::MAX).min(of.counted)
    }

    /// How many there may be that the counters were not read for.
    fn unread(&self) -> u64 {
        self.most.map_or(u64::MAX, |most| most - self.counted)
    }

    fn bounds(self) -> Bounds {
        match self.most {
            _ if !self.measured => Bounds::Unmeasured,
            Some(most) => Bounds::between(self.least, most),
            None => Bounds::at_least(self.least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(drop: u64, insert_failed: u64, chain: u64, invalid: u64) -> Option<Counts> {
        let chaintoolong = Some(chain);
        Some(Counts { drop, insert_failed, chaintoolong, invalid, early_drop: 0 })
    }

    /// Counters read to the end, probes that saw `untracked` and `unconfirmed` drops.
    fn evidence(counts: Option<Counts>, dropped: Dropped) -> Evidence {
        Evidence { counts, complete: true, tracker: 0, no_memory: 0, dropped: Some(dropped) }
    }

    fn dropped(untracked: u64, unconfirmed: u64, unconfirmed_nat: u64) -> Dropped {
        Dropped { untracked, unconfirmed, unconfirmed_nat }
    }

    #[test]
    fn a_full_table_alone_is_exact_and_so_is_every_zero_beside_it() {
        let reasons = evidence(counts(1783, 0, 0, 0), dropped(1783, 0, 0)).reasons();
        assert_eq!(reasons.table_full, Bounds::exactly(1783));
        for zero in [reasons.no_memory, reasons.tracker, reasons.clash, reasons.nat_exhausted] {
            assert_eq!(zero, Bounds::exactly(0));
        }
    }

    #[test]
    fn a_raw_rule_that_drops_a_million_is_no_drop_of_conntrack() {
        let reasons = evidence(counts(0, 0, 0, 0), dropped(1_000_000, 0, 0)).reasons();
        assert_eq!(reasons.table_full, Bounds::exactly(0));
    }

    #[test]
    fn a_filter_rule_that_drops_new_flows_is_no_clash() {
        let reasons = evidence(counts(0, 0, 0, 0), dropped(0, 500, 500)).reasons();
        assert_eq!(reasons.clash, Bounds::exactly(0));
        assert_eq!(reasons.nat_exhausted, Bounds::exactly(0));
    }

    #[test]
    fn drops_that_bumped_invalid_too_may_be_the_trackers() {
        let mut evidence = evidence(counts(100, 0, 0, 40), dropped(100, 0, 0));
        evidence.tracker = 3;
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::between(97, 100));
        assert_eq!(reasons.tracker, Bounds::between(0, 3));
    }

    #[test]
    fn refusals_for_lack_of_memory_come_off_the_lower_bound() {
        let mut evidence = evidence(counts(100, 0, 0, 0), dropped(100, 0, 0));
        evidence.no_memory = 10;
        assert_eq!(evidence.reasons().table_full, Bounds::between(90, 100));
        assert_eq!(evidence.reasons().no_memory, Bounds::between(0, 10));
    }

    #[test]
    fn counters_alone_cannot_tell_the_reasons_apart_but_know_when_there_was_none() {
        let mut evidence = evidence(counts(100, 30, 0, 0), Dropped::default());
        (evidence.dropped, evidence.no_memory) = (None, 70);
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::between(0, 70));
        assert_eq!(reasons.no_memory, Bounds::between(0, 70));
        assert_eq!(reasons.clash, Bounds::between(0, 30));
        assert_eq!(reasons.nat_exhausted, Bounds::between(0, 30));
        (evidence.counts, evidence.no_memory) = (counts(0, 0, 0, 0), 0);
        assert_eq!(evidence.reasons().table_full, Bounds::exactly(0));
    }

    #[test]
    fn long_chains_have_a_counter_of_their_own() {
        let reasons = evidence(counts(0, 12, 12, 0), dropped(0, 12, 0)).reasons();
        assert_eq!(reasons.chain_too_long, Bounds::exactly(12));
        assert_eq!(reasons.clash, Bounds::exactly(0));
    }

    #[test]
    fn refusals_after_nat_may_be_exhausted_ports_or_a_clash() {
        let reasons = evidence(counts(50, 50, 0, 0), dropped(0, 50, 50)).reasons();
        assert_eq!(reasons.nat_exhausted, Bounds::between(0, 50));
        assert_eq!(reasons.clash, Bounds::between(0, 50));
        let reasons = evidence(counts(50, 50, 0, 0), dropped(0, 50, 0)).reasons();
        assert_eq!(reasons.nat_exhausted, Bounds::exactly(0));
        assert_eq!(reasons.clash, Bounds::exactly(50));
    }

    #[test]
    fn a_namespace_that_went_before_it_was_read_is_known_from_the_probes_alone() {
        let mut evidence = evidence(None, dropped(1783, 0, 0));
        evidence.complete = false;
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::between(0, 1783));
        assert_eq!(reasons.invalid, Bounds::Unmeasured);
        evidence.counts = counts(1783, 0, 0, 0);
        assert_eq!(evidence.reasons().table_full, Bounds::exactly(1783), "read at the last moment");
        assert_eq!(evidence.reasons().invalid, Bounds::at_least(0));
    }

    #[test]
    fn without_any_witness_nothing_is_claimed() {
        let reasons = Evidence::default().reasons();
        assert_eq!(reasons.table_full, Bounds::Unmeasured);
        assert_eq!(reasons.chain_too_long, Bounds::Unmeasured);
    }
}
