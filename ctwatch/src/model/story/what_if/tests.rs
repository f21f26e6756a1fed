//! The same packets, into a table with this limit and into one with more room.

use std::collections::BTreeMap;

use ctwatch_abi::{Count, NetnsTally};

use super::*;
use crate::{
    model::{
        Model,
        story::{Story, WholeStory},
        verdict::situations,
    },
    record::{
        counters::{CounterSums, CpuCounters},
        sample::{Counted, HookReadings, Probed, Sample, TableSample},
    },
};

const LIMIT: u32 = 100;
const TIMEOUT: u32 = 30;
/// Of each second.
const STEPS: u64 = 10;

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// A table, and what was counted of it.
struct Sim {
    limit: usize,
    /// Of each flow, when it is over, in steps.
    entries: BTreeMap<u64, u64>,
    tally: NetnsTally,
    evicted: u32,
    dropped: u32,
    peak: usize,
}

impl Sim {
    fn new(limit: usize) -> Self {
        let tally = NetnsTally::new(1, 1);
        Self { limit, entries: BTreeMap::new(), tally, evicted: 0, dropped: 0, peak: 0 }
    }

    fn step(&mut self, now: u64) {
        let before = self.entries.len();
        self.entries.retain(|_, until| *until > now);
        (self.entries.len()..before).for_each(|_| self.tally.bump(Count::Removed));
    }

    /// `finds`: where it is full, the kernel finds one to evict.
    fn packet(&mut self, flow: u64, now: u64, finds: bool) {
        let until = now + u64::from(TIMEOUT) * STEPS;
        if let Some(entry) = self.entries.get_mut(&flow) {
            *entry = until;
            return;
        }
        if self.entries.len() >= self.limit {
            let Some(oldest) = self.entries.keys().next().copied().filter(|_| finds) else {
                self.dropped += 1;
                self.tally.bump(Count::TableFull);
                return;
            };
            self.entries.remove(&oldest);
            self.evicted += 1;
            self.tally.bump(Count::Removed);
        }
        self.entries.insert(flow, until);
        self.tally.bump(Count::Inserted);
        self.peak = self.peak.max(self.entries.len());
    }

    fn reading(&self, second: u64) -> Sample {
        let tally = self.tally;
        let counters = CpuCounters {
            drop: self.dropped,
            early_drop: self.evicted,
            chaintoolong: Some(0),
            ..CpuCounters::default()
        };
        let table = TableSample {
            counters: Some(CounterSums::of(&[counters])),
            hooks: Some(HookReadings { before: tally, after: tally }),
            ..situations::table(1, "rt", self.entries.len() as u32, 0)
        };
        let counted =
            Counted { refusals: true, insertions: true, ends: true, ..Counted::default() };
        Sample {
            time: jiff::Timestamp::from_second(1_767_225_600 + second as i64).unwrap(),
            elapsed: Duration::from_secs(second),
            limit: Some(self.limit as u32),
            buckets: None,
            tables: vec![table],
            tops: Vec::new(),
            told_apart: Vec::new(),
            planes: None,
            cgroups: Vec::new(),
            idle: Vec::new(),
            probed: Some(Probed { counted, everywhere: tally, ..Probed::default() }),
        }
    }
}

/// Seconds of traffic: what was told of it, and how many there would have been with more room.
fn traffic(seed: u64, seconds: u64, points: usize) -> (WholeStory, u64) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut real = Sim::new(LIMIT as usize);
    let mut roomy = Sim::new(usize::MAX);
    let (mut model, mut story) = (Model::default(), Story::new(points));
    let (flows, rate) = (1 + numbers.below(2_000), 1 + numbers.below(8));
    let finds = numbers.below(100);
    for second in 0..seconds {
        story.take(&model.advance(&real.reading(second)));
        let burst = if numbers.below(20) == 0 { 40 } else { rate };
        for step in second * STEPS..(second + 1) * STEPS {
            real.step(step);
            roomy.step(step);
            for _ in 0..numbers.below(burst) {
                let (flow, finds) = (numbers.below(flows), numbers.below(100) < finds);
                real.packet(flow, step, finds);
                roomy.packet(flow, step, finds);
            }
        }
    }
    story.take(&model.advance(&real.reading(seconds)));
    (story.finish().unwrap(), roomy.peak as u64)
}

fn with_more(story: &WholeStory, to: u64) -> WhatIf {
    what_if(&story.tables[0], &Effect::Limit { to }, None).unwrap()
}

#[test]
fn with_more_room_it_holds_what_was_reckoned() {
    let (mut told, mut nothing) = (0, 0);
    for seed in 1..150 {
        for points in [600, 20] {
            let (story, peak) = traffic(seed, 120, points);
            match with_more(&story, 1 << 20).would {
                Ok(would) => {
                    told += 1;
                    assert!(
                        (would.at_least..=would.at_most).contains(&peak),
                        "seed {seed}: {peak} is not within {would:?}"
                    );
                }
                Err(Unsaid::NothingToChange) => {
                    nothing += 1;
                    assert!(peak <= u64::from(LIMIT), "seed {seed}: {peak}");
                }
                Err(why) => panic!("seed {seed}: {why:?}"),
            }
        }
    }
    assert!(told > 150 && nothing > 5, "{told} were told, {nothing} had nothing to tell");
}

#[test]
fn what_is_removed_with_room_to_spare_is_not_reckoned() {
    // Entries come and go for long before the table is full.
    let (mut model, mut story) = (Model::default(), Story::new(600));
    let mut real = Sim::new(LIMIT as usize);
    for second in 0..500 {
        story.take(&model.advance(&real.reading(second)));
        real.step(second * STEPS);
        real.packet(second, second * STEPS, false);
    }
    for flow in 0..150 {
        real.packet(1_000 + flow, 500 * STEPS, false);
    }
    story.take(&model.advance(&real.reading(500)));
    let story = story.finish().unwrap();
    let would = with_more(&story, 1 << 20).would.unwrap();
    let dropped = u64::from(real.dropped);
    assert!(dropped > 50 && real.evicted == 0, "{dropped}");
    assert!(would.at_most < 100 + dropped + 40, "{would:?}");
    assert!(would.at_least >= 99, "{would:?}");
}

#[test]
fn the_limit_holds_for_what_would_be() {
    let (story, _) = traffic(7, 300, 600);
    let would = with_more(&story, 150).would.unwrap();
    assert_eq!(would.at_most, 150, "{would:?}");
    assert!(would.most.all() > 150);
}

#[test]
fn by_counters_alone_no_bound_is_known() {
    let (mut model, mut story) = (Model::default(), Story::new(600));
    for (second, entries, drop) in [(0, 10, 0), (1, LIMIT, 0), (2, LIMIT, 7)] {
        let table = situations::table(1, "rt", entries, drop);
        let reading = Sim::new(LIMIT as usize).reading(second);
        story.take(&model.advance(&Sample { tables: vec![table], probed: None, ..reading }));
    }
    let story = story.finish().unwrap();
    assert_eq!(with_more(&story, 1 << 20).would, Err(Unsaid::Unbounded));
}
