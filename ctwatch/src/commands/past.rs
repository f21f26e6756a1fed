//! The doctor, of a recording: the same findings from what was recorded then.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use ctwatch_abi::top::By;
use jiff::Timestamp;

use crate::{
    cli::DEFAULT_BY,
    diagnosis::{self, Case, measurement, report::Report, tracking},
    model::{Snapshot, census::Taken},
    observe::event::Event,
    output::aside,
    record::{facts::Facts, session::Header},
    recording::play::{Player, Playing},
};

/// Of each list.
pub(super) const MOST: usize = 20;
/// Drops are counted for so long before the moment that is looked at.
const BEFORE: Duration = Duration::from_secs(60);

pub(super) fn examine(path: &Path, at: Option<Timestamp>) -> Result<Report> {
    let at = match at {
        Some(at) => at,
        None => worst(path, None, None)?,
    };
    examine_at(path, at)
}

/// Of a part, at its worst moment.
pub(super) fn examine_worst(
    path: &Path,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Report> {
    examine_at(path, worst(path, since, until)?)
}

fn examine_at(path: &Path, at: Timestamp) -> Result<Report> {
    let since = at.checked_sub(BEFORE).unwrap_or(at);
    let playing = playing(Some(since), Some(at), &DEFAULT_BY);
    let mut player = Player::open(path, playing)?;
    let (mut header, mut snapshot, mut census) = (None, None, None);
    loop {
        match player.next_event()? {
            Event::Begin { header: now, snapshot: first, .. } => {
                (header, snapshot) = (Some(now), Some(first));
            }
            Event::Tick { snapshot: now, .. } => snapshot = Some(now),
            Event::Census(taken) => census = Some(taken),
            Event::Note(note) => aside::say(&note),
            Event::End => break,
            _ => {}
        }
    }
    let of = || format!("of {at} in {}", path.display());
    let header = header.with_context(|| format!("nothing is recorded {}", of()))?;
    let snapshot = snapshot.with_context(|| format!("nothing is recorded {}", of()))?;
    let (looked, facts) = player.facts().with_context(|| {
        format!("rules and settings are not recorded {}: `ctwatch record` does", of())
    })?;
    aside::say(&format!("as it was at {}; rules and settings as of {looked}", snapshot.time));
    let census: Option<Arc<Taken>> =
        census.or_else(|| snapshot.census.as_ref().map(|(taken, _)| Arc::clone(taken)));
    Ok(report(&header, &snapshot, census.as_deref(), facts.as_ref().clone()))
}

fn report(
    header: &Header,
    snapshot: &Snapshot,
    census: Option<&Taken>,
    mut facts: Facts,
) -> Report {
    // What was read in the tick is nearer than what the look at rules found.
    for namespace in &mut facts.namespaces {
        let table = snapshot.tables.iter().find(|table| table.id == namespace.id);
        if let Some(entries) = table.and_then(|table| table.entries) {
            namespace.entries = Ok(entries);
        }
        if let Some(limit) = table.and_then(|table| table.limit) {
            facts.limit = Ok(limit);
        }
    }
    let case = Case {
        facts: &facts,
        census: census.ok_or("no census was recorded just before"),
        live: Some(snapshot),
        settings: Default::default(),
    };
    Report {
        tracking: tracking::tracking(&facts),
        findings: diagnosis::findings(&case),
        ..measurement::past(header, facts.form)
    }
}

fn playing(since: Option<Timestamp>, until: Option<Timestamp>, by: &[By]) -> Playing {
    Playing { since, until, most: None, length: MOST, by: by.to_vec() }
}

/// The tick in which most was dropped, or where nothing was, in which a table was fullest.
fn worst(path: &Path, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Timestamp> {
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
    worst.map(|(time, _)| time).with_context(|| format!("no tick is in {}", path.display()))
}
