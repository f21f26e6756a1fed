//! Pure: from one sample after another to snapshots. Knows no clock, no file, no socket, and
//! nothing of how the numbers were had.

pub mod census;
pub mod changes;
pub mod continued;
#[cfg(test)]
mod continued_tests;
mod counters;
pub mod effect;
mod engine;
#[cfg(test)]
mod engine_tests;
mod evidence;
pub mod figure;
pub mod groups;
pub mod incident;
pub mod incidents;
#[cfg(test)]
mod incidents_tests;
mod ledger;
#[cfg(test)]
mod list_tests;
pub mod loading;
pub mod margin;
pub mod names;
pub mod others;
pub mod planes;
pub mod remembered;
pub mod series_names;
mod snapshot;
pub mod story;
mod table_state;
mod talker;
mod talkers;
pub mod ties;
pub mod top;
mod trend;
pub mod trouble;
pub mod verdict;

pub use engine::Model;
pub use snapshot::{Change, Drops, Gone, Snapshot, Sum, Table};
