//! Every map write. Per-CPU counters only: nothing is sent to user space per event.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_probe_read_kernel},
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use ctwatch_abi::{
    Count, HostCount, HostTally, MAX_NETNS, MAX_STRANGERS, MOST_STRIPES, NetnsId, NetnsTally,
    PLACES, REST, add_one,
    budget::{Budget, Window},
    plane::{MOST_PLANES, Plane, PlaneKey},
    tally_index,
    top::{By, Hashes, Key, STREAMS, Set, Stream, TABLES, table},
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

/// A power of two. A CPU has as many marks at a time as it has tasks and softirqs between the two programs: a few.
/// And this map takes its memory for each CPU that could come, 256 of them where two are there.
const MARK_SLOTS: u32 = 64;

/// Who it is, of each stream: as many sets as user space makes room for, those of one CPU after
/// those of the other. User space reads them where they are.
#[map]
static TOP: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What each CPU spends on telling events of each stream apart.
#[map]
static BUDGETS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(STREAMS, 0);

/// A bit for each stream whose lists somebody asks for at the moment.
#[map]
static ASKED: Array<u32> = Array::with_max_entries(1, 0);

/// Dropped packets of control planes: all of them, however many come.
#[map]
static PLANES: HashMap<PlaneKey, u64> = HashMap::with_max_entries(MOST_PLANES, 0);

/// The namespace that each CPU counted in last, and its place: see [`place_of`].
#[unsafe(no_mangle)]
static mut LAST: [[u64; LINE]; LASTS] = [[0; LINE]; LASTS];

/// Words of a line of the cache, so that CPUs do not wait for each other.
const LINE: usize = 8;

/// A power of two. CPUs that share one take more time, and count the same.
const LASTS: usize = 64;

/// When the page allocator had not a single page last, by the kernel's clock of ticks. One word, which
/// the CPU that asks has written itself, or another one many ticks ago: no order is needed.
#[unsafe(no_mangle)]
static mut SHORT: u64 = 0;

/// When `early_drop` was called last, which is when some table is full, by the same clock.
#[unsafe(no_mangle)]
static mut FULL: u64 = 0;

/// A refusal on this CPU whose packet is not dropped yet.
#[map]
static ANNOUNCED: PerCpuArray<Announced> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Announced {
    /// In which namespace; 0: none.
    net: u64,
    /// By the kernel's clock of ticks.
    when: u64,
    /// For how many events the packet stands where it is told apart; 0: it is not.
    weight: u64,
    /// Not 0: it is in the lists already, but for what its tuple does not tell.
    is_listed: u64,
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

/// What is left for whoever sees the packet dropped.
#[derive(Clone, Copy)]
pub(crate) struct Announcement {
    /// For how many events it stands where it is told apart; 0: it is not.
    pub(crate) weight: u32,
    /// It is in the lists already, but for what its tuple does not tell.
    pub(crate) is_listed: bool,
}

/// Words of the stack, from the return of `early_drop` to the address that `nf_conntrack_in` returns to: 36
/// to 40 on x86, and some more for the frame that the kernel makes for a tracing program.
const CALLERS: u32 = 80;

/// Windows of the clock from a refusal to the drop, at most: a thousandth of one, but a hypervisor may
/// stop a CPU in between.
const ANNOUNCED_FOR: u64 = 2;

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
static FRAMES: Array<Call> = Array::with_max_entries(CALLS, 0);

/// A power of two: some for each CPU that has a call under way.
const CALLS: u32 = 4096;

/// Places that a call may be in.
const CALL_WAYS: u32 = 4;

/// A call that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    /// Which; 0: none.
    key: u64,
    frame: Frame,
}

/// Two arguments of a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(crate) u64, pub(crate) u64);

/// One event in the namespace of `net`, by each of these counts; `unplaced` where the namespace
/// cannot be named or there is no room for it. Its name, where it has one.
#[inline(always)]
pub(crate) fn count(net: impl Place, counts: &[Count], unplaced: HostCount) -> Option<NetnsId> {
    // In two ways out, which the compiler does not make one: old verifiers let nobody keep what was not
    // written.
    let Some(id) = kernel::netns_id(net) else {
        host(unplaced);
        return None;
    };
    if bump(net, id, counts).is_none() {
        host(unplaced);
    }
    Some(id)
}

/// Whether an event of this stream is told apart, and for how many it stands then.
#[inline(always)]
pub(crate) fn told_apart(stream: Stream) -> Option<u32> {
    if layout!(top_sets) == 0 || !is_asked(stream) {
        return None;
    }
    let budget = BUDGETS.get_ptr_mut(stream as u32)?;
    let window = Window { events: layout!(top_window.events), shift: layout!(top_window.shift) };
    // SAFETY: helpers without arguments, which do nothing but answer.
    let (ticks, secret) = unsafe {
        (bpf_jiffies64(), || {
            u64::from(bpf_get_prandom_u32()) << 32 | u64::from(bpf_get_prandom_u32())
        })
    };
    // SAFETY: a live per-CPU map value.
    unsafe { (*budget).take(ticks, window, secret) }
}

/// Whether somebody asks for lists of this stream at the moment.
#[inline(always)]
pub(crate) fn is_asked(stream: Stream) -> bool {
    // SAFETY: a live map value, a plain number.
    ASKED.get_ptr(0).is_some_and(|asked| unsafe { asked.read_volatile() } >> stream as u32 & 1 != 0)
}

/// A packet of this control plane was dropped.
#[inline(always)]
pub(crate) fn plane(netns: NetnsId, plane: Plane) {
    let key = PlaneKey::new(netns, plane);
    if let Some(count) = PLANES.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe { add_one(&mut *count) };
    } else {
        first_of_plane(&key);
    }
}

