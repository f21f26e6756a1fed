//! How much of a table is of few: without a name or an address, which would make a series each.

use ctwatch_abi::top::{By, Stream};

use crate::model::{
    Snapshot, Table,
    figure::{Exactness, Figure},
    top::TopEntry,
};

/// One list, as shares of its first.
pub(super) struct Shares {
    pub(super) stream: &'static str,
    pub(super) by: &'static str,
    /// A rank, and the share of all up to it: at least that.
    pub(super) ranks: [(&'static str, f64); 3],
}

const RANKS: [(&str, usize); 3] = [("1", 1), ("3", 3), ("10", 10)];

pub(super) fn of(snapshot: &Snapshot, table: &Table) -> Vec<Shares> {
    let counted = table.top.iter().filter_map(|list| {
        let (stream, all) = match list.stream {
            Stream::Drops => ("dropped", &table.drops.table_full),
            Stream::Insertions => ("inserting", &table.insertions),
        };
        is_bounded(all).then(|| shares(stream, list.by, &list.entries)).flatten()
    });
    let census = snapshot.census.iter().flat_map(|(taken, _)| taken.counted.lists(table.id));
    let held = census.filter_map(|list| shares("holding", list.by, &list.entries));
    counted.chain(held).collect()
}

/// There may have been more than a lower bound says, and any share would be too large.
fn is_bounded(all: &Figure) -> bool {
    !matches!(all.exactness, Exactness::LowerBound | Exactness::Unavailable)
}

fn shares(stream: &'static str, by: By, entries: &[TopEntry]) -> Option<Shares> {
    // What is certain of each, as a part of the most that all can be.
    let mut certain: Vec<f64> = entries
        .iter()
        .filter(|entry| entry.count > 0)
        .filter_map(|entry| Some(entry.share? * entry.at_least() as f64 / entry.count as f64))
        .collect();
    certain.sort_by(|a, b| b.total_cmp(a));
    let first = |most: usize| certain.iter().take(most).sum::<f64>().min(1.0);
    (!certain.is_empty()).then(|| Shares {
        stream,
        by: by.name(),
        ranks: RANKS.map(|(name, most)| (name, first(most))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixtures::top_entry;

    #[test]
    fn shares_are_of_what_is_certain() {
        let entry =
            |count, error, share| TopEntry { count, error, share: Some(share), ..top_entry() };
        let entries =
            [entry(10, 10, 0.1), entry(50, 10, 0.5), entry(40, 0, 0.4), entry(5, 0, 0.05)];
        let shares = shares("dropped", By::Source, &entries).unwrap();
        let ranks = shares.ranks.map(|(_, share)| (share * 1000.0).round());
        assert_eq!(ranks, [400.0, 850.0, 850.0]);
        assert!(super::shares("dropped", By::Source, &[]).is_none());
    }
}
