//! The beginning and the end of an entry.

use aya_ebpf::EbpfContext;
use ctwatch_abi::{Count, HostCount};

use crate::{
    hooks::who,
    kernel::{Place, layout},
    tally::{self, Twin},
};

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_common.h>
pub(crate) const IPS_CONFIRMED: u64 = 1 << 3;

/// `__nf_conntrack_hash_insert(ct, …)`: all that is ever inserted goes through it, but for the
/// loser of a clash that is let in beside the winner (`clash_resolve` counts those).
#[inline(always)]
pub(crate) fn inserted(_ctx: &impl EbpfContext, ct: impl Place) -> Option<()> {
    let net = ct.follow(layout!(nf_conn_net))?;
    let netns = tally::count(net, &[Count::Inserted], HostCount::UnplacedInsertions)?;
    let _ = who::inserted(ct, netns);
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry was inserted");
    Some(())
}

/// The entry is given back to the allocator right after this, or (`told_late`) was right before.
/// For the first of two programs at the same place.
#[inline(always)]
pub(crate) fn freed(ctx: &impl EbpfContext, ct: impl Place, told_late: bool) {
    tally::end_once(Twin::One, ct, || {
        let counts = (Count::Removed, Count::NeverInserted, HostCount::UnplacedEnds);
        ended(ctx, ct, told_late, counts);
    });
}

/// For the second of two programs at the same place.
#[inline(always)]
pub(crate) fn freed_missed(ctx: &impl EbpfContext, ct: impl Place, told_late: bool) {
    tally::end_once(Twin::Other, ct, || {
        let unplaced = HostCount::UnplacedEndsMissed;
        ended(ctx, ct, told_late, (Count::RemovedMissed, Count::NeverInsertedMissed, unplaced));
    });
}

/// For the only program at its place.
#[inline(always)]
pub(crate) fn freed_once(ctx: &impl EbpfContext, ct: impl Place) {
    ended(ctx, ct, false, (Count::Removed, Count::NeverInserted, HostCount::UnplacedEnds));
}

/// Every entry that was in the table has `IPS_CONFIRMED`, which is never taken off again in this
/// life of it. An entry nobody refers to is free still; one that was taken again, or is just being
/// taken, is not to be known from one that was never confirmed.
#[inline(always)]
fn ended(
    _ctx: &impl EbpfContext,
    ct: impl Place,
    told_late: bool,
    (removed, never, unplaced): (Count, Count, HostCount),
) -> Option<()> {
    let status = ct.get::<u64>(layout!(nf_conn_status))?;
    let net = ct.follow(layout!(nf_conn_net))?;
    let inserted = status & IPS_CONFIRMED != 0;
    if told_late && (!inserted || ct.get::<u32>(layout!(nf_conn_use))? != 0) {
        tally::host(HostCount::DoubtfulEnds);
        return None;
    }
    tally::count(net, &[if inserted { removed } else { never }], unplaced);
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry ended, inserted: {}", inserted as u8);
    Some(())
}
