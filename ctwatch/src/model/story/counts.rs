//! Totals as a time line keeps them: what is certain only grows, however the evidence moves.

use crate::model::{
    Table,
    figure::{Bounds, Exactness, Figure},
};

/// How many reasons there are for which conntrack drops a packet.
pub(super) const REASONS: usize = 6;

/// Where these are in the order of the reasons.
pub const CLASH: usize = 2;
pub const NAT_EXHAUSTED: usize = 4;

/// All that was counted of one table until some moment, through all lives of conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoryCounts {
    pub insertions: Bounds,
    pub removals: Bounds,
    /// For any reason.
    pub dropped: Bounds,
    /// In the order of [`Drops::named`](crate::model::Drops::named).
    pub reasons: [Bounds; REASONS],
    /// Which is no reason of its own: exact in many cases in which neither of the two is.
    pub clash_or_nat_exhausted: Bounds,
    pub early_drop: Bounds,
    /// Entries that the collector evicted.
    pub gc: Bounds,
    pub invalid: Bounds,
}

/// By how much a total grew from one moment to a later one: the certain part of it, and all of it. The
/// increases of consecutive times add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increase {
    pub at_least: u64,
    /// `None`: some of it could not be read.
    pub at_most: Option<u64>,
}

impl StoryCounts {
    pub(super) fn none() -> Self {
        Self::each(|| Bounds::exactly(0))
    }

    pub(super) fn of(table: &Table) -> Self {
        let reasons = table.drops.named().map(|(_, figure)| bounds(figure));
        Self {
            insertions: bounds(&table.insertions),
            removals: bounds(&table.removals),
            dropped: bounds(&table.dropped),
            reasons,
            clash_or_nat_exhausted: bounds(&table.drops.clash_or_nat_exhausted),
            early_drop: bounds(&table.evictions.early_drop),
            gc: bounds(&table.evictions.gc),
            invalid: bounds(&table.invalid),
        }
    }

    pub fn table_full(&self) -> Bounds {
        self.reasons[0]
    }

    /// Packets that were certainly dropped: by conntrack's counters, or else by what was counted for
    /// each reason. It only grows.
    pub fn surely_dropped(&self) -> u64 {
        let least = |count: Bounds| count.least().unwrap_or(0);
        let apart = least(self.reasons[CLASH]) + least(self.reasons[NAT_EXHAUSTED]);
        let of_reasons: u64 = self.reasons.iter().map(|reason| least(*reason)).sum();
        let told = of_reasons - apart + apart.max(least(self.clash_or_nat_exhausted));
        least(self.dropped).max(told)
    }

    /// With what earlier lives of conntrack came to.
    pub(super) fn plus(self, more: Self) -> Self {
        self.zip(more, plus)
    }

    /// A moment later. What was certain stays certain.
    pub(super) fn onward(self, now: Self) -> Self {
        self.zip(now, onward)
    }

    /// What a later moment shows: by then there were no more.
    pub(super) fn before(self, later: Self) -> Self {
        self.zip(later, before)
    }

    /// Between the last reading of a life and its end more may have happened.
    pub(super) fn ended(self) -> Self {
        self.zip(self, |count, _| match count {
            Bounds::Unmeasured => Bounds::Unmeasured,
            Bounds::Within { at_least, .. } => Bounds::at_least(at_least),
        })
    }

    fn each(of: impl Fn() -> Bounds) -> Self {
        Self {
            insertions: of(),
            removals: of(),
            dropped: of(),
            reasons: std::array::from_fn(|_| of()),
            clash_or_nat_exhausted: of(),
            early_drop: of(),
            gc: of(),
            invalid: of(),
        }
    }

    fn zip(self, other: Self, with: impl Fn(Bounds, Bounds) -> Bounds) -> Self {
        let both = |of: fn(&Self) -> Bounds| with(of(&self), of(&other));
        Self {
            insertions: both(|counts| counts.insertions),
            removals: both(|counts| counts.removals),
            dropped: both(|counts| counts.dropped),
            reasons: std::array::from_fn(|at| with(self.reasons[at], other.reasons[at])),
            clash_or_nat_exhausted: both(|counts| counts.clash_or_nat_exhausted),
            early_drop: both(|counts| counts.early_drop),
            gc: both(|counts| counts.gc),
            invalid: both(|counts| counts.invalid),
        }
    }
}

