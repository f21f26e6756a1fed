//! What was dropped within a part of the time, told apart by reason as far as that is certain.

use super::counts::{CLASH, NAT_EXHAUSTED, REASONS, StoryCounts, increase};

/// Those of consecutive times add up to those of all of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropShares {
    /// The certain ones of each reason.
    pub reasons: [u64; REASONS],
    /// Certain, and for one of the two: which is not known.
    pub clash_or_nat_exhausted: u64,
    /// Certain, for no known reason.
    pub unclear: u64,
    /// How many more there may be; `None`: not known.
    pub more: Option<u64>,
}

impl DropShares {
    /// Between two moments.
    pub fn between(before: &StoryCounts, now: &StoryCounts) -> Self {
        let least = |before, now| increase(before, now).map_or(0, |increase| increase.at_least);
        let surely = now.surely_dropped().saturating_sub(before.surely_dropped());
        // Whose reason became known later is in the share of an earlier time already, as unclear.
        let mut room = surely;
        let mut fitting = |count: u64| {
            let count = count.min(room);
            room -= count;
            count
        };
        let reasons: [u64; REASONS] =
            std::array::from_fn(|at| fitting(least(before.reasons[at], now.reasons[at])));
        let apart = reasons[CLASH] + reasons[NAT_EXHAUSTED];
        let together = least(before.clash_or_nat_exhausted, now.clash_or_nat_exhausted);
        let clash_or_nat_exhausted = fitting(together.saturating_sub(apart));
        let all = increase(before.dropped, now.dropped).and_then(|all| all.at_most);
        let more = all.map(|most| most.saturating_sub(surely));
        Self { reasons, clash_or_nat_exhausted, unclear: room, more }
    }

    pub fn surely(&self) -> u64 {
        self.unclear + self.clash_or_nat_exhausted + self.reasons.iter().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        figure::Bounds,
        verdict::situations::{Situation, rt},
    };

    #[test]
    fn reasons_have_their_places() {
        let snapshot = Situation::still(rt(1, 0)).snapshot();
        let named = snapshot.tables[0].drops.named();
        assert_eq!((named[CLASH].0, named[NAT_EXHAUSTED].0), ("clash", "nat_exhausted"));
        assert_eq!(named[0].0, "table_full");
    }

    #[test]
    fn shares_add_up_and_say_what_is_unclear() {
        let none = StoryCounts::none();
        let mut now = none;
        (now.dropped, now.reasons[0]) = (Bounds::between(50, 60), Bounds::at_least(30));
        (now.reasons[CLASH], now.reasons[NAT_EXHAUSTED]) =
            (Bounds::exactly(1), Bounds::between(0, 9));
        now.clash_or_nat_exhausted = Bounds::exactly(10);
        let shares = DropShares::between(&none, &now);
        assert_eq!(shares.reasons, [30, 0, 1, 0, 0, 0]);
        assert_eq!((shares.clash_or_nat_exhausted, shares.unclear), (9, 10));
        assert_eq!((shares.surely(), shares.more), (50, Some(10)));
        let open = StoryCounts { dropped: Bounds::Unmeasured, ..now };
        let shares = DropShares::between(&none, &open);
        assert_eq!(
            (shares.surely(), shares.unclear, shares.more),
            (40, 0, None),
            "by reasons alone"
        );
    }

    #[test]
    fn a_reason_that_is_known_later_is_no_packet_more() {
        let none = StoryCounts::none();
        let mut first = StoryCounts { dropped: Bounds::exactly(10), ..none };
        first.reasons[0] = Bounds::between(0, 10);
        let mut last = StoryCounts { dropped: Bounds::exactly(12), ..none };
        last.reasons[0] = Bounds::exactly(12);
        let shares = [(&none, &first), (&first, &last)].map(|(a, b)| DropShares::between(a, b));
        assert_eq!(shares.map(|shares| (shares.reasons[0], shares.unclear)), [(0, 10), (2, 0)]);
        assert_eq!(shares.map(|shares| shares.surely()).iter().sum::<u64>(), last.surely_dropped());
    }
}
