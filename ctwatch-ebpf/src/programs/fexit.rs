//! On the functions of conntrack, by BTF: the kernel hands over an array of the arguments, with
//! the answer behind the last one.
//!
//! It is read as memory: what the verifier takes for a pointer it lets nobody calculate with, and
//! the helper that reads the answer came only with Linux 5.17.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::{
    hooks::{entry, refusal, who},
    kernel::read,
};

/// `int early_drop(struct net *net, unsigned int hash)`
#[fexit(function = "early_drop")]
pub(crate) fn fx_early_drop(ctx: FExitContext) -> i32 {
    if let Some([net, hash, evicted]) = arguments(&ctx) {
        refusal::early_dropped(&ctx, net, low(hash), low(evicted));
    }
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
    if let Some([skb]) = arguments(&ctx) {
        let _ = who::confirming(skb);
    }
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
    if let Some([ct]) = arguments(&ctx) {
        let _ = entry::inserted(&ctx, ct);
    }
    0
}

/// `void nf_conntrack_free(struct nf_conn *ct)`
#[fentry(function = "nf_conntrack_free")]
pub(crate) fn fx_freed(ctx: FEntryContext) -> i32 {
    if let Some([ct]) = arguments(&ctx) {
        entry::freed(&ctx, ct, false);
    }
    0
}

/// As [`fx_freed`], beside it: for what that was not run for.
#[fentry(function = "nf_conntrack_free")]
pub(crate) fn fx_freed_missed(ctx: FEntryContext) -> i32 {
    if let Some([ct]) = arguments(&ctx) {
        entry::freed_missed(&ctx, ct, false);
    }
    0
}

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
