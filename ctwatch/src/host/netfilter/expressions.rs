//! What a rule of nftables asks for and does, read from its expressions.
//!
//! An expression loads a part of the packet into a register, and a later one compares that.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_tables.h>

use std::net::IpAddr;

use super::{
    attributes::{attribute, be32, text},
    xtables,
};
use crate::record::facts::{Act, Condition};

const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
/// Of a comparison, a bit mask, a range and a lookup alike.
const NFTA_SREG: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM: u16 = 3;
const NFTA_RANGE_TO: u16 = 4;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_OBJREF_IMM_TYPE: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_XT_NAME: u16 = 1;
const NFTA_XT_INFO: u16 = 3;

const NFT_CT_STATE: u32 = 0;
const NFT_CT_MARK: u32 = 3;
const NFT_META_MARK: u32 = 3;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_OBJECT_CT_HELPER: u32 = 3;
const NFT_NAT_SNAT: u32 = 0;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NF_CT_STATE_UNTRACKED_BIT`
const UNTRACKED: u32 = 1 << 6;

/// What a register holds.
#[derive(Clone, Debug, PartialEq)]
enum Loaded {
    /// The state, and the bits of it that are kept.
    State(Option<u32>),
    /// Of the connection.
    Mark,
    Protocol,
    SourcePort,
    DestinationPort,
    /// With the mask that was put over it.
    Source(Option<Vec<u8>>),
    Destination(Option<Vec<u8>>),
    Family,
    Other,
}

/// What was read of a rule so far.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    registers: Vec<(u32, Loaded)>,
    pub(super) conditions: Vec<Condition>,
    pub(super) act: Act,
    pub(super) comment: Option<String>,
}

impl Expressions {
    pub(super) fn take(&mut self, name: &str, data: &[u8]) {
        let number = |kind| attribute(data, kind).and_then(be32);
        match name {
            "ct" => {
                let Some(to) = number(NFTA_CT_DREG) else { return };
                match number(NFTA_CT_KEY) {
                    Some(NFT_CT_STATE) => self.load(Some(to), Loaded::State(None)),
                    // No rule goes on that asks a connection that is not there.
                    _ => {
                        self.ask(Condition::Tracking(Some(false)));
                        let is_mark = number(NFTA_CT_KEY) == Some(NFT_CT_MARK);
                        self.load(Some(to), if is_mark { Loaded::Mark } else { Loaded::Other });
                    }
                }
            }
            "meta" => {
                let is_mark = number(NFTA_META_KEY) == Some(NFT_META_MARK);
                if is_mark && *self.held(number(NFTA_META_SREG)) == Loaded::Mark {
                    self.act = Act::Restore;
                }
                let Some(to) = number(NFTA_META_DREG) else { return };
                let loaded = match number(NFTA_META_KEY) {
                    Some(NFT_META_L4PROTO) => Loaded::Protocol,
                    Some(NFT_META_NFPROTO) => Loaded::Family,
                    _ => Loaded::Other,
                };
                self.load(Some(to), loaded);
            }
            "payload" => {
                let Some(to) = number(NFTA_PAYLOAD_DREG) else { return };
                self.load(Some(to), part(data));
            }
            // What else loads something.
            "fib" | "rt" | "socket" | "osf" | "exthdr" | "numgen" | "hash" | "xfrm" | "tunnel"
            | "byteorder" => {
                self.load(None, Loaded::Other);
            }
            "bitwise" => self.mask(data),
            "cmp" => {
                let condition = self.compared(data);
                self.ask(condition);
            }
            "range" => {
                let condition = self.within(data);
                self.ask(condition);
            }
            "lookup" => self.look_up(data),
            "limit" | "quota" => self.ask(Condition::Other),
            "connlimit" => self.ask(Condition::Tracking(None)),
            "immediate" => self.verdict(data),
            "reject" => self.act = Act::Drop,
            "nat" => {
                self.act = match number(NFTA_NAT_TYPE) {
                    Some(NFT_NAT_SNAT) => Act::TranslateSource,
                    _ => Act::TranslateDestination,
                };
            }
            "masq" => self.act = Act::TranslateSource,
            "redir" => self.act = Act::TranslateDestination,
            "queue" | "tproxy" | "synproxy" | "fwd" => self.act = Act::Unknown,
            "objref" => {
                // Out of a map it may be anything.
                let kind = number(NFTA_OBJREF_IMM_TYPE);
                if kind.is_none_or(|kind| kind == NFT_OBJECT_CT_HELPER) {
                    self.act = Act::Help;
                }
            }
            "match" => {
                let (name, info) = extension(data);
                if name == "comment" {
                    self.comment = Some(text(info));
                }
                self.conditions.extend(xtables::conditions(&name, info));
            }
            "target" => {
                let (name, info) = extension(data);
                self.act = xtables::act(&name, info);
            }
            _ => {}
        }
    }

    fn ask(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// `None`: into some register, of which nothing is known from now on.
    fn load(&mut self, register: Option<u32>, loaded: Loaded) {
        match register {
            Some(register) => {
                self.registers.retain(|(other, _)| *other != register);
                self.registers.push((register, loaded));
            }
            None => self.registers.clear(),
        }
    }

    fn held(&self, register: Option<u32>) -> &Loaded {
        let held = self.registers.iter().find(|(other, _)| Some(*other) == register);
        held.map_or(&Loaded::Other, |(_, loaded)| loaded)
    }

    fn mask(&mut self, data: &[u8]) {
        let from = attribute(data, NFTA_SREG).and_then(be32);
        let to = attribute(data, NFTA_BITWISE_DREG).and_then(be32);
        let mask = value(data, NFTA_BITWISE_MASK);
        let masked = match (self.held(from), mask) {
            (Loaded::State(None), Some(mask)) => {
                mask.first_chunk().map(|mask| Loaded::State(Some(u32::from_ne_bytes(*mask))))
            }
            (Loaded::Source(None), Some(mask)) => Some(Loaded::Source(Some(mask.to_vec()))),
            (Loaded::Destination(None), Some(mask)) => {
                Some(Loaded::Destination(Some(mask.to_vec())))
            }
            _ => None,
        };
        // The state stays what it is about, also where it cannot be told what is asked of it.
        let unknown = match self.held(from) {
            Loaded::State(_) => Loaded::State(Some(0)),
            Loaded::Mark => Loaded::Mark,
            _ => Loaded::Other,
        };
        self.load(to, masked.unwrap_or(unknown));
    }

    fn compared(&self, data: &[u8]) -> Condition {
        let held = self.held(attribute(data, NFTA_SREG).and_then(be32));
        let how = attribute(data, NFTA_CMP_OP).and_then(be32);
        let with = value(data, NFTA_CMP_DATA).unwrap_or_default();
        if let Loaded::State(mask) = held {
            return Condition::Tracking(state(*mask, how, with));
        }
        let is_equal = how == Some(EQUAL);
        let condition = match held {
            Loaded::Family => match with.first() {
                Some(2) => Some(Condition::Family(true)),
                Some(10) => Some(Condition::Family(false)),
                _ => None,
            },
            Loaded::Protocol => with.first().map(|protocol| Condition::Protocol(*protocol)),
            Loaded::SourcePort => port(with).map(|port| Condition::SourcePort(port, port)),
            Loaded::DestinationPort => port(with).map(|p| Condition::DestinationPort(p, p)),
            Loaded::Source(mask) => prefix(with, mask.as_deref(), Condition::Source),
            Loaded::Destination(mask) => prefix(with, mask.as_deref(), Condition::Destination),
            _ => None,
        };
        condition.filter(|_| is_equal).unwrap_or(Condition::Other)
    }

    fn within(&self, data: &[u8]) -> Condition {
        let held = self.held(attribute(data, NFTA_SREG).and_then(be32));
        let is_inside = attribute(data, NFTA_RANGE_OP).and_then(be32) == Some(EQUAL);
        let end = |kind| value(data, kind).and_then(port);
        match (held, end(NFTA_RANGE_FROM), end(NFTA_RANGE_TO)) {
            (Loaded::State(_), ..) => Condition::Tracking(None),
            (Loaded::SourcePort, Some(from), Some(to)) if is_inside => {
                Condition::SourcePort(from, to)
            }
            (Loaded::DestinationPort, Some(from), Some(to)) if is_inside => {
                Condition::DestinationPort(from, to)
            }
            _ => Condition::Other,
        }
    }

    fn look_up(&mut self, data: &[u8]) {
        const VERDICT: u32 = 0;
        let from = attribute(data, NFTA_LOOKUP_SREG).and_then(be32);
        let to = attribute(data, NFTA_LOOKUP_DREG).and_then(be32);
        let condition = match self.held(from) {
            Loaded::State(_) => Condition::Tracking(None),
            _ => Condition::Other,
        };
        self.ask(condition);
        match to {
            Some(VERDICT) => self.act = Act::Unknown,
            Some(_) => self.load(to, Loaded::Other),
            None => {}
        }
    }

    fn verdict(&mut self, data: &[u8]) {
        let said = attribute(data, NFTA_IMMEDIATE_DATA)
            .and_then(|data| attribute(data, NFTA_DATA_VERDICT));
        // Else it is a value for a register.
        let Some(said) = said else { return };
        self.act = verdict(said);
    }
}

/// What becomes of a packet by this verdict: of a rule, or in a map.
pub(super) fn verdict(said: &[u8]) -> Act {
    let chain = || attribute(said, NFTA_VERDICT_CHAIN).map(text).unwrap_or_default();
    let code = attribute(said, NFTA_VERDICT_CODE).and_then(be32).map(u32::cast_signed);
    match code {
        Some(0) => Act::Drop,
        Some(1) => Act::Accept,
        Some(-1) => Act::Next,
        Some(-3) => Act::Jump(chain()),
        Some(-4) => Act::Goto(chain()),
        Some(-5) => Act::Return,
        _ => Act::Unknown,
    }
}

/// Which part of a packet is loaded.
fn part(data: &[u8]) -> Loaded {
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    let number = |kind| attribute(data, kind).and_then(be32).unwrap_or(u32::MAX);
    let place = (number(NFTA_PAYLOAD_BASE), number(NFTA_PAYLOAD_OFFSET), number(NFTA_PAYLOAD_LEN));
    match place {
        (TRANSPORT, 0, 2) => Loaded::SourcePort,
        (TRANSPORT, 2, 2) => Loaded::DestinationPort,
        (NETWORK, 9, 1) => Loaded::Protocol,
        (NETWORK, 12, 4) | (NETWORK, 8, 16) => Loaded::Source(None),
        (NETWORK, 16, 4) | (NETWORK, 24, 16) => Loaded::Destination(None),
        _ => Loaded::Other,
    }
}

/// Whether the state of a packet that is not tracked is among those that are asked for.
fn state(mask: Option<u32>, how: Option<u32>, with: &[u8]) -> Option<bool> {
    let with = u32::from_ne_bytes(*with.first_chunk()?);
    match (mask, how?) {
        (None, EQUAL) => Some(with == UNTRACKED),
        (None, UNEQUAL) => Some(with != UNTRACKED),
        (Some(1..), how) if with == 0 => {
            let is_among = mask? & UNTRACKED != 0;
            match how {
                EQUAL => Some(!is_among),
                UNEQUAL => Some(is_among),
                _ => None,
            }
        }
        _ => None,
    }
}

fn value(data: &[u8], kind: u16) -> Option<&[u8]> {
    attribute(attribute(data, kind)?, NFTA_DATA_VALUE)
}

fn port(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Shorter than an address where whole bytes of it are compared.
fn prefix(
    value: &[u8],
    mask: Option<&[u8]>,
    condition: fn(IpAddr, u8) -> Condition,
) -> Option<Condition> {
    let address = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    let len = match mask {
        None => u8::try_from(8 * value.len()).ok()?,
        Some(mask) => {
            let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            let full = mask.iter().take_while(|byte| **byte == 0xff).count();
            let rest = mask.get(full).map_or(0, |byte| byte.leading_ones());
            let leading = 8 * u32::try_from(full).ok()? + rest;
            u8::try_from(ones).ok().filter(|_| ones == leading)?
        }
    };
    Some(condition(address, len))
}

fn extension(data: &[u8]) -> (String, &[u8]) {
    let name = attribute(data, NFTA_XT_NAME).map(text).unwrap_or_default();
    (name, attribute(data, NFTA_XT_INFO).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn word(kind: u16, value: u32) -> Vec<u8> {
        attr(kind, &value.to_be_bytes())
    }

    fn data(kind: u16, value: &[u8]) -> Vec<u8> {
        attr(kind, &attr(NFTA_DATA_VALUE, value))
    }

    /// Expressions as `nft --debug=netlink` shows them: `[ payload load 2b @ transport header + 2 => reg 1 ]`.
    fn read(expressions: &[(&str, Vec<Vec<u8>>)]) -> Expressions {
        let mut read = Expressions::default();
        for (name, parts) in expressions {
            read.take(name, &parts.concat());
        }
        read
    }

    fn load(base: u32, offset: u32, len: u32) -> (&'static str, Vec<Vec<u8>>) {
        ("payload", vec![word(1, 1), word(2, base), word(3, offset), word(4, len)])
    }

    fn compare(how: u32, with: &[u8]) -> (&'static str, Vec<Vec<u8>>) {
        ("cmp", vec![word(1, 1), word(2, how), data(3, with)])
    }

    #[test]
    fn ports_and_addresses_are_read() {
        let udp = [("meta", vec![word(1, 1), word(2, 16)]), compare(0, &[17])];
        let port = [load(2, 2, 2), compare(0, &[0, 53])];
        let host = [load(1, 16, 4), compare(0, &[10, 96, 0, 10])];
        let asked = read(&[&udp[..], &port, &host].concat()).conditions;
        let address = IpAddr::from([10, 96, 0, 10]);
        let expected = [
            Condition::Protocol(17),
            Condition::DestinationPort(53, 53),
            Condition::Destination(address, 32),
        ];
        assert_eq!(asked, expected);
        assert_eq!(read(&[load(2, 2, 2), compare(1, &[0, 53])]).conditions, [Condition::Other]);
        assert_eq!(read(&[load(3, 2, 2), compare(0, &[0, 53])]).conditions, [Condition::Other]);
    }

    #[test]
    fn a_mark_that_is_restored_is_the_connections() {
        let ct = |key| ("ct", vec![word(1, 1), word(2, key)]);
        let and = ("bitwise", vec![word(1, 1), word(2, 1), data(4, &[255, 0, 0, 0])]);
        let set = |key| ("meta", vec![word(2, key), word(3, 1)]);
        assert_eq!(read(&[ct(3), and.clone(), set(3)]).act, Act::Restore);
        assert_eq!(read(&[ct(3), set(3)]).act, Act::Restore);
        // Something else of the connection, or of the packet.
        assert_eq!(read(&[ct(1), set(3)]).act, Act::Next);
        assert_eq!(read(&[ct(3), set(9)]).act, Act::Next);
        assert_eq!(read(&[set(3)]).act, Act::Next);
    }

    #[test]
    fn a_prefix_has_a_length() {
        let mask = |mask: &[u8]| ("bitwise", vec![word(1, 1), word(2, 1), data(4, mask)]);
        let of = |bits: &[u8]| read(&[load(1, 12, 4), mask(bits), compare(0, &[10, 0, 0, 0])]);
        let address = IpAddr::from([10, 0, 0, 0]);
        assert_eq!(of(&[255, 240, 0, 0]).conditions, [Condition::Source(address, 12)]);
        assert_eq!(of(&[255, 0, 255, 0]).conditions, [Condition::Other]);
    }

    #[test]
    fn an_untracked_packet_is_in_no_state_but_one() {
        let state = ("ct", vec![word(1, 1), word(2, 0)]);
        let mask =
            |mask: u32| ("bitwise", vec![word(1, 1), word(2, 1), data(4, &mask.to_ne_bytes())]);
        let asks = |bits, how| {
            let all = [state.clone(), mask(bits), compare(how, &0u32.to_ne_bytes())];
            read(&all).conditions
        };
        assert_eq!(asks(6, UNEQUAL), [Condition::Tracking(Some(false))]);
        assert_eq!(asks(6, EQUAL), [Condition::Tracking(Some(true))]);
        assert_eq!(asks(65, UNEQUAL), [Condition::Tracking(Some(true))]);
        let map = ("lookup", vec![word(2, 1), word(3, 0)]);
        let read = read(&[state.clone(), map]);
        assert_eq!(
            (&read.conditions[..], &read.act),
            (&[Condition::Tracking(None)][..], &Act::Unknown)
        );
    }

    #[test]
    fn verdicts_are_told_apart() {
        let verdict = |code: i32| {
            let chain = attr(NFTA_VERDICT_CHAIN, b"own\0");
            let verdict = attr(2, &[word(1, code.cast_unsigned()), chain].concat());
            read(&[("immediate", vec![attr(2, &verdict)])]).act
        };
        assert_eq!((verdict(0), verdict(1), verdict(-5)), (Act::Drop, Act::Accept, Act::Return));
        assert_eq!(verdict(-3), Act::Jump("own".to_owned()));
        assert_eq!(read(&[("masq", vec![])]).act, Act::TranslateSource);
        assert_eq!(read(&[("nat", vec![word(1, 1)])]).act, Act::TranslateDestination);
        assert_eq!(read(&[("reject", vec![])]).act, Act::Drop);
    }
}
