//! `ctwatch check`: one line and an exit code for monitoring. No eBPF: it is over too soon to be
//! worth loading programs for.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::time::{sleep, timeout};

use super::setup;
use crate::{
    cli::{self, CheckArgs, LimitArgs},
    collect::{Collector, Scope},
    host::{
        modules,
        privileges::{Privilege, Privileges},
    },
    model::{
        Model,
        census::Taken,
        verdict::{Limits, State, Thresholds, judge},
    },
    output::check,
    taker::{Census, Question, Way},
};

/// Whoever runs plugins gives up on one that is late, and does not learn why. Beyond the time that
/// was asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code is the message: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
pub async fn run(args: &CheckArgs) -> ExitCode {
    match timeout(args.period + PATIENCE, look(args)).await {
        Ok(Ok((state, line))) => end(state, &line),
        Ok(Err(error)) => unknown(&format!("{error:#}")),
        Err(_) => unknown("the kernel did not answer in time"),
    }
}

/// Without having looked.
pub fn unknown(why: &str) -> ExitCode {
    end(State::Unknown, &check::said(State::Unknown, why))
}

fn end(state: State, line: &str) -> ExitCode {
    // Whoever does not read the line may still look at the code.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    ExitCode::from(state as u8)
}

async fn look(args: &CheckArgs) -> Result<(State, String)> {
    let thresholds =
        Thresholds { warning: limits(&args.warning)?, critical: limits(&args.critical)? };
    if modules::conntrack().is_none() {
        modules::conntrack_is_absent()?;
        let text = "nf_conntrack is not loaded: nothing is tracked, and conntrack drops nothing";
        return Ok((State::Ok, check::said(State::Ok, text)));
    }
    let privileges = Privileges::read();
    let (scope, mut notes) = scope(args.netns.as_ref(), privileges)?;
    let (means, costs) = setup::without_programs(scope.clone(), privileges)?;
    notes.extend(costs);
    let cookies = means.cookies;
    let collector = Collector::start(means)?;
    let mut model = Model::default();
    model.advance(&collector.sample().await?);
    sleep(args.period).await;
    let mut uncounted = None;
    if thresholds.warning.pinned.or(thresholds.critical.pinned).is_some() {
        match census(scope, cookies, privileges).await {
            Ok(census) => model.take_in(census),
            Err(error) => uncounted = Some(format!("{error:#}")),
        }
    }
    let snapshot = model.advance(&collector.sample().await?);
    let verdict = judge(&snapshot, uncounted.as_deref(), &thresholds);
    Ok((verdict.state, check::line(&verdict, &notes)))
}

/// Where nobody said which, as much as may be looked into; and what was not.
fn scope(wanted: Option<&cli::Netns>, privileges: Privileges) -> Result<(Scope, Vec<String>)> {
    const OTHERS: &str = "other namespaces not looked into: needs CAP_SYS_ADMIN";
    let scope = setup::scope(wanted.unwrap_or(&cli::Netns::All), privileges)?;
    let alone = scope == Scope::Own && !privileges.has(Privilege::SysAdmin);
    match wanted {
        Some(cli::Netns::All) if alone => bail!(OTHERS),
        None if alone => Ok((scope, vec![OTHERS.to_owned()])),
        _ => Ok((scope, Vec::new())),
    }
}

async fn census(scope: Scope, cookies: bool, privileges: Privileges) -> Result<Taken> {
    if !privileges.has(Privilege::NetAdmin) {
        bail!("needs CAP_NET_ADMIN");
    }
    let question = Question { by: Vec::new(), most: 0, scope };
    let census = Census::start(Way::NoProgram, cookies, question)?;
    census.ask()?.await.context("the thread of the census has ended")?
}

fn limits(args: &[LimitArgs]) -> Result<Limits> {
    let mut limits = Limits::default();
    for limit in args {
        let (name, known, value) = match limit {
            LimitArgs::Fill(percent) => ("fill", &mut limits.fill, *percent),
            LimitArgs::Pinned(percent) => ("pinned", &mut limits.pinned, *percent),
            LimitArgs::Drops(per_s) => ("drops", &mut limits.drops, *per_s),
            LimitArgs::Full(time) => ("full", &mut limits.full, time.as_secs_f64()),
        };
        if known.replace(value).is_some() {
            bail!("{name} has two limits of one kind");
        }
    }
    Ok(limits)
}
