//! The doctor, of a recording: the same findings from what was recorded then.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use ctwatch_abi::top::By;
use jiff::Timestamp;

use crate::{
    cli::DEFAULT_BY,
    diagnosis::{self, Case, measurement, report::Report, tracking},
    model::{Snapshot, Table, census::Taken},
    observe::{event::Event, survey::totals},
    output::aside,
    record::{
        facts::{Facts, Form},
        sample::Sample,
        session::{FORMAT, Header},
    },
    recording::{
        mask::Mask,
        play::{Player, Playing},
    },
};

/// Of each list.
pub(super) const MOST: usize = 20;
/// Drops are counted for so long before the moment that is looked at.
const BEFORE: Duration = Duration::from_secs(60);
/// And for so long after it, a census says who held the tables then.
const AFTER: Duration = Duration::from_secs(30);
/// From this fill on it matters who holds a table.
const FILLING: f64 = 0.5;

/// A recording that lacks what the doctor goes by. An archive may hold the same as text.
#[derive(Debug)]
pub(super) struct NotRecorded(String);

impl std::fmt::Display for NotRecorded {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NotRecorded {}

pub(super) fn examine(path: &Path, at: Option<Timestamp>, mask: Option<&Mask>) -> Result<Report> {
    let at = match at {
        Some(at) => at,
        None => match worst(path, None, None)? {
            Some(at) => at,
            None => return without_ticks(path, mask),
        },
    };
    examine_at(path, at, mask)
}

/// Of a part, at its worst moment.
pub(super) fn examine_worst(
    path: &Path,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    mask: Option<&Mask>,
) -> Result<Report> {
    let worst = worst(path, since, until)?;
    examine_at(path, worst.with_context(|| format!("no tick is in {}", path.display()))?, mask)
}

fn examine_at(path: &Path, at: Timestamp, mask: Option<&Mask>) -> Result<Report> {
    let since = at.checked_sub(BEFORE).unwrap_or(at);
    let until = at.checked_add(AFTER).unwrap_or(at);
    let playing = Playing { mask: mask.cloned(), ..playing(Some(since), Some(until), &DEFAULT_BY) };
    let mut player = Player::open(path, playing)?;
    let (mut header, mut snapshot, mut sample) = (None, None, None);
    let (mut later, mut later_census) = (None, None);
    loop {
        match player.next_event()? {
            Event::Begin { header: now, snapshot: first, sample: read, .. } if first.time <= at => {
                (header, snapshot, sample) = (Some(now), Some(first), Some(read));
            }
            // Another life: its census is not of that table.
            Event::Begin { .. } => break,
            Event::Tick { snapshot: now, sample: read } if now.time <= at => {
                (snapshot, sample, later_census) = (Some(now), Some(read), None);
            }
            Event::Tick { snapshot: now, .. } => later = Some(now.time),
            Event::Census(taken) => later_census = Some(taken),
            Event::Note(note) if later.is_none() => aside::say(&note),
            Event::End => break,
            _ => {}
        }
        if later.is_some() && later_census.is_some() {
            break;
        }
    }
    let of = || format!("of {at} in {}", path.display());
    let header = header.with_context(|| format!("nothing is recorded {}", of()))?;
    let snapshot = snapshot.with_context(|| format!("nothing is recorded {}", of()))?;
    let (looked, facts) = player.facts().ok_or_else(|| {
        NotRecorded(format!("rules and settings are not recorded {}: `ctwatch record` does", of()))
    })?;
    aside::say(&format!("as it was at {}; rules and settings as of {looked}", snapshot.time));
    // The nearest one: at the worst moment none may have been taken for long, and then one soon.
    let fits = |taken: &Taken| is_of(taken, &snapshot);
    let before = snapshot.census.as_ref().filter(|(taken, _)| fits(taken));
    let later_census = later_census.filter(|taken| fits(taken));
    let wait = later.and_then(|later| Duration::try_from(later.duration_since(at)).ok());
    let of_before = || {
        let (taken, age) = before?;
        Some((Arc::clone(taken), snapshot.time.checked_sub(*age).ok()?))
    };
    let is_nearer = before.is_some_and(|(_, age)| *age < wait.unwrap_or_default());
    let census = match later_census {
        Some(_) if is_nearer => of_before(),
        Some(taken) => Some((taken, later.unwrap_or(at))),
        None => of_before(),
    };
    let facts = as_read(facts.as_ref().clone(), &snapshot, sample.as_deref());
    Ok(report(&header, &snapshot, census, &facts))
}

/// Where conntrack was not there: by its facts, which say so.
fn without_ticks(path: &Path, mask: Option<&Mask>) -> Result<Report> {
    let playing = Playing { mask: mask.cloned(), ..playing(None, None, &[]) };
    let mut player = Player::open(path, playing)?;
    while !matches!(player.next_event()?, Event::End) {}
    let facts = player.facts().map(|(_, facts)| facts);
    let absent = facts.filter(|facts| facts.form == Form::Absent);
    let facts = absent.ok_or_else(|| NotRecorded(format!("no tick is in {}", path.display())))?;
    let header = Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: facts.release.clone(),
        boot_id: None,
        interval: Duration::ZERO,
        mechanisms: Vec::new(),
        notes: Vec::new(),
        top_bytes: None,
    };
    let case =
        Case { facts, census: Err("nothing is tracked"), live: None, settings: Default::default() };
    Ok(Report {
        tracking: tracking::tracking(facts),
        findings: diagnosis::findings(&case),
        ..measurement::past(&header, facts.form)
    })
}

