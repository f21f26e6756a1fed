//! The ABI between the two halves of ctwatch: what the programs in the kernel write and the
//! process in user space reads. Integers and explicit padding only; both halves are built from
//! this one file, so a layout cannot drift.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod budget;
pub mod census;
pub mod ipv6;
pub mod loading;
pub mod plane;
pub mod protocol;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod top;
pub mod trace;
#[cfg(feature = "serde")]
mod written;

use budget::Window;
use top::{HALVES, Seed, Wanted};

/// A value that one half may write and the other read as bytes.
///
/// # Safety
///
/// `repr(C)`, integers and bytes only, no implicit padding.
pub unsafe trait Plain: Copy + 'static {}

/// Namespaces that can be told apart at once: each has one of so many places. The maps are allocated
/// whole at start (an allocation inside a tracepoint of the allocator could recurse).
pub const MAX_NETNS: u32 = 4096;

/// The same for namespaces that an unprivileged user made, in places of their own: however many he
/// makes, they take none from the host's.
pub const MAX_STRANGERS: u32 = 1024;

/// Where all strangers that have no place are counted together.
pub const REST: u32 = MAX_NETNS + MAX_STRANGERS;

/// Those of the host first, then the strangers', then [`REST`].
pub const PLACES: u32 = REST + 1;

/// CPUs share their counts with others where there are more: a place takes 120 bytes for each of so
/// many, and not for each CPU that could come. A power of two.
pub const MOST_STRIPES: u32 = 8;

/// In which stripe these CPUs count: as many as there are CPUs, up to [`MOST_STRIPES`].
pub const fn stripes(cpus: u32) -> u32 {
    let cpus = if cpus == 0 { 1 } else { cpus };
    let all = cpus.next_power_of_two();
    if all < MOST_STRIPES { all } else { MOST_STRIPES }
}

/// Where a place has its counts of one stripe: what different CPUs write lies far apart.
pub const fn tally_index(place: u32, stripe: u32) -> u32 {
    stripe * PLACES + place
}

/// Names a network namespace: `net->net_cookie`, what `SO_NETNS_COOKIE` reports.
///
/// Inode numbers are used again as soon as a namespace is gone, the cookie never is. Where it is
/// not to be had (Linux before 5.14) the inode number stands in for it: those start at 2^32 -
/// 2^28, cookies at 1.
pub type NetnsId = u64;

/// What is counted, each an index into [`NetnsTally`].
///
/// Each count has exactly one writing program. Most kernels do not run a program on top of itself
/// (they skip it, and count a recursion miss); those that do are why additions are atomic although
/// each CPU has its own counts.
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
    /// As the two above, by a second program beside theirs: what that counted and theirs did not.
    RemovedMissed = 5,
    NeverInsertedMissed = 6,
    /// Packets for which no entry could be had because the table is full.
    TableFull = 7,
    /// Entries that user space asked for by ctnetlink and that were refused because the table is
    /// full. No packet is lost by that.
    TableFullCtnetlink = 8,
    /// Packets refused at confirmation because their connection was entered meanwhile by another.
    Clash = 9,
    /// Packets refused at confirmation because the tuple that NAT had chosen was taken: it had
    /// found no free one, or another packet took the same at that very moment.
    NatExhausted = 10,
    /// Entries put into the table.
    Inserted = 11,
    /// Those of `TableFull` around whose time the kernel had no memory either: that may have been why.
    FullOrNoMemory = 12,
}

impl Count {
    pub const ALL: usize = 13;

    pub const EACH: [Self; Self::ALL] = [
        Self::DroppedUntracked,
        Self::DroppedUnconfirmed,
        Self::DroppedUnconfirmedNat,
        Self::Removed,
        Self::NeverInserted,
        Self::RemovedMissed,
        Self::NeverInsertedMissed,
        Self::TableFull,
        Self::TableFullCtnetlink,
        Self::Clash,
        Self::NatExhausted,
        Self::Inserted,
        Self::FullOrNoMemory,
    ];

