//! Dropped packets, as bars.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    flags::class,
    plane::{Height, Plot, grid, labels, path, percent, rectangle, spans, stretched, unknown},
};
use crate::model::story::{DropShares, StoryBucket, TableStory};

const HIGH: f64 = 84.0;
/// Above the bars, for what they are called.
const ABOVE: f64 = 18.0;

/// The class of each reason's bars, in the order of the reasons; of one of two; of unclear ones.
pub(super) const CLASSES: [&str; 8] = ["r0", "r1", "r2", "r3", "r4", "r5", "either", "unclear"];

/// What was dropped for each of those, and what it is called.
pub(super) fn named(table: &TableStory, shares: &DropShares) -> [(&'static str, u64); 8] {
    let [a, b, c, d, e, f] = table.last.drops.named().map(|(name, _)| name);
    let [full, memory, clash, chain, nat, tracker] = shares.reasons;
    [
        (a, full),
        (b, memory),
        (c, clash),
        (d, chain),
        (e, nat),
        (f, tracker),
        ("clash or nat_exhausted", shares.clash_or_nat_exhausted),
        ("reason not told apart", shares.unclear),
    ]
}

/// In a bucket, and since the one before.
pub(super) fn shares(
    table: &TableStory,
    before: Option<&StoryBucket>,
    bucket: &StoryBucket,
) -> DropShares {
    let before = before.map_or(&table.before, |before| &before.counts);
    DropShares::between(before, &bucket.counts)
}

/// Dropped packets a second, by reason, one upon the other.
pub(super) struct Bars {
    /// Of each reason, and of those whose reason is not known.
    reasons: Vec<(&'static str, String)>,
    /// What may have been dropped beyond that.
    perhaps: String,
    /// Dropped some time in a gap.
    scattered: String,
    pub(super) top: f64,
}

impl Bars {
    pub(super) fn of(frame: &Plot<'_>, table: &TableStory) -> Self {
        let least_time = frame.story.usual_step.unwrap_or(Duration::from_secs(1));
        let bars: Vec<_> = spans(table)
            .map(|(before, bucket)| {
                // What was dropped in a gap is known at its end.
                let from = before.map_or(bucket.from, |before| before.to);
                let seconds = bucket.to.saturating_sub(from).max(least_time).as_secs_f64();
                let dropped = shares(table, before, bucket);
                let is_scattered = before.is_some() && !bucket.joins;
                (from, bucket.to, seconds, dropped, is_scattered)
            })
            .collect();
        let rate = |dropped: &DropShares, seconds: f64| {
            (dropped.surely() + dropped.more.unwrap_or(0)) as f64 / seconds
        };
        let top = bars.iter().map(|(_, _, s, dropped, _)| rate(dropped, *s)).fold(0.0, f64::max);
        let height = Height { high: HIGH, top: top * 1.1 };
        let mut layers = vec![String::new(); CLASSES.len()];
        let (mut perhaps, mut scattered) = (String::new(), String::new());
        for (from, to, seconds, dropped, is_scattered) in &bars {
            let (from, to) = (frame.x(*from), frame.x(*to).max(frame.x(*from) + 0.01));
            let mut ground = 0_u64;
            let mut add = |d: &mut String, count: u64| {
                let y = |value: u64| height.y(value as f64 / seconds);
                if count > 0 {
                    rectangle(d, from, to, y(ground + count), y(ground));
                }
                ground += count;
            };
            if *is_scattered {
                add(&mut scattered, dropped.surely() + dropped.more.unwrap_or(0));
                continue;
            }
            let counts = named(table, dropped).map(|(_, count)| count);
            for (layer, count) in layers.iter_mut().zip(counts) {
                add(layer, count);
            }
            add(&mut perhaps, dropped.more.unwrap_or(0));
        }
        Self {
            reasons: CLASSES.into_iter().zip(layers).collect(),
            perhaps,
            scattered,
            top: top * 1.1,
        }
    }

    pub(super) fn picture(&self, frame: &Plot<'_>, table: &TableStory) -> Markup {
        let height = Height { high: HIGH, top: self.top };
        html! {
            svg.y width="100%" height=(HIGH + ABOVE) aria-hidden="true" { (labels(height, ABOVE)) }
            svg.area width="100%" height=(HIGH + ABOVE) role="img"
                aria-label="packets dropped a second over time, by reason" {
                (grid(height, ABOVE))
                (stretched(HIGH, ABOVE, html! {
                    @for (class, d) in &self.reasons { (path(&format!("bar {class}"), d)) }
                    (path("bar perhaps", &self.perhaps))
                    (path("scattered", &self.scattered))
                }))
                @for (from, to) in unknown(frame, table) {
                    rect.gap data-x=(format!("{from:.5}")) data-w=(format!("{:.5}", to - from))
                        x=(percent(from)) width=(percent(to - from)) y=(ABOVE) height=(HIGH) {}
                }
                @for placed in &frame.story.marks {
                    @let part = frame.part(placed.at);
                    line.mark.(class(placed.mark.kind)) data-x=(format!("{part:.5}"))
                        x1=(percent(part)) x2=(percent(part)) y1="0" y2=(HIGH + ABOVE) {}
                }
                text.note x="0" y="12" { "dropped packets/s" }
            }
        }
    }
}
