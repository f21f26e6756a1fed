//! Heavy hitters in bounded memory: Space-Saving in sets. Pure over one set, so that the same code
//! runs in the kernel and in the tests.
//!
//! A key belongs to one set of [`WAYS`] slots. One that is not in its set takes the place of the
//! least counted there, and its count goes on from that one's: it cannot have been counted more
//! often before, or it would not have been the one to go. So for each key, whatever the input:
//! `count - error <= true count <= count`, and for one that is in no slot
//! `true count <= least count of its set`.
//!
//! Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data
//! Streams (2005).

use crate::{NetnsId, Plain};

pub const WAYS: usize = 8;

const WAY: [u32; WAYS] = [0, 1, 2, 3, 4, 5, 6, 7];

/// What is counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Packets refused for want of an entry.
    Drops = 0,
    /// Entries put into the table.
    Insertions = 1,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Drops => "drops",
            Self::Insertions => "insertions",
        }
    }

    pub const ALL: [Self; 2] = [Self::Drops, Self::Insertions];
}

/// By what it is told apart.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    Source = 0,
    Destination = 1,
    /// Destination, protocol and port.
    Service = 2,
    /// Source and service.
    Flow = 3,
    /// The interface that the packet came in by.
    Interface = 4,
    /// Whoever had the CPU, of what this host itself sent: name and cgroup.
    Process = 5,
    /// Entries only: who answers, with protocol and port (the source of the reply).
    Backend = 6,
    /// Entries only: whom it answers (the destination of the reply).
    ReplyDestination = 7,
}

impl By {
    /// Which words of a key are zero in all keys of such a table.
    #[inline(always)]
    const fn unused(self) -> [bool; WORDS] {
        match self {
            Self::Source | Self::ReplyDestination => [false, false, false, true, true, false],
            Self::Destination | Self::Service | Self::Backend => {
                [false, true, true, false, false, false]
            }
            Self::Flow => [false; WORDS],
            Self::Interface => [false, true, true, true, true, false],
            Self::Process => [false, false, false, false, true, true],
        }
    }

    /// Whether an entry in the table knows it of itself.
    pub fn is_of_entries(self) -> bool {
        !matches!(self, Self::Interface | Self::Process)
    }

    /// Whether its keys are made from the reply, which only entries have.
    #[inline(always)]
    pub fn is_of_replies(self) -> bool {
        matches!(self, Self::Backend | Self::ReplyDestination)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Service => "service",
            Self::Flow => "flow",
            Self::Interface => "interface",
            Self::Process => "process",
            Self::Backend => "backend",
            Self::ReplyDestination => "reply-destination",
        }
    }

    /// Those of which the programs keep lists.
    pub const ALL: [Self; 6] = [
        Self::Source,
        Self::Destination,
        Self::Service,
        Self::Flow,
        Self::Interface,
        Self::Process,
    ];
}

/// The ways of telling apart that somebody wants.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(pub u32);

impl Wanted {
    pub const ALL: Self = Self((1 << By::ALL.len()) - 1);

    /// These, and what is told from them: the control planes among what is refused, and how much of
    /// what this host itself sends is in no list.
    pub fn of(by: impl IntoIterator<Item = By>) -> Self {
        let bits = by.into_iter().fold(1 << By::Service as u32, |bits, by| bits | 1 << by as u32);
        let process = Self(bits).contains(By::Process);
        Self(bits | u32::from(process) << By::Interface as u32)
    }

