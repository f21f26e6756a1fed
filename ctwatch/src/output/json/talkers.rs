//! Whose packets, and whose entries, of what happens.

use ctwatch_abi::top::Stream;
use serde::Serialize;

use super::keys::{KeyObject, key};
use crate::model::{
    margin::CONFIDENCE,
    top::{Estimate, TopList},
};

#[derive(Serialize)]
pub(super) struct TalkerObject<'a> {
    by: &'static str,
    key: KeyObject<'a>,
    count: u64,
    /// The truth is between `count - error` and `count`.
    error: u64,
    per_s: Option<f64>,
    per_s_exactness: &'static str,
    share: Option<f64>,
    #[serde(flatten)]
    estimate: Option<EstimateObject>,
}

/// Only where it is an estimate.
#[derive(Serialize)]
struct EstimateObject {
    estimated: bool,
    at_least: u64,
    at_most: u64,
    confidence: f64,
    proven: ProvenObject,
}

#[derive(Serialize)]
struct ProvenObject {
    at_least: u64,
    at_most: Option<u64>,
}

impl From<Estimate> for EstimateObject {
    fn from(estimate: Estimate) -> Self {
        let Estimate { at_least, at_most, proven_at_least, proven_at_most } = estimate;
        Self {
            estimated: true,
            at_least,
            at_most,
            confidence: CONFIDENCE,
            proven: ProvenObject { at_least: proven_at_least, at_most: proven_at_most },
        }
    }
}

/// All entries of all lists of a stream.
pub(super) fn talkers(lists: &[TopList], stream: Stream) -> Vec<TalkerObject<'_>> {
    let lists = lists.iter().filter(|list| list.stream == stream);
    let objects = lists.flat_map(|list| {
        list.entries.iter().map(|entry| TalkerObject {
            by: list.by.name(),
            key: key(list.by, entry),
            count: entry.count,
            error: entry.error,
            per_s: entry.per_s,
            per_s_exactness: entry.per_s_is.name(),
            share: entry.share,
            estimate: entry.estimate.map(EstimateObject::from),
        })
    });
    objects.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_estimate_says_that_it_is_one() {
        let estimate =
            Estimate { at_least: 90, at_most: 120, proven_at_least: 7, proven_at_most: Some(400) };
        assert_eq!(
            serde_json::to_value(EstimateObject::from(estimate)).unwrap(),
            json!({"estimated": true, "at_least": 90, "at_most": 120, "confidence": 0.999,
                   "proven": {"at_least": 7, "at_most": 400}})
        );
    }
}
