//! Reading the kernel's own structures at the offsets that user space resolved.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use ctwatch_ebpf::{
    Layout, NetnsId,
    top::{HALVES, Seed},
};

/// Overwritten before loading; all zero matches no code address and so counts nothing.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout {
    nf_conntrack_free: NOWHERE,
    nf_hook_slow: NOWHERE,
    netfilter_drop: 0,
    skb_nfct: 0,
    skb_dev_sk: 0,
    net_device_nd_net: 0,
    sock_net: 0,
    nf_conn_status: 0,
    nf_conn_net: 0,
    nf_conn_use: 0,
    nf_conn_hash: 0,
    nf_conn_bytes: 0,
    nf_conn_original: 0,
    nf_conn_reply: 0,
    hash_tuple: 0,
    net_inum: 0,
    net_cookie: 0,
    pt_regs_sp: 0,
    freed_before_told: 0,
    skb_head: 0,
    skb_network_header: 0,
    skb_iif: 0,
    top_sets: 0,
    padding: 0,
    top_seed: Seed([0; HALVES]),
};

const NOWHERE: ctwatch_ebpf::Code = ctwatch_ebpf::Code { start: 0, len: 0 };

/// One field of [`LAYOUT`], read where the verifier sees a constant.
macro_rules! layout {
    ($($field:tt)+) => {
        // SAFETY: a static of plain integers; volatile, because the loader rewrites it and the
        // compiler must not fold today's zero in.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$($field)+) }
    };
}
pub(crate) use layout;

/// Reads a `T` at `base + offset`. The kernel checks the address: a bad one is an `Err`.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper validates the address and T is plain data.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Names the namespace behind a `struct net *`.
#[inline(always)]
pub(crate) fn netns_id(net: u64) -> Option<NetnsId> {
    match layout!(net_cookie) {
        0 => netns_inode(net).map(u64::from),
        at => read(net, at),
    }
}

#[inline(always)]
pub(crate) fn netns_inode(net: u64) -> Option<u32> {
    read(net, layout!(net_inum))
}