#[inline(never)]
fn first_of_plane(key: &PlaneKey) -> u32 {
    // Another CPU may be first.
    let _ = PLANES.insert(key, 0, u64::from(BPF_NOEXIST));
    match PLANES.get_ptr_mut(key) {
        // SAFETY: a live map value.
        Some(count) => unsafe { add_one(&mut *count) },
        None => host(HostCount::UnplacedPlanes),
    }
    0
}

/// The kernel had no memory just now.
#[inline(always)]
pub(crate) fn short_of_memory() {
    // SAFETY: a plain number, for all CPUs; a helper that only reads a clock.
    unsafe { (&raw mut SHORT).write_volatile(bpf_jiffies64()) };
}

/// Whether it had none a moment ago, on whatever CPU.
#[inline(always)]
pub(crate) fn was_short_of_memory() -> bool {
    // SAFETY: as above.
    was_just_now(unsafe { (&raw const SHORT).read_volatile() })
}

/// A table is full just now.
#[inline(always)]
pub(crate) fn full() {
    // SAFETY: a helper that only reads a clock.
    let now = unsafe { bpf_jiffies64() };
    let full = &raw mut FULL;
    // SAFETY: a plain number, for all CPUs; written once a tick, so that they do not wait for each other.
    unsafe {
        if full.read_volatile() != now {
            full.write_volatile(now);
        }
    }
}

/// Whether one was a moment ago, in whatever namespace.
#[inline(always)]
pub(crate) fn was_full() -> bool {
    // SAFETY: as above.
    was_just_now(unsafe { (&raw const FULL).read_volatile() })
}

#[inline(always)]
fn was_just_now(then: u64) -> bool {
    // SAFETY: a helper that only reads a clock.
    let now = unsafe { bpf_jiffies64() };
    then != 0 && now.wrapping_sub(then) <= JUST_NOW
}

/// Ticks between what the allocator answered, or the call of `early_drop`, and conntrack's answer, at most:
/// neither sleeps, but the task may be put aside in between.
const JUST_NOW: u64 = 64;

