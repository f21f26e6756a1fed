//! Files that are written on request: a screen as text, a report of what was seen.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{
    diagnosis::report::Report,
    host::machine::statefile,
    model::{
        incident::{Ending, Incident},
        incidents::{Incidents, Turn},
        story::{Mark, MarkKind, POINTS, Story},
        trouble::Criteria,
    },
    output::{
        html::{Input, page},
        services::Services,
    },
    record::session::Header,
    tui::history::History,
};

/// Into this folder, by the time; a file that is there already stays.
fn write(ending: &str, zone: &jiff::tz::TimeZone, text: &str) -> Result<PathBuf> {
    let now = jiff::Timestamp::now().to_zoned(zone.clone());
    let path = PathBuf::from(format!("ctwatch-top-{}.{ending}", now.strftime("%Y%m%d-%H%M%S")));
    ensure!(!path.exists(), "{} is there already", path.display());
    statefile::write(&path, text)?;
    Ok(path)
}

pub(super) fn screen(text: &str, zone: &jiff::tz::TimeZone) -> Result<PathBuf> {
    write("txt", zone, text)
}

/// The readings that are kept, as one page.
pub(super) fn report(
    history: &History,
    header: Option<&Header>,
    report: Option<&Report>,
    services: &Services,
    zone: &jiff::tz::TimeZone,
) -> Result<PathBuf> {
    const NOTHING: &str = "nothing was read yet";
    let header = header.context(NOTHING)?;
    let mut story = Story::new(POINTS);
    let criteria = Criteria::default().read_every(header.interval);
    let mut incidents = Incidents::new(header.boot_id.as_deref(), 1, criteria);
    let mut turns = Vec::new();
    for kept in history.all() {
        story.take(&kept.snapshot);
        turns.extend(incidents.look(&kept.snapshot));
    }
    turns.extend(incidents.finish(Ending::Open).into_iter().map(Turn::Ended));
    for turn in &turns {
        let (time, kind, incident) = match turn {
            Turn::Began(incident) => (incident.begin.time, MarkKind::Began, incident),
            Turn::Ended(incident) if incident.ending != Ending::Open => {
                (incident.last.time, MarkKind::Ended, incident)
            }
            Turn::Ended(_) | Turn::Grew(_) => continue,
        };
        story.mark(Mark { time, kind, text: words(incident) });
    }
    let story = story.finish().context(NOTHING)?;
    write("html", zone, &page(&Input { story: &story, header, report, services, zone }))
}

fn words(incident: &Incident) -> String {
    let name = incident.workload.shown(incident.name.as_deref());
    let name = name.map_or_else(|| incident.inode.to_string(), |name| name.into_owned());
    format!("{name}: {}", incident.cause.name())
}
