//! On the functions of conntrack, by BTF.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::{
    hooks::{entry, refusal, who},
    kernel::{Typed, argument, low, read},
    tally,
};

/// `struct nf_conn *__nf_conntrack_alloc(struct net *net, const struct nf_conntrack_zone *zone,
/// const struct nf_conntrack_tuple *orig, const struct nf_conntrack_tuple *repl, gfp_t gfp, u32 hash)`
#[fexit(function = "__nf_conntrack_alloc")]
pub(crate) fn fx_allocated(ctx: FExitContext) -> i32 {
    if is_error(argument(&ctx, 6)) {
        let (net, original) = (Typed::argument(&ctx, 0), Typed::argument(&ctx, 2));
        let hash = low(argument(&ctx, 5));
        let _ = refusal::not_allocated(&ctx, net, original, hash, Typed::context(&ctx));
    }
    0
}

/// `int early_drop(struct net *net, unsigned int hash)`: only where a table is full.
#[fentry(function = "early_drop")]
pub(crate) fn fx_full(_: FEntryContext) -> i32 {
    tally::full();
    0
}

/// `int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32 reply_hash)`
#[fexit(function = "nf_ct_resolve_clash")]
pub(crate) fn fx_clash(ctx: FExitContext) -> i32 {
    if let Some([skb, there, _, verdict]) = arguments(&ctx) {
        refusal::clashed(&ctx, skb, there, low(verdict));
    }
    0
}

/// `int __nf_conntrack_confirm(struct sk_buff *skb)`
#[fentry(function = "__nf_conntrack_confirm")]
pub(crate) fn fx_confirming(ctx: FEntryContext) -> i32 {
    let _ = who::confirming(Typed::argument(&ctx, 0));
    0
}

/// As [`fx_confirming`], at its end.
#[fexit(function = "__nf_conntrack_confirm")]
pub(crate) fn fx_confirmed(ctx: FExitContext) -> i32 {
    if let Some([skb, verdict]) = arguments(&ctx) {
        refusal::confirmed(skb, low(verdict));
    }
    0
}

/// `void __nf_conntrack_hash_insert(struct nf_conn *ct, …)`
#[fentry(function = "__nf_conntrack_hash_insert")]
pub(crate) fn fx_inserted(ctx: FEntryContext) -> i32 {
    let _ = entry::inserted(&ctx, Typed::argument(&ctx, 0));
    0
}

/// `void nf_conntrack_free(struct nf_conn *ct)`
#[fentry(function = "nf_conntrack_free")]
pub(crate) fn fx_freed(ctx: FEntryContext) -> i32 {
    entry::freed(&ctx, Typed::argument(&ctx, 0), false);
    0
}

/// As [`fx_freed`], beside it: for what that was not run for.
#[fentry(function = "nf_conntrack_free")]
pub(crate) fn fx_freed_missed(ctx: FEntryContext) -> i32 {
    entry::freed_missed(&ctx, Typed::argument(&ctx, 0), false);
    0
}

/// An error number where a pointer is expected.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/err.h>
#[inline(always)]
fn is_error(pointer: u64) -> bool {
    const MAX_ERRNO: u64 = 4095;
    pointer >= MAX_ERRNO.wrapping_neg()
}

/// As plain numbers: of what the verifier takes for pointers not everything can be asked.
#[inline(always)]
fn arguments<const N: usize>(ctx: &impl EbpfContext) -> Option<[u64; N]> {
    read(ctx.as_ptr() as u64, 0)
}
