//! Control planes among the packets that were dropped, however few.

use std::collections::{BTreeMap, HashMap};

use ctwatch_abi::{HostCount, NetnsId, plane::Plane};

use super::{figure::Exactness, top::Strangers};
use crate::record::sample::Sample;

/// Packets of a control plane that were dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    pub protocol: &'static str,
    pub at_least: u64,
    pub per_s: Option<f64>,
    /// Whether there were no more: exact, or a lower bound.
    pub exactness: Exactness,
}

/// What was counted of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Planes {
    seen: BTreeMap<(NetnsId, &'static str), Seen>,
    /// By the programs, at this sample; `None` where they do not count them apart.
    counted: Option<HashMap<NetnsId, Vec<(Plane, u64)>>>,
    /// Those that there was no room for, at the first sample and since.
    unplaced: (u64, u64),
    is_first: bool,
    seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    at_least: u64,
    /// What was counted before totals began to count.
    before: u64,
    /// What was counted at the sample before.
    last: u64,
    /// Of what was counted since, so much may have been before totals began.
    owed: u64,
}

/// What stands against a count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubts {
    /// Packets that a rule may have dropped.
    pub(super) strangers: Strangers,
    /// Packets while the first reading was made.
    pub(super) meanwhile: u64,
    /// Some may not have been seen at all.
    pub(super) may_miss: bool,
}

impl Planes {
    pub(super) fn advance(&mut self, sample: &Sample, seconds: Option<f64>) {
        self.counted = sample.planes.as_ref().map(|planes| {
            let mut counted: HashMap<NetnsId, Vec<(Plane, u64)>> = HashMap::new();
            for of in planes {
                counted.entry(of.netns).or_default().push((of.plane, of.count));
            }
            counted
        });
        let unplaced = sample.probed.map_or(0, |probed| probed.host.get(HostCount::UnplacedPlanes));
        self.is_first = seconds.is_none();
        if self.is_first {
            self.unplaced.0 = unplaced;
        }
        self.unplaced.1 = unplaced.saturating_sub(self.unplaced.0);
        self.seconds = seconds.filter(|seconds| *seconds > 0.0);
    }

    /// Those of one namespace. `listed` is what the list of services says where they are not counted
    /// apart: what is certain since the sample before, and in all.
    pub(super) fn of(
        &mut self,
        netns: NetnsId,
        listed: impl Iterator<Item = (Plane, (u64, u64))>,
        doubts: Doubts,
    ) -> Vec<ControlPlane> {
        let Doubts { strangers, meanwhile, may_miss } = doubts;
        let is_counted = self.counted.is_some();
        let mut sums: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        match &self.counted {
            Some(counted) => {
                for (plane, in_all) in counted.get(&netns).into_iter().flatten() {
                    let seen = self.seen.entry((netns, plane.name())).or_default();
                    if self.is_first {
                        (seen.last, seen.owed) = (*in_all, meanwhile);
                    }
                    let now = in_all.saturating_sub(seen.last);
                    let certain = now.saturating_sub(seen.owed);
                    (seen.last, seen.owed) = (*in_all, seen.owed.saturating_sub(now));
                    sums.insert(plane.name(), (certain, in_all.saturating_sub(meanwhile)));
                }
            }
            None => {
                for (plane, (now, in_all)) in listed {
                    let sum = sums.entry(plane.name()).or_default();
                    *sum = (sum.0 + now, sum.1 + in_all);
                }
            }
        }
        // What is certain of each interval adds up; and where the whole says more than that, because of
        // packets that were on their way when an interval ended, it is taken at its word.
        let mut more: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (protocol, (now, in_all)) in sums {
            let seen = self.seen.entry((netns, protocol)).or_default();
            if self.is_first {
                seen.before = if is_counted { seen.last } else { in_all };
            }
            // Any packet that a rule dropped may be one of these.
            let so_far = seen.at_least + now.saturating_sub(strangers.now);
            let in_all = in_all.saturating_sub(seen.before).saturating_sub(strangers.in_all);
            let at_least = so_far.max(in_all);
            more.insert(protocol, at_least - seen.at_least);
            seen.at_least = at_least;
        }
        let is_exact = is_counted
            && !may_miss
            && self.unplaced.1 == 0
            && meanwhile == 0
            && strangers.in_all == 0;
        let exactness = if is_exact { Exactness::Exact } else { Exactness::LowerBound };
        let per_s = |protocol| {
            let more = more.get(protocol).copied().unwrap_or(0);
            self.seconds.map(|seconds| more as f64 / seconds)
        };
        let of_it = self.seen.range((netns, "")..).take_while(|((id, _), _)| *id == netns);
        let certain = of_it.filter(|(_, seen)| seen.at_least > 0);
        certain
            .map(|((_, protocol), seen)| ControlPlane {
                protocol,
                at_least: seen.at_least,
                per_s: per_s(protocol),
                exactness,
            })
            .collect()
    }

