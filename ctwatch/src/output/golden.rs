//! Every view as a screen, from values: at 40, 80 and 200 columns, in tests/golden. A change of a screen is
//! a change of such a file, to be looked at. `UPDATE_EXPECT=1 cargo test -p ctwatch --lib golden` writes
//! them anew.

use std::{collections::BTreeSet, fmt::Write as _, io, time::Duration};

use ctwatch_abi::{
    top::{AF_INET, AF_INET6, By},
    trace::Event,
};
use expect_test::{ExpectFile, expect_file};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{
    DropLine,
    fixtures::{FIRST, header, incidents, loaded, several, taken_of_several},
    json,
    services::Services,
    text::{
        self,
        census::Shown,
        incident::Rendering,
        shown::ShownTops,
        watch::{Style, Text},
    },
};
use crate::{
    diagnosis::{
        Case, cases,
        differences::Difference,
        findings, measurement,
        report::{
            ConfigurationReport, Conntrack, Elsewhere, Finding, Fix, NotUnderstood, Offline,
            Report, Severity, Tracking, Undecided,
        },
        tracking,
    },
    model::{
        Snapshot,
        census::{Census, SEED, Taken},
        groups::Grouping,
        remembered::Since,
        top::Estimate,
        verdict::{
            self, judge,
            situations::{self, Situation, rt, table, unread},
        },
    },
    record::{
        facts::{Form, KernelLog},
        measurement::{Capability, Configuration, Measurement, Mechanism, Need, Offers, Signal},
        sample::{Named, Owner},
        workload::Workload,
    },
};

const SCHEMA: &str = include_str!("../../../docs/schema/v1.json");

const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

const WIDTHS: [usize; 3] = [40, 80, 200];

