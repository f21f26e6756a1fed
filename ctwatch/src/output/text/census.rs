//! Who holds the table.

use std::{
    io::{self, Write},
    ops::Range,
};

use ctwatch_abi::NetnsId;

use super::{
    others::MOST_OWNERS,
    shares::shares,
    words::{called, owner, percent, talker},
    wrap::wrapped,
};
use crate::{
    model::{
        census::{self, KernelCount, StateCount, TableCensus, Taken, state_name},
        groups::{Group, Grouping, Key, groups},
        names::{protocol, word},
    },
    output::{
        escape::escaped,
        services::Services,
        taken::{LIMITS, elsewhere, tables, unlisted},
    },
};

/// What is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    pub columns: usize,
    pub states: bool,
    pub zones: bool,
    /// Tables by pod, over all network namespaces, each of at most so many lines.
    pub groupings: Vec<Grouping>,
    pub most_groups: usize,
    pub services: Services,
    /// `net.netfilter.nf_conntrack_max`; 0 is no limit.
    pub limit: Option<u32>,
}

/// What is told of each state, by how wide it may be.
struct Width {
    /// The name's.
    name: usize,
    /// How many are assured, and unreplied.
    details: bool,
    /// Which of [`LIMITS`].
    limits: Range<usize>,
    /// All that live longer.
    longer: Option<&'static str>,
}

impl Width {
    fn of(columns: usize) -> Self {
        let name = columns.saturating_sub(2 + 1 + 9 + 1 + 7).min(22);
        match columns {
            110.. => Self { name, details: true, limits: 0..5, longer: Some(">=1d") },
            74.. => Self { name, details: false, limits: 1..4, longer: Some(">=1h") },
            _ => Self { name, details: false, limits: 0..0, longer: None },
        }
    }
}

/// How wide the name in a list may be.
fn name_width(columns: usize) -> usize {
    columns.saturating_sub(4 + 1 + 10 + 1 + 7).min(43)
}

/// Of a number of entries: some are missing, or perhaps, and others counted twice.
fn mark(is_unlisted: bool, is_torn: bool) -> &'static str {
    match (is_unlisted, is_torn) {
        (_, true) => "~",
        (true, false) => ">=",
        (false, false) => "",
    }
}

pub fn write(out: &mut impl Write, taken: &Taken, shown: &Shown) -> io::Result<()> {
    let holds = taken.counted.holds();
    let tables = tables(taken);
    let mark = mark(unlisted(taken).next().is_some(), taken.kernel.iter().any(|of| of.is_torn));
    let mut lines = vec![format!(
        "{mark}{} entries in {} of {} namespaces, by {} in {:.3} s ({:.3} s of CPU)",
        holds.all(),
        tables.len() + elsewhere(taken).count(),
        taken.kernel.len() + elsewhere(taken).count(),
        taken.by,
        taken.took.as_secs_f64(),
        taken.cpu.as_secs_f64()
    )];
    lines.extend(taken.notes.iter().map(|note| format!("note: {}", escaped(note))));
    for (count, why) in unlisted(taken) {
        let name = name_of(count);
        lines.push(format!("not all entries of {} are counted: {}", escaped(&name), escaped(why)));
    }
    if taken.strayed > 0 {
        lines.push(format!(
            "{} chains changed while they were walked; entries of them may be missing",
            taken.strayed
        ));
    }
    if taken.counted.unplaced > 0 {
        lines.push(format!(
            "{} entries of namespaces beyond the first 16384",
            taken.counted.unplaced
        ));
    }
    for grouping in &shown.groupings {
        lines.extend(of_groups(&groups(taken, *grouping), *grouping, shown));
    }
    for (count, table) in tables.iter().filter(|(count, _)| count.is_judged) {
        lines.extend(of_table(taken, count, table, shown));
    }
    lines.extend(others(&tables));
    for table in elsewhere(taken) {
        lines.push(format!(
            "unreachable namespace (held by an open file only): {} entries, {}",
            table.holds.all(),
            shares(&table.holds)
        ));
    }
    for line in lines {
        wrapped(out, &line, shown.columns)?;
    }
    Ok(())
}

