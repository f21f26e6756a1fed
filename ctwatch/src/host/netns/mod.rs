//! The network namespaces of this host.

pub mod addresses;
pub mod allowances;
pub mod bridges;
mod find;
pub mod names;
pub mod owner;
pub mod pods;
pub mod visit;
mod way;

pub use find::{Finder, at, bind_mounts, by_name, current, find};
pub use way::{Netns, Target, called};
