//! Lists that begin later than totals do, end, and begin again.

use std::time::Duration;

use ctwatch_abi::{
    Count, NetnsTally,
    top::{AF_INET, By, Key, Stream},
};

use super::{
    Model, Snapshot,
    figure::Exactness,
    top::{TopEntry, TopList},
    verdict::situations::table,
};
use crate::record::{
    sample::{
        Access, Counted, HookReadings, Idle, Probed, Sample, TableSample, ToldApart, TopCount,
        TopCounts,
    },
    tests::recorded,
};

fn source(number: u8) -> Key {
    let mut key = Key { netns: 1, family: AF_INET, ..Key::default() };
    key.src[..4].copy_from_slice(&[10, 0, 0, number]);
    key
}

fn time(second: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap()
}

fn model() -> Model {
    Model::with_tops(9, &[By::Source])
}

/// So many entries were inserted by now, and nobody asks whose.
fn unasked(second: u64, inserted: u64) -> Sample {
    let counted = Counted { insertions: true, ends: true, ..Counted::default() };
    let mut tally = NetnsTally::new(1, 1);
    (0..inserted).for_each(|_| tally.bump(Count::Inserted));
    let hooks = Some(HookReadings { before: tally, after: tally });
    Sample {
        time: time(second),
        tables: vec![TableSample { hooks, ..table(1, "rt", 0, 0) }],
        probed: Some(Probed { counted, everywhere: tally, ..Probed::default() }),
        ..Sample::at(Duration::from_secs(second))
    }
}

/// The same, of which so many were told apart: number, count and error of each source.
fn asked(second: u64, inserted: u64, told: u64, sources: &[(u8, u64, u64)]) -> Sample {
    let stream = Stream::Insertions;
    let count = |(number, count, error): &(u8, u64, u64)| TopCount {
        key: source(*number),
        count: *count,
        error: *error,
        ..TopCount::default()
    };
    let counts = sources.iter().map(count).collect();
    let told_apart = ToldApart { stream, considered: told, taken: told, let_by: 0, heaviest: 1 };
    recorded(&Sample {
        tops: vec![TopCounts {
            stream,
            by: By::Source,
            offered: told,
            left_out: 0,
            left_out_at_most: 0,
            counts,
        }],
        told_apart: vec![told_apart],
        ..unasked(second, inserted)
    })
}

/// Nothing was inserted since the reading at this second, so it was not read.
fn idle(sample: Sample, read_at: u64) -> Sample {
    let age = sample.elapsed.saturating_sub(Duration::from_secs(read_at));
    Sample { tables: Vec::new(), idle: vec![Idle { id: 1, age }], ..sample }
}

fn list(snapshot: &Snapshot) -> Option<&TopList> {
    snapshot.tables[0].top.iter().find(|list| list.stream == Stream::Insertions)
}

/// What the list says of a source: at least, at most, and the share.
fn of(snapshot: &Snapshot, number: u8) -> Option<(u64, u64, Option<f64>)> {
    let entries = &list(snapshot)?.entries;
    let entry: &TopEntry = entries.iter().find(|entry| entry.key == source(number))?;
    Some((entry.at_least(), entry.at_most(), entry.share))
}

#[test]
fn a_list_counts_from_when_it_was_asked_for() {
    let mut model = model();
    let first = model.advance(&unasked(0, 100));
    assert!(list(&first).is_none() && first.lists_since.is_empty());
    // Thirty were told apart before it was read for the first time.
    let begins = model.advance(&asked(1, 130, 30, &[(1, 20, 0), (2, 10, 4)]));
    assert_eq!(list(&begins).and_then(|list| list.since), Some(time(1)));
    assert_eq!(begins.lists_since, [(Stream::Insertions, time(1))]);
    assert_eq!(of(&begins, 1), None);
    let next = model.advance(&asked(2, 190, 90, &[(1, 65, 0), (2, 25, 4), (3, 9, 9)]));
    assert_eq!(list(&next).and_then(|list| list.since), Some(time(1)));
    assert_eq!(next.tables[0].insertions.total, Some(90), "since the start");
    assert_eq!(of(&next, 1), Some((45, 45, Some(0.75))));
    assert_eq!(of(&next, 2), Some((15, 15, Some(0.25))), "its error was there before");
    assert_eq!(of(&next, 3), Some((0, 9, Some(0.15))));
    let rate = |number| {
        let entries = list(&next).map_or(&[][..], |list| &list.entries[..]);
        let entry = entries.iter().find(|entry| entry.key == source(number));
        entry.map(|entry| (entry.per_s, entry.per_s_is))
    };
    assert_eq!(rate(1), Some((Some(45.0), Exactness::Exact)));
}

#[test]
fn events_before_a_list_do_not_widen_it() {
    let mut model = model();
    model.advance(&unasked(0, 1000));
    model.advance(&asked(1, 1000, 0, &[]));
    // Two of these did not come to the budget.
    let next = model.advance(&asked(2, 1012, 10, &[(1, 10, 0)]));
    assert_eq!(of(&next, 1), Some((10, 12, Some(1.0))));
}

