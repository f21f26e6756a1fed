//! Packets that need not be tracked, and the rules that say so.

use std::net::IpAddr;

use super::{fixes, passage::Packets};
use crate::{
    model::{names::protocol, ties::Port},
    record::facts::Tools,
};

/// What holds much of a table.
#[derive(Clone, Debug)]
pub(super) enum Talk {
    /// All packets to this port, whoever they are from: both directions of a tunnel.
    Tunnel {
        name: &'static str,
        port: Port,
        ipv4: Option<bool>,
        /// Addresses of this host at which it ends; none: it only passes through, or nobody knows.
        ends: Vec<IpAddr>,
    },
    /// A service, and its answers.
    Service(IpAddr, Port),
}

impl Talk {
    pub(super) fn port(&self) -> Port {
        match self {
            Self::Tunnel { port, .. } | Self::Service(_, port) => *port,
        }
    }

    pub(super) fn name(&self) -> String {
        let (number, port) = self.port();
        let port = match number {
            47 => String::new(),
            _ => format!("{}/{port}", protocol(number)),
        };
        match self {
            Self::Tunnel { name, .. } if port.is_empty() => format!("the tunnels of {name}"),
            Self::Tunnel { name, .. } => format!("the tunnels of {name} ({port})"),
            Self::Service(host, _) => format!("{port} of {host}"),
        }
    }

    /// As part of the name of a table.
    pub(super) fn word(&self) -> String {
        let (number, port) = self.port();
        let of = match self {
            Self::Tunnel { .. } => String::new(),
            Self::Service(host, _) => format!("_{host}"),
        };
        let word = format!("{}_{port}{of}", protocol(number));
        word.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }

    /// What is left untracked as it comes in, and as it goes out; in words of nft.
    pub(super) fn nft(&self) -> [Vec<String>; 2] {
        let (number, port) = self.port();
        let to = match number {
            47 => "meta l4proto 47".to_owned(),
            _ => format!("{} dport {port}", protocol(number)),
        };
        let family = |host: &IpAddr| if host.is_ipv4() { "ip" } else { "ip6" };
        match self {
            Self::Tunnel { ends, .. } if !ends.is_empty() => {
                let here = ends.iter().map(|end| format!("{} daddr {end} {to}", family(end)));
                [here.collect(), vec![to]]
            }
            Self::Tunnel { .. } => [vec![to.clone()], vec![to]],
            Self::Service(host, _) => {
                let from = to.replace("dport", "sport");
                let family = family(host);
                let both = vec![
                    format!("{family} daddr {host} {to}"),
                    format!("{family} saddr {host} {from}"),
                ];
                [both.clone(), both]
            }
        }
    }

    /// The same in words of iptables, with whether it is of IPv6.
    pub(super) fn iptables(&self) -> [Vec<(bool, String)>; 2] {
        let (number, port) = self.port();
        let to = match number {
            47 => "-p 47".to_owned(),
            _ => format!("-p {} --dport {port}", protocol(number)),
        };
        let all = || -> Vec<(bool, String)> {
            let families = match self {
                Self::Tunnel { ipv4: Some(true), .. } => &[false][..],
                Self::Tunnel { ipv4: Some(false), .. } => &[true],
                _ => &[false, true],
            };
            families.iter().map(|v6| (*v6, to.clone())).collect()
        };
        match self {
            Self::Tunnel { ends, .. } if !ends.is_empty() => {
                let here = ends.iter().map(|end| (end.is_ipv6(), format!("-d {end} {to}")));
                [here.collect(), all()]
            }
            Self::Tunnel { .. } => [all(), all()],
            Self::Service(host, _) => {
                let from = to.replace("--dport", "--sport");
                let v6 = host.is_ipv6();
                let both = vec![(v6, format!("-d {host} {to}")), (v6, format!("-s {host} {from}"))];
                [both.clone(), both]
            }
        }
    }

    /// The packets that are left untracked, with the hooks that they come to.
    pub(super) fn packets(&self, local: &[IpAddr]) -> Vec<(Packets, &'static [&'static str])> {
        const IN: &[&str] = &["prerouting", "input"];
        const OUT: &[&str] = &["output", "postrouting"];
        const ALL: &[&str] = &["prerouting", "input", "forward", "output", "postrouting"];
        let (protocol, port) = self.port();
        let port = (protocol != 47).then_some(port);
        let to = Packets { protocol, destination_port: port, ..Packets::default() };
        match self {
            Self::Tunnel { ends, ipv4, .. } if ends.is_empty() => {
                vec![(Packets { ipv4: *ipv4, ..to }, ALL)]
            }
            Self::Tunnel { ends, .. } => {
                let of_end = |end: &IpAddr| {
                    let here = Packets { destination: Some(*end), are_local: true, ..to };
                    [(here, IN), (Packets { source: Some(*end), ..to }, OUT)]
                };
                ends.iter().flat_map(of_end).collect()
            }
            Self::Service(host, _) => {
                let asked = Packets { destination: Some(*host), ..to };
                let answer = Packets {
                    protocol,
                    source: Some(*host),
                    source_port: port,
                    ..Packets::default()
                };
                match local.contains(host) {
                    true => vec![(Packets { are_local: true, ..asked }, IN), (answer, OUT)],
                    false => vec![(asked, ALL), (answer, ALL)],
                }
            }
        }
    }
}

/// For `nft -f`; loaded once more, it is there once.
pub(super) fn script(talk: &Talk) -> String {
    let table = format!("inet ctwatch_{}", talk.word());
    let chains = talk.nft().into_iter().zip(["prerouting", "output"]).map(|(rules, hook)| {
        let rules = rules.iter().map(|rule| format!("        {rule} counter notrack\n"));
        format!(
            "    chain {hook} {{\n        type filter hook {hook} priority raw;\n{}    }}\n",
            rules.collect::<String>()
        )
    });
    let chains = chains.collect::<String>();
    format!("add table {table}\ndelete table {table}\ntable {table} {{\n{chains}}}\n")
}

/// The same as one command of a shell.
pub(super) fn command(tools: &Tools, talk: &Talk) -> Vec<String> {
    if tools.has("nft") {
        let lines = script(talk);
        let lines = lines.lines().map(str::trim).map(|line| match line.ends_with(['{', ';']) {
            true => line.to_owned(),
            false => format!("{line};"),
        });
        let words = lines.collect::<Vec<_>>().join(" ");
        return vec![format!("nft {}", fixes::quoted(words.trim_end_matches(';')))];
    }
    let rules = in_chains(talk).map(|(tool, _, chain, matched)| {
        let rule = |how| format!("{tool} -t raw {how} {chain} {matched} -j CT --notrack");
        format!("{} 2> /dev/null || {}", rule("-C"), rule("-I"))
    });
    rules.collect()
}

/// Its rules of iptables: the tool, its family in words of firewalld, the chain, and what is asked for.
pub(super) fn in_chains(
    talk: &Talk,
) -> impl Iterator<Item = (&'static str, &'static str, &'static str, String)> {
    let all = ["PREROUTING", "OUTPUT"].into_iter().zip(talk.iptables());
    all.flat_map(|(chain, rules)| {
        rules.into_iter().map(move |(v6, matched)| match v6 {
            true => ("ip6tables", "ipv6", chain, matched),
            false => ("iptables", "ipv4", chain, matched),
        })
    })
}
