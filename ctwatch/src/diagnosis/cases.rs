//! Each finding from the facts that call for it, and not from those that do not.

use std::{collections::BTreeMap, time::Duration};

use ctwatch_abi::{
    Count, NetnsTally,
    top::{By, Key, Stream},
};

use super::{
    case::Case,
    findings,
    report::{Finding, Severity},
    tracking,
};
use crate::{
    model::{
        Model, Snapshot,
        census::{Census, SEED, Taken},
    },
    record::{
        counters::{CounterSums, CpuCounters},
        entry::{Held, Left, Status},
        facts::{
            Act, Base, BucketsBy, Condition, Evidence, Facts, Form, Framework, FullLines,
            KernelLog, LoadedModule, Namespace, Rule, RuleTable, RuleUse, Setting, Slab, Tools,
            Totals, Writable,
        },
        sample::{
            Access, Counted, HookReadings, Owner, Probed, Sample, TableSample, TopCount, TopCounts,
        },
        tests::recorded,
    },
};

pub(super) fn namespace(entries: u32) -> Namespace {
    Namespace {
        workload: Default::default(),
        id: 1,
        inode: 1,
        name: Some("host".to_owned()),
        is_own: true,
        by_ip: false,
        pid: None,
        mount: None,
        addresses: Vec::new(),
        allowances: Vec::new(),
        entries: Ok(entries),
        totals: Ok(Totals { chaintoolong: Some(0), ..Totals::default() }),
        expectations: Ok(0),
        timeouts: BTreeMap::from([
            ("nf_conntrack_tcp_timeout_time_wait".to_owned(), 120),
            ("nf_conntrack_udp_timeout".to_owned(), 30),
        ]),
        hooks: Err("not asked".to_owned()),
        bridges: None,
        nft: Ok(vec![rules("filter", &[("ct state", false)])]),
        legacy: Ok(Vec::new()),
    }
}

fn rules(name: &str, uses: &[(&str, bool)]) -> RuleTable {
    let mut table = RuleTable::new(Framework::Nft, "inet", name.to_owned());
    for (by, notrack) in uses {
        table.add(Some(RuleUse {
            chain: "forward".to_owned(),
            number: 7,
            by: vec![(*by).to_owned()],
            notrack: *notrack,
            on_invalid: None,
            packets: Some(3),
        }));
        let rule = Rule { number: 7, conditions: Vec::new(), act: Act::Next, comment: None };
        table.keep("forward", rule);
    }
    table
}

pub(super) fn nat_rule(by: &str) -> RuleTable {
    rules("nat", &[(by, false)])
}

pub(super) fn invalid_rule(by: &str, packets: Option<u64>) -> RuleTable {
    let mut table = rules("filter", &[(by, false)]);
    (table.uses[0].on_invalid, table.uses[0].packets) = (Some(Act::Drop), packets);
    table
}

pub(crate) fn facts(entries: u32) -> Facts {
    let module = |name: &str, users: &[&str]| LoadedModule {
        name: name.to_owned(),
        references: users.len() as u32,
        users: users.iter().map(|user| (*user).to_owned()).collect(),
    };
    Facts {
        release: "6.12".to_owned(),
        form: Form::Module,
        modules: Ok(vec![
            module("nf_conntrack", &["nf_nat"]),
            module("nf_nat", &["iptable_nat"]),
            module("iptable_nat", &[]),
        ]),
        on_disk: Ok(vec!["iptable_nat".to_owned(), "nf_conntrack".to_owned()]),
        limit: Ok(1000),
        buckets: Ok(256),
        buckets_by: Ok(BucketsBy::Sysctl),
        expect_max: Ok(60),
        memory: Ok(1 << 30),
        slab: Ok(Slab { objects: 1000, size: 320 }),
        log: Ok(KernelLog::default()),
        settings: Vec::new(),
        barred: Vec::new(),
        namespaces: vec![namespace(entries)],
        others: Vec::new(),
        unowned: Vec::new(),
        unvisited: Vec::new(),
        tools: tools(),
        evidence: Evidence { files: vec!["/etc/sysctl.d".to_owned()], ..Evidence::default() },
        limit_is: Writable::Yes,
    }
}

pub(super) fn tools() -> Tools {
    let there = [
        "nft",
        "iptables",
        "ip6tables",
        "iptables-legacy",
        "sysctl",
        "ip",
        "nsenter",
        "sed",
        "awk",
    ];
    Tools {
        there: there.map(str::to_owned).to_vec(),
        udev: true,
        apply: Some(crate::record::facts::Apply::Prefix("/sbin/apply".to_owned())),
        home: "/root".to_owned(),
        run: "/run".to_owned(),
        stamp: "now".to_owned(),
        ..Tools::default()
    }
}

