//! Every map write. Per-CPU counters only: nothing is sent to user space per event.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_probe_read_kernel},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use ctwatch_abi::{
    Count, HostCount, HostTally, MAX_NETNS, MAX_STRANGERS, NetnsId, NetnsTally, PLACES, REST,
    tally_index,
    top::{By, Hashes, Key, Set, Stream, TABLES, table},
};

use crate::kernel::{self, Address, Place, layout, read};

/// The place of each namespace.
#[map]
static NETNS: HashMap<NetnsId, u32> = HashMap::with_max_entries(MAX_NETNS + MAX_STRANGERS, 0);

/// What is counted in it, in as many stripes as user space makes room for. User space reads it where
/// it is.
#[map]
static TALLIES: Array<NetnsTally> = Array::with_max_entries(PLACES, BPF_F_MMAPABLE);

/// Places that no namespace has. User space fills it.
#[map]
static FREE: Queue<u32> = Queue::with_max_entries(MAX_NETNS, 0);

/// Those for namespaces of unprivileged users: they take none from the host's.
#[map]
static FREE_OF_STRANGERS: Queue<u32> = Queue::with_max_entries(MAX_STRANGERS, 0);

#[map]
static HOST: PerCpuArray<HostTally> = PerCpuArray::with_max_entries(1, 0);

/// Which ends of entries one of two programs has seen: see [`end_once`]. Two places for each slot: an
/// end between the two programs for another may need the same slot.
#[map]
static MARKS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(MARK_SLOTS, 0);

/// How many of the two programs are running on this CPU, one on top of the other.
#[map]
static ENDING: PerCpuArray<Ending> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Ending {
    depth: u64,
    /// The mark of an end that was seen while another was being counted.
    nested: u64,
    /// Of each of them.
    scratch: [u64; 2],
}

/// Of two programs at the same place, one; which of them the kernel runs first does not matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twin {
    One = 1,
    Other = 2,
}

/// A power of two.
const MARK_SLOTS: u32 = 1024;

/// Who it is, of each stream: as many sets as user space makes room for, those of one CPU after
/// those of the other. User space reads them where they are.
#[map]
static TOP: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A refusal on this CPU whose packet is not dropped yet.
#[map]
static ANNOUNCED: PerCpuArray<Announced> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Announced {
    /// In which namespace; 0: none.
    net: u64,
    when: u64,
    /// Where the stack is.
    scratch: u64,
    /// The return address, in the function that drops the packet, where it was expected; 0: not there.
    caller: u64,
    /// Where on the stack that address was found last, and which it was.
    known_at: u64,
    known: u64,
    /// Where it was not expected: the stack of the refusal, from the function that refused upwards.
    stack: [u64; CALLERS as usize],
}

/// Words of the stack, from the return of `early_drop` to the address that `nf_conntrack_in` returns to: 36
/// to 40 on x86, and some more for the frame that the kernel makes for a tracing program.
const CALLERS: u32 = 80;

/// Nanoseconds from a refusal to the drop, at most: some thousand, but a hypervisor may stop a CPU in
/// between.
const ANNOUNCED_FOR: u64 = 100_000_000;

/// Bytes between two places in the function that calls conntrack and drops, at most: `nf_hook_slow` has
/// some 300.
const NEAR: u64 = 1024;

/// Entries that are being confirmed on this CPU, and by which interface they came.
#[map]
static CAME: PerCpuArray<Coming> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Coming {
    /// Of the program that finds word: it does not run on top of itself.
    scratch: u64,
    slots: [Came; CAME_SLOTS as usize],
}

/// A power of two. A softirq confirms others in the middle of one.
const CAME_SLOTS: u32 = 16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Came {
    ct: u64,
    ifindex: u64,
}

/// Entries that lost a clash, until whoever is at the end of their confirmation has seen it.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(CAME_SLOTS, 0);

/// What the probe at a function's entry leaves for the one at its return: see [`enter`].
#[map]
static FRAMES: HashMap<u64, Frame> = HashMap::with_max_entries(1024, 0);

/// Two arguments of a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(crate) u64, pub(crate) u64);

/// One event in the namespace of `net`, by each of these counts; `unplaced` where the namespace
/// cannot be named or there is no room for it. Its name, where it has one.
#[inline(always)]
pub(crate) fn count(net: impl Place, counts: &[Count], unplaced: HostCount) -> Option<NetnsId> {
    let id = kernel::netns_id(net);
    if id.and_then(|id| bump(net, id, counts)).is_none() {
        host(unplaced);
    }
    id
}

