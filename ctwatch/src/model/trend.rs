//! Where the number of entries is heading.

use std::{collections::VecDeque, time::Duration};

/// Long enough that a burst does not swing the forecast, short enough to notice a turn.
const WINDOW: Duration = Duration::from_secs(10);
/// At intervals of a millisecond too, memory stays bounded.
const MAX_POINTS: usize = 64;

/// The last readings of one table.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    points: VecDeque<(Duration, u32)>,
}

impl Trend {
    pub(super) fn push(&mut self, at: Duration, entries: u32) {
        self.points.push_back((at, entries));
        // Two points always stay, however long the interval is.
        while self.points.len() > 2
            && (self.points.len() > MAX_POINTS
                || self.points.get(1).is_some_and(|(first, _)| at.saturating_sub(*first) >= WINDOW))
        {
            self.points.pop_front();
        }
    }

    /// Entries a second over the window; `None` before there are two readings.
    pub(super) fn per_s(&self) -> Option<f64> {
        let (first_at, first) = self.points.front()?;
        let (last_at, last) = self.points.back()?;
        let seconds = last_at.saturating_sub(*first_at).as_secs_f64();
        (seconds > 0.0).then(|| (f64::from(*last) - f64::from(*first)) / seconds)
    }
}

/// Seconds until the table is full if it goes on like this; `None` where it is full already, does
/// not grow, or has no limit.
pub(super) fn time_to_full(entries: u32, limit: Option<u32>, per_s: f64) -> Option<f64> {
    let limit = limit.filter(|limit| *limit > entries)?;
    (per_s > 0.0).then(|| f64::from(limit - entries) / per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(points: &[(u64, u32)]) -> Trend {
        let mut trend = Trend::default();
        for (at, entries) in points {
            trend.push(Duration::from_secs(*at), *entries);
        }
        trend
    }

    #[test]
    fn one_reading_is_no_trend() {
        assert_eq!(trend(&[]).per_s(), None);
        assert_eq!(trend(&[(0, 5)]).per_s(), None);
    }

    #[test]
    fn the_trend_is_over_the_last_ten_seconds() {
        assert_eq!(trend(&[(0, 0), (5, 100)]).per_s(), Some(20.0));
        let later: Vec<_> =
            (0..=30).map(|s| (s, if s <= 20 { 0 } else { (s as u32 - 20) * 7 })).collect();
        assert_eq!(trend(&later).per_s(), Some(7.0));
    }

    #[test]
    fn a_long_interval_still_has_a_trend() {
        assert_eq!(trend(&[(0, 0), (60, 60), (120, 180)]).per_s(), Some(2.0));
    }

    #[test]
    fn time_to_full_is_only_for_a_table_that_fills() {
        assert_eq!(time_to_full(100, Some(200), 10.0), Some(10.0));
        assert_eq!(time_to_full(100, Some(200), 0.0), None);
        assert_eq!(time_to_full(100, Some(200), -3.0), None);
        assert_eq!(time_to_full(200, Some(200), 5.0), None);
        assert_eq!(time_to_full(200, Some(0), 5.0), None, "0 is no limit");
        assert_eq!(time_to_full(200, None, 5.0), None);
    }
}
