//! Whole Ethernet frames. Conntrack verifies checksums, so they are right.

use std::net::IpAddr;

use super::flows::{Flow, Protocol};
use crate::topology::{CLIENT_MAC, ROUTER_MAC};

const PAYLOAD: usize = 18;
const ETHERNET: usize = 14;

/// Writes the frame of `flow` into `out`, which keeps its capacity from frame to frame.
/// `extended`: with [`extensions`], if it is of IPv6.
pub(super) fn write(out: &mut Vec<u8>, flow: &Flow, protocol: Protocol, extended: bool) {
    out.clear();
    out.extend_from_slice(&ROUTER_MAC);
    out.extend_from_slice(&CLIENT_MAC);
    let transport_len = transport_len(protocol);
    let pseudo = match (flow.src, flow.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend_from_slice(&[0x08, 0x00]);
            let next = next_header(protocol, false);
            let total = word(20 + transport_len);
            out.extend_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, next, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            let checksum = folded(sum(0, &out[ETHERNET..]));
            out[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum);
            // ICMP over IPv4 has no pseudo header.
            let addresses = sum(sum(0, &src.octets()), &dst.octets());
            let start =
                addresses + u32::from(next) + u32::from(u16::from_be_bytes(word(transport_len)));
            if protocol.is_icmp() { 0 } else { start }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out.extend_from_slice(&[0x86, 0xdd]);
            let next = next_header(protocol, true);
            let extensions = if extended { extensions(next).to_vec() } else { Vec::new() };
            let first = if extended { HOP_BY_HOP } else { next };
            let payload = word(extensions.len() + transport_len);
            out.extend_from_slice(&[0x60, 0, 0, 0, payload[0], payload[1], first, 64]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            out.extend_from_slice(&extensions);
            let len = word(transport_len);
            let addresses = sum(sum(0, &src.octets()), &dst.octets());
            addresses + u32::from(next) + u32::from(u16::from_be_bytes(len))
        }
        // A flow's addresses are of one family.
        _ => return,
    };
    let start = out.len();
    let checksum_at = start + transport(out, flow, protocol);
    let checksum = folded(sum(pseudo, &out[start..]));
    out[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
}

const HOP_BY_HOP: u8 = 0;

/// Hop-by-hop options and destination options, of padding both, before the header of this number.
/// <https://www.rfc-editor.org/rfc/rfc8200#section-4.2>
fn extensions(next: u8) -> [u8; 24] {
    const DESTINATION: u8 = 60;
    const PAD_4: [u8; 6] = [1, 4, 0, 0, 0, 0];
    let [a, b, c, d, e, f] = PAD_4;
    let short = [DESTINATION, 0, a, b, c, d, e, f];
    let long = [next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut both = [0; 24];
    both[..8].copy_from_slice(&short);
    both[8..].copy_from_slice(&long);
    both
}

/// Appends header and payload, the checksum still zero; returns where the checksum goes.
fn transport(out: &mut Vec<u8>, flow: &Flow, protocol: Protocol) -> usize {
    let (sport, dport) = (flow.sport.to_be_bytes(), flow.dport.to_be_bytes());
    let checksum_at = match protocol {
        Protocol::Udp => {
            let len = word(transport_len(protocol));
            out.extend_from_slice(&[sport[0], sport[1], dport[0], dport[1], len[0], len[1], 0, 0]);
            6
        }
        Protocol::TcpSyn | Protocol::TcpAck => {
            let (flags, acknowledged) = if protocol == Protocol::TcpSyn { (2, 0) } else { (16, 1) };
            out.extend_from_slice(&[sport[0], sport[1], dport[0], dport[1], 0, 0, 0, 1]);
            out.extend_from_slice(&[0, 0, 0, acknowledged, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        Protocol::IcmpEcho | Protocol::IcmpEchoReply => {
            let kind = match (protocol, flow.src.is_ipv4()) {
                (Protocol::IcmpEcho, true) => 8,
                (Protocol::IcmpEcho, false) => 128,
                (_, true) => 0,
                (_, false) => 129,
            };
            out.extend_from_slice(&[kind, 0, 0, 0, sport[0], sport[1], 0, 1]);
            2
        }
    };
    out.extend_from_slice(&[0x78; PAYLOAD]);
    checksum_at
}

fn transport_len(protocol: Protocol) -> usize {
    PAYLOAD + if protocol.is_tcp() { 20 } else { 8 }
}

fn next_header(protocol: Protocol, v6: bool) -> u8 {
    match protocol {
        Protocol::Udp => 17,
        Protocol::TcpSyn | Protocol::TcpAck => 6,
        Protocol::IcmpEcho | Protocol::IcmpEchoReply if v6 => 58,
        Protocol::IcmpEcho | Protocol::IcmpEchoReply => 1,
    }
}

fn word(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(0).to_be_bytes()
}

/// The internet checksum (RFC 1071), not yet folded.
fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([pair[0], low]))
    })
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    // In UDP a zero says "no checksum".
    if high == 0 && low == 0 { [0xff, 0xff] } else { [high, low] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Family, Flows};

    /// A receiver sums over everything, checksum included, and finds all ones.
    fn verifies(frame: &[u8], protocol: Protocol, v6: bool) -> bool {
        let (transport, addresses) = if v6 { (54, &frame[22..54]) } else { (34, &frame[26..34]) };
        let body = &frame[transport..];
        let next = u32::from(next_header(protocol, v6));
        let pseudo = if protocol.is_icmp() && !v6 {
            0
        } else {
            sum(0, addresses) + next + u32::try_from(body.len()).unwrap()
        };
        folded(sum(pseudo, body)) == [0xff, 0xff]
    }

    #[test]
    fn checksums_verify_for_every_protocol_and_family() {
        let mut frame = Vec::new();
        for family in [Family::V4, Family::V6] {
            for protocol in [
                Protocol::Udp,
                Protocol::TcpSyn,
                Protocol::TcpAck,
                Protocol::IcmpEcho,
                Protocol::IcmpEchoReply,
            ] {
                let flows = Flows { sources: 1000, services: 7, ..Flows::of(family, protocol) };
                for index in 0..5000 {
                    write(&mut frame, &flows.flow(index), protocol, false);
                    assert!(verifies(&frame, protocol, family == Family::V6));
                    if family == Family::V4 {
                        assert_eq!(folded(sum(0, &frame[14..34])), [0xff, 0xff]);
                    }
                }
            }
        }
    }
}
