//! Facts of which nothing is left out, and with each variant.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use crate::record::{
    facts::{
        Act, Allowance, Apply, Barred, Base, BucketsBy, Chain, Condition, Evidence, Facts, Form,
        Framework, FullLines, Hook, KernelLog, LoadedModule, Moment, Namespace, Rule, RuleTable,
        RuleUse, Setting, Slab, StateSet, Stranger, Tools, Totals, Writable,
    },
    workload::Workload,
};

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

pub(super) fn conditions() -> Vec<Condition> {
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

pub(super) fn rule_table(framework: Framework, family: &'static str) -> RuleTable {
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
        by_place: false,
    }
}

pub(super) fn workload() -> Workload {
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

pub(super) fn unknown<T>() -> Result<T, String> {
    Err("nobody says".to_owned())
}

pub(super) fn facts() -> Facts {
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
            is_untimed: false,
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
