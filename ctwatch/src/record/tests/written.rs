//! How it is written, and that all of it is read again.

use std::collections::BTreeSet;

use ctwatch_abi::{
    Count, HostCount, NetnsTally,
    testing::Random,
    top::{AF_INET6, By, Key, Stream},
    trace::Reason,
};
use serde_json::json;

use super::{
    recorded,
    values::{bytes, empty, flow, flow_of_ipv6, lines, process, sample},
    with,
};
use crate::record::{
    counters::CounterSums,
    facts::Moment,
    sample::{Access, HookReadings, Misses, Sample, TableSample, TopCount, TopCounts},
    session::Epoch,
};

#[test]
fn all_that_is_written_is_read_again() {
    lines().iter().for_each(|line| drop(recorded(line)));
    recorded(&Epoch { number: 1, gap: None });
    recorded(&Reason::ALL.to_vec());
    assert_eq!(serde_json::to_value(Reason::NatExhausted).unwrap(), json!("nat_exhausted"));
}

/// Nothing that is zero, empty or unknown takes room, and comes back as what it is.
#[test]
fn what_is_not_there_is_left_out() {
    let Sample { time, elapsed, .. } = sample();
    let tables = vec![empty(7)];
    let sample = Sample { time, buckets: Some(0), tables, ..Sample::at(elapsed) };
    recorded(&sample);
    let expected = json!({
        "time": "2026-01-02T03:04:05.000000006Z",
        "elapsed_ns": 100_000_000_123_456_789_u64,
        "buckets": 0,
        "tables": [{"id": 7, "inode": 7, "owner": "host", "access": "unseen"}],
    });
    assert_eq!(serde_json::to_value(&sample).unwrap(), expected);
    let misses = Misses { ends: None, ..Misses::default() };
    assert!(serde_json::to_value(misses).unwrap().get("ends").is_none());
    assert_eq!(recorded(&misses).drops, Some(0));
}

#[test]
fn keys_are_written_as_they_are_spoken_of() {
    let written = |key: Key| serde_json::to_value(key).unwrap();
    let expected = json!({
        "netns": 3, "src": "10.0.0.7", "dst": "192.0.2.1", "protocol": 17, "dport": 53, "ifindex": 4,
    });
    assert_eq!(written(flow()), expected);
    assert_eq!(written(flow().of(By::Source)), json!({"netns": 3, "src": "10.0.0.7"}));
    assert_eq!(written(flow().of(By::Interface)), json!({"netns": 3, "ifindex": 4}));
    assert_eq!(written(flow_of_ipv6().of(By::Source))["src"], "2001:db8::7");
    let expected = json!({"netns": 3, "process": "nc ä\n", "cgroup": 4242});
    assert_eq!(written(process()), expected);
    let any = Key { family: AF_INET6, ..Key::default() };
    assert_eq!(written(any), json!({"family": 10}));
    for wrong in [
        json!({"src": "10.0.0"}),
        json!({"src": "10.0.0.256"}),
        json!({"src": "::g"}),
        json!({"src": "+1234567890123456789012345678901"}),
        json!({"process": "seventeen letters"}),
        json!({"dport": 65_536}),
    ] {
        assert!(serde_json::from_value::<Key>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn counts_are_written_by_name() {
    let mut tally = NetnsTally::default();
    (0..3).for_each(|_| tally.bump(Count::TableFullCtnetlink));
    assert_eq!(serde_json::to_value(tally).unwrap(), json!({"table_full_ctnetlink": 3}));
    assert_eq!(recorded(&NetnsTally::default().owned_by(None)).owner(), None);
    for each in [Count::EACH.map(Count::name).to_vec(), HostCount::EACH.map(HostCount::name).into()]
    {
        let names: BTreeSet<_> = each.iter().collect();
        assert_eq!(names.len(), each.len());
    }
    for (at, count) in Count::EACH.into_iter().enumerate() {
        assert_eq!(count as usize, at);
    }
    for (at, count) in HostCount::EACH.into_iter().enumerate() {
        assert_eq!(count as usize, at);
    }
    for wrong in [json!({"inode": 1_u64 << 32}), json!({"removed": -1}), json!({"removed": "x"})] {
        assert!(serde_json::from_value::<NetnsTally>(wrong.clone()).is_err(), "{wrong}");
    }
}

/// The name of a time zone need not be known where it is read.
#[test]
fn times_of_the_log_keep_their_offset() {
    let time: jiff::Zoned = "2026-07-02T03:04:05+05:30[+05:30]".parse().unwrap();
    let read = recorded(&Moment { since_boot: 1, time });
    assert_eq!(read.time.strftime("%H:%M %z").to_string(), "03:04 +0530");
    assert!(with(&read, "/time", json!("2026-07-02T03:04:05")).is_err());
    let with_seconds = with(&read, "/time", json!("2026-07-02T03:04:05+05:30:15")).unwrap();
    assert_eq!(recorded(&with_seconds).time.offset().seconds(), 19_800);
}

/// Four namespaces on two CPUs, in which the programs count, and all lists of twenty.
fn busy() -> Sample {
    let mut random = Random(20);
    let mut number = |most: u64| random.draw() % most;
    let counters = CounterSums {
        cpus: 2,
        found: 1_000,
        invalid: 20_000,
        insert_failed: 300,
        drop: 150_000,
        early_drop: 50_000,
        search_restart: 600,
        clash_resolve: 7,
        chaintoolong: Some(0),
        ..CounterSums::default()
    };
    let mut tables = Vec::new();
    for id in 1..5_u32 {
        let mut counted = json!({"id": id, "inode": 4_026_532_000 + id});
        for count in Count::EACH {
            counted[count.name()] = number(1_000_000).into();
        }
        let before: NetnsTally = serde_json::from_value(counted.clone()).unwrap();
        counted["inserted"] = 2_000_000.into();
        let after = serde_json::from_value(counted).unwrap();
        tables.push(TableSample {
            inode: 4_026_532_000 + id,
            name: Some(format!("namespace-{id}")),
            is_judged: true,
            access: Access::Entered,
            entries: Some(60_000),
            counters: Some(counters),
            hooks: Some(HookReadings { before, after }),
            ..empty(id)
        });
    }
    let mut tops = Vec::new();
    for stream in Stream::ALL {
        for by in By::ALL {
            let mut counts = Vec::new();
            for _ in 0..20 {
                let [a, b, c, d, ..] = number(u64::MAX).to_le_bytes();
                let mut whole = Key { netns: 1 + number(4), ..flow() };
                (whole.src, whole.dst) = (bytes(&[10, a, b, c]), bytes(&[10, d, a, c]));
                if by == By::Process {
                    whole = Key { netns: whole.netns, ..process() };
                }
                let (count, error) = (number(1_000_000), number(1_000));
                counts.push(TopCount { key: whole.of(by), count, error, ..TopCount::default() });
            }
            tops.push(TopCounts {
                stream,
                by,
                offered: number(100_000_000),
                left_out: 0,
                left_out_at_most: 0,
                counts,
            });
        }
    }
    Sample { tables, tops, idle: Vec::new(), ..sample() }
}

#[test]
fn a_sample_of_four_namespaces_is_small() {
    let with_lists = recorded(&busy());
    let without = Sample { tops: Vec::new(), ..busy() };
    let size = |sample: &Sample| serde_json::to_string(sample).unwrap().len();
    let sizes = (size(&with_lists), size(&without));
    // As docs/design/records.md has it.
    assert!(sizes.0 < 30_000 && sizes.1 < 7_000, "{sizes:?}");
}