#[test]
fn buckets_are_raised_by_what_can_be_written() {
    let full = |by| Facts { buckets_by: by, ..facts(1000) };
    let raise = |facts: &Facts| found(facts, None).remove(0).fixes.remove(0);
    let fix = raise(&full(Ok(BucketsBy::Hashsize)));
    assert_eq!(fix.now[0], "echo 2048 > /sys/module/nf_conntrack/parameters/hashsize");
    assert_eq!(fix.now[1], "sysctl -w net.netfilter.nf_conntrack_max=2048");
    assert!(fix.files.iter().all(|file| !file.content.contains("nf_conntrack_buckets")));
    assert!(fix.files.iter().any(|file| file.content.contains("hashsize=2048")));
    assert!(fix.undo.contains(&"rm -f /etc/modprobe.d/ctwatch-limit.conf".to_owned()));
    let fix = raise(&full(Err("it is not ours".to_owned())));
    assert!(fix.now.iter().chain(&fix.undo).all(|line| !line.contains("buckets")), "{fix:?}");
    assert!(fix.expect.contains("there are 256 buckets, and it is not ours"), "{}", fix.expect);
    // Elsewhere, from what somebody pasted.
    let fix = raise(&Facts { buckets: Err("nobody says".to_owned()), ..facts(1000) });
    assert_eq!(fix.now, ["sysctl -w net.netfilter.nf_conntrack_max=2048"]);
    assert!(fix.expect.contains("few buckets: nobody says"), "{}", fix.expect);
}

/// From facts that were recorded and read again.
pub(super) fn found(facts: &Facts, census: Option<&Taken>) -> Vec<Finding> {
    findings(&Case {
        facts: &recorded(facts),
        census: census.ok_or("not taken"),
        live: None,
        settings: Default::default(),
    })
}

pub(super) fn ids(facts: &Facts) -> Vec<&'static str> {
    found(facts, None).iter().map(|finding| finding.id).collect()
}

/// So many entries of TCP in TIME_WAIT, with so many seconds left, one second apart; and some to
/// one service.
pub(crate) fn census() -> Taken {
    let mut census = Census::new(&[By::Service], SEED);
    let key = |protocol, dport: u16| Key {
        netns: 1,
        dst: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        protocol,
        dport: dport.to_be(),
        family: 2,
        ..Key::default()
    };
    let mut hold = |key: Key, state, assured: bool, seconds| {
        let status = Status(u32::from(assured) << 2 | 1 << 3);
        let left = Left::Seconds(seconds);
        census.enter(&Held { key, translated: key, status, state, zone: 0, left });
    };
    for second in 0..600 {
        hold(key(6, second as u16), 7, true, second % 120);
    }
    for _ in 0..400 {
        hold(key(17, 4789), 0, false, 29);
    }
    taken(census)
}

/// What comes of a census that nothing disturbed.
pub(super) fn taken(census: Census) -> Taken {
    Taken {
        by: "walk".into(),
        took: Duration::ZERO,
        cpu: Duration::ZERO,
        strayed: 0,
        kernel: Vec::new(),
        counted: census.finish(10),
        notes: Vec::new(),
    }
}

/// A second in which 100 packets were refused, most of them one source's.
pub(crate) fn refusing() -> Snapshot {
    let mut model = Model::with_tops(5, &By::ALL);
    let of = |source, count, error| {
        let mut key = Key { netns: 1, family: 2, ..Key::default() };
        key.src[..4].copy_from_slice(&[10, 1, 1, source]);
        TopCount { key, count, error, ..TopCount::default() }
    };
    let mut sample = |second: u32, refused: u32, counts| {
        let mut tally = NetnsTally::new(1, 1);
        (0..refused).for_each(|_| tally.bump(Count::TableFull));
        let counted = Counted { refusals: true, ..Counted::default() };
        model.advance(&recorded(&Sample {
            time: jiff::Timestamp::from_second(second.into()).unwrap(),
            elapsed: Duration::from_secs(second.into()),
            limit: Some(1000),
            buckets: Some(256),
            tables: vec![TableSample {
                workload: Default::default(),
                id: 1,
                inode: 1,
                name: None,
                owner: Owner::Host,
                is_judged: true,
                access: Access::Entered,
                entries: Some(1000),
                counters: Some(CounterSums::of(&[CpuCounters {
                    drop: refused,
                    ..CpuCounters::default()
                }])),
                unread: None,
                hooks: Some(HookReadings { before: tally, after: tally }),
                interfaces: Vec::new(),
            }],
            tops: vec![TopCounts {
                stream: Stream::Drops,
                by: By::Source,
                offered: refused.into(),
                left_out: 0,
                left_out_at_most: 0,
                counts,
            }],
            told_apart: Vec::new(),
            planes: None,
            cgroups: Vec::new(),
            idle: Vec::new(),
            probed: Some(Probed { counted, everywhere: tally, ..Probed::default() }),
        }))
    };
    sample(0, 0, Vec::new());
    sample(1, 100, vec![of(7, 80, 0), of(8, 30, 10), of(9, 4, 4)])
}

