//! What happened, in one sentence, and what else a reader must not miss.

use ctwatch_abi::top::{By, Stream};
use maud::{Markup, html};

use super::{
    bars::named,
    input::Input,
    who,
    words::{Clock, counted, full_about, lasting, many, name, percent, strange, thousands},
};
use crate::{
    diagnosis::report::Severity,
    model::{
        figure::Bounds,
        story::{DropShares, FullTime, TableStory, WholeStory},
        top::TopEntry,
    },
};

/// For the list of open pages: no name of a stranger.
pub(super) fn title(story: &WholeStory) -> String {
    let dropped: u64 = story.tables.iter().map(|table| table.counts.surely_dropped()).sum();
    let full = story.tables.iter().filter(|table| table.full.is_some()).count() as u64;
    match (full, dropped) {
        (0, 0) => "conntrack: nothing was seen to be dropped".to_owned(),
        (0, dropped) => {
            format!("conntrack: {} dropped", many(dropped, "packet", "packets"))
        }
        (full, dropped) => format!(
            "conntrack: {} full, {} dropped",
            many(full, "table", "tables"),
            many(dropped, "packet", "packets")
        ),
    }
}

pub(super) fn section(input: &Input<'_>, clock: &Clock) -> Markup {
    let story = input.story;
    html! {
        header {
            h1 { (sentence(input, clock)) }
            p.soft { (period(story, clock)) " " "Linux " (strange(&input.header.kernel)) ", ctwatch " (strange(&input.header.version)) "." }
            ul.short {
                @for table in &story.tables { (planes(table)) }
                (others(story))
                @if story.all_gaps.0 > 0 {
                    li {
                        "For " (lasting(story.all_gaps.1)) ", in "
                        (many(story.all_gaps.0, "gap", "gaps"))
                        ", nothing was recorded: what the tables held then is not known."
                    }
                }
                @if story.unread > 0 {
                    li {
                        (many(story.unread as u64, "namespace", "namespaces"))
                        " could not be read: nothing is known of them."
                    }
                }
                (found(input))
            }
        }
    }
}

fn sentence(input: &Input<'_>, clock: &Clock) -> Markup {
    let story = input.story;
    let Some(worst) = story.tables.first() else {
        return html! { "Nothing was tracked in any table that could be read." };
    };
    let is_unknown = |table: &TableStory| is_unknown(table.counts.dropped);
    let dropped = worst.counts.dropped;
    match (&worst.full, dropped) {
        (Some(full), _) => of_full(input, clock, worst, full),
        _ if dropped.total().is_some_and(|most| most > 0) => html! {
            (none_full(story)) "; conntrack dropped " (packets(dropped)) " in " (name(&worst.last))
            (main_reason(worst)) "."
        },
        _ if story.tables.iter().any(is_unknown) => html! {
            (none_full(story)) "; whether packets were dropped is not known"
            @if !story.tables.iter().all(is_unknown) { " of each" } "."
            (fullest(story, clock))
        },
        _ => html! {
            (none_full(story)) @if is_nothing(story) { ", and conntrack dropped nothing" } "."
            (fullest(story, clock))
        },
    }
}

/// Of the worst table it is known that it was not.
fn none_full(story: &WholeStory) -> &'static str {
    let any = |judged: bool| {
        story.tables.iter().any(|table| table.last.is_judged == judged && table.full.is_some())
    };
    match (any(true) || story.left_out_full, any(false)) {
        (false, false) => "No table was seen full",
        (false, true) => "No table of the host was seen full",
        (true, _) => "The table that dropped most was never seen full",
    }
}

fn of_full(input: &Input<'_>, clock: &Clock, worst: &TableStory, full: &FullTime) -> Markup {
    let story = input.story;
    let (first, last) = (clock.time(story.time(full.first)), clock.time(story.time(full.last)));
    // What the kernel says of a full table, or else all that was dropped.
    let of_full = worst.counts.table_full();
    let (counted_of, why) = match of_full {
        Bounds::Unmeasured => (worst.counts.dropped, ""),
        of_full => (of_full, " because of it"),
    };
    html! {
        "The conntrack table of " (name(&worst.last)) " was full " (full_about(full))
        @if full.still { " from " (first) " on" }
        @else if first != last { " between " (first) " and " (last) }
        @else { " at " (first) }
        @match counted_of {
            unknown if is_unknown(unknown) => { "; how many packets were dropped is not known" },
            Bounds::Within { at_most: Some(0), .. } => { ", and no packet was dropped" (why) },
            dropped => { ": " (packets(dropped)) " dropped" (why) (by_whom(input, worst)) },
        }
        "."
    }
}

/// Nothing is known of it: neither a number nor a bound.
fn is_unknown(count: Bounds) -> bool {
    matches!(count, Bounds::Unmeasured | Bounds::Within { at_least: 0, at_most: None })
}

