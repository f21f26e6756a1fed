//! `ctwatch record`: what a session sees, written down.

use std::{cell::Cell, rc::Rc};

use anyhow::Result;

use super::{
    WrongUsage,
    following::{Following, over},
    setup,
    signals::Signals,
    watch,
};
use crate::{
    cli::RecordArgs,
    host::machine::journal,
    model::{
        Snapshot,
        incident::{Ending, Incident, Stage},
        incidents::Turn,
    },
    observe::{
        event::Event,
        session::{Session, absent},
        surveyor::Surveyor,
    },
    output::{aside, escape::escaped, json, text::incident},
    recording::{
        cut::{Copied, TimeRange, cut},
        keep::Keep,
        mask::Mask,
        recorder::Recorder,
    },
};

pub async fn run(args: RecordArgs, mask: Option<Mask>) -> Result<()> {
    if mask.is_some() && args.cut.is_none() {
        let why = "what is recorded is not masked: `ctwatch record --cut FILE --mask` masks a copy";
        return Err(WrongUsage(why.to_owned()).into());
    }
    if let Some(into) = &args.cut {
        let part = TimeRange { since: args.since, until: args.until };
        let Copied { ticks, unread } = cut(&args.folder, part, into, mask)?;
        aside::say(&format!("wrote {ticks} ticks into {}", into.display()));
        if unread > 0 {
            aside::say(&format!("{unread} lines or segments could not be read, and are not in it"));
        }
        return Ok(());
    }
    let mut signals = Signals::new()?;
    let keep = Keep { bytes: args.keep, age: args.keep_for, free: args.free };
    let mut recorder = Recorder::open(&args.folder, keep, setup::origin())?;
    let watched = args.watch();
    let wishes = watch::wishes(&watched);
    let looking = Rc::new(Cell::new(None));
    let found = Rc::clone(&looking);
    let mut session = Session::new(wishes, move || {
        let beginning = setup::prepare(&watched)?;
        found.set(Some(setup::looking(&watched, &beginning.means)));
        Ok(beginning)
    });
    let (mut surveyor, mut following) = (None, Following::default());
    aside::say(&format!("recording into {}", args.folder.display()));
    loop {
        let event = tokio::select! {
            biased;
            () = signals.any() => {
                session.stop();
                continue;
            }
            event = session.next() => event?,
        };
        if let Some(note) = recorder.take(&event, session.loaded().map(|(since, _)| since))? {
            aside::say(&note);
        }
        for turn in following.event(&event) {
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
                recorder.incident(line);
            }
        }
        if let Some(looking) = looking.take() {
            surveyor = Some(Surveyor::new(looking));
        }
        let is_urgent = |snapshot: &Snapshot| {
            snapshot.tables.iter().any(|table| table.is_judged && table.change.is_some())
        };
        if let (Some(surveyor), Event::Tick { snapshot, .. }) = (&mut surveyor, &event) {
            match surveyor.look(is_urgent(snapshot)) {
                Ok(Some(found)) => recorder.found(&found)?,
                Ok(None) => {}
                Err(why) => aside::say(&format!("rules and settings are not recorded: {why:#}")),
            }
        }
        match event {
            Event::Absent { was_there } => aside::say(&absent(was_there)),
            Event::Begin { header, .. } => header.notes.iter().for_each(|note| aside::say(note)),
            Event::NoCensus(why) => aside::say(&format!("no census: {why}")),
            Event::End => return Ok(()),
            _ => {}
        }
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
