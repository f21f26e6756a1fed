//! `ctwatch check`: one line and an exit code for monitoring. No eBPF: it is over too soon to be
//! worth loading programs for.

use std::{collections::BTreeMap, io::Write, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use super::{
    Between,
    past_check::{self, PastVerdict},
    scope, setup,
};
use crate::{
    cli::{self, CheckArgs, CheckOutput, LimitArgs, Which},
    host::{
        self,
        kernel::{
            modules::{self, ABSENT, Life, Presence},
            privileges::{Privilege, Privileges, Work, keep},
        },
        machine::statefile,
        netns::{self, Netns},
    },
    model::{
        remembered::{CallMoment, Remembered},
        verdict::{Limits, State, Thresholds, Verdict, judge},
    },
    observe::{
        census::{Question, Way},
        sampler::Scope,
        schedule::{self, When},
        session::{Beginning, Wishes},
        wanted::Whose,
    },
    output::text::{check, npd},
    recording::mask::Mask,
};

/// Whoever runs plugins gives up on one that is late, and does not learn why. Beyond the time that
/// was asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code is the message: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; 0, 1 and 2 for node-problem-detector.
pub async fn run(args: &CheckArgs, mask: Option<Mask>) -> ExitCode {
    let is_masked = mask.is_some();
    match timeout(args.period + PATIENCE, look(args, mask)).await {
        Ok(Ok(answer)) => answer.tell(args.output),
        Ok(Err(error)) => unknown(&super::said(&error, is_masked), args.output),
        Err(_) => unknown("the kernel did not answer in time", args.output),
    }
}

/// Without having looked.
pub fn unknown(why: &str, output: CheckOutput) -> ExitCode {
    Answer::Said(State::Unknown, why.to_owned()).tell(output)
}

/// What a check comes to.
enum Answer {
    /// With notes about what was not looked at.
    Judged(Verdict, Vec<String>),
    /// Where no table was judged.
    Said(State, String),
}

impl Answer {
    fn tell(&self, output: CheckOutput) -> ExitCode {
        let (state, line) = match (self, output) {
            (Self::Judged(verdict, notes), CheckOutput::Plugin) => {
                (verdict.state, check::line(verdict, notes))
            }
            (Self::Judged(verdict, _), CheckOutput::Npd) => (verdict.state, npd::line(verdict)),
            (Self::Said(state, text), CheckOutput::Plugin) => (*state, check::said(*state, text)),
            (Self::Said(state, text), CheckOutput::Npd) => (*state, npd::said(*state, text)),
        };
        // Whoever does not read the line may still look at the code.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
        ExitCode::from(match output {
            CheckOutput::Plugin => state as u8,
            CheckOutput::Npd => npd::code(state),
        })
    }
}

async fn look(args: &CheckArgs, mask: Option<Mask>) -> Result<Answer> {
    if mask.is_some() && args.state.is_some() {
        bail!("--state FILE remembers names as they are: it does not go with --mask");
    }
    let thresholds = Thresholds::given(limits(&args.warning)?, limits(&args.critical)?);
    if let Some(why) = thresholds.contradiction() {
        bail!(why);
    }
    let asked = thresholds.warning.dropped.or(thresholds.critical.dropped).is_some();
    if asked && args.state.is_none() {
        bail!("dropped=N counts from one call to the next: it needs --state FILE");
    }
    if let Some(path) = &args.from {
        return recorded(args, path, &thresholds, mask);
    }
    let before = args.state.as_deref().map(remembered).transpose()?.flatten();
    let life = match modules::presence() {
        Presence::Loaded(life) => life,
        Presence::Absent => return absent(args, before.as_ref()),
        Presence::OutOfSight(why) => bail!("{why}"),
    };
    if args.state.is_some() && life.number().is_none() {
        bail!(
            "whether nf_conntrack was loaded again since the last call cannot be seen here: \
             /sys/module is hidden"
        );
    }
    let privileges = Privileges::read();
    let (scope, mut notes) = scope(&args.which, privileges)?;
    let whose = scope::whose(&args.which, &scope);
    let place = place(&args.which, &scope);
    let (means, header) = setup::without_programs(scope.clone(), whose, privileges, args.period)?;
    notes.extend(header.notes.iter().cloned());
    notes.extend(scope::unseen_processes(&scope, privileges));
    let cookies = means.cookies;
    let pinned = thresholds.warning.pinned.or(thresholds.critical.pinned).is_some();
    let may = privileges.has(Privilege::NetAdmin);
    let question = Question { by: Vec::new(), most: 0, scope, whose, only_judged: true };
    let census = schedule::Wanted { when: When::Last, way: Way::NoProgram, cookies, question };
    let census = (pinned && may).then_some(census);
    let wishes = Wishes {
        interval: args.period,
        count: None,
        loading: false,
        most: 0,
        by: Vec::new(),
        insertions: false,
    };
    let beginning = Beginning { means, header, census };
    let Between { sample, snapshot, uncounted } =
        super::between(wishes, beginning, mask, || {}).await?;
    let uncounted = uncounted.or((pinned && !may).then(|| "needs CAP_NET_ADMIN".to_owned()));
    let mut since = None;
    if let Some(path) = &args.state {
        let found = if cookies { BTreeMap::new() } else { netns::find()? };
        let way = |inode: u32| found.get(&inode).and_then(Netns::way);
        // The file does not grow with what strangers make.
        let judged: Vec<_> =
            sample.tables.iter().filter(|table| table.is_judged).cloned().collect();
        let now = Remembered::new(moment(Some(life), place)?, &judged, way);
        since = Some(now.since(before.as_ref()));
        if before.is_none() {
            notes.push(format!("counting begins with this call, in {}", path.display()));
        }
        // All but what files may take.
        keep(Work::Rest, true)?;
        // Before anything is said: what cannot be kept would be missed at the next call.
        statefile::write(path, &now.text()?)?;
    }
    let verdict = judge(&snapshot, uncounted.as_deref(), since.as_ref(), &thresholds);
    // Where all are judged alike, it does not matter whose they are.
    if whose != Whose::All {
        notes.extend(check::unowned(&verdict));
    }
    Ok(Answer::Judged(verdict, notes))
}

/// As it was then.
fn recorded(
    args: &CheckArgs,
    path: &Path,
    thresholds: &Thresholds,
    mask: Option<Mask>,
) -> Result<Answer> {
    let PastVerdict { verdict, time } =
        past_check::check(path, args.at, args.period, thresholds, mask)?;
    Ok(Answer::Judged(verdict, vec![format!("as it was at {time}")]))
}

/// Nothing is tracked now. That may have been otherwise since the last call.
fn absent(args: &CheckArgs, before: Option<&Remembered>) -> Result<Answer> {
    if let Some(path) = &args.state {
        let now = Remembered::new(moment(None, String::new())?, &[], |_| None);
        statefile::write(path, &now.text()?)?;
    }
    if let Some(why) = before.and_then(Remembered::lost) {
        return Ok(Answer::Said(State::Unknown, why.to_owned()));
    }
    let text = format!("{ABSENT}: nothing is tracked, and conntrack drops nothing");
    Ok(Answer::Said(State::Ok, text))
}

/// What the last call left; never anything else, which would be overwritten.
fn remembered(path: &Path) -> Result<Option<Remembered>> {
    let Some(text) = statefile::read(path)? else { return Ok(None) };
    let known = Remembered::parse(&text).with_context(|| {
        format!("{} is no state file of this ctwatch: name another, or remove it", path.display())
    });
    known.map(Some)
}

fn moment(life: Option<Life>, scope: String) -> Result<CallMoment> {
    Ok(CallMoment {
        time: jiff::Timestamp::now().as_second(),
        boot_id: host::boot_id().context("whether this is the same boot is unknown")?,
        conntrack: life.and_then(Life::number),
        scope,
    })
}

/// In words that a later call compares with its own.
fn place(which: &Which, scope: &Scope) -> String {
    let place = match (which.one(), scope) {
        // Whichever has that name by now.
        (Some(cli::NetnsArg::Name(name) | cli::NetnsArg::Word(name)), _) => {
            format!("namespace {name}")
        }
        (Some(cli::NetnsArg::Path(path)), _) => format!("namespace {}", path.display()),
        (_, Scope::One(target)) => format!("namespace {}", target.inode),
        (_, Scope::Some(..)) => format!("namespaces {}", which.words()),
        (_, Scope::All) => "all namespaces".to_owned(),
        (_, Scope::Own) => "the namespace it runs in".to_owned(),
    };
    match which.owner {
        Some(owner) => format!("{place}, owner {owner}"),
        None => place,
    }
}

/// Where nobody said which, as much as may be looked into; and what was not.
fn scope(which: &Which, privileges: Privileges) -> Result<(Scope, Vec<String>)> {
    const OTHERS: &str = "other namespaces not looked into: needs CAP_SYS_ADMIN";
    let scope = scope::scope(which, privileges)?;
    let alone = scope == Scope::Own && !privileges.has(Privilege::SysAdmin);
    match which.one() {
        Some(cli::NetnsArg::All) if alone => bail!(OTHERS),
        None if alone && which.is_any() => Ok((scope, vec![OTHERS.to_owned()])),
        _ => Ok((scope, Vec::new())),
    }
}

/// `None`: not given.
fn limits(args: &[LimitArgs]) -> Result<Option<Limits>> {
    if args.is_empty() {
        return Ok(None);
    }
    let mut limits = Limits::default();
    for limit in args {
        let (name, known, value) = match limit {
            LimitArgs::Fill(percent) => ("fill", &mut limits.fill, *percent),
            LimitArgs::Pinned(percent) => ("pinned", &mut limits.pinned, *percent),
            LimitArgs::Drops(per_s) => ("drops", &mut limits.drops, *per_s),
            LimitArgs::Full(time) => ("full", &mut limits.full, time.as_secs_f64()),
            LimitArgs::Dropped(packets) => ("dropped", &mut limits.dropped, f64::from(*packets)),
        };
        if known.replace(value).is_some() {
            bail!("{name} has two limits of one kind");
        }
    }
    Ok(Some(limits))
}
