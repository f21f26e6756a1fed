//! Whom an entry of a list is about.

use std::net::IpAddr;

use ctwatch_abi::{protocol::has_ports, top::By};
use serde::Serialize;

use crate::model::{
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

pub(super) fn key(by: By, entry: &TopEntry) -> KeyObject<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixtures::top_entry as entry;

    #[test]
    fn a_key_in_json_has_the_fields_it_is_about() {
        let json = |by| serde_json::to_string(&key(by, &entry())).unwrap();
        assert_eq!(json(By::Source), r#"{"src":"10.1.1.1"}"#);
        assert_eq!(json(By::Service), r#"{"dst":"10.100.1.1","proto":"udp","dport":53}"#);
        assert_eq!(json(By::Interface), r#"{"ifindex":0}"#);
        let backend = r#"{"proto":"udp","reply_src":"10.100.1.1","reply_sport":53}"#;
        assert_eq!(json(By::Backend), backend);
        assert_eq!(json(By::ReplyDestination), r#"{"reply_dst":"10.1.1.1"}"#);
    }
}
