//! An entry of the table as a line of `conntrack -L -o extended`, from ctnetlink.
//!
//! Its order and its words are those of libnetfilter_conntrack.
//! <https://git.netfilter.org/libnetfilter_conntrack/tree/src/conntrack/snprintf_default.c>

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};
use ctwatch_abi::top::{AF_INET, AF_INET6};

use super::{
    attributes::{attributes, be32, be64},
    ctnetlink::{Ctnetlink, Dumped, NFGENMSG},
    dump::{CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, GET, NEW, entry},
    tuple::Tuple,
};
use crate::record::entry::{Left, states};

const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_USE: u16 = 11;
/// In what a tuple says of the protocol.
const CTA_PROTO_ICMP: [u16; 3] = [4, 5, 6];
const CTA_PROTO_ICMPV6: [u16; 3] = [7, 8, 9];
const PROTOCOLS: [(u8, &str); 10] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (GRE, "gre"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
    (4, "ipencap"),
];
const GRE: u8 = 47;

/// What is asked of one direction besides its tuple.
#[derive(Default)]
struct Direction {
    tuple: Tuple,
    /// Id, type and code of ICMP.
    icmp: [Option<u16>; 3],
    /// Where the kernel counts them.
    packets: Option<(u64, u64)>,
}

/// Hands over a line for each entry of the namespace that the calling thread is in, without its end.
/// What was handed over is not taken back. An error of `each` ends it.
pub fn lines(mut each: impl FnMut(&str) -> Result<()>) -> Result<Dumped> {
    let mut text = String::new();
    Ctnetlink::open()?.dump(GET, NEW, |body| {
        text.clear();
        line(&mut text, body)?;
        each(&text)
    })
}

/// One message of the dump.
pub fn line(out: &mut String, body: &[u8]) -> Result<()> {
    let held = entry(0, body)?;
    let attributes_of = body.get(NFGENMSG..).context("an entry without a netfilter header")?;
    let (mut original, mut reply) = (Direction::default(), Direction::default());
    let (mut mark, mut used) = (None, None);
    attributes(attributes_of, |kind, value| {
        match kind {
            CTA_TUPLE_ORIG => direction(value, &mut original)?,
            CTA_TUPLE_REPLY => direction(value, &mut reply)?,
            CTA_COUNTERS_ORIG => original.packets = counters(value)?,
            CTA_COUNTERS_REPLY => reply.packets = counters(value)?,
            CTA_MARK => mark = be32(value),
            CTA_USE => used = be32(value),
            _ => {}
        }
        Ok(())
    })?;
    let Tuple { family, protocol, .. } = original.tuple;
    let family_name = if family == AF_INET6 { "ipv6" } else { "ipv4" };
    let name = PROTOCOLS.iter().find(|(number, _)| *number == protocol);
    let name = name.map_or("unknown", |(_, name)| name);
    write!(out, "{family_name:<8} {family} {name:<8} {protocol} ")?;
    if let Left::Seconds(seconds) = held.left {
        write!(out, "{seconds} ")?;
    }
    let is_offloaded = held.status.is_offloaded();
    // Of a flow that is forwarded elsewhere the kernel does not know it.
    let state = states(protocol).filter(|_| !is_offloaded);
    if let Some(state) = state.and_then(|names| names.get(usize::from(held.state))) {
        write!(out, "{state} ")?;
    }
    tuple(out, &original)?;
    if !held.status.is_replied() {
        out.push_str("[UNREPLIED] ");
    }
    tuple(out, &reply)?;
    if held.status.0 & crate::record::entry::Status::OFFLOADED_TO_HARDWARE != 0 {
        out.push_str("[HW_OFFLOAD] ");
    } else if is_offloaded {
        out.push_str("[OFFLOAD] ");
    } else if held.status.is_assured() {
        out.push_str("[ASSURED] ");
    }
    if let Some(mark) = mark {
        write!(out, "mark={mark} ")?;
    }
    if held.zone != 0 {
        write!(out, "zone={} ", held.zone)?;
    }
    if let Some(used) = used {
        write!(out, "use={used} ")?;
    }
    out.truncate(out.trim_end().len());
    Ok(())
}

fn tuple(out: &mut String, Direction { tuple, icmp, packets }: &Direction) -> Result<()> {
    let address = |bytes: [u8; 16]| match tuple.family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).to_string()
        }
        _ => Ipv6Addr::from(bytes).to_string(),
    };
    write!(out, "src={} dst={} ", address(tuple.src), address(tuple.dst))?;
    match (icmp, tuple.protocol) {
        ([Some(id), Some(kind), Some(code)], _) => {
            write!(out, "type={kind} code={code} id={id} ")?;
        }
        (_, GRE) => write!(out, "srckey={:#x} dstkey={:#x} ", tuple.sport, tuple.dport)?,
        (_, protocol) if ctwatch_abi::protocol::has_ports(protocol) => {
            write!(out, "sport={} dport={} ", tuple.sport, tuple.dport)?;
        }
        _ => {}
    }
    if let Some((packets, bytes)) = packets {
        write!(out, "packets={packets} bytes={bytes} ")?;
    }
    Ok(())
}

fn direction(value: &[u8], direction: &mut Direction) -> Result<()> {
    super::dump::tuple(value, &mut direction.tuple, &mut 0)?;
    attributes(value, |kind, value| {
        if kind != CTA_TUPLE_PROTO {
            return Ok(());
        }
        attributes(value, |kind, value| {
            for names in [CTA_PROTO_ICMP, CTA_PROTO_ICMPV6] {
                if let Some(at) = names.iter().position(|name| *name == kind) {
                    direction.icmp[at] = match *value {
                        [byte] => Some(u16::from(byte)),
                        [high, low, ..] => Some(u16::from_be_bytes([high, low])),
                        [] => None,
                    };
                }
            }
            Ok(())
        })
    })
}

fn counters(value: &[u8]) -> Result<Option<(u64, u64)>> {
    let (mut packets, mut bytes) = (None, None);
    attributes(value, |kind, value| {
        match kind {
            1 => packets = be64(value),
            2 => bytes = be64(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok(packets.zip(bytes))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dump::tests::body, listing},
        *,
    };

    #[test]
    fn a_line_is_as_conntrack_prints_it() {
        let mut out = String::new();
        line(&mut out, &body()).unwrap();
        assert_eq!(
            out,
            "ipv4     2 tcp      6 432000 ESTABLISHED src=10.1.1.1 dst=10.100.1.1 sport=0 dport=179 \
             src=10.2.2.2 dst=192.0.2.9 sport=1234 dport=99 [ASSURED] zone=5"
        );
        let (read, held) =
            (listing::entry(4, out.as_bytes()).unwrap().held, entry(4, &body()).unwrap());
        assert_eq!((read.key, read.translated, read.left), (held.key, held.translated, held.left));
    }

    #[test]
    fn a_line_of_a_cut_message_is_none_or_short() {
        let whole = body();
        for len in 0..whole.len() {
            let mut out = String::new();
            // No panic.
            let _ = line(&mut out, &whole[..len]);
        }
    }
}