/// Where an event of a stream is entered, and whose it is.
pub(crate) struct Lists<'a> {
    /// The number of the first set of this stream on this CPU.
    first: u32,
    whole: &'a Key,
    hashes: Hashes,
}

/// `None` where nobody asks who it is.
#[inline(always)]
pub(crate) fn lists(stream: Stream, whole: &Key) -> Option<Lists<'_>> {
    let sets = layout!(top_sets);
    if sets == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let first = (cpu * TABLES + table(stream, By::ALL[0])) * sets;
    Some(Lists { first, whole, hashes: whole.hashes(|at| layout!(top_seed.0[at])) })
}

impl Lists<'_> {
    /// Enters it into the list of this number in [`By::ALL`], if anybody wants it: else the verifier
    /// leaves it out.
    #[inline(always)]
    pub(crate) fn enter<const BY: usize>(&self) {
        if layout!(top_wanted).contains(By::ALL[BY]) {
            enter_into::<BY>(self.first, self.whole, self.hashes.of(By::ALL[BY]));
        }
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it has 32 bits")]
fn enter_into<const BY: usize>(first: u32, whole: &Key, hash: u64) {
    let by = By::ALL[BY];
    let sets = layout!(top_sets);
    let index = first + by as u32 * sets + (hash as u32 & (sets - 1));
    if let Some(set) = TOP.get_ptr_mut(index) {
        // SAFETY: a live map value, and this CPU's alone. The sequence is odd while it is written:
        // below this program another may be in the middle of it, on kernels that run a program on
        // top of itself. Such an event is in no list, and user space finds out by their sum.
        unsafe {
            let sequence = &raw mut (*set).sequence;
            let before = sequence.read_volatile();
            if before & 1 != 0 {
                return;
            }
            sequence.write_volatile(before.wrapping_add(1));
            // No store is moved across by the compiler, whose own fence cannot be compiled for BPF.
            // x86 shows them in that order too. Another CPU may not, and no instruction that Linux
            // 5.10 takes from a program makes it (fetching atomics came with 5.12): there user space
            // reads twice.
            black_box(());
            (*set).offer(by, &whole.of(by), hash);
            black_box(());
            sequence.write_volatile(before.wrapping_add(2));
        }
    }
}

/// Leaves word that a packet in this namespace was refused, and for whom: the return addresses on the
/// `stack` tell who called conntrack. A hook's packet is dropped by `nf_hook_slow`, which called the hook.
/// act_ct, Open vSwitch and a packet that user space gave back call conntrack without that: their packet
/// is dropped in another way or not at all, and what `nf_hook_slow` drops next is not theirs.
#[inline(always)]
pub(crate) fn announce(net: impl Place, stack: impl Place) {
    let Some(slot) = ANNOUNCED.get_ptr_mut(0) else { return };
    // SAFETY: a live per-CPU map value.
    let announced = unsafe { &mut *slot };
    let stack = stack.number(&mut announced.scratch);
    let there = read(stack + announced.known_at, 0).unwrap_or(0);
    announced.caller = 0;
    if announced.known != 0 && is_near(there, announced.known) {
        announced.caller = there;
    } else {
        // Searched at the drop only, which says what to look for.
        let to = (&raw mut announced.stack).cast();
        // SAFETY: a live map value with room for so many bytes; the helper checks the address, and
        // clears them where it is none.
        unsafe { bpf_probe_read_kernel(to, 8 * CALLERS, stack as *const _) };
    }
    // SAFETY: a helper that only reads a clock.
    announced.when = unsafe { bpf_ktime_get_ns() };
    announced.net = net.address();
}

/// The namespace that a refusal was announced for a moment ago, if any. The word stays.
#[inline(always)]
pub(crate) fn announced() -> Option<u64> {
    // SAFETY: a live per-CPU map value.
    let announced = unsafe { &*ANNOUNCED.get_ptr(0)? };
    if announced.net == 0 {
        return None;
    }
    // SAFETY: it only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    (now.wrapping_sub(announced.when) <= ANNOUNCED_FOR).then_some(announced.net)
}

/// Takes the word. Whether conntrack refused on behalf of the function that drops a packet at this
/// location.
#[inline(always)]
pub(crate) fn take_announced(location: u64) -> bool {
    let Some(slot) = ANNOUNCED.get_ptr_mut(0) else { return false };
    // SAFETY: a live per-CPU map value.
    let announced = unsafe { &mut *slot };
    announced.net = 0;
    match announced.caller {
        0 => find_caller(location) != 0,
        caller => is_near(caller, location),
    }
}

/// A function of its own, so that the verifier looks at the loop by itself.
#[inline(never)]
fn find_caller(location: u64) -> u64 {
    let Some(slot) = ANNOUNCED.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live per-CPU map value.
    let announced = unsafe { &mut *slot };
    for (index, word) in announced.stack.iter().enumerate() {
        if is_near(*word, location) {
            announced.known_at = index as u64 * 8;
            announced.known = *word;
            return 1;
        }
    }
    0
}

/// Whether two addresses are in one function, or so it seems. On arm64 the upper bits of a return
/// address may be a signature.
#[inline(always)]
fn is_near(one: u64, other: u64) -> bool {
    const UPPER: u32 = 64 - 39;
    one.wrapping_sub(other).wrapping_add(NEAR) << UPPER < (2 * NEAR) << UPPER
}

#[inline(always)]
pub(crate) fn came_by(ct: u64, ifindex: u32) {
    if let Some(coming) = CAME.get_ptr_mut(0) {
        // SAFETY: a live per-CPU map value.
        let coming = unsafe { &mut *coming };
        coming.slots[came_slot(ct) as usize] = Came { ct, ifindex: ifindex.into() };
    }
}

/// By which interface the entry came, if that was left word of and not overwritten since.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it was put in as one")]
pub(crate) fn take_came_by(ct: impl Place) -> Option<u32> {
    // SAFETY: a live per-CPU map value.
    let coming = unsafe { &mut *CAME.get_ptr_mut(0)? };
    let ct = ct.number(&mut coming.scratch);
    let came = &mut coming.slots[came_slot(ct) as usize];
    (came.ct == ct).then(|| {
        came.ct = 0;
        came.ifindex as u32
    })
}

#[inline(always)]
pub(crate) fn mark_lost(ct: u64) {
    if let Some(slot) = LOST.get_ptr_mut(came_slot(ct)) {
        // SAFETY: a live per-CPU map value.
        unsafe { *slot = ct };
    }
}

#[inline(always)]
pub(crate) fn take_lost(ct: u64) -> bool {
    let Some(slot) = LOST.get_ptr_mut(came_slot(ct)) else { return false };
    // SAFETY: a live per-CPU map value.
    let lost = unsafe { *slot } == ct;
    if lost {
        // SAFETY: as above.
        unsafe { *slot = 0 };
    }
    lost
}

/// Entries are 256 bytes or more, so lower bits say nothing.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn came_slot(ct: u64) -> u32 {
    (ct >> 8) as u32 & (CAME_SLOTS - 1)
}

