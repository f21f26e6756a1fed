//! Every map write. Per-CPU counters only: nothing is sent to user space per event.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use ctwatch_ebpf::{Count, HostTally, MAX_NETNS, NetnsKey, NetnsTally};

use crate::kernel;

#[map]
static NETNS: PerCpuHashMap<NetnsKey, NetnsTally> = PerCpuHashMap::with_max_entries(MAX_NETNS, 0);

#[map]
static HOST: PerCpuArray<HostTally> = PerCpuArray::with_max_entries(1, 0);

static ZERO: NetnsTally = NetnsTally::zero();

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
        host(|host| host.unplaced_ends = host.unplaced_ends.wrapping_add(1));
    }
}

/// The slab allocator had no memory for a new entry.
#[inline(always)]
pub(crate) fn no_memory() {
    host(|host| host.no_memory = host.no_memory.wrapping_add(1));
}

/// False where the namespace cannot be named or the map has no room for it.
#[inline(always)]
fn bump(net: u64, counts: &[Count]) -> bool {
    let Some(key) = kernel::netns_key(net) else { return false };
    let tally = match NETNS.get_ptr_mut(key) {
        Some(tally) => tally,
        None => {
            // Another CPU may have been first: that is as good.
            let _ = NETNS.insert(key, ZERO, u64::from(BPF_NOEXIST));
            let Some(tally) = NETNS.get_ptr_mut(key) else { return false };
            tally
        }
    };
    for count in counts {
        // SAFETY: a live per-CPU map value, and this CPU's programs each write counts of their own.
        unsafe { (*tally).bump(*count) };
    }
    true
}

#[inline(always)]
fn host(change: impl FnOnce(&mut HostTally)) {
    if let Some(host) = HOST.get_ptr_mut(0) {
        // SAFETY: as in `bump`.
        change(unsafe { &mut *host });
    }
}
