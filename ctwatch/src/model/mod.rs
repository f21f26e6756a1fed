//! Pure: from one sample after another to snapshots. Knows no clock, no file, no socket, and
//! nothing of how the numbers were had.

pub mod census;
mod counters;
mod evidence;
pub mod figure;
pub mod groups;
mod ledger;
pub mod loading;
pub mod margin;
pub mod names;
pub mod others;
pub mod planes;
pub mod remembered;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
pub mod ties;
pub mod top;
mod trend;
pub mod verdict;

pub use counters::{KEPT_UP, MOST_PER_S};
pub use snapshot::{Change, Drops, Gone, Model, Snapshot, Sum, Table};
