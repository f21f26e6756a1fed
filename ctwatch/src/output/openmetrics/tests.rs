//! The whole page in both formats, from values. `UPDATE_EXPECT=1 cargo test -p ctwatch --lib openmetrics` writes the
//! files anew. The fleet suite has prometheus_client read them.

use std::{collections::BTreeSet, time::Duration};

use expect_test::expect_file;

use super::{ConntrackState, NodeCounters, Scraped, Usage, format::Format, page};
use crate::{
    model::{
        Snapshot,
        continued::{AllSeries, Continued},
    },
    output::fixtures::{header, several},
    record::counters::{CounterSums, CpuCounters},
};

/// Several tables, one of them called by a stranger's words, and one that is gone.
fn ticks() -> (Snapshot, AllSeries) {
    let mut continued = Continued::default();
    continued.begin();
    let mut last = None;
    for mut tick in several() {
        for table in tick.tables.iter_mut().filter(|table| table.id == 47) {
            table.name = Some("a\"} 1\n# EOF\u{1b}[2J\\".to_owned());
        }
        for table in tick.tables.iter_mut().filter(|table| table.id == 43) {
            table.is_gone = last.is_some();
        }
        continued.advance(&tick);
        last = Some(tick);
        // The one in which most happens.
        if last.as_ref().is_some_and(|tick| tick.elapsed == Duration::from_secs(1)) {
            break;
        }
    }
    (last.unwrap(), continued.series())
}

fn written(conntrack: ConntrackState, format: Format) -> String {
    let (snapshot, series) = ticks();
    let header = header();
    let counters = CpuCounters { found: 7, chaintoolong: Some(0), ..CpuCounters::default() };
    let node = NodeCounters {
        entries: Some(45_120),
        limit: Some(262_144),
        counters: Some(CounterSums::of(&[counters])),
    };
    let is_there = conntrack == ConntrackState::Loaded;
    page(
        &Scraped {
            conntrack,
            header: Some(&header),
            snapshot: is_there.then_some(&snapshot),
            last_tick: Some(snapshot.time),
            series: &series,
            usage: Some(Usage { cpu: Duration::from_millis(1250), resident: 12 << 20 }),
            node: is_there.then_some(node),
        },
        format,
    )
}

#[test]
fn metrics_of_several_tables() {
    let page = |format| written(ConntrackState::Loaded, format);
    expect_file!["../../../../tests/golden/metrics.openmetrics.txt"]
        .assert_eq(&page(Format::OpenMetrics));
    expect_file!["../../../../tests/golden/metrics.prom"].assert_eq(&page(Format::Text));
}

#[test]
fn without_a_table_there_are_no_entries() {
    let page = written(ConntrackState::Absent, Format::OpenMetrics);
    expect_file!["../../../../tests/golden/metrics-absent.openmetrics.txt"].assert_eq(&page);
    for absent in ["ctwatch_entries", "ctwatch_time_to_full", "ctwatch_census", "netns_info"] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("ctwatch_conntrack_state{state=\"absent\"} 1\n"), "{page}");
    let hidden = written(ConntrackState::OutOfSight, Format::Text);
    assert!(hidden.contains("ctwatch_conntrack_state{state=\"out_of_sight\"} 1\n"), "{hidden}");
    assert!(hidden.contains("ctwatch_conntrack_state{state=\"absent\"} 0\n"), "{hidden}");
    assert!(!hidden.contains("ctwatch_entries"), "{hidden}");
    // What was counted stays, and nothing is measured now.
    assert!(page.contains("ctwatch_dropped_total{netns=\"rt\"} 1783\n"), "{page}");
    assert!(page.contains("ctwatch_figure_available{figure=\"entries\"} 0\n"), "{page}");
}

/// docs/serve.md names each metric that there is, and no other.
#[test]
fn docs_name_each_metric() {
    let docs = include_str!("../../../../docs/serve.md");
    let table = docs.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let page = written(ConntrackState::Loaded, Format::Text);
    let there = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let there: BTreeSet<&str> = there.filter(|name| name.starts_with("ctwatch_")).collect();
    let missing: Vec<_> = there.difference(&named).collect();
    assert!(missing.is_empty(), "docs/serve.md: no {missing:?}");
    // What these values do not have.
    let rare = "ctwatch_ctnetlink_refused_total";
    let gone: Vec<_> = named.difference(&there).filter(|name| **name != rare).collect();
    assert!(gone.is_empty(), "only in docs/serve.md: {gone:?}");
}

#[test]
fn both_formats_hold_the_same_samples() {
    let samples = |format| {
        let page = written(ConntrackState::Loaded, format);
        let lines = page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let (one, other) = (samples(Format::OpenMetrics), samples(Format::Text));
    assert!(one == other && one.len() > 100, "{} {}", one.len(), other.len());
    let distinct: BTreeSet<_> =
        one.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert_eq!(distinct.len(), one.len(), "a series is there twice");
}
