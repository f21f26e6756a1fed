//! How many events are told apart: all of them up to a budget, and beyond it one in 2^k. Pure, so that
//! the same code runs in the kernel and in the tests.
//!
//! Beyond the budget an event is taken at random and counts for 2^k events. No sender knows the random
//! numbers, so no sender can avoid being taken. The number of events so far decides k; which of them were
//! taken does not.
//!
//! What it costs, whatever comes: in T windows at most `events * (1.5 * T + 26)` are taken, give or take
//! chance. Each window has room for `events`; each time that k grows inside of one, half as many more
//! are taken, and k shrinks by one a window at most, so it grows no more than T + 20 times; and 16
//! windows may have been saved before.

use crate::Plain;

/// Events a second on each CPU that are all told apart, on and on. Who it is costs about a microsecond
/// an event: this is one in a hundred of a CPU's time.
pub const PER_SECOND: u64 = 10_000;

/// A CPU that spends less than its budget saves it, up to so many windows' worth, for a burst.
const SAVED_WINDOWS: u32 = 16;

/// One in a million at most.
const MOST_SHIFT: u32 = 20;

/// A window lasts 2^`shift` ticks of the kernel's clock, and has a budget of so many `events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// 0: all events are told apart, whatever comes.
    pub events: u32,
    pub shift: u32,
}

impl Window {
    /// Of about 64 milliseconds.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a window's share of what a second has room for"
    )]
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
    /// The largest shift ever.
    most_shift: u32,
    /// Events that were not taken, since the start. While it is 0, all were.
    pub let_by: u64,
}

const _: () = assert!(size_of::<Budget>() == 5 * 8 + 4 * 4);

impl Budget {
    /// The most that one event was ever taken for, or would have been: those that were not taken do not
    /// say how many they were.
    pub fn heaviest(&self) -> u64 {
        1 << self.most_shift
    }

    /// Whether this event is told apart, and for how many it stands then; `None`: it is not. `secret`
    /// gives a random number that no sender can know.
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
            // Half as many more are taken, however much was saved before.
            self.room = self.room.saturating_add((window.events << self.shift) / 2);
            self.most_shift = self.most_shift.max(self.shift);
        }
        if self.shift != 0 {
            // xorshift64: the upper bits are the better ones.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            if self.random >> (64 - self.shift) != 0 {
                self.let_by += 1;
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
        let passed = number.wrapping_sub(self.window).min(u64::from(u32::MAX)) as u32;
        // Never 0: said where the compiler sees it, which has nobody to tell of a division by it.
        let (passed, events) = (passed.max(1), window.events.max(1));
        self.window = number;
        // Never 0, from which no other number comes.
        self.random = (self.random ^ secret) | 1;
        // What was not spent is saved, while everything is told apart, and spent before less is taken.
        let left = if self.shift == 0 { self.room.saturating_sub(self.came) } else { 0 };
        let windows = passed.min(SAVED_WINDOWS);
        let room = (left + events * windows).min(events * SAVED_WINDOWS);
        let rate = self.came / passed;
        let wanted = match rate <= room {
            true => 0,
            // Less one: as many as there is room for are not too many.
            false => 32 - ((rate - 1) / events).leading_zeros(),
        };
        // By one a window down at most: else a flood in every other window cost several times as much.
        self.shift = wanted.max(self.shift.saturating_sub(passed)).min(MOST_SHIFT);
        self.most_shift = self.most_shift.max(self.shift);
        self.room = if self.shift == 0 { room } else { events << self.shift };
        self.came = 0;
    }
}

// SAFETY: repr(C), integers only, and no implicit padding (the assertion above).
unsafe impl Plain for Budget {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::testing::Random;

    const WINDOW: Window = Window { events: 16, shift: 0 };
    /// More than that never comes in one window of these tests.
    const MOST_CAME: u64 = 4096;

    /// How many events come in each window, by somebody who knows the code and the budget.
    type Flood = fn(window: u64, random: &mut Random) -> u64;

    const FLOODS: [(&str, Flood); 6] = [
        ("steady", |_, _| 1000),
        ("every other window", |window, _| if window % 2 == 0 { 1 } else { MOST_CAME }),
        ("after savings", |window, _| if window % 17 == 16 { MOST_CAME } else { 0 }),
        ("up by halves", |window, _| 1 << (window % 13)),
        ("a rate that changes", |_, random| 1 << (random.draw() % 13)),
        ("just below", |window, _| if window % 16 == 0 { 16 * 16 } else { 0 }),
    ];

