//! From counts of heavy hitters to lists: who, how fast, what share, how far to trust it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use ctwatch_abi::{
    NetnsId,
    protocol::{EIGRP, GRE, IGMP, OSPF, PIM, TCP, UDP, VRRP},
    top::{By, Key, Stream},
};

use super::figure::Exactness;
use crate::record::sample::TopCounts;

/// The first of one stream, told apart in one way, in one namespace.
#[derive(Clone, Debug)]
pub struct TopList {
    pub stream: Stream,
    pub by: By,
    pub entries: Vec<TopEntry>,
}

/// `count - error <= true count <= count`, since the first reading, as totals are.
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
}

/// Packets of a control plane that were refused.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlPlane {
    pub protocol: &'static str,
    pub at_least: u64,
    pub per_s: Option<f64>,
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

/// What was counted at the last sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Talkers {
    /// Count and error.
    last: HashMap<(Stream, By, Key), (u64, u64)>,
    /// The same at the first sample, from which on totals count. The programs count from when they
    /// were attached.
    base: HashMap<(Stream, By, Key), (u64, u64)>,
    /// Packets of control planes that were certainly refused, so far.
    planes: BTreeMap<(NetnsId, &'static str), Plane>,
    seconds: Option<f64>,
}

/// What is known of one control plane.
#[derive(Clone, Copy, Debug, Default)]
struct Plane {
    at_least: u64,
    /// What was in the lists before totals began to count.
    before: u64,
}

/// One count, and how much of it came since the sample before.
#[derive(Clone, Copy)]
struct Talker {
    key: Key,
    count: u64,
    error: u64,
    /// Count and error of the first sample; one that was in no slot then has been counted in its own
    /// since.
    base: (u64, u64),
    grown: Option<Grown>,
}

/// Between so much and so much.
#[derive(Clone, Copy)]
struct Grown {
    least: u64,
    most: u64,
}

impl Talker {
    /// The least that it can be, since the programs were attached.
    fn certain(&self) -> u64 {
        self.count.saturating_sub(self.error)
    }

    /// The same since the first sample.
    fn certain_since(&self) -> u64 {
        self.certain().saturating_sub(self.base.0)
    }

    /// The most that it can be since the first sample.
    fn most_since(&self) -> u64 {
        self.count.saturating_sub(self.base.0.saturating_sub(self.base.1))
    }
}

/// The talkers of each namespace, table by table.
#[derive(Default)]
pub(super) struct Talking(HashMap<(NetnsId, Stream, By), Vec<Talker>>);

impl Talkers {
    /// Without those of `idle`, in which nothing has happened since.
    pub(super) fn advance(
        &mut self,
        tops: &[TopCounts],
        seconds: Option<f64>,
        idle: &HashSet<NetnsId>,
    ) -> Talking {
        let mut talking = Talking::default();
        let mut now = HashMap::with_capacity(self.last.len());
        for list in tops {
            for count in &list.counts {
                let id = (list.stream, list.by, count.key);
                if idle.contains(&count.key.netns) {
                    now.insert(id, (count.count, count.error));
                    continue;
                }
                let certain = count.count.saturating_sub(count.error);
                // Where the error grew, it was what others did; and one that was in no slot has
                // certainly been counted since it came into one.
                let (last_count, last_error) = self.last.get(&id).copied().unwrap_or((0, 0));
                let last_certain = last_count.saturating_sub(last_error);
                let grown = Grown {
                    least: certain.saturating_sub(last_certain),
                    most: match last_error == count.error {
                        true => count.count.saturating_sub(last_count),
                        false => count.count - last_certain.min(count.count),
                    },
                };
                now.insert(id, (count.count, count.error));
                let (key, error) = (count.key, count.error);
                let grown = seconds.map(|_| grown);
                let base = match seconds {
                    Some(_) => self.base.get(&id).copied().unwrap_or_default(),
                    None => (count.count, error),
                };
                let talker = Talker { key, count: count.count, error, base, grown };
                let of = (key.netns, list.stream, list.by);
                talking.0.entry(of).or_default().push(talker);
            }
        }
        if seconds.is_none() {
            self.base.clone_from(&now);
        }
        self.last = now;
        self.seconds = seconds.filter(|seconds| *seconds > 0.0);
        for talkers in talking.0.values_mut() {
            let grown = |talker: &Talker| talker.grown.map_or(0, |grown| grown.least);
            talkers.sort_by_key(|talker| Reverse((grown(talker), talker.most_since())));
        }
        talking
    }