    #[inline(always)]
    pub fn contains(self, by: By) -> bool {
        self.0 >> by as u32 & 1 != 0
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// How many streams there are.
pub const STREAMS: u32 = 2;

const _: () = assert!(Stream::ALL.len() == STREAMS as usize);

/// One table for each stream and each way of telling apart.
pub const TABLES: u32 = 12;

/// Which table.
pub const fn table(stream: Stream, by: By) -> u32 {
    stream as u32 * 6 + by as u32
}

/// Whom something is counted for. What does not belong to the key is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub netns: NetnsId,
    /// Addresses in network order; those of IPv4 are in the first four bytes. By process: its name,
    /// and the number of its cgroup.
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// In network order.
    pub dport: u16,
    pub protocol: u8,
    /// `AF_INET` or `AF_INET6`, so that an IPv4 address is none of IPv6.
    pub family: u8,
    pub ifindex: u32,
}

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

const WORDS: usize = 6;

/// Half words: what is multiplied at a time.
pub const HALVES: usize = 2 * WORDS;

const _: () = assert!(size_of::<Key>() == 8 * WORDS);

impl Key {
    /// The part of it that the table is about.
    #[inline(always)]
    pub fn of(&self, by: By) -> Self {
        let mut key = Self { netns: self.netns, family: self.family, ..ZERO };
        match by {
            By::Source | By::ReplyDestination => key.src = self.src,
            By::Destination => key.dst = self.dst,
            By::Service | By::Backend => {
                (key.dst, key.dport, key.protocol) = (self.dst, self.dport, self.protocol)
            }
            By::Flow => {
                key = *self;
                key.ifindex = 0;
            }
            By::Interface => (key.ifindex, key.family) = (self.ifindex, 0),
            By::Process => (key.src, key.dst, key.family) = (self.src, self.dst, 0),
        }
        key
    }

    /// By process: the number of its cgroup.
    pub fn cgroup(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.dst;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        // SAFETY: plain bytes without padding, as many as are asked for (the assertion above).
        unsafe { core::mem::transmute_copy(self) }
    }

    /// Of all that it may be cut down to, at once. `seed` gives the numbers of a [`Seed`].
    #[inline(always)]
    pub fn hashes(&self, seed: impl Fn(usize) -> u64) -> Hashes {
        // SAFETY: as for `words`.
        let halves: [u32; HALVES] = unsafe { core::mem::transmute_copy(self) };
        let sum = |of: core::ops::Range<usize>| {
            let mut sum = 0_u64;
            for at in of {
                sum = sum.wrapping_add(u64::from(halves[at]).wrapping_mul(seed(at)));
            }
            sum
        };
        let family = u32::from_ne_bytes([0, 0, 0, self.family]);
        // What is zero adds nothing. (A process has no family.)
        let (src, dst) = match self.family {
            AF_INET => (sum(2..3), sum(6..7)),
            _ => (sum(2..6), sum(6..10)),
        };
        Hashes {
            netns: sum(0..2),
            src,
            dst,
            family: u64::from(family).wrapping_mul(seed(10)),
            service: sum(10..11),
            interface: sum(11..12),
        }
    }
}

/// A secret number for each half word of a key: without it nobody can choose keys that meet in one
/// set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed(pub [u64; HALVES]);

/// Multilinear hashing: the high half of a sum of products, each of half a word of the key and a
/// secret number. Any two keys meet as seldom as by chance, and a sum is made of what others share.
///
/// Dietzfelbinger: Universal Hashing and k-wise Independent Random Variables via Integer Arithmetic
/// without Primes (1996).
#[derive(Clone, Copy)]
pub struct Hashes {
    netns: u64,
    family: u64,
    src: u64,
    dst: u64,
    service: u64,
    interface: u64,
}

impl Hashes {
    /// Of the key, cut down to what the table is about: 32 bits.
    #[inline(always)]
    pub fn of(&self, by: By) -> u64 {
        let rest = match by {
            By::Source | By::ReplyDestination => self.family.wrapping_add(self.src),
            By::Destination => self.family.wrapping_add(self.dst),
            By::Service | By::Backend => self.service.wrapping_add(self.dst),
            By::Flow => self.service.wrapping_add(self.src).wrapping_add(self.dst),
            By::Interface => self.interface,
            By::Process => self.src.wrapping_add(self.dst),
        };
        self.netns.wrapping_add(rest) >> 32
    }
}

const ZERO: Key =
    Key { netns: 0, src: [0; 16], dst: [0; 16], dport: 0, protocol: 0, family: 0, ifindex: 0 };

/// A key, and how often it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub key: Key,
    pub count: u64,
    pub error: u64,
}

/// The slots of one set on one CPU. What is looked at first, and for all of them, is together: an
/// event that finds its key touches two lines of the cache, and one that does not another one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Odd while it is being written. One writer: the CPU it belongs to.
    pub sequence: u32,
    /// The slot that would go next, while it is being looked for.
    victim: u32,
    /// Each key's hash, so that most comparisons are short.
    tags: [u32; WAYS],
    /// 0: free.
    counts: [u64; WAYS],
    /// How much of all counts was taken for several events each, and the most that one was taken for.
    scaled: u64,
    heaviest: u64,
    errors: [u64; WAYS],
    keys: [Key; WAYS],
}

