//! Where a rule lasts: by who loads rules on this machine. A file only where it is read, and where it
//! breaks nothing that reads it.

use super::{
    case::Case,
    fixes,
    owners::{self, Manager},
    report::{File, Fix},
    talk::{self, Talk},
};
use crate::record::facts::Namespace;

/// What /etc/nftables.conf has to include for a file there to be read.
const INCLUDES: [&str; 2] = ["/etc/nftables.d/*.nft", "/etc/nftables.d/*"];
const FILE: &str = "/etc/nftables.d/ctwatch-";

/// Says where packets that are not to be tracked are to be named, to be so after the next boot too.
pub(super) fn keep(case: &Case<'_>, namespace: &Namespace, talk: &Talk, fix: &mut Fix) {
    if !namespace.is_host() {
        fix.lasts.push("as long as this namespace, unless its owner makes it anew".to_owned());
        return;
    }
    let owned = owners::of_namespace(case.facts, namespace);
    let mut others = Vec::new();
    let before = fix.lasts.len();
    for one in &owned {
        match line(case, one.owner, talk) {
            Some(line) => fix.lasts.push(format!("{line} (seen: {})", one.evidence)),
            None => others.push(one.owner.name()),
        }
    }
    let is = |owner| owned.iter().any(|one| one.owner == owner);
    // Its own firewall includes such files in the middle of a table.
    if is(Manager::Nftables) && !is(Manager::OpenWrt) && is_included(case) {
        let content = format!("# Written by ctwatch doctor.\n{}", talk::script(talk));
        let name = talk.word();
        fix.files.push(File { path: format!("{FILE}{name}.nft"), content });
        fix.undo.extend(fixes::remove(&fix.files));
    }
    if fix.lasts.len() == before {
        fix.lasts.push(match others.as_slice() {
            [] => "until the next boot: nothing was found here that loads rules at boot".to_owned(),
            others => format!(
                "until the next boot: {} leaves rules alone that are not its own, and nothing was \
                 found here that loads others at boot",
                others.join(", ")
            ),
        });
    }
}

fn is_included(case: &Case<'_>) -> bool {
    case.facts.evidence.includes.iter().any(|file| INCLUDES.contains(&file.as_str()))
}

fn line(case: &Case<'_>, owner: Manager, talk: &Talk) -> Option<String> {
    let (protocol, port) = match talk {
        Talk::Tunnel { port, .. } | Talk::Service(_, port) => *port,
    };
    let protocol = crate::model::names::protocol(protocol);
    let of_family = |wanted: &str| {
        let of_it = talk::in_chains(talk).filter(|(_, family, ..)| *family == wanted);
        let lines =
            of_it.map(|(_, _, chain, matched)| format!("-A {chain} {matched} -j CT --notrack"));
        lines.collect::<Vec<_>>().join("; ")
    };
    Some(match owner {
        Manager::Firewalld => {
            let direct = |how: &str| {
                let all = talk::in_chains(talk).map(|(_, family, chain, matched)| {
                    format!(
                        "firewall-cmd --permanent --direct {how}-rule {family} raw {chain} 0 \
                         {matched} -j CT --notrack"
                    )
                });
                all.collect::<Vec<_>>().join("; ")
            };
            format!(
                "firewalld leaves this table alone, and loads it at no boot; there it is: {}. No \
                 reload is needed, and one takes away all rules that others made with iptables. To \
                 take it back: {}",
                direct("--add"),
                direct("--remove")
            )
        }
        // What stands in before.rules outside of ufw's own chains is added once more at each reload.
        Manager::Ufw => format!(
            "ufw leaves this table alone, and loads it at no boot; it does where this stands in \
             /etc/ufw/before.init, below the line start), and chmod +x /etc/ufw/before.init was \
             typed: {}",
            talk::command(&case.facts.tools, talk).join("; ")
        ),
        Manager::OpenWrt => format!(
            "until the next boot; OpenWrt takes it from /etc/config/firewall: a config rule with \
             option proto '{protocol}', option dest_port '{port}', option target 'NOTRACK' and its \
             zone as option src, then service firewall restart. A file in /etc/nftables.d would be \
             read inside of its table, and break it"
        ),
        Manager::Vyos => format!(
            "until the next commit or boot; VyOS takes it in configuration mode: set system conntrack \
             ignore ipv4 rule 10 protocol {protocol}, set system conntrack ignore ipv4 rule 10 \
             destination port {port}, then commit and save"
        ),
        Manager::Nftables if is_included(case) => {
            "nftables.service loads /etc/nftables.conf at boot, which includes the file below"
                .to_owned()
        }
        Manager::Nftables => {
            "nftables.service loads /etc/nftables.conf at boot and at each restart, most often after \
             it has removed all other rules: what is typed here has to be appended there"
                .to_owned()
        }
        Manager::Persistent => {
            let is_there = |path: &&str| case.facts.evidence.files.iter().any(|file| file == path);
            let file = |paths: [&'static str; 2]| {
                paths.into_iter().find(is_there).unwrap_or(paths[0])
            };
            let one = |file: &str, family: &str| match of_family(family) {
                rules if rules.is_empty() => None,
                rules => Some(format!("{file} ({rules})")),
            };
            let files = [
                one(file(["/etc/iptables/rules.v4", "/etc/sysconfig/iptables"]), "ipv4"),
                one(file(["/etc/iptables/rules.v6", "/etc/sysconfig/ip6tables"]), "ipv6"),
            ];
            format!(
                "this table is left alone, and loaded at no boot; what is loaded then is what \
                 iptables saved: in the section *raw, ended by COMMIT, of {}. Loaded again, that \
                 section replaces all rules of the table raw, those of others too",
                files.into_iter().flatten().collect::<Vec<_>>().join(" and ")
            )
        }
        Manager::Calico => {
            "until the next boot; Calico takes it as a GlobalNetworkPolicy with doNotTrack: true for \
             a HostEndpoint, and leaves this table alone"
                .to_owned()
        }
        Manager::Cumulus => format!(
            "until the next boot; Cumulus Linux takes it from a file of /etc/cumulus/acl/policy.d: \
             {}, then cl-acltool -i, which replaces rules of iptables that are not in such a file",
            of_family("ipv4")
        ),
        Manager::Sonic => {
            "until the next boot; SONiC's caclmgrd makes its rules of iptables anew from the \
             configuration, and leaves this table alone"
                .to_owned()
        }
        _ => return None,
    })
}
