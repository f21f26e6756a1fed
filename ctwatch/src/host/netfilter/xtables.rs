//! Matches and targets of iptables, in either framework: those that have to do with tracking, and
//! what a rule asks for and does.

use crate::record::facts::{Act, Condition, POLICY_OF_IPTABLES, RuleUse};

/// A match of a rule; `info` is its own structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Has nothing to do with tracking.
    Other,
    Tracking,
    /// And what matches is INVALID.
    Invalid,
    /// Or is not tracked.
    InvalidOrUntracked,
}

/// Whether these matches of one rule leave nothing but what is INVALID, or that and what is not
/// tracked.
pub fn are_invalid(asked: &[Match]) -> bool {
    let is_invalid = |one: &Match| matches!(one, Match::Invalid | Match::InvalidOrUntracked);
    !asked.is_empty() && asked.iter().all(is_invalid)
}

/// Of what such a rule counted, nobody knows how many were INVALID where others match too; unless
/// there are none.
pub fn of_invalid(asked: &[Match], packets: Option<u64>) -> Option<u64> {
    packets.filter(|count| *count == 0 || !asked.contains(&Match::InvalidOrUntracked))
}

/// A target of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    Other,
    Tracking,
    /// Gives the connection a timeout policy.
    Timeout,
    NoTrack,
}

/// `XT_CONNTRACK_STATE`, and `XT_CONNTRACK_STATE_INVALID`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/xt_conntrack.h>
const STATE: u16 = 1;
/// `XT_CONNTRACK_STATE_ALIAS`: it was typed as `-m state`, and asks for nothing more.
const STATE_ALIAS: u16 = 1 << 13;
const INVALID: u16 = 1;

pub fn matched(name: &str, info: &[u8]) -> Match {
    let asked_for = |states: u16, untracked: u16| match states {
        INVALID => Match::Invalid,
        both if both == INVALID | untracked => Match::InvalidOrUntracked,
        _ => Match::Tracking,
    };
    match name {
        // Four addresses with masks, two times, a protocol and four ports; then which of all that
        // is to match, which is to be turned round, and the states.
        "conntrack" => match (questions(info), half(info, 148), half(info, 150)) {
            (Some(STATE), Some(inverted), Some(states)) if inverted & STATE == 0 => {
                asked_for(states, UNTRACKED)
            }
            _ => Match::Tracking,
        },
        "state" => {
            let states = info.first_chunk().map(|states| u32::from_ne_bytes(*states));
            let states = states.and_then(|states| u16::try_from(states).ok());
            states.map_or(Match::Tracking, |states| asked_for(states, STATE_UNTRACKED))
        }
        "connmark" | "connlimit" | "connbytes" | "connlabel" | "helper" | "cluster" => {
            Match::Tracking
        }
        _ => Match::Other,
    }
}

pub fn target(name: &str, info: &[u8]) -> Jump {
    match name {
        "NOTRACK" => Jump::NoTrack,
        // `struct xt_ct_target_info`: its flags come first.
        "CT" if info.first().is_some_and(|flags| flags & 1 != 0) => Jump::NoTrack,
        // `struct xt_ct_target_info_v1`: the policy's name comes after the helper's.
        "CT" if info.get(28).is_some_and(|first| *first != 0) => Jump::Timeout,
        "CT" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" | "CONNMARK"
        | "CONNSECMARK" | "SYNPROXY" | "CLUSTERIP" | "FLOWOFFLOAD" => Jump::Tracking,
        _ => Jump::Other,
    }
}

/// `XT_CONNTRACK_STATE_UNTRACKED`
const UNTRACKED: u16 = 1 << 8;
/// `XT_STATE_UNTRACKED`, of the older match.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/xt_state.h>
const STATE_UNTRACKED: u16 = 1 << 6;

fn half(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?))
}

/// What `-m conntrack` asks for, one bit each.
fn questions(info: &[u8]) -> Option<u16> {
    half(info, 146).map(|matches| matches & !STATE_ALIAS)
}

/// What a match asks for.
pub fn conditions(name: &str, info: &[u8]) -> Vec<Condition> {
    match name {
        // It holds for every packet.
        "comment" => Vec::new(),
        "tcp" => tcp(info).unwrap_or_else(|| vec![Condition::Other]),
        "udp" => ports(info, 8).unwrap_or_else(|| vec![Condition::Other]),
        "conntrack" => vec![Condition::Tracking(conntrack_untracked(info))],
        "state" => vec![Condition::Tracking(half(info, 0).map(|mask| mask & STATE_UNTRACKED != 0))],
        // None of them holds where there is no connection; the others count or hash by themselves.
        "connmark" | "connbytes" | "connlabel" | "helper" => {
            vec![Condition::Tracking(Some(false))]
        }
        "connlimit" | "cluster" => vec![Condition::Tracking(None)],
        "addrtype" if is_local(info) => vec![Condition::DestinationIsLocal],
        _ => vec![Condition::Other],
    }
}