/// From `before` to `now`; `None` where it is not measured now.
pub fn increase(before: Bounds, now: Bounds) -> Option<Increase> {
    let Bounds::Within { at_least, at_most } = now else { return None };
    let (least, most) = match before {
        // It was counted from zero, whenever it could be read for the first time.
        Bounds::Unmeasured => (0, Some(0)),
        Bounds::Within { at_least, at_most } => (at_least, at_most),
    };
    Some(Increase {
        at_least: at_least.saturating_sub(least),
        at_most: at_most.zip(most).map(|(now, before)| now.saturating_sub(before)),
    })
}

/// What a figure says of the count.
pub fn bounds(figure: &Figure) -> Bounds {
    let at_least = figure.at_least.or(figure.total);
    match (figure.exactness, figure.total, at_least) {
        (Exactness::Exact, Some(total), _) => Bounds::exactly(total),
        (Exactness::UpperBound, Some(total), Some(least)) => Bounds::between(least, total),
        (Exactness::LowerBound | Exactness::Estimated, _, Some(least)) => Bounds::at_least(least),
        _ => Bounds::Unmeasured,
    }
}

fn plus(one: Bounds, other: Bounds) -> Bounds {
    match (one, other) {
        (Bounds::Unmeasured, Bounds::Unmeasured) => Bounds::Unmeasured,
        (Bounds::Unmeasured, Bounds::Within { at_least, .. })
        | (Bounds::Within { at_least, .. }, Bounds::Unmeasured) => Bounds::at_least(at_least),
        (
            Bounds::Within { at_least, at_most },
            Bounds::Within { at_least: least, at_most: most },
        ) => Bounds::Within {
            at_least: at_least.saturating_add(least),
            at_most: at_most.zip(most).map(|(one, other)| one.saturating_add(other)),
        },
    }
}

fn onward(last: Bounds, now: Bounds) -> Bounds {
    match (last, now) {
        (Bounds::Unmeasured, now) => now,
        (Bounds::Within { at_least, .. }, Bounds::Unmeasured) => Bounds::at_least(at_least),
        (Bounds::Within { at_least: before, .. }, Bounds::Within { at_least, at_most }) => {
            let at_least = at_least.max(before);
            Bounds::Within { at_least, at_most: at_most.map(|most| most.max(at_least)) }
        }
    }
}

fn before(count: Bounds, later: Bounds) -> Bounds {
    match (count, later) {
        (
            Bounds::Within { at_least, at_most: Some(most) },
            Bounds::Within { at_most: Some(later), .. },
        ) => Bounds::between(at_least, most.min(later)),
        (count, _) => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certain_stays_certain() {
        assert_eq!(onward(Bounds::exactly(5), Bounds::between(3, 9)), Bounds::between(5, 9));
        assert_eq!(onward(Bounds::exactly(5), Bounds::between(3, 4)), Bounds::exactly(5));
        assert_eq!(onward(Bounds::exactly(5), Bounds::Unmeasured), Bounds::at_least(5));
        assert_eq!(onward(Bounds::Unmeasured, Bounds::exactly(2)), Bounds::exactly(2));
    }

    #[test]
    fn a_later_upper_bound_holds_for_earlier() {
        assert_eq!(before(Bounds::between(1, 9), Bounds::between(2, 4)), Bounds::between(1, 4));
        assert_eq!(before(Bounds::between(1, 9), Bounds::at_least(2)), Bounds::between(1, 9));
        assert_eq!(before(Bounds::at_least(1), Bounds::exactly(4)), Bounds::at_least(1));
    }

    #[test]
    fn a_life_that_ended_may_have_dropped_more() {
        let one = StoryCounts { dropped: Bounds::exactly(7), ..StoryCounts::none() };
        let both = one.ended().plus(one);
        assert_eq!(both.dropped, Bounds::at_least(14));
        let blind = StoryCounts { dropped: Bounds::Unmeasured, ..StoryCounts::none() };
        assert_eq!(blind.ended().plus(one).dropped, Bounds::at_least(7));
        assert_eq!(blind.ended().plus(blind).dropped, Bounds::Unmeasured, "not zero");
    }

    #[test]
    fn increases_add_up_to_the_total() {
        let steps =
            [Bounds::exactly(0), Bounds::between(0, 3), Bounds::between(2, 7), Bounds::exactly(7)];
        let increases: Vec<_> =
            steps.windows(2).filter_map(|pair| increase(pair[0], pair[1])).collect();
        assert_eq!(increases.iter().map(|step| step.at_least).sum::<u64>(), 7);
        assert_eq!(increases.iter().filter_map(|step| step.at_most).sum::<u64>(), 7);
        assert_eq!(increase(Bounds::exactly(3), Bounds::Unmeasured), None, "not zero");
    }
}
