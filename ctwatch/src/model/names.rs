//! What keys are called: in the words of a network engineer, without asking anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctwatch_abi::{
    protocol::{self, has_ports},
    top::{AF_INET, By},
};

use super::top::TopEntry;

impl TopEntry {
    /// `10.1.1.1`, `10.100.1.1 udp/53 (domain)`, `10.1.1.1 > 10.100.1.1 udp/53 (domain)`, `eth0`.
    /// `service` knows names of protocols' ports.
    pub fn name<'a>(&self, by: By, service: impl Fn(&str, u16) -> Option<&'a str>) -> String {
        let key = &self.key;
        let src = || address(key.family, &key.src);
        let dst = || address(key.family, &key.dst);
        let service = || {
            let protocol = protocol(key.protocol);
            if !has_ports(key.protocol) {
                return format!("{} {protocol}", dst());
            }
            let port = u16::from_be(key.dport);
            match service(&protocol, port) {
                Some(name) => format!("{} {protocol}/{port} ({name})", dst()),
                None => format!("{} {protocol}/{port}", dst()),
            }
        };
        match by {
            By::Source | By::ReplyDestination => src().to_string(),
            By::Destination => dst().to_string(),
            By::Service | By::Backend => service(),
            By::Flow => format!("{} > {}", src(), service()),
            By::Interface => match (&self.interface, key.ifindex) {
                (Some(name), _) => word(name),
                (None, 0) => "this host".to_owned(),
                (None, index) => format!("interface {index}"),
            },
            By::Process => match &self.cgroup {
                Some(cgroup) => format!("{} ({})", word(&comm(&key.src)), word(cgroup)),
                None => word(&comm(&key.src)),
            },
        }
    }
}

/// A name that a stranger chose, as one word: in quotes where a reader could take its parts for
/// words of ours. A quotation mark in it would end them.
pub fn word(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@+[]~%".contains(c);
    // What stands for a namespace without a name.
    match !name.is_empty() && name.chars().all(plain) && !name.starts_with("net:[") {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\\u{22}")),
    }
}

/// A process' name, as the kernel keeps it.
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Those of IPv4 are in the first four bytes.
pub fn address(family: u8, bytes: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *bytes;
    match family {
        AF_INET => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(*bytes).into(),
    }
}

const PROTOCOLS: [(u8, &str); 15] = [
    (protocol::ICMP, "icmp"),
    (protocol::IGMP, "igmp"),
    (protocol::TCP, "tcp"),
    (protocol::UDP, "udp"),
    (protocol::DCCP, "dccp"),
    (protocol::GRE, "gre"),
    (protocol::ESP, "esp"),
    (protocol::AH, "ah"),
    (protocol::ICMPV6, "icmpv6"),
    (protocol::EIGRP, "eigrp"),
    (protocol::OSPF, "ospf"),
    (protocol::PIM, "pim"),
    (protocol::VRRP, "vrrp"),
    (protocol::SCTP, "sctp"),
    (protocol::UDPLITE, "udplite"),
];

/// Its name, or else its number.
pub fn protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The other way round.
pub fn protocol_number(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
    known.map_or_else(|| text.parse().ok(), |(number, _)| Some(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word() {
        for plain in ["eth0", "eth0.100", "ss[4711]", "veth@if2", "kworker/0:1", "höst"] {
            assert_eq!(word(plain), plain);
        }
        for (name, quoted) in [
            ("x netns=a pid=1", "\"x netns=a pid=1\""),
            ("a 9/s 1%; b", "\"a 9/s 1%; b\""),
            ("a=b", "\"a=b\""),
            ("#3", "\"#3\""),
            ("net:[7]", "\"net:[7]\""),
            ("a\" b", "\"a\\u{22} b\""),
            ("", "\"\""),
        ] {
            assert_eq!(word(name), quoted);
        }
    }

    #[test]
    fn what_is_printed_of_a_protocol_is_understood() {
        for number in 0..=u8::MAX {
            let name = protocol(number);
            assert_eq!(protocol_number(&name), Some(number), "{name}");
            assert_eq!(protocol_number(&name.to_ascii_uppercase()), Some(number), "{name}");
            assert_eq!(protocol_number(&number.to_string()), Some(number));
        }
        for text in ["", "256", "-1", "tcp ", "nonsense"] {
            assert_eq!(protocol_number(text), None, "{text}");
        }
    }
}
