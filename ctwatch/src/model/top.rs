//! From counts of heavy hitters to lists: who, how fast, what share, how far to trust it.

use std::cmp::Reverse;

use ctwatch_abi::{
    NetnsId,
    top::{By, Key, Stream},
};

pub use super::talker::Estimate;
use super::{figure::Exactness, talker::Talker, talkers::Talking};

/// The first of one stream, told apart in one way, in one namespace.
#[derive(Clone, Debug)]
pub struct TopList {
    pub stream: Stream,
    pub by: By,
    /// `None`: since the first reading, as totals are.
    pub since: Option<jiff::Timestamp>,
    pub entries: Vec<TopEntry>,
}

/// `count - error <= true count <= count`, since the list began to count. Of an estimate, `count` is the
/// best figure, and the truth is as [`Estimate`] has it.
#[derive(Clone, Debug)]
pub struct TopEntry {
    pub key: Key,
    /// What the key's interface is called.
    pub interface: Option<String>,
    /// What its cgroup is called.
    pub cgroup: Option<String>,
    pub count: u64,
    pub error: u64,
    /// Since the sample before; `None` in the first, which has nothing before it.
    pub per_s: Option<f64>,
    /// How far to trust that.
    pub per_s_is: Exactness,
    /// Of all of the stream in the namespace, since the start.
    pub share: Option<f64>,
    /// The same, since the sample before.
    pub share_now: Option<f64>,
    /// Where more came than could be told apart.
    pub estimate: Option<Estimate>,
}

impl TopEntry {
    /// With the confidence that there is.
    pub fn at_least(&self) -> u64 {
        self.estimate.map_or(self.count.saturating_sub(self.error), |estimate| estimate.at_least)
    }

    pub fn at_most(&self) -> u64 {
        self.estimate.map_or(self.count, |estimate| estimate.at_most)
    }
}

/// What is spoken of is called.
#[derive(Clone, Copy, Default)]
pub(super) struct Names<'a> {
    pub(super) interfaces: &'a [(u32, String)],
    pub(super) cgroups: &'a [(u64, String)],
}

/// What a namespace's lists are measured against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    /// All of the stream.
    pub(super) total: Option<u64>,
    /// There were no more of the stream: no part of it is larger.
    pub(super) at_most: Option<u64>,
    /// Events while the first reading was made: the lists and the total began to count in the midst
    /// of them.
    pub(super) meanwhile: u64,
    /// The same, a second.
    pub(super) per_s: Option<f64>,
    /// Events that are in no list, in whatever namespace they happened.
    pub(super) unlisted: u64,
    /// Events that are in the lists and not of the stream: packets that a rule dropped.
    pub(super) strangers: Strangers,
}

/// Packets in the lists of the refused that a rule may have dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strangers {
    /// Since the start.
    pub(super) in_all: u64,
    /// Since the sample before.
    pub(super) now: u64,
}

/// Which lists, and how long.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) by: Vec<By>,
    /// Entries of each.
    pub(super) most: usize,
    /// Since the sample before.
    pub(super) seconds: Option<f64>,
}

impl Talking {
    /// The first `most` of a namespace, by what they do now and by what it came to: somebody who
    /// has just paused is still who it was.
    pub(super) fn lists(
        &self,
        netns: NetnsId,
        wanted: &Listing,
        names: Names<'_>,
        context: impl Fn(Stream, By) -> Context,
    ) -> Vec<TopList> {
        let most = wanted.most;
        let mut lists = Vec::new();
        for stream in Stream::ALL {
            for by in wanted.by.iter().copied() {
                let context = context(stream, by);
                let Some(talkers) = self.talkers.get(&(netns, stream, by)) else { continue };
                // Who was only counted before the first reading is in none of it.
                let talkers = || talkers.iter().filter(|talker| talker.most_since() > 0);
                let mut others: Vec<&Talker> = talkers().skip(most).collect();
                others.sort_by_key(|talker| Reverse(talker.certain_since()));
                // Among them, those that belong to the first `most` in all.
                let mut in_all: Vec<u64> = talkers().map(Talker::certain_since).collect();
                in_all.sort_by_key(|certain| Reverse(*certain));
                let enough = in_all.get(most).map_or(1, |certain| certain + 1);
                let others = others.into_iter().filter(|talker| talker.certain_since() >= enough);
                let entries: Vec<TopEntry> = talkers()
                    .take(most)
                    .chain(others)
                    .map(|talker| entry(by, talker, names, &context, wanted.seconds))
                    .collect();
                let begun = self.begun.iter().find(|begun| begun.stream == stream);
                let since = begun.filter(|begun| !begun.at_start).map(|begun| begun.since);
                lists.push(TopList { stream, by, since, entries });
            }
        }
        lists
    }
}

