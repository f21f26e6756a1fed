//! The ABI between the two halves of ctwatch: what the programs in the kernel write and the
//! process in user space reads. Integers and explicit padding only; both halves are built from
//! this one file, so a layout cannot drift.
#![no_std]

/// Namespaces that can be told apart at once. The map is allocated whole at start (an allocation
/// inside a slab tracepoint could recurse): 1,024 x 48 bytes for each possible CPU.
pub const MAX_NETNS: u32 = 1024;

/// Names a network namespace for as long as the kernel runs.
///
/// Inode numbers are reused as soon as a namespace is gone, the cookie never is. Kernels before
/// 5.12 have no cookie in `struct net`: there it is 0, and the inode number alone must do.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsKey {
    /// `net->net_cookie`, what `SO_NETNS_COOKIE` reports; 0 where the kernel has none.
    pub cookie: u64,
    /// `net->ns.inum`, what `ls -l /proc/PID/ns/net` shows.
    pub inode: u32,
    pub padding: u32,
}

/// What is counted, each an index into [`NetnsTally`].
///
/// Each count has exactly one writing program. A program cannot be interrupted by itself on one
/// CPU (the kernel counts that as a recursion miss and skips it), so a plain per-CPU addition
/// never loses an event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Packets dropped by a netfilter hook with no conntrack attached to them: refused by
    /// conntrack at the door, or dropped by a rule before conntrack (the raw table).
    DroppedUntracked = 0,
    /// Packets dropped by a netfilter hook with a new, not yet confirmed entry attached: refused
    /// at confirmation, or dropped by a rule.
    DroppedUnconfirmed = 1,
    /// Those of `DroppedUnconfirmed` whose entry NAT had changed.
    DroppedUnconfirmedNat = 2,
    /// Entries that were in the table and ended.
    Removed = 3,
    /// Entries that were allocated and ended without ever being inserted.
    NeverInserted = 4,
}

impl Count {
    pub const ALL: usize = 5;
}

/// The counts of one namespace on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetnsTally {
    counts: [u64; Count::ALL],
}

impl NetnsTally {
    pub const fn zero() -> Self {
        Self { counts: [0; Count::ALL] }
    }

    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Adds one event.
    #[inline(always)]
    pub fn bump(&mut self, count: Count) {
        let cell = &mut self.counts[count as usize];
        *cell = cell.wrapping_add(1);
    }

    /// Adds what another CPU counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// What is counted for the machine as a whole, because no namespace can be told where it happens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTally {
    /// Entries the slab allocator had no memory for. Written by `kmem_cache_alloc` alone.
    pub no_memory: u64,
    /// Packets dropped with no conntrack attached, in a namespace the map had no room for.
    pub unplaced_drops: u64,
    /// Entries that ended in a namespace the map had no room for.
    pub unplaced_ends: u64,
}

/// A function's code in the running kernel: `address - start < len` says "inside". All zero: not
/// there, nothing is inside.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    pub start: u64,
    pub len: u64,
}

impl Code {
    #[inline(always)]
    pub fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.len
    }
}

/// Where things are in the running kernel: resolved in user space (BTF and kallsyms) and written
/// into the programs' read-only data before they are loaded. Offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub nf_conntrack_alloc: Code,
    pub nf_conntrack_free: Code,
    pub nf_hook_slow: Code,
    /// `SKB_DROP_REASON_NETFILTER_DROP`, whose number moves between kernels.
    pub netfilter_drop: u32,
    pub skb_nfct: u32,
    pub skb_dev: u32,
    pub skb_sk: u32,
    pub net_device_nd_net: u32,
    pub sock_net: u32,
    pub nf_conn_status: u32,
    pub nf_conn_net: u32,
    pub net_inum: u32,
    /// 0 where `struct net` has no cookie.
    pub net_cookie: u32,
}

const _: () = {
    assert!(size_of::<NetnsKey>() == 16);
    assert!(size_of::<NetnsTally>() == 8 * Count::ALL);
    assert!(size_of::<HostTally>() == 24);
    assert!(size_of::<Layout>() == 3 * 16 + 10 * 4);
};

#[cfg(not(target_arch = "bpf"))]
mod pod {
    // SAFETY: repr(C), integers only, and no implicit padding (the assertions above).
    unsafe impl aya::Pod for super::NetnsKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NetnsTally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::HostTally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Layout {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_contains_its_first_and_last_byte_only() {
        let code = Code { start: 0x1000, len: 0x10 };
        assert!(code.contains(0x1000) && code.contains(0x100f));
        assert!(!code.contains(0xfff) && !code.contains(0x1010) && !code.contains(0));
    }

    #[test]
    fn code_that_is_not_there_contains_nothing() {
        assert!(!Code::default().contains(0) && !Code::default().contains(u64::MAX));
    }

    #[test]
    fn tallies_of_two_cpus_add_up_field_by_field() {
        let (mut a, mut b) = (NetnsTally::zero(), NetnsTally::zero());
        a.bump(Count::Removed);
        b.bump(Count::Removed);
        b.bump(Count::DroppedUntracked);
        a.add(&b);
        assert_eq!(a.get(Count::Removed), 2);
        assert_eq!(a.get(Count::DroppedUntracked), 1);
        assert_eq!(a.get(Count::NeverInserted), 0);
    }
}
