//! What it came to, at the end: all totals, table by table.

use std::collections::HashSet;

use ctwatch_abi::NetnsId;

use super::{measure::Measure, others::others, shown::ShownTops, who, words, worst::worst};
use crate::{
    model::{
        Drops, Snapshot, Table,
        figure::{Exactness, Figure},
    },
    output::escape::escaped,
};

/// Namespaces of which all is said.
const MOST: usize = 100;

pub(super) fn lines(snapshot: &Snapshot, tops: &ShownTops) -> Vec<String> {
    let mut lines = vec![format!("--- {:.1} s watched", snapshot.elapsed.as_secs_f64())];
    let (mut quiet, mut unknown) = (0, 0);
    let departed = snapshot.departed.iter().map(|table| &**table);
    let all = departed.chain(&snapshot.tables);
    let mut tables: Vec<&Table> = all.filter(|table| table.is_judged).collect();
    tables.sort_by_key(|table| table.id);
    let tracking = tables.iter().copied().filter(|table| table.is_tracking()).collect();
    let (shown, more) = worst(tracking, MOST);
    let shown: HashSet<NetnsId> = shown.iter().map(|table| table.id).collect();
    for table in tables {
        if table.is_tracking() && !shown.contains(&table.id) {
            continue;
        }
        if !table.is_tracking() && table.is_unknown() {
            unknown += 1;
        } else if table.is_tracking() {
            lines.extend(of_table(table));
            let who = who::lines(table, tops, Measure::InAll);
            let held = who::holding(snapshot, table, tops);
            lines.extend(who.iter().chain(&held).map(|line| format!("  {}", escaped(line))));
        } else {
            quiet += 1;
        }
    }
    match more {
        0 => {}
        1 => lines.push("1 namespace more, less full or quieter (JSON shows all)".to_owned()),
        more => {
            lines.push(format!("{more} namespaces more, less full or quieter (JSON shows all)"));
        }
    }
    match quiet {
        0 => {}
        1 => lines.push("1 namespace tracked nothing".to_owned()),
        more => lines.push(format!("{more} namespaces tracked nothing")),
    }
    match unknown {
        0 => {}
        1 => lines.push("1 namespace could not be read: nothing is known of it".to_owned()),
        more => {
            lines.push(format!("{more} namespaces could not be read: nothing is known of them"));
        }
    }
    lines.extend(others(snapshot, |_| true, Measure::InAll));
    if snapshot.forgotten > 0 {
        lines.push(format!(
            "{} namespaces that are gone are not listed any more",
            snapshot.forgotten
        ));
    }
    if snapshot.unplaced_of_others > 0 {
        lines.push(format!(
            "{} events in namespaces of unprivileged users were not told apart: there were too many",
            snapshot.unplaced_of_others
        ));
    }
    if snapshot.lost > 0 {
        lines.push(format!("{} events were not seen by the probes", snapshot.lost));
    }
    lines
}

fn of_table(table: &Table) -> Vec<String> {
    let mut state = match (table.entries, table.limit) {
        (Some(entries), Some(limit)) if limit > 0 => format!("{entries} of {limit} entries"),
        (Some(entries), _) => format!("{entries} entries, no limit"),
        (None, _) if table.is_unknown() => "not readable".to_owned(),
        (None, _) => "gone, or held by an open file only".to_owned(),
    };
    if let Some(why) = &table.unread {
        state = format!("{state} ({})", escaped(why));
    }
    let name = escaped(&words::name(table));
    let mut lines = vec![format!("{name} (inode {}): {state}", table.inode)];
    lines.push(listed("inserted", &[("", &table.insertions)]));
    lines.push(listed("removed", &[("", &table.removals)]));
    lines.push(dropped(&table.dropped, &table.drops));
    lines.push(listed("evicted", &table.evictions.named()));
    lines.push(listed("invalid", &[("", &table.invalid)]));
    if table.refused_ctnetlink.total.is_some_and(|total| total > 0) {
        lines.push(listed("refused to ctnetlink", &[("table_full", &table.refused_ctnetlink)]));
    }
    lines
}

/// `  dropped: 1783 in all; table_full 1783; 0 no_memory, tracker, …`
pub(super) fn dropped(all: &Figure, drops: &Drops) -> String {
    let Drops { clash, nat_exhausted, clash_or_nat_exhausted: both, .. } = drops;
    let is_exact = |figure: &Figure| figure.exactness == Exactness::Exact;
    let mut parts = Vec::new();
    if all.total.is_some() {
        parts.push(format!("{} in all", words::total(all)));
    }
    let reasons = drops.named();
    let is_none = |figure: &Figure| is_exact(figure) && figure.total == Some(0);
    if is_none(all) && reasons.iter().all(|(_, figure)| is_none(figure)) {
        return "  dropped: 0".to_owned();
    }
    parts.extend(by_mark(&reasons));
    if is_exact(both) && !(is_exact(clash) && is_exact(nat_exhausted)) {
        parts.push(format!("clash and nat_exhausted together {}", words::total(both)));
    }
    format!("  dropped: {}", parts.join("; "))
}

/// `  evicted: early_drop 17; not measured gc`
pub(super) fn listed(what: &str, figures: &[(&str, &Figure)]) -> String {
    format!("  {what}: {}", by_mark(figures).join("; "))
}

/// `table_full 1783, clash <=3`, `0 no_memory, tracker` and `not measured gc`.
fn by_mark(figures: &[(&str, &Figure)]) -> Vec<String> {
    let mut counted = Vec::new();
    let (mut none, mut unmeasured) = (Vec::new(), Vec::new());
    for (name, figure) in figures {
        match (figure.exactness, figure.total) {
            (Exactness::Unavailable, _) | (_, None) => unmeasured.push(*name),
            (Exactness::Exact, Some(0)) => none.push(*name),
            _ => counted.push(format!("{name} {}", words::total(figure)).trim().to_owned()),
        }
    }
    let mut parts = Vec::new();
    if !counted.is_empty() {
        parts.push(counted.join(", "));
    }
    if !none.is_empty() {
        parts.push(format!("0 {}", none.join(", ")).trim().to_owned());
    }
    if !unmeasured.is_empty() {
        parts.push(format!("not measured {}", unmeasured.join(", ")).trim().to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::figure::Bounds, output::fixtures::snapshots};

    #[test]
    fn two_reasons_are_exact_together_where_neither_is() {
        let [_, mut snapshot] = snapshots();
        let table = &mut snapshot.tables[0];
        let figure = |bounds: Bounds| bounds.figure(Some(0), Some(1.0));
        table.drops.table_full = figure(Bounds::exactly(0));
        table.drops.clash = figure(Bounds::between(0, 300));
        table.drops.nat_exhausted = figure(Bounds::between(0, 300));
        table.drops.clash_or_nat_exhausted = figure(Bounds::exactly(300));
        table.dropped = figure(Bounds::exactly(300));
        assert_eq!(
            dropped(&table.dropped, &table.drops),
            "  dropped: 300 in all; clash <=300, nat_exhausted <=300; 0 table_full, no_memory, \
             chain_too_long, tracker; clash and nat_exhausted together 300"
        );
        table.drops.clash_or_nat_exhausted = figure(Bounds::between(0, 300));
        assert!(!dropped(&table.dropped, &table.drops).contains("together"));
    }
}
