use super::*;
use crate::record::facts::{Act, Framework, Rule};

fn table(name: &str, chains: &[&str]) -> RuleTable {
    let mut table = RuleTable::new(Framework::Nft, "ip", name.to_owned());
    for chain in chains {
        table.chain(chain);
    }
    table
}

fn owners(tables: &[RuleTable]) -> Vec<Manager> {
    of_rules(tables.iter()).into_iter().map(|owned| owned.owner).collect()
}

/// Names of tables and chains as `nft list ruleset` and `iptables-save` show them.
#[test]
fn each_owner_is_known_by_its_rules() {
    for (name, chain, owner) in [
        ("nat", "KUBE-SERVICES", Manager::KubeProxy),
        ("kube-proxy", "services", Manager::KubeProxy),
        ("filter", "KUBE-NODE-PORT", Manager::KubeProxy),
        ("filter", "KUBE-KUBELET-CANARY", Manager::Other("Kubernetes")),
        ("filter", "cali-FORWARD", Manager::Calico),
        ("nat", "CILIUM_POST_nat", Manager::Cilium),
        ("nat", "DOCKER", Manager::Docker),
        ("filter", "LIBVIRT_FWX", Manager::Libvirt),
        ("firewalld", "filter_IN_public", Manager::Firewalld),
        ("filter", "ufw-user-input", Manager::Ufw),
        ("f2b-table", "f2b-chain", Manager::Fail2ban),
        ("filter", "f2b-sshd", Manager::Fail2ban),
        ("fw4", "forward", Manager::OpenWrt),
        ("vyos_filter", "VYOS_FORWARD_filter", Manager::Vyos),
        ("filter", "PVEFW-FORWARD", Manager::Proxmox),
    ] {
        assert_eq!(owners(&[table(name, &[chain])]), [owner], "{name} {chain}");
    }
    assert_eq!(owners(&[table("filter", &["INPUT", "FORWARD", "mine"])]), []);
}

/// Tables, their chains, and what is written beside rules, of what `iptables-save` or `nft list ruleset` printed.
fn printed(text: &str) -> Vec<RuleTable> {
    let (mut tables, mut chain) = (Vec::<RuleTable>::new(), String::new());
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["table", _, name, "{"] => tables.push(table(name, &[])),
            ["chain", name, "{"] => {
                chain = (*name).to_owned();
                tables.last_mut().unwrap().chain(name);
            }
            [first, rest @ ..] => {
                if let ("-A", [name, ..]) = (*first, rest) {
                    chain = (*name).to_owned();
                    tables.last_mut().unwrap().chain(name);
                }
                let comment =
                    line.split_once("comment \"").and_then(|(_, rest)| rest.split('"').next());
                if let Some(comment) = comment {
                    let comment = Some(comment.to_owned());
                    let rule = Rule { number: 1, conditions: Vec::new(), act: Act::Next, comment };
                    tables.last_mut().unwrap().keep(&chain, rule);
                }
                if let Some(name) = first.strip_prefix('*') {
                    tables.push(table(name, &[]));
                } else if let (Some(name), [_, _]) = (first.strip_prefix(':'), rest) {
                    tables.last_mut().unwrap().chain(name);
                }
            }
            [] => {}
        }
    }
    tables
}

#[test]
fn owners_are_known_by_what_they_really_load() {
    let ufw = include_str!("../../../tests/fixtures/owners/ufw.iptables-save");
    let firewalld = include_str!("../../../tests/fixtures/owners/firewalld.nft");
    let iptables = include_str!("../../../tests/fixtures/owners/firewalld.iptables-save");
    for (text, owner) in
        [(ufw, Manager::Ufw), (firewalld, Manager::Firewalld), (iptables, Manager::Firewalld)]
    {
        let tables = printed(text);
        assert_eq!(owners(&tables), [owner]);
        // Each chain of its own is known to be: rules there are not to be removed.
        for table in &tables {
            let built_in = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase());
            for chain in table.chains.iter().filter(|chain| !built_in(&chain.name)) {
                let rule = RuleUse {
                    chain: chain.name.clone(),
                    number: 1,
                    by: Vec::new(),
                    notrack: false,
                    on_invalid: None,
                    packets: None,
                };
                assert_eq!(of_rule(table, &rule), Some(owner), "{} {}", table.name, chain.name);
            }
        }
    }
}

#[test]
fn owners_are_known_by_what_others_reported() {
    macro_rules! reported {
        ($($file:literal => $owners:expr),* $(,)?) => {$(
            let text = include_str!(concat!("../../../tests/fixtures/owners/", $file));
            assert_eq!(owners(&printed(text)), $owners, $file);
        )*};
    }
    reported! {
        "calico.iptables-save" => [Manager::Docker, Manager::KubeProxy, Manager::Calico],
        "kube-proxy-ipvs.iptables-save" => [Manager::KubeProxy, Manager::Calico],
        "cilium.iptables-save" => [Manager::Cilium],
        "docker.iptables-save" => [Manager::Docker],
        "nixos.iptables-save" => [Manager::Other("NixOS")],
        "openwrt.nft" => [Manager::OpenWrt],
        "vyos.nft" => [Manager::Vyos],
        "vyos-raw.nft" => [Manager::Vyos],
        "proxmox.iptables-save" => [Manager::Proxmox],
        "libvirt.iptables-save" => [Manager::Libvirt],
    }
}

#[test]
fn two_owners_may_share_a_machine() {
    let both = table("filter", &["ufw-before-input", "DOCKER-USER"]);
    assert_eq!(owners(&[both]), [Manager::Ufw, Manager::Docker]);
    let kubelet = table("filter", &["KUBE-FIREWALL", "KUBE-SERVICES"]);
    assert_eq!(owners(&[kubelet]), [Manager::KubeProxy], "what kubelet adds is no other");
}

#[test]
fn a_comment_tells_too() {
    let mut one = table("filter", &["FORWARD"]);
    let comment = Some("cali:wUHhoiAYhphO9Mso".to_owned());
    one.keep("FORWARD", Rule { number: 3, conditions: Vec::new(), act: Act::Next, comment });
    assert_eq!(owners(std::slice::from_ref(&one)), [Manager::Calico]);
}

#[test]
fn a_machine_tells_by_what_runs_or_is_there() {
    let of = |files: &[&str], processes: &[&str], services: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let evidence = Evidence {
            files: owned(files),
            processes: owned(processes),
            services: owned(services),
            includes: Vec::new(),
        };
        of_machine(&evidence).into_iter().map(|owned| owned.owner).collect::<Vec<_>>()
    };
    assert_eq!(of(&["/etc/nftables.conf", "/etc/ufw/ufw.conf"], &[], &[]), [], "only installed");
    assert_eq!(of(&["/etc/sonic/sonic_version.yml"], &[], &[]), [Manager::Sonic]);
    assert_eq!(of(&[], &["dockerd", "firewalld"], &[]), [Manager::Docker, Manager::Firewalld]);
    assert_eq!(of(&[], &[], &["nftables.service"]), [Manager::Nftables]);
    assert_eq!(of(&["/etc/cumulus/acl"], &["switchd"], &[]), [Manager::Cumulus]);
}
