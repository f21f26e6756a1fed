//! Whose packet, whose entry: from the kernel's memory to a [`Key`].

use aya_ebpf::helpers::{bpf_get_current_comm, generated::bpf_get_current_cgroup_id};
use ctwatch_abi::{
    NetnsId, ipv6,
    plane::Plane,
    protocol::has_ports,
    top::{AF_INET, AF_INET6, By, Key, Stream},
    trace::Reason,
};

use crate::{
    hooks::{kfree_skb::entry_of, tell},
    kernel::{Address, Place, Tuple, layout, read},
    tally::{self, Lists},
};

const IP_OFFSET: u16 = 0x1fff;

/// What tells one packet, or one connection, from another.
pub(crate) struct Packet {
    pub(crate) key: Key,
    /// The `struct net` that it is in; 0 where nobody is told of it.
    pub(crate) net: u64,
    /// In network order.
    pub(crate) sport: u16,
    /// It has ports, and they could not be read.
    pub(crate) is_portless: bool,
}

/// A packet was refused for want of an entry, or so it seems; it stands for so many, 0 where it is not
/// told apart. A function of its own, as those below are: what it keeps on the stack is gone before the
/// next one is called.
#[inline(never)]
pub(crate) fn refused(skb: u64, net: u64, netns: NetnsId, reason: Reason, weight: u32) -> u32 {
    let key = Key { netns, ..Key::default() };
    let mut packet = Packet { key, net, sport: 0, is_portless: false };
    if read_packet(skb, &mut packet) {
        if weight != 0 {
            list(&packet, weight);
        }
        tell::refused(reason, &packet);
    }
    0
}

#[inline(never)]
fn list(packet: &Packet, weight: u32) -> u32 {
    if let Some(lists) = tally::lists(Stream::Drops, &packet.key, weight) {
        addresses(&lists);
        // Else it is in no such list, which widens the bounds of all that are.
        if !packet.is_portless {
            services(&lists);
        }
        lists.enter::<INTERFACE>();
    }
    if packet.key.ifindex == 0 {
        process(Stream::Drops, packet.key, weight);
    }
    0
}

/// The packet of a refusal that is in the lists already, by what its tuple tells: by which interface it
/// came, or who sent it.
#[inline(never)]
pub(crate) fn came(skb: u64, netns: NetnsId, weight: u32) -> u32 {
    let Some(ifindex) = read(skb, layout!(skb_iif)) else { return 0 };
    let key = Key { netns, ifindex, ..Key::default() };
    if let Some(lists) = tally::lists(Stream::Drops, &key, weight) {
        lists.enter::<INTERFACE>();
    }
    if ifindex == 0 {
        process(Stream::Drops, key, weight);
    }
    0
}

/// No entry was made for a packet with this tuple.
#[inline(always)]
pub(crate) fn refused_tuple(tuple: impl Place, netns: NetnsId, weight: u32) -> Option<()> {
    let packet = packet(tuple.tuple(0)?, netns);
    let lists = tally::lists(Stream::Drops, &packet.key, weight)?;
    addresses(&lists);
    services(&lists);
    Some(())
}

/// A packet was dropped: one of a control plane is counted, however many are dropped. What its tuple
/// tells, or its own headers.
#[inline(always)]
pub(crate) fn plane_of_tuple(tuple: impl Place, netns: NetnsId) -> Option<()> {
    // Where `struct nf_conntrack_tuple` has them.
    let (port, protocol) = (tuple.get::<u16>(36)?, tuple.get::<u8>(38)?);
    tally::plane(netns, Plane::of(protocol, u16::from_be(port))?);
    Some(())
}

#[inline(always)]
pub(crate) fn plane_of_packet(skb: impl Place, netns: NetnsId) -> Option<()> {
    let head = skb.get::<u64>(layout!(skb_before_head) + 16)?;
    let at = skb.get::<u16>(layout!(skb_network_header))?;
    if plane_of_header(head, at.into(), netns) == BEHIND {
        plane_behind(skb.address(), netns);
    }
    Some(())
}

/// Something is between the header and the ports.
const BEHIND: u32 = 1;

#[inline(never)]
fn plane_of_header(head: u64, at: u32, netns: NetnsId) -> u32 {
    // Behind what a packet's memory ends with the kernel keeps 300 bytes of its own: an address is
    // no less readable there.
    let Some(header) = read::<[u8; 44]>(head, at) else { return 0 };
    let (protocol, ports) = match header[0] {
        // A header without options, of a packet in one piece or of the first one.
        0x45 if header[6] & 0x1f == 0 && header[7] == 0 => (header[9], 22),
        first if first >> 4 == 6 && !ipv6::is_extension(header[6]) => (header[6], 42),
        _ => return BEHIND,
    };
    let port = u16::from_be_bytes([header[ports], header[ports + 1]]);
    if let Some(plane) = Plane::of(protocol, port) {
        tally::plane(netns, plane);
    }
    0
}

/// Where something is between the header and the ports.
#[inline(never)]
fn plane_behind(skb: u64, netns: NetnsId) -> u32 {
    let key = Key { netns, ..Key::default() };
    let mut packet = Packet { key, net: 0, sport: 0, is_portless: false };
    if read_packet(skb, &mut packet)
        && let Some(plane) = Plane::of(packet.key.protocol, u16::from_be(packet.key.dport))
    {
        tally::plane(netns, plane);
    }
    0
}

/// A packet was refused that had an entry already, or so it seems.
#[inline(always)]
pub(crate) fn refused_with(
    skb: u64,
    ct: u64,
    (net, netns): (Address, NetnsId),
    reason: Reason,
) -> Option<()> {
    if tell::is_on() {
        let mut packet = original(Address(ct), netns)?;
        packet.net = net.0;
        packet.key.ifindex = read(skb, layout!(skb_iif))?;
        tell::refused(reason, &packet);
    }
    Some(())
}

