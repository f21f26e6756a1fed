//! `kmem:kmem_cache_free`: the end of entries, on kernels whose functions cannot be hooked, and
//! `kmem:mm_page_alloc`: proof that there was memory for new ones.
//!
//! The first runs for every slab object of the machine, so it begins with a comparison of the
//! caller's address, and almost always ends with it.

use aya_ebpf::EbpfContext;
use ctwatch_ebpf::HostCount;

use crate::{hooks::entry, kernel::layout, tally};

#[inline(always)]
pub(crate) fn freed(ctx: &impl EbpfContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        entry::freed(ctx, object, layout!(freed_before_told) != 0);
    }
}

#[inline(always)]
pub(crate) fn freed_missed(ctx: &impl EbpfContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        entry::freed_missed(ctx, object, layout!(freed_before_told) != 0);
    }
}

/// The slab allocator refuses an object only after the page allocator refused it a single page
/// (its last, smallest try). Watching for that costs a fraction of watching every allocation.
#[inline(always)]
pub(crate) fn page_allocated(_ctx: &impl EbpfContext, page: u64, order: u32) {
    if page == 0 && order == 0 {
        tally::host(HostCount::NoMemory);
        #[cfg(feature = "talk")]
        aya_log_ebpf::debug!(_ctx, "the page allocator had not a single page");
    }
}
