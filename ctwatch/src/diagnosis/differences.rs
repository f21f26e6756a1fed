//! What differs between two machines, or two moments of one: facts, and what is found by them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    case::{number, percent, so_many},
    report::Finding,
};
use crate::record::facts::{Facts, Form, Known, Namespace, RuleTable};

/// One thing that differs, as the first and the second have it; `None`: it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub what: String,
    pub first: Option<String>,
    pub second: Option<String>,
}

/// Facts of one side, and what was found by them.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub facts: &'a Facts,
    pub findings: &'a [Finding],
}

const UNKNOWN: &str = "unknown";

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn compare(&mut self, what: impl Into<String>, first: Option<String>, second: Option<String>) {
        if first != second {
            self.0.push(Difference { what: what.into(), first, second });
        }
    }

    fn known<T: ToString>(&mut self, what: impl Into<String>, of: [&Known<T>; 2]) {
        let word = |known: &Known<T>| known.as_ref().map_or(UNKNOWN.to_owned(), T::to_string);
        self.compare(what, Some(word(of[0])), Some(word(of[1])));
    }

    /// What either has, by its name.
    fn each<T>(&mut self, [first, second]: [BTreeMap<String, T>; 2], word: impl Fn(&T) -> String) {
        let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        for name in names {
            self.compare(name.clone(), first.get(name).map(&word), second.get(name).map(&word));
        }
    }
}

/// In the order in which they matter.
pub fn differences(first: Side<'_>, second: Side<'_>) -> Vec<Difference> {
    let mut all = Differences::default();
    let sides = [first, second];
    let found = sides.map(|side| {
        let titles =
            side.findings.iter().map(|one| (format!("found: {}", one.id), one.title.clone()));
        titles.collect::<BTreeMap<String, String>>()
    });
    // Of one kind the titles hold figures of their own: that both have it is no difference.
    all.each(found.map(|found| found.into_keys().map(|id| (id, ())).collect()), |()| {
        "yes".to_owned()
    });
    let facts = sides.map(|side| side.facts);
    let [one, other] = facts;
    all.compare("kernel", Some(one.release.clone()), Some(other.release.clone()));
    let forms = facts.map(|facts| Some(form(facts.form).to_owned()));
    let [of_one, of_other] = forms;
    all.compare("nf_conntrack", of_one, of_other);
    all.known("nf_conntrack_max", facts.map(|facts| &facts.limit));
    all.known("nf_conntrack_buckets", facts.map(|facts| &facts.buckets));
    all.known("nf_conntrack_expect_max", facts.map(|facts| &facts.expect_max));
    if let [Ok(one), Ok(other)] = facts.map(|facts| &facts.modules) {
        let names = [one, other].map(|modules| {
            modules.iter().map(|module| (format!("module {}", module.name), ())).collect()
        });
        all.each(names, |()| "loaded".to_owned());
    }
    all.each(
        facts.map(|facts| {
            let settings = facts.settings.iter();
            let of = |one: &crate::record::facts::Setting| {
                (format!("{}: {}", one.file, one.name), one.value.clone())
            };
            settings.map(of).collect()
        }),
        String::clone,
    );
    let namespaces = facts.map(|facts| {
        facts.namespaces.iter().map(|one| (one.called(), one)).collect::<BTreeMap<_, _>>()
    });
    let names: BTreeSet<&String> = namespaces.iter().flat_map(BTreeMap::keys).collect();
    for name in names {
        match [namespaces[0].get(name), namespaces[1].get(name)] {
            [Some(one), Some(other)] => of_namespace(&mut all, name, facts, [*one, *other]),
            [one, other] => {
                let there = |of: Option<&&Namespace>| of.map(|_| "there".to_owned());
                all.compare(format!("namespace {name}"), there(one), there(other));
            }
        }
    }
    all.0
}

fn form(of: Form) -> &'static str {
    match of {
        Form::Absent => "not loaded",
        Form::BuiltIn => "built in",
        Form::Module => "a module",
        Form::Loaded => "loaded",
    }
}

