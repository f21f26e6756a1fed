//! A walk through the table of all namespaces, some chains at a time, without a lock.
//!
//! Entries come and go meanwhile, and an entry's memory may begin another life in another chain
//! while it is looked at (`SLAB_TYPESAFE_BY_RCU`). The end of each chain says which bucket it
//! belongs to, so that is noticed, as it is in the kernel's own lookups.
//! <https://github.com/torvalds/linux/blob/v6.12/include/linux/list_nulls.h>

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::{bpf_jiffies64, bpf_probe_read_kernel},
    macros::map,
    maps::Array,
};
use ctwatch_abi::census::{Cursor, ENTRY, LONGEST, Peek, RECORDS, Record, STEPS};

use crate::kernel::{self, Address, layout, read};

#[map]
static CENSUS: Array<Cursor> = Array::with_max_entries(1, 0);

#[map]
static PEEK: Array<Peek> = Array::with_max_entries(1, 0);

/// User space makes room for more where it wants a census.
#[map]
static HELD: Array<Record> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// One run.
#[inline(always)]
pub(crate) fn walk() -> Option<()> {
    let cursor = CENSUS.get_ptr_mut(0)?;
    // SAFETY: a live map value, and nobody else runs this program.
    let cursor = unsafe { &mut *cursor };
    let table = read::<u64>(cursor.table_at, 0)?;
    let buckets = u64::from(read::<u32>(cursor.size_at, 0)?);
    if cursor.table == 0 {
        cursor.table = table;
        cursor.buckets = buckets;
    } else if cursor.table != table || cursor.buckets != buckets {
        cursor.moved = 1;
        return None;
    }
    cursor.filled = 0;
    // SAFETY: it only reads a clock.
    cursor.jiffies = unsafe { bpf_jiffies64() };
    for _ in 0..STEPS {
        step(cursor)?;
    }
    Some(())
}

/// One entry, or the beginning of the next chain; `None` where this run ends.
#[inline(always)]
fn step(cursor: &mut Cursor) -> Option<()> {
    if cursor.in_chain == 0 {
        return next_chain(cursor);
    }
    let node = cursor.node;
    if node & 1 == 1 {
        if node >> 1 != cursor.bucket - 1 {
            cursor.strayed += 1;
        }
        return next_chain(cursor);
    }
    if cursor.filled >= u64::from(RECORDS) {
        return None;
    }
    // The links, then the tuple.
    let head = if cursor.chain < LONGEST { read::<[u64; 7]>(node, 0) } else { None };
    let Some(head) = head else {
        cursor.strayed += 1;
        cursor.in_chain = 0;
        return Some(());
    };
    cursor.node = head[0];
    cursor.chain += 1;
    // Each entry is in the table twice, once for each direction.
    let is_reply = head[6] >> 56 != 0;
    if !is_reply && record(cursor, node - u64::from(layout!(nf_conn_hash))).is_none() {
        cursor.strayed += 1;
    }
    Some(())
}

#[inline(always)]
fn next_chain(cursor: &mut Cursor) -> Option<()> {
    let bucket = cursor.bucket;
    cursor.in_chain = 0;
    if bucket >= cursor.buckets {
        return None;
    }
    cursor.node = read::<u64>(cursor.table + bucket * 8, 0)?;
    cursor.bucket = bucket + 1;
    cursor.in_chain = 1;
    cursor.chain = 0;
    Some(())
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is below RECORDS")]
fn record(cursor: &mut Cursor, ct: u64) -> Option<()> {
    let record = HELD.get_ptr_mut(cursor.filled as u32)?;
    let net = read::<u64>(ct, layout!(nf_conn_net))?;
    if net != cursor.net {
        cursor.netns = kernel::netns_id(Address(net))?;
        cursor.net = net;
    }
    let bytes = layout!(nf_conn_bytes).min(ENTRY as u32);
    // SAFETY: a live map value with room for so many bytes; the helper checks the address.
    let copied = unsafe {
        (*record).netns = cursor.netns;
        bpf_probe_read_kernel((&raw mut (*record).entry).cast(), bytes, ct as *const _)
    };
    (copied == 0).then(|| cursor.filled += 1)
}

/// Copies what user space wants to see, to find the table by.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is ENTRY at most")]
pub(crate) fn peek() -> Option<()> {
    let (peek, record) = (PEEK.get_ptr_mut(0)?, HELD.get_ptr_mut(0)?);
    // SAFETY: live map values, and nobody else runs this program; the helper checks the address.
    unsafe {
        let bytes = ((*peek).bytes as u32).min(ENTRY as u32);
        let from = (*peek).at as *const _;
        if bpf_probe_read_kernel((&raw mut (*record).entry).cast(), bytes, from) != 0 {
            (*peek).bytes = 0;
        }
    }
    Some(())
}
