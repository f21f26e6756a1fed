//! Control planes: what a router or switch speaks itself. When these are dropped, that is the outage.

use crate::{
    NetnsId, Plain,
    protocol::{EIGRP, GRE, IGMP, OSPF, PIM, TCP, UDP, VRRP},
};

/// A control plane.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    Bgp = 0,
    Bfd = 1,
    Ospf = 2,
    Eigrp = 3,
    Pim = 4,
    Igmp = 5,
    Vrrp = 6,
    Hsrp = 7,
    Ldp = 8,
    Rip = 9,
    Mlag = 10,
    Vxlan = 11,
    Gre = 12,
    Ssh = 13,
    Netconf = 14,
    Tacacs = 15,
    Radius = 16,
    Dhcp = 17,
    Dns = 18,
    Ntp = 19,
    Snmp = 20,
    Ike = 21,
}

impl Plane {
    pub const EACH: [Self; 22] = [
        Self::Bgp,
        Self::Bfd,
        Self::Ospf,
        Self::Eigrp,
        Self::Pim,
        Self::Igmp,
        Self::Vrrp,
        Self::Hsrp,
        Self::Ldp,
        Self::Rip,
        Self::Mlag,
        Self::Vxlan,
        Self::Gre,
        Self::Ssh,
        Self::Netconf,
        Self::Tacacs,
        Self::Radius,
        Self::Dhcp,
        Self::Dns,
        Self::Ntp,
        Self::Snmp,
        Self::Ike,
    ];

    /// As people call it. It never changes: recordings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bgp => "BGP",
            Self::Bfd => "BFD",
            Self::Ospf => "OSPF",
            Self::Eigrp => "EIGRP",
            Self::Pim => "PIM",
            Self::Igmp => "IGMP",
            Self::Vrrp => "VRRP",
            Self::Hsrp => "HSRP",
            Self::Ldp => "LDP",
            Self::Rip => "RIP",
            Self::Mlag => "MLAG",
            Self::Vxlan => "VXLAN",
            Self::Gre => "GRE",
            Self::Ssh => "SSH",
            Self::Netconf => "NETCONF",
            Self::Tacacs => "TACACS+",
            Self::Radius => "RADIUS",
            Self::Dhcp => "DHCP",
            Self::Dns => "DNS",
            Self::Ntp => "NTP",
            Self::Snmp => "SNMP",
            Self::Ike => "IKE",
        }
    }

    /// Which of them a packet to this port belongs to. The port is the number that people say.
    #[inline(always)]
    pub fn of(protocol: u8, port: u16) -> Option<Self> {
        Some(match protocol {
            TCP => match port {
                22 => Self::Ssh,
                49 => Self::Tacacs,
                53 => Self::Dns,
                179 => Self::Bgp,
                646 => Self::Ldp,
                830 => Self::Netconf,
                4432 | 5342 => Self::Mlag,
                _ => return None,
            },
            UDP => match port {
                53 => Self::Dns,
                67 | 68 | 546 | 547 => Self::Dhcp,
                123 => Self::Ntp,
                161 | 162 => Self::Snmp,
                500 | 4500 => Self::Ike,
                520 => Self::Rip,
                646 => Self::Ldp,
                1812 | 1813 => Self::Radius,
                1985 => Self::Hsrp,
                3784 | 3785 | 4784 | 7784 => Self::Bfd,
                4789 | 8472 => Self::Vxlan,
                _ => return None,
            },
            IGMP => Self::Igmp,
            GRE => Self::Gre,
            EIGRP => Self::Eigrp,
            OSPF => Self::Ospf,
            PIM => Self::Pim,
            VRRP => Self::Vrrp,
            _ => return None,
        })
    }
}

/// Which packets are counted: those of one control plane in one namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlaneKey {
    pub netns: NetnsId,
    /// A [`Plane`].
    pub plane: u32,
    unused: u32,
}

impl PlaneKey {
    #[inline(always)]
    pub const fn new(netns: NetnsId, plane: Plane) -> Self {
        Self { netns, plane: plane as u32, unused: 0 }
    }
}

/// So many of them are counted at once.
pub const MOST_PLANES: u32 = 4096;

// SAFETY: repr(C), integers only, the padding is named.
unsafe impl Plain for PlaneKey {}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn each_control_plane_has_a_number_and_a_name_of_its_own() {
        for (number, plane) in (0..).zip(Plane::EACH) {
            assert_eq!(plane as u32, number);
            let alike = Plane::EACH.into_iter().filter(|other| other.name() == plane.name());
            assert_eq!(alike.count(), 1, "{plane:?}");
        }
    }

    #[test]
    fn each_control_plane_has_a_packet() {
        let seen: std::collections::HashSet<Plane> = (0..=255)
            .flat_map(|protocol| (0..=9000).filter_map(move |port| Plane::of(protocol, port)))
            .collect();
        assert_eq!(seen.len(), Plane::EACH.len());
        assert_eq!(Plane::of(TCP, 179), Some(Plane::Bgp));
        assert_eq!(Plane::of(UDP, 179), None);
    }
}