/// Namespaces of unprivileged users, a line for each owner, who holds most first.
fn others(tables: &[(&KernelCount, &TableCensus)]) -> Vec<String> {
    let mut others: Vec<_> = tables.iter().filter(|(count, _)| !count.is_judged).collect();
    others.sort_by_key(|(count, _)| count.owner.uid());
    let of_one = others.chunk_by(|(a, _), (b, _)| a.owner == b.owner);
    let mut lines: Vec<(u64, String)> = of_one
        .filter_map(|of| {
            let (fullest, table) = of.first()?;
            let all = of.iter().map(|(_, table)| table.holds.all()).sum();
            let namespaces = match of.len() {
                1 => "1 namespace".to_owned(),
                more => format!("{more} namespaces"),
            };
            let line = format!(
                "{}: {namespaces}, {}{all} entries; the fullest: {}, {}{}",
                owner(&fullest.owner),
                mark(
                    of.iter().any(|(count, _)| count.unlisted.is_some()),
                    of.iter().any(|(count, _)| count.is_torn)
                ),
                escaped(&name_of(fullest)),
                mark(fullest.unlisted.is_some(), fullest.is_torn),
                table.holds.all()
            );
            Some((all, line))
        })
        .collect();
    lines.sort_by_key(|(all, _)| std::cmp::Reverse(*all));
    let more = lines.len().saturating_sub(MOST_OWNERS);
    let mut lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    lines.truncate(MOST_OWNERS);
    if more > 0 {
        lines.push(format!("and namespaces of {more} more users"));
    }
    lines
}

fn name_of(count: &KernelCount) -> String {
    called(count.workload.shown(count.name.as_deref()).as_deref(), count.inode)
}

/// Pods, or namespaces of Kubernetes, who holds most first; all lines add up to all entries.
fn of_groups(groups: &[Group], by: Grouping, shown: &Shown) -> Vec<String> {
    if groups.iter().all(|group| group.key.is_none()) {
        return vec![format!("by {}: no pod is known to live in any of them", by.name())];
    }
    let all: u64 = groups.iter().map(|group| group.holds.all()).sum();
    let wide = name_width(shown.columns);
    let row = |name: &str, entries: u64| {
        let share = percent(Some(entries as f64 / all.max(1) as f64));
        row("  ", name, wide, &entries.to_string(), &share)
    };
    let (pods, rest): (Vec<&Group>, Vec<&Group>) =
        groups.iter().partition(|group| group.key.is_some());
    let mut lines =
        vec![format!("by {:<1$} {2:>10} {3:>7}", by.name(), wide - 1, "entries", "share")];
    for group in pods.iter().take(shown.most_groups) {
        let name = match &group.key {
            Some(Key { namespace, pod: Some(pod) }) => format!("{namespace}/{pod}"),
            Some(Key { namespace, pod: None }) => namespace.clone(),
            None => continue,
        };
        lines.extend(row(&escaped(&word(&name)), group.holds.all()));
    }
    let more = pods.get(shown.most_groups..).unwrap_or_default();
    if !more.is_empty() {
        let entries = more.iter().map(|group| group.holds.all()).sum();
        lines.extend(row(&format!("({} more)", more.len()), entries));
    }
    lines.extend(rest.iter().flat_map(|group| row("(no known pod)", group.holds.all())));
    lines
}

/// A name that is wider than its column has a line of its own: it is never cut.
fn row(indent: &str, name: &str, wide: usize, amount: &str, share: &str) -> Vec<String> {
    let (above, name) = match name.chars().count() > wide {
        true => (Some(format!("{indent}{name}")), ""),
        false => (None, name),
    };
    let row = format!("{indent}{name:<wide$} {amount:>10} {share:>7}");
    above.into_iter().chain([row]).collect()
}

/// Of one namespace, in few lines: how many entries, and of what kind; nothing where the census found none.
pub(crate) fn head(taken: &Taken, netns: NetnsId, limit: Option<u32>) -> Vec<String> {
    let tables = tables(taken);
    let of = tables.iter().find(|(count, _)| count.netns == netns);
    of.map_or_else(Vec::new, |(count, table)| head_of(taken, count, table, limit))
}

fn head_of(
    taken: &Taken,
    count: &KernelCount,
    table: &TableCensus,
    limit: Option<u32>,
) -> Vec<String> {
    let name = name_of(count);
    let entries = table.holds.all();
    let of = match limit {
        Some(limit) if limit > 0 => {
            format!(" of {limit} ({})", percent(Some(entries as f64 / f64::from(limit))))
        }
        _ => String::new(),
    };
    let mark = mark(count.unlisted.is_some(), count.is_torn);
    let mut lines = vec![
        format!("{}: {mark}{entries} entries{of}; {}", escaped(&name), difference(taken, count)),
        format!("  {}", shares(&table.holds)),
    ];
    if count.is_torn {
        lines.push(format!("  none of these numbers is exact: {}", census::TORN));
    }
    lines
}

