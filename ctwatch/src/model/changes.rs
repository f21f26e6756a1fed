//! What changed on a machine from one look at it to the next: rules, settings, modules, namespaces. Pure.

use std::collections::BTreeMap;

use crate::record::facts::{Facts, Known, Namespace, RuleTable};

/// In words, each change once. What only counts (entries, packets, log lines) is none.
pub fn changes(before: &Facts, after: &Facts) -> Vec<String> {
    let mut changes = Vec::new();
    let mut value = |name: &str, before: &Known<u32>, after: &Known<u32>| {
        if let (Ok(before), Ok(after)) = (before, after)
            && before != after
        {
            changes.push(format!("{name} {before} -> {after}"));
        }
    };
    value("nf_conntrack_max", &before.limit, &after.limit);
    value("nf_conntrack_buckets", &before.buckets, &after.buckets);
    value("nf_conntrack_expect_max", &before.expect_max, &after.expect_max);
    modules(before, after, &mut changes);
    let files = |facts: &Facts| {
        let of = |setting: &crate::record::facts::Setting| {
            (setting.file.clone(), setting.name.clone(), setting.value.clone())
        };
        facts.settings.iter().map(of).collect::<Vec<_>>()
    };
    for (file, name, value) in files(after).into_iter().filter(|of| !files(before).contains(of)) {
        changes.push(format!("{file} says {name}={value}"));
    }
    let by_id = |facts: &'_ Facts| -> BTreeMap<u64, usize> {
        (0..).zip(&facts.namespaces).map(|(at, namespace)| (namespace.id, at)).collect()
    };
    let known = by_id(before);
    for namespace in &after.namespaces {
        let then = known.get(&namespace.id).and_then(|at| before.namespaces.get(*at));
        match then.filter(|then| then.inode == namespace.inode) {
            Some(then) => of_namespace(then, namespace, &mut changes),
            None => changes.push(format!("{}: new", namespace.called())),
        }
    }
    let now = by_id(after);
    for namespace in before.namespaces.iter().filter(|one| !now.contains_key(&one.id)) {
        changes.push(format!("{}: gone", namespace.called()));
    }
    changes
}

fn modules(before: &Facts, after: &Facts, changes: &mut Vec<String>) {
    let (Ok(before), Ok(after)) = (&before.modules, &after.modules) else { return };
    for module in after.iter().filter(|now| !before.iter().any(|then| then.name == now.name)) {
        changes.push(format!("module {} was loaded", module.name));
    }
    for module in before.iter().filter(|then| !after.iter().any(|now| now.name == then.name)) {
        changes.push(format!("module {} was unloaded", module.name));
    }
}

fn of_namespace(before: &Namespace, after: &Namespace, changes: &mut Vec<String>) {
    let called = after.called();
    for (name, now) in &after.timeouts {
        if let Some(then) = before.timeouts.get(name).filter(|then| *then != now) {
            changes.push(format!("{called}: nf_conntrack_{name} {then} -> {now}"));
        }
    }
    for (by, before, after) in
        [("nft", &before.nft, &after.nft), ("iptables", &before.legacy, &after.legacy)]
    {
        let (Ok(before), Ok(after)) = (before, after) else { continue };
        rules(&called, by, before, after, changes);
    }
}

fn rules(
    called: &str,
    by: &str,
    before: &[RuleTable],
    after: &[RuleTable],
    changes: &mut Vec<String>,
) {
    let same = |one: &RuleTable, other: &RuleTable| {
        (&one.family, &one.name) == (&other.family, &other.name)
    };
    let table = |table: &RuleTable| format!("{called}: {by} table {} {}", table.family, table.name);
    for now in after {
        let words = match before.iter().find(|then| same(then, now)) {
            None => format!("is new, with {} rules", now.rules),
            Some(then) if settled(then) == settled(now) => continue,
            Some(then) if then.rules == now.rules => "has other rules".to_owned(),
            Some(then) => format!("has {} rules instead of {}", now.rules, then.rules),
        };
        changes.push(format!("{} {words}", table(now)));
    }
    for then in before.iter().filter(|then| !after.iter().any(|now| same(then, now))) {
        changes.push(format!("{} was removed", table(then)));
    }
}

/// Without what only counts.
fn settled(table: &RuleTable) -> RuleTable {
    let mut table = table.clone();
    table.uses.iter_mut().for_each(|rule| rule.packets = None);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::facts::{Framework, RuleUse, Setting};

    const RECORDED: &str = include_str!("../../../tests/fixtures/records/v1.ndjson");

    fn table(rules: u64, packets: u64) -> RuleTable {
        let mut table = RuleTable::new(Framework::Nft, "inet", "filter".to_owned());
        table.rules = rules;
        table.uses.push(RuleUse {
            chain: "input".to_owned(),
            number: 1,
            by: vec!["ct state".to_owned()],
            notrack: false,
            on_invalid: None,
            packets: Some(packets),
        });
        table
    }

    fn facts() -> Facts {
        let line = RECORDED.lines().find(|line| line.starts_with("{\"facts\"")).unwrap();
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut facts: Facts = serde_json::from_value(line["facts"].take()).unwrap();
        facts.namespaces.truncate(1);
        facts.namespaces[0].nft = Ok(vec![table(3, 7)]);
        facts.namespaces[0].legacy = Ok(Vec::new());
        facts
    }

    fn after(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut now = facts();
        change(&mut now);
        changes(&facts(), &now)
    }

    #[test]
    fn what_only_counts_is_no_change() {
        let none = after(|facts| {
            facts.namespaces[0].nft = Ok(vec![table(3, 8)]);
            facts.namespaces[0].entries = Ok(9);
            facts.log = Err("gone".to_owned());
            facts.namespaces[0].expectations = Ok(77);
        });
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn settings_and_modules_are_told() {
        let changes = after(|facts| {
            facts.limit = Ok(131_072);
            facts.namespaces[0].timeouts.insert("tcp_timeout_established".to_owned(), 3600);
            facts.modules = Ok(Vec::new());
            let (file, name) = ("/etc/sysctl.d/y.conf".to_owned(), "nf_conntrack_max".to_owned());
            facts.settings.push(Setting { file, name, value: "131072".to_owned() });
        });
        let has = |words: &str| changes.iter().any(|change| change.contains(words));
        assert!(has("nf_conntrack_max 65536 -> 131072"), "{changes:?}");
        assert!(has("module nf_conntrack was unloaded"), "{changes:?}");
        assert!(has("/etc/sysctl.d/y.conf says nf_conntrack_max=131072"), "{changes:?}");
    }

    #[test]
    fn rules_and_namespaces_are_told() {
        let of = |tables: Vec<RuleTable>| after(|facts| facts.namespaces[0].nft = Ok(tables));
        let called = facts().namespaces[0].called();
        let told = |words: &str| vec![format!("{called}: nft table inet filter {words}")];
        assert_eq!(of(Vec::new()), told("was removed"));
        assert_eq!(of(vec![table(4, 7)]), told("has 4 rules instead of 3"));
        let mut other = table(3, 7);
        other.uses[0].chain = "forward".to_owned();
        assert_eq!(of(vec![other]), told("has other rules"));
        let unread = after(|facts| facts.namespaces[0].nft = Err("no".to_owned()));
        assert!(unread.is_empty(), "what was not read is no change: {unread:?}");
        let gone = after(|facts| _ = facts.namespaces.remove(0));
        assert_eq!(gone, [format!("{called}: gone")]);
        let again = after(|facts| facts.namespaces[0].inode += 1);
        assert_eq!(again, [format!("{called}: new")]);
    }
}
