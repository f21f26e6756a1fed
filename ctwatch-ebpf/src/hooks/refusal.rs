//! The places where conntrack refuses a packet, by what they answer.

use aya_ebpf::EbpfContext;
use ctwatch_abi::{Count, HostCount, top::Stream, trace::Reason};

use crate::{
    hooks::{
        entry::IPS_CONFIRMED,
        kfree_skb::{IPS_NAT_MASK, entry_of},
        tell, who,
    },
    kernel::{self, Address, Place, layout, read},
    tally::{self, Announcement},
};

/// What a hook answers for "drop it".
const NF_DROP: u32 = 0;

/// `early_drop(net, hash)` looked for an entry to throw out and answered whether it did: 0 is
/// exactly one refusal. It is called only above the limit. ctnetlink has no hash to begin at. `stack` is
/// below the frames of those who called it.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
#[inline(always)]
pub(crate) fn early_dropped(
    _ctx: &impl EbpfContext,
    net: impl Place,
    hash: u32,
    evicted: u32,
    stack: impl Place,
) {
    if evicted != 0 {
        return;
    }
    if hash == 0 {
        tally::count(net, &[Count::TableFullCtnetlink], HostCount::UnplacedRefusals);
        return;
    }
    tally::count(net, &[Count::TableFull], HostCount::UnplacedRefusals);
    if layout!(top_sets) != 0 || tell::is_on() {
        let weight = tally::told_apart(Stream::Drops).unwrap_or(0);
        tally::announce(net, stack, Announcement { weight, is_listed: false });
    }
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "refused: the table is full");
}

/// `__nf_conntrack_alloc(net, zone, orig, repl, gfp, hash)` answered with no entry: the table is full, or
/// there is no memory. Its arguments tell whose packet it was; ctnetlink has no hash. `stack` as above.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
#[inline(always)]
pub(crate) fn not_allocated(
    _ctx: &impl EbpfContext,
    net: impl Place,
    original: impl Place,
    hash: u32,
    stack: impl Place,
) -> Option<()> {
    // The one reason is told from the other by what happened just before. For want of memory and
    // nothing else: the counters tell how many those are.
    let is_doubtful = tally::was_short_of_memory();
    if is_doubtful && !tally::was_full() {
        return None;
    }
    let unplaced = HostCount::UnplacedRefusals;
    let netns = match (hash, is_doubtful) {
        (0, _) => {
            tally::count(net, &[Count::TableFullCtnetlink], unplaced);
            return None;
        }
        (_, false) => tally::count(net, &[Count::TableFull], unplaced)?,
        (_, true) => tally::count(net, &[Count::TableFull, Count::FullOrNoMemory], unplaced)?,
    };
    let _ = who::plane_of_tuple(original, netns);
    let weight = tally::told_apart(Stream::Drops).unwrap_or(0);
    if weight != 0 {
        let _ = who::refused_tuple(original, netns, weight);
    }
    if weight != 0 || tell::is_on() {
        tally::announce(net, stack, Announcement { weight, is_listed: true });
    }
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "refused: the table is full");
    Some(())
}

/// `nf_ct_resolve_clash(skb, h, reply_hash)` is called at confirmation when one of the two tuples
/// of the packet's entry is in the table already, `h` being what is there. Its answer `NF_DROP` is
/// exactly one refusal.
#[inline(always)]
pub(crate) fn clashed(ctx: &impl EbpfContext, skb: u64, there: u64, verdict: u32) {
    if verdict == NF_DROP {
        let _ = lost(ctx, skb, there);
    }
}

#[inline(always)]
fn lost(_ctx: &impl EbpfContext, skb: u64, there: u64) -> Option<()> {
    let ct = entry_of(read::<u64>(skb, layout!(skb_nfct))?)?;
    if tell::is_on() {
        tally::mark_lost(ct);
    }
    let taken = tuple(there, layout!(hash_tuple))?;
    let count = if taken == tuple(ct, layout!(nf_conn_original))? {
        Count::Clash
    } else if taken == tuple(ct, layout!(nf_conn_reply))? {
        let status = read::<u64>(ct, layout!(nf_conn_status))?;
        if status & IPS_NAT_MASK == 0 { Count::Clash } else { Count::NatExhausted }
    } else {
        // Neither: then these are not the arguments that are meant. The counters will say so.
        return None;
    };
    let net = Address(read(ct, layout!(nf_conn_net))?);
    let netns = tally::count(net, &[count], HostCount::UnplacedClashes)?;
    let reason = if count == Count::Clash { Reason::Clash } else { Reason::NatExhausted };
    let _ = who::refused_with(skb, ct, (net, netns), reason);
    #[cfg(feature = "talk")]
    aya_log_ebpf::debug!(_ctx, "refused at confirmation: {}", count as u32);
    Some(())
}

/// Somebody flushed the table while the packet was on its way.
const IPS_DYING: u64 = 1 << 9;

/// `__nf_conntrack_confirm(skb)` did not put the packet's entry into the table. Where no clash was
/// the reason, its chain was too long. It has a counter of its own, so this is for traces only.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
#[inline(always)]
pub(crate) fn confirmed(skb: u64, verdict: u32) {
    if verdict == NF_DROP {
        let _ = unconfirmed(skb);
    }
}

#[inline(always)]
fn unconfirmed(skb: u64) -> Option<()> {
    let ct = entry_of(read::<u64>(skb, layout!(skb_nfct))?)?;
    let status = read::<u64>(ct, layout!(nf_conn_status))?;
    if tally::take_lost(ct) || status & (IPS_CONFIRMED | IPS_DYING) != 0 {
        return None;
    }
    let net = Address(read(ct, layout!(nf_conn_net))?);
    who::refused_with(skb, ct, (net, kernel::netns_id(net)?), Reason::ChainTooLong)
}

/// A `struct nf_conntrack_tuple`, 40 bytes without a gap, but for the direction in its last one:
/// what `nf_ct_tuple_equal` compares.
#[inline(always)]
fn tuple(base: u64, offset: u32) -> Option<[u64; 5]> {
    let mut tuple = read::<[u64; 5]>(base, offset)?;
    tuple[4] = u64::from_le(tuple[4]) & (u64::MAX >> 8);
    Some(tuple)
}
