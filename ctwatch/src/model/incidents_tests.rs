//! From snapshots to incidents.

use std::{sync::Arc, time::Duration};

use ctwatch_abi::{
    Count, NetnsTally,
    plane::Plane,
    top::{AF_INET, By, Key, Stream},
};

use super::{
    Model,
    census::{Census, SEED, Taken},
    figure::{Bounds, Figure},
    incident::{Cause, Ending, Incident, Stage},
    incidents::{Incidents, MOST_OPEN, Turn},
    trouble::Criteria,
    verdict::situations,
};
use crate::record::{
    counters::{CounterSums, CpuCounters},
    entry::{Held, Left, Status},
    sample::{
        Access, Counted, HookReadings, Idle, Owner, PlaneCount, Probed, Sample, TableSample,
        TopCount, TopCounts,
    },
    tests::recorded,
};

const LIMIT: u32 = 1000;
/// 2026-11-26T03:00:00Z
const THREE: i64 = 1_795_662_000;
const BOOT: &str = "5f0cbb0e-6d5c-4f3f-9c49-6b6f1c2d3e4f";

/// What one table has come to.
#[derive(Clone, Copy, Default)]
struct At {
    entries: u32,
    /// Packets dropped because it is full.
    full: u32,
    clash: u32,
    /// As `clash`, of packets that NAT had changed.
    nat: u32,
    removed: u32,
    early_drop: u32,
    /// Of the counters.
    gaps: u32,
}

impl At {
    fn table(self, id: u32) -> TableSample {
        let Self { entries, full, clash, nat, removed, early_drop, gaps } = self;
        let counters = CpuCounters {
            drop: full + clash + nat,
            insert_failed: clash + nat,
            early_drop,
            chaintoolong: Some(0),
            ..CpuCounters::default()
        };
        let mut tally = NetnsTally::new(id.into(), id);
        let mut count = |count, times: u32| (0..times).for_each(|_| tally.bump(count));
        count(Count::DroppedUntracked, full);
        count(Count::DroppedUnconfirmed, clash + nat);
        count(Count::DroppedUnconfirmedNat, nat);
        count(Count::Removed, removed + early_drop);
        TableSample {
            counters: Some(CounterSums { gaps, ..CounterSums::of(&[counters]) }),
            hooks: Some(HookReadings { before: tally, after: tally }),
            ..situations::table(id, "rt", entries, 0)
        }
    }
}

struct Watch {
    model: Model,
    incidents: Incidents,
    is_probed: bool,
}

impl Watch {
    fn new(criteria: Criteria) -> Self {
        let incidents = Incidents::new(Some(BOOT), 1, criteria);
        Self { model: Model::with_tops(9, &[By::Source]), incidents, is_probed: true }
    }

    fn sample(&self, second: u64, tables: Vec<TableSample>) -> Sample {
        let counted = Counted { drops: true, ends: true, ..Counted::default() };
        Sample {
            time: jiff::Timestamp::from_second(THREE + i64::try_from(second).unwrap()).unwrap(),
            limit: Some(LIMIT),
            tables,
            probed: self.is_probed.then(|| Probed { counted, ..Probed::default() }),
            ..Sample::at(Duration::from_secs(second))
        }
    }

    fn see(&mut self, sample: &Sample) -> Vec<Turn> {
        self.incidents.look(&self.model.advance(&recorded(sample)))
    }

    fn at(&mut self, second: u64, tables: Vec<TableSample>) -> Vec<Turn> {
        self.see(&self.sample(second, tables))
    }

    fn one(&mut self, second: u64, at: At) -> Vec<Turn> {
        self.at(second, vec![at.table(1)])
    }
}

fn began(turns: &[Turn]) -> Vec<&Incident> {
    let began = turns.iter().filter_map(|turn| match turn {
        Turn::Began(incident) => Some(incident),
        _ => None,
    });
    began.collect()
}

fn ended(turns: &[Turn]) -> Vec<&Incident> {
    let ended = turns.iter().filter_map(|turn| match turn {
        Turn::Ended(incident) => Some(incident),
        _ => None,
    });
    ended.collect()
}

/// The seconds of its begin, and of its last reading.
fn span(incident: &Incident) -> (u64, u64) {
    (incident.begin.elapsed.as_secs(), incident.last.elapsed.as_secs())
}