const _: () = assert!(size_of::<Set>() == 8 + 4 * WAYS + 16 + 64 * WAYS);

impl Set {
    /// Counts the key, which is one of a table by `by` and has this hash, for so many events.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it has 32 bits")]
    pub fn offer(&mut self, by: By, key: &Key, hash: u64, weight: u32) {
        let (words, unused) = (key.words(), by.unused());
        let weight = u64::from(weight);
        if weight > 1 {
            self.scaled += weight;
            if weight > self.heaviest {
                self.heaviest = weight;
            }
        }
        for number in WAY {
            let way = number as usize;
            if u64::from(self.tags[way]) != hash || self.counts[way] == 0 {
                continue;
            }
            let held = self.keys[way].words();
            let mut same = true;
            for at in 0..WORDS {
                same &= unused[at] || held[at] == words[at];
            }
            if same {
                self.counts[way] += weight;
                return;
            }
        }
        let mut least = self.counts[0];
        // In memory, of which the kernel's verifier forgets what was written: else it would follow
        // each slot that it could be to the end of the program.
        let victim = &raw mut self.victim;
        // SAFETY: ours, as all of the set.
        unsafe { victim.write_volatile(0) };
        for number in &WAY[1..] {
            let count = self.counts[*number as usize];
            if count < least {
                least = count;
                // SAFETY: as above.
                unsafe { victim.write_volatile(*number) };
            }
        }
        // SAFETY: as above. The mask is for the verifier again.
        let at = unsafe { victim.read_volatile() } as usize & (WAYS - 1);
        self.tags[at] = hash as u32;
        (self.keys[at], self.counts[at], self.errors[at]) = (*key, least + weight, least);
    }

    /// Those that were counted.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let all = self.keys.iter().zip(self.counts).zip(self.errors);
        all.map(|((key, count), error)| Slot { key: *key, count, error })
            .filter(|slot| slot.count > 0)
    }

    /// How much of what was counted here was taken for several events each, and the most that one was
    /// taken for.
    pub fn scaled(&self) -> (u64, u64) {
        (self.scaled, self.heaviest)
    }

    /// A key that is not in the set was counted at most so often.
    pub fn least(&self) -> u64 {
        self.counts.into_iter().min().unwrap_or(0)
    }
}

