//! Values of which nothing is left out, and with each variant.

use std::{net::IpAddr, time::Duration};

use ctwatch_abi::{
    Count, HostCount, HostTally, NetnsTally,
    plane::Plane,
    top::{AF_INET, AF_INET6, By, Key, Stream},
};
use serde::{Deserialize, Serialize};

use super::facts::{address, facts, unknown, words, workload};
use crate::record::{
    counters::CounterSums,
    entry::{Held, Left, Status},
    facts::{Apply, BucketsBy, Facts, Form, Framework, KernelLog, Tools, Writable},
    sample::{
        Access, Counted, HookReadings, Idle, Misses, Owner, PlaneCount, Probed, Sample,
        TableSample, ToldApart, TopCount, TopCounts,
    },
    session::{Epoch, FORMAT, Header, Measured},
    workload::Workload,
};

/// A line of the fixture, by what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Header(Header),
    Epoch(Epoch),
    Sample(Box<Sample>),
    Facts(Box<Facts>),
    Entry(Held),
}

pub(super) fn bytes(first: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..first.len()].copy_from_slice(first);
    bytes
}

pub(super) fn flow() -> Key {
    Key {
        netns: 3,
        src: bytes(&[10, 0, 0, 7]),
        dst: bytes(&[192, 0, 2, 1]),
        dport: 53_u16.to_be(),
        protocol: 17,
        family: AF_INET,
        ifindex: 4,
    }
}

pub(super) fn flow_of_ipv6() -> Key {
    let [src, dst] = ["2001:db8::7", "::ffff:192.0.2.1"].map(|text| match address(text) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => panic!("{text}"),
    });
    Key { src, dst, family: AF_INET6, ..flow() }
}

pub(super) fn process() -> Key {
    let cgroup = bytes(&4242_u64.to_ne_bytes());
    Key { netns: 3, src: bytes(b"nc \xc3\xa4\n"), dst: cgroup, ..Key::default() }
}

/// Each count is another number.
fn tally(from: u64) -> NetnsTally {
    let mut tally = NetnsTally::new(3, 4_026_532_246).owned_by(Some(1000));
    for (count, times) in Count::EACH.into_iter().zip(from..) {
        (0..times).for_each(|_| tally.bump(count));
    }
    tally
}

fn host_tally() -> HostTally {
    let mut tally = HostTally::default();
    for (count, times) in HostCount::EACH.into_iter().zip(1..) {
        (0..times).for_each(|_| tally.bump(count));
    }
    tally
}

/// Nothing is left out, and each variant is there.
pub(super) fn lines() -> Vec<Line> {
    let expired = Held {
        key: flow_of_ipv6(),
        translated: flow_of_ipv6(),
        status: Status(Status::CONFIRMED),
        state: 0,
        zone: 0,
        left: Left::Expired,
    };
    let small = |form, buckets_by, limit_is, iptables, apply: Option<Apply>| {
        let tools = Tools { iptables, apply, ..Tools::default() };
        let log = Ok(KernelLog::default());
        let (namespaces, modules) = (Vec::new(), unknown());
        let facts =
            Facts { form, buckets_by, limit_is, tools, log, namespaces, modules, ..facts() };
        Line::Facts(Box::new(facts))
    };
    let file = Apply::File("/sbin/sysctl".to_owned());
    vec![
        Line::Header(header()),
        Line::Epoch(Epoch { number: 2, gap: Some(Duration::new(3, 1)) }),
        Line::Sample(Box::new(sample())),
        Line::Facts(Box::new(facts())),
        Line::Entry(Held {
            key: flow(),
            translated: Key { dst: bytes(&[10, 9, 9, 9]), ..flow() },
            status: Status(Status::CONFIRMED | Status::ASSURED),
            state: 3,
            zone: 5,
            left: Left::Seconds(431_999),
        }),
        Line::Entry(expired),
        Line::Entry(Held { left: Left::Unknown, ..expired }),
        small(
            Form::BuiltIn,
            Ok(BucketsBy::Hashsize),
            Writable::ReadOnly,
            Some(Framework::Nft),
            Some(file),
        ),
        small(Form::Loaded, unknown(), Writable::OtherNamespace, None, None),
        small(Form::Absent, unknown(), Writable::Yes, None, None),
    ]
}