fn within(figure: Figure) -> (u64, Option<u64>) {
    match figure.bounds() {
        Bounds::Unmeasured => panic!("not measured"),
        Bounds::Within { at_least, at_most } => (at_least, at_most),
    }
}

fn exactly(count: u64) -> (u64, Option<u64>) {
    (count, Some(count))
}

/// Ticks from one second to another, all alike.
fn rest(watch: &mut Watch, seconds: std::ops::RangeInclusive<u64>, at: At) -> Vec<Turn> {
    seconds.flat_map(|second| watch.one(second, at)).collect()
}

#[test]
fn a_burst_inside_one_tick_is_an_incident() {
    let mut watch = Watch::new(Criteria::default());
    let before = At { entries: 100, full: 7, ..At::default() };
    assert!(watch.one(0, before).is_empty(), "7 were dropped before");
    assert!(watch.one(1, before).is_empty());
    let after = At { entries: 120, full: 507, removed: 900, ..before };
    let turns = watch.one(2, after);
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(incident.id, format!("{BOOT}-1-1-20261126T030002.000Z"));
    assert_eq!(incident.begin_after.map(|tick| tick.elapsed), Some(Duration::from_secs(1)));
    assert_eq!((incident.cause, incident.stage), (Cause::Dropped("table_full"), Stage::Dropping));
    assert!(incident.was_full, "though no reading found it full");
    assert_eq!((incident.ending, incident.end()), (Ending::Open, None));
    assert_eq!(rest(&mut watch, 3..=61, after).len(), 0, "not quiet for long enough");
    let turns = watch.one(62, after);
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.ending), ((2, 2), Ending::Quiet));
    assert_eq!(incident.over.map(|tick| tick.elapsed), Some(Duration::from_secs(3)));
    assert_eq!(incident.duration(), (Duration::ZERO, Some(Duration::from_secs(2))));
    let happened = &incident.happened;
    assert_eq!(within(happened.dropped), exactly(500));
    assert_eq!(within(happened.drops.table_full), exactly(500));
    assert_eq!(within(happened.drops.clash), exactly(0));
    assert_eq!(within(happened.removals), exactly(900));
    assert_eq!(within(happened.insertions), exactly(920));
    assert_eq!((incident.limit, incident.entries), (Some(LIMIT), Some(120)));
    assert_eq!(incident.peak.map(|peak| (peak.entries, peak.fill)), Some((120, Some(0.12))));
    assert!(rest(&mut watch, 63..=200, after).is_empty());
}

#[test]
fn counters_alone_give_bounds() {
    let mut watch = Watch { is_probed: false, ..Watch::new(Criteria::default()) };
    let table = |drop| vec![TableSample { hooks: None, ..situations::table(1, "rt", 50, drop) }];
    assert!(watch.at(0, table(0)).is_empty());
    // For which reason is not known: want of room, or a packet that the tracker would not have.
    assert!(watch.at(1, table(1)).is_empty());
    assert!(watch.at(30, table(9)).is_empty());
    let turns = watch.at(31, table(40));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.cause), ((1, 31), Cause::Dropped("dropped")));
    assert_eq!(incident.begin_after.map(|tick| tick.elapsed), Some(Duration::ZERO));
    assert_eq!(within(incident.happened.dropped), exactly(40), "from the first of them on");
    assert_eq!(within(incident.happened.drops.table_full), (0, Some(40)));
    assert!(!incident.was_full, "that is not certain");
    assert_eq!(incident.happened.insertions.bounds(), Bounds::Unmeasured);
}

/// Counters that were not read for so long may have gone all the way round.
#[test]
fn a_lower_bound_still_says_what_it_grew_by() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    let at = |full| At { full, gaps: 1, ..At::default() };
    watch.one(10_000, at(100));
    rest(&mut watch, 10_001..=10_100, at(100));
    let turns = watch.one(10_101, at(130));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), (30, None));
}

#[test]
fn a_gap_ends_an_incident_and_begins_another() {
    const THREE_HOURS: u64 = 10_800;
    let at = |full| At { entries: 1000, full, ..At::default() };
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    for (second, full) in [(1, 10), (2, 20), (3, 30)] {
        assert!(ended(&watch.one(second, at(full))).is_empty());
    }
    let turns = watch.one(3 + THREE_HOURS, at(500));
    let [before] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(before), before.ending), ((1, 3), Ending::Unwatched));
    assert_eq!((before.over, before.duration().1), (None, None), "nobody knows");
    assert_eq!(within(before.happened.dropped), exactly(30));
    let [after] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(span(after), (3 + THREE_HOURS, 3 + THREE_HOURS));
    assert_eq!(after.begin_after, Some(before.last), "at some time in the gap");
    assert_eq!(within(after.happened.dropped).0, 470, "each packet is of one of the two");
    assert_ne!(before.id, after.id);
}

