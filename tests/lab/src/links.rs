//! Links, addresses, neighbours and routes of the namespace of the calling thread, by netlink.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::File,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::netlink::{Messages, Socket, attributes, number, short};

const PERMANENT: u16 = 0x80;
/// `IFA_F_NODAD`.
const NO_DETECTION: u8 = 2;
const BY_KERNEL: u8 = 2;
const BY_ADMINISTRATOR: u8 = 3;
const UP: u8 = 1;
const OPERATIONAL: u8 = 6;
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a pair of veth.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

/// What is done to the links of one namespace, all at once.
pub(crate) struct Change(Messages);

impl Change {
    pub(crate) fn new() -> Self {
        Self(Messages::default())
    }

    pub(crate) fn made(&self) -> Result<()> {
        Socket::open(libc::NETLINK_ROUTE)?.tell(&self.0)
    }

    /// A pair whose other end is in `netns`.
    pub(crate) fn pair(&mut self, here: &End, there: &End, netns: &File) -> Result<()> {
        const PEER: u16 = 1;
        let netns = u32::try_from(netns.as_raw_fd())?;
        let name = format!("add the link {}", here.name);
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.0.begin(libc::RTM_NEWLINK, create, &link(0, 0), &name);
        self.0.text(libc::IFLA_IFNAME, here.name).attribute(libc::IFLA_ADDRESS, &here.mac);
        self.0.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(PEER, |peer| {
                    peer.raw(&link(0, 0));
                    peer.text(libc::IFLA_IFNAME, there.name);
                    peer.attribute(libc::IFLA_ADDRESS, &there.mac);
                    peer.attribute(libc::IFLA_NET_NS_FD, &netns.to_ne_bytes());
                });
            });
        });
        Ok(())
    }

    pub(crate) fn up(&mut self, name: &str) -> Result<()> {
        let body = link(index(name)?, UP);
        self.0.begin(libc::RTM_NEWLINK, 0, &body, &format!("set {name} up"));
        Ok(())
    }

    /// `address/length`
    pub(crate) fn address(&mut self, address: &str, link: &str) -> Result<()> {
        let (ip, length) = prefix(address)?;
        let (family, bytes) = of(ip);
        let flags = if ip.is_ipv6() { NO_DETECTION } else { 0 };
        let mut body = vec![family, length, flags, 0];
        body.extend_from_slice(&index(link)?.to_ne_bytes());
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.0.begin(libc::RTM_NEWADDR, create, &body, &format!("add the address {address}"));
        self.0.attribute(libc::IFA_LOCAL, &bytes).attribute(libc::IFA_ADDRESS, &bytes);
        Ok(())
    }

    pub(crate) fn neighbour(&mut self, address: &str, mac: [u8; 6], link: &str) -> Result<()> {
        let (family, bytes) = of(address.parse()?);
        let mut body = vec![family, 0, 0, 0];
        body.extend_from_slice(&index(link)?.to_ne_bytes());
        body.extend_from_slice(&PERMANENT.to_ne_bytes());
        body.extend_from_slice(&[0; 2]);
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.0.begin(libc::RTM_NEWNEIGH, create, &body, &format!("add the neighbour {address}"));
        self.0.attribute(libc::NDA_DST, &bytes).attribute(libc::NDA_LLADDR, &mac);
        Ok(())
    }

    /// By a gateway; without one, into a black hole.
    pub(crate) fn route(&mut self, to: &str, via: Option<&str>) -> Result<()> {
        let (ip, length) = prefix(to)?;
        let (family, bytes) = of(ip);
        let kind = if via.is_some() { libc::RTN_UNICAST } else { libc::RTN_BLACKHOLE };
        let table = libc::RT_TABLE_MAIN;
        let mut body = vec![family, length, 0, 0, table, BY_ADMINISTRATOR, 0, kind];
        body.extend_from_slice(&[0; 4]);
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.0.begin(libc::RTM_NEWROUTE, create, &body, &format!("add the route to {to}"));
        if length > 0 {
            self.0.attribute(libc::RTA_DST, &bytes);
        }
        if let Some(via) = via {
            self.0.attribute(libc::RTA_GATEWAY, &of(via.parse()?).1);
        }
        Ok(())
    }
}