    /// Well-known protocols among the packets that were refused, however few. What is certain of
    /// each interval adds up; and where the whole says more than that, because of packets that were
    /// on their way when an interval ended, it is taken at its word.
    pub(super) fn control_plane(
        &mut self,
        talking: &Talking,
        netns: NetnsId,
        strangers: Strangers,
    ) -> Vec<ControlPlane> {
        // Since the sample before, and in all.
        let mut sums: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        let talkers = talking.0.get(&(netns, Stream::Drops, By::Service));
        for talker in talkers.into_iter().flatten() {
            let port = u16::from_be(talker.key.dport);
            if let Some(protocol) = control_plane(talker.key.protocol, port) {
                let (now, in_all) = sums.entry(protocol).or_default();
                *now += talker.grown.map_or(0, |grown| grown.least);
                *in_all += talker.certain();
            }
        }
        let mut more: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (protocol, (now, in_all)) in sums {
            let plane = self.planes.entry((netns, protocol)).or_default();
            if self.seconds.is_none() {
                plane.before = in_all;
            }
            // Any packet that a rule dropped may be one of these.
            let so_far = plane.at_least + now.saturating_sub(strangers.now);
            let in_all = in_all.saturating_sub(plane.before).saturating_sub(strangers.in_all);
            let at_least = so_far.max(in_all);
            more.insert(protocol, at_least - plane.at_least);
            plane.at_least = at_least;
        }
        let per_s = |protocol| {
            let more = more.get(protocol).copied().unwrap_or(0);
            self.seconds.map(|seconds| more as f64 / seconds)
        };
        let of_it = self.planes.range((netns, "")..).take_while(|((id, _), _)| *id == netns);
        let certain = of_it.filter(|(_, plane)| plane.at_least > 0);
        certain
            .map(|((_, protocol), plane)| ControlPlane {
                protocol,
                at_least: plane.at_least,
                per_s: per_s(protocol),
            })
            .collect()
    }

