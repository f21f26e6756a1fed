//! A number together with what is known about it.

/// How far a number can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Every event was counted, and nothing else.
    Exact,
    /// It is at most this; the truth is between `at_least` and it.
    UpperBound,
    /// It is at least this: what could be read until the namespace was out of reach.
    LowerBound,
    /// More came than could be told apart: some were counted for several, chosen at random.
    Estimated,
    /// Nothing here measures it. Not zero: unknown.
    Unavailable,
}

impl Exactness {
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::UpperBound => "upper_bound",
            Self::LowerBound => "lower_bound",
            Self::Estimated => "estimated",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A total since the start, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub total: Option<u64>,
    /// The least it can be: equal to `total` where that is exact.
    pub at_least: Option<u64>,
    /// `None` also in the first sample, which has nothing before it.
    pub per_s: Option<f64>,
    pub exactness: Exactness,
}

impl Figure {
    /// The interval that it stands for.
    pub fn bounds(&self) -> Bounds {
        match (self.exactness, self.at_least, self.total) {
            (Exactness::Exact | Exactness::UpperBound, Some(at_least), Some(total)) => {
                Bounds::between(at_least, total)
            }
            (Exactness::Unavailable, ..) | (_, None, _) => Bounds::Unmeasured,
            (_, Some(at_least), _) => Bounds::at_least(at_least),
        }
    }

    /// Of several namespaces together. Where something is missing from one, it is missing from the sum.
    pub fn sum<'a>(figures: impl Iterator<Item = &'a Self>) -> Self {
        let (mut at_least, mut total, mut per_s) = (0, Some(0), Some(0.0));
        let (mut none, mut exactness) = (true, Exactness::Exact);
        for figure in figures {
            none &= figure.total.is_none();
            at_least += figure.at_least.unwrap_or(0);
            total = total.zip(figure.total).map(|(sum, more)| sum + more);
            per_s = per_s.zip(figure.per_s).map(|(sum, more)| sum + more);
            exactness = match (exactness, figure.exactness) {
                (Exactness::Exact, other) => other,
                (bound, Exactness::Exact) => bound,
                (Exactness::UpperBound, Exactness::UpperBound) => Exactness::UpperBound,
                _ => Exactness::LowerBound,
            };
        }
        if none {
            return Bounds::Unmeasured.figure(None, None);
        }
        if matches!(exactness, Exactness::LowerBound | Exactness::Unavailable) {
            let total = Some(at_least);
            return Self { total, at_least: total, per_s, exactness: Exactness::LowerBound };
        }
        Self { total, at_least: Some(at_least), per_s, exactness }
    }
}

/// What the evidence says about a count: not less than `at_least`, not more than `at_most`.
///
/// Every cause of doubt widens the interval, every independent witness narrows it; the exactness
/// mark follows from it and is never set by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    Unmeasured,
    Within {
        at_least: u64,
        /// `None`: some of it could not be read.
        at_most: Option<u64>,
    },
}

impl Bounds {
    pub fn exactly(count: u64) -> Self {
        Self::Within { at_least: count, at_most: Some(count) }
    }

    /// An interval; witnesses that contradict each other (read at slightly different moments) make
    /// the lower one win, since something counted it.
    pub fn between(at_least: u64, at_most: u64) -> Self {
        Self::Within { at_least, at_most: Some(at_most.max(at_least)) }
    }

    pub fn at_least(count: u64) -> Self {
        Self::Within { at_least: count, at_most: None }
    }

    pub fn or_unmeasured(bounds: Option<Self>) -> Self {
        bounds.unwrap_or(Self::Unmeasured)
    }

    /// The number to show: the upper end where there is one.
    pub fn total(self) -> Option<u64> {
        match self {
            Self::Unmeasured => None,
            Self::Within { at_least, at_most } => Some(at_most.unwrap_or(at_least)),
        }
    }