fn entry(
    by: By,
    talker: &Talker,
    names: Names<'_>,
    context: &Context,
    seconds: Option<f64>,
) -> TopEntry {
    let doubt = context.strangers.in_all.saturating_add(context.meanwhile);
    let estimate =
        talker.is_estimated().then(|| talker.estimate(context.unlisted, doubt, context.at_most));
    let (least, count) = match estimate {
        None => {
            let most = talker.most_since().saturating_add(context.unlisted);
            let least = talker.certain_since().saturating_sub(doubt);
            (least, context.at_most.map_or(most, |all| most.min(all)))
        }
        Some(Estimate { at_least, at_most, .. }) => {
            let best = u64::midpoint(talker.certain_since(), talker.most_since());
            (at_least, best.clamp(at_least, at_most))
        }
    };
    let interface = names.interfaces.iter().find(|(index, _)| *index == talker.key.ifindex);
    let cgroup = names.cgroups.iter().find(|(number, _)| *number == talker.key.cgroup());
    let (per_s, per_s_is) = match talker.grown.zip(seconds.filter(|seconds| *seconds > 0.0)) {
        None => (None, Exactness::Unavailable),
        Some((grown, seconds)) => {
            let (of, exactness) = match () {
                () if talker.scale.is_now => (grown.least, Exactness::Estimated),
                () if context.strangers.now > 0 => (grown.most, Exactness::UpperBound),
                () if grown.least != grown.most || context.unlisted > 0 => {
                    (grown.least, Exactness::LowerBound)
                }
                () => (grown.least, Exactness::Exact),
            };
            (Some(of as f64 / seconds), exactness)
        }
    };
    let total = context.total.filter(|total| *total > 0);
    let all_now = context.per_s.filter(|per_s| *per_s > 0.0);
    TopEntry {
        key: talker.key,
        interface: interface.filter(|_| by == By::Interface).map(|(_, name)| name.clone()),
        cgroup: cgroup.filter(|_| by == By::Process).map(|(_, name)| name.clone()),
        count,
        error: count.saturating_sub(least),
        per_s,
        per_s_is,
        share: total.map(|total| (count as f64 / total as f64).min(1.0)),
        share_now: per_s.zip(all_now).map(|(per_s, all)| (per_s / all).min(1.0)),
        estimate,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::{
        model::talkers::Talkers,
        record::sample::{Sample, TopCount, TopCounts},
    };

    fn source(number: u8) -> Key {
        let mut src = [0; 16];
        src[..4].copy_from_slice(&[10, 0, 0, number]);
        Key { netns: 1, src, family: 2, ..Key::default() }
    }

    fn counts(counts: &[(u8, u64, u64)]) -> Sample {
        let count = |(number, count, error): &(u8, u64, u64)| TopCount {
            key: source(*number),
            count: *count,
            error: *error,
            ..TopCount::default()
        };
        let counts: Vec<_> = counts.iter().map(count).collect();
        let tops = vec![TopCounts {
            stream: Stream::Drops,
            by: By::Source,
            offered: 0,
            left_out: 0,
            left_out_at_most: 0,
            counts,
        }];
        Sample { tops, ..Sample::at(Duration::ZERO) }
    }

    fn listing(most: usize) -> Listing {
        Listing { by: By::ALL.to_vec(), most, seconds: Some(2.0) }
    }

    #[test]
    fn who_is_fastest_now_comes_first_whatever_was_before() {
        let mut talkers = Talkers::default();
        talkers.advance(&counts(&[]), None, &HashSet::new());
        talkers.advance(&counts(&[(1, 1000, 0), (2, 10, 0)]), Some(2.0), &HashSet::new());
        let talking = talkers.advance(
            &counts(&[(1, 1010, 0), (2, 110, 0), (3, 60, 20)]),
            Some(2.0),
            &HashSet::new(),
        );
        let context = Context { total: Some(2360), per_s: Some(100.0), ..Context::default() };
        let lists = talking.lists(1, &listing(2), Names::default(), |_, _| context);
        assert_eq!(lists.len(), 1);
        let [first, second, third] = &lists[0].entries[..] else { panic!() };
        assert_eq!((third.key, third.per_s), (source(1), Some(5.0)), "it came to more than most");
        assert_eq!((first.key, first.per_s), (source(2), Some(50.0)));
        assert_eq!((second.key, second.per_s), (source(3), Some(20.0)), "certain since it came");
        assert_eq!((second.count, second.error), (60, 20));
        assert!(
            talking.lists(2, &listing(2), Names::default(), |_, _| context).is_empty(),
            "another namespace"
        );
    }

    #[test]
    fn what_is_in_no_list_and_what_is_no_refusal_widens_the_bounds() {
        let mut talkers = Talkers::default();
        talkers.advance(&counts(&[]), None, &HashSet::new());
        let talking = talkers.advance(&counts(&[(1, 100, 5)]), Some(0.0), &HashSet::new());
        let strangers = Strangers { in_all: 20, now: 2 };
        let context = Context { total: Some(50), unlisted: 3, strangers, ..Context::default() };
        let entry = |context: Context| {
            talking.lists(1, &listing(9), Names::default(), move |_, _| context)[0].entries[0]
                .clone()
        };
        assert_eq!((entry(context).count, entry(context).error), (103, 28));
        let capped = entry(Context { at_most: Some(90), ..context });
        assert_eq!((capped.count, capped.error), (90, 15), "no part is more than the whole");
    }

    #[test]
    fn lists_count_from_where_totals_do() {
        let mut talkers = Talkers::default();
        let context = Context { total: Some(448), at_most: Some(448), ..Context::default() };
        let lists = |talking: Talking, context: Context| {
            talking.lists(1, &listing(9), Names::default(), move |_, _| context)
        };
        // A flood ran while the programs were attached.
        let first =
            talkers.advance(&counts(&[(1, 49, 0), (2, 20, 8), (4, 20, 8)]), None, &HashSet::new());
        let zero = Context { total: Some(0), at_most: Some(0), ..context };
        assert!(lists(first, zero)[0].entries.iter().all(|entry| entry.count == 0));
        let talking = talkers.advance(
            &counts(&[(1, 497, 0), (2, 30, 8), (3, 9, 9), (4, 30, 12)]),
            Some(1.0),
            &HashSet::new(),
        );
        let found = lists(talking, context);
        let of = |number| found[0].entries.iter().find(|entry| entry.key == source(number));
        let bounds = |number| of(number).map(|entry| (entry.count - entry.error, entry.count));
        assert_eq!(bounds(1), Some((448, 448)));
        assert_eq!(of(1).unwrap().share, Some(1.0));
        assert_eq!(bounds(2), Some((10, 10)), "what it was before is no doubt about what came");
        assert_eq!(bounds(3), Some((0, 9)));
        assert_eq!(bounds(4), Some((6, 10)), "four may be others'");
        // Some came while the first reading was made: before the total began, or after.
        let talking = talkers.advance(&counts(&[(1, 497, 0)]), Some(1.0), &HashSet::new());
        let found = lists(talking, Context { meanwhile: 3, ..context });
        let entry = &found[0].entries[0];
        assert_eq!((entry.count - entry.error, entry.count), (445, 448));
    }

    #[test]
    fn what_others_do_is_nobodys_rate() {
        let mut talkers = Talkers::default();
        talkers.advance(&counts(&[(1, 10, 0)]), None, &HashSet::new());
        // On a CPU that does not hold it, others were counted more often.
        let talking = talkers.advance(&counts(&[(1, 14, 4)]), Some(2.0), &HashSet::new());
        let context = Context { per_s: Some(100.0), ..Context::default() };
        let entry = &talking.lists(1, &listing(9), Names::default(), |_, _| context)[0].entries[0];
        assert_eq!((entry.per_s, entry.per_s_is), (Some(0.0), Exactness::LowerBound));
    }

    #[test]
    fn a_share_of_now_is_of_what_happens_now() {
        let mut talkers = Talkers::default();
        talkers.advance(&counts(&[(1, 1000, 0), (2, 0, 0)]), None, &HashSet::new());
        let talking =
            talkers.advance(&counts(&[(1, 1000, 0), (2, 20, 0)]), Some(2.0), &HashSet::new());
        let context = Context { total: Some(1020), per_s: Some(10.0), ..Context::default() };
        let entry = &talking.lists(1, &listing(1), Names::default(), |_, _| context)[0].entries[0];
        assert_eq!((entry.key, entry.share_now), (source(2), Some(1.0)));
        assert!(entry.share.is_some_and(|share| share < 0.02));
    }
}
