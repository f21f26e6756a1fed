//! Connections that need not be tracked: by far the most of a table are often of a few.

use std::net::IpAddr;

use ctwatch_ebpf::top::{By, Key};

use super::{Case, finding, fixes, number, percent};
use crate::{
    facts::Namespace,
    model::{
        names::{address, protocol},
        top::TopEntry,
    },
    report::{File, Finding, Fix, Severity},
};

const NFT_FILE: &str = "/etc/nftables.d/ctwatch-notrack.nft";
/// Who holds less than this is not worth a rule.
const SHARE: f64 = 0.10;
const MOST: usize = 5;

const UDP: u8 = 17;
const GRE: u8 = 47;
/// VXLAN's ports, of IANA and of Linux' first: one tunnel is spread over many source ports.
const VXLAN: [u16; 2] = [4789, 8472];

/// What a rule is about.
enum Talk {
    /// All packets to this port, whoever they are from: both directions of a tunnel.
    Tunnel(u16),
    /// All of a protocol.
    Protocol(u8),
    /// A service, and its answers.
    Service(IpAddr, u8, u16),
}

pub(super) fn top_talkers(case: &Case<'_>) -> Vec<Finding> {
    let filling = case.facts.namespaces.iter().filter(|namespace| case.is_filling(namespace));
    filling.filter_map(|namespace| one(case, namespace)).collect()
}

fn one(case: &Case<'_>, namespace: &Namespace) -> Option<Finding> {
    let taken = case.census.ok()?;
    let list = taken.counted.lists(namespace.id).find(|list| list.by == By::Service)?;
    let large = |entry: &&TopEntry| {
        let least = entry.count.saturating_sub(entry.error);
        let all = taken.counted.table(namespace.id).map_or(0, |table| table.holds.all());
        all > 0 && least as f64 >= SHARE * all as f64
    };
    let mut large: Vec<&TopEntry> = list.entries.iter().filter(large).take(MOST).collect();
    // Tunnels need no tracking in any case.
    large.sort_by_key(|entry| {
        !matches!(talk(&entry.key), Some(Talk::Tunnel(_) | Talk::Protocol(_)))
    });
    if large.is_empty() {
        return None;
    }
    let held: u64 = large.iter().map(|entry| entry.count.saturating_sub(entry.error)).sum();
    let all = taken.counted.table(namespace.id).map_or(1, |table| table.holds.all()).max(1);
    let title = format!(
        "{} of what {} tracks is of {}",
        percent(held as f64 / all as f64),
        namespace.called(),
        match large.len() {
            1 => "one service".to_owned(),
            count => format!("{count} services"),
        },
    );
    let mut found = finding("top_talkers", Severity::Warning, title);
    for entry in &large {
        found.evidence.push(format!(
            "{}: {} entries",
            entry.name(By::Service, |_, _| None),
            number(entry.count)
        ));
    }
    let talks: Vec<Talk> = large.iter().filter_map(|entry| talk(&entry.key)).collect();
    found.fixes.extend(by_nft(namespace, &talks));
    found.fixes.extend(by_iptables(namespace, &talks));
    Some(found)
}

fn talk(key: &Key) -> Option<Talk> {
    let port = u16::from_be(key.dport);
    match key.protocol {
        GRE => Some(Talk::Protocol(GRE)),
        UDP if VXLAN.contains(&port) => Some(Talk::Tunnel(port)),
        protocol if matches!(protocol, 6 | UDP | 132) => {
            Some(Talk::Service(address(key.family, &key.dst), protocol, port))
        }
        _ => None,
    }
}

fn nft_rules(talk: &Talk) -> Vec<String> {
    match talk {
        Talk::Tunnel(port) => vec![format!("udp dport {port} notrack")],
        Talk::Protocol(number) => vec![format!("meta l4proto {number} notrack")],
        Talk::Service(host, number, port) => {
            let family = if host.is_ipv4() { "ip" } else { "ip6" };
            let protocol = protocol(*number);
            vec![
                format!("{family} daddr {host} {protocol} dport {port} notrack"),
                format!("{family} saddr {host} {protocol} sport {port} notrack"),
            ]
        }
    }
}

const BREAKS: &str = "stateful rules (ct state, -m conntrack) and NAT no longer apply to these \
                      packets: do not do this to what is translated, and let them pass explicitly \
                      where a rule only lets through what is established";
const EXPECT: &str = "their packets are tracked no more and none of them is refused; what they hold \
                      now goes as its time is over";

/// In both directions, and for what this host sends itself.
fn by_nft(namespace: &Namespace, talks: &[Talk]) -> Option<Fix> {
    let rules: Vec<String> = talks.iter().flat_map(nft_rules).collect();
    if rules.is_empty() {
        return None;
    }
    let rules = rules.join("\n        ");
    let script = format!(
        "table inet ctwatch_notrack {{\n    \
             chain prerouting {{\n        \
                 type filter hook prerouting priority raw;\n        {rules}\n    }}\n    \
             chain output {{\n        \
                 type filter hook output priority raw;\n        {rules}\n    }}\n}}\n"
    );
    let mut fix = fixes::fix("do not track them, by nft");
    fix.now.push(fixes::within(namespace, &format!("nft -f - <<'END'\n{script}END"))?);
    fix.undo.push(fixes::within(namespace, "nft delete table inet ctwatch_notrack")?);
    if namespace.is_host() {
        let content = format!(
            "# Written by ctwatch doctor. In /etc/nftables.conf: include \"/etc/nftables.d/*.nft\"\n\
             {script}"
        );
        fix.files.push(File { path: NFT_FILE.to_owned(), content });
        fix.undo.extend(fixes::remove(&fix.files));
    }
    BREAKS.clone_into(&mut fix.breaks);
    EXPECT.clone_into(&mut fix.expect);
    Some(fix)
}

fn by_iptables(namespace: &Namespace, talks: &[Talk]) -> Option<Fix> {
    let mut fix = fixes::fix(
        "do not track them, by iptables (until the next boot, unless it is saved: iptables-save)",
    );
    for talk in talks {
        let tools: &[&str] = match talk {
            Talk::Service(IpAddr::V4(_), ..) => &["iptables"],
            Talk::Service(IpAddr::V6(_), ..) => &["ip6tables"],
            _ => &["iptables", "ip6tables"],
        };
        let matches = match talk {
            Talk::Tunnel(port) => vec![format!("-p udp --dport {port}")],
            Talk::Protocol(number) => vec![format!("-p {number}")],
            Talk::Service(host, number, port) => {
                let protocol = protocol(*number);
                vec![
                    format!("-p {protocol} -d {host} --dport {port}"),
                    format!("-p {protocol} -s {host} --sport {port}"),
                ]
            }
        };
        for tool in tools {
            for chain in ["PREROUTING", "OUTPUT"] {
                for matched in &matches {
                    let rule =
                        |how| format!("{tool} -t raw {how} {chain} {matched} -j CT --notrack");
                    fix.now.push(fixes::within(namespace, &rule("-A"))?);
                    fix.undo.push(fixes::within(namespace, &rule("-D"))?);
                }
            }
        }
    }
    BREAKS.clone_into(&mut fix.breaks);
    EXPECT.clone_into(&mut fix.expect);
    (!fix.now.is_empty()).then_some(fix)
}
