//! Which top lists are shown.

use ctwatch_abi::top::By;

use crate::output::services::Services;

/// Which top lists are shown, and when.
#[derive(Clone, Debug, Default)]
pub struct ShownTops {
    /// Not only while a table is saturated.
    pub always: bool,
    /// Entries of one list.
    pub most: usize,
    pub by: Vec<By>,
    pub services: Services,
}
