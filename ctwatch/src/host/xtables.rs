//! Matches and targets of iptables that have to do with tracking, in either framework.

/// A match of a rule; `info` is its own structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Has nothing to do with tracking.
    Other,
    Tracking,
    /// And what matches is INVALID, if not more.
    Invalid,
}

/// A target of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Other,
    Tracking,
    NoTrack,
}

/// `XT_CONNTRACK_STATE`, and `XT_CONNTRACK_STATE_INVALID`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/xt_conntrack.h>
const STATE: u16 = 1;
const INVALID: u16 = 1;

pub(super) fn matched(name: &str, info: &[u8]) -> Match {
    let word = |at: usize| {
        let bytes = info.get(at..at + 2)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    };
    let invalid = match name {
        // Four addresses with masks, two times, a protocol and four ports; then which of all that
        // is to match, which is to be turned round, and the states.
        "conntrack" => {
            word(146).zip(word(148)).zip(word(150)).is_some_and(|((matches, inverted), states)| {
                matches == STATE && inverted & STATE == 0 && states & 0xff == INVALID
            })
        }
        "state" => info.first_chunk().is_some_and(|states| u32::from_ne_bytes(*states) == 1),
        "connmark" | "connlimit" | "connbytes" | "connlabel" | "helper" | "cluster" => false,
        _ => return Match::Other,
    };
    if invalid { Match::Invalid } else { Match::Tracking }
}

pub(super) fn target(name: &str, info: &[u8]) -> Target {
    match name {
        "NOTRACK" => Target::NoTrack,
        // `struct xt_ct_target_info`: its flags come first.
        "CT" if info.first().is_some_and(|flags| flags & 1 != 0) => Target::NoTrack,
        "CT" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" | "CONNMARK"
        | "CONNSECMARK" | "SYNPROXY" | "CLUSTERIP" | "FLOWOFFLOAD" => Target::Tracking,
        _ => Target::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conntrack(matches: u16, inverted: u16, states: u16) -> Vec<u8> {
        let mut info = vec![0; 164];
        for (at, value) in [(146, matches), (148, inverted), (150, states)] {
            info[at..at + 2].copy_from_slice(&u16::to_ne_bytes(value));
        }
        info
    }

    #[test]
    fn only_what_is_certainly_invalid_is_said_to_be() {
        assert_eq!(matched("conntrack", &conntrack(1, 0, 1)), Match::Invalid);
        assert_eq!(matched("conntrack", &conntrack(1, 1, 1)), Match::Tracking, "turned round");
        assert_eq!(matched("conntrack", &conntrack(1, 0, 3)), Match::Tracking, "and others");
        assert_eq!(matched("conntrack", &conntrack(3, 0, 1)), Match::Tracking, "and more");
        assert_eq!(matched("state", &1u32.to_ne_bytes()), Match::Invalid);
        for len in 0..152 {
            assert_eq!(matched("conntrack", &conntrack(1, 0, 1)[..len]), Match::Tracking);
        }
        assert_eq!(matched("tcp", &[]), Match::Other);
    }

    #[test]
    fn ct_may_track_or_not() {
        assert_eq!(target("CT", &[1, 0]), Target::NoTrack);
        assert_eq!(target("CT", &[0, 0]), Target::Tracking);
        assert_eq!(target("CT", &[]), Target::Tracking);
        assert_eq!(target("MASQUERADE", &[]), Target::Tracking);
        assert_eq!(target("LOG", &[]), Target::Other);
    }
}
