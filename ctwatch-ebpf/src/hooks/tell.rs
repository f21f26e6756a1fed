//! A single refusal to user space, if anybody wants to know of it: the only thing here that is
//! sent for each event, which is why it is filtered and limited first.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use ctwatch_abi::{
    NetnsId, add_one,
    trace::{Event, Filter, NO_OWNER, Reason, Traced},
};

use crate::{
    hooks::who::Packet,
    kernel::{layout, read},
};

/// User space makes room for more where it traces.
#[map]
static TRACE: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static TRACED: Array<Traced> = Array::with_max_entries(1, 0);

/// Namespaces that user space has looked at: 1 where they are wanted, 0 where not. It makes room for
/// them where it chooses.
#[map]
static CHOSEN: HashMap<NetnsId, u32> = HashMap::with_max_entries(1, 0);

/// Overwritten before loading, where somebody traces.
#[unsafe(no_mangle)]
static FILTER: Filter = Filter {
    rate: 0,
    netns: 0,
    owner: 0,
    is_chosen: 0,
    src: [0; 2],
    src_mask: [0; 2],
    dst: [0; 2],
    dst_mask: [0; 2],
    reasons: 0,
    family: 0,
    protocol: 0,
    dport: 0,
};

/// One field of [`FILTER`], read where the verifier sees a constant.
macro_rules! filter {
    ($($field:tt)+) => {
        // SAFETY: a static of plain integers; volatile, because the loader rewrites it.
        unsafe { core::ptr::read_volatile(&raw const FILTER.$($field)+) }
    };
}

/// Whether anybody traces at all. Where nobody does the verifier leaves the rest out.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    filter!(rate) != 0
}

#[inline(always)]
pub(crate) fn refused(reason: Reason, packet: &Packet) {
    if is_on() {
        let _ = tell(reason as u32, packet);
    }
}

#[inline(never)]
fn tell(reason: u32, packet: &Packet) -> Option<()> {
    if !is_wanted(reason, packet) {
        return None;
    }
    let rate = filter!(rate);
    let traced = TRACED.get_ptr_mut(0)?;
    let owner = owner(packet.net);
    if !Filter::admits(filter!(owner), owner) {
        return None;
    }
    if filter!(is_chosen) != 0 {
        // SAFETY: a plain number; whichever of two it is replaced by was true of some namespace.
        let Some(is_wanted) = (unsafe { CHOSEN.get(packet.key.netns) }) else {
            // SAFETY: a live map value; CPUs share it, and it is added to in one instruction.
            unsafe { add_one(&mut (*traced).undecided) };
            return None;
        };
        if *is_wanted == 0 {
            return None;
        }
    }
    // SAFETY: it only reads a clock.
    let at = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live map value. CPUs share it: what must be exact is added to in one instruction.
    // The limit may be overshot by as many as there are CPUs.
    unsafe {
        add_one(&mut (*traced).wanted);
        let second = at / 1_000_000_000;
        if (*traced).second != second {
            (*traced).second = second;
            (*traced).in_second = 0;
        }
        if (*traced).in_second >= rate {
            add_one(&mut (*traced).untold);
            return None;
        }
        add_one(&mut (*traced).in_second);
    }
    let Some(mut entry) = TRACE.reserve::<Event>(0) else {
        // SAFETY: as above.
        unsafe { add_one(&mut (*traced).untold) };
        return None;
    };
    let key = &packet.key;
    let is_local = key.ifindex == 0;
    let event = entry.as_mut_ptr();
    // SAFETY: reserved, and as large as an event; written field by field, because the stack has no
    // room for another one.
    unsafe {
        (*event).at = at;
        (*event).netns = key.netns;
        (*event).src = key.src;
        (*event).dst = key.dst;
        (*event).sport = packet.sport;
        (*event).dport = key.dport;
        (*event).protocol = key.protocol;
        (*event).family = key.family;
        (*event).portless = packet.is_portless.into();
        (*event).ifindex = key.ifindex;
        (*event).reason = reason;
        (*event).pid = if is_local { process() } else { 0 };
        (*event).owner = owner;
        (*event).comm = if is_local { bpf_get_current_comm().unwrap_or_default() } else { [0; 16] };
    }
    entry.submit(0);
    Some(())
}

/// As `kernel::netns_owner`. Both reads are made in any case: older verifiers let nobody look at memory
/// that was not written on every way there, and the compiler looks before it knows.
#[inline(always)]
fn owner(net: u64) -> u32 {
    let user_ns = read::<u64>(net, layout!(net_user_ns)).unwrap_or(0);
    let owner = read::<u32>(user_ns, layout!(user_ns_owner)).unwrap_or(NO_OWNER);
    if layout!(user_ns_owner) == 0 { NO_OWNER } else { owner }
}

fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn is_wanted(reason: u32, packet: &Packet) -> bool {
    let key = &packet.key;
    let is = |wanted: u32, any: u32, value: u32| wanted == any || wanted == value;
    let netns = filter!(netns);
    filter!(reasons) & (1 << (reason & 31)) != 0
        && (netns == 0 || netns == key.netns)
        && is(filter!(family), 0, key.family.into())
        && is(filter!(protocol), 256, key.protocol.into())
        && is(filter!(dport), 65_536, key.dport.into())
        && is_in(
            &key.src,
            [filter!(src[0]), filter!(src[1])],
            [filter!(src_mask[0]), filter!(src_mask[1])],
        )
        && is_in(
            &key.dst,
            [filter!(dst[0]), filter!(dst[1])],
            [filter!(dst_mask[0]), filter!(dst_mask[1])],
        )
}

#[inline(always)]
fn is_in(address: &[u8; 16], wanted: [u64; 2], mask: [u64; 2]) -> bool {
    // SAFETY: as many bytes.
    let words: [u64; 2] = unsafe { core::mem::transmute_copy(address) };
    words[0] & mask[0] == wanted[0] && words[1] & mask[1] == wanted[1]
}
