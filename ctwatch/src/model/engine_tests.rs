//! From samples to snapshots.

use std::time::Duration;

use ctwatch_abi::{Count, NetnsTally};

use super::{Model, Snapshot, Table, figure::Exactness, verdict::situations::table};
use crate::record::{
    counters::CounterSums,
    sample::{Access, Counted, HookReadings, Idle, Owner, Probed, Sample, TableSample},
    tests::recorded,
};

/// A reading of one namespace, whose counter of drops is at this.
fn reading(second: u64, drop: u32) -> Sample {
    let tables = vec![table(1, "rt", 0, drop)];
    Sample { limit: Some(1000), tables, ..Sample::at(Duration::from_secs(second)) }
}

fn dropped(snapshot: &Snapshot) -> (Option<u64>, Exactness) {
    let figure = snapshot.tables[0].dropped;
    (figure.total, figure.exactness)
}

#[test]
fn counters_with_a_gap_are_not_exact() {
    let mut model = Model::default();
    model.advance(&reading(0, 0));
    let mut later = reading(86_400, 25_032_704);
    let counters = &mut later.tables[0].counters;
    *counters = counters.map(|sums| CounterSums { gaps: 1, ..sums });
    assert_eq!(dropped(&model.advance(&later)), (Some(25_032_704), Exactness::LowerBound));
}

/// What had no room may have been any stranger's, and is none of the host's.
#[test]
fn strangers_without_room_widen_strangers_alone() {
    let mut model = Model::default();
    let mut at = |second: u64, unplaced: u64| {
        let counted = Counted { ends: true, drops: true, ..Counted::default() };
        let mut sample = reading(second, 0);
        let mut strangers_rest = NetnsTally::new(0, 9).owned_by(Some(1000));
        (0..unplaced).for_each(|_| strangers_rest.bump(Count::Removed));
        (0..unplaced).for_each(|_| strangers_rest.bump(Count::DroppedUntracked));
        sample.probed = Some(Probed { counted, strangers_rest, ..Probed::default() });
        sample.tables = [Owner::Host, Owner::User(1000), Owner::Unknown(String::new())]
            .into_iter()
            .zip(1..)
            .map(|(owner, id)| {
                let tally = NetnsTally::new(id.into(), id);
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
                let mut tally = NetnsTally::new(1, 1);
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

/// As [`reading`], with these counts of the probes.
fn probed(second: u64, drop: u32, refused: u64) -> Sample {
    let counted = Counted { drops: true, ends: true, ..Counted::default() };
    let mut sample = reading(second, drop);
    sample.probed = Some(Probed { counted, ..Probed::default() });
    let mut tally = NetnsTally::new(1, 1);
    (0..refused).for_each(|_| tally.bump(Count::DroppedUntracked));
    sample.tables[0].hooks = Some(HookReadings { before: tally, after: tally });
    recorded(&sample)
}

fn unread(second: u64) -> Sample {
    let age = Duration::from_secs(second - 1);
    Sample { tables: Vec::new(), idle: vec![Idle { id: 1, age }], ..probed(second, 0, 0) }
}

#[test]
fn an_idle_namespace_is_as_it_was_read() {
    let mut model = Model::default();
    model.advance(&probed(0, 0, 0));
    model.advance(&probed(1, 4, 4));
    for second in 2..6 {
        let snapshot = model.advance(&unread(second));
        let table = &snapshot.tables[0];
        assert_eq!((table.age, table.entries), (Duration::from_secs(second - 1), Some(0)));
        assert_eq!((table.access, table.change), (Access::Entered, None));
        assert_eq!(table.dropped.total, Some(4));
    }
    // What the probes see happened since the sample before; other things since it was read.
    let mut sample = probed(6, 14, 14);
    let counters = &mut sample.tables[0].counters;
    *counters = counters.map(|sums| CounterSums { invalid: 20, ..sums });
    let snapshot = model.advance(&sample);
    let table = &snapshot.tables[0];
    assert_eq!((table.dropped.per_s, table.invalid.per_s), (Some(10.0), Some(4.0)));
    assert_eq!((table.age, table.dropped.total), (Duration::ZERO, Some(14)));
}

/// Without memory at some time since it was read, a refusal may have been for that.
#[test]
fn a_doubt_of_unread_intervals_is_kept() {
    let mut model = Model::default();
    model.advance(&probed(0, 0, 0));
    let short = |mut sample: Sample| {
        if let Some(probed) = &mut sample.probed {
            probed.host.bump(ctwatch_abi::HostCount::NoMemory);
        }
        sample
    };
    model.advance(&short(unread(1)));
    let snapshot = model.advance(&short(probed(2, 1, 1)));
    let full = snapshot.tables[0].drops.table_full;
    assert_eq!((full.at_least, full.total), (Some(0), Some(1)));
}

#[test]
fn a_namespace_that_is_gone_is_told_of_once() {
    let mut model = Model::default();
    model.advance(&probed(0, 0, 0));
    model.advance(&probed(1, 3, 3));
    let unseen = |second| {
        let mut sample = probed(second, 3, 3);
        let table = &mut sample.tables[0];
        (table.access, table.entries, table.counters) = (Access::Unseen, None, None);
        sample
    };
    let told = |snapshot: &Snapshot| {
        snapshot.tables.first().map(|table| (table.is_gone, table.dropped.total))
    };
    assert_eq!(told(&model.advance(&unseen(2))), Some((false, Some(3))), "something may come");
    let last = model.advance(&unseen(3));
    assert_eq!((told(&last), last.departed.len()), (Some((true, Some(3))), 0));
    for second in 4..8 {
        let snapshot = model.advance(&unseen(second));
        assert_eq!((told(&snapshot), snapshot.departed.len()), (None, 1));
        assert_eq!((snapshot.gone.judged.namespaces, snapshot.gone.judged.dropped.total), (1, 3));
    }
    // Not even the probes speak of it any more.
    let mut none = unseen(8);
    none.tables.clear();
    assert_eq!(told(&model.advance(&none)), None);
    // It was only hidden.
    let mut more = unseen(9);
    let mut tally = NetnsTally::new(1, 1);
    (0..5).for_each(|_| tally.bump(Count::DroppedUntracked));
    more.tables[0].hooks = Some(HookReadings { before: tally, after: tally });
    let back = model.advance(&more);
    assert_eq!((told(&back).map(|(gone, _)| gone), back.gone.judged.namespaces), (Some(false), 0));
}

/// However many they are.
#[test]
fn totals_of_all_that_are_gone_remain() {
    let mut model = Model::default();
    model.advance(&reading(0, 0));
    // Each lives for a tick, and drops two packets in it.
    for second in 1..=1300 {
        let mut sample = reading(second, 0);
        sample.tables = vec![TableSample { id: second + 1, ..table(1, "x", 0, 2) }];
        model.advance(&sample);
    }
    let mut none = reading(1301, 0);
    none.tables.clear();
    model.advance(&none);
    let last = model.advance(&none);
    assert!(last.tables.is_empty() && last.departed.len() <= 1024, "{}", last.departed.len());
    assert_eq!(last.forgotten + last.departed.len() as u64, 1301);
    assert_eq!((last.gone.judged.namespaces, last.gone.judged.dropped.at_least), (1301, 2600));
}
