//! What entries hold a table, and whose they are.

use ctwatch_abi::top::By;
use serde::Serialize;

use super::keys::{KeyObject, key};
use crate::model::{
    census::{Holders, Holds},
    top::TopEntry,
};

#[derive(Serialize)]
pub(super) struct HoldsObject {
    pinned: u64,
    closing: u64,
    reclaimable: u64,
    expired: u64,
    /// Of all of these.
    offloaded: u64,
}

impl From<Holds> for HoldsObject {
    fn from(Holds { pinned, closing, reclaimable, expired, offloaded }: Holds) -> Self {
        Self { pinned, closing, reclaimable, expired, offloaded }
    }
}

#[derive(Serialize)]
pub(super) struct HoldingObject<'a> {
    by: &'static str,
    key: KeyObject<'a>,
    count: u64,
    /// The truth is between `count - error` and `count`.
    error: u64,
    share: Option<f64>,
}

pub(super) fn holding<'a>(lists: impl Iterator<Item = &'a Holders>) -> Vec<HoldingObject<'a>> {
    let object = |by: By, entry: &'a TopEntry| HoldingObject {
        by: by.name(),
        key: key(by, entry),
        count: entry.count,
        error: entry.error,
        share: entry.share,
    };
    lists.flat_map(|list| list.entries.iter().map(move |entry| object(list.by, entry))).collect()
}