#[test]
fn rare_readings_are_no_gap() {
    let every = Duration::from_secs(300);
    let mut watch = Watch::new(Criteria::default().read_every(every));
    let at = |full| At { full, ..At::default() };
    watch.one(0, at(0));
    let mut turns = Vec::new();
    for tick in 1..=12_u32 {
        turns.extend(watch.one(u64::from(tick) * 300 + 1, at(tick * 5)));
    }
    assert_eq!((began(&turns).len(), ended(&turns).len()), (1, 0), "{turns:?}");
    turns.extend(watch.one(3900, at(60)));
    assert!(ended(&turns).is_empty(), "one quiet reading");
    turns.extend(watch.one(4202, at(60)));
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), within(incident.happened.dropped)), ((301, 3601), exactly(60)));
}

#[test]
fn a_table_that_flaps_is_one_incident() {
    for (rest, expected) in [(20, 1), (59, 1), (60, 5), (90, 5)] {
        let mut watch = Watch::new(Criteria::default());
        watch.one(0, At { entries: 500, ..At::default() });
        let (mut second, mut turns) = (0, Vec::new());
        for flap in 1..=5 {
            second += 1;
            let full = At { entries: LIMIT, early_drop: flap, ..At::default() };
            turns.extend(watch.one(second, full));
            for _ in 0..rest {
                second += 1;
                turns.extend(watch.one(second, At { entries: 500, ..full }));
            }
        }
        let last = At { entries: 500, early_drop: 5, ..At::default() };
        for _ in 0..70 {
            second += 1;
            turns.extend(watch.one(second, last));
        }
        let ended = ended(&turns);
        assert_eq!((began(&turns).len(), ended.len()), (expected, expected), "{rest} s of rest");
        let evicted: u64 = ended.iter().map(|of| within(of.happened.early_drop).0).sum();
        assert_eq!(evicted, 5);
        for incident in ended {
            assert_eq!((incident.stage, incident.cause), (Stage::Full, Cause::Full));
            assert!(incident.was_full);
        }
    }
}

#[test]
fn two_tables_have_an_incident_each() {
    let mut watch = Watch::new(Criteria::default());
    let both = |one: u32, two: u32| {
        let at = |full| At { full, entries: full, ..At::default() };
        vec![at(one).table(1), at(two).table(2)]
    };
    watch.at(0, both(0, 0));
    let turns = watch.at(1, both(3, 5));
    let of: Vec<_> =
        began(&turns).iter().map(|of| (of.netns, within(of.happened.dropped))).collect();
    assert_eq!(of, [(2, exactly(5)), (1, exactly(3))], "the worst first");
    // One goes on, the other has ended.
    let mut turns = Vec::new();
    (2..=61).for_each(|second| turns.extend(watch.at(second, both(3, 5 + second as u32))));
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((incident.netns, within(incident.happened.dropped)), (1, exactly(3)));
    let open: Vec<_> = watch.incidents.open().collect();
    assert_eq!((open.len(), open[0].netns, span(open[0])), (1, 2, (1, 61)));
    assert_eq!(within(open[0].happened.dropped), exactly(66));
}

#[test]
fn one_that_goes_on_at_the_end_is_open() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    watch.one(1, At { full: 3, ..At::default() });
    watch.one(2, At { full: 4, ..At::default() });
    watch.one(3, At { full: 4, ..At::default() });
    let mut again = watch.incidents.clone();
    let [incident] = watch.incidents.finish(Ending::Open).try_into().unwrap();
    assert_eq!((span(&incident), incident.ending, incident.end()), ((1, 2), Ending::Open, None));
    assert_eq!(incident.duration(), (Duration::from_secs(1), None));
    assert_eq!(
        (watch.incidents.open().count(), watch.incidents.finish(Ending::Open).len()),
        (0, 0)
    );
    let [unloaded] = again.finish(Ending::Unloaded).try_into().unwrap();
    assert_eq!((unloaded.ending, unloaded.end()), (Ending::Unloaded, Some(incident.last)));
    assert_eq!(unloaded.id, incident.id);
}