    /// How many were taken in each window.
    fn spent(flood: Flood, windows: u64, seed: u64) -> (Budget, Vec<u64>) {
        let (mut budget, mut random) = (Budget::default(), Random(seed));
        let secret = core::cell::RefCell::new(Random(!seed));
        let mut taken = Vec::new();
        for window in 0..windows {
            let mut of_it = 0;
            for _ in 0..flood(window, &mut random) {
                let weight = budget.take(1000 + window, WINDOW, || secret.borrow_mut().draw());
                of_it += u64::from(weight.is_some());
            }
            taken.push(of_it);
        }
        (budget, taken)
    }

    #[test]
    fn a_window_is_about_64_ms_whatever_the_clock() {
        for ticks in [100, 250, 300, 1000, 1_000_000] {
            let window = Window::of(ticks);
            let seconds = (1_u64 << window.shift) as f64 / f64::from(ticks);
            assert!((0.03..=0.065).contains(&seconds), "{ticks}: {seconds}");
            let per_s = f64::from(window.events) / seconds;
            assert!((per_s / PER_SECOND as f64 - 1.0).abs() < 0.01, "{ticks}: {per_s}");
        }
        assert!(Window::of(0).events > 0);
    }

    #[test]
    fn everything_is_taken_below_the_budget() {
        let below: Flood = |window, _| if window % 16 == 0 { 16 * 16 } else { 0 };
        for flood in [below, |_, _| 16] {
            let (budget, taken) = spent(flood, 1000, 1);
            assert_eq!((budget.let_by, budget.heaviest()), (0, 1));
            assert_eq!(taken.iter().sum::<u64>(), budget.considered);
            assert_eq!(budget.taken, budget.considered);
        }
        let (mut all, none) = (Budget::default(), Window::default());
        assert!((0..100_000).all(|_| all.take(0, none, || 1) == Some(1)));
    }

    /// In any run of windows, at most what the module promises, and what chance adds.
    #[test]
    fn the_work_is_bounded_whatever_comes() {
        for (name, flood) in FLOODS {
            let mut worst = 0.0_f64;
            for seed in 0..20 {
                let (_, taken) = spent(flood, 600, seed);
                for length in [1, 2, 16, 100, 600] {
                    for part in taken.windows(length) {
                        let spent = part.iter().sum::<u64>() as f64;
                        let most = f64::from(WINDOW.events) * (1.5 * length as f64 + 26.0);
                        assert!(
                            spent <= most + 5.0 * most.sqrt(),
                            "{name}: {spent} in {length} windows"
                        );
                    }
                }
                worst = worst.max(taken.iter().sum::<u64>() as f64 / 600.0 / 16.0);
            }
            assert!(worst <= 1.5 + 26.0 / 600.0, "{name}: {worst} times the budget, on and on");
        }
    }

    /// Whatever somebody sends who does not know the numbers: on the mean it is counted as it was.
    #[test]
    fn nobody_is_counted_as_less_or_more_on_the_mean() {
        const RUNS: u32 = 2000;
        /// Which events of a window are his.
        type Mine = fn(at: u64) -> bool;
        let mine: [Mine; 4] = [
            |at| at < 40,
            |at| at.is_multiple_of(64),
            |at| at % 256 == 255,
            |at| at >= MOST_CAME - 100,
        ];
        for (name, flood) in FLOODS {
            for (who, mine) in mine.iter().enumerate() {
                let (mut sum, mut squares, mut truth) = (0.0, 0.0, 0.0);
                for run in 0..RUNS {
                    let mut budget = Budget::default();
                    let mut random = Random(run.into());
                    let secret = core::cell::RefCell::new(Random(u64::from(run) << 20));
                    let (mut counted, mut sent) = (0.0, 0.0);
                    for window in 0..6 {
                        for at in 0..flood(window + 11, &mut random).min(600) {
                            let weight =
                                budget.take(9 + window, WINDOW, || secret.borrow_mut().draw());
                            if mine(at) {
                                sent += 1.0;
                                counted += weight.map_or(0.0, f64::from);
                            }
                        }
                    }
                    let off: f64 = counted - sent;
                    (sum, squares, truth) = (sum + off, squares + off * off, truth + sent);
                }
                let runs = f64::from(RUNS);
                let deviation = (squares / runs).sqrt() / runs.sqrt();
                assert!(
                    (sum / runs).abs() <= 4.0 * deviation,
                    "{name}, {who}: off by {} of {}, deviation {deviation}",
                    sum / runs,
                    truth / runs
                );
            }
        }
    }
}