pub(super) fn of<'a>(found: &'a [Finding], id: &str) -> &'a Finding {
    found.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id}: {found:?}"))
}

#[test]
fn who_is_refused_is_named_as_far_as_that_is_certain() {
    let (facts, live) = (facts(1000), refusing());
    let found = findings(&Case {
        facts: &facts,
        census: Err("no"),
        live: Some(&live),
        settings: Default::default(),
    });
    let evidence = &of(&found, "table_full").evidence;
    let who = evidence.iter().find(|line| line.starts_with("dropped by source: "));
    assert_eq!(
        who.map(String::as_str),
        Some("dropped by source: 10.1.1.7 80; 10.1.1.8 20 to 30"),
        "{evidence:?}"
    );
}

#[test]
fn a_calm_machine_has_nothing_wrong_with_it() {
    assert!(ids(&facts(10)).is_empty(), "{:?}", ids(&facts(10)));
    let absent = Facts { form: Form::Absent, namespaces: Vec::new(), ..facts(0) };
    assert!(ids(&absent).is_empty());
}

#[test]
fn nothing_tracks_where_conntrack_is_absent() {
    let mut absent = Facts { form: Form::Absent, ..facts(0) };
    absent.namespaces[0].entries = Err("no such file".to_owned());
    absent.namespaces[0].hooks = Err("nobody says".to_owned());
    let tracking = tracking::tracking(&absent);
    assert!(tracking.namespaces.is_empty(), "{tracking:?}");
    assert!(!tracking.unknown.iter().any(|why| why.contains("hooked")), "{tracking:?}");
}

#[test]
fn a_full_table_is_the_first_thing_that_is_said() {
    let taken = census();
    let mut facts = facts(1000);
    facts.log = Ok(KernelLog { table_full: 3, suppressed: 90, ..KernelLog::default() });
    let found = found(&facts, Some(&taken));
    assert_eq!((found[0].id, found[0].severity), ("table_full", Severity::Critical));
    let fix = &found[0].fixes[0];
    let now = [
        "sysctl -w net.netfilter.nf_conntrack_buckets=2048",
        "sysctl -w net.netfilter.nf_conntrack_max=2048",
    ];
    assert_eq!(fix.now, now);
    assert!(fix.undo[0].ends_with("nf_conntrack_max=1000"), "{fix:?}");
    assert_eq!(fix.files.len(), 2, "a module is loaded after sysctls are set: {fix:?}");
    assert!(fix.expect.starts_with("the table is 49% full instead of 100%"), "{fix:?}");
    let evidence = found[0].evidence.join("\n");
    assert!(evidence.contains("0 pinned (0%)") && evidence.contains("600 closing"), "{evidence}");
    assert!(evidence.contains("3 lines") && evidence.contains("90 more"), "{evidence}");
}

#[test]
fn a_table_that_fills_is_a_warning() {
    assert_eq!(ids(&facts(749)), [""; 0]);
    assert_eq!(ids(&facts(750)), ["table_filling"]);
    assert_eq!(ids(&facts(899)), ["table_filling"]);
    assert_eq!(ids(&facts(900)), ["table_full", "needed_by"]);
}

#[test]
fn what_a_timeout_holds_follows_from_what_is_left() {
    let taken = census();
    let found = found(&facts(1000), Some(&taken));
    let fixes = &of(&found, "timeouts").fixes;
    // Of 600 entries, five for each second; those with less than 90 s of 120 left.
    assert_eq!(fixes.len(), 1, "{fixes:?}");
    assert!(fixes[0].expect.starts_with("about 450 entries less (45%), 120 s"), "{fixes:?}");
    assert!(fixes[0].title.starts_with("tcp_timeout_time_wait 120 -> 30"), "{fixes:?}");
}

