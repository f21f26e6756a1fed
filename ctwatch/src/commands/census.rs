//! `ctwatch census`: who holds the table now.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};

use super::{
    columns,
    offline::{self, ListedCensus},
    scope,
};
use crate::{
    bundle::Reader,
    cli::{self, CensusArgs, CensusBy, Output},
    host::{
        self,
        kernel::{
            modules::{self, ABSENT, Presence},
            privileges::{Privileges, Work, keep},
        },
        netns::visit::{Source, limit, netns_cookie},
    },
    model::census::Taken,
    observe::{
        census::{Question, Taker, Way},
        event::Event,
    },
    output::{
        aside, json,
        text::census::{self, Shown},
    },
    recording::{
        mask::Mask,
        play::{Player, Playing},
        read::is_recording,
    },
    threads,
};

pub fn run(args: &CensusArgs, mask: Option<Mask>) -> Result<()> {
    if let Some(path) = args.from.as_ref().filter(|path| !is_recording(path)) {
        if args.at.is_some() {
            let why = format!("--at is a moment of a recording, and {} is none", path.display());
            return Err(super::WrongUsage(why).into());
        }
        let reader = Reader::counting(&args.keys(), usize::from(args.top));
        let ListedCensus { taken, limit, kernel } = offline::count(path, reader, mask)?;
        return print(args, &taken, limit, (&kernel, None));
    }
    if let Some(path) = &args.from {
        let Recorded { taken, limit, kernel, time } = recorded(path, args.at, mask)?;
        return print(args, &taken, limit, (&kernel, Some(time)));
    }
    match modules::presence() {
        Presence::Loaded(_) => {}
        Presence::Absent => bail!("{ABSENT}: nothing is tracked, and there is nothing to count"),
        Presence::OutOfSight(why) => bail!("{why}"),
    }
    let taken = take(args)?;
    let taken = match mask {
        Some(mut mask) => mask.taken(taken)?,
        None => taken,
    };
    let source = match modules::ctnetlink_would_be_loaded() {
        true => Source::Procfs,
        false => Source::Ctnetlink,
    };
    let limit = limit(source).ok();
    keep(Work::Rest, false)?;
    print(args, &taken, limit, (&host::kernel_release(), Some(jiff::Timestamp::now())))
}

/// The last census before a moment, and what goes with it.
struct Recorded {
    taken: Arc<Taken>,
    limit: Option<u32>,
    kernel: String,
    time: jiff::Timestamp,
}

fn recorded(path: &Path, at: Option<jiff::Timestamp>, mask: Option<Mask>) -> Result<Recorded> {
    let playing = Playing { until: at, mask, ..Playing::default() };
    let mut player = Player::open(path, playing)?;
    let (mut last, mut kernel, mut now) = (None, String::new(), None);
    loop {
        match player.next_event()? {
            Event::Begin { header, sample, .. } => {
                kernel = header.kernel;
                now = Some((sample.time, sample.limit));
            }
            Event::Tick { sample, .. } => now = Some((sample.time, sample.limit)),
            Event::Census(taken) => last = now.map(|now| (taken, now)),
            Event::Note(note) => aside::say(&note),
            Event::End => break,
            _ => {}
        }
    }
    let (taken, (time, limit)) = last.with_context(|| {
        format!(
            "no census is recorded in {} until then: one is taken while a table is full",
            path.display()
        )
    })?;
    aside::say(&format!("as it was at {time}"));
    Ok(Recorded { taken, limit, kernel, time })
}

fn print(
    args: &CensusArgs,
    taken: &Taken,
    limit: Option<u32>,
    (kernel, time): (&str, Option<jiff::Timestamp>),
) -> Result<()> {
    let mut bytes = Vec::new();
    match args.print.output {
        Output::Text => census::write(&mut bytes, taken, &shown(args, limit))?,
        Output::Json => {
            json::census::write(&mut bytes, taken, &args.groupings(), limit, kernel, time)?;
        }
    }
    super::print(&bytes)
}

fn take(args: &CensusArgs) -> Result<Taken> {
    let way = match args.mechanism {
        cli::CensusMechanism::Auto => Way::Best,
        cli::CensusMechanism::Walk => Way::Walk,
        cli::CensusMechanism::Ctnetlink => Way::Ctnetlink,
        cli::CensusMechanism::Procfs => Way::Procfs,
    };
    let scope = scope::scope(&args.which, Privileges::read())?;
    let question = Question {
        by: args.keys(),
        most: usize::from(args.top),
        whose: scope::whose(&args.which, &scope),
        scope,
        only_judged: false,
    };
    let unseen = scope::unseen_processes(&question.scope, Privileges::read());
    let take = move || {
        let mut taker = Taker::new(way, netns_cookie().is_some())?;
        keep(Work::Look, false)?;
        taker.take(&question)
    };
    let taken = threads::apart("census", take)??;
    Ok(Taken { notes: taken.notes.into_iter().chain(unseen).collect(), ..taken })
}

fn shown(args: &CensusArgs, limit: Option<u32>) -> Shown {
    Shown {
        columns: columns(),
        states: args.by.contains(&CensusBy::State),
        zones: args.by.contains(&CensusBy::Zone),
        groupings: args.groupings(),
        most_groups: usize::from(args.top),
        services: super::services(),
        limit,
    }
}
