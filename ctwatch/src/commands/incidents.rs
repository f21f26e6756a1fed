//! `ctwatch incidents`: what happened, one by one, from a recording.

use anyhow::{Result, ensure};

use super::{
    columns,
    following::{Following, over},
};
use crate::{
    cli::{DEFAULT_BY, IncidentsArgs, Output},
    host::{
        kernel::privileges::{Work, keep},
        machine::zone,
    },
    model::incident::Incident,
    observe::event::Event,
    output::{
        aside, json,
        text::{incident, incident::Rendering, shown::ShownTops},
    },
    recording::{
        mask::Mask,
        play::{Player, Playing},
    },
};

/// Of each list.
const MOST: usize = 5;

pub fn run(args: &IncidentsArgs, mask: Option<Mask>) -> Result<()> {
    let by = DEFAULT_BY.to_vec();
    let (since, until) = (args.of.since, args.of.until);
    let playing = Playing { since, until, most: None, length: MOST, by: by.clone(), mask };
    let mut player = Player::open(&args.of.from, playing)?;
    let (mut following, mut found) = (Following::default(), Vec::<Incident>::new());
    loop {
        let event = player.next_event()?;
        found.extend(following.event(&event).into_iter().filter_map(over));
        match event {
            Event::Note(note) => aside::say(&note),
            Event::End => break,
            _ => {}
        }
    }
    keep(Work::Rest, false)?;
    if let Some(id) = &args.id {
        found.retain(|incident| incident.id.starts_with(id.as_str()));
        ensure!(
            !found.is_empty(),
            "no incident {id:?} is in {}: `ctwatch incidents` lists them",
            args.of.from.display()
        );
    }
    found.sort_by_key(|incident| incident.begin.time);
    let tops = ShownTops { always: true, most: MOST, by, services: super::services() };
    let rendering = Rendering { columns: columns(), zone: zone::local(), tops };
    let mut bytes = Vec::new();
    match (args.print.output, &args.id) {
        (Output::Text, None) => {
            incident::list(&mut bytes, &found, following.untold(), &rendering)?;
        }
        (Output::Text, Some(_)) => {
            for one in &found {
                incident::one(&mut bytes, one, &rendering)?;
            }
        }
        (Output::Json, _) => {
            for one in &found {
                json::incident::write(&mut bytes, one)?;
            }
        }
    }
    super::print(&bytes)
}
