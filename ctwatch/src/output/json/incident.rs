//! What happened to one table.

use std::io::{self, Write};

use ctwatch_abi::top::Stream;
use serde::Serialize;

use super::{
    holds::{HoldingObject, HoldsObject, holding},
    line::{Begin, Pairs, write_line},
    netns::NetnsObject,
    talkers::{TalkerObject, talkers},
};
use crate::model::{
    census::TORN,
    figure::{Bounds, Figure},
    incident::{AtPeak, Incident, LastCensus, PeakEntries, PlaneDrops, Tick},
};

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    head: Begin,
    id: &'a str,
    epoch: u32,
    netns: NetnsObject<'a>,
    begin: String,
    /// The reading before; null: it was so when watching began.
    begin_after: Option<String>,
    /// Null while it is open.
    end: Option<String>,
    /// Null where no reading saw that it was over.
    end_before: Option<String>,
    duration_s: DurationObject,
    ending: &'static str,
    cause: &'static str,
    stage: &'static str,
    was_full: bool,
    limit: Option<u32>,
    entries: Option<u32>,
    peak: Option<PeakObject>,
    insertions: IntervalObject,
    removals: IntervalObject,
    /// For whatever reason.
    dropped: IntervalObject,
    /// By reason, and two of them together.
    drops: Pairs<Vec<(&'static str, IntervalObject)>>,
    evictions: Pairs<Vec<(&'static str, IntervalObject)>>,
    control_plane: Vec<PlaneDropsObject>,
    top: TopsObject<'a>,
    census: Option<CensusObject<'a>>,
}

/// The truth is between these; null: it may have been longer.
#[derive(Serialize)]
struct DurationObject {
    at_least: f64,
    at_most: Option<f64>,
}

#[derive(Serialize)]
struct PeakObject {
    time: String,
    entries: u32,
    limit: Option<u32>,
    fill: Option<f64>,
}

/// The truth is between these; both are null where nothing measures it.
#[derive(Serialize)]
struct IntervalObject {
    at_least: Option<u64>,
    at_most: Option<u64>,
    exactness: &'static str,
}

#[derive(Serialize)]
struct PlaneDropsObject {
    protocol: &'static str,
    #[serde(flatten)]
    dropped: IntervalObject,
}

#[derive(Serialize)]
struct TopsObject<'a> {
    drops: Vec<TalkerObject<'a>>,
    insertions: Vec<TalkerObject<'a>>,
    /// By the last census.
    holding: Vec<HoldingObject<'a>>,
    since: TimesObject,
    /// Of which moment they are.
    time: TimesObject,
}

/// Null: there is no list.
#[derive(Serialize)]
struct TimesObject {
    drops: Option<String>,
    insertions: Option<String>,
}

#[derive(Serialize)]
struct CensusObject<'a> {
    mechanism: &'a str,
    time: String,
    /// Why no number of it is exact.
    inexact: Option<&'static str>,
    entries: u64,
    #[serde(flatten)]
    holds: HoldsObject,
}

impl From<&Figure> for IntervalObject {
    fn from(figure: &Figure) -> Self {
        let bounds = figure.bounds();
        let (at_least, at_most) = match bounds {
            Bounds::Unmeasured => (None, None),
            Bounds::Within { at_least, at_most } => (Some(at_least), at_most),
        };
        Self { at_least, at_most, exactness: bounds.exactness().name() }
    }
}

impl From<PlaneDrops> for PlaneDropsObject {
    fn from(PlaneDrops { protocol, dropped }: PlaneDrops) -> Self {
        Self { protocol, dropped: (&dropped).into() }
    }
}

impl From<PeakEntries> for PeakObject {
    fn from(PeakEntries { at, entries, limit, fill }: PeakEntries) -> Self {
        Self { time: at.time.to_string(), entries, limit, fill }
    }
}

impl<'a> From<&'a LastCensus> for CensusObject<'a> {
    fn from(census: &'a LastCensus) -> Self {
        Self {
            mechanism: &census.by,
            time: census.time.to_string(),
            inexact: census.is_torn.then_some(TORN),
            entries: census.holds.all(),
            holds: census.holds.into(),
        }
    }
}

/// One object, one line.
pub fn write(out: &mut impl Write, incident: &Incident) -> io::Result<()> {
    write_line(out, &object(incident))
}

fn object(incident: &Incident) -> Object<'_> {
    let happened = &incident.happened;
    let time = |tick: Option<Tick>| tick.map(|tick| tick.time.to_string());
    let (seen, most) = incident.duration();
    let both = ("clash_or_nat_exhausted", &happened.drops.clash_or_nat_exhausted);
    let drops = happened.drops.named().into_iter().chain([both]);
    let drops = drops.map(|(reason, figure)| (reason, figure.into())).collect();
    let census = incident.census.as_ref();
    Object {
        head: Begin::of("incident"),
        id: &incident.id,
        epoch: incident.epoch,
        netns: NetnsObject::of(incident.netns, Some(incident.inode))
            .called(incident.name.as_deref(), &incident.workload)
            .owned(&incident.owner),
        begin: incident.begin.time.to_string(),
        begin_after: time(incident.begin_after),
        end: time(incident.end()),
        end_before: time(incident.over.filter(|_| incident.end().is_some())),
        duration_s: DurationObject {
            at_least: seen.as_secs_f64(),
            at_most: most.map(|most| most.as_secs_f64()),
        },
        ending: incident.ending.name(),
        cause: incident.cause.name(),
        stage: incident.stage.name(),
        was_full: incident.was_full,
        limit: incident.limit,
        entries: incident.entries,
        peak: incident.peak.map(PeakObject::from),
        insertions: (&happened.insertions).into(),
        removals: (&happened.removals).into(),
        dropped: (&happened.dropped).into(),
        drops: Pairs(drops),
        evictions: Pairs(vec![("early_drop", (&happened.early_drop).into())]),
        control_plane: incident.control_plane.iter().map(|plane| (*plane).into()).collect(),
        top: TopsObject {
            drops: listed(incident, Stream::Drops),
            insertions: listed(incident, Stream::Insertions),
            holding: holding(census.into_iter().flat_map(|census| &census.top)),
            since: times(incident, |kept| kept.since),
            time: times(incident, |kept| Some(kept.at.time)),
        },
        census: census.map(CensusObject::from),
    }
}

fn listed(incident: &Incident, stream: Stream) -> Vec<TalkerObject<'_>> {
    incident.tops.iter().flat_map(|kept| talkers(&kept.lists, stream)).collect()
}

fn times(incident: &Incident, of: impl Fn(&AtPeak) -> Option<jiff::Timestamp>) -> TimesObject {
    let time = |stream| {
        let kept = incident.tops.iter().find(|kept| kept.stream == stream)?;
        of(kept).map(|time| time.to_string())
    };
    TimesObject { drops: time(Stream::Drops), insertions: time(Stream::Insertions) }
}
