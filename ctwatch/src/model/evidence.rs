//! From what was witnessed in one namespace to an interval for each reason: pure arithmetic.
//!
//! Three witnesses testify. Conntrack's counters are exact, but lump reasons together. The probes
//! see every refusal where they are on conntrack's own functions, though they may not be run for
//! each; on the kernel's tracepoints they see every drop, but cannot tell a full table from a rule
//! in the raw table. Each reason's count is the interval that none of them contradicts.

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

/// A count that was read just before and just after the other witnesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) least: u64,
    pub(super) most: u64,
    /// At most so many more happened that no program was run for; `None`: nobody knows.
    pub(super) missed: Option<u64>,
}

impl Seen {
    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
            missed: self.missed.zip(other.missed).map(|(one, two)| one.saturating_add(two)),
        }
    }
}

/// What the hooks on conntrack's functions saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) table_full: Seen,
    /// At most so many of them may have been for lack of memory.
    pub(super) or_no_memory: u64,
    /// Refused at confirmation: lost clashes, and NAT without a free tuple. `None` where the
    /// function that decides it cannot be hooked.
    pub(super) confirm: Option<(Seen, Seen)>,
}

impl Refused {
    /// Those that were not for lack of memory.
    fn certainly_full(&self) -> Seen {
        let Self { table_full, or_no_memory, .. } = *self;
        Seen { least: table_full.least.saturating_sub(or_no_memory), ..table_full }
    }
}

/// What is known of one namespace's refusals, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Testimony {
    /// `None`: the counters were never read.
    pub(super) counts: Option<Counts>,
    /// The counters were read from the start up to now.
    pub(super) complete: bool,
    /// At most so many of the counted refusals at the door were a protocol tracker's verdict.
    pub(super) tracker: u64,
    /// At most so many of them were for lack of memory.
    pub(super) no_memory: u64,
    /// `None`: no probe is on the tracepoint.
    pub(super) dropped: Option<Dropped>,
    /// `None`: no probe is on the functions.
    pub(super) refused: Option<Refused>,
    /// So many packets may be counted by one witness and not yet by the other.
    pub(super) in_flight: u64,
}

/// An interval for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasons {
    /// All of them.
    pub(super) dropped: Bounds,
    pub(super) table_full: Bounds,
    pub(super) no_memory: Bounds,
    pub(super) tracker: Bounds,
    pub(super) clash: Bounds,
    /// Clashes and NAT without a free tuple together: often certain where neither is alone.
    pub(super) clash_or_nat_exhausted: Bounds,
    pub(super) chain_too_long: Bounds,
    pub(super) nat_exhausted: Bounds,
    pub(super) early_drop: Bounds,
    pub(super) invalid: Bounds,
}

