//! On the functions of conntrack, by name. At its return a function's arguments are gone, so the
//! probe at its entry keeps them.

use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use ctwatch_abi::HostCount;

use crate::{
    hooks::{entry, refusal},
    kernel::{Address, layout, read},
    tally::{self, Frame},
};

/// The functions whose calls are kept, as [`tally::enter`] wants them.
const EARLY_DROP: u64 = 1;
const CLASH: u64 = 3;
const CONFIRM: u64 = 5;

/// `int early_drop(struct net *net, unsigned int hash)`
#[kprobe]
pub(crate) fn kp_early_drop(ctx: ProbeContext) -> i32 {
    entered(&ctx, EARLY_DROP).unwrap_or(0)
}

#[kretprobe]
#[expect(clippy::cast_possible_truncation, reason = "the low half is the argument")]
pub(crate) fn kr_early_drop(ctx: RetProbeContext) -> i32 {
    let frame = |stack| Some((tally::leave(EARLY_DROP, stack)?, stack));
    match stack(&ctx).and_then(frame) {
        Some((Frame(net, hash), stack)) => {
            refusal::early_dropped(&ctx, Address(net), hash as u32, ctx.ret(), Address(stack));
        }
        None => tally::host(HostCount::UnpairedRefusals),
    }
    0
}

/// `int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32 reply_hash)`
#[kprobe]
pub(crate) fn kp_clash(ctx: ProbeContext) -> i32 {
    entered(&ctx, CLASH).unwrap_or(0)
}

#[kretprobe]
pub(crate) fn kr_clash(ctx: RetProbeContext) -> i32 {
    match left(&ctx, CLASH) {
        Some(Frame(skb, there)) => refusal::clashed(&ctx, skb, there, ctx.ret()),
        None => tally::host(HostCount::UnpairedClashes),
    }
    0
}

/// `int __nf_conntrack_confirm(struct sk_buff *skb)`
#[kprobe]
pub(crate) fn kp_confirming(ctx: ProbeContext) -> i32 {
    entered(&ctx, CONFIRM).unwrap_or(0)
}

/// Whoever is traced and was missed is missed.
#[kretprobe]
pub(crate) fn kr_confirmed(ctx: RetProbeContext) -> i32 {
    if let Some(Frame(skb, _)) = left(&ctx, CONFIRM) {
        refusal::confirmed(skb, ctx.ret());
    }
    0
}

/// `void __nf_conntrack_hash_insert(struct nf_conn *ct, …)`
#[kprobe]
pub(crate) fn kp_inserted(ctx: ProbeContext) -> i32 {
    if let Some(ct) = ctx.arg(0) {
        let _ = entry::inserted(&ctx, Address(ct));
    }
    0
}

/// `void nf_conntrack_free(struct nf_conn *ct)`
///
/// One program and not two: while any kprobe's runs on a CPU, the kernel runs no other there.
#[kprobe]
pub(crate) fn kp_freed(ctx: ProbeContext) -> i32 {
    if let Some(ct) = ctx.arg(0) {
        entry::freed_once(&ctx, Address(ct));
    }
    0
}

/// Keeps the first two arguments.
#[inline(always)]
fn entered(ctx: &ProbeContext, function: u64) -> Option<i32> {
    let frame = Frame(ctx.arg(0)?, ctx.arg(1)?);
    tally::enter(function, stack(ctx)?, frame);
    Some(0)
}

#[inline(always)]
fn left(ctx: &RetProbeContext, function: u64) -> Option<Frame> {
    tally::leave(function, stack(ctx)?)
}

#[inline(always)]
fn stack(ctx: &impl EbpfContext) -> Option<u64> {
    read(ctx.as_ptr() as u64, layout!(pt_regs_sp))
}