#[test]
fn a_thousand_at_once_are_bounded_and_counted() {
    const MANY: u32 = 1000;
    const ROOM: u32 = MOST_OPEN as u32;
    let mut watch = Watch::new(Criteria::default());
    let all = |of: &dyn Fn(u32) -> u32| -> Vec<TableSample> {
        (1..=MANY).map(|id| At { full: of(id), ..At::default() }.table(id)).collect()
    };
    watch.at(0, all(&|_| 0));
    let turns = watch.at(1, all(&|id| id));
    let ids: Vec<_> = began(&turns).iter().map(|incident| incident.netns).collect();
    let worst: Vec<_> = (MANY - ROOM + 1..=MANY).rev().map(u64::from).collect();
    assert_eq!(ids, worst);
    assert_eq!(watch.incidents.untold(), u64::from(MANY - ROOM));
    // The first goes on; of the others there is room for the worst when those that were told are over.
    let on = |second: u64| {
        move |id: u32| match id {
            1 => second as u32,
            // It flaps, and is still one.
            2 => 2 + u32::from(second >= 31),
            id => id,
        }
    };
    for second in [11, 21, 31, 41, 51, 60] {
        assert!(watch.at(second, all(&on(second))).is_empty());
        assert_eq!(watch.incidents.untold(), u64::from(MANY - ROOM), "each is counted once");
    }
    let turns = watch.at(61, all(&on(61)));
    assert_eq!(ended(&turns).len(), MOST_OPEN);
    let [late] = began(&turns)[..] else { panic!("{}", began(&turns).len()) };
    assert_eq!((late.netns, span(late)), (1, (1, 61)), "from when it began");
    assert_eq!(within(late.happened.dropped), exactly(61));
    assert_eq!(watch.incidents.untold(), u64::from(MANY - ROOM - 1));
    assert_eq!(watch.incidents.finish(Ending::Open).len(), 1);
    assert_eq!(watch.incidents.untold(), u64::from(MANY - ROOM - 1));
}

#[test]
fn lone_clashes_are_no_incident() {
    let mut watch = Watch::new(Criteria::default());
    for second in 0..900 {
        let clash = second / 10;
        assert!(watch.one(second.into(), At { clash, ..At::default() }).is_empty(), "{second}");
    }
    let turns = watch.one(900, At { clash: 400, ..At::default() });
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((incident.cause, incident.was_full), (Cause::Dropped("clash"), false));
    // From the first of the clashes that became many.
    assert!(within(incident.happened.drops.clash).0 > 310, "{incident:?}");
}

#[test]
fn clashes_or_ports_that_are_many_are_an_incident() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    assert!(watch.one(1, At { nat: 9, ..At::default() }).is_empty());
    let turns = watch.one(2, At { nat: 300, ..At::default() });
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(incident.cause, Cause::Dropped("clash_or_nat_exhausted"));
    let drops = &incident.happened.drops;
    assert_eq!(within(drops.clash_or_nat_exhausted), exactly(300));
    assert_eq!(
        (within(drops.clash), within(drops.nat_exhausted)),
        ((0, Some(300)), (0, Some(300)))
    );
}

#[test]
fn a_stray_does_not_prolong_an_incident() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    let mut turns = watch.one(1, At { full: 500, ..At::default() });
    for second in 2..=61 {
        let clash = second / 20;
        turns.extend(watch.one(second.into(), At { full: 500, clash, ..At::default() }));
    }
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), within(incident.happened.dropped)), ((1, 1), exactly(500)));
    // Also where the reason of none of them is known.
    let mut watch = Watch { is_probed: false, ..Watch::new(Criteria::default()) };
    watch.at(0, vec![situations::rt(0, 0)]);
    let mut turns = watch.at(1, vec![situations::rt(0, 500)]);
    for second in 2..=61 {
        turns.extend(watch.at(second, vec![situations::rt(0, 500 + second as u32 / 20)]));
    }
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), within(incident.happened.dropped)), ((1, 1), exactly(500)));
}

