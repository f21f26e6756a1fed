//! Who manages a firewall and its settings: by the names of tables and chains, by comments, files,
//! services and processes.

use std::cell::OnceCell;

use crate::record::facts::{Evidence, Facts, Namespace, RuleTable, RuleUse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    KubeProxy,
    Calico,
    Cilium,
    Docker,
    Libvirt,
    Firewalld,
    Ufw,
    Fail2ban,
    OpenWrt,
    Vyos,
    Proxmox,
    Sonic,
    Cumulus,
    Nftables,
    Persistent,
    /// One of which nothing but its name is known.
    Other(&'static str),
}

/// An owner, and what shows that it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) owner: Manager,
    pub(super) evidence: String,
}

/// What shows an owner. Names of tables and chains, and comments, by what they begin with.
struct Signs {
    owner: Manager,
    tables: &'static [&'static str],
    chains: &'static [&'static str],
    comments: &'static [&'static str],
    files: &'static [&'static str],
    processes: &'static [&'static str],
    services: &'static [&'static str],
}

const fn signs(owner: Manager) -> Signs {
    let none: &[&str] = &[];
    Signs {
        owner,
        tables: none,
        chains: none,
        comments: none,
        files: none,
        processes: none,
        services: none,
    }
}

/// The more exact ones first: the first that fits is it.
const SIGNS: &[Signs] = &[
    Signs {
        chains: &["KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-"],
        ..signs(Manager::Other("kube-router"))
    },
    Signs {
        tables: &["kube-proxy"],
        chains: &[
            "KUBE-SERVICES",
            "KUBE-SVC-",
            "KUBE-SEP-",
            "KUBE-XLB-",
            "KUBE-EXT-",
            "KUBE-FW-",
            "KUBE-PROXY-",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-NODEPORTS",
            // Of its IPVS mode.
            "KUBE-NODE-PORT",
            "KUBE-LOAD-BALANCER",
            "KUBE-IPVS-",
            "KUBE-SOURCE-RANGES-FIREWALL",
        ],
        files: &["/var/lib/kube-proxy"],
        processes: &["kube-proxy", "k3s-server", "k3s-agent", "rke2"],
        ..signs(Manager::KubeProxy)
    },
    Signs { chains: &["KUBE-"], ..signs(Manager::Other("Kubernetes")) },
    Signs {
        tables: &["calico"],
        chains: &["cali-"],
        comments: &["cali:"],
        files: &["/etc/cni/net.d/10-calico.conflist"],
        processes: &["calico-node"],
        ..signs(Manager::Calico)
    },
    Signs {
        chains: &["CILIUM_", "OLD_CILIUM_"],
        comments: &["cilium:", "cilium-feeder:"],
        files: &["/etc/cni/net.d/05-cilium.conflist"],
        processes: &["cilium-agent"],
        ..signs(Manager::Cilium)
    },
    Signs {
        tables: &["docker-bridges"],
        chains: &["DOCKER"],
        processes: &["dockerd"],
        ..signs(Manager::Docker)
    },
    Signs {
        tables: &["libvirt_network"],
        chains: &["LIBVIRT_"],
        processes: &["libvirtd", "virtnetworkd"],
        ..signs(Manager::Libvirt)
    },
    Signs {
        tables: &["firewalld"],
        // Those of its backend for iptables.
        chains: &[
            "IN_",
            "FWD_",
            "FWDI_",
            "FWDO_",
            "INPUT_ZONES",
            "INPUT_POLICIES_",
            "INPUT_direct",
            "FORWARD_ZONES",
            "FORWARD_IN_ZONES",
            "FORWARD_OUT_ZONES",
            "FORWARD_POLICIES_",
            "FORWARD_direct",
            "OUTPUT_POLICIES_",
            "OUTPUT_direct",
            "PREROUTING_ZONES",
            "PREROUTING_POLICIES_",
            "PREROUTING_direct",
            "POSTROUTING_ZONES",
            "POSTROUTING_POLICIES_",
            "POSTROUTING_direct",
            "PRE_",
            "POST_",
        ],
        processes: &["firewalld"],
        services: &["firewalld.service"],
        ..signs(Manager::Firewalld)
    },
    Signs { chains: &["ufw-", "ufw6-"], ..signs(Manager::Ufw) },
    Signs {
        tables: &["f2b-"],
        chains: &["f2b-", "fail2ban-"],
        processes: &["fail2ban-server"],
        ..signs(Manager::Fail2ban)
    },
    Signs {
        tables: &["fw4"],
        chains: &["zone_wan_", "zone_lan_"],
        comments: &["!fw4", "!fw3"],
        files: &["/etc/openwrt_release", "/etc/config/firewall"],
        ..signs(Manager::OpenWrt)
    },
    Signs {
        tables: &["vyos_"],
        chains: &["VYOS_", "VYATTA_"],
        files: &["/etc/vyos", "/opt/vyatta/etc/config.boot.default"],
        processes: &["vyos-configd"],
        ..signs(Manager::Vyos)
    },
    Signs {
        tables: &["proxmox-firewall"],
        chains: &["PVEFW-", "GROUP-", "tap", "fwbr"],
        files: &["/etc/pve"],
        processes: &["pve-firewall", "proxmox-firewal"],
        services: &["pve-firewall.service"],
        ..signs(Manager::Proxmox)
    },
    Signs {
        files: &["/etc/sonic/sonic_version.yml"],
        processes: &["caclmgrd", "orchagent"],
        ..signs(Manager::Sonic)
    },
    Signs { files: &["/etc/cumulus/acl"], processes: &["switchd"], ..signs(Manager::Cumulus) },
    Signs { services: &["nftables.service"], ..signs(Manager::Nftables) },
    Signs {
        services: &["netfilter-persistent.service", "iptables.service", "ip6tables.service"],
        ..signs(Manager::Persistent)
    },
    Signs { chains: &["CNI-"], ..signs(Manager::Other("a CNI plugin (portmap)")) },
    Signs { chains: &["FLANNEL-"], ..signs(Manager::Other("flannel")) },
    Signs { chains: &["ANTREA-"], ..signs(Manager::Other("Antrea")) },
    Signs { chains: &["WEAVE-"], ..signs(Manager::Other("Weave")) },
    Signs { tables: &["netavark"], chains: &["NETAVARK"], ..signs(Manager::Other("Podman")) },
    Signs {
        tables: &["lxd", "incus"],
        comments: &["generated for LXD", "generated for Incus"],
        ..signs(Manager::Other("LXD or Incus"))
    },
    Signs { chains: &["nixos-fw"], ..signs(Manager::Other("NixOS")) },
    Signs { chains: &["ts-input", "ts-forward"], ..signs(Manager::Other("Tailscale")) },
    Signs {
        tables: &["nm-shared-"],
        chains: &["sh-in-", "sh-fw-"],
        ..signs(Manager::Other("NetworkManager"))
    },
    Signs { chains: &["MINIUPNPD"], ..signs(Manager::Other("miniupnpd")) },
    Signs { tables: &["crowdsec"], ..signs(Manager::Other("CrowdSec")) },
];

