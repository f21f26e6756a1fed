//! Turns words of iptables into the kernel's own structures, so that one parser reads matches and targets, from the
//! kernel and from text.

use std::{net::IpAddr, str::FromStr};

use crate::{
    host::netfilter::xtables,
    record::facts::{Act, Condition, Rule, RuleTable},
};

/// Conditions and target of a rule, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    conditions: Vec<Condition>,
    /// Name, and the structure that the kernel would have.
    matches: Vec<(String, Vec<u8>)>,
    target: (String, Vec<u8>),
    act: Act,
    comment: Option<String>,
    pub(super) packets: Option<u64>,
}

impl Spoken {
    pub(super) fn ask(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// An address, or a network; `!`: all others.
    pub(super) fn address(&mut self, text: &str, is_source: bool, is_inverted: bool) {
        let condition = prefix(text).filter(|_| !is_inverted);
        self.ask(match (condition, is_source) {
            (Some((address, len)), true) => Condition::Source(address, len),
            (Some((address, len)), false) => Condition::Destination(address, len),
            (None, _) => Condition::Other,
        });
    }

    pub(super) fn protocol(&mut self, text: &str, is_inverted: bool) {
        let number = crate::model::names::protocol_number(text).filter(|_| !is_inverted);
        self.ask(number.map_or(Condition::Other, Condition::Protocol));
    }

    pub(super) fn matching(&mut self, name: &str, info: Vec<u8>) {
        self.matches.push((name.to_owned(), info));
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.comment = Some(text.to_owned());
        self.matching("comment", Vec::new());
    }

    /// A verdict, a chain, or a target with its structure. `is_chain`: there is a chain of this name.
    pub(super) fn jump(&mut self, name: &str, info: Vec<u8>, is_chain: bool, is_goto: bool) {
        let by_name = xtables::act(name, &info);
        self.act = match name {
            "ACCEPT" => Act::Accept,
            "DROP" => Act::Drop,
            "RETURN" => Act::Return,
            _ if !is_chain && (by_name != Act::Unknown || OTHERS.contains(&name)) => by_name,
            chain if is_goto => Act::Goto(chain.to_owned()),
            chain => Act::Jump(chain.to_owned()),
        };
        self.target = (name.to_owned(), info);
    }

    /// Adds it to this chain.
    pub(super) fn keep(self, table: &mut RuleTable, chain: &str, number: u64) {
        let Self { mut conditions, matches, target, act, comment, packets } = self;
        let all = || matches.iter().map(|(name, info)| (name.as_str(), info.as_slice()));
        conditions.extend(all().flat_map(|(name, info)| xtables::conditions(name, info)));
        let found = xtables::use_of((chain, number), all(), (&target.0, &target.1), &act, packets);
        table.add(found);
        table.keep(chain, Rule { number, conditions, act, comment });
    }
}

/// Names of targets that are no chains, and that are not read further.
const OTHERS: [&str; 9] =
    ["NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "ECN", "ULOG", "RAWDNAT", "RAWSNAT", "TTL"];

/// `10.0.0.0/8`, `fd00::1`
pub(super) fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let address = IpAddr::from_str(address).ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => most,
        Some(len) => len.parse().ok().or_else(|| mask(len))?,
    };
    (len <= most).then_some((address, len))
}

/// The length of a mask like `255.255.0.0`; one with holes has none.
fn mask(text: &str) -> Option<u8> {
    let bits = text.parse::<std::net::Ipv4Addr>().ok()?.to_bits();
    let len = bits.leading_ones();
    (bits.count_ones() == len).then(|| u8::try_from(len).ok())?
}

/// `53`, `1024:65535`, `:1023`, `5000:`, or with `-` as nft writes it.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let (from, to) = match text.split_once([':', '-']) {
        Some((from, to)) => (from, to),
        None => (text, text),
    };
    let end = |text: &str, open: u16| if text.is_empty() { Some(open) } else { text.parse().ok() };
    Some((end(from, 0)?, end(to, u16::MAX)?))
}

/// `struct xt_tcp`, `struct xt_udp`: source and destination, each with whether it is inverted.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortMatch {
    pub(super) source: ((u16, u16), bool),
    pub(super) destination: ((u16, u16), bool),
    /// It asks for more than ports.
    pub(super) has_more: bool,
}

impl Default for PortMatch {
    fn default() -> Self {
        let any = ((0, u16::MAX), false);
        Self { source: any, destination: any, has_more: false }
    }
}

impl PortMatch {
    pub(super) fn info(self, is_tcp: bool) -> Vec<u8> {
        let ((from, to), not_source) = self.source;
        let ((first, last), not_destination) = self.destination;
        let mut info = [from, to, first, last].map(u16::to_ne_bytes).concat();
        let inverted = u8::from(not_source) | u8::from(not_destination) << 1;
        let more = u8::from(self.has_more);
        match is_tcp {
            true => info.extend([more, 0, 0, inverted]),
            false => info.extend([inverted, 0]),
        }
        info
    }
}

