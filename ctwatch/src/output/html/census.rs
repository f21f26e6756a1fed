//! Who held the tables, as single censuses found.

use maud::{Markup, html};

use super::{
    input::Input,
    plane::percent as part,
    who::bars,
    words::{Clock, many, name, percent, thousands},
};
use crate::{
    model::{
        census::Holds,
        names::protocol,
        story::{CensusOf, HeldState, TableStory},
    },
    output::services::Services,
};

/// Tables that are open; the others are folded up.
const OPEN: usize = 1;

pub(super) fn section(input: &Input<'_>, clock: &Clock) -> Markup {
    let counted: Vec<&TableStory> =
        input.story.tables.iter().filter(|table| table.fullest.is_some()).collect();
    let (open, folded) = counted.split_at(counted.len().min(OPEN));
    html! {
        section #census {
            h2 { "Census: who held the table" }
            @if counted.is_empty() {
                p {
                    "No census was taken: how many entries were pinned, closing or reclaimable is not \
                     known. " code { "ctwatch census" } " takes one."
                }
            } @else {
                ul.soft {
                    li { strong { "pinned" } ": assured; stays until its time is over." }
                    li {
                        strong { "closing" }
                        ": assured, and its connection is over; the kernel may evict it above 95%."
                    }
                    li { strong { "reclaimable" } ": not assured; the kernel evicts it when it needs room." }
                    li { strong { "expired" } ": its time is over; it goes when the kernel comes across it." }
                }
            }
            @for table in open { (of_table(input, table, clock)) }
            @if !folded.is_empty() {
                details {
                    summary { (many(folded.len() as u64, "more table", "more tables")) }
                    @for table in folded { (of_table(input, table, clock)) }
                }
            }
        }
    }
}

fn of_table(input: &Input<'_>, table: &TableStory, clock: &Clock) -> Markup {
    let (fullest, latest) = (table.fullest.as_ref(), table.latest.as_ref());
    let same = fullest.zip(latest).is_some_and(|(a, b)| a.held == b.held);
    html! {
        h3 { (name(&table.last)) }
        p.soft {
            (many(table.held.len() as u64, "census is", "censuses are")) " in its time line."
        }
        div.lists {
            @if let Some(census) = fullest {
                (one(input, census, clock, if same { "The census" } else { "The census that found most" }))
            }
            @if let Some(census) = latest.filter(|_| !same) { (one(input, census, clock, "The last census")) }
        }
    }
}

fn one(input: &Input<'_>, census: &CensusOf, clock: &Clock, title: &str) -> Markup {
    let held = &census.held;
    let time = clock.time(input.story.time(held.at));
    html! {
        div.list {
            h4 { (title) ", " (time) ", by " (census.by) }
            p {
                @if held.is_whole { "exactly " } @else { "about " }
                (thousands(held.holds.all())) " entries"
                (difference(census.difference))
                @if !held.is_whole { "; some may be missing, or counted twice" }
                "."
            }
            (shares(&held.holds))
            (states(census))
            @for list in &census.lists { (list_of(list, input.services)) }
        }
    }
}

fn list_of(list: &crate::model::census::Holders, services: &Services) -> Markup {
    html! {
        @if list.entries.iter().any(|entry| entry.at_least() > 0) {
            h5 { "Entries by " (list.by.name()) }
            (bars(&list.entries, list.by, services))
        }
    }
}

fn difference(difference: Option<(i64, i64)>) -> String {
    match difference {
        None => String::new(),
        Some((0, 0)) => "; the kernel counts as many".to_owned(),
        Some((least, most)) if least == most && least < 0 => {
            format!("; the kernel counts {} more", thousands(least.unsigned_abs()))
        }
        Some((least, most)) if least == most => {
            format!("; the kernel counts {} fewer", thousands(least.unsigned_abs()))
        }
        Some(_) => "; the kernel's own count changed meanwhile".to_owned(),
    }
}

/// One bar of all entries.
fn shares(holds: &Holds) -> Markup {
    let all = holds.all().max(1) as f64;
    let mut at = 0.0;
    let parts = [
        ("pinned", holds.pinned),
        ("closing", holds.closing),
        ("reclaimable", holds.reclaimable),
        ("expired", holds.expired),
    ]
    .map(|(name, count)| {
        let from = at;
        at += count as f64 / all;
        (name, count, from, count as f64 / all)
    });
    html! {
        svg.bar.tall width="100%" height="22" aria-hidden="true" {
            @for (name, _, from, share) in &parts {
                rect class=(format!("key {name}")) x=(part(*from)) width=(part(*share)) height="22" {}
            }
        }
        ul.legend {
            @for (name, count, _, share) in parts.iter().filter(|(_, count, ..)| *count > 0) {
                li {
                    svg.swatch width="16" height="12" aria-hidden="true" {
                        rect class=(format!("key {name}")) x="1" y="1" width="14" height="10" {}
                    }
                    (name) " " (thousands(*count)) " (" (percent(*share)) ")"
                }
            }
            @if holds.offloaded > 0 { li { "of them offloaded: " (thousands(holds.offloaded)) } }
        }
    }
}

fn states(census: &CensusOf) -> Markup {
    let all = census.held.holds.all().max(1) as f64;
    html! {
        @if !census.states.is_empty() {
            table.states {
                thead {
                    tr {
                        @for title in ["state", "entries", "share", "assured", "unreplied"] {
                            th scope="col" { (title) }
                        }
                    }
                }
                tbody {
                    @for state in &census.states {
                        tr {
                            th scope="row" { (called(state)) }
                            td { (thousands(state.holds.all())) }
                            td { (percent(state.holds.all() as f64 / all)) }
                            td { (thousands(state.holds.pinned + state.holds.closing)) }
                            td { (thousands(state.unreplied)) }
                        }
                    }
                }
            }
            @if census.more_states > 0 {
                p.soft { (many(census.more_states as u64, "state more", "states more")) ", with fewer entries." }
            }
        }
    }
}

fn called(state: &HeldState) -> String {
    let protocol = protocol(state.protocol);
    match state.name {
        Some(name) => format!("{protocol} {name}"),
        None => protocol,
    }
}
