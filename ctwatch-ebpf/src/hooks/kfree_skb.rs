//! `skb:kfree_skb`: packets that a netfilter hook dropped.
//!
//! `nf_hook_slow` frees the packet of every hook that answered `NF_DROP`, so this sees the drops
//! of conntrack and those of rules alike. What the packet carries tells some of them apart:
//! nothing attached means "before conntrack had an entry for it", an unconfirmed entry means
//! "new, and refused at confirmation or by a rule". The rest is told from the kernel's own
//! counters, in user space.

use aya_ebpf::programs::RawTracePointContext;
use ctwatch_ebpf::Count;

use crate::{
    kernel::{layout, read},
    tally,
};

/// The low bits of `skb->_nfct` hold the state (`NFCT_INFOMASK`), the rest is the entry.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/skbuff.h>
const NFCT_INFOMASK: u64 = 7;
/// `IP_CT_UNTRACKED`: a rule said notrack; conntrack had no part in it.
const IP_CT_UNTRACKED: u64 = 7;
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_common.h>
pub(crate) const IPS_CONFIRMED: u64 = 1 << 3;
const IPS_NAT_MASK: u64 = 1 << 4 | 1 << 5;

#[inline(always)]
pub(crate) fn dropped(ctx: &RawTracePointContext, skb: u64, location: u64, reason: u32) {
    if reason == layout!(netfilter_drop) && layout!(nf_hook_slow).contains(location) {
        classify(ctx, skb);
    }
}

#[inline(always)]
fn classify(ctx: &RawTracePointContext, skb: u64) -> Option<()> {
    let nfct = read::<u64>(skb, layout!(skb_nfct))?;
    if nfct == 0 {
        tally::dropped(net_of(skb)?, Count::DroppedUntracked);
        talk(ctx, "dropped with no conntrack attached");
        return Some(());
    }
    let ct = nfct & !NFCT_INFOMASK;
    if ct == 0 || nfct & NFCT_INFOMASK == IP_CT_UNTRACKED {
        return None;
    }
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    if status & IPS_CONFIRMED != 0 {
        return None;
    }
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    if status & IPS_NAT_MASK != 0 {
        tally::dropped_after_nat(net);
    } else {
        tally::dropped(net, Count::DroppedUnconfirmed);
    }
    talk(ctx, "dropped with an unconfirmed entry");
    Some(())
}

/// The `struct net *` a packet is in. The socket first: on its way out `skb->dev` is not set yet,
/// and for TCP that same memory still holds a link of the retransmit queue's tree.
#[inline(always)]
fn net_of(skb: u64) -> Option<u64> {
    let [dev, sk] = read::<[u64; 2]>(skb, layout!(skb_dev_sk))?;
    if sk != 0 { read(sk, layout!(sock_net)) } else { read(dev, layout!(net_device_nd_net)) }
}

#[inline(always)]
fn talk(_ctx: &RawTracePointContext, _what: &str) {
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "{}", _what);
}
