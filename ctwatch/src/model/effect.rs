//! What a fix would change in the tables, as far as that can be reckoned.

use ctwatch_abi::NetnsId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// All tables may hold so many entries.
    Limit { to: u64 },
    /// One table would have held fewer entries, when a census found so many in it.
    Fewer { netns: NetnsId, of: u64, at_least: u64, at_most: u64 },
}

/// How long entries of one table live after their last packet, in seconds, by its timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// None lives longer that is not of an open connection of TCP, SCTP or DCCP.
    pub passing: u32,
    /// None lives longer.
    pub longest: u32,
}

impl Lives {
    /// From the timeouts of a namespace, by the names of their sysctls. `None` where one of them is missing that
    /// every kernel has.
    pub fn of<'a>(timeouts: impl IntoIterator<Item = (&'a str, u32)>) -> Option<Self> {
        let (mut passing, mut longest) = (0, 0);
        let mut missing = EVERYWHERE.to_vec();
        // Those of flow tables are not those of entries.
        let timeouts = timeouts.into_iter().filter(|(name, _)| name.starts_with("nf_conntrack_"));
        for (name, seconds) in timeouts {
            missing.retain(|wanted| *wanted != name);
            longest = longest.max(seconds);
            if !LASTING.iter().any(|lasting| name.ends_with(lasting)) {
                passing = passing.max(seconds);
            }
        }
        missing.is_empty().then_some(Self { passing, longest })
    }
}

/// Of connections that are open.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_standalone.c>
const LASTING: [&str; 3] =
    ["tcp_timeout_established", "sctp_timeout_established", "dccp_timeout_open"];

const EVERYWHERE: [&str; 5] = [
    "nf_conntrack_generic_timeout",
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_close",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_icmp_timeout",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_follow_from_timeouts() {
        let all = [
            ("nf_conntrack_generic_timeout", 600),
            ("nf_conntrack_tcp_timeout_established", 432_000),
            ("nf_conntrack_tcp_timeout_close", 10),
            ("nf_conntrack_udp_timeout", 30),
            ("nf_conntrack_icmp_timeout", 30),
        ];
        let lives = Lives { passing: 600, longest: 432_000 };
        assert_eq!(Lives::of(all), Some(lives));
        assert_eq!(Lives::of(all[1..].iter().copied()), None, "one of them could not be read");
    }
}
