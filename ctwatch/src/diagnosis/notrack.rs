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
    passage::{self},
    report::{Check, Finding, Fix, Severity},
    talk::{Talk, script},
};
use crate::{
    model::{
        effect::Effect,
        names::address,
        ties::{self, Port, Ties},
        top::TopEntry,
    },
    record::facts::Namespace,
};

/// Who holds less than this is not worth a rule.
const SHARE: f64 = 0.10;
const MOST: usize = 5;

pub(super) fn top_talkers(case: &Case<'_>) -> Vec<Finding> {
    let filling = case.facts.namespaces.iter().filter(|namespace| case.is_filling(namespace));
    filling.filter_map(|namespace| one(case, namespace)).collect()
}

/// So many entries at least, and at most.
type Held = (u64, u64);

/// What holds much.
fn talks(case: &Case<'_>, namespace: &Namespace) -> Option<(Vec<(Talk, Held)>, u64)> {
    let counted = &case.census.ok()?.counted;
    let table = counted.table(namespace.id)?;
    let all = table.holds.all();
    let is_large = |count: u64| all > 0 && count as f64 >= SHARE * all as f64;
    let list = counted.lists(namespace.id).find(|list| list.by == By::Service);
    let services: &[TopEntry] = list.map_or(&[], |list| &list.entries);
    let mut found: Vec<(Talk, Held)> = Vec::new();
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
        found.push((Talk::Tunnel { name, port: *port, ipv4, ends }, (*count, *count)));
    }
    for entry in services {
        let count = entry.count.saturating_sub(entry.error);
        if is_large(count)
            && found.len() < MOST
            && let Some(talk) = service(&entry.key)
        {
            found.push((talk, (count, entry.count)));
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
    let held: u64 = talks.iter().map(|(_, (count, _))| count).sum();
    let title = format!(
        "{} of the table of {} is held by {}",
        percent(held as f64 / all.max(1) as f64),
        namespace.called(),
        match talks.as_slice() {
            [(talk, _)] => talk.name(),
            many => format!("{} services and tunnels", many.len()),
        },
    );
    let mut found = finding("top_talkers", Severity::Warning, title).about([namespace]);
    for (talk, (count, _)) in &talks {
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
    count: Held,
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
    let (count, at_most) = count;
    fix.effect = Some(Effect::Fewer { netns: namespace.id, of: all, at_least: count, at_most });
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
         tracked no more, and none of them is dropped",
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
