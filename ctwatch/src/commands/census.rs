//! `ctwatch census`: who holds the table now.

use std::io::Write;

use anyhow::{Context, Result, bail};

use super::{columns, scope};
use crate::{
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
    observe::census::{Question, Taker, Way},
    output::{
        json,
        text::census::{self, Shown},
    },
    threads,
};

pub fn run(args: &CensusArgs) -> Result<()> {
    match modules::presence() {
        Presence::Loaded(_) => {}
        Presence::Absent => bail!("{ABSENT}: nothing is tracked, and there is nothing to count"),
        Presence::OutOfSight(why) => bail!("{why}"),
    }
    let taken = take(args)?;
    let source = match modules::ctnetlink_would_be_loaded() {
        true => Source::Procfs,
        false => Source::Ctnetlink,
    };
    let limit = limit(source).ok();
    keep(Work::Rest, false)?;
    let mut bytes = Vec::new();
    match args.output {
        Output::Text => census::write(&mut bytes, &taken, &shown(args, limit))?,
        Output::Json => {
            let (kernel, now) = (host::kernel_release(), jiff::Timestamp::now());
            let groupings = args.groupings();
            json::census::write(&mut bytes, &taken, &groupings, limit, &kernel, now)?;
        }
    }
    match std::io::stdout().lock().write_all(&bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
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
