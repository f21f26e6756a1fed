//! Snapshots a second apart: of one table of 200 that met 2,000 new flows, and of several. What they are
//! made of was recorded and read again. And what else views are shown from.

use std::{sync::Arc, time::Duration};

use ctwatch_abi::{
    Count, NetnsTally,
    top::{AF_INET, AF_INET6, By, Key, Stream},
};

use crate::{
    model::{
        Model, Snapshot,
        census::{Census, KernelCount, SEED, StateOf, Taken},
        figure::{Bounds, Exactness},
        incident::{Cause, Ending, Incident, LastCensus, PeakEntries, Stage, Tick},
        incidents::{Incidents, Turn},
        loading::{Asker, Loaded, Process},
        top::TopEntry,
        trouble::Criteria,
    },
    record::{
        counters::{CounterSums, CpuCounters},
        entry::{Held, Left, Status},
        sample::{
            Access, Counted, HookReadings, Owner, Probed, Sample, TableSample, TopCount, TopCounts,
        },
        session::{Epoch, FORMAT, Header, Measured},
        tests::recorded,
        workload::Workload,
    },
};

pub(crate) const FIRST: Epoch = Epoch { number: 1, gap: None };

pub(crate) fn header() -> Header {
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

pub(crate) fn snapshots() -> [Snapshot; 2] {
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
                counters: Some(CounterSums::of(&[CpuCounters {
                    drop,
                    early_drop,
                    chaintoolong: Some(0),
                    ..CpuCounters::default()
                }])),
                unread: None,
                hooks: Some(HookReadings { before: tally, after: tally }),
                interfaces: Vec::new(),
            }],
            tops: Vec::new(),
            told_apart: Vec::new(),
            planes: None,
            cgroups: Vec::new(),
            idle: Vec::new(),
            probed: Some(Probed { counted, ..Probed::default() }),
        }))
    })
}

/// A talker that may be named by each key.
pub(crate) fn top_entry() -> TopEntry {
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
        estimate: None,
    }
}

fn process(pid: u32, comm: &str) -> Process {
    Process { pid, comm: comm.to_owned() }
}