    /// The name in recordings. It never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::DroppedUntracked => "dropped_untracked",
            Self::DroppedUnconfirmed => "dropped_unconfirmed",
            Self::DroppedUnconfirmedNat => "dropped_unconfirmed_nat",
            Self::Removed => "removed",
            Self::NeverInserted => "never_inserted",
            Self::RemovedMissed => "removed_missed",
            Self::NeverInsertedMissed => "never_inserted_missed",
            Self::TableFull => "table_full",
            Self::TableFullCtnetlink => "table_full_ctnetlink",
            Self::Clash => "clash",
            Self::NatExhausted => "nat_exhausted",
            Self::Inserted => "inserted",
            Self::FullOrNoMemory => "full_or_no_memory",
        }
    }
}

/// The counts of one namespace in one stripe.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetnsTally {
    counts: [u64; Count::ALL],
    /// Whose place this is, in the first stripe; 0: nobody's.
    id: NetnsId,
    /// `net->ns.inum`, what `ls -l /proc/PID/ns/net` shows.
    inode: u32,
    /// `net->user_ns->owner`: 0 is root, who also owns the first user namespace.
    owner: u32,
}

/// `INVALID_UID`, which is no user's.
const NO_UID: u32 = u32::MAX;

impl NetnsTally {
    pub const fn new(id: NetnsId, inode: u32) -> Self {
        Self { counts: [0; Count::ALL], id, inode, owner: 0 }
    }

    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// `None`: it could not be read.
    #[inline(always)]
    #[must_use]
    pub const fn owned_by(mut self, uid: Option<u32>) -> Self {
        self.owner = match uid {
            Some(uid) => uid,
            None => NO_UID,
        };
        self
    }

    /// The user who made its user namespace; `None` where that could not be read.
    pub fn owner(&self) -> Option<u32> {
        (self.owner != NO_UID).then_some(self.owner)
    }

    /// Neither root's, nor of an owner who could not be read.
    #[inline(always)]
    pub fn is_strangers(&self) -> bool {
        self.owner != 0 && self.owner != NO_UID
    }

    pub fn inode(&self) -> u32 {
        self.inode
    }

    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Writes down whose place this is. Inode and owner are one store, which no CPU shows in halves:
    /// a reader on another CPU that sees the inode sees the owner too.
    #[inline(always)]
    pub fn name(&mut self, of: &Self) {
        let place = core::ptr::from_mut(self).cast::<u8>();
        // SAFETY: two numbers of 32 bits side by side, where one of 64 may be (the assertions below); the
        // pointer is to all of this.
        unsafe {
            let both: u64 = core::mem::transmute([of.inode, of.owner]);
            place.add(core::mem::offset_of!(Self, inode)).cast::<u64>().write_volatile(both);
            (&raw mut self.id).write_volatile(of.id);
        }
    }

    /// Whether it has been said whose place this is, as far as this CPU has been shown.
    pub fn is_named(&self) -> bool {
        self.id != 0 && self.inode != 0
    }

    /// Adds one event.
    #[inline(always)]
    pub fn bump(&mut self, count: Count) {
        add_one(&mut self.counts[count as usize]);
    }

    /// Adds what other CPUs counted.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts);
        // Only the first stripe says whose it is.
        self.id = self.id.max(other.id);
        self.inode = self.inode.max(other.inode);
        self.owner = self.owner.max(other.owner);
    }

    /// Entries that were in the table and ended, whichever program saw it.
    pub fn removed(&self) -> u64 {
        self.get(Count::Removed).wrapping_add(self.get(Count::RemovedMissed))
    }

    /// Entries that ended, inserted or not.
    pub fn ended(&self) -> u64 {
        let never = self.get(Count::NeverInserted) + self.get(Count::NeverInsertedMissed);
        self.removed().wrapping_add(never)
    }
}

