//! `ctwatch doctor`: what is wrong here, why, and what to do about it; and what can be measured, by
//! what means, and why not better.

use std::{collections::BTreeMap, io, time::Duration};

use anyhow::{Context, Result, bail};
use ctwatch_abi::top::{By, Wanted};

use super::{scope, setup, write};
use crate::{
    cli::{DoctorArgs, Output},
    diagnosis::{
        self, Case,
        report::{
            Capability, Configuration, Conntrack, Figure, Offer, Report, Signal as SignalReport,
            Tracking,
        },
        tracking,
    },
    host::{
        self,
        kernel::{
            config,
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
    output::{aside, doctor, json},
    probe::{
        acquire::{Acquired, Depth, acquire},
        load::Asked,
        plan::{Facts, Mechanism, Need, Plan, Signal},
    },
    record::facts::Facts as Machine,
    threads,
};

/// A table that is full, or in which insertions failed, is counted for so long, unless somebody says
/// otherwise.
const COUNT: Duration = Duration::from_secs(1);
/// Of each list of a census.
const MOST: usize = 20;
/// By what it is told who is refused.
const BY: [By; 4] = [By::Source, By::Service, By::Interface, By::Process];

pub async fn run(args: DoctorArgs) -> Result<()> {
    // Before anything else: what cannot be written is known at once.
    let folder = args.write.as_deref().map(write::Folder::open).transpose()?;
    let report = examine(&args).await?;
    keep(Work::Rest, folder.is_some())?;
    let files = folder.map(|folder| folder.write(&report.findings)).transpose();
    for file in files.iter().flatten().flatten() {
        aside::say(&format!("wrote {}", file.display()));
    }
    let mut out = io::stdout().lock();
    let written = match args.output {
        Output::Text => doctor::write(&mut out, &report, super::columns()),
        Output::Json => json::write_line(&mut out, &report),
    };
    files?;
    match written {
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

async fn examine(args: &DoctorArgs) -> Result<Report> {
    let conntrack = match modules::presence() {
        Presence::Loaded(Life::Module(_)) => Conntrack::Module,
        Presence::Loaded(Life::BuiltIn) => Conntrack::BuiltIn,
        Presence::Loaded(Life::Unknown) => Conntrack::Loaded,
        Presence::Absent => Conntrack::Absent,
        Presence::OutOfSight(why) => bail!("{why}"),
    };
    let request = setup::request(args.mechanism);
    let privileges = Privileges::read();
    let lists = Wanted::of(BY);
    let Acquired { facts, plan, probes, cookies } =
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
            Some(count(beginning, duration, args.duration.is_some()).await?)
        }
        // What was attached to find out that it can be is let go again.
        None => {
            drop(probes);
            None
        }
    };
    let census = census(&machine, scope, whose, cookies);
    let case = Case {
        facts: &machine,
        census: census.as_ref().map_err(String::as_str),
        live: live.as_ref(),
        settings: Default::default(),
    };
    Ok(Report {
        tracking: tracking::tracking(&machine),
        findings: diagnosis::findings(&case),
        ..measured(&facts, &plan, privileges, conntrack)
    })
}

/// From one reading to another. Somebody who asked for it may want to know from when on.
async fn count(beginning: Beginning, interval: Duration, say: bool) -> Result<Snapshot> {
    let (by, most) = (BY.to_vec(), MOST);
    let wishes = Wishes { interval, count: None, loading: false, most, by };
    let said = || {
        if say {
            aside::say(&format!("counting for {interval:?}"));
        }
    };
    Ok(*super::between(wishes, beginning, said).await?.snapshot)
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

/// How it is counted here, and how exactly.
fn measured(facts: &Facts, plan: &Plan, privileges: Privileges, conntrack: Conntrack) -> Report {
    let kprobe_misses = facts.of(Need::KprobeMisses).is_ok();
    let kernel = host::kernel_release();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        conntrack,
        capabilities: Privilege::ALL
            .map(|privilege| Capability {
                name: privilege.name(),
                held: privileges.has(privilege),
                purpose: privilege.purpose(),
            })
            .to_vec(),
        configuration: match config::read(&kernel) {
            Ok(config) => Configuration {
                source: Some(config.source),
                why: None,
                options: config.options.into_iter().collect(),
            },
            Err(error) => Configuration {
                source: None,
                why: Some(format!("{error:#}")),
                options: BTreeMap::new(),
            },
        },
        kernel,
        offers: Need::ALL
            .map(|need| Offer {
                name: need.name(),
                offered: facts.of(need).is_ok(),
                why: facts.of(need).err().map(str::to_owned),
            })
            .to_vec(),
        signals: Signal::ALL
            .map(|signal| SignalReport {
                name: signal.name(),
                mechanism: plan.mechanism(signal).map(Mechanism::name),
            })
            .to_vec(),
        figures: figures(plan, kprobe_misses, facts.of(Need::Counters).is_ok()),
        refused: plan.refusals(),
        advice: advice(facts, plan, privileges, conntrack),
        tracking: Tracking::default(),
        findings: Vec::new(),
    }
}

/// What each figure is worth by what was chosen; docs/exactness.md says it at length.
fn figures(plan: &Plan, kprobe_misses: bool, counters: bool) -> Vec<Figure> {
    use Mechanism::{Counters, Fexit, Kprobe, Tracepoint};
    const EXACT: &str = "exact";
    const NONE: &str = "unavailable";
    let drops = plan.mechanism(Signal::Drops);
    let table_full = match drops {
        Some(Fexit) => EXACT,
        Some(Kprobe) => "exact, the counters being a second witness",
        Some(Tracepoint) => "exact, unless invalid packets or a shortage of memory leave a doubt",
        Some(Counters) => "upper bound: full table, no memory and tracker together",
        _ => NONE,
    };
    let confirm = match drops {
        Some(Fexit | Kprobe) => EXACT,
        Some(Tracepoint) => "exact without NAT; with it, exact together with the other",
        Some(Counters) => "upper bound: both together",
        _ => NONE,
    };
    let entries = |signal| match plan.mechanism(signal) {
        Some(Fexit | Tracepoint) => EXACT,
        Some(Kprobe) if kprobe_misses => "exact, or bounds by what the kernel says was missed",
        Some(Kprobe) => "lower bound: this kernel does not say what kprobes miss",
        Some(Counters) => "exact while insert - delete_list is what is there, else lower bound",
        _ => NONE,
    };
    let counted = if counters { EXACT } else { NONE };
    let figure = |name, exactness| Figure { name, exactness };
    vec![
        figure("table_full", table_full),
        figure(
            "no_memory, tracker",
            match drops {
                Some(Fexit | Kprobe) => "exact where only one of them can be, otherwise bounds",
                Some(_) => "exact where 0, otherwise upper bound",
                None => NONE,
            },
        ),
        figure("clash, nat_exhausted", confirm),
        figure("chain_too_long", counted),
        figure("early_drop, invalid", counted),
        figure("insertions", entries(Signal::Insertions)),
        figure("removals", entries(Signal::Removals)),
    ]
}

/// What somebody could do to make it better.
fn advice(facts: &Facts, plan: &Plan, privileges: Privileges, conntrack: Conntrack) -> Vec<String> {
    let mut advice = Vec::new();
    let mut say = |words: &str| advice.push(words.to_owned());
    let lacking: Vec<&str> = Privilege::ALL
        .into_iter()
        .filter(|privilege| !privileges.has(*privilege))
        .map(Privilege::name)
        .collect();
    if !lacking.is_empty() {
        say(&format!("run it as root, or with {}", lacking.join(", ")));
    }
    let best = plan.mechanism(Signal::Drops) == Some(Mechanism::Fexit);
    if facts.of(Need::Bpf).is_ok() && !best {
        match (facts.of(Need::EntryLayout), facts.of(Need::Fexit)) {
            (Err(_), _) => say(
                "a kernel with CONFIG_DEBUG_INFO_BTF: without it nobody knows where in an entry \
                 to look, and the counters are all there is",
            ),
            (_, Err(_)) => {
                say("a kernel that lets programs be attached to conntrack's functions by BTF \
                 (Linux 5.15 with CONFIG_DEBUG_INFO_BTF_MODULES, where conntrack is a module): \
                 they cost least and miss nothing")
            }
            _ => {}
        }
    }
    if best && conntrack == Conntrack::Module {
        say("to know: programs by BTF hold the module, so nf_conntrack cannot be unloaded while \
             ctwatch watches; it lets go when it ends (--mechanism kprobe does not hold it)");
    }
    if conntrack == Conntrack::Absent {
        say("to know: watch waits for nf_conntrack to be loaded, and loads nothing itself");
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::plan::{Request, plan};

    fn facts(missing: &[Need]) -> Facts {
        let mut facts = Facts::new();
        for need in Need::ALL {
            let fact = if missing.contains(&need) { Err("no".to_owned()) } else { Ok(()) };
            facts.set(need, fact);
        }
        facts
    }

    fn promises(missing: &[Need], request: Request) -> Vec<&'static str> {
        let facts = facts(missing);
        let figures = figures(
            &plan(&facts, request),
            facts.of(Need::KprobeMisses).is_ok(),
            facts.of(Need::Counters).is_ok(),
        );
        figures.into_iter().map(|figure| figure.exactness).collect()
    }

    #[test]
    fn what_is_promised_follows_from_what_was_chosen() {
        let best = promises(&[], Request::Auto);
        assert_eq!((best[0], best[2], best[5]), ("exact", "exact", "exact"));
        let least = promises(&[Need::Bpf, Need::EntryCounts], Request::Auto);
        assert!(least[0].starts_with("upper bound") && least[5] == "unavailable", "{least:?}");
        assert_eq!(least[4], "exact", "counters have these of their own");
        let old = promises(&[Need::Bpf], Request::Auto);
        assert!(old[5].starts_with("exact while") && old[5] == old[6], "{old:?}");
        let probes = promises(&[Need::KprobeMisses], Request::Only(Mechanism::Kprobe));
        assert!(probes[5].starts_with("lower bound"), "{probes:?}");
        let nothing = promises(&Need::ALL, Request::Auto);
        assert!(nothing.iter().all(|promise| *promise == "unavailable"), "{nothing:?}");
    }

    #[test]
    fn advice_is_for_what_is_missing() {
        let all = Privileges::all();
        let of = |missing: &[Need], conntrack| {
            let facts = facts(missing);
            advice(&facts, &plan(&facts, Request::Auto), all, conntrack)
        };
        assert!(of(&[], Conntrack::BuiltIn).is_empty());
        assert!(of(&[], Conntrack::Module)[0].contains("cannot be unloaded"));
        assert!(of(&[Need::Fexit], Conntrack::Module)[0].contains("BTF_MODULES"));
        assert!(
            of(&[Need::Fexit, Need::EntryLayout], Conntrack::Module)[0]
                .contains("CONFIG_DEBUG_INFO_BTF:")
        );
        assert!(of(&Need::ALL, Conntrack::Absent)[0].contains("waits for"));
    }
}