#[test]
fn a_list_that_ends_is_not_shown() {
    let mut model = model();
    model.advance(&asked(0, 0, 0, &[]));
    let on = model.advance(&asked(1, 20, 20, &[(1, 20, 0)]));
    assert_eq!(of(&on, 1), Some((20, 20, Some(1.0))));
    assert_eq!(list(&on).and_then(|list| list.since), None, "since the start, as totals are");
    for sample in [idle(unasked(2, 20), 1), unasked(3, 30), idle(unasked(4, 30), 3)] {
        let off = model.advance(&recorded(&sample));
        assert!(list(&off).is_none() && off.lists_since.is_empty(), "{:?}", off.elapsed);
    }
}

#[test]
fn a_list_that_begins_again_counts_from_zero() {
    let mut model = model();
    model.advance(&unasked(0, 0));
    model.advance(&asked(1, 0, 0, &[]));
    model.advance(&asked(2, 70, 70, &[(1, 60, 0), (2, 10, 0)]));
    // The programs keep what they counted.
    model.advance(&unasked(3, 500));
    let again = model.advance(&asked(4, 503, 73, &[(1, 63, 0), (2, 10, 0)]));
    assert_eq!(list(&again).map(|list| (list.since, list.entries.len())), Some((Some(time(4)), 0)));
    let next = model.advance(&asked(5, 507, 77, &[(1, 66, 0), (2, 10, 0), (3, 1, 0)]));
    assert_eq!(next.lists_since, [(Stream::Insertions, time(4))]);
    assert_eq!(list(&next).and_then(|list| list.since), Some(time(4)));
    assert_eq!(of(&next, 1), Some((3, 3, Some(0.75))));
    assert_eq!(of(&next, 2), None, "it was there before, and not since");
    assert_eq!(of(&next, 3), Some((1, 1, Some(0.25))));
}

#[test]
fn an_idle_table_shows_no_list_of_before() {
    let told = [(1, 20, 0)];
    let mut model = model();
    model.advance(&asked(0, 0, 0, &[]));
    let on = model.advance(&asked(1, 20, 20, &told));
    let stays = model.advance(&idle(asked(2, 20, 20, &told), 1));
    assert_eq!(of(&stays, 1), of(&on, 1), "as it was read");
    model.advance(&idle(unasked(3, 20), 1));
    for second in 4..7 {
        let again = model.advance(&idle(asked(second, 20, 20, &told), 1));
        assert!(list(&again).is_none(), "{second}: {:?}", list(&again));
        assert_eq!(again.lists_since, [(Stream::Insertions, time(4))]);
    }
    let next = model.advance(&asked(7, 25, 25, &[(1, 25, 0)]));
    assert_eq!(of(&next, 1), Some((5, 5, Some(1.0))));
    assert_eq!(list(&next).and_then(|list| list.since), Some(time(4)));
}

#[test]
fn a_list_that_began_while_it_was_gone_has_its_total() {
    let gone = |mut sample: Sample| {
        let table = &mut sample.tables[0];
        (table.access, table.entries, table.counters) = (Access::Unseen, None, None);
        sample
    };
    let mut model = model();
    model.advance(&unasked(0, 0));
    model.advance(&unasked(1, 90));
    model.advance(&gone(unasked(2, 90)));
    let last = model.advance(&gone(unasked(3, 90)));
    assert!(last.tables[0].is_gone);
    model.advance(&gone(asked(4, 90, 0, &[])));
    // It was only hidden.
    let back = model.advance(&gone(asked(5, 100, 10, &[(1, 10, 0)])));
    assert_eq!(back.tables[0].insertions.at_least, Some(100));
    assert_eq!(of(&back, 1), Some((10, 10, Some(1.0))));
}

/// Of a recording that kept the first of a list: who was left out is bounded by what it came to at most.
#[test]
fn what_a_list_left_out_is_a_bound() {
    let list = |counts: &[(u8, u64)], left_out_at_most| TopCounts {
        stream: Stream::Drops,
        by: By::Source,
        offered: 0,
        left_out: u64::from(left_out_at_most > 0),
        left_out_at_most,
        counts: counts
            .iter()
            .map(|(number, count)| TopCount {
                key: source(*number),
                count: *count,
                ..Default::default()
            })
            .collect(),
    };
    let mut model = Model::with_tops(5, &[By::Source]);
    let mut seen = |second: u64, drop: u32, list| {
        let mut sample = Sample::at(Duration::from_secs(second));
        sample.tables = vec![table(1, "rt", 0, drop)];
        sample.tops = vec![list];
        let snapshot = model.advance(&sample);
        let entries = snapshot.tables[0].top.iter().flat_map(|list| list.entries.clone());
        let bounds =
            |entry: TopEntry| (entry.key.src[3], entry.at_least(), entry.at_most(), entry.per_s);
        entries.map(bounds).collect::<Vec<_>>()
    };
    seen(0, 1000, list(&[(1, 500)], 90));
    // 2 had come to 90 at most by then, and to 60 at most at the sample before: so 10 at least are new.
    assert_eq!(seen(1, 1700, list(&[(1, 700)], 60)), [(1, 200, 200, Some(200.0))]);
    let now = seen(2, 2000, list(&[(1, 700), (2, 100)], 0));
    assert_eq!(now[0].0, 2, "{now:?}");
    assert_eq!((now[0].1, now[0].2, now[0].3), (10, 100, Some(40.0)), "{now:?}");
}
