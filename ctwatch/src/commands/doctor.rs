//! `ctwatch doctor`: what is wrong here, why, and what to do about it; and what can be measured, by
//! what means, and why not better.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use ctwatch_abi::top::{By, Wanted};

use super::{
    WrongUsage, diff, offline,
    past::{self, MOST},
    scope, setup, write,
};
use crate::{
    cli::{DEFAULT_BY, DoctorArgs, Output},
    diagnosis::{self, Case, measurement, report::Report, tracking},
    host::{
        self,
        kernel::{
            config, guards,
            modules::{self, Life, Presence},
            privileges::{Privilege, Privileges, Work, keep},
        },
        netns::visit::Source,
    },
    model::{Snapshot, census::Taken},
    observe::{
        census::{Question, Taker, Way},
        sampler::{Means, Scope},
        session::{Beginning, Wishes},
        survey,
        wanted::Whose,
    },
    output::{aside, json, text},
    probe::{
        acquire::{Acquired, Depth, acquire},
        load::Asked,
        plan::Plan,
    },
    record::{
        facts::{Facts as Machine, Form},
        measurement::{Capability, Configuration, Measurement, Mechanism, Offers, Signal},
    },
    recording::{mask::Mask, read::is_recording},
    threads,
};

/// A table that is full, or in which insertions failed, is counted for so long, unless somebody says
/// otherwise.
const COUNT: Duration = Duration::from_secs(1);

pub async fn run(args: DoctorArgs, mask: Option<Mask>) -> Result<()> {
    if let [first, second] = args.diff.as_slice() {
        return diff::run([first, second], args.print.output, mask);
    }
    if let Some(path) = &args.then.from {
        // What is no recording was printed by other tools.
        return match (is_recording(path), args.then.at) {
            (true, None) => print(&args, &recorded(path, mask)?),
            (true, at) => print(&args, &past::examine(path, at, mask.as_ref())?),
            (false, None) => print(&args, &offline::examine(path, mask)?),
            (false, Some(_)) => Err(WrongUsage(format!(
                "--at is a moment of a recording, and {} is none",
                path.display()
            ))
            .into()),
        };
    }
    if mask.is_some() && args.write.is_some() {
        let why = "--mask replaces the names that the files of --write are about";
        return Err(WrongUsage(why.to_owned()).into());
    }
    // Before anything else: what cannot be written is known at once.
    let folder = args.write.as_deref().map(write::Folder::open).transpose()?;
    let report = examine(&args, mask).await?;
    keep(Work::Rest, folder.is_some())?;
    let files = folder.map(|folder| folder.write(&report.findings)).transpose();
    for file in files.iter().flatten().flatten() {
        aside::say(&format!("wrote {}", file.display()));
    }
    let printed = print(&args, &report);
    files?;
    printed
}

/// An archive whose recording lacks rules or counters, because they could not be read in time, holds what
/// could be as text.
fn recorded(path: &Path, mask: Option<Mask>) -> Result<Report> {
    let why = match past::examine(path, None, mask.as_ref()) {
        Err(why) if why.is::<past::NotRecorded>() => why,
        other => return other,
    };
    // Of what holds nothing else, that is the error.
    offline::examine(path, mask).map_err(|_| why)
}

