//! From samples to snapshots.

use std::time::Duration;

use super::{KEPT_UP, Model, Snapshot, figure::Exactness, verdict::situations::table};
use crate::sample::Sample;

/// A reading of one namespace, whose counter of drops is at this.
fn reading(second: u64, drop: u32) -> Sample {
    Sample {
        time: jiff::Timestamp::UNIX_EPOCH,
        elapsed: Duration::from_secs(second),
        limit: Some(1000),
        buckets: None,
        tables: vec![table(1, "rt", 0, drop)],
        probed: None,
        tops: Vec::new(),
        cgroups: Vec::new(),
    }
}

fn dropped(snapshot: &Snapshot) -> (Option<u64>, Exactness) {
    let figure = snapshot.tables[0].dropped;
    (figure.total, figure.exactness)
}

/// 50,000 a second for a day: more than a counter of 32 bits holds.
#[test]
fn a_counter_kept_up_with_loses_nothing() {
    const PER_S: u64 = 50_000;
    const DAY: u64 = 86_400;
    let at = |second: u64| (second * PER_S) as u32;
    let mut model = Model::default();
    model.advance(&reading(0, 0));
    for second in (KEPT_UP.as_secs()..DAY).step_by(KEPT_UP.as_secs() as usize) {
        model.keep_up(&reading(second, at(second)));
    }
    let last = model.advance(&reading(DAY, at(DAY)));
    assert_eq!(dropped(&last), (Some(DAY * PER_S), Exactness::Exact));
    assert_eq!(last.interval, Duration::from_secs(DAY));
    assert_eq!(last.tables[0].dropped.per_s, Some(PER_S as f64));
}

#[test]
fn a_counter_not_kept_up_with_is_not_exact() {
    let mut model = Model::default();
    model.advance(&reading(0, 0));
    let last = model.advance(&reading(86_400, 25_032_704));
    assert_eq!(dropped(&last), (Some(25_032_704), Exactness::Sampled));
}