/// Whether a packet that is not tracked matches.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/xt_conntrack.c> `conntrack_mt`
fn conntrack_untracked(info: &[u8]) -> Option<bool> {
    let (matches, inverted, states) = (questions(info)?, half(info, 148)?, half(info, 150)?);
    if matches & STATE != 0 && (states & UNTRACKED != 0) == (inverted & STATE != 0) {
        return Some(false);
    }
    // All other questions are about a connection, and there is none.
    Some(matches & !STATE == 0)
}

/// `--dst-type LOCAL` and nothing else: `struct xt_addrtype_info_v1` has the types of the source, those of
/// the destination, and flags.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/xt_addrtype.h>
fn is_local(info: &[u8]) -> bool {
    const LOCAL: u16 = 1 << 2;
    info.len() == 8
        && (half(info, 0), half(info, 2)) == (Some(0), Some(LOCAL))
        && info[4..] == [0; 4]
}

/// `struct xt_tcp`, `struct xt_udp`: ports of both sides first, in the order of this machine.
fn ports(info: &[u8], inverted_at: usize) -> Option<Vec<Condition>> {
    let (source, destination) =
        ((half(info, 0)?, half(info, 2)?), (half(info, 4)?, half(info, 6)?));
    let inverted = *info.get(inverted_at)?;
    let mut asked = Vec::new();
    let mut ask = |(from, to), bit, condition: fn(u16, u16) -> Condition| {
        if (from, to) != (0, u16::MAX) {
            let is_plain = inverted & bit == 0;
            asked.push(if is_plain { condition(from, to) } else { Condition::Other });
        }
    };
    ask(source, 1, Condition::SourcePort);
    ask(destination, 2, Condition::DestinationPort);
    Some(asked)
}

/// Its option and its flags are asked for after the ports.
fn tcp(info: &[u8]) -> Option<Vec<Condition>> {
    let mut asked = ports(info, 11)?;
    if info.get(8..10)? != [0, 0] {
        asked.push(Condition::Other);
    }
    Some(asked)
}

/// What a target does with a packet; verdicts have no name.
pub fn act(name: &str, info: &[u8]) -> Act {
    const GO_ON: [&str; 26] = [
        "NOTRACK",
        "LOG",
        "NFLOG",
        "ULOG",
        "MARK",
        "CONNMARK",
        "TCPMSS",
        "CLASSIFY",
        "DSCP",
        "TOS",
        "SET",
        "TRACE",
        "CHECKSUM",
        "TEE",
        "AUDIT",
        "HMARK",
        "IDLETIMER",
        "LED",
        "RATEEST",
        "SECMARK",
        "CONNSECMARK",
        "TTL",
        "HL",
        "ECN",
        "TCPOPTSTRIP",
        "FLOWOFFLOAD",
    ];
    match name {
        "REJECT" | "TARPIT" => Act::Drop,
        // Three numbers, and then the mode; in the newest revision after a shift.
        "CONNMARK" if info.get(12) == Some(&2) || info.get(14) == Some(&2) => Act::Restore,
        "CONNSECMARK" if info.first() == Some(&2) => Act::Restore,
        "MASQUERADE" | "SNAT" => Act::TranslateSource,
        "DNAT" | "REDIRECT" | "NETMAP" | "CLUSTERIP" => Act::TranslateDestination,
        // `struct xt_ct_target_info`: flags, zone, two masks of events, and the helper's name.
        "CT" => match info.get(12) {
            Some(0) | None => Act::Next,
            Some(_) => Act::Help,
        },
        name if GO_ON.contains(&name) => Act::Next,
        _ => Act::Unknown,
    }
}