/// What is counted for the machine as a whole, because no namespace can be told where it happens;
/// each an index into [`HostTally`], and with one writing program, as in [`Count`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCount {
    /// Times that the page allocator had not even a single page. The slab allocator asks it last
    /// of all, so at most so many entries were refused for lack of memory.
    NoMemory = 0,
    /// Events in a namespace of the host's that the map had no room for, by the program that saw
    /// them.
    UnplacedDrops = 1,
    UnplacedEnds = 2,
    UnplacedEndsMissed = 3,
    UnplacedRefusals = 4,
    UnplacedClashes = 5,
    UnplacedInsertions = 6,
    /// Returns of a function of whose call nothing is known: a probe at its entry was not run, or
    /// found no room to leave word.
    UnpairedRefusals = 7,
    UnpairedClashes = 8,
    /// Entries that ended, of which it can no longer be told whether they were ever in the table,
    /// or in which namespace: see [`Layout::freed_before_told`].
    DoubtfulEnds = 9,
    /// Packets of control planes that there was no room to tell apart.
    UnplacedPlanes = 10,
}

impl HostCount {
    pub const ALL: usize = 11;

    pub const EACH: [Self; Self::ALL] = [
        Self::NoMemory,
        Self::UnplacedDrops,
        Self::UnplacedEnds,
        Self::UnplacedEndsMissed,
        Self::UnplacedRefusals,
        Self::UnplacedClashes,
        Self::UnplacedInsertions,
        Self::UnpairedRefusals,
        Self::UnpairedClashes,
        Self::DoubtfulEnds,
        Self::UnplacedPlanes,
    ];

    /// The name in recordings. It never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoMemory => "no_memory",
            Self::UnplacedDrops => "unplaced_drops",
            Self::UnplacedEnds => "unplaced_ends",
            Self::UnplacedEndsMissed => "unplaced_ends_missed",
            Self::UnplacedRefusals => "unplaced_refusals",
            Self::UnplacedClashes => "unplaced_clashes",
            Self::UnplacedInsertions => "unplaced_insertions",
            Self::UnpairedRefusals => "unpaired_refusals",
            Self::UnpairedClashes => "unpaired_clashes",
            Self::DoubtfulEnds => "doubtful_ends",
            Self::UnplacedPlanes => "unplaced_planes",
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTally {
    counts: [u64; HostCount::ALL],
}

impl HostTally {
    pub fn get(&self, count: HostCount) -> u64 {
        self.counts[count as usize]
    }

    #[inline(always)]
    pub fn bump(&mut self, count: HostCount) {
        add_one(&mut self.counts[count as usize]);
    }

    /// Adds what another CPU counted.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts);
    }
}

/// In one instruction that nothing comes in between.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn add_one(cell: &mut u64) {
    // SAFETY: a valid, aligned integer, ours for as long as this reference lives. (The atomics of
    // `core` are not there for the oldest BPF instruction set, which has this one.)
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({cell} + 0) += {one}",
            cell = in(reg) cell,
            one = in(reg) 1_u64,
            options(nostack)
        );
    }
}

#[cfg(not(target_arch = "bpf"))]
pub fn add_one(cell: &mut u64) {
    *cell = cell.wrapping_add(1);
}

