//! From counts of heavy hitters to lists: who, how fast, what share, how far to trust it.

use std::collections::HashMap;

use ctwatch_ebpf::{
    NetnsId,
    top::{By, Key, Stream},
};

use crate::sample::TopCounts;

/// The first of one stream, told apart in one way, in one namespace.
#[derive(Clone, Debug)]
pub struct TopList {
    pub stream: Stream,
    pub by: By,
    pub entries: Vec<TopEntry>,
}

/// `count - error <= true count <= count`, since the start.
#[derive(Clone, Debug)]
pub struct TopEntry {
    pub key: Key,
    /// What the key's interface is called.
    pub interface: Option<String>,
    /// What its cgroup is called.
    pub cgroup: Option<String>,
    pub count: u64,
    pub error: u64,
    /// `None` in the first sample, which has nothing before it.
    pub per_s: Option<f64>,
    /// Of all of the stream in the namespace.
    pub share: Option<f64>,
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
    /// Events that are in no list, in whatever namespace they happened.
    pub(super) unlisted: u64,
    /// Events that are in the lists and not of the stream: packets that a rule dropped.
    pub(super) strangers: u64,
}

/// What was counted at the last sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Talkers {
    last: HashMap<(Stream, By, Key), u64>,
}

/// One count with its rate.
#[derive(Clone, Copy)]
struct Talker {
    key: Key,
    count: u64,
    error: u64,
    per_s: Option<f64>,
}

impl Talker {
    /// The least that it can be.
    fn certain(&self) -> u64 {
        self.count - self.error
    }
}

/// The talkers of each namespace, table by table.
#[derive(Default)]
pub(super) struct Talking(HashMap<(NetnsId, Stream, By), Vec<Talker>>);

impl Talkers {
    pub(super) fn advance(&mut self, tops: &[TopCounts], seconds: Option<f64>) -> Talking {
        let mut talking = Talking::default();
        let mut now = HashMap::with_capacity(self.last.len());
        for list in tops {
            for count in &list.counts {
                let id = (list.stream, list.by, count.key);
                // One that was in no slot has certainly been counted since it came into one.
                let certain = count.count - count.error;
                let more =
                    self.last.get(&id).map_or(certain, |last| count.count.saturating_sub(*last));
                now.insert(id, count.count);
                let per_s = seconds.filter(|s| *s > 0.0).map(|seconds| more as f64 / seconds);
                let (key, error) = (count.key, count.error);
                let talker = Talker { key, count: count.count, error, per_s };
                let of = (key.netns, list.stream, list.by);
                talking.0.entry(of).or_default().push(talker);
            }
        }
        self.last = now;
        for talkers in talking.0.values_mut() {
            let rate = |talker: &Talker| talker.per_s.unwrap_or(0.0);
            talkers.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(b.count.cmp(&a.count)));
        }
        talking
    }
}

impl Talking {
    /// The first `most` of a namespace, by what they do now and by what it came to: somebody who
    /// has just paused is still who it was.
    pub(super) fn lists(
        &self,
        netns: NetnsId,
        most: usize,
        names: Names<'_>,
        context: impl Fn(Stream, By) -> Context,
    ) -> Vec<TopList> {
        let mut lists = Vec::new();
        for stream in Stream::ALL {
            for by in By::ALL {
                let context = context(stream, by);
                let Some(talkers) = self.0.get(&(netns, stream, by)) else { continue };
                let mut others: Vec<&Talker> = talkers.iter().skip(most).collect();
                others.sort_by_key(|talker| std::cmp::Reverse(talker.certain()));
                // Among them, those that belong to the first `most` in all.
                let mut in_all: Vec<u64> = talkers.iter().map(Talker::certain).collect();
                in_all.sort_by_key(|certain| std::cmp::Reverse(*certain));
                let enough = in_all.get(most).map_or(1, |certain| certain + 1);
                let others = others.into_iter().filter(|talker| talker.certain() >= enough);
                let entries: Vec<TopEntry> = talkers
                    .iter()
                    .take(most)
                    .chain(others)
                    .map(|talker| entry(by, talker, names, &context))
                    .collect();
                lists.push(TopList { stream, by, entries });
            }
        }
        lists
    }