    pub fn least(self) -> Option<u64> {
        match self {
            Self::Unmeasured => None,
            Self::Within { at_least, .. } => Some(at_least),
        }
    }

    pub fn exactness(self) -> Exactness {
        match self {
            Self::Unmeasured => Exactness::Unavailable,
            Self::Within { at_most: None, .. } => Exactness::LowerBound,
            Self::Within { at_least, at_most: Some(most) } if at_least == most => Exactness::Exact,
            Self::Within { .. } => Exactness::UpperBound,
        }
    }

    /// What came since the total was `before`. `was_read`: nothing was out of reach then.
    #[must_use]
    pub fn since(self, before: Self, was_read: bool) -> Self {
        let (
            Self::Within { at_least: least, at_most: most },
            Self::Within { at_least: least_before, at_most: most_before },
        ) = (self, before)
        else {
            return Self::Unmeasured;
        };
        let at_least = match most_before {
            Some(before) => least.saturating_sub(before),
            // What was missed before stays missed, so what a lower bound grew by has come since.
            None if was_read && most.is_none() => least.saturating_sub(least_before),
            // What was missed before may have been read since.
            None => 0,
        };
        match most.and_then(|most| most.checked_sub(least_before)) {
            Some(at_most) => Self::between(at_least, at_most),
            None => Self::at_least(at_least),
        }
    }

    /// A total does not go back: it is not less than it was `before`.
    #[must_use]
    pub fn at_least_as(self, before: Self) -> Self {
        match (self, before.least()) {
            (Self::Within { at_least, at_most: Some(most) }, Some(least)) => {
                Self::between(at_least.max(least), most)
            }
            (Self::Within { at_least, at_most: None }, Some(least)) => {
                Self::at_least(at_least.max(least))
            }
            // What was counted stays counted where nothing measures it any more.
            (Self::Unmeasured, Some(least)) => Self::at_least(least),
            (_, None) => self,
        }
    }

