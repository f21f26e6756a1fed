//! From snapshots to what happened.

use std::{sync::Arc, time::Duration};

use ctwatch_abi::top::{AF_INET, By, Key, Stream};

use super::*;
use crate::{
    model::{
        Model,
        census::{Census, KernelCount, SEED},
        figure::Bounds,
        verdict::situations::{table, unread},
    },
    record::{
        entry::{Held, Left, Status},
        sample::{Owner, Sample, TableSample, TopCount, TopCounts},
    },
};

const LIMIT: u32 = 1000;
/// 2026-01-01.
const START: i64 = 1_767_225_600;

fn second(since: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(START + i64::try_from(since).unwrap()).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample(second_of: u64, tables: Vec<TableSample>) -> Sample {
    Sample {
        time: second(second_of),
        elapsed: at(second_of),
        limit: Some(LIMIT),
        buckets: None,
        tables,
        probed: None,
        tops: Vec::new(),
        told_apart: Vec::new(),
        planes: None,
        cgroups: Vec::new(),
        idle: Vec::new(),
    }
}

/// Of these readings of one table, each `(second, entries, drop)`.
fn story_of(points: usize, readings: &[(u64, u32, u32)]) -> WholeStory {
    let (mut model, mut story) = (Model::default(), Story::new(points));
    for (second, entries, drop) in readings {
        story.take(&model.advance(&sample(*second, vec![table(1, "rt", *entries, *drop)])));
    }
    story.finish().unwrap()
}

fn increases(table: &TableStory, of: fn(&StoryCounts) -> Bounds) -> Increase {
    let mut last = of(&table.before);
    let mut sum = Increase { at_least: 0, at_most: Some(0) };
    for bucket in &table.buckets {
        let now = of(&bucket.counts);
        let step = increase(last, now).unwrap();
        sum.at_least += step.at_least;
        sum.at_most = sum.at_most.zip(step.at_most).map(|(a, b)| a + b);
        last = now;
    }
    sum
}

#[test]
fn buckets_lose_no_packet_and_no_extreme() {
    let mut drop = 0;
    let mut readings = Vec::new();
    for second in 0..5_000_u64 {
        let odd = second.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        drop += if second == 0 { 7 } else { odd as u32 };
        let entries = if second == 3_333 { 999 } else { 500 + odd as u32 };
        readings.push((second, entries, drop));
    }
    let story = story_of(60, &readings);
    let [table] = &story.tables[..] else { panic!("{:?}", story.tables.len()) };
    assert!(table.buckets.len() <= 60 && table.buckets.len() > 30, "{}", table.buckets.len());
    let all = u64::from(drop) - 7;
    assert_eq!(table.counts.dropped, Bounds::exactly(all));
    let sum = Increase { at_least: all, at_most: Some(all) };
    assert_eq!(increases(table, |counts| counts.dropped), sum);
    let most = table.buckets.iter().filter_map(|bucket| bucket.entries).map(|e| e.most).max();
    let least = table.buckets.iter().filter_map(|bucket| bucket.entries).map(|e| e.least).min();
    assert_eq!((least, most), (Some(500), Some(999)));
    assert_eq!(table.buckets.last().unwrap().entries.unwrap().last, readings[4_999].1);
    assert!(table.buckets.iter().skip(1).all(|bucket| bucket.joins), "a gap that is none");
    assert_eq!((story.snapshots, story.all_gaps.0, story.length), (5_000, 0, at(4_999)));
}

#[test]
fn time_without_snapshots_is_a_gap() {
    let mut readings: Vec<_> = (0..20).map(|second| (second, 10, 0)).collect();
    readings.extend((320..340).map(|second| (second, 900, 50)));
    let story = story_of(600, &readings);
    assert_eq!(story.gaps, [Silence { from: at(19), to: at(320) }]);
    assert_eq!(story.all_gaps, (1, at(301)));
    let buckets = &story.tables[0].buckets;
    let breaks: Vec<_> = buckets.iter().skip(1).filter(|bucket| !bucket.joins).collect();
    assert_eq!(breaks.len(), 1);
    assert_eq!(breaks[0].from, at(320));
    // What was dropped meanwhile is in the first bucket after it.
    assert_eq!(breaks[0].counts.dropped, Bounds::exactly(50));
}

#[test]
fn sampling_more_seldom_is_no_gap_for_long() {
    let mut readings: Vec<_> = (0..30).map(|second| (second, 10, 0)).collect();
    readings.extend((1..100).map(|step| (30 + step * 10, 10, 0)));
    assert!(story_of(600, &readings).all_gaps.0 <= 5);
}

#[test]
fn how_long_it_was_full_is_an_interval() {
    let readings: Vec<_> = (0..10)
        .map(|second| (second, if (3..=6).contains(&second) { LIMIT } else { 100 }, 0))
        .collect();
    let full = story_of(600, &readings).tables[0].full.unwrap();
    assert_eq!((full.first, full.last), (at(3), at(6)));
    assert_eq!((full.at_least, full.at_most), (at(3), at(5)));
    assert_eq!((full.times, full.still), (1, false));
    // Of a gap it is not known.
    let readings = [(0, LIMIT, 0), (1, LIMIT, 0), (2, LIMIT, 0), (100, LIMIT, 0), (101, LIMIT, 0)];
    let full = story_of(600, &readings).tables[0].full.unwrap();
    assert_eq!((full.at_least, full.at_most, full.still), (at(3), at(101), true));
}

#[test]
fn what_drops_without_being_full_now_was_full() {
    // As far as counters tell, it may have been for want of memory: not certain, so not full.
    let story = story_of(600, &[(0, 10, 0), (1, 10, 5), (2, 10, 5)]);
    assert_eq!(story.tables[0].full, None);
    assert_eq!(story.tables[0].counts.dropped, Bounds::exactly(5));
    let story = story_of(600, &[(0, LIMIT, 0), (1, LIMIT, 5), (2, 10, 5)]);
    assert!(story.tables[0].full.is_some());
}

#[test]
fn a_new_life_goes_on_from_what_is_certain() {
    let mut story = Story::new(600);
    let mut model = Model::default();
    for (second, drop) in [(0, 0), (1, 40)] {
        story.take(&model.advance(&sample(second, vec![table(1, "rt", 5, drop)])));
    }
    let began = Mark { time: second(5), kind: MarkKind::Life, text: "loaded again".to_owned() };
    story.mark(began);
    let mut model = Model::default();
    for (elapsed, drop) in [(0, 0), (1, 2)] {
        let sample =
            Sample { time: second(10 + elapsed), ..sample(elapsed, vec![table(1, "rt", 5, drop)]) };
        story.take(&model.advance(&sample));
    }
    let story = story.finish().unwrap();
    let table = &story.tables[0];
    assert_eq!(table.counts.dropped, Bounds::at_least(42), "more may have come unseen");
    assert_eq!(increases(table, |counts| counts.dropped).at_least, 42);
    assert_eq!(story.length, at(11));
    assert_eq!(story.marks[0].at, at(5));
    assert_eq!(story.gaps, [Silence { from: at(1), to: at(10) }]);
}

#[test]
fn the_worst_tables_have_lines() {
    let (mut model, mut story) = (Model::default(), Story::new(60));
    let tables = |drops: u32| -> Vec<TableSample> {
        let of = |id: u32| {
            // The last one is the worst by what it drops, the one before by how full it is.
            let drop = if id == 100 { drops } else { u32::from(id == 1 && drops > 0) };
            let entries = if id == 99 && drops > 0 { 990 } else { 1 };
            table(id, "x", entries, drop)
        };
        (1..=100).map(of).collect()
    };
    for (second, drops) in [(0, 0), (1, 5), (2, 9)] {
        story.take(&model.advance(&sample(second, tables(drops))));
    }
    let story = story.finish().unwrap();
    let ids: Vec<_> = story.tables.iter().map(TableStory::id).take(3).collect();
    assert_eq!((ids, story.tables.len(), story.left_out), (vec![100, 1, 99], MOST_TABLES, 36));
    // Its line begins where it got one; what was before is not lost.
    let worst = &story.tables[0];
    assert_eq!(
        (worst.before.dropped, worst.counts.dropped),
        (Bounds::exactly(5), Bounds::exactly(9))
    );
    assert_eq!(increases(worst, |counts| counts.dropped).at_least, 4);
    assert_eq!(story.left_out_dropped, 0);
}

#[test]
fn what_tables_without_lines_dropped_is_counted() {
    let (mut model, mut story) = (Model::default(), Story::new(60));
    for (second, drop) in [(0, 0), (1, 3)] {
        let tables = (1..=70).map(|id| table(id, "x", 1, drop)).collect();
        story.take(&model.advance(&sample(second, tables)));
    }
    let story = story.finish().unwrap();
    assert_eq!((story.tables.len(), story.left_out, story.left_out_dropped), (64, 6, 18));
}

#[test]
fn what_is_not_measured_is_not_zero() {
    let (mut model, mut story) = (Model::default(), Story::new(60));
    for second in 0..3 {
        let readable = table(1, "rt", 5, 0);
        let blind = TableSample { counters: None, ..table(2, "blind", 5, 0) };
        story.take(&model.advance(&sample(second, vec![readable, blind, unread(3, "sealed")])));
    }
    let story = story.finish().unwrap();
    let blind = story.tables.iter().find(|table| table.id() == 2).unwrap();
    let open = |bounds| matches!(bounds, Bounds::Unmeasured | Bounds::Within { at_most: None, .. });
    assert!(open(blind.counts.dropped), "{:?}", blind.counts.dropped);
    assert!(blind.buckets.iter().all(|bucket| open(bucket.counts.dropped)));
    assert_eq!(story.tables.len(), 2, "nothing is known of the sealed one");
    assert_eq!((story.unread, story.quiet), (1, 0));
}

fn taken(pinned: u32, reclaimable: u32) -> Arc<Taken> {
    let mut census = Census::new(&[], SEED);
    let key = Key { netns: 1, protocol: 17, family: AF_INET, ..Key::default() };
    for number in 0..pinned + reclaimable {
        let status = Status(if number < pinned { 1 << 2 } else { 0 });
        let held = Held { key, translated: key, status, state: 0, zone: 0, left: Left::Seconds(9) };
        census.enter(&held);
    }
    let kernel = KernelCount {
        netns: 1,
        owner: Owner::Host,
        is_judged: true,
        inode: 1,
        name: None,
        workload: Default::default(),
        before: Some(pinned + reclaimable),
        after: Some(pinned + reclaimable),
        unlisted: None,
        is_torn: false,
    };
    let took = Duration::ZERO;
    let (kernel, counted) = (vec![kernel], census.finish(1));
    let notes = Vec::new();
    Arc::new(Taken { by: "walk".into(), took, cpu: took, strayed: 0, kernel, counted, notes })
}

#[test]
fn only_a_census_says_who_held_it() {
    let (mut model, mut story) = (Model::default(), Story::new(600));
    for second in 0..60 {
        if second == 20 {
            model.take_in(taken(30, 70));
        }
        if second == 40 {
            model.take_in(taken(10, 0));
        }
        story.take(&model.advance(&sample(second, vec![table(1, "rt", 100, 0)])));
    }
    let story = story.finish().unwrap();
    let table = &story.tables[0];
    let held: Vec<_> = table.held.iter().map(|held| (held.at, held.holds.all())).collect();
    assert_eq!(held, [(at(19), 100), (at(39), 10)], "one for each, at the time it was taken");
    assert_eq!(table.fullest.as_ref().unwrap().held.holds.pinned, 30);
    assert_eq!(table.latest.as_ref().unwrap().held.holds.pinned, 10);
    assert!(table.held.iter().all(|held| held.is_whole));
}

#[test]
fn lists_that_ended_are_kept() {
    let mut model = Model::with_tops(3, &[By::Source]);
    let mut story = Story::new(60);
    let key = Key { netns: 1, family: AF_INET, ..Key::default() };
    let list = |count| TopCounts {
        stream: Stream::Insertions,
        by: By::Source,
        offered: count,
        left_out: 0,
        left_out_at_most: 0,
        counts: vec![TopCount { key, count, ..TopCount::default() }],
    };
    for (second, count) in [(0, Some(0)), (1, Some(5)), (2, Some(9)), (3, None), (4, None)] {
        let tops = count.map(list).into_iter().collect();
        let sample = Sample { tops, ..sample(second, vec![table(1, "rt", 5, 0)]) };
        story.take(&model.advance(&sample));
    }
    let story = story.finish().unwrap();
    let [list] = &story.tables[0].lists[..] else { panic!("{:?}", story.tables[0].lists) };
    assert_eq!((list.stream, list.entries[0].count), (Stream::Insertions, 9));
}

#[test]
fn marks_are_bounded_and_in_order() {
    let (mut model, mut story) = (Model::default(), Story::new(60));
    let mark = |second_of: u64| Mark {
        time: second(second_of),
        kind: MarkKind::Rules,
        text: "x".repeat(10_000),
    };
    story.mark(mark(0));
    for second in 0..1_000 {
        story.take(&model.advance(&sample(second, vec![table(1, "rt", 5, 0)])));
        story.mark(mark(second));
    }
    let story = story.finish().unwrap();
    assert_eq!((story.marks.len(), story.marks_left_out), (MOST_MARKS, 1_001 - 256));
    assert!(story.marks.is_sorted_by_key(|placed| placed.at));
    assert_eq!(story.marks.last().unwrap().at, at(999));
    assert!(story.marks.iter().all(|placed| placed.mark.text.len() == LONGEST_TEXT));
}

#[test]
fn a_clock_that_is_set_moves_no_line() {
    let (mut model, mut story) = (Model::default(), Story::new(60));
    for elapsed in 0..10 {
        let time = if elapsed < 5 { second(elapsed) } else { second(elapsed + 3_600) };
        let sample = Sample { time, ..sample(elapsed, vec![table(1, "rt", 5, 0)]) };
        story.take(&model.advance(&sample));
    }
    story.mark(Mark { time: second(3_610), kind: MarkKind::Rules, text: String::new() });
    let story = story.finish().unwrap();
    assert_eq!((story.length, story.all_gaps.0), (at(9), 0));
    assert_eq!(story.marks[0].mark.text, "the clock was set forward by 3600 s");
    assert_eq!((story.marks[0].at, story.marks[1].at), (at(5), at(10)));
}

#[test]
fn without_a_snapshot_there_is_no_story() {
    assert!(Story::new(600).finish().is_none());
    let story = story_of(600, &[(0, 5, 0)]);
    assert_eq!((story.length, story.usual_step, story.tables.len()), (at(0), None, 1));
}
