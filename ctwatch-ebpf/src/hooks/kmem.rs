//! `kmem:kmem_cache_free`: the end of entries, on kernels whose functions cannot be hooked, and
//! `kmem:mm_page_alloc`: proof that there was memory for new ones.
//!
//! The first runs for every slab object of the machine, so it begins with a comparison of the
//! caller's address, and almost always ends with it.

use aya_ebpf::programs::RawTracePointContext;
use ctwatch_ebpf::Count;

use crate::{
    hooks::kfree_skb::IPS_CONFIRMED,
    kernel::{layout, read},
    tally,
};

#[inline(always)]
pub(crate) fn freed(ctx: &RawTracePointContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        tally::mark(object);
        entry_ended(ctx, object, Count::Removed, Count::NeverInserted);
    }
}

#[inline(always)]
pub(crate) fn freed_missed(ctx: &RawTracePointContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) && !tally::take_mark(object) {
        entry_ended(ctx, object, Count::RemovedMissed, Count::NeverInsertedMissed);
    }
}

/// The object still holds its entry: it is given back right after this. Every entry that was in
/// the table has `IPS_CONFIRMED`, which is never taken off again.
#[inline(always)]
fn entry_ended(_ctx: &RawTracePointContext, ct: u64, removed: Count, never: Count) -> Option<()> {
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    let inserted = status & IPS_CONFIRMED != 0;
    tally::ended(net, if inserted { removed } else { never });
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry ended, inserted: {}", inserted as u8);
    Some(())
}

/// The slab allocator refuses an object only after the page allocator refused it a single page
/// (its last, smallest try). Watching for that costs a fraction of watching every allocation.
#[inline(always)]
pub(crate) fn page_allocated(_ctx: &RawTracePointContext, page: u64, order: u32) {
    if page == 0 && order == 0 {
        tally::no_memory();
        #[cfg(feature = "talk")]
        aya_log_ebpf::debug!(_ctx, "the page allocator had not a single page");
    }
}
