//! Whose packets and whose entries: a bar for each, certain up to where it is solid.

use std::cmp::Reverse;

use ctwatch_abi::top::{By, Stream};
use maud::{Markup, html};

use super::{
    input::Input,
    plane::percent as part,
    words::{Clock, between, name, percent, strange, thousands},
};
use crate::{
    model::{
        margin::CONFIDENCE,
        story::TableStory,
        top::{TopEntry, TopList},
    },
    output::{services::Services, text::words::talker},
};

/// Tables whose lists are open; the others are folded up.
const OPEN: usize = 2;

pub(super) fn section(input: &Input<'_>, clock: &Clock) -> Markup {
    let listed: Vec<&TableStory> =
        input.story.tables.iter().filter(|table| table.lists.iter().any(has_certain)).collect();
    let (open, folded) = listed.split_at(listed.len().min(OPEN));
    html! {
        section #who {
            h2 { "Whose packets and entries" }
            @if listed.is_empty() {
                p { "Not counted: no list of sources or services was kept, or nothing certain is in one." }
            } @else {
                p.soft {
                    "Solid: certain. Pale, with the line: where the true number may be. A bar of the whole width is all that \
                     the list counts in that table."
                }
            }
            @for table in open { (of_table(input, table, clock)) }
            @if !folded.is_empty() {
                details {
                    summary { "Lists of " (thousands(folded.len() as u64)) " more tables" }
                    @for table in folded { (of_table(input, table, clock)) }
                }
            }
        }
    }
}

fn of_table(input: &Input<'_>, table: &TableStory, clock: &Clock) -> Markup {
    html! {
        h3 { (name(&table.last)) }
        div.lists {
            @for list in table.lists.iter().filter(|list| has_certain(list)) {
                div.list {
                    h4 { (what(list)) " by " (list.by.name()) (since(list, clock)) }
                    (bars(&list.entries, list.by, input.services))
                }
            }
        }
    }
}

fn what(list: &TopList) -> &'static str {
    match list.stream {
        Stream::Drops => "Packets dropped for want of an entry",
        Stream::Insertions => "Entries inserted",
    }
}

/// Totals of a list are of the life of conntrack in which it was kept.
fn since(list: &TopList, clock: &Clock) -> String {
    list.since.map_or_else(String::new, |since| format!(", since {}", clock.time(since)))
}

fn has_certain(list: &TopList) -> bool {
    list.entries.iter().any(|entry| entry.at_least() > 0)
}

/// Without anything certain, a name is only the last of many that came by.
pub(super) fn bars(entries: &[TopEntry], by: By, services: &Services) -> Markup {
    let mut shown: Vec<&TopEntry> = entries.iter().filter(|entry| entry.at_least() > 0).collect();
    shown.sort_by_key(|entry| Reverse((entry.count, entry.at_least())));
    let whole = whole(&shown);
    let left_out = entries.len() - shown.len();
    html! {
        ol.bars {
            @for entry in shown {
                li {
                    span.name { (strange(&called(by, entry, services))) }
                    (bar(entry, whole))
                    span.amount {
                        (amount(entry))
                        @if let Some(share) = entry.share { " " span.soft { (share_of(entry, share)) } }
                    }
                }
            }
        }
        @if left_out > 0 {
            p.soft { "Left out, because nothing of them is certain: " (thousands(left_out as u64)) "." }
        }
    }
}

/// What a bar of the whole width stands for: all that the shares are of, or else the largest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and saturates"
)]
fn whole(shown: &[&TopEntry]) -> u64 {
    let all = |entry: &&TopEntry| {
        let share = entry.share.filter(|share| *share > 0.0)?;
        Some((entry.count as f64 / share).round() as u64)
    };
    let most = shown.iter().map(|entry| entry.at_most()).max().unwrap_or(1).max(1);
    shown.first().and_then(all).unwrap_or(most).max(most)
}

fn bar(entry: &TopEntry, whole: u64) -> Markup {
    let of = |count: u64| count as f64 / whole as f64;
    let (least, most) = (of(entry.at_least()), of(entry.at_most()));
    html! {
        svg.bar width="100%" height="14" aria-hidden="true" {
            rect.track width="100%" height="14" {}
            rect.sure width=(part(least)) height="14" {}
            @if most > least {
                rect.perhaps x=(part(least)) width=(part(most - least)) height="14" {}
                line.error x1=(part(least)) x2=(part(most)) y1="7" y2="7" {}
                line.error x1=(part(least)) x2=(part(least)) y1="3" y2="11" {}
                line.error x1=(part(most)) x2=(part(most)) y1="3" y2="11" {}
            }
        }
    }
}

/// A share of what is not exact is none either.
fn share_of(entry: &TopEntry, share: f64) -> String {
    match entry.at_least() == entry.at_most() {
        true => percent(share),
        false if entry.estimate.is_some() => format!("about {}", percent(share)),
        false => format!("at most {}", percent(share)),
    }
}

/// `exactly 1,200`, `between 380 and 400`, `about 5,000 (4,700 to 5,300, 99.9% sure)`
pub(super) fn amount(entry: &TopEntry) -> String {
    let (least, most) = (entry.at_least(), entry.at_most());
    match entry.estimate {
        None => between(least, most),
        Some(_) => format!(
            "about {} ({} to {}, {:.1}% sure)",
            thousands(entry.count),
            thousands(least),
            thousands(most),
            CONFIDENCE * 100.0
        ),
    }
}

pub(super) fn called(by: By, entry: &TopEntry, services: &Services) -> String {
    talker(by, entry, services)
}