/// `struct ifinfomsg`.
fn link(index: u32, up: u8) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&u32::from(up).to_ne_bytes());
    body.extend_from_slice(&u32::from(up).to_ne_bytes());
    body
}

fn index(name: &str) -> Result<u32> {
    let text = CString::new(name)?;
    // SAFETY: a string that ends with a zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    ensure!(index > 0, "no link {name} here: {}", io::Error::last_os_error());
    Ok(index)
}

fn prefix(text: &str) -> Result<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').with_context(|| format!("no prefix: {text}"))?;
    Ok((address.parse()?, length.parse()?))
}

fn of(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    }
}

/// Waits until these links carry packets: where the other end was set up later, the kernel makes a
/// link ready in its own time, and drops what is sent before.
pub(crate) fn until_ready(links: &[&str]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    loop {
        let mut ready = 0;
        socket.dump(libc::RTM_GETLINK, &link(0, 0), |answer| {
            let of: Vec<_> = attributes(answer.get(16..).unwrap_or_default()).collect();
            let value = |wanted: u16| of.iter().find(|(kind, _)| *kind == wanted).map(|of| of.1);
            let is_wanted = links.iter().any(|link| is_text(value(libc::IFLA_IFNAME), link));
            let carries = value(libc::IFLA_OPERSTATE) == Some(&[OPERATIONAL]);
            ready += usize::from(is_wanted && carries);
        })?;
        if ready == links.len() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "only {ready} of {links:?} are ready");
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_text(value: Option<&[u8]>, text: &str) -> bool {
    value.and_then(|value| value.strip_suffix(&[0])) == Some(text.as_bytes())
}

/// Links, addresses, routes and neighbours as an administrator makes them: equal where nobody
/// changed any. What the kernel itself derives or learns from packets is left out.
pub(crate) fn state() -> Result<BTreeSet<Vec<u8>>> {
    let mut all = BTreeSet::new();
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let chosen = |answer: &[u8], length: usize, kinds: &[u16]| {
        let mut kept = answer.get(..length).unwrap_or_default().to_vec();
        for (kind, value) in attributes(answer.get(length..).unwrap_or_default()) {
            if kinds.contains(&kind) {
                kept.extend_from_slice(&kind.to_ne_bytes());
                kept.extend_from_slice(value);
            }
        }
        kept
    };
    let mut keep = |what: u8, kept: Vec<u8>| _ = all.insert([&[what], &kept[..]].concat());
    socket.dump(libc::RTM_GETLINK, &link(0, 0), |answer| {
        let kinds = [libc::IFLA_IFNAME, libc::IFLA_ADDRESS, libc::IFLA_MTU, libc::IFLA_MASTER];
        let mut kept = chosen(answer, 16, &kinds);
        // Of the flags, only whether it was set up.
        let flags = number(&kept, 8).unwrap_or(0) & u32::from(UP);
        kept.splice(8..16, flags.to_ne_bytes());
        keep(b'l', kept);
    })?;
    socket.dump(libc::RTM_GETADDR, &[0; 8], |answer| {
        let mut kept = chosen(answer, 8, &[libc::IFA_LOCAL, libc::IFA_ADDRESS]);
        // Flags come and go by themselves.
        kept[2] = 0;
        keep(b'a', kept);
    })?;
    socket.dump(libc::RTM_GETROUTE, &[0; 12], |answer| {
        let kinds = [libc::RTA_DST, libc::RTA_GATEWAY, libc::RTA_OIF, libc::RTA_TABLE];
        let mut kept = chosen(answer, 12, &kinds);
        kept.splice(8..12, [0; 4]);
        if kept[5] != BY_KERNEL {
            keep(b'r', kept);
        }
    })?;
    socket.dump(libc::RTM_GETNEIGH, &[0; 12], |answer| {
        if short(answer, 8) == Some(PERMANENT) {
            keep(b'n', chosen(answer, 12, &[libc::NDA_DST, libc::NDA_LLADDR]));
        }
    })?;
    Ok(all)
}
