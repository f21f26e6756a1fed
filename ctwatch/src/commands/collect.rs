//! `ctwatch collect`: what a doctor elsewhere needs, in one archive.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use self::{
    look::Look,
    packing::{Collected, pack},
    watching::{Watched, watched},
};
use super::{scope, signals::Signals};
use crate::{
    cli::CollectArgs,
    collect::{LINES, NAMESPACES, gather, machine},
    host::{
        kernel::{
            modules,
            privileges::{Privileges, Work, keep},
        },
        netfilter::{ctnetlink, procstat},
        netns::{
            Netns,
            visit::{Source, netns_cookie},
        },
    },
    observe::{
        census::{Question, Taker, Way},
        survey::{fullest, survey},
    },
    output::aside,
    record::sample::Owner,
    recording::{LISTED, mask::Mask},
    threads,
};

mod look;
mod packing;
mod watching;

/// Besides the time between two readings.
const REST: Duration = Duration::from_secs(20);
/// What is left of it for writing, at the end.
const WRITING: Duration = Duration::from_secs(3);
/// For one file of the machine.
const ANSWER: Duration = Duration::from_secs(5);
/// To find the namespaces.
const FINDING: Duration = Duration::from_secs(5);

pub async fn run(args: CollectArgs, mask: Option<Mask>) -> Result<()> {
    let begun = Instant::now();
    let time = Timestamp::now();
    let mut collected = Collected::new(mask, time);
    // Before anything else: what cannot be written is known at once.
    let out = Out::open(args.output.as_deref(), &collected.stem())?;
    // Also to take away what is not finished.
    keep(Work::Collect, true)?;
    let mut signals = Signals::new()?;
    let until = begun + args.duration + REST;
    let collecting = collecting(&args, &mut collected, until - WRITING);
    tokio::select! {
        biased;
        () = signals.any() => bail!("stopped by a signal: nothing is written"),
        collected = collecting => collected?,
    }
    keep(Work::Rest, false)?;
    out.write(collected)
}

async fn collecting(args: &CollectArgs, collected: &mut Collected, until: Instant) -> Result<()> {
    let before = machine::modules();
    let privileges = Privileges::read();
    let scope = scope::scope(&args.which, privileges)?;
    let look = Look {
        whose: scope::whose(&args.which, &scope),
        source: source(),
        cookies: netns_cookie().is_some(),
        asked: !args.which.is_any(),
        scope,
        until,
    };
    collected.missing.extend(scope::unseen_processes(&look.scope, privileges));
    // All of it at once: none waits for another.
    let facts = apart(&look, "survey", |look| {
        survey(look.scope, look.whose, look.source, look.cookies, look.asked)
    })?;
    let (mut pieces, soon) = (Vec::new(), until.min(Instant::now() + ANSWER));
    for (name, read) in machine::pieces() {
        pieces.push((name, apart(&look, "file", |_| Ok(read()))?));
    }
    let found = found(&look, collected);
    let first = gathered(&look, &found, Some(LINES))?;
    let census = apart(&look, "census", |look| census(&look))?;
    let watched = watched(&look, args.duration).await;
    let second = gathered(&look, &found, None)?;
    match watched {
        Ok(watched) => {
            collected.is_absent = watched.is_none();
            collected.watched = watched;
        }
        Err(why) => collected.miss("counters at two moments", &format!("{why:#}")),
    }
    collected.counts_apart = args.duration;
    let answer = |(name, told)| {
        let text = waited(&told, "it", soon).map_err(|why| format!("{why:#}"));
        (name, text.flatten())
    };
    collected.of_machine(pieces.into_iter().map(answer).collect(), &found);
    collected.facts =
        collected.taken(waited(&facts, "rules and settings", until), "rules and settings");
    collected.census = match census_is_worth(collected) {
        true => collected.taken(waited(&census, "the census", until), "a census"),
        false => None,
    };
    for (again, receiver) in [(false, first), (true, second)] {
        collected.of_namespaces(&found, all(receiver, until), again);
    }
    let after = machine::modules();
    collected.loaded = before
        .zip(after)
        .map(|(before, after)| after.into_iter().filter(|name| !before.contains(name)).collect());
    Ok(())
}

/// What tells the numbers and loads nothing.
fn source() -> Source {
    match ctnetlink::answers() {
        Ok(()) => Source::Ctnetlink,
        Err(_) => Source::Procfs,
    }
}

