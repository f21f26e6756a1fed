//! Two snapshots, a second apart, in which a table of 200 met 2,000 new flows.

use std::time::Duration;

use ctwatch_ebpf::{Count, HostTally, NetnsTally};

use super::Header;
use crate::{
    model::{Model, Snapshot},
    sample::{CpuCounters, HookReadings, Misses, Sample, TableSample},
};

pub(super) fn header() -> Header {
    Header {
        version: "0.0.0",
        kernel: "6.12.0".to_owned(),
        interval: Duration::from_secs(1),
        mechanisms: vec![("drops", Some("tracepoint")), ("insertions", None)],
        notes: vec!["no insertions by tracepoint: needs CAP_BPF and CAP_PERFMON".to_owned()],
    }
}

pub(super) fn snapshots() -> [Snapshot; 2] {
    let mut model = Model::default();
    [(0_u64, 0, 0, 0), (1, 200, 1783, 17)].map(|(second, entries, drop, early_drop)| {
        let mut tally = NetnsTally::of(7);
        (0..drop).for_each(|_| tally.bump(Count::DroppedUntracked));
        (0..early_drop).for_each(|_| tally.bump(Count::Removed));
        model.advance(&Sample {
            time: jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap(),
            elapsed: Duration::from_secs(second),
            limit: Some(200),
            buckets: Some(262_144),
            tables: vec![TableSample {
                id: 42,
                inode: 4_026_532_246,
                name: Some("rt".to_owned()),
                reachable: true,
                entries: Some(entries),
                counters: Some(vec![CpuCounters {
                    drop,
                    early_drop,
                    chaintoolong: Some(0),
                    ..CpuCounters::default()
                }]),
                unread: None,
                hooks: Some(HookReadings { before: tally, after: tally }),
            }],
            host: Some(HostTally::default()),
            misses: Some(Misses::default()),
        })
    })
}
