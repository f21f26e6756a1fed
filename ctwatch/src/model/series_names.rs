//! What the series of a namespace are called in a time series database: as `watch` calls it, and no two at the
//! same time alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ctwatch_abi::NetnsId;

use super::{Table, names::word};

/// What is no namespace of its own is called so: all that are gone, and all beyond those that have series.
pub const GONE: &str = "(gone)";
pub const MORE: &str = "(more)";

#[derive(Clone, Debug, Default)]
pub(super) struct SeriesNames {
    /// What each is called by itself, and by its series.
    of: BTreeMap<NetnsId, (String, Arc<str>)>,
    taken: BTreeSet<Arc<str>>,
}

impl SeriesNames {
    /// It keeps its name while it is called the same: one that comes later under that name takes its number
    /// along.
    pub(super) fn name(&mut self, table: &Table) -> Arc<str> {
        let shown = shown(table);
        if let Some((before, name)) = self.of.get(&table.id)
            && *before == shown
        {
            return Arc::clone(name);
        }
        self.forget(table.id);
        let numbered = format!("{shown} net:[{}]", table.inode);
        let known = format!("{numbered} {}", table.id);
        let is_free = |name: &String| {
            ![GONE, MORE].contains(&name.as_str()) && !self.taken.contains(name.as_str())
        };
        let name = [shown.clone(), numbered].into_iter().find(is_free).unwrap_or(known);
        let name: Arc<str> = name.into();
        self.taken.insert(Arc::clone(&name));
        self.of.insert(table.id, (shown, Arc::clone(&name)));
        name
    }

    pub(super) fn forget(&mut self, id: NetnsId) {
        if let Some((_, name)) = self.of.remove(&id) {
            self.taken.remove(&name);
        }
    }
}

fn shown(table: &Table) -> String {
    let shown = table.workload.shown(table.name.as_deref());
    shown.map_or_else(|| format!("net:[{}]", table.inode), |name| word(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::verdict::situations::{Situation, table},
        record::sample::TableSample,
    };

    fn tables(names: &[(u32, &str)]) -> Vec<Table> {
        let of = |(id, name): &(u32, &str)| TableSample {
            inode: 4_026_532_000 + id,
            ..table(*id, name, 1, 0)
        };
        let all: Vec<TableSample> = names.iter().map(of).collect();
        Situation::of(all.clone(), all).snapshot().tables
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let mut names = SeriesNames::default();
        let all = tables(&[(1, "rt"), (2, "rt"), (3, "(gone)"), (4, "a b")]);
        let called: Vec<_> = all.iter().map(|table| names.name(table)).collect();
        let said = ["rt", "rt net:[4026532002]", "\"(gone)\"", "\"a b\""];
        assert_eq!(called.iter().map(|name| &**name).collect::<Vec<_>>(), said);
        // The first is gone: the second keeps what it is called.
        names.forget(1);
        assert_eq!(&*names.name(&all[1]), "rt net:[4026532002]");
        let [next] = &tables(&[(5, "rt")])[..] else { panic!() };
        assert_eq!(&*names.name(next), "rt");
    }

    #[test]
    fn a_new_name_is_a_new_series() {
        let mut names = SeriesNames::default();
        let (before, after) = (tables(&[(1, "4711")]), tables(&[(1, "web")]));
        assert_eq!(&*names.name(&before[0]), "4711");
        assert_eq!(&*names.name(&after[0]), "web");
        assert_eq!(names.taken.len(), 1);
    }
}