#[test]
fn a_tunnel_that_fills_the_table_need_not_be_tracked() {
    let taken = census();
    let mut facts = facts(1000);
    let fixes = |facts: &Facts| of(&found(facts, Some(&taken)), "top_talkers").clone();
    let talkers = fixes(&facts);
    assert!(
        talkers
            .title
            .starts_with("40% of the table of host is held by the tunnels of VXLAN (udp/4789)"),
        "{}",
        talkers.title
    );
    let [fix] = talkers.fixes.as_slice() else { panic!("{talkers:?}") };
    assert!(fix.now[0].contains("        udp dport 4789 counter notrack\n"), "{fix:?}");
    assert!(fix.files.is_empty() && fix.lasts[0].starts_with("until the next boot"), "{fix:?}");
    assert!(fix.arm[0].contains("sleep 120; rm /run/ctwatch-undo-udp_4789-1"), "{fix:?}");
    assert!(fix.arm[0].contains("nft delete table inet ctwatch_udp_4789"), "{fix:?}");
    // A table of the host's own file, where that is read; and where it ends here.
    facts.evidence.services.push("nftables.service".to_owned());
    facts.evidence.includes.push("/etc/nftables.d/*.nft".to_owned());
    facts.namespaces[0].addresses = vec![[10, 0, 0, 1].into()];
    let fix = &fixes(&facts).fixes[0];
    assert!(fix.files[0].path.ends_with("/etc/nftables.d/ctwatch-udp_4789.nft"), "{fix:?}");
    assert!(fix.files[0].content.contains("ip daddr 10.0.0.1 udp dport 4789 counter"), "{fix:?}");
    // Files there are read inside of a table of OpenWrt's.
    facts.evidence.files.push("/etc/openwrt_release".to_owned());
    let fix = &fixes(&facts).fixes[0];
    assert!(fix.files.is_empty() && fix.lasts.iter().any(|l| l.contains("/etc/config/firewall")));
    assert!(
        fix.now[0].contains("delete table inet ctwatch_udp_4789\n"),
        "it is there once: {fix:?}"
    );
    // Without nft, by what there is.
    facts.tools.there.retain(|tool| tool != "nft");
    let why = "is not proposed: neither nft nor iptables-restore is installed";
    assert!(fixes(&facts).evidence.join("\n").contains(why), "{:?}", fixes(&facts));
    let more = ["iptables-restore", "ip6tables-restore"].map(str::to_owned);
    facts.tools.there.extend(more);
    let fix = &fixes(&facts).fixes[0];
    let restore = |how: &str, rules: &str| {
        format!("printf '%s\\n' '*raw' {rules}COMMIT | iptables-restore {how}-n")
    };
    let rule =
        |how: char, what: &str| format!("'-{how} {what} -p udp --dport 4789 -j CT --notrack' ");
    let both = |how| rule(how, "PREROUTING -d 10.0.0.1") + &rule(how, "OUTPUT");
    // It ends at an address of IPv4; nobody knows what it is sent to.
    assert_eq!(fix.now[0], restore("", &both('I')));
    assert_eq!(fix.save[0], restore("--test ", &both('I')));
    assert_eq!(fix.undo[1], restore("", &both('D')));
    assert_eq!(fix.now.len() + 1, fix.undo.len(), "and the token of the self-undo: {fix:?}");
    let left = |fix: &crate::diagnosis::report::Fix| {
        fix.lasts.iter().filter(|line| line.contains("leaves that behind")).count()
    };
    assert_eq!(left(fix), fix.now.len(), "{fix:?}");
    let raw = RuleTable::new(Framework::Legacy, "ip", "raw".to_owned());
    facts.namespaces[0].legacy = Ok(vec![raw]);
    assert_eq!(left(&fixes(&facts).fixes[0]), fix.now.len() - 1);
}

/// What is written down is loaded again and again, and beside what others loaded.
#[test]
fn where_a_rule_lasts_follows_from_its_owner() {
    let taken = census();
    let line = |change: fn(&mut Facts)| {
        let mut facts = facts(1000);
        change(&mut facts);
        let found = found(&facts, Some(&taken));
        of(&found, "top_talkers").fixes[0].lasts.join("\n")
    };
    let ufw = line(|facts| {
        let mut table = RuleTable::new(Framework::Nft, "ip", "filter".to_owned());
        table.chain("ufw-before-input");
        facts.namespaces[0].nft = Ok(vec![table]);
    });
    let in_one = "was typed: nft 'add table inet ctwatch_udp_4789; delete table inet ctwatch_udp_4789; \
                  table inet ctwatch_udp_4789 { chain prerouting { type filter hook prerouting priority \
                  raw; udp dport 4789 counter notrack; }; chain output {";
    assert!(ufw.contains("/etc/ufw/before.init") && ufw.contains(in_one), "{ufw}");
    let firewalld = line(|facts| facts.evidence.processes.push("firewalld".to_owned()));
    let remove = "firewall-cmd --permanent --direct --remove-rule ipv4 raw PREROUTING 0 -p udp";
    assert!(firewalld.contains(remove) && firewalld.contains("No reload is needed"), "{firewalld}");
    let persistent = line(|facts| {
        facts.evidence.services.push("iptables.service".to_owned());
        facts.evidence.files.push("/etc/sysconfig/iptables".to_owned());
    });
    let file = "of /etc/sysconfig/iptables (-A PREROUTING -p udp --dport 4789 -j CT --notrack";
    assert!(persistent.contains(file), "{persistent}");
}

