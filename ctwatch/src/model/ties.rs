//! Which ports' entries are bound to more than being counted: translated, or of a helper. Such are
//! never to be left untracked.

use ctwatch_abi::{
    protocol::{GRE, UDP},
    top::Key,
};

use serde::{Deserialize, Serialize};

use crate::record::entry::Held;

/// Protocol and port, in the order of this machine.
pub type Port = (u8, u16);

/// Of each namespace; memory does not grow with the table.
const MOST: usize = 4096;

/// Ports with at least one such entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ports {
    /// Sorted.
    ports: Vec<Port>,
    /// There are more: any may be one.
    is_cut: bool,
}

impl Ports {
    fn add(&mut self, port: Port) {
        if let Err(at) = self.ports.binary_search(&port) {
            match self.ports.len() < MOST {
                true => self.ports.insert(at, port),
                false => self.is_cut = true,
            }
        }
    }

    fn take(&mut self, other: Self) {
        self.is_cut |= other.is_cut;
        other.ports.into_iter().for_each(|port| self.add(port));
    }

    /// Whether this may be one of them.
    pub fn may_hold(&self, port: Port) -> bool {
        self.is_cut || self.ports.binary_search(&port).is_ok()
    }
}

/// What binds entries of one namespace, and tunnels among them, which are spread over many services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ties {
    /// To these ports, and some of it is translated.
    pub translated: Ports,
    /// To these ports, and a helper listens, or had it expected.
    pub helped: Ports,
    /// Entries of each tunnel's port.
    pub tunnels: Vec<(Port, u64)>,
}

impl Ties {
    /// Those of other entries of the same table.
    pub(super) fn take(&mut self, other: Self) {
        self.translated.take(other.translated);
        self.helped.take(other.helped);
        for (port, more) in other.tunnels {
            match self.tunnels.iter_mut().find(|(known, _)| *known == port) {
                Some((_, count)) => *count += more,
                None => self.tunnels.push((port, more)),
            }
        }
    }

    pub(super) fn enter(&mut self, held: &Held) {
        let port = port_of(&held.key);
        if held.status.is_translated() {
            self.translated.add(port);
        }
        if held.status.is_helped() {
            self.helped.add(port);
        }
        if tunnel(port).is_some() {
            match self.tunnels.iter_mut().find(|(other, _)| *other == port) {
                Some((_, count)) => *count += 1,
                None => self.tunnels.push((port, 1)),
            }
        }
    }
}

pub fn port_of(key: &Key) -> Port {
    (key.protocol, u16::from_be(key.dport))
}

/// Tunnels that spread over many source ports, so that one fills the table by itself; and GRE.
/// <https://www.iana.org/assignments/service-names-port-numbers>; 8472 is what Linux had before.
pub fn tunnel(port: Port) -> Option<&'static str> {
    match port {
        (UDP, 4789 | 8472) => Some("VXLAN"),
        (UDP, 6081) => Some("Geneve"),
        (GRE, _) => Some("GRE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::entry::{Left, Status};

    fn held(protocol: u8, port: u16, status: u32) -> Held {
        let key = Key { protocol, dport: port.to_be(), ..Key::default() };
        let (status, left) = (Status(status), Left::Unknown);
        Held { key, translated: key, status, state: 0, zone: 0, left }
    }

    #[test]
    fn what_is_translated_or_helped_is_remembered() {
        let mut ties = Ties::default();
        for (port, status) in [(53, 1 << 5), (80, 1 << 4), (5060, 1 << 13), (9000, 1), (443, 0x18e)]
        {
            ties.enter(&held(17, port, status));
        }
        let translated = |port| ties.translated.may_hold((17, port));
        assert!(translated(53) && translated(80) && !translated(443), "{ties:?}");
        assert!(!ties.translated.may_hold((6, 53)));
        assert!(ties.helped.may_hold((17, 5060)) && ties.helped.may_hold((17, 9000)));
        (0..=MOST).for_each(|port| ties.enter(&held(6, port as u16, 1 << 4)));
        assert!(ties.translated.may_hold((132, 1)), "there was no room for all");
    }

    #[test]
    fn tunnels_are_counted_by_port() {
        let mut ties = Ties::default();
        (0..3).for_each(|_| ties.enter(&held(17, 4789, 0)));
        ties.enter(&held(47, 0, 0));
        ties.enter(&held(6, 4789, 0));
        assert_eq!(ties.tunnels, [((17, 4789), 3), ((47, 0), 1)]);
    }
}
