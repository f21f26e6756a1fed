//! What is written down is read again: by this version, by a later one, by an older one.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use ctwatch_abi::{
    Count, HostCount, HostTally, NetnsTally,
    plane::Plane,
    top::{AF_INET, AF_INET6, By, Key, Stream},
    trace::Reason,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    entry::{Held, Left, Status},
    facts::{
        Act, Allowance, Apply, Barred, Base, BucketsBy, Chain, Condition, Evidence, Facts, Form,
        Framework, FullLines, Hook, KernelLog, LoadedModule, Moment, Namespace, Rule, RuleTable,
        RuleUse, Setting, Slab, StateSet, Stranger, Tools, Totals, Writable,
    },
    sample::{
        Access, Counted, CpuCounters, HookReadings, Idle, Misses, Owner, PlaneCount, Probed,
        Sample, TableSample, ToldApart, TopCount, TopCounts,
    },
    session::{Epoch, FORMAT, Header, Measured},
    workload::Workload,
};

/// As it is read again from a recording, which is what was written.
pub(crate) fn recorded<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> T {
    let line = serde_json::to_string(value).unwrap();
    assert!(!line.contains('\n'), "{line}");
    let read: T = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(read, *value, "{line}");
    read
}

/// A line of the fixture, by what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(Header),
    Epoch(Epoch),
    Sample(Box<Sample>),
    Facts(Box<Facts>),
    Entry(Held),
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn bytes(first: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..first.len()].copy_from_slice(first);
    bytes
}

fn flow() -> Key {
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

fn flow_of_ipv6() -> Key {
    let [src, dst] = ["2001:db8::7", "::ffff:192.0.2.1"].map(|text| match address(text) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => panic!("{text}"),
    });
    Key { src, dst, family: AF_INET6, ..flow() }
}