/// All entries are of one service, by UDP; some of it may be translated.
fn census_of_dns(status: u32) -> Taken {
    let mut census = Census::new(&[By::Service], SEED);
    for _ in 0..1000 {
        let mut key = Key { netns: 1, protocol: 17, family: 2, ..Key::default() };
        key.dst[..4].copy_from_slice(&[10, 96, 0, 10]);
        key.dport = 53_u16.to_be();
        let status = Status(1 << 3 | status);
        census.enter(&Held {
            key,
            translated: key,
            status,
            state: 0,
            zone: 0,
            left: Left::Seconds(9),
        });
    }
    Taken { counted: census.finish(10), ..self::census() }
}

#[test]
fn what_is_translated_is_never_left_untracked() {
    let why = |facts: &Facts, status| {
        let taken = census_of_dns(status);
        let talkers = of(&found(facts, Some(&taken)), "top_talkers").clone();
        let why = talkers.evidence.iter().find(|line| line.contains("is not proposed")).cloned();
        assert_eq!(talkers.fixes.is_empty(), why.is_some(), "{talkers:?}");
        why
    };
    let mut facts = facts(1000);
    assert_eq!(why(&facts, 0), None);
    assert!(why(&facts, 1 << 5).unwrap().ends_with("some of its entries are translated"));
    assert!(why(&facts, 1 << 13).unwrap().contains("a helper"));
    let dnat = |conditions: &[Condition]| {
        let mut table = rules("nat", &[("dnat", false)]);
        table.chain("forward").rules[0].act = Act::TranslateDestination;
        table.chain("forward").rules[0].conditions = conditions.to_vec();
        Ok(vec![table])
    };
    facts.namespaces[0].nft = dnat(&[Condition::Protocol(17)]);
    assert!(why(&facts, 0).unwrap().contains("may be translated, by table inet nat"));
    facts.namespaces[0].nft = dnat(&[Condition::Protocol(6)]);
    assert_eq!(why(&facts, 0), None);
    facts.namespaces[0].legacy = Err("no".to_owned());
    assert!(why(&facts, 0).unwrap().ends_with("its rules are unknown: no"));
    facts.namespaces[0].legacy = Ok(Vec::new());
    let ip_vs = LoadedModule { name: "ip_vs".to_owned(), references: 1, users: Vec::new() };
    facts.modules.as_mut().unwrap().push(ip_vs);
    assert!(why(&facts, 0).unwrap().contains("ip_vs is loaded"));
}

#[test]
fn what_only_a_state_lets_in_stays_tracked() {
    let taken = census_of_dns(0);
    let mut facts = facts(1000);
    let mut table = rules("filter", &[("ct state", false)]);
    let chain = table.chain("forward");
    chain.base = Some(Base { drops: true, ..Base::of(false, "forward", 0) });
    chain.rules[0].conditions = vec![Condition::Tracking(Some(false))];
    chain.rules[0].act = Act::Accept;
    facts.namespaces[0].nft = Ok(vec![table]);
    let all = found(&facts, Some(&taken));
    let talkers = of(&all, "top_talkers");
    assert!(talkers.fixes.is_empty(), "{talkers:?}");
    assert!(talkers.evidence.join("\n").contains("it would be cut off, by table inet filter"));
}

#[test]
fn tracking_that_no_rule_needs_can_be_stopped() {
    let mut facts = facts(10);
    let mut nat = RuleTable::new(Framework::Legacy, "ip", "nat".to_owned());
    facts.namespaces[0].nft = Ok(Vec::new());
    facts.namespaces[0].legacy = Ok(vec![nat.clone()]);
    let found = found(&facts, None);
    let nothing = of(&found, "tracking_for_nothing");
    assert_eq!(nothing.severity, Severity::Warning);
    assert_eq!(nothing.fixes[0].now, ["modprobe -r iptable_nat nf_nat nf_conntrack"]);
    assert_eq!(nothing.fixes[0].undo[1], "modprobe -a nf_conntrack nf_nat iptable_nat");
    let file = &nothing.fixes[0].files[0];
    assert!(file.content.contains("\ninstall iptable_nat /bin/true\n"), "{file:?}");
    assert!(!file.content.contains("nft_ct"), "not on this kernel: {file:?}");
    assert!(
        nothing.evidence.iter().any(|line| line.contains("nf_conntrack <- nf_nat <- iptable_nat"))
    );
    // A rule that needs it, or one that could not be read.
    nat.add(Some(RuleUse {
        chain: "POSTROUTING".to_owned(),
        number: 1,
        by: vec!["-j MASQUERADE".to_owned()],
        notrack: false,
        on_invalid: None,
        packets: None,
    }));
    facts.namespaces[0].legacy = Ok(vec![nat]);
    assert!(ids(&facts).is_empty());
    assert_eq!(tracking::reasons(&facts).len(), 1);
    facts.namespaces[0].legacy = Err("no".to_owned());
    assert!(ids(&facts).is_empty(), "nobody knows");
    facts.namespaces[0].legacy = Ok(Vec::new());
    facts.unvisited = vec!["another namespace is shut".to_owned()];
    assert!(ids(&facts).is_empty(), "nobody knows what is in there");
    assert_eq!(tracking::tracking(&facts).unknown.len(), 2, "and where packets are hooked");
    facts.unvisited.clear();
    // A rule that keeps packets from being tracked needs no tracking.
    facts.namespaces[0].legacy = Ok(Vec::new());
    facts.namespaces[0].nft = Ok(vec![rules("raw", &[("notrack", true)])]);
    assert_eq!(ids(&facts), ["tracking_for_nothing"]);
    // Loaded, and it tracks nothing.
    facts.namespaces[0].entries = Ok(0);
    let idle = findings(&Case {
        facts: &facts,
        census: Err("no"),
        live: None,
        settings: Default::default(),
    });
    assert_eq!((idle[0].id, idle[0].severity), ("tracking_for_nothing", Severity::Info));
    facts.form = Form::BuiltIn;
    assert!(ids(&facts).is_empty(), "nobody can unload it");
}

