//! What a session tells, written down: its samples, what is found out about the machine, and incidents.

use std::{cell::Cell, path::Path, rc::Rc};

use anyhow::Result;
use jiff::Timestamp;

use super::{
    following::{Following, over},
    setup,
};
use crate::{
    host::machine::journal,
    model::{
        Snapshot,
        incident::{Ending, Incident, Stage},
        incidents::Turn,
    },
    observe::{
        event::Event,
        surveyor::{Looking, Surveyor},
    },
    output::{aside, escape::escaped, json, text::incident},
    recording::{keep::Keep, recorder::Recorder},
};

pub(super) struct Written {
    recorder: Recorder,
    surveyor: Option<Surveyor>,
    following: Following,
    looking: Rc<Cell<Option<Looking>>>,
}

impl Written {
    pub(super) fn open(folder: &Path, keep: Keep) -> Result<Self> {
        Ok(Self {
            recorder: Recorder::open(folder, keep, setup::origin())?,
            surveyor: None,
            following: Following::default(),
            looking: Rc::default(),
        })
    }

    /// Where whoever prepares a life of the table puts what it takes to look at the machine.
    pub(super) fn looking(&self) -> Rc<Cell<Option<Looking>>> {
        Rc::clone(&self.looking)
    }

    /// `loads_since`: from when on it is seen who loads modules.
    pub(super) fn take(&mut self, event: &Event, loads_since: Option<Timestamp>) -> Result<()> {
        if let Some(note) = self.recorder.take(event, loads_since)? {
            aside::say(&note);
        }
        for turn in self.following.event(event) {
            let (what, incident) = match &turn {
                Turn::Began(incident) => ("began", incident),
                Turn::Grew(incident) => ("grew", incident),
                Turn::Ended(incident) if incident.ending == Ending::Open => ("goes on", incident),
                Turn::Ended(incident) => ("ended", incident),
            };
            tell(what, incident);
            if let Some(incident) = over(turn) {
                let mut line = Vec::new();
                json::incident::write(&mut line, &incident)?;
                self.recorder.incident(line);
            }
        }
        if let Some(looking) = self.looking.take() {
            self.surveyor = Some(Surveyor::new(looking));
        }
        let is_urgent = |snapshot: &Snapshot| {
            snapshot.tables.iter().any(|table| table.is_judged && table.change.is_some())
        };
        if let (Some(surveyor), Event::Tick { snapshot, .. }) = (&mut self.surveyor, event) {
            match surveyor.look(is_urgent(snapshot)) {
                Ok(Some(found)) => self.recorder.found(&found)?,
                Ok(None) => {}
                Err(why) => aside::say(&format!("rules and settings are not recorded: {why:#}")),
            }
        }
        Ok(())
    }
}

/// To the journal with fields to search by, or else as a line.
fn tell(what: &str, incident: &Incident) {
    let line = format!("incident {what}: {}", incident::line(incident));
    let dropped = incident.happened.certainly_dropped().to_string();
    let netns = incident.workload.shown(incident.name.as_deref()).unwrap_or_default();
    let inode = incident.inode.to_string();
    let message = escaped(&line);
    let fields = [
        ("MESSAGE", message.as_ref()),
        // Warning, notice.
        ("PRIORITY", if incident.stage >= Stage::Full { "4" } else { "5" }),
        ("SYSLOG_IDENTIFIER", "ctwatch"),
        ("CTWATCH_INCIDENT", incident.id.as_str()),
        ("CTWATCH_EVENT", what),
        ("CTWATCH_STAGE", incident.stage.name()),
        ("CTWATCH_CAUSE", incident.cause.name()),
        ("CTWATCH_NETNS", &netns),
        ("CTWATCH_NETNS_INODE", &inode),
        ("CTWATCH_DROPPED_AT_LEAST", &dropped),
    ];
    if !journal::tell(&fields) {
        aside::say(&line);
    }
}