pub(crate) fn loaded(module: &str, request: Option<&str>) -> Loaded {
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

fn named(id: u64, name: &str) -> TableSample {
    TableSample {
        workload: Workload::default(),
        id,
        inode: 4_026_532_000 + u32::try_from(id).unwrap(),
        name: Some(name.to_owned()),
        owner: Owner::Host,
        is_judged: true,
        access: Access::Entered,
        entries: Some(0),
        counters: Some(CounterSums::of(&[CpuCounters {
            chaintoolong: Some(0),
            ..CpuCounters::default()
        }])),
        unread: None,
        hooks: Some(HookReadings::default()),
        interfaces: Vec::new(),
    }
}

fn counting(table: TableSample, entries: u32, counts: &[(Count, u64)]) -> TableSample {
    let mut tally = NetnsTally::new(table.id, table.inode);
    for (count, times) in counts {
        (0..*times).for_each(|_| tally.bump(*count));
    }
    let hooks = Some(HookReadings { before: tally, after: tally });
    TableSample { entries: Some(entries), hooks, ..table }
}

fn by_counters(mut table: TableSample, counters: CpuCounters) -> TableSample {
    table.counters = Some(CounterSums::of(&[CpuCounters { chaintoolong: Some(0), ..counters }]));
    table
}

fn pod() -> Workload {
    Workload {
        pod: Some("coredns-7c65d6cfc9-abcde".to_owned()),
        namespace: Some("kube-system".to_owned()),
        container: None,
    }
}

const CNI: &str = "cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d";

fn tables(second: u64) -> Vec<TableSample> {
    let now = |value: u32| if second == 0 { 0 } else { value };
    let host = counting(named(1, "host"), 45_000 + now(120), &[(Count::Removed, now(80).into())]);
    let full = if second < 2 { 262_144 } else { 100_000 };
    let rt = counting(
        named(42, "rt"),
        if second == 0 { 200_000 } else { full },
        &[
            (Count::DroppedUntracked, now(1783).into()),
            (Count::Removed, if second < 2 { now(17).into() } else { 162_161 }),
        ],
    );
    let rt = by_counters(
        rt,
        CpuCounters { drop: now(1783), early_drop: now(17), invalid: 0, ..CpuCounters::default() },
    );
    let rt = TableSample { interfaces: vec![(3, "down0".to_owned())], ..rt };
    let nat = counting(
        named(43, "nat-gateway-of-a-customer"),
        3000,
        &[
            (Count::DroppedUnconfirmed, now(50).into()),
            (Count::DroppedUnconfirmedNat, now(50).into()),
        ],
    );
    let nat = by_counters(
        nat,
        CpuCounters { drop: now(50), insert_failed: now(50), ..CpuCounters::default() },
    );
    let pod = TableSample { workload: pod(), ..counting(named(44, CNI), 300 + now(10), &[]) };
    let sealed = TableSample {
        access: Access::Refused,
        entries: None,
        counters: None,
        unread: Some("cannot enter /run/netns/sealed: Operation not permitted".to_owned()),
        ..named(45, "sealed")
    };
    let idle = match second {
        // Nothing leads there any more.
        2 => TableSample {
            access: Access::Unseen,
            entries: None,
            counters: None,
            hooks: None,
            ..named(46, "idle")
        },
        _ => named(46, "idle"),
    };
    let odd = TableSample {
        owner: Owner::Unknown("it belongs to a user namespace outside of this one".to_owned()),
        ..counting(named(47, "odd"), 7, &[])
    };
    let of = |uid, table: TableSample| TableSample {
        owner: Owner::User(uid),
        is_judged: false,
        workload: Workload { container: Some("web".to_owned()), ..Workload::default() },
        ..table
    };
    let dropping =
        counting(named(48, "sh[4711]"), 262_144, &[(Count::DroppedUntracked, now(300).into())]);
    let dropping = by_counters(dropping, CpuCounters { drop: now(300), ..CpuCounters::default() });
    vec![
        host,
        rt,
        nat,
        pod,
        sealed,
        idle,
        odd,
        of(1000, dropping),
        of(1000, counting(named(49, "sh[4712]"), 12, &[])),
        of(1001, counting(named(50, "podman[99]"), 5 + now(2), &[])),
    ]
}

fn source(last: u8, service: (u8, u16), family: u8) -> Key {
    let mut key = Key {
        netns: 42,
        protocol: service.0,
        dport: service.1.to_be(),
        family,
        ifindex: 3,
        ..Key::default()
    };
    match family {
        AF_INET => {
            key.src[..4].copy_from_slice(&[10, 128, 0, last]);
            key.dst[..4].copy_from_slice(&[10, 100, 0, 2]);
        }
        _ => {
            for (address, last) in [(&mut key.src, last), (&mut key.dst, 2)] {
                address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
                address[15] = last;
            }
        }
    }
    key
}

fn tops(second: u64) -> Vec<TopCounts> {
    let count = |key, count, error| TopCount { key, count, error, ..TopCount::default() };
    let (dns, bgp) = (source(35, (17, 53), AF_INET), source(1, (6, 179), AF_INET6));
    let list = |by, counts: Vec<TopCount>| TopCounts {
        stream: Stream::Drops,
        by,
        offered: 1783,
        left_out: 0,
        left_out_at_most: 0,
        counts,
    };
    let by_source =
        |key: &Key| Key { src: key.src, netns: 42, family: key.family, ..Key::default() };
    let by_service = |key: &Key| Key { src: [0; 16], ifindex: 0, ..*key };
    let by_interface = |key: &Key| Key { netns: 42, ifindex: key.ifindex, ..Key::default() };
    let by_process = || {
        let mut key = Key { netns: 42, ..Key::default() };
        key.src[..4].copy_from_slice(b"bird");
        key.dst[..8].copy_from_slice(&77_u64.to_ne_bytes());
        key
    };
    let other = source(36, (17, 53), AF_INET);
    let mut lists = vec![
        list(
            By::Source,
            vec![
                count(by_source(&dns), 1200, 0),
                count(by_source(&bgp), 400, 20),
                count(by_source(&other), 203, 40),
            ],
        ),
        list(By::Service, vec![count(by_service(&dns), 1383, 0), count(by_service(&bgp), 400, 0)]),
        list(By::Interface, vec![count(by_interface(&dns), 1783, 0)]),
        list(By::Process, vec![count(by_process(), 3, 0)]),
    ];
    if second == 0 {
        lists.iter_mut().for_each(|list| list.counts.clear());
    }
    lists
}

/// Three snapshots of many kinds of namespaces: one fills and recovers, one has no ports left, one is a
/// pod's, one cannot be entered, one holds nothing, of one the owner is unknown, three are of users.
pub(crate) fn several() -> Vec<Snapshot> {
    let mut model = Model::with_tops(3, &[By::Source, By::Service, By::Interface, By::Process]);
    let counted = Counted { drops: true, ends: true, ..Counted::default() };
    let advance = |second: u64| {
        if second == 1 {
            model.take_in(Arc::new(taken_of_several()));
        }
        model.advance(&recorded(&Sample {
            time: jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap(),
            elapsed: Duration::from_secs(second),
            limit: Some(262_144),
            buckets: Some(65_536),
            tables: tables(second),
            tops: tops(second),
            told_apart: Vec::new(),
            planes: None,
            cgroups: vec![(77, "/system.slice/bird.service".to_owned())],
            idle: Vec::new(),
            probed: Some(Probed { counted, ..Probed::default() }),
        }))
    };
    (0..3).map(advance).collect()
}

/// What happened in them: one table dropped and recovered, one had no ports left and has not been quiet,
/// one was never short of more than room, one is called by a stranger's words.
pub(crate) fn incidents() -> Vec<Incident> {
    let fold = |quiet| {
        let criteria = Criteria { quiet: Duration::from_secs(quiet), ..Criteria::default() };
        let boot = "5f0cbb0e-6d5c-4f3f-9c49-6b6f1c2d3e4f";
        let mut incidents = Incidents::new(Some(boot), 1, criteria);
        let turns: Vec<_> = several().iter().flat_map(|one| incidents.look(one)).collect();
        (turns, incidents.finish(Ending::Open))
    };
    let ended = fold(1).0.into_iter().filter_map(|turn| match turn {
        Turn::Ended(incident) => Some(incident),
        _ => None,
    });
    let mut ended: Vec<_> = ended.collect();
    ended.sort_by_key(|incident| incident.netns);
    let open = fold(60).1.into_iter().find(|incident| incident.netns == 43);
    let [first, ..] = &ended[..] else { panic!("none has ended") };
    let day = Duration::from_secs(86_400);
    let later =
        |tick: Tick, by: Duration| Tick { time: tick.time + by, elapsed: tick.elapsed + by };
    let last = later(first.begin, day);
    let [calm, _] = snapshots();
    let mut happened = first.happened;
    (happened.dropped, happened.drops) = (calm.tables[0].dropped, calm.tables[0].drops);
    (happened.insertions, happened.early_drop) =
        (Bounds::Unmeasured.figure(None, None), happened.dropped);
    let hostile = Incident {
        name: Some("a\u{1b}[2J\u{202e}b <b>".to_owned()),
        stage: Stage::Filling,
        cause: Cause::Filling,
        was_full: false,
        entries: Some(215_000),
        peak: first.peak.map(|peak| PeakEntries { entries: 240_000, fill: Some(0.9155), ..peak }),
        happened,
        begin_after: None,
        last,
        over: Some(later(last, Duration::from_secs(1))),
        ending: Ending::Gone,
        control_plane: Vec::new(),
        tops: Vec::new(),
        census: first.census.clone().map(|census| LastCensus { is_torn: true, ..census }),
        ..first.clone()
    };
    ended.into_iter().filter(|incident| incident.netns == 42).chain(open).chain([hostile]).collect()
}

/// A census of the same namespaces, and of one that nothing leads into.
pub(crate) fn taken_of_several() -> Taken {
    taken_in_state(None)
}

/// The same, and who holds the entries in this state.
pub(crate) fn taken_in_state(of: Option<StateOf>) -> Taken {
    let by = [By::Source, By::Service, By::Backend, By::ReplyDestination];
    let mut census = Census::with_focus(&by, SEED, of);
    let mut hold = |netns, key: Key, times: u32, assured: bool, state, seconds| {
        let status = Status(1 << 3 | if assured { 1 << 2 | 1 << 1 } else { 0 });
        let (key, left) = (Key { netns, ..key }, Left::Seconds(seconds));
        let held = Held { key, translated: key, status, state, zone: u16::from(assured), left };
        (0..times).for_each(|_| census.enter(&held));
    };
    let (dns, bgp) = (source(35, (17, 53), AF_INET), source(1, (6, 179), AF_INET6));
    hold(42, dns, 1500, false, 0, 29);
    hold(42, bgp, 60, true, 3, 431_000);
    hold(42, source(36, (6, 443), AF_INET), 440, true, 7, 100);
    hold(1, dns, 45, true, 0, 170);
    hold(44, dns, 300, false, 0, 12);
    hold(48, dns, 220, false, 0, 12);
    hold(99, dns, 3, false, 0, 12);
    let counted = |id| match id {
        1 => 45,
        42 => 2000,
        44 => 301,
        48 => 220,
        _ => 0,
    };
    let kernel = tables(0).into_iter().map(|table| KernelCount {
        netns: table.id,
        owner: table.owner,
        is_judged: table.is_judged,
        inode: table.inode,
        name: table.name,
        workload: table.workload,
        before: Some(counted(table.id)),
        after: Some(counted(table.id) + u32::from(table.id == 1)),
        unlisted: table.unread,
        is_torn: table.id == 1,
    });
    Taken {
        by: "walk".into(),
        took: Duration::from_millis(41),
        cpu: Duration::from_millis(40),
        strayed: 2,
        kernel: kernel.collect(),
        counted: census.finish(3),
        notes: vec!["the walk was not told of namespaces made meanwhile".to_owned()],
    }
}