#[test]
fn rules_that_a_full_table_comes_of_can_be_removed() {
    let found = found(&facts(1000), None);
    let needed = &of(&found, "needed_by").fixes[0];
    let now = "test \"$(wc -l < /root/ctwatch-now-1-undo.nft)\" -eq 1 && nft -c -f \
               /root/ctwatch-now-1-undo.nft && nft -f - <<'END'\ndelete rule inet filter forward \
               handle 7\nEND";
    assert_eq!(needed.now, [now]);
    let save =
        "(set -C; nft -a list ruleset > /root/ctwatch-now-1.nft; : > /root/ctwatch-now-1-undo.nft)";
    assert_eq!(needed.save[0], save);
    assert!(needed.save[1].contains("|insert rule inet filter forward \\1|p' >> "), "{needed:?}");
    let checks = needed.save.iter().filter(|line| line.contains("nft -c -f")).count();
    assert_eq!(checks, 2, "{needed:?}");
    assert_eq!(needed.undo[1], "nft -f /root/ctwatch-now-1-undo.nft");
    assert!(needed.breaks.contains("this session"), "{}", needed.breaks);
    // What nft would not read is no command.
    let mut named = facts(1000);
    let uses = rules("~odd;id", &[("ct state", false)]);
    named.namespaces[0].nft = Ok(vec![uses]);
    assert!(of(&self::found(&named, None), "needed_by").fixes.is_empty());
    // Nor is it all, where there are more than were kept.
    let mut many = facts(1000);
    many.namespaces[0].nft.as_mut().unwrap()[0].more = 16;
    let needed = self::found(&many, None);
    let needed = of(&needed, "needed_by");
    assert!(needed.title.starts_with("17 rules"), "{}", needed.title);
    assert!(needed.fixes[0].expect.starts_with("16 more"), "{needed:?}");
}

#[test]
fn nothing_is_removed_that_has_an_owner() {
    let mut facts = facts(1000);
    facts.namespaces[0].nft.as_mut().unwrap()[0].chain("ufw-before-input");
    let found = found(&facts, None);
    let needed = of(&found, "needed_by");
    assert!(needed.fixes.is_empty(), "{needed:?}");
    assert!(needed.evidence.join("\n").contains("those of ufw (chain ufw-before-input)"));
    let all = format!("{found:?}");
    assert!(!all.contains("flush"), "{all}");
}

