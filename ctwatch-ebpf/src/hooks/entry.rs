//! The beginning and the end of an entry.

use aya_ebpf::EbpfContext;
use ctwatch_ebpf::{Count, HostCount};

use crate::{
    kernel::{layout, read},
    tally,
};

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_common.h>
pub(crate) const IPS_CONFIRMED: u64 = 1 << 3;

/// `__nf_conntrack_hash_insert(ct, …)`: all that is ever inserted goes through it, but for the
/// loser of a clash that is let in beside the winner (`clash_resolve` counts those).
#[inline(always)]
pub(crate) fn inserted(_ctx: &impl EbpfContext, ct: u64) -> Option<()> {
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    tally::count(net, &[Count::Inserted], HostCount::UnplacedInsertions);
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry was inserted");
    Some(())
}

/// The entry is given back to the allocator right after this.
#[inline(always)]
pub(crate) fn freed(ctx: &impl EbpfContext, ct: u64) {
    tally::mark(ct);
    ended(ctx, ct, Count::Removed, Count::NeverInserted, HostCount::UnplacedEnds);
}

/// As [`freed`], of a program that is attached after it: for what that was not run for.
#[inline(always)]
pub(crate) fn freed_missed(ctx: &impl EbpfContext, ct: u64) {
    if !tally::take_mark(ct) {
        let unplaced = HostCount::UnplacedEndsMissed;
        ended(ctx, ct, Count::RemovedMissed, Count::NeverInsertedMissed, unplaced);
    }
}

/// Every entry that was in the table has `IPS_CONFIRMED`, which is never taken off again.
#[inline(always)]
fn ended(
    _ctx: &impl EbpfContext,
    ct: u64,
    removed: Count,
    never: Count,
    unplaced: HostCount,
) -> Option<()> {
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    let inserted = status & IPS_CONFIRMED != 0;
    tally::count(net, &[if inserted { removed } else { never }], unplaced);
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry ended, inserted: {}", inserted as u8);
    Some(())
}
