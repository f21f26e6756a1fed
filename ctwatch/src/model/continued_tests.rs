//! Counters never fall, whatever bounds do, and whichever namespaces and lives of the table come and go.

use std::collections::BTreeMap;

use ctwatch_abi::testing::Random;

use super::{
    Snapshot, Table,
    continued::{AllSeries, Continued, MOST_SERIES, Meter, Meters, Series},
    figure::{Bounds, Figure},
    verdict::situations::{Situation, table},
};

fn template() -> Snapshot {
    Situation::still(table(1, "rt", 5, 0)).snapshot()
}

fn figure(bounds: Bounds) -> Figure {
    bounds.figure(None, None)
}

fn of(snapshot: &Snapshot, id: u64, name: &str, bounds: Bounds) -> Table {
    let mut table = snapshot.tables[0].clone();
    (table.id, table.inode, table.name) = (id, u32::try_from(id).unwrap(), Some(name.to_owned()));
    table.dropped = figure(bounds);
    table
}

fn with(snapshot: &Snapshot, tables: Vec<Table>) -> Snapshot {
    Snapshot { tables, ..snapshot.clone() }
}

fn dropped(meters: &Meters) -> Option<u64> {
    meters.of(Meter::Dropped).map(|certain| certain.count)
}

fn named(all: &AllSeries) -> BTreeMap<String, Option<u64>> {
    all.own.iter().map(|series| (series.name.to_string(), dropped(&series.meters))).collect()
}

/// Over all namespaces, those that are gone included: what is certain, and the most that it can be.
fn sum(all: &AllSeries) -> (u64, Option<u64>) {
    let meters = all.own.iter().map(|Series { meters, .. }| meters);
    let meters = meters.chain(&all.gone).chain(&all.more);
    meters.filter_map(|meters| meters.of(Meter::Dropped)).fold((0, Some(0)), |sum, of| {
        (sum.0 + of.count, sum.1.zip(of.width).map(|(most, width)| most + of.count + width))
    })
}

#[test]
fn counters_run_on_through_lives() {
    let (snapshot, mut continued) = (template(), Continued::default());
    continued.begin();
    let rt = |bounds| with(&snapshot, vec![of(&snapshot, 1, "rt", bounds)]);
    continued.advance(&rt(Bounds::exactly(0)));
    assert_eq!(named(&continued.series()), [("rt".to_owned(), Some(0))].into());
    continued.advance(&rt(Bounds::exactly(7)));
    continued.end();
    assert_eq!(named(&continued.series())["rt"], Some(7), "nothing is dropped meanwhile");
    continued.begin();
    continued.advance(&rt(Bounds::exactly(0)));
    continued.advance(&rt(Bounds::between(2, 5)));
    let series = continued.series();
    assert_eq!((series.epoch, named(&series)["rt"], sum(&series)), (2, Some(9), (9, Some(12))));
    // Not measured any more: absent, and not zero.
    continued.end();
    continued.begin();
    continued.advance(&rt(Bounds::Unmeasured));
    assert_eq!(named(&continued.series())["rt"], None);
}

#[test]
fn what_is_gone_stays_in_the_sum() {
    let (snapshot, mut continued) = (template(), Continued::default());
    continued.begin();
    let both = |is_gone| {
        let rt = of(&snapshot, 1, "rt", Bounds::exactly(9));
        let host = of(&snapshot, 2, "host", Bounds::exactly(1));
        with(&snapshot, vec![Table { is_gone, ..rt }, host])
    };
    continued.advance(&both(false));
    assert_eq!(continued.series().gone, None);
    continued.advance(&both(true));
    let series = continued.series();
    assert_eq!(named(&series), [("host".to_owned(), Some(1))].into());
    assert_eq!((series.gone.as_ref().and_then(dropped), series.gone_namespaces), (Some(9), 1));
    // It was only hidden: what the sum has of it is not counted twice.
    let back = with(&snapshot, vec![of(&snapshot, 1, "rt", Bounds::exactly(11))]);
    continued.advance(&back);
    let series = continued.series();
    assert_eq!((named(&series)["rt"], sum(&series).0), (Some(2), 12));
    // Another one under its number.
    continued.advance(&with(&snapshot, Vec::new()));
    continued.advance(&with(&snapshot, vec![of(&snapshot, 1, "rt", Bounds::exactly(3))]));
    assert_eq!((named(&continued.series())["rt"], sum(&continued.series()).0), (Some(3), 15));
}

