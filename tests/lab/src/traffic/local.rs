//! Connections made on a host itself: the sender is told when conntrack refuses.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result};

use super::Family;
use crate::netns::Netns;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalOutcome {
    pub sent: u64,
    /// Refused with EPERM, which is what a local sender gets for a packet that a netfilter hook
    /// dropped.
    pub refused: u64,
}

/// Sends `flows` packets, each a flow of its own, from inside `netns`.
pub fn connect_locally(netns: &Netns, family: Family, flows: u16) -> Result<LocalOutcome> {
    netns.within(|| {
        let (any, host): (SocketAddr, _) = match family {
            Family::V4 => ((Ipv4Addr::UNSPECIFIED, 0).into(), Ipv4Addr::new(10, 100, 1, 1).into()),
            Family::V6 => (
                (Ipv6Addr::UNSPECIFIED, 0).into(),
                Ipv6Addr::new(0xfd99, 4, 0, 0, 0, 0, 1, 1).into(),
            ),
        };
        let socket = UdpSocket::bind(any).context("cannot open a socket")?;
        let mut outcome = LocalOutcome::default();
        for port in 1..=flows {
            let to = SocketAddr::new(host, port);
            match socket.send_to(b"x", to) {
                Ok(_) => outcome.sent += 1,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    outcome.refused += 1;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot send to {to}")),
            }
        }
        Ok(outcome)
    })?
}