impl Testimony {
    pub(super) fn reasons(&self) -> Reasons {
        let counts = self.counts.unwrap_or_default();
        let door = self.interval(counts.refused_at_door(), |dropped| dropped.untracked);
        let confirm = self.interval(counts.refused_at_confirm(), |dropped| dropped.unconfirmed);

        // What the counters have not been read for may have had any reason.
        let mut tracker = door.up_to(self.tracker.saturating_add(door.unread()));
        let mut no_memory = door.up_to(self.no_memory.saturating_add(door.unread()));
        let mut table_full = door
            .less(self.tracker.saturating_add(self.no_memory))
            .capped(self.dropped.map(|dropped| dropped.untracked));

        let mut nat =
            confirm.up_to(self.dropped.map_or(u64::MAX, |dropped| dropped.unconfirmed_nat));
        let mut clash = confirm.less(nat.most_counted(&confirm));
        let mut both = confirm;

        if let Some(refused) = &self.refused {
            let rest = door.without(refused.table_full);
            let or_more = door.without(refused.certainly_full());
            (tracker, no_memory) =
                (tracker.of(&rest, &no_memory), no_memory.of(&or_more, &tracker));
            let others = self.tracker.saturating_add(self.no_memory);
            let apart = self.apart(refused.table_full, others, counts.refused_at_door());
            table_full = table_full
                .meet(refused.table_full)
                .wider(apart, refused.table_full)
                .or_fewer(refused.or_no_memory);
            if let Some((clashes, exhausted)) = refused.confirm {
                let seen = clashes.and(exhausted);
                let apart = self.apart(seen, 0, counts.refused_at_confirm());
                both = confirm.meet(seen).wider(apart, seen);
                nat = confirm.without(clashes).meet(exhausted).wider(apart, exhausted);
                clash = confirm.without(exhausted).meet(clashes).wider(apart, clashes);
            }
        }

        Reasons {
            dropped: self.counted(self.counts.map(|counts| counts.dropped())),
            table_full: table_full.bounds(),
            no_memory: no_memory.bounds(),
            tracker: tracker.bounds(),
            clash: clash.bounds(),
            clash_or_nat_exhausted: both.bounds(),
            nat_exhausted: nat.bounds(),
            // Kernels without this counter have no limit either.
            chain_too_long: self
                .counted(self.counts.map(|counts| counts.chaintoolong.unwrap_or(0))),
            early_drop: self.counted(self.counts.map(|counts| counts.early_drop)),
            invalid: self.counted(self.counts.map(|counts| counts.invalid)),
        }
    }