/// Those that are looked into.
fn found(look: &Look, collected: &mut Collected) -> Vec<Netns> {
    let whose = look.whose;
    let asked = apart(look, "namespaces", |look| fullest(&look.scope, look.whose, look.source));
    let until = look.until.min(Instant::now() + FINDING);
    let found = asked.and_then(|asked| waited(&asked, "which namespaces there are", until));
    let found: Vec<(Owner, Netns)> = match found {
        Ok(found) => found,
        Err(why) => {
            collected.miss("network namespaces", &format!("{why:#}"));
            return Vec::new();
        }
    };
    let judged = found.into_iter().filter(|(owner, _)| whose.judges(owner));
    let mut found: Vec<Netns> = judged.map(|(_, netns)| netns).collect();
    collected.others = found.len().saturating_sub(NAMESPACES);
    found.truncate(NAMESPACES);
    found
}

fn gathered(
    look: &Look,
    found: &[Netns],
    lines: Option<u64>,
) -> Result<mpsc::Receiver<gather::Gathered>> {
    let (tell, told) = mpsc::channel();
    let bounds = gather::GatherBounds { source: look.source, lines, until: look.until };
    let found = found.to_vec();
    threads::start("gather", move || {
        // What it could not enter is missing, which is said.
        let _ = gather::gather(&found, bounds, &tell);
    })?;
    Ok(told)
}

/// Not where there is nothing to count.
fn census_is_worth(collected: &Collected) -> bool {
    collected.watched.as_ref().is_some_and(|Watched { last, .. }| {
        last.tables.iter().any(|table| table.entries != Some(0))
    })
}

fn census(look: &Look) -> Result<crate::model::census::Taken> {
    use ctwatch_abi::top::By;
    let question = Question {
        by: vec![By::Service, By::Source, By::Destination],
        most: LISTED,
        scope: look.scope.clone(),
        whose: look.whose,
        only_judged: true,
    };
    ensure!(
        modules::life().is_some() || procstat::counters().is_ok(),
        "nf_conntrack is not loaded: nothing is tracked"
    );
    Taker::new(Way::NoProgram, look.cookies)?.take(&question)
}

/// On a thread of its own, which is not waited for for ever.
fn apart<T: Send + 'static>(
    look: &Look,
    name: &str,
    work: impl FnOnce(Look) -> Result<T> + Send + 'static,
) -> Result<mpsc::Receiver<Result<T>>> {
    let (tell, told) = mpsc::channel();
    let look = look.clone();
    threads::start(name, move || {
        // Whoever asked may have had no more time.
        let _ = tell.send(work(look));
    })?;
    Ok(told)
}

fn waited<T>(told: &mpsc::Receiver<Result<T>>, what: &str, until: Instant) -> Result<T> {
    match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => bail!("{what} could not be read in time"),
        Err(RecvTimeoutError::Disconnected) => {
            bail!("the thread that reads {what} came to a bad end")
        }
    }
}

/// All that is told until then.
fn all(told: mpsc::Receiver<gather::Gathered>, until: Instant) -> Vec<gather::Gathered> {
    let wait = || until.saturating_duration_since(Instant::now());
    std::iter::from_fn(|| told.recv_timeout(wait()).ok()).collect()
}

/// Where it is written.
enum Out {
    /// Made, and removed where it comes to nothing.
    File(File, PathBuf, bool),
    Standard,
}

impl Out {
    fn open(path: Option<&Path>, stem: &str) -> Result<Self> {
        if path == Some(Path::new("-")) {
            ensure!(
                !io::stdout().is_terminal(),
                "an archive is nothing for a terminal: name a file"
            );
            return Ok(Self::Standard);
        }
        let path = path.map_or_else(|| PathBuf::from(format!("{stem}.tar.gz")), Path::to_owned);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let place = path.display();
        let file = file.with_context(|| format!("cannot make {place}: is it there already?"))?;
        Ok(Self::File(file, path, false))
    }

    fn write(mut self, collected: Collected) -> Result<()> {
        let missing = match &mut self {
            Self::Standard => {
                let packed = pack(collected, io::stdout().lock(), "-");
                packed.context("cannot write to standard output")?.1
            }
            Self::File(file, path, is_whole) => {
                let shown = path.display().to_string();
                let packed = pack(collected, &mut *file, &shown);
                let (_, missing) = packed.with_context(|| format!("cannot write {shown}"))?;
                file.sync_all().with_context(|| format!("cannot write {shown}"))?;
                *is_whole = true;
                let bytes = file.metadata().map_or(0, |file| file.len());
                aside::say(&format!("wrote {shown} ({} kB)", bytes.div_ceil(1024)));
                missing
            }
        };
        for missing in missing {
            aside::say(&format!("not in it: {missing}"));
        }
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Self::File(_, path, false) = self {
            // That it is not whole has been said.
            let _ = fs::remove_file(path);
        }
    }
}