/// Where an event of a stream is entered, whose it is, and for how many it stands.
pub(crate) struct Lists<'a> {
    /// The number of the first set of this stream on this CPU.
    first: u32,
    whole: &'a Key,
    hashes: Hashes,
    weight: u32,
}

/// For an event that is told apart.
#[inline(always)]
pub(crate) fn lists(stream: Stream, whole: &Key, weight: u32) -> Option<Lists<'_>> {
    let sets = layout!(top_sets);
    if sets == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let first = (cpu * TABLES + table(stream, By::ALL[0])) * sets;
    let hashes = whole.hashes(|at| layout!(top_seed.0[at]));
    Some(Lists { first, whole, hashes, weight })
}

impl Lists<'_> {
    /// Enters it into the list of this number in [`By::ALL`], if anybody wants it: else the verifier
    /// leaves it out.
    #[inline(always)]
    pub(crate) fn enter<const BY: usize>(&self) {
        if layout!(top_wanted).contains(By::ALL[BY]) {
            enter_into::<BY>(self.first, self.whole, self.hashes.of(By::ALL[BY]), self.weight);
        }
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it has 32 bits")]
fn enter_into<const BY: usize>(first: u32, whole: &Key, hash: u64, weight: u32) {
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
            (*set).offer(by, &whole.of(by), hash, weight);
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
pub(crate) fn announce(net: impl Place, stack: impl Place, left: Announcement) {
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
    announced.weight = left.weight.into();
    announced.is_listed = left.is_listed.into();
    // SAFETY: a helper that only reads a clock.
    announced.when = unsafe { bpf_jiffies64() };
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
    let now = unsafe { bpf_jiffies64() };
    let passed = now.wrapping_sub(announced.when) >> layout!(top_window.shift);
    (passed <= ANNOUNCED_FOR).then_some(announced.net)
}

/// Takes the word, if conntrack refused on behalf of the function that drops a packet at this location.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it was put in as one")]
pub(crate) fn take_announced(location: u64) -> Option<Announcement> {
    // SAFETY: a live per-CPU map value.
    let announced = unsafe { &mut *ANNOUNCED.get_ptr_mut(0)? };
    announced.net = 0;
    let is_its = match announced.caller {
        0 => find_caller(location) != 0,
        caller => is_near(caller, location),
    };
    let (weight, is_listed) = (announced.weight as u32, announced.is_listed != 0);
    is_its.then_some(Announcement { weight, is_listed })
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
///
/// Not in a hash table of the kernel's, whose insertion and removal cost as much as all the rest. Of two
/// CPUs that take the same place at the same moment, one's return finds nothing, and says so; so does one
/// whose place was taken by others because all of its places were.
#[inline(always)]
pub(crate) fn enter(function: u64, stack: u64, frame: Frame) {
    let key = stack | function;
    let first = call_slot(key);
    for way in 0..CALL_WAYS {
        let Some(call) = FRAMES.get_ptr_mut((first + way) & (CALLS - 1)) else { return };
        // SAFETY: a live map value.
        let call = unsafe { &mut *call };
        if call.key == 0 || call.key == key {
            *call = Call { key, frame };
            return;
        }
    }
    // Of calls whose returns were never seen.
    if let Some(call) = FRAMES.get_ptr_mut(first) {
        // SAFETY: as above.
        unsafe { *call = Call { key, frame } };
    }
}

/// What was left by the call that returns now. x86 has taken the return address off the stack by
/// then.
#[inline(always)]
pub(crate) fn leave(function: u64, stack: u64) -> Option<Frame> {
    take_frame((stack - 8) | function).or_else(|| take_frame(stack | function))
}

#[inline(always)]
fn take_frame(key: u64) -> Option<Frame> {
    let first = call_slot(key);
    for way in 0..CALL_WAYS {
        // SAFETY: a live map value.
        let call = unsafe { &mut *FRAMES.get_ptr_mut((first + way) & (CALLS - 1))? };
        if call.key == key {
            // Given back only after it was read, also where a CPU shows a store before an earlier read
            // is done: the store depends on what was read, and a call has an argument.
            // SAFETY: as above.
            let frame = unsafe { (&raw const call.frame).read_volatile() };
            if frame.0 != 0 {
                // SAFETY: as above.
                unsafe { (&raw mut call.key).write_volatile(0) };
            }
            return Some(frame);
        }
    }
    None
}

/// Stacks lie far apart, and calls of one depth at the same place in each.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper bits are what is wanted")]
fn call_slot(key: u64) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CALLS.ilog2())) as u32
}