fn of_table(taken: &Taken, count: &KernelCount, table: &TableCensus, shown: &Shown) -> Vec<String> {
    let entries = table.holds.all();
    let mut lines = head_of(taken, count, table, shown.limit);
    if shown.states {
        let width = Width::of(shown.columns);
        lines.push(state_header(&width));
        lines.extend(table.states.iter().map(|state| state_row(state, entries, &width)));
    }
    if shown.zones && table.zones.iter().any(|(zone, _)| *zone != 0) {
        let zones = table.zones.iter().take(10).map(|(zone, count)| format!("{zone} {count}"));
        lines.push(format!("  by zone: {}", zones.collect::<Vec<_>>().join("; ")));
    }
    let wide = name_width(shown.columns);
    for list in taken.counted.lists(count.netns) {
        let by = format!("by {}", list.by.name());
        lines.extend(row("  ", &by, wide + 2, "entries", "share"));
        for entry in &list.entries {
            let mark = if entry.error > 0 { "<=" } else { "" };
            let name = escaped(&talker(list.by, entry, &shown.services));
            let amount = format!("{mark}{}", entry.count);
            lines.extend(row("    ", &name, wide, &amount, &percent(entry.share)));
        }
    }
    lines
}

/// `the kernel counts the same`, `the kernel counts 12 more: …`
fn difference(taken: &Taken, count: &KernelCount) -> String {
    match taken.difference(count) {
        None => "the kernel's own count could not be read".to_owned(),
        Some((0, 0)) => "the kernel counts as many".to_owned(),
        Some((least, most)) if least == most && least < 0 => {
            format!("the kernel counts {} more", -least)
        }
        Some((least, most)) if least == most => format!("the kernel counts {least} fewer"),
        Some(_) => format!(
            "the kernel counted {} before and {} after",
            count.before.unwrap_or(0),
            count.after.unwrap_or(0)
        ),
    }
}

/// `tcp TIME_WAIT`, `udp`
pub(crate) fn state_label(of: u8, state: u8) -> String {
    let protocol = protocol(of);
    match state_name(of, state) {
        Some(name) => format!("{protocol} {name}"),
        None => protocol,
    }
}

fn state_header(width: &Width) -> String {
    let title = if width.limits.is_empty() { "by state" } else { "by state, time left" };
    let mut line = format!("  {title:<0$} {1:>9} {2:>7}", width.name, "entries", "share");
    if width.details {
        line += &format!(" {:>9} {:>9}", "assured", "unreplied");
    }
    let limits = LIMITS[width.limits.clone()].iter().copied().chain(width.longer);
    line.extend(limits.map(|name| format!("{name:>8}")));
    line
}

