//! What pictures stand on: the time from left to right, a grid, and a plane that is stretched to the width
//! that there is. Letters and marks stand in hundredths of the width, so that they keep their size.

use std::{fmt::Write as _, time::Duration};

use maud::{Markup, html};

use super::{
    reckoning::Reckoning,
    scale::{short, ticks},
    words::Clock,
};
use crate::model::story::{StoryBucket, TableStory, WholeStory};

/// The stretched plane: so wide, whatever its width on the screen.
const WIDE: f64 = 1000.0;
/// Lines of a grid beyond the one at zero.
const LINES: u32 = 4;

/// What all pictures of a page share.
pub(super) struct Plot<'a> {
    pub(super) story: &'a WholeStory,
    pub(super) clock: &'a Clock,
    /// Where the doctor was asked.
    pub(super) reckoning: Option<Reckoning<'a>>,
}

impl Plot<'_> {
    /// Of the width.
    pub(super) fn part(&self, at: Duration) -> f64 {
        // A single snapshot is a line too.
        let length = self.story.length.max(Duration::from_millis(1));
        (at.as_secs_f64() / length.as_secs_f64()).clamp(0.0, 1.0)
    }

    pub(super) fn x(&self, at: Duration) -> f64 {
        self.part(at) * WIDE
    }
}

/// Where a value is, from the top.
#[derive(Clone, Copy)]
pub(super) struct Height {
    pub(super) high: f64,
    pub(super) top: f64,
}

impl Height {
    pub(super) fn y(self, value: f64) -> f64 {
        let share = if self.top > 0.0 { value / self.top } else { 0.0 };
        self.high * (1.0 - share.clamp(0.0, 1.0))
    }
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.3}%", part * 100.0)
}

pub(super) fn labels(height: Height, above: f64) -> Markup {
    html! {
        @for tick in ticks(height.top, LINES) {
            text x="100%" y=(format!("{:.1}", above + height.y(tick) + 4.0)) text-anchor="end" { (short(tick)) }
        }
    }
}

pub(super) fn grid(height: Height, above: f64) -> Markup {
    html! {
        @for tick in ticks(height.top, LINES) {
            @let y = format!("{:.1}", above + height.y(tick));
            line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
        }
    }
}

pub(super) fn stretched(high: f64, above: f64, within: Markup) -> Markup {
    html! {
        svg.stretched x="0" y=(above) width="100%" height=(high) preserveAspectRatio="none"
            viewBox=(format!("0 0 {WIDE} {high}")) { (within) }
    }
}

pub(super) fn path(class: &str, d: &str) -> Markup {
    html! { @if !d.is_empty() { path class=(class) d=(d) {} } }
}

/// Each bucket with the end of the one before, where that is known.
pub(super) fn spans(
    table: &TableStory,
) -> impl Iterator<Item = (Option<&StoryBucket>, &StoryBucket)> {
    let before = std::iter::once(None).chain(table.buckets.iter().map(Some));
    before.zip(&table.buckets)
}

/// The time of a bucket: from the end of the one before, where nothing is unknown between.
pub(super) fn span(before: Option<&StoryBucket>, bucket: &StoryBucket) -> (Duration, Duration) {
    match before.filter(|_| bucket.joins) {
        Some(before) => (before.to, bucket.to),
        None => (bucket.from, bucket.to),
    }
}

pub(super) fn rectangle(d: &mut String, from: f64, to: f64, above: f64, below: f64) {
    let _ = write!(d, "M{from:.2} {above:.1}H{to:.2}V{below:.1}H{from:.2}z");
}

/// What is not known of the table between its first and its last snapshot.
pub(super) fn unknown(frame: &Plot<'_>, table: &TableStory) -> Vec<(f64, f64)> {
    let mut found: Vec<(f64, f64)> = Vec::new();
    for (before, bucket) in spans(table) {
        let Some(before) = before else { continue };
        let between = match (bucket.entries, bucket.joins) {
            (None, _) => (before.to, bucket.to),
            (Some(_), false) => (before.to, bucket.from),
            (Some(_), true) => continue,
        };
        let (from, to) = (frame.part(between.0), frame.part(between.1));
        match found.last_mut() {
            Some(last) if last.1 >= from => last.1 = to,
            _ => found.push((from, to)),
        }
    }
    found
}

pub(super) fn hatched(from: f64, to: f64, above: f64, high: f64) -> Markup {
    html! {
        rect.gap data-x=(format!("{from:.5}")) data-w=(format!("{:.5}", to - from)) x=(percent(from))
            width=(percent(to - from)) y=(above) height=(high) {
            title { "not known: there is no snapshot" }
        }
        @if to - from > 0.08 {
            text.unknown data-x=(format!("{:.5}", f64::midpoint(from, to)))
                x=(percent(f64::midpoint(from, to))) y=(above + high / 2.0) text-anchor="middle" {
                "no data"
            }
        }
    }
}
