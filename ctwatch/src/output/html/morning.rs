//! A morning on which a table fills, drops, and recovers: as snapshots, from values.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use ctwatch_abi::{
    Count, NetnsTally,
    top::{AF_INET, By, Key, Stream},
};

use crate::{
    model::{
        Model, Snapshot,
        census::{Census, KernelCount, SEED, Taken},
        story::{Mark, MarkKind, POINTS, Story, WholeStory},
        verdict::situations::table,
    },
    record::{
        counters::{CounterSums, CpuCounters},
        entry::{Held, Left, Status},
        sample::{Counted, HookReadings, Owner, Probed, Sample, TableSample, TopCount, TopCounts},
        workload::Workload,
    },
};

/// Names as strangers choose them.
pub(super) const SCRIPT: &str = "<script>alert(1)</script>";
pub(super) const BIDI: &str = "\u{202e}live\u{2066}\u{1b}[31m\u{9b}\u{7}";
pub(super) const BREAKS_OUT: &str = "x\" onload=\"alert(1)' --><svg/onload=alert(1)>";

const LIMIT: u32 = 65_536;
/// 2026-05-04 06:00:00 +02:00.
const START: i64 = 1_777_867_200;
/// Seconds.
pub(super) const STEP: u64 = 5;
const LENGTH: u64 = 3 * 3_600;
const FULL: Range<u64> = 3_600..6_600;
pub(super) const GAP: Range<u64> = 5_100..5_580;
/// A census every so often, while it fills and until it has recovered.
const CENSUSES: u64 = 600;

pub(super) struct Told {
    pub(super) story: WholeStory,
    pub(super) last: Snapshot,
}

fn second(since: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(START + i64::try_from(since).unwrap()).unwrap()
}

pub(super) fn sample(second_of: u64, tables: Vec<TableSample>) -> Sample {
    let counted = Counted { drops: true, ends: true, ..Counted::default() };
    Sample {
        time: second(second_of),
        elapsed: Duration::from_secs(second_of),
        limit: Some(LIMIT),
        buckets: Some(LIMIT),
        tables,
        probed: Some(Probed { counted, ..Probed::default() }),
        tops: Vec::new(),
        told_apart: Vec::new(),
        planes: None,
        cgroups: vec![(7, format!("/system.slice/{SCRIPT}"))],
        idle: Vec::new(),
    }
}

/// One table of 1000, each reading with entries and drops; without counters where it is not `measured`.
pub(super) fn short(readings: &[(u32, u32)], measured: bool) -> WholeStory {
    let (mut model, mut story) = (Model::default(), Story::new(POINTS));
    for (at, (entries, drop)) in (0..).zip(readings) {
        let rt = table(1, "rt", *entries, *drop);
        let rt = if measured { rt } else { TableSample { counters: None, ..rt } };
        let sample = Sample { limit: Some(1_000), probed: None, ..sample(at * STEP, vec![rt]) };
        story.take(&model.advance(&sample));
    }
    story.finish().unwrap()
}

/// What was counted in each namespace so far.
#[derive(Default)]
struct World {
    tallies: BTreeMap<u32, NetnsTally>,
    counters: BTreeMap<u32, CpuCounters>,
    entries: BTreeMap<u32, u32>,
    state: u64,
}

