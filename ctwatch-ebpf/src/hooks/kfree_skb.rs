//! `skb:kfree_skb`: packets that a netfilter hook dropped.
//!
//! `nf_hook_slow` frees the packet of every hook that answered `NF_DROP`, so this sees the drops
//! of conntrack and those of rules alike. What the packet carries tells some of them apart:
//! nothing attached means "before conntrack had an entry for it", an unconfirmed entry means
//! "new, and refused at confirmation or by a rule". The rest is told from the kernel's own
//! counters, in user space.

use aya_ebpf::EbpfContext;
use ctwatch_abi::{Count, HostCount, top::Stream, trace::Reason};

use crate::{
    hooks::{entry::IPS_CONFIRMED, tell, who},
    kernel::{self, Address, Place, layout, read},
    tally::{self, Announcement},
};

/// The low bits of `skb->_nfct` hold the state (`NFCT_INFOMASK`), the rest is the entry.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/skbuff.h>
const NFCT_INFOMASK: u64 = 7;
/// `IP_CT_UNTRACKED`: a rule said notrack; conntrack had no part in it.
const IP_CT_UNTRACKED: u64 = 7;
pub(crate) const IPS_NAT_MASK: u64 = 1 << 4 | 1 << 5;

/// The entry that `skb->_nfct` holds, if it holds one.
#[inline(always)]
pub(crate) fn entry_of(nfct: u64) -> Option<u64> {
    let ct = nfct & !NFCT_INFOMASK;
    (ct != 0 && nfct & NFCT_INFOMASK != IP_CT_UNTRACKED).then_some(ct)
}

#[inline(always)]
pub(crate) fn dropped(ctx: &impl EbpfContext, skb: impl Place, location: u64, reason: u32) {
    if reason == layout!(netfilter_drop) {
        dropped_for_any_reason(ctx, skb, location);
    }
}

/// Where the kernel does not give a reason, the place tells as much.
#[inline(always)]
pub(crate) fn dropped_for_any_reason(ctx: &impl EbpfContext, skb: impl Place, location: u64) {
    if layout!(nf_hook_slow).contains(location) {
        let _ = classify(ctx, skb);
    }
}

/// As below; and dropped by netfilter, where the kernel says why: a packet that is dropped for
/// anything else on that CPU has nothing to do with it.
#[inline(always)]
pub(crate) fn dropped_as_announced(skb: impl Place, location: u64, reason: u32) -> Option<()> {
    match reason == layout!(netfilter_drop) {
        true => dropped_as_announced_bare(skb, location),
        false => None,
    }
}

/// The packet of a refusal that a hook on a function of conntrack has announced: the same CPU, a moment
/// ago, the same namespace, nothing attached, and dropped by the function that had conntrack look at it.
#[inline(always)]
pub(crate) fn dropped_as_announced_bare(skb: impl Place, location: u64) -> Option<()> {
    let net = tally::announced()?;
    if skb.get::<u64>(layout!(skb_nfct))? != 0 {
        return None;
    }
    let of = net_of(skb)?;
    // Before they are compared: of two equal ones the compiler takes either, and only one has a type.
    let netns = kernel::netns_id(of)?;
    if of.address() != net {
        return None;
    }
    let Announcement { weight, is_listed } = tally::take_announced(location)?;
    if !is_listed {
        let _ = who::plane_of_packet(skb, netns);
    } else if weight != 0 {
        who::came(skb.address(), netns, weight);
    }
    let weight = if is_listed { 0 } else { weight };
    if weight != 0 || tell::is_on() {
        who::refused(skb.address(), net, netns, Reason::TableFull, weight);
    }
    Some(())
}

#[inline(always)]
fn classify(ctx: &impl EbpfContext, skb: impl Place) -> Option<()> {
    let nfct = skb.get::<u64>(layout!(skb_nfct))?;
    if nfct == 0 {
        let net = net_of(skb)?;
        let netns = tally::count(net, &[Count::DroppedUntracked], HostCount::UnplacedDrops)?;
        let _ = who::plane_of_packet(skb, netns);
        let weight = tally::told_apart(Stream::Drops).unwrap_or(0);
        if weight != 0 || tell::is_on() {
            who::refused(skb.address(), net.address(), netns, Reason::Untracked, weight);
        }
        talk(ctx, "dropped with no conntrack attached");
        return Some(());
    }
    let ct = entry_of(nfct)?;
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    if status & IPS_CONFIRMED != 0 {
        return None;
    }
    let net = Address(read(ct, layout!(nf_conn_net))?);
    let counts: &[Count] = if status & IPS_NAT_MASK == 0 {
        &[Count::DroppedUnconfirmed]
    } else {
        &[Count::DroppedUnconfirmed, Count::DroppedUnconfirmedNat]
    };
    let netns = tally::count(net, counts, HostCount::UnplacedDrops)?;
    let _ = who::refused_with(skb.address(), ct, (net, netns), Reason::Unconfirmed);
    talk(ctx, "dropped with an unconfirmed entry");
    Some(())
}

/// The `struct net *` a packet is in. The socket first: on its way out `skb->dev` is not set yet,
/// and for TCP that same memory still holds a link of the retransmit queue's tree.
#[inline(always)]
fn net_of<P: Place>(skb: P) -> Option<P> {
    let sk = skb.follow(layout!(skb_dev_sk) + 8)?;
    if sk.address() != 0 {
        return sk.follow(layout!(sock_net));
    }
    skb.follow(layout!(skb_dev_sk))?.follow(layout!(net_device_nd_net))
}

#[inline(always)]
fn talk(_ctx: &impl EbpfContext, _what: &str) {
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "{}", _what);
}
