//! The time lines: one picture for each table that has something to show.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{
    bars::{CLASSES, named},
    chart::chart,
    flags::{called, class},
    notable::notable,
    plane::Plot,
    words::{counted, full_for, lasting, many, name, owner, percent, thousands},
};
use crate::model::{
    figure::Bounds,
    story::{DropShares, MOST_TABLES, Silence, TableStory, WholeStory},
};

/// Marks that are named beside the pictures; the list of events has all.
const MARKS: usize = 12;

pub(super) fn section(frame: &Plot<'_>) -> Markup {
    let (open, folded) = notable(&frame.story.tables);
    html! {
        section #time-lines {
            h2 { "Time lines" }
            @if open.is_empty() { p { "No table was more than half full, and none dropped a packet." } }
            (legend(frame))
            (marks(frame))
            @for table in open { (figure(frame, table)) }
            @if !folded.is_empty() {
                details {
                    summary { (many(folded.len() as u64, "quieter table", "quieter tables")) }
                    @for table in folded { (figure(frame, table)) }
                }
            }
            (left_out(frame.story))
        }
    }
}

/// What is left out, and that it is.
fn left_out(story: &WholeStory) -> Markup {
    let mark = if story.left_out_is_cut { "at least " } else { "" };
    html! {
        @if story.left_out > 0 {
            p.soft {
                (mark) (many(story.left_out as u64, "more table", "more tables"))
                " tracked connections and have no time line: this page keeps the " (MOST_TABLES)
                " that dropped most or were fullest. They dropped at least "
                (many(story.left_out_dropped, "packet", "packets")) "."
            }
        }
    }
}

fn figure(frame: &Plot<'_>, table: &TableStory) -> Markup {
    html! {
        figure {
            figcaption {
                strong { (name(&table.last)) }
                @if let Some(owner) = owner(&table.last) { " (" (owner) ")" }
                @if table.last.is_gone { span.tag { "gone at the end" } }
                @if let Some(full) = &table.full { span.tag.bad { "full " (full_for(full)) } }
                @if let Some(peak) = &table.peak {
                    span.tag {
                        @match peak.fill() {
                            Some(fill) => { "fullest " (percent(fill)) },
                            None => { "most " (thousands(peak.entries)) " entries" },
                        }
                    }
                }
                @if table.counts.dropped != Bounds::exactly(0) {
                    span.tag { "dropped: " (counted(table.counts.dropped)) }
                }
                @if table.before.surely_dropped() > 0 {
                    span.tag {
                        "of them " (counted(table.before.dropped)) " before its line begins"
                    }
                }
            }
            (chart(frame, table))
        }
    }
}

fn swatch(class: &str) -> Markup {
    html! {
        svg.swatch width="16" height="12" aria-hidden="true" {
            rect class=(class) x="1" y="1" width="14" height="10" {}
        }
    }
}

fn stroke(class: &str) -> Markup {
    html! {
        svg.swatch width="20" height="12" aria-hidden="true" { path class=(class) d="M1 6H19" {} }
    }
}

fn is_reckoned(frame: &Plot<'_>, table: &TableStory) -> bool {
    frame.reckoning.is_some_and(|reckoning| reckoning.line(table).is_some())
}

/// Only of what is in one of the pictures.
fn legend(frame: &Plot<'_>) -> Markup {
    let story = frame.story;
    let any = |of: fn(&TableStory) -> bool| story.tables.iter().any(of);
    let dropped: Vec<(&TableStory, DropShares)> = story
        .tables
        .iter()
        .map(|table| (table, DropShares::between(&table.before, &table.counts)))
        .collect();
    let each = dropped.iter().flat_map(|(table, shares)| {
        let reasons = named(table, shares).into_iter().zip(CLASSES);
        reasons.filter(|((_, count), _)| *count > 0).map(|((name, _), class)| (class, name))
    });
    let reasons: BTreeMap<&str, &str> = each.collect();
    let in_doubt = dropped.iter().any(|(_, shares)| shares.more.is_some_and(|more| more > 0));
    html! {
        ul.legend {
            li { (stroke("entries")) "entries" }
            li { (stroke("limit")) "limit" }
            @if story.tables.iter().any(|table| is_reckoned(frame, table)) {
                li { (stroke("what-if")) "with a higher limit, at most" }
            }
            @if any(|table| table.full.is_some()) { li { (swatch("full")) "full" } }
            @if any(|table| !table.held.is_empty()) {
                @for class in ["pinned", "closing", "reclaimable"] {
                    li { (swatch(&format!("key {class}"))) (class) }
                }
                @if any(|table| table.held.iter().any(|held| held.holds.expired > 0)) {
                    li { (swatch("key expired")) "expired" }
                }
                li.wide { "A column is a census. Pale between two: not measured." }
            }
            @for (class, name) in &reasons {
                li { (swatch(&format!("bar {class}"))) "dropped: " (name) }
            }
            @if in_doubt { li { (swatch("bar perhaps")) "perhaps dropped" } }
            @if story.all_gaps.0 > 0 {
                li { (swatch("gap")) "no data" (gaps(story)) }
            }
        }
    }
}

/// What the numbers in the pictures stand for.
fn marks(frame: &Plot<'_>) -> Markup {
    let more = frame.story.marks.len().saturating_sub(MARKS);
    html! {
        @if !frame.story.marks.is_empty() {
            ul.legend.marks {
                @for (number, placed) in (1..=MARKS).zip(&frame.story.marks) {
                    li {
                        span.dot.(class(placed.mark.kind)) { (number) } " "
                        (frame.clock.time(placed.mark.time)) " " (called(placed.mark.kind))
                    }
                }
                li {
                    @if more > 0 { "and " (more) " more: " }
                    a href="#events" { "Events" }
                }
            }
        }
    }
}

fn gaps(story: &WholeStory) -> String {
    let (count, long) = story.all_gaps;
    format!(" ({}, {} in all)", many(count, "gap", "gaps"), lasting(long))
}

/// In words, for the list of what happened.
pub(super) fn silence(gap: &Silence) -> String {
    format!("no snapshot for {}", lasting(gap.to.saturating_sub(gap.from)))
}
