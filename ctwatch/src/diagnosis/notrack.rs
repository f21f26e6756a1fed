//! Connections that need not be tracked: by far the most of a table are often of a few. Proposed only
//! where nothing is cut off by it, as far as entries and rules tell.

use std::net::IpAddr;

use ctwatch_abi::{
    protocol::{SCTP, TCP, UDP},
    top::{By, Key},
};

use super::{
    case::{Case, finding, number, percent},
    fixes, lasting,
    passage::{self, Packets},
    report::{Check, Finding, Fix, Severity},
};
use crate::{
    model::{
        names::{address, protocol},
        ties::{self, Port, Ties},
        top::TopEntry,
    },
    record::facts::{Namespace, Tools},
};

/// Who holds less than this is not worth a rule.
const SHARE: f64 = 0.10;
const MOST: usize = 5;

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
    fn port(&self) -> Port {
        match self {
            Self::Tunnel { port, .. } | Self::Service(_, port) => *port,
        }
    }

    fn name(&self) -> String {
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
    fn nft(&self) -> [Vec<String>; 2] {
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
    fn iptables(&self) -> [Vec<(bool, String)>; 2] {
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
    fn packets(&self, local: &[IpAddr]) -> Vec<(Packets, &'static [&'static str])> {
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

pub(super) fn top_talkers(case: &Case<'_>) -> Vec<Finding> {
    let filling = case.facts.namespaces.iter().filter(|namespace| case.is_filling(namespace));
    filling.filter_map(|namespace| one(case, namespace)).collect()
}

/// What holds much, with how many entries at least.
fn talks(case: &Case<'_>, namespace: &Namespace) -> Option<(Vec<(Talk, u64)>, u64)> {
    let counted = &case.census.ok()?.counted;
    let table = counted.table(namespace.id)?;
    let all = table.holds.all();
    let is_large = |count: u64| all > 0 && count as f64 >= SHARE * all as f64;
    let list = counted.lists(namespace.id).find(|list| list.by == By::Service);
    let services: &[TopEntry] = list.map_or(&[], |list| &list.entries);
    let mut found: Vec<(Talk, u64)> = Vec::new();
    for (port, count) in table.ties.tunnels.iter().filter(|(_, count)| is_large(*count)) {
        let Some(name) = ties::tunnel(*port) else { continue };
        let of_it =
            || services.iter().map(|entry| &entry.key).filter(|k| ties::port_of(k) == *port);
        let hosts: Vec<IpAddr> = of_it().map(|key| address(key.family, &key.dst)).collect();
        let v4 = hosts.iter().filter(|host| host.is_ipv4()).count();
        // The list is not all of them.
        let ipv4 = match (v4, hosts.len() - v4) {
            (1.., 0) => Some(true),
            (0, 1..) => Some(false),
            _ => None,
        };
        let ends = hosts.into_iter().filter(|host| namespace.addresses.contains(host)).collect();
        found.push((Talk::Tunnel { name, port: *port, ipv4, ends }, *count));
    }
    for entry in services {
        let count = entry.count.saturating_sub(entry.error);
        if is_large(count)
            && found.len() < MOST
            && let Some(talk) = service(&entry.key)
        {
            found.push((talk, count));
        }
    }
    Some((found, all))
}

fn service(key: &Key) -> Option<Talk> {
    let port = ties::port_of(key);
    let is_service = matches!(port.0, TCP | UDP | SCTP) && ties::tunnel(port).is_none();
    is_service.then(|| Talk::Service(address(key.family, &key.dst), port))
}

fn one(case: &Case<'_>, namespace: &Namespace) -> Option<Finding> {
    let (talks, all) = talks(case, namespace)?;
    if talks.is_empty() {
        return None;
    }
    let ties = &case.census.ok()?.counted.table(namespace.id)?.ties;
    let held: u64 = talks.iter().map(|(_, count)| count).sum();
    let title = format!(
        "{} of what {} tracks is of {}",
        percent(held as f64 / all.max(1) as f64),
        namespace.called(),
        match talks.as_slice() {
            [(talk, _)] => talk.name(),
            many => format!("{} services and tunnels", many.len()),
        },
    );
    let mut found = finding("top_talkers", Severity::Warning, title);
    for (talk, count) in &talks {
        found.evidence.push(format!("{}: {} entries", talk.name(), number(*count)));
    }
    for (talk, count) in &talks {
        let untracked = match obstacle(case, namespace, ties, talk) {
            Some(why) => Err(why),
            None => untrack(case, namespace, talk, *count, all),
        };
        match untracked {
            Ok(fix) => found.fixes.push(fix),
            Err(why) => found
                .evidence
                .push(format!("to leave {} untracked is not proposed: {why}", talk.name())),
        }
    }
    Some(found)
}

/// Why it must not be left untracked, or why nobody knows.
fn obstacle(case: &Case<'_>, namespace: &Namespace, ties: &Ties, talk: &Talk) -> Option<String> {
    let port = talk.port();
    if ties.translated.may_hold(port) {
        return Some("some of its entries are translated".to_owned());
    }
    if ties.helped.may_hold(port) {
        return Some("a helper has a part in some of its entries".to_owned());
    }
    if let Some(module) = helper(case, port) {
        return Some(format!("{module} is loaded, and its helper listens to this port"));
    }
    if let Some(why) = passage::unread(namespace) {
        return Some(why);
    }
    let packets = talk.packets(&namespace.addresses);
    if let Talk::Service(..) = talk {
        let modules = case.facts.modules.as_deref().unwrap_or_default();
        // They translate, or decide, by what conntrack knows, and have rules of their own.
        const OTHERS: [&str; 3] = ["ip_vs", "openvswitch", "act_ct"];
        if let Some(module) = modules.iter().find(|module| OTHERS.contains(&module.name.as_str())) {
            return Some(format!("{} is loaded, and what it does is not read", module.name));
        }
    }
    for (packets, hooks) in &packets {
        let translating = match talk {
            Talk::Service(..) => passage::translating(namespace, packets),
            // Each packet of a tunnel was asked for by all rules: its entries tell.
            Talk::Tunnel { .. } => passage::translating_port(namespace, packets),
        };
        if let Some(rule) = translating {
            return Some(format!("it may be translated, by {rule}"));
        }
        if let Some(rule) = passage::helping(namespace, packets) {
            return Some(format!("a helper may be assigned to it, by {rule}"));
        }
        if let Some(why) = passage::cut_off(namespace, packets, hooks) {
            return Some(format!("it would be cut off, by {why}"));
        }
    }
    None
}

/// Helpers that assign themselves where that is switched on, and the ports they listen to.
/// <https://github.com/torvalds/linux/tree/v6.12/net/netfilter> `nf_conntrack_*.c`
fn helper(case: &Case<'_>, (protocol, port): Port) -> Option<&'static str> {
    const HELPERS: [(&str, u8, u16); 14] = [
        ("nf_conntrack_ftp", 6, 21),
        ("nf_conntrack_tftp", 17, 69),
        ("nf_conntrack_sip", 17, 5060),
        ("nf_conntrack_sip", 6, 5060),
        ("nf_conntrack_irc", 6, 6667),
        ("nf_conntrack_h323", 6, 1720),
        ("nf_conntrack_h323", 17, 1719),
        ("nf_conntrack_pptp", 6, 1723),
        ("nf_conntrack_pptp", 47, 0),
        ("nf_conntrack_sane", 6, 6566),
        ("nf_conntrack_snmp", 17, 161),
        ("nf_conntrack_amanda", 17, 10080),
        ("nf_conntrack_netbios_ns", 17, 137),
        ("nf_conntrack_broadcast", 17, 137),
    ];
    let modules = case.facts.modules.as_deref().unwrap_or_default();
    let is_loaded = |name: &str| modules.iter().any(|module| module.name == name);
    let its =
        HELPERS.iter().find(|(name, of, at)| (*of, *at) == (protocol, port) && is_loaded(name));
    its.map(|(name, ..)| *name)
}

fn untrack(
    case: &Case<'_>,
    namespace: &Namespace,
    talk: &Talk,
    count: u64,
    all: u64,
) -> Result<Fix, String> {
    let tools = &case.facts.tools;
    let mut fix = fixes::fix(&format!("do not track {}", talk.name()));
    let by_nft = tools.has("nft");
    if by_nft {
        nft(case, namespace, talk, &mut fix)?;
    } else {
        iptables(case, namespace, talk, &mut fix)?;
    }
    fixes::arm(tools, &format!("{}-{}", talk.word(), namespace.inode), &mut fix);
    lasting::keep(case, namespace, talk, &mut fix);
    fix.breaks = match talk {
        Talk::Tunnel { .. } => {
            "stateful rules and NAT no longer see the outer packets; what is inside is tracked as \
             before"
        }
        Talk::Service(..) => {
            "stateful rules (ct state, -m conntrack, -m connlimit) and NAT no longer see these \
             packets; none that is there now was found to need it"
        }
    }
    .to_owned();
    fix.expect = format!(
        "its {} entries ({}) go as their time is over and none comes after them: its packets are \
         tracked no more, and none of them is refused",
        number(count),
        percent(count as f64 / all.max(1) as f64)
    );
    Ok(fix)
}

/// In a table of its own: to take it away takes nothing else away.
fn nft(case: &Case<'_>, namespace: &Namespace, talk: &Talk, fix: &mut Fix) -> Result<(), String> {
    let tools = &case.facts.tools;
    let table = format!("ctwatch_{}", talk.word());
    let within = |command: &str| fixes::entered(tools, namespace, command);
    let script = script(talk);
    fix.now.push(within(&format!("nft -f - <<'END'\n{script}END"))?);
    fix.undo.push(within(&format!("nft delete table inet {table}"))?);
    fix.check = Some(Check {
        command: within(&format!("nft list table inet {table}"))?,
        prints: "the rules, with counter packets that grow".to_owned(),
    });
    Ok(())
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

/// Where there is no nft: all rules of one family at once.
fn iptables(
    case: &Case<'_>,
    namespace: &Namespace,
    talk: &Talk,
    fix: &mut Fix,
) -> Result<(), String> {
    let tools = &case.facts.tools;
    let within = |command: &str| fixes::entered(tools, namespace, command);
    let [come, go] = talk.iptables();
    for v6 in [false, true] {
        let (mut add, mut delete, mut chains) = (String::new(), String::new(), Vec::new());
        for (chain, rules) in [("PREROUTING", &come), ("OUTPUT", &go)] {
            for (_, matched) in rules.iter().filter(|(of, _)| *of == v6) {
                add.push_str(&format!("'-I {chain} {matched} -j CT --notrack' "));
                delete.push_str(&format!("'-D {chain} {matched} -j CT --notrack' "));
                chains.push(chain);
            }
        }
        let Some(chain) = chains.first() else { continue };
        let tool = if v6 { "ip6tables" } else { "iptables" };
        let restore = format!("{tool}-restore");
        for needed in [tool, &restore] {
            if !tools.has(needed) {
                return Err(format!("neither nft nor {needed} is installed"));
            }
        }
        // In one line, for it is typed by the self-undo too.
        let load = |rules: &str, how: &str| -> Result<String, String> {
            let load = within(&format!("{restore} {how}-n"))?;
            Ok(format!("printf '%s\\n' '*raw' {rules}COMMIT | {load}"))
        };
        fix.save.push(load(&add, "--test ")?);
        fix.now.push(load(&add, "")?);
        fix.undo.push(load(&delete, "")?);
        if fix.check.is_none() {
            let command = within(&format!("{tool} -t raw -nvL {chain}"))?;
            let prints = "the rule, with a number of packets that grows".to_owned();
            fix.check = Some(Check { command, prints });
        }
        if !has_raw(case, namespace, if v6 { "ip6" } else { "ip" }) {
            fix.lasts.push(format!(
                "the table raw of {tool} is made for it; the undo leaves that behind, empty: it does \
                 nothing, and goes at the next boot"
            ));
        }
    }
    Ok(())
}

fn has_raw(case: &Case<'_>, namespace: &Namespace, family: &str) -> bool {
    let backend = case.facts.tools.iptables;
    namespace.rule_tables().any(|table| {
        table.name == "raw"
            && table.family == family
            && backend.is_none_or(|backend| backend == table.framework)
    })
}
