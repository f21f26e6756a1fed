//! All that a finding goes by, and how its figures are written.

use super::{
    owners,
    report::{Finding, Severity},
};
use crate::{
    model::{Snapshot, Table, census::Taken},
    record::facts::{Facts, Known, Namespace},
};

/// From here on a table counts as full: where it was, the kernel's collector throws entries out until
/// it is 95% full.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `gc_worker`
pub(super) const FULL: f64 = 0.9;
/// And from here on as filling.
pub(super) const MUCH: f64 = 0.75;

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

impl Case<'_> {
    pub(super) fn limit(&self) -> Option<u32> {
        self.facts.limit.as_ref().ok().copied().filter(|limit| *limit > 0)
    }

    /// Entries by limit.
    pub(super) fn fill(&self, namespace: &Namespace) -> Option<f64> {
        self.fill_of(&namespace.entries)
    }

    pub(super) fn fill_of(&self, entries: &Known<u32>) -> Option<f64> {
        let entries = entries.as_ref().ok()?;
        Some(f64::from(*entries) / f64::from(self.limit()?))
    }

    pub(super) fn is_full(&self, namespace: &Namespace) -> bool {
        self.fill(namespace).is_some_and(|fill| fill >= FULL)
    }

    pub(super) fn is_filling(&self, namespace: &Namespace) -> bool {
        self.fill(namespace).is_some_and(|fill| fill >= MUCH)
    }

    pub(super) fn live(&self, namespace: &Namespace) -> Option<&Table> {
        let tables = &self.live?.tables;
        // Those that are judged come first, each kind in the order of their numbers.
        let judged = tables.partition_point(|table| table.is_judged);
        let (judged, others) = tables.split_at(judged);
        let find =
            |tables: &[Table]| tables.binary_search_by_key(&namespace.id, |table| table.id).ok();
        find(judged)
            .and_then(|at| judged.get(at))
            .or_else(|| find(others).and_then(|at| others.get(at)))
    }
}

/// `1234567` as `1,234,567`.
pub fn number(of: impl Into<u64>) -> String {
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
pub(super) fn so_many(of: impl Into<u64>, one: &str, many: &str) -> String {
    match of.into() {
        1 => format!("1 {one}"),
        count => format!("{} {many}", number(count)),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

pub(super) fn finding(id: &'static str, severity: Severity, title: String) -> Finding {
    Finding { id, severity, title, evidence: Vec::new(), fixes: Vec::new(), about: Vec::new() }
}

impl Finding {
    /// It is about these namespaces, and not about the host as a whole.
    pub(super) fn about<'a>(mut self, of: impl IntoIterator<Item = &'a Namespace>) -> Self {
        self.about = of.into_iter().map(|namespace| namespace.id).collect();
        self
    }
}
