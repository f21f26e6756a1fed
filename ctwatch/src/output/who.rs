//! Whose packets: keys as text and as JSON.

use std::net::IpAddr;

use ctwatch_abi::{
    protocol::has_ports,
    top::{By, Stream},
};
use serde::Serialize;

use super::{
    census::shares,
    services::Services,
    text::Tops,
    words::{marked, number, percent},
};
use crate::model::{
    Snapshot, Table,
    figure::Exactness,
    names::{address, comm, protocol},
    top::TopEntry,
};

/// The parts of a key that its list is about; the others are left out.
#[derive(Serialize)]
pub(super) struct KeyObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_src: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_dst: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<u64>,
}

pub(super) fn object(by: By, entry: &TopEntry) -> KeyObject<'_> {
    let key = &entry.key;
    let (source, service) =
        (matches!(by, By::Source | By::Flow), matches!(by, By::Service | By::Flow));
    let (interface, backend) = (by == By::Interface, by == By::Backend);
    let port = || has_ports(key.protocol).then(|| u16::from_be(key.dport));
    KeyObject {
        src: source.then(|| address(key.family, &key.src)),
        dst: (service || by == By::Destination).then(|| address(key.family, &key.dst)),
        proto: (service || backend).then(|| protocol(key.protocol)),
        dport: service.then(port).flatten(),
        // The words of the reply as conntrack -L prints it.
        reply_src: backend.then(|| address(key.family, &key.dst)),
        reply_sport: backend.then(port).flatten(),
        reply_dst: (by == By::ReplyDestination).then(|| address(key.family, &key.src)),
        ifindex: interface.then_some(key.ifindex),
        iface: entry.interface.as_deref().filter(|_| interface),
        comm: (by == By::Process).then(|| comm(&key.src)),
        cgroup: entry.cgroup.as_deref(),
        cgroup_id: (by == By::Process).then(|| key.cgroup()),
    }
}

pub(super) fn name(by: By, entry: &TopEntry, services: &Services) -> String {
    entry.name(by, |protocol, port| services.name(protocol, port))
}

/// What is shown of an entry.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// Its rate, where there is any.
    Now,
    /// All that it came to.
    InAll,
}

/// `dropped by source: 10.1.1.1 512/s 34.0%; …`
pub(super) fn lines(table: &Table, tops: &Tops, measure: Measure) -> Vec<String> {
    let mut lines = Vec::new();
    for list in table.top.iter().filter(|list| tops.by.contains(&list.by)) {
        let mut entries: Vec<&TopEntry> =
            list.entries.iter().filter(|entry| is_shown(entry, measure)).collect();
        if measure == Measure::InAll {
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.count));
        }
        entries.truncate(tops.most);
        if entries.is_empty() {
            continue;
        }
        let what = match list.stream {
            Stream::Drops => "dropped",
            Stream::Insertions => "inserted",
        };
        let entries = entries.iter().map(|entry| {
            format!("{} {}", name(list.by, entry, &tops.services), weight(entry, measure))
        });
        let entries: Vec<String> = entries.collect();
        lines.push(format!("{what} by {}: {}", list.by.name(), entries.join("; ")));
    }
    let happening = table
        .control_plane
        .iter()
        .filter(|found| measure == Measure::InAll || found.per_s.is_some_and(|per_s| per_s > 0.0));
    let found: Vec<String> = happening
        .map(|found| match (measure, found.per_s) {
            (Measure::Now, Some(per_s)) => format!("{} {}/s", found.protocol, number(per_s)),
            _ => format!("{} >={}", found.protocol, found.at_least),
        })
        .collect();
    if !found.is_empty() {
        lines.push(format!("CONTROL PLANE DROPPED: {}", found.join(", ")));
    }
    lines
}

