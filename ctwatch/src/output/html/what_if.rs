//! How full the tables would have been with a fix in force, and how that is reckoned.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{
    plane::{Height, Plot, path, span, spans},
    reckoning::Reckoning,
    words::{between, many, name, thousands},
};
use crate::{
    diagnosis::report::Fix,
    model::{
        effect::Effect,
        story::{Least, Most, TableStory, Unsaid, WhatIf},
    },
};

/// Tables that a fix is reckoned for.
const TABLES: usize = 5;

/// What is to say of one fix.
pub(super) fn with(of: &Reckoning<'_>, fix: &Fix) -> Markup {
    let Some(effect) = &fix.effect else { return html! {} };
    // Where no room was wanted there is nothing to say.
    let wanted =
        |table: &&TableStory| table.full.is_some() || matches!(effect, Effect::Fewer { .. });
    let tables = of.story.tables.iter().filter(wanted);
    let found = tables.filter_map(|table| Some((table, of.of(table, effect)?)));
    let found: Vec<_> = found.take(TABLES).collect();
    html! {
        @for (table, what_if) in &found { (one(of, table, what_if)) }
        @if found.iter().any(|(_, what_if)| what_if.would.is_ok()) {
            p.soft {
                "This holds for the same packets. Who was dropped may have tried again, and who is let in may \
                 send more."
            }
        }
    }
}

fn one(of: &Reckoning<'_>, table: &TableStory, what_if: &WhatIf) -> Markup {
    let would = match &what_if.would {
        Ok(would) => would,
        Err(why) => return unsaid(table, *why),
    };
    let when = match what_if.census {
        Some(at) => format!("when the census of {} was taken", of.clock.time(of.story.time(at))),
        None => "when it was fullest".to_owned(),
    };
    html! {
        p.what-if data-netns=(table.last.inode) data-at-least=(would.at_least) data-at-most=(would.at_most) {
            strong { "Had this been in force: " }
            (name(&table.last)) " would have held " (between(would.at_least, would.at_most)) " entries " (when)
            ". "
            (verdict(what_if, would.at_least, would.most).unwrap_or_default())
        }
        details.sum {
            summary { "How this is reckoned" }
            ul {
                @if would.at_least > 0 {
                    li { "At least " (thousands(would.at_least)) ": " (least(would.least)) "." }
                }
                li { "At most " (thousands(would.at_most)) ": " (most(of, &would.most, what_if)) "." }
            }
        }
    }
}

fn unsaid(table: &TableStory, why: Unsaid) -> Markup {
    html! {
        p.what-if {
            strong { "Had this been in force: " }
            (name(&table.last)) " "
            @match why {
                Unsaid::NothingToChange => {
                    "would have held the same entries: none was evicted and no packet was dropped for want of room."
                },
                Unsaid::Unbounded => {
                    "cannot be told: nobody knows how many packets were dropped, or entries evicted, at most. Where \
                     watching began anew meanwhile, a page of one part (--since, --until) may tell."
                },
                Unsaid::Unread => { "cannot be told: its entries were not read." },
            }
        }
    }
}

/// What follows from it.
fn verdict(what_if: &WhatIf, at_least: u64, most: Most) -> Option<String> {
    let limit = what_if.limit?;
    let is_then = what_if.census.is_some();
    let said = if most.all() < limit && is_then {
        "it would not have been full then"
    } else if most.all() < limit {
        "it would not have been full, and no packet would have been dropped for want of room"
    } else if at_least >= limit {
        "it would have been full all the same"
    } else {
        "whether it would have been full cannot be said"
    };
    let mut said = format!("The limit being {}, {said}.", thousands(limit));
    if most.all() >= limit && what_if.census.is_none() {
        let _ =
            write!(said, " One above {} would certainly have been enough.", thousands(most.all()));
    }
    Some(said)
}

fn least(least: Least) -> String {
    match least {
        Least::Read => "so many were there before anything was dropped or evicted".to_owned(),
        Least::Full { uncounted: 0 } => {
            "something was dropped or evicted because there were as many as there may be".to_owned()
        }
        Least::Full { uncounted } => format!(
            "something was dropped or evicted because there were as many as there may be, and the collector may \
             have evicted {} before",
            thousands(uncounted)
        ),
        Least::Counted { of, less } => format!(
            "of the {} that the census counted, no more than {} would not have been there, had the timeouts been \
             so for as long",
            thousands(of),
            thousands(less)
        ),
    }
}

fn most(of: &Reckoning<'_>, most: &Most, what_if: &WhatIf) -> String {
    let time = of.clock.time(of.story.time(most.at));
    let mut words = format!("at {time}, {} that were there", thousands(most.entries));
    if what_if.census.is_some() {
        words.push_str(", without those that would not have been");
    }
    let mut add = |count: u64, one: &str, more: &str| {
        if count > 0 {
            let _ = write!(words, ", {}", many(count, one, more));
        }
    };
    add(most.dropped, "packet dropped for want of room", "packets dropped for want of room");
    add(most.evicted, "entry evicted", "entries evicted");
    if most.dropped + most.evicted > 0 {
        words.push_str(" since the time line begins, each taken for an entry of its own");
    }
    if let Some(limit) = what_if.limit.filter(|limit| most.all() > *limit) {
        let (all, limit) = (thousands(most.all()), thousands(limit));
        let _ = write!(words, ": together {all}, of which {limit} fit");
    }
    words
}

/// A dashed line at the most that it would have held.
pub(super) fn picture(
    frame: &Plot<'_>,
    table: &TableStory,
    what_if: &WhatIf,
    height: Height,
) -> Markup {
    let (mut area, mut edge) = (String::new(), String::new());
    let mut is_drawn = false;
    for ((before, bucket), most) in spans(table).zip(&what_if.line) {
        let (Some(most), Some(entries)) = (most, bucket.entries) else {
            is_drawn = false;
            continue;
        };
        let (from, to) = span(before, bucket);
        let [x, end] = [from, to].map(|at| frame.x(at));
        let [low, high] = [f64::from(entries.least), *most as f64].map(|count| height.y(count));
        if low > high {
            let _ = write!(area, "M{x:.2} {low:.1}V{high:.1}H{end:.2}V{low:.1}z");
        }
        let _ = match is_drawn && bucket.joins {
            true => write!(edge, "V{high:.1}H{end:.2}"),
            false => write!(edge, "M{x:.2} {high:.1}H{end:.2}"),
        };
        is_drawn = true;
    }
    html! {
        (path("perhaps-held", &area))
        (path("what-if", &edge))
    }
}
