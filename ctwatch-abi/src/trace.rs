//! Single refusals as they happen: what is told of one, and which of them are.

use crate::{NetnsId, Plain};

/// Why a packet was refused; each a bit of [`Filter::reasons`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    TableFull = 0,
    Clash = 1,
    NatExhausted = 2,
    /// Dropped before conntrack had an entry for it: the table is full, or a rule in the raw table
    /// dropped it. All that the generic tracepoint tells.
    Untracked = 3,
    /// Dropped with a new entry: refused at confirmation, or by a rule. All that the generic
    /// tracepoint tells.
    Unconfirmed = 4,
    ChainTooLong = 5,
}

impl Reason {
    pub const ALL: [Self; 6] = [
        Self::TableFull,
        Self::Clash,
        Self::NatExhausted,
        Self::Untracked,
        Self::Unconfirmed,
        Self::ChainTooLong,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::TableFull => "table_full",
            Self::Clash => "clash",
            Self::NatExhausted => "nat_exhausted",
            Self::Untracked => "untracked",
            Self::Unconfirmed => "unconfirmed",
            Self::ChainTooLong => "chain_too_long",
        }
    }
}

/// One refused packet. Addresses and ports are in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the machine started, without what it slept.
    pub at: u64,
    pub netns: NetnsId,
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub sport: u16,
    pub dport: u16,
    pub protocol: u8,
    pub family: u8,
    /// 1: it has ports, and they could not be read.
    pub portless: u16,
    pub ifindex: u32,
    /// A [`Reason`].
    pub reason: u32,
    /// Who had the CPU, where the packet came in by no interface: most often who sent it.
    pub pid: u32,
    pub more_padding: u32,
    pub comm: [u8; 16],
}

/// What is wanted. All of it must be true of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// So many in a second at most; 0: nobody traces.
    pub rate: u64,
    /// 0: any.
    pub netns: NetnsId,
    /// `address & mask == wanted`, in network order.
    pub src: [u64; 2],
    pub src_mask: [u64; 2],
    pub dst: [u64; 2],
    pub dst_mask: [u64; 2],
    /// A bit for each [`Reason`].
    pub reasons: u32,
    /// 0: any.
    pub family: u32,
    /// 256: any.
    pub protocol: u32,
    /// In network order; 65,536: any.
    pub dport: u32,
}

/// What became of the refusals that were wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// All of them.
    pub wanted: u64,
    /// Those that were not told: too many in that second, or faster than they were read.
    pub untold: u64,
    /// The second that is running, and how many were told in it.
    pub second: u64,
    pub in_second: u64,
}

const _: () = {
    assert!(size_of::<Event>() == 88);
    assert!(size_of::<Filter>() == 2 * 8 + 4 * 16 + 4 * 4);
    assert!(size_of::<Traced>() == 4 * 8);
};

// SAFETY: repr(C), integers and bytes, and no implicit padding (the assertions above).
unsafe impl Plain for Event {}
// SAFETY: as above.
unsafe impl Plain for Filter {}
// SAFETY: as above.
unsafe impl Plain for Traced {}