fn of_namespace(
    all: &mut Differences,
    name: &str,
    facts: [&Facts; 2],
    [one, other]: [&Namespace; 2],
) {
    let fill = |facts: &Facts, of: &Namespace| match (&of.entries, &facts.limit) {
        (Ok(entries), Ok(limit @ 1..)) => {
            let share = percent(f64::from(*entries) / f64::from(*limit));
            format!("{} ({share})", number(*entries))
        }
        (Ok(entries), _) => number(*entries),
        (Err(_), _) => UNKNOWN.to_owned(),
    };
    let entries = [fill(facts[0], one), fill(facts[1], other)].map(Some);
    let [first, second] = entries;
    all.compare(format!("{name}: entries"), first, second);
    if let [Ok(first), Ok(second)] = [&one.totals, &other.totals] {
        for (counter, first, second) in [
            ("drop", first.drop, second.drop),
            ("early_drop", first.early_drop, second.early_drop),
            ("insert_failed", first.insert_failed, second.insert_failed),
            ("invalid", first.invalid, second.invalid),
        ] {
            all.compare(format!("{name}: {counter}"), Some(number(first)), Some(number(second)));
        }
    }
    all.each(
        [one, other].map(|of| {
            let timeouts = of.timeouts.iter();
            timeouts.map(|(timeout, value)| (format!("{name}: {timeout}"), *value)).collect()
        }),
        u32::to_string,
    );
    let tables = [one, other].map(|of| {
        let tables = of.rule_tables();
        let called = |table: &RuleTable| format!("{name}: table {} {}", table.family, table.name);
        tables.map(|table| (called(table), settled(table))).collect::<BTreeMap<_, _>>()
    });
    let names: BTreeSet<&String> = tables.iter().flat_map(BTreeMap::keys).collect();
    for table in names {
        let [one, other] = [tables[0].get(table), tables[1].get(table)];
        if one == other {
            continue;
        }
        let rules = |of: Option<&RuleTable>| of.map(|table| so_many(table.rules, "rule", "rules"));
        let (first, second) = (rules(one), rules(other));
        let is_same = first == second;
        let second = if is_same { second.map(|words| format!("{words}, others")) } else { second };
        all.compare(table.clone(), first, second);
    }
}

/// Without what only counts or numbers.
fn settled(table: &RuleTable) -> RuleTable {
    let mut table = table.clone();
    (table.uses, table.state_sets, table.by_place) = (Vec::new(), Vec::new(), false);
    let rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules);
    rules.for_each(|rule| rule.number = 0);
    table
}

#[cfg(test)]
mod tests {
    use super::{
        super::cases::{facts, found},
        *,
    };

    #[test]
    fn what_differs_is_said_of_both() {
        let (calm, mut full) = (facts(10), facts(1000));
        full.limit = Ok(1000);
        full.buckets = Ok(512);
        full.modules.as_mut().unwrap().pop();
        full.namespaces[0].timeouts.clear();
        full.namespaces[0].nft.as_mut().unwrap()[0].rules = 5;
        let of = [found(&calm, None), found(&full, None)];
        let side = |facts, findings| Side { facts, findings };
        let same = differences(side(&calm, &of[0]), side(&calm, &of[0]));
        assert_eq!(same, []);
        let all = differences(side(&calm, &of[0]), side(&full, &of[1]));
        let line = |what: &str| {
            let one = all.iter().find(|one| one.what == what);
            let one = one.unwrap_or_else(|| panic!("no {what} in {all:#?}"));
            (one.first.as_deref(), one.second.as_deref())
        };
        assert_eq!(line("found: table_full"), (None, Some("yes")));
        assert_eq!(line("nf_conntrack_buckets"), (Some("256"), Some("512")));
        assert_eq!(line("module iptable_nat"), (Some("loaded"), None));
        assert_eq!(line("host: entries"), (Some("10 (1%)"), Some("1,000 (100%)")));
        assert_eq!(line("host: nf_conntrack_udp_timeout"), (Some("30"), None));
        assert_eq!(line("host: table inet filter"), (Some("1 rule"), Some("5 rules")));
    }
}
