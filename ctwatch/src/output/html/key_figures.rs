//! The figures of the worst table, and of all of them side by side.

use maud::{Markup, html};

use super::{
    notable::notable,
    words::{Clock, counted, full_for, how_exact, lasting, many, name, owner, percent, thousands},
};
use crate::model::{
    figure::Bounds,
    story::{CLASH, FullTime, NAT_EXHAUSTED, TableStory, WholeStory},
};

pub(super) fn section(story: &WholeStory, clock: &Clock) -> Markup {
    html! {
        section #key-figures {
            h2 { "Key figures" }
            @if let Some(worst) = story.tables.first() { (of_worst(story, worst, clock)) }
            @if story.tables.len() > 1 { (of_all(story, clock)) }
        }
    }
}

fn row(what: Markup, value: Markup, exact: &str) -> Markup {
    html! { tr { th scope="row" { (what) } td.value { (value) } td.exact { (exact) } } }
}

fn count_row(what: &str, bounds: Bounds) -> Markup {
    row(html! { (what) }, html! { (counted(bounds)) }, how_exact(bounds))
}

fn of_worst(story: &WholeStory, worst: &TableStory, clock: &Clock) -> Markup {
    let counts = &worst.counts;
    let named = worst.last.drops.named();
    let reasons: Vec<(&str, Bounds)> =
        named.iter().zip(counts.reasons).map(|((name, _), count)| (*name, count)).collect();
    let (quiet, told): (Vec<_>, Vec<_>) =
        reasons.into_iter().partition(|(_, count)| *count == Bounds::exactly(0));
    let (unmeasured, told): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|(_, count)| *count == Bounds::Unmeasured);
    let both = counts.clash_or_nat_exhausted;
    let is_exact = |bounds: Bounds| matches!(bounds, Bounds::Within { at_least, at_most: Some(most) } if at_least == most);
    let is_both_told = is_exact(both)
        && !(is_exact(counts.reasons[CLASH]) && is_exact(counts.reasons[NAT_EXHAUSTED]));
    html! {
        table.figures {
            caption { "The worst table: " (name(&worst.last)) }
            thead { tr { th scope="col" { "figure" } th scope="col" { "value" } th scope="col" { "how exact" } } }
            tbody {
                (peak(story, worst, clock))
                (full(story, worst, clock))
                (count_row("packets dropped", counts.dropped))
                @for (name, count) in told {
                    (row(html! { "… for " code { (name) } }, html! { (counted(count)) }, how_exact(count)))
                }
                @if is_both_told {
                    (row(
                        html! { "… for " code { "clash" } " or " code { "nat_exhausted" } },
                        html! { (counted(both)) },
                        "exact together, where neither is alone",
                    ))
                }
                (together("… for ", &quiet, "exactly 0", "exact"))
                (together("… for ", &unmeasured, "not measured", how_exact(Bounds::Unmeasured)))
                (count_row("entries evicted early (early_drop)", counts.early_drop))
                (count_row("entries inserted", counts.insertions))
                (count_row("packets that fit no connection (invalid)", counts.invalid))
                (row(
                    html! { "events that no probe saw (lost)" },
                    html! { (thousands(story.lost)) },
                    "in all tables together",
                ))
            }
        }
    }
}

fn together(before: &str, reasons: &[(&str, Bounds)], value: &str, exact: &str) -> Markup {
    html! {
        @if !reasons.is_empty() {
            (row(
                html! {
                    (before)
                    @for (at, (name, _)) in reasons.iter().enumerate() {
                        @if at > 0 { ", " }
                        code { (name) }
                    }
                },
                html! { (value) },
                exact,
            ))
        }
    }
}

fn peak(story: &WholeStory, table: &TableStory, clock: &Clock) -> Markup {
    let Some(peak) = table.peak else {
        return row(html! { "entries at the fullest" }, html! { "not measured" }, "not readable");
    };
    let value = html! {
        (thousands(peak.entries))
        @match (peak.limit, peak.fill()) {
            (Some(limit), Some(fill)) => { " of " (thousands(limit)) " (" (percent(fill)) ")" },
            (Some(_), None) => { ", no limit" },
            (None, _) => { ", limit unknown" },
        }
        " at " (clock.time(story.time(peak.at)))
    };
    row(
        html! { "entries at the fullest" },
        value,
        "read once each snapshot: it may have been fuller between",
    )
}

fn full(story: &WholeStory, table: &TableStory, clock: &Clock) -> Markup {
    let Some(full) = &table.full else {
        return row(html! { "full" }, html! { "never seen" }, "as of each snapshot");
    };
    let value = html! {
        (full_for(full)) @if full.times > 1 { " in " (thousands(full.times)) " times" }
        ", " (clock.time(story.time(full.first))) " to "
        @if full.still { "the end" } @else { (clock.time(story.time(full.last))) }
    };
    row(html! { "full" }, value, how_long(full))
}

fn how_long(full: &FullTime) -> &'static str {
    match full.at_least == full.at_most {
        true => "between snapshots that all saw it full",
        false => "range: it changed between two snapshots, or in a gap",
    }
}

fn of_all(story: &WholeStory, clock: &Clock) -> Markup {
    let (open, folded) = notable(&story.tables);
    html! {
        @if !open.is_empty() { (side_by_side(story, &open, clock, "Tables worth a look, the worst first")) }
        @if !folded.is_empty() {
            details {
                summary { (many(folded.len() as u64, "quieter table", "quieter tables")) }
                (side_by_side(story, &folded, clock, "Quieter tables, the worst first"))
            }
        }
        @if story.quiet > 0 {
            p.soft { (many(story.quiet as u64, "namespace", "namespaces")) " tracked nothing at the end." }
        }
    }
}

fn side_by_side(story: &WholeStory, tables: &[&TableStory], clock: &Clock, title: &str) -> Markup {
    html! {
        div.wide {
            table.all {
                caption { (title) }
                thead {
                    tr {
                        @for title in ["table", "fullest", "full", "dropped", "for table_full", "early_drop", "inserted"] {
                            th scope="col" { (title) }
                        }
                    }
                }
                tbody { @for table in tables { (one(story, table, clock)) } }
            }
        }
    }
}

fn one(story: &WholeStory, table: &TableStory, clock: &Clock) -> Markup {
    let counts = &table.counts;
    html! {
        tr {
            th scope="row" {
                (name(&table.last))
                @if let Some(owner) = owner(&table.last) { " (" (owner) ")" }
            }
            td data-label="fullest" {
                @match table.peak {
                    None => { "not readable" },
                    Some(peak) => {
                        @match peak.fill() {
                            Some(fill) => { (percent(fill)) },
                            None => { (thousands(peak.entries)) " entries" },
                        }
                        " at " (clock.time(story.time(peak.at)))
                    }
                }
            }
            td data-label="full" {
                @match &table.full { None => { "never seen" }, Some(full) => { (full_for(full)) } }
            }
            td data-label="dropped" { (counted(counts.dropped)) }
            td data-label="for table_full" { (counted(counts.table_full())) }
            td data-label="early_drop" { (counted(counts.early_drop)) }
            td data-label="inserted" { (counted(counts.insertions)) }
        }
    }
}

/// `every 1 s, …`: for the part on exactness.
pub(super) fn sampling(story: &WholeStory) -> String {
    match story.usual_step {
        Some(step) => format!(
            "Entries are read once every {}; what was between two readings is not known. A point of a \
             time line covers up to {}.",
            lasting(step),
            lasting(story.width)
        ),
        None => "There is one snapshot only: nothing is known of any change.".to_owned(),
    }
}
