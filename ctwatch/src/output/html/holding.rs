//! Who held the table, where a census was taken.

use std::{fmt::Write as _, time::Duration};

use maud::{Markup, html};

use super::plane::{Height, Plot, path, spans};
use crate::model::story::{HeldAt, TableStory};

/// As many times as far apart as usual, and two censuses are not joined.
const FAR: u32 = 3;

/// What is told apart of those who hold a table, from the ground up.
type Layer = (&'static str, fn(&HeldAt) -> u64);

const LAYERS: [Layer; 4] = [
    ("pinned", |held| held.holds.pinned),
    ("closing", |held| held.holds.closing),
    ("reclaimable", |held| held.holds.reclaimable),
    ("expired", |held| held.holds.expired),
];

/// Each census as a column. What lies between two of them is pale: it was not measured.
pub(super) fn holding(frame: &Plot<'_>, table: &TableStory, height: Height) -> Markup {
    let joined = joined(table);
    let mut ground = vec![0_u64; table.held.len()];
    let mut layers = Vec::new();
    for (name, of) in LAYERS {
        let (mut columns, mut between) = (String::new(), String::new());
        let edge = |at: usize, ground: u64| {
            let held = table.held.get(at)?;
            let y = [ground, ground + of(held)].map(|value| height.y(value as f64));
            Some((frame.x(held.at), y))
        };
        for (at, ground_here) in ground.iter().enumerate() {
            let Some((x, [low, high])) = edge(at, *ground_here) else { continue };
            if low > high {
                let _ = write!(columns, "M{x:.2} {low:.1}V{high:.1}");
            }
            let next = ground.get(at + 1).and_then(|ground| edge(at + 1, *ground));
            if let Some((next, [next_low, next_high])) = next.filter(|_| joined[at]) {
                let _ = write!(
                    between,
                    "M{x:.2} {low:.1}V{high:.1}L{next:.2} {next_high:.1}V{next_low:.1}z"
                );
            }
        }
        for (ground, held) in ground.iter_mut().zip(&table.held) {
            *ground += of(held);
        }
        layers.push((name, columns, between));
    }
    html! {
        @for (name, _, between) in &layers { (path(&format!("held {name} between"), between)) }
        @for (name, columns, _) in &layers { (path(&format!("held {name}"), columns)) }
    }
}

/// Which census is so close to the next one that a reader may join them: there is no gap between.
fn joined(table: &TableStory) -> Vec<bool> {
    let steps = table.held.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at));
    let steps: Vec<Duration> = steps.collect();
    let mut sorted = steps.clone();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let breaks: Vec<(Duration, Duration)> = spans(table)
        .filter(|(_, bucket)| !bucket.joins)
        .filter_map(|(before, bucket)| Some((before?.to, bucket.from)))
        .collect();
    let pairs = steps.iter().zip(table.held.windows(2)).map(|(step, pair)| {
        let is_broken = breaks.iter().any(|(from, to)| *from < pair[1].at && *to > pair[0].at);
        !is_broken && *step <= usual.saturating_mul(FAR)
    });
    pairs.chain([false]).collect()
}