    /// With its rate since the total was `before`, `seconds` ago.
    pub fn figure(self, before: Option<u64>, seconds: Option<f64>) -> Figure {
        let total = self.total();
        let per_s = match (total, before, seconds) {
            (Some(now), Some(before), Some(seconds)) if seconds > 0.0 => {
                Some(now.saturating_sub(before) as f64 / seconds)
            }
            _ => None,
        };
        Figure { total, at_least: self.least(), per_s, exactness: self.exactness() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_follows_from_the_interval() {
        assert_eq!(Bounds::exactly(3).exactness(), Exactness::Exact);
        assert_eq!(Bounds::between(3, 3).exactness(), Exactness::Exact);
        assert_eq!(Bounds::between(3, 4).exactness(), Exactness::UpperBound);
        assert_eq!(Bounds::at_least(3).exactness(), Exactness::LowerBound);
        assert_eq!(Bounds::Unmeasured.exactness(), Exactness::Unavailable);
    }

    #[test]
    fn a_sum_is_as_good_as_its_worst_part() {
        let of = |bounds: &[Bounds]| {
            let figures: Vec<Figure> =
                bounds.iter().map(|bounds| bounds.figure(Some(0), Some(1.0))).collect();
            let sum = Figure::sum(figures.iter());
            (sum.at_least, sum.total, sum.exactness)
        };
        let (exact, some, least) = (Bounds::exactly(3), Bounds::between(1, 5), Bounds::at_least(2));
        assert_eq!(of(&[exact, exact]), (Some(6), Some(6), Exactness::Exact));
        assert_eq!(of(&[exact, some]), (Some(4), Some(8), Exactness::UpperBound));
        assert_eq!(of(&[some, least]), (Some(3), Some(3), Exactness::LowerBound));
        assert_eq!(of(&[exact, Bounds::Unmeasured]), (Some(3), Some(3), Exactness::LowerBound));
        assert_eq!(of(&[Bounds::Unmeasured]), (None, None, Exactness::Unavailable));
    }

    #[test]
    fn what_was_counted_wins_over_a_bound_below_it() {
        assert_eq!(Bounds::between(5, 4), Bounds::exactly(5));
    }

    #[test]
    fn a_figure_stands_for_its_interval() {
        for bounds in [
            Bounds::exactly(3),
            Bounds::between(1, 4),
            Bounds::at_least(2),
            Bounds::at_least(0),
            Bounds::Unmeasured,
        ] {
            assert_eq!(bounds.figure(None, None).bounds(), bounds);
        }
    }

    /// Whatever the totals were that two intervals allow, what lies between them is in the difference.
    #[test]
    fn a_difference_holds_what_came_since() {
        let intervals = |truth: u64| {
            let within = (0..=truth).flat_map(move |least| {
                [Some(truth), Some(truth + 1), Some(truth + 3), None]
                    .map(|at_most| Bounds::Within { at_least: least, at_most })
            });
            within.collect::<Vec<_>>()
        };
        let mut looked_at = 0;
        for (before, now) in [(0, 0), (0, 4), (3, 3), (2, 5)] {
            for (was, is) in intervals(before).into_iter().flat_map(|was| {
                intervals(now).into_iter().map(move |is| (was, is)).collect::<Vec<_>>()
            }) {
                let Bounds::Within { at_least, at_most } = is.since(was, false) else {
                    panic!("{was:?} {is:?}")
                };
                let came = now - before;
                assert!(at_least <= came, "{was:?} {is:?}: {at_least}");
                assert!(at_most.is_none_or(|most| most >= came), "{was:?} {is:?}: {at_most:?}");
                looked_at += 1;
            }
        }
        assert!(looked_at > 200, "{looked_at}");
    }

    #[test]
    fn a_total_does_not_go_back() {
        let (exact, some, least) = (Bounds::exactly, Bounds::between, Bounds::at_least);
        for (now, before, after) in [
            (exact(5), exact(3), exact(5)),
            (some(2, 9), exact(4), some(4, 9)),
            (some(2, 3), exact(4), exact(4)),
            (least(2), some(4, 9), least(4)),
            (least(6), some(4, 9), least(6)),
            (exact(5), Bounds::Unmeasured, exact(5)),
            (Bounds::Unmeasured, exact(5), least(5)),
        ] {
            assert_eq!(now.at_least_as(before), after, "{now:?} {before:?}");
        }
    }

    #[test]
    fn a_difference_is_as_sharp_as_it_can_be() {
        let (exact, some, least) = (Bounds::exactly, Bounds::between, Bounds::at_least);
        for (now, before, since) in [
            (exact(7), exact(3), exact(4)),
            (some(5, 9), exact(3), some(2, 6)),
            (exact(9), some(2, 4), some(5, 7)),
            (some(3, 5), some(0, 5), some(0, 5)),
            (least(50), exact(10), least(40)),
            (least(50), some(5, 10), least(40)),
            (least(50), least(10), least(40)),
            // It was out of reach, and is not any more.
            (exact(50), least(10), some(0, 40)),
            (Bounds::Unmeasured, exact(0), Bounds::Unmeasured),
            (exact(0), Bounds::Unmeasured, Bounds::Unmeasured),
            // Another total: nothing is known.
            (exact(1), exact(5), least(0)),
        ] {
            assert_eq!(now.since(before, true), since, "{now:?} {before:?}");
        }
        assert_eq!(least(50).since(least(10), false), least(0), "10 may be what was read of 50");
    }

    #[test]
    fn unmeasured_has_no_number_and_no_rate() {
        let figure = Bounds::Unmeasured.figure(Some(0), Some(1.0));
        assert_eq!((figure.total, figure.per_s), (None, None));
    }

    #[test]
    fn a_rate_needs_something_before_it() {
        assert_eq!(Bounds::exactly(30).figure(None, None).per_s, None);
        assert_eq!(Bounds::exactly(30).figure(Some(10), Some(2.0)).per_s, Some(10.0));
    }
}