#[test]
fn a_name_is_kept_when_the_namespace_goes() {
    let mut watch = Watch::new(Criteria::default());
    let named = |full, name: Option<&str>| {
        let name = name.map(str::to_owned);
        vec![TableSample { name, ..At { full, ..At::default() }.table(1) }]
    };
    let name = |watch: &Watch| watch.incidents.open().next().unwrap().name.clone();
    watch.at(0, named(0, None));
    watch.at(1, named(1, None));
    assert_eq!(name(&watch), None);
    watch.at(2, named(2, Some("late")));
    watch.at(3, named(3, None));
    assert_eq!(name(&watch).as_deref(), Some("late"));
}

#[test]
fn a_table_that_fills_grows_into_one_that_drops() {
    let mut watch = Watch::new(Criteria::default());
    let entries = |entries| At { entries, ..At::default() };
    watch.one(0, entries(700));
    assert!(watch.one(1, entries(780)).is_empty(), "soon full, and not filled enough");
    let turns = watch.one(2, entries(860));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((incident.cause, incident.stage), (Cause::Filling, Stage::Filling));
    assert_eq!((incident.entries, incident.was_full), (Some(860), false));
    assert_eq!(within(incident.happened.dropped), exactly(0));
    assert!(watch.one(3, entries(940)).is_empty());
    let stage = |turns: &[Turn]| match turns {
        [Turn::Grew(incident)] => incident.stage,
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(&watch.one(4, entries(LIMIT))), Stage::Full);
    let refusing = At { full: 9, ..entries(LIMIT) };
    assert_eq!(stage(&watch.one(5, refusing)), Stage::Dropping);
    let turns = rest(&mut watch, 6..=70, At { entries: 10, ..refusing });
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.cause), ((2, 5), Cause::Filling));
    assert_eq!(
        incident.peak.map(|peak| (peak.entries, peak.at.elapsed.as_secs())),
        Some((LIMIT, 4))
    );
    assert_eq!(within(incident.happened.drops.table_full), exactly(9));
}

#[test]
fn a_table_not_read_does_not_fill() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At { entries: 800, ..At::default() });
    assert_eq!(began(&watch.one(1, At { entries: 850, ..At::default() })).len(), 1);
    let mut idle = |second| {
        let idle = vec![Idle { id: 1, age: Duration::from_secs(second - 1) }];
        watch.see(&Sample { idle, ..watch.sample(second, Vec::new()) })
    };
    let turns: Vec<_> = (2..=61).flat_map(&mut idle).collect();
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.stage), ((1, 1), Stage::Filling));
}

#[test]
fn a_slow_rise_is_no_incident() {
    let mut watch = Watch::new(Criteria::default());
    for second in 0..100 {
        let entries = 850 + second as u32;
        assert!(watch.one(second, At { entries, ..At::default() }).is_empty(), "{second}");
        if entries > 930 {
            break;
        }
    }
}

#[test]
fn one_from_before_the_start_has_no_begin() {
    let mut watch = Watch::new(Criteria::default());
    let turns = watch.one(0, At { entries: LIMIT, full: 90, ..At::default() });
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((incident.begin_after, incident.cause), (None, Cause::Full));
    assert_eq!(within(incident.happened.dropped), exactly(0), "from here on");
    watch.one(1, At { entries: 5, full: 95, ..At::default() });
    let turns = rest(&mut watch, 2..=61, At { entries: 5, full: 95, ..At::default() });
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), exactly(5));
    assert_eq!(incident.duration(), (Duration::from_secs(1), None), "longer, perhaps");
}

#[test]
fn a_namespace_that_goes_ends_its_incident() {
    let mut watch = Watch { is_probed: false, ..Watch::new(Criteria::default()) };
    let mut table = At { entries: LIMIT, ..At::default() }.table(1);
    table.hooks = None;
    let gone =
        TableSample { access: Access::Unseen, entries: None, counters: None, ..table.clone() };
    watch.at(0, vec![situations::table(1, "rt", 0, 0)]);
    assert_eq!(began(&watch.at(1, vec![table.clone()])).len(), 1);
    let turns = watch.at(2, vec![gone]);
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.ending), ((1, 1), Ending::Gone));
    assert_eq!(incident.duration().1, Some(Duration::from_secs(2)));
    // One that was made and went between two ticks.
    let table = TableSample { access: Access::Unseen, ..At { full: 20, ..At::default() }.table(3) };
    let lived = TableSample { hooks: None, entries: None, ..table };
    let turns = watch.at(3, vec![lived]);
    let ([one], [same]) = (&began(&turns)[..], &ended(&turns)[..]) else { panic!("{turns:?}") };
    assert_eq!((one.id.as_str(), same.netns, same.ending), (same.id.as_str(), 3, Ending::Gone));
    assert_eq!(within(same.happened.dropped).0, 20);
    assert_eq!(watch.incidents.open().count(), 0);
}

