//! Every map write. Per-CPU counters only: nothing is sent to user space per event.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use ctwatch_ebpf::{Count, HostTally, MAX_NETNS, NetnsId, NetnsTally};

use crate::kernel;

#[map]
static NETNS: PerCpuHashMap<NetnsId, NetnsTally> = PerCpuHashMap::with_max_entries(MAX_NETNS, 0);

#[map]
static HOST: PerCpuArray<HostTally> = PerCpuArray::with_max_entries(1, 0);

/// Which ends of entries the first of two programs has seen: see [`mark`].
#[map]
static MARKS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MARK_SLOTS, 0);

/// A power of two.
const MARK_SLOTS: u32 = 256;

/// A packet that a netfilter hook dropped, in the namespace of `net`.
#[inline(always)]
pub(crate) fn dropped(net: u64, count: Count) {
    if !bump(net, &[count]) {
        host(|host| host.unplaced_drops = host.unplaced_drops.wrapping_add(1));
    }
}

/// A dropped packet whose new entry NAT had already changed: counted as both.
#[inline(always)]
pub(crate) fn dropped_after_nat(net: u64) {
    if !bump(net, &[Count::DroppedUnconfirmed, Count::DroppedUnconfirmedNat]) {
        host(|host| host.unplaced_drops = host.unplaced_drops.wrapping_add(1));
    }
}

/// The end of an entry.
#[inline(always)]
pub(crate) fn ended(net: u64, count: Count) {
    if !bump(net, &[count]) {
        host(|host| match count {
            Count::RemovedMissed | Count::NeverInsertedMissed => {
                host.unplaced_ends_missed = host.unplaced_ends_missed.wrapping_add(1);
            }
            _ => host.unplaced_ends = host.unplaced_ends.wrapping_add(1),
        });
    }
}

/// The page allocator had not a single page.
#[inline(always)]
pub(crate) fn no_memory() {
    host(|host| host.no_memory = host.no_memory.wrapping_add(1));
}

/// The first program leaves word for the second that it has seen the end of this object.
///
/// The kernel does not run a program on top of itself: a softirq that arrives while `freed` runs
/// for some slab object would end entries unseen. Two programs at the same tracepoint cannot both
/// be running when it arrives, so one of them always sees the event. A slot for each object by its
/// address: an interruption between the two programs then does not disturb what they agree on.
#[inline(always)]
pub(crate) fn mark(object: u64) {
    if let Some(slot) = MARKS.get_ptr_mut(slot_of(object)) {
        // SAFETY: a live per-CPU map value.
        unsafe { *slot = object };
    }
}

/// Whether the first program has seen it; the word is taken back.
#[inline(always)]
pub(crate) fn take_mark(object: u64) -> bool {
    let Some(slot) = MARKS.get_ptr_mut(slot_of(object)) else { return false };
    // SAFETY: a live per-CPU map value.
    unsafe {
        let seen = *slot == object;
        if seen {
            *slot = 0;
        }
        seen
    }
}

/// Entries are 256 bytes or more, so lower bits say nothing.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn slot_of(object: u64) -> u32 {
    (object >> 8) as u32 & (MARK_SLOTS - 1)
}

/// False where the namespace cannot be named or the map has no room for it.
#[inline(always)]
fn bump(net: u64, counts: &[Count]) -> bool {
    let Some(id) = kernel::netns_id(net) else { return false };
    let tally = match NETNS.get_ptr_mut(id) {
        Some(tally) => tally,
        None => {
            let Some(tally) = add(net, id) else { return false };
            tally
        }
    };
    for count in counts {
        // SAFETY: a live per-CPU map value, and this CPU's programs each write counts of their own.
        unsafe { (*tally).bump(*count) };
    }
    true
}

/// The first event in a namespace.
#[inline(never)]
fn add(net: u64, id: NetnsId) -> Option<*mut NetnsTally> {
    let tally = NetnsTally::of(kernel::netns_inode(net)?);
    // Another CPU may have been first: that is as good.
    let _ = NETNS.insert(id, tally, u64::from(BPF_NOEXIST));
    NETNS.get_ptr_mut(id)
}

#[inline(always)]
fn host(change: impl FnOnce(&mut HostTally)) {
    if let Some(host) = HOST.get_ptr_mut(0) {
        // SAFETY: as in `bump`.
        change(unsafe { &mut *host });
    }
}
