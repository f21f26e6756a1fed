//! Where things are in an entry, and what one holds.

use anyhow::{Result, ensure};
use ctwatch_abi::{
    Layout,
    census::{ENTRY, Record},
    protocol::{self, has_ports},
    top::Key,
};

use crate::{
    host::kernel::btf::Btf,
    record::entry::{Held, Left, Status},
};

/// Where things are in an entry.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    pub references: usize,
    pub timeout: usize,
    /// `None` where this kernel has no zones.
    pub zone: Option<usize>,
    pub tuple: usize,
    /// The tuple of the reply.
    pub reply: usize,
    pub status: usize,
    pub tcp_state: usize,
    pub sctp_state: usize,
}

impl Offsets {
    /// Of a kernel as there may be one: for tests, here and of what nonsense does.
    pub const EXAMPLE: Self = Self {
        references: 0,
        timeout: 8,
        zone: Some(12),
        tuple: 32,
        reply: 88,
        status: 128,
        tcp_state: 200,
        sctp_state: 200,
    };

    /// Also what the program needs of it.
    pub(super) fn find(btf: &Btf) -> Result<(Self, Layout)> {
        let mut layout = Layout::default();
        let of = |path| btf.offset("nf_conn", path);
        let hash_tuple = btf.offset("nf_conntrack_tuple_hash", "tuple")?;
        layout.nf_conn_hash = of("tuplehash")?;
        layout.nf_conn_net = of("ct_net")?;
        layout.net_inum = btf.offset("net", "ns.inum")?;
        layout.net_cookie = btf.offset("net", "net_cookie").unwrap_or(0);
        let state = of("proto.tcp.state")?;
        let size = btf.size("nf_conntrack_tuple")?;
        let hash_size = btf.size("nf_conntrack_tuple_hash")?;
        ensure!(size == 40 && hash_tuple == 16, "this kernel's tuples are laid out otherwise");
        let offsets = Self {
            references: of("ct_general.use")? as usize,
            timeout: of("timeout")? as usize,
            zone: of("zone.id").ok().map(|at| at as usize),
            tuple: (layout.nf_conn_hash + hash_tuple) as usize,
            // An array of both directions.
            reply: (layout.nf_conn_hash + hash_size + hash_tuple) as usize,
            status: of("status")? as usize,
            tcp_state: state as usize,
            sctp_state: of("proto.sctp.state").unwrap_or(state) as usize,
        };
        let ends = [
            offsets.reply + 40,
            offsets.status + 8,
            offsets.timeout + 4,
            offsets.tcp_state + 4,
            offsets.sctp_state + 4,
            offsets.zone.unwrap_or(0) + 2,
        ];
        let bytes = ends.into_iter().max().unwrap_or(0).next_multiple_of(8);
        ensure!(bytes <= ENTRY, "this kernel's entries are larger than {ENTRY} bytes");
        layout.nf_conn_bytes = u32::try_from(bytes)?;
        Ok((offsets, layout))
    }

    /// `None` for what is no entry in the table: freed a moment ago.
    pub fn held(&self, record: &Record, jiffies: u64, hz: u32) -> Option<Held> {
        const ORIGINAL: u8 = 0;
        let bytes = &record.entry;
        let byte = |at: usize| bytes.get(at).copied();
        let half = |at| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let word = |at| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let status = Status(word(self.status)?);
        let tuple = self.tuple;
        let family = half(tuple + 18)?.to_le_bytes()[0];
        let is_entry = word(self.references)? != 0
            && status.is_confirmed()
            && byte(tuple + 39)? == ORIGINAL
            && matches!(family, 2 | 10);
        if !is_entry {
            return None;
        }
        let protocol = byte(tuple + 38)?;
        let netns = record.netns;
        let key = |src: usize, dst: usize| {
            let has_port = has_ports(protocol);
            Some(Key {
                netns,
                src: *bytes.get(src..)?.first_chunk()?,
                dst: *bytes.get(dst..)?.first_chunk()?,
                // Right behind the address.
                dport: if has_port { half(dst + 16)? } else { 0 },
                protocol,
                family,
                ifindex: 0,
            })
        };
        let reply = self.reply;
        let state = match protocol {
            protocol::TCP => byte(self.tcp_state)?,
            protocol::SCTP => byte(self.sctp_state)?,
            _ => 0,
        };
        // Both are 32 bits of the same clock, which wraps around.
        let ticks = word(self.timeout)?.wrapping_sub(u32::try_from(jiffies & 0xffff_ffff).ok()?);
        let left = match ticks.cast_signed() {
            ..=0 => Left::Expired,
            left => Left::Seconds(left.cast_unsigned() / hz.max(1)),
        };
        Some(Held {
            key: key(tuple, tuple + 20)?,
            translated: key(reply + 20, reply)?,
            status,
            state,
            zone: match self.zone {
                Some(at) => half(at)?,
                None => 0,
            },
            left,
        })
    }
}
