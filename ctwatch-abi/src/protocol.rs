//! Numbers of protocols, as packets carry them.
//! <https://www.iana.org/assignments/protocol-numbers>

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const EIGRP: u8 = 88;
pub const OSPF: u8 = 89;
pub const PIM: u8 = 103;
pub const VRRP: u8 = 112;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;

/// Whether its packets begin with two ports.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDPLITE)
}