impl Manager {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::Docker => "Docker",
            Self::Libvirt => "libvirt",
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::Fail2ban => "fail2ban",
            Self::OpenWrt => "OpenWrt's firewall",
            Self::Vyos => "VyOS",
            Self::Proxmox => "Proxmox VE",
            Self::Sonic => "SONiC",
            Self::Cumulus => "Cumulus Linux",
            Self::Nftables => "nftables.service",
            Self::Persistent => "netfilter-persistent or iptables.service",
            Self::Other(name) => name,
        }
    }
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|start| name.starts_with(start))
}

/// By the rules that are there.
pub(super) fn of_rules<'a>(tables: impl Iterator<Item = &'a RuleTable>) -> Vec<Owned> {
    let mut found: Vec<Owned> = Vec::new();
    let mut add = |signs: &Signs, evidence: String| {
        if !found.iter().any(|owned| owned.owner == signs.owner) {
            found.push(Owned { owner: signs.owner, evidence });
        }
    };
    for table in tables {
        let of_name = SIGNS.iter().find(|signs| begins(&table.name, signs.tables));
        if let Some(signs) = of_name {
            add(signs, format!("table {} {}", table.family, table.name));
        }
        for chain in &table.chains {
            let of_name = SIGNS.iter().find(|signs| begins(&chain.name, signs.chains));
            if let Some(signs) = of_name {
                add(signs, format!("chain {}", chain.name));
            }
            let comments = chain.rules.iter().filter_map(|rule| rule.comment.as_deref());
            for comment in comments {
                let of_it = SIGNS.iter().find(|signs| begins(comment, signs.comments));
                if let Some(signs) = of_it {
                    add(signs, format!("a comment in chain {}: {comment}", chain.name));
                }
            }
        }
    }
    // What kubelet makes is there too.
    if found.iter().any(|owned| owned.owner == Manager::KubeProxy) {
        found.retain(|owned| owned.owner != Manager::Other("Kubernetes"));
    }
    found
}