#[test]
fn rules_of_iptables_are_removed_by_its_own_tool() {
    let mut facts = facts(1000);
    let mut table = RuleTable::new(Framework::Legacy, "ip", "filter".to_owned());
    table.add(Some(RuleUse {
        chain: "FORWARD".to_owned(),
        number: 1,
        by: vec!["-m conntrack".to_owned()],
        notrack: false,
        on_invalid: None,
        packets: None,
    }));
    let rule = Rule { number: 1, conditions: Vec::new(), act: Act::Accept, comment: None };
    table.keep("FORWARD", rule);
    facts.namespaces[0].nft = Ok(Vec::new());
    facts.namespaces[0].legacy = Ok(vec![table]);
    let without = found(&facts, None);
    let needed = of(&without, "needed_by");
    assert!(needed.fixes.is_empty(), "{needed:?}");
    assert!(needed.evidence.join("\n").contains("iptables-legacy-save is not installed"));
    for tool in ["iptables-legacy-save", "iptables-legacy-restore"] {
        facts.tools.there.push(tool.to_owned());
    }
    let with = found(&facts, None);
    let fix = &of(&with, "needed_by").fixes[0];
    let file = "/root/ctwatch-now-1-filter.iptables-legacy";
    assert_eq!(fix.now, [format!("iptables-legacy-restore -n -T filter < {file}.remove")]);
    assert_eq!(fix.undo[1], format!("iptables-legacy-restore -n -c -T filter < {file}.undo"));
    let tests = fix.save.iter().filter(|line| line.contains("iptables-legacy-restore --test -n"));
    assert_eq!(tests.count(), 2, "{fix:?}");
    assert!(fix.save[1].contains(r#"d["FORWARD 1"]="conntrack|state""#), "{fix:?}");
}

#[test]
fn where_a_setting_may_not_be_written_it_says_where_it_may() {
    let mut facts = facts(1000);
    facts.limit_is = Writable::OtherNamespace;
    let found = found(&facts, None);
    let raise = &of(&found, "table_full").fixes[0];
    assert!(raise.now.is_empty() && raise.files.is_empty() && raise.undo.is_empty(), "{raise:?}");
    let elsewhere = raise.elsewhere.as_ref().unwrap();
    assert!(elsewhere.commands[1].ends_with("nf_conntrack_max=2048"), "{raise:?}");
    assert!(elsewhere.place.starts_with("only the first network namespace"), "{raise:?}");
}

#[test]
fn a_setting_that_somebody_else_sets_has_no_file() {
    let mut facts = facts(1000);
    facts.namespaces[0].nft.as_mut().unwrap()[0].chain("KUBE-SERVICES");
    let found = found(&facts, None);
    let raise = &of(&found, "table_full").fixes[0];
    assert!(raise.files.is_empty(), "{raise:?}");
    assert!(raise.lasts.iter().any(|line| line.contains("conntrack.maxPerCore")), "{raise:?}");
    assert_eq!(raise.now.len(), 2, "until then it helps: {raise:?}");
}

#[test]
fn look_alikes_are_called_by_their_own_names() {
    let totals = |insert_failed, drop, chaintoolong| {
        Ok(Totals { insert_failed, drop, chaintoolong, ..Totals::default() })
    };
    let mut chains = facts(500);
    chains.namespaces[0].totals = totals(9, 0, Some(9));
    assert_eq!(ids(&chains), ["chain_too_long"]);
    assert!(found(&chains, None)[0].fixes[0].now[0].ends_with("nf_conntrack_buckets=1024"));

    let mut expectations = facts(10);
    expectations.namespaces[0].expectations = Ok(60);
    assert_eq!(ids(&expectations), ["expectations_full"]);
    let mut logged = facts(10);
    logged.log = Ok(KernelLog {
        expectations_full: FullLines { lines: 1, last: 90 },
        read: None,
        ..KernelLog::default()
    });
    assert_eq!(ids(&logged), ["expectations_full"]);
    assert_eq!(found(&logged, None)[0].severity, Severity::Info, "that may be long ago");

    let mut ports = facts(10);
    ports.namespaces[0].totals = totals(9, 9, Some(0));
    assert!(ids(&ports).is_empty(), "nothing is translated");
    ports.namespaces[0].nft = Ok(vec![rules("nat", &[("masquerade", false)])]);
    assert_eq!(ids(&ports), ["nat_exhausted"]);

    let mut memory = facts(10);
    memory.log = Ok(KernelLog { no_memory: 1, ..KernelLog::default() });
    assert_eq!(ids(&memory), ["no_memory"]);

    let mut invalid = facts(10);
    invalid.namespaces[0].totals = Ok(Totals { invalid: 3, ..Totals::default() });
    invalid.namespaces[0].nft = Ok(vec![invalid_rule("ct state", Some(3))]);
    assert_eq!(ids(&invalid), ["invalid_rule"]);
    invalid.namespaces[0].nft = Ok(vec![invalid_rule("ct state", Some(0))]);
    assert!(ids(&invalid).is_empty(), "it has dropped nothing");
}

#[test]
fn settings_that_are_written_down_and_not_in_force() {
    let setting = |file: &str, name: &str, value: &str| Setting {
        file: file.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut facts = facts(10);
    facts.settings = vec![
        setting("/etc/sysctl.d/a", "nf_conntrack_max", "5"),
        setting("/etc/sysctl.d/b", "nf_conntrack_max", "1000"),
        setting("/etc/sysctl.d/b", "nf_conntrack_udp_timeout", "x"),
    ];
    assert!(ids(&facts).is_empty(), "the last one wins");
    facts.settings.push(setting("/etc/sysctl.d/c", "nf_conntrack_tcp_timeout_time_wait", "60"));
    let found = found(&facts, None);
    let lost = of(&found, "lost_at_boot");
    assert_eq!(
        lost.fixes[0].now,
        ["sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=60"]
    );
    assert!(lost.fixes[0].undo[0].ends_with("=120"), "{lost:?}");
}

#[test]
fn what_could_not_be_read_is_unknown_and_why() {
    let mut facts = facts(10);
    facts.namespaces[0].entries = Err("no answer".to_owned());
    let found = found(&facts, None);
    assert_eq!(found[0].id, "unknown");
    assert!(found[0].evidence[0].ends_with("because no answer"), "{found:?}");
    facts.limit = Err("cannot read it".to_owned());
    assert_eq!(ids(&facts), ["unknown"]);
}

#[test]
fn a_namespace_is_entered_by_its_name_whatever_that_is() {
    let taken = census();
    let mut facts = facts(1000);
    facts.namespaces[0].name = Some("a'; reboot #".to_owned());
    let here = found(&facts, Some(&taken));
    assert!(of(&here, "top_talkers").fixes[0].now[0].starts_with("nft -f -"), "it is typed there");
    facts.namespaces[0].is_own = false;
    let without = found(&facts, Some(&taken));
    assert!(of(&without, "top_talkers").fixes.is_empty(), "nothing leads into it");
    facts.namespaces[0].pid = Some(4711);
    let by_process = found(&facts, Some(&taken));
    let fix = &of(&by_process, "top_talkers").fixes[0];
    assert!(fix.now[0].starts_with("nsenter -t 4711 -n nft -f - <<"), "{fix:?}");
    facts.namespaces[0].by_ip = true;
    let with = found(&facts, Some(&taken));
    let fix = &of(&with, "top_talkers").fixes[0];
    assert!(fix.now[0].starts_with(r"ip netns exec 'a'\''; reboot #' nft -f -"), "{fix:?}");
    assert!(fix.files.is_empty(), "a file would be the host's");
}

#[test]
fn two_full_tables_want_one_limit() {
    let mut facts = facts(1000);
    facts.namespaces.push(Namespace { id: 2, name: None, ..namespace(3000) });
    let found = found(&facts, None);
    let limits: Vec<_> = found.iter().filter(|finding| finding.id == "table_full").collect();
    let [one, other] = limits[..] else { panic!("{found:?}") };
    assert_eq!(one.fixes[0].now, other.fixes[0].now);
    assert!(one.fixes[0].now.iter().any(|line| line.ends_with("nf_conntrack_max=8192")), "{one:?}");
}

#[test]
fn a_file_that_is_read_later_is_named() {
    let mut facts = facts(1000);
    facts.settings.push(Setting {
        file: "/etc/sysctl.d/99-admin.conf".to_owned(),
        name: "nf_conntrack_max".to_owned(),
        value: "1000".to_owned(),
    });
    let found = found(&facts, None);
    let expect = &of(&found, "table_full").fixes[0].expect;
    assert!(expect.contains("99-admin.conf comes later"), "{expect}");
}

#[test]
fn buckets_fill_whole_pages() {
    let mut facts = facts(10);
    facts.buckets = Ok(1024);
    for (value, is_lost) in [("1000", false), ("1024", false), ("1025", true)] {
        facts.settings = vec![Setting {
            file: "/etc/sysctl.d/c.conf".to_owned(),
            name: "nf_conntrack_buckets".to_owned(),
            value: value.to_owned(),
        }];
        assert_eq!(ids(&facts).contains(&"lost_at_boot"), is_lost, "{value}");
    }
}

#[test]
fn another_namespace_of_that_name_is_not_the_host() {
    let mut other = namespace(10);
    assert!(other.is_host());
    other.by_ip = true;
    assert!(!other.is_host());
}

#[test]
fn a_table_with_anything_in_it_is_not_deleted() {
    let mut facts = facts(10);
    let mut table = RuleTable::new(Framework::Nft, "ip", "nat".to_owned());
    table.nat_chains = vec!["PREROUTING".to_owned(), "POSTROUTING".to_owned()];
    for (chain, hook) in [("PREROUTING", "prerouting"), ("POSTROUTING", "postrouting")] {
        table.chain(chain).base = Some(Base::of(true, hook, -100));
    }
    facts.namespaces[0].nft = Ok(vec![table.clone()]);
    let all = found(&facts, None);
    let now = &of(&all, "tracking_for_nothing").fixes[0].now;
    assert_eq!(
        now[..2],
        ["nft delete chain ip nat PREROUTING", "nft delete chain ip nat POSTROUTING"],
    );
    assert!(now.iter().all(|line| !line.contains("delete table")), "{now:?}");
    // Rules that need no tracking are rules all the same.
    table.add(None);
    facts.namespaces[0].nft = Ok(vec![table]);
    let all = found(&facts, None);
    let fixes = &of(&all, "tracking_for_nothing").fixes;
    let now: Vec<&String> = fixes.iter().flat_map(|fix| &fix.now).collect();
    assert!(now.iter().all(|line| !line.contains("nft")), "{now:?}");
}
