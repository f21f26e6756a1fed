//! One table's time line as a picture.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{
    bars::{Bars, named, shares},
    flags::{FLAGS, flags},
    holding::holding,
    plane::{
        Height, Plot, grid, hatched, labels, path, percent, rectangle, span, spans, stretched,
        unknown,
    },
    scale::time_ticks,
    what_if::picture,
    words::thousands,
};
use crate::model::{
    figure::Bounds,
    story::{Increase, StoryBucket, TableStory, increase},
};

/// On the screen: of all, and of the strip that says that the table was full.
const HIGH: f64 = 200.0;
const STRIP: f64 = 5.0;
/// Times below, at most.
const TIMES: u32 = 8;
/// Below this fill the limit would press the line to the ground.
const FLAT: f64 = 0.25;
/// What there would have been with a fix takes so much more height at most.
const MOST_ABOVE: f64 = 2.5;

/// The picture of one table, with its numbers for the script.
pub(super) fn chart(frame: &Plot<'_>, table: &TableStory) -> Markup {
    let drops = Bars::of(frame, table);
    let has_drops = drops.top > 0.0;
    html! {
        div.plot data-points=(points(frame, table)) {
            (entries(frame, table))
            @if has_drops { (drops.picture(frame, table)) }
            span.corner {}
            (times(frame))
        }
        @if !has_drops { p.none { (without_drops(table)) } }
    }
}

/// What stands in the place of bars.
fn without_drops(table: &TableStory) -> &'static str {
    let increase = increase(table.before.dropped, table.counts.dropped);
    match (table.counts.dropped, increase) {
        (Bounds::Unmeasured, _) => "Dropped packets were not measured here: this is not zero.",
        (_, Some(Increase { at_most: Some(0), .. })) => "No packet was dropped in this time.",
        _ => "No dropped packet was seen in this time; some could not be seen.",
    }
}

fn entries(frame: &Plot<'_>, table: &TableStory) -> Markup {
    let peak = table.buckets.iter().filter_map(|bucket| bucket.entries).map(|e| e.most).max();
    let held = table.held.iter().map(|held| held.holds.all()).max();
    let limit = table.buckets.iter().filter_map(|bucket| bucket.limit).map(|l| l.most).max();
    let peak = f64::from(peak.unwrap_or(0)).max(held.unwrap_or(0) as f64);
    let limit = f64::from(limit.unwrap_or(0));
    let is_flat = limit > 0.0 && peak < limit * FLAT;
    let top = if is_flat { peak } else { peak.max(limit) };
    let what_if = frame.reckoning.and_then(|reckoning| reckoning.line(table));
    let would = what_if.iter().filter_map(|what_if| what_if.would.as_ref().ok());
    let would = would.map(|would| would.at_most as f64).fold(0.0, f64::max);
    // What is far above is drawn at the upper edge.
    let top = top.max(would.min(top * MOST_ABOVE));
    let height = Height { high: HIGH, top: (top * 1.06).max(1.0) };
    let unknown = unknown(frame, table);
    html! {
        svg.y width="100%" height=(FLAGS + HIGH) aria-hidden="true" { (labels(height, FLAGS)) }
        svg.area width="100%" height=(FLAGS + HIGH) role="img"
            aria-label="entries in the table over time, against its limit" {
            (grid(height, FLAGS))
            (stretched(HIGH, FLAGS, html! {
                (holding(frame, table, height))
                (path("band", &band(frame, table, height)))
                (path("limit", &limits(frame, table, height)))
                @if let Some(what_if) = &what_if { (picture(frame, table, what_if, height)) }
                (path("full", &full(frame, table)))
                (path("entries", &line(frame, table, height)))
            }))
            @for (from, to) in &unknown { (hatched(*from, *to, FLAGS, HIGH)) }
            @if is_flat {
                text.note x="100%" y=(FLAGS + 14.0) text-anchor="end" {
                    "limit " (thousands(limit_of(table))) ", far above"
                }
            }
            (flags(frame, HIGH))
        }
    }
}

fn limit_of(table: &TableStory) -> u64 {
    table.buckets.iter().rev().find_map(|bucket| bucket.limit).map_or(0, |limit| limit.last.into())
}

fn line(frame: &Plot<'_>, table: &TableStory, height: Height) -> String {
    let mut d = String::new();
    let y = |value: u32| format!("{:.1}", height.y(f64::from(value)));
    // How high the pen is, and how far it is still to go at this height.
    let (mut pen, mut level): (Option<String>, Option<f64>) = (None, None);
    let catch_up = |d: &mut String, level: &mut Option<f64>| {
        let _ = level.take().map(|x| write!(d, "H{x:.2}"));
    };
    for bucket in &table.buckets {
        let Some(entries) = bucket.entries else {
            catch_up(&mut d, &mut level);
            pen = None;
            continue;
        };
        if pen.is_none() || !bucket.joins {
            catch_up(&mut d, &mut level);
            let first = y(entries.first);
            // A single point is a dot.
            let _ = write!(d, "M{:.2} {first}h0", frame.x(bucket.from));
            pen = Some(first);
        }
        let (x, last) = (frame.x(bucket.to), y(entries.last));
        if pen.as_ref() == Some(&last) {
            level = Some(x);
            continue;
        }
        catch_up(&mut d, &mut level);
        let _ = write!(d, "L{x:.2} {last}");
        pen = Some(last);
    }
    catch_up(&mut d, &mut level);
    d
}