impl World {
    /// The same numbers in each run.
    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % below
    }

    fn count(&mut self, id: u32, count: Count, times: u64) {
        let tally = self.tallies.entry(id).or_insert_with(|| NetnsTally::new(id.into(), id));
        (0..times).for_each(|_| tally.bump(count));
    }

    fn refuse(&mut self, id: u32, packets: u64) {
        self.count(id, Count::DroppedUntracked, packets);
        self.counters(id).drop += packets as u32;
    }

    fn evict(&mut self, id: u32, entries: u64) {
        self.count(id, Count::Removed, entries);
        self.counters(id).early_drop += entries as u32;
    }

    /// No port was free, or it met another: which is not known.
    fn clash(&mut self, id: u32, packets: u64) {
        self.count(id, Count::DroppedUnconfirmed, packets);
        self.count(id, Count::DroppedUnconfirmedNat, packets);
        let counters = self.counters(id);
        counters.drop += packets as u32;
        counters.insert_failed += packets as u32;
    }

    fn counters(&mut self, id: u32) -> &mut CpuCounters {
        let none = || CpuCounters { chaintoolong: Some(0), ..CpuCounters::default() };
        self.counters.entry(id).or_insert_with(none)
    }

    /// What is not there any more was removed.
    fn table(&mut self, id: u32, name: &str, entries: u32) -> TableSample {
        let before = self.entries.insert(id, entries).unwrap_or(entries);
        self.count(id, Count::Removed, before.saturating_sub(entries).into());
        let counters = *self.counters(id);
        let tally = self.tallies.entry(id).or_insert_with(|| NetnsTally::new(id.into(), id));
        TableSample {
            counters: Some(CounterSums::of(&[counters])),
            hooks: Some(HookReadings { before: *tally, after: *tally }),
            ..table(id, name, entries, 0)
        }
    }

    #[expect(clippy::cast_sign_loss, reason = "waves are above zero")]
    fn tables(&mut self, at: u64) -> Vec<TableSample> {
        let wave = |period: f64, high: f64| ((at as f64 / period).sin() + 1.0) / 2.0 * high;
        let noise = self.random(600) as u32;
        let edge = match at {
            0..1_800 => 23_000.0 + wave(400.0, 1_500.0),
            1_800..3_600 => 24_000.0 + 41_536.0 * ((at - 1_800) as f64 / 1_800.0).powi(2),
            6_600..7_500 => 62_000.0 - 41_000.0 * ((at - 6_600) as f64 / 900.0).sqrt(),
            7_500.. => 21_000.0 + wave(500.0, 2_000.0),
            _ => f64::from(LIMIT),
        };
        self.count(2, Count::Removed, 250 + u64::from(noise) / 8);
        let edge = if FULL.contains(&at) { LIMIT } else { (edge as u32 + noise).min(LIMIT) };
        if FULL.contains(&at) {
            let packets = 120 + wave(300.0, 260.0) as u64 + self.random(90);
            self.refuse(2, packets * STEP / 2);
            self.evict(2, 20);
        }
        // A burst that finds no port, and one of a name that is hostile.
        if (2_400..2_700).contains(&at) {
            let packets = self.random(25);
            self.clash(3, packets);
        }
        let script = if (8_100..8_400).contains(&at) { LIMIT } else { 4_000 };
        if script == LIMIT {
            let packets = self.random(60);
            self.refuse(4, packets);
        }
        let others = if (3_000..3_300).contains(&at) { self.random(40) } else { 0 };
        self.refuse(8, others);
        let host = 9_000 + wave(900.0, 3_000.0) as u32 + noise / 4;
        let interfaces = vec![(3, BREAKS_OUT.to_owned()), (4, "uplink0".to_owned())];
        let pod = Workload {
            pod: Some("coredns-7c65d6cfc9-abcde".to_owned()),
            namespace: Some("kube-system".to_owned()),
            container: None,
        };
        let pod = TableSample {
            workload: pod,
            ..self.table(6, "cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d", 1_200 + noise)
        };
        let sealed = TableSample {
            entries: None,
            counters: None,
            hooks: None,
            unread: Some(format!("cannot enter {SCRIPT}")),
            ..table(7, "sealed", 0, 0)
        };
        let user = TableSample {
            owner: Owner::User(1_000),
            is_judged: false,
            ..self.table(8, "podman[99]", if others > 0 { LIMIT } else { 400 + noise })
        };
        vec![
            self.table(1, "host", host),
            TableSample { interfaces, ..self.table(2, "edge", edge) },
            self.table(3, "nat-gateway", 31_000 + noise),
            self.table(4, SCRIPT, script),
            self.table(5, &format!("{BIDI}{BREAKS_OUT}"), 2_000 + noise),
            pod,
            sealed,
            user,
            self.table(9, "אבג", 900),
        ]
    }

    /// Whose the refused packets of the edge were: shares of them all.
    fn tops(&self) -> Vec<TopCounts> {
        let all = u64::from(self.counters.get(&2).map_or(0, |counters| counters.drop));
        let of = |share: u64| all * share / 100;
        let count = |key: Key, count: u64, error: u64| TopCount {
            key: Key { netns: 2, ..key },
            count,
            error: error.min(count),
            ..TopCount::default()
        };
        let source = |last: u8| {
            let mut key = Key { family: AF_INET, ..Key::default() };
            key.src[..4].copy_from_slice(&[10, 128, 0, last]);
            key
        };
        let service = |port: u16, protocol| {
            let mut key = Key { family: AF_INET, dport: port.to_be(), protocol, ..Key::default() };
            key.dst[..4].copy_from_slice(&[10, 100, 0, 2]);
            key
        };
        let mut process = Key::default();
        process.src[..15].copy_from_slice(b"<img src=x id=y");
        process.dst[..8].copy_from_slice(&7_u64.to_ne_bytes());
        let interface = |ifindex| Key { ifindex, ..Key::default() };
        let list = |by, counts: Vec<TopCount>| TopCounts {
            stream: Stream::Drops,
            by,
            offered: all,
            left_out: 0,
            left_out_at_most: 0,
            counts,
        };
        vec![
            list(
                By::Source,
                vec![
                    count(source(35), of(61), 0),
                    count(source(14), of(17), of(2)),
                    count(source(8), of(9), of(5)),
                    count(source(99), of(4), of(4)),
                ],
            ),
            list(
                By::Service,
                vec![count(service(53, 17), of(78), 0), count(service(443, 6), of(22), of(3))],
            ),
            list(
                By::Interface,
                vec![count(interface(3), of(90), 0), count(interface(4), of(10), 0)],
            ),
            list(By::Process, vec![count(process, of(1), 0)]),
        ]
    }
}