/// `None` where there is no place for the namespace.
#[inline(always)]
fn bump(net: impl Place, id: NetnsId, counts: &[Count]) -> Option<()> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let stripe = cpu & layout!(stripe_mask);
    let tally = match known_place(id, cpu, stripe) {
        Some(tally) => tally,
        None => tally_of(net.address(), id, cpu, stripe)?,
    };
    for count in counts {
        // SAFETY: a live map value. Other CPUs may count in the same: each addition is one instruction.
        unsafe { (*tally).bump(*count) };
    }
    Some(())
}

/// Bits of a number of [`LAST`] that say which namespace it is; the upper ones say where.
const ID_BITS: u32 = 51;

const _: () = assert!(PLACES <= 1 << (u64::BITS - ID_BITS));

/// The counts of the namespace that this CPU counted in last, if it is this one. Places may be given to
/// others meanwhile: so whose it is is looked at, in the same stripe.
#[inline(always)]
fn known_place(id: NetnsId, cpu: u32, stripe: u32) -> Option<*mut NetnsTally> {
    // SAFETY: one word, which is written whole; the index is cut to what there is.
    let last = unsafe { (&raw const LAST[cpu as usize & (LASTS - 1)][0]).read_volatile() };
    if last << (u64::BITS - ID_BITS) != id << (u64::BITS - ID_BITS) {
        return None;
    }
    let tally = TALLIES.get_ptr_mut(tally_index((last >> ID_BITS) as u32, stripe))?;
    // SAFETY: a live map value.
    (unsafe { (*tally).id() } == id).then_some(tally)
}

/// By a search among all, or a place that is new.
#[inline(always)]
fn tally_of(net: u64, id: NetnsId, cpu: u32, stripe: u32) -> Option<*mut NetnsTally> {
    let place = match NETNS.get_ptr(id) {
        // SAFETY: a live map value, which is written once.
        Some(place) => unsafe { *place },
        None => settle(net, id)?,
    };
    let last = u64::from(place) << ID_BITS | id << (u64::BITS - ID_BITS) >> (u64::BITS - ID_BITS);
    // SAFETY: as in `known_place`.
    unsafe { (&raw mut LAST[cpu as usize & (LASTS - 1)][0]).write_volatile(last) };
    TALLIES.get_ptr_mut(tally_index(place, stripe))
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
    name(place, &named)?;
    if NETNS.insert(id, place, u64::from(BPF_NOEXIST)).is_ok() {
        return Some(place);
    }
    // Another CPU was first.
    name(place, &NetnsTally::new(0, 0))?;
    let free = if named.is_strangers() { &FREE_OF_STRANGERS } else { &FREE };
    let _ = free.push(place, 0);
    // SAFETY: a live map value, which is written once.
    NETNS.get_ptr(id).map(|place| unsafe { *place })
}

/// In each stripe that there is.
#[inline(always)]
fn name(place: u32, named: &NetnsTally) -> Option<()> {
    for stripe in 0..MOST_STRIPES {
        if stripe <= layout!(stripe_mask) {
            let tally = TALLIES.get_ptr_mut(tally_index(place, stripe))?;
            // SAFETY: a live map value, and nobody else's: it was taken from those that are free.
            unsafe { (*tally).name(named) };
        }
    }
    Some(())
}
