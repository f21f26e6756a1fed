//! What text and JSON both take from a census.

use crate::model::census::{self, KernelCount, TableCensus, Taken};

/// What each of the model's limits is called.
pub(super) const LIMITS: [&str; census::LIMITS.len()] = ["<10s", "<1m", "<10m", "<1h", "<1d"];

/// Namespaces that hold something, the fullest first, as the kernel and as the census sees them.
pub(super) fn tables(taken: &Taken) -> Vec<(&KernelCount, &TableCensus)> {
    let counts = taken.kernel.iter();
    let mut tables: Vec<_> =
        counts.filter_map(|count| Some((count, taken.counted.table(count.netns)?))).collect();
    tables.sort_by_key(|(count, table)| (!count.is_judged, std::cmp::Reverse(table.holds.all())));
    tables
}

/// Namespaces whose entries could not be listed to the end, and why.
pub(super) fn unlisted(taken: &Taken) -> impl Iterator<Item = (&KernelCount, &str)> {
    taken.kernel.iter().filter_map(|count| Some((count, count.unlisted.as_deref()?)))
}

/// Entries of namespaces that nothing leads into.
pub(super) fn elsewhere(taken: &Taken) -> impl Iterator<Item = &TableCensus> {
    let known = |table: &&TableCensus| taken.kernel.iter().all(|count| count.netns != table.netns);
    taken.counted.tables.iter().filter(known)
}