/// Of the edge alone: who holds it.
fn taken(entries: u32) -> Arc<Taken> {
    let mut census = Census::new(&[By::Source, By::Service], SEED);
    let pinned = entries / 5;
    let closing = entries / 8;
    for number in 0..entries {
        let mut key = Key { netns: 2, family: AF_INET, protocol: 17, ..Key::default() };
        let last = if number % 8 < 5 { 35 } else { (number % 200) as u8 };
        key.src[..4].copy_from_slice(&[10, 128, 0, last]);
        key.dst[..4].copy_from_slice(&[10, 100, 0, 2]);
        let (protocol, port, status, state) = match number {
            n if n < pinned => (6, 443_u16, 1 << 3 | 1 << 2 | 1 << 1, 3),
            n if n < pinned + closing => (6, 443, 1 << 3 | 1 << 2 | 1 << 1, 7),
            _ => (17, 53, 1 << 3, 0),
        };
        (key.protocol, key.dport) = (protocol, port.to_be());
        let left = if number % 97 == 0 { Left::Expired } else { Left::Seconds(20) };
        census.enter(&Held { key, translated: key, status: Status(status), state, zone: 0, left });
    }
    let kernel = KernelCount {
        netns: 2,
        owner: Owner::Host,
        is_judged: true,
        inode: 2,
        name: Some("edge".to_owned()),
        workload: Workload::default(),
        before: Some(entries),
        after: Some(entries),
        unlisted: None,
        is_torn: false,
    };
    Arc::new(Taken {
        by: "walk".into(),
        took: Duration::from_millis(41),
        cpu: Duration::from_millis(40),
        strayed: 0,
        kernel: vec![kernel],
        counted: census.finish(4),
        notes: Vec::new(),
    })
}

fn mark(at: u64, kind: MarkKind, text: &str) -> Mark {
    Mark { time: second(at), kind, text: text.to_owned() }
}

pub(super) fn morning() -> Told {
    let by = [By::Source, By::Service, By::Interface, By::Process];
    let mut model = Model::with_tops(5, &by);
    let (mut story, mut world) = (Story::new(POINTS), World::default());
    let mut marks = [
        mark(
            1_500,
            MarkKind::Modules,
            "nf_conntrack_sip was loaded by modprobe[12], asked for by <b>x</b>",
        ),
        mark(
            1_740,
            MarkKind::Rules,
            "nftables rules of edge were changed by nft[4711], child of ansible",
        ),
        mark(3_605, MarkKind::Began, "table_full in edge"),
        mark(5_582, MarkKind::Gap, "ctwatch was stopped and began again: signal 15"),
        mark(
            6_590,
            MarkKind::Rules,
            &format!("net.netfilter timeouts were changed by {BREAKS_OUT}"),
        ),
        mark(6_605, MarkKind::Ended, "table_full in edge"),
        mark(8_100, MarkKind::Began, &format!("table_full in {SCRIPT}")),
        mark(8_420, MarkKind::Ended, &format!("table_full in {SCRIPT}")),
    ]
    .into_iter()
    .peekable();
    let mut last = None;
    for at in (0..LENGTH).step_by(usize::try_from(STEP).unwrap()) {
        let tables = world.tables(at);
        if GAP.contains(&at) {
            continue;
        }
        if at % CENSUSES == 0 && (2_400..8_400).contains(&at) {
            model.take_in(taken(tables[1].entries.unwrap()));
        }
        while let Some(mark) = marks.next_if(|mark| mark.time <= second(at)) {
            story.mark(mark);
        }
        let snapshot = model.advance(&Sample { tops: world.tops(), ..sample(at, tables) });
        story.take(&snapshot);
        last = Some(snapshot);
    }
    Told { story: story.finish().unwrap(), last: last.unwrap() }
}