/// One event on this machine.
#[inline(always)]
pub(crate) fn host(count: HostCount) {
    if let Some(host) = HOST.get_ptr_mut(0) {
        // SAFETY: a live per-CPU map value, and this CPU's programs each write counts of their own.
        unsafe { (*host).bump(count) };
    }
}

/// Of two programs that see the same end of an entry, the one that is run first leaves word and
/// counts; the other finds it, takes it back and does not count.
///
/// The kernel does not run a program on top of itself: a softirq that arrives while one runs for
/// the end of some object would end entries unseen. Two programs at the same place cannot both be
/// running when it arrives, so one of them always sees the event.
///
/// Word is left in a slot for each object by its address: an interruption between the two programs
/// then does not disturb what they agree on. While one of them runs, the other may wait in vain for
/// word, so there it is left in a place of its own, which means nothing any more once that program
/// has ended; word that nobody takes would be believed when the object ends in its next life.
#[inline(always)]
pub(crate) fn end_once(twin: Twin, object: impl Place, count: impl FnOnce()) {
    let Some(ending) = ENDING.get_ptr_mut(0) else { return };
    // SAFETY: a live per-CPU map value; no program runs on top of itself.
    let object = object.number(unsafe { &mut (*ending).scratch[twin as usize - 1] });
    // SAFETY: a live per-CPU map value. Whoever interrupts puts the depth back as it was.
    let depth = unsafe { (&raw mut (*ending).depth).read_volatile() };
    // SAFETY: as above.
    unsafe {
        (&raw mut (*ending).depth).write_volatile(depth + 1);
        if depth == 0 {
            (&raw mut (*ending).nested).write_volatile(0);
        }
    }
    let (own, theirs) = match twin {
        Twin::One => (object | Twin::One as u64, object | Twin::Other as u64),
        Twin::Other => (object | Twin::Other as u64, object | Twin::One as u64),
    };
    let counted = if depth == 0 {
        counted_in_slot(object, own, theirs)
    } else {
        // SAFETY: as above.
        unsafe {
            let nested = (*ending).nested;
            (*ending).nested = if nested == theirs { 0 } else { own };
            nested == theirs
        }
    };
    if !counted {
        count();
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*ending).depth).write_volatile(depth) };
}