    /// Nobody asks for this namespace any more.
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.planes.retain(|(id, _), _| *id != netns);
    }
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
                let Some(talkers) = self.0.get(&(netns, stream, by)) else { continue };
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
                lists.push(TopList { stream, by, entries });
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
    let most = talker.most_since().saturating_add(context.unlisted);
    let doubt = context.strangers.in_all.saturating_add(context.meanwhile);
    let least = talker.certain_since().saturating_sub(doubt);
    let count = context.at_most.map_or(most, |all| most.min(all));
    let interface = names.interfaces.iter().find(|(index, _)| *index == talker.key.ifindex);
    let cgroup = names.cgroups.iter().find(|(number, _)| *number == talker.key.cgroup());
    let (per_s, per_s_is) = match talker.grown.zip(seconds.filter(|seconds| *seconds > 0.0)) {
        None => (None, Exactness::Unavailable),
        Some((grown, seconds)) => {
            let (of, exactness) = match () {
                () if context.strangers.now > 0 => (grown.most, Exactness::UpperBound),
                () if grown.least < grown.most || context.unlisted > 0 => {
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
    }
}

/// What a router or switch speaks itself: when these are refused, that is the outage.
fn control_plane(protocol: u8, port: u16) -> Option<&'static str> {
    Some(match (protocol, port) {
        (TCP, 179) => "BGP",
        (UDP, 3784 | 3785 | 4784 | 7784) => "BFD",
        (OSPF, _) => "OSPF",
        (EIGRP, _) => "EIGRP",
        (PIM, _) => "PIM",
        (IGMP, _) => "IGMP",
        (VRRP, _) => "VRRP",
        (UDP, 1985) => "HSRP",
        (TCP | UDP, 646) => "LDP",
        (UDP, 520) => "RIP",
        (TCP, 4432 | 5342) => "MLAG",
        (UDP, 4789 | 8472) => "VXLAN",
        (GRE, _) => "GRE",
        (TCP, 22) => "SSH",
        (TCP, 830) => "NETCONF",
        (TCP, 49) => "TACACS+",
        (UDP, 1812 | 1813) => "RADIUS",
        (UDP, 67 | 68 | 546 | 547) => "DHCP",
        (TCP | UDP, 53) => "DNS",
        (UDP, 123) => "NTP",
        (UDP, 161 | 162) => "SNMP",
        (UDP, 500 | 4500) => "IKE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::sample::TopCount;

    fn source(number: u8) -> Key {
        let mut src = [0; 16];
        src[..4].copy_from_slice(&[10, 0, 0, number]);
        Key { netns: 1, src, family: 2, ..Key::default() }
    }

    fn counts(counts: &[(u8, u64, u64)]) -> [TopCounts; 1] {
        let count = |(number, count, error): &(u8, u64, u64)| TopCount {
            key: source(*number),
            count: *count,
            error: *error,
        };
        let counts: Vec<_> = counts.iter().map(count).collect();
        [TopCounts { stream: Stream::Drops, by: By::Source, offered: 0, counts }]
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
        let first = talkers.advance(&counts(&[(1, 49, 0), (2, 20, 8)]), None, &HashSet::new());
        let zero = Context { total: Some(0), at_most: Some(0), ..context };
        assert!(lists(first, zero)[0].entries.iter().all(|entry| entry.count == 0));
        let talking = talkers.advance(
            &counts(&[(1, 497, 0), (2, 30, 8), (3, 9, 9)]),
            Some(1.0),
            &HashSet::new(),
        );
        let found = lists(talking, context);
        let of = |number| found[0].entries.iter().find(|entry| entry.key == source(number));
        let bounds = |number| of(number).map(|entry| (entry.count - entry.error, entry.count));
        assert_eq!(bounds(1), Some((448, 448)));
        assert_eq!(of(1).unwrap().share, Some(1.0));
        assert_eq!(bounds(2), Some((2, 18)), "what it was before is between 12 and 20");
        assert_eq!(bounds(3), Some((0, 9)));
        // Some came while the first reading was made: before the total began, or after.
        let talking = talkers.advance(&counts(&[(1, 497, 0)]), Some(1.0), &HashSet::new());
        let found = lists(talking, Context { meanwhile: 3, ..context });
        let entry = &found[0].entries[0];
        assert_eq!((entry.count - entry.error, entry.count), (445, 448));
    }

    #[test]
    fn a_few_packets_of_a_control_plane_are_called_out() {
        let service = |protocol, port: u16, count| TopCount {
            key: Key { netns: 1, protocol, dport: port.to_be(), family: 2, ..Key::default() },
            count,
            error: 1,
        };
        let counts = vec![service(17, 9, 1000), service(6, 179, 4), service(89, 0, 1)];
        let tops = [TopCounts { stream: Stream::Drops, by: By::Service, offered: 0, counts }];
        let mut talkers = Talkers::default();
        let none = Strangers::default();
        let talking = talkers.advance(&[], None, &HashSet::new());
        assert!(talkers.control_plane(&talking, 1, none).is_empty());
        let talking = talkers.advance(&tops, Some(1.0), &HashSet::new());
        let mut bgp = ControlPlane { protocol: "BGP", at_least: 3, per_s: Some(3.0) };
        let found = talkers.control_plane(&talking, 1, none);
        assert_eq!(found, [bgp.clone()], "of the other nothing is certain");
        // A rule dropped packets later: what was certain stays, and nothing happens now.
        let talking = talkers.advance(&tops, Some(1.0), &HashSet::new());
        bgp.per_s = Some(0.0);
        let rule = Strangers { in_all: 7, now: 7 };
        assert_eq!(talkers.control_plane(&talking, 1, rule), [bgp]);
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
