//! Columns of figures, and those of namespaces: what stands in each, and what rows are sorted by.

use std::cmp::Ordering;

use crate::{
    model::{Table, figure::Figure},
    output::text::words::{count, marked, number, percent, signed, time_to_full},
};

pub struct ShownColumn<T> {
    pub title: &'static str,
    pub width: u16,
    /// How soon it is left out of a narrow terminal; 0: never.
    pub rank: u8,
    pub cell: fn(&T) -> String,
    /// What is larger comes first; `None`, not measured, last.
    pub key: fn(&T) -> Option<f64>,
}

pub(super) const fn column<T>(
    title: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&T) -> String,
    key: fn(&T) -> Option<f64>,
) -> ShownColumn<T> {
    ShownColumn { title, width, rank, cell, key }
}

pub const COLUMNS: &[ShownColumn<Table>] = &[
    column("fill", 6, 0, |t| percent(t.fill), |t| t.fill),
    column("full in", 7, 2, time_to_full, |t| t.time_to_full_s.map(|seconds| -seconds)),
    column("drop/s", 8, 0, |t| rate(&t.dropped), |t| t.dropped.per_s),
    column("entries", 8, 3, |t| count(t.entries), |t| t.entries.map(f64::from)),
    column("limit", 8, 9, |t| count(t.limit), |t| t.limit.map(f64::from)),
    column("insert/s", 8, 4, |t| rate(&t.insertions), |t| t.insertions.per_s),
    column("trend/s", 7, 6, |t| signed(t.trend_per_s), |t| t.trend_per_s),
    column("full/s", 8, 5, |t| rate(&t.drops.table_full), |t| t.drops.table_full.per_s),
    column("evict/s", 7, 7, |t| rate(&t.evictions.early_drop), |t| t.evictions.early_drop.per_s),
    column("remove/s", 8, 8, |t| rate(&t.removals), |t| t.removals.per_s),
    column("invalid/s", 9, 10, |t| rate(&t.invalid), |t| t.invalid.per_s),
];

pub fn rate(figure: &Figure) -> String {
    match figure.per_s {
        None => "-".to_owned(),
        Some(per_s) if per_s > 0.0 => marked(figure.exactness, &number(per_s)),
        Some(_) => "0".to_owned(),
    }
}

/// The worst first: those that decide alarms, saturated ones, those that drop, the fullest. Figures are
/// compared coarsely, so that rows do not change places at every reading.
pub fn worst(a: &Table, b: &Table) -> Ordering {
    let badness = |table: &Table| {
        let plane = table.control_plane.iter().any(|of| of.per_s.is_some_and(|per_s| per_s > 0.0));
        let flag = |is: bool| f64::from(u8::from(is));
        [
            flag(table.is_judged),
            flag(plane),
            flag(table.saturated),
            coarse(table.dropped.per_s.or(table.drops.table_full.per_s)),
            (table.fill.unwrap_or(0.0) * 20.0).floor(),
            flag(table.is_tracking()),
        ]
    };
    let pairs = badness(b).into_iter().zip(badness(a));
    pairs.fold(Ordering::Equal, |so_far, (b, a)| so_far.then(b.total_cmp(&a))).then(a.id.cmp(&b.id))
}

pub fn by_column(column: &ShownColumn<Table>, a: &Table, b: &Table) -> Ordering {
    let key =
        |table: &Table| (column.key)(table).map_or(f64::NEG_INFINITY, |key| coarse(Some(key)));
    key(b).total_cmp(&key(a)).then(a.id.cmp(&b.id))
}

/// To two digits.
pub fn coarse(value: Option<f64>) -> f64 {
    let value = value.unwrap_or(0.0);
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powf(value.abs().log10().floor() - 1.0);
    (value / scale).round() * scale
}

/// Those that fit beside what else is in a row, the least needed left out first.
pub fn fitting(width: u16) -> Vec<(usize, &'static ShownColumn<Table>)> {
    let mut columns: Vec<_> = COLUMNS.iter().enumerate().collect();
    let wide = |columns: &[(usize, &ShownColumn<Table>)]| {
        columns.iter().fold(0, |sum: u16, (_, column)| sum + column.width + 1)
    };
    while wide(&columns) > width {
        let ranks = columns.iter().map(|(_, column)| column.rank);
        let Some(least) = ranks.max().filter(|rank| *rank > 0) else { break };
        columns.retain(|(_, column)| column.rank != least);
    }
    columns
}
