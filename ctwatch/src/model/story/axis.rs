//! When each snapshot was taken, on one axis through all lives of conntrack; and when none was.

use std::{collections::VecDeque, time::Duration};

use crate::model::Snapshot;

/// Steps by which the usual one is known.
const STEPS: usize = 9;
/// As many times the usual step without a snapshot is a gap.
const GAP: u32 = 3;
/// By so much the clock may drift from the axis before it counts as set.
const DRIFT: i128 = 2_000_000_000;

/// A time without snapshots, from the last one before to the first one after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    pub from: Duration,
    pub to: Duration,
}

/// Where on the axis a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Since the first one.
    pub(super) at: Duration,
    /// Since the one before; `None`: it is the first.
    pub(super) step: Option<Duration>,
    /// Nothing is known of what was between.
    pub(super) after_gap: bool,
    /// From 1.
    pub(super) number: u64,
    /// By how many seconds the clock was set since the one before.
    pub(super) clock_set_s: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) start: jiff::Timestamp,
    /// Where the last snapshot is, by the clock, and since its start.
    last: Option<(Duration, jiff::Timestamp, Duration)>,
    pub(super) snapshots: u64,
    steps: VecDeque<Duration>,
    /// The longest ones.
    pub(super) gaps: Vec<Silence>,
    most_gaps: usize,
    /// All of them, and how long they were together.
    pub(super) all_gaps: (u64, Duration),
}

impl Axis {
    pub(super) fn new(start: jiff::Timestamp, most_gaps: usize) -> Self {
        let (steps, gaps) = (VecDeque::new(), Vec::new());
        Self {
            start,
            last: None,
            snapshots: 0,
            steps,
            gaps,
            most_gaps,
            all_gaps: (0, Duration::ZERO),
        }
    }

    /// The last snapshot's place; zero before the first.
    pub(super) fn end(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |(at, ..)| at)
    }

    /// Whether this snapshot belongs to the same life as the last one: it counts on.
    pub(super) fn counts_on(&self, snapshot: &Snapshot) -> bool {
        self.last.is_none_or(|(_, _, elapsed)| snapshot.elapsed >= elapsed)
    }

    pub(super) fn advance(&mut self, snapshot: &Snapshot, is_new_life: bool) -> Place {
        self.snapshots += 1;
        let number = self.snapshots;
        let Some((last, time, elapsed)) = self.last else {
            self.last = Some((Duration::ZERO, snapshot.time, snapshot.elapsed));
            let at = Duration::ZERO;
            return Place { at, step: None, after_gap: false, number, clock_set_s: None };
        };
        let by_clock = snapshot.time.duration_since(time);
        let step = match is_new_life {
            false => snapshot.elapsed.saturating_sub(elapsed),
            // Each life has a zero of its own: only the clock tells how far apart they are.
            true => Duration::try_from(by_clock).unwrap_or_default(),
        };
        let at = last.saturating_add(step);
        let off = by_clock.as_nanos() - i128::try_from(step.as_nanos()).unwrap_or(i128::MAX);
        let clock_set_s = (!is_new_life && off.abs() >= DRIFT)
            .then(|| i64::try_from(off / 1_000_000_000).unwrap_or(i64::MAX));
        let after_gap = self.is_gap(step);
        if after_gap || is_new_life {
            self.add_gap(Silence { from: last, to: at });
        }
        self.last = Some((at, snapshot.time, snapshot.elapsed));
        Place { at, step: Some(step), after_gap: after_gap || is_new_life, number, clock_set_s }
    }

    /// Where something is that happened at this time, by the clock.
    pub(super) fn place(&self, time: jiff::Timestamp) -> Duration {
        let (at, by_clock) = self.last.map_or((Duration::ZERO, self.start), |(at, t, _)| (at, t));
        let since = time.duration_since(by_clock);
        let far = since.unsigned_abs();
        if since.is_negative() { at.saturating_sub(far) } else { at.saturating_add(far) }
    }

    /// How far apart snapshots are, mostly.
    pub(super) fn usual(&self) -> Option<Duration> {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort_unstable();
        steps.get(steps.len() / 2).copied()
    }

    /// Those who sample more seldom from now on make no gaps for long: the usual step follows.
    fn is_gap(&mut self, step: Duration) -> bool {
        let is_gap = self.usual().is_some_and(|usual| step > usual.saturating_mul(GAP));
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        is_gap
    }

    fn add_gap(&mut self, gap: Silence) {
        let long = |gap: &Silence| gap.to.saturating_sub(gap.from);
        self.all_gaps.0 += 1;
        self.all_gaps.1 += long(&gap);
        self.gaps.push(gap);
        if self.gaps.len() > self.most_gaps
            && let Some(shortest) =
                (0..self.gaps.len()).min_by_key(|at| self.gaps.get(*at).map(long))
        {
            self.gaps.remove(shortest);
        }
    }
}