/// `exactly 1,783 packets`
fn packets(bounds: Bounds) -> String {
    let one = matches!(bounds, Bounds::Within { at_least: 1, at_most: Some(1) });
    format!("{} {}", counted(bounds), if one { "packet" } else { "packets" })
}

/// The first of the list of sources, or of another list.
fn by_whom(input: &Input<'_>, worst: &TableStory) -> Markup {
    let of = |by: By| {
        let list = worst.lists.iter().find(|l| l.stream == Stream::Drops && l.by == by)?;
        let most = |entry: &&TopEntry| entry.at_least();
        list.entries.iter().max_by_key(most).filter(|e| e.at_least() > 0).map(|entry| (by, entry))
    };
    let order = [By::Source, By::Service, By::Process, By::Interface, By::Flow, By::Destination];
    html! {
        @match order.into_iter().find_map(of) {
            None => { "; whose they were was not counted" },
            Some((by, entry)) => {
                ", " (who::amount(entry)) " of them "
                @match by {
                    By::Service | By::Destination => { "to " },
                    By::Process => { "by the process " },
                    By::Interface => { "through " },
                    _ => { "from " },
                }
                (strange(&who::called(by, entry, input.services)))
            }
        }
    }
}

fn main_reason(worst: &TableStory) -> Markup {
    let shares = DropShares::between(&worst.before, &worst.counts);
    let named = named(worst, &shares);
    // Not those whose reason is not told apart.
    let reasons = named.iter().take(named.len() - 1);
    let most = reasons.max_by_key(|(_, count)| count).filter(|(_, count)| *count > 0);
    html! {
        @if let Some((name, count)) = most {
            ", at least " (thousands(*count)) " of them for " code { (name) }
        }
    }
}

fn is_nothing(story: &WholeStory) -> bool {
    story.tables.iter().all(|table| table.counts.dropped == Bounds::exactly(0))
        && story.left_out + story.unread == 0
}

fn fullest(story: &WholeStory, clock: &Clock) -> Markup {
    let judged = story.tables.iter().filter(|table| table.last.is_judged);
    let peaks = judged.filter_map(|table| Some((table, table.peak?, table.peak?.fill()?)));
    let fullest = peaks.max_by(|a, b| a.2.total_cmp(&b.2));
    html! {
        @if let Some((table, peak, fill)) = fullest {
            " The fullest, " (name(&table.last)) ", was " (percent(fill)) " full at "
            (clock.time(story.time(peak.at))) "."
        }
    }
}

fn period(story: &WholeStory, clock: &Clock) -> String {
    let (from, to) = (clock.whole(story.start), clock.whole(story.time(story.length)));
    let every = match story.usual_step {
        Some(step) => format!(", one every {}", lasting(step)),
        None => String::new(),
    };
    let snapshots = many(story.snapshots, "snapshot", "snapshots");
    format!("{from} to {to} ({}); {snapshots}{every}.", lasting(story.length))
}

/// A control plane that loses packets is an outage of its own.
fn planes(table: &TableStory) -> Markup {
    html! {
        @if table.planes.iter().any(|plane| plane.at_least > 0) {
            li.bad {
                "Control plane packets were dropped in " (name(&table.last)) ": "
                @for (at, plane) in table.planes.iter().filter(|p| p.at_least > 0).enumerate() {
                    @if at > 0 { ", " }
                    (plane.protocol) " "
                    @if plane.is_exact { "exactly " } @else { "at least " }
                    (thousands(plane.at_least))
                }
                "."
            }
        }
    }
}

/// Tables beside the worst that were full, or dropped packets.
fn others(story: &WholeStory) -> Markup {
    const NAMED: usize = 3;
    let is_bad = |table: &&TableStory| table.counts.surely_dropped() > 0 || table.full.is_some();
    let others: Vec<&TableStory> = story.tables.iter().skip(1).filter(is_bad).collect();
    let more = others.len().saturating_sub(NAMED);
    html! {
        @if !others.is_empty() {
            li {
                (many(others.len() as u64, "other table was", "other tables were"))
                " full or dropped packets: "
                @for (at, table) in others.iter().take(NAMED).enumerate() {
                    @if at > 0 { ", " }
                    (name(&table.last)) " ("
                    @if let Some(full) = &table.full { "full " (full_about(full)) ", " }
                    (counted(table.counts.dropped)) " dropped)"
                }
                @if more > 0 { " and " (more) " more" }
                "."
            }
        }
    }
}

fn found(input: &Input<'_>) -> Markup {
    let findings = input.report.map(|report| report.findings.as_slice()).unwrap_or_default();
    let worst = findings.iter().find(|finding| finding.severity < Severity::Info);
    html! {
        @if let Some(finding) = worst {
            li {
                "The doctor found: " (strange(&finding.title)) ". "
                a href="#findings" { "What to do about it" } "."
            }
        }
    }
}
