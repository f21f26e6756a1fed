//! Which packets belong to which flow: a pure function of the flow's number, so that a test knows
//! what was sent without having recorded it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    TcpSyn,
    /// Of a connection that was never begun: invalid, where conntrack is told not to pick
    /// connections up half-way.
    TcpAck,
    /// Echo requests; the identifier takes the place of the source port.
    IcmpEcho,
    /// Replies that nobody asked for: invalid to conntrack.
    IcmpEchoReply,
}

impl Protocol {
    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Self::TcpSyn | Self::TcpAck)
    }

    pub(super) fn is_icmp(self) -> bool {
        matches!(self, Self::IcmpEcho | Self::IcmpEchoReply)
    }
}

/// Whom they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// Through the router.
    Server,
    /// To the router itself.
    Router,
}

/// The flows of one flood.
#[derive(Clone, Copy, Debug)]
pub struct Flows {
    pub family: Family,
    pub protocol: Protocol,
    /// So many source addresses take turns.
    pub sources: u32,
    /// So many destination ports take turns; of no meaning for ICMP.
    pub services: u16,
    pub towards: Towards,
    /// IPv6 only: with two extension headers before the transport's.
    pub extended: bool,
}

/// One flow's addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
}

const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 60_000;
const FIRST_SERVICE: u16 = 1;
/// Destinations in 10.100.0.0/16.
const DESTINATIONS: u64 = 60_000;

impl Flows {
    /// From one source to one service, through the router.
    pub const fn of(family: Family, protocol: Protocol) -> Self {
        Self {
            family,
            protocol,
            sources: 1,
            services: 1,
            towards: Towards::Server,
            extended: false,
        }
    }

    /// Flow number `index`; distinct for all numbers below `60,000 x 60,000 x sources x services`,
    /// towards the router `60,000 x sources x services`.
    pub fn flow(&self, index: u64) -> Flow {
        let sources = u64::from(self.sources.max(1));
        let services = u64::from(self.services.max(1));
        let (source, rest) = (index % sources, index / sources);
        let (service, rest) = (rest % services, rest / services);
        let (port, rest) = (rest % PORTS, rest / PORTS);
        let destination = 2 + rest % DESTINATIONS;
        Flow {
            src: self.address(source, [10, 128], 3),
            dst: match self.towards {
                Towards::Server => self.address(destination, [10, 100], 4),
                Towards::Router => self.router(),
            },
            sport: FIRST_PORT + low16(port),
            dport: FIRST_SERVICE.wrapping_add(low16(service)),
        }
    }

    fn router(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(10, 99, 1, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// Sources in 10.128.0.0/9 (23 bits) and fd99:3::/32, destinations in 10.100.0.0/16 and
    /// fd99:4::/32.
    fn address(&self, number: u64, v4: [u8; 2], v6: u16) -> IpAddr {
        let number = u32::try_from(number % (1 << 23)).unwrap_or(0);
        match self.family {
            Family::V4 => {
                let base = u32::from_be_bytes([v4[0], v4[1], 0, 0]);
                IpAddr::V4(Ipv4Addr::from(base + number))
            }
            Family::V6 => {
                let [high, low] = [number >> 16, number & 0xffff].map(|part| low16(part.into()));
                IpAddr::V6(Ipv6Addr::new(0xfd99, v6, 0, 0, 0, 0, high, low))
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn low16(number: u64) -> u16 {
    number as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn flows(family: Family, sources: u32, services: u16) -> Flows {
        Flows { sources, services, ..Flows::of(family, Protocol::Udp) }
    }

    #[test]
    fn every_number_is_a_flow_of_its_own() {
        for (sources, services) in [(1, 1), (7, 3), (100_000, 1), (1, 1000)] {
            for family in [Family::V4, Family::V6] {
                let flows = flows(family, sources, services);
                let distinct: HashSet<_> = (0..200_000).map(|index| flows.flow(index)).collect();
                assert_eq!(distinct.len(), 200_000, "{sources} {services}");
            }
        }
    }

    #[test]
    fn as_many_sources_and_services_as_asked_for() {
        let flows = flows(Family::V4, 50, 4);
        let all: Vec<_> = (0..10_000).map(|index| flows.flow(index)).collect();
        assert_eq!(all.iter().map(|flow| flow.src).collect::<HashSet<_>>().len(), 50);
        assert_eq!(all.iter().map(|flow| flow.dport).collect::<HashSet<_>>().len(), 4);
    }
}
