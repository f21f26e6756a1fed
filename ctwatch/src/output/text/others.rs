//! Namespaces of unprivileged users: those decide no alarm, and have a line for each owner.

use super::{
    measure::Measure,
    words::{marked, name, number, owner, percent, total},
};
use crate::{
    model::{Snapshot, figure::Figure, others::Others},
    output::escape::escaped,
};

/// Of so many owners there is a line; there may be tens of thousands.
pub(super) const MOST_OWNERS: usize = 3;

/// Of those that decide no alarm, a line for each owner, the worst first.
pub(super) fn others(
    snapshot: &Snapshot,
    wanted: impl Fn(&Others<'_>) -> bool,
    measure: Measure,
) -> Vec<String> {
    let mut others = snapshot.others();
    others.retain(wanted);
    let more = others.len().saturating_sub(MOST_OWNERS);
    let mut lines: Vec<String> =
        others.iter().take(MOST_OWNERS).map(|others| line(others, measure)).collect();
    if more > 0 {
        lines.push(format!("and namespaces of {more} more users"));
    }
    lines
}

/// `uid 1000: 3 namespaces, 230 entries, 12 insert/s, 300 drop/s (table_full); the fullest: sh[4711], 100.0%`
fn line(others: &Others<'_>, measure: Measure) -> String {
    let namespaces = match others.tables.len() {
        1 => "1 namespace".to_owned(),
        more => format!("{more} namespaces"),
    };
    let figure = |figure: &Figure, now: &str, in_all: &str| match (measure, figure.per_s) {
        (Measure::Now, None) => format!("- {now}"),
        (Measure::Now, Some(per_s)) => {
            format!("{} {now}", marked(figure.exactness, &number(per_s)))
        }
        (Measure::InAll, _) => format!("{} {in_all}", total(figure)),
    };
    let worst = others.worst().map_or_else(String::new, |worst| {
        format!("; the fullest: {}, {}", escaped(&name(worst)), percent(worst.fill))
    });
    format!(
        "{}: {namespaces}, {} entries, {}, {} (table_full){worst}",
        owner(others.owner),
        others.entries,
        figure(&others.insertions, "insert/s", "inserted"),
        figure(&others.table_full, "drop/s", "dropped"),
    )
}
