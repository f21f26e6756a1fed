//! What happened beside the figures, in order; the numbers are those of the pictures.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    flags::{called, class},
    timeline::silence,
    words::{Clock, full_for, many, name, strange},
};
use crate::model::story::WholeStory;

/// Of tables: when they were full for the first time and the last one.
const TABLES: usize = 8;

struct Event {
    at: Duration,
    time: jiff::Timestamp,
    /// As in the pictures.
    number: Option<usize>,
    class: &'static str,
    kind: &'static str,
    text: Markup,
}

pub(super) fn section(story: &WholeStory, clock: &Clock) -> Markup {
    let events = events(story);
    html! {
        section #events {
            h2 { "Events" }
            @if events.is_empty() { p { "None was recorded." } }
            @else {
                table.events {
                    thead { tr { th scope="col" { "time" } th scope="col" { "what" } th scope="col" {} } }
                    tbody {
                        @for event in &events {
                            tr {
                                td.time { (clock.time(event.time)) }
                                td.kind {
                                    span.dot.(event.class) {
                                        @if let Some(number) = event.number { (number) }
                                    }
                                    " " (event.kind)
                                }
                                td { (event.text) }
                            }
                        }
                    }
                }
            }
            @if story.marks_left_out > 0 {
                p.soft {
                    (many(story.marks_left_out, "more event", "more events"))
                    " between the first and the last ones are left out."
                }
            }
        }
    }
}

fn events(story: &WholeStory) -> Vec<Event> {
    let marks = (1..).zip(&story.marks).map(|(number, placed)| Event {
        at: placed.at,
        time: placed.mark.time,
        number: Some(number),
        class: class(placed.mark.kind),
        kind: called(placed.mark.kind),
        text: strange(&placed.mark.text),
    });
    let gaps = story.gaps.iter().map(|gap| Event {
        at: gap.from,
        time: story.time(gap.from),
        number: None,
        class: "recording",
        kind: "gap",
        text: html! { (silence(gap)) },
    });
    let full = story.tables.iter().filter_map(|table| Some((table, table.full.as_ref()?)));
    let full = full.take(TABLES).flat_map(|(table, full)| {
        let event = |at, kind, text| Event {
            at,
            time: story.time(at),
            number: None,
            class: "incident",
            kind,
            text,
        };
        let first =
            event(full.first, "full", html! { (name(&table.last)) " was full for the first time" });
        let last =
            html! { (name(&table.last)) " was full for the last time; in all " (full_for(full)) };
        let last = (!full.still).then(|| event(full.last, "not full any more", last));
        [Some(first), last].into_iter().flatten()
    });
    let mut events: Vec<Event> = marks.chain(gaps).chain(full).collect();
    events.sort_by_key(|event| event.at);
    events
}
