//! Which of many tables are shown.

use std::{cmp::Ordering, collections::HashMap};

use ctwatch_abi::NetnsId;

use crate::model::{Change, Table};

/// The worst of them, `most` at most, in their own order, and how many more there are.
pub(super) fn worst(mut tables: Vec<&Table>, most: usize) -> (Vec<&Table>, usize) {
    let more = tables.len().saturating_sub(most);
    if more > 0 {
        let order: HashMap<NetnsId, usize> =
            tables.iter().enumerate().map(|(at, table)| (table.id, at)).collect();
        let number = |value: Option<f64>| value.unwrap_or(0.0);
        let badness = |table: &Table| {
            let is_new = f64::from(u8::from(table.change == Some(Change::Saturated)));
            let dropped = number(table.dropped.per_s).max(number(table.drops.table_full.per_s));
            let in_all = table.dropped.total.or(table.drops.table_full.total).unwrap_or(0) as f64;
            let is_saturated = f64::from(u8::from(table.saturated));
            [is_new, is_saturated, dropped, in_all, number(table.fill)]
        };
        tables.sort_by(|a, b| {
            let pairs = badness(b).into_iter().zip(badness(a));
            pairs.fold(Ordering::Equal, |so_far, (b, a)| so_far.then(b.total_cmp(&a)))
        });
        tables.truncate(most);
        tables.sort_by_key(|table| order.get(&table.id).copied());
    }
    (tables, more)
}
