//! The states of a census, as rows: how many entries are in each, and how long they still live.

use std::cmp::Ordering;

use super::{
    columns::{ShownColumn, column},
    state::{Pane, TopState},
};
use crate::{
    model::{
        Snapshot, Table,
        census::{LIMITS, StateCount},
    },
    output::text::{census::state_label, words::percent},
};

/// Entries of one protocol in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRow {
    pub protocol: u8,
    pub state: u8,
    pub name: String,
    pub entries: u64,
    pub share: Option<f64>,
    pub assured: u64,
    pub unreplied: u64,
    /// How many live less long than each of the limits, and not less long than the one before, and how many live
    /// longer than all; `None`: nobody tells.
    pub left: Option<[u64; LIMITS.len() + 1]>,
}

impl StateRow {
    fn of(count: &StateCount, all: u64) -> Self {
        let entries = count.holds.all();
        let timed = entries.saturating_sub(count.holds.expired);
        let below = count.lifetimes.below_limits();
        let before = |at: usize| at.checked_sub(1).and_then(|at| below.get(at)).copied();
        let left = std::array::from_fn(|at| {
            let until = below.get(at).copied().unwrap_or(timed);
            until.saturating_sub(before(at).unwrap_or(0))
        });
        Self {
            protocol: count.protocol,
            state: count.state,
            name: state_label(count.protocol, count.state),
            entries,
            share: (all > 0).then(|| entries as f64 / all as f64),
            assured: count.holds.pinned + count.holds.closing,
            unreplied: count.unreplied,
            left: (count.lifetimes.unknown == 0).then_some(left),
        }
    }

    pub fn id(&self) -> (u8, u8) {
        (self.protocol, self.state)
    }
}

fn lives(row: &StateRow, at: usize) -> Option<f64> {
    row.left?.get(at).map(|count| *count as f64)
}

fn living(row: &StateRow, at: usize) -> String {
    let count = row.left.and_then(|left| left.get(at).copied());
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Of all that live so long, from this limit to that one.
fn within(row: &StateRow, from: usize, to: usize) -> Option<u64> {
    row.left.map(|left| left.iter().take(to + 1).skip(from).sum())
}

pub const STATE_COLUMNS: &[ShownColumn<StateRow>] = &[
    column("entries", 9, 0, |row| row.entries.to_string(), |row| Some(row.entries as f64)),
    column("share", 7, 0, |row| percent(row.share), |row| row.share),
    column("assured", 9, 1, |row| row.assured.to_string(), |row| Some(row.assured as f64)),
    column("unreplied", 9, 1, |row| row.unreplied.to_string(), |row| Some(row.unreplied as f64)),
    column("<10s", 7, 1, |row| living(row, 0), |row| lives(row, 0)),
    column("<1m", 7, 1, |row| living(row, 1), |row| lives(row, 1)),
    column("<10m", 7, 2, |row| living(row, 2), |row| lives(row, 2)),
    column("<1h", 7, 2, |row| living(row, 3), |row| lives(row, 3)),
    column("<1d", 7, 1, |row| living(row, 4), |row| lives(row, 4)),
    column(">=1d", 7, 1, |row| living(row, 5), |row| lives(row, 5)),
];

/// On a narrow terminal, instead of the finer ones: whatever is left out, they add up.
const SHORTEST: ShownColumn<StateRow> = column(
    "<1m",
    7,
    2,
    |row| within(row, 0, 1).map_or_else(|| "-".to_owned(), |count| count.to_string()),
    |row| within(row, 0, 1).map(|count| count as f64),
);
const LONGEST: ShownColumn<StateRow> = column(
    ">=1h",
    7,
    2,
    |row| within(row, 4, 5).map_or_else(|| "-".to_owned(), |count| count.to_string()),
    |row| within(row, 4, 5).map(|count| count as f64),
);

/// Those that fit, and by which number each is sorted.
pub fn shown_columns(width: u16) -> Vec<(Option<usize>, &'static ShownColumn<StateRow>)> {
    let wide = |columns: &[(Option<usize>, &ShownColumn<StateRow>)]| {
        columns.iter().fold(0, |sum: u16, (_, column)| sum + column.width + 1)
    };
    let some = |ranks: &[u8]| -> Vec<(Option<usize>, &'static ShownColumn<StateRow>)> {
        let all = STATE_COLUMNS.iter().enumerate();
        all.filter(|(_, column)| ranks.contains(&column.rank))
            .map(|(at, column)| (Some(at), column))
            .collect()
    };
    let all = some(&[0, 1, 2]);
    let mut fewer = some(&[0, 2]);
    fewer.insert(2, (None, &SHORTEST));
    fewer.push((None, &LONGEST));
    let fits = |columns: &Vec<_>| wide(columns) <= width;
    [all, fewer].into_iter().find(fits).unwrap_or_else(|| some(&[0]))
}

/// Of one namespace, as they are narrowed, filtered and sorted; `None`: there is no census.
pub fn states(snapshot: &Snapshot, table: &Table, state: &TopState) -> Option<Vec<StateRow>> {
    snapshot.census.as_ref()?;
    let Some(census) = snapshot.census(table) else { return Some(Vec::new()) };
    let all = census.holds.all();
    let rows = census.states.iter().map(|count| StateRow::of(count, all));
    let wanted = |row: &StateRow| match state.state() {
        Some((of, _)) => row.id() == of,
        None => state.is_filtered_in(Pane::Census, &row.name),
    };
    let mut rows: Vec<StateRow> = rows.filter(wanted).collect();
    if let Some(column) = state.census_sort.and_then(|at| STATE_COLUMNS.get(at)) {
        rows.sort_by(|a, b| by_key(column, a, b));
    }
    Some(rows)
}

fn by_key(column: &ShownColumn<StateRow>, a: &StateRow, b: &StateRow) -> Ordering {
    let key = |row: &StateRow| (column.key)(row).unwrap_or(f64::NEG_INFINITY);
    key(b).total_cmp(&key(a)).then(b.entries.cmp(&a.entries)).then(a.id().cmp(&b.id()))
}

/// The place of the chosen one.
pub fn chosen(rows: &[StateRow], state: &TopState) -> usize {
    rows.iter().position(|row| Some(row.id()) == state.census).unwrap_or(0)
}
