//! Connections made on a host itself: the sender is told when conntrack refuses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};

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
        each_port(&socket, host, flows, b"x")
    })?
}

/// One packet to each port of a host.
fn each_port(socket: &UdpSocket, host: IpAddr, ports: u16, payload: &[u8]) -> Result<LocalOutcome> {
    let mut outcome = LocalOutcome::default();
    for port in 1..=ports {
        let to = SocketAddr::new(host, port);
        match socket.send_to(payload, to) {
            Ok(_) => outcome.sent += 1,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => outcome.refused += 1,
            Err(error) => return Err(error).with_context(|| format!("cannot send to {to}")),
        }
    }
    Ok(outcome)
}

/// Sends `packets` packets from inside `netns` to as many ports, each handed over whole, to be cut
/// into `segments` datagrams by whatever sends it in the end.
pub fn send_segmented(netns: &Netns, packets: u16, segments: u16) -> Result<LocalOutcome> {
    const SEGMENT: u16 = 100;
    netns.within(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
        let size = libc::c_int::from(SEGMENT);
        // SAFETY: an open socket, and an integer of the length that is passed along.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const size).cast(),
                libc::socklen_t::try_from(size_of_val(&size))?,
            )
        };
        ensure!(answer == 0, "no UDP_SEGMENT here: {}", io::Error::last_os_error());
        let payload = vec![b'x'; usize::from(SEGMENT) * usize::from(segments)];
        each_port(&socket, Ipv4Addr::new(10, 100, 1, 1).into(), packets, &payload)
    })?
}
