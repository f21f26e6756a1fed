//! What happened: a line for each incident, or all of one.

use std::io::{self, Write};

use ctwatch_abi::top::{By, Stream};
use jiff::tz::TimeZone;

use super::{
    measure::Measure,
    shares::shares,
    shown::ShownTops,
    summary, who,
    words::{count, percent, shortened, shown_name, time, total},
    wrap::wrapped,
};
use crate::{
    model::{
        Drops,
        figure::{Exactness, Figure},
        incident::{Ending, Incident, Stage, Tick},
    },
    output::escape::escaped,
};

/// How they are shown.
#[derive(Clone, Debug)]
pub struct Rendering {
    pub columns: usize,
    pub zone: TimeZone,
    pub tops: ShownTops,
}

/// Which columns there are, and how wide the name's is.
struct Layout {
    lasted: bool,
    peak: bool,
    name_width: usize,
}

const BEGIN_WIDTH: usize = 19;
const LASTED_WIDTH: usize = 8;
const PEAK_WIDTH: usize = 6;
const DROPPED_WIDTH: usize = 9;

impl Layout {
    fn of(columns: usize) -> Self {
        let width = |name: usize| BEGIN_WIDTH + 1 + name + 1 + DROPPED_WIDTH;
        let (lasted, peak) = (LASTED_WIDTH + 1, PEAK_WIDTH + 1);
        let name_width = match columns {
            0..80 => 10,
            80..160 => 15,
            _ => 38,
        };
        let width = width(name_width);
        Self {
            lasted: width + lasted <= columns,
            peak: width + lasted + peak <= columns,
            name_width,
        }
    }

    fn row(&self, [begin, lasted, name, peak, dropped]: [&str; 5]) -> String {
        let mut row = format!("{begin:<BEGIN_WIDTH$}");
        if self.lasted {
            row.push_str(&format!(" {lasted:>LASTED_WIDTH$}"));
        }
        row.push_str(&format!(" {name:<width$}", width = self.name_width));
        if self.peak {
            row.push_str(&format!(" {peak:>PEAK_WIDTH$}"));
        }
        row.push_str(&format!(" {dropped:>DROPPED_WIDTH$}"));
        row
    }
}

/// One line for each, and where the terminal is narrow two. `untold`: so many more there were.
pub fn list<'a>(
    out: &mut impl Write,
    incidents: impl IntoIterator<Item = &'a Incident>,
    untold: u64,
    rendering: &Rendering,
) -> io::Result<()> {
    let layout = Layout::of(rendering.columns);
    let mut is_first = true;
    for incident in incidents {
        if std::mem::take(&mut is_first) {
            let titles = layout.row(["begin", "lasted", "netns", "peak", "dropped"]);
            beside(out, &titles, "why; who", rendering.columns)?;
        }
        let row = layout.row([
            &moment(incident.begin, &rendering.zone),
            &lasted(incident),
            &shortened(&name(incident), layout.name_width),
            &peak_fill(incident),
            &total(&incident.happened.dropped),
        ]);
        let mut rest = vec![why(incident)];
        rest.extend(control_plane(incident).map(|planes| format!("control plane: {planes}")));
        rest.extend(first(incident, &rendering.tops).map(|who| escaped(&who)));
        beside(out, &row, &rest.join("; "), rendering.columns)?;
    }
    if is_first {
        wrapped(out, "no incident", rendering.columns)?;
    }
    match untold {
        0 => Ok(()),
        1 => wrapped(out, "1 incident more, at the same time, was only counted", rendering.columns),
        more => {
            let line = format!("{more} incidents more, at the same time, were only counted");
            wrapped(out, &line, rendering.columns)
        }
    }
}

/// On the same line where there is room, else below.
fn beside(out: &mut impl Write, row: &str, rest: &str, columns: usize) -> io::Result<()> {
    if row.chars().count() + 2 + rest.chars().count() <= columns {
        return writeln!(out, "{row}  {rest}");
    }
    writeln!(out, "{row}")?;
    wrapped(out, &format!("  {rest}"), columns)
}

