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
    /// Of the namespace; [`NO_OWNER`]: it could not be read.
    pub owner: u32,
    pub comm: [u8; 16],
}

/// No user has this number.
pub const NO_OWNER: u32 = u32::MAX;
/// Of [`Filter::owner`].
pub const ANY_OWNER: u64 = u64::MAX;

impl Event {
    /// Who made the user namespace that the namespace belongs to, where that could be read.
    pub fn owner(&self) -> Option<u32> {
        (self.owner != NO_OWNER).then_some(self.owner)
    }
}

/// What is wanted. All of it must be true of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// So many in a second at most; 0: nobody traces.
    pub rate: u64,
    /// 0: any.
    pub netns: NetnsId,
    /// [`ANY_OWNER`]: any. 0: the host's own, and those whose owner cannot be read.
    pub owner: u64,
    /// Not 0: only namespaces that user space has chosen.
    pub is_chosen: u64,
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
    /// Those of which it is not known whether they are wanted: user space has not looked at their
    /// namespace yet, or does not find it. Not among the others.
    pub undecided: u64,
}

impl Filter {
    /// Whether a namespace of this owner is wanted, or of [`NO_OWNER`].
    #[inline(always)]
    pub fn admits(owner: u64, of: u32) -> bool {
        let counts_as = if of == NO_OWNER { 0 } else { of };
        owner == ANY_OWNER || owner == u64::from(counts_as)
    }
}

const _: () = {
    assert!(size_of::<Event>() == 88);
    assert!(size_of::<Filter>() == 4 * 8 + 4 * 16 + 4 * 4);
    assert!(size_of::<Traced>() == 5 * 8);
};

// SAFETY: repr(C), integers and bytes, and no implicit padding (the assertions above).
unsafe impl Plain for Event {}
// SAFETY: as above.
unsafe impl Plain for Filter {}
// SAFETY: as above.
unsafe impl Plain for Traced {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_owner_counts_as_the_host() {
        let admitted = |wanted| [NO_OWNER, 0, 7].map(|of| Filter::admits(wanted, of));
        assert_eq!(admitted(ANY_OWNER), [true; 3]);
        assert_eq!(admitted(0), [true, true, false]);
        assert_eq!(admitted(7), [false, false, true]);
        assert_eq!(Event { owner: NO_OWNER, ..Event::default() }.owner(), None);
    }
}
