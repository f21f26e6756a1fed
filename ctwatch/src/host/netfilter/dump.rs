//! The table of one network namespace, entry by entry, from ctnetlink: what `conntrack -L` lists.
//! Streamed: memory does not depend on how many there are.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nfnetlink_conntrack.h>

use anyhow::{Context, Result, ensure};
use ctwatch_abi::{
    NetnsId,
    top::{AF_INET, AF_INET6, Key},
};

use super::{
    attributes::attributes,
    ctnetlink::{Ctnetlink, Dumped, NFGENMSG},
    tuple::Tuple,
};
use crate::record::entry::{Held, Left, Status};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`; it is answered with `IPCTNL_MSG_CT_NEW`.
pub(super) const GET: u16 = 1 << 8 | 1;
pub(super) const NEW: u16 = 1 << 8;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_ZONE: u16 = 18;
/// In a tuple.
const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Hands over each entry of the namespace that the calling thread is in; `netns` is its name.
/// What was handed over is not taken back, so one that is torn is not read again.
pub fn dump(netns: NetnsId, mut each: impl FnMut(&Held)) -> Result<Dumped> {
    Ctnetlink::open()?.dump(GET, NEW, |body| {
        each(&entry(netns, body)?);
        Ok(())
    })
}

/// One message of the dump.
pub fn entry(netns: NetnsId, body: &[u8]) -> Result<Held> {
    let attributes_of = body.get(NFGENMSG..).context("an entry without a netfilter header")?;
    let mut original = Tuple::default();
    let mut reply = Tuple::default();
    let mut held = Held {
        key: Key::default(),
        translated: Key::default(),
        status: Status::default(),
        state: 0,
        zone: 0,
        left: Left::Unknown,
    };
    attributes(attributes_of, |kind, value| {
        match kind {
            CTA_TUPLE_ORIG => tuple(value, &mut original, &mut held.zone)?,
            CTA_TUPLE_REPLY => tuple(value, &mut reply, &mut held.zone)?,
            CTA_STATUS => held.status = Status(number(value)?),
            CTA_TIMEOUT => held.left = Left::Seconds(number(value)?),
            CTA_ZONE => held.zone = half(value)?,
            // One attribute for the protocol, whose first is the state.
            CTA_PROTOINFO => attributes(value, |_, of_protocol| {
                attributes(of_protocol, |kind, value| {
                    if kind == 1 {
                        held.state = value.first().copied().context("a state without a value")?;
                    }
                    Ok(())
                })
            })?,
            _ => {}
        }
        Ok(())
    })?;
    ensure!(reply.family == original.family, "an entry without its reply");
    held.key = original.key(netns);
    held.translated = reply.turned_round().key(netns);
    Ok(held)
}

pub(super) fn tuple(value: &[u8], tuple: &mut Tuple, zone: &mut u16) -> Result<()> {
    attributes(value, |kind, value| {
        match kind {
            CTA_TUPLE_IP => addresses(value, tuple)?,
            CTA_TUPLE_PROTO => attributes(value, |kind, value| {
                match kind {
                    CTA_PROTO_NUM => {
                        tuple.protocol = *value.first().context("a protocol without a number")?;
                    }
                    CTA_PROTO_SRC_PORT => tuple.sport = half(value)?,
                    CTA_PROTO_DST_PORT => tuple.dport = half(value)?,
                    _ => {}
                }
                Ok(())
            })?,
            CTA_TUPLE_ZONE => *zone = half(value)?,
            _ => {}
        }
        Ok(())
    })
}

fn addresses(value: &[u8], tuple: &mut Tuple) -> Result<()> {
    attributes(value, |kind, value| {
        let (family, to) = match kind {
            CTA_IP_V4_SRC => (AF_INET, &mut tuple.src[..4]),
            CTA_IP_V4_DST => (AF_INET, &mut tuple.dst[..4]),
            CTA_IP_V6_SRC => (AF_INET6, &mut tuple.src[..]),
            CTA_IP_V6_DST => (AF_INET6, &mut tuple.dst[..]),
            _ => return Ok(()),
        };
        to.copy_from_slice(value.get(..to.len()).context("an address that is cut off")?);
        tuple.family = family;
        Ok(())
    })
}

fn number(value: &[u8]) -> Result<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).context("a number that is cut off")
}

fn half(value: &[u8]) -> Result<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)).context("a number that is cut off")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 1 << 15, &parts.concat())
    }

    pub(in super::super) fn body() -> Vec<u8> {
        let ip =
            [attribute(CTA_IP_V4_SRC, &[10, 1, 1, 1]), attribute(CTA_IP_V4_DST, &[10, 100, 1, 1])];
        let protocol = [attribute(CTA_PROTO_NUM, &[6]), attribute(CTA_PROTO_DST_PORT, &[0, 179])];
        let tuple = [nested(CTA_TUPLE_IP, &ip), nested(CTA_TUPLE_PROTO, &protocol)];
        let ip =
            [attribute(CTA_IP_V4_SRC, &[10, 2, 2, 2]), attribute(CTA_IP_V4_DST, &[192, 0, 2, 9])];
        let protocol = [
            attribute(CTA_PROTO_NUM, &[6]),
            attribute(CTA_PROTO_SRC_PORT, &[4, 210]),
            attribute(CTA_PROTO_DST_PORT, &[0, 99]),
        ];
        let reply = [nested(CTA_TUPLE_IP, &ip), nested(CTA_TUPLE_PROTO, &protocol)];
        let tcp = nested(1, &[attribute(1, &[3])]);
        [
            vec![2, 0, 0, 0],
            nested(CTA_TUPLE_ORIG, &tuple),
            nested(CTA_TUPLE_REPLY, &reply),
            attribute(CTA_STATUS, &[0, 0, 0, 0x0e]),
            attribute(CTA_TIMEOUT, &[0, 6, 0x97, 0x80]),
            nested(CTA_PROTOINFO, &[tcp]),
            attribute(CTA_ZONE, &[0, 5]),
        ]
        .concat()
    }

    #[test]
    fn an_entry_is_read_as_conntrack_lists_it() {
        let held = entry(4, &body()).unwrap();
        assert_eq!((held.key.netns, held.key.family, held.key.protocol), (4, AF_INET, 6));
        assert_eq!(held.key.src[..4], [10, 1, 1, 1]);
        assert_eq!((held.key.dport.to_ne_bytes(), held.zone, held.state), ([0, 179], 5, 3));
        let (translated, dport) = (held.translated, 1234_u16.to_be());
        assert_eq!((translated.netns, translated.protocol, translated.dport), (4, 6, dport));
        assert_eq!(
            (&translated.src[..4], &translated.dst[..4]),
            (&[192, 0, 2, 9][..], &[10, 2, 2, 2][..])
        );
        assert_eq!(held.left, Left::Seconds(432_000));
        assert!(held.status.is_assured() && held.status.is_replied());
    }

    #[test]
    fn an_entry_that_is_cut_off_anywhere_is_an_error_or_less_of_an_entry() {
        let whole = body();
        for len in 0..whole.len() {
            // No panic, and nothing that is not there.
            if let Ok(held) = entry(4, &whole[..len]) {
                assert!(matches!(held.left, Left::Unknown | Left::Seconds(432_000)));
            }
        }
        assert!(entry(4, &[0; 2]).is_err());
    }
}
