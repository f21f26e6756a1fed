//! Numbers, times and names as the page writes them.

use std::time::Duration;

use jiff::tz::TimeZone;
use maud::{Markup, html};

pub(super) use crate::diagnosis::number as thousands;
use crate::{
    model::{Table, figure::Bounds, story::FullTime},
    output::{escape::escaped, text::words},
};

/// `exactly 1,783`, `between 3 and 1,783`, `at least 3`, `not measured`.
pub(super) fn counted(bounds: Bounds) -> String {
    match bounds {
        Bounds::Unmeasured => "not measured".to_owned(),
        // Which says nothing.
        Bounds::Within { at_least: 0, at_most: None } => "not known".to_owned(),
        Bounds::Within { at_least, at_most: None } => format!("at least {}", thousands(at_least)),
        Bounds::Within { at_least, at_most: Some(most) } => between(at_least, most),
    }
}

pub(super) fn between(at_least: u64, at_most: u64) -> String {
    match at_least {
        least if least == at_most => format!("exactly {}", thousands(least)),
        0 => format!("at most {}", thousands(at_most)),
        least => format!("between {} and {}", thousands(least), thousands(at_most)),
    }
}

/// What that means.
pub(super) fn how_exact(bounds: Bounds) -> &'static str {
    match bounds {
        Bounds::Unmeasured => "not measured: this is not zero",
        Bounds::Within { at_most: None, .. } => "lower bound: some could not be seen",
        Bounds::Within { at_least, at_most: Some(most) } if at_least == most => "exact",
        Bounds::Within { .. } => "range: the truth is within it",
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// `1 packet`, `2 packets`.
pub(super) fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { more })
}

/// `850 ms`, `12 s`, `27 min 4 s`, `3 h 5 min`, `2 days 4 h`; no line ends before a unit.
pub(super) fn lasting(time: Duration) -> String {
    let one = |count: u64, unit: &str| format!("{count}\u{a0}{unit}");
    let two = |large: u64, name: &str, small: u64, other: &str| match small {
        0 => one(large, name),
        small => format!("{} {}", one(large, name), one(small, other)),
    };
    let seconds = time.as_secs();
    match seconds {
        0 if !time.is_zero() => format!("{}\u{a0}ms", time.as_millis().max(1)),
        0..60 => one(seconds, "s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..172_800 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "days", seconds / 3_600 % 24, "h"),
    }
}

/// `exactly` is for counts: how long something lasted is known between two snapshots.
pub(super) fn full_for(full: &FullTime) -> String {
    let (least, most) = (lasting(full.at_least), lasting(full.at_most));
    match full.at_least {
        _ if least == most => format!("for {least}"),
        Duration::ZERO => format!("for at most {most}"),
        _ => format!("for {least} to {most}"),
    }
}

/// The same in one number.
pub(super) fn full_about(full: &FullTime) -> String {
    let slack = full.at_most.saturating_sub(full.at_least);
    match full.at_least {
        Duration::ZERO => full_for(full),
        least if slack * 10 <= full.at_most => format!("for {}", lasting(least)),
        least => format!("for at least {}", lasting(least)),
    }
}

/// How times of day are written.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    with_date: bool,
}

impl Clock {
    /// With the date where that is not always the same.
    pub(super) fn new(zone: &TimeZone, from: jiff::Timestamp, to: jiff::Timestamp) -> Self {
        let date = |time: jiff::Timestamp| time.to_zoned(zone.clone()).date();
        Self { zone: zone.clone(), with_date: date(from) != date(to) }
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    pub(super) fn time(&self, time: jiff::Timestamp) -> String {
        let form = if self.with_date { "%m-%d %H:%M:%S" } else { "%H:%M:%S" };
        time.to_zoned(self.zone.clone()).strftime(form).to_string()
    }

    /// `2026-05-02 02:00:00 +02:00`
    pub(super) fn whole(&self, time: jiff::Timestamp) -> String {
        time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
    }
}

/// The namespace of a table. Its letters may run from right to left: they move nothing beside them.
pub(super) fn name(table: &Table) -> Markup {
    strange(&words::name(table))
}

/// What a stranger may have written: what does not print is shown as an escape, as on a terminal.
pub(super) fn strange(text: &str) -> Markup {
    html! { bdi { (escaped(text)) } }
}

/// Whose it is, where it decides no alarm.
pub(super) fn owner(table: &Table) -> Option<String> {
    (!table.is_judged).then(|| words::owner(&table.owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_say_how_exact_they_are() {
        assert_eq!(counted(Bounds::exactly(1783)), "exactly 1,783");
        assert_eq!(counted(Bounds::between(3, 1783)), "between 3 and 1,783");
        assert_eq!(counted(Bounds::between(0, 1783)), "at most 1,783");
        assert_eq!(counted(Bounds::at_least(3)), "at least 3");
        assert_eq!(counted(Bounds::exactly(0)), "exactly 0");
        assert_eq!(counted(Bounds::at_least(0)), "not known");
        assert_eq!(counted(Bounds::Unmeasured), "not measured");
    }

    #[test]
    fn times_are_said_in_two_units() {
        for (seconds, said) in [
            (0.0, "0 s"),
            (0.85, "850 ms"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (1_624.0, "27 min 4 s"),
            (11_100.0, "3 h 5 min"),
            (200_000.0, "2 days 7 h"),
        ] {
            assert_eq!(lasting(Duration::from_secs_f64(seconds)).replace('\u{a0}', " "), said);
        }
    }

    #[test]
    fn how_long_it_was_full_is_no_more_exact_than_known() {
        let full = |least, most| FullTime {
            first: Duration::ZERO,
            last: Duration::ZERO,
            at_least: Duration::from_secs(least),
            at_most: Duration::from_secs(most),
            times: 1,
            still: false,
        };
        let plain = |said: String| said.replace('\u{a0}', " ");
        assert_eq!(plain(full_for(&full(60, 60))), "for 1 min");
        assert_eq!(plain(full_for(&full(60, 62))), "for 1 min to 1 min 2 s");
        assert_eq!(plain(full_about(&full(60, 62))), "for 1 min");
        assert_eq!(plain(full_about(&full(60, 600))), "for at least 1 min");
        assert_eq!(plain(full_about(&full(0, 2))), "for at most 2 s");
    }
}