pub(super) fn header() -> Header {
    Header {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        kernel: "6.12.0".to_owned(),
        boot_id: Some("0b9e8b7c-5a3c-4a0e-9d1e-2f6a7f1c1d11".to_owned()),
        interval: Duration::from_millis(1500),
        mechanisms: vec![
            Measured { signal: "drops".to_owned(), mechanism: Some("tracepoint".to_owned()) },
            Measured { signal: "insertions".to_owned(), mechanism: None },
        ],
        notes: words(["no insertions: needs CAP_BPF"]),
        top_bytes: Some(6_782_976),
    }
}

pub(super) fn sample() -> Sample {
    let one = |key| TopCount { key, count: 1, ..TopCount::default() };
    let counts = vec![
        TopCount { key: flow(), count: 90, error: 3, scaled: 64, heaviest: 8 },
        TopCount { key: flow_of_ipv6(), count: 7, ..TopCount::default() },
        TopCount { key: process(), count: 1, ..TopCount::default() },
        // Bytes that are no name; an address that is none of the key's family; no address.
        one(Key { src: [0xff; 16], ..process() }),
        one(Key { src: [1; 16], ..flow() }),
        one(Key { netns: 3, family: AF_INET, ..Key::default() }),
    ];
    let by = By::ALL.into_iter().chain([By::Backend, By::ReplyDestination]);
    let lists = Stream::ALL.into_iter().cycle().zip(by);
    Sample {
        time: "2026-01-02T03:04:05.000000006Z".parse().unwrap(),
        elapsed: Duration::new(100_000_000, 123_456_789),
        limit: Some(65_536),
        buckets: Some(16_384),
        tables: vec![
            TableSample {
                id: 3,
                inode: 4_026_532_246,
                name: Some("rt\"\n\u{1b}[31m".to_owned()),
                workload: workload(),
                owner: Owner::Host,
                is_judged: true,
                access: Access::Entered,
                entries: Some(0),
                counters: Some(CounterSums {
                    cpus: 1,
                    gaps: 12,
                    found: 2,
                    invalid: 3,
                    insert: 4,
                    delete_list: Some(5),
                    insert_failed: 6,
                    drop: 7,
                    early_drop: 8,
                    error: 9,
                    search_restart: 10,
                    clash_resolve: 11,
                    chaintoolong: Some(u64::MAX),
                }),
                unread: Some("the counters: no such file".to_owned()),
                hooks: Some(HookReadings { before: tally(1), after: tally(2) }),
                interfaces: vec![(4, "eth0".to_owned())],
            },
            TableSample {
                owner: Owner::User(1000),
                access: Access::Refused,
                hooks: Some(HookReadings { before: tally(1), after: tally(1) }),
                ..empty(4)
            },
            TableSample {
                owner: Owner::Unknown("no such process".to_owned()),
                counters: Some(CounterSums::default()),
                ..empty(5)
            },
        ],
        idle: vec![
            Idle { id: 9, age: Duration::from_nanos(1) },
            Idle { id: 10, age: Duration::ZERO },
        ],
        probed: Some(Probed {
            host: host_tally(),
            counted: Counted {
                drops: true,
                refusals: true,
                clashes: true,
                insertions: true,
                ends: true,
            },
            misses: Misses {
                drops: Some(0),
                page_allocations: Some(1),
                refusals: Some(2),
                clashes: Some(3),
                insertions: Some(4),
                ends: Some(5),
            },
            everywhere: tally(3),
            strangers_rest: tally(4),
        }),
        tops: lists
            .map(|(stream, by)| TopCounts {
                stream,
                by,
                offered: 99,
                left_out: 7,
                left_out_at_most: 8,
                counts: counts.clone(),
            })
            .collect(),
        told_apart: vec![
            ToldApart {
                stream: Stream::Drops,
                considered: 99,
                taken: 101,
                let_by: 30,
                heaviest: 8,
            },
            ToldApart {
                stream: Stream::Insertions,
                considered: 5,
                taken: 5,
                let_by: 0,
                heaviest: 0,
            },
        ],
        planes: Some(
            Plane::EACH.into_iter().zip(1..).map(|(plane, count)| of_plane(plane, count)).collect(),
        ),
        cgroups: vec![(4242, "/system.slice/x.service".to_owned())],
    }
}

fn of_plane(plane: Plane, count: u64) -> PlaneCount {
    PlaneCount { netns: 3, plane, count }
}

/// Of which nothing is known.
pub(super) fn empty(id: u32) -> TableSample {
    TableSample {
        id: id.into(),
        inode: id,
        name: None,
        workload: Workload::default(),
        owner: Owner::Host,
        is_judged: false,
        access: Access::Unseen,
        entries: None,
        counters: None,
        unread: None,
        hooks: None,
        interfaces: Vec::new(),
    }
}
