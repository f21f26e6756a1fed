//! From facts to findings: what is wrong, why, and what to do about it. Pure: no clock, no file, no
//! command is run. Each finding is a row of [`ROWS`]; adding one is adding one row.

use crate::{
    diagnosis::report::{Finding, Severity},
    model::{Snapshot, Table, census::Taken},
    record::facts::{Facts, Known, Namespace},
};

mod buckets;
mod causes;
mod fill;
mod fixes;
mod grouped;
mod incident;
mod lasting;
mod lookalikes;
pub mod measurement;
mod notrack;
mod others;
mod owners;
mod passage;
mod persistence;
mod removal;
pub mod report;
pub mod shell;
mod timeouts;
pub mod tracking;

/// All there is to go by.
pub struct Case<'a> {
    pub facts: &'a Facts,
    /// Who holds the tables; or why nobody knows.
    pub census: Result<&'a Taken, &'a str>,
    /// What was counted just now, where that was asked for.
    pub live: Option<&'a Snapshot>,
    /// Found out when it is first asked for: it takes a look at all rules.
    pub settings: owners::OfSettings,
}

/// What may be found.
type Row = fn(&Case<'_>) -> Vec<Finding>;

const ROWS: &[Row] = &[
    fill::table_full,
    fill::filling,
    incident::was_full,
    causes::bridges,
    causes::few_buckets,
    notrack::top_talkers,
    timeouts::timeouts,
    tracking::for_nothing,
    tracking::needed,
    lookalikes::chains,
    lookalikes::expectations,
    lookalikes::nat_ports,
    lookalikes::memory,
    lookalikes::allowances,
    lookalikes::invalid_rules,
    persistence::lost_at_boot,
    fill::unknown,
    others::in_trouble,
];

/// The worst first; among equals, what helps most.
pub fn findings(case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ROWS.iter().flat_map(|row| row(case)).collect();
    findings.sort_by_key(|finding| finding.severity);
    grouped::grouped(findings)
}

/// From here on a table counts as full: where it was, the kernel's collector throws entries out until
/// it is 95% full.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `gc_worker`
const FULL: f64 = 0.9;
/// And from here on as filling.
const MUCH: f64 = 0.75;

/// Whether any table is so full, or so many insertions failed, that it is worth counting what is
/// dropped, and why.
pub fn is_worth_counting(facts: &Facts) -> bool {
    let case = Case { facts, census: Err(""), live: None, settings: Default::default() };
    let worth = |n: &Namespace| case.is_full(n) || lookalikes::may_lack_ports(n);
    facts.namespaces.iter().any(worth)
}

impl Case<'_> {
    fn limit(&self) -> Option<u32> {
        self.facts.limit.as_ref().ok().copied().filter(|limit| *limit > 0)
    }

    /// Entries by limit.
    fn fill(&self, namespace: &Namespace) -> Option<f64> {
        self.fill_of(&namespace.entries)
    }

    fn fill_of(&self, entries: &Known<u32>) -> Option<f64> {
        let entries = entries.as_ref().ok()?;
        Some(f64::from(*entries) / f64::from(self.limit()?))
    }

    fn is_full(&self, namespace: &Namespace) -> bool {
        self.fill(namespace).is_some_and(|fill| fill >= FULL)
    }

    fn is_filling(&self, namespace: &Namespace) -> bool {
        self.fill(namespace).is_some_and(|fill| fill >= MUCH)
    }

    fn live(&self, namespace: &Namespace) -> Option<&Table> {
        let tables = &self.live?.tables;
        // They are in the order of their numbers.
        tables.get(tables.binary_search_by_key(&namespace.id, |table| table.id).ok()?)
    }
}

/// `1234567` as `1,234,567`.
fn number(of: impl Into<u64>) -> String {
    let digits = of.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 entry`, `2 entries`.
fn so_many(of: impl Into<u64>, one: &str, many: &str) -> String {
    match of.into() {
        1 => format!("1 {one}"),
        count => format!("{} {many}", number(count)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn finding(id: &'static str, severity: Severity, title: String) -> Finding {
    Finding { id, severity, title, evidence: Vec::new(), fixes: Vec::new() }
}

#[cfg(test)]
mod cases;
