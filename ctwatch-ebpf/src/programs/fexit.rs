//! On the functions of conntrack, by BTF.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::{
    hooks::{entry, refusal, who},
    kernel::{Typed, argument, read},
};

/// `int early_drop(struct net *net, unsigned int hash)`
#[fexit(function = "early_drop")]
pub(crate) fn fx_early_drop(ctx: FExitContext) -> i32 {
    let (hash, evicted) = (low(argument(&ctx, 1)), low(argument(&ctx, 2)));
    refusal::early_dropped(&ctx, Typed::argument(&ctx, 0), hash, evicted, Typed::context(&ctx));
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

/// As plain numbers: of what the verifier takes for pointers not everything can be asked.
#[inline(always)]
fn arguments<const N: usize>(ctx: &impl EbpfContext) -> Option<[u64; N]> {
    read(ctx.as_ptr() as u64, 0)
}

/// An argument or answer of 32 bits; what the others hold is not said.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what is wanted")]
fn low(register: u64) -> u32 {
    register as u32
}
