//! Reading the kernel's own structures at the offsets that user space resolved.

use aya_ebpf::{EbpfContext, helpers::bpf_probe_read_kernel};
use ctwatch_abi::{
    Layout, NetnsId,
    budget::Window,
    top::{AF_INET, HALVES, Seed, Wanted},
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
    net_user_ns: 0,
    user_ns_owner: 0,
    pt_regs_sp: 0,
    freed_before_told: 0,
    skb_before_head: 0,
    skb_tail_to_head: 0,
    skb_network_header: 0,
    skb_iif: 0,
    top_sets: 0,
    top_wanted: Wanted(0),
    top_window: Window { events: 0, shift: 0 },
    stripe_mask: 0,
    top_seed: Seed([0; HALVES]),
};

const NOWHERE: ctwatch_abi::Code = ctwatch_abi::Code { start: 0, len: 0 };

/// One field of [`LAYOUT`], read where the verifier sees a constant.
macro_rules! layout {
    ($($field:tt)+) => {
        // SAFETY: a static of plain integers; volatile, because the loader rewrites it and the
        // compiler must not fold today's zero in.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$($field)+) }
    };
}
pub(crate) use layout;

/// A place in the kernel's memory.
pub(crate) trait Place: Copy {
    /// What is there, at this distance; `None` where nothing can be read.
    fn get<T: Copy>(self, offset: u32) -> Option<T>;

    /// Where the pointer there leads.
    fn follow(self, offset: u32) -> Option<Self>;

    /// A tuple that is there.
    fn tuple(self, offset: u32) -> Option<Tuple>;

    /// For those who only hand it on.
    fn address(self) -> u64;

    /// As a number, for those who calculate with it. `scratch` is a map's memory that nobody else
    /// writes to meanwhile.
    fn number(self, scratch: &mut u64) -> u64;
}

/// An address that is nothing but a number: the kernel looks at it each time that it is read from.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) u64);

/// `struct nf_conntrack_tuple`, of which user space has seen that it is as long: 40 bytes without a
/// gap. Aligned better than the kernel's, so that it is taken apart by whole words.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/netfilter/nf_conntrack_tuple.h>
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Tuple {
    pub(crate) src: [u32; 4],
    pub(crate) sport: u16,
    pub(crate) family: u16,
    pub(crate) dst: [u32; 4],
    pub(crate) dport: u16,
    pub(crate) protocol: u8,
    direction: u8,
}

impl Place for Address {
    #[inline(always)]
    fn get<T: Copy>(self, offset: u32) -> Option<T> {
        read(self.0, offset)
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        self.get(offset).map(Self)
    }

    #[inline(always)]
    fn tuple(self, offset: u32) -> Option<Tuple> {
        self.get(offset)
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn number(self, _: &mut u64) -> u64 {
        self.0
    }
}

/// An argument of a function whose type is known by BTF. The verifier has seen that what is read is a
/// member of that type, so reading it is one instruction and not a call; at an address that is none
/// it reads as zero.
#[derive(Clone, Copy)]
pub(crate) struct Typed(u64);

impl Typed {
    /// An argument of the function that the program stands at.
    #[inline(always)]
    pub(crate) fn argument(ctx: &impl EbpfContext, number: usize) -> Self {
        Self(argument(ctx, number))
    }

    /// The array of arguments itself, which the kernel keeps on the stack.
    #[inline(always)]
    pub(crate) fn context(ctx: &impl EbpfContext) -> Self {
        Self(ctx.as_ptr() as u64)
    }
}

impl Place for Typed {
    #[inline(always)]
    fn get<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the verifier checks the place, and the kernel the address.
        Some(unsafe { ((self.0 + u64::from(offset)) as *const T).read_volatile() })
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        self.get(offset).map(Self)
    }

    /// Member by member, as the verifier wants it.
    #[inline(always)]
    fn tuple(self, offset: u32) -> Option<Tuple> {
        let tuple = Self(self.0 + u64::from(offset));
        let family = tuple.get(18)?;
        let is_short = family == u16::from(AF_INET);
        let address = |at: [u32; 4]| {
            let [a, b, c, d] = at;
            let rest =
                if is_short { [0; 3] } else { [tuple.get(b)?, tuple.get(c)?, tuple.get(d)?] };
            let [b, c, d] = rest;
            Some([tuple.get(a)?, b, c, d])
        };
        Some(Tuple {
            src: address([0, 4, 8, 12])?,
            sport: tuple.get(16)?,
            family,
            dst: address([20, 24, 28, 32])?,
            dport: tuple.get(36)?,
            protocol: tuple.get(38)?,
            direction: 0,
        })
    }

    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    /// What the verifier takes for a pointer it lets nobody calculate with; of what is in a map's
    /// memory it knows nothing.
    #[inline(always)]
    fn number(self, scratch: &mut u64) -> u64 {
        let scratch = &raw mut *scratch;
        // SAFETY: a reference was handed over.
        unsafe {
            scratch.write_volatile(self.0);
            scratch.read_volatile()
        }
    }
}

/// Of a function known by BTF the kernel hands over an array of the arguments, with the answer behind
/// the last one.
#[inline(always)]
pub(crate) fn argument(ctx: &impl EbpfContext, number: usize) -> u64 {
    // SAFETY: the verifier knows how many there are.
    unsafe { ctx.as_ptr().cast::<u64>().add(number).read_volatile() }
}

/// An argument or answer of 32 bits; what the others hold is not said.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what is wanted")]
pub(crate) fn low(register: u64) -> u32 {
    register as u32
}

/// Reads a `T` at `base + offset`. The kernel checks the address: a bad one is an `Err`.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper validates the address and T is plain data.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Names the namespace behind a `struct net *`.
#[inline(always)]
pub(crate) fn netns_id(net: impl Place) -> Option<NetnsId> {
    let id = match layout!(net_cookie) {
        0 => net.get::<u32>(layout!(net_inum)).map(u64::from),
        at => net.get(at),
    };
    // Where it could not be read.
    id.filter(|id| *id != 0)
}

#[inline(always)]
pub(crate) fn netns_inode(net: impl Place) -> Option<u32> {
    read(net.address(), layout!(net_inum))
}

/// Who made the user namespace that the namespace belongs to: root made the first one.
#[inline(always)]
pub(crate) fn netns_owner(net: u64) -> Option<u32> {
    if layout!(user_ns_owner) == 0 {
        return None;
    }
    read(read(net, layout!(net_user_ns))?, layout!(user_ns_owner))
}