#[test]
fn what_cannot_be_read_is_not_quiet() {
    let mut watch = Watch { is_probed: false, ..Watch::new(Criteria::default()) };
    watch.at(0, vec![situations::rt(0, 0)]);
    watch.at(1, vec![situations::rt(LIMIT, 0)]);
    for second in 2..200 {
        assert!(watch.at(second, vec![situations::unread(1, "rt")]).is_empty(), "{second}");
    }
    let turns = watch.at(200, vec![situations::rt(5, 0)]);
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.over.map(|o| o.elapsed.as_secs())), ((1, 1), Some(200)));
}

#[test]
fn a_namespace_not_read_is_as_it_was() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    let mut idle = |second| {
        let idle = vec![Idle { id: 1, age: Duration::from_secs(second) }];
        watch.see(&Sample { idle, ..watch.sample(second, Vec::new()) })
    };
    assert!((1..=5).all(|second| idle(second).is_empty()));
    let turns = watch.one(6, At { full: 5, ..At::default() });
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), within(incident.happened.dropped)), ((6, 6), exactly(5)));
    assert_eq!(incident.begin_after.map(|tick| tick.elapsed), Some(Duration::ZERO));
    // It ends while nothing of it is read, and what comes then may be older.
    let mut idle = |second| {
        let idle = vec![Idle { id: 1, age: Duration::from_secs(second - 6) }];
        watch.see(&Sample { idle, ..watch.sample(second, Vec::new()) })
    };
    let turns: Vec<_> = (7..=80).flat_map(&mut idle).collect();
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!((span(incident), incident.ending), ((6, 6), Ending::Quiet));
    let turns = watch.one(81, At { full: 9, ..At::default() });
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(incident.begin_after.map(|tick| tick.elapsed), Some(Duration::from_secs(6)));
}

#[test]
fn counters_that_come_late_are_no_incident() {
    let mut watch = Watch { is_probed: false, ..Watch::new(Criteria::default()) };
    let table = |drop| vec![TableSample { hooks: None, ..situations::table(1, "rt", 50, drop) }];
    watch.at(0, vec![situations::without_counters(50)]);
    assert!(watch.at(1, table(900)).is_empty());
    let turns = watch.at(2, table(920));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), (20, None));
    // Of one that was made meanwhile all counts, and when it was dropped is not known.
    let made = |table: TableSample| vec![TableSample { id: 2, ..table }];
    assert!(began(&watch.at(3, made(situations::without_counters(5)))).is_empty());
    assert!(began(&watch.at(4, made(table(900).remove(0)))).is_empty());
    let turns = watch.at(5, made(table(930).remove(0)));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), exactly(30));
}

#[test]
fn a_doubt_that_goes_is_no_news() {
    let mut watch = Watch::new(Criteria::default());
    let sample = watch.sample(0, vec![At { full: 10, ..At::default() }.table(1)]);
    let mut snapshot = watch.model.advance(&sample);
    let mut see = |second, bounds: Bounds| {
        let figure = bounds.figure(None, None);
        (snapshot.elapsed, snapshot.tables[0].dropped) = (Duration::from_secs(second), figure);
        snapshot.tables[0].drops.table_full = figure;
        watch.incidents.look(&snapshot)
    };
    assert!(see(0, Bounds::exactly(10)).is_empty());
    assert!(see(1, Bounds::between(7, 10)).is_empty());
    assert!(see(2, Bounds::exactly(10)).is_empty());
    let turns = see(3, Bounds::exactly(11));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), exactly(1));
}

#[test]
fn what_comes_back_is_not_counted_again() {
    let mut watch = Watch::new(Criteria::default());
    let at = |full| At { full, ..At::default() }.table(1);
    let unseen = |full| {
        let (access, entries, counters) = (Access::Unseen, None, None);
        vec![TableSample { access, entries, counters, ..at(full) }]
    };
    watch.at(0, vec![at(0)]);
    assert_eq!(began(&watch.at(1, vec![at(300)])).len(), 1);
    let turns: Vec<_> = (2..30).flat_map(|second| watch.at(second, unseen(300))).collect();
    let [incident] = ended(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(incident.ending, Ending::Gone);
    // It was only hidden.
    let turns = watch.at(30, vec![at(302)]);
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), (0, Some(2)));
}

