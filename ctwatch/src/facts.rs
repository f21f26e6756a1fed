//! What was found out about this machine for the doctor, uninterpreted: plain values, and where one
//! could not be had, why.

/// Found, or why it is unknown.
pub type Known<T> = Result<T, String>;

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    Nft,
    /// iptables-legacy, ip6tables-legacy.
    Legacy,
}

/// A table of rules in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTable {
    pub framework: Framework,
    /// As nft names them: ip, ip6, inet, arp, bridge, netdev.
    pub family: &'static str,
    pub name: String,
    /// All of its rules; the policies of legacy chains, and their last, empty entries, are none.
    pub rules: u64,
    /// Those that need connection tracking, or keep packets from it: the first few.
    pub uses: Vec<RuleUse>,
    /// And so many more.
    pub more: u64,
}

/// A rule that has to do with connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleUse {
    pub chain: String,
    /// nft's handle; with iptables the number of the rule in its chain, from 1.
    pub number: u64,
    /// What in it has to do with tracking, in the words of nft or iptables: `ct`, `masquerade`,
    /// `-m conntrack`, `-j MASQUERADE`.
    pub by: Vec<String>,
    /// It keeps packets from being tracked: `notrack`, `-j CT --notrack`. Such a rule does not need
    /// tracking.
    pub notrack: bool,
    /// It drops what conntrack calls INVALID.
    pub drops_invalid: bool,
    /// Packets that matched, where the rule counts them.
    pub packets: Option<u64>,
}

/// A function that is called for packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub family: &'static str,
    /// prerouting, input, forward, output, postrouting.
    pub hook: &'static str,
    pub priority: i32,
    pub function: String,
    pub module: Option<String>,
}
