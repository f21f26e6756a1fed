//! The programs in the kernel: entry points only. Each finds its arguments and calls inward.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod tally;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

    use crate::hooks::{kfree_skb, kmem};

    /// `TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason, …)`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/skb.h>
    #[raw_tracepoint(tracepoint = "kfree_skb")]
    pub(crate) fn dropped(ctx: RawTracePointContext) -> i32 {
        kfree_skb::dropped(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
        0
    }

    /// `TP_PROTO(unsigned long call_site, const void *ptr, …)`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/kmem.h>
    #[raw_tracepoint(tracepoint = "kmem_cache_free")]
    pub(crate) fn freed(ctx: RawTracePointContext) -> i32 {
        kmem::freed(&ctx, ctx.arg(0), ctx.arg(1));
        0
    }

    /// As [`freed`], and attached after it: for what that was not run for.
    #[raw_tracepoint(tracepoint = "kmem_cache_free")]
    pub(crate) fn freed_missed(ctx: RawTracePointContext) -> i32 {
        kmem::freed_missed(&ctx, ctx.arg(0), ctx.arg(1));
        0
    }

    /// `TP_PROTO(struct page *page, unsigned int order, …)`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/kmem.h>
    #[raw_tracepoint(tracepoint = "mm_page_alloc")]
    pub(crate) fn page_allocated(ctx: RawTracePointContext) -> i32 {
        kmem::page_allocated(&ctx, ctx.arg(0), ctx.arg(1));
        0
    }

    /// `bpf_probe_read_kernel` and the raw tracepoints are for GPL-compatible programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

/// On the host this target is empty: it exists so that the workspace builds as one.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
