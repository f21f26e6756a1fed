//! `ctwatch record`: what a session sees, written down.

use anyhow::Result;

use super::{WrongUsage, setup, signals::Signals, watch, written::Written};
use crate::{
    cli::RecordArgs,
    observe::{
        event::Event,
        session::{Session, absent},
    },
    output::aside,
    recording::{
        cut::{Copied, TimeRange, cut},
        keep::Keep,
        mask::Mask,
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
    let mut written = Written::open(&args.folder, keep)?;
    let watched = args.watch();
    let wishes = watch::wishes(&watched);
    let looking = written.looking();
    let mut session = Session::new(wishes, move || {
        let beginning = setup::prepare(&watched)?;
        looking.set(Some(setup::looking(&watched, &beginning.means)));
        Ok(beginning)
    });
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
        written.take(&event, session.loaded().map(|(since, _)| since))?;
        match event {
            Event::Absent { was_there } => aside::say(&absent(was_there)),
            Event::Begin { header, .. } => header.notes.iter().for_each(|note| aside::say(note)),
            Event::NoCensus(why) => aside::say(&format!("no census: {why}")),
            Event::End => return Ok(()),
            _ => {}
        }
    }
}