fn print(args: &DoctorArgs, report: &Report) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = match args.print.output {
        Output::Text => text::doctor::write(&mut out, report, super::columns()),
        Output::Json => json::doctor::write(&mut out, report),
    };
    match written {
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

async fn examine(args: &DoctorArgs, mut mask: Option<Mask>) -> Result<Report> {
    let conntrack = match modules::presence() {
        Presence::Loaded(Life::Module(_)) => Form::Module,
        Presence::Loaded(Life::BuiltIn) => Form::BuiltIn,
        Presence::Loaded(Life::Unknown) => Form::Loaded,
        Presence::Absent => Form::Absent,
        Presence::OutOfSight(why) => bail!("{why}"),
    };
    let request = setup::request(args.how.mechanism);
    let privileges = Privileges::read();
    let lists = Wanted::of(DEFAULT_BY);
    let Acquired { offers, plan, probes, cookies } =
        acquire(request, privileges, Depth::All, Asked { lists, trace: None });
    let source = match plan.mechanism(Signal::Table) {
        Some(Mechanism::Ctnetlink) => Source::Ctnetlink,
        _ => Source::Procfs,
    };
    let scope = scope::scope(&args.which, privileges)?;
    let whose = scope::whose(&args.which, &scope);
    let mut machine = survey::survey(scope.clone(), whose, source, cookies, !args.which.is_any())?;
    machine.unvisited.extend(scope::unseen_processes(&scope, privileges));
    let worth = diagnosis::is_worth_counting(&machine);
    let live = match args.duration.or(worth.then_some(COUNT)) {
        Some(duration) => {
            let header = setup::header(&plan, probes.as_ref(), duration, Vec::new());
            let means =
                Means { source, probes, scope: scope.clone(), whose, only_judged: true, cookies };
            let beginning = Beginning { means, header, census: None };
            Some(count(beginning, duration, args.duration.is_some(), mask.clone()).await?)
        }
        // What was attached to find out that it can be is let go again.
        None => {
            drop(probes);
            None
        }
    };
    let mut census = census(&machine, scope, whose, cookies);
    if let Some(mask) = &mut mask {
        machine = mask.facts(machine)?;
        census = match census {
            Ok(taken) => Ok(mask.taken(taken)?),
            Err(why) => Err(mask.words(&why)),
        };
    }
    let case = Case {
        facts: &machine,
        census: census.as_ref().map_err(String::as_str),
        live: live.as_ref(),
        settings: Default::default(),
    };
    Ok(Report {
        tracking: tracking::tracking(&machine),
        findings: diagnosis::findings(&case),
        census: None,
        ..measurement::report(&measurement(offers, &plan, privileges, conntrack))
    })
}

/// From one reading to another. Somebody who asked for it may want to know from when on.
async fn count(
    beginning: Beginning,
    interval: Duration,
    say: bool,
    mask: Option<Mask>,
) -> Result<Snapshot> {
    let (by, most) = (DEFAULT_BY.to_vec(), MOST);
    let insertions = false;
    let wishes = Wishes { interval, count: None, loading: false, most, by, insertions };
    let said = || {
        if say {
            aside::say(&format!("counting for {interval:?}"));
        }
    };
    Ok(*super::between(wishes, beginning, mask, said).await?.snapshot)
}

/// Not where there is nothing to count.
fn census(machine: &Machine, scope: Scope, whose: Whose, cookies: bool) -> Result<Taken, String> {
    let holds = |entries: &Result<u32, String>| entries.as_ref().map_or(true, |count| *count > 0);
    if !machine.namespaces.iter().any(|namespace| holds(&namespace.entries)) {
        return Err("nothing is in the tables".to_owned());
    }
    let question = Question {
        by: vec![By::Service, By::Source, By::Destination],
        most: MOST,
        scope,
        whose,
        only_judged: true,
    };
    let take = move || Taker::new(Way::Best, cookies)?.take(&question);
    threads::apart("census", take).flatten().map_err(|error| format!("{error:#}"))
}

/// By what means it is counted here.
fn measurement(
    offers: Offers,
    plan: &Plan,
    privileges: Privileges,
    conntrack: Form,
) -> Measurement {
    let kernel = host::kernel_release();
    let capability = |privilege: Privilege| Capability {
        name: privilege.name(),
        held: privileges.has(privilege),
        purpose: privilege.purpose(),
    };
    let configuration = config::read(&kernel).map(|config| Configuration {
        source: config.source,
        options: config.options.into_iter().collect(),
    });
    Measurement {
        architecture: std::env::consts::ARCH,
        conntrack,
        capabilities: Privilege::ALL.map(capability).to_vec(),
        configuration: configuration.map_err(|error| format!("{error:#}")),
        kernel,
        offers,
        chosen: plan.chosen.clone(),
        refused: plan.refusals(),
        guards: guards::in_force(),
    }
}
