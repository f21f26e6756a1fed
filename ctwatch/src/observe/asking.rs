//! Whether insertions' lists are kept: pure, from one snapshot to the next. They cost something at each new
//! flow, so they are kept only where a person asked for them, or where a table is nearly full.

use std::time::Duration;

use crate::model::Snapshot;

/// From this fill on, or with less time than this until a table is full, they are kept.
const NEAR_FILL: f64 = 0.8;
const NEAR_TIME_S: f64 = 600.0;
/// Until all tables have been below this fill, and none has been due to be full within this time, for so
/// long.
const CALM_FILL: f64 = 0.7;
const CALM_TIME_S: f64 = 1200.0;
const CALM_FOR: Duration = Duration::from_secs(60);

/// Whether they are kept, and how long it has been calm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// A person asked: they are kept whatever the tables do.
    by_person: bool,
    is_on: bool,
    calm_since: Option<Duration>,
}

impl Asking {
    pub(super) fn new(by_person: bool) -> Self {
        Self { by_person, is_on: by_person, calm_since: None }
    }

    pub(super) fn is_on(self) -> bool {
        self.is_on
    }

    /// What the next reading is to have. Tables of strangers, who fill them at will, decide nothing.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        let beyond = |fill: f64, time_s: f64| {
            snapshot.tables.iter().filter(|table| table.is_judged && !table.is_gone).any(|table| {
                table.fill.is_some_and(|of| of >= fill)
                    || table.time_to_full_s.is_some_and(|of| of < time_s)
            })
        };
        if !self.is_on {
            self.is_on = self.by_person || beyond(NEAR_FILL, NEAR_TIME_S);
            self.calm_since = None;
        } else if beyond(CALM_FILL, CALM_TIME_S) {
            self.calm_since = None;
        } else {
            let since = *self.calm_since.get_or_insert(snapshot.elapsed);
            self.is_on = self.by_person || snapshot.elapsed.saturating_sub(since) < CALM_FOR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::situations::{Situation, rt};

    /// A judged table of a thousand, so full; it is full in so many seconds.
    fn snapshot(second: u64, entries: u32, full_in_s: Option<f64>) -> Snapshot {
        let mut snapshot = Situation::still(rt(entries, 0)).limit(Some(1000)).snapshot();
        snapshot.elapsed = Duration::from_secs(second);
        snapshot.tables[0].time_to_full_s = full_in_s;
        snapshot
    }

    #[test]
    fn a_person_has_them_whatever_happens() {
        let mut asking = Asking::new(true);
        for second in 0..200 {
            asking.look(&snapshot(second, 1, None));
            assert!(asking.is_on());
        }
    }

    #[test]
    fn a_table_that_is_nearly_full_has_them() {
        for (entries, full_in_s, is_on) in
            [(799, None, false), (800, None, true), (1, Some(600.0), false), (1, Some(599.0), true)]
        {
            let mut asking = Asking::new(false);
            assert!(!asking.is_on());
            asking.look(&snapshot(1, entries, full_in_s));
            assert_eq!(asking.is_on(), is_on, "{entries} {full_in_s:?}");
        }
    }

    #[test]
    fn they_end_when_it_was_calm_for_a_minute() {
        let mut asking = Asking::new(false);
        let mut at = |second, entries, full_in_s| {
            asking.look(&snapshot(second, entries, full_in_s));
            asking.is_on()
        };
        assert!(at(0, 800, None));
        assert!(at(10, 699, None) && at(69, 699, None), "not for long enough");
        assert!(at(70, 700, None), "not below");
        assert!(at(80, 1, Some(1199.0)), "it fills");
        assert!(at(90, 1, Some(1200.0)) && at(149, 1, None));
        assert!(!at(150, 1, None));
        assert!(!at(151, 750, None), "it is not near yet");
        assert!(at(152, 900, None));
    }

    #[test]
    fn a_table_of_a_stranger_asks_for_nothing() {
        let mut asking = Asking::new(false);
        let mut full = snapshot(1, 1000, None);
        full.tables[0].is_judged = false;
        asking.look(&full);
        assert!(!asking.is_on());
    }
}