// SAFETY: repr(C), integers and bytes, and no implicit padding (the assertions above).
unsafe impl Plain for Set {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashMap, vec, vec::Vec};

    use super::*;
    use crate::{
        budget::{Budget, Window},
        testing::Random,
    };

    const SETS: usize = 128;

    fn seed(at: usize) -> u64 {
        Random(0x1234_5678_9abc_def1 + at as u64).draw()
    }

    fn hash(key: &Key) -> u64 {
        key.hashes(seed).of(By::Source)
    }

    fn index(key: &Key) -> usize {
        usize::try_from(hash(key)).unwrap() % SETS
    }

    /// One table, and beside it the truth.
    struct Both {
        sets: Vec<Set>,
        truth: HashMap<Key, u64>,
    }

    impl Both {
        fn new() -> Self {
            Self { sets: vec![Set::default(); SETS], truth: HashMap::new() }
        }

        fn set(&self, key: &Key) -> &Set {
            &self.sets[index(key)]
        }

        fn offer(&mut self, source: u64) {
            let mut key = ZERO;
            key.src[..8].copy_from_slice(&source.to_le_bytes());
            self.sets[index(&key)].offer(By::Source, &key, hash(&key), 1);
            *self.truth.entry(key).or_default() += 1;
        }

        fn check_bounds(&self) {
            for (key, truth) in &self.truth {
                let set = self.set(key);
                match set.slots().find(|slot| slot.key == *key) {
                    Some(slot) => assert!(
                        slot.count - slot.error <= *truth && *truth <= slot.count,
                        "{truth} {slot:?}"
                    ),
                    None => assert!(*truth <= set.least(), "{truth} {}", set.least()),
                }
            }
        }

        /// How many of the true top `n` are among the first `n` by count.
        fn recall(&self, n: usize) -> f64 {
            let mut truth: Vec<_> = self.truth.iter().collect();
            truth.sort_by_key(|(_, count)| core::cmp::Reverse(**count));
            let mut found: Vec<Slot> = self.sets.iter().flat_map(Set::slots).collect();
            found.sort_by_key(|slot| core::cmp::Reverse(slot.count));
            let found: Vec<Key> = found[..n].iter().map(|slot| slot.key).collect();
            let hits = truth[..n].iter().filter(|(key, _)| found.contains(key)).count();
            hits as f64 / n as f64
        }
    }

    /// Talker `k` of a thousand speaks about `1/k` as often as the first.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 1,000")]
    fn zipf(random: &mut Random) -> u64 {
        let uniform = (random.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        (1000_f64.powf(uniform)) as u64
    }

    #[test]
    fn a_million_random_sources_do_not_hide_the_talkers() {
        let (mut both, mut random) = (Both::new(), Random(42));
        for _ in 0..1_000_000 {
            both.offer(random.draw() | 1 << 63);
            both.offer(zipf(&mut random));
        }
        both.check_bounds();
        assert!(both.recall(20) >= 0.99, "{}", both.recall(20));
    }

    /// Far more than there is a budget for, and the truth beside it.
    fn beyond(seed: u64, mut who: impl FnMut(u64, &mut Random) -> u64) -> (Both, u64) {
        const WINDOW: Window = Window { events: 160, shift: 0 };
        let (mut both, mut random) = (Both::new(), Random(seed));
        let (mut budget, secret) = (Budget::default(), core::cell::Cell::new(!seed));
        let mut taken = 0;
        for window in 0..100 {
            for number in 0..10_000 {
                let key = source(who(number, &mut random));
                *both.truth.entry(key).or_default() += 1;
                secret.set(secret.get().wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1));
                if let Some(weight) = budget.take(1000 + window, WINDOW, || secret.get()) {
                    both.sets[index(&key)].offer(By::Source, &key, hash(&key), weight);
                    taken += 1;
                }
            }
        }
        (both, taken)
    }

    fn source(number: u64) -> Key {
        let mut key = ZERO;
        key.src[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn talkers_are_found_beyond_the_budget() {
        let (mut of_all, mut found) = (0_u32, 0_u32);
        for seed in 1..=10 {
            // Twenty have between half a percent and two and a half each, the rest is nobody twice.
            let (both, taken) = beyond(seed, |_, random| match random.draw() % 1000 {
                share @ 0..300 => share / 5 % 20,
                _ => random.draw() | 1 << 63,
            });
            assert!(taken < 40_000, "{taken}");
            let mut slots: Vec<Slot> = both.sets.iter().flat_map(Set::slots).collect();
            slots.sort_by_key(|slot| core::cmp::Reverse(slot.count - slot.error));
            for talker in 0..20 {
                let key = source(talker);
                assert!(both.truth[&key] > 5_000);
                of_all += 1;
                found += u32::from(slots[..20].iter().any(|slot| slot.key == key));
            }
        }
        assert!(100 * found >= 99 * of_all, "{found} of {of_all}");
    }

    #[test]
    fn one_heavy_among_a_million_light_is_first() {
        for seed in 1..=3 {
            // Each 128th, on the dot, as one who knows how many are left out would send.
            let (both, _) = beyond(seed, |number, random| match number % 128 {
                0 => 7,
                _ => random.draw() | 1 << 63,
            });
            let slots = both.sets.iter().flat_map(Set::slots);
            let first = slots.max_by_key(|slot| slot.count - slot.error).unwrap();
            assert_eq!(first.key, source(7), "{first:?}");
            let truth = both.truth[&source(7)];
            let seen = first.count - first.error;
            assert!(seen > truth / 2 && seen < truth * 2, "{seen} of {truth}");
        }
    }

    #[test]
    fn talkers_that_pause_are_not_forgotten() {
        let (mut both, mut random) = (Both::new(), Random(7));
        for round in 0..10_u64 {
            for _ in 0..50_000 {
                both.offer(random.draw() | 1 << 63);
                // Two talkers a round, twenty in all.
                both.offer(2 * round + random.draw() % 2);
            }
        }
        both.check_bounds();
        assert!(both.recall(20) >= 0.99, "{}", both.recall(20));
    }

    #[test]
    fn bounds_hold_whatever_comes() {
        let mut random = Random(1);
        // Few keys, as many as there are slots, one more, and far more; in turns and at random.
        for distinct in [1, 7, 1024, 1025, 5000, 100_000] {
            let mut both = Both::new();
            for number in 0..200_000 {
                both.offer(if number % 2 == 0 {
                    number % distinct
                } else {
                    random.draw() % distinct
                });
            }
            both.check_bounds();
        }
    }

    /// A connection out of few, so that keys meet in what they are cut down to.
    fn connection(random: &mut Random) -> Key {
        let few = |bits: u64, many: u64| (bits % many).to_be_bytes()[7];
        let is_short = random.draw().is_multiple_of(2);
        let family = if is_short { AF_INET } else { AF_INET6 };
        let mut key = Key { netns: 1 + random.draw() % 2, family, ..ZERO };
        for address in [&mut key.src, &mut key.dst] {
            let at = if is_short { 3 } else { 15 };
            address[at] = few(random.draw(), 40);
            address[0] = if is_short { 10 } else { few(random.draw(), 2) };
        }
        key.dport = u16::from_ne_bytes([0, few(random.draw(), 5)]);
        key.protocol = if random.draw().is_multiple_of(2) { 6 } else { 17 };
        key.ifindex = u32::from(few(random.draw(), 4));
        key
    }

    #[test]
    fn bounds_hold_by_whatever_is_told_apart() {
        for by in By::ALL {
            let mut random = Random(3);
            let mut sets = vec![Set::default(); 8];
            let mut truth: HashMap<Key, u64> = HashMap::new();
            for _ in 0..50_000 {
                let mut whole = connection(&mut random);
                if by == By::Process {
                    whole.family = 0;
                }
                let (key, hash) = (whole.of(by), whole.hashes(seed).of(by));
                assert_eq!(
                    hash,
                    key.hashes(seed).of(by),
                    "{by:?}: what is left out has a part in it"
                );
                let at = usize::try_from(hash).unwrap() % sets.len();
                sets[at].offer(by, &key, hash, 1);
                *truth.entry(key).or_default() += 1;
            }
            let mut seen = 0;
            for (at, set) in sets.iter().enumerate() {
                for slot in set.slots() {
                    let truth = truth.get(&slot.key).copied().unwrap_or(0);
                    assert!(slot.count - slot.error <= truth && truth <= slot.count, "{slot:?}");
                    let hash = slot.key.hashes(seed).of(by);
                    assert_eq!(usize::try_from(hash).unwrap() % sets.len(), at, "{slot:?}");
                    seen += slot.count;
                }
            }
            assert_eq!(seen, 50_000, "{by:?}: every event is in one slot");
        }
    }

    #[test]
    fn keys_that_meet_in_one_set_are_bounded_too() {
        let mut both = Both::new();
        let colliding: Vec<u64> = (0..1_000_000)
            .filter(|source: &u64| {
                let mut key = ZERO;
                key.src[..8].copy_from_slice(&source.to_le_bytes());
                index(&key) == 5
            })
            .take(500)
            .collect();
        for round in 0..100 {
            for (number, source) in colliding.iter().enumerate() {
                if number < 4 || round % 3 == 0 {
                    both.offer(*source);
                }
            }
        }
        both.check_bounds();
    }

    #[test]
    fn what_is_told_from_a_list_is_wanted_with_it() {
        let wanted = Wanted::of([By::Process]);
        assert!(wanted.contains(By::Interface) && wanted.contains(By::Service));
        assert!(!wanted.contains(By::Source) && Wanted::default().is_none());
        assert_eq!(Wanted::of(By::ALL), Wanted::ALL);
    }

    #[test]
    fn a_key_is_cut_down_to_what_the_table_is_about() {
        let whole = Key {
            netns: 1,
            src: [1; 16],
            dst: [2; 16],
            dport: 53,
            protocol: 17,
            family: 10,
            ifindex: 3,
        };
        assert_eq!(whole.of(By::Source), Key { netns: 1, family: 10, src: [1; 16], ..ZERO });
        assert_eq!(whole.of(By::Interface), Key { netns: 1, ifindex: 3, ..ZERO });
        assert_eq!(whole.of(By::Flow), Key { ifindex: 0, ..whole });
        let tables: Vec<u32> =
            Stream::ALL.iter().flat_map(|s| By::ALL.map(|by| table(*s, by))).collect();
        assert_eq!(tables, (0..TABLES).collect::<Vec<_>>());
    }
}
