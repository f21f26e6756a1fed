//! Numbers and names as text, with the marks that say how far to trust them.

use ctwatch_abi::top::By;

use crate::{
    model::{
        Table,
        figure::{Exactness, Figure},
        names::word,
        top::TopEntry,
    },
    output::{escape::escaped, services::Services},
    record::{sample::Owner, workload::Workload},
};

/// The name, or what stands for it.
pub(crate) fn name(table: &Table) -> String {
    shown_name(table.name.as_deref(), &table.workload, table.inode)
}

pub(super) fn shown_name(name: Option<&str>, workload: &Workload, inode: u32) -> String {
    workload.shown(name).map_or_else(|| called(None, inode), |name| word(&name))
}

pub(super) fn called(name: Option<&str>, inode: u32) -> String {
    name.map_or_else(|| format!("net:[{inode}]"), str::to_owned)
}

/// Escaped, and not wider than its column.
pub(super) fn shortened(name: &str, width: usize) -> String {
    let escaped = escaped(name);
    if escaped.chars().count() <= width {
        return escaped;
    }
    let mut short: String = escaped.chars().take(width.saturating_sub(1)).collect();
    short.push('~');
    short
}

/// `1783`, `<=1783`, `>=1783`, or `-` for what is not measured.
pub(crate) fn total(figure: &Figure) -> String {
    figure
        .total
        .map_or_else(|| "-".to_owned(), |total| marked(figure.exactness, &total.to_string()))
}

pub(crate) fn marked(exactness: Exactness, number: &str) -> String {
    match exactness {
        Exactness::Exact => number.to_owned(),
        Exactness::UpperBound => format!("<={number}"),
        Exactness::LowerBound => format!(">={number}"),
        Exactness::Estimated => format!("~{number}"),
        Exactness::Unavailable => "-".to_owned(),
    }
}

/// Whole from ten on; one decimal below.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

pub(crate) fn count(value: Option<u32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(crate) fn percent(fill: Option<f64>) -> String {
    fill.map_or_else(|| "-".to_owned(), |fill| format!("{:.1}%", fill * 100.0))
}

/// `+200`, `-0.3`, `0`
pub(crate) fn signed(trend: Option<f64>) -> String {
    match trend {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(trend) if trend < 0.0 => format!("-{}", number(-trend)),
        Some(trend) => format!("+{}", number(trend)),
    }
}

/// How long until the table is full: `3m20s`, or `FULL`.
pub(crate) fn time_to_full(table: &Table) -> String {
    if table.fill.is_some_and(|fill| fill >= 1.0) {
        return "FULL".to_owned();
    }
    table.time_to_full_s.map_or_else(|| "-".to_owned(), time)
}

/// `3m20s`
pub(super) fn time(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and the largest values saturate"
    )]
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        7_200..=172_799 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        172_800..=8_640_000 => format!("{}d", seconds / 86_400),
        _ => ">100d".to_owned(),
    }
}

/// Whose a namespace is.
pub(in crate::output) fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Host => "host".to_owned(),
        Owner::User(uid) => format!("uid {uid}"),
        Owner::Unknown(_) => "owner unknown".to_owned(),
    }
}

/// `200 of 200 entries, 1783 packets dropped so far (table_full), 17 entries evicted`
pub(super) fn state(table: &Table) -> String {
    let mut parts = Vec::new();
    match (table.entries, table.limit) {
        (Some(entries), Some(limit)) => parts.push(format!("{entries} of {limit} entries")),
        (Some(entries), None) => parts.push(format!("{entries} entries")),
        (None, _) => {}
    }
    let dropped = &table.drops.table_full;
    if dropped.total.is_some() {
        parts.push(format!("{} packets dropped so far (table_full)", total(dropped)));
    }
    let evicted = &table.evictions.early_drop;
    if evicted.total.is_some_and(|total| total > 0) {
        parts.push(format!("{} entries evicted", total(evicted)));
    }
    parts.join(", ")
}

/// Whoever an entry of a list is about.
pub(crate) fn talker(by: By, entry: &TopEntry, services: &Services) -> String {
    entry.name(by, |protocol, port| services.name(protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_their_mark() {
        let figure = |total, at_least, exactness| Figure {
            total: Some(total),
            at_least: Some(at_least),
            per_s: Some(total as f64),
            exactness,
        };
        assert_eq!(total(&figure(1783, 1783, Exactness::Exact)), "1783");
        assert_eq!(total(&figure(1783, 0, Exactness::UpperBound)), "<=1783");
        assert_eq!(total(&figure(17, 17, Exactness::LowerBound)), ">=17");
        let unknown =
            Figure { total: None, at_least: None, per_s: None, exactness: Exactness::Unavailable };
        assert_eq!(total(&unknown), "-");
    }
}