#[test]
fn strangers_have_no_incidents() {
    let stranger = |at: At, is_judged| {
        vec![TableSample { owner: Owner::User(1000), is_judged, ..at.table(1) }]
    };
    let mut watch = Watch::new(Criteria::default());
    let bad = At { entries: LIMIT, full: 900, ..At::default() };
    watch.at(0, stranger(At::default(), false));
    assert!(watch.at(1, stranger(bad, false)).is_empty());
    let calm = At { entries: 5, ..bad };
    assert!(watch.at(2, stranger(calm, false)).is_empty());
    assert!(watch.at(3, stranger(calm, true)).is_empty(), "what it dropped before is no news");
    let turns = watch.at(4, stranger(At { full: 901, ..calm }, true));
    let [incident] = began(&turns)[..] else { panic!("{turns:?}") };
    assert_eq!(within(incident.happened.dropped), exactly(1));
    assert_eq!(ended(&watch.at(5, stranger(calm, false))).len(), 1);
}

#[test]
fn an_id_needs_no_escape() {
    let id = |boot: Option<&str>| {
        let mut watch = Watch::new(Criteria::default());
        watch.incidents = Incidents::new(boot, 7, Criteria::default());
        let turns = watch.one(0, At { entries: LIMIT, ..At::default() });
        began(&turns)[0].id.clone()
    };
    assert_eq!(id(Some(BOOT)), format!("{BOOT}-7-1-20261126T030000.000Z"));
    for strange in [None, Some(""), Some("../x"), Some("a b"), Some("\u{202e}"), Some("<i>")] {
        assert_eq!(id(strange), "unknown-7-1-20261126T030000.000Z", "{strange:?}");
    }
}

/// `count` packets of each of these sources.
fn lists(sources: &[(u8, u64)]) -> Vec<TopCounts> {
    let count = |(number, count): &(u8, u64)| {
        let mut key = Key { netns: 1, family: AF_INET, ..Key::default() };
        key.src[..4].copy_from_slice(&[10, 0, 0, *number]);
        TopCount { key, count: *count, ..TopCount::default() }
    };
    let offered = sources.iter().map(|(_, count)| count).sum();
    let counts = sources.iter().map(count).collect();
    vec![TopCounts {
        stream: Stream::Drops,
        by: By::Source,
        offered,
        left_out: 0,
        left_out_at_most: 0,
        counts,
    }]
}

#[test]
fn lists_are_of_the_moment_when_most_happened() {
    let mut watch = Watch::new(Criteria::default());
    let mut see = |second, full: u32, sources: &[(u8, u64)], bgp| {
        let tables = vec![At { full, ..At::default() }.table(1)];
        let planes = Some(vec![PlaneCount { netns: 1, plane: Plane::Bgp, count: bgp }]);
        let tops = lists(sources);
        watch.see(&Sample { tops, planes, ..watch.sample(second, tables) })
    };
    see(0, 0, &[], 100);
    see(1, 0, &[], 102);
    see(2, 10, &[(1, 10)], 102);
    let many: Vec<(u8, u64)> = (2..=9).map(|number| (number, 100)).collect();
    see(3, 810, &[&[(1, 10)], &many[..]].concat(), 105);
    see(4, 815, &[&[(1, 15)], &many[..]].concat(), 105);
    let [incident] = watch.incidents.finish(Ending::Open).try_into().unwrap();
    let [kept] = &incident.tops[..] else { panic!("{:?}", incident.tops) };
    assert_eq!((kept.at.elapsed.as_secs(), kept.per_s), (3, 800.0));
    let [list] = &kept.lists[..] else { panic!("{kept:?}") };
    let who: Vec<_> = list.entries.iter().map(|entry| (entry.key.src[3], entry.per_s)).collect();
    assert_eq!(who.len(), 5);
    assert!(who.iter().all(|(number, per_s)| *number > 1 && *per_s == Some(100.0)), "{who:?}");
    let [bgp] = &incident.control_plane[..] else { panic!("{:?}", incident.control_plane) };
    assert_eq!((bgp.protocol, within(bgp.dropped)), ("BGP", exactly(3)), "without those before");
}

