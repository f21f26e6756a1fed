//! `kmem:kmem_cache_alloc` and `kmem:kmem_cache_free`: the birth and the end of entries, on
//! kernels whose functions cannot be hooked.
//!
//! These run for every slab object of the machine, so the first thing is a comparison of the
//! caller's address, and almost always the last.

use aya_ebpf::programs::RawTracePointContext;
use ctwatch_ebpf::Count;

use crate::{
    hooks::kfree_skb::IPS_CONFIRMED,
    kernel::{layout, read},
    tally,
};

/// The namespace of an entry is not known yet when its memory is handed out (and the arguments do
/// not say it), so only a refusal is counted, for the machine.
#[inline(always)]
pub(crate) fn allocated(_ctx: &RawTracePointContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_alloc).contains(call_site) && object == 0 {
        tally::no_memory();
        #[cfg(feature = "talk")]
        aya_log_ebpf::debug!(_ctx, "no memory for an entry");
    }
}

#[inline(always)]
pub(crate) fn freed(ctx: &RawTracePointContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        entry_ended(ctx, object);
    }
}

/// The object still holds its entry: it is given back right after this. Every entry that was in
/// the table has `IPS_CONFIRMED`, which is never taken off again.
#[inline(always)]
fn entry_ended(_ctx: &RawTracePointContext, ct: u64) -> Option<()> {
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    let inserted = status & IPS_CONFIRMED != 0;
    tally::ended(net, if inserted { Count::Removed } else { Count::NeverInserted });
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "an entry ended, inserted: {}", inserted as u8);
    Some(())
}
