//! From facts to findings: what is wrong, why, and what to do about it. Pure: no clock, no file, no
//! command is run. Each finding is a row of [`ROWS`]; adding one is adding one row.

pub use case::{Case, number};
use ctwatch_abi::NetnsId;
use report::Finding;

use crate::record::facts::{Facts, Namespace};

mod buckets;
mod case;
mod causes;
pub mod differences;
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
mod settings;
pub mod shell;
mod talk;
mod timeouts;
pub mod tracking;
pub mod undecided;

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
    grouped::grouped(each(case))
}

/// Of those, what is about one namespace, and what is about the host as a whole.
pub fn findings_about(case: &Case<'_>, netns: NetnsId) -> Vec<Finding> {
    let mut findings = each(case);
    findings.retain(|finding| finding.about.is_empty() || finding.about.contains(&netns));
    grouped::grouped(findings)
}

fn each(case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ROWS.iter().flat_map(|row| row(case)).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether any table is so full, or so many insertions failed, that it is worth counting what is
/// dropped, and why.
pub fn is_worth_counting(facts: &Facts) -> bool {
    let case = Case { facts, census: Err(""), live: None, settings: Default::default() };
    let worth = |n: &Namespace| case.is_full(n) || lookalikes::may_lack_ports(n);
    facts.namespaces.iter().any(worth)
}

#[cfg(test)]
pub(crate) mod cases;
