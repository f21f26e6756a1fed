//! Where lines of a grid are, and what stands beside them.

use std::time::Duration;

use jiff::tz::TimeZone;

/// From 0 on, in steps of 1, 2 or 5 times a power of ten, `most` at most, not beyond `top`.
pub(super) fn ticks(top: f64, most: u32) -> Vec<f64> {
    if !top.is_finite() || top <= 0.0 {
        return vec![0.0];
    }
    let rough = top / f64::from(most.max(1));
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999_999).unwrap_or(10.0 * power);
    (0..=most).map(|at| f64::from(at) * step).take_while(|tick| *tick <= top * 1.000_001).collect()
}

/// `0.2`, `15`, `250k`, `1.5M`
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = if value >= 100.0 { format!("{value:.0}") } else { text };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeTick {
    pub(super) at: Duration,
    pub(super) label: String,
}

const STEPS: [i64; 20] = [
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    DAY,
    2 * DAY,
    7 * DAY,
];
const DAY: i64 = 86_400;

/// At round times of day, `most` at most.
pub(super) fn time_ticks(
    start: jiff::Timestamp,
    length: Duration,
    zone: &TimeZone,
    most: u32,
) -> Vec<TimeTick> {
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    let step = STEPS.into_iter().find(|step| seconds / step < i64::from(most));
    // Beyond the last one, in as many weeks.
    let step =
        step.unwrap_or_else(|| (seconds / i64::from(most.max(1)) / DAY + 1).saturating_mul(DAY));
    let offset = zone.to_offset(start).seconds();
    let local = start.as_second().saturating_add(i64::from(offset));
    let mut tick =
        start.as_second().saturating_add((step - local.rem_euclid(step)).rem_euclid(step));
    let mut found = Vec::new();
    while let Ok(time) = jiff::Timestamp::from_second(tick) {
        let since = Duration::try_from(time.duration_since(start));
        tick = tick.saturating_add(step);
        // The first one may lie a fraction of a second before the start.
        let Ok(at) = since else { continue };
        if at > length || found.len() > most as usize {
            break;
        }
        let local = time.to_zoned(zone.clone());
        let is_midnight = local.time() == jiff::civil::Time::midnight();
        let form = match step {
            DAY.. => "%m-%d",
            60.. if is_midnight && seconds >= DAY => "%m-%d",
            60.. => "%H:%M",
            _ => "%H:%M:%S",
        };
        found.push(TimeTick { at, label: local.strftime(form).to_string() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_round_and_within() {
        assert_eq!(ticks(1000.0, 4), [0.0, 500.0, 1000.0]);
        assert_eq!(ticks(262_144.0, 4), [0.0, 100_000.0, 200_000.0]);
        assert_eq!(ticks(4.0, 4), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(0.0, 4), [0.0]);
        assert_eq!(ticks(f64::NAN, 4), [0.0]);
        for top in [0.3, 1.0, 7.0, 19.0, 999.0, 12_345.0, 4e9] {
            let ticks = ticks(top, 4);
            assert!((2..=5).contains(&ticks.len()), "{top}: {ticks:?}");
            assert!(ticks.iter().all(|tick| *tick <= top * 1.001), "{top}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_have_units() {
        for (value, said) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (15.0, "15"),
            (5000.0, "5000"),
            (50_000.0, "50k"),
            (262_144.0, "262k"),
            (1_500_000.0, "1.5M"),
            (4e9, "4G"),
        ] {
            assert_eq!(short(value), said);
        }
    }

    #[test]
    fn times_of_day_are_round() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let labels = |start: &str, seconds: u64| -> Vec<String> {
            let start = start.parse().unwrap();
            let ticks = time_ticks(start, Duration::from_secs(seconds), &zone, 8);
            assert!(ticks.len() <= 9 && ticks.is_sorted_by_key(|tick| tick.at), "{ticks:?}");
            ticks.into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(
            labels("2026-05-02T01:10:00.5Z", 4 * 3_600),
            ["04:00", "05:00", "06:00", "07:00"]
        );
        assert_eq!(labels("2026-05-02T01:10:00.5Z", 3), ["03:10:01", "03:10:02", "03:10:03"]);
        assert_eq!(labels("2026-05-02T20:30:00Z", 2 * 86_400).first().unwrap(), "05-03");
        assert_eq!(labels("2026-05-02T20:30:00Z", 0).len(), 1);
        assert!(labels("2026-05-02T20:30:00Z", 400 * 86_400).len() > 3);
    }
}