    /// Nobody asks for this namespace any more.
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.seen.retain(|(id, _), _| *id != netns);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{
        sample::{PlaneCount, Probed},
        tests::recorded,
    };

    fn sample(bgp: u64, dns: u64, unplaced: u32) -> Sample {
        let mut probed = Probed::default();
        (0..unplaced).for_each(|_| probed.host.bump(HostCount::UnplacedPlanes));
        let of = |plane, count| PlaneCount { netns: 1, plane, count };
        let planes = Some(vec![of(Plane::Bgp, bgp), of(Plane::Dns, dns)]);
        recorded(&Sample { planes, probed: Some(probed), ..Sample::at(Duration::ZERO) })
    }

    fn found(planes: &mut Planes, doubts: Doubts) -> Vec<(&'static str, u64, Exactness)> {
        let found = planes.of(1, std::iter::empty(), doubts);
        found.iter().map(|of| (of.protocol, of.at_least, of.exactness)).collect()
    }

    #[test]
    fn counted_control_planes_are_exact() {
        let (mut planes, none) = (Planes::default(), Doubts::default());
        planes.advance(&sample(5, 100, 0), None);
        assert_eq!(found(&mut planes, none), [], "totals begin here");
        planes.advance(&sample(7, 100, 0), Some(2.0));
        let of_bgp = planes.of(1, std::iter::empty(), none);
        assert_eq!((of_bgp[0].at_least, of_bgp[0].per_s), (2, Some(1.0)));
        planes.advance(&sample(7, 101, 0), Some(1.0));
        let all = [("BGP", 2, Exactness::Exact), ("DNS", 1, Exactness::Exact)];
        assert_eq!(found(&mut planes, none), all);
        // It was gone from the kernel's map: what was counted was counted.
        planes.advance(&Sample { planes: Some(Vec::new()), ..sample(0, 0, 0) }, Some(1.0));
        assert_eq!(found(&mut planes, none), all);
        planes.forget(1);
        assert_eq!(found(&mut planes, none), []);
    }

    #[test]
    fn a_doubt_makes_a_lower_bound() {
        let strangers = Strangers { in_all: 3, now: 3 };
        for (doubts, unplaced, at_least) in [
            (Doubts { strangers, ..Doubts::default() }, 0, 7),
            (Doubts { meanwhile: 4, ..Doubts::default() }, 0, 6),
            (Doubts { may_miss: true, ..Doubts::default() }, 0, 10),
            (Doubts::default(), 1, 10),
        ] {
            let mut planes = Planes::default();
            planes.advance(&sample(5, 0, 0), None);
            assert_eq!(found(&mut planes, doubts), []);
            planes.advance(&sample(15, 0, unplaced), Some(1.0));
            let bgp = [("BGP", at_least, Exactness::LowerBound)];
            assert_eq!(found(&mut planes, doubts), bgp, "{doubts:?}");
            planes.advance(&sample(16, 0, unplaced), Some(1.0));
            let now = Strangers { now: 0, ..doubts.strangers };
            let doubts = Doubts { strangers: now, ..doubts };
            let bgp = [("BGP", at_least + 1, Exactness::LowerBound)];
            assert_eq!(found(&mut planes, doubts), bgp, "{doubts:?}");
        }
    }
}