/// A new entry is about to be confirmed. It does not know which interface its packet came in by;
/// the packet is not there any more when it is inserted.
#[inline(always)]
pub(crate) fn confirming(skb: impl Place) -> Option<()> {
    if !tally::is_asked(Stream::Insertions) {
        return None;
    }
    let ct = entry_of(skb.get(layout!(skb_nfct))?)?;
    tally::came_by(ct, skb.get(layout!(skb_iif))?);
    Some(())
}

/// An entry was put into the table.
#[inline(always)]
pub(crate) fn inserted(ct: impl Place, netns: NetnsId) -> Option<()> {
    let weight = tally::told_apart(Stream::Insertions)?;
    let mut packet = original(ct, netns)?;
    // Not of what user space made, and not where nobody stands at the confirmation.
    let interface = tally::take_came_by(ct);
    packet.key.ifindex = interface.unwrap_or(0);
    if let Some(lists) = tally::lists(Stream::Insertions, &packet.key, weight) {
        addresses(&lists);
        services(&lists);
        if interface.is_some() {
            lists.enter::<INTERFACE>();
        }
    }
    interface?;
    if packet.key.ifindex == 0 {
        process(Stream::Insertions, packet.key, weight);
    }
    Some(())
}

const INTERFACE: usize = By::Interface as usize;
const PROCESS: usize = By::Process as usize;

#[inline(always)]
fn addresses(lists: &Lists<'_>) {
    lists.enter::<{ By::Source as usize }>();
    lists.enter::<{ By::Destination as usize }>();
}

#[inline(always)]
fn services(lists: &Lists<'_>) {
    lists.enter::<{ By::Service as usize }>();
    lists.enter::<{ By::Flow as usize }>();
}

/// Whoever has the CPU: most often who sent it; what is sent again is sent by a timer.
#[inline(always)]
fn process(stream: Stream, mut key: Key, weight: u32) {
    if !layout!(top_wanted).contains(By::Process) {
        return;
    }
    key.family = 0;
    key.dst = [0; 16];
    key.src = bpf_get_current_comm().unwrap_or_default();
    // SAFETY: a helper without arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    key.dst[..8].copy_from_slice(&cgroup.to_ne_bytes());
    if let Some(lists) = tally::lists(stream, &key, weight) {
        lists.enter::<PROCESS>();
    }
}

/// From the packet's own headers: an entry it does not have. In later fragments no port is looked for.
#[inline(never)]
fn read_packet(skb: u64, packet: &mut Packet) -> bool {
    read_headers(skb, packet).is_some()
}

#[inline(always)]
fn read_headers(skb: u64, packet: &mut Packet) -> Option<()> {
    let Ends { before, head } = read(skb, layout!(skb_before_head))?;
    let tail = if layout!(skb_tail_to_head) == 8 { before[2] } else { before[1] };
    let at = read::<u16>(skb, layout!(skb_network_header))?;
    let ip = head + u64::from(at);
    let header = read::<[u8; 20]>(ip, 0)?;
    let key = &mut packet.key;
    key.ifindex = read(skb, layout!(skb_iif))?;
    let transport = match header[0] >> 4 {
        4 => {
            key.family = AF_INET;
            key.protocol = header[9];
            key.src[..4].copy_from_slice(&header[12..16]);
            key.dst[..4].copy_from_slice(&header[16..20]);
            let fragment = u16::from_be_bytes([header[6], header[7]]) & IP_OFFSET;
            (fragment == 0).then_some(u32::from(header[0] & 15) * 4)
        }
        6 => {
            key.family = AF_INET6;
            key.src = read(ip, 8)?;
            key.dst = read(ip, 24)?;
            let header_at = |distance: u32| match u32::from(at) + distance + 8 <= tail {
                true => read::<[u8; 8]>(ip, distance),
                false => None,
            };
            let found = ipv6::transport(header[6], header_at);
            key.protocol = found.protocol;
            found.at
        }
        _ => return None,
    };
    let behind = key.family == AF_INET6 && ipv6::is_extension(key.protocol);
    if has_ports(key.protocol) || behind {
        // What is beyond the tail is in pages of its own, and this memory somebody else's.
        let is_there = |at_transport: &u32| u32::from(at) + at_transport + 4 <= tail;
        match transport.filter(is_there) {
            Some(transport) => [packet.sport, key.dport] = read(ip, transport)?,
            None => packet.is_portless = true,
        }
    }
    Some(())
}

/// Where a packet's memory ends and begins: `sk_buff_data_t` counts from the beginning.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/skbuff.h>
#[repr(C)]
#[derive(Clone, Copy)]
struct Ends {
    before: [u32; 4],
    head: u64,
}

/// From the tuple of the original direction.
#[inline(always)]
fn original(ct: impl Place, netns: NetnsId) -> Option<Packet> {
    Some(packet(ct.tuple(layout!(nf_conn_original))?, netns))
}

#[inline(always)]
fn packet(tuple: Tuple, netns: NetnsId) -> Packet {
    let mut key = Key {
        netns,
        src: bytes(tuple.src),
        dst: bytes(tuple.dst),
        protocol: tuple.protocol,
        // A 16-bit number whose values fit into eight.
        family: u16::to_le_bytes(tuple.family)[0],
        ..Key::default()
    };
    let mut sport = 0;
    if has_ports(key.protocol) {
        (sport, key.dport) = (tuple.sport, tuple.dport);
    }
    Packet { key, net: 0, sport, is_portless: false }
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: as many bytes.
    unsafe { core::mem::transmute(words) }
}
