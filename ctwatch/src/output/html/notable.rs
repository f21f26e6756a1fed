//! Which tables a reader sees at once: the others are folded up.

use crate::model::story::TableStory;

/// At once.
const MOST: usize = 6;
/// From here on a table is worth a look, however little it dropped.
const MUCH: f64 = 0.5;

/// Those that are, and the others, both in their order.
pub(super) fn notable(tables: &[TableStory]) -> (Vec<&TableStory>, Vec<&TableStory>) {
    let (mut open, folded): (Vec<&TableStory>, Vec<&TableStory>) =
        tables.iter().partition(|table| is_notable(table));
    let mut more = open.split_off(open.len().min(MOST));
    more.extend(folded);
    (open, more)
}

fn is_notable(table: &TableStory) -> bool {
    table.counts.surely_dropped() > 0
        || table.counts.dropped.total().is_some_and(|most| most > 0)
        || table.full.is_some()
        || table.peak.and_then(|peak| peak.fill()).is_some_and(|fill| fill >= MUCH)
}