fn limits(frame: &Plot<'_>, table: &TableStory, height: Height) -> String {
    let mut d = String::new();
    let mut last = None;
    for (before, bucket) in spans(table) {
        let limit = bucket.limit.map(|limit| limit.last).filter(|limit| *limit > 0);
        let Some(limit) = limit.filter(|limit| f64::from(*limit) <= height.top) else {
            last = None;
            continue;
        };
        let (from, to) = span(before, bucket);
        let y = height.y(f64::from(limit));
        let _ = match last {
            Some(_) if !bucket.joins => write!(d, "M{:.2} {y:.1}", frame.x(from)),
            None => write!(d, "M{:.2} {y:.1}", frame.x(from)),
            Some(known) if known != limit => write!(d, "V{y:.1}"),
            Some(_) => Ok(()),
        };
        let _ = write!(d, "H{:.2}", frame.x(to));
        last = Some(limit);
    }
    d
}

/// Between the least and the most of each bucket.
fn band(frame: &Plot<'_>, table: &TableStory, height: Height) -> String {
    let mut d = String::new();
    for (before, bucket) in spans(table) {
        let (from, to) = span(before, bucket);
        if let Some(entries) = bucket.entries.filter(|entries| entries.most > entries.least) {
            let [above, below] = [entries.most, entries.least].map(|e| height.y(f64::from(e)));
            rectangle(&mut d, frame.x(from), frame.x(to), above, below);
        }
    }
    d
}

fn full(frame: &Plot<'_>, table: &TableStory) -> String {
    let mut d = String::new();
    for (before, bucket) in spans(table).filter(|(_, bucket)| bucket.is_full) {
        let (from, to) = span(before, bucket);
        rectangle(&mut d, frame.x(from), frame.x(to), 0.0, STRIP);
    }
    d
}

fn times(frame: &Plot<'_>) -> Markup {
    let story = frame.story;
    let ticks = time_ticks(story.start, story.length, frame.clock.zone(), TIMES);
    html! {
        svg.x width="100%" height="20" aria-hidden="true" {
            @for (number, tick) in ticks.iter().enumerate() {
                @let part = frame.part(tick.at);
                @let anchor = if part < 0.04 { "start" } else if part > 0.96 { "end" } else { "middle" };
                text.tick.odd[number % 2 == 1] data-x=(format!("{part:.5}")) x=(percent(part)) y="14"
                    text-anchor=(anchor) { (tick.label) }
            }
        }
    }
}

/// For the script: of each bucket where it is, when, entries (last; least and most, where they differ), limit,
/// where it is another one, and what was dropped in it, in words.
fn points(frame: &Plot<'_>, table: &TableStory) -> String {
    let mut out = String::new();
    let mut last_limit = None;
    for (before, bucket) in spans(table) {
        if !out.is_empty() {
            out.push(';');
        }
        let time = frame.clock.time(frame.story.time(bucket.to));
        let _ = write!(out, "{:.5}|{time}|", frame.part(bucket.to));
        let _ = match bucket.entries {
            Some(entries) if entries.least == entries.most => write!(out, "{}||", entries.last),
            Some(entries) => write!(out, "{}|{}|{}", entries.last, entries.least, entries.most),
            None => write!(out, "||"),
        };
        out.push('|');
        let limit = bucket.limit.map_or(0, |limit| limit.last);
        if last_limit.replace(limit) != Some(limit) {
            let _ = write!(out, "{limit}");
        }
        let _ = write!(out, "|{}", dropped(table, before, bucket));
    }
    out
}

fn dropped(table: &TableStory, before: Option<&StoryBucket>, bucket: &StoryBucket) -> String {
    let dropped = shares(table, before, bucket);
    let surely = dropped.surely();
    let mut said = match dropped.more {
        Some(0) | None if surely == 0 => return String::new(),
        Some(0) => format!("{} dropped", thousands(surely)),
        Some(more) => format!("{} to {} dropped", thousands(surely), thousands(surely + more)),
        None => format!("at least {} dropped", thousands(surely)),
    };
    if before.is_some() && !bucket.joins {
        said.push_str(" since the gap began");
    }
    let reasons = named(table, &dropped);
    let reasons = reasons.iter().filter(|(_, count)| *count > 0);
    let reasons: Vec<String> =
        reasons.map(|(name, count)| format!("{name} {}", thousands(*count))).collect();
    if !reasons.is_empty() {
        let _ = write!(said, ": {}", reasons.join(", "));
    }
    said
}