fn process() -> Key {
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
fn lines() -> Vec<Line> {
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

fn header() -> Header {
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

fn sample() -> Sample {
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
                counters: Some(vec![
                    CpuCounters {
                        cpu: 1,
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
                        chaintoolong: Some(u32::MAX),
                    },
                    CpuCounters::default(),
                ]),
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
                counters: Some(Vec::new()),
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
            .map(|(stream, by)| TopCounts { stream, by, offered: 99, counts: counts.clone() })
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
fn empty(id: u32) -> TableSample {
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

fn conditions() -> Vec<Condition> {
    vec![
        Condition::Family(true),
        Condition::Protocol(6),
        Condition::SourcePort(1, 1023),
        Condition::DestinationPort(53, 53),
        Condition::Source(address("10.0.0.0"), 8),
        Condition::Destination(address("2001:db8::"), 32),
        Condition::DestinationIsLocal,
        Condition::Tracking(Some(false)),
        Condition::Tracking(None),
        Condition::Other,
    ]
}

fn acts() -> Vec<Act> {
    vec![
        Act::Next,
        Act::Accept,
        Act::Drop,
        Act::Return,
        Act::Jump("DOCKER".to_owned()),
        Act::Goto("KUBE-SVC".to_owned()),
        Act::TranslateSource,
        Act::TranslateDestination,
        Act::Help,
        Act::Restore,
        Act::Unknown,
    ]
}

fn rule_table(framework: Framework, family: &'static str) -> RuleTable {
    let rules = acts().into_iter().zip(1..).map(|(act, number)| Rule {
        number,
        conditions: conditions(),
        act,
        comment: Some("kept".to_owned()),
    });
    RuleTable {
        framework,
        family: Cow::Borrowed(family),
        name: "filter".to_owned(),
        nat_chains: words(["POSTROUTING"]),
        rules: 11,
        uses: vec![
            RuleUse {
                chain: "forward".to_owned(),
                number: 7,
                by: words(["ct state"]),
                notrack: true,
                on_invalid: Some(Act::Drop),
                packets: Some(3),
            },
            RuleUse {
                chain: "forward".to_owned(),
                number: 8,
                by: Vec::new(),
                notrack: false,
                on_invalid: None,
                packets: None,
            },
        ],
        more: 2,
        chains: vec![
            Chain {
                name: "forward".to_owned(),
                base: Some(Base {
                    is_nat: true,
                    hook: Cow::Borrowed("forward"),
                    priority: -100,
                    drops: true,
                }),
                rules: rules.collect(),
            },
            Chain { name: "empty".to_owned(), base: None, rules: Vec::new() },
        ],
        is_cut: true,
        state_sets: vec![StateSet {
            name: "states".to_owned(),
            chain: "forward".to_owned(),
            rule: 7,
            is_map: true,
            is_inverted: true,
        }],
    }
}

fn workload() -> Workload {
    let known = |name: &str| Some(name.to_owned());
    Workload {
        pod: known("dns"),
        namespace: known("kube-system"),
        container: known("4bca8d63d5fa"),
    }
}

fn namespace() -> Namespace {
    Namespace {
        id: 3,
        inode: 4_026_532_246,
        name: Some("rt".to_owned()),
        workload: workload(),
        is_own: true,
        by_ip: true,
        pid: Some(1),
        mount: Some("/run/netns/rt".to_owned()),
        addresses: vec![address("192.0.2.1"), address("2001:db8::1")],
        allowances: vec![Allowance {
            interface: "eth0".to_owned(),
            exceeded: 5,
            available: Some(9),
        }],
        entries: Ok(0),
        totals: Ok(Totals {
            invalid: 1,
            insert_failed: 2,
            drop: 3,
            early_drop: 4,
            clash_resolve: 5,
            chaintoolong: Some(0),
        }),
        expectations: Ok(1),
        timeouts: BTreeMap::from([("nf_conntrack_udp_timeout".to_owned(), 30)]),
        hooks: Ok(vec![Hook {
            family: Cow::Borrowed("ip"),
            hook: Cow::Borrowed("prerouting"),
            priority: -200,
            function: "ipv4_conntrack_in".to_owned(),
            module: Some("nf_conntrack".to_owned()),
        }]),
        bridges: Some(0),
        nft: Ok(vec![rule_table(Framework::Nft, "inet")]),
        legacy: Ok(vec![rule_table(Framework::Legacy, "ip6")]),
    }
}

fn unknown<T>() -> Result<T, String> {
    Err("nobody says".to_owned())
}

fn facts() -> Facts {
    let silent = Namespace {
        entries: unknown(),
        totals: unknown(),
        expectations: unknown(),
        hooks: unknown(),
        nft: unknown(),
        legacy: unknown(),
        ..namespace()
    };
    Facts {
        release: "6.12.0".to_owned(),
        form: Form::Module,
        modules: Ok(vec![LoadedModule {
            name: "nf_conntrack".to_owned(),
            references: 2,
            users: words(["nf_nat"]),
        }]),
        on_disk: Ok(words(["iptable_nat"])),
        limit: Ok(65_536),
        buckets: Ok(16_384),
        buckets_by: Ok(BucketsBy::Sysctl),
        expect_max: Ok(256),
        memory: Ok(1 << 40),
        slab: Ok(Slab { objects: 1000, size: 320 }),
        log: Ok(KernelLog {
            lines: vec![(7, "nf_conntrack: table full".to_owned())],
            table_full: 1,
            full_in: BTreeMap::from([(4_026_532_246, FullLines { lines: 1, last: 7 })]),
            expectations_full: FullLines { lines: 2, last: 8 },
            suppressed: 3,
            no_memory: 4,
            since: Some(1),
            read: Some(Moment {
                since_boot: 10,
                time: "2026-01-02T03:04:05+05:30[+05:30]".parse().unwrap(),
            }),
        }),
        settings: vec![Setting {
            file: "/etc/sysctl.d/x.conf".to_owned(),
            name: "nf_conntrack_max".to_owned(),
            value: "65536".to_owned(),
        }],
        barred: vec![Barred {
            file: "/etc/modprobe.d/x.conf".to_owned(),
            module: "nf_nat".to_owned(),
        }],
        namespaces: vec![namespace(), silent],
        others: vec![Stranger {
            uid: 1000,
            inode: 5,
            name: Some("his".to_owned()),
            entries: Ok(1),
            totals: unknown(),
        }],
        unowned: vec![("net:[6]".to_owned(), "it is gone".to_owned())],
        tools: Tools {
            there: words(["nft"]),
            iptables: Some(Framework::Legacy),
            systemd: true,
            udev: true,
            apply: Some(Apply::Prefix("/sbin/apply".to_owned())),
            home: "/root".to_owned(),
            run: "/run".to_owned(),
            stamp: "now".to_owned(),
        },
        evidence: Evidence {
            files: words(["/etc/ufw"]),
            processes: words(["dockerd"]),
            services: words(["nftables"]),
            includes: words(["/etc/nftables.d/*.nft"]),
        },
        limit_is: Writable::Yes,
        unvisited: words(["rt: gone"]),
    }
}

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
    let sample = Sample {
        limit: None,
        buckets: Some(0),
        tables: vec![empty(7)],
        idle: Vec::new(),
        probed: None,
        tops: Vec::new(),
        told_apart: Vec::new(),
        planes: None,
        cgroups: Vec::new(),
        ..sample()
    };
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

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Often zero, often small, now and then as large as can be.
    fn number(&mut self) -> u64 {
        match self.next() % 4 {
            0 => 0,
            1 => self.next() % 300,
            2 => self.next(),
            _ => u64::MAX - self.next() % 2,
        }
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    /// Text, bytes, or little of either.
    fn bytes(&mut self) -> [u8; 16] {
        let (kind, len) = (self.next() % 5, usize::from(self.byte() % 17));
        let mut bytes = [0; 16];
        for byte in &mut bytes[..len] {
            *byte = match kind {
                0 => 0,
                1 => b'a' + self.byte() % 26,
                2 => self.byte() % 3,
                _ => self.byte(),
            };
        }
        bytes
    }

    fn key(&mut self) -> Key {
        let [family, protocol] = [self.byte(), self.byte()];
        let families = [0, AF_INET, AF_INET, AF_INET6, AF_INET6, family];
        Key {
            netns: self.number(),
            src: self.bytes(),
            dst: self.bytes(),
            dport: u16::from_le_bytes([self.byte(), self.byte()]),
            protocol: if self.next().is_multiple_of(2) { 0 } else { protocol },
            family: families[usize::from(self.byte() % 6)],
            ifindex: u32::from(self.byte() % 2) * u32::from(self.byte()),
        }
    }
}

#[test]
fn any_key_is_read_as_it_was_written() {
    let mut random = Random(0x5eed);
    let mut seen = BTreeSet::new();
    for _ in 0..20_000 {
        let key = random.key();
        recorded(&key);
        recorded(&key.of(By::ALL[usize::from(random.byte()) % By::ALL.len()]));
        if let Value::Object(fields) = serde_json::to_value(key).unwrap() {
            seen.extend(fields.keys().cloned());
        }
    }
    assert_eq!(seen.len(), 9, "each field was in some key: {seen:?}");
}

#[test]
fn any_tally_is_read_as_it_was_written() {
    let mut random = Random(0x7a11);
    for _ in 0..2_000 {
        let numbers: BTreeMap<&str, u64> =
            Count::EACH.map(|count| (count.name(), random.number())).into();
        let read: NetnsTally = serde_json::from_value(json!(numbers)).unwrap();
        for count in Count::EACH {
            assert_eq!(read.get(count), numbers[count.name()]);
        }
        recorded(&read);
        let numbers: BTreeMap<&str, u64> =
            HostCount::EACH.map(|count| (count.name(), random.number())).into();
        let read: HostTally = serde_json::from_value(json!(numbers)).unwrap();
        for count in HostCount::EACH {
            assert_eq!(read.get(count), numbers[count.name()]);
        }
        recorded(&read);
    }
}

/// Variants that hold something: of such an object the key is the variant's name.
const TAGS: [&str; 16] = [
    "ok",
    "unknown",
    "user",
    "seconds",
    "is_ipv4",
    "source_port",
    "destination_port",
    "source",
    "destination",
    "tracking",
    "jump",
    "goto",
    "prefix",
    // And maps of names that are no fields.
    "nf_conntrack_udp_timeout",
    "4026532246",
    "header",
];

/// Puts a field that nobody knows into each object, however deep; into how many.
fn add_fields(value: &mut Value) -> u32 {
    match value {
        Value::Array(all) => all.iter_mut().map(add_fields).sum(),
        Value::Object(fields) => {
            let is_tagged = fields.len() == 1 && fields.keys().all(|key| TAGS.contains(&&**key));
            // A condition of a protocol, and a key that has one and no more.
            let is_tagged = is_tagged || fields.len() == 1 && fields.contains_key("protocol");
            let mut added = fields.values_mut().map(add_fields).sum();
            if !is_tagged {
                fields.insert("of_a_later_version".to_owned(), json!({"x": [1, null, {"y": 2}]}));
                added += 1;
            }
            added
        }
        _ => 0,
    }
}

#[test]
fn fields_and_counts_of_a_later_version_are_ignored() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, least: u32) {
        let mut written = serde_json::to_value(value).unwrap();
        let added = add_fields(&mut written);
        assert!(added >= least, "{added}");
        assert_eq!(serde_json::from_value::<T>(written).unwrap(), *value);
    }
    check(&header(), 3);
    check(&Epoch { number: 1, gap: None }, 1);
    // Also a count beside those that are known, and a field of a key.
    check(&sample(), 100);
    check(&facts(), 50);
}

/// What is read of this, with this at this place.
fn with<T: Serialize + DeserializeOwned>(value: &T, at: &str, put: Value) -> Result<T, String> {
    let mut written = serde_json::to_value(value).unwrap();
    *written.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")) = put;
    serde_json::from_value(written).map_err(|error| error.to_string())
}

#[test]
fn variants_of_a_later_version_are_something_else() {
    for put in [json!("tenant"), json!({"tenant": 7})] {
        let read = with(&sample(), "/tables/0/owner", put).unwrap();
        let Owner::Unknown(why) = &read.tables[0].owner else { panic!("{read:?}") };
        assert!(why.contains("a later version"), "{why}");
        assert_eq!(read.tables[1..], sample().tables[1..]);
    }
    let read = with(&sample(), "/tables/0/access", json!("asleep")).unwrap();
    assert_eq!(read.tables[0].access, Access::Unseen);
    let mut lines = lines().into_iter();
    let Some(Line::Entry(held)) = lines.find(|line| matches!(line, Line::Entry(_))) else {
        panic!("no entry")
    };
    for put in [json!("for_ever"), json!({"until": "tomorrow"})] {
        assert_eq!(with(&held, "/left", put).unwrap().left, Left::Unknown);
    }
    let table = rule_table(Framework::Nft, "inet");
    for put in [json!("mirror"), json!({"mirror": "eth0"})] {
        let read = with(&table, "/chains/0/rules/4/act", put.clone()).unwrap();
        assert_eq!(read.chains[0].rules[4].act, Act::Unknown);
        let read = with(&table, "/chains/0/rules/4/conditions/3", put.clone()).unwrap();
        let mut expected = conditions();
        expected[3] = Condition::Other;
        assert_eq!(read.chains[0].rules[4].conditions, expected);
        let read = with(&table, "/uses/0/on_invalid", put.clone()).unwrap();
        assert_eq!(read.uses[0].on_invalid, Some(Act::Unknown));
        let read = with(&facts(), "/tools/apply", put).unwrap();
        assert_eq!(read.tools.apply, None);
    }
    let read = with(&facts(), "/tools/iptables", json!("ebpf")).unwrap();
    assert_eq!(read.tools.iptables, None);
    assert_eq!(with(&facts(), "/form", json!("embedded")).unwrap().form, Form::Loaded);
}

/// As if it were not there: another list would be told as what it is not.
#[test]
fn lists_of_a_later_version_are_left_out() {
    for (at, put) in [("/tops/0/by", "zone"), ("/tops/0/stream", "removals")] {
        let read = with(&sample(), at, json!(put)).unwrap();
        assert_eq!(read.tops, sample().tops[1..]);
    }
    assert!(with(&sample(), "/tops/0/counts/0/count", json!("many")).is_err());
}

#[test]
fn what_would_mislead_is_an_error() {
    let error = with(&header(), "/format", json!(2)).unwrap_err();
    assert!(error.contains("format 2: this ctwatch reads format 1"), "{error}");
    assert!(with(&facts(), "/limit_is", json!("perhaps")).is_err());
    assert!(with(&facts(), "/buckets_by", json!({"ok": "netlink"})).is_err());
    assert!(with(&facts(), "/namespaces/0/nft/ok/0/framework", json!("bpf")).is_err());
    // What is always written is not taken for zero, or for nothing, where it is missing.
    for (at, field) in [
        ("", "time"),
        ("", "elapsed_ns"),
        ("/tables/0", "id"),
        ("/tables/0", "owner"),
        ("/tables/0", "access"),
        ("/probed", "misses"),
        ("/tops/0/counts/0", "count"),
    ] {
        let mut written = serde_json::to_value(sample()).unwrap();
        let object = written.pointer_mut(at).and_then(Value::as_object_mut).unwrap();
        assert!(object.remove(field).is_some());
        assert!(serde_json::from_value::<Sample>(written).is_err(), "{field}");
    }
    let mut written = serde_json::to_value(facts()).unwrap();
    written.as_object_mut().unwrap().remove("limit");
    assert!(serde_json::from_value::<Facts>(written).is_err());
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

fn fixture() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/records/v1.ndjson");
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether all of it is there, and nothing has become something else.
fn keeps(written: &Value, of: &Value) -> bool {
    match (written, of) {
        (Value::Object(written), Value::Object(of)) => {
            of.iter().all(|(name, of)| written.get(name).is_some_and(|written| keeps(written, of)))
        }
        (Value::Array(written), Value::Array(of)) => {
            written.len() == of.len() && written.iter().zip(of).all(|(w, of)| keeps(w, of))
        }
        _ => written == of,
    }
}

#[test]
fn records_of_format_1_stay_readable() {
    let fixture = fixture();
    assert!(fixture.len() >= 10, "lines are added, and never removed");
    for of in fixture {
        let line: Line =
            serde_json::from_value(of.clone()).unwrap_or_else(|error| panic!("{error}: {of}"));
        let written = serde_json::to_value(&line).unwrap();
        assert!(keeps(&written, &of), "it was\n{of}\nand is read as\n{written}");
    }
}

/// Where each field is, and what each text is.
fn places(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            places(value, &format!("{at}.{name}"), found);
        }),
        Value::Array(all) => all.iter().for_each(|value| places(value, &format!("{at}[]"), found)),
        Value::String(text) => drop(found.insert(format!("{at}={text}"))),
        _ => drop(found.insert(at.to_owned())),
    }
}

/// A field that is added needs a line more in the fixture; those that are there stay as they are, so
/// that a field without a default makes them unreadable.
#[test]
fn all_that_is_written_is_in_the_fixture() {
    let (mut kept, mut written) = (BTreeSet::new(), BTreeSet::new());
    fixture().iter().for_each(|line| places(line, "", &mut kept));
    for line in lines() {
        places(&serde_json::to_value(line).unwrap(), "", &mut written);
    }
    let missing: Vec<_> = written.difference(&kept).collect();
    assert!(missing.is_empty(), "add lines to v1.ndjson: {missing:#?}");
}

/// Four namespaces on two CPUs, in which the programs count, and all lists of twenty.
fn busy() -> Sample {
    let mut random = Random(20);
    let mut number = |most: u64| random.next() % most;
    let counters = |cpu, drop| CpuCounters {
        cpu,
        found: 1_000,
        invalid: 20_000,
        insert_failed: 300,
        drop,
        early_drop: 50_000,
        search_restart: 600,
        clash_resolve: 7,
        chaintoolong: Some(0),
        ..CpuCounters::default()
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
            counters: Some(vec![counters(0, 70_000), counters(1, 80_000)]),
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
            tops.push(TopCounts { stream, by, offered: number(100_000_000), counts });
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