/// What holds the table, by the last census.
pub(super) fn holding(snapshot: &Snapshot, table: &Table, tops: &Tops) -> Vec<String> {
    let (Some((taken, age)), Some(census)) = (&snapshot.census, snapshot.census(table)) else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "holding: {}; census by {} {:.0} s ago",
        shares(&census.holds),
        taken.by,
        age.as_secs_f64()
    )];
    for list in taken.counted.lists(table.id).filter(|list| tops.by.contains(&list.by)) {
        let entries = list.entries.iter().take(tops.most).map(|entry| {
            let name = name(list.by, entry, &tops.services);
            format!("{name} {}", weight(entry, Measure::InAll))
        });
        let entries: Vec<String> = entries.collect();
        if !entries.is_empty() {
            lines.push(format!("holding by {}: {}", list.by.name(), entries.join("; ")));
        }
    }
    lines
}

/// Without anything certain, a name is only the last of many that came by.
fn is_shown(entry: &TopEntry, measure: Measure) -> bool {
    match measure {
        Measure::Now => entry.per_s.is_some_and(|per_s| per_s > 0.0),
        Measure::InAll => entry.count > entry.error,
    }
}

/// `512/s 34.0%`, of what happens now, or `<=1783 <=34.0%`, of all since the start.
fn weight(entry: &TopEntry, measure: Measure) -> String {
    let (exactness, amount, share) = match (measure, entry.per_s) {
        (Measure::Now, Some(per_s)) => {
            (entry.per_s_is, format!("{}/s", number(per_s)), entry.share_now)
        }
        _ => {
            let exactness = if entry.error > 0 { Exactness::UpperBound } else { Exactness::Exact };
            (exactness, entry.count.to_string(), entry.share)
        }
    };
    let amount = marked(exactness, &amount);
    match share {
        Some(share) => format!("{amount} {}", marked(exactness, &percent(Some(share)))),
        None => amount,
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::{AF_INET, Key};

    use super::*;

    fn entry() -> TopEntry {
        let mut key =
            Key { protocol: 17, dport: 53_u16.to_be(), family: AF_INET, ..Key::default() };
        key.src[..4].copy_from_slice(&[10, 1, 1, 1]);
        key.dst[..4].copy_from_slice(&[10, 100, 1, 1]);
        TopEntry {
            key,
            interface: None,
            cgroup: None,
            count: 100,
            error: 3,
            per_s: Some(12.0),
            per_s_is: Exactness::Exact,
            share: Some(0.5),
            share_now: Some(0.25),
        }
    }

    #[test]
    fn names_are_what_a_network_engineer_writes() {
        let services = Services::parse("domain\t53/udp\n");
        let entry = entry();
        assert_eq!(name(By::Source, &entry, &services), "10.1.1.1");
        assert_eq!(name(By::Service, &entry, &services), "10.100.1.1 udp/53 (domain)");
        assert_eq!(name(By::Flow, &entry, &Services::default()), "10.1.1.1 > 10.100.1.1 udp/53");
        assert_eq!(name(By::Interface, &entry, &services), "this host");
        let ospf = TopEntry { key: Key { protocol: 89, ..entry.key }, ..entry.clone() };
        assert_eq!(name(By::Service, &ospf, &services), "10.100.1.1 ospf");
        assert_eq!(weight(&entry, Measure::Now), "12/s 25.0%");
        let at_least = TopEntry { per_s_is: Exactness::LowerBound, ..entry.clone() };
        assert_eq!(weight(&at_least, Measure::Now), ">=12/s >=25.0%");
        assert_eq!(weight(&entry, Measure::InAll), "<=100 <=50.0%");
        let exact = TopEntry { error: 0, share: None, ..entry };
        assert_eq!(weight(&exact, Measure::InAll), "100");
    }

    #[test]
    fn a_key_in_json_has_the_fields_it_is_about() {
        let json = |by| serde_json::to_string(&object(by, &entry())).unwrap();
        assert_eq!(json(By::Source), r#"{"src":"10.1.1.1"}"#);
        assert_eq!(json(By::Service), r#"{"dst":"10.100.1.1","proto":"udp","dport":53}"#);
        assert_eq!(json(By::Interface), r#"{"ifindex":0}"#);
        let backend = r#"{"proto":"udp","reply_src":"10.100.1.1","reply_sport":53}"#;
        assert_eq!(json(By::Backend), backend);
        assert_eq!(json(By::ReplyDestination), r#"{"reply_dst":"10.1.1.1"}"#);
    }
}