    /// Well-known protocols among the packets that were refused, however few.
    pub(super) fn control_plane(&self, netns: NetnsId, strangers: u64) -> Vec<ControlPlane> {
        let mut found: Vec<ControlPlane> = Vec::new();
        let talkers = self.0.get(&(netns, Stream::Drops, By::Service));
        // Where rules drop packets too, nobody can say that it was a refusal.
        for talker in talkers.into_iter().flatten().filter(|_| strangers == 0) {
            let Some(protocol) = control_plane(talker.key.protocol, u16::from_be(talker.key.dport))
            else {
                continue;
            };
            let certain = talker.count - talker.error;
            if certain == 0 {
                continue;
            }
            match found.iter_mut().find(|found| found.protocol == protocol) {
                Some(found) => {
                    found.at_least += certain;
                    found.per_s = found.per_s.zip(talker.per_s).map(|(a, b)| a + b);
                }
                None => {
                    found.push(ControlPlane { protocol, at_least: certain, per_s: talker.per_s })
                }
            }
        }
        found
    }
}

fn entry(by: By, talker: &Talker, names: Names<'_>, context: &Context) -> TopEntry {
    let count = talker.count.saturating_add(context.unlisted);
    let error = talker.error.saturating_add(context.unlisted).saturating_add(context.strangers);
    let share = context.total.filter(|total| *total > 0);
    let interface = names.interfaces.iter().find(|(index, _)| *index == talker.key.ifindex);
    let cgroup = names.cgroups.iter().find(|(number, _)| *number == talker.key.cgroup());
    TopEntry {
        key: talker.key,
        interface: interface.filter(|_| by == By::Interface).map(|(_, name)| name.clone()),
        cgroup: cgroup.filter(|_| by == By::Process).map(|(_, name)| name.clone()),
        count,
        error: error.min(count),
        per_s: talker.per_s,
        share: share.map(|total| (talker.count as f64 / total as f64).min(1.0)),
    }
}

/// What a router or switch speaks itself: when these are refused, that is the outage.
fn control_plane(protocol: u8, port: u16) -> Option<&'static str> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    Some(match (protocol, port) {
        (TCP, 179) => "BGP",
        (UDP, 3784 | 3785 | 4784 | 7784) => "BFD",
        (89, _) => "OSPF",
        (88, _) => "EIGRP",
        (103, _) => "PIM",
        (2, _) => "IGMP",
        (112, _) => "VRRP",
        (UDP, 1985) => "HSRP",
        (TCP | UDP, 646) => "LDP",
        (UDP, 520) => "RIP",
        (TCP, 4432 | 5342) => "MLAG",
        (UDP, 4789 | 8472) => "VXLAN",
        (47, _) => "GRE",
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
    use crate::sample::TopCount;

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

    #[test]
    fn who_is_fastest_now_comes_first_whatever_was_before() {
        let mut talkers = Talkers::default();
        talkers.advance(&counts(&[(1, 1000, 0), (2, 10, 0)]), None);
        let talking =
            talkers.advance(&counts(&[(1, 1010, 0), (2, 110, 0), (3, 60, 20)]), Some(2.0));
        let context = Context { total: Some(2360), unlisted: 0, strangers: 0 };
        let lists = talking.lists(1, 2, Names::default(), |_, _| context);
        assert_eq!(lists.len(), 1);
        let [first, second, third] = &lists[0].entries[..] else { panic!() };
        assert_eq!((third.key, third.per_s), (source(1), Some(5.0)), "it came to more than most");
        assert_eq!((first.key, first.per_s), (source(2), Some(50.0)));
        assert_eq!((second.key, second.per_s), (source(3), Some(20.0)), "certain since it came");
        assert_eq!((second.count, second.error), (60, 20));
        assert!(
            talking.lists(2, 2, Names::default(), |_, _| context).is_empty(),
            "another namespace"
        );
    }

    #[test]
    fn what_is_in_no_list_and_what_is_no_refusal_widens_the_bounds() {
        let talking = Talkers::default().advance(&counts(&[(1, 100, 5)]), None);
        let context = Context { total: Some(50), unlisted: 3, strangers: 20 };
        let entry = &talking.lists(1, 9, Names::default(), |_, _| context)[0].entries[0];
        assert_eq!((entry.count, entry.error), (103, 28));
        assert_eq!((entry.share, entry.per_s), (Some(1.0), None));
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
        let talking = Talkers::default().advance(&tops, None);
        let bgp = ControlPlane { protocol: "BGP", at_least: 3, per_s: None };
        assert_eq!(talking.control_plane(1, 0), [bgp], "of the other nothing is certain");
        assert!(talking.control_plane(1, 7).is_empty());
    }
}