fn state_row(state: &StateCount, entries: u64, width: &Width) -> String {
    let all = state.holds.all();
    let name = state_label(state.protocol, state.state);
    let share = percent(Some(all as f64 / entries.max(1) as f64));
    let mut line = format!("  {name:<0$} {all:>9} {share:>7}", width.name);
    if width.details {
        let assured = state.holds.pinned + state.holds.closing;
        line += &format!(" {assured:>9} {:>9}", state.unreplied);
    }
    if state.lifetimes.unknown > 0 {
        return if width.limits.is_empty() { line } else { line + &format!("{:>8}", "-") };
    }
    let mut before = 0;
    for below in &state.lifetimes.below_limits()[width.limits.clone()] {
        line += &format!("{:>8}", below - before);
        before = *below;
    }
    if width.longer.is_some() {
        let timed = all.saturating_sub(state.holds.expired);
        line += &format!("{:>8}", timed.saturating_sub(before));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ctwatch_abi::top::{By, Key};
    use serde_json::Value;

    use super::*;
    use crate::output::json::census as json;
    use crate::record::sample::Owner;
    use crate::{
        model::census::{Census, SEED},
        record::entry::{Held, Left, Status},
    };

    fn taken() -> Taken {
        let mut census = Census::new(&[By::Source, By::Service], SEED);
        for number in 0..100_u32 {
            let mut key =
                Key { netns: 1, protocol: 6, dport: 179_u16.to_be(), family: 2, ..Key::default() };
            key.src[..4].copy_from_slice(&[10, 0, 0, u8::from(number > 20)]);
            let assured = number < 60;
            let status = Status(1 << 3 | if assured { 1 << 2 | 1 << 1 } else { 0 });
            let (state, seconds) = if assured { (3, 400_000) } else { (1, 100) };
            let left = Left::Seconds(seconds);
            census.enter(&Held { key, translated: key, status, state, zone: 7, left });
        }
        let kernel = KernelCount {
            workload: Default::default(),
            netns: 1,
            owner: Owner::Host,
            is_judged: true,
            inode: 77,
            name: Some("r\u{1b}t".to_owned()),
            before: Some(102),
            after: Some(102),
            unlisted: None,
            is_torn: false,
        };
        let none = KernelCount { netns: 2, before: Some(0), after: Some(0), ..kernel.clone() };
        Taken {
            by: "walk".into(),
            took: Duration::from_millis(41),
            cpu: Duration::from_millis(40),
            strayed: 2,
            kernel: vec![none, kernel],
            counted: census.finish(5),
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn a_census_as_a_tired_engineer_reads_it() {
        let shown = Shown {
            columns: 200,
            states: true,
            zones: true,
            groupings: Vec::new(),
            most_groups: 10,
            services: Services::default(),
            limit: Some(200),
        };
        let mut out = Vec::new();
        write(&mut out, &taken(), &shown).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "100 entries in 1 of 2 namespaces, by walk in 0.041 s (0.040 s of CPU)",
                "note: a note",
                "2 chains changed while they were walked; entries of them may be missing",
                "r\\u{1b}t: 100 entries of 200 (50.0%); the kernel counts 2 more",
                "  60 pinned (60.0%), 0 closing (0.0%), 40 reclaimable (40.0%)",
            ]
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(lines[6]),
            ["tcp", "ESTABLISHED", "60", "60.0%", "60", "0", "0", "0", "0", "0", "0", "60"]
        );
        assert_eq!(words(lines[7])[6..], ["0", "0", "40", "0", "0", "0"]);
        assert!(text.contains("by zone: 7 100"), "{text}");
        assert!(words(lines[10]) == ["10.0.0.1", "79", "79.0%"], "{text}");
    }

    #[test]
    fn a_torn_list_is_marked_where_its_figures_are() {
        let shown = Shown {
            columns: 200,
            states: false,
            zones: false,
            groupings: Vec::new(),
            most_groups: 10,
            services: Services::default(),
            limit: Some(200),
        };
        let of = |is_torn, unlisted: Option<&str>| {
            let mut taken = taken();
            taken.kernel[1].is_torn = is_torn;
            taken.kernel[1].unlisted = unlisted.map(str::to_owned);
            let (mut as_text, mut as_json) = (Vec::new(), Vec::new());
            write(&mut as_text, &taken, &shown).unwrap();
            json::write(&mut as_json, &taken, &[], None, "6.1.0", jiff::Timestamp::UNIX_EPOCH)
                .unwrap();
            let object: Value = serde_json::from_slice(&as_json).unwrap();
            (String::from_utf8(as_text).unwrap(), object["tables"][0]["inexact"].clone())
        };
        const WHY: &str = "  none of these numbers is exact: its entries changed while";
        let (whole, inexact) = of(false, None);
        assert!(whole.starts_with("100 entries") && whole.contains("t: 100 entries"), "{whole}");
        assert!(!whole.contains(WHY) && inexact.is_null(), "{whole}");
        let (torn, inexact) = of(true, None);
        assert!(torn.starts_with("~100 entries") && torn.contains("t: ~100 entries"), "{torn}");
        assert!(torn.contains(WHY), "{torn}");
        assert_eq!(inexact, census::TORN);
        let (part, _) = of(false, Some("cut off"));
        assert!(part.starts_with(">=100 entries") && part.contains("t: >=100 entries"), "{part}");
    }

    #[test]
    fn a_strangers_torn_list_is_marked_too() {
        let mut taken = taken();
        taken.kernel[1].is_torn = true;
        taken.kernel[1].is_judged = false;
        taken.kernel[1].owner = Owner::User(1000);
        let lines = others(&tables(&taken));
        assert_eq!(lines, ["uid 1000: 1 namespace, ~100 entries; the fullest: r\\u{1b}t, ~100"]);
    }

    #[test]
    fn entries_by_pod_add_up_in_text_and_json() {
        let mut taken = taken();
        let shown = |columns| Shown {
            columns,
            states: false,
            zones: false,
            groupings: vec![Grouping::Pod, Grouping::Namespace],
            most_groups: 10,
            services: Services::default(),
            limit: Some(200),
        };
        let said = |taken: &Taken, columns| {
            let mut out = Vec::new();
            write(&mut out, taken, &shown(columns)).unwrap();
            String::from_utf8(out).unwrap()
        };
        let unknown = said(&taken, 200);
        assert!(unknown.contains("by pod: no pod is known to live in any of them"), "{unknown}");
        let asked = |taken: &Taken, groupings: &[Grouping]| -> Value {
            let mut out = Vec::new();
            let time = jiff::Timestamp::UNIX_EPOCH;
            json::write(&mut out, taken, groupings, None, "6.1.0", time).unwrap();
            serde_json::from_slice(&out).unwrap()
        };
        assert_eq!(asked(&taken, &[Grouping::Pod])["groups"][0]["key"], Value::Null);
        assert!(asked(&taken, &[]).get("groups").is_none(), "it was not asked for");
        // A name that a machine made gives way; the name in JSON stays.
        let name = "cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d";
        let count = taken.kernel.iter_mut().find(|count| count.netns == 1).unwrap();
        count.name = Some(name.to_owned());
        count.workload.pod = Some("co\u{1b}re".to_owned());
        count.workload.namespace = Some("kube".to_owned());
        let known = said(&taken, 200);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = known.lines().map(words).collect();
        let place = |first: &str| {
            let at = lines.iter().position(|line| line[0] == first);
            at.unwrap_or_else(|| panic!("no {first} in {known}"))
        };
        assert_eq!(lines[place("\"kube/co\\u{1b}re\"")][1..], ["100", "100.0%"], "{known}");
        assert_eq!(lines[place("kube")][1..], ["100", "100.0%"], "{known}");
        assert!(known.contains("kube/co\\u{1b}re: 100 entries of 200"), "{known}");
        assert!(!known.contains('\u{1b}') && !known.contains("cni-"), "{known}");
        let narrow = said(&taken, 44);
        let rows = narrow.lines().filter(|line| line.ends_with("100.0%"));
        assert!(rows.clone().count() >= 2 && rows.clone().all(|row| row.len() <= 44), "{narrow}");
        let object = asked(&taken, &[Grouping::Pod, Grouping::Namespace]);
        let (pod, namespace) = (&object["groups"][0], &object["groups"][1]);
        assert_eq!(
            (&pod["by"], &pod["entries"], &pod["tables"]),
            (&"pod".into(), &100.into(), &1.into())
        );
        assert_eq!(pod["key"], serde_json::json!({"namespace": "kube", "pod": "co\u{1b}re"}));
        assert_eq!(namespace["key"], serde_json::json!({"namespace": "kube"}));
        assert_eq!((&pod["pinned"], &pod["share"]), (&60.into(), &1.0.into()));
        let netns = &object["tables"][0]["netns"];
        assert_eq!((&netns["name"], &netns["namespace"]), (&name.into(), &"kube".into()));
        assert!(netns.get("container").is_none());
    }

    #[test]
    fn a_census_on_the_console_of_a_switch() {
        for columns in [200, 110, 109, 80, 74, 73, 48, 44, 40] {
            let shown = Shown {
                columns,
                states: true,
                zones: false,
                groupings: Vec::new(),
                most_groups: 10,
                services: Services::default(),
                limit: Some(200),
            };
            let mut out = Vec::new();
            write(&mut out, &taken(), &shown).unwrap();
            let text = String::from_utf8(out).unwrap();
            let rows = text.lines().filter(|line| line.contains('%') && !line.contains('('));
            let rows: Vec<&str> = rows.collect();
            assert!(rows.len() > 3, "no row is in two: {text}");
            assert!(rows.iter().all(|row| row.len() <= columns), "{columns}: {text}");
            let ends = |what: &str| {
                let row = rows.iter().find(|row| row.contains(what)).unwrap();
                row.split_whitespace().next_back().unwrap().to_owned()
            };
            let last = if columns < 74 { "60.0%" } else { "60" };
            assert_eq!(ends("ESTABLISHED"), last, "{columns}: {text}");
        }
    }

    #[test]
    fn a_census_as_json() {
        let mut out = Vec::new();
        json::write(
            &mut out,
            &taken(),
            &[Grouping::Pod],
            Some(200),
            "6.1.0",
            jiff::Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let object: Value = serde_json::from_slice(&out).unwrap();
        let table = &object["tables"][0];
        assert_eq!(object["entries"], 100);
        assert_eq!(table["pinned"], 60);
        assert_eq!(table["kernel"], serde_json::json!([102, 102]));
        assert_eq!(table["states"][1]["remaining_below"]["<10m"], 40);
        let holding = table["top"]["holding"].as_array().unwrap();
        assert_eq!(holding[0]["key"]["src"], "10.0.0.1");
        assert_eq!((&holding[0]["count"], &holding[0]["error"]), (&79.into(), &0.into()));
        assert_eq!(table["netns"]["inode"], 77);
    }
}