fn said(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The same at each width, each below a ruler. `may_be_wide`: lines that are never broken.
fn screens(file: ExpectFile, may_be_wide: impl Fn(&str) -> bool, screen: impl Fn(usize) -> String) {
    let mut all = String::new();
    for columns in WIDTHS {
        let screen = screen(columns);
        for line in screen.lines() {
            let fits = line.chars().count() <= columns || may_be_wide(line);
            assert!(fits, "wider than {columns} columns: {line}");
            assert!(line == line.trim_end(), "blanks at the end: {line:?}");
        }
        writeln!(all, "{:=<columns$}\n{screen}", format!("== {columns} ")).unwrap();
    }
    all.truncate(all.trim_end_matches('\n').len() + 1);
    file.assert_eq(&all);
}

fn services() -> Services {
    Services::parse("domain 53/udp\nhttps 443/tcp\nbgp 179/tcp\n")
}

fn style(columns: usize) -> Style {
    let by = vec![By::Source, By::Service, By::Interface];
    let tops = ShownTops { always: false, most: 3, by, services: services() };
    Style { columns, rows: 24, colour: false, zone: TimeZone::UTC, tops }
}

fn watched(columns: usize, snapshots: &[Snapshot]) -> String {
    let mut text = Text::new(style(columns));
    said(|out| {
        let (first, ticks) = snapshots.split_first().unwrap();
        text.start(out, &header(), FIRST, first)?;
        for tick in ticks {
            text.tick(out, tick)?;
        }
        let one = [loaded("nf_conntrack", Some("iptable_nat"))];
        for note in text::loading::notes(&one, &TimeZone::UTC) {
            text.note(out, &note)?;
        }
        text.note(out, &text::loading::untold(3))?;
        text.finish(out, ticks.last().unwrap_or(first))
    })
}

#[test]
fn watch_of_one_table_that_fills_and_recovers() {
    let [first, second] = super::fixtures::snapshots();
    screens(
        expect_file!["../../../tests/golden/watch-one.txt"],
        |_| false,
        |columns| watched(columns, &[first.clone(), second.clone()]),
    );
}

#[test]
fn watch_of_several_tables() {
    let snapshots = several();
    screens(
        expect_file!["../../../tests/golden/watch-several.txt"],
        |_| false,
        |columns| watched(columns, &snapshots),
    );
}

#[test]
fn incidents_as_a_list_and_one_by_one() {
    let incidents = incidents();
    let screen = |columns| {
        let rendering = Rendering { columns, zone: TimeZone::UTC, tops: style(columns).tops };
        said(|out| {
            text::incident::list(out, &incidents, 936, &rendering)?;
            incidents.iter().try_for_each(|one| text::incident::one(out, one, &rendering))?;
            text::incident::list(out, [], 0, &rendering)
        })
    };
    // An id is copied, and never broken.
    let is_id = |line: &str| line.trim_start().starts_with("5f0c");
    screens(expect_file!["../../../tests/golden/incidents.txt"], is_id, screen);
}

fn shown(columns: usize) -> Shown {
    Shown {
        columns,
        states: true,
        zones: true,
        groupings: vec![Grouping::Pod],
        most_groups: 10,
        services: services(),
        limit: Some(262_144),
    }
}

#[test]
fn census_of_several_tables() {
    let taken = taken_of_several();
    screens(
        expect_file!["../../../tests/golden/census.txt"],
        |_| false,
        |columns| said(|out| text::census::write(out, &taken, &shown(columns))),
    );
}

fn measured() -> Measurement {
    let mut offers = Offers::new();
    for need in Need::ALL {
        offers.set(need, Ok(()));
    }
    offers.set(Need::Fexit, Err("no BTF of the module nf_conntrack in /sys/kernel/btf".to_owned()));
    let options = [("CONFIG_DEBUG_INFO_BTF", "y"), ("CONFIG_NF_CONNTRACK", "m")];
    Measurement {
        kernel: "6.12.0".to_owned(),
        architecture: "x86_64",
        conntrack: Form::Module,
        capabilities: vec![
            Capability { name: "CAP_BPF", held: true, purpose: "load programs" },
            Capability { name: "CAP_SYS_ADMIN", held: false, purpose: "enter other namespaces" },
        ],
        configuration: Ok(Configuration {
            source: "/boot/config-6.12.0".to_owned(),
            options: options.map(|(name, value)| (name, value.to_owned())).into(),
        }),
        offers,
        chosen: vec![
            (Signal::Drops, Mechanism::Kprobe),
            (Signal::Insertions, Mechanism::Kprobe),
            (Signal::Removals, Mechanism::Kprobe),
            (Signal::Table, Mechanism::Ctnetlink),
        ],
        refused: vec!["no drops by fexit: no BTF of the module nf_conntrack".to_owned()],
        guards: Vec::new(),
    }
}

/// A table that is full, and who is dropped.
pub(super) fn report() -> Report {
    let (taken, live): (Taken, Snapshot) = (cases::census(), cases::refusing());
    let mut facts = cases::facts(1000);
    facts.log = Ok(KernelLog { table_full: 3, suppressed: 90, ..KernelLog::default() });
    let case =
        Case { facts: &facts, census: Ok(&taken), live: Some(&live), settings: Default::default() };
    Report {
        census: None,
        // Not this one: a release is no change of a screen.
        version: "0.0.0",
        tracking: tracking::tracking(&facts),
        findings: findings(&case),
        ..measurement::report(&measured())
    }
}

#[test]
fn doctor_of_a_full_table() {
    let report = report();
    // Commands and files are to be copied: those are never broken.
    let verbatim = |line: &str| line.starts_with("        ") || !line.starts_with(' ');
    screens(expect_file!["../../../tests/golden/doctor.txt"], verbatim, |columns| {
        said(|out| text::doctor::write(out, &report, columns))
    });
}

/// Two packets: one forwarded, one that this host sends itself in a namespace that is gone.
fn drops() -> [(Event, Named, Owner); 2] {
    let mut forwarded = Event {
        netns: 7,
        sport: 1024_u16.to_be(),
        dport: 53_u16.to_be(),
        protocol: 17,
        family: AF_INET,
        ifindex: 3,
        ..Event::default()
    };
    forwarded.src[..4].copy_from_slice(&[10, 1, 1, 1]);
    forwarded.dst[..4].copy_from_slice(&[10, 2, 2, 2]);
    let mut own = Event {
        netns: 8,
        sport: 40_000_u16.to_be(),
        dport: 179_u16.to_be(),
        protocol: 6,
        family: AF_INET6,
        reason: 1,
        pid: 42,
        ..Event::default()
    };
    (own.src[0], own.src[15], own.dst[0], own.dst[15]) = (0xfd, 1, 0xfd, 2);
    own.comm[..4].copy_from_slice(b"bird");
    let pod = Workload {
        pod: Some("coredns-0".to_owned()),
        namespace: Some("kube-system".to_owned()),
        container: None,
    };
    let named = Named {
        netns: Some("4711".to_owned()),
        workload: pod,
        inode: Some(4_026_532_246),
        interface: Some("eth0".to_owned()),
    };
    [(forwarded, named, Owner::Host), (own, Named::default(), Owner::User(1000))]
}

fn each_drop(mut write: impl FnMut(&DropLine<'_>) -> io::Result<()>) -> io::Result<()> {
    for (event, named, owner) in &drops() {
        let time = jiff::Timestamp::UNIX_EPOCH + Duration::from_micros(1_234_567);
        write(&DropLine { time, zone: &TimeZone::UTC, event, named, owner })?;
    }
    Ok(())
}

#[test]
fn trace_of_two_packets() {
    let lines = said(|out| {
        each_drop(|line| text::trace::line(out, line, &services()))?;
        text::trace::more(out, 54)?;
        text::trace::undecided(out, 2)?;
        text::trace::end(out, 2, 58)
    });
    expect_file!["../../../tests/golden/trace.txt"].assert_eq(&lines);
}

/// A line is not broken, however long: it is read by a program first.
#[test]
fn check_in_each_state() {
    let mut lines = String::new();
    let mut say = |situation: &Situation, column: usize| {
        let thresholds = situations::columns()[column];
        let verdict = judge(&situation.snapshot(), situation.uncounted, None, &thresholds);
        writeln!(lines, "{}", text::check::line(&verdict, &[])).unwrap();
    };
    let two = |one: u32| vec![rt(one, 0), table(2, "two", 20, 0)];
    say(&Situation::of(two(5), two(5)), 5);
    say(&Situation::of(two(800), two(800)), 1);
    say(&Situation::of(vec![rt(990, 0)], vec![rt(1000, 300)]), 5);
    say(&Situation::still(rt(600, 0)).pinned(500, None), 2);
    say(&Situation::of(vec![rt(0, 0)], vec![rt(100, 0)]), 4);
    say(&Situation::still(unread(1, "rt")), 5);
    let since = verdict::tests::dropped_since(Since::Counted(7));
    writeln!(lines, "{}", text::check::line(&since, &["a note".to_owned()])).unwrap();
    expect_file!["../../../tests/golden/check.txt"].assert_eq(&lines);
}

/// Each object over several lines: in its own order, and what holds no other object on one line.
fn pretty(line: &str) -> String {
    let bytes = line.as_bytes();
    // For each bracket that opens, where it closes, and whether others open in between.
    let (mut open, mut spans, mut in_string) = (Vec::new(), vec![None; bytes.len()], false);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => open.push((at, true)),
            b'}' | b']' if !in_string => {
                let (start, is_leaf) = open.pop().unwrap();
                spans[start] = Some((at, is_leaf));
                if let Some(around) = open.last_mut() {
                    around.1 = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    let (mut out, mut indent, mut at, mut in_string) = (String::new(), 0, 0, false);
    while at < bytes.len() {
        let character = bytes[at];
        match character {
            b'\\' if in_string => {
                out.push_str(&line[at..at + 2]);
                at += 2;
                continue;
            }
            b'"' => in_string = !in_string,
            _ => {}
        }
        match (character, spans[at]) {
            (b'{' | b'[', Some((end, true))) => {
                out.push_str(&line[at..=end]);
                at = end;
            }
            (b'{' | b'[', Some(_)) => {
                indent += 2;
                write!(out, "{}\n{:indent$}", char::from(character), "").unwrap();
            }
            (b'}' | b']', _) if !in_string => {
                indent -= 2;
                write!(out, "\n{:indent$}{}", "", char::from(character)).unwrap();
            }
            (b',', _) if !in_string => write!(out, ",\n{:indent$}", "").unwrap(),
            _ => {
                let whole = line[at..].chars().next().unwrap();
                out.push(whole);
                at += whole.len_utf8() - 1;
            }
        }
        at += 1;
    }
    out
}

fn objects(file: ExpectFile, lines: &str) {
    let pretty: Vec<String> = lines.lines().map(pretty).collect();
    for (line, pretty) in lines.lines().zip(&pretty) {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(line), read(pretty));
    }
    file.assert_eq(&(pretty.join("\n") + "\n"));
}

/// What `ctwatch watch --output json` prints for two ticks of several tables.
fn watch_objects() -> String {
    let [_, ticks @ ..] = &several()[..] else { panic!("no tick") };
    let loaded = [loaded("nf_conntrack", Some("iptable_nat"))];
    said(|out| {
        ticks.iter().try_for_each(|tick| {
            json::watch::write(out, &header(), FIRST, tick, Some((NOW, loaded.iter())))
        })
    })
}

/// With an estimate in its first list.
fn estimated_object() -> String {
    let mut ticks = several();
    let mut tick = ticks.remove(1);
    let list = tick.tables.iter_mut().find_map(|table| table.top.first_mut());
    let entry = list.and_then(|list| list.entries.first_mut()).unwrap();
    entry.estimate = Some(Estimate {
        at_least: 1000,
        at_most: 1400,
        proven_at_least: 300,
        proven_at_most: Some(1783),
    });
    let none = None::<(jiff::Timestamp, std::slice::Iter<'_, _>)>;
    said(|out| json::watch::write(out, &header(), FIRST, &tick, none))
}

fn census_object() -> String {
    let by = [Grouping::Pod, Grouping::Namespace];
    let taken = taken_of_several();
    said(|out| json::census::write(out, &taken, &by, Some(262_144), "6.12.0", NOW))
}

fn doctor_object() -> String {
    said(|out| json::doctor::write(out, &report()))
}

fn trace_objects() -> String {
    said(|out| {
        each_drop(|line| json::trace::line(out, line))?;
        json::trace::more(out, 54)?;
        json::trace::undecided(out, 2)?;
        json::trace::end(out, 2, 58)
    })
}

fn incident_objects() -> String {
    said(|out| incidents().iter().try_for_each(|one| json::incident::write(out, one)))
}

#[test]
fn objects_of_incidents() {
    objects(expect_file!["../../../tests/golden/incident.json"], &incident_objects());
}

#[test]
fn objects_of_watch() {
    objects(expect_file!["../../../tests/golden/watch.json"], &watch_objects());
}

#[test]
fn objects_of_census() {
    objects(expect_file!["../../../tests/golden/census.json"], &census_object());
}

#[test]
fn objects_of_doctor() {
    objects(expect_file!["../../../tests/golden/doctor.json"], &doctor_object());
}

#[test]
fn objects_of_trace() {
    objects(expect_file!["../../../tests/golden/trace.json"], &trace_objects());
}

/// docs/schema/v1.json describes these objects: each key of theirs, and no other.
#[test]
fn the_schema_is_what_is_printed() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let lines = [
        watch_objects(),
        said(|out| json::top::write(out, &several()[1])),
        estimated_object(),
        said(|out| json::census::write(out, &no_census(), &[], None, "6.12.0", NOW)),
        census_object(),
        doctor_object(),
        said(|out| json::doctor::write(out, &everything())),
        said(|out| json::doctor::write(out, &offline())),
        said(|out| {
            let one = offline().offline;
            json::differences::write(out, [one.as_ref(), one.as_ref()], &differing())
        }),
        trace_objects(),
        incident_objects(),
    ];
    let mut checked = Checked { schema: &schema, seen: BTreeSet::new() };
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        let object: Value = serde_json::from_str(line).unwrap();
        let kind = object["type"].as_str().unwrap().to_owned();
        checked.check(&object, &format!("/$defs/{kind}"), &kind);
    }
    let mut described = BTreeSet::new();
    properties(&schema["$defs"], "/$defs", &mut described);
    let unseen: Vec<_> = described.difference(&checked.seen).collect();
    assert!(unseen.is_empty(), "described, and in no object here: {unseen:?}");
}

/// Every property that the schema has, by its pointer.
fn properties(node: &Value, at: &str, all: &mut BTreeSet<String>) {
    if let Some(of) = node["properties"].as_object() {
        all.extend(of.keys().map(|key| format!("{at}/properties/{key}")));
    }
    match node {
        Value::Object(of) => of.iter().for_each(|(k, v)| properties(v, &format!("{at}/{k}"), all)),
        Value::Array(of) => {
            of.iter().enumerate().for_each(|(k, v)| properties(v, &format!("{at}/{k}"), all));
        }
        _ => {}
    }
}

/// As much of JSON Schema as that one uses.
struct Checked<'a> {
    schema: &'a Value,
    /// Properties that occurred, by their pointer.
    seen: BTreeSet<String>,
}

impl Checked<'_> {
    fn check(&mut self, value: &Value, at: &str, path: &str) {
        let schema = self.schema;
        let node = schema.pointer(at).unwrap_or_else(|| panic!("no {at}"));
        if let Some(to) = node["$ref"].as_str() {
            return self.check(value, to.trim_start_matches('#'), path);
        }
        if let Some(any) = node["anyOf"].as_array() {
            let null = any.iter().position(|one| one["type"] == "null").unwrap();
            let other = usize::from(null == 0);
            let which = if value.is_null() { null } else { other };
            return self.check(value, &format!("{at}/anyOf/{which}"), path);
        }
        if let Some(all) = node["enum"].as_array() {
            assert!(all.contains(value), "{path} is {value}");
        }
        if !node["const"].is_null() {
            assert_eq!(node["const"], *value, "{path}");
        }
        let is = |name: &Value| match name.as_str() {
            Some("integer") => value.is_u64(),
            Some("number") => value.is_number(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some("null") => value.is_null(),
            _ => panic!("{at} has the type {name}"),
        };
        let fits = match &node["type"] {
            Value::Null => true,
            Value::Array(several) => several.iter().any(is),
            one => is(one),
        };
        assert!(fits, "{path} is {value}, and not {}", node["type"]);
        if let Some(items) = value.as_array() {
            for item in items {
                self.check(item, &format!("{at}/items"), &format!("{path}[]"));
            }
        }
        let Some(object) = value.as_object() else { return };
        if node["properties"].is_null() {
            return;
        }
        for required in node["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(required.as_str().unwrap()), "{path} has no {required}");
        }
        for (key, value) in object {
            let to = format!("{at}/properties/{}", key.replace('~', "~0").replace('/', "~1"));
            assert!(schema.pointer(&to).is_some(), "{path}.{key} is not in the schema");
            self.check(value, &to, &format!("{path}.{key}"));
            self.seen.insert(to);
        }
    }
}

/// Nothing was held.
fn no_census() -> Taken {
    let mut taken = taken_of_several();
    taken.kernel.clear();
    taken.counted = Census::new(&[], SEED).finish(0);
    taken
}

/// Of what other tools printed.
fn offline() -> Report {
    let offline = Offline {
        path: "sosreport-sw1".to_owned(),
        host: Some("sw1".to_owned()),
        time: None,
        read: [("conntrack -L", 2), ("sysctl -a", 1)].into(),
        not_recognised: 7,
        not_understood: vec![NotUnderstood {
            piece: "conntrack".to_owned(),
            line: 4,
            text: "tcp 6 \u{1b}".to_owned(),
            why: Some("it is cut off"),
        }],
        more_not_understood: 2,
        undecided: vec![Undecided {
            unknown: "the limit".to_owned(),
            findings: vec!["table_full", "table_filling"],
            command: "sysctl net.netfilter.nf_conntrack_max".to_owned(),
        }],
        notes: vec!["host: 5 packets were dropped between a and b".to_owned()],
    };
    Report {
        version: "0.0.0",
        conntrack: Conntrack::Unknown,
        offline: Some(offline),
        ..measurement::offline("6.12.0".to_owned(), Form::Loaded)
    }
}

fn differing() -> Vec<Difference> {
    let some = |text: &str| Some(text.to_owned());
    let of = |what: &str, first, second| Difference { what: what.to_owned(), first, second };
    vec![
        of("found: table_full", some("yes"), None),
        of("nf_conntrack_max", some("1000"), some("2000")),
    ]
}

#[test]
fn doctor_of_another_machine() {
    let (report, differences) = (offline(), differing());
    let verbatim = |line: &str| line.starts_with("        ");
    screens(expect_file!["../../../tests/golden/offline.txt"], verbatim, |columns| {
        said(|out| {
            text::doctor::write(out, &report, columns)?;
            text::differences::write(out, [&report, &report], &differences, columns)
        })
    });
}

/// What a report rarely has.
fn everything() -> Report {
    let finding = Finding {
        id: "x",
        severity: Severity::Info,
        title: String::new(),
        evidence: Vec::new(),
        fixes: vec![Fix {
            elsewhere: Some(Elsewhere { place: "the host".to_owned(), commands: Vec::new() }),
            ..Fix::default()
        }],
        about: Vec::new(),
    };
    let known = report();
    let mut namespaces = known.tracking.namespaces;
    for namespace in &mut namespaces {
        let some = |text: &str| Some(text.to_owned());
        let netns = &mut namespace.netns;
        (netns.pod, netns.namespace, netns.container) =
            (some("pod"), some("namespace"), some("container"));
    }
    Report {
        configuration: ConfigurationReport {
            source: None,
            why: Some("hidden".to_owned()),
            options: Default::default(),
        },
        tracking: Tracking { namespaces, ..known.tracking },
        findings: vec![finding],
        ..known
    }
}
