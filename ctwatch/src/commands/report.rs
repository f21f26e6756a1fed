//! `ctwatch report`: a recording as one page.

use std::path::Path;

use anyhow::{Context, Result};

use super::{following::Following, past};
use crate::{
    cli::{DEFAULT_BY, ReportArgs},
    host::machine::{statefile, zone},
    model::{
        incident::{Ending, Incident},
        incidents::Turn,
        story::{Mark, MarkKind, POINTS, Story},
    },
    observe::{event::Event, loading::News},
    output::{
        aside,
        html::{Input, page},
        text::loading,
    },
    record::session::Header,
    recording::{
        mask::Mask,
        play::{Player, Playing},
    },
};

/// Of each list.
const MOST: usize = 10;

pub fn run(args: &ReportArgs, mask: Option<Mask>) -> Result<()> {
    let playing = Playing {
        since: args.of.since,
        until: args.of.until,
        most: None,
        length: MOST,
        by: DEFAULT_BY.to_vec(),
        mask: mask.clone(),
    };
    let mut player = Player::open(&args.of.from, playing)?;
    let mut telling = Telling::default();
    loop {
        let event = player.next_event()?;
        let is_over = matches!(event, Event::End);
        telling.event(event);
        if is_over {
            break;
        }
    }
    let Telling { story, header, .. } = telling;
    let nothing = || format!("nothing is recorded in {} in that time", args.of.from.display());
    let story = story.and_then(Story::finish).with_context(nothing)?;
    let header = header.with_context(nothing)?;
    // Without what it goes by there is none: then the page says what it can.
    let report = past::examine_worst(&args.of.from, args.of.since, args.of.until, mask.as_ref());
    let report = report.inspect_err(|why| aside::say(&format!("without findings: {why:#}"))).ok();
    let (services, zone) = (super::services(), zone::local());
    let text = page(&Input {
        story: &story,
        header: &header,
        report: report.as_ref(),
        services: &services,
        zone: &zone,
    });
    if args.output == Path::new("-") {
        return super::print(text.as_bytes());
    }
    statefile::write(&args.output, &text)?;
    aside::say(&format!("wrote {}", args.output.display()));
    Ok(())
}

#[derive(Default)]
struct Telling {
    story: Option<Story>,
    header: Option<Box<Header>>,
    following: Following,
}

impl Telling {
    fn event(&mut self, event: Event) {
        let turns = self.following.event(&event);
        let story = self.story.get_or_insert_with(|| Story::new(POINTS));
        match event {
            Event::Begin { header, epoch, snapshot, .. } => {
                let text = format!("watching begins (epoch {})", epoch.number);
                story.mark(Mark { time: snapshot.time, kind: MarkKind::Life, text });
                story.take(&snapshot);
                self.header = Some(header);
            }
            Event::Tick { snapshot, .. } => story.take(&snapshot),
            Event::Changed { until, what, .. } => {
                let kind = MarkKind::Rules;
                story.mark(Mark { time: until, kind, text: what.join("; ") });
            }
            Event::Loading(News::Loaded(loaded)) => {
                let lines = loading::notes(&loaded, &zone::local());
                let time = loaded.first().map(|first| first.time);
                for (text, time) in lines.into_iter().zip(std::iter::repeat(time)) {
                    let Some(time) = time else { break };
                    story.mark(Mark { time, kind: MarkKind::Modules, text });
                }
            }
            Event::Note(text) => aside::say(&text),
            _ => {}
        }
        for turn in turns {
            let (time, kind, incident) = match &turn {
                Turn::Began(incident) => (incident.begin.time, MarkKind::Began, incident),
                Turn::Ended(incident) if incident.ending != Ending::Open => {
                    (incident.last.time, MarkKind::Ended, incident)
                }
                Turn::Ended(_) | Turn::Grew(_) => continue,
            };
            story.mark(Mark { time, kind, text: words(incident) });
        }
    }
}

fn words(incident: &Incident) -> String {
    let name = incident.workload.shown(incident.name.as_deref());
    let name = name.map_or_else(|| incident.inode.to_string(), |name| name.into_owned());
    format!("{name}: {}", incident.cause.name())
}
