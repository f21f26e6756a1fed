//! On the kernel's generic tracepoints.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    hooks::{kfree_skb, kmem, loading},
    kernel::{Address, Typed, argument, low},
};

/// `TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason, …)`
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/skb.h>
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn dropped(ctx: BtfTracePointContext) -> i32 {
    kfree_skb::dropped(&ctx, Typed::argument(&ctx, 0), argument(&ctx, 1), low(argument(&ctx, 2)));
    0
}

/// Of older kernels, whose tracepoint gives no reason and refuses a program that asks for it.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn dropped_bare(ctx: BtfTracePointContext) -> i32 {
    kfree_skb::dropped_for_any_reason(&ctx, Typed::argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// As the two above, where the kernel takes no program that knows its types.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn dropped_raw(ctx: RawTracePointContext) -> i32 {
    kfree_skb::dropped(&ctx, Address(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn dropped_bare_raw(ctx: RawTracePointContext) -> i32 {
    kfree_skb::dropped_for_any_reason(&ctx, Address(ctx.arg(0)), ctx.arg(1));
    0
}

/// Beside hooks on functions: they know that a packet is refused, this knows which.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn refused(ctx: BtfTracePointContext) -> i32 {
    let (skb, location) = (Typed::argument(&ctx, 0), argument(&ctx, 1));
    let _ = kfree_skb::dropped_as_announced(skb, location, low(argument(&ctx, 2)));
    0
}

/// Of older kernels, as [`dropped_bare`].
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn refused_bare(ctx: BtfTracePointContext) -> i32 {
    let _ = kfree_skb::dropped_as_announced_bare(Typed::argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// As [`dropped_raw`].
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn refused_raw(ctx: RawTracePointContext) -> i32 {
    let _ = kfree_skb::dropped_as_announced(Address(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn refused_bare_raw(ctx: RawTracePointContext) -> i32 {
    let _ = kfree_skb::dropped_as_announced_bare(Address(ctx.arg(0)), ctx.arg(1));
    0
}

/// `TP_PROTO(unsigned long call_site, const void *ptr, …)`
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/kmem.h>
#[raw_tracepoint(tracepoint = "kmem_cache_free")]
pub(crate) fn freed(ctx: RawTracePointContext) -> i32 {
    kmem::freed(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// As [`freed`], beside it: for what that was not run for.
#[raw_tracepoint(tracepoint = "kmem_cache_free")]
pub(crate) fn freed_missed(ctx: RawTracePointContext) -> i32 {
    kmem::freed_missed(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// `TP_PROTO(struct page *page, unsigned int order, gfp_t gfp_flags, …)`
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/kmem.h>
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
pub(crate) fn page_allocated(ctx: RawTracePointContext) -> i32 {
    kmem::page_allocated(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `TP_PROTO(char *name, bool wait, unsigned long ip)`
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/module.h>
#[raw_tracepoint(tracepoint = "module_request")]
pub(crate) fn module_asked(ctx: RawTracePointContext) -> i32 {
    loading::asked(ctx.arg(0));
    0
}

/// `TP_PROTO(struct module *mod)`
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/module.h>
#[raw_tracepoint(tracepoint = "module_load")]
pub(crate) fn module_loaded(ctx: RawTracePointContext) -> i32 {
    loading::loaded(ctx.arg(0));
    0
}