/// What was read in the tick is nearer than what the look at rules found.
pub(super) fn as_read(mut facts: Facts, snapshot: &Snapshot, sample: Option<&Sample>) -> Facts {
    for namespace in &mut facts.namespaces {
        let table = snapshot.tables.iter().find(|table| table.id == namespace.id);
        if let Some(entries) = table.and_then(|table| table.entries) {
            namespace.entries = Ok(entries);
        }
        if let Some(limit) = table.and_then(|table| table.limit) {
            facts.limit = Ok(limit);
        }
        let tables = sample.map_or(&[][..], |sample| &sample.tables);
        let read = tables.iter().find(|table| table.id == namespace.id);
        if let Some(counters) = read.and_then(|table| table.counters.as_ref()) {
            namespace.totals = Ok(totals(counters));
        }
    }
    facts
}

pub(super) fn report(
    header: &Header,
    snapshot: &Snapshot,
    census: Option<(Arc<Taken>, Timestamp)>,
    facts: &Facts,
) -> Report {
    let case = case(snapshot, census.as_ref().map(|(taken, _)| taken.as_ref()), facts);
    Report {
        tracking: tracking::tracking(facts),
        findings: diagnosis::findings(&case),
        census: census.as_ref().map(|(_, time)| *time),
        ..measurement::past(header, facts.form)
    }
}

pub(super) fn case<'a>(
    snapshot: &'a Snapshot,
    census: Option<&'a Taken>,
    facts: &'a Facts,
) -> Case<'a> {
    Case {
        facts,
        census: census.ok_or("no census was recorded near that time"),
        live: Some(snapshot),
        settings: Default::default(),
    }
}

/// Whether it found about as many entries as there were at that moment, in each table that was filling: one of
/// before the flood says nothing of it.
fn is_of(taken: &Taken, snapshot: &Snapshot) -> bool {
    let filling =
        |table: &&Table| table.is_judged && table.fill.is_some_and(|fill| fill >= FILLING);
    snapshot.tables.iter().filter(filling).all(|table| {
        let counted = taken.counted.table(table.id).map_or(0, |census| census.holds.all());
        let entries = u64::from(table.entries.unwrap_or(0));
        counted.abs_diff(entries) * 5 <= entries
    })
}

fn playing(since: Option<Timestamp>, until: Option<Timestamp>, by: &[By]) -> Playing {
    Playing { since, until, length: MOST, by: by.to_vec(), ..Playing::default() }
}

/// The tick in which most was dropped, or where nothing was, in which a table was fullest.
fn worst(
    path: &Path,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Option<Timestamp>> {
    let mut player = Player::open(path, playing(since, until, &[]))?;
    let mut worst = None;
    loop {
        match player.next_event()? {
            Event::Tick { snapshot, .. } => {
                let judged = || snapshot.tables.iter().filter(|table| table.is_judged);
                let dropped: f64 = judged().filter_map(|table| table.dropped.per_s).sum();
                let fill = judged().filter_map(|table| table.fill).fold(0.0, f64::max);
                if worst.is_none_or(|(_, most)| (dropped, fill) > most) {
                    worst = Some((snapshot.time, (dropped, fill)));
                }
            }
            Event::End => break,
            _ => {}
        }
    }
    Ok(worst.map(|(time, _)| time))
}
