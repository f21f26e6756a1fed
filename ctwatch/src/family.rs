//! Which of the kernel's modules have to do with connection tracking: the one list of them.

/// What a module has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tracks, translates, or is a part of rules that need that. Without tracking it is of no use.
    Tracks,
    /// Something else that needs tracking and has it loaded.
    Uses,
    /// Is loaded along with it, and serves others too.
    Serves,
}

/// With all that begin like it.
const FAMILIES: [(&str, Role); 10] = [
    // With helpers, and before Linux 4.19 with a module for each of IPv4 and IPv6.
    ("nf_conntrack", Role::Tracks),
    ("nf_nat", Role::Tracks),
    // Before Linux 5.1 with a module for each of IPv4 and IPv6.
    ("nft_chain_nat", Role::Tracks),
    ("nft_masq", Role::Tracks),
    ("nft_redir", Role::Tracks),
    ("nf_flow_table", Role::Uses),
    ("ip_vs", Role::Uses),
    ("nf_defrag", Role::Serves),
    ("nf_synproxy", Role::Uses),
    // Of Open vSwitch.
    ("vport_", Role::Uses),
];

const MODULES: [(&str, Role); 36] = [
    ("act_connmark", Role::Tracks),
    ("act_ct", Role::Tracks),
    ("act_ctinfo", Role::Tracks),
    ("ip6t_MASQUERADE", Role::Tracks),
    ("ip6t_SYNPROXY", Role::Uses),
    ("ip6table_nat", Role::Tracks),
    ("ipt_CLUSTERIP", Role::Uses),
    ("ipt_MASQUERADE", Role::Tracks),
    ("ipt_SYNPROXY", Role::Uses),
    ("iptable_nat", Role::Tracks),
    ("nf_conncount", Role::Tracks),
    ("nfnetlink_cthelper", Role::Tracks),
    ("nfnetlink_cttimeout", Role::Tracks),
    ("nft_connlimit", Role::Tracks),
    ("nft_ct", Role::Tracks),
    ("nft_flow_offload", Role::Uses),
    ("nft_nat", Role::Tracks),
    ("nft_synproxy", Role::Uses),
    ("openvswitch", Role::Uses),
    ("xt_CONNMARK", Role::Tracks),
    ("xt_CONNSECMARK", Role::Tracks),
    ("xt_CT", Role::Tracks),
    ("xt_MASQUERADE", Role::Tracks),
    ("xt_NETMAP", Role::Tracks),
    ("xt_NOTRACK", Role::Tracks),
    ("xt_REDIRECT", Role::Tracks),
    ("xt_cluster", Role::Tracks),
    ("xt_connbytes", Role::Tracks),
    ("xt_connlabel", Role::Tracks),
    ("xt_connlimit", Role::Tracks),
    ("xt_connmark", Role::Tracks),
    ("xt_conntrack", Role::Tracks),
    ("xt_helper", Role::Tracks),
    ("xt_ipvs", Role::Uses),
    ("xt_nat", Role::Tracks),
    ("xt_state", Role::Tracks),
];

/// `None`: it has nothing to do with it.
pub fn role(module: &str) -> Option<Role> {
    let family = FAMILIES.iter().find(|(name, _)| module.starts_with(name));
    let one = MODULES.iter().find(|(name, _)| module == *name);
    family.or(one).map(|(_, role)| *role)
}

/// One that is kept from being loaded where nothing may be tracked.
pub fn tracks(module: &str) -> bool {
    role(module) == Some(Role::Tracks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_older_kernels_track_too() {
        for module in [
            "nf_conntrack_ipv4",
            "nf_conntrack_ipv6",
            "nf_nat_ipv4",
            "nf_nat_ipv6",
            "nf_nat_masquerade_ipv4",
            "nft_chain_nat_ipv6",
            "nft_masq_ipv4",
            "nft_redir_ipv6",
            "iptable_nat",
            "ip6table_nat",
            "ipt_MASQUERADE",
        ] {
            assert!(tracks(module), "{module}");
        }
    }

    /// All that `modules.dep` of Linux 5.10 to 7.3, as Debian builds it, has depend on nf_conntrack.
    #[test]
    fn all_that_depends_on_conntrack_has_a_role() {
        for module in [
            "act_connmark",
            "act_ct",
            "act_ctinfo",
            "ip_vs",
            "ip_vs_ftp",
            "ipt_CLUSTERIP",
            "nf_conncount",
            "nf_conntrack_bridge",
            "nf_conntrack_netlink",
            "nf_flow_table_inet",
            "nf_nat_sip",
            "nf_synproxy_core",
            "nfnetlink_cthelper",
            "nfnetlink_cttimeout",
            "nft_chain_nat",
            "nft_connlimit",
            "nft_ct",
            "nft_flow_offload",
            "nft_masq",
            "nft_nat",
            "nft_redir",
            "nft_synproxy",
            "openvswitch",
            "vport_geneve",
            "vport_gre",
            "vport_vxlan",
            "xt_CT",
            "xt_cluster",
            "xt_connbytes",
            "xt_conntrack",
            "xt_ipvs",
            "xt_nat",
            "xt_state",
        ] {
            assert!(role(module).is_some(), "{module}");
        }
        assert!(tracks("nf_conncount") && !tracks("vport_vxlan"));
    }

    #[test]
    fn what_serves_others_too_is_no_tracker() {
        assert_eq!(role("nf_defrag_ipv4"), Some(Role::Serves));
        assert_eq!(role("ip_vs_rr"), Some(Role::Uses));
        assert_eq!(role("openvswitch"), Some(Role::Uses));
        for module in ["nf_tables", "iptable_filter", "xt_tcpudp", "snd", "nf_log_ipv4"] {
            assert_eq!(role(module), None, "{module}");
        }
    }
}
