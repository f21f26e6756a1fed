//! One direction of an entry, as netlink and `/proc` tell of it.

use ctwatch_abi::{NetnsId, protocol::has_ports, top::Key};

/// Ports are in host order, and only where the protocol has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    pub family: u8,
    pub protocol: u8,
    /// In network order; an address of IPv4 is in the first four bytes.
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub sport: u16,
    pub dport: u16,
}

impl Tuple {
    /// From the other side.
    pub fn turned_round(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self }
    }

    pub fn key(&self, netns: NetnsId) -> Key {
        let Self { family, protocol, src, dst, dport, .. } = *self;
        let dport = if has_ports(protocol) { dport.to_be() } else { 0 };
        Key { netns, src, dst, dport, protocol, family, ifindex: 0 }
    }
}
