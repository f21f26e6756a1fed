//! `kmem:kmem_cache_free`: the end of entries, on kernels whose functions cannot be hooked, and
//! `kmem:mm_page_alloc`: proof that there was memory for new ones.
//!
//! The first runs for every slab object of the machine, so it begins with a comparison of the
//! caller's address, and almost always ends with it.

use aya_ebpf::EbpfContext;
use ctwatch_abi::HostCount;

use crate::{
    hooks::entry,
    kernel::{Address, layout},
    tally,
};

#[inline(always)]
pub(crate) fn freed(ctx: &impl EbpfContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        entry::freed(ctx, Address(object), layout!(freed_before_told) != 0);
    }
}

#[inline(always)]
pub(crate) fn freed_missed(ctx: &impl EbpfContext, call_site: u64, object: u64) {
    if layout!(nf_conntrack_free).contains(call_site) {
        entry::freed_missed(ctx, Address(object), layout!(freed_before_told) != 0);
    }
}

/// `__GFP_HIGH`: of `GFP_ATOMIC`, with which conntrack allocates, and of little else.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/gfp_types.h>
const GFP_HIGH: u32 = 0x20;

/// The slab allocator refuses an object only after the page allocator refused it a single page
/// (its last, smallest try), with the flags of who asked. Watching for that costs a fraction of
/// watching every allocation. Without the flag it was somebody who can do without: since 6.15 the
/// kernel's own tries that must not wait for a lock fail often, and mean nothing.
#[inline(always)]
pub(crate) fn page_allocated(_ctx: &impl EbpfContext, page: u64, order: u32, gfp: u32) {
    if page == 0 && order == 0 && gfp & GFP_HIGH != 0 {
        tally::host(HostCount::NoMemory);
        tally::short_of_memory();
        #[cfg(feature = "talk")]
        aya_log_ebpf::debug!(_ctx, "the page allocator had not a single page");
    }
}
