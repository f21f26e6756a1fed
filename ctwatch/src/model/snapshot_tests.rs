//! From samples to snapshots.

use std::time::Duration;

use ctwatch_ebpf::{Count, NetnsTally};

use super::{KEPT_UP, Model, Snapshot, Table, figure::Exactness, verdict::situations::table};
use crate::sample::{Access, Counted, HookReadings, Owner, Probed, Sample, TableSample};

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

/// What had no room may have been any stranger's, and is none of the host's.
#[test]
fn strangers_without_room_widen_strangers_alone() {
    let mut model = Model::default();
    let mut at = |second: u64, unplaced: u64| {
        let counted = Counted { ends: true, drops: true, ..Counted::default() };
        let mut sample = reading(second, 0);
        let mut strangers_rest = NetnsTally::of(9).owned_by(Some(1000));
        (0..unplaced).for_each(|_| strangers_rest.bump(Count::Removed));
        (0..unplaced).for_each(|_| strangers_rest.bump(Count::DroppedUntracked));
        sample.probed = Some(Probed { counted, strangers_rest, ..Probed::default() });
        sample.tables = [Owner::Host, Owner::User(1000), Owner::Unknown(String::new())]
            .into_iter()
            .zip(1..)
            .map(|(owner, id)| {
                let tally = NetnsTally::of(id);
                let hooks = Some(HookReadings { before: tally, after: tally });
                let drop = if owner.is_stranger() { unplaced } else { 0 };
                let drop = u32::try_from(drop).unwrap();
                TableSample { hooks, owner, ..table(id, "x", 0, drop) }
            })
            .collect();
        model.advance(&sample)
    };
    at(0, 0);
    let snapshot = at(1, 7);
    let removals = |at: usize| {
        let table: &Table = &snapshot.tables[at];
        (table.removals.at_least, table.removals.total, table.removals.exactness)
    };
    assert_eq!(removals(0), (Some(0), Some(0), Exactness::Exact));
    assert_eq!(removals(1), (Some(0), Some(7), Exactness::UpperBound));
    assert_eq!(removals(2), (Some(0), Some(0), Exactness::Exact));
    assert_eq!((snapshot.lost, snapshot.unplaced_of_others), (0, 14));
}

/// More of them than are kept of those that are gone.
#[test]
fn hidden_namespaces_that_count_are_not_forgotten() {
    const MANY: u64 = 1500;
    let mut model = Model::default();
    let mut at = |second: u64| {
        let counted = Counted { ends: true, ..Counted::default() };
        let mut sample = reading(second, 0);
        sample.probed = Some(Probed { counted, ..Probed::default() });
        sample.tables = (0..MANY)
            .map(|id| {
                let mut tally = NetnsTally::of(1);
                (0..second).for_each(|_| tally.bump(Count::Removed));
                let hooks = Some(HookReadings { before: tally, after: tally });
                let (access, entries, counters) = (Access::Unseen, None, None);
                TableSample { id, hooks, access, entries, counters, ..table(1, "x", 0, 0) }
            })
            .collect();
        model.advance(&sample)
    };
    at(1);
    for second in 2..5 {
        let snapshot = at(second);
        assert_eq!((snapshot.tables.len() as u64, snapshot.forgotten), (MANY, 0));
        for table in &snapshot.tables {
            let removed = (table.removals.total, table.removals.per_s);
            assert_eq!(removed, (Some(second - 1), Some(1.0)), "since the first reading");
        }
    }
}
