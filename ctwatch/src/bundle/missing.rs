//! Why a fact is unknown, with the command that tells it.

/// Why something is unknown.
pub(super) fn why(namespace: Option<&str>, command: &str) -> String {
    format!("it is not in what was read ({} tells)", typed(namespace, command))
}

/// The command as it is typed to look into this namespace.
pub(super) fn typed(namespace: Option<&str>, command: &str) -> String {
    // A name with other characters might be read as something else by a shell.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match namespace.filter(|name| name.chars().all(is_plain)) {
        Some(name) => format!("ip netns exec {name} {command}"),
        None => command.to_owned(),
    }
}

pub(super) const LIMIT: &str = "sysctl net.netfilter.nf_conntrack_max";
pub(super) const ENTRIES: &str = "sysctl net.netfilter.nf_conntrack_count";
pub(super) const BUCKETS: &str = "sysctl net.netfilter.nf_conntrack_buckets";
pub(super) const EXPECT_MAX: &str = "sysctl net.netfilter.nf_conntrack_expect_max";
pub(super) const COUNTERS: &str = "conntrack -S";
pub(super) const EXPECTATIONS: &str = "conntrack -L expect";
pub(super) const MODULES: &str = "lsmod";
pub(super) const SLAB: &str = "cat /proc/slabinfo";
pub(super) const MEMORY: &str = "cat /proc/meminfo";
pub(super) const LOG: &str = "dmesg";
pub(super) const NFT: &str = "nft -a list ruleset";
pub(super) const LEGACY: &str = "iptables-legacy-save";
pub(super) const HOOKS: &str = "nft list hooks";