/// What of a rule has to do with tracking: `matches` by name with what is their own; `packets`: what it counts.
pub fn use_of<'a>(
    (chain, number): (&str, u64),
    matches: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    (target_name, target_info): (&str, &[u8]),
    act: &Act,
    packets: Option<u64>,
) -> Option<RuleUse> {
    let (mut by, mut asked) = (Vec::new(), Vec::new());
    for (name, info) in matches {
        let found = matched(name, info);
        if found != Match::Other {
            by.push(format!("-m {name}"));
            asked.push(found);
        }
    }
    let mut notrack = false;
    match target(target_name, target_info) {
        Jump::Other => {}
        Jump::Tracking => by.push(format!("-j {target_name}")),
        Jump::Timeout => by.push(POLICY_OF_IPTABLES.to_owned()),
        Jump::NoTrack => {
            notrack = by.is_empty();
            by.push(format!("-j {target_name} --notrack"));
        }
    }
    (!by.is_empty()).then(|| RuleUse {
        chain: chain.to_owned(),
        number,
        by,
        notrack,
        on_invalid: are_invalid(&asked).then(|| act.clone()),
        packets: of_invalid(&asked, packets),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untracked_packet_matches_what_it_should() {
        let asks = |states, inverted| conditions("conntrack", &conntrack(1, inverted, states));
        let tracking = |holds| vec![Condition::Tracking(Some(holds))];
        assert_eq!(asks(2, 0), tracking(false), "established");
        assert_eq!(asks(2, 1), tracking(true), "all but established");
        assert_eq!(asks(1 << 8 | 2, 0), tracking(true));
        let alias = |inverted| conditions("conntrack", &conntrack(1 | 1 << 13, inverted, 2));
        assert_eq!((alias(0), alias(1)), (tracking(false), tracking(true)), "-m state");
        assert_eq!(conditions("conntrack", &conntrack(2, 0, 0)), tracking(false), "a protocol");
        assert_eq!(conditions("conntrack", &[]), [Condition::Tracking(None)]);
    }

    #[test]
    fn ports_are_ranges() {
        let udp = |ports: [u16; 4], inverted: u16| {
            let words = [ports[0], ports[1], ports[2], ports[3], inverted];
            conditions("udp", &words.map(u16::to_ne_bytes).concat())
        };
        assert_eq!(udp([0, 65_535, 53, 53], 0), [Condition::DestinationPort(53, 53)]);
        assert_eq!(udp([0, 65_535, 53, 53], 2u16.to_le()), [Condition::Other]);
        assert_eq!(udp([0, 65_535, 0, 65_535], 0), []);
        assert_eq!(conditions("udp", &[0; 3]), [Condition::Other]);
        assert_eq!(conditions("set", &[]), [Condition::Other]);
    }

    #[test]
    fn a_type_of_address_may_be_local() {
        let asks = |source: u16, destination: u16, flags: u32| {
            let types = [source.to_ne_bytes(), destination.to_ne_bytes()].concat();
            conditions("addrtype", &[types, flags.to_ne_bytes().to_vec()].concat())
        };
        assert_eq!(asks(0, 4, 0), [Condition::DestinationIsLocal]);
        assert_eq!(asks(0, 4, 2), [Condition::Other], "turned round");
        assert_eq!(asks(4, 0, 0), [Condition::Other], "the source");
        assert_eq!(asks(0, 1 << 5, 0), [Condition::Other], "multicast");
        assert_eq!(conditions("addrtype", &[0, 0, 4, 0]), [Condition::Other]);
    }

    #[test]
    fn a_target_does_what_its_name_says() {
        assert_eq!(act("REJECT", &[]), Act::Drop);
        assert_eq!(act("DNAT", &[]), Act::TranslateDestination);
        let mut helper = vec![0; 36];
        assert_eq!(act("CT", &helper), Act::Next);
        helper[12] = b'f';
        assert_eq!(act("CT", &helper), Act::Help);
        assert_eq!(act("TPROXY", &[]), Act::Unknown);
        let connmark = |at: usize, mode: u8| {
            let mut info = vec![0; 16];
            info[at] = mode;
            act("CONNMARK", &info)
        };
        assert_eq!([connmark(12, 2), connmark(14, 2)], [Act::Restore, Act::Restore]);
        assert_eq!([connmark(12, 1), connmark(14, 0)], [Act::Next, Act::Next], "saved, set");
    }

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
        assert_eq!(matched("conntrack", &conntrack(1 | 1 << 13, 0, 1)), Match::Invalid, "-m state");
        assert_eq!(matched("conntrack", &conntrack(1, 1, 1)), Match::Tracking, "turned round");
        assert_eq!(matched("conntrack", &conntrack(1, 0, 3)), Match::Tracking, "and others");
        assert_eq!(matched("conntrack", &conntrack(3, 0, 1)), Match::Tracking, "and more");
        assert_eq!(matched("state", &1u32.to_ne_bytes()), Match::Invalid);
        let both = matched("state", &65u32.to_ne_bytes());
        assert_eq!(both, Match::InvalidOrUntracked);
        let both = matched("conntrack", &conntrack(1, 0, 1 | UNTRACKED));
        assert_eq!(both, Match::InvalidOrUntracked);
        assert!(are_invalid(&[both, Match::Invalid]) && !are_invalid(&[both, Match::Tracking]));
        assert_eq!((of_invalid(&[both], Some(0)), of_invalid(&[both], Some(3))), (Some(0), None));
        assert_eq!(of_invalid(&[Match::Invalid], Some(3)), Some(3));
        for len in 0..152 {
            assert_eq!(matched("conntrack", &conntrack(1, 0, 1)[..len]), Match::Tracking);
        }
        assert_eq!(matched("tcp", &[]), Match::Other);
    }

    #[test]
    fn ct_may_track_or_not() {
        assert_eq!(target("CT", &[1, 0]), Jump::NoTrack);
        assert_eq!(target("CT", &[0, 0]), Jump::Tracking);
        assert_eq!(target("CT", &[]), Jump::Tracking);
        let mut policy = [0; 60];
        assert_eq!(target("CT", &policy), Jump::Tracking);
        policy[28] = b'p';
        assert_eq!(target("CT", &policy), Jump::Timeout);
        assert_eq!(target("MASQUERADE", &[]), Jump::Tracking);
        assert_eq!(target("LOG", &[]), Jump::Other);
    }
}