/// One line of one, for a log. Not escaped.
pub fn line(incident: &Incident) -> String {
    let mut line = format!("{}: {}: {}", name(incident), headline(incident), why(incident));
    if let Some(planes) = control_plane(incident) {
        line.push_str(&format!("; control plane: {planes}"));
    }
    format!("{line}; id {}", incident.id)
}

/// All of one.
pub fn one(out: &mut impl Write, incident: &Incident, rendering: &Rendering) -> io::Result<()> {
    let Rendering { columns, zone, tops } = rendering;
    // With its day, where that is another.
    let at = |time: jiff::Timestamp| {
        let (time, begin) =
            (time.to_zoned(zone.clone()), incident.begin.time.to_zoned(zone.clone()));
        let is_same = time.date() == begin.date();
        time.strftime(if is_same { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
    };
    let name = escaped(&name(incident));
    let mut lines = vec![
        format!("{name} (inode {}): {}", incident.inode, headline(incident)),
        format!("  id {}", incident.id),
        began(incident, zone, at),
        ended(incident, at),
    ];
    let entries = count(incident.entries);
    lines.push(match &incident.peak {
        Some(peak) => format!(
            "  entries: {entries} when it began; {} of {} at the peak ({}), {}",
            peak.entries,
            count(peak.limit),
            percent(peak.fill),
            at(peak.at.time),
        ),
        None => "  entries: not readable".to_owned(),
    });
    let happened = &incident.happened;
    lines.push(summary::dropped(&happened.dropped, &happened.drops));
    lines.push(summary::listed("inserted", &[("", &happened.insertions)]));
    lines.push(summary::listed("removed", &[("", &happened.removals)]));
    lines.push(summary::listed("evicted by early_drop", &[("", &happened.early_drop)]));
    lines
        .extend(control_plane(incident).map(|planes| format!("  CONTROL PLANE DROPPED: {planes}")));
    for kept in &incident.tops {
        let lists = kept.lists.iter().filter(|list| tops.by.contains(&list.by));
        let lists = lists.filter_map(|list| who::of_list(list, tops, measure(kept.per_s)));
        lines.extend(lists.map(|line| format!("  {}: {}", at(kept.at.time), escaped(&line))));
    }
    if let Some(census) = &incident.census {
        let torn = if census.is_torn { "; none of it is exact" } else { "" };
        let time = at(census.time);
        let shares = shares(&census.holds);
        lines.push(format!("  {time}: holding: {shares}; census by {}{torn}", census.by));
        let held = census.top.iter().filter_map(|list| who::held_by(list, tops));
        lines.extend(held.map(|line| format!("  {time}: {}", escaped(&line))));
    }
    for line in lines {
        wrapped(out, &line, *columns)?;
    }
    Ok(())
}

fn name(incident: &Incident) -> String {
    shown_name(incident.name.as_deref(), &incident.workload, incident.inode)
}

fn moment(tick: Tick, zone: &TimeZone) -> String {
    tick.time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn began(incident: &Incident, zone: &TimeZone, at: impl Fn(jiff::Timestamp) -> String) -> String {
    let begin = moment(incident.begin, zone);
    let after = match incident.begin_after {
        Some(after) => format!("after {}", at(after.time)),
        None => "or before: nobody watched".to_owned(),
    };
    format!("  began {begin} ({after}): {}", incident.cause.name())
}

fn ended(incident: &Incident, at: impl Fn(jiff::Timestamp) -> String) -> String {
    let (last, over) = (at(incident.last.time), incident.over.map(|over| at(over.time)));
    let over = over.map_or_else(String::new, |over| format!(" (before {over})"));
    match incident.ending {
        Ending::Open => format!("  has not ended; last seen {last}"),
        Ending::Quiet => format!("  ended {last}{over}: quiet since"),
        Ending::Gone => format!("  ended {last}{over}: the namespace is gone"),
        Ending::Unloaded => format!("  ended {last}: nf_conntrack was unloaded"),
        Ending::Unwatched => format!("  last seen {last}{over}: not watched since, for too long"),
    }
}

/// `packets dropped, for 4m10s`
fn headline(incident: &Incident) -> String {
    let what = match (incident.stage, incident.was_full) {
        (Stage::Dropping, true) => "table full, packets dropped",
        (Stage::Dropping, false) => "packets dropped",
        (Stage::Full, _) => "table full",
        (Stage::Filling, _) => "table nearly full",
    };
    format!("{what}, for {}", lasted(incident))
}

/// From the first reading that shows it to the last, in whole seconds: `4m10s`; `>=4m10s` where it may have
/// gone on; `<=2s` where one reading shows it.
fn lasted(incident: &Incident) -> String {
    let (seen, most) = incident.duration();
    let seen = time(seen.as_secs_f64().floor());
    match most {
        None => format!(">={seen}"),
        Some(most) if incident.begin == incident.last => format!("<={}", time(most.as_secs_f64())),
        Some(_) => seen,
    }
}

/// A burst between two readings fills a table that neither of them finds full.
fn peak_fill(incident: &Incident) -> String {
    match incident.was_full {
        true => "FULL".to_owned(),
        false => percent(incident.peak.and_then(|peak| peak.fill)),
    }
}

/// `table_full 1783, clash <=3`, or what it was instead.
fn why(incident: &Incident) -> String {
    let happened = &incident.happened;
    let is_some = |figure: &Figure| figure.total.is_some_and(|total| total > 0);
    let Drops { clash, nat_exhausted, clash_or_nat_exhausted, .. } = &happened.drops;
    let is_exact = |figure: &Figure| figure.exactness == Exactness::Exact;
    let mut reasons = happened.drops.named().to_vec();
    // Together they are often exact where neither is alone.
    if is_exact(clash_or_nat_exhausted) && !(is_exact(clash) && is_exact(nat_exhausted)) {
        reasons.retain(|(reason, _)| !["clash", "nat_exhausted"].contains(reason));
        reasons.push(("clash or nat_exhausted", clash_or_nat_exhausted));
    }
    let counted = reasons.iter().filter(|(_, figure)| is_some(figure));
    let counted: Vec<String> =
        counted.map(|(reason, figure)| format!("{reason} {}", total(figure))).collect();
    let state = match incident.stage {
        Stage::Dropping => None,
        Stage::Full => Some("full"),
        Stage::Filling => Some("nearly full"),
    };
    let mut parts: Vec<String> = state.map(str::to_owned).into_iter().collect();
    match counted.is_empty() {
        false => parts.push(counted.join(", ")),
        true if is_exact(&happened.dropped) => {
            parts.push("nothing dropped".to_owned());
        }
        true => parts.push(format!("dropped {}", total(&happened.dropped))),
    }
    parts.join(", ")
}

fn control_plane(incident: &Incident) -> Option<String> {
    let planes = incident.control_plane.iter();
    let planes = planes.map(|plane| format!("{} {}", plane.protocol, total(&plane.dropped)));
    let planes: Vec<String> = planes.collect();
    (!planes.is_empty()).then(|| planes.join(", "))
}

/// Who it was: whose packets were dropped, or else who inserted, or else who holds the table.
fn first(incident: &Incident, tops: &ShownTops) -> Option<String> {
    let tops = ShownTops { most: 1, ..tops.clone() };
    let of = |stream: Stream, by: By| {
        let kept = incident.tops.iter().find(|kept| kept.stream == stream)?;
        let list = kept.lists.iter().find(|list| list.by == by)?;
        who::of_list(list, &tops, measure(kept.per_s))
    };
    let held = |by: By| {
        let census = incident.census.as_ref()?;
        who::held_by(census.top.iter().find(|list| list.by == by)?, &tops)
    };
    let each = |find: &dyn Fn(By) -> Option<String>| tops.by.iter().find_map(|by| find(*by));
    each(&|by| of(Stream::Drops, by))
        .or_else(|| each(&|by| of(Stream::Insertions, by)))
        .or_else(|| each(&held))
}

/// A list without a rate tells of all that was counted.
fn measure(per_s: f64) -> Measure {
    if per_s > 0.0 { Measure::Now } else { Measure::InAll }
}