/// By what else is on this machine.
pub(super) fn of_machine(evidence: &Evidence) -> Vec<Owned> {
    let mut found = Vec::new();
    for signs in SIGNS {
        let among = |wanted: &[&str], there: &[String]| {
            there.iter().find(|one| wanted.contains(&one.as_str())).cloned()
        };
        let seen = among(signs.processes, &evidence.processes)
            .map(|name| format!("{name} is running"))
            .or_else(|| {
                let service = among(signs.services, &evidence.services)?;
                Some(format!("{service} is started at boot"))
            })
            .or_else(|| among(signs.files, &evidence.files).map(|path| format!("{path} is there")));
        if let Some(evidence) = seen {
            found.push(Owned { owner: signs.owner, evidence });
        }
    }
    found
}

fn merged(parts: impl IntoIterator<Item = Vec<Owned>>) -> Vec<Owned> {
    let mut all: Vec<Owned> = Vec::new();
    for owned in parts.into_iter().flatten() {
        if !all.iter().any(|one| one.owner == owned.owner) {
            all.push(owned);
        }
    }
    all
}

/// Of the rules of one namespace: those of the machine itself manage that of the host.
pub(super) fn of_namespace(facts: &Facts, namespace: &Namespace) -> Vec<Owned> {
    let rules = of_rules(namespace.rule_tables());
    let machine = if namespace.is_host() { of_machine(&facts.evidence) } else { Vec::new() };
    merged([rules, machine])
}

/// Of this machine's settings, whichever namespace shows it.
pub(super) fn of_settings(facts: &Facts) -> Vec<Owned> {
    let rules = facts.namespaces.iter().map(|namespace| of_rules(namespace.rule_tables()));
    merged(rules.chain([of_machine(&facts.evidence)]))
}

/// The same, found out once.
#[derive(Debug, Default)]
pub struct OfSettings(OnceCell<Vec<Owned>>);

impl OfSettings {
    pub(super) fn of(&self, facts: &Facts) -> &[Owned] {
        self.0.get_or_init(|| of_settings(facts))
    }
}

/// Of a single rule, by where it stands and what is written beside it.
pub(super) fn of_rule(table: &RuleTable, rule: &RuleUse) -> Option<Manager> {
    let comment = table.find(rule).and_then(|(_, rule)| rule.comment.as_deref());
    let is_its = |signs: &&Signs| {
        begins(&table.name, signs.tables)
            || begins(&rule.chain, signs.chains)
            || comment.is_some_and(|comment| begins(comment, signs.comments))
    };
    SIGNS.iter().find(is_its).map(|signs| signs.owner)
}

/// `Docker (chain DOCKER), ufw (chain ufw-before-input)`
pub(super) fn in_words(owned: &[Owned]) -> String {
    let one = |owned: &Owned| format!("{} ({})", owned.owner.name(), owned.evidence);
    owned.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "owners_tests.rs"]
mod tests;