#[test]
fn the_last_census_is_kept_with_its_time() {
    let mut watch = Watch::new(Criteria::default());
    watch.one(0, At::default());
    watch.one(1, At { full: 3, ..At::default() });
    let census = |pinned: u32| {
        let mut census = Census::new(&[By::Source], SEED);
        let key = Key { netns: 1, protocol: 17, family: AF_INET, ..Key::default() };
        let (status, left) = (Status(1 << 2), Left::Seconds(9));
        let held = Held { key, translated: key, status, state: 0, zone: 0, left };
        (0..pinned).for_each(|_| census.enter(&held));
        let (took, cpu) = (Duration::ZERO, Duration::ZERO);
        let (kernel, notes, counted) = (Vec::new(), Vec::new(), census.finish(9));
        Arc::new(Taken { by: "walk".into(), took, cpu, strayed: 0, kernel, counted, notes })
    };
    let seen = |watch: &Watch| {
        let census = watch.incidents.open().next().unwrap().census.clone();
        census.map(|of| (of.holds.pinned, of.time.as_second() - THREE, of.top[0].entries.len()))
    };
    assert_eq!(seen(&watch), None);
    watch.model.take_in(census(4));
    (2..9).for_each(|second| drop(watch.one(second, At { full: 3, ..At::default() })));
    assert_eq!(seen(&watch), Some((4, 1, 1)), "taken after the reading at 1");
    watch.model.take_in(census(5));
    watch.one(9, At { full: 3, ..At::default() });
    assert_eq!(seen(&watch), Some((5, 8, 1)));
}

/// Whatever happens in whatever order: what is told holds the truth, and no packet is told of twice.
#[test]
fn intervals_hold_the_truth() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut told = 0;
    for is_probed in [true, false] {
        for _ in 0..20 {
            let quiet = Duration::from_secs(5);
            let mut watch =
                Watch { is_probed, ..Watch::new(Criteria { quiet, ..Criteria::default() }) };
            let mut at = At::default();
            // Seconds, and what there was by then.
            let mut truth = vec![(0, at)];
            watch.one(0, at);
            let (mut turns, mut second) = (Vec::new(), 0);
            for _ in 0..150 {
                second += if random(20) == 0 { 5 + random(30) } else { 1 + random(2) };
                let is_busy = second / 40 % 2 == 0;
                at.full += if is_busy && random(3) == 0 { random(30) as u32 } else { 0 };
                at.clash += u32::from(random(7) == 0);
                at.nat += if random(30) == 0 { random(40) as u32 } else { 0 };
                at.removed += random(50) as u32;
                at.entries = if is_busy { 700 + random(301) as u32 } else { random(300) as u32 };
                truth.push((second, at));
                let mut table = at.table(1);
                table.hooks = table.hooks.filter(|_| is_probed);
                turns.extend(watch.at(second, vec![table]));
            }
            let mut all: Vec<Incident> = ended(&turns).into_iter().cloned().collect();
            all.extend(watch.incidents.finish(Ending::Open));
            assert_eq!(all.len(), began(&turns).len());
            told += all.len();
            let mut before = 0;
            for incident in all {
                let by = |second: u64| truth.iter().find(|(at, _)| *at == second).unwrap().1;
                let begin = incident.begin_after.map_or(0, |tick| tick.elapsed.as_secs());
                let (first, last) = (by(begin), by(incident.last.elapsed.as_secs()));
                assert!(begin >= before && incident.begin.elapsed.as_secs() > begin || begin == 0);
                before = incident.last.elapsed.as_secs();
                let came = |of: fn(&At) -> u32| u64::from(of(&last) - of(&first));
                let drops = &incident.happened.drops;
                for (figure, truth) in [
                    (drops.table_full, came(|at| at.full)),
                    (drops.clash_or_nat_exhausted, came(|at| at.clash + at.nat)),
                    (drops.no_memory, 0),
                    (incident.happened.dropped, came(|at| at.full + at.clash + at.nat)),
                ] {
                    let (least, most) = within(figure);
                    let holds = least <= truth && most.is_none_or(|most| truth <= most);
                    assert!(holds, "{truth}: {figure:?} of {incident:?}");
                }
                assert_eq!(
                    within(incident.happened.dropped).0,
                    within(incident.happened.dropped).1.unwrap()
                );
            }
        }
    }
    assert!(told > 100, "{told}");
}
