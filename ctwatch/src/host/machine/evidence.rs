//! What tells who manages this host's firewall and its settings: files, services, processes. What
//! that means is not known here.

use std::{collections::BTreeSet, fs, path::Path};

use crate::record::facts::Evidence;

/// Files and folders that only one of them has, or reads.
pub const FILES: [&str; 22] = [
    "/etc/ufw/ufw.conf",
    "/etc/firewalld/firewalld.conf",
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/config/firewall",
    "/etc/openwrt_release",
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
    "/etc/vyos",
    "/opt/vyatta/etc/config.boot.default",
    "/etc/pve",
    "/etc/sonic/sonic_version.yml",
    "/etc/cumulus/acl",
    "/var/lib/kube-proxy",
    "/etc/kubernetes",
    "/etc/cni/net.d/10-calico.conflist",
    "/etc/cni/net.d/05-cilium.conflist",
    "/var/run/cilium",
    "/etc/fail2ban/jail.conf",
    "/etc/sysctl.d",
];
pub const PROCESSES: [&str; 19] = [
    "kube-proxy",
    "k3s-server",
    "k3s-agent",
    "rke2",
    "calico-node",
    "cilium-agent",
    "dockerd",
    "libvirtd",
    "virtnetworkd",
    "firewalld",
    "fail2ban-server",
    "pve-firewall",
    "proxmox-firewal",
    "caclmgrd",
    "orchagent",
    "switchd",
    "netifd",
    "vyos-configd",
    "ufw",
];
pub const SERVICES: [&str; 12] = [
    "nftables.service",
    "netfilter-persistent.service",
    "iptables.service",
    "ip6tables.service",
    "ufw.service",
    "firewalld.service",
    "fail2ban.service",
    "docker.service",
    "libvirtd.service",
    "pve-firewall.service",
    "kubelet.service",
    "switchd.service",
];
/// Where systemd, and before it SysV, keep what is started at boot.
const STARTED: [&str; 7] = [
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/systemd/system/sysinit.target.wants",
    "/etc/systemd/system/basic.target.wants",
    "/etc/systemd/system/network-pre.target.wants",
    "/etc/systemd/system/network.target.wants",
    "/usr/lib/systemd/system/multi-user.target.wants",
    "/lib/systemd/system/multi-user.target.wants",
];

pub fn evidence() -> Evidence {
    let there = |path: &&str| Path::new(path).exists();
    let owned = |name: &str| name.to_owned();
    let is_started = |service: &&str| {
        STARTED.iter().any(|folder| Path::new(folder).join(service).symlink_metadata().is_ok())
    };
    Evidence {
        files: FILES.iter().filter(|path| there(path)).map(|path| owned(path)).collect(),
        processes: processes(),
        services: SERVICES.iter().filter(|name| is_started(name)).map(|n| owned(n)).collect(),
        includes: includes(&super::files::text("/etc/nftables.conf").unwrap_or_default()),
    }
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let comms = entries.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    let mut found = BTreeSet::new();
    for comm in comms {
        let name = comm.trim_end();
        if PROCESSES.contains(&name) {
            found.insert(name.to_owned());
        }
    }
    found.into_iter().collect()
}

/// `include "/etc/nftables.d/*.nft"`, where it stands by itself and not inside of a table.
pub fn includes(text: &str) -> Vec<String> {
    let (mut depth, mut found) = (0_usize, Vec::new());
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if depth == 0
            && let Some(file) = line.strip_prefix("include")
        {
            found.push(file.trim().trim_matches(['"', ';', '\'']).to_owned());
        }
        depth += line.matches('{').count();
        depth = depth.saturating_sub(line.matches('}').count());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_include_outside_of_tables_counts() {
        let text = "#!/usr/sbin/nft -f\nflush ruleset\ninclude \"/etc/nftables.d/*.nft\"\n\
                    table inet fw4 {\n  include \"/etc/inner/*.nft\"\n}\n# include \"/no\"\n";
        assert_eq!(includes(text), ["/etc/nftables.d/*.nft"]);
    }
}