#[test]
fn strangers_have_no_series() {
    let (snapshot, mut continued) = (template(), Continued::default());
    let mut stranger = of(&snapshot, 2, "x", Bounds::exactly(1_000_000));
    stranger.is_judged = false;
    continued.begin();
    continued.advance(&with(&snapshot, vec![of(&snapshot, 1, "rt", Bounds::exactly(1)), stranger]));
    let series = continued.series();
    assert_eq!((named(&series).len(), series.left_out, sum(&series).0), (1, 1, 1));
}

#[test]
fn more_than_a_thousand_are_summed() {
    let (snapshot, mut continued) = (template(), Continued::default());
    continued.begin();
    let most = MOST_SERIES as u64 + 5;
    let all = |from: u64, count| {
        let each = |id| of(&snapshot, id, &format!("n{id}"), Bounds::exactly(count));
        with(&snapshot, (from..most).map(each).collect())
    };
    continued.advance(&all(0, 1));
    let series = continued.series();
    assert_eq!(series.own.len(), MOST_SERIES);
    assert_eq!(series.more.as_ref().and_then(dropped), Some(5));
    // There is room again: those that had none before stay where they are.
    continued.advance(&all(10, 2));
    let series = continued.series();
    assert_eq!(
        (series.own.len(), series.more.as_ref().and_then(dropped)),
        (MOST_SERIES - 10, Some(10))
    );
    assert_eq!(series.gone.as_ref().and_then(dropped), Some(10));
}

#[test]
fn no_counter_falls_in_a_thousand_histories() {
    let (snapshot, mut counted) = (template(), 0);
    for seed in 0..1000 {
        let mut random = Random(seed);
        let mut draw = |below: u64| random.draw() % below;
        let mut continued = Continued::default();
        continued.begin();
        // What truly happened in each in this life of the table.
        let mut truths = BTreeMap::<u64, u64>::new();
        let (mut truth, mut before, mut last) = (0, BTreeMap::new(), 0);
        for _ in 0..40 {
            match draw(12) {
                0 => {
                    continued.end();
                    continued.begin();
                    truths.values_mut().for_each(|now| *now = 0);
                }
                1 => _ = truths.insert(draw(5), 0),
                2 => _ = truths.remove(&draw(5)),
                _ => {}
            }
            let mut tables = Vec::new();
            for (slot, now) in &mut truths {
                let more = draw(9);
                (*now, truth) = (*now + more, truth + more);
                let least = *now - draw(*now + 1);
                let bounds = match draw(3) {
                    0 => Bounds::exactly(*now),
                    1 => Bounds::between(least, *now + draw(9)),
                    _ => Bounds::at_least(least),
                };
                // Some share a name.
                tables.push(of(&snapshot, *slot + 1, &format!("n{}", slot % 3), bounds));
            }
            continued.advance(&with(&snapshot, tables));
            let series = continued.series();
            let now = named(&series);
            for (name, count) in &now {
                assert!(*count >= before.get(name).copied().unwrap_or_default(), "{seed}: {name}");
            }
            let (least, _) = sum(&series);
            assert!(last <= least && least <= truth, "{seed}: {last} {least} {truth}");
            // A name that goes may come back as another namespace's, which begins at 0.
            (before, last) = (now, least);
        }
        counted += u64::from(last > 100);
    }
    assert!(counted > 500, "{counted}");
}