/// A bit for each state, as in `-m conntrack`; `None` if a word is no state.
pub(super) fn states(text: &str) -> Option<u16> {
    let of = |word: &str| {
        Some(match word.trim().to_ascii_uppercase().as_str() {
            "INVALID" => 1,
            "ESTABLISHED" => 1 << 1,
            "RELATED" => 1 << 2,
            "NEW" => 1 << 3,
            "SNAT" => 1 << 6,
            "DNAT" => 1 << 7,
            "UNTRACKED" => 1 << 8,
            _ => return None,
        })
    };
    text.split(',').map(of).try_fold(0, |all, one| Some(all | one?))
}

/// `struct xt_conntrack_mtinfo3`; `has_more`: it asks for more than states.
pub(super) fn conntrack(states: Option<u16>, is_inverted: bool, has_more: bool) -> Vec<u8> {
    let mut info = vec![0; 164];
    let asks = u16::from(states.is_some()) | u16::from(has_more) << 1;
    let places = [(146, asks), (148, u16::from(is_inverted)), (150, states.unwrap_or(0))];
    for (at, value) in places {
        info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    info
}

/// `struct xt_addrtype_info_v1` that asks whether the destination is this machine.
pub(super) fn local_destination() -> Vec<u8> {
    [0_u16, 1 << 2, 0, 0].map(u16::to_ne_bytes).concat()
}

/// `struct xt_ct_target_info_v1`
pub(super) fn ct(notrack: bool, has_helper: bool, has_timeout: bool) -> Vec<u8> {
    let mut info = vec![0; 60];
    info[0] = u8::from(notrack);
    info[12] = if has_helper { b'h' } else { 0 };
    info[28] = if has_timeout { b't' } else { 0 };
    info
}

/// `struct xt_connmark_tginfo1`
pub(super) fn connmark(restores: bool) -> Vec<u8> {
    let mut info = vec![0; 13];
    info[12] = if restores { 2 } else { 0 };
    info
}

/// Splits at spaces; quotes are as `iptables-save` writes them.
pub(super) fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_open, mut has_word) =
        (Vec::new(), String::new(), false, false);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => (is_open, has_word) = (!is_open, true),
            '\\' if is_open => word.extend(characters.next()),
            c if c.is_whitespace() && !is_open => {
                if has_word {
                    words.push(std::mem::take(&mut word));
                    has_word = false;
                }
            }
            c => {
                word.push(c);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = split(r#"-A F -m comment --comment "a \"b\" c" -j LOG --log-prefix "x: ""#);
        assert_eq!(words[5], "a \"b\" c");
        assert_eq!(words.last().map(String::as_str), Some("x: "));
        assert_eq!(split("  a  \"\" "), ["a", ""]);
    }

    #[test]
    fn prefixes_and_ports_are_read() {
        assert_eq!(prefix("10.0.0.0/255.255.0.0").map(|(_, len)| len), Some(16));
        assert_eq!(prefix("10.0.0.1").map(|(_, len)| len), Some(32));
        assert_eq!(prefix("fd00::/8").map(|(_, len)| len), Some(8));
        assert_eq!(prefix("10.0.0.0/255.0.255.0"), None);
        assert_eq!(prefix("10.0.0.0/33"), None);
        assert_eq!(ports(":1023"), Some((0, 1023)));
        assert_eq!(ports("1024:"), Some((1024, 65535)));
        assert_eq!(ports("ssh"), None);
    }

    #[test]
    fn what_is_asked_is_what_the_kernel_keeps() {
        let asks = |states: &str, is_inverted| {
            xtables::conditions("conntrack", &conntrack(super::states(states), is_inverted, false))
        };
        assert_eq!(asks("RELATED,ESTABLISHED", false), [Condition::Tracking(Some(false))]);
        assert_eq!(asks("ESTABLISHED", true), [Condition::Tracking(Some(true))]);
        assert_eq!(asks("INVALID,UNTRACKED", false), [Condition::Tracking(Some(true))]);
        let local = xtables::conditions("addrtype", &local_destination());
        assert_eq!(local, [Condition::DestinationIsLocal]);
        let ports = PortMatch { destination: ((53, 53), false), ..PortMatch::default() };
        assert_eq!(
            xtables::conditions("udp", &ports.info(false)),
            [Condition::DestinationPort(53, 53)]
        );
        let more = PortMatch { has_more: true, ..ports };
        assert_eq!(xtables::conditions("tcp", &more.info(true)).len(), 2);
        assert_eq!(xtables::act("CT", &ct(false, true, false)), Act::Help);
        assert_eq!(xtables::act("CONNMARK", &connmark(true)), Act::Restore);
    }
}
