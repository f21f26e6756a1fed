//! Namespaces of unprivileged users, taken together by owner: they make as many as they like.

use std::cmp::Reverse;

use super::{Snapshot, Table, figure::Figure};
use crate::record::sample::Owner;

/// All of one owner's that decide no alarm.
#[derive(Clone, Debug)]
pub struct Others<'a> {
    pub owner: &'a Owner,
    pub tables: Vec<&'a Table>,
    /// In those that could be read.
    pub entries: u64,
    pub insertions: Figure,
    pub table_full: Figure,
}

impl<'a> Others<'a> {
    fn of(owner: &'a Owner, tables: Vec<&'a Table>) -> Self {
        Self {
            owner,
            entries: tables.iter().filter_map(|table| table.entries).map(u64::from).sum(),
            insertions: Figure::sum(tables.iter().map(|table| &table.insertions)),
            table_full: Figure::sum(tables.iter().map(|table| &table.drops.table_full)),
            tables,
        }
    }

    /// The one that is worst off: saturated, then the fullest.
    pub fn worst(&self) -> Option<&'a Table> {
        self.tables.iter().copied().max_by_key(|table| (table.saturated, table.entries))
    }
}

impl Snapshot {
    /// By owner, the most refused first, then the most entries.
    pub fn others(&self) -> Vec<Others<'_>> {
        let mut tables: Vec<&Table> = self.tables.iter().filter(|t| !t.is_judged).collect();
        tables.sort_by_key(|table| table.owner.uid());
        let of_one = tables.chunk_by(|a, b| a.owner == b.owner);
        let mut all: Vec<Others<'_>> =
            of_one.filter_map(|of| Some(Others::of(&of.first()?.owner, of.to_vec()))).collect();
        all.sort_by_key(|others| Reverse((others.table_full.total, others.entries)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::situations::{Situation, table};

    #[test]
    fn others_are_summed_by_owner() {
        let of = |id, uid, entries| {
            let owner = Owner::User(uid);
            crate::record::sample::TableSample {
                owner,
                is_judged: false,
                ..table(id, "x", entries, 0)
            }
        };
        let tables = vec![of(1, 7, 5), table(2, "rt", 1, 0), of(3, 8, 1000), of(4, 7, 20)];
        let snapshot = Situation::of(tables.clone(), tables).snapshot();
        assert_eq!(snapshot.tables[0].name.as_deref(), Some("rt"), "the host's come first");
        let others = snapshot.others();
        let short = |others: &Others<'_>| {
            let worst = others.worst().map(|worst| worst.inode);
            (others.owner.uid(), others.tables.len(), others.entries, worst)
        };
        let all: Vec<_> = others.iter().map(short).collect();
        assert_eq!(all, [(Some(8), 1, 1000, Some(3)), (Some(7), 2, 25, Some(4))]);
        assert_eq!(snapshot.fullest().map(|table| table.inode), Some(2));
    }
}
