//! Two snapshots, a second apart, in which a table of 200 met 2,000 new flows. What they are made
//! of was recorded and read again.

use std::time::Duration;

use ctwatch_abi::{
    Count, NetnsTally,
    top::{AF_INET, Key},
};

use crate::{
    model::{
        Model, Snapshot,
        figure::Exactness,
        loading::{Asker, Loaded, Process},
        top::TopEntry,
    },
    record::{
        sample::{Access, Counted, CpuCounters, HookReadings, Owner, Probed, Sample, TableSample},
        session::{Epoch, FORMAT, Header, Measured},
        tests::recorded,
    },
};

pub(super) const FIRST: Epoch = Epoch { number: 1, gap: None };

pub(super) fn header() -> Header {
    recorded(&Header {
        format: FORMAT,
        version: "0.0.0".to_owned(),
        kernel: "6.12.0".to_owned(),
        boot_id: None,
        interval: Duration::from_secs(1),
        mechanisms: [("drops", Some("tracepoint")), ("insertions", None)]
            .map(|(signal, mechanism)| Measured {
                signal: signal.to_owned(),
                mechanism: mechanism.map(str::to_owned),
            })
            .to_vec(),
        notes: vec!["no insertions by tracepoint: needs CAP_BPF and CAP_PERFMON".to_owned()],
        top_bytes: None,
    })
}

pub(super) fn snapshots() -> [Snapshot; 2] {
    let mut model = Model::default();
    let counted = Counted { drops: true, ends: true, ..Counted::default() };
    [(0_u64, 0, 0, 0), (1, 200, 1783, 17)].map(|(second, entries, drop, early_drop)| {
        let mut tally = NetnsTally::new(7, 7);
        (0..drop).for_each(|_| tally.bump(Count::DroppedUntracked));
        (0..early_drop).for_each(|_| tally.bump(Count::Removed));
        model.advance(&recorded(&Sample {
            time: jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap(),
            elapsed: Duration::from_secs(second),
            limit: Some(200),
            buckets: Some(262_144),
            tables: vec![TableSample {
                workload: Default::default(),
                id: 42,
                inode: 4_026_532_246,
                name: Some("rt".to_owned()),
                owner: Owner::Host,
                is_judged: true,
                access: Access::Entered,
                entries: Some(entries),
                counters: Some(vec![CpuCounters {
                    drop,
                    early_drop,
                    chaintoolong: Some(0),
                    ..CpuCounters::default()
                }]),
                unread: None,
                hooks: Some(HookReadings { before: tally, after: tally }),
                interfaces: Vec::new(),
            }],
            tops: Vec::new(),
            cgroups: Vec::new(),
            idle: Vec::new(),
            probed: Some(Probed { counted, ..Probed::default() }),
        }))
    })
}

/// A talker that may be named by each key.
pub(super) fn top_entry() -> TopEntry {
    let mut key = Key { protocol: 17, dport: 53_u16.to_be(), family: AF_INET, ..Key::default() };
    key.src[..4].copy_from_slice(&[10, 1, 1, 1]);
    key.dst[..4].copy_from_slice(&[10, 100, 1, 1]);
    TopEntry {
        key,
        interface: None,
        cgroup: None,
        count: 100,
        error: 3,
        per_s: Some(12.0),
        per_s_is: Exactness::Exact,
        share: Some(0.5),
        share_now: Some(0.25),
    }
}

fn process(pid: u32, comm: &str) -> Process {
    Process { pid, comm: comm.to_owned() }
}

pub(super) fn loaded(module: &str, request: Option<&str>) -> Loaded {
    Loaded {
        time: jiff::Timestamp::UNIX_EPOCH,
        module: module.to_owned(),
        by: process(12, "modprobe"),
        asked_by: Some(Asker {
            process: process(11, "iptables"),
            request: request.map(str::to_owned),
            parent: request.map(|_| process(7, "bash")),
        }),
    }
}