    /// By how much the probes saw more than was counted, and by how much less, beyond what may be on
    /// its way and what may have had other reasons: then one of the two errs, and nobody knows which.
    fn apart(&self, seen: Seen, others: u64, counted: u64) -> (u64, u64) {
        let beyond = |more: u64| if more > self.in_flight { more } else { 0 };
        match (self.complete, seen.missed) {
            (false, _) => (0, 0),
            (true, None) => (beyond(seen.least.saturating_sub(counted)), 0),
            (true, Some(missed)) => {
                let most = seen.most.saturating_add(missed).saturating_add(others);
                let more = beyond(seen.least.saturating_sub(counted));
                (more, beyond(counted.saturating_sub(most)))
            }
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
        let measured = self.counts.is_some() || self.dropped.is_some() || self.refused.is_some();
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

    /// These without what a probe saw of another reason.
    fn without(self, other: Seen) -> Self {
        let least = other
            .missed
            .map_or(0, |missed| self.counted.saturating_sub(other.most.saturating_add(missed)));
        let most = self.most.map(|most| most.saturating_sub(other.least));
        Self { least, most, ..self }
    }

    /// One of the two reasons that are left: what the other cannot have been, it was.
    fn of(self, rest: &Self, other: &Self) -> Self {
        let least = rest.least.saturating_sub(other.most.unwrap_or(u64::MAX));
        match self.capped(rest.most) {
            // More than there can have been: one of the witnesses errs, and nobody knows which.
            Self { most: Some(most), .. } if least > most => Self { least: most, ..*rest },
            capped => Self { least, ..capped },
        }
    }

    /// What a probe saw of this very reason. Where nothing can have been missed, that is the
    /// number: each value between its two readings was the truth at some moment between them, so
    /// the one that the counters are nearest to is taken.
    fn meet(self, seen: Seen) -> Self {
        if seen.missed == Some(0) {
            let point = self.most.map_or(seen.most, |most| most.clamp(seen.least, seen.most));
            return Self { least: point, most: Some(point), ..self };
        }
        let most_seen = seen.missed.map(|missed| seen.most.saturating_add(missed));
        let least = self.least.max(seen.least);
        Self { least, ..self }.capped(most_seen).or(most_seen)
    }

    /// Where the witnesses are so far apart, from what the one says to what the other does.
    fn wider(self, (more_seen, less_seen): (u64, u64), seen: Seen) -> Self {
        let least = match less_seen {
            0 => self.least.saturating_sub(more_seen),
            _ => self.least.min(seen.least),
        };
        Self { least, most: self.most.map(|most| most.saturating_add(less_seen)), ..self }
    }

    fn or_fewer(self, fewer: u64) -> Self {
        Self { least: self.least.saturating_sub(fewer), ..self }
    }

    fn or(self, most: Option<u64>) -> Self {
        Self { most: self.most.or(most), ..self }
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
        Some(Counts { drop, insert_failed, chaintoolong, invalid, ..Counts::default() })
    }

    /// Counters read to the end, probes that saw `untracked` and `unconfirmed` drops.
    fn evidence(counts: Option<Counts>, dropped: Dropped) -> Testimony {
        Testimony {
            counts,
            complete: true,
            tracker: 0,
            no_memory: 0,
            dropped: Some(dropped),
            refused: None,
            in_flight: 0,
        }
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
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::exactly(30));
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
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::exactly(50));
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
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::exactly(0));
        assert_eq!(reasons.invalid, Bounds::Unmeasured);
        evidence.counts = counts(1783, 0, 0, 0);
        assert_eq!(evidence.reasons().table_full, Bounds::exactly(1783), "read at the last moment");
        assert_eq!(evidence.reasons().invalid, Bounds::at_least(0));
    }

    fn seen(count: u64, missed: Option<u64>) -> Seen {
        Seen { least: count, most: count, missed }
    }

    /// Counters, and hooks on the functions that saw this much of each.
    fn hooked(
        counts: Option<Counts>,
        full: u64,
        clash: u64,
        nat: u64,
        missed: Option<u64>,
    ) -> Testimony {
        let refused = Refused {
            table_full: seen(full, missed),
            or_no_memory: 0,
            confirm: Some((seen(clash, missed), seen(nat, missed))),
        };
        Testimony {
            counts,
            complete: counts.is_some(),
            refused: Some(refused),
            ..Testimony::default()
        }
    }

    #[test]
    fn hooks_that_miss_nothing_tell_every_reason_apart() {
        // 100 at the door, 3 of them the tracker's; 30 at confirmation.
        let mut evidence = hooked(counts(130, 30, 0, 40), 97, 10, 20, Some(0));
        evidence.tracker = 40;
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::exactly(97));
        assert_eq!(reasons.tracker, Bounds::exactly(3));
        assert_eq!(reasons.no_memory, Bounds::exactly(0));
        assert_eq!(reasons.clash, Bounds::exactly(10));
        assert_eq!(reasons.nat_exhausted, Bounds::exactly(20));
    }

    #[test]
    fn what_is_neither_a_full_table_nor_the_trackers_was_for_lack_of_memory() {
        let mut evidence = hooked(counts(100, 0, 0, 40), 30, 0, 0, Some(0));
        (evidence.tracker, evidence.no_memory) = (10, 100);
        let reasons = evidence.reasons();
        assert_eq!(reasons.no_memory, Bounds::between(60, 70));
        assert_eq!(reasons.tracker, Bounds::between(0, 10));
        // The page allocator says that it refused less than that.
        evidence.no_memory = 50;
        assert_eq!(evidence.reasons().no_memory, Bounds::between(50, 70));
    }

    #[test]
    fn a_full_table_without_memory_leaves_a_doubt() {
        let mut evidence = hooked(counts(100, 0, 0, 0), 90, 0, 0, Some(0));
        evidence.no_memory = 40;
        let certain = evidence.reasons();
        assert_eq!(certain.table_full, Bounds::exactly(90));
        assert_eq!(certain.no_memory, Bounds::exactly(10));
        if let Some(refused) = &mut evidence.refused {
            refused.or_no_memory = 7;
        }
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::between(83, 90));
        assert_eq!(reasons.no_memory, Bounds::between(10, 17));
        assert_eq!(reasons.tracker, certain.tracker);
    }

    #[test]
    fn where_nobody_knows_what_was_missed_agreement_with_the_counters_is_proof() {
        let reasons = hooked(counts(130, 30, 0, 0), 100, 10, 20, None).reasons();
        assert_eq!(reasons.table_full, Bounds::exactly(100));
        assert_eq!(reasons.clash, Bounds::exactly(10));
        assert_eq!(reasons.nat_exhausted, Bounds::exactly(20));
    }

    #[test]
    fn and_disagreement_is_a_margin() {
        let mut evidence = hooked(counts(130, 30, 0, 0), 90, 10, 15, None);
        evidence.no_memory = 20;
        let reasons = evidence.reasons();
        assert_eq!(reasons.table_full, Bounds::between(90, 100));
        assert_eq!(reasons.no_memory, Bounds::between(0, 10));
        assert_eq!(reasons.clash, Bounds::between(10, 15));
        assert_eq!(reasons.nat_exhausted, Bounds::between(15, 20));
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::exactly(30));
        // What the kernel admits to have missed is no more.
        let mut evidence = hooked(counts(100, 0, 0, 0), 97, 0, 0, Some(2));
        evidence.in_flight = 2;
        let full = evidence.reasons().table_full;
        assert_eq!(full, Bounds::between(100, 100), "one is on its way, and the counters saw it");
    }

    #[test]
    fn witnesses_that_contradict_each_other_are_never_exact() {
        const ROUND: u64 = 1 << 32;
        let of = |counted, full, confirm: (u64, u64), missed| {
            let counts = counts(counted + confirm.0, confirm.0, 0, 0);
            let mut evidence = hooked(counts, full, confirm.1, 0, missed);
            evidence.in_flight = 4;
            evidence.reasons()
        };
        // A counter that went all the way round.
        let reasons = of(100, ROUND + 100, (0, 0), Some(0));
        assert_eq!(reasons.table_full, Bounds::between(100, ROUND + 100));
        let reasons = of(100, ROUND + 100, (0, 0), Some(7));
        assert_eq!(reasons.table_full.least(), Some(100));
        let reasons = of(100, 60, (0, 0), Some(0));
        assert_eq!(reasons.table_full, Bounds::between(60, 100));
        let reasons = of(100, 60, (0, 0), Some(10));
        assert_eq!(reasons.table_full, Bounds::between(60, 100));
        assert_eq!(of(100, 97, (0, 0), Some(0)).table_full, Bounds::exactly(97), "on their way");
        let reasons = of(0, 0, (50, 30), Some(0));
        assert_eq!(reasons.clash, Bounds::between(30, 50));
        assert_eq!(reasons.nat_exhausted, Bounds::between(0, 20));
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::between(30, 50));
        let reasons = of(0, 0, (30, 50), Some(0));
        assert_eq!(reasons.clash, Bounds::between(30, 50));
    }

    #[test]
    fn a_namespace_that_is_gone_is_known_exactly_from_hooks_that_miss_nothing() {
        let reasons = hooked(None, 97, 1, 2, Some(0)).reasons();
        assert_eq!(reasons.table_full, Bounds::exactly(97));
        assert_eq!(reasons.clash, Bounds::exactly(1));
        assert_eq!(reasons.nat_exhausted, Bounds::exactly(2));
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::exactly(3));
        let reasons = hooked(None, 97, 1, 2, Some(3)).reasons();
        assert_eq!(reasons.table_full, Bounds::between(97, 100));
        // Three may have been missed of each.
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::between(3, 9));
        let reasons = hooked(None, 97, 1, 2, None).reasons();
        assert_eq!(reasons.table_full, Bounds::at_least(97));
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::at_least(3));
    }

    #[test]
    fn without_any_witness_nothing_is_claimed() {
        let reasons = Testimony::default().reasons();
        assert_eq!(reasons.table_full, Bounds::Unmeasured);
        assert_eq!(reasons.clash_or_nat_exhausted, Bounds::Unmeasured);
        assert_eq!(reasons.chain_too_long, Bounds::Unmeasured);
    }
}