fn add(sums: &mut [u64], more: &[u64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
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
    pub nf_conntrack_free: Code,
    pub nf_hook_slow: Code,
    /// `SKB_DROP_REASON_NETFILTER_DROP`, whose number moves between kernels.
    pub netfilter_drop: u32,
    pub skb_nfct: u32,
    /// `dev`, and right behind it `sk`: one read for both.
    pub skb_dev_sk: u32,
    pub net_device_nd_net: u32,
    pub sock_net: u32,
    pub nf_conn_status: u32,
    pub nf_conn_net: u32,
    /// The number of references.
    pub nf_conn_use: u32,
    /// Where an entry is linked into the table, by its original direction.
    pub nf_conn_hash: u32,
    /// How much of an entry is worth copying.
    pub nf_conn_bytes: u32,
    /// The tuples of both directions.
    pub nf_conn_original: u32,
    pub nf_conn_reply: u32,
    /// The tuple in a `struct nf_conntrack_tuple_hash`.
    pub hash_tuple: u32,
    pub net_inum: u32,
    /// 0 where the inode number is to stand in for the cookie.
    pub net_cookie: u32,
    /// The owner of a namespace: `net->user_ns`, and `owner` in that. 0 where this kernel does not
    /// say where it is: then all are taken for the host's.
    pub net_user_ns: u32,
    pub user_ns_owner: u32,
    /// The stack pointer in the `struct pt_regs` of a kprobe.
    pub pt_regs_sp: u32,
    /// Not 0: `kmem:kmem_cache_free` comes after the object was given back, not before. It may have
    /// begun another life by then.
    pub freed_before_told: u32,
    /// 16 bytes before `head`; how far before it `tail` is, which is less; and where in `head` the
    /// network header begins.
    pub skb_before_head: u32,
    pub skb_tail_to_head: u32,
    pub skb_network_header: u32,
    pub skb_iif: u32,
    /// Sets of each top table on each CPU, a power of two; 0 where nobody asks who it is.
    pub top_sets: u32,
    pub top_wanted: Wanted,
    /// How many events are told apart.
    pub top_window: Window,
    /// How many stripes there are, less one.
    pub stripe_mask: u32,
    /// Nobody can know in which set a key ends up.
    pub top_seed: Seed,
}

const _: () = {
    assert!(size_of::<NetnsTally>() == 8 * Count::ALL + 16);
    assert!(core::mem::offset_of!(NetnsTally, inode).is_multiple_of(8));
    assert!(
        core::mem::offset_of!(NetnsTally, owner) == core::mem::offset_of!(NetnsTally, inode) + 4
    );
    assert!(MOST_STRIPES.is_power_of_two());
    assert!(size_of::<HostTally>() == 8 * HostCount::ALL);
    assert!(size_of::<Layout>() == 2 * 16 + 28 * 4 + 8 * HALVES);
};

// SAFETY: repr(C), integers only, and no implicit padding (the assertions above).
unsafe impl Plain for NetnsTally {}
// SAFETY: as above.
unsafe impl Plain for HostTally {}
// SAFETY: as above.
unsafe impl Plain for Layout {}

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
    fn cpus_share_stripes_where_there_are_many() {
        let of = [0, 1, 2, 3, 6, 8, 64, 8192].map(stripes);
        assert_eq!(of, [1, 1, 2, 4, 8, 8, 8, 8]);
        assert_eq!((tally_index(7, 0), tally_index(7, 1)), (7, PLACES + 7));
    }

    #[test]
    fn tallies_of_two_cpus_add_up_field_by_field() {
        let (mut a, mut b) = (NetnsTally::new(9, 7), NetnsTally::default());
        a.bump(Count::Removed);
        b.bump(Count::Removed);
        b.bump(Count::RemovedMissed);
        b.bump(Count::DroppedUntracked);
        a.add(&b);
        assert_eq!(a.get(Count::Removed), 2);
        assert_eq!((a.removed(), a.ended(), a.inode()), (3, 3, 7));
        assert_eq!(a.get(Count::DroppedUntracked), 1);
        assert_eq!(a.get(Count::NeverInserted), 0);
    }
    #[test]
    fn a_place_is_named_whole() {
        let mut place = NetnsTally::default();
        place.bump(Count::Removed);
        assert!(!place.is_named());
        place.name(&NetnsTally::new(9, 7).owned_by(Some(1000)));
        assert_eq!((place.id(), place.inode(), place.owner()), (9, 7, Some(1000)));
        assert_eq!(place.get(Count::Removed), 1);
        assert!(place.is_named());
        // The id is shown, and what was stored before it is not yet.
        assert!(!NetnsTally::new(9, 0).is_named());
    }

    #[test]
    fn an_owner_outlives_cpus_that_never_counted() {
        let mut sum = NetnsTally::default();
        sum.add(&NetnsTally::new(9, 7).owned_by(Some(1000)));
        sum.add(&NetnsTally::default());
        assert!(sum.is_strangers());
        assert_eq!(sum.owner(), Some(1000));
        let unknown = NetnsTally::new(9, 7).owned_by(None);
        assert_eq!((unknown.owner(), unknown.is_strangers()), (None, false));
        assert!(!NetnsTally::new(9, 7).owned_by(Some(0)).is_strangers());
    }
}
