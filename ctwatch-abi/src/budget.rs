//! How many events are told apart: all of them up to a budget, and beyond it one in 2^k. Pure, so that
//! the same code runs in the kernel and in the tests.
//!
//! What is taken is taken at random, by numbers that nobody outside knows, and stands for 2^k events:
//! so whoever sends more is counted as more, and nobody can send in between. How large k is depends on
//! how many events came before, and not on which were taken.

use crate::Plain;

/// Events a second on each CPU that are all told apart, on and on. Who it is costs about a microsecond
/// an event: this is one in a hundred of a CPU's time.
pub const PER_SECOND: u64 = 10_000;

/// And once in a while so many at once, saved up while less came: those of so many windows.
const SAVED_WINDOWS: u32 = 16;

/// One in a million at most.
const MOST_SHIFT: u32 = 20;

/// How much a window is, for a clock of so many ticks a second: 2^shift ticks, in which so many events
/// are told apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// 0: all events are told apart, whatever comes.
    pub events: u32,
    pub shift: u32,
}

impl Window {
    /// Of about 64 milliseconds.
    pub const fn of(ticks_a_second: u32) -> Self {
        let ticks_a_second = if ticks_a_second == 0 { 1 } else { ticks_a_second };
        let mut shift = 0;
        while (2_u64 << shift) * 1000 <= 64 * ticks_a_second as u64 {
            shift += 1;
        }
        let events = (PER_SECOND << shift) / ticks_a_second as u64;
        Self { events: if events == 0 { 1 } else { events as u32 }, shift }
    }
}

/// What one CPU spends on one stream of events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Events that came, since the start.
    pub considered: u64,
    /// What those that were taken stand for, since the start.
    pub taken: u64,
    /// The number of the window, and the state of the random numbers; 0: there is none yet.
    window: u64,
    random: u64,
    /// Events in this window.
    came: u32,
    /// How many it has room for before fewer are taken.
    room: u32,
    /// One in 2^shift is taken.
    shift: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Budget>() == 4 * 8 + 4 * 4);

impl Budget {
    /// Whether this event is told apart, and for how many it stands then; `None`: it is not. `secret`
    /// gives a number that nobody knows.
    #[inline(always)]
    pub fn take(&mut self, ticks: u64, window: Window, secret: impl Fn() -> u64) -> Option<u32> {
        self.considered += 1;
        if window.events == 0 {
            self.taken += 1;
            return Some(1);
        }
        let number = ticks >> window.shift;
        if number != self.window {
            self.begin(number, window, secret());
        }
        self.came = self.came.wrapping_add(1);
        if self.came > self.room && self.shift < MOST_SHIFT {
            self.shift += 1;
            self.room = self.room.saturating_mul(2);
        }
        if self.shift != 0 {
            // xorshift64: the upper bits are the better ones.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            if self.random >> (64 - self.shift) != 0 {
                return None;
            }
        }
        let weight = 1 << self.shift;
        self.taken += u64::from(weight);
        Some(weight)
    }

    /// Another window: what came in the last one tells how many will come in this.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the smaller one of two, which has 32 bits"
    )]
    fn begin(&mut self, number: u64, window: Window, secret: u64) {
        let passed = number.wrapping_sub(self.window).clamp(1, u64::from(u32::MAX)) as u32;
        self.window = number;
        // Never 0, from which no other number comes.
        self.random = (self.random ^ secret) | 1;
        // What was not spent is saved, while everything is told apart.
        let left = if self.shift == 0 { self.room.saturating_sub(self.came) } else { 0 };
        let times = self.came / passed / window.events;
        self.shift = (32 - times.leading_zeros()).min(MOST_SHIFT);
        self.room = if self.shift == 0 {
            let windows = passed.min(SAVED_WINDOWS);
            (left + window.events * windows).min(window.events * SAVED_WINDOWS)
        } else {
            window.events << self.shift
        };
        self.came = 0;
    }
}

// SAFETY: repr(C), integers only, and no implicit padding (the assertion above).
unsafe impl Plain for Budget {}
