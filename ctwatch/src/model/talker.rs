//! One count of a list: how much it can be since the list began, and how far an estimate of it can be
//! off.

use ctwatch_abi::top::Key;

use super::margin;
use crate::record::sample::TopCount;

/// How far an estimate can be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The truth is not less, and not more than `at_most`, with a confidence of [`margin::CONFIDENCE`].
    pub at_least: u64,
    pub at_most: u64,
    /// Not less, and not more than `proven_at_most`, whatever chance did.
    pub proven_at_least: u64,
    pub proven_at_most: Option<u64>,
}

/// One count, and how much of it came since the sample before.
#[derive(Clone, Copy)]
pub(super) struct Talker {
    pub(super) key: Key,
    pub(super) count: u64,
    pub(super) error: u64,
    /// Since the list began; and since the sample before.
    pub(super) since: Grown,
    pub(super) grown: Option<Grown>,
    pub(super) scale: Scale,
}

/// What of a count may stand for several events each.
#[derive(Clone, Copy, Default)]
pub(super) struct Scale {
    /// Since the list began, at most; and since the sample before.
    pub(super) weight: u64,
    pub(super) is_now: bool,
    /// The most that one event was taken for, and would have been.
    pub(super) taken_for: u64,
    pub(super) heaviest: u64,
    pub(super) let_by: LetBy,
}

/// How much of a stream was let by, since its lists began to count and since the sample before.
#[derive(Clone, Copy, Default)]
pub(super) struct LetBy {
    pub(super) in_all: u64,
    pub(super) now: u64,
    pub(super) heaviest: u64,
    pub(super) is_known: bool,
}

/// Between so much and so much.
#[derive(Clone, Copy)]
pub(super) struct Grown {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Talker {
    /// The least that it can be, since the programs were attached.
    pub(super) fn certain(&self) -> u64 {
        self.count.saturating_sub(self.error)
    }

    /// The same since the list began.
    pub(super) fn certain_since(&self) -> u64 {
        self.since.least
    }

    /// The most that it can be since the list began.
    pub(super) fn most_since(&self) -> u64 {
        self.since.most
    }

    pub(super) fn is_estimated(&self) -> bool {
        self.scale.weight > 0 || self.scale.let_by.in_all > 0
    }

    /// The least that it can be, however much the events of it that were taken stand for.
    pub(super) fn proven(&self, sum: u64, scaled: u64) -> u64 {
        let scaled = sum.min(scaled);
        sum - scaled + margin::surely(scaled, self.scale.taken_for)
    }

    /// What it may be since the list began. `unlisted` more are in no list; there were `all` at most.
    pub(super) fn estimate(&self, unlisted: u64, doubt: u64, all: Option<u64>) -> Estimate {
        let Scale { weight, heaviest, let_by, .. } = self.scale;
        let certain = self.certain_since();
        let scaled = certain.min(weight);
        let least = certain - scaled + margin::at_least(scaled, heaviest);
        // What is in no list may have been scaled too.
        let sum = self.most_since().saturating_add(unlisted);
        let scaled = sum.min(weight.saturating_add(unlisted));
        let most = (sum - scaled).saturating_add(margin::at_most(scaled, heaviest));
        // Each that was taken is one at least, and all others were let by.
        let most_proven = let_by.is_known.then(|| sum.saturating_add(let_by.in_all));
        let proven_at_most = [most_proven, all].into_iter().flatten().min();
        let proven_at_least = self.proven(certain, weight).saturating_sub(doubt);
        let at_most = proven_at_most.map_or(most, |proven| most.min(proven));
        // Whoever is in most of it is bounded by what the others did: that is no contradiction.
        let at_least = least.saturating_sub(doubt).max(proven_at_least).min(at_most);
        Estimate { at_least, at_most, proven_at_least, proven_at_most }
    }
}

impl Grown {
    /// A count, held or at most the least of its set, grows by each event of the key and never shrinks, so
    /// it has grown by all that came. What is certain of it has grown by no more than came: one that was in
    /// no slot has been counted since it came into one.
    pub(super) fn of(count: &TopCount, last: &TopCount) -> Self {
        let certain = |of: &TopCount| of.count.saturating_sub(of.error);
        Self {
            least: certain(count).saturating_sub(certain(last)),
            most: count.count.saturating_sub(last.count),
        }
    }

    /// The same of one that was in no list, where what a list left out came to `at_most` each.
    pub(super) fn of_left_out(count: &TopCount, at_most: u64) -> Self {
        let certain = count.count.saturating_sub(count.error);
        Self { least: certain.saturating_sub(at_most), most: count.count }
    }
}
