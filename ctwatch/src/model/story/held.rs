//! What single censuses found in one table. A census is taken now and then: between two of them nothing
//! tells who held the table.

use std::borrow::Cow;

use std::time::Duration;

use ctwatch_abi::NetnsId;

use crate::model::census::{Holders, Holds, StateCount, Taken};

/// States of which a census' outcome keeps the count.
const MOST_STATES: usize = 12;

/// What one census found in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldAt {
    pub at: Duration,
    pub holds: Holds,
    /// No entry may be missing, or have been counted twice.
    pub is_whole: bool,
}

/// The same, and who it was.
#[derive(Clone, Debug)]
pub struct CensusOf {
    pub held: HeldAt,
    /// By which mechanism.
    pub by: Cow<'static, str>,
    /// The most first.
    pub states: Vec<HeldState>,
    /// States beyond those.
    pub more_states: usize,
    pub lists: Vec<Holders>,
    /// Entries that were counted, less those that the kernel counts: from, to.
    pub difference: Option<(i64, i64)>,
}

/// Entries of one protocol in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldState {
    pub protocol: u8,
    /// `None` where the protocol has no states.
    pub name: Option<&'static str>,
    pub holds: Holds,
    pub unreplied: u64,
}

impl HeldAt {
    /// `None` where it was not looked into.
    pub(super) fn of(taken: &Taken, netns: NetnsId, at: Duration) -> Option<Self> {
        let kernel = taken.kernel.iter().find(|count| count.netns == netns);
        let table = taken.counted.table(netns);
        let is_listed = kernel.is_some_and(|count| count.unlisted.is_none() && !count.is_torn);
        if table.is_none() && !is_listed {
            return None;
        }
        let is_whole = is_listed && taken.strayed == 0 && taken.counted.unplaced == 0;
        let holds = table.map_or_else(Holds::default, |table| table.holds);
        Some(Self { at, holds, is_whole })
    }
}

impl CensusOf {
    pub(super) fn of(taken: &Taken, netns: NetnsId, held: HeldAt) -> Self {
        let states = taken.counted.table(netns).map_or(&[][..], |table| table.states.as_slice());
        let kernel = taken.kernel.iter().find(|count| count.netns == netns);
        Self {
            held,
            by: taken.by.clone(),
            states: states.iter().take(MOST_STATES).map(state).collect(),
            more_states: states.len().saturating_sub(MOST_STATES),
            lists: taken.counted.lists(netns).cloned().collect(),
            difference: kernel.and_then(|kernel| taken.difference(kernel)),
        }
    }
}

fn state(count: &StateCount) -> HeldState {
    HeldState {
        protocol: count.protocol,
        name: count.name(),
        holds: count.holds,
        unreplied: count.unreplied,
    }
}