#[inline(always)]
fn counted_in_slot(object: u64, own: u64, theirs: u64) -> bool {
    let Some(slot) = MARKS.get_ptr_mut(slot_of(object)) else { return false };
    // SAFETY: a live per-CPU map value.
    let slot = unsafe { &mut *slot };
    for place in slot.iter_mut() {
        if *place == theirs {
            *place = 0;
            return true;
        }
    }
    let place = usize::from(slot[0] != 0 && slot[0] != own);
    slot[place & 1] = own;
    false
}

/// Entries are 256 bytes or more, so lower bits say nothing.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn slot_of(object: u64) -> u32 {
    (object >> 8) as u32 & (MARK_SLOTS - 1)
}

/// Leaves word of a call of the `function`, an odd number below 8. A call is known by where on the
/// stack it was made: no other call can be there until it has returned.
#[inline(always)]
pub(crate) fn enter(function: u64, stack: u64, frame: Frame) {
    // Where there is no room, or another program on this CPU is busy in the same place, the return
    // finds nothing, and says so.
    let _ = FRAMES.insert(stack | function, frame, 0);
}

/// What was left by the call that returns now. x86 has taken the return address off the stack by
/// then.
#[inline(always)]
pub(crate) fn leave(function: u64, stack: u64) -> Option<Frame> {
    take_frame((stack - 8) | function).or_else(|| take_frame(stack | function))
}

#[inline(always)]
fn take_frame(key: u64) -> Option<Frame> {
    // SAFETY: it is copied before anything else can be put in its place: only a call at the same
    // place of the same stack could, and this one has not returned yet.
    let frame = unsafe { *FRAMES.get(key)? };
    let _ = FRAMES.remove(key);
    Some(frame)
}

/// `None` where there is no place for the namespace.
#[inline(always)]
fn bump(net: impl Place, id: NetnsId, counts: &[Count]) -> Option<()> {
    let place = match NETNS.get_ptr(id) {
        // SAFETY: a live map value, which is written once.
        Some(place) => unsafe { *place },
        None => settle(net.address(), id)?,
    };
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let tally = TALLIES.get_ptr_mut(tally_index(place, cpu & layout!(stripe_mask)))?;
    for count in counts {
        // SAFETY: a live map value. Other CPUs may count in the same: each addition is one instruction.
        unsafe { (*tally).bump(*count) };
    }
    Some(())
}

/// The first event in a namespace: it gets a place. And each in those of others that get none, which
/// are counted together.
#[inline(never)]
fn settle(net: u64, id: NetnsId) -> Option<u32> {
    let inode = kernel::netns_inode(Address(net))?;
    let named = NetnsTally::new(id, inode).owned_by(kernel::netns_owner(net));
    let place = if named.is_strangers() {
        let Ok(Some(place)) = FREE_OF_STRANGERS.pop() else { return Some(REST) };
        place
    } else {
        FREE.pop().ok()??
    };
    // Before anybody else can count there: what is there without a name would be nobody's.
    let tally = TALLIES.get_ptr_mut(place)?;
    // SAFETY: a live map value, and nobody else's: it was taken from those that are free.
    unsafe { (*tally).name(&named) };
    if NETNS.insert(id, place, u64::from(BPF_NOEXIST)).is_ok() {
        return Some(place);
    }
    // Another CPU was first.
    // SAFETY: as above.
    unsafe { (*tally).name(&NetnsTally::new(0, 0)) };
    let free = if named.is_strangers() { &FREE_OF_STRANGERS } else { &FREE };
    let _ = free.push(place, 0);
    // SAFETY: a live map value, which is written once.
    NETNS.get_ptr(id).map(|place| unsafe { *place })
}
